-- portal.sql: branded portals, what they look like, and the folders shared with their users.
-- A portal belongs to a partner (its workspace_id); its group is all its users, by definition and not by a list.

CREATE TABLE partner_portal.portal (
	workspace_id bigint NOT NULL,
	portal_id bigint GENERATED ALWAYS AS IDENTITY,
	name text NOT NULL,
	technical_name text NOT NULL,
	color text NOT NULL,
	logout_url text NOT NULL,
	home_cover_url text,
	group_id bigint NOT NULL GENERATED ALWAYS AS (portal_id) STORED,
	group_name text NOT NULL GENERATED ALWAYS AS ('All users of ' || name) STORED,
	created_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT portal_pkey PRIMARY KEY (workspace_id, portal_id),
	CONSTRAINT portal_portal_id_key UNIQUE (portal_id),
	CONSTRAINT portal_group_id_key UNIQUE (workspace_id, group_id),
	CONSTRAINT portal_technical_name_key UNIQUE (technical_name),
	CONSTRAINT portal_partner FOREIGN KEY (workspace_id) REFERENCES partner_portal.partner (partner_id),
	CONSTRAINT portal_name CHECK (length(name) BETWEEN 1 AND 200 AND name ~ '\S' AND name !~ '[\x01-\x1f\x7f]'),
	CONSTRAINT portal_technical_name CHECK (technical_name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$' AND technical_name !~ '^..--'
		AND technical_name <> ALL (ARRAY['www', 'www1', 'www2', 'web', 'api', 'app', 'apps', 'admin', 'administrator', 'root', 'portal', 'portals', 'partner',
			'partners', 'auth', 'login', 'logout', 'signin', 'signup', 'register', 'account', 'accounts', 'sso', 'oauth', 'id', 'mail', 'email', 'smtp', 'imap',
			'pop', 'pop3', 'mx', 'mx1', 'mx2', 'webmail', 'autodiscover', 'autoconfig', 'ftp', 'sftp', 'ssh', 'ns', 'ns1', 'ns2', 'ns3', 'ns4', 'dns', 'vpn',
			'proxy', 'gateway', 'cdn', 'static', 'assets', 'media', 'img', 'images', 'files', 'download', 'downloads', 'docs', 'help', 'support', 'status',
			'blog', 'news', 'billing', 'pay', 'payments', 'invoice', 'invoices', 'security', 'abuse', 'postmaster', 'hostmaster', 'webmaster', 'noreply',
			'internal', 'private', 'test', 'staging', 'dev', 'demo', 'preview', 'localhost', 'wpad', 'isatap', 'undefined', 'null'])),
	CONSTRAINT portal_color CHECK (color ~ '^#[0-9A-Fa-f]{6}$'),
	CONSTRAINT portal_logout_url CHECK (length(logout_url) <= 2000 AND logout_url ~
		'^https?://[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?([/?#][A-Za-z0-9._~:/?#@!$&''()*+,;=%\[\]-]*)?$'),
	CONSTRAINT portal_home_cover_url CHECK (length(home_cover_url) <= 2000 AND home_cover_url ~
		'^https?://[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?([/?#][A-Za-z0-9._~:/?#@!$&''()*+,;=%\[\]-]*)?$')
);
COMMENT ON TABLE partner_portal.portal IS
'A partner''s branded entrance with its own users. Name, address, look and links are changed by plain UPDATE by the partner''s owner or administrator.';
COMMENT ON COLUMN partner_portal.portal.workspace_id IS 'The partner.';
COMMENT ON COLUMN partner_portal.portal.technical_name IS
'First label of the portal''s host name: unique on the platform, not one of the names that infrastructure and deceivers like, nor one that an internationalised name is written as (xn--).';
COMMENT ON COLUMN partner_portal.portal.color IS 'Background of the login page, #rrggbb. The colour of the text on it is computed.';
COMMENT ON COLUMN partner_portal.portal.logout_url IS 'Where one is sent after logging out; http or https, ASCII.';
COMMENT ON COLUMN partner_portal.portal.home_cover_url IS 'Picture at the head of the home page; NULL is none.';
COMMENT ON COLUMN partner_portal.portal.group_id IS 'The portal''s group for share_folder(): always all its users.';

