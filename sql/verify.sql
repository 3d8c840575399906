-- verify.sql: whether what is derived agrees with the facts, and how it is made again.
--
-- Each concept has a function of its own with the columns of verify(), which calls them all. They read one snapshot, so
-- that what is being committed beside them is no problem. A fault comes from outside: triggers that were disabled, a load
-- under session_replication_role = replica, a damaged disk.

CREATE FUNCTION partner_portal.count_usage(in_workspace bigint)
	RETURNS TABLE (workspace_id bigint, partner_key bigint, total_keys integer, active_keys integer, total_smartphones integer, active_smartphones integer,
		total_contactless_cards integer, active_contactless_cards integer, owners integer, key_limit integer, limit_mode text, blocked text,
		last_disabled_at timestamptz, closed_until timestamptz)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		SELECT w.workspace_id, w.partner_key, coalesce(k.total_keys, 0)::integer, coalesce(k.active_keys, 0)::integer,
			coalesce(k.total_smartphones, 0)::integer, coalesce(k.active_smartphones, 0)::integer,
			coalesce(k.total_keys - k.total_smartphones, 0)::integer, coalesce(k.active_keys - k.active_smartphones, 0)::integer,
			coalesce(m.owners, 0)::integer, CASE WHEN w.restrict_keys THEN w.key_limit END, w.limit_mode,
			CASE WHEN w.deleted_at IS NOT NULL THEN 'deleted' WHEN w.suspended_at IS NOT NULL THEN 'suspended' END,
			coalesce(h.active_until, '-infinity'), coalesce(p.period_end, '-infinity')
		FROM partner_portal.workspace w
		LEFT JOIN (
			SELECT k.workspace_id, count(*) AS total_keys, count(*) FILTER (WHERE k.status = 'active') AS active_keys,
				count(*) FILTER (WHERE k.kind = 'smartphone') AS total_smartphones,
				count(*) FILTER (WHERE k.kind = 'smartphone' AND k.status = 'active') AS active_smartphones
			FROM partner_portal.security_key k
			WHERE count_usage.in_workspace IS NULL OR k.workspace_id = count_usage.in_workspace
			GROUP BY k.workspace_id) k ON k.workspace_id = w.workspace_id
		LEFT JOIN (
			SELECT m.workspace_id, count(*) AS owners FROM partner_portal.member m
			WHERE m.role = 'owner' AND m.accepted_at IS NOT NULL AND (count_usage.in_workspace IS NULL OR m.workspace_id = count_usage.in_workspace)
			GROUP BY m.workspace_id) m ON m.workspace_id = w.workspace_id
		LEFT JOIN LATERAL (
			SELECT h.active_until FROM partner_portal.key_history h WHERE h.workspace_id = w.workspace_id ORDER BY h.active_until DESC LIMIT 1) h ON true
		LEFT JOIN LATERAL (
			SELECT p.period_end FROM partner_portal.billing_period p
			WHERE p.workspace_id = w.workspace_id AND p.closed_at IS NOT NULL ORDER BY p.period_end DESC LIMIT 1) p ON true
		WHERE count_usage.in_workspace IS NULL OR w.workspace_id = count_usage.in_workspace;
	END;
