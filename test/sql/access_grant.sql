\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept access_grant
\i :begin
\i :as
-- workspaces 1: partner One, 2: partner Two, 3: customer of One, 4: direct, 5: deleted partner; accounts n owns workspace n; 6 is
-- administrator and 7 plain member of Two, 8 administrator and 9 member of 3, 10 the operator's; 7 is also a guest of 3
INSERT INTO partner_portal.account (email) SELECT n || '@example.com' FROM unnest(ARRAY['one', 'two', 'customer', 'direct', 'gone', 'two_admin', 'two_member', 'c_admin', 'c_member', 'operator']) WITH ORDINALITY AS t (n, i) ORDER BY i;
UPDATE partner_portal.account SET is_operator = true WHERE account_id = 10;
INSERT INTO partner_portal.partner (partner_id, registration_code) VALUES (1, 'code-of-1'), (2, 'code-of-2'), (5, 'code-of-5');
INSERT INTO partner_portal.workspace (kind, partner_id, company_name, slug, anchor_date, deleted_at) VALUES
	('partner', NULL, 'One Partner', 'one', '2026-01-01', NULL), ('partner', NULL, 'Two Partner', 'two', '2026-01-01', NULL),
	('business', 1, 'Customer', 'customer', '2026-01-01', NULL), ('business', NULL, 'Direct', 'direct', '2026-01-01', NULL),
	('partner', NULL, 'Two Gone', 'gone', '2026-01-01', '2026-02-01');
INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at)
	SELECT v.w, v.a, w.partner_key, v.role, now()
	FROM (VALUES (1, 1, 'owner'), (2, 2, 'owner'), (3, 3, 'owner'), (4, 4, 'owner'), (5, 5, 'owner'), (2, 6, 'administrator'), (2, 7, 'member'),
		(3, 8, 'administrator'), (3, 9, 'member'), (3, 6, 'guest'), (3, 7, 'guest')) AS v (w, a, role) JOIN partner_portal.workspace w ON w.workspace_id = v.w;
INSERT INTO partner_portal.product (workspace_id, category, name) VALUES (3, 'server', 'web1'), (3, 'server', 'web2'), (3, 'domain', 'example.com'), (4, 'mailbox', 'info');
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 'A'), (4, 'smartphone', 'B');
CREATE FUNCTION token() RETURNS text LANGUAGE sql AS $$
	SELECT substring(text_body FROM '/invitation/([A-Za-z0-9_-]{43})\M') FROM partner_portal.notification
	WHERE kind = 'invitation' AND state = 'pending' ORDER BY notification_id DESC LIMIT 1
