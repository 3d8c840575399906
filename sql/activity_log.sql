-- activity_log.sql: who did what, where and when, as one chain of hashes per workspace.
--
-- Lines are written by triggers in C (activity_log.c), in the acting transaction, and by log_activity() for the application's
-- own. The head of a workspace's chain sits beside its counters (workspace_usage) under their lock: number and hash of the
-- last line together. So two lines that followed the same one would have the same number, and the primary key keeps a
-- chain from forking.

CREATE TABLE partner_portal.activity (
	workspace_id bigint NOT NULL,
	activity_id bigint NOT NULL,
	at timestamptz NOT NULL,
	account_id bigint,
	account_email text,
	database_role text NOT NULL,
	source text NOT NULL,
	action text NOT NULL,
	about_account_id bigint,
	description text,
	details jsonb,
	partner_key bigint NOT NULL,
	account_salt bytea,
	account_digest bytea,
	text_salt bytea,
	text_digest bytea,
	prev_hash bytea NOT NULL,
	hash bytea NOT NULL,
	CONSTRAINT activity_pkey PRIMARY KEY (workspace_id, activity_id),
	CONSTRAINT activity_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace,
	CONSTRAINT activity_source CHECK (source IN ('database', 'application')),
	CONSTRAINT activity_action CHECK (action IN ('invite_user', 'server_action', 'update_configuration', 'update_user_profile',
		'update_trusted_connection', 'backup_machine_data', 'update_license', 'update_server', 'update_organization', 'update_tickets',
		'update_user_groups', 'update_user_permissions', 'sign_in', 'activate_key', 'disable_key', 'change_limit', 'grant_access',
		'end_access', 'finalize_invoice')),
	CONSTRAINT activity_account_part CHECK ((account_email IS NULL) = (account_salt IS NULL) AND (account_salt IS NULL OR account_digest IS NULL)),
	CONSTRAINT activity_text_part CHECK (num_nulls(description, details, text_salt) IN (0, 3) AND (text_salt IS NULL) = (text_digest IS NOT NULL))
);
COMMENT ON TABLE partner_portal.activity IS
'The activity log. Append-only for everyone (PP003); written by what happens and by log_activity(). Lines of a workspace are numbered from 1 without a gap, and the hash of each covers the one before it.';
COMMENT ON COLUMN partner_portal.activity.activity_id IS 'Number of the line in its workspace.';
COMMENT ON COLUMN partner_portal.activity.at IS 'When, by the server''s clock; never before the line before it.';
COMMENT ON COLUMN partner_portal.activity.account_id IS 'Who acted; NULL is nobody signed in: the operator, or an application by itself.';
COMMENT ON COLUMN partner_portal.activity.account_email IS 'Address of the account at that time; NULL without one, and when it was erased.';
COMMENT ON COLUMN partner_portal.activity.database_role IS 'Database role that acted.';
COMMENT ON COLUMN partner_portal.activity.source IS 'database: a trigger saw it; application: log_activity() said so.';
COMMENT ON COLUMN partner_portal.activity.about_account_id IS 'Account that the line tells about, if it tells about one.';
COMMENT ON COLUMN partner_portal.activity.description IS 'What, in a few words; NULL when it was erased. What the database writes names people by number only.';
COMMENT ON COLUMN partner_portal.activity.details IS 'What exactly, a JSON object: changed columns as [old, new], at most 20 ids of keys; NULL when it was erased.';
COMMENT ON COLUMN partner_portal.activity.partner_key IS 'Partner of the workspace at that time, 0 for none; it does not follow a transfer.';
COMMENT ON COLUMN partner_portal.activity.account_salt IS 'Random; with account_email it makes the digest that is hashed. Forgotten when the address is erased.';
COMMENT ON COLUMN partner_portal.activity.account_digest IS 'The digest, once address and salt are gone.';
COMMENT ON COLUMN partner_portal.activity.text_salt IS 'The same for description and details.';
COMMENT ON COLUMN partner_portal.activity.text_digest IS 'The digest, once description, details and salt are gone.';
COMMENT ON COLUMN partner_portal.activity.prev_hash IS 'hash of the line before; zeros in the first.';
COMMENT ON COLUMN partner_portal.activity.hash IS 'SHA-256 of prev_hash and everything that the line says, address and text by their salted digests.';

