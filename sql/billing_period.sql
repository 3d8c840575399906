-- billing_period.sql: stored billing periods, without overlap or hole by constraint, and the usage of closed ones.

-- Each period names the end of the one before it (previous_end), once per end and once per workspace for none: so the
-- periods of a workspace form one line. The next begins where the last ended; only one that resumes, after a deletion
-- was undone, begins later.
CREATE TABLE partner_portal.billing_period (
	workspace_id bigint NOT NULL,
	period_start timestamptz NOT NULL,
	period_end timestamptz NOT NULL,
	previous_end timestamptz,
	resumes boolean NOT NULL DEFAULT false,
	label text NOT NULL,
	time_zone text NOT NULL,
	partner_key bigint NOT NULL,
	opened_at timestamptz NOT NULL DEFAULT now(),
	closed_at timestamptz,
	late_facts_at timestamptz,
	whole_start timestamptz,
	whole_end timestamptz,
	payer_id bigint,
	invoice_visibility text,
	billed_at timestamptz,
	CONSTRAINT billing_period_pkey PRIMARY KEY (workspace_id, period_start),
	CONSTRAINT billing_period_end_key UNIQUE (workspace_id, period_end),
	CONSTRAINT billing_period_previous_key UNIQUE NULLS NOT DISTINCT (workspace_id, previous_end),
	CONSTRAINT billing_period_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace,
	CONSTRAINT billing_period_previous FOREIGN KEY (workspace_id, previous_end)
		REFERENCES partner_portal.billing_period (workspace_id, period_end),
	CONSTRAINT billing_period_whole CHECK (whole_start <= period_start AND whole_end >= period_end),
	CONSTRAINT billing_period_invoice_visibility CHECK (invoice_visibility IN ('payer', 'both')),
	CONSTRAINT billing_period_bounds CHECK (period_start < period_end AND isfinite(period_start) AND isfinite(period_end)),
	CONSTRAINT billing_period_no_hole CHECK (CASE WHEN resumes THEN previous_end IS NOT NULL AND previous_end < period_start
		ELSE previous_end = period_start END)
);
CREATE INDEX billing_period_unbilled ON partner_portal.billing_period (workspace_id, period_start) WHERE billed_at IS NULL;
CREATE INDEX billing_period_due ON partner_portal.billing_period (period_end) WHERE closed_at IS NULL;
COMMENT ON TABLE partner_portal.billing_period IS
'Billing periods [period_start, period_end) of a workspace as they were when they opened: a chain without overlap or hole.';
COMMENT ON COLUMN partner_portal.billing_period.label IS 'First and last local date, as 2026-02-28..2026-03-30.';
COMMENT ON COLUMN partner_portal.billing_period.partner_key IS 'Partner when the period opened, 0 for none; it does not follow a transfer.';
COMMENT ON COLUMN partner_portal.billing_period.time_zone IS 'Zone of the workspace when the period opened: its local dates are of this zone.';
COMMENT ON COLUMN partner_portal.billing_period.resumes IS 'Begins after a hole: the workspace was deleted and restored.';
COMMENT ON COLUMN partner_portal.billing_period.late_facts_at IS 'When import_key_activity() last brought in a fact of this period after it was closed; its stored usage lacks it.';
COMMENT ON COLUMN partner_portal.billing_period.whole_start IS 'With whole_end, the whole period that this is a part of: it was split, or a change of schedule cut it. It bears flat fees and minimums by its share of local dates. NULL is whole.';
COMMENT ON COLUMN partner_portal.billing_period.payer_id IS 'Workspace that pays a platform plan''s invoice of the period, as it was at its start.';
COMMENT ON COLUMN partner_portal.billing_period.invoice_visibility IS 'workspace.invoice_visibility at its start.';
COMMENT ON COLUMN partner_portal.billing_period.billed_at IS 'When it was settled whether the period has a document; a run does not look at it again.';
COMMENT ON COLUMN partner_portal.billing_period.closed_at IS 'When its usage was stored for good in usage_period.';

