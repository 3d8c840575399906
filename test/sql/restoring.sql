\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept restoring
\i :begin
INSERT INTO partner_portal.account (email) VALUES ('somebody@example.com');
-- a dump's script, and nobody else
SELECT partner_portal.restoring_session();
SET row_security = off;
SET check_function_bodies = off;
SELECT partner_portal.restoring_session();
SET ROLE regress_app;
SELECT partner_portal.restoring_session();
RESET ROLE;
BEGIN;
SELECT partner_portal.login_as(1);
SELECT partner_portal.restoring_session();
COMMIT;
RESET row_security;
SELECT partner_portal.restoring_session();
SET partner_portal.restoring = on;
SELECT partner_portal.restoring_session();
SET ROLE regress_app;
SET partner_portal.restoring = on;
RESET ROLE;
RESET partner_portal.restoring;
\set VERBOSITY sqlstate
-- in such a session rows come as they were, and are counted; what changes them afterwards is checked as ever
INSERT INTO partner_portal.workspace (company_name, slug, anchor_date, restrict_keys, key_limit) VALUES ('A', 'a', '2026-01-01', true, 2);
BEGIN;
SET LOCAL row_security = off;
SET LOCAL check_function_bodies = off;
INSERT INTO partner_portal.security_key (workspace_id, key_id, partner_key, kind, serial, status, created_at, activated_at, disabled_at, disabled_reason) VALUES
	(1, 11, 0, 'smartphone', 'a', 'active', '2026-01-01', '2026-01-02', NULL, NULL), (1, 12, 0, 'smartphone', 'b', 'active', '2026-01-01', '2026-01-02', NULL, NULL),
	(1, 13, 0, 'smartphone', 'c', 'active', '2026-01-01', '2026-01-02', NULL, NULL), (1, 14, 0, 'smartphone', 'd', 'disabled', '2026-01-01', '2026-01-02', '2026-01-03', 'limit');
INSERT INTO partner_portal.key_history (workspace_id, key_id, active_from, active_until, kind, recorded_at, partner_key) VALUES
	(1, 14, '2026-01-02', '2026-01-03', 'smartphone', '2026-01-02', 0);
SELECT key_id, status, activated_at, disabled_at FROM partner_portal.security_key ORDER BY 1;
SELECT total_keys, active_keys, key_limit, last_disabled_at FROM partner_portal.workspace_usage;
SAVEPOINT s;
UPDATE partner_portal.security_key SET status = 'active' WHERE key_id = 14;
ROLLBACK TO s;
UPDATE partner_portal.security_key SET status = 'disabled' WHERE key_id IN (11, 12);
SELECT key_id, disabled_reason, disabled_at > now() - interval '1 hour' AS stamped FROM partner_portal.security_key WHERE status = 'disabled' ORDER BY 1;
SELECT total_keys, active_keys FROM partner_portal.workspace_usage;
SELECT count(*) FROM partner_portal.key_history;
ROLLBACK;
-- every table is dumped, but for what is derived or comes with the extension; and where every sequence stands
CREATE TEMP TABLE not_dumped (name text, reason text);
INSERT INTO not_dumped VALUES
	('workspace_usage', 'counted again from what is restored'),
	('acl_signal', 'always empty'),
	('role_grant', 'filled by the install script'),
	('job_step', 'the same');
CREATE TEMP VIEW dumped AS
	SELECT c.oid, c.relname, d.condition FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS d (oid, condition) JOIN pg_class c ON c.oid = d.oid
	WHERE e.extname = 'partner_portal';
SELECT c.relname AS not_dumped FROM pg_class c
	WHERE c.relnamespace = 'partner_portal'::regnamespace AND c.relkind IN ('r', 'p', 'S')
	AND c.oid NOT IN (SELECT oid FROM dumped) AND c.relname NOT IN (SELECT name FROM not_dumped) ORDER BY 1;
SELECT name AS stale_exception FROM not_dumped WHERE name IN (SELECT relname FROM dumped) OR to_regclass('partner_portal.' || name) IS NULL ORDER BY 1;
-- rows that the install script brings are not dumped: in a database without data nothing is (delivery_home says which copy it is)
SELECT d.relname AS seed_is_dumped FROM dumped d JOIN pg_class c USING (oid)
	WHERE c.relkind = 'r' AND d.relname NOT IN ('delivery_home', 'enrolled_role', 'account', 'workspace', 'member', 'billing_period', 'activity')
	AND query_to_xml(format('SELECT 1 AS one FROM %s %s', c.oid::regclass, d.condition), true, true, '')::text ~ '<row' ORDER BY 1;
-- foreign keys between dumped tables form no circle, and none leads from a dumped table to one that is not
WITH RECURSIVE reference AS (
	SELECT k.conrelid AS source, k.confrelid AS target FROM pg_constraint k WHERE k.contype = 'f' AND k.conrelid IN (SELECT oid FROM dumped) AND k.conrelid <> k.confrelid
), reach AS (
	SELECT source, target FROM reference UNION SELECT h.source, r.target FROM reach h JOIN reference r ON r.source = h.target
)
SELECT source::regclass AS in_a_circle FROM reach WHERE source = target
UNION ALL SELECT source::regclass FROM reach WHERE target NOT IN (SELECT oid FROM dumped) ORDER BY 1;
-- a table that refers to itself is dumped in an order
SELECT d.relname AS without_order FROM dumped d JOIN pg_constraint k ON k.conrelid = d.oid AND k.confrelid = d.oid AND k.contype = 'f'
	WHERE d.condition !~ 'ORDER BY' ORDER BY 1;
