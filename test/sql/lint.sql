\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept lint
\i :begin
-- Rules that every object of the extension keeps, read from the catalog, so that a new object is covered by itself.
-- Each query lists offenders; exceptions are named here, each with its reason.
CREATE TEMP VIEW ours AS
	SELECT c.oid, c.relname, c.relkind, c.relrowsecurity, c.relforcerowsecurity, c.reloptions
	FROM pg_class c WHERE c.relnamespace = 'partner_portal'::regnamespace;
CREATE TEMP VIEW functions AS
	SELECT p.*, p.oid::regprocedure::text AS signature, coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) AS body
	FROM pg_proc p WHERE p.pronamespace = 'partner_portal'::regnamespace;
-- tables without row security: they hold nothing of a tenant, and no tenant's role may read them
CREATE TEMP TABLE no_row_security (name text, reason text);
INSERT INTO no_row_security VALUES
	('role_grant', 'what the install script says a role needs'),
	('enrolled_role', 'names of database roles'),
	('acl_signal', 'always empty');
-- views that run as their owner: they filter every arm by the identity themselves
CREATE TEMP TABLE owner_view (name text, reason text);
INSERT INTO owner_view VALUES
	('my_workspaces', 'names of workspaces that one does not act in at the moment'),
	('members', 'addresses of accounts, which show themselves to nobody else'),
	('staff_list', 'the same'),
	('portal_user', 'the same'),
	('my_mail_lists', 'the table has tokens'),
	('my_portals', 'names of portals that one does not act in at the moment'),
	('grants', 'each side of a grant sees the other''s name'),
	('partner_products', 'the same, and its arms keep their indexes'),
	('partner_panel', 'counts keep their index-only scans'),
	('metrics', 'sums over every tenant, for reporting roles'),
	('report_workspaces', 'every tenant, for reporting roles'),
	('report_usage', 'the same'),
	('report_invoices', 'the same');
-- SECURITY DEFINER functions that do not ask the gate or whether it is the operator
CREATE TEMP TABLE ungated (name text, reason text);
INSERT INTO ungated VALUES
	('show_invitation', 'the token is the proof'),
	('unsubscribe', 'the token is the proof'),
	('decline_invitation', 'the token is the proof'),
	('portal_login_page', 'it is shown before one signs in');
-- policies of another shape than the measured one
CREATE TEMP TABLE other_policy (name text, reason text);
INSERT INTO other_policy VALUES
	('product.read', 'single products are asked for by product_ok()'),
	('product.add', 'the same'),
	('product.change', 'the same'),
	('product.remove', 'the same'),
	('invitation.read', 'a partner''s staff does not learn which other partner a customer lets in'),
	('activity.read', 'a partner''s staff reads the lines of its own time only'),
	('currency.read', 'ISO 4217 is the same for everyone'),
	('invoice.read', 'documents are the issuer''s, the payer''s and those of the partner of their time, who may differ'),
	('invoice_line.read', 'as invoice'),
	('invoice_issuer.read', 'the issuer is the partner'),
	('invoice_series.read', 'the issuer is the partner'),
	('portal.read', 'its users see the portal they act in'),
	('folder.read', 'what is shared with the users of the acting portal'),
	('report.read', 'as folder'),
	('report.edit', 'editors and the reports they made');

-- every relation is in the isolation matrix, and nothing else is
\set matrix :abs_srcdir '/isolation_matrix.txt'
\set expectations `cat :matrix`
CREATE TEMP VIEW expectation AS
	SELECT btrim(split_part(line, ' | ', 1)) AS name FROM regexp_split_to_table(:'expectations', '\n') AS line WHERE line ~ '^[a-z]';
SELECT relname AS missing_in_isolation_matrix FROM ours WHERE relkind NOT IN ('i', 'I', 'S', 'c', 't') AND relname NOT IN (SELECT name FROM expectation) ORDER BY 1;
SELECT name AS of_no_relation FROM expectation WHERE name NOT IN (SELECT relname FROM ours) ORDER BY 1;
-- every table has row security, forced
SELECT relname AS row_security_missing FROM ours
	WHERE relkind IN ('r', 'p') AND NOT (relrowsecurity AND relforcerowsecurity) AND relname NOT IN (SELECT name FROM no_row_security) ORDER BY 1;