CREATE TABLE partner_portal.folder (
	workspace_id bigint NOT NULL,
	folder_id bigint GENERATED ALWAYS AS IDENTITY,
	partner_key bigint NOT NULL,
	parent_id bigint,
	name text NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT folder_pkey PRIMARY KEY (workspace_id, folder_id),
	CONSTRAINT folder_folder_id_key UNIQUE (folder_id),
	CONSTRAINT folder_name_key UNIQUE NULLS NOT DISTINCT (workspace_id, parent_id, name),
	CONSTRAINT folder_workspace FOREIGN KEY (workspace_id, partner_key)
		REFERENCES partner_portal.workspace (workspace_id, partner_key) ON UPDATE CASCADE,
	CONSTRAINT folder_parent FOREIGN KEY (workspace_id, parent_id) REFERENCES partner_portal.folder (workspace_id, folder_id),
	CONSTRAINT folder_no_loop CHECK (parent_id < folder_id),
	CONSTRAINT folder_name CHECK (length(name) BETWEEN 1 AND 200 AND name ~ '\S' AND name !~ '[\x01-\x1f\x7f]')
);
CREATE INDEX folder_parent_id ON partner_portal.folder (parent_id);
CREATE INDEX folder_partner_key_idx ON partner_portal.folder (partner_key);
COMMENT ON TABLE partner_portal.folder IS
'Reports of a workspace stand in folders, and folders in folders. Plain DML for its owners and administrators, and the partner; a folder stays where it was made, and only an empty one can be deleted.';
COMMENT ON COLUMN partner_portal.folder.parent_id IS 'Folder it is in, of the same workspace; NULL is none.';

CREATE TABLE partner_portal.report (
	workspace_id bigint NOT NULL,
	report_id bigint GENERATED ALWAYS AS IDENTITY,
	partner_key bigint NOT NULL,
	folder_id bigint NOT NULL,
	title text NOT NULL,
	definition jsonb NOT NULL DEFAULT '{}',
	created_by bigint DEFAULT partner_portal.current_account_id(),
	created_at timestamptz NOT NULL DEFAULT now(),
	changed_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT report_pkey PRIMARY KEY (workspace_id, report_id),
	CONSTRAINT report_report_id_key UNIQUE (report_id),
	CONSTRAINT report_workspace FOREIGN KEY (workspace_id, partner_key)
		REFERENCES partner_portal.workspace (workspace_id, partner_key) ON UPDATE CASCADE,
	CONSTRAINT report_folder FOREIGN KEY (workspace_id, folder_id) REFERENCES partner_portal.folder (workspace_id, folder_id),
	CONSTRAINT report_account FOREIGN KEY (created_by) REFERENCES partner_portal.account,
	CONSTRAINT report_title CHECK (length(title) BETWEEN 1 AND 200 AND title ~ '\S' AND title !~ '[\x01-\x1f\x7f]'),
	CONSTRAINT report_definition CHECK (jsonb_typeof(definition) = 'object' AND octet_length(definition::text) <= 1000000)
);
CREATE INDEX report_folder_id ON partner_portal.report (folder_id);
CREATE INDEX report_partner_key_idx ON partner_portal.report (partner_key);
CREATE INDEX report_created_by ON partner_portal.report (created_by);
COMMENT ON TABLE partner_portal.report IS
'What a folder holds. Plain DML for the workspace''s owners and administrators and the partner; a portal''s editors make reports in folders shared for editing, and change and delete those they made.';
COMMENT ON COLUMN partner_portal.report.definition IS 'What the report shows, in the application''s own terms: a JSON object of at most a million bytes.';
COMMENT ON COLUMN partner_portal.report.created_by IS 'Account that made it; NULL is the operator.';

