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
	wanted text;
	candidate text;
BEGIN
	PERFORM partner_portal.checked_text('company_name', company_name, 200);
	wanted := CASE WHEN slug IS NULL THEN partner_portal.slug_of(company_name) ELSE partner_portal.checked_slug(slug) END;
	PERFORM partner_portal.check_time_zone(partner_portal.checked_text('time_zone', time_zone, 255));
	IF anchor_date IS NULL THEN
		anchor_date := (now() AT TIME ZONE time_zone)::date;
	END IF;
	PERFORM partner_portal.checked_date('anchor_date', anchor_date);
	FOR attempt IN 1 .. 20 LOOP
		candidate := CASE WHEN attempt = 1 THEN wanted WHEN attempt < 10 THEN wanted || '-' || attempt
			ELSE wanted || '-' || left(md5(partner_portal.new_secret()), 8) END;
		IF NOT EXISTS (SELECT FROM partner_portal.workspace w WHERE w.slug = candidate) THEN
			INSERT INTO partner_portal.workspace AS w (partner_id, company_name, slug, time_zone, anchor_date)
			VALUES (make_workspace.partner_id, make_workspace.company_name, candidate, make_workspace.time_zone, make_workspace.anchor_date)
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

-- Whoever changes the state of a workspace and then its keys takes the keys first: an activation has its key when it
-- waits for the workspace's counters.
CREATE FUNCTION partner_portal.lock_keys(workspace_id bigint) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM FROM partner_portal.security_key k
	WHERE k.workspace_id = lock_keys.workspace_id
	ORDER BY k.activated_at DESC, k.key_id DESC
	FOR NO KEY UPDATE;
