\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept log_guard
\i :begin
-- src/log_guard.c. Who has plans printed to the client is shown those of its own statements, not those of definer functions,
-- which have values in them that are not the caller's to see: here, whose an endpoint is
SELECT count(*) FROM partner_portal.create_workspace('Own', 'own@example.com', 'own');
SELECT count(*) FROM partner_portal.create_workspace('Foreign', 'foreign@example.com', 'foreign');
INSERT INTO partner_portal.webhook_endpoint (workspace_id, partner_key, url, events, key_version) VALUES (2, 0, 'https://foreign.example/', '{*}', 1);
INSERT INTO partner_portal.delivery_destination (destination) VALUES (1);
\set VERBOSITY terse
-- for who is signed in: one plan for each statement, its own
\c - regress_trusted
SET client_min_messages = log;
BEGIN;
SELECT partner_portal.login_as(1);
SET LOCAL debug_print_plan = on;
SAVEPOINT s;
SELECT partner_portal.pause_webhook_endpoint(1);
ROLLBACK TO s;
SELECT partner_portal.pause_webhook_endpoint(7);
ROLLBACK TO s;
SELECT partner_portal.finalize_invoice(1);
ROLLBACK TO s;
SELECT partner_portal.withdraw_invitation(1);
ROLLBACK TO s;
SELECT count(set_config(tree, 'on', true)) FROM unnest('{debug_print_parse,debug_print_rewritten}'::text[]) AS tree;
SELECT partner_portal.pause_webhook_endpoint(1);
ROLLBACK TO s;
ROLLBACK;
