\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept verify
\i :begin
\set QUIET on
SET search_path = partner_portal, public;
SET client_min_messages = warning;
SELECT create_workspace('Reseller AG', 'boss@reseller.example', 'reseller', anchor_date => '2026-01-01') \g /dev/null
SELECT promote_to_partner(1) \g /dev/null
INSERT INTO workspace (company_name, slug, partner_id, created_at, anchor_date, billing_from, restrict_keys, key_limit)
	VALUES ('Acme', 'acme', 1, '2026-01-01', '2026-01-01', '2026-01-01', true, 3), ('Other', 'other', NULL, '2026-01-01', '2026-01-01', '2026-01-01', false, NULL);
SELECT add_member(2, 'anna@acme.example', 'owner'), add_member(3, 'otto@other.example', 'owner') \g /dev/null
INSERT INTO security_key (workspace_id, kind, serial) SELECT w, k, w || k FROM unnest('{2,3}'::bigint[]) w, unnest('{smartphone,contactless_card}'::text[]) k;
INSERT INTO security_key (workspace_id, kind, serial, status) VALUES (2, 'smartphone', 'spare', 'disabled');
UPDATE security_key SET status = 'disabled' WHERE key_id = 2;
SELECT import_key_activity(2, 1, '[2026-01-05, 2026-02-10)', 'moved in') \g /dev/null
SELECT create_price_plan(1, 'Standard', 'CHF', 'per_unit', unit_price => 5), assign_price_plan(2, 1, '2026-01-01') \g /dev/null
SELECT count(*) FROM run_billing('2026-04-01 02:00+00') \g /dev/null
SELECT credit_invoice(1, '[{"line":1,"amount_minor":200}]', 'goodwill') \g /dev/null

-- verify() without times, which are not the same twice; repair() and what is left then
CREATE FUNCTION found(in_workspace bigint DEFAULT NULL) RETURNS TABLE (workspace bigint, check_name text, problem text) LANGUAGE sql AS $$
	SELECT v.workspace_id, v.check_name, regexp_replace(v.problem, '[0-9]{4}-[0-9-]+ [0-9:.]+\+00', 'TIME', 'g') FROM verify(in_workspace) v
$$;
SET datestyle = ISO;
\set ECHO all
-- nothing is wrong, and nothing is mended
SELECT * FROM found();
SELECT repair();

-- counters: rows that came and went without triggers
BEGIN;
SET LOCAL session_replication_role = replica;
INSERT INTO security_key (workspace_id, key_id, partner_key, kind, serial, activated_at) VALUES (2, 4, 1, 'smartphone', 'unseen', '2026-04-01 12:00+00');
DELETE FROM security_key WHERE key_id = 3;
SET LOCAL session_replication_role = origin;
SELECT * FROM found();
SELECT * FROM found(2);
-- one workspace alone
SELECT repair(3);
SELECT * FROM found();
SELECT repair();
SELECT * FROM found();
-- and it counts on from there
INSERT INTO security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'seen');
SELECT workspace_id, total_keys, active_keys, active_smartphones, active_contactless_cards FROM workspace_usage WHERE workspace_id = 2;
SAVEPOINT s;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'too many');
ROLLBACK TO s;
ROLLBACK;
-- the same by a trigger that was disabled
BEGIN;
ALTER TABLE security_key DISABLE TRIGGER count_update;
UPDATE security_key SET status = 'disabled' WHERE key_id = 1;
ALTER TABLE security_key ENABLE TRIGGER count_update;
SELECT * FROM found();
SELECT repair(2);
SELECT * FROM found();
SELECT key_id, kind, active_until = disabled_at AS ends_with_it, recorded_at = active_from AS known_from_its_start
	FROM key_history h JOIN security_key k USING (workspace_id, key_id, kind) WHERE key_id = 1 AND active_from > '2026-04-01';
