-- close_period.sql: closes billing periods and stores their usage.
--
-- Locks are taken in this order, each in order of workspace: workspace, workspace_usage (the counter lock, under which
-- keys are stamped), billing_period, usage_period.

CREATE FUNCTION partner_portal.close_claimed(workspace_ids bigint[], as_of timestamptz)
	RETURNS TABLE (workspace_id bigint, period_start timestamptz)
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	known timestamptz;
BEGIN
	PERFORM partner_portal.add_periods(
		(SELECT array_agg(w.workspace_id) FROM partner_portal.workspace w
			WHERE w.workspace_id = ANY (close_claimed.workspace_ids) AND w.deleted_at IS NULL), close_claimed.as_of);
	PERFORM FROM partner_portal.billing_period p
	WHERE p.workspace_id = ANY (close_claimed.workspace_ids) AND p.closed_at IS NULL AND p.period_end <= close_claimed.as_of
	ORDER BY p.workspace_id, p.period_start
	FOR UPDATE;
	known := clock_timestamp();
	INSERT INTO partner_portal.usage_period (workspace_id, period_start, kind, partner_key,
		distinct_keys, peak_keys, peak_at, end_keys, start_keys, key_days, key_seconds, users, known_at)
	SELECT m.workspace_id, m.period_start, m.kind, p.partner_key,
		m.distinct_keys, m.peak_keys, m.peak_at, m.end_keys, m.start_keys, m.key_days, m.key_seconds, m.users, known
	FROM (
		SELECT array_agg(p.workspace_id) AS ids, array_agg(p.period_start) AS starts, array_agg(p.period_end) AS ends, array_agg(p.time_zone) AS zones
		FROM partner_portal.billing_period p
		WHERE p.workspace_id = ANY (close_claimed.workspace_ids) AND p.closed_at IS NULL AND p.period_end <= close_claimed.as_of) due
	CROSS JOIN LATERAL partner_portal.measure_usage(due.ids, due.starts, due.ends, due.zones, NULL) m
	JOIN partner_portal.billing_period p ON p.workspace_id = m.workspace_id AND p.period_start = m.period_start
	ORDER BY m.workspace_id, m.period_start, m.kind
	ON CONFLICT ON CONSTRAINT usage_period_pkey DO UPDATE SET
		distinct_keys = excluded.distinct_keys, peak_keys = excluded.peak_keys, peak_at = excluded.peak_at, end_keys = excluded.end_keys,
		start_keys = excluded.start_keys, key_days = excluded.key_days, key_seconds = excluded.key_seconds, users = excluded.users,
		partner_key = excluded.partner_key, known_at = excluded.known_at;
	UPDATE partner_portal.workspace_usage u SET closed_until = greatest(u.closed_until, due.period_end)
	FROM (
		SELECT p.workspace_id, max(p.period_end) AS period_end FROM partner_portal.billing_period p
		WHERE p.workspace_id = ANY (close_claimed.workspace_ids) AND p.closed_at IS NULL AND p.period_end <= close_claimed.as_of
		GROUP BY p.workspace_id) due
	WHERE u.workspace_id = due.workspace_id;
	RETURN QUERY
	WITH closed AS (
		UPDATE partner_portal.billing_period p SET closed_at = known
		WHERE p.workspace_id = ANY (close_claimed.workspace_ids) AND p.closed_at IS NULL AND p.period_end <= close_claimed.as_of
		RETURNING p.workspace_id, p.period_start)
	SELECT c.workspace_id, c.period_start FROM closed c ORDER BY c.workspace_id, c.period_start;
