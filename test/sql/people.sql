\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept people
\i :begin
\i :as
-- workspace 1: partner; 2: its customer; 3: direct. Accounts: 1 owns 1, 2 owns 2, 3 owns 3, 4 is the operator's
SELECT (partner_portal.create_workspace('Partner', 'p@example.com')).workspace_id;
SELECT (partner_portal.promote_to_partner(1)).partner_id;
SELECT (partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner), 'Customer', 'c@example.com', 'Carla')).workspace_id;
SELECT (partner_portal.create_workspace('Direct', 'd@example.com')).workspace_id;
INSERT INTO partner_portal.account (email, is_operator) VALUES ('operator@example.com', true);
CREATE VIEW people AS SELECT workspace_id, account_id, role, accepted_at IS NOT NULL AS accepted FROM partner_portal.member ORDER BY 1, 2;

-- add_member: the operator; a trusted application, which is asked for manage_people when somebody is signed in
SELECT run_as(2, :app, $$SELECT partner_portal.add_member(2, 'new@example.com', 'member')$$);
SELECT run_as(NULL, :app, $$SELECT partner_portal.add_member(2, 'new@example.com', 'member')$$);
SELECT run_as(NULL, :ops, $$SELECT partner_portal.add_member(2, 'new@example.com', 'member')$$);
SELECT run_as(2, :ops, $$SELECT partner_portal.add_member(2, 'new@example.com', 'member')$$);
SELECT run_as(1, :trusted, $$SELECT partner_portal.add_member(2, 'new@example.com', 'member')$$);
SELECT run_as(3, :trusted, $$SELECT partner_portal.add_member(2, 'new@example.com', 'member')$$);
SELECT run_as(3, :trusted, $$SELECT partner_portal.add_member(99, 'new@example.com', 'member')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.add_member(99, 'new@example.com', 'member')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.add_member(NULL, 'new@example.com', 'member')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.add_member(2, NULL, 'member')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.add_member(2, 'not an address', 'member')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.add_member(2, repeat('x', 10000000), 'member')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.add_member(2, 'new@example.com', NULL)$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.add_member(2, 'new@example.com', 'boss')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.add_member(2, 'new@example.com', repeat('x', 10000000))$$);
SELECT count(*) FROM partner_portal.account WHERE email = 'new@example.com';
SELECT run_as(NULL, :trusted, $$SELECT a.account_id FROM partner_portal.add_member(2, 'admin@example.com', 'administrator') a$$);
SELECT run_as(5, :trusted, $$SELECT a.account_id FROM partner_portal.add_member(2, 'member@example.com', 'member') a$$);
SELECT run_as(5, :trusted, $$SELECT partner_portal.add_member(2, 'boss@example.com', 'owner')$$);
SELECT run_as(4, :ops, $$SELECT a.account_id FROM partner_portal.add_member(2, 'guest@example.com', 'guest') a$$);
SELECT run_as(2, :trusted, $$SELECT a.account_id FROM partner_portal.add_member(2, 'boss@example.com', 'owner') a$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.add_member(2, 'Member@Example.com', 'guest')$$);
-- an account that was there: pending, and counts for nothing
SELECT run_as(2, :trusted, $$SELECT a.account_id || ' ' || (a.accepted_at IS NULL) FROM partner_portal.add_member(2, 'D@example.com', 'owner') a$$);
TABLE people;
SELECT owners FROM partner_portal.workspace_usage WHERE workspace_id = 2;
SELECT run_as(3, :app, 'SELECT string_agg(workspace_id::text, $$ $$ ORDER BY workspace_id) FROM partner_portal.workspace');
SELECT run_as(3, :app, 'SELECT partner_portal.act_in(2)');
SELECT run_as(3, :app, 'SELECT partner_portal.set_member_role(2, 3, $$owner$$)');
-- of whom nothing is told but the address
UPDATE partner_portal.account SET name = 'Dora', disabled_at = now() WHERE account_id = 3;
SELECT run_as(who, :app, 'SELECT m.email || $$ $$ || coalesce(m.name, $$(no name)$$) || $$ $$ || m.disabled FROM partner_portal.members m WHERE (m.workspace_id, m.account_id) = (2, 3)') FROM generate_series(1, 2) who;
UPDATE partner_portal.account SET disabled_at = NULL WHERE account_id = 3;
SELECT run_as(3, :app, 'SELECT m.email || $$ $$ || m.name FROM partner_portal.members m WHERE (m.workspace_id, m.account_id) = (2, 3)');

