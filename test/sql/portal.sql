\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept portal
\i :begin
\i :as
-- partners 1 and 2, customer 3 of 1, direct 4. Accounts 1 to 4 own them, 5 is a plain member of 1, 6 and 7 will be portal users
SELECT (partner_portal.create_workspace(n, n || '@example.com')).workspace_id FROM unnest(ARRAY['p1', 'p2']) AS n;
SELECT (partner_portal.promote_to_partner(w)).partner_id FROM generate_series(1, 2) AS w;
SELECT (partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner WHERE partner_id = 1), 'Customer', 'c3@example.com')).workspace_id;
SELECT (partner_portal.create_workspace('Direct', 'd4@example.com')).workspace_id;
SELECT (partner_portal.add_member(1, 'm5@example.com', 'member')).account_id;
INSERT INTO partner_portal.account (email) VALUES ('viewer@example.com'), ('editor@example.com');

-- created by the partner's owner or administrator, or the operator
SELECT run_as(1, :app, $$SELECT (p.portal_id, p.workspace_id, p.name, p.technical_name, p.color, p.logout_url, p.home_cover_url, p.group_id, p.group_name)
	FROM partner_portal.create_portal(NULL, 'Acme & Söhne', 'acme', '#0055aa', 'https://acme.example/bye?x=1', 'https://acme.example/cover.png') p$$);
SELECT run_as(2, :app, $$SELECT p.portal_id FROM partner_portal.create_portal(2, 'Other', 'other', '#ffffff', 'http://other.example') p$$);
SELECT run_as(NULL, NULL, $$SELECT p.portal_id FROM partner_portal.create_portal(1, 'Second', 'acme-2', '#000000', 'https://acme.example/') p$$);
SELECT run_as(NULL, NULL, $$SELECT partner_portal.create_portal(NULL, 'x', 'x1', '#000000', 'https://acme.example/')$$);
SELECT run_as(NULL, :app, $$SELECT partner_portal.create_portal(1, 'x', 'x1', '#000000', 'https://acme.example/')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.create_portal(1, 'x', 'x1', '#000000', 'https://acme.example/')$$);
SELECT run_as(2, :app, $$SELECT partner_portal.create_portal(99, 'x', 'x1', '#000000', 'https://acme.example/')$$);
SELECT run_as(3, :app, $$SELECT partner_portal.create_portal(3, 'x', 'x1', '#000000', 'https://acme.example/')$$);
SELECT run_as(4, :app, $$SELECT partner_portal.create_portal(4, 'x', 'x1', '#000000', 'https://acme.example/')$$);
SELECT run_as(5, :app, $$SELECT partner_portal.create_portal(1, 'x', 'x1', '#000000', 'https://acme.example/')$$);
-- a taken name, also one of somebody else's; reserved ones; what is no label
SELECT n, run_as(1, :app, format('SELECT portal_id FROM partner_portal.create_portal(1, %L, %L, %L, %L)', 'x', n, '#000000', 'https://acme.example/'))
	FROM unnest(ARRAY['acme', 'other', 'www', 'admin', 'xn--bcher-kva', 'ab--c', '-a', 'a-', 'A', 'a.b', 'a_b', 'ä', '', ' ', repeat('a', 64), E'a\nb', NULL]) AS n;
SELECT c, run_as(1, :app, format('SELECT portal_id FROM partner_portal.create_portal(1, %L, %L, %L, %L)', 'x', 'new', c, 'https://acme.example/'))
	FROM unnest(ARRAY['red', '#fff', '#12345g', '#1234567', '#00;}</', NULL]) AS c;
SELECT u, run_as(1, :app, format('SELECT portal_id FROM partner_portal.create_portal(1, %L, %L, %L, %L)', 'x', 'new', '#000000', u))
	FROM unnest(ARRAY['javascript:alert(1)', 'ftp://a.example/', '//a.example/', 'https://', 'https://a.example/"><script>', 'https://a.example/ x', 'https://u:p@a.example/',
		'https://bücher.example/', 'https://a.example:port/', 'data:text/html,x', '', NULL]) AS u;
SELECT left(run_as(1, :app, format('SELECT partner_portal.create_portal(1, %L, %L, %L, %L, %L)', 'x', 'new', '#000000', 'https://a.example/', 'javascript:alert(1)')), 80);
SELECT n IS NULL, run_as(1, :app, format('SELECT portal_id FROM partner_portal.create_portal(1, %L, %L, %L, %L)', n, 'new', '#000000', 'https://acme.example/'))
	FROM unnest(ARRAY['', '  ', E'a\nb', repeat('x', 201), NULL]) AS n;

