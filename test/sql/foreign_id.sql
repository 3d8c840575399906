\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept foreign_id
\i :begin
-- Every function that an application may call and that takes the id of something is called with the id of another tenant's,
-- and with one that there is not; every other id in the call is one's own. Both must end alike: nothing returned, nothing done,
-- the same refusal but for the id. The functions and their arguments are read from the catalog: a new function is tried by
-- itself, and a new kind of id without an entry in id_of is named. Addresses are tried like ids.
-- workspaces: 770001 partner P1, 770002 partner P2, 770003 customer of P1, 770004 customer of P2, 770005 direct, granted P2 everything
\set QUIET on
DO $$
DECLARE
	one record;
BEGIN
	-- numbers that are told from any other, and from those of another kind
	FOR one IN SELECT c.oid::regclass AS name, row_number() OVER (ORDER BY c.relname COLLATE "C") AS n FROM pg_class c WHERE c.relnamespace = 'partner_portal'::regnamespace AND c.relkind = 'S' LOOP
		EXECUTE format('ALTER SEQUENCE %s RESTART %s', one.name, 500001 + 10000 * one.n);
	END LOOP;
END
$$;
ALTER SEQUENCE partner_portal.workspace_workspace_id_seq RESTART 770001;
ALTER SEQUENCE partner_portal.account_account_id_seq RESTART 880001;
INSERT INTO partner_portal.account (email) SELECT n || '@example.com'
	FROM unnest(ARRAY['p1', 'p2', 'c3', 'c4', 'd5', 'p1_member', 'p2_member', 'c3_member', 'c4_member', 'viewer1', 'viewer2']) WITH ORDINALITY AS t (n, i) ORDER BY i;
INSERT INTO partner_portal.partner (partner_id, registration_code) VALUES (770001, 'code-of-p1'), (770002, 'code-of-p2');
INSERT INTO partner_portal.workspace (kind, partner_id, company_name, slug, created_at, billing_from, anchor_date) VALUES
	('partner', NULL, 'P1', 'p1', '2026-01-01', '2026-01-01', '2026-01-01'), ('partner', NULL, 'P2', 'p2', '2026-01-01', '2026-01-01', '2026-01-01'),
	('business', 770001, 'C3', 'c3', '2026-01-01', '2026-01-01', '2026-01-01'), ('business', 770002, 'C4', 'c4', '2026-01-01', '2026-01-01', '2026-01-01'),
	('business', NULL, 'D5', 'd5', '2026-01-01', '2026-01-01', '2026-01-01');
INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at)
	SELECT w.workspace_id, w.workspace_id + 110000, w.partner_key, 'owner', now() FROM partner_portal.workspace w;
INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at) VALUES
	(770001, 880006, 0, 'member', now()), (770002, 880007, 0, 'member', now()), (770003, 880008, 770001, 'member', now()), (770004, 880009, 770002, 'member', now());
INSERT INTO partner_portal.staff (workspace_id, account_id, partner_key, role) VALUES (770003, 880006, 770001, 'account_owner'), (770004, 880007, 770002, 'account_owner');
-- one of everything in each
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT w, 'smartphone', 'key ' || i FROM generate_series(770001, 770005) w, generate_series(1, 2) i;
INSERT INTO partner_portal.product (workspace_id, category, name) SELECT w, 'server', 'web' FROM generate_series(770001, 770005) w;
INSERT INTO partner_portal.folder (workspace_id, name) SELECT w, 'first' FROM generate_series(770001, 770005) w;
INSERT INTO partner_portal.report (workspace_id, folder_id, title) SELECT workspace_id, folder_id, 'first' FROM partner_portal.folder;
INSERT INTO partner_portal.webhook_endpoint (workspace_id, partner_key, url, events, nonce, key_version)
	SELECT workspace_id, partner_key, 'https://example.com/', '{*}', gen_random_uuid(), 1 FROM partner_portal.workspace;
