\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept product
\i :begin
\i :as
-- workspaces 1: partner One, 2: partner Two, 3: customer of One, 4: direct; accounts n owns workspace n; 5 administrator, 6 member, 7 guest
-- of 3; of One's people 8 is account owner, 9 system administrator for 3, 10 a member; 11 the operator's
INSERT INTO partner_portal.account (email) SELECT 'a' || i || '@example.com' FROM generate_series(1, 11) i;
UPDATE partner_portal.account SET is_operator = true WHERE account_id = 11;
INSERT INTO partner_portal.partner (partner_id, registration_code) VALUES (1, 'code-of-1'), (2, 'code-of-2');
INSERT INTO partner_portal.workspace (kind, partner_id, company_name, slug, anchor_date) VALUES
	('partner', NULL, 'One', 'one', '2026-01-01'), ('partner', NULL, 'Two', 'two', '2026-01-01'),
	('business', 1, 'Customer', 'customer', '2026-01-01'), ('business', NULL, 'Direct', 'direct', '2026-01-01');
INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at)
	SELECT v.w, v.a, w.partner_key, v.role, now()
	FROM (VALUES (1, 1, 'owner'), (2, 2, 'owner'), (3, 3, 'owner'), (4, 4, 'owner'), (3, 5, 'administrator'), (3, 6, 'member'), (3, 7, 'guest'),
		(1, 8, 'member'), (1, 9, 'member'), (1, 10, 'member')) AS v (w, a, role) JOIN partner_portal.workspace w ON w.workspace_id = v.w;
INSERT INTO partner_portal.staff (workspace_id, account_id, partner_key, role) VALUES (3, 8, 1, 'account_owner'), (3, 9, 1, 'system_administrator');

-- who adds products
SELECT who, run_as(who, :app, 'WITH i AS (INSERT INTO partner_portal.product (workspace_id, category, name) VALUES (3, ''server'', ''by ' || who || ''')) SELECT 1') AS added FROM generate_series(1, 11) who;
SELECT run_as(NULL, :app, 'INSERT INTO partner_portal.product (workspace_id, category, name) VALUES (3, ''server'', ''x'')');
SELECT run_as(1, :app, 'INSERT INTO partner_portal.product (workspace_id, category, name) VALUES (1, ''server'', ''own'') RETURNING product_id > 0');
SELECT run_as(4, :app, 'INSERT INTO partner_portal.product (workspace_id, category, name, partner_access) VALUES (4, ''domain'', ''direct'', true) RETURNING partner_key');
SELECT product_id, workspace_id, partner_key, name, partner_access FROM partner_portal.product ORDER BY 1;
SELECT run_as(3, :app, 'INSERT INTO partner_portal.product (workspace_id, category, name, product_id) VALUES (3, ''server'', ''x'', 99)');
SELECT run_as(3, :app, 'INSERT INTO partner_portal.product (workspace_id, category, name) VALUES (3, '''', ''x'')');
SELECT run_as(3, :app, 'INSERT INTO partner_portal.product (workspace_id, category, name) VALUES (3, ''a'', E''x\ny'')');
SELECT run_as(3, :app, 'INSERT INTO partner_portal.product (workspace_id, category, name) VALUES (3, repeat(''a'', 61), ''x'')');
SELECT run_as(3, :app, 'INSERT INTO partner_portal.product (workspace_id, category, name) VALUES (NULL, ''a'', ''x'')');
SELECT run_as(11, NULL, 'INSERT INTO partner_portal.product (workspace_id, category, name) VALUES (99, ''a'', ''x'')');

-- second consent: the partner and its staff see a product once the workspace lets them, and manage it as system administrator
CREATE FUNCTION seen() RETURNS TABLE (who bigint, products text, renamed text) LANGUAGE sql AS $$
	SELECT n, run_as(n, 'regress_app', 'SELECT string_agg(name, '','' ORDER BY product_id) FROM partner_portal.product'),
		run_as(n, 'regress_app', 'WITH u AS (UPDATE partner_portal.product SET external_ref = ''' || n || ''' RETURNING product_id) SELECT string_agg(product_id::text, '','' ORDER BY product_id) FROM u')
	FROM generate_series(1, 11) n
$$;
SELECT * FROM seen();
SELECT run_as(9, :app, 'UPDATE partner_portal.product SET partner_access = true WHERE name = ''by 3'' RETURNING name');
SELECT run_as(6, :app, 'UPDATE partner_portal.product SET partner_access = true WHERE name = ''by 3'' RETURNING name');
SELECT run_as(5, :app, 'UPDATE partner_portal.product SET partner_access = true WHERE name = ''by 3'' RETURNING name');
SELECT * FROM seen() WHERE who IN (1, 2, 8, 9, 10);
SELECT run_as(1, :app, 'SELECT string_agg(belongs_to || '' '' || name || coalesce('' '' || relation, ''''), '', '' ORDER BY product_id) FROM partner_portal.partner_products');
SELECT run_as(8, :app, 'SELECT string_agg(belongs_to || '' '' || name || coalesce('' '' || relation, ''''), '', '' ORDER BY product_id) FROM partner_portal.partner_products', 1);
SELECT run_as(10, :app, 'SELECT string_agg(belongs_to || '' '' || name || coalesce('' '' || relation, ''''), '', '' ORDER BY product_id) FROM partner_portal.partner_products', 1);
SELECT run_as(3, :app, 'SELECT count(*) FROM partner_portal.partner_products WHERE belongs_to = ''own''');
SELECT run_as(9, :app, 'DELETE FROM partner_portal.product WHERE name = ''by 5'' RETURNING name');
SELECT run_as(9, :app, 'UPDATE partner_portal.product SET workspace_id = 1 WHERE name = ''by 3'' RETURNING name');
SELECT run_as(11, NULL, 'UPDATE partner_portal.product SET workspace_id = 4 WHERE name = ''by 3'' RETURNING name');
SELECT run_as(9, :app, 'UPDATE partner_portal.product SET category = ''domain'' WHERE name = ''by 3'' RETURNING name');
-- taken back in one's own transaction and in a snapshot that is older
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT partner_portal.login_as(1);
SET LOCAL ROLE regress_app;
SELECT count(*) FROM partner_portal.product WHERE workspace_id = 3;
RESET ROLE;
SELECT partner_portal.login_as(3);
SAVEPOINT s;
UPDATE partner_portal.product SET partner_access = false WHERE workspace_id = 3;
SELECT partner_portal.login_as(1);
SELECT partner_portal.product_ok('read', 3, p.product_id) FROM partner_portal.product p WHERE p.name = 'by 3';
ROLLBACK TO s;
SELECT partner_portal.login_as(1);
SELECT partner_portal.product_ok('read', 3, p.product_id) FROM partner_portal.product p WHERE p.name = 'by 3';
COMMIT;
-- the readers never raise
SELECT run_as(1, :app, 'SELECT concat_ws('' '', partner_portal.product_ok(''nothing'', 3, 1), partner_portal.product_ok(''read'', 99, 1), partner_portal.product_ok(''read'', 3, 99), partner_portal.product_ok(NULL, 3, 1) IS NULL,
	partner_portal.product_workspaces(''nothing''), partner_portal.complete_workspaces(''nothing''), partner_portal.limited_workspaces())');
