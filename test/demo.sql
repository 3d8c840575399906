-- demo.sql: the main job on real input, read by test/demo in psql. Every step is checked by demo.expect(), which ends the
-- run when something is not as it should be. Variables: nordlicht_token, harbor_token, alpenblick_token (login tokens of
-- three owners, signed by the key of partner_portal.jwks_file) and keys_file (where to put the list of keys).

\set ON_ERROR_STOP on
\set QUIET on
\set VERBOSITY default
\set SHOW_CONTEXT never
\pset footer off
\pset null '-'
\pset linestyle ascii
SET client_min_messages = warning;

CREATE EXTENSION partner_portal;
CREATE SCHEMA demo;
CREATE SEQUENCE demo.fact;
CREATE FUNCTION demo.expect(what text, holds boolean) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	IF holds IS NOT TRUE THEN
		RAISE EXCEPTION 'not as it should be: %', what;
	END IF;
	RETURN nextval('demo.fact');
END
$$;
CREATE ROLE demo_app LOGIN;
CREATE ROLE demo_server LOGIN;
GRANT USAGE ON SCHEMA demo TO demo_app, demo_server;
SELECT partner_portal.enroll_role('demo_app', 'application'), partner_portal.enroll_role('demo_server', 'trusted_application') \g /dev/null

\echo == 1. The operator makes two partners.
\echo
SELECT (partner_portal.create_workspace('Nordlicht IT', 'nora@nordlicht.example', 'nordlicht', 'Europe/Berlin')).workspace_id AS nordlicht,
	(partner_portal.create_workspace('Harbor Cloud', 'hal@harbor.example', 'harbor', 'America/New_York')).workspace_id AS harbor \gset
SELECT partner_portal.promote_to_partner(:nordlicht), partner_portal.promote_to_partner(:harbor) \g /dev/null
SELECT w.company_name AS partner, w.time_zone,
	regexp_replace(partner_portal.registration_url(w.workspace_id), '(/register/.{6}).*', '\1...') AS registration_link
FROM partner_portal.workspace w WHERE w.kind = 'partner' ORDER BY w.workspace_id;
SELECT regexp_replace(partner_portal.registration_url(:nordlicht), '.*/', '') AS nordlicht_code,
	regexp_replace(partner_portal.registration_url(:harbor), '.*/', '') AS harbor_code \gset
SELECT demo.expect('the links differ', :'nordlicht_code' <> :'harbor_code') \g /dev/null

\echo == 2. Twelve customers register through the links. The web server that serves them vouches for the
\echo      e-mail addresses; each joins the list of the partner whose link it used.
\echo
\c - demo_server
SET client_min_messages = warning;
CREATE TEMP TABLE applicant (place int, link text, company text, slug text, email text, zone text);
INSERT INTO applicant VALUES
	(1, :'nordlicht_code', 'Alpenblick Hotels', 'alpenblick', 'anna@alpenblick.example', 'Europe/Zurich'),
	(2, :'nordlicht_code', 'Brunner Praxis', 'brunner', 'beat@brunner.example', 'Europe/Zurich'),
	(3, :'nordlicht_code', 'Cantina do Sul', 'cantina', 'caio@cantina.example', 'America/Sao_Paulo'),
	(4, :'nordlicht_code', 'Delta Freight', 'delta', 'dan@delta.example', 'America/New_York'),
	(5, :'nordlicht_code', 'Edo Robotics', 'edo', 'emi@edo.example', 'Asia/Tokyo'),
	(6, :'nordlicht_code', 'Fjord Energie', 'fjord', 'fritz@fjord.example', 'Europe/Zurich'),
	(7, :'nordlicht_code', 'Granja Azul', 'granja', 'gil@granja.example', 'America/Sao_Paulo'),
	(8, :'harbor_code', 'Harlem Clinics', 'harlem', 'hope@harlem.example', 'America/New_York'),
	(9, :'harbor_code', 'Ikebana Foods', 'ikebana', 'ichiro@ikebana.example', 'Asia/Tokyo'),
	(10, :'harbor_code', 'Juniper Legal', 'juniper', 'june@juniper.example', 'America/New_York'),
	(11, :'harbor_code', 'Kinoko Games', 'kinoko', 'ken@kinoko.example', 'Asia/Tokyo'),
	(12, :'harbor_code', 'Lumen Escolas', 'lumen', 'lia@lumen.example', 'America/Sao_Paulo');
