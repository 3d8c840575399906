\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept portal_user
\i :begin
\i :as
-- partners 1 and 2 with portals 1 and 2, customer 3 of 1. Accounts 1 to 3 own them, 4 is a plain member of 1
SELECT (partner_portal.create_workspace(n, n || '@example.com')).workspace_id FROM unnest(ARRAY['p1', 'p2']) AS n;
SELECT (partner_portal.promote_to_partner(w)).partner_id FROM generate_series(1, 2) AS w;
SELECT (partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner WHERE partner_id = 1), 'Customer', 'c3@example.com')).workspace_id;
SELECT (partner_portal.add_member(1, 'm4@example.com', 'member')).account_id;
SELECT (partner_portal.create_portal(w, 'Portal ' || w, 'portal-' || w, '#123456', 'https://example.com/')).portal_id FROM generate_series(1, 2) AS w;
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

-- attributes are defined by the partner
SELECT run_as(1, :app, $$SELECT (d.technical_name, d.type, d.multiple, d.required, d.allowed) FROM partner_portal.define_attribute(1, 'tenant', 'Tenant', 'string', required => true) d$$);
SELECT run_as(1, :app, $$SELECT d.allowed FROM partner_portal.define_attribute(NULL, 'level', 'Level', 'number', allowed => '[1, "2.50", 3]') d$$);
SELECT run_as(1, :app, $$SELECT d.type FROM partner_portal.define_attribute(1, 'vip', 'VIP', 'boolean') d$$);
SELECT run_as(1, :app, $$SELECT d.type FROM partner_portal.define_attribute(1, 'since', 'Customer since', 'date') d$$);
SELECT run_as(1, :app, $$SELECT d.allowed FROM partner_portal.define_attribute(1, 'region', 'Regions', 'string', multiple => true, allowed => '["north","south","east;west"]') d$$);
SELECT run_as(1, :app, $$SELECT partner_portal.define_attribute(1, 'tenant', 'Again', 'string')$$);
SELECT n, run_as(1, :app, format('SELECT partner_portal.define_attribute(1, %L, %L, %L)', n, 'x', 'string')) FROM unnest(ARRAY['email', 'role', 'Tenant', '1st', 'a-b', '', repeat('a', 64), NULL]) AS n;
SELECT run_as(1, :app, $$SELECT partner_portal.define_attribute(1, 'x', 'x', 'integer')$$), run_as(1, :app, $$SELECT partner_portal.define_attribute(1, 'x', NULL, 'string')$$),
	run_as(1, :app, $$SELECT partner_portal.define_attribute(1, 'x', 'x', 'string', NULL)$$), run_as(1, :app, $$SELECT partner_portal.define_attribute(1, 'x', 'x', 'number', allowed => '["many"]')$$),
	run_as(1, :app, $$SELECT partner_portal.define_attribute(1, 'x', 'x', 'number', allowed => '{"a":1}')$$), run_as(1, :app, $$SELECT partner_portal.define_attribute(1, 'x', 'x', 'string', allowed => '[]')$$);
SELECT run_as(n, :app, $$SELECT partner_portal.define_attribute(1, 'x', 'x', 'string')$$) FROM unnest(ARRAY[NULL, 2, 3, 4]) AS n;
SELECT run_as(n, :app, $$SELECT count(*) FROM partner_portal.portal_attribute$$) FROM unnest(ARRAY[NULL, 1, 2, 3, 4]) AS n;

-- values in their one form
SELECT v, partner_portal.attribute_value('number', v) AS number, partner_portal.attribute_value('boolean', v) AS boolean, partner_portal.attribute_value('date', v) AS date, partner_portal.attribute_value('string', v) AS string
	FROM unnest(ARRAY['1', '1.50', '-0', '+7', '1e5', 'NaN', 'Infinity', repeat('9', 31), '.5', 'TRUE', 'no', 'maybe', '2026-02-29', '2028-02-29', '2026-02-30', '1899-12-31', '2026-2-3', '2026-13-01', ' x ', '=1+1', E'a\nb', E'a\x01b']) AS v;