-- accept_membership: the account itself
SELECT run_as(NULL, :app, 'SELECT partner_portal.accept_membership(2)');
SELECT run_as(1, :app, 'SELECT partner_portal.accept_membership(2)');
SELECT run_as(1, :app, 'SELECT partner_portal.accept_membership(99)');
SELECT run_as(3, :app, 'SELECT partner_portal.accept_membership(NULL)');
SELECT run_as(NULL, NULL, 'SELECT partner_portal.accept_membership(2)');
SELECT run_as(3, :app, 'SELECT a.role FROM partner_portal.accept_membership(2) a');
SELECT run_as(2, :app, 'SELECT m.name FROM partner_portal.members m WHERE (m.workspace_id, m.account_id) = (2, 3)');
SELECT run_as(3, :app, 'SELECT string_agg(workspace_id::text, $$ $$ ORDER BY workspace_id) FROM partner_portal.workspace', 2);
CREATE TABLE accepted AS SELECT accepted_at FROM partner_portal.member WHERE (workspace_id, account_id) = (2, 3);
SELECT run_as(3, :app, 'SELECT a.role FROM partner_portal.accept_membership(2) a');
SELECT m.accepted_at = a.accepted_at AS once FROM accepted a, partner_portal.member m WHERE (workspace_id, account_id) = (2, 3);
SELECT owners FROM partner_portal.workspace_usage WHERE workspace_id = 2;

-- set_member_role: owners over everyone, administrators over the others
SELECT run_as(6, :app, $$SELECT partner_portal.set_member_role(2, 7, 'member')$$);
SELECT run_as(1, :app, $$SELECT partner_portal.set_member_role(2, 7, 'member')$$);
SELECT run_as(NULL, :app, $$SELECT partner_portal.set_member_role(2, 7, 'member')$$);
SELECT run_as(5, :app, $$SELECT partner_portal.set_member_role(3, 3, 'member')$$);
SELECT run_as(5, :app, $$SELECT partner_portal.set_member_role(99, 3, 'member')$$);
SELECT run_as(5, :app, $$SELECT s.role FROM partner_portal.set_member_role(2, 7, 'member') s$$);
SELECT run_as(5, :app, $$SELECT partner_portal.set_member_role(2, 7, 'owner')$$);
SELECT run_as(5, :app, $$SELECT partner_portal.set_member_role(2, 5, 'owner')$$);
SELECT run_as(5, :app, $$SELECT partner_portal.set_member_role(2, 2, 'member')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.set_member_role(2, 1, 'member')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.set_member_role(2, NULL, 'member')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.set_member_role(NULL, 7, 'member')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.set_member_role(2, 7, NULL)$$);
SELECT run_as(2, :app, $$SELECT partner_portal.set_member_role(2, 7, 'boss')$$);
SELECT run_as(2, :app, $$SELECT s.role FROM partner_portal.set_member_role(2, 7, 'administrator') s$$);
SELECT run_as(2, :app, $$SELECT s.role FROM partner_portal.set_member_role(2, 8, 'member') s$$);
SELECT run_as(2, :app, $$SELECT s.role FROM partner_portal.set_member_role(2, 3, 'guest') s$$);
SELECT run_as(2, :app, $$SELECT partner_portal.set_member_role(2, 2, 'administrator')$$);
SELECT run_as(4, :app, $$SELECT s.role FROM partner_portal.set_member_role(2, 8, 'owner') s$$);
SELECT run_as(2, :app, $$SELECT s.role FROM partner_portal.set_member_role(2, 2, 'administrator') s$$);
SELECT run_as(2, :app, $$SELECT partner_portal.set_member_role(2, 2, 'owner')$$);
SELECT run_as(8, :app, $$SELECT s.role FROM partner_portal.set_member_role(2, 2, 'owner') s$$);
-- a partner's account owner manages people, not owners
SELECT run_as(NULL, :trusted, $$SELECT a.account_id FROM partner_portal.add_member(1, 'staff@example.com', 'member') a$$);
SELECT (partner_portal.assign_staff(2, 9, 'account_owner')).role;
SELECT run_as(9, :app, $$SELECT s.role FROM partner_portal.set_member_role(2, 7, 'guest') s$$);
SELECT run_as(9, :app, $$SELECT partner_portal.set_member_role(2, 7, 'owner')$$);
SELECT run_as(9, :app, $$SELECT partner_portal.remove_member(2, 8)$$);

