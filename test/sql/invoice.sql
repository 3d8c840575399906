\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept invoice
\i :begin
SET search_path = partner_portal, public;
-- a partner and a customer with a past
SELECT workspace_id FROM create_workspace('Reseller AG', 'boss@reseller.example', 'reseller');
SELECT partner_id FROM promote_to_partner(1);
INSERT INTO workspace (company_name, slug, partner_id, created_at, anchor_date, billing_from, address, tax_id)
	VALUES ('Acme Ltd', 'acme', 1, '2026-01-01', '2026-01-01', '2026-01-01', '1 Road', 'CHE-1');
INSERT INTO security_key (workspace_id, kind, serial, status)
	SELECT 2, CASE WHEN i % 3 = 0 THEN 'smartphone' ELSE 'contactless_card' END, 'k' || i, 'disabled' FROM generate_series(1, 8) i;
SELECT count(import_key_activity(2, k, '[2026-01-05, 2026-02-10)', 'moved in')) FROM generate_series(1, 6) k;
SELECT count(import_key_activity(2, 7, '[2026-02-05, 2026-02-10)', 'moved in'));
\set tiers '[{"up_to":5,"unit_price":5.00,"flat":0},{"up_to":20,"unit_price":4.00},{"up_to":null,"unit_price":3.00}]'
SELECT plan_id FROM create_price_plan(1, 'Standard', 'CHF', 'graduated', tiers => :'tiers');
-- from the next period on; the operator may date it back
SELECT valid_from = upper(billing_period_at(2)) AS next_period, partner_key, family_id FROM assign_price_plan(2, 1);
SELECT valid_from, partner_key, family_id FROM assign_price_plan(2, 1, '2026-01-01');
SELECT count(*) FROM plan_assignment;

-- the preview is the invoice
SELECT line, type, about, measure, quantity, text, amount_minor, currency, total_minor FROM preview_invoice(2, '[2026-01-01, 2026-02-01)');
SELECT * FROM run_billing('2026-04-01 00:30+00');
SELECT * FROM run_billing('2026-04-01 00:30+00');
SELECT invoice_number, status, period_label, keys_billed, currency, total_minor, invoice_date FROM invoices ORDER BY period;
-- no plan asks for a document over nothing: no number is spent
SELECT * FROM run_billing('2026-04-01 01:30+00');
-- names, addresses, plan and prices are copies
SELECT issuer_name, payer_name, payer_address, payer_tax_id, company_name, plan_name, plan_version FROM invoice WHERE invoice_id = 1;
SELECT line, type, component, measure, model, tiers, part_dates, whole_dates, quantity, text, amount_minor FROM invoice_line WHERE invoice_id = 1;

-- late facts: the next invoice corrects both earlier periods at their prices
SELECT count(import_key_activity(2, 8, '[2026-02-05, 2026-03-10)', 'found late'));
SELECT * FROM run_billing('2026-05-01 01:30+00');
SELECT l.line, l.type, l.quantity, l.text, l.amount_minor FROM invoice_line l JOIN invoice i USING (workspace_id, invoice_id) WHERE i.number = 3 ORDER BY 1;
SELECT * FROM run_billing('2026-05-01 01:30+00');
SELECT line, what, text, band, quantity, unit_price, amount, amount_minor, key_id, kind, serial, active FROM explain_invoice((SELECT invoice_id FROM invoice WHERE number = 3));

-- drafts: facts within the grace are on them
SELECT count(import_key_activity(2, 1, '[2026-05-02, 2026-05-03)', 'moved in'));
SELECT action FROM run_billing('2026-06-01 00:10+00');
SELECT count(import_key_activity(2, 2, '[2026-05-02, 2026-05-03)', 'a bit late'));
SELECT action FROM run_billing('2026-06-01 00:20+00');
SELECT status, total_minor, invoice_number FROM invoice WHERE period_label LIKE '2026-05%';
-- tax is the caller's; a fact after it makes the draft wait
SELECT invoice_id AS draft FROM invoice WHERE status = 'draft' \gset
SELECT subtotal_minor, tax_minor, tax_note, total_minor FROM set_invoice_tax(:draft, 77, '7.7 %');
SELECT count(import_key_activity(2, 3, '[2026-05-02, 2026-05-03)', 'a bit late'));
SELECT action FROM run_billing('2026-06-01 02:00+00');
SELECT status, subtotal_minor, tax_minor, total_minor FROM invoice WHERE invoice_id = :draft;
SELECT action FROM run_billing('2026-06-01 03:00+00');
SELECT finalize_invoice(:draft);
SELECT subtotal_minor, total_minor FROM set_invoice_tax(:draft, 116, '7.7 %');
SELECT invoice_number, status, total_minor FROM finalize_invoice(:draft);

