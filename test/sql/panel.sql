\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept panel
\i :begin
SET datestyle = ISO;
-- partners 1 and 2; customers 3 (Alder) and 4 (Birch) of the first, 5 (Cedar) of the second, 6 (Direct) of none
SELECT workspace_id FROM partner_portal.create_workspace('North Partner', 'north@example.com');
SELECT workspace_id FROM partner_portal.create_workspace('South Partner', 'south@example.com');
SELECT partner_id FROM partner_portal.promote_to_partner(1);
SELECT partner_id FROM partner_portal.promote_to_partner(2);
SELECT workspace_id, partner_id FROM partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner WHERE partner_id = 1), 'Alder', 'alder@example.com', time_zone => 'Europe/Zurich');
SELECT workspace_id, partner_id FROM partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner WHERE partner_id = 1), 'Birch 100%', 'birch@example.com');
SELECT workspace_id, partner_id FROM partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner WHERE partner_id = 2), 'Cedar', 'cedar@example.com');
SELECT workspace_id FROM partner_portal.create_workspace('Direct', 'direct@example.com');
-- a plain member of the first partner, on the staff of Alder
SELECT role FROM partner_portal.add_member(1, 'staff@example.com', 'member');
SELECT account_id AS north FROM partner_portal.account WHERE email = 'north@example.com' \gset
SELECT account_id AS south FROM partner_portal.account WHERE email = 'south@example.com' \gset
SELECT account_id AS staff FROM partner_portal.account WHERE email = 'staff@example.com' \gset
SELECT account_id AS alder FROM partner_portal.account WHERE email = 'alder@example.com' \gset
SELECT role FROM partner_portal.assign_staff(3, :staff, 'account_owner');
UPDATE partner_portal.workspace SET restrict_keys = true, key_limit = 10 WHERE workspace_id = 3;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial, account_id, status) VALUES
	(3, 'smartphone', 'A1', :alder, 'active'), (3, 'smartphone', 'A2', NULL, 'active'), (3, 'contactless_card', 'A3', :alder, 'active'),
	(3, 'contactless_card', 'A4', NULL, 'disabled'), (5, 'smartphone', 'C1', NULL, 'active');
-- three months of history for Alder and the last one for Cedar
SELECT partner_portal.import_key_activity(3, k.key_id, tstzrange(p - interval '70 days', p - interval '5 days'), 'history')
	FROM partner_portal.security_key k, lower(partner_portal.billing_period_at(3)) p WHERE k.serial IN ('A1', 'A4');
SELECT partner_portal.import_key_activity(5, k.key_id, tstzrange(p - interval '3 days', p), 'history')
	FROM partner_portal.security_key k, lower(partner_portal.billing_period_at(5)) p WHERE k.serial = 'C1';
\set panel 'SELECT company_name, total_keys, active_keys, key_limit, smartphones, contactless_cards, users, users_as_of IS NOT NULL AS measured, last_period_keys, last_invoice_date, state, relation FROM partner_portal.partner_panel ORDER BY company_name;'
SELECT attname FROM pg_attribute WHERE attrelid = 'partner_portal.partner_panel'::regclass AND attnum > 0 ORDER BY attnum;
-- the operator sees every customer
:panel
-- the first partner sees its own, also before the periods are closed and after
SET ROLE regress_trusted;
BEGIN; SELECT partner_portal.login_as(:north) > 0 AS signed_in; :panel COMMIT;
RESET ROLE;
SELECT count(*) FROM partner_portal.close_periods();
SELECT partner_portal.refresh_usage() > 0 AS refreshed;
SET ROLE regress_trusted;
BEGIN; SELECT partner_portal.login_as(:north) > 0 AS signed_in; :panel
SELECT billing_period = partner_portal.billing_period_at(workspace_id) AS period, billing_period @> now() AS running,
	period_label ~ '^\d{4}-\d\d-\d\d\.\.\d{4}-\d\d-\d\d$' AS label, created_at <= now() AS created FROM partner_portal.partner_panel;
