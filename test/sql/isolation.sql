\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept isolation
\i :begin
\i :as
-- partners 1 and 2, customers 3 and 4 of 1, direct 5. Accounts 1 to 5 own them, 6 is a plain member of 3, 7 staff of 1 for 3, 8 and 9 users of portal 1
SELECT (partner_portal.create_workspace(n, n || '@example.com')).workspace_id FROM unnest(ARRAY['p1', 'p2']) AS n;
SELECT (partner_portal.promote_to_partner(w)).partner_id FROM generate_series(1, 2) AS w;
SELECT (partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner WHERE partner_id = 1), 'Customer', n || '@example.com')).workspace_id FROM unnest(ARRAY['c3', 'c4']) AS n;
SELECT (partner_portal.create_workspace('Direct', 'd5@example.com')).workspace_id;
SELECT (partner_portal.add_member(w, n || '@example.com', 'member')).account_id FROM unnest(ARRAY[3, 1], ARRAY['m6', 's7']) AS t (w, n);
SELECT (partner_portal.assign_staff(3, 7, 'system_administrator')).role;
SELECT (partner_portal.create_portal(1, 'Portal', 'portal-1', '#123456', 'https://example.com/')).portal_id;
INSERT INTO partner_portal.account (email) VALUES ('u8@example.com'), ('u9@example.com');
INSERT INTO partner_portal.portal_account (workspace_id, portal_id, account_id, role, attributes) VALUES
	(1, 1, 8, 'viewer', '{"tenant": "a", "levels": [1, 2], "vip": true, "since": "2024-02-29"}'), (1, 1, 9, 'viewer', '{"levels": [7.5, 3], "since": "2024-02-31"}');
-- no hole to begin with, but those that every new database has
SELECT * FROM partner_portal.check_isolation();
SELECT format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()) \gexec
REVOKE EXECUTE ON FUNCTION pg_cancel_backend(integer), pg_terminate_backend(integer, bigint), lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC;
SELECT * FROM partner_portal.check_isolation();
SELECT run_as(n, :app, 'SELECT partner_portal.check_isolation()') FROM unnest(ARRAY[NULL, 1]) AS n;
SELECT run_as(NULL, :ops, 'SELECT count(*) FROM partner_portal.check_isolation()');