-- credit notes: a series of their own, at most what a line charged
SELECT document, invoice_number, status, total_minor, tax_minor, reason FROM credit_invoice(:draft, '[{"line":1,"amount_minor":500,"text":"one key too many"}]', 'goodwill', 39);
SELECT document, invoice_number, status, total_minor FROM credit_invoice(:draft, '[{"line":1,"amount_minor":400},{"line":1,"amount_minor":600}]', 'the rest');
SELECT line, type, credits_line, text, amount_minor FROM invoice_line l JOIN invoice i USING (workspace_id, invoice_id) WHERE i.document = 'credit_note' ORDER BY i.number, line;
SELECT credit_invoice(:draft, '[{"line":1,"amount_minor":1}]', 'too much');
SELECT credit_invoice(1, '[{"line":1,"amount_minor":2901}]', 'too much');
SELECT credit_invoice(1, '[{"line":1,"amount_minor":2900},{"line":1,"amount_minor":1}]', 'too much');
SELECT credit_invoice(1, '[{"line":2,"amount_minor":1}]', 'no such line');
SELECT credit_invoice(1, '[{"line":1,"amount_minor":0}]', 'nothing');
SELECT credit_invoice(1, '[{"line":1,"amount_minor":-1}]', 'less');
SELECT credit_invoice(1, '[{"line":1,"amount_minor":1.5}]', 'fraction');
SELECT credit_invoice(1, '[{"line":1,"amount_minor":"5"}]', 'text');
SELECT credit_invoice(1, '[]', 'nothing');
SELECT credit_invoice(1, '{"line":1}', 'object');
SELECT credit_invoice(1, NULL, 'null');
SELECT credit_invoice(1, '[{"line":1,"amount_minor":5}]', ' ');
SELECT credit_invoice(1, '[{"line":1,"amount_minor":5}]', 'tax', 1);

-- void: final and uncredited only; the number stays; nothing is billed again unless asked for
SELECT invoice_number, status, settled_note FROM void_invoice(2, 'wrong address');
SELECT * FROM run_billing('2026-06-01 03:00+00');
SELECT invoice_number, status, settled_note FROM void_invoice(1, 'wrong address', reissue => true);
SELECT invoice_number, status, total_minor FROM invoice WHERE period_label LIKE '2026-01%' ORDER BY status;
SELECT void_invoice(:draft, 'credited already');
SELECT void_invoice(1, 'twice');
SELECT void_invoice((SELECT max(invoice_id) FROM invoice WHERE status = 'draft'), 'a draft');
SELECT void_invoice((SELECT max(invoice_id) FROM invoice WHERE number = 3), NULL);
-- paid
SELECT invoice_number, status, settled_at, settled_note FROM mark_paid((SELECT invoice_id FROM invoice WHERE number = 3), '2026-05-20', 'wire 7');
SELECT mark_paid((SELECT invoice_id FROM invoice WHERE number = 3));
SELECT void_invoice((SELECT invoice_id FROM invoice WHERE number = 3), 'a paid one');
SELECT mark_paid(:draft, 'infinity');
SELECT finalize_invoice(:draft);
SELECT set_invoice_tax(:draft, 1);
SELECT finalize_invoice(4242);
SELECT finalize_invoice(NULL);
SELECT run_billing(NULL);
SELECT run_billing('infinity');
SELECT run_billing(now(), 0);
CALL run_due_billing(now(), 0);
SELECT * FROM preview_invoice(2, '[2026-01-02, 2026-02-01)');

-- a finished document never changes, whoever asks
\set VERBOSITY sqlstate
UPDATE invoice SET total_minor = 0 WHERE invoice_id = :draft;
UPDATE invoice SET status = 'paid', settled_at = now() WHERE invoice_id = :draft;
UPDATE invoice SET status = 'draft' WHERE status = 'void';
DELETE FROM invoice WHERE invoice_id = :draft;
DELETE FROM invoice WHERE status = 'empty';
TRUNCATE invoice;
TRUNCATE invoice, invoice_line CASCADE;
TRUNCATE invoice_line;
UPDATE invoice_line SET amount_minor = 0 WHERE invoice_id = :draft;
DELETE FROM invoice_line WHERE invoice_id = :draft;
INSERT INTO invoice_line SELECT l.workspace_id, l.invoice_id, 99, l.partner_key, l.issuer_key, l.payer_id, l.workspace_sees, l.partner_sees, l.type, l.about_start, l.about_end, l.component,
	l.kind, l.measure, l.model, l.unit_price, l.package_size, l.tiers, l.minimum_minor, l.free_units, l.part_dates, l.whole_dates, l.quantity, l.credits_line, l.text, l.amount_minor
	FROM invoice_line l WHERE l.invoice_id = :draft;
