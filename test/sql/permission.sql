\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept permission
\i :begin
-- What the identity may do (src/permission.c, src/policy_reader.c) follows every change at once, in the session that makes it too.
INSERT INTO partner_portal.account (email) VALUES ('p_owner@example.com'), ('p_member@example.com'), ('c_owner@example.com'), ('c_admin@example.com'),
	('operator@example.com'), ('several@example.com'), ('d_owner@example.com');
INSERT INTO partner_portal.partner (partner_id, registration_code) VALUES (1, 'code-of-p');
INSERT INTO partner_portal.workspace (kind, partner_id, company_name, slug, anchor_date) VALUES
	('partner', NULL, 'P', 'p', '2026-01-01'), ('business', 1, 'C', 'c', '2026-01-01'), ('business', NULL, 'D', 'd', '2026-01-01');
INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at) VALUES
	(1, 1, 0, 'owner', now()), (1, 2, 0, 'member', now()), (2, 3, 1, 'owner', now()), (2, 4, 1, 'administrator', now()),
	(3, 7, 0, 'owner', now()), (3, 6, 0, 'administrator', now()), (2, 6, 1, 'member', now()), (1, 6, 0, 'guest', NULL);
INSERT INTO partner_portal.staff (workspace_id, account_id, partner_key, role) VALUES (2, 2, 1, 'account_owner');
CREATE FUNCTION change(statement text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN EXECUTE statement; END $$;
GRANT EXECUTE ON FUNCTION change(text) TO PUBLIC;
SET ROLE regress_trusted;
SET plan_cache_mode = force_generic_plan;
PREPARE look AS SELECT coalesce(array_agg(workspace_id ORDER BY workspace_id), '{}') AS sees FROM partner_portal.workspace;
PREPARE stand AS SELECT partner_portal.current_account_id() AS account, partner_portal.current_workspace_id() AS workspace, partner_portal.current_partner_id() AS partner,
	partner_portal.acting_role() AS role, partner_portal.lowest_partner_key() AS lowest, partner_portal.highest_partner_key() AS highest,
	partner_portal.own_workspace('read') AS own_read, partner_portal.own_workspace('manage_keys') AS own_keys,
	partner_portal.granted_workspaces('read') AS granted_read, partner_portal.granted_workspaces('manage_keys') AS granted_keys,
	partner_portal.is_operator() AS operator;
-- nobody stands nowhere and sees nothing, in no table
EXECUTE stand;
SELECT (SELECT count(*) FROM partner_portal.workspace) + (SELECT count(*) FROM partner_portal.member) + (SELECT count(*) FROM partner_portal.staff)
	+ (SELECT count(*) FROM partner_portal.account) + (SELECT count(*) FROM partner_portal.partner) + (SELECT count(*) FROM partner_portal.my_workspaces) AS rows_of_nobody;
SELECT partner_portal.own_workspace('nothing'), partner_portal.granted_workspaces('nothing'), partner_portal.own_workspace(NULL), partner_portal.looks_after(2), partner_portal.looks_after(NULL);
-- a role changes, within savepoints
BEGIN;
SELECT partner_portal.login_as(4);
EXECUTE stand;
EXECUTE look;
SAVEPOINT a;
SELECT change('UPDATE partner_portal.member SET role = ''guest'' WHERE account_id = 4');
EXECUTE stand;
EXECUTE look;
SAVEPOINT b;
SELECT change('DELETE FROM partner_portal.member WHERE account_id = 4');
EXECUTE stand;
ROLLBACK TO b;
SELECT partner_portal.acting_role();
ROLLBACK TO a;
SELECT partner_portal.acting_role();
EXECUTE look;
SELECT change('UPDATE partner_portal.member SET accepted_at = NULL WHERE account_id = 4');
EXECUTE stand;
ROLLBACK;
BEGIN;
SELECT partner_portal.login_as(4);
SELECT partner_portal.acting_role() AS after_rollback;
COMMIT;
-- several statements of one function see it too
BEGIN;
SELECT partner_portal.login_as(4);
DO $$
BEGIN
	RAISE NOTICE 'before: %', partner_portal.may('manage_keys', 2);
	PERFORM change('UPDATE partner_portal.member SET role = ''member'' WHERE account_id = 4');
	RAISE NOTICE 'after: %', partner_portal.may('manage_keys', 2);
	BEGIN
		PERFORM change('UPDATE partner_portal.member SET role = ''administrator'' WHERE account_id = 4');
		RAISE NOTICE 'in the block: %', partner_portal.may('manage_keys', 2);
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		RAISE NOTICE 'rolled back: %', partner_portal.may('manage_keys', 2);
	END;
END
$$;
ROLLBACK;
-- staff: a plain member of the partner sees its customers and nothing else of them
BEGIN;
SELECT partner_portal.login_as(2);
EXECUTE stand;
EXECUTE look;
SELECT change('UPDATE partner_portal.staff SET role = ''system_administrator''');
SELECT partner_portal.granted_workspaces('read') AS read, partner_portal.granted_workspaces('manage_keys') AS keys, partner_portal.granted_workspaces('manage_people') AS people;
SELECT change('DELETE FROM partner_portal.staff');
EXECUTE look;
SELECT change('UPDATE partner_portal.member SET role = ''administrator'' WHERE account_id = 2');
EXECUTE look;
EXECUTE stand;
ROLLBACK;
-- the member goes, its assignments with it
BEGIN;
SELECT partner_portal.login_as(2);
EXECUTE look;
SELECT change('DELETE FROM partner_portal.member WHERE account_id = 2');
EXECUTE look;
EXECUTE stand;
ROLLBACK;
-- the partner's own people
BEGIN;
SELECT partner_portal.login_as(1);
EXECUTE stand;
SELECT partner_portal.looks_after(2), partner_portal.looks_after(1), partner_portal.looks_after(3), partner_portal.looks_after(99);
EXECUTE look;
-- the customer leaves
SELECT change('DELETE FROM partner_portal.staff');
SELECT change('UPDATE partner_portal.workspace SET partner_id = NULL WHERE workspace_id = 2');
EXECUTE look;
SELECT partner_portal.looks_after(2), partner_portal.may('set_limit', 2);
ROLLBACK;
-- suspension takes nothing from reading; deletion ends acting there
BEGIN;
SELECT partner_portal.login_as(3);
SELECT change('UPDATE partner_portal.workspace SET suspended_at = now() WHERE workspace_id = 2');
EXECUTE look;
SELECT change('UPDATE partner_portal.workspace SET deleted_at = now() WHERE workspace_id = 2');
EXECUTE look;
EXECUTE stand;
ROLLBACK;
-- an account is disabled, or erased, or becomes an operator's
BEGIN;
SELECT partner_portal.login_as(3);
SELECT change('UPDATE partner_portal.account SET disabled_at = now() WHERE account_id = 3');
EXECUTE stand;
EXECUTE look;
SELECT change('UPDATE partner_portal.account SET disabled_at = NULL, erased_at = now() WHERE account_id = 3');
EXECUTE stand;
SELECT change('UPDATE partner_portal.account SET erased_at = NULL, is_operator = true WHERE account_id = 3');
EXECUTE stand;
EXECUTE look;
ROLLBACK;
BEGIN;
SELECT change('UPDATE partner_portal.account SET is_operator = true WHERE account_id = 5');
SELECT partner_portal.login_as(5);
EXECUTE stand;
EXECUTE look;
SELECT count(*) AS members FROM partner_portal.member;
ROLLBACK;
-- several memberships: nothing until one is chosen, and a pending one can't be
BEGIN;
SELECT partner_portal.login_as(6);
EXECUTE stand;
EXECUTE look;
SELECT workspace_id, company_name, kind, role, accepted, acting FROM partner_portal.my_workspaces ORDER BY 1;
SELECT account_id FROM partner_portal.account;
SELECT partner_portal.act_in(3);
EXECUTE stand;
EXECUTE look;
SELECT partner_portal.act_in(2);
EXECUTE stand;
SELECT workspace_id, role, accepted, acting FROM partner_portal.my_workspaces ORDER BY 1;
SAVEPOINT a;
\set VERBOSITY sqlstate
SELECT partner_portal.act_in(1);
\set VERBOSITY terse
ROLLBACK TO a;
-- the chosen one ends: one acts nowhere, not somewhere else
SELECT change('DELETE FROM partner_portal.member WHERE account_id = 6 AND workspace_id = 2');
EXECUTE stand;
EXECUTE look;
ROLLBACK;
-- more accounts than are kept
BEGIN;
RESET ROLE;
INSERT INTO partner_portal.account (email) SELECT 'm' || i || '@example.com' FROM generate_series(1, 20) i;
INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at)
	SELECT 2, account_id, 1, CASE WHEN account_id % 2 = 0 THEN 'administrator' ELSE 'member' END, now() FROM partner_portal.account WHERE email LIKE 'm%';
