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
				':root{color-scheme:light dark;--page:#f4f5f7;--card:#fff;--ink:#1c2430;--soft:#566172;--line:#d5dae1;--edge:#7b8696;--link:#0b4a9e;--lift:0 1px 2px #1c243014,0 8px 24px #1c243014}'
				'@media(prefers-color-scheme:dark){:root{--page:#12161c;--card:#1b2129;--ink:#e8ebf0;--soft:#a5afbd;--line:#343d49;--edge:#7d8896;--link:#9cc2ff;--lift:none}}'
				'*{box-sizing:border-box}html{font:100%/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;color:var(--ink);background:var(--page);-webkit-text-size-adjust:100%}'
				'body{margin:0;overflow-wrap:anywhere}h1,h2,h3{line-height:1.25;text-wrap:balance}a{color:var(--link);text-underline-offset:.15em}'
				':focus-visible{outline:3px solid #1c2430;outline-offset:2px;box-shadow:0 0 0 6px #fff}'
				'.brand{background:' || color || ';color:' || partner_portal.text_on(color) || '}.brand a{color:inherit}'
				'.skip{position:absolute;left:-10000px;top:0;background:#fff;color:#1c2430;padding:.5rem 1rem;z-index:1}.skip:focus{left:0}'
				'.login{min-height:100vh;min-height:100svh;display:flex;flex-direction:column;align-items:center;justify-content:center;gap:1.75rem;padding:2rem 1rem}'
				'.login h1{margin:0;font-size:clamp(1.5rem,1.1rem + 2.2vw,2.25rem);text-align:center;max-width:40rem}'
				'.card{background:var(--card);color:var(--ink);width:100%;max-width:25rem;padding:2rem;border-radius:1rem;border:1px solid var(--line);box-shadow:var(--lift)}'
				'.card h2{margin:0 0 1.25rem;font-size:1.25rem}label{display:block;font-size:.9375rem;font-weight:600;margin:0 0 .35rem}'
				'input{display:block;width:100%;font:inherit;padding:.65rem .8rem;margin:0 0 1.1rem;border:1px solid var(--edge);border-radius:.5rem;background:var(--card);color:inherit}'
				'button{width:100%;font:inherit;font-weight:600;margin:.4rem 0 0;padding:.75rem 1rem;border:1px solid var(--edge);border-radius:.5rem;cursor:pointer}button[disabled]{cursor:default}'
				'.bar{border-bottom:1px solid var(--line)}.bar div{max-width:72rem;margin:0 auto;display:flex;flex-wrap:wrap;gap:.25rem 1.5rem;align-items:center;justify-content:space-between;padding:1rem 1.5rem}'
				'.bar h1{margin:0;font-size:1.25rem}.cover{display:block;width:100%;height:clamp(8rem,24vw,18rem);object-fit:cover;background:var(--line)}'
				'main.home{max-width:72rem;margin:0 auto;padding:2rem 1.5rem 4rem}main.home:focus{outline:none;box-shadow:none}.home h2{margin:0 0 1.25rem;font-size:1.5rem}'
				'.folders{display:grid;gap:1.25rem;align-items:start;grid-template-columns:repeat(auto-fill,minmax(min(18rem,100%),1fr))}'
				'.folders section{background:var(--card);border:1px solid var(--line);border-radius:.875rem;overflow:hidden}'
				'.folders h3{margin:0;padding:1rem 1.25rem .75rem;font-size:1rem}.folders ul{list-style:none;margin:0;padding:0}'
				'.folders li a{display:block;padding:.65rem 1.25rem;border-top:1px solid var(--line);text-decoration:none}.folders li a:hover{text-decoration:underline;background:var(--page)}'
				'.folders .none{padding:.65rem 1.25rem;border-top:1px solid var(--line)}.none{color:var(--soft);margin:0}'
				'div.none{text-align:center;padding:3rem 1.5rem;border:2px dashed var(--line);border-radius:.875rem}.none strong{display:block;color:var(--ink);margin:0 0 .25rem}'
				'.note{margin:0;padding:.5rem 1.5rem;font-size:.875rem;text-align:center;color:var(--soft);background:var(--card);border-bottom:1px solid var(--line)}'
				'@media(max-width:30rem){.card{padding:1.5rem 1.25rem}.bar div{padding:.85rem 1rem}main.home{padding:1.5rem 1rem 3rem}.folders h3,.folders li a,.folders .none{padding-left:1rem;padding-right:1rem}}'
				'@media print{.skip,.bar nav,.login{display:none}.folders section{break-inside:avoid}}')),
		xmlelement(name body, body)) AS text);
END;
COMMENT ON FUNCTION partner_portal.portal_page(text, text, xml) IS 'A complete HTML page in a portal''s colour. Internal.';
REVOKE ALL ON FUNCTION partner_portal.portal_page(text, text, xml) FROM PUBLIC;

CREATE FUNCTION partner_portal.login_part(name text, live boolean) RETURNS xml
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT xmlelement(name div, xmlattributes('login brand' AS class),
		xmlelement(name h1, name),
		xmlelement(name form, xmlattributes('card' AS class, 'post' AS method, CASE WHEN live THEN '/login' END AS action, 'sign-in' AS "aria-labelledby"),
			xmlelement(name h2, xmlattributes('sign-in' AS id), 'Sign in'),
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
		xmlelement(name header, xmlattributes('bar brand' AS class), xmlelement(name div,
			xmlelement(name h1, name),
			xmlelement(name nav, xmlattributes('Account' AS "aria-label"), xmlelement(name a, xmlattributes(logout_url AS href), 'Log out')))),
		CASE WHEN home_cover_url IS NOT NULL THEN xmlelement(name img, xmlattributes('cover' AS class, home_cover_url AS src, '' AS alt)) END,
		xmlelement(name main, xmlattributes('home' AS class, 'main' AS id, -1 AS tabindex),
			xmlelement(name h2, 'Reports'),
			CASE WHEN folders IS NULL THEN xmlelement(name div, xmlattributes('none' AS class), xmlelement(name strong, 'Nothing has been shared yet'),
				'Reports that are shared with you will be listed here.')
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
	RETURN partner_portal.portal_page('Sign in - ' || shown.name, shown.color, xmlelement(name main, partner_portal.login_part(shown.name, true)));
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
			xmlelement(name p, xmlattributes('none' AS class), 'No reports yet'))) ORDER BY o.path, o.folder_id)
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
	RETURN partner_portal.portal_page('Preview - ' || name, color, xmlconcat(
		xmlelement(name p, xmlattributes('note' AS class), 'Preview of the login page and, below it, the home page. Nothing is saved.'),
		partner_portal.login_part(name, false),
		partner_portal.home_part(name, logout_url, home_cover_url, xmlelement(name section,
			xmlelement(name h3, 'Folder'), xmlelement(name p, xmlattributes('none' AS class), 'Address of this portal: https://' || technical_name || '.' || current_setting('partner_portal.portal_domain') || '/')))));
END
$$;
COMMENT ON FUNCTION partner_portal.preview_portal(text, text, text, text, text) IS
'Login page and, below it, home page of a portal with these values, which are not saved, as one complete HTML page whose form can''t be sent. For whoever is signed in. 42501; 22004, 22001, 22023 as create_portal(); whether the technical name is free or reserved is not asked.';
REVOKE ALL ON FUNCTION partner_portal.preview_portal(text, text, text, text, text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.portal_login_page(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.portal_home_page(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.preview_portal(text, text, text, text, text)');
