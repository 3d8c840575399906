-- reference.sql: prints doc/reference.md, from the comments of a database that has the extension. psql -X -At -f.
\set QUIET on
\pset format unaligned
\pset tuples_only on
\echo '# Reference'
\echo
\echo 'Made by `make reference` from the comments in the database: `\\df+`, `\\dv+` and `\\dconfig+` show the same.'
\echo
\echo 'Errors are explained by SQLSTATE in [Troubleshooting](troubleshooting.md); what names mean, in the [README](../README.md).'
\echo
-- functions that a role is granted, with who and what; internal ones are nobody's to call, though a role may need them
CREATE TEMPORARY VIEW granted_function AS
SELECT p.proname, pg_get_function_arguments(p.oid) AS arguments, obj_description(p.oid, 'pg_proc') ~ '\mFor policies[.:]' AS for_policies,
	format('| `%s(%s)` | `%s` | %s | %s |', p.proname,
		regexp_replace(replace(pg_get_function_arguments(p.oid), 'partner_portal.', ''), '(DEFAULT [^ ,]+)::[a-z ]+(\[\])?', '\1', 'g'),
		replace(coalesce(pg_get_function_result(p.oid), 'procedure'), 'partner_portal.', ''),
		string_agg(DISTINCT CASE g.as_what WHEN 'application' THEN 'A' WHEN 'trusted_application' THEN 'T' WHEN 'reporting' THEN 'R' ELSE 'O' END, ' '),
		regexp_replace(replace(obj_description(p.oid, 'pg_proc'), '|', '\|'), '\s+', ' ', 'g')) AS line
FROM partner_portal.role_grant g
JOIN pg_proc p ON p.oid = coalesce(to_regprocedure(substring(g.object FROM '^(?:FUNCTION|PROCEDURE|ROUTINE) (.*)$')), 0)
WHERE obj_description(p.oid, 'pg_proc') !~* '\minternal\.'
GROUP BY p.oid, p.proname;
\echo '## Functions'
\echo
\echo 'By who may call them: `A` a role enrolled as application, `T` a trusted application, `R` reporting, `O` an operator''s role.'
\echo 'What each identity may do with them is decided by `authorize()`.'
\echo
\echo '| function | returns | who | what |'
\echo '|---|---|---|---|'
SELECT line FROM granted_function WHERE NOT for_policies ORDER BY proname COLLATE "C", arguments COLLATE "C";
\echo
\echo '## Functions for policies'
\echo
\echo 'What row level security asks of the identity, ours and yours; they never raise. Write them as `(SELECT partner_portal.f())`, so that they are asked once.'
\echo
\echo '| function | returns | who | what |'
\echo '|---|---|---|---|'
SELECT line FROM granted_function WHERE for_policies ORDER BY proname COLLATE "C", arguments COLLATE "C";
\echo
\echo '## Views'
\echo
\echo '| view | columns | what |'
\echo '|---|---|---|'
SELECT format('| `%s` | %s | %s |', c.relname, string_agg(a.attname, ', ' ORDER BY a.attnum), regexp_replace(replace(obj_description(c.oid, 'pg_class'), '|', '\|'), '\s+', ' ', 'g'))
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'partner_portal'::regnamespace AND c.relkind = 'v'
	AND EXISTS (SELECT FROM partner_portal.role_grant g WHERE to_regclass(substring(g.object FROM '^TABLE (.*)$')) = c.oid)
GROUP BY c.oid, c.relname
ORDER BY c.relname COLLATE "C";
\echo
\echo '## Tables that applications read or write'
\echo
\echo '| table | privileges of an application | what |'
\echo '|---|---|---|'
SELECT format('| `%s` | %s | %s |', c.relname, string_agg(g.privilege, '; ' ORDER BY g.privilege COLLATE "C"), regexp_replace(replace(obj_description(c.oid, 'pg_class'), '|', '\|'), '\s+', ' ', 'g'))
FROM partner_portal.role_grant g
JOIN pg_class c ON c.oid = coalesce(to_regclass(substring(g.object FROM '^TABLE (.*)$')), 0) AND c.relkind IN ('r', 'p')
WHERE g.as_what = 'application'
GROUP BY c.oid, c.relname
ORDER BY c.relname COLLATE "C";
\echo
\echo '## Columns'
\echo
\echo 'Of the tables and views above, and of what functions return by a name of its own: those that do not speak for themselves.'
\echo
\echo '| column | type | what |'
\echo '|---|---|---|'
SELECT format('| `%s.%s` | `%s` | %s |', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), regexp_replace(replace(col_description(c.oid, a.attnum), '|', '\|'), '\s+', ' ', 'g'))
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND col_description(c.oid, a.attnum) IS NOT NULL
WHERE c.relnamespace = 'partner_portal'::regnamespace
	AND (c.relkind = 'c' OR EXISTS (SELECT FROM partner_portal.role_grant g WHERE to_regclass(substring(g.object FROM '^TABLE (.*)$')) = c.oid AND g.as_what IN ('application', 'reporting')))
ORDER BY c.relname COLLATE "C", a.attnum;
\echo
\echo '## Types'
\echo
\echo '| type | columns | what |'
\echo '|---|---|---|'
SELECT format('| `%s` | %s | %s |', c.relname, string_agg(format('%s %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum),
	regexp_replace(replace(obj_description(c.reltype, 'pg_type'), '|', '\|'), '\s+', ' ', 'g'))
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'partner_portal'::regnamespace AND c.relkind = 'c'
	AND EXISTS (SELECT FROM partner_portal.role_grant g JOIN pg_proc p ON p.oid = coalesce(to_regprocedure(substring(g.object FROM '^FUNCTION (.*)$')), 0)
		WHERE p.prorettype = c.reltype)
GROUP BY c.oid, c.relname, c.reltype
ORDER BY c.relname COLLATE "C";
\echo
\echo '## Settings'
\echo
\echo '| setting | default | set by | what |'
\echo '|---|---|---|---|'
SELECT partner_portal.is_operator() \g /dev/null
SELECT format('| `%s` | %s | %s | %s |', name, CASE WHEN boot_val = '' THEN 'empty' ELSE format('`%s`%s', boot_val, coalesce(' ' || unit, '')) END,
		CASE context WHEN 'postmaster' THEN 'server start' WHEN 'sighup' THEN 'configuration file, reload' WHEN 'superuser' THEN 'superuser' ELSE 'anybody' END,
		replace(concat_ws(' ', short_desc, extra_desc), '|', '\|'))
FROM pg_settings WHERE name LIKE 'partner\_portal.%' AND name <> 'partner_portal.identity'
ORDER BY name COLLATE "C";