SELECT w.workspace_id, w.company_name, w.time_zone, w.partner_id
FROM (SELECT * FROM applicant ORDER BY place) a,
	LATERAL partner_portal.register_workspace(a.link, a.company, a.email, slug => a.slug, time_zone => a.zone) w;
\set ON_ERROR_STOP off
\echo A link that has been made up is refused:
SELECT partner_portal.register_workspace('not-a-link', 'Mallory', 'mallory@evil.example');
\echo
SELECT demo.expect('a made up link is refused', :'LAST_ERROR_SQLSTATE' = 'P0002') \g /dev/null
\set ON_ERROR_STOP on

\c - postgres
SET client_min_messages = warning;
SELECT demo.expect('twelve customers in four zones', count(*) = 12 AND count(DISTINCT time_zone) = 4)
FROM partner_portal.workspace WHERE partner_id IS NOT NULL \g /dev/null
SELECT workspace_id AS alpenblick FROM partner_portal.workspace WHERE slug = 'alpenblick' \gset
SELECT workspace_id AS delta FROM partner_portal.workspace WHERE slug = 'delta' \gset
SELECT workspace_id AS harlem FROM partner_portal.workspace WHERE slug = 'harlem' \gset

\echo == 3. Their people are added, and the keys they have already come from a file, with COPY. Two in three are
\echo      smartphones, and every person holds two keys.
\echo
CREATE TEMP TABLE had (slug text, keys int);
INSERT INTO had VALUES ('alpenblick', 60), ('brunner', 12), ('cantina', 35), ('delta', 80), ('edo', 45), ('fjord', 25), ('granja', 0),
	('harlem', 50), ('ikebana', 20), ('juniper', 15), ('kinoko', 40), ('lumen', 28);
SELECT count(partner_portal.add_member(w.workspace_id, format('user%s@%s.example', n, slug), 'member')) AS people
FROM had JOIN partner_portal.workspace w USING (slug), generate_series(1, (keys + 1) / 2) n;
COPY (
	SELECT w.workspace_id, a.account_id, CASE WHEN n % 3 = 0 THEN 'contactless_card' ELSE 'smartphone' END,
		format('%s-%s', upper(w.slug), to_char(n, 'FM0000')), format('%s of desk %s', CASE WHEN n % 3 = 0 THEN 'card' ELSE 'phone' END, n)
	FROM had JOIN partner_portal.workspace w USING (slug) CROSS JOIN generate_series(1, had.keys) n
		JOIN partner_portal.account a ON a.email = format('user%s@%s.example', (n + 1) / 2, slug)
	ORDER BY n, w.workspace_id
) TO :'keys_file' (FORMAT csv);
\setenv KEYS_FILE :keys_file
\! head -n 4 "$KEYS_FILE"; echo '...'; echo
COPY partner_portal.security_key (workspace_id, account_id, kind, serial, label) FROM :'keys_file' (FORMAT csv);
SELECT count(*) AS keys, count(*) FILTER (WHERE kind = 'smartphone') AS smartphones,
	count(*) FILTER (WHERE kind = 'contactless_card') AS contactless_cards, count(DISTINCT workspace_id) AS workspaces
FROM partner_portal.security_key WHERE status = 'active';
SELECT demo.expect('410 keys are active', count(*) = 410) FROM partner_portal.security_key WHERE status = 'active' \g /dev/null
SELECT demo.expect('the counters agree', sum(active_keys) = 410) FROM partner_portal.workspace_usage \g /dev/null

\echo == 4. Three past months come from the old system: the operator imports when each key was active.
\echo
SELECT count(partner_portal.import_key_activity(k.workspace_id, k.key_id,
		tstzrange(lower(p.period) + (k.n % 9) * interval '1 day', lower(p.period) + (14 + k.n % 9) * interval '1 day'), 'old system')) AS stretches
FROM (SELECT workspace_id, key_id, row_number() OVER (PARTITION BY workspace_id ORDER BY key_id) AS n FROM partner_portal.security_key) k
CROSS JOIN generate_series(1, 3) AS months_ago
-- a period of each workspace's own calendar; fewer keys the longer ago
CROSS JOIN LATERAL partner_portal.billing_period_at(k.workspace_id, lower(partner_portal.billing_period_at(k.workspace_id)) - (months_ago * 28 - 1) * interval '1 day') AS p (period)
WHERE k.n % 5 >= months_ago - 1;
SELECT demo.expect('three months of history', count(*) = 985) FROM partner_portal.key_activity WHERE NOT upper_inf(active) \g /dev/null