$$;
-- what Two sees of 3: panel, workspace, keys, products; and whether it may write a key there
CREATE FUNCTION two_sees(who bigint DEFAULT 2) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' | ',
		run_as(who, 'regress_app', 'SELECT string_agg(workspace_id || coalesce('':'' || active_keys, '''') || '':'' || relation, '','' ORDER BY workspace_id) FROM partner_portal.partner_panel', 2),
		run_as(who, 'regress_app', 'SELECT string_agg(workspace_id::text, '','' ORDER BY workspace_id) FROM partner_portal.workspace WHERE workspace_id <> 2', 2),
		run_as(who, 'regress_app', 'SELECT count(*) FROM partner_portal.security_key', 2),
		run_as(who, 'regress_app', 'SELECT string_agg(name, '','' ORDER BY name) FROM partner_portal.product', 2),
		run_as(who, 'regress_app', 'SELECT string_agg(p, '','') FROM unnest(ARRAY[''read'', ''manage_keys'', ''manage_products'', ''manage_settings'', ''bill'']) p WHERE partner_portal.may(p, 3)', 2))
$$;
SELECT two_sees();

-- finding a partner
SELECT run_as(3, :app, $$SELECT string_agg(partner_id || ' ' || company_name, ',') FROM partner_portal.find_partner('TWO')$$);
SELECT run_as(3, :app, $$SELECT string_agg(partner_id || ' ' || company_name, ',') FROM partner_portal.find_partner('Two_Admin@example.com')$$, 3);
SELECT run_as(3, :app, $$SELECT count(*) FROM partner_portal.find_partner('two_member@example.com')$$);
SELECT run_as(3, :app, $$SELECT count(*) FROM partner_portal.find_partner('two_admin@')$$);
SELECT run_as(3, :app, $$SELECT count(*) FROM partner_portal.find_partner('%')$$);
SELECT run_as(3, :app, $$SELECT count(*) FROM partner_portal.find_partner('')$$);
SELECT run_as(3, :app, $$SELECT count(*) FROM partner_portal.find_partner(NULL)$$);
SELECT run_as(NULL, :app, $$SELECT count(*) FROM partner_portal.find_partner('Two')$$);

-- offers: only the owner's to make, and only what makes sense
SELECT run_as(8, :app, $$SELECT partner_portal.offer_access(3, 2, 'complete', wallet => false)$$);
SELECT run_as(1, :app, $$SELECT partner_portal.offer_access(3, 2, 'complete', wallet => false)$$);
SELECT run_as(4, :app, $$SELECT partner_portal.offer_access(3, 2, 'complete', wallet => false)$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 2, 'complete')$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 2, 'complete', ARRAY[1], wallet => true)$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 2, 'limited')$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 2, 'limited', ARRAY[1], wallet => true)$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 2, 'limited', ARRAY[4])$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 2, 'limited', ARRAY[99])$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 2, 'limited', ARRAY[NULL::bigint])$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 2, 'limited', categories => ARRAY[''])$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 2, 'some', ARRAY[1])$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 2, NULL)$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 2, 'complete', wallet => false, rights => '{}')$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 2, 'complete', wallet => false, rights => '{read,own}')$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 2, 'complete', wallet => false, expires_at => now())$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 2, 'complete', wallet => false, expires_at => 'infinity')$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 4, 'complete', wallet => false)$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 5, 'complete', wallet => false)$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 99, 'complete', wallet => false)$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, NULL, 'complete', wallet => false)$$);
SELECT run_as(1, :app, $$SELECT partner_portal.offer_access(1, 1, 'complete', wallet => false)$$);
SELECT count(*) FROM partner_portal.access_grant;

-- limited to a product and a category; nothing before it is accepted
SELECT run_as(3, :app, $$SELECT g.state || ' ' || g.rights::text FROM partner_portal.offer_access(3, 2, 'limited', ARRAY[1], ARRAY['domain'], rights => '{read,read}') g$$);
SELECT run_as(3, :app, $$SELECT partner_portal.offer_access(3, 2, 'complete', wallet => false)$$);
SELECT two_sees();
SELECT recipient, subject FROM partner_portal.notification WHERE kind = 'invitation' ORDER BY 1;
SELECT kind, purpose, inviter, details FROM partner_portal.show_invitation(token());
SELECT run_as(2, :app, 'SELECT kind || '' '' || grant_id FROM partner_portal.pending_invitations');
SELECT run_as(3, :app, 'SELECT kind || '' '' || grant_id FROM partner_portal.pending_invitations');
SELECT run_as(1, :app, 'SELECT kind || '' '' || grant_id FROM partner_portal.pending_invitations');
-- the link: for those who run the partner
SELECT run_as(3, :app, format('SELECT partner_portal.accept_invitation(%L)', token()));
SELECT run_as(7, :app, format('SELECT partner_portal.accept_invitation(%L)', token()), 2);
SELECT run_as(1, :app, format('SELECT partner_portal.accept_invitation(%L)', token()));
SELECT run_as(6, :app, format('SELECT i.account_id || '' '' || i.accepted_workspace_id FROM partner_portal.accept_invitation(%L) i', token()), 2);
SELECT two_sees();
SELECT two_sees(6);
SELECT two_sees(7);
SELECT run_as(2, :app, 'SELECT string_agg(belongs_to || '':'' || company_name || '':'' || name || '':'' || relation, '','' ORDER BY name) FROM partner_portal.partner_products');
SELECT run_as(2, :app, 'SELECT partner_portal.authorize(''read'', 3)');
SELECT run_as(2, :app, 'UPDATE partner_portal.product SET name = ''mine'' RETURNING name');
SELECT run_as(2, :app, 'SELECT partner_portal.partner_summary()');
SELECT run_as(2, :app, 'SELECT string_agg(company_name || coalesce(slug, '' no slug''), '','') FROM partner_portal.find_customers('''')');
-- who was a guest is one by the grant now; a member is not doubled
SELECT account_id, role, grant_id FROM partner_portal.member WHERE workspace_id = 3 AND account_id IN (6, 7) ORDER BY 1;
-- products to come are covered by their category
INSERT INTO partner_portal.product (workspace_id, category, name) VALUES (3, 'domain', 'example.org');
SELECT two_sees();
-- replaced by more: with manage, of categories
SELECT run_as(3, :app, $$SELECT g.state FROM partner_portal.offer_access(3, 2, 'limited', categories => ARRAY['server']) g$$);
SELECT run_as(2, :app, format('SELECT (partner_portal.accept_access(%s)).state', (SELECT max(grant_id) FROM partner_portal.access_grant)));
SELECT state, email, account_id FROM partner_portal.invitation ORDER BY invitation_id;
SELECT two_sees();
SELECT run_as(2, :app, 'WITH u AS (UPDATE partner_portal.product SET external_ref = ''x'' RETURNING name) SELECT string_agg(name, '','' ORDER BY name) FROM u');
SELECT run_as(2, :app, 'UPDATE partner_portal.product SET category = ''domain'' WHERE name = ''web1'' RETURNING name');
SELECT run_as(2, :app, 'UPDATE partner_portal.product SET partner_access = true WHERE name = ''web1'' RETURNING name');
SELECT run_as(2, :app, 'INSERT INTO partner_portal.product (workspace_id, category, name) VALUES (3, ''server'', ''web3'')');
SELECT run_as(2, :app, 'INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, ''smartphone'', ''Z'')');
SELECT account_id, role, grant_id FROM partner_portal.member WHERE workspace_id = 3 AND account_id IN (6, 7) ORDER BY 1;
-- complete, read only; then with manage
SELECT run_as(3, :app, $$SELECT g.state FROM partner_portal.offer_access(3, 2, 'complete', wallet => false, rights => '{read}') g$$);
SELECT run_as(NULL, :app, format('SELECT i.account_id FROM partner_portal.accept_invitation(%L) i', token()));
SELECT two_sees();
SELECT run_as(2, :app, 'WITH u AS (UPDATE partner_portal.security_key SET label = ''x'' RETURNING serial) SELECT count(*) FROM u');
SELECT run_as(2, :app, 'INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, ''smartphone'', ''Z'')');
SELECT run_as(3, :app, $$SELECT g.state FROM partner_portal.offer_access(3, 2, 'complete', wallet => true, rights => '{manage}', expires_at => now() + interval '60 days') g$$);
SELECT run_as(6, :app, format('SELECT (partner_portal.accept_access(%s)).state', (SELECT max(grant_id) FROM partner_portal.access_grant)), 2);
SELECT two_sees();
SELECT run_as(2, :app, 'INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, ''smartphone'', ''Z'') RETURNING status');
SELECT run_as(2, :app, 'INSERT INTO partner_portal.product (workspace_id, category, name) VALUES (3, ''server'', ''web4'') RETURNING name');
SELECT run_as(2, :app, 'WITH d AS (DELETE FROM partner_portal.security_key WHERE serial = ''Z'' RETURNING serial) SELECT count(*) FROM d');
SELECT account_id, role, grant_id, ends_at IS NOT NULL AS ends FROM partner_portal.member WHERE workspace_id = 3 AND account_id IN (6, 7) ORDER BY 1;
BEGIN;
SELECT m.role FROM partner_portal.set_member_role(3, 6, 'administrator') m;
SELECT role, grant_id IS NULL AS own, ends_at IS NULL AS lasts FROM partner_portal.member WHERE workspace_id = 3 AND account_id = 6;
ROLLBACK;
SELECT run_as(6, :app, 'SELECT string_agg(workspace_id || role, '','' ORDER BY workspace_id) FROM partner_portal.my_workspaces');
SELECT grant_id, state, scope, end_reason, wallet_since IS NOT NULL AS wallet FROM partner_portal.access_grant ORDER BY 1;
SELECT run_as(3, :app, 'SELECT string_agg(concat_ws('':'', grant_id, company_name, partner_name, state, holds_wallet), '', '' ORDER BY grant_id) FROM partner_portal.grants');
SELECT run_as(2, :app, 'SELECT string_agg(concat_ws('':'', grant_id, company_name, partner_name, state, holds_wallet), '', '' ORDER BY grant_id) FROM partner_portal.grants');
SELECT run_as(1, :app, 'SELECT count(*) FROM partner_portal.grants');
SELECT run_as(7, :app, 'SELECT count(*) FROM partner_portal.grants', 2);
SELECT run_as(4, :app, 'SELECT count(*) FROM partner_portal.grants');