-- its address
SELECT run_as(1, :app, 'SELECT partner_portal.portal_url(1)');
SELECT run_as(5, :app, 'SELECT partner_portal.portal_url(1)');
SELECT run_as(2, :app, 'SELECT partner_portal.portal_url(1)'), run_as(2, :app, 'SELECT partner_portal.portal_url(99)'), run_as(3, :app, 'SELECT partner_portal.portal_url(1)');
SELECT run_as(NULL, :app, 'SELECT partner_portal.portal_url(1)'), run_as(1, :app, 'SELECT partner_portal.portal_url(NULL)');
SET partner_portal.portal_domain = 'portals.acme.test';
SELECT run_as(1, :app, 'SELECT partner_portal.portal_url(1)');
RESET partner_portal.portal_domain;

-- changed by plain UPDATE; by whom
SELECT run_as(1, :app, $$UPDATE partner_portal.portal SET name = 'Acme', color = '#112233', home_cover_url = NULL WHERE portal_id = 1 RETURNING group_name$$);
SELECT run_as(1, :app, $$UPDATE partner_portal.portal SET technical_name = 'other' WHERE portal_id = 1$$);
SELECT run_as(1, :app, $$UPDATE partner_portal.portal SET technical_name = 'www' WHERE portal_id = 1$$);
SELECT run_as(1, :app, $$UPDATE partner_portal.portal SET logout_url = 'javascript:alert(1)' WHERE portal_id = 1$$);
SELECT run_as(1, :app, $$UPDATE partner_portal.portal SET workspace_id = 2 WHERE portal_id = 1$$);
SELECT run_as(1, :app, $$UPDATE partner_portal.portal SET group_id = 2 WHERE portal_id = 1$$);
SELECT run_as(n, :app, $$WITH u AS (UPDATE partner_portal.portal SET name = 'Mine' WHERE portal_id = 1 RETURNING 1) SELECT count(*) FROM u$$) FROM unnest(ARRAY[NULL, 2, 3, 4, 5]) AS n;
SELECT run_as(1, :app, $$DELETE FROM partner_portal.portal$$), run_as(1, :app, $$INSERT INTO partner_portal.portal (workspace_id, name, technical_name, color, logout_url) VALUES (1, 'x', 'x', '#000000', 'http://x')$$);

-- folders and reports
SELECT run_as(1, :app, $$INSERT INTO partner_portal.folder (workspace_id, name) VALUES (1, 'Sales') RETURNING folder_id$$);
SELECT run_as(1, :app, $$INSERT INTO partner_portal.folder (workspace_id, parent_id, name) VALUES (1, 1, 'North') RETURNING folder_id$$);
SELECT run_as(1, :app, $$INSERT INTO partner_portal.folder (workspace_id, parent_id, name) VALUES (1, 2, 'Oslo') RETURNING folder_id$$);
SELECT run_as(1, :app, $$INSERT INTO partner_portal.folder (workspace_id, name) VALUES (1, 'Internal') RETURNING folder_id$$);
SELECT run_as(2, :app, $$INSERT INTO partner_portal.folder (workspace_id, name) VALUES (2, 'Theirs') RETURNING folder_id$$);
SELECT run_as(3, :app, $$INSERT INTO partner_portal.folder (workspace_id, name) VALUES (3, 'The customer''s') RETURNING (folder_id, partner_key)$$);
SELECT run_as(1, :app, $$INSERT INTO partner_portal.folder (workspace_id, name) VALUES (1, 'Sales')$$);
SELECT run_as(1, :app, $$INSERT INTO partner_portal.folder (workspace_id, parent_id, name) VALUES (1, 5, 'In another''s')$$);
SELECT run_as(1, :app, $$INSERT INTO partner_portal.folder (workspace_id, name) VALUES (2, 'Intruder')$$);
SELECT run_as(5, :app, $$INSERT INTO partner_portal.folder (workspace_id, name) VALUES (1, 'By a member')$$);
SELECT run_as(1, :app, $$INSERT INTO partner_portal.folder (workspace_id, name) VALUES (1, ' ')$$);
SELECT run_as(1, :app, $$UPDATE partner_portal.folder SET parent_id = 3 WHERE folder_id = 1$$);
UPDATE partner_portal.folder SET parent_id = 3 WHERE folder_id = 1;
SELECT run_as(1, :app, format('INSERT INTO partner_portal.report (workspace_id, folder_id, title) VALUES (1, %s, %L) RETURNING report_id', f, 'Report ' || f)) FROM generate_series(1, 4) AS f;
SELECT run_as(1, :app, $$INSERT INTO partner_portal.report (workspace_id, folder_id, title, definition) VALUES (1, 1, 'x', '[]')$$);
SELECT run_as(1, :app, $$INSERT INTO partner_portal.report (workspace_id, folder_id, title) VALUES (1, 5, 'x')$$);
SELECT run_as(1, :app, $$INSERT INTO partner_portal.report (workspace_id, folder_id, title, created_by) VALUES (1, 1, 'x', 2)$$);
SELECT run_as(1, :app, $$UPDATE partner_portal.report SET title = 'Report one' WHERE report_id = 1 RETURNING (created_by, changed_at > created_at)$$);
SELECT run_as(1, :app, 'SELECT string_agg(name, $$, $$ ORDER BY folder_id) FROM partner_portal.folder');
SELECT run_as(5, :app, 'SELECT string_agg(name, $$, $$ ORDER BY folder_id) FROM partner_portal.folder');
SELECT run_as(3, :app, 'SELECT string_agg(name, $$, $$ ORDER BY folder_id) FROM partner_portal.folder');