-- Where a chain begins once its oldest lines are forgotten.
CREATE TABLE partner_portal.activity_start (
	workspace_id bigint NOT NULL,
	activity_id bigint NOT NULL,
	at timestamptz NOT NULL,
	hash bytea NOT NULL,
	forgotten_before timestamptz NOT NULL,
	forgotten_at timestamptz NOT NULL,
	forgotten_by text NOT NULL,
	CONSTRAINT activity_start_pkey PRIMARY KEY (workspace_id),
	CONSTRAINT activity_start_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace
);
COMMENT ON TABLE partner_portal.activity_start IS 'The last line of each workspace that forget_activity() has removed, so that what is left can still be verified.';
COMMENT ON COLUMN partner_portal.activity_start.activity_id IS 'Number of the last line that was removed.';
COMMENT ON COLUMN partner_portal.activity_start.at IS 'Its instant.';
COMMENT ON COLUMN partner_portal.activity_start.hash IS 'Its hash.';
COMMENT ON COLUMN partner_portal.activity_start.forgotten_before IS 'Lines before this instant were removed.';
COMMENT ON COLUMN partner_portal.activity_start.forgotten_by IS 'Account number of the operator, else the database role.';

ALTER TABLE partner_portal.activity ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.activity_start ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.activity AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.activity FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read_activity'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read_activity'))::bigint[])
			AND partner_key = (SELECT partner_portal.current_partner_id()));

SELECT pg_catalog.pg_extension_config_dump('partner_portal.activity', 'ORDER BY workspace_id, activity_id');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.activity_start', '');

CREATE FUNCTION partner_portal.activity_guard() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_activity_guard';
COMMENT ON FUNCTION partner_portal.activity_guard() IS 'Trigger of activity: PP003 for every INSERT, UPDATE, DELETE and TRUNCATE but those of the log itself.';
REVOKE ALL ON FUNCTION partner_portal.activity_guard() FROM PUBLIC;
CREATE TRIGGER activity_guard BEFORE INSERT OR UPDATE OR DELETE ON partner_portal.activity
	FOR EACH ROW EXECUTE FUNCTION partner_portal.activity_guard();
CREATE TRIGGER activity_guard_truncate BEFORE TRUNCATE ON partner_portal.activity
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.activity_guard();

-- The head is not dumped: it is the last line.
CREATE FUNCTION partner_portal.activity_restored() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF partner_portal.restoring_session() THEN
		UPDATE partner_portal.workspace_usage u SET log_id = r.activity_id, log_at = r.at, log_hash = r.hash
		FROM (SELECT DISTINCT ON (n.workspace_id) n.workspace_id, n.activity_id, n.at, n.hash FROM restored n ORDER BY n.workspace_id, n.activity_id DESC) r
		WHERE u.workspace_id = r.workspace_id AND u.log_id < r.activity_id;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.activity_restored() IS 'Trigger: when a dump is restored, the last line of a workspace, forgotten or not, is the head of its chain.';
REVOKE ALL ON FUNCTION partner_portal.activity_restored() FROM PUBLIC;
CREATE TRIGGER activity_restored AFTER INSERT ON partner_portal.activity
	REFERENCING NEW TABLE AS restored FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.activity_restored();
CREATE TRIGGER activity_restored AFTER INSERT ON partner_portal.activity_start
	REFERENCING NEW TABLE AS restored FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.activity_restored();

-- Forward only: a head beyond the last line tells that lines are missing.
CREATE FUNCTION partner_portal.repair_activity(in_workspace bigint) RETURNS SETOF bigint
	LANGUAGE sql
