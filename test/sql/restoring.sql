\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept restoring
\i :begin
INSERT INTO partner_portal.account (email) VALUES ('somebody@example.com');
-- a dump's script, and nobody else
SELECT partner_portal.restoring_session();
SET row_security = off;
SET check_function_bodies = off;
SELECT partner_portal.restoring_session();
SET ROLE regress_app;
SELECT partner_portal.restoring_session();
RESET ROLE;
BEGIN;
SELECT partner_portal.login_as(1);
SELECT partner_portal.restoring_session();
COMMIT;
RESET row_security;
SELECT partner_portal.restoring_session();
SET partner_portal.restoring = on;
SELECT partner_portal.restoring_session();
SET ROLE regress_app;
SET partner_portal.restoring = on;
