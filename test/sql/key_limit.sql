\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept key_limit
\i :begin
SET search_path = partner_portal, public;
-- what the test looks at, without the times
CREATE VIEW keys AS SELECT workspace_id AS ws, key_id AS key, kind, status, disabled_reason AS reason FROM security_key ORDER BY 1, 2;
CREATE VIEW counted AS
	SELECT u.workspace_id AS ws, u.active_keys AS active, u.total_keys AS total, u.key_limit AS limit,
		(u.total_keys, u.active_keys, u.total_smartphones, u.active_smartphones, u.total_contactless_cards, u.active_contactless_cards)
		= (SELECT count(*), count(*) FILTER (WHERE status = 'active'),
			count(*) FILTER (WHERE kind = 'smartphone'), count(*) FILTER (WHERE kind = 'smartphone' AND status = 'active'),
			count(*) FILTER (WHERE kind = 'contactless_card'), count(*) FILTER (WHERE kind = 'contactless_card' AND status = 'active')
			FROM security_key k WHERE k.workspace_id = u.workspace_id) AS exact
	FROM workspace_usage u ORDER BY 1;
INSERT INTO workspace (company_name, slug, anchor_date, restrict_keys, key_limit) VALUES
	('Alpha', 'alpha', '2026-01-01', true, 3), ('Beta', 'beta', '2026-01-01', false, 3), ('Gamma', 'gamma', '2026-01-01', true, NULL);
SELECT * FROM counted;

-- the limit, and what it says
INSERT INTO security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'a1'), (1, 'smartphone', 'a2'), (1, 'contactless_card', 'a3');
\set VERBOSITY default
\set SHOW_CONTEXT never
INSERT INTO security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'a4'), (1, 'smartphone', 'a5');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY terse
INSERT INTO security_key (workspace_id, kind, serial, status) VALUES (1, 'smartphone', 'a4', 'disabled');
\set VERBOSITY default
UPDATE security_key SET status = 'active' WHERE serial = 'a4';
\set VERBOSITY terse
-- the switch off, or a limit that is not on, refuses nothing; 0 refuses everything
INSERT INTO security_key (workspace_id, kind, serial) SELECT 2, 'smartphone', 'b' || i FROM generate_series(1, 5) i;
INSERT INTO security_key (workspace_id, kind, serial) SELECT 3, 'smartphone', 'c' || i FROM generate_series(1, 5) i;
UPDATE workspace SET key_limit = 0 WHERE workspace_id = 3;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 'c6');
SELECT * FROM counted;

-- at the limit: a swap in one statement nets to nothing, whatever way it is written
UPDATE security_key SET status = CASE status WHEN 'active' THEN 'disabled' ELSE 'active' END WHERE workspace_id = 1 AND serial IN ('a1', 'a4');
MERGE INTO security_key k USING (VALUES ('a2'), ('a6')) v (serial) ON k.workspace_id = 1 AND k.serial = v.serial
	WHEN MATCHED THEN DELETE
	WHEN NOT MATCHED THEN INSERT (workspace_id, kind, serial) VALUES (1, 'smartphone', v.serial);
WITH gone AS (DELETE FROM security_key WHERE workspace_id = 1 AND serial = 'a3' RETURNING workspace_id)
	INSERT INTO security_key (workspace_id, kind, serial) SELECT workspace_id, 'contactless_card', 'a7' FROM gone;
WITH new AS (INSERT INTO security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'a8') RETURNING 1)
	DELETE FROM security_key WHERE workspace_id = 1 AND serial = 'a7' AND (SELECT count(*) FROM new) = 1;
-- but not beyond it
MERGE INTO security_key k USING (VALUES ('a4'), ('a9'), ('a10')) v (serial) ON k.workspace_id = 1 AND k.serial = v.serial
	WHEN MATCHED THEN DELETE
	WHEN NOT MATCHED THEN INSERT (workspace_id, kind, serial) VALUES (1, 'smartphone', v.serial);
