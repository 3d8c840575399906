\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept health
\i :begin
\set QUIET on
SET search_path = partner_portal, public;
-- nothing there
SELECT name, workspace_id, value FROM health() WHERE name NOT IN ('oldest_transaction', 'dead_counter_versions');
INSERT INTO workspace (company_name, slug, created_at, anchor_date, restrict_keys, key_limit, limit_mode) VALUES
	('Near', 'near', now(), '2026-01-01', true, 5, 'hard'), ('At', 'at', now(), '2026-01-01', true, 2, 'hard'), ('Over', 'over', now(), '2026-01-01', true, 3, 'soft'),
	('Far', 'far', now(), '2026-01-01', true, 100, 'hard'), ('Free', 'free', '2026-01-01', '2026-01-01', false, 1, 'hard'), ('None', 'none', now(), '2026-01-01', true, 0, 'hard');
INSERT INTO security_key (workspace_id, kind, serial) SELECT w, 'smartphone', i FROM (VALUES (1, 4), (2, 2), (3, 4), (4, 4), (5, 4)) AS v (w, n), generate_series(1, n) i;
INSERT INTO security_key (workspace_id, kind, serial, status) VALUES (1, 'smartphone', 'spare', 'disabled');
-- near, at and over a limit that is in force; the period of Free that has passed since January is to be closed
SELECT name, workspace_id, CASE name WHEN 'periods_not_closed' THEN sign(value) ELSE value END AS value, CASE name WHEN 'periods_not_closed' THEN detail IS NOT NULL ELSE detail <> '' END AS detail
	FROM health() WHERE name NOT IN ('oldest_transaction', 'dead_counter_versions');
SELECT name, detail FROM health() WHERE workspace_id IS NOT NULL;
-- settings that would switch checks off
ALTER DATABASE pp_health SET partner_portal.restoring = on;
ALTER ROLE regress_app IN DATABASE pp_health SET session_replication_role = replica;
SELECT name, value FROM health() WHERE name = 'restoring_by_default';
ALTER DATABASE pp_health RESET partner_portal.restoring;
ALTER ROLE regress_app IN DATABASE pp_health RESET session_replication_role;
SELECT name, value FROM health() WHERE name = 'restoring_by_default';
-- the operator's alone
\set VERBOSITY sqlstate
SET ROLE regress_ops;
SELECT count(*) FROM health();
