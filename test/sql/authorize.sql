\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept authorize
\i :begin
-- Every person times every permission times every workspace, against the specification's matrix.
-- workspaces: 1 partner P1, 2 partner P2, 3 and 4 customers of P1, 5 customer of P2, 6 direct, 7 deleted customer of P1; 99 is none
-- 8 partner P8, whom 3 granted complete access with read, 4 with manage, 5 limited access, 6 complete but ended, 1 complete but expired, 2 offered
INSERT INTO partner_portal.account (email, name) SELECT n || '@example.com', n FROM unnest(ARRAY[
	'p1_owner', 'p1_admin', 'p1_member', 'p1_guest', 'p1_account_owner', 'p1_system_admin', 'c3_owner', 'c3_admin', 'c3_member', 'c3_guest',
	'c3_pending', 'p2_owner', 'c5_owner', 'd6_owner', 'operator', 'stranger', 'c7_owner', 'p1_admin_and_staff', 'several',
	'p8_owner', 'p8_admin', 'p8_member']) WITH ORDINALITY AS t (n, i) ORDER BY i;
UPDATE partner_portal.account SET is_operator = true WHERE name = 'operator';
INSERT INTO partner_portal.partner (partner_id, registration_code) VALUES (1, 'code-of-p1'), (2, 'code-of-p2'), (8, 'code-of-p8');
INSERT INTO partner_portal.workspace (kind, partner_id, company_name, slug, anchor_date, deleted_at) VALUES
	('partner', NULL, 'P1', 'p1', '2026-01-01', NULL), ('partner', NULL, 'P2', 'p2', '2026-01-01', NULL),
	('business', 1, 'C3', 'c3', '2026-01-01', NULL), ('business', 1, 'C4', 'c4', '2026-01-01', NULL),
	('business', 2, 'C5', 'c5', '2026-01-01', NULL), ('business', NULL, 'D6', 'd6', '2026-01-01', NULL),
	('business', 1, 'C7', 'c7', '2026-01-01', '2026-02-01'), ('partner', NULL, 'P8', 'p8', '2026-01-01', NULL);
INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at)
	SELECT v.workspace_id, a.account_id, w.partner_key, v.role, CASE WHEN v.person <> 'c3_pending' THEN now() END
	FROM (VALUES (1, 'p1_owner', 'owner'), (1, 'p1_admin', 'administrator'), (1, 'p1_member', 'member'), (1, 'p1_guest', 'guest'),
		(1, 'p1_account_owner', 'member'), (1, 'p1_system_admin', 'member'), (1, 'p1_admin_and_staff', 'administrator'),
		(3, 'c3_owner', 'owner'), (3, 'c3_admin', 'administrator'), (3, 'c3_member', 'member'), (3, 'c3_guest', 'guest'), (3, 'c3_pending', 'owner'),
		(2, 'p2_owner', 'owner'), (5, 'c5_owner', 'owner'), (6, 'd6_owner', 'owner'), (7, 'c7_owner', 'owner'),
		(8, 'p8_owner', 'owner'), (8, 'p8_admin', 'administrator'), (8, 'p8_member', 'member'),
		(3, 'several', 'administrator'), (6, 'several', 'owner'), (2, 'several', 'member')) AS v (workspace_id, person, role)
	JOIN partner_portal.account a ON a.name = v.person JOIN partner_portal.workspace w USING (workspace_id);
INSERT INTO partner_portal.staff (workspace_id, account_id, partner_key, role)
	SELECT v.workspace_id, a.account_id, 1, v.role
	FROM (VALUES (3, 'p1_account_owner', 'account_owner'), (3, 'p1_system_admin', 'system_administrator'),
		(3, 'p1_admin_and_staff', 'account_owner')) AS v (workspace_id, person, role)
	JOIN partner_portal.account a ON a.name = v.person;
INSERT INTO partner_portal.access_grant (workspace_id, partner_id, scope, categories, wallet, rights, state, expires_at, accepted_at, ended_at) VALUES
	(3, 8, 'complete', '{}', false, '{read}', 'active', NULL, now(), NULL),
	(4, 8, 'complete', '{}', false, '{manage}', 'active', now() + interval '1 year', now(), NULL),
	(5, 8, 'limited', '{server}', NULL, '{manage,read}', 'active', NULL, now(), NULL),
	(6, 8, 'complete', '{}', false, '{manage,read}', 'ended', NULL, now(), now()),
	(1, 8, 'complete', '{}', false, '{manage,read}', 'active', now(), now() - interval '1 day', NULL),
	(2, 8, 'complete', '{}', false, '{manage,read}', 'offered', NULL, NULL, NULL);