-- What the scheduled tick() does for the panel: the users of the running periods.
SELECT count(*) AS refreshed FROM partner_portal.refresh_usage() \gset

\echo == 5. Nora, who owns Nordlicht IT, signs in by token. What a transaction of hers sees and may do follows from it.
\echo
\c - demo_app
SET client_min_messages = warning;
BEGIN;
SELECT partner_portal.login(:'nordlicht_token') AS nora \gset
SELECT company_name, total_keys AS total, active_keys AS active, key_limit, smartphones, contactless_cards AS cards, users, last_period_keys AS last_period, period_label, relation
FROM partner_portal.partner_panel ORDER BY company_name;
SELECT demo.expect('the panel has her seven customers', count(*) = 7 AND sum(active_keys) = 257 AND sum(users) = 130 AND bool_and(relation = 'registered'))
FROM partner_portal.partner_panel \g /dev/null
COMMIT;

\echo Her hotels have 60 active keys. She limits them to 62: two more go in, and the third is refused.
\echo
BEGIN;
SELECT partner_portal.login(:'nordlicht_token') \g /dev/null
SELECT count(*) AS changed FROM partner_portal.set_usage_limit(:alpenblick, 62) \gset
INSERT INTO partner_portal.security_key (workspace_id, kind, serial, label) VALUES
	(:alpenblick, 'smartphone', 'ALPENBLICK-0061', 'reception'), (:alpenblick, 'contactless_card', 'ALPENBLICK-0062', 'spa');
SELECT demo.expect('raising above the active keys changes none', :changed = 0) \g /dev/null
COMMIT;
\set ON_ERROR_STOP off
BEGIN;
SELECT partner_portal.login(:'nordlicht_token') \g /dev/null
INSERT INTO partner_portal.security_key (workspace_id, kind, serial, label) VALUES (:alpenblick, 'smartphone', 'ALPENBLICK-0063', 'kitchen');
COMMIT;
\echo
SELECT demo.expect('the key over the limit is refused', :'LAST_ERROR_SQLSTATE' = 'PP001') \g /dev/null
\set ON_ERROR_STOP on

\echo She lowers the limit to 57. The five keys activated last are disabled with it:
\echo
BEGIN;
SELECT partner_portal.login(:'nordlicht_token') \g /dev/null
CREATE TEMP TABLE changed AS SELECT * FROM partner_portal.set_usage_limit(:alpenblick, 57);
SELECT serial, kind, label, status, disabled_reason FROM changed ORDER BY key_id DESC;
SELECT demo.expect('five keys are disabled, the newest', count(*) = 5 AND bool_and(status = 'disabled' AND disabled_reason = 'limit')
	AND max(serial) = 'ALPENBLICK-0062' AND min(serial) = 'ALPENBLICK-0058') FROM changed \g /dev/null
DROP TABLE changed;
COMMIT;

\echo == 6. Her summary, the details of one workspace, and its use by billing period.
\echo
BEGIN;
SELECT partner_portal.login(:'nordlicht_token') \g /dev/null
\x on
SELECT * FROM partner_portal.partner_summary();
\echo
SELECT * FROM partner_portal.workspace_detail(:alpenblick);
\x off
\echo
SELECT months_ago, coalesce(u.kind, 'total') AS kind, u.distinct_keys, u.peak_keys, u.peak_at, u.start_keys AS at_start, u.end_keys AS at_end,
	round(u.key_days, 3) AS key_days, round(u.key_seconds) AS key_seconds
FROM generate_series(3, 0, -1) AS months_ago
CROSS JOIN LATERAL partner_portal.billing_period_at(:delta,
	CASE months_ago WHEN 0 THEN now() ELSE lower(partner_portal.billing_period_at(:delta)) - (months_ago * 28 - 1) * interval '1 day' END) AS p (period)
