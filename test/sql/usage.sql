\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept usage
\i :begin
SET datestyle = ISO;
-- facts straight into the tables, as a restored dump brings them
INSERT INTO partner_portal.workspace (company_name, slug, time_zone, anchor_date, created_at, billing_from) VALUES
	('Vector Ltd', 'vector', 'UTC', '2026-01-01', '2026-01-01 00:00+00', '2026-01-01 00:00+00'),
	('Zurich AG', 'zurich', 'Europe/Zurich', '2025-10-01', '2025-10-01 00:00+02', '2025-10-01 00:00+02'),
	('Apia Ltd', 'apia', 'Pacific/Apia', '2011-12-15', '2011-12-15 00:00-10', '2011-12-15 00:00-10'),
	('Empty', 'empty', 'UTC', '2026-01-01', '2026-01-01 00:00+00', '2026-01-01 00:00+00');
SET partner_portal.restoring = on;
INSERT INTO partner_portal.key_history (workspace_id, key_id, kind, account_id, active_from, active_until, recorded_at, partner_key) VALUES
	(1, 101, 'smartphone', 1, '2026-01-15 00:00+00', '2026-02-10 00:00+00', '2026-01-15 00:00+00', 0),
	(1, 102, 'smartphone', 2, '2026-02-10 00:00+00', '2026-05-01 00:00+00', '2026-02-10 00:00+00', 0),
	(1, 103, 'contactless_card', 1, '2026-02-05 09:00+00', '2026-02-05 11:00+00', '2026-02-05 09:00+00', 0),
	(1, 103, 'contactless_card', 3, '2026-02-05 13:00+00', '2026-02-05 15:00+00', '2026-02-05 13:00+00', 0),
	(1, 104, 'smartphone', NULL, '2026-02-28 23:59:59.5+00', '2026-05-01 00:00+00', '2026-02-28 23:59:59.5+00', 0),
	(1, 105, 'smartphone', 5, '2026-03-01 00:00+00', '2026-05-01 00:00+00', '2026-03-01 00:00+00', 0),
	(1, 106, 'smartphone', 6, '2026-01-01 00:00+00', '2026-02-01 00:00+00', '2026-01-01 00:00+00', 0);
INSERT INTO partner_portal.key_history (workspace_id, key_id, kind, account_id, active_from, active_until, recorded_at, partner_key) VALUES
	(2, 201, 'smartphone', 1, '2025-10-01 00:00+02', '2025-12-01 00:00+01', '2025-10-01 00:00+02', 0),
	(2, 202, 'contactless_card', 1, '2025-10-26 00:30+02', '2025-10-26 23:30+01', '2025-10-26 00:30+02', 0),
	(3, 301, 'smartphone', 1, '2011-12-29 12:00-10', '2012-01-01 00:00+14', '2011-12-29 12:00-10', 0),
	(3, 302, 'smartphone', 1, '2011-12-29 23:00-10', '2011-12-31 01:00+14', '2011-12-29 23:00-10', 0);
INSERT INTO partner_portal.security_key (workspace_id, key_id, kind, serial, account_id, status, disabled_reason, created_at, activated_at, disabled_at)
OVERRIDING SYSTEM VALUE VALUES
	(1, 107, 'smartphone', 'S-107', NULL, 'active', NULL, '2026-06-01 00:00+00', '2026-06-01 00:00+00', NULL),
	(1, 108, 'contactless_card', 'C,"108"', NULL, 'disabled', 'customer', '2026-06-01 00:00+00', '2026-06-02 00:00+00', '2026-06-03 00:00+00');
INSERT INTO partner_portal.key_history (workspace_id, key_id, kind, account_id, active_from, active_until, recorded_at, partner_key) VALUES
	(1, 108, 'contactless_card', NULL, '2026-06-02 00:00+00', '2026-06-03 00:00+00', '2026-06-02 00:00+00', 0);