-- members: who reads the workspace reads its people; the partner too; everyone one's own
SELECT run_as(2, :app, 'SELECT string_agg(account_id || $$ $$ || email, $$, $$ ORDER BY account_id) FROM partner_portal.members');
SELECT run_as(1, :app, 'SELECT string_agg(workspace_id || $$ $$ || email, $$, $$ ORDER BY workspace_id, account_id) FROM partner_portal.members');
SELECT run_as(7, :app, 'SELECT string_agg(workspace_id || $$ $$ || email, $$, $$ ORDER BY workspace_id, account_id) FROM partner_portal.members');
SELECT run_as(9, :app, 'SELECT string_agg(workspace_id || $$ $$ || email, $$, $$ ORDER BY workspace_id, account_id) FROM partner_portal.members');
SELECT run_as(NULL, :app, 'SELECT count(*) FROM partner_portal.members');

-- remove_member: by who manages people; everyone oneself
INSERT INTO partner_portal.security_key (workspace_id, kind, serial, account_id) VALUES (2, 'smartphone', 's', 6);
SELECT run_as(6, :app, $$SELECT partner_portal.remove_member(2, 7)$$);
SELECT run_as(1, :app, $$SELECT partner_portal.remove_member(2, 7)$$);
SELECT run_as(NULL, :app, $$SELECT partner_portal.remove_member(2, 7)$$);
SELECT run_as(5, :app, $$SELECT partner_portal.remove_member(3, 3)$$);
SELECT run_as(5, :app, $$SELECT partner_portal.remove_member(99, 3)$$);
SELECT run_as(5, :app, $$SELECT partner_portal.remove_member(99, 5)$$);
SELECT run_as(5, :app, $$SELECT partner_portal.remove_member(2, 2)$$);
SELECT run_as(5, :app, $$SELECT partner_portal.remove_member(2, 1)$$);
SELECT run_as(5, :app, $$SELECT partner_portal.remove_member(2, NULL)$$);
SELECT run_as(5, :app, $$SELECT partner_portal.remove_member(NULL, 5)$$);
SELECT run_as(5, :app, $$SELECT r.account_id FROM partner_portal.remove_member(2, 7) r$$);
SELECT run_as(6, :app, $$SELECT r.account_id FROM partner_portal.remove_member(2, 6) r$$);
SELECT status, account_id FROM partner_portal.security_key;
SELECT run_as(2, :app, $$SELECT r.account_id FROM partner_portal.remove_member(2, 8) r$$);
SELECT run_as(2, :app, $$SELECT partner_portal.remove_member(2, 2)$$);
-- a pending membership may be turned down; a staff assignment goes with the membership
SELECT run_as(NULL, :trusted, $$SELECT a.accepted_at FROM partner_portal.add_member(2, 'p@example.com', 'owner') a$$);
SELECT run_as(1, :app, $$SELECT r.account_id FROM partner_portal.remove_member(2, 1) r$$);
SELECT run_as(1, :app, $$SELECT r.account_id FROM partner_portal.remove_member(1, 9) r$$);
SELECT count(*) FROM partner_portal.staff;
-- both owners leave in one statement
SELECT run_as(2, :trusted, $$SELECT a.account_id FROM partner_portal.add_member(2, 'second@example.com', 'owner') a$$);
SELECT run_as(NULL, NULL, $$SELECT count((partner_portal.remove_member(2, a)).account_id) FROM unnest(ARRAY[2, 10]) a$$);
TABLE people;

