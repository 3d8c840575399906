\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept notice
\i :begin
SELECT slug FROM partner_portal.create_workspace('Kunde & <Söhne>', 'ann@kunde.example', 'kunde', 'Europe/Zurich', '2026-01-01');
UPDATE partner_portal.account SET locale = 'de';
SELECT role FROM partner_portal.add_member(1, 'bob@kunde.example', 'administrator');
SELECT role FROM partner_portal.add_member(1, 'eve@kunde.example', 'member');
UPDATE partner_portal.member SET accepted_at = now();
-- alerts, in the transaction that activates: one mail per owner and administrator, each in its language
UPDATE partner_portal.workspace SET restrict_keys = true, key_limit = 5;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT 1, 'smartphone', 'S' || i FROM generate_series(1, 4) i;
SELECT recipient, locale, kind, subject, text_body FROM partner_portal.notification ORDER BY notification_id;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (1, 'contactless_card', 'C1');
SELECT recipient, kind, subject FROM partner_portal.notification WHERE subject LIKE '%100%' ORDER BY notification_id;
BEGIN;
DELETE FROM partner_portal.limit_alert;
DELETE FROM partner_portal.notification;
INSERT INTO partner_portal.limit_alert VALUES (1, '-infinity', 80, now(), 4, 5, 0);
SELECT count(*) FROM partner_portal.notification;
ROLLBACK;
DELETE FROM partner_portal.notification;
-- the daily list: of local days that are over, once, if there are any keys
UPDATE partner_portal.workspace SET notify_new_keys = true;
CALL partner_portal.tick(now());
SELECT count(*) FROM partner_portal.notification;
CALL partner_portal.tick(now() + interval '1 day');
CALL partner_portal.tick(now() + interval '1 day');
CALL partner_portal.tick(now() + interval '3 days');
SELECT recipient, kind, subject LIKE '%' || to_char(now() AT TIME ZONE 'Europe/Zurich', 'YYYY-MM-DD') OR subject LIKE '%' || to_char(now() AT TIME ZONE 'Europe/Zurich', 'DD.MM.YYYY') AS of_today,
	unsubscribe_url ~ '^https://portal.example.com/unsubscribe/[A-Za-z0-9_-]{43}$' AS can_unsubscribe, text_body FROM partner_portal.notification ORDER BY notification_id;
-- one click, and no more of that list
SELECT partner_portal.unsubscribe(substring(unsubscribe_url FROM '[^/]*$')) FROM partner_portal.notification WHERE recipient LIKE 'ann%';
SELECT partner_portal.unsubscribe('nothing');
DELETE FROM partner_portal.notification;
UPDATE partner_portal.new_keys_digest SET done_until = done_until - 30;
CALL partner_portal.tick(now() + interval '3 days');
SELECT recipient, count(*) FROM partner_portal.notification GROUP BY 1;
-- and back on it, by who was taken off, signed in, and nobody else
SELECT partner_portal.resubscribe(1, 'new_keys');
SELECT account_id AS ann FROM partner_portal.account WHERE email LIKE 'ann%' \gset
SELECT account_id AS bob FROM partner_portal.account WHERE email LIKE 'bob%' \gset
BEGIN;
SET LOCAL ROLE regress_app;
SAVEPOINT s;
SELECT partner_portal.resubscribe(1, 'new_keys');
ROLLBACK TO s;
SELECT * FROM partner_portal.my_mail_lists;
RESET ROLE;
SELECT partner_portal.login_as(:bob) = :bob AS bob;
SET LOCAL ROLE regress_app;
SELECT partner_portal.resubscribe(1, 'new_keys');
SELECT workspace_id, list, opted_out_at IS NOT NULL AS out FROM partner_portal.my_mail_lists;
COMMIT;
SELECT a.email, o.opted_out_at IS NOT NULL AS out FROM partner_portal.mail_opt_out o JOIN partner_portal.account a USING (account_id) ORDER BY 1;
BEGIN;
SELECT partner_portal.login_as(:ann) = :ann AS ann;
SET LOCAL ROLE regress_app;
SELECT workspace_id, list, opted_out_at IS NOT NULL AS out FROM partner_portal.my_mail_lists;
SAVEPOINT s;
SELECT partner_portal.resubscribe(1, 'spam');
ROLLBACK TO s;
SELECT partner_portal.resubscribe(NULL, 'new_keys');
ROLLBACK TO s;
SELECT partner_portal.resubscribe(1, NULL);
ROLLBACK TO s;
SELECT partner_portal.resubscribe(99, 'new_keys');
ROLLBACK TO s;
SELECT partner_portal.resubscribe(1, 'billing_report'), partner_portal.resubscribe(1, 'new_keys'), partner_portal.resubscribe(1, 'new_keys');
SELECT workspace_id, list, opted_out_at IS NOT NULL AS out FROM partner_portal.my_mail_lists;
COMMIT;
-- the log tells who was taken off and came back, by the link, as the account, or by hand; once for each change
BEGIN;
UPDATE partner_portal.mail_opt_out SET opted_out_at = now() WHERE account_id = :bob;
UPDATE partner_portal.mail_opt_out SET opted_out_at = now() + interval '1 s' WHERE account_id = :bob;
SELECT account_id = about_account_id AS by_oneself, about_account_id = :ann AS ann, action, description, details - 'account_id' AS details
	FROM partner_portal.activity_log(1, action => 'update_user_profile') WHERE description ~ 'mails' ORDER BY activity_id;