SET LOCAL ROLE regress_trusted;
DO $$
DECLARE
	wrong int := 0;
BEGIN
	FOR round IN 1..3 LOOP
		FOR account IN 8..27 LOOP
			PERFORM partner_portal.login_as(account);
			IF partner_portal.may('manage_keys', 2) <> (account % 2 = 0) OR partner_portal.current_account_id() <> account THEN
				wrong := wrong + 1;
			END IF;
		END LOOP;
	END LOOP;
	RAISE NOTICE 'wrong: %', wrong;
END
$$;
ROLLBACK;
-- under session_replication_role = replica too
BEGIN;
SELECT partner_portal.login_as(4);
SELECT partner_portal.acting_role();
SELECT change('SET LOCAL session_replication_role = replica; UPDATE partner_portal.member SET role = ''guest'' WHERE account_id = 4');
SELECT partner_portal.acting_role();
ROLLBACK;
-- parallel workers decide as their leader does
RESET ROLE;
INSERT INTO partner_portal.security_key (workspace_id, partner_key, kind, serial, activated_at)
	SELECT 2, 1, 'smartphone', 's' || i, now() FROM generate_series(1, 3000) i;
INSERT INTO partner_portal.security_key (workspace_id, partner_key, kind, serial, activated_at)
	SELECT 3, 0, 'smartphone', 's' || i, now() FROM generate_series(1, 2000) i;