-- shares
SELECT run_as(1, :app, 'SELECT (s.folder_id, s.group_id, s.may_edit) FROM partner_portal.share_folder(1, 1) s');
SELECT run_as(1, :app, 'SELECT (s.folder_id, s.group_id, s.may_edit) FROM partner_portal.share_folder(2, 1, may_edit => true) s');
SELECT run_as(1, :app, 'SELECT partner_portal.share_folder(1, 2)'), run_as(1, :app, 'SELECT partner_portal.share_folder(5, 1)'), run_as(1, :app, 'SELECT partner_portal.share_folder(99, 1)');
SELECT run_as(1, :app, 'SELECT partner_portal.share_folder(6, 1)');
SELECT run_as(2, :app, 'SELECT partner_portal.share_folder(1, 2)'), run_as(2, :app, 'SELECT partner_portal.share_folder(99, 2)'), run_as(5, :app, 'SELECT partner_portal.share_folder(1, 1)');
SELECT run_as(1, :app, 'SELECT partner_portal.share_folder(NULL, 1)'), run_as(1, :app, 'SELECT partner_portal.share_folder(1, 1, NULL)'), run_as(NULL, :app, 'SELECT partner_portal.share_folder(1, 1)');
SELECT run_as(1, :app, 'SELECT partner_portal.unshare_folder(3, 1)'), run_as(2, :app, 'SELECT partner_portal.unshare_folder(1, 1)');

-- users of the portal: 6 views, 7 edits; 3 is also the owner of a workspace
INSERT INTO partner_portal.portal_account (workspace_id, portal_id, account_id, role) VALUES (1, 1, 6, 'viewer'), (1, 1, 7, 'editor'), (1, 1, 3, 'viewer'), (2, 2, 3, 'viewer');
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
SELECT in_portal(6, 1, 'SELECT (partner_portal.current_portal_id(), partner_portal.current_workspace_id(), partner_portal.portal_url(1))');
SELECT in_portal(6, 2, 'SELECT 1'), in_portal(6, 99, 'SELECT 1'), in_portal(6, NULL, 'SELECT 1'), in_portal(6, 0, 'SELECT 1'), run_as(NULL, :app, 'SELECT partner_portal.act_in_portal(1)');
SELECT in_portal(6, 1, 'SELECT string_agg(name, $$, $$ ORDER BY folder_id) FROM partner_portal.folder'), in_portal(6, 1, 'SELECT string_agg(title, $$, $$ ORDER BY report_id) FROM partner_portal.report');
SELECT in_portal(6, 1, 'SELECT string_agg(technical_name, $$, $$) FROM partner_portal.portals'), in_portal(6, 1, 'SELECT count(*) FROM partner_portal.workspace'), in_portal(6, 1, 'SELECT count(*) FROM partner_portal.folder_share');
-- without an acting portal a user sees nothing
SELECT run_as(6, :app, 'SELECT count(*) FROM partner_portal.folder'), run_as(6, :app, 'SELECT count(*) FROM partner_portal.portal'), run_as(6, :app, 'SELECT partner_portal.current_portal_id()');
SELECT run_as(6, :app, 'SELECT string_agg(concat_ws($$ $$, portal_id, name, url, role, acting), $$, $$) FROM partner_portal.my_portals');
-- an owner of a customer is no owner while it acts in the portal, and back
SELECT run_as(3, :app, 'SELECT partner_portal.current_workspace_id()'), in_portal(3, 1, 'SELECT partner_portal.current_workspace_id()'), in_portal(3, 1, 'SELECT string_agg(name, $$, $$ ORDER BY folder_id) FROM partner_portal.folder'),
	in_portal(3, 2, 'SELECT count(*) FROM partner_portal.folder'), in_portal(3, 1, 'SELECT partner_portal.authorize($$read$$, 3)');
