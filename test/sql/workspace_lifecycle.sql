\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept workspace_lifecycle
\i :begin
\i :as
-- creation is the operator's
SELECT run_as(NULL, :app, $$SELECT partner_portal.create_workspace('A', 'a@example.com')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.create_workspace('A', 'a@example.com')$$);
SELECT run_as(NULL, :ops, $$SELECT partner_portal.create_workspace('A', 'a@example.com')$$);
SELECT c.workspace_id, c.kind, c.partner_id, c.partner_key, c.slug, c.time_zone, c.anchor_date = current_date, c.billing_step, c.limit_mode
	FROM partner_portal.create_workspace('Pärtner 1', 'p1@example.com') c;
SELECT c.slug, c.time_zone, c.anchor_date FROM partner_portal.create_workspace('Partner 2', 'p2@example.com', 'second', 'Asia/Tokyo', '2024-02-29') c;
SELECT c.slug FROM partner_portal.create_workspace('Pärtner 1', 'direct@example.com') c;
SELECT c.slug FROM partner_portal.create_workspace('Pärtner 1', 'P1@example.com') c;
INSERT INTO partner_portal.account (email, is_operator) VALUES ('operator@example.com', true);
SELECT run_as(4, :app, $$SELECT c.slug FROM partner_portal.create_workspace('By an account', 'p1@example.com') c$$);
SELECT m.workspace_id, m.account_id, m.role, m.accepted_at IS NOT NULL FROM partner_portal.member m ORDER BY 1;
SELECT count(*), count(DISTINCT slug), min(slug) FROM (SELECT (partner_portal.create_workspace('Many', 'p1@example.com')).slug FROM generate_series(1, 15)) AS many;
CREATE TABLE before AS SELECT (SELECT count(*) FROM partner_portal.workspace) AS workspaces, (SELECT count(*) FROM partner_portal.account) AS accounts;
SELECT run_as(NULL, NULL, $$SELECT partner_portal.create_workspace(NULL, 'new@example.com')$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.create_workspace(E'Two\nlines', 'new@example.com')$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.create_workspace(repeat('x', 10000000), 'new@example.com')$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.create_workspace('New', NULL)$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.create_workspace('New', 'a b')$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.create_workspace('New', 'new@example.com', 'second')$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.create_workspace('New', 'new@example.com', '-')$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.create_workspace('New', 'new@example.com', time_zone => NULL)$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.create_workspace('New', 'new@example.com', time_zone => 'XYZ5')$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.create_workspace('New', 'new@example.com', anchor_date => '0001-01-01')$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.create_workspace('New', 'new@example.com', anchor_date => 'infinity')$$);
SELECT workspaces = (SELECT count(*) FROM partner_portal.workspace) AND accounts = (SELECT count(*) FROM partner_portal.account) AS nothing_left FROM before;

-- partners 1 and 2; customers of 1: 101 and 103; of 2: 102. Accounts: 1 and 2 own the partners, 3 the direct workspace 3, 4 is the
-- operator's, 11, 12 and 15 own 101, 102 and 103, 13 is a member of 101, 14 an administrator of it, 16 partner 1's account owner for it
ALTER TABLE partner_portal.workspace ALTER workspace_id RESTART WITH 101;
ALTER TABLE partner_portal.account ALTER account_id RESTART WITH 11;
DELETE FROM partner_portal.member WHERE accepted_at IS NULL;
SELECT (partner_portal.promote_to_partner(w)).partner_id FROM generate_series(1, 2) AS w;
UPDATE partner_portal.partner SET registration_code = 'code-of-' || partner_id;
SELECT (partner_portal.register_workspace('code-of-1', 'Customer 101', 'c101@example.com')).workspace_id;
SELECT (partner_portal.register_workspace('code-of-2', 'Customer 102', 'c102@example.com')).workspace_id;
SELECT (partner_portal.add_member(101, 'm101@example.com', 'member')).account_id, (partner_portal.add_member(101, 'a101@example.com', 'administrator')).account_id;
SELECT (partner_portal.register_workspace('code-of-1', 'Customer 103', 'c103@example.com')).workspace_id;
SELECT workspace_id, partner_id, slug FROM partner_portal.workspace WHERE workspace_id > 100 ORDER BY 1;
SELECT (partner_portal.add_member(1, 's1@example.com', 'member')).account_id;
SELECT s.role FROM partner_portal.assign_staff(101, 16, 'account_owner') s;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT 101, 'smartphone', 's' || i FROM generate_series(1, 3) i;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial, status) VALUES (101, 'contactless_card', 's4', 'disabled');
CREATE VIEW keys AS SELECT string_agg(serial || ' ' || status || coalesce(' ' || disabled_reason, ''), ', ' ORDER BY key_id) AS keys
	FROM partner_portal.security_key WHERE workspace_id = 101;

