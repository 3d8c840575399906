-- my_workspaces.sql: where an account may act.

-- Owned by the installer and so past row level security: names are shown of workspaces that one does not act in at the moment.
CREATE VIEW partner_portal.my_workspaces WITH (security_barrier) AS
	SELECT w.workspace_id, w.company_name, w.slug, w.kind, m.role, m.accepted_at IS NOT NULL AS accepted,
		w.workspace_id IS NOT DISTINCT FROM (SELECT partner_portal.current_workspace_id()) AS acting,
		m.created_at, m.accepted_at
	FROM partner_portal.member m
	JOIN partner_portal.workspace w ON w.workspace_id = m.workspace_id
	WHERE m.account_id = (SELECT partner_portal.current_account_id()) AND w.deleted_at IS NULL AND (m.ends_at IS NULL OR m.ends_at > now());
COMMENT ON VIEW partner_portal.my_workspaces IS
'Workspaces that the identity belongs to, wherever it acts; those deleted are left out. act_in() chooses among the accepted ones.';
COMMENT ON COLUMN partner_portal.my_workspaces.accepted IS 'False for a membership that somebody else made and this account has not accepted: it gives no access.';
COMMENT ON COLUMN partner_portal.my_workspaces.acting IS 'Whether the identity acts there.';

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.my_workspaces');