ROLLBACK;
-- a row of counters is gone
BEGIN;
SET LOCAL session_replication_role = replica;
DELETE FROM workspace_usage WHERE workspace_id = 2;
SET LOCAL session_replication_role = origin;
SELECT * FROM found();
SELECT repair();
SELECT * FROM found();
ROLLBACK;
-- instants kept beside them
BEGIN;
UPDATE workspace_usage SET closed_until = '-infinity', last_disabled_at = '-infinity' WHERE workspace_id = 2;
SELECT * FROM found();
SELECT repair();
SELECT * FROM found();
ROLLBACK;

-- owners
BEGIN;
SET LOCAL session_replication_role = replica;
UPDATE member SET role = 'member' WHERE workspace_id = 2;
SET LOCAL session_replication_role = origin;
SELECT * FROM found();
SELECT repair();
SELECT * FROM found();
ROLLBACK;

-- limit: its copy, and what is beyond it
BEGIN;
ALTER TABLE workspace DISABLE TRIGGER limit_update;
UPDATE workspace SET key_limit = 1, limit_mode = 'soft' WHERE workspace_id = 2;
UPDATE workspace SET suspended_at = now() WHERE workspace_id = 3;
ALTER TABLE workspace ENABLE TRIGGER limit_update;
SELECT * FROM found();
SELECT repair();
SELECT * FROM found();
ROLLBACK;
BEGIN;
UPDATE security_key SET status = 'active' WHERE key_id = 2;
ALTER TABLE workspace DISABLE TRIGGER limit_update;
UPDATE workspace SET key_limit = 1 WHERE workspace_id = 2;
ALTER TABLE workspace ENABLE TRIGGER limit_update;
SELECT repair();
SELECT * FROM found();
-- a person decides: setting the limit disables the surplus
SELECT key_id, disabled_reason FROM set_usage_limit(2, 1);
SELECT * FROM found();
ROLLBACK;

-- stretches
BEGIN;
INSERT INTO key_history (workspace_id, key_id, active_from, active_until, kind, recorded_at, partner_key) VALUES
	(2, 1, '2026-02-09', '2026-02-20', 'smartphone', '2026-02-09', 1), (3, 4, '2026-02-09', '2099-01-01', 'contactless_card', '2026-02-09', 0),
	(3, 3, '2026-02-09', '2026-02-10', 'contactless_card', '2026-02-09', 0);
SELECT DISTINCT * FROM found() WHERE check_name <> 'periods' ORDER BY 1, 2, 3;
-- which of two is right it cannot know
SELECT repair() > 0 AS mended;
SELECT DISTINCT * FROM found() ORDER BY 1, 2, 3;
ROLLBACK;

-- periods: the chain
BEGIN;
ALTER TABLE billing_period DROP CONSTRAINT billing_period_no_hole, DROP CONSTRAINT billing_period_previous;
UPDATE billing_period SET previous_end = previous_end + interval '1 hour' WHERE workspace_id = 2 AND period_start = '2026-04-01';
UPDATE billing_period SET period_start = period_start + interval '1 hour' WHERE workspace_id = 3 AND period_start = '2026-04-01';
SELECT workspace_id, check_name, problem FROM verify();
ROLLBACK;
BEGIN;
SET LOCAL session_replication_role = replica;
DELETE FROM billing_period WHERE workspace_id = 3 AND period_start = '2026-01-01';
DELETE FROM usage_period WHERE workspace_id = 3 AND period_start = '2026-01-01';
SET LOCAL session_replication_role = origin;
SELECT workspace_id, check_name, problem FROM verify();
ROLLBACK;
-- and the usage of closed ones
BEGIN;
UPDATE usage_period SET distinct_keys = 7, key_days = 1 WHERE workspace_id = 2 AND period_start = '2026-02-01' AND kind = 'total';
DELETE FROM usage_period WHERE workspace_id = 2 AND period_start = '2026-01-01';
SELECT workspace_id, check_name, problem FROM verify();
SELECT repair();
SELECT * FROM found();
SELECT kind, distinct_keys, key_days FROM usage_period WHERE workspace_id = 2 AND period_start IN ('2026-01-01', '2026-02-01') ORDER BY period_start, kind;
ROLLBACK;
-- what came late is no fault of what was closed before
BEGIN;
SELECT import_key_activity(2, 5, '[2026-02-05, 2026-02-20)', 'late');
SELECT * FROM found();
SELECT repair();
ROLLBACK;