-- suspend: the partner of a customer, the operator of anything
SELECT run_as(11, :app, $$SELECT partner_portal.suspend_workspace(101, 'x')$$);
SELECT run_as(16, :app, $$SELECT partner_portal.suspend_workspace(101, 'x')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.suspend_workspace(101, 'x')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.suspend_workspace(999, 'x')$$);
SELECT run_as(NULL, :app, $$SELECT partner_portal.suspend_workspace(101, 'x')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.suspend_workspace(1, 'x')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.suspend_workspace(NULL, 'x')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.suspend_workspace(101, NULL)$$);
SELECT run_as(1, :app, $$SELECT partner_portal.suspend_workspace(101, '')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.suspend_workspace(101, repeat('x', 10000000))$$);
SELECT run_as(1, :app, $$SELECT partner_portal.resume_workspace(101)$$);
SELECT run_as(1, :app, $$SELECT s.suspended_at IS NOT NULL || ' ' || s.suspended_reason FROM partner_portal.suspend_workspace(101, 'unpaid') s$$);
TABLE keys;
SELECT run_as(1, :app, $$SELECT partner_portal.suspend_workspace(101, 'again')$$);
SELECT run_as(11, :app, $$UPDATE partner_portal.security_key SET status = 'active' WHERE serial = 's4' RETURNING serial$$);
SELECT run_as(1, :app, $$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (101, 'smartphone', 's5') RETURNING serial$$);
-- resuming enables exactly those, up to the limit
SELECT run_as(11, :app, $$SELECT partner_portal.resume_workspace(101)$$);
SELECT run_as(2, :app, $$SELECT partner_portal.resume_workspace(101)$$);
SELECT run_as(1, :app, $$SELECT (r.suspended_at, r.suspended_reason) IS NULL FROM partner_portal.resume_workspace(101) r$$);
TABLE keys;
SELECT run_as(1, :app, $$SELECT s.workspace_id FROM partner_portal.suspend_workspace(101, 'unpaid') s$$);
SELECT run_as(1, :app, $$UPDATE partner_portal.workspace SET restrict_keys = true, key_limit = 2 WHERE workspace_id = 101 RETURNING key_limit$$);
SELECT run_as(1, :app, $$SELECT r.workspace_id FROM partner_portal.resume_workspace(101) r$$);
TABLE keys;
UPDATE partner_portal.workspace SET restrict_keys = false WHERE workspace_id = 101;
-- customers of a suspended partner keep their keys and can activate none
SELECT run_as(1, :app, $$SELECT partner_portal.suspend_workspace(1, 'x')$$);
SELECT run_as(NULL, NULL, $$SELECT s.workspace_id FROM partner_portal.suspend_workspace(1, 'x') s$$);
TABLE keys;
SELECT run_as(11, :app, $$UPDATE partner_portal.security_key SET status = 'active' WHERE serial = 's3' RETURNING serial$$);
SELECT run_as(NULL, NULL, $$SELECT r.workspace_id FROM partner_portal.resume_workspace(1) r$$);
SELECT run_as(11, :app, $$UPDATE partner_portal.security_key SET status = 'active' WHERE serial = 's3' RETURNING serial$$);

