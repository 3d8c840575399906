-- report.sql: what a reporting role reads: every tenant, no people.

CREATE FUNCTION partner_portal.is_reporting() RETURNS boolean
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN partner_portal.is_operator() OR (partner_portal.current_account_id() IS NULL AND EXISTS (
		SELECT FROM partner_portal.enrolled_role e JOIN pg_roles r ON r.rolname = e.role_name
		WHERE e.as_what = 'reporting' AND pg_has_role(partner_portal.calling_role(), r.oid, 'usage')));
END
$$;
COMMENT ON FUNCTION partner_portal.is_reporting() IS 'Whether the database role that asks was enrolled for reporting, or is a member of one that was, with nobody signed in; or the operator asks.';
REVOKE ALL ON FUNCTION partner_portal.is_reporting() FROM PUBLIC;

CREATE VIEW partner_portal.report_workspaces WITH (security_barrier) AS
	SELECT w.workspace_id, w.company_name, w.slug, w.kind, w.partner_id, p.company_name AS partner_name, w.created_at,
		CASE WHEN w.deleted_at IS NOT NULL THEN 'deleted' WHEN w.suspended_at IS NOT NULL THEN 'suspended' ELSE 'active' END AS state,
		w.time_zone, w.anchor_date, w.billing_step, c.total_keys, c.active_keys, c.active_smartphones AS smartphones,
		c.active_contactless_cards AS contactless_cards, c.key_limit
	FROM partner_portal.workspace w
	JOIN partner_portal.workspace_usage c ON c.workspace_id = w.workspace_id
	LEFT JOIN partner_portal.workspace p ON p.workspace_id = w.partner_id
	WHERE (SELECT partner_portal.is_reporting());
COMMENT ON VIEW partner_portal.report_workspaces IS 'Every workspace with its partner and its counters; for reporting roles and the operator.';
COMMENT ON COLUMN partner_portal.report_workspaces.smartphones IS 'Active smartphones.';
COMMENT ON COLUMN partner_portal.report_workspaces.contactless_cards IS 'Active contactless cards.';
COMMENT ON COLUMN partner_portal.report_workspaces.key_limit IS 'The limit in force; NULL is none.';

CREATE VIEW partner_portal.report_usage WITH (security_barrier) AS
	SELECT u.workspace_id, nullif(u.partner_key, 0) AS partner_id, tstzrange(b.period_start, b.period_end) AS period, b.label,
		b.closed_at IS NOT NULL AS closed, nullif(u.kind, 'total') AS kind, u.distinct_keys, u.peak_keys, u.peak_at, u.end_keys, u.start_keys,
		u.key_days, u.key_seconds, u.users, u.known_at
	FROM partner_portal.usage_period u
	JOIN partner_portal.billing_period b ON b.workspace_id = u.workspace_id AND b.period_start = u.period_start
	WHERE (SELECT partner_portal.is_reporting());
COMMENT ON VIEW partner_portal.report_usage IS
'Stored usage of every workspace and billing period, per kind and in total (kind NULL), with the partner of that time; of a period that is not closed, as of known_at. For reporting roles and the operator.';

CREATE VIEW partner_portal.report_invoices WITH (security_barrier) AS
	SELECT i.workspace_id, i.invoice_id, i.document, i.invoice_number, i.invoice_date, i.status, i.company_name,
		tstzrange(i.period_start, i.period_end) AS period, i.period_label, nullif(i.issuer_key, 0) AS issuer_id, i.payer_id,
		nullif(i.partner_key, 0) AS partner_id, i.plan_name, i.keys_billed, i.currency, i.subtotal_minor, i.tax_minor, i.total_minor, i.settled_at
	FROM partner_portal.invoice i
	WHERE i.status <> 'empty' AND (SELECT partner_portal.is_reporting());
COMMENT ON VIEW partner_portal.report_invoices IS
'Every invoice and credit note, drafts included, in minor units of the currency; issuer_id NULL is the platform. For reporting roles and the operator.';

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('reporting', 'EXECUTE', 'FUNCTION partner_portal.is_reporting()'),
	('reporting', 'SELECT', 'TABLE partner_portal.report_workspaces'),
	('reporting', 'SELECT', 'TABLE partner_portal.report_usage'),
	('reporting', 'SELECT', 'TABLE partner_portal.report_invoices'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.is_reporting()'),
	('operator', 'SELECT', 'TABLE partner_portal.report_workspaces'),
	('operator', 'SELECT', 'TABLE partner_portal.report_usage'),
	('operator', 'SELECT', 'TABLE partner_portal.report_invoices');
