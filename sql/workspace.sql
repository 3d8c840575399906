-- workspace.sql: partners and workspaces (tenants), and their counters.

CREATE TABLE partner_portal.partner (
	partner_id bigint NOT NULL,
	registration_code text NOT NULL,
	promoted_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT partner_pkey PRIMARY KEY (partner_id),
	CONSTRAINT partner_registration_code_key UNIQUE (registration_code)
);
COMMENT ON TABLE partner_portal.partner IS
'What a partner has beyond its workspace. partner_id is the workspace_id of the partner''s own workspace; no foreign key, so that tables can be restored in order.';
COMMENT ON COLUMN partner_portal.partner.registration_code IS 'Secret part of the registration link; rotate_registration_code() makes a new one.';

CREATE TABLE partner_portal.workspace (
	workspace_id bigint GENERATED ALWAYS AS IDENTITY,
	kind text NOT NULL DEFAULT 'business',
	partner_id bigint,
	partner_key bigint NOT NULL GENERATED ALWAYS AS (coalesce(partner_id, 0)) STORED,
	company_name text NOT NULL,
	slug text NOT NULL,
	address text,
	tax_id text,
	created_at timestamptz NOT NULL DEFAULT now(),
	deleted_at timestamptz,
	suspended_at timestamptz,
	suspended_reason text,
	sso_enabled boolean NOT NULL DEFAULT false,
	restrict_keys boolean NOT NULL DEFAULT false,
	key_limit integer,
	limit_mode text NOT NULL DEFAULT 'hard',
	notify_new_keys boolean NOT NULL DEFAULT false,
	notify_billing boolean NOT NULL DEFAULT false,
	time_zone text NOT NULL DEFAULT 'UTC',
	anchor_date date NOT NULL,
	billing_step text NOT NULL DEFAULT 'month',
	billing_from timestamptz NOT NULL DEFAULT now(),
	auto_finalize boolean NOT NULL DEFAULT true,
	invoice_visibility text NOT NULL DEFAULT 'payer',
	purged_at timestamptz,
	CONSTRAINT workspace_pkey PRIMARY KEY (workspace_id),
	CONSTRAINT workspace_partner_key UNIQUE (workspace_id, partner_key),
	CONSTRAINT workspace_slug_key UNIQUE (slug),
	CONSTRAINT workspace_partner FOREIGN KEY (partner_id) REFERENCES partner_portal.partner,
	CONSTRAINT workspace_kind CHECK (kind IN ('business', 'partner')),
	CONSTRAINT workspace_one_level CHECK (kind = 'business' OR partner_id IS NULL),
	CONSTRAINT workspace_company_name CHECK (length(company_name) BETWEEN 1 AND 200 AND company_name ~ '\S'),
	CONSTRAINT workspace_slug CHECK (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
	CONSTRAINT workspace_address CHECK (length(address) <= 1000),
	CONSTRAINT workspace_tax_id CHECK (length(tax_id) <= 100),
	CONSTRAINT workspace_suspended_reason CHECK (length(suspended_reason) <= 1000),
	CONSTRAINT workspace_key_limit CHECK (key_limit >= 0),
	CONSTRAINT workspace_limit_mode CHECK (limit_mode IN ('hard', 'soft')),
	CONSTRAINT workspace_billing_step CHECK (billing_step IN ('month', 'quarter', 'half_year', 'year')),
	CONSTRAINT workspace_anchor_date CHECK (anchor_date BETWEEN date '1900-01-01' AND date '2999-12-31'),
	CONSTRAINT workspace_billing_from CHECK (billing_from BETWEEN timestamptz '1900-01-01 00:00+00' AND timestamptz '3000-01-01 00:00+00'),
	CONSTRAINT workspace_invoice_visibility CHECK (invoice_visibility IN ('payer', 'both'))
);
CREATE INDEX workspace_partner_key_idx ON partner_portal.workspace (partner_key, workspace_id);
COMMENT ON TABLE partner_portal.workspace IS 'A company''s tenant: a customer (partner_id set), a direct one, or a partner''s own (kind partner). Settings are changed by plain UPDATE by those who may.';
COMMENT ON COLUMN partner_portal.workspace.partner_id IS 'Partner it is registered under; NULL is a direct workspace.';
COMMENT ON COLUMN partner_portal.workspace.partner_key IS 'partner_id, 0 for none: what tenant tables refer to, so that they follow a transfer.';
COMMENT ON COLUMN partner_portal.workspace.restrict_keys IS 'Whether key_limit is in force.';
COMMENT ON COLUMN partner_portal.workspace.key_limit IS 'Most keys that may be active at once; NULL is no limit, 0 none allowed.';
COMMENT ON COLUMN partner_portal.workspace.limit_mode IS 'hard refuses what exceeds the limit (PP001); soft lets it pass and raises the alert.';
COMMENT ON COLUMN partner_portal.workspace.anchor_date IS 'Local date that billing periods are counted from, stored as given; days 29 to 31 clamp to a month''s last day.';
COMMENT ON COLUMN partner_portal.workspace.purged_at IS 'When purge_workspace() erased what it said about people; it can''t be restored any more.';
COMMENT ON COLUMN partner_portal.workspace.billing_from IS 'Billing periods that end by this instant are measured, never invoiced; the one it lies in is invoiced as a whole.';
COMMENT ON COLUMN partner_portal.workspace.slug IS 'Short name in addresses, a DNS label; unique on the platform, also among deleted workspaces.';
COMMENT ON COLUMN partner_portal.workspace.deleted_at IS 'When delete_workspace() ended it; NULL while it lives.';
COMMENT ON COLUMN partner_portal.workspace.suspended_at IS 'Since when suspend_workspace() keeps its keys off; NULL is not suspended.';
COMMENT ON COLUMN partner_portal.workspace.sso_enabled IS 'Whether its people sign in by single sign-on: kept for the application, the extension makes nothing of it.';
COMMENT ON COLUMN partner_portal.workspace.notify_new_keys IS 'Whether its owners and administrators get a daily mail with the keys added that local day, if there are any.';
COMMENT ON COLUMN partner_portal.workspace.notify_billing IS 'Whether its owners get the billing report by mail when a document that it pays or sees becomes final.';
COMMENT ON COLUMN partner_portal.workspace.time_zone IS 'Zone of its billing periods and local dates, by its IANA name; a change begins at the end of the current period.';
COMMENT ON COLUMN partner_portal.workspace.billing_step IS 'Length of a billing period: month, quarter, half_year or year; a change begins at the end of the current period.';
COMMENT ON COLUMN partner_portal.workspace.auto_finalize IS 'Whether a billing run finalizes drafts when their grace is over; else they wait for finalize_invoice().';
COMMENT ON COLUMN partner_portal.workspace.invoice_visibility IS 'Who sees documents of periods that start from now on, beside the issuer: payer, or both payer and workspace.';

-- Which columns of its own or its customer's row one may change.
CREATE FUNCTION partner_portal.guard_workspace() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_guard_workspace';
COMMENT ON FUNCTION partner_portal.guard_workspace() IS
'Trigger: a plain UPDATE needs set_limit for restrict_keys, key_limit and limit_mode, manage_settings for name, slug, address, SSO and notifications, manage_billing for zone, anchor, step, tax id and invoice_visibility, bill for billing_from and auto_finalize; all else is the operator''s and our functions''. 42501 names the column; PP005 the workspace is deleted; 22023 control characters.';
REVOKE ALL ON FUNCTION partner_portal.guard_workspace() FROM PUBLIC;
CREATE TRIGGER guard_workspace BEFORE INSERT OR UPDATE ON partner_portal.workspace
	FOR EACH ROW EXECUTE FUNCTION partner_portal.guard_workspace();

-- Derived, not dumped: restoring the keys counts them again; repair() rebuilds it.
CREATE TABLE partner_portal.workspace_usage (
	workspace_id bigint NOT NULL,
	partner_key bigint NOT NULL,
	total_keys integer NOT NULL DEFAULT 0,
	active_keys integer NOT NULL DEFAULT 0,
	total_smartphones integer NOT NULL DEFAULT 0,
	active_smartphones integer NOT NULL DEFAULT 0,
	total_contactless_cards integer NOT NULL DEFAULT 0,
	active_contactless_cards integer NOT NULL DEFAULT 0,
	owners integer NOT NULL DEFAULT 0,
	key_limit integer,
	limit_mode text NOT NULL DEFAULT 'hard',
	blocked text,
	last_disabled_at timestamptz NOT NULL DEFAULT '-infinity',
	closed_until timestamptz NOT NULL DEFAULT '-infinity',
	alerted_until timestamptz NOT NULL DEFAULT '-infinity',
	alerted_percent integer NOT NULL DEFAULT 0,
	log_id bigint NOT NULL DEFAULT 0,
	log_at timestamptz NOT NULL DEFAULT '-infinity',
	log_hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
	CONSTRAINT workspace_usage_pkey PRIMARY KEY (workspace_id),
	CONSTRAINT workspace_usage_workspace FOREIGN KEY (workspace_id, partner_key)
		REFERENCES partner_portal.workspace (workspace_id, partner_key) ON UPDATE CASCADE ON DELETE CASCADE
) WITH (fillfactor = 50);
CREATE INDEX workspace_usage_partner_key_idx ON partner_portal.workspace_usage (partner_key);
COMMENT ON TABLE partner_portal.workspace_usage IS
'Counters of a workspace and its limit in force. Written by triggers only, under the row''s lock, which is what makes the limit exact.';
COMMENT ON COLUMN partner_portal.workspace_usage.owners IS 'Accepted owners; never falls from one to none (PP004).';
COMMENT ON COLUMN partner_portal.workspace_usage.key_limit IS 'The limit in force: workspace.key_limit while restrict_keys is on, else NULL.';
COMMENT ON COLUMN partner_portal.workspace_usage.blocked IS 'Why nothing may be activated: suspended or deleted; NULL is nothing in the way.';
COMMENT ON COLUMN partner_portal.workspace_usage.last_disabled_at IS 'Latest end of an active stretch; no activation is stamped before it, so that facts never show more active at once than were.';
COMMENT ON COLUMN partner_portal.workspace_usage.closed_until IS 'End of the last closed billing period; nothing is stamped before it.';
COMMENT ON COLUMN partner_portal.workspace_usage.alerted_until IS 'End of the period for which alerted_percent is the highest alert raised.';

COMMENT ON COLUMN partner_portal.workspace_usage.log_id IS 'Head of the activity log''s chain: number of the workspace''s last line, 0 before the first.';
COMMENT ON COLUMN partner_portal.workspace_usage.log_at IS 'Its time; no line is stamped before it.';
COMMENT ON COLUMN partner_portal.workspace_usage.log_hash IS 'Its hash, zeros before the first.';

ALTER TABLE partner_portal.partner ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.workspace ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.workspace_usage ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.partner AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY own ON partner_portal.partner FOR SELECT
	USING (partner_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

CREATE POLICY signed_in ON partner_portal.workspace AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.workspace FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[]));
-- Which columns one may change is the guard trigger's matter; this is where one may change anything at all.
CREATE POLICY change ON partner_portal.workspace FOR UPDATE
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_settings'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_settings'))::bigint[]))
	WITH CHECK (workspace_id = (SELECT partner_portal.own_workspace('manage_settings'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_settings'))::bigint[]));

CREATE POLICY signed_in ON partner_portal.workspace_usage AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.workspace_usage FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[]));

SELECT pg_catalog.pg_extension_config_dump('partner_portal.partner', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.workspace', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.workspace_workspace_id_seq', '');

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.workspace'),
	('application', 'SELECT', 'TABLE partner_portal.workspace_usage'),
	('application', 'SELECT', 'TABLE partner_portal.partner'),
	('application', 'UPDATE (company_name, slug, address, tax_id, sso_enabled, restrict_keys, key_limit, limit_mode, notify_new_keys, notify_billing, time_zone, anchor_date, billing_step, billing_from, auto_finalize, invoice_visibility)', 'TABLE partner_portal.workspace');
