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
	former_emails jsonb NOT NULL DEFAULT '{}',
	CONSTRAINT account_pkey PRIMARY KEY (account_id),
	CONSTRAINT account_email CHECK (octet_length(email) <= 320 AND email ~ '^[A-Za-z0-9.!#$%&''*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$'),
	CONSTRAINT account_name CHECK (length(name) BETWEEN 1 AND 200),
	CONSTRAINT account_locale CHECK (locale ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$')
);
CREATE UNIQUE INDEX account_email_key ON partner_portal.account (lower(email COLLATE "C"));
CREATE TRIGGER check_names BEFORE INSERT OR UPDATE ON partner_portal.account
	FOR EACH ROW EXECUTE FUNCTION partner_portal.check_names('name');
COMMENT ON TABLE partner_portal.account IS 'A person who signs in, known by e-mail address, unique without regard to case.';
COMMENT ON COLUMN partner_portal.account.tokens_not_before IS 'Tokens issued before are refused (revoke_tokens).';
COMMENT ON COLUMN partner_portal.account.former_emails IS 'Addresses it had before, in lower case, each with the instant until which: by them erase_account() finds what was written there. Noted by change_email(); applications have no privilege on it.';

CREATE TABLE partner_portal.account_identity (
	issuer text NOT NULL,
	subject text NOT NULL,
	account_id bigint NOT NULL,
	CONSTRAINT account_identity_pkey PRIMARY KEY (issuer, subject),
	CONSTRAINT account_identity_issuer CHECK (octet_length(issuer) BETWEEN 1 AND 1000),
	CONSTRAINT account_identity_subject CHECK (octet_length(subject) BETWEEN 1 AND 1000),
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
	CONSTRAINT revoked_token_pkey PRIMARY KEY (jti),
	CONSTRAINT revoked_token_jti CHECK (octet_length(jti) BETWEEN 1 AND 1000)
);
CREATE INDEX revoked_token_until ON partner_portal.revoked_token (until);
COMMENT ON TABLE partner_portal.revoked_token IS 'Tokens refused before their time (revoke_token); a row is of no use after until, and tick() deletes it a day later.';

ALTER TABLE partner_portal.account ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.account_identity ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.role_account ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.revoked_token ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