-- the wallet pays for periods that start while it is held
SELECT partner_portal.payer_at(3, now() - interval '1 day') AS before, partner_portal.payer_at(3, now() + interval '1 day') AS now, partner_portal.payer_at(3, now() + interval '61 days') AS after_expiry;
SELECT run_as(3, :app, $$SELECT g.state FROM partner_portal.offer_access(3, 1, 'complete', wallet => true) g$$);
SELECT run_as(1, :app, format('SELECT (partner_portal.accept_access(%s)).state', (SELECT max(grant_id) FROM partner_portal.access_grant)));
SELECT partner_id, state, wallet_since IS NOT NULL AS since, wallet_until IS NOT NULL AS until FROM partner_portal.access_grant WHERE wallet ORDER BY 1;
SELECT partner_portal.payer_at(3, now() + interval '1 day') AS now;
SELECT run_as(3, :app, format('SELECT (partner_portal.end_access(%s)).state', (SELECT max(grant_id) FROM partner_portal.access_grant)));
SELECT partner_portal.payer_at(3, now() + interval '1 day') AS now;

-- an expiry is part of the check; memberships by the grant go with it
SELECT max(grant_id) AS g FROM partner_portal.access_grant WHERE partner_id = 2 \gset
SELECT run_as(2, :app, format('SELECT partner_portal.extend_access(%s, now() + interval ''1 year'')', :g));
SELECT run_as(8, :app, format('SELECT partner_portal.extend_access(%s, now() + interval ''1 year'')', :g));
SELECT run_as(4, :app, format('SELECT partner_portal.extend_access(%s, now() + interval ''1 year'')', :g));
SELECT run_as(3, :app, format('SELECT partner_portal.extend_access(%s, now())', :g));
SELECT run_as(3, :app, format('SELECT (partner_portal.extend_access(%s, NULL)).expires_at IS NULL', :g));
SELECT run_as(3, :app, format('SELECT (partner_portal.extend_access(%s, clock_timestamp() + interval ''50 ms'')).state', :g));
SELECT pg_sleep(0.06);
SELECT two_sees();
SELECT run_as(6, :app, 'SELECT string_agg(workspace_id || role, '','' ORDER BY workspace_id) FROM partner_portal.my_workspaces');
SELECT run_as(6, :app, 'SELECT partner_portal.act_in(3)');
SELECT run_as(3, :app, format('SELECT state FROM partner_portal.grants WHERE grant_id = %s', :g));
SELECT run_as(3, :app, format('SELECT partner_portal.extend_access(%s, now() + interval ''1 day'')', :g));
SELECT run_as(3, :app, 'SELECT partner_portal.end_expired_access()');
SELECT partner_portal.end_expired_access(), partner_portal.end_expired_access();
SELECT state, end_reason, ended_at = expires_at AS at_expiry FROM partner_portal.access_grant WHERE grant_id = :g;
SELECT count(*) FROM partner_portal.member WHERE workspace_id = 3 AND account_id = 6;

