\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept staff
\i :begin
\i :as
-- partners 1 and 2, customer 3 of 1, direct 4. Accounts 1 to 4 own them; of partner 1: 5 and 6 members, 7 administrator, 8 pending
SELECT (partner_portal.create_workspace(n, n || '@example.com')).workspace_id FROM unnest(ARRAY['p1', 'p2']) AS n;
SELECT (partner_portal.promote_to_partner(w)).partner_id FROM generate_series(1, 2) AS w;
SELECT (partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner WHERE partner_id = 1), 'Customer', 'c3@example.com')).workspace_id;
SELECT (partner_portal.create_workspace('Direct', 'd4@example.com')).workspace_id;
SELECT (partner_portal.add_member(1, n || '@example.com', CASE n WHEN 'a7' THEN 'administrator' ELSE 'member' END)).account_id FROM unnest(ARRAY['s5', 's6', 'a7']) AS n;
INSERT INTO partner_portal.account (email) VALUES ('pending@example.com');
SELECT (partner_portal.add_member(1, 'pending@example.com', 'member')).accepted_at;

-- by owner or administrator of the partner, and the operator
SELECT run_as(3, :app, $$SELECT partner_portal.assign_staff(3, 5, 'account_owner')$$);
SELECT run_as(5, :app, $$SELECT partner_portal.assign_staff(3, 5, 'account_owner')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.assign_staff(3, 5, 'account_owner')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.assign_staff(99, 5, 'account_owner')$$);
SELECT run_as(NULL, :app, $$SELECT partner_portal.assign_staff(3, 5, 'account_owner')$$);
SELECT run_as(4, :app, $$SELECT partner_portal.assign_staff(4, 4, 'account_owner')$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.assign_staff(4, 4, 'account_owner')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.assign_staff(1, 5, 'account_owner')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.assign_staff(NULL, 5, 'account_owner')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.assign_staff(3, NULL, 'account_owner')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.assign_staff(3, 5, NULL)$$);
SELECT run_as(1, :app, $$SELECT partner_portal.assign_staff(3, 5, 'owner')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.assign_staff(3, 5, repeat('x', 10000000))$$);
SELECT run_as(1, :app, $$SELECT partner_portal.assign_staff(3, 99, 'account_owner')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.assign_staff(3, 3, 'account_owner')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.assign_staff(3, 8, 'account_owner')$$);
SELECT run_as(5, :app, 'SELECT count(*) FROM partner_portal.workspace WHERE workspace_id = 3');
SELECT run_as(1, :app, $$SELECT s.role FROM partner_portal.assign_staff(3, 5, 'account_owner') s$$);
SELECT run_as(7, :app, $$SELECT s.role FROM partner_portal.assign_staff(3, 6, 'account_owner') s$$);
SELECT run_as(7, :app, $$SELECT s.role FROM partner_portal.assign_staff(3, 6, 'system_administrator') s$$);
SELECT run_as(5, :app, 'SELECT count(*) FROM partner_portal.workspace WHERE workspace_id = 3');

-- the list: all of it for who runs the partner, one's own for its members, none for customers and others
SELECT run_as(1, :app, 'SELECT string_agg(concat_ws($$ $$, workspace_id, company_name, account_id, email, role), $$, $$ ORDER BY account_id) FROM partner_portal.staff_list');
SELECT run_as(5, :app, 'SELECT string_agg(concat_ws($$ $$, workspace_id, company_name, account_id, email, role), $$, $$ ORDER BY account_id) FROM partner_portal.staff_list');
SELECT run_as(3, :app, 'SELECT count(*) FROM partner_portal.staff_list');
SELECT run_as(2, :app, 'SELECT count(*) FROM partner_portal.staff_list');
SELECT run_as(NULL, :app, 'SELECT count(*) FROM partner_portal.staff_list');

-- unassign
SELECT run_as(3, :app, 'SELECT partner_portal.unassign_staff(3, 5)');
SELECT run_as(6, :app, 'SELECT partner_portal.unassign_staff(3, 5)');
SELECT run_as(2, :app, 'SELECT partner_portal.unassign_staff(3, 5)');
SELECT run_as(2, :app, 'SELECT partner_portal.unassign_staff(99, 5)');
SELECT run_as(NULL, :app, 'SELECT partner_portal.unassign_staff(3, 5)');
SELECT run_as(1, :app, 'SELECT partner_portal.unassign_staff(3, 7)');
SELECT run_as(1, :app, 'SELECT partner_portal.unassign_staff(3, NULL)');
SELECT run_as(1, :app, 'SELECT partner_portal.unassign_staff(NULL, 5)');
SELECT run_as(7, :app, 'SELECT u.role FROM partner_portal.unassign_staff(3, 5) u');
SELECT run_as(7, :app, 'SELECT partner_portal.unassign_staff(3, 5)');
SELECT run_as(5, :app, 'SELECT count(*) FROM partner_portal.workspace WHERE workspace_id = 3');
-- staff stays through deletion and restoration, but nobody is assigned meanwhile
SELECT run_as(3, :app, 'SELECT d.workspace_id FROM partner_portal.delete_workspace(3) d');
SELECT run_as(1, :app, $$SELECT partner_portal.assign_staff(3, 5, 'account_owner')$$);
SELECT run_as(1, :app, 'SELECT partner_portal.unassign_staff(3, 6)');
SELECT run_as(1, :app, 'SELECT r.workspace_id FROM partner_portal.restore_workspace(3) r');
SELECT run_as(6, :app, 'SELECT string_agg(role, $$ $$) FROM partner_portal.staff_list');
-- and ends when the customer leaves
SELECT run_as(1, :app, 'SELECT l.workspace_id FROM partner_portal.leave_partner(3) l');
SELECT count(*) FROM partner_portal.staff;