BEGIN ATOMIC
	UPDATE partner_portal.workspace_usage u SET log_id = l.activity_id, log_at = l.at, log_hash = l.hash
	FROM partner_portal.workspace w
	LEFT JOIN partner_portal.activity_start s ON s.workspace_id = w.workspace_id
	CROSS JOIN LATERAL (SELECT n.activity_id, n.at, n.hash FROM (
		SELECT a.activity_id, a.at, a.hash FROM partner_portal.activity a WHERE a.workspace_id = w.workspace_id
		UNION ALL
		SELECT s.activity_id, s.at, s.hash WHERE s.activity_id IS NOT NULL) n ORDER BY n.activity_id DESC LIMIT 1) l
	WHERE u.workspace_id = w.workspace_id AND u.log_id < l.activity_id
		AND (repair_activity.in_workspace IS NULL OR w.workspace_id = repair_activity.in_workspace)
	RETURNING u.workspace_id;
END;
COMMENT ON FUNCTION partner_portal.repair_activity(bigint) IS
'Part of repair(): puts the head of a workspace''s chain, or of all (NULL), where its last line is, unless it lies beyond; returns the workspaces where it did. Internal.';
REVOKE ALL ON FUNCTION partner_portal.repair_activity(bigint) FROM PUBLIC;

-- What writes lines. Keys and memberships are logged by count_keys() and count_owners(), one line per statement and workspace.

CREATE FUNCTION partner_portal.log_row() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_log_row';
COMMENT ON FUNCTION partner_portal.log_row() IS
'Trigger log_row(action, description, column, ...), AFTER ... FOR EACH ROW of a table with workspace_id: one line with those columns as details. A column account_id is whom it is about; digest, of an invoice, is its invoice_digest().';
REVOKE ALL ON FUNCTION partner_portal.log_row() FROM PUBLIC;

CREATE FUNCTION partner_portal.log_workspace() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_log_workspace';
COMMENT ON FUNCTION partner_portal.log_workspace() IS 'Trigger of workspace: update_organization (created, settings, state, partner) and change_limit.';
REVOKE ALL ON FUNCTION partner_portal.log_workspace() FROM PUBLIC;
CREATE TRIGGER log_insert AFTER INSERT ON partner_portal.workspace
	FOR EACH ROW EXECUTE FUNCTION partner_portal.log_workspace();
CREATE TRIGGER log_update AFTER UPDATE ON partner_portal.workspace
	FOR EACH ROW EXECUTE FUNCTION partner_portal.log_workspace();

CREATE FUNCTION partner_portal.log_account() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_log_account';
COMMENT ON FUNCTION partner_portal.log_account() IS
'Trigger of account: update_user_profile (address, name, locale) and update_user_permissions (disabled, enabled) in every workspace that the account is a member of, without the values.';
REVOKE ALL ON FUNCTION partner_portal.log_account() FROM PUBLIC;
CREATE TRIGGER log_update AFTER UPDATE ON partner_portal.account
	FOR EACH ROW EXECUTE FUNCTION partner_portal.log_account();

CREATE TRIGGER log_insert AFTER INSERT ON partner_portal.staff
	FOR EACH ROW EXECUTE FUNCTION partner_portal.log_row('update_user_permissions', 'staff assigned', 'account_id', 'role');
CREATE TRIGGER log_update AFTER UPDATE ON partner_portal.staff
	FOR EACH ROW WHEN (OLD.role <> NEW.role)
	EXECUTE FUNCTION partner_portal.log_row('update_user_permissions', 'role of staff changed', 'account_id', 'role');
CREATE TRIGGER log_delete AFTER DELETE ON partner_portal.staff
	FOR EACH ROW EXECUTE FUNCTION partner_portal.log_row('update_user_permissions', 'staff unassigned', 'account_id', 'role');

-- Whom one lets in is one's own matter: offers of access name nobody, for the workspace's partner reads this too.
CREATE TRIGGER log_insert AFTER INSERT ON partner_portal.invitation
	FOR EACH ROW WHEN (NEW.workspace_id <> 0 AND NEW.kind <> 'access')
	EXECUTE FUNCTION partner_portal.log_row('invite_user', 'invitation sent', 'invitation_id', 'kind', 'email', 'role');