SELECT partner_portal.create_portal(p, 'Portal', 'portal-' || p, '#112233', 'https://example.com/') FROM unnest(ARRAY[770001, 770002]) p \g /dev/null
INSERT INTO partner_portal.portal_account (workspace_id, portal_id, account_id, role) SELECT workspace_id, portal_id, workspace_id + 110009, 'viewer' FROM partner_portal.portal;
SELECT partner_portal.share_folder(f.folder_id, p.group_id) FROM partner_portal.portal p JOIN partner_portal.folder f USING (workspace_id) \g /dev/null
SELECT partner_portal.define_attribute(p, 'something', 'Something', 'string') FROM unnest(ARRAY[770001, 770002]) p \g /dev/null
SELECT partner_portal.create_price_plan(p, 'Standard', 'EUR', 'per_unit', unit_price => 5, minimum_minor => 100) FROM unnest(ARRAY[770001, 770002, NULL]) p \g /dev/null
SELECT partner_portal.assign_price_plan(w.workspace_id, p.plan_id, '2026-01-01') FROM partner_portal.workspace w JOIN partner_portal.price_plan p USING (partner_key) \g /dev/null
SELECT * FROM partner_portal.run_billing('2026-03-15 00:00+00') \g /dev/null
SELECT partner_portal.finalize_invoice(invoice_id) FROM partner_portal.invoice WHERE period_start = '2026-01-01' \g /dev/null
SELECT partner_portal.invite_member(w, 'someone' || w || '@example.com', 'member') FROM generate_series(770001, 770005) w \g /dev/null
SELECT partner_portal.invite_portal_user(portal_id, 'v' || workspace_id || '@example.com', 'viewer') FROM partner_portal.portal \g /dev/null
INSERT INTO partner_portal.access_grant (workspace_id, partner_id, scope, wallet, rights, state, accepted_at) VALUES
	(770003, 770001, 'complete', false, '{manage,read}', 'active', now()), (770005, 770002, 'complete', false, '{manage,read}', 'active', now());