-- space around a value is none of it, of any kind that a file or a form brings along; other than ASCII space makes it no value
SELECT n, partner_portal.attribute_value('number', f || '12' || b) AS number, partner_portal.attribute_value('boolean', f || 'yes' || b) AS boolean,
	partner_portal.attribute_value('date', f || '2028-02-29' || b) AS date, partner_portal.attribute_value('date', f || '2027-02-29' || b) AS none
	FROM (VALUES (1, E'\t', ''), (2, '', E'\n'), (3, E' \t', E'\r\n'), (4, E'\f', E'\x0b '), (5, U&'\3000', ''), (6, '', U&'\2003')) v (n, f, b) ORDER BY n;
SELECT partner_portal.attribute_value('string', repeat('x', 1000)) IS NOT NULL, partner_portal.attribute_value('string', repeat('x', 1001)) IS NULL;

-- invitations, one by one
SELECT run_as(1, :app, $$SELECT (i.kind, i.email, i.role, i.details, i.token) FROM partner_portal.invite_portal_user(1, 'Ann@Example.com', 'viewer',
	'{"tenant": "T-1", "level": "2.5", "vip": true, "since": "2024-02-29", "region": ["south", "east;west"]}') i$$);
SELECT run_as(1, :app, $$SELECT i.role FROM partner_portal.invite_portal_user(1, 'ed@example.com', 'editor', '{"tenant": "T-2"}') i$$);
SELECT run_as(1, :app, $$SELECT partner_portal.invite_portal_user(1, 'ann@example.COM', 'viewer', '{"tenant": "T-1"}')$$);
SELECT a, run_as(1, :app, format('SELECT partner_portal.invite_portal_user(1, %L, %L, %L)', 'new@example.com', 'viewer', a))
	FROM unnest(ARRAY['{}', '{"tenant": ""}', '{"tenant": null}', '{"tenant": []}', '{"tenant": ["a", "b"]}', '{"tenant": {"a": 1}}', '{"tenant": [["a"]]}', '{"tenant": "a", "level": "much"}', '{"tenant": "a", "level": 2}',
		'{"tenant": "a", "level": 1e999}', '{"tenant": "a", "vip": "perhaps"}', '{"tenant": "a", "since": "29.2.2024"}', '{"tenant": "a", "region": "west"}', '{"tenant": "a", "Region": "north"}', '[]', '"x"', NULL]) AS a;
SELECT r, run_as(1, :app, format('SELECT partner_portal.invite_portal_user(1, %L, %L, %L)', 'new@example.com', r, '{"tenant": "a"}')) FROM unnest(ARRAY['owner', 'Viewer', '', NULL]) AS r;
SELECT run_as(1, :app, $$SELECT partner_portal.invite_portal_user(1, 'not an address', 'viewer')$$), run_as(1, :app, $$SELECT partner_portal.invite_portal_user(99, 'x@example.com', 'viewer')$$),
	run_as(2, :app, $$SELECT partner_portal.invite_portal_user(1, 'x@example.com', 'viewer')$$), run_as(4, :app, $$SELECT partner_portal.invite_portal_user(1, 'x@example.com', 'viewer')$$),
	run_as(3, :app, $$SELECT partner_portal.invite_portal_user(1, 'x@example.com', 'viewer')$$), run_as(NULL, :app, $$SELECT partner_portal.invite_portal_user(1, 'x@example.com', 'viewer')$$),
	run_as(1, :app, $$SELECT partner_portal.invite_portal_user(NULL, 'x@example.com', 'viewer')$$);
SELECT run_as(1, :app, 'SELECT string_agg(concat_ws($$ $$, portal_id, email, role, attributes, state, account_id), $$, $$ ORDER BY email) FROM partner_portal.portal_user');
SELECT run_as(n, :app, 'SELECT count(*) FROM partner_portal.portal_user') FROM unnest(ARRAY[NULL, 2, 3, 4]) AS n;

