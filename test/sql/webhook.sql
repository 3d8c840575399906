\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept webhook
\i :begin
-- a signature, after the vector of Standard Webhooks' reference libraries (their 24-byte secret aside: ours have 32)
SELECT partner_portal.webhook_signature('whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=', 'msg_1', 1614265330, '{"test": 2432232314}') =
	'v1,' || encode(hmac, 'base64') AS as_specified
	FROM (SELECT sha256(xor_5c || sha256(xor_36 || convert_to('msg_1.1614265330.{"test": 2432232314}', 'UTF8'))) AS hmac
		FROM (SELECT string_agg(set_byte('\x00', 0, get_byte(k, i) # 54), '' ORDER BY i) AS xor_36, string_agg(set_byte('\x00', 0, get_byte(k, i) # 92), '' ORDER BY i) AS xor_5c
			FROM (SELECT '01234567890123456789012345678901'::bytea || decode(repeat('00', 32), 'hex') AS k) k, generate_series(0, 63) i) pads) h;
SELECT count(*) FROM partner_portal.create_workspace('Partner', 'p@partner.example', 'partner');
SELECT count(*) FROM partner_portal.promote_to_partner(1);
SELECT count(*) FROM partner_portal.create_own_workspace(1, 'Customer', 'customer');
SELECT count(*) FROM partner_portal.create_workspace('Other', 'o@other.example', 'other');
INSERT INTO partner_portal.webhook_endpoint (workspace_id, partner_key, url, events, key_version)
	VALUES (1, 0, 'https://partner.example/hook', '{key.activated}', 1), (2, 1, 'https://customer.example/hook', '{*}', 1), (3, 0, 'https://other.example/hook', '{*}', 1);
INSERT INTO partner_portal.delivery_destination (destination) SELECT endpoint_id FROM partner_portal.webhook_endpoint;
-- an event goes to the workspace and to its partner, to each endpoint that wants it, once
SELECT partner_portal.enqueue_webhook_event(2, 'key.activated', '{"key_id": 1}', 'k1'), partner_portal.enqueue_webhook_event(2, 'key.disabled', '{"key_id": 1}', 'k1');
SELECT partner_portal.enqueue_webhook_event(2, 'key.activated', '{"key_id": 1}', 'k1') AS again;
SELECT workspace_id, endpoint_id, kind, text_body::jsonb - 'timestamp' AS body FROM partner_portal.notification ORDER BY notification_id;
-- bodies are those of jsonb, byte for byte, whatever is told; what data says of its workspace stands
BEGIN;
CREATE TEMP TABLE told (n, event, data) AS VALUES
	(1, 'plain', '{}'::jsonb), (2, 'plain', '{"b": [1, {"c": null}], "aa": "Grüße \"\\ \u0001 </script>", "n": 12345678901234567890.10}'),
	(3, 'plain', '{"workspace_id": 7}'), (4, 'plain', '[1, 2]'), (5, 'a.b_c.d9', '{"workspace_ie": true, "x": {"workspace_id": 1}}');
SELECT t.n, partner_portal.enqueue_webhook_event(3, t.event, t.data, 'told' || t.n), partner_portal.enqueue_webhook_event(3, t.event, '{}', 'told' || t.n) AS again FROM told t ORDER BY t.n;
SELECT t.n, n.kind, n.dedupe_key, n.state, n.text_body = '{"type":' || to_json(t.event)::text || ',"timestamp":' || to_json(to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text
		|| ',"data":' || (jsonb_build_object('workspace_id', 3) || t.data)::text || '}' AS same
	FROM told t LEFT JOIN partner_portal.notification n ON n.dedupe_key LIKE 'told' || t.n || ':%' ORDER BY t.n;
SELECT partner_portal.enqueue_event_for('{2,NULL,3,2,99}', 3, 'test', '{}', 'given') AS owed;
SELECT workspace_id, partner_key, endpoint_id, dedupe_key FROM partner_portal.notification WHERE kind = 'webhook.test' ORDER BY notification_id;
SELECT partner_portal.enqueue_webhook_event(99, 'test', '{}', 'absent') AS owed;
\set VERBOSITY sqlstate
SAVEPOINT s;
SELECT partner_portal.enqueue_webhook_event(3, 'Not An Event', '{}', 'x');
ROLLBACK TO s;
SELECT partner_portal.enqueue_webhook_event(3, 'test', '{}', repeat('x', 400));
ROLLBACK TO s;
\set VERBOSITY terse
ROLLBACK;
-- each sees its own; the partner sees its customer's
CREATE TEMP TABLE person AS SELECT DISTINCT ON (workspace_id) workspace_id, account_id FROM partner_portal.member WHERE role = 'owner' ORDER BY workspace_id, account_id;
GRANT SELECT ON person TO regress_trusted;
BEGIN;
SET LOCAL ROLE regress_trusted;
SELECT count(partner_portal.login_as(account_id)) FROM person WHERE workspace_id = 1;
SELECT partner_portal.act_in(1);
SELECT workspace_id, kind, channel, state, attempts FROM partner_portal.delivery_status ORDER BY notification_id;
SELECT workspace_id, url FROM partner_portal.webhook_endpoint ORDER BY endpoint_id;
SAVEPOINT s;
SELECT partner_portal.pause_webhook_endpoint(3);
ROLLBACK TO s;
SELECT nonce FROM partner_portal.webhook_endpoint;
ROLLBACK TO s;
SELECT partner_portal.pause_webhook_endpoint(2, 'for now');
SELECT state, state_reason FROM partner_portal.webhook_endpoint WHERE endpoint_id = 2;
COMMIT;
SELECT destination, paused FROM partner_portal.delivery_destination ORDER BY 1;
BEGIN;
SET LOCAL ROLE regress_trusted;
SELECT count(partner_portal.login_as(account_id)) FROM person WHERE workspace_id = 3;
SELECT workspace_id, kind FROM partner_portal.delivery_status ORDER BY notification_id;
SELECT workspace_id, url FROM partner_portal.webhook_endpoint ORDER BY endpoint_id;
SAVEPOINT s;
SELECT partner_portal.resend_notification(1);
ROLLBACK TO s;
SELECT partner_portal.delete_webhook_endpoint(2);
ROLLBACK;
-- deleted, what it is owed is cancelled
SELECT partner_portal.delete_webhook_endpoint(2);
SELECT endpoint_id, state FROM partner_portal.notification ORDER BY notification_id;
SELECT partner_portal.resume_webhook_endpoint(2);
\set VERBOSITY sqlstate
-- malformed
SELECT partner_portal.create_webhook_endpoint(1, url, '{*}') FROM (VALUES ('ftp://x/')) v (url);
SELECT partner_portal.create_webhook_endpoint(1, 'https://user@x/', '{*}');
SELECT partner_portal.create_webhook_endpoint(1, E'https://x/\r\nX: y', '{*}');
SELECT partner_portal.create_webhook_endpoint(1, 'https://x/' || repeat('x', 2048), '{*}');
SELECT partner_portal.create_webhook_endpoint(1, 'https://x/', '{}');
SELECT partner_portal.create_webhook_endpoint(1, 'https://x/', '{NULL}');
SELECT partner_portal.create_webhook_endpoint(1, 'https://x/', '{{a,b},{c,d}}');
SELECT partner_portal.create_webhook_endpoint(1, 'https://x/', '{"Key Activated"}');
SELECT partner_portal.create_webhook_endpoint(1, NULL, '{*}');
SELECT partner_portal.create_webhook_endpoint(99, 'https://x/', '{*}');
SELECT partner_portal.create_webhook_endpoint(1, 'https://x/', '{*}');
SET ROLE regress_app;
SELECT partner_portal.create_webhook_endpoint(1, 'https://x/', '{*}');
SELECT partner_portal.resend_notification(1);
RESET ROLE;
