-- invitation.sql: invitations of every kind, and their one life: created, shown, then accepted, declined, withdrawn or expired;
-- sent anew in between. Who may invite whom is in invite.sql.
--
-- A token is 256 random bits. Its SHA-256 alone is kept; in clear it stands in the mail that carries it, and is returned once
-- to a trusted application. Whoever has it has proved the address it was sent to.

CREATE TABLE partner_portal.invitation (
	workspace_id bigint NOT NULL,
	invitation_id bigint GENERATED ALWAYS AS IDENTITY,
	partner_key bigint NOT NULL DEFAULT 0,
	kind text NOT NULL,
	email text NOT NULL,
	role text,
	company_name text,
	owner_name text,
	slug text,
	time_zone text,
	grant_id bigint,
	portal_id bigint,
	details jsonb NOT NULL DEFAULT '{}',
	state text NOT NULL DEFAULT 'pending',
	invited_by bigint,
	created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	sent_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	sendings integer NOT NULL DEFAULT 1,
	expires_at timestamptz NOT NULL,
	finished_at timestamptz,
	account_id bigint,
	accepted_workspace_id bigint,
	token_hash bytea NOT NULL,
	token text,
	CONSTRAINT invitation_pkey PRIMARY KEY (workspace_id, invitation_id),
	CONSTRAINT invitation_kind CHECK (kind IN ('partner', 'customer', 'member', 'portal', 'access')),
	CONSTRAINT invitation_state CHECK (state IN ('pending', 'accepted', 'declined', 'withdrawn', 'expired')),
	CONSTRAINT invitation_finished CHECK ((state = 'pending') = (finished_at IS NULL)),
	CONSTRAINT invitation_accepted CHECK ((state = 'accepted') = (account_id IS NOT NULL)),
	CONSTRAINT invitation_platform CHECK ((kind = 'partner') = (workspace_id = 0)),
	CONSTRAINT invitation_role CHECK ((kind IN ('member', 'portal')) = (role IS NOT NULL)),
	CONSTRAINT invitation_grant CHECK ((kind = 'access') = (grant_id IS NOT NULL)),
	CONSTRAINT invitation_portal CHECK ((kind = 'portal') = (portal_id IS NOT NULL)),
	CONSTRAINT invitation_token_hash CHECK (octet_length(token_hash) = 32),
	CONSTRAINT invitation_token CHECK (token IS NULL)
);
CREATE INDEX invitation_invitation_id ON partner_portal.invitation (invitation_id);
CREATE INDEX invitation_partner_key_idx ON partner_portal.invitation (partner_key);
CREATE INDEX invitation_email_idx ON partner_portal.invitation (lower(email COLLATE "C"));
CREATE UNIQUE INDEX invitation_token_hash_key ON partner_portal.invitation (token_hash);
CREATE UNIQUE INDEX invitation_pending_key ON partner_portal.invitation
	(workspace_id, kind, lower(email COLLATE "C"), coalesce(grant_id, 0), coalesce(portal_id, 0)) WHERE state = 'pending';
COMMENT ON TABLE partner_portal.invitation IS
'An invitation to one address: to become a partner or a customer, to join a workspace or a portal, or to accept access to a customer. At most one is pending per workspace, kind and address.';
COMMENT ON COLUMN partner_portal.invitation.workspace_id IS 'Who invites: the partner for kinds customer and portal, the workspace itself for member and access, 0 (the platform) for partner.';
COMMENT ON COLUMN partner_portal.invitation.partner_key IS 'Partner that may look at it: that of the workspace, for access the one invited; 0 for none.';
COMMENT ON COLUMN partner_portal.invitation.company_name IS 'Name of the workspace that accepting makes (kinds partner and customer), unless another one is given then.';
COMMENT ON COLUMN partner_portal.invitation.state IS 'pending (but of no use after expires_at), accepted, declined, withdrawn or expired (another one was made in its place).';
COMMENT ON COLUMN partner_portal.invitation.invited_by IS 'Account; NULL is the operator or a registration that waits for its confirmation.';
COMMENT ON COLUMN partner_portal.invitation.account_id IS 'Account that accepted it.';
COMMENT ON COLUMN partner_portal.invitation.accepted_workspace_id IS 'Workspace that was made or joined by accepting it.';
COMMENT ON COLUMN partner_portal.invitation.token_hash IS 'SHA-256 of the token.';
COMMENT ON COLUMN partner_portal.invitation.token IS 'Always NULL in the table. In what invite_*() and resend_invitation() return to a trusted application, the token.';

