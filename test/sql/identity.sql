\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept identity
\i :begin
-- Who is asking: signing in without a token, the sealed setting, and its ends (src/identity.c, src/login.c).
INSERT INTO partner_portal.account (email) VALUES ('anna@example.com'), ('ben@example.com'), ('cleo@example.com'), ('gone@example.com');
UPDATE partner_portal.account SET disabled_at = now() WHERE account_id = 4;
INSERT INTO partner_portal.workspace (company_name, slug, anchor_date) VALUES ('One', 'one', '2026-01-01'), ('Two', 'two', '2026-01-01'), ('Three', 'three', '2026-01-01');
INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at) VALUES
	(1, 1, 0, 'owner', now()), (2, 2, 0, 'owner', now()), (1, 3, 0, 'member', now()), (2, 3, 0, 'owner', now()), (3, 3, 0, 'owner', NULL);

-- signing in as a trusted server does
SELECT partner_portal.login_as(1);
SELECT partner_portal.current_account_id() AS nobody;
BEGIN;
SELECT partner_portal.login_as(1);
SELECT partner_portal.current_account_id(), partner_portal.current_workspace_id();
SELECT partner_portal.logout();
SELECT partner_portal.current_account_id() AS nobody;
COMMIT;
DO $$
BEGIN
	PERFORM partner_portal.login_as(1);
	RAISE NOTICE 'account % within the block', partner_portal.current_account_id();
END
$$;
SELECT partner_portal.current_account_id() AS nobody;
SELECT partner_portal.login_as(NULL);
SELECT partner_portal.login_as(0);
SELECT partner_portal.login_as(-9223372036854775808);
SELECT partner_portal.login_as(4);
SET ROLE regress_app;
\set VERBOSITY sqlstate
SELECT partner_portal.login_as(1);
\set VERBOSITY terse
RESET ROLE;
-- it writes nothing
BEGIN READ ONLY;
SELECT partner_portal.login_as(3);
SELECT partner_portal.act_in(2);
SELECT partner_portal.current_account_id(), partner_portal.current_workspace_id();
COMMIT;

-- where one acts: one's own accepted memberships only, and none by itself when there are several
BEGIN;
SELECT partner_portal.login_as(3);
SELECT partner_portal.current_workspace_id() AS none_chosen;
SELECT partner_portal.act_in(1);
SELECT partner_portal.current_workspace_id();
SAVEPOINT s;
SELECT partner_portal.act_in(3);
ROLLBACK TO s;
SELECT partner_portal.act_in(99);
ROLLBACK TO s;
SELECT partner_portal.act_in(NULL);
ROLLBACK TO s;
SELECT partner_portal.act_in(2);
ROLLBACK TO s;
SELECT partner_portal.current_workspace_id() AS before_the_savepoint;
COMMIT;
SELECT partner_portal.act_in(1);
SELECT partner_portal.logout();

-- the account of a database role
SELECT partner_portal.map_role('regress_app', 2);
SET SESSION AUTHORIZATION regress_app;
BEGIN;
SELECT partner_portal.login_role();
SELECT partner_portal.current_account_id();
COMMIT;
SET SESSION AUTHORIZATION regress_report;
\set VERBOSITY sqlstate
SELECT partner_portal.login_role();
\set VERBOSITY terse
SET SESSION AUTHORIZATION regress_trusted;
SELECT partner_portal.login_role();
RESET SESSION AUTHORIZATION;
-- it is the session's role, not the one it has taken on
SET ROLE regress_app;
DO $$ BEGIN PERFORM partner_portal.login_role(); EXCEPTION WHEN invalid_authorization_specification THEN RAISE NOTICE 'refused'; END $$;
RESET ROLE;
SELECT partner_portal.map_role('regress_app', 4);
SET SESSION AUTHORIZATION regress_app;
SELECT partner_portal.login_role();
RESET SESSION AUTHORIZATION;
SELECT partner_portal.map_role('regress_app', 99);
BEGIN;
UPDATE partner_portal.account SET erased_at = now() WHERE account_id = 1;
SELECT partner_portal.map_role('regress_app', 1);
ROLLBACK;
SELECT partner_portal.map_role(NULL, 1);
SELECT partner_portal.map_role('4294967295'::regrole, 1);
SELECT partner_portal.map_role('regress_app', NULL);
SELECT count(*) FROM partner_portal.role_account;
-- the operator's function is the operator's: the grant alone does not do
SET ROLE regress_ops;
SELECT partner_portal.map_role('regress_app', 1);
RESET ROLE;
SET ROLE regress_app;
\set VERBOSITY sqlstate
SELECT partner_portal.map_role('regress_app', 1);
SELECT * FROM partner_portal.role_account;
SELECT * FROM partner_portal.account_identity;
SELECT * FROM partner_portal.revoked_token;
RESET ROLE;

