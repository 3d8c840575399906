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
	LOOP
		-- locked, so that it is not erased meanwhile; one that was just now has another address
		SELECT a.account_id, false INTO make_account.account_id, is_new FROM partner_portal.account a
		WHERE lower(a.email COLLATE "C") = lower(make_account.email COLLATE "C")
		FOR KEY SHARE;
		EXIT WHEN FOUND;
		INSERT INTO partner_portal.account AS a (email, name) VALUES (make_account.email, make_account.name)
		ON CONFLICT DO NOTHING
		RETURNING a.account_id, true INTO make_account.account_id, is_new;
		EXIT WHEN FOUND;
	END LOOP;
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
	IF workspace_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_id must not be null';
	END IF;
	SELECT w.* INTO target FROM partner_portal.workspace w WHERE w.workspace_id = add_member.workspace_id FOR KEY SHARE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('workspace %s not found', workspace_id);
	END IF;
	-- one that lost its owner meanwhile is given another before it is restored
	IF target.deleted_at IS NOT NULL AND NOT (partner_portal.is_operator() AND target.purged_at IS NULL AND role IS NOT DISTINCT FROM 'owner') THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is deleted', workspace_id);
	END IF;
	RETURN partner_portal.make_member(workspace_id, email, NULL, role);
END
$$;
COMMENT ON FUNCTION partner_portal.add_member(bigint, text, text) IS
'Adds a member without any mail, making the account if there is none. An account that was there must accept_membership() first, unless it is the one signed in. The operator, or a trusted application: with nobody signed in it vouches, with somebody manage_people is asked. 42501; P0002; 23505 is a member; PP005 deleted, but for an owner whom the operator adds before restore_workspace().';
REVOKE ALL ON FUNCTION partner_portal.add_member(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.require_rank_over(workspace_id bigint, role text) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF role = 'owner' AND NOT partner_portal.is_operator() AND NOT EXISTS (
		SELECT FROM partner_portal.member m
		WHERE m.workspace_id = require_rank_over.workspace_id AND m.account_id = partner_portal.current_account_id()
			AND m.role = 'owner' AND m.accepted_at IS NOT NULL)
		-- who was named as its first owner has turned it down
		AND (EXISTS (SELECT FROM partner_portal.member m WHERE m.workspace_id = require_rank_over.workspace_id AND m.role = 'owner')
			OR NOT EXISTS (SELECT FROM partner_portal.staff s
				WHERE s.workspace_id = require_rank_over.workspace_id AND s.account_id = partner_portal.current_account_id() AND s.role = 'account_owner'))
	THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('only an owner of workspace %s may make, change or remove an owner', workspace_id);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.require_rank_over(bigint, text) IS
'Returns when the identity may manage people of that role: owners are the matter of owners and the operator, neither of administrators nor of a partner''s account owner; but that one finds an owner for a workspace that has none, not even one who has yet to accept. Else 42501.';
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
	IF workspace_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_id must not be null';
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

CREATE FUNCTION partner_portal.locked_member(workspace_id bigint, account_id bigint) RETURNS partner_portal.member
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_member partner_portal.member;
BEGIN
	IF account_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'account_id must not be null';
	END IF;
	SELECT m.* INTO found_member FROM partner_portal.member m
	WHERE m.workspace_id = locked_member.workspace_id AND m.account_id = locked_member.account_id
	FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('account %s is not a member of workspace %s', account_id, workspace_id);
	END IF;
	RETURN found_member;
END
$$;
COMMENT ON FUNCTION partner_portal.locked_member(bigint, bigint) IS 'Returns a membership, pending ones too, locked until the end of the transaction. 22004, P0002.';
REVOKE ALL ON FUNCTION partner_portal.locked_member(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.set_member_role(workspace_id bigint, account_id bigint, role text) RETURNS partner_portal.member
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	changed partner_portal.member;
BEGIN
	PERFORM partner_portal.authorized_live_workspace('manage_people', workspace_id);
	PERFORM partner_portal.checked_role(role);
	changed := partner_portal.locked_member(workspace_id, account_id);
	PERFORM partner_portal.require_rank_over(workspace_id, changed.role);
	PERFORM partner_portal.require_rank_over(workspace_id, role);
	IF changed.role <> role THEN
		-- who is put in charge no longer depends on a grant
		UPDATE partner_portal.member m SET role = set_member_role.role,
			grant_id = CASE WHEN set_member_role.role IN ('member', 'guest') THEN m.grant_id END,
			ends_at = CASE WHEN set_member_role.role IN ('member', 'guest') THEN m.ends_at END
		WHERE m.workspace_id = set_member_role.workspace_id AND m.account_id = set_member_role.account_id
		RETURNING m.* INTO changed;
	END IF;
	RETURN changed;
END
$$;
COMMENT ON FUNCTION partner_portal.set_member_role(bigint, bigint, text) IS
'Gives a member another role. Needs manage_people; only an owner or the operator makes an owner or changes one; where there is none, the partner''s account owner makes one. 42501, P0002; PP004 it is the last owner; PP005 the workspace is deleted.';
REVOKE ALL ON FUNCTION partner_portal.set_member_role(bigint, bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.remove_member(workspace_id bigint, account_id bigint) RETURNS partner_portal.member
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	removed partner_portal.member;
BEGIN
	-- everyone may leave, and turn down a membership that somebody else made
	IF account_id IS DISTINCT FROM partner_portal.current_account_id() OR account_id IS NULL OR NOT EXISTS (
		SELECT FROM partner_portal.member m
		WHERE m.workspace_id = remove_member.workspace_id AND m.account_id = remove_member.account_id)
	THEN
		PERFORM partner_portal.authorized_live_workspace('manage_people', workspace_id);
		removed := partner_portal.locked_member(workspace_id, account_id);
		PERFORM partner_portal.require_rank_over(workspace_id, removed.role);
	END IF;
	DELETE FROM partner_portal.member m
	WHERE m.workspace_id = remove_member.workspace_id AND m.account_id = remove_member.account_id
	RETURNING m.* INTO removed;
	IF NOT FOUND THEN
		-- removed meanwhile
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('account %s is not a member of workspace %s', account_id, workspace_id);
	END IF;
	RETURN removed;
END
$$;
COMMENT ON FUNCTION partner_portal.remove_member(bigint, bigint) IS
'Ends a membership, and with it staff assignments and the holding of keys (the keys stay). Needs manage_people, and for an owner an owner or the operator; everyone may end one''s own, a pending one too: who turns down being the first owner leaves a workspace that the operator finds an owner for (add_member()), or the partner''s account owner (invite_member()), or that is deleted; its log tells so, and verify() names it. 42501, P0002; PP004 it is the last owner; PP005 the workspace is deleted.';
REVOKE ALL ON FUNCTION partner_portal.remove_member(bigint, bigint) FROM PUBLIC;

-- Accounts: the operator's matter, for they are not one workspace's.

CREATE FUNCTION partner_portal.operators_account(account_id bigint) RETURNS partner_portal.account
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_account partner_portal.account;
BEGIN
	PERFORM partner_portal.require_operator();
	IF account_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'account_id must not be null';
	END IF;
	SELECT a.* INTO found_account FROM partner_portal.account a WHERE a.account_id = operators_account.account_id FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('account %s not found', account_id);
	END IF;
	IF found_account.erased_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('account %s is erased', account_id);
	END IF;
	RETURN found_account;
END
$$;
COMMENT ON FUNCTION partner_portal.operators_account(bigint) IS 'Returns an account, locked, to the operator. 42501, 22004, P0002; PP005 it is erased.';
REVOKE ALL ON FUNCTION partner_portal.operators_account(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.disable_account(account_id bigint) RETURNS partner_portal.account
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	changed partner_portal.account := partner_portal.operators_account(account_id);
BEGIN
	UPDATE partner_portal.account a SET disabled_at = coalesce(a.disabled_at, now())
	WHERE a.account_id = disable_account.account_id
	RETURNING a.* INTO changed;
	RETURN changed;
END
$$;
COMMENT ON FUNCTION partner_portal.disable_account(bigint) IS
'Keeps an account out, from its next statement on; does nothing if it is out already. Its memberships and keys stay, so that enable_account() takes it back; it may be a last owner. Operator only (42501); P0002; PP005 it is erased.';
REVOKE ALL ON FUNCTION partner_portal.disable_account(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.enable_account(account_id bigint) RETURNS partner_portal.account
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	changed partner_portal.account := partner_portal.operators_account(account_id);
BEGIN
	UPDATE partner_portal.account a SET disabled_at = NULL
	WHERE a.account_id = enable_account.account_id
	RETURNING a.* INTO changed;
	RETURN changed;
END
$$;
COMMENT ON FUNCTION partner_portal.enable_account(bigint) IS 'Lets a disabled account in again. Operator only (42501); P0002; PP005 it is erased.';
REVOKE ALL ON FUNCTION partner_portal.enable_account(bigint) FROM PUBLIC;

-- Invitations and tokens go by address: whoever could take any address as one's own could wait there for another's invitation.
CREATE FUNCTION partner_portal.change_email(account_id bigint, email text) RETURNS partner_portal.account
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	changed partner_portal.account;
BEGIN
	IF NOT (partner_portal.is_operator() OR partner_portal.is_trusted()) THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator or a trusted application may change an e-mail address',
			DETAIL = 'It vouches that the address is the account''s.';
	END IF;
	IF account_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'account_id must not be null';
	END IF;
	PERFORM partner_portal.checked_email(email);
	SELECT a.* INTO changed FROM partner_portal.account a
	WHERE a.account_id = change_email.account_id
		AND (partner_portal.is_operator() OR coalesce(partner_portal.current_account_id(), a.account_id) = a.account_id)
	FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('account %s not found', account_id);
	END IF;
	IF changed.erased_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('account %s is erased', account_id);
	END IF;
	IF EXISTS (SELECT FROM partner_portal.account a
		WHERE lower(a.email COLLATE "C") = lower(change_email.email COLLATE "C") AND a.account_id <> change_email.account_id)
	THEN
		RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = 'another account has this e-mail address';
	END IF;
	UPDATE partner_portal.account a SET email = change_email.email,
		former_emails = CASE WHEN lower(a.email COLLATE "C") = lower(change_email.email COLLATE "C") THEN a.former_emails
			ELSE (a.former_emails || jsonb_build_object(lower(a.email COLLATE "C"), clock_timestamp())) - lower(change_email.email COLLATE "C") END
	WHERE a.account_id = change_email.account_id
	RETURNING a.* INTO changed;
	RETURN changed;
END
$$;
COMMENT ON FUNCTION partner_portal.change_email(bigint, text) IS
'Gives an account another e-mail address, which the caller vouches for; the one before is noted for erase_account() alone. The operator, or a trusted application: with somebody signed in for that account only, with nobody for any. 42501; P0002; 22001, 22023; 23505 another account has it; PP005 it is erased.';
REVOKE ALL ON FUNCTION partner_portal.change_email(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.erase_account(account_id bigint) RETURNS partner_portal.account
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	erased partner_portal.account := partner_portal.operators_account(account_id);
BEGIN
	-- whoever makes it a member or a user of a portal came before, or finds its address free
	PERFORM FROM partner_portal.account a WHERE a.account_id = erase_account.account_id FOR UPDATE;
	DELETE FROM partner_portal.member m WHERE m.account_id = erase_account.account_id;
	DELETE FROM partner_portal.portal_account p WHERE p.account_id = erase_account.account_id;
	DELETE FROM partner_portal.account_identity i WHERE i.account_id = erase_account.account_id;
	DELETE FROM partner_portal.role_account r WHERE r.account_id = erase_account.account_id;
	-- invitations before their mails, as whoever answers one
	PERFORM partner_portal.forget_invitations(erased);
	-- what was written to the person is about the person, and what is not sent yet would still go out. An address that was given up
	-- may be another's since; mails of lists and alerts name the account themselves
	DELETE FROM partner_portal.notification n
	WHERE lower(n.recipient COLLATE "C") = lower(erased.email COLLATE "C")
		OR n.occurred_at <= (erased.former_emails ->> lower(n.recipient COLLATE "C"))::timestamptz
		OR (n.recipient IS NOT NULL AND n.kind IN ('limit_alert', 'new_keys', 'billing_report', 'webhook_disabled')
			AND split_part(n.dedupe_key, ':', -1) = erased.account_id::text);
	DELETE FROM partner_portal.mail_opt_out o WHERE o.account_id = erase_account.account_id;
	PERFORM partner_portal.erase_activity(account_id, NULL);
	UPDATE partner_portal.account a
	-- somebody may have taken that address, which is nobody's
	SET email = 'erased-' || a.account_id || CASE WHEN EXISTS (SELECT FROM partner_portal.account o
				WHERE lower(o.email COLLATE "C") = 'erased-' || erase_account.account_id || '@erased.invalid')
			THEN '-' || left(md5(partner_portal.new_secret()), 8) ELSE '' END || '@erased.invalid', name = NULL, locale = 'en', is_operator = false,
		disabled_at = coalesce(a.disabled_at, now()), erased_at = now(), tokens_not_before = 'infinity', former_emails = '{}'
	WHERE a.account_id = erase_account.account_id
	RETURNING a.* INTO erased;
	RETURN erased;
END
$$;
COMMENT ON FUNCTION partner_portal.erase_account(bigint) IS
'Erases for good what is known about one person: address, name, memberships, staff, portals, linked identities, invitations with what they said of it, messages to its address and to those that it had before, sent or not (of an address that was changed under version 1.0 only those of lists, alerts, and invitations it accepted are known); its tokens are refused, its address is free. Keys it held stay without a holder, and what was billed stays, by number. Operator only (42501); P0002; PP004 it is the last owner of a workspace; PP005 it is erased already.';
REVOKE ALL ON FUNCTION partner_portal.erase_account(bigint) FROM PUBLIC;

-- Runs as its owner, since accounts show themselves to nobody else; every arm is filtered by the identity's own readers.
CREATE VIEW partner_portal.members WITH (security_barrier) AS
	SELECT m.workspace_id, m.account_id, a.email, CASE WHEN m.accepted_at IS NOT NULL OR m.account_id = (SELECT partner_portal.current_account_id()) THEN a.name END AS name,
		m.role, m.created_at, m.accepted_at, m.accepted_at IS NOT NULL AND a.disabled_at IS NOT NULL AS disabled
	FROM partner_portal.member m
	JOIN partner_portal.account a ON a.account_id = m.account_id
	WHERE (m.ends_at IS NULL OR m.ends_at > now())
		AND (m.workspace_id = (SELECT partner_portal.own_workspace('read'))
			OR m.account_id = (SELECT partner_portal.current_account_id())
			OR m.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
			OR m.workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[]));
COMMENT ON VIEW partner_portal.members IS
'People of the workspaces that one may read, and one''s own memberships, with their addresses; pending ones have accepted_at NULL, and say nothing of the account but its address.';

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('trusted_application', 'EXECUTE', 'FUNCTION partner_portal.add_member(bigint, text, text)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.add_member(bigint, text, text)'),
	('trusted_application', 'EXECUTE', 'FUNCTION partner_portal.change_email(bigint, text)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.change_email(bigint, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.accept_membership(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.set_member_role(bigint, bigint, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.remove_member(bigint, bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.disable_account(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.enable_account(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.erase_account(bigint)'),
	('application', 'SELECT', 'TABLE partner_portal.members');
