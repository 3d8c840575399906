-- as.sql: says what happens when somebody runs a statement. Included by \i after begin.sql.
-- run_as(account, role, statement, acting): account NULL is nobody, role NULL the superuser of the test, acting the workspace to
-- act in; returns the first column of the first row, or the SQLSTATE and the message. What it changed stays.
\set ECHO none
\set QUIET on
CREATE FUNCTION run_as(account_id bigint, role text, statement text, acting bigint DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	IF account_id IS NOT NULL THEN
		PERFORM partner_portal.login_as(account_id);
	END IF;
	IF acting IS NOT NULL THEN
		PERFORM partner_portal.act_in(acting);
	END IF;
	IF role IS NOT NULL THEN
		EXECUTE format('SET LOCAL ROLE %I', role);
	END IF;
	EXECUTE statement INTO result;
	RESET ROLE;
	IF account_id IS NOT NULL THEN
		PERFORM partner_portal.logout();
	END IF;
	RETURN coalesce(result, '(null)');
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
SET client_min_messages = error;
SET datestyle = ISO;
\pset tuples_only on
\pset format unaligned
\set app '\'regress_app\''
\set trusted '\'regress_trusted\''
\set ops '\'regress_ops\''
\set QUIET off
\set ECHO all