\echo :LAST_ERROR_SQLSTATE
-- nor with ON CONFLICT, COPY, several statements or a savepoint
INSERT INTO security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'a1') ON CONFLICT (workspace_id, serial) DO UPDATE SET status = 'active';
INSERT INTO security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'a4'), (1, 'smartphone', 'a6') ON CONFLICT DO NOTHING;
COPY security_key (workspace_id, kind, serial) FROM STDIN;
1	smartphone	a11
\.
BEGIN;
DELETE FROM security_key WHERE workspace_id = 1 AND serial = 'a4';
SAVEPOINT s;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'a12');
SAVEPOINT t;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'a13');
ROLLBACK TO t;
ROLLBACK TO s;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'a14');
COMMIT;
SELECT * FROM counted WHERE ws = 1;
-- a trigger of the application within the statement does not get around it
CREATE FUNCTION twice() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO partner_portal.security_key (workspace_id, kind, serial)
	SELECT NEW.workspace_id, 'smartphone', NEW.serial || '+' WHERE NEW.serial !~ '\+'; RETURN NULL; END $$;
CREATE TRIGGER twice AFTER INSERT ON security_key FOR EACH ROW EXECUTE FUNCTION twice();
UPDATE workspace SET key_limit = 4 WHERE workspace_id = 1;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'a15');
UPDATE workspace SET key_limit = 5 WHERE workspace_id = 1;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'a15');
DROP TRIGGER twice ON security_key;
SELECT * FROM counted WHERE ws = 1;
-- prepared transactions keep the room that they took
BEGIN;
UPDATE security_key SET status = 'disabled' WHERE workspace_id = 1 AND serial = 'a15';
INSERT INTO security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'a16');
PREPARE TRANSACTION 'key_limit';
SELECT active FROM counted WHERE ws = 1;
COMMIT PREPARED 'key_limit';
SELECT * FROM counted WHERE ws = 1;

-- lowering the limit disables the newest, ties by key_id; raising it enables nothing
UPDATE security_key SET status = 'disabled' WHERE workspace_id = 1;
DELETE FROM security_key WHERE workspace_id = 1;
SET session_replication_role = replica;
INSERT INTO security_key (workspace_id, key_id, kind, serial, activated_at, created_at) VALUES
	(1, 101, 'smartphone', 't1', '2026-03-01', '2026-01-01'), (1, 102, 'smartphone', 't2', '2026-03-02', '2026-01-01'),
	(1, 103, 'contactless_card', 't3', '2026-03-02', '2026-01-01'), (1, 104, 'smartphone', 't4', '2026-03-02', '2026-01-01'),
	(1, 105, 'smartphone', 't5', '2026-02-01', '2026-01-01');
UPDATE workspace_usage SET (total_keys, active_keys, total_smartphones, active_smartphones, total_contactless_cards, active_contactless_cards)
	= (5, 5, 4, 4, 1, 1) WHERE workspace_id = 1;