CREATE TABLE partner_portal.folder_share (
	workspace_id bigint NOT NULL,
	folder_id bigint NOT NULL,
	group_id bigint NOT NULL,
	may_edit boolean NOT NULL,
	shared_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT folder_share_pkey PRIMARY KEY (workspace_id, folder_id, group_id),
	CONSTRAINT folder_share_folder FOREIGN KEY (workspace_id, folder_id) REFERENCES partner_portal.folder (workspace_id, folder_id) ON DELETE CASCADE,
	CONSTRAINT folder_share_group FOREIGN KEY (workspace_id, group_id) REFERENCES partner_portal.portal (workspace_id, group_id) ON DELETE CASCADE
);
CREATE INDEX folder_share_group_id ON partner_portal.folder_share (group_id, folder_id);
COMMENT ON TABLE partner_portal.folder_share IS 'A folder that a portal''s users see, with the folders below it; share_folder() and unshare_folder().';
COMMENT ON COLUMN partner_portal.folder_share.may_edit IS 'Whether the portal''s editors may make reports there.';

CREATE FUNCTION partner_portal.stamp_content() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_stamp_content';
COMMENT ON FUNCTION partner_portal.stamp_content() IS 'Trigger: stamps the partner of the workspace, and changed_at where there is one. A restored row stays as it was.';
REVOKE ALL ON FUNCTION partner_portal.stamp_content() FROM PUBLIC;
CREATE TRIGGER stamp_content BEFORE INSERT OR UPDATE ON partner_portal.folder
	FOR EACH ROW EXECUTE FUNCTION partner_portal.stamp_content();
CREATE TRIGGER stamp_content BEFORE INSERT OR UPDATE ON partner_portal.report
	FOR EACH ROW EXECUTE FUNCTION partner_portal.stamp_content();
CREATE TRIGGER check_names BEFORE INSERT OR UPDATE ON partner_portal.portal
	FOR EACH ROW EXECUTE FUNCTION partner_portal.check_names('name');
CREATE TRIGGER check_addresses BEFORE INSERT OR UPDATE ON partner_portal.portal
	FOR EACH ROW EXECUTE FUNCTION partner_portal.check_addresses('logout_url', 'home_cover_url');
CREATE TRIGGER check_names BEFORE INSERT OR UPDATE ON partner_portal.folder
	FOR EACH ROW EXECUTE FUNCTION partner_portal.check_names('name');
CREATE TRIGGER check_names BEFORE INSERT OR UPDATE ON partner_portal.report
	FOR EACH ROW EXECUTE FUNCTION partner_portal.check_names('title');

-- What a portal user may reach changes with shares and with folders below others.
CREATE TRIGGER acl_change AFTER INSERT OR UPDATE OR DELETE ON partner_portal.folder_share
	FOR EACH ROW EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_truncate AFTER TRUNCATE ON partner_portal.folder_share
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_insert AFTER INSERT ON partner_portal.folder
	FOR EACH ROW WHEN (NEW.parent_id IS NOT NULL) EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_update AFTER UPDATE ON partner_portal.folder
	FOR EACH ROW WHEN ((OLD.folder_id, OLD.parent_id) IS DISTINCT FROM (NEW.folder_id, NEW.parent_id)) EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_delete AFTER DELETE ON partner_portal.folder
	FOR EACH ROW EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_truncate AFTER TRUNCATE ON partner_portal.folder
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.acl_changed();
ALTER TABLE partner_portal.folder_share ENABLE ALWAYS TRIGGER acl_change, ENABLE ALWAYS TRIGGER acl_truncate;
ALTER TABLE partner_portal.folder ENABLE ALWAYS TRIGGER acl_insert, ENABLE ALWAYS TRIGGER acl_update, ENABLE ALWAYS TRIGGER acl_delete, ENABLE ALWAYS TRIGGER acl_truncate;

CREATE FUNCTION partner_portal.portal_folders(what text) RETURNS bigint[]
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_portal_folders';
COMMENT ON FUNCTION partner_portal.portal_folders(text) IS
'Folders shared with the group of the acting portal, those below them included: to ''read'', or, for its editors, to ''edit''. Empty without an acting portal. For policies.';
REVOKE ALL ON FUNCTION partner_portal.portal_folders(text) FROM PUBLIC;

