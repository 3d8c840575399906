\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept workspace
\i :begin
\i :as
-- partner 1, customer 2, direct 3, partner 4. Accounts 1 to 4 own them; 5 administrator and 6 member of 2; 7 account owner and
-- 8 system administrator of partner 1 for 2; 9 the operator's
SELECT (partner_portal.create_workspace('p1', 'p1@example.com')).workspace_id;
SELECT (partner_portal.promote_to_partner(1)).partner_id;
SELECT (partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner), 'Customer', 'c2@example.com')).workspace_id;
SELECT (partner_portal.create_workspace(n, n || '@example.com')).workspace_id FROM unnest(ARRAY['d3', 'p4']) AS n;
SELECT (partner_portal.promote_to_partner(4)).partner_id;
SELECT (partner_portal.add_member(2, 'a5@example.com', 'administrator')).account_id, (partner_portal.add_member(2, 'm6@example.com', 'member')).account_id;
SELECT (partner_portal.add_member(1, 's' || n || '@example.com', 'member')).account_id FROM generate_series(7, 8) AS n;
SELECT (partner_portal.assign_staff(2, 7, 'account_owner')).role, (partner_portal.assign_staff(2, 8, 'system_administrator')).role;
INSERT INTO partner_portal.account (email, is_operator) VALUES ('operator@example.com', true);

-- every person times every column: y changed, n refused with 42501 and the column's name, 0 no row to change; the column grants of
-- an application keep the rest away
CREATE TABLE change (ordinal int GENERATED ALWAYS AS IDENTITY, name text, value text);
INSERT INTO change (name, value) VALUES ('company_name', '''Changed'''), ('slug', '''changed'''), ('address', '''Street 1'''), ('sso_enabled', 'NOT sso_enabled'),
	('notify_new_keys', 'NOT notify_new_keys'), ('notify_billing', 'NOT notify_billing'), ('restrict_keys', 'NOT restrict_keys'), ('key_limit', '7'),
	('limit_mode', '''soft'''), ('time_zone', '''Asia/Tokyo'''), ('anchor_date', '''2020-02-29'''), ('billing_step', '''year'''), ('tax_id', '''T1'''),
	('invoice_visibility', '''both'''), ('billing_from', '''2020-01-01 00:00+00'''), ('auto_finalize', 'NOT auto_finalize'),
	('kind', '''partner'''), ('partner_id', 'CASE workspace_id WHEN 2 THEN 4 ELSE 1 END'), ('created_at', 'created_at - interval ''1 day'''),
	('deleted_at', 'now()'), ('suspended_at', 'now()'), ('suspended_reason', '''x'''), ('purged_at', 'now()');
SELECT 'untested: ' || attname FROM pg_attribute WHERE attrelid = 'partner_portal.workspace'::regclass AND attnum > 0
	AND attname NOT IN (SELECT name FROM change) AND attname NOT IN ('workspace_id', 'partner_key');