-- disable_account, enable_account: the operator
SELECT run_as(2, :app, 'SELECT partner_portal.disable_account(5)');
SELECT run_as(NULL, :trusted, 'SELECT partner_portal.disable_account(5)');
SELECT run_as(2, :app, 'SELECT partner_portal.enable_account(99)');
SELECT run_as(4, :app, 'SELECT partner_portal.disable_account(99)');
SELECT run_as(4, :app, 'SELECT partner_portal.disable_account(NULL)');
SELECT run_as(4, :app, 'SELECT d.disabled_at IS NOT NULL FROM partner_portal.disable_account(5) d');
SELECT run_as(4, :app, 'SELECT d.disabled_at IS NOT NULL FROM partner_portal.disable_account(5) d');
SELECT run_as(5, :app, 'SELECT partner_portal.current_account_id()');
SELECT run_as(2, :app, 'SELECT string_agg(account_id || $$ $$ || disabled, $$, $$ ORDER BY account_id) FROM partner_portal.members');
SELECT run_as(4, :app, 'SELECT e.disabled_at FROM partner_portal.enable_account(5) e');
SELECT run_as(5, :app, 'SELECT partner_portal.current_account_id()');

-- messages to what will be former addresses, and to the present one, of account 5
SELECT count(partner_portal.enqueue_mail(2, 'test', r, r, 'en', ROW('subject', 'text', NULL)::partner_portal.mail_content))
	FROM unnest('{MINE@example.com,admin@example.com,Admin2@example.com,c@example.com}'::text[]) r;

-- change_email: who vouches for it
SELECT run_as(5, :app, $$SELECT partner_portal.change_email(5, 'mine@example.com')$$);
SELECT run_as(NULL, :ops, $$SELECT partner_portal.change_email(5, 'mine@example.com')$$);
SELECT run_as(2, :trusted, $$SELECT partner_portal.change_email(5, 'mine@example.com')$$);
SELECT run_as(2, :trusted, $$SELECT partner_portal.change_email(99, 'mine@example.com')$$);
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.change_email(NULL, 'mine@example.com')$$);
SELECT run_as(5, :trusted, $$SELECT c.email FROM partner_portal.change_email(5, 'Mine@example.com') c$$);
SELECT run_as(5, :trusted, $$SELECT c.email FROM partner_portal.change_email(5, 'mine@example.com') c$$);
SELECT run_as(NULL, :trusted, $$SELECT c.email FROM partner_portal.change_email(5, 'admin@example.com') c$$);
SELECT run_as(4, :ops, $$SELECT c.email FROM partner_portal.change_email(5, 'admin2@example.com') c$$);
SELECT run_as(5, :trusted, $$SELECT partner_portal.change_email(5, 'C@Example.com')$$);
SELECT run_as(5, :trusted, $$SELECT partner_portal.change_email(5, NULL)$$);
SELECT run_as(5, :trusted, $$SELECT partner_portal.change_email(5, 'x')$$);
SELECT run_as(5, :trusted, $$SELECT partner_portal.change_email(5, repeat('x', 10000000))$$);

