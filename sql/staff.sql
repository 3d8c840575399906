-- staff.sql: a partner's people assigned to single customers.

CREATE FUNCTION partner_portal.customer_to_staff(workspace_id bigint) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	customer partner_portal.workspace := partner_portal.authorized_live_workspace('read', workspace_id);
BEGIN
	IF NOT (partner_portal.is_operator() OR partner_portal.looks_after(workspace_id)) THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('only the partner of workspace %s may choose its staff', workspace_id);
	END IF;
	IF customer.partner_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s has no partner', workspace_id);
	END IF;
	RETURN customer;
END
$$;
COMMENT ON FUNCTION partner_portal.customer_to_staff(bigint) IS
'Returns a customer, locked, to an owner or administrator of its partner, or to the operator. 42501, P0002; PP005 it is deleted, or has no partner.';
REVOKE ALL ON FUNCTION partner_portal.customer_to_staff(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.assign_staff(workspace_id bigint, account_id bigint, role text) RETURNS partner_portal.staff
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	customer partner_portal.workspace := partner_portal.customer_to_staff(workspace_id);
	colleague partner_portal.member;
	assigned partner_portal.staff;
BEGIN
	PERFORM partner_portal.checked_text('role', role, 64);
	IF role NOT IN ('account_owner', 'system_administrator') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown staff role "%s"', role),
			HINT = 'Staff roles are account_owner and system_administrator.';
	END IF;
	colleague := partner_portal.locked_member(customer.partner_id, account_id);
	IF colleague.accepted_at IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('account %s has not accepted its membership of workspace %s', account_id, customer.partner_id);
	END IF;
	INSERT INTO partner_portal.staff AS s (workspace_id, account_id, partner_key, role)
	VALUES (assign_staff.workspace_id, assign_staff.account_id, customer.partner_key, assign_staff.role)
	ON CONFLICT ON CONSTRAINT staff_pkey DO UPDATE SET role = excluded.role
	RETURNING s.* INTO assigned;
	RETURN assigned;
END
$$;
COMMENT ON FUNCTION partner_portal.assign_staff(bigint, bigint, text) IS
'Assigns a member of the partner to one of its customers, as account_owner or system_administrator; changes the role of one who is assigned already. By an owner or administrator of the partner. 42501; P0002 no such workspace, or not a member of the partner; PP005 it is deleted, has no partner, or the membership is pending.';
REVOKE ALL ON FUNCTION partner_portal.assign_staff(bigint, bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.unassign_staff(workspace_id bigint, account_id bigint) RETURNS partner_portal.staff
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	released partner_portal.staff;
BEGIN
	PERFORM partner_portal.customer_to_staff(workspace_id);
	IF account_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'account_id must not be null';
	END IF;
	DELETE FROM partner_portal.staff s
	WHERE s.workspace_id = unassign_staff.workspace_id AND s.account_id = unassign_staff.account_id
	RETURNING s.* INTO released;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('account %s is not on the staff of workspace %s', account_id, workspace_id);
	END IF;
	RETURN released;
END
$$;
COMMENT ON FUNCTION partner_portal.unassign_staff(bigint, bigint) IS
'Takes a member of the partner off a customer. By an owner or administrator of the partner. 42501; P0002 no such workspace, or not assigned; PP005 it is deleted, or has no partner.';
REVOKE ALL ON FUNCTION partner_portal.unassign_staff(bigint, bigint) FROM PUBLIC;

-- Runs as its owner, since accounts show themselves to nobody else; every arm is filtered by the identity's own readers.
CREATE VIEW partner_portal.staff_list WITH (security_barrier) AS
	SELECT s.workspace_id, w.company_name, s.account_id, a.email, a.name, s.role, s.assigned_at
	FROM partner_portal.staff s
	JOIN partner_portal.workspace w ON w.workspace_id = s.workspace_id
	JOIN partner_portal.account a ON a.account_id = s.account_id
	WHERE s.account_id = (SELECT partner_portal.current_account_id())
		OR s.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key());
COMMENT ON VIEW partner_portal.staff_list IS
'Who of a partner looks after which customer: all of them for its owners and administrators, one''s own assignments for everybody else.';

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.assign_staff(bigint, bigint, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.unassign_staff(bigint, bigint)'),
	('application', 'SELECT', 'TABLE partner_portal.staff_list');
