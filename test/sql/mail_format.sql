\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept mail_format
\i :begin
SET timezone = 'UTC';
\set id '''00000000-0000-4000-8000-000000000001''::uuid, ''2026-02-28 23:59:59.5+00''::timestamptz'
\pset format unaligned
\pset tuples_only on
-- plain and short: nothing is encoded
SELECT replace(partner_portal.mail_message('portal@portal.example', 'ann@customer.example', 'Hello', E'One.\nTwo = 2 \n', NULL, 'en', :id), E'\r', '<CR>');
-- names, umlauts, both bodies, a list
SELECT replace(partner_portal.mail_message('Müller, "Portal" <portal@portal.example>', 'ann@customer.example',
	'Ihre Abrechnung für den Zeitraum vom 1. bis zum 31. Oktober 2026 ist da – schöne Grüße 🎉', E'Grüße\r\n.\r\n', '<p>Grüße</p>', 'de', :id,
	'https://portal.example.com/unsubscribe/abc'), E'\r', '<CR>');
-- long lines are broken at 76, never more
SELECT max(length(line)) FROM regexp_split_to_table(partner_portal.mail_message('a@b.example', 'c@d.example', repeat('x', 900), repeat('ü', 5000), repeat('y', 5000), 'en', :id), E'\r\n') AS line;
-- a word of a header ends with a whole character
SELECT bool_and(convert_from(decode(substring(line FROM '=\?UTF-8\?B\?(.*)\?='), 'base64'), 'UTF8') ~ '^(€|🎉)+$') AS whole, count(*) AS words
	FROM regexp_split_to_table(partner_portal.mail_message('a@b.example', 'c@d.example', repeat('€🎉', 60), 'x', NULL, 'en', :id), E'\r\n') AS line WHERE line LIKE '%=?UTF-8?%';
-- what could end a header or a command is refused
SELECT partner_portal.mail_message('a@b.example', 'c@d.example', E'x\r\nBcc: e@f.example', 'x', NULL, 'en', :id);
SELECT partner_portal.mail_message(E'X\nBcc: e@f.example <a@b.example>', 'c@d.example', 'x', 'x', NULL, 'en', :id);
SELECT partner_portal.mail_message('a@b.example', E'c@d.example>\r\nRCPT TO:<e@f.example', 'x', 'x', NULL, 'en', :id);
SELECT partner_portal.mail_message('a@b.example', 'c d@d.example', 'x', 'x', NULL, 'en', :id);
SELECT partner_portal.mail_message('a@b.example', '"c"@d.example', 'x', 'x', NULL, 'en', :id);
SELECT partner_portal.mail_message('a@b.example', 'c@d..example', 'x', 'x', NULL, 'en', :id);
SELECT partner_portal.mail_message('a@b.example', 'c@-d.example', 'x', 'x', NULL, 'en', :id);
SELECT partner_portal.mail_message('a@b.example', 'c@dé.example', 'x', 'x', NULL, 'en', :id);
SELECT partner_portal.mail_message('nobody', 'c@d.example', 'x', 'x', NULL, 'en', :id);
SELECT partner_portal.mail_message('a@b.example', 'c@d.example', 'x', 'x', NULL, E'en\nX: y', :id);
SELECT partner_portal.mail_message('a@b.example', 'c@d.example', 'x', 'x', NULL, 'en', :id, 'https://x/ >');
SELECT partner_portal.mail_message('a@b.example', 'c@d.example', 'x', 'x', NULL, 'en', :id, 'https://ü.example/');
SELECT partner_portal.mail_message('a@b.example', 'c@d.example', 'x', repeat('ü', 300000), NULL, 'en', :id);
