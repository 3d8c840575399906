\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept billing_run
\i :begin
SET search_path = partner_portal, public;
SET datestyle = ISO;
-- twelve workspaces without a partner, on plans of the platform
INSERT INTO workspace (company_name, slug, created_at, anchor_date, billing_from) SELECT 'W' || w, 'w' || w, '2025-01-01', '2025-01-01', '2025-01-01' FROM generate_series(1, 12) w;
INSERT INTO security_key (workspace_id, kind, serial, status)
	SELECT w, CASE WHEN i = 3 THEN 'contactless_card' ELSE 'smartphone' END, 'k' || i, 'disabled' FROM generate_series(1, 12) w, generate_series(1, 3) i ORDER BY w, i;
SELECT count(import_key_activity(workspace_id, key_id, '[2025-01-10, 2026-01-20)', 'history')) FROM security_key;
SELECT plan_id FROM create_price_plan(NULL, 'Unit', 'CHF', 'per_unit', unit_price => 2);
SELECT plan_id FROM create_price_plan(NULL, 'Beyond', 'CHF', 'per_unit', unit_price => 90000000000000000);
-- a component per kind, each by a measure of its own; dinars have three digits
SELECT plan_id FROM create_price_plan(NULL, 'Mixed', 'BHD', 'per_unit', 'key_days', unit_price => 0.0015, kind => 'smartphone');
SELECT component FROM add_plan_component(3, 'contactless_card', 'package', 'peak_keys', unit_price => 1, package_size => 5);
SELECT component FROM add_plan_component(3, NULL, 'flat', unit_price => 0.25);
SELECT count(assign_price_plan(w, CASE w WHEN 7 THEN 2 WHEN 9 THEN 3 ELSE 1 END, '2025-01-01')) FROM generate_series(1, 12) w WHERE w <> 12;
UPDATE workspace SET auto_finalize = false WHERE workspace_id = 11;
UPDATE workspace SET billing_from = '2025-02-01' WHERE workspace_id = 10;

-- one that fails does not stop the others: it is reported, and no document made of its period
SELECT workspace_id, period, action, problem FROM run_billing('2025-02-01 00:30+00') WHERE workspace_id IN (1, 7, 9, 10, 12);
SELECT workspace_id, status, count(*) FROM invoice GROUP BY 1, 2 ORDER BY 1, 2;
SELECT label, closed_at IS NOT NULL AS closed, billed_at FROM billing_period WHERE workspace_id = 7 ORDER BY period_start;
SELECT value, detail FROM health() WHERE name = 'billing_failures';
SELECT workspace_id, regexp_replace(problem, 'of .* failed', 'failed') AS problem FROM billing_health() WHERE problem LIKE 'the billing run%';
-- a bounded number of workspaces at a time
SELECT count(DISTINCT workspace_id) AS workspaces, min(action), max(action) FROM run_billing('2025-02-02', 3) WHERE action <> 'failed';
SELECT count(*) FILTER (WHERE action = 'failed') AS failed, count(DISTINCT workspace_id) FILTER (WHERE action <> 'failed') AS billed FROM run_billing('2025-02-02', 4);
-- in batches with a commit each
CALL run_due_billing('2025-02-02', 2);
SELECT status, count(*), min(number), max(number) FROM invoice GROUP BY 1 ORDER BY 1;
-- who finalizes by hand does so
SELECT invoice_number, status FROM finalize_invoice((SELECT invoice_id FROM invoice WHERE workspace_id = 11));
SELECT line, kind, measure, model, quantity, text, amount_minor FROM invoice_line WHERE workspace_id = 9 ORDER BY line;
SELECT currency, total_minor, keys_billed FROM invoice WHERE workspace_id = 9;

-- a year of outage is caught up in order, and the reason of a failure can be mended
SELECT version FROM revise_price_plan(2, 'per_unit', unit_price => 1, in_force_from => '2025-01-01');
CALL run_due_billing('2026-03-01 01:00+00');
SELECT workspace_id, count(*) AS periods, count(i.number) AS invoices, count(*) FILTER (WHERE i.status = 'draft') AS drafts, count(*) FILTER (WHERE i.status = 'empty') AS empty,
	sum(total_minor) AS total, bool_and(i.period_start = p.period_start) AS in_order
	FROM billing_period p LEFT JOIN invoice i USING (workspace_id, period_start) WHERE p.period_end <= '2026-03-01' GROUP BY 1 ORDER BY 1;