COMMENT ON FUNCTION partner_portal.count_usage(bigint) IS 'What workspace_usage must say by the facts, for one workspace or all (NULL); internal.';
REVOKE ALL ON FUNCTION partner_portal.count_usage(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.verify_counters(in_workspace bigint) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		WITH counted AS MATERIALIZED (
			SELECT c.* FROM partner_portal.count_usage(verify_counters.in_workspace) c
		)
		SELECT c.workspace_id, 'counters', 'there are no counters'
		FROM counted c LEFT JOIN partner_portal.workspace_usage u ON u.workspace_id = c.workspace_id
		WHERE u.workspace_id IS NULL
		UNION ALL
		SELECT c.workspace_id, v.check_name, format('%s is %s, by the facts %s', v.name, coalesce(v.stored, 'null'), coalesce(v.must_be, 'null'))
		FROM counted c JOIN partner_portal.workspace_usage u ON u.workspace_id = c.workspace_id
		CROSS JOIN LATERAL (VALUES
			('counters', 'total_keys', u.total_keys::text, c.total_keys::text),
			('counters', 'active_keys', u.active_keys::text, c.active_keys::text),
			('counters', 'total_smartphones', u.total_smartphones::text, c.total_smartphones::text),
			('counters', 'active_smartphones', u.active_smartphones::text, c.active_smartphones::text),
			('counters', 'total_contactless_cards', u.total_contactless_cards::text, c.total_contactless_cards::text),
			('counters', 'active_contactless_cards', u.active_contactless_cards::text, c.active_contactless_cards::text),
			('counters', 'closed_until', u.closed_until::text, c.closed_until::text),
			-- empty stretches are not kept, and end too: it may be later
			('counters', 'last_disabled_at', least(u.last_disabled_at, c.last_disabled_at)::text, c.last_disabled_at::text),
			('owners', 'owners', u.owners::text, c.owners::text),
			('limit', 'key_limit', u.key_limit::text, c.key_limit::text),
			('limit', 'limit_mode', u.limit_mode, c.limit_mode),
			('limit', 'blocked', u.blocked, c.blocked)) v (check_name, name, stored, must_be)
		WHERE v.stored IS DISTINCT FROM v.must_be
		UNION ALL
		SELECT c.workspace_id, 'limit', format('%s keys are active, the limit is %s', c.active_keys, c.key_limit)
		FROM counted c WHERE c.limit_mode = 'hard' AND c.active_keys > c.key_limit
		UNION ALL
		SELECT c.workspace_id, 'limit', format('%s keys are active in a workspace that is %s', c.active_keys, c.blocked)
		FROM counted c WHERE c.blocked IS NOT NULL AND c.active_keys > 0
		UNION ALL
		SELECT c.workspace_id, 'owners', 'there is no owner'
		FROM counted c WHERE c.owners = 0 AND c.blocked IS DISTINCT FROM 'deleted'
			AND NOT EXISTS (SELECT FROM partner_portal.member m WHERE m.workspace_id = c.workspace_id AND m.role = 'owner');
	END;
COMMENT ON FUNCTION partner_portal.verify_counters(bigint) IS
'verify(), checks counters, owners and limit: workspace_usage against keys, members, periods and settings; keys beyond a hard limit or active in a blocked workspace; a workspace without an owner, pending ones included. Internal.';
REVOKE ALL ON FUNCTION partner_portal.verify_counters(bigint) FROM PUBLIC;

-- A key that is no longer active has its last stretch in the history, if that was not empty.
CREATE FUNCTION partner_portal.missing_stretches(in_workspace bigint) RETURNS SETOF partner_portal.security_key
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		SELECT k.* FROM partner_portal.security_key k
		WHERE k.status <> 'active' AND k.activated_at < k.disabled_at
			AND (missing_stretches.in_workspace IS NULL OR k.workspace_id = missing_stretches.in_workspace)
			AND NOT EXISTS (SELECT FROM partner_portal.key_history h
				WHERE h.workspace_id = k.workspace_id AND h.key_id = k.key_id AND h.active_from = k.activated_at AND h.active_until = k.disabled_at);
	END;
COMMENT ON FUNCTION partner_portal.missing_stretches(bigint) IS 'Keys whose last active stretch is not in key_history as the key tells it; internal.';
REVOKE ALL ON FUNCTION partner_portal.missing_stretches(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.verify_keys(in_workspace bigint) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		SELECT k.workspace_id, 'stretches', format('the last stretch of key %s, %s to %s, is not in the history', k.key_id, k.activated_at, k.disabled_at)
		FROM partner_portal.missing_stretches(verify_keys.in_workspace) k
		UNION ALL
		SELECT h.workspace_id, 'stretches', format('stretches of key %s overlap: one begins at %s, the one before ends at %s', h.key_id, h.next_from, h.active_until)
		FROM (
			SELECT h.workspace_id, h.key_id, h.active_until, lead(h.active_from) OVER (PARTITION BY h.workspace_id, h.key_id ORDER BY h.active_from) AS next_from
			FROM partner_portal.key_history h
			WHERE verify_keys.in_workspace IS NULL OR h.workspace_id = verify_keys.in_workspace) h
		WHERE h.next_from < h.active_until
		UNION ALL
		SELECT k.workspace_id, 'stretches', format('key %s is active since %s, and an earlier stretch ends at %s', k.key_id, k.activated_at, h.active_until)
		FROM partner_portal.security_key k
		JOIN (
			SELECT h.workspace_id, h.key_id, max(h.active_until) AS active_until FROM partner_portal.key_history h
			WHERE verify_keys.in_workspace IS NULL OR h.workspace_id = verify_keys.in_workspace
			GROUP BY h.workspace_id, h.key_id) h ON h.workspace_id = k.workspace_id AND h.key_id = k.key_id
		WHERE k.status = 'active' AND h.active_until > k.activated_at
			AND (verify_keys.in_workspace IS NULL OR k.workspace_id = verify_keys.in_workspace)
		UNION ALL
		SELECT DISTINCT k.workspace_id, 'stretches', format('key %s is a %s, in the history a %s', k.key_id, k.kind, h.kind)
		FROM partner_portal.security_key k
		JOIN partner_portal.key_history h ON h.workspace_id = k.workspace_id AND h.key_id = k.key_id
		WHERE h.kind <> k.kind AND (verify_keys.in_workspace IS NULL OR k.workspace_id = verify_keys.in_workspace)
		UNION ALL
		SELECT k.workspace_id, 'stretches', format('number %s of a key has not been given out yet', k.key_id)
		FROM partner_portal.security_key k
		WHERE k.key_id > (SELECT last_value FROM partner_portal.security_key_key_id_seq)
			AND (verify_keys.in_workspace IS NULL OR k.workspace_id = verify_keys.in_workspace);
	END;
COMMENT ON FUNCTION partner_portal.verify_keys(bigint) IS
'verify(), check stretches: keys against their history, which has every stretch that ended, of the key''s kind, without overlap. Internal.';
REVOKE ALL ON FUNCTION partner_portal.verify_keys(bigint) FROM PUBLIC;

-- Closed periods are measured once more as of the instant they were measured at; those that were closed together together.
CREATE FUNCTION partner_portal.remeasured_periods(in_workspace bigint) RETURNS SETOF partner_portal.usage_period
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		WITH closed AS (
			SELECT array_agg(p.workspace_id) AS ids, array_agg(p.period_start) AS starts, array_agg(p.period_end) AS ends, array_agg(p.time_zone) AS zones,
				coalesce(u.known_at, p.closed_at) AS known_at
			FROM partner_portal.billing_period p
			LEFT JOIN partner_portal.usage_period u ON u.workspace_id = p.workspace_id AND u.period_start = p.period_start AND u.kind = 'total'
			WHERE p.closed_at IS NOT NULL AND (remeasured_periods.in_workspace IS NULL OR p.workspace_id = remeasured_periods.in_workspace)
			GROUP BY coalesce(u.known_at, p.closed_at)
		)
		SELECT m.workspace_id, m.period_start, m.kind, p.partner_key, m.distinct_keys, m.peak_keys, m.peak_at, m.end_keys, m.start_keys,
			m.key_days, m.key_seconds, m.users, c.known_at
		FROM closed c
		CROSS JOIN LATERAL partner_portal.measure_usage(c.ids, c.starts, c.ends, c.zones, c.known_at) m
		JOIN partner_portal.billing_period p ON p.workspace_id = m.workspace_id AND p.period_start = m.period_start
		LEFT JOIN partner_portal.usage_period u ON u.workspace_id = m.workspace_id AND u.period_start = m.period_start AND u.kind = m.kind
		WHERE (u.partner_key, u.distinct_keys, u.peak_keys, u.peak_at, u.end_keys, u.start_keys, u.key_days, u.key_seconds, u.users)
			IS DISTINCT FROM (p.partner_key, m.distinct_keys, m.peak_keys, m.peak_at, m.end_keys, m.start_keys, m.key_days, m.key_seconds, m.users);
	END;
COMMENT ON FUNCTION partner_portal.remeasured_periods(bigint) IS
'What usage_period must say of closed periods where it says something else or nothing, by the facts as they were known when the period was closed; internal.';
REVOKE ALL ON FUNCTION partner_portal.remeasured_periods(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.verify_periods(in_workspace bigint) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		WITH chain AS (
			SELECT p.workspace_id, p.period_start, p.period_end, p.previous_end, p.resumes,
				lag(p.period_end) OVER (PARTITION BY p.workspace_id ORDER BY p.period_start) AS before
			FROM partner_portal.billing_period p
			WHERE verify_periods.in_workspace IS NULL OR p.workspace_id = verify_periods.in_workspace
		)
		SELECT c.workspace_id, 'periods', format('the period from %s %s', c.period_start, CASE
			WHEN c.before IS NULL THEN format('is the first, and names one before that ended at %s', c.previous_end)
			WHEN c.before > c.period_start THEN format('begins before the one before it ends, at %s', c.before)
			WHEN c.previous_end IS DISTINCT FROM c.before THEN format('names %s as the end of the one before, which ended at %s', coalesce(c.previous_end::text, 'nothing'), c.before)
			ELSE format('begins later than the one before it ended, at %s', c.before) END)
		FROM chain c
		WHERE c.previous_end IS DISTINCT FROM c.before OR c.before > c.period_start OR (c.before < c.period_start AND NOT c.resumes)
		UNION ALL
		SELECT r.workspace_id, 'periods', format('the stored usage (%s) of the closed period from %s is not what the facts say', r.kind, r.period_start)
		FROM partner_portal.remeasured_periods(verify_periods.in_workspace) r
		UNION ALL
		SELECT w.workspace_id, 'periods', 'there is no billing period'
		FROM partner_portal.workspace w
		WHERE (verify_periods.in_workspace IS NULL OR w.workspace_id = verify_periods.in_workspace)
			AND NOT EXISTS (SELECT FROM partner_portal.billing_period p WHERE p.workspace_id = w.workspace_id);
	END;
COMMENT ON FUNCTION partner_portal.verify_periods(bigint) IS
'verify(), check periods: a chain without overlap or hole, and the stored usage of each closed period against the facts as they were known then. Internal.';
REVOKE ALL ON FUNCTION partner_portal.verify_periods(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.verify_invoices(in_workspace bigint) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		SELECT i.workspace_id, 'invoices', format('document %s has a subtotal of %s, its lines make %s', i.invoice_id, i.subtotal_minor, coalesce(l.amount_minor, 0))
		FROM partner_portal.invoice i
		LEFT JOIN (
			SELECT l.workspace_id, l.invoice_id, sum(l.amount_minor) AS amount_minor FROM partner_portal.invoice_line l
			WHERE verify_invoices.in_workspace IS NULL OR l.workspace_id = verify_invoices.in_workspace
			GROUP BY l.workspace_id, l.invoice_id) l ON l.workspace_id = i.workspace_id AND l.invoice_id = i.invoice_id
		WHERE i.subtotal_minor <> coalesce(l.amount_minor, 0) AND (verify_invoices.in_workspace IS NULL OR i.workspace_id = verify_invoices.in_workspace)
		UNION ALL
		SELECT l.workspace_id, 'invoices', format('line %s is of document %s, which is not there', l.line, l.invoice_id)
		FROM partner_portal.invoice_line l
		WHERE (verify_invoices.in_workspace IS NULL OR l.workspace_id = verify_invoices.in_workspace)
			AND NOT EXISTS (SELECT FROM partner_portal.invoice i WHERE i.workspace_id = l.workspace_id AND i.invoice_id = l.invoice_id)
		UNION ALL
		SELECT i.workspace_id, 'invoices', format('line %s of document %s charged %s and was credited %s', l.line, i.invoice_id, l.amount_minor, c.amount_minor)
		FROM partner_portal.invoice i
		JOIN partner_portal.invoice_line l ON l.workspace_id = i.workspace_id AND l.invoice_id = i.invoice_id
		JOIN (
			SELECT n.workspace_id, n.credits_invoice_id, c.credits_line, sum(c.amount_minor) AS amount_minor
			FROM partner_portal.invoice n
			JOIN partner_portal.invoice_line c ON c.workspace_id = n.workspace_id AND c.invoice_id = n.invoice_id
			WHERE n.document = 'credit_note' AND n.status <> 'void' AND (verify_invoices.in_workspace IS NULL OR n.workspace_id = verify_invoices.in_workspace)
			GROUP BY n.workspace_id, n.credits_invoice_id, c.credits_line) c
			ON c.workspace_id = l.workspace_id AND c.credits_invoice_id = l.invoice_id AND c.credits_line = l.line
		WHERE c.amount_minor > l.amount_minor
		UNION ALL
		SELECT nullif(s.issuer_key, 0), 'invoices', format('series %s %s of issuer %s has %s documents up to number %s, and counts %s to %s',
			s.document, s.year, s.issuer_key, count(i.number), coalesce(max(i.number), s.first_number - 1), s.first_number, s.last_number)
		FROM partner_portal.invoice_series s
		LEFT JOIN partner_portal.invoice i ON i.issuer_key = s.issuer_key AND i.document = s.document AND i.series_year = s.year
		WHERE verify_invoices.in_workspace IS NULL OR s.issuer_key = verify_invoices.in_workspace
		GROUP BY s.issuer_key, s.document, s.year, s.first_number, s.last_number
		HAVING count(i.number) <> s.last_number - s.first_number + 1 OR coalesce(max(i.number), s.first_number - 1) <> s.last_number;
	END;
COMMENT ON FUNCTION partner_portal.verify_invoices(bigint) IS
'verify(), check invoices: documents with their lines, credits with what they credit, and numbers without a gap (workspace_id is then the issuer''s, NULL the platform). Internal.';
REVOKE ALL ON FUNCTION partner_portal.verify_invoices(bigint) FROM PUBLIC;

-- Lines that are forgotten or erased, or have no digest, tell nothing; what the chain of the log says of lines is verify_activity()'s.
CREATE FUNCTION partner_portal.verify_digests(in_workspace bigint) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		WITH logged AS MATERIALIZED (
			SELECT a.workspace_id, a.activity_id, (a.details ->> 'invoice_id')::bigint AS invoice_id, a.details ->> 'digest' AS digest
			FROM partner_portal.activity a
			WHERE a.action = 'finalize_invoice' AND a.source = 'database' AND a.details ? 'digest'
				AND (verify_digests.in_workspace IS NULL OR a.workspace_id = verify_digests.in_workspace)
		), compared AS MATERIALIZED (
			SELECT l.*, partner_portal.invoice_digest(l.workspace_id, l.invoice_id) AS found FROM logged l
		)
		SELECT c.workspace_id, 'invoice digest', format(CASE WHEN c.found IS NULL THEN 'document %s is gone, line %s of the log has it'
			ELSE 'document %s is not what it was when it was finalized, by line %s of the log' END, c.invoice_id, c.activity_id)
		FROM compared c WHERE c.found IS DISTINCT FROM c.digest;
	END;
COMMENT ON FUNCTION partner_portal.verify_digests(bigint) IS
'verify(), check invoice digest: finished documents against the digest that the log has of them. Internal.';
REVOKE ALL ON FUNCTION partner_portal.verify_digests(bigint) FROM PUBLIC;

-- What is owed is sent from the queue alone, to destinations that have a row and are not paused.
CREATE FUNCTION partner_portal.verify_deliveries(in_workspace bigint) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		SELECT nullif(n.workspace_id, 0), 'deliveries', format('message %s is pending, and not in the queue', n.notification_id)
		FROM partner_portal.notification n
		WHERE n.state = 'pending' AND (verify_deliveries.in_workspace IS NULL OR n.workspace_id = verify_deliveries.in_workspace)
			AND NOT EXISTS (SELECT FROM partner_portal.delivery_queue q WHERE q.workspace_id = n.workspace_id AND q.notification_id = n.notification_id)
		UNION ALL
		SELECT nullif(n.workspace_id, 0), 'deliveries', CASE WHEN n.state <> 'pending' THEN format('message %s is %s, and in the queue still', n.notification_id, n.state)
			ELSE format('message %s is for destination %s, in the queue for %s', n.notification_id, coalesce(n.endpoint_id, 0), q.destination) END
		FROM partner_portal.delivery_queue q
		JOIN partner_portal.notification n ON n.workspace_id = q.workspace_id AND n.notification_id = q.notification_id
		WHERE (n.state <> 'pending' OR q.destination <> coalesce(n.endpoint_id, 0))
			AND (verify_deliveries.in_workspace IS NULL OR q.workspace_id = verify_deliveries.in_workspace)
		UNION ALL
		SELECT e.workspace_id, 'deliveries', CASE WHEN t.destination IS NULL THEN format('webhook endpoint %s has no state of delivery', e.endpoint_id)
			ELSE format('webhook endpoint %s is %s, its messages %s', e.endpoint_id, e.state, CASE WHEN t.paused THEN 'wait' ELSE 'are sent' END) END
		FROM partner_portal.webhook_endpoint e
		LEFT JOIN partner_portal.delivery_destination t ON t.destination = e.endpoint_id
		WHERE t.paused IS DISTINCT FROM (e.state <> 'active')
			AND (verify_deliveries.in_workspace IS NULL OR e.workspace_id = verify_deliveries.in_workspace)
		UNION ALL
		SELECT NULL, 'deliveries', 'the mail relay has no state of delivery'
		WHERE verify_deliveries.in_workspace IS NULL AND NOT EXISTS (SELECT FROM partner_portal.delivery_destination t WHERE t.destination = 0);
	END;
COMMENT ON FUNCTION partner_portal.verify_deliveries(bigint) IS
'verify(), check deliveries: pending messages against the queue, and webhook endpoints against the state that delivery has of them (workspace_id is NULL for the platform''s). Internal.';
REVOKE ALL ON FUNCTION partner_portal.verify_deliveries(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.repair_deliveries(in_workspace bigint) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	mended bigint := 0;
	changed bigint;
BEGIN
	INSERT INTO partner_portal.delivery_destination (destination, max_in_flight)
	SELECT 0, 64 WHERE in_workspace IS NULL
	ON CONFLICT ON CONSTRAINT delivery_destination_pkey DO NOTHING;
	GET DIAGNOSTICS changed = ROW_COUNT;
	mended := mended + changed;
	INSERT INTO partner_portal.delivery_destination AS t (destination, paused)
	SELECT e.endpoint_id, e.state <> 'active' FROM partner_portal.webhook_endpoint e
	WHERE in_workspace IS NULL OR e.workspace_id = in_workspace
	ORDER BY e.endpoint_id
	ON CONFLICT ON CONSTRAINT delivery_destination_pkey DO UPDATE SET paused = excluded.paused WHERE t.paused <> excluded.paused;
	GET DIAGNOSTICS changed = ROW_COUNT;
	mended := mended + changed;
	DELETE FROM partner_portal.delivery_queue q USING partner_portal.notification n
	WHERE n.workspace_id = q.workspace_id AND n.notification_id = q.notification_id AND n.state <> 'pending'
		AND (in_workspace IS NULL OR q.workspace_id = in_workspace);
	GET DIAGNOSTICS changed = ROW_COUNT;
	mended := mended + changed;
	INSERT INTO partner_portal.delivery_queue AS q (workspace_id, notification_id, destination, next_attempt_at)
	SELECT n.workspace_id, n.notification_id, coalesce(n.endpoint_id, 0), n.next_attempt_at FROM partner_portal.notification n
	WHERE n.state = 'pending' AND (in_workspace IS NULL OR n.workspace_id = in_workspace)
	ON CONFLICT ON CONSTRAINT delivery_queue_pkey DO UPDATE SET destination = excluded.destination WHERE q.destination <> excluded.destination;
	GET DIAGNOSTICS changed = ROW_COUNT;
	RETURN mended + changed;
END
$$;
COMMENT ON FUNCTION partner_portal.repair_deliveries(bigint) IS
'Part of repair(): puts into the queue what is pending, takes out what is not, and makes the state of destinations again. Internal.';
REVOKE ALL ON FUNCTION partner_portal.repair_deliveries(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.verify_references(in_workspace bigint) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	key record;
BEGIN
	FOR key IN
		SELECT k.conname, k.conrelid::regclass AS source, k.confrelid::regclass AS target, c.relname,
			EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attname = 'workspace_id') AS of_tenant,
			string_agg(format('s.%I IS NOT NULL', s.attname), ' AND ') AS is_set,
			string_agg(format('t.%I = s.%I', t.attname, s.attname), ' AND ') AS meets
		FROM pg_constraint k
		JOIN pg_class c ON c.oid = k.conrelid
		CROSS JOIN LATERAL unnest(k.conkey, k.confkey) AS pair (source, target)
		JOIN pg_attribute s ON s.attrelid = k.conrelid AND s.attnum = pair.source
		JOIN pg_attribute t ON t.attrelid = k.confrelid AND t.attnum = pair.target
		WHERE k.contype = 'f' AND k.connamespace = 'partner_portal'::regnamespace
		GROUP BY k.oid, k.conname, k.conrelid, k.confrelid, c.relname
		ORDER BY c.relname, k.conname
	LOOP
		CONTINUE WHEN in_workspace IS NOT NULL AND NOT key.of_tenant;
		RETURN QUERY EXECUTE format(
			'SELECT %s, ''references'', format(''rows of %I that refer to what is not there (%I): %%s'', count(*))
			FROM %s s WHERE %s AND NOT EXISTS (SELECT FROM %s t WHERE %s) AND ($1 IS NULL OR %s = $1) GROUP BY 1',
			CASE WHEN key.of_tenant THEN 's.workspace_id' ELSE 'NULL::bigint' END, key.relname, key.conname,
			key.source, key.is_set, key.target, key.meets, CASE WHEN key.of_tenant THEN 's.workspace_id' ELSE 'NULL' END) USING in_workspace;
	END LOOP;
END
$$;
COMMENT ON FUNCTION partner_portal.verify_references(bigint) IS
'verify(), check references: every foreign key of the extension''s tables, which a load under session_replication_role = replica does not check. Internal.';
REVOKE ALL ON FUNCTION partner_portal.verify_references(bigint) FROM PUBLIC;

-- A plan for one workspace is of no use for all of them; and these statements are large to compile.
CREATE FUNCTION partner_portal.verify(in_workspace bigint DEFAULT NULL) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off AS $$
#variable_conflict use_column
BEGIN
	PERFORM partner_portal.require_operator();
	RETURN QUERY
	SELECT v.workspace_id, v.check_name, v.problem
	FROM (
		SELECT * FROM partner_portal.verify_counters(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_keys(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_periods(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_invoices(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_digests(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_activity(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_deliveries(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_references(verify.in_workspace)) v
	ORDER BY v.workspace_id, v.check_name, v.problem;
END
$$;
COMMENT ON FUNCTION partner_portal.verify(bigint) IS
'What does not agree, in one workspace or all of them; no row is the answer one wants. Checks: counters, owners and limit (workspace_usage against the facts; too many keys active; no owner), stretches (keys against their history), periods (the chain, and the usage of closed ones), invoices (documents against their lines, numbers without a gap), invoice digest (finished documents against what the log has of them), activity (the chain of the log), deliveries (pending messages against the queue, endpoints against their destinations), references (foreign keys). repair() mends what is derived: counters, the copy of the limit, a last stretch that is missing, the usage of closed periods, partner_key, the queue. The rest needs a person who knows what happened. Reads every row, takes no lock. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.verify(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.repair(workspace_id bigint DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off AS $$
DECLARE
	mended bigint := 0;
	changed bigint;
	follower record;
BEGIN
	PERFORM partner_portal.require_operator();
	-- as everybody: the workspace first, then its counters
	PERFORM FROM partner_portal.workspace w
	WHERE repair.workspace_id IS NULL OR w.workspace_id = repair.workspace_id
	ORDER BY w.workspace_id FOR NO KEY UPDATE;
	IF NOT FOUND AND repair.workspace_id IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('workspace %s not found', repair.workspace_id);
	END IF;

	-- live rows follow the workspace's partner
	FOR follower IN
		SELECT k.conrelid::regclass AS tab FROM pg_constraint k
		WHERE k.contype = 'f' AND k.confrelid = 'partner_portal.workspace'::regclass AND k.confupdtype = 'c' AND cardinality(k.conkey) = 2
		ORDER BY k.conrelid::regclass::text
	LOOP
		EXECUTE format('UPDATE %s f SET partner_key = w.partner_key FROM partner_portal.workspace w
			WHERE w.workspace_id = f.workspace_id AND f.partner_key <> w.partner_key AND ($1 IS NULL OR f.workspace_id = $1)', follower.tab)
			USING repair.workspace_id;
		GET DIAGNOSTICS changed = ROW_COUNT;
		mended := mended + changed;
	END LOOP;

	INSERT INTO partner_portal.workspace_usage (workspace_id, partner_key)
	SELECT w.workspace_id, w.partner_key FROM partner_portal.workspace w
	WHERE repair.workspace_id IS NULL OR w.workspace_id = repair.workspace_id
	ORDER BY w.workspace_id
	ON CONFLICT ON CONSTRAINT workspace_usage_pkey DO NOTHING;
	PERFORM FROM partner_portal.workspace_usage u
	WHERE repair.workspace_id IS NULL OR u.workspace_id = repair.workspace_id
	ORDER BY u.workspace_id FOR NO KEY UPDATE;
	-- From here on no key or owner is counted and no period closed beside this, and every statement sees what was before.

	INSERT INTO partner_portal.key_history (workspace_id, key_id, active_from, active_until, kind, account_id, recorded_at, partner_key)
	SELECT k.workspace_id, k.key_id, k.activated_at, k.disabled_at, k.kind, k.account_id, k.activated_at, k.partner_key
	FROM partner_portal.missing_stretches(repair.workspace_id) k
	WHERE NOT EXISTS (SELECT FROM partner_portal.key_history h
		WHERE h.workspace_id = k.workspace_id AND h.key_id = k.key_id AND h.active_from < k.disabled_at AND h.active_until > k.activated_at);
	GET DIAGNOSTICS changed = ROW_COUNT;
	mended := mended + changed;

	UPDATE partner_portal.workspace_usage u SET
		total_keys = c.total_keys, active_keys = c.active_keys, total_smartphones = c.total_smartphones, active_smartphones = c.active_smartphones,
		total_contactless_cards = c.total_contactless_cards, active_contactless_cards = c.active_contactless_cards, owners = c.owners,
		key_limit = c.key_limit, limit_mode = c.limit_mode, blocked = c.blocked,
		last_disabled_at = greatest(u.last_disabled_at, c.last_disabled_at), closed_until = c.closed_until
	FROM partner_portal.count_usage(repair.workspace_id) c
	WHERE u.workspace_id = c.workspace_id
		AND (u.total_keys, u.active_keys, u.total_smartphones, u.active_smartphones, u.total_contactless_cards, u.active_contactless_cards, u.owners,
			u.key_limit, u.limit_mode, u.blocked, u.last_disabled_at, u.closed_until)
		IS DISTINCT FROM (c.total_keys, c.active_keys, c.total_smartphones, c.active_smartphones, c.total_contactless_cards, c.active_contactless_cards, c.owners,
			c.key_limit, c.limit_mode, c.blocked, greatest(u.last_disabled_at, c.last_disabled_at), c.closed_until);
	GET DIAGNOSTICS changed = ROW_COUNT;
	mended := mended + changed;
	UPDATE partner_portal.workspace_usage u SET alerted_until = a.until, alerted_percent = a.threshold
	FROM (
		SELECT DISTINCT ON (l.workspace_id) l.workspace_id, l.threshold,
			CASE WHEN isfinite(l.period_start) THEN upper(partner_portal.find_period(l.workspace_id, l.period_start)) ELSE 'infinity' END AS until
		FROM partner_portal.limit_alert l
		WHERE repair.workspace_id IS NULL OR l.workspace_id = repair.workspace_id
		ORDER BY l.workspace_id, l.period_start DESC, l.threshold DESC) a
	WHERE u.workspace_id = a.workspace_id AND (u.alerted_until, u.alerted_percent) < (a.until, a.threshold);
	GET DIAGNOSTICS changed = ROW_COUNT;
	mended := mended + changed;

	SELECT count(*) INTO changed FROM partner_portal.repair_activity(repair.workspace_id);
	mended := mended + changed;
	mended := mended + partner_portal.repair_deliveries(repair.workspace_id);

	INSERT INTO partner_portal.usage_period AS u (workspace_id, period_start, kind, partner_key,
		distinct_keys, peak_keys, peak_at, end_keys, start_keys, key_days, key_seconds, users, known_at)
	SELECT r.workspace_id, r.period_start, r.kind, r.partner_key,
		r.distinct_keys, r.peak_keys, r.peak_at, r.end_keys, r.start_keys, r.key_days, r.key_seconds, r.users, r.known_at
	FROM partner_portal.remeasured_periods(repair.workspace_id) r
	ON CONFLICT ON CONSTRAINT usage_period_pkey DO UPDATE SET
		distinct_keys = excluded.distinct_keys, peak_keys = excluded.peak_keys, peak_at = excluded.peak_at, end_keys = excluded.end_keys,
		start_keys = excluded.start_keys, key_days = excluded.key_days, key_seconds = excluded.key_seconds, users = excluded.users,
		partner_key = excluded.partner_key, known_at = excluded.known_at;
	GET DIAGNOSTICS changed = ROW_COUNT;
	RETURN mended + changed;
END
$$;
COMMENT ON FUNCTION partner_portal.repair(bigint) IS
'Makes again what is derived, in one workspace or all of them (NULL): counters, the copy of the limit, the last stretch of a key that the history lacks, the stored usage of closed periods (as the facts were known then), partner_key of live rows, the head of the activity log, the queue of messages that are pending and the state of their destinations. Returns how many rows it changed. Holds the workspaces'' counters to the end of the transaction: on a busy platform call it for one workspace at a time. It disables no key and changes no document: what verify() still finds afterwards is for a person to decide. Operator only (42501); P0002 no such workspace.';
REVOKE ALL ON FUNCTION partner_portal.repair(bigint) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('operator', 'EXECUTE', 'FUNCTION partner_portal.verify(bigint)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.repair(bigint)');