-- and no view is materialized
SELECT relname AS materialized FROM ours WHERE relkind = 'm';
-- no role of an application reads a table without row security
SELECT DISTINCT g.grantee::regrole AS role, o.relname AS table_without_row_security
	FROM ours o JOIN pg_class c USING (oid), aclexplode(c.relacl) g
	WHERE o.relkind IN ('r', 'p') AND NOT o.relrowsecurity AND g.grantee <> c.relowner ORDER BY 1, 2;
-- where somebody may read, there is a restrictive policy that somebody is signed in (account alone is guarded by its own rows)
SELECT o.relname AS signed_in_missing FROM ours o
	WHERE o.relrowsecurity AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = o.oid AND p.polpermissive)
	AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = o.oid AND NOT p.polpermissive AND p.polcmd = '*'
		AND pg_get_expr(p.polqual, p.polrelid) ~ 'current_account_id\(\)' AND pg_get_expr(p.polwithcheck, p.polrelid) ~ 'current_account_id\(\)')
	AND o.relname <> 'account' ORDER BY 1;
-- policies are written out for both directions, for everyone, and in the measured shape: sub-selects of the readers, joined by OR and AND
SELECT o.relname, p.polname AS without_check FROM ours o JOIN pg_policy p ON p.polrelid = o.oid
	WHERE p.polcmd IN ('*', 'w', 'a') AND p.polwithcheck IS NULL ORDER BY 1, 2;
SELECT o.relname, p.polname AS for_some_roles_only FROM ours o JOIN pg_policy p ON p.polrelid = o.oid WHERE p.polroles <> '{0}' ORDER BY 1, 2;
CREATE TEMP VIEW expression AS
	SELECT o.relname, p.polname, regexp_replace(regexp_replace(regexp_replace(e, '\s+', ' ', 'g'), ' AS [a-z_]+', '', 'g'), '[()]+', ' ', 'g') AS text
	FROM ours o JOIN pg_policy p ON p.polrelid = o.oid,
		unnest(ARRAY[pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)]) AS e WHERE e IS NOT NULL;
SELECT relname, polname AS of_another_shape, rest FROM (
	SELECT relname, polname, btrim(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(text, '\s+', ' ', 'g'),
		'[a-z_]*(workspace|partner)_(id|key) >= SELECT partner_portal.lowest_partner_key AND [a-z_]*(workspace|partner)_(id|key) <= SELECT partner_portal.highest_partner_key', '', 'g'),
		'[a-z_]*(workspace|partner)_id = SELECT partner_portal.own_workspace ''[a-z_]+''::text', '', 'g'),
		'[a-z_]*workspace_id = ANY SELECT partner_portal.(granted|complete)_workspaces ''[a-z_]+''::text ::bigint\[\]', '', 'g'),
		'partner_key = SELECT partner_portal.current_partner_id|account_id = SELECT partner_portal.current_account_id|SELECT partner_portal.current_account_id IS NOT NULL|SELECT partner_portal.is_operator', '', 'g'),
		'\m(AND|OR)\M', '', 'g')) AS rest
	FROM expression) x
	WHERE rest <> '' AND relname || '.' || polname NOT IN (SELECT name FROM other_policy) ORDER BY 1, 2;
-- a permission named in a policy exists: may() raises 22023 for another
SELECT count(partner_portal.may(m[1], 1)) > 0 AS permissions_exist FROM expression, regexp_matches(text, '(?:own_workspace|granted_workspaces) ''([a-z_]+)''', 'g') AS m;
-- policies call leakproof C functions only, stable and parallel safe: an IMMUTABLE one leaks through cached plans, a VOLATILE one is slow
SELECT DISTINCT f.signature AS not_a_reader, f.provolatile, f.proparallel, f.proleakproof, l.lanname
	FROM ours o JOIN pg_policy p ON p.polrelid = o.oid
	JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_proc'::regclass
	JOIN functions f ON f.oid = d.refobjid JOIN pg_language l ON l.oid = f.prolang
	WHERE f.provolatile <> 's' OR f.proparallel <> 's' OR NOT f.proleakproof OR l.lanname <> 'c' ORDER BY 1;
