-- key_limit.sql: what enforces the limit, counts the keys and keeps their history; and the functions that set it.

CREATE TABLE partner_portal.limit_alert (
	workspace_id bigint NOT NULL,
	period_start timestamptz NOT NULL,
	threshold integer NOT NULL,
	raised_at timestamptz NOT NULL,
	active_keys integer NOT NULL,
	key_limit integer NOT NULL,
	partner_key bigint NOT NULL,
	CONSTRAINT limit_alert_pkey PRIMARY KEY (workspace_id, period_start, threshold),
	CONSTRAINT limit_alert_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace,
	CONSTRAINT limit_alert_threshold CHECK (threshold IN (80, 100))
);
CREATE INDEX limit_alert_partner_key_idx ON partner_portal.limit_alert (partner_key);
COMMENT ON TABLE partner_portal.limit_alert IS
'Alerts that the active keys of a workspace reached 80 or 100 percent of its limit, soft or hard: once per workspace, billing period and threshold, in the transaction that activated.';
COMMENT ON COLUMN partner_portal.limit_alert.period_start IS 'Start of the billing period; -infinity if the workspace had none.';
COMMENT ON COLUMN partner_portal.limit_alert.threshold IS 'Percent of the limit that was reached: 80 or 100.';
COMMENT ON COLUMN partner_portal.limit_alert.active_keys IS 'Active keys when it was raised.';
COMMENT ON COLUMN partner_portal.limit_alert.key_limit IS 'The limit then in force.';
COMMENT ON COLUMN partner_portal.limit_alert.partner_key IS 'Partner of the workspace then, 0 for none; it does not follow a transfer.';

ALTER TABLE partner_portal.limit_alert ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY signed_in ON partner_portal.limit_alert AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
-- A new partner's staff sees nothing of the old partner's time; a complete grant is for all of it.
CREATE POLICY read ON partner_portal.limit_alert FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.complete_workspaces('read'))::bigint[])
		OR (workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[])
			AND partner_key = (SELECT partner_portal.current_partner_id())));
SELECT pg_catalog.pg_extension_config_dump('partner_portal.limit_alert', '');

CREATE FUNCTION partner_portal.stamp_key() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_stamp_key';
COMMENT ON FUNCTION partner_portal.stamp_key() IS
'Trigger of security_key: ids, times and reasons come from the server; 22023 a column that never changes, PP005 a revoked key, 42501 what only the partner''s side may lift.';
REVOKE ALL ON FUNCTION partner_portal.stamp_key() FROM PUBLIC;

CREATE FUNCTION partner_portal.count_keys() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_count_keys';
COMMENT ON FUNCTION partner_portal.count_keys() IS
'Trigger of security_key: counts, enforces the limit (PP001), writes closed stretches to key_history; PP005 an activation in a workspace that is suspended or deleted, or whose partner is suspended.';
REVOKE ALL ON FUNCTION partner_portal.count_keys() FROM PUBLIC;

CREATE FUNCTION partner_portal.count_owners() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_count_owners';
COMMENT ON FUNCTION partner_portal.count_owners() IS 'Trigger of member: counts accepted owners; PP004 when the last one leaves a workspace that is not deleted.';
REVOKE ALL ON FUNCTION partner_portal.count_owners() FROM PUBLIC;

CREATE FUNCTION partner_portal.refuse_truncate() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_refuse_truncate';
COMMENT ON FUNCTION partner_portal.refuse_truncate() IS
'Trigger of tables: TRUNCATE is 0A000, unless partner_portal.allow_drop is on; of those with the argument counted, keys, their history, members and counters, in any case.';
REVOKE ALL ON FUNCTION partner_portal.refuse_truncate() FROM PUBLIC;

CREATE FUNCTION partner_portal.limit_workspace() RETURNS trigger
	LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'partner_portal_limit_workspace';
COMMENT ON FUNCTION partner_portal.limit_workspace() IS
'Trigger of workspace: makes its counters, puts its limit in force there and disables the surplus, the most recently activated first.';
REVOKE ALL ON FUNCTION partner_portal.limit_workspace() FROM PUBLIC;

CREATE TRIGGER stamp_key BEFORE INSERT OR UPDATE ON partner_portal.security_key
	FOR EACH ROW EXECUTE FUNCTION partner_portal.stamp_key();
-- the other events are stamp_key's
CREATE TRIGGER hold_grant BEFORE DELETE ON partner_portal.security_key
	FOR EACH ROW EXECUTE FUNCTION partner_portal.hold_grant();
CREATE TRIGGER count_insert AFTER INSERT ON partner_portal.security_key
	REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.count_keys();
CREATE TRIGGER count_update AFTER UPDATE ON partner_portal.security_key
	REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.count_keys();
