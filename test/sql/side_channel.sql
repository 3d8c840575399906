\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept side_channel
\i :begin
-- What a tenant with SQL of its own can learn of others beside the rows themselves, or do to them. What may not be is refused,
-- in the same words for what is another's and what is not at all; what PostgreSQL gives away is shown as it is, under "accepted".
-- workspaces: 1 partner P1, 2 partner P2, 3 customer of P1, 4 customer of P2; account n owns workspace n
INSERT INTO partner_portal.account (email) SELECT n || '@example.com' FROM unnest(ARRAY['p1', 'p2', 'c3', 'c4']) WITH ORDINALITY AS t (n, i) ORDER BY i;
INSERT INTO partner_portal.partner (partner_id, registration_code) VALUES (1, 'code-of-1'), (2, 'code-of-2');
INSERT INTO partner_portal.workspace (kind, partner_id, company_name, slug, anchor_date) VALUES
	('partner', NULL, 'P1', 'p1', '2026-01-01'), ('partner', NULL, 'P2', 'p2', '2026-01-01'),
	('business', 1, 'C3', 'c3', '2026-01-01'), ('business', 2, 'C4', 'c4', '2026-01-01');
INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at)
	SELECT w.workspace_id, w.workspace_id, w.partner_key, 'owner', now() FROM partner_portal.workspace w;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial, label)
	SELECT w, 'smartphone', 'secret' || w || '-' || i, 'of ' || w FROM generate_series(1, 4) w, generate_series(1, 500) i;
INSERT INTO partner_portal.folder (workspace_id, name) SELECT w, 'first' FROM generate_series(1, 4) w;
INSERT INTO partner_portal.product (workspace_id, category, name, external_ref) SELECT w, 'server', 'server of ' || w, 'ref ' || w FROM generate_series(1, 4) w;
INSERT INTO partner_portal.portal (workspace_id, name, technical_name, color, logout_url) SELECT w, 'portal of ' || w, 'portal-' || w, '#112233', 'https://example.com/' || w FROM generate_series(1, 2) w;
INSERT INTO partner_portal.account (email) VALUES ('viewer1@example.com'), ('viewer2@example.com');
INSERT INTO partner_portal.portal_account (workspace_id, portal_id, account_id, role) SELECT w, w, w + 4, 'viewer' FROM generate_series(1, 2) w;
INSERT INTO partner_portal.staff (workspace_id, account_id, partner_key, role) VALUES (3, 1, 1, 'account_owner'), (4, 2, 2, 'account_owner');
INSERT INTO partner_portal.access_grant (workspace_id, partner_id, scope, categories, state, message) VALUES (3, 2, 'limited', '{server}', 'offered', 'to 2'), (4, 1, 'limited', '{server}', 'requested', 'to 1');
ANALYZE;
-- what becomes of a statement of customer 3's owner: rows or result, or SQLSTATE, message and whatever else the error tells
CREATE FUNCTION attempt(statement text, who bigint DEFAULT 3) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
	detail text;
	hint text;
	n bigint;
BEGIN
	PERFORM partner_portal.login_as(who);
	SET LOCAL ROLE regress_app;
	BEGIN
		IF statement ~ '^(SELECT|EXPLAIN)' THEN
			EXECUTE statement INTO result;
		ELSE
			EXECUTE statement;
		END IF;
		GET DIAGNOSTICS n = ROW_COUNT;
		RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = coalesce(result, n || ' rows');
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		result := CASE SQLSTATE WHEN 'ZZ000' THEN SQLERRM ELSE concat_ws(' / ', SQLSTATE || ' ' || SQLERRM, nullif(detail, '')) END;
	END;
	RESET ROLE;
	PERFORM partner_portal.logout();
	RETURN result;
END
$$;
-- the same for another's id and for none
CREATE FUNCTION same(statement text, foreign_id text, absent_id text, who bigint DEFAULT 3) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	one text := regexp_replace(attempt(replace(statement, '?', foreign_id), who), '\m' || foreign_id || '\M', 'N', 'g');
	two text := regexp_replace(attempt(replace(statement, '?', absent_id), who), '\m' || absent_id || '\M', 'N', 'g');
