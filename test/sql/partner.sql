\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept partner
\i :begin
\i :as
-- accounts: 1 owner of partner 1, 2 owner of partner 2, 3 owner of the direct workspace 3, 4 the operator's, 5 and 6 of partner 1
SELECT c.workspace_id, c.kind, c.slug, c.time_zone FROM partner_portal.create_workspace('Alpha', 'alpha@example.com', time_zone => 'Europe/Zurich') c;
SELECT c.workspace_id, c.kind, c.slug, c.time_zone FROM partner_portal.create_workspace('Beta', 'beta@example.com') c;
SELECT c.workspace_id, c.kind, c.slug, c.time_zone FROM partner_portal.create_workspace('Direct', 'direct@example.com') c;
INSERT INTO partner_portal.account (email, is_operator) VALUES ('operator@example.com', true);
SELECT a.account_id, a.role, a.accepted_at IS NOT NULL FROM partner_portal.add_member(1, 'admin@example.com', 'administrator') a;
SELECT a.account_id, a.role, a.accepted_at IS NOT NULL FROM partner_portal.add_member(1, 'member@example.com', 'member') a;

-- promotion is the operator's: by role and nobody, or by an operator's account
SELECT run_as(1, :app, 'SELECT partner_portal.promote_to_partner(1)');
SELECT run_as(NULL, :app, 'SELECT partner_portal.promote_to_partner(1)');
SELECT run_as(NULL, :trusted, 'SELECT partner_portal.promote_to_partner(1)');
SELECT run_as(NULL, :ops, 'SELECT partner_portal.promote_to_partner(1)');
SELECT run_as(1, NULL, 'SELECT partner_portal.promote_to_partner(1)');
SELECT run_as(4, :app, 'SELECT p.partner_id FROM partner_portal.promote_to_partner(1) p');
SELECT run_as(NULL, NULL, 'SELECT p.partner_id FROM partner_portal.promote_to_partner(2) p');
SELECT workspace_id, kind, partner_id FROM partner_portal.workspace ORDER BY 1;
SELECT run_as(NULL, NULL, 'SELECT partner_portal.promote_to_partner(1)');
SELECT run_as(NULL, NULL, 'SELECT partner_portal.promote_to_partner(99)');
DO $$ DECLARE told text; BEGIN PERFORM partner_portal.promote_to_partner(1); EXCEPTION WHEN OTHERS THEN GET STACKED DIAGNOSTICS told = PG_EXCEPTION_HINT; RAISE 'hint: %', told; END $$;
SELECT run_as(NULL, NULL, 'SELECT partner_portal.promote_to_partner(NULL)');

-- the link: for owner and administrator of the partner; others' and absent partners are the same to everybody
SELECT count(DISTINCT registration_code), bool_and(length(registration_code) = 32) FROM partner_portal.partner;
UPDATE partner_portal.partner SET registration_code = 'code-of-' || partner_id;
SELECT run_as(1, :app, 'SELECT partner_portal.registration_url()');
SELECT run_as(5, :app, 'SELECT partner_portal.registration_url(1)');
SELECT run_as(6, :app, 'SELECT partner_portal.registration_url(1)');
SELECT run_as(2, :app, 'SELECT partner_portal.registration_url(1)');
SELECT run_as(2, :app, 'SELECT partner_portal.registration_url(99)');
SELECT run_as(3, :app, 'SELECT partner_portal.registration_url()');
SELECT run_as(3, :app, 'SELECT partner_portal.registration_url(3)');
SELECT run_as(NULL, :app, 'SELECT partner_portal.registration_url()');
SELECT run_as(NULL, :app, 'SELECT partner_portal.registration_url(1)');
SELECT run_as(4, :app, 'SELECT partner_portal.registration_url(2)');
SELECT run_as(4, :app, 'SELECT partner_portal.registration_url(3)');
SELECT run_as(NULL, NULL, 'SELECT partner_portal.registration_url()');
SET partner_portal.link_base_url = 'https://p.example/x/';
SELECT run_as(2, :app, 'SELECT partner_portal.registration_url()');
RESET partner_portal.link_base_url;

