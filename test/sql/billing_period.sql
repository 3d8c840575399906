\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept billing_period
\i :begin
SET datestyle = ISO;
\set VERBOSITY sqlstate
-- the formula: anchors at the end of a month come back to it
SELECT label FROM partner_portal.billing_periods('2023-12-31', 'month', 'UTC', '2023-12-31 00:00+00', '2024-05-01 00:00+00');
SELECT label FROM partner_portal.billing_periods('2025-01-29', 'month', 'UTC', '2025-01-29 00:00+00', '2025-04-01 00:00+00');
SELECT label FROM partner_portal.billing_periods('2025-01-30', 'month', 'UTC', '2025-01-30 00:00+00', '2025-04-01 00:00+00');
SELECT label FROM partner_portal.billing_periods('2024-02-29', 'year', 'UTC', '2024-02-29 00:00+00', '2028-03-01 00:00+00');
SELECT label FROM partner_portal.billing_periods('2025-08-31', 'quarter', 'UTC', '2025-08-31 00:00+00', '2026-09-01 00:00+00');
SELECT label FROM partner_portal.billing_periods('2025-08-31', 'half_year', 'UTC', '2025-08-31 00:00+00', '2026-09-01 00:00+00');
-- before the anchor too
SELECT * FROM partner_portal.billing_period_bounds('2026-03-31', 'month', 'UTC', '2024-02-29 12:00+00');
-- the first period may be a stub
SELECT * FROM partner_portal.billing_periods('2026-01-01', 'month', 'UTC', '2026-01-20 12:34:56+00', '2026-02-01 00:00+00');
-- local midnight missing: the instant after the gap; twice: the second; a skipped date
SELECT period_start FROM partner_portal.billing_period_bounds('2018-11-04', 'month', 'America/Sao_Paulo', '2018-11-10 00:00+00');
SELECT * FROM partner_portal.billing_period_bounds('2020-11-01', 'month', 'America/Havana', '2020-11-10 00:00+00');
SELECT * FROM partner_portal.billing_period_bounds('2026-03-01', 'month', 'Europe/Zurich', '2026-10-25 02:30+00');
SELECT * FROM partner_portal.billing_periods('2011-11-30', 'month', 'Pacific/Apia', '2011-11-30 10:00+00', '2011-12-31 00:00+00');
-- boundaries belong to the later period
SELECT * FROM partner_portal.billing_period_bounds('2026-01-01', 'month', 'UTC', '2026-02-01 00:00+00');
SELECT * FROM partner_portal.billing_period_bounds('2026-01-01', 'month', 'UTC', '2026-01-31 23:59:59.999999+00');
-- the session's zone does not matter
SET timezone = 'Pacific/Kiritimati';
SELECT period_start = '2018-11-04 03:00+00' AS same FROM partner_portal.billing_period_bounds('2018-11-04', 'month', 'America/Sao_Paulo', '2018-11-10 00:00+00');
SET timezone = 'UTC';
-- bad input
SELECT partner_portal.billing_period_bounds('2026-01-01', 'week', 'UTC', now());
SELECT partner_portal.billing_period_bounds('2026-01-01', 'month', 'Mars/Olympus', now());
SELECT partner_portal.billing_period_bounds('infinity', 'month', 'UTC', now());
SELECT partner_portal.billing_period_bounds('2026-01-01', 'month', 'UTC', 'infinity');
SELECT partner_portal.billing_period_bounds('2026-01-01', 'month', 'UTC', '-infinity');
SELECT partner_portal.billing_period_bounds('2026-01-01', 'month', 'UTC', '294276-12-31 00:00+00');
SELECT partner_portal.billing_period_bounds('2026-01-01', 'month', 'UTC', '0001-01-01 00:00+00');
SELECT partner_portal.billing_period_bounds('2999-12-31', 'year', 'UTC', '1900-01-01 00:00+00') IS NOT NULL AS far;
-- property: over random schedules, periods tile, are the formula's, and contain what they are asked for
\set VERBOSITY terse
DO $$
DECLARE
	zones text[] := ARRAY(SELECT name FROM pg_timezone_names WHERE name ~ '^(Africa|America|Antarctica|Asia|Atlantic|Australia|Europe|Indian|Pacific)/' ORDER BY name COLLATE "C");
	steps text[] := ARRAY['month', 'quarter', 'half_year', 'year'];
	spans interval[] := ARRAY['1 month', '3 months', '6 months', '1 year'];
	zone text;
	anchor date;
	step integer;
	at timestamptz;
	b record;
	other record;
	months integer;
	n integer;
	wrong integer := 0;
