-- job.sql: what is due by the clock, and pg_cron.

CREATE TABLE partner_portal.job_step (
	step text NOT NULL,
	position integer NOT NULL,
	last_run_at timestamptz,
	last_problem text,
	failures integer NOT NULL DEFAULT 0,
	CONSTRAINT job_step_pkey PRIMARY KEY (step),
	CONSTRAINT job_step_position_key UNIQUE (position)
);
COMMENT ON TABLE partner_portal.job_step IS
'What tick() calls, in order of position: functions partner_portal.STEP(at timestamptz) RETURNS bigint, which do a bounded piece of what is due by then and return how much they did. Filled by the install script alone.';
COMMENT ON COLUMN partner_portal.job_step.last_problem IS 'Message of its last failure; NULL when it last succeeded.';
COMMENT ON COLUMN partner_portal.job_step.failures IS 'Times it failed since it last succeeded.';
ALTER TABLE partner_portal.job_step ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE PROCEDURE partner_portal.tick(at timestamptz DEFAULT now())
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_tick';
COMMENT ON PROCEDURE partner_portal.tick(timestamptz) IS
'Does all that is due by an instant: closes periods, bills, queues digests and reminders, refreshes usage, ends what has had its time. Safe to miss, to repeat and to run twice at once; each thing is committed for itself, and one that fails (a warning) stops no other. Superusers only (42501); not in a transaction block (2D000).';
REVOKE ALL ON PROCEDURE partner_portal.tick(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.tick_close_periods(at timestamptz) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	SELECT count(*) FROM partner_portal.close_periods(tick_close_periods.at, 100);
END;
COMMENT ON FUNCTION partner_portal.tick_close_periods(timestamptz) IS 'Step of tick(): closes billing periods that have ended, of up to 100 workspaces.';
REVOKE ALL ON FUNCTION partner_portal.tick_close_periods(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.tick_run_billing(at timestamptz) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	SELECT count(*) FILTER (WHERE a.action <> 'failed') FROM partner_portal.run_billing(tick_run_billing.at, 500) a;
END;
COMMENT ON FUNCTION partner_portal.tick_run_billing(timestamptz) IS 'Step of tick(): bills up to 500 workspaces; those that fail are in billing_health().';
REVOKE ALL ON FUNCTION partner_portal.tick_run_billing(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.tick_refresh_usage(at timestamptz) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	SELECT 0 * partner_portal.refresh_usage(tick_refresh_usage.at);
END;
COMMENT ON FUNCTION partner_portal.tick_refresh_usage(timestamptz) IS 'Step of tick(): brings the usage of running periods up to date, once.';
REVOKE ALL ON FUNCTION partner_portal.tick_refresh_usage(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.tick_cancel_expired(at timestamptz) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	SELECT count(coalesce(partner_portal.finish_notification(d.workspace_id, d.notification_id, 'cancelled', 0,
		CASE WHEN d.expired THEN 'expired' ELSE 'the endpoint is deleted' END)::text, '')) FROM (
		SELECT q.workspace_id, q.notification_id, coalesce(n.expires_at <= tick_cancel_expired.at, false) AS expired FROM partner_portal.delivery_queue q
		JOIN partner_portal.notification n ON n.workspace_id = q.workspace_id AND n.notification_id = q.notification_id
		WHERE q.lease_token IS NULL AND (n.expires_at <= tick_cancel_expired.at
			OR q.destination IN (SELECT e.endpoint_id FROM partner_portal.webhook_endpoint e WHERE e.state = 'deleted'))
		LIMIT 1000 FOR UPDATE OF q SKIP LOCKED) d;
END;
COMMENT ON FUNCTION partner_portal.tick_cancel_expired(timestamptz) IS
'Step of tick(): cancels up to 1000 messages that nobody needs any more: those that expired, and those that were owed to an endpoint by transactions under way while it was deleted.';
REVOKE ALL ON FUNCTION partner_portal.tick_cancel_expired(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.tick_forget_deliveries(at timestamptz) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	WITH old AS (
		SELECT n.workspace_id, n.notification_id FROM partner_portal.notification n
		WHERE n.state IN ('delivered', 'cancelled') AND n.finished_at < tick_forget_deliveries.at - interval '90 days'
		LIMIT 1000 FOR UPDATE SKIP LOCKED
	), gone AS (
		DELETE FROM partner_portal.notification n USING old
		WHERE n.workspace_id = old.workspace_id AND n.notification_id = old.notification_id
		RETURNING n.notification_id
	)
	SELECT count(*) FROM gone;
END;
COMMENT ON FUNCTION partner_portal.tick_forget_deliveries(timestamptz) IS
'Step of tick(): deletes up to 1000 messages delivered or cancelled more than 90 days ago. Dead and refused ones stay.';
REVOKE ALL ON FUNCTION partner_portal.tick_forget_deliveries(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.tick_forget_revocations(at timestamptz) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	-- whatever instant a tick is told: a revocation that is forgotten too early lets the token in again
	WITH old AS (
		SELECT t.jti FROM partner_portal.revoked_token t
		WHERE t.until < least(tick_forget_revocations.at, now()) - interval '1 day'
		ORDER BY t.until LIMIT 1000 FOR UPDATE SKIP LOCKED
	), gone AS (
		DELETE FROM partner_portal.revoked_token t USING old WHERE t.jti = old.jti RETURNING t.jti
	)
	SELECT count(*) FROM gone;
END;
COMMENT ON FUNCTION partner_portal.tick_forget_revocations(timestamptz) IS 'Step of tick(): deletes up to 1000 revocations of tokens a day after their end, by the clock.';
REVOKE ALL ON FUNCTION partner_portal.tick_forget_revocations(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.tick_notify_expiring_access(at timestamptz) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	SELECT 0 * partner_portal.notify_expiring_access(tick_notify_expiring_access.at);
END;
COMMENT ON FUNCTION partner_portal.tick_notify_expiring_access(timestamptz) IS 'Step of tick(): mails that access expires in 30, 7 or 1 days.';
REVOKE ALL ON FUNCTION partner_portal.tick_notify_expiring_access(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.tick_end_expired_access(at timestamptz) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	SELECT partner_portal.end_expired_access(tick_end_expired_access.at)::bigint;
END;
COMMENT ON FUNCTION partner_portal.tick_end_expired_access(timestamptz) IS 'Step of tick(): ends access that has expired.';
REVOKE ALL ON FUNCTION partner_portal.tick_end_expired_access(timestamptz) FROM PUBLIC;

INSERT INTO partner_portal.job_step (position, step) VALUES
	(10, 'tick_close_periods'),
	(20, 'tick_run_billing'),
	(52, 'tick_notify_expiring_access'),
	(54, 'tick_end_expired_access'),
	(60, 'tick_refresh_usage'),
	(80, 'tick_cancel_expired'),
	(90, 'tick_forget_deliveries'),
	(95, 'tick_forget_revocations');

CREATE FUNCTION partner_portal.schedule_jobs(schedule text DEFAULT '*/15 * * * *') RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	job record;
BEGIN
	IF NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator may schedule jobs';
	END IF;
	IF schedule IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'schedule must not be null';
	END IF;
	IF to_regclass('cron.job') IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = 'pg_cron is not installed in this database',
			HINT = 'CREATE EXTENSION pg_cron here, or CALL partner_portal.tick() from another scheduler.';
	END IF;
	FOR job IN SELECT * FROM (VALUES
		('partner_portal tick', schedule, 'CALL partner_portal.tick(now())'),
		('partner_portal deliver', '* * * * *', 'CALL partner_portal.deliver_notifications(10000)')) AS j (name, schedule, command)
	LOOP
		EXECUTE 'SELECT cron.schedule($1, $2, $3)' USING job.name, job.schedule, job.command;
	END LOOP;
END
$$;
COMMENT ON FUNCTION partner_portal.schedule_jobs(text) IS
'Registers with pg_cron, which must be in this database, CALL tick(now()) at a schedule in cron''s form (GMT), and a delivery every minute, which is idle beside the worker. Called again it changes the schedule. Operator only (42501); 55000 without pg_cron; 22023 a malformed schedule. The jobs run as the extension''s owner.';
REVOKE ALL ON FUNCTION partner_portal.schedule_jobs(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.unschedule_jobs() RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator may unschedule jobs';
	END IF;
	IF to_regclass('cron.job') IS NULL THEN
		RETURN;
	END IF;
	EXECUTE $sql$SELECT cron.unschedule(j.jobid) FROM cron.job j
		WHERE j.jobname IN ('partner_portal tick', 'partner_portal deliver') AND j.database = current_database()$sql$;
END
$$;
COMMENT ON FUNCTION partner_portal.unschedule_jobs() IS 'Takes the jobs of schedule_jobs() from pg_cron; nothing to do is no error. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.unschedule_jobs() FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('operator', 'EXECUTE', 'FUNCTION partner_portal.schedule_jobs(text)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.unschedule_jobs()');
