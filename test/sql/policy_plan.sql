\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept policy_plan
\i :begin
\i :as
-- What policies ask is asked in one step (src/policy_plan.c, src/policy_question.c), and answered as if each were a sub-select.
-- partner 1, customers 3 and 4 of 1, direct 5, partner 2; account n owns workspace n, 6 is a member of 3, 7 staff of 1 for 3, 8 a user of portal 1, 9 acts nowhere, 10 operates
SELECT (partner_portal.create_workspace(n, n || '@example.com')).workspace_id FROM unnest(ARRAY['p1', 'p2']) AS n;
SELECT (partner_portal.promote_to_partner(w)).partner_id FROM generate_series(1, 2) AS w;
SELECT (partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner WHERE partner_id = 1), n, n || '@example.com')).workspace_id FROM unnest(ARRAY['c3', 'c4']) AS n;
SELECT (partner_portal.create_workspace('d5', 'd5@example.com')).workspace_id;
SELECT (partner_portal.add_member(w, n || '@example.com', 'member')).account_id FROM unnest(ARRAY[3, 1], ARRAY['m6', 's7']) AS t (w, n);
SELECT (partner_portal.assign_staff(3, 7, 'system_administrator')).role;
SELECT (partner_portal.create_portal(1, 'Portal', 'portal-1', '#123456', 'https://example.com/')).portal_id;
INSERT INTO partner_portal.account (email, is_operator) VALUES ('u8@example.com', false), ('n9@example.com', false), ('o10@example.com', true);
INSERT INTO partner_portal.portal_account (workspace_id, portal_id, account_id, role, attributes) VALUES (1, 1, 8, 'viewer', '{"tenant": ["a", "b"]}');
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT w, 'smartphone', 'S-' || i FROM generate_series(1, 5) w, generate_series(1, 3) i;
UPDATE partner_portal.security_key SET status = 'disabled' WHERE serial = 'S-3';
INSERT INTO partner_portal.product (workspace_id, category, name) SELECT w, 'server', 'web' FROM generate_series(1, 5) w;
INSERT INTO partner_portal.folder (workspace_id, name) VALUES (1, 'shared'), (1, 'kept');
SELECT (partner_portal.share_folder(1, 1)).folder_id;
CREATE TABLE parted (workspace_id bigint NOT NULL, tenant text, amount integer, PRIMARY KEY (workspace_id, tenant)) PARTITION BY RANGE (workspace_id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (3);
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (3) TO (100);
CREATE INDEX ON parted (workspace_id, tenant);
INSERT INTO parted SELECT w, t, 0 FROM generate_series(1, 5) w, unnest(ARRAY['a', 'b', 'c']) t;
GRANT SELECT, INSERT, UPDATE, DELETE ON parted TO regress_app;
SELECT partner_portal.isolate('parted', 'workspace_id', '["tenant"]', 'manage_keys');

-- initplans(statement): each initplan of the plan that regress_app has for account 1: the questions of one that asks together, each with
-- how many want its answer, else its node
CREATE FUNCTION initplans(statement text, account_id bigint DEFAULT 1, together text DEFAULT 'on') RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	PERFORM partner_portal.login_as(account_id);
	PERFORM set_config('partner_portal.ask_together', together, true);
	SET LOCAL ROLE regress_app;
	EXECUTE 'EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) ' || statement INTO plan;
	RESET ROLE;
	PERFORM set_config('partner_portal.ask_together', 'on', true);
	PERFORM partner_portal.logout();
	RETURN QUERY SELECT coalesce((SELECT string_agg((SELECT count(*) FROM regexp_matches(a, '(\$|\mcol)\d+ = ', 'g')) || ' ' ||
			regexp_replace(regexp_replace(a, '((\$|\mcol)\d+ = )+', ''), 'partner_portal\.|::text', '', 'g'), ', ' ORDER BY o)
			FROM jsonb_array_elements_text(n -> 'Answers') WITH ORDINALITY AS e (a, o)),
		(n ->> 'Node Type') || ' ' || (n ->> 'Output'))
	FROM jsonb_path_query(plan::jsonb, 'strict $.**.Plans[*] ? (@."Parent Relationship" == "InitPlan")') AS n;
END
$$;
SELECT initplans('SELECT serial FROM partner_portal.security_key WHERE workspace_id = 3 AND key_id = 1');
SELECT initplans('SELECT serial FROM partner_portal.security_key WHERE workspace_id = 3 AND key_id = 1', together => 'off');
-- a WITH CHECK is asked by itself, and each sort of it; the same question is asked once
SELECT initplans('INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, ''smartphone'', ''new'')');
SELECT initplans('UPDATE partner_portal.security_key SET label = ''new'' WHERE workspace_id = 3');
SELECT initplans('DELETE FROM partner_portal.security_key WHERE workspace_id = 3');
SELECT initplans('INSERT INTO parted VALUES (3, ''a'', 1) ON CONFLICT (workspace_id, tenant) DO UPDATE SET amount = 1');
SELECT initplans('MERGE INTO parted p USING (VALUES (3)) v (id) ON p.workspace_id = v.id WHEN MATCHED AND amount = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET amount = 1 WHEN NOT MATCHED THEN INSERT VALUES (3, ''a'', 1)');
-- wherever initplans stand: in a view's arms, a sub-select, a WITH, an isolated table, a portal user's
SELECT initplans('SELECT count(*) FROM partner_portal.key_activity');
SELECT initplans('SELECT (SELECT count(*) FROM partner_portal.product p WHERE p.workspace_id = w.workspace_id) FROM partner_portal.workspace w');
SELECT initplans('WITH d AS MATERIALIZED (DELETE FROM parted RETURNING *) SELECT * FROM d JOIN partner_portal.product USING (workspace_id)');
SELECT initplans('WITH u AS (UPDATE parted SET amount = 1 RETURNING tenant) SELECT count(*) FROM u');
SELECT initplans('SELECT * FROM parted UNION ALL SELECT * FROM parted ORDER BY 1 LIMIT 1');
SELECT initplans('SELECT * FROM (SELECT workspace_id, row_number() OVER (ORDER BY tenant DESC) AS n FROM parted) s WHERE n % 2 = 0');
SELECT initplans('(SELECT workspace_id FROM parted ORDER BY workspace_id LIMIT 2) UNION ALL (SELECT workspace_id FROM partner_portal.workspace ORDER BY workspace_id LIMIT 2) ORDER BY 1 LIMIT 3');
SELECT initplans('SELECT * FROM partner_portal.folder');
-- what is a question, and what is left as it was
SELECT initplans('SELECT (SELECT partner_portal.own_workspace(''read'')), (SELECT partner_portal.own_workspace(''bill'')), (SELECT partner_portal.is_operator()), (SELECT partner_portal.acting_role())');
SELECT initplans($$SELECT (SELECT partner_portal.own_workspace('read') WHERE clock_timestamp() > '2000-01-01'), (SELECT partner_portal.own_workspace(NULL)), (SELECT partner_portal.own_workspace(current_setting('search_path'))),
	(SELECT partner_portal.own_workspace('read') + 1), (SELECT partner_portal.own_workspace('read') LIMIT 1), (SELECT partner_portal.looks_after(3)), (SELECT partner_portal.current_account_id() IS NULL),
	(SELECT unnest(partner_portal.granted_workspaces('read')) LIMIT 1), EXISTS (SELECT partner_portal.own_workspace('read')), ARRAY(SELECT partner_portal.own_workspace('read')), (SELECT now())$$);
-- as people see it
CREATE FUNCTION shown(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || statement LOOP
		RETURN NEXT regexp_replace(line, ' .returns .*', '');
	END LOOP;
END
$$;
SELECT shown('SELECT (SELECT partner_portal.is_operator()) FROM generate_series(1, 2)');

-- every reader answers the same in a sub-select as by itself
CREATE FUNCTION asked_apart() RETURNS SETOF text LANGUAGE sql BEGIN ATOMIC
	SELECT unnest(ARRAY[partner_portal.current_account_id()::text, partner_portal.own_workspace('read')::text, partner_portal.own_workspace('nothing')::text, partner_portal.lowest_partner_key()::text,
		partner_portal.highest_partner_key()::text, partner_portal.granted_workspaces('read')::text, partner_portal.visible_workspaces('read')::text, partner_portal.current_partner_id()::text,
		partner_portal.complete_workspaces('read')::text, partner_portal.product_workspaces('read')::text, partner_portal.limited_workspaces()::text, partner_portal.attribute('tenant')::text,
		partner_portal.portal_folders('read')::text, partner_portal.current_portal_id()::text, partner_portal.portal_workspace_id()::text, partner_portal.current_workspace_id()::text,
		partner_portal.is_operator()::text, partner_portal.acting_role()]);
END;
CREATE FUNCTION asked_together() RETURNS SETOF text LANGUAGE sql BEGIN ATOMIC
	SELECT unnest(ARRAY[(SELECT partner_portal.current_account_id())::text, (SELECT partner_portal.own_workspace('read'))::text, (SELECT partner_portal.own_workspace('nothing'))::text, (SELECT partner_portal.lowest_partner_key())::text,
		(SELECT partner_portal.highest_partner_key())::text, (SELECT partner_portal.granted_workspaces('read'))::text, (SELECT partner_portal.visible_workspaces('read'))::text, (SELECT partner_portal.current_partner_id())::text,
		(SELECT partner_portal.complete_workspaces('read'))::text, (SELECT partner_portal.product_workspaces('read'))::text, (SELECT partner_portal.limited_workspaces())::text, (SELECT partner_portal.attribute('tenant'))::text,
		(SELECT partner_portal.portal_folders('read'))::text, (SELECT partner_portal.current_portal_id())::text, (SELECT partner_portal.portal_workspace_id())::text, (SELECT partner_portal.current_workspace_id())::text,
		(SELECT partner_portal.is_operator())::text, (SELECT partner_portal.acting_role())]);
END;
GRANT EXECUTE ON FUNCTION asked_apart(), asked_together() TO regress_app;
CREATE FUNCTION ask(account_id bigint) RETURNS TABLE (same boolean, answers text) LANGUAGE plpgsql AS $$
BEGIN
	IF account_id IS NOT NULL THEN PERFORM partner_portal.login_as(account_id); END IF;
	IF account_id = 8 THEN PERFORM partner_portal.act_in_portal(1); END IF;
	SET LOCAL ROLE regress_app;
	RETURN QUERY SELECT ARRAY(SELECT asked_apart()) = ARRAY(SELECT asked_together()), ARRAY(SELECT asked_together())::text;
	RESET ROLE;
	PERFORM partner_portal.logout();
END
$$;
SELECT n, a.* FROM unnest(ARRAY[NULL, 1, 2, 3, 5, 6, 7, 8, 9, 10]) n, ask(n) a;

-- every relation that an application may read has the same rows either way, for everybody
CREATE FUNCTION contents(account_id bigint, together text) RETURNS TABLE (relation text, n bigint, digest text) LANGUAGE plpgsql AS $$
BEGIN
	IF account_id IS NOT NULL THEN PERFORM partner_portal.login_as(account_id); END IF;
	IF account_id = 8 THEN PERFORM partner_portal.act_in_portal(1); END IF;
	PERFORM set_config('partner_portal.ask_together', together, true);
	SET LOCAL ROLE regress_app;
	FOR relation IN SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind IN ('r', 'p', 'v') AND has_table_privilege(c.oid, 'SELECT')
		AND (c.relnamespace = 'partner_portal'::regnamespace OR c.oid = 'parted'::regclass) LOOP
		EXECUTE format('SELECT count(*), md5(string_agg(t::text, '','' ORDER BY t::text)) FROM %s t', relation) INTO n, digest;
		RETURN NEXT;
	END LOOP;
	RESET ROLE;
	PERFORM set_config('partner_portal.ask_together', 'on', true);
	PERFORM partner_portal.logout();
END
$$;
SELECT w AS account, count(*) FILTER (WHERE t.n <> a.n OR t.digest IS DISTINCT FROM a.digest) AS different, count(*) > 30 AS relations, coalesce(sum(t.n) FILTER (WHERE relation IN ('partner_portal.security_key', 'partner_portal.product', 'parted')), 0) AS rows
FROM unnest(ARRAY[NULL, 1, 2, 3, 5, 6, 7, 8, 9, 10]) w, contents(w, 'on') t JOIN contents(w, 'off') a USING (relation) GROUP BY 1 ORDER BY 1;

-- answers are of the execution: a generic plan serves one after the other
SET plan_cache_mode = force_generic_plan;
PREPARE keys AS SELECT workspace_id, count(*) FROM partner_portal.security_key GROUP BY 1 ORDER BY 1;
SET ROLE regress_app;
EXECUTE keys;
RESET ROLE;
BEGIN; SELECT partner_portal.login_as(1); SET LOCAL ROLE regress_app; EXECUTE keys; COMMIT;
BEGIN; SELECT partner_portal.login_as(3); SET LOCAL ROLE regress_app; EXECUTE keys; COMMIT;
BEGIN; SELECT partner_portal.login_as(7); SET LOCAL ROLE regress_app; EXECUTE keys; COMMIT;
BEGIN; SELECT partner_portal.login_as(9); SET LOCAL ROLE regress_app; EXECUTE keys; COMMIT;
-- and asked when first wanted: a cursor shows what who is signed in at its first row may see
BEGIN;
SET LOCAL ROLE regress_app;
DECLARE early CURSOR FOR SELECT workspace_id, serial FROM partner_portal.security_key ORDER BY 1, 2;
RESET ROLE;
SELECT partner_portal.login_as(5);
FETCH 2 FROM early;
SELECT partner_portal.login_as(3);
FETCH ALL FROM early;
MOVE ABSOLUTE 0 early;
COMMIT;
-- a list of workspaces lasts as long as the query
BEGIN;
SELECT partner_portal.login_as(7);
SET LOCAL ROLE regress_app;
SELECT count(*), min(workspace_id), max(workspace_id) FROM partner_portal.security_key k, generate_series(1, 2000) WHERE length(repeat(serial, 10)) > 0;
ROLLBACK;

CREATE FUNCTION done(statement text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN EXECUTE statement; RETURN 'done'; END $$;
GRANT EXECUTE ON FUNCTION done(text) TO regress_app;
-- asked in every place, where a sub-select is run again and again, and where a statement writes
SELECT run_as(1, :app, $$SELECT string_agg(w.workspace_id || ':' || (SELECT count(*) FROM partner_portal.security_key k WHERE k.workspace_id = w.workspace_id), ' ' ORDER BY w.workspace_id) FROM partner_portal.workspace w$$);
SELECT run_as(1, :app, $$SELECT string_agg(w.workspace_id || ':' || l.n, ' ' ORDER BY w.workspace_id) FROM partner_portal.workspace w, LATERAL (SELECT count(*) AS n FROM partner_portal.key_activity k WHERE k.workspace_id = w.workspace_id OFFSET 0) l$$);
SELECT run_as(3, :app, $$WITH u AS (UPDATE parted SET amount = amount + 1 RETURNING workspace_id, tenant) SELECT string_agg(workspace_id || tenant, ' ' ORDER BY 1) FROM u$$);
SELECT run_as(3, :app, $$WITH u AS (INSERT INTO parted VALUES (3, 'd', 1) RETURNING workspace_id, tenant) SELECT workspace_id || tenant FROM u$$);
SELECT run_as(3, :app, $$SELECT done('INSERT INTO parted VALUES (4, ''d'', 1)')$$);
SELECT run_as(3, :app, $$SELECT done('INSERT INTO parted VALUES (3, ''d'', 7) ON CONFLICT (workspace_id, tenant) DO UPDATE SET amount = excluded.amount')$$);
SELECT run_as(3, :app, $$SELECT done('UPDATE parted SET workspace_id = 4, tenant = ''e'' WHERE tenant = ''d''')$$);
SELECT run_as(1, :app, $$SELECT done('UPDATE parted SET workspace_id = 2')$$);
SELECT run_as(3, :app, $$SELECT done('MERGE INTO parted p USING (VALUES (3), (4)) v (id) ON p.workspace_id = v.id AND p.tenant = ''d'' WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (id, ''d'', 1)')$$);
SELECT run_as(3, :app, $$SELECT done('MERGE INTO parted p USING (VALUES (3)) v (id) ON p.workspace_id = v.id AND p.tenant = ''d'' WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (id, ''d'', 1)')$$);
SELECT workspace_id, string_agg(tenant || amount, ' ' ORDER BY tenant) FROM parted GROUP BY 1 ORDER BY 1;
SELECT run_as(1, :app, $$SELECT serial FROM partner_portal.security_key WHERE workspace_id = 4 AND serial = 'S-2' FOR UPDATE$$), run_as(3, :app, $$SELECT serial FROM partner_portal.security_key WHERE serial = 'S-1' FOR UPDATE$$);
-- of parallel workers too
SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
ALTER TABLE parted_high SET (parallel_workers = 2);
CREATE FUNCTION gathers(statement text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	PERFORM partner_portal.login_as(3);
	SET LOCAL ROLE regress_app;
	EXECUTE 'EXPLAIN (FORMAT JSON) ' || statement INTO plan;
	RESET ROLE;
	PERFORM partner_portal.logout();
	RETURN plan::text ~ 'Gather' AND plan::text ~ 'partner_portal identity';
END
$$;
SELECT gathers('SELECT count(*), sum(amount) FROM parted'), run_as(3, :app, 'SELECT count(*) || '' of '' || max(workspace_id) FROM parted'), run_as(1, :app, 'SELECT count(*) FROM parted'), run_as(9, :app, 'SELECT count(*) FROM parted');
SELECT gathers('SELECT serial FROM partner_portal.security_key'), run_as(3, :app, 'SELECT count(*) FROM partner_portal.security_key k JOIN partner_portal.product p USING (workspace_id)'),
	run_as(7, :app, 'SELECT count(*) FROM partner_portal.key_activity k JOIN partner_portal.product p USING (workspace_id)');
SELECT run_as(3, :app, 'SELECT (SELECT count(*) FROM parted p WHERE p.workspace_id >= k.workspace_id) FROM partner_portal.security_key k LIMIT 1');
SELECT set_config(name, 'off', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
RESET max_parallel_workers_per_gather;

-- who may not execute a reader is told so, also when it was allowed a moment ago, and by a plan that is for all
DROP ROLE IF EXISTS regress_asker, regress_asking;
CREATE ROLE regress_asker;
CREATE ROLE regress_asking;
GRANT USAGE ON SCHEMA partner_portal TO regress_asker;
GRANT SELECT ON partner_portal.security_key TO regress_asker;
SELECT run_as(3, 'regress_asker', 'SELECT count(*) FROM partner_portal.security_key');
SELECT run_as(3, 'regress_asker', 'EXPLAIN SELECT count(*) FROM partner_portal.security_key');
GRANT EXECUTE ON FUNCTION partner_portal.current_account_id(), partner_portal.own_workspace(text), partner_portal.lowest_partner_key(), partner_portal.highest_partner_key() TO regress_asker;
GRANT EXECUTE ON FUNCTION partner_portal.granted_workspaces(text) TO regress_asking;
SELECT run_as(3, :app, 'SELECT count(*) FROM partner_portal.security_key');
SELECT run_as(3, 'regress_asker', 'SELECT count(*) FROM partner_portal.security_key');
GRANT regress_asking TO regress_asker;
SELECT run_as(3, 'regress_asker', 'SELECT count(*) FROM partner_portal.security_key');
PREPARE granted AS SELECT (SELECT partner_portal.granted_workspaces('read')) AS granted;
EXECUTE granted;
SET ROLE regress_asker;
EXECUTE granted;
RESET ROLE;
REVOKE regress_asking FROM regress_asker;
SELECT run_as(3, 'regress_asker', 'SELECT count(*) FROM partner_portal.security_key');
SET ROLE regress_asker;
EXECUTE granted;
RESET ROLE;
EXECUTE granted;
GRANT EXECUTE ON FUNCTION partner_portal.granted_workspaces(text) TO regress_asker;
SET ROLE regress_asker;
EXECUTE granted;
RESET ROLE;
REVOKE EXECUTE ON FUNCTION partner_portal.granted_workspaces(text) FROM regress_asker;
SET ROLE regress_asker;
EXECUTE granted;
RESET ROLE;
-- a function of somebody's asks by the rights of its owner
CREATE FUNCTION of_owner() RETURNS bigint[] LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN RETURN (SELECT partner_portal.granted_workspaces('read')); END $$;
SELECT run_as(7, 'regress_asker', 'SELECT of_owner()'), run_as(7, 'regress_asker', 'SELECT (SELECT partner_portal.granted_workspaces(''read''))'), run_as(7, 'regress_asker', 'SELECT of_owner()');
DROP OWNED BY regress_asker, regress_asking;
DROP ROLE regress_asker, regress_asking;

-- a reader that somebody replaced is none, and what was planned with it is planned anew
BEGIN;
SELECT partner_portal.login_as(3);
PREPARE own AS SELECT (SELECT partner_portal.own_workspace('read')) AS own;
EXECUTE own;
SELECT initplans('SELECT (SELECT partner_portal.own_workspace(''read''))');
CREATE OR REPLACE FUNCTION partner_portal.own_workspace(permission text) RETURNS bigint LANGUAGE plpgsql STABLE STRICT AS $$ BEGIN RETURN 77; END $$;
EXECUTE own;
SELECT initplans('SELECT (SELECT partner_portal.own_workspace(''read''))');
ROLLBACK;
BEGIN;
ALTER FUNCTION partner_portal.own_workspace(text) VOLATILE;
SELECT initplans('SELECT (SELECT partner_portal.own_workspace(''read''))');
ROLLBACK;
BEGIN;
ALTER FUNCTION partner_portal.own_workspace(text) SET search_path = pg_catalog;
SELECT initplans('SELECT (SELECT partner_portal.own_workspace(''read''))');
ROLLBACK;
BEGIN;
SELECT partner_portal.login_as(3);
EXECUTE own;
SELECT initplans('SELECT (SELECT partner_portal.own_workspace(''read''))');
ROLLBACK;
RESET plan_cache_mode;

-- long lists are kept, each for whom and what it is, and follow every change
SELECT count((partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner WHERE partner_id = n % 2 + 1), 'c' || n, 'c' || n || '@example.com')).workspace_id) FROM generate_series(11, 40) AS n;
SELECT (partner_portal.add_member(w, 's11@example.com', 'member')).workspace_id FROM generate_series(1, 2) w;
UPDATE partner_portal.member SET accepted_at = now() WHERE accepted_at IS NULL;
SELECT account_id AS eleven FROM partner_portal.account WHERE email = 's11@example.com' \gset
SELECT partner_portal.assign_staff(workspace_id, :eleven, CASE WHEN workspace_id % 3 = 0 THEN 'account_owner' ELSE 'system_administrator' END) FROM partner_portal.workspace WHERE workspace_id > 5 \g /dev/null
CREATE FUNCTION lists(account_id bigint, acting bigint) RETURNS text LANGUAGE sql AS $$
	SELECT run_as(lists.account_id, 'regress_app', $q$SELECT concat_ws(' ', partner_portal.granted_workspaces('read'), partner_portal.granted_workspaces('manage_keys'), partner_portal.complete_workspaces('read'), (SELECT partner_portal.granted_workspaces('read')) = partner_portal.granted_workspaces('read'),
		(SELECT count(*) FROM partner_portal.workspace))$q$, acting)
$$;
SELECT lists(:eleven, w) FROM unnest(ARRAY[1, 2, 1, 2]) w;
SELECT (partner_portal.unassign_staff(7, :eleven)).workspace_id;
SELECT lists(:eleven, w) FROM unnest(ARRAY[2, 1]) w;
BEGIN;
SELECT (partner_portal.unassign_staff(workspace_id, :eleven)).workspace_id FROM partner_portal.workspace WHERE workspace_id BETWEEN 8 AND 11;
SELECT lists(:eleven, w) FROM unnest(ARRAY[1, 2]) w;
ROLLBACK;
SELECT lists(:eleven, w) FROM unnest(ARRAY[1, 2]) w;
SELECT lists(7, NULL);

-- EXPLAIN in every form, by itself and by auto_explain
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0;
SET auto_explain.log_analyze = on;
SET auto_explain.log_verbose = on;
SET auto_explain.log_nested_statements = on;
CREATE FUNCTION explained(form text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	line text;
	whole text := '';
BEGIN
	PERFORM partner_portal.login_as(1);
	SET LOCAL ROLE regress_app;
	FOR line IN EXECUTE format('EXPLAIN (ANALYZE, VERBOSE, BUFFERS, SETTINGS, FORMAT %s) UPDATE partner_portal.security_key SET label = ''x''', form) LOOP
		whole := whole || line || E'\n';
	END LOOP;
	RESET ROLE;
	PERFORM partner_portal.logout();
	RETURN whole ~ 'Answers' AND whole ~ 'partner_portal.granted_workspaces\(.*manage_keys.*::text\)';
END
$$;
SELECT form, explained(form) FROM unnest(ARRAY['text', 'json', 'yaml', 'xml']) AS form;