-- requests: by those who run a partner; as asked, something else within it, something more, nothing
SELECT run_as(7, :app, 'SELECT partner_portal.request_access(4)', 2);
SELECT run_as(3, :app, 'SELECT partner_portal.request_access(4)');
SELECT run_as(2, :app, 'SELECT partner_portal.request_access(99)');
SELECT run_as(2, :app, 'SELECT partner_portal.request_access(NULL)');
SELECT run_as(2, :app, 'SELECT partner_portal.request_access(2)');
SELECT run_as(2, :app, $$SELECT g.state FROM partner_portal.request_access(4, wallet => true, message => 'Hello') g$$);
SELECT run_as(2, :app, 'SELECT partner_portal.request_access(4)');
SELECT kind, recipient, subject, text_body ~ 'It writes: Hello' AS message FROM partner_portal.notification WHERE kind = 'access_request';
SELECT run_as(2, :app, 'SELECT coalesce(company_name, ''unnamed'') || '' '' || state FROM partner_portal.grants WHERE workspace_id = 4');
SELECT run_as(2, :app, 'SELECT count(*) FROM partner_portal.partner_panel');
SELECT max(grant_id) AS g FROM partner_portal.access_grant \gset
SELECT run_as(2, :app, format('SELECT partner_portal.accept_access(%s)', :g));
SELECT run_as(3, :app, format('SELECT partner_portal.accept_access(%s)', :g));
SELECT run_as(3, :app, 'SELECT partner_portal.accept_access(99)');
SELECT run_as(4, :app, format('SELECT (partner_portal.accept_access(%s)).state', :g));
SELECT run_as(4, :app, format('SELECT partner_portal.accept_access(%s)', :g));
SELECT run_as(2, :app, 'SELECT company_name || active_keys FROM partner_portal.partner_panel');
SELECT run_as(2, :app, format('SELECT g.state || '' '' || g.end_reason FROM partner_portal.end_access(%s, ''done'') g', :g));
SELECT run_as(2, :app, format('SELECT partner_portal.end_access(%s)', :g));
SELECT run_as(2, :app, 'SELECT count(*) FROM partner_portal.partner_panel');
SELECT run_as(2, :app, $$SELECT g.state FROM partner_portal.request_access(4) g$$);
SELECT run_as(4, :app, format('SELECT g.state || '' '' || g.scope FROM partner_portal.counter_offer(%s, ''limited'', ARRAY[4], rights => ''{read}'') g', (SELECT max(grant_id) FROM partner_portal.access_grant)));
SELECT run_as(2, :app, 'SELECT company_name || coalesce(active_keys, 0) FROM partner_portal.partner_panel');
SELECT run_as(2, :app, $$SELECT g.state FROM partner_portal.request_access(4, 'limited', ARRAY[99]) g$$);
SELECT max(grant_id) AS g FROM partner_portal.access_grant \gset
SELECT run_as(4, :app, format('SELECT partner_portal.accept_access(%s)', :g));
SELECT run_as(2, :app, format('SELECT partner_portal.counter_offer(%s, ''complete'', wallet => false)', :g));
SELECT run_as(4, :app, format('SELECT g.state || '' '' || g.asked::text FROM partner_portal.counter_offer(%s, ''complete'', wallet => true) g', :g));
SELECT run_as(4, :app, format('SELECT partner_portal.counter_offer(%s, ''complete'', wallet => false)', :g));
SELECT run_as(4, :app, format('SELECT partner_portal.accept_access(%s)', :g));
SELECT run_as(2, :app, format('SELECT g.state FROM partner_portal.decline_access(%s) g', :g));
SELECT state FROM partner_portal.invitation ORDER BY invitation_id DESC LIMIT 1;
SELECT run_as(2, :app, $$SELECT g.state FROM partner_portal.request_access(4) g$$);
SELECT run_as(4, :app, format('SELECT g.state FROM partner_portal.decline_access(%s, ''no'') g', (SELECT max(grant_id) FROM partner_portal.access_grant)));