-- delete: the owner or the partner; a partner with customers stays
SELECT run_as(14, :app, $$SELECT partner_portal.delete_workspace(101)$$);
SELECT run_as(16, :app, $$SELECT partner_portal.delete_workspace(101)$$);
SELECT run_as(2, :app, $$SELECT partner_portal.delete_workspace(101)$$);
SELECT run_as(2, :app, $$SELECT partner_portal.delete_workspace(999)$$);
SELECT run_as(NULL, :app, $$SELECT partner_portal.delete_workspace(101)$$);
SELECT run_as(1, :app, $$SELECT partner_portal.delete_workspace(NULL)$$);
SELECT run_as(1, :app, $$SELECT partner_portal.delete_workspace(1)$$);
SELECT run_as(1, :app, $$SELECT partner_portal.restore_workspace(101)$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.purge_workspace(101)$$);
SELECT run_as(11, :app, $$SELECT d.deleted_at IS NOT NULL FROM partner_portal.delete_workspace(101) d$$);
TABLE keys;
SELECT count(*), bool_and(p.period_end = w.deleted_at AND h.latest <= w.deleted_at) AS ends_there
	FROM partner_portal.billing_period p JOIN partner_portal.workspace w USING (workspace_id),
		(SELECT max(active_until) AS latest FROM partner_portal.key_history WHERE workspace_id = 101) h WHERE workspace_id = 101;
-- nobody acts in it; the partner still sees it; it is refused to change
SELECT run_as(11, :app, $$SELECT count(*) FROM partner_portal.workspace$$);
SELECT run_as(11, :app, $$SELECT partner_portal.delete_workspace(101)$$);
SELECT run_as(1, :app, $$SELECT partner_portal.delete_workspace(101)$$);
SELECT run_as(1, :app, $$SELECT partner_portal.suspend_workspace(101, 'x')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.resume_workspace(101)$$);
SELECT run_as(1, :app, $$SELECT partner_portal.leave_partner(101)$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.transfer_workspace(101, 'code-of-2')$$);
SELECT run_as(1, :app, $$UPDATE partner_portal.workspace SET company_name = 'x' WHERE workspace_id = 101 RETURNING company_name$$);
SELECT run_as(1, :app, $$SELECT partner_portal.set_usage_limit(101, 5)$$);
SELECT run_as(1, :app, $$UPDATE partner_portal.security_key SET status = 'active' WHERE serial = 's1' RETURNING serial$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.create_workspace('x', 'x@example.com', 'customer-101')$$);
-- restore: the partner, or the operator
SELECT run_as(11, :app, $$SELECT partner_portal.restore_workspace(101)$$);
SELECT run_as(2, :app, $$SELECT partner_portal.restore_workspace(101)$$);
SELECT run_as(16, :app, $$SELECT partner_portal.restore_workspace(101)$$);
SELECT run_as(1, :app, $$SELECT r.deleted_at FROM partner_portal.restore_workspace(101) r$$);
TABLE keys;
SELECT run_as(1, :app, $$SELECT partner_portal.restore_workspace(101)$$);
SELECT count(*), count(*) FILTER (WHERE resumes), bool_and(period_end > now()) FILTER (WHERE resumes) FROM partner_portal.billing_period WHERE workspace_id = 101;
SELECT run_as(16, :app, $$SELECT count(*) FROM partner_portal.security_key$$);
-- others' customers
SELECT run_as(1, :app, $$SELECT partner_portal.delete_workspace(102)$$);
SELECT run_as(12, :app, $$SELECT partner_portal.delete_workspace(103)$$);
SELECT run_as(2, :app, $$SELECT partner_portal.delete_workspace(103)$$);
SELECT run_as(15, :app, $$SELECT d.workspace_id FROM partner_portal.delete_workspace(103) d$$);
SELECT workspace_id, partner_id, deleted_at IS NOT NULL AS deleted FROM partner_portal.workspace WHERE workspace_id > 100 ORDER BY 1;

