\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept portal_page
\i :begin
\i :as
-- partners 1 and 2; portals 1 and 2 of 1; account 3 a plain member of 1, 4 a user of portal 1
SELECT (partner_portal.create_workspace(n, n || '@example.com')).workspace_id FROM unnest(ARRAY['p1', 'p2']) AS n;
SELECT (partner_portal.promote_to_partner(w)).partner_id FROM generate_series(1, 2) AS w;
SELECT (partner_portal.add_member(1, 'm3@example.com', 'member')).account_id;
\set hostile '</title></style><script>alert(1)</script><img src=x onerror=alert(2)>"''&amp;{{}}'
SELECT (partner_portal.create_portal(1, :'hostile', 'hostile', '#0055AA', 'https://example.com/bye?a=1&b=''2''', 'https://example.com/c.png?x=1&y=2')).portal_id;
SELECT (partner_portal.create_portal(1, 'Plain', 'plain', '#ffffff', 'https://example.com/')).portal_id;
INSERT INTO partner_portal.account (email) VALUES ('u4@example.com');
INSERT INTO partner_portal.portal_account (workspace_id, portal_id, account_id, role) VALUES (1, 1, 4, 'viewer');
INSERT INTO partner_portal.folder (workspace_id, parent_id, name) VALUES (1, NULL, 'Sales <b>'), (1, 1, 'North'), (1, NULL, 'Internal');
INSERT INTO partner_portal.report (workspace_id, folder_id, title) VALUES (1, 1, 'Q1 & "Q2"'), (1, 2, :'hostile'), (1, 3, 'Secret');
SELECT (partner_portal.share_folder(1, 1)).may_edit;
SELECT (partner_portal.share_folder(2, 1)).may_edit;

-- the pages as they are
SELECT run_as(NULL, :app, 'SELECT partner_portal.portal_login_page($$hostile$$)');
SELECT partner_portal.portal_home_page(1);
SELECT partner_portal.preview_portal('Not saved', 'not-saved', '#ffee00', 'https://example.com/', NULL);
-- who may see them
SELECT run_as(n, :app, 'SELECT length(partner_portal.portal_home_page(1)) > 1000') FROM unnest(ARRAY[NULL, 1, 2, 3, 4]) AS n;
BEGIN;
SELECT partner_portal.login_as(4);
SELECT partner_portal.act_in_portal(1);
SELECT partner_portal.portal_home_page(1) LIKE '%/report/1%', partner_portal.portal_home_page(1) LIKE '%Secret%';
ROLLBACK;
SELECT run_as(1, :app, 'SELECT partner_portal.portal_home_page(99)'), run_as(1, :app, 'SELECT partner_portal.portal_home_page(NULL)'), run_as(1, :app, 'SELECT partner_portal.portal_home_page(2) LIKE $$%Nothing has been shared yet%$$');
SELECT run_as(NULL, :app, 'SELECT partner_portal.portal_login_page($$nothing$$)'), run_as(NULL, :app, 'SELECT partner_portal.portal_login_page(NULL)'), run_as(NULL, :app, 'SELECT length(partner_portal.portal_login_page($$PLAIN$$)) > 1000');
SELECT run_as(NULL, :app, $$SELECT partner_portal.preview_portal('x', 'x', '#000000', 'https://example.com/')$$), run_as(4, :app, $$SELECT partner_portal.preview_portal('x', 'x', 'red', 'https://example.com/')$$),
	run_as(4, :app, $$SELECT partner_portal.preview_portal('x', 'x', '#000000', 'javascript:alert(1)')$$), run_as(4, :app, $$SELECT length(partner_portal.preview_portal('x', 'x', '#000000', 'https://example.com/')) > 1000$$);
-- the text on every colour has a contrast of 4.5 at the least
WITH color AS (
	SELECT '#' || lpad(to_hex(r), 2, '0') || lpad(to_hex(g), 2, '0') || lpad(to_hex(b), 2, '0') AS color, ARRAY[r, g, b] AS rgb
	FROM generate_series(0, 255, 15) r, generate_series(0, 255, 15) g, generate_series(0, 255, 15) b
), luminance AS (
	SELECT color, (SELECT sum(w * CASE WHEN v / 255.0 <= 0.04045 THEN v / 255.0 / 12.92 ELSE power((v / 255.0 + 0.055) / 1.055, 2.4) END)::float8
		FROM unnest(rgb, ARRAY[0.2126, 0.7152, 0.0722]) AS t (v, w)) AS l FROM color
)
SELECT count(*), min(CASE partner_portal.text_on(color) WHEN '#ffffff' THEN 1.05 / (l + 0.05) ELSE (l + 0.05) / 0.05 END) >= 4.5 AS enough,
	count(*) FILTER (WHERE partner_portal.text_on(color) = '#ffffff') BETWEEN 1000 AND 4000 AS both FROM luminance;
SELECT c, partner_portal.text_on(c) FROM unnest(ARRAY['#000000', '#ffffff', '#FF0000', '#0055aa', '#757575', '#777777', '#ffee00']) AS c;
SELECT partner_portal.delete_portal(2);
SELECT run_as(NULL, :app, 'SELECT partner_portal.portal_login_page($$plain$$)');
-- so have the page's own colours, by day and by night: text 4.5, the edges of fields 3 (an invoice's bars too)
CREATE FUNCTION luminance(color text) RETURNS numeric LANGUAGE sql AS $$
	SELECT sum(c.weight * CASE WHEN c.value <= 0.04045 THEN c.value / 12.92 ELSE power((c.value + 0.055) / 1.055, 2.4) END)
	FROM (SELECT get_byte(decode(substr(CASE length(color) WHEN 4 THEN regexp_replace(color, '([0-9a-f])', '\1\1', 'g') ELSE color END, 2), 'hex'), n)::numeric / 255 AS value,
			(ARRAY[0.2126, 0.7152, 0.0722])[n + 1] AS weight FROM generate_series(0, 2) AS n) c
$$;
CREATE TEMP TABLE colour AS
	SELECT p.page, r.n = 2 AS night, m[1] AS name, luminance(m[2]) AS luminance
	FROM (SELECT 'portal' AS page, pg_get_function_sqlbody(oid) AS html FROM pg_proc WHERE proname = 'portal_page'
		UNION ALL SELECT 'invoice', prosrc FROM pg_proc WHERE proname = 'invoice_html') p,
		LATERAL (SELECT b[1] AS rules, row_number() OVER () AS n FROM regexp_matches(p.html, ':root\{([^}]*)\}', 'g') AS b) r,
		regexp_matches(r.rules, '--([a-z]+):(#[0-9a-f]{6}|#[0-9a-f]{3})(?![0-9a-f])', 'g') AS m;
SELECT count(*) AS colours FROM colour;
SELECT c.page, c.night, c.name, g.name AS ground FROM colour c JOIN colour g USING (page, night)
	WHERE g.name IN ('page', 'card') AND c.name IN ('ink', 'soft', 'link', 'warn', 'edge', 'bar', 'now')
	AND (greatest(c.luminance, g.luminance) + 0.05) / (least(c.luminance, g.luminance) + 0.05) < CASE WHEN c.name IN ('edge', 'bar', 'now') THEN 3 ELSE 4.5 END
	AND NOT (c.name IN ('bar', 'now', 'edge') AND g.name = 'page') ORDER BY 1, 2, 3, 4;
