-- identity.sql: accounts, and who is asking.

CREATE TABLE partner_portal.account (
	account_id bigint GENERATED ALWAYS AS IDENTITY,
	email text NOT NULL,
	name text,
	locale text NOT NULL DEFAULT 'en',
	is_operator boolean NOT NULL DEFAULT false,
	created_at timestamptz NOT NULL DEFAULT now(),
	disabled_at timestamptz,
	erased_at timestamptz,
	tokens_not_before timestamptz,
	CONSTRAINT account_pkey PRIMARY KEY (account_id),
	CONSTRAINT account_email CHECK (octet_length(email) <= 320 AND email ~ '^[A-Za-z0-9.!#$%&''*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$'),
	CONSTRAINT account_name CHECK (length(name) BETWEEN 1 AND 200),
	CONSTRAINT account_locale CHECK (locale ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$')
);
CREATE UNIQUE INDEX account_email_key ON partner_portal.account (lower(email COLLATE "C"));
COMMENT ON TABLE partner_portal.account IS 'A person who signs in, known by e-mail address, unique without regard to case.';
COMMENT ON COLUMN partner_portal.account.tokens_not_before IS 'Tokens issued before are refused (revoke_tokens).';

CREATE TABLE partner_portal.account_identity (
	issuer text NOT NULL,
	subject text NOT NULL,
	account_id bigint NOT NULL,
	CONSTRAINT account_identity_pkey PRIMARY KEY (issuer, subject),
	CONSTRAINT account_identity_account FOREIGN KEY (account_id) REFERENCES partner_portal.account
);
CREATE INDEX account_identity_account_id ON partner_portal.account_identity (account_id);
COMMENT ON TABLE partner_portal.account_identity IS 'Issuer and subject of login tokens that stand for an account (link_identity).';

CREATE TABLE partner_portal.role_account (
	role_name name NOT NULL,
	account_id bigint NOT NULL,
	CONSTRAINT role_account_pkey PRIMARY KEY (role_name),
	CONSTRAINT role_account_account FOREIGN KEY (account_id) REFERENCES partner_portal.account
);
COMMENT ON TABLE partner_portal.role_account IS 'Account that login_role() signs in for a database role (map_role).';

CREATE TABLE partner_portal.revoked_token (
	jti text NOT NULL,
	until timestamptz NOT NULL,
	CONSTRAINT revoked_token_pkey PRIMARY KEY (jti)
);
COMMENT ON TABLE partner_portal.revoked_token IS 'Tokens refused before their time (revoke_token); a row is of no use after until.';

ALTER TABLE partner_portal.account ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.account_identity ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.role_account ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.revoked_token ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

SELECT pg_catalog.pg_extension_config_dump('partner_portal.account', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.account_account_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.account_identity', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.role_account', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.revoked_token', '');

CREATE FUNCTION partner_portal.login_as(account_id bigint) RETURNS bigint
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_login_as';
COMMENT ON FUNCTION partner_portal.login_as(bigint) IS
'Makes an account the identity of the current transaction without a token; for trusted application servers. Returns account_id. P0002 no such account, 28000 it is disabled, 25001 the transaction has a cursor WITH HOLD.';
REVOKE ALL ON FUNCTION partner_portal.login_as(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.login_role() RETURNS bigint
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_login_role';
COMMENT ON FUNCTION partner_portal.login_role() IS
'Makes the account that session_user is mapped to (map_role) the identity of the current transaction, and returns it. 28000 not mapped, or the account is disabled.';
REVOKE ALL ON FUNCTION partner_portal.login_role() FROM PUBLIC;

CREATE FUNCTION partner_portal.act_in(workspace_id bigint) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_act_in';
COMMENT ON FUNCTION partner_portal.act_in(bigint) IS
'Chooses where one acts, among the memberships that one has accepted. 42501 nobody signed in, P0002 not a membership.';
REVOKE ALL ON FUNCTION partner_portal.act_in(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.logout() RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_logout';
COMMENT ON FUNCTION partner_portal.logout() IS 'Ends the identity of the current transaction.';
REVOKE ALL ON FUNCTION partner_portal.logout() FROM PUBLIC;

CREATE FUNCTION partner_portal.current_account_id() RETURNS bigint
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_current_account_id';
COMMENT ON FUNCTION partner_portal.current_account_id() IS 'Account that is signed in; NULL is nobody, or a token that has expired.';
REVOKE ALL ON FUNCTION partner_portal.current_account_id() FROM PUBLIC;

CREATE FUNCTION partner_portal.current_workspace_id() RETURNS bigint
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_current_workspace_id';
COMMENT ON FUNCTION partner_portal.current_workspace_id() IS 'Workspace the identity acts in: the one chosen, or its only one; else NULL.';
REVOKE ALL ON FUNCTION partner_portal.current_workspace_id() FROM PUBLIC;

CREATE FUNCTION partner_portal.current_partner_id() RETURNS bigint
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_current_partner_id';
COMMENT ON FUNCTION partner_portal.current_partner_id() IS 'The acting workspace if it is a partner; else NULL.';
REVOKE ALL ON FUNCTION partner_portal.current_partner_id() FROM PUBLIC;

CREATE FUNCTION partner_portal.current_portal_id() RETURNS bigint
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_current_portal_id';
COMMENT ON FUNCTION partner_portal.current_portal_id() IS 'Portal the identity acts in; else NULL.';
REVOKE ALL ON FUNCTION partner_portal.current_portal_id() FROM PUBLIC;

CREATE POLICY own ON partner_portal.account FOR SELECT
	USING (account_id = (SELECT partner_portal.current_account_id()));

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.login_role()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.act_in(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.logout()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.current_account_id()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.current_workspace_id()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.current_partner_id()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.current_portal_id()'),
	('application', 'SELECT (account_id, email, name, locale, is_operator, created_at, disabled_at)', 'TABLE partner_portal.account'),
	('trusted_application', 'EXECUTE', 'FUNCTION partner_portal.login_as(bigint)');