-- refused and taken back by link and list
SELECT run_as(4, :app, $$SELECT g.state FROM partner_portal.offer_access(4, 1, 'complete', wallet => false) g$$);
SELECT run_as(NULL, :app, format('SELECT partner_portal.decline_invitation(%L)', token()));
SELECT state FROM partner_portal.access_grant WHERE partner_id = 1 ORDER BY grant_id DESC LIMIT 1;
SELECT run_as(4, :app, $$SELECT g.state FROM partner_portal.offer_access(4, 1, 'complete', wallet => false) g$$);
SELECT run_as(4, :app, format('SELECT i.sendings FROM partner_portal.resend_invitation(%s) i', (SELECT max(invitation_id) FROM partner_portal.invitation)));
SELECT run_as(1, :app, format('SELECT partner_portal.withdraw_invitation(%s)', (SELECT max(invitation_id) FROM partner_portal.invitation)));
SELECT run_as(4, :app, format('SELECT partner_portal.withdraw_invitation(%s)', (SELECT max(invitation_id) FROM partner_portal.invitation)));
SELECT state FROM partner_portal.access_grant WHERE partner_id = 1 ORDER BY grant_id DESC LIMIT 1;
SELECT run_as(4, :app, $$SELECT g.state FROM partner_portal.offer_access(4, 1, 'complete', wallet => false) g$$);
SELECT run_as(4, :app, format('SELECT g.state FROM partner_portal.end_access(%s) g', (SELECT max(grant_id) FROM partner_portal.access_grant)));
SELECT run_as(NULL, :app, format('SELECT partner_portal.accept_invitation(%L)', coalesce(token(), repeat('A', 43))));

