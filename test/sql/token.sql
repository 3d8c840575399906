\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set configure :abs_srcdir '/sql/configure.sql'
\set asked no
\set concept token
\i :begin
-- Tokens, good and bad, and the files of their keys (src/token.c, src/jwks.c, src/signature.c, src/json.c).
-- making tokens: HMAC-SHA-256 (RFC 2104) and base64url
CREATE SCHEMA jwt;
GRANT USAGE ON SCHEMA jwt TO regress_app;
CREATE FUNCTION jwt.hmac(key bytea, data bytea) RETURNS bytea LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	inner_pad bytea := decode(repeat('36', 64), 'hex');
	outer_pad bytea := decode(repeat('5c', 64), 'hex');
BEGIN
	FOR i IN 0..length(key) - 1 LOOP
		inner_pad := set_byte(inner_pad, i, get_byte(key, i) # 54);
		outer_pad := set_byte(outer_pad, i, get_byte(key, i) # 92);
	END LOOP;
	RETURN sha256(outer_pad || sha256(inner_pad || data));
END
$$;
CREATE FUNCTION jwt.b64(data bytea) RETURNS text LANGUAGE sql IMMUTABLE AS
$$SELECT translate(encode(data, 'base64'), E'+/=\n', '-_')$$;
CREATE FUNCTION jwt.secret(name text) RETURNS bytea LANGUAGE sql IMMUTABLE AS
$$SELECT sha256(convert_to('secret ' || name, 'UTF8'))$$;
-- a token of any header and claims, in bytes
CREATE FUNCTION jwt.sign(header bytea, claims bytea, secret bytea) RETURNS text LANGUAGE sql IMMUTABLE AS
$$SELECT part || '.' || jwt.b64(jwt.hmac(secret, convert_to(part, 'UTF8'))) FROM (SELECT jwt.b64(header) || '.' || jwt.b64(claims)) AS p (part)$$;
-- a token of account 1 that expires in a minute, with other claims or without some
CREATE FUNCTION jwt.token(claims jsonb DEFAULT '{}', header jsonb DEFAULT '{"alg": "HS256"}', secret text DEFAULT 'a') RETURNS text LANGUAGE sql VOLATILE AS
$$SELECT jwt.sign(convert_to(header::text, 'UTF8'),
	convert_to(jsonb_strip_nulls(jsonb_build_object('sub', '1', 'exp', floor(extract(epoch FROM now())) + 60) || claims)::text, 'UTF8'), jwt.secret(secret))$$;
CREATE FUNCTION jwt.seconds(difference int) RETURNS numeric LANGUAGE sql STABLE AS
$$SELECT floor(extract(epoch FROM now())) + difference$$;
-- what login() says: the account, or the error with all that comes with it
CREATE FUNCTION jwt.try(token text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text; message text; detail text; hint text; context text;
BEGIN
	RETURN 'account ' || partner_portal.login(token) || coalesce(' in ' || partner_portal.current_workspace_id(), '');
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
	RETURN concat_ws(' ', state, message, nullif(detail, ''), nullif(hint, ''), CASE WHEN strpos(context, left(token, 8)) > 0 AND token <> '' THEN 'THE TOKEN IS IN THE CONTEXT' END);
END
$$;
-- the same for all rows: the different answers
CREATE TABLE jwt.bad (name text, token text);
CREATE FUNCTION jwt.answers() RETURNS TABLE (answer text, tokens bigint, names text) LANGUAGE sql AS
$$SELECT jwt.try(token), count(*), CASE WHEN jwt.try(token) LIKE 'account%' THEN string_agg(name, ', ' ORDER BY name) END FROM jwt.bad GROUP BY jwt.try(token) ORDER BY 1$$;
GRANT SELECT ON jwt.bad TO regress_app;

INSERT INTO partner_portal.account (email) VALUES ('anna@example.com'), ('ben@example.com'), ('cleo@example.com');
INSERT INTO partner_portal.workspace (company_name, slug, anchor_date) VALUES ('One', 'one', '2026-01-01'), ('Two', 'two', '2026-01-01'), ('Three', 'three', '2026-01-01');
INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at) VALUES (1, 1, 0, 'owner', now()), (2, 1, 0, 'owner', now()), (3, 1, 0, 'member', NULL);

-- no key file: nobody signs in
\set setting partner_portal.jwks_file
\set value 'regress_token.jwks'
\set ECHO none
\set QUIET on
\i :configure
\set QUIET off
\set ECHO all
SELECT jwt.try(jwt.token());

-- one secret
COPY (SELECT jsonb_build_object('keys', jsonb_build_array(jsonb_build_object('kty', 'oct', 'kid', 'a', 'alg', 'HS256', 'k', jwt.b64(jwt.secret('a')))))) TO PROGRAM 'umask 077; cat > regress_token.jwks';
SET ROLE regress_app;
SELECT jwt.try(jwt.token());
SELECT jwt.try(jwt.token('{}', '{"alg": "HS256", "kid": "a", "typ": "JWT"}'));
SELECT jwt.try(jwt.token('{"workspace": 2}')), jwt.try(jwt.token('{"workspace": "2"}'));
-- a token that picks a portal acts in it, and in no workspace
RESET ROLE;
INSERT INTO partner_portal.partner (partner_id, registration_code) VALUES (2, 'code-of-2');
INSERT INTO partner_portal.portal (workspace_id, name, technical_name, color, logout_url) SELECT 2, 'Portal', n, '#123456', 'https://example.com/' FROM unnest(ARRAY['one', 'two']) AS n;
INSERT INTO partner_portal.portal_account (workspace_id, portal_id, account_id, role) VALUES (2, 1, 1, 'viewer');
SET ROLE regress_app;
BEGIN;
SELECT partner_portal.login(jwt.token('{"portal": 1}'));
SELECT partner_portal.current_portal_id(), partner_portal.current_workspace_id(), partner_portal.current_account_id();
COMMIT;
SELECT jwt.try(jwt.token('{"portal": "1"}')), jwt.try(jwt.token('{"portal": 2}')), jwt.try(jwt.token('{"portal": 99}')), jwt.try(jwt.token('{"portal": "x"}')), jwt.try(jwt.token('{"portal": 1, "workspace": 2}'));
SELECT jwt.try(jwt.token(jsonb_build_object('exp', jwt.seconds(-20), 'nbf', jwt.seconds(20), 'iat', jwt.seconds(20)))) AS within_clock_skew;
SELECT jwt.try(jwt.token('{"exp": 32503680000.75, "aud": ["x", "y"], "iss": "anyone", "deep": [[[[[[[[{"a": {"b": [1, 2, {"c": "\u00e4 \ud83d\ude00"}]}}]]]]]]]]}')) AS harmless;
SELECT partner_portal.current_account_id() AS nobody_after_the_statement;

-- every bad token gets the same answer
RESET ROLE;
INSERT INTO jwt.bad VALUES
	('null', NULL), ('empty', ''), ('garbage', 'garbage'), ('dots', '..'), ('four parts', jwt.token() || '.x'), ('two parts', 'eyJhbGciOiJIUzI1NiJ9.e30'),
	('no signature', regexp_replace(jwt.token(), '[^.]*$', '')), ('truncated', left(jwt.token(), -5)), ('one character less', left(jwt.token(), -1)),
	('padded', jwt.token() || '='), ('with a newline', jwt.token() || E'\n'), ('with a space', ' ' || jwt.token()), ('trailing bits', overlay(jwt.token() PLACING '-' FROM length(jwt.token()))),
	('expired', jwt.token(jsonb_build_object('exp', jwt.seconds(-31)))), ('no exp', jwt.token('{"exp": null}')), ('exp is text', jwt.token('{"exp": "32503680000"}')),
	('exp is huge', jwt.token('{"exp": 1e300}')), ('exp is beyond double', jwt.sign('{"alg":"HS256"}', '{"sub":"1","exp":1e999}', jwt.secret('a'))), ('exp is negative', jwt.token('{"exp": -1e300}')),
	('exp twice', jwt.sign('{"alg":"HS256"}', '{"sub":"1","exp":32503680000,"exp":32503680000}', jwt.secret('a'))),
	('not yet valid', jwt.token(jsonb_build_object('nbf', jwt.seconds(40)))), ('nbf is text', jwt.token('{"nbf": "soon"}')),
	('issued in the future', jwt.token(jsonb_build_object('iat', jwt.seconds(40)))), ('iat is an array', jwt.token('{"iat": [1]}')),
	('another key', jwt.token('{}', '{"alg": "HS256"}', 'b')), ('another kid', jwt.token('{}', '{"alg": "HS256", "kid": "b"}')),
	('kid is a number', jwt.token('{}', '{"alg": "HS256", "kid": 1}')), ('no alg', jwt.token('{}', '{}')), ('alg none', jwt.token('{}', '{"alg": "none"}')),
	('alg none, unsigned', jwt.b64('{"alg":"none"}') || '.' || jwt.b64('{"sub":"1","exp":32503680000}') || '.'),
	('alg twice', jwt.sign('{"alg":"HS256","alg":"HS256"}', '{"sub":"1","exp":32503680000}', jwt.secret('a'))),
	('alg None', jwt.token('{}', '{"alg": "None"}')), ('alg hs256', jwt.token('{}', '{"alg": "hs256"}')), ('alg HS512', jwt.token('{}', '{"alg": "HS512"}')),
	('alg EdDSA', jwt.token('{}', '{"alg": "EdDSA"}')), ('alg ES256', jwt.token('{}', '{"alg": "ES256"}')), ('alg RS256', jwt.token('{}', '{"alg": "RS256"}')), ('alg is null', jwt.token('{}', '{"alg": null}')),
	('crit', jwt.token('{}', '{"alg": "HS256", "crit": ["exp"]}')), ('header is an array', jwt.token('{}', '["HS256"]')), ('header is huge', jwt.token('{}', jsonb_build_object('alg', 'HS256', 'x', repeat('x', 5000)))),
	('claims are an array', jwt.sign('{"alg":"HS256"}', '["sub"]', jwt.secret('a'))), ('claims are no JSON', jwt.sign('{"alg":"HS256"}', 'sub=1', jwt.secret('a'))),
	('claims are cut off', jwt.sign('{"alg":"HS256"}', '{"sub":"1","exp":32503680000', jwt.secret('a'))), ('claims and more', jwt.sign('{"alg":"HS256"}', '{"sub":"1","exp":32503680000}{}', jwt.secret('a'))),
	('not UTF-8', jwt.sign('{"alg":"HS256"}', '{"sub":"1","exp":32503680000,"x":"\377\376"}', jwt.secret('a'))), ('overlong UTF-8', jwt.sign('{"alg":"HS256"}', '{"sub":"1","exp":32503680000,"x":"\300\257"}', jwt.secret('a'))),
	('a zero byte', jwt.sign('{"alg":"HS256"}', '{"sub":"1","exp":32503680000}\000', jwt.secret('a'))), ('an escaped zero', jwt.sign('{"alg":"HS256"}', '{"sub":"1\\u0000","exp":32503680000}', jwt.secret('a'))),
	('half a surrogate', jwt.sign('{"alg":"HS256"}', '{"sub":"1","exp":32503680000,"x":"\\ud83d"}', jwt.secret('a'))),
	('deep arrays', jwt.sign('{"alg":"HS256"}', convert_to('{"sub":"1","exp":32503680000,"x":' || repeat('[', 20000) || repeat(']', 20000) || '}', 'UTF8'), jwt.secret('a'))),
	('deep objects', jwt.sign('{"alg":"HS256"}', convert_to('{"sub":"1","exp":32503680000,"x":' || repeat('{"x":', 5000) || '1' || repeat('}', 5000) || '}', 'UTF8'), jwt.secret('a'))),
	('deep header', jwt.b64(convert_to(repeat('[', 3000), 'UTF8')) || '.e30.AAAA'), ('1 MB', repeat('x', 1048576)), ('1 MB of dots', repeat('.', 1048576)),
	('1 MB signed', jwt.token(jsonb_build_object('x', repeat('x', 1048576)))), ('1 MB signature', regexp_replace(jwt.token(), '[^.]*$', repeat('A', 1048576))),
	('no sub', jwt.token('{"sub": null}')), ('sub is text', jwt.token('{"sub": "anna"}')), ('sub is nobody', jwt.token('{"sub": "99"}')), ('sub is negative', jwt.token('{"sub": "-1"}')), ('sub is huge', jwt.token('{"sub": "99999999999999999999"}')),
	('sub has a space', jwt.token('{"sub": " 1"}')), ('sub has a plus', jwt.token('{"sub": "+1"}')), ('sub is an array', jwt.token('{"sub": ["1"]}')), ('sub is true', jwt.token('{"sub": true}')), ('sub is a fraction', jwt.token('{"sub": 1.5}')),
	('aud is a number', jwt.token('{"aud": 1}')), ('aud holds a number', jwt.token('{"aud": ["x", 1]}')), ('iss is a number', jwt.token('{"iss": 1}')), ('jti is a number', jwt.token('{"jti": 1}')), ('jti is long', jwt.token(jsonb_build_object('jti', repeat('x', 1001)))),
	('workspace is not a membership', jwt.token('{"workspace": 99}')), ('workspace not accepted', jwt.token('{"workspace": 3}')), ('workspace is text', jwt.token('{"workspace": "one"}')), ('workspace is an object', jwt.token('{"workspace": {}}')),
	('a good one', jwt.token());
SET ROLE regress_app;
SELECT * FROM jwt.answers();
RESET ROLE;
-- nor does any other garbage in header or claims get another one; each time some bytes are changed, doubled or left out
CREATE FUNCTION jwt.garble(data bytea) RETURNS bytea LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	at int;
BEGIN
	FOR i IN 0..(random() * 3)::int LOOP
		at := 1 + floor(random() * (length(data) - 1))::int;
		data := CASE floor(random() * 4)
			WHEN 0 THEN set_byte(data, at, floor(random() * 256)::int)
			WHEN 1 THEN set_byte(data, at, ascii(substr('{}[]":,\u0-eE.', 1 + floor(random() * 14)::int, 1)))
			WHEN 2 THEN substr(data, 1, at) || substr(data, at)
			ELSE substr(data, 1, at - 1) || substr(data, at + 1) END;
	END LOOP;
	RETURN data;
END
$$;
SELECT setseed(0.25) \g /dev/null
SELECT count(*) AS tries, count(*) FILTER (WHERE answer !~ '^(28000 invalid token|account 1( in [12])?)$') AS other_answers,
	count(*) FILTER (WHERE answer LIKE 'account%') BETWEEN 100 AND 2000 AS some_are_harmless FROM (
	SELECT jwt.try(jwt.sign('{"alg":"HS256"}', jwt.garble('{"sub":"1","exp":32503680000,"nbf":1.5e3,"aud":["x","\\u00e4"],"workspace":2,"a":{"b":[null,true,"\\ud83d\\ude00"]}}'), jwt.secret('a'))) AS answer FROM generate_series(1, 1500)
	UNION ALL SELECT jwt.try(jwt.sign(jwt.garble('{"alg":"HS256","kid":"a","typ":"JWT"}'), '{"sub":"1","exp":32503680000}', jwt.secret('a'))) FROM generate_series(1, 500)
	UNION ALL SELECT jwt.try(encode(jwt.garble(convert_to(jwt.token(), 'UTF8')), 'escape')) FROM generate_series(1, 500)) AS g;
-- at the top level too, without a context
\set VERBOSITY default
\set SHOW_CONTEXT always
SELECT partner_portal.login('eyJhbGciOiJub25lIn0.e30.AAAA');
\set VERBOSITY terse
\set SHOW_CONTEXT errors

-- audience and issuer
\set setting partner_portal.token_audience
\set value portal
\set ECHO none
\set QUIET on
\i :configure
\set QUIET off
\set ECHO all
\set setting partner_portal.token_issuer
\set value 'https://id.example.com'
\set ECHO none
\set QUIET on
\i :configure
\set QUIET off
\set ECHO all
SELECT jwt.try(jwt.token('{"aud": "portal", "iss": "https://id.example.com"}')), jwt.try(jwt.token('{"aud": ["x", "portal"], "iss": "https://id.example.com"}'));
SELECT jwt.try(jwt.token('{"iss": "https://id.example.com"}')) AS no_audience, jwt.try(jwt.token('{"aud": "other", "iss": "https://id.example.com"}')) AS other_audience,
	jwt.try(jwt.token('{"aud": [], "iss": "https://id.example.com"}')) AS empty_audience, jwt.try(jwt.token('{"aud": "Portal", "iss": "https://id.example.com"}')) AS audience_case;
SELECT jwt.try(jwt.token('{"aud": "portal"}')) AS no_issuer, jwt.try(jwt.token('{"aud": "portal", "iss": "https://id.example.com/"}')) AS other_issuer;
\set setting partner_portal.token_audience
\set value ''
\set ECHO none
\set QUIET on
\i :configure
\set QUIET off
\set ECHO all
\set setting partner_portal.token_issuer
\set ECHO none
\set QUIET on
\i :configure
\set QUIET off
\set ECHO all

-- revocation, of one token and of all until an instant
SELECT partner_portal.revoke_token('t1', now() + interval '1 hour');
SELECT jwt.try(jwt.token('{"jti": "t1"}')), jwt.try(jwt.token('{"jti": "t2"}'));
SELECT partner_portal.revoke_token('t1', now() + interval '1 minute');
SELECT jti, until > now() + interval '59 minutes' AS not_shortened FROM partner_portal.revoked_token;
SELECT partner_portal.revoke_token('t1', now() - interval '1 hour');
SELECT partner_portal.revoke_token('', 'infinity');
SELECT partner_portal.revoke_token(NULL, 'infinity');
SELECT partner_portal.revoke_token(repeat('x', 1001), 'infinity');
SELECT partner_portal.revoke_tokens(1, now() - interval '1 minute');
SELECT jwt.try(jwt.token()) AS no_iat, jwt.try(jwt.token(jsonb_build_object('iat', jwt.seconds(-62)))) AS before, jwt.try(jwt.token(jsonb_build_object('iat', jwt.seconds(-58)))) AS after;
SELECT partner_portal.revoke_tokens(1, '2020-01-01 00:00+00');
SELECT jwt.try(jwt.token()) AS not_taken_back;
SELECT partner_portal.revoke_tokens(1, 'infinity');
SELECT partner_portal.revoke_tokens(1, '294276-01-01');
SELECT partner_portal.revoke_tokens(99);
SELECT partner_portal.revoke_tokens(NULL);
UPDATE partner_portal.account SET tokens_not_before = NULL;
-- disabled and erased accounts
UPDATE partner_portal.account SET disabled_at = now() WHERE account_id = 1;
SELECT jwt.try(jwt.token());
UPDATE partner_portal.account SET disabled_at = NULL, erased_at = now() WHERE account_id = 1;
SELECT jwt.try(jwt.token());
UPDATE partner_portal.account SET erased_at = NULL WHERE account_id = 1;

-- an identity expires between two statements of its transaction, and is nobody then, not the operator
BEGIN;
SELECT jwt.try(jwt.token(jsonb_build_object('exp', extract(epoch FROM clock_timestamp()) - 28)));
SELECT partner_portal.login(jwt.token(jsonb_build_object('exp', extract(epoch FROM clock_timestamp()) - 28)));
SELECT partner_portal.current_account_id() AS in_force;
DO $$ BEGIN WHILE clock_timestamp() < now() + interval '3 seconds' LOOP PERFORM pg_sleep(0.1); END LOOP; END $$;
SELECT partner_portal.current_account_id() AS expired, partner_portal.is_operator();
COMMIT;

-- linked identities, and the e-mail
SELECT partner_portal.link_identity(2, 'https://id.example.com', 'ben|7');
SELECT partner_portal.link_identity(2, 'https://id.example.com', 'ben|7');
SELECT partner_portal.link_identity(3, 'https://id.example.com', 'ben|7');
SELECT partner_portal.link_identity(3, 'https://id.example.com', '1');
SELECT partner_portal.link_identity(99, 'https://id.example.com', 'x');
BEGIN;
UPDATE partner_portal.account SET erased_at = now() WHERE account_id = 3;
SELECT partner_portal.link_identity(3, 'https://id.example.com', 'x');
ROLLBACK;
SELECT partner_portal.link_identity(1, '', 'x');
SELECT partner_portal.link_identity(1, NULL, 'x');
SELECT jwt.try(jwt.token('{"iss": "https://id.example.com", "sub": "ben|7"}')), jwt.try(jwt.token('{"iss": "https://id.example.com", "sub": "1"}')) AS linked_first, jwt.try(jwt.token('{"iss": "https://other.example.com", "sub": "ben|7"}')) AS other_issuer;
SELECT jwt.try(jwt.token('{"email": "ben@example.com", "email_verified": true, "sub": "x"}')) AS not_by_email;
\set setting partner_portal.subject_claim
\set value email
\set ECHO none
\set QUIET on
\i :configure
\set QUIET off
\set ECHO all
SELECT jwt.try(jwt.token('{"email": "BEN@example.com", "email_verified": true}')) AS verified, jwt.try(jwt.token('{"email": "ben@example.com", "email_verified": false}')) AS not_verified,
	jwt.try(jwt.token('{"email": "ben@example.com", "email_verified": "true"}')) AS text_is_not, jwt.try(jwt.token('{"email": "ben@example.com"}')) AS unknown, jwt.try(jwt.token()) AS none,
	jwt.try(jwt.token('{"email": "nobody@example.com", "email_verified": true}')) AS nobody, jwt.try(jwt.token('{"iss": "https://id.example.com", "sub": "1"}')) AS linked_first;
\set value account_id
\set ECHO none
\set QUIET on
\i :configure
\set QUIET off
\set ECHO all
SELECT partner_portal.unlink_identity('https://id.example.com', '1');
SELECT partner_portal.unlink_identity('https://id.example.com', '1');

-- public keys, together with the secret; RSA of 1024 bits is left out
CREATE TABLE jwt.vector (name text, token text);
INSERT INTO jwt.vector VALUES
	('EdDSA', 'eyJhbGciOiJFZERTQSIsImtpZCI6ImVkIn0.eyJzdWIiOiIxIiwiZXhwIjozMjUwMzY4MDAwMH0.ql7Ww5CHKtBc8njr-0mY82tw8aLiz2BuLiqgPIIgJN_V6UMVjBa9mmRBPtWwzKDUgY0rpk8qSOTgwCaZek4DBQ'),
	('ES256', 'eyJhbGciOiJFUzI1NiIsImtpZCI6ImVjIn0.eyJzdWIiOiIxIiwiZXhwIjozMjUwMzY4MDAwMH0.JJSloW2j0GmXxhFAjj3KZF5mAMVHOuLjknFrsGwNa9Psym8GwhJYGbB8kpZOxOdwYPV-_mjYV9ud2Plezi6HOw'),
	('RS256', 'eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJzdWIiOiIxIiwiZXhwIjozMjUwMzY4MDAwMH0.S1C6mamOAkLYFpC7iTE26LiHEu7JjG4LA7RnFjrNML4MX3fX6i23_lVq8hoRRNJfaerbt311XNMMQsuym_Y99_bsaaxmQz1YN9n_Re5dLwksw2mxH2od-gEgdj1RHYgN3JLUGR2xyg8g_G24T3A0jFrwZo95r2OooN2wPJrrXCEVl3id3PM4TxprEkXZ0BMQaFxbaKaqLeNn95kl7Le8uZqNBp51yB1-W7Zjp9hVtgEWEYsvxvNOptAZqjUMnZAtqozFzeMOzSgKx4GFVRMFXV4VzZIXYC_9dSW80_degnDMdakcFBwwa2BaVWz2yK_gIvALGshdHbB15hgivR0mpw'),
	('weak RSA', 'eyJhbGciOiJSUzI1NiIsImtpZCI6IndlYWsifQ.eyJzdWIiOiIxIiwiZXhwIjozMjUwMzY4MDAwMH0.hr5U0xTRcapesb_aLXxwrL5Wp9ahXS52PJVkgKD2Gc6ZkxwKpsw_vvVb4Y7tDabSYEuzqmjPywuo698AQaT2wsexParzQv4q_spTX68_iIGIqOeFohMy4Ix2C9l2neOTTcwWhHCiWUB8LsqDmBd_2-0U5uzuGVT6QriRYNK2Mk8');
COPY (SELECT jsonb_build_object('keys', jsonb_build_array('{"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "JpiJyb9RDZrUw2q3lWOi2RYDBrNSnFTb97VIekho3Zk"}'::jsonb, '{"kty": "EC", "crv": "P-256", "kid": "ec", "x": "MHbLQt85OnrPahFuVN4lF-kMS_Mpns6LBIV7i-4g-jQ", "y": "wpSpf7rBgtKsuoxxuSSITIH7RMKyK_L4E9FO333M-AM"}'::jsonb, '{"kty": "RSA", "kid": "rsa", "n": "tfodjvLYCukCR1zEAjMAxsIL7HFwTe40BecsYlijc63dqIaKL26jZN9_G1RNPENPW4zFVuf-8zt6u3dvAcltZeFInIsVCeVV1YCQ15Rr_s1541VG14YD1MFyFLTS_8AA4Y9oKAbvpYsyVZ4surb7VCiWJvsE9GRMPpkRQyEGpfGcpPGgXinZrSSePD1vz7Ay_g8ChWwiJ8MQXQAcAvVAAyqTYFPSl7z-bbMw9B0AsB3gQOISNF_jm-italqiEVAdWnll74D8B5BosaoPG7iAdLHze-U_cDOJL49IC38rY3IQURdqgZC94dKrdjV3d2RHhm-DSR897lzRg8VLF5NpRQ", "e": "AQAB"}'::jsonb, '{"kty": "RSA", "kid": "weak", "n": "y9zc626jP_aj7wgBWn5COSL22Kq1CNWJYCuAJyMeypI3w9xhpWxUqWHs7YmsbVbYe9kNKKoUl63mRmZ7hpEov4Gw9F8ibn3IrGsQvLInyzy7XW_0YDQPFTrpkg7w6tI2jcImajMQqbsgQjE9tfzrYEvDYIAN07A7jzt_KgPP4es", "e": "AQAB"}'::jsonb,
	'{"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}'::jsonb, '{"kty": "new"}'::jsonb,
	jsonb_build_object('kty', 'oct', 'k', jwt.b64(jwt.secret('a')))))) TO PROGRAM 'umask 077; cat > regress_token.jwks';
SELECT name, jwt.try(token) FROM jwt.vector ORDER BY name;
SELECT name, jwt.try(token) AS again FROM jwt.vector ORDER BY name;
SELECT jwt.try(jwt.token()) AS secret;
-- a verified token is refused all the same when its account is, or any byte differs
UPDATE partner_portal.account SET disabled_at = now() WHERE account_id = 1;
SELECT name, jwt.try(token) AS disabled FROM jwt.vector ORDER BY name;
UPDATE partner_portal.account SET disabled_at = NULL WHERE account_id = 1;
SELECT name, i AS part, count(*), jwt.try(changed) AS changed FROM jwt.vector, generate_series(1, 3) AS i,
	LATERAL (SELECT string_agg(CASE WHEN n = i THEN overlay(p PLACING CASE substr(p, 5, 1) WHEN 'A' THEN 'B' ELSE 'A' END FROM 5) ELSE p END, '.' ORDER BY n) AS changed FROM string_to_table(token, '.') WITH ORDINALITY AS s (p, n)) AS c
	WHERE name <> 'weak RSA' GROUP BY 1, 2, 4 ORDER BY 1, 2;
-- a public key is no secret: HS256 with the bytes of the public keys
SELECT jwt.try(jwt.sign('{"alg":"HS256","kid":"ed"}', '{"sub":"1","exp":32503680000}', decode(translate('JpiJyb9RDZrUw2q3lWOi2RYDBrNSnFTb97VIekho3Zk=', '-_', '+/'), 'base64'))) AS swapped;
SELECT jwt.try(jwt.sign('{"alg":"HS256","kid":"rsa"}', '{"sub":"1","exp":32503680000}', sha256(convert_to('-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAtfodjvLYCukCR1zEAjMA
xsIL7HFwTe40BecsYlijc63dqIaKL26jZN9/G1RNPENPW4zFVuf+8zt6u3dvAclt
ZeFInIsVCeVV1YCQ15Rr/s1541VG14YD1MFyFLTS/8AA4Y9oKAbvpYsyVZ4surb7
VCiWJvsE9GRMPpkRQyEGpfGcpPGgXinZrSSePD1vz7Ay/g8ChWwiJ8MQXQAcAvVA
AyqTYFPSl7z+bbMw9B0AsB3gQOISNF/jm+italqiEVAdWnll74D8B5BosaoPG7iA
dLHze+U/cDOJL49IC38rY3IQURdqgZC94dKrdjV3d2RHhm+DSR897lzRg8VLF5Np
RQIDAQAB
-----END PUBLIC KEY-----
', 'UTF8')))) AS swapped;
-- each key for its own algorithm only
SELECT a.name AS signed_by, b.name AS said_to_be, jwt.try(split_part(b.token, '.', 1) || '.' || split_part(a.token, '.', 2) || '.' || split_part(a.token, '.', 3))
	FROM jwt.vector a, jwt.vector b WHERE a.name <> b.name AND a.name <> 'weak RSA' AND b.name <> 'weak RSA' ORDER BY 1, 2;

-- a garbled key file is no key file, or one with fewer keys
DO $$
DECLARE
	answer text;
BEGIN
	PERFORM setseed(0.75);
	FOR i IN 1..150 LOOP
		EXECUTE format('COPY (SELECT %L) TO PROGRAM %L',
			translate(encode(jwt.garble(convert_to(jsonb_build_object('keys', jsonb_build_array('{"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "JpiJyb9RDZrUw2q3lWOi2RYDBrNSnFTb97VIekho3Zk"}'::jsonb, '{"kty": "EC", "crv": "P-256", "kid": "ec", "x": "MHbLQt85OnrPahFuVN4lF-kMS_Mpns6LBIV7i-4g-jQ", "y": "wpSpf7rBgtKsuoxxuSSITIH7RMKyK_L4E9FO333M-AM"}'::jsonb, '{"kty": "RSA", "kid": "rsa", "n": "tfodjvLYCukCR1zEAjMAxsIL7HFwTe40BecsYlijc63dqIaKL26jZN9_G1RNPENPW4zFVuf-8zt6u3dvAcltZeFInIsVCeVV1YCQ15Rr_s1541VG14YD1MFyFLTS_8AA4Y9oKAbvpYsyVZ4surb7VCiWJvsE9GRMPpkRQyEGpfGcpPGgXinZrSSePD1vz7Ay_g8ChWwiJ8MQXQAcAvVAAyqTYFPSl7z-bbMw9B0AsB3gQOISNF_jm-italqiEVAdWnll74D8B5BosaoPG7iAdLHze-U_cDOJL49IC38rY3IQURdqgZC94dKrdjV3d2RHhm-DSR897lzRg8VLF5NpRQ", "e": "AQAB"}'::jsonb))::text, 'UTF8')), 'escape'), '\', '/'),
			'umask 077; cat > regress_token.jwks');
		SELECT string_agg(DISTINCT jwt.try(token), ' ') INTO answer FROM jwt.vector;
		IF answer !~ '^(28000 invalid token|account 1| )+$' THEN
			RAISE WARNING '%', answer;
		END IF;
	END LOOP;
END
$$;

-- rotation: the new key counts at once, the old one no longer
COPY (SELECT jsonb_build_object('keys', jsonb_build_array('{"kty": "EC", "crv": "P-256", "kid": "ec", "x": "MHbLQt85OnrPahFuVN4lF-kMS_Mpns6LBIV7i-4g-jQ", "y": "wpSpf7rBgtKsuoxxuSSITIH7RMKyK_L4E9FO333M-AM"}'::jsonb, jsonb_build_object('kty', 'oct', 'k', jwt.b64(jwt.secret('b')))))) TO PROGRAM 'umask 077; cat > regress_token.jwks';
SELECT jwt.try(jwt.token()) AS old, jwt.try(jwt.token('{}', '{"alg": "HS256"}', 'b')) AS new;
SELECT name, jwt.try(token) FROM jwt.vector ORDER BY name;

-- key files that are not used: readable by others with a secret, malformed, empty, a short secret, private keys
COPY (SELECT jsonb_build_object('keys', jsonb_build_array(jsonb_build_object('kty', 'oct', 'k', jwt.b64(jwt.secret('a')))))) TO PROGRAM 'umask 022; rm -f regress_token.jwks; cat > regress_token.jwks';
SELECT jwt.try(jwt.token()) AS readable_by_others;
COPY (SELECT 1) TO PROGRAM 'chmod 600 regress_token.jwks; cat > /dev/null';
SELECT jwt.try(jwt.token()) AS private_again;
COPY (SELECT jsonb_build_object('keys', jsonb_build_array('{"kty": "EC", "crv": "P-256", "kid": "ec", "x": "MHbLQt85OnrPahFuVN4lF-kMS_Mpns6LBIV7i-4g-jQ", "y": "wpSpf7rBgtKsuoxxuSSITIH7RMKyK_L4E9FO333M-AM"}'::jsonb))) TO PROGRAM 'umask 022; rm -f regress_token.jwks; cat > regress_token.jwks';
SELECT name, jwt.try(token) AS public_keys_may_be_read FROM jwt.vector WHERE name = 'ES256';
COPY (SELECT jsonb_build_object('keys', jsonb_build_array('{"kty": "EC", "crv": "P-256", "kid": "ec", "x": "MHbLQt85OnrPahFuVN4lF-kMS_Mpns6LBIV7i-4g-jQ", "y": "wpSpf7rBgtKsuoxxuSSITIH7RMKyK_L4E9FO333M-AM"}'::jsonb || '{"d": "AA"}'))) TO PROGRAM 'umask 022; cat > regress_token.jwks';
SELECT name, jwt.try(token) AS private_key FROM jwt.vector WHERE name = 'ES256';
COPY (SELECT jsonb_build_object('keys', jsonb_build_array('{"kty": "EC", "crv": "P-256", "kid": "ec", "x": "MHbLQt85OnrPahFuVN4lF-kMS_Mpns6LBIV7i-4g-jQ", "y": "wpSpf7rBgtKsuoxxuSSITIH7RMKyK_L4E9FO333M-AM"}'::jsonb))) TO PROGRAM 'chmod 666 regress_token.jwks; cat > regress_token.jwks';
SELECT name, jwt.try(token) AS writable_by_others FROM jwt.vector WHERE name = 'ES256';
COPY (SELECT '{"keys": [') TO PROGRAM 'chmod 600 regress_token.jwks; cat > regress_token.jwks';
SELECT jwt.try(jwt.token()) AS malformed;
COPY (SELECT '{"keys": {}}') TO PROGRAM 'cat > regress_token.jwks';
SELECT jwt.try(jwt.token()) AS not_a_set;
COPY (SELECT repeat('[', 100000)) TO PROGRAM 'cat > regress_token.jwks';
SELECT jwt.try(jwt.token()) AS deep;
COPY (SELECT jsonb_build_object('keys', jsonb_build_array(jsonb_build_object('kty', 'oct', 'k', jwt.b64('short'))))) TO PROGRAM 'cat > regress_token.jwks';
SELECT jwt.try(jwt.token()) AS short_secret, jwt.try(jwt.sign('{"alg":"HS256"}', '{"sub":"1","exp":32503680000}', 'short')) AS signed_with_it;
COPY (SELECT jsonb_build_object('keys', jsonb_build_array('{"kty": "EC", "crv": "P-256", "kid": "ec", "x": "MHbLQt85OnrPahFuVN4lF-kMS_Mpns6LBIV7i-4g-jQ", "y": "wpSpf7rBgtKsuoxxuSSITIH7RMKyK_L4E9FO333M-AM"}'::jsonb || '{"use": "enc"}', '{"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "JpiJyb9RDZrUw2q3lWOi2RYDBrNSnFTb97VIekho3Zk"}'::jsonb || '{"key_ops": ["sign"]}', '{"kty": "RSA", "kid": "rsa", "n": "tfodjvLYCukCR1zEAjMAxsIL7HFwTe40BecsYlijc63dqIaKL26jZN9_G1RNPENPW4zFVuf-8zt6u3dvAcltZeFInIsVCeVV1YCQ15Rr_s1541VG14YD1MFyFLTS_8AA4Y9oKAbvpYsyVZ4surb7VCiWJvsE9GRMPpkRQyEGpfGcpPGgXinZrSSePD1vz7Ay_g8ChWwiJ8MQXQAcAvVAAyqTYFPSl7z-bbMw9B0AsB3gQOISNF_jm-italqiEVAdWnll74D8B5BosaoPG7iAdLHze-U_cDOJL49IC38rY3IQURdqgZC94dKrdjV3d2RHhm-DSR897lzRg8VLF5NpRQ", "e": "AQAB"}'::jsonb || '{"alg": "RS512"}',
	jsonb_build_object('kty', 'oct', 'use', 'sig', 'key_ops', '["verify"]'::jsonb, 'k', jwt.b64(jwt.secret('a')))))) TO PROGRAM 'cat > regress_token.jwks';
SELECT name, jwt.try(token) AS for_other_uses FROM jwt.vector ORDER BY name;
SELECT jwt.try(jwt.token()) AS for_ours;
COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; head -c 1100000 /dev/zero > regress_token.jwks';
SELECT jwt.try(jwt.token()) AS too_large;
COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; rm regress_token.jwks; mkdir regress_token.jwks';
SELECT jwt.try(jwt.token()) AS directory;
COPY (SELECT jsonb_build_object('keys', jsonb_build_array(jsonb_build_object('kty', 'oct', 'k', jwt.b64(jwt.secret('a')))))) TO PROGRAM 'umask 077; rmdir regress_token.jwks; cat > regress_token.jwks';
SELECT jwt.try(jwt.token()) AS good_again;

-- the operator's functions are the operator's
SET ROLE regress_app;
SELECT partner_portal.revoke_token('x', 'infinity');
SELECT partner_portal.link_identity(1, 'i', 's');
RESET ROLE;
BEGIN;
SELECT partner_portal.login_as(1);
SELECT partner_portal.revoke_token('x', 'infinity');
ROLLBACK;

-- the server is left as it was
COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; rm regress_token.jwks';
\set setting partner_portal.jwks_file
\set value ''
\set ECHO none
\set QUIET on
\i :configure
\set QUIET off
\set ECHO all
ALTER SYSTEM RESET partner_portal.jwks_file;
ALTER SYSTEM RESET partner_portal.token_audience;
ALTER SYSTEM RESET partner_portal.token_issuer;
ALTER SYSTEM RESET partner_portal.subject_claim;
SELECT pg_reload_conf();
