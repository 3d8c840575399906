-- people.sql: accounts, and who belongs to a workspace.
--
-- A membership that somebody else made for an account that was already there is pending (accepted_at NULL) and counts
-- for nothing until that account accepts it: nobody is put in charge of anything without a word.

CREATE FUNCTION partner_portal.make_account(email text, name text, OUT account_id bigint, OUT is_new boolean)
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.checked_email(email);
	IF name IS NOT NULL THEN
		PERFORM partner_portal.checked_text('name', name, 200);
	END IF;
	SELECT a.account_id, false INTO make_account.account_id, is_new FROM partner_portal.account a
	WHERE lower(a.email COLLATE "C") = lower(make_account.email COLLATE "C");
	IF FOUND THEN
		RETURN;
	END IF;
	INSERT INTO partner_portal.account AS a (email, name) VALUES (make_account.email, make_account.name)
	ON CONFLICT DO NOTHING
	RETURNING a.account_id, true INTO make_account.account_id, is_new;
	IF NOT FOUND THEN
		SELECT a.account_id, false INTO make_account.account_id, is_new FROM partner_portal.account a
		WHERE lower(a.email COLLATE "C") = lower(make_account.email COLLATE "C");
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.make_account(text, text) IS
'Returns the account of an e-mail address, made with that name if there was none; an existing account keeps its name.';
REVOKE ALL ON FUNCTION partner_portal.make_account(text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.checked_role(role text) RETURNS text
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.checked_text('role', role, 64);
	IF role NOT IN ('owner', 'administrator', 'member', 'guest') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown role "%s"', role),
			HINT = 'Roles are owner, administrator, member and guest.';
	END IF;
	RETURN role;
END
$$;
COMMENT ON FUNCTION partner_portal.checked_role(text) IS 'Returns the role of a member as given. 22004 NULL, 22001 and 22023 any other.';
REVOKE ALL ON FUNCTION partner_portal.checked_role(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.make_member(workspace_id bigint, email text, name text, role text) RETURNS partner_portal.member
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	person record;
	made partner_portal.member;
BEGIN
	PERFORM partner_portal.checked_role(role);
	person := partner_portal.make_account(email, name);
	INSERT INTO partner_portal.member AS m (workspace_id, account_id, partner_key, role, accepted_at)
	SELECT w.workspace_id, person.account_id, w.partner_key, make_member.role,
		CASE WHEN person.is_new OR person.account_id = partner_portal.current_account_id() THEN now() END
	FROM partner_portal.workspace w
	WHERE w.workspace_id = make_member.workspace_id
	ON CONFLICT ON CONSTRAINT member_pkey DO NOTHING
	RETURNING m.* INTO made;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'unique_violation',
			MESSAGE = format('account %s is already a member of workspace %s', person.account_id, workspace_id),
			HINT = 'Use set_member_role() to change its role.';
	END IF;
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.make_member(bigint, text, text, text) IS
'Makes the account of an e-mail address a member: at once if the account is new or the one signed in, else pending. 23505 is one already.';
REVOKE ALL ON FUNCTION partner_portal.make_member(bigint, text, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.add_member(workspace_id bigint, email text, role text) RETURNS partner_portal.member
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace;
BEGIN
	IF NOT partner_portal.is_operator() THEN
		IF NOT partner_portal.is_trusted() THEN
			RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
				MESSAGE = 'only the operator or a trusted application may add a member without an invitation';
		END IF;
		IF partner_portal.current_account_id() IS NOT NULL THEN
			PERFORM partner_portal.authorize('manage_people', workspace_id);
			PERFORM partner_portal.require_rank_over(workspace_id, role);
		END IF;
	END IF;
	SELECT w.* INTO target FROM partner_portal.workspace w WHERE w.workspace_id = add_member.workspace_id FOR KEY SHARE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('workspace %s not found', workspace_id);
	END IF;
	IF target.deleted_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is deleted', workspace_id);
	END IF;
	RETURN partner_portal.make_member(workspace_id, email, NULL, role);
END
$$;
COMMENT ON FUNCTION partner_portal.add_member(bigint, text, text) IS
'Adds a member without any mail, making the account if there is none. An account that was there must accept_membership() first, unless it is the one signed in. The operator, or a trusted application: with nobody signed in it vouches, with somebody manage_people is asked. 42501; P0002; 23505 is a member; PP005 deleted.';
REVOKE ALL ON FUNCTION partner_portal.add_member(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.require_rank_over(workspace_id bigint, role text) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF role = 'owner' AND NOT partner_portal.is_operator() AND NOT EXISTS (
		SELECT FROM partner_portal.member m
		WHERE m.workspace_id = require_rank_over.workspace_id AND m.account_id = partner_portal.current_account_id()
			AND m.role = 'owner' AND m.accepted_at IS NOT NULL)
	THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('only an owner of workspace %s may make, change or remove an owner', workspace_id);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.require_rank_over(bigint, text) IS
'Returns when the identity may manage people of that role: owners are the matter of owners and the operator, neither of administrators nor of a partner''s account owner. Else 42501.';
REVOKE ALL ON FUNCTION partner_portal.require_rank_over(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.accept_membership(workspace_id bigint) RETURNS partner_portal.member
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	accepted partner_portal.member;
	is_deleted boolean;
BEGIN
	IF partner_portal.current_account_id() IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
	END IF;
	SELECT m.* INTO accepted FROM partner_portal.member m
	WHERE m.workspace_id = accept_membership.workspace_id AND m.account_id = partner_portal.current_account_id()
	FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('workspace %s not found', workspace_id);
	END IF;
	SELECT w.deleted_at IS NOT NULL INTO is_deleted FROM partner_portal.workspace w WHERE w.workspace_id = accept_membership.workspace_id;
	IF is_deleted THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is deleted', workspace_id);
	END IF;
	IF accepted.accepted_at IS NULL THEN
		UPDATE partner_portal.member m SET accepted_at = now()
		WHERE m.workspace_id = accept_membership.workspace_id AND m.account_id = accepted.account_id
		RETURNING m.* INTO accepted;
	END IF;
	RETURN accepted;
END
$$;
COMMENT ON FUNCTION partner_portal.accept_membership(bigint) IS
'Accepts, for the account signed in, a membership that somebody else made; does nothing if it is accepted already. 42501 nobody signed in; P0002 no such membership; PP005 the workspace is deleted.';
REVOKE ALL ON FUNCTION partner_portal.accept_membership(bigint) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('trusted_application', 'EXECUTE', 'FUNCTION partner_portal.add_member(bigint, text, text)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.add_member(bigint, text, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.accept_membership(bigint)');
