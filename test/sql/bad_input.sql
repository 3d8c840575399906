\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept bad_input
\i :begin
SET client_min_messages = error;
SET datestyle = ISO;
-- a partner 1 with a customer 2 that has keys, a plan, a final invoice and drafts, and a portal; a direct workspace 3
SELECT workspace_id FROM partner_portal.create_workspace('Alpha', 'p@example.com');
SELECT partner_id FROM partner_portal.promote_to_partner(1);
SELECT w.workspace_id FROM partner_portal.partner p, partner_portal.register_workspace(p.registration_code, 'Customer', 'c@example.com', time_zone => 'Pacific/Apia') w;
SELECT workspace_id FROM partner_portal.create_workspace('Direct', 'd@example.com');
INSERT INTO partner_portal.security_key (workspace_id, kind, serial, account_id) SELECT 2, 'smartphone', 's' || i, 2 FROM generate_series(1, 3) i;
SELECT plan_id FROM generate_series(1, 2) i, partner_portal.create_price_plan(1, 'Plan ' || i, 'CHF', 'per_unit', unit_price => 5);
SELECT family_id FROM partner_portal.assign_price_plan(2, 1);
SELECT count(*) > 0 AS billed FROM partner_portal.run_billing(now() + interval '70 days');
SELECT portal_id FROM partner_portal.create_portal(1, 'Portal', 'portal', '#112233', 'https://app.example.com/');

-- what is tried for an argument of a type: nothing, nonsense and extremes
CREATE FUNCTION bad_values(type regtype) RETURNS text[] LANGUAGE sql RETURN CASE type
	WHEN 'bigint'::regtype THEN ARRAY['NULL', '0', '-1', '9223372036854775807', '(-9223372036854775808)']
	WHEN 'integer'::regtype THEN ARRAY['NULL', '0', '-1', '2147483647', '(-2147483648)']
	WHEN 'numeric'::regtype THEN ARRAY['NULL', '-1', '''NaN''', '''Infinity''', '''-Infinity''', '1e1000', '1e-1000', '0.1234567890123']
	WHEN 'text'::regtype THEN ARRAY['NULL', '''''', ''' ''', 'E''a\x01b''', 'E''a\nb''', 'repeat(''x'', 10000000)', 'repeat(E''\u00e9'', 300)', '''%s''']
	WHEN 'timestamptz'::regtype THEN ARRAY['NULL', '''infinity''', '''-infinity''', '''0001-01-01''', '''294276-12-31 23:59:59''', '''4713-01-01 BC''']
	WHEN 'date'::regtype THEN ARRAY['NULL', '''infinity''', '''-infinity''', '''0001-01-01''', '''5874897-12-31''', '''4713-01-01 BC''']
	WHEN 'tstzrange'::regtype THEN ARRAY['NULL', '''empty''', '''(,)''', '''[0001-01-01,294276-12-31)''', '''[-infinity,infinity)''', '''[2026-01-01,)''', '''(2026-01-01,2026-02-01]''']
	WHEN 'jsonb'::regtype THEN ARRAY['NULL', '''null''', '''[]''', '''[null]''', '''[[]]''', '''{"a":{"b":[1,"x",null]}}''', '''7''', '''[{"up_to":null,"unit_price":null}]''',
		'''[{"up_to":"x","unit_price":"y"}]''', '''[{"up_to":1e400,"unit_price":1e400}]''', '''[{"line":1e30,"amount_minor":1e30}]''', '''[{"line":1.5,"amount_minor":null,"text":{}}]''',
		'(repeat(''['', 3000) || repeat('']'', 3000))::jsonb']
	WHEN 'bigint[]'::regtype THEN ARRAY['NULL', '''{}''', '''{NULL}''', '''{{1,2},{3,4}}''', '''{0,-1,9223372036854775807}''', '''[5:6]={1,2}''']
	WHEN 'text[]'::regtype THEN ARRAY['NULL', '''{}''', '''{NULL}''', '''{{a,b},{c,d}}''', '''{"",x}''', 'ARRAY[repeat(''x'', 10000000)]', '''[5:6]={a,b}''']
	WHEN 'regclass'::regtype THEN ARRAY['NULL', '''0''', '''4000000000''', '''pg_class''', '''partner_portal.workspace_pkey''']
	WHEN 'regrole'::regtype THEN ARRAY['NULL', '''0''', '''4000000000''']
	WHEN 'name'::regtype THEN ARRAY['NULL', '''''', '''ctid''']
	ELSE ARRAY['NULL'] END;
