\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept input
\i :begin
-- text: as given, or an error that names the argument
SELECT partner_portal.checked_text('company_name', 'Zürich & Söhne', 14);
SELECT partner_portal.checked_text('company_name', repeat('ü', 200), 200) = repeat('ü', 200) AS same;
SELECT partner_portal.checked_text('company_name', NULL, 200);
SELECT partner_portal.checked_text('company_name', '', 200);
SELECT partner_portal.checked_text('company_name', '   ', 200);
SELECT partner_portal.checked_text('company_name', E'two\nlines', 200);
SELECT partner_portal.checked_text('company_name', E'delete\x7f', 200);
SELECT partner_portal.checked_text('company_name', repeat('ü', 201), 200);
SELECT partner_portal.checked_text('company_name', repeat('x', 10000000), 200);
\set VERBOSITY sqlstate
-- e-mail addresses
SELECT partner_portal.checked_email(e) FROM unnest(ARRAY['a@b', 'First.Last+tag@mail.Example.COM', 'o''neil@example.ie', 'x@xn--bcher-kva.example']) AS e;
SELECT partner_portal.checked_email(NULL);
SELECT partner_portal.checked_email('');
SELECT partner_portal.checked_email('nobody');
SELECT partner_portal.checked_email('a@b@c');
SELECT partner_portal.checked_email('a b@example.com');
SELECT partner_portal.checked_email(E'a@example.com\r\nBcc: b@example.com');
SELECT partner_portal.checked_email('a@-example.com');
SELECT partner_portal.checked_email('<a@example.com>');
SELECT partner_portal.checked_email('bücher@example.com');
SELECT partner_portal.checked_email(repeat('a', 65) || '@example.com');
SELECT partner_portal.checked_email('a@' || repeat('b.', 200) || 'com');
SELECT partner_portal.checked_email(repeat('x', 10000000));
-- dates
SELECT partner_portal.checked_date('anchor_date', d)::text FROM unnest(ARRAY['1900-01-01', '2024-02-29', '2999-12-31']::date[]) AS d;
SELECT partner_portal.checked_date('anchor_date', NULL);
SELECT partner_portal.checked_date('anchor_date', 'infinity');
SELECT partner_portal.checked_date('anchor_date', '-infinity');
SELECT partner_portal.checked_date('anchor_date', '0001-01-01');
SELECT partner_portal.checked_date('anchor_date', '294276-01-01');
-- slugs
SELECT partner_portal.checked_slug(s) FROM unnest(ARRAY['a', '7', 'a-b', repeat('x', 63)]) AS s;
SELECT partner_portal.checked_slug(NULL);
SELECT partner_portal.checked_slug('');
SELECT partner_portal.checked_slug('Acme');
SELECT partner_portal.checked_slug('-a');
SELECT partner_portal.checked_slug('a-');
SELECT partner_portal.checked_slug('a.b');
SELECT partner_portal.checked_slug('a_b');
SELECT partner_portal.checked_slug('é');
SELECT partner_portal.checked_slug(repeat('x', 64));
SELECT partner_portal.checked_slug(repeat('x', 10000000));
SELECT n, partner_portal.slug_of(n) FROM unnest(ARRAY['Acme', 'Zürich Träger & Söhne GmbH', 'Ærø Łódź Đà Nẵng ß', 'ﬁrma Ⅷ', '株式会社', '--', ' a  b ']) AS n;
SELECT partner_portal.slug_of(repeat('abcd ', 40)), length(partner_portal.slug_of(repeat('x', 200)));
-- secrets: 192 bits, URL-safe, never the same
SELECT count(DISTINCT s), bool_and(s ~ '^[A-Za-z0-9_-]{32}$') FROM (SELECT partner_portal.new_secret() AS s FROM generate_series(1, 1000)) AS secrets;
-- the calling role, and who is trusted
SELECT partner_portal.calling_role() = current_user::regrole AS me, partner_portal.is_trusted();
-- all of this is internal
SET ROLE regress_trusted;
SELECT partner_portal.new_secret();
SELECT partner_portal.require_operator();
RESET ROLE;
-- what plain DML brings: a name of one line has no line end and no other control character; a row that came by a restore may have
-- one, and can be changed otherwise, and disabled
SELECT workspace_id FROM partner_portal.create_workspace('Company', 'owner@example.com', 'company');
\set VERBOSITY sqlstate
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', E'a\nSubject: b');
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', E'\x1b[2J');
INSERT INTO partner_portal.security_key (workspace_id, kind, serial, label) VALUES (1, 'smartphone', 'a', E'b\x7f');
INSERT INTO partner_portal.product (workspace_id, category, name, external_ref) VALUES (1, 'server', 'web', E'a\x01');
UPDATE partner_portal.workspace SET company_name = E'Com\tpany';
UPDATE partner_portal.workspace SET address = E'Street 1\x1b\nTown';
UPDATE partner_portal.workspace SET address = E'Street 1\nTown';
\set VERBOSITY terse
INSERT INTO partner_portal.security_key (workspace_id, kind, serial, label) VALUES (1, 'smartphone', E'a\nSubject: b', 'fine');
INSERT INTO partner_portal.product (workspace_id, category, name, external_ref) VALUES (1, 'server', 'web', E'a\x01');
INSERT INTO partner_portal.security_key (workspace_id, kind, serial, label) VALUES (1, 'smartphone', U&'\00e9 \2014', NULL), (1, 'smartphone', 'plain', 'plain');
UPDATE partner_portal.security_key SET label = E'two\nlines' WHERE serial = 'plain';
SET partner_portal.restoring = on;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial, label, status, created_at, activated_at) VALUES (1, 'smartphone', E'old\nnumber', E'old\nlabel', 'active', now(), now());
INSERT INTO partner_portal.product (workspace_id, category, name, external_ref) VALUES (1, 'server', 'old', E'old\nref');
RESET partner_portal.restoring;
UPDATE partner_portal.security_key SET status = 'disabled' WHERE serial = E'old\nnumber';
UPDATE partner_portal.security_key SET label = E'new\nlabel' WHERE serial = E'old\nnumber';
UPDATE partner_portal.security_key SET label = NULL WHERE serial = E'old\nnumber';
UPDATE partner_portal.product SET name = 'renamed' WHERE name = 'old';
UPDATE partner_portal.product SET external_ref = E'new\nref' WHERE name = 'renamed';
SELECT status, label, count(*) FROM partner_portal.security_key GROUP BY 1, 2 ORDER BY 1, 2;
INSERT INTO partner_portal.webhook_endpoint (workspace_id, partner_key, url, events, nonce, key_version) VALUES (1, 0, 'https://example.com/', '{*}', gen_random_uuid(), 1) RETURNING endpoint_id \gset
SELECT partner_portal.pause_webhook_endpoint(:endpoint_id, E'broken\r\n');
SELECT partner_portal.pause_webhook_endpoint(:endpoint_id, 'broken ' || repeat('x', 1000));
SELECT state, length(state_reason) FROM partner_portal.webhook_endpoint;
SELECT partner_portal.pause_webhook_endpoint(:endpoint_id);
SELECT state, state_reason FROM partner_portal.webhook_endpoint;
-- what is checked is so whatever the caller's settings make of backslashes
SET standard_conforming_strings = off;
SET escape_string_warning = off;
SELECT partner_portal.checked_email('x@a b.com');
SELECT partner_portal.checked_email('x@a>b.com');
SELECT partner_portal.check_portal('Portal', 'portal', '#112233', 'https://example.com/', NULL) IS NOT NULL AS fine;
SELECT partner_portal.check_webhook('https://example.com/', '{a..b}');
SELECT partner_portal.check_webhook('https://example.com/', '{axb,a.b}') IS NOT NULL AS fine;
RESET standard_conforming_strings;