ALTER TABLE partner_portal.portal ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.folder ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.report ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.folder_share ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.portal AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.portal FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR workspace_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR portal_id = (SELECT partner_portal.current_portal_id()));
CREATE POLICY change ON partner_portal.portal FOR UPDATE
	USING (workspace_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()))
	WITH CHECK (workspace_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

CREATE POLICY signed_in ON partner_portal.folder AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.folder FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[])
		OR folder_id = ANY ((SELECT partner_portal.portal_folders('read'))::bigint[]));
CREATE POLICY manage ON partner_portal.folder
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_settings'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_settings'))::bigint[]))
	WITH CHECK (workspace_id = (SELECT partner_portal.own_workspace('manage_settings'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_settings'))::bigint[]));

CREATE POLICY signed_in ON partner_portal.report AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.report FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[])
		OR folder_id = ANY ((SELECT partner_portal.portal_folders('read'))::bigint[]));
CREATE POLICY manage ON partner_portal.report
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_settings'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_settings'))::bigint[]))
	WITH CHECK (workspace_id = (SELECT partner_portal.own_workspace('manage_settings'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_settings'))::bigint[]));
CREATE POLICY edit ON partner_portal.report
	USING (folder_id = ANY ((SELECT partner_portal.portal_folders('edit'))::bigint[]) AND created_by = (SELECT partner_portal.current_account_id()))
	WITH CHECK (folder_id = ANY ((SELECT partner_portal.portal_folders('edit'))::bigint[]) AND created_by = (SELECT partner_portal.current_account_id()));

CREATE POLICY signed_in ON partner_portal.folder_share AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.folder_share FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR workspace_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

SELECT pg_catalog.pg_extension_config_dump('partner_portal.portal', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.portal_portal_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.folder', 'ORDER BY folder_id');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.folder_folder_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.report', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.report_report_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.folder_share', '');

-- The same rules as the constraints, told as a bad argument; also for what is not saved yet (preview_portal).
CREATE FUNCTION partner_portal.check_portal(name text, technical_name text, color text, logout_url text, home_cover_url text) RETURNS void
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
	url_shape CONSTANT text := '^https?://[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?([/?#][A-Za-z0-9._~:/?#@!$&''()*+,;=%\[\]-]*)?$';
BEGIN
	PERFORM partner_portal.checked_text('name', name, 200);
	PERFORM partner_portal.checked_text('technical_name', technical_name, 63);
	PERFORM partner_portal.checked_text('color', color, 7);
	PERFORM partner_portal.checked_text('logout_url', logout_url, 2000);
	IF home_cover_url IS NOT NULL THEN
		PERFORM partner_portal.checked_text('home_cover_url', home_cover_url, 2000);
	END IF;
	IF technical_name !~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$' OR technical_name ~ '^..--' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('technical name "%s" is not valid', technical_name),
			HINT = 'It is a label of a host name: a to z, 0 to 9 and hyphens, with a letter or digit at both ends; not one of an internationalised name.';
	END IF;
	IF color !~ '^#[0-9A-Fa-f]{6}$' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('color "%s" is not valid', color),
			HINT = 'A colour is written #rrggbb.';
	END IF;
	IF logout_url !~ url_shape OR home_cover_url !~ url_shape THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('%s is not valid', CASE WHEN logout_url !~ url_shape THEN 'logout_url' ELSE 'home_cover_url' END),
			HINT = 'An address begins with http:// or https:// and a host name; other than ASCII characters are written as %XX.';
	END IF;
	PERFORM partner_portal.checked_port('logout_url', logout_url), partner_portal.checked_port('home_cover_url', home_cover_url);
END
$$;
COMMENT ON FUNCTION partner_portal.check_portal(text, text, text, text, text) IS 'Returns when a portal may look so. 22004, 22001, 22023. Whether the technical name is free or reserved is not asked.';
REVOKE ALL ON FUNCTION partner_portal.check_portal(text, text, text, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.create_portal(partner_id bigint, name text, technical_name text, color text, logout_url text,
		home_cover_url text DEFAULT NULL) RETURNS partner_portal.portal
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_id);
	made partner_portal.portal;
	broken text;
BEGIN
	PERFORM partner_portal.authorized_live_workspace('manage_portals', asked.partner_id);
	PERFORM partner_portal.check_portal(name, technical_name, color, logout_url, home_cover_url);
	BEGIN
		INSERT INTO partner_portal.portal AS p (workspace_id, name, technical_name, color, logout_url, home_cover_url)
		VALUES (asked.partner_id, create_portal.name, create_portal.technical_name, create_portal.color, create_portal.logout_url, create_portal.home_cover_url)
		RETURNING p.* INTO made;
	EXCEPTION
		WHEN unique_violation THEN
			RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = format('technical name "%s" is taken', technical_name);
		WHEN check_violation THEN
			GET STACKED DIAGNOSTICS broken = CONSTRAINT_NAME;
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
				MESSAGE = CASE broken WHEN 'portal_technical_name' THEN format('technical name "%s" is reserved', technical_name) ELSE format('value breaks %s', broken) END;
	END;
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.create_portal(bigint, text, text, text, text, text) IS
'Creates a portal of a partner, NULL being the identity''s own, with its group. For the partner''s owner or administrator. 42501, P0002; 22004, 22001, 22023 a bad value, or a reserved technical name; 23505 the technical name is taken, by whom is not said; PP005 no partner, or deleted.';
REVOKE ALL ON FUNCTION partner_portal.create_portal(bigint, text, text, text, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.authorized_portal(permission text, portal_id bigint) RETURNS partner_portal.portal
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_portal partner_portal.portal;
BEGIN
	IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in', HINT = 'Sign in with partner_portal.login().';
	END IF;
	IF portal_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'portal_id must not be null';
	END IF;
	SELECT p.* INTO found_portal FROM partner_portal.portal p WHERE p.portal_id = authorized_portal.portal_id;
	IF NOT FOUND OR NOT partner_portal.may('read', found_portal.workspace_id) THEN
		-- its users may look at it
		IF FOUND AND permission = 'read' AND found_portal.portal_id = partner_portal.current_portal_id() THEN
			RETURN found_portal;
		END IF;
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('portal %s not found', portal_id);
	END IF;
	PERFORM partner_portal.authorize(permission, found_portal.workspace_id);
	RETURN found_portal;
END
$$;
COMMENT ON FUNCTION partner_portal.authorized_portal(text, bigint) IS
'Returns a portal on whose partner the identity has the permission; with read, also the portal one acts in. 42501, 22004; P0002 absent or not visible.';
REVOKE ALL ON FUNCTION partner_portal.authorized_portal(text, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.portal_url(portal_id bigint) RETURNS text
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN 'https://' || (partner_portal.authorized_portal('read', portal_id)).technical_name || '.' || current_setting('partner_portal.portal_domain') || '/';
END
$$;
COMMENT ON FUNCTION partner_portal.portal_url(bigint) IS
'Address of a portal: https://<technical name>.<partner_portal.portal_domain>/. For those who may read its partner, and its users acting in it. 42501, 22004, P0002.';
REVOKE ALL ON FUNCTION partner_portal.portal_url(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.delete_portal(portal_id bigint) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.portal := partner_portal.authorized_portal('manage_portals', portal_id);
BEGIN
	PERFORM partner_portal.cancel_invitation_mail(i) FROM partner_portal.invitation i
	WHERE i.workspace_id = asked.workspace_id AND i.portal_id = asked.portal_id AND i.state = 'pending';
	UPDATE partner_portal.invitation i SET state = 'withdrawn', finished_at = clock_timestamp()
	WHERE i.workspace_id = asked.workspace_id AND i.portal_id = asked.portal_id AND i.state = 'pending';
	DELETE FROM partner_portal.portal p WHERE p.workspace_id = asked.workspace_id AND p.portal_id = asked.portal_id;
END
$$;
COMMENT ON FUNCTION partner_portal.delete_portal(bigint) IS
'Deletes a portal with its users, pending ones included, and what was shared with its group; folders and reports stay. Its technical name becomes free. For the partner''s owner or administrator. 42501, 22004, P0002.';
REVOKE ALL ON FUNCTION partner_portal.delete_portal(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.authorized_share(folder_id bigint, group_id bigint) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	owner bigint;
BEGIN
	IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in', HINT = 'Sign in with partner_portal.login().';
	END IF;
	IF folder_id IS NULL OR group_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'folder_id and group_id must not be null';
	END IF;
	SELECT f.workspace_id INTO owner FROM partner_portal.folder f WHERE f.folder_id = authorized_share.folder_id;
	IF NOT FOUND OR NOT partner_portal.may('read', owner) THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('folder %s not found', folder_id);
	END IF;
	PERFORM partner_portal.authorize('manage_portals', owner);
	IF NOT EXISTS (SELECT FROM partner_portal.portal p WHERE p.workspace_id = owner AND p.group_id = authorized_share.group_id) THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('group %s not found', group_id),
			HINT = 'A folder is shared with the group of a portal of the same partner.';
	END IF;
	RETURN owner;
END
$$;
COMMENT ON FUNCTION partner_portal.authorized_share(bigint, bigint) IS
'Returns the partner that a folder and a group both belong to, when the identity manages its portals. 42501, 22004, P0002.';
REVOKE ALL ON FUNCTION partner_portal.authorized_share(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.share_folder(folder_id bigint, group_id bigint, may_edit boolean DEFAULT false) RETURNS partner_portal.folder_share
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	owner bigint := partner_portal.authorized_share(folder_id, group_id);
	made partner_portal.folder_share;
BEGIN
	IF may_edit IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'may_edit must not be null';
	END IF;
	INSERT INTO partner_portal.folder_share AS s (workspace_id, folder_id, group_id, may_edit)
	VALUES (owner, share_folder.folder_id, share_folder.group_id, share_folder.may_edit)
	ON CONFLICT ON CONSTRAINT folder_share_pkey DO UPDATE SET may_edit = excluded.may_edit
	RETURNING s.* INTO made;
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.share_folder(bigint, bigint, boolean) IS
'Shows a folder of a partner, with the folders below it, to all users of one of its portals; may_edit lets the portal''s editors make reports there. Repeating it changes may_edit. For the partner''s owner or administrator. 42501, 22004; P0002 no such folder or group, or of different partners.';
REVOKE ALL ON FUNCTION partner_portal.share_folder(bigint, bigint, boolean) FROM PUBLIC;

CREATE FUNCTION partner_portal.unshare_folder(folder_id bigint, group_id bigint) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	owner bigint := partner_portal.authorized_share(folder_id, group_id);
BEGIN
	DELETE FROM partner_portal.folder_share s
	WHERE s.workspace_id = owner AND s.folder_id = unshare_folder.folder_id AND s.group_id = unshare_folder.group_id;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('folder %s is not shared with group %s', folder_id, group_id),
			HINT = 'A folder below a shared one is seen through that share.';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.unshare_folder(bigint, bigint) IS
'Ends a share from the next statement of every session on. For the partner''s owner or administrator. 42501, 22004; P0002 no such folder or group, or not shared itself.';
REVOKE ALL ON FUNCTION partner_portal.unshare_folder(bigint, bigint) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.portal'),
	('application', 'UPDATE (name, technical_name, color, logout_url, home_cover_url)', 'TABLE partner_portal.portal'),
	('application', 'SELECT', 'TABLE partner_portal.folder'),
	('application', 'INSERT (workspace_id, parent_id, name)', 'TABLE partner_portal.folder'),
	('application', 'UPDATE (name)', 'TABLE partner_portal.folder'),
	('application', 'DELETE', 'TABLE partner_portal.folder'),
	('application', 'SELECT', 'TABLE partner_portal.report'),
	('application', 'INSERT (workspace_id, folder_id, title, definition)', 'TABLE partner_portal.report'),
	('application', 'UPDATE (folder_id, title, definition)', 'TABLE partner_portal.report'),
	('application', 'DELETE', 'TABLE partner_portal.report'),
	('application', 'SELECT', 'TABLE partner_portal.folder_share'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.portal_folders(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.create_portal(bigint, text, text, text, text, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.portal_url(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.delete_portal(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.share_folder(bigint, bigint, boolean)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.unshare_folder(bigint, bigint)');
