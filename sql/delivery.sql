-- delivery.sql: sending what is owed, what becomes of it, and looking at it.

CREATE TABLE partner_portal.delivery_attempt (
	workspace_id bigint NOT NULL,
	notification_id bigint NOT NULL,
	attempt_id bigint GENERATED ALWAYS AS IDENTITY,
	partner_key bigint NOT NULL,
	at timestamptz NOT NULL DEFAULT clock_timestamp(),
	outcome text NOT NULL,
	code integer,
	error text,
	CONSTRAINT delivery_attempt_pkey PRIMARY KEY (workspace_id, notification_id, attempt_id),
	CONSTRAINT delivery_attempt_notification FOREIGN KEY (workspace_id, notification_id)
		REFERENCES partner_portal.notification ON DELETE CASCADE,
	CONSTRAINT delivery_attempt_outcome CHECK (outcome IN ('retry', 'ambiguous', 'refused', 'gone', 'configuration', 'aborted', 'lost'))
);
COMMENT ON TABLE partner_portal.delivery_attempt IS 'Attempts that failed, and how. The one that succeeded is in the notification.';
COMMENT ON COLUMN partner_portal.delivery_attempt.outcome IS
'retry; ambiguous (sent, but the answer was lost); refused; gone (HTTP 410); configuration (the relay''s or our settings'' fault, not counted); aborted (we stopped, not counted); lost (an engine died with it).';

ALTER TABLE partner_portal.delivery_attempt ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY signed_in ON partner_portal.delivery_attempt AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
-- A new partner's staff sees nothing of the old partner's time.
CREATE POLICY read ON partner_portal.delivery_attempt FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_settings'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR (workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_settings'))::bigint[])
			AND partner_key = (SELECT partner_portal.current_partner_id())));

