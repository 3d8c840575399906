-- partner_portal--1.0--1.1.sql: from 1.0 to 1.1, in the order of the parts.
--
-- Afterwards the catalog is that of a fresh 1.1, which test/t/055_upgrade.pl demands.
--  * A function that 1.0 has is replaced (CREATE OR REPLACE) without REVOKE or GRANT: it keeps its privileges. A GRANT or
--    REVOKE on an object of 1.0 would make those of the enrolled roles part of the extension, and pg_dump leave them out.
--  * A function whose arguments or result change is dropped and made again; its rows in role_grant are deleted and inserted
--    again, for its privileges went with it.
--  * New columns come last in their table.

\echo Use "ALTER EXTENSION partner_portal UPDATE TO '1.1'" to load this file. \quit
