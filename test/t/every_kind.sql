-- every_kind.sql: rows of every kind that the extension keeps, for the tests that carry a database to somewhere else.
-- Run as superuser in a fresh database; wants the roles regress_app, regress_trusted, regress_report and regress_ops, and a
-- master key in partner_portal.secrets_file.
-- Workspaces: 1 and 8 partners; 2 to 6 customers of 1: 2 billed, 3 over a soft limit, 4 suspended, 5 deleted, 6 at its limit;
-- 7 was a customer and is direct, and let 8 in; 9 came by an invitation.
SET search_path = partner_portal, public;
SELECT enroll_role(('regress_' || r)::regrole, a)
	FROM (VALUES ('app', 'application'), ('trusted', 'trusted_application'), ('report', 'reporting'), ('ops', 'operator')) e (r, a);
SELECT set_invoice_issuer(NULL, 'Platform', 'Street 1', 'CHE-1', 'P-', true);
SELECT create_workspace('Reseller AG', 'boss@reseller.example', 'reseller');
SELECT promote_to_partner(1);
INSERT INTO workspace (company_name, slug, partner_id, created_at, anchor_date, billing_from)
	SELECT c, lower(c), 1, '2026-01-01', '2026-01-31', '2026-01-01'
	FROM unnest('{Acme,Soft,Suspended,Deleted,Limited,Direct}'::text[]) WITH ORDINALITY c (c, n) ORDER BY n;
SELECT add_member(w.workspace_id, 'owner@' || w.slug || '.example', 'owner') FROM workspace w WHERE workspace_id > 1;
-- pending members: accounts that were there before
SELECT add_member(1, 'staff@reseller.example', 'member'), add_member(2, 'owner@soft.example', 'administrator'), add_member(3, 'boss@reseller.example', 'member');
SELECT assign_staff(2, (SELECT account_id FROM account WHERE email = 'staff@reseller.example'), 'account_owner');
INSERT INTO security_key (workspace_id, kind, serial, status)
	SELECT w.workspace_id, CASE WHEN i % 3 = 0 THEN 'contactless_card' ELSE 'smartphone' END, 'k' || i, CASE WHEN i % 4 = 0 THEN 'disabled' ELSE 'active' END
	FROM workspace w, generate_series(1, 12) i WHERE workspace_id > 1;
UPDATE security_key k SET account_id = (SELECT min(m.account_id) FROM member m WHERE m.workspace_id = k.workspace_id) WHERE serial IN ('k1', 'k5');
UPDATE security_key SET status = 'disabled' WHERE serial IN ('k2', 'k3');
UPDATE security_key SET status = 'active' WHERE serial = 'k2';
UPDATE security_key SET status = 'revoked' WHERE serial = 'k5' AND workspace_id = 2;
DELETE FROM security_key WHERE serial = 'k6';
SELECT import_key_activity(k.workspace_id, k.key_id, '[2026-01-05, 2026-03-10)', 'moved in') FROM security_key k WHERE serial IN ('k1', 'k2', 'k4');
SELECT create_price_plan(1, 'Standard', 'CHF', 'per_unit', unit_price => 4.5);
SELECT add_plan_component(1, 'contactless_card', 'graduated', tiers => '[{"up_to": 5, "unit_price": 5.00}, {"up_to": null, "unit_price": 4.00}]');
SELECT set_invoice_issuer(1, 'Reseller AG', 'Street 2', 'CHE-2', 'R-');
SELECT assign_price_plan(w, 1, '2026-01-01') FROM unnest('{2,3,5}'::bigint[]) w;
-- a workspace whose documents wait to be looked at
UPDATE workspace SET auto_finalize = false WHERE slug = 'soft';
SELECT count(*) FROM run_billing('2026-05-15');
SELECT revise_price_plan(1, 'per_unit', unit_price => 5, in_force_from => now() + interval '1 year');
SELECT mark_paid((SELECT min(invoice_id) FROM invoice WHERE status = 'final'), '2026-05-20', 'transfer 1');
SELECT credit_invoice((SELECT min(invoice_id) FROM invoice WHERE status = 'final'), '[{"line":1,"amount_minor":5,"text":"sorry"}]', 'sorry');
SELECT void_invoice((SELECT max(invoice_id) FROM invoice WHERE status = 'final' AND document = 'invoice'), 'wrong');
SELECT import_key_activity(2, (SELECT key_id FROM security_key WHERE workspace_id = 2 AND serial = 'k7'), '[2026-02-05, 2026-02-10)', 'late');
-- over the limit, as a soft limit lets it be; at the limit; suspended; deleted; moved
UPDATE workspace SET limit_mode = 'soft', restrict_keys = true, key_limit = 4 WHERE slug = 'soft';
UPDATE security_key SET status = 'active' WHERE workspace_id = 3 AND status = 'disabled';
SELECT set_usage_limit(6, 5);
SELECT suspend_workspace(4, 'unpaid');
SELECT delete_workspace(5);
SELECT leave_partner(7);
SELECT link_identity(1, 'https://login.example', 'subject'), revoke_token('stolen', 'infinity'), map_role('regress_app', 1);
SELECT forget_activity(now());
SELECT log_activity(2, 'update_server', 'a line of the application');
-- a portal with its users, what is shared with them, products and who was let near them, a webhook, messages owed
SELECT create_portal(1, 'Reseller', 'reseller', '#0055aa', 'https://reseller.example/bye');
INSERT INTO folder (workspace_id, name) VALUES (1, 'Sales');
INSERT INTO folder (workspace_id, parent_id, name) SELECT workspace_id, folder_id, 'North' FROM folder;
INSERT INTO report (workspace_id, folder_id, title, definition) SELECT workspace_id, folder_id, name, '{}' FROM folder;
SELECT share_folder(1, (SELECT group_id FROM portal), true);
SELECT define_attribute(1, 'region', 'Region', 'string');
SELECT invite_portal_user(1, 'user@reseller.example', 'viewer', '{"region":"north"}');
INSERT INTO product (workspace_id, category, name) VALUES (7, 'server', 'web1'), (7, 'domain', 'direct.example');
SELECT offer_access(7, 1, 'limited', categories => '{server}');
SELECT offer_access(3, 1, 'complete', wallet => true);
SELECT invite_customer('new@customer.example', partner_id => 1);
-- rows that lie in another order than they came
UPDATE billing_period SET time_zone = time_zone WHERE period_start < '2026-03-01';

