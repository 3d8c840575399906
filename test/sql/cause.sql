\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept cause
\i :begin
\i :as
-- what owes a message: in the transaction that causes it, undone with it, once
-- workspace 1: partner; 2: its customer; 3: another partner; 4: another customer of 1. Account n owns workspace n; 1 and 2 read German
SELECT (partner_portal.create_workspace('Nord', 'p@nord.example', 'nord')).workspace_id;
SELECT (partner_portal.promote_to_partner(1)).partner_id;
SELECT (partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner), 'Kunde', 'k@kunde.example', slug => 'kunde')).workspace_id;
SELECT (partner_portal.create_workspace('South', 's@south.example', 'south')).workspace_id;
SELECT (partner_portal.promote_to_partner(3)).partner_id;
SELECT (partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner WHERE partner_id = 1), 'Other', 'o@other.example', slug => 'other')).workspace_id;
UPDATE partner_portal.account SET locale = 'de-CH' WHERE account_id IN (1, 2);
INSERT INTO partner_portal.webhook_endpoint (workspace_id, partner_key, url, events, key_version)
	SELECT workspace_id, partner_key, 'https://hooks.example/secret-' || workspace_id, '{*}', 1 FROM partner_portal.workspace ORDER BY workspace_id;
INSERT INTO partner_portal.delivery_destination (destination) SELECT endpoint_id FROM partner_portal.webhook_endpoint;
-- Runs a statement and undoes it; runs it, and lists what is owed; runs it again, if asked to.
CREATE FUNCTION cause(statement text, again boolean DEFAULT true) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	seen bigint := (SELECT coalesce(max(notification_id), 0) FROM partner_portal.notification);
	caused bigint;
BEGIN
	BEGIN
		EXECUTE statement;
		SELECT count(*) INTO caused FROM partner_portal.notification WHERE notification_id > seen;
		RAISE EXCEPTION SQLSTATE 'TT000';
	EXCEPTION WHEN SQLSTATE 'TT000' THEN
		RETURN NEXT format('%s, undone %s', caused, (SELECT count(*) FROM partner_portal.notification WHERE notification_id > seen));
	END;
	SELECT coalesce(max(notification_id), 0) INTO seen FROM partner_portal.notification;
	EXECUTE statement;
	RETURN QUERY SELECT format('%s %s %s: %s', n.kind, coalesce(n.recipient, 'endpoint of ' || n.workspace_id), n.locale,
			regexp_replace(regexp_replace(coalesce(n.subject, ((n.text_body::jsonb -> 'data') - '{grant_id,invoice_id,expires_at}'::text[])::text), '\d\d\.\d\d\.\d{4}', '<day>'), '"key_ids": \[(\d+, ){19}\d+\]', '"key_ids": [20 of them]'))
		FROM partner_portal.notification n JOIN partner_portal.delivery_queue q USING (workspace_id, notification_id)
		WHERE n.notification_id > seen ORDER BY n.kind, n.recipient, n.endpoint_id, n.subject;
	IF again THEN
		SELECT coalesce(max(notification_id), 0) INTO seen FROM partner_portal.notification;
		EXECUTE statement;
		RETURN NEXT format('again %s', (SELECT count(*) FROM partner_portal.notification WHERE notification_id > seen));
	END IF;
END
$$;

