\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept statement
\i :begin
SET search_path = partner_portal, public;
SET datestyle = ISO;
-- partners 1 and 2; of the first: 3 (billed in CHF), 4 (in JPY), 5 (on a platform plan), 6 (no plan, then split), 7 (on a platform plan, the partner pays)
SELECT workspace_id FROM create_workspace('Reseller AG', 'boss@reseller.example');
SELECT workspace_id FROM create_workspace('Other Partner', 'boss@other.example');
SELECT count(promote_to_partner(p)) FROM generate_series(1, 2) p;
INSERT INTO workspace (company_name, slug, partner_id, created_at, anchor_date, billing_from, time_zone, invoice_visibility) VALUES
	('Acme "Keys", Ltd', 'acme', 1, '2026-01-01', '2026-01-01', '2026-01-01', 'Europe/Zurich', 'payer'),
	('=Beta', 'beta', 1, '2026-01-15', '2026-01-15', '2026-01-15', 'Asia/Tokyo', 'payer'),
	('Gamma', 'gamma', 1, '2026-01-01', '2026-01-01', '2026-01-01', 'UTC', 'payer'),
	('Delta', 'delta', 1, '2026-01-01', '2026-01-01', '2026-01-01', 'UTC', 'both'),
	('Epsilon', 'epsilon', 1, '2026-01-01', '2026-01-01', '2026-01-01', 'UTC', 'payer');
-- the first partner holds the wallet of 7 when January begins
UPDATE billing_period SET payer_id = 1 WHERE workspace_id = 7;
SELECT count(add_member(w, 'owner' || w || '@example.com', 'owner')) FROM generate_series(3, 7) w;
SELECT role FROM add_member(1, 'staff@example.com', 'member');
SELECT role FROM assign_staff(3, (SELECT account_id FROM account WHERE email = 'staff@example.com'), 'account_owner');
INSERT INTO security_key (workspace_id, kind, serial, status) SELECT w, 'smartphone', 'k' || i, 'disabled' FROM generate_series(3, 7) w, generate_series(1, 4) i;
SELECT count(import_key_activity(workspace_id, key_id, '[2026-01-20, 2026-03-10)', 'history')) FROM security_key;
SELECT plan_id FROM create_price_plan(1, 'Francs', 'CHF', 'per_unit', unit_price => 1.125);
SELECT plan_id FROM create_price_plan(1, 'Yen', 'JPY', 'per_unit', unit_price => 100.5);
SELECT plan_id FROM create_price_plan(NULL, 'Platform', 'EUR', 'flat', unit_price => 28, minimum_minor => 3000);
SELECT count(assign_price_plan(w, p, '2025-12-31')) FROM (VALUES (3, 1), (4, 2), (5, 3), (7, 3)) v (w, p);
SELECT workspace_id, period, action FROM run_billing('2026-03-20');

-- flat fee and minimum of a split period: each part by its local dates; parts add up
SELECT count(assign_price_plan(6, 3, '2026-03-01'));
SELECT split_period(6, '2026-03-11 12:00+00');
SELECT period_start, period_end, whole_start, whole_end FROM billing_period WHERE workspace_id = 6 AND period_end > '2026-03-01' ORDER BY 1;
SELECT action FROM run_billing('2026-04-01 01:00+00') WHERE workspace_id = 6;
SELECT i.period_label, l.part_dates, l.whole_dates, i.total_minor FROM invoice i JOIN invoice_line l USING (workspace_id, invoice_id) WHERE workspace_id = 6 ORDER BY i.period_start;
SELECT count(*) > 0 AS billed FROM run_billing();

-- the month of the partner's zone; zero lines; totals per currency
SELECT invoice_id AS acme FROM invoice WHERE workspace_id = 3 AND period_label LIKE '2026-01%' \gset
SELECT invoice_number, total_minor FROM credit_invoice(:acme, '[{"line":1,"amount_minor":50}]', 'goodwill');
SELECT workspace_id, company_name, relation, currency, documents, invoice_numbers, keys_billed, invoiced_minor, credited_minor, total_minor, unpaid_minor, drafts FROM partner_statement(1, '2026-01-31');
SELECT workspace_id, company_name, relation, currency, documents, invoice_numbers, keys_billed, invoiced_minor, total_minor, unpaid_minor FROM partner_statement(1, '2026-02-01');
SELECT workspace_id, company_name, currency, documents FROM partner_statement(1, '2025-12-31');
SELECT replace(partner_statement_csv(1, '2026-02-01'), E'\r\n', E'|\n') AS csv;
SELECT partner_statement(1, NULL);
SELECT partner_statement(3, '2026-01-01');
SELECT partner_statement(NULL, '2026-01-01');
SELECT period, label, invoice_number, keys_billed, total_minor, currency, status FROM billing_history(3) WHERE upper(period) < '2026-05-01';
SELECT label, invoice_number, keys_billed, total_minor, status FROM billing_history(6) WHERE upper(period) < '2026-05-01';
SELECT count(*) AS healthy FROM billing_health();