RESET session_replication_role;
UPDATE workspace SET key_limit = 3 WHERE workspace_id = 1;
SELECT * FROM keys WHERE ws = 1;
UPDATE workspace SET key_limit = 5 WHERE workspace_id = 1;
SELECT * FROM counted WHERE ws = 1;
-- with the function: what was disabled by the limit comes back, the oldest first
UPDATE security_key SET status = 'disabled' WHERE key_id = 105;
SELECT key_id, status FROM set_usage_limit(1, 3, restore => true);
SELECT * FROM keys WHERE ws = 1;
SELECT key_id, status FROM set_usage_limit(1, NULL, restore => true);
SELECT restrict_keys, key_limit FROM workspace WHERE workspace_id = 1;
SELECT key_id, status, disabled_reason FROM set_usage_limit(1, 2, strategy => 'oldest');
\set VERBOSITY default
\set SHOW_CONTEXT never
SELECT key_id, status FROM set_usage_limit(1, 1, on_excess => 'reject');
\set VERBOSITY terse
\echo :LAST_ERROR_SQLSTATE
SELECT restrict_keys, key_limit FROM workspace WHERE workspace_id = 1;
SELECT key_id, status FROM set_usage_limit(1, 2, on_excess => 'reject');
-- bad arguments
\set VERBOSITY sqlstate
SELECT set_usage_limit(1, -1);
SELECT set_usage_limit(1, 1, 'sometimes');
SELECT set_usage_limit(1, 1, strategy => 'random');
\set VERBOSITY terse
SELECT disable_security_keys(1, strategy => 'x' || repeat('é', 40));
\set VERBOSITY sqlstate
SELECT set_usage_limit(1, 1, NULL);
SELECT disable_security_keys(1, -1);
SELECT disable_security_keys(1, 1, 'random');
SELECT disable_security_keys(1, 1, NULL);
SELECT enable_security_keys(1, NULL);
SELECT enable_security_keys(1, '{101,NULL}');
SELECT enable_security_keys(1, '{101,999}');
SELECT enable_security_keys(2, '{101}');
\set VERBOSITY terse
-- disabling: a number, more than there are, all
SELECT * FROM counted WHERE ws = 2;
SELECT key_id, serial, disabled_reason FROM disable_security_keys(2, 1);
SELECT key_id, serial, disabled_reason FROM disable_security_keys(2, 1, 'oldest');
SELECT count(*) FROM disable_security_keys(2, 0);
SELECT count(*) FROM disable_security_keys(2, 100);
SELECT count(*) FROM disable_security_keys(2);
-- enabling: all or none
SELECT set_usage_limit(2, 2);
SELECT count(*) FROM enable_security_keys(2, (SELECT array_agg(key_id) FROM security_key WHERE workspace_id = 2));
SELECT count(*) FROM (SELECT key_id FROM security_key WHERE workspace_id = 2 AND serial IN ('b1', 'b2') ORDER BY 1) k, enable_security_keys(2, ARRAY[k.key_id]);
SELECT * FROM counted WHERE ws = 2;

-- soft: passes, and goes beyond; hard again: the surplus goes
UPDATE workspace SET limit_mode = 'soft' WHERE workspace_id = 2;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'b6'), (2, 'smartphone', 'b7');
SELECT count(*) FROM set_usage_limit(2, 1, 'reject');
SELECT * FROM counted WHERE ws = 2;
UPDATE workspace SET limit_mode = 'hard' WHERE workspace_id = 2;
SELECT * FROM keys WHERE ws = 2;
-- switching the restriction on does it too
UPDATE workspace SET restrict_keys = false WHERE workspace_id = 2;
SELECT count(*) FROM (SELECT key_id FROM security_key WHERE workspace_id = 2 ORDER BY 1) k, enable_security_keys(2, ARRAY[k.key_id]);
UPDATE workspace SET restrict_keys = true, key_limit = 4 WHERE workspace_id = 2;
SELECT * FROM keys WHERE ws = 2;
SELECT * FROM counted WHERE ws = 2;

-- suspended and deleted workspaces activate nothing; resuming is up to the limit, and the rest is the limit's
UPDATE workspace SET suspended_at = now() WHERE workspace_id = 2;
SELECT cardinality(disable_keys_as(2, 'suspended'));
UPDATE security_key SET status = 'active' WHERE workspace_id = 2 AND serial = 'b1';
\echo :LAST_ERROR_SQLSTATE
INSERT INTO security_key (workspace_id, kind, serial, status) VALUES (2, 'smartphone', 'b8', 'disabled');
UPDATE workspace SET suspended_at = NULL, key_limit = 3 WHERE workspace_id = 2;
SELECT cardinality(resume_keys(2, 'suspended'));
SELECT * FROM keys WHERE ws = 2;
UPDATE workspace SET deleted_at = now() WHERE workspace_id = 2;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'b9');
\echo :LAST_ERROR_SQLSTATE
UPDATE workspace SET deleted_at = NULL WHERE workspace_id = 2;

