-- fill-1.0.sql: a bit of everything, through the functions of 1.0. Frozen with it: it runs against the library of every later version.
SET search_path = partner_portal, public;
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
SELECT assign_price_plan(w, 1, '2026-01-01') FROM unnest('{2,3,5}'::bigint[]) w;
SELECT count(*) FROM run_billing('2026-05-15');
SELECT revise_price_plan(1, 'per_unit', unit_price => 5, in_force_from => now() + interval '1 year');
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
-- keys by COPY, the dialog for keys, and a run that bills all that is due
SELECT workspace_id FROM create_workspace('Late GmbH', 'late@late.example', 'late', time_zone => 'America/New_York');
COPY security_key (workspace_id, kind, serial, status) FROM STDIN;
8	smartphone	c1	active
8	contactless_card	c2	active
8	smartphone	c3	disabled
\.
SELECT disable_security_keys(8, 1);
SELECT key_id FROM set_usage_limit(8, 1);
CALL run_due_billing('2026-07-20');