-- who sees which documents, and may do what
CREATE TEMP TABLE who AS SELECT email, account_id FROM account;
GRANT SELECT ON who TO regress_trusted;
SELECT account_id AS boss FROM who WHERE email = 'boss@reseller.example' \gset
SELECT account_id AS other FROM who WHERE email = 'boss@other.example' \gset
SELECT account_id AS acme_owner FROM who WHERE email = 'owner3@example.com' \gset
SELECT account_id AS epsilon_owner FROM who WHERE email = 'owner7@example.com' \gset
SELECT account_id AS gamma_owner FROM who WHERE email = 'owner5@example.com' \gset
SELECT account_id AS staff FROM who WHERE email = 'staff@example.com' \gset
SELECT max(invoice_id) AS gamma FROM invoice WHERE workspace_id = 5 AND number IS NOT NULL \gset
\set seen 'SELECT workspace_id, issuer_key, count(*) > 0 AS documents, (SELECT count(*) > 0 FROM partner_portal.invoice_line l WHERE l.workspace_id = v.workspace_id) AS lines FROM partner_portal.invoices v GROUP BY 1, 2 ORDER BY 1, 2;'
SET ROLE regress_trusted;
:seen
-- the partner: its own invoices, and not those that its customer 5 pays to the platform
BEGIN; SELECT partner_portal.login_as(:boss) > 0 AS signed_in; :seen
SELECT company_name, last_invoice_date IS NOT NULL AS invoiced, last_invoice_keys IS NOT NULL AS keys FROM partner_portal.partner_panel ORDER BY 1;
SELECT unpaid ? 'CHF' AS chf, unpaid ? 'EUR' AS eur FROM partner_portal.partner_summary();
SELECT count(*) > 0 AS documents FROM partner_portal.billing_history(5) WHERE total_minor IS NOT NULL;
SELECT count(*) AS lines FROM partner_portal.partner_statement(month => '2026-01-01');
SELECT count(*) AS healthy FROM partner_portal.billing_health();
\set VERBOSITY sqlstate
SELECT partner_portal.invoice_html(:gamma);
ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:boss) > 0 AS signed_in; SELECT partner_portal.mark_paid(:gamma); ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:boss) > 0 AS signed_in; SELECT partner_portal.run_billing(); ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:boss) > 0 AS signed_in; SELECT partner_portal.create_price_plan(NULL, 'x', 'CHF', 'flat', unit_price => 1); ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:boss) > 0 AS signed_in; SELECT partner_portal.create_price_plan(2, 'x', 'CHF', 'flat', unit_price => 1); ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:boss) > 0 AS signed_in; SELECT partner_portal.rate(3, 1); ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:boss) > 0 AS signed_in; SELECT partner_portal.assign_price_plan(3, 3); ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:boss) > 0 AS signed_in; SELECT partner_portal.assign_price_plan(3, 1, '2026-02-01'); ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:boss) > 0 AS signed_in; UPDATE partner_portal.invoice SET total_minor = 1; ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:boss) > 0 AS signed_in; SELECT family_id FROM partner_portal.assign_price_plan(3, 2); SELECT status FROM partner_portal.mark_paid(:acme); ROLLBACK;
-- another partner, the customers, the staff, nobody
BEGIN; SELECT partner_portal.login_as(:other) > 0 AS signed_in; :seen
SELECT partner_portal.explain_invoice(:acme); ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:other) > 0 AS signed_in; SELECT partner_portal.void_invoice(:acme, 'x'); ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:acme_owner) > 0 AS signed_in; :seen
SELECT count(*) > 0 AS explained FROM partner_portal.explain_invoice(:acme); SELECT partner_portal.void_invoice(:acme, 'x'); ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:acme_owner) > 0 AS signed_in; SELECT partner_portal.partner_statement(1, '2026-01-01'); ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:acme_owner) > 0 AS signed_in; SELECT partner_portal.assign_price_plan(3, 1); ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:gamma_owner) > 0 AS signed_in; :seen ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:staff) > 0 AS signed_in; :seen ROLLBACK;
-- who pays alone sees it: January is the partner's, February the customer's own
\set paid 'SELECT period_label, payer_id, payer_name FROM partner_portal.invoices WHERE workspace_id = 7 AND period_label < ''2026-03'' ORDER BY 1;'
BEGIN; SELECT partner_portal.login_as(:epsilon_owner) > 0 AS signed_in; :paid
SELECT label, keys_billed, total_minor FROM partner_portal.billing_history(7) WHERE label < '2026-03' ORDER BY 1; ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:epsilon_owner) > 0 AS signed_in; SELECT partner_portal.preview_invoice(7, '[2026-01-01 00:00+00, 2026-02-01 00:00+00)'); ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:boss) > 0 AS signed_in; :paid
SELECT count(*) AS lines FROM partner_portal.preview_invoice(7, '[2026-01-01 00:00+00, 2026-02-01 00:00+00)'); ROLLBACK;
SELECT partner_portal.billing_health();
SELECT partner_portal.finalize_invoice(1);
SELECT partner_portal.preview_invoice(3);
SELECT partner_portal.rate(1, 1);
RESET ROLE;
\set VERBOSITY terse

