\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept activity_log
\i :begin
\i :as
-- About src/activity_log.c, src/activity_chain.c (hashes and their check) and src/activity_guard.c (append-only).
-- accounts: 1 owner of partner 1, 2 owner of partner 2, 3 owner of customer 3, 4 operator, 5 and 6 others
SELECT w.workspace_id FROM partner_portal.create_workspace('Partner 1', 'p1@example.com') w;
SELECT w.workspace_id FROM partner_portal.create_workspace('Partner 2', 'p2@example.com') w;
SELECT partner_portal.promote_to_partner(1) IS NOT NULL, partner_portal.promote_to_partner(2) IS NOT NULL;
SELECT run_as(NULL, :trusted, format($$SELECT w.workspace_id FROM partner_portal.register_workspace(%L, 'Customer 3', 'c3@example.com') w$$,
	(SELECT registration_code FROM partner_portal.partner WHERE partner_id = 1)));
INSERT INTO partner_portal.account (email, is_operator) VALUES ('op@example.com', true), ('a5@example.com', false), ('a6@example.com', false);
-- what is new since the last time, of all workspaces
CREATE TABLE seen (workspace_id bigint PRIMARY KEY, activity_id bigint);
CREATE FUNCTION news() RETURNS SETOF text LANGUAGE sql AS $$
	WITH n AS (
		SELECT a.* FROM partner_portal.activity a LEFT JOIN seen s USING (workspace_id) WHERE a.activity_id > coalesce(s.activity_id, 0)
	), noted AS (
		INSERT INTO seen SELECT n.workspace_id, max(n.activity_id) FROM n GROUP BY 1 ON CONFLICT (workspace_id) DO UPDATE SET activity_id = excluded.activity_id
	)
	SELECT concat_ws(' | ', n.workspace_id || '.' || n.activity_id, coalesce(n.account_email, n.database_role), n.action, n.description, n.details, 'about ' || n.about_account_id, n.partner_key)
	FROM n ORDER BY n.workspace_id, n.activity_id
