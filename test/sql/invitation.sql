\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept invitation
\i :begin
\i :as
-- workspace 1: partner; 2: its customer; 3: direct; 4: another partner. Accounts: n owns workspace n; 5 is the operator's; 6 is
-- administrator of 2, 7 a plain member of it
SELECT (partner_portal.create_workspace('Partner', 'p@example.com')).workspace_id;
SELECT (partner_portal.promote_to_partner(1)).partner_id;
SELECT (partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner), 'Customer', 'c@example.com', 'Carla')).workspace_id;
SELECT (partner_portal.create_workspace('Direct', 'd@example.com')).workspace_id;
SELECT (partner_portal.create_workspace('Other', 'o@example.com')).workspace_id;
SELECT (partner_portal.promote_to_partner(4)).partner_id;
INSERT INTO partner_portal.account (email, is_operator) VALUES ('operator@example.com', true);
SELECT (partner_portal.add_member(2, 'admin@example.com', 'administrator')).account_id, (partner_portal.add_member(2, 'member@example.com', 'member')).account_id;
CREATE VIEW sent AS SELECT workspace_id, kind, email, role, company_name, state, sendings, account_id, accepted_workspace_id FROM partner_portal.invitation ORDER BY invitation_id;
CREATE FUNCTION token(n bigint) RETURNS text LANGUAGE sql AS $$
	SELECT substring(text_body FROM '/invitation/([A-Za-z0-9_-]{43})\M') FROM partner_portal.notification
	WHERE kind = 'invitation' AND dedupe_key LIKE n || ':%' ORDER BY notification_id DESC LIMIT 1
$$;
GRANT SELECT ON sent TO regress_app, regress_trusted, regress_ops;

-- who may invite whom
SELECT run_as(1, :app, $$SELECT partner_portal.invite_partner('new@example.com', 'New')$$);
SELECT run_as(NULL, :app, $$SELECT partner_portal.invite_partner('new@example.com', 'New')$$);
SELECT run_as(5, :ops, $$SELECT i.invitation_id FROM partner_portal.invite_partner('New@example.com', 'New') i$$);
SELECT run_as(2, :app, $$SELECT partner_portal.invite_customer('k@example.com')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.invite_customer('k@example.com', partner_id => 1)$$);
SELECT run_as(3, :app, $$SELECT partner_portal.invite_customer('k@example.com', partner_id => 1)$$);
SELECT run_as(NULL, :app, $$SELECT partner_portal.invite_customer('k@example.com')$$);
SELECT run_as(1, :app, $$SELECT i.invitation_id FROM partner_portal.invite_customer('k@example.com') i$$);
SELECT run_as(1, :app, $$SELECT i.invitation_id FROM partner_portal.invite_customer('k2@example.com', 'K2') i$$);
SELECT run_as(7, :app, $$SELECT partner_portal.invite_member(2, 'm@example.com', 'member')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.invite_member(2, 'm@example.com', 'member')$$);
SELECT run_as(3, :app, $$SELECT partner_portal.invite_member(2, 'm@example.com', 'member')$$);
SELECT run_as(3, :app, $$SELECT partner_portal.invite_member(99, 'm@example.com', 'member')$$);
SELECT run_as(6, :app, $$SELECT partner_portal.invite_member(2, 'm@example.com', 'owner')$$);
SELECT run_as(6, :app, $$SELECT i.invitation_id FROM partner_portal.invite_member(2, 'm@example.com', 'member') i$$);
SELECT run_as(2, :app, $$SELECT i.invitation_id FROM partner_portal.invite_member(2, 'o@example.com', 'owner') i$$);
-- bad input
SELECT run_as(6, :app, $$SELECT partner_portal.invite_member(2, NULL, 'member')$$);
SELECT run_as(6, :app, $$SELECT partner_portal.invite_member(2, 'nobody', 'member')$$);
SELECT run_as(6, :app, $$SELECT partner_portal.invite_member(2, 'm2@example.com', 'boss')$$);
SELECT run_as(6, :app, $$SELECT partner_portal.invite_member(NULL, 'm2@example.com', 'member')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.invite_customer('k3@example.com', repeat('x', 10000000))$$);
SELECT run_as(1, :app, $$SELECT partner_portal.invite_customer('k3@example.com', E'a\nb')$$);
-- one is pending per address, in whatever case; a member needs none
SELECT run_as(6, :app, $$SELECT partner_portal.invite_member(2, 'M@Example.com', 'guest')$$);
SELECT run_as(6, :app, $$SELECT partner_portal.invite_member(2, 'MEMBER@example.com', 'guest')$$);
TABLE sent;