INSERT INTO invoice_line SELECT l.workspace_id, 4242, 99, l.partner_key, l.issuer_key, l.payer_id, l.workspace_sees, l.partner_sees, l.type, l.about_start, l.about_end, l.component,
	l.kind, l.measure, l.model, l.unit_price, l.package_size, l.tiers, l.minimum_minor, l.free_units, l.part_dates, l.whole_dates, l.quantity, l.credits_line, l.text, l.amount_minor
	FROM invoice_line l WHERE l.invoice_id = :draft;
-- a draft may go, with its lines
BEGIN;
DELETE FROM invoice WHERE status = 'draft';
SELECT count(*) AS lines_without_document FROM invoice_line l WHERE NOT EXISTS (SELECT FROM invoice i WHERE i.invoice_id = l.invoice_id);
ROLLBACK;
UPDATE price_plan SET name = 'Cheaper' WHERE plan_id = 1;
UPDATE plan_component SET tiers = '[]' WHERE plan_id = 1;
DELETE FROM plan_component WHERE plan_id = 1;
SELECT add_plan_component(1, 'smartphone', 'flat', unit_price => 1);
TRUNCATE plan_component;
\set VERBOSITY terse
SELECT revise_price_plan(1, 'flat', unit_price => 1, in_force_from => '2026-02-01');
SELECT assign_price_plan(2, NULL, '2026-02-01');
SELECT assign_price_plan(4242, 1);
SELECT assign_price_plan(1, 1);
SELECT status, count(*), sum(total_minor) FROM invoice GROUP BY 1 ORDER BY 1;

-- a new version prices the periods that start after it
SELECT version FROM revise_price_plan(1, 'per_unit', unit_price => 1.005, in_force_from => '2026-06-15', zero_invoices => true);
SELECT count(import_key_activity(2, 1, '[2026-06-02, 2026-07-03)', 'moved in'));
SELECT action FROM run_billing('2026-08-01 01:00+00');
SELECT period_label, plan_version, invoice_number, total_minor FROM invoice WHERE period_start >= '2026-06-01' AND document = 'invoice' ORDER BY 1;

-- numbers are 1..n in each series
SELECT document, count(*), max(number), (SELECT last_number FROM invoice_series s WHERE s.issuer_key = i.issuer_key AND s.document = i.document) AS last FROM invoice i WHERE number IS NOT NULL GROUP BY document, issuer_key ORDER BY 1;
-- yearly, with a prefix
SELECT issuer_key, name, number_prefix, yearly FROM set_invoice_issuer(1, 'Reseller Billing AG', number_prefix => 'R-', yearly => true);
SELECT count(import_key_activity(2, 1, '[2026-08-02, 2026-09-03)', 'moved in'));
SELECT action FROM run_billing('2026-10-01 01:00+00');
SELECT invoice_number, series_year, number, issuer_name FROM invoice WHERE period_start >= '2026-08-01' AND document = 'invoice' ORDER BY number;

-- a series goes on with the numbers of another system, until it has a document
SELECT issuer_key, document, year, first_number, last_number FROM start_invoice_series(1, 4711);
SELECT issuer_key, document, year, first_number, last_number FROM start_invoice_series(1, 4712, year => 2027);
SELECT issuer_key, document, year, first_number, last_number FROM start_invoice_series(1, 500, year => 2027);
SELECT count(import_key_activity(2, 1, '[2026-09-05, 2026-09-06)', 'moved in'));
SELECT action FROM run_billing('2027-01-15 01:00+00') WHERE action <> 'closed';
SELECT invoice_number, series_year, number FROM invoice WHERE series_year >= 2027 ORDER BY number;
SELECT start_invoice_series(1, 900, year => 2027);
SELECT first_number, last_number FROM start_invoice_series(1, 7, 'credit_note', 2028);
SELECT start_invoice_series(1, 0);
SELECT start_invoice_series(1, 1000000000001);
SELECT start_invoice_series(1, NULL);
SELECT start_invoice_series(1, 1, 'receipt');
SELECT start_invoice_series(1, 1, year => 26);
SELECT start_invoice_series(4242, 1);
SELECT start_invoice_series(NULL, 10, year => 2027) = (0, 'invoice', 2027, 9, 10)::invoice_series AS platform;
SELECT account_id AS customer FROM add_member(2, 'owner@customer.example', 'owner') \gset
BEGIN;
SELECT count(login_as(:customer)) AS signed_in;
SELECT start_invoice_series(1, 1, year => 2029);
ROLLBACK;
SELECT * FROM verify();
