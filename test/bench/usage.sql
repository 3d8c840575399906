-- usage.sql: what somebody would write to measure a period from the facts: every measure of usage(), for many workspaces.
-- Values: workspaces (their ids), start, end. Dates are local to each workspace.
WITH asked AS MATERIALIZED (
	SELECT w.workspace_id, w.time_zone, (SELECT count(*) FROM generate_series((%(start)s AT TIME ZONE w.time_zone)::date,
		((%(end)s - interval '1 microsecond') AT TIME ZONE w.time_zone)::date, interval '1 day')) AS dates
	FROM partner_portal.workspace w
	WHERE w.workspace_id = ANY (%(workspaces)s)
), fact AS MATERIALIZED (
	SELECT h.workspace_id, h.key_id, h.kind, h.account_id, greatest(h.active_from, %(start)s) AS since, least(h.active_until, %(end)s) AS until
	FROM partner_portal.key_history h
	WHERE h.workspace_id = ANY (%(workspaces)s) AND h.active_until > %(start)s AND h.active_from < %(end)s
	UNION ALL
	SELECT k.workspace_id, k.key_id, k.kind, k.account_id, greatest(k.activated_at, %(start)s), %(end)s
	FROM partner_portal.security_key k
	WHERE k.workspace_id = ANY (%(workspaces)s) AND k.status = 'active' AND k.activated_at < %(end)s
), plain AS (
	SELECT workspace_id, kind, count(DISTINCT key_id) AS distinct_keys, count(*) FILTER (WHERE until = %(end)s) AS end_keys,
		count(*) FILTER (WHERE since = %(start)s) AS start_keys,
		sum(extract(epoch FROM until) - extract(epoch FROM since)) AS key_seconds, count(DISTINCT account_id) AS users
	FROM fact
	GROUP BY GROUPING SETS ((workspace_id, kind), (workspace_id))
), day AS (
	SELECT t.workspace_id, t.kind, count(*) AS days
	FROM (
		SELECT DISTINCT f.workspace_id, f.kind, f.key_id, date
		FROM fact f
		JOIN asked a ON a.workspace_id = f.workspace_id
		CROSS JOIN generate_series((f.since AT TIME ZONE a.time_zone)::date,
			((f.until - interval '1 microsecond') AT TIME ZONE a.time_zone)::date, interval '1 day') date) t
	GROUP BY GROUPING SETS ((t.workspace_id, t.kind), (t.workspace_id))
), running AS (
	SELECT e.workspace_id, g.kind, e.at, sum(e.change) OVER (PARTITION BY e.workspace_id, g.kind ORDER BY e.at, e.change) AS keys
	FROM (
		SELECT workspace_id, kind, since AS at, 1 AS change FROM fact
		UNION ALL
		SELECT workspace_id, kind, until, -1 FROM fact) e
	CROSS JOIN LATERAL (VALUES (e.kind), (NULL)) g (kind)
), peak AS (
	SELECT DISTINCT ON (workspace_id, kind) workspace_id, kind, keys, at
	FROM running
	ORDER BY workspace_id, kind, keys DESC, at
)
SELECT p.workspace_id, p.kind, p.distinct_keys::integer, k.keys::integer AS peak_keys, k.at AS peak_at, p.end_keys::integer,
	p.start_keys::integer, d.days / a.dates::numeric AS key_days, trim_scale(p.key_seconds) AS key_seconds, p.users::integer
FROM plain p
JOIN asked a ON a.workspace_id = p.workspace_id
JOIN day d ON d.workspace_id = p.workspace_id AND d.kind IS NOT DISTINCT FROM p.kind
JOIN peak k ON k.workspace_id = p.workspace_id AND k.kind IS NOT DISTINCT FROM p.kind
ORDER BY p.workspace_id, p.kind
