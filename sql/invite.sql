-- invite.sql: who may invite whom, send an invitation anew or take it back.

CREATE FUNCTION partner_portal.invite_partner(email text, company_name text) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	wanted partner_portal.invitation;
BEGIN
	PERFORM partner_portal.require_operator();
	wanted.workspace_id := 0;
	wanted.kind := 'partner';
	wanted.email := partner_portal.checked_email(email);
	wanted.company_name := partner_portal.checked_text('company_name', company_name, 200);
	RETURN partner_portal.create_invitation(wanted);
END
$$;
COMMENT ON FUNCTION partner_portal.invite_partner(text, text) IS
'Invites an address to become a partner: accepting makes it the owner of a new workspace that is one. Operator only (42501); 23505 it is invited already; 22004, 22001, 22023.';
REVOKE ALL ON FUNCTION partner_portal.invite_partner(text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.invite_customer(email text, company_name text DEFAULT NULL, partner_id bigint DEFAULT NULL) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_id);
	wanted partner_portal.invitation;
BEGIN
	PERFORM partner_portal.partner_of_code(asked.registration_code);
	wanted.workspace_id := asked.partner_id;
	wanted.kind := 'customer';
	wanted.email := partner_portal.checked_email(email);
	IF company_name IS NOT NULL THEN
		wanted.company_name := partner_portal.checked_text('company_name', company_name, 200);
	END IF;
	RETURN partner_portal.create_invitation(wanted);