-- forging it: nobody may, a superuser neither
\set forged '1:1:0:9223372036854775807'
SET partner_portal.identity = :'forged';
SET LOCAL partner_portal.identity = :'forged';
SELECT set_config('partner_portal.identity', :'forged', false);
SELECT set_config('partner_portal.identity', :'forged', true);
ALTER ROLE regress_app SET partner_portal.identity = :'forged';
ALTER DATABASE pp_identity SET partner_portal.identity = :'forged';
ALTER SYSTEM SET partner_portal.identity = :'forged';
CREATE FUNCTION forge() RETURNS bigint LANGUAGE sql SET partner_portal.identity = '1:1:0:9223372036854775807' AS 'SELECT partner_portal.current_account_id()';
UPDATE pg_settings SET setting = :'forged' WHERE name = 'partner_portal.identity';
SELECT count(*) AS not_listed FROM pg_settings WHERE name = 'partner_portal.identity';
GRANT SET ON PARAMETER partner_portal.identity TO regress_app;
SET ROLE regress_app;
SET partner_portal.identity = :'forged';
SELECT set_config('partner_portal.identity', :'forged', true);
SHOW partner_portal.identity;
RESET ROLE;
REVOKE SET ON PARAMETER partner_portal.identity FROM regress_app;
SET ROLE regress_app;
SET partner_portal.identity = :'forged';
ALTER ROLE regress_app SET partner_portal.identity = :'forged';
RESET ROLE;
SELECT partner_portal.current_account_id() AS nobody;
-- not within another identity either
BEGIN;
SELECT partner_portal.login_as(2);
SAVEPOINT s;
SET LOCAL partner_portal.identity = :'forged';
ROLLBACK TO s;
SELECT partner_portal.current_account_id() AS still;
COMMIT;
\set VERBOSITY terse
-- with options of the connection, and stored before the library is there
\c -reuse-previous=on "options='-c client_min_messages=error -c partner_portal.identity=1:1:0:9223372036854775807'"
SELECT partner_portal.current_account_id() AS nobody;
\c -reuse-previous=on "options=''"
SET client_min_messages = error;
DO $$ BEGIN SET partner_portal.identity = '1:1:0:9223372036854775807'; EXCEPTION WHEN insufficient_privilege THEN NULL; END $$;
SELECT partner_portal.current_account_id() AS nobody;
\c
DO $$ BEGIN ALTER DATABASE pp_identity SET partner_portal.identity = '1:1:0:9223372036854775807'; EXCEPTION WHEN insufficient_privilege THEN NULL; END $$;
\c -reuse-previous=on "options='-c client_min_messages=error'"
SELECT partner_portal.current_account_id() AS nobody;
ALTER DATABASE pp_identity RESET ALL;
\c -reuse-previous=on "options=''"
SET timezone = 'UTC';

-- it goes with the transaction and the savepoint
BEGIN;
SAVEPOINT a;
SELECT partner_portal.login_as(1);
SAVEPOINT b;
SELECT partner_portal.login_as(2);
RELEASE b;
SELECT partner_portal.current_account_id() AS released;
ROLLBACK TO a;
SELECT partner_portal.current_account_id() AS nobody;
SELECT partner_portal.login_as(1);
SAVEPOINT b;
SELECT partner_portal.logout();
SELECT 1 / 0;
ROLLBACK TO b;
SELECT partner_portal.current_account_id() AS as_before;
DO $$
BEGIN
	PERFORM partner_portal.login_as(2);
	RAISE EXCEPTION 'undone';
EXCEPTION WHEN raise_exception THEN
	RAISE NOTICE 'account % again', partner_portal.current_account_id();
END
$$;
ROLLBACK;
SELECT partner_portal.current_account_id() AS nobody;
-- out of a function that sets other settings it comes whole
CREATE FUNCTION sign_in(account_id bigint) RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN partner_portal.login_as(account_id); END $$;
BEGIN;
SELECT sign_in(2);
SELECT partner_portal.current_account_id();
COMMIT;
SELECT partner_portal.current_account_id() AS nobody;

