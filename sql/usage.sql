-- usage.sql: the measures of billing periods, from the facts in key_history and security_key alone.

CREATE TYPE partner_portal.measure AS (
	distinct_keys integer,
	peak_keys integer,
	peak_at timestamptz,
	end_keys integer,
	start_keys integer,
	key_days numeric,
	key_seconds numeric,
	users integer
);
COMMENT ON TYPE partner_portal.measure IS 'Every measure of one group of keys over one period.';

CREATE FUNCTION partner_portal.measure_add(internal, timestamptz, timestamptz, text, bigint, bigint, timestamptz, timestamptz) RETURNS internal
	LANGUAGE c PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_measure_add';
COMMENT ON FUNCTION partner_portal.measure_add(internal, timestamptz, timestamptz, text, bigint, bigint, timestamptz, timestamptz) IS
'Transition of measure_stretches(); internal.';
REVOKE ALL ON FUNCTION partner_portal.measure_add(internal, timestamptz, timestamptz, text, bigint, bigint, timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.measure_final(internal) RETURNS partner_portal.measure
	LANGUAGE c PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_measure_final';
COMMENT ON FUNCTION partner_portal.measure_final(internal) IS 'Final function of measure_stretches(); internal.';
REVOKE ALL ON FUNCTION partner_portal.measure_final(internal) FROM PUBLIC;

CREATE AGGREGATE partner_portal.measure_stretches(period_start timestamptz, period_end timestamptz, time_zone text,
		key_id bigint, account_id bigint, active_from timestamptz, active_until timestamptz) (
	SFUNC = partner_portal.measure_add,
	STYPE = internal,
	SSPACE = 4096,
	FINALFUNC = partner_portal.measure_final,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE partner_portal.measure_stretches(timestamptz, timestamptz, text, bigint, bigint, timestamptz, timestamptz) IS
'Measures of a group of active stretches over one period in a time zone; a stretch without start is none, one without end is running.';
REVOKE ALL ON FUNCTION partner_portal.measure_stretches(timestamptz, timestamptz, text, bigint, bigint, timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.local_dates(period_start timestamptz, period_end timestamptz, time_zone text) RETURNS integer
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_local_dates';
COMMENT ON FUNCTION partner_portal.local_dates(timestamptz, timestamptz, text) IS
'How many local dates [period_start, period_end) touches; a date that the zone skipped is none. 22008 outside the years 1900 to 2999.';
REVOKE ALL ON FUNCTION partner_portal.local_dates(timestamptz, timestamptz, text) FROM PUBLIC;

-- A stretch is history once it has ended; asked for what was known before its end, it is one that was running. Of a period
-- that was closed by then every stretch is known but what was imported later: under the lock of the counters closing saw all
-- that was stamped before the period's end, and nothing is since. Stamps alone would not tell, for those of a workspace whose
-- periods were closed ahead of the clock are ahead of it too. An import is recorded after its stretch, all else at its start.
CREATE FUNCTION partner_portal.measure_usage(workspace_ids bigint[], starts timestamptz[], ends timestamptz[], time_zones text[], known_at timestamptz)
	RETURNS TABLE (workspace_id bigint, period_start timestamptz, kind text, distinct_keys integer, peak_keys integer, peak_at timestamptz,
		end_keys integer, start_keys integer, key_days numeric, key_seconds numeric, users integer)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		WITH asked AS MATERIALIZED (
			SELECT a.workspace_id, a.period_start, a.period_end, a.time_zone,
				measure_usage.known_at IS NULL OR EXISTS (SELECT FROM partner_portal.billing_period p
					WHERE p.workspace_id = a.workspace_id AND p.period_start = a.period_start AND p.period_end = a.period_end
						AND p.closed_at <= measure_usage.known_at) AS settled
			FROM unnest(measure_usage.workspace_ids, measure_usage.starts, measure_usage.ends, measure_usage.time_zones)
				AS a (workspace_id, period_start, period_end, time_zone)
		), measured AS MATERIALIZED (
			SELECT a.workspace_id, a.period_start, coalesce(f.kind, 'total') AS kind,
				partner_portal.measure_stretches(a.period_start, a.period_end, a.time_zone,
					f.key_id, f.account_id, f.active_from, f.active_until) AS m
			FROM asked a
			CROSS JOIN LATERAL (
				SELECT h.kind, h.key_id, h.account_id, h.active_from,
					CASE WHEN a.settled OR h.active_until <= measure_usage.known_at THEN h.active_until END AS active_until
				FROM partner_portal.key_history h
				WHERE h.workspace_id = a.workspace_id
					AND h.active_until > CASE WHEN a.settled THEN a.period_start ELSE least(a.period_start, measure_usage.known_at) END
					AND h.active_from < a.period_end
					AND (h.recorded_at <= coalesce(measure_usage.known_at, 'infinity') OR (a.settled AND h.recorded_at = h.active_from))
				UNION ALL
				SELECT k.kind, k.key_id, k.account_id, k.activated_at, NULL
				FROM partner_portal.security_key k
				WHERE k.workspace_id = a.workspace_id AND k.status = 'active'
					AND k.activated_at < a.period_end
					AND (a.settled OR k.activated_at <= measure_usage.known_at)
			) f
			GROUP BY GROUPING SETS ((a.workspace_id, a.period_start, f.kind), (a.workspace_id, a.period_start))
		)
		SELECT a.workspace_id, a.period_start, g.kind, coalesce((m.m).distinct_keys, 0), coalesce((m.m).peak_keys, 0), (m.m).peak_at,
			coalesce((m.m).end_keys, 0), coalesce((m.m).start_keys, 0), coalesce((m.m).key_days, 0), coalesce((m.m).key_seconds, 0),
			coalesce((m.m).users, 0)
		FROM asked a
		CROSS JOIN (VALUES (1, 'contactless_card'), (2, 'smartphone'), (3, 'total')) g (place, kind)
		LEFT JOIN measured m ON m.workspace_id = a.workspace_id AND m.period_start = a.period_start AND m.kind = g.kind
		ORDER BY a.workspace_id, a.period_start, g.place;
	END;
COMMENT ON FUNCTION partner_portal.measure_usage(bigint[], timestamptz[], timestamptz[], text[], timestamptz) IS
'Measures of many workspaces and periods at once, each per kind and in total (kind total), zeros included, as they were known at an instant (NULL is now); internal.';
REVOKE ALL ON FUNCTION partner_portal.measure_usage(bigint[], timestamptz[], timestamptz[], text[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.check_period(period tstzrange) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF period IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'period must not be null';
	ELSIF isempty(period) OR lower_inf(period) OR upper_inf(period) OR NOT isfinite(lower(period)) OR NOT isfinite(upper(period))
		OR NOT lower_inc(period) OR upper_inc(period) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'period must have a start and an end',
			DETAIL = 'It is half-open, not empty, and bounded on both sides.', HINT = 'Write it as [start, end).';
	ELSIF lower(period) < timestamptz '1900-01-01 00:00+00' OR upper(period) >= timestamptz '3000-01-01 00:00+00' THEN
		RAISE EXCEPTION USING ERRCODE = 'datetime_field_overflow', MESSAGE = 'timestamp out of range for a billing period',
			DETAIL = 'Billing periods are known from the year 1900 to the year 2999.';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.check_period(tstzrange) IS 'Returns for a bounded half-open range of the years 1900 to 2999; else 22004, 22023, 22008. Internal.';
REVOKE ALL ON FUNCTION partner_portal.check_period(tstzrange) FROM PUBLIC;

-- A registered customer's past with another partner is not its present partner's to read.
CREATE FUNCTION partner_portal.check_period_visible(workspace_id bigint, period tstzrange) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF EXISTS (SELECT FROM partner_portal.workspace w
			JOIN partner_portal.billing_period p ON p.workspace_id = w.workspace_id AND p.partner_key <> w.partner_key
			WHERE w.workspace_id = check_period_visible.workspace_id AND w.partner_id = partner_portal.current_partner_id()
				AND p.period_end > lower(check_period_visible.period)) THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'usage before the customer came to the partner is not visible';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.check_period_visible(bigint, tstzrange) IS 'Returns unless the identity acts for the customer''s partner and the period begins before the customer came to it: 42501. Internal.';
REVOKE ALL ON FUNCTION partner_portal.check_period_visible(bigint, tstzrange) FROM PUBLIC;

CREATE FUNCTION partner_portal.usage(workspace_id bigint, period tstzrange DEFAULT NULL, known_at timestamptz DEFAULT NULL)
	RETURNS TABLE (kind text, distinct_keys integer, peak_keys integer, peak_at timestamptz, end_keys integer, start_keys integer,
		key_days numeric, key_seconds numeric, users integer)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	asked tstzrange;
	stored partner_portal.billing_period;
BEGIN
	PERFORM partner_portal.authorize('read', usage.workspace_id);
	asked := coalesce(usage.period, partner_portal.find_period(usage.workspace_id, now()));
	PERFORM partner_portal.check_period(asked);
	PERFORM partner_portal.check_period_visible(usage.workspace_id, asked);
	SELECT p.* INTO stored FROM partner_portal.billing_period p
	WHERE p.workspace_id = usage.workspace_id AND p.period_start <= lower(asked) AND p.period_end > lower(asked);
	IF stored.closed_at IS NOT NULL AND stored.period_start = lower(asked) AND stored.period_end = upper(asked)
		AND stored.late_facts_at IS NULL THEN
		RETURN QUERY
		SELECT nullif(u.kind, 'total'), u.distinct_keys, u.peak_keys, u.peak_at, u.end_keys, u.start_keys, u.key_days, u.key_seconds, u.users
		FROM partner_portal.usage_period u
		WHERE u.workspace_id = usage.workspace_id AND u.period_start = lower(asked)
			AND (usage.known_at IS NULL OR usage.known_at >= u.known_at)
		ORDER BY u.kind;
		IF FOUND THEN
			RETURN;
		END IF;
	END IF;
	RETURN QUERY
	SELECT nullif(m.kind, 'total'), m.distinct_keys, m.peak_keys, m.peak_at, m.end_keys, m.start_keys, m.key_days, m.key_seconds, m.users
	FROM partner_portal.workspace w
	CROSS JOIN LATERAL partner_portal.measure_usage(ARRAY[w.workspace_id], ARRAY[lower(asked)], ARRAY[upper(asked)],
		ARRAY[coalesce(stored.time_zone, w.time_zone)], usage.known_at) m
	WHERE w.workspace_id = usage.workspace_id;
END
$$;
COMMENT ON FUNCTION partner_portal.usage(bigint, tstzrange, timestamptz) IS
'Measures of a workspace over a period [start, end), one row per kind and one in total (kind NULL). period NULL is the current one; known_at NULL is now, what this transaction did included. A key still active counts as active up to the end of the period. 22023 period empty or unbounded, 22008 outside the years 1900 to 2999; 42501, P0002 as authorize().';
REVOKE ALL ON FUNCTION partner_portal.usage(bigint, tstzrange, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.csv_field(value text) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN CASE WHEN value ~ '[",\r\n]|^\s|\s$' THEN '"' || replace(value, '"', '""') || '"' ELSE coalesce(value, '') END;
COMMENT ON FUNCTION partner_portal.csv_field(text) IS 'A value as a field of a CSV line (RFC 4180): quoted where it must be, NULL empty.';
REVOKE ALL ON FUNCTION partner_portal.csv_field(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.usage_csv(workspace_id bigint, period tstzrange DEFAULT NULL) RETURNS text
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
	asked tstzrange;
	lines text;
BEGIN
	PERFORM partner_portal.authorize('read', usage_csv.workspace_id);
	asked := coalesce(usage_csv.period, partner_portal.find_period(usage_csv.workspace_id, now()));
	PERFORM partner_portal.check_period(asked);
	PERFORM partner_portal.check_period_visible(usage_csv.workspace_id, asked);
	WITH zone AS (
		SELECT coalesce(p.time_zone, w.time_zone) AS time_zone
		FROM partner_portal.workspace w
		LEFT JOIN partner_portal.billing_period p ON p.workspace_id = w.workspace_id
			AND p.period_start <= lower(asked) AND p.period_end > lower(asked)
		WHERE w.workspace_id = usage_csv.workspace_id
	), stretch AS (
		SELECT h.key_id, h.kind, h.account_id, h.active_from, h.active_until
		FROM partner_portal.key_history h
		WHERE h.workspace_id = usage_csv.workspace_id AND h.active_until > lower(asked) AND h.active_from < upper(asked)
		UNION ALL
		SELECT k.key_id, k.kind, k.account_id, k.activated_at, NULL
		FROM partner_portal.security_key k
		WHERE k.workspace_id = usage_csv.workspace_id AND k.status = 'active' AND k.activated_at < upper(asked)
	), line AS (
		SELECT s.key_id, min(s.kind) AS kind, (array_agg(s.account_id ORDER BY s.active_from DESC))[1] AS account_id,
			count(*) AS stretches, min(s.active_from) AS active_from, max(coalesce(s.active_until, 'infinity')) AS active_until,
			partner_portal.measure_stretches(lower(asked), upper(asked), z.time_zone, s.key_id, s.account_id, s.active_from, s.active_until) AS m
		FROM stretch s CROSS JOIN zone z
		GROUP BY s.key_id
	)
	SELECT string_agg(concat_ws(',', l.key_id, l.kind, partner_portal.csv_field(k.serial), partner_portal.csv_field(k.label),
			partner_portal.csv_field(a.email), l.stretches,
			to_char(l.active_from AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
			CASE WHEN isfinite(l.active_until) THEN to_char(l.active_until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') ELSE '' END,
			(l.m).key_days, (l.m).key_seconds) || E'\r\n', '' ORDER BY l.key_id)
	INTO lines
	FROM line l
	LEFT JOIN partner_portal.security_key k ON k.workspace_id = usage_csv.workspace_id AND k.key_id = l.key_id
	LEFT JOIN partner_portal.account a ON a.account_id = l.account_id;
	RETURN E'key_id,kind,serial,label,holder,stretches,active_from,active_until,key_days,key_seconds\r\n' || coalesce(lines, '');
END
$$;
COMMENT ON FUNCTION partner_portal.usage_csv(bigint, tstzrange) IS
'One line per key that was active in a period (NULL is the current one): RFC 4180 with a header and CRLF, times in UTC, active_until empty while it is active; serial and label are empty for a deleted key, holder is the last one''s e-mail. Texts are as people wrote them: what opens the file must not run them as formulas.';
REVOKE ALL ON FUNCTION partner_portal.usage_csv(bigint, tstzrange) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.usage_csv(bigint, tstzrange)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.usage(bigint, tstzrange, timestamptz)');