BEGIN
	PERFORM setseed(0.42);
	FOR i IN 1 .. 3000 LOOP
		zone := zones[1 + floor(random() * cardinality(zones))];
		step := 1 + floor(random() * 4);
		anchor := date '1990-01-01' + floor(random() * 16000)::integer;
		at := timestamptz '1971-01-01 00:00+00' + random() * interval '60 years';
		b := partner_portal.billing_period_bounds(anchor, steps[step], zone, at);
		other := partner_portal.billing_period_bounds(anchor, steps[step], zone, b.period_end);
		months := (extract(year FROM b.period_start AT TIME ZONE zone) - extract(year FROM anchor)) * 12
			+ extract(month FROM b.period_start AT TIME ZONE zone) - extract(month FROM anchor);
		n := round(months / (extract(year FROM spans[step]) * 12 + extract(month FROM spans[step])));
		IF NOT (b.period_start <= at AND at < b.period_end) OR other.period_start <> b.period_end
			OR b.period_start <> (anchor::timestamp + n * spans[step]) AT TIME ZONE zone
			OR b.period_end <> (anchor::timestamp + (n + 1) * spans[step]) AT TIME ZONE zone
			OR partner_portal.billing_period_bounds(anchor, steps[step], zone, b.period_end - interval '1 microsecond') IS DISTINCT FROM b
			OR partner_portal.billing_period_bounds(anchor, steps[step], zone, b.period_start) IS DISTINCT FROM b THEN
			wrong := wrong + 1;
			RAISE WARNING 'wrong: % % % %: % %', anchor, steps[step], zone, at, b, other;
		END IF;
	END LOOP;
	RAISE NOTICE 'wrong: %', wrong;
END
$$;
\set VERBOSITY sqlstate
-- stored periods: the first opens with the workspace, at its local date
INSERT INTO partner_portal.workspace (company_name, slug, time_zone, created_at) VALUES
	('Kiwi', 'kiwi', 'Pacific/Auckland', '2026-01-30 12:00+00'),
	('Paulista', 'paulista', 'America/Sao_Paulo', '2026-02-01 01:00+00') RETURNING workspace_id, anchor_date;
SELECT workspace_id, period_start, period_end, label, previous_end FROM partner_portal.billing_period ORDER BY 1, 2;
SELECT partner_portal.billing_period_at(2, '2026-02-01 02:00+00') = tstzrange('2026-01-31 03:00+00', '2026-02-28 03:00+00') AS stored;
SELECT partner_portal.billing_period_at(2, '2026-01-01 00:00+00') AS before, partner_portal.billing_period_at(2, '2026-03-28 00:00+00') AS later;
SELECT partner_portal.billing_period_at(2, NULL);
SELECT partner_portal.billing_period_at(2, 'infinity');
SELECT partner_portal.billing_period_at(2, '0001-01-01');
SELECT partner_portal.billing_period_at(999999);
SELECT partner_portal.billing_period_at(NULL);
-- missing ones open in order
SELECT partner_portal.open_periods(2, '2026-05-01 00:00+00');
SELECT label, previous_end = period_start AS follows FROM partner_portal.billing_period WHERE workspace_id = 2 ORDER BY period_start;
SELECT partner_portal.open_periods(2, '2026-05-01 00:00+00');
SELECT count(*) FROM partner_portal.billing_period WHERE workspace_id = 2;
-- a change of schedule begins where what has begun ends
INSERT INTO partner_portal.workspace (company_name, slug, time_zone) VALUES ('Change', 'change', 'UTC');
UPDATE partner_portal.workspace SET time_zone = 'europe/zurich', anchor_date = '2024-01-31', billing_step = 'quarter' WHERE slug = 'change' RETURNING time_zone;
SELECT count(*), bool_and(upper(partner_portal.billing_period_at(workspace_id)) = max(period_end)) OVER () AS running_stays,
	lower(partner_portal.billing_period_at(workspace_id, max(period_end))) = max(period_end) AS follows,
	(upper(partner_portal.billing_period_at(workspace_id, max(period_end))) AT TIME ZONE 'Europe/Zurich')::time AS ends_at,
	extract(month FROM upper(partner_portal.billing_period_at(workspace_id, max(period_end))) AT TIME ZONE 'Europe/Zurich')::integer % 3 AS quarter