BEGIN
	RETURN CASE WHEN one = two THEN 'alike: ' || one ELSE format('TOLD APART: %s | %s', one, two) END;
END
$$;
SET client_min_messages = error;
\pset tuples_only on
\pset format unaligned

-- 11: a serial that another has is free; one's own is taken, and the error names no value of the row
SELECT attempt($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 'secret4-1')$$);
SELECT attempt($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 'secret3-1')$$);
SELECT attempt($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial, key_id) VALUES (3, 'smartphone', 'mine', 501)$$);
-- accepted: the name in an address is unique on the platform, and is public; whose it is is not told
SELECT attempt($$UPDATE partner_portal.workspace SET slug = 'c4' WHERE workspace_id = 3$$);
-- 12: ON CONFLICT on another's row
SELECT same($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (?, 'smartphone', 'secret4-1') ON CONFLICT DO NOTHING$$, '4', '9999');
SELECT same($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (4, 'smartphone', 'secret4-?') ON CONFLICT ON CONSTRAINT security_key_serial_key DO UPDATE SET label = 'x'$$, '1', '9999');
-- 13: MERGE
SELECT same($$MERGE INTO partner_portal.security_key k USING (SELECT 1) s ON k.key_id = ? WHEN MATCHED THEN DELETE$$, '1501', '99999');
SELECT same($$MERGE INTO partner_portal.security_key k USING (SELECT 1) s ON k.workspace_id = 4 AND k.serial = 'secret4-?'
	WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (workspace_id, kind, serial) VALUES (4, 'smartphone', 'x')$$, '1', '9999');
