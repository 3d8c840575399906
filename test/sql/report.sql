\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept report
\i :begin
SET datestyle = ISO;
SELECT workspace_id FROM partner_portal.create_workspace('North Partner', 'north@example.com');
SELECT partner_id FROM partner_portal.promote_to_partner(1);
SELECT workspace_id FROM partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner), 'Alder', 'alder@example.com');
SELECT workspace_id FROM partner_portal.create_workspace('Direct', 'direct@example.com');
INSERT INTO partner_portal.security_key (workspace_id, kind, serial, status) VALUES (2, 'smartphone', 'A1', 'active'), (3, 'contactless_card', 'D1', 'active');
SELECT partner_portal.refresh_usage();
-- a reporting role reads every tenant, with nobody signed in, and no table
SET ROLE regress_report;
SELECT workspace_id, company_name, kind, partner_id, partner_name, state, total_keys, active_keys, smartphones, contactless_cards FROM partner_portal.report_workspaces ORDER BY 1;
SELECT workspace_id, partner_id, closed, kind, distinct_keys, peak_keys FROM partner_portal.report_usage ORDER BY 1, 4;
SELECT count(*) FROM partner_portal.report_invoices;
SELECT partner_portal.is_reporting();
\set VERBOSITY sqlstate
SELECT count(*) FROM partner_portal.workspace;
SELECT count(*) FROM partner_portal.usage_period;
SELECT count(*) FROM partner_portal.account;
SELECT count(*) FROM partner_portal.partner_panel;
SELECT partner_portal.usage(2);
-- an application reads none of them, and an operator's role nothing without the operator
SET ROLE regress_app;
SELECT count(*) FROM partner_portal.report_workspaces;
SELECT count(*) FROM partner_portal.report_usage;
SELECT count(*) FROM partner_portal.report_invoices;
SET ROLE regress_ops;
SELECT count(*) FROM partner_portal.report_workspaces;
SELECT partner_portal.is_reporting();
RESET ROLE;
SELECT count(*) FROM partner_portal.report_workspaces;
