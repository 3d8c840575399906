-- sizes.sql: what the extension stores per key, activation, line and period, and the WAL that it writes, as a table for
-- doc/operating.md. In a database of its own, on a server that does nothing else:
--
--   createdb sizes && psql -X -q -d sizes -v keys=1000000 -v workspaces=10000 -f test/bench/sizes.sql
--
-- Sizes are pg_total_relation_size() and its parts, after VACUUM; WAL is the distance of pg_current_wal_insert_lsn(), after
-- a checkpoint, so with full pages.

\set ON_ERROR_STOP on
\pset footer off
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION partner_portal;
CREATE SCHEMA sizes;
CREATE TABLE sizes.wal (place serial, what text, things bigint, bytes numeric);
CREATE TABLE sizes.stored (relation regclass, what text, things bigint, total bigint, indexes bigint);
CREATE PROCEDURE sizes.take(relation regclass, what text) LANGUAGE plpgsql AS $$
DECLARE
	things bigint;
BEGIN
	EXECUTE format('SELECT count(*) FROM %s', relation) INTO things;
	INSERT INTO sizes.stored VALUES (relation, what, things, pg_total_relation_size(relation), pg_indexes_size(relation));
END
$$;
CREATE PROCEDURE sizes.measure(what text, things bigint, VARIADIC statements text[]) LANGUAGE plpgsql AS $$
DECLARE
	start pg_lsn;
	statement text;
BEGIN
	EXECUTE 'CHECKPOINT';
	start := pg_current_wal_insert_lsn();
	FOREACH statement IN ARRAY statements LOOP
		EXECUTE statement;
	END LOOP;
	COMMIT;
	INSERT INTO sizes.wal (what, things, bytes) VALUES (measure.what, measure.things, pg_current_wal_insert_lsn() - start);
	COMMIT;
END
$$;

INSERT INTO partner_portal.account (email) VALUES ('partner@sizes.example'), ('owner@sizes.example');
INSERT INTO partner_portal.workspace (kind, company_name, slug, anchor_date, created_at, billing_from)
VALUES ('partner', 'Partner', 'partner', '2025-01-01', '2025-01-10', '2025-01-01');
INSERT INTO partner_portal.partner (partner_id, registration_code) VALUES (1, 'the code of the partner');
CALL sizes.measure('a workspace', :workspaces, format($$INSERT INTO partner_portal.workspace (partner_id, company_name, slug, anchor_date, created_at, billing_from, restrict_keys, key_limit)
	SELECT 1, 'Company number ' || n, 'company-' || n, '2025-01-01', '2025-01-10', '2025-01-01', true, 1000000 FROM generate_series(1, %s) n$$, :workspaces));
INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at)
SELECT w.workspace_id, CASE w.workspace_id WHEN 1 THEN 1 ELSE 2 END, w.partner_key, 'owner', now() FROM partner_portal.workspace w;

CALL sizes.measure('a key that is active from the beginning, loaded', :keys, format($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial)
	SELECT 2 + n %% %s, CASE WHEN n %% 3 = 0 THEN 'contactless_card' ELSE 'smartphone' END, 'SN-' || lpad(n::text, 9, '0') FROM generate_series(1, %s) n$$, :workspaces, :keys));
VACUUM ANALYZE partner_portal.security_key;
VACUUM ANALYZE partner_portal.activity;
CALL sizes.take('partner_portal.security_key', 'key');
CALL sizes.take('partner_portal.workspace', 'workspace');
CALL sizes.take('partner_portal.workspace_usage', 'workspace');
CALL sizes.take('partner_portal.activity', 'line of the log');

CALL sizes.measure('a key switched off, a tenth of all in one statement', :keys / 10, $$UPDATE partner_portal.security_key SET status = 'disabled' WHERE key_id % 10 = 0$$);
CALL sizes.measure('and on again', :keys / 10, $$UPDATE partner_portal.security_key SET status = 'active' WHERE key_id % 10 = 0$$);
CREATE PROCEDURE sizes.one_by_one(status text) LANGUAGE plpgsql AS $$
DECLARE
	id bigint;
BEGIN
	FOR id IN SELECT key_id FROM partner_portal.security_key WHERE key_id % 97 = 0 AND key_id % 10 <> 0 LIMIT 5000 LOOP
		UPDATE partner_portal.security_key k SET status = one_by_one.status WHERE k.key_id = id;
		COMMIT;
	END LOOP;
END
$$;
CHECKPOINT;
SELECT pg_current_wal_insert_lsn() AS start \gset
CALL sizes.one_by_one('disabled');
SELECT pg_current_wal_insert_lsn() AS half \gset
CALL sizes.one_by_one('active');
INSERT INTO sizes.wal (what, things, bytes) VALUES
	('a key switched off, in a transaction of its own', 5000, :'half'::pg_lsn - :'start'::pg_lsn),
	('and on again', 5000, pg_current_wal_insert_lsn() - :'half'::pg_lsn);
VACUUM ANALYZE partner_portal.key_history;
CALL sizes.take('partner_portal.key_history', 'stretch that ended');

-- three months are closed, the last of them billed
SELECT plan_id AS plan FROM partner_portal.create_price_plan(1, 'Keys', 'EUR', 'per_unit', unit_price => 4) \gset
UPDATE partner_portal.workspace SET billing_from = '2025-03-01' WHERE workspace_id > 1;
INSERT INTO partner_portal.key_history (workspace_id, key_id, active_from, active_until, kind, recorded_at, partner_key)
SELECT workspace_id, key_id, '2025-01-15', '2025-03-20', kind, now(), partner_key FROM partner_portal.security_key WHERE key_id % 10 = 1;
INSERT INTO partner_portal.plan_assignment (workspace_id, family_id, partner_key, valid_from)
SELECT workspace_id, :plan, 1, '2025-02-01' FROM partner_portal.workspace WHERE workspace_id > 1;
CALL sizes.measure('a period closed, a third of them with a document', 3 * :workspaces, $$SELECT count(*) FROM partner_portal.run_billing('2025-04-02')$$);
VACUUM ANALYZE;
CALL sizes.take('partner_portal.billing_period', 'workspace and period');
CALL sizes.take('partner_portal.usage_period', 'workspace, period and kind, and in total');
CALL sizes.take('partner_portal.invoice', 'document');
CALL sizes.take('partner_portal.invoice_line', 'line of a document');

\pset format unaligned
\pset tuples_only on
\echo '| table | a row for each | rows | bytes a row | of it indexes | total |'
\echo '|---|---|---|---|---|---|'
SELECT format('| `%s` | %s | %s | %s | %s | %s |', relname, what, to_char(things, 'FM999,999,999'), round(total::numeric / nullif(things, 0)),
	round(indexes::numeric / nullif(things, 0)), pg_size_pretty(total))
FROM sizes.stored JOIN pg_class c ON c.oid = relation ORDER BY total DESC;
\echo
\echo '| what | how many | bytes of WAL each |'
\echo '|---|---|---|'
SELECT format('| %s | %s | %s |', what, to_char(things, 'FM999,999,999'), round(bytes / things)) FROM sizes.wal ORDER BY place;
