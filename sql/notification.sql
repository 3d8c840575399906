-- notification.sql: messages owed to somebody, written in the transaction that causes them, and the queue of those not yet delivered.

CREATE TYPE partner_portal.mail_content AS (subject text, text_body text, html_body text);
COMMENT ON TYPE partner_portal.mail_content IS 'What a template makes: the subject and both forms of the body.';

CREATE SEQUENCE partner_portal.delivery_engine_seq AS integer CYCLE;
COMMENT ON SEQUENCE partner_portal.delivery_engine_seq IS 'Numbers of delivery engines, which fence their leases.';

CREATE TABLE partner_portal.notification (
	workspace_id bigint NOT NULL,
	notification_id bigint GENERATED ALWAYS AS IDENTITY,
	message_id uuid NOT NULL DEFAULT gen_random_uuid(),
	partner_key bigint NOT NULL,
	kind text NOT NULL,
	dedupe_key text NOT NULL,
	occurred_at timestamptz NOT NULL DEFAULT now(),
	expires_at timestamptz,
	state text NOT NULL DEFAULT 'pending',
	attempts integer NOT NULL DEFAULT 0,
	next_attempt_at timestamptz DEFAULT now(),
	finished_at timestamptz,
	last_code integer,
	last_error text,
	endpoint_id bigint,
	recipient text,
	locale text,
	subject text,
	text_body text,
	html_body text,
	unsubscribe_url text,
	secret text,
	CONSTRAINT notification_pkey PRIMARY KEY (workspace_id, notification_id),
	CONSTRAINT notification_natural_key UNIQUE (workspace_id, kind, dedupe_key),
	CONSTRAINT notification_kind CHECK (length(kind) <= 511 AND kind ~ '^[a-z0-9_]+(\.[a-z0-9_]+)*$'),
	CONSTRAINT notification_dedupe_key CHECK (length(dedupe_key) BETWEEN 1 AND 400),
	CONSTRAINT notification_state CHECK (state IN ('pending', 'delivered', 'refused', 'dead', 'cancelled')),
	CONSTRAINT notification_finished CHECK ((state = 'pending') = (finished_at IS NULL) AND (state = 'pending') = (next_attempt_at IS NOT NULL)),
	CONSTRAINT notification_channel CHECK ((recipient IS NULL) <> (endpoint_id IS NULL)),
	CONSTRAINT notification_mail CHECK (recipient IS NULL OR (subject IS NOT NULL AND text_body IS NOT NULL AND locale IS NOT NULL)),
	CONSTRAINT notification_size CHECK (octet_length(subject) <= 10000 AND octet_length(text_body) <= 500000 AND octet_length(html_body) <= 500000),
	CONSTRAINT notification_secret CHECK (CASE state WHEN 'pending' THEN length(secret) >= 16 ELSE secret = '' END),
	CONSTRAINT notification_last_error CHECK (length(last_error) <= 500)
) WITH (fillfactor = 80);
CREATE INDEX notification_notification_id ON partner_portal.notification (notification_id);
COMMENT ON TABLE partner_portal.notification IS
'One message owed to one destination: an address by mail, or a webhook endpoint. Written by the transaction that causes it, at most once per (workspace_id, kind, dedupe_key). Its content is read by the worker alone; see delivery_status.';
COMMENT ON COLUMN partner_portal.notification.workspace_id IS 'Tenant it belongs to; 0 is the platform itself.';
COMMENT ON COLUMN partner_portal.notification.message_id IS 'The same in every attempt: webhook-id and Message-ID, by which receivers drop repeats.';
COMMENT ON COLUMN partner_portal.notification.partner_key IS 'Partner of the workspace when it was caused, 0 for none; it does not follow a transfer.';
COMMENT ON COLUMN partner_portal.notification.expires_at IS 'It is cancelled, not sent, from then on.';
COMMENT ON COLUMN partner_portal.notification.state IS 'pending; delivered (the peer took it); refused (the peer never will); dead (given up, or it could not be built); cancelled (expired, or its endpoint was deleted).';
COMMENT ON COLUMN partner_portal.notification.attempts IS 'Attempts that reached a verdict about this message; faults of the relay or of the settings do not count.';
COMMENT ON COLUMN partner_portal.notification.last_code IS 'HTTP status or SMTP reply of the last attempt.';
COMMENT ON COLUMN partner_portal.notification.secret IS 'A token that the body holds; both are blanked as soon as the message is no longer pending, and '''' remains to tell that there was one.';

-- Narrow and hot: a row per pending notification, gone when it is final.
CREATE TABLE partner_portal.delivery_queue (
	workspace_id bigint NOT NULL,
	notification_id bigint NOT NULL,
	destination bigint NOT NULL,
	next_attempt_at timestamptz NOT NULL DEFAULT now(),
	claims integer NOT NULL DEFAULT 0,
	lease_token integer,
	lease_until timestamptz,
	CONSTRAINT delivery_queue_pkey PRIMARY KEY (workspace_id, notification_id),
	CONSTRAINT delivery_queue_notification FOREIGN KEY (workspace_id, notification_id)
		REFERENCES partner_portal.notification ON DELETE CASCADE,
	CONSTRAINT delivery_queue_lease CHECK ((lease_token IS NULL) = (lease_until IS NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
-- No index knows of leases, so that a claim changes none.
CREATE INDEX delivery_queue_due ON partner_portal.delivery_queue (destination, next_attempt_at, notification_id);
COMMENT ON TABLE partner_portal.delivery_queue IS 'Notifications that are pending, and which engine is sending them.';
COMMENT ON COLUMN partner_portal.delivery_queue.destination IS 'The webhook endpoint; 0 is the mail relay.';
COMMENT ON COLUMN partner_portal.delivery_queue.claims IS 'Times claimed since a result was last recorded, but for those whose engine ended while the server was up; at three it is dead.';
COMMENT ON COLUMN partner_portal.delivery_queue.lease_token IS 'Engine that is sending it; only that one may record the result.';

CREATE TABLE partner_portal.delivery_destination (
	destination bigint NOT NULL,
	max_in_flight integer NOT NULL DEFAULT 4,
	paused boolean NOT NULL DEFAULT false,
	failures integer NOT NULL DEFAULT 0,
	failing_since timestamptz,
	hold_until timestamptz,
	last_error text,
	CONSTRAINT delivery_destination_pkey PRIMARY KEY (destination),
	CONSTRAINT delivery_destination_max_in_flight CHECK (max_in_flight BETWEEN 1 AND 64)
);
COMMENT ON TABLE partner_portal.delivery_destination IS 'State of the mail relay (destination 0) and of each webhook endpoint: what may be under way at once, and whether it is being left alone.';
COMMENT ON COLUMN partner_portal.delivery_destination.failures IS 'Attempts that failed since the last success.';
COMMENT ON COLUMN partner_portal.delivery_destination.hold_until IS 'Nothing is sent there before.';

-- A restored copy must not send what the original sends.
CREATE TABLE partner_portal.delivery_home (
	system_identifier bigint NOT NULL,
	database_oid oid NOT NULL,
	CONSTRAINT delivery_home_pkey PRIMARY KEY (system_identifier, database_oid)
);
COMMENT ON TABLE partner_portal.delivery_home IS 'Databases in which these notifications belong. A database that holds another''s row is a copy and sends nothing until adopt_deliveries().';

ALTER TABLE partner_portal.notification ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.delivery_queue ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.delivery_destination ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.delivery_home ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- Column privileges leave out the content; these say whose state one sees.
CREATE POLICY signed_in ON partner_portal.notification AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
-- A new partner's staff sees nothing of the old partner's time.
CREATE POLICY read ON partner_portal.notification FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_settings'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR (workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_settings'))::bigint[])
			AND partner_key = (SELECT partner_portal.current_partner_id())));

INSERT INTO partner_portal.delivery_destination (destination, max_in_flight) VALUES (0, 64);
INSERT INTO partner_portal.delivery_home (system_identifier, database_oid)
	SELECT c.system_identifier, d.oid FROM pg_catalog.pg_control_system() c, pg_catalog.pg_database d
	WHERE d.datname = current_database();

SELECT pg_catalog.pg_extension_config_dump('partner_portal.notification', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.notification_notification_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.delivery_queue', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.delivery_engine_seq', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.delivery_destination', 'WHERE destination <> 0');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.delivery_home', '');

CREATE FUNCTION partner_portal.delivery_home_problem() RETURNS text
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT 'It is a copy of a database whose notifications are that one''s to send.'
	WHERE EXISTS (
		SELECT FROM partner_portal.delivery_home h, pg_catalog.pg_control_system() c
		WHERE (h.system_identifier, h.database_oid) IS DISTINCT FROM
			(c.system_identifier, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())));
END;
COMMENT ON FUNCTION partner_portal.delivery_home_problem() IS 'Why this database sends nothing: a reason, or NULL.';
REVOKE ALL ON FUNCTION partner_portal.delivery_home_problem() FROM PUBLIC;

CREATE FUNCTION partner_portal.adopt_deliveries() RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator may adopt deliveries';
	END IF;
	DELETE FROM partner_portal.delivery_home;
	INSERT INTO partner_portal.delivery_home (system_identifier, database_oid)
	SELECT c.system_identifier, d.oid FROM pg_control_system() c, pg_database d WHERE d.datname = current_database();
END
$$;
COMMENT ON FUNCTION partner_portal.adopt_deliveries() IS
'Says that this database, restored from a dump or moved by pg_upgrade, is now the one that sends the notifications it holds. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.adopt_deliveries() FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_message(sender text, recipient text, subject text, text_body text, html_body text,
	locale text, message_id uuid, occurred_at timestamptz, unsubscribe_url text DEFAULT NULL) RETURNS text
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'partner_portal_mail_message';
COMMENT ON FUNCTION partner_portal.mail_message(text, text, text, text, text, text, uuid, timestamptz, text) IS
'The mail as it would be sent. 22023 if it cannot be built.';
REVOKE ALL ON FUNCTION partner_portal.mail_message(text, text, text, text, text, text, uuid, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.enqueue_mail(workspace_id bigint, kind text, dedupe_key text, recipient text, locale text,
	mail partner_portal.mail_content, secret text DEFAULT NULL, expires_at timestamptz DEFAULT NULL, unsubscribe_url text DEFAULT NULL) RETURNS bigint
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_enqueue_mail';
COMMENT ON FUNCTION partner_portal.enqueue_mail(bigint, text, text, text, text, partner_portal.mail_content, text, timestamptz, text) IS
'For our own functions, in the transaction that causes the mail: one mail to one recipient, at most once per workspace, kind and dedupe_key. A workspace_id of NULL is the platform; secret is a token that the body holds, to be blanked; unsubscribe_url for lists only. Returns the notification''s id, or NULL if it was already owed.';
REVOKE ALL ON FUNCTION partner_portal.enqueue_mail(bigint, text, text, text, text, partner_portal.mail_content, text, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.wake_delivery() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_wake_delivery';
COMMENT ON FUNCTION partner_portal.wake_delivery() IS 'Wakes the worker when the transaction commits.';
REVOKE ALL ON FUNCTION partner_portal.wake_delivery() FROM PUBLIC;

CREATE TRIGGER wake AFTER INSERT ON partner_portal.delivery_queue
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.wake_delivery();

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT (workspace_id, notification_id, message_id, partner_key, kind, occurred_at, expires_at, state, attempts, next_attempt_at, finished_at, last_code, last_error, endpoint_id)', 'TABLE partner_portal.notification'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.adopt_deliveries()');