-- the specification's matrix; own_partner is an owner or administrator of the partner on its own workspace
CREATE TABLE matrix (permission text, who text[]);
INSERT INTO matrix VALUES
	('read', '{owner,administrator,member,partner,account_owner,system_administrator,grant_read,grant_manage}'),
	('manage_keys', '{owner,administrator,partner,system_administrator,grant_manage}'),
	('set_limit', '{partner}'),
	('manage_settings', '{owner,administrator,partner,account_owner}'),
	('manage_billing', '{owner,partner}'),
	('manage_people', '{owner,administrator,account_owner}'),
	('manage_products', '{owner,administrator,system_administrator,grant_manage}'),
	('grant_access', '{owner}'),
	('delete_workspace', '{owner,partner}'),
	('restore_workspace', '{partner}'),
	('purge', '{}'),
	('suspend', '{partner}'),
	('bill', '{partner,own_partner}'),
	('manage_portals', '{own_partner}'),
	('read_activity', '{owner,administrator,partner,account_owner}');
-- how each person stands to each workspace that it can see at all
CREATE TABLE standing (person text, acting bigint, workspace_id bigint, who text[]);
INSERT INTO standing VALUES
	('p1_owner', NULL, 1, '{owner,own_partner}'), ('p1_owner', NULL, 3, '{partner}'), ('p1_owner', NULL, 4, '{partner}'), ('p1_owner', NULL, 7, '{partner}'),
	('p1_admin', NULL, 1, '{administrator,own_partner}'), ('p1_admin', NULL, 3, '{partner}'), ('p1_admin', NULL, 4, '{partner}'), ('p1_admin', NULL, 7, '{partner}'),
	('p1_member', NULL, 1, '{member}'), ('p1_guest', NULL, 1, '{guest}'),
	('p1_account_owner', NULL, 1, '{member}'), ('p1_account_owner', NULL, 3, '{account_owner}'),
	('p1_system_admin', NULL, 1, '{member}'), ('p1_system_admin', NULL, 3, '{system_administrator}'),
	('p1_admin_and_staff', NULL, 1, '{administrator,own_partner}'), ('p1_admin_and_staff', NULL, 3, '{partner,account_owner}'),
	('p1_admin_and_staff', NULL, 4, '{partner}'), ('p1_admin_and_staff', NULL, 7, '{partner}'),
	('c3_owner', NULL, 3, '{owner}'), ('c3_admin', NULL, 3, '{administrator}'), ('c3_member', NULL, 3, '{member}'), ('c3_guest', NULL, 3, '{guest}'),
	('p2_owner', NULL, 2, '{owner,own_partner}'), ('p2_owner', NULL, 5, '{partner}'),
	('c5_owner', NULL, 5, '{owner}'), ('d6_owner', NULL, 6, '{owner}'),
	('p8_owner', NULL, 8, '{owner,own_partner}'), ('p8_owner', NULL, 3, '{grant_read}'), ('p8_owner', NULL, 4, '{grant_manage}'), ('p8_owner', NULL, 5, '{grant_limited}'),
	('p8_admin', NULL, 8, '{administrator,own_partner}'), ('p8_admin', NULL, 3, '{grant_read}'), ('p8_admin', NULL, 4, '{grant_manage}'), ('p8_admin', NULL, 5, '{grant_limited}'),
	('p8_member', NULL, 8, '{member}'),
	('several', 3, 3, '{administrator}'), ('several', 6, 6, '{owner}'), ('several', 2, 2, '{member}');
CREATE FUNCTION attempt(account_id bigint, acting bigint, permission text, workspace_id bigint) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	IF account_id IS NULL THEN
		PERFORM partner_portal.logout();
	ELSE
		PERFORM partner_portal.login_as(account_id);
	END IF;
	IF acting IS NOT NULL THEN
		PERFORM partner_portal.act_in(acting);
	END IF;
	PERFORM partner_portal.authorize(permission, workspace_id);
	IF NOT partner_portal.may(permission, workspace_id) THEN
		RETURN 'may differs';
	END IF;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	IF SQLERRM NOT IN ('nobody is signed in', format('workspace %s not found', workspace_id), format('permission "%s" denied on workspace %s', permission, workspace_id)) THEN
		RETURN SQLERRM;
	END IF;
	RETURN SQLSTATE;
