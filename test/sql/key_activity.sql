\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept key_activity
\i :begin
SET search_path = partner_portal, public;
INSERT INTO workspace (company_name, slug, anchor_date) VALUES ('Alpha', 'alpha', '2026-01-01'), ('Beta', 'beta', '2026-01-01');
INSERT INTO account (email) VALUES ('one@example.com'), ('two@example.com'), ('three@example.com');
INSERT INTO member (workspace_id, account_id, partner_key, role, accepted_at) VALUES (1, 1, 0, 'owner', now()), (1, 2, 0, 'member', now()), (1, 3, 0, 'member', now());
-- every stretch, numbered per key: whether it runs, whether it joins the one before
CREATE VIEW stretches AS
	SELECT workspace_id AS ws, key_id AS key, row_number() OVER w AS n, kind, account_id AS holder, upper_inf(active) AS runs,
		lower(active) - lag(upper(active)) OVER w AS gap, recorded_at = lower(active) AS recorded
	FROM key_activity WINDOW w AS (PARTITION BY workspace_id, key_id ORDER BY active) ORDER BY 1, 2, 3;
INSERT INTO security_key (workspace_id, kind, serial, account_id) VALUES (1, 'smartphone', 's1', 1), (1, 'contactless_card', 's2', NULL);
INSERT INTO security_key (workspace_id, kind, serial, status) VALUES (1, 'smartphone', 's3', 'disabled');
SELECT ws, key, n, kind, holder, runs, recorded FROM stretches;
-- disabled and active again: two stretches; a label is none
UPDATE security_key SET label = 'x', status = status WHERE workspace_id = 1;
UPDATE security_key SET status = 'disabled' WHERE serial = 's1';
UPDATE security_key SET status = 'revoked' WHERE serial = 's2';
UPDATE security_key SET label = 'y' WHERE workspace_id = 1;
SELECT ws, key, n, kind, holder, runs, recorded FROM stretches;
UPDATE security_key SET status = 'active' WHERE serial = 's1';
SELECT ws, key, n, kind, holder, runs, gap > interval '0' AS later, recorded FROM stretches WHERE key = 1;
-- the row and the facts have one time
SELECT k.activated_at = lower(a.active) AS same FROM security_key k JOIN key_activity a USING (workspace_id, key_id) WHERE key_id = 1 AND upper_inf(a.active);
-- a change of holder joins; the same holder again is none; a removed holder is a change
UPDATE security_key SET account_id = 2 WHERE serial = 's1';
UPDATE security_key SET account_id = 2 WHERE serial = 's1';
UPDATE security_key SET account_id = 1 WHERE serial = 's3';
DELETE FROM member WHERE account_id = 2;
SELECT key, n, holder, runs, CASE WHEN n > 2 THEN gap END AS gap FROM stretches;
-- a deleted key keeps its history
DELETE FROM security_key WHERE serial = 's1';
DELETE FROM security_key WHERE serial = 's3';
SELECT key, n, holder, runs FROM stretches;
SELECT count(*) FROM security_key;
-- nothing is left of what was rolled back
BEGIN;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'b1');
SAVEPOINT s;
UPDATE security_key SET status = 'disabled' WHERE serial = 'b1';
ROLLBACK TO s;
UPDATE security_key SET account_id = NULL WHERE serial = 'b1';
COMMIT;
SELECT key, n, runs FROM stretches WHERE ws = 2;
-- many at once
INSERT INTO security_key (workspace_id, kind, serial) SELECT 2, CASE WHEN i % 3 = 0 THEN 'contactless_card' ELSE 'smartphone' END, 'm' || i FROM generate_series(1, 2500) i;
UPDATE security_key SET status = 'disabled' WHERE workspace_id = 2 AND serial LIKE 'm%';
SELECT count(*), count(DISTINCT key_id), count(*) FILTER (WHERE kind = 'contactless_card') AS cards FROM key_history WHERE workspace_id = 2;
SELECT count(*) FROM key_history h JOIN security_key k USING (workspace_id, key_id) WHERE h.workspace_id = 2 AND (h.active_until, h.active_from) <> (k.disabled_at, k.activated_at);

-- a swap at the limit, the activation first: the facts never show two at once
INSERT INTO workspace (company_name, slug, anchor_date, restrict_keys, key_limit) VALUES ('Gamma', 'gamma', '2026-01-01', true, 1);
INSERT INTO security_key (workspace_id, kind, serial, status) VALUES (3, 'smartphone', 'g1', 'disabled');
INSERT INTO security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 'g2');
UPDATE security_key SET status = CASE status WHEN 'active' THEN 'disabled' ELSE 'active' END WHERE workspace_id = 3;
SELECT serial, status FROM security_key WHERE workspace_id = 3 ORDER BY 1;
SELECT count(*) FROM key_activity a JOIN key_activity b USING (workspace_id) WHERE workspace_id = 3 AND a.key_id < b.key_id AND a.active && b.active;
-- an empty stretch is none: what ends in its own instant
BEGIN;
UPDATE workspace_usage SET last_disabled_at = now() + interval '1 hour' WHERE workspace_id = 3;
DELETE FROM security_key WHERE serial = 'g1';
INSERT INTO security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 'g3');
SELECT activated_at >= now() + interval '1 hour' AS later FROM security_key WHERE serial = 'g3';
UPDATE security_key SET status = 'disabled' WHERE serial = 'g3';
SELECT activated_at = disabled_at AS empty FROM security_key WHERE serial = 'g3';
SELECT count(*) FROM key_activity JOIN security_key USING (workspace_id, key_id) WHERE serial = 'g3';
ROLLBACK;
-- nothing is stamped before the end of the last closed period
INSERT INTO workspace (company_name, slug, anchor_date) VALUES ('Delta', 'delta', '2026-01-01');
INSERT INTO member (workspace_id, account_id, partner_key, role, accepted_at) VALUES (4, 1, 0, 'owner', now());
INSERT INTO security_key (workspace_id, kind, serial) VALUES (4, 'smartphone', 'd1'), (4, 'smartphone', 'd2'), (4, 'smartphone', 'd3');
SELECT now() + interval '1 hour' AS closed \gset
UPDATE workspace_usage SET closed_until = :'closed' WHERE workspace_id = 4;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (4, 'smartphone', 'd4');
UPDATE security_key SET status = 'disabled' WHERE serial = 'd1';
UPDATE security_key SET account_id = 1 WHERE serial = 'd2';
DELETE FROM security_key WHERE serial = 'd3';
SELECT serial, status, activated_at >= :'closed' AS activated_later, disabled_at >= :'closed' AS disabled_later FROM security_key WHERE workspace_id = 4 ORDER BY 1;
SELECT key, n, holder, runs, CASE WHEN n > 1 THEN gap END AS gap FROM stretches WHERE ws = 4;
SELECT count(*) FILTER (WHERE active_until >= :'closed') AS until, count(*) FILTER (WHERE active_from >= :'closed') AS since FROM key_history WHERE workspace_id = 4;
-- the stretches of a key never overlap
SELECT count(*) FROM key_activity a JOIN key_activity b USING (workspace_id, key_id) WHERE lower(a.active) < lower(b.active) AND a.active && b.active;