-- and what its fellows are meanwhile
CREATE FUNCTION good_value(type regtype, argument text) RETURNS text LANGUAGE sql RETURN CASE
	WHEN argument IN ('workspace_id', 'plan_id') THEN '2' WHEN argument = 'key_ids' THEN '''{1,2}'''
	WHEN argument IN ('email', 'owner_email') THEN '''new@example.com''' WHEN argument = 'role' AND type = 'text'::regtype THEN '''member'''
	WHEN argument = 'currency' THEN '''CHF''' WHEN argument = 'model' THEN '''per_unit''' WHEN argument = 'measure' THEN '''distinct_keys'''
	WHEN argument = 'kind' THEN '''smartphone''' WHEN argument = 'unit_price' THEN '5' WHEN argument IN ('tiers', 'package_size') THEN 'NULL'
	WHEN argument = 'time_zone' THEN '''Europe/Zurich''' WHEN argument = 'billing_step' THEN '''month''' WHEN argument = 'slug' THEN '''a-slug'''
	WHEN argument = 'strategy' THEN '''newest''' WHEN argument = 'on_excess' THEN '''disable''' WHEN argument = 'scope' THEN '''complete'''
	WHEN argument = 'registration_code' THEN '''code''' WHEN argument = 'permission' THEN '''read''' WHEN argument LIKE '%url' THEN '''https://app.example.com/'''
	WHEN argument = 'technical_name' THEN '''name''' WHEN argument = 'color' THEN '''#aabbcc''' WHEN argument = 'as_what' THEN '''application'''
	WHEN argument = 'lines' THEN '''[{"line":1,"amount_minor":1,"text":"x"}]'''
	WHEN type = 'tstzrange'::regtype THEN '''[2020-01-01,2020-02-01)''' WHEN type = 'timestamptz'::regtype THEN '''2026-12-15''' WHEN type = 'date'::regtype THEN '''2026-12-15'''
	WHEN type IN ('bigint'::regtype, 'integer'::regtype, 'numeric'::regtype) THEN '1' WHEN type = 'text'::regtype THEN '''text''' WHEN type = 'jsonb'::regtype THEN '''{}'''
	WHEN type = 'boolean'::regtype THEN 'false' WHEN type = 'regrole'::regtype THEN '''regress_app''' WHEN type = 'text[]'::regtype THEN '''{read}''' WHEN type = 'bigint[]'::regtype THEN '''{1}'''
	ELSE 'NULL' END;
CREATE TABLE outcome (function regprocedure, who text, call text, state text, message text);
-- calls every function that some role may execute with every such value in turn, and takes back whatever it did
CREATE PROCEDURE try_all(who text, as_account bigint, as_role text) LANGUAGE plpgsql AS $$
DECLARE
	tried record;
	result text;
	message text;
BEGIN
	FOR tried IN
		SELECT p.oid::regprocedure AS function, format('SELECT count(*) FROM partner_portal.%I(%s) x', p.proname, string_agg(
			CASE WHEN a.no = v.no THEN v.value WHEN v.no = 0 THEN 'NULL' ELSE good_value(a.type, p.proargnames[a.no]) END || '::' || a.type::regtype, ', ' ORDER BY a.no)) AS call
		FROM pg_proc p
		CROSS JOIN LATERAL (SELECT 0::bigint AS no, 'NULL' AS value
			UNION ALL SELECT t.no, b.value FROM unnest(p.proargtypes) WITH ORDINALITY t (type, no), unnest(bad_values(t.type::regtype)) b (value)) v
		LEFT JOIN LATERAL unnest(p.proargtypes) WITH ORDINALITY a (type, no) ON true
		WHERE p.pronamespace = 'partner_portal'::regnamespace AND p.prokind = 'f' AND p.proname NOT IN ('login_as', 'logout')
			AND has_function_privilege(coalesce(as_role, 'regress_ops'), p.oid, 'EXECUTE')
		GROUP BY p.oid, p.proname, v.no, v.value ORDER BY p.proname, v.no
	LOOP
		BEGIN
			IF as_account IS NOT NULL THEN
				PERFORM partner_portal.login_as(as_account);
			END IF;
			IF as_role IS NOT NULL THEN
				EXECUTE format('SET LOCAL ROLE %I', as_role);
			END IF;
			EXECUTE tried.call;
			RAISE EXCEPTION USING ERRCODE = 'ZZ000';
		EXCEPTION WHEN OTHERS THEN
			result := SQLSTATE;
			message := SQLERRM;
		END;
		INSERT INTO outcome VALUES (tried.function, who, tried.call, result, left(message, 100));
	END LOOP;