CROSS JOIN LATERAL partner_portal.usage(:delta, p.period) u
ORDER BY months_ago DESC, u.kind;
SELECT demo.expect('detail: 57 of 57', d.active = 57 AND d.key_limit = 57 AND d.restrict_keys)
FROM (SELECT smartphones + contactless_cards AS active, key_limit, restrict_keys FROM partner_portal.workspace_detail(:alpenblick)) d \g /dev/null
SELECT demo.expect('usage of the running period: 80 keys of Delta Freight', u.distinct_keys = 80 AND u.end_keys = 80)
FROM partner_portal.usage(:delta) u WHERE u.kind IS NULL \g /dev/null
SELECT demo.expect('usage ' || months_ago || ' periods ago', u.distinct_keys = CASE months_ago WHEN 3 THEN 48 WHEN 2 THEN 64 ELSE 80 END)
FROM generate_series(1, 3) AS months_ago
CROSS JOIN LATERAL partner_portal.usage(:delta, partner_portal.billing_period_at(:delta,
	lower(partner_portal.billing_period_at(:delta)) - (months_ago * 28 - 1) * interval '1 day')) u
WHERE u.kind IS NULL \g /dev/null
COMMIT;

\echo == 7. Hal, who owns Harbor Cloud, signs in. He sees his own five customers, and nothing of hers.
\echo
BEGIN;
SELECT partner_portal.login(:'harbor_token') \g /dev/null
SELECT company_name, total_keys AS total, active_keys AS active, smartphones, contactless_cards AS cards, users, last_period_keys AS last_period, period_label
FROM partner_portal.partner_panel ORDER BY company_name;
SELECT demo.expect('five customers of his own', count(*) = 5 AND sum(active_keys) = 153) FROM partner_portal.partner_panel \g /dev/null
SELECT (SELECT count(*) FROM partner_portal.workspace WHERE workspace_id = :alpenblick) AS hotels,
	(SELECT count(*) FROM partner_portal.security_key WHERE workspace_id = :alpenblick) AS their_keys,
	(SELECT count(*) FROM partner_portal.key_activity WHERE workspace_id = :alpenblick) AS their_history,
	(SELECT count(*) FROM partner_portal.security_key) AS keys_he_sees;
SELECT demo.expect('nothing of the other partner', (SELECT count(*) FROM partner_portal.workspace WHERE workspace_id = :alpenblick)
	+ (SELECT count(*) FROM partner_portal.security_key WHERE workspace_id = :alpenblick)
	+ (SELECT count(*) FROM partner_portal.key_activity WHERE workspace_id = :alpenblick) = 0) \g /dev/null
UPDATE partner_portal.security_key SET status = 'disabled' WHERE workspace_id = :alpenblick;
SELECT demo.expect('and changes nothing of it', :ROW_COUNT = 0) \g /dev/null
\set ON_ERROR_STOP off
\echo Asked for by name, it is not there:
SAVEPOINT s;
SELECT * FROM partner_portal.workspace_detail(:alpenblick);
ROLLBACK TO s;
SELECT demo.expect('details of another partner''s customer', :'LAST_ERROR_SQLSTATE' = 'P0002') \g /dev/null
\set LAST_ERROR_SQLSTATE 00000
SELECT * FROM partner_portal.usage(:alpenblick);
ROLLBACK TO s;
SELECT demo.expect('usage of another partner''s customer', :'LAST_ERROR_SQLSTATE' = 'P0002') \g /dev/null
\set ON_ERROR_STOP on
COMMIT;
\echo

\echo Anna owns Alpenblick Hotels. She sees her keys; the limit is not hers to lift.
\echo
\set ON_ERROR_STOP off
BEGIN;
SELECT partner_portal.login(:'alpenblick_token') \g /dev/null
SELECT count(*) AS workspaces, (SELECT count(*) FROM partner_portal.security_key) AS keys, min(w.key_limit) AS key_limit FROM partner_portal.workspace w;
SELECT demo.expect('one workspace and 62 keys', (SELECT count(*) FROM partner_portal.workspace) = 1 AND (SELECT count(*) FROM partner_portal.security_key) = 62) \g /dev/null
SELECT partner_portal.set_usage_limit(:alpenblick, 1000);
COMMIT;
\echo
SELECT demo.expect('the customer may not lift its limit', :'LAST_ERROR_SQLSTATE' = '42501') \g /dev/null
\set ON_ERROR_STOP on

\echo A token with one character changed signs nobody in, and nobody sees nothing:
\set ON_ERROR_STOP off
BEGIN;
SELECT partner_portal.login(regexp_replace(:'nordlicht_token', '.\.', 'x.'));
ROLLBACK;
\set ON_ERROR_STOP on
SELECT demo.expect('a forged token is refused', :'LAST_ERROR_SQLSTATE' = '28000') \g /dev/null
SELECT count(*) AS keys_nobody_sees FROM partner_portal.security_key;
SELECT demo.expect('nobody sees nothing', (SELECT count(*) FROM partner_portal.security_key) = 0) \g /dev/null