-- accepted by the token, with nobody signed in; the owner of a customer is invited too, by the operator, and accepts as who it is
SELECT i.token AS ann_token FROM partner_portal.resend_invitation((SELECT invitation_id FROM partner_portal.invitation WHERE email = 'Ann@Example.com')) i \gset
SELECT i.token AS ed_token FROM partner_portal.resend_invitation((SELECT invitation_id FROM partner_portal.invitation WHERE email = 'ed@example.com')) i \gset
SELECT i.token AS c3_token FROM partner_portal.invite_portal_user(1, 'c3@example.com', 'viewer', '{"tenant": "T-3"}') i \gset
SELECT run_as(NULL, :app, format('SELECT (a.account_id, a.accepted_workspace_id) FROM partner_portal.accept_invitation(%L) a', :'ann_token'));
SELECT run_as(NULL, :app, format('SELECT (a.account_id) FROM partner_portal.accept_invitation(%L) a', :'ann_token'));
SELECT run_as(3, :app, format('SELECT (a.account_id) FROM partner_portal.accept_invitation(%L) a', :'ed_token'));
SELECT run_as(NULL, :app, format('SELECT (a.account_id) FROM partner_portal.accept_invitation(%L) a', :'ed_token'));
SELECT run_as(3, :app, format('SELECT (a.account_id) FROM partner_portal.accept_invitation(%L) a', :'c3_token'));
SELECT run_as(1, :app, 'SELECT string_agg(concat_ws($$ $$, portal_id, email, role, state, account_id), $$, $$ ORDER BY email) FROM partner_portal.portal_user');
SELECT count(*) FROM partner_portal.member WHERE account_id IN (5, 6);
SELECT run_as(1, :app, $$SELECT partner_portal.invite_portal_user(1, 'ann@example.com', 'viewer', '{"tenant": "x"}')$$);

-- attribute() for policies (src/portal_access.c)
SELECT n, in_portal(5, 1, format('SELECT partner_portal.attribute(%L)', n)) FROM unnest(ARRAY['tenant', 'level', 'vip', 'since', 'region', 'Tenant', 'nothing', '', NULL, repeat('x', 100000)]) AS n WHERE length(n) < 99 OR n IS NULL;
SELECT in_portal(5, 1, $$SELECT partner_portal.attribute(repeat('x', 100000))$$), in_portal(6, 1, $$SELECT partner_portal.attribute('vip')$$), in_portal(3, 1, $$SELECT partner_portal.attribute('tenant')$$);
SELECT run_as(5, :app, $$SELECT partner_portal.attribute('tenant')$$), run_as(1, :app, $$SELECT partner_portal.attribute('tenant')$$), run_as(NULL, :app, $$SELECT partner_portal.attribute('tenant')$$), run_as(3, :app, $$SELECT partner_portal.attribute('tenant')$$);
SELECT proname, provolatile, proparallel, proleakproof FROM pg_proc WHERE oid IN ('partner_portal.attribute(text)'::regprocedure, 'partner_portal.portal_folders(text)'::regprocedure) ORDER BY 1;
CREATE TABLE sale (sale_id int, tenant text);
INSERT INTO sale SELECT g, 'T-' || g % 3 + 1 FROM generate_series(1, 9) g;
ALTER TABLE sale ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON sale USING (tenant = ANY ((SELECT partner_portal.attribute('tenant'))::text[]));
GRANT SELECT ON sale TO regress_app;
SELECT in_portal(5, 1, 'SELECT array_agg(sale_id) FROM sale'), in_portal(6, 1, 'SELECT array_agg(sale_id) FROM sale'), in_portal(3, 1, 'SELECT array_agg(sale_id) FROM sale'),
	run_as(5, :app, 'SELECT count(*) FROM sale'), run_as(1, :app, 'SELECT count(*) FROM sale'), run_as(NULL, :app, 'SELECT count(*) FROM sale');
-- in a parallel plan too
BEGIN;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
ALTER TABLE sale SET (parallel_workers = 2);
SELECT partner_portal.login_as(5);
SELECT partner_portal.act_in_portal(1);
SET LOCAL ROLE regress_app;
SELECT count(*) FROM sale;
ROLLBACK;

-- changes hold at once, also in a snapshot from before
SELECT run_as(1, :app, $$SELECT (u.email, u.role, u.attributes) FROM partner_portal.change_portal_user(1, 'ANN@example.com', 'editor', '{"tenant": "T-2", "region": null, "vip": "no"}') u$$);
SELECT in_portal(5, 1, $$SELECT (partner_portal.attribute('tenant'), partner_portal.attribute('level'), partner_portal.attribute('vip'), partner_portal.attribute('region'))$$);
SELECT run_as(1, :app, $$SELECT partner_portal.change_portal_user(1, 'ann@example.com', attributes => '{"tenant": ""}')$$), run_as(1, :app, $$SELECT partner_portal.change_portal_user(1, 'nobody@example.com', 'viewer')$$),
	run_as(2, :app, $$SELECT partner_portal.change_portal_user(1, 'ann@example.com', 'viewer')$$), run_as(5, :app, $$SELECT partner_portal.change_portal_user(1, 'ann@example.com', 'editor')$$),
	run_as(1, :app, $$SELECT partner_portal.change_portal_user(1, 'ann@example.com', 'owner')$$), run_as(1, :app, $$SELECT partner_portal.change_portal_user(1, 'ann@example.com', attributes => NULL)$$);