CREATE FUNCTION in_portal(account_id bigint, portal_id bigint, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	PERFORM partner_portal.login_as(account_id);
	SET LOCAL ROLE regress_app;
	PERFORM partner_portal.act_in_portal(portal_id);
	EXECUTE statement INTO result;
	RESET ROLE;
	PERFORM partner_portal.logout();
	RETURN coalesce(result, '(null)');
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
-- an application's table; before, everybody sees it
CREATE TABLE "Order" (order_id int PRIMARY KEY, workspace_id bigint NOT NULL, tenant text, level int, vip boolean, since date);
INSERT INTO "Order" SELECT g, g % 5 + 1, chr(97 + g % 3), g % 4, g % 2 = 0, date '2024-02-27' + g / 5 % 5 FROM generate_series(1, 60) g;
GRANT SELECT, INSERT, UPDATE, DELETE ON "Order" TO regress_app;
SELECT run_as(NULL, :app, 'SELECT count(*) FROM "Order"');
SELECT * FROM partner_portal.check_isolation();
SET client_min_messages = notice;
\set VERBOSITY default
SELECT partner_portal.isolate('"Order"', 'workspace_id', '{"tenant": "tenant", "level": "levels"}');
CREATE INDEX ON "Order" (workspace_id);
SELECT partner_portal.isolate('"Order"', 'workspace_id', '["tenant"]');
CREATE INDEX ON "Order" (workspace_id, tenant);
SELECT partner_portal.isolate('"Order"', 'workspace_id', '["tenant"]');
SELECT partner_portal.isolate('"Order"', 'workspace_id');
\set VERBOSITY terse
SET client_min_messages = error;
SELECT * FROM partner_portal.check_isolation();
SELECT polname, polcmd, polpermissive FROM pg_policy WHERE polrelid = '"Order"'::regclass ORDER BY 1;
-- who sees what, and who may write
SELECT n, run_as(n, :app, 'SELECT string_agg(DISTINCT workspace_id::text, $$ $$) FROM "Order"') FROM unnest(ARRAY[NULL, 1, 2, 3, 4, 5, 6, 7, 8]) AS n;
SELECT in_portal(8, 1, 'SELECT count(*) FROM "Order"');
SELECT n, run_as(n, :app, 'INSERT INTO "Order" VALUES (100 + ' || n || ', 3) RETURNING order_id') FROM unnest(ARRAY[1, 2, 3, 4, 6, 7]) AS n;
SELECT n, run_as(n, :app, 'WITH u AS (UPDATE "Order" SET tenant = tenant WHERE workspace_id = 3 RETURNING 1) SELECT count(*) FROM u') FROM unnest(ARRAY[1, 2, 3, 4, 6, 7]) AS n;
SELECT run_as(3, :app, 'UPDATE "Order" SET workspace_id = 4 WHERE order_id = 2'), run_as(3, :app, 'WITH d AS (DELETE FROM "Order" WHERE order_id IN (1, 2, 103) RETURNING order_id) SELECT array_agg(order_id) FROM d');
-- the operator with an account sees all; the owner of the table nothing
UPDATE partner_portal.account SET is_operator = true WHERE account_id = 5;
SELECT run_as(5, :app, 'SELECT string_agg(DISTINCT workspace_id::text, $$ $$) FROM "Order"');
UPDATE partner_portal.account SET is_operator = false WHERE account_id = 5;
ALTER TABLE "Order" OWNER TO regress_trusted;
SELECT run_as(NULL, :trusted, 'SELECT count(*) FROM "Order"'), run_as(3, :trusted, 'SELECT count(DISTINCT workspace_id) FROM "Order"');
SELECT * FROM partner_portal.check_isolation();
ALTER TABLE "Order" OWNER TO CURRENT_USER;
-- with another permission for writing
SELECT partner_portal.isolate('"Order"', 'workspace_id', write_permission => 'read');
SELECT n, run_as(n, :app, 'WITH u AS (UPDATE "Order" SET tenant = tenant WHERE workspace_id = 3 RETURNING 1) SELECT count(*) > 0 FROM u') FROM unnest(ARRAY[1, 2, 3, 4, 6, 7]) AS n;

-- portal users, by their attributes; of every type
SELECT partner_portal.isolate('"Order"', 'workspace_id', '["tenant"]');
SELECT in_portal(8, 1, 'SELECT string_agg(DISTINCT workspace_id || tenant, $$ $$) FROM "Order"'), in_portal(9, 1, 'SELECT count(*) FROM "Order"'), run_as(1, :app, 'SELECT count(DISTINCT tenant) FROM "Order" WHERE workspace_id = 1');
SELECT in_portal(8, 1, 'WITH u AS (UPDATE "Order" SET level = 1 RETURNING 1) SELECT count(*) FROM u'), in_portal(8, 1, 'INSERT INTO "Order" VALUES (999, 1)');
SELECT partner_portal.isolate('"Order"', 'workspace_id', '{"level": "levels"}');
SELECT in_portal(8, 1, 'SELECT string_agg(DISTINCT level::text, $$ $$) FROM "Order"'), in_portal(9, 1, 'SELECT string_agg(DISTINCT level::text, $$ $$) FROM "Order"');
SELECT partner_portal.isolate('"Order"', 'workspace_id', '{"level": "levels", "vip": "vip"}');
SELECT in_portal(8, 1, 'SELECT string_agg(DISTINCT level || $$ $$ || vip, $$ $$) FROM "Order"'), in_portal(9, 1, 'SELECT count(*) FROM "Order"');
SELECT partner_portal.isolate('"Order"', 'workspace_id', '{"since": "since"}');
SELECT in_portal(8, 1, 'SELECT string_agg(DISTINCT since::text, $$ $$) FROM "Order"'), in_portal(9, 1, 'SELECT string_agg(DISTINCT since::text, $$ $$) FROM "Order"');
-- an attribute of another type than the column shows nothing, and fails nobody
SELECT partner_portal.isolate('"Order"', 'workspace_id', '{"since": "tenant", "level": "tenant", "vip": "tenant"}');
SELECT in_portal(8, 1, 'SELECT count(*) FROM "Order"');

-- the planner is told whether one acts in a portal (src/portal_plan.c): no condition is left of the other sort's, and no OR
SELECT partner_portal.isolate('"Order"', 'workspace_id', '["tenant"]');
CREATE FUNCTION plan(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	line text;
	conditions text := '';
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || statement LOOP
		conditions := conditions || ' ' || coalesce(substring(line FROM '(?:Index Cond|Filter|Recheck Cond): (.*)'), '');
	END LOOP;
	RETURN concat_ws(' ', CASE WHEN conditions ~ '\mOR\M' THEN 'OR' END, CASE WHEN conditions ~ 'portal_workspace_id' THEN 'portal' END, CASE WHEN conditions ~ 'workspace_id = ANY' THEN 'workspaces' END);
END
$$;
SELECT run_as(3, :app, 'SELECT plan($$SELECT FROM "Order"$$)'), run_as(1, :app, 'SELECT plan($$SELECT FROM "Order"$$)'), in_portal(8, 1, 'SELECT plan($$SELECT FROM "Order"$$)'), run_as(NULL, :app, 'SELECT plan($$SELECT FROM "Order"$$)');
-- and a plan that is kept is made again for an identity of another portal, or of none, be it in one transaction
PREPARE orders AS SELECT count(*) AS orders, string_agg(DISTINCT workspace_id || tenant, ' ') FROM "Order";
PREPARE all_orders AS SELECT count(*) AS orders FROM "Order";
SET plan_cache_mode = force_generic_plan;
BEGIN;
SELECT partner_portal.login_as(8);
SET LOCAL ROLE regress_app;
EXECUTE orders;
SAVEPOINT portal;
SELECT partner_portal.act_in_portal(1);
EXECUTE orders;
EXECUTE orders;
ROLLBACK TO portal;
EXECUTE orders;
RESET ROLE;
SELECT partner_portal.logout(), partner_portal.login_as(3);
SET LOCAL ROLE regress_app;
EXECUTE orders;
RESET ROLE;
SELECT partner_portal.login_as(8);
SET LOCAL ROLE regress_app;
SELECT partner_portal.act_in_portal(1);
EXECUTE orders;
RESET ROLE;
SELECT partner_portal.logout();
SET LOCAL ROLE regress_app;
EXECUTE orders;
COMMIT;
EXECUTE orders;
BEGIN;
SELECT partner_portal.login_as(3);
SET LOCAL ROLE regress_app;
EXECUTE orders;
ROLLBACK;
-- also when something else is planned for nobody in between
BEGIN;
SELECT partner_portal.login_as(8), partner_portal.act_in_portal(1);
SET LOCAL ROLE regress_app;
EXECUTE orders;
COMMIT;
BEGIN;
SET LOCAL ROLE regress_app;
EXECUTE all_orders;
COMMIT;
BEGIN;
SELECT partner_portal.login_as(3);
SET LOCAL ROLE regress_app;
EXECUTE orders;
EXECUTE all_orders;
ROLLBACK;
-- so is that of a function
CREATE FUNCTION orders() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT string_agg(DISTINCT workspace_id || tenant, '' '') FROM "Order"); END';
SELECT n, CASE n WHEN 8 THEN in_portal(n, 1, 'SELECT orders()') ELSE run_as(n, :app, 'SELECT orders()') END FROM unnest(ARRAY[3, 8, 8, 3, 4, 8, NULL, 8]) AS n;
-- a partner's other portal, whose users have other values
SELECT (partner_portal.create_portal(1, 'Other', 'portal-2', '#123456', 'https://example.com/')).portal_id;
INSERT INTO partner_portal.portal_account (workspace_id, portal_id, account_id, role, attributes) VALUES (1, 2, 8, 'viewer', '{"tenant": ["b", "c"]}');
SELECT in_portal(8, p, 'SELECT orders()') FROM unnest(ARRAY[1, 2, 1]) AS p;
SELECT partner_portal.delete_portal(2);
SET plan_cache_mode = auto;
DEALLOCATE orders;
DEALLOCATE all_orders;
DROP FUNCTION orders, plan;
-- asked outside a policy
SELECT partner_portal.acting_in_portal(), in_portal(8, 1, 'SELECT partner_portal.acting_in_portal()'), run_as(1, :app, 'SELECT partner_portal.acting_in_portal()'), partner_portal.few_rows(NULL);
-- policies as 1.0 made them hold, and are told of
CREATE INDEX order_workspace_id ON "Order" (workspace_id);
SELECT partner_portal.isolate('"Order"', 'workspace_id');
ALTER POLICY partner_portal_read ON "Order" USING (workspace_id BETWEEN (SELECT partner_portal.lowest_workspace('read')) AND (SELECT partner_portal.highest_workspace('read')) AND workspace_id = ANY ((SELECT partner_portal.visible_workspaces('read'))::bigint[]));
SELECT run_as(3, :app, 'SELECT string_agg(DISTINCT workspace_id::text, $$ $$) FROM "Order"'), run_as(1, :app, 'SELECT string_agg(DISTINCT workspace_id::text, $$ $$) FROM "Order"'), in_portal(8, 1, 'SELECT count(*) FROM "Order"');
SELECT * FROM partner_portal.check_isolation();
SELECT partner_portal.isolate('"Order"', 'workspace_id');
SELECT * FROM partner_portal.check_isolation();

-- wrong questions
SELECT a, run_as(NULL, NULL, format('SELECT partner_portal.isolate(%L, %L, %L)', '"Order"', 'workspace_id', a)) FROM unnest(ARRAY['{}', '[]', '[1]', '{"tenant": 1}', '{"nothing": "tenant"}', '{"tenant": "No Name"}', '"tenant"', 'null']) AS a;
CREATE TABLE odd (id int PRIMARY KEY, workspace_id text, place point, amount numeric, w bigint);
CREATE VIEW odd_view AS SELECT * FROM odd;
SELECT run_as(NULL, NULL, $$SELECT partner_portal.isolate('odd', 'workspace_id')$$), run_as(NULL, NULL, $$SELECT partner_portal.isolate('odd', 'nothing')$$), run_as(NULL, NULL, $$SELECT partner_portal.isolate('odd', 'ctid')$$),
	run_as(NULL, NULL, $$SELECT partner_portal.isolate('odd', 'w', '["amount"]')$$), run_as(NULL, NULL, $$SELECT partner_portal.isolate('odd', 'w', '["place"]')$$), run_as(NULL, NULL, $$SELECT partner_portal.isolate('odd', NULL)$$), run_as(NULL, NULL, $$SELECT partner_portal.isolate(NULL, 'w')$$),
	run_as(NULL, NULL, $$SELECT partner_portal.isolate('odd_view', 'w')$$), run_as(NULL, NULL, $$SELECT partner_portal.isolate('pg_class', 'relname')$$), run_as(NULL, NULL, $$SELECT partner_portal.isolate('partner_portal.workspace', 'workspace_id')$$),
	run_as(NULL, NULL, $$SELECT partner_portal.isolate(0, 'w')$$), run_as(NULL, NULL, $$SELECT partner_portal.isolate('odd', 'w', write_permission => 'nothing')$$), run_as(NULL, NULL, $$SELECT partner_portal.release('odd')$$) \gx
SELECT run_as(NULL, :app, $$SELECT partner_portal.isolate('odd', 'w')$$), run_as(NULL, :ops, $$SELECT partner_portal.isolate('odd', 'w')$$), run_as(NULL, :ops, $$SELECT partner_portal.release('"Order"')$$);
DROP TABLE odd CASCADE;
-- released
CREATE POLICY mine ON "Order" FOR SELECT USING (order_id < 10);
SELECT * FROM partner_portal.check_isolation();
SELECT partner_portal.release('"Order"');
SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = '"Order"'::regclass;
SELECT partner_portal.isolate('"Order"', 'workspace_id');
DROP POLICY mine ON "Order";
SELECT partner_portal.release('"Order"');
SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = '"Order"'::regclass;
SELECT run_as(NULL, :app, 'SELECT count(*) > 50 FROM "Order"');
DROP TABLE "Order";

-- partitions, whoever asks them directly; one that comes later
CREATE TABLE sale (workspace_id int, day date, tenant varchar(20)) PARTITION BY RANGE (day);
CREATE TABLE sale_1 (tenant varchar(20), day date, workspace_id int);
ALTER TABLE sale ATTACH PARTITION sale_1 FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE sale_2 PARTITION OF sale FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') PARTITION BY LIST (workspace_id);
CREATE TABLE sale_2a PARTITION OF sale_2 DEFAULT;
CREATE INDEX ON sale (workspace_id, tenant);
INSERT INTO sale SELECT g % 5 + 1, date '2026-01-15' + g, chr(97 + g % 3) FROM generate_series(1, 30) g;
GRANT SELECT, INSERT ON sale, sale_1, sale_2, sale_2a TO regress_app;
SELECT partner_portal.isolate('sale', 'workspace_id', '["tenant"]');
SELECT t, run_as(3, :app, format('SELECT string_agg(DISTINCT workspace_id::text, $$ $$) FROM %I', t)), run_as(NULL, :app, format('SELECT count(*) FROM %I', t)), in_portal(8, 1, format('SELECT string_agg(DISTINCT workspace_id || tenant, $$ $$) FROM %I', t))
	FROM unnest(ARRAY['sale', 'sale_1', 'sale_2', 'sale_2a']) AS t;
SELECT run_as(3, :app, $$INSERT INTO sale VALUES (4, '2026-01-01', 'a')$$), run_as(3, :app, $$INSERT INTO sale_2a VALUES (4, '2026-02-01', 'a')$$), run_as(3, :app, $$INSERT INTO sale VALUES (3, '2026-01-01', 'a') RETURNING workspace_id$$);
SELECT * FROM partner_portal.check_isolation();
CREATE TABLE sale_3 PARTITION OF sale FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
SELECT * FROM partner_portal.check_isolation();
SELECT partner_portal.isolate('sale', 'workspace_id', '["tenant"]');
SELECT * FROM partner_portal.check_isolation();

-- every hole, made and mended
CREATE FUNCTION hole(make text, mend text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE make;
	RETURN QUERY SELECT object || ': ' || problem FROM partner_portal.check_isolation();
	EXECUTE mend;
	RETURN QUERY SELECT 'left: ' || object || ': ' || problem FROM partner_portal.check_isolation();
END
$$;
CREATE ROLE regress_isolation_bypass BYPASSRLS;
CREATE ROLE regress_isolation_owner;
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO regress_app;
SELECT hole('ALTER TABLE sale DISABLE ROW LEVEL SECURITY', 'ALTER TABLE sale ENABLE ROW LEVEL SECURITY');
SELECT hole('ALTER TABLE sale_2a NO FORCE ROW LEVEL SECURITY', 'ALTER TABLE sale_2a FORCE ROW LEVEL SECURITY');
SELECT hole('ALTER TABLE partner_portal.security_key DISABLE ROW LEVEL SECURITY', 'ALTER TABLE partner_portal.security_key ENABLE ROW LEVEL SECURITY');
SELECT hole('ALTER TABLE partner_portal.invoice NO FORCE ROW LEVEL SECURITY', 'ALTER TABLE partner_portal.invoice FORCE ROW LEVEL SECURITY');
SELECT hole('DROP POLICY partner_portal_signed_in ON sale_1', $$SELECT partner_portal.isolate('sale', 'workspace_id', '["tenant"]')$$);
SELECT hole('CREATE POLICY extra ON sale_1 USING (true)', 'DROP POLICY extra ON sale_1');
SELECT hole('CREATE POLICY extra ON partner_portal.workspace USING (true)', 'DROP POLICY extra ON partner_portal.workspace');
SELECT hole('DROP INDEX sale_workspace_id_tenant_idx', 'CREATE INDEX sale_workspace_id_tenant_idx ON sale (workspace_id, tenant)');
SELECT hole('ALTER ROLE regress_app BYPASSRLS', 'ALTER ROLE regress_app NOBYPASSRLS');
SELECT hole('ALTER ROLE regress_app SUPERUSER', 'ALTER ROLE regress_app NOSUPERUSER');
SELECT hole('GRANT regress_isolation_bypass TO regress_app', 'REVOKE regress_isolation_bypass FROM regress_app');
SELECT hole('ALTER ROLE regress_isolation_bypass LOGIN; GRANT regress_app, regress_trusted TO regress_isolation_bypass', 'REVOKE regress_app, regress_trusted FROM regress_isolation_bypass; ALTER ROLE regress_isolation_bypass NOLOGIN');
SELECT hole('ALTER TABLE sale OWNER TO regress_app', 'ALTER TABLE sale OWNER TO CURRENT_USER');
SELECT hole('ALTER TABLE sale OWNER TO regress_isolation_owner; GRANT regress_isolation_owner TO regress_trusted', 'REVOKE regress_isolation_owner FROM regress_trusted; ALTER TABLE sale OWNER TO CURRENT_USER');
SELECT hole('GRANT pg_read_server_files TO regress_app', 'REVOKE pg_read_server_files FROM regress_app');
SELECT hole('GRANT pg_read_all_data, pg_write_all_data, pg_monitor TO regress_app', 'REVOKE pg_read_all_data, pg_write_all_data, pg_monitor FROM regress_app');
SELECT hole('ALTER ROLE regress_app CREATEROLE', 'ALTER ROLE regress_app NOCREATEROLE');
SELECT hole('ALTER ROLE regress_trusted REPLICATION', 'ALTER ROLE regress_trusted NOREPLICATION');
-- who is a member without SET ROLE may not become the other (16 on), unless by granting it; MAINTAIN is of 17
SELECT current_setting('server_version_num')::integer >= 160000 AS has_options, current_setting('server_version_num')::integer >= 170000 AS has_maintain \gset
SELECT CASE WHEN :'has_options' THEN ' WITH INHERIT TRUE, SET FALSE' ELSE '' END AS unset, CASE WHEN :'has_options' THEN ' WITH ADMIN TRUE, INHERIT FALSE, SET FALSE' ELSE ' WITH ADMIN OPTION' END AS admin,
	CASE WHEN :'has_options' THEN 'regress_isolation_bypass' ELSE 'regress_isolation_owner' END AS other, CASE WHEN :'has_maintain' THEN 'MAINTAIN' ELSE 'TRIGGER' END AS latest \gset
SELECT hole(format('GRANT %s TO regress_app%s', :'other', :'unset'), format('REVOKE %s FROM regress_app', :'other'));
SELECT hole(format('GRANT regress_isolation_bypass TO regress_app%s', :'admin'), 'REVOKE regress_isolation_bypass FROM regress_app');
SELECT replace(h, :'latest', 'the latest privilege') FROM hole(format('GRANT %s ON sale TO regress_app', :'latest'), format('REVOKE %s ON sale FROM regress_app', :'latest')) AS h;
SELECT hole(format('GRANT TEMPORARY ON DATABASE %I TO regress_app', current_database()), format('REVOKE TEMPORARY ON DATABASE %I FROM regress_app', current_database()));
SELECT hole('GRANT EXECUTE ON FUNCTION pg_cancel_backend(integer) TO regress_app', 'REVOKE EXECUTE ON FUNCTION pg_cancel_backend(integer) FROM regress_app');
SELECT hole('GRANT EXECUTE ON FUNCTION pg_terminate_backend(integer, bigint) TO regress_trusted', 'REVOKE EXECUTE ON FUNCTION pg_terminate_backend(integer, bigint) FROM regress_trusted');
SELECT hole('GRANT EXECUTE ON FUNCTION lo_create(oid) TO regress_app', 'REVOKE EXECUTE ON FUNCTION lo_create(oid) FROM regress_app');
SELECT hole('GRANT CREATE ON SCHEMA partner_portal TO regress_trusted', 'REVOKE CREATE ON SCHEMA partner_portal FROM regress_trusted');
SELECT hole('GRANT SET ON PARAMETER session_replication_role TO regress_app', 'REVOKE SET ON PARAMETER session_replication_role FROM regress_app');
SELECT hole('GRANT EXECUTE ON FUNCTION partner_portal.login_as(bigint) TO regress_app', 'REVOKE EXECUTE ON FUNCTION partner_portal.login_as(bigint) FROM regress_app');
SELECT hole('GRANT TRUNCATE, REFERENCES ON sale TO regress_app', 'REVOKE TRUNCATE, REFERENCES ON sale FROM regress_app');
SELECT hole('GRANT SELECT ON partner_portal.security_key TO PUBLIC', 'REVOKE SELECT ON partner_portal.security_key FROM PUBLIC');
SELECT hole('CREATE VIEW app.sales AS SELECT * FROM sale', 'DROP VIEW app.sales');
SELECT hole('CREATE VIEW app.sales WITH (security_invoker) AS SELECT * FROM sale; CREATE VIEW app.more AS SELECT * FROM app.sales', 'DROP VIEW app.more, app.sales');
SELECT hole('CREATE MATERIALIZED VIEW app.kept AS SELECT * FROM partner_portal.workspace', 'DROP MATERIALIZED VIEW app.kept');
SELECT hole('CREATE FUNCTION app.leak() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS ''SELECT count(*) FROM public.sale''', 'DROP FUNCTION app.leak()');
SELECT hole('GRANT EXECUTE ON FUNCTION partner_portal.attribute(text) TO PUBLIC', 'REVOKE EXECUTE ON FUNCTION partner_portal.attribute(text) FROM PUBLIC');
SELECT hole('ALTER FUNCTION partner_portal.attribute(text) IMMUTABLE', 'ALTER FUNCTION partner_portal.attribute(text) STABLE');
SELECT hole('ALTER TABLE partner_portal.member DISABLE TRIGGER acl_update', 'ALTER TABLE partner_portal.member ENABLE ALWAYS TRIGGER acl_update');
SELECT hole('CREATE TABLE app.plain (workspace_id bigint); GRANT SELECT ON app.plain TO regress_app', 'DROP TABLE app.plain');
SELECT hole('CREATE TABLE app.base (workspace_id bigint PRIMARY KEY); CREATE TABLE app.child () INHERITS (app.base); SELECT partner_portal.isolate(''app.base'', ''workspace_id'')', 'DROP TABLE app.base CASCADE');
DROP SCHEMA app CASCADE;
DROP TABLE sale CASCADE;
DROP ROLE regress_isolation_bypass;
DROP ROLE regress_isolation_owner;