\echo == 8. Nora prices her customers; the three months from the old system are billed, and everything after them will be.
\echo
BEGIN;
SELECT partner_portal.login(:'nordlicht_token') \g /dev/null
SELECT plan_id AS plan FROM partner_portal.create_price_plan(:nordlicht, 'Keys, falling', 'USD', 'graduated',
	tiers => '[{"up_to": 50, "unit_price": 3.00}, {"up_to": null, "unit_price": 2.50}]') \gset
SELECT * FROM partner_portal.rate(:plan, 64);
COMMIT;
\c - postgres
SET client_min_messages = warning;
-- only the operator dates a plan back; no grace, so that the last month is final at once
SET partner_portal.invoice_grace = 0;
UPDATE partner_portal.workspace SET billing_from = (SELECT min(period_start) FROM partner_portal.billing_period WHERE workspace_id = :delta) WHERE workspace_id = :delta;
SELECT partner_portal.assign_price_plan(:delta, :plan, billing_from) FROM partner_portal.workspace WHERE workspace_id = :delta \g /dev/null
CALL partner_portal.run_due_billing();
CALL partner_portal.run_due_billing();
\set ON_ERROR_STOP off
UPDATE partner_portal.invoice SET total_minor = 1 WHERE workspace_id = :delta;
\set ON_ERROR_STOP on
SELECT demo.expect('not even a superuser changes a final invoice', :'LAST_ERROR_SQLSTATE' = 'PP003') \g /dev/null
SELECT demo.expect('nothing is owed', count(*) = 0) FROM partner_portal.billing_health() \g /dev/null
\c - demo_app
SET client_min_messages = warning;
\echo
BEGIN;
SELECT partner_portal.login(:'nordlicht_token') \g /dev/null
SELECT invoice_id AS second FROM partner_portal.invoices WHERE workspace_id = :delta AND invoice_number = '2' \gset
\echo Two keys of the second month never worked: a credit note. Then what Delta Freight has had by period, and its documents.
\echo
SELECT partner_portal.credit_invoice(:second, '[{"line": 1, "amount_minor": 500, "text": "two keys that never worked"}]', 'broken keys') \g /dev/null
SELECT label, invoice_number AS number, keys_billed AS keys, total_minor, currency, status FROM partner_portal.billing_history(:delta);
SELECT invoice_number AS number, document, keys_billed AS keys, total_minor, currency, status FROM partner_portal.invoices WHERE workspace_id = :delta ORDER BY invoice_id;
SELECT demo.expect('48, 64 and 80 keys', array_agg(keys_billed ORDER BY invoice_number) = '{48,64,80}' AND array_agg(total_minor ORDER BY invoice_number) = '{14400,18500,22500}')
FROM partner_portal.invoices WHERE workspace_id = :delta AND document = 'invoice' \g /dev/null
\echo Her statement of the month that the second of them ended in:
\echo
SELECT company_name, currency, documents, invoice_numbers AS numbers, keys_billed AS keys, invoiced_minor AS invoiced, credited_minor AS credited, unpaid_minor AS unpaid
FROM partner_portal.partner_statement(:nordlicht, (SELECT ((upper(period) - interval '1 second') AT TIME ZONE 'Europe/Berlin')::date
	FROM partner_portal.invoices WHERE workspace_id = :delta AND invoice_number = '2'));
SELECT demo.expect('what is unpaid, less the credit', unpaid = '{"USD": 54900}') FROM partner_portal.partner_summary() \g /dev/null
\echo Dan asks why he pays 185.00. One query explains it: the bands, and the stretches behind them.
\echo
SELECT line, what, text, band, quantity, unit_price, amount FROM partner_portal.explain_invoice(:second) WHERE what <> 'stretch';
SELECT kind, serial, active FROM partner_portal.explain_invoice(:second) WHERE what = 'stretch' ORDER BY serial LIMIT 3;
SELECT demo.expect('64 keys are behind it', count(DISTINCT key_id) = 64) FROM partner_portal.explain_invoice(:second) \g /dev/null
SELECT demo.expect('a page to print', page LIKE '<!DOCTYPE html>%Invoice 2%</html>') FROM partner_portal.invoice_html(:second) AS page \g /dev/null
COMMIT;

\c - postgres
\pset tuples_only on
SELECT format('%s facts checked, all as they should be.', last_value) FROM demo.fact;
