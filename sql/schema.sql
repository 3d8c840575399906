-- schema.sql: the schema, and who may be granted what.
-- Every part after this one adds its own lines to role_grant; enroll.sql issues them.

CREATE SCHEMA partner_portal;
COMMENT ON SCHEMA partner_portal IS 'Back end of a partner (reseller) portal: tenants, security keys, limits, usage and billing.';

CREATE TABLE partner_portal.role_grant (
	as_what text NOT NULL,
	privilege text NOT NULL,
	object text NOT NULL,
	CONSTRAINT role_grant_pkey PRIMARY KEY (as_what, object, privilege),
	CONSTRAINT role_grant_as_what CHECK (as_what IN ('application', 'trusted_application', 'reporting', 'operator'))
);
COMMENT ON TABLE partner_portal.role_grant IS
'What each kind of database role needs: GRANT privilege ON object. A trusted_application and an operator need all of application too. Filled by the install script alone.';

CREATE TABLE partner_portal.enrolled_role (
	role_name name NOT NULL,
	as_what text NOT NULL,
	enrolled_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT enrolled_role_pkey PRIMARY KEY (role_name, as_what),
	CONSTRAINT enrolled_role_as_what CHECK (as_what IN ('application', 'trusted_application', 'reporting', 'operator'))
);
COMMENT ON TABLE partner_portal.enrolled_role IS
'Database roles that enroll_role() gave privileges to, so that an upgrade can grant them what is new.';
SELECT pg_catalog.pg_extension_config_dump('partner_portal.enrolled_role', '');

-- Empty for ever: its relcache invalidation tells every backend that who may do what has changed (permission.c).
CREATE TABLE partner_portal.acl_signal ();
COMMENT ON TABLE partner_portal.acl_signal IS 'Always empty; changes of permissions are announced through it.';