SELECT run_as(NULL, :app, 'SELECT concat_ws('' '', partner_portal.product_ok(''read'', 3, 1), partner_portal.product_workspaces(''read''), partner_portal.complete_workspaces(''read''), partner_portal.limited_workspaces())');
-- why: every step that grants or lacks, with a product and without
INSERT INTO partner_portal.access_grant (workspace_id, partner_id, scope, products, rights, state, accepted_at)
	SELECT 3, 2, 'limited', array_agg(product_id), '{read}', 'active', now() FROM partner_portal.product WHERE name = 'by 3';
SELECT product_id AS open FROM partner_portal.product WHERE name = 'by 3' \gset
SELECT product_id AS closed FROM partner_portal.product WHERE name = 'by 5' \gset
SELECT account_id, product_id, permission, allowed, coalesce(through, missing) FROM unnest(ARRAY[1, 2, 3, 9, 10]) account_id, unnest(ARRAY[NULL, :open, :closed]) product_id,
	LATERAL partner_portal.explain_access(account_id, 3, product_id) e WHERE permission IN ('read', 'manage_products', 'manage_keys') ORDER BY 1, 2 NULLS FIRST, 3;
SELECT run_as(2, :app, format('SELECT missing FROM partner_portal.explain_access(2, 3, %s) WHERE permission = ''read''', :closed));
SELECT run_as(2, :app, 'SELECT missing FROM partner_portal.explain_access(2, 3, 99) WHERE permission = ''read''');
SELECT run_as(4, :app, format('SELECT missing FROM partner_portal.explain_access(4, 3, %s) WHERE permission = ''read''', :closed));
SELECT run_as(4, :app, 'SELECT missing FROM partner_portal.explain_access(4, 3, 99) WHERE permission = ''read''');
UPDATE partner_portal.access_grant SET scope = 'complete', products = '{}', wallet = false;
SELECT permission, allowed, coalesce(through, missing) FROM partner_portal.explain_access(2, 3) WHERE permission IN ('read', 'manage_products', 'manage_keys') ORDER BY 1;
-- parallel workers decide alike: by complete access, by limited access and as the partner, which of them is opened
CREATE FUNCTION is_parallel(query text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN ' || query LOOP
		IF line ~ 'Parallel Seq Scan on product' THEN
			RETURN true;
		END IF;
	END LOOP;
	RETURN false;
END
$$;
INSERT INTO partner_portal.product (workspace_id, category, name, partner_access) SELECT 3, CASE WHEN i % 4 = 0 THEN 'server' ELSE 'mailbox' END, 'p' || i, i % 2 = 0 FROM generate_series(1, 2000) i;
ANALYZE partner_portal.product;
SELECT count(*) AS all, count(*) FILTER (WHERE category = 'server') AS servers, count(*) FILTER (WHERE partner_access) AS opened FROM partner_portal.product WHERE workspace_id = 3;
BEGIN;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SET LOCAL enable_indexscan = off;
SET LOCAL enable_indexonlyscan = off;
SET LOCAL enable_bitmapscan = off;
SELECT partner_portal.login_as(2);
SET LOCAL ROLE regress_app;
SELECT is_parallel('SELECT count(*) FROM partner_portal.product WHERE workspace_id = 3');
SELECT count(*) FROM partner_portal.product WHERE workspace_id = 3;
RESET ROLE;
UPDATE partner_portal.access_grant SET scope = 'limited', categories = '{server}', wallet = NULL;
SELECT partner_portal.login_as(2);
SET LOCAL ROLE regress_app;
SELECT count(*) FROM partner_portal.product WHERE workspace_id = 3;
RESET ROLE;
SELECT partner_portal.login_as(1);
SET LOCAL ROLE regress_app;
SELECT count(*) FROM partner_portal.product WHERE workspace_id = 3;
ROLLBACK;
-- nothing is left after a purge
SELECT run_as(3, :app, 'SELECT w.deleted_at IS NOT NULL FROM partner_portal.delete_workspace(3) w');
SELECT count(*) FROM partner_portal.purge_workspace(3);
SELECT count(*) FROM partner_portal.product WHERE workspace_id = 3;
