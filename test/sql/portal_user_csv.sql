\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept portal_user_csv
\i :begin
\i :as
-- partners 1 and 2, portal 1 of partner 1. Accounts 1 and 2 own the partners, 3 is a plain member of 1, 4 and 5 are users of the portal
SELECT (partner_portal.create_workspace(n, n || '@example.com')).workspace_id FROM unnest(ARRAY['p1', 'p2']) AS n;
SELECT (partner_portal.promote_to_partner(w)).partner_id FROM generate_series(1, 2) AS w;
SELECT (partner_portal.add_member(1, 'm3@example.com', 'member')).account_id;
SELECT (partner_portal.create_portal(1, 'Portal', 'portal-1', '#123456', 'https://example.com/')).portal_id;
SELECT (partner_portal.define_attribute(1, 'tenant', 'Tenant', 'string', required => true)).type;
SELECT (partner_portal.define_attribute(1, 'level', 'Level', 'number')).type;
SELECT (partner_portal.define_attribute(1, 'tags', 'Tags', 'string', multiple => true)).type;
INSERT INTO partner_portal.account (email) VALUES ('Ann@Example.com'), ('bob@example.com');
INSERT INTO partner_portal.portal_account (workspace_id, portal_id, account_id, role, attributes) VALUES
	(1, 1, 4, 'viewer', '{"tenant": "T-1", "level": 2}'), (1, 1, 5, 'editor', '{"tenant": "T-2", "tags": ["a"]}');
CREATE VIEW people AS SELECT string_agg(concat_ws(' ', email, role, attributes, state), E'\n' ORDER BY lower(email)) AS people FROM partner_portal.portal_user;
CREATE FUNCTION bulk(csv text, dry_run boolean DEFAULT false, on_error text DEFAULT 'abort', account_id bigint DEFAULT 1, portal_id bigint DEFAULT 1) RETURNS text LANGUAGE sql AS $$
	SELECT run_as(account_id, 'regress_app', format('SELECT string_agg(concat_ws($_$ $_$, line, email, outcome, message), E''\n'' ORDER BY line) FROM partner_portal.bulk_update_portal_users(%L, %L, %L, %L)', portal_id, csv, dry_run, on_error))
$$;

-- the parser (src/csv.c): line ends of every kind in one file, a byte order mark, quotes, lines that COPY would take for the end
SELECT * FROM partner_portal.csv_lines(E'\uFEFFemail,role\r\na,"b\nc"\rx,""\n\n\\.\nlast,\\.\n"two\r\nlines\r",""""') AS l;
SELECT * FROM partner_portal.csv_lines(E'a,b\n1,"open\n2,3\n') AS l;
SELECT * FROM partner_portal.csv_lines('"open') AS l;
SELECT * FROM partner_portal.csv_lines('') AS l;
SELECT * FROM partner_portal.csv_lines(E'\r\n\r\n , \n"",') AS l;
SELECT line, length(fields[1]), length(fields[2]) FROM partner_portal.csv_lines('a,' || repeat('x', 10000000) || E'\n"' || repeat(E'""\n', 1000000) || E'",z\nb,c') AS l;
SELECT line, cardinality(fields) FROM partner_portal.csv_lines(repeat(',', 100000)) AS l;
SELECT line, fields FROM partner_portal.csv_lines(E'h\n1\n2\n3', 2) AS l;
-- in the database's encoding, whatever the client's
SET client_encoding = LATIN1;
SELECT fields = ARRAY[U&'\00e9\20ac'] AS same FROM partner_portal.csv_lines(U&'\00e9\20ac') AS l;
RESET client_encoding;

