-- input.sql: how functions check what people give them. Internal: nobody is granted these.

CREATE FUNCTION partner_portal.checked_text(argument text, value text, max_length integer) RETURNS text
	LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_checked_text';
COMMENT ON FUNCTION partner_portal.checked_text(text, text, integer) IS
'Returns a one-line text as given. 22004 NULL, 22001 more than max_length characters, 22023 blank, or with characters that are not seen: controls, and in a UTF8 database marks, embeddings, overrides and isolates of direction, zero width spaces and fillers, tags but for the flags of England, Scotland and Wales, and joiners and variation selectors where no script needs them.';
REVOKE ALL ON FUNCTION partner_portal.checked_text(text, text, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.has_controls(value text) RETURNS boolean
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_has_controls';
COMMENT ON FUNCTION partner_portal.has_controls(text) IS
'Whether a text of several lines has characters that are not seen, as in checked_text(), other than tabs and line ends.';
REVOKE ALL ON FUNCTION partner_portal.has_controls(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.checked_port(argument text, url text) RETURNS text
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_checked_port';
COMMENT ON FUNCTION partner_portal.checked_port(text, text) IS
'Returns an address as given. 22023 it names a port that is not between 1 and 65535.';
REVOKE ALL ON FUNCTION partner_portal.checked_port(text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.check_names() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_check_names';
COMMENT ON FUNCTION partner_portal.check_names() IS
'Trigger, with names of columns: 22023 for a text written there with characters that are not seen, as in checked_text(). A restored row, and a text that stays, may have them.';
REVOKE ALL ON FUNCTION partner_portal.check_names() FROM PUBLIC;

CREATE FUNCTION partner_portal.check_addresses() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_check_addresses';
COMMENT ON FUNCTION partner_portal.check_addresses() IS
'Trigger, with names of columns: 22023 for an address written there whose port is not between 1 and 65535. A restored row, and an address that stays, may have one.';
REVOKE ALL ON FUNCTION partner_portal.check_addresses() FROM PUBLIC;

CREATE FUNCTION partner_portal.checked_email(email text) RETURNS text
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
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