FROM partner_portal.billing_period WHERE workspace_id = (SELECT workspace_id FROM partner_portal.workspace WHERE slug = 'change') GROUP BY workspace_id;
UPDATE partner_portal.workspace SET time_zone = 'Nowhere/Land' WHERE slug = 'change';
UPDATE partner_portal.workspace SET anchor_date = '294276-01-01' WHERE slug = 'change';
UPDATE partner_portal.workspace SET billing_step = 'day' WHERE slug = 'change';
-- splitting, ending, resuming
SELECT partner_portal.split_period(2, '2026-05-10 12:00+00');
SELECT label, period_start, period_end, resumes FROM partner_portal.billing_period WHERE workspace_id = 2 AND period_end > '2026-05-01' ORDER BY period_start;
SELECT partner_portal.end_periods(2, '2026-05-20 12:00+00');
SELECT partner_portal.start_periods(2, '2026-06-20 12:00+00');
SELECT partner_portal.start_periods(2, '2026-06-21 12:00+00');
SELECT label, period_start, period_end, previous_end, resumes FROM partner_portal.billing_period WHERE workspace_id = 2 AND period_end > '2026-05-01' ORDER BY period_start;
SELECT partner_portal.billing_period_at(2, '2026-06-01 00:00+00') AS in_the_hole;
SELECT partner_portal.end_periods(2, '2026-06-20 12:00+00');
SELECT partner_portal.start_periods(2, '2026-05-20 12:00+00');
SELECT label, period_start, previous_end, resumes FROM partner_portal.billing_period WHERE workspace_id = 2 AND period_end > '2026-05-15' ORDER BY period_start;
-- closed before its end, a period is not cut, and the next follows it
INSERT INTO partner_portal.workspace (company_name, slug, time_zone, created_at) VALUES ('Ahead', 'ahead', 'UTC', '2026-01-01 00:00+00') RETURNING workspace_id \gset
UPDATE partner_portal.billing_period SET closed_at = now() WHERE workspace_id = :workspace_id;
SELECT partner_portal.end_periods(:workspace_id, '2026-01-10 00:00+00');
SELECT partner_portal.start_periods(:workspace_id, '2026-01-11 00:00+00');
SELECT partner_portal.start_periods(:workspace_id, '2026-01-12 00:00+00');
SELECT label, previous_end = period_start AS follows, resumes FROM partner_portal.billing_period WHERE workspace_id = :workspace_id ORDER BY period_start;
-- by constraint: no overlap, no hole, no second chain, no fork
\set add 'INSERT INTO partner_portal.billing_period (workspace_id, label, time_zone, partner_key, resumes, period_start, period_end, previous_end) VALUES (1, '''', ''UTC'', 0, '
SELECT max(period_end) AS last_end FROM partner_portal.billing_period WHERE workspace_id = 1 \gset
:add false, '2040-01-01', '2040-02-01', NULL);
:add false, '2026-02-10', '2026-02-20', '2026-02-10');
:add false, '2040-01-01', '2040-02-01', :'last_end');
:add true, '2040-01-01', '2040-02-01', NULL);
:add true, '2026-02-10', '2026-02-20', :'last_end');
:add true, '2040-01-01', '2040-02-01', :'last_end');
:add true, '2041-01-01', '2041-02-01', :'last_end');
:add false, :'last_end', '2041-02-01', :'last_end');
:add false, '2040-02-01', '2040-01-01', '2040-02-01');
:add false, '2040-02-01', 'infinity', '2040-02-01');
-- late history opens the periods before the first one
SELECT partner_portal.add_earlier_periods(1, '2025-11-15 00:00+00');
SELECT label, previous_end = period_start AS follows FROM partner_portal.billing_period WHERE workspace_id = 1 ORDER BY period_start LIMIT 4;
-- zones that are none, or not of the time zone database
INSERT INTO partner_portal.workspace (company_name, slug, time_zone) VALUES ('A', 'a', 'CEST');
INSERT INTO partner_portal.workspace (company_name, slug, time_zone) VALUES ('A', 'a', 'CET');
INSERT INTO partner_portal.workspace (company_name, slug, time_zone) VALUES ('A', 'a', 'XYZ5');
INSERT INTO partner_portal.workspace (company_name, slug, time_zone) VALUES ('A', 'a', 'Etc/GMT+99');
INSERT INTO partner_portal.workspace (company_name, slug, time_zone) VALUES ('A', 'a', '');
INSERT INTO partner_portal.workspace (company_name, slug, time_zone, created_at) VALUES ('A', 'a', 'UTC', 'infinity');
