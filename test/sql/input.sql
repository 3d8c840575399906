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