SELECT count(*) AS numbers, min(number), max(number), count(DISTINCT number) AS different FROM invoice WHERE number IS NOT NULL;
SELECT count(*) AS out_of_order FROM invoice a JOIN invoice b USING (workspace_id) WHERE a.period_start < b.period_start AND a.number > b.number;
SELECT count(*) FROM billing_failure;
-- sums and lines agree; run again it does nothing
SELECT count(*) AS wrong FROM invoice i WHERE subtotal_minor <> (SELECT sum(amount_minor) FROM invoice_line l WHERE l.workspace_id = i.workspace_id AND l.invoice_id = i.invoice_id);
CALL run_due_billing('2026-03-01 01:00+00');
SELECT count(*) FROM run_billing('2026-03-01 01:00+00');
SELECT max(number) FROM invoice;

-- history before billing_from is not billed; an earlier billing_from makes it due, and so does a plan dated back
UPDATE workspace SET billing_from = '2025-01-01' WHERE workspace_id = 10;
SELECT count(assign_price_plan(12, 1, '2025-12-01'));
SELECT workspace_id, period, action FROM run_billing('2026-03-01 01:00+00');

-- a void document billed nothing: late facts of its period are not corrected, those of others are
SELECT invoice_number, status FROM void_invoice((SELECT invoice_id FROM invoice WHERE workspace_id = 1 AND period_label LIKE '2025-03%'), 'mistake');
INSERT INTO security_key (workspace_id, kind, serial, status) VALUES (1, 'smartphone', 'late', 'disabled');
SELECT count(import_key_activity(1, key_id, '[2025-03-15, 2025-05-15)', 'late')) FROM security_key WHERE serial = 'late';
SELECT workspace_id, action FROM run_billing('2026-04-01 01:00+00') WHERE workspace_id = 1;
SELECT l.type, l.text, l.quantity, l.amount_minor FROM invoice_line l JOIN invoice i USING (workspace_id, invoice_id) WHERE i.workspace_id = 1 AND i.period_label LIKE '2026-03%' ORDER BY line;
-- the correction is on a void document: it comes again on the next
SELECT invoice_number, status FROM void_invoice((SELECT invoice_id FROM invoice WHERE workspace_id = 1 AND period_label LIKE '2026-03%'), 'mistake');
SELECT workspace_id, action FROM run_billing('2026-05-01 01:00+00') WHERE workspace_id = 1;
SELECT l.type, l.text, l.quantity, l.amount_minor FROM invoice_line l JOIN invoice i USING (workspace_id, invoice_id) WHERE i.workspace_id = 1 AND i.period_label LIKE '2026-04%' ORDER BY line;

-- what fails at finalizing is taken back alone, and costs no number
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the printer is on fire'; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON invoice FOR EACH ROW WHEN (NEW.status = 'final' AND NEW.workspace_id = 5) EXECUTE FUNCTION public.refuse();
INSERT INTO security_key (workspace_id, kind, serial, status) SELECT w, 'smartphone', 'may', 'disabled' FROM generate_series(1, 6) w ORDER BY w;
SELECT count(import_key_activity(workspace_id, key_id, '[2026-05-05, 2026-05-20)', 'history')) FROM security_key WHERE serial = 'may';
SELECT max(number) AS last FROM invoice WHERE document = 'invoice' \gset
SELECT workspace_id, lower(period) AS since, action, problem FROM run_billing('2026-06-02') WHERE workspace_id BETWEEN 4 AND 6 AND coalesce(lower(period) >= '2026-05-01', true) ORDER BY 1, 2;
SELECT workspace_id, status FROM invoice WHERE workspace_id BETWEEN 4 AND 6 AND period_label LIKE '2026-05%' ORDER BY 1;
SELECT count(*) = max(number) - min(number) + 1 AS gapless, min(number) - :last AS first FROM invoice WHERE number > :last AND document = 'invoice';
DROP TRIGGER refuse ON invoice;
SELECT workspace_id, lower(period) AS since, action FROM run_billing('2026-06-02');
SELECT count(*) AS failures FROM billing_failure;
SELECT max(number) = count(*) AS gapless FROM invoice WHERE document = 'invoice' AND number IS NOT NULL;