-- alerts: 80 and 100 percent, once each, also when soft, and not for what was rolled back
SELECT workspace_id, threshold, active_keys, key_limit FROM limit_alert ORDER BY 1, raised_at, 2;
INSERT INTO workspace (company_name, slug, anchor_date, restrict_keys, key_limit, limit_mode) VALUES ('Delta', 'delta', '2026-01-01', true, 5, 'soft');
INSERT INTO security_key (workspace_id, kind, serial) SELECT 4, 'smartphone', 'd' || i FROM generate_series(1, 3) i;
SELECT count(*) FROM limit_alert WHERE workspace_id = 4;
BEGIN;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (4, 'smartphone', 'd4');
ROLLBACK;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (4, 'smartphone', 'd4');
SELECT threshold, active_keys, key_limit, period_start = lower(billing_period_at(4)) AS this_period FROM limit_alert WHERE workspace_id = 4 ORDER BY 1;
DELETE FROM security_key WHERE serial = 'd4';
INSERT INTO security_key (workspace_id, kind, serial) SELECT 4, 'smartphone', 'd' || i FROM generate_series(4, 7) i;
SELECT threshold, active_keys FROM limit_alert WHERE workspace_id = 4 ORDER BY 1;
SELECT alerted_percent, alerted_until = upper(billing_period_at(4)) AS this_period FROM workspace_usage WHERE workspace_id = 4;

-- a workspace keeps an owner
INSERT INTO account (email) VALUES ('one@example.com'), ('two@example.com'), ('three@example.com');
INSERT INTO member (workspace_id, account_id, partner_key, role, accepted_at) VALUES (4, 1, 0, 'owner', now()), (4, 2, 0, 'owner', NULL), (4, 3, 0, 'guest', now());
SELECT owners FROM workspace_usage WHERE workspace_id = 4;
DELETE FROM member WHERE workspace_id = 4 AND account_id = 1;
\echo :LAST_ERROR_SQLSTATE
UPDATE member SET role = 'member' WHERE workspace_id = 4 AND account_id = 1;
UPDATE member SET role = CASE account_id WHEN 1 THEN 'member' ELSE 'owner' END WHERE workspace_id = 4 AND account_id IN (1, 3);
SELECT owners FROM workspace_usage WHERE workspace_id = 4;
UPDATE member SET accepted_at = now() WHERE workspace_id = 4 AND account_id = 2;
SELECT owners FROM workspace_usage WHERE workspace_id = 4;
DELETE FROM member WHERE workspace_id = 4 AND role = 'owner';
SET client_min_messages = warning;
TRUNCATE member CASCADE;
RESET client_min_messages;
-- but for one that is deleted
UPDATE workspace SET deleted_at = now() WHERE workspace_id = 4;
DELETE FROM member WHERE workspace_id = 4;
SELECT owners FROM workspace_usage WHERE workspace_id = 4;

-- a session that restores counts, and refuses nothing
SET partner_portal.restoring = on;
INSERT INTO workspace (company_name, slug, anchor_date, restrict_keys, key_limit) VALUES ('Epsilon', 'epsilon', '2026-01-01', true, 1);
INSERT INTO security_key (workspace_id, key_id, kind, serial, status, disabled_reason, activated_at, disabled_at, created_at, partner_key) VALUES
	(5, 201, 'smartphone', 'e1', 'active', NULL, '2026-02-01', NULL, '2026-01-01', 0),
	(5, 202, 'smartphone', 'e2', 'active', NULL, '2026-02-02', NULL, '2026-01-01', 0),
	(5, 203, 'smartphone', 'e3', 'disabled', 'partner', '2026-02-02', '2026-02-03', '2026-01-01', 0);
RESET partner_portal.restoring;
SELECT * FROM counted WHERE ws = 5;
SELECT key_id, status, disabled_reason, activated_at, disabled_at FROM security_key WHERE workspace_id = 5 ORDER BY 1;
SELECT count(*) FROM limit_alert WHERE workspace_id = 5;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (5, 'smartphone', 'e4');
UPDATE security_key SET status = 'disabled' WHERE workspace_id = 5 AND serial IN ('e1', 'e2');
SELECT key_id, active_from FROM key_history WHERE workspace_id = 5 ORDER BY 1;

-- a workspace that has come without counters says so
SET session_replication_role = replica;
INSERT INTO workspace (company_name, slug, anchor_date) VALUES ('Zeta', 'zeta', '2026-01-01');
RESET session_replication_role;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (6, 'smartphone', 'z1');
\echo :LAST_ERROR_SQLSTATE

-- every counter of every workspace
SELECT bool_and(exact) FROM counted;
-- deleting a workspace for good takes its counters along, keys first
DELETE FROM security_key WHERE workspace_id = 3;
SELECT * FROM counted WHERE ws = 3;

