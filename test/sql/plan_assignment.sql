\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept plan_assignment
\i :begin
SET search_path = partner_portal, public;
SET datestyle = ISO;
-- partners 1 and 2, a customer 3 of the first
SELECT workspace_id FROM create_workspace('Reseller AG', 'boss@reseller.example');
SELECT workspace_id FROM create_workspace('Other Partner', 'boss@other.example');
SELECT count(promote_to_partner(p)) FROM generate_series(1, 2) p;
INSERT INTO workspace (company_name, slug, partner_id, created_at, anchor_date, billing_from) VALUES ('Acme', 'acme', 1, '2026-01-01', '2026-01-01', '2026-01-01');
SELECT role FROM add_member(3, 'owner@acme.example', 'owner');
SELECT plan_id FROM create_price_plan(1, 'Francs', 'CHF', 'per_unit', unit_price => 2);
SELECT plan_id FROM create_price_plan(2, 'Euros', 'EUR', 'per_unit', unit_price => 3);
SELECT family_id FROM assign_price_plan(3, 1, '2026-01-01');

-- a period that ends while a transaction is open: the transfer after it ends the old partner's plan from the next one on
SELECT count(add_periods('{3}', clock_timestamp())), clock_timestamp() AS began \gset
BEGIN;
SELECT split_period(3, clock_timestamp());
SELECT clock_timestamp() AS boundary \gset
SELECT partner_id FROM move_workspace(3, 2);
COMMIT;
SELECT p.partner_key, p.period_start > :'began' AS begun_meanwhile, v.name
FROM billing_period p LEFT JOIN LATERAL plan_at(p.workspace_id, p.partner_key, p.period_start) v ON true
WHERE p.workspace_id = 3 ORDER BY p.period_start DESC LIMIT 3;
SELECT partner_key, family_id, valid_from > :'boundary' AS after_it FROM plan_assignment WHERE workspace_id = 3 ORDER BY valid_from;

-- and a plan assigned after it comes into force with the period after the one that began meanwhile
BEGIN;
SELECT split_period(3, clock_timestamp());
SELECT a.family_id, a.valid_from = upper(find_period(3, clock_timestamp())) AS next_period FROM assign_price_plan(3, 2) a;
COMMIT;

-- by whom, to whom, from when
SELECT assign_price_plan(3, 1);
SELECT assign_price_plan(3, 4242);
SELECT assign_price_plan(NULL, 2);
SELECT assign_price_plan(4242, 2);
SELECT assign_price_plan(3, 2, 'infinity');
SELECT assign_price_plan(3, 2, '294276-12-31');
SELECT assign_price_plan(3, 2, '0001-01-01');
BEGIN;
SELECT login_as(a.account_id) > 0 AS signed_in FROM account a WHERE email = 'boss@reseller.example';
SELECT assign_price_plan(3, 1);
ROLLBACK;
BEGIN;
SELECT login_as(a.account_id) > 0 AS signed_in FROM account a WHERE email = 'owner@acme.example';
SELECT assign_price_plan(3, NULL);
ROLLBACK;
BEGIN;
SELECT login_as(a.account_id) > 0 AS signed_in FROM account a WHERE email = 'boss@other.example';
SELECT assign_price_plan(3, 2, now());
ROLLBACK;
BEGIN;
SELECT login_as(a.account_id) > 0 AS signed_in FROM account a WHERE email = 'boss@other.example';
SELECT a.family_id IS NULL AS ended FROM assign_price_plan(3, NULL) a;
COMMIT;

-- a plan of the platform is the operator's to end, by another plan too
BEGIN;
SELECT plan_id AS platforms FROM create_price_plan(NULL, 'Platform', 'CHF', 'per_unit', unit_price => 1) \gset
SELECT partner_key FROM assign_price_plan(3, :platforms);
SELECT login_as(a.account_id) > 0 AS signed_in FROM account a WHERE email = 'boss@other.example';
SAVEPOINT s;
SELECT assign_price_plan(3, 2);
ROLLBACK TO s;
SELECT assign_price_plan(3, NULL);
ROLLBACK TO s;
SELECT logout();
SELECT partner_key FROM assign_price_plan(3, 2);
SELECT login_as(a.account_id) > 0 AS signed_in FROM account a WHERE email = 'boss@other.example';
SELECT partner_key FROM assign_price_plan(3, 2);
ROLLBACK;

-- a plan in use never changes
SELECT family_id FROM assign_price_plan(3, 2);
UPDATE price_plan SET name = 'Other' WHERE plan_id = 2;
DELETE FROM plan_component WHERE plan_id = 2;
SELECT add_plan_component(2, 'smartphone', 'per_unit', unit_price => 1);
TRUNCATE plan_component;
SELECT version FROM revise_price_plan(2, 'flat', unit_price => 3, in_force_from => '2999-12-31');
SELECT revise_price_plan(2, 'flat', unit_price => 3, in_force_from => '3000-12-31');