-- 14: foreign keys to what is another's
SELECT same($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial, account_id) VALUES (3, 'smartphone', 'mine', ?)$$, '4', '9999');
SELECT same($$UPDATE partner_portal.security_key SET account_id = ? WHERE serial = 'secret3-1'$$, '4', '9999');
SELECT same($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (?, 'smartphone', 'mine')$$, '4', '9999');
SELECT same($$INSERT INTO partner_portal.folder (workspace_id, name, parent_id) VALUES (3, 'mine', ?)$$, '4', '-4');
SELECT same($$INSERT INTO partner_portal.report (workspace_id, title, folder_id) VALUES (3, 'mine', ?)$$, '4', '9999');
SELECT same($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (?, 'smartphone', 'mine')$$, '4', '9999', 1);
-- 15: a CHECK or NOT NULL shows no failing row
SELECT attempt($$UPDATE partner_portal.security_key SET label = repeat('x', 300) WHERE serial = 'secret3-1'$$);
SELECT attempt($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, 'telegraph', 'mine')$$);
SELECT attempt($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', NULL)$$);
-- 16, 17: another's row is none; one's own stays where it is
SELECT same($$UPDATE partner_portal.security_key SET label = 'x' WHERE key_id = ?$$, '1501', '99999');
SELECT same($$DELETE FROM partner_portal.security_key WHERE key_id = ?$$, '1501', '99999');
SELECT same($$SELECT key_id FROM partner_portal.security_key WHERE key_id = ? FOR UPDATE$$, '1501', '99999');
SELECT attempt($$UPDATE partner_portal.security_key SET workspace_id = 4 WHERE serial = 'secret3-1'$$);
SELECT attempt($$UPDATE partner_portal.workspace SET partner_id = 2 WHERE workspace_id = 3$$);
-- 18: conditions of the tenant's own come after the policy's, be they as cheap as they like
CREATE FUNCTION public.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
	IF $1 NOT LIKE 'secret3-%' AND $1 <> 'mine' THEN
		RAISE EXCEPTION 'leaked %', $1;
	END IF;
	RETURN true;
END
$$;
SELECT attempt($$SELECT count(*) FROM partner_portal.security_key WHERE public.leak(serial)$$);
SELECT attempt($$SELECT count(*) FROM partner_portal.security_key WHERE CASE WHEN workspace_id <> 3 THEN serial::int > 0 ELSE true END$$);
SELECT attempt($$SELECT count(*) FROM partner_portal.key_activity a JOIN partner_portal.security_key k USING (key_id) WHERE public.leak(k.serial)$$);
SELECT attempt($$SELECT count(*) FROM partner_portal.workspace WHERE 1 / (CASE WHEN workspace_id = 3 THEN 1 ELSE 0 END) = 1$$);
SELECT attempt($$SELECT count(*) FROM partner_portal.partner_panel WHERE 1 / (CASE WHEN workspace_id = 3 THEN 1 ELSE 0 END) = 1$$, 1);
SELECT attempt($$SELECT count(*) FROM partner_portal.members WHERE 1 / (CASE WHEN workspace_id = 3 THEN 1 ELSE 0 END) = 1$$);
-- and so it is with every column of every relation that an application reads: a condition that looks at what one does not see
CREATE TABLE public.hidden (value text PRIMARY KEY);
CREATE FUNCTION public.spy(text) RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER COST 0.0000001 AS $$
BEGIN
	IF EXISTS (SELECT FROM public.hidden h WHERE h.value = left($1, 1000)) THEN
		RAISE EXCEPTION 'leaked %', $1;
	END IF;
	RETURN true;
END
$$;
CREATE TABLE public.spied (relation regclass, attribute name, who bigint, hidden bigint, outcome text);
DO $$
DECLARE
	c record;
	who bigint;
	seen text[];
	n bigint;
BEGIN
	FOR c IN SELECT a.attrelid::regclass AS relation, a.attname FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid
		WHERE r.relnamespace = 'partner_portal'::regnamespace AND r.relkind IN ('r', 'v') AND a.attnum > 0 AND NOT a.attisdropped
		AND has_column_privilege('regress_app', r.oid, a.attnum, 'SELECT')
	LOOP
		FOREACH who IN ARRAY ARRAY[1, 3] LOOP
			TRUNCATE public.hidden;
			EXECUTE format('INSERT INTO public.hidden SELECT left(%I::text, 1000) FROM %s WHERE %I IS NOT NULL GROUP BY 1', c.attname, c.relation, c.attname);
			PERFORM partner_portal.login_as(who);
			EXECUTE 'SET LOCAL ROLE regress_app';
			EXECUTE format('SELECT array_agg(DISTINCT left(%I::text, 1000)) FROM %s', c.attname, c.relation) INTO seen;
			RESET ROLE;
			PERFORM partner_portal.logout();
			DELETE FROM public.hidden WHERE value = ANY (seen);
			SELECT count(*) INTO n FROM public.hidden;
			INSERT INTO public.spied SELECT c.relation, c.attname, who, n, attempt(format('SELECT count(*) FROM %s WHERE public.spy(%I::text)', c.relation, c.attname), who);
		END LOOP;
	END LOOP;
END
$$;
SELECT count(DISTINCT relation) > 30 AND count(*) FILTER (WHERE hidden > 0) > 100 AS enough_was_hidden FROM public.spied;
SELECT relation, attribute, who, outcome FROM public.spied WHERE outcome !~ '^[0-9]+$' ORDER BY relation::text, attribute, who;
-- 19: nor do operators see others' values in the statistics
CREATE FUNCTION public.leaky_less(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RETURN public.leak($1) AND public.leak($2); END $$;
CREATE OPERATOR public.<<< (LEFTARG = text, RIGHTARG = text, FUNCTION = public.leaky_less, RESTRICT = scalarltsel);
SELECT attempt($$EXPLAIN SELECT FROM partner_portal.security_key WHERE serial OPERATOR(public.<<<) 'mine'$$) LIKE '%leaked%' AS leaked;
SELECT attempt($$EXPLAIN SELECT FROM partner_portal.key_activity JOIN partner_portal.security_key USING (key_id) WHERE serial OPERATOR(public.<<<) 'mine'$$) LIKE '%leaked%' AS leaked;
-- 20, 21, accepted: plans and what they filtered speak of all rows, so a tenant gets no EXPLAIN from an application; the rows stay away
SELECT attempt($$SELECT count(*) FROM partner_portal.security_key WHERE workspace_id = 4$$);
SELECT attempt($$EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) SELECT FROM partner_portal.security_key WHERE workspace_id = 4$$) LIKE '%actual rows=0%' AS nothing_returned;
-- 22: statistics
SELECT attempt($$SELECT count(*) FROM pg_stats WHERE schemaname = 'partner_portal' AND tablename NOT IN ('activity_start')$$);
SELECT attempt($$SELECT count(*) FROM pg_statistic$$);
SELECT attempt($$SELECT count(*) FROM pg_stats_ext WHERE schemaname = 'partner_portal'$$);
-- 23, accepted: how large the tables are
SELECT attempt($$SELECT reltuples FROM pg_class WHERE oid = 'partner_portal.security_key'::regclass$$);
-- 24: sequences
SELECT attempt($$SELECT last_value FROM partner_portal.security_key_key_id_seq$$), attempt($$SELECT nextval('partner_portal.security_key_key_id_seq')$$);
SELECT attempt($$SELECT last_value FROM pg_sequences WHERE sequencename = 'security_key_key_id_seq'$$);
-- 25: samples; COPY is in the isolation matrix
SELECT attempt($$SELECT count(*) = count(*) FILTER (WHERE workspace_id = 3) FROM partner_portal.security_key TABLESAMPLE bernoulli (100)$$);
SELECT attempt($$SELECT count(*) FROM partner_portal.security_key WHERE ctid = '(0,1)'$$);
-- 26: without the policies, nothing at all
SET row_security = off;
SELECT attempt($$SELECT count(*) FROM partner_portal.security_key$$);
RESET row_security;
-- 27, 28: views and functions that run as their owner: lint and foreign_id. 29: no partition is there to go round a policy by
SELECT count(*) FROM pg_class WHERE relnamespace = 'partner_portal'::regnamespace AND (relkind = 'p' OR relispartition);
-- 30: what only an owner may do
SELECT attempt('TRUNCATE partner_portal.security_key'), attempt('ALTER TABLE partner_portal.security_key DISABLE ROW LEVEL SECURITY'),
	attempt('CREATE POLICY mine ON partner_portal.security_key USING (true)'), attempt('ALTER TABLE partner_portal.security_key DISABLE TRIGGER ALL'),
	attempt('CREATE TRIGGER mine BEFORE INSERT ON partner_portal.security_key FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()'),
	attempt('CREATE TABLE public.mine (workspace_id bigint, key_id bigint, FOREIGN KEY (workspace_id, key_id) REFERENCES partner_portal.security_key)'),
	attempt('CREATE VIEW partner_portal.mine AS SELECT 1'), attempt('SET session_replication_role = replica'), attempt('ALTER ROLE regress_app BYPASSRLS') ~ '^42501';
SET SESSION AUTHORIZATION regress_app;
SET ROLE regress_trusted;
SET ROLE regress_ops;
RESET SESSION AUTHORIZATION;
-- 31: functions and operators of the tenant's own before ours
CREATE SCHEMA evil;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE FUNCTION evil.current_account_id() RETURNS bigint LANGUAGE sql AS 'SELECT 4::bigint';
CREATE FUNCTION evil.own_workspace(text) RETURNS bigint LANGUAGE sql AS 'SELECT 4::bigint';
CREATE FUNCTION evil.always(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.always);
CREATE OPERATOR evil.>= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.always);
CREATE FUNCTION evil.authorize(text, bigint) RETURNS void LANGUAGE sql AS '';
SET search_path = evil, partner_portal, pg_catalog;
SELECT public.attempt('SELECT count(*) FROM security_key'), public.attempt('SELECT count(*) FROM workspace'), public.attempt('SELECT count(*) FROM key_activity'),
	public.attempt('SELECT company_url FROM workspace_detail(4)'), public.attempt('SELECT count(*) FROM members');