-- transfer: by the owner, with the other partner's code
SELECT run_as(1, :app, $$SELECT partner_portal.transfer_workspace(101, 'code-of-2')$$);
SELECT run_as(14, :app, $$SELECT partner_portal.transfer_workspace(101, 'code-of-2')$$);
SELECT run_as(16, :app, $$SELECT partner_portal.transfer_workspace(101, 'code-of-2')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.transfer_workspace(101, 'code-of-2')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.transfer_workspace(999, 'code-of-2')$$);
SELECT run_as(NULL, :app, $$SELECT partner_portal.transfer_workspace(101, 'code-of-2')$$);
SELECT run_as(11, :app, $$SELECT partner_portal.transfer_workspace(NULL, 'code-of-2')$$);
SELECT run_as(11, :app, $$SELECT partner_portal.transfer_workspace(101, NULL)$$);
SELECT run_as(11, :app, $$SELECT partner_portal.transfer_workspace(101, 'code-of-9')$$);
SELECT run_as(11, :app, $$SELECT partner_portal.transfer_workspace(101, repeat('x', 10000000))$$);
SELECT run_as(11, :app, $$SELECT partner_portal.transfer_workspace(101, 'code-of-1')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.transfer_workspace(1, 'code-of-2')$$);
SELECT run_as(11, :app, $$SELECT t.partner_id || ' ' || t.partner_key FROM partner_portal.transfer_workspace(101, 'code-of-2') t$$);
-- what is live follows, what is past stays, staff has ended, the running period is split
SELECT (SELECT count(*) FROM partner_portal.staff WHERE workspace_id = 101) AS staff,
	(SELECT array_agg(DISTINCT partner_key) FROM partner_portal.security_key WHERE workspace_id = 101) AS keys,
	(SELECT array_agg(DISTINCT partner_key) FROM partner_portal.key_history WHERE workspace_id = 101) AS history,
	(SELECT array_agg(DISTINCT partner_key) FROM partner_portal.member WHERE workspace_id = 101) AS members,
	(SELECT partner_key FROM partner_portal.workspace_usage WHERE workspace_id = 101) AS counters,
	(SELECT array_agg(partner_key ORDER BY period_start) FROM partner_portal.billing_period WHERE workspace_id = 101) AS periods;
TABLE keys;
SELECT run_as(1, :app, $$SELECT count(*) FROM partner_portal.workspace WHERE workspace_id = 101$$);
SELECT run_as(16, :app, $$SELECT count(*) FROM partner_portal.security_key$$);
SELECT run_as(2, :app, $$SELECT count(*) FROM partner_portal.security_key WHERE workspace_id = 101$$);
-- a direct workspace joins a partner the same way; a suspension goes along
SELECT run_as(NULL, NULL, $$SELECT s.workspace_id FROM partner_portal.suspend_workspace(3, 'x') s$$);
SELECT run_as(3, :app, $$SELECT t.partner_id || ' ' || (t.suspended_at IS NOT NULL) FROM partner_portal.transfer_workspace(3, 'code-of-1') t$$);
SELECT run_as(3, :app, $$SELECT partner_portal.resume_workspace(3)$$);
SELECT run_as(1, :app, $$SELECT r.workspace_id FROM partner_portal.resume_workspace(3) r$$);
-- what is added before and after a transfer in one transaction, also one that is taken back, has the partner of the end
BEGIN;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (102, 'smartphone', 'before');
SELECT t.partner_id FROM partner_portal.transfer_workspace(102, 'code-of-1') t;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (102, 'smartphone', 'after');
SAVEPOINT undone;
SELECT l.partner_id FROM partner_portal.leave_partner(102) l;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (102, 'smartphone', 'undone');
ROLLBACK TO undone;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (102, 'smartphone', 'at last');
SELECT string_agg(serial || ' ' || partner_key, ', ' ORDER BY key_id) FROM partner_portal.security_key WHERE workspace_id = 102;
ROLLBACK;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (999, 'smartphone', 'nowhere');
-- nobody moves to a suspended partner
SELECT run_as(NULL, NULL, $$SELECT s.workspace_id FROM partner_portal.suspend_workspace(2, 'x') s$$);
SELECT run_as(3, :app, $$SELECT partner_portal.transfer_workspace(3, 'code-of-2')$$);
SELECT run_as(NULL, NULL, $$SELECT r.workspace_id FROM partner_portal.resume_workspace(2) r$$);