-- addresses it had before are noted, one that it has again is none of them; applications do not see them
SELECT string_agg(k, ' ' ORDER BY k), bool_and(v::timestamptz <= clock_timestamp()) FROM partner_portal.account, jsonb_each_text(former_emails) AS f (k, v) WHERE account_id = 5;
SELECT run_as(5, :app, 'SELECT former_emails FROM partner_portal.account');
-- messages that name accounts; an address it had before is another's by now, who is written to
SELECT count(partner_portal.enqueue_mail(2, 'new_keys', '2026-01-01:' || n, 'once-' || n || '@example.com', 'en', ROW('subject', 'text', NULL)::partner_portal.mail_content)) FROM unnest('{5,55}'::text[]) n;
SELECT run_as(NULL, :trusted, $$SELECT c.email FROM partner_portal.change_email(6, 'mine@example.com') c$$);
SELECT count(partner_portal.enqueue_mail(2, 'test', 'later', 'mine@example.com', 'en', ROW('subject', 'text', NULL)::partner_portal.mail_content));
-- invitations: an answered one, one to an address that is free, one to an address that is another's by now
INSERT INTO partner_portal.invitation (workspace_id, partner_key, kind, email, role, expires_at, token_hash, created_at, state, finished_at, account_id) VALUES
	(2, 1, 'member', 'since-1-0@example.com', 'member', now() + interval '1 day', sha256('a'), now() - interval '1 day', 'accepted', now(), 5),
	(2, 1, 'member', 'Admin@example.com', 'member', now() + interval '1 day', sha256('b'), now() - interval '1 day', 'pending', NULL, NULL),
	(2, 1, 'member', 'mine@example.com', 'member', now() + interval '1 day', sha256('c'), now() - interval '1 day', 'pending', NULL, NULL);
SELECT count(partner_portal.enqueue_mail(2, 'invitation', i.invitation_id || ':1:1', i.email, 'en', ROW('subject', 'text', NULL)::partner_portal.mail_content)) FROM partner_portal.invitation i;
SELECT recipient, count(*) FROM partner_portal.notification GROUP BY 1 ORDER BY recipient COLLATE "C";

-- erase_account: the operator; a last owner first finds a successor
SELECT run_as(5, :app, 'SELECT partner_portal.erase_account(5)');
SELECT run_as(4, :app, 'SELECT partner_portal.erase_account(99)');
SELECT run_as(4, :app, 'SELECT partner_portal.erase_account(NULL)');
SELECT run_as(4, :app, 'SELECT partner_portal.erase_account(3)');
INSERT INTO partner_portal.account_identity (issuer, subject, account_id) VALUES ('https://idp.example', 'five', 5);
INSERT INTO partner_portal.security_key (workspace_id, kind, serial, account_id) VALUES (2, 'smartphone', 's5', 5);
SELECT run_as(4, :app, $$SELECT concat_ws(' ', e.email, e.name, e.disabled_at IS NOT NULL, e.erased_at IS NOT NULL, e.tokens_not_before) FROM partner_portal.erase_account(5) e$$);
SELECT recipient, count(*) FROM partner_portal.notification GROUP BY 1 ORDER BY recipient COLLATE "C";
SELECT invitation_id, email, state FROM partner_portal.invitation ORDER BY 1;
SELECT former_emails FROM partner_portal.account WHERE account_id = 5;
SELECT (SELECT count(*) FROM partner_portal.member WHERE account_id = 5), (SELECT count(*) FROM partner_portal.account_identity WHERE account_id = 5), status, account_id
	FROM partner_portal.security_key WHERE serial = 's5';
