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
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
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

CREATE FUNCTION partner_portal.done_as_meant(done bigint, meant bigint) RETURNS boolean
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF done <> meant THEN
		RAISE EXCEPTION USING ERRCODE = 'serialization_failure', MESSAGE = 'users of the portal changed meanwhile',
			DETAIL = format('%s of %s changes could be made.', done, meant), HINT = 'Nothing was done; try again.';
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION partner_portal.done_as_meant(bigint, bigint) IS 'True; 40001 when fewer changes were made than were meant, since somebody accepted, withdrew or left meanwhile. Internal.';
REVOKE ALL ON FUNCTION partner_portal.done_as_meant(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.bulk_update_portal_users(portal_id bigint, csv text, dry_run boolean DEFAULT false, on_error text DEFAULT 'abort',
		OUT line integer, OUT email text, OUT outcome text, OUT message text) RETURNS SETOF record
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
#variable_conflict use_column
DECLARE
	asked partner_portal.portal := partner_portal.portal_for_users(portal_id);
	heading record;
	columns text[];
	email_at integer;
	role_at integer;
	-- what the invitations have in common; in their mails the token takes the place of another
	specimen partner_portal.invitation;
	in_place_of text := partner_portal.new_token();
	inviter text := (SELECT w.company_name FROM partner_portal.workspace w WHERE w.workspace_id = asked.workspace_id);
	inviters_locale text := (SELECT a.locale FROM partner_portal.account a WHERE a.account_id = coalesce(partner_portal.current_account_id(),
		(SELECT m.account_id FROM partner_portal.member m WHERE m.workspace_id = asked.workspace_id AND m.role = 'owner' AND m.accepted_at IS NOT NULL
		ORDER BY m.accepted_at, m.account_id LIMIT 1)));
	link text := rtrim(current_setting('partner_portal.link_base_url'), '/') || '/invitation/' || in_place_of;
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
	specimen.workspace_id := asked.workspace_id;
	specimen.kind := 'portal';
	specimen.details := '{}';
	specimen.expires_at := clock_timestamp() + current_setting('partner_portal.invitation_lifetime')::interval;

	-- whoever answers an invitation of these comes before this, or after
	PERFORM FROM partner_portal.invitation i
	WHERE i.workspace_id = asked.workspace_id AND i.portal_id = asked.portal_id AND i.kind = 'portal' AND i.state = 'pending' AND NOT dry_run
		AND lower(i.email COLLATE "C") IN (SELECT lower(partner_portal.unshielded_cell(btrim(l.fields[email_at])) COLLATE "C") FROM partner_portal.csv_lines(csv) l)
	FOR UPDATE OF i;

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
		SELECT e.line, e.email, e.role, c.attributes, p.account_id, i.invitation_id, p.ctid AS user_at, i.ctid AS invitation_at, a.locale, CASE
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
			NOT dry_run AND (on_error = 'skip' OR count(v.problem) = 0) AS taken,
			count(*) FILTER (WHERE v.problem IS NULL AND NOT (v.same AND coalesce(v.account_id, v.invitation_id) IS NOT NULL)) AS meant
		FROM verdict v
	-- by place, so that a table without statistics is not gone through for every line
	), changed_user AS (
		UPDATE partner_portal.portal_account p SET role = v.role, attributes = v.attributes
		FROM verdict v, step s
		WHERE s.taken AND v.problem IS NULL AND NOT v.same AND p.ctid = v.user_at AND p.workspace_id = asked.workspace_id AND p.portal_id = asked.portal_id
		RETURNING 1
	), changed_invitation AS (
		UPDATE partner_portal.invitation i SET role = v.role, details = i.details || jsonb_build_object('attributes', v.attributes)
		FROM verdict v, step s
		WHERE s.taken AND v.problem IS NULL AND NOT v.same AND i.ctid = v.invitation_at AND i.workspace_id = asked.workspace_id AND i.state = 'pending'
		RETURNING 1
	), fresh AS MATERIALIZED (
		SELECT nextval('partner_portal.invitation_invitation_id_seq') AS invitation_id, v.email, v.role, v.attributes, coalesce(v.locale, inviters_locale, 'en') AS locale,
			partner_portal.new_token() AS token
		FROM verdict v, step s
		WHERE s.taken AND v.problem IS NULL AND v.account_id IS NULL AND v.invitation_id IS NULL
	), made AS (
		INSERT INTO partner_portal.invitation (workspace_id, invitation_id, partner_key, kind, email, role, portal_id, details, invited_by, expires_at, token_hash)
		OVERRIDING SYSTEM VALUE
		SELECT asked.workspace_id, f.invitation_id, 0, 'portal', f.email, f.role, asked.portal_id, jsonb_build_object('attributes', f.attributes), partner_portal.current_account_id(),
			specimen.expires_at, sha256(f.token::bytea)
		FROM fresh f
		ON CONFLICT DO NOTHING
		RETURNING 1
	), letter AS MATERIALIZED (
		SELECT l.locale, partner_portal.mail_invitation(l.locale, specimen, inviter, link) AS mail FROM (SELECT DISTINCT f.locale FROM fresh f) l
	), mailed AS (
		INSERT INTO partner_portal.notification AS n (workspace_id, partner_key, kind, dedupe_key, recipient, locale, subject, text_body, html_body, secret, expires_at)
		SELECT asked.workspace_id, coalesce((SELECT w.partner_key FROM partner_portal.workspace w WHERE w.workspace_id = asked.workspace_id), 0), 'invitation',
			format('%s:1:1', f.invitation_id), f.email, l.locale, (l.mail).subject, replace((l.mail).text_body, in_place_of, f.token),
			replace((l.mail).html_body, in_place_of, f.token), f.token, specimen.expires_at
		FROM fresh f JOIN letter l ON l.locale = f.locale
		RETURNING n.workspace_id, n.notification_id
	), queued AS (
		INSERT INTO partner_portal.delivery_queue AS q (workspace_id, notification_id, destination)
		SELECT m.workspace_id, m.notification_id, 0 FROM mailed m
		RETURNING 1
	), done AS MATERIALIZED (
		SELECT (SELECT count(*) FROM changed_user) + (SELECT count(*) FROM changed_invitation) + (SELECT count(*) FROM made) AS n
	)
	SELECT v.line, left(v.email, 320), CASE WHEN v.problem IS NOT NULL THEN 'error' WHEN v.account_id IS NULL AND v.invitation_id IS NULL THEN 'invited' WHEN v.same THEN 'unchanged' ELSE 'updated' END,
		CASE WHEN v.problem IS NOT NULL THEN v.problem WHEN NOT s.taken AND NOT dry_run THEN format('nothing was done, since line %s is in error', s.bad_line) END
	FROM verdict v, step s, done
	WHERE partner_portal.done_as_meant(done.n, CASE WHEN s.taken THEN s.meant ELSE 0 END)
	ORDER BY v.line;
END
$$;
COMMENT ON FUNCTION partner_portal.bulk_update_portal_users(bigint, text, boolean, text) IS
'Invites and changes users of a portal by a CSV file (RFC 4180; byte order mark, any line ends): columns email, role (viewer or editor) and any attributes by technical name, in any order. Who is neither a user nor invited is invited; who is gets the role and the attributes of the columns that are there, an empty cell takes a value away. Several values are parted by semicolons (\; is one within a value). An apostrophe before = + - @, a tab or CR shields text from spreadsheets and is not part of the value.
One row per line that is not empty, with the line it begins on: outcome invited, updated, unchanged or error, and a message. With on_error abort nothing is done when any line is in error, and every message says so; skip does the others. dry_run does nothing and says what would be. A bad heading is one error, and nothing is done. Invitations made so are not counted by partner_portal.invitations_per_hour.
For the partner''s owner or administrator. 42501, P0002; 22004, 22023; 40001 a user came or went meanwhile, and nothing was done; PP005 the partner is deleted.';
REVOKE ALL ON FUNCTION partner_portal.bulk_update_portal_users(bigint, text, boolean, text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.portal_users_csv(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.bulk_update_portal_users(bigint, text, boolean, text)');
