-- billing_period.sql: stored billing periods, without overlap or hole by constraint, and the usage of closed ones.

CREATE TABLE partner_portal.billing_period (
	workspace_id bigint NOT NULL,
	period_start timestamptz NOT NULL,
	period_end timestamptz NOT NULL,
	previous_end timestamptz,
	label text NOT NULL,
	partner_key bigint NOT NULL,
	opened_at timestamptz NOT NULL DEFAULT now(),
	closed_at timestamptz,
	CONSTRAINT billing_period_pkey PRIMARY KEY (workspace_id, period_start),
	CONSTRAINT billing_period_end_key UNIQUE (workspace_id, period_end),
	CONSTRAINT billing_period_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace,
	CONSTRAINT billing_period_previous FOREIGN KEY (workspace_id, previous_end)
		REFERENCES partner_portal.billing_period (workspace_id, period_end),
	CONSTRAINT billing_period_bounds CHECK (period_start < period_end AND isfinite(period_start) AND isfinite(period_end)),
	CONSTRAINT billing_period_no_hole CHECK (previous_end = period_start)
);
CREATE UNIQUE INDEX billing_period_head ON partner_portal.billing_period (workspace_id) WHERE previous_end IS NULL;
CREATE INDEX billing_period_due ON partner_portal.billing_period (period_end) WHERE closed_at IS NULL;
COMMENT ON TABLE partner_portal.billing_period IS
'Billing periods [period_start, period_end) of a workspace as they were when they opened: a chain without overlap or hole.';
COMMENT ON COLUMN partner_portal.billing_period.label IS 'First and last local date, as 2026-02-28..2026-03-30.';
COMMENT ON COLUMN partner_portal.billing_period.partner_key IS 'Partner when the period opened, 0 for none; it does not follow a transfer.';
COMMENT ON COLUMN partner_portal.billing_period.closed_at IS 'When its usage was stored for good in usage_period.';

CREATE TABLE partner_portal.usage_period (
	workspace_id bigint NOT NULL,
	period_start timestamptz NOT NULL,
	kind text NOT NULL,
	partner_key bigint NOT NULL,
	distinct_keys integer NOT NULL,
	peak_keys integer NOT NULL,
	peak_at timestamptz,
	end_keys integer NOT NULL,
	start_keys integer NOT NULL,
	key_days numeric NOT NULL,
	key_seconds numeric NOT NULL,
	users integer NOT NULL,
	known_at timestamptz NOT NULL,
	CONSTRAINT usage_period_pkey PRIMARY KEY (workspace_id, period_start, kind),
	CONSTRAINT usage_period_period FOREIGN KEY (workspace_id, period_start) REFERENCES partner_portal.billing_period,
	CONSTRAINT usage_period_kind CHECK (kind IN ('smartphone', 'contactless_card', 'total'))
);
CREATE INDEX usage_period_partner_key_idx ON partner_portal.usage_period (partner_key);
COMMENT ON TABLE partner_portal.usage_period IS
'Measures of a billing period, per kind and in total: of a closed one for good, of the running one as of known_at.';

ALTER TABLE partner_portal.billing_period ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.usage_period ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.billing_period AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.billing_period FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[]));

CREATE POLICY signed_in ON partner_portal.usage_period AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.usage_period FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[]));

SELECT pg_catalog.pg_extension_config_dump('partner_portal.billing_period', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.usage_period', '');

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.billing_period'),
	('application', 'SELECT', 'TABLE partner_portal.usage_period');