END
$$;
COMMENT ON FUNCTION partner_portal.close_claimed(bigint[], timestamptz) IS
'Opens missing billing periods of workspaces and closes those that ended by as_of, in order, storing their usage for good; returns them. The caller holds the locks of workspace and workspace_usage. Internal.';
REVOKE ALL ON FUNCTION partner_portal.close_claimed(bigint[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.close_periods(as_of timestamptz DEFAULT now(), max_workspaces integer DEFAULT NULL)
	RETURNS TABLE (workspace_id bigint, period_start timestamptz)
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	claimed bigint[];
BEGIN
	PERFORM partner_portal.require_operator();
	IF close_periods.as_of IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'as_of must not be null';
	ELSIF NOT close_periods.as_of BETWEEN timestamptz '1900-01-01 00:00+00' AND timestamptz '2999-12-31 00:00+00' THEN
		RAISE EXCEPTION USING ERRCODE = 'datetime_field_overflow', MESSAGE = 'as_of is out of range';
	ELSIF close_periods.max_workspaces < 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'max_workspaces must be at least 1';
	END IF;

	-- Workspaces that another session is busy with are its own, or the next call's ...
	SELECT array_agg(c.workspace_id) INTO claimed FROM (
		SELECT w.workspace_id FROM partner_portal.workspace w
		JOIN partner_portal.workspace_usage u ON u.workspace_id = w.workspace_id
		WHERE w.workspace_id IN (
			SELECT p.workspace_id FROM partner_portal.billing_period p
			WHERE p.closed_at IS NULL AND p.period_end <= close_periods.as_of)
		ORDER BY w.workspace_id LIMIT close_periods.max_workspaces
		FOR NO KEY UPDATE OF w SKIP LOCKED FOR UPDATE OF u SKIP LOCKED) c;
	-- ... but if there are no others the first is waited for, so that an empty answer means that nothing is due.
	IF claimed IS NULL THEN
		SELECT array_agg(c.workspace_id) INTO claimed FROM (
			SELECT w.workspace_id FROM partner_portal.workspace w
			JOIN partner_portal.workspace_usage u ON u.workspace_id = w.workspace_id
			WHERE w.workspace_id IN (
				SELECT p.workspace_id FROM partner_portal.billing_period p
				WHERE p.closed_at IS NULL AND p.period_end <= close_periods.as_of)
			ORDER BY w.workspace_id LIMIT 1
			FOR NO KEY UPDATE OF w FOR UPDATE OF u) c;
	END IF;
	IF claimed IS NULL THEN
		RETURN;
	END IF;

	RETURN QUERY SELECT c.workspace_id, c.period_start FROM partner_portal.close_claimed(claimed, close_periods.as_of) c;
END
$$;
COMMENT ON FUNCTION partner_portal.close_periods(timestamptz, integer) IS
'Opens missing billing periods and closes those that ended by as_of, in order, storing their usage for good; returns them. Safe to repeat and to run twice at once: sessions share the work, and an empty answer means that nothing is due. An as_of in the future closes periods as if their keys went on as they are, and no key is stamped before their end. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.close_periods(timestamptz, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.refresh_usage(as_of timestamptz DEFAULT now(), max_workspaces integer DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	claimed partner_portal.billing_period[];
	known timestamptz;
BEGIN
	PERFORM partner_portal.require_operator();
	IF refresh_usage.as_of IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'as_of must not be null';
	ELSIF refresh_usage.max_workspaces < 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'max_workspaces must be at least 1';
	END IF;
	SELECT array_agg(c) INTO claimed FROM (
		SELECT p.* FROM partner_portal.billing_period p
		LEFT JOIN partner_portal.usage_period u ON u.workspace_id = p.workspace_id AND u.period_start = p.period_start AND u.kind = 'total'
		WHERE p.closed_at IS NULL AND p.period_start <= refresh_usage.as_of AND p.period_end > refresh_usage.as_of
			AND coalesce(u.known_at < refresh_usage.as_of, true)
		ORDER BY u.known_at NULLS FIRST, p.workspace_id LIMIT refresh_usage.max_workspaces
		FOR NO KEY UPDATE OF p SKIP LOCKED) c;
	known := clock_timestamp();
	INSERT INTO partner_portal.usage_period (workspace_id, period_start, kind, partner_key,
		distinct_keys, peak_keys, peak_at, end_keys, start_keys, key_days, key_seconds, users, known_at)
	SELECT m.workspace_id, m.period_start, m.kind, p.partner_key,
		m.distinct_keys, m.peak_keys, m.peak_at, m.end_keys, m.start_keys, m.key_days, m.key_seconds, m.users, known
	FROM (
		SELECT array_agg(c.workspace_id) AS ids, array_agg(c.period_start) AS starts, array_agg(c.period_end) AS ends, array_agg(c.time_zone) AS zones
		FROM unnest(claimed) c) due
	CROSS JOIN LATERAL partner_portal.measure_usage(due.ids, due.starts, due.ends, due.zones, NULL) m
	JOIN partner_portal.billing_period p ON p.workspace_id = m.workspace_id AND p.period_start = m.period_start
	ORDER BY m.workspace_id, m.period_start, m.kind
	ON CONFLICT ON CONSTRAINT usage_period_pkey DO UPDATE SET
		distinct_keys = excluded.distinct_keys, peak_keys = excluded.peak_keys, peak_at = excluded.peak_at, end_keys = excluded.end_keys,
		start_keys = excluded.start_keys, key_days = excluded.key_days, key_seconds = excluded.key_seconds, users = excluded.users,
		partner_key = excluded.partner_key, known_at = excluded.known_at;
	RETURN coalesce(cardinality(claimed), 0);
END
$$;
COMMENT ON FUNCTION partner_portal.refresh_usage(timestamptz, integer) IS
'Stores the usage of running billing periods as it is now, for the panel; those that are oldest first. Returns how many periods. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.refresh_usage(timestamptz, integer) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('operator', 'EXECUTE', 'FUNCTION partner_portal.close_periods(timestamptz, integer)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.refresh_usage(timestamptz, integer)');