END
$$;
CALL try_all('operator', NULL, NULL);
CALL try_all('partner', 1, 'regress_app');
CALL try_all('nobody', NULL, 'regress_trusted');
SELECT who, count(*) > 500 AS tried FROM outcome GROUP BY who ORDER BY who;
-- neither an error of the database's inside, nor a constraint that says what a function should have said
SELECT function, who, call, state, message FROM outcome
WHERE state ~ '^(XX|0A|21|22(003|012|P0|01)|23(502|503|514)|38|39|42601|42883|53|54|57|58|P0001)'
ORDER BY function::text, who, call;
-- who is nobody changes nothing, whatever it says
SELECT DISTINCT o.function::text FROM outcome o JOIN pg_proc p ON p.oid = o.function WHERE o.who = 'nobody' AND o.state = 'ZZ000' AND p.provolatile = 'v' ORDER BY 1;
-- functions that change anything and take an instant beyond reason, or a text of 10 MB: all are harmless
SELECT DISTINCT o.function::text FROM outcome o JOIN pg_proc p ON p.oid = o.function WHERE o.state = 'ZZ000' AND p.provolatile = 'v' AND o.call ~ 'infinity|294276|0001-|5874897|BC|10000000' ORDER BY 1;

-- what stands on documents and in mails has no control characters; an issuer is a partner
\set VERBOSITY sqlstate
SELECT partner_portal.create_price_plan(1, E'a\nb', 'CHF', 'per_unit', unit_price => 5);
SELECT partner_portal.revise_price_plan(2, 'per_unit', unit_price => 5, name => E'a\x01b');
SELECT partner_portal.set_invoice_issuer(1, E'a\nb');
SELECT partner_portal.set_invoice_issuer(1, address => E'a\x01b');
SELECT address FROM partner_portal.set_invoice_issuer(1, address => E'a\nb');
SELECT partner_portal.set_invoice_issuer(1, tax_id => E'a\nb');
SELECT partner_portal.set_invoice_issuer(3, 'no partner');
SELECT partner_portal.set_invoice_issuer(4242, 'nobody');
SELECT partner_portal.void_invoice(1, E'a\x01b');
SELECT partner_portal.credit_invoice(1, '[{"line":1,"amount_minor":1,"text":"a\u0001b"}]', 'goodwill');
SELECT partner_portal.mark_paid(1, reference => E'a\x01b');
SELECT partner_portal.set_invoice_tax(1, 1, E'a\x01b');
SELECT partner_portal.import_key_activity(2, 1, '[2020-01-01,2020-02-01)', E'a\x01b');

-- internal functions refuse NULL too
SELECT partner_portal.csv_lines(NULL);
SELECT partner_portal.disable_keys(2, NULL, NULL, NULL);
SELECT partner_portal.note_refusal(NULL, NULL, NULL);
SELECT partner_portal.note_refusal('x', 'y', NULL);
SELECT partner_portal.write_activity(2, NULL, NULL, NULL, NULL);
SELECT partner_portal.checked_text(NULL, NULL, NULL);
SELECT partner_portal.measure_stretches(now(), now() + interval '1 day', NULL, 1, 1, now(), now());
SELECT count(*) FROM partner_portal.verify();