-- invitations: to an account in its language, to strangers in that of who invites
SELECT cause($$SELECT run_as(NULL, NULL, 'SELECT partner_portal.invite_partner(''new@new.example'', ''New'')')$$);
SELECT cause($$SELECT run_as(1, 'regress_app', 'SELECT partner_portal.invite_customer(''a@a.example'', ''A & B'')')$$);
SELECT cause($$SELECT run_as(1, 'regress_app', 'SELECT partner_portal.invite_customer(''b@b.example'')')$$);
SELECT cause($$SELECT run_as(3, 'regress_app', 'SELECT partner_portal.invite_customer(''c@c.example'', ''C'')')$$);
SELECT cause($$SELECT run_as(3, 'regress_app', 'SELECT partner_portal.invite_customer(''k@kunde.example'', ''Kunde 2'')')$$);
SELECT cause(format($$SELECT run_as(2, 'regress_app', 'SELECT partner_portal.invite_member(2, ''%s@kunde.example'', ''%s'')')$$, r, r)) FROM unnest(ARRAY['owner', 'administrator', 'member', 'guest']) r;
SELECT cause($$SELECT partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner WHERE partner_id = 1), 'Hotel', 'h@hotel.example', confirm => true)$$, false);
SELECT run_as(1, :app, $$SELECT (partner_portal.create_portal(1, 'Portal', 'nord-portal', '#123456', 'https://example.com/')).portal_id$$);
SELECT cause($$SELECT run_as(1, 'regress_app', 'SELECT partner_portal.invite_portal_user((SELECT portal_id FROM partner_portal.portals), ''u@u.example'', ''viewer'')')$$);
SELECT cause($$SELECT run_as(1, 'regress_app', 'SELECT partner_portal.resend_invitation(i.invitation_id) FROM partner_portal.pending_invitations i WHERE i.email = ''a@a.example''')$$, false);
-- the whole of one, in both languages; the token is in both forms of the body
SELECT regexp_replace(replace(n.text_body, n.secret, '<token>'), '\d+[.-]\d+[.-]\d+ \d+:\d+', '<time>') FROM partner_portal.notification n WHERE n.recipient IN ('b@b.example', 'c@c.example') ORDER BY n.recipient;
SELECT html_body ~ '<html lang="de">' AS german, html_body ~ '<a href="https://portal.example.com/invitation/[A-Za-z0-9_-]{43}"' AS link, html_body ~ 'A &amp; B' AS escaped
	FROM partner_portal.notification WHERE recipient = 'a@a.example' AND state = 'pending';

-- access: offered, granted, asked for, expiring, ended; the wallet moves
SELECT cause($$SELECT run_as(2, 'regress_app', 'SELECT partner_portal.offer_access(2, 3, ''complete'', wallet => true)')$$);
-- nobody but the two sides hears of it
SELECT cause($$SELECT run_as(3, 'regress_app', 'SELECT partner_portal.accept_access(g.grant_id) FROM partner_portal.grants g WHERE g.state = ''offered''')$$);
SELECT cause($$SELECT run_as(3, 'regress_app', 'SELECT partner_portal.request_access(2, message => ''Wir <b>bitten</b>'')')$$);
SELECT run_as(2, :app, 'SELECT (partner_portal.offer_access(2, 1, ''complete'', wallet => true)).state');
SELECT cause($$SELECT run_as(1, 'regress_app', 'SELECT partner_portal.accept_access(g.grant_id) FROM partner_portal.grants g WHERE g.partner_id = 1 AND g.state = ''offered''')$$);
SELECT text_body FROM partner_portal.notification WHERE kind = 'wallet_moved';
SELECT text_body FROM partner_portal.notification WHERE kind = 'access_request';
SELECT run_as(2, :app, $$SELECT (partner_portal.extend_access(g.grant_id, '2099-03-01 12:00+00')).state FROM partner_portal.grants g WHERE g.partner_id = 3 AND g.state = 'active'$$);
SELECT cause(format('SELECT partner_portal.notify_expiring_access(%L)', t)) FROM unnest(ARRAY['2099-01-15', '2099-01-30 12:00+00', '2099-02-22 12:00+00', '2099-02-28 12:00+00', '2099-03-01 00:00+00']::timestamptz[]) t;
SELECT text_body FROM partner_portal.notification WHERE kind = 'access_expiry' AND locale = 'de-CH' ORDER BY notification_id LIMIT 1;
SELECT cause($$SELECT run_as(2, 'regress_app', 'SELECT partner_portal.end_access(g.grant_id, ''because of Mr. X'') FROM partner_portal.grants g WHERE g.partner_id = 3 AND g.state = ''active''')$$);
SELECT cause($$SELECT run_as(2, 'regress_app', 'SELECT partner_portal.end_access(g.grant_id) FROM partner_portal.grants g WHERE g.partner_id = 3 AND g.state = ''requested''')$$);