-- invoices
BEGIN;
SET LOCAL session_replication_role = replica;
UPDATE invoice_line SET amount_minor = amount_minor - 1 WHERE invoice_id = 2;
UPDATE invoice_line SET amount_minor = 501 WHERE type = 'credit';
UPDATE invoice_series SET last_number = last_number + 1 WHERE document = 'invoice';
SET LOCAL session_replication_role = origin;
SELECT * FROM found();
SELECT repair();
SELECT count(*) FROM found();
ROLLBACK;

-- finished documents against the log, and lines of it that tell nothing
SELECT details - 'digest' AS details, length(details ->> 'digest') FROM activity WHERE description = 'document finalized' ORDER BY workspace_id, activity_id;
BEGIN;
SELECT count(mark_paid(1)), count(void_invoice(2, 'mistake'));
SET LOCAL timezone = 'Pacific/Auckland';
SELECT * FROM found();
RESET timezone;
SET LOCAL session_replication_role = replica;
UPDATE invoice_line SET amount_minor = amount_minor + 1 WHERE invoice_id = 1 AND line = 1;
UPDATE invoice SET subtotal_minor = subtotal_minor + 1, total_minor = total_minor + 1 WHERE invoice_id = 1;
UPDATE invoice SET payer_name = 'Somebody else' WHERE document = 'credit_note';
SET LOCAL session_replication_role = origin;
SELECT * FROM found();
SELECT * FROM found(3);
ROLLBACK;
BEGIN;
SET LOCAL session_replication_role = replica;
DELETE FROM invoice_line WHERE invoice_id = 2;
DELETE FROM invoice WHERE invoice_id = 2;
SET LOCAL session_replication_role = origin;
SELECT * FROM found() WHERE check_name = 'invoice digest';
ROLLBACK;
BEGIN;
SELECT workspace_id FROM delete_workspace(2);
SELECT count(*) > 0 AS billed FROM run_billing('2099-01-01');
SELECT purged_at IS NOT NULL AS purged FROM purge_workspace(2);
SELECT * FROM found(2);
ROLLBACK;
BEGIN;
SET LOCAL session_replication_role = replica;
UPDATE activity SET details = details - 'digest' WHERE action = 'finalize_invoice';
UPDATE invoice SET payer_name = 'Somebody else';
SET LOCAL session_replication_role = origin;
SELECT DISTINCT check_name FROM found();
ROLLBACK;

-- periods that were closed ahead of the clock: from then on stamps are ahead of it too, and closing knows of them
BEGIN;
SELECT count(*) > 0 AS closed FROM run_billing(now() + interval '1 month');
INSERT INTO security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'ahead'), (3, 'smartphone', 'ahead'), (3, 'smartphone', 'gone');
UPDATE security_key SET status = 'disabled' WHERE workspace_id = 3 AND serial = '3smartphone';
SELECT bool_and(activated_at > now() + interval '1 day') AS ahead FROM security_key WHERE serial = 'ahead';
SELECT count(*) > 0 AS closed FROM run_billing(now() + interval '3 months');
UPDATE security_key SET status = 'disabled' WHERE serial = 'ahead';
DELETE FROM security_key WHERE serial = 'gone';
SELECT count(*) > 0 AS closed FROM run_billing(now() + interval '4 months');
SELECT * FROM found();
SELECT bool_and(l.quantity = (SELECT count(DISTINCT e.key_id) FROM explain_invoice(l.invoice_id) e WHERE e.what = 'stretch' AND e.line = l.line)) AS explained
	FROM invoice_line l JOIN invoice i USING (workspace_id, invoice_id) WHERE l.type = 'usage' AND i.status = 'final' AND i.period_start > now();
