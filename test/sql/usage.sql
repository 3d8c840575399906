\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept usage
\i :begin
SET datestyle = ISO;
-- facts straight into the tables, as a restored dump brings them
SET partner_portal.restoring = on;
INSERT INTO partner_portal.workspace (company_name, slug, time_zone, anchor_date, created_at, billing_from) VALUES
	('Vector Ltd', 'vector', 'UTC', '2026-01-01', '2026-01-01 00:00+00', '2026-01-01 00:00+00');
INSERT INTO partner_portal.key_history (workspace_id, key_id, kind, account_id, active_from, active_until, recorded_at, partner_key) VALUES
	(1, 101, 'smartphone', 1, '2026-01-15 00:00+00', '2026-02-10 00:00+00', '2026-01-15 00:00+00', 0),
	(1, 102, 'smartphone', 2, '2026-02-10 00:00+00', '2026-05-01 00:00+00', '2026-02-10 00:00+00', 0),
	(1, 103, 'contactless_card', 1, '2026-02-05 09:00+00', '2026-02-05 11:00+00', '2026-02-05 09:00+00', 0),
	(1, 103, 'contactless_card', 3, '2026-02-05 13:00+00', '2026-02-05 15:00+00', '2026-02-05 13:00+00', 0),
	(1, 104, 'smartphone', NULL, '2026-02-28 23:59:59.5+00', '2026-05-01 00:00+00', '2026-02-28 23:59:59.5+00', 0),
	(1, 105, 'smartphone', 5, '2026-03-01 00:00+00', '2026-05-01 00:00+00', '2026-03-01 00:00+00', 0),
	(1, 106, 'smartphone', 6, '2026-01-01 00:00+00', '2026-02-01 00:00+00', '2026-01-01 00:00+00', 0);
RESET partner_portal.restoring;
-- the specification's vector
\set february '''[2026-02-01 00:00+00,2026-03-01 00:00+00)''::tstzrange'
SELECT * FROM partner_portal.usage(1, :february);
SELECT key_days = 30 / 28::numeric AS key_days, key_seconds = 2433600.5 AS key_seconds FROM partner_portal.usage(1, :february) WHERE kind IS NULL;
