\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept drop_guard
\i :begin
\set QUIET on
-- src/drop_guard.c. Each attempt is a session's first statement: the library is not loaded before.
-- an empty one goes, and comes back
DROP EXTENSION partner_portal;
SELECT count(*) FROM pg_event_trigger WHERE evtname LIKE 'partner_portal%';
CREATE EXTENSION partner_portal;
INSERT INTO partner_portal.account (email) VALUES ('somebody@example.com');
-- the whole error, once
\c -
\set VERBOSITY default
DROP EXTENSION partner_portal;
\set VERBOSITY sqlstate
-- whatever way it goes
\c -
DROP EXTENSION IF EXISTS partner_portal CASCADE;
\c -
DROP SCHEMA partner_portal CASCADE;
\c -
DROP EXTENSION plpgsql CASCADE;
\c -
DROP LANGUAGE plpgsql CASCADE;
SET client_min_messages = warning;
CREATE ROLE regress_drop_guard SUPERUSER;
\c -
SET ROLE regress_drop_guard;
CREATE DATABASE pp_drop_guard_owned;
\c pp_drop_guard_owned
SET ROLE regress_drop_guard;
CREATE EXTENSION partner_portal;
INSERT INTO partner_portal.workspace (company_name, slug, anchor_date) VALUES ('A', 'a', '2026-01-01');
\c -
DROP OWNED BY regress_drop_guard CASCADE;
-- what does not take the extension along is no matter of ours
\c -
CREATE TABLE public.elsewhere (i integer);
DROP SCHEMA public CASCADE;
SELECT company_name FROM partner_portal.workspace;
-- unless something of the extension was made to depend on it
CREATE SCHEMA hook;
CREATE FUNCTION hook.f() RETURNS integer LANGUAGE sql RETURN 1;
ALTER TABLE partner_portal.workspace ADD CONSTRAINT own CHECK (hook.f() = 1);
\c -
\set VERBOSITY terse
SET client_min_messages = warning;
DROP SCHEMA hook CASCADE;
SELECT count(*) FROM partner_portal.workspace;
-- a member table alone cannot go
\set VERBOSITY sqlstate
DROP TABLE partner_portal.workspace CASCADE;
-- nor what it holds by TRUNCATE: no table's, unless it may go
CREATE FUNCTION pg_temp.truncated(relation regclass) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('TRUNCATE %s CASCADE', relation);
	RETURN 'truncated';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
SELECT pg_temp.truncated(c.oid), count(*) > 30 AS many, string_agg(c.relname, ' ' ORDER BY c.relname) FILTER (WHERE c.relname ~ '^(activity|invoice)') AS documents
	FROM pg_class c WHERE relnamespace = 'partner_portal'::regnamespace AND relkind = 'r' GROUP BY 1 ORDER BY 1;
\set VERBOSITY default
TRUNCATE partner_portal.usage_period;
\set VERBOSITY sqlstate
BEGIN;
SET LOCAL partner_portal.allow_drop = on;
TRUNCATE partner_portal.usage_period, partner_portal.webhook_endpoint;
SELECT pg_temp.truncated(c.oid), string_agg(c.relname, ' ' ORDER BY c.relname) FILTER (WHERE c.relname ~ '(key|_usage|member)') AS tables
	FROM pg_class c WHERE relnamespace = 'partner_portal'::regnamespace AND relkind = 'r' GROUP BY 1 ORDER BY 1;
ROLLBACK;
-- those that are counted not even then
BEGIN;
SET LOCAL partner_portal.allow_drop = on;
\set VERBOSITY default
TRUNCATE partner_portal.security_key;
\set VERBOSITY sqlstate
ROLLBACK;
BEGIN;
SET LOCAL session_replication_role = replica;
TRUNCATE partner_portal.usage_period, partner_portal.webhook_endpoint;
ROLLBACK;
-- the switch is a superuser's
SET ROLE regress_app;
SET partner_portal.allow_drop = on;
RESET ROLE;
\c -
BEGIN;
SET LOCAL partner_portal.allow_drop = on;
SET LOCAL client_min_messages = warning;
DROP EXTENSION partner_portal;
ROLLBACK;
DROP EXTENSION partner_portal;
-- rows that are gone within the transaction are gone (the log does not let its workspace go)
BEGIN;
SET LOCAL session_replication_role = replica;
DELETE FROM partner_portal.billing_period;
DELETE FROM partner_portal.workspace;
DROP EXTENSION partner_portal;
ROLLBACK;
SELECT count(*) FROM partner_portal.workspace;
\c -
SET partner_portal.allow_drop = on;
SET client_min_messages = warning;
DROP OWNED BY regress_drop_guard CASCADE;
SELECT count(*) FROM pg_extension WHERE extname = 'partner_portal';
-- a database goes with all that is in it
\c pp_drop_guard
DROP DATABASE pp_drop_guard_owned;
DROP ROLE regress_drop_guard;
SELECT count(*) FROM partner_portal.account;