END
$$;
COMMENT ON FUNCTION partner_portal.invite_customer(text, text, bigint) IS
'Invites an address to become a customer of a partner, NULL being the identity''s own: accepting makes it the owner of a workspace of its own, registered under the partner; its name may be left to the invited. For the partner''s owner or administrator. 42501, P0002; PP005 no partner, or suspended; 23505 it is invited already.';
REVOKE ALL ON FUNCTION partner_portal.invite_customer(text, text, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.invite_to_confirm(partner_id bigint, company_name text, owner_email text, owner_name text, slug text, time_zone text) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	wanted partner_portal.invitation;
	former partner_portal.invitation;
BEGIN
	wanted.workspace_id := partner_id;
	wanted.kind := 'customer';
	wanted.email := owner_email;
	wanted.company_name := partner_portal.checked_text('company_name', company_name, 200);
	IF owner_name IS NOT NULL THEN
		wanted.owner_name := partner_portal.checked_text('owner_name', owner_name, 200);
	END IF;
	IF slug IS NOT NULL THEN
		wanted.slug := partner_portal.checked_slug(slug);
		IF EXISTS (SELECT FROM partner_portal.workspace w WHERE w.slug = invite_to_confirm.slug) THEN
			RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = format('slug "%s" is taken', slug),
				HINT = 'Choose another slug, or leave it out to have one made from the company name.';
		END IF;
	END IF;
	IF time_zone IS NOT NULL THEN
		PERFORM partner_portal.check_time_zone(partner_portal.checked_text('time_zone', time_zone, 255));
		wanted.time_zone := time_zone;
	END IF;
	wanted.details := '{"confirm": true}';
	-- who asks again gets a new link
	FOR former IN
		UPDATE partner_portal.invitation i SET state = 'withdrawn', finished_at = clock_timestamp()
		WHERE i.workspace_id = invite_to_confirm.partner_id AND i.kind = 'customer' AND i.state = 'pending'
			AND lower(i.email COLLATE "C") = lower(owner_email COLLATE "C") AND i.details ? 'confirm'
		RETURNING i.*
	LOOP
		PERFORM partner_portal.cancel_invitation_mail(former);
	END LOOP;
	-- nobody's allowance: many register in an hour, but hardly one address many times
	IF (SELECT count(*) FROM partner_portal.invitation i
		WHERE lower(i.email COLLATE "C") = lower(owner_email COLLATE "C") AND i.details ? 'confirm' AND i.created_at > clock_timestamp() - interval '1 hour') >= 5
	THEN
		RAISE EXCEPTION USING ERRCODE = 'configuration_limit_exceeded', MESSAGE = 'too many registrations of an address in an hour',
			DETAIL = 'An address is sent 5 in an hour to confirm.', HINT = 'Use the last one, or try again later.';
	END IF;
	PERFORM partner_portal.create_invitation(wanted, capped => false);
END
$$;
COMMENT ON FUNCTION partner_portal.invite_to_confirm(bigint, text, text, text, text, text) IS
'Makes the invitation that completes a registration under a partner; an earlier one for the address is void; 53400 the sixth for an address in an hour. Internal.';
REVOKE ALL ON FUNCTION partner_portal.invite_to_confirm(bigint, text, text, text, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.invite_member(workspace_id bigint, email text, role text) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	place partner_portal.workspace := partner_portal.authorized_live_workspace('manage_people', workspace_id);
	wanted partner_portal.invitation;
BEGIN
	wanted.workspace_id := workspace_id;
	wanted.partner_key := place.partner_key;
	wanted.kind := 'member';
	wanted.email := partner_portal.checked_email(email);
	wanted.role := partner_portal.checked_role(role);
	PERFORM partner_portal.require_rank_over(workspace_id, role);
	IF EXISTS (SELECT FROM partner_portal.member m JOIN partner_portal.account a ON a.account_id = m.account_id
		WHERE m.workspace_id = invite_member.workspace_id AND m.accepted_at IS NOT NULL
			AND lower(a.email COLLATE "C") = lower(invite_member.email COLLATE "C"))
	THEN
		RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = format('this address is a member of workspace %s already', workspace_id),
			HINT = 'Use set_member_role() to change its role.';
	END IF;
	RETURN partner_portal.create_invitation(wanted);
END
$$;
COMMENT ON FUNCTION partner_portal.invite_member(bigint, text, text) IS
'Invites an address to join a workspace with a role. Needs manage_people; only an owner or the operator invites an owner; where there is none, not even one who has yet to accept, the partner''s account owner does. 42501, P0002; PP005 the workspace is deleted; 23505 it is a member or invited already; 22023.';
REVOKE ALL ON FUNCTION partner_portal.invite_member(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.inviters_invitation(invitation_id bigint) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_invitation partner_portal.invitation;
	permission text;
BEGIN
	IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
	END IF;
	IF invitation_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'invitation_id must not be null';
	END IF;
	SELECT i.* INTO found_invitation FROM partner_portal.invitation i WHERE i.invitation_id = inviters_invitation.invitation_id;
	permission := CASE found_invitation.kind WHEN 'customer' THEN 'manage_portals' WHEN 'portal' THEN 'manage_portals' WHEN 'member' THEN 'manage_people' WHEN 'access' THEN 'grant_access' END;
	IF found_invitation.invitation_id IS NULL OR NOT (partner_portal.is_operator()
		OR (permission IS NOT NULL AND partner_portal.may(permission, found_invitation.workspace_id)))
	THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('invitation %s not found', invitation_id);
	END IF;
	-- before the invitation, as whoever accepts does
	PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = found_invitation.workspace_id FOR NO KEY UPDATE;
	SELECT i.* INTO found_invitation FROM partner_portal.invitation i
	WHERE i.workspace_id = found_invitation.workspace_id AND i.invitation_id = found_invitation.invitation_id
	FOR UPDATE;
	IF found_invitation.kind = 'member' THEN
		PERFORM partner_portal.require_rank_over(found_invitation.workspace_id, found_invitation.role);
	END IF;
	IF found_invitation.state <> 'pending' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('invitation %s is %s', invitation_id, found_invitation.state);
	END IF;
	RETURN found_invitation;
END
$$;
COMMENT ON FUNCTION partner_portal.inviters_invitation(bigint) IS
'Returns a pending invitation, locked, to who could have made it. 42501 nobody, or not over an owner''s; 22004; P0002 not theirs, or absent; PP005 it is answered or withdrawn. Internal.';
REVOKE ALL ON FUNCTION partner_portal.inviters_invitation(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.resend_invitation(invitation_id bigint) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	resent partner_portal.invitation := partner_portal.inviters_invitation(invitation_id);
	fresh_token text := partner_portal.new_token();
	recipients text[];
BEGIN
	PERFORM partner_portal.use_allowance(partner_portal.current_account_id());
	PERFORM partner_portal.cancel_invitation_mail(resent);
	SELECT array_agg(n.recipient ORDER BY n.notification_id) INTO recipients FROM partner_portal.notification n
	WHERE n.workspace_id = resent.workspace_id AND n.kind = 'invitation'
		AND n.dedupe_key = ANY (ARRAY(SELECT format('%s:%s:%s', resent.invitation_id, resent.sendings, r) FROM generate_series(1, 20) r));
	-- an offer of access is for who owns the partner now, at their present addresses
	IF resent.kind = 'access' THEN
		recipients := partner_portal.people_in_charge(resent.partner_key, '{owner}');
		IF recipients IS NULL THEN
			RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('partner %s has no owner who could accept', resent.partner_key);
		END IF;
	END IF;
	UPDATE partner_portal.invitation i SET email = CASE resent.kind WHEN 'access' THEN recipients[1] ELSE i.email END, token_hash = sha256(fresh_token::bytea), sent_at = clock_timestamp(), sendings = i.sendings + 1,
		expires_at = clock_timestamp() + current_setting('partner_portal.invitation_lifetime')::interval
	WHERE i.workspace_id = resent.workspace_id AND i.invitation_id = resent.invitation_id
	RETURNING i.* INTO resent;
	RETURN partner_portal.send_invitation(resent, fresh_token, recipients);
END
$$;
COMMENT ON FUNCTION partner_portal.resend_invitation(bigint) IS
'Sends a pending invitation anew, an expired one too, with a new token and its whole time; the old token is dead. An offer of access goes to those who own the partner now. For who could have made it. 42501; P0002; PP005 it is answered or withdrawn, or the partner has no owner; 53400 too many in an hour.';
REVOKE ALL ON FUNCTION partner_portal.resend_invitation(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.withdraw_invitation(invitation_id bigint) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	withdrawn partner_portal.invitation := partner_portal.inviters_invitation(invitation_id);
BEGIN
	UPDATE partner_portal.invitation i SET state = 'withdrawn', finished_at = clock_timestamp()
	WHERE i.workspace_id = withdrawn.workspace_id AND i.invitation_id = withdrawn.invitation_id;
	PERFORM partner_portal.cancel_invitation_mail(withdrawn);
	PERFORM partner_portal.finish_offer(withdrawn, 'withdrawn');
END
$$;
COMMENT ON FUNCTION partner_portal.withdraw_invitation(bigint) IS
'Takes a pending invitation back; its token is dead. For who could have made it. 42501; P0002; PP005 it is answered or withdrawn already.';
REVOKE ALL ON FUNCTION partner_portal.withdraw_invitation(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.forget_invitations(erased partner_portal.account) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	forgotten partner_portal.invitation;
BEGIN
	FOR forgotten IN
		SELECT i.* FROM partner_portal.invitation i
		WHERE (i.account_id = (erased).account_id AND i.kind <> 'access')
			OR lower(i.email COLLATE "C") = lower((erased).email COLLATE "C")
			-- a pending one to an address that is somebody else's by now is that one's
			OR (i.created_at <= ((erased).former_emails ->> lower(i.email COLLATE "C"))::timestamptz
				AND (i.state <> 'pending' OR NOT EXISTS (SELECT FROM partner_portal.account a WHERE lower(a.email COLLATE "C") = lower(i.email COLLATE "C"))))
		ORDER BY i.workspace_id, i.invitation_id
		FOR UPDATE
	LOOP
		IF forgotten.state = 'pending' THEN
			PERFORM partner_portal.cancel_invitation_mail(forgotten);
		END IF;
		DELETE FROM partner_portal.notification n
		WHERE n.workspace_id = forgotten.workspace_id AND n.kind = 'invitation' AND split_part(n.dedupe_key, ':', 1) = forgotten.invitation_id::text
			AND lower(n.recipient COLLATE "C") = lower(forgotten.email COLLATE "C");
		UPDATE partner_portal.invitation i SET state = CASE i.state WHEN 'pending' THEN 'withdrawn' ELSE i.state END,
			finished_at = coalesce(i.finished_at, clock_timestamp()),
			email = 'erased-' || i.invitation_id || '@erased.invalid', owner_name = NULL, details = i.details - 'attributes'
		WHERE i.workspace_id = forgotten.workspace_id AND i.invitation_id = forgotten.invitation_id;
	END LOOP;
END
$$;
COMMENT ON FUNCTION partner_portal.forget_invitations(partner_portal.account) IS
'Withdraws what the addresses of an account that is erased are invited to, and erases address, name and attributes there, and the mails to that address; internal.';
REVOKE ALL ON FUNCTION partner_portal.forget_invitations(partner_portal.account) FROM PUBLIC;

-- Invitations follow their workspace: they end with it, and with its being a partner; the partner that looks on changes with it.
CREATE FUNCTION partner_portal.invitations_follow() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	just_deleted boolean := OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL;
BEGIN
	IF TG_OP = 'INSERT' AND partner_portal.restoring_session() THEN
		RETURN NULL;
	END IF;
	IF just_deleted OR NEW.kind <> OLD.kind THEN
		PERFORM partner_portal.cancel_invitation_mail(i) FROM partner_portal.invitation i
		WHERE i.workspace_id = NEW.workspace_id AND i.state = 'pending' AND (just_deleted OR i.kind IN ('customer', 'portal'));
		UPDATE partner_portal.invitation i SET state = 'withdrawn', finished_at = clock_timestamp()
		WHERE i.workspace_id = NEW.workspace_id AND i.state = 'pending' AND (just_deleted OR i.kind IN ('customer', 'portal'));
	END IF;
	IF NEW.partner_key <> OLD.partner_key THEN
		UPDATE partner_portal.invitation i SET partner_key = NEW.partner_key
		WHERE i.workspace_id = NEW.workspace_id AND i.kind = 'member' AND i.state = 'pending';
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.invitations_follow() IS
'Trigger of workspace: pending invitations end when it is deleted, those of customers and portal users when it is no partner any more; a transfer shows them to the new partner alone.';
REVOKE ALL ON FUNCTION partner_portal.invitations_follow() FROM PUBLIC;
CREATE TRIGGER invitations_follow AFTER UPDATE OF partner_id, deleted_at, kind ON partner_portal.workspace
	FOR EACH ROW WHEN (OLD.partner_key <> NEW.partner_key OR OLD.kind <> NEW.kind OR OLD.deleted_at IS DISTINCT FROM NEW.deleted_at)
	EXECUTE FUNCTION partner_portal.invitations_follow();

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.invite_partner(text, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.invite_customer(text, text, bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.invite_member(bigint, text, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.resend_invitation(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.withdraw_invitation(bigint)');