SELECT pg_catalog.pg_extension_config_dump('partner_portal.delivery_attempt', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.delivery_attempt_attempt_id_seq', '');

CREATE FUNCTION partner_portal.retry_delay(attempts integer) RETURNS interval
	LANGUAGE sql VOLATILE STRICT
BEGIN ATOMIC
	SELECT (ARRAY[interval '5 seconds', '5 minutes', '30 minutes', '2 hours', '5 hours', '10 hours', '14 hours', '20 hours', '24 hours'])[attempts]
		* (0.8 + 0.4 * random());
END;
COMMENT ON FUNCTION partner_portal.retry_delay(integer) IS
'Time until the next attempt after so many, 20 % more or less at random: 5 s, 5 m, 30 m, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h; NULL after the tenth, which is the last.';
REVOKE ALL ON FUNCTION partner_portal.retry_delay(integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.finish_notification(workspace_id bigint, notification_id bigint, state text, code integer, error text) RETURNS void
	LANGUAGE sql
BEGIN ATOMIC
	DELETE FROM partner_portal.delivery_queue q
	WHERE q.workspace_id = finish_notification.workspace_id AND q.notification_id = finish_notification.notification_id;
	UPDATE partner_portal.notification n
	SET state = finish_notification.state, next_attempt_at = NULL, finished_at = clock_timestamp(),
		last_code = nullif(finish_notification.code, 0), last_error = left(finish_notification.error, 500),
		text_body = CASE WHEN n.secret IS NULL THEN n.text_body ELSE replace(n.text_body, n.secret, '*') END,
		html_body = CASE WHEN n.secret IS NULL THEN n.html_body ELSE replace(n.html_body, n.secret, '*') END,
		secret = CASE WHEN n.secret IS NOT NULL THEN '' END
	WHERE n.workspace_id = finish_notification.workspace_id AND n.notification_id = finish_notification.notification_id;
END;
COMMENT ON FUNCTION partner_portal.finish_notification(bigint, bigint, text, integer, text) IS 'Makes a notification final and blanks a token it carries.';
REVOKE ALL ON FUNCTION partner_portal.finish_notification(bigint, bigint, text, integer, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.record_failure(workspace_id bigint, notification_id bigint, token integer, outcome text,
	code integer, error text, retry_after integer) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	message partner_portal.notification;
	queued partner_portal.delivery_queue;
	wait interval;
	hold interval;
BEGIN
	SELECT * INTO queued FROM partner_portal.delivery_queue q
	WHERE q.workspace_id = record_failure.workspace_id AND q.notification_id = record_failure.notification_id
		AND q.lease_token = record_failure.token FOR UPDATE;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	SELECT * INTO message FROM partner_portal.notification n
	WHERE n.workspace_id = record_failure.workspace_id AND n.notification_id = record_failure.notification_id FOR NO KEY UPDATE;
	INSERT INTO partner_portal.delivery_attempt (workspace_id, notification_id, partner_key, outcome, code, error)
	VALUES (record_failure.workspace_id, record_failure.notification_id, message.partner_key, record_failure.outcome,
		nullif(record_failure.code, 0), left(record_failure.error, 500));

	-- The destination: the more failures in a row, the longer it is left alone; a message's own refusal says nothing about it.
	IF outcome IN ('retry', 'ambiguous', 'configuration', 'gone') THEN
		SELECT CASE WHEN retry_after > 0 THEN make_interval(secs => retry_after)
				WHEN outcome = 'configuration' THEN interval '5 seconds' * least(60, 2 ^ least(t.failures, 6))
				WHEN t.failures >= 4 AND queued.destination <> 0 THEN interval '1 minute' * least(60, t.failures - 3) END
		INTO hold FROM partner_portal.delivery_destination t WHERE t.destination = queued.destination;
		UPDATE partner_portal.delivery_destination t
		SET failures = t.failures + 1, failing_since = coalesce(t.failing_since, clock_timestamp()),
			hold_until = CASE WHEN hold IS NULL THEN t.hold_until ELSE greatest(t.hold_until, clock_timestamp() + hold) END,
			last_error = left(record_failure.error, 500)
		WHERE t.destination = queued.destination;
	END IF;

	IF outcome = 'refused' THEN
		PERFORM partner_portal.finish_notification(record_failure.workspace_id, record_failure.notification_id,
			CASE WHEN code = 0 THEN 'dead' ELSE 'refused' END, code, error);
		UPDATE partner_portal.notification n SET attempts = n.attempts + 1
		WHERE n.workspace_id = record_failure.workspace_id AND n.notification_id = record_failure.notification_id;
		RETURN;
	END IF;
	IF message.expires_at <= clock_timestamp() THEN
		PERFORM partner_portal.finish_notification(record_failure.workspace_id, record_failure.notification_id, 'cancelled', code, 'expired; ' || error);
		RETURN;
	END IF;
	IF outcome IN ('retry', 'ambiguous') THEN
		wait := greatest(partner_portal.retry_delay(message.attempts + 1), make_interval(secs => retry_after));
		IF message.attempts + 1 >= 10 THEN
			PERFORM partner_portal.finish_notification(record_failure.workspace_id, record_failure.notification_id, 'dead', code, error);
			UPDATE partner_portal.notification n SET attempts = n.attempts + 1
			WHERE n.workspace_id = record_failure.workspace_id AND n.notification_id = record_failure.notification_id;
			RETURN;
		END IF;
	ELSE
		-- Not counted. Held back by the destination, if at all; what was merely interrupted is due at once.
		wait := CASE outcome WHEN 'aborted' THEN interval '1 second' ELSE interval '0' END;
	END IF;
	UPDATE partner_portal.delivery_queue q
	SET next_attempt_at = clock_timestamp() + wait, claims = 0, lease_token = NULL, lease_until = NULL
	WHERE q.workspace_id = record_failure.workspace_id AND q.notification_id = record_failure.notification_id;
	UPDATE partner_portal.notification n
	SET attempts = n.attempts + CASE WHEN outcome IN ('retry', 'ambiguous') THEN 1 ELSE 0 END,
		next_attempt_at = clock_timestamp() + wait, last_code = nullif(code, 0), last_error = left(error, 500)
	WHERE n.workspace_id = record_failure.workspace_id AND n.notification_id = record_failure.notification_id;

	-- An endpoint that says it is gone, or that failed for five days on end, gets no more until it is resumed.
	IF queued.destination <> 0 AND (outcome = 'gone' OR EXISTS (SELECT FROM partner_portal.delivery_destination t
			WHERE t.destination = queued.destination AND t.failing_since < clock_timestamp() - interval '5 days')) THEN
		PERFORM partner_portal.set_endpoint_state(e, 'disabled', CASE outcome WHEN 'gone' THEN 'it answered 410 Gone' ELSE 'it failed for five days' END),
			partner_portal.notify_endpoint_disabled(e, outcome = 'gone')
		FROM partner_portal.webhook_endpoint e
		WHERE e.workspace_id = record_failure.workspace_id AND e.endpoint_id = queued.destination AND e.state = 'active';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.record_failure(bigint, bigint, integer, text, integer, text, integer) IS
'Records an attempt that failed, if the engine still holds its lease: again by the schedule, dead, refused or cancelled.';
REVOKE ALL ON FUNCTION partner_portal.record_failure(bigint, bigint, integer, text, integer, text, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.engine_is_gone(token integer) RETURNS boolean
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'partner_portal_engine_is_gone';
COMMENT ON FUNCTION partner_portal.engine_is_gone(integer) IS
'Whether no engine runs that is known by this number, and none may to the end of the transaction: it locks the number, as an engine does while it runs, with a lock that pg_advisory_lock() cannot take. Internal.';
REVOKE ALL ON FUNCTION partner_portal.engine_is_gone(integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.release_stale_deliveries(own_token integer) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = on AS $$
DECLARE
	token integer;
	lost record;
	up_since timestamptz := (SELECT a.backend_start FROM pg_stat_activity a WHERE a.backend_type = 'checkpointer');
BEGIN
	-- An engine locks its number while it runs: where the lock can be had, nobody holds the lease any more.
	FOR token IN
		SELECT DISTINCT q.lease_token FROM partner_portal.delivery_queue q
		WHERE q.lease_token IS NOT NULL AND q.lease_token <> own_token
	LOOP
		IF partner_portal.engine_is_gone(token) THEN
			FOR lost IN
				-- A message that kills its engine brings the server down with it. Where that has been up since the claim (a lease is for
				-- two hours), the engine ended for another reason: an error, a cancelled CALL. Such claims do not count, up to ten.
				SELECT q.workspace_id, q.notification_id, n.partner_key,
					q.claims - CASE WHEN q.lease_until - interval '2 hours' >= up_since THEN 1 ELSE 0 END AS claims,
					(SELECT count(*) FROM partner_portal.delivery_attempt a
						WHERE a.workspace_id = q.workspace_id AND a.notification_id = q.notification_id AND a.outcome = 'lost') + 1 AS losses
				FROM partner_portal.delivery_queue q
				JOIN partner_portal.notification n ON n.workspace_id = q.workspace_id AND n.notification_id = q.notification_id
				WHERE q.lease_token = token FOR UPDATE OF q SKIP LOCKED
			LOOP
				INSERT INTO partner_portal.delivery_attempt (workspace_id, notification_id, partner_key, outcome, error)
				VALUES (lost.workspace_id, lost.notification_id, lost.partner_key, 'lost', 'the engine ended before it could record the result');
				IF lost.claims >= 3 OR lost.losses >= 10 THEN
					PERFORM partner_portal.finish_notification(lost.workspace_id, lost.notification_id, 'dead', 0,
						CASE WHEN lost.claims >= 3 THEN 'claimed three times and never recorded' ELSE 'claimed ten times and never recorded' END);
				ELSE
					UPDATE partner_portal.delivery_queue q SET claims = lost.claims, lease_token = NULL, lease_until = NULL
					WHERE q.workspace_id = lost.workspace_id AND q.notification_id = lost.notification_id;
				END IF;
			END LOOP;
		END IF;
	END LOOP;
	UPDATE partner_portal.delivery_queue q SET lease_token = NULL, lease_until = NULL
	WHERE q.lease_token IS NOT NULL AND q.lease_until < clock_timestamp() AND q.lease_token <> own_token;
END
$$;
COMMENT ON FUNCTION partner_portal.release_stale_deliveries(integer) IS
'Frees what engines had claimed that are no more. A row claimed three times and never recorded becomes a dead letter if the server went down each time, since it may be what kills it; whatever the engines ended of, the tenth time.';
REVOKE ALL ON FUNCTION partner_portal.release_stale_deliveries(integer) FROM PUBLIC;

CREATE PROCEDURE partner_portal.deliver_notifications(max_rows integer DEFAULT 100)
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_deliver_notifications';
COMMENT ON PROCEDURE partner_portal.deliver_notifications(integer) IS
'Sends what is due, at most max_rows messages, and returns when each has its answer. For installations without the worker, by pg_cron or by hand; any number may run at once. It commits as it goes and cannot run in a transaction block (2D000). PP005 in a restored copy.';
REVOKE ALL ON PROCEDURE partner_portal.deliver_notifications(integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.resend_notification(notification_id bigint) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	message partner_portal.notification;
BEGIN
	SELECT * INTO message FROM partner_portal.notification n WHERE n.notification_id = resend_notification.notification_id;
	IF NOT (message.workspace_id = 0 AND partner_portal.is_operator()) OR message.workspace_id IS NULL THEN
		PERFORM partner_portal.authorize_thing(message.workspace_id, format('notification %s not found', resend_notification.notification_id));
	END IF;
	SELECT * INTO message FROM partner_portal.notification n
	WHERE n.workspace_id = message.workspace_id AND n.notification_id = resend_notification.notification_id FOR NO KEY UPDATE;
	IF message.state = 'pending' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('notification %s is still pending', message.notification_id);
	END IF;
	IF message.expires_at <= now() OR message.secret = '' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('notification %s cannot be sent again', message.notification_id),
			DETAIL = 'It has expired, or the token it carried is blanked.',
			HINT = 'An invitation is sent anew by resend_invitation().';
	END IF;
	UPDATE partner_portal.notification n SET state = 'pending', attempts = 0, next_attempt_at = now(), finished_at = NULL
	WHERE n.workspace_id = message.workspace_id AND n.notification_id = message.notification_id;
	INSERT INTO partner_portal.delivery_queue (workspace_id, notification_id, destination)
	VALUES (message.workspace_id, message.notification_id, coalesce(message.endpoint_id, 0));
END
$$;
COMMENT ON FUNCTION partner_portal.resend_notification(bigint) IS
'Sends a message again that is delivered, refused, dead or cancelled, with the same message id. Needs manage_settings. PP005 if it is pending, has expired, or carried a token.';
REVOKE ALL ON FUNCTION partner_portal.resend_notification(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.replay_webhook_events(endpoint_id bigint, since timestamptz, until timestamptz DEFAULT now(), failed_only boolean DEFAULT false) RETURNS bigint
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	endpoint partner_portal.webhook_endpoint := partner_portal.authorized_endpoint(endpoint_id);
	replayed bigint;
BEGIN
	IF since IS NULL OR until IS NULL OR failed_only IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'since, until and failed_only must not be null';
	END IF;
	IF since >= until THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'since must be before until';
	END IF;
	WITH again AS (
		UPDATE partner_portal.notification n SET state = 'pending', attempts = 0, next_attempt_at = now(), finished_at = NULL
		WHERE n.workspace_id = endpoint.workspace_id AND n.endpoint_id = endpoint.endpoint_id
			AND n.occurred_at >= since AND n.occurred_at < until
			AND n.state IN ('refused', 'dead', CASE WHEN NOT failed_only THEN 'delivered' END)
		RETURNING n.workspace_id, n.notification_id
	), queued AS (
		INSERT INTO partner_portal.delivery_queue AS q (workspace_id, notification_id, destination)
		SELECT a.workspace_id, a.notification_id, endpoint.endpoint_id FROM again a
		RETURNING q.notification_id
	)
	SELECT count(*) INTO replayed FROM queued;
	RETURN replayed;
END
$$;
COMMENT ON FUNCTION partner_portal.replay_webhook_events(bigint, timestamptz, timestamptz, boolean) IS
'Sends an endpoint again, with the same message ids, the events that occurred since an instant and before until: delivered, refused and dead ones, or only those that failed; pending ones come anyway, and delivered ones are kept for 90 days. Returns how many. Needs manage_settings. 42501; P0002; 22004; 22023 since is not before until.';
REVOKE ALL ON FUNCTION partner_portal.replay_webhook_events(bigint, timestamptz, timestamptz, boolean) FROM PUBLIC;

CREATE VIEW partner_portal.delivery_status WITH (security_invoker, security_barrier) AS
	SELECT notification_id, workspace_id, kind, CASE WHEN endpoint_id IS NULL THEN 'mail' ELSE 'webhook' END AS channel, endpoint_id,
		message_id, state, attempts, occurred_at, expires_at, next_attempt_at, finished_at, last_code, last_error
	FROM partner_portal.notification;
COMMENT ON VIEW partner_portal.delivery_status IS
'What became of the messages of workspaces whose settings one may manage; dead letters are those in state dead. It shows neither content nor recipient.';

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.delivery_status'),
	('application', 'SELECT', 'TABLE partner_portal.delivery_attempt'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.resend_notification(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.replay_webhook_events(bigint, timestamptz, timestamptz, boolean)'),
	('operator', 'EXECUTE', 'PROCEDURE partner_portal.deliver_notifications(integer)');