-- keys (src/key_event.c): one event per statement and workspace, with counts, for the workspace and its partner
SELECT cause($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT 4, CASE WHEN i > 30 THEN 'smartphone' ELSE 'contactless_card' END, 'M' || clock_timestamp() || i FROM generate_series(1, 100) i$$);
SELECT cause($$UPDATE partner_portal.security_key SET status = 'disabled' WHERE status = 'active'$$);
SELECT cause($$UPDATE partner_portal.security_key SET label = 'x', status = 'revoked' WHERE serial LIKE 'M%1' AND status <> 'revoked'$$);
SELECT cause($$UPDATE partner_portal.security_key SET status = 'active' WHERE status = 'disabled'$$);
SELECT cause($$DELETE FROM partner_portal.security_key$$);
-- the number is that of the line in the log; nobody who wants none gets any, from the next statement on
SELECT l.action, n.kind FROM partner_portal.notification n JOIN partner_portal.activity l ON l.workspace_id = 4 AND l.activity_id = (n.text_body::jsonb #>> '{data,activity_id}')::bigint
	WHERE n.kind ~ 'security_key' AND n.workspace_id = 4 ORDER BY n.notification_id;
-- what is written without the executor (src/outbox.c, src/webhook_event.c) is what an INSERT of it makes, bodies byte for byte, and keeps every CHECK
CREATE TABLE inserted (LIKE partner_portal.notification INCLUDING ALL);
INSERT INTO inserted (workspace_id, notification_id, message_id, partner_key, kind, dedupe_key, occurred_at, endpoint_id, text_body) OVERRIDING SYSTEM VALUE
SELECT e.workspace_id, n.notification_id, n.message_id, e.partner_key, 'webhook.' || x.event,
	x.line || ':' || e.endpoint_id || CASE WHEN e.workspace_id = x.about THEN '' ELSE ':' || x.about END, n.occurred_at, e.endpoint_id,
	'{"type":' || to_json(x.event)::text || ',"timestamp":' || to_json(to_char(n.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text
		|| ',"data":' || (n.text_body::jsonb -> 'data')::text || '}'
FROM partner_portal.notification n JOIN partner_portal.webhook_endpoint e ON e.endpoint_id = n.endpoint_id,
	LATERAL (SELECT n.text_body::jsonb ->> 'type' AS event, (n.text_body::jsonb #>> '{data,workspace_id}')::bigint AS about,
		(n.text_body::jsonb #>> '{data,activity_id}')::bigint AS line) x
WHERE n.kind ~ 'security_key';
SELECT count(*) > 10 AS many, bool_and(to_jsonb(n) - 'next_attempt_at' = to_jsonb(i) - 'next_attempt_at') AS same,
	bool_and(n.text_body = i.text_body AND n.next_attempt_at = n.occurred_at) AS exactly,
	bool_and(n.message_id::text ~ '^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$') AND count(DISTINCT n.message_id) = count(*) AS random,
	bool_and((q.workspace_id, q.destination, q.next_attempt_at, q.claims) = (n.workspace_id, n.endpoint_id, n.occurred_at, 0) AND q.lease_token IS NULL AND q.lease_until IS NULL) AS queued
FROM partner_portal.notification n LEFT JOIN inserted i USING (notification_id) LEFT JOIN partner_portal.delivery_queue q USING (notification_id) WHERE n.kind ~ 'security_key';
SET enable_seqscan = off;
SELECT count(*) FILTER (WHERE (SELECT count(*) FROM partner_portal.notification n WHERE n.notification_id = i.notification_id) = 1
	AND (SELECT count(*) FROM partner_portal.notification n WHERE (n.workspace_id, n.kind, n.dedupe_key) = (i.workspace_id, i.kind, i.dedupe_key)) = 1
	AND (SELECT count(*) FROM partner_portal.delivery_queue q WHERE (q.workspace_id, q.notification_id) = (i.workspace_id, i.notification_id)) = 1
	AND (SELECT count(*) FROM partner_portal.delivery_queue q WHERE q.destination = i.endpoint_id AND q.notification_id = i.notification_id) = 1) = count(*) AS indexed
FROM inserted i;
RESET enable_seqscan;
DROP TABLE inserted;
-- the same number cannot be owed twice
INSERT INTO partner_portal.notification (workspace_id, partner_key, kind, dedupe_key, endpoint_id, text_body)
	SELECT 4, 1, 'webhook.security_key.activated', max(activity_id) + 1 || ':' || (SELECT endpoint_id FROM partner_portal.webhook_endpoint WHERE workspace_id = 4), 1, '{}' FROM partner_portal.activity WHERE workspace_id = 4;
\set VERBOSITY sqlstate
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (4, 'smartphone', 'twice');
\set VERBOSITY terse
DELETE FROM partner_portal.notification WHERE text_body = '{}';
BEGIN;
UPDATE partner_portal.webhook_endpoint SET events = '{security_key.disabled}';
SELECT cause($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 'a'); UPDATE partner_portal.security_key SET status = 'disabled' WHERE workspace_id = 3$$, false);
SAVEPOINT s;
UPDATE partner_portal.webhook_endpoint SET events = '{other}';
SELECT cause($$UPDATE partner_portal.security_key SET status = 'active' WHERE workspace_id = 3; UPDATE partner_portal.security_key SET status = 'disabled' WHERE workspace_id = 3$$, false);
ROLLBACK TO s;
SELECT cause($$UPDATE partner_portal.security_key SET status = 'active' WHERE workspace_id = 3; UPDATE partner_portal.security_key SET status = 'disabled' WHERE workspace_id = 3$$, false);
ROLLBACK;
SELECT cause($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 'a')$$, false);
-- not of what a dump brings
SET partner_portal.restoring = on;
SELECT cause($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial, status, activated_at) VALUES (3, 'smartphone', 'b', 'active', now())$$, false);
RESET partner_portal.restoring;
DELETE FROM partner_portal.security_key;

-- the limit: once per workspace, period and threshold, with those of two customers kept apart at their partner's endpoint
SELECT run_as(1, :app, format('SELECT count(*) FROM partner_portal.set_usage_limit(%s, 5)', w)) FROM unnest(ARRAY[2, 4]) w;
SELECT cause($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT 2, 'smartphone', 'S' || i FROM generate_series(1, 4) i$$, false);
SELECT cause($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'S5')$$, false);
SELECT cause($$UPDATE partner_portal.security_key SET status = 'disabled' WHERE serial = 'S5'; UPDATE partner_portal.security_key SET status = 'active' WHERE serial = 'S5'$$);
SELECT partner_portal.enqueue_webhook_event(w, 'test', '{}', 'same') FROM unnest(ARRAY[2, 4, 2]) w;
SELECT workspace_id, text_body::jsonb -> 'data' FROM partner_portal.notification WHERE kind = 'webhook.test' ORDER BY notification_id;

-- the daily list, if anything was added
UPDATE partner_portal.workspace SET notify_new_keys = true WHERE workspace_id IN (2, 3);
SELECT partner_portal.tick_new_keys(now());
SELECT cause($$SELECT partner_portal.tick_new_keys(now() + interval '1 day')$$);

-- the monthly report, and the event, when a document is final
INSERT INTO partner_portal.workspace (company_name, slug, partner_id, created_at, anchor_date, billing_from, notify_billing) VALUES ('Past', 'past', 1, '2026-01-01', '2026-01-01', '2026-01-01', true);
SELECT (partner_portal.add_member(5, 'o@past.example', 'owner')).role;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial, status) VALUES (5, 'smartphone', 'P', 'disabled');
SELECT partner_portal.import_key_activity(5, key_id, '[2026-01-05, 2026-01-20)', 'past') IS NOT NULL FROM partner_portal.security_key WHERE workspace_id = 5;
SELECT (partner_portal.create_price_plan(1, 'Unit', 'CHF', 'per_unit', unit_price => 2)).plan_id;
SELECT (partner_portal.assign_price_plan(5, 1, '2026-01-01')).valid_from;
SELECT cause($$SELECT partner_portal.run_billing('2026-02-01 02:00+00')$$);

-- an endpoint that is gone, or failed for five days: its owners are told, once
SELECT cause($$UPDATE partner_portal.webhook_endpoint SET state = 'active' WHERE workspace_id = 2;
	UPDATE partner_portal.delivery_queue SET lease_token = 7, lease_until = now() + '1 hour' WHERE destination = 2;
	UPDATE partner_portal.delivery_destination SET failing_since = '2026-01-01' WHERE destination = 2;
	SELECT partner_portal.record_failure(q.workspace_id, q.notification_id, 7, 'gone', 410, 'HTTP status 410', 0) FROM partner_portal.delivery_queue q WHERE q.destination = 2$$);
SELECT text_body !~ 'secret' AS no_path, text_body FROM partner_portal.notification WHERE kind = 'webhook_disabled';
SELECT partner_portal.resume_webhook_endpoint(2);
SELECT cause($$UPDATE partner_portal.delivery_queue SET lease_token = 7, lease_until = now() + '1 hour' WHERE destination = 2;
	UPDATE partner_portal.delivery_destination SET failing_since = '2026-02-01' WHERE destination = 2;
	SELECT partner_portal.record_failure(q.workspace_id, q.notification_id, 7, 'retry', 500, 'HTTP status 500', 0) FROM partner_portal.delivery_queue q WHERE q.destination = 2$$);
SELECT endpoint_id, state, state_reason FROM partner_portal.webhook_endpoint ORDER BY 1;

-- a range of an endpoint's events again
UPDATE partner_portal.notification SET state = CASE WHEN kind = 'webhook.test' THEN 'dead' ELSE 'delivered' END, next_attempt_at = NULL, finished_at = now(), occurred_at = '2026-05-01 10:00+00' WHERE endpoint_id = 2;
DELETE FROM partner_portal.delivery_queue WHERE destination = 2;
SELECT run_as(2, :app, $$SELECT partner_portal.replay_webhook_events(2, '2026-05-01 10:00:01+00')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.replay_webhook_events(2, '2026-05-01 09:00+00', '2026-05-01 10:00+00')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.replay_webhook_events(2, '2026-05-01 10:00+00', failed_only => true)$$);
SELECT run_as(1, :app, $$SELECT partner_portal.replay_webhook_events(2, '-infinity', 'infinity') > 1$$);
SELECT run_as(2, :app, $$SELECT partner_portal.replay_webhook_events(2, '-infinity', 'infinity')$$);
SELECT count(*) FILTER (WHERE q.notification_id IS NULL) AS not_queued, bool_and(n.state = 'pending' AND n.attempts = 0) AS pending
	FROM partner_portal.notification n LEFT JOIN partner_portal.delivery_queue q USING (workspace_id, notification_id) WHERE n.endpoint_id = 2;
SELECT run_as(2, :app, $$SELECT partner_portal.replay_webhook_events(2, NULL)$$);
SELECT run_as(2, :app, $$SELECT partner_portal.replay_webhook_events(2, now(), now())$$);
SELECT run_as(2, :app, $$SELECT partner_portal.replay_webhook_events(3, '2026-05-01')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.replay_webhook_events(99, '2026-05-01')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.replay_webhook_events(NULL, '2026-05-01')$$);
SELECT run_as(NULL, :app, $$SELECT partner_portal.replay_webhook_events(2, '2026-05-01')$$);