ROLLBACK;
DELETE FROM partner_portal.notification;
UPDATE partner_portal.new_keys_digest SET done_until = done_until - 30;
CALL partner_portal.tick(now() + interval '3 days');
SELECT recipient, count(*) FROM partner_portal.notification GROUP BY 1 ORDER BY 1;
-- a change of zone leaves no key out and lists none twice: a day that ended in the east 25 hours before the next one began in the west, and the other way round
SELECT ((max(created_at) AT TIME ZONE 'UTC') - interval '10 hours')::date AS day FROM partner_portal.security_key WHERE workspace_id = 1 \gset
BEGIN;
DELETE FROM partner_portal.notification;
UPDATE partner_portal.workspace SET time_zone = 'Pacific/Pago_Pago' WHERE workspace_id = 1;
UPDATE partner_portal.new_keys_digest SET done_until = :'day', time_zone = 'Pacific/Kiritimati';
SELECT partner_portal.tick_new_keys(now() + interval '5 days') AS days;
SELECT recipient, subject ~ to_char(date :'day' + 1, 'YYYY-MM-DD|DD\.MM\.YYYY') AS of_the_first_day FROM partner_portal.notification ORDER BY 1;
SELECT done_until - date :'day' AS days, time_zone FROM partner_portal.new_keys_digest;
ROLLBACK;
BEGIN;
DELETE FROM partner_portal.notification;
UPDATE partner_portal.workspace SET time_zone = 'Pacific/Kiritimati' WHERE workspace_id = 1;
UPDATE partner_portal.new_keys_digest SET done_until = :'day', time_zone = 'Pacific/Pago_Pago';
SELECT partner_portal.tick_new_keys(now() + interval '5 days') AS days;
SELECT recipient FROM partner_portal.notification ORDER BY 1;
ROLLBACK;
-- templates, in both languages, everything escaped
SELECT (m).subject, (m).text_body, position('<script>' IN (m).html_body) AS script FROM partner_portal.mail_billing_report('en', 'A <script>alert(1)</script> & Co', '2026-10-01..2026-10-31', 'INV-7', 'CHF',
	ARRAY['Smartphones', 'Cards <b>'], ARRAY['25.00', '4.00'], '29.00', ARRAY['2026-09-01..2026-09-30', '2026-10-01..2026-10-31'], ARRAY[3, 6]) m;
SELECT (m).subject, (m).html_body FROM partner_portal.mail_billing_report('de-CH', 'Kunde', '2026-10-01..2026-10-31', 'INV-7', 'CHF',
	ARRAY['Smartphones'], ARRAY['25.00'], '25.00', ARRAY['2026-08', '2026-09', '2026-10'], ARRAY[0, 3, 6]) m;
SELECT (m).subject, (m).text_body FROM unnest(ARRAY['en', 'de']) l, partner_portal.mail_grant_expiry(l, 'Kunde', 'Partner', '2026-12-24', 7) m;
SELECT (m).subject, (m).text_body FROM unnest(ARRAY['en', 'de']) l, partner_portal.mail_grant_expiry(l, 'Kunde', 'Partner', '2026-12-24', 1) m;
SELECT (m).subject, (m).text_body FROM unnest(ARRAY['en', 'de']) l, partner_portal.mail_limit_alert(l, 'Kunde', 80, 4, 5) m;
-- content is nobody's to read
\set VERBOSITY sqlstate
SET ROLE regress_app;
SELECT text_body FROM partner_portal.notification;
SELECT recipient FROM partner_portal.notification;
SELECT token FROM partner_portal.mail_opt_out;
SELECT * FROM partner_portal.delivery_queue;
SELECT count(*) FROM partner_portal.delivery_status;
SELECT partner_portal.enqueue_mail(1, 'x', 'y', 'z@example.com', 'en', NULL);
RESET ROLE;
-- who is erased is not written to any more, and what was written is gone; so is what a purged workspace was told, and whom
\set VERBOSITY terse
SET search_path = partner_portal, public;
INSERT INTO webhook_endpoint (workspace_id, partner_key, url, events, key_version) VALUES (1, 0, 'https://kunde.example/?token=secret', '{*}', 1);
INSERT INTO delivery_destination (destination) SELECT endpoint_id FROM webhook_endpoint;
SELECT enqueue_webhook_event(1, 'test', '{}', 'test');
SELECT enqueue_mail(1, 'test', r, r || '@kunde.example', 'en', ROW('Hello ' || r, 't', NULL)::mail_content) IS NOT NULL AS owed FROM unnest('{ann,Bob}'::text[]) r;
SELECT lower(recipient) AS recipient, count(*) FROM notification GROUP BY 1 ORDER BY 1;
SELECT name FROM erase_account(:bob);
SELECT lower(recipient) AS recipient, count(*) FROM notification GROUP BY 1 ORDER BY 1;
SELECT account_id = :ann AS ann FROM mail_opt_out;
SELECT deleted_at IS NOT NULL AS deleted FROM delete_workspace(1);
SELECT create_webhook_endpoint(1, 'https://kunde.example/', '{*}');
SELECT count(*) >= 0 AS billed FROM run_billing();
SELECT purged_at IS NOT NULL AS purged FROM purge_workspace(1);
SELECT (SELECT count(*) FROM notification) AS messages, (SELECT count(*) FROM delivery_queue) AS queued, (SELECT count(*) FROM webhook_endpoint) AS endpoints,
	(SELECT array_agg(destination) FROM delivery_destination) AS destinations, (SELECT count(*) FROM mail_opt_out) AS lists;
SELECT * FROM verify();
