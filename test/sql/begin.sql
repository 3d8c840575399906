-- begin.sql: a fresh database with the extension for one test, and the roles that tests act as.
-- Included by \i; the including file sets "concept" first.
\set ECHO none
\set QUIET on
SET client_min_messages = warning;
SELECT format('CREATE DATABASE %I TEMPLATE template0 ENCODING ''UTF8'' LC_COLLATE ''C'' LC_CTYPE ''C''', 'pp_' || :'concept') AS create_database,
	format('DROP DATABASE IF EXISTS %I WITH (FORCE)', 'pp_' || :'concept') AS drop_database,
	'pp_' || :'concept' AS test_database \gset
:drop_database;
:create_database;
\c :test_database
SET client_min_messages = warning;
CREATE EXTENSION partner_portal;
DO $$
DECLARE
	r text;
BEGIN
	FOREACH r IN ARRAY ARRAY['regress_app', 'regress_trusted', 'regress_report', 'regress_ops'] LOOP
		IF to_regrole(r) IS NULL THEN
			EXECUTE format('CREATE ROLE %I LOGIN', r);
		END IF;
	END LOOP;
END
$$;
SELECT partner_portal.enroll_role('regress_app', 'application'),
	partner_portal.enroll_role('regress_trusted', 'trusted_application'),
	partner_portal.enroll_role('regress_report', 'reporting'),
	partner_portal.enroll_role('regress_ops', 'operator') \g /dev/null
RESET client_min_messages;
SET timezone = 'UTC';
\set VERBOSITY terse
\set QUIET off
\set ECHO all