SELECT run_as(1, :app, $$SELECT i.role FROM partner_portal.invite_portal_user(1, 'late@example.com', 'viewer', '{"tenant": "T-1"}') i$$);
SELECT run_as(1, :app, $$SELECT (u.state, u.role, u.attributes) FROM partner_portal.change_portal_user(1, 'LATE@example.com', 'editor', '{"level": 3}') u$$);
SELECT i.token AS late_token FROM partner_portal.resend_invitation((SELECT invitation_id FROM partner_portal.invitation WHERE email = 'late@example.com')) i \gset
SELECT run_as(NULL, :app, format('SELECT (a.account_id) FROM partner_portal.accept_invitation(%L) a', :'late_token'));
SELECT in_portal(7, 1, $$SELECT (partner_portal.attribute('tenant'), partner_portal.attribute('level'))$$);
-- label and required by plain UPDATE; dropped with its values
SELECT run_as(1, :app, $$UPDATE partner_portal.portal_attribute SET label = 'Stufe', required = true WHERE technical_name = 'level' RETURNING label$$), run_as(1, :app, $$UPDATE partner_portal.portal_attribute SET type = 'string'$$),
	run_as(4, :app, $$WITH u AS (UPDATE partner_portal.portal_attribute SET label = 'x' RETURNING 1) SELECT count(*) FROM u$$);
SELECT run_as(1, :app, $$SELECT partner_portal.drop_attribute(1, 'level')$$), run_as(1, :app, $$SELECT partner_portal.drop_attribute(1, 'level')$$), run_as(2, :app, $$SELECT partner_portal.drop_attribute(1, 'tenant')$$), run_as(1, :app, $$SELECT partner_portal.drop_attribute(1, NULL)$$);
SELECT in_portal(7, 1, $$SELECT (partner_portal.attribute('tenant'), partner_portal.attribute('level'))$$);
-- removed; disabled; erased
SELECT run_as(1, :app, $$SELECT partner_portal.remove_portal_user(1, 'late@example.com')$$), run_as(1, :app, $$SELECT partner_portal.remove_portal_user(1, 'late@example.com')$$), run_as(4, :app, $$SELECT partner_portal.remove_portal_user(1, 'ann@example.com')$$);
SELECT in_portal(7, 1, 'SELECT 1');
SELECT run_as(1, :app, $$SELECT i.role FROM partner_portal.invite_portal_user(1, 'gone@example.com', 'viewer', '{"tenant": "T-1"}') i$$), run_as(1, :app, $$SELECT partner_portal.remove_portal_user(1, 'Gone@example.com')$$);
SELECT state FROM partner_portal.invitation WHERE email = 'gone@example.com';
SELECT (partner_portal.disable_account(6)).account_id;
SELECT details <> '{}' AS told, state FROM partner_portal.invitation WHERE account_id = 6;
SELECT run_as(1, :app, 'SELECT string_agg(concat_ws($$ $$, email, role, state), $$, $$ ORDER BY email) FROM partner_portal.portal_user');
SELECT (partner_portal.erase_account(6)).account_id;
SELECT email = 'erased-' || invitation_id || '@erased.invalid' AS erased, details, state FROM partner_portal.invitation WHERE account_id = 6;
SELECT count(*) FROM partner_portal.portal_account WHERE account_id = 6;
-- an invitation of a portal that is gone
SELECT i.token AS orphan_token FROM partner_portal.invite_portal_user(2, 'orphan@example.com', 'viewer') i \gset
SELECT run_as(2, :app, 'SELECT partner_portal.delete_portal(2)');
SELECT run_as(NULL, :app, format('SELECT (a.account_id) FROM partner_portal.accept_invitation(%L) a', :'orphan_token'));
SELECT state FROM partner_portal.invitation WHERE email = 'orphan@example.com';