RESET search_path;
-- 32 to 34 with a second session, of the same role and of another: test/property/shared_role.py
SELECT attempt($$SELECT count(*) FROM pg_stat_activity WHERE usename <> 'regress_app' AND query <> '<insufficient privilege>'$$);
SELECT attempt('SELECT pg_cancel_backend(pg_backend_pid())') ~ '^42501', attempt('SELECT pg_terminate_backend(pg_backend_pid())') ~ '^42501';
-- 34, accepted: who may write a table may lock it, so applications set lock_timeout; what one may only read or change in part one can't
SELECT attempt('LOCK TABLE partner_portal.security_key IN SHARE ROW EXCLUSIVE MODE'), attempt('LOCK TABLE partner_portal.key_history IN SHARE MODE'),
	attempt('LOCK TABLE partner_portal.workspace_usage IN EXCLUSIVE MODE'), attempt('LOCK TABLE partner_portal.member IN SHARE ROW EXCLUSIVE MODE');
-- 35: no foreign key carries a change from one tenant's rows to another's
SELECT conrelid::regclass || '.' || conname AS cascades_across_tenants FROM pg_constraint k
	WHERE contype = 'f' AND connamespace = 'partner_portal'::regnamespace AND (confupdtype IN ('c', 'n', 'd') OR confdeltype IN ('c', 'n', 'd'))
	AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attname = 'workspace_id' AND NOT a.attisdropped)
	AND NOT EXISTS (
		SELECT FROM generate_subscripts(k.conkey, 1) i
		JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[i] AND a.attname = 'workspace_id'
		JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = k.confkey[i] AND b.attname IN ('workspace_id', 'partner_id'))
	-- who leaves a partner is nobody's staff any more
	AND conname <> 'staff_member' ORDER BY 1;