CREATE TRIGGER count_delete AFTER DELETE ON partner_portal.security_key
	REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.count_keys();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON partner_portal.security_key
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.refuse_truncate('counted');
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON partner_portal.key_history
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.refuse_truncate('counted');
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON partner_portal.workspace_usage
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.refuse_truncate('counted');

CREATE TRIGGER count_insert AFTER INSERT ON partner_portal.member
	REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.count_owners();
CREATE TRIGGER count_update AFTER UPDATE ON partner_portal.member
	REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.count_owners();
CREATE TRIGGER count_delete AFTER DELETE ON partner_portal.member
	REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.count_owners();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON partner_portal.member
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.refuse_truncate('counted');

CREATE TRIGGER limit_insert AFTER INSERT ON partner_portal.workspace
	FOR EACH ROW EXECUTE FUNCTION partner_portal.limit_workspace();
CREATE TRIGGER limit_update AFTER UPDATE ON partner_portal.workspace
	FOR EACH ROW
	WHEN (OLD.restrict_keys <> NEW.restrict_keys OR OLD.key_limit IS DISTINCT FROM NEW.key_limit OR OLD.limit_mode <> NEW.limit_mode
		OR OLD.deleted_at IS DISTINCT FROM NEW.deleted_at OR OLD.suspended_at IS DISTINCT FROM NEW.suspended_at)
	EXECUTE FUNCTION partner_portal.limit_workspace();

-- For other functions of the extension alone: they ask nobody's permission, and are granted to nobody.