SELECT * FROM partner_portal.partner_summary();
SELECT company_url, keys_billed, contactless_cards, smartphones, users, sso_enabled, restrict_keys, key_limit, limit_mode, notify_new_keys, notify_billing, registered_with,
	billing_period @> now() AS running FROM partner_portal.workspace_detail(3);
SELECT keys_billed, invoice_number, invoice_date, total_minor, currency, status, upper(period) <= now() AS past FROM partner_portal.billing_history(3);
SELECT count(*) FROM partner_portal.billing_history(4);
SELECT workspace_id, company_name, customers, registration_url = partner_portal.registration_url() AS url FROM partner_portal.partner_profile();
SELECT * FROM partner_portal.find_customers('BIRCH 100%');
SELECT * FROM partner_portal.find_customers('%');
SELECT * FROM partner_portal.find_customers('ced');
SELECT count(*) FROM partner_portal.find_customers('');
\set VERBOSITY sqlstate
SAVEPOINT s; SELECT partner_portal.find_customers(NULL); ROLLBACK TO s;
SELECT partner_portal.workspace_detail(5); ROLLBACK TO s;
SELECT partner_portal.billing_history(5); ROLLBACK TO s;
SELECT partner_portal.usage(5); ROLLBACK TO s;
SELECT partner_portal.usage_csv(5); ROLLBACK TO s;
SELECT partner_portal.billing_period_at(5); ROLLBACK TO s;
SELECT partner_portal.workspace_detail(6); ROLLBACK TO s;
SELECT partner_portal.workspace_detail(999); ROLLBACK TO s;
SELECT partner_portal.workspace_detail(NULL); ROLLBACK TO s;
SELECT partner_portal.partner_summary(2); ROLLBACK TO s;
SELECT partner_portal.partner_profile(2); ROLLBACK TO s;
\set VERBOSITY terse
COMMIT;
-- the second partner sees none of it
BEGIN; SELECT partner_portal.login_as(:south) > 0 AS signed_in; :panel
SELECT customers, smartphones, last_period_smartphones, users FROM partner_portal.partner_summary(); COMMIT;
-- a plain member sees the customers it is staff of
BEGIN; SELECT partner_portal.login_as(:staff) > 0 AS signed_in; :panel
SELECT keys_billed FROM partner_portal.workspace_detail(3);
SELECT company_name FROM partner_portal.find_customers('');
\set VERBOSITY sqlstate
SAVEPOINT s; SELECT partner_portal.workspace_detail(4); ROLLBACK TO s;
SELECT partner_portal.partner_summary(); ROLLBACK TO s;
SELECT partner_portal.partner_profile(); ROLLBACK TO s;
\set VERBOSITY terse
COMMIT;
-- a customer reads itself, and no panel
BEGIN; SELECT partner_portal.login_as(:alder) > 0 AS signed_in; :panel
SELECT kind, distinct_keys, users FROM partner_portal.usage(3);
SELECT keys_billed FROM partner_portal.billing_history(3);
SELECT registered_with FROM partner_portal.workspace_detail(3);
\set VERBOSITY sqlstate
SAVEPOINT s; SELECT partner_portal.partner_summary(); ROLLBACK TO s;
SELECT partner_portal.workspace_detail(4); ROLLBACK TO s;
\set VERBOSITY terse
COMMIT;
-- nobody sees nothing
:panel
\set VERBOSITY sqlstate
SELECT partner_portal.partner_summary();
SELECT partner_portal.partner_summary(1);
SELECT partner_portal.workspace_detail(3);
SELECT partner_portal.find_customers('');
SELECT partner_portal.usage(3);
\set VERBOSITY terse
RESET ROLE;
-- a customer moves: the old partner sees it no more, the new one nothing older
SET ROLE regress_trusted;
BEGIN; SELECT partner_portal.login_as(:south) > 0 AS signed_in; SELECT split_part(partner_portal.registration_url(), '/register/', 2) AS code \gset
COMMIT;
BEGIN; SELECT partner_portal.login_as(:alder) > 0 AS signed_in;
SELECT partner_id FROM partner_portal.transfer_workspace(3, :'code'); COMMIT;
BEGIN; SELECT partner_portal.login_as(:north) > 0 AS signed_in; :panel COMMIT;
BEGIN; SELECT partner_portal.login_as(:south) > 0 AS signed_in; :panel
SELECT count(*) FROM partner_portal.billing_history(3);
SELECT kind, distinct_keys, start_keys FROM partner_portal.usage(3);
\set VERBOSITY sqlstate
SAVEPOINT s; SELECT partner_portal.usage(3, tstzrange(now() - interval '40 days', now() - interval '10 days')); ROLLBACK TO s;
SELECT partner_portal.usage_csv(3, tstzrange(now() - interval '40 days', now() - interval '10 days')); ROLLBACK TO s;
\set VERBOSITY terse
COMMIT;
BEGIN; SELECT partner_portal.login_as(:alder) > 0 AS signed_in;
SELECT count(*) FROM partner_portal.billing_history(3);
SELECT kind FROM partner_portal.usage(3, tstzrange(now() - interval '40 days', now() - interval '10 days')); COMMIT;
RESET ROLE;
SELECT partner_key, count(*), bool_and(closed_at IS NOT NULL) AS closed FROM partner_portal.billing_period WHERE workspace_id = 3 GROUP BY 1, closed_at IS NOT NULL ORDER BY 1, 2;
-- invoices: what is finished shows in the panel, what is unpaid in the summary, credit notes taken off
SELECT plan_id FROM partner_portal.create_price_plan(1, 'Basic', 'EUR', 'flat', unit_price => 12.50) \gset
SELECT count(*) AS assigned FROM partner_portal.assign_price_plan(4, :plan_id);
SELECT count(*) > 0 AS drafted FROM partner_portal.run_billing((SELECT upper(partner_portal.billing_period_at(4, max(period_end))) FROM partner_portal.billing_period WHERE workspace_id = 4));
SELECT invoice_number IS NULL AS no_number, keys_billed, total_minor, currency, status FROM partner_portal.billing_history(4);
SELECT count(*) > 0 AS finished FROM partner_portal.run_billing((SELECT max(finalize_after) FROM partner_portal.invoice WHERE workspace_id = 4));
SELECT invoice_number IS NULL AS no_number, invoice_date IS NULL AS no_date, keys_billed, total_minor, currency, status FROM partner_portal.billing_history(4);
SELECT company_name, last_invoice_date IS NOT NULL AS invoiced, last_invoice_keys FROM partner_portal.partner_panel ORDER BY 1;
SELECT unpaid FROM partner_portal.partner_summary(1);
SELECT unpaid FROM partner_portal.partner_summary(2);
SELECT count(*) FROM partner_portal.credit_invoice((SELECT max(invoice_id) FROM partner_portal.invoice WHERE workspace_id = 4), '[{"line":1,"amount_minor":250,"text":"apology"}]', 'apology');
SELECT unpaid FROM partner_portal.partner_summary(1);
SET ROLE regress_trusted;
BEGIN; SELECT partner_portal.login_as(:north) > 0 AS signed_in;
SELECT company_name, last_invoice_date IS NOT NULL AS invoiced, last_invoice_keys FROM partner_portal.partner_panel ORDER BY 1;
SELECT keys_billed, total_minor, currency, status FROM partner_portal.billing_history(4); COMMIT;
RESET ROLE;
-- a customer that leaves its partner keeps its own past, in its own eyes and the operator's
SELECT count(*) AS closed FROM partner_portal.billing_period WHERE workspace_id = 3 AND closed_at IS NOT NULL \gset
SET ROLE regress_trusted;
BEGIN; SELECT partner_portal.login_as(:alder) > 0 AS signed_in;
SELECT partner_id FROM partner_portal.leave_partner(3);
SELECT count(*) >= 3 AND count(*) = :closed AS all_of_it FROM partner_portal.billing_history(3); COMMIT;
RESET ROLE;
SELECT count(*) >= 3 AND count(*) = :closed AS all_of_it FROM partner_portal.billing_history(3);