-- registration: a trusted application with nobody signed in
SELECT run_as(NULL, :app, $$SELECT partner_portal.register_workspace('code-of-1', 'Kunde', 'kunde@example.com')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.register_workspace('code-of-1', 'Kunde', 'kunde@example.com')$$);
SELECT run_as(NULL, :ops, $$SELECT partner_portal.register_workspace('code-of-1', 'Kunde', 'kunde@example.com')$$);
SELECT run_as(NULL, :trusted, $$SELECT r.workspace_id || ' ' || r.kind || ' ' || r.partner_id || ' ' || r.slug || ' ' || r.time_zone
	FROM partner_portal.register_workspace('code-of-1', 'Künde & Co', 'kunde@example.com', 'Kurt Kunde') r$$);
SELECT run_as(NULL, :trusted, $$SELECT r.workspace_id || ' ' || r.kind || ' ' || r.partner_id || ' ' || r.slug || ' ' || r.time_zone
	FROM partner_portal.register_workspace('code-of-2', 'Künde & Co', 'KUNDE@example.com', 'Somebody Else', slug => 'zwei', time_zone => 'America/New_York') r$$);
SELECT run_as(4, :ops, $$SELECT r.workspace_id FROM partner_portal.register_workspace('code-of-2', 'By the operator', 'third@example.com') r$$);
-- its owner: a new account at once, one that was there must accept, unless it is the one signed in
SELECT run_as(3, :trusted, $$SELECT r.workspace_id FROM partner_portal.register_workspace('code-of-2', 'Direct two', 'direct@example.com') r$$);
SELECT m.workspace_id, m.account_id, a.email, a.name, m.partner_key, m.role, m.accepted_at IS NOT NULL AS accepted
	FROM partner_portal.member m JOIN partner_portal.account a USING (account_id) WHERE m.workspace_id > 3 ORDER BY 1, 2;
SELECT workspace_id, owners FROM partner_portal.workspace_usage ORDER BY 1;
-- the partner sees it, another does not
SELECT run_as(1, :app, 'SELECT string_agg(workspace_id::text, $$ $$ ORDER BY workspace_id) FROM partner_portal.workspace');
SELECT run_as(2, :app, 'SELECT string_agg(workspace_id::text, $$ $$ ORDER BY workspace_id) FROM partner_portal.workspace');
-- bad input: nothing is left behind
CREATE TABLE before AS SELECT (SELECT count(*) FROM partner_portal.workspace) AS workspaces, (SELECT count(*) FROM partner_portal.account) AS accounts;
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-3', 'K', 'k@example.com')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace(NULL, 'K', 'k@example.com')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('', 'K', 'k@example.com')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace(repeat('x', 10000000), 'K', 'k@example.com')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-1', NULL, 'k@example.com')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-1', ' ', 'k@example.com')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-1', repeat('x', 10000000), 'k@example.com')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-1', 'K', NULL)$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-1', 'K', 'garbage')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-1', 'K', repeat('x', 10000000))$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-1', 'K', 'k@example.com', '')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-1', 'K', 'k@example.com', repeat('x', 10000000))$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-1', 'K', 'k@example.com', slug => 'Not A Slug')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-1', 'K', 'k@example.com', slug => 'zwei')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-1', 'K', 'k@example.com', slug => repeat('x', 10000000))$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-1', 'K', 'k@example.com', time_zone => 'Mars/Olympus')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-1', 'K', 'k@example.com', time_zone => repeat('x', 10000000))$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-1', 'K', 'k@example.com', confirm => NULL)$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-1', 'K', 'k@example.com', confirm => true)$$);
SELECT workspaces = (SELECT count(*) FROM partner_portal.workspace) AND accounts = (SELECT count(*) FROM partner_portal.account) AS nothing_left FROM before;

-- rotation: the old code is dead at once
SELECT run_as(6, :app, 'SELECT partner_portal.rotate_registration_code(1)');
SELECT run_as(2, :app, 'SELECT partner_portal.rotate_registration_code(1)');
SELECT run_as(2, :app, 'SELECT partner_portal.rotate_registration_code(99)');
SELECT run_as(NULL, :app, 'SELECT partner_portal.rotate_registration_code(1)');
SELECT run_as(5, :app, 'SELECT r.partner_id || $$ $$ || (r.registration_code <> $$code-of-1$$) FROM partner_portal.rotate_registration_code(1) r');
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-1', 'K', 'k@example.com')$$);
\set VERBOSITY default
\set SHOW_CONTEXT never
SELECT partner_portal.register_workspace('https://portal.example.com/register/code-of-1', 'K', 'k@example.com');
\set VERBOSITY terse
UPDATE partner_portal.partner SET registration_code = 'code-of-1' WHERE partner_id = 1;