ANALYZE partner_portal.security_key;
CREATE FUNCTION workers(query text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
		IF line ~ 'Workers Launched: [1-9]' THEN
			RETURN true;
		END IF;
	END LOOP;
	RETURN false;
END
$$;
SET ROLE regress_trusted;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET min_parallel_index_scan_size = 0;
SET enable_indexscan = off;
SET enable_indexonlyscan = off;
SET enable_bitmapscan = off;
SET parallel_leader_participation = off;
BEGIN;
SELECT partner_portal.login_as(1);
SELECT workers('SELECT count(*) FROM partner_portal.security_key') AS in_parallel;
SELECT count(*) AS of_the_partner FROM partner_portal.security_key;
SELECT count(*) AS per_row FROM partner_portal.security_key WHERE partner_portal.looks_after(workspace_id) AND partner_portal.may('read', workspace_id);
SELECT partner_portal.login_as(7);
SELECT count(*) AS direct FROM partner_portal.security_key;
SELECT partner_portal.login_as(2);
SELECT count(*) AS staff FROM partner_portal.security_key;
SELECT change('DELETE FROM partner_portal.staff');
SELECT count(*) AS staff_no_more FROM partner_portal.security_key;
ROLLBACK;
SELECT count(*) AS nobody FROM partner_portal.security_key;
RESET parallel_leader_participation;
