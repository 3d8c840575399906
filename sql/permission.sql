-- permission.sql: the one gate, and what policies ask.

CREATE FUNCTION partner_portal.is_operator() RETURNS boolean
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_is_operator';
COMMENT ON FUNCTION partner_portal.is_operator() IS 'Whether who is asking runs the platform: an operator''s account, or a superuser with nobody signed in.';
REVOKE ALL ON FUNCTION partner_portal.is_operator() FROM PUBLIC;

CREATE FUNCTION partner_portal.authorize(permission text, workspace_id bigint) RETURNS void
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'partner_portal_authorize';
COMMENT ON FUNCTION partner_portal.authorize(text, bigint) IS
'The one gate: returns when the identity has the permission on the workspace. 42501 nobody signed in, or visible without the permission; P0002 not visible or absent; 22023 no such permission; 22004 NULL.
"bill" and "manage_portals" on a partner''s own workspace are about what the partner issues and runs itself.';
REVOKE ALL ON FUNCTION partner_portal.authorize(text, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.may(permission text, workspace_id bigint) RETURNS boolean
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_may';
COMMENT ON FUNCTION partner_portal.may(text, bigint) IS
'Whether authorize() would let the identity through; false for nobody and for what is not there. 22023 no such permission. Not for policies.';
REVOKE ALL ON FUNCTION partner_portal.may(text, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.acting_role() RETURNS text
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_acting_role';
COMMENT ON FUNCTION partner_portal.acting_role() IS 'Role of the identity in the acting workspace: owner, administrator, member, guest; NULL when it acts nowhere.';
REVOKE ALL ON FUNCTION partner_portal.acting_role() FROM PUBLIC;

CREATE FUNCTION partner_portal.looks_after(workspace_id bigint) RETURNS boolean
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_looks_after';
COMMENT ON FUNCTION partner_portal.looks_after(bigint) IS 'Whether one acts as owner or administrator of the workspace''s partner. For policies.';
REVOKE ALL ON FUNCTION partner_portal.looks_after(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.own_workspace(permission text) RETURNS bigint
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_own_workspace';
COMMENT ON FUNCTION partner_portal.own_workspace(text) IS 'The acting workspace if one''s role there has the permission; else NULL. For policies.';
REVOKE ALL ON FUNCTION partner_portal.own_workspace(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.granted_workspaces(permission text) RETURNS bigint[]
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_granted_workspaces';
COMMENT ON FUNCTION partner_portal.granted_workspaces(text) IS 'Workspaces on which one has the permission as a partner''s staff or by a complete grant. For policies.';
REVOKE ALL ON FUNCTION partner_portal.granted_workspaces(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.lowest_partner_key() RETURNS bigint
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_lowest_partner_key';
COMMENT ON FUNCTION partner_portal.lowest_partner_key() IS
'With highest_partner_key(), the range of partner_key that is the identity''s to look after: its own for an owner or administrator of a partner, every one for the operator, NULL (none) for others. For policies.';
REVOKE ALL ON FUNCTION partner_portal.lowest_partner_key() FROM PUBLIC;

CREATE FUNCTION partner_portal.highest_partner_key() RETURNS bigint
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_highest_partner_key';
COMMENT ON FUNCTION partner_portal.highest_partner_key() IS 'Upper end of the range that lowest_partner_key() begins. For policies.';
REVOKE ALL ON FUNCTION partner_portal.highest_partner_key() FROM PUBLIC;

CREATE FUNCTION partner_portal.restoring_session() RETURNS boolean
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'partner_portal_restoring_session';
COMMENT ON FUNCTION partner_portal.restoring_session() IS
'Whether this session loads a dump: partner_portal.restoring, or row_security and check_function_bodies off as pg_dump sets them, by a role that bypasses row security.';
REVOKE ALL ON FUNCTION partner_portal.restoring_session() FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.is_operator()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.authorize(text, bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.may(text, bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.acting_role()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.looks_after(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.own_workspace(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.granted_workspaces(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.lowest_partner_key()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.highest_partner_key()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.restoring_session()');