-- a transfer: the old partner keeps its documents, the new one sees nothing older; the old plan ends
SELECT registration_code AS code FROM partner WHERE partner_id = 2 \gset
SET ROLE regress_trusted;
BEGIN; SELECT partner_portal.login_as(:acme_owner) > 0 AS signed_in; SELECT partner_id FROM partner_portal.transfer_workspace(3, :'code'); COMMIT;
BEGIN; SELECT partner_portal.login_as(:other) > 0 AS signed_in; :seen
SELECT count(*) AS older FROM partner_portal.billing_history(3) WHERE invoice_number IS NOT NULL;
SELECT count(*) AS priced FROM partner_portal.preview_invoice(3); ROLLBACK;
BEGIN; SELECT partner_portal.login_as(:boss) > 0 AS signed_in; :seen
SELECT status FROM partner_portal.mark_paid(:acme);
SELECT workspace_id, company_name, currency, documents, total_minor, unpaid_minor FROM partner_portal.partner_statement(1, '2026-01-31') WHERE workspace_id = 3; ROLLBACK;
RESET ROLE;
SELECT family_id FROM plan_assignment WHERE workspace_id = 3 ORDER BY valid_from DESC LIMIT 1;

-- the page: every value escaped, no script, nothing from elsewhere
UPDATE workspace SET company_name = '<script>alert(1)</script> & "Co"' WHERE workspace_id = 4;
SELECT invoice_id AS beta FROM invoice WHERE workspace_id = 4 AND period_label LIKE '2026-01%' \gset
SELECT document, reason FROM credit_invoice(:beta, '[{"line":1,"amount_minor":1,"text":"<img src=x onerror=alert(1)>"}]', '</style><script>alert(2)</script>');
SELECT page ~ '^<!DOCTYPE html>' AS html, page ~ '</html>$' AS complete, page ~* '<(script|img|link|iframe|object)' AS active, page ~* '<[^>]*(src|href)=' AS loads,
	xmlparse(DOCUMENT regexp_replace(page, '^<!DOCTYPE html>', '')) IS DOCUMENT AS well_formed
	FROM invoice_html((SELECT max(invoice_id) FROM invoice WHERE workspace_id = 4)) page;
SELECT page ~ '<td class="number">402</td>' AS yen, page ~ 'viewBox' AS bars, page ~ '>=Beta<' AS name_of_its_time, page ~ '<[a-z]+/>' AS short_form
	FROM (SELECT replace(replace(invoice_html(:beta), '<meta charset="utf-8"/>', ''), '/></head>', '') AS page) p;

-- a change of anchor leaves a part too
UPDATE workspace SET anchor_date = '2026-01-15' WHERE workspace_id = 5;
SELECT count(*) > 0 AS billed FROM run_billing(now() + interval '3 months');
SELECT count(*) AS parts, bool_and(l.part_dates < l.whole_dates) AS shared FROM invoice_line l JOIN billing_period p ON p.workspace_id = l.workspace_id AND p.period_start = l.about_start
	WHERE l.workspace_id = 5 AND p.whole_start IS NOT NULL;
