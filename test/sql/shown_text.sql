\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept shown_text
\i :begin
-- src/shown_text.c
-- characters that are not seen, or change the direction of others, by code point: all of Bidi_Control, and the ignorable ones
SELECT partner_portal.checked_text('company_name', U&'Acme \202Egpj.exe', 200);
\set VERBOSITY default
DO $$ BEGIN PERFORM partner_portal.checked_text('company_name', U&'Acme\200B Ltd', 200); END $$;
\set VERBOSITY terse
CREATE FUNCTION pg_temp.answer(value text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN CASE WHEN partner_portal.checked_text('name', value, 200) = value THEN 'fine' END;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
SELECT pg_temp.answer('a' || chr(c) || 'b') AS answer, string_agg(to_hex(c), ' ' ORDER BY c) AS characters
	FROM string_to_table('80 85 9b 9f a0 ad 34f 61c 600 6dd 115f 1160 17b4 17b5 180e 200b 200c 200d 200e 200f 2010 2027 2028 2029 202a 202b 202c 202d 202e 202f 205f 2060 2064 2066 2067 2068 2069 206a 206f 2070 3164 fe0f feff ffa0 fff9 fffb fffc 1bca0 1d173 1d17a e0001 e0041 e007f e0100 e01ef 1f600 10fffd', ' ') AS h,
		LATERAL (SELECT ('x' || lpad(h, 8, '0'))::bit(32)::integer AS c) c GROUP BY 1 ORDER BY 1;
-- names as people write them: joiners and variants where a script or an emoji needs them, and nowhere else
SELECT n, pg_temp.answer(name) FROM (VALUES
	(1, U&'Z\00FCrich AG'), (2, U&'\05D7\05D1\05E8\05D4 \05D1\05E2\05F4\05DE'), (3, U&'\0634\0631\06A9\062A\200C\0647\0627'), (4, U&'\0D9A\0DCA\200D\0DBB\0DD3'),
	(5, U&'\+01F469\200D\+01F4BB'), (6, U&'\2764\FE0F\200D\+01F525'), (7, U&'1\FE0F\20E3'), (8, U&'\845B\+0E0100\57CE'), (9, U&'\682A\5F0F\4F1A\793E\3000\9752'),
	(10, U&'\+01F1E8\+01F1ED'), (11, U&'\00A9\FE0F')) v (n, name) ORDER BY n;
SELECT n, pg_temp.answer(name) FROM (VALUES
	(1, U&'Ac\200Dme'), (2, U&'\0634\200C'), (3, U&'\200C\0634'), (4, U&'\0634\200C\200C\0634'), (5, U&'Acme\FE0F'), (6, U&'\FE0FAcme'), (7, U&'\+01F600\FE0F\FE0F'),
	(8, U&'\+01F600\+0E0148\+0E0149'), (9, U&'\0634\200C \0634'), (10, U&'\00A0\3000'), (11, U&'\2800'), (12, U&' \2003 ')) v (n, name) ORDER BY n;
-- the flags that are written with tags, as Unicode has them, and nothing else that is: not cut short, not another region, nothing after the end
SELECT n, pg_temp.answer(replace(name, '!', chr(x'1F3F4'::int))) FROM (VALUES
	(1, U&'!\+0E0067\+0E0062\+0E0065\+0E006E\+0E0067\+0E007F'), (2, U&'Pub !\+0E0067\+0E0062\+0E0073\+0E0063\+0E0074\+0E007F!\+0E0067\+0E0062\+0E0077\+0E006C\+0E0073\+0E007F Ltd'),
	(3, U&'!'), (4, U&'!\200D\2620\FE0F')) v (n, name) ORDER BY n;
SELECT n, pg_temp.answer(replace(name, '!', chr(x'1F3F4'::int))) FROM (VALUES
	(1, U&'!\+0E0067\+0E0062\+0E0065\+0E006E\+0E0067'), (2, U&'!\+0E007F'), (3, U&'!\+0E0075\+0E0073\+0E0074\+0E0078\+0E007F'),
	(4, U&'\+0E0067\+0E0062\+0E0065\+0E006E\+0E0067\+0E007F'), (5, U&'\+01F3F3\+0E0067\+0E0062\+0E0065\+0E006E\+0E0067\+0E007F'),
	(6, U&'!\FE0F\+0E0067\+0E0062\+0E0065\+0E006E\+0E0067\+0E007F'), (7, U&'!\+0E0067\+0E0062\+0E0065\+0E006E\+0E0067\+0E0061\+0E007F'),
	(8, U&'!\+0E0067\+0E0062\+0E0065\+0E006E\+0E0067\+0E007F\+0E007F'), (9, U&'!\+0E0067\+0E0062\+0E0065\+0E006E\+0E0067\+0E007F\200D\+01F525'),
	(10, U&'!\+0E0067\+0E0062\+0E0065\+0E006E\+0E0067\+0E007F\FE0F'), (11, U&'!\+0E0047\+0E0042\+0E0045\+0E004E\+0E0047\+0E007F')) v (n, name) ORDER BY n;
DO $$ BEGIN PERFORM partner_portal.checked_text('name', U&'\+01F3F4\+0E0067\+0E0062\+0E0065\+0E006E\+0E0067\+0E007F\200B', 200); EXCEPTION WHEN OTHERS THEN
	DECLARE told text; BEGIN GET STACKED DIAGNOSTICS told = PG_EXCEPTION_DETAIL; RAISE '%', told; END; END $$;
-- texts of several lines
SELECT partner_portal.has_controls(t) FROM (VALUES (1, E'two\nlines\r\n\tthree'), (2, E'bell\x07'), (3, U&'\202E'), (4, ''), (5, NULL)) v (n, t) ORDER BY n;

-- what comes by plain DML is checked as what comes by function is
SELECT count(*) FROM partner_portal.create_workspace('Partner', 'p@partner.example', 'partner');
SELECT count(*) FROM partner_portal.promote_to_partner(1);
SELECT count(*) FROM partner_portal.create_portal(1, 'Portal', 'portal-1', '#112233', 'https://example.com/');
SELECT count(*) FROM partner_portal.define_attribute(1, 'tenant', 'Tenant', 'string');
INSERT INTO partner_portal.folder (workspace_id, name) VALUES (1, 'Folder');
INSERT INTO partner_portal.report (workspace_id, folder_id, title) VALUES (1, 1, 'Report');
INSERT INTO partner_portal.product (workspace_id, category, name) VALUES (1, 'server', 'web');
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'a');
CREATE FUNCTION pg_temp.refused(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE replace(statement, '!', chr(x'202e'::int));
	RETURN statement || ' WAS NOT';
EXCEPTION WHEN invalid_parameter_value THEN
	RETURN SQLERRM;
END
$$;
SELECT pg_temp.refused(s) FROM unnest(ARRAY[
	'UPDATE partner_portal.workspace SET company_name = ''a!b''', 'UPDATE partner_portal.workspace SET address = ''a!b''', 'UPDATE partner_portal.workspace SET tax_id = ''a!b''',
	'UPDATE partner_portal.account SET name = ''a!b''', 'UPDATE partner_portal.security_key SET label = ''a!b''',
	'INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (1, ''smartphone'', ''a!b'')',
	'UPDATE partner_portal.product SET name = ''a!b''', 'UPDATE partner_portal.product SET category = ''a!b''', 'UPDATE partner_portal.product SET external_ref = ''a!b''',
	'INSERT INTO partner_portal.product (workspace_id, category, name) VALUES (1, ''a'', ''b!'')',
	'UPDATE partner_portal.portal SET name = ''a!b''', 'UPDATE partner_portal.portal_attribute SET label = ''a!b''',
	'UPDATE partner_portal.folder SET name = ''a!b''', 'INSERT INTO partner_portal.folder (workspace_id, name) VALUES (1, ''a!b'')',
	'UPDATE partner_portal.report SET title = ''a!b''',
	'SELECT partner_portal.create_workspace(''a!b'', ''a@b.example'')', 'SELECT partner_portal.create_portal(1, ''a!b'', ''portal-2'', ''#112233'', ''https://example.com/'')',
	'SELECT partner_portal.define_attribute(1, ''more'', ''a!b'', ''string'')', 'SELECT partner_portal.create_price_plan(1, ''a!b'', ''CHF'', ''flat'', unit_price => 1)',
	'SELECT partner_portal.set_invoice_issuer(NULL, ''a!b'')', 'SELECT partner_portal.suspend_workspace(1, ''a!b'')']) AS s;
-- but a row that came by a restore may have such a text, and can be changed otherwise, suspended and deleted
SET partner_portal.restoring = on;
INSERT INTO partner_portal.workspace (workspace_id, company_name, slug, time_zone, anchor_date) OVERRIDING SYSTEM VALUE VALUES (7, U&'a\202Eb', 'old', 'UTC', '2026-01-01');
INSERT INTO partner_portal.folder (workspace_id, partner_key, name) VALUES (1, 0, U&'a\202Eb');
RESET partner_portal.restoring;
UPDATE partner_portal.workspace SET notify_new_keys = true WHERE workspace_id = 7;
SELECT suspended_at IS NOT NULL AS suspended FROM partner_portal.suspend_workspace(7, 'why not');
UPDATE partner_portal.workspace SET company_name = U&'a\202Ec' WHERE workspace_id = 7;
UPDATE partner_portal.folder SET name = name;
UPDATE partner_portal.folder SET name = U&'c\202Ed' WHERE name = U&'a\202Eb';

-- ports of addresses, from 1 to 65535
SELECT partner_portal.checked_port('url', u) FROM unnest(ARRAY['https://a.example', 'https://a.example:1/', 'https://a.example:65535?x=:70000', 'https://a.example:00443/', 'http://[::1]/', 'http://[::1]:80',
	'https://a.example/x:70000', 'https://user:word@a.example/']) AS u;
SELECT pg_temp.refused(format('SELECT partner_portal.checked_port(''url'', %L)', u)) FROM unnest(ARRAY['https://a.example:65536/', 'https://a.example:0', 'https://a.example:', 'https://a.example:x/',
	'https://a.example:99999999999999999999', 'http://[::1]:65536', 'https://a.example:-1']) AS u;
SELECT pg_temp.refused(s) FROM unnest(ARRAY[
	'SELECT partner_portal.create_portal(1, ''Portal'', ''portal-2'', ''#112233'', ''https://example.com:65536/'')',
	'SELECT partner_portal.create_portal(1, ''Portal'', ''portal-2'', ''#112233'', ''https://example.com/'', ''https://example.com:70000/a.png'')',
	'UPDATE partner_portal.portal SET logout_url = ''https://example.com:0/''', 'UPDATE partner_portal.portal SET home_cover_url = ''https://example.com:99999/''',
	'SELECT partner_portal.preview_portal(''Portal'', ''portal-2'', ''#112233'', ''https://example.com:65536/'')',
	'SELECT partner_portal.create_webhook_endpoint(1, ''https://example.com:65536/'', ''{*}'')',
	'SELECT partner_portal.create_webhook_endpoint(1, ''https://[2001:db8::1]:70000/'', ''{*}'')',
	'SELECT partner_portal.create_webhook_endpoint(1, ''https://example.com:/'', ''{*}'')',
	'SELECT partner_portal.create_webhook_endpoint(1, ''https://a:b:1/'', ''{*}'')',
	'SELECT partner_portal.create_webhook_endpoint(1, ''https://'' || chr(228) || ''.example/'', ''{*}'')',
	'SET partner_portal.link_base_url = ''https://example.com:65536''', 'SET partner_portal.workspace_url = ''https://{slug}.example.com:0/''',
	'SET partner_portal.portal_domain = ''example.com:65536''']) AS s;
ALTER SYSTEM SET partner_portal.smtp_url = 'smtp://example.com:65536';
ALTER SYSTEM SET partner_portal.smtp_url = 'smtps://[::1]:0';
SET partner_portal.link_base_url = 'https://example.com:8443/base';
SET partner_portal.workspace_url = 'https://{slug}.example.com:8443/';
SET partner_portal.portal_domain = 'example.com:8443';
SELECT partner_portal.portal_url(1);
-- flags by plain DML, on a page, and in a name that a slug is made of
UPDATE partner_portal.product SET name = U&'\+01F3F4\+0E0067\+0E0062\+0E0065\+0E006E\+0E0067\+0E007F', category = U&'\+01F3F4\+0E0067\+0E0062\+0E0073\+0E0063\+0E0074\+0E007F';
UPDATE partner_portal.portal SET name = U&'\+01F3F4\+0E0067\+0E0062\+0E0077\+0E006C\+0E0073\+0E007F Cymru';
SELECT position(U&'>\+01F3F4\+0E0067\+0E0062\+0E0077\+0E006C\+0E0073\+0E007F Cymru<' IN partner_portal.portal_login_page('portal-1')) > 0 AS shown,
	partner_portal.slug_of(U&'\+01F3F4\+0E0067\+0E0062\+0E0077\+0E006C\+0E0073\+0E007F Cymru');