-- 36: what policies call raises nothing, whatever it is asked
SELECT attempt($$SELECT partner_portal.own_workspace(repeat('x', 1000000)) IS NULL AND partner_portal.granted_workspaces('') = '{}' AND partner_portal.complete_workspaces('''') = '{}'
	AND partner_portal.looks_after(-1) = false AND partner_portal.own_workspace(NULL) IS NULL$$);
-- 38, accepted: how long it takes to see nothing depends on what there is; a question about permissions reads a page more or less, a
-- query by an id the rows that it then hides
CREATE FUNCTION pages(statement text, who bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	PERFORM partner_portal.login_as(who);
	SET LOCAL ROLE regress_app;
	-- the first fills caches
	FOR i IN 1..3 LOOP
		EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT json) ' || statement INTO plan;
	END LOOP;
	RESET ROLE;
	PERFORM partner_portal.logout();
	RETURN (plan -> 0 -> 'Plan' ->> 'Shared Hit Blocks')::bigint + (plan -> 0 -> 'Plan' ->> 'Shared Read Blocks')::bigint;
END
$$;
SELECT what, max(abs(pages(replace(statement, '?', foreign_id), who) - pages(replace(statement, '?', '99999'), who))) <= 1 AS as_many_pages
FROM (VALUES ('may', $$SELECT partner_portal.may('read', ?)$$), ('visible', 'SELECT ? = ANY (partner_portal.visible_workspaces(''read''))')) AS t (what, statement),
	(VALUES ('2', 3), ('4', 3), ('2', 1), ('4', 1)) AS f (foreign_id, who)
GROUP BY what ORDER BY what;
SELECT what, bool_or(pages(replace(statement, '?', foreign_id), 3) > pages(replace(statement, '?', '99999'), 3)) AS more_pages
FROM (VALUES ('by workspace', 'SELECT * FROM partner_portal.security_key WHERE workspace_id = ?', '4'), ('by key', 'SELECT * FROM partner_portal.security_key WHERE key_id = ?', '1501')) AS t (what, statement, foreign_id)
GROUP BY what ORDER BY what;