-- a fact that came late, though before the last period that is closed ends, is still none of what was closed
SELECT import_key_activity(3, (SELECT key_id FROM security_key WHERE workspace_id = 3 AND serial = 'ahead'), '[2026-02-15, 2026-02-20)', 'late');
SELECT * FROM found();
-- and one that came some other way is found
SET LOCAL session_replication_role = replica;
INSERT INTO key_history (workspace_id, key_id, active_from, active_until, kind, recorded_at, partner_key)
	SELECT 3, 999, p.period_start + interval '1 hour', p.period_start + interval '2 hours', 'smartphone', p.period_start + interval '1 hour', 0
	FROM billing_period p WHERE p.workspace_id = 3 AND p.closed_at IS NOT NULL ORDER BY p.period_start DESC LIMIT 1;
SET LOCAL session_replication_role = origin;
SELECT * FROM found();
ROLLBACK;

-- deliveries: the queue against what is pending, and destinations against endpoints
BEGIN;
INSERT INTO webhook_endpoint (workspace_id, partner_key, url, events, key_version) VALUES (2, 1, 'https://acme.example/', '{*}', 1), (3, 0, 'https://other.example/', '{*}', 1);
INSERT INTO delivery_destination (destination) SELECT endpoint_id FROM webhook_endpoint;
UPDATE notification SET state = 'cancelled', finished_at = now(), next_attempt_at = NULL WHERE state = 'pending';
DELETE FROM delivery_queue;
SELECT count(enqueue_webhook_event(w, 'test', '{}', 'test')) FROM unnest('{2,3}'::bigint[]) w;
SELECT enqueue_mail(NULL, 'test', 'test', 'ops@platform.example', 'en', ROW('s', 't', NULL)::mail_content) IS NOT NULL AS owed;
SELECT * FROM found();
DELETE FROM delivery_queue WHERE workspace_id = 0;
UPDATE delivery_queue SET destination = 0 WHERE workspace_id = 2;
UPDATE notification SET state = 'delivered', finished_at = now(), next_attempt_at = NULL WHERE workspace_id = 3 AND state = 'pending';
UPDATE webhook_endpoint SET state = 'paused' WHERE workspace_id = 2;
DELETE FROM delivery_destination WHERE destination IN (0, (SELECT endpoint_id FROM webhook_endpoint WHERE workspace_id = 3));
SELECT workspace, check_name, regexp_replace(problem, 'message [0-9]+', 'message of it') AS problem FROM found();
SELECT workspace, check_name, regexp_replace(problem, 'message [0-9]+', 'message of it') AS problem FROM found(3);
SELECT repair(3);
SELECT repair();
SELECT * FROM found();
SELECT workspace_id, destination FROM delivery_queue ORDER BY 1;
SELECT workspace_id, paused, max_in_flight FROM delivery_destination LEFT JOIN webhook_endpoint ON endpoint_id = destination ORDER BY 1 NULLS FIRST;
ROLLBACK;

-- references: what a load without triggers does not check; partner_key is made to follow
BEGIN;
SET LOCAL session_replication_role = replica;
UPDATE workspace SET partner_id = NULL WHERE workspace_id = 2;
DELETE FROM account WHERE email = 'otto@other.example';
SET LOCAL session_replication_role = origin;
SELECT * FROM found();
SELECT repair();
SELECT * FROM found();
SELECT workspace_id, partner_key FROM workspace_usage WHERE workspace_id = 2;
ROLLBACK;

-- the operator's alone, and only of what is there
\set ECHO none
\set as :abs_srcdir '/sql/as.sql'
\i :as
SELECT run_as(1, :app, 'SELECT count(*) FROM partner_portal.verify()');
SELECT run_as(NULL, :ops, 'SELECT count(*) FROM partner_portal.verify()');
SELECT run_as(NULL, :ops, 'SELECT partner_portal.repair()');
SELECT run_as(NULL, NULL, 'SELECT partner_portal.repair(77)');
SELECT run_as(NULL, NULL, 'SELECT count(*) FROM partner_portal.verify(77)');
