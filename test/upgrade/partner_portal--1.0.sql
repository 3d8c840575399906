-- schema.sql: the schema, and who may be granted what.
-- Every part after this one adds its own lines to role_grant; enroll_role() (enroll.sql) issues them.

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
-- input.sql: how functions check what people give them. Internal: nobody is granted these.

CREATE FUNCTION partner_portal.checked_text(argument text, value text, max_length integer) RETURNS text
	LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_checked_text';
COMMENT ON FUNCTION partner_portal.checked_text(text, text, integer) IS
'Returns a one-line text as given. 22004 NULL, 22001 more than max_length characters, 22023 blank or with control characters.';
REVOKE ALL ON FUNCTION partner_portal.checked_text(text, text, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.has_controls(value text) RETURNS boolean
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN value ~ '[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]';
COMMENT ON FUNCTION partner_portal.has_controls(text) IS 'Whether a text of several lines has control characters other than tabs and line ends.';
REVOKE ALL ON FUNCTION partner_portal.has_controls(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.checked_email(email text) RETURNS text
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.checked_text('e-mail address', email, 320);
	IF octet_length(email) > 320 OR email !~ '^[A-Za-z0-9.!#$%&''*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'not an e-mail address',
			HINT = 'An address looks like name@example.com; internationalised domains are written in ASCII.';
	END IF;
	RETURN email;
END
$$;
COMMENT ON FUNCTION partner_portal.checked_email(text) IS
'Returns an e-mail address as given. The same rule as the constraint account_email; 22004, 22001, 22023.';
REVOKE ALL ON FUNCTION partner_portal.checked_email(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.checked_date(argument text, value date) RETURNS date
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF value IS NULL OR value NOT BETWEEN date '1900-01-01' AND date '2999-12-31' THEN
		RAISE EXCEPTION USING ERRCODE = CASE WHEN value IS NULL THEN 'null_value_not_allowed' ELSE 'invalid_parameter_value' END,
			MESSAGE = format('%s must be a date of the years 1900 to 2999', argument);
	END IF;
	RETURN value;
END
$$;
COMMENT ON FUNCTION partner_portal.checked_date(text, date) IS 'Returns a date of the years 1900 to 2999. 22004 NULL, 22023 any other.';
REVOKE ALL ON FUNCTION partner_portal.checked_date(text, date) FROM PUBLIC;

CREATE FUNCTION partner_portal.checked_slug(slug text) RETURNS text
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.checked_text('slug', slug, 63);
	IF slug !~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('slug "%s" is not valid', slug),
			HINT = 'A slug is a label of a host name: a to z, 0 to 9 and hyphens, with a letter or digit at both ends.';
	END IF;
	RETURN slug;
END
$$;
COMMENT ON FUNCTION partner_portal.checked_slug(text) IS 'Returns a slug as given. 22004 NULL, 22001 longer than 63, 22023 not a host name''s label.';
REVOKE ALL ON FUNCTION partner_portal.checked_slug(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.slug_of(company_name text) RETURNS text
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_slug_of';
COMMENT ON FUNCTION partner_portal.slug_of(text) IS
'Makes a slug of a name: letters without their accents, everything else a hyphen, at most 50 characters; "workspace" if nothing is left.';
REVOKE ALL ON FUNCTION partner_portal.slug_of(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.new_secret() RETURNS text
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'partner_portal_new_secret';
COMMENT ON FUNCTION partner_portal.new_secret() IS 'Returns 192 random bits as 32 characters that may stand in a URL.';
REVOKE ALL ON FUNCTION partner_portal.new_secret() FROM PUBLIC;

CREATE FUNCTION partner_portal.new_token() RETURNS text
	LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'partner_portal_new_token';
COMMENT ON FUNCTION partner_portal.new_token() IS 'Returns 256 random bits as 43 characters that may stand in a URL.';
REVOKE ALL ON FUNCTION partner_portal.new_token() FROM PUBLIC;

CREATE FUNCTION partner_portal.calling_role() RETURNS regrole
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'partner_portal_calling_role';
COMMENT ON FUNCTION partner_portal.calling_role() IS 'Database role that called, also inside SECURITY DEFINER functions.';
REVOKE ALL ON FUNCTION partner_portal.calling_role() FROM PUBLIC;

CREATE FUNCTION partner_portal.is_trusted() RETURNS boolean
	LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
	RETURN has_function_privilege(partner_portal.calling_role()::oid, 'partner_portal.login_as(bigint)', 'EXECUTE');
COMMENT ON FUNCTION partner_portal.is_trusted() IS
'Whether the calling role vouches for people and their addresses: who may sign in anyone with login_as() does.';
REVOKE ALL ON FUNCTION partner_portal.is_trusted() FROM PUBLIC;

CREATE FUNCTION partner_portal.note_refusal(sqlstate text, what text, workspace_id bigint) RETURNS void
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'partner_portal_note_refusal';
COMMENT ON FUNCTION partner_portal.note_refusal(text, text, bigint) IS
'Writes one line about a refusal to the server log (partner_portal.log_refusals); the caller raises the error next.';
REVOKE ALL ON FUNCTION partner_portal.note_refusal(text, text, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.require_operator() RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT partner_portal.is_operator() THEN
		PERFORM partner_portal.note_refusal('42501', 'operate', NULL);
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator of the platform may do this';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.require_operator() IS 'Returns when the operator asks; else 42501.';
REVOKE ALL ON FUNCTION partner_portal.require_operator() FROM PUBLIC;
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
	IF NOT EXISTS (SELECT FROM partner_portal.account a WHERE a.account_id = map_role.account_id) THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('account %s does not exist', map_role.account_id);
	END IF;
	INSERT INTO partner_portal.role_account AS m (role_name, account_id) VALUES (mapped, map_role.account_id)
	ON CONFLICT ON CONSTRAINT role_account_pkey DO UPDATE SET account_id = excluded.account_id;
END
$$;
COMMENT ON FUNCTION partner_portal.map_role(regrole, bigint) IS
'Maps a database role to the account that login_role() signs in for it, in place of an earlier one; NULL for account_id ends it. The role is remembered by name. Operator only (42501); P0002 no such account.';
REVOKE ALL ON FUNCTION partner_portal.map_role(regrole, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.link_identity(account_id bigint, issuer text, subject text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	linked bigint;
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
	IF NOT EXISTS (SELECT FROM partner_portal.account a WHERE a.account_id = link_identity.account_id) THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('account %s does not exist', link_identity.account_id);
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
'Lets tokens with this iss and sub sign an account in, whatever partner_portal.subject_claim says. Repeating it changes nothing. Operator only (42501); P0002 no such account; 23505 linked to another account; 22023 an empty text or one of more than 1000 bytes.';
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
-- permission.sql: the one gate, and what policies ask.

CREATE FUNCTION partner_portal.is_operator() RETURNS boolean
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_is_operator';
COMMENT ON FUNCTION partner_portal.is_operator() IS 'Whether who is asking runs the platform: an operator''s account, or a superuser with nobody signed in.';
REVOKE ALL ON FUNCTION partner_portal.is_operator() FROM PUBLIC;

CREATE FUNCTION partner_portal.authorize(permission text, workspace_id bigint) RETURNS void
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'partner_portal_authorize';
COMMENT ON FUNCTION partner_portal.authorize(text, bigint) IS
'The one gate: returns when the identity has the permission on the workspace. 42501 nobody signed in, or visible without the permission; P0002 not visible or absent; 22023 no such permission; 22004 NULL.
"bill" and "manage_portals" on a partner''s own workspace are about what the partner issues and runs itself.';
REVOKE ALL ON FUNCTION partner_portal.authorize(text, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.may(permission text, workspace_id bigint) RETURNS boolean
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_may';
COMMENT ON FUNCTION partner_portal.may(text, bigint) IS
'Whether authorize() would let the identity through; false for nobody and for what is not there. 22023 no such permission. Not for policies.';
REVOKE ALL ON FUNCTION partner_portal.may(text, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.acting_role() RETURNS text
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_acting_role';
COMMENT ON FUNCTION partner_portal.acting_role() IS 'Role of the identity in the acting workspace: owner, administrator, member, guest; NULL when it acts nowhere.';
REVOKE ALL ON FUNCTION partner_portal.acting_role() FROM PUBLIC;

CREATE FUNCTION partner_portal.looks_after(workspace_id bigint) RETURNS boolean
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_looks_after';
COMMENT ON FUNCTION partner_portal.looks_after(bigint) IS 'Whether one acts as owner or administrator of the workspace''s partner.';
REVOKE ALL ON FUNCTION partner_portal.looks_after(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.own_workspace(permission text) RETURNS bigint
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_own_workspace';
COMMENT ON FUNCTION partner_portal.own_workspace(text) IS 'The acting workspace if one''s role there has the permission; else NULL. For policies.';
REVOKE ALL ON FUNCTION partner_portal.own_workspace(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.granted_workspaces(permission text) RETURNS bigint[]
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_granted_workspaces';
COMMENT ON FUNCTION partner_portal.granted_workspaces(text) IS 'Workspaces on which one has the permission as a partner''s staff or by a complete grant. For policies.';
REVOKE ALL ON FUNCTION partner_portal.granted_workspaces(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.lowest_partner_key() RETURNS bigint
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_lowest_partner_key';
COMMENT ON FUNCTION partner_portal.lowest_partner_key() IS
'With highest_partner_key(), the range of partner_key that is the identity''s to look after: its own for an owner or administrator of a partner, every one for the operator, NULL (none) for others. For policies.';
REVOKE ALL ON FUNCTION partner_portal.lowest_partner_key() FROM PUBLIC;

CREATE FUNCTION partner_portal.highest_partner_key() RETURNS bigint
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_highest_partner_key';
COMMENT ON FUNCTION partner_portal.highest_partner_key() IS 'See lowest_partner_key().';
REVOKE ALL ON FUNCTION partner_portal.highest_partner_key() FROM PUBLIC;

CREATE FUNCTION partner_portal.restoring_session() RETURNS boolean
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'partner_portal_restoring_session';
COMMENT ON FUNCTION partner_portal.restoring_session() IS
'Whether this session loads a dump: partner_portal.restoring, or row_security and check_function_bodies off as pg_dump sets them, by a role that bypasses row security.';
REVOKE ALL ON FUNCTION partner_portal.restoring_session() FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.is_operator()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.authorize(text, bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.may(text, bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.acting_role()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.looks_after(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.own_workspace(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.granted_workspaces(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.lowest_partner_key()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.highest_partner_key()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.restoring_session()');
-- workspace.sql: partners and workspaces (tenants), and their counters.

CREATE TABLE partner_portal.partner (
	partner_id bigint NOT NULL,
	registration_code text NOT NULL,
	promoted_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT partner_pkey PRIMARY KEY (partner_id),
	CONSTRAINT partner_registration_code_key UNIQUE (registration_code)
);
COMMENT ON TABLE partner_portal.partner IS
'What a partner has beyond its workspace. partner_id is the workspace_id of the partner''s own workspace; no foreign key, so that tables can be restored in order.';
COMMENT ON COLUMN partner_portal.partner.registration_code IS 'Secret part of the registration link; rotate_registration_code() makes a new one.';

CREATE TABLE partner_portal.workspace (
	workspace_id bigint GENERATED ALWAYS AS IDENTITY,
	kind text NOT NULL DEFAULT 'business',
	partner_id bigint,
	partner_key bigint NOT NULL GENERATED ALWAYS AS (coalesce(partner_id, 0)) STORED,
	company_name text NOT NULL,
	slug text NOT NULL,
	address text,
	tax_id text,
	created_at timestamptz NOT NULL DEFAULT now(),
	deleted_at timestamptz,
	suspended_at timestamptz,
	suspended_reason text,
	sso_enabled boolean NOT NULL DEFAULT false,
	restrict_keys boolean NOT NULL DEFAULT false,
	key_limit integer,
	limit_mode text NOT NULL DEFAULT 'hard',
	notify_new_keys boolean NOT NULL DEFAULT false,
	notify_billing boolean NOT NULL DEFAULT false,
	time_zone text NOT NULL DEFAULT 'UTC',
	anchor_date date NOT NULL,
	billing_step text NOT NULL DEFAULT 'month',
	billing_from timestamptz NOT NULL DEFAULT now(),
	auto_finalize boolean NOT NULL DEFAULT true,
	invoice_visibility text NOT NULL DEFAULT 'payer',
	purged_at timestamptz,
	CONSTRAINT workspace_pkey PRIMARY KEY (workspace_id),
	CONSTRAINT workspace_partner_key UNIQUE (workspace_id, partner_key),
	CONSTRAINT workspace_slug_key UNIQUE (slug),
	CONSTRAINT workspace_partner FOREIGN KEY (partner_id) REFERENCES partner_portal.partner,
	CONSTRAINT workspace_kind CHECK (kind IN ('business', 'partner')),
	CONSTRAINT workspace_one_level CHECK (kind = 'business' OR partner_id IS NULL),
	CONSTRAINT workspace_company_name CHECK (length(company_name) BETWEEN 1 AND 200 AND company_name ~ '\S'),
	CONSTRAINT workspace_slug CHECK (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
	CONSTRAINT workspace_address CHECK (length(address) <= 1000),
	CONSTRAINT workspace_tax_id CHECK (length(tax_id) <= 100),
	CONSTRAINT workspace_suspended_reason CHECK (length(suspended_reason) <= 1000),
	CONSTRAINT workspace_key_limit CHECK (key_limit >= 0),
	CONSTRAINT workspace_limit_mode CHECK (limit_mode IN ('hard', 'soft')),
	CONSTRAINT workspace_billing_step CHECK (billing_step IN ('month', 'quarter', 'half_year', 'year')),
	CONSTRAINT workspace_anchor_date CHECK (anchor_date BETWEEN date '1900-01-01' AND date '2999-12-31'),
	CONSTRAINT workspace_billing_from CHECK (billing_from BETWEEN timestamptz '1900-01-01 00:00+00' AND timestamptz '3000-01-01 00:00+00'),
	CONSTRAINT workspace_invoice_visibility CHECK (invoice_visibility IN ('payer', 'both'))
);
CREATE INDEX workspace_partner_key_idx ON partner_portal.workspace (partner_key, workspace_id);
COMMENT ON TABLE partner_portal.workspace IS 'A company''s tenant: a customer (partner_id set), a direct one, or a partner''s own (kind partner). Settings are changed by plain UPDATE by those who may.';
COMMENT ON COLUMN partner_portal.workspace.partner_id IS 'Partner it is registered under; NULL is a direct workspace.';
COMMENT ON COLUMN partner_portal.workspace.partner_key IS 'partner_id, 0 for none: what tenant tables refer to, so that they follow a transfer.';
COMMENT ON COLUMN partner_portal.workspace.restrict_keys IS 'Whether key_limit is in force.';
COMMENT ON COLUMN partner_portal.workspace.key_limit IS 'Most keys that may be active at once; NULL is no limit, 0 none allowed.';
COMMENT ON COLUMN partner_portal.workspace.limit_mode IS 'hard refuses what exceeds the limit (PP001); soft lets it pass and raises the alert.';
COMMENT ON COLUMN partner_portal.workspace.anchor_date IS 'Local date that billing periods are counted from, stored as given; days 29 to 31 clamp to a month''s last day.';
COMMENT ON COLUMN partner_portal.workspace.purged_at IS 'When purge_workspace() erased what it said about people; it can''t be restored any more.';
COMMENT ON COLUMN partner_portal.workspace.billing_from IS 'Periods before this instant are measured, never invoiced.';

-- Which columns of its own or its customer's row one may change.
CREATE FUNCTION partner_portal.guard_workspace() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_guard_workspace';
COMMENT ON FUNCTION partner_portal.guard_workspace() IS
'Trigger: a plain UPDATE needs set_limit for restrict_keys, key_limit and limit_mode, manage_settings for name, slug, address, SSO and notifications, manage_billing for zone, anchor, step, tax id and invoice_visibility, bill for billing_from and auto_finalize; all else is the operator''s and our functions''. 42501 names the column; PP005 the workspace is deleted; 22023 control characters.';
REVOKE ALL ON FUNCTION partner_portal.guard_workspace() FROM PUBLIC;
CREATE TRIGGER guard_workspace BEFORE INSERT OR UPDATE ON partner_portal.workspace
	FOR EACH ROW EXECUTE FUNCTION partner_portal.guard_workspace();

-- Derived, not dumped: restoring the keys counts them again; repair() rebuilds it.
CREATE TABLE partner_portal.workspace_usage (
	workspace_id bigint NOT NULL,
	partner_key bigint NOT NULL,
	total_keys integer NOT NULL DEFAULT 0,
	active_keys integer NOT NULL DEFAULT 0,
	total_smartphones integer NOT NULL DEFAULT 0,
	active_smartphones integer NOT NULL DEFAULT 0,
	total_contactless_cards integer NOT NULL DEFAULT 0,
	active_contactless_cards integer NOT NULL DEFAULT 0,
	owners integer NOT NULL DEFAULT 0,
	key_limit integer,
	limit_mode text NOT NULL DEFAULT 'hard',
	blocked text,
	last_disabled_at timestamptz NOT NULL DEFAULT '-infinity',
	closed_until timestamptz NOT NULL DEFAULT '-infinity',
	alerted_until timestamptz NOT NULL DEFAULT '-infinity',
	alerted_percent integer NOT NULL DEFAULT 0,
	log_id bigint NOT NULL DEFAULT 0,
	log_at timestamptz NOT NULL DEFAULT '-infinity',
	log_hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
	CONSTRAINT workspace_usage_pkey PRIMARY KEY (workspace_id),
	CONSTRAINT workspace_usage_workspace FOREIGN KEY (workspace_id, partner_key)
		REFERENCES partner_portal.workspace (workspace_id, partner_key) ON UPDATE CASCADE ON DELETE CASCADE
) WITH (fillfactor = 50);
CREATE INDEX workspace_usage_partner_key_idx ON partner_portal.workspace_usage (partner_key);
COMMENT ON TABLE partner_portal.workspace_usage IS
'Counters of a workspace and its limit in force. Written by triggers only, under the row''s lock, which is what makes the limit exact.';
COMMENT ON COLUMN partner_portal.workspace_usage.owners IS 'Accepted owners; never falls from one to none (PP004).';
COMMENT ON COLUMN partner_portal.workspace_usage.key_limit IS 'The limit in force: workspace.key_limit while restrict_keys is on, else NULL.';
COMMENT ON COLUMN partner_portal.workspace_usage.blocked IS 'Why nothing may be activated: suspended or deleted; NULL is nothing in the way.';
COMMENT ON COLUMN partner_portal.workspace_usage.last_disabled_at IS 'Latest end of an active stretch; no activation is stamped before it, so that facts never show more active at once than were.';
COMMENT ON COLUMN partner_portal.workspace_usage.closed_until IS 'End of the last closed billing period; nothing is stamped before it.';
COMMENT ON COLUMN partner_portal.workspace_usage.alerted_until IS 'End of the period for which alerted_percent is the highest alert raised.';

COMMENT ON COLUMN partner_portal.workspace_usage.log_id IS 'Head of the activity log''s chain: number of the workspace''s last line, 0 before the first.';
COMMENT ON COLUMN partner_portal.workspace_usage.log_at IS 'Its time; no line is stamped before it.';
COMMENT ON COLUMN partner_portal.workspace_usage.log_hash IS 'Its hash, zeros before the first.';

ALTER TABLE partner_portal.partner ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.workspace ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.workspace_usage ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.partner AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY own ON partner_portal.partner FOR SELECT
	USING (partner_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

CREATE POLICY signed_in ON partner_portal.workspace AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.workspace FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[]));
-- Which columns one may change is the guard trigger's matter; this is where one may change anything at all.
CREATE POLICY change ON partner_portal.workspace FOR UPDATE
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_settings'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_settings'))::bigint[]))
	WITH CHECK (workspace_id = (SELECT partner_portal.own_workspace('manage_settings'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_settings'))::bigint[]));

CREATE POLICY signed_in ON partner_portal.workspace_usage AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.workspace_usage FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[]));

SELECT pg_catalog.pg_extension_config_dump('partner_portal.partner', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.workspace', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.workspace_workspace_id_seq', '');

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.workspace'),
	('application', 'SELECT', 'TABLE partner_portal.workspace_usage'),
	('application', 'SELECT', 'TABLE partner_portal.partner'),
	('application', 'UPDATE (company_name, slug, address, tax_id, sso_enabled, restrict_keys, key_limit, limit_mode, notify_new_keys, notify_billing, time_zone, anchor_date, billing_step, billing_from, auto_finalize, invoice_visibility)', 'TABLE partner_portal.workspace');
-- member.sql: who belongs to a workspace, and a partner's staff for one customer.

CREATE TABLE partner_portal.member (
	workspace_id bigint NOT NULL,
	account_id bigint NOT NULL,
	partner_key bigint NOT NULL,
	role text NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	accepted_at timestamptz,
	grant_id bigint,
	ends_at timestamptz,
	CONSTRAINT member_pkey PRIMARY KEY (workspace_id, account_id),
	CONSTRAINT member_workspace FOREIGN KEY (workspace_id, partner_key)
		REFERENCES partner_portal.workspace (workspace_id, partner_key) ON UPDATE CASCADE,
	CONSTRAINT member_account FOREIGN KEY (account_id) REFERENCES partner_portal.account,
	CONSTRAINT member_role CHECK (role IN ('owner', 'administrator', 'member', 'guest'))
);
CREATE INDEX member_account_id ON partner_portal.member (account_id, workspace_id);
CREATE INDEX member_partner_key_idx ON partner_portal.member (partner_key);
COMMENT ON TABLE partner_portal.member IS 'An account in a workspace, with a role. Changed by functions only.';
COMMENT ON COLUMN partner_portal.member.accepted_at IS 'NULL until the account has accepted a membership that somebody else made for it; it does not count before.';

COMMENT ON COLUMN partner_portal.member.grant_id IS 'Access grant that the membership ends with: that of a person of the partner who was a member or guest before.';
COMMENT ON COLUMN partner_portal.member.ends_at IS 'It does not count from then on: the expiry of that grant.';

CREATE TABLE partner_portal.staff (
	workspace_id bigint NOT NULL,
	account_id bigint NOT NULL,
	partner_key bigint NOT NULL,
	role text NOT NULL,
	assigned_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT staff_pkey PRIMARY KEY (workspace_id, account_id),
	CONSTRAINT staff_workspace FOREIGN KEY (workspace_id, partner_key)
		REFERENCES partner_portal.workspace (workspace_id, partner_key),
	CONSTRAINT staff_member FOREIGN KEY (partner_key, account_id)
		REFERENCES partner_portal.member (workspace_id, account_id) ON DELETE CASCADE,
	CONSTRAINT staff_role CHECK (role IN ('account_owner', 'system_administrator'))
);
CREATE INDEX staff_account_id ON partner_portal.staff (account_id, workspace_id);
CREATE INDEX staff_partner_key_idx ON partner_portal.staff (partner_key, account_id);
COMMENT ON TABLE partner_portal.staff IS 'A partner''s member assigned to one customer; ends when the customer leaves the partner or the member its workspace.';

ALTER TABLE partner_portal.member ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.staff ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.member AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.member FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR account_id = (SELECT partner_portal.current_account_id())
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[]));

CREATE POLICY signed_in ON partner_portal.staff AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.staff FOR SELECT
	USING (account_id = (SELECT partner_portal.current_account_id())
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

SELECT pg_catalog.pg_extension_config_dump('partner_portal.member', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.staff', '');

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.member'),
	('application', 'SELECT', 'TABLE partner_portal.staff');
-- product.sql: what else a customer owns that a partner may be let near: a server, a domain, a mailbox.

CREATE TABLE partner_portal.product (
	workspace_id bigint NOT NULL,
	product_id bigint GENERATED ALWAYS AS IDENTITY,
	partner_key bigint NOT NULL DEFAULT 0,
	category text NOT NULL,
	name text NOT NULL,
	external_ref text,
	partner_access boolean NOT NULL DEFAULT false,
	created_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT product_pkey PRIMARY KEY (workspace_id, product_id),
	CONSTRAINT product_workspace FOREIGN KEY (workspace_id, partner_key)
		REFERENCES partner_portal.workspace (workspace_id, partner_key) ON UPDATE CASCADE,
	CONSTRAINT product_category CHECK (length(category) BETWEEN 1 AND 60 AND category ~ '\S' AND category !~ '[[:cntrl:]]'),
	CONSTRAINT product_name CHECK (length(name) BETWEEN 1 AND 200 AND name ~ '\S' AND name !~ '[[:cntrl:]]'),
	CONSTRAINT product_external_ref CHECK (length(external_ref) <= 500)
);
CREATE INDEX product_product_id ON partner_portal.product (product_id);
CREATE INDEX product_partner_key_idx ON partner_portal.product (partner_key, workspace_id);
COMMENT ON TABLE partner_portal.product IS
'A product of a workspace, in a category of the application''s choosing. Plain INSERT, UPDATE (category, name, external_ref, partner_access) and DELETE by those with manage_products.';
COMMENT ON COLUMN partner_portal.product.external_ref IS 'The application''s own name for it.';
COMMENT ON COLUMN partner_portal.product.partner_access IS
'Second consent: whether the partner the workspace is registered with may see it, and its system administrator manage it. Given by the workspace itself alone (42501); a transfer takes it back.';

CREATE FUNCTION partner_portal.complete_workspaces(permission text) RETURNS bigint[]
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_complete_workspaces';
COMMENT ON FUNCTION partner_portal.complete_workspaces(text) IS 'Workspaces on which one has the permission by a complete grant. For policies.';
REVOKE ALL ON FUNCTION partner_portal.complete_workspaces(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.product_workspaces(permission text) RETURNS bigint[]
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_product_workspaces';
COMMENT ON FUNCTION partner_portal.product_workspaces(text) IS
'Workspaces on some of whose products one may have the permission, as a partner''s staff or by any grant; product_ok() says on which. For policies.';
REVOKE ALL ON FUNCTION partner_portal.product_workspaces(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.limited_workspaces() RETURNS bigint[]
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_limited_workspaces';
COMMENT ON FUNCTION partner_portal.limited_workspaces() IS 'Workspaces that granted access to some products alone.';
REVOKE ALL ON FUNCTION partner_portal.limited_workspaces() FROM PUBLIC;

CREATE FUNCTION partner_portal.product_ok(permission text, workspace_id bigint, product_id bigint) RETURNS boolean
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 10 AS 'MODULE_PATHNAME', 'partner_portal_product_ok';
COMMENT ON FUNCTION partner_portal.product_ok(text, bigint, bigint) IS
'Whether one has the permission on a product of a workspace, as of the latest commit: as its own people, by a grant that covers it, or as its partner once partner_access is set. For policies.';
REVOKE ALL ON FUNCTION partner_portal.product_ok(text, bigint, bigint) FROM PUBLIC;

ALTER TABLE partner_portal.product ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY signed_in ON partner_portal.product AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.product FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR workspace_id = ANY ((SELECT partner_portal.complete_workspaces('read'))::bigint[])
		OR (SELECT partner_portal.is_operator())
		OR (partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
			AND partner_portal.product_ok('read', workspace_id, product_id))
		OR (workspace_id = ANY ((SELECT partner_portal.product_workspaces('read'))::bigint[])
			AND partner_portal.product_ok('read', workspace_id, product_id)));
CREATE POLICY add ON partner_portal.product FOR INSERT
	WITH CHECK (workspace_id = (SELECT partner_portal.own_workspace('manage_products'))
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_products'))::bigint[])
		OR (SELECT partner_portal.is_operator()));
CREATE POLICY change ON partner_portal.product FOR UPDATE
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_products'))
		OR workspace_id = ANY ((SELECT partner_portal.complete_workspaces('manage_products'))::bigint[])
		OR (SELECT partner_portal.is_operator())
		OR (workspace_id = ANY ((SELECT partner_portal.product_workspaces('manage_products'))::bigint[])
			AND partner_portal.product_ok('manage_products', workspace_id, product_id)))
	WITH CHECK (workspace_id = (SELECT partner_portal.own_workspace('manage_products'))
		OR workspace_id = ANY ((SELECT partner_portal.complete_workspaces('manage_products'))::bigint[])
		OR (SELECT partner_portal.is_operator())
		OR (workspace_id = ANY ((SELECT partner_portal.product_workspaces('manage_products'))::bigint[])
			AND partner_portal.product_ok('manage_products', workspace_id, product_id)));
CREATE POLICY remove ON partner_portal.product FOR DELETE
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_products'))
		OR workspace_id = ANY ((SELECT partner_portal.complete_workspaces('manage_products'))::bigint[])
		OR (SELECT partner_portal.is_operator())
		OR (workspace_id = ANY ((SELECT partner_portal.product_workspaces('manage_products'))::bigint[])
			AND partner_portal.product_ok('manage_products', workspace_id, product_id)));
SELECT pg_catalog.pg_extension_config_dump('partner_portal.product', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.product_product_id_seq', '');

CREATE FUNCTION partner_portal.guard_product() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'INSERT' THEN
		IF partner_portal.restoring_session() THEN
			RETURN NEW;
		END IF;
		NEW.created_at := clock_timestamp();
		-- stays with its partner, as long as this transaction lasts
		SELECT w.partner_key INTO NEW.partner_key FROM partner_portal.workspace w WHERE w.workspace_id = NEW.workspace_id FOR KEY SHARE;
		NEW.partner_key := coalesce(NEW.partner_key, 0);
	ELSIF (NEW.workspace_id, NEW.product_id, NEW.created_at) IS DISTINCT FROM (OLD.workspace_id, OLD.product_id, OLD.created_at) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'workspace_id, product_id and created_at of a product never change';
	ELSIF NEW.category <> OLD.category AND NOT partner_portal.may('manage_products', NEW.workspace_id) THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('product %s cannot be moved to another category', NEW.product_id),
			DETAIL = 'Access is granted by category, and the grant does not cover all of them.';
	END IF;
	IF NEW.partner_access AND (TG_OP = 'INSERT' OR NOT OLD.partner_access)
		AND NOT (partner_portal.is_operator() OR NEW.workspace_id IS NOT DISTINCT FROM partner_portal.own_workspace('manage_products'))
	THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('only workspace %s itself may let its partner near a product', NEW.workspace_id);
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION partner_portal.guard_product() IS
'Trigger of product: stamps it; 22023 what never changes; 42501 partner_access from anybody but the workspace itself, or another category by a limited grant.';
REVOKE ALL ON FUNCTION partner_portal.guard_product() FROM PUBLIC;
CREATE TRIGGER guard_product BEFORE INSERT OR UPDATE ON partner_portal.product
	FOR EACH ROW EXECUTE FUNCTION partner_portal.guard_product();

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.product'),
	('application', 'INSERT (workspace_id, category, name, external_ref, partner_access)', 'TABLE partner_portal.product'),
	('application', 'UPDATE (category, name, external_ref, partner_access)', 'TABLE partner_portal.product'),
	('application', 'DELETE', 'TABLE partner_portal.product'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.complete_workspaces(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.product_workspaces(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.limited_workspaces()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.product_ok(text, bigint, bigint)');
-- access_grant.sql: what customers let partners do. How a grant comes about and ends is in access_consent.sql.

CREATE TABLE partner_portal.access_grant (
	workspace_id bigint NOT NULL,
	grant_id bigint GENERATED ALWAYS AS IDENTITY,
	partner_id bigint NOT NULL,
	scope text NOT NULL,
	products bigint[] NOT NULL DEFAULT '{}',
	categories text[] NOT NULL DEFAULT '{}',
	wallet boolean,
	rights text[] NOT NULL DEFAULT '{manage,read}',
	expires_at timestamptz,
	state text NOT NULL,
	asked jsonb,
	message text,
	created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	created_by bigint,
	accepted_at timestamptz,
	accepted_by bigint,
	extended_at timestamptz,
	ended_at timestamptz,
	ended_by bigint,
	end_reason text,
	wallet_since timestamptz,
	wallet_until timestamptz,
	CONSTRAINT access_grant_pkey PRIMARY KEY (workspace_id, grant_id),
	CONSTRAINT access_grant_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace,
	CONSTRAINT access_grant_partner FOREIGN KEY (partner_id) REFERENCES partner_portal.workspace,
	CONSTRAINT access_grant_other CHECK (partner_id <> workspace_id),
	CONSTRAINT access_grant_scope CHECK (CASE scope
		WHEN 'limited' THEN cardinality(products) + cardinality(categories) > 0 AND wallet IS NOT TRUE
		WHEN 'complete' THEN cardinality(products) + cardinality(categories) = 0 AND wallet IS NOT NULL
		ELSE false END),
	CONSTRAINT access_grant_size CHECK (cardinality(products) <= 1000 AND cardinality(categories) <= 100),
	CONSTRAINT access_grant_rights CHECK (cardinality(rights) > 0 AND rights <@ '{read,manage}'),
	CONSTRAINT access_grant_state CHECK (state IN ('requested', 'offered', 'active', 'declined', 'withdrawn', 'ended')),
	CONSTRAINT access_grant_accepted CHECK ((state IN ('active', 'ended')) = (accepted_at IS NOT NULL)),
	CONSTRAINT access_grant_ended CHECK ((state IN ('requested', 'offered', 'active')) = (ended_at IS NULL)),
	CONSTRAINT access_grant_wallet CHECK (wallet_since IS NULL OR wallet),
	CONSTRAINT access_grant_message CHECK (length(message) <= 1000),
	CONSTRAINT access_grant_end_reason CHECK (length(end_reason) <= 1000)
);
CREATE INDEX access_grant_grant_id ON partner_portal.access_grant (grant_id);
CREATE INDEX access_grant_partner_idx ON partner_portal.access_grant (partner_id);
CREATE INDEX access_grant_active_partner ON partner_portal.access_grant (partner_id, workspace_id) WHERE state = 'active';
CREATE UNIQUE INDEX access_grant_one_active ON partner_portal.access_grant (workspace_id, partner_id) WHERE state = 'active';
CREATE UNIQUE INDEX access_grant_one_open ON partner_portal.access_grant (workspace_id, partner_id) WHERE state IN ('requested', 'offered');
CREATE UNIQUE INDEX access_grant_one_wallet ON partner_portal.access_grant (workspace_id) WHERE wallet_since IS NOT NULL AND wallet_until IS NULL;
COMMENT ON TABLE partner_portal.access_grant IS
'A customer''s consent to a partner, from request or offer to its end; a partner has at most one active and one open at a customer. Changed by functions only.';
COMMENT ON COLUMN partner_portal.access_grant.scope IS 'limited to products and categories (products to come included), or complete: everything.';
COMMENT ON COLUMN partner_portal.access_grant.wallet IS 'Whether the partner pays the platform''s plans of the customer; a complete grant says so, a limited one cannot.';
COMMENT ON COLUMN partner_portal.access_grant.rights IS 'read, manage or both; manage includes read.';
COMMENT ON COLUMN partner_portal.access_grant.expires_at IS 'It gives nothing from then on, whether a job has ended it or not; NULL lasts until it is ended.';
COMMENT ON COLUMN partner_portal.access_grant.state IS 'requested by the partner, offered by the customer, active, declined, withdrawn, ended.';
COMMENT ON COLUMN partner_portal.access_grant.asked IS 'What the partner had asked for, where it did.';
COMMENT ON COLUMN partner_portal.access_grant.wallet_since IS 'From when to wallet_until it held the wallet: billing periods that start in between are the partner''s to pay.';

ALTER TABLE partner_portal.access_grant ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY signed_in ON partner_portal.access_grant AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.access_grant FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));
SELECT pg_catalog.pg_extension_config_dump('partner_portal.access_grant', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.access_grant_grant_id_seq', '');

CREATE FUNCTION partner_portal.hold_grant() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_hold_grant';
COMMENT ON FUNCTION partner_portal.hold_grant() IS
'Trigger of tables that partners write by grants: the grant cannot end before the transaction does; 42501, or 40001 with an older snapshot, if it has.';
REVOKE ALL ON FUNCTION partner_portal.hold_grant() FROM PUBLIC;
CREATE TRIGGER hold_grant BEFORE INSERT OR UPDATE OR DELETE ON partner_portal.product
	FOR EACH ROW EXECUTE FUNCTION partner_portal.hold_grant();

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.access_grant');
-- permission_signal.sql: tells every backend that who may do what has changed.
-- These triggers are row triggers, since logical replication fires no others, and always enabled; where only some columns decide
-- access they look at those.

CREATE FUNCTION partner_portal.acl_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_acl_changed';
COMMENT ON FUNCTION partner_portal.acl_changed() IS
'Trigger: announces through acl_signal, with the transaction, that access has changed. Fired also in a restoring session and under session_replication_role = replica.';
REVOKE ALL ON FUNCTION partner_portal.acl_changed() FROM PUBLIC;

CREATE TRIGGER acl_update AFTER UPDATE ON partner_portal.account
	FOR EACH ROW WHEN ((OLD.account_id, OLD.is_operator, OLD.disabled_at, OLD.erased_at)
		IS DISTINCT FROM (NEW.account_id, NEW.is_operator, NEW.disabled_at, NEW.erased_at))
	EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_delete AFTER DELETE ON partner_portal.account
	FOR EACH ROW EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_truncate AFTER TRUNCATE ON partner_portal.account
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.acl_changed();

-- A new workspace is announced by its first member.
CREATE TRIGGER acl_update AFTER UPDATE ON partner_portal.workspace
	FOR EACH ROW WHEN ((OLD.workspace_id, OLD.kind, OLD.partner_id, OLD.deleted_at, OLD.suspended_at)
		IS DISTINCT FROM (NEW.workspace_id, NEW.kind, NEW.partner_id, NEW.deleted_at, NEW.suspended_at))
	EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_delete AFTER DELETE ON partner_portal.workspace
	FOR EACH ROW EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_truncate AFTER TRUNCATE ON partner_portal.workspace
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.acl_changed();

CREATE TRIGGER acl_insert_delete AFTER INSERT OR DELETE ON partner_portal.member
	FOR EACH ROW EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_update AFTER UPDATE ON partner_portal.member
	FOR EACH ROW WHEN ((OLD.workspace_id, OLD.account_id, OLD.role, OLD.accepted_at, OLD.ends_at)
		IS DISTINCT FROM (NEW.workspace_id, NEW.account_id, NEW.role, NEW.accepted_at, NEW.ends_at))
	EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_truncate AFTER TRUNCATE ON partner_portal.member
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.acl_changed();

CREATE TRIGGER acl_change AFTER INSERT OR UPDATE OR DELETE ON partner_portal.staff
	FOR EACH ROW EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_truncate AFTER TRUNCATE ON partner_portal.staff
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.acl_changed();

-- A grant counts while it is active; what else it says does not change but for its expiry.
CREATE TRIGGER acl_insert AFTER INSERT ON partner_portal.access_grant
	FOR EACH ROW WHEN (NEW.state = 'active') EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_update AFTER UPDATE ON partner_portal.access_grant
	FOR EACH ROW WHEN ((OLD.state = 'active' OR NEW.state = 'active') AND OLD IS DISTINCT FROM NEW)
	EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_delete AFTER DELETE ON partner_portal.access_grant
	FOR EACH ROW EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_truncate AFTER TRUNCATE ON partner_portal.access_grant
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.acl_changed();

-- Products that there are not are not remembered, so a new one need not be announced.
CREATE TRIGGER acl_update AFTER UPDATE ON partner_portal.product
	FOR EACH ROW WHEN ((OLD.workspace_id, OLD.product_id, OLD.category, OLD.partner_access)
		IS DISTINCT FROM (NEW.workspace_id, NEW.product_id, NEW.category, NEW.partner_access))
	EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_delete AFTER DELETE ON partner_portal.product
	FOR EACH ROW EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_truncate AFTER TRUNCATE ON partner_portal.product
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.acl_changed();

ALTER TABLE partner_portal.account ENABLE ALWAYS TRIGGER acl_update, ENABLE ALWAYS TRIGGER acl_delete, ENABLE ALWAYS TRIGGER acl_truncate;
ALTER TABLE partner_portal.workspace ENABLE ALWAYS TRIGGER acl_update, ENABLE ALWAYS TRIGGER acl_delete, ENABLE ALWAYS TRIGGER acl_truncate;
ALTER TABLE partner_portal.member ENABLE ALWAYS TRIGGER acl_insert_delete, ENABLE ALWAYS TRIGGER acl_update, ENABLE ALWAYS TRIGGER acl_truncate;
ALTER TABLE partner_portal.staff ENABLE ALWAYS TRIGGER acl_change, ENABLE ALWAYS TRIGGER acl_truncate;
ALTER TABLE partner_portal.access_grant ENABLE ALWAYS TRIGGER acl_insert, ENABLE ALWAYS TRIGGER acl_update, ENABLE ALWAYS TRIGGER acl_delete, ENABLE ALWAYS TRIGGER acl_truncate;
ALTER TABLE partner_portal.product ENABLE ALWAYS TRIGGER acl_update, ENABLE ALWAYS TRIGGER acl_delete, ENABLE ALWAYS TRIGGER acl_truncate;
-- my_workspaces.sql: where an account may act.

-- Owned by the installer and so past row level security: names are shown of workspaces that one does not act in at the moment.
CREATE VIEW partner_portal.my_workspaces WITH (security_barrier) AS
	SELECT w.workspace_id, w.company_name, w.slug, w.kind, m.role, m.accepted_at IS NOT NULL AS accepted,
		w.workspace_id IS NOT DISTINCT FROM (SELECT partner_portal.current_workspace_id()) AS acting,
		m.created_at, m.accepted_at
	FROM partner_portal.member m
	JOIN partner_portal.workspace w ON w.workspace_id = m.workspace_id
	WHERE m.account_id = (SELECT partner_portal.current_account_id()) AND w.deleted_at IS NULL AND (m.ends_at IS NULL OR m.ends_at > now());
COMMENT ON VIEW partner_portal.my_workspaces IS
'Workspaces that the identity belongs to, wherever it acts; those deleted are left out. act_in() chooses among the accepted ones.';
COMMENT ON COLUMN partner_portal.my_workspaces.accepted IS 'False for a membership that somebody else made and this account has not accepted: it gives no access.';
COMMENT ON COLUMN partner_portal.my_workspaces.acting IS 'Whether the identity acts there.';

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.my_workspaces');
-- explain_access.sql: why an account may do something, or what it lacks.

CREATE FUNCTION partner_portal.explain_access(account_id bigint, workspace_id bigint, product_id bigint DEFAULT NULL)
	RETURNS TABLE (permission text, allowed boolean, through text, missing text)
	LANGUAGE c STABLE ROWS 15 AS 'MODULE_PATHNAME', 'partner_portal_explain_access';
COMMENT ON FUNCTION partner_portal.explain_access(bigint, bigint, bigint) IS
'One row per permission: whether an account has it on a workspace, through what, or else what is missing. With a product, read and manage_products are about that one. For oneself it is as one acts now, as authorize() decides; for others, wherever they may act.
For the account itself, the operator, and those with manage_people on the workspace. 42501 nobody, or not theirs to ask; P0002 no such workspace, account (operator only) or product.';
REVOKE ALL ON FUNCTION partner_portal.explain_access(bigint, bigint, bigint) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.explain_access(bigint, bigint, bigint)');
-- notification.sql: messages owed to somebody, written in the transaction that causes them, and the queue of those not yet delivered.

CREATE TYPE partner_portal.mail_content AS (subject text, text_body text, html_body text);
COMMENT ON TYPE partner_portal.mail_content IS 'What a template makes: the subject and both forms of the body.';

CREATE SEQUENCE partner_portal.delivery_engine_seq AS integer CYCLE;
COMMENT ON SEQUENCE partner_portal.delivery_engine_seq IS 'Numbers of delivery engines, which fence their leases.';

CREATE TABLE partner_portal.notification (
	workspace_id bigint NOT NULL,
	notification_id bigint GENERATED ALWAYS AS IDENTITY,
	message_id uuid NOT NULL DEFAULT gen_random_uuid(),
	partner_key bigint NOT NULL,
	kind text NOT NULL,
	dedupe_key text NOT NULL,
	occurred_at timestamptz NOT NULL DEFAULT now(),
	expires_at timestamptz,
	state text NOT NULL DEFAULT 'pending',
	attempts integer NOT NULL DEFAULT 0,
	next_attempt_at timestamptz DEFAULT now(),
	finished_at timestamptz,
	last_code integer,
	last_error text,
	endpoint_id bigint,
	recipient text,
	locale text,
	subject text,
	text_body text,
	html_body text,
	unsubscribe_url text,
	secret text,
	CONSTRAINT notification_pkey PRIMARY KEY (workspace_id, notification_id),
	CONSTRAINT notification_natural_key UNIQUE (workspace_id, kind, dedupe_key),
	CONSTRAINT notification_kind CHECK (kind ~ '^[a-z0-9_]{1,63}(\.[a-z0-9_]{1,63}){0,7}$'),
	CONSTRAINT notification_dedupe_key CHECK (length(dedupe_key) BETWEEN 1 AND 400),
	CONSTRAINT notification_state CHECK (state IN ('pending', 'delivered', 'refused', 'dead', 'cancelled')),
	CONSTRAINT notification_finished CHECK ((state = 'pending') = (finished_at IS NULL) AND (state = 'pending') = (next_attempt_at IS NOT NULL)),
	CONSTRAINT notification_channel CHECK ((recipient IS NULL) <> (endpoint_id IS NULL)),
	CONSTRAINT notification_mail CHECK (recipient IS NULL OR (subject IS NOT NULL AND text_body IS NOT NULL AND locale IS NOT NULL)),
	CONSTRAINT notification_size CHECK (octet_length(subject) <= 10000 AND octet_length(text_body) <= 500000 AND octet_length(html_body) <= 500000),
	CONSTRAINT notification_secret CHECK (CASE state WHEN 'pending' THEN length(secret) >= 16 ELSE secret = '' END),
	CONSTRAINT notification_last_error CHECK (length(last_error) <= 500)
) WITH (fillfactor = 80);
CREATE INDEX notification_notification_id ON partner_portal.notification (notification_id);
COMMENT ON TABLE partner_portal.notification IS
'One message owed to one destination: an address by mail, or a webhook endpoint. Written by the transaction that causes it, at most once per (workspace_id, kind, dedupe_key). Its content is read by the worker alone; see delivery_status.';
COMMENT ON COLUMN partner_portal.notification.workspace_id IS 'Tenant it belongs to; 0 is the platform itself.';
COMMENT ON COLUMN partner_portal.notification.message_id IS 'The same in every attempt: webhook-id and Message-ID, by which receivers drop repeats.';
COMMENT ON COLUMN partner_portal.notification.partner_key IS 'Partner of the workspace when it was caused, 0 for none; it does not follow a transfer.';
COMMENT ON COLUMN partner_portal.notification.expires_at IS 'It is cancelled, not sent, from then on.';
COMMENT ON COLUMN partner_portal.notification.state IS 'pending; delivered (the peer took it); refused (the peer never will); dead (given up, or it could not be built); cancelled (expired, or its endpoint was deleted).';
COMMENT ON COLUMN partner_portal.notification.attempts IS 'Attempts that reached a verdict about this message; faults of the relay or of the settings do not count.';
COMMENT ON COLUMN partner_portal.notification.last_code IS 'HTTP status or SMTP reply of the last attempt.';
COMMENT ON COLUMN partner_portal.notification.secret IS 'A token that the body holds; both are blanked as soon as the message is no longer pending, and '''' remains to tell that there was one.';

-- Narrow and hot: a row per pending notification, gone when it is final.
CREATE TABLE partner_portal.delivery_queue (
	workspace_id bigint NOT NULL,
	notification_id bigint NOT NULL,
	destination bigint NOT NULL,
	next_attempt_at timestamptz NOT NULL DEFAULT now(),
	claims integer NOT NULL DEFAULT 0,
	lease_token integer,
	lease_until timestamptz,
	CONSTRAINT delivery_queue_pkey PRIMARY KEY (workspace_id, notification_id),
	CONSTRAINT delivery_queue_notification FOREIGN KEY (workspace_id, notification_id)
		REFERENCES partner_portal.notification ON DELETE CASCADE,
	CONSTRAINT delivery_queue_lease CHECK ((lease_token IS NULL) = (lease_until IS NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX delivery_queue_due ON partner_portal.delivery_queue (destination, next_attempt_at) WHERE lease_token IS NULL;
CREATE INDEX delivery_queue_leased ON partner_portal.delivery_queue (lease_token) WHERE lease_token IS NOT NULL;
COMMENT ON TABLE partner_portal.delivery_queue IS 'Notifications that are pending, and which engine is sending them.';
COMMENT ON COLUMN partner_portal.delivery_queue.destination IS 'The webhook endpoint; 0 is the mail relay.';
COMMENT ON COLUMN partner_portal.delivery_queue.claims IS 'Times claimed since a result was last recorded; a row claimed three times and never recorded is dead.';
COMMENT ON COLUMN partner_portal.delivery_queue.lease_token IS 'Engine that is sending it; only that one may record the result.';

CREATE TABLE partner_portal.delivery_destination (
	destination bigint NOT NULL,
	max_in_flight integer NOT NULL DEFAULT 4,
	paused boolean NOT NULL DEFAULT false,
	failures integer NOT NULL DEFAULT 0,
	failing_since timestamptz,
	hold_until timestamptz,
	last_error text,
	CONSTRAINT delivery_destination_pkey PRIMARY KEY (destination),
	CONSTRAINT delivery_destination_max_in_flight CHECK (max_in_flight BETWEEN 1 AND 64)
);
COMMENT ON TABLE partner_portal.delivery_destination IS 'State of the mail relay (destination 0) and of each webhook endpoint: what may be under way at once, and whether it is being left alone.';
COMMENT ON COLUMN partner_portal.delivery_destination.failures IS 'Attempts that failed since the last success.';
COMMENT ON COLUMN partner_portal.delivery_destination.hold_until IS 'Nothing is sent there before.';

-- A restored copy must not send what the original sends.
CREATE TABLE partner_portal.delivery_home (
	system_identifier bigint NOT NULL,
	database_oid oid NOT NULL,
	CONSTRAINT delivery_home_pkey PRIMARY KEY (system_identifier, database_oid)
);
COMMENT ON TABLE partner_portal.delivery_home IS 'Databases in which these notifications belong. A database that holds another''s row is a copy and sends nothing until adopt_deliveries().';

ALTER TABLE partner_portal.notification ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.delivery_queue ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.delivery_destination ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.delivery_home ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- Column privileges leave out the content; these say whose state one sees.
CREATE POLICY signed_in ON partner_portal.notification AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
-- A new partner's staff sees nothing of the old partner's time.
CREATE POLICY read ON partner_portal.notification FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_settings'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR (workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_settings'))::bigint[])
			AND partner_key = (SELECT partner_portal.current_partner_id())));

INSERT INTO partner_portal.delivery_destination (destination, max_in_flight) VALUES (0, 64);
INSERT INTO partner_portal.delivery_home (system_identifier, database_oid)
	SELECT c.system_identifier, d.oid FROM pg_catalog.pg_control_system() c, pg_catalog.pg_database d
	WHERE d.datname = current_database();

SELECT pg_catalog.pg_extension_config_dump('partner_portal.notification', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.notification_notification_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.delivery_queue', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.delivery_engine_seq', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.delivery_destination', 'WHERE destination <> 0');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.delivery_home', '');

CREATE FUNCTION partner_portal.delivery_home_problem() RETURNS text
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT 'It is a copy of a database whose notifications are that one''s to send.'
	WHERE EXISTS (
		SELECT FROM partner_portal.delivery_home h, pg_catalog.pg_control_system() c
		WHERE (h.system_identifier, h.database_oid) IS DISTINCT FROM
			(c.system_identifier, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())));
END;
COMMENT ON FUNCTION partner_portal.delivery_home_problem() IS 'Why this database sends nothing: a reason, or NULL.';
REVOKE ALL ON FUNCTION partner_portal.delivery_home_problem() FROM PUBLIC;

CREATE FUNCTION partner_portal.adopt_deliveries() RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator may adopt deliveries';
	END IF;
	DELETE FROM partner_portal.delivery_home;
	INSERT INTO partner_portal.delivery_home (system_identifier, database_oid)
	SELECT c.system_identifier, d.oid FROM pg_control_system() c, pg_database d WHERE d.datname = current_database();
END
$$;
COMMENT ON FUNCTION partner_portal.adopt_deliveries() IS
'Says that this database, restored from a dump or moved by pg_upgrade, is now the one that sends the notifications it holds. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.adopt_deliveries() FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_message(sender text, recipient text, subject text, text_body text, html_body text,
	locale text, message_id uuid, occurred_at timestamptz, unsubscribe_url text DEFAULT NULL) RETURNS text
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'partner_portal_mail_message';
COMMENT ON FUNCTION partner_portal.mail_message(text, text, text, text, text, text, uuid, timestamptz, text) IS
'The mail as it would be sent. 22023 if it cannot be built.';
REVOKE ALL ON FUNCTION partner_portal.mail_message(text, text, text, text, text, text, uuid, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.enqueue_mail(workspace_id bigint, kind text, dedupe_key text, recipient text, locale text,
	mail partner_portal.mail_content, secret text DEFAULT NULL, expires_at timestamptz DEFAULT NULL, unsubscribe_url text DEFAULT NULL) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	WITH made AS (
		INSERT INTO partner_portal.notification AS n (workspace_id, partner_key, kind, dedupe_key, recipient, locale,
			subject, text_body, html_body, secret, expires_at, unsubscribe_url)
		VALUES (coalesce(enqueue_mail.workspace_id, 0),
			coalesce((SELECT w.partner_key FROM partner_portal.workspace w WHERE w.workspace_id = enqueue_mail.workspace_id), 0),
			enqueue_mail.kind, enqueue_mail.dedupe_key, enqueue_mail.recipient, coalesce(enqueue_mail.locale, 'en'),
			(enqueue_mail.mail).subject, (enqueue_mail.mail).text_body, (enqueue_mail.mail).html_body,
			enqueue_mail.secret, enqueue_mail.expires_at, enqueue_mail.unsubscribe_url)
		ON CONFLICT ON CONSTRAINT notification_natural_key DO NOTHING
		RETURNING n.workspace_id, n.notification_id
	), queued AS (
		INSERT INTO partner_portal.delivery_queue AS q (workspace_id, notification_id, destination)
		SELECT m.workspace_id, m.notification_id, 0 FROM made m
		RETURNING q.notification_id
	)
	SELECT q.notification_id FROM queued q;
END;
COMMENT ON FUNCTION partner_portal.enqueue_mail(bigint, text, text, text, text, partner_portal.mail_content, text, timestamptz, text) IS
'For our own functions, in the transaction that causes the mail: one mail to one recipient, at most once per workspace, kind and dedupe_key. A workspace_id of NULL is the platform; secret is a token that the body holds, to be blanked; unsubscribe_url for lists only. Returns the notification''s id, or NULL if it was already owed.';
REVOKE ALL ON FUNCTION partner_portal.enqueue_mail(bigint, text, text, text, text, partner_portal.mail_content, text, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.wake_delivery() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_wake_delivery';
COMMENT ON FUNCTION partner_portal.wake_delivery() IS 'Wakes the worker when the transaction commits.';
REVOKE ALL ON FUNCTION partner_portal.wake_delivery() FROM PUBLIC;

CREATE TRIGGER wake AFTER INSERT ON partner_portal.delivery_queue
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.wake_delivery();

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT (workspace_id, notification_id, message_id, partner_key, kind, occurred_at, expires_at, state, attempts, next_attempt_at, finished_at, last_code, last_error, endpoint_id)', 'TABLE partner_portal.notification'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.adopt_deliveries()');
-- webhook.sql: endpoints that workspaces name, and the events sent to them, signed as Standard Webhooks.

CREATE TABLE partner_portal.webhook_endpoint (
	workspace_id bigint NOT NULL,
	endpoint_id bigint GENERATED ALWAYS AS IDENTITY,
	partner_key bigint NOT NULL,
	url text NOT NULL,
	events text[] NOT NULL,
	state text NOT NULL DEFAULT 'active',
	state_reason text,
	created_at timestamptz NOT NULL DEFAULT now(),
	nonce uuid NOT NULL DEFAULT gen_random_uuid(),
	key_version integer NOT NULL,
	secret_version integer NOT NULL DEFAULT 1,
	previous_secret_until timestamptz,
	CONSTRAINT webhook_endpoint_pkey PRIMARY KEY (workspace_id, endpoint_id),
	CONSTRAINT webhook_endpoint_workspace FOREIGN KEY (workspace_id, partner_key)
		REFERENCES partner_portal.workspace (workspace_id, partner_key) ON UPDATE CASCADE,
	CONSTRAINT webhook_endpoint_url CHECK (octet_length(url) <= 2048 AND url ~* '^https?://[^/?#@[:space:][:cntrl:]]+([/?][!-~]*)?$'),
	CONSTRAINT webhook_endpoint_events CHECK (cardinality(events) BETWEEN 1 AND 100 AND array_position(events, NULL) IS NULL),
	CONSTRAINT webhook_endpoint_state CHECK (state IN ('active', 'paused', 'disabled', 'deleted')),
	CONSTRAINT webhook_endpoint_state_reason CHECK (length(state_reason) <= 500)
);
CREATE INDEX webhook_endpoint_endpoint_id ON partner_portal.webhook_endpoint (endpoint_id);
CREATE INDEX webhook_endpoint_partner_key_idx ON partner_portal.webhook_endpoint (partner_key);
COMMENT ON TABLE partner_portal.webhook_endpoint IS
'Where a workspace wants events sent. A partner''s endpoint hears of its customers too. Changed by functions only.';
COMMENT ON COLUMN partner_portal.webhook_endpoint.events IS 'Names of events, as key.activated, or * for all.';
COMMENT ON COLUMN partner_portal.webhook_endpoint.state IS 'active; paused (events wait); disabled (it answered 410, or failed for five days; events wait); deleted.';
COMMENT ON COLUMN partner_portal.webhook_endpoint.nonce IS 'What its secret is derived from, with the master key key_version of the secrets file.';
COMMENT ON COLUMN partner_portal.webhook_endpoint.previous_secret_until IS 'Until then messages are signed with the secret before, too.';

ALTER TABLE partner_portal.webhook_endpoint ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.webhook_endpoint AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.webhook_endpoint FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_settings'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_settings'))::bigint[]));

SELECT pg_catalog.pg_extension_config_dump('partner_portal.webhook_endpoint', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.webhook_endpoint_endpoint_id_seq', '');

CREATE FUNCTION partner_portal.webhook_secret(nonce uuid, key_version integer, version integer) RETURNS text
	LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'partner_portal_webhook_secret';
COMMENT ON FUNCTION partner_portal.webhook_secret(uuid, integer, integer) IS
'Derives a secret as whsec_ and base64. 55000 if the master key is not in the secrets file.';
REVOKE ALL ON FUNCTION partner_portal.webhook_secret(uuid, integer, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.webhook_key_version() RETURNS integer
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'partner_portal_webhook_key_version';
COMMENT ON FUNCTION partner_portal.webhook_key_version() IS 'Newest master key in the secrets file. 55000 if there is none.';
REVOKE ALL ON FUNCTION partner_portal.webhook_key_version() FROM PUBLIC;

CREATE FUNCTION partner_portal.webhook_signature(secret text, message_id text, at bigint, body text) RETURNS text
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_webhook_signature';
COMMENT ON FUNCTION partner_portal.webhook_signature(text, text, bigint, text) IS
'The signature that a delivery would carry at a Unix time in seconds, by Standard Webhooks: v1,base64(HMAC-SHA256(message_id.at.body)). 22023 if the secret is none.';
REVOKE ALL ON FUNCTION partner_portal.webhook_signature(text, text, bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.address_allowed(address text, port integer, networks text) RETURNS boolean
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_address_allowed';
COMMENT ON FUNCTION partner_portal.address_allowed(text, integer, text) IS
'Whether a webhook may be sent to an address when partner_portal.allow_cidr is the given list: it is public, or listed. 22023 for what is neither address nor list.';
REVOKE ALL ON FUNCTION partner_portal.address_allowed(text, integer, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.check_webhook(url text, events text[]) RETURNS void
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	event text;
BEGIN
	IF url IS NULL OR octet_length(url) > 2048 OR url !~* '^https?://[^/?#@[:space:][:cntrl:]]+([/?][!-~]*)?$' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'malformed address of an endpoint',
			HINT = 'It looks like https://host[:port]/path, at most 2048 ASCII characters, without user name or fragment.';
	END IF;
	IF coalesce(cardinality(events), 0) NOT BETWEEN 1 AND 100 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'an endpoint needs 1 to 100 events',
			HINT = 'Use {*} for all.';
	END IF;
	FOREACH event IN ARRAY events LOOP
		IF event IS NULL OR event !~ '^(\*|[a-z0-9_]{1,63}(\.[a-z0-9_]{1,63}){0,6})$' THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('malformed event "%s"', left(event, 64)),
				HINT = 'Events look like key.activated; * is all.';
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION partner_portal.check_webhook(text, text[]) IS 'Raises 22023 if an endpoint cannot be as described.';
REVOKE ALL ON FUNCTION partner_portal.check_webhook(text, text[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.create_webhook_endpoint(workspace_id bigint, url text, events text[],
	OUT endpoint_id bigint, OUT secret text) RETURNS record
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	made partner_portal.webhook_endpoint;
BEGIN
	PERFORM partner_portal.authorize('manage_settings', create_webhook_endpoint.workspace_id);
	PERFORM partner_portal.check_webhook(create_webhook_endpoint.url, create_webhook_endpoint.events);
	IF (SELECT count(*) FROM partner_portal.webhook_endpoint e
		WHERE e.workspace_id = create_webhook_endpoint.workspace_id AND e.state <> 'deleted') >= 100 THEN
		RAISE EXCEPTION USING ERRCODE = 'program_limit_exceeded', MESSAGE = 'a workspace has at most 100 webhook endpoints';
	END IF;
	INSERT INTO partner_portal.webhook_endpoint AS e (workspace_id, partner_key, url, events, key_version)
	SELECT w.workspace_id, w.partner_key, create_webhook_endpoint.url, create_webhook_endpoint.events, partner_portal.webhook_key_version()
	FROM partner_portal.workspace w WHERE w.workspace_id = create_webhook_endpoint.workspace_id
	RETURNING * INTO made;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = 'no such workspace';
	END IF;
	INSERT INTO partner_portal.delivery_destination (destination) VALUES (made.endpoint_id);
	create_webhook_endpoint.endpoint_id := made.endpoint_id;
	create_webhook_endpoint.secret := partner_portal.webhook_secret(made.nonce, made.key_version, made.secret_version);
END
$$;
COMMENT ON FUNCTION partner_portal.create_webhook_endpoint(bigint, text, text[]) IS
'Registers an address for events of a workspace (a partner''s: of its customers too) and returns the secret that signs them. Needs manage_settings. 22023 malformed, 54000 more than 100, 55000 no master key in partner_portal.secrets_file. An http address is served only if it is in partner_portal.allow_cidr.';
REVOKE ALL ON FUNCTION partner_portal.create_webhook_endpoint(bigint, text, text[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.authorize_thing(workspace_id bigint, not_found text) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF workspace_id IS NULL OR NOT (partner_portal.may('read', workspace_id) OR partner_portal.may('manage_settings', workspace_id)) THEN
		IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
			PERFORM partner_portal.authorize('manage_settings', -1);
		END IF;
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = coalesce(not_found, 'not found');
	END IF;
	PERFORM partner_portal.authorize('manage_settings', workspace_id);
END
$$;
COMMENT ON FUNCTION partner_portal.authorize_thing(bigint, text) IS
'Asks for manage_settings on the workspace of a thing found by its own id, without telling whose an invisible one is: P0002 with the text given, for what is absent (NULL) too. Internal.';
REVOKE ALL ON FUNCTION partner_portal.authorize_thing(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.authorized_endpoint(endpoint_id bigint) RETURNS partner_portal.webhook_endpoint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	endpoint partner_portal.webhook_endpoint;
BEGIN
	SELECT * INTO endpoint FROM partner_portal.webhook_endpoint e
	WHERE e.endpoint_id = authorized_endpoint.endpoint_id AND e.state <> 'deleted'
	FOR UPDATE;
	PERFORM partner_portal.authorize_thing(endpoint.workspace_id, format('webhook endpoint %s not found', authorized_endpoint.endpoint_id));
	RETURN endpoint;
END
$$;
COMMENT ON FUNCTION partner_portal.authorized_endpoint(bigint) IS 'Locks and returns an endpoint that who is asking may manage; as authorize() otherwise.';
REVOKE ALL ON FUNCTION partner_portal.authorized_endpoint(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.rotate_webhook_secret(endpoint_id bigint) RETURNS text
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	endpoint partner_portal.webhook_endpoint := partner_portal.authorized_endpoint(endpoint_id);
BEGIN
	UPDATE partner_portal.webhook_endpoint e
	SET secret_version = e.secret_version + 1, previous_secret_until = now() + interval '24 hours'
	WHERE e.workspace_id = endpoint.workspace_id AND e.endpoint_id = endpoint.endpoint_id;
	RETURN partner_portal.webhook_secret(endpoint.nonce, endpoint.key_version, endpoint.secret_version + 1);
END
$$;
COMMENT ON FUNCTION partner_portal.rotate_webhook_secret(bigint) IS
'Gives an endpoint a new secret and returns it; for 24 hours messages are signed with the old one too. Needs manage_settings.';
REVOKE ALL ON FUNCTION partner_portal.rotate_webhook_secret(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.set_endpoint_state(endpoint partner_portal.webhook_endpoint, state text, reason text) RETURNS void
	LANGUAGE sql
BEGIN ATOMIC
	UPDATE partner_portal.webhook_endpoint e SET state = set_endpoint_state.state, state_reason = set_endpoint_state.reason
	WHERE e.workspace_id = (set_endpoint_state.endpoint).workspace_id AND e.endpoint_id = (set_endpoint_state.endpoint).endpoint_id;
	UPDATE partner_portal.delivery_destination t
	SET paused = set_endpoint_state.state <> 'active',
		failures = CASE WHEN set_endpoint_state.state = 'active' THEN 0 ELSE t.failures END,
		failing_since = CASE WHEN set_endpoint_state.state <> 'active' THEN t.failing_since END,
		hold_until = CASE WHEN set_endpoint_state.state <> 'active' THEN t.hold_until END
	WHERE t.destination = (set_endpoint_state.endpoint).endpoint_id;
END;
COMMENT ON FUNCTION partner_portal.set_endpoint_state(partner_portal.webhook_endpoint, text, text) IS 'Changes the state of an endpoint and whether its messages wait.';
REVOKE ALL ON FUNCTION partner_portal.set_endpoint_state(partner_portal.webhook_endpoint, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.pause_webhook_endpoint(endpoint_id bigint, reason text DEFAULT NULL) RETURNS void
	LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS $$ SELECT partner_portal.set_endpoint_state(partner_portal.authorized_endpoint($1), 'paused', left($2, 500)) $$;
COMMENT ON FUNCTION partner_portal.pause_webhook_endpoint(bigint, text) IS 'Lets the events of an endpoint wait. Needs manage_settings.';
REVOKE ALL ON FUNCTION partner_portal.pause_webhook_endpoint(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.resume_webhook_endpoint(endpoint_id bigint) RETURNS void
	LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS $$ SELECT partner_portal.set_endpoint_state(partner_portal.authorized_endpoint($1), 'active', NULL) $$;
COMMENT ON FUNCTION partner_portal.resume_webhook_endpoint(bigint) IS 'Sends an endpoint its events again, those that waited included; also after it was disabled. Needs manage_settings.';
REVOKE ALL ON FUNCTION partner_portal.resume_webhook_endpoint(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.delete_webhook_endpoint(endpoint_id bigint) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	endpoint partner_portal.webhook_endpoint := partner_portal.authorized_endpoint(endpoint_id);
BEGIN
	PERFORM partner_portal.set_endpoint_state(endpoint, 'deleted', NULL);
	WITH gone AS (
		DELETE FROM partner_portal.delivery_queue q
		WHERE q.workspace_id = endpoint.workspace_id AND q.destination = endpoint.endpoint_id
		RETURNING q.notification_id
	)
	UPDATE partner_portal.notification n SET state = 'cancelled', finished_at = now(), next_attempt_at = NULL
	FROM gone WHERE n.workspace_id = endpoint.workspace_id AND n.notification_id = gone.notification_id;
END
$$;
COMMENT ON FUNCTION partner_portal.delete_webhook_endpoint(bigint) IS 'Ends an endpoint for good; what it is still owed is cancelled. Needs manage_settings.';
REVOKE ALL ON FUNCTION partner_portal.delete_webhook_endpoint(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.enqueue_webhook_event(workspace_id bigint, event text, data jsonb, dedupe_key text) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	WITH made AS (
		INSERT INTO partner_portal.notification AS n (workspace_id, partner_key, kind, dedupe_key, endpoint_id, text_body)
		SELECT e.workspace_id, e.partner_key, 'webhook.' || enqueue_webhook_event.event,
			enqueue_webhook_event.dedupe_key || ':' || e.endpoint_id, e.endpoint_id,
			'{"type":' || to_json(enqueue_webhook_event.event)::text
				|| ',"timestamp":' || to_json(to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text || ',"data":'
				|| (jsonb_build_object('workspace_id', enqueue_webhook_event.workspace_id) || enqueue_webhook_event.data)::text || '}'
		FROM partner_portal.webhook_endpoint e
		WHERE e.workspace_id IN (enqueue_webhook_event.workspace_id,
				(SELECT w.partner_id FROM partner_portal.workspace w WHERE w.workspace_id = enqueue_webhook_event.workspace_id))
			AND e.state <> 'deleted' AND e.events && ARRAY[enqueue_webhook_event.event, '*']
		ON CONFLICT ON CONSTRAINT notification_natural_key DO NOTHING
		RETURNING n.workspace_id, n.notification_id, n.endpoint_id
	), queued AS (
		INSERT INTO partner_portal.delivery_queue AS q (workspace_id, notification_id, destination)
		SELECT m.workspace_id, m.notification_id, m.endpoint_id FROM made m
		RETURNING q.notification_id
	)
	SELECT count(*) FROM queued;
END;
COMMENT ON FUNCTION partner_portal.enqueue_webhook_event(bigint, text, jsonb, text) IS
'For our own functions, in the transaction that causes the event: one message per endpoint of the workspace and of its partner that wants it, at most once per dedupe_key. The body is {"type", "timestamp", "data"}, where data always has workspace_id. Returns how many are owed.';
REVOKE ALL ON FUNCTION partner_portal.enqueue_webhook_event(bigint, text, jsonb, text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT (workspace_id, endpoint_id, partner_key, url, events, state, state_reason, created_at, previous_secret_until)', 'TABLE partner_portal.webhook_endpoint'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.create_webhook_endpoint(bigint, text, text[])'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.rotate_webhook_secret(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.pause_webhook_endpoint(bigint, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.resume_webhook_endpoint(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.delete_webhook_endpoint(bigint)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.address_allowed(text, integer, text)');
-- delivery.sql: sending what is owed, what becomes of it, and looking at it.

CREATE TABLE partner_portal.delivery_attempt (
	workspace_id bigint NOT NULL,
	notification_id bigint NOT NULL,
	attempt_id bigint GENERATED ALWAYS AS IDENTITY,
	partner_key bigint NOT NULL,
	at timestamptz NOT NULL DEFAULT clock_timestamp(),
	outcome text NOT NULL,
	code integer,
	error text,
	CONSTRAINT delivery_attempt_pkey PRIMARY KEY (workspace_id, notification_id, attempt_id),
	CONSTRAINT delivery_attempt_notification FOREIGN KEY (workspace_id, notification_id)
		REFERENCES partner_portal.notification ON DELETE CASCADE,
	CONSTRAINT delivery_attempt_outcome CHECK (outcome IN ('retry', 'ambiguous', 'refused', 'gone', 'configuration', 'aborted', 'lost'))
);
COMMENT ON TABLE partner_portal.delivery_attempt IS 'Attempts that failed, and how. The one that succeeded is in the notification.';
COMMENT ON COLUMN partner_portal.delivery_attempt.outcome IS
'retry; ambiguous (sent, but the answer was lost); refused; gone (HTTP 410); configuration (the relay''s or our settings'' fault, not counted); aborted (we stopped, not counted); lost (an engine died with it).';

ALTER TABLE partner_portal.delivery_attempt ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY signed_in ON partner_portal.delivery_attempt AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
-- A new partner's staff sees nothing of the old partner's time.
CREATE POLICY read ON partner_portal.delivery_attempt FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_settings'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR (workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_settings'))::bigint[])
			AND partner_key = (SELECT partner_portal.current_partner_id())));

SELECT pg_catalog.pg_extension_config_dump('partner_portal.delivery_attempt', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.delivery_attempt_attempt_id_seq', '');

CREATE FUNCTION partner_portal.retry_delay(attempts integer) RETURNS interval
	LANGUAGE sql VOLATILE STRICT
BEGIN ATOMIC
	SELECT (ARRAY[interval '5 seconds', '5 minutes', '30 minutes', '2 hours', '5 hours', '10 hours', '14 hours', '20 hours', '24 hours'])[attempts]
		* (0.8 + 0.4 * random());
END;
COMMENT ON FUNCTION partner_portal.retry_delay(integer) IS
'Time until the next attempt after so many, 20 % more or less at random: 5 s, 5 m, 30 m, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h; NULL after the tenth, which is the last.';
REVOKE ALL ON FUNCTION partner_portal.retry_delay(integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.finish_notification(workspace_id bigint, notification_id bigint, state text, code integer, error text) RETURNS void
	LANGUAGE sql
BEGIN ATOMIC
	DELETE FROM partner_portal.delivery_queue q
	WHERE q.workspace_id = finish_notification.workspace_id AND q.notification_id = finish_notification.notification_id;
	UPDATE partner_portal.notification n
	SET state = finish_notification.state, next_attempt_at = NULL, finished_at = clock_timestamp(),
		last_code = nullif(finish_notification.code, 0), last_error = left(finish_notification.error, 500),
		text_body = CASE WHEN n.secret IS NULL THEN n.text_body ELSE replace(n.text_body, n.secret, '*') END,
		html_body = CASE WHEN n.secret IS NULL THEN n.html_body ELSE replace(n.html_body, n.secret, '*') END,
		secret = CASE WHEN n.secret IS NOT NULL THEN '' END
	WHERE n.workspace_id = finish_notification.workspace_id AND n.notification_id = finish_notification.notification_id;
END;
COMMENT ON FUNCTION partner_portal.finish_notification(bigint, bigint, text, integer, text) IS 'Makes a notification final and blanks a token it carries.';
REVOKE ALL ON FUNCTION partner_portal.finish_notification(bigint, bigint, text, integer, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.record_failure(workspace_id bigint, notification_id bigint, token integer, outcome text,
	code integer, error text, retry_after integer) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	message partner_portal.notification;
	queued partner_portal.delivery_queue;
	wait interval;
	hold interval;
BEGIN
	SELECT * INTO queued FROM partner_portal.delivery_queue q
	WHERE q.workspace_id = record_failure.workspace_id AND q.notification_id = record_failure.notification_id
		AND q.lease_token = record_failure.token FOR UPDATE;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	SELECT * INTO message FROM partner_portal.notification n
	WHERE n.workspace_id = record_failure.workspace_id AND n.notification_id = record_failure.notification_id FOR NO KEY UPDATE;
	INSERT INTO partner_portal.delivery_attempt (workspace_id, notification_id, partner_key, outcome, code, error)
	VALUES (record_failure.workspace_id, record_failure.notification_id, message.partner_key, record_failure.outcome,
		nullif(record_failure.code, 0), left(record_failure.error, 500));

	-- The destination: the more failures in a row, the longer it is left alone; a message's own refusal says nothing about it.
	IF outcome IN ('retry', 'ambiguous', 'configuration', 'gone') THEN
		SELECT CASE WHEN retry_after > 0 THEN make_interval(secs => retry_after)
				WHEN outcome = 'configuration' THEN interval '5 seconds' * least(60, 2 ^ least(t.failures, 6))
				WHEN t.failures >= 4 AND queued.destination <> 0 THEN interval '1 minute' * least(60, t.failures - 3) END
		INTO hold FROM partner_portal.delivery_destination t WHERE t.destination = queued.destination;
		UPDATE partner_portal.delivery_destination t
		SET failures = t.failures + 1, failing_since = coalesce(t.failing_since, clock_timestamp()),
			hold_until = CASE WHEN hold IS NULL THEN t.hold_until ELSE greatest(t.hold_until, clock_timestamp() + hold) END,
			last_error = left(record_failure.error, 500)
		WHERE t.destination = queued.destination;
	END IF;

	IF outcome = 'refused' THEN
		PERFORM partner_portal.finish_notification(record_failure.workspace_id, record_failure.notification_id,
			CASE WHEN code = 0 THEN 'dead' ELSE 'refused' END, code, error);
		UPDATE partner_portal.notification n SET attempts = n.attempts + 1
		WHERE n.workspace_id = record_failure.workspace_id AND n.notification_id = record_failure.notification_id;
		RETURN;
	END IF;
	IF message.expires_at <= clock_timestamp() THEN
		PERFORM partner_portal.finish_notification(record_failure.workspace_id, record_failure.notification_id, 'cancelled', code, 'expired; ' || error);
		RETURN;
	END IF;
	IF outcome IN ('retry', 'ambiguous') THEN
		wait := greatest(partner_portal.retry_delay(message.attempts + 1), make_interval(secs => retry_after));
		IF message.attempts + 1 >= 10 THEN
			PERFORM partner_portal.finish_notification(record_failure.workspace_id, record_failure.notification_id, 'dead', code, error);
			UPDATE partner_portal.notification n SET attempts = n.attempts + 1
			WHERE n.workspace_id = record_failure.workspace_id AND n.notification_id = record_failure.notification_id;
			RETURN;
		END IF;
	ELSE
		-- Not counted. Held back by the destination, if at all; what was merely interrupted is due at once.
		wait := CASE outcome WHEN 'aborted' THEN interval '1 second' ELSE interval '0' END;
	END IF;
	UPDATE partner_portal.delivery_queue q
	SET next_attempt_at = clock_timestamp() + wait, claims = 0, lease_token = NULL, lease_until = NULL
	WHERE q.workspace_id = record_failure.workspace_id AND q.notification_id = record_failure.notification_id;
	UPDATE partner_portal.notification n
	SET attempts = n.attempts + CASE WHEN outcome IN ('retry', 'ambiguous') THEN 1 ELSE 0 END,
		next_attempt_at = clock_timestamp() + wait, last_code = nullif(code, 0), last_error = left(error, 500)
	WHERE n.workspace_id = record_failure.workspace_id AND n.notification_id = record_failure.notification_id;

	-- An endpoint that says it is gone, or that failed for five days on end, gets no more until it is resumed.
	IF queued.destination <> 0 AND (outcome = 'gone' OR EXISTS (SELECT FROM partner_portal.delivery_destination t
			WHERE t.destination = queued.destination AND t.failing_since < clock_timestamp() - interval '5 days')) THEN
		PERFORM partner_portal.set_endpoint_state(e, 'disabled', CASE outcome WHEN 'gone' THEN 'it answered 410 Gone' ELSE 'it failed for five days' END)
		FROM partner_portal.webhook_endpoint e
		WHERE e.workspace_id = record_failure.workspace_id AND e.endpoint_id = queued.destination AND e.state = 'active';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.record_failure(bigint, bigint, integer, text, integer, text, integer) IS
'Records an attempt that failed, if the engine still holds its lease: again by the schedule, dead, refused or cancelled.';
REVOKE ALL ON FUNCTION partner_portal.record_failure(bigint, bigint, integer, text, integer, text, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.release_stale_deliveries(own_token integer) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	token integer;
	lost record;
BEGIN
	-- An engine locks its number while it runs: where the lock can be had, nobody holds the lease any more.
	FOR token IN
		SELECT DISTINCT q.lease_token FROM partner_portal.delivery_queue q
		WHERE q.lease_token IS NOT NULL AND q.lease_token <> own_token
	LOOP
		IF pg_try_advisory_xact_lock(1886413925, token) THEN
			FOR lost IN
				SELECT q.workspace_id, q.notification_id, q.claims, n.partner_key FROM partner_portal.delivery_queue q
				JOIN partner_portal.notification n ON n.workspace_id = q.workspace_id AND n.notification_id = q.notification_id
				WHERE q.lease_token = token FOR UPDATE OF q SKIP LOCKED
			LOOP
				INSERT INTO partner_portal.delivery_attempt (workspace_id, notification_id, partner_key, outcome, error)
				VALUES (lost.workspace_id, lost.notification_id, lost.partner_key, 'lost', 'the engine died before it could record the result');
				IF lost.claims >= 3 THEN
					PERFORM partner_portal.finish_notification(lost.workspace_id, lost.notification_id, 'dead', 0,
						'claimed three times and never recorded');
				ELSE
					UPDATE partner_portal.delivery_queue q SET lease_token = NULL, lease_until = NULL
					WHERE q.workspace_id = lost.workspace_id AND q.notification_id = lost.notification_id;
				END IF;
			END LOOP;
		END IF;
	END LOOP;
	UPDATE partner_portal.delivery_queue q SET lease_token = NULL, lease_until = NULL
	WHERE q.lease_token IS NOT NULL AND q.lease_until < clock_timestamp() AND q.lease_token <> own_token;
END
$$;
COMMENT ON FUNCTION partner_portal.release_stale_deliveries(integer) IS
'Frees what engines had claimed that are no more. A row claimed three times and never recorded becomes a dead letter, since it may be what kills them.';
REVOKE ALL ON FUNCTION partner_portal.release_stale_deliveries(integer) FROM PUBLIC;

CREATE PROCEDURE partner_portal.deliver_notifications(max_rows integer DEFAULT 100)
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_deliver_notifications';
COMMENT ON PROCEDURE partner_portal.deliver_notifications(integer) IS
'Sends what is due, at most max_rows messages, and returns when each has its answer. For installations without the worker, by pg_cron or by hand; any number may run at once. It commits as it goes and cannot run in a transaction block (2D000). PP005 in a restored copy.';
REVOKE ALL ON PROCEDURE partner_portal.deliver_notifications(integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.resend_notification(notification_id bigint) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	message partner_portal.notification;
BEGIN
	SELECT * INTO message FROM partner_portal.notification n WHERE n.notification_id = resend_notification.notification_id;
	IF NOT (message.workspace_id = 0 AND partner_portal.is_operator()) OR message.workspace_id IS NULL THEN
		PERFORM partner_portal.authorize_thing(message.workspace_id, format('notification %s not found', resend_notification.notification_id));
	END IF;
	SELECT * INTO message FROM partner_portal.notification n
	WHERE n.workspace_id = message.workspace_id AND n.notification_id = resend_notification.notification_id FOR NO KEY UPDATE;
	IF message.state = 'pending' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('notification %s is still pending', message.notification_id);
	END IF;
	IF message.expires_at <= now() OR message.secret = '' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('notification %s cannot be sent again', message.notification_id),
			DETAIL = 'It has expired, or the token it carried is blanked.',
			HINT = 'An invitation is sent anew by resend_invitation().';
	END IF;
	UPDATE partner_portal.notification n SET state = 'pending', attempts = 0, next_attempt_at = now(), finished_at = NULL
	WHERE n.workspace_id = message.workspace_id AND n.notification_id = message.notification_id;
	INSERT INTO partner_portal.delivery_queue (workspace_id, notification_id, destination)
	VALUES (message.workspace_id, message.notification_id, coalesce(message.endpoint_id, 0));
END
$$;
COMMENT ON FUNCTION partner_portal.resend_notification(bigint) IS
'Sends a message again that is delivered, refused, dead or cancelled, with the same message id. Needs manage_settings. PP005 if it is pending, has expired, or carried a token.';
REVOKE ALL ON FUNCTION partner_portal.resend_notification(bigint) FROM PUBLIC;

CREATE VIEW partner_portal.delivery_status WITH (security_invoker, security_barrier) AS
	SELECT notification_id, workspace_id, kind, CASE WHEN endpoint_id IS NULL THEN 'mail' ELSE 'webhook' END AS channel, endpoint_id,
		message_id, state, attempts, occurred_at, expires_at, next_attempt_at, finished_at, last_code, last_error
	FROM partner_portal.notification;
COMMENT ON VIEW partner_portal.delivery_status IS
'What became of the messages of workspaces whose settings one may manage; dead letters are those in state dead. It shows neither content nor recipient.';

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.delivery_status'),
	('application', 'SELECT', 'TABLE partner_portal.delivery_attempt'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.resend_notification(bigint)'),
	('operator', 'EXECUTE', 'PROCEDURE partner_portal.deliver_notifications(integer)');
-- security_key.sql: security keys, and every stretch of one being active.

CREATE TABLE partner_portal.security_key (
	workspace_id bigint NOT NULL,
	key_id bigint NOT NULL,
	partner_key bigint NOT NULL DEFAULT 0,
	kind text NOT NULL,
	serial text NOT NULL,
	label text,
	account_id bigint,
	status text NOT NULL DEFAULT 'active',
	disabled_reason text,
	created_at timestamptz NOT NULL DEFAULT now(),
	activated_at timestamptz,
	disabled_at timestamptz,
	CONSTRAINT security_key_pkey PRIMARY KEY (workspace_id, key_id),
	CONSTRAINT security_key_serial_key UNIQUE (workspace_id, serial),
	CONSTRAINT security_key_workspace FOREIGN KEY (workspace_id, partner_key)
		REFERENCES partner_portal.workspace (workspace_id, partner_key) ON UPDATE CASCADE,
	CONSTRAINT security_key_holder FOREIGN KEY (workspace_id, account_id)
		REFERENCES partner_portal.member (workspace_id, account_id) ON DELETE SET NULL (account_id),
	CONSTRAINT security_key_kind CHECK (kind IN ('smartphone', 'contactless_card')),
	CONSTRAINT security_key_status CHECK (status IN ('active', 'disabled', 'revoked')),
	CONSTRAINT security_key_disabled_reason CHECK (disabled_reason IN ('limit', 'partner', 'customer', 'suspended', 'deleted')),
	CONSTRAINT security_key_active CHECK (CASE status WHEN 'active' THEN activated_at IS NOT NULL AND disabled_at IS NULL AND disabled_reason IS NULL
		ELSE disabled_at IS NOT NULL AND disabled_reason IS NOT NULL END),
	CONSTRAINT security_key_serial CHECK (length(serial) BETWEEN 1 AND 200),
	CONSTRAINT security_key_label CHECK (length(label) <= 200)
) WITH (fillfactor = 90);
-- Numbers come from the trigger, so that no client chooses one, not even by COPY.
CREATE SEQUENCE partner_portal.security_key_key_id_seq OWNED BY partner_portal.security_key.key_id;
CREATE INDEX security_key_key_id ON partner_portal.security_key (key_id);
CREATE INDEX security_key_partner_key_idx ON partner_portal.security_key (partner_key);
COMMENT ON TABLE partner_portal.security_key IS
'A device that signs a user in. Plain INSERT, UPDATE (status, label, account_id), DELETE, MERGE and COPY; triggers enforce the limit (PP001), stamp the times and keep the history. TRUNCATE is refused (0A000).';
COMMENT ON COLUMN partner_portal.security_key.serial IS 'The device''s own number, unique per workspace.';
COMMENT ON COLUMN partner_portal.security_key.account_id IS 'Holder, a member of the workspace; NULL is nobody. A change of holder while active begins a new stretch.';
COMMENT ON COLUMN partner_portal.security_key.status IS 'active, disabled, or revoked, which is final.';
COMMENT ON COLUMN partner_portal.security_key.disabled_reason IS 'Stamped by the server: limit, partner (the operator''s act too), customer, suspended, deleted.';
COMMENT ON COLUMN partner_portal.security_key.activated_at IS 'Start of the running or last active stretch, by the server''s clock; NULL was never active.';
COMMENT ON COLUMN partner_portal.security_key.disabled_at IS 'End of the last active stretch, by the server''s clock.';

-- Closed stretches. The running one is the live row of security_key.
CREATE TABLE partner_portal.key_history (
	workspace_id bigint NOT NULL,
	key_id bigint NOT NULL,
	active_from timestamptz NOT NULL,
	active_until timestamptz NOT NULL,
	kind text NOT NULL,
	account_id bigint,
	recorded_at timestamptz NOT NULL,
	partner_key bigint NOT NULL,
	CONSTRAINT key_history_pkey PRIMARY KEY (workspace_id, key_id, active_from),
	CONSTRAINT key_history_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace,
	CONSTRAINT key_history_stretch CHECK (active_from < active_until AND isfinite(active_from) AND isfinite(active_until)),
	CONSTRAINT key_history_kind CHECK (kind IN ('smartphone', 'contactless_card'))
);
CREATE INDEX key_history_active_until ON partner_portal.key_history (workspace_id, active_until);
COMMENT ON TABLE partner_portal.key_history IS 'Closed active stretches of keys, half-open, also of keys that are deleted; empty ones are not kept. Written by triggers and import_key_activity() only.';
COMMENT ON COLUMN partner_portal.key_history.recorded_at IS 'When the stretch became known: its start, or the instant of an import.';
COMMENT ON COLUMN partner_portal.key_history.partner_key IS 'Partner of the workspace when the stretch ended, 0 for none; it does not follow a transfer.';

CREATE VIEW partner_portal.key_activity WITH (security_invoker, security_barrier) AS
	SELECT workspace_id, key_id, kind, account_id, tstzrange(active_from, active_until) AS active, recorded_at
	FROM partner_portal.key_history
	UNION ALL
	SELECT workspace_id, key_id, kind, account_id, tstzrange(activated_at, NULL), activated_at
	FROM partner_portal.security_key
	WHERE status = 'active';
COMMENT ON VIEW partner_portal.key_activity IS 'Every stretch of a key being active, half-open: closed ones and the running one (unbounded above). Every measure of a bill follows from it.';

ALTER TABLE partner_portal.security_key ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.key_history ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.security_key AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.security_key FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[]));
-- One for each command: who may manage may read, and a policy for all commands would make each look-up ask twice.
CREATE POLICY add ON partner_portal.security_key FOR INSERT
	WITH CHECK (workspace_id = (SELECT partner_portal.own_workspace('manage_keys'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_keys'))::bigint[]));
CREATE POLICY change ON partner_portal.security_key FOR UPDATE
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_keys'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_keys'))::bigint[]))
	WITH CHECK (workspace_id = (SELECT partner_portal.own_workspace('manage_keys'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_keys'))::bigint[]));
CREATE POLICY remove ON partner_portal.security_key FOR DELETE
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_keys'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_keys'))::bigint[]));

CREATE POLICY signed_in ON partner_portal.key_history AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
-- A new partner's staff sees nothing of the old partner's time; a complete grant is for all of it.
CREATE POLICY read ON partner_portal.key_history FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.complete_workspaces('read'))::bigint[])
		OR (workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[])
			AND partner_key = (SELECT partner_portal.current_partner_id())));

SELECT pg_catalog.pg_extension_config_dump('partner_portal.security_key', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.security_key_key_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.key_history', '');

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.security_key'),
	('application', 'INSERT (workspace_id, kind, serial, label, account_id, status)', 'TABLE partner_portal.security_key'),
	('application', 'UPDATE (status, label, account_id)', 'TABLE partner_portal.security_key'),
	('application', 'DELETE', 'TABLE partner_portal.security_key'),
	('application', 'SELECT', 'TABLE partner_portal.key_history'),
	('application', 'SELECT', 'TABLE partner_portal.key_activity');
-- billing_period.sql: stored billing periods, without overlap or hole by constraint, and the usage of closed ones.

-- Each period names the end of the one before it (previous_end), once per end and once per workspace for none: so the
-- periods of a workspace form one line. The next begins where the last ended; only one that resumes, after a deletion
-- was undone, begins later.
CREATE TABLE partner_portal.billing_period (
	workspace_id bigint NOT NULL,
	period_start timestamptz NOT NULL,
	period_end timestamptz NOT NULL,
	previous_end timestamptz,
	resumes boolean NOT NULL DEFAULT false,
	label text NOT NULL,
	time_zone text NOT NULL,
	partner_key bigint NOT NULL,
	opened_at timestamptz NOT NULL DEFAULT now(),
	closed_at timestamptz,
	late_facts_at timestamptz,
	whole_start timestamptz,
	whole_end timestamptz,
	payer_id bigint,
	invoice_visibility text,
	billed_at timestamptz,
	CONSTRAINT billing_period_pkey PRIMARY KEY (workspace_id, period_start),
	CONSTRAINT billing_period_end_key UNIQUE (workspace_id, period_end),
	CONSTRAINT billing_period_previous_key UNIQUE NULLS NOT DISTINCT (workspace_id, previous_end),
	CONSTRAINT billing_period_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace,
	CONSTRAINT billing_period_previous FOREIGN KEY (workspace_id, previous_end)
		REFERENCES partner_portal.billing_period (workspace_id, period_end),
	CONSTRAINT billing_period_whole CHECK (whole_start <= period_start AND whole_end >= period_end),
	CONSTRAINT billing_period_invoice_visibility CHECK (invoice_visibility IN ('payer', 'both')),
	CONSTRAINT billing_period_bounds CHECK (period_start < period_end AND isfinite(period_start) AND isfinite(period_end)),
	CONSTRAINT billing_period_no_hole CHECK (CASE WHEN resumes THEN previous_end IS NOT NULL AND previous_end < period_start
		ELSE previous_end = period_start END)
);
CREATE INDEX billing_period_unbilled ON partner_portal.billing_period (workspace_id, period_start) WHERE billed_at IS NULL;
CREATE INDEX billing_period_due ON partner_portal.billing_period (period_end) WHERE closed_at IS NULL;
COMMENT ON TABLE partner_portal.billing_period IS
'Billing periods [period_start, period_end) of a workspace as they were when they opened: a chain without overlap or hole.';
COMMENT ON COLUMN partner_portal.billing_period.label IS 'First and last local date, as 2026-02-28..2026-03-30.';
COMMENT ON COLUMN partner_portal.billing_period.partner_key IS 'Partner when the period opened, 0 for none; it does not follow a transfer.';
COMMENT ON COLUMN partner_portal.billing_period.time_zone IS 'Zone of the workspace when the period opened: its local dates are of this zone.';
COMMENT ON COLUMN partner_portal.billing_period.resumes IS 'Begins after a hole: the workspace was deleted and restored.';
COMMENT ON COLUMN partner_portal.billing_period.late_facts_at IS 'When import_key_activity() last brought in a fact of this period after it was closed; its stored usage lacks it.';
COMMENT ON COLUMN partner_portal.billing_period.whole_start IS 'With whole_end, the whole period that this is a part of: it was split, or a change of schedule cut it. It bears flat fees and minimums by its share of local dates. NULL is whole.';
COMMENT ON COLUMN partner_portal.billing_period.payer_id IS 'Workspace that pays a platform plan''s invoice of the period, as it was at its start.';
COMMENT ON COLUMN partner_portal.billing_period.invoice_visibility IS 'workspace.invoice_visibility at its start.';
COMMENT ON COLUMN partner_portal.billing_period.billed_at IS 'When it was settled whether the period has a document; a run does not look at it again.';
COMMENT ON COLUMN partner_portal.billing_period.closed_at IS 'When its usage was stored for good in usage_period.';

CREATE TABLE partner_portal.usage_period (
	workspace_id bigint NOT NULL,
	period_start timestamptz NOT NULL,
	kind text NOT NULL,
	partner_key bigint NOT NULL,
	distinct_keys integer NOT NULL,
	peak_keys integer NOT NULL,
	peak_at timestamptz,
	end_keys integer NOT NULL,
	start_keys integer NOT NULL,
	key_days numeric NOT NULL,
	key_seconds numeric NOT NULL,
	users integer NOT NULL,
	known_at timestamptz NOT NULL,
	CONSTRAINT usage_period_pkey PRIMARY KEY (workspace_id, period_start, kind),
	CONSTRAINT usage_period_period FOREIGN KEY (workspace_id, period_start) REFERENCES partner_portal.billing_period,
	CONSTRAINT usage_period_kind CHECK (kind IN ('smartphone', 'contactless_card', 'total'))
);
CREATE INDEX usage_period_partner_key_idx ON partner_portal.usage_period (partner_key);
COMMENT ON TABLE partner_portal.usage_period IS
'Measures of a billing period, per kind and in total: of a closed one for good, of the running one as of known_at.';

ALTER TABLE partner_portal.billing_period ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.usage_period ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.billing_period AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
-- A new partner's staff sees nothing of the old partner's time; a complete grant is for all of it.
CREATE POLICY read ON partner_portal.billing_period FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.complete_workspaces('read'))::bigint[])
		OR (workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[])
			AND partner_key = (SELECT partner_portal.current_partner_id())));

CREATE POLICY signed_in ON partner_portal.usage_period AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
-- A new partner's staff sees nothing of the old partner's time; a complete grant is for all of it.
CREATE POLICY read ON partner_portal.usage_period FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.complete_workspaces('read'))::bigint[])
		OR (workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[])
			AND partner_key = (SELECT partner_portal.current_partner_id())));

-- Dumped in order: each row's predecessor is there when it is restored by an INSERT of its own.
SELECT pg_catalog.pg_extension_config_dump('partner_portal.billing_period', 'ORDER BY workspace_id, period_start');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.usage_period', '');

-- The formula.

CREATE FUNCTION partner_portal.check_time_zone(time_zone text) RETURNS text
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_check_time_zone';
COMMENT ON FUNCTION partner_portal.check_time_zone(text) IS
'Returns the name of a zone as the IANA time zone database spells it; 22023 if the server does not know it: abbreviations, POSIX strings and names that AT TIME ZONE reads as abbreviations (CET, EST) are none.';
REVOKE ALL ON FUNCTION partner_portal.check_time_zone(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.billing_period_bounds(anchor_date date, billing_step text, time_zone text, at timestamptz,
		OUT period_start timestamptz, OUT period_end timestamptz)
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_billing_period_bounds';
COMMENT ON FUNCTION partner_portal.billing_period_bounds(date, text, text, timestamptz) IS
'The boundaries (anchor_date::timestamp + n * step) AT TIME ZONE time_zone that an instant lies between. 22008 outside the years 1900 to 2999, 22023 unknown zone or step.';
REVOKE ALL ON FUNCTION partner_portal.billing_period_bounds(date, text, text, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.billing_periods(anchor_date date, billing_step text, time_zone text, since timestamptz, until timestamptz)
	RETURNS TABLE (period_start timestamptz, period_end timestamptz, label text)
	LANGUAGE c STABLE STRICT PARALLEL SAFE ROWS 12 AS 'MODULE_PATHNAME', 'partner_portal_billing_periods';
COMMENT ON FUNCTION partner_portal.billing_periods(date, text, text, timestamptz, timestamptz) IS
'Every period that begins by until, in order; the first begins at since and ends at the next boundary.';
REVOKE ALL ON FUNCTION partner_portal.billing_periods(date, text, text, timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.period_label(period_start timestamptz, period_end timestamptz, time_zone text) RETURNS text
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_period_label';
COMMENT ON FUNCTION partner_portal.period_label(timestamptz, timestamptz, text) IS 'First and last local date of a period, as 2026-02-28..2026-03-30.';
REVOKE ALL ON FUNCTION partner_portal.period_label(timestamptz, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.find_period(workspace_id bigint, at timestamptz) RETURNS tstzrange
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		SELECT CASE WHEN before.period_end > find_period.at THEN tstzrange(before.period_start, before.period_end)
			ELSE tstzrange(greatest(f.period_start, before.period_end), least(f.period_end, later.period_start)) END
		FROM partner_portal.workspace w
		CROSS JOIN LATERAL partner_portal.billing_period_bounds(w.anchor_date, w.billing_step, w.time_zone, find_period.at) f
		LEFT JOIN LATERAL (
			SELECT p.period_start, p.period_end FROM partner_portal.billing_period p
			WHERE p.workspace_id = find_period.workspace_id AND p.period_start <= find_period.at
			ORDER BY p.period_start DESC LIMIT 1) before ON true
		LEFT JOIN LATERAL (
			SELECT p.period_start FROM partner_portal.billing_period p
			WHERE p.workspace_id = find_period.workspace_id AND p.period_start > find_period.at
			ORDER BY p.period_start LIMIT 1) later ON true
		WHERE w.workspace_id = find_period.workspace_id;
	END;
COMMENT ON FUNCTION partner_portal.find_period(bigint, timestamptz) IS 'billing_period_at() without asking who may know; internal.';
REVOKE ALL ON FUNCTION partner_portal.find_period(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.billing_period_at(workspace_id bigint, at timestamptz DEFAULT now()) RETURNS tstzrange
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.authorize('read', billing_period_at.workspace_id);
	IF billing_period_at.at IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'instant must not be null';
	END IF;
	RETURN partner_portal.find_period(billing_period_at.workspace_id, billing_period_at.at);
END
$$;
COMMENT ON FUNCTION partner_portal.billing_period_at(bigint, timestamptz) IS
'Billing period [start, end) that an instant lies in: the stored one if there is one, else the formula''s, cut where stored ones begin or end. 22008 outside the years 1900 to 2999.';
REVOKE ALL ON FUNCTION partner_portal.billing_period_at(bigint, timestamptz) FROM PUBLIC;

-- Opening. Callers of add_periods() hold the workspace's row, so that its zone, anchor and step stay as they are read.

CREATE FUNCTION partner_portal.add_periods(workspace_ids bigint[], as_of timestamptz) RETURNS void
	LANGUAGE sql
	BEGIN ATOMIC
		INSERT INTO partner_portal.billing_period (workspace_id, period_start, period_end, previous_end, label, time_zone, partner_key)
		SELECT w.workspace_id, f.period_start, f.period_end,
			CASE WHEN last.period_end IS NOT NULL OR f.period_start > first.period_start THEN f.period_start END,
			f.label, w.time_zone, w.partner_key
		FROM partner_portal.workspace w
		LEFT JOIN LATERAL (
			SELECT p.period_end FROM partner_portal.billing_period p
			WHERE p.workspace_id = w.workspace_id
			ORDER BY p.period_start DESC LIMIT 1) last ON true
		LEFT JOIN LATERAL partner_portal.billing_period_bounds(w.anchor_date, w.billing_step, w.time_zone, w.created_at) first
			ON last.period_end IS NULL
		CROSS JOIN LATERAL partner_portal.billing_periods(w.anchor_date, w.billing_step, w.time_zone,
			coalesce(last.period_end, first.period_start), greatest(add_periods.as_of, CASE WHEN last.period_end IS NULL THEN w.created_at END)) f
		WHERE w.workspace_id = ANY (add_periods.workspace_ids)
		ORDER BY w.workspace_id, f.period_start
		ON CONFLICT ON CONSTRAINT billing_period_pkey DO NOTHING;
	END;
COMMENT ON FUNCTION partner_portal.add_periods(bigint[], timestamptz) IS
'Opens every missing period up to an instant, in order, from the end of each workspace''s last one, or from its creation; internal.';
REVOKE ALL ON FUNCTION partner_portal.add_periods(bigint[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.open_periods(workspace_id bigint, as_of timestamptz) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = open_periods.workspace_id FOR NO KEY UPDATE;
	PERFORM partner_portal.add_periods(ARRAY[open_periods.workspace_id], open_periods.as_of);
END
$$;
COMMENT ON FUNCTION partner_portal.open_periods(bigint, timestamptz) IS 'Opens every missing period of a workspace up to an instant; internal.';
REVOKE ALL ON FUNCTION partner_portal.open_periods(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.add_earlier_periods(workspace_id bigint, since timestamptz) RETURNS void
	LANGUAGE sql
	BEGIN ATOMIC
		WITH moved AS (
			UPDATE partner_portal.billing_period p SET previous_end = p.period_start
			WHERE p.workspace_id = add_earlier_periods.workspace_id AND p.previous_end IS NULL AND p.period_start > add_earlier_periods.since
			RETURNING p.workspace_id, p.period_start, p.partner_key)
		INSERT INTO partner_portal.billing_period (workspace_id, period_start, period_end, previous_end, label, time_zone, partner_key)
		SELECT w.workspace_id, f.period_start, least(f.period_end, moved.period_start),
			CASE WHEN f.period_start > first.period_start THEN f.period_start END,
			partner_portal.period_label(f.period_start, least(f.period_end, moved.period_start), w.time_zone), w.time_zone, moved.partner_key
		FROM moved
		JOIN partner_portal.workspace w ON w.workspace_id = moved.workspace_id
		CROSS JOIN LATERAL partner_portal.billing_period_bounds(w.anchor_date, w.billing_step, w.time_zone, add_earlier_periods.since) first
		CROSS JOIN LATERAL partner_portal.billing_periods(w.anchor_date, w.billing_step, w.time_zone, first.period_start, moved.period_start) f
		WHERE f.period_start < moved.period_start;
	END;
COMMENT ON FUNCTION partner_portal.add_earlier_periods(bigint, timestamptz) IS
'Opens the periods from an instant before a workspace''s first one up to it, so that imported history is measured and listed; internal.';
REVOKE ALL ON FUNCTION partner_portal.add_earlier_periods(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.workspace_schedule() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'INSERT' THEN
		IF partner_portal.restoring_session() THEN
			RETURN NEW;
		END IF;
		NEW.time_zone := partner_portal.check_time_zone(NEW.time_zone);
		NEW.anchor_date := coalesce(NEW.anchor_date, (NEW.created_at AT TIME ZONE NEW.time_zone)::date);
		RETURN NEW;
	END IF;
	IF NEW.time_zone IS DISTINCT FROM OLD.time_zone THEN
		NEW.time_zone := partner_portal.check_time_zone(NEW.time_zone);
	END IF;
	-- What has begun keeps the schedule and the partner it began with.
	IF OLD.deleted_at IS NULL THEN
		PERFORM partner_portal.add_periods(ARRAY[OLD.workspace_id], clock_timestamp());
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION partner_portal.workspace_schedule() IS
'Trigger: checks the zone (22023), sets the default anchor, and before zone, anchor, step or partner change opens the periods that have begun, so that the change begins at the end of the current one.';
REVOKE ALL ON FUNCTION partner_portal.workspace_schedule() FROM PUBLIC;

CREATE TRIGGER workspace_schedule_insert BEFORE INSERT ON partner_portal.workspace
	FOR EACH ROW EXECUTE FUNCTION partner_portal.workspace_schedule();
CREATE TRIGGER workspace_schedule_update BEFORE UPDATE ON partner_portal.workspace
	FOR EACH ROW WHEN ((OLD.time_zone, OLD.anchor_date, OLD.billing_step, OLD.partner_id) IS DISTINCT FROM
		(NEW.time_zone, NEW.anchor_date, NEW.billing_step, NEW.partner_id))
	EXECUTE FUNCTION partner_portal.workspace_schedule();

CREATE FUNCTION partner_portal.workspace_first_period() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT partner_portal.restoring_session() THEN
		PERFORM partner_portal.add_periods(array_agg(c.workspace_id), NULL) FROM created c;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.workspace_first_period() IS 'Trigger: opens the billing period that a workspace is created in.';
REVOKE ALL ON FUNCTION partner_portal.workspace_first_period() FROM PUBLIC;

CREATE TRIGGER workspace_first_period AFTER INSERT ON partner_portal.workspace
	REFERENCING NEW TABLE AS created
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.workspace_first_period();

-- Splitting, ending, resuming.

CREATE FUNCTION partner_portal.end_periods(workspace_id bigint, at timestamptz) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	ended timestamptz;
BEGIN
	PERFORM partner_portal.open_periods(end_periods.workspace_id, end_periods.at);
	SELECT greatest(end_periods.at, max(p.period_end) FILTER (WHERE p.closed_at IS NOT NULL)) INTO ended
	FROM partner_portal.billing_period p WHERE p.workspace_id = end_periods.workspace_id;
	DELETE FROM partner_portal.usage_period u
	WHERE u.workspace_id = end_periods.workspace_id AND u.period_start >= ended;
	DELETE FROM partner_portal.billing_period p
	WHERE p.workspace_id = end_periods.workspace_id AND p.period_start >= ended;
	UPDATE partner_portal.billing_period p
	SET period_end = ended, label = partner_portal.period_label(p.period_start, ended, p.time_zone)
	WHERE p.workspace_id = end_periods.workspace_id AND p.period_end > ended;
END
$$;
COMMENT ON FUNCTION partner_portal.end_periods(bigint, timestamptz) IS
'Ends the running period of a workspace at an instant and opens no other: for its deletion. A closed period is never cut; internal.';
REVOKE ALL ON FUNCTION partner_portal.end_periods(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.start_periods(workspace_id bigint, at timestamptz) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = start_periods.workspace_id FOR NO KEY UPDATE;
	INSERT INTO partner_portal.billing_period (workspace_id, period_start, period_end, previous_end, resumes, label, time_zone, partner_key)
	SELECT w.workspace_id, s.period_start, f.period_end, last.period_end, coalesce(last.period_end < s.period_start, false),
		partner_portal.period_label(s.period_start, f.period_end, w.time_zone), w.time_zone, w.partner_key
	FROM partner_portal.workspace w
	LEFT JOIN LATERAL (
		SELECT p.period_end, p.closed_at FROM partner_portal.billing_period p
		WHERE p.workspace_id = w.workspace_id
		ORDER BY p.period_start DESC LIMIT 1) last ON true
	CROSS JOIN LATERAL (SELECT greatest(start_periods.at, last.period_end) AS period_start) s
	CROSS JOIN LATERAL partner_portal.billing_period_bounds(w.anchor_date, w.billing_step, w.time_zone, s.period_start) f
	WHERE w.workspace_id = start_periods.workspace_id
		AND (last.period_end IS NULL OR last.period_end <= start_periods.at OR last.closed_at IS NOT NULL);
END
$$;
COMMENT ON FUNCTION partner_portal.start_periods(bigint, timestamptz) IS
'Begins a period at an instant after the periods of a workspace were ended: for its restoration, the one hole there may be. After a period that was closed before its end, it begins there. Does nothing while one is running; internal.';
REVOKE ALL ON FUNCTION partner_portal.start_periods(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.split_period(workspace_id bigint, at timestamptz) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	split_at timestamptz;
	running partner_portal.billing_period;
BEGIN
	PERFORM partner_portal.open_periods(split_period.workspace_id, split_period.at);
	SELECT greatest(split_period.at, max(p.period_end) FILTER (WHERE p.closed_at IS NOT NULL)) INTO split_at
	FROM partner_portal.billing_period p WHERE p.workspace_id = split_period.workspace_id;
	SELECT p.* INTO running FROM partner_portal.billing_period p
	WHERE p.workspace_id = split_period.workspace_id AND p.period_start < split_at AND p.period_end > split_at
	FOR UPDATE;
	IF FOUND THEN
		WITH cut AS (
			UPDATE partner_portal.billing_period p
			SET period_end = split_at, label = partner_portal.period_label(p.period_start, split_at, p.time_zone)
			WHERE p.workspace_id = running.workspace_id AND p.period_start = running.period_start
			RETURNING p.workspace_id)
		INSERT INTO partner_portal.billing_period (workspace_id, period_start, period_end, previous_end, label, time_zone, partner_key)
		SELECT cut.workspace_id, split_at, running.period_end, split_at,
			partner_portal.period_label(split_at, running.period_end, running.time_zone), running.time_zone, 0
		FROM cut;
	END IF;
	-- What begins from here on is the present partner's.
	UPDATE partner_portal.billing_period p SET partner_key = w.partner_key
	FROM partner_portal.workspace w
	WHERE w.workspace_id = split_period.workspace_id AND p.workspace_id = split_period.workspace_id
		AND p.period_start >= split_at AND p.partner_key <> w.partner_key;
END
$$;
COMMENT ON FUNCTION partner_portal.split_period(bigint, timestamptz) IS
'Ends the running period of a workspace at an instant and lets the next one begin there, up to the old end, for the present partner. A closed period is never cut; internal.';
REVOKE ALL ON FUNCTION partner_portal.split_period(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.workspace_moved() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NEW.deleted_at IS NULL AND NOT partner_portal.restoring_session() THEN
		PERFORM partner_portal.split_period(NEW.workspace_id, clock_timestamp());
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.workspace_moved() IS 'Trigger: a change of partner ends the running billing period and begins one for the new partner.';
REVOKE ALL ON FUNCTION partner_portal.workspace_moved() FROM PUBLIC;

CREATE TRIGGER workspace_moved AFTER UPDATE ON partner_portal.workspace
	FOR EACH ROW WHEN (OLD.partner_id IS DISTINCT FROM NEW.partner_id)
	EXECUTE FUNCTION partner_portal.workspace_moved();

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.billing_period'),
	('application', 'SELECT', 'TABLE partner_portal.usage_period'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.billing_period_at(bigint, timestamptz)');
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
COMMENT ON FUNCTION partner_portal.refuse_truncate() IS 'Trigger of tables whose rows are counted: TRUNCATE is 0A000.';
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
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.refuse_truncate();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON partner_portal.key_history
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.refuse_truncate();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON partner_portal.workspace_usage
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.refuse_truncate();

CREATE TRIGGER count_insert AFTER INSERT ON partner_portal.member
	REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.count_owners();
CREATE TRIGGER count_update AFTER UPDATE ON partner_portal.member
	REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.count_owners();
CREATE TRIGGER count_delete AFTER DELETE ON partner_portal.member
	REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.count_owners();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON partner_portal.member
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.refuse_truncate();

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
-- usage.sql: the measures of billing periods, from the facts in key_history and security_key alone.

CREATE TYPE partner_portal.measure AS (
	distinct_keys integer,
	peak_keys integer,
	peak_at timestamptz,
	end_keys integer,
	start_keys integer,
	key_days numeric,
	key_seconds numeric,
	users integer
);
COMMENT ON TYPE partner_portal.measure IS 'Every measure of one group of keys over one period.';

CREATE FUNCTION partner_portal.measure_add(internal, timestamptz, timestamptz, text, bigint, bigint, timestamptz, timestamptz) RETURNS internal
	LANGUAGE c PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_measure_add';
COMMENT ON FUNCTION partner_portal.measure_add(internal, timestamptz, timestamptz, text, bigint, bigint, timestamptz, timestamptz) IS
'Transition of measure_stretches(); internal.';
REVOKE ALL ON FUNCTION partner_portal.measure_add(internal, timestamptz, timestamptz, text, bigint, bigint, timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.measure_final(internal) RETURNS partner_portal.measure
	LANGUAGE c PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_measure_final';
COMMENT ON FUNCTION partner_portal.measure_final(internal) IS 'Final function of measure_stretches(); internal.';
REVOKE ALL ON FUNCTION partner_portal.measure_final(internal) FROM PUBLIC;

CREATE AGGREGATE partner_portal.measure_stretches(period_start timestamptz, period_end timestamptz, time_zone text,
		key_id bigint, account_id bigint, active_from timestamptz, active_until timestamptz) (
	SFUNC = partner_portal.measure_add,
	STYPE = internal,
	SSPACE = 4096,
	FINALFUNC = partner_portal.measure_final,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE partner_portal.measure_stretches(timestamptz, timestamptz, text, bigint, bigint, timestamptz, timestamptz) IS
'Measures of a group of active stretches over one period in a time zone; a stretch without start is none, one without end is running.';
REVOKE ALL ON FUNCTION partner_portal.measure_stretches(timestamptz, timestamptz, text, bigint, bigint, timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.local_dates(period_start timestamptz, period_end timestamptz, time_zone text) RETURNS integer
	LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_local_dates';
COMMENT ON FUNCTION partner_portal.local_dates(timestamptz, timestamptz, text) IS
'How many local dates [period_start, period_end) touches; a date that the zone skipped is none. 22008 outside the years 1900 to 2999.';
REVOKE ALL ON FUNCTION partner_portal.local_dates(timestamptz, timestamptz, text) FROM PUBLIC;

-- A stretch is history once it has ended; asked for what was known before its end, it is one that was running.
CREATE FUNCTION partner_portal.measure_usage(workspace_ids bigint[], starts timestamptz[], ends timestamptz[], time_zones text[], known_at timestamptz)
	RETURNS TABLE (workspace_id bigint, period_start timestamptz, kind text, distinct_keys integer, peak_keys integer, peak_at timestamptz,
		end_keys integer, start_keys integer, key_days numeric, key_seconds numeric, users integer)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		WITH asked AS MATERIALIZED (
			SELECT a.workspace_id, a.period_start, a.period_end, a.time_zone
			FROM unnest(measure_usage.workspace_ids, measure_usage.starts, measure_usage.ends, measure_usage.time_zones)
				AS a (workspace_id, period_start, period_end, time_zone)
		), measured AS MATERIALIZED (
			SELECT a.workspace_id, a.period_start, coalesce(f.kind, 'total') AS kind,
				partner_portal.measure_stretches(a.period_start, a.period_end, a.time_zone,
					f.key_id, f.account_id, f.active_from, f.active_until) AS m
			FROM asked a
			CROSS JOIN LATERAL (
				SELECT h.kind, h.key_id, h.account_id, h.active_from,
					CASE WHEN h.active_until <= coalesce(measure_usage.known_at, 'infinity') THEN h.active_until END AS active_until
				FROM partner_portal.key_history h
				WHERE h.workspace_id = a.workspace_id
					AND h.active_until > least(a.period_start, measure_usage.known_at)
					AND h.active_from < a.period_end
					AND h.recorded_at <= coalesce(measure_usage.known_at, 'infinity')
				UNION ALL
				SELECT k.kind, k.key_id, k.account_id, k.activated_at, NULL
				FROM partner_portal.security_key k
				WHERE k.workspace_id = a.workspace_id AND k.status = 'active'
					AND k.activated_at < a.period_end
					AND k.activated_at <= coalesce(measure_usage.known_at, 'infinity')
			) f
			GROUP BY GROUPING SETS ((a.workspace_id, a.period_start, f.kind), (a.workspace_id, a.period_start))
		)
		SELECT a.workspace_id, a.period_start, g.kind, coalesce((m.m).distinct_keys, 0), coalesce((m.m).peak_keys, 0), (m.m).peak_at,
			coalesce((m.m).end_keys, 0), coalesce((m.m).start_keys, 0), coalesce((m.m).key_days, 0), coalesce((m.m).key_seconds, 0),
			coalesce((m.m).users, 0)
		FROM asked a
		CROSS JOIN (VALUES (1, 'contactless_card'), (2, 'smartphone'), (3, 'total')) g (place, kind)
		LEFT JOIN measured m ON m.workspace_id = a.workspace_id AND m.period_start = a.period_start AND m.kind = g.kind
		ORDER BY a.workspace_id, a.period_start, g.place;
	END;
COMMENT ON FUNCTION partner_portal.measure_usage(bigint[], timestamptz[], timestamptz[], text[], timestamptz) IS
'Measures of many workspaces and periods at once, each per kind and in total (kind total), zeros included, as they were known at an instant (NULL is now); internal.';
REVOKE ALL ON FUNCTION partner_portal.measure_usage(bigint[], timestamptz[], timestamptz[], text[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.check_period(period tstzrange) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF period IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'period must not be null';
	ELSIF isempty(period) OR lower_inf(period) OR upper_inf(period) OR NOT isfinite(lower(period)) OR NOT isfinite(upper(period))
		OR NOT lower_inc(period) OR upper_inc(period) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'period must have a start and an end',
			DETAIL = 'It is half-open, not empty, and bounded on both sides.', HINT = 'Write it as [start, end).';
	ELSIF lower(period) < timestamptz '1900-01-01 00:00+00' OR upper(period) >= timestamptz '3000-01-01 00:00+00' THEN
		RAISE EXCEPTION USING ERRCODE = 'datetime_field_overflow', MESSAGE = 'timestamp out of range for a billing period',
			DETAIL = 'Billing periods are known from the year 1900 to the year 2999.';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.check_period(tstzrange) IS 'Returns for a bounded half-open range of the years 1900 to 2999; else 22004, 22023, 22008. Internal.';
REVOKE ALL ON FUNCTION partner_portal.check_period(tstzrange) FROM PUBLIC;

-- A registered customer's past with another partner is not its present partner's to read.
CREATE FUNCTION partner_portal.check_period_visible(workspace_id bigint, period tstzrange) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF EXISTS (SELECT FROM partner_portal.workspace w
			JOIN partner_portal.billing_period p ON p.workspace_id = w.workspace_id AND p.partner_key <> w.partner_key
			WHERE w.workspace_id = check_period_visible.workspace_id AND w.partner_id = partner_portal.current_partner_id()
				AND p.period_end > lower(check_period_visible.period)) THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'usage before the customer came to the partner is not visible';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.check_period_visible(bigint, tstzrange) IS 'Returns unless the identity acts for the customer''s partner and the period begins before the customer came to it: 42501. Internal.';
REVOKE ALL ON FUNCTION partner_portal.check_period_visible(bigint, tstzrange) FROM PUBLIC;

CREATE FUNCTION partner_portal.usage(workspace_id bigint, period tstzrange DEFAULT NULL, known_at timestamptz DEFAULT NULL)
	RETURNS TABLE (kind text, distinct_keys integer, peak_keys integer, peak_at timestamptz, end_keys integer, start_keys integer,
		key_days numeric, key_seconds numeric, users integer)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	asked tstzrange;
	stored partner_portal.billing_period;
BEGIN
	PERFORM partner_portal.authorize('read', usage.workspace_id);
	asked := coalesce(usage.period, partner_portal.find_period(usage.workspace_id, now()));
	PERFORM partner_portal.check_period(asked);
	PERFORM partner_portal.check_period_visible(usage.workspace_id, asked);
	SELECT p.* INTO stored FROM partner_portal.billing_period p
	WHERE p.workspace_id = usage.workspace_id AND p.period_start <= lower(asked) AND p.period_end > lower(asked);
	IF stored.closed_at IS NOT NULL AND stored.period_start = lower(asked) AND stored.period_end = upper(asked)
		AND stored.late_facts_at IS NULL THEN
		RETURN QUERY
		SELECT nullif(u.kind, 'total'), u.distinct_keys, u.peak_keys, u.peak_at, u.end_keys, u.start_keys, u.key_days, u.key_seconds, u.users
		FROM partner_portal.usage_period u
		WHERE u.workspace_id = usage.workspace_id AND u.period_start = lower(asked)
			AND (usage.known_at IS NULL OR usage.known_at >= u.known_at)
		ORDER BY u.kind;
		IF FOUND THEN
			RETURN;
		END IF;
	END IF;
	RETURN QUERY
	SELECT nullif(m.kind, 'total'), m.distinct_keys, m.peak_keys, m.peak_at, m.end_keys, m.start_keys, m.key_days, m.key_seconds, m.users
	FROM partner_portal.workspace w
	CROSS JOIN LATERAL partner_portal.measure_usage(ARRAY[w.workspace_id], ARRAY[lower(asked)], ARRAY[upper(asked)],
		ARRAY[coalesce(stored.time_zone, w.time_zone)], usage.known_at) m
	WHERE w.workspace_id = usage.workspace_id;
END
$$;
COMMENT ON FUNCTION partner_portal.usage(bigint, tstzrange, timestamptz) IS
'Measures of a workspace over a period [start, end), one row per kind and one in total (kind NULL). period NULL is the current one; known_at NULL is now, what this transaction did included. A key still active counts as active up to the end of the period. 22023 period empty or unbounded, 22008 outside the years 1900 to 2999; 42501, P0002 as authorize().';
REVOKE ALL ON FUNCTION partner_portal.usage(bigint, tstzrange, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.csv_field(value text) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN CASE WHEN value ~ '[",\r\n]|^\s|\s$' THEN '"' || replace(value, '"', '""') || '"' ELSE coalesce(value, '') END;
COMMENT ON FUNCTION partner_portal.csv_field(text) IS 'A value as a field of a CSV line (RFC 4180): quoted where it must be, NULL empty.';
REVOKE ALL ON FUNCTION partner_portal.csv_field(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.usage_csv(workspace_id bigint, period tstzrange DEFAULT NULL) RETURNS text
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked tstzrange;
	lines text;
BEGIN
	PERFORM partner_portal.authorize('read', usage_csv.workspace_id);
	asked := coalesce(usage_csv.period, partner_portal.find_period(usage_csv.workspace_id, now()));
	PERFORM partner_portal.check_period(asked);
	PERFORM partner_portal.check_period_visible(usage_csv.workspace_id, asked);
	WITH zone AS (
		SELECT coalesce(p.time_zone, w.time_zone) AS time_zone
		FROM partner_portal.workspace w
		LEFT JOIN partner_portal.billing_period p ON p.workspace_id = w.workspace_id
			AND p.period_start <= lower(asked) AND p.period_end > lower(asked)
		WHERE w.workspace_id = usage_csv.workspace_id
	), stretch AS (
		SELECT h.key_id, h.kind, h.account_id, h.active_from, h.active_until
		FROM partner_portal.key_history h
		WHERE h.workspace_id = usage_csv.workspace_id AND h.active_until > lower(asked) AND h.active_from < upper(asked)
		UNION ALL
		SELECT k.key_id, k.kind, k.account_id, k.activated_at, NULL
		FROM partner_portal.security_key k
		WHERE k.workspace_id = usage_csv.workspace_id AND k.status = 'active' AND k.activated_at < upper(asked)
	), line AS (
		SELECT s.key_id, min(s.kind) AS kind, (array_agg(s.account_id ORDER BY s.active_from DESC))[1] AS account_id,
			count(*) AS stretches, min(s.active_from) AS active_from, max(coalesce(s.active_until, 'infinity')) AS active_until,
			partner_portal.measure_stretches(lower(asked), upper(asked), z.time_zone, s.key_id, s.account_id, s.active_from, s.active_until) AS m
		FROM stretch s CROSS JOIN zone z
		GROUP BY s.key_id
	)
	SELECT string_agg(concat_ws(',', l.key_id, l.kind, partner_portal.csv_field(k.serial), partner_portal.csv_field(k.label),
			partner_portal.csv_field(a.email), l.stretches,
			to_char(l.active_from AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
			CASE WHEN isfinite(l.active_until) THEN to_char(l.active_until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') ELSE '' END,
			(l.m).key_days, (l.m).key_seconds) || E'\r\n', '' ORDER BY l.key_id)
	INTO lines
	FROM line l
	LEFT JOIN partner_portal.security_key k ON k.workspace_id = usage_csv.workspace_id AND k.key_id = l.key_id
	LEFT JOIN partner_portal.account a ON a.account_id = l.account_id;
	RETURN E'key_id,kind,serial,label,holder,stretches,active_from,active_until,key_days,key_seconds\r\n' || coalesce(lines, '');
END
$$;
COMMENT ON FUNCTION partner_portal.usage_csv(bigint, tstzrange) IS
'One line per key that was active in a period (NULL is the current one): RFC 4180 with a header and CRLF, times in UTC, active_until empty while it is active; serial and label are empty for a deleted key, holder is the last one''s e-mail. Texts are as people wrote them: what opens the file must not run them as formulas.';
REVOKE ALL ON FUNCTION partner_portal.usage_csv(bigint, tstzrange) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.usage_csv(bigint, tstzrange)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.usage(bigint, tstzrange, timestamptz)');
-- close_period.sql: closes billing periods and stores their usage.
--
-- Locks are taken in this order, each in order of workspace: workspace, workspace_usage (the counter lock, under which
-- keys are stamped), billing_period, usage_period.

CREATE FUNCTION partner_portal.close_claimed(workspace_ids bigint[], as_of timestamptz)
	RETURNS TABLE (workspace_id bigint, period_start timestamptz)
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	known timestamptz;
BEGIN
	PERFORM partner_portal.add_periods(
		(SELECT array_agg(w.workspace_id) FROM partner_portal.workspace w
			WHERE w.workspace_id = ANY (close_claimed.workspace_ids) AND w.deleted_at IS NULL), close_claimed.as_of);
	PERFORM FROM partner_portal.billing_period p
	WHERE p.workspace_id = ANY (close_claimed.workspace_ids) AND p.closed_at IS NULL AND p.period_end <= close_claimed.as_of
	ORDER BY p.workspace_id, p.period_start
	FOR UPDATE;
	known := clock_timestamp();
	INSERT INTO partner_portal.usage_period (workspace_id, period_start, kind, partner_key,
		distinct_keys, peak_keys, peak_at, end_keys, start_keys, key_days, key_seconds, users, known_at)
	SELECT m.workspace_id, m.period_start, m.kind, p.partner_key,
		m.distinct_keys, m.peak_keys, m.peak_at, m.end_keys, m.start_keys, m.key_days, m.key_seconds, m.users, known
	FROM (
		SELECT array_agg(p.workspace_id) AS ids, array_agg(p.period_start) AS starts, array_agg(p.period_end) AS ends, array_agg(p.time_zone) AS zones
		FROM partner_portal.billing_period p
		WHERE p.workspace_id = ANY (close_claimed.workspace_ids) AND p.closed_at IS NULL AND p.period_end <= close_claimed.as_of) due
	CROSS JOIN LATERAL partner_portal.measure_usage(due.ids, due.starts, due.ends, due.zones, NULL) m
	JOIN partner_portal.billing_period p ON p.workspace_id = m.workspace_id AND p.period_start = m.period_start
	ORDER BY m.workspace_id, m.period_start, m.kind
	ON CONFLICT ON CONSTRAINT usage_period_pkey DO UPDATE SET
		distinct_keys = excluded.distinct_keys, peak_keys = excluded.peak_keys, peak_at = excluded.peak_at, end_keys = excluded.end_keys,
		start_keys = excluded.start_keys, key_days = excluded.key_days, key_seconds = excluded.key_seconds, users = excluded.users,
		partner_key = excluded.partner_key, known_at = excluded.known_at;
	UPDATE partner_portal.workspace_usage u SET closed_until = greatest(u.closed_until, due.period_end)
	FROM (
		SELECT p.workspace_id, max(p.period_end) AS period_end FROM partner_portal.billing_period p
		WHERE p.workspace_id = ANY (close_claimed.workspace_ids) AND p.closed_at IS NULL AND p.period_end <= close_claimed.as_of
		GROUP BY p.workspace_id) due
	WHERE u.workspace_id = due.workspace_id;
	RETURN QUERY
	WITH closed AS (
		UPDATE partner_portal.billing_period p SET closed_at = known
		WHERE p.workspace_id = ANY (close_claimed.workspace_ids) AND p.closed_at IS NULL AND p.period_end <= close_claimed.as_of
		RETURNING p.workspace_id, p.period_start)
	SELECT c.workspace_id, c.period_start FROM closed c ORDER BY c.workspace_id, c.period_start;
END
$$;
COMMENT ON FUNCTION partner_portal.close_claimed(bigint[], timestamptz) IS
'Opens missing billing periods of workspaces and closes those that ended by as_of, in order, storing their usage for good; returns them. The caller holds the locks of workspace and workspace_usage. Internal.';
REVOKE ALL ON FUNCTION partner_portal.close_claimed(bigint[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.close_periods(as_of timestamptz DEFAULT now(), max_workspaces integer DEFAULT NULL)
	RETURNS TABLE (workspace_id bigint, period_start timestamptz)
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	claimed bigint[];
BEGIN
	PERFORM partner_portal.require_operator();
	IF close_periods.as_of IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'as_of must not be null';
	ELSIF NOT close_periods.as_of BETWEEN timestamptz '1900-01-01 00:00+00' AND timestamptz '2999-12-31 00:00+00' THEN
		RAISE EXCEPTION USING ERRCODE = 'datetime_field_overflow', MESSAGE = 'as_of is out of range';
	ELSIF close_periods.max_workspaces < 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'max_workspaces must be at least 1';
	END IF;

	-- Workspaces that another session is busy with are its own, or the next call's ...
	SELECT array_agg(c.workspace_id) INTO claimed FROM (
		SELECT w.workspace_id FROM partner_portal.workspace w
		JOIN partner_portal.workspace_usage u ON u.workspace_id = w.workspace_id
		WHERE w.workspace_id IN (
			SELECT p.workspace_id FROM partner_portal.billing_period p
			WHERE p.closed_at IS NULL AND p.period_end <= close_periods.as_of)
		ORDER BY w.workspace_id LIMIT close_periods.max_workspaces
		FOR NO KEY UPDATE OF w SKIP LOCKED FOR UPDATE OF u SKIP LOCKED) c;
	-- ... but if there are no others the first is waited for, so that an empty answer means that nothing is due.
	IF claimed IS NULL THEN
		SELECT array_agg(c.workspace_id) INTO claimed FROM (
			SELECT w.workspace_id FROM partner_portal.workspace w
			JOIN partner_portal.workspace_usage u ON u.workspace_id = w.workspace_id
			WHERE w.workspace_id IN (
				SELECT p.workspace_id FROM partner_portal.billing_period p
				WHERE p.closed_at IS NULL AND p.period_end <= close_periods.as_of)
			ORDER BY w.workspace_id LIMIT 1
			FOR NO KEY UPDATE OF w FOR UPDATE OF u) c;
	END IF;
	IF claimed IS NULL THEN
		RETURN;
	END IF;

	RETURN QUERY SELECT c.workspace_id, c.period_start FROM partner_portal.close_claimed(claimed, close_periods.as_of) c;
END
$$;
COMMENT ON FUNCTION partner_portal.close_periods(timestamptz, integer) IS
'Opens missing billing periods and closes those that ended by as_of, in order, storing their usage for good; returns them. Safe to repeat and to run twice at once: sessions share the work, and an empty answer means that nothing is due. An as_of in the future closes periods as if their keys went on as they are, and no key is stamped before their end. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.close_periods(timestamptz, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.refresh_usage(as_of timestamptz DEFAULT now(), max_workspaces integer DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	claimed partner_portal.billing_period[];
	known timestamptz;
BEGIN
	PERFORM partner_portal.require_operator();
	IF refresh_usage.as_of IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'as_of must not be null';
	ELSIF refresh_usage.max_workspaces < 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'max_workspaces must be at least 1';
	END IF;
	SELECT array_agg(c) INTO claimed FROM (
		SELECT p.* FROM partner_portal.billing_period p
		LEFT JOIN partner_portal.usage_period u ON u.workspace_id = p.workspace_id AND u.period_start = p.period_start AND u.kind = 'total'
		WHERE p.closed_at IS NULL AND p.period_start <= refresh_usage.as_of AND p.period_end > refresh_usage.as_of
			AND coalesce(u.known_at < refresh_usage.as_of, true)
		ORDER BY u.known_at NULLS FIRST, p.workspace_id LIMIT refresh_usage.max_workspaces
		FOR NO KEY UPDATE OF p SKIP LOCKED) c;
	known := clock_timestamp();
	INSERT INTO partner_portal.usage_period (workspace_id, period_start, kind, partner_key,
		distinct_keys, peak_keys, peak_at, end_keys, start_keys, key_days, key_seconds, users, known_at)
	SELECT m.workspace_id, m.period_start, m.kind, p.partner_key,
		m.distinct_keys, m.peak_keys, m.peak_at, m.end_keys, m.start_keys, m.key_days, m.key_seconds, m.users, known
	FROM (
		SELECT array_agg(c.workspace_id) AS ids, array_agg(c.period_start) AS starts, array_agg(c.period_end) AS ends, array_agg(c.time_zone) AS zones
		FROM unnest(claimed) c) due
	CROSS JOIN LATERAL partner_portal.measure_usage(due.ids, due.starts, due.ends, due.zones, NULL) m
	JOIN partner_portal.billing_period p ON p.workspace_id = m.workspace_id AND p.period_start = m.period_start
	ORDER BY m.workspace_id, m.period_start, m.kind
	ON CONFLICT ON CONSTRAINT usage_period_pkey DO UPDATE SET
		distinct_keys = excluded.distinct_keys, peak_keys = excluded.peak_keys, peak_at = excluded.peak_at, end_keys = excluded.end_keys,
		start_keys = excluded.start_keys, key_days = excluded.key_days, key_seconds = excluded.key_seconds, users = excluded.users,
		partner_key = excluded.partner_key, known_at = excluded.known_at;
	RETURN coalesce(cardinality(claimed), 0);
END
$$;
COMMENT ON FUNCTION partner_portal.refresh_usage(timestamptz, integer) IS
'Stores the usage of running billing periods as it is now, for the panel; those that are oldest first. Returns how many periods. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.refresh_usage(timestamptz, integer) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('operator', 'EXECUTE', 'FUNCTION partner_portal.close_periods(timestamptz, integer)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.refresh_usage(timestamptz, integer)');
-- activity_import.sql: brings in active stretches of keys from elsewhere, or late.

CREATE TABLE partner_portal.activity_import (
	workspace_id bigint NOT NULL,
	import_id bigint GENERATED ALWAYS AS IDENTITY,
	key_id bigint NOT NULL,
	active_from timestamptz NOT NULL,
	active_until timestamptz NOT NULL,
	reason text NOT NULL,
	imported_at timestamptz NOT NULL,
	imported_by bigint,
	role_name name NOT NULL,
	CONSTRAINT activity_import_pkey PRIMARY KEY (workspace_id, import_id),
	CONSTRAINT activity_import_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace,
	CONSTRAINT activity_import_reason CHECK (length(reason) BETWEEN 1 AND 1000)
);
CREATE INDEX activity_import_import_id ON partner_portal.activity_import (import_id);
COMMENT ON TABLE partner_portal.activity_import IS 'What import_key_activity() brought in, why and by whom; for the operator.';
COMMENT ON COLUMN partner_portal.activity_import.imported_by IS 'Account of the operator; NULL is a superuser with nobody signed in.';
COMMENT ON COLUMN partner_portal.activity_import.role_name IS 'Database role that called.';

ALTER TABLE partner_portal.activity_import ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY signed_in ON partner_portal.activity_import AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.activity_import FOR SELECT
	USING ((SELECT partner_portal.is_operator()));
SELECT pg_catalog.pg_extension_config_dump('partner_portal.activity_import', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.activity_import_import_id_seq', '');

CREATE FUNCTION partner_portal.import_key_activity(workspace_id bigint, key_id bigint, active tstzrange, reason text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	imported partner_portal.security_key;
	recorded timestamptz;
BEGIN
	PERFORM partner_portal.require_operator();
	IF workspace_id IS NULL OR key_id IS NULL OR active IS NULL OR reason IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_id, key_id, active and reason must not be null';
	ELSIF length(reason) NOT BETWEEN 1 AND 1000 OR reason !~ '\S' OR partner_portal.has_controls(reason) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'reason must have 1 to 1000 characters';
	ELSIF isempty(active) OR lower_inf(active) OR upper_inf(active) OR NOT isfinite(lower(active)) OR NOT isfinite(upper(active))
		OR NOT lower_inc(active) OR upper_inc(active) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'imported activity must have a start and an end',
			DETAIL = 'It is half-open, not empty, and bounded on both sides.', HINT = 'Write it as [start, end).';
	ELSIF lower(active) < timestamptz '1900-01-01 00:00+00' OR upper(active) > clock_timestamp() THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'imported activity must lie in the past',
			DETAIL = 'It must not begin before the year 1900 nor end after now.';
	END IF;
	PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = import_key_activity.workspace_id FOR NO KEY UPDATE;
	-- The counter lock: nothing of this workspace is activated, disabled, closed or imported beside this, and what is
	-- stamped after it lies after what is imported.
	UPDATE partner_portal.workspace_usage u SET last_disabled_at = greatest(u.last_disabled_at, upper(active))
	WHERE u.workspace_id = import_key_activity.workspace_id;
	SELECT k.* INTO imported FROM partner_portal.security_key k
	WHERE k.workspace_id = import_key_activity.workspace_id AND k.key_id = import_key_activity.key_id;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('security key %s of workspace %s not found', key_id, workspace_id);
	ELSIF (imported.status = 'active' AND imported.activated_at < upper(active))
		OR EXISTS (SELECT FROM partner_portal.key_history h
			WHERE h.workspace_id = import_key_activity.workspace_id AND h.key_id = import_key_activity.key_id
				AND h.active_from < upper(active) AND h.active_until > lower(active)) THEN
		RAISE EXCEPTION USING ERRCODE = 'exclusion_violation', MESSAGE = 'imported activity overlaps what is known',
			DETAIL = format('Security key %s of workspace %s was active then.', key_id, workspace_id);
	END IF;
	PERFORM partner_portal.add_earlier_periods(import_key_activity.workspace_id, lower(active));
	recorded := clock_timestamp();
	INSERT INTO partner_portal.key_history (workspace_id, key_id, active_from, active_until, kind, account_id, recorded_at, partner_key)
	SELECT imported.workspace_id, imported.key_id, lower(active), upper(active), imported.kind, imported.account_id, recorded,
		coalesce((SELECT p.partner_key FROM partner_portal.billing_period p
			WHERE p.workspace_id = imported.workspace_id AND p.period_start < upper(active) AND p.period_end >= upper(active)), imported.partner_key);
	UPDATE partner_portal.billing_period p SET late_facts_at = recorded
	WHERE p.workspace_id = imported.workspace_id AND p.closed_at IS NOT NULL
		AND p.period_start < upper(active) AND p.period_end > lower(active);
	INSERT INTO partner_portal.activity_import (workspace_id, key_id, active_from, active_until, reason, imported_at, imported_by, role_name)
	VALUES (imported.workspace_id, imported.key_id, lower(active), upper(active), reason, recorded,
		partner_portal.current_account_id(), partner_portal.calling_role()::text);
END
$$;
COMMENT ON FUNCTION partner_portal.import_key_activity(bigint, bigint, tstzrange, text) IS
'Brings in one active stretch [start, end) of an existing key, closed and in the past, with the key''s kind and holder. Periods before the workspace''s first one are opened for it. Recorded as of now: usage() with an earlier known_at lacks it. Operator only (42501); P0002 no such key, 22023 open, empty or in the future, 23P01 overlapping another stretch of the key.';
REVOKE ALL ON FUNCTION partner_portal.import_key_activity(bigint, bigint, tstzrange, text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('operator', 'SELECT', 'TABLE partner_portal.activity_import'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.import_key_activity(bigint, bigint, tstzrange, text)');
-- restoring.sql: what a dump does not hold is made again from the rows that are restored.
--
-- workspace_usage is derived and not dumped. A restored workspace makes its row, restored keys and members are counted as
-- any others (key_trigger.c); the triggers here bring back the instants that are kept beside the counters.

CREATE FUNCTION partner_portal.history_restored() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF partner_portal.restoring_session() THEN
		UPDATE partner_portal.workspace_usage u SET last_disabled_at = r.active_until
		FROM (SELECT n.workspace_id, max(n.active_until) AS active_until FROM restored n GROUP BY n.workspace_id) r
		WHERE u.workspace_id = r.workspace_id AND u.last_disabled_at < r.active_until;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.history_restored() IS 'Trigger: when a dump is restored, notes the latest end of a stretch beside the counters.';
REVOKE ALL ON FUNCTION partner_portal.history_restored() FROM PUBLIC;
CREATE TRIGGER history_restored AFTER INSERT ON partner_portal.key_history
	REFERENCING NEW TABLE AS restored FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.history_restored();

CREATE FUNCTION partner_portal.periods_restored() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF partner_portal.restoring_session() THEN
		UPDATE partner_portal.workspace_usage u SET closed_until = r.period_end
		FROM (SELECT n.workspace_id, max(n.period_end) AS period_end FROM restored n WHERE n.closed_at IS NOT NULL GROUP BY n.workspace_id) r
		WHERE u.workspace_id = r.workspace_id AND u.closed_until < r.period_end;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.periods_restored() IS 'Trigger: when a dump is restored, notes the end of the last closed period beside the counters.';
REVOKE ALL ON FUNCTION partner_portal.periods_restored() FROM PUBLIC;
CREATE TRIGGER periods_restored AFTER INSERT ON partner_portal.billing_period
	REFERENCING NEW TABLE AS restored FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.periods_restored();

-- Alerts without a period are for all time (key_settle.c).
CREATE FUNCTION partner_portal.alerts_restored() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF partner_portal.restoring_session() THEN
		UPDATE partner_portal.workspace_usage u SET alerted_until = r.until, alerted_percent = r.threshold
		FROM (
			SELECT DISTINCT ON (n.workspace_id) n.workspace_id, n.threshold,
				CASE WHEN isfinite(n.period_start) THEN upper(partner_portal.find_period(n.workspace_id, n.period_start)) ELSE 'infinity' END AS until
			FROM restored n ORDER BY n.workspace_id, n.period_start DESC, n.threshold DESC) r
		WHERE u.workspace_id = r.workspace_id AND (u.alerted_until, u.alerted_percent) < (r.until, r.threshold);
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.alerts_restored() IS 'Trigger: when a dump is restored, notes the alerts that were raised beside the counters.';
REVOKE ALL ON FUNCTION partner_portal.alerts_restored() FROM PUBLIC;
CREATE TRIGGER alerts_restored AFTER INSERT ON partner_portal.limit_alert
	REFERENCING NEW TABLE AS restored FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.alerts_restored();
-- price_plan.sql: currencies, price plans with their components and versions, and rating.
-- A plan is a family of versions; a component prices one kind of key, or all together, and makes one invoice line.

CREATE TABLE partner_portal.currency (
	code text NOT NULL,
	minor_digits integer NOT NULL,
	seeded boolean NOT NULL DEFAULT false,
	CONSTRAINT currency_pkey PRIMARY KEY (code),
	CONSTRAINT currency_code CHECK (code ~ '^[A-Z]{3}$'),
	CONSTRAINT currency_minor_digits CHECK (minor_digits IN (0, 2, 3))
);
COMMENT ON TABLE partner_portal.currency IS 'ISO 4217 currencies and the decimal digits of their minor unit. Operators may add rows; those of the extension itself are not dumped.';
SELECT pg_catalog.pg_extension_config_dump('partner_portal.currency', 'WHERE NOT seeded');

INSERT INTO partner_portal.currency (code, minor_digits, seeded)
SELECT c, 0, true FROM unnest(string_to_array('BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF', ' ')) c
UNION ALL
SELECT c, 3, true FROM unnest(string_to_array('BHD IQD JOD KWD LYD OMR TND', ' ')) c
UNION ALL
SELECT c, 2, true FROM unnest(string_to_array('AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD'
	' CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR'
	' JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK'
	' PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED'
	' VES WST XCD XCG YER ZAR ZMW ZWG', ' ')) c;

CREATE TABLE partner_portal.price_plan (
	plan_id bigint GENERATED ALWAYS AS IDENTITY,
	partner_key bigint NOT NULL,
	first_plan_id bigint,
	family_id bigint NOT NULL GENERATED ALWAYS AS (coalesce(first_plan_id, plan_id)) STORED,
	version integer NOT NULL DEFAULT 1,
	name text NOT NULL,
	currency text NOT NULL,
	in_force_from timestamptz NOT NULL DEFAULT '-infinity',
	zero_invoices boolean NOT NULL DEFAULT false,
	created_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT price_plan_pkey PRIMARY KEY (partner_key, plan_id),
	CONSTRAINT price_plan_version_key UNIQUE (partner_key, family_id, version),
	CONSTRAINT price_plan_in_force_key UNIQUE (partner_key, family_id, in_force_from),
	CONSTRAINT price_plan_first FOREIGN KEY (partner_key, first_plan_id) REFERENCES partner_portal.price_plan (partner_key, plan_id),
	CONSTRAINT price_plan_currency FOREIGN KEY (currency) REFERENCES partner_portal.currency,
	CONSTRAINT price_plan_version CHECK (version >= 1 AND (version = 1) = (first_plan_id IS NULL)),
	CONSTRAINT price_plan_in_force CHECK (in_force_from < 'infinity' AND (version > 1 OR in_force_from = '-infinity')),
	CONSTRAINT price_plan_name CHECK (length(name) BETWEEN 1 AND 200 AND name ~ '\S')
);
CREATE UNIQUE INDEX price_plan_plan_id ON partner_portal.price_plan (plan_id);
COMMENT ON TABLE partner_portal.price_plan IS
'A version of a price plan, owned by a partner or (partner_key 0) by the platform, whose owner issues the invoices. A period is priced by the latest version in force at its start.';
COMMENT ON COLUMN partner_portal.price_plan.family_id IS 'plan_id of version 1: what the versions of one plan have in common, and what is assigned.';
COMMENT ON COLUMN partner_portal.price_plan.in_force_from IS 'Prices periods that start at or after this instant, until a later version does.';
COMMENT ON COLUMN partner_portal.price_plan.zero_invoices IS 'Whether a total of zero makes a document; the history has its row in any case.';

CREATE TABLE partner_portal.plan_component (
	partner_key bigint NOT NULL,
	plan_id bigint NOT NULL,
	component integer NOT NULL,
	kind text,
	model text NOT NULL,
	measure text NOT NULL,
	unit_price numeric,
	package_size integer,
	tiers jsonb,
	minimum_minor bigint NOT NULL DEFAULT 0,
	free_units integer NOT NULL DEFAULT 0,
	CONSTRAINT plan_component_pkey PRIMARY KEY (partner_key, plan_id, component),
	CONSTRAINT plan_component_plan FOREIGN KEY (partner_key, plan_id) REFERENCES partner_portal.price_plan,
	CONSTRAINT plan_component_kind CHECK (kind IN ('smartphone', 'contactless_card')),
	CONSTRAINT plan_component_model CHECK (model IN ('flat', 'per_unit', 'graduated', 'volume', 'package')),
	CONSTRAINT plan_component_measure CHECK (measure IN ('distinct_keys', 'peak_keys', 'end_keys', 'start_keys', 'key_days', 'key_seconds', 'users')),
	CONSTRAINT plan_component_tiers CHECK ((model IN ('graduated', 'volume')) = (tiers IS NOT NULL)),
	CONSTRAINT plan_component_unit_price CHECK ((model IN ('graduated', 'volume')) = (unit_price IS NULL)
		AND (unit_price IS NULL OR (unit_price >= 0 AND unit_price < 1e18 AND scale(unit_price) <= 12))),
	CONSTRAINT plan_component_package_size CHECK ((model = 'package') = (package_size IS NOT NULL) AND package_size > 0),
	CONSTRAINT plan_component_minimum CHECK (minimum_minor >= 0),
	CONSTRAINT plan_component_free_units CHECK (free_units >= 0)
);
CREATE UNIQUE INDEX plan_component_kind_key ON partner_portal.plan_component (partner_key, plan_id, coalesce(kind, ''));
COMMENT ON TABLE partner_portal.plan_component IS 'What one kind of key, or (kind NULL) all keys together, cost under a plan: one invoice line each.';
COMMENT ON COLUMN partner_portal.plan_component.measure IS 'Column of usage() that is the quantity.';
COMMENT ON COLUMN partner_portal.plan_component.unit_price IS 'Major units of the plan''s currency, up to 12 decimals: of the period (flat), of a unit (per_unit), of a package (package).';
COMMENT ON COLUMN partner_portal.plan_component.tiers IS '[{"up_to":5,"unit_price":5.00,"flat":0}, ..., {"up_to":null, ...}]: bands (previous up_to, up_to], the last open; major units.';
COMMENT ON COLUMN partner_portal.plan_component.minimum_minor IS 'The line is at least this, in minor units.';
COMMENT ON COLUMN partner_portal.plan_component.free_units IS 'Units of the quantity that are free of charge, before any band is chosen.';

ALTER TABLE partner_portal.currency ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.price_plan ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.plan_component ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.currency AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.currency FOR SELECT USING (true);

CREATE POLICY signed_in ON partner_portal.price_plan AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY own ON partner_portal.price_plan FOR SELECT
	USING (partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

CREATE POLICY signed_in ON partner_portal.plan_component AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY own ON partner_portal.plan_component FOR SELECT
	USING (partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

-- Dumped in order: a first version comes before those that supersede it.
SELECT pg_catalog.pg_extension_config_dump('partner_portal.price_plan', 'ORDER BY plan_id');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.price_plan_plan_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.plan_component', '');

CREATE FUNCTION partner_portal.to_minor(numerator numeric, denominator integer, digits integer) RETURNS bigint
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_to_minor';
COMMENT ON FUNCTION partner_portal.to_minor(numeric, integer, integer) IS
'numerator / denominator major units as minor units of a currency with that many digits: the one rounding of a line, exact, half away from zero. 22003 beyond bigint; 22023 not finite.';
REVOKE ALL ON FUNCTION partner_portal.to_minor(numeric, integer, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.tier_bands(tiers jsonb)
	RETURNS TABLE (no integer, above numeric, up_to numeric, unit_price numeric, flat numeric, band text)
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT t.no::integer, t.above, t.up_to, t.unit_price, t.flat, '(' || t.above || ',' || coalesce(t.up_to || ']', ')')
	FROM (
		SELECT b.no, trim_scale(coalesce(lag(b.up_to) OVER (ORDER BY b.no), 0)) AS above, trim_scale(b.up_to) AS up_to,
			coalesce(b.unit_price, 0) AS unit_price, coalesce(b.flat, 0) AS flat
		FROM ROWS FROM (jsonb_to_recordset(tier_bands.tiers) AS (up_to numeric, unit_price numeric, flat numeric)) WITH ORDINALITY AS b (up_to, unit_price, flat, no)
	) t;
END;
COMMENT ON FUNCTION partner_portal.tier_bands(jsonb) IS 'The bands (above, up_to] of a plan component''s tiers in order; up_to NULL is open.';
REVOKE ALL ON FUNCTION partner_portal.tier_bands(jsonb) FROM PUBLIC;

-- One SELECT, so that the planner takes it into the query that rates a thousand lines.
CREATE FUNCTION partner_portal.rate_bands(model text, unit_price numeric, package_size integer, tiers jsonb, free_units integer, quantity numeric)
	RETURNS TABLE (no integer, band text, band_quantity numeric, unit_price numeric, amount numeric, shared boolean)
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT 0, 'free', least(rate_bands.quantity, rate_bands.free_units), 0::numeric, 0::numeric, false
	WHERE rate_bands.free_units > 0 AND rate_bands.quantity > 0 AND rate_bands.model <> 'flat'
	UNION ALL
	SELECT 1, 'period', 1::numeric, rate_bands.unit_price, rate_bands.unit_price, true
	WHERE rate_bands.model = 'flat'
	UNION ALL
	SELECT 1, 'unit', q.units, rate_bands.unit_price, q.units * rate_bands.unit_price, false
	FROM (SELECT greatest(rate_bands.quantity - rate_bands.free_units, 0) AS units) q
	WHERE rate_bands.model = 'per_unit'
	UNION ALL
	SELECT 1, 'package of ' || rate_bands.package_size, q.packages, rate_bands.unit_price, q.packages * rate_bands.unit_price, false
	FROM (SELECT ceil(greatest(rate_bands.quantity - rate_bands.free_units, 0) / rate_bands.package_size) AS packages) q
	WHERE rate_bands.model = 'package'
	UNION ALL
	SELECT t.no * 2 + f.fee, CASE f.fee WHEN 0 THEN t.band ELSE 'flat ' || t.band END, b.units, b.price, b.units * b.price, f.fee = 1
	FROM (SELECT greatest(rate_bands.quantity - rate_bands.free_units, 0) AS units) q
		CROSS JOIN partner_portal.tier_bands(rate_bands.tiers) t
		CROSS JOIN (VALUES (0), (1)) f (fee)
		CROSS JOIN LATERAL (SELECT CASE WHEN f.fee = 1 THEN 1 WHEN rate_bands.model = 'volume' THEN q.units ELSE least(q.units, t.up_to) - t.above END AS units,
			CASE f.fee WHEN 0 THEN t.unit_price ELSE t.flat END AS price) b
	WHERE rate_bands.model IN ('graduated', 'volume')
		AND (q.units > t.above OR (f.fee = 0 AND t.no = 1))
		AND (rate_bands.model = 'graduated' OR t.up_to IS NULL OR q.units <= t.up_to)
		AND (f.fee = 0 OR t.flat <> 0);
END;
COMMENT ON FUNCTION partner_portal.rate_bands(text, numeric, integer, jsonb, integer, numeric) IS
'What a quantity costs under one component, band by band, in major units and unrounded; amount is always band_quantity * unit_price. shared marks fees of the whole period, which a part of a split one bears in part.';
REVOKE ALL ON FUNCTION partner_portal.rate_bands(text, numeric, integer, jsonb, integer, numeric) FROM PUBLIC;

CREATE FUNCTION partner_portal.check_component(currency text, kind text, model text, measure text, tiers jsonb, unit_price numeric, package_size integer,
	minimum_minor bigint, free_units integer) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	fault text;
	way_out text;
BEGIN
	IF NOT EXISTS (SELECT FROM partner_portal.currency c WHERE c.code = currency) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown currency "%s"', left(currency, 64)),
			HINT = 'Currencies are ISO 4217 codes in capitals; see partner_portal.currency.';
	END IF;
	IF kind NOT IN ('smartphone', 'contactless_card') THEN
		fault := format('unknown kind of key "%s"', left(kind, 64));
		way_out := 'Kinds are smartphone and contactless_card; NULL prices all keys together.';
	ELSIF model IS NULL OR model NOT IN ('flat', 'per_unit', 'graduated', 'volume', 'package') THEN
		fault := format('unknown price model "%s"', left(model, 64));
		way_out := 'Models are flat, per_unit, graduated, volume and package.';
	ELSIF measure IS NULL OR measure NOT IN ('distinct_keys', 'peak_keys', 'end_keys', 'start_keys', 'key_days', 'key_seconds', 'users') THEN
		fault := format('unknown measure "%s"', left(measure, 64));
		way_out := 'Measures are the columns of usage(): distinct_keys, peak_keys, end_keys, start_keys, key_days, key_seconds, users.';
	ELSIF minimum_minor IS NULL OR minimum_minor < 0 OR free_units IS NULL OR free_units < 0 THEN
		fault := 'minimum_minor and free_units must be zero or more';
	ELSIF model IN ('graduated', 'volume') THEN
		IF unit_price IS NOT NULL OR package_size IS NOT NULL THEN
			fault := format('model %s takes its prices from tiers alone', model);
			way_out := 'Leave unit_price and package_size out.';
		ELSIF tiers IS NULL OR jsonb_typeof(tiers) <> 'array' OR jsonb_array_length(tiers) NOT BETWEEN 1 AND 1000 THEN
			fault := format('model %s needs tiers, an array of 1 to 1000 bands', model);
			way_out := 'Example: [{"up_to":5,"unit_price":5.00,"flat":0},{"up_to":null,"unit_price":4.00}].';
		ELSE
			SELECT f.fault INTO fault
			FROM (SELECT t.no, CASE
					WHEN jsonb_typeof(t.tier) <> 'object' THEN 'is not an object'
					WHEN t.tier - ARRAY['up_to', 'unit_price', 'flat'] <> '{}' THEN 'has unknown members'
					WHEN NOT t.tier ? 'up_to' OR jsonb_typeof(t.tier -> 'up_to') NOT IN ('number', 'null') THEN 'has no up_to, a number or null'
					WHEN NOT t.tier ?| ARRAY['unit_price', 'flat'] THEN 'has neither unit_price nor flat'
					WHEN jsonb_typeof(t.tier -> 'unit_price') <> 'number' OR jsonb_typeof(t.tier -> 'flat') <> 'number' THEN 'has a price that is not a number'
					WHEN (t.tier ->> 'unit_price')::numeric < 0 OR (t.tier ->> 'flat')::numeric < 0 THEN 'has a negative price'
					WHEN greatest((t.tier ->> 'unit_price')::numeric, (t.tier ->> 'flat')::numeric, (t.tier ->> 'up_to')::numeric) >= 1e18 THEN 'has a number beyond 1e18'
					WHEN greatest(scale(trim_scale((t.tier ->> 'unit_price')::numeric)), scale(trim_scale((t.tier ->> 'flat')::numeric)),
						scale(trim_scale((t.tier ->> 'up_to')::numeric))) > 12 THEN 'has more than 12 decimals'
					WHEN t.no < jsonb_array_length(tiers) AND t.tier ->> 'up_to' IS NULL THEN 'is open without being the last'
					WHEN t.no = jsonb_array_length(tiers) AND t.tier ->> 'up_to' IS NOT NULL THEN 'is the last without being open'
					WHEN (t.tier ->> 'up_to')::numeric <= CASE WHEN jsonb_typeof(t.previous -> 'up_to') = 'number' THEN (t.previous ->> 'up_to')::numeric ELSE 0 END
						THEN 'does not end above the one before it'
					END || format(' (band %s)', t.no) AS fault
				FROM (SELECT e.tier, e.no, lag(e.tier) OVER (ORDER BY e.no) AS previous
					FROM jsonb_array_elements(tiers) WITH ORDINALITY e (tier, no)) t) f
			WHERE f.fault IS NOT NULL ORDER BY f.no LIMIT 1;
			IF fault IS NOT NULL THEN
				fault := 'a tier ' || fault;
				way_out := 'Bands are (previous up_to, up_to] without gap or overlap, the last open: [{"up_to":5,"unit_price":5.00,"flat":0},{"up_to":null,"unit_price":4.00}].';
			END IF;
		END IF;
	ELSIF tiers IS NOT NULL THEN
		fault := format('model %s takes no tiers', model);
	ELSIF unit_price IS NULL OR unit_price IN ('NaN', 'Infinity', '-Infinity') OR unit_price < 0 OR unit_price >= 1e18 THEN
		fault := format('model %s needs a unit_price of zero or more', model);
	ELSIF scale(trim_scale(unit_price)) > 12 THEN
		fault := format('unit_price %s has more than 12 decimals', left(unit_price::text, 64));
	ELSIF model = 'package' AND (package_size IS NULL OR package_size < 1) THEN
		fault := 'model package needs a package_size of one or more';
	ELSIF model <> 'package' AND package_size IS NOT NULL THEN
		fault := format('model %s takes no package_size', model);
	END IF;
	IF fault IS NOT NULL THEN
		IF way_out IS NULL THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = fault;
		END IF;
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = fault, HINT = way_out;
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.check_component(text, text, text, text, jsonb, numeric, integer, bigint, integer) IS 'Refuses (22023) the terms of a plan component that mean nothing.';
REVOKE ALL ON FUNCTION partner_portal.check_component(text, text, text, text, jsonb, numeric, integer, bigint, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.authorize_issuer(issuer_key bigint) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF partner_portal.is_operator() OR issuer_key BETWEEN partner_portal.lowest_partner_key() AND partner_portal.highest_partner_key() THEN
		RETURN;
	END IF;
	IF partner_portal.current_account_id() IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
	END IF;
	IF issuer_key > 0 THEN
		PERFORM partner_portal.authorize('read', issuer_key);
	END IF;
	RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'permission denied: bill',
		HINT = 'Plans and invoices are the issuer''s: an owner or administrator of the partner, or the operator for the platform''s.';
END
$$;
COMMENT ON FUNCTION partner_portal.authorize_issuer(bigint) IS
'Returns when the identity may bill for an issuer (0 is the platform): the operator, or an owner or administrator of that partner. 42501 otherwise; P0002 a partner that is not visible.';
REVOKE ALL ON FUNCTION partner_portal.authorize_issuer(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.authorized_issuer(partner_id bigint) RETURNS bigint
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.authorize_issuer(coalesce(partner_id, 0));
	IF partner_id IS NOT NULL AND NOT EXISTS (SELECT FROM partner_portal.partner p WHERE p.partner_id = authorized_issuer.partner_id) THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('partner %s not found', partner_id);
	END IF;
	RETURN coalesce(partner_id, 0);
END
$$;
COMMENT ON FUNCTION partner_portal.authorized_issuer(bigint) IS
'Key of an issuer that the identity may bill for: a partner, or (NULL) 0 for the platform. P0002 no such partner; else as authorize_issuer(). Internal.';
REVOKE ALL ON FUNCTION partner_portal.authorized_issuer(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.visible_plan(plan_id bigint) RETURNS partner_portal.price_plan
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	plan partner_portal.price_plan;
BEGIN
	SELECT p.* INTO plan FROM partner_portal.price_plan p WHERE p.plan_id = visible_plan.plan_id
		AND (partner_portal.is_operator() OR p.partner_key BETWEEN partner_portal.lowest_partner_key() AND partner_portal.highest_partner_key());
	IF NOT FOUND THEN
		IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
			RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
		END IF;
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('price plan %s not found', coalesce(visible_plan.plan_id::text, 'null'));
	END IF;
	RETURN plan;
END
$$;
COMMENT ON FUNCTION partner_portal.visible_plan(bigint) IS 'The plan, if the identity may bill by it. P0002 absent or another''s; 42501 nobody signed in.';
REVOKE ALL ON FUNCTION partner_portal.visible_plan(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.create_price_plan(partner_id bigint, name text, currency text, model text, measure text DEFAULT 'distinct_keys', tiers jsonb DEFAULT NULL,
	unit_price numeric DEFAULT NULL, package_size integer DEFAULT NULL, minimum_minor bigint DEFAULT 0, free_units integer DEFAULT 0, kind text DEFAULT NULL,
	zero_invoices boolean DEFAULT false) RETURNS partner_portal.price_plan
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	issuer bigint := partner_portal.authorized_issuer(partner_id);
	plan partner_portal.price_plan;
BEGIN
	PERFORM partner_portal.checked_text('name', name, 200);
	PERFORM partner_portal.check_component(currency, kind, model, measure, tiers, unit_price, package_size, minimum_minor, free_units);
	INSERT INTO partner_portal.price_plan AS p (partner_key, name, currency, zero_invoices)
	VALUES (issuer, name, currency, coalesce(zero_invoices, false)) RETURNING p.* INTO plan;
	INSERT INTO partner_portal.plan_component (partner_key, plan_id, component, kind, model, measure, unit_price, package_size, tiers, minimum_minor, free_units)
	VALUES (plan.partner_key, plan.plan_id, 1, kind, model, measure, trim_scale(unit_price), package_size, tiers, minimum_minor, free_units);
	RETURN plan;
END
$$;
COMMENT ON FUNCTION partner_portal.create_price_plan(bigint, text, text, text, text, jsonb, numeric, integer, bigint, integer, text, boolean) IS
'Makes a price plan of a partner (NULL: the platform''s own) with its first component. Prices are major units of the ISO 4217 currency, up to 12 decimals; minimum_minor is minor units. zero_invoices: a total of zero makes a document too. 22023 terms that mean nothing; 22004, 22001, 22023 the name; 42501 not the issuer.';
REVOKE ALL ON FUNCTION partner_portal.create_price_plan(bigint, text, text, text, text, jsonb, numeric, integer, bigint, integer, text, boolean) FROM PUBLIC;

CREATE FUNCTION partner_portal.add_plan_component(plan_id bigint, kind text, model text, measure text DEFAULT 'distinct_keys', tiers jsonb DEFAULT NULL,
	unit_price numeric DEFAULT NULL, package_size integer DEFAULT NULL, minimum_minor bigint DEFAULT 0, free_units integer DEFAULT 0) RETURNS partner_portal.plan_component
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	plan partner_portal.price_plan;
	made partner_portal.plan_component;
BEGIN
	plan := partner_portal.visible_plan(plan_id);
	-- assign_price_plan() locks the first version FOR SHARE: a plan is not taken into use while it is added to
	PERFORM FROM partner_portal.price_plan p WHERE p.partner_key = plan.partner_key AND p.plan_id IN (plan.plan_id, plan.family_id)
	ORDER BY p.plan_id FOR NO KEY UPDATE;
	PERFORM partner_portal.check_component(plan.currency, kind, model, measure, tiers, unit_price, package_size, minimum_minor, free_units);
	INSERT INTO partner_portal.plan_component AS c (partner_key, plan_id, component, kind, model, measure, unit_price, package_size, tiers, minimum_minor, free_units)
	SELECT plan.partner_key, plan.plan_id, 1 + max(o.component), kind, model, measure, trim_scale(unit_price), package_size, tiers, minimum_minor, free_units
	FROM partner_portal.plan_component o WHERE o.partner_key = plan.partner_key AND o.plan_id = plan.plan_id
	RETURNING c.* INTO made;
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.add_plan_component(bigint, text, text, text, jsonb, numeric, integer, bigint, integer) IS
'Prices a kind of key on its own, on a line of its own; kind NULL prices all keys together. 23505 the plan prices that kind already; PP005 the plan is in use; else as create_price_plan().';
REVOKE ALL ON FUNCTION partner_portal.add_plan_component(bigint, text, text, text, jsonb, numeric, integer, bigint, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.revise_price_plan(plan_id bigint, model text, measure text DEFAULT 'distinct_keys', tiers jsonb DEFAULT NULL,
	unit_price numeric DEFAULT NULL, package_size integer DEFAULT NULL, minimum_minor bigint DEFAULT 0, free_units integer DEFAULT 0, kind text DEFAULT NULL,
	in_force_from timestamptz DEFAULT now(), name text DEFAULT NULL, zero_invoices boolean DEFAULT NULL) RETURNS partner_portal.price_plan
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	latest partner_portal.price_plan;
	plan partner_portal.price_plan;
BEGIN
	latest := partner_portal.visible_plan(plan_id);
	PERFORM FROM partner_portal.price_plan p WHERE p.partner_key = latest.partner_key AND p.plan_id = latest.family_id FOR NO KEY UPDATE;
	SELECT p.* INTO latest FROM partner_portal.price_plan p WHERE p.partner_key = latest.partner_key AND p.family_id = latest.family_id ORDER BY p.version DESC LIMIT 1;
	IF in_force_from IS NULL OR in_force_from NOT BETWEEN timestamptz '1900-01-01 00:00+00' AND timestamptz '3000-01-01 00:00+00' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'in_force_from must be an instant of the years 1900 to 2999';
	END IF;
	IF in_force_from <= latest.in_force_from THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('version %s of the plan is in force from %s already', latest.version, latest.in_force_from),
			HINT = 'A new version comes into force after the latest one.';
	END IF;
	IF in_force_from < now() AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a version cannot come into force in the past',
			HINT = 'Only the operator, who loads history from elsewhere, may say so.';
	END IF;
	IF EXISTS (SELECT FROM partner_portal.invoice i JOIN partner_portal.price_plan p ON p.partner_key = i.issuer_key AND p.plan_id = i.plan_id
			WHERE i.issuer_key = latest.partner_key AND p.family_id = latest.family_id AND i.document = 'invoice' AND i.period_start >= in_force_from) THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('periods from %s on are billed by the plan already', in_force_from);
	END IF;
	name := partner_portal.checked_text('name', coalesce(name, latest.name), 200);
	PERFORM partner_portal.check_component(latest.currency, kind, model, measure, tiers, unit_price, package_size, minimum_minor, free_units);
	INSERT INTO partner_portal.price_plan AS p (partner_key, first_plan_id, version, name, currency, in_force_from, zero_invoices)
	VALUES (latest.partner_key, latest.family_id, latest.version + 1, name, latest.currency, in_force_from, coalesce(zero_invoices, latest.zero_invoices))
	RETURNING p.* INTO plan;
	INSERT INTO partner_portal.plan_component (partner_key, plan_id, component, kind, model, measure, unit_price, package_size, tiers, minimum_minor, free_units)
	VALUES (plan.partner_key, plan.plan_id, 1, kind, model, measure, trim_scale(unit_price), package_size, tiers, minimum_minor, free_units);
	RETURN plan;
END
$$;
COMMENT ON FUNCTION partner_portal.revise_price_plan(bigint, text, text, jsonb, numeric, integer, bigint, integer, text, timestamptz, text, boolean) IS
'Supersedes a plan by a new version with one component (add_plan_component() adds others in the same transaction, or before it comes into force). It prices the periods that start at or after in_force_from, so a running period keeps its price. The currency stays. Errors as create_price_plan(); 22023 not after the latest version, or in the past; PP005 periods from then on are billed already.';
REVOKE ALL ON FUNCTION partner_portal.revise_price_plan(bigint, text, text, jsonb, numeric, integer, bigint, integer, text, timestamptz, text, boolean) FROM PUBLIC;

CREATE FUNCTION partner_portal.rate(plan_id bigint, quantity numeric, kind text DEFAULT NULL)
	RETURNS TABLE (band text, band_quantity numeric, unit_price numeric, amount numeric)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	plan partner_portal.price_plan;
	part partner_portal.plan_component;
BEGIN
	plan := partner_portal.visible_plan(rate.plan_id);
	IF rate.quantity IS NULL OR rate.quantity IN ('NaN', 'Infinity') OR rate.quantity < 0 OR rate.quantity >= 1e18 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a quantity must be a number of zero or more';
	END IF;
	BEGIN
		SELECT c.* INTO STRICT part FROM partner_portal.plan_component c
		WHERE c.partner_key = plan.partner_key AND c.plan_id = plan.plan_id
			AND (c.kind IS NOT DISTINCT FROM rate.kind OR (rate.kind IS NULL
				AND 1 = (SELECT count(*) FROM partner_portal.plan_component o WHERE o.partner_key = plan.partner_key AND o.plan_id = plan.plan_id)));
	EXCEPTION WHEN no_data_found THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('price plan %s has no component for %s', plan.plan_id, coalesce('kind ' || left(rate.kind, 64), 'all keys together')),
			HINT = 'Name the kind of one of its components.';
	END;
	RETURN QUERY
		WITH bands AS (
			SELECT b.* FROM partner_portal.rate_bands(part.model, part.unit_price, part.package_size, part.tiers, part.free_units, rate.quantity) b
		), minimum AS (
			SELECT part.minimum_minor * power(0.1::numeric, c.minor_digits::numeric) AS least FROM partner_portal.currency c WHERE c.code = plan.currency
		)
		SELECT s.band, trim_scale(s.band_quantity), trim_scale(s.unit_price), trim_scale(s.amount) FROM (
			SELECT b.no, b.band, b.band_quantity, b.unit_price, b.amount FROM bands b
			UNION ALL
			SELECT 1000000, 'minimum', 1, m.least - t.total, m.least - t.total
			FROM minimum m, (SELECT sum(b.amount) AS total FROM bands b) t WHERE t.total < m.least
		) s ORDER BY s.no;
END
$$;
COMMENT ON FUNCTION partner_portal.rate(bigint, numeric, text) IS
'Explains band by band what a quantity of a whole period costs under a plan (with several components: under that of the kind). amount = band_quantity * unit_price, in major units and unrounded; the line is their sum, rounded once. P0002 no such plan; 22023 negative quantity, or no component for the kind.';
REVOKE ALL ON FUNCTION partner_portal.rate(bigint, numeric, text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.currency'),
	('application', 'SELECT', 'TABLE partner_portal.price_plan'),
	('application', 'SELECT', 'TABLE partner_portal.plan_component'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.create_price_plan(bigint, text, text, text, text, jsonb, numeric, integer, bigint, integer, text, boolean)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.add_plan_component(bigint, text, text, text, jsonb, numeric, integer, bigint, integer)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.revise_price_plan(bigint, text, text, jsonb, numeric, integer, bigint, integer, text, timestamptz, text, boolean)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.rate(bigint, numeric, text)');
-- invoice.sql: invoices and credit notes, their lines, series of numbers, and what keeps them as they are.
-- They are documents: they carry the issuer, the payer and the partner of their own time, and follow no transfer.

CREATE TABLE partner_portal.invoice_issuer (
	issuer_key bigint NOT NULL,
	name text,
	address text,
	tax_id text,
	number_prefix text NOT NULL DEFAULT '',
	yearly boolean NOT NULL DEFAULT false,
	CONSTRAINT invoice_issuer_pkey PRIMARY KEY (issuer_key),
	CONSTRAINT invoice_issuer_name CHECK (length(name) BETWEEN 1 AND 200 AND name ~ '\S'),
	CONSTRAINT invoice_issuer_address CHECK (length(address) <= 1000),
	CONSTRAINT invoice_issuer_tax_id CHECK (length(tax_id) <= 100),
	CONSTRAINT invoice_issuer_number_prefix CHECK (number_prefix ~ '^[A-Za-z0-9./_-]{0,20}$')
);
COMMENT ON TABLE partner_portal.invoice_issuer IS
'What an issuer (a partner, or 0 the platform) wants on its documents; what is NULL is taken from the partner''s workspace. Set by set_invoice_issuer().';
COMMENT ON COLUMN partner_portal.invoice_issuer.yearly IS 'Whether the numbers of a series begin anew every year, of the issuer''s time zone.';

CREATE TABLE partner_portal.invoice_series (
	issuer_key bigint NOT NULL,
	document text NOT NULL,
	year integer NOT NULL,
	last_number bigint NOT NULL,
	CONSTRAINT invoice_series_pkey PRIMARY KEY (issuer_key, document, year),
	CONSTRAINT invoice_series_last_number CHECK (last_number >= 0)
);
COMMENT ON TABLE partner_portal.invoice_series IS 'The last number given per issuer, document and year (0 is all years): counted up as the last act of finalizing, so that there is no gap.';

CREATE TABLE partner_portal.invoice (
	workspace_id bigint NOT NULL,
	invoice_id bigint GENERATED ALWAYS AS IDENTITY,
	document text NOT NULL DEFAULT 'invoice',
	credits_invoice_id bigint,
	period_start timestamptz NOT NULL,
	period_end timestamptz NOT NULL,
	period_label text NOT NULL,
	time_zone text NOT NULL,
	status text NOT NULL DEFAULT 'draft',
	partner_key bigint NOT NULL,
	issuer_key bigint NOT NULL,
	payer_id bigint NOT NULL,
	visibility text NOT NULL,
	workspace_sees boolean NOT NULL GENERATED ALWAYS AS (payer_id = workspace_id OR visibility = 'both') STORED,
	partner_sees boolean NOT NULL GENERATED ALWAYS AS (issuer_key = partner_key OR payer_id = partner_key OR visibility = 'both') STORED,
	plan_id bigint NOT NULL,
	plan_name text NOT NULL,
	plan_version integer NOT NULL,
	zero_invoices boolean NOT NULL,
	currency text NOT NULL,
	minor_digits integer NOT NULL,
	issuer_name text NOT NULL,
	issuer_address text,
	issuer_tax_id text,
	payer_name text NOT NULL,
	payer_address text,
	payer_tax_id text,
	company_name text NOT NULL,
	keys_billed integer NOT NULL,
	subtotal_minor bigint NOT NULL,
	tax_minor bigint NOT NULL DEFAULT 0,
	tax_note text,
	taxed_subtotal_minor bigint,
	total_minor bigint NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	known_at timestamptz NOT NULL,
	finalize_after timestamptz NOT NULL,
	finalized_at timestamptz,
	invoice_date date,
	series_year integer,
	number bigint,
	invoice_number text,
	reason text,
	settled_at timestamptz,
	settled_note text,
	digest_salt uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
	CONSTRAINT invoice_pkey PRIMARY KEY (workspace_id, invoice_id),
	CONSTRAINT invoice_period FOREIGN KEY (workspace_id, period_start) REFERENCES partner_portal.billing_period (workspace_id, period_start),
	CONSTRAINT invoice_plan FOREIGN KEY (issuer_key, plan_id) REFERENCES partner_portal.price_plan (partner_key, plan_id),
	CONSTRAINT invoice_credits FOREIGN KEY (workspace_id, credits_invoice_id) REFERENCES partner_portal.invoice (workspace_id, invoice_id),
	CONSTRAINT invoice_number_key UNIQUE (issuer_key, document, series_year, number),
	CONSTRAINT invoice_document CHECK (document IN ('invoice', 'credit_note') AND (document = 'credit_note') = (credits_invoice_id IS NOT NULL)),
	CONSTRAINT invoice_status CHECK (status IN ('draft', 'final', 'paid', 'void', 'empty')),
	CONSTRAINT invoice_visibility CHECK (visibility IN ('payer', 'both')),
	CONSTRAINT invoice_bounds CHECK (period_start < period_end),
	CONSTRAINT invoice_numbered CHECK (CASE WHEN status IN ('final', 'paid', 'void') THEN number >= 1 AND series_year IS NOT NULL AND invoice_number IS NOT NULL
		AND finalized_at IS NOT NULL AND invoice_date IS NOT NULL ELSE number IS NULL AND invoice_number IS NULL END),
	CONSTRAINT invoice_settled CHECK ((status IN ('paid', 'void')) = (settled_at IS NOT NULL)),
	CONSTRAINT invoice_tax CHECK (tax_minor >= 0 AND length(tax_note) <= 1000),
	CONSTRAINT invoice_total CHECK (total_minor = subtotal_minor + tax_minor),
	CONSTRAINT invoice_notes CHECK (length(reason) <= 1000 AND length(settled_note) <= 1000)
);
CREATE UNIQUE INDEX invoice_one_per_period ON partner_portal.invoice (workspace_id, period_start) WHERE document = 'invoice' AND status <> 'void';
CREATE INDEX invoice_invoice_id ON partner_portal.invoice (invoice_id);
CREATE INDEX invoice_draft ON partner_portal.invoice (workspace_id) WHERE status = 'draft';
CREATE INDEX invoice_issuer_period_idx ON partner_portal.invoice (issuer_key, period_end);
CREATE INDEX invoice_partner_key_idx ON partner_portal.invoice (partner_key);
CREATE INDEX invoice_payer_idx ON partner_portal.invoice (payer_id, period_end);
CREATE INDEX invoice_credits_idx ON partner_portal.invoice (workspace_id, credits_invoice_id) WHERE credits_invoice_id IS NOT NULL;
COMMENT ON TABLE partner_portal.invoice IS
'Invoices and credit notes. A draft is recomputed until it is final: then it has a number and never changes (PP003), but for becoming paid or void. Amounts are minor units of the currency; those of a credit note are positive too.';
COMMENT ON COLUMN partner_portal.invoice.status IS 'draft, final, paid, void, or empty: a total of zero under a plan that asks for no document; it has no number and is in no list.';
COMMENT ON COLUMN partner_portal.invoice.partner_key IS 'Partner of the workspace in the period, 0 for none; it does not follow a transfer.';
COMMENT ON COLUMN partner_portal.invoice.issuer_key IS 'Who issues it: owner of the plan, 0 the platform.';
COMMENT ON COLUMN partner_portal.invoice.payer_id IS 'Workspace that pays: its own, or the partner that held its wallet at the period''s start.';
COMMENT ON COLUMN partner_portal.invoice.visibility IS 'workspace.invoice_visibility at the period''s start: seen by the payer alone or by both; the issuer sees it in any case.';
COMMENT ON COLUMN partner_portal.invoice.keys_billed IS 'Keys of the period: the billed quantity if it is a number of keys, else the different keys.';
COMMENT ON COLUMN partner_portal.invoice.taxed_subtotal_minor IS 'Subtotal when the tax was set; a draft whose subtotal has changed since is not finalized by itself.';
COMMENT ON COLUMN partner_portal.invoice.known_at IS 'Facts known by this instant are billed; later ones are corrected on the next invoice.';
COMMENT ON COLUMN partner_portal.invoice.finalize_after IS 'End of the grace: from then on a run finalizes it, unless auto_finalize is off.';
COMMENT ON COLUMN partner_portal.invoice.invoice_date IS 'Date of the document in the issuer''s time zone.';
COMMENT ON COLUMN partner_portal.invoice.series_year IS 'Year of its series, 0 if the series runs on.';
COMMENT ON COLUMN partner_portal.invoice.reason IS 'Of a credit note: why.';
COMMENT ON COLUMN partner_portal.invoice.settled_at IS 'When it was paid or made void.';
COMMENT ON COLUMN partner_portal.invoice.settled_note IS 'Reference of the payment, or why it is void.';
COMMENT ON COLUMN partner_portal.invoice.digest_salt IS 'Random; part of the digest in the activity log, so that who reads the log but may not see the document cannot guess its amounts from it.';

-- No foreign key to invoice: it would answer a TRUNCATE before the guard does. invoice_line_guard() and invoice_lines_of_draft()
-- keep lines and documents together.
CREATE TABLE partner_portal.invoice_line (
	workspace_id bigint NOT NULL,
	invoice_id bigint NOT NULL,
	line integer NOT NULL,
	partner_key bigint NOT NULL,
	issuer_key bigint NOT NULL,
	payer_id bigint NOT NULL,
	workspace_sees boolean NOT NULL,
	partner_sees boolean NOT NULL,
	type text NOT NULL,
	about_start timestamptz NOT NULL,
	about_end timestamptz NOT NULL,
	component integer,
	kind text,
	measure text,
	model text,
	unit_price numeric,
	package_size integer,
	tiers jsonb,
	minimum_minor bigint,
	free_units integer,
	part_dates integer,
	whole_dates integer,
	quantity numeric,
	credits_line integer,
	text text NOT NULL,
	amount_minor bigint NOT NULL,
	CONSTRAINT invoice_line_pkey PRIMARY KEY (workspace_id, invoice_id, line),
	CONSTRAINT invoice_line_type CHECK (type IN ('usage', 'correction', 'credit')),
	CONSTRAINT invoice_line_terms CHECK (type = 'credit' OR (component IS NOT NULL AND measure IS NOT NULL AND model IS NOT NULL AND minimum_minor IS NOT NULL
		AND free_units IS NOT NULL AND part_dates IS NOT NULL AND whole_dates > 0 AND quantity IS NOT NULL)),
	CONSTRAINT invoice_line_credit CHECK ((type = 'credit') = (credits_line IS NOT NULL) AND (type <> 'credit' OR amount_minor > 0)),
	CONSTRAINT invoice_line_text CHECK (length(text) BETWEEN 1 AND 1000)
);
CREATE INDEX invoice_line_about_idx ON partner_portal.invoice_line (workspace_id, about_start);
COMMENT ON TABLE partner_portal.invoice_line IS
'Lines of invoices and credit notes, with a copy of everything that made the amount: quantity, measure, model and prices. amount_minor is rounded once, half away from zero; the total is the sum.';
COMMENT ON COLUMN partner_portal.invoice_line.type IS 'usage of the period; correction of an earlier one for facts that came late; credit, on a credit note.';
COMMENT ON COLUMN partner_portal.invoice_line.about_start IS 'Start of the period the line is about: an earlier one for a correction.';
COMMENT ON COLUMN partner_portal.invoice_line.kind IS 'Kind of key that is priced; NULL all keys together.';
COMMENT ON COLUMN partner_portal.invoice_line.quantity IS 'What is billed; of a correction, the difference to what was billed before.';
COMMENT ON COLUMN partner_portal.invoice_line.part_dates IS 'Local dates of the period out of whole_dates of the whole one it is a part of: its share of flat fees and of the minimum.';

ALTER TABLE partner_portal.invoice_issuer ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.invoice_series ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.invoice ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.invoice_line ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.invoice_issuer AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.invoice_issuer FOR SELECT
	USING (issuer_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

CREATE POLICY signed_in ON partner_portal.invoice_series AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.invoice_series FOR SELECT
	USING (issuer_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

-- The workspace's people; the issuer, also after a transfer; the partner of that time; the payer; the partner's staff.
CREATE POLICY signed_in ON partner_portal.invoice AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.invoice FOR SELECT
	USING ((workspace_id = (SELECT partner_portal.own_workspace('read')) AND workspace_sees)
		OR issuer_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR (partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()) AND partner_sees)
		OR payer_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR (workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[])
			AND partner_key = (SELECT partner_portal.current_partner_id()) AND partner_sees));

CREATE POLICY signed_in ON partner_portal.invoice_line AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.invoice_line FOR SELECT
	USING ((workspace_id = (SELECT partner_portal.own_workspace('read')) AND workspace_sees)
		OR issuer_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR (partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()) AND partner_sees)
		OR payer_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR (workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[])
			AND partner_key = (SELECT partner_portal.current_partner_id()) AND partner_sees));

SELECT pg_catalog.pg_extension_config_dump('partner_portal.invoice_issuer', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.invoice_series', '');
-- Dumped in order: an invoice comes before the notes that credit it.
SELECT pg_catalog.pg_extension_config_dump('partner_portal.invoice', 'ORDER BY invoice_id');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.invoice_invoice_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.invoice_line', '');

CREATE VIEW partner_portal.invoices WITH (security_invoker, security_barrier) AS
	SELECT i.workspace_id, i.invoice_id, i.document, i.invoice_number, i.invoice_date, i.status, i.company_name,
		tstzrange(i.period_start, i.period_end) AS period, i.period_label, i.issuer_name, i.payer_name, i.plan_name, i.keys_billed,
		i.currency, i.subtotal_minor, i.tax_minor, i.total_minor, i.credits_invoice_id, i.settled_at, i.settled_note, i.issuer_key, i.payer_id, i.partner_key
	FROM partner_portal.invoice i
	WHERE i.status <> 'empty';
COMMENT ON VIEW partner_portal.invoices IS 'Invoices and credit notes that the identity may see, drafts included. Amounts in minor units of the currency.';

-- Immutability.

CREATE FUNCTION partner_portal.invoice_guard() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_invoice_guard';
COMMENT ON FUNCTION partner_portal.invoice_guard() IS 'Trigger: refuses (PP003) to change, delete or truncate finished documents, and to insert any but drafts.';
REVOKE ALL ON FUNCTION partner_portal.invoice_guard() FROM PUBLIC;

CREATE TRIGGER invoice_guard BEFORE INSERT OR UPDATE OR DELETE ON partner_portal.invoice
	FOR EACH ROW EXECUTE FUNCTION partner_portal.invoice_guard();
CREATE TRIGGER invoice_guard_truncate BEFORE TRUNCATE ON partner_portal.invoice
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.invoice_guard();

CREATE FUNCTION partner_portal.settle_invoice(workspace_id bigint, invoice_id bigint, status text, at timestamptz, note text) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_settle_invoice';
COMMENT ON FUNCTION partner_portal.settle_invoice(bigint, bigint, text, timestamptz, text) IS 'Makes a final document paid or void, the only change it may suffer. PP005 it is not final; internal.';
REVOKE ALL ON FUNCTION partner_portal.settle_invoice(bigint, bigint, text, timestamptz, text) FROM PUBLIC;

-- Whoever disables the guards is found out by verify(): the log has this of every document. What is NULL has no part in it, so
-- that a column of a later version does not change the digests of older documents.
CREATE FUNCTION partner_portal.invoice_digest(workspace_id bigint, invoice_id bigint) RETURNS text
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
	RETURN (
		SELECT encode(sha256(convert_to(jsonb_strip_nulls(jsonb_build_array(to_jsonb(i) - '{status,settled_at,settled_note}'::text[],
			(SELECT jsonb_agg(to_jsonb(l) ORDER BY l.line) FROM partner_portal.invoice_line l
				WHERE l.workspace_id = invoice_digest.workspace_id AND l.invoice_id = invoice_digest.invoice_id)))::text, 'UTF8')), 'hex')
		FROM partner_portal.invoice i
		WHERE i.workspace_id = invoice_digest.workspace_id AND i.invoice_id = invoice_digest.invoice_id);
END
$$;
COMMENT ON FUNCTION partner_portal.invoice_digest(bigint, bigint) IS
'SHA-256, in hex, of a document and its lines in order, as JSON with instants in UTC: every column that is not NULL but those that change when it is paid or void. NULL there is none. Internal.';
REVOKE ALL ON FUNCTION partner_portal.invoice_digest(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.invoice_line_guard() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	finished boolean := true;
BEGIN
	IF TG_OP = 'INSERT' THEN
		IF partner_portal.restoring_session() THEN
			RETURN NULL;
		END IF;
		SELECT EXISTS (SELECT FROM new_lines l WHERE NOT EXISTS (SELECT FROM partner_portal.invoice i
			WHERE i.workspace_id = l.workspace_id AND i.invoice_id = l.invoice_id AND i.status = 'draft')) INTO finished;
	ELSIF TG_OP = 'UPDATE' THEN
		SELECT EXISTS (SELECT FROM (SELECT o.workspace_id, o.invoice_id FROM old_lines o UNION ALL SELECT n.workspace_id, n.invoice_id FROM new_lines n) l
			WHERE NOT EXISTS (SELECT FROM partner_portal.invoice i
				WHERE i.workspace_id = l.workspace_id AND i.invoice_id = l.invoice_id AND i.status = 'draft')) INTO finished;
	ELSIF TG_OP = 'DELETE' THEN
		SELECT EXISTS (SELECT FROM old_lines l JOIN partner_portal.invoice i ON i.workspace_id = l.workspace_id AND i.invoice_id = l.invoice_id
			WHERE i.status <> 'draft') INTO finished;
	END IF;
	IF finished THEN
		RAISE EXCEPTION USING ERRCODE = 'PP003', MESSAGE = format('cannot %s lines of a document that is no draft', lower(TG_OP)),
			DETAIL = 'A finished invoice or credit note never changes.', HINT = 'Correct it with credit_invoice() or void_invoice().';
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.invoice_line_guard() IS 'Trigger: refuses (PP003) every change of lines but those of drafts.';
REVOKE ALL ON FUNCTION partner_portal.invoice_line_guard() FROM PUBLIC;

CREATE TRIGGER invoice_line_guard_insert AFTER INSERT ON partner_portal.invoice_line
	REFERENCING NEW TABLE AS new_lines FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.invoice_line_guard();
CREATE TRIGGER invoice_line_guard_update AFTER UPDATE ON partner_portal.invoice_line
	REFERENCING OLD TABLE AS old_lines NEW TABLE AS new_lines FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.invoice_line_guard();
CREATE TRIGGER invoice_line_guard_delete AFTER DELETE ON partner_portal.invoice_line
	REFERENCING OLD TABLE AS old_lines FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.invoice_line_guard();
CREATE TRIGGER invoice_line_guard_truncate BEFORE TRUNCATE ON partner_portal.invoice_line
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.invoice_line_guard();

CREATE FUNCTION partner_portal.invoice_lines_of_draft() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- whether or not partner_portal.restoring_session(): a deletion is one there too
	DELETE FROM partner_portal.invoice_line l USING old_invoices o WHERE l.workspace_id = o.workspace_id AND l.invoice_id = o.invoice_id;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.invoice_lines_of_draft() IS 'Trigger: the lines of a draft go with it.';
REVOKE ALL ON FUNCTION partner_portal.invoice_lines_of_draft() FROM PUBLIC;

CREATE TRIGGER invoice_lines_of_draft AFTER DELETE ON partner_portal.invoice
	REFERENCING OLD TABLE AS old_invoices FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.invoice_lines_of_draft();

CREATE FUNCTION partner_portal.set_invoice_issuer(partner_id bigint, name text DEFAULT NULL, address text DEFAULT NULL, tax_id text DEFAULT NULL,
	number_prefix text DEFAULT '', yearly boolean DEFAULT false) RETURNS partner_portal.invoice_issuer
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	issuer bigint := partner_portal.authorized_issuer(partner_id);
	made partner_portal.invoice_issuer;
BEGIN
	IF name IS NOT NULL THEN
		PERFORM partner_portal.checked_text('name', name, 200);
	END IF;
	IF tax_id IS NOT NULL THEN
		PERFORM partner_portal.checked_text('tax_id', tax_id, 100);
	END IF;
	IF length(address) > 1000 OR partner_portal.has_controls(address)
		OR number_prefix IS NULL OR number_prefix !~ '^[A-Za-z0-9./_-]{0,20}$' OR yearly IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'invalid particulars of an issuer',
			HINT = 'address up to 1000 characters, number_prefix up to 20 of A-Z a-z 0-9 . / _ -.';
	END IF;
	INSERT INTO partner_portal.invoice_issuer AS i (issuer_key, name, address, tax_id, number_prefix, yearly)
	VALUES (issuer, name, address, tax_id, number_prefix, yearly)
	ON CONFLICT ON CONSTRAINT invoice_issuer_pkey DO UPDATE SET name = excluded.name, address = excluded.address, tax_id = excluded.tax_id,
		number_prefix = excluded.number_prefix, yearly = excluded.yearly
	RETURNING i.* INTO made;
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.set_invoice_issuer(bigint, text, text, text, text, boolean) IS
'What an issuer (NULL the platform) wants on documents finalized from now on: name, address, tax id, a prefix of numbers, and whether they begin anew every year. 42501 not the issuer; P0002 no such partner; 22001, 22023 bad input.';
REVOKE ALL ON FUNCTION partner_portal.set_invoice_issuer(bigint, text, text, text, text, boolean) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.invoice'),
	('application', 'SELECT', 'TABLE partner_portal.invoice_line'),
	('application', 'SELECT', 'TABLE partner_portal.invoices'),
	('application', 'SELECT', 'TABLE partner_portal.invoice_issuer'),
	('application', 'SELECT', 'TABLE partner_portal.invoice_series'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.set_invoice_issuer(bigint, text, text, text, text, boolean)');
-- plan_assignment.sql: which plan a workspace has from when on, who pays, and what keeps plans in use as they are.

CREATE TABLE partner_portal.plan_assignment (
	workspace_id bigint NOT NULL,
	valid_from timestamptz NOT NULL,
	partner_key bigint NOT NULL,
	family_id bigint,
	assigned_at timestamptz NOT NULL DEFAULT now(),
	assigned_by bigint,
	CONSTRAINT plan_assignment_pkey PRIMARY KEY (workspace_id, valid_from),
	CONSTRAINT plan_assignment_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace,
	CONSTRAINT plan_assignment_plan FOREIGN KEY (partner_key, family_id) REFERENCES partner_portal.price_plan (partner_key, plan_id),
	CONSTRAINT plan_assignment_valid_from CHECK (isfinite(valid_from))
);
CREATE INDEX plan_assignment_plan_idx ON partner_portal.plan_assignment (partner_key, family_id);
COMMENT ON TABLE partner_portal.plan_assignment IS
'Price plan of a workspace for periods that start at or after valid_from, until a later row. partner_key is the plan''s owner, who issues the invoices (0 the platform); it does not follow a transfer.';
COMMENT ON COLUMN partner_portal.plan_assignment.family_id IS 'plan_id of the plan''s first version; NULL is no plan from then on.';

ALTER TABLE partner_portal.plan_assignment ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY signed_in ON partner_portal.plan_assignment AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.plan_assignment FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));
SELECT pg_catalog.pg_extension_config_dump('partner_portal.plan_assignment', '');

CREATE FUNCTION partner_portal.plan_in_use(plan partner_portal.price_plan) RETURNS boolean
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT ((plan).in_force_from <= now() AND (plan).created_at <> now()
			AND EXISTS (SELECT FROM partner_portal.plan_assignment a WHERE a.partner_key = (plan).partner_key AND a.family_id = (plan).family_id))
		OR EXISTS (SELECT FROM partner_portal.invoice i WHERE i.issuer_key = (plan).partner_key AND i.plan_id = (plan).plan_id);
END;
COMMENT ON FUNCTION partner_portal.plan_in_use(partner_portal.price_plan) IS
'Whether a version of a plan must stay as it is: it is in force and assigned, and was not made by this transaction, or an invoice was made by it; internal.';
REVOKE ALL ON FUNCTION partner_portal.plan_in_use(partner_portal.price_plan) FROM PUBLIC;

CREATE FUNCTION partner_portal.plan_guard() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	guarded record;
	plan partner_portal.price_plan;
BEGIN
	IF TG_OP = 'TRUNCATE' THEN
		RAISE EXCEPTION USING ERRCODE = 'feature_not_supported', MESSAGE = 'price plans cannot be truncated';
	END IF;
	IF TG_OP = 'INSERT' THEN
		IF partner_portal.restoring_session() THEN
			RETURN NEW;
		END IF;
		guarded := NEW;
	ELSE
		guarded := OLD;
	END IF;
	SELECT p.* INTO plan FROM partner_portal.price_plan p WHERE p.partner_key = guarded.partner_key AND p.plan_id = guarded.plan_id;
	IF FOUND AND partner_portal.plan_in_use(plan) THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('price plan %s is in use', plan.plan_id),
			DETAIL = 'A plan that workspaces have, or that an invoice was made by, never changes.',
			HINT = 'Supersede it with revise_price_plan().';
	END IF;
	RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;
COMMENT ON FUNCTION partner_portal.plan_guard() IS 'Trigger: refuses (PP005) to change or delete a price plan in use, or to add to it.';
REVOKE ALL ON FUNCTION partner_portal.plan_guard() FROM PUBLIC;

CREATE TRIGGER plan_guard BEFORE UPDATE OR DELETE ON partner_portal.price_plan
	FOR EACH ROW EXECUTE FUNCTION partner_portal.plan_guard();
CREATE TRIGGER plan_guard_truncate BEFORE TRUNCATE ON partner_portal.price_plan
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.plan_guard();
CREATE TRIGGER plan_guard BEFORE INSERT OR UPDATE OR DELETE ON partner_portal.plan_component
	FOR EACH ROW EXECUTE FUNCTION partner_portal.plan_guard();
CREATE TRIGGER plan_guard_truncate BEFORE TRUNCATE ON partner_portal.plan_component
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.plan_guard();

CREATE FUNCTION partner_portal.assign_price_plan(workspace_id bigint, plan_id bigint, valid_from timestamptz DEFAULT NULL) RETURNS partner_portal.plan_assignment
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	customer partner_portal.workspace;
	plan partner_portal.price_plan;
	made partner_portal.plan_assignment;
BEGIN
	PERFORM partner_portal.authorize('bill', workspace_id);
	SELECT w.* INTO customer FROM partner_portal.workspace w WHERE w.workspace_id = assign_price_plan.workspace_id FOR NO KEY UPDATE;
	IF customer.deleted_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is deleted', workspace_id);
	END IF;
	IF plan_id IS NULL THEN
		-- Who ends a plan must be its owner; the partner of a direct workspace is the platform.
		SELECT p.* INTO plan FROM partner_portal.plan_at(workspace_id, customer.partner_key, 'infinity') p;
		PERFORM partner_portal.authorize_issuer(coalesce(plan.partner_key, customer.partner_key));
		plan.partner_key := coalesce(plan.partner_key, customer.partner_key);
		plan.family_id := NULL;
	ELSE
		plan := partner_portal.visible_plan(plan_id);
		IF plan.partner_key NOT IN (0, customer.partner_key) THEN
			RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is no customer of the owner of price plan %s', workspace_id, plan_id);
		END IF;
		PERFORM FROM partner_portal.price_plan p WHERE p.partner_key = plan.partner_key AND p.plan_id = plan.family_id FOR SHARE;
	END IF;
	IF valid_from IS NULL THEN
		valid_from := upper(partner_portal.find_period(workspace_id, clock_timestamp()));
	ELSIF NOT isfinite(valid_from) OR valid_from NOT BETWEEN timestamptz '1900-01-01 00:00+00' AND timestamptz '3000-01-01 00:00+00' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'valid_from is out of range';
	ELSIF valid_from < upper(partner_portal.find_period(workspace_id, clock_timestamp())) THEN
		IF NOT partner_portal.is_operator() THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a plan comes into force with the next period at the earliest',
				HINT = 'Only the operator, who loads history from elsewhere, may say otherwise.';
		END IF;
		IF EXISTS (SELECT FROM partner_portal.invoice i WHERE i.workspace_id = assign_price_plan.workspace_id AND i.document = 'invoice' AND i.period_start >= valid_from) THEN
			RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is billed beyond %s already', workspace_id, valid_from);
		END IF;
		UPDATE partner_portal.billing_period p SET billed_at = NULL
		WHERE p.workspace_id = assign_price_plan.workspace_id AND p.period_start >= valid_from AND p.billed_at IS NOT NULL;
	END IF;
	DELETE FROM partner_portal.plan_assignment a WHERE a.workspace_id = assign_price_plan.workspace_id AND a.valid_from > assign_price_plan.valid_from;
	INSERT INTO partner_portal.plan_assignment AS a (workspace_id, valid_from, partner_key, family_id, assigned_by)
	VALUES (workspace_id, valid_from, plan.partner_key, plan.family_id, partner_portal.current_account_id())
	ON CONFLICT ON CONSTRAINT plan_assignment_pkey DO UPDATE SET partner_key = excluded.partner_key, family_id = excluded.family_id,
		assigned_at = excluded.assigned_at, assigned_by = excluded.assigned_by
	RETURNING a.* INTO made;
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.assign_price_plan(bigint, bigint, timestamptz) IS
'Gives a workspace a price plan (NULL: none) from its next period on, or later; any version of a plan stands for the plan. A partner gives its own customers its own plans; the operator the platform''s. The operator may date it back to periods not billed yet. 42501, P0002 as authorize(); PP005 another partner''s customer, deleted, or billed already.';
REVOKE ALL ON FUNCTION partner_portal.assign_price_plan(bigint, bigint, timestamptz) FROM PUBLIC;

-- One SELECT, taken into the query that bills a thousand periods.
CREATE FUNCTION partner_portal.plan_at(workspace_id bigint, partner_key bigint, at timestamptz) RETURNS SETOF partner_portal.price_plan
	LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
	SELECT v.*
	FROM (SELECT a.partner_key, a.family_id FROM partner_portal.plan_assignment a
		WHERE a.workspace_id = plan_at.workspace_id AND a.valid_from <= plan_at.at ORDER BY a.valid_from DESC LIMIT 1) assigned
	CROSS JOIN LATERAL (SELECT p.* FROM partner_portal.price_plan p
		WHERE p.partner_key = assigned.partner_key AND p.family_id = assigned.family_id AND p.in_force_from <= plan_at.at
		ORDER BY p.in_force_from DESC LIMIT 1) v
	WHERE assigned.partner_key IN (0, plan_at.partner_key);
END;
COMMENT ON FUNCTION partner_portal.plan_at(bigint, bigint, timestamptz) IS
'The version of the plan that prices a period of a workspace starting at an instant, under the partner of that period; no row is no plan. Internal.';
REVOKE ALL ON FUNCTION partner_portal.plan_at(bigint, bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.payer_at(workspace_id bigint, at timestamptz) RETURNS bigint
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT coalesce((
		SELECT g.partner_id FROM partner_portal.access_grant g
		WHERE g.workspace_id = payer_at.workspace_id AND g.wallet_since <= payer_at.at AND coalesce(g.wallet_until > payer_at.at, true)
			AND coalesce(g.expires_at > payer_at.at, true)
		ORDER BY g.wallet_since DESC LIMIT 1), payer_at.workspace_id)
	WHERE payer_at.at IS NOT NULL;
END;
COMMENT ON FUNCTION partner_portal.payer_at(bigint, timestamptz) IS
'Workspace that pays a platform plan''s invoice of a period of the workspace starting at an instant: the holder of its wallet then, else itself. Internal.';
REVOKE ALL ON FUNCTION partner_portal.payer_at(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.billing_period_terms() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'UPDATE' THEN
		-- cut by a transfer or a deletion
		IF NEW.period_end < OLD.period_end THEN
			NEW.whole_start := coalesce(OLD.whole_start, OLD.period_start);
			NEW.whole_end := coalesce(OLD.whole_end, OLD.period_end);
		END IF;
		RETURN NEW;
	END IF;
	IF partner_portal.restoring_session() THEN
		RETURN NEW;
	END IF;
	SELECT partner_portal.payer_at(w.workspace_id, NEW.period_start), w.invoice_visibility INTO NEW.payer_id, NEW.invoice_visibility
	FROM partner_portal.workspace w WHERE w.workspace_id = NEW.workspace_id;
	-- the second part of a split period; else what is shorter than the schedule says is a part too
	SELECT p.whole_start, p.whole_end INTO NEW.whole_start, NEW.whole_end FROM partner_portal.billing_period p
	WHERE p.workspace_id = NEW.workspace_id AND p.period_end = NEW.period_start AND p.whole_end >= NEW.period_end;
	IF NOT FOUND THEN
		SELECT b.period_start, b.period_end INTO NEW.whole_start, NEW.whole_end
		FROM partner_portal.workspace w
		CROSS JOIN LATERAL partner_portal.billing_period_bounds(w.anchor_date, w.billing_step, w.time_zone, NEW.period_start) b
		WHERE w.workspace_id = NEW.workspace_id AND b.period_start <= NEW.period_start AND b.period_end >= NEW.period_end
			AND (b.period_start < NEW.period_start OR b.period_end > NEW.period_end);
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION partner_portal.billing_period_terms() IS
'Trigger: stores with a period that opens who pays, who sees the invoice, and the whole period it is a part of.';
REVOKE ALL ON FUNCTION partner_portal.billing_period_terms() FROM PUBLIC;

CREATE TRIGGER billing_period_terms_insert BEFORE INSERT ON partner_portal.billing_period
	FOR EACH ROW EXECUTE FUNCTION partner_portal.billing_period_terms();
CREATE TRIGGER billing_period_terms_update BEFORE UPDATE OF period_end ON partner_portal.billing_period
	FOR EACH ROW EXECUTE FUNCTION partner_portal.billing_period_terms();

CREATE FUNCTION partner_portal.workspace_billing() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	-- by the clock: a period that ended while the transaction was open still is the old plan's
	ended timestamptz := clock_timestamp();
BEGIN
	IF TG_WHEN = 'BEFORE' THEN
		-- what has begun keeps the visibility it began with
		IF OLD.deleted_at IS NULL AND NOT partner_portal.restoring_session() THEN
			PERFORM partner_portal.add_periods(ARRAY[OLD.workspace_id], clock_timestamp());
		END IF;
		RETURN NEW;
	END IF;
	IF NEW.billing_from < OLD.billing_from THEN
		UPDATE partner_portal.billing_period p SET billed_at = NULL
		WHERE p.workspace_id = NEW.workspace_id AND p.period_end > NEW.billing_from AND p.period_end <= OLD.billing_from AND p.billed_at IS NOT NULL;
	END IF;
	IF NEW.partner_key <> OLD.partner_key THEN
		-- the old partner's plan ends with the transfer, and what it had planned too
		DELETE FROM partner_portal.plan_assignment a
		WHERE a.workspace_id = NEW.workspace_id AND a.partner_key = OLD.partner_key AND a.partner_key <> 0 AND a.valid_from >= ended;
		INSERT INTO partner_portal.plan_assignment (workspace_id, valid_from, partner_key)
		SELECT NEW.workspace_id, ended, OLD.partner_key
		FROM (SELECT a.partner_key, a.family_id FROM partner_portal.plan_assignment a
			WHERE a.workspace_id = NEW.workspace_id ORDER BY a.valid_from DESC LIMIT 1) latest
		WHERE latest.partner_key = OLD.partner_key AND latest.partner_key <> 0 AND latest.family_id IS NOT NULL
		ON CONFLICT ON CONSTRAINT plan_assignment_pkey DO NOTHING;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.workspace_billing() IS
'Trigger: opens the periods that have begun before invoice_visibility changes; an earlier billing_from makes periods due again; a transfer ends the old partner''s plan.';
REVOKE ALL ON FUNCTION partner_portal.workspace_billing() FROM PUBLIC;

CREATE TRIGGER workspace_visibility BEFORE UPDATE OF invoice_visibility ON partner_portal.workspace
	FOR EACH ROW WHEN (OLD.invoice_visibility IS DISTINCT FROM NEW.invoice_visibility) EXECUTE FUNCTION partner_portal.workspace_billing();
CREATE TRIGGER workspace_billing AFTER UPDATE OF billing_from, partner_id ON partner_portal.workspace
	FOR EACH ROW EXECUTE FUNCTION partner_portal.workspace_billing();

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.plan_assignment'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.assign_price_plan(bigint, bigint, timestamptz)');
-- billing_run.sql: what a period costs, and the run that bills every period that has ended.
--
-- A head is what an invoice of a period says above its lines. bill_heads() and bill_lines() compute heads and lines of
-- many periods at once from stored periods, plans and facts; drafts, finalizing and preview_invoice() all use them.
-- Locks are taken in this order, each in order of workspace: workspace, workspace_usage, invoice, invoice_series.

CREATE TABLE partner_portal.billing_failure (
	workspace_id bigint NOT NULL,
	partner_key bigint NOT NULL,
	failed_at timestamptz NOT NULL,
	sqlstate text NOT NULL,
	message text NOT NULL,
	CONSTRAINT billing_failure_pkey PRIMARY KEY (workspace_id),
	CONSTRAINT billing_failure_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace
);
CREATE INDEX billing_failure_partner_key_idx ON partner_portal.billing_failure (partner_key);
COMMENT ON TABLE partner_portal.billing_failure IS 'Workspaces that the last billing run could not bill, and why; a row goes when a run succeeds. Shown by billing_health().';
ALTER TABLE partner_portal.billing_failure ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY signed_in ON partner_portal.billing_failure AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.billing_failure FOR SELECT
	USING (partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));
SELECT pg_catalog.pg_extension_config_dump('partner_portal.billing_failure', '');

CREATE TYPE partner_portal.billing_action AS (
	workspace_id bigint,
	period tstzrange,
	invoice_id bigint,
	action text,
	problem text
);
COMMENT ON TYPE partner_portal.billing_action IS 'What a billing run did for a period: closed (no document), drafted, refreshed, finalized, empty (a total of zero, no document) or failed.';

-- Part and whole are counted in local dates from start to end, so that the parts of a period add up to it.
CREATE FUNCTION partner_portal.bill_heads(periods partner_portal.billing_period[])
	RETURNS TABLE (workspace_id bigint, period_start timestamptz, period_end timestamptz, period_label text, time_zone text, partner_key bigint,
		issuer_key bigint, payer_id bigint, visibility text, plan_id bigint, plan_name text, plan_version integer, zero_invoices boolean,
		currency text, minor_digits integer, issuer_name text, issuer_address text, issuer_tax_id text,
		payer_name text, payer_address text, payer_tax_id text, company_name text, part_dates integer, whole_dates integer)
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT p.workspace_id, p.period_start, p.period_end, p.label, p.time_zone, p.partner_key,
		v.partner_key, payer.workspace_id, coalesce(p.invoice_visibility, w.invoice_visibility), v.plan_id, v.name, v.version, v.zero_invoices,
		v.currency, c.minor_digits, coalesce(s.name, issuer.company_name, 'Platform'), coalesce(s.address, issuer.address), coalesce(s.tax_id, issuer.tax_id),
		payer.company_name, payer.address, payer.tax_id, w.company_name,
		least((p.period_end AT TIME ZONE p.time_zone)::date - (p.period_start AT TIME ZONE p.time_zone)::date, whole.dates), whole.dates
	FROM unnest(bill_heads.periods) p
	JOIN partner_portal.workspace w ON w.workspace_id = p.workspace_id
	CROSS JOIN LATERAL partner_portal.plan_at(p.workspace_id, p.partner_key, p.period_start) v
	JOIN partner_portal.currency c ON c.code = v.currency
	JOIN partner_portal.workspace payer ON payer.workspace_id = CASE v.partner_key WHEN 0 THEN coalesce(p.payer_id, p.workspace_id) ELSE p.workspace_id END
	LEFT JOIN partner_portal.workspace issuer ON issuer.workspace_id = v.partner_key
	LEFT JOIN partner_portal.invoice_issuer s ON s.issuer_key = v.partner_key
	CROSS JOIN LATERAL (SELECT greatest(1, (coalesce(p.whole_end, p.period_end) AT TIME ZONE p.time_zone)::date
		- (coalesce(p.whole_start, p.period_start) AT TIME ZONE p.time_zone)::date) AS dates) whole;
END;
COMMENT ON FUNCTION partner_portal.bill_heads(partner_portal.billing_period[]) IS
'What the invoices of periods say above their lines: issuer, payer, plan in force at the start, names and addresses as they are, share of the whole period. A period without a plan has none. Internal.';
REVOKE ALL ON FUNCTION partner_portal.bill_heads(partner_portal.billing_period[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.rate_line(model text, unit_price numeric, package_size integer, tiers jsonb, free_units integer, minimum_minor bigint,
	part_dates integer, whole_dates integer, minor_digits integer, quantity numeric) RETURNS TABLE (amount_minor bigint)
	LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1
BEGIN ATOMIC
	SELECT partner_portal.to_minor(greatest(
			coalesce(sum(b.amount) FILTER (WHERE NOT b.shared), 0) * rate_line.whole_dates + coalesce(sum(b.amount) FILTER (WHERE b.shared), 0) * rate_line.part_dates,
			rate_line.minimum_minor * power(0.1::numeric, rate_line.minor_digits::numeric) * rate_line.part_dates),
		rate_line.whole_dates, rate_line.minor_digits)
	FROM partner_portal.rate_bands(rate_line.model, rate_line.unit_price, rate_line.package_size, rate_line.tiers, rate_line.free_units, rate_line.quantity) b;
END;
COMMENT ON FUNCTION partner_portal.rate_line(text, numeric, integer, jsonb, integer, bigint, integer, integer, integer, numeric) IS
'Amount of a line in minor units: its bands, flat fees by the share of dates, at least the minimum by the same share, rounded once. 22003 beyond bigint; internal.';
REVOKE ALL ON FUNCTION partner_portal.rate_line(text, numeric, integer, jsonb, integer, bigint, integer, integer, integer, numeric) FROM PUBLIC;

CREATE FUNCTION partner_portal.bill_measures(periods partner_portal.billing_period[])
	RETURNS TABLE (workspace_id bigint, period_start timestamptz, kind text, distinct_keys integer, peak_keys integer, end_keys integer,
		start_keys integer, key_days numeric, key_seconds numeric, users integer)
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT u.workspace_id, u.period_start, u.kind, u.distinct_keys, u.peak_keys, u.end_keys, u.start_keys, u.key_days, u.key_seconds, u.users
	FROM unnest(bill_measures.periods) p
	JOIN partner_portal.usage_period u ON u.workspace_id = p.workspace_id AND u.period_start = p.period_start
	WHERE p.closed_at IS NOT NULL AND p.late_facts_at IS NULL
	UNION ALL
	SELECT m.workspace_id, m.period_start, m.kind, m.distinct_keys, m.peak_keys, m.end_keys, m.start_keys, m.key_days, m.key_seconds, m.users
	FROM (SELECT array_agg(p.workspace_id) AS ids, array_agg(p.period_start) AS starts, array_agg(p.period_end) AS ends, array_agg(p.time_zone) AS zones
		FROM unnest(bill_measures.periods) p WHERE p.closed_at IS NULL OR p.late_facts_at IS NOT NULL) live
	CROSS JOIN LATERAL partner_portal.measure_usage(live.ids, live.starts, live.ends, live.zones, NULL) m;
END;
COMMENT ON FUNCTION partner_portal.bill_measures(partner_portal.billing_period[]) IS
'Measures of periods per kind and in total: the stored ones of closed periods, those of now where a period runs or facts came late. Internal.';
REVOKE ALL ON FUNCTION partner_portal.bill_measures(partner_portal.billing_period[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.bill_lines(periods partner_portal.billing_period[])
	RETURNS TABLE (workspace_id bigint, period_start timestamptz, line integer, type text, about_start timestamptz, about_end timestamptz, component integer,
		kind text, measure text, model text, unit_price numeric, package_size integer, tiers jsonb, minimum_minor bigint, free_units integer,
		part_dates integer, whole_dates integer, quantity numeric, text text, amount_minor bigint, distinct_keys integer)
	LANGUAGE sql STABLE
BEGIN ATOMIC
	WITH heads AS MATERIALIZED (
		SELECT h.* FROM partner_portal.bill_heads(bill_lines.periods) h
	), measures AS MATERIALIZED (
		SELECT m.* FROM partner_portal.bill_measures(bill_lines.periods) m
	-- finished invoices of periods with late facts: the earliest document after it that is not finished, of the same issuer to the same payer, carries the correction
	), late AS MATERIALIZED (
		SELECT c.* FROM (
			SELECT DISTINCT ON (i.workspace_id, i.invoice_id) h.workspace_id, h.period_start, i.invoice_id, i.period_label, i.minor_digits, i.issuer_key, i.payer_id, i.currency, p AS about
			FROM heads h
			JOIN partner_portal.billing_period p ON p.workspace_id = h.workspace_id AND p.late_facts_at IS NOT NULL AND p.period_start < h.period_start
			JOIN partner_portal.invoice i ON i.workspace_id = p.workspace_id AND i.period_start = p.period_start AND i.document = 'invoice'
				AND i.status IN ('final', 'paid', 'empty') AND i.issuer_key = h.issuer_key AND i.payer_id = h.payer_id AND i.currency = h.currency
			ORDER BY i.workspace_id, i.invoice_id, h.period_start) c
		WHERE NOT EXISTS (SELECT FROM partner_portal.invoice d
			WHERE d.workspace_id = c.workspace_id AND d.document = 'invoice' AND d.status = 'draft' AND d.period_start > (c.about).period_start AND d.period_start < c.period_start
				AND d.issuer_key = c.issuer_key AND d.payer_id = c.payer_id AND d.currency = c.currency)
	), late_measures AS MATERIALIZED (
		SELECT m.* FROM (SELECT array_agg(l.about) AS periods FROM late l) a CROSS JOIN LATERAL partner_portal.bill_measures(a.periods) m
	), billed AS MATERIALIZED (
		SELECT l.workspace_id, l.about_start, l.component, sum(l.quantity) AS quantity, sum(l.amount_minor) AS amount_minor
		FROM late
		JOIN partner_portal.invoice_line l ON l.workspace_id = late.workspace_id AND l.about_start = (late.about).period_start AND l.type IN ('usage', 'correction')
		JOIN partner_portal.invoice i ON i.workspace_id = l.workspace_id AND i.invoice_id = l.invoice_id AND i.status <> 'void'
		WHERE NOT EXISTS (SELECT FROM heads h WHERE h.workspace_id = i.workspace_id AND h.period_start = i.period_start)
		GROUP BY l.workspace_id, l.about_start, l.component
	), lines AS (
		SELECT 1 AS place, h.workspace_id, h.period_start, 'usage' AS type, h.period_start AS about_start, h.period_end AS about_end, c.component, c.kind, c.measure, c.model,
			c.unit_price, c.package_size, c.tiers, c.minimum_minor, c.free_units, h.part_dates, h.whole_dates, q.quantity,
			CASE c.kind WHEN 'smartphone' THEN 'Smartphones' WHEN 'contactless_card' THEN 'Contactless cards' ELSE 'Security keys' END AS text, r.amount_minor, m.distinct_keys
		FROM heads h
		JOIN partner_portal.plan_component c ON c.partner_key = h.issuer_key AND c.plan_id = h.plan_id
		JOIN measures m ON m.workspace_id = h.workspace_id AND m.period_start = h.period_start AND m.kind = coalesce(c.kind, 'total')
		CROSS JOIN LATERAL (SELECT CASE c.measure WHEN 'distinct_keys' THEN m.distinct_keys WHEN 'peak_keys' THEN m.peak_keys WHEN 'end_keys' THEN m.end_keys
			WHEN 'start_keys' THEN m.start_keys WHEN 'key_days' THEN m.key_days WHEN 'key_seconds' THEN m.key_seconds WHEN 'users' THEN m.users END::numeric AS quantity) q
		CROSS JOIN LATERAL partner_portal.rate_line(c.model, c.unit_price, c.package_size, c.tiers, c.free_units, c.minimum_minor, h.part_dates, h.whole_dates, h.minor_digits, q.quantity) r
		UNION ALL
		SELECT 2, late.workspace_id, late.period_start, 'correction', l.about_start, l.about_end, l.component, l.kind, l.measure, l.model,
			l.unit_price, l.package_size, l.tiers, l.minimum_minor, l.free_units, l.part_dates, l.whole_dates, q.quantity - b.quantity,
			'Correction for ' || late.period_label || ': ' || l.text, (r.amount_minor - b.amount_minor)::bigint, NULL
		FROM late
		JOIN partner_portal.invoice_line l ON l.workspace_id = late.workspace_id AND l.invoice_id = late.invoice_id AND l.type = 'usage'
		JOIN billed b ON b.workspace_id = l.workspace_id AND b.about_start = l.about_start AND b.component = l.component
		JOIN late_measures m ON m.workspace_id = l.workspace_id AND m.period_start = l.about_start AND m.kind = coalesce(l.kind, 'total')
		CROSS JOIN LATERAL (SELECT CASE l.measure WHEN 'distinct_keys' THEN m.distinct_keys WHEN 'peak_keys' THEN m.peak_keys WHEN 'end_keys' THEN m.end_keys
			WHEN 'start_keys' THEN m.start_keys WHEN 'key_days' THEN m.key_days WHEN 'key_seconds' THEN m.key_seconds WHEN 'users' THEN m.users END::numeric AS quantity) q
		CROSS JOIN LATERAL partner_portal.rate_line(l.model, l.unit_price, l.package_size, l.tiers, l.free_units, l.minimum_minor, l.part_dates, l.whole_dates, late.minor_digits, q.quantity) r
		WHERE q.quantity <> b.quantity OR r.amount_minor <> b.amount_minor
	)
	SELECT l.workspace_id, l.period_start, row_number() OVER (PARTITION BY l.workspace_id, l.period_start ORDER BY l.place, l.about_start, l.component)::integer,
		l.type, l.about_start, l.about_end, l.component, l.kind, l.measure, l.model, l.unit_price, l.package_size, l.tiers, l.minimum_minor, l.free_units,
		l.part_dates, l.whole_dates, trim_scale(l.quantity), l.text, l.amount_minor, l.distinct_keys
	FROM lines l;
END;
COMMENT ON FUNCTION partner_portal.bill_lines(partner_portal.billing_period[]) IS
'Lines of the invoices of periods as of now: one per component of the plan in force at the start, and a correction for each earlier invoice whose facts came late: its measure now minus what was billed, at its own prices. Internal.';
REVOKE ALL ON FUNCTION partner_portal.bill_lines(partner_portal.billing_period[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.bill_keys(periods partner_portal.billing_period[]) RETURNS integer
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT coalesce(max(l.quantity) FILTER (WHERE l.kind IS NULL AND l.measure LIKE '%\_keys'), sum(l.quantity) FILTER (WHERE l.measure LIKE '%\_keys'),
		max(l.distinct_keys) FILTER (WHERE l.kind IS NULL), sum(l.distinct_keys))::integer
	FROM partner_portal.bill_lines(bill_keys.periods) l WHERE l.type = 'usage';
END;
COMMENT ON FUNCTION partner_portal.bill_keys(partner_portal.billing_period[]) IS 'Keys that the invoice of a period would bill now; NULL without a plan. Internal.';
REVOKE ALL ON FUNCTION partner_portal.bill_keys(partner_portal.billing_period[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.period_row(workspace_id bigint, period tstzrange) RETURNS partner_portal.billing_period
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	p partner_portal.billing_period;
BEGIN
	SELECT b.* INTO p FROM partner_portal.billing_period b WHERE b.workspace_id = period_row.workspace_id AND b.period_start = lower(period);
	IF NOT FOUND THEN
		SELECT w.workspace_id, f.period_start, f.period_end, w.time_zone, w.partner_key, w.invoice_visibility,
			partner_portal.period_label(f.period_start, f.period_end, w.time_zone), partner_portal.payer_at(w.workspace_id, f.period_start)
		INTO p.workspace_id, p.period_start, p.period_end, p.time_zone, p.partner_key, p.invoice_visibility, p.label, p.payer_id
		FROM partner_portal.workspace w
		CROSS JOIN LATERAL (SELECT lower(r) AS period_start, upper(r) AS period_end FROM partner_portal.find_period(w.workspace_id, lower(period)) r) f
		WHERE w.workspace_id = period_row.workspace_id;
	END IF;
	IF tstzrange(p.period_start, p.period_end) IS DISTINCT FROM period THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('%s is no billing period of workspace %s', period, workspace_id),
			HINT = format('The one that begins there is %s.', partner_portal.find_period(workspace_id, lower(period)));
	END IF;
	RETURN p;
END
$$;
COMMENT ON FUNCTION partner_portal.period_row(bigint, tstzrange) IS 'A billing period as stored, or as it would be if it were opened now. 22023 no billing period. Internal.';
REVOKE ALL ON FUNCTION partner_portal.period_row(bigint, tstzrange) FROM PUBLIC;

CREATE FUNCTION partner_portal.draft_invoices(periods partner_portal.billing_period[], as_of timestamptz) RETURNS SETOF bigint
	LANGUAGE sql
BEGIN ATOMIC
	DELETE FROM partner_portal.invoice_line l
	USING unnest(draft_invoices.periods) p, partner_portal.invoice i
	WHERE i.workspace_id = p.workspace_id AND i.period_start = p.period_start AND i.document = 'invoice' AND i.status = 'draft'
		AND l.workspace_id = i.workspace_id AND l.invoice_id = i.invoice_id;
	WITH lines AS MATERIALIZED (
		SELECT l.* FROM partner_portal.bill_lines(draft_invoices.periods) l
	), totals AS (
		SELECT l.workspace_id, l.period_start, sum(l.amount_minor)::bigint AS subtotal_minor,
			coalesce(max(l.quantity) FILTER (WHERE l.kind IS NULL AND l.measure LIKE '%\_keys'), sum(l.quantity) FILTER (WHERE l.measure LIKE '%\_keys'),
				max(l.distinct_keys) FILTER (WHERE l.kind IS NULL), sum(l.distinct_keys))::integer AS keys_billed
		FROM lines l WHERE l.type = 'usage' GROUP BY l.workspace_id, l.period_start
	), corrections AS (
		SELECT l.workspace_id, l.period_start, sum(l.amount_minor)::bigint AS subtotal_minor
		FROM lines l WHERE l.type = 'correction' GROUP BY l.workspace_id, l.period_start
	), made AS (
		INSERT INTO partner_portal.invoice AS i (workspace_id, period_start, period_end, period_label, time_zone, partner_key, issuer_key, payer_id, visibility,
			plan_id, plan_name, plan_version, zero_invoices, currency, minor_digits, issuer_name, issuer_address, issuer_tax_id,
			payer_name, payer_address, payer_tax_id, company_name, keys_billed, subtotal_minor, total_minor, known_at, finalize_after)
		SELECT h.workspace_id, h.period_start, h.period_end, h.period_label, h.time_zone, h.partner_key, h.issuer_key, h.payer_id, h.visibility,
			h.plan_id, h.plan_name, h.plan_version, h.zero_invoices, h.currency, h.minor_digits, h.issuer_name, h.issuer_address, h.issuer_tax_id,
			h.payer_name, h.payer_address, h.payer_tax_id, h.company_name, coalesce(t.keys_billed, 0),
			coalesce(t.subtotal_minor, 0) + coalesce(c.subtotal_minor, 0), coalesce(t.subtotal_minor, 0) + coalesce(c.subtotal_minor, 0), clock_timestamp(),
			greatest(h.period_end, CASE WHEN h.void_before THEN draft_invoices.as_of END) + current_setting('partner_portal.invoice_grace')::interval
		FROM (SELECT h.*, EXISTS (SELECT FROM partner_portal.invoice o WHERE o.workspace_id = h.workspace_id AND o.period_start = h.period_start
				AND o.document = 'invoice' AND o.status = 'void') AS void_before
			FROM partner_portal.bill_heads(draft_invoices.periods) h) h
		LEFT JOIN totals t ON t.workspace_id = h.workspace_id AND t.period_start = h.period_start
		LEFT JOIN corrections c ON c.workspace_id = h.workspace_id AND c.period_start = h.period_start
		ORDER BY h.workspace_id, h.period_start
		ON CONFLICT (workspace_id, period_start) WHERE document = 'invoice' AND status <> 'void' DO UPDATE SET
			issuer_name = excluded.issuer_name, issuer_address = excluded.issuer_address, issuer_tax_id = excluded.issuer_tax_id,
			payer_name = excluded.payer_name, payer_address = excluded.payer_address, payer_tax_id = excluded.payer_tax_id, company_name = excluded.company_name,
			keys_billed = excluded.keys_billed, subtotal_minor = excluded.subtotal_minor, total_minor = excluded.subtotal_minor + i.tax_minor, known_at = excluded.known_at
			WHERE i.status = 'draft'
		RETURNING i.workspace_id, i.invoice_id, i.period_start, i.partner_key, i.issuer_key, i.payer_id, i.workspace_sees, i.partner_sees
	), written AS (
		INSERT INTO partner_portal.invoice_line (workspace_id, invoice_id, line, partner_key, issuer_key, payer_id, workspace_sees, partner_sees, type,
			about_start, about_end, component, kind, measure, model, unit_price, package_size, tiers, minimum_minor, free_units, part_dates, whole_dates,
			quantity, text, amount_minor)
		SELECT m.workspace_id, m.invoice_id, l.line, m.partner_key, m.issuer_key, m.payer_id, m.workspace_sees, m.partner_sees, l.type,
			l.about_start, l.about_end, l.component, l.kind, l.measure, l.model, l.unit_price, l.package_size, l.tiers, l.minimum_minor, l.free_units,
			l.part_dates, l.whole_dates, l.quantity, l.text, l.amount_minor
		FROM made m JOIN lines l ON l.workspace_id = m.workspace_id AND l.period_start = m.period_start
	)
	SELECT m.invoice_id FROM made m;
END;
COMMENT ON FUNCTION partner_portal.draft_invoices(partner_portal.billing_period[], timestamptz) IS
'Makes or recomputes the drafts of periods; a period without a plan, or with a finished invoice, gets none. The caller holds the workspaces'' locks. Internal.';
REVOKE ALL ON FUNCTION partner_portal.draft_invoices(partner_portal.billing_period[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.finalize_documents(invoice_ids bigint[], as_of timestamptz) RETURNS SETOF partner_portal.billing_action
	LANGUAGE sql
BEGIN ATOMIC
	WITH due AS MATERIALIZED (
		SELECT d.*, row_number() OVER series AS place, count(*) OVER (PARTITION BY d.issuer_key, d.document, d.year, d.empty) AS documents
		FROM (
			SELECT i.workspace_id, i.invoice_id, i.period_start, i.issuer_key, i.document, day.date,
				i.document = 'invoice' AND i.total_minor = 0 AND NOT i.zero_invoices AS empty,
				CASE WHEN s.yearly THEN extract(year FROM day.date)::integer ELSE 0 END AS year, coalesce(s.number_prefix, '') AS prefix
			FROM partner_portal.invoice i
			LEFT JOIN partner_portal.workspace issuer ON issuer.workspace_id = i.issuer_key
			LEFT JOIN partner_portal.invoice_issuer s ON s.issuer_key = i.issuer_key
			CROSS JOIN LATERAL (SELECT (finalize_documents.as_of AT TIME ZONE coalesce(issuer.time_zone, 'UTC'))::date AS date) day
			WHERE i.invoice_id = ANY (finalize_documents.invoice_ids) AND i.status = 'draft'
		) d
		WINDOW series AS (PARTITION BY d.issuer_key, d.document, d.year, d.empty ORDER BY d.workspace_id, d.period_start, d.invoice_id)
	), series AS (
		INSERT INTO partner_portal.invoice_series AS s (issuer_key, document, year, last_number)
		SELECT d.issuer_key, d.document, d.year, count(*) FROM due d WHERE NOT d.empty
		GROUP BY d.issuer_key, d.document, d.year ORDER BY d.issuer_key, d.document, d.year
		ON CONFLICT ON CONSTRAINT invoice_series_pkey DO UPDATE SET last_number = s.last_number + excluded.last_number
		RETURNING s.issuer_key, s.document, s.year, s.last_number
	), done AS (
		UPDATE partner_portal.invoice i SET
			status = CASE WHEN d.empty THEN 'empty' ELSE 'final' END,
			finalized_at = clock_timestamp(), invoice_date = d.date, series_year = CASE WHEN NOT d.empty THEN d.year END,
			number = CASE WHEN NOT d.empty THEN s.last_number - d.documents + d.place END,
			invoice_number = CASE WHEN NOT d.empty THEN d.prefix || CASE d.document WHEN 'credit_note' THEN 'C' ELSE '' END
				|| CASE WHEN d.year > 0 THEN d.year || '-' ELSE '' END || (s.last_number - d.documents + d.place) END
		FROM due d LEFT JOIN series s ON s.issuer_key = d.issuer_key AND s.document = d.document AND s.year = d.year AND NOT d.empty
		WHERE i.workspace_id = d.workspace_id AND i.invoice_id = d.invoice_id AND i.status = 'draft'
		RETURNING i.workspace_id, i.period_start, i.period_end, i.invoice_id, i.status
	)
	SELECT d.workspace_id, tstzrange(d.period_start, d.period_end), d.invoice_id, CASE d.status WHEN 'empty' THEN 'empty' ELSE 'finalized' END, NULL::text
	FROM done d;
END;
COMMENT ON FUNCTION partner_portal.finalize_documents(bigint[], timestamptz) IS
'Finalizes drafts and gives them numbers: one count per series, series in order, as the last act. A total of zero becomes empty unless the plan asks for a document. The caller holds the workspaces'' locks. Internal.';
REVOKE ALL ON FUNCTION partner_portal.finalize_documents(bigint[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.owes_document(workspace_id bigint) RETURNS boolean
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT EXISTS (SELECT FROM partner_portal.invoice i WHERE i.workspace_id = owes_document.workspace_id AND i.status = 'draft')
		OR EXISTS (SELECT FROM partner_portal.billing_period p
			JOIN partner_portal.workspace w ON w.workspace_id = p.workspace_id AND p.period_end > w.billing_from
			CROSS JOIN LATERAL partner_portal.plan_at(p.workspace_id, p.partner_key, p.period_start)
			WHERE p.workspace_id = owes_document.workspace_id AND p.billed_at IS NULL);
END;
COMMENT ON FUNCTION partner_portal.owes_document(bigint) IS 'Whether a workspace has a draft, or a period under a plan that is not billed yet. Internal.';
REVOKE ALL ON FUNCTION partner_portal.owes_document(bigint) FROM PUBLIC;
-- billing_batch.sql: the billing run: who is due, in bounded batches, and what becomes of a workspace that fails.

CREATE INDEX billing_period_late ON partner_portal.billing_period (workspace_id) WHERE late_facts_at IS NOT NULL;

CREATE FUNCTION partner_portal.bill_workspaces(workspace_ids bigint[], as_of timestamptz) RETURNS SETOF partner_portal.billing_action
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	missing partner_portal.billing_period[];
	periods partner_portal.billing_period[];
BEGIN
	PERFORM FROM partner_portal.close_claimed(workspace_ids, as_of);
	SELECT array_agg(p), array_agg(p) FILTER (WHERE p.period_end > w.billing_from) INTO missing, periods
	FROM partner_portal.billing_period p
	JOIN partner_portal.workspace w ON w.workspace_id = p.workspace_id
	WHERE p.workspace_id = ANY (workspace_ids) AND p.billed_at IS NULL AND p.closed_at IS NOT NULL AND p.period_end <= as_of;
	-- Drafts are recomputed when they are due, and when facts of their period have come in.
	SELECT periods || array_agg(p) INTO periods
	FROM partner_portal.invoice i
	JOIN partner_portal.billing_period p ON p.workspace_id = i.workspace_id AND p.period_start = i.period_start
	JOIN partner_portal.workspace w ON w.workspace_id = i.workspace_id
	WHERE i.workspace_id = ANY (workspace_ids) AND i.status = 'draft' AND i.document = 'invoice'
		AND ((i.finalize_after <= as_of AND w.auto_finalize) OR p.late_facts_at > i.known_at);
	IF missing IS NULL AND periods IS NULL THEN
		RETURN;
	END IF;
	PERFORM partner_portal.draft_invoices(periods, as_of);
	UPDATE partner_portal.billing_period p SET billed_at = clock_timestamp()
	FROM unnest(missing) m
	WHERE p.workspace_id = m.workspace_id AND p.period_start = m.period_start;
	RETURN QUERY
	SELECT p.workspace_id, tstzrange(p.period_start, p.period_end), i.invoice_id,
		CASE WHEN i.invoice_id IS NULL THEN 'closed' WHEN p.billed_at IS NULL THEN 'drafted' ELSE 'refreshed' END, NULL::text
	FROM (SELECT m.* FROM unnest(missing) m UNION SELECT o.* FROM unnest(periods) o) p
	LEFT JOIN partner_portal.invoice i ON i.workspace_id = p.workspace_id AND i.period_start = p.period_start AND i.document = 'invoice' AND i.status = 'draft'
	ORDER BY p.workspace_id, p.period_start;
END
$$;
COMMENT ON FUNCTION partner_portal.bill_workspaces(bigint[], timestamptz) IS
'Closes what has ended, and drafts or recomputes the invoices of every missing period of workspaces, in order. The caller holds their locks. Internal.';
REVOKE ALL ON FUNCTION partner_portal.bill_workspaces(bigint[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.due_documents(workspace_ids bigint[], as_of timestamptz) RETURNS bigint[]
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT array_agg(i.invoice_id ORDER BY i.workspace_id, i.period_start)
	FROM partner_portal.invoice i
	JOIN partner_portal.workspace w ON w.workspace_id = i.workspace_id
	WHERE i.workspace_id = ANY (due_documents.workspace_ids) AND i.status = 'draft' AND i.document = 'invoice'
		AND i.finalize_after <= due_documents.as_of AND w.auto_finalize AND coalesce(i.taxed_subtotal_minor = i.subtotal_minor, true);
END;
COMMENT ON FUNCTION partner_portal.due_documents(bigint[], timestamptz) IS 'Drafts of workspaces whose grace is over and that finalize by themselves; internal.';
REVOKE ALL ON FUNCTION partner_portal.due_documents(bigint[], timestamptz) FROM PUBLIC;

-- A batch that fails is taken back and halved, down to the workspace that fails alone.
CREATE FUNCTION partner_portal.bill_batch(workspace_ids bigint[], as_of timestamptz, finalize boolean) RETURNS SETOF partner_portal.billing_action
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	done partner_portal.billing_action[];
	half integer := cardinality(workspace_ids) / 2;
	fault text;
BEGIN
	BEGIN
		IF finalize THEN
			SELECT array_agg(a) INTO done FROM partner_portal.finalize_documents(partner_portal.due_documents(workspace_ids, as_of), as_of) a;
		ELSE
			SELECT array_agg(a) INTO done FROM partner_portal.bill_workspaces(workspace_ids, as_of) a;
			DELETE FROM partner_portal.billing_failure f WHERE f.workspace_id = ANY (workspace_ids);
		END IF;
	EXCEPTION WHEN OTHERS THEN
		-- a conflict with another session, or of the whole server, is no fault of a workspace
		IF left(SQLSTATE, 2) IN ('25', '40', '53', '57', '58') OR SQLSTATE = '55P03' THEN
			RAISE;
		END IF;
		GET STACKED DIAGNOSTICS fault = MESSAGE_TEXT;
		IF half = 0 THEN
			INSERT INTO partner_portal.billing_failure (workspace_id, partner_key, failed_at, sqlstate, message)
			SELECT w.workspace_id, w.partner_key, clock_timestamp(), SQLSTATE, fault FROM partner_portal.workspace w WHERE w.workspace_id = workspace_ids[1]
			ON CONFLICT ON CONSTRAINT billing_failure_pkey DO UPDATE SET failed_at = excluded.failed_at, sqlstate = excluded.sqlstate, message = excluded.message;
			done := ARRAY[ROW(workspace_ids[1], NULL, NULL, 'failed', SQLSTATE || ': ' || fault)::partner_portal.billing_action];
		ELSE
			RETURN QUERY SELECT * FROM partner_portal.bill_batch(workspace_ids[:half], as_of, finalize);
			RETURN QUERY SELECT * FROM partner_portal.bill_batch(workspace_ids[half + 1:], as_of, finalize);
			RETURN;
		END IF;
	END;
	RETURN QUERY SELECT * FROM unnest(done);
END
$$;
COMMENT ON FUNCTION partner_portal.bill_batch(bigint[], timestamptz, boolean) IS
'Drafts (or finalizes) for a batch of workspaces; when it fails, for its halves, in sub-transactions; a workspace that fails alone is recorded in billing_failure and returned with its problem. Internal.';
REVOKE ALL ON FUNCTION partner_portal.bill_batch(bigint[], timestamptz, boolean) FROM PUBLIC;

CREATE FUNCTION partner_portal.claim_due(after bigint, as_of timestamptz, how_many integer) RETURNS bigint[]
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	claimed bigint[];
BEGIN
	SELECT array_agg(c.workspace_id) INTO claimed FROM (
		SELECT w.workspace_id FROM partner_portal.workspace w
		JOIN partner_portal.workspace_usage u ON u.workspace_id = w.workspace_id
		WHERE w.workspace_id > after
			AND (EXISTS (SELECT FROM partner_portal.billing_period p WHERE p.workspace_id = w.workspace_id AND p.billed_at IS NULL AND p.period_end <= as_of)
				OR EXISTS (SELECT FROM partner_portal.invoice i
					JOIN partner_portal.billing_period p ON p.workspace_id = i.workspace_id AND p.period_start = i.period_start
					WHERE i.workspace_id = w.workspace_id AND i.status = 'draft'
						AND ((i.finalize_after <= as_of AND w.auto_finalize AND coalesce(i.taxed_subtotal_minor = i.subtotal_minor, true)) OR p.late_facts_at > i.known_at)))
		ORDER BY w.workspace_id LIMIT how_many
		FOR NO KEY UPDATE OF w SKIP LOCKED FOR UPDATE OF u SKIP LOCKED) c;
	RETURN claimed;
END
$$;
COMMENT ON FUNCTION partner_portal.claim_due(bigint, timestamptz, integer) IS
'Locks and returns the next workspaces after an id that have something to bill; those that another session is busy with are left to it, or to the next run. Internal.';
REVOKE ALL ON FUNCTION partner_portal.claim_due(bigint, timestamptz, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.check_as_of(as_of timestamptz) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.require_operator();
	IF as_of IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'as_of must not be null';
	ELSIF as_of NOT BETWEEN timestamptz '1900-01-01 00:00+00' AND timestamptz '2999-12-31 00:00+00' THEN
		RAISE EXCEPTION USING ERRCODE = 'datetime_field_overflow', MESSAGE = 'as_of is out of range';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.check_as_of(timestamptz) IS 'Returns for the operator and an instant of the years 1900 to 2999; else 42501, 22004, 22008. Internal.';
REVOKE ALL ON FUNCTION partner_portal.check_as_of(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.run_billing(as_of timestamptz DEFAULT now(), max_workspaces integer DEFAULT NULL) RETURNS SETOF partner_portal.billing_action
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	claimed bigint[];
	billed bigint[] := '{}';
	counted integer := 0;
	actions partner_portal.billing_action[];
	drafted partner_portal.billing_action[] := '{}';
	finished partner_portal.billing_action[] := '{}';
BEGIN
	PERFORM partner_portal.check_as_of(as_of);
	IF max_workspaces < 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'max_workspaces must be at least 1';
	END IF;
	LOOP
		claimed := partner_portal.claim_due(coalesce(billed[cardinality(billed)], 0), as_of, least(500, max_workspaces - counted));
		EXIT WHEN claimed IS NULL;
		actions := ARRAY(SELECT a FROM partner_portal.bill_batch(claimed, as_of, false) a);
		drafted := drafted || actions;
		billed := billed || claimed;
		-- those that fail, however many, do not stand before the others
		counted := counted + cardinality(claimed) - (SELECT count(*) FROM unnest(actions) a WHERE a.action = 'failed');
		EXIT WHEN counted >= max_workspaces;
	END LOOP;
	IF billed <> '{}' THEN
		finished := ARRAY(SELECT a FROM partner_portal.bill_batch(billed, as_of, true) a);
	END IF;
	RETURN QUERY
	SELECT d.workspace_id, d.period, d.invoice_id, coalesce(f.action, d.action), coalesce(f.problem, d.problem)
	FROM unnest(drafted) d
	LEFT JOIN unnest(finished) f ON f.workspace_id = d.workspace_id AND f.invoice_id = d.invoice_id
	UNION ALL
	SELECT f.* FROM unnest(finished) f WHERE NOT EXISTS (SELECT FROM unnest(drafted) d WHERE d.workspace_id = f.workspace_id AND d.invoice_id = f.invoice_id)
	ORDER BY 1, 2;
END
$$;
COMMENT ON FUNCTION partner_portal.run_billing(timestamptz, integer) IS
'Closes every billing period that ended by as_of, drafts every missing invoice in order, finalizes what is past its grace, and returns what it did: closed (no document), drafted, refreshed, finalized, empty or failed, with the problem. A workspace that fails does not stop the others; one that another session is busy with is left to the next run. Safe to repeat. max_workspaces bounds how many are billed, those that fail apart. In one transaction: for many workspaces CALL run_due_billing(). Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.run_billing(timestamptz, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.bill_next(as_of timestamptz, after bigint, how_many integer) RETURNS bigint
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	claimed bigint[];
	failed record;
BEGIN
	PERFORM partner_portal.check_as_of(as_of);
	IF how_many IS NULL OR how_many NOT BETWEEN 1 AND 100000 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'batch_size must be from 1 to 100000';
	END IF;
	claimed := partner_portal.claim_due(after, as_of, how_many);
	IF claimed IS NULL THEN
		RETURN NULL;
	END IF;
	FOR failed IN SELECT a.* FROM partner_portal.bill_batch(claimed, as_of, false) a WHERE a.action = 'failed'
		UNION ALL SELECT a.* FROM partner_portal.bill_batch(claimed, as_of, true) a WHERE a.action = 'failed'
	LOOP
		RAISE WARNING USING MESSAGE = format('workspace %s could not be billed', failed.workspace_id), DETAIL = failed.problem, HINT = 'See billing_health().';
	END LOOP;
	RETURN claimed[cardinality(claimed)];
END
$$;
COMMENT ON FUNCTION partner_portal.bill_next(timestamptz, bigint, integer) IS
'Bills the next batch of workspaces after an id as run_billing() does, and returns the last one''s id, NULL when none is left. Operator only (42501); for run_due_billing().';
REVOKE ALL ON FUNCTION partner_portal.bill_next(timestamptz, bigint, integer) FROM PUBLIC;

CREATE PROCEDURE partner_portal.run_due_billing(as_of timestamptz DEFAULT now(), batch_size integer DEFAULT 500)
	LANGUAGE plpgsql AS $$
DECLARE
	billed bigint := 0;
BEGIN
	LOOP
		billed := partner_portal.bill_next(as_of, billed, batch_size);
		COMMIT;
		EXIT WHEN billed IS NULL;
	END LOOP;
END
$$;
COMMENT ON PROCEDURE partner_portal.run_due_billing(timestamptz, integer) IS
'Does what run_billing() does in batches of workspaces with a commit each; sessions that call it at once share the work, and it may be killed anywhere and called again. Failures are warnings, and in billing_health(). By a superuser with nobody signed in (42501), since an identity ends with each commit.';
REVOKE ALL ON PROCEDURE partner_portal.run_due_billing(timestamptz, integer) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('operator', 'EXECUTE', 'FUNCTION partner_portal.run_billing(timestamptz, integer)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.bill_next(timestamptz, bigint, integer)'),
	('operator', 'EXECUTE', 'PROCEDURE partner_portal.run_due_billing(timestamptz, integer)');
-- invoice_change.sql: what people do with invoices: preview, finalize, tax, pay, void, credit and explain.

CREATE FUNCTION partner_portal.invoice_visible(i partner_portal.invoice) RETURNS boolean
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT partner_portal.is_operator()
		OR coalesce((i).workspace_id = partner_portal.own_workspace('read') AND (i).workspace_sees, false)
		OR coalesce((i).issuer_key BETWEEN partner_portal.lowest_partner_key() AND partner_portal.highest_partner_key(), false)
		OR coalesce((i).partner_key BETWEEN partner_portal.lowest_partner_key() AND partner_portal.highest_partner_key() AND (i).partner_sees, false)
		OR coalesce((i).payer_id BETWEEN partner_portal.lowest_partner_key() AND partner_portal.highest_partner_key(), false)
		OR coalesce((i).workspace_id = ANY (partner_portal.granted_workspaces('read')) AND (i).partner_key = partner_portal.current_partner_id() AND (i).partner_sees, false);
END;
COMMENT ON FUNCTION partner_portal.invoice_visible(partner_portal.invoice) IS 'Whether the identity may see a document: the policy of table invoice, for functions that run as its owner. Internal.';
REVOKE ALL ON FUNCTION partner_portal.invoice_visible(partner_portal.invoice) FROM PUBLIC;

CREATE FUNCTION partner_portal.authorized_invoice(permission text, invoice_id bigint) RETURNS partner_portal.invoice
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.invoice;
BEGIN
	IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
	END IF;
	SELECT i.* INTO asked FROM partner_portal.invoice i WHERE i.invoice_id = authorized_invoice.invoice_id;
	IF NOT FOUND OR asked.status = 'empty' OR NOT partner_portal.invoice_visible(asked) THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('invoice %s not found', coalesce(invoice_id::text, 'null'));
	END IF;
	IF permission = 'bill' THEN
		IF NOT partner_portal.is_operator() AND coalesce(asked.issuer_key NOT BETWEEN partner_portal.lowest_partner_key() AND partner_portal.highest_partner_key(), true) THEN
			RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('permission denied: only the issuer of invoice %s may do this', invoice_id);
		END IF;
		-- The locks of a billing run, in its order; facts that were on their way are in when they are granted.
		PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = asked.workspace_id FOR NO KEY UPDATE;
		PERFORM FROM partner_portal.workspace_usage u WHERE u.workspace_id = asked.workspace_id FOR UPDATE;
		SELECT i.* INTO asked FROM partner_portal.invoice i WHERE i.workspace_id = asked.workspace_id AND i.invoice_id = asked.invoice_id FOR UPDATE;
		IF NOT FOUND THEN
			RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('invoice %s not found', invoice_id);
		END IF;
	END IF;
	RETURN asked;
END
$$;
COMMENT ON FUNCTION partner_portal.authorized_invoice(text, bigint) IS
'The document, if the identity may read it, or bill with it (then locked, with its workspace). 42501 nobody signed in, or not the issuer; P0002 absent or not visible. Internal.';
REVOKE ALL ON FUNCTION partner_portal.authorized_invoice(text, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.check_note(what text, note text) RETURNS void
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF note IS NULL OR note !~ '\S' OR length(note) > 1000 OR partner_portal.has_controls(note) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('%s must have 1 to 1000 characters, none of them control characters', what);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.check_note(text, text) IS 'Returns for a text of 1 to 1000 characters; else 22023. Internal.';
REVOKE ALL ON FUNCTION partner_portal.check_note(text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.preview_invoice(workspace_id bigint, period tstzrange DEFAULT NULL)
	RETURNS TABLE (line integer, type text, about tstzrange, kind text, measure text, model text, quantity numeric, text text, amount_minor bigint,
		currency text, total_minor bigint, plan_id bigint, issuer_key bigint, payer_id bigint)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	asked tstzrange;
	p partner_portal.billing_period;
BEGIN
	PERFORM partner_portal.authorize('read', preview_invoice.workspace_id);
	asked := coalesce(preview_invoice.period, partner_portal.find_period(preview_invoice.workspace_id, now()));
	PERFORM partner_portal.check_period(asked);
	PERFORM partner_portal.check_period_visible(preview_invoice.workspace_id, asked);
	p := partner_portal.period_row(preview_invoice.workspace_id, asked);
	IF EXISTS (SELECT FROM partner_portal.bill_heads(ARRAY[p]) h WHERE NOT coalesce(
			partner_portal.is_operator()
			OR (h.workspace_id = partner_portal.own_workspace('read') AND (h.payer_id = h.workspace_id OR h.visibility = 'both'))
			OR h.issuer_key BETWEEN partner_portal.lowest_partner_key() AND partner_portal.highest_partner_key()
			OR h.payer_id BETWEEN partner_portal.lowest_partner_key() AND partner_portal.highest_partner_key()
			OR (h.partner_key = partner_portal.current_partner_id() AND (h.issuer_key = h.partner_key OR h.payer_id = h.partner_key OR h.visibility = 'both')), false)) THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'permission denied: invoices of this period are the payer''s to see';
	END IF;
	RETURN QUERY
	SELECT l.line, l.type, tstzrange(l.about_start, l.about_end), l.kind, l.measure, l.model, l.quantity, l.text, l.amount_minor, h.currency,
		(sum(l.amount_minor) OVER ())::bigint, h.plan_id, h.issuer_key, h.payer_id
	FROM partner_portal.bill_heads(ARRAY[p]) h
	JOIN partner_portal.bill_lines(ARRAY[p]) l ON l.workspace_id = h.workspace_id AND l.period_start = h.period_start
	ORDER BY l.line;
END
$$;
COMMENT ON FUNCTION partner_portal.preview_invoice(bigint, tstzrange) IS
'Lines of the invoice that a billing period (NULL: the current one) would have if it were made now, by the code that makes it; no row without a plan. amount_minor and total_minor, without tax, are minor units of the currency. 22023 no billing period; 42501 the payer''s alone to see; 42501, P0002 as authorize().';
REVOKE ALL ON FUNCTION partner_portal.preview_invoice(bigint, tstzrange) FROM PUBLIC;

CREATE FUNCTION partner_portal.finalize_invoice(invoice_id bigint) RETURNS partner_portal.invoice
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.invoice;
BEGIN
	asked := partner_portal.authorized_invoice('bill', invoice_id);
	IF asked.status <> 'draft' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP003', MESSAGE = format('invoice %s is %s', invoice_id, asked.status),
			DETAIL = format('It was finalized at %s with number %s.', asked.finalized_at, asked.invoice_number);
	END IF;
	PERFORM partner_portal.draft_invoices(array_agg(p), now()) FROM partner_portal.billing_period p
	WHERE p.workspace_id = asked.workspace_id AND p.period_start = asked.period_start;
	SELECT i.* INTO asked FROM partner_portal.invoice i WHERE i.workspace_id = asked.workspace_id AND i.invoice_id = asked.invoice_id;
	IF asked.taxed_subtotal_minor <> asked.subtotal_minor THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('the tax of invoice %s was set for another subtotal', invoice_id),
			DETAIL = format('The subtotal was %s minor units and is now %s.', asked.taxed_subtotal_minor, asked.subtotal_minor),
			HINT = 'Set it again with set_invoice_tax().';
	END IF;
	PERFORM partner_portal.finalize_documents(ARRAY[asked.invoice_id], now());
	SELECT i.* INTO asked FROM partner_portal.invoice i WHERE i.workspace_id = asked.workspace_id AND i.invoice_id = asked.invoice_id;
	RETURN asked;
END
$$;
COMMENT ON FUNCTION partner_portal.finalize_invoice(bigint) IS
'Recomputes a draft once more and makes it final, with the next number of its series, before its grace is over or where auto_finalize is off. PP003 it is finished; PP005 its tax was set for another subtotal; 42501 not the issuer; P0002 not found.';
REVOKE ALL ON FUNCTION partner_portal.finalize_invoice(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.set_invoice_tax(invoice_id bigint, tax_minor bigint, note text DEFAULT NULL) RETURNS partner_portal.invoice
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	asked partner_portal.invoice;
BEGIN
	asked := partner_portal.authorized_invoice('bill', invoice_id);
	IF tax_minor IS NULL OR tax_minor < 0 OR length(note) > 1000 OR partner_portal.has_controls(note) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'tax_minor must be zero or more, and the note at most 1000 characters';
	END IF;
	IF asked.status <> 'draft' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP003', MESSAGE = format('invoice %s is %s', invoice_id, asked.status),
			HINT = 'Tax is set while it is a draft.';
	END IF;
	PERFORM partner_portal.draft_invoices(array_agg(p), now()) FROM partner_portal.billing_period p
	WHERE p.workspace_id = asked.workspace_id AND p.period_start = asked.period_start;
	UPDATE partner_portal.invoice AS i SET tax_minor = set_invoice_tax.tax_minor, tax_note = note, taxed_subtotal_minor = i.subtotal_minor,
		total_minor = i.subtotal_minor + set_invoice_tax.tax_minor
	WHERE i.workspace_id = asked.workspace_id AND i.invoice_id = asked.invoice_id RETURNING i.* INTO asked;
	RETURN asked;
END
$$;
COMMENT ON FUNCTION partner_portal.set_invoice_tax(bigint, bigint, text) IS
'Recomputes a draft and sets its tax, in minor units, which the caller has worked out. If facts change the subtotal afterwards, the draft waits until the tax is set again. PP003 it is finished; 22023 negative; 42501, P0002 as finalize_invoice().';
REVOKE ALL ON FUNCTION partner_portal.set_invoice_tax(bigint, bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.mark_paid(invoice_id bigint, at timestamptz DEFAULT now(), reference text DEFAULT NULL) RETURNS partner_portal.invoice
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.invoice;
BEGIN
	asked := partner_portal.authorized_invoice('bill', invoice_id);
	IF at IS NULL OR NOT at BETWEEN timestamptz '1900-01-01 00:00+00' AND clock_timestamp() OR length(reference) > 1000 OR partner_portal.has_controls(reference) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'at must be an instant in the past, and the reference at most 1000 characters';
	END IF;
	IF asked.status <> 'final' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('invoice %s is %s, not final', invoice_id, asked.status);
	END IF;
	PERFORM partner_portal.settle_invoice(asked.workspace_id, asked.invoice_id, 'paid', at, reference);
	SELECT i.* INTO asked FROM partner_portal.invoice i WHERE i.workspace_id = asked.workspace_id AND i.invoice_id = asked.invoice_id;
	RETURN asked;
END
$$;
COMMENT ON FUNCTION partner_portal.mark_paid(bigint, timestamptz, text) IS
'Notes that a final invoice was paid (or a credit note settled), when, and by what reference. PP005 it is not final; 22023 in the future; 42501, P0002 as finalize_invoice().';
REVOKE ALL ON FUNCTION partner_portal.mark_paid(bigint, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.void_invoice(invoice_id bigint, reason text, reissue boolean DEFAULT false) RETURNS partner_portal.invoice
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.invoice;
BEGIN
	asked := partner_portal.authorized_invoice('bill', invoice_id);
	PERFORM partner_portal.check_note('the reason', reason);
	IF asked.status <> 'final' OR asked.document <> 'invoice' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005',
			MESSAGE = CASE asked.document WHEN 'invoice' THEN format('invoice %s is %s, not final', invoice_id, asked.status) ELSE 'a credit note cannot be made void' END,
			HINT = CASE asked.status WHEN 'paid' THEN 'A paid invoice is corrected with credit_invoice().' WHEN 'draft' THEN 'A draft is recomputed by itself.' ELSE 'Only final invoices are made void.' END;
	END IF;
	IF EXISTS (SELECT FROM partner_portal.invoice i WHERE i.workspace_id = asked.workspace_id AND i.credits_invoice_id = asked.invoice_id) THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('invoice %s has been credited', invoice_id),
			HINT = 'Credit the rest with credit_invoice().';
	END IF;
	PERFORM partner_portal.settle_invoice(asked.workspace_id, asked.invoice_id, 'void', clock_timestamp(), reason);
	IF reissue THEN
		PERFORM partner_portal.draft_invoices(array_agg(p), now()) FROM partner_portal.billing_period p
		WHERE p.workspace_id = asked.workspace_id AND p.period_start = asked.period_start;
	END IF;
	SELECT i.* INTO asked FROM partner_portal.invoice i WHERE i.workspace_id = asked.workspace_id AND i.invoice_id = asked.invoice_id;
	RETURN asked;
END
$$;
COMMENT ON FUNCTION partner_portal.void_invoice(bigint, text, boolean) IS
'Makes a final, uncredited invoice void; it keeps its number. With reissue a new draft of the period is made at once, else the period stays without an invoice. Corrections it carried are made again on the next one. PP005 not final, paid or credited; 22023 no reason; 42501, P0002 as finalize_invoice().';
REVOKE ALL ON FUNCTION partner_portal.void_invoice(bigint, text, boolean) FROM PUBLIC;

CREATE FUNCTION partner_portal.credit_invoice(invoice_id bigint, lines jsonb, reason text, tax_minor bigint DEFAULT 0) RETURNS partner_portal.invoice
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	asked partner_portal.invoice;
	note partner_portal.invoice;
	excess record;
	tax_left bigint;
BEGIN
	asked := partner_portal.authorized_invoice('bill', invoice_id);
	PERFORM partner_portal.check_note('the reason', reason);
	IF asked.document <> 'invoice' OR asked.status NOT IN ('final', 'paid') THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('invoice %s is %s, not final or paid', invoice_id, asked.status),
			HINT = 'Only final and paid invoices are credited.';
	END IF;
	IF lines IS NULL OR jsonb_typeof(lines) <> 'array' OR jsonb_array_length(lines) NOT BETWEEN 1 AND 1000
		OR EXISTS (SELECT FROM jsonb_array_elements(lines) l WHERE CASE WHEN jsonb_typeof(l) <> 'object' THEN true
			ELSE l - ARRAY['line', 'amount_minor', 'text'] <> '{}' OR jsonb_typeof(l -> 'line') IS DISTINCT FROM 'number'
				OR jsonb_typeof(l -> 'amount_minor') IS DISTINCT FROM 'number' OR coalesce(jsonb_typeof(l -> 'text'), 'null') NOT IN ('string', 'null')
				OR length(l ->> 'text') NOT BETWEEN 1 AND 1000 OR l ->> 'text' ~ '[[:cntrl:]]' END) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'lines to credit must be an array of objects',
			HINT = 'Example: [{"line":1,"amount_minor":500,"text":"two keys were not delivered"}].';
	END IF;
	IF EXISTS (SELECT FROM jsonb_array_elements(lines) l
			WHERE (l ->> 'amount_minor')::numeric NOT BETWEEN 1 AND 9223372036854775807 OR scale((l ->> 'amount_minor')::numeric) > 0
				OR NOT EXISTS (SELECT FROM partner_portal.invoice_line o WHERE o.workspace_id = asked.workspace_id AND o.invoice_id = asked.invoice_id
					AND o.line = (l ->> 'line')::numeric)) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('a line to credit is not on invoice %s, or its amount is not a whole number above zero', invoice_id),
			HINT = 'Amounts are minor units of the invoice''s currency.';
	END IF;
	SELECT w.line, w.amount, b.amount_minor AS charged, coalesce(c.amount, 0) AS credited INTO excess
	FROM (SELECT (l ->> 'line')::numeric AS line, sum((l ->> 'amount_minor')::numeric) AS amount FROM jsonb_array_elements(lines) l GROUP BY 1) w
	JOIN partner_portal.invoice_line b ON b.workspace_id = asked.workspace_id AND b.invoice_id = asked.invoice_id AND b.line = w.line
	LEFT JOIN LATERAL (SELECT sum(o.amount_minor) AS amount FROM partner_portal.invoice n
		JOIN partner_portal.invoice_line o ON o.workspace_id = n.workspace_id AND o.invoice_id = n.invoice_id
		WHERE n.workspace_id = asked.workspace_id AND n.credits_invoice_id = asked.invoice_id AND o.credits_line = w.line) c ON true
	WHERE w.amount + coalesce(c.amount, 0) > b.amount_minor
	ORDER BY w.line LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('line %s of invoice %s cannot be credited beyond what it charged', excess.line, invoice_id),
			DETAIL = format('It charged %s, %s are credited, %s were to be credited more, in minor units of %s.', excess.charged, excess.credited, excess.amount, asked.currency);
	END IF;
	-- lines that were corrected downwards are charged by the others together
	IF (SELECT sum((l ->> 'amount_minor')::numeric) FROM jsonb_array_elements(lines) l) + coalesce((SELECT sum(n.subtotal_minor) FROM partner_portal.invoice n
			WHERE n.workspace_id = asked.workspace_id AND n.credits_invoice_id = asked.invoice_id), 0) > asked.subtotal_minor THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('invoice %s cannot be credited beyond what it charged', invoice_id),
			DETAIL = format('Its subtotal is %s minor units of %s.', asked.subtotal_minor, asked.currency);
	END IF;
	SELECT asked.tax_minor - coalesce(sum(n.tax_minor), 0) INTO tax_left FROM partner_portal.invoice n
	WHERE n.workspace_id = asked.workspace_id AND n.credits_invoice_id = asked.invoice_id;
	IF tax_minor IS NULL OR tax_minor NOT BETWEEN 0 AND tax_left THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('tax to credit must be from 0 to %s', tax_left);
	END IF;
	note := asked;
	note.subtotal_minor := (SELECT sum((l ->> 'amount_minor')::numeric) FROM jsonb_array_elements(lines) l);
	INSERT INTO partner_portal.invoice AS i (workspace_id, document, credits_invoice_id, period_start, period_end, period_label, time_zone, partner_key, issuer_key,
		payer_id, visibility, plan_id, plan_name, plan_version, zero_invoices, currency, minor_digits, issuer_name, issuer_address, issuer_tax_id,
		payer_name, payer_address, payer_tax_id, company_name, keys_billed, subtotal_minor, tax_minor, tax_note, total_minor, known_at, finalize_after, reason)
	VALUES (note.workspace_id, 'credit_note', note.invoice_id, note.period_start, note.period_end, note.period_label, note.time_zone, note.partner_key, note.issuer_key,
		note.payer_id, note.visibility, note.plan_id, note.plan_name, note.plan_version, note.zero_invoices, note.currency, note.minor_digits, note.issuer_name,
		note.issuer_address, note.issuer_tax_id, note.payer_name, note.payer_address, note.payer_tax_id, note.company_name, note.keys_billed,
		note.subtotal_minor, credit_invoice.tax_minor, note.tax_note, note.subtotal_minor + credit_invoice.tax_minor, note.known_at, now(), credit_invoice.reason)
	RETURNING i.* INTO note;
	INSERT INTO partner_portal.invoice_line (workspace_id, invoice_id, line, partner_key, issuer_key, payer_id, workspace_sees, partner_sees, type,
		about_start, about_end, kind, credits_line, text, amount_minor)
	SELECT note.workspace_id, note.invoice_id, l.no, note.partner_key, note.issuer_key, note.payer_id, note.workspace_sees, note.partner_sees, 'credit',
		b.about_start, b.about_end, b.kind, b.line, coalesce(l.item ->> 'text', 'Credit: ' || b.text), (l.item ->> 'amount_minor')::bigint
	FROM jsonb_array_elements(lines) WITH ORDINALITY l (item, no)
	JOIN partner_portal.invoice_line b ON b.workspace_id = asked.workspace_id AND b.invoice_id = asked.invoice_id AND b.line = (l.item ->> 'line')::numeric;
	PERFORM partner_portal.finalize_documents(ARRAY[note.invoice_id], now());
	SELECT i.* INTO note FROM partner_portal.invoice i WHERE i.workspace_id = note.workspace_id AND i.invoice_id = note.invoice_id;
	RETURN note;
END
$$;
COMMENT ON FUNCTION partner_portal.credit_invoice(bigint, jsonb, text, bigint) IS
'Issues a credit note for lines [{"line":1,"amount_minor":500,"text":"..."}] of a final or paid invoice, final at once, in a series of its own; per line at most what it charged and is not credited yet, tax likewise. 22023 more than that, or malformed; PP005 not final or paid; 42501, P0002 as finalize_invoice().';
REVOKE ALL ON FUNCTION partner_portal.credit_invoice(bigint, jsonb, text, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.explain_invoice(invoice_id bigint)
	RETURNS TABLE (line integer, what text, text text, band text, quantity numeric, unit_price numeric, amount numeric, amount_minor bigint,
		key_id bigint, kind text, serial text, account_id bigint, active tstzrange, recorded_at timestamptz)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	asked partner_portal.invoice;
BEGIN
	asked := partner_portal.authorized_invoice('read', explain_invoice.invoice_id);
	RETURN QUERY
	WITH lines AS (
		SELECT l.*, CASE l.type WHEN 'correction' THEN l.quantity + coalesce((
				SELECT sum(o.quantity) FROM partner_portal.invoice_line o JOIN partner_portal.invoice i ON i.workspace_id = o.workspace_id AND i.invoice_id = o.invoice_id
				WHERE o.workspace_id = l.workspace_id AND o.about_start = l.about_start AND o.component = l.component AND o.type IN ('usage', 'correction')
					AND i.status <> 'void' AND (i.known_at, i.invoice_id) < (asked.known_at, asked.invoice_id)), 0) ELSE l.quantity END AS rated
		FROM partner_portal.invoice_line l WHERE l.workspace_id = asked.workspace_id AND l.invoice_id = asked.invoice_id
	)
	SELECT e.line, e.what, e.text, e.band, trim_scale(e.quantity), trim_scale(e.unit_price), trim_scale(e.amount), e.amount_minor, e.key_id, e.kind, e.serial, e.account_id, e.active, e.recorded_at
	FROM (
		SELECT l.line, 0 AS place, 0 AS no, 'line' AS what, l.text, NULL::text AS band, l.quantity, NULL::numeric AS unit_price,
			l.amount_minor * power(0.1::numeric, asked.minor_digits::numeric) AS amount, l.amount_minor,
			NULL::bigint AS key_id, l.kind, NULL::text AS serial, NULL::bigint AS account_id, NULL::tstzrange AS active, NULL::timestamptz AS recorded_at
		FROM lines l
		UNION ALL
		SELECT l.line, 1, b.no, CASE WHEN b.shared THEN 'fee' ELSE 'band' END,
			CASE WHEN b.shared AND l.part_dates <> l.whole_dates THEN format('%s of %s dates', l.part_dates, l.whole_dates) END, b.band, b.band_quantity, b.unit_price,
			CASE WHEN b.shared THEN b.amount * l.part_dates / l.whole_dates ELSE b.amount END, NULL, NULL, NULL, NULL, NULL, NULL, NULL
		FROM lines l CROSS JOIN LATERAL partner_portal.rate_bands(l.model, l.unit_price, l.package_size, l.tiers, l.free_units, l.rated) b
		WHERE l.type <> 'credit'
		UNION ALL
		SELECT l.line, 2, 0, 'minimum', NULL, NULL, NULL, NULL, l.minimum_minor * power(0.1::numeric, asked.minor_digits::numeric) * l.part_dates / l.whole_dates,
			NULL, NULL, NULL, NULL, NULL, NULL, NULL
		FROM lines l WHERE l.type <> 'credit' AND l.minimum_minor > 0
		UNION ALL
		SELECT l.line, 3, 0, 'stretch', NULL, NULL, NULL, NULL, NULL, NULL, a.key_id, a.kind, k.serial, a.account_id,
			a.active * tstzrange(l.about_start, l.about_end), a.recorded_at
		FROM lines l
		JOIN partner_portal.key_activity a ON a.workspace_id = l.workspace_id AND a.active && tstzrange(l.about_start, l.about_end)
			AND a.recorded_at <= asked.known_at AND (l.kind IS NULL OR a.kind = l.kind)
		LEFT JOIN partner_portal.security_key k ON k.workspace_id = a.workspace_id AND k.key_id = a.key_id
		WHERE l.type <> 'credit'
	) e
	ORDER BY e.line, e.place, e.no, lower(e.active), e.key_id;
END
$$;
COMMENT ON FUNCTION partner_portal.explain_invoice(bigint) IS
'What is behind each line of a document, in one query: the line, its bands and fees (of a correction: those of the whole quantity now), the minimum, and every active stretch it was measured from, as known when the document was made, cut to the period. Amounts in major units, unrounded. 42501, P0002 as invoices are seen.';
REVOKE ALL ON FUNCTION partner_portal.explain_invoice(bigint) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.preview_invoice(bigint, tstzrange)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.finalize_invoice(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.set_invoice_tax(bigint, bigint, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.mark_paid(bigint, timestamptz, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.void_invoice(bigint, text, boolean)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.credit_invoice(bigint, jsonb, text, bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.explain_invoice(bigint)');
-- statement.sql: what a partner billed in a month, and whether billing is healthy.

CREATE FUNCTION partner_portal.money_text(minor numeric, digits integer) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
	SELECT round(money_text.minor * power(0.1::numeric, money_text.digits::numeric), money_text.digits)::text;
END;
COMMENT ON FUNCTION partner_portal.money_text(numeric, integer) IS 'Minor units as major units with the currency''s digits, as 2900 of CHF is 29.00.';
REVOKE ALL ON FUNCTION partner_portal.money_text(numeric, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.partner_statement(partner_id bigint DEFAULT NULL, month date DEFAULT (now() - interval '1 month')::date)
	RETURNS TABLE (workspace_id bigint, company_name text, relation text, currency text, documents bigint, invoice_numbers text, keys_billed bigint,
		invoiced_minor bigint, credited_minor bigint, tax_minor bigint, total_minor bigint, unpaid_minor bigint, drafts bigint)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_statement.partner_id);
	zone text;
	since timestamptz;
	until timestamptz;
BEGIN
	IF partner_statement.month IS NULL OR partner_statement.month NOT BETWEEN date '1900-01-01' AND date '2999-11-30' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'month must be a date of the years 1900 to 2999';
	END IF;
	SELECT w.time_zone INTO zone FROM partner_portal.workspace w WHERE w.workspace_id = asked.partner_id;
	since := date_trunc('month', partner_statement.month::timestamp) AT TIME ZONE zone;
	until := (date_trunc('month', partner_statement.month::timestamp) + interval '1 month') AT TIME ZONE zone;
	RETURN QUERY
	WITH documents AS MATERIALIZED (
		SELECT i.*, CASE i.issuer_key WHEN asked.partner_id THEN 'issued' ELSE 'payable' END AS relation,
			CASE i.document WHEN 'invoice' THEN 1 ELSE -1 END AS sign
		FROM partner_portal.invoice i
		WHERE (i.issuer_key = asked.partner_id OR i.payer_id = asked.partner_id) AND i.period_end > since AND i.period_end <= until AND i.status <> 'empty'
	), customers AS (
		SELECT c.workspace_id, c.company_name FROM partner_portal.workspace c
		WHERE c.partner_key = asked.partner_id AND c.created_at < until AND coalesce(c.deleted_at >= since, true)
		UNION
		SELECT p.workspace_id, CASE c.partner_key WHEN asked.partner_id THEN c.company_name ELSE 'workspace ' || c.workspace_id END
		FROM partner_portal.billing_period p JOIN partner_portal.workspace c ON c.workspace_id = p.workspace_id
		WHERE p.partner_key = asked.partner_id AND p.period_end > since AND p.period_end <= until AND p.closed_at IS NOT NULL
	), lines AS (
		SELECT d.workspace_id, max(d.company_name) AS company_name, d.relation, d.currency,
			count(*) FILTER (WHERE d.status <> 'draft') AS documents,
			string_agg(d.invoice_number, ' ' ORDER BY d.document DESC, d.number) AS invoice_numbers,
			coalesce(sum(d.keys_billed) FILTER (WHERE d.document = 'invoice' AND d.status IN ('final', 'paid')), 0) AS keys_billed,
			coalesce(sum(d.subtotal_minor) FILTER (WHERE d.document = 'invoice' AND d.status IN ('final', 'paid')), 0) AS invoiced,
			coalesce(sum(d.subtotal_minor) FILTER (WHERE d.document = 'credit_note' AND d.status IN ('final', 'paid')), 0) AS credited,
			coalesce(sum(d.tax_minor * d.sign) FILTER (WHERE d.status IN ('final', 'paid')), 0) AS tax,
			coalesce(sum(d.total_minor * d.sign) FILTER (WHERE d.status IN ('final', 'paid')), 0) AS total,
			coalesce(sum(d.total_minor - d.credited) FILTER (WHERE d.status = 'final' AND d.document = 'invoice'), 0) AS unpaid,
			count(*) FILTER (WHERE d.status = 'draft') AS drafts
		FROM (SELECT d.*, coalesce((SELECT sum(n.total_minor) FROM partner_portal.invoice n
				WHERE n.workspace_id = d.workspace_id AND n.credits_invoice_id = d.invoice_id), 0) AS credited FROM documents d) d
		GROUP BY d.workspace_id, d.relation, d.currency
	)
	SELECT s.workspace_id, s.company_name, s.relation, s.currency, s.documents::bigint, s.invoice_numbers, s.keys_billed::bigint, s.invoiced::bigint, s.credited::bigint,
		s.tax::bigint, s.total::bigint, s.unpaid::bigint, s.drafts::bigint
	FROM (
		SELECT 1 AS place, l.* FROM lines l
		UNION ALL
		SELECT 1, c.workspace_id, c.company_name, 'issued', NULL, 0, NULL, 0, 0, 0, 0, 0, 0, 0 FROM customers c
		WHERE NOT EXISTS (SELECT FROM lines l WHERE l.workspace_id = c.workspace_id)
		UNION ALL
		SELECT 2, NULL, 'Total', l.relation, l.currency, sum(l.documents), NULL, sum(l.keys_billed), sum(l.invoiced), sum(l.credited), sum(l.tax), sum(l.total), sum(l.unpaid), sum(l.drafts)
		FROM lines l GROUP BY l.relation, l.currency
	) s
	ORDER BY s.place, s.relation, s.company_name, s.workspace_id, s.currency;
END
$$;
COMMENT ON FUNCTION partner_portal.partner_statement(bigint, date) IS
'A partner''s documents whose period ends in the month of a date, in the partner''s time zone (a period up to midnight of the 1st ends in the month before): one line per customer and currency, customers without a document too, and a total per currency (workspace_id NULL). issued by the partner, or payable by it as holder of the wallet; drafts are only counted; void ones count for nothing. Minor units. For the partner''s owner or administrator. 42501, P0002, PP005 no partner; 22023 month.';
REVOKE ALL ON FUNCTION partner_portal.partner_statement(bigint, date) FROM PUBLIC;

CREATE FUNCTION partner_portal.partner_statement_csv(partner_id bigint DEFAULT NULL, month date DEFAULT (now() - interval '1 month')::date) RETURNS text
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- A name that a spreadsheet would take for a formula is kept a text.
	RETURN (SELECT E'workspace_id,company_name,relation,currency,documents,invoice_numbers,keys_billed,invoiced,credited,tax,total,unpaid,drafts\r\n'
			|| coalesce(string_agg(concat_ws(',', coalesce(s.workspace_id::text, ''),
				partner_portal.csv_field(CASE WHEN s.company_name ~ '^[=+@\t\r-]' THEN '''' ELSE '' END || s.company_name), s.relation, coalesce(s.currency, ''), s.documents,
				partner_portal.csv_field(coalesce(s.invoice_numbers, '')), s.keys_billed, partner_portal.money_text(s.invoiced_minor, s.digits), partner_portal.money_text(s.credited_minor, s.digits),
				partner_portal.money_text(s.tax_minor, s.digits), partner_portal.money_text(s.total_minor, s.digits), partner_portal.money_text(s.unpaid_minor, s.digits), s.drafts)
				|| E'\r\n', '' ORDER BY s.place), '')
		FROM (SELECT t.*, row_number() OVER () AS place, coalesce(c.minor_digits, 0) AS digits
			FROM partner_portal.partner_statement(partner_statement_csv.partner_id, partner_statement_csv.month) WITH ORDINALITY t
			LEFT JOIN partner_portal.currency c ON c.code = t.currency) s);
END
$$;
COMMENT ON FUNCTION partner_portal.partner_statement_csv(bigint, date) IS 'partner_statement() as CSV (RFC 4180) with a heading; amounts in major units. Errors as there.';
REVOKE ALL ON FUNCTION partner_portal.partner_statement_csv(bigint, date) FROM PUBLIC;

CREATE FUNCTION partner_portal.billing_health() RETURNS TABLE (workspace_id bigint, problem text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	lowest bigint := partner_portal.lowest_partner_key();
	highest bigint := partner_portal.highest_partner_key();
BEGIN
	IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
	END IF;
	RETURN QUERY
	SELECT h.workspace_id, h.problem FROM (
		SELECT p.workspace_id, p.partner_key, 1 AS place, format('period %s ended at %s and is not closed', p.label, p.period_end) AS problem
		FROM partner_portal.billing_period p WHERE p.closed_at IS NULL AND p.period_end <= now()
		UNION ALL
		SELECT w.workspace_id, w.partner_key, 1, 'no billing period is open'
		FROM partner_portal.workspace w
		WHERE w.deleted_at IS NULL AND NOT EXISTS (SELECT FROM partner_portal.billing_period p WHERE p.workspace_id = w.workspace_id AND p.period_end > now())
			AND NOT EXISTS (SELECT FROM partner_portal.billing_period p WHERE p.workspace_id = w.workspace_id AND p.closed_at IS NULL)
		UNION ALL
		SELECT p.workspace_id, p.partner_key, 2, format('period %s is closed and not billed', p.label)
		FROM partner_portal.billing_period p WHERE p.billed_at IS NULL AND p.closed_at IS NOT NULL
		UNION ALL
		SELECT i.workspace_id, i.issuer_key, 3, CASE
			WHEN i.taxed_subtotal_minor <> i.subtotal_minor THEN format('the tax of draft %s was set for another subtotal', i.invoice_id)
			WHEN w.auto_finalize THEN format('draft %s is past its grace, which ended at %s', i.invoice_id, i.finalize_after)
			ELSE format('draft %s waits to be finalized since %s', i.invoice_id, i.finalize_after) END
		FROM partner_portal.invoice i JOIN partner_portal.workspace w ON w.workspace_id = i.workspace_id
		WHERE i.status = 'draft' AND i.finalize_after <= now()
		UNION ALL
		SELECT f.workspace_id, f.partner_key, 4, format('the billing run of %s failed: %s: %s', f.failed_at, f.sqlstate, f.message)
		FROM partner_portal.billing_failure f
		UNION ALL
		-- late facts that no later document has taken up: the next one may, unless none will come from the same issuer
		SELECT i.workspace_id, i.issuer_key, 5, format('facts of period %s came at %s, after its invoice %s; no later invoice corrects it yet', p.label, p.late_facts_at, coalesce(i.invoice_number, 'over nothing'))
		FROM partner_portal.billing_period p
		JOIN partner_portal.invoice i ON i.workspace_id = p.workspace_id AND i.period_start = p.period_start AND i.document = 'invoice' AND i.status IN ('final', 'paid', 'empty')
		WHERE p.late_facts_at > i.known_at
			AND NOT EXISTS (SELECT FROM partner_portal.invoice n WHERE n.workspace_id = i.workspace_id AND n.document = 'invoice' AND n.status <> 'void'
				AND n.issuer_key = i.issuer_key AND n.payer_id = i.payer_id AND n.currency = i.currency AND n.period_start > i.period_start AND n.known_at > p.late_facts_at)
	) h
	WHERE h.partner_key BETWEEN lowest AND highest
	ORDER BY h.workspace_id, h.place, h.problem;
END
$$;
COMMENT ON FUNCTION partner_portal.billing_health() IS
'What billing owes: boundaries passed without their period closed or billed, drafts past their grace, tax set for another subtotal, workspaces that failed, late facts not corrected yet. No row is good. A partner''s owner or administrator sees its customers, the operator all. 42501 nobody signed in.';
REVOKE ALL ON FUNCTION partner_portal.billing_health() FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.partner_statement(bigint, date)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.partner_statement_csv(bigint, date)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.billing_health()');
-- invoice_html.sql: a document as a page to print. SQL/XML functions write it, so that every value is escaped.
-- No element but void ones may be empty: HTML does not know the short form <td/>.

CREATE FUNCTION partner_portal.invoice_bars(shown partner_portal.invoice) RETURNS xml
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT xmlelement(name figure,
		xmlelement(name figcaption, 'Keys per billing period'),
		xmlelement(name svg, xmlattributes('http://www.w3.org/2000/svg' AS xmlns, 'img' AS role, '0 0 720 190' AS "viewBox",
				'Keys per billing period: ' || string_agg(b.label || ' ' || b.keys, ', ' ORDER BY b.period_start) AS "aria-label"),
			xmlagg(xmlconcat(
				xmlelement(name rect, xmlattributes(b.place * 60 + 10 AS x, 150 - b.height AS y, 40 AS width, greatest(b.height, 1) AS height,
					CASE WHEN b.period_start = (shown).period_start THEN 'bar now' ELSE 'bar' END AS class)),
				xmlelement(name text, xmlattributes(b.place * 60 + 30 AS x, 144 - b.height AS y, 'middle' AS "text-anchor"), b.keys),
				xmlelement(name text, xmlattributes(b.place * 60 + 30 AS x, 168 AS y, 'middle' AS "text-anchor", 'when' AS class), to_char(b.last_day, 'YYYY-MM')),
				xmlelement(name text, xmlattributes(b.place * 60 + 30 AS x, 182 AS y, 'middle' AS "text-anchor", 'when' AS class), 'to ' || to_char(b.last_day, 'DD'))
			) ORDER BY b.period_start)))
	FROM (
		SELECT p.period_start, p.label, p.keys, row_number() OVER (ORDER BY p.period_start) - 1 AS place,
			p.keys * 120 / greatest(max(p.keys) OVER (), 1) AS height, ((p.period_end - interval '1 microsecond') AT TIME ZONE p.time_zone)::date AS last_day
		FROM (
			SELECT b.period_start, b.period_end, b.label, b.time_zone, coalesce(i.keys_billed, u.distinct_keys) AS keys
			FROM partner_portal.billing_period b
			JOIN partner_portal.usage_period u ON u.workspace_id = b.workspace_id AND u.period_start = b.period_start AND u.kind = 'total'
			LEFT JOIN partner_portal.invoice i ON i.workspace_id = b.workspace_id AND i.period_start = b.period_start AND i.document = 'invoice' AND i.status <> 'void'
			WHERE b.workspace_id = (shown).workspace_id AND b.partner_key = (shown).partner_key AND b.period_start <= (shown).period_start
			ORDER BY b.period_start DESC LIMIT 12
		) p
	) b;
END;
COMMENT ON FUNCTION partner_portal.invoice_bars(partner_portal.invoice) IS 'Bar chart of the keys of the last twelve billing periods up to a document''s own, under the same partner. Internal.';
REVOKE ALL ON FUNCTION partner_portal.invoice_bars(partner_portal.invoice) FROM PUBLIC;

CREATE FUNCTION partner_portal.invoice_page_lines(shown partner_portal.invoice) RETURNS xml
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT xmlagg(xmlconcat(
		xmlelement(name tr, xmlattributes('line' AS class),
			xmlelement(name td, l.line),
			xmlelement(name td, l.text, CASE WHEN l.measure IS NOT NULL THEN xmlelement(name small, format(' (%s, %s)', replace(l.measure, '_', ' '), replace(l.model, '_', ' '))) END),
			xmlelement(name td, xmlattributes('number' AS class), coalesce(l.quantity::text, ' ')),
			xmlelement(name td, xmlattributes('number' AS class), ' '),
			xmlelement(name td, xmlattributes('number' AS class), partner_portal.money_text(l.amount_minor, (shown).minor_digits))),
		b.rows) ORDER BY l.line)
	FROM partner_portal.invoice_line l
	LEFT JOIN LATERAL (
		SELECT xmlagg(xmlelement(name tr, xmlattributes('band' AS class),
			xmlelement(name td, ' '),
			xmlelement(name td, replace(regexp_replace(regexp_replace(r.band, '\((.*),(.*)\]', 'above \1, up to \2'), '\((.*),\)', 'above \1'), 'flat', 'fee'),
				CASE WHEN r.shared AND l.part_dates <> l.whole_dates THEN format(', %s of %s dates', l.part_dates, l.whole_dates) END),
			xmlelement(name td, xmlattributes('number' AS class), coalesce(trim_scale(r.band_quantity)::text, ' ')),
			xmlelement(name td, xmlattributes('number' AS class), coalesce(trim_scale(r.unit_price)::text, ' ')),
			xmlelement(name td, xmlattributes('number' AS class),
				trim_scale(round(CASE WHEN r.shared THEN r.amount * l.part_dates / l.whole_dates ELSE r.amount END, 12))::text)) ORDER BY r.no) AS rows
		FROM (
			SELECT b.* FROM partner_portal.rate_bands(l.model, l.unit_price, l.package_size, l.tiers, l.free_units, l.quantity) b
			UNION ALL
			SELECT 1000000, 'at least', NULL, NULL, l.minimum_minor * power(0.1::numeric, (shown).minor_digits::numeric), true WHERE l.minimum_minor > 0
		) r
		WHERE l.type = 'usage'
	) b ON true
	WHERE l.workspace_id = (shown).workspace_id AND l.invoice_id = (shown).invoice_id;
END;
COMMENT ON FUNCTION partner_portal.invoice_page_lines(partner_portal.invoice) IS 'Rows of the table of a document''s lines and their bands. Internal.';
REVOKE ALL ON FUNCTION partner_portal.invoice_page_lines(partner_portal.invoice) FROM PUBLIC;

CREATE FUNCTION partner_portal.invoice_html(invoice_id bigint) RETURNS text
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	i partner_portal.invoice := partner_portal.authorized_invoice('read', invoice_id);
	credited text := (SELECT o.invoice_number FROM partner_portal.invoice o WHERE o.workspace_id = i.workspace_id AND o.invoice_id = i.credits_invoice_id);
	title text := CASE WHEN i.status = 'draft' THEN 'Draft invoice' WHEN i.document = 'credit_note' THEN 'Credit note ' || i.invoice_number ELSE 'Invoice ' || i.invoice_number END;
	style text := 'body{font:14px/1.45 "Helvetica Neue",Arial,sans-serif;color:#1c2430;max-width:760px;margin:32px auto;padding:0 20px}'
		'h1{font-size:24px;margin:0 0 4px}.state{font-weight:bold;color:#a32020}.parties{display:flex;gap:40px;margin:24px 0}.parties div{flex:1}'
		'.parties h2,figcaption{font-size:12px;text-transform:uppercase;letter-spacing:.05em;color:#5a6676;margin:0 0 4px}address{font-style:normal;white-space:pre-line}'
		'dl{display:grid;grid-template-columns:max-content auto;gap:2px 16px;margin:0 0 24px}dt{color:#5a6676}dd{margin:0}'
		'table{width:100%;border-collapse:collapse}th,td{text-align:left;padding:6px 8px;vertical-align:top}th{border-bottom:2px solid #1c2430}'
		'th.number,td.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}tr.line td{border-top:1px solid #d5dbe3}tr.band td{color:#5a6676;font-size:12px;padding:1px 8px}'
		'tfoot td{border-top:1px solid #1c2430}tfoot tr.total td{font-weight:bold;font-size:16px;border-top:2px solid #1c2430}'
		'figure{margin:32px 0 0}svg{width:100%;height:auto}svg text{font-size:12px;fill:#1c2430}svg text.when{font-size:10px;fill:#5a6676}.bar{fill:#8aa4c8}.bar.now{fill:#24508f}'
		'footer{margin-top:24px;color:#5a6676;font-size:12px}tr{break-inside:avoid}figure{break-inside:avoid}@page{size:A4;margin:18mm}@media print{body{margin:0;max-width:none;padding:0}}';
BEGIN
	RETURN E'<!DOCTYPE html>\n' || xmlserialize(CONTENT xmlelement(name html, xmlattributes('en' AS lang),
		xmlelement(name head,
			xmlelement(name meta, xmlattributes('utf-8' AS charset)),
			xmlelement(name meta, xmlattributes('viewport' AS name, 'width=device-width, initial-scale=1' AS content)),
			xmlelement(name title, title || ', ' || i.issuer_name),
			xmlelement(name style, style)),
		xmlelement(name body,
			xmlelement(name header,
				xmlelement(name h1, title),
				CASE WHEN i.status IN ('draft', 'void') THEN xmlelement(name p, xmlattributes('state' AS class),
					CASE i.status WHEN 'void' THEN 'Void: ' || coalesce(i.settled_note, '') ELSE 'Not final; it may still change.' END) END),
			xmlelement(name section, xmlattributes('parties' AS class),
				xmlelement(name div, xmlelement(name h2, 'From'), xmlelement(name address, concat_ws(E'\n', i.issuer_name, i.issuer_address, 'Tax id: ' || i.issuer_tax_id))),
				xmlelement(name div, xmlelement(name h2, 'To'), xmlelement(name address, concat_ws(E'\n', i.payer_name, i.payer_address, 'Tax id: ' || i.payer_tax_id)))),
			xmlelement(name dl,
				(SELECT xmlagg(xmlconcat(xmlelement(name dt, f.name), xmlelement(name dd, f.value)) ORDER BY f.no) FROM (VALUES
					(1, 'Number', i.invoice_number), (2, 'Date', to_char(i.invoice_date, 'YYYY-MM-DD')), (3, 'Company', i.company_name),
					(4, 'Billing period', replace(i.period_label, '..', ' to ') || ' (' || i.time_zone || ')'),
					(5, 'Plan', i.plan_name || ', version ' || i.plan_version), (6, 'Keys billed', CASE i.document WHEN 'invoice' THEN i.keys_billed::text END),
					(7, 'Credits invoice', credited), (8, 'Reason', i.reason),
					(9, 'Paid', CASE i.status WHEN 'paid' THEN concat_ws(', ', to_char(i.settled_at AT TIME ZONE i.time_zone, 'YYYY-MM-DD'), i.settled_note) END)) f (no, name, value)
				WHERE f.value IS NOT NULL)),
			xmlelement(name table,
				xmlelement(name thead, xmlelement(name tr, xmlelement(name th, 'Line'), xmlelement(name th, 'What'), xmlelement(name th, xmlattributes('number' AS class), 'Quantity'),
					xmlelement(name th, xmlattributes('number' AS class), 'Price'), xmlelement(name th, xmlattributes('number' AS class), 'Amount ' || i.currency))),
				xmlelement(name tbody, coalesce(partner_portal.invoice_page_lines(i), xmlelement(name tr, xmlelement(name td, 'nothing')))),
				xmlelement(name tfoot,
					xmlelement(name tr, xmlelement(name td, xmlattributes(4 AS colspan), 'Subtotal'), xmlelement(name td, xmlattributes('number' AS class), partner_portal.money_text(i.subtotal_minor, i.minor_digits))),
					xmlelement(name tr, xmlelement(name td, xmlattributes(4 AS colspan), concat_ws(', ', 'Tax', i.tax_note)), xmlelement(name td, xmlattributes('number' AS class), partner_portal.money_text(i.tax_minor, i.minor_digits))),
					xmlelement(name tr, xmlattributes('total' AS class), xmlelement(name td, xmlattributes(4 AS colspan), CASE i.document WHEN 'credit_note' THEN 'Total credited' ELSE 'Total' END || ' ' || i.currency),
						xmlelement(name td, xmlattributes('number' AS class), partner_portal.money_text(i.total_minor, i.minor_digits))))),
			CASE i.document WHEN 'invoice' THEN partner_portal.invoice_bars(i) END,
			xmlelement(name footer, 'Measured from facts known at ' || to_char(i.known_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC. Each line is rounded once, half away from zero.'))
		) AS text);
END
$$;
COMMENT ON FUNCTION partner_portal.invoice_html(bigint) IS
'A document as a complete HTML page to print: parties, period, lines with their bands, totals, and a bar per period of the last twelve. Every value escaped; no script, nothing loaded from elsewhere. 42501, P0002 as invoices are seen.';
REVOKE ALL ON FUNCTION partner_portal.invoice_html(bigint) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.invoice_html(bigint)');
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

CREATE FUNCTION partner_portal.delete_workspace(workspace_id bigint) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace := partner_portal.authorized_live_workspace('delete_workspace', workspace_id);
	ended timestamptz;
BEGIN
	-- whoever registers right now had the partner's workspace FOR SHARE
	IF EXISTS (SELECT FROM partner_portal.workspace w WHERE w.partner_key = delete_workspace.workspace_id AND w.deleted_at IS NULL) THEN
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
'Takes a deletion back: a new billing period starts now, and the keys that the deletion disabled are enabled, oldest first, up to the limit (none while the workspace is suspended). By its partner; the operator for any. 42501, P0002; PP005 it is not deleted, purged, or its partner is deleted.';
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
			HINT = CASE WHEN target.deleted_at IS NULL THEN 'Delete it first.' ELSE '' END;
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
'Erases for good what a deleted workspace says about people: its name, slug (which becomes free), address and tax id, the labels, serials and holders of its keys, its memberships, portals, folders and reports. What was billed stays: keys by number, their history, periods and documents, which keep the name they were made out to. Operator only (42501); P0002; PP005 it is not deleted, or purged already, or a document is still to be made out to it.';
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
-- partner.sql: partners, their registration link, and who registers through it.

CREATE FUNCTION partner_portal.make_partner(workspace_id bigint) RETURNS partner_portal.partner
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	made partner_portal.partner;
BEGIN
	INSERT INTO partner_portal.partner AS p (partner_id, registration_code)
	VALUES (make_partner.workspace_id, partner_portal.new_secret())
	RETURNING p.* INTO made;
	UPDATE partner_portal.workspace w SET kind = 'partner' WHERE w.workspace_id = make_partner.workspace_id;
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.make_partner(bigint) IS 'Makes a direct workspace a partner, with a registration link; internal.';
REVOKE ALL ON FUNCTION partner_portal.make_partner(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.promote_to_partner(workspace_id bigint) RETURNS partner_portal.partner
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace;
BEGIN
	PERFORM partner_portal.require_operator();
	target := partner_portal.authorized_workspace('purge', workspace_id);
	IF target.deleted_at IS NOT NULL OR target.kind = 'partner' OR target.partner_id IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005',
			MESSAGE = format(CASE WHEN target.deleted_at IS NOT NULL THEN 'workspace %s is deleted'
				WHEN target.kind = 'partner' THEN 'workspace %s is a partner already'
				ELSE 'workspace %s is a partner''s customer' END, workspace_id),
			HINT = CASE WHEN target.deleted_at IS NULL AND target.partner_id IS NOT NULL
				THEN 'It must leave its partner first: partners have customers, not partners.' ELSE '' END;
	END IF;
	RETURN partner_portal.make_partner(workspace_id);
END
$$;
COMMENT ON FUNCTION partner_portal.promote_to_partner(bigint) IS
'Makes a direct workspace a partner, with a registration link. Operator only (42501); P0002; PP005 it is deleted, a partner already, or a partner''s customer.';
REVOKE ALL ON FUNCTION partner_portal.promote_to_partner(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.demote_partner(workspace_id bigint) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace;
BEGIN
	PERFORM partner_portal.require_operator();
	target := partner_portal.authorized_workspace('purge', workspace_id);
	IF target.kind <> 'partner' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is not a partner', workspace_id);
	END IF;
	-- whoever registers right now had the workspace FOR SHARE
	IF EXISTS (SELECT FROM partner_portal.workspace w WHERE w.partner_key = demote_partner.workspace_id) THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('partner %s has customers', workspace_id),
			DETAIL = 'Deleted customers count too: they may be restored.',
			HINT = 'Every customer must leave or move to another partner first.';
	END IF;
	IF EXISTS (SELECT FROM partner_portal.portal p WHERE p.workspace_id = demote_partner.workspace_id) THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('partner %s has portals', workspace_id), HINT = 'Delete them first with delete_portal().';
	END IF;
	UPDATE partner_portal.workspace w SET kind = 'business' WHERE w.workspace_id = demote_partner.workspace_id
	RETURNING w.* INTO target;
	DELETE FROM partner_portal.partner p WHERE p.partner_id = demote_partner.workspace_id;
	RETURN target;
END
$$;
COMMENT ON FUNCTION partner_portal.demote_partner(bigint) IS
'Makes a partner an ordinary workspace again; its registration link is dead. Operator only (42501); P0002; PP005 it is no partner, or has customers (deleted ones too) or portals.';
REVOKE ALL ON FUNCTION partner_portal.demote_partner(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.authorized_partner(partner_id bigint) RETURNS partner_portal.partner
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_partner partner_portal.partner;
BEGIN
	IF partner_id IS NULL THEN
		IF partner_portal.current_account_id() IS NULL THEN
			RAISE EXCEPTION USING ERRCODE = CASE WHEN partner_portal.is_operator() THEN 'null_value_not_allowed' ELSE 'insufficient_privilege' END,
				MESSAGE = CASE WHEN partner_portal.is_operator() THEN 'partner_id must not be null when nobody is signed in' ELSE 'nobody is signed in' END;
		END IF;
		partner_id := partner_portal.current_partner_id();
		IF partner_id IS NULL THEN
			RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = 'the identity does not act in a partner',
				HINT = 'Name the partner, or choose it with act_in().';
		END IF;
	END IF;
	PERFORM partner_portal.authorize('manage_portals', partner_id);
	SELECT p.* INTO found_partner FROM partner_portal.partner p WHERE p.partner_id = authorized_partner.partner_id;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is not a partner', partner_id);
	END IF;
	RETURN found_partner;
END
$$;
COMMENT ON FUNCTION partner_portal.authorized_partner(bigint) IS
'Returns a partner, NULL being the identity''s own, when the identity is its owner or administrator, or the operator. Errors of authorize(); PP005 no partner.';
REVOKE ALL ON FUNCTION partner_portal.authorized_partner(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.registration_url(partner_id bigint DEFAULT NULL) RETURNS text
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_id);
BEGIN
	RETURN rtrim(current_setting('partner_portal.link_base_url'), '/') || '/register/' || asked.registration_code;
END
$$;
COMMENT ON FUNCTION partner_portal.registration_url(bigint) IS
'Link through which customers register under a partner, NULL being the identity''s own: <partner_portal.link_base_url>/register/<code>. For the partner''s owner or administrator. 42501, P0002, PP005 no partner.';
REVOKE ALL ON FUNCTION partner_portal.registration_url(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.rotate_registration_code(partner_id bigint DEFAULT NULL) RETURNS partner_portal.partner
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	rotated partner_portal.partner := partner_portal.authorized_partner(partner_id);
BEGIN
	UPDATE partner_portal.partner p SET registration_code = partner_portal.new_secret()
	WHERE p.partner_id = rotated.partner_id
	RETURNING p.* INTO rotated;
	RETURN rotated;
END
$$;
COMMENT ON FUNCTION partner_portal.rotate_registration_code(bigint) IS
'Gives a partner, NULL being the identity''s own, a new registration link; the old one is dead at once, also for a registration that is under way. For the partner''s owner or administrator. 42501, P0002, PP005 no partner.';
REVOKE ALL ON FUNCTION partner_portal.rotate_registration_code(bigint) FROM PUBLIC;

-- The code is the whole proof, so a bad, an old and a deleted partner's one get the same answer.
CREATE FUNCTION partner_portal.partner_of_code(registration_code text) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_partner partner_portal.workspace;
BEGIN
	PERFORM partner_portal.checked_text('registration_code', registration_code, 200);
	SELECT w.* INTO found_partner FROM partner_portal.workspace w
	WHERE w.workspace_id = (SELECT p.partner_id FROM partner_portal.partner p WHERE p.registration_code = partner_of_code.registration_code)
		AND w.deleted_at IS NULL
	FOR SHARE;
	-- rotate_registration_code() changes a unique key, which FOR KEY SHARE waits for
	PERFORM FROM partner_portal.partner p
	WHERE p.partner_id = found_partner.workspace_id AND p.registration_code = partner_of_code.registration_code
	FOR KEY SHARE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = 'registration code not found',
			HINT = 'Ask the partner for its present registration link.';
	END IF;
	IF found_partner.suspended_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = 'the partner of this registration code is suspended';
	END IF;
	RETURN found_partner;
END
$$;
COMMENT ON FUNCTION partner_portal.partner_of_code(text) IS
'Returns the workspace of the partner whose registration code it is, locked against rotation, suspension and deletion until the end of the transaction. P0002 there is none; PP005 it is suspended.';
REVOKE ALL ON FUNCTION partner_portal.partner_of_code(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.register_workspace(registration_code text, company_name text, owner_email text, owner_name text DEFAULT NULL,
		slug text DEFAULT NULL, time_zone text DEFAULT NULL, confirm boolean DEFAULT false) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	partner_workspace partner_portal.workspace;
	made partner_portal.workspace;
BEGIN
	IF NOT (partner_portal.is_operator() OR partner_portal.is_trusted()) THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only a trusted application may register a workspace',
			DETAIL = 'It vouches for the owner''s e-mail address.';
	END IF;
	IF confirm IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'confirm must not be null';
	END IF;
	PERFORM partner_portal.checked_email(owner_email);
	partner_workspace := partner_portal.partner_of_code(registration_code);
	IF confirm THEN
		PERFORM partner_portal.invite_to_confirm(partner_workspace.workspace_id, company_name, owner_email, owner_name, slug, time_zone);
		RETURN NULL;
	END IF;
	made := partner_portal.make_workspace(partner_workspace.workspace_id, company_name, slug,
		coalesce(time_zone, partner_workspace.time_zone), NULL);
	PERFORM partner_portal.make_member(made.workspace_id, owner_email, owner_name, 'owner');
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.register_workspace(text, text, text, text, text, text, boolean) IS
'Registers a customer under the partner whose registration code it is, with its owner, in this transaction. time_zone NULL is the partner''s. A new account owns it at once; an existing one must accept_membership() first, unless it is the one signed in. For trusted applications, which vouch for the address. 42501; P0002 no such code; PP005 the partner is suspended; 23505 the slug is taken.
With confirm the owner''s address is not vouched for: nothing but an invitation is made, NULL is returned, and accept_invitation() completes the registration.';
REVOKE ALL ON FUNCTION partner_portal.register_workspace(text, text, text, text, text, text, boolean) FROM PUBLIC;

CREATE FUNCTION partner_portal.create_own_workspace(partner_id bigint, company_name text, slug text DEFAULT NULL,
		time_zone text DEFAULT NULL, anchor_date date DEFAULT NULL) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_id);
	partner_workspace partner_portal.workspace := partner_portal.partner_of_code(asked.registration_code);
	made partner_portal.workspace;
	owner_email text;
BEGIN
	-- the caller, if it is one of the partner's; for the operator, the partner's first owner
	SELECT a.email INTO owner_email
	FROM partner_portal.member m
	JOIN partner_portal.account a ON a.account_id = m.account_id
	WHERE m.workspace_id = asked.partner_id AND m.accepted_at IS NOT NULL
		AND (m.account_id = partner_portal.current_account_id() OR m.role = 'owner')
	ORDER BY m.account_id IS DISTINCT FROM partner_portal.current_account_id(), m.accepted_at, m.account_id
	LIMIT 1;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('partner %s has no owner yet', asked.partner_id);
	END IF;
	made := partner_portal.make_workspace(asked.partner_id, company_name, slug, coalesce(time_zone, partner_workspace.time_zone), anchor_date);
	PERFORM partner_portal.make_member(made.workspace_id, owner_email, NULL, 'owner');
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.create_own_workspace(bigint, text, text, text, date) IS
'Creates a further organisation of a partner''s own: a workspace under it, owned by who creates it (by the partner''s first owner, who must accept, when the operator does). partner_id NULL is the identity''s own; time_zone NULL the partner''s. For the partner''s owner or administrator. 42501, P0002, PP005, 23505 the slug is taken.';
REVOKE ALL ON FUNCTION partner_portal.create_own_workspace(bigint, text, text, text, date) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.promote_to_partner(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.demote_partner(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.registration_url(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.rotate_registration_code(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.create_own_workspace(bigint, text, text, text, date)'),
	('trusted_application', 'EXECUTE', 'FUNCTION partner_portal.register_workspace(text, text, text, text, text, text, boolean)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.register_workspace(text, text, text, text, text, text, boolean)');
-- people.sql: accounts, and who belongs to a workspace.
--
-- A membership that somebody else made for an account that was already there is pending (accepted_at NULL) and counts
-- for nothing until that account accepts it: nobody is put in charge of anything without a word.

CREATE FUNCTION partner_portal.make_account(email text, name text, OUT account_id bigint, OUT is_new boolean)
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.checked_email(email);
	IF name IS NOT NULL THEN
		PERFORM partner_portal.checked_text('name', name, 200);
	END IF;
	SELECT a.account_id, false INTO make_account.account_id, is_new FROM partner_portal.account a
	WHERE lower(a.email COLLATE "C") = lower(make_account.email COLLATE "C");
	IF FOUND THEN
		RETURN;
	END IF;
	INSERT INTO partner_portal.account AS a (email, name) VALUES (make_account.email, make_account.name)
	ON CONFLICT DO NOTHING
	RETURNING a.account_id, true INTO make_account.account_id, is_new;
	IF NOT FOUND THEN
		SELECT a.account_id, false INTO make_account.account_id, is_new FROM partner_portal.account a
		WHERE lower(a.email COLLATE "C") = lower(make_account.email COLLATE "C");
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.make_account(text, text) IS
'Returns the account of an e-mail address, made with that name if there was none; an existing account keeps its name.';
REVOKE ALL ON FUNCTION partner_portal.make_account(text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.checked_role(role text) RETURNS text
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.checked_text('role', role, 64);
	IF role NOT IN ('owner', 'administrator', 'member', 'guest') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown role "%s"', role),
			HINT = 'Roles are owner, administrator, member and guest.';
	END IF;
	RETURN role;
END
$$;
COMMENT ON FUNCTION partner_portal.checked_role(text) IS 'Returns the role of a member as given. 22004 NULL, 22001 and 22023 any other.';
REVOKE ALL ON FUNCTION partner_portal.checked_role(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.make_member(workspace_id bigint, email text, name text, role text) RETURNS partner_portal.member
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	person record;
	made partner_portal.member;
BEGIN
	PERFORM partner_portal.checked_role(role);
	person := partner_portal.make_account(email, name);
	INSERT INTO partner_portal.member AS m (workspace_id, account_id, partner_key, role, accepted_at)
	SELECT w.workspace_id, person.account_id, w.partner_key, make_member.role,
		CASE WHEN person.is_new OR person.account_id = partner_portal.current_account_id() THEN now() END
	FROM partner_portal.workspace w
	WHERE w.workspace_id = make_member.workspace_id
	ON CONFLICT ON CONSTRAINT member_pkey DO NOTHING
	RETURNING m.* INTO made;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'unique_violation',
			MESSAGE = format('account %s is already a member of workspace %s', person.account_id, workspace_id),
			HINT = 'Use set_member_role() to change its role.';
	END IF;
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.make_member(bigint, text, text, text) IS
'Makes the account of an e-mail address a member: at once if the account is new or the one signed in, else pending. 23505 is one already.';
REVOKE ALL ON FUNCTION partner_portal.make_member(bigint, text, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.add_member(workspace_id bigint, email text, role text) RETURNS partner_portal.member
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace;
BEGIN
	IF NOT partner_portal.is_operator() THEN
		IF NOT partner_portal.is_trusted() THEN
			RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
				MESSAGE = 'only the operator or a trusted application may add a member without an invitation';
		END IF;
		IF partner_portal.current_account_id() IS NOT NULL THEN
			PERFORM partner_portal.authorize('manage_people', workspace_id);
			PERFORM partner_portal.require_rank_over(workspace_id, role);
		END IF;
	END IF;
	IF workspace_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_id must not be null';
	END IF;
	SELECT w.* INTO target FROM partner_portal.workspace w WHERE w.workspace_id = add_member.workspace_id FOR KEY SHARE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('workspace %s not found', workspace_id);
	END IF;
	IF target.deleted_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is deleted', workspace_id);
	END IF;
	RETURN partner_portal.make_member(workspace_id, email, NULL, role);
END
$$;
COMMENT ON FUNCTION partner_portal.add_member(bigint, text, text) IS
'Adds a member without any mail, making the account if there is none. An account that was there must accept_membership() first, unless it is the one signed in. The operator, or a trusted application: with nobody signed in it vouches, with somebody manage_people is asked. 42501; P0002; 23505 is a member; PP005 deleted.';
REVOKE ALL ON FUNCTION partner_portal.add_member(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.require_rank_over(workspace_id bigint, role text) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF role = 'owner' AND NOT partner_portal.is_operator() AND NOT EXISTS (
		SELECT FROM partner_portal.member m
		WHERE m.workspace_id = require_rank_over.workspace_id AND m.account_id = partner_portal.current_account_id()
			AND m.role = 'owner' AND m.accepted_at IS NOT NULL)
	THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('only an owner of workspace %s may make, change or remove an owner', workspace_id);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.require_rank_over(bigint, text) IS
'Returns when the identity may manage people of that role: owners are the matter of owners and the operator, neither of administrators nor of a partner''s account owner. Else 42501.';
REVOKE ALL ON FUNCTION partner_portal.require_rank_over(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.accept_membership(workspace_id bigint) RETURNS partner_portal.member
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	accepted partner_portal.member;
	is_deleted boolean;
BEGIN
	IF partner_portal.current_account_id() IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
	END IF;
	IF workspace_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_id must not be null';
	END IF;
	SELECT m.* INTO accepted FROM partner_portal.member m
	WHERE m.workspace_id = accept_membership.workspace_id AND m.account_id = partner_portal.current_account_id()
	FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('workspace %s not found', workspace_id);
	END IF;
	SELECT w.deleted_at IS NOT NULL INTO is_deleted FROM partner_portal.workspace w WHERE w.workspace_id = accept_membership.workspace_id;
	IF is_deleted THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is deleted', workspace_id);
	END IF;
	IF accepted.accepted_at IS NULL THEN
		UPDATE partner_portal.member m SET accepted_at = now()
		WHERE m.workspace_id = accept_membership.workspace_id AND m.account_id = accepted.account_id
		RETURNING m.* INTO accepted;
	END IF;
	RETURN accepted;
END
$$;
COMMENT ON FUNCTION partner_portal.accept_membership(bigint) IS
'Accepts, for the account signed in, a membership that somebody else made; does nothing if it is accepted already. 42501 nobody signed in; P0002 no such membership; PP005 the workspace is deleted.';
REVOKE ALL ON FUNCTION partner_portal.accept_membership(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.locked_member(workspace_id bigint, account_id bigint) RETURNS partner_portal.member
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_member partner_portal.member;
BEGIN
	IF account_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'account_id must not be null';
	END IF;
	SELECT m.* INTO found_member FROM partner_portal.member m
	WHERE m.workspace_id = locked_member.workspace_id AND m.account_id = locked_member.account_id
	FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('account %s is not a member of workspace %s', account_id, workspace_id);
	END IF;
	RETURN found_member;
END
$$;
COMMENT ON FUNCTION partner_portal.locked_member(bigint, bigint) IS 'Returns a membership, pending ones too, locked until the end of the transaction. 22004, P0002.';
REVOKE ALL ON FUNCTION partner_portal.locked_member(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.set_member_role(workspace_id bigint, account_id bigint, role text) RETURNS partner_portal.member
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	changed partner_portal.member;
BEGIN
	PERFORM partner_portal.authorized_live_workspace('manage_people', workspace_id);
	PERFORM partner_portal.checked_role(role);
	changed := partner_portal.locked_member(workspace_id, account_id);
	PERFORM partner_portal.require_rank_over(workspace_id, changed.role);
	PERFORM partner_portal.require_rank_over(workspace_id, role);
	IF changed.role <> role THEN
		-- who is put in charge no longer depends on a grant
		UPDATE partner_portal.member m SET role = set_member_role.role,
			grant_id = CASE WHEN set_member_role.role IN ('member', 'guest') THEN m.grant_id END,
			ends_at = CASE WHEN set_member_role.role IN ('member', 'guest') THEN m.ends_at END
		WHERE m.workspace_id = set_member_role.workspace_id AND m.account_id = set_member_role.account_id
		RETURNING m.* INTO changed;
	END IF;
	RETURN changed;
END
$$;
COMMENT ON FUNCTION partner_portal.set_member_role(bigint, bigint, text) IS
'Gives a member another role. Needs manage_people; only an owner or the operator makes an owner or changes one. 42501, P0002; PP004 it is the last owner; PP005 the workspace is deleted.';
REVOKE ALL ON FUNCTION partner_portal.set_member_role(bigint, bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.remove_member(workspace_id bigint, account_id bigint) RETURNS partner_portal.member
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	removed partner_portal.member;
BEGIN
	-- everyone may leave, and turn down a membership that somebody else made
	IF account_id IS DISTINCT FROM partner_portal.current_account_id() OR account_id IS NULL OR NOT EXISTS (
		SELECT FROM partner_portal.member m
		WHERE m.workspace_id = remove_member.workspace_id AND m.account_id = remove_member.account_id)
	THEN
		PERFORM partner_portal.authorized_live_workspace('manage_people', workspace_id);
		removed := partner_portal.locked_member(workspace_id, account_id);
		PERFORM partner_portal.require_rank_over(workspace_id, removed.role);
	END IF;
	DELETE FROM partner_portal.member m
	WHERE m.workspace_id = remove_member.workspace_id AND m.account_id = remove_member.account_id
	RETURNING m.* INTO removed;
	RETURN removed;
END
$$;
COMMENT ON FUNCTION partner_portal.remove_member(bigint, bigint) IS
'Ends a membership, and with it staff assignments and the holding of keys (the keys stay). Needs manage_people, and for an owner an owner or the operator; everyone may end one''s own, a pending one too. 42501, P0002; PP004 it is the last owner; PP005 the workspace is deleted.';
REVOKE ALL ON FUNCTION partner_portal.remove_member(bigint, bigint) FROM PUBLIC;

-- Accounts: the operator's matter, for they are not one workspace's.

CREATE FUNCTION partner_portal.operators_account(account_id bigint) RETURNS partner_portal.account
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_account partner_portal.account;
BEGIN
	PERFORM partner_portal.require_operator();
	IF account_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'account_id must not be null';
	END IF;
	SELECT a.* INTO found_account FROM partner_portal.account a WHERE a.account_id = operators_account.account_id FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('account %s not found', account_id);
	END IF;
	IF found_account.erased_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('account %s is erased', account_id);
	END IF;
	RETURN found_account;
END
$$;
COMMENT ON FUNCTION partner_portal.operators_account(bigint) IS 'Returns an account, locked, to the operator. 42501, 22004, P0002; PP005 it is erased.';
REVOKE ALL ON FUNCTION partner_portal.operators_account(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.disable_account(account_id bigint) RETURNS partner_portal.account
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	changed partner_portal.account := partner_portal.operators_account(account_id);
BEGIN
	UPDATE partner_portal.account a SET disabled_at = coalesce(a.disabled_at, now())
	WHERE a.account_id = disable_account.account_id
	RETURNING a.* INTO changed;
	RETURN changed;
END
$$;
COMMENT ON FUNCTION partner_portal.disable_account(bigint) IS
'Keeps an account out, from its next statement on; does nothing if it is out already. Its memberships and keys stay, so that enable_account() takes it back; it may be a last owner. Operator only (42501); P0002; PP005 it is erased.';
REVOKE ALL ON FUNCTION partner_portal.disable_account(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.enable_account(account_id bigint) RETURNS partner_portal.account
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	changed partner_portal.account := partner_portal.operators_account(account_id);
BEGIN
	UPDATE partner_portal.account a SET disabled_at = NULL
	WHERE a.account_id = enable_account.account_id
	RETURNING a.* INTO changed;
	RETURN changed;
END
$$;
COMMENT ON FUNCTION partner_portal.enable_account(bigint) IS 'Lets a disabled account in again. Operator only (42501); P0002; PP005 it is erased.';
REVOKE ALL ON FUNCTION partner_portal.enable_account(bigint) FROM PUBLIC;

-- Invitations and tokens go by address: whoever could take any address as one's own could wait there for another's invitation.
CREATE FUNCTION partner_portal.change_email(account_id bigint, email text) RETURNS partner_portal.account
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	changed partner_portal.account;
BEGIN
	IF NOT (partner_portal.is_operator() OR partner_portal.is_trusted()) THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator or a trusted application may change an e-mail address',
			DETAIL = 'It vouches that the address is the account''s.';
	END IF;
	IF account_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'account_id must not be null';
	END IF;
	PERFORM partner_portal.checked_email(email);
	SELECT a.* INTO changed FROM partner_portal.account a
	WHERE a.account_id = change_email.account_id
		AND (partner_portal.is_operator() OR coalesce(partner_portal.current_account_id(), a.account_id) = a.account_id)
	FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('account %s not found', account_id);
	END IF;
	IF changed.erased_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('account %s is erased', account_id);
	END IF;
	IF EXISTS (SELECT FROM partner_portal.account a
		WHERE lower(a.email COLLATE "C") = lower(change_email.email COLLATE "C") AND a.account_id <> change_email.account_id)
	THEN
		RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = 'another account has this e-mail address';
	END IF;
	UPDATE partner_portal.account a SET email = change_email.email
	WHERE a.account_id = change_email.account_id
	RETURNING a.* INTO changed;
	RETURN changed;
END
$$;
COMMENT ON FUNCTION partner_portal.change_email(bigint, text) IS
'Gives an account another e-mail address, which the caller vouches for. The operator, or a trusted application: with somebody signed in for that account only, with nobody for any. 42501; P0002; 22001, 22023; 23505 another account has it; PP005 it is erased.';
REVOKE ALL ON FUNCTION partner_portal.change_email(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.erase_account(account_id bigint) RETURNS partner_portal.account
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	erased partner_portal.account := partner_portal.operators_account(account_id);
BEGIN
	DELETE FROM partner_portal.member m WHERE m.account_id = erase_account.account_id;
	DELETE FROM partner_portal.portal_account p WHERE p.account_id = erase_account.account_id;
	DELETE FROM partner_portal.account_identity i WHERE i.account_id = erase_account.account_id;
	DELETE FROM partner_portal.role_account r WHERE r.account_id = erase_account.account_id;
	PERFORM partner_portal.forget_invitations(erased.email);
	PERFORM partner_portal.erase_activity(account_id, NULL);
	UPDATE partner_portal.account a
	SET email = 'erased-' || a.account_id || '@erased.invalid', name = NULL, locale = 'en', is_operator = false,
		disabled_at = coalesce(a.disabled_at, now()), erased_at = now(), tokens_not_before = 'infinity'
	WHERE a.account_id = erase_account.account_id
	RETURNING a.* INTO erased;
	RETURN erased;
END
$$;
COMMENT ON FUNCTION partner_portal.erase_account(bigint) IS
'Erases for good what is known about one person: address, name, memberships, staff, portals, linked identities; its tokens are refused, its address is free. Keys it held stay without a holder, and what was billed stays, by number. Operator only (42501); P0002; PP004 it is the last owner of a workspace; PP005 it is erased already.';
REVOKE ALL ON FUNCTION partner_portal.erase_account(bigint) FROM PUBLIC;

-- Runs as its owner, since accounts show themselves to nobody else; every arm is filtered by the identity's own readers.
CREATE VIEW partner_portal.members WITH (security_barrier) AS
	SELECT m.workspace_id, m.account_id, a.email, a.name, m.role, m.created_at, m.accepted_at, a.disabled_at IS NOT NULL AS disabled
	FROM partner_portal.member m
	JOIN partner_portal.account a ON a.account_id = m.account_id
	WHERE (m.ends_at IS NULL OR m.ends_at > now())
		AND (m.workspace_id = (SELECT partner_portal.own_workspace('read'))
			OR m.account_id = (SELECT partner_portal.current_account_id())
			OR m.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
			OR m.workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[]));
COMMENT ON VIEW partner_portal.members IS
'People of the workspaces that one may read, and one''s own memberships, with their addresses; pending ones have accepted_at NULL.';

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('trusted_application', 'EXECUTE', 'FUNCTION partner_portal.add_member(bigint, text, text)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.add_member(bigint, text, text)'),
	('trusted_application', 'EXECUTE', 'FUNCTION partner_portal.change_email(bigint, text)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.change_email(bigint, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.accept_membership(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.set_member_role(bigint, bigint, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.remove_member(bigint, bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.disable_account(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.enable_account(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.erase_account(bigint)'),
	('application', 'SELECT', 'TABLE partner_portal.members');
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
-- invitation.sql: invitations of every kind, and their one life: created, shown, then accepted, declined, withdrawn or expired;
-- sent anew in between. Who may invite whom is in invite.sql.
--
-- A token is 256 random bits. Its SHA-256 alone is kept; in clear it stands in the mail that carries it, and is returned once
-- to a trusted application. Whoever has it has proved the address it was sent to.

CREATE TABLE partner_portal.invitation (
	workspace_id bigint NOT NULL,
	invitation_id bigint GENERATED ALWAYS AS IDENTITY,
	partner_key bigint NOT NULL DEFAULT 0,
	kind text NOT NULL,
	email text NOT NULL,
	role text,
	company_name text,
	owner_name text,
	slug text,
	time_zone text,
	grant_id bigint,
	portal_id bigint,
	details jsonb NOT NULL DEFAULT '{}',
	state text NOT NULL DEFAULT 'pending',
	invited_by bigint,
	created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	sent_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	sendings integer NOT NULL DEFAULT 1,
	expires_at timestamptz NOT NULL,
	finished_at timestamptz,
	account_id bigint,
	accepted_workspace_id bigint,
	token_hash bytea NOT NULL,
	token text,
	CONSTRAINT invitation_pkey PRIMARY KEY (workspace_id, invitation_id),
	CONSTRAINT invitation_kind CHECK (kind IN ('partner', 'customer', 'member', 'portal', 'access')),
	CONSTRAINT invitation_state CHECK (state IN ('pending', 'accepted', 'declined', 'withdrawn', 'expired')),
	CONSTRAINT invitation_finished CHECK ((state = 'pending') = (finished_at IS NULL)),
	CONSTRAINT invitation_accepted CHECK ((state = 'accepted') = (account_id IS NOT NULL)),
	CONSTRAINT invitation_platform CHECK ((kind = 'partner') = (workspace_id = 0)),
	CONSTRAINT invitation_role CHECK ((kind IN ('member', 'portal')) = (role IS NOT NULL)),
	CONSTRAINT invitation_grant CHECK ((kind = 'access') = (grant_id IS NOT NULL)),
	CONSTRAINT invitation_portal CHECK ((kind = 'portal') = (portal_id IS NOT NULL)),
	CONSTRAINT invitation_token_hash CHECK (octet_length(token_hash) = 32),
	CONSTRAINT invitation_token CHECK (token IS NULL)
);
CREATE INDEX invitation_invitation_id ON partner_portal.invitation (invitation_id);
CREATE INDEX invitation_partner_key_idx ON partner_portal.invitation (partner_key);
CREATE INDEX invitation_email_idx ON partner_portal.invitation (lower(email COLLATE "C"));
CREATE UNIQUE INDEX invitation_token_hash_key ON partner_portal.invitation (token_hash);
CREATE UNIQUE INDEX invitation_pending_key ON partner_portal.invitation
	(workspace_id, kind, lower(email COLLATE "C"), coalesce(grant_id, 0), coalesce(portal_id, 0)) WHERE state = 'pending';
COMMENT ON TABLE partner_portal.invitation IS
'An invitation to one address: to become a partner or a customer, to join a workspace or a portal, or to accept access to a customer. At most one is pending per workspace, kind and address.';
COMMENT ON COLUMN partner_portal.invitation.workspace_id IS 'Who invites: the partner for kinds customer and portal, the workspace itself for member and access, 0 (the platform) for partner.';
COMMENT ON COLUMN partner_portal.invitation.partner_key IS 'Partner that may look at it: that of the workspace, for access the one invited; 0 for none.';
COMMENT ON COLUMN partner_portal.invitation.company_name IS 'Name of the workspace that accepting makes (kinds partner and customer), unless another one is given then.';
COMMENT ON COLUMN partner_portal.invitation.state IS 'pending (but of no use after expires_at), accepted, declined, withdrawn or expired (another one was made in its place).';
COMMENT ON COLUMN partner_portal.invitation.invited_by IS 'Account; NULL is the operator or a registration that waits for its confirmation.';
COMMENT ON COLUMN partner_portal.invitation.account_id IS 'Account that accepted it.';
COMMENT ON COLUMN partner_portal.invitation.accepted_workspace_id IS 'Workspace that was made or joined by accepting it.';
COMMENT ON COLUMN partner_portal.invitation.token_hash IS 'SHA-256 of the token.';
COMMENT ON COLUMN partner_portal.invitation.token IS 'Always NULL in the table. In what invite_*() and resend_invitation() return to a trusted application, the token.';

-- One row per account that ever invited: counting rows of invitation would let sessions that meet pass the cap.
CREATE TABLE partner_portal.invitation_allowance (
	account_id bigint NOT NULL,
	hour_from timestamptz NOT NULL,
	used integer NOT NULL,
	CONSTRAINT invitation_allowance_pkey PRIMARY KEY (account_id)
);
COMMENT ON TABLE partner_portal.invitation_allowance IS
'How many invitations and requests for access an account sent in the hour that began at hour_from (partner_portal.invitations_per_hour); account 0 is a trusted application''s with nobody signed in.';

ALTER TABLE partner_portal.invitation ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.invitation_allowance ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY signed_in ON partner_portal.invitation AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
-- A partner's staff does not learn which other partner a customer lets in.
CREATE POLICY read ON partner_portal.invitation FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_people'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR (kind <> 'access' AND workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_people'))::bigint[])));
SELECT pg_catalog.pg_extension_config_dump('partner_portal.invitation', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.invitation_invitation_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.invitation_allowance', '');

CREATE VIEW partner_portal.pending_invitations WITH (security_invoker, security_barrier) AS
	SELECT invitation_id, workspace_id, kind, email, role, company_name, invited_by, created_at, sent_at, sendings, expires_at,
		expires_at <= now() AS expired, grant_id, portal_id
	FROM partner_portal.invitation
	WHERE state = 'pending';
COMMENT ON VIEW partner_portal.pending_invitations IS
'Invitations that nobody has answered yet: those of a workspace to its owners and administrators, its partner and the partner''s account owner; offers of access to both sides. Expired ones can be sent anew.';

CREATE FUNCTION partner_portal.invitation_not_usable() RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.note_refusal('PP002', 'invitation', NULL);
	RAISE EXCEPTION USING ERRCODE = 'PP002', MESSAGE = 'this invitation cannot be used',
		DETAIL = 'It was answered, withdrawn or sent anew, has expired, is for somebody else, or never was.',
		HINT = 'Ask for another one.';
END
$$;
COMMENT ON FUNCTION partner_portal.invitation_not_usable() IS 'Raises PP002 in the one text for every reason; internal.';
REVOKE ALL ON FUNCTION partner_portal.invitation_not_usable() FROM PUBLIC;

CREATE FUNCTION partner_portal.use_allowance(account_id bigint) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	cap integer := current_setting('partner_portal.invitations_per_hour');
	now_used integer;
BEGIN
	IF cap < 0 OR partner_portal.is_operator() THEN
		RETURN;
	END IF;
	INSERT INTO partner_portal.invitation_allowance AS a (account_id, hour_from, used)
	VALUES (coalesce(use_allowance.account_id, 0), clock_timestamp(), 1)
	ON CONFLICT ON CONSTRAINT invitation_allowance_pkey DO UPDATE
	SET hour_from = CASE WHEN a.hour_from > clock_timestamp() - interval '1 hour' THEN a.hour_from ELSE clock_timestamp() END,
		used = CASE WHEN a.hour_from > clock_timestamp() - interval '1 hour' THEN a.used + 1 ELSE 1 END
	RETURNING a.used INTO now_used;
	IF now_used > cap THEN
		RAISE EXCEPTION USING ERRCODE = 'configuration_limit_exceeded', MESSAGE = 'too many invitations in an hour',
			DETAIL = format('%s may be sent by one account.', cap), HINT = 'Try again later, or raise partner_portal.invitations_per_hour.';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.use_allowance(bigint) IS
'Counts one more invitation of an account, NULL being nobody''s; 53400 beyond partner_portal.invitations_per_hour. The operator is not limited. Internal.';
REVOKE ALL ON FUNCTION partner_portal.use_allowance(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.html_of(value text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT
BEGIN ATOMIC
	SELECT replace(replace(replace(replace(replace(value, '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;');
END;
COMMENT ON FUNCTION partner_portal.html_of(text) IS 'A text as it may stand in HTML, in attributes too.';
REVOKE ALL ON FUNCTION partner_portal.html_of(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.simple_mail(subject text, sentences text[], link text, link_text text, closing text) RETURNS partner_portal.mail_content
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT ROW(subject,
		array_to_string(sentences, E'\n\n') || coalesce(E'\n\n' || link, '') || coalesce(E'\n\n' || closing, '') || E'\n',
		'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>' || partner_portal.html_of(subject)
			|| '</title></head><body style="font-family:sans-serif;color:#1a1a1a;background:#ffffff">'
			|| (SELECT string_agg('<p>' || partner_portal.html_of(s) || '</p>', '' ORDER BY n) FROM unnest(sentences) WITH ORDINALITY AS t (s, n))
			|| coalesce('<p><a href="' || partner_portal.html_of(link) || '">' || partner_portal.html_of(coalesce(link_text, link)) || '</a></p>', '')
			|| coalesce('<p>' || partner_portal.html_of(closing) || '</p>', '') || '</body></html>')::partner_portal.mail_content;
END;
COMMENT ON FUNCTION partner_portal.simple_mail(text, text[], text, text, text) IS
'A mail of a few sentences and a link (link_text is shown for it in HTML), as text and as HTML with everything escaped; link and closing may be NULL. Internal.';
REVOKE ALL ON FUNCTION partner_portal.simple_mail(text, text[], text, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.invitation_purpose(invitation partner_portal.invitation) RETURNS text
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	inviter text := (SELECT w.company_name FROM partner_portal.workspace w WHERE w.workspace_id = (invitation).workspace_id);
BEGIN
	RETURN CASE (invitation).kind
		WHEN 'partner' THEN format('You are invited to become a partner as %s', (invitation).company_name)
		WHEN 'customer' THEN CASE WHEN (invitation).details ? 'confirm' THEN format('Confirm the registration of %s with %s', (invitation).company_name, inviter)
			WHEN (invitation).company_name IS NULL THEN format('%s invites you to become its customer', inviter)
			ELSE format('%s invites you to become its customer as %s', inviter, (invitation).company_name) END
		WHEN 'member' THEN format('%s invites you to join as %s', inviter, (invitation).role)
		WHEN 'portal' THEN format('%s invites you to its portal', inviter)
		WHEN 'access' THEN format('%s offers you access', inviter)
		END;
END
$$;
COMMENT ON FUNCTION partner_portal.invitation_purpose(partner_portal.invitation) IS 'What an invitation is for, as one sentence without a full stop; internal.';
REVOKE ALL ON FUNCTION partner_portal.invitation_purpose(partner_portal.invitation) FROM PUBLIC;

CREATE FUNCTION partner_portal.cancel_invitation_mail(invitation partner_portal.invitation) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.finish_notification(n.workspace_id, n.notification_id, 'cancelled', 0, 'the invitation is no longer open')
	FROM partner_portal.notification n
	WHERE n.workspace_id = (invitation).workspace_id AND n.kind = 'invitation' AND n.state = 'pending'
		AND n.dedupe_key = ANY (ARRAY(SELECT format('%s:%s:%s', (invitation).invitation_id, (invitation).sendings, r) FROM generate_series(1, 20) r));
END
$$;
COMMENT ON FUNCTION partner_portal.cancel_invitation_mail(partner_portal.invitation) IS 'Cancels mails of an invitation that are not sent yet, and blanks their token; internal.';
REVOKE ALL ON FUNCTION partner_portal.cancel_invitation_mail(partner_portal.invitation) FROM PUBLIC;

CREATE FUNCTION partner_portal.send_invitation(invitation partner_portal.invitation, token text, recipients text[] DEFAULT NULL) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	sent partner_portal.invitation := invitation;
	purpose text := partner_portal.invitation_purpose(invitation);
	link text := rtrim(current_setting('partner_portal.link_base_url'), '/') || '/invitation/' || token;
BEGIN
	PERFORM partner_portal.enqueue_mail((invitation).workspace_id, 'invitation',
		format('%s:%s:%s', (invitation).invitation_id, (invitation).sendings, r.n), r.email,
		(SELECT a.locale FROM partner_portal.account a WHERE lower(a.email COLLATE "C") = lower(r.email COLLATE "C")),
		partner_portal.simple_mail(purpose,
			ARRAY[purpose || '.', 'Follow this link to look at the invitation, and to accept or refuse it:'], link, 'Look at the invitation',
			format('It can be used once, until %s UTC. If you did not expect it, do nothing.',
				to_char((invitation).expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'))),
		token, (invitation).expires_at)
	FROM unnest(coalesce(recipients[:20], ARRAY[(invitation).email])) WITH ORDINALITY AS r (email, n);
	sent.token_hash := NULL;
	IF partner_portal.is_trusted() THEN
		sent.token := token;
	END IF;
	RETURN sent;
END
$$;
COMMENT ON FUNCTION partner_portal.send_invitation(partner_portal.invitation, text, text[]) IS
'Owes the mails with an invitation''s link, <partner_portal.link_base_url>/invitation/<token>, and returns the invitation as its maker gets it: with the token only for a trusted application. Internal.';
REVOKE ALL ON FUNCTION partner_portal.send_invitation(partner_portal.invitation, text, text[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.create_invitation(wanted partner_portal.invitation, recipients text[] DEFAULT NULL, capped boolean DEFAULT true) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	fresh_token text := partner_portal.new_token();
	made partner_portal.invitation;
BEGIN
	IF capped THEN
		PERFORM partner_portal.use_allowance(partner_portal.current_account_id());
	END IF;
	UPDATE partner_portal.invitation i SET state = 'expired', finished_at = clock_timestamp()
	WHERE i.workspace_id = wanted.workspace_id AND i.kind = wanted.kind AND i.state = 'pending'
		AND lower(i.email COLLATE "C") = lower(wanted.email COLLATE "C")
		AND i.grant_id IS NOT DISTINCT FROM wanted.grant_id AND i.portal_id IS NOT DISTINCT FROM wanted.portal_id
		AND i.expires_at <= clock_timestamp();
	INSERT INTO partner_portal.invitation AS i (workspace_id, partner_key, kind, email, role, company_name, owner_name, slug, time_zone,
		grant_id, portal_id, details, invited_by, expires_at, token_hash)
	VALUES (wanted.workspace_id, coalesce(wanted.partner_key, 0), wanted.kind, wanted.email, wanted.role, wanted.company_name, wanted.owner_name,
		wanted.slug, wanted.time_zone, wanted.grant_id, wanted.portal_id, coalesce(wanted.details, '{}'), partner_portal.current_account_id(),
		clock_timestamp() + current_setting('partner_portal.invitation_lifetime')::interval, sha256(fresh_token::bytea))
	ON CONFLICT DO NOTHING
	RETURNING i.* INTO made;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = 'this address is invited already',
			HINT = 'Send that invitation anew with resend_invitation(), or withdraw it first.';
	END IF;
	RETURN partner_portal.send_invitation(made, fresh_token, recipients);
END
$$;
COMMENT ON FUNCTION partner_portal.create_invitation(partner_portal.invitation, text[], boolean) IS
'Makes an invitation of what the row says (ids, state, times and token are made here) and owes its mail, to the address invited unless others are named. 23505 one is pending for this address; 53400 too many in an hour (unless not capped). Internal: asks nobody''s permission.';
REVOKE ALL ON FUNCTION partner_portal.create_invitation(partner_portal.invitation, text[], boolean) FROM PUBLIC;

-- The token is the proof: whoever shows or refuses an invitation need not be anybody.
CREATE FUNCTION partner_portal.usable_invitation(token text) RETURNS partner_portal.invitation
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_invitation partner_portal.invitation;
BEGIN
	IF token IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'token must not be null';
	END IF;
	IF octet_length(token) = 43 THEN
		SELECT i.* INTO found_invitation FROM partner_portal.invitation i
		WHERE i.token_hash = sha256(convert_to(usable_invitation.token, 'UTF8')) AND i.state = 'pending' AND i.expires_at > clock_timestamp();
	END IF;
	IF found_invitation.invitation_id IS NULL THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	RETURN found_invitation;
END
$$;
COMMENT ON FUNCTION partner_portal.usable_invitation(text) IS 'Returns the invitation of a token, as long as it can be answered. 22004 NULL; PP002 else. Internal.';
REVOKE ALL ON FUNCTION partner_portal.usable_invitation(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.show_invitation(token text)
	RETURNS TABLE (kind text, purpose text, email text, inviter text, role text, company_name text, expires_at timestamptz, has_account boolean, details jsonb)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	shown partner_portal.invitation := partner_portal.usable_invitation(token);
BEGIN
	RETURN QUERY
	SELECT shown.kind, partner_portal.invitation_purpose(shown), shown.email,
		(SELECT w.company_name FROM partner_portal.workspace w WHERE w.workspace_id = shown.workspace_id),
		shown.role, shown.company_name, shown.expires_at,
		EXISTS (SELECT FROM partner_portal.account a WHERE lower(a.email COLLATE "C") = lower(shown.email COLLATE "C")),
		shown.details;
END
$$;
COMMENT ON FUNCTION partner_portal.show_invitation(text) IS
'Looks at an invitation by its token, changes nothing and needs nobody signed in: what it is for, to which address, from whom, until when, and whether that address has an account. 22004 NULL; PP002 it cannot be used.';
REVOKE ALL ON FUNCTION partner_portal.show_invitation(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.decline_invitation(token text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	declined partner_portal.invitation := partner_portal.usable_invitation(token);
BEGIN
	UPDATE partner_portal.invitation i SET state = 'declined', finished_at = clock_timestamp()
	WHERE i.workspace_id = declined.workspace_id AND i.invitation_id = declined.invitation_id
		AND i.token_hash = declined.token_hash AND i.state = 'pending' AND i.expires_at > clock_timestamp();
	IF NOT FOUND THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	PERFORM partner_portal.cancel_invitation_mail(declined);
	PERFORM partner_portal.finish_offer(declined, 'declined');
END
$$;
COMMENT ON FUNCTION partner_portal.decline_invitation(text) IS
'Refuses an invitation for good, by its token alone. 22004 NULL; PP002 it cannot be used.';
REVOKE ALL ON FUNCTION partner_portal.decline_invitation(text) FROM PUBLIC;

-- What accepting does, one function for each kind: with the invitation, already accepted, and the account that accepts. They return
-- the workspace that was made or joined.

CREATE FUNCTION partner_portal.join_workspace(workspace_id bigint, account_id bigint, role text) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	INSERT INTO partner_portal.member AS m (workspace_id, account_id, partner_key, role, accepted_at)
	SELECT w.workspace_id, join_workspace.account_id, w.partner_key, join_workspace.role, now()
	FROM partner_portal.workspace w
	WHERE w.workspace_id = join_workspace.workspace_id
	ON CONFLICT ON CONSTRAINT member_pkey DO UPDATE SET role = excluded.role, accepted_at = excluded.accepted_at
	WHERE m.accepted_at IS NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.join_workspace(bigint, bigint, text) IS
'Makes an account a member that has accepted; a membership that was pending gets the role, one that was accepted stays as it is. Internal.';
REVOKE ALL ON FUNCTION partner_portal.join_workspace(bigint, bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.accept_partner_invitation(invitation partner_portal.invitation, account_id bigint, company_name text, slug text, time_zone text) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	made partner_portal.workspace := partner_portal.make_workspace(NULL, coalesce(company_name, (invitation).company_name), slug, coalesce(time_zone, 'UTC'), NULL);
BEGIN
	PERFORM partner_portal.join_workspace(made.workspace_id, account_id, 'owner');
	PERFORM partner_portal.make_partner(made.workspace_id);
	RETURN made.workspace_id;
END
$$;
COMMENT ON FUNCTION partner_portal.accept_partner_invitation(partner_portal.invitation, bigint, text, text, text) IS 'Makes the invited account a partner with its own workspace; internal.';
REVOKE ALL ON FUNCTION partner_portal.accept_partner_invitation(partner_portal.invitation, bigint, text, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.accept_customer_invitation(invitation partner_portal.invitation, account_id bigint, company_name text, slug text, time_zone text) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	partner_workspace partner_portal.workspace;
	made partner_portal.workspace;
BEGIN
	SELECT w.* INTO partner_workspace FROM partner_portal.workspace w
	WHERE w.workspace_id = (invitation).workspace_id AND w.deleted_at IS NULL AND w.kind = 'partner'
	FOR SHARE;
	IF NOT FOUND THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	IF partner_workspace.suspended_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = 'the partner of this invitation is suspended';
	END IF;
	made := partner_portal.make_workspace(partner_workspace.workspace_id, coalesce(company_name, (invitation).company_name),
		coalesce(slug, (invitation).slug), coalesce(time_zone, (invitation).time_zone, partner_workspace.time_zone), NULL);
	PERFORM partner_portal.join_workspace(made.workspace_id, account_id, 'owner');
	RETURN made.workspace_id;
END
$$;
COMMENT ON FUNCTION partner_portal.accept_customer_invitation(partner_portal.invitation, bigint, text, text, text) IS
'Makes the invited account the owner of a workspace under the partner that invited; PP005 the partner is suspended. Internal.';
REVOKE ALL ON FUNCTION partner_portal.accept_customer_invitation(partner_portal.invitation, bigint, text, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.accept_member_invitation(invitation partner_portal.invitation, account_id bigint) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM partner_portal.workspace w WHERE w.workspace_id = (invitation).workspace_id AND w.deleted_at IS NULL) THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	PERFORM partner_portal.join_workspace((invitation).workspace_id, account_id, (invitation).role);
	RETURN (invitation).workspace_id;
END
$$;
COMMENT ON FUNCTION partner_portal.accept_member_invitation(partner_portal.invitation, bigint) IS 'Makes the invited account a member; internal.';
REVOKE ALL ON FUNCTION partner_portal.accept_member_invitation(partner_portal.invitation, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.accepting_account(invitation partner_portal.invitation, owner_name text) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	signed_in bigint := partner_portal.current_account_id();
	person partner_portal.account;
	made record;
BEGIN
	IF (invitation).kind = 'access' THEN
		-- anybody who runs the invited partner; with nobody signed in, who the mail went to
		SELECT a.* INTO person FROM partner_portal.account a
		JOIN partner_portal.member m ON m.account_id = a.account_id
		WHERE m.workspace_id = (invitation).partner_key AND m.role IN ('owner', 'administrator') AND m.accepted_at IS NOT NULL
			AND CASE WHEN signed_in IS NULL THEN lower(a.email COLLATE "C") = lower((invitation).email COLLATE "C") ELSE a.account_id = signed_in END;
	ELSIF signed_in IS NULL THEN
		made := partner_portal.make_account((invitation).email, coalesce(accepting_account.owner_name, (invitation).owner_name));
		SELECT a.* INTO person FROM partner_portal.account a WHERE a.account_id = made.account_id;
	ELSE
		SELECT a.* INTO person FROM partner_portal.account a
		WHERE a.account_id = signed_in AND lower(a.email COLLATE "C") = lower((invitation).email COLLATE "C");
	END IF;
	IF person.account_id IS NULL OR person.disabled_at IS NOT NULL OR person.erased_at IS NOT NULL THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	RETURN person.account_id;
END
$$;
COMMENT ON FUNCTION partner_portal.accepting_account(partner_portal.invitation, text) IS
'The account that accepts an invitation: the one signed in, whose address must be the one invited; with nobody signed in the account of that address, made if there is none. An offer of access is for an owner or administrator of the partner. PP002. Internal.';
REVOKE ALL ON FUNCTION partner_portal.accepting_account(partner_portal.invitation, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.accept_invitation(token text, company_name text DEFAULT NULL, owner_name text DEFAULT NULL,
		slug text DEFAULT NULL, time_zone text DEFAULT NULL) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.invitation := partner_portal.usable_invitation(token);
	accepted partner_portal.invitation;
	person bigint;
	place bigint;
BEGIN
	IF owner_name IS NOT NULL THEN
		PERFORM partner_portal.checked_text('owner_name', owner_name, 200);
	END IF;
	person := partner_portal.accepting_account(asked, owner_name);
	-- before the invitation, as whoever deletes the workspace or withdraws does
	IF asked.kind = 'access' THEN
		PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = asked.workspace_id FOR NO KEY UPDATE;
	ELSE
		PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = asked.workspace_id FOR SHARE;
	END IF;
	-- of all that have the token one sees its row pending
	UPDATE partner_portal.invitation i SET state = 'accepted', finished_at = clock_timestamp(), account_id = person
	WHERE i.workspace_id = asked.workspace_id AND i.invitation_id = asked.invitation_id
		AND i.token_hash = asked.token_hash AND i.state = 'pending' AND i.expires_at > clock_timestamp()
	RETURNING i.* INTO accepted;
	IF NOT FOUND THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	PERFORM partner_portal.cancel_invitation_mail(accepted);
	place := CASE accepted.kind
		WHEN 'partner' THEN partner_portal.accept_partner_invitation(accepted, person, accept_invitation.company_name, accept_invitation.slug, accept_invitation.time_zone)
		WHEN 'customer' THEN partner_portal.accept_customer_invitation(accepted, person, accept_invitation.company_name, accept_invitation.slug, accept_invitation.time_zone)
		WHEN 'member' THEN partner_portal.accept_member_invitation(accepted, person)
		WHEN 'portal' THEN partner_portal.accept_portal_invitation(accepted, person)
		WHEN 'access' THEN partner_portal.accept_access_invitation(accepted)
		END;
	UPDATE partner_portal.invitation i SET accepted_workspace_id = place
	WHERE i.workspace_id = accepted.workspace_id AND i.invitation_id = accepted.invitation_id
	RETURNING i.* INTO accepted;
	accepted.token_hash := NULL;
	RETURN accepted;
END
$$;
COMMENT ON FUNCTION partner_portal.accept_invitation(text, text, text, text, text) IS
'Accepts an invitation, once, and returns it with account_id and accepted_workspace_id. With nobody signed in the token proves the address, and its account is made if there is none; who is signed in must have that address. An offer of access (kind access) is accepted by an owner or administrator of the partner. company_name, slug and time_zone are for the workspace that kinds partner and customer make. 22004; PP002 it cannot be used; PP005 the partner is suspended; 23505 the slug is taken; 22023.';
REVOKE ALL ON FUNCTION partner_portal.accept_invitation(text, text, text, text, text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT (workspace_id, invitation_id, partner_key, kind, email, role, company_name, owner_name, slug, time_zone, grant_id, portal_id, details, state, invited_by, created_at, sent_at, sendings, expires_at, finished_at, account_id, accepted_workspace_id)', 'TABLE partner_portal.invitation'),
	('application', 'SELECT', 'TABLE partner_portal.pending_invitations'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.show_invitation(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.decline_invitation(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.accept_invitation(text, text, text, text, text)');
-- invite.sql: who may invite whom, send an invitation anew or take it back.

CREATE FUNCTION partner_portal.invite_partner(email text, company_name text) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	wanted partner_portal.invitation;
BEGIN
	PERFORM partner_portal.require_operator();
	wanted.workspace_id := 0;
	wanted.kind := 'partner';
	wanted.email := partner_portal.checked_email(email);
	wanted.company_name := partner_portal.checked_text('company_name', company_name, 200);
	RETURN partner_portal.create_invitation(wanted);
END
$$;
COMMENT ON FUNCTION partner_portal.invite_partner(text, text) IS
'Invites an address to become a partner: accepting makes it the owner of a new workspace that is one. Operator only (42501); 23505 it is invited already; 22004, 22001, 22023.';
REVOKE ALL ON FUNCTION partner_portal.invite_partner(text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.invite_customer(email text, company_name text DEFAULT NULL, partner_id bigint DEFAULT NULL) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_id);
	wanted partner_portal.invitation;
BEGIN
	PERFORM partner_portal.partner_of_code(asked.registration_code);
	wanted.workspace_id := asked.partner_id;
	wanted.kind := 'customer';
	wanted.email := partner_portal.checked_email(email);
	IF company_name IS NOT NULL THEN
		wanted.company_name := partner_portal.checked_text('company_name', company_name, 200);
	END IF;
	RETURN partner_portal.create_invitation(wanted);
END
$$;
COMMENT ON FUNCTION partner_portal.invite_customer(text, text, bigint) IS
'Invites an address to become a customer of a partner, NULL being the identity''s own: accepting makes it the owner of a workspace of its own, registered under the partner; its name may be left to the invited. For the partner''s owner or administrator. 42501, P0002; PP005 no partner, or suspended; 23505 it is invited already.';
REVOKE ALL ON FUNCTION partner_portal.invite_customer(text, text, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.invite_to_confirm(partner_id bigint, company_name text, owner_email text, owner_name text, slug text, time_zone text) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	wanted partner_portal.invitation;
BEGIN
	wanted.workspace_id := partner_id;
	wanted.kind := 'customer';
	wanted.email := owner_email;
	wanted.company_name := partner_portal.checked_text('company_name', company_name, 200);
	IF owner_name IS NOT NULL THEN
		wanted.owner_name := partner_portal.checked_text('owner_name', owner_name, 200);
	END IF;
	IF slug IS NOT NULL THEN
		wanted.slug := partner_portal.checked_slug(slug);
		IF EXISTS (SELECT FROM partner_portal.workspace w WHERE w.slug = invite_to_confirm.slug) THEN
			RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = format('slug "%s" is taken', slug),
				HINT = 'Choose another slug, or leave it out to have one made from the company name.';
		END IF;
	END IF;
	IF time_zone IS NOT NULL THEN
		PERFORM partner_portal.check_time_zone(partner_portal.checked_text('time_zone', time_zone, 255));
		wanted.time_zone := time_zone;
	END IF;
	wanted.details := '{"confirm": true}';
	-- who asks again gets a new link
	UPDATE partner_portal.invitation i SET state = 'withdrawn', finished_at = clock_timestamp()
	WHERE i.workspace_id = invite_to_confirm.partner_id AND i.kind = 'customer' AND i.state = 'pending'
		AND lower(i.email COLLATE "C") = lower(owner_email COLLATE "C") AND i.details ? 'confirm';
	-- nobody's allowance: many register in an hour, but hardly one address many times
	IF (SELECT count(*) FROM partner_portal.invitation i
		WHERE lower(i.email COLLATE "C") = lower(owner_email COLLATE "C") AND i.details ? 'confirm' AND i.created_at > clock_timestamp() - interval '1 hour') >= 5
	THEN
		RAISE EXCEPTION USING ERRCODE = 'configuration_limit_exceeded', MESSAGE = 'too many registrations of an address in an hour',
			DETAIL = 'An address is sent 5 in an hour to confirm.', HINT = 'Use the last one, or try again later.';
	END IF;
	PERFORM partner_portal.create_invitation(wanted, capped => false);
END
$$;
COMMENT ON FUNCTION partner_portal.invite_to_confirm(bigint, text, text, text, text, text) IS
'Makes the invitation that completes a registration under a partner; an earlier one for the address is void; 53400 the sixth for an address in an hour. Internal.';
REVOKE ALL ON FUNCTION partner_portal.invite_to_confirm(bigint, text, text, text, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.invite_member(workspace_id bigint, email text, role text) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	place partner_portal.workspace := partner_portal.authorized_live_workspace('manage_people', workspace_id);
	wanted partner_portal.invitation;
BEGIN
	wanted.workspace_id := workspace_id;
	wanted.partner_key := place.partner_key;
	wanted.kind := 'member';
	wanted.email := partner_portal.checked_email(email);
	wanted.role := partner_portal.checked_role(role);
	PERFORM partner_portal.require_rank_over(workspace_id, role);
	IF EXISTS (SELECT FROM partner_portal.member m JOIN partner_portal.account a ON a.account_id = m.account_id
		WHERE m.workspace_id = invite_member.workspace_id AND m.accepted_at IS NOT NULL
			AND lower(a.email COLLATE "C") = lower(invite_member.email COLLATE "C"))
	THEN
		RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = format('this address is a member of workspace %s already', workspace_id),
			HINT = 'Use set_member_role() to change its role.';
	END IF;
	RETURN partner_portal.create_invitation(wanted);
END
$$;
COMMENT ON FUNCTION partner_portal.invite_member(bigint, text, text) IS
'Invites an address to join a workspace with a role. Needs manage_people; only an owner or the operator invites an owner. 42501, P0002; PP005 the workspace is deleted; 23505 it is a member or invited already; 22023.';
REVOKE ALL ON FUNCTION partner_portal.invite_member(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.inviters_invitation(invitation_id bigint) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_invitation partner_portal.invitation;
	permission text;
BEGIN
	IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
	END IF;
	IF invitation_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'invitation_id must not be null';
	END IF;
	SELECT i.* INTO found_invitation FROM partner_portal.invitation i WHERE i.invitation_id = inviters_invitation.invitation_id;
	permission := CASE found_invitation.kind WHEN 'customer' THEN 'manage_portals' WHEN 'portal' THEN 'manage_portals' WHEN 'member' THEN 'manage_people' WHEN 'access' THEN 'grant_access' END;
	IF found_invitation.invitation_id IS NULL OR NOT (partner_portal.is_operator()
		OR (permission IS NOT NULL AND partner_portal.may(permission, found_invitation.workspace_id)))
	THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('invitation %s not found', invitation_id);
	END IF;
	-- before the invitation, as whoever accepts does
	PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = found_invitation.workspace_id FOR NO KEY UPDATE;
	SELECT i.* INTO found_invitation FROM partner_portal.invitation i
	WHERE i.workspace_id = found_invitation.workspace_id AND i.invitation_id = found_invitation.invitation_id
	FOR UPDATE;
	IF found_invitation.kind = 'member' THEN
		PERFORM partner_portal.require_rank_over(found_invitation.workspace_id, found_invitation.role);
	END IF;
	IF found_invitation.state <> 'pending' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('invitation %s is %s', invitation_id, found_invitation.state);
	END IF;
	RETURN found_invitation;
END
$$;
COMMENT ON FUNCTION partner_portal.inviters_invitation(bigint) IS
'Returns a pending invitation, locked, to who could have made it. 42501 nobody, or not over an owner''s; 22004; P0002 not theirs, or absent; PP005 it is answered or withdrawn. Internal.';
REVOKE ALL ON FUNCTION partner_portal.inviters_invitation(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.resend_invitation(invitation_id bigint) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	resent partner_portal.invitation := partner_portal.inviters_invitation(invitation_id);
	fresh_token text := partner_portal.new_token();
	recipients text[];
BEGIN
	PERFORM partner_portal.use_allowance(partner_portal.current_account_id());
	PERFORM partner_portal.cancel_invitation_mail(resent);
	SELECT array_agg(n.recipient ORDER BY n.notification_id) INTO recipients FROM partner_portal.notification n
	WHERE n.workspace_id = resent.workspace_id AND n.kind = 'invitation'
		AND n.dedupe_key = ANY (ARRAY(SELECT format('%s:%s:%s', resent.invitation_id, resent.sendings, r) FROM generate_series(1, 20) r));
	UPDATE partner_portal.invitation i SET token_hash = sha256(fresh_token::bytea), sent_at = clock_timestamp(), sendings = i.sendings + 1,
		expires_at = clock_timestamp() + current_setting('partner_portal.invitation_lifetime')::interval
	WHERE i.workspace_id = resent.workspace_id AND i.invitation_id = resent.invitation_id
	RETURNING i.* INTO resent;
	RETURN partner_portal.send_invitation(resent, fresh_token, recipients);
END
$$;
COMMENT ON FUNCTION partner_portal.resend_invitation(bigint) IS
'Sends a pending invitation anew, an expired one too, with a new token and its whole time; the old token is dead. For who could have made it. 42501; P0002; PP005 it is answered or withdrawn; 53400 too many in an hour.';
REVOKE ALL ON FUNCTION partner_portal.resend_invitation(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.withdraw_invitation(invitation_id bigint) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	withdrawn partner_portal.invitation := partner_portal.inviters_invitation(invitation_id);
BEGIN
	UPDATE partner_portal.invitation i SET state = 'withdrawn', finished_at = clock_timestamp()
	WHERE i.workspace_id = withdrawn.workspace_id AND i.invitation_id = withdrawn.invitation_id;
	PERFORM partner_portal.cancel_invitation_mail(withdrawn);
	PERFORM partner_portal.finish_offer(withdrawn, 'withdrawn');
END
$$;
COMMENT ON FUNCTION partner_portal.withdraw_invitation(bigint) IS
'Takes a pending invitation back; its token is dead. For who could have made it. 42501; P0002; PP005 it is answered or withdrawn already.';
REVOKE ALL ON FUNCTION partner_portal.withdraw_invitation(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.forget_invitations(email text) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.cancel_invitation_mail(i) FROM partner_portal.invitation i
	WHERE lower(i.email COLLATE "C") = lower(forget_invitations.email COLLATE "C") AND i.state = 'pending';
	UPDATE partner_portal.invitation i SET state = CASE i.state WHEN 'pending' THEN 'withdrawn' ELSE i.state END,
		finished_at = coalesce(i.finished_at, clock_timestamp()),
		email = 'erased-' || i.invitation_id || '@erased.invalid', owner_name = NULL
	WHERE lower(i.email COLLATE "C") = lower(forget_invitations.email COLLATE "C");
END
$$;
COMMENT ON FUNCTION partner_portal.forget_invitations(text) IS 'Withdraws what an address is invited to and erases the address; internal.';
REVOKE ALL ON FUNCTION partner_portal.forget_invitations(text) FROM PUBLIC;

-- Invitations follow their workspace: they end with it, and with its being a partner; the partner that looks on changes with it.
CREATE FUNCTION partner_portal.invitations_follow() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	just_deleted boolean := OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL;
BEGIN
	IF TG_OP = 'INSERT' AND partner_portal.restoring_session() THEN
		RETURN NULL;
	END IF;
	IF just_deleted OR NEW.kind <> OLD.kind THEN
		PERFORM partner_portal.cancel_invitation_mail(i) FROM partner_portal.invitation i
		WHERE i.workspace_id = NEW.workspace_id AND i.state = 'pending' AND (just_deleted OR i.kind IN ('customer', 'portal'));
		UPDATE partner_portal.invitation i SET state = 'withdrawn', finished_at = clock_timestamp()
		WHERE i.workspace_id = NEW.workspace_id AND i.state = 'pending' AND (just_deleted OR i.kind IN ('customer', 'portal'));
	END IF;
	IF NEW.partner_key <> OLD.partner_key THEN
		UPDATE partner_portal.invitation i SET partner_key = NEW.partner_key
		WHERE i.workspace_id = NEW.workspace_id AND i.kind = 'member' AND i.state = 'pending';
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.invitations_follow() IS
'Trigger of workspace: pending invitations end when it is deleted, those of customers and portal users when it is no partner any more; a transfer shows them to the new partner alone.';
REVOKE ALL ON FUNCTION partner_portal.invitations_follow() FROM PUBLIC;
CREATE TRIGGER invitations_follow AFTER UPDATE OF partner_id, deleted_at, kind ON partner_portal.workspace
	FOR EACH ROW WHEN (OLD.partner_key <> NEW.partner_key OR OLD.kind <> NEW.kind OR OLD.deleted_at IS DISTINCT FROM NEW.deleted_at)
	EXECUTE FUNCTION partner_portal.invitations_follow();

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.invite_partner(text, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.invite_customer(text, text, bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.invite_member(bigint, text, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.resend_invitation(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.withdraw_invitation(bigint)');
-- access_consent.sql: how a customer and a partner come to an agreement about access, and how it ends.
--
-- Locks are taken in this order: workspace, invitation, grant, other grants, members. Who writes keys or products by a grant holds
-- it FOR SHARE (hold_grant), so that an end waits for the writes it would else overtake.

CREATE FUNCTION partner_portal.checked_terms(scope text, products bigint[], categories text[], wallet boolean, rights text[], expires_at timestamptz) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	terms partner_portal.access_grant;
	category text;
BEGIN
	IF scope IS NULL OR rights IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = CASE WHEN scope IS NULL THEN 'scope' ELSE 'rights' END || ' must not be null';
	END IF;
	IF scope NOT IN ('limited', 'complete') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown scope "%s"', left(scope, 64)), HINT = 'Scopes are limited and complete.';
	END IF;
	IF array_ndims(products) > 1 OR array_ndims(categories) > 1 OR array_ndims(rights) > 1
		OR array_position(products, NULL) IS NOT NULL OR array_position(categories, NULL) IS NOT NULL
	THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'products, categories and rights must be lists without null';
	END IF;
	IF cardinality(rights) = 0 OR NOT rights <@ '{read,manage}' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'rights must be read, manage or both';
	END IF;
	IF cardinality(products) > 1000 OR cardinality(categories) > 100 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'too many products or categories',
			DETAIL = 'A grant names at most 1000 products and 100 categories.';
	END IF;
	FOREACH category IN ARRAY coalesce(categories, '{}') LOOP
		PERFORM partner_portal.checked_text('category', category, 60);
	END LOOP;
	IF expires_at IS NOT NULL AND NOT (expires_at > clock_timestamp() AND expires_at < timestamptz '3000-01-01 00:00+00') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'expires_at must be in the future', HINT = 'Leave it out for access that lasts until it is ended.';
	END IF;
	terms.scope := scope;
	terms.rights := ARRAY(SELECT DISTINCT r FROM unnest(rights) r ORDER BY 1);
	terms.products := ARRAY(SELECT DISTINCT p FROM unnest(products) p ORDER BY 1);
	terms.categories := ARRAY(SELECT DISTINCT c FROM unnest(categories) c ORDER BY 1);
	terms.wallet := wallet;
	terms.expires_at := expires_at;
	IF scope = 'limited' THEN
		IF cardinality(terms.products) + cardinality(terms.categories) = 0 THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'limited access needs a product or a category';
		END IF;
		IF wallet THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'the wallet goes with complete access only';
		END IF;
	ELSE
		IF cardinality(terms.products) + cardinality(terms.categories) > 0 THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'complete access names no products or categories';
		END IF;
		IF wallet IS NULL THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'complete access needs the wallet answered',
				HINT = 'Say wallet => true if the partner is to pay for the workspace, else false.';
		END IF;
	END IF;
	RETURN terms;
END
$$;
COMMENT ON FUNCTION partner_portal.checked_terms(text, bigint[], text[], boolean, text[], timestamptz) IS
'Returns the terms of a grant in order: 22004, 22023 what makes no sense. Whether the products exist is for the grantor''s functions. Internal.';
REVOKE ALL ON FUNCTION partner_portal.checked_terms(text, bigint[], text[], boolean, text[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.require_products(workspace_id bigint, products bigint[]) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	missing bigint;
BEGIN
	SELECT u.id INTO missing FROM unnest(products) u (id)
	WHERE NOT EXISTS (SELECT FROM partner_portal.product p WHERE p.workspace_id = require_products.workspace_id AND p.product_id = u.id)
	ORDER BY 1 LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('product %s not found', missing);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.require_products(bigint, bigint[]) IS 'Returns when a workspace has all these products; else P0002. Internal.';
REVOKE ALL ON FUNCTION partner_portal.require_products(bigint, bigint[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.people_in_charge(workspace_id bigint, roles text[]) RETURNS text[]
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT array_agg(a.email ORDER BY m.accepted_at, m.account_id)
	FROM partner_portal.member m
	JOIN partner_portal.account a ON a.account_id = m.account_id
	WHERE m.workspace_id = people_in_charge.workspace_id AND m.role = ANY (people_in_charge.roles) AND m.accepted_at IS NOT NULL AND a.disabled_at IS NULL
		AND coalesce(m.ends_at > now(), true);
END;
COMMENT ON FUNCTION partner_portal.people_in_charge(bigint, text[]) IS 'Addresses of the people of a workspace with one of these roles, the first of them first; internal.';
REVOKE ALL ON FUNCTION partner_portal.people_in_charge(bigint, text[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_about_grant(about partner_portal.access_grant, kind text, occasion text, to_workspace bigint, sentences text[]) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.enqueue_mail((about).workspace_id, mail_about_grant.kind, format('%s:%s:%s:%s', (about).grant_id, occasion, to_workspace, r.n), r.email,
		(SELECT a.locale FROM partner_portal.account a WHERE lower(a.email COLLATE "C") = lower(r.email COLLATE "C")),
		partner_portal.simple_mail(rtrim(sentences[1], '.'), sentences,
			rtrim(current_setting('partner_portal.link_base_url'), '/') || '/grants/' || (about).grant_id, 'Look at the access', NULL))
	FROM unnest(partner_portal.people_in_charge(to_workspace, '{owner}')) WITH ORDINALITY AS r (email, n)
	WHERE r.n <= 20;
END
$$;
COMMENT ON FUNCTION partner_portal.mail_about_grant(partner_portal.access_grant, text, text, bigint, text[]) IS
'Owes the owners of one side a mail about a grant, once per occasion; internal.';
REVOKE ALL ON FUNCTION partner_portal.mail_about_grant(partner_portal.access_grant, text, text, bigint, text[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.send_offer(offered partner_portal.access_grant) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	wanted partner_portal.invitation;
	recipients text[] := partner_portal.people_in_charge((offered).partner_id, '{owner}');
BEGIN
	IF recipients IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('partner %s has no owner who could accept', (offered).partner_id);
	END IF;
	wanted.workspace_id := (offered).workspace_id;
	wanted.partner_key := (offered).partner_id;
	wanted.kind := 'access';
	wanted.email := recipients[1];
	wanted.grant_id := (offered).grant_id;
	wanted.details := jsonb_strip_nulls(jsonb_build_object('scope', (offered).scope, 'products', nullif((offered).products, '{}'), 'categories', nullif((offered).categories, '{}'),
		'rights', (offered).rights, 'wallet', (offered).wallet, 'expires_at', (offered).expires_at));
	PERFORM partner_portal.create_invitation(wanted, recipients);
END
$$;
COMMENT ON FUNCTION partner_portal.send_offer(partner_portal.access_grant) IS 'Invites the owners of a partner to accept a grant; PP005 it has none. Internal.';
REVOKE ALL ON FUNCTION partner_portal.send_offer(partner_portal.access_grant) FROM PUBLIC;

CREATE FUNCTION partner_portal.find_partner(search text) RETURNS TABLE (partner_id bigint, company_name text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
	END IF;
	PERFORM partner_portal.checked_text('text to search for', search, 320);
	RETURN QUERY
	SELECT w.workspace_id, w.company_name
	FROM partner_portal.partner p
	JOIN partner_portal.workspace w ON w.workspace_id = p.partner_id
	WHERE w.deleted_at IS NULL AND (starts_with(lower(w.company_name), lower(search))
		OR (position('@' IN search) > 0 AND EXISTS (
			SELECT FROM partner_portal.account a
			JOIN partner_portal.member m ON m.account_id = a.account_id
			WHERE lower(a.email COLLATE "C") = lower(search COLLATE "C") AND m.workspace_id = w.workspace_id
				AND m.role IN ('owner', 'administrator') AND m.accepted_at IS NOT NULL)))
	ORDER BY w.company_name, w.workspace_id
	LIMIT 50;
END
$$;
COMMENT ON FUNCTION partner_portal.find_partner(text) IS
'Partners whose name begins with a text, without regard to case, or of which a given e-mail address is an owner''s or administrator''s: id and name only, at most 50. For whoever is signed in (42501); 22004, 22001, 22023.';
REVOKE ALL ON FUNCTION partner_portal.find_partner(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.offer_access(workspace_id bigint, partner_id bigint, scope text, products bigint[] DEFAULT '{}', categories text[] DEFAULT '{}',
		wallet boolean DEFAULT NULL, rights text[] DEFAULT '{read,manage}', expires_at timestamptz DEFAULT NULL) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	terms partner_portal.access_grant;
	offered partner_portal.access_grant;
BEGIN
	PERFORM partner_portal.authorized_live_workspace('grant_access', workspace_id);
	terms := partner_portal.checked_terms(scope, products, categories, wallet, rights, expires_at);
	IF partner_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'partner_id must not be null';
	END IF;
	IF NOT EXISTS (SELECT FROM partner_portal.partner p JOIN partner_portal.workspace w ON w.workspace_id = p.partner_id
		WHERE p.partner_id = offer_access.partner_id AND w.deleted_at IS NULL)
	THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('partner %s not found', partner_id);
	END IF;
	IF partner_id = workspace_id THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a partner needs no access to itself';
	END IF;
	PERFORM partner_portal.require_products(workspace_id, terms.products);
	INSERT INTO partner_portal.access_grant AS g (workspace_id, partner_id, scope, products, categories, wallet, rights, expires_at, state, created_by)
	VALUES (offer_access.workspace_id, offer_access.partner_id, terms.scope, terms.products, terms.categories, terms.wallet, terms.rights, terms.expires_at,
		'offered', partner_portal.current_account_id())
	ON CONFLICT (workspace_id, partner_id) WHERE state IN ('requested', 'offered') DO NOTHING
	RETURNING g.* INTO offered;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('an offer to partner %s, or its request, is still open', partner_id),
			HINT = 'End the offer with end_access(), or answer the request with accept_access(), counter_offer() or decline_access().';
	END IF;
	PERFORM partner_portal.send_offer(offered);
	RETURN offered;
END
$$;
COMMENT ON FUNCTION partner_portal.offer_access(bigint, bigint, text, bigint[], text[], boolean, text[], timestamptz) IS
'Offers a partner access to a workspace: limited to products and categories, or complete, where the wallet must be answered. The partner''s owners get a mail with a link; access exists from acceptance on, and then takes the place of what the partner had. By the workspace''s owner. 42501; P0002 no such workspace, partner or product; 22023; PP005 the workspace is deleted, or an offer or request is open; 53400.';
REVOKE ALL ON FUNCTION partner_portal.offer_access(bigint, bigint, text, bigint[], text[], boolean, text[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.request_access(workspace_id bigint, scope text DEFAULT 'complete', products bigint[] DEFAULT '{}', categories text[] DEFAULT '{}',
		wallet boolean DEFAULT false, rights text[] DEFAULT '{read,manage}', expires_at timestamptz DEFAULT NULL, message text DEFAULT NULL,
		partner_id bigint DEFAULT NULL) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	asking partner_portal.partner := partner_portal.authorized_partner(partner_id);
	terms partner_portal.access_grant := partner_portal.checked_terms(scope, products, categories, CASE WHEN scope = 'limited' THEN nullif(wallet, false) ELSE wallet END, rights, expires_at);
	requested partner_portal.access_grant;
	partner_name text;
BEGIN
	IF workspace_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_id must not be null';
	END IF;
	IF message IS NOT NULL THEN
		PERFORM partner_portal.checked_text('message', message, 1000);
	END IF;
	IF workspace_id = asking.partner_id THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a partner needs no access to itself';
	END IF;
	PERFORM partner_portal.use_allowance(partner_portal.current_account_id());
	PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = request_access.workspace_id AND w.deleted_at IS NULL FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('workspace %s not found', workspace_id);
	END IF;
	INSERT INTO partner_portal.access_grant AS g (workspace_id, partner_id, scope, products, categories, wallet, rights, expires_at, state, asked, message, created_by)
	VALUES (request_access.workspace_id, asking.partner_id, terms.scope, terms.products, terms.categories, terms.wallet, terms.rights, terms.expires_at, 'requested',
		jsonb_strip_nulls(jsonb_build_object('scope', terms.scope, 'products', nullif(terms.products, '{}'), 'categories', nullif(terms.categories, '{}'),
			'rights', terms.rights, 'wallet', terms.wallet, 'expires_at', terms.expires_at)),
		request_access.message, partner_portal.current_account_id())
	ON CONFLICT (workspace_id, partner_id) WHERE state IN ('requested', 'offered') DO NOTHING
	RETURNING g.* INTO requested;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('a request to workspace %s, or its offer, is still open', workspace_id),
			HINT = 'End the request with end_access(), or answer the offer.';
	END IF;
	SELECT w.company_name INTO partner_name FROM partner_portal.workspace w WHERE w.workspace_id = asking.partner_id;
	PERFORM partner_portal.mail_about_grant(requested, 'access_request', 'requested', requested.workspace_id,
		ARRAY[format('%s asks you for access.', partner_name)] || coalesce(ARRAY['It writes: ' || message], '{}')
		|| ARRAY['You may grant what it asks for, or something else, or refuse.']);
	RETURN requested;
END
$$;
COMMENT ON FUNCTION partner_portal.request_access(bigint, text, bigint[], text[], boolean, text[], timestamptz, text, bigint) IS
'Asks a workspace for access, in the name of a partner, NULL being the identity''s own; its owners get a mail and may grant as asked (accept_access), something else (counter_offer) or nothing (decline_access). For the partner''s owner or administrator, also of a workspace that it cannot see: whoever knows its id may ask. 42501; P0002; 22023; PP005 a request or offer is open; 53400.';
REVOKE ALL ON FUNCTION partner_portal.request_access(bigint, text, bigint[], text[], boolean, text[], timestamptz, text, bigint) FROM PUBLIC;

-- Parts of the functions below; they ask nobody's permission.

CREATE FUNCTION partner_portal.end_grant(ending partner_portal.access_grant, new_state text, at timestamptz, reason text) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	ended partner_portal.access_grant;
BEGIN
	UPDATE partner_portal.access_grant g
	SET state = new_state, ended_at = at, ended_by = partner_portal.current_account_id(), end_reason = reason,
		wallet_until = CASE WHEN g.wallet_since IS NOT NULL THEN coalesce(g.wallet_until, at) END
	WHERE g.workspace_id = (ending).workspace_id AND g.grant_id = (ending).grant_id AND g.state = (ending).state
	RETURNING g.* INTO ended;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('access grant %s has changed meanwhile', (ending).grant_id);
	END IF;
	DELETE FROM partner_portal.member m WHERE m.workspace_id = ended.workspace_id AND m.grant_id = ended.grant_id;
	RETURN ended;
END
$$;
COMMENT ON FUNCTION partner_portal.end_grant(partner_portal.access_grant, text, timestamptz, text) IS 'Ends a grant, and the memberships that go with it; internal.';
REVOKE ALL ON FUNCTION partner_portal.end_grant(partner_portal.access_grant, text, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.start_grant(starting partner_portal.access_grant) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	started partner_portal.access_grant;
	former partner_portal.access_grant;
	at timestamptz := clock_timestamp();
BEGIN
	SELECT g.* INTO former FROM partner_portal.access_grant g
	WHERE g.workspace_id = (starting).workspace_id AND g.partner_id = (starting).partner_id AND g.state = 'active'
	FOR UPDATE;
	IF FOUND THEN
		-- who came by the former one stays by this one
		UPDATE partner_portal.member m SET grant_id = (starting).grant_id, ends_at = (starting).expires_at,
			role = CASE (starting).scope WHEN 'complete' THEN 'member' ELSE m.role END
		WHERE m.workspace_id = former.workspace_id AND m.grant_id = former.grant_id;
		PERFORM partner_portal.end_grant(former, 'ended', at, 'replaced');
	END IF;
	IF (starting).wallet THEN
		UPDATE partner_portal.access_grant g SET wallet_until = greatest(g.wallet_since, least(at, g.expires_at))
		WHERE g.workspace_id = (starting).workspace_id AND g.wallet_since IS NOT NULL AND g.wallet_until IS NULL;
	END IF;
	UPDATE partner_portal.access_grant g
	SET state = 'active', accepted_at = at, accepted_by = partner_portal.current_account_id(), wallet_since = CASE WHEN g.wallet THEN at END
	WHERE g.workspace_id = (starting).workspace_id AND g.grant_id = (starting).grant_id AND g.state = (starting).state
	RETURNING g.* INTO started;
	IF NOT FOUND OR started.expires_at <= at THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('access grant %s is not open any more', (starting).grant_id);
	END IF;
	-- the partner's people who were members or guests already are so by the grant from now on
	UPDATE partner_portal.member m
	SET grant_id = started.grant_id, ends_at = started.expires_at, role = CASE started.scope WHEN 'complete' THEN 'member' ELSE m.role END
	WHERE m.workspace_id = started.workspace_id AND m.role IN ('member', 'guest') AND m.accepted_at IS NOT NULL AND m.grant_id IS NULL
		AND EXISTS (SELECT FROM partner_portal.member p
			WHERE p.workspace_id = started.partner_id AND p.account_id = m.account_id AND p.role IN ('owner', 'administrator') AND p.accepted_at IS NOT NULL);
	RETURN started;
END
$$;
COMMENT ON FUNCTION partner_portal.start_grant(partner_portal.access_grant) IS
'Makes an open grant active in place of the partner''s former one; the wallet moves to it; owners and administrators of the partner who were members or guests of the workspace become so by the grant, and end with it. Internal.';
REVOKE ALL ON FUNCTION partner_portal.start_grant(partner_portal.access_grant) FROM PUBLIC;

CREATE FUNCTION partner_portal.close_offer(closing partner_portal.access_grant, new_state text, account_id bigint) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	closed partner_portal.invitation;
BEGIN
	UPDATE partner_portal.invitation i
	SET state = new_state, finished_at = clock_timestamp(), account_id = CASE new_state WHEN 'accepted' THEN close_offer.account_id END,
		accepted_workspace_id = CASE new_state WHEN 'accepted' THEN i.workspace_id END
	WHERE i.workspace_id = (closing).workspace_id AND i.grant_id = (closing).grant_id AND i.state = 'pending'
	RETURNING i.* INTO closed;
	IF FOUND THEN
		PERFORM partner_portal.cancel_invitation_mail(closed);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.close_offer(partner_portal.access_grant, text, bigint) IS 'Answers the invitation of an offer that was answered or taken back without its token; internal.';
REVOKE ALL ON FUNCTION partner_portal.close_offer(partner_portal.access_grant, text, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.partys_grant(grant_id bigint, OUT side text, OUT found_grant partner_portal.access_grant)
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
	END IF;
	IF grant_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'grant_id must not be null';
	END IF;
	SELECT g.* INTO found_grant FROM partner_portal.access_grant g WHERE g.grant_id = partys_grant.grant_id;
	side := CASE WHEN found_grant.grant_id IS NULL THEN NULL
		WHEN partner_portal.is_operator() THEN 'both'
		WHEN partner_portal.may('grant_access', found_grant.workspace_id) THEN 'customer'
		WHEN partner_portal.may('manage_portals', found_grant.partner_id) THEN 'partner' END;
	IF side IS NULL THEN
		IF found_grant.grant_id IS NOT NULL AND found_grant.workspace_id = partner_portal.own_workspace('read') THEN
			RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('permission "grant_access" denied on workspace %s', found_grant.workspace_id);
		END IF;
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('access grant %s not found', grant_id);
	END IF;
	-- an end waits for nobody but those who write by the grant
	IF found_grant.state <> 'active' THEN
		PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = found_grant.workspace_id FOR NO KEY UPDATE;
	END IF;
	SELECT g.* INTO found_grant FROM partner_portal.access_grant g
	WHERE g.workspace_id = found_grant.workspace_id AND g.grant_id = found_grant.grant_id
	FOR UPDATE;
	IF found_grant.ended_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('access grant %s is %s', grant_id, found_grant.state);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.partys_grant(bigint) IS
'Returns a grant that has not ended, locked, and whose side asks: customer (its owner), partner (its owner or administrator), both (the operator). 42501, 22004, P0002; PP005 it has ended. Internal.';
REVOKE ALL ON FUNCTION partner_portal.partys_grant(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.accept_access(grant_id bigint) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked record := partner_portal.partys_grant(grant_id);
	answered partner_portal.access_grant := asked.found_grant;
BEGIN
	IF answered.state = 'active' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('access grant %s is active already', grant_id);
	END IF;
	IF asked.side <> 'both' AND asked.side <> (CASE answered.state WHEN 'offered' THEN 'partner' ELSE 'customer' END) THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('access grant %s is for the other side to accept', grant_id);
	END IF;
	PERFORM partner_portal.require_products(answered.workspace_id, CASE answered.state WHEN 'requested' THEN answered.products END);
	PERFORM partner_portal.close_offer(answered, CASE WHEN partner_portal.current_account_id() IS NULL THEN 'withdrawn' ELSE 'accepted' END, partner_portal.current_account_id());
	RETURN partner_portal.start_grant(answered);
END
$$;
COMMENT ON FUNCTION partner_portal.accept_access(bigint) IS
'Says yes to an offer (the partner''s owner or administrator) or to a request as it was asked (the customer''s owner): access exists from now on. 42501 the other side''s to say; P0002; PP005 it is active, or has ended.';
REVOKE ALL ON FUNCTION partner_portal.accept_access(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.terms_within(given partner_portal.access_grant, asked partner_portal.access_grant) RETURNS boolean
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT (given).rights <@ (asked).rights AND (coalesce((asked).wallet, false) OR NOT coalesce((given).wallet, false))
		AND coalesce((given).expires_at <= (asked).expires_at, (asked).expires_at IS NULL)
		AND CASE (asked).scope WHEN 'complete' THEN true
			ELSE (given).scope = 'limited' AND (given).products <@ (asked).products AND (given).categories <@ (asked).categories END;
END;
COMMENT ON FUNCTION partner_portal.terms_within(partner_portal.access_grant, partner_portal.access_grant) IS
'Whether what is given is no more than what was asked for, the wallet included; internal.';
REVOKE ALL ON FUNCTION partner_portal.terms_within(partner_portal.access_grant, partner_portal.access_grant) FROM PUBLIC;

CREATE FUNCTION partner_portal.counter_offer(grant_id bigint, scope text, products bigint[] DEFAULT '{}', categories text[] DEFAULT '{}',
		wallet boolean DEFAULT NULL, rights text[] DEFAULT '{read,manage}', expires_at timestamptz DEFAULT NULL) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked record := partner_portal.partys_grant(grant_id);
	request partner_portal.access_grant := asked.found_grant;
	terms partner_portal.access_grant := partner_portal.checked_terms(scope, products, categories, wallet, rights, expires_at);
	answered partner_portal.access_grant;
BEGIN
	IF asked.side = 'partner' THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('access grant %s is for the other side to answer', grant_id);
	END IF;
	IF request.state <> 'requested' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('access grant %s is no request', grant_id);
	END IF;
	PERFORM partner_portal.require_products(request.workspace_id, terms.products);
	UPDATE partner_portal.access_grant g
	SET scope = terms.scope, products = terms.products, categories = terms.categories, wallet = terms.wallet, rights = terms.rights,
		expires_at = terms.expires_at, state = 'offered'
	WHERE g.workspace_id = request.workspace_id AND g.grant_id = request.grant_id
	RETURNING g.* INTO answered;
	-- both have agreed to what lies within the request
	IF partner_portal.terms_within(terms, request) THEN
		RETURN partner_portal.start_grant(answered);
	END IF;
	PERFORM partner_portal.send_offer(answered);
	RETURN answered;
END
$$;
COMMENT ON FUNCTION partner_portal.counter_offer(bigint, text, bigint[], text[], boolean, text[], timestamptz) IS
'Answers a partner''s request with other terms. What lies within the request is active at once; anything more, the wallet say, is an offer that the partner must accept. By the customer''s owner. 42501; P0002; 22023; PP005 it is no request, or has ended.';
REVOKE ALL ON FUNCTION partner_portal.counter_offer(bigint, text, bigint[], text[], boolean, text[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.end_access(grant_id bigint, reason text DEFAULT NULL) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked record := partner_portal.partys_grant(grant_id);
	ending partner_portal.access_grant := asked.found_grant;
	new_state text;
BEGIN
	IF reason IS NOT NULL THEN
		PERFORM partner_portal.checked_reason(reason);
	END IF;
	new_state := CASE ending.state WHEN 'active' THEN 'ended'
		WHEN 'offered' THEN CASE asked.side WHEN 'partner' THEN 'declined' ELSE 'withdrawn' END
		ELSE CASE asked.side WHEN 'customer' THEN 'declined' ELSE 'withdrawn' END END;
	PERFORM partner_portal.close_offer(ending, new_state, NULL);
	RETURN partner_portal.end_grant(ending, new_state, clock_timestamp(), reason);
END
$$;
COMMENT ON FUNCTION partner_portal.end_access(bigint, text) IS
'Ends access, by the customer''s owner or the partner''s owner or administrator, at any time; an offer or request that is open is taken back or refused. It holds from the next statement of every session once it is committed, open transactions included; it waits for transactions that are writing by the grant. 42501; P0002; PP005 it has ended already.';
REVOKE ALL ON FUNCTION partner_portal.end_access(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.decline_access(grant_id bigint, reason text DEFAULT NULL) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked record := partner_portal.partys_grant(grant_id);
BEGIN
	IF (asked.found_grant).state = 'active' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('access grant %s is active already', grant_id), HINT = 'End it with end_access().';
	END IF;
	RETURN partner_portal.end_access(grant_id, reason);
END
$$;
COMMENT ON FUNCTION partner_portal.decline_access(bigint, text) IS
'Refuses an offer or a request; one''s own is taken back. 42501; P0002; PP005 it is active, or has ended.';
REVOKE ALL ON FUNCTION partner_portal.decline_access(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.extend_access(grant_id bigint, expires_at timestamptz) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked record := partner_portal.partys_grant(grant_id);
	extended partner_portal.access_grant := asked.found_grant;
BEGIN
	IF asked.side = 'partner' THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('only the owner of workspace %s may extend its access', extended.workspace_id);
	END IF;
	IF extended.state <> 'active' OR extended.expires_at <= clock_timestamp() THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('access grant %s is not active', grant_id), HINT = 'Offer access anew.';
	END IF;
	IF expires_at IS NOT NULL AND NOT (expires_at > clock_timestamp() AND expires_at < timestamptz '3000-01-01 00:00+00') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'expires_at must be in the future', HINT = 'Use end_access() to end it now.';
	END IF;
	UPDATE partner_portal.access_grant g SET expires_at = extend_access.expires_at, extended_at = clock_timestamp()
	WHERE g.workspace_id = extended.workspace_id AND g.grant_id = extended.grant_id
	RETURNING g.* INTO extended;
	UPDATE partner_portal.member m SET ends_at = extended.expires_at
	WHERE m.workspace_id = extended.workspace_id AND m.grant_id = extended.grant_id;
	RETURN extended;
END
$$;
COMMENT ON FUNCTION partner_portal.extend_access(bigint, timestamptz) IS
'Sets another expiry of active access, later or earlier; NULL lets it last until it is ended. By the customer''s owner. 42501; P0002; 22023 not in the future; PP005 it is not active any more.';
REVOKE ALL ON FUNCTION partner_portal.extend_access(bigint, timestamptz) FROM PUBLIC;

-- By the link of the mail.

CREATE FUNCTION partner_portal.accept_access_invitation(invitation partner_portal.invitation) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	offered partner_portal.access_grant;
BEGIN
	SELECT g.* INTO offered FROM partner_portal.access_grant g
	WHERE g.workspace_id = (invitation).workspace_id AND g.grant_id = (invitation).grant_id AND g.state = 'offered'
	FOR UPDATE;
	IF NOT FOUND OR offered.expires_at <= clock_timestamp() THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	PERFORM partner_portal.start_grant(offered);
	UPDATE partner_portal.access_grant g SET accepted_by = (invitation).account_id
	WHERE g.workspace_id = offered.workspace_id AND g.grant_id = offered.grant_id;
	RETURN offered.workspace_id;
END
$$;
COMMENT ON FUNCTION partner_portal.accept_access_invitation(partner_portal.invitation) IS 'Makes the grant of an invitation active; PP002 it is not offered any more. Internal.';
REVOKE ALL ON FUNCTION partner_portal.accept_access_invitation(partner_portal.invitation) FROM PUBLIC;

CREATE FUNCTION partner_portal.finish_offer(invitation partner_portal.invitation, new_state text) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE partner_portal.access_grant g SET state = new_state, ended_at = clock_timestamp(), ended_by = partner_portal.current_account_id()
	WHERE g.workspace_id = (invitation).workspace_id AND g.grant_id = (invitation).grant_id AND g.state = 'offered';
END
$$;
COMMENT ON FUNCTION partner_portal.finish_offer(partner_portal.invitation, text) IS 'Ends the offer whose invitation was declined or withdrawn; nothing for other kinds. Internal.';
REVOKE ALL ON FUNCTION partner_portal.finish_offer(partner_portal.invitation, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.consent_follows() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	just_deleted boolean := OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL;
BEGIN
	IF TG_OP = 'INSERT' AND partner_portal.restoring_session() THEN
		RETURN NULL;
	END IF;
	PERFORM partner_portal.close_offer(g, 'withdrawn', NULL),
		partner_portal.end_grant(g, CASE g.state WHEN 'active' THEN 'ended' ELSE 'withdrawn' END, clock_timestamp(),
			CASE WHEN just_deleted THEN 'deleted' WHEN NEW.kind <> OLD.kind THEN 'no partner any more' ELSE 'transferred' END)
	FROM partner_portal.access_grant g
	WHERE g.ended_at IS NULL AND (
		(g.workspace_id = NEW.workspace_id AND (just_deleted OR (NEW.partner_key <> OLD.partner_key AND g.partner_id = OLD.partner_key)))
		OR (g.partner_id = NEW.workspace_id AND (just_deleted OR NEW.kind <> OLD.kind)));
	-- the second consent was given to the partner of before
	IF NEW.partner_key <> OLD.partner_key THEN
		UPDATE partner_portal.product p SET partner_access = false WHERE p.workspace_id = NEW.workspace_id AND p.partner_access;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.consent_follows() IS
'Trigger of workspace: grants end when either side is deleted, when the partner is none any more, and with a transfer those to the partner it leaves; a transfer also closes the products to the partner.';
REVOKE ALL ON FUNCTION partner_portal.consent_follows() FROM PUBLIC;
CREATE TRIGGER consent_follows AFTER UPDATE OF partner_id, deleted_at, kind ON partner_portal.workspace
	FOR EACH ROW WHEN (OLD.partner_key <> NEW.partner_key OR OLD.kind <> NEW.kind OR OLD.deleted_at IS DISTINCT FROM NEW.deleted_at)
	EXECUTE FUNCTION partner_portal.consent_follows();

-- For tick(): neither is needed for an expiry to hold.

CREATE FUNCTION partner_portal.end_expired_access(as_of timestamptz DEFAULT now()) RETURNS integer
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	expired partner_portal.access_grant;
	ended integer := 0;
BEGIN
	PERFORM partner_portal.require_operator();
	FOR expired IN
		SELECT g.* FROM partner_portal.access_grant g
		WHERE g.ended_at IS NULL AND g.expires_at <= least(as_of, clock_timestamp())
		ORDER BY g.workspace_id, g.grant_id
		FOR UPDATE SKIP LOCKED
	LOOP
		PERFORM partner_portal.close_offer(expired, 'expired', NULL);
		PERFORM partner_portal.end_grant(expired, CASE expired.state WHEN 'active' THEN 'ended' ELSE 'withdrawn' END, expired.expires_at, 'expired');
		ended := ended + 1;
	END LOOP;
	RETURN ended;
END
$$;
COMMENT ON FUNCTION partner_portal.end_expired_access(timestamptz) IS
'Ends grants whose expiry has passed, as of their expiry, and takes the memberships that went with them; they gave nothing any more. Returns how many. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.end_expired_access(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.notify_expiring_access(as_of timestamptz DEFAULT now()) RETURNS integer
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	due record;
	noticed integer := 0;
BEGIN
	PERFORM partner_portal.require_operator();
	FOR due IN
		-- one notice, the most urgent, and none about a time that was shorter from the start
		SELECT g AS about, c.company_name AS customer, p.company_name AS partner, t.days
		FROM partner_portal.access_grant g
		JOIN partner_portal.workspace c ON c.workspace_id = g.workspace_id
		JOIN partner_portal.workspace p ON p.workspace_id = g.partner_id
		CROSS JOIN LATERAL (
			SELECT min(d.days) AS days FROM unnest(ARRAY[30, 7, 1]) d (days)
			WHERE g.expires_at - make_interval(hours => 24 * d.days) <= as_of
				AND g.expires_at - make_interval(hours => 24 * d.days) > greatest(g.accepted_at, g.extended_at)) t
		WHERE g.state = 'active' AND g.expires_at > as_of AND t.days IS NOT NULL
		ORDER BY g.workspace_id, g.grant_id
	LOOP
		PERFORM partner_portal.mail_about_grant(due.about, 'access_expiry', format('%s-%s', extract(epoch FROM (due.about).expires_at)::bigint, due.days), side.id,
			ARRAY[format('The access of %s to %s ends on %s UTC.', due.partner, due.customer, to_char((due.about).expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')),
				'The owner of the workspace can extend it.'])
		FROM unnest(ARRAY[(due.about).workspace_id, (due.about).partner_id]) side (id);
		noticed := noticed + 1;
	END LOOP;
	RETURN noticed;
END
$$;
COMMENT ON FUNCTION partner_portal.notify_expiring_access(timestamptz) IS
'Owes both sides'' owners a mail 30, 7 and 1 days before access expires, each once. Returns how many grants expire within the days that a notice is owed for. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.notify_expiring_access(timestamptz) FROM PUBLIC;

-- Runs as its owner, since each side sees the other's name; every arm is filtered by the identity's own readers. Who is merely asked
-- for access stays without a name to who asks.
CREATE VIEW partner_portal.grants WITH (security_barrier) AS
	SELECT g.grant_id, g.workspace_id,
		CASE WHEN g.workspace_id = (SELECT partner_portal.own_workspace('read')) OR g.accepted_at IS NOT NULL OR g.state = 'offered'
			OR w.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()) THEN w.company_name END AS company_name,
		g.partner_id, p.company_name AS partner_name, CASE WHEN g.state = 'active' AND g.expires_at <= now() THEN 'expired' ELSE g.state END AS state,
		g.scope, g.products, g.categories, g.wallet, g.rights, g.expires_at, g.asked, g.message, g.created_at, g.accepted_at, g.ended_at, g.end_reason,
		g.wallet_since IS NOT NULL AND g.wallet_until IS NULL AND coalesce(g.expires_at > now(), true) AS holds_wallet
	FROM partner_portal.access_grant g
	JOIN partner_portal.workspace w ON w.workspace_id = g.workspace_id
	JOIN partner_portal.workspace p ON p.workspace_id = g.partner_id
	WHERE g.workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR g.partner_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key());
COMMENT ON VIEW partner_portal.grants IS
'Requests, offers and grants of access, past ones too: those of the own workspace, and those to the own partner for its owners and administrators.';
COMMENT ON COLUMN partner_portal.grants.company_name IS 'The customer; NULL while the partner has merely asked a stranger.';
COMMENT ON COLUMN partner_portal.grants.holds_wallet IS 'Whether the partner pays the platform''s plans of periods that start now.';

-- A set operation alone is no barrier, whatever the view's options say: conditions are handed down into its arms, leaky ones too.
CREATE VIEW partner_portal.partner_products WITH (security_barrier) AS
	SELECT products.belongs_to, products.workspace_id, products.company_name, products.product_id, products.category, products.name, products.external_ref, products.partner_access, products.relation, products.created_at
	FROM (
		SELECT 'own' AS belongs_to, p.workspace_id, w.company_name, p.product_id, p.category, p.name, p.external_ref, p.partner_access, NULL::text AS relation, p.created_at
		FROM partner_portal.product p
		JOIN partner_portal.workspace w ON w.workspace_id = p.workspace_id
		WHERE p.workspace_id = (SELECT partner_portal.own_workspace('read'))
		UNION ALL
		SELECT 'customer', p.workspace_id, w.company_name, p.product_id, p.category, p.name, p.external_ref, p.partner_access, 'registered', p.created_at
		FROM partner_portal.product p
		JOIN partner_portal.workspace w ON w.workspace_id = p.workspace_id
		WHERE w.deleted_at IS NULL AND p.partner_key > 0
			AND p.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
			AND partner_portal.product_ok('read', p.workspace_id, p.product_id)
		UNION ALL
		SELECT 'customer', p.workspace_id, w.company_name, p.product_id, p.category, p.name, p.external_ref, p.partner_access,
			CASE WHEN w.partner_id = (SELECT partner_portal.current_partner_id()) THEN 'registered' ELSE 'granted' END, p.created_at
		FROM partner_portal.product p
		JOIN partner_portal.workspace w ON w.workspace_id = p.workspace_id
		WHERE w.deleted_at IS NULL AND p.workspace_id = ANY ((SELECT partner_portal.product_workspaces('read'))::bigint[])
			AND partner_portal.product_ok('read', p.workspace_id, p.product_id)
			AND NOT coalesce(p.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()), false)
	) products;
COMMENT ON VIEW partner_portal.partner_products IS
'Products that one may see: belongs_to own are those of the acting workspace; customer those of customers that let their partner near them, or granted access to them.';
COMMENT ON COLUMN partner_portal.partner_products.relation IS 'Of a customer''s: registered under the partner, or granted by the customer.';

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.grants'),
	('application', 'SELECT', 'TABLE partner_portal.partner_products'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.find_partner(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.offer_access(bigint, bigint, text, bigint[], text[], boolean, text[], timestamptz)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.request_access(bigint, text, bigint[], text[], boolean, text[], timestamptz, text, bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.accept_access(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.counter_offer(bigint, text, bigint[], text[], boolean, text[], timestamptz)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.end_access(bigint, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.decline_access(bigint, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.extend_access(bigint, timestamptz)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.end_expired_access(timestamptz)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.notify_expiring_access(timestamptz)');
-- panel.sql: what a partner looks at.

-- Runs as its owner: under the tables' own policies a count would lose its index-only scans. Each arm is filtered by the
-- identity's readers. Counts come from counters and stored usage; only a last period that is not closed yet, or that late
-- facts came to, is counted from the facts.
-- A set operation alone is no barrier, whatever the view's options say: conditions are handed down into its arms, leaky ones too.
CREATE VIEW partner_portal.partner_panel WITH (security_barrier) AS
	SELECT panel.workspace_id, panel.created_at, panel.company_name, panel.billing_period, panel.period_label, panel.total_keys, panel.active_keys, panel.key_limit, panel.smartphones, panel.contactless_cards, panel.users, panel.users_as_of, panel.last_period_keys, panel.last_invoice_date, panel.last_invoice_keys, panel.state, panel.relation, panel.last_period_smartphones, panel.last_period_contactless_cards
	FROM (
		SELECT w.workspace_id, w.created_at, w.company_name,
			tstzrange(r.period_start, r.period_end) AS billing_period, r.label AS period_label,
			c.total_keys, c.active_keys, c.key_limit,
			c.active_smartphones AS smartphones, c.active_contactless_cards AS contactless_cards,
			u.users, u.known_at AS users_as_of,
			coalesce(stored.total, live.total)::integer AS last_period_keys,
			i.invoice_date AS last_invoice_date, i.keys_billed AS last_invoice_keys,
			CASE WHEN w.deleted_at IS NOT NULL THEN 'deleted' WHEN w.suspended_at IS NOT NULL THEN 'suspended' ELSE 'active' END AS state,
			w.relation,
			coalesce(stored.smartphones, live.smartphones)::integer AS last_period_smartphones,
			coalesce(stored.contactless_cards, live.contactless_cards)::integer AS last_period_contactless_cards
		FROM (
			SELECT r.workspace_id, r.partner_id, r.partner_key, r.created_at, r.company_name, r.time_zone, r.anchor_date, r.billing_step, r.deleted_at, r.suspended_at, 'registered' AS relation
			FROM partner_portal.workspace r
			WHERE r.partner_id IS NOT NULL AND r.purged_at IS NULL
				AND r.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
			UNION ALL
			SELECT r.workspace_id, r.partner_id, r.partner_key, r.created_at, r.company_name, r.time_zone, r.anchor_date, r.billing_step, r.deleted_at, r.suspended_at,
				CASE WHEN r.partner_id = (SELECT partner_portal.current_partner_id()) THEN 'registered' ELSE 'granted' END
			FROM partner_portal.workspace r
			WHERE r.workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[]) AND r.purged_at IS NULL
				AND NOT coalesce(r.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()), false)
		) w
		JOIN partner_portal.workspace_usage c ON c.workspace_id = w.workspace_id
		LEFT JOIN LATERAL (
			SELECT b.period_start, b.period_end, b.previous_end, b.label, b.period_end > now() AS running FROM partner_portal.billing_period b
			WHERE b.workspace_id = w.workspace_id AND b.period_start <= now()
			ORDER BY b.period_start DESC LIMIT 1) p ON true
		-- the period that runs, and the one to come if it has not been opened yet
		CROSS JOIN LATERAL (
			SELECT p.period_start, p.period_end, p.label WHERE p.running
			UNION ALL
			SELECT greatest(f.period_start, p.period_end), f.period_end,
				partner_portal.period_label(greatest(f.period_start, p.period_end), f.period_end, w.time_zone)
			FROM partner_portal.billing_period_bounds(w.anchor_date, w.billing_step, w.time_zone, now()) f
			WHERE p.running IS NOT TRUE) r
		LEFT JOIN partner_portal.usage_period u ON u.workspace_id = w.workspace_id AND u.period_start = r.period_start AND u.kind = 'total'
		-- its last period, unless that was another partner's
		LEFT JOIN partner_portal.billing_period q ON q.workspace_id = w.workspace_id AND q.partner_key = w.partner_key
			AND q.period_end = CASE WHEN p.running THEN p.previous_end ELSE p.period_end END
		LEFT JOIN LATERAL (
			SELECT sum(s.distinct_keys) FILTER (WHERE s.kind = 'total') AS total,
				sum(s.distinct_keys) FILTER (WHERE s.kind = 'smartphone') AS smartphones,
				sum(s.distinct_keys) FILTER (WHERE s.kind = 'contactless_card') AS contactless_cards
			FROM partner_portal.usage_period s
			WHERE s.workspace_id = w.workspace_id AND s.period_start = q.period_start
				AND q.closed_at IS NOT NULL AND q.late_facts_at IS NULL) stored ON true
		LEFT JOIN LATERAL (
			SELECT count(DISTINCT f.key_id) AS total,
				count(DISTINCT f.key_id) FILTER (WHERE f.kind = 'smartphone') AS smartphones,
				count(DISTINCT f.key_id) FILTER (WHERE f.kind = 'contactless_card') AS contactless_cards
			FROM (
				SELECT h.key_id, h.kind FROM partner_portal.key_history h
				WHERE h.workspace_id = w.workspace_id AND h.active_until > q.period_start AND h.active_from < q.period_end
					AND NOT (q.closed_at IS NOT NULL AND q.late_facts_at IS NULL)
				UNION ALL
				SELECT k.key_id, k.kind FROM partner_portal.security_key k
				WHERE k.workspace_id = w.workspace_id AND k.status = 'active' AND k.activated_at < q.period_end
					AND NOT (q.closed_at IS NOT NULL AND q.late_facts_at IS NULL)) f) live ON q.workspace_id IS NOT NULL
		-- its last invoice that the identity may see
		LEFT JOIN LATERAL (
			SELECT d.invoice_date, d.keys_billed FROM partner_portal.invoice d
			WHERE d.workspace_id = w.workspace_id AND d.document = 'invoice' AND d.status <> 'void' AND d.status IN ('final', 'paid')
				AND (d.issuer_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
					OR d.payer_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
					OR (d.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()) AND d.partner_sees)
					OR (d.partner_key = (SELECT partner_portal.current_partner_id()) AND d.partner_sees))
			ORDER BY d.period_start DESC LIMIT 1) i ON true
		UNION ALL
		-- who let the partner near some products shows its name
		SELECT w.workspace_id, NULL, w.company_name, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
			CASE WHEN w.suspended_at IS NOT NULL THEN 'suspended' ELSE 'active' END, 'granted', NULL, NULL
		FROM partner_portal.workspace w
		WHERE w.workspace_id = ANY ((SELECT partner_portal.limited_workspaces())::bigint[]) AND w.deleted_at IS NULL
			AND NOT coalesce(w.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()), false)
			AND NOT coalesce(w.workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[]), false)
	) panel;
COMMENT ON VIEW partner_portal.partner_panel IS
'One row per customer that the identity may read: those registered under its partner (of a plain member, those it is staff of) and those that granted access. Nobody else''s.';
COMMENT ON COLUMN partner_portal.partner_panel.billing_period IS 'The customer''s current billing period [start, end).';
COMMENT ON COLUMN partner_portal.partner_panel.period_label IS 'Its first and last local date, as 2026-02-28..2026-03-30.';
COMMENT ON COLUMN partner_portal.partner_panel.key_limit IS 'The limit in force; NULL is none.';
COMMENT ON COLUMN partner_portal.partner_panel.smartphones IS 'Active smartphones.';
COMMENT ON COLUMN partner_portal.partner_panel.contactless_cards IS 'Active contactless cards.';
COMMENT ON COLUMN partner_portal.partner_panel.users IS 'Different holders of keys active in the current period, as of users_as_of; NULL until it was measured.';
COMMENT ON COLUMN partner_portal.partner_panel.last_period_keys IS 'Different keys active in the period before the current one; NULL if there is none, or it was another partner''s.';
COMMENT ON COLUMN partner_portal.partner_panel.last_invoice_date IS 'Date of the customer''s last invoice that the identity may see; void ones apart.';
COMMENT ON COLUMN partner_portal.partner_panel.last_invoice_keys IS 'Keys billed on it.';
COMMENT ON COLUMN partner_portal.partner_panel.state IS 'active, suspended or deleted.';
COMMENT ON COLUMN partner_portal.partner_panel.relation IS 'registered under the partner, or granted by the customer; of one that granted some products alone there is nothing but its name.';

CREATE FUNCTION partner_portal.partner_summary(partner_id bigint DEFAULT NULL)
	RETURNS TABLE (customers bigint, added_this_month bigint, smartphones bigint, contactless_cards bigint,
		last_period_smartphones bigint, last_period_contactless_cards bigint, users bigint, unpaid jsonb,
		active_keys bigint, last_period_keys bigint)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_summary.partner_id);
BEGIN
	RETURN QUERY
	SELECT count(*), count(*) FILTER (WHERE v.billing_period @> v.created_at),
		coalesce(sum(v.smartphones), 0), coalesce(sum(v.contactless_cards), 0),
		coalesce(sum(v.last_period_smartphones), 0), coalesce(sum(v.last_period_contactless_cards), 0),
		coalesce(sum(v.users), 0),
		coalesce((SELECT jsonb_object_agg(o.currency, o.unpaid ORDER BY o.currency) FROM (
			SELECT i.currency, sum(i.total_minor - coalesce((SELECT sum(n.total_minor) FROM partner_portal.invoice n
				WHERE n.workspace_id = i.workspace_id AND n.credits_invoice_id = i.invoice_id), 0)) AS unpaid
			FROM partner_portal.invoice i
			WHERE i.issuer_key = asked.partner_id AND i.document = 'invoice' AND i.status = 'final'
			GROUP BY i.currency) o WHERE o.unpaid <> 0), '{}'),
		coalesce(sum(v.active_keys), 0), coalesce(sum(v.last_period_keys), 0)
	FROM partner_portal.partner_panel v
	JOIN partner_portal.workspace w ON w.workspace_id = v.workspace_id
	WHERE w.partner_id = asked.partner_id AND v.relation = 'registered' AND v.state <> 'deleted';
END
$$;
COMMENT ON FUNCTION partner_portal.partner_summary(bigint) IS
'A partner''s customers in sum, NULL being the identity''s own partner: how many, how many were created in their current billing period, active keys per kind, keys of the last period per kind, users, unpaid final invoices that it issued, less their credit notes, by currency in minor units. For the partner''s owner or administrator. 42501, P0002, PP005 no partner.';
REVOKE ALL ON FUNCTION partner_portal.partner_summary(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.workspace_detail(workspace_id bigint)
	RETURNS TABLE (company_url text, created_at timestamptz, billing_period tstzrange, keys_billed integer, contactless_cards integer,
		smartphones integer, users integer, sso_enabled boolean, restrict_keys boolean, key_limit integer, limit_mode text,
		notify_new_keys boolean, notify_billing boolean, registered_with text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	period tstzrange;
BEGIN
	IF workspace_detail.workspace_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_id must not be null';
	END IF;
	PERFORM partner_portal.authorize('read', workspace_detail.workspace_id);
	period := partner_portal.find_period(workspace_detail.workspace_id, now());
	RETURN QUERY
	SELECT replace(current_setting('partner_portal.workspace_url'), '{slug}', w.slug), w.created_at, period,
		coalesce(partner_portal.bill_keys(ARRAY[partner_portal.period_row(w.workspace_id, period)]), m.distinct_keys), k.contactless_cards::integer, k.smartphones::integer, m.users, w.sso_enabled, w.restrict_keys, w.key_limit, w.limit_mode,
		w.notify_new_keys, w.notify_billing, p.company_name
	FROM partner_portal.workspace w
	LEFT JOIN partner_portal.workspace p ON p.workspace_id = w.partner_id
	CROSS JOIN LATERAL partner_portal.measure_usage(ARRAY[w.workspace_id], ARRAY[lower(period)], ARRAY[upper(period)], ARRAY[w.time_zone], NULL) m
	CROSS JOIN LATERAL (
		SELECT count(*) FILTER (WHERE s.kind = 'contactless_card') AS contactless_cards, count(*) FILTER (WHERE s.kind = 'smartphone') AS smartphones
		FROM partner_portal.security_key s
		WHERE s.workspace_id = w.workspace_id AND s.status = 'active') k
	WHERE w.workspace_id = workspace_detail.workspace_id AND m.kind = 'total';
END
$$;
COMMENT ON FUNCTION partner_portal.workspace_detail(bigint) IS
'One workspace, exact and live: keys_billed are the keys that an invoice of the current billing period would bill now, by its plan''s measure (without a plan the different keys active in it), contactless_cards and smartphones those active now, users their different holders in the period, registered_with the partner''s name. 42501, P0002 as authorize().';
REVOKE ALL ON FUNCTION partner_portal.workspace_detail(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.billing_history(workspace_id bigint)
	RETURNS TABLE (period tstzrange, label text, invoice_number text, invoice_date date, keys_billed integer, total_minor bigint,
		currency text, status text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF billing_history.workspace_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_id must not be null';
	END IF;
	PERFORM partner_portal.authorize('read', billing_history.workspace_id);
	RETURN QUERY
	SELECT tstzrange(b.period_start, b.period_end), b.label, i.invoice_number, i.invoice_date, coalesce(i.keys_billed, u.distinct_keys), i.total_minor, i.currency, i.status
	FROM partner_portal.workspace w
	JOIN partner_portal.billing_period b ON b.workspace_id = w.workspace_id
	JOIN partner_portal.usage_period u ON u.workspace_id = b.workspace_id AND u.period_start = b.period_start AND u.kind = 'total'
	LEFT JOIN LATERAL (
		SELECT d.invoice_number, d.invoice_date, d.keys_billed, d.total_minor, d.currency, d.status FROM partner_portal.invoice d
		WHERE d.workspace_id = b.workspace_id AND d.period_start = b.period_start AND d.document = 'invoice' AND partner_portal.invoice_visible(d)
		ORDER BY d.status = 'void', d.invoice_id DESC LIMIT 1) i ON true
	WHERE w.workspace_id = billing_history.workspace_id AND b.closed_at IS NOT NULL
		AND (b.partner_key = w.partner_key OR w.partner_id IS DISTINCT FROM partner_portal.current_partner_id())
	ORDER BY b.period_start DESC;
END
$$;
COMMENT ON FUNCTION partner_portal.billing_history(bigint) IS
'Every closed billing period of a workspace, newest first, one without keys or invoice too (status empty: a total of zero made no document; void: nothing took its place); invoices that the identity may not see are left out. To the customer''s partner, those since it came to it. 42501, P0002 as authorize().';
REVOKE ALL ON FUNCTION partner_portal.billing_history(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.partner_profile(partner_id bigint DEFAULT NULL)
	RETURNS TABLE (workspace_id bigint, company_name text, slug text, address text, tax_id text, time_zone text, created_at timestamptz,
		promoted_at timestamptz, customers bigint, registration_url text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_profile.partner_id);
BEGIN
	RETURN QUERY
	SELECT w.workspace_id, w.company_name, w.slug, w.address, w.tax_id, w.time_zone, w.created_at, asked.promoted_at,
		(SELECT count(*) FROM partner_portal.workspace c WHERE c.partner_key = asked.partner_id AND c.deleted_at IS NULL),
		partner_portal.registration_url(asked.partner_id)
	FROM partner_portal.workspace w
	WHERE w.workspace_id = asked.partner_id;
END
$$;
COMMENT ON FUNCTION partner_portal.partner_profile(bigint) IS
'Basic information of a partner, NULL being the identity''s own, and its registration link. For the partner''s owner or administrator. 42501, P0002, PP005 no partner.';
REVOKE ALL ON FUNCTION partner_portal.partner_profile(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.find_customers(beginning text)
	RETURNS TABLE (workspace_id bigint, company_name text, slug text, state text, relation text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
	ELSIF beginning IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'text to search for must not be null';
	ELSIF octet_length(beginning) > 1000 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'text to search for is too long';
	END IF;
	RETURN QUERY
	SELECT v.workspace_id, v.company_name, CASE WHEN v.created_at IS NOT NULL THEN w.slug END, v.state, v.relation
	FROM partner_portal.partner_panel v
	JOIN partner_portal.workspace w ON w.workspace_id = v.workspace_id
	WHERE starts_with(lower(v.company_name), lower(beginning)) OR (v.created_at IS NOT NULL AND starts_with(w.slug, lower(beginning)))
	ORDER BY v.company_name, v.workspace_id;
END
$$;
COMMENT ON FUNCTION partner_portal.find_customers(text) IS
'Customers of partner_panel whose name or slug begins with a text, without regard to case; the empty text finds all. 42501 nobody signed in.';
REVOKE ALL ON FUNCTION partner_portal.find_customers(text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.partner_panel'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.billing_period_bounds(date, text, text, timestamptz)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.period_label(timestamptz, timestamptz, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.partner_summary(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.workspace_detail(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.billing_history(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.partner_profile(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.find_customers(text)');
-- report.sql: what a reporting role reads: every tenant, no people.

CREATE FUNCTION partner_portal.is_reporting() RETURNS boolean
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN partner_portal.is_operator() OR (partner_portal.current_account_id() IS NULL AND EXISTS (
		SELECT FROM partner_portal.enrolled_role e JOIN pg_roles r ON r.rolname = e.role_name
		WHERE e.as_what = 'reporting' AND pg_has_role(partner_portal.calling_role(), r.oid, 'usage')));
END
$$;
COMMENT ON FUNCTION partner_portal.is_reporting() IS 'Whether the database role that asks was enrolled for reporting, or is a member of one that was, with nobody signed in; or the operator asks.';
REVOKE ALL ON FUNCTION partner_portal.is_reporting() FROM PUBLIC;

CREATE VIEW partner_portal.report_workspaces WITH (security_barrier) AS
	SELECT w.workspace_id, w.company_name, w.slug, w.kind, w.partner_id, p.company_name AS partner_name, w.created_at,
		CASE WHEN w.deleted_at IS NOT NULL THEN 'deleted' WHEN w.suspended_at IS NOT NULL THEN 'suspended' ELSE 'active' END AS state,
		w.time_zone, w.anchor_date, w.billing_step, c.total_keys, c.active_keys, c.active_smartphones AS smartphones,
		c.active_contactless_cards AS contactless_cards, c.key_limit
	FROM partner_portal.workspace w
	JOIN partner_portal.workspace_usage c ON c.workspace_id = w.workspace_id
	LEFT JOIN partner_portal.workspace p ON p.workspace_id = w.partner_id
	WHERE (SELECT partner_portal.is_reporting());
COMMENT ON VIEW partner_portal.report_workspaces IS 'Every workspace with its partner and its counters; for reporting roles and the operator.';
COMMENT ON COLUMN partner_portal.report_workspaces.smartphones IS 'Active smartphones.';
COMMENT ON COLUMN partner_portal.report_workspaces.contactless_cards IS 'Active contactless cards.';
COMMENT ON COLUMN partner_portal.report_workspaces.key_limit IS 'The limit in force; NULL is none.';

CREATE VIEW partner_portal.report_usage WITH (security_barrier) AS
	SELECT u.workspace_id, nullif(u.partner_key, 0) AS partner_id, tstzrange(b.period_start, b.period_end) AS period, b.label,
		b.closed_at IS NOT NULL AS closed, nullif(u.kind, 'total') AS kind, u.distinct_keys, u.peak_keys, u.peak_at, u.end_keys, u.start_keys,
		u.key_days, u.key_seconds, u.users, u.known_at
	FROM partner_portal.usage_period u
	JOIN partner_portal.billing_period b ON b.workspace_id = u.workspace_id AND b.period_start = u.period_start
	WHERE (SELECT partner_portal.is_reporting());
COMMENT ON VIEW partner_portal.report_usage IS
'Stored usage of every workspace and billing period, per kind and in total (kind NULL), with the partner of that time; of a period that is not closed, as of known_at. For reporting roles and the operator.';

CREATE VIEW partner_portal.report_invoices WITH (security_barrier) AS
	SELECT i.workspace_id, i.invoice_id, i.document, i.invoice_number, i.invoice_date, i.status, i.company_name,
		tstzrange(i.period_start, i.period_end) AS period, i.period_label, nullif(i.issuer_key, 0) AS issuer_id, i.payer_id,
		nullif(i.partner_key, 0) AS partner_id, i.plan_name, i.keys_billed, i.currency, i.subtotal_minor, i.tax_minor, i.total_minor, i.settled_at
	FROM partner_portal.invoice i
	WHERE i.status <> 'empty' AND (SELECT partner_portal.is_reporting());
COMMENT ON VIEW partner_portal.report_invoices IS
'Every invoice and credit note, drafts included, in minor units of the currency; issuer_id NULL is the platform. For reporting roles and the operator.';

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('reporting', 'EXECUTE', 'FUNCTION partner_portal.is_reporting()'),
	('reporting', 'SELECT', 'TABLE partner_portal.report_workspaces'),
	('reporting', 'SELECT', 'TABLE partner_portal.report_usage'),
	('reporting', 'SELECT', 'TABLE partner_portal.report_invoices'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.is_reporting()'),
	('operator', 'SELECT', 'TABLE partner_portal.report_workspaces'),
	('operator', 'SELECT', 'TABLE partner_portal.report_usage'),
	('operator', 'SELECT', 'TABLE partner_portal.report_invoices');
-- metrics.sql: numbers for monitoring.

CREATE VIEW partner_portal.metrics WITH (security_barrier) AS
	SELECT m.name, m.labels, m.value, m.help FROM (
		SELECT 'notifications_pending' AS name, jsonb_build_object('channel', c.channel) AS labels,
			count(q.notification_id)::numeric AS value, 'Messages not yet delivered' AS help
		FROM (VALUES ('mail'), ('webhook')) AS c (channel)
		LEFT JOIN partner_portal.delivery_queue q ON (q.destination = 0) = (c.channel = 'mail') GROUP BY c.channel
		UNION ALL
		SELECT 'notifications_in_flight', '{}', count(*), 'Messages that an engine has claimed' FROM partner_portal.delivery_queue q WHERE q.lease_token IS NOT NULL
		UNION ALL
		SELECT 'notifications_oldest_due_seconds', '{}', coalesce(round(extract(epoch FROM now() - min(q.next_attempt_at)), 3), 0), 'Longest time that a message has been due'
		FROM partner_portal.delivery_queue q WHERE q.next_attempt_at < now()
		UNION ALL
		SELECT 'notifications', jsonb_build_object('state', s.state), count(n.notification_id), 'Messages of the last 90 days by state; dead and refused ones of all time'
		FROM unnest(ARRAY['delivered', 'refused', 'dead', 'cancelled']) AS s (state)
		LEFT JOIN partner_portal.notification n ON n.state = s.state GROUP BY s.state
		UNION ALL
		SELECT 'delivery_failures_last_hour', jsonb_build_object('outcome', a.outcome), count(*), 'Attempts that failed in the last hour'
		FROM partner_portal.delivery_attempt a WHERE a.at > now() - interval '1 hour' GROUP BY a.outcome
		UNION ALL
		SELECT 'mail_relay_failures', '{}', t.failures, 'Failures of the mail relay since it last took a mail' FROM partner_portal.delivery_destination t WHERE t.destination = 0
		UNION ALL
		SELECT 'webhook_endpoints', jsonb_build_object('state', s.state), count(e.endpoint_id), 'Webhook endpoints by state'
		FROM unnest(ARRAY['active', 'paused', 'disabled']) AS s (state)
		LEFT JOIN partner_portal.webhook_endpoint e ON e.state = s.state GROUP BY s.state
	) m
	WHERE (SELECT partner_portal.is_reporting());
COMMENT ON VIEW partner_portal.metrics IS
'Numbers for monitoring, as (name, labels, value, help): the queue of messages, its age, dead letters, failures. For reporting roles and the operator.';

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('reporting', 'SELECT', 'TABLE partner_portal.metrics'),
	('operator', 'SELECT', 'TABLE partner_portal.metrics');
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
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
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
-- portal_user.sql: the users of a portal, and their attributes.
-- A portal user is an account that accepted an invitation of kind portal (invitation.sql); until then the invitation itself is
-- what there is. Attributes are defined by the partner, for all its portals; their values stand with each user.

CREATE TABLE partner_portal.portal_attribute (
	workspace_id bigint NOT NULL,
	technical_name text NOT NULL,
	label text NOT NULL,
	type text NOT NULL,
	multiple boolean NOT NULL,
	required boolean NOT NULL,
	allowed jsonb,
	created_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT portal_attribute_pkey PRIMARY KEY (workspace_id, technical_name),
	CONSTRAINT portal_attribute_partner FOREIGN KEY (workspace_id) REFERENCES partner_portal.partner (partner_id) ON DELETE CASCADE,
	CONSTRAINT portal_attribute_technical_name CHECK (technical_name ~ '^[a-z][a-z0-9_]{0,62}$' AND technical_name NOT IN ('email', 'role')),
	CONSTRAINT portal_attribute_label CHECK (length(label) BETWEEN 1 AND 200 AND label ~ '\S' AND label !~ '[\x01-\x1f\x7f]'),
	CONSTRAINT portal_attribute_type CHECK (type IN ('string', 'number', 'boolean', 'date')),
	CONSTRAINT portal_attribute_allowed CHECK (jsonb_typeof(allowed) = 'array')
);
COMMENT ON TABLE partner_portal.portal_attribute IS 'What a partner keeps about the users of its portals, to filter what they see; define_attribute() and drop_attribute(). Label and required are changed by plain UPDATE.';
COMMENT ON COLUMN partner_portal.portal_attribute.technical_name IS 'Name in attribute(), and of the column in CSV.';
COMMENT ON COLUMN partner_portal.portal_attribute.required IS 'Whether nobody is invited or changed without a value; those without one stay as they are.';
COMMENT ON COLUMN partner_portal.portal_attribute.allowed IS 'The values it may have; NULL is any of its type.';

CREATE TABLE partner_portal.portal_account (
	workspace_id bigint NOT NULL,
	portal_id bigint NOT NULL,
	account_id bigint NOT NULL,
	role text NOT NULL,
	attributes jsonb NOT NULL DEFAULT '{}',
	joined_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT portal_account_pkey PRIMARY KEY (workspace_id, portal_id, account_id),
	CONSTRAINT portal_account_portal FOREIGN KEY (workspace_id, portal_id) REFERENCES partner_portal.portal (workspace_id, portal_id) ON DELETE CASCADE,
	CONSTRAINT portal_account_account FOREIGN KEY (account_id) REFERENCES partner_portal.account,
	CONSTRAINT portal_account_role CHECK (role IN ('viewer', 'editor')),
	CONSTRAINT portal_account_attributes CHECK (jsonb_typeof(attributes) = 'object')
);
CREATE INDEX portal_account_account_id ON partner_portal.portal_account (account_id, portal_id);
COMMENT ON TABLE partner_portal.portal_account IS 'A user of a portal who has accepted; view portal_user lists them with the invited. Changed by functions only.';
COMMENT ON COLUMN partner_portal.portal_account.attributes IS 'Values by technical name: a string, number or boolean; a date as YYYY-MM-DD; an array where there may be several. Checked when they are written.';

CREATE TRIGGER acl_change AFTER INSERT OR UPDATE OR DELETE ON partner_portal.portal_account
	FOR EACH ROW EXECUTE FUNCTION partner_portal.acl_changed();
CREATE TRIGGER acl_truncate AFTER TRUNCATE ON partner_portal.portal_account
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.acl_changed();
ALTER TABLE partner_portal.portal_account ENABLE ALWAYS TRIGGER acl_change, ENABLE ALWAYS TRIGGER acl_truncate;

ALTER TABLE partner_portal.portal_attribute ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.portal_account ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.portal_attribute AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.portal_attribute FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR workspace_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));
CREATE POLICY change ON partner_portal.portal_attribute FOR UPDATE
	USING (workspace_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()))
	WITH CHECK (workspace_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

CREATE POLICY signed_in ON partner_portal.portal_account AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.portal_account FOR SELECT
	USING (account_id = (SELECT partner_portal.current_account_id())
		OR workspace_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

SELECT pg_catalog.pg_extension_config_dump('partner_portal.portal_attribute', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.portal_account', '');

-- Runs as its owner, since accounts show themselves to nobody else; every arm is filtered by the identity's own readers.
-- A set operation alone is no barrier, whatever the view's options say: conditions are handed down into its arms, leaky ones too.
CREATE VIEW partner_portal.portal_user WITH (security_barrier) AS
	SELECT users.workspace_id, users.portal_id, users.email, users.role, users.attributes, users.state, users.account_id, users.name, users.invitation_id, users.since
	FROM (
		SELECT p.workspace_id, p.portal_id, a.email, p.role, p.attributes, CASE WHEN a.disabled_at IS NULL THEN 'active' ELSE 'disabled' END AS state,
			p.account_id, a.name, NULL::bigint AS invitation_id, p.joined_at AS since
		FROM partner_portal.portal_account p
		JOIN partner_portal.account a ON a.account_id = p.account_id
		WHERE p.account_id = (SELECT partner_portal.current_account_id())
			OR p.workspace_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		UNION ALL
		SELECT i.workspace_id, i.portal_id, i.email, i.role, coalesce(i.details -> 'attributes', '{}'),
			CASE WHEN i.expires_at > now() THEN 'invited' ELSE 'expired' END, NULL, NULL, i.invitation_id, i.sent_at
		FROM partner_portal.invitation i
		WHERE i.kind = 'portal' AND i.state = 'pending'
			AND i.workspace_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
	) users;
COMMENT ON VIEW partner_portal.portal_user IS
'Users of portals and those invited, with addresses, roles and attributes: all of them for the partner''s owners and administrators, oneself for others.';
COMMENT ON COLUMN partner_portal.portal_user.state IS 'active, disabled (the account), invited, or expired (an invitation that can be sent anew).';
COMMENT ON COLUMN partner_portal.portal_user.since IS 'When the user joined, or the invitation was sent last.';

CREATE VIEW partner_portal.portals WITH (security_invoker, security_barrier) AS
	SELECT p.portal_id, p.workspace_id AS partner_id, p.name, p.technical_name,
		'https://' || p.technical_name || '.' || coalesce(current_setting('partner_portal.portal_domain', true), 'portals.example.com') || '/' AS url,
		p.color, p.logout_url, p.home_cover_url, p.group_id, p.group_name, p.created_at
	FROM partner_portal.portal p;
COMMENT ON VIEW partner_portal.portals IS 'Portals of the partner one acts in, for the operator of all; for a portal user the one it acts in.';

CREATE VIEW partner_portal.my_portals WITH (security_barrier) AS
	SELECT p.portal_id, p.name, 'https://' || p.technical_name || '.' || coalesce(current_setting('partner_portal.portal_domain', true), 'portals.example.com') || '/' AS url, a.role,
		p.portal_id IS NOT DISTINCT FROM (SELECT partner_portal.current_portal_id()) AS acting
	FROM partner_portal.portal_account a
	JOIN partner_portal.portal p ON p.workspace_id = a.workspace_id AND p.portal_id = a.portal_id
	JOIN partner_portal.workspace w ON w.workspace_id = p.workspace_id
	WHERE a.account_id = (SELECT partner_portal.current_account_id()) AND w.deleted_at IS NULL;
COMMENT ON VIEW partner_portal.my_portals IS 'Portals that the identity is a user of, wherever it acts; act_in_portal() chooses among them. Those of a deleted partner are left out.';

CREATE FUNCTION partner_portal.attribute(technical_name text) RETURNS text[]
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_attribute';
COMMENT ON FUNCTION partner_portal.attribute(text) IS
'Values of an attribute of the identity in the acting portal, as text (a number without needless zeros, a date as YYYY-MM-DD, true or false); NULL when it has none, or without an acting portal. For policies: column = ANY ((SELECT partner_portal.attribute(''tenant''))::text[]) shows no row then. What is in force is the latest commit, as with privileges.';
REVOKE ALL ON FUNCTION partner_portal.attribute(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.attribute_value(type text, value text) RETURNS jsonb
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT CASE type
		WHEN 'string' THEN CASE WHEN length(value) <= 1000 AND value !~ '[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]' THEN to_jsonb(value) END
		WHEN 'number' THEN CASE WHEN value ~ '^\s*[+-]?([0-9]{1,30}(\.[0-9]{0,20})?|\.[0-9]{1,20})\s*$' THEN to_jsonb(trim_scale(value::numeric)) END
		WHEN 'boolean' THEN CASE lower(btrim(value)) WHEN 'true' THEN jsonb 'true' WHEN 'yes' THEN jsonb 'true' WHEN '1' THEN jsonb 'true'
			WHEN 'false' THEN jsonb 'false' WHEN 'no' THEN jsonb 'false' WHEN '0' THEN jsonb 'false' END
		WHEN 'date' THEN CASE WHEN value ~ '^\s*(19|2[0-9])[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])\s*$'
			THEN CASE WHEN substr(btrim(value), 9, 2)::integer <=
				extract(day FROM make_date(left(btrim(value), 4)::integer, substr(btrim(value), 6, 2)::integer, 1) + interval '1 month - 1 day')
				THEN to_jsonb(btrim(value)) END END
		END;
END;
COMMENT ON FUNCTION partner_portal.attribute_value(text, text) IS
'A value of an attribute''s type in its one form, NULL if it is none: a string of at most 1000 characters; a number of at most 30 digits and 20 decimals; true, false, yes, no, 1 or 0; a date YYYY-MM-DD of 1900 to 2999. Internal.';
REVOKE ALL ON FUNCTION partner_portal.attribute_value(text, text) FROM PUBLIC;

-- One value for a name may be given as text, so that CSV needs no types.
CREATE FUNCTION partner_portal.checked_attributes(workspace_id bigint, given jsonb, kept jsonb, OUT attributes jsonb, OUT problem text) RETURNS SETOF record
	LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
	SELECT coalesce(jsonb_object_agg(c.technical_name, c.value) FILTER (WHERE c.value IS NOT NULL), '{}'),
		coalesce((SELECT 'unknown attribute "' || left(min(k), 63) || '"' FROM jsonb_object_keys(given) k
				WHERE NOT EXISTS (SELECT FROM partner_portal.portal_attribute d WHERE d.workspace_id = checked_attributes.workspace_id AND d.technical_name = k)),
			min(CASE WHEN c.problem IS NOT NULL THEN 'attribute "' || c.technical_name || '" ' || c.problem END))
	FROM (
		SELECT d.technical_name,
			CASE WHEN g.key IS NULL THEN kept -> d.technical_name WHEN v.n = 0 THEN NULL WHEN d.multiple THEN v.list ELSE v.list -> 0 END AS value,
			CASE WHEN CASE WHEN g.key IS NULL THEN kept -> d.technical_name IS NULL ELSE v.n = 0 END THEN CASE WHEN d.required THEN 'is required' END
				WHEN g.key IS NULL THEN NULL
				WHEN v.n > 100 THEN 'has more than 100 values'
				WHEN v.n > 1 AND NOT d.multiple THEN 'has one value only'
				WHEN v.bad THEN CASE d.type WHEN 'string' THEN 'is not a text of at most 1000 characters' WHEN 'number' THEN 'is not a number'
					WHEN 'boolean' THEN 'is neither true nor false' ELSE 'is not a date (YYYY-MM-DD)' END
				WHEN NOT d.allowed @> v.list THEN 'has a value that is not allowed'
			END AS problem
		FROM partner_portal.portal_attribute d
		LEFT JOIN jsonb_each(given) g ON g.key = d.technical_name
		CROSS JOIN LATERAL (
			SELECT count(*) AS n, jsonb_agg(e.value ORDER BY e.place) AS list, bool_or(e.value IS NULL) AS bad
			FROM (
				SELECT CASE WHEN jsonb_typeof(r.value) NOT IN ('object', 'array') THEN partner_portal.attribute_value(d.type, r.value #>> '{}') END AS value, r.place
				FROM jsonb_array_elements(CASE jsonb_typeof(g.value) WHEN 'array' THEN g.value ELSE jsonb_build_array(g.value) END) WITH ORDINALITY AS r (value, place)
				WHERE r.value NOT IN (jsonb 'null', jsonb '""')
			) e
		) v
		WHERE d.workspace_id = checked_attributes.workspace_id
	) c;
END;
COMMENT ON FUNCTION partner_portal.checked_attributes(bigint, jsonb, jsonb) IS
'One row: the attributes that a portal user of a partner has when some are given and the others kept, each value in its one form; or what is wrong with them. An empty text, an empty array or null takes a value away. Internal.';
REVOKE ALL ON FUNCTION partner_portal.checked_attributes(bigint, jsonb, jsonb) FROM PUBLIC;

CREATE FUNCTION partner_portal.define_attribute(partner_id bigint, technical_name text, label text, type text, multiple boolean DEFAULT false,
		required boolean DEFAULT false, allowed jsonb DEFAULT NULL) RETURNS partner_portal.portal_attribute
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_id);
	values_allowed jsonb;
	made partner_portal.portal_attribute;
BEGIN
	PERFORM partner_portal.authorized_live_workspace('manage_portals', asked.partner_id);
	PERFORM partner_portal.checked_text('technical_name', technical_name, 63);
	PERFORM partner_portal.checked_text('label', label, 200);
	PERFORM partner_portal.checked_text('type', type, 63);
	IF multiple IS NULL OR required IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'multiple and required must not be null';
	END IF;
	IF technical_name !~ '^[a-z][a-z0-9_]*$' OR technical_name IN ('email', 'role') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('technical name "%s" is not valid', technical_name),
			HINT = 'It has a to z, 0 to 9 and underscores, begins with a letter, and is neither email nor role.';
	END IF;
	IF type NOT IN ('string', 'number', 'boolean', 'date') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown type "%s"', type),
			HINT = 'Types are string, number, boolean and date.';
	END IF;
	IF jsonb_typeof(allowed) <> 'null' THEN
		IF jsonb_typeof(allowed) <> 'array' OR jsonb_array_length(allowed) NOT BETWEEN 1 AND 1000 THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'allowed must be an array of 1 to 1000 values';
		END IF;
		SELECT jsonb_agg(v.value ORDER BY v.place) INTO values_allowed
		FROM (SELECT CASE WHEN jsonb_typeof(e) NOT IN ('object', 'array', 'null') AND e <> '""' THEN partner_portal.attribute_value(type, e #>> '{}') END AS value, place
			FROM jsonb_array_elements(allowed) WITH ORDINALITY AS t (e, place)) v;
		IF values_allowed @> 'null' THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('allowed has a value that is not a %s', type);
		END IF;
	END IF;
	INSERT INTO partner_portal.portal_attribute AS d (workspace_id, technical_name, label, type, multiple, required, allowed)
	VALUES (asked.partner_id, define_attribute.technical_name, define_attribute.label, define_attribute.type, define_attribute.multiple,
		define_attribute.required, values_allowed)
	ON CONFLICT ON CONSTRAINT portal_attribute_pkey DO NOTHING
	RETURNING d.* INTO made;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = format('attribute "%s" is defined already', technical_name);
	END IF;
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.define_attribute(bigint, text, text, text, boolean, boolean, jsonb) IS
'Defines what a partner keeps about the users of all its portals: type string, number, boolean or date; multiple for several values; required; allowed, an array of the values it may have. For the partner''s owner or administrator. 42501, P0002; 22004, 22001, 22023; 23505 it is defined; PP005 no partner, or deleted.';
REVOKE ALL ON FUNCTION partner_portal.define_attribute(bigint, text, text, text, boolean, boolean, jsonb) FROM PUBLIC;

CREATE FUNCTION partner_portal.drop_attribute(partner_id bigint, technical_name text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_id);
BEGIN
	IF technical_name IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'technical_name must not be null';
	END IF;
	DELETE FROM partner_portal.portal_attribute d WHERE d.workspace_id = asked.partner_id AND d.technical_name = drop_attribute.technical_name;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = 'attribute not found';
	END IF;
	UPDATE partner_portal.portal_account p SET attributes = p.attributes - drop_attribute.technical_name
	WHERE p.workspace_id = asked.partner_id AND p.attributes ? drop_attribute.technical_name;
	UPDATE partner_portal.invitation i SET details = i.details #- ARRAY['attributes', drop_attribute.technical_name]
	WHERE i.workspace_id = asked.partner_id AND i.kind = 'portal' AND i.state = 'pending' AND i.details -> 'attributes' ? drop_attribute.technical_name;
END
$$;
COMMENT ON FUNCTION partner_portal.drop_attribute(bigint, text) IS
'Drops an attribute with its values: attribute() is NULL for it then, and policies that ask for it show no row. For the partner''s owner or administrator. 42501, 22004; P0002 none of that name; PP005 no partner.';
REVOKE ALL ON FUNCTION partner_portal.drop_attribute(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.check_portal_user(role text, attributes jsonb) RETURNS void
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.checked_text('role', role, 64);
	IF role NOT IN ('viewer', 'editor') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown role "%s"', role),
			HINT = 'Roles of portal users are viewer and editor.';
	END IF;
	IF attributes IS NULL OR jsonb_typeof(attributes) <> 'object' THEN
		RAISE EXCEPTION USING ERRCODE = CASE WHEN attributes IS NULL THEN 'null_value_not_allowed' ELSE 'invalid_parameter_value' END,
			MESSAGE = 'attributes must be a JSON object';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.check_portal_user(text, jsonb) IS 'Returns when role and attributes of a portal user have the right form. 22004, 22001, 22023. Internal.';
REVOKE ALL ON FUNCTION partner_portal.check_portal_user(text, jsonb) FROM PUBLIC;

CREATE FUNCTION partner_portal.portal_for_users(portal_id bigint) RETURNS partner_portal.portal
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.portal := partner_portal.authorized_portal('manage_portals', portal_id);
BEGIN
	PERFORM partner_portal.authorized_live_workspace('manage_portals', asked.workspace_id);
	-- one at a time; whoever deletes the portal has it for itself
	PERFORM FROM partner_portal.portal p WHERE p.workspace_id = asked.workspace_id AND p.portal_id = asked.portal_id FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('portal %s not found', portal_id);
	END IF;
	RETURN asked;
END
$$;
COMMENT ON FUNCTION partner_portal.portal_for_users(bigint) IS
'Returns a portal whose users the identity may change, locked against other changes of its users. 42501, 22004, P0002; PP005 its partner is deleted. Internal.';
REVOKE ALL ON FUNCTION partner_portal.portal_for_users(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.invite_portal_user(portal_id bigint, email text, role text, attributes jsonb DEFAULT '{}') RETURNS partner_portal.invitation
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.portal := partner_portal.portal_for_users(portal_id);
	wanted partner_portal.invitation;
	checked record;
BEGIN
	PERFORM partner_portal.check_portal_user(role, attributes);
	wanted.workspace_id := asked.workspace_id;
	wanted.kind := 'portal';
	wanted.portal_id := asked.portal_id;
	wanted.email := partner_portal.checked_email(email);
	wanted.role := role;
	SELECT c.* INTO checked FROM partner_portal.checked_attributes(asked.workspace_id, attributes, '{}') c;
	IF checked.problem IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = checked.problem;
	END IF;
	wanted.details := jsonb_build_object('attributes', checked.attributes);
	IF EXISTS (SELECT FROM partner_portal.portal_account p JOIN partner_portal.account a ON a.account_id = p.account_id
		WHERE p.workspace_id = asked.workspace_id AND p.portal_id = asked.portal_id
			AND lower(a.email COLLATE "C") = lower(invite_portal_user.email COLLATE "C"))
	THEN
		RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = format('this address is a user of portal %s already', portal_id),
			HINT = 'Use change_portal_user() to change its role and attributes.';
	END IF;
	RETURN partner_portal.create_invitation(wanted);
END
$$;
COMMENT ON FUNCTION partner_portal.invite_portal_user(bigint, text, text, jsonb) IS
'Invites an address to a portal as viewer or editor, with attributes by technical name. Who accepts is a user of the portal, and no member of a workspace. For the partner''s owner or administrator. 42501, P0002; 22004, 22001, 22023; 23505 it is a user or invited already; 53400 too many in an hour; PP005 the partner is deleted.';
REVOKE ALL ON FUNCTION partner_portal.invite_portal_user(bigint, text, text, jsonb) FROM PUBLIC;

CREATE FUNCTION partner_portal.accept_portal_invitation(invitation partner_portal.invitation, account_id bigint) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	INSERT INTO partner_portal.portal_account AS p (workspace_id, portal_id, account_id, role, attributes)
	SELECT w.workspace_id, (invitation).portal_id, accept_portal_invitation.account_id, (invitation).role, coalesce((invitation).details -> 'attributes', '{}')
	FROM partner_portal.workspace w
	JOIN partner_portal.portal l ON l.workspace_id = w.workspace_id AND l.portal_id = (invitation).portal_id
	WHERE w.workspace_id = (invitation).workspace_id AND w.deleted_at IS NULL
	ON CONFLICT ON CONSTRAINT portal_account_pkey DO UPDATE SET role = excluded.role, attributes = excluded.attributes;
	IF NOT FOUND THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.accept_portal_invitation(partner_portal.invitation, bigint) IS
'Makes the invited account a user of the portal; one that is already (it took the invited address meanwhile) gets the invited role and attributes. Internal.';
REVOKE ALL ON FUNCTION partner_portal.accept_portal_invitation(partner_portal.invitation, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.change_portal_user(portal_id bigint, email text, role text DEFAULT NULL, attributes jsonb DEFAULT '{}') RETURNS partner_portal.portal_user
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.portal := partner_portal.portal_for_users(portal_id);
	found_user partner_portal.portal_user;
	checked record;
BEGIN
	PERFORM partner_portal.check_portal_user(coalesce(role, 'viewer'), attributes);
	PERFORM partner_portal.checked_email(email);
	SELECT u.* INTO found_user FROM partner_portal.portal_user u
	WHERE u.workspace_id = asked.workspace_id AND u.portal_id = asked.portal_id AND lower(u.email COLLATE "C") = lower(change_portal_user.email COLLATE "C")
	ORDER BY u.account_id LIMIT 1;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('this address is no user of portal %s', portal_id);
	END IF;
	SELECT c.* INTO checked FROM partner_portal.checked_attributes(asked.workspace_id, attributes, found_user.attributes) c;
	IF checked.problem IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = checked.problem;
	END IF;
	found_user.role := coalesce(role, found_user.role);
	found_user.attributes := checked.attributes;
	UPDATE partner_portal.portal_account p SET role = found_user.role, attributes = found_user.attributes
	WHERE p.workspace_id = asked.workspace_id AND p.portal_id = asked.portal_id AND p.account_id = found_user.account_id;
	UPDATE partner_portal.invitation i SET role = found_user.role, details = i.details || jsonb_build_object('attributes', found_user.attributes)
	WHERE i.workspace_id = asked.workspace_id AND i.invitation_id = found_user.invitation_id;
	RETURN found_user;
END
$$;
COMMENT ON FUNCTION partner_portal.change_portal_user(bigint, text, text, jsonb) IS
'Changes a portal user, or one who is invited: role NULL stays; attributes that are named get the value given, null or empty takes it away, the others stay. For the partner''s owner or administrator; holds from the user''s next statement on. 42501; P0002 no such portal or user; 22004, 22001, 22023; PP005 the partner is deleted.';
REVOKE ALL ON FUNCTION partner_portal.change_portal_user(bigint, text, text, jsonb) FROM PUBLIC;

CREATE FUNCTION partner_portal.remove_portal_user(portal_id bigint, email text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.portal := partner_portal.portal_for_users(portal_id);
	found_user partner_portal.portal_user;
BEGIN
	PERFORM partner_portal.checked_email(email);
	FOR found_user IN SELECT u.* FROM partner_portal.portal_user u
		WHERE u.workspace_id = asked.workspace_id AND u.portal_id = asked.portal_id AND lower(u.email COLLATE "C") = lower(remove_portal_user.email COLLATE "C")
	LOOP
		DELETE FROM partner_portal.portal_account p
		WHERE p.workspace_id = asked.workspace_id AND p.portal_id = asked.portal_id AND p.account_id = found_user.account_id;
		IF found_user.invitation_id IS NOT NULL THEN
			PERFORM partner_portal.withdraw_invitation(found_user.invitation_id);
		END IF;
	END LOOP;
	IF found_user.email IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('this address is no user of portal %s', portal_id);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.remove_portal_user(bigint, text) IS
'Removes a user from a portal from the next statement of every session on; an invitation is withdrawn. Reports it made stay. For the partner''s owner or administrator. 42501; P0002 no such portal or user; 22004, 22023; PP005 the partner is deleted.';
REVOKE ALL ON FUNCTION partner_portal.remove_portal_user(bigint, text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.portal_attribute'),
	('application', 'UPDATE (label, required)', 'TABLE partner_portal.portal_attribute'),
	('application', 'SELECT', 'TABLE partner_portal.portal_account'),
	('application', 'SELECT', 'TABLE partner_portal.portal_user'),
	('application', 'SELECT', 'TABLE partner_portal.portals'),
	('application', 'SELECT', 'TABLE partner_portal.my_portals'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.attribute(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.define_attribute(bigint, text, text, text, boolean, boolean, jsonb)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.drop_attribute(bigint, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.invite_portal_user(bigint, text, text, jsonb)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.change_portal_user(bigint, text, text, jsonb)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.remove_portal_user(bigint, text)');
-- portal_user_csv.sql: the users of a portal as a CSV file, out and in.

CREATE FUNCTION partner_portal.csv_lines(csv text, max_records integer DEFAULT NULL, OUT line integer, OUT fields text[], OUT problem text) RETURNS SETOF record
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'partner_portal_csv_lines';
COMMENT ON FUNCTION partner_portal.csv_lines(text, integer) IS
'Records of a CSV text (RFC 4180; any line ends, a byte order mark is left out, empty lines too), each with the line it begins on; an empty field without quotes is NULL. A quote that is not closed is a problem of the record it opens in, the last one then. Internal.';
REVOKE ALL ON FUNCTION partner_portal.csv_lines(text, integer) FROM PUBLIC;

-- Spreadsheets take a cell that begins so for a formula. An apostrophe before it makes it text, here as there; it is not part of the
-- value, and a value that begins with apostrophes and such a character gets one more.
CREATE FUNCTION partner_portal.shielded_cell(value text) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN CASE WHEN value ~ '^''*[=+@\t\r-]' THEN '''' || value ELSE value END;
COMMENT ON FUNCTION partner_portal.shielded_cell(text) IS 'A text for a CSV cell that no spreadsheet takes for a formula; unshielded_cell() is the way back. Internal.';
REVOKE ALL ON FUNCTION partner_portal.shielded_cell(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.unshielded_cell(cell text) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN CASE WHEN cell ~ '^''+[=+@\t\r-]' THEN substr(cell, 2) ELSE cell END;
COMMENT ON FUNCTION partner_portal.unshielded_cell(text) IS 'The text of a CSV cell as shielded_cell() writes it. Internal.';
REVOKE ALL ON FUNCTION partner_portal.unshielded_cell(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.attribute_cell(value jsonb, type text) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT CASE WHEN type = 'string' THEN partner_portal.shielded_cell(c.cell) ELSE c.cell END
	FROM (
		SELECT CASE jsonb_typeof(value)
			WHEN 'array' THEN (SELECT string_agg(regexp_replace(e, '([;\\])', '\\\1', 'g'), ';' ORDER BY n) FROM jsonb_array_elements_text(value) WITH ORDINALITY AS t (e, n))
			ELSE value #>> '{}' END AS cell
	) c;
END;
COMMENT ON FUNCTION partner_portal.attribute_cell(jsonb, text) IS
'A value of an attribute as a CSV cell: several are parted by semicolons, a semicolon or backslash within one has a backslash before it. Internal.';
REVOKE ALL ON FUNCTION partner_portal.attribute_cell(jsonb, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.cell_values(cell text) RETURNS jsonb
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT coalesce(jsonb_agg(to_jsonb(regexp_replace(m[1], '\\(.)', '\1', 'g'))), '[]')
	FROM regexp_matches(partner_portal.unshielded_cell(cell), '((?:[^;\\]|\\.|\\$)*)(?:;|$)', 'g') AS m
	WHERE m[1] <> '';
END;
COMMENT ON FUNCTION partner_portal.cell_values(text) IS 'Values in a CSV cell as attribute_cell() writes several, as a JSON array of texts. Internal.';
REVOKE ALL ON FUNCTION partner_portal.cell_values(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.portal_users_csv(portal_id bigint) RETURNS text
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.portal := partner_portal.authorized_portal('manage_portals', portal_id);
	heading text;
	lines text;
BEGIN
	SELECT 'email,role' || coalesce(string_agg(',' || d.technical_name, '' ORDER BY d.technical_name), '') INTO heading
	FROM partner_portal.portal_attribute d WHERE d.workspace_id = asked.workspace_id;
	SELECT string_agg(partner_portal.csv_field(partner_portal.shielded_cell(u.email)) || ',' || u.role
		|| coalesce((SELECT string_agg(',' || partner_portal.csv_field(coalesce(partner_portal.attribute_cell(u.attributes -> d.technical_name, d.type), '')), '' ORDER BY d.technical_name)
			FROM partner_portal.portal_attribute d WHERE d.workspace_id = asked.workspace_id), '') || E'\r\n', '' ORDER BY lower(u.email COLLATE "C"))
	INTO lines
	FROM partner_portal.portal_user u
	WHERE u.workspace_id = asked.workspace_id AND u.portal_id = asked.portal_id;
	RETURN heading || E'\r\n' || coalesce(lines, '');
END
$$;
COMMENT ON FUNCTION partner_portal.portal_users_csv(bigint) IS
'Users of a portal and those invited, as bulk_update_portal_users() takes them: CSV (RFC 4180), columns email, role and the attributes by technical name. For the partner''s owner or administrator. 42501, 22004, P0002.';
REVOKE ALL ON FUNCTION partner_portal.portal_users_csv(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.csv_heading_problem(workspace_id bigint, columns text[]) RETURNS text
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT CASE
		WHEN columns IS NULL THEN 'there is no heading'
		WHEN EXISTS (SELECT FROM unnest(columns) c WHERE c IS NULL OR c = '') THEN 'a column has no name'
		WHEN 'email' <> ALL (columns) THEN 'column "email" is missing'
		WHEN 'role' <> ALL (columns) THEN 'column "role" is missing'
		ELSE coalesce(
			(SELECT 'column "' || left(c, 63) || '" is there twice' FROM unnest(columns) c GROUP BY c HAVING count(*) > 1 ORDER BY c LIMIT 1),
			(SELECT 'unknown column "' || left(c, 63) || '"' FROM unnest(columns) WITH ORDINALITY AS t (c, n)
				WHERE c NOT IN ('email', 'role') AND NOT EXISTS (SELECT FROM partner_portal.portal_attribute d
					WHERE d.workspace_id = csv_heading_problem.workspace_id AND d.technical_name = c)
				ORDER BY n LIMIT 1))
		END;
END;
COMMENT ON FUNCTION partner_portal.csv_heading_problem(bigint, text[]) IS 'What is wrong with the columns of a file of portal users; NULL if nothing is. Internal.';
REVOKE ALL ON FUNCTION partner_portal.csv_heading_problem(bigint, text[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.bulk_update_portal_users(portal_id bigint, csv text, dry_run boolean DEFAULT false, on_error text DEFAULT 'abort',
		OUT line integer, OUT email text, OUT outcome text, OUT message text) RETURNS SETOF record
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	asked partner_portal.portal := partner_portal.portal_for_users(portal_id);
	heading record;
	columns text[];
	email_at integer;
	role_at integer;
BEGIN
	IF csv IS NULL OR dry_run IS NULL OR on_error IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'csv, dry_run and on_error must not be null';
	END IF;
	IF on_error NOT IN ('abort', 'skip') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'on_error must be abort or skip';
	END IF;
	SELECT l.line, l.fields, l.problem INTO heading FROM partner_portal.csv_lines(csv, 1) l;
	columns := ARRAY(SELECT lower(btrim(c)) FROM unnest(heading.fields) WITH ORDINALITY AS t (c, n) ORDER BY n);
	columns := CASE WHEN cardinality(columns) > 0 THEN columns END;
	message := coalesce(heading.problem, partner_portal.csv_heading_problem(asked.workspace_id, columns));
	IF message IS NOT NULL THEN
		line := coalesce(heading.line, 1);
		outcome := 'error';
		RETURN NEXT;
		RETURN;
	END IF;
	email_at := array_position(columns, 'email');
	role_at := array_position(columns, 'role');

	RETURN QUERY
	WITH attribute_column AS MATERIALIZED (
		SELECT c.n, d.technical_name, d.multiple FROM unnest(columns) WITH ORDINALITY AS c (name, n)
		JOIN partner_portal.portal_attribute d ON d.workspace_id = asked.workspace_id AND d.technical_name = c.name
	), entry AS (
		SELECT l.line, left(partner_portal.unshielded_cell(btrim(l.fields[email_at])), 321) AS email, lower(btrim(l.fields[role_at])) AS role,
			(SELECT coalesce(jsonb_object_agg(a.technical_name, CASE WHEN l.fields[a.n] IS NULL THEN jsonb 'null'
				WHEN a.multiple THEN partner_portal.cell_values(l.fields[a.n]) ELSE to_jsonb(partner_portal.unshielded_cell(l.fields[a.n])) END), '{}') FROM attribute_column a) AS given,
			CASE WHEN l.problem IS NOT NULL THEN l.problem
				WHEN cardinality(l.fields) <> cardinality(columns) THEN format('there are %s fields for %s columns', cardinality(l.fields), cardinality(columns))
			END AS problem
		FROM partner_portal.csv_lines(csv) l WHERE l.line > heading.line
	), verdict AS MATERIALIZED (
		SELECT e.line, e.email, e.role, c.attributes, p.account_id, i.invitation_id, CASE
				WHEN e.problem IS NOT NULL THEN e.problem
				WHEN coalesce(e.email, '') = '' THEN 'there is no e-mail address'
				WHEN octet_length(e.email) > 320 OR e.email !~ '^[A-Za-z0-9.!#$%&''*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$'
					THEN 'this is not an e-mail address'
				WHEN e.line > first_value(e.line) OVER same THEN format('this address is on line %s already', first_value(e.line) OVER same)
				WHEN e.role IS NULL OR e.role NOT IN ('viewer', 'editor') THEN 'role must be viewer or editor'
				ELSE c.problem END AS problem,
			coalesce(p.role, i.role) IS NOT DISTINCT FROM e.role AND coalesce(p.attributes, i.details -> 'attributes', '{}') = c.attributes AS same
		FROM entry e
		LEFT JOIN partner_portal.account a ON lower(a.email COLLATE "C") = lower(e.email COLLATE "C")
		LEFT JOIN partner_portal.portal_account p ON p.workspace_id = asked.workspace_id AND p.portal_id = asked.portal_id AND p.account_id = a.account_id
		LEFT JOIN partner_portal.invitation i ON i.workspace_id = asked.workspace_id AND i.portal_id = asked.portal_id AND i.kind = 'portal' AND i.state = 'pending'
			AND p.account_id IS NULL AND lower(i.email COLLATE "C") = lower(e.email COLLATE "C")
		CROSS JOIN LATERAL partner_portal.checked_attributes(asked.workspace_id, CASE WHEN e.problem IS NULL THEN e.given ELSE '{}' END,
			coalesce(p.attributes, i.details -> 'attributes', '{}')) c
		WINDOW same AS (PARTITION BY lower(e.email COLLATE "C") ORDER BY e.line)
	), step AS MATERIALIZED (
		SELECT min(v.line) FILTER (WHERE v.problem IS NOT NULL) AS bad_line,
			NOT dry_run AND (on_error = 'skip' OR count(v.problem) = 0) AS taken
		FROM verdict v
	), changed_user AS (
		UPDATE partner_portal.portal_account p SET role = v.role, attributes = v.attributes
		FROM verdict v, step s
		WHERE s.taken AND v.problem IS NULL AND NOT v.same AND p.workspace_id = asked.workspace_id AND p.portal_id = asked.portal_id AND p.account_id = v.account_id
	), changed_invitation AS (
		UPDATE partner_portal.invitation i SET role = v.role, details = i.details || jsonb_build_object('attributes', v.attributes)
		FROM verdict v, step s
		WHERE s.taken AND v.problem IS NULL AND NOT v.same AND i.workspace_id = asked.workspace_id AND i.invitation_id = v.invitation_id
	), invited AS MATERIALIZED (
		SELECT count(partner_portal.create_invitation(wanted => jsonb_populate_record(NULL::partner_portal.invitation,
			jsonb_build_object('workspace_id', asked.workspace_id, 'kind', 'portal', 'portal_id', asked.portal_id, 'email', v.email, 'role', v.role,
				'details', jsonb_build_object('attributes', v.attributes))), capped => false)) AS n
		FROM verdict v, step s
		WHERE s.taken AND v.problem IS NULL AND v.account_id IS NULL AND v.invitation_id IS NULL
	)
	SELECT v.line, left(v.email, 320), CASE WHEN v.problem IS NOT NULL THEN 'error' WHEN v.account_id IS NULL AND v.invitation_id IS NULL THEN 'invited' WHEN v.same THEN 'unchanged' ELSE 'updated' END,
		CASE WHEN v.problem IS NOT NULL THEN v.problem WHEN NOT s.taken AND NOT dry_run THEN format('nothing was done, since line %s is in error', s.bad_line) END
	FROM verdict v, step s, invited
	ORDER BY v.line;
END
$$;
COMMENT ON FUNCTION partner_portal.bulk_update_portal_users(bigint, text, boolean, text) IS
'Invites and changes users of a portal by a CSV file (RFC 4180; byte order mark, any line ends): columns email, role (viewer or editor) and any attributes by technical name, in any order. Who is neither a user nor invited is invited; who is gets the role and the attributes of the columns that are there, an empty cell takes a value away. Several values are parted by semicolons (\; is one within a value). An apostrophe before = + - @, a tab or CR shields text from spreadsheets and is not part of the value.
One row per line that is not empty, with the line it begins on: outcome invited, updated, unchanged or error, and a message. With on_error abort nothing is done when any line is in error, and every message says so; skip does the others. dry_run does nothing and says what would be. A bad heading is one error, and nothing is done. Invitations made so are not counted by partner_portal.invitations_per_hour.
For the partner''s owner or administrator. 42501, P0002; 22004, 22023; PP005 the partner is deleted.';
REVOKE ALL ON FUNCTION partner_portal.bulk_update_portal_users(bigint, text, boolean, text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.portal_users_csv(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.bulk_update_portal_users(bigint, text, boolean, text)');
-- isolation.sql: the same row-level isolation on an application's own tables, and a look for holes in it.
-- What isolate() did is read from the catalog: the policies are called partner_portal_*, and depend on the columns they ask about.

CREATE FUNCTION partner_portal.visible_workspaces(permission text) RETURNS bigint[]
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_visible_workspaces';
COMMENT ON FUNCTION partner_portal.visible_workspaces(text) IS
'Workspaces on which one has the permission: one''s own, those of which one runs the partner, those of a complete grant or an assignment; for the operator all there are. For policies of tables without partner_key.';
REVOKE ALL ON FUNCTION partner_portal.visible_workspaces(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.lowest_workspace(permission text) RETURNS bigint
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_lowest_workspace';
COMMENT ON FUNCTION partner_portal.lowest_workspace(text) IS
'Least of visible_workspaces(); NULL if there is none. For policies: with highest_workspace() a range, which the planner takes for small, as it does not a list.';
REVOKE ALL ON FUNCTION partner_portal.lowest_workspace(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.highest_workspace(permission text) RETURNS bigint
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_highest_workspace';
COMMENT ON FUNCTION partner_portal.highest_workspace(text) IS
'Greatest of visible_workspaces(); see lowest_workspace().';
REVOKE ALL ON FUNCTION partner_portal.highest_workspace(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.portal_workspace_id() RETURNS bigint
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_portal_workspace_id';
COMMENT ON FUNCTION partner_portal.portal_workspace_id() IS 'Partner of the portal one acts in; NULL without one. For policies.';
REVOKE ALL ON FUNCTION partner_portal.portal_workspace_id() FROM PUBLIC;

CREATE FUNCTION partner_portal.checked_relation(relation regclass) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	kind "char";
	space name;
BEGIN
	IF relation IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'relation must not be null';
	END IF;
	SELECT c.relkind, n.nspname INTO kind, space FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
	IF kind IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_table', MESSAGE = format('relation with OID %s does not exist', relation::oid);
	END IF;
	IF kind NOT IN ('r', 'p') THEN
		RAISE EXCEPTION USING ERRCODE = 'wrong_object_type', MESSAGE = format('%s is not a table', relation),
			HINT = 'A view over an isolated table is isolated when it is made WITH (security_invoker).';
	END IF;
	IF space IN ('partner_portal', 'pg_catalog', 'information_schema', 'pg_toast') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('%s is not a table of the application', relation);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.checked_relation(regclass) IS 'Returns for a table of the application, partitioned or not. 22004, 42P01, 42809; 42501 ours or the system''s. Internal.';
REVOKE ALL ON FUNCTION partner_portal.checked_relation(regclass) FROM PUBLIC;

CREATE FUNCTION partner_portal.attribute_condition(relation regclass, column_name name, technical_name text) RETURNS text
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	type oid := (SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = column_name AND a.attnum > 0 AND NOT a.attisdropped);
	conversion text;
BEGIN
	IF type IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_column', MESSAGE = format('column "%s" of relation %s does not exist', column_name, relation),
			HINT = 'attributes is an object of columns with their attributes, or an array of names that are both.';
	END IF;
	IF technical_name IS NULL OR technical_name !~ '^[a-z][a-z0-9_]{0,62}$' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('technical name "%s" is not valid', left(technical_name, 63));
	END IF;
	-- a conversion must not fail, whatever the attribute is; it is made once per statement
	conversion := CASE type::regtype::text
		WHEN 'text' THEN '' WHEN 'character varying' THEN ''
		WHEN 'bigint' THEN 'CASE WHEN v ~ ''^-?[0-9]{1,18}$'' THEN v::bigint END'
		WHEN 'integer' THEN 'CASE WHEN v ~ ''^-?[0-9]{1,18}$'' THEN v::bigint END'
		WHEN 'smallint' THEN 'CASE WHEN v ~ ''^-?[0-9]{1,18}$'' THEN v::bigint END'
		WHEN 'boolean' THEN 'CASE v WHEN ''true'' THEN true WHEN ''false'' THEN false END'
		WHEN 'uuid' THEN 'CASE WHEN v ~ ''^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$'' THEN v::uuid END'
		WHEN 'date' THEN 'CASE WHEN v ~ ''^(19|2[0-9])[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$'' THEN make_date(left(v, 4)::integer, substr(v, 6, 2)::integer, 1) + (substr(v, 9, 2)::integer - 1) END'
		END;
	IF conversion IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'datatype_mismatch', MESSAGE = format('column "%s" of relation %s has type %s', column_name, relation, type::regtype),
			HINT = 'An attribute is compared with text, varchar, smallint, integer, bigint, boolean, date or uuid.';
	END IF;
	RETURN CASE WHEN conversion = '' THEN format('%I = ANY ((SELECT partner_portal.attribute(%L))::text[])', column_name, technical_name)
		ELSE format('%I = ANY (ARRAY(SELECT %s FROM pg_catalog.unnest(partner_portal.attribute(%L)) AS u (v)))', column_name, conversion, technical_name) END;
END
$$;
COMMENT ON FUNCTION partner_portal.attribute_condition(regclass, name, text) IS 'The condition that a column has a value of an attribute. 42703, 22023; 42804 a type without a conversion. Internal.';
REVOKE ALL ON FUNCTION partner_portal.attribute_condition(regclass, name, text) FROM PUBLIC;

-- Which columns the policies of a table ask about: its workspace column first.
CREATE FUNCTION partner_portal.isolated_columns(relation regclass) RETURNS smallint[]
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT array_agg(d.refobjsubid::smallint ORDER BY d.read DESC, d.refobjsubid)
	FROM (
		SELECT d.refobjsubid, bool_or(p.polname = 'partner_portal_read') AS read
		FROM pg_catalog.pg_policy p
		JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_policy'::regclass AND d.objid = p.oid
			AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = p.polrelid AND d.refobjsubid > 0
		WHERE p.polrelid = isolated_columns.relation AND p.polname IN ('partner_portal_read', 'partner_portal_attributes')
		GROUP BY d.refobjsubid
	) d;
END;
COMMENT ON FUNCTION partner_portal.isolated_columns(regclass) IS 'Column numbers that an isolated table''s policies ask about, that of the workspace first; NULL if it is not isolated. Internal.';
REVOKE ALL ON FUNCTION partner_portal.isolated_columns(regclass) FROM PUBLIC;

CREATE FUNCTION partner_portal.missing_index(relation regclass) RETURNS text
	LANGUAGE sql STABLE
BEGIN ATOMIC
	-- with attributes, an index that begins with the workspace and one of them serves both
	SELECT format('CREATE INDEX ON %s (%s)', missing_index.relation, string_agg(quote_ident(a.attname), ', ' ORDER BY w.n))
	FROM unnest((partner_portal.isolated_columns(missing_index.relation))[:2]) WITH ORDINALITY AS w (attnum, n)
	JOIN pg_catalog.pg_attribute a ON a.attrelid = missing_index.relation AND a.attnum = w.attnum
	WHERE NOT EXISTS (
		SELECT FROM pg_catalog.pg_index i
		JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
		JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname = 'btree'
		WHERE i.indrelid = missing_index.relation AND i.indisvalid AND i.indpred IS NULL
			AND i.indkey[0] = (partner_portal.isolated_columns(missing_index.relation))[1]
			AND (cardinality(partner_portal.isolated_columns(missing_index.relation)) = 1
				OR i.indkey[1] = ANY ((partner_portal.isolated_columns(missing_index.relation))[2:])))
	HAVING count(*) > 0;
END;
COMMENT ON FUNCTION partner_portal.missing_index(regclass) IS 'The statement for the index that an isolated table lacks; NULL if it has one. Internal.';
REVOKE ALL ON FUNCTION partner_portal.missing_index(regclass) FROM PUBLIC;

CREATE FUNCTION partner_portal.isolate(relation regclass, workspace_column name, attributes jsonb DEFAULT NULL, write_permission text DEFAULT 'manage_products') RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	type oid;
	ours CONSTANT text := '(%1$I BETWEEN (SELECT partner_portal.lowest_workspace(%2$L)) AND (SELECT partner_portal.highest_workspace(%2$L))'
		' AND %1$I = ANY ((SELECT partner_portal.visible_workspaces(%2$L))::bigint[]))';
	readable text;
	writable text;
	filtered text;
	part regclass;
	policy record;
	index_needed text;
BEGIN
	PERFORM partner_portal.checked_relation(relation);
	IF workspace_column IS NULL OR write_permission IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_column and write_permission must not be null';
	END IF;
	PERFORM partner_portal.may(write_permission, 0);
	SELECT a.atttypid INTO type FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = workspace_column AND a.attnum > 0 AND NOT a.attisdropped;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_column', MESSAGE = format('column "%s" of relation %s does not exist', workspace_column, relation);
	END IF;
	IF type NOT IN ('bigint'::regtype, 'integer'::regtype) THEN
		RAISE EXCEPTION USING ERRCODE = 'datatype_mismatch', MESSAGE = format('column "%s" of relation %s has type %s', workspace_column, relation, type::regtype),
			HINT = 'A workspace_id is a bigint.';
	END IF;
	readable := format(ours, workspace_column, 'read');
	writable := format(ours, workspace_column, write_permission);
	IF jsonb_typeof(attributes) <> 'null' THEN
		IF jsonb_typeof(attributes) = 'array' AND NOT EXISTS (SELECT FROM jsonb_array_elements(attributes) e WHERE jsonb_typeof(e) <> 'string') THEN
			attributes := (SELECT jsonb_object_agg(e, e) FROM jsonb_array_elements_text(attributes) e);
		END IF;
		IF attributes IS NULL OR jsonb_typeof(attributes) <> 'object' OR attributes = '{}'
			OR EXISTS (SELECT FROM jsonb_each(attributes) e WHERE jsonb_typeof(e.value) <> 'string')
		THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'attributes must name at least one attribute',
				HINT = 'It is an object of columns with their attributes, or an array of names that are both.';
		END IF;
		SELECT format('%I = (SELECT partner_portal.portal_workspace_id())', workspace_column)
			|| string_agg(' AND ' || partner_portal.attribute_condition(relation, e.key::name, e.value), '' ORDER BY e.key)
		INTO filtered FROM jsonb_each_text(attributes) e;
	END IF;

	-- a partition that is asked itself does not have its parent's policies
	FOR part IN SELECT t.relid FROM pg_partition_tree(relation) t UNION SELECT relation
	LOOP
		FOR policy IN SELECT p.polname FROM pg_policy p WHERE p.polrelid = part AND p.polname LIKE 'partner\_portal\_%' LOOP
			EXECUTE format('DROP POLICY %I ON %s', policy.polname, part);
		END LOOP;
		EXECUTE format('CREATE POLICY partner_portal_signed_in ON %s AS RESTRICTIVE USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
			WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL)', part);
		EXECUTE format('CREATE POLICY partner_portal_read ON %s FOR SELECT USING (%s)', part, readable);
		EXECUTE format('CREATE POLICY partner_portal_insert ON %s FOR INSERT WITH CHECK (%s)', part, writable);
		EXECUTE format('CREATE POLICY partner_portal_update ON %s FOR UPDATE USING (%s) WITH CHECK (%s)', part, writable, writable);
		EXECUTE format('CREATE POLICY partner_portal_delete ON %s FOR DELETE USING (%s)', part, writable);
		IF filtered IS NOT NULL THEN
			EXECUTE format('CREATE POLICY partner_portal_attributes ON %s FOR SELECT USING (%s)', part, filtered);
		END IF;
		EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', part);
	END LOOP;
	index_needed := partner_portal.missing_index(relation);
	IF index_needed IS NOT NULL THEN
		RAISE NOTICE USING MESSAGE = format('relation %s has no index for its policies', relation), HINT = index_needed || ';';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.isolate(regclass, name, jsonb, text) IS
'Puts the isolation of our own tables on one of the application''s, and on its partitions: rows are read by those who have read on the workspace in workspace_column (bigint or integer), and written by those who have write_permission there; nobody else, nobody at all without an identity, the owner of the table included. Superusers and BYPASSRLS roles are not bound.
attributes opens the table to portal users, for reading: an object of columns with attributes, {"tenant": "tenant_id"}, or an array of names that are both. They see the rows of their portal''s partner in which every such column has one of their values; without a value, none. Without attributes they see no row. Columns are text, varchar, smallint, integer, bigint, boolean, date or uuid.
Repeating it replaces what it did. Privileges stay as they are: grant the application''s role SELECT, INSERT, UPDATE and DELETE as it needs, never TRUNCATE, TRIGGER or REFERENCES, and nothing on partitions. A NOTICE names the index that is missing. A partition made later needs isolate() again; check_isolation() finds it.
By the owner of the table. 42501, 22004, 42P01; 42703 no such column; 42804 its type; 42809 no table; 22023.';
REVOKE ALL ON FUNCTION partner_portal.isolate(regclass, name, jsonb, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.release(relation regclass) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	part regclass;
	policy record;
BEGIN
	PERFORM partner_portal.checked_relation(relation);
	IF NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = relation AND p.polname LIKE 'partner\_portal\_%') THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('%s is not isolated', relation);
	END IF;
	FOR part IN SELECT t.relid FROM pg_partition_tree(relation) t UNION SELECT relation
	LOOP
		FOR policy IN SELECT p.polname FROM pg_policy p WHERE p.polrelid = part AND p.polname LIKE 'partner\_portal\_%' LOOP
			EXECUTE format('DROP POLICY %I ON %s', policy.polname, part);
		END LOOP;
		IF NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = part) THEN
			EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', part);
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION partner_portal.release(regclass) IS
'Takes what isolate() did off a table and its partitions: whoever has privileges on it sees every row again. Row level security stays on where there are other policies. By the owner of the table. 42501, 22004, 42P01, 42809; PP005 it is not isolated.';
REVOKE ALL ON FUNCTION partner_portal.release(regclass) FROM PUBLIC;

-- Estimates of what the catalog holds are far off, and compiling for them would take longer than all the rest.
CREATE FUNCTION partner_portal.check_isolation() RETURNS TABLE (object text, problem text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
BEGIN
	PERFORM partner_portal.require_operator();
	RETURN QUERY
	WITH RECURSIVE own_object AS (
		SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'partner_portal'
		WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	), isolated AS (
		SELECT DISTINCT p.polrelid AS oid, true AS application FROM pg_policy p WHERE p.polname LIKE 'partner\_portal\_%'
		UNION
		SELECT t.relid, true FROM pg_policy p, pg_partition_tree(p.polrelid) t WHERE p.polname LIKE 'partner\_portal\_%'
		UNION
		SELECT h.inhrelid, true FROM pg_policy p JOIN pg_inherits h ON h.inhparent = p.polrelid WHERE p.polname LIKE 'partner\_portal\_%'
		UNION
		SELECT c.oid, false FROM pg_class c JOIN own_object o ON o.classid = 'pg_class'::regclass AND o.objid = c.oid
		WHERE c.relkind IN ('r', 'p') AND c.relname NOT IN ('role_grant', 'enrolled_role', 'acl_signal')
	), pool AS (
		SELECT r.oid, r.rolname, bool_or(e.as_what IN ('trusted_application', 'operator')) AS trusted, bool_and(e.as_what = 'operator') AS operator
		FROM partner_portal.enrolled_role e JOIN pg_roles r ON r.rolname = e.role_name GROUP BY r.oid, r.rolname
	), seen AS (
		-- what reads an isolated table, through any number of views
		SELECT v.oid, v.relkind, i.oid AS source FROM isolated i
		JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = i.oid AND d.classid = 'pg_rewrite'::regclass
		JOIN pg_rewrite w ON w.oid = d.objid JOIN pg_class v ON v.oid = w.ev_class AND v.oid <> i.oid AND v.relkind IN ('v', 'm')
		UNION
		SELECT v.oid, v.relkind, s.source FROM seen s
		JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid AND d.classid = 'pg_rewrite'::regclass
		JOIN pg_rewrite w ON w.oid = d.objid JOIN pg_class v ON v.oid = w.ev_class AND v.oid <> s.oid AND v.relkind IN ('v', 'm')
	), finding AS (
		SELECT c.oid::regclass::text AS object, CASE WHEN NOT c.relrowsecurity THEN 'row level security is off' ELSE 'row level security is not forced on the owner' END AS problem
		FROM isolated i JOIN pg_class c ON c.oid = i.oid WHERE NOT (c.relrowsecurity AND c.relforcerowsecurity)
		UNION ALL
		SELECT c.oid::regclass::text, 'policy "' || n.name || '" is missing'
		FROM isolated i JOIN pg_class c ON c.oid = i.oid, unnest(ARRAY['partner_portal_signed_in', 'partner_portal_read', 'partner_portal_insert', 'partner_portal_update', 'partner_portal_delete']) n (name)
		WHERE i.application AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = n.name)
		UNION ALL
		SELECT i.oid::regclass::text, 'policy "signed_in" is missing'
		FROM isolated i WHERE NOT i.application AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = i.oid AND p.polpermissive) AND i.oid <> to_regclass('partner_portal.account')
			AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = i.oid AND p.polname = 'signed_in' AND NOT p.polpermissive AND p.polcmd = '*')
		UNION ALL
		SELECT p.polrelid::regclass::text, 'policy "' || p.polname || '" lets more through'
		FROM isolated i JOIN pg_policy p ON p.polrelid = i.oid
		WHERE p.polpermissive AND CASE WHEN i.application THEN p.polname NOT LIKE 'partner\_portal\_%'
			ELSE NOT EXISTS (SELECT FROM pg_depend d JOIN own_object o ON o.classid = d.refclassid AND o.objid = d.refobjid
				WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_proc'::regclass) AND p.polrelid <> to_regclass('partner_portal.currency') END
		UNION ALL
		SELECT i.oid::regclass::text, 'has no index for its policies: ' || partner_portal.missing_index(i.oid)
		FROM isolated i WHERE i.application AND partner_portal.missing_index(i.oid) IS NOT NULL AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.oid)
		UNION ALL
		SELECT i.oid::regclass::text, 'trigger "' || t.tgname || '" does not fire always, so that revocations may not hold'
		FROM isolated i JOIN pg_trigger t ON t.tgrelid = i.oid WHERE NOT i.application AND t.tgname LIKE 'acl\_%' AND t.tgenabled <> 'A'
		UNION ALL
		SELECT i.oid::regclass::text, CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE 'role "' || r.rolname || '"' END || ' has ' || g.privilege_type || ' on it'
		FROM isolated i JOIN pg_class c ON c.oid = i.oid CROSS JOIN aclexplode(c.relacl) g LEFT JOIN pg_roles r ON r.oid = g.grantee
		WHERE g.grantee <> c.relowner AND (g.privilege_type IN ('TRUNCATE', 'TRIGGER', 'REFERENCES') OR (g.grantee = 0 AND NOT i.application))
			AND (g.grantee = 0 OR EXISTS (SELECT FROM pool p WHERE pg_has_role(p.oid, g.grantee, 'MEMBER')))
		UNION ALL
		SELECT 'role "' || p.rolname || '"', 'owns ' || c.oid::regclass || ', or is a member of its owner'
		FROM pool p, isolated i JOIN pg_class c ON c.oid = i.oid
		WHERE NOT p.operator AND pg_has_role(p.oid, c.relowner, 'MEMBER') AND NOT EXISTS (SELECT FROM pg_roles s WHERE s.oid = p.oid AND s.rolsuper)
		UNION ALL
		SELECT 'role "' || p.rolname || '"', CASE WHEN r.oid = p.oid THEN 'is ' ELSE 'may become role "' || r.rolname || '", which is ' END
			|| CASE WHEN r.rolsuper THEN 'a superuser' ELSE 'a role with BYPASSRLS' END
		FROM pool p JOIN pg_roles r ON (r.rolsuper OR r.rolbypassrls) AND CASE WHEN (SELECT s.rolsuper FROM pg_roles s WHERE s.oid = p.oid) THEN r.oid = p.oid ELSE pg_has_role(p.oid, r.oid, 'MEMBER') END
		WHERE NOT p.operator
		UNION ALL
		SELECT 'role "' || p.rolname || '"', 'is a member of ' || r.rolname
		FROM pool p JOIN pg_roles r ON r.rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program') AND pg_has_role(p.oid, r.oid, 'MEMBER')
		WHERE NOT p.operator AND NOT (SELECT s.rolsuper FROM pg_roles s WHERE s.oid = p.oid)
		UNION ALL
		SELECT 'role "' || p.rolname || '"', 'may create ' || x.what
		FROM pool p, LATERAL (SELECT 'temporary tables, which outlive an identity: REVOKE TEMPORARY ON DATABASE ' || quote_ident(current_database()) || ' FROM PUBLIC' AS what
				WHERE has_database_privilege(p.oid, current_database(), 'TEMPORARY')
			UNION ALL SELECT 'objects in schema partner_portal' WHERE has_schema_privilege(p.oid, 'partner_portal', 'CREATE')) x
		WHERE NOT p.operator AND NOT (SELECT s.rolsuper FROM pg_roles s WHERE s.oid = p.oid)
		UNION ALL
		SELECT 'role "' || p.rolname || '"', 'may set ' || s.name
		FROM pool p, unnest(ARRAY['session_replication_role', 'partner_portal.restoring', 'partner_portal.allow_drop']) s (name)
		WHERE NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = p.oid) AND has_parameter_privilege(p.oid, s.name, 'SET')
		UNION ALL
		SELECT 'role "' || p.rolname || '"', 'may sign anybody in with login_as(), though it is not a trusted application'
		FROM pool p WHERE NOT p.trusted AND has_function_privilege(p.oid, 'partner_portal.login_as(bigint)', 'EXECUTE') AND NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = p.oid)
		UNION ALL
		SELECT DISTINCT s.oid::regclass::text, CASE WHEN s.relkind = 'm' THEN 'materialized view keeps rows of ' ELSE 'view reads with its owner''s rights, not security_invoker, from ' END || min(s.source::regclass::text) OVER (PARTITION BY s.oid)
		FROM seen s JOIN pg_class v ON v.oid = s.oid
		WHERE (s.relkind = 'm' OR NOT EXISTS (SELECT FROM pg_options_to_table(v.reloptions) t WHERE t.option_name = 'security_invoker' AND t.option_value::boolean))
			AND NOT EXISTS (SELECT FROM own_object o WHERE o.classid = 'pg_class'::regclass AND o.objid = s.oid)
		UNION ALL
		SELECT f.oid::regprocedure::text, 'runs as role "' || r.rolname || '", whom row level security does not bind, and role "' || p.rolname || '" may call it'
		FROM pg_proc f JOIN pg_roles r ON r.oid = f.proowner AND (r.rolsuper OR r.rolbypassrls) JOIN pool p ON has_function_privilege(p.oid, f.oid, 'EXECUTE') AND NOT p.operator
		WHERE f.prosecdef AND f.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
			AND has_schema_privilege(p.oid, f.pronamespace, 'USAGE')
			AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.deptype = 'e')
		UNION ALL
		SELECT f.oid::regprocedure::text, 'PUBLIC may call it'
		FROM pg_proc f JOIN own_object o ON o.classid = 'pg_proc'::regclass AND o.objid = f.oid
		WHERE EXISTS (SELECT FROM aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) g WHERE g.grantee = 0)
		UNION ALL
		SELECT f.oid::regprocedure::text, 'a policy asks it, and it must be STABLE, PARALLEL SAFE and LEAKPROOF'
		FROM pg_proc f JOIN own_object o ON o.classid = 'pg_proc'::regclass AND o.objid = f.oid
		WHERE (f.provolatile <> 's' OR f.proparallel <> 's' OR NOT f.proleakproof)
			AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_policy'::regclass AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = f.oid)
		UNION ALL
		SELECT c.oid::regclass::text, 'refers to workspaces and is not isolated, and role "' || min(p.rolname) || '" may read it'
		FROM pg_class c JOIN pool p ON has_any_column_privilege(p.oid, c.oid, 'SELECT') AND NOT p.operator
		WHERE c.relkind IN ('r', 'p', 'f') AND NOT c.relrowsecurity AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'partner_portal'::regnamespace)
			AND has_schema_privilege(p.oid, c.relnamespace, 'USAGE') AND c.oid NOT IN (SELECT i.oid FROM isolated i)
			AND (EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.confrelid IN (SELECT i.oid FROM isolated i))
				OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'workspace_id' AND NOT a.attisdropped))
		GROUP BY c.oid
	)
	SELECT DISTINCT f.object COLLATE "C", f.problem COLLATE "C" FROM finding f ORDER BY 1, 2;
END
$$;
COMMENT ON FUNCTION partner_portal.check_isolation() IS
'Names every hole found in the isolation of our tables, of those isolate() is used on, and of the enrolled roles: row level security off or not forced, policies missing or added, indexes missing, roles that own tables, bypass row security, may become somebody who does, or may make temporary tables; views and materialized views that read with other rights, SECURITY DEFINER functions that do, privileges too many, tables that refer to workspaces and are not isolated. No row is no hole. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.check_isolation() FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.visible_workspaces(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.lowest_workspace(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.highest_workspace(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.portal_workspace_id()'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.checked_relation(regclass)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.attribute_condition(regclass, name, text)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.isolated_columns(regclass)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.missing_index(regclass)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.isolate(regclass, name, jsonb, text)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.release(regclass)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.check_isolation()');
-- portal_page.sql: a portal's login page and home page as HTML. SQL/XML functions write them, so that every value is escaped; no
-- script, nothing loaded from elsewhere but the cover picture. No element but void ones may be empty: HTML does not know <p/>.
-- The application serves them and answers what they link to: POST login (email, password), report/<id>.

CREATE FUNCTION partner_portal.text_on(color text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
	-- relative luminance of sRGB as WCAG 2 defines it; its contrast with black is (l + 0.05) / 0.05, with white 1.05 / (l + 0.05)
	SELECT CASE WHEN (sum(c.weight * CASE WHEN c.value <= 0.04045 THEN c.value / 12.92 ELSE power((c.value + 0.055) / 1.055, 2.4) END) + 0.05) ^ 2 > 1.05 * 0.05
		THEN '#000000' ELSE '#ffffff' END
	FROM (SELECT get_byte(decode(substr(text_on.color, 2), 'hex'), n)::numeric / 255 AS value, (ARRAY[0.2126, 0.7152, 0.0722])[n + 1] AS weight
		FROM generate_series(0, 2) AS n) c;
END;
COMMENT ON FUNCTION partner_portal.text_on(text) IS
'Colour of text on a background #rrggbb: black or white, whichever has more contrast, which is 4.58:1 at the least (WCAG 2 asks for 4.5).';
REVOKE ALL ON FUNCTION partner_portal.text_on(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.portal_page(title text, color text, body xml) RETURNS text
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT E'<!DOCTYPE html>\n' || xmlserialize(CONTENT xmlelement(name html, xmlattributes('en' AS lang),
		xmlelement(name head,
			xmlelement(name meta, xmlattributes('utf-8' AS charset)),
			xmlelement(name meta, xmlattributes('viewport' AS name, 'width=device-width, initial-scale=1' AS content)),
			xmlelement(name meta, xmlattributes('Content-Security-Policy' AS "http-equiv",
				'default-src ''none''; style-src ''unsafe-inline''; img-src http: https:; form-action ''self''; base-uri ''none''' AS content)),
			xmlelement(name meta, xmlattributes('referrer' AS name, 'no-referrer' AS content)),
			xmlelement(name title, title),
			xmlelement(name style,
				'*{box-sizing:border-box}html{font:100%/1.5 system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;color:#1c2430;background:#fff}'
				'body{margin:0;overflow-wrap:anywhere}a{color:#0b3d91}:focus-visible{outline:3px solid #1c2430;outline-offset:2px;box-shadow:0 0 0 6px #fff}'
				'.brand{background:' || color || ';color:' || partner_portal.text_on(color) || '}.brand a{color:inherit}'
				'.skip{position:absolute;left:-10000px;top:0;background:#fff;color:#1c2430;padding:.5rem 1rem}.skip:focus{left:0}'
				'.login{min-height:100vh;display:flex;flex-direction:column;align-items:center;justify-content:center;gap:1.5rem;padding:1.5rem 1rem}'
				'.login h1{margin:0;font-size:2rem;line-height:1.2;text-align:center;max-width:60rem}'
				'.card{background:#fff;color:#1c2430;width:100%;max-width:24rem;padding:2rem;border-radius:.75rem;border:1px solid #5a6676}'
				'label{display:block;font-weight:600;margin:0 0 .25rem}input{display:block;width:100%;font:inherit;padding:.6rem .75rem;margin:0 0 1.25rem;border:1px solid #5a6676;border-radius:.4rem;background:#fff;color:#1c2430}'
				'button{width:100%;font:inherit;font-weight:600;padding:.7rem 1rem;border:2px solid #1c2430;border-radius:.4rem;cursor:pointer}button[disabled]{cursor:default}'
				'.bar{display:flex;flex-wrap:wrap;gap:.5rem 1.5rem;align-items:center;justify-content:space-between;padding:1rem 1.5rem}'
				'.bar h1{margin:0;font-size:1.35rem;line-height:1.3}.cover{display:block;width:100%;height:16rem;object-fit:cover}'
				'main.home{max-width:72rem;margin:0 auto;padding:1.5rem}.folders{display:grid;gap:1.25rem;grid-template-columns:repeat(auto-fill,minmax(min(18rem,100%),1fr))}'
				'.folders section{border:1px solid #c3cad4;border-radius:.75rem;padding:1.25rem}.folders h3{margin:0 0 .5rem;font-size:1.05rem}.folders ul{margin:0;padding-left:1.25rem}.none{color:#5a6676;margin:0}'
				'@media(max-width:40rem){.card{padding:1.25rem}.login h1{font-size:1.5rem}.cover{height:9rem}main.home{padding:1rem}}')),
		xmlelement(name body, body)) AS text);
END;
COMMENT ON FUNCTION partner_portal.portal_page(text, text, xml) IS 'A complete HTML page in a portal''s colour. Internal.';
REVOKE ALL ON FUNCTION partner_portal.portal_page(text, text, xml) FROM PUBLIC;

CREATE FUNCTION partner_portal.login_part(name text, live boolean) RETURNS xml
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT xmlelement(name div, xmlattributes('login brand' AS class),
		xmlelement(name h1, name),
		xmlelement(name form, xmlattributes('card' AS class, 'post' AS method, CASE WHEN live THEN '/login' END AS action, 'Sign in' AS "aria-label"),
			xmlelement(name label, xmlattributes('email' AS for), 'E-mail address'),
			xmlelement(name input, xmlattributes('email' AS id, 'email' AS name, 'email' AS type, 'username' AS autocomplete, 'off' AS autocapitalize, 320 AS maxlength, 'required' AS required)),
			xmlelement(name label, xmlattributes('password' AS for), 'Password'),
			xmlelement(name input, xmlattributes('password' AS id, 'password' AS name, 'password' AS type, 'current-password' AS autocomplete, 'required' AS required)),
			xmlelement(name button, xmlattributes('brand' AS class, 'submit' AS type, CASE WHEN NOT live THEN 'disabled' END AS disabled), 'Sign in')));
END;
COMMENT ON FUNCTION partner_portal.login_part(text, boolean) IS 'The form of a login page; one that is not live can''t be sent. Internal.';
REVOKE ALL ON FUNCTION partner_portal.login_part(text, boolean) FROM PUBLIC;

CREATE FUNCTION partner_portal.home_part(name text, logout_url text, home_cover_url text, folders xml) RETURNS xml
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT xmlconcat(
		xmlelement(name header, xmlattributes('bar brand' AS class),
			xmlelement(name h1, name),
			xmlelement(name nav, xmlattributes('Account' AS "aria-label"), xmlelement(name a, xmlattributes(logout_url AS href), 'Log out'))),
		CASE WHEN home_cover_url IS NOT NULL THEN xmlelement(name img, xmlattributes('cover' AS class, home_cover_url AS src, '' AS alt)) END,
		xmlelement(name main, xmlattributes('home' AS class, 'main' AS id, -1 AS tabindex),
			xmlelement(name h2, 'Reports'),
			CASE WHEN folders IS NULL THEN xmlelement(name p, xmlattributes('none' AS class), 'Nothing has been shared yet.')
				ELSE xmlelement(name div, xmlattributes('folders' AS class), folders) END));
END;
COMMENT ON FUNCTION partner_portal.home_part(text, text, text, xml) IS 'Head and content of a home page. Internal.';
REVOKE ALL ON FUNCTION partner_portal.home_part(text, text, text, xml) FROM PUBLIC;

CREATE FUNCTION partner_portal.portal_login_page(technical_name text) RETURNS text
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	shown partner_portal.portal;
BEGIN
	IF technical_name IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'technical_name must not be null';
	END IF;
	SELECT p.* INTO shown FROM partner_portal.portal p
	JOIN partner_portal.workspace w ON w.workspace_id = p.workspace_id
	WHERE p.technical_name = lower(portal_login_page.technical_name) AND w.deleted_at IS NULL;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = 'portal not found';
	END IF;
	RETURN partner_portal.portal_page('Sign in – ' || shown.name, shown.color, xmlelement(name main, partner_portal.login_part(shown.name, true)));
END
$$;
COMMENT ON FUNCTION partner_portal.portal_login_page(text) IS
'The login page of the portal with that technical name (any case), as a complete HTML page: name and colour, a form that is sent to /login by POST with email and password. For anybody: it is shown before one signs in. P0002 there is none, or its partner is deleted; 22004.';
REVOKE ALL ON FUNCTION partner_portal.portal_login_page(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.portal_home_page(portal_id bigint) RETURNS text
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	shown partner_portal.portal := partner_portal.authorized_portal('read', portal_id);
	folders xml;
BEGIN
	WITH RECURSIVE shared AS (
		SELECT f.folder_id, f.name AS path FROM partner_portal.folder_share s
		JOIN partner_portal.folder f ON f.workspace_id = s.workspace_id AND f.folder_id = s.folder_id
		WHERE s.workspace_id = shown.workspace_id AND s.group_id = shown.group_id
		UNION ALL
		SELECT f.folder_id, h.path || ' / ' || f.name FROM shared h
		JOIN partner_portal.folder f ON f.workspace_id = shown.workspace_id AND f.parent_id = h.folder_id
	), once AS (
		-- one that is shared itself and below a shared one, by its longest path
		SELECT DISTINCT ON (h.folder_id) h.folder_id, h.path FROM shared h ORDER BY h.folder_id, length(h.path) DESC
	)
	SELECT xmlagg(xmlelement(name section, xmlelement(name h3, o.path), coalesce(
			(SELECT xmlelement(name ul, xmlagg(xmlelement(name li, xmlelement(name a, xmlattributes('/report/' || r.report_id AS href), r.title)) ORDER BY r.title, r.report_id))
				FROM partner_portal.report r WHERE r.workspace_id = shown.workspace_id AND r.folder_id = o.folder_id HAVING count(*) > 0),
			xmlelement(name p, xmlattributes('none' AS class), 'No reports.'))) ORDER BY o.path, o.folder_id)
	INTO folders FROM once o;
	RETURN partner_portal.portal_page(shown.name, shown.color, xmlconcat(
		xmlelement(name a, xmlattributes('skip' AS class, '#main' AS href), 'Skip to content'),
		partner_portal.home_part(shown.name, shown.logout_url, shown.home_cover_url, folders)));
END
$$;
COMMENT ON FUNCTION partner_portal.portal_home_page(bigint) IS
'The home page of a portal as its users see it, as a complete HTML page: cover, the folders shared with its group and their reports, linked as /report/<id>. For its users acting in it, and those who may read its partner. 42501, 22004, P0002.';
REVOKE ALL ON FUNCTION partner_portal.portal_home_page(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.preview_portal(name text, technical_name text, color text, logout_url text, home_cover_url text DEFAULT NULL) RETURNS text
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in', HINT = 'Sign in with partner_portal.login().';
	END IF;
	PERFORM partner_portal.check_portal(name, technical_name, color, logout_url, home_cover_url);
	RETURN partner_portal.portal_page('Preview – ' || name, color, xmlconcat(
		partner_portal.login_part(name, false),
		partner_portal.home_part(name, logout_url, home_cover_url, xmlelement(name section,
			xmlelement(name h3, 'Folder'), xmlelement(name p, xmlattributes('none' AS class), 'https://' || technical_name || '.' || current_setting('partner_portal.portal_domain') || '/')))));
END
$$;
COMMENT ON FUNCTION partner_portal.preview_portal(text, text, text, text, text) IS
'Login page and, below it, home page of a portal with these values, which are not saved, as one complete HTML page whose form can''t be sent. For whoever is signed in. 42501; 22004, 22001, 22023 as create_portal(); whether the technical name is free or reserved is not asked.';
REVOKE ALL ON FUNCTION partner_portal.preview_portal(text, text, text, text, text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.portal_login_page(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.portal_home_page(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.preview_portal(text, text, text, text, text)');
-- activity_log.sql: who did what, where and when, as one chain of hashes per workspace.
--
-- Lines are written by triggers in C (activity_log.c), in the acting transaction, and by log_activity() for the application's
-- own. The head of a workspace's chain sits beside its counters (workspace_usage) under their lock.

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
	CONSTRAINT activity_prev_hash_key UNIQUE (workspace_id, prev_hash),
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
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
-- verify.sql: whether what is derived agrees with the facts, and how it is made again.
--
-- Each concept has a function of its own with the columns of verify(), which calls them all. They read one snapshot, so
-- that what is being committed beside them is no problem. A fault comes from outside: triggers that were disabled, a load
-- under session_replication_role = replica, a damaged disk.

CREATE FUNCTION partner_portal.count_usage(in_workspace bigint)
	RETURNS TABLE (workspace_id bigint, partner_key bigint, total_keys integer, active_keys integer, total_smartphones integer, active_smartphones integer,
		total_contactless_cards integer, active_contactless_cards integer, owners integer, key_limit integer, limit_mode text, blocked text,
		last_disabled_at timestamptz, closed_until timestamptz)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		SELECT w.workspace_id, w.partner_key, coalesce(k.total_keys, 0)::integer, coalesce(k.active_keys, 0)::integer,
			coalesce(k.total_smartphones, 0)::integer, coalesce(k.active_smartphones, 0)::integer,
			coalesce(k.total_keys - k.total_smartphones, 0)::integer, coalesce(k.active_keys - k.active_smartphones, 0)::integer,
			coalesce(m.owners, 0)::integer, CASE WHEN w.restrict_keys THEN w.key_limit END, w.limit_mode,
			CASE WHEN w.deleted_at IS NOT NULL THEN 'deleted' WHEN w.suspended_at IS NOT NULL THEN 'suspended' END,
			coalesce(h.active_until, '-infinity'), coalesce(p.period_end, '-infinity')
		FROM partner_portal.workspace w
		LEFT JOIN (
			SELECT k.workspace_id, count(*) AS total_keys, count(*) FILTER (WHERE k.status = 'active') AS active_keys,
				count(*) FILTER (WHERE k.kind = 'smartphone') AS total_smartphones,
				count(*) FILTER (WHERE k.kind = 'smartphone' AND k.status = 'active') AS active_smartphones
			FROM partner_portal.security_key k
			WHERE count_usage.in_workspace IS NULL OR k.workspace_id = count_usage.in_workspace
			GROUP BY k.workspace_id) k ON k.workspace_id = w.workspace_id
		LEFT JOIN (
			SELECT m.workspace_id, count(*) AS owners FROM partner_portal.member m
			WHERE m.role = 'owner' AND m.accepted_at IS NOT NULL AND (count_usage.in_workspace IS NULL OR m.workspace_id = count_usage.in_workspace)
			GROUP BY m.workspace_id) m ON m.workspace_id = w.workspace_id
		LEFT JOIN LATERAL (
			SELECT h.active_until FROM partner_portal.key_history h WHERE h.workspace_id = w.workspace_id ORDER BY h.active_until DESC LIMIT 1) h ON true
		LEFT JOIN LATERAL (
			SELECT p.period_end FROM partner_portal.billing_period p
			WHERE p.workspace_id = w.workspace_id AND p.closed_at IS NOT NULL ORDER BY p.period_end DESC LIMIT 1) p ON true
		WHERE count_usage.in_workspace IS NULL OR w.workspace_id = count_usage.in_workspace;
	END;
COMMENT ON FUNCTION partner_portal.count_usage(bigint) IS 'What workspace_usage must say by the facts, for one workspace or all (NULL); internal.';
REVOKE ALL ON FUNCTION partner_portal.count_usage(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.verify_counters(in_workspace bigint) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		WITH counted AS MATERIALIZED (
			SELECT c.* FROM partner_portal.count_usage(verify_counters.in_workspace) c
		)
		SELECT c.workspace_id, 'counters', 'there are no counters'
		FROM counted c LEFT JOIN partner_portal.workspace_usage u ON u.workspace_id = c.workspace_id
		WHERE u.workspace_id IS NULL
		UNION ALL
		SELECT c.workspace_id, v.check_name, format('%s is %s, by the facts %s', v.name, coalesce(v.stored, 'null'), coalesce(v.must_be, 'null'))
		FROM counted c JOIN partner_portal.workspace_usage u ON u.workspace_id = c.workspace_id
		CROSS JOIN LATERAL (VALUES
			('counters', 'total_keys', u.total_keys::text, c.total_keys::text),
			('counters', 'active_keys', u.active_keys::text, c.active_keys::text),
			('counters', 'total_smartphones', u.total_smartphones::text, c.total_smartphones::text),
			('counters', 'active_smartphones', u.active_smartphones::text, c.active_smartphones::text),
			('counters', 'total_contactless_cards', u.total_contactless_cards::text, c.total_contactless_cards::text),
			('counters', 'active_contactless_cards', u.active_contactless_cards::text, c.active_contactless_cards::text),
			('counters', 'closed_until', u.closed_until::text, c.closed_until::text),
			-- empty stretches are not kept, and end too: it may be later
			('counters', 'last_disabled_at', least(u.last_disabled_at, c.last_disabled_at)::text, c.last_disabled_at::text),
			('owners', 'owners', u.owners::text, c.owners::text),
			('limit', 'key_limit', u.key_limit::text, c.key_limit::text),
			('limit', 'limit_mode', u.limit_mode, c.limit_mode),
			('limit', 'blocked', u.blocked, c.blocked)) v (check_name, name, stored, must_be)
		WHERE v.stored IS DISTINCT FROM v.must_be
		UNION ALL
		SELECT c.workspace_id, 'limit', format('%s keys are active, the limit is %s', c.active_keys, c.key_limit)
		FROM counted c WHERE c.limit_mode = 'hard' AND c.active_keys > c.key_limit
		UNION ALL
		SELECT c.workspace_id, 'limit', format('%s keys are active in a workspace that is %s', c.active_keys, c.blocked)
		FROM counted c WHERE c.blocked IS NOT NULL AND c.active_keys > 0
		UNION ALL
		SELECT c.workspace_id, 'owners', 'there is no owner'
		FROM counted c WHERE c.owners = 0 AND c.blocked IS DISTINCT FROM 'deleted'
			AND NOT EXISTS (SELECT FROM partner_portal.member m WHERE m.workspace_id = c.workspace_id AND m.role = 'owner');
	END;
COMMENT ON FUNCTION partner_portal.verify_counters(bigint) IS
'verify(), checks counters, owners and limit: workspace_usage against keys, members, periods and settings; keys beyond a hard limit or active in a blocked workspace; a workspace without an owner, pending ones included. Internal.';
REVOKE ALL ON FUNCTION partner_portal.verify_counters(bigint) FROM PUBLIC;

-- A key that is no longer active has its last stretch in the history, if that was not empty.
CREATE FUNCTION partner_portal.missing_stretches(in_workspace bigint) RETURNS SETOF partner_portal.security_key
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		SELECT k.* FROM partner_portal.security_key k
		WHERE k.status <> 'active' AND k.activated_at < k.disabled_at
			AND (missing_stretches.in_workspace IS NULL OR k.workspace_id = missing_stretches.in_workspace)
			AND NOT EXISTS (SELECT FROM partner_portal.key_history h
				WHERE h.workspace_id = k.workspace_id AND h.key_id = k.key_id AND h.active_from = k.activated_at AND h.active_until = k.disabled_at);
	END;
COMMENT ON FUNCTION partner_portal.missing_stretches(bigint) IS 'Keys whose last active stretch is not in key_history as the key tells it; internal.';
REVOKE ALL ON FUNCTION partner_portal.missing_stretches(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.verify_keys(in_workspace bigint) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		SELECT k.workspace_id, 'stretches', format('the last stretch of key %s, %s to %s, is not in the history', k.key_id, k.activated_at, k.disabled_at)
		FROM partner_portal.missing_stretches(verify_keys.in_workspace) k
		UNION ALL
		SELECT h.workspace_id, 'stretches', format('stretches of key %s overlap: one begins at %s, the one before ends at %s', h.key_id, h.next_from, h.active_until)
		FROM (
			SELECT h.workspace_id, h.key_id, h.active_until, lead(h.active_from) OVER (PARTITION BY h.workspace_id, h.key_id ORDER BY h.active_from) AS next_from
			FROM partner_portal.key_history h
			WHERE verify_keys.in_workspace IS NULL OR h.workspace_id = verify_keys.in_workspace) h
		WHERE h.next_from < h.active_until
		UNION ALL
		SELECT k.workspace_id, 'stretches', format('key %s is active since %s, and an earlier stretch ends at %s', k.key_id, k.activated_at, h.active_until)
		FROM partner_portal.security_key k
		CROSS JOIN LATERAL (SELECT max(h.active_until) AS active_until FROM partner_portal.key_history h
			WHERE h.workspace_id = k.workspace_id AND h.key_id = k.key_id) h
		WHERE k.status = 'active' AND h.active_until > k.activated_at
			AND (verify_keys.in_workspace IS NULL OR k.workspace_id = verify_keys.in_workspace)
		UNION ALL
		SELECT DISTINCT k.workspace_id, 'stretches', format('key %s is a %s, in the history a %s', k.key_id, k.kind, h.kind)
		FROM partner_portal.security_key k
		JOIN partner_portal.key_history h ON h.workspace_id = k.workspace_id AND h.key_id = k.key_id
		WHERE h.kind <> k.kind AND (verify_keys.in_workspace IS NULL OR k.workspace_id = verify_keys.in_workspace)
		UNION ALL
		SELECT k.workspace_id, 'stretches', format('number %s of a key has not been given out yet', k.key_id)
		FROM partner_portal.security_key k
		WHERE k.key_id > (SELECT last_value FROM partner_portal.security_key_key_id_seq)
			AND (verify_keys.in_workspace IS NULL OR k.workspace_id = verify_keys.in_workspace);
	END;
COMMENT ON FUNCTION partner_portal.verify_keys(bigint) IS
'verify(), check stretches: keys against their history, which has every stretch that ended, of the key''s kind, without overlap. Internal.';
REVOKE ALL ON FUNCTION partner_portal.verify_keys(bigint) FROM PUBLIC;

-- Closed periods are measured once more as of the instant they were measured at; those that were closed together together.
CREATE FUNCTION partner_portal.remeasured_periods(in_workspace bigint) RETURNS SETOF partner_portal.usage_period
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		WITH closed AS (
			SELECT array_agg(p.workspace_id) AS ids, array_agg(p.period_start) AS starts, array_agg(p.period_end) AS ends, array_agg(p.time_zone) AS zones,
				coalesce(u.known_at, p.closed_at) AS known_at
			FROM partner_portal.billing_period p
			LEFT JOIN partner_portal.usage_period u ON u.workspace_id = p.workspace_id AND u.period_start = p.period_start AND u.kind = 'total'
			WHERE p.closed_at IS NOT NULL AND (remeasured_periods.in_workspace IS NULL OR p.workspace_id = remeasured_periods.in_workspace)
			GROUP BY coalesce(u.known_at, p.closed_at)
		)
		SELECT m.workspace_id, m.period_start, m.kind, p.partner_key, m.distinct_keys, m.peak_keys, m.peak_at, m.end_keys, m.start_keys,
			m.key_days, m.key_seconds, m.users, c.known_at
		FROM closed c
		CROSS JOIN LATERAL partner_portal.measure_usage(c.ids, c.starts, c.ends, c.zones, c.known_at) m
		JOIN partner_portal.billing_period p ON p.workspace_id = m.workspace_id AND p.period_start = m.period_start
		LEFT JOIN partner_portal.usage_period u ON u.workspace_id = m.workspace_id AND u.period_start = m.period_start AND u.kind = m.kind
		WHERE (u.partner_key, u.distinct_keys, u.peak_keys, u.peak_at, u.end_keys, u.start_keys, u.key_days, u.key_seconds, u.users)
			IS DISTINCT FROM (p.partner_key, m.distinct_keys, m.peak_keys, m.peak_at, m.end_keys, m.start_keys, m.key_days, m.key_seconds, m.users);
	END;
COMMENT ON FUNCTION partner_portal.remeasured_periods(bigint) IS
'What usage_period must say of closed periods where it says something else or nothing, by the facts as they were known when the period was closed; internal.';
REVOKE ALL ON FUNCTION partner_portal.remeasured_periods(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.verify_periods(in_workspace bigint) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		WITH chain AS (
			SELECT p.workspace_id, p.period_start, p.period_end, p.previous_end, p.resumes,
				lag(p.period_end) OVER (PARTITION BY p.workspace_id ORDER BY p.period_start) AS before
			FROM partner_portal.billing_period p
			WHERE verify_periods.in_workspace IS NULL OR p.workspace_id = verify_periods.in_workspace
		)
		SELECT c.workspace_id, 'periods', format('the period from %s %s', c.period_start, CASE
			WHEN c.before IS NULL THEN format('is the first, and names one before that ended at %s', c.previous_end)
			WHEN c.before > c.period_start THEN format('begins before the one before it ends, at %s', c.before)
			WHEN c.previous_end IS DISTINCT FROM c.before THEN format('names %s as the end of the one before, which ended at %s', coalesce(c.previous_end::text, 'nothing'), c.before)
			ELSE format('begins later than the one before it ended, at %s', c.before) END)
		FROM chain c
		WHERE c.previous_end IS DISTINCT FROM c.before OR c.before > c.period_start OR (c.before < c.period_start AND NOT c.resumes)
		UNION ALL
		SELECT r.workspace_id, 'periods', format('the stored usage (%s) of the closed period from %s is not what the facts say', r.kind, r.period_start)
		FROM partner_portal.remeasured_periods(verify_periods.in_workspace) r
		UNION ALL
		SELECT w.workspace_id, 'periods', 'there is no billing period'
		FROM partner_portal.workspace w
		WHERE (verify_periods.in_workspace IS NULL OR w.workspace_id = verify_periods.in_workspace)
			AND NOT EXISTS (SELECT FROM partner_portal.billing_period p WHERE p.workspace_id = w.workspace_id);
	END;
COMMENT ON FUNCTION partner_portal.verify_periods(bigint) IS
'verify(), check periods: a chain without overlap or hole, and the stored usage of each closed period against the facts as they were known then. Internal.';
REVOKE ALL ON FUNCTION partner_portal.verify_periods(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.verify_invoices(in_workspace bigint) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		SELECT i.workspace_id, 'invoices', format('document %s has a subtotal of %s, its lines make %s', i.invoice_id, i.subtotal_minor, coalesce(l.amount_minor, 0))
		FROM partner_portal.invoice i
		LEFT JOIN (
			SELECT l.workspace_id, l.invoice_id, sum(l.amount_minor) AS amount_minor FROM partner_portal.invoice_line l
			WHERE verify_invoices.in_workspace IS NULL OR l.workspace_id = verify_invoices.in_workspace
			GROUP BY l.workspace_id, l.invoice_id) l ON l.workspace_id = i.workspace_id AND l.invoice_id = i.invoice_id
		WHERE i.subtotal_minor <> coalesce(l.amount_minor, 0) AND (verify_invoices.in_workspace IS NULL OR i.workspace_id = verify_invoices.in_workspace)
		UNION ALL
		SELECT l.workspace_id, 'invoices', format('line %s is of document %s, which is not there', l.line, l.invoice_id)
		FROM partner_portal.invoice_line l
		WHERE (verify_invoices.in_workspace IS NULL OR l.workspace_id = verify_invoices.in_workspace)
			AND NOT EXISTS (SELECT FROM partner_portal.invoice i WHERE i.workspace_id = l.workspace_id AND i.invoice_id = l.invoice_id)
		UNION ALL
		SELECT i.workspace_id, 'invoices', format('line %s of document %s charged %s and was credited %s', l.line, i.invoice_id, l.amount_minor, c.amount_minor)
		FROM partner_portal.invoice i
		JOIN partner_portal.invoice_line l ON l.workspace_id = i.workspace_id AND l.invoice_id = i.invoice_id
		JOIN (
			SELECT n.workspace_id, n.credits_invoice_id, c.credits_line, sum(c.amount_minor) AS amount_minor
			FROM partner_portal.invoice n
			JOIN partner_portal.invoice_line c ON c.workspace_id = n.workspace_id AND c.invoice_id = n.invoice_id
			WHERE n.document = 'credit_note' AND n.status <> 'void' AND (verify_invoices.in_workspace IS NULL OR n.workspace_id = verify_invoices.in_workspace)
			GROUP BY n.workspace_id, n.credits_invoice_id, c.credits_line) c
			ON c.workspace_id = l.workspace_id AND c.credits_invoice_id = l.invoice_id AND c.credits_line = l.line
		WHERE c.amount_minor > l.amount_minor
		UNION ALL
		SELECT nullif(s.issuer_key, 0), 'invoices', format('series %s %s of issuer %s has %s documents up to number %s, and counts %s',
			s.document, s.year, s.issuer_key, count(i.number), coalesce(max(i.number), 0), s.last_number)
		FROM partner_portal.invoice_series s
		LEFT JOIN partner_portal.invoice i ON i.issuer_key = s.issuer_key AND i.document = s.document AND i.series_year = s.year
		WHERE verify_invoices.in_workspace IS NULL OR s.issuer_key = verify_invoices.in_workspace
		GROUP BY s.issuer_key, s.document, s.year, s.last_number
		HAVING count(i.number) <> s.last_number OR coalesce(max(i.number), 0) <> s.last_number;
	END;
COMMENT ON FUNCTION partner_portal.verify_invoices(bigint) IS
'verify(), check invoices: documents with their lines, credits with what they credit, and numbers without a gap (workspace_id is then the issuer''s, NULL the platform). Internal.';
REVOKE ALL ON FUNCTION partner_portal.verify_invoices(bigint) FROM PUBLIC;

-- Lines that are forgotten or erased, or have no digest, tell nothing; what the chain of the log says of lines is verify_activity()'s.
CREATE FUNCTION partner_portal.verify_digests(in_workspace bigint) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		WITH logged AS MATERIALIZED (
			SELECT a.workspace_id, a.activity_id, (a.details ->> 'invoice_id')::bigint AS invoice_id, a.details ->> 'digest' AS digest
			FROM partner_portal.activity a
			WHERE a.action = 'finalize_invoice' AND a.source = 'database' AND a.details ? 'digest'
				AND (verify_digests.in_workspace IS NULL OR a.workspace_id = verify_digests.in_workspace)
		), compared AS MATERIALIZED (
			SELECT l.*, partner_portal.invoice_digest(l.workspace_id, l.invoice_id) AS found FROM logged l
		)
		SELECT c.workspace_id, 'invoice digest', format(CASE WHEN c.found IS NULL THEN 'document %s is gone, line %s of the log has it'
			ELSE 'document %s is not what it was when it was finalized, by line %s of the log' END, c.invoice_id, c.activity_id)
		FROM compared c WHERE c.found IS DISTINCT FROM c.digest;
	END;
COMMENT ON FUNCTION partner_portal.verify_digests(bigint) IS
'verify(), check invoice digest: finished documents against the digest that the log has of them. Internal.';
REVOKE ALL ON FUNCTION partner_portal.verify_digests(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.verify_references(in_workspace bigint) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	key record;
BEGIN
	FOR key IN
		SELECT k.conname, k.conrelid::regclass AS source, k.confrelid::regclass AS target, c.relname,
			EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attname = 'workspace_id') AS of_tenant,
			string_agg(format('s.%I IS NOT NULL', s.attname), ' AND ') AS is_set,
			string_agg(format('t.%I = s.%I', t.attname, s.attname), ' AND ') AS meets
		FROM pg_constraint k
		JOIN pg_class c ON c.oid = k.conrelid
		CROSS JOIN LATERAL unnest(k.conkey, k.confkey) AS pair (source, target)
		JOIN pg_attribute s ON s.attrelid = k.conrelid AND s.attnum = pair.source
		JOIN pg_attribute t ON t.attrelid = k.confrelid AND t.attnum = pair.target
		WHERE k.contype = 'f' AND k.connamespace = 'partner_portal'::regnamespace
		GROUP BY k.oid, k.conname, k.conrelid, k.confrelid, c.relname
		ORDER BY c.relname, k.conname
	LOOP
		CONTINUE WHEN in_workspace IS NOT NULL AND NOT key.of_tenant;
		RETURN QUERY EXECUTE format(
			'SELECT %s, ''references'', format(''rows of %I that refer to what is not there (%I): %%s'', count(*))
			FROM %s s WHERE %s AND NOT EXISTS (SELECT FROM %s t WHERE %s) AND ($1 IS NULL OR %s = $1) GROUP BY 1',
			CASE WHEN key.of_tenant THEN 's.workspace_id' ELSE 'NULL::bigint' END, key.relname, key.conname,
			key.source, key.is_set, key.target, key.meets, CASE WHEN key.of_tenant THEN 's.workspace_id' ELSE 'NULL' END) USING in_workspace;
	END LOOP;
END
$$;
COMMENT ON FUNCTION partner_portal.verify_references(bigint) IS
'verify(), check references: every foreign key of the extension''s tables, which a load under session_replication_role = replica does not check. Internal.';
REVOKE ALL ON FUNCTION partner_portal.verify_references(bigint) FROM PUBLIC;

-- A plan for one workspace is of no use for all of them; and these statements are large to compile.
CREATE FUNCTION partner_portal.verify(in_workspace bigint DEFAULT NULL) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off AS $$
#variable_conflict use_column
BEGIN
	PERFORM partner_portal.require_operator();
	RETURN QUERY
	SELECT v.workspace_id, v.check_name, v.problem
	FROM (
		SELECT * FROM partner_portal.verify_counters(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_keys(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_periods(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_invoices(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_digests(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_activity(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_references(verify.in_workspace)) v
	ORDER BY v.workspace_id, v.check_name, v.problem;
END
$$;
COMMENT ON FUNCTION partner_portal.verify(bigint) IS
'What does not agree, in one workspace or all of them; no row is the answer one wants. Checks: counters, owners and limit (workspace_usage against the facts; too many keys active; no owner), stretches (keys against their history), periods (the chain, and the usage of closed ones), invoices (documents against their lines, numbers without a gap), invoice digest (finished documents against what the log has of them), activity (the chain of the log), references (foreign keys). repair() mends what is derived: counters, the copy of the limit, a last stretch that is missing, the usage of closed periods, partner_key. The rest needs a person who knows what happened. Reads every row, takes no lock. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.verify(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.repair(workspace_id bigint DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off AS $$
DECLARE
	mended bigint := 0;
	changed bigint;
	follower record;
BEGIN
	PERFORM partner_portal.require_operator();
	-- as everybody: the workspace first, then its counters
	PERFORM FROM partner_portal.workspace w
	WHERE repair.workspace_id IS NULL OR w.workspace_id = repair.workspace_id
	ORDER BY w.workspace_id FOR NO KEY UPDATE;
	IF NOT FOUND AND repair.workspace_id IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('workspace %s not found', repair.workspace_id);
	END IF;

	-- live rows follow the workspace's partner
	FOR follower IN
		SELECT k.conrelid::regclass AS tab FROM pg_constraint k
		WHERE k.contype = 'f' AND k.confrelid = 'partner_portal.workspace'::regclass AND k.confupdtype = 'c' AND cardinality(k.conkey) = 2
		ORDER BY k.conrelid::regclass::text
	LOOP
		EXECUTE format('UPDATE %s f SET partner_key = w.partner_key FROM partner_portal.workspace w
			WHERE w.workspace_id = f.workspace_id AND f.partner_key <> w.partner_key AND ($1 IS NULL OR f.workspace_id = $1)', follower.tab)
			USING repair.workspace_id;
		GET DIAGNOSTICS changed = ROW_COUNT;
		mended := mended + changed;
	END LOOP;

	INSERT INTO partner_portal.workspace_usage (workspace_id, partner_key)
	SELECT w.workspace_id, w.partner_key FROM partner_portal.workspace w
	WHERE repair.workspace_id IS NULL OR w.workspace_id = repair.workspace_id
	ORDER BY w.workspace_id
	ON CONFLICT ON CONSTRAINT workspace_usage_pkey DO NOTHING;
	PERFORM FROM partner_portal.workspace_usage u
	WHERE repair.workspace_id IS NULL OR u.workspace_id = repair.workspace_id
	ORDER BY u.workspace_id FOR NO KEY UPDATE;
	-- From here on no key or owner is counted and no period closed beside this, and every statement sees what was before.

	INSERT INTO partner_portal.key_history (workspace_id, key_id, active_from, active_until, kind, account_id, recorded_at, partner_key)
	SELECT k.workspace_id, k.key_id, k.activated_at, k.disabled_at, k.kind, k.account_id, k.activated_at, k.partner_key
	FROM partner_portal.missing_stretches(repair.workspace_id) k
	WHERE NOT EXISTS (SELECT FROM partner_portal.key_history h
		WHERE h.workspace_id = k.workspace_id AND h.key_id = k.key_id AND h.active_from < k.disabled_at AND h.active_until > k.activated_at);
	GET DIAGNOSTICS changed = ROW_COUNT;
	mended := mended + changed;

	UPDATE partner_portal.workspace_usage u SET
		total_keys = c.total_keys, active_keys = c.active_keys, total_smartphones = c.total_smartphones, active_smartphones = c.active_smartphones,
		total_contactless_cards = c.total_contactless_cards, active_contactless_cards = c.active_contactless_cards, owners = c.owners,
		key_limit = c.key_limit, limit_mode = c.limit_mode, blocked = c.blocked,
		last_disabled_at = greatest(u.last_disabled_at, c.last_disabled_at), closed_until = c.closed_until
	FROM partner_portal.count_usage(repair.workspace_id) c
	WHERE u.workspace_id = c.workspace_id
		AND (u.total_keys, u.active_keys, u.total_smartphones, u.active_smartphones, u.total_contactless_cards, u.active_contactless_cards, u.owners,
			u.key_limit, u.limit_mode, u.blocked, u.last_disabled_at, u.closed_until)
		IS DISTINCT FROM (c.total_keys, c.active_keys, c.total_smartphones, c.active_smartphones, c.total_contactless_cards, c.active_contactless_cards, c.owners,
			c.key_limit, c.limit_mode, c.blocked, greatest(u.last_disabled_at, c.last_disabled_at), c.closed_until);
	GET DIAGNOSTICS changed = ROW_COUNT;
	mended := mended + changed;
	UPDATE partner_portal.workspace_usage u SET alerted_until = a.until, alerted_percent = a.threshold
	FROM (
		SELECT DISTINCT ON (l.workspace_id) l.workspace_id, l.threshold,
			CASE WHEN isfinite(l.period_start) THEN upper(partner_portal.find_period(l.workspace_id, l.period_start)) ELSE 'infinity' END AS until
		FROM partner_portal.limit_alert l
		WHERE repair.workspace_id IS NULL OR l.workspace_id = repair.workspace_id
		ORDER BY l.workspace_id, l.period_start DESC, l.threshold DESC) a
	WHERE u.workspace_id = a.workspace_id AND (u.alerted_until, u.alerted_percent) < (a.until, a.threshold);
	GET DIAGNOSTICS changed = ROW_COUNT;
	mended := mended + changed;

	SELECT count(*) INTO changed FROM partner_portal.repair_activity(repair.workspace_id);
	mended := mended + changed;

	INSERT INTO partner_portal.usage_period AS u (workspace_id, period_start, kind, partner_key,
		distinct_keys, peak_keys, peak_at, end_keys, start_keys, key_days, key_seconds, users, known_at)
	SELECT r.workspace_id, r.period_start, r.kind, r.partner_key,
		r.distinct_keys, r.peak_keys, r.peak_at, r.end_keys, r.start_keys, r.key_days, r.key_seconds, r.users, r.known_at
	FROM partner_portal.remeasured_periods(repair.workspace_id) r
	ON CONFLICT ON CONSTRAINT usage_period_pkey DO UPDATE SET
		distinct_keys = excluded.distinct_keys, peak_keys = excluded.peak_keys, peak_at = excluded.peak_at, end_keys = excluded.end_keys,
		start_keys = excluded.start_keys, key_days = excluded.key_days, key_seconds = excluded.key_seconds, users = excluded.users,
		partner_key = excluded.partner_key, known_at = excluded.known_at;
	GET DIAGNOSTICS changed = ROW_COUNT;
	RETURN mended + changed;
END
$$;
COMMENT ON FUNCTION partner_portal.repair(bigint) IS
'Makes again what is derived, in one workspace or all of them (NULL): counters, the copy of the limit, the last stretch of a key that the history lacks, the stored usage of closed periods (as the facts were known then), partner_key of live rows, the head of the activity log. Returns how many rows it changed. Holds the workspaces'' counters to the end of the transaction: on a busy platform call it for one workspace at a time. It disables no key and changes no document: what verify() still finds afterwards is for a person to decide. Operator only (42501); P0002 no such workspace.';
REVOKE ALL ON FUNCTION partner_portal.repair(bigint) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('operator', 'EXECUTE', 'FUNCTION partner_portal.verify(bigint)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.repair(bigint)');
-- health.sql: figures that an operator watches.

CREATE FUNCTION partner_portal.health() RETURNS TABLE (name text, workspace_id bigint, value numeric, detail text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	PERFORM partner_portal.require_operator();
	RETURN QUERY
	WITH counted AS MATERIALIZED (
		SELECT u.workspace_id, u.total_keys, u.active_keys, u.key_limit FROM partner_portal.workspace_usage u
	), holder AS (
		SELECT extract(epoch FROM clock_timestamp() - a.xact_start) AS seconds,
			format('process %s (%s, %s)', a.pid, coalesce(a.usename, a.backend_type), coalesce(a.state, a.backend_type)) AS who
		FROM pg_stat_activity a
		WHERE a.backend_xmin IS NOT NULL AND a.xact_start IS NOT NULL AND a.pid <> pg_backend_pid()
			AND (a.datname = current_database() OR a.backend_type = 'walsender')
		UNION ALL
		SELECT extract(epoch FROM clock_timestamp() - x.prepared), format('prepared transaction %s (%s)', x.gid, x.owner)
		FROM pg_prepared_xacts x WHERE x.database = current_database()
	)
	SELECT f.name, f.workspace_id, f.value, f.detail
	FROM (
		SELECT 1 AS place, 'workspaces' AS name, NULL::bigint AS workspace_id, count(*)::numeric AS value, NULL::text AS detail FROM counted
		UNION ALL
		SELECT 2, 'keys', NULL, coalesce(sum(c.total_keys), 0), NULL FROM counted c
		UNION ALL
		SELECT 3, 'active_keys', NULL, coalesce(sum(c.active_keys), 0), NULL FROM counted c
		UNION ALL
		(SELECT 4, 'oldest_transaction', NULL, round(coalesce(max(h.seconds), 0), 3), (array_agg(h.who ORDER BY h.seconds DESC NULLS LAST))[1] FROM holder h)
		UNION ALL
		SELECT 5, 'dead_counter_versions', NULL, pg_stat_get_dead_tuples('partner_portal.workspace_usage'::regclass), NULL
		UNION ALL
		SELECT 6, 'periods_not_closed', NULL, count(*), min(p.period_end)::text
		FROM partner_portal.billing_period p WHERE p.closed_at IS NULL AND p.period_end <= now()
		UNION ALL
		SELECT 7, 'restoring_by_default', NULL, count(*),
			string_agg(format('database %s, role %s', coalesce(d.datname, 'any'), coalesce(s.setrole::regrole::text, 'any')), '; ')
		FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase
		CROSS JOIN LATERAL unnest(s.setconfig) AS c (setting)
		WHERE (s.setdatabase = 0 OR d.datname = current_database()) AND c.setting ~* '^partner_portal\.restoring=(on|true|yes|1)$|^session_replication_role=replica$'
		UNION ALL
		SELECT CASE WHEN c.active_keys > c.key_limit THEN 8 WHEN c.active_keys = c.key_limit THEN 9 ELSE 10 END,
			CASE WHEN c.active_keys > c.key_limit THEN 'over_limit' WHEN c.active_keys = c.key_limit THEN 'at_limit' ELSE 'near_limit' END,
			c.workspace_id, c.active_keys, format('%s of %s', c.active_keys, c.key_limit)
		FROM counted c WHERE c.active_keys > 0 AND c.active_keys::bigint * 100 >= c.key_limit::bigint * 80) f
	ORDER BY f.place, f.workspace_id;
END
$$;
COMMENT ON FUNCTION partner_portal.health() IS
'Figures to watch, one per row; it changes nothing. workspaces, keys, active_keys: how many. oldest_transaction: age in seconds of the transaction that keeps old row versions alive for the longest (a report, a dump, a prepared transaction, a standby''s query), who it is in detail; while one is open, every activation in a busy workspace leaves a version of its counter behind that the next ones must pass. dead_counter_versions: such versions, as the statistics know them. periods_not_closed: billing periods past their end, the earliest end in detail. restoring_by_default: settings of databases or roles that begin sessions as if a dump were restored, where inserted rows are not checked; must be 0. over_limit, at_limit, near_limit: a row per workspace that uses 80 percent of its limit or more, value its active keys. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.health() FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('operator', 'EXECUTE', 'FUNCTION partner_portal.health()');
-- job.sql: what is due by the clock, and pg_cron.

CREATE TABLE partner_portal.job_step (
	step text NOT NULL,
	position integer NOT NULL,
	last_run_at timestamptz,
	last_problem text,
	failures integer NOT NULL DEFAULT 0,
	CONSTRAINT job_step_pkey PRIMARY KEY (step),
	CONSTRAINT job_step_position_key UNIQUE (position)
);
COMMENT ON TABLE partner_portal.job_step IS
'What tick() calls, in order of position: functions partner_portal.STEP(at timestamptz) RETURNS bigint, which do a bounded piece of what is due by then and return how much they did. Filled by the install script alone.';
COMMENT ON COLUMN partner_portal.job_step.last_problem IS 'Message of its last failure; NULL when it last succeeded.';
COMMENT ON COLUMN partner_portal.job_step.failures IS 'Times it failed since it last succeeded.';
ALTER TABLE partner_portal.job_step ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE PROCEDURE partner_portal.tick(at timestamptz DEFAULT now())
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_tick';
COMMENT ON PROCEDURE partner_portal.tick(timestamptz) IS
'Does all that is due by an instant: closes periods, bills, queues digests and reminders, refreshes usage, ends what has had its time. Safe to miss, to repeat and to run twice at once; each thing is committed for itself, and one that fails (a warning) stops no other. Superusers only (42501); not in a transaction block (2D000).';
REVOKE ALL ON PROCEDURE partner_portal.tick(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.tick_close_periods(at timestamptz) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	SELECT count(*) FROM partner_portal.close_periods(tick_close_periods.at, 100);
END;
COMMENT ON FUNCTION partner_portal.tick_close_periods(timestamptz) IS 'Step of tick(): closes billing periods that have ended, of up to 100 workspaces.';
REVOKE ALL ON FUNCTION partner_portal.tick_close_periods(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.tick_run_billing(at timestamptz) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	SELECT count(*) FILTER (WHERE a.action <> 'failed') FROM partner_portal.run_billing(tick_run_billing.at, 500) a;
END;
COMMENT ON FUNCTION partner_portal.tick_run_billing(timestamptz) IS 'Step of tick(): bills up to 500 workspaces; those that fail are in billing_health().';
REVOKE ALL ON FUNCTION partner_portal.tick_run_billing(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.tick_refresh_usage(at timestamptz) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	SELECT 0 * partner_portal.refresh_usage(tick_refresh_usage.at);
END;
COMMENT ON FUNCTION partner_portal.tick_refresh_usage(timestamptz) IS 'Step of tick(): brings the usage of running periods up to date, once.';
REVOKE ALL ON FUNCTION partner_portal.tick_refresh_usage(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.tick_cancel_expired(at timestamptz) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	SELECT count(partner_portal.finish_notification(d.workspace_id, d.notification_id, 'cancelled', 0, 'expired')::text) FROM (
		SELECT q.workspace_id, q.notification_id FROM partner_portal.delivery_queue q
		JOIN partner_portal.notification n ON n.workspace_id = q.workspace_id AND n.notification_id = q.notification_id
		WHERE q.lease_token IS NULL AND n.expires_at <= tick_cancel_expired.at
		LIMIT 1000 FOR UPDATE OF q SKIP LOCKED) d;
END;
COMMENT ON FUNCTION partner_portal.tick_cancel_expired(timestamptz) IS 'Step of tick(): cancels up to 1000 messages that nobody needs any more.';
REVOKE ALL ON FUNCTION partner_portal.tick_cancel_expired(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.tick_forget_deliveries(at timestamptz) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	WITH old AS (
		SELECT n.workspace_id, n.notification_id FROM partner_portal.notification n
		WHERE n.state IN ('delivered', 'cancelled') AND n.finished_at < tick_forget_deliveries.at - interval '90 days'
		LIMIT 1000 FOR UPDATE SKIP LOCKED
	), gone AS (
		DELETE FROM partner_portal.notification n USING old
		WHERE n.workspace_id = old.workspace_id AND n.notification_id = old.notification_id
		RETURNING n.notification_id
	)
	SELECT count(*) FROM gone;
END;
COMMENT ON FUNCTION partner_portal.tick_forget_deliveries(timestamptz) IS
'Step of tick(): deletes up to 1000 messages delivered or cancelled more than 90 days ago. Dead and refused ones stay.';
REVOKE ALL ON FUNCTION partner_portal.tick_forget_deliveries(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.tick_notify_expiring_access(at timestamptz) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	SELECT 0 * partner_portal.notify_expiring_access(tick_notify_expiring_access.at);
END;
COMMENT ON FUNCTION partner_portal.tick_notify_expiring_access(timestamptz) IS 'Step of tick(): mails that access expires in 30, 7 or 1 days.';
REVOKE ALL ON FUNCTION partner_portal.tick_notify_expiring_access(timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.tick_end_expired_access(at timestamptz) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	SELECT partner_portal.end_expired_access(tick_end_expired_access.at)::bigint;
END;
COMMENT ON FUNCTION partner_portal.tick_end_expired_access(timestamptz) IS 'Step of tick(): ends access that has expired.';
REVOKE ALL ON FUNCTION partner_portal.tick_end_expired_access(timestamptz) FROM PUBLIC;

INSERT INTO partner_portal.job_step (position, step) VALUES
	(10, 'tick_close_periods'),
	(20, 'tick_run_billing'),
	(52, 'tick_notify_expiring_access'),
	(54, 'tick_end_expired_access'),
	(60, 'tick_refresh_usage'),
	(80, 'tick_cancel_expired'),
	(90, 'tick_forget_deliveries');

CREATE FUNCTION partner_portal.schedule_jobs(schedule text DEFAULT '*/15 * * * *') RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	job record;
BEGIN
	IF NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator may schedule jobs';
	END IF;
	IF schedule IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'schedule must not be null';
	END IF;
	IF to_regclass('cron.job') IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = 'pg_cron is not installed in this database',
			HINT = 'CREATE EXTENSION pg_cron here, or CALL partner_portal.tick() from another scheduler.';
	END IF;
	FOR job IN SELECT * FROM (VALUES
		('partner_portal tick', schedule, 'CALL partner_portal.tick(now())'),
		('partner_portal deliver', '* * * * *', 'CALL partner_portal.deliver_notifications(10000)')) AS j (name, schedule, command)
	LOOP
		EXECUTE 'SELECT cron.schedule($1, $2, $3)' USING job.name, job.schedule, job.command;
	END LOOP;
END
$$;
COMMENT ON FUNCTION partner_portal.schedule_jobs(text) IS
'Registers with pg_cron, which must be in this database, CALL tick(now()) at a schedule in cron''s form (GMT), and a delivery every minute, which is idle beside the worker. Called again it changes the schedule. Operator only (42501); 55000 without pg_cron; 22023 a malformed schedule. The jobs run as the extension''s owner.';
REVOKE ALL ON FUNCTION partner_portal.schedule_jobs(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.unschedule_jobs() RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator may unschedule jobs';
	END IF;
	IF to_regclass('cron.job') IS NULL THEN
		RETURN;
	END IF;
	EXECUTE $sql$SELECT cron.unschedule(j.jobid) FROM cron.job j
		WHERE j.jobname IN ('partner_portal tick', 'partner_portal deliver') AND j.database = current_database()$sql$;
END
$$;
COMMENT ON FUNCTION partner_portal.unschedule_jobs() IS 'Takes the jobs of schedule_jobs() from pg_cron; nothing to do is no error. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.unschedule_jobs() FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('operator', 'EXECUTE', 'FUNCTION partner_portal.schedule_jobs(text)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.unschedule_jobs()');
-- mail_template.sql: the mails that are not invitations, in English and German, as text and as HTML for mail clients:
-- tables and inline styles only, no script, no picture; every value escaped.

CREATE FUNCTION partner_portal.mail_is_german(locale text) RETURNS boolean
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT coalesce(lower(locale) ~ '^de(-|$)', false);
END;
COMMENT ON FUNCTION partner_portal.mail_is_german(text) IS 'Whether mails of a locale are in German; all others are in English.';
REVOKE ALL ON FUNCTION partner_portal.mail_is_german(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_page(locale text, title text, body text) RETURNS text
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT '<!DOCTYPE html><html lang="' || CASE WHEN partner_portal.mail_is_german(locale) THEN 'de' ELSE 'en' END || '"><head><meta charset="utf-8">'
		|| '<meta name="viewport" content="width=device-width, initial-scale=1"><title>' || partner_portal.html_of(title) || '</title></head>'
		|| '<body style="margin:0;padding:0;background:#f2f4f7">'
		|| '<table role="presentation" width="100%" cellpadding="0" cellspacing="0" style="background:#f2f4f7"><tr><td align="center" style="padding:12px">'
		|| '<table role="presentation" width="100%" cellpadding="0" cellspacing="0" style="max-width:600px;background:#ffffff;border:1px solid #d5dae1">'
		|| '<tr><td style="padding:20px;font-family:Arial,Helvetica,sans-serif;font-size:15px;line-height:1.45;color:#1b2430">'
		|| '<h1 style="margin:0 0 12px;font-size:20px;line-height:1.3">' || partner_portal.html_of(title) || '</h1>'
		|| body || '</td></tr></table></td></tr></table></body></html>';
END;
COMMENT ON FUNCTION partner_portal.mail_page(text, text, text) IS 'A mail''s HTML page around a body that is HTML already.';
REVOKE ALL ON FUNCTION partner_portal.mail_page(text, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_table(heads text[], cells text[]) RETURNS text
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT '<table width="100%" cellpadding="6" cellspacing="0" style="border-collapse:collapse;font-size:14px"><tr>'
		|| (SELECT string_agg('<th align="' || CASE WHEN n = cardinality(heads) AND n > 1 THEN 'right' ELSE 'left' END
				|| '" style="border-bottom:2px solid #1b2430">' || partner_portal.html_of(h) || '</th>', '' ORDER BY n)
			FROM unnest(heads) WITH ORDINALITY AS t (h, n)) || '</tr>'
		|| coalesce((SELECT string_agg(CASE WHEN (n - 1) % cardinality(heads) = 0 THEN '<tr>' ELSE '' END
				|| '<td align="' || CASE WHEN n % cardinality(heads) = 0 AND cardinality(heads) > 1 THEN 'right' ELSE 'left' END
				|| '" style="border-bottom:1px solid #d5dae1;' || CASE WHEN n % cardinality(heads) = 0 AND cardinality(heads) > 1 THEN 'white-space:nowrap' ELSE 'word-break:break-word' END || '">' || coalesce(nullif(partner_portal.html_of(c), ''), '&nbsp;') || '</td>'
				|| CASE WHEN n % cardinality(heads) = 0 THEN '</tr>' ELSE '' END, '' ORDER BY n)
			FROM unnest(cells) WITH ORDINALITY AS t (c, n)), '') || '</table>';
END;
COMMENT ON FUNCTION partner_portal.mail_table(text[], text[]) IS 'An HTML table of cells, row by row; the last column is aligned to the right.';
REVOKE ALL ON FUNCTION partner_portal.mail_table(text[], text[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_bars(labels text[], counts integer[]) RETURNS text
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT '<table width="100%" cellpadding="3" cellspacing="0" style="border-collapse:collapse;font-size:13px">'
		|| string_agg('<tr><td width="34%" style="word-break:break-word">' || partner_portal.html_of(b.label) || '</td><td width="54%">'
			|| CASE WHEN b.width = 0 THEN '&nbsp;' ELSE '<table role="presentation" width="' || b.width || '%" cellpadding="0" cellspacing="0"><tr><td bgcolor="'
				|| CASE WHEN b.n = cardinality(labels) THEN '#0b5cad' ELSE '#7fa9d4' END
				|| '" style="height:14px;line-height:14px;font-size:1px">&nbsp;</td></tr></table>' END
			|| '</td><td width="12%" align="right">' || b.keys || '</td></tr>', '' ORDER BY b.n) || '</table>'
	FROM (SELECT l.label, l.keys, l.n,
			CASE WHEN l.keys <= 0 THEN 0 ELSE greatest(1, round(100.0 * l.keys / max(l.keys) OVER ()))::integer END AS width
		FROM unnest(labels, counts) WITH ORDINALITY AS l (label, keys, n)) b;
END;
COMMENT ON FUNCTION partner_portal.mail_bars(text[], integer[]) IS 'A bar chart of table cells: a label, a bar and the count per row, the last row in the strong colour.';
REVOKE ALL ON FUNCTION partner_portal.mail_bars(text[], integer[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_new_keys(locale text, company_name text, day date, kinds text[], serials text[], labels text[]) RETURNS partner_portal.mail_content
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT ROW(w.title, w.sentence || E'\n\n' || k.lines || E'\n',
		partner_portal.mail_page(mail_new_keys.locale, w.title, '<p>' || partner_portal.html_of(w.sentence) || '</p>' || partner_portal.mail_table(w.heads, k.cells)))::partner_portal.mail_content
	FROM (SELECT CASE WHEN partner_portal.mail_is_german(mail_new_keys.locale)
				THEN format('%s: neue Sicherheitsschlüssel am %s', company_name, to_char(day, 'DD.MM.YYYY'))
				ELSE format('%s: security keys added on %s', company_name, to_char(day, 'YYYY-MM-DD')) END AS title,
			CASE WHEN partner_portal.mail_is_german(mail_new_keys.locale)
				THEN format('An diesem Tag sind bei %s %s Schlüssel hinzugekommen:', company_name, cardinality(serials))
				ELSE format('On this day %s key(s) were added at %s:', cardinality(serials), company_name) END AS sentence,
			CASE WHEN partner_portal.mail_is_german(mail_new_keys.locale) THEN '{Art,Seriennummer,Bezeichnung}'::text[] ELSE '{Kind,Serial,Label}'::text[] END AS heads) w,
		(SELECT string_agg(format('- %s, %s%s', t.kind, t.serial, coalesce(', ' || t.label, '')), E'\n' ORDER BY t.n) FILTER (WHERE c.n = 1) AS lines,
			array_agg(c.cell ORDER BY t.n, c.n) AS cells
		FROM (SELECT CASE s.kind WHEN 'smartphone' THEN 'Smartphone'
					ELSE CASE WHEN partner_portal.mail_is_german(mail_new_keys.locale) THEN 'Kontaktlose Karte' ELSE 'Contactless card' END END AS kind, s.serial, s.label, s.n
				FROM unnest(kinds, serials, labels) WITH ORDINALITY AS s (kind, serial, label, n)) t
		CROSS JOIN LATERAL (VALUES (t.kind, 1), (t.serial, 2), (coalesce(t.label, ''), 3)) AS c (cell, n)) k;
END;
COMMENT ON FUNCTION partner_portal.mail_new_keys(text, text, date, text[], text[], text[]) IS 'The daily list of keys added to a workspace.';
REVOKE ALL ON FUNCTION partner_portal.mail_new_keys(text, text, date, text[], text[], text[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_notice(locale text, title text, sentences text[]) RETURNS partner_portal.mail_content
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT ROW(title, array_to_string(sentences, E'\n\n') || E'\n',
		partner_portal.mail_page(locale, title, (SELECT string_agg('<p>' || partner_portal.html_of(s) || '</p>', '' ORDER BY n)
			FROM unnest(sentences) WITH ORDINALITY AS t (s, n))))::partner_portal.mail_content;
END;
COMMENT ON FUNCTION partner_portal.mail_notice(text, text, text[]) IS 'A mail of a title and a few sentences.';
REVOKE ALL ON FUNCTION partner_portal.mail_notice(text, text, text[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_limit_alert(locale text, company_name text, threshold integer, active_keys integer, key_limit integer, hard boolean DEFAULT true) RETURNS partner_portal.mail_content
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT CASE WHEN partner_portal.mail_is_german(locale) THEN
		partner_portal.mail_notice(locale, format('%s: %s %% der Schlüsselgrenze erreicht', company_name, threshold),
			ARRAY[format('Bei %s sind %s von höchstens %s Sicherheitsschlüsseln aktiv.', company_name, active_keys, key_limit),
				CASE WHEN NOT hard THEN 'Die Grenze wird nur gemeldet: weitere Schlüssel lassen sich aktivieren.' WHEN threshold >= 100 THEN 'Weitere Schlüssel lassen sich nicht aktivieren, solange die Grenze gilt.' ELSE 'Ist die Grenze erreicht, lassen sich keine weiteren aktivieren.' END])
		ELSE
		partner_portal.mail_notice(locale, format('%s: %s %% of the key limit reached', company_name, threshold),
			ARRAY[format('%s of at most %s security keys are active at %s.', active_keys, key_limit, company_name),
				CASE WHEN NOT hard THEN 'The limit is reported only: further keys can be activated.' WHEN threshold >= 100 THEN 'No further key can be activated while the limit is in force.' ELSE 'When the limit is reached, no further key can be activated.' END]) END;
END;
COMMENT ON FUNCTION partner_portal.mail_limit_alert(text, text, integer, integer, integer, boolean) IS 'The alert that a workspace reached 80 or 100 percent of its limit.';
REVOKE ALL ON FUNCTION partner_portal.mail_limit_alert(text, text, integer, integer, integer, boolean) FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_grant_expiry(locale text, company_name text, partner_name text, expires_on date, days integer) RETURNS partner_portal.mail_content
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT CASE WHEN partner_portal.mail_is_german(locale) THEN
		partner_portal.mail_notice(locale, CASE days WHEN 1 THEN format('Der Zugriff von %s endet morgen', partner_name) ELSE format('Der Zugriff von %s endet in %s Tagen', partner_name, days) END,
			ARRAY[format('Der Zugriff von %s auf %s endet am %s.', partner_name, company_name, to_char(expires_on, 'DD.MM.YYYY')), 'Der Inhaber kann ihn verlängern.'])
		ELSE
		partner_portal.mail_notice(locale, CASE days WHEN 1 THEN format('Access of %s ends tomorrow', partner_name) ELSE format('Access of %s ends in %s days', partner_name, days) END,
			ARRAY[format('The access of %s to %s ends on %s.', partner_name, company_name, to_char(expires_on, 'YYYY-MM-DD')), 'The owner can extend it.']) END;
END;
COMMENT ON FUNCTION partner_portal.mail_grant_expiry(text, text, text, date, integer) IS 'The reminder that an access grant ends in 30, 7 or 1 days.';
REVOKE ALL ON FUNCTION partner_portal.mail_grant_expiry(text, text, text, date, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_billing_report(locale text, company_name text, period_label text, invoice_number text, currency text,
	line_texts text[], line_amounts text[], total text, history_labels text[], history_keys integer[]) RETURNS partner_portal.mail_content
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT ROW(w.title,
		w.sentence || E'\n\n' || (SELECT string_agg(format('- %s: %s %s', l.what, l.amount, currency), E'\n' ORDER BY l.n)
				FROM unnest(line_texts, line_amounts) WITH ORDINALITY AS l (what, amount, n))
			|| format(E'\n%s: %s %s\n\n%s\n', w.total, mail_billing_report.total, currency, w.history)
			|| (SELECT string_agg(format('- %s: %s', h.label, h.keys), E'\n' ORDER BY h.n) FROM unnest(history_labels, history_keys) WITH ORDINALITY AS h (label, keys, n)) || E'\n',
		partner_portal.mail_page(locale, w.title, '<p>' || partner_portal.html_of(w.sentence) || '</p>'
			|| partner_portal.mail_table(ARRAY[w.item, currency],
				(SELECT array_agg(c.cell ORDER BY l.n, c.n) FROM unnest(line_texts, line_amounts) WITH ORDINALITY AS l (what, amount, n)
					CROSS JOIN LATERAL (VALUES (l.what, 1), (l.amount, 2)) AS c (cell, n)) || ARRAY[w.total, mail_billing_report.total])
			|| '<h2 style="margin:20px 0 8px;font-size:16px">' || partner_portal.html_of(w.history) || '</h2>'
			|| partner_portal.mail_bars(history_labels, history_keys)))::partner_portal.mail_content
	FROM (SELECT CASE WHEN de THEN format('%s: Abrechnung %s', company_name, period_label) ELSE format('%s: billing report %s', company_name, period_label) END AS title,
			CASE WHEN de THEN format('Die Rechnung %s für den Zeitraum %s ist ausgestellt.', invoice_number, period_label)
				ELSE format('Invoice %s for the period %s has been issued.', invoice_number, period_label) END AS sentence,
			CASE WHEN de THEN 'Position' ELSE 'Item' END AS item,
			CASE WHEN de THEN 'Gesamt' ELSE 'Total' END AS total,
			CASE WHEN de THEN 'Schlüssel je Abrechnungszeitraum' ELSE 'Keys per billing period' END AS history
		FROM partner_portal.mail_is_german(locale) AS de) w;
END;
COMMENT ON FUNCTION partner_portal.mail_billing_report(text, text, text, text, text, text[], text[], text, text[], integer[]) IS
'The monthly billing report: a table of the invoice''s lines and a bar chart of the keys per period, oldest first.';
REVOKE ALL ON FUNCTION partner_portal.mail_billing_report(text, text, text, text, text, text[], text[], text, text[], integer[]) FROM PUBLIC;
-- notice.sql: who is told what by mail: limit alerts, the daily list of new keys, the monthly billing report.

CREATE TABLE partner_portal.mail_opt_out (
	workspace_id bigint NOT NULL,
	account_id bigint NOT NULL,
	list text NOT NULL,
	token text NOT NULL DEFAULT translate(encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64'), '+/=', '-_'),
	opted_out_at timestamptz,
	CONSTRAINT mail_opt_out_pkey PRIMARY KEY (workspace_id, account_id, list),
	CONSTRAINT mail_opt_out_token_key UNIQUE (token),
	CONSTRAINT mail_opt_out_account FOREIGN KEY (account_id) REFERENCES partner_portal.account,
	CONSTRAINT mail_opt_out_list CHECK (list IN ('new_keys', 'billing_report'))
);
CREATE INDEX mail_opt_out_account_id ON partner_portal.mail_opt_out (account_id);
COMMENT ON TABLE partner_portal.mail_opt_out IS 'Who gets the mails of a list (RFC 8058), with the token of the link in them; opted_out_at NULL is who still does.';

-- How far the daily lists of a workspace have got; a row is made when notify_new_keys is first seen on.
CREATE TABLE partner_portal.new_keys_digest (
	workspace_id bigint NOT NULL,
	done_until date NOT NULL,
	CONSTRAINT new_keys_digest_pkey PRIMARY KEY (workspace_id),
	CONSTRAINT new_keys_digest_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace ON DELETE CASCADE
);
COMMENT ON TABLE partner_portal.new_keys_digest IS 'Last local day whose list of new keys is owed or was empty, per workspace with notify_new_keys.';

ALTER TABLE partner_portal.mail_opt_out ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.new_keys_digest ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('partner_portal.mail_opt_out', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.new_keys_digest', '');

CREATE FUNCTION partner_portal.mail_recipients(workspace_id bigint, roles text[])
	RETURNS TABLE (account_id bigint, email text, locale text)
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT a.account_id, a.email, a.locale
	FROM partner_portal.member m JOIN partner_portal.account a ON a.account_id = m.account_id
	WHERE m.workspace_id = mail_recipients.workspace_id AND m.role = ANY (roles) AND m.accepted_at IS NOT NULL
		AND a.disabled_at IS NULL AND a.erased_at IS NULL;
END;
COMMENT ON FUNCTION partner_portal.mail_recipients(bigint, text[]) IS 'Accounts of a workspace that mail goes to. Internal.';
REVOKE ALL ON FUNCTION partner_portal.mail_recipients(bigint, text[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.enqueue_list_mail(workspace_id bigint, list text, dedupe_key text, account_id bigint, email text, locale text, mail partner_portal.mail_content) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	entry partner_portal.mail_opt_out;
BEGIN
	INSERT INTO partner_portal.mail_opt_out (workspace_id, account_id, list)
	VALUES (enqueue_list_mail.workspace_id, enqueue_list_mail.account_id, enqueue_list_mail.list)
	ON CONFLICT ON CONSTRAINT mail_opt_out_pkey DO NOTHING;
	SELECT * INTO STRICT entry FROM partner_portal.mail_opt_out o
	WHERE o.workspace_id = enqueue_list_mail.workspace_id AND o.account_id = enqueue_list_mail.account_id AND o.list = enqueue_list_mail.list;
	IF entry.opted_out_at IS NOT NULL THEN
		RETURN NULL;
	END IF;
	RETURN partner_portal.enqueue_mail(enqueue_list_mail.workspace_id, enqueue_list_mail.list, enqueue_list_mail.dedupe_key || ':' || enqueue_list_mail.account_id,
		enqueue_list_mail.email, enqueue_list_mail.locale, enqueue_list_mail.mail,
		unsubscribe_url => rtrim(current_setting('partner_portal.link_base_url'), '/') || '/unsubscribe/' || entry.token);
END
$$;
COMMENT ON FUNCTION partner_portal.enqueue_list_mail(bigint, text, text, bigint, text, text, partner_portal.mail_content) IS
'Owes one mail of a list to one account, unless it has opted out; with the link to do so. Internal.';
REVOKE ALL ON FUNCTION partner_portal.enqueue_list_mail(bigint, text, text, bigint, text, text, partner_portal.mail_content) FROM PUBLIC;

CREATE FUNCTION partner_portal.unsubscribe(token text) RETURNS boolean
	LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
	UPDATE partner_portal.mail_opt_out o SET opted_out_at = coalesce(o.opted_out_at, now()) WHERE o.token = $1 RETURNING true
$$;
COMMENT ON FUNCTION partner_portal.unsubscribe(text) IS
'Takes an account off one list of one workspace by the token in the mail''s List-Unsubscribe (<partner_portal.link_base_url>/unsubscribe/<token>); needs nobody signed in. NULL if there is no such token.';
REVOKE ALL ON FUNCTION partner_portal.unsubscribe(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.notify_limit_alert() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	company text;
	hard boolean;
BEGIN
	IF partner_portal.restoring_session() THEN
		RETURN NULL;
	END IF;
	SELECT w.company_name, w.limit_mode = 'hard' INTO company, hard FROM partner_portal.workspace w WHERE w.workspace_id = NEW.workspace_id;
	PERFORM partner_portal.enqueue_mail(NEW.workspace_id, 'limit_alert', format('%s:%s:%s', NEW.period_start, NEW.threshold, r.account_id), r.email, r.locale,
		partner_portal.mail_limit_alert(r.locale, company, NEW.threshold, NEW.active_keys, NEW.key_limit, hard))
	FROM (SELECT * FROM partner_portal.mail_recipients(NEW.workspace_id, '{owner,administrator}')
		UNION SELECT * FROM partner_portal.mail_recipients(NEW.partner_key, '{owner,administrator}')) r;
	PERFORM partner_portal.enqueue_webhook_event(NEW.workspace_id, 'limit.alert',
		jsonb_build_object('threshold', NEW.threshold, 'active_keys', NEW.active_keys, 'key_limit', NEW.key_limit),
		format('%s:%s', NEW.period_start, NEW.threshold));
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.notify_limit_alert() IS
'Trigger of limit_alert: mails to owners and administrators of the workspace and of its partner, and the event limit.alert.';
REVOKE ALL ON FUNCTION partner_portal.notify_limit_alert() FROM PUBLIC;
CREATE TRIGGER notify AFTER INSERT ON partner_portal.limit_alert FOR EACH ROW EXECUTE FUNCTION partner_portal.notify_limit_alert();

CREATE FUNCTION partner_portal.notify_invoice() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	labels text[];
	keys integer[];
	texts text[];
	amounts text[];
BEGIN
	IF partner_portal.restoring_session() THEN
		RETURN NULL;
	END IF;
	PERFORM partner_portal.enqueue_webhook_event(t.workspace_id, 'invoice.finalized',
		jsonb_build_object('invoice_id', NEW.invoice_id, 'invoice_number', NEW.invoice_number, 'customer_id', NEW.workspace_id, 'period', NEW.period_label,
			'currency', NEW.currency, 'total_minor', NEW.total_minor), NEW.invoice_id::text)
	FROM (SELECT NEW.payer_id AS workspace_id UNION SELECT NEW.workspace_id WHERE NEW.workspace_sees) t;
	IF NOT EXISTS (SELECT FROM partner_portal.workspace w
			WHERE w.notify_billing AND (w.workspace_id = NEW.payer_id OR (w.workspace_id = NEW.workspace_id AND NEW.workspace_sees))) THEN
		RETURN NULL;
	END IF;
	SELECT array_agg(l.text ORDER BY l.line), array_agg(partner_portal.money_text(l.amount_minor, NEW.minor_digits) ORDER BY l.line) INTO texts, amounts
	FROM partner_portal.invoice_line l WHERE l.workspace_id = NEW.workspace_id AND l.invoice_id = NEW.invoice_id;
	SELECT array_agg(h.label ORDER BY h.period_start), array_agg(h.keys ORDER BY h.period_start) INTO labels, keys
	FROM (SELECT p.period_start, p.label, CASE WHEN p.period_start = NEW.period_start THEN NEW.keys_billed ELSE u.distinct_keys END AS keys
		FROM partner_portal.billing_period p
		JOIN partner_portal.usage_period u ON u.workspace_id = p.workspace_id AND u.period_start = p.period_start AND u.kind = 'total'
		WHERE p.workspace_id = NEW.workspace_id AND p.partner_key = NEW.partner_key AND p.period_start <= NEW.period_start
		ORDER BY p.period_start DESC LIMIT 12) h;
	PERFORM partner_portal.enqueue_list_mail(w.workspace_id, 'billing_report', NEW.invoice_id::text, r.account_id, r.email, r.locale,
		partner_portal.mail_billing_report(r.locale, NEW.company_name, NEW.period_label, NEW.invoice_number, NEW.currency,
			coalesce(texts, '{}'), coalesce(amounts, '{}'), partner_portal.money_text(NEW.total_minor, NEW.minor_digits), labels, keys))
	FROM partner_portal.workspace w
	CROSS JOIN LATERAL partner_portal.mail_recipients(w.workspace_id, '{owner}') r
	WHERE w.notify_billing AND (w.workspace_id = NEW.payer_id OR (w.workspace_id = NEW.workspace_id AND NEW.workspace_sees));
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.notify_invoice() IS
'Trigger of invoice: when one becomes final, the monthly report to the owners of the payer, and of the workspace if it sees the document, where notify_billing is on; and the event invoice.finalized.';
REVOKE ALL ON FUNCTION partner_portal.notify_invoice() FROM PUBLIC;
CREATE TRIGGER notify AFTER UPDATE OF status ON partner_portal.invoice FOR EACH ROW
	WHEN (NEW.status = 'final' AND OLD.status <> 'final' AND NEW.document = 'invoice') EXECUTE FUNCTION partner_portal.notify_invoice();

CREATE FUNCTION partner_portal.tick_new_keys(at timestamptz) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	place record;
	done bigint := 0;
BEGIN
	INSERT INTO partner_portal.new_keys_digest (workspace_id, done_until)
	SELECT w.workspace_id, (tick_new_keys.at AT TIME ZONE w.time_zone)::date - 1 FROM partner_portal.workspace w
	WHERE w.notify_new_keys AND w.deleted_at IS NULL
	ON CONFLICT ON CONSTRAINT new_keys_digest_pkey DO NOTHING;
	DELETE FROM partner_portal.new_keys_digest d USING partner_portal.workspace w
	WHERE w.workspace_id = d.workspace_id AND (NOT w.notify_new_keys OR w.deleted_at IS NOT NULL);
	FOR place IN
		SELECT d.workspace_id, d.done_until + 1 AS day, w.company_name, w.time_zone
		FROM partner_portal.new_keys_digest d JOIN partner_portal.workspace w ON w.workspace_id = d.workspace_id
		WHERE d.done_until + 1 < (tick_new_keys.at AT TIME ZONE w.time_zone)::date
		ORDER BY d.workspace_id LIMIT 1000
		FOR UPDATE OF d SKIP LOCKED
	LOOP
		PERFORM partner_portal.enqueue_list_mail(place.workspace_id, 'new_keys', place.day::text, r.account_id, r.email, r.locale,
			partner_portal.mail_new_keys(r.locale, place.company_name, place.day, k.kinds, k.serials, k.labels))
		FROM (SELECT array_agg(k.kind ORDER BY k.created_at, k.key_id) AS kinds, array_agg(k.serial ORDER BY k.created_at, k.key_id) AS serials,
				array_agg(k.label ORDER BY k.created_at, k.key_id) AS labels
			FROM (SELECT * FROM partner_portal.security_key k
				WHERE k.workspace_id = place.workspace_id
					AND k.created_at >= place.day::timestamp AT TIME ZONE place.time_zone AND k.created_at < (place.day + 1)::timestamp AT TIME ZONE place.time_zone
				ORDER BY k.created_at, k.key_id LIMIT 500) k) k
		CROSS JOIN LATERAL partner_portal.mail_recipients(place.workspace_id, '{owner,administrator}') r
		WHERE k.serials IS NOT NULL;
		UPDATE partner_portal.new_keys_digest d SET done_until = place.day WHERE d.workspace_id = place.workspace_id;
		done := done + 1;
	END LOOP;
	RETURN done;
END
$$;
COMMENT ON FUNCTION partner_portal.tick_new_keys(timestamptz) IS
'Step of tick(): for each workspace with notify_new_keys and each local day that is over, in order, the list of keys added that day (the first 500), if there are any, to its owners and administrators. Days before the setting was first seen on are left out.';
REVOKE ALL ON FUNCTION partner_portal.tick_new_keys(timestamptz) FROM PUBLIC;

INSERT INTO partner_portal.job_step (position, step) VALUES (40, 'tick_new_keys');
INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.unsubscribe(text)');
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
-- drop_guard.sql: the extension is not dropped while it holds data.

CREATE FUNCTION partner_portal.drop_guard() RETURNS event_trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_drop_guard';
COMMENT ON FUNCTION partner_portal.drop_guard() IS
'Event trigger: has the library loaded before anything is dropped. The library then refuses (2BP01) whatever would drop the extension while there is a workspace or an account, unless partner_portal.allow_drop is on.';
REVOKE ALL ON FUNCTION partner_portal.drop_guard() FROM PUBLIC;

-- Every command that may drop what the extension depends on.
CREATE EVENT TRIGGER partner_portal_drop_guard ON ddl_command_start
	WHEN TAG IN ('DROP EXTENSION', 'DROP OWNED', 'DROP SCHEMA', 'DROP LANGUAGE', 'DROP TABLE', 'DROP VIEW', 'DROP MATERIALIZED VIEW', 'DROP FOREIGN TABLE',
		'DROP SEQUENCE', 'DROP TYPE', 'DROP DOMAIN', 'DROP FUNCTION', 'DROP PROCEDURE', 'DROP ROUTINE', 'DROP AGGREGATE', 'DROP OPERATOR', 'DROP OPERATOR CLASS',
		'DROP OPERATOR FAMILY', 'DROP CAST', 'DROP CONVERSION', 'DROP COLLATION', 'DROP ACCESS METHOD', 'DROP FOREIGN DATA WRAPPER', 'DROP SERVER', 'DROP TRANSFORM')
	EXECUTE FUNCTION partner_portal.drop_guard();
COMMENT ON EVENT TRIGGER partner_portal_drop_guard IS 'Has the library of partner_portal loaded before anything is dropped, so that it can refuse.';