-- a further organisation of the partner's own
SELECT run_as(5, :app, $$SELECT c.workspace_id || ' ' || c.partner_id || ' ' || c.slug || ' ' || c.time_zone FROM partner_portal.create_own_workspace(1, 'Lab') c$$);
SELECT run_as(1, :app, $$SELECT c.workspace_id || ' ' || c.partner_id || ' ' || c.slug || ' ' || c.time_zone || ' ' || c.anchor_date
	FROM partner_portal.create_own_workspace(NULL, 'Lab', time_zone => 'UTC', anchor_date => '2026-01-31') c$$);
SELECT run_as(4, :app, $$SELECT c.workspace_id || ' ' || c.partner_id FROM partner_portal.create_own_workspace(2, 'Lab', 'beta-lab') c$$);
SELECT m.workspace_id, m.account_id, m.role, m.accepted_at IS NOT NULL AS accepted FROM partner_portal.member m WHERE m.workspace_id > 7 ORDER BY 1, 2;
SELECT run_as(6, :app, $$SELECT partner_portal.create_own_workspace(1, 'Lab')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.create_own_workspace(1, 'Lab')$$);
SELECT run_as(NULL, :app, $$SELECT partner_portal.create_own_workspace(1, 'Lab')$$);
SELECT run_as(3, :app, $$SELECT partner_portal.create_own_workspace(3, 'Lab')$$, 3);
SELECT run_as(1, :app, $$SELECT partner_portal.create_own_workspace(1, 'Lab', 'lab')$$, 1);
SELECT run_as(1, :app, $$SELECT partner_portal.create_own_workspace(1, 'Lab', anchor_date => 'infinity')$$, 1);
SELECT run_as(1, :app, $$SELECT partner_portal.create_own_workspace(1, NULL)$$, 1);

-- a customer is no partner; a partner with customers stays one
SELECT run_as(NULL, NULL, 'SELECT partner_portal.promote_to_partner(4)');
SELECT run_as(NULL, NULL, 'SELECT partner_portal.demote_partner(1)');
SELECT run_as(NULL, NULL, 'SELECT partner_portal.demote_partner(3)');
SELECT run_as(NULL, NULL, 'SELECT partner_portal.demote_partner(99)');
SELECT run_as(NULL, NULL, 'SELECT partner_portal.demote_partner(NULL)');
SELECT run_as(1, :app, 'SELECT partner_portal.demote_partner(1)', 1);
SELECT run_as(NULL, NULL, 'SELECT p.partner_id FROM partner_portal.promote_to_partner(3) p');
SELECT run_as(3, :app, 'SELECT partner_portal.demote_partner(3)');
SELECT run_as(4, :app, 'SELECT d.kind FROM partner_portal.demote_partner(3) d');
SELECT count(*) FROM partner_portal.partner WHERE partner_id = 3;

-- a suspended partner's code, and a deleted one's
SELECT run_as(NULL, NULL, $$SELECT s.suspended_reason FROM partner_portal.suspend_workspace(1, 'unpaid') s$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-1', 'K', 'k@example.com')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.create_own_workspace(1, 'Lab')$$, 1);
SELECT run_as(NULL, NULL, $$SELECT r.suspended_at FROM partner_portal.resume_workspace(1) r$$);
SELECT run_as(NULL, NULL, $$SELECT p.partner_id FROM partner_portal.promote_to_partner(3) p$$);
UPDATE partner_portal.partner SET registration_code = 'code-of-3' WHERE partner_id = 3;
SELECT run_as(NULL, NULL, $$SELECT d.deleted_at IS NOT NULL FROM partner_portal.delete_workspace(3) d$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.register_workspace('code-of-3', 'K', 'k@example.com')$$);
