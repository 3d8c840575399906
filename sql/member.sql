-- member.sql: who belongs to a workspace, and a partner's staff for one customer.

CREATE TABLE partner_portal.member (
	workspace_id bigint NOT NULL,
	account_id bigint NOT NULL,
	partner_key bigint NOT NULL,
	role text NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	accepted_at timestamptz,
	grant_id bigint,
	ends_at timestamptz,
	CONSTRAINT member_pkey PRIMARY KEY (workspace_id, account_id),
	CONSTRAINT member_workspace FOREIGN KEY (workspace_id, partner_key)
		REFERENCES partner_portal.workspace (workspace_id, partner_key) ON UPDATE CASCADE,
	CONSTRAINT member_account FOREIGN KEY (account_id) REFERENCES partner_portal.account,
	CONSTRAINT member_role CHECK (role IN ('owner', 'administrator', 'member', 'guest'))
);
CREATE INDEX member_account_id ON partner_portal.member (account_id, workspace_id);
CREATE INDEX member_partner_key_idx ON partner_portal.member (partner_key);
COMMENT ON TABLE partner_portal.member IS 'An account in a workspace, with a role. Changed by functions only.';
COMMENT ON COLUMN partner_portal.member.accepted_at IS 'NULL until the account has accepted a membership that somebody else made for it; it does not count before.';

COMMENT ON COLUMN partner_portal.member.grant_id IS 'Access grant that the membership ends with: that of a person of the partner who was a member or guest before.';
COMMENT ON COLUMN partner_portal.member.ends_at IS 'It does not count from then on: the expiry of that grant.';

CREATE TABLE partner_portal.staff (
	workspace_id bigint NOT NULL,
	account_id bigint NOT NULL,
	partner_key bigint NOT NULL,
	role text NOT NULL,
	assigned_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT staff_pkey PRIMARY KEY (workspace_id, account_id),
	CONSTRAINT staff_workspace FOREIGN KEY (workspace_id, partner_key)
		REFERENCES partner_portal.workspace (workspace_id, partner_key),
	CONSTRAINT staff_member FOREIGN KEY (partner_key, account_id)
		REFERENCES partner_portal.member (workspace_id, account_id) ON DELETE CASCADE,
	CONSTRAINT staff_role CHECK (role IN ('account_owner', 'system_administrator'))
);
CREATE INDEX staff_account_id ON partner_portal.staff (account_id, workspace_id);
CREATE INDEX staff_partner_key_idx ON partner_portal.staff (partner_key, account_id);
COMMENT ON TABLE partner_portal.staff IS 'A partner''s member assigned to one customer; ends when the customer leaves the partner or the member its workspace.';

ALTER TABLE partner_portal.member ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.staff ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.member AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.member FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR account_id = (SELECT partner_portal.current_account_id())
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[]));

CREATE POLICY signed_in ON partner_portal.staff AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.staff FOR SELECT
	USING (account_id = (SELECT partner_portal.current_account_id())
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

SELECT pg_catalog.pg_extension_config_dump('partner_portal.member', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.staff', '');

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.member'),
	('application', 'SELECT', 'TABLE partner_portal.staff');