SELECT pg_catalog.pg_extension_config_dump('partner_portal.account', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.account_account_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.account_identity', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.role_account', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.revoked_token', '');

CREATE FUNCTION partner_portal.login(token text) RETURNS bigint
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_login';
COMMENT ON FUNCTION partner_portal.login(text) IS
'Verifies a JSON Web Token and makes its account the identity of the current transaction; returns the account id and writes nothing. Claims: exp is required; nbf, iat, aud and iss are honoured with partner_portal.clock_skew; jti may have been revoked; workspace or portal picks where it acts, among the accepted memberships and the portals one is a user of; not both. The account is the one linked to iss and sub (link_identity), else what partner_portal.subject_claim says. 28000, always the same text, for every bad token and every account that is absent, disabled or erased; 25001 the transaction has a cursor WITH HOLD. Pass the token as a parameter: text of statements is logged and shown in pg_stat_activity.';
REVOKE ALL ON FUNCTION partner_portal.login(text) FROM PUBLIC;

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

CREATE FUNCTION partner_portal.act_in_portal(portal_id bigint) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_act_in_portal';
COMMENT ON FUNCTION partner_portal.act_in_portal(bigint) IS
'Chooses a portal to act in, among those one is a user of; one acts in no workspace then, until act_in(). 42501 nobody signed in, P0002 not one of one''s portals.';
REVOKE ALL ON FUNCTION partner_portal.act_in_portal(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.logout() RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_logout';
COMMENT ON FUNCTION partner_portal.logout() IS 'Ends the identity of the current transaction.';
REVOKE ALL ON FUNCTION partner_portal.logout() FROM PUBLIC;

CREATE FUNCTION partner_portal.map_role(role regrole, account_id bigint) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	mapped name;
	erased boolean;
BEGIN
	IF NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator may map a role to an account';
	END IF;
	IF role IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'role must not be null';
	END IF;
	SELECT r.rolname INTO mapped FROM pg_roles r WHERE r.oid = role;
	IF mapped IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = 'role does not exist';
	END IF;
	IF map_role.account_id IS NULL THEN
		DELETE FROM partner_portal.role_account m WHERE m.role_name = mapped;
		RETURN;
	END IF;
	SELECT a.erased_at IS NOT NULL INTO erased FROM partner_portal.account a WHERE a.account_id = map_role.account_id FOR KEY SHARE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('account %s does not exist', map_role.account_id);
	ELSIF erased THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('account %s is erased', map_role.account_id);
	END IF;
	INSERT INTO partner_portal.role_account AS m (role_name, account_id) VALUES (mapped, map_role.account_id)
	ON CONFLICT ON CONSTRAINT role_account_pkey DO UPDATE SET account_id = excluded.account_id;
END
$$;
COMMENT ON FUNCTION partner_portal.map_role(regrole, bigint) IS
'Maps a database role to the account that login_role() signs in for it, in place of an earlier one; NULL for account_id ends it. The role is remembered by name. Operator only (42501); P0002 no such account; PP005 it is erased.';
REVOKE ALL ON FUNCTION partner_portal.map_role(regrole, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.link_identity(account_id bigint, issuer text, subject text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	linked bigint;
	erased boolean;
BEGIN
	IF NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator may link an identity';
	END IF;
	IF link_identity.account_id IS NULL OR link_identity.issuer IS NULL OR link_identity.subject IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'account_id, issuer and subject must not be null';
	END IF;
	IF octet_length(link_identity.issuer) NOT BETWEEN 1 AND 1000 OR octet_length(link_identity.subject) NOT BETWEEN 1 AND 1000 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'issuer and subject must have 1 to 1000 bytes';
	END IF;
	-- what is linked to an erased account would tell about the person again
	SELECT a.erased_at IS NOT NULL INTO erased FROM partner_portal.account a WHERE a.account_id = link_identity.account_id FOR KEY SHARE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('account %s does not exist', link_identity.account_id);
	ELSIF erased THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('account %s is erased', link_identity.account_id);
	END IF;
	INSERT INTO partner_portal.account_identity AS i (issuer, subject, account_id)
	VALUES (link_identity.issuer, link_identity.subject, link_identity.account_id)
	ON CONFLICT ON CONSTRAINT account_identity_pkey DO UPDATE SET account_id = i.account_id
	RETURNING i.account_id INTO linked;
	IF linked <> link_identity.account_id THEN
		RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = 'this issuer and subject are linked to another account',
			DETAIL = format('They are linked to account %s.', linked), HINT = 'End that link first with partner_portal.unlink_identity().';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.link_identity(bigint, text, text) IS
'Lets tokens with this iss and sub sign an account in, whatever partner_portal.subject_claim says. Repeating it changes nothing. Operator only (42501); P0002 no such account; PP005 it is erased; 23505 linked to another account; 22023 an empty text or one of more than 1000 bytes.';
REVOKE ALL ON FUNCTION partner_portal.link_identity(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.unlink_identity(issuer text, subject text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator may unlink an identity';
	END IF;
	DELETE FROM partner_portal.account_identity i WHERE i.issuer = unlink_identity.issuer AND i.subject = unlink_identity.subject;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = 'this issuer and subject are not linked to an account';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.unlink_identity(text, text) IS 'Ends a link made by link_identity(). Operator only (42501); P0002 no such link.';
REVOKE ALL ON FUNCTION partner_portal.unlink_identity(text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.revoke_token(jti text, until timestamptz) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator may revoke a token';
	END IF;
	IF revoke_token.jti IS NULL OR revoke_token.until IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'jti and until must not be null';
	END IF;
	IF octet_length(revoke_token.jti) NOT BETWEEN 1 AND 1000 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'jti must have 1 to 1000 bytes';
	END IF;
	IF revoke_token.until <= clock_timestamp() THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'until must be in the future',
			HINT = 'Give the expiry of the token, or infinity.';
	END IF;
	INSERT INTO partner_portal.revoked_token AS t (jti, until) VALUES (revoke_token.jti, revoke_token.until)
	ON CONFLICT ON CONSTRAINT revoked_token_pkey DO UPDATE SET until = greatest(t.until, excluded.until);
END
$$;
COMMENT ON FUNCTION partner_portal.revoke_token(text, timestamptz) IS
'Refuses the token with this jti until an instant, best its exp and the clock skew, or infinity; never shortens an earlier revocation. Holds from the next login() on. Operator only (42501); 22023 an instant in the past, or an empty jti or one of more than 1000 bytes.';
REVOKE ALL ON FUNCTION partner_portal.revoke_token(text, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.revoke_tokens(account_id bigint, issued_before timestamptz DEFAULT now()) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator may revoke tokens';
	END IF;
	IF revoke_tokens.account_id IS NULL OR revoke_tokens.issued_before IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'account_id and issued_before must not be null';
	END IF;
	IF NOT isfinite(revoke_tokens.issued_before) OR revoke_tokens.issued_before > clock_timestamp() + interval '10 minutes' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'issued_before must not be in the future';
	END IF;
	UPDATE partner_portal.account a SET tokens_not_before = greatest(a.tokens_not_before, revoke_tokens.issued_before)
	WHERE a.account_id = revoke_tokens.account_id;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('account %s does not exist', revoke_tokens.account_id);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.revoke_tokens(bigint, timestamptz) IS
'Refuses all tokens of an account whose iat is before an instant, or absent; iat counts whole seconds, so one issued in the same second is refused too. Never takes an earlier revocation back. Operator only (42501); P0002 no such account; 22023 an instant more than ten minutes ahead.';
REVOKE ALL ON FUNCTION partner_portal.revoke_tokens(bigint, timestamptz) FROM PUBLIC;

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
COMMENT ON FUNCTION partner_portal.current_portal_id() IS 'Portal the identity acts in while it is a user of it; else NULL.';
REVOKE ALL ON FUNCTION partner_portal.current_portal_id() FROM PUBLIC;

CREATE POLICY own ON partner_portal.account FOR SELECT
	USING (account_id = (SELECT partner_portal.current_account_id()));

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.login(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.login_role()'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.map_role(regrole, bigint)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.link_identity(bigint, text, text)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.unlink_identity(text, text)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.revoke_token(text, timestamptz)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.revoke_tokens(bigint, timestamptz)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.act_in(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.act_in_portal(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.logout()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.current_account_id()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.current_workspace_id()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.current_partner_id()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.current_portal_id()'),
	('application', 'SELECT (account_id, email, name, locale, is_operator, created_at, disabled_at)', 'TABLE partner_portal.account'),
	('trusted_application', 'EXECUTE', 'FUNCTION partner_portal.login_as(bigint)');