-- the token: 43 characters, kept as its hash, in clear in the pending mail alone, returned to a trusted application
SELECT i.token_hash = sha256(token(1)::bytea) AS hashed, length(token(1)) AS length, i.token IS NULL AS not_stored FROM partner_portal.invitation i WHERE i.invitation_id = 1;
SELECT run_as(1, :app, $$SELECT i.token IS NULL AND i.token_hash IS NULL FROM partner_portal.invite_customer('x@example.com') i$$);
SELECT run_as(1, :trusted, $$SELECT length(i.token) || ' ' || (i.token_hash IS NULL) FROM partner_portal.invite_customer('y@example.com') i$$);
SELECT token(7) IS NOT NULL AS in_mail;
SELECT kind, recipient, subject, secret = token(1) AS secret, expires_at > now() + interval '13 days' AS expires, workspace_id FROM partner_portal.notification WHERE dedupe_key = '1:1:1';
SELECT replace(text_body, token(4), '<token>') ~ 'portal.example.com/invitation/<token>' AS link FROM partner_portal.notification WHERE dedupe_key = '4:1:1';
-- names are text in the mail's HTML
SELECT run_as(5, :ops, $$SELECT i.invitation_id FROM partner_portal.invite_partner('html@example.com', '<b>"Tom" & ''Jerry''</b>') i$$);
SELECT html_body !~ '<b>' AND html_body ~ '&lt;b&gt;&quot;Tom&quot; &amp; &#39;Jerry&#39;&lt;/b&gt;' AS escaped, subject FROM partner_portal.notification WHERE dedupe_key = '9:1:1';
SELECT run_as(1, :app, $$SELECT text_body FROM partner_portal.notification$$);
SELECT run_as(1, :app, $$SELECT token_hash FROM partner_portal.invitation$$);
SELECT run_as(1, :app, $$SELECT token FROM partner_portal.invitation$$);

-- who sees which are pending
SELECT who, run_as(who, :app, 'SELECT string_agg(invitation_id::text, '','' ORDER BY invitation_id) FROM partner_portal.pending_invitations') AS pending
	FROM unnest(ARRAY[1, 2, 3, 4, 5, 6, 7]) who;
SELECT run_as(NULL, :app, 'SELECT string_agg(invitation_id::text, '','' ORDER BY invitation_id) FROM partner_portal.pending_invitations');

