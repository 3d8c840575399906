-- restoring.sql: what a dump does not hold is made again from the rows that are restored.
--
-- workspace_usage is derived and not dumped. A restored workspace makes its row, restored keys and members are counted as
-- any others (key_trigger.c); the triggers here bring back the instants that are kept beside the counters.

CREATE FUNCTION partner_portal.history_restored() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF partner_portal.restoring_session() THEN
		UPDATE partner_portal.workspace_usage u SET last_disabled_at = r.active_until
		FROM (SELECT n.workspace_id, max(n.active_until) AS active_until FROM restored n GROUP BY n.workspace_id) r
		WHERE u.workspace_id = r.workspace_id AND u.last_disabled_at < r.active_until;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.history_restored() IS 'Trigger: when a dump is restored, notes the latest end of a stretch beside the counters.';
REVOKE ALL ON FUNCTION partner_portal.history_restored() FROM PUBLIC;
CREATE TRIGGER history_restored AFTER INSERT ON partner_portal.key_history
	REFERENCING NEW TABLE AS restored FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.history_restored();

CREATE FUNCTION partner_portal.periods_restored() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF partner_portal.restoring_session() THEN
		UPDATE partner_portal.workspace_usage u SET closed_until = r.period_end
		FROM (SELECT n.workspace_id, max(n.period_end) AS period_end FROM restored n WHERE n.closed_at IS NOT NULL GROUP BY n.workspace_id) r
		WHERE u.workspace_id = r.workspace_id AND u.closed_until < r.period_end;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.periods_restored() IS 'Trigger: when a dump is restored, notes the end of the last closed period beside the counters.';
REVOKE ALL ON FUNCTION partner_portal.periods_restored() FROM PUBLIC;
CREATE TRIGGER periods_restored AFTER INSERT ON partner_portal.billing_period
	REFERENCING NEW TABLE AS restored FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.periods_restored();

-- Alerts without a period are for all time (key_settle.c).
CREATE FUNCTION partner_portal.alerts_restored() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF partner_portal.restoring_session() THEN
		UPDATE partner_portal.workspace_usage u SET alerted_until = r.until, alerted_percent = r.threshold
		FROM (
			SELECT DISTINCT ON (n.workspace_id) n.workspace_id, n.threshold,
				CASE WHEN isfinite(n.period_start) THEN upper(partner_portal.find_period(n.workspace_id, n.period_start)) ELSE 'infinity' END AS until
			FROM restored n ORDER BY n.workspace_id, n.period_start DESC, n.threshold DESC) r
		WHERE u.workspace_id = r.workspace_id AND (u.alerted_until, u.alerted_percent) < (r.until, r.threshold);
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.alerts_restored() IS 'Trigger: when a dump is restored, notes the alerts that were raised beside the counters.';
REVOKE ALL ON FUNCTION partner_portal.alerts_restored() FROM PUBLIC;
CREATE TRIGGER alerts_restored AFTER INSERT ON partner_portal.limit_alert
	REFERENCING NEW TABLE AS restored FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.alerts_restored();