END
$$;
COMMENT ON FUNCTION partner_portal.lock_keys(bigint) IS 'Locks every key of a workspace until the end of the transaction, in the order of disable_keys().';
REVOKE ALL ON FUNCTION partner_portal.lock_keys(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.checked_reason(reason text) RETURNS text
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN partner_portal.checked_text('reason', reason, 1000);
END
$$;
COMMENT ON FUNCTION partner_portal.checked_reason(text) IS 'Returns a reason as given, at most 1000 characters. 22004, 22001, 22023.';
REVOKE ALL ON FUNCTION partner_portal.checked_reason(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.suspend_workspace(workspace_id bigint, reason text) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace := partner_portal.authorized_live_workspace('suspend', workspace_id);
BEGIN
	PERFORM partner_portal.checked_reason(reason);
	IF target.suspended_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is suspended already', workspace_id);
	END IF;
	PERFORM partner_portal.lock_keys(workspace_id);
	UPDATE partner_portal.workspace w SET suspended_at = clock_timestamp(), suspended_reason = reason
	WHERE w.workspace_id = suspend_workspace.workspace_id
	RETURNING w.* INTO target;
	PERFORM partner_portal.disable_keys_as(workspace_id, 'suspended');
	RETURN target;
END
$$;
COMMENT ON FUNCTION partner_portal.suspend_workspace(bigint, text) IS
'Suspends a workspace: its active keys are disabled with reason suspended, and none can be activated; people may still sign in and look. Customers of a suspended partner keep their keys but can activate none. By the customer''s partner; the operator for any. 42501, P0002; PP005 it is suspended or deleted.';
REVOKE ALL ON FUNCTION partner_portal.suspend_workspace(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.resume_workspace(workspace_id bigint) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace := partner_portal.authorized_live_workspace('suspend', workspace_id);
BEGIN
	IF target.suspended_at IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is not suspended', workspace_id);
	END IF;
	PERFORM partner_portal.lock_keys(workspace_id);
	UPDATE partner_portal.workspace w SET suspended_at = NULL, suspended_reason = NULL
	WHERE w.workspace_id = resume_workspace.workspace_id
	RETURNING w.* INTO target;
	PERFORM partner_portal.resume_keys(workspace_id, 'suspended');
	RETURN target;
END
$$;
COMMENT ON FUNCTION partner_portal.resume_workspace(bigint) IS
'Ends a suspension: exactly the keys that it disabled are enabled, oldest first, up to the limit. By the customer''s partner; the operator for any. 42501, P0002; PP005 it is not suspended, or deleted.';
REVOKE ALL ON FUNCTION partner_portal.resume_workspace(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.has_customers(partner_id bigint, deleted_too boolean) RETURNS boolean
	LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'partner_portal_has_customers';
COMMENT ON FUNCTION partner_portal.has_customers(bigint, boolean) IS
'Whether a partner has customers, as of the latest commit whatever the snapshot: those that are deleted count if deleted_too. Internal.';
REVOKE ALL ON FUNCTION partner_portal.has_customers(bigint, boolean) FROM PUBLIC;

CREATE FUNCTION partner_portal.delete_workspace(workspace_id bigint) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace := partner_portal.authorized_live_workspace('delete_workspace', workspace_id);
	ended timestamptz;
BEGIN
	-- whoever registers right now had the partner's workspace FOR SHARE
	IF partner_portal.has_customers(workspace_id, false) THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('partner %s has customers', workspace_id),
			HINT = 'Delete them, or have them leave or move to another partner first.';
	END IF;
	PERFORM partner_portal.lock_keys(workspace_id);
	-- from here on nothing can be activated
	UPDATE partner_portal.workspace w SET deleted_at = clock_timestamp() WHERE w.workspace_id = delete_workspace.workspace_id;
	PERFORM partner_portal.disable_keys_as(workspace_id, 'deleted');
	-- what the keys were billed for ends before the period does
	ended := clock_timestamp();
	PERFORM partner_portal.end_periods(workspace_id, ended);
	UPDATE partner_portal.workspace w SET deleted_at = ended WHERE w.workspace_id = delete_workspace.workspace_id
	RETURNING w.* INTO target;
	RETURN target;
END
$$;
COMMENT ON FUNCTION partner_portal.delete_workspace(bigint) IS
'Deletes a workspace softly: its keys are disabled with reason deleted, its last billing period ends at deleted_at, nobody acts in it; members, staff, history and slug stay. By its owner or its partner. 42501, P0002; PP005 it is deleted already, or a partner with customers.';
REVOKE ALL ON FUNCTION partner_portal.delete_workspace(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.restore_workspace(workspace_id bigint) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace := partner_portal.authorized_workspace('restore_workspace', workspace_id);
BEGIN
	IF target.deleted_at IS NULL OR target.purged_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005',
			MESSAGE = format(CASE WHEN target.deleted_at IS NULL THEN 'workspace %s is not deleted' ELSE 'workspace %s is purged' END, workspace_id);
	END IF;
	PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = target.partner_id AND w.deleted_at IS NULL FOR SHARE;
	IF target.partner_id IS NOT NULL AND NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('the partner of workspace %s is deleted', workspace_id),
			HINT = 'Restore the partner first.';
	END IF;
	-- one who is kept, before the counters, as whoever leaves takes them
	PERFORM FROM partner_portal.member m WHERE m.workspace_id = restore_workspace.workspace_id AND m.role = 'owner'
	ORDER BY m.accepted_at IS NULL, m.account_id LIMIT 1 FOR SHARE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'PP004', MESSAGE = format('workspace %s would be without an owner', workspace_id),
			DETAIL = 'Its last owner left, or was erased, after it was deleted.', HINT = 'The operator makes somebody its owner with add_member() first.';
	END IF;
	PERFORM partner_portal.lock_keys(workspace_id);
	UPDATE partner_portal.workspace w SET deleted_at = NULL WHERE w.workspace_id = restore_workspace.workspace_id
	RETURNING w.* INTO target;
	PERFORM partner_portal.start_periods(workspace_id, clock_timestamp());
	IF target.suspended_at IS NULL THEN
		PERFORM partner_portal.resume_keys(workspace_id, 'deleted');
	END IF;
	RETURN target;
END
$$;
COMMENT ON FUNCTION partner_portal.restore_workspace(bigint) IS
'Takes a deletion back: a new billing period starts now, and the keys that the deletion disabled are enabled, oldest first, up to the limit (none while the workspace is suspended). By its partner; the operator for any. 42501, P0002; PP004 it has no owner any more; PP005 it is not deleted, purged, or its partner is deleted.';
REVOKE ALL ON FUNCTION partner_portal.restore_workspace(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.purge_workspace(workspace_id bigint) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace;
BEGIN
	PERFORM partner_portal.require_operator();
	target := partner_portal.authorized_workspace('purge', workspace_id);
	IF target.deleted_at IS NULL OR target.purged_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005',
			MESSAGE = format(CASE WHEN target.deleted_at IS NULL THEN 'workspace %s is not deleted' ELSE 'workspace %s is purged already' END, workspace_id),
			HINT = CASE WHEN target.deleted_at IS NULL THEN 'Delete it first.' ELSE 'Nothing is left to erase.' END;
	END IF;
	IF partner_portal.owes_document(workspace_id) THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s has periods or drafts that are not billed yet', workspace_id),
			HINT = 'Bill them with run_billing() or finalize_invoice() first: documents are made out to the name that would be erased.';
	END IF;
	PERFORM partner_portal.lock_keys(workspace_id);
	UPDATE partner_portal.security_key k SET label = NULL, serial = 'purged-' || k.key_id
	WHERE k.workspace_id = purge_workspace.workspace_id;
	DELETE FROM partner_portal.staff s WHERE purge_workspace.workspace_id IN (s.workspace_id, s.partner_key);
	DELETE FROM partner_portal.member m WHERE m.workspace_id = purge_workspace.workspace_id;
	DELETE FROM partner_portal.portal p WHERE p.workspace_id = purge_workspace.workspace_id;
	DELETE FROM partner_portal.report r WHERE r.workspace_id = purge_workspace.workspace_id;
	DELETE FROM partner_portal.folder f WHERE f.workspace_id = purge_workspace.workspace_id;
	DELETE FROM partner_portal.invitation i WHERE i.workspace_id = purge_workspace.workspace_id;
	DELETE FROM partner_portal.notification n WHERE n.workspace_id = purge_workspace.workspace_id;
	DELETE FROM partner_portal.delivery_destination t USING partner_portal.webhook_endpoint e
	WHERE e.workspace_id = purge_workspace.workspace_id AND t.destination = e.endpoint_id;
	DELETE FROM partner_portal.webhook_endpoint e WHERE e.workspace_id = purge_workspace.workspace_id;
	DELETE FROM partner_portal.mail_opt_out o WHERE o.workspace_id = purge_workspace.workspace_id;
	PERFORM partner_portal.erase_activity(NULL, workspace_id);
	DELETE FROM partner_portal.product p WHERE p.workspace_id = purge_workspace.workspace_id;
	UPDATE partner_portal.access_grant g SET message = NULL, end_reason = NULL WHERE purge_workspace.workspace_id IN (g.workspace_id, g.partner_id);
	UPDATE partner_portal.workspace w
	SET company_name = 'Purged workspace ' || w.workspace_id, slug = 'purged-' || w.workspace_id || '-' || left(md5(partner_portal.new_secret()), 8),
		address = NULL, tax_id = NULL, suspended_reason = NULL, sso_enabled = false, notify_new_keys = false, notify_billing = false,
		purged_at = clock_timestamp()
	WHERE w.workspace_id = purge_workspace.workspace_id
	RETURNING w.* INTO target;
	RETURN target;
END
$$;
COMMENT ON FUNCTION partner_portal.purge_workspace(bigint) IS
'Erases for good what a deleted workspace says about people: its name, slug (which becomes free), address and tax id, the labels, serials and holders of its keys, its memberships, portals, folders and reports, its webhook endpoints, and its messages, sent or not. What was billed stays: keys by number, their history, periods and documents, which keep the name they were made out to. Operator only (42501); P0002; PP005 it is not deleted, or purged already, or a document is still to be made out to it.';
REVOKE ALL ON FUNCTION partner_portal.purge_workspace(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.move_workspace(workspace_id bigint, new_partner_id bigint) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	moved partner_portal.workspace;
BEGIN
	DELETE FROM partner_portal.staff s WHERE s.workspace_id = move_workspace.workspace_id;
	PERFORM partner_portal.lock_keys(workspace_id);
	-- partner_key of live rows follows by foreign key, and the billing period is split by trigger
	UPDATE partner_portal.workspace w SET partner_id = new_partner_id WHERE w.workspace_id = move_workspace.workspace_id
	RETURNING w.* INTO moved;
	RETURN moved;
END
$$;
COMMENT ON FUNCTION partner_portal.move_workspace(bigint, bigint) IS
'Puts a workspace under another partner, NULL for none: staff ends, the billing period is split, live rows follow. What it was before stays the old partner''s.';
REVOKE ALL ON FUNCTION partner_portal.move_workspace(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.transfer_workspace(workspace_id bigint, registration_code text) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace := partner_portal.authorized_live_workspace('grant_access', workspace_id);
	new_partner partner_portal.workspace;
BEGIN
	IF target.kind = 'partner' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is a partner', workspace_id),
			HINT = 'Partners are no partner''s customers.';
	END IF;
	new_partner := partner_portal.partner_of_code(registration_code);
	IF new_partner.workspace_id = target.partner_id THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is this partner''s customer already', workspace_id);
	END IF;
	RETURN partner_portal.move_workspace(workspace_id, new_partner.workspace_id);
END
$$;
COMMENT ON FUNCTION partner_portal.transfer_workspace(bigint, text) IS
'Moves a workspace to the partner whose registration code it is; a direct one joins it. At that instant the old partner''s staff ends and the billing period is split; a suspension stays, for the new partner to end. By the workspace''s owner. 42501; P0002 no such workspace or code; PP005 it is deleted, a partner, that partner''s already, or the partner is suspended.';
REVOKE ALL ON FUNCTION partner_portal.transfer_workspace(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.leave_partner(workspace_id bigint, reason text DEFAULT NULL) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace := partner_portal.authorized_live_workspace('read', workspace_id);
BEGIN
	IF NOT (partner_portal.may('grant_access', workspace_id) OR partner_portal.looks_after(workspace_id)) THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('only the owner or the partner of workspace %s may end their relation', workspace_id);
	END IF;
	IF reason IS NOT NULL THEN
		PERFORM partner_portal.checked_reason(reason);
	END IF;
	IF target.partner_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s has no partner', workspace_id);
	END IF;
	RETURN partner_portal.move_workspace(workspace_id, NULL);
END
$$;
COMMENT ON FUNCTION partner_portal.leave_partner(bigint, text) IS
'Makes a customer a direct workspace. At that instant the partner''s staff ends and the billing period is split; a suspension stays, for the operator to end. By the customer''s owner or its partner. 42501, P0002; PP005 it has no partner, or is deleted.';
REVOKE ALL ON FUNCTION partner_portal.leave_partner(bigint, text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.create_workspace(text, text, text, text, date)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.suspend_workspace(bigint, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.resume_workspace(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.delete_workspace(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.restore_workspace(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.purge_workspace(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.transfer_workspace(bigint, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.leave_partner(bigint, text)');