SELECT run_as(5, :app, 'SELECT partner_portal.current_account_id()');
SELECT run_as(4, :app, 'SELECT partner_portal.erase_account(5)');
SELECT run_as(4, :app, 'SELECT partner_portal.enable_account(5)');
SELECT run_as(4, :ops, $$SELECT partner_portal.change_email(5, 'admin@example.com')$$);
-- its address is free; the owner of a deleted workspace needs no successor
SELECT run_as(NULL, :trusted, $$SELECT a.account_id > 10 FROM partner_portal.add_member(2, 'admin2@example.com', 'member') a$$);
SELECT run_as(3, :app, $$SELECT d.workspace_id FROM partner_portal.delete_workspace(3) d$$, 3);
-- and who has taken the address that is to be nobody's does not keep anybody from being erased
SELECT run_as(2, :trusted, $$SELECT a.role FROM partner_portal.add_member(2, 'Erased-3@erased.invalid', 'guest') a$$);
SELECT run_as(4, :app, $$SELECT e.account_id || ' ' || (e.email ~ '^erased-3-[0-9a-f]{8}@erased\.invalid$') FROM partner_portal.erase_account(3) e$$);
-- nobody joins a deleted workspace
SELECT run_as(NULL, :trusted, $$SELECT partner_portal.add_member(3, 'late@example.com', 'member')$$);
-- and none comes back without an owner: the operator, and nobody else, makes one before
SELECT run_as(4, :app, 'SELECT partner_portal.restore_workspace(3)');
SELECT run_as(4, :ops, $$SELECT partner_portal.add_member(3, 'late@example.com', 'administrator')$$);
SELECT run_as(4, :ops, $$SELECT partner_portal.add_member(3, 'late@example.com', NULL)$$);
SELECT run_as(4, :ops, $$SELECT a.role || ' ' || (a.accepted_at IS NOT NULL) FROM partner_portal.add_member(3, 'late@example.com', 'owner') a$$);
SELECT run_as(4, :app, 'SELECT r.deleted_at IS NULL FROM partner_portal.restore_workspace(3) r');
SELECT * FROM partner_portal.verify(3);
-- who is named as the first owner may turn it down: its partner finds another by its account owner, who has no say once there is one
SELECT (partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner), 'Second', 'p@example.com')).workspace_id AS second \gset
SELECT run_as(NULL, :trusted, $$SELECT a.role FROM partner_portal.add_member(1, 'staff@example.com', 'member') a$$);
SELECT account_id AS staff FROM partner_portal.account WHERE email = 'staff@example.com' \gset
SELECT run_as(:staff, :app, 'SELECT a.role FROM partner_portal.accept_membership(1) a');
SELECT (partner_portal.assign_staff(:second, :staff, 'account_owner')).role;
SELECT run_as(:staff, :app, format('SELECT partner_portal.invite_member(%s, $$next@example.com$$, $$owner$$)', :second), 1);
SELECT run_as(1, :app, format('SELECT r.role FROM partner_portal.remove_member(%s, 1) r', :second));
SELECT check_name, problem FROM partner_portal.verify(:second);
SELECT run_as(1, :app, format('SELECT l.description FROM partner_portal.activity_log(%s, max_rows => 1) l', :second), 1);
SELECT run_as(1, :app, format('SELECT partner_portal.invite_member(%s, $$next@example.com$$, $$owner$$)', :second), 1);
SELECT (partner_portal.assign_staff(:second, :staff, 'system_administrator')).role;
SELECT run_as(:staff, :app, format('SELECT partner_portal.invite_member(%s, $$next@example.com$$, $$owner$$)', :second), 1);
SELECT (partner_portal.assign_staff(:second, :staff, 'account_owner')).role;
SELECT run_as(:staff, :app, format('SELECT i.role FROM partner_portal.invite_member(%s, $$next@example.com$$, $$owner$$) i', :second), 1);
SELECT run_as(:staff, :app, format('SELECT r.sendings FROM partner_portal.invitation i, partner_portal.resend_invitation(i.invitation_id) r WHERE i.workspace_id = %s', :second), 1);
UPDATE partner_portal.invitation SET token_hash = sha256(repeat('t', 43)::bytea) WHERE workspace_id = :second;
SELECT run_as(NULL, :app, 'SELECT a.state FROM partner_portal.accept_invitation(repeat($$t$$, 43)) a');
SELECT run_as(:staff, :app, format('SELECT partner_portal.invite_member(%s, $$another@example.com$$, $$owner$$)', :second), 1);
SELECT * FROM partner_portal.verify(:second);
