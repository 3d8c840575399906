\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept explain_access
\i :begin
-- workspaces: 1 partner, 2 its customer, 3 direct, 4 a deleted customer
INSERT INTO partner_portal.account (email) VALUES ('p_owner@example.com'), ('p_staff@example.com'), ('c_owner@example.com'), ('c_admin@example.com'),
	('pending@example.com'), ('several@example.com'), ('d_owner@example.com'), ('operator@example.com'), ('stranger@example.com'), ('gone@example.com');
UPDATE partner_portal.account SET is_operator = true WHERE account_id = 8;
INSERT INTO partner_portal.partner (partner_id, registration_code) VALUES (1, 'code-of-p');
INSERT INTO partner_portal.workspace (kind, partner_id, company_name, slug, anchor_date, deleted_at) VALUES
	('partner', NULL, 'P', 'p', '2026-01-01', NULL), ('business', 1, 'C', 'c', '2026-01-01', NULL), ('business', NULL, 'D', 'd', '2026-01-01', NULL),
	('business', 1, 'E', 'e', '2026-01-01', '2026-02-01');
INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at) VALUES
	(1, 1, 0, 'owner', now()), (1, 2, 0, 'member', now()), (2, 3, 1, 'owner', now()), (2, 4, 1, 'administrator', now()), (2, 5, 1, 'administrator', NULL),
	(2, 6, 1, 'administrator', now()), (1, 6, 0, 'administrator', now()), (3, 7, 0, 'owner', now()), (4, 3, 1, 'owner', now()), (2, 10, 1, 'member', now());
INSERT INTO partner_portal.staff (workspace_id, account_id, partner_key, role) VALUES (2, 2, 1, 'account_owner');
UPDATE partner_portal.account SET disabled_at = now() WHERE account_id = 10;
-- the operator asks about each of them
SELECT * FROM partner_portal.explain_access(1, 2);
SELECT * FROM partner_portal.explain_access(2, 2);
SELECT * FROM partner_portal.explain_access(3, 2);
SELECT * FROM partner_portal.explain_access(1, 1);
SELECT * FROM partner_portal.explain_access(7, 3);
SELECT a AS account_id, e.permission, e.allowed, e.through, e.missing
	FROM generate_series(1, 10) a, partner_portal.explain_access(a, 2) e WHERE e.permission IN ('read', 'manage_keys') ORDER BY 1, 2;
SELECT permission, allowed, through, missing FROM partner_portal.explain_access(3, 4) WHERE permission IN ('read', 'restore_workspace');
-- it says what authorize() does, of everyone and everywhere
CREATE FUNCTION differs(account bigint, workspace bigint, acting bigint DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	PERFORM partner_portal.login_as(account);
	IF acting IS NOT NULL THEN
		PERFORM partner_portal.act_in(acting);
	END IF;
	BEGIN
		RETURN (SELECT count(*) FROM partner_portal.explain_access(account, workspace) e WHERE e.allowed <> partner_portal.may(e.permission, workspace)
			OR e.allowed <> (e.through IS NOT NULL) OR e.allowed = (e.missing IS NOT NULL));
	EXCEPTION WHEN no_data_found THEN
		RETURN (SELECT 100 * count(*) FROM unnest(ARRAY['read', 'purge', 'bill']) p WHERE partner_portal.may(p, workspace));
	END;
END
$$;
SET ROLE regress_trusted;
BEGIN;
SELECT sum(differs(a, w)) AS differences, count(*) FROM unnest(ARRAY[1, 2, 3, 4, 5, 6, 7, 8, 9]) a, unnest(ARRAY[1, 2, 3, 4, 99]) w;
SELECT sum(differs(6, w, x)) AS differences, count(*) FROM unnest(ARRAY[1, 2, 3, 4, 99]) w, unnest(ARRAY[1, 2]) x;
COMMIT;
-- oneself, as one acts now
BEGIN;
SELECT partner_portal.login_as(6);
SELECT permission, allowed, through, missing FROM partner_portal.explain_access(6, 2) WHERE permission IN ('read', 'set_limit', 'purge');
SELECT partner_portal.act_in(1);
SELECT permission, allowed, through, missing FROM partner_portal.explain_access(6, 2) WHERE permission IN ('read', 'set_limit', 'manage_people');
COMMIT;
-- who may ask: those who manage the people; strangers to the workspace are all alike
CREATE TEMP TABLE asked (who int, account_id int, workspace_id int, product_id int);
INSERT INTO asked VALUES (4, 3, 2, NULL), (2, 3, 2, NULL), (4, 9, 2, NULL), (4, 7, 2, NULL), (4, 12345, 2, NULL), (4, 10, 2, NULL), (10, 10, 2, NULL),
	(1, 3, 2, NULL), (10, 3, 2, NULL), (4, 4, 3, NULL), (4, 4, 99, NULL), (4, 7, 3, NULL), (4, 7, 99, NULL), (8, 12345, 2, NULL), (8, 3, 99, NULL),
	(8, 3, 2, 1), (NULL, 3, 2, NULL), (4, NULL, 2, NULL), (4, 4, NULL, NULL), (5, 5, 2, NULL), (9, 9, 2, NULL);
CREATE FUNCTION pg_temp.ask(who bigint, account_id bigint, workspace_id bigint, product_id bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	IF who IS NULL THEN
		PERFORM partner_portal.logout();
	ELSE
		PERFORM partner_portal.login_as(who);
	END IF;
	SELECT e.allowed || ' ' || coalesce(e.through, e.missing) INTO answer FROM partner_portal.explain_access(account_id, workspace_id, product_id) e WHERE e.permission = 'read_activity';
	RETURN answer;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
BEGIN;
SELECT *, pg_temp.ask(who, account_id, workspace_id, product_id) FROM asked;
ROLLBACK;
RESET ROLE;