-- a second partner, let in by the direct workspace and, for a while, by one of the first partner
SELECT create_workspace('Integrator GmbH', 'ines@integrator.example', 'integrator');
SELECT promote_to_partner(8);
SELECT grant_id AS whole FROM offer_access(7, 8, 'complete', wallet => true, expires_at => now() + interval '1 year') \gset
SELECT accept_access(:whole);
SELECT grant_id AS ended FROM offer_access(2, 8, 'complete', wallet => false, rights => '{read}') \gset
SELECT accept_access(:ended), end_access(:ended, 'done');
SELECT request_access(6, 'complete', partner_id => 8, message => 'may we?');
-- its customer, by an invitation, whose plan cannot be billed
SELECT token AS invitation FROM invite_customer('nina@new.example', 'New AG', partner_id => 8) \gset
SELECT accept_invitation(:'invitation', owner_name => 'Nina', slug => 'new', time_zone => 'Europe/Zurich');
UPDATE workspace SET anchor_date = '2026-01-31', billing_from = '2026-01-01' WHERE slug = 'new';
INSERT INTO security_key (workspace_id, kind, serial) SELECT 9, 'smartphone', 'n' || i FROM generate_series(1, 20) i;
SELECT import_key_activity(9, key_id, '[2026-02-01, 2026-03-01)', 'moved in') FROM security_key WHERE workspace_id = 9;
SELECT plan_id AS absurd FROM create_price_plan(8, 'Absurd', 'CHF', 'per_unit', unit_price => 90000000000000000) \gset
SELECT assign_price_plan(9, :absurd, '2026-01-01');
SELECT count(*) FROM run_billing('2026-05-15');
-- who invites counts; a portal user who came
BEGIN;
SELECT login_as(1);
SELECT invite_member(1, 'colleague@reseller.example', 'administrator');
COMMIT;
SELECT token AS invitation FROM invite_portal_user(1, 'second@reseller.example', 'editor', '{"region": "south"}') \gset
SELECT accept_invitation(:'invitation', owner_name => 'Second');
-- mails of two days' keys, and what became of messages: delivered, refused, to be tried again, dead
UPDATE workspace SET notify_new_keys = true WHERE workspace_id IN (2, 9);
SELECT tick_new_keys(now()), tick_new_keys(now() + interval '2 days');
SELECT unsubscribe((SELECT min(token) FROM mail_opt_out));
SELECT create_webhook_endpoint(2, 'https://acme.example/hook', '{key.activated,invoice.finalized}');
SELECT enqueue_webhook_event(2, 'key.activated', '{"n": 1}', 'event ' || i) FROM generate_series(1, 4) i;
SELECT finish_notification(n.workspace_id, n.notification_id, f.state, f.code, f.error)
FROM (SELECT n.*, row_number() OVER (ORDER BY notification_id) FROM notification n WHERE endpoint_id IS NOT NULL) n
JOIN (VALUES (1, 'delivered', 200, NULL), (2, 'refused', 400, 'bad request'), (3, 'dead', 503, 'unavailable')) f (n, state, code, error) ON f.n = n.row_number;
UPDATE delivery_queue SET lease_token = 7, lease_until = now() + interval '1 minute', claims = 1 WHERE destination <> 0;
SELECT record_failure(workspace_id, notification_id, 7, 'retry', 503, 'unavailable', 60) FROM delivery_queue WHERE lease_token = 7;
