-- enroll.sql: gives a database role what its kind needs.

CREATE FUNCTION partner_portal.enroll_role(role regrole, as_what text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	line record;
BEGIN
	IF NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator may enroll a role';
	END IF;
	IF role IS NULL OR as_what IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'role and as_what must not be null';
	END IF;
	IF as_what NOT IN ('application', 'trusted_application', 'reporting', 'operator') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown kind of role "%s"', left(as_what, 64)),
			HINT = 'Kinds are application, trusted_application, reporting and operator.';
	END IF;
	IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = role) THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = format('role with OID %s does not exist', role::oid);
	END IF;
	EXECUTE format('GRANT USAGE ON SCHEMA partner_portal TO %s', role);
	FOR line IN
		SELECT g.privilege, g.object FROM partner_portal.role_grant g
		WHERE g.as_what = enroll_role.as_what
			OR (g.as_what = 'application' AND enroll_role.as_what IN ('trusted_application', 'operator'))
	LOOP
		EXECUTE format('GRANT %s ON %s TO %s', line.privilege, line.object, role);
	END LOOP;
	INSERT INTO partner_portal.enrolled_role (role_name, as_what)
	SELECT r.rolname, enroll_role.as_what FROM pg_roles r WHERE r.oid = role
	ON CONFLICT ON CONSTRAINT enrolled_role_pkey DO NOTHING;
END
$$;
COMMENT ON FUNCTION partner_portal.enroll_role(regrole, text) IS
'Grants a database role what an application, trusted_application, reporting or operator role needs, and remembers it for upgrades. Operator only (42501); 22023 unknown kind; 42704 no such role.';
REVOKE ALL ON FUNCTION partner_portal.enroll_role(regrole, text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('operator', 'EXECUTE', 'FUNCTION partner_portal.enroll_role(regrole, text)');