-- One row per account that ever invited: counting rows of invitation would let sessions that meet pass the cap.
CREATE TABLE partner_portal.invitation_allowance (
	account_id bigint NOT NULL,
	hour_from timestamptz NOT NULL,
	used integer NOT NULL,
	CONSTRAINT invitation_allowance_pkey PRIMARY KEY (account_id)
);
COMMENT ON TABLE partner_portal.invitation_allowance IS
'How many invitations and requests for access an account sent in the hour that began at hour_from (partner_portal.invitations_per_hour); account 0 is a trusted application''s with nobody signed in.';

ALTER TABLE partner_portal.invitation ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.invitation_allowance ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY signed_in ON partner_portal.invitation AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
-- A partner's staff does not learn which other partner a customer lets in.
CREATE POLICY read ON partner_portal.invitation FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_people'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR (kind <> 'access' AND workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_people'))::bigint[])));
SELECT pg_catalog.pg_extension_config_dump('partner_portal.invitation', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.invitation_invitation_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.invitation_allowance', '');

CREATE VIEW partner_portal.pending_invitations WITH (security_invoker, security_barrier) AS
	SELECT invitation_id, workspace_id, kind, email, role, company_name, invited_by, created_at, sent_at, sendings, expires_at,
		expires_at <= now() AS expired, grant_id, portal_id
	FROM partner_portal.invitation
	WHERE state = 'pending';
COMMENT ON VIEW partner_portal.pending_invitations IS
'Invitations that nobody has answered yet: those of a workspace to its owners and administrators, its partner and the partner''s account owner; offers of access to both sides. Expired ones can be sent anew.';

CREATE FUNCTION partner_portal.invitation_not_usable() RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.note_refusal('PP002', 'invitation', NULL);
	RAISE EXCEPTION USING ERRCODE = 'PP002', MESSAGE = 'this invitation cannot be used',
		DETAIL = 'It was answered, withdrawn or sent anew, has expired, is for somebody else, or never was.',
		HINT = 'Ask for another one.';
END
$$;
COMMENT ON FUNCTION partner_portal.invitation_not_usable() IS 'Raises PP002 in the one text for every reason; internal.';
REVOKE ALL ON FUNCTION partner_portal.invitation_not_usable() FROM PUBLIC;

CREATE FUNCTION partner_portal.use_allowance(account_id bigint) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	cap integer := current_setting('partner_portal.invitations_per_hour');
	now_used integer;
BEGIN
	IF cap < 0 OR partner_portal.is_operator() THEN
		RETURN;
	END IF;
	INSERT INTO partner_portal.invitation_allowance AS a (account_id, hour_from, used)
	VALUES (coalesce(use_allowance.account_id, 0), clock_timestamp(), 1)
	ON CONFLICT ON CONSTRAINT invitation_allowance_pkey DO UPDATE
	SET hour_from = CASE WHEN a.hour_from > clock_timestamp() - interval '1 hour' THEN a.hour_from ELSE clock_timestamp() END,
		used = CASE WHEN a.hour_from > clock_timestamp() - interval '1 hour' THEN a.used + 1 ELSE 1 END
	RETURNING a.used INTO now_used;
	IF now_used > cap THEN
		RAISE EXCEPTION USING ERRCODE = 'configuration_limit_exceeded', MESSAGE = 'too many invitations in an hour',
			DETAIL = format('%s may be sent by one account.', cap), HINT = 'Try again later, or raise partner_portal.invitations_per_hour.';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.use_allowance(bigint) IS
'Counts one more invitation of an account, NULL being nobody''s; 53400 beyond partner_portal.invitations_per_hour. The operator is not limited. Internal.';
REVOKE ALL ON FUNCTION partner_portal.use_allowance(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.html_of(value text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT
BEGIN ATOMIC
	SELECT replace(replace(replace(replace(replace(value, '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;');
END;
COMMENT ON FUNCTION partner_portal.html_of(text) IS 'A text as it may stand in HTML, in attributes too.';
REVOKE ALL ON FUNCTION partner_portal.html_of(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.invitation_purpose(invitation partner_portal.invitation) RETURNS text
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	inviter text := (SELECT w.company_name FROM partner_portal.workspace w WHERE w.workspace_id = (invitation).workspace_id);
BEGIN
	RETURN CASE (invitation).kind
		WHEN 'partner' THEN format('You are invited to become a partner as %s', (invitation).company_name)
		WHEN 'customer' THEN CASE WHEN (invitation).details ? 'confirm' THEN format('Confirm the registration of %s with %s', (invitation).company_name, inviter)
			WHEN (invitation).company_name IS NULL THEN format('%s invites you to become its customer', inviter)
			ELSE format('%s invites you to become its customer as %s', inviter, (invitation).company_name) END
		WHEN 'member' THEN format('%s invites you to join as %s', inviter, (invitation).role)
		WHEN 'portal' THEN format('%s invites you to its portal', inviter)
		WHEN 'access' THEN format('%s offers you access', inviter)
		END;
END
$$;
COMMENT ON FUNCTION partner_portal.invitation_purpose(partner_portal.invitation) IS 'What an invitation is for, as one sentence without a full stop; internal.';
REVOKE ALL ON FUNCTION partner_portal.invitation_purpose(partner_portal.invitation) FROM PUBLIC;

CREATE FUNCTION partner_portal.cancel_invitation_mail(invitation partner_portal.invitation) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.finish_notification(n.workspace_id, n.notification_id, 'cancelled', 0, 'the invitation is no longer open')
	FROM partner_portal.notification n
	WHERE n.workspace_id = (invitation).workspace_id AND n.kind = 'invitation' AND n.state = 'pending'
		AND n.dedupe_key = ANY (ARRAY(SELECT format('%s:%s:%s', (invitation).invitation_id, (invitation).sendings, r) FROM generate_series(1, 20) r));
END
$$;
COMMENT ON FUNCTION partner_portal.cancel_invitation_mail(partner_portal.invitation) IS 'Cancels mails of an invitation that are not sent yet, and blanks their token; internal.';
REVOKE ALL ON FUNCTION partner_portal.cancel_invitation_mail(partner_portal.invitation) FROM PUBLIC;

CREATE FUNCTION partner_portal.send_invitation(invitation partner_portal.invitation, token text, recipients text[] DEFAULT NULL) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	sent partner_portal.invitation := invitation;
	inviter text := (SELECT w.company_name FROM partner_portal.workspace w WHERE w.workspace_id = (invitation).workspace_id);
	-- who is not known yet is written to in the language of who invites
	inviters_locale text := (SELECT a.locale FROM partner_portal.account a
		WHERE a.account_id = coalesce((invitation).invited_by, (SELECT m.account_id FROM partner_portal.member m
			WHERE m.workspace_id = (invitation).workspace_id AND m.role = 'owner' AND m.accepted_at IS NOT NULL ORDER BY m.accepted_at, m.account_id LIMIT 1)));
	link text := rtrim(current_setting('partner_portal.link_base_url'), '/') || '/invitation/' || token;
BEGIN
	PERFORM partner_portal.enqueue_mail((invitation).workspace_id, 'invitation',
		format('%s:%s:%s', (invitation).invitation_id, (invitation).sendings, r.n), r.email, r.locale,
		partner_portal.mail_invitation(r.locale, invitation, inviter, link), token, (invitation).expires_at)
	FROM (SELECT u.email, u.n, coalesce((SELECT a.locale FROM partner_portal.account a WHERE lower(a.email COLLATE "C") = lower(u.email COLLATE "C")),
				inviters_locale, 'en') AS locale
		FROM unnest(coalesce(recipients[:20], ARRAY[(invitation).email])) WITH ORDINALITY AS u (email, n)) r;
	sent.token_hash := NULL;
	IF partner_portal.is_trusted() THEN
		sent.token := token;
	END IF;
	RETURN sent;
END
$$;
COMMENT ON FUNCTION partner_portal.send_invitation(partner_portal.invitation, text, text[]) IS
'Owes the mails with an invitation''s link, <partner_portal.link_base_url>/invitation/<token>, and returns the invitation as its maker gets it: with the token only for a trusted application. Internal.';
REVOKE ALL ON FUNCTION partner_portal.send_invitation(partner_portal.invitation, text, text[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.create_invitation(wanted partner_portal.invitation, recipients text[] DEFAULT NULL, capped boolean DEFAULT true) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	fresh_token text := partner_portal.new_token();
	made partner_portal.invitation;
BEGIN
	IF capped THEN
		PERFORM partner_portal.use_allowance(partner_portal.current_account_id());
	END IF;
	UPDATE partner_portal.invitation i SET state = 'expired', finished_at = clock_timestamp()
	WHERE i.workspace_id = wanted.workspace_id AND i.kind = wanted.kind AND i.state = 'pending'
		AND lower(i.email COLLATE "C") = lower(wanted.email COLLATE "C")
		AND i.grant_id IS NOT DISTINCT FROM wanted.grant_id AND i.portal_id IS NOT DISTINCT FROM wanted.portal_id
		AND i.expires_at <= clock_timestamp();
	INSERT INTO partner_portal.invitation AS i (workspace_id, partner_key, kind, email, role, company_name, owner_name, slug, time_zone,
		grant_id, portal_id, details, invited_by, expires_at, token_hash)
	VALUES (wanted.workspace_id, coalesce(wanted.partner_key, 0), wanted.kind, wanted.email, wanted.role, wanted.company_name, wanted.owner_name,
		wanted.slug, wanted.time_zone, wanted.grant_id, wanted.portal_id, coalesce(wanted.details, '{}'), partner_portal.current_account_id(),
		clock_timestamp() + current_setting('partner_portal.invitation_lifetime')::interval, sha256(fresh_token::bytea))
	ON CONFLICT DO NOTHING
	RETURNING i.* INTO made;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = 'this address is invited already',
			HINT = 'Send that invitation anew with resend_invitation(), or withdraw it first.';
	END IF;
	RETURN partner_portal.send_invitation(made, fresh_token, recipients);
END
$$;
COMMENT ON FUNCTION partner_portal.create_invitation(partner_portal.invitation, text[], boolean) IS
'Makes an invitation of what the row says (ids, state, times and token are made here) and owes its mail, to the address invited unless others are named. 23505 one is pending for this address; 53400 too many in an hour (unless not capped). Internal: asks nobody''s permission.';
REVOKE ALL ON FUNCTION partner_portal.create_invitation(partner_portal.invitation, text[], boolean) FROM PUBLIC;

-- The token is the proof: whoever shows or refuses an invitation need not be anybody.
CREATE FUNCTION partner_portal.usable_invitation(token text) RETURNS partner_portal.invitation
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_invitation partner_portal.invitation;
BEGIN
	IF token IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'token must not be null';
	END IF;
	IF octet_length(token) = 43 THEN
		SELECT i.* INTO found_invitation FROM partner_portal.invitation i
		WHERE i.token_hash = sha256(convert_to(usable_invitation.token, 'UTF8')) AND i.state = 'pending' AND i.expires_at > clock_timestamp();
	END IF;
	IF found_invitation.invitation_id IS NULL THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	RETURN found_invitation;
END
$$;
COMMENT ON FUNCTION partner_portal.usable_invitation(text) IS 'Returns the invitation of a token, as long as it can be answered. 22004 NULL; PP002 else. Internal.';
REVOKE ALL ON FUNCTION partner_portal.usable_invitation(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.show_invitation(token text)
	RETURNS TABLE (kind text, purpose text, email text, inviter text, role text, company_name text, expires_at timestamptz, has_account boolean, details jsonb)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	shown partner_portal.invitation := partner_portal.usable_invitation(token);
BEGIN
	RETURN QUERY
	SELECT shown.kind, partner_portal.invitation_purpose(shown), shown.email,
		(SELECT w.company_name FROM partner_portal.workspace w WHERE w.workspace_id = shown.workspace_id),
		shown.role, shown.company_name, shown.expires_at,
		EXISTS (SELECT FROM partner_portal.account a WHERE lower(a.email COLLATE "C") = lower(shown.email COLLATE "C")),
		shown.details;
END
$$;
COMMENT ON FUNCTION partner_portal.show_invitation(text) IS
'Looks at an invitation by its token, changes nothing and needs nobody signed in: what it is for, to which address, from whom, until when, and whether that address has an account. 22004 NULL; PP002 it cannot be used.';
REVOKE ALL ON FUNCTION partner_portal.show_invitation(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.decline_invitation(token text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	declined partner_portal.invitation := partner_portal.usable_invitation(token);
BEGIN
	-- before the invitation, as whoever accepts, ends the offer or deletes the workspace does
	IF declined.kind = 'access' THEN
		PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = declined.workspace_id FOR NO KEY UPDATE;
	ELSE
		PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = declined.workspace_id FOR SHARE;
	END IF;
	UPDATE partner_portal.invitation i SET state = 'declined', finished_at = clock_timestamp()
	WHERE i.workspace_id = declined.workspace_id AND i.invitation_id = declined.invitation_id
		AND i.token_hash = declined.token_hash AND i.state = 'pending' AND i.expires_at > clock_timestamp();
	IF NOT FOUND THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	PERFORM partner_portal.cancel_invitation_mail(declined);
	PERFORM partner_portal.finish_offer(declined, 'declined');
END
$$;
COMMENT ON FUNCTION partner_portal.decline_invitation(text) IS
'Refuses an invitation for good, by its token alone. 22004 NULL; PP002 it cannot be used.';
REVOKE ALL ON FUNCTION partner_portal.decline_invitation(text) FROM PUBLIC;

-- What accepting does, one function for each kind: with the invitation, already accepted, and the account that accepts. They return
-- the workspace that was made or joined.

CREATE FUNCTION partner_portal.join_workspace(workspace_id bigint, account_id bigint, role text) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	INSERT INTO partner_portal.member AS m (workspace_id, account_id, partner_key, role, accepted_at)
	SELECT w.workspace_id, join_workspace.account_id, w.partner_key, join_workspace.role, now()
	FROM partner_portal.workspace w
	WHERE w.workspace_id = join_workspace.workspace_id
	ON CONFLICT ON CONSTRAINT member_pkey DO UPDATE SET role = excluded.role, accepted_at = excluded.accepted_at
	WHERE m.accepted_at IS NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.join_workspace(bigint, bigint, text) IS
'Makes an account a member that has accepted; a membership that was pending gets the role, one that was accepted stays as it is. Internal.';
REVOKE ALL ON FUNCTION partner_portal.join_workspace(bigint, bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.accept_partner_invitation(invitation partner_portal.invitation, account_id bigint, company_name text, slug text, time_zone text) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	made partner_portal.workspace := partner_portal.make_workspace(NULL, coalesce(company_name, (invitation).company_name), slug, coalesce(time_zone, 'UTC'), NULL);
BEGIN
	PERFORM partner_portal.join_workspace(made.workspace_id, account_id, 'owner');
	PERFORM partner_portal.make_partner(made.workspace_id);
	RETURN made.workspace_id;
END
$$;
COMMENT ON FUNCTION partner_portal.accept_partner_invitation(partner_portal.invitation, bigint, text, text, text) IS 'Makes the invited account a partner with its own workspace; internal.';
REVOKE ALL ON FUNCTION partner_portal.accept_partner_invitation(partner_portal.invitation, bigint, text, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.accept_customer_invitation(invitation partner_portal.invitation, account_id bigint, company_name text, slug text, time_zone text) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	partner_workspace partner_portal.workspace;
	made partner_portal.workspace;
BEGIN
	SELECT w.* INTO partner_workspace FROM partner_portal.workspace w
	WHERE w.workspace_id = (invitation).workspace_id AND w.deleted_at IS NULL AND w.kind = 'partner'
	FOR SHARE;
	IF NOT FOUND THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	IF partner_workspace.suspended_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = 'the partner of this invitation is suspended';
	END IF;
	made := partner_portal.make_workspace(partner_workspace.workspace_id, coalesce(company_name, (invitation).company_name),
		coalesce(slug, (invitation).slug), coalesce(time_zone, (invitation).time_zone, partner_workspace.time_zone), NULL);
	PERFORM partner_portal.join_workspace(made.workspace_id, account_id, 'owner');
	RETURN made.workspace_id;
END
$$;
COMMENT ON FUNCTION partner_portal.accept_customer_invitation(partner_portal.invitation, bigint, text, text, text) IS
'Makes the invited account the owner of a workspace under the partner that invited; PP005 the partner is suspended. Internal.';
REVOKE ALL ON FUNCTION partner_portal.accept_customer_invitation(partner_portal.invitation, bigint, text, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.accept_member_invitation(invitation partner_portal.invitation, account_id bigint) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM partner_portal.workspace w WHERE w.workspace_id = (invitation).workspace_id AND w.deleted_at IS NULL) THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	PERFORM partner_portal.join_workspace((invitation).workspace_id, account_id, (invitation).role);
	RETURN (invitation).workspace_id;
END
$$;
COMMENT ON FUNCTION partner_portal.accept_member_invitation(partner_portal.invitation, bigint) IS 'Makes the invited account a member; internal.';
REVOKE ALL ON FUNCTION partner_portal.accept_member_invitation(partner_portal.invitation, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.accepting_account(invitation partner_portal.invitation, owner_name text) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	signed_in bigint := partner_portal.current_account_id();
	person partner_portal.account;
	made record;
BEGIN
	IF (invitation).kind = 'access' THEN
		-- anybody who runs the invited partner; with nobody signed in, who the mail went to
		SELECT a.* INTO person FROM partner_portal.account a
		JOIN partner_portal.member m ON m.account_id = a.account_id
		WHERE m.workspace_id = (invitation).partner_key AND m.role IN ('owner', 'administrator') AND m.accepted_at IS NOT NULL
			AND CASE WHEN signed_in IS NULL THEN lower(a.email COLLATE "C") = lower((invitation).email COLLATE "C") ELSE a.account_id = signed_in END;
	ELSIF signed_in IS NULL THEN
		made := partner_portal.make_account((invitation).email, coalesce(accepting_account.owner_name, (invitation).owner_name));
		SELECT a.* INTO person FROM partner_portal.account a WHERE a.account_id = made.account_id;
	ELSE
		SELECT a.* INTO person FROM partner_portal.account a
		WHERE a.account_id = signed_in AND lower(a.email COLLATE "C") = lower((invitation).email COLLATE "C")
		FOR KEY SHARE;
	END IF;
	IF person.account_id IS NULL OR person.disabled_at IS NOT NULL OR person.erased_at IS NOT NULL THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	RETURN person.account_id;
END
$$;
COMMENT ON FUNCTION partner_portal.accepting_account(partner_portal.invitation, text) IS
'The account that accepts an invitation: the one signed in, whose address must be the one invited; with nobody signed in the account of that address, made if there is none. An offer of access is for an owner or administrator of the partner. PP002. Internal.';
REVOKE ALL ON FUNCTION partner_portal.accepting_account(partner_portal.invitation, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.accept_invitation(token text, company_name text DEFAULT NULL, owner_name text DEFAULT NULL,
		slug text DEFAULT NULL, time_zone text DEFAULT NULL) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.invitation := partner_portal.usable_invitation(token);
	accepted partner_portal.invitation;
	person bigint;
	place bigint;
BEGIN
	IF owner_name IS NOT NULL THEN
		PERFORM partner_portal.checked_text('owner_name', owner_name, 200);
	END IF;
	person := partner_portal.accepting_account(asked, owner_name);
	-- before the invitation, as whoever deletes the workspace or withdraws does
	IF asked.kind = 'access' THEN
		PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = asked.workspace_id FOR NO KEY UPDATE;
	ELSE
		PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = asked.workspace_id FOR SHARE;
	END IF;
	-- of all that have the token one sees its row pending
	UPDATE partner_portal.invitation i SET state = 'accepted', finished_at = clock_timestamp(), account_id = person
	WHERE i.workspace_id = asked.workspace_id AND i.invitation_id = asked.invitation_id
		AND i.token_hash = asked.token_hash AND i.state = 'pending' AND i.expires_at > clock_timestamp()
	RETURNING i.* INTO accepted;
	IF NOT FOUND THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	PERFORM partner_portal.cancel_invitation_mail(accepted);
	place := CASE accepted.kind
		WHEN 'partner' THEN partner_portal.accept_partner_invitation(accepted, person, accept_invitation.company_name, accept_invitation.slug, accept_invitation.time_zone)
		WHEN 'customer' THEN partner_portal.accept_customer_invitation(accepted, person, accept_invitation.company_name, accept_invitation.slug, accept_invitation.time_zone)
		WHEN 'member' THEN partner_portal.accept_member_invitation(accepted, person)
		WHEN 'portal' THEN partner_portal.accept_portal_invitation(accepted, person)
		WHEN 'access' THEN partner_portal.accept_access_invitation(accepted)
		END;
	UPDATE partner_portal.invitation i SET accepted_workspace_id = place
	WHERE i.workspace_id = accepted.workspace_id AND i.invitation_id = accepted.invitation_id
	RETURNING i.* INTO accepted;
	accepted.token_hash := NULL;
	RETURN accepted;
END
$$;
COMMENT ON FUNCTION partner_portal.accept_invitation(text, text, text, text, text) IS
'Accepts an invitation, once, and returns it with account_id and accepted_workspace_id. With nobody signed in the token proves the address, and its account is made if there is none; who is signed in must have that address. An offer of access (kind access) is accepted by an owner or administrator of the partner. company_name, slug and time_zone are for the workspace that kinds partner and customer make. 22004; PP002 it cannot be used; PP005 the partner is suspended; 23505 the slug is taken; 22023.';
REVOKE ALL ON FUNCTION partner_portal.accept_invitation(text, text, text, text, text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT (workspace_id, invitation_id, partner_key, kind, email, role, company_name, owner_name, slug, time_zone, grant_id, portal_id, details, state, invited_by, created_at, sent_at, sendings, expires_at, finished_at, account_id, accepted_workspace_id)', 'TABLE partner_portal.invitation'),
	('application', 'SELECT', 'TABLE partner_portal.pending_invitations'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.show_invitation(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.decline_invitation(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.accept_invitation(text, text, text, text, text)');
