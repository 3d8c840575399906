-- security_key.sql: security keys, and every stretch of one being active.

CREATE TABLE partner_portal.security_key (
	workspace_id bigint NOT NULL,
	key_id bigint NOT NULL,
	partner_key bigint NOT NULL DEFAULT 0,
	kind text NOT NULL,
	serial text NOT NULL,
	label text,
	account_id bigint,
	status text NOT NULL DEFAULT 'active',
	disabled_reason text,
	created_at timestamptz NOT NULL DEFAULT now(),
	activated_at timestamptz,
	disabled_at timestamptz,
	CONSTRAINT security_key_pkey PRIMARY KEY (workspace_id, key_id),
	CONSTRAINT security_key_serial_key UNIQUE (workspace_id, serial),
	CONSTRAINT security_key_workspace FOREIGN KEY (workspace_id, partner_key)
		REFERENCES partner_portal.workspace (workspace_id, partner_key) ON UPDATE CASCADE,
	CONSTRAINT security_key_holder FOREIGN KEY (workspace_id, account_id)
		REFERENCES partner_portal.member (workspace_id, account_id) ON DELETE SET NULL (account_id),
	CONSTRAINT security_key_kind CHECK (kind IN ('smartphone', 'contactless_card')),
	CONSTRAINT security_key_status CHECK (status IN ('active', 'disabled', 'revoked')),
	CONSTRAINT security_key_disabled_reason CHECK (disabled_reason IN ('limit', 'partner', 'customer', 'suspended', 'deleted')),
	CONSTRAINT security_key_active CHECK (CASE status WHEN 'active' THEN activated_at IS NOT NULL AND disabled_at IS NULL AND disabled_reason IS NULL
		ELSE disabled_at IS NOT NULL AND disabled_reason IS NOT NULL END),
	CONSTRAINT security_key_serial CHECK (length(serial) BETWEEN 1 AND 200),
	CONSTRAINT security_key_label CHECK (length(label) <= 200)
) WITH (fillfactor = 90);
-- Numbers come from the trigger, so that no client chooses one, not even by COPY.
CREATE SEQUENCE partner_portal.security_key_key_id_seq OWNED BY partner_portal.security_key.key_id;
CREATE INDEX security_key_key_id ON partner_portal.security_key (key_id);
CREATE INDEX security_key_partner_key_idx ON partner_portal.security_key (partner_key);
COMMENT ON TABLE partner_portal.security_key IS
'A device that signs a user in. Plain INSERT, UPDATE (status, label, account_id), DELETE, MERGE and COPY; triggers enforce the limit (PP001), stamp the times and keep the history. TRUNCATE is refused (0A000).';
COMMENT ON COLUMN partner_portal.security_key.serial IS 'The device''s own number, unique per workspace. Like label it has no control characters (22023).';
COMMENT ON COLUMN partner_portal.security_key.account_id IS 'Holder, a member of the workspace; NULL is nobody. A change of holder while active begins a new stretch.';
COMMENT ON COLUMN partner_portal.security_key.status IS 'active, disabled, or revoked, which is final.';
COMMENT ON COLUMN partner_portal.security_key.disabled_reason IS 'Stamped by the server: limit, partner (the operator''s act too), customer, suspended, deleted.';
COMMENT ON COLUMN partner_portal.security_key.activated_at IS 'Start of the running or last active stretch, by the server''s clock; NULL was never active.';
COMMENT ON COLUMN partner_portal.security_key.disabled_at IS 'End of the last active stretch, by the server''s clock.';

-- Closed stretches. The running one is the live row of security_key. One index, by time: every stretch that ends pays for it,
-- and usage asks for those that end after an instant.
CREATE TABLE partner_portal.key_history (
	workspace_id bigint NOT NULL,
	key_id bigint NOT NULL,
	active_from timestamptz NOT NULL,
	active_until timestamptz NOT NULL,
	kind text NOT NULL,
	account_id bigint,
	recorded_at timestamptz NOT NULL,
	partner_key bigint NOT NULL,
	CONSTRAINT key_history_pkey PRIMARY KEY (workspace_id, active_until, key_id),
	CONSTRAINT key_history_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace,
	CONSTRAINT key_history_stretch CHECK (active_from < active_until AND isfinite(active_from) AND isfinite(active_until)),
	CONSTRAINT key_history_kind CHECK (kind IN ('smartphone', 'contactless_card'))
);
COMMENT ON TABLE partner_portal.key_history IS 'Closed active stretches of keys, half-open, also of keys that are deleted; empty ones are not kept. Written by triggers and import_key_activity() only.';
COMMENT ON COLUMN partner_portal.key_history.recorded_at IS 'When the stretch became known: its start, or the instant of an import.';
COMMENT ON COLUMN partner_portal.key_history.partner_key IS 'Partner of the workspace when the stretch ended, 0 for none; it does not follow a transfer.';

CREATE VIEW partner_portal.key_activity WITH (security_invoker, security_barrier) AS
	SELECT workspace_id, key_id, kind, account_id, tstzrange(active_from, active_until) AS active, recorded_at
	FROM partner_portal.key_history
	UNION ALL
	SELECT workspace_id, key_id, kind, account_id, tstzrange(activated_at, NULL), activated_at
	FROM partner_portal.security_key
	WHERE status = 'active';
COMMENT ON VIEW partner_portal.key_activity IS 'Every stretch of a key being active, half-open: closed ones and the running one (unbounded above). Every measure of a bill follows from it.';

ALTER TABLE partner_portal.security_key ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.key_history ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.security_key AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.security_key FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[]));
-- One for each command: who may manage may read, and a policy for all commands would make each look-up ask twice.
CREATE POLICY add ON partner_portal.security_key FOR INSERT
	WITH CHECK (workspace_id = (SELECT partner_portal.own_workspace('manage_keys'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_keys'))::bigint[]));
CREATE POLICY change ON partner_portal.security_key FOR UPDATE
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_keys'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_keys'))::bigint[]))
	WITH CHECK (workspace_id = (SELECT partner_portal.own_workspace('manage_keys'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_keys'))::bigint[]));
CREATE POLICY remove ON partner_portal.security_key FOR DELETE
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_keys'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_keys'))::bigint[]));

CREATE POLICY signed_in ON partner_portal.key_history AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
-- A new partner's staff sees nothing of the old partner's time; a complete grant is for all of it.
CREATE POLICY read ON partner_portal.key_history FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.complete_workspaces('read'))::bigint[])
		OR (workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[])
			AND partner_key = (SELECT partner_portal.current_partner_id())));

SELECT pg_catalog.pg_extension_config_dump('partner_portal.security_key', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.security_key_key_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.key_history', '');

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.security_key'),
	('application', 'INSERT (workspace_id, kind, serial, label, account_id, status)', 'TABLE partner_portal.security_key'),
	('application', 'UPDATE (status, label, account_id)', 'TABLE partner_portal.security_key'),
	('application', 'DELETE', 'TABLE partner_portal.security_key'),
	('application', 'SELECT', 'TABLE partner_portal.key_history'),
	('application', 'SELECT', 'TABLE partner_portal.key_activity');