RESET partner_portal.restoring;
-- the specification's vector
\set february '''[2026-02-01 00:00+00,2026-03-01 00:00+00)''::tstzrange'
SELECT * FROM partner_portal.usage(1, :february);
SELECT key_days = 30 / 28::numeric AS key_days, key_seconds = 2433600.5 AS key_seconds FROM partner_portal.usage(1, :february) WHERE kind IS NULL;
-- as it was known: what had not ended yet counts as running, what had not begun does not count
SELECT kind, distinct_keys, end_keys, key_seconds FROM partner_portal.usage(1, :february, '2026-02-05 10:00+00');
SELECT kind, distinct_keys, end_keys, key_seconds FROM partner_portal.usage(1, :february, '2026-01-01 00:00+00');
SELECT kind, distinct_keys, end_keys, key_seconds FROM partner_portal.usage(1, :february, '2025-12-31 00:00+00') WHERE kind IS NULL;
-- a running key counts up to the end of the period
SELECT * FROM partner_portal.usage(1, '[2026-06-01 00:00+00,2026-07-01 00:00+00)');
-- no keys: zeros, and always three rows
SELECT * FROM partner_portal.usage(4, :february);
SELECT count(*) FROM partner_portal.usage(4);
-- October in Zurich has 745 hours and 31 dates; a date that was skipped is none
SELECT kind, key_days, key_seconds / 3600 AS hours FROM partner_portal.usage(2, '[2025-10-01 00:00+02,2025-11-01 00:00+01)');
SELECT partner_portal.local_dates('2011-12-29 00:00-10', '2012-01-01 00:00+14', 'Pacific/Apia') AS dates;
SELECT kind, distinct_keys, round(key_days * partner_portal.local_dates('2011-12-15 00:00-10', '2012-01-15 00:00+14', 'Pacific/Apia'), 6) AS touched,
	partner_portal.local_dates('2011-12-15 00:00-10', '2012-01-15 00:00+14', 'Pacific/Apia') AS dates, key_seconds / 3600 AS hours
	FROM partner_portal.usage(3, '[2011-12-15 00:00-10,2012-01-15 00:00+14)') WHERE kind IS NULL;
-- bad periods
\set VERBOSITY sqlstate
SELECT partner_portal.usage(1, 'empty');
SELECT partner_portal.usage(1, '[2026-02-01,)');
SELECT partner_portal.usage(1, '(,2026-02-01)');
SELECT partner_portal.usage(1, '[2026-02-01,infinity)');
SELECT partner_portal.usage(1, '[-infinity,2026-02-01)');
SELECT partner_portal.usage(1, '[2026-02-01,2026-03-01]');
SELECT partner_portal.usage(1, '[0001-01-01,2026-03-01)');
SELECT partner_portal.usage(1, '[2026-02-01,294276-01-01)');
SELECT partner_portal.usage(999999, :february);
SELECT partner_portal.usage_csv(1, 'empty');
\set VERBOSITY terse
SELECT replace(partner_portal.usage_csv(1, '[2026-06-01 00:00+00,2026-07-01 00:00+00)'), E'\r', '') AS csv;
SELECT partner_portal.usage_csv(4, :february) = E'key_id,kind,serial,label,holder,stretches,active_from,active_until,key_days,key_seconds\r\n' AS header_alone;
-- closing: in order, stored once, the same as live
SELECT count(*) > 0 AS due FROM partner_portal.billing_period WHERE period_end <= '2026-04-01 00:00+00' AND closed_at IS NULL;
SELECT workspace_id, count(*), min(period_start), max(period_start) FROM partner_portal.close_periods('2026-04-01 00:00+00') GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM partner_portal.close_periods('2026-04-01 00:00+00');
SELECT workspace_id, closed_until FROM partner_portal.workspace_usage ORDER BY 1;
SELECT workspace_id, count(*) FILTER (WHERE closed_at IS NULL) AS running, max(period_end) AS until FROM partner_portal.billing_period GROUP BY 1 ORDER BY 1;
SELECT kind, distinct_keys, peak_keys, peak_at, end_keys, start_keys, round(key_days, 4) AS key_days, key_seconds, users FROM partner_portal.usage_period
	WHERE workspace_id = 1 AND period_start = '2026-02-01 00:00+00' ORDER BY kind;
SELECT * FROM partner_portal.usage(1, :february);
-- the stored answer is the one given, until a late fact comes
UPDATE partner_portal.usage_period SET distinct_keys = 1000 WHERE workspace_id = 1 AND period_start = '2026-02-01 00:00+00';
SELECT kind, distinct_keys FROM partner_portal.usage(1, :february);
SELECT kind, distinct_keys FROM partner_portal.usage(1, :february, '2026-03-15 00:00+00');
SELECT known_at AS known FROM partner_portal.usage_period WHERE workspace_id = 1 AND period_start = '2026-02-01 00:00+00' AND kind = 'total' \gset
SELECT partner_portal.import_key_activity(1, 108, '[2026-02-03 00:00+00,2026-02-04 00:00+00)', 'found in the old system');
SELECT kind, distinct_keys FROM partner_portal.usage(1, :february);
SELECT kind, distinct_keys FROM partner_portal.usage(1, :february, :'known');
SELECT workspace_id, key_id, active_from, active_until, reason, imported_by FROM partner_portal.activity_import;
SELECT key_id, kind, active FROM partner_portal.key_activity WHERE workspace_id = 1 AND recorded_at > :'known';
-- imports before the first period open the periods they lie in
SELECT partner_portal.import_key_activity(1, 107, '[2025-10-20 00:00+00,2025-11-20 00:00+00)', 'history');
SELECT label, closed_at IS NOT NULL AS closed FROM partner_portal.billing_period WHERE workspace_id = 1 ORDER BY period_start LIMIT 4;
SELECT workspace_id, period_start FROM partner_portal.close_periods('2026-04-01 00:00+00');
SELECT kind, distinct_keys, key_days FROM partner_portal.usage(1, '[2025-10-01 00:00+00,2025-11-01 00:00+00)');
-- what is refused
\set VERBOSITY sqlstate
SELECT partner_portal.import_key_activity(1, 107, '[2025-11-19 00:00+00,2025-11-21 00:00+00)', 'overlaps');
SELECT partner_portal.import_key_activity(1, 107, '[2026-05-31 00:00+00,2026-06-01 00:00:01+00)', 'overlaps the running one');
SELECT partner_portal.import_key_activity(1, 107, '[2025-11-20 00:00+00,2025-11-21 00:00+00)', 'adjacent');
SELECT partner_portal.import_key_activity(1, 107, '[2026-01-01 00:00+00,)', 'open end');
SELECT partner_portal.import_key_activity(1, 107, '(,2026-01-01 00:00+00)', 'open start');
SELECT partner_portal.import_key_activity(1, 107, '[2026-01-01 00:00+00,infinity)', 'infinite');
SELECT partner_portal.import_key_activity(1, 107, 'empty', 'empty');
SELECT partner_portal.import_key_activity(1, 107, tstzrange(now() - interval '1 second', now() + interval '1 hour'), 'future');
SELECT partner_portal.import_key_activity(1, 107, '[0001-01-01,0001-01-02)', 'absurd');
SELECT partner_portal.import_key_activity(1, 107, NULL, 'null');
SELECT partner_portal.import_key_activity(1, 107, '[2026-01-01,2026-01-02)', NULL);
SELECT partner_portal.import_key_activity(1, 107, '[2026-01-01,2026-01-02)', '');
SELECT partner_portal.import_key_activity(1, 107, '[2026-01-01,2026-01-02)', repeat('x', 10000000));
SELECT partner_portal.import_key_activity(1, 999, '[2026-01-01,2026-01-02)', 'no such key');
SELECT partner_portal.import_key_activity(2, 107, '[2026-01-01,2026-01-02)', 'another workspace''s key');
SELECT partner_portal.close_periods(NULL);
SELECT partner_portal.close_periods('infinity');
SELECT partner_portal.close_periods(now(), 0);
SELECT partner_portal.refresh_usage(NULL);
SET ROLE regress_ops;
SELECT partner_portal.close_periods();
SELECT partner_portal.refresh_usage();
SELECT partner_portal.import_key_activity(1, 107, '[2026-01-01,2026-01-02)', 'not the operator');
SELECT partner_portal.usage(1);
RESET ROLE;
SET ROLE regress_app;
SELECT partner_portal.close_periods();
RESET ROLE;
\set VERBOSITY terse
-- work is shared in portions
SELECT count(DISTINCT workspace_id) FROM partner_portal.close_periods('2026-06-01 00:00+00', 2);
SELECT count(DISTINCT workspace_id) FROM partner_portal.close_periods('2026-06-01 00:00+00', 2);
SELECT count(*) FROM partner_portal.close_periods('2026-06-01 00:00+00', 2);
-- the running period as of now, for the panel
SELECT partner_portal.refresh_usage('2026-06-10 00:00+00', 3), partner_portal.refresh_usage('2026-06-10 00:00+00'), partner_portal.refresh_usage('2026-06-10 00:00+00');
SELECT kind, distinct_keys, users FROM partner_portal.usage_period WHERE workspace_id = 1 AND period_start = '2026-06-01 00:00+00' ORDER BY kind;