-- what it would do, and what it does
\set csv 'E''Email, ROLE ,tenant,level,tags\\r\\nann@example.COM,viewer,T-1,2.0,\\nBOB@example.com,editor,T-9,,a;b\\\\;c\\rnew@example.com,Viewer,"T ""3""\\nline",-7,\\r\\n\\r\\n'''
SELECT bulk(:csv, dry_run => true);
SELECT * FROM people;
SELECT bulk(:csv);
SELECT * FROM people;
SELECT bulk(:csv);
SELECT count(*), count(DISTINCT recipient) FROM partner_portal.notification WHERE kind = 'invitation';
-- the invited is edited too, by any case of its address; columns that are not there stay
SELECT bulk(E'role,EMAIL\neditor,NEW@EXAMPLE.COM\nviewer,ann@example.com\n');
SELECT * FROM people;
-- one verdict per line; abort leaves nothing done
\set bad 'E''email,role,tenant,level\\nann@example.com,editor,T-1,1\\nANN@EXAMPLE.COM,viewer,T-1,1\\nnot an address,viewer,T-1,1\\n,viewer,T-1,1\\nd@example.com,owner,T-1,1\\ne@example.com,viewer,,1\\nf@example.com,viewer,T-1,much\\ng@example.com,viewer\\nh@example.com,viewer,T-1,1,1\\ni@example.com,viewer,T-1,\\nj@example.com,viewer,"T-1'''
SELECT bulk(:bad);
SELECT * FROM people;
SELECT bulk(:bad, dry_run => true);
SELECT bulk(:bad, on_error => 'skip');
SELECT * FROM people;
-- headings
SELECT h, bulk(h) FROM unnest(ARRAY['', E'\n\n', 'email', 'role', 'email,role,email', 'email,role,nothing', 'email,role,', E'email,role\n', 'email;role', E'"email', 'email,role,Tenant', 'email,role,state']) AS h;
-- wrong questions, and whose portal it is
SELECT bulk(NULL), bulk('email,role', on_error => 'stop'), bulk('email,role', dry_run => NULL), bulk('email,role', portal_id => 99), bulk('email,role', account_id => 2), bulk('email,role', account_id => 3), bulk('email,role', account_id => NULL), bulk('email,role', portal_id => NULL);
SELECT run_as(2, :app, 'SELECT partner_portal.portal_users_csv(1)'), run_as(3, :app, 'SELECT partner_portal.portal_users_csv(1)'), run_as(NULL, :app, 'SELECT partner_portal.portal_users_csv(1)'), run_as(1, :app, 'SELECT partner_portal.portal_users_csv(NULL)');
-- neither a NUL nor what is not UTF-8 gets this far
SELECT bulk(convert_from('\x656d61696cff', 'UTF8'));
SELECT bulk(convert_from('\x656d61696c00', 'UTF8'));

-- cells that a spreadsheet takes for formulas stay text, are shielded on the way out, and come back as they were
SELECT bulk(E'email,role,tenant,level,tags\nann@example.com,viewer,=1+1,-5,"=cmd|'' /C calc''!A0;-x;''quoted"\nbob@example.com,editor,''@x,,''''+1\n=new@example.com,viewer,"""a"",b",1,"a\\\\b; c "\n');
SELECT * FROM people WHERE people ~ '=new';
SELECT account_id, attributes FROM partner_portal.portal_account ORDER BY 1;
SELECT run_as(1, :app, 'SELECT partner_portal.portal_users_csv(1)') AS csv \gset
SELECT :'csv';
SELECT bulk(:'csv');
SELECT run_as(1, :app, 'SELECT partner_portal.portal_users_csv(1)') = :'csv' AS same;
SELECT v, partner_portal.unshielded_cell(partner_portal.shielded_cell(v)) = v AS back FROM unnest(ARRAY['=', '''=', '''''-', '''a', '', 'a=', E'\t', '''']) AS v;
SELECT v, partner_portal.cell_values(partner_portal.attribute_cell(to_jsonb(v), 'string')) = to_jsonb(v) AS back
	FROM (VALUES (ARRAY['a;b', 'c\d', '\', ';', ' e ']), (ARRAY['=x;', '-']), (ARRAY['one'])) AS t (v);
SELECT partner_portal.cell_values(c) FROM unnest(ARRAY['a;;b;', 'a\', '\;', ';', '', E'a\nb;c']) AS c;
-- an address that moved to another account, and accounts that are there already
SELECT (partner_portal.change_email(4, 'anna@example.com')).email;
SELECT bulk(E'email,role,tenant\nann@example.com,viewer,T-1\nanna@example.com,viewer,=1+1\nm3@example.com,viewer,T-1\n');
-- a thousand lines, with the invitations that they make
SELECT bulk('email,role,tenant' || string_agg(format(E'\nu%s@example.com,viewer,T-%s', n, n % 10), ''), dry_run => true) LIKE '2 u1@example.com invited%' FROM generate_series(1, 1000) AS n;
SELECT outcome, count(*), max(line) FROM partner_portal.bulk_update_portal_users(1, (SELECT 'email,role,tenant' || string_agg(format(E'\nu%s@example.com,viewer,T-%s', n, n % 10), '') FROM generate_series(1, 1000) AS n)) GROUP BY 1;
SELECT outcome, count(*), max(line) FROM partner_portal.bulk_update_portal_users(1, (SELECT 'email,role,tenant' || string_agg(format(E'\nU%s@example.com,viewer,T-%s', n, n % 9), '') FROM generate_series(1, 1000) AS n)) GROUP BY 1 ORDER BY 1;