CREATE TABLE partner_portal.usage_period (
	workspace_id bigint NOT NULL,
	period_start timestamptz NOT NULL,
	kind text NOT NULL,
	partner_key bigint NOT NULL,
	distinct_keys integer NOT NULL,
	peak_keys integer NOT NULL,
	peak_at timestamptz,
	end_keys integer NOT NULL,
	start_keys integer NOT NULL,
	key_days numeric NOT NULL,
	key_seconds numeric NOT NULL,
	users integer NOT NULL,
	known_at timestamptz NOT NULL,
	CONSTRAINT usage_period_pkey PRIMARY KEY (workspace_id, period_start, kind),
	CONSTRAINT usage_period_period FOREIGN KEY (workspace_id, period_start) REFERENCES partner_portal.billing_period,
	CONSTRAINT usage_period_kind CHECK (kind IN ('smartphone', 'contactless_card', 'total'))
);
CREATE INDEX usage_period_partner_key_idx ON partner_portal.usage_period (partner_key);
COMMENT ON TABLE partner_portal.usage_period IS
'Measures of a billing period, per kind and in total: of a closed one for good, of the running one as of known_at.';
COMMENT ON COLUMN partner_portal.usage_period.kind IS 'Kind of key; NULL is all keys together.';
COMMENT ON COLUMN partner_portal.usage_period.distinct_keys IS 'Different keys that were active at any time in the period: the default measure of bills.';
COMMENT ON COLUMN partner_portal.usage_period.peak_keys IS 'Most keys active at one instant; where one ends as another starts, the end comes first.';
COMMENT ON COLUMN partner_portal.usage_period.peak_at IS 'The first such instant; NULL when no key was active.';
COMMENT ON COLUMN partner_portal.usage_period.end_keys IS 'Keys active just before the end of the period.';
COMMENT ON COLUMN partner_portal.usage_period.start_keys IS 'Keys active at its start.';
COMMENT ON COLUMN partner_portal.usage_period.key_days IS 'Sum over the keys of the local dates on which each was active, divided by the local dates of the whole period.';
COMMENT ON COLUMN partner_portal.usage_period.key_seconds IS 'Sum over the keys of the seconds that each was active in the period.';
COMMENT ON COLUMN partner_portal.usage_period.users IS 'Different holders of keys that were active in the period.';
COMMENT ON COLUMN partner_portal.usage_period.known_at IS 'Facts recorded by this instant are in the measures.';

ALTER TABLE partner_portal.billing_period ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.usage_period ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.billing_period AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
-- A new partner's staff sees nothing of the old partner's time; a complete grant is for all of it.
CREATE POLICY read ON partner_portal.billing_period FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.complete_workspaces('read'))::bigint[])
		OR (workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[])
			AND partner_key = (SELECT partner_portal.current_partner_id())));

CREATE POLICY signed_in ON partner_portal.usage_period AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
-- A new partner's staff sees nothing of the old partner's time; a complete grant is for all of it.
CREATE POLICY read ON partner_portal.usage_period FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.complete_workspaces('read'))::bigint[])
		OR (workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[])
			AND partner_key = (SELECT partner_portal.current_partner_id())));

-- Dumped in order: each row's predecessor is there when it is restored by an INSERT of its own.
SELECT pg_catalog.pg_extension_config_dump('partner_portal.billing_period', 'ORDER BY workspace_id, period_start');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.usage_period', '');

-- The formula.