-- showing changes nothing and needs nobody
BEGIN READ ONLY;
SELECT kind, purpose, email, inviter, role, company_name, has_account, expires_at > now() AS usable FROM partner_portal.show_invitation(token(4));
COMMIT;
SELECT run_as(NULL, :app, format('SELECT x.purpose FROM partner_portal.show_invitation(%L) x', token(n))) FROM generate_series(1, 5) n;
SELECT run_as(2, :app, format('SELECT x.purpose FROM partner_portal.show_invitation(%L) x', token(1)));
SELECT run_as(NULL, :app, 'SELECT partner_portal.show_invitation(NULL)');
SELECT run_as(NULL, :app, 'SELECT partner_portal.show_invitation('''')');
SELECT run_as(NULL, :app, format('SELECT partner_portal.show_invitation(%L)', repeat('A', 43)));
SELECT run_as(NULL, :app, format('SELECT partner_portal.show_invitation(%L)', token(1) || 'A'));
SELECT run_as(NULL, :app, 'SELECT partner_portal.show_invitation(repeat(''x'', 10000000))');
SELECT run_as(NULL, :app, format('SELECT partner_portal.show_invitation(%L)', 'é' || repeat('A', 41)));

-- accepting: somebody else's address, nobody signed in, the right one; once
SELECT token(4) AS used \gset
SELECT run_as(3, :app, format('SELECT partner_portal.accept_invitation(%L)', token(4)));
SELECT run_as(NULL, :app, format('SELECT i.account_id || '' '' || i.accepted_workspace_id || '' '' || i.state FROM partner_portal.accept_invitation(%L, owner_name => ''Max'') i', token(4)));
SELECT run_as(NULL, :app, format('SELECT partner_portal.accept_invitation(%L)', :'used'));
SELECT run_as(NULL, :app, format('SELECT partner_portal.show_invitation(%L)', :'used'));
SELECT run_as(NULL, :app, format('SELECT partner_portal.decline_invitation(%L)', :'used'));
SELECT a.email, a.name, m.role, m.accepted_at IS NOT NULL AS accepted FROM partner_portal.member m JOIN partner_portal.account a USING (account_id) WHERE m.workspace_id = 2 ORDER BY m.account_id;
-- the token of a mail not yet sent is blanked, and the mail cancelled
SELECT state, secret = '' AS blank, text_body ~ '/invitation/\*' AS blanked FROM partner_portal.notification WHERE dedupe_key = '4:1:1';
-- an existing account, signed in: owner of a second workspace
SELECT run_as(4, :app, (SELECT format('SELECT i.account_id || '' '' || i.accepted_workspace_id FROM partner_portal.accept_invitation(%L) i', token(5))));
SELECT run_as(4, :app, 'SELECT string_agg(workspace_id || role, '','' ORDER BY workspace_id) FROM partner_portal.my_workspaces');
-- a partner
SELECT run_as(NULL, :app, format('SELECT i.account_id || '' '' || i.accepted_workspace_id FROM partner_portal.accept_invitation(%L, ''Brand New'', ''Nina'', time_zone => ''Europe/Zurich'') i', token(1)));
SELECT w.workspace_id, w.kind, w.company_name, w.slug, w.time_zone, p.registration_code IS NOT NULL AS has_code FROM partner_portal.workspace w JOIN partner_portal.partner p ON p.partner_id = w.workspace_id ORDER BY 1;
-- a customer: a name is needed from somebody, and the partner's zone is taken
SELECT run_as(NULL, :app, format('SELECT partner_portal.accept_invitation(%L)', token(2)));
SELECT run_as(NULL, :app, format('SELECT partner_portal.accept_invitation(%L, ''K'', slug => ''direct'')', token(2)));
SELECT run_as(NULL, :app, format('SELECT partner_portal.accept_invitation(%L, ''K'', time_zone => ''Mars/Olympus'')', token(2)));
SELECT run_as(NULL, :app, format('SELECT i.account_id || '' '' || i.accepted_workspace_id FROM partner_portal.accept_invitation(%L, ''K'') i', token(2)));
SELECT run_as(NULL, :app, format('SELECT i.account_id || '' '' || i.accepted_workspace_id FROM partner_portal.accept_invitation(%L) i', token(3)));
SELECT workspace_id, partner_id, company_name, slug FROM partner_portal.workspace WHERE partner_id = 1 ORDER BY 1;
-- refused: it is over, for good
SELECT token(8) AS refused \gset
SELECT run_as(NULL, :app, format('SELECT partner_portal.decline_invitation(%L)', :'refused'));
SELECT run_as(NULL, :app, format('SELECT partner_portal.decline_invitation(%L)', :'refused'));
SELECT run_as(NULL, :app, format('SELECT partner_portal.accept_invitation(%L, ''Y'')', :'refused'));
SELECT run_as(NULL, :app, 'SELECT partner_portal.decline_invitation(''?'')');
-- sent anew: the old token is dead, the sending mail is cancelled; also once it has expired
CREATE TEMP TABLE old AS SELECT token(7) AS token;
GRANT SELECT ON old TO regress_app;
SELECT run_as(4, :app, 'SELECT partner_portal.resend_invitation(7)', 4);
SELECT run_as(2, :app, 'SELECT partner_portal.resend_invitation(7)');
SELECT run_as(NULL, :app, 'SELECT partner_portal.resend_invitation(7)');
SELECT run_as(1, :app, 'SELECT partner_portal.resend_invitation(99)');
SELECT run_as(1, :app, 'SELECT partner_portal.resend_invitation(NULL)');
SELECT run_as(1, :app, 'SELECT partner_portal.resend_invitation(4)');
SELECT run_as(1, :app, 'SELECT i.sendings || coalesce(i.token, '' no token'') FROM partner_portal.resend_invitation(7) i');
SELECT dedupe_key, state FROM partner_portal.notification WHERE dedupe_key LIKE '7:%' ORDER BY 1;
SELECT run_as(NULL, :app, format('SELECT partner_portal.accept_invitation(%L, ''Y'')', token)) FROM old;
UPDATE partner_portal.invitation SET expires_at = now() WHERE invitation_id = 7;
SELECT run_as(NULL, :app, format('SELECT partner_portal.accept_invitation(%L, ''Y'')', token(7)));
SELECT run_as(NULL, :app, format('SELECT partner_portal.decline_invitation(%L)', token(7)));
SELECT run_as(1, :app, 'SELECT expired FROM partner_portal.pending_invitations WHERE invitation_id = 7');
SELECT run_as(1, :app, 'SELECT i.sendings FROM partner_portal.resend_invitation(7) i');
SELECT run_as(NULL, :app, format('SELECT i.accepted_workspace_id FROM partner_portal.accept_invitation(%L, ''Y'') i', token(7)));
-- an expired one makes place for another
SELECT run_as(5, :ops, $$SELECT partner_portal.invite_partner('html@example.com', 'Again')$$);
UPDATE partner_portal.invitation SET expires_at = now() WHERE invitation_id = 9;
SELECT run_as(5, :ops, $$SELECT i.company_name FROM partner_portal.invite_partner('html@example.com', 'Again') i$$);
SELECT state FROM partner_portal.invitation WHERE email = 'html@example.com' ORDER BY invitation_id;
-- withdrawn
SELECT max(invitation_id) AS last FROM partner_portal.invitation \gset
SELECT run_as(1, :app, format('SELECT partner_portal.withdraw_invitation(%s)', :last));
SELECT run_as(5, :app, format('SELECT partner_portal.withdraw_invitation(%s)', :last));
SELECT run_as(5, :app, format('SELECT partner_portal.withdraw_invitation(%s)', :last));
-- an administrator does not handle an owner's
SELECT run_as(2, :app, $$SELECT i.role FROM partner_portal.invite_member(2, 'own@example.com', 'owner') i$$);
SELECT max(invitation_id) AS last FROM partner_portal.invitation \gset
SELECT run_as(6, :app, format('SELECT partner_portal.withdraw_invitation(%s)', :last));
SELECT run_as(6, :app, format('SELECT partner_portal.resend_invitation(%s)', :last));
-- a membership that waited for its account's word is accepted with it, and gets the role; one that counts is not changed
SELECT run_as(NULL, :trusted, $$SELECT m.accepted_at IS NULL FROM partner_portal.add_member(2, 'd@example.com', 'guest') m$$);
SELECT run_as(2, :app, $$SELECT i.role FROM partner_portal.invite_member(2, 'd@example.com', 'administrator') i$$);
SELECT run_as(2, :app, format('SELECT partner_portal.accept_invitation(%L)', token(max(invitation_id)))) FROM partner_portal.invitation;
SELECT run_as(NULL, :app, format('SELECT (partner_portal.accept_invitation(%L)).account_id', token(max(invitation_id)))) FROM partner_portal.invitation;
SELECT run_as(2, :trusted, $$SELECT i.invitation_id IS NOT NULL FROM partner_portal.invite_member(2, 'late@example.com', 'guest') i$$);
SELECT run_as(NULL, :trusted, $$SELECT m.role FROM partner_portal.add_member(2, 'late@example.com', 'administrator') m$$);
SELECT run_as(NULL, :app, format('SELECT i.state FROM partner_portal.accept_invitation(%L) i', token(max(invitation_id)))) FROM partner_portal.invitation;
SELECT a.email, m.role, m.accepted_at IS NOT NULL AS accepted FROM partner_portal.member m JOIN partner_portal.account a USING (account_id) WHERE m.workspace_id = 2 AND a.email IN ('d@example.com', 'late@example.com') ORDER BY 1;
-- a disabled account does not come in by an invitation
SELECT run_as(2, :app, $$SELECT i.role FROM partner_portal.invite_member(2, 'dis@example.com', 'member') i$$);
INSERT INTO partner_portal.account (email, disabled_at) VALUES ('dis@example.com', now());
SELECT run_as(NULL, :app, format('SELECT partner_portal.accept_invitation(%L)', token(max(invitation_id)))) FROM partner_portal.invitation;

-- registration that waits for its confirmation
SELECT registration_code AS code FROM partner_portal.partner WHERE partner_id = 1 \gset
SELECT run_as(NULL, :app, format('SELECT partner_portal.register_workspace(%L, ''Reg'', ''reg@example.com'', confirm => true)', :'code'));
SELECT run_as(NULL, :trusted, format('SELECT w.workspace_id FROM partner_portal.register_workspace(%L, ''Reg'', ''reg@example.com'', ''Rita'', ''regs'', ''Asia/Tokyo'', true) w', :'code'));
SELECT run_as(NULL, :trusted, format('SELECT partner_portal.register_workspace(%L, ''Reg'', ''reg2@example.com'', slug => ''direct'', confirm => true)', :'code'));
SELECT run_as(NULL, :trusted, 'SELECT partner_portal.register_workspace(''no-code'', ''Reg'', ''reg2@example.com'', confirm => true)');
SELECT count(*) FROM partner_portal.account WHERE email = 'reg@example.com';
CREATE TEMP TABLE first AS SELECT token(max(invitation_id)) AS token FROM partner_portal.invitation;
SELECT x.purpose FROM first, partner_portal.show_invitation(token) x;
SELECT run_as(NULL, :trusted, format('SELECT w.workspace_id FROM partner_portal.register_workspace(%L, ''Reg'', ''reg@example.com'', ''Rita'', ''regs'', ''Asia/Tokyo'', true) w', :'code'));
SELECT run_as(NULL, :app, format('SELECT partner_portal.accept_invitation(%L)', token)) FROM first;
SELECT run_as(NULL, :app, format('SELECT i.state FROM partner_portal.accept_invitation(%L) i', token(max(invitation_id)))) FROM partner_portal.invitation;
SELECT w.partner_id, w.company_name, w.slug, w.time_zone, a.email, a.name, m.role, m.accepted_at IS NOT NULL AS accepted
	FROM partner_portal.workspace w JOIN partner_portal.member m USING (workspace_id) JOIN partner_portal.account a USING (account_id) WHERE w.slug = 'regs';

SELECT n, run_as(NULL, :trusted, format('SELECT w.workspace_id FROM partner_portal.register_workspace(%L, ''Many'', ''Many%s@example.com'', confirm => true) w', :'code', CASE n WHEN 7 THEN 7 END)) FROM generate_series(1, 7) n;
-- of several links one works: the mails with the others are not sent any more, and their tokens are blanked
SELECT i.state, n.state AS mail, n.secret <> '' AS has_token, count(*) FROM partner_portal.invitation i
	JOIN partner_portal.notification n ON n.workspace_id = i.workspace_id AND n.kind = 'invitation' AND n.dedupe_key = i.invitation_id || ':1:1'
	WHERE i.email = 'Many@example.com' GROUP BY 1, 2, 3 ORDER BY 1;

-- the cap of an hour
SET partner_portal.invitations_per_hour = 2;
SELECT run_as(3, :app, $$SELECT i.role FROM partner_portal.invite_member(3, 'one@example.com', 'member') i$$);
SELECT run_as(3, :app, $$SELECT i.role FROM partner_portal.invite_member(3, 'two@example.com', 'member') i$$);
SELECT run_as(3, :app, $$SELECT i.role FROM partner_portal.invite_member(3, 'three@example.com', 'member') i$$);
SELECT run_as(3, :app, format('SELECT partner_portal.resend_invitation(%s)', max(invitation_id))) FROM partner_portal.invitation;
SELECT run_as(5, :app, $$SELECT i.role FROM partner_portal.invite_member(3, 'four@example.com', 'member') i$$);
UPDATE partner_portal.invitation_allowance SET hour_from = hour_from - interval '61 minutes' WHERE account_id = 3;
SELECT run_as(3, :app, $$SELECT i.role FROM partner_portal.invite_member(3, 'three@example.com', 'member') i$$);

RESET partner_portal.invitations_per_hour;

-- they end with their workspace, follow it to another partner, and are forgotten with a person
SELECT run_as(2, :app, $$SELECT i.partner_key FROM partner_portal.invite_member(2, 'moving@example.com', 'member') i$$);
SELECT run_as(1, :app, $$SELECT count(*) > 0 FROM partner_portal.pending_invitations WHERE workspace_id = 2$$, 1);
SELECT run_as(2, :app, format('SELECT w.partner_id FROM partner_portal.transfer_workspace(2, %L) w', (SELECT registration_code FROM partner_portal.partner WHERE partner_id = 4)));
SELECT run_as(1, :app, $$SELECT count(*) FROM partner_portal.pending_invitations WHERE workspace_id = 2$$, 1);
SELECT run_as(4, :app, $$SELECT count(*) > 0 FROM partner_portal.pending_invitations WHERE workspace_id = 2$$, 4);
CREATE TEMP TABLE moving AS SELECT token(max(invitation_id)) AS token FROM partner_portal.invitation;
SELECT run_as(2, :app, 'SELECT w.deleted_at IS NOT NULL FROM partner_portal.delete_workspace(2) w');
SELECT run_as(NULL, :app, format('SELECT partner_portal.accept_invitation(%L)', token)) FROM moving;
SELECT DISTINCT state FROM partner_portal.invitation WHERE workspace_id = 2 ORDER BY 1;
SELECT run_as(1, :app, $$SELECT i.kind FROM partner_portal.invite_customer('gone@example.com') i$$, 1);
INSERT INTO partner_portal.account (email) VALUES ('gone@example.com');
SELECT count(*) FROM partner_portal.erase_account((SELECT account_id FROM partner_portal.account WHERE email = 'gone@example.com'));
SELECT count(*) FROM partner_portal.invitation WHERE email = 'gone@example.com';
SELECT count(*) FROM partner_portal.purge_workspace(2);
SELECT count(*) FROM partner_portal.invitation WHERE workspace_id = 2;
