-- configure.sql: sets :setting to :value for the whole server, and waits until it has arrived here.
-- Included by \i with ECHO none and QUIET on; "configure" is this file's path, "asked" begins as no.
LOAD 'partner_portal';
SELECT current_setting(:'setting') = :'value' AS arrived, :'asked' = 'no' AS first_time \gset
\if :arrived
\set asked no
\else
\if :first_time
ALTER SYSTEM SET :setting = :'value';
SELECT pg_reload_conf() \g /dev/null
\set asked yes
\endif
\i :configure
\endif