END
$$;
CREATE VIEW cell AS
	SELECT p.name AS person, p.account_id, p.acting, m.permission, w.workspace_id,
		CASE WHEN p.name IS NULL THEN '42501'
			WHEN p.name = 'operator' THEN CASE WHEN w.workspace_id = 99 THEN 'P0002' ELSE 'ok' END
			WHEN s.who IS NULL THEN 'P0002'
			WHEN s.who && m.who THEN 'ok'
			ELSE '42501' END AS expected
	FROM (SELECT a.name, a.account_id, NULL::bigint AS acting FROM partner_portal.account a
		UNION ALL SELECT a.name, a.account_id, x FROM partner_portal.account a, unnest(ARRAY[2, 3, 6]::bigint[]) x WHERE a.name = 'several'
		UNION ALL SELECT NULL, NULL, NULL) p
	CROSS JOIN matrix m
	CROSS JOIN unnest(ARRAY[1, 2, 3, 4, 5, 6, 7, 8, 99]::bigint[]) AS w (workspace_id)
	LEFT JOIN standing s ON s.person = p.name AND s.workspace_id = w.workspace_id AND s.acting IS NOT DISTINCT FROM p.acting;
CREATE TABLE tried AS SELECT *, ''::text AS result FROM cell;
GRANT SELECT, UPDATE ON tried TO regress_trusted;
SET ROLE regress_trusted;
BEGIN;
UPDATE tried SET result = attempt(account_id, acting, permission, workspace_id);
COMMIT;
RESET ROLE;
SELECT person, acting, permission, workspace_id, expected, result FROM tried WHERE result <> expected ORDER BY 1, 2, 3, 4;
SELECT expected, count(*), count(*) FILTER (WHERE result = expected) AS as_expected FROM tried GROUP BY 1 ORDER BY 1;
-- the matrix of the extension has no other permissions, and policies agree with authorize() about reading
CREATE TABLE seen (person text, acting bigint, workspace_id bigint);
GRANT INSERT ON seen TO regress_trusted;
GRANT SELECT ON tried TO regress_trusted;
SET ROLE regress_trusted;
DO $$
DECLARE
	p record;
BEGIN
	FOR p IN SELECT DISTINCT person, account_id, acting FROM tried WHERE account_id IS NOT NULL LOOP
		PERFORM partner_portal.login_as(p.account_id);
		IF p.acting IS NOT NULL THEN
			PERFORM partner_portal.act_in(p.acting);
		END IF;
		INSERT INTO seen SELECT p.person, p.acting, w.workspace_id FROM partner_portal.workspace w;
	END LOOP;
END
$$;
RESET ROLE;
SELECT coalesce(t.person, s.person) AS person, coalesce(t.acting, s.acting) AS acting, coalesce(t.workspace_id, s.workspace_id) AS workspace_id, t.result, s.person IS NOT NULL AS seen
	FROM (SELECT * FROM tried WHERE permission = 'read' AND account_id IS NOT NULL) t
	FULL JOIN seen s ON s.person = t.person AND s.acting IS NOT DISTINCT FROM t.acting AND s.workspace_id = t.workspace_id
	WHERE (t.result = 'ok') IS DISTINCT FROM (s.person IS NOT NULL);
SELECT count(*) AS rows_seen FROM seen;
-- the operator who is a superuser with nobody signed in
SELECT count(*) AS permissions FROM matrix m, LATERAL (SELECT partner_portal.authorize(m.permission, 3)) x;
SELECT partner_portal.is_operator();
SET ROLE regress_app;
SELECT partner_portal.is_operator();
RESET ROLE;
-- nor is a superuser the operator once somebody is signed in
BEGIN;
SELECT partner_portal.login_as(7);
SELECT partner_portal.is_operator(), partner_portal.may('purge', 3), partner_portal.may('read', 3);
COMMIT;
-- wrong questions
CREATE FUNCTION ask(permission text, workspace_id bigint) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM partner_portal.authorize(permission, workspace_id);
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ': ' || SQLERRM;
END
$$;
SELECT ask('Read', 3), ask(NULL, 3), ask('read', NULL), ask('read', 99), ask('read', -1), ask('read', 0) \gx
SET ROLE regress_app;
SELECT ask('Read', 3), ask(NULL, 3), ask('read', NULL), ask('nothing', NULL), ask('read', 3), ask('read', 99), ask(repeat('é', 1000), 3) \gx
SELECT partner_portal.may('read', 3), partner_portal.may('read', NULL), partner_portal.may(NULL, 3);
\set VERBOSITY sqlstate
SELECT partner_portal.may('nothing', 3);