CREATE TRIGGER log_resend AFTER UPDATE ON partner_portal.invitation
	FOR EACH ROW WHEN (NEW.workspace_id <> 0 AND NEW.kind <> 'access' AND OLD.sendings <> NEW.sendings)
	EXECUTE FUNCTION partner_portal.log_row('invite_user', 'invitation sent anew', 'invitation_id', 'kind', 'email', 'role');
CREATE TRIGGER log_answer AFTER UPDATE ON partner_portal.invitation
	FOR EACH ROW WHEN (NEW.workspace_id <> 0 AND NEW.kind <> 'access' AND OLD.state <> NEW.state)
	EXECUTE FUNCTION partner_portal.log_row('invite_user', 'invitation answered', 'invitation_id', 'kind', 'state', 'account_id');

CREATE TRIGGER log_offer AFTER INSERT ON partner_portal.access_grant
	FOR EACH ROW WHEN (NEW.state = 'offered')
	EXECUTE FUNCTION partner_portal.log_row('grant_access', 'access offered', 'grant_id', 'scope', 'wallet', 'expires_at');
CREATE TRIGGER log_counter_offer AFTER UPDATE ON partner_portal.access_grant
	FOR EACH ROW WHEN (OLD.state <> 'offered' AND NEW.state = 'offered')
	EXECUTE FUNCTION partner_portal.log_row('grant_access', 'access offered', 'grant_id', 'scope', 'wallet', 'expires_at');
CREATE TRIGGER log_start AFTER UPDATE ON partner_portal.access_grant
	FOR EACH ROW WHEN (OLD.state <> 'active' AND NEW.state = 'active')
	EXECUTE FUNCTION partner_portal.log_row('grant_access', 'access granted', 'grant_id', 'scope', 'wallet', 'expires_at');
CREATE TRIGGER log_extend AFTER UPDATE ON partner_portal.access_grant
	FOR EACH ROW WHEN (OLD.state = 'active' AND NEW.state = 'active' AND OLD.expires_at IS DISTINCT FROM NEW.expires_at)
	EXECUTE FUNCTION partner_portal.log_row('grant_access', 'access extended', 'grant_id', 'expires_at');
CREATE TRIGGER log_end AFTER UPDATE ON partner_portal.access_grant
	FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL)
	EXECUTE FUNCTION partner_portal.log_row('end_access', 'access ended', 'grant_id', 'state', 'end_reason');

-- The second consent, product by product.
CREATE TRIGGER log_insert AFTER INSERT ON partner_portal.product
	FOR EACH ROW WHEN (NEW.partner_access)
	EXECUTE FUNCTION partner_portal.log_row('grant_access', 'product opened to the partner', 'product_id', 'category');
CREATE TRIGGER log_grant AFTER UPDATE ON partner_portal.product
	FOR EACH ROW WHEN (NEW.partner_access AND NOT OLD.partner_access)
	EXECUTE FUNCTION partner_portal.log_row('grant_access', 'product opened to the partner', 'product_id', 'category');
CREATE TRIGGER log_end AFTER UPDATE ON partner_portal.product
	FOR EACH ROW WHEN (OLD.partner_access AND NOT NEW.partner_access)
	EXECUTE FUNCTION partner_portal.log_row('end_access', 'product closed to the partner', 'product_id', 'category');

-- A portal's users are its group.
CREATE TRIGGER log_insert AFTER INSERT ON partner_portal.portal
	FOR EACH ROW EXECUTE FUNCTION partner_portal.log_row('update_user_groups', 'portal and its group created', 'portal_id', 'name', 'technical_name');
CREATE TRIGGER log_delete AFTER DELETE ON partner_portal.portal
	FOR EACH ROW EXECUTE FUNCTION partner_portal.log_row('update_user_groups', 'portal and its group deleted', 'portal_id', 'name', 'technical_name');
CREATE TRIGGER log_insert AFTER INSERT ON partner_portal.portal_account
	FOR EACH ROW EXECUTE FUNCTION partner_portal.log_row('update_user_groups', 'portal user joined', 'portal_id', 'account_id', 'role');
CREATE TRIGGER log_update AFTER UPDATE ON partner_portal.portal_account
	FOR EACH ROW WHEN (OLD.role <> NEW.role)
	EXECUTE FUNCTION partner_portal.log_row('update_user_groups', 'role of portal user changed', 'portal_id', 'account_id', 'role');
