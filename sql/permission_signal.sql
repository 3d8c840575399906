-- permission_signal.sql: tells every backend that who may do what has changed.
-- These triggers are row triggers, since logical replication fires no others, and always enabled; where only some columns decide
-- access they look at those.

CREATE FUNCTION partner_portal.acl_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_acl_changed';
COMMENT ON FUNCTION partner_portal.acl_changed() IS
'Trigger: announces through acl_signal, with the transaction, that access has changed. Fired also in a restoring session and under session_replication_role = replica.';
REVOKE ALL ON FUNCTION partner_portal.acl_changed() FROM PUBLIC;

CREATE TRIGGER acl_update AFTER UPDATE ON partner_portal.account
	FOR EACH ROW WHEN ((OLD.account_id, OLD.is_operator, OLD.disabled_at, OLD.erased_at)
		IS DISTINCT FROM (NEW.account_id, NEW.is_operator, NEW.disabled_at, NEW.erased_at))
	EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_delete AFTER DELETE ON partner_portal.account
	FOR EACH ROW EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_truncate AFTER TRUNCATE ON partner_portal.account
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.acl_changed();

-- A new workspace is announced by its first member.
CREATE TRIGGER acl_update AFTER UPDATE ON partner_portal.workspace
	FOR EACH ROW WHEN ((OLD.workspace_id, OLD.kind, OLD.partner_id, OLD.deleted_at, OLD.suspended_at)
		IS DISTINCT FROM (NEW.workspace_id, NEW.kind, NEW.partner_id, NEW.deleted_at, NEW.suspended_at))
	EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_delete AFTER DELETE ON partner_portal.workspace
	FOR EACH ROW EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_truncate AFTER TRUNCATE ON partner_portal.workspace
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.acl_changed();

CREATE TRIGGER acl_insert_delete AFTER INSERT OR DELETE ON partner_portal.member
	FOR EACH ROW EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_update AFTER UPDATE ON partner_portal.member
	FOR EACH ROW WHEN ((OLD.workspace_id, OLD.account_id, OLD.role, OLD.accepted_at, OLD.ends_at)
		IS DISTINCT FROM (NEW.workspace_id, NEW.account_id, NEW.role, NEW.accepted_at, NEW.ends_at))
	EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_truncate AFTER TRUNCATE ON partner_portal.member
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.acl_changed();

CREATE TRIGGER acl_change AFTER INSERT OR UPDATE OR DELETE ON partner_portal.staff
	FOR EACH ROW EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_truncate AFTER TRUNCATE ON partner_portal.staff
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.acl_changed();

-- A grant counts while it is active; what else it says does not change but for its expiry.
CREATE TRIGGER acl_insert AFTER INSERT ON partner_portal.access_grant
	FOR EACH ROW WHEN (NEW.state = 'active') EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_update AFTER UPDATE ON partner_portal.access_grant
	FOR EACH ROW WHEN ((OLD.state = 'active' OR NEW.state = 'active') AND OLD IS DISTINCT FROM NEW)
	EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_delete AFTER DELETE ON partner_portal.access_grant
	FOR EACH ROW EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_truncate AFTER TRUNCATE ON partner_portal.access_grant
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.acl_changed();

-- Products that there are not are not remembered, so a new one need not be announced.
CREATE TRIGGER acl_update AFTER UPDATE ON partner_portal.product
	FOR EACH ROW WHEN ((OLD.workspace_id, OLD.product_id, OLD.category, OLD.partner_access)
		IS DISTINCT FROM (NEW.workspace_id, NEW.product_id, NEW.category, NEW.partner_access))
	EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_delete AFTER DELETE ON partner_portal.product
	FOR EACH ROW EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_truncate AFTER TRUNCATE ON partner_portal.product
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.acl_changed();

ALTER TABLE partner_portal.account ENABLE ALWAYS TRIGGER acl_update, ENABLE ALWAYS TRIGGER acl_delete, ENABLE ALWAYS TRIGGER acl_truncate;
ALTER TABLE partner_portal.workspace ENABLE ALWAYS TRIGGER acl_update, ENABLE ALWAYS TRIGGER acl_delete, ENABLE ALWAYS TRIGGER acl_truncate;
ALTER TABLE partner_portal.member ENABLE ALWAYS TRIGGER acl_insert_delete, ENABLE ALWAYS TRIGGER acl_update, ENABLE ALWAYS TRIGGER acl_truncate;
ALTER TABLE partner_portal.staff ENABLE ALWAYS TRIGGER acl_change, ENABLE ALWAYS TRIGGER acl_truncate;
ALTER TABLE partner_portal.access_grant ENABLE ALWAYS TRIGGER acl_insert, ENABLE ALWAYS TRIGGER acl_update, ENABLE ALWAYS TRIGGER acl_delete, ENABLE ALWAYS TRIGGER acl_truncate;
ALTER TABLE partner_portal.product ENABLE ALWAYS TRIGGER acl_update, ENABLE ALWAYS TRIGGER acl_delete, ENABLE ALWAYS TRIGGER acl_truncate;