-- many workspaces at their limits: one statement swaps a key in each of them; if it adds one too many in one, it is refused
INSERT INTO workspace (company_name, slug, anchor_date, restrict_keys, key_limit)
	SELECT 'Many ' || i, 'many-' || i, '2026-01-01', true, 1 FROM generate_series(1, 60) i;
INSERT INTO security_key (workspace_id, kind, serial) SELECT workspace_id, 'smartphone', 'm1' FROM workspace WHERE slug LIKE 'many-%';
SELECT count(*), count(DISTINCT workspace_id) FROM limit_alert a JOIN workspace w USING (workspace_id) WHERE w.slug LIKE 'many-%' AND threshold = 100;
WITH gone AS (DELETE FROM security_key WHERE serial = 'm1' RETURNING workspace_id)
	INSERT INTO security_key (workspace_id, kind, serial) SELECT workspace_id, 'smartphone', 'm2' FROM gone ORDER BY workspace_id % 7, workspace_id;
WITH gone AS (DELETE FROM security_key WHERE serial = 'm2' RETURNING workspace_id)
	INSERT INTO security_key (workspace_id, kind, serial) SELECT workspace_id, 'smartphone', 'm3' FROM gone
	UNION ALL SELECT workspace_id, 'smartphone', 'm4' FROM workspace WHERE slug = 'many-59';
\echo :LAST_ERROR_SQLSTATE
SELECT count(*), bool_and(exact AND active = 1) FROM counted JOIN workspace ON workspace_id = ws WHERE slug LIKE 'many-%';

-- indexes that somebody has added, of another kind, on an expression or with a condition, get the entries that are theirs; a version
-- that stays on its page gets none in the others
CREATE INDEX ON workspace_usage USING brin (active_keys);
CREATE INDEX ON key_history USING brin (active_from);
CREATE INDEX ON activity USING brin (at);
UPDATE security_key SET status = 'disabled' WHERE serial = 'm2';
UPDATE security_key SET status = 'active' WHERE serial = 'm2';
CREATE INDEX ON workspace_usage ((total_keys - active_keys)) WHERE active_keys > 0;
UPDATE security_key SET status = 'disabled' WHERE serial = 'm2';
UPDATE security_key SET status = 'active' WHERE serial = 'm2';
CREATE EXTENSION amcheck SCHEMA public;
SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam AND a.amname = 'btree',
	LATERAL public.bt_index_check(c.oid, true) b WHERE i.indrelid IN ('workspace_usage'::regclass, 'key_history'::regclass, 'activity'::regclass);
SELECT count(*), bool_and(exact AND active = 1) FROM counted JOIN workspace ON workspace_id = ws WHERE slug LIKE 'many-%';
-- what adds may come before what takes away: on balance this activates nothing, so no alert is due but where it adds one more
INSERT INTO workspace (company_name, slug, anchor_date, restrict_keys, key_limit)
	SELECT 'Quiet ' || i, 'quiet-' || i, '2026-01-01', true, 3 FROM generate_series(1, 40) i;
INSERT INTO security_key (workspace_id, kind, serial) SELECT workspace_id, 'smartphone', 'q1' FROM workspace WHERE slug LIKE 'quiet-%';
UPDATE workspace SET key_limit = CASE slug WHEN 'quiet-33' THEN 2 ELSE 1 END WHERE slug LIKE 'quiet-%';
WITH new AS (
	INSERT INTO security_key (workspace_id, kind, serial)
		SELECT workspace_id, 'smartphone', serial FROM workspace, unnest('{q2,q3}'::text[]) serial
		WHERE slug LIKE 'quiet-%' AND (serial = 'q2' OR slug = 'quiet-33')
	RETURNING workspace_id)
	DELETE FROM security_key k USING (SELECT DISTINCT workspace_id FROM new) n WHERE k.workspace_id = n.workspace_id AND k.serial = 'q1';
SELECT w.slug, a.threshold, a.active_keys FROM limit_alert a JOIN workspace w USING (workspace_id) WHERE w.slug LIKE 'quiet-%' ORDER BY a.threshold;
SELECT count(*), bool_and(exact) FROM counted JOIN workspace ON workspace_id = ws WHERE slug LIKE 'quiet-%';