$$;
SELECT news();
-- people
SELECT run_as(3, :trusted, $$SELECT m.account_id FROM partner_portal.add_member(3, 'a5@example.com', 'member') m$$);
SELECT run_as(5, :app, $$SELECT m.role FROM partner_portal.accept_membership(3) m$$);
SELECT run_as(3, :app, $$SELECT m.role FROM partner_portal.set_member_role(3, 5, 'administrator') m$$);
SELECT run_as(1, :trusted, $$SELECT m.account_id FROM partner_portal.add_member(1, 'a6@example.com', 'member') m$$);
SELECT run_as(6, :app, $$SELECT m.role FROM partner_portal.accept_membership(1) m$$);
SELECT run_as(1, :app, $$SELECT partner_portal.assign_staff(3, 6, 'account_owner') IS NOT NULL$$);
SELECT news();
-- settings and the limit, in one statement two lines; nothing changed is no line
SELECT run_as(3, :app, $$UPDATE partner_portal.workspace SET company_name = 'Customer Three', tax_id = 'T-3', notify_billing = true WHERE workspace_id = 3 RETURNING 1$$);
SELECT run_as(1, :app, $$UPDATE partner_portal.workspace SET slug = 'three', restrict_keys = true, key_limit = 4 WHERE workspace_id = 3 RETURNING 1$$);
SELECT run_as(1, :app, $$UPDATE partner_portal.workspace SET key_limit = 4 WHERE workspace_id = 3 RETURNING 1$$);
SELECT news();
-- keys: one line per statement and workspace
SELECT run_as(3, :app, $$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 's1') RETURNING 1$$);
SELECT run_as(3, :app, $$INSERT INTO partner_portal.security_key (workspace_id, kind, serial, status) VALUES (3, 'smartphone', 's2', 'active'), (3, 'contactless_card', 's3', 'active'), (3, 'contactless_card', 's4', 'disabled') RETURNING 1$$);
SELECT run_as(3, :app, $$UPDATE partner_portal.security_key SET status = CASE serial WHEN 's1' THEN 'disabled' WHEN 's4' THEN 'active' ELSE status END, label = 'x' RETURNING 1$$);
SELECT run_as(3, :app, $$UPDATE partner_portal.security_key SET status = 'revoked' WHERE serial = 's1' RETURNING 1$$);
SELECT run_as(1, :app, $$SELECT count(*) FROM partner_portal.set_usage_limit(3, 1)$$);
SELECT run_as(3, :app, $$DELETE FROM partner_portal.security_key WHERE serial IN ('s3', 's4') RETURNING 1$$);
SELECT run_as(3, :app, $$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 's5') RETURNING 1$$);
SELECT run_as(NULL, NULL, $$SELECT count(*) FROM partner_portal.set_usage_limit(3, NULL)$$);
COPY partner_portal.security_key (workspace_id, kind, serial) FROM PROGRAM 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do printf "3\tsmartphone\tc$i\n1\tcontactless_card\tc$i\n"; done';
SELECT news();
-- what is rolled back was never there, and a savepoint takes its lines with it
BEGIN;
SAVEPOINT s;
UPDATE partner_portal.workspace SET company_name = 'Never' WHERE workspace_id = 1;
ROLLBACK TO s;
UPDATE partner_portal.workspace SET company_name = 'Once' WHERE workspace_id IN (1, 2, 3);
COMMIT;
SELECT news();
-- profile, state and partner
SELECT run_as(4, :ops, $$SELECT e.email FROM partner_portal.change_email(5, 'a5-new@example.com') e$$);
SELECT run_as(4, :app, $$SELECT d.account_id FROM partner_portal.disable_account(5) d$$);
SELECT run_as(4, :app, $$SELECT d.account_id FROM partner_portal.enable_account(5) d$$);
SELECT run_as(1, :app, $$SELECT s.workspace_id FROM partner_portal.suspend_workspace(3, 'unpaid') s$$);
SELECT run_as(1, :app, $$SELECT s.workspace_id FROM partner_portal.resume_workspace(3) s$$);
SELECT news();
-- the application's own
SELECT run_as(5, :app, $$SELECT partner_portal.log_activity(3, 'sign_in', 'signed in from a new place', '{"browser": "x", "n": 1.50}')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.log_activity(3, 'backup_machine_data', 'nightly backup')$$);
SELECT run_as(4, :app, $$SELECT partner_portal.log_activity(3, 'server_action', 'told "so", he
said')$$);
SELECT run_as(4, :app, $$SELECT partner_portal.log_activity(3, 'server_action', 'told "so", he said', '{}', 5)$$);
SELECT run_as(3, :app, $$SELECT partner_portal.log_activity(3, 'invite_user', 'invited A5-New@example.com')$$);
SELECT run_as(3, :app, $$SELECT partner_portal.log_activity(3, 'update_user_profile', 'renamed', '{"who": "a5@example.com"}')$$);
SELECT run_as(3, :app, $$SELECT partner_portal.log_activity(3, 'activate_key', 'forged')$$);
SELECT run_as(3, :app, $$SELECT partner_portal.log_activity(3, 'nothing', 'x')$$);
SELECT run_as(3, :app, $$SELECT partner_portal.log_activity(3, NULL, 'x')$$);
SELECT run_as(3, :app, $$SELECT partner_portal.log_activity(3, 'sign_in', NULL)$$);
SELECT run_as(3, :app, $$SELECT partner_portal.log_activity(3, 'sign_in', ' ')$$);
SELECT run_as(3, :app, $$SELECT partner_portal.log_activity(3, 'sign_in', repeat('x', 1001))$$);
SELECT run_as(3, :app, $$SELECT partner_portal.log_activity(3, 'sign_in', 'x', '[]')$$);
SELECT run_as(3, :app, $$SELECT partner_portal.log_activity(3, 'sign_in', 'x', NULL)$$);
SELECT run_as(3, :app, $$SELECT partner_portal.log_activity(3, 'sign_in', 'x', jsonb_build_object('x', repeat('x', 20000)))$$);
SELECT run_as(3, :app, $$SELECT partner_portal.log_activity(1, 'sign_in', 'x')$$);
SELECT run_as(NULL, :app, $$SELECT partner_portal.log_activity(3, 'sign_in', 'x')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.log_activity(99, 'sign_in', 'x')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.log_activity(NULL, 'sign_in', 'x')$$);
SELECT news();
BEGIN READ ONLY;
\set VERBOSITY sqlstate
SELECT partner_portal.log_activity(3, 'sign_in', 'x');
ROLLBACK;
\set VERBOSITY terse
-- reading: owner, administrator, partner, account owner; not a plain member, nor anybody else
CREATE FUNCTION ids(account_id bigint, arguments text DEFAULT '') RETURNS text LANGUAGE sql AS $$
	SELECT run_as(account_id, 'regress_app', 'SELECT string_agg(activity_id::text, '' '') FROM partner_portal.activity_log(3' || arguments || ')')
$$;
SELECT ids(3, ', max_rows => 3'), ids(5, ', max_rows => 3'), ids(1, ', max_rows => 3'), ids(6, ', max_rows => 3'), ids(4, ', max_rows => 3');
SELECT ids(2), ids(NULL);
SELECT run_as(6, :app, 'SELECT count(*) FROM partner_portal.activity_log(1)');
SELECT run_as(1, :app, 'SELECT count(*) > 0 FROM partner_portal.activity'), run_as(3, :app, 'SELECT count(DISTINCT workspace_id) FROM partner_portal.activity'), run_as(2, :app, 'SELECT count(*) FROM partner_portal.activity WHERE workspace_id <> 2'),
	run_as(6, :app, 'SELECT string_agg(DISTINCT workspace_id::text, '' '') FROM partner_portal.activity');
SELECT run_as(3, :app, 'SELECT count(account_salt) FROM partner_portal.activity');
SELECT run_as(3, :app, 'SELECT count(database_role) FROM partner_portal.activity_log(3)'), run_as(4, :app, 'SELECT count(database_role) > 0 FROM partner_portal.activity_log(3)');
-- filters
SELECT ids(3, ', account_email => ''C3@EXAMPLE.com'''), ids(3, ', account_email => ''c3'''), ids(3, ', action => ''activate_key''');
SELECT ids(3, ', description => ''COMPANY_name'''), ids(3, ', description => ''%'''), ids(3, ', account_email => ''a5-new@example.com'', action => ''sign_in''');
SELECT string_agg(activity_id::text, ' ' ORDER BY activity_id DESC) = ids(3, format(', since => %L, until => %L', min(at), max(at) + interval '1 microsecond')) AS whole,
	ids(3, format(', until => %L', min(at))) AS none, ids(3, format(', since => %L, max_rows => 1', max(at))) = max(activity_id)::text AS last,
	ids(3, format(', until => %L, max_rows => 1', max(at))) AS before_last
	FROM partner_portal.activity WHERE workspace_id = 3;
SELECT ids(3, ', action => ''dance'''), ids(3, ', max_rows => 0'), ids(3, ', max_rows => 10001'), ids(3, ', since => ''2026-02-01'', until => ''2026-01-01''');
-- pages of 4 are the same as everything
CREATE FUNCTION pages(max_rows integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	page text;
	result text;
	last bigint;
BEGIN
	LOOP
		page := ids(3, format(', max_rows => %s, before_id => %s', max_rows, coalesce(last::text, 'NULL')));
		EXIT WHEN page = '(null)';
		result := concat_ws(' ', result, page);
		last := split_part(page, ' ', -1);
	END LOOP;
	RETURN result;
END
$$;
SELECT pages(4) = ids(3), pages(1) = ids(3);
-- CSV
SELECT run_as(3, :app, $$SELECT regexp_replace(regexp_replace(c, '\d{4}-\d\d-\d\dT[0-9:.]*Z', 'TIME', 'g'), '[0-9a-f]{64}', 'HASH', 'g') FROM partner_portal.activity_log_csv(3, description => 'so') c$$);
SELECT run_as(2, :app, 'SELECT partner_portal.activity_log_csv(3)');
-- the chain
SELECT workspace_id, partner_portal.verify_activity_log(workspace_id) FROM partner_portal.workspace ORDER BY 1;
SELECT run_as(3, :app, 'SELECT partner_portal.verify_activity_log(3)'), run_as(2, :app, 'SELECT partner_portal.verify_activity_log(3)'), run_as(NULL, NULL, 'SELECT partner_portal.verify_activity_log(NULL)');
-- append-only, for a superuser too
\set VERBOSITY sqlstate
UPDATE partner_portal.activity SET description = 'x' WHERE activity_id = 1;
DELETE FROM partner_portal.activity WHERE activity_id = 1;
TRUNCATE partner_portal.activity;
INSERT INTO partner_portal.activity SELECT * FROM partner_portal.activity WHERE activity_id = 1;
\set VERBOSITY terse
SELECT run_as(3, :app, 'DELETE FROM partner_portal.activity RETURNING 1'), run_as(3, :app, $$INSERT INTO partner_portal.activity (workspace_id) VALUES (3) RETURNING 1$$);
-- who gets around the trigger is found out, whatever is changed
CREATE FUNCTION tamper(change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	SET LOCAL session_replication_role = replica;
	EXECUTE change;
	SET LOCAL session_replication_role = origin;
	SELECT concat_ws(' ', v.ok, v.first_bad_id, v.reason) INTO result FROM partner_portal.verify_activity_log(3) v;
	RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = result;
EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
	RETURN SQLERRM;
END
$$;
SELECT tamper('UPDATE partner_portal.activity SET ' || c || ' WHERE workspace_id = 3 AND activity_id = 5') AS found, c AS change FROM unnest(ARRAY[
	'at = at + interval ''1 microsecond''', 'account_id = 1', 'account_id = NULL', 'account_email = ''d3@example.com''', 'account_email = NULL, account_salt = NULL', 'database_role = ''somebody''', 'source = ''application''', 'action = ''sign_in''', 'about_account_id = 2',
	'description = description || '' ''', 'details = details || ''{"x": 1}''', 'details = ''{}''', 'partner_key = 2', 'text_salt = set_byte(text_salt, 0, get_byte(text_salt, 0) # 1)', 'hash = set_byte(hash, 31, get_byte(hash, 31) # 1)', 'prev_hash = set_byte(prev_hash, 31, get_byte(prev_hash, 31) # 1)',
	'description = NULL, details = NULL, text_salt = NULL, text_digest = sha256(''x'')', 'activity_id = 500']) c;
SELECT tamper('DELETE FROM partner_portal.activity WHERE workspace_id = 3 AND activity_id = 1'), tamper('DELETE FROM partner_portal.activity WHERE workspace_id = 3 AND activity_id > 10'), tamper('DELETE FROM partner_portal.activity WHERE workspace_id = 3'),
	tamper('UPDATE partner_portal.workspace_usage SET log_id = log_id - 1 WHERE workspace_id = 3'), tamper('UPDATE partner_portal.workspace_usage SET log_hash = sha256(''x'') WHERE workspace_id = 3');
-- two lines cannot follow the same one: both would be the next; with another number the second is found out
SELECT tamper($$INSERT INTO partner_portal.activity SELECT workspace_id, 999, at, account_id, account_email, database_role, source, action, about_account_id, description, details,
	partner_key, account_salt, account_digest, text_salt, text_digest, prev_hash, hash FROM partner_portal.activity WHERE workspace_id = 3 AND activity_id = 5$$);
SELECT run_as(NULL, NULL, $$WITH o AS (SELECT set_config('session_replication_role', 'replica', true)) INSERT INTO partner_portal.activity SELECT a.* FROM o, LATERAL (SELECT workspace_id, activity_id, at, account_id, account_email, database_role, source, action, about_account_id, description, details,
	partner_key, account_salt, account_digest, text_salt, text_digest, prev_hash, hash FROM partner_portal.activity WHERE workspace_id = 3 AND activity_id = 5) a RETURNING 1$$);
-- the head can be found again
SELECT run_as(NULL, NULL, 'UPDATE partner_portal.workspace_usage SET log_id = 0, log_at = ''-infinity'', log_hash = sha256(''x'') WHERE workspace_id = 3 RETURNING 1');
SELECT (partner_portal.verify_activity_log(3)).first_bad_id;
SELECT * FROM partner_portal.verify(3);
SELECT partner_portal.repair(3);
SELECT count(*) FROM partner_portal.verify();
SELECT partner_portal.verify_activity_log(3);
-- a transfer: the new partner's staff sees nothing older
SELECT run_as(3, :app, format($$SELECT t.partner_id FROM partner_portal.transfer_workspace(3, %L) t$$, (SELECT registration_code FROM partner_portal.partner WHERE partner_id = 2)));
SELECT news();
SELECT run_as(2, :app, 'SELECT string_agg(description, '' '') FROM partner_portal.activity_log(3)'), run_as(2, :app, 'SELECT count(*) FROM partner_portal.activity WHERE workspace_id = 3'), ids(1), run_as(1, :app, 'SELECT count(*) > 20 FROM partner_portal.activity WHERE workspace_id = 3');
SELECT run_as(3, :app, 'SELECT count(*) > 20 FROM partner_portal.activity_log(3)');
-- erasing a person: its address, and the texts about it
SELECT run_as(4, :app, 'SELECT e.email FROM partner_portal.erase_account(5) e');
SELECT count(*) FILTER (WHERE account_id = 5) = 2 AS acted, count(account_email) FILTER (WHERE account_id = 5) AS addresses, string_agg(activity_id || ' ' || action, ', ' ORDER BY activity_id) FILTER (WHERE text_salt IS NULL) AS erased,
	count(*) FILTER (WHERE a::text ILIKE '%a5%@example.com%') AS left_over FROM partner_portal.activity a WHERE workspace_id = 3;
SELECT partner_portal.verify_activity_log(3);
SELECT tamper('UPDATE partner_portal.activity SET account_digest = sha256(''x'') WHERE workspace_id = 3 AND account_digest IS NOT NULL');
-- retention
SELECT run_as(3, :app, 'SELECT partner_portal.forget_activity(now())'), run_as(4, :app, 'SELECT partner_portal.forget_activity(NULL)'), run_as(4, :app, 'SELECT partner_portal.forget_activity(''infinity'')'), run_as(4, :app, 'SELECT partner_portal.forget_activity(now() + interval ''1 hour'')'), run_as(4, :app, 'SELECT partner_portal.forget_activity(''2020-01-01'')');
SELECT run_as(4, :app, format('SELECT partner_portal.forget_activity(%L)', (SELECT at FROM partner_portal.activity WHERE workspace_id = 3 AND activity_id = 11))) = (SELECT count(*)::text FROM partner_portal.activity a WHERE at < (SELECT at FROM partner_portal.activity WHERE workspace_id = 3 AND activity_id = 11)) AS counted;
SELECT workspace_id, activity_id, forgotten_by FROM partner_portal.activity_start ORDER BY 1;
SELECT min(activity_id) FROM partner_portal.activity WHERE workspace_id = 3;
SELECT workspace_id, partner_portal.verify_activity_log(workspace_id) FROM partner_portal.workspace ORDER BY 1;
SELECT tamper('UPDATE partner_portal.activity SET account_id = 1 WHERE workspace_id = 3 AND activity_id = 11'), tamper('DELETE FROM partner_portal.activity WHERE workspace_id = 3 AND activity_id = 11'), tamper('DELETE FROM partner_portal.activity_start WHERE workspace_id = 3');
SELECT run_as(4, :app, 'SELECT partner_portal.forget_activity(clock_timestamp()) > 0');
SELECT count(*) FROM partner_portal.activity;
SELECT run_as(3, :app, $$SELECT partner_portal.log_activity(3, 'sign_in', 'after')$$);
SELECT workspace_id, partner_portal.verify_activity_log(workspace_id) FROM partner_portal.workspace ORDER BY 1;
SELECT partner_portal.repair();
-- purging a workspace
SELECT run_as(2, :app, 'SELECT d.workspace_id FROM partner_portal.delete_workspace(3) d');
SELECT run_as(4, :app, 'SELECT p.company_name FROM partner_portal.purge_workspace(3) p');
SELECT activity_id, account_id, account_email, action, description, details FROM partner_portal.activity WHERE workspace_id = 3 ORDER BY activity_id;
SELECT partner_portal.verify_activity_log(3);
-- a restoring session takes lines as they are and makes none
SET partner_portal.restoring = on;
INSERT INTO partner_portal.workspace (company_name, slug, anchor_date) VALUES ('Restored', 'restored', '2026-01-01');
SELECT count(*) FROM partner_portal.activity WHERE workspace_id = 4;
SET session_replication_role = replica;
CREATE TEMP TABLE kept AS SELECT * FROM partner_portal.activity WHERE workspace_id = 3;
DELETE FROM partner_portal.activity WHERE workspace_id = 3;
UPDATE partner_portal.workspace_usage SET log_id = 0, log_at = '-infinity', log_hash = decode(repeat('00', 32), 'hex') WHERE workspace_id = 3;
SET session_replication_role = origin;
INSERT INTO partner_portal.activity SELECT * FROM kept;
RESET partner_portal.restoring;
SELECT partner_portal.verify_activity_log(3);
-- what triggers write is an action of the log (their lines do not go through the table's constraints)
SELECT t.tgrelid::regclass, t.tgname AS unknown_action FROM pg_trigger t JOIN pg_constraint k ON k.conname = 'activity_action'
	WHERE t.tgfoid = 'partner_portal.log_row'::regproc AND strpos(pg_get_constraintdef(k.oid), quote_literal(split_part(encode(t.tgargs, 'escape'), '\000', 1))) = 0;
-- invitations, access, products, portals: 5 is a direct workspace, 7 its owner
SELECT w.workspace_id FROM partner_portal.create_workspace('Direct 5', 'd5@example.com') w;
SELECT a.account_id AS owner FROM partner_portal.account a WHERE email = 'd5@example.com' \gset
SELECT count(*) >= 0 FROM news();
SELECT run_as(:owner, :app, $$SELECT i.state FROM partner_portal.invite_member(5, 'new@example.com', 'member') i$$);
SELECT run_as(:owner, :app, $$SELECT partner_portal.withdraw_invitation((SELECT invitation_id FROM partner_portal.invitation WHERE workspace_id = 5 AND kind = 'member'))$$);
SELECT run_as(:owner, :app, $$INSERT INTO partner_portal.product (workspace_id, category, name, partner_access) VALUES (5, 'server', 'srv', true) RETURNING partner_access$$);
SELECT run_as(:owner, :app, $$UPDATE partner_portal.product SET partner_access = false, name = 'srv 1' WHERE workspace_id = 5 RETURNING partner_access$$);
SELECT run_as(:owner, :app, $$SELECT g.state FROM partner_portal.offer_access(5, 2, 'complete', wallet => false, expires_at => now() + interval '30 days') g$$);
SELECT g.grant_id FROM partner_portal.access_grant g WHERE g.workspace_id = 5 \gset
SELECT run_as(2, :app, format('SELECT g.state FROM partner_portal.accept_access(%s) g', :grant_id));
SELECT run_as(:owner, :app, format($$SELECT g.state FROM partner_portal.extend_access(%s, now() + interval '60 days') g$$, :grant_id));
SELECT run_as(:owner, :app, format('SELECT g.state FROM partner_portal.end_access(%s) g', :grant_id));
SELECT run_as(2, :app, $$SELECT p.portal_id FROM partner_portal.create_portal(2, 'Portal', 'portal-2', '#336699', 'https://example.com/') p$$);
SELECT run_as(2, :app, $$SELECT partner_portal.delete_portal(p.portal_id) FROM partner_portal.portals p$$);
SELECT regexp_replace(n, '"(expires_at)": "[^"]*"', '"\1": "TIME"', 'g') FROM news() n;
-- documents: finalized, then paid or void, and no amount is told
INSERT INTO partner_portal.workspace (company_name, slug, created_at, anchor_date, billing_from) VALUES ('Old', 'old', '2026-01-01', '2026-01-01', '2026-01-01');
SELECT workspace_id AS old FROM partner_portal.workspace WHERE slug = 'old' \gset
SELECT plan_id FROM partner_portal.create_price_plan(NULL, 'Flat', 'CHF', 'flat', unit_price => 20) \gset
SELECT count(partner_portal.assign_price_plan(:old, :plan_id, '2026-01-01'));
SELECT count(*) >= 0 FROM news();
SELECT action FROM partner_portal.run_billing('2026-03-01 01:30+00') WHERE workspace_id = :old;
SELECT count(partner_portal.mark_paid(invoice_id, now(), 'R-1')) FROM (SELECT min(invoice_id) AS invoice_id FROM partner_portal.invoice WHERE workspace_id = :old) i;
SELECT count(partner_portal.void_invoice(invoice_id, 'mistake')) FROM (SELECT max(invoice_id) AS invoice_id FROM partner_portal.invoice WHERE workspace_id = :old) i;
SELECT regexp_replace(regexp_replace(n, '^\d+', 'W'), '[0-9a-f]{64}', 'DIGEST') FROM news() n;
SELECT problem FROM partner_portal.verify() WHERE check_name = 'activity';