-- only C functions claim to be leakproof, and what reads the identity is never IMMUTABLE
SELECT f.signature AS claims_leakproof FROM functions f JOIN pg_language l ON l.oid = f.prolang WHERE f.proleakproof AND l.lanname <> 'c' ORDER BY 1;
SELECT f.signature AS immutable_reader FROM functions f
	WHERE f.provolatile = 'i' AND (f.proname ~ '^(current_|acting_|is_operator|own_workspace|granted_|lowest_|highest_|may$|authorize|looks_after)' OR f.body ~ 'partner_portal\.(current_|acting_|is_operator|own_workspace|granted_|lowest_|highest_|may\(|authorize|looks_after)') ORDER BY 1;
-- views ask as the reader does, and behind a barrier
SELECT o.relname AS view_runs_as_owner FROM ours o
	WHERE o.relkind = 'v' AND NOT coalesce(o.reloptions && '{security_invoker=true,security_invoker=on}', false) AND o.relname NOT IN (SELECT name FROM owner_view) ORDER BY 1;
SELECT o.relname AS view_without_barrier FROM ours o
	WHERE o.relkind = 'v' AND NOT coalesce(o.reloptions && '{security_barrier=true,security_barrier=on}', false) ORDER BY 1;
-- a set operation on top is no barrier: the planner hands conditions down into its arms (where the tables' own policies hold, they do the work)
SELECT o.relname AS barrier_without_effect FROM ours o JOIN owner_view v ON v.name = o.relname WHERE pg_get_viewdef(o.oid) ~ '\n(UNION|EXCEPT|INTERSECT)' ORDER BY 1;
SELECT o.relname AS owner_view_without_identity FROM ours o JOIN owner_view v ON v.name = o.relname
	WHERE pg_get_viewdef(o.oid) !~ 'partner_portal\.(current_account_id|current_workspace_id|own_workspace|lowest_partner_key|granted_workspaces|is_operator|is_reporting)\(' ORDER BY 1;
-- SECURITY DEFINER functions pin their search path and ask the gate; PL/pgSQL pins it always, but for procedures, which could not commit then
SELECT signature AS search_path_open FROM functions f JOIN pg_language l ON l.oid = f.prolang
	WHERE (f.prosecdef OR (l.lanname = 'plpgsql' AND f.prokind = 'f')) AND NOT coalesce(f.proconfig @> '{"search_path=pg_catalog, pg_temp"}', false) ORDER BY 1;
-- nor does a setting of the caller's change what a backslash means in a body that is parsed when it is called
SELECT signature AS backslash_open FROM functions f JOIN pg_proc p ON p.oid = f.oid
	WHERE p.prosqlbody IS NULL AND f.prolang <> (SELECT oid FROM pg_language WHERE lanname = 'c') AND p.prosrc LIKE '%\\%' AND NOT coalesce(f.proconfig @> '{standard_conforming_strings=on}', false) ORDER BY 1;
WITH RECURSIVE gate AS (
	SELECT unnest(ARRAY['authorize', 'is_operator', 'looks_after', 'may', 'current_account_id', 'current_workspace_id', 'own_workspace', 'lowest_partner_key']::name[]) AS name
	UNION
	SELECT f.proname FROM functions f JOIN gate g ON f.body ~ ('partner_portal\.' || g.name || '\(')
)
SELECT signature AS gate_missing FROM functions f
	WHERE f.prosecdef AND f.prorettype <> 'trigger'::regtype AND f.prorettype <> 'event_trigger'::regtype
	AND f.proname NOT IN (SELECT name FROM gate) AND f.proname NOT IN (SELECT name FROM ungated) ORDER BY 1;
-- nobody gets anything by being PUBLIC
SELECT signature AS public_may_execute FROM functions f WHERE has_function_privilege('public', f.oid, 'EXECUTE') ORDER BY 1;
SELECT o.relname AS public_may_touch FROM ours o JOIN pg_class c USING (oid), aclexplode(c.relacl) a WHERE a.grantee = 0 ORDER BY 1;
-- applications get no TRUNCATE, TRIGGER or REFERENCES
SELECT o.relname, a.privilege_type AS too_much, a.grantee::regrole FROM ours o JOIN pg_class c USING (oid), aclexplode(c.relacl) a
	WHERE a.grantee <> c.relowner AND a.privilege_type IN ('TRUNCATE', 'TRIGGER', 'REFERENCES') ORDER BY 1, 2;
-- triggers in PL/pgSQL ask whether a dump is being restored; but role_grant is filled by scripts of the extension alone
SELECT signature AS restoring_not_asked FROM functions f JOIN pg_language l ON l.oid = f.prolang
	WHERE f.prorettype = 'trigger'::regtype AND l.lanname = 'plpgsql' AND f.body !~ 'partner_portal\.restoring_session\('
	AND f.proname <> 'grant_to_enrolled' ORDER BY 1;
-- triggers fire always only where they announce access, or who wants events
SELECT o.relname, t.tgname AS always FROM ours o JOIN pg_trigger t ON t.tgrelid = o.oid
	WHERE NOT t.tgisinternal AND (t.tgenabled = 'A') <> (t.tgname ~ '^(acl|changed)_') ORDER BY 1, 2;
-- no table of ours is truncated
SELECT o.relname AS may_be_truncated FROM ours o WHERE o.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = o.oid AND (t.tgtype & 34) = 34) ORDER BY 1;
-- foreign keys are checked at once
SELECT o.relname, k.conname AS deferrable FROM ours o JOIN pg_constraint k ON k.conrelid = o.oid WHERE k.condeferrable ORDER BY 1, 2;
-- tenant tables are keyed by workspace first; and no type there lacks leakproof comparison
SELECT o.relname AS not_led_by_workspace_id FROM ours o
	JOIN pg_attribute a ON a.attrelid = o.oid AND a.attname = 'workspace_id' JOIN pg_constraint k ON k.conrelid = o.oid AND k.contype = 'p'
	WHERE o.relkind = 'r' AND k.conkey[1] <> a.attnum ORDER BY 1;