CREATE TRIGGER log_delete AFTER DELETE ON partner_portal.portal_account
	FOR EACH ROW EXECUTE FUNCTION partner_portal.log_row('update_user_groups', 'portal user removed', 'portal_id', 'account_id', 'role');

-- No amounts: not everybody who reads the log may see the document. Its digest is salted.
CREATE TRIGGER log_finalize AFTER UPDATE ON partner_portal.invoice
	FOR EACH ROW WHEN (OLD.status = 'draft' AND NEW.status = 'final')
	EXECUTE FUNCTION partner_portal.log_row('finalize_invoice', 'document finalized', 'invoice_id', 'document', 'invoice_number', 'digest');
CREATE TRIGGER log_settle AFTER UPDATE ON partner_portal.invoice
	FOR EACH ROW WHEN (OLD.status = 'final' AND NEW.status IN ('paid', 'void'))
	EXECUTE FUNCTION partner_portal.log_row('finalize_invoice', 'document settled', 'invoice_id', 'document', 'invoice_number', 'status');

CREATE FUNCTION partner_portal.write_activity(workspace_id bigint, action text, description text, details text, about_account_id bigint) RETURNS bigint
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_write_activity';
COMMENT ON FUNCTION partner_portal.write_activity(bigint, text, text, text, bigint) IS 'Writes a line of the application''s and returns its number; internal.';
REVOKE ALL ON FUNCTION partner_portal.write_activity(bigint, text, text, text, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.log_activity(workspace_id bigint, action text, description text, details jsonb DEFAULT '{}', about_account_id bigint DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF partner_portal.current_account_id() IS NULL AND partner_portal.is_trusted() THEN
		IF workspace_id IS NULL THEN
			RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_id must not be null';
		ELSIF NOT EXISTS (SELECT FROM partner_portal.workspace w WHERE w.workspace_id = log_activity.workspace_id) THEN
			RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('workspace %s not found', workspace_id);
		END IF;
	ELSE
		PERFORM partner_portal.authorize('read', workspace_id);
	END IF;
	IF action IS NULL OR details IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'action and details must not be null';
	ELSIF action NOT IN ('invite_user', 'server_action', 'update_configuration', 'update_user_profile', 'update_trusted_connection', 'backup_machine_data',
		'update_license', 'update_server', 'update_organization', 'update_tickets', 'update_user_groups', 'update_user_permissions', 'sign_in') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('an application cannot log the action "%s"', left(action, 64)),
			HINT = 'Actions are invite_user, server_action, update_configuration, update_user_profile, update_trusted_connection, backup_machine_data, update_license, update_server, update_organization, update_tickets, update_user_groups, update_user_permissions and sign_in.';
	ELSIF jsonb_typeof(details) <> 'object' OR octet_length(details::text) > 16384 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'details must be a JSON object of at most 16384 bytes';
	END IF;
	PERFORM partner_portal.checked_text('description', description, 1000);
	RETURN partner_portal.write_activity(workspace_id, action, description, details::text, about_account_id);
END
$$;
COMMENT ON FUNCTION partner_portal.log_activity(bigint, text, text, jsonb, bigint) IS
'Writes a line of the application''s own and returns its number. description has 1 to 1000 characters; details is a JSON object; about_account_id is whom it tells about, so that erase_account() erases its text too. Needs read on the workspace; a trusted application with nobody signed in vouches. 42501, P0002 as authorize(); 22023 an action that is not the application''s, details no object; 22001, 22004, 22023 description.';
REVOKE ALL ON FUNCTION partner_portal.log_activity(bigint, text, text, jsonb, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.activity_digest(salt bytea, first text, second text) RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_activity_digest';
COMMENT ON FUNCTION partner_portal.activity_digest(bytea, text, text) IS 'What the hash of a line covers instead of its address, or of its description and details; internal.';
REVOKE ALL ON FUNCTION partner_portal.activity_digest(bytea, text, text) FROM PUBLIC;

-- Reading.

CREATE TYPE partner_portal.activity_line AS (
	activity_id bigint,
	at timestamptz,
	account_id bigint,
	account_email text,
	action text,
	description text,
	details jsonb,
	source text,
	about_account_id bigint,
	database_role text,
	hash bytea
);
COMMENT ON TYPE partner_portal.activity_line IS 'A line of the activity log as activity_log() shows it; the columns are those of table activity.';

CREATE FUNCTION partner_portal.check_activity_filter(action text, since timestamptz, until timestamptz, max_rows integer) RETURNS void
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF action NOT IN ('invite_user', 'server_action', 'update_configuration', 'update_user_profile', 'update_trusted_connection', 'backup_machine_data',
		'update_license', 'update_server', 'update_organization', 'update_tickets', 'update_user_groups', 'update_user_permissions', 'sign_in',
		'activate_key', 'disable_key', 'change_limit', 'grant_access', 'end_access', 'finalize_invoice') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown action "%s"', left(action, 64));
	ELSIF max_rows NOT BETWEEN 1 AND 10000 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('max_rows must be 1 to 10000: %s', max_rows);
	ELSIF since > until THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'since must not be after until';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.check_activity_filter(text, timestamptz, timestamptz, integer) IS 'Returns for filters that make sense; else 22023. Internal.';
REVOKE ALL ON FUNCTION partner_portal.check_activity_filter(text, timestamptz, timestamptz, integer) FROM PUBLIC;

-- Times rise with numbers, and numbers have no gap: so an instant is found by halving, without an index of its own.
CREATE FUNCTION partner_portal.activity_before(workspace_id bigint, instant timestamptz) RETURNS bigint
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	low bigint;
	high bigint;
	middle bigint;
	is_before boolean;
BEGIN
	SELECT a.activity_id - 1 INTO low FROM partner_portal.activity a WHERE a.workspace_id = activity_before.workspace_id ORDER BY a.activity_id LIMIT 1;
	SELECT a.activity_id INTO high FROM partner_portal.activity a WHERE a.workspace_id = activity_before.workspace_id ORDER BY a.activity_id DESC LIMIT 1;
	WHILE low < high LOOP
		middle := (low + high + 1) / 2;
		SELECT a.at < instant INTO is_before FROM partner_portal.activity a
		WHERE a.workspace_id = activity_before.workspace_id AND a.activity_id = middle;
		IF is_before THEN
			low := middle;
		ELSE
			high := middle - 1;
		END IF;
	END LOOP;
	RETURN coalesce(low, 0);
END
$$;
COMMENT ON FUNCTION partner_portal.activity_before(bigint, timestamptz) IS
'Number of a workspace''s last line before an instant; when there is none, that of the line before its first. Internal.';
REVOKE ALL ON FUNCTION partner_portal.activity_before(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.activity_log(workspace_id bigint, account_email text DEFAULT NULL, action text DEFAULT NULL, description text DEFAULT NULL,
		since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL, before_id bigint DEFAULT NULL, max_rows integer DEFAULT 100)
	RETURNS SETOF partner_portal.activity_line
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	all_roles boolean := partner_portal.is_operator();
	partner bigint;
	above bigint := 0;
	below bigint;
BEGIN
	PERFORM partner_portal.authorize('read_activity', activity_log.workspace_id);
	PERFORM partner_portal.check_activity_filter(activity_log.action, since, until, max_rows);
	-- a partner does not see what was before the customer came to it
	SELECT w.partner_id INTO partner FROM partner_portal.workspace w
	WHERE w.workspace_id = activity_log.workspace_id AND w.partner_id = partner_portal.current_partner_id() AND NOT all_roles;
	IF since IS NOT NULL THEN
		above := partner_portal.activity_before(workspace_id, since);
	END IF;
	IF until IS NOT NULL THEN
		below := partner_portal.activity_before(workspace_id, until) + 1;
	END IF;
	RETURN QUERY
	SELECT a.activity_id, a.at, a.account_id, a.account_email, a.action, a.description, a.details, a.source, a.about_account_id,
		CASE WHEN all_roles THEN a.database_role END, a.hash
	FROM partner_portal.activity a
	WHERE a.workspace_id = activity_log.workspace_id
		AND a.activity_id < least(before_id, below, 9223372036854775807)
		AND a.activity_id > above
		AND (activity_log.account_email IS NULL OR lower(a.account_email) = lower(activity_log.account_email))
		AND (activity_log.action IS NULL OR a.action = activity_log.action)
		AND (activity_log.description IS NULL OR strpos(lower(a.description), lower(activity_log.description)) > 0)
		AND (partner IS NULL OR a.partner_key = partner)
	ORDER BY a.activity_id DESC
	LIMIT coalesce(max_rows, 10000);
END
$$;
COMMENT ON FUNCTION partner_portal.activity_log(bigint, text, text, text, timestamptz, timestamptz, bigint, integer) IS
'Lines of a workspace''s log, newest first: by the address of who acted (at that time, without regard to case), action, part of the description (likewise), from since up to before until. The next page begins with before_id set to the last activity_id of this one; max_rows is 1 to 10000. A partner sees the lines of its own time. database_role is the operator''s to see. Permission read_activity; 22023 an unknown action or a filter that makes no sense.';
REVOKE ALL ON FUNCTION partner_portal.activity_log(bigint, text, text, text, timestamptz, timestamptz, bigint, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.activity_log_csv(workspace_id bigint, account_email text DEFAULT NULL, action text DEFAULT NULL, description text DEFAULT NULL,
		since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL, before_id bigint DEFAULT NULL, max_rows integer DEFAULT 10000) RETURNS text
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
	lines text;
BEGIN
	PERFORM partner_portal.authorize('read_activity', workspace_id);
	SELECT string_agg(concat_ws(',', l.activity_id, to_char(l.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), coalesce(l.account_id::text, ''),
		partner_portal.csv_field(l.account_email), l.action, partner_portal.csv_field(l.description), partner_portal.csv_field(l.details::text),
		l.source, coalesce(l.about_account_id::text, ''), encode(l.hash, 'hex')) || E'\r\n', '' ORDER BY l.activity_id DESC)
	INTO lines
	FROM partner_portal.activity_log(activity_log_csv.workspace_id, activity_log_csv.account_email, activity_log_csv.action, activity_log_csv.description,
		activity_log_csv.since, activity_log_csv.until, activity_log_csv.before_id, activity_log_csv.max_rows) l;
	RETURN E'activity_id,at,account_id,account_email,action,description,details,source,about_account_id,hash\r\n' || coalesce(lines, '');
END
$$;
COMMENT ON FUNCTION partner_portal.activity_log_csv(bigint, text, text, text, timestamptz, timestamptz, bigint, integer) IS
'The same lines as RFC 4180 with a header and CRLF, times in UTC. Texts are as people wrote them: what opens the file must not run them as formulas. Errors of activity_log().';
REVOKE ALL ON FUNCTION partner_portal.activity_log_csv(bigint, text, text, text, timestamptz, timestamptz, bigint, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.activity_problem(workspace_id bigint, OUT ok boolean, OUT first_bad_id bigint, OUT reason text)
	LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'partner_portal_activity_problem';
COMMENT ON FUNCTION partner_portal.activity_problem(bigint) IS
'verify_activity_log() without asking who it is for; NULLs where there are no counters. It reads what is committed now, whatever the snapshot of the transaction, whose own lines follow those of others. Internal.';
REVOKE ALL ON FUNCTION partner_portal.activity_problem(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.verify_activity(in_workspace bigint) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT u.workspace_id, 'activity', format('line %s: %s', p.first_bad_id, p.reason)
	FROM partner_portal.workspace_usage u
	CROSS JOIN LATERAL partner_portal.activity_problem(u.workspace_id) p
	WHERE NOT p.ok AND (verify_activity.in_workspace IS NULL OR u.workspace_id = verify_activity.in_workspace);
END;
COMMENT ON FUNCTION partner_portal.verify_activity(bigint) IS 'verify(), check activity: the chain of every workspace''s log. Internal.';
REVOKE ALL ON FUNCTION partner_portal.verify_activity(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.verify_activity_log(workspace_id bigint, OUT ok boolean, OUT first_bad_id bigint, OUT reason text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.authorize('read_activity', workspace_id);
	SELECT p.ok, p.first_bad_id, p.reason INTO verify_activity_log.ok, verify_activity_log.first_bad_id, verify_activity_log.reason
	FROM partner_portal.activity_problem(verify_activity_log.workspace_id) p;
END
$$;
COMMENT ON FUNCTION partner_portal.verify_activity_log(bigint) IS
'Computes every hash of a workspace''s log again: ok, or the number of the first line that was changed, removed or added, and what is wrong with it. Whoever can rewrite every later line and the head as well is found out by a hash that was kept elsewhere (activity_log_csv()). Permission read_activity.';
REVOKE ALL ON FUNCTION partner_portal.verify_activity_log(bigint) FROM PUBLIC;

-- Retention and erasure.

CREATE FUNCTION partner_portal.delete_activity(workspace_id bigint, activity_id bigint) RETURNS bigint
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'partner_portal_delete_activity';
COMMENT ON FUNCTION partner_portal.delete_activity(bigint, bigint) IS 'Deletes the lines of a workspace up to a number and returns how many; internal.';
REVOKE ALL ON FUNCTION partner_portal.delete_activity(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.forget_activity(before timestamptz) RETURNS bigint
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	forgotten bigint := 0;
	l record;
BEGIN
	PERFORM partner_portal.require_operator();
	IF before IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'before must not be null';
	ELSIF NOT isfinite(before) OR before > clock_timestamp() THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'before must be an instant in the past';
	END IF;
	-- one at a time
	LOCK TABLE partner_portal.activity_start IN SHARE ROW EXCLUSIVE MODE;
	FOR l IN SELECT w.workspace_id, a.activity_id, a.at, a.hash FROM partner_portal.workspace w
		JOIN partner_portal.activity a ON a.workspace_id = w.workspace_id AND a.activity_id = partner_portal.activity_before(w.workspace_id, before)
		ORDER BY w.workspace_id
	LOOP
		forgotten := forgotten + partner_portal.delete_activity(l.workspace_id, l.activity_id);
		INSERT INTO partner_portal.activity_start AS s (workspace_id, activity_id, at, hash, forgotten_before, forgotten_at, forgotten_by)
		VALUES (l.workspace_id, l.activity_id, l.at, l.hash, before, clock_timestamp(),
			coalesce('account ' || partner_portal.current_account_id(), partner_portal.calling_role()::text))
		ON CONFLICT ON CONSTRAINT activity_start_pkey DO UPDATE SET activity_id = excluded.activity_id, at = excluded.at, hash = excluded.hash,
			forgotten_before = excluded.forgotten_before, forgotten_at = excluded.forgotten_at, forgotten_by = excluded.forgotten_by;
	END LOOP;
	RETURN forgotten;
END
$$;
COMMENT ON FUNCTION partner_portal.forget_activity(timestamptz) IS
'Removes the lines of every workspace before an instant and returns how many; the rest can still be verified, from the hash of the last one removed. Operator only (42501); 22023 not in the past.';
REVOKE ALL ON FUNCTION partner_portal.forget_activity(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.erase_activity(account_id bigint, workspace_id bigint) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_erase_activity';
COMMENT ON FUNCTION partner_portal.erase_activity(bigint, bigint) IS
'Erases from the log what it says about an account: its address where it acted, and texts of the application''s about it or with its address in them; or all addresses and texts of a workspace. Digest stays, salt goes: the chain still holds. Internal.';
REVOKE ALL ON FUNCTION partner_portal.erase_activity(bigint, bigint) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT (workspace_id, activity_id, at, account_id, account_email, source, action, about_account_id, description, details, partner_key, prev_hash, hash)', 'TABLE partner_portal.activity'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.log_activity(bigint, text, text, jsonb, bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.activity_log(bigint, text, text, text, timestamptz, timestamptz, bigint, integer)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.activity_log_csv(bigint, text, text, text, timestamptz, timestamptz, bigint, integer)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.verify_activity_log(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.forget_activity(timestamptz)');
