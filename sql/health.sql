-- health.sql: figures that an operator watches.

CREATE FUNCTION partner_portal.health() RETURNS TABLE (name text, workspace_id bigint, value numeric, detail text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
#variable_conflict use_column
BEGIN
	PERFORM partner_portal.require_operator();
	RETURN QUERY
	WITH counted AS MATERIALIZED (
		SELECT u.workspace_id, u.total_keys, u.active_keys, u.key_limit FROM partner_portal.workspace_usage u
	), holder AS (
		SELECT extract(epoch FROM clock_timestamp() - a.xact_start) AS seconds,
			format('process %s (%s, %s)', a.pid, coalesce(a.usename, a.backend_type), coalesce(a.state, a.backend_type)) AS who
		FROM pg_stat_activity a
		WHERE a.backend_xmin IS NOT NULL AND a.xact_start IS NOT NULL AND a.pid <> pg_backend_pid()
			AND (a.datname = current_database() OR a.backend_type = 'walsender')
		UNION ALL
		SELECT extract(epoch FROM clock_timestamp() - x.prepared), format('prepared transaction %s (%s)', x.gid, x.owner)
		FROM pg_prepared_xacts x WHERE x.database = current_database()
	)
	SELECT f.name, f.workspace_id, f.value, f.detail
	FROM (
		SELECT 1 AS place, 'workspaces' AS name, NULL::bigint AS workspace_id, count(*)::numeric AS value, NULL::text AS detail FROM counted
		UNION ALL
		SELECT 2, 'keys', NULL, coalesce(sum(c.total_keys), 0), NULL FROM counted c
		UNION ALL
		SELECT 3, 'active_keys', NULL, coalesce(sum(c.active_keys), 0), NULL FROM counted c
		UNION ALL
		(SELECT 4, 'oldest_transaction', NULL, round(coalesce(max(h.seconds), 0), 3), (array_agg(h.who ORDER BY h.seconds DESC NULLS LAST))[1] FROM holder h)
		UNION ALL
		SELECT 5, 'dead_counter_versions', NULL, pg_stat_get_dead_tuples('partner_portal.workspace_usage'::regclass), NULL
		UNION ALL
		SELECT 6, 'periods_not_closed', NULL, count(*), min(p.period_end)::text
		FROM partner_portal.billing_period p WHERE p.closed_at IS NULL AND p.period_end <= now()
		UNION ALL
		SELECT 7, 'billing_failures', NULL, count(*), (SELECT format('workspace %s: %s: %s', f.workspace_id, f.sqlstate, f.message)
			FROM partner_portal.billing_failure f ORDER BY f.failed_at, f.workspace_id LIMIT 1)
		FROM partner_portal.billing_failure
		UNION ALL
		SELECT 8, 'restoring_by_default', NULL, count(*),
			string_agg(format('database %s, role %s', coalesce(d.datname, 'any'), coalesce(s.setrole::regrole::text, 'any')), '; ')
		FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase
		CROSS JOIN LATERAL unnest(s.setconfig) AS c (setting)
		WHERE (s.setdatabase = 0 OR d.datname = current_database()) AND c.setting ~* '^partner_portal\.restoring=(on|true|yes|1)$|^session_replication_role=replica$'
		UNION ALL
		SELECT CASE WHEN c.active_keys > c.key_limit THEN 9 WHEN c.active_keys = c.key_limit THEN 10 ELSE 11 END,
			CASE WHEN c.active_keys > c.key_limit THEN 'over_limit' WHEN c.active_keys = c.key_limit THEN 'at_limit' ELSE 'near_limit' END,
			c.workspace_id, c.active_keys, format('%s of %s', c.active_keys, c.key_limit)
		FROM counted c WHERE c.active_keys > 0 AND c.active_keys::bigint * 100 >= c.key_limit::bigint * 80) f
	ORDER BY f.place, f.workspace_id;
END
$$;
COMMENT ON FUNCTION partner_portal.health() IS
'Figures to watch, one per row; it changes nothing. workspaces, keys, active_keys: how many. oldest_transaction: age in seconds of the transaction that keeps old row versions alive for the longest (a report, a dump, a prepared transaction, a standby''s query), who it is in detail; while one is open, every activation in a busy workspace leaves a version of its counter behind that the next ones must pass. dead_counter_versions: such versions, as the statistics know them. periods_not_closed: billing periods past their end, the earliest end in detail. billing_failures: workspaces that the last billing run could not bill to the end, the first in detail; billing_health() has all. restoring_by_default: settings of databases or roles that begin sessions as if a dump were restored, where inserted rows are not checked; must be 0. over_limit, at_limit, near_limit: a row per workspace that uses 80 percent of its limit or more, value its active keys. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.health() FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('operator', 'EXECUTE', 'FUNCTION partner_portal.health()');