-- leaving it is free, and leads to nobody
BEGIN;
SELECT partner_portal.login_as(1);
RESET ALL;
SELECT partner_portal.current_account_id() AS nobody;
SELECT partner_portal.login_as(1);
SET LOCAL partner_portal.identity = '';
SELECT partner_portal.current_account_id() AS nobody;
SELECT partner_portal.login_as(1);
SET LOCAL partner_portal.identity TO DEFAULT;
SELECT partner_portal.current_account_id() AS nobody;
COMMIT;
DISCARD ALL;
SELECT partner_portal.current_account_id() AS nobody;
BEGIN;
SELECT partner_portal.login_as(1);
COMMIT AND CHAIN;
SELECT partner_portal.current_account_id() AS nobody;
COMMIT;

-- a prepared plan follows the identity
SET plan_cache_mode = force_generic_plan;
GRANT USAGE ON SCHEMA public TO regress_trusted;
SET ROLE regress_trusted;
PREPARE names AS SELECT company_name FROM partner_portal.workspace ORDER BY workspace_id;
EXECUTE names;
BEGIN;
SELECT partner_portal.login_as(1);
EXECUTE names;
SELECT partner_portal.login_as(2);
EXECUTE names;
SELECT partner_portal.logout();
EXECUTE names;
COMMIT;
EXECUTE names;
RESET ROLE;
RESET plan_cache_mode;

-- parallel workers have it too
CREATE TABLE numbers AS SELECT i FROM generate_series(1, 20000) AS i;
ALTER TABLE numbers SET (parallel_workers = 2);
GRANT SELECT ON numbers TO regress_trusted;
ANALYZE numbers;
SET ROLE regress_trusted;
BEGIN;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SET LOCAL parallel_leader_participation = off;
DO $$ BEGIN PERFORM set_config(name, CASE vartype WHEN 'enum' THEN 'regress' ELSE 'on' END, true) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query'); END $$;
SELECT partner_portal.login_as(1);
EXPLAIN (COSTS off) SELECT count(*) FROM numbers WHERE partner_portal.current_account_id() = 1 + 0 * i;
SELECT count(*) FROM numbers WHERE partner_portal.current_account_id() = 1 + 0 * i;
SELECT company_name FROM partner_portal.workspace;
SELECT partner_portal.login_as(2);
SELECT count(*) FROM numbers WHERE partner_portal.current_account_id() = 1 + 0 * i;
SELECT company_name FROM partner_portal.workspace;
SELECT partner_portal.logout();
SELECT count(*) FROM numbers WHERE partner_portal.current_account_id() = 1 + 0 * i;
COMMIT;
RESET ROLE;

-- not within an index expression that somebody else runs
CREATE FUNCTION expression(i integer) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN partner_portal.login_as(i); END';
CREATE TABLE trap (i integer);
INSERT INTO trap VALUES (1);
ALTER TABLE trap OWNER TO regress_trusted;
\set VERBOSITY sqlstate
CREATE INDEX ON trap (expression(i));
\set VERBOSITY terse

-- no cursor WITH HOLD carries rows out of the transaction: declared after,
BEGIN;
SELECT partner_portal.login_as(1);
DECLARE ordinary CURSOR FOR SELECT company_name FROM partner_portal.workspace;
SAVEPOINT s;
DECLARE c CURSOR WITH HOLD FOR SELECT company_name FROM partner_portal.workspace;
ROLLBACK TO s;
DO $$ BEGIN EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT company_name FROM partner_portal.workspace'; EXCEPTION WHEN active_sql_transaction THEN RAISE NOTICE '%', SQLERRM; END $$;
CREATE FUNCTION hold() RETURNS void LANGUAGE sql AS 'DECLARE c CURSOR WITH HOLD FOR SELECT company_name FROM partner_portal.workspace';
SELECT hold();
ROLLBACK;
-- or before
BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT company_name FROM partner_portal.workspace;
SELECT partner_portal.login_as(1);
ROLLBACK;
BEGIN;
DO $$ BEGIN EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT company_name FROM partner_portal.workspace'; END $$;
PREPARE l AS SELECT partner_portal.login_as(1);
EXECUTE l;
ROLLBACK;
DEALLOCATE l;
BEGIN;
SAVEPOINT s;
DECLARE c CURSOR WITH HOLD FOR SELECT 1;
ROLLBACK TO s;
DECLARE d CURSOR WITH HOLD FOR SELECT 1;
CLOSE d;
SELECT partner_portal.login_as(1);
COMMIT;
-- in the very transaction that loads the library
\c
BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT 1;
SELECT partner_portal.login_as(1);
ROLLBACK;
-- one of an earlier transaction has its rows already, nobody's
BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT 1 AS harmless;
COMMIT;
BEGIN;
SELECT partner_portal.login_as(1);
FETCH c;
COMMIT;
CLOSE c;