CREATE FUNCTION partner_portal.lock_usage(workspace_id bigint) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'partner_portal_lock_usage';
COMMENT ON FUNCTION partner_portal.lock_usage(bigint) IS
'Internal. Locks the counters of a workspace to the end of the transaction: no key or owner of it is switched meanwhile. P0002 no such workspace.';
REVOKE ALL ON FUNCTION partner_portal.lock_usage(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.make_room(workspace_id bigint, key_limit integer, reject boolean, strategy text) RETURNS bigint[]
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'partner_portal_make_room';
COMMENT ON FUNCTION partner_portal.make_room(bigint, integer, boolean, text) IS
'Internal. Disables the keys that a new hard limit leaves no room for and returns them, or rejects it (PP001); in soft mode neither.';
REVOKE ALL ON FUNCTION partner_portal.make_room(bigint, integer, boolean, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.disable_keys(workspace_id bigint, how_many integer, strategy text, reason text) RETURNS bigint[]
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_disable_keys';
COMMENT ON FUNCTION partner_portal.disable_keys(bigint, integer, text, text) IS
'Internal. Disables active keys and returns them: how_many NULL is all, reason NULL that of who is asking. 22023 negative number or unknown strategy.';
REVOKE ALL ON FUNCTION partner_portal.disable_keys(bigint, integer, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.disable_keys_as(workspace_id bigint, reason text) RETURNS bigint[]
	LANGUAGE sql BEGIN ATOMIC
	SELECT partner_portal.disable_keys(workspace_id, NULL, 'newest', reason);
END;
COMMENT ON FUNCTION partner_portal.disable_keys_as(bigint, text) IS 'Internal. Disables every active key with a reason of the database''s own (suspended, deleted) and returns them.';
REVOKE ALL ON FUNCTION partner_portal.disable_keys_as(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.resume_keys(workspace_id bigint, reason text) RETURNS bigint[]
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'partner_portal_resume_keys';
COMMENT ON FUNCTION partner_portal.resume_keys(bigint, text) IS
'Internal. Activates the keys disabled for a reason, the oldest activation first, while a hard limit has room, and returns them; the rest is then disabled by the limit.';
REVOKE ALL ON FUNCTION partner_portal.resume_keys(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.set_usage_limit(workspace_id bigint, key_limit integer, on_excess text DEFAULT 'disable',
	strategy text DEFAULT 'newest', restore boolean DEFAULT false) RETURNS SETOF partner_portal.security_key
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	changed bigint[] := '{}';
	deleted boolean;
BEGIN
	PERFORM partner_portal.authorize('set_limit', set_usage_limit.workspace_id);
	IF on_excess IS NULL OR strategy IS NULL OR restore IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'on_excess, strategy and restore must not be null';
	END IF;
	IF set_usage_limit.key_limit < 0 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('key limit must not be negative: %s', set_usage_limit.key_limit),
			HINT = 'NULL switches the restriction off, 0 allows no key.';
	END IF;
	IF on_excess NOT IN ('disable', 'reject') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown value of on_excess "%s"', left(on_excess, 64)),
			HINT = 'Values are disable and reject.';
	END IF;
	IF strategy NOT IN ('newest', 'oldest') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown strategy "%s"', left(strategy, 64)),
			HINT = 'Strategies are newest and oldest.';
	END IF;
	-- Everybody locks the workspace first, then keys, then the counter. An UPDATE of workspace locks as strongly as this: its
	-- BEFORE triggers might change the generated partner_key, which foreign keys refer to.
	SELECT w.deleted_at IS NOT NULL INTO deleted FROM partner_portal.workspace w WHERE w.workspace_id = set_usage_limit.workspace_id FOR UPDATE;
	IF deleted THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is deleted', set_usage_limit.workspace_id);
	END IF;
	IF restore THEN
		PERFORM 1 FROM partner_portal.security_key k
			WHERE k.workspace_id = set_usage_limit.workspace_id AND k.status = 'disabled' AND k.disabled_reason = 'limit'
			ORDER BY k.key_id FOR NO KEY UPDATE;
	END IF;
	IF set_usage_limit.key_limit IS NOT NULL THEN
		changed := partner_portal.make_room(set_usage_limit.workspace_id, set_usage_limit.key_limit, on_excess = 'reject', strategy);
	END IF;
	UPDATE partner_portal.workspace w
		SET restrict_keys = set_usage_limit.key_limit IS NOT NULL, key_limit = set_usage_limit.key_limit
		WHERE w.workspace_id = set_usage_limit.workspace_id;
	IF restore THEN
		-- What this call itself has just disabled stays so: there is no room for it.
		changed := changed || partner_portal.resume_keys(set_usage_limit.workspace_id, 'limit');
	END IF;
	RETURN QUERY SELECT k.* FROM partner_portal.security_key k
		WHERE k.workspace_id = set_usage_limit.workspace_id AND k.key_id = ANY (changed) ORDER BY k.key_id;
END
$$;
COMMENT ON FUNCTION partner_portal.set_usage_limit(bigint, integer, text, text, boolean) IS
'Sets the most keys that may be active: a number switches the restriction on, NULL off. Returns the keys it changed. on_excess: disable the surplus (strategy newest or oldest first) or reject (PP001). restore activates keys that the limit had disabled, the oldest activation first, while there is room. Permission set_limit; 22023 negative or unknown value, 22004 NULL option; PP005 the workspace is deleted.';
REVOKE ALL ON FUNCTION partner_portal.set_usage_limit(bigint, integer, text, text, boolean) FROM PUBLIC;

CREATE FUNCTION partner_portal.disable_security_keys(workspace_id bigint, how_many integer DEFAULT NULL, strategy text DEFAULT 'newest')
	RETURNS SETOF partner_portal.security_key
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	changed bigint[];
BEGIN
	PERFORM partner_portal.authorize('manage_keys', disable_security_keys.workspace_id);
	IF strategy IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'strategy must not be null';
	END IF;
	changed := partner_portal.disable_keys(disable_security_keys.workspace_id, how_many, strategy, NULL);
	RETURN QUERY SELECT k.* FROM partner_portal.security_key k
		WHERE k.workspace_id = disable_security_keys.workspace_id AND k.key_id = ANY (changed) ORDER BY k.key_id;
END
$$;
COMMENT ON FUNCTION partner_portal.disable_security_keys(bigint, integer, text) IS
'Disables active keys and returns them: how_many NULL, or more than are active, is all; strategy newest or oldest activation first. Permission manage_keys; 22023 negative number or unknown strategy.';
REVOKE ALL ON FUNCTION partner_portal.disable_security_keys(bigint, integer, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.enable_security_keys(workspace_id bigint, key_ids bigint[]) RETURNS SETOF partner_portal.security_key
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	missing bigint;
BEGIN
	PERFORM partner_portal.authorize('manage_keys', enable_security_keys.workspace_id);
	IF key_ids IS NULL OR EXISTS (SELECT FROM unnest(key_ids) i WHERE i IS NULL) THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'key_ids must not be or contain null';
	END IF;
	SELECT min(i) INTO missing FROM unnest(key_ids) i
		WHERE NOT EXISTS (SELECT FROM partner_portal.security_key k WHERE k.workspace_id = enable_security_keys.workspace_id AND k.key_id = i);
	IF missing IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('key %s not found', missing);
	END IF;
	RETURN QUERY
		UPDATE partner_portal.security_key k SET status = 'active'
		WHERE k.workspace_id = enable_security_keys.workspace_id AND k.key_id = ANY (key_ids) AND k.status <> 'active'
		RETURNING k.*;
END
$$;
COMMENT ON FUNCTION partner_portal.enable_security_keys(bigint, bigint[]) IS
'Activates these keys, all or none, and returns those that were not active. Permission manage_keys; PP001 no room, PP005 a revoked key or a suspended workspace, 42501 what only the partner''s side may lift, P0002 no such key.';
REVOKE ALL ON FUNCTION partner_portal.enable_security_keys(bigint, bigint[]) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.limit_alert'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.set_usage_limit(bigint, integer, text, text, boolean)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.disable_security_keys(bigint, integer, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.enable_security_keys(bigint, bigint[])');