INSERT INTO partner_portal.access_grant (workspace_id, partner_id, scope, categories, rights, state) VALUES (770004, 770002, 'limited', '{server}', '{read}', 'offered');
SELECT partner_portal.log_activity(w, 'sign_in', 'something') FROM generate_series(770001, 770005) w \g /dev/null
-- what ids an argument takes, and what each workspace has of them
CREATE TABLE id_of (argument text, workspace_id bigint, id text);
CREATE FUNCTION have(arguments text[], query text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('INSERT INTO id_of SELECT a, q.w, q.id::text FROM unnest(%L::text[]) a, (%s) q (w, id)', arguments, query);
END
$$;
SELECT have('{workspace_id}', 'SELECT workspace_id, workspace_id FROM partner_portal.workspace'),
	have('{partner_id}', 'SELECT partner_id, partner_id FROM partner_portal.partner'),
	have('{account_id,about_account_id}', 'SELECT workspace_id, account_id FROM partner_portal.member UNION SELECT workspace_id, account_id FROM partner_portal.portal_account'),
	have('{email,owner_email,account_email}', 'SELECT workspace_id, email FROM partner_portal.member JOIN partner_portal.account USING (account_id)'),
	have('{key_ids}', 'SELECT workspace_id, key_id FROM partner_portal.security_key'),
	have('{product_id,products}', 'SELECT workspace_id, product_id FROM partner_portal.product'),
	have('{folder_id}', 'SELECT workspace_id, folder_id FROM partner_portal.folder'),
	have('{report_id}', 'SELECT workspace_id, report_id FROM partner_portal.report'),
	have('{endpoint_id}', 'SELECT workspace_id, endpoint_id FROM partner_portal.webhook_endpoint'),
	have('{portal_id}', 'SELECT workspace_id, portal_id FROM partner_portal.portal'),
	have('{group_id}', 'SELECT workspace_id, group_id FROM partner_portal.portal'),
	have('{plan_id}', 'SELECT CASE partner_key WHEN 0 THEN 770005 ELSE partner_key END, plan_id FROM partner_portal.price_plan'),
	have('{invoice_id}', 'SELECT workspace_id, invoice_id FROM partner_portal.invoice'),
	have('{invitation_id}', 'SELECT workspace_id, invitation_id FROM partner_portal.invitation'),
	have('{grant_id}', 'SELECT workspace_id, grant_id FROM partner_portal.access_grant'),
	have('{notification_id}', 'SELECT workspace_id, notification_id FROM partner_portal.notification') \g /dev/null
CREATE TABLE candidate AS
	SELECT f.oid::regprocedure AS function, f.provolatile = 'v' AS volatile, a.argument, a.type, a.position::integer, a.position > f.pronargs - f.pronargdefaults AS optional
	FROM pg_proc f, unnest(f.proargnames[1:f.pronargs], f.proargtypes::regtype[]) WITH ORDINALITY AS a (argument, type, position)
	WHERE f.pronamespace = 'partner_portal'::regnamespace AND f.prokind = 'f' AND has_function_privilege('regress_trusted', f.oid, 'EXECUTE') AND f.proname <> 'login_as';
\set QUIET off
SELECT argument AS others_have_none FROM id_of GROUP BY 1 HAVING count(*) FILTER (WHERE workspace_id IN (770002, 770004, 770005)) = 0 ORDER BY 1;
-- every argument that looks like an id has an entry, but for a place in one's own log, a tax number, and amounts
SELECT argument AS without_entry, min(function::text) AS for_example FROM candidate
	WHERE (type IN ('bigint'::regtype, 'bigint[]'::regtype) OR argument ~ '_ids?$') AND argument NOT IN (SELECT i.argument FROM id_of i) GROUP BY 1 ORDER BY 1;
\set QUIET on
CREATE FUNCTION sample(name text, type regtype) RETURNS text LANGUAGE sql AS $$
	SELECT CASE type
		WHEN 'text'::regtype THEN quote_literal(coalesce('{"permission": "read", "role": "member", "url": "https://example.com/", "logout_url": "https://example.com/", "currency": "EUR", "model": "flat",
			"scope": "complete", "color": "#112233", "technical_name": "another", "type": "string", "action": "sign_in", "csv": "email,role\nx@example.com,viewer", "time_zone": "UTC"}'::jsonb ->> name, 'something'))
		WHEN 'boolean'::regtype THEN 'false' WHEN 'date'::regtype THEN '''2026-03-01'''
		WHEN 'jsonb'::regtype THEN CASE name WHEN 'lines' THEN '''[{"line": 1, "amount_minor": 1, "text": "x"}]''' ELSE '''{}''' END
		WHEN 'timestamptz'::regtype THEN '''2099-03-01''' WHEN 'tstzrange'::regtype THEN '''[2026-02-01,2026-03-01)'''
		WHEN 'text[]'::regtype THEN CASE name WHEN 'rights' THEN '''{read}''' WHEN 'categories' THEN '''{server}''' ELSE '''{*}''' END
		ELSE CASE WHEN type IN ('bigint'::regtype, 'integer'::regtype, 'numeric'::regtype) THEN '1' ELSE 'NULL' END
		END || '::' || type::text
$$;
CREATE FUNCTION written(id text, type regtype) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN type::text LIKE '%[]' THEN format('ARRAY[%L]::%s', id, type) ELSE format('%L::%s', id, type) END
$$;
CREATE TABLE try (who bigint, own bigint, function regprocedure, volatile boolean, argument text, id text, absent boolean, call text, result text);
-- Who asks, and whose the other ids in the call are: the partner, its customer, the partner's member on the customer's staff, and a user of its portal.
INSERT INTO try
	SELECT s.who, s.own, c.function, c.volatile, c.argument, i.id, i.absent,
		format(CASE WHEN c.volatile THEN 'SELECT count(*) || '' rows''' ELSE 'SELECT string_agg(r::text, '' '' ORDER BY r::text)' END
			|| ' FROM %s(%s) AS r WHERE NOT (r IS NULL) AND r::text NOT IN ('''', ''false'', ''{}'')', split_part(c.function::text, '(', 1),
			(SELECT string_agg(format('%I => %s', o.argument, CASE WHEN o.argument = c.argument THEN written(i.id, o.type)
					ELSE coalesce((SELECT written(m.id, o.type) FROM id_of m WHERE m.argument = o.argument AND m.workspace_id IN (s.own, 770001) ORDER BY m.workspace_id = s.own DESC, m.id LIMIT 1),
						sample(o.argument, o.type)) END), ', ' ORDER BY o.position)
				FROM candidate o WHERE o.function = c.function AND (NOT o.optional OR o.argument = c.argument)))
	FROM candidate c CROSS JOIN (VALUES (880001, 770001), (880001, 770003), (880003, 770003), (880006, 770001), (880006, 770003), (880010, 770001)) s (who, own)
	CROSS JOIN LATERAL (
		SELECT unnest(ARRAY[min(o.id), max(o.id)]) AS id, false AS absent FROM id_of o WHERE o.argument = c.argument AND o.workspace_id IN (770002, 770004, 770005) GROUP BY o.workspace_id
		UNION
		SELECT CASE WHEN c.argument LIKE '%email' THEN 'absent@example.com' ELSE '990099' END, true) i
	WHERE c.argument IN (SELECT argument FROM id_of);
-- calls, and takes back what it did
CREATE FUNCTION attempt(who bigint, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
	detail text;
	hint text;
BEGIN
	PERFORM partner_portal.login_as(who);
	BEGIN
		EXECUTE call INTO result;
		SET CONSTRAINTS ALL IMMEDIATE;
		RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = coalesce(result, '0 rows');
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		RETURN concat_ws(' / ', SQLSTATE || ' ' || SQLERRM, nullif(detail, ''), nullif(hint, ''));
	END;
END
$$;
GRANT ALL ON try TO regress_trusted;
SET ROLE regress_trusted;
BEGIN;
UPDATE try SET result = replace(attempt(who, call), id, 'N');
COMMIT;
RESET ROLE;
\set QUIET off
-- how many there are changes with every function
SELECT count(DISTINCT function) > 60 AS functions_tried, count(*) > 2500 AS tried, count(*) FILTER (WHERE result LIKE 'P0002%' AND NOT absent) > 1000 AS refused FROM try;
-- an id of somebody else's is told from none; accepted: a partner may ask any workspace for access, and a trusted application, which
-- vouches for addresses, learns which are taken
SELECT DISTINCT split_part(a.function::text, '(', 1) COLLATE "C" AS function, a.argument, a.who, a.own, a.result, b.result AS of_none
	FROM try a JOIN try b ON b.absent AND b.function = a.function AND b.argument = a.argument AND b.who = a.who AND b.own = a.own
	WHERE NOT a.absent AND a.result <> b.result ORDER BY 1, 2, 3, 4, 5;
-- something of somebody else's is returned, or done: an empty file, nobody's permissions on what is one's own, and what anybody may be sent
SELECT DISTINCT split_part(function::text, '(', 1) COLLATE "C" AS function, argument, who, own, left(result, 60) AS result FROM try WHERE NOT absent AND result LIKE 'ZZ000%' AND (result <> 'ZZ000 0 rows' OR volatile) ORDER BY 1, 2, 3, 4;
-- a refusal that comes from inside
SELECT DISTINCT split_part(function::text, '(', 1) COLLATE "C" AS function, argument, who, own, result FROM try WHERE result !~ '^(ZZ000|P0002|42501|22023|22004|PP00|28000|25001)' ORDER BY 1, 2, 3, 4;