-- sent anew, an offer goes to who owns the partner by then, at the address of then, who may accept with nobody signed in
SELECT email AS former_email FROM partner_portal.account WHERE account_id = 1 \gset
SELECT run_as(4, :app, $$SELECT g.state FROM partner_portal.offer_access(4, 1, 'complete', wallet => false) g$$);
SELECT (partner_portal.change_email(1, 'moved@example.com')).email;
SELECT run_as(NULL, :app, format('SELECT partner_portal.accept_invitation(%L)', token()));
SELECT run_as(4, :app, format('SELECT i.email FROM partner_portal.resend_invitation(%s) i', (SELECT max(invitation_id) FROM partner_portal.invitation)));
SELECT recipient FROM partner_portal.notification WHERE kind = 'invitation' ORDER BY notification_id DESC LIMIT 1;
SELECT run_as(NULL, :app, format('SELECT i.state FROM partner_portal.accept_invitation(%L) i', token()));
SELECT run_as(4, :app, format('SELECT g.state FROM partner_portal.end_access(%s) g', (SELECT max(grant_id) FROM partner_portal.access_grant)));
SELECT (partner_portal.change_email(1, :'former_email')).email = :'former_email' AS back;

-- notices 30, 7 and 1 days before, each once, to both sides; none for a time that was shorter from the start
INSERT INTO partner_portal.access_grant (workspace_id, partner_id, scope, wallet, state, accepted_at, expires_at) VALUES
	(3, 2, 'complete', false, 'active', '2026-01-01', '2099-03-01'), (4, 1, 'complete', false, 'active', '2099-02-26', '2099-03-01');
SELECT partner_portal.notify_expiring_access(t) FROM unnest(ARRAY['2099-01-15', '2099-02-01', '2099-02-10', '2099-02-22', '2099-02-23', '2099-02-28', '2099-02-28', '2099-03-02']::timestamptz[]) t;
SELECT split_part(dedupe_key, ':', 2) AS notice, string_agg(recipient, ',' ORDER BY recipient), min(subject) FROM partner_portal.notification WHERE kind = 'access_expiry' GROUP BY 1 ORDER BY 1;
SELECT run_as(3, :app, 'SELECT partner_portal.notify_expiring_access()');

-- deletion and transfer end them; a grant to somebody else stays with a transfer
SELECT run_as(3, :app, $$SELECT g.state FROM partner_portal.offer_access(3, 1, 'complete', wallet => true) g$$);
SELECT run_as(1, :app, format('SELECT (partner_portal.accept_access(%s)).state', (SELECT max(grant_id) FROM partner_portal.access_grant)));
SELECT run_as(3, :app, $$UPDATE partner_portal.product SET partner_access = true WHERE name = 'web1' RETURNING name$$);
SELECT run_as(3, :app, 'SELECT w.partner_id FROM partner_portal.leave_partner(3) w');
SELECT partner_id, state, end_reason FROM partner_portal.access_grant WHERE workspace_id = 3 AND coalesce(end_reason, '') IN ('', 'transferred') AND accepted_at IS NOT NULL ORDER BY grant_id;
SELECT bool_or(partner_access) FROM partner_portal.product WHERE workspace_id = 3;
SELECT run_as(1, :app, 'SELECT count(*) FROM partner_portal.partner_panel WHERE workspace_id = 3');
SELECT run_as(3, :app, 'SELECT w.deleted_at IS NOT NULL FROM partner_portal.delete_workspace(3) w');
SELECT count(*) FROM partner_portal.access_grant WHERE workspace_id = 3 AND ended_at IS NULL;
SELECT run_as(2, :app, 'SELECT count(*) FROM partner_portal.partner_panel WHERE workspace_id = 3');
SELECT count(*) FROM partner_portal.demote_partner(1);
SELECT partner_id, state, end_reason FROM partner_portal.access_grant WHERE workspace_id = 4 AND partner_id = 1 ORDER BY grant_id DESC LIMIT 1;
-- what the log says of it, without names: the workspace's partner reads it too
SELECT action, description, details - 'expires_at' FROM partner_portal.activity WHERE workspace_id = 4 AND action IN ('grant_access', 'end_access') ORDER BY activity_id LIMIT 8;
