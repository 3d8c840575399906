-- workspace_lifecycle.sql: how workspaces come, rest, go and change hands.
--
-- Functions without a role_grant line are internal: parts of the public ones, called with their rights.

CREATE FUNCTION partner_portal.authorized_workspace(permission text, workspace_id bigint) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_workspace partner_portal.workspace;
BEGIN
	IF workspace_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_id must not be null';
	END IF;
	PERFORM partner_portal.authorize(permission, workspace_id);
	SELECT w.* INTO found_workspace FROM partner_portal.workspace w
	WHERE w.workspace_id = authorized_workspace.workspace_id
	FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('workspace %s not found', workspace_id);
	END IF;
	-- the lock may have been waited for: whoever had it may have moved the workspace
	PERFORM partner_portal.authorize(permission, workspace_id);
	RETURN found_workspace;
END
$$;
COMMENT ON FUNCTION partner_portal.authorized_workspace(text, bigint) IS
'Returns a workspace, locked until the end of the transaction against every other change of its state, when the identity has the permission on it. Errors of authorize().';
REVOKE ALL ON FUNCTION partner_portal.authorized_workspace(text, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.authorized_live_workspace(permission text, workspace_id bigint) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_workspace partner_portal.workspace := partner_portal.authorized_workspace(permission, workspace_id);
BEGIN
	IF found_workspace.deleted_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is deleted', workspace_id);
	END IF;
	RETURN found_workspace;
END
$$;
COMMENT ON FUNCTION partner_portal.authorized_live_workspace(text, bigint) IS 'As authorized_workspace(); PP005 when the workspace is deleted.';
REVOKE ALL ON FUNCTION partner_portal.authorized_live_workspace(text, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.make_workspace(partner_id bigint, company_name text, slug text, time_zone text, anchor_date date) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	made partner_portal.workspace;
	zone text := partner_portal.checked_time_zone(time_zone);
	wanted text;
	candidate text;
BEGIN
	PERFORM partner_portal.checked_text('company_name', company_name, 200);
	wanted := CASE WHEN slug IS NULL THEN partner_portal.slug_of(company_name) ELSE partner_portal.checked_slug(slug) END;
	IF anchor_date IS NULL THEN
		anchor_date := (now() AT TIME ZONE zone)::date;
	END IF;
	PERFORM partner_portal.checked_date('anchor_date', anchor_date);
	FOR attempt IN 1 .. 20 LOOP
		candidate := CASE WHEN attempt = 1 THEN wanted WHEN attempt < 10 THEN wanted || '-' || attempt
			ELSE wanted || '-' || left(md5(partner_portal.new_secret()), 8) END;
		IF NOT EXISTS (SELECT FROM partner_portal.workspace w WHERE w.slug = candidate) THEN
			INSERT INTO partner_portal.workspace AS w (partner_id, company_name, slug, time_zone, anchor_date)
			VALUES (make_workspace.partner_id, make_workspace.company_name, candidate, zone, make_workspace.anchor_date)
			ON CONFLICT ON CONSTRAINT workspace_slug_key DO NOTHING
			RETURNING w.* INTO made;
			IF FOUND THEN
				RETURN made;
			END IF;
		END IF;
		EXIT WHEN slug IS NOT NULL;
	END LOOP;
	RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = format('slug "%s" is taken', wanted),
		HINT = 'Choose another slug, or leave it out to have one made from the company name.';
END
$$;
COMMENT ON FUNCTION partner_portal.make_workspace(bigint, text, text, text, date) IS
'Inserts a business workspace. Without a slug, one is made from the company name, with a suffix if it is taken; without an anchor date, the local date of today. 23505 the slug is taken, 22001, 22004 and 22023 bad input.';
REVOKE ALL ON FUNCTION partner_portal.make_workspace(bigint, text, text, text, date) FROM PUBLIC;

CREATE FUNCTION partner_portal.create_workspace(company_name text, owner_email text, slug text DEFAULT NULL,
		time_zone text DEFAULT 'UTC', anchor_date date DEFAULT NULL) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	made partner_portal.workspace;
BEGIN
	PERFORM partner_portal.require_operator();
	PERFORM partner_portal.checked_email(owner_email);
	made := partner_portal.make_workspace(NULL, company_name, slug, time_zone, anchor_date);
	PERFORM partner_portal.make_member(made.workspace_id, owner_email, NULL, 'owner');
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.create_workspace(text, text, text, text, date) IS
'Creates a direct workspace and its owner. A new account owns it at once; an existing one must accept_membership() first, unless it is the one signed in. Operator only (42501); 23505 the slug is taken.';
REVOKE ALL ON FUNCTION partner_portal.create_workspace(text, text, text, text, date) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.create_workspace(text, text, text, text, date)');
