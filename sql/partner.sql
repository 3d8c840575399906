-- partner.sql: partners, their registration link, and who registers through it.

CREATE FUNCTION partner_portal.make_partner(workspace_id bigint) RETURNS partner_portal.partner
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	made partner_portal.partner;
BEGIN
	INSERT INTO partner_portal.partner AS p (partner_id, registration_code)
	VALUES (make_partner.workspace_id, partner_portal.new_secret())
	RETURNING p.* INTO made;
	UPDATE partner_portal.workspace w SET kind = 'partner' WHERE w.workspace_id = make_partner.workspace_id;
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.make_partner(bigint) IS 'Makes a direct workspace a partner, with a registration link; internal.';
REVOKE ALL ON FUNCTION partner_portal.make_partner(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.promote_to_partner(workspace_id bigint) RETURNS partner_portal.partner
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace;
BEGIN
	PERFORM partner_portal.require_operator();
	target := partner_portal.authorized_workspace('purge', workspace_id);
	IF target.deleted_at IS NOT NULL OR target.kind = 'partner' OR target.partner_id IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005',
			MESSAGE = format(CASE WHEN target.deleted_at IS NOT NULL THEN 'workspace %s is deleted'
				WHEN target.kind = 'partner' THEN 'workspace %s is a partner already'
				ELSE 'workspace %s is a partner''s customer' END, workspace_id),
			HINT = CASE WHEN target.deleted_at IS NOT NULL THEN 'Only a workspace that is in use becomes a partner.'
				WHEN target.kind = 'partner' THEN 'Its registration link is told by registration_url().'
				ELSE 'It must leave its partner first: partners have customers, not partners.' END;
	END IF;
	RETURN partner_portal.make_partner(workspace_id);
END
$$;
COMMENT ON FUNCTION partner_portal.promote_to_partner(bigint) IS
'Makes a direct workspace a partner, with a registration link. Operator only (42501); P0002; PP005 it is deleted, a partner already, or a partner''s customer.';
REVOKE ALL ON FUNCTION partner_portal.promote_to_partner(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.demote_partner(workspace_id bigint) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace;
BEGIN
	PERFORM partner_portal.require_operator();
	target := partner_portal.authorized_workspace('purge', workspace_id);
	IF target.kind <> 'partner' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is not a partner', workspace_id);
	END IF;
	-- whoever registers right now had the workspace FOR SHARE
	IF partner_portal.has_customers(workspace_id, true) THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('partner %s has customers', workspace_id),
			DETAIL = 'Deleted customers count too: they may be restored.',
			HINT = 'Every customer must leave or move to another partner first.';
	END IF;
	IF EXISTS (SELECT FROM partner_portal.portal p WHERE p.workspace_id = demote_partner.workspace_id) THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('partner %s has portals', workspace_id), HINT = 'Delete them first with delete_portal().';
	END IF;
	UPDATE partner_portal.workspace w SET kind = 'business' WHERE w.workspace_id = demote_partner.workspace_id
	RETURNING w.* INTO target;
	DELETE FROM partner_portal.partner p WHERE p.partner_id = demote_partner.workspace_id;
	RETURN target;
END
$$;
COMMENT ON FUNCTION partner_portal.demote_partner(bigint) IS
'Makes a partner an ordinary workspace again; its registration link is dead. Operator only (42501); P0002; PP005 it is no partner, or has customers (deleted ones too) or portals.';
REVOKE ALL ON FUNCTION partner_portal.demote_partner(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.authorized_partner(partner_id bigint) RETURNS partner_portal.partner
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_partner partner_portal.partner;
BEGIN
	IF partner_id IS NULL THEN
		IF partner_portal.current_account_id() IS NULL THEN
			RAISE EXCEPTION USING ERRCODE = CASE WHEN partner_portal.is_operator() THEN 'null_value_not_allowed' ELSE 'insufficient_privilege' END,
				MESSAGE = CASE WHEN partner_portal.is_operator() THEN 'partner_id must not be null when nobody is signed in' ELSE 'nobody is signed in' END;
		END IF;
		partner_id := partner_portal.current_partner_id();
		IF partner_id IS NULL THEN
			RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = 'the identity does not act in a partner',
				HINT = 'Name the partner, or choose it with act_in().';
		END IF;
	END IF;
	PERFORM partner_portal.authorize('manage_portals', partner_id);
	SELECT p.* INTO found_partner FROM partner_portal.partner p WHERE p.partner_id = authorized_partner.partner_id;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is not a partner', partner_id);
	END IF;
	RETURN found_partner;
END
$$;
COMMENT ON FUNCTION partner_portal.authorized_partner(bigint) IS
'Returns a partner, NULL being the identity''s own, when the identity is its owner or administrator, or the operator. Errors of authorize(); PP005 no partner.';
REVOKE ALL ON FUNCTION partner_portal.authorized_partner(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.registration_url(partner_id bigint DEFAULT NULL) RETURNS text
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_id);
BEGIN
	RETURN rtrim(current_setting('partner_portal.link_base_url'), '/') || '/register/' || asked.registration_code;
END
$$;
COMMENT ON FUNCTION partner_portal.registration_url(bigint) IS
'Link through which customers register under a partner, NULL being the identity''s own: <partner_portal.link_base_url>/register/<code>. For the partner''s owner or administrator. 42501, P0002, PP005 no partner.';
REVOKE ALL ON FUNCTION partner_portal.registration_url(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.rotate_registration_code(partner_id bigint DEFAULT NULL) RETURNS partner_portal.partner
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	rotated partner_portal.partner := partner_portal.authorized_partner(partner_id);
BEGIN
	UPDATE partner_portal.partner p SET registration_code = partner_portal.new_secret()
	WHERE p.partner_id = rotated.partner_id
	RETURNING p.* INTO rotated;
	RETURN rotated;
END
$$;
COMMENT ON FUNCTION partner_portal.rotate_registration_code(bigint) IS
'Gives a partner, NULL being the identity''s own, a new registration link; the old one is dead at once, also for a registration that is under way. For the partner''s owner or administrator. 42501, P0002, PP005 no partner.';
REVOKE ALL ON FUNCTION partner_portal.rotate_registration_code(bigint) FROM PUBLIC;

-- The code is the whole proof, so a bad, an old and a deleted partner's one get the same answer.
CREATE FUNCTION partner_portal.partner_of_code(registration_code text) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_partner partner_portal.workspace;
BEGIN
	PERFORM partner_portal.checked_text('registration_code', registration_code, 200);
	SELECT w.* INTO found_partner FROM partner_portal.workspace w
	WHERE w.workspace_id = (SELECT p.partner_id FROM partner_portal.partner p WHERE p.registration_code = partner_of_code.registration_code)
		AND w.deleted_at IS NULL
	FOR SHARE;
	-- rotate_registration_code() changes a unique key, which FOR KEY SHARE waits for
	PERFORM FROM partner_portal.partner p
	WHERE p.partner_id = found_partner.workspace_id AND p.registration_code = partner_of_code.registration_code
	FOR KEY SHARE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = 'registration code not found',
			HINT = 'The code is what follows the last slash of a registration link; ask the partner for its present one.';
	END IF;
	IF found_partner.suspended_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = 'the partner of this registration code is suspended';
	END IF;
	RETURN found_partner;
END
$$;
COMMENT ON FUNCTION partner_portal.partner_of_code(text) IS
'Returns the workspace of the partner whose registration code it is, locked against rotation, suspension and deletion until the end of the transaction. P0002 there is none; PP005 it is suspended.';
REVOKE ALL ON FUNCTION partner_portal.partner_of_code(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.register_workspace(registration_code text, company_name text, owner_email text, owner_name text DEFAULT NULL,
		slug text DEFAULT NULL, time_zone text DEFAULT NULL, confirm boolean DEFAULT false) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	partner_workspace partner_portal.workspace;
	made partner_portal.workspace;
BEGIN
	IF NOT (partner_portal.is_operator() OR partner_portal.is_trusted()) THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only a trusted application may register a workspace',
			DETAIL = 'It vouches for the owner''s e-mail address.';
	END IF;
	IF confirm IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'confirm must not be null';
	END IF;
	PERFORM partner_portal.checked_email(owner_email);
	partner_workspace := partner_portal.partner_of_code(registration_code);
	IF confirm THEN
		PERFORM partner_portal.invite_to_confirm(partner_workspace.workspace_id, company_name, owner_email, owner_name, slug, time_zone);
		RETURN NULL;
	END IF;
	made := partner_portal.make_workspace(partner_workspace.workspace_id, company_name, slug,
		coalesce(time_zone, partner_workspace.time_zone), NULL);
	PERFORM partner_portal.make_member(made.workspace_id, owner_email, owner_name, 'owner');
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.register_workspace(text, text, text, text, text, text, boolean) IS
'Registers a customer under the partner whose registration code it is, with its owner, in this transaction. time_zone NULL is the partner''s. A new account owns it at once; an existing one must accept_membership() first, unless it is the one signed in. For trusted applications, which vouch for the address. 42501; P0002 no such code; PP005 the partner is suspended; 23505 the slug is taken.
With confirm the owner''s address is not vouched for: nothing but an invitation is made, NULL is returned, and accept_invitation() completes the registration.';
REVOKE ALL ON FUNCTION partner_portal.register_workspace(text, text, text, text, text, text, boolean) FROM PUBLIC;

CREATE FUNCTION partner_portal.create_own_workspace(partner_id bigint, company_name text, slug text DEFAULT NULL,
		time_zone text DEFAULT NULL, anchor_date date DEFAULT NULL) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_id);
	partner_workspace partner_portal.workspace := partner_portal.partner_of_code(asked.registration_code);
	made partner_portal.workspace;
	owner_email text;
BEGIN
	-- the caller, if it is one of the partner's; for the operator, the partner's first owner
	SELECT a.email INTO owner_email
	FROM partner_portal.member m
	JOIN partner_portal.account a ON a.account_id = m.account_id
	WHERE m.workspace_id = asked.partner_id AND m.accepted_at IS NOT NULL
		AND (m.account_id = partner_portal.current_account_id() OR m.role = 'owner')
	ORDER BY m.account_id IS DISTINCT FROM partner_portal.current_account_id(), m.accepted_at, m.account_id
	LIMIT 1;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('partner %s has no owner yet', asked.partner_id);
	END IF;
	made := partner_portal.make_workspace(asked.partner_id, company_name, slug, coalesce(time_zone, partner_workspace.time_zone), anchor_date);
	PERFORM partner_portal.make_member(made.workspace_id, owner_email, NULL, 'owner');
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.create_own_workspace(bigint, text, text, text, date) IS
'Creates a further organisation of a partner''s own: a workspace under it, owned by who creates it (by the partner''s first owner, who must accept, when the operator does). partner_id NULL is the identity''s own; time_zone NULL the partner''s. For the partner''s owner or administrator. 42501; P0002; PP005 no partner, suspended, or without an owner; 23505 the slug is taken; 22001, 22023 bad input.';
REVOKE ALL ON FUNCTION partner_portal.create_own_workspace(bigint, text, text, text, date) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.promote_to_partner(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.demote_partner(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.registration_url(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.rotate_registration_code(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.create_own_workspace(bigint, text, text, text, date)'),
	('trusted_application', 'EXECUTE', 'FUNCTION partner_portal.register_workspace(text, text, text, text, text, text, boolean)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.register_workspace(text, text, text, text, text, text, boolean)');
