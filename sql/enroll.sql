-- enroll.sql: gives a database role what its kind needs, now and with each upgrade.

CREATE FUNCTION partner_portal.issue_grant(role regrole, privilege text, object text) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'partner_portal_issue_grant';
COMMENT ON FUNCTION partner_portal.issue_grant(regrole, text, text) IS
'GRANT privilege ON object TO role, with the rights of the caller. What the script of an upgrade grants through it is the role''s own and part of a dump. 42704: no such role. Internal.';
REVOKE ALL ON FUNCTION partner_portal.issue_grant(regrole, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.kinds_within(as_what text) RETURNS text[]
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT CASE WHEN as_what IN ('trusted_application', 'operator') THEN ARRAY[as_what, 'application'] ELSE ARRAY[as_what] END;
END;
COMMENT ON FUNCTION partner_portal.kinds_within(text) IS
'The kinds whose rows of role_grant a role of this kind needs: its own, and those of an application where it is more than one. Internal.';
REVOKE ALL ON FUNCTION partner_portal.kinds_within(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.enroll_role(role regrole, as_what text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator may enroll a role';
	END IF;
	IF role IS NULL OR as_what IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'role and as_what must not be null';
	END IF;
	IF as_what NOT IN ('application', 'trusted_application', 'reporting', 'operator') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown kind of role "%s"', left(as_what, 64)),
			HINT = 'Kinds are application, trusted_application, reporting and operator.';
	END IF;
	IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = role) THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = format('role with OID %s does not exist', role::oid);
	END IF;
	EXECUTE format('GRANT USAGE ON SCHEMA partner_portal TO %s', role);
	PERFORM partner_portal.issue_grant(enroll_role.role, g.privilege, g.object) FROM partner_portal.role_grant g
		WHERE g.as_what = ANY (partner_portal.kinds_within(enroll_role.as_what));
	INSERT INTO partner_portal.enrolled_role (role_name, as_what)
	SELECT r.rolname, enroll_role.as_what FROM pg_roles r WHERE r.oid = role
	ON CONFLICT ON CONSTRAINT enrolled_role_pkey DO NOTHING;
END
$$;
COMMENT ON FUNCTION partner_portal.enroll_role(regrole, text) IS
'Grants a database role what an application, trusted_application, reporting or operator role needs, and remembers it for upgrades. Operator only (42501); 22023 unknown kind; 42704 no such role.';
REVOKE ALL ON FUNCTION partner_portal.enroll_role(regrole, text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('operator', 'EXECUTE', 'FUNCTION partner_portal.enroll_role(regrole, text)');

CREATE FUNCTION partner_portal.grant_to_enrolled() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.issue_grant(r.oid, n.privilege, n.object)
	FROM new_line n JOIN partner_portal.enrolled_role e ON n.as_what = ANY (partner_portal.kinds_within(e.as_what))
		JOIN pg_roles r ON r.rolname = e.role_name
	WHERE has_schema_privilege(r.oid, 'partner_portal', 'USAGE');
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.grant_to_enrolled() IS
'Statement trigger of role_grant: what an upgrade adds is granted to the roles that were enrolled, but for those that are gone or have lost USAGE on the schema. What was taken from a role by hand is not given back. Internal.';
REVOKE ALL ON FUNCTION partner_portal.grant_to_enrolled() FROM PUBLIC;
CREATE TRIGGER grant_to_enrolled AFTER INSERT ON partner_portal.role_grant
	REFERENCING NEW TABLE AS new_line FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.grant_to_enrolled();