-- leave: by the owner or the partner
SELECT run_as(14, :app, $$SELECT partner_portal.leave_partner(101, 'x')$$);
SELECT run_as(13, :app, $$SELECT partner_portal.leave_partner(101, 'x')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.leave_partner(101, 'x')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.leave_partner(999, 'x')$$);
SELECT run_as(NULL, :app, $$SELECT partner_portal.leave_partner(101, 'x')$$);
SELECT run_as(11, :app, $$SELECT partner_portal.leave_partner(NULL, 'x')$$);
SELECT run_as(11, :app, $$SELECT partner_portal.leave_partner(101, '')$$);
SELECT run_as(11, :app, $$SELECT partner_portal.leave_partner(101, repeat('x', 10000000))$$);
SELECT run_as(11, :app, $$SELECT l.partner_id FROM partner_portal.leave_partner(101, 'too dear') l$$);
SELECT run_as(11, :app, $$SELECT partner_portal.leave_partner(101, 'x')$$);
SELECT run_as(1, :app, $$SELECT l.partner_id FROM partner_portal.leave_partner(3) l$$);
SELECT array_agg(partner_key ORDER BY period_start) AS periods, bool_and(previous_end = period_start OR previous_end IS NULL OR resumes) AS chained
	FROM partner_portal.billing_period WHERE workspace_id = 101;
SELECT run_as(NULL, NULL, $$SELECT partner_portal.suspend_workspace(101, 'direct ones are the operator''s')::text LIKE '%direct ones%'$$);
SELECT run_as(NULL, NULL, $$SELECT r.workspace_id FROM partner_portal.resume_workspace(101) r$$);

-- a partner whose customers are all deleted may go; they come back only after it
SELECT run_as(1, :app, $$SELECT d.workspace_id FROM partner_portal.delete_workspace(1) d$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.restore_workspace(103)$$);
SELECT run_as(NULL, NULL, $$SELECT r.workspace_id FROM partner_portal.restore_workspace(1) r$$);
SELECT run_as(NULL, NULL, $$SELECT r.workspace_id FROM partner_portal.restore_workspace(103) r$$);
SELECT run_as(15, :app, $$SELECT r.workspace_id FROM partner_portal.workspace r$$);

-- purge: operator only, of what is deleted; facts stay, people go
UPDATE partner_portal.workspace SET address = 'Street 1', tax_id = 'CHE-1' WHERE workspace_id = 101;
UPDATE partner_portal.security_key SET label = 'Phone of M', account_id = 13 WHERE workspace_id = 101 AND serial = 's1';
SELECT run_as(11, :app, $$SELECT d.workspace_id FROM partner_portal.delete_workspace(101) d$$);
CREATE TABLE facts AS SELECT key_id, kind, active, recorded_at FROM partner_portal.key_activity WHERE workspace_id = 101;
SELECT run_as(11, :app, $$SELECT partner_portal.purge_workspace(101)$$);
SELECT run_as(NULL, :app, $$SELECT partner_portal.purge_workspace(101)$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.purge_workspace(999)$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.purge_workspace(NULL)$$);
SELECT run_as(4, :app, $$SELECT p.company_name || ' ' || (p.slug ~ '^purged-101-[0-9a-f]{8}$') || ' ' || (p.purged_at IS NOT NULL) FROM partner_portal.purge_workspace(101) p$$);
SELECT w.address, w.tax_id, w.suspended_reason, (SELECT count(*) FROM partner_portal.member m WHERE m.workspace_id = 101) AS members,
	(SELECT count(*) FROM partner_portal.security_key k WHERE k.workspace_id = 101 AND (label, account_id) IS NULL AND serial LIKE 'purged-%') AS keys
	FROM partner_portal.workspace w WHERE workspace_id = 101;
SELECT count(*) AS facts, (SELECT count(*) FROM facts) AS before, count(*) FILTER (WHERE f.key_id IS NULL) AS changed
	FROM partner_portal.key_activity k LEFT JOIN facts f USING (key_id, kind, active, recorded_at) WHERE k.workspace_id = 101;
SELECT run_as(NULL, NULL, $$SELECT partner_portal.purge_workspace(101)$$);
DO $$ DECLARE told text; BEGIN PERFORM partner_portal.purge_workspace(101); EXCEPTION WHEN OTHERS THEN GET STACKED DIAGNOSTICS told = PG_EXCEPTION_HINT; RAISE 'hint: %', told; END $$;
SELECT run_as(NULL, NULL, $$SELECT partner_portal.restore_workspace(101)$$);
SELECT run_as(NULL, NULL, $$SELECT c.slug FROM partner_portal.create_workspace('Customer 101', 'x@example.com') c$$);