CREATE FUNCTION partner_portal.check_time_zone(time_zone text) RETURNS text
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_check_time_zone';
COMMENT ON FUNCTION partner_portal.check_time_zone(text) IS
'Returns the name of a zone as the IANA time zone database spells it; 22023 if the server does not know it: abbreviations, POSIX strings and names that AT TIME ZONE reads as abbreviations (CET, EST) are none.';
REVOKE ALL ON FUNCTION partner_portal.check_time_zone(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.billing_period_bounds(anchor_date date, billing_step text, time_zone text, at timestamptz,
		OUT period_start timestamptz, OUT period_end timestamptz)
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_billing_period_bounds';
COMMENT ON FUNCTION partner_portal.billing_period_bounds(date, text, text, timestamptz) IS
'The boundaries (anchor_date::timestamp + n * step) AT TIME ZONE time_zone that an instant lies between. 22008 outside the years 1900 to 2999, 22023 unknown zone or step.';
REVOKE ALL ON FUNCTION partner_portal.billing_period_bounds(date, text, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.billing_periods(anchor_date date, billing_step text, time_zone text, since timestamptz, until timestamptz)
	RETURNS TABLE (period_start timestamptz, period_end timestamptz, label text)
	LANGUAGE c STABLE STRICT PARALLEL SAFE ROWS 12 AS 'MODULE_PATHNAME', 'partner_portal_billing_periods';
COMMENT ON FUNCTION partner_portal.billing_periods(date, text, text, timestamptz, timestamptz) IS
'Every period that begins by until, in order; the first begins at since and ends at the next boundary.';
REVOKE ALL ON FUNCTION partner_portal.billing_periods(date, text, text, timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.period_label(period_start timestamptz, period_end timestamptz, time_zone text) RETURNS text
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_period_label';
COMMENT ON FUNCTION partner_portal.period_label(timestamptz, timestamptz, text) IS 'First and last local date of a period, as 2026-02-28..2026-03-30.';
REVOKE ALL ON FUNCTION partner_portal.period_label(timestamptz, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.find_period(workspace_id bigint, at timestamptz) RETURNS tstzrange
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		SELECT CASE WHEN before.period_end > find_period.at THEN tstzrange(before.period_start, before.period_end)
			ELSE tstzrange(greatest(f.period_start, before.period_end), least(f.period_end, later.period_start)) END
		FROM partner_portal.workspace w
		CROSS JOIN LATERAL partner_portal.billing_period_bounds(w.anchor_date, w.billing_step, w.time_zone, find_period.at) f
		LEFT JOIN LATERAL (
			SELECT p.period_start, p.period_end FROM partner_portal.billing_period p
			WHERE p.workspace_id = find_period.workspace_id AND p.period_start <= find_period.at
			ORDER BY p.period_start DESC LIMIT 1) before ON true
		LEFT JOIN LATERAL (
			SELECT p.period_start FROM partner_portal.billing_period p
			WHERE p.workspace_id = find_period.workspace_id AND p.period_start > find_period.at
			ORDER BY p.period_start LIMIT 1) later ON true
		WHERE w.workspace_id = find_period.workspace_id;
	END;
COMMENT ON FUNCTION partner_portal.find_period(bigint, timestamptz) IS 'billing_period_at() without asking who may know; internal.';
REVOKE ALL ON FUNCTION partner_portal.find_period(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.billing_period_at(workspace_id bigint, at timestamptz DEFAULT now()) RETURNS tstzrange
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.authorize('read', billing_period_at.workspace_id);
	IF billing_period_at.at IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'instant must not be null';
	END IF;
	RETURN partner_portal.find_period(billing_period_at.workspace_id, billing_period_at.at);
END
$$;
COMMENT ON FUNCTION partner_portal.billing_period_at(bigint, timestamptz) IS
'Billing period [start, end) that an instant lies in: the stored one if there is one, else the formula''s, cut where stored ones begin or end. 22008 outside the years 1900 to 2999.';
REVOKE ALL ON FUNCTION partner_portal.billing_period_at(bigint, timestamptz) FROM PUBLIC;

-- Opening. Callers of add_periods() hold the workspace's row, so that its zone, anchor and step stay as they are read.

CREATE FUNCTION partner_portal.add_periods(workspace_ids bigint[], as_of timestamptz) RETURNS void
	LANGUAGE sql
	BEGIN ATOMIC
		INSERT INTO partner_portal.billing_period (workspace_id, period_start, period_end, previous_end, label, time_zone, partner_key)
		SELECT w.workspace_id, f.period_start, f.period_end,
			CASE WHEN last.period_end IS NOT NULL OR f.period_start > first.period_start THEN f.period_start END,
			f.label, w.time_zone, w.partner_key
		FROM partner_portal.workspace w
		LEFT JOIN LATERAL (
			SELECT p.period_end FROM partner_portal.billing_period p
			WHERE p.workspace_id = w.workspace_id
			ORDER BY p.period_start DESC LIMIT 1) last ON true
		LEFT JOIN LATERAL partner_portal.billing_period_bounds(w.anchor_date, w.billing_step, w.time_zone, w.created_at) first
			ON last.period_end IS NULL
		CROSS JOIN LATERAL partner_portal.billing_periods(w.anchor_date, w.billing_step, w.time_zone,
			coalesce(last.period_end, first.period_start), greatest(add_periods.as_of, CASE WHEN last.period_end IS NULL THEN w.created_at END)) f
		WHERE w.workspace_id = ANY (add_periods.workspace_ids)
		ORDER BY w.workspace_id, f.period_start
		ON CONFLICT ON CONSTRAINT billing_period_pkey DO NOTHING;
	END;
COMMENT ON FUNCTION partner_portal.add_periods(bigint[], timestamptz) IS
'Opens every missing period up to an instant, in order, from the end of each workspace''s last one, or from its creation; internal.';
REVOKE ALL ON FUNCTION partner_portal.add_periods(bigint[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.open_periods(workspace_id bigint, as_of timestamptz) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = open_periods.workspace_id FOR NO KEY UPDATE;
	PERFORM partner_portal.add_periods(ARRAY[open_periods.workspace_id], open_periods.as_of);
END
$$;
COMMENT ON FUNCTION partner_portal.open_periods(bigint, timestamptz) IS 'Opens every missing period of a workspace up to an instant; internal.';
REVOKE ALL ON FUNCTION partner_portal.open_periods(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.add_earlier_periods(workspace_id bigint, since timestamptz) RETURNS void
	LANGUAGE sql
	BEGIN ATOMIC
		WITH moved AS (
			UPDATE partner_portal.billing_period p SET previous_end = p.period_start
			WHERE p.workspace_id = add_earlier_periods.workspace_id AND p.previous_end IS NULL AND p.period_start > add_earlier_periods.since
			RETURNING p.workspace_id, p.period_start, p.partner_key)
		INSERT INTO partner_portal.billing_period (workspace_id, period_start, period_end, previous_end, label, time_zone, partner_key)
		SELECT w.workspace_id, f.period_start, least(f.period_end, moved.period_start),
			CASE WHEN f.period_start > first.period_start THEN f.period_start END,
			partner_portal.period_label(f.period_start, least(f.period_end, moved.period_start), w.time_zone), w.time_zone, moved.partner_key
		FROM moved
		JOIN partner_portal.workspace w ON w.workspace_id = moved.workspace_id
		CROSS JOIN LATERAL partner_portal.billing_period_bounds(w.anchor_date, w.billing_step, w.time_zone, add_earlier_periods.since) first
		CROSS JOIN LATERAL partner_portal.billing_periods(w.anchor_date, w.billing_step, w.time_zone, first.period_start, moved.period_start) f
		WHERE f.period_start < moved.period_start;
	END;
COMMENT ON FUNCTION partner_portal.add_earlier_periods(bigint, timestamptz) IS
'Opens the periods from an instant before a workspace''s first one up to it, so that imported history is measured and listed; internal.';
REVOKE ALL ON FUNCTION partner_portal.add_earlier_periods(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.workspace_schedule() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'INSERT' THEN
		IF partner_portal.restoring_session() THEN
			RETURN NEW;
		END IF;
		NEW.time_zone := partner_portal.check_time_zone(NEW.time_zone);
		NEW.anchor_date := coalesce(NEW.anchor_date, (NEW.created_at AT TIME ZONE NEW.time_zone)::date);
		RETURN NEW;
	END IF;
	IF NEW.time_zone IS DISTINCT FROM OLD.time_zone THEN
		NEW.time_zone := partner_portal.check_time_zone(NEW.time_zone);
	END IF;
	-- What has begun keeps the schedule and the partner it began with.
	IF OLD.deleted_at IS NULL THEN
		PERFORM partner_portal.add_periods(ARRAY[OLD.workspace_id], clock_timestamp());
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION partner_portal.workspace_schedule() IS
'Trigger: checks the zone (22023), sets the default anchor, and before zone, anchor, step or partner change opens the periods that have begun, so that the change begins at the end of the current one.';
REVOKE ALL ON FUNCTION partner_portal.workspace_schedule() FROM PUBLIC;

CREATE TRIGGER workspace_schedule_insert BEFORE INSERT ON partner_portal.workspace
	FOR EACH ROW EXECUTE FUNCTION partner_portal.workspace_schedule();
CREATE TRIGGER workspace_schedule_update BEFORE UPDATE ON partner_portal.workspace
	FOR EACH ROW WHEN ((OLD.time_zone, OLD.anchor_date, OLD.billing_step, OLD.partner_id) IS DISTINCT FROM
		(NEW.time_zone, NEW.anchor_date, NEW.billing_step, NEW.partner_id))
	EXECUTE FUNCTION partner_portal.workspace_schedule();

CREATE FUNCTION partner_portal.workspace_first_period() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT partner_portal.restoring_session() THEN
		PERFORM partner_portal.add_periods(array_agg(c.workspace_id), NULL) FROM created c;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.workspace_first_period() IS 'Trigger: opens the billing period that a workspace is created in.';
REVOKE ALL ON FUNCTION partner_portal.workspace_first_period() FROM PUBLIC;

CREATE TRIGGER workspace_first_period AFTER INSERT ON partner_portal.workspace
	REFERENCING NEW TABLE AS created
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.workspace_first_period();

-- Splitting, ending, resuming.

CREATE FUNCTION partner_portal.end_periods(workspace_id bigint, at timestamptz) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	ended timestamptz;
BEGIN
	PERFORM partner_portal.open_periods(end_periods.workspace_id, end_periods.at);
	SELECT greatest(end_periods.at, max(p.period_end) FILTER (WHERE p.closed_at IS NOT NULL)) INTO ended
	FROM partner_portal.billing_period p WHERE p.workspace_id = end_periods.workspace_id;
	DELETE FROM partner_portal.usage_period u
	WHERE u.workspace_id = end_periods.workspace_id AND u.period_start >= ended;
	DELETE FROM partner_portal.billing_period p
	WHERE p.workspace_id = end_periods.workspace_id AND p.period_start >= ended;
	UPDATE partner_portal.billing_period p
	SET period_end = ended, label = partner_portal.period_label(p.period_start, ended, p.time_zone)
	WHERE p.workspace_id = end_periods.workspace_id AND p.period_end > ended;
END
$$;
COMMENT ON FUNCTION partner_portal.end_periods(bigint, timestamptz) IS
'Ends the running period of a workspace at an instant and opens no other: for its deletion. A closed period is never cut; internal.';
REVOKE ALL ON FUNCTION partner_portal.end_periods(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.start_periods(workspace_id bigint, at timestamptz) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = start_periods.workspace_id FOR NO KEY UPDATE;
	INSERT INTO partner_portal.billing_period (workspace_id, period_start, period_end, previous_end, resumes, label, time_zone, partner_key)
	SELECT w.workspace_id, s.period_start, f.period_end, last.period_end, coalesce(last.period_end < s.period_start, false),
		partner_portal.period_label(s.period_start, f.period_end, w.time_zone), w.time_zone, w.partner_key
	FROM partner_portal.workspace w
	LEFT JOIN LATERAL (
		SELECT p.period_end, p.closed_at FROM partner_portal.billing_period p
		WHERE p.workspace_id = w.workspace_id
		ORDER BY p.period_start DESC LIMIT 1) last ON true
	CROSS JOIN LATERAL (SELECT greatest(start_periods.at, last.period_end) AS period_start) s
	CROSS JOIN LATERAL partner_portal.billing_period_bounds(w.anchor_date, w.billing_step, w.time_zone, s.period_start) f
	WHERE w.workspace_id = start_periods.workspace_id
		AND (last.period_end IS NULL OR last.period_end <= start_periods.at OR last.closed_at IS NOT NULL);
END
$$;
COMMENT ON FUNCTION partner_portal.start_periods(bigint, timestamptz) IS
'Begins a period at an instant after the periods of a workspace were ended: for its restoration, the one hole there may be. After a period that was closed before its end, it begins there. Does nothing while one is running; internal.';
REVOKE ALL ON FUNCTION partner_portal.start_periods(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.split_period(workspace_id bigint, at timestamptz) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	split_at timestamptz;
	running partner_portal.billing_period;
BEGIN
	PERFORM partner_portal.open_periods(split_period.workspace_id, split_period.at);
	SELECT greatest(split_period.at, max(p.period_end) FILTER (WHERE p.closed_at IS NOT NULL)) INTO split_at
	FROM partner_portal.billing_period p WHERE p.workspace_id = split_period.workspace_id;
	SELECT p.* INTO running FROM partner_portal.billing_period p
	WHERE p.workspace_id = split_period.workspace_id AND p.period_start < split_at AND p.period_end > split_at
	FOR UPDATE;
	IF FOUND THEN
		WITH cut AS (
			UPDATE partner_portal.billing_period p
			SET period_end = split_at, label = partner_portal.period_label(p.period_start, split_at, p.time_zone)
			WHERE p.workspace_id = running.workspace_id AND p.period_start = running.period_start
			RETURNING p.workspace_id)
		INSERT INTO partner_portal.billing_period (workspace_id, period_start, period_end, previous_end, label, time_zone, partner_key)
		SELECT cut.workspace_id, split_at, running.period_end, split_at,
			partner_portal.period_label(split_at, running.period_end, running.time_zone), running.time_zone, 0
		FROM cut;
	END IF;
	-- What begins from here on is the present partner's.
	UPDATE partner_portal.billing_period p SET partner_key = w.partner_key
	FROM partner_portal.workspace w
	WHERE w.workspace_id = split_period.workspace_id AND p.workspace_id = split_period.workspace_id
		AND p.period_start >= split_at AND p.partner_key <> w.partner_key;
END
$$;
COMMENT ON FUNCTION partner_portal.split_period(bigint, timestamptz) IS
'Ends the running period of a workspace at an instant and lets the next one begin there, up to the old end, for the present partner. A closed period is never cut; internal.';
REVOKE ALL ON FUNCTION partner_portal.split_period(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.workspace_moved() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NEW.deleted_at IS NULL AND NOT partner_portal.restoring_session() THEN
		PERFORM partner_portal.split_period(NEW.workspace_id, clock_timestamp());
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.workspace_moved() IS 'Trigger: a change of partner ends the running billing period and begins one for the new partner.';
REVOKE ALL ON FUNCTION partner_portal.workspace_moved() FROM PUBLIC;

CREATE TRIGGER workspace_moved AFTER UPDATE ON partner_portal.workspace
	FOR EACH ROW WHEN (OLD.partner_id IS DISTINCT FROM NEW.partner_id)
	EXECUTE FUNCTION partner_portal.workspace_moved();

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.billing_period'),
	('application', 'SELECT', 'TABLE partner_portal.usage_period'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.billing_period_at(bigint, timestamptz)');
