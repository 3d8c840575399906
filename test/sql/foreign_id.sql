\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept foreign_id
\i :begin
-- Every function that an application may call and that takes a workspace or a partner is called with another tenant's id, and
-- with one that there is not. Both must end alike: nothing returned, nothing done, the same refusal but for the id. The
-- functions are read from the catalog, so that a new one is tried by itself.
-- workspaces: 770001 partner P1, 770002 partner P2, 770003 customer of P1, 770004 customer of P2, 770005 direct
ALTER SEQUENCE partner_portal.workspace_workspace_id_seq RESTART 770001;
INSERT INTO partner_portal.account (email) SELECT n || '@example.com' FROM unnest(ARRAY['p1', 'p2', 'c3', 'c4', 'd5', 'p1_member']) WITH ORDINALITY AS t (n, i) ORDER BY i;
INSERT INTO partner_portal.partner (partner_id, registration_code) VALUES (770001, 'code-of-p1'), (770002, 'code-of-p2');
INSERT INTO partner_portal.workspace (kind, partner_id, company_name, slug, anchor_date) VALUES
	('partner', NULL, 'P1', 'p1', '2026-01-01'), ('partner', NULL, 'P2', 'p2', '2026-01-01'),
	('business', 770001, 'C3', 'c3', '2026-01-01'), ('business', 770002, 'C4', 'c4', '2026-01-01'), ('business', NULL, 'D5', 'd5', '2026-01-01');
INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at)
	SELECT w.workspace_id, w.workspace_id - 770000, w.partner_key, 'owner', now() FROM partner_portal.workspace w;
INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at) VALUES (770001, 6, 0, 'member', now());
CREATE TEMP TABLE try (who bigint, function regprocedure, volatile boolean, id bigint, call text, result text);
CREATE FUNCTION pg_temp.sample(name text, type oid) RETURNS text LANGUAGE sql AS $$
	SELECT CASE type
		WHEN 'text'::regtype THEN CASE name WHEN 'permission' THEN '''read''' WHEN 'role' THEN '''member''' WHEN 'email' THEN '''x@example.com''' WHEN 'url' THEN '''https://example.com/'''
			WHEN 'currency' THEN '''EUR''' WHEN 'model' THEN '''flat''' ELSE '''something''' END WHEN 'boolean'::regtype THEN 'false' WHEN 'date'::regtype THEN '''2026-03-01''' WHEN 'jsonb'::regtype THEN '''{}'''
		WHEN 'timestamptz'::regtype THEN '''2026-03-01''' WHEN 'tstzrange'::regtype THEN '''[2026-02-01,2026-03-01)''' WHEN 'regclass'::regtype THEN '''pg_class'''
		WHEN 'regrole'::regtype THEN '''regress_app''' WHEN 'interval'::regtype THEN '''1 day'''
		ELSE CASE WHEN type IN ('bigint'::regtype, 'integer'::regtype, 'numeric'::regtype) THEN '1'
			WHEN type::regtype::text LIKE '%[]' THEN '''{}''' ELSE 'NULL' END
		END || '::' || type::regtype::text
$$;
-- how many there are changes with every function
\set QUIET on
INSERT INTO try
	SELECT person, f.oid, f.provolatile = 'v', foreign_id, format('SELECT count(*) FROM partner_portal.%I(%s) AS r WHERE NOT (r IS NULL) AND r::text NOT IN ('''', ''false'', ''{}'')', f.proname,
		(SELECT string_agg(format('%I => %s', f.proargnames[i], CASE WHEN f.proargnames[i] IN ('workspace_id', 'partner_id') THEN foreign_id || '::bigint'
				ELSE pg_temp.sample(f.proargnames[i], f.proargtypes[i - 1]) END), ', ' ORDER BY i)
			FROM generate_series(1, f.pronargs) i WHERE i <= f.pronargs - f.pronargdefaults OR f.proargnames[i] IN ('workspace_id', 'partner_id')))
	FROM pg_proc f, unnest(ARRAY[1, 3, 6]::bigint[]) person, unnest(ARRAY[770002, 770004, 770005, 770099]::bigint[]) foreign_id
	WHERE f.pronamespace = 'partner_portal'::regnamespace AND f.prokind = 'f' AND has_function_privilege('regress_app', f.oid, 'EXECUTE')
	AND f.proargnames[1:f.pronargs] && ARRAY['workspace_id', 'partner_id'];
\set QUIET off
-- calls, and takes back what it did
CREATE FUNCTION attempt(who bigint, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	PERFORM partner_portal.login_as(who);
	BEGIN
		EXECUTE call INTO n;
		RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = format('%s rows', n);
	EXCEPTION WHEN OTHERS THEN
		RETURN SQLSTATE || ' ' || SQLERRM;
	END;
END
$$;
GRANT ALL ON try TO regress_trusted;
SET ROLE regress_trusted;
BEGIN;
\set QUIET on
UPDATE try SET result = replace(attempt(who, call), id::text, 'N');
\set QUIET off
COMMIT;
RESET ROLE;
SELECT count(DISTINCT function) > 10 AS functions_tried, count(*) FILTER (WHERE result LIKE 'P0002%') > 30 AS refused FROM try;
-- an id of somebody else's is told from none
SELECT a.function, a.who, a.id, a.result, b.result AS of_none FROM try a JOIN try b ON b.function = a.function AND b.who = a.who AND b.id = 770099
	WHERE a.id <> 770099 AND a.result <> b.result ORDER BY a.function::text, 2, 3;
-- something of somebody else's is returned, or done
SELECT function, who, id, result FROM try WHERE result LIKE 'ZZ000%' AND (result <> 'ZZ000 0 rows' OR volatile) ORDER BY function::text, who, id;
-- a refusal that comes from inside
SELECT function, who, id, result FROM try WHERE result !~ '^(ZZ000|P0002|42501|22023|22004|PP00|28000|25001)' ORDER BY function::text, who, id;