-- a deletion ends the last period at its instant, a restoration begins one: each bears its share, the hole nothing
INSERT INTO workspace (company_name, slug, created_at, anchor_date, billing_from) VALUES ('W13', 'w13', '2026-02-01', '2026-02-01', '2026-02-01') RETURNING workspace_id;
SELECT plan_id FROM create_price_plan(NULL, 'Flat', 'CHF', 'flat', unit_price => 31);
SELECT valid_from FROM assign_price_plan(13, 5, '2026-01-01');
SELECT period, action FROM run_billing('2026-03-01 01:00+00') WHERE workspace_id = 13;
UPDATE workspace SET deleted_at = '2026-03-11 12:00+00' WHERE workspace_id = 13;
SELECT end_periods(13, '2026-03-11 12:00+00');
SELECT period, action FROM run_billing('2026-03-12') WHERE workspace_id = 13;
UPDATE workspace SET deleted_at = NULL WHERE workspace_id = 13;
SELECT start_periods(13, '2026-03-21 06:00+00');
SELECT period, action FROM run_billing('2026-04-01 00:30+00') WHERE workspace_id = 13;
SELECT i.period_label, i.status, l.part_dates, l.whole_dates, l.amount_minor FROM invoice i JOIN invoice_line l USING (workspace_id, invoice_id) WHERE workspace_id = 13 ORDER BY i.period_start;
-- nothing is erased that a document is still to be made out to
SELECT workspace_id FROM delete_workspace(13);
SELECT purge_workspace(13);
SELECT invoice_number IS NOT NULL AS numbered, company_name FROM finalize_invoice((SELECT invoice_id FROM invoice WHERE workspace_id = 13 AND status = 'draft'));
SELECT count(*) > 0 AS billed FROM run_billing(now() + interval '2 hours');
SELECT company_name FROM purge_workspace(13);
SELECT DISTINCT company_name FROM invoice WHERE workspace_id = 13;

-- a line that was corrected downwards: the document is not credited beyond its total
SELECT plan_id AS cliff FROM create_price_plan(NULL, 'Cliff', 'CHF', 'volume', tiers => '[{"up_to":1,"unit_price":10},{"up_to":null,"unit_price":1}]', minimum_minor => 500) \gset
INSERT INTO workspace (company_name, slug, created_at, anchor_date, billing_from) VALUES ('W14', 'w14', '2026-01-01', '2026-01-01', '2026-01-01') RETURNING workspace_id;
INSERT INTO security_key (workspace_id, kind, serial, status) SELECT 14, 'smartphone', k, 'disabled' FROM generate_series(1, 6) k;
SELECT count(import_key_activity(14, key_id, '[2026-01-05, 2026-02-20)', 'history')) FROM security_key WHERE workspace_id = 14 AND serial = '1';
SELECT valid_from FROM assign_price_plan(14, :cliff, '2026-01-01');
SELECT period, action FROM run_billing('2026-02-02') WHERE workspace_id = 14;
SELECT count(import_key_activity(14, key_id, '[2026-01-05, 2026-01-20)', 'late')) FROM security_key WHERE workspace_id = 14 AND serial::int > 4;
SELECT period, action FROM run_billing('2026-03-02') WHERE workspace_id = 14;
SELECT invoice_id AS cut FROM invoice WHERE workspace_id = 14 AND period_label LIKE '2026-02%' \gset
SELECT line, type, quantity, amount_minor FROM invoice_line WHERE invoice_id = :cut ORDER BY line;
SELECT credit_invoice(:cut, '[{"line":1,"amount_minor":501}]', 'more than the total');
SELECT invoice_number IS NOT NULL AS numbered, total_minor FROM credit_invoice(:cut, '[{"line":1,"amount_minor":500}]', 'all of it');
SELECT credit_invoice(:cut, '[{"line":2,"amount_minor":1}]', 'a correction downwards');

