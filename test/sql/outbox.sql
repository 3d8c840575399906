\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept outbox
\i :begin
-- owed once per workspace, kind and key; undone with what caused it
SELECT partner_portal.enqueue_mail(NULL, 'test', 'a', 'a@x.example', NULL, ROW('s', 't', NULL)) AS first, partner_portal.enqueue_mail(NULL, 'test', 'b', 'a@x.example', 'de', ROW('s', 't', NULL)) AS second;
SELECT partner_portal.enqueue_mail(NULL, 'test', 'a', 'a@x.example', 'en', ROW('other', 't', NULL)) AS again;
SELECT partner_portal.enqueue_mail(7, 'test', 'a', 'a@x.example', 'en', ROW('s', 't', NULL)) IS NOT NULL AS of_another_workspace;
BEGIN;
SELECT partner_portal.enqueue_mail(NULL, 'test', 'c', 'a@x.example', 'en', ROW('s', 't', NULL)) IS NOT NULL AS owed;
SAVEPOINT s;
SELECT partner_portal.enqueue_mail(NULL, 'test', 'd', 'a@x.example', 'en', ROW('s', 't', NULL)) IS NOT NULL AS owed;
ROLLBACK TO s;
COMMIT;
BEGIN;
SELECT partner_portal.enqueue_mail(NULL, 'test', 'e', 'a@x.example', 'en', ROW('s', 't', NULL)) IS NOT NULL AS owed;
ROLLBACK;
SELECT workspace_id, dedupe_key, locale, state, (SELECT count(*) FROM partner_portal.delivery_queue q WHERE q.notification_id = n.notification_id AND q.workspace_id = n.workspace_id) AS queued
	FROM partner_portal.notification n ORDER BY notification_id;
-- what could not be a mail is refused in the causing transaction
\set VERBOSITY sqlstate
SELECT partner_portal.enqueue_mail(NULL, 'test', 'f', 'a@x.example', 'en', NULL);
SELECT partner_portal.enqueue_mail(NULL, 'test', 'f', NULL, 'en', ROW('s', 't', NULL));
SELECT partner_portal.enqueue_mail(NULL, 'Not A Kind', 'f', 'a@x.example', 'en', ROW('s', 't', NULL));
SELECT partner_portal.enqueue_mail(NULL, 'test', 'f', 'a@x.example', 'en', ROW('s', repeat('x', 600000), NULL));
SELECT partner_portal.enqueue_mail(NULL, 'test', 'f', 'a@x.example', 'en', ROW('s', 't', NULL), secret => 'short');
SELECT partner_portal.enqueue_mail(NULL, NULL, 'f', 'a@x.example', 'en', ROW('s', 't', NULL));
SELECT partner_portal.enqueue_mail(NULL, 'test', '', 'a@x.example', 'en', ROW('s', 't', NULL));
SELECT partner_portal.enqueue_mail(NULL, 'test', 'f', 'a@x.example', 'en', ROW('s', NULL, 'h'));
BEGIN READ ONLY;
SELECT partner_portal.enqueue_mail(NULL, 'test', 'a', 'a@x.example', 'en', ROW('s', 't', NULL));
ROLLBACK;
BEGIN READ ONLY;
SELECT partner_portal.enqueue_webhook_event(1, 'test', '{}', 'a');
ROLLBACK;
SELECT partner_portal.enqueue_webhook_event(1, NULL, '{}', 'a');
SELECT partner_portal.enqueue_webhook_event(1, 'test', NULL, 'a');
SELECT partner_portal.enqueue_webhook_event(NULL, 'test', '{}', 'a');
SELECT partner_portal.enqueue_event_for(NULL, 1, 'test', '{}', 'a');
SELECT partner_portal.enqueue_event_for('{1,NULL,1}', 1, 'test', '{}', NULL);
SELECT partner_portal.wake_delivery();
\set VERBOSITY terse
-- what is written is what an INSERT of it makes: every column is as given, or its default
BEGIN;
SELECT partner_portal.enqueue_mail(7, 'every', 'column', 'b@x.example', 'de', ROW('Grüße', E'a\n"b" \\ {} 0123456789abcdef', '<p>h</p>'), '0123456789abcdef', '2099-01-01', 'https://x.example/u') IS NOT NULL AS owed;
CREATE TABLE inserted (LIKE partner_portal.notification INCLUDING ALL);
INSERT INTO inserted (workspace_id, notification_id, message_id, partner_key, kind, dedupe_key, recipient, locale, subject, text_body, html_body, secret, expires_at, unsubscribe_url) OVERRIDING SYSTEM VALUE
	SELECT 7, n.notification_id, n.message_id, 0, 'every', 'column', 'b@x.example', 'de', 'Grüße', E'a\n"b" \\ {} 0123456789abcdef', '<p>h</p>', '0123456789abcdef', '2099-01-01', 'https://x.example/u' FROM partner_portal.notification n WHERE n.kind = 'every';
SELECT count(*), bool_and(to_jsonb(n) = to_jsonb(i)) AS same FROM partner_portal.notification n JOIN inserted i USING (notification_id);
SELECT q.workspace_id, q.destination, q.next_attempt_at = now() AS now, q.claims, q.lease_token, q.lease_until FROM partner_portal.delivery_queue q JOIN inserted i USING (workspace_id, notification_id);
DROP TABLE inserted;
ROLLBACK;
\set VERBOSITY sqlstate
-- what is pending is not sent again, what is done is
SELECT partner_portal.resend_notification(1);
UPDATE partner_portal.notification SET state = 'dead', finished_at = now(), next_attempt_at = NULL WHERE notification_id = 1;
DELETE FROM partner_portal.delivery_queue WHERE notification_id = 1;
SELECT partner_portal.resend_notification(1);
SELECT state, attempts FROM partner_portal.notification WHERE notification_id = 1;
SELECT partner_portal.resend_notification(99);
SET ROLE regress_app;
SELECT * FROM partner_portal.delivery_attempt;
INSERT INTO partner_portal.notification (workspace_id, partner_key, kind, dedupe_key, recipient, locale, subject, text_body) VALUES (0, 0, 'x', 'x', 'a@x.example', 'en', 's', 't');
RESET ROLE;
-- numbers for monitoring
SET ROLE regress_report;
SELECT name, labels, value >= 0 AS counted FROM partner_portal.metrics ORDER BY name, labels;
RESET ROLE;
SET ROLE regress_app;
SELECT * FROM partner_portal.metrics;
RESET ROLE;