-- changes nothing in the end
CREATE FUNCTION try(account_id bigint, role text, workspace_id bigint, name text, value text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	BEGIN
		answer := run_as(account_id, role, format('WITH u AS (UPDATE partner_portal.workspace SET %I = %s WHERE workspace_id = %s RETURNING 1) SELECT count(*) FROM u', name, value, workspace_id));
		RAISE EXCEPTION 'undo';
	EXCEPTION WHEN raise_exception THEN
		NULL;
	END;
	RETURN CASE WHEN answer = '1' THEN 'y' WHEN answer = format('42501 permission denied to change column "%s" of workspace %s', name, workspace_id) THEN 'n'
		WHEN answer = '42501 permission denied for table workspace' THEN '-' ELSE answer END;
END
$$;
CREATE FUNCTION row_of(account_id bigint, role text, workspace_id bigint) RETURNS text
	RETURN (SELECT string_agg(try(account_id, role, workspace_id, name, value), ' ' ORDER BY ordinal) FROM change);
SELECT string_agg(name, ' ' ORDER BY ordinal) FROM change;
SELECT 'customer''s owner         ' || row_of(2, 'regress_app', 2);
SELECT 'customer''s administrator ' || row_of(5, 'regress_app', 2);
SELECT 'customer''s member        ' || row_of(6, 'regress_app', 2);
SELECT 'partner                  ' || row_of(1, 'regress_app', 2);
SELECT 'account owner            ' || row_of(7, 'regress_app', 2);
SELECT 'system administrator     ' || row_of(8, 'regress_app', 2);
SELECT 'another partner          ' || row_of(4, 'regress_app', 2);
SELECT 'nobody                   ' || row_of(NULL, 'regress_app', 2);
SELECT 'partner, itself          ' || row_of(1, 'regress_app', 1);
SELECT 'direct''s owner           ' || row_of(3, 'regress_app', 3);
SELECT 'operator''s account       ' || row_of(9, 'regress_app', 2);
-- a superuser: the operator with nobody signed in; with somebody signed in, what that one may
SELECT 'operator                 ' || row_of(NULL, NULL, 3);
SELECT 'superuser as owner of 2  ' || row_of(2, NULL, 2);

-- an update that changes nothing is nobody's matter; one refused column refuses the whole row
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET key_limit = key_limit, time_zone = 'UTC' WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET company_name = 'Mine', key_limit = 5 WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET company_name = 'Mine', tax_id = NULL WHERE workspace_id = 2 RETURNING company_name$$);
-- values
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET company_name = E'Two\nlines' WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET company_name = '' WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET company_name = NULL WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET company_name = repeat('x', 10000000) WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET address = E'Street 1\nTown' WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET address = E'Street\t1' WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET address = repeat('x', 10000000) WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET tax_id = E'CHE\r\nBcc: x' WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET slug = 'Not a slug' WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET slug = repeat('x', 10000000) WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET slug = 'p1' WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET time_zone = 'Mars/Olympus' WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET anchor_date = 'infinity' WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET anchor_date = NULL WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET billing_step = 'week' WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(2, :app, $$UPDATE partner_portal.workspace SET invoice_visibility = 'all' WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(1, :app, $$UPDATE partner_portal.workspace SET key_limit = -1 WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(1, :app, $$UPDATE partner_portal.workspace SET limit_mode = 'none' WHERE workspace_id = 2 RETURNING workspace_id$$);
SELECT run_as(1, :app, $$UPDATE partner_portal.workspace SET billing_from = 'infinity' WHERE workspace_id = 2 RETURNING workspace_id$$);
-- the trigger is a trigger, for rows, before
SELECT run_as(NULL, NULL, 'SELECT partner_portal.guard_workspace()');
CREATE TRIGGER after_all AFTER UPDATE ON partner_portal.workspace FOR EACH ROW EXECUTE FUNCTION partner_portal.guard_workspace();
SELECT run_as(NULL, NULL, $$UPDATE partner_portal.workspace SET company_name = 'x' WHERE workspace_id = 3 RETURNING workspace_id$$);
DROP TRIGGER after_all ON partner_portal.workspace;
-- no application inserts or deletes
SELECT run_as(1, :app, $$INSERT INTO partner_portal.workspace (company_name, slug, anchor_date) VALUES ('x', 'x', '2026-01-01') RETURNING 1$$);
SELECT run_as(1, :app, $$DELETE FROM partner_portal.workspace RETURNING 1$$);
-- a restored row stays as it was
SET partner_portal.restoring = on;
SELECT run_as(NULL, NULL, $$INSERT INTO partner_portal.workspace (company_name, slug, anchor_date) VALUES (E'Two\nlines', 'restored', '2026-01-01') RETURNING workspace_id$$);
SELECT run_as(2, NULL, $$UPDATE partner_portal.workspace SET key_limit = 5 WHERE workspace_id = 2 RETURNING workspace_id$$);
RESET partner_portal.restoring;
SELECT run_as(NULL, NULL, $$INSERT INTO partner_portal.workspace (company_name, slug, anchor_date) VALUES (E'Two\nlines', 'inserted', '2026-01-01') RETURNING workspace_id$$);
