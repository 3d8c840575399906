-- drop_guard.sql: the extension is not dropped while it holds data.

CREATE FUNCTION partner_portal.drop_guard() RETURNS event_trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_drop_guard';
COMMENT ON FUNCTION partner_portal.drop_guard() IS
'Event trigger: has the library loaded before anything is dropped. The library then refuses (2BP01) whatever would drop the extension while there is a workspace or an account, unless partner_portal.allow_drop is on.';
REVOKE ALL ON FUNCTION partner_portal.drop_guard() FROM PUBLIC;

-- Every command that may drop what the extension depends on.
CREATE EVENT TRIGGER partner_portal_drop_guard ON ddl_command_start
	WHEN TAG IN ('DROP EXTENSION', 'DROP OWNED', 'DROP SCHEMA', 'DROP LANGUAGE', 'DROP TABLE', 'DROP VIEW', 'DROP MATERIALIZED VIEW', 'DROP FOREIGN TABLE',
		'DROP SEQUENCE', 'DROP TYPE', 'DROP DOMAIN', 'DROP FUNCTION', 'DROP PROCEDURE', 'DROP ROUTINE', 'DROP AGGREGATE', 'DROP OPERATOR', 'DROP OPERATOR CLASS',
		'DROP OPERATOR FAMILY', 'DROP CAST', 'DROP CONVERSION', 'DROP COLLATION', 'DROP ACCESS METHOD', 'DROP FOREIGN DATA WRAPPER', 'DROP SERVER', 'DROP TRANSFORM')
	EXECUTE FUNCTION partner_portal.drop_guard();
COMMENT ON EVENT TRIGGER partner_portal_drop_guard IS 'Has the library of partner_portal loaded before anything is dropped, so that it can refuse.';
