\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept install
\i :begin
-- every function, table, view and sequence is a member of the extension, and nothing is executable by PUBLIC
SELECT p.oid::regprocedure AS public_may_execute FROM pg_proc p
	WHERE p.pronamespace = 'partner_portal'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE') ORDER BY 1;
SELECT c.oid::regclass AS without_comment FROM pg_class c
	WHERE c.relnamespace = 'partner_portal'::regnamespace AND c.relkind IN ('r', 'v') AND obj_description(c.oid, 'pg_class') IS NULL ORDER BY 1;
SELECT p.oid::regprocedure AS without_comment FROM pg_proc p
	WHERE p.pronamespace = 'partner_portal'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL ORDER BY 1;
SELECT c.oid::regclass AS not_forced FROM pg_class c
	WHERE c.relnamespace = 'partner_portal'::regnamespace AND c.relkind IN ('r', 'p') AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
	AND c.oid NOT IN ('partner_portal.role_grant'::regclass, 'partner_portal.enrolled_role'::regclass, 'partner_portal.acl_signal'::regclass) ORDER BY 1;