-- an amount beyond bigint: the periods before it are billed, it and those after it wait until the plan is mended
SELECT plan_id AS beyond FROM create_price_plan(NULL, 'Beyond', 'CHF', 'per_unit', unit_price => 90000000000000000) \gset
INSERT INTO workspace (company_name, slug, created_at, anchor_date, billing_from) VALUES ('W15', 'w15', '2026-01-01', '2026-01-01', '2026-01-01') RETURNING workspace_id;
INSERT INTO security_key (workspace_id, kind, serial, status) SELECT 15, 'smartphone', k, 'disabled' FROM generate_series(1, 2) k;
SELECT count(import_key_activity(15, key_id, CASE serial WHEN '1' THEN tstzrange('2026-01-05', '2026-03-20') ELSE tstzrange('2026-02-05', '2026-02-20') END, 'history')) FROM security_key WHERE workspace_id = 15;
SELECT valid_from FROM assign_price_plan(15, :beyond, '2026-01-01');
SELECT period, action, replace(problem, 'plan ' || :beyond, 'plan of it') AS problem FROM run_billing('2026-04-02') WHERE workspace_id = 15;
SELECT period, action, replace(problem, 'plan ' || :beyond, 'plan of it') AS problem FROM run_billing('2026-04-02') WHERE workspace_id = 15;
SELECT label, closed_at IS NOT NULL AS closed, billed_at IS NOT NULL AS billed, status, total_minor
	FROM billing_period p LEFT JOIN invoice i USING (workspace_id, period_start) WHERE workspace_id = 15 AND p.period_end <= '2026-04-02' ORDER BY period_start;
SELECT version FROM revise_price_plan(:beyond, 'per_unit', unit_price => 1, in_force_from => '2026-02-01');
SELECT period, action, problem FROM run_billing('2026-04-02') WHERE workspace_id = 15;
SELECT i.period_label, i.status, i.total_minor FROM invoice i WHERE workspace_id = 15 ORDER BY period_start;
SELECT value FROM health() WHERE name = 'billing_failures';
-- facts that come in late and take a draft beyond it: what it said before is not made final
SELECT plan_id AS beyond FROM create_price_plan(NULL, 'Beyond', 'CHF', 'per_unit', unit_price => 90000000000000000) \gset
INSERT INTO workspace (company_name, slug, created_at, anchor_date, billing_from) VALUES ('W16', 'w16', '2026-01-01', '2026-01-01', '2026-01-01') RETURNING workspace_id;
INSERT INTO security_key (workspace_id, kind, serial, status) SELECT 16, 'smartphone', k, 'disabled' FROM generate_series(1, 2) k;
SELECT count(import_key_activity(16, key_id, '[2026-01-05, 2026-01-20)', 'history')) FROM security_key WHERE workspace_id = 16 AND serial = '1';
SELECT valid_from FROM assign_price_plan(16, :beyond, '2026-01-01');
SELECT action FROM run_billing('2026-02-01 00:30+00') WHERE workspace_id = 16;
SELECT count(import_key_activity(16, key_id, '[2026-01-05, 2026-01-20)', 'late')) FROM security_key WHERE workspace_id = 16 AND serial = '2';
SELECT action FROM run_billing('2026-02-02') WHERE workspace_id = 16;
SELECT status, total_minor FROM invoice WHERE workspace_id = 16;
-- who looks finds the way out, and the operator may go it: a draft is no bill yet
SELECT replace(regexp_replace(problem, '.* failed: ', ''), 'plan ' || :beyond, 'plan of it') AS problem FROM billing_health() WHERE workspace_id = 16 AND problem ~ 'failed';
SELECT finalize_invoice(invoice_id) FROM invoice WHERE workspace_id = 16;
SELECT plan_id AS within FROM create_price_plan(NULL, 'Within', 'CHF', 'per_unit', unit_price => 3) \gset
SELECT valid_from FROM assign_price_plan(16, :within, '2026-01-01');
SELECT count(*) FROM invoice WHERE workspace_id = 16;
SELECT action FROM run_billing('2026-02-02') WHERE workspace_id = 16;
SELECT status, plan_name, total_minor FROM invoice WHERE workspace_id = 16;
SELECT count(*) FROM billing_health() WHERE workspace_id = 16 AND problem ~ 'failed';
SELECT assign_price_plan(16, :beyond, '2026-01-01');
-- what not even one unit may cost is refused at once
\set VERBOSITY terse
SELECT create_price_plan(NULL, 'Too much', 'CHF', 'per_unit', unit_price => 92233720368547758.08);
SELECT create_price_plan(NULL, 'Too much', 'CHF', 'graduated', tiers => '[{"up_to":5,"unit_price":1},{"up_to":null,"unit_price":0,"flat":92233720368547758.08}]');
SELECT create_price_plan(NULL, 'Too much', 'BHD', 'flat', unit_price => 92233720368547758.07);
SELECT plan_id IS NOT NULL AS fits FROM create_price_plan(NULL, 'Just so', 'CHF', 'flat', unit_price => 92233720368547758.07);
SELECT plan_id IS NOT NULL AS fits FROM create_price_plan(NULL, 'Just so', 'JPY', 'flat', unit_price => 999999999999999999);