BEGIN;
SELECT partner_portal.login_as(3);
SELECT partner_portal.act_in_portal(1);
SELECT partner_portal.act_in(3);
SELECT partner_portal.current_workspace_id(), partner_portal.current_portal_id() IS NULL;
ROLLBACK;
-- editors make reports in what is shared for editing, and change their own
SELECT in_portal(6, 1, $$INSERT INTO partner_portal.report (workspace_id, folder_id, title) VALUES (1, 2, 'By a viewer')$$);
SELECT in_portal(7, 1, $$INSERT INTO partner_portal.report (workspace_id, folder_id, title) VALUES (1, 1, 'In a folder to read')$$);
SELECT in_portal(7, 1, $$INSERT INTO partner_portal.report (workspace_id, folder_id, title) VALUES (1, 4, 'In a folder not shared')$$);
SELECT in_portal(7, 1, $$INSERT INTO partner_portal.report (workspace_id, folder_id, title) VALUES (2, 2, 'In another workspace')$$);
SELECT in_portal(7, 1, $$INSERT INTO partner_portal.report (workspace_id, folder_id, title) VALUES (1, 3, 'Mine') RETURNING (created_by, partner_key)$$);
SELECT in_portal(7, 1, $$WITH u AS (UPDATE partner_portal.report SET title = 'Changed' RETURNING title) SELECT count(*) FROM u$$);
SELECT in_portal(7, 1, $$UPDATE partner_portal.report SET folder_id = 1 WHERE created_by = 7$$), in_portal(7, 1, $$INSERT INTO partner_portal.folder (workspace_id, parent_id, name) VALUES (1, 2, 'x')$$);
SELECT in_portal(7, 1, $$WITH d AS (DELETE FROM partner_portal.report RETURNING title) SELECT string_agg(title, ', ') FROM d$$);
-- a share ends, and a folder appears below a shared one, at once: also in a snapshot from before
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT partner_portal.login_as(7);
SELECT partner_portal.act_in_portal(1);
SELECT partner_portal.portal_folders('read'), partner_portal.portal_folders('edit'), partner_portal.portal_folders('other'), partner_portal.portal_folders(NULL) IS NULL;
SAVEPOINT s;
SELECT partner_portal.logout();
SELECT partner_portal.unshare_folder(2, 1);
ROLLBACK TO s;
SELECT partner_portal.portal_folders('edit');
SELECT partner_portal.logout();
SELECT partner_portal.unshare_folder(2, 1);
SELECT partner_portal.login_as(7);
SELECT partner_portal.act_in_portal(1);
SELECT partner_portal.portal_folders('read'), partner_portal.portal_folders('edit');
COMMIT;
INSERT INTO partner_portal.folder (workspace_id, parent_id, name) VALUES (1, 3, 'Below');
SELECT in_portal(6, 1, $$SELECT partner_portal.portal_folders('read')$$);
SELECT run_as(1, :app, 'SELECT partner_portal.unshare_folder(1, 1)'), in_portal(6, 1, $$SELECT partner_portal.portal_folders('read')$$);
-- removed from the portal, the partner deleted, the portal deleted: nothing is left to act in
SELECT run_as(1, :app, 'SELECT s.may_edit FROM partner_portal.share_folder(1, 1) s');
BEGIN;
SELECT partner_portal.login_as(6);
SELECT partner_portal.act_in_portal(1);
SELECT count(*) FROM partner_portal.portal;
DELETE FROM partner_portal.portal_account WHERE account_id = 6;
SELECT partner_portal.current_portal_id() IS NULL, partner_portal.portal_folders('read');
ROLLBACK;
SELECT run_as(NULL, NULL, 'SELECT partner_portal.demote_partner(2)');
SELECT run_as(2, :app, 'SELECT (partner_portal.delete_workspace(2)).workspace_id');
SELECT in_portal(3, 2, 'SELECT 1'), run_as(NULL, NULL, $$SELECT partner_portal.create_portal(2, 'x', 'x2', '#000000', 'https://acme.example/')$$);
SELECT run_as(3, :app, 'SELECT count(*) FROM partner_portal.my_portals');
SELECT run_as(2, :app, 'SELECT partner_portal.delete_portal(1)'), run_as(5, :app, 'SELECT partner_portal.delete_portal(1)'), run_as(1, :app, 'SELECT partner_portal.delete_portal(1)');
SELECT in_portal(6, 1, 'SELECT 1');
SELECT count(*) FROM partner_portal.portal_account WHERE portal_id = 1;
SELECT count(*) FROM partner_portal.folder_share;
SELECT run_as(1, :app, 'DELETE FROM partner_portal.folder WHERE folder_id = 1'), run_as(1, :app, 'WITH d AS (DELETE FROM partner_portal.folder WHERE folder_id = 7 RETURNING name) SELECT name FROM d');
-- a customer's folders go with it to another partner
SELECT run_as(3, :app, 'SELECT (partner_portal.leave_partner(3)).workspace_id'), run_as(1, :app, 'SELECT count(*) FROM partner_portal.folder WHERE workspace_id = 3');
SELECT partner_key FROM partner_portal.folder WHERE workspace_id = 3;