SELECT o.relname, a.attname AS is_an_enum FROM ours o JOIN pg_attribute a ON a.attrelid = o.oid JOIN pg_type t ON t.oid = a.atttypid WHERE t.typtype = 'e' ORDER BY 1, 2;
-- money and measures are never floating point
SELECT o.relname, a.attname AS is_floating FROM ours o JOIN pg_attribute a ON a.attrelid = o.oid
	WHERE o.relkind IN ('r', 'v') AND a.atttypid IN ('float8'::regtype, 'float4'::regtype) ORDER BY 1, 2;
SELECT signature AS returns_floating FROM functions WHERE prorettype IN ('float8'::regtype, 'float4'::regtype) OR proallargtypes && ARRAY['float8'::regtype::oid, 'float4'::regtype::oid] ORDER BY 1;
-- exceptions that are none any more
SELECT name AS stale_exception FROM (
	SELECT name FROM no_row_security WHERE name NOT IN (SELECT relname FROM ours WHERE NOT relrowsecurity)
	UNION ALL SELECT name FROM owner_view WHERE name NOT IN (SELECT relname FROM ours WHERE relkind = 'v')
	UNION ALL SELECT name FROM ungated WHERE name NOT IN (SELECT proname FROM functions WHERE prosecdef)
	UNION ALL SELECT name FROM other_policy WHERE name NOT IN (SELECT relname || '.' || polname FROM expression)) x ORDER BY 1;
