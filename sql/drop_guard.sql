-- drop_guard.sql: the extension is not dropped while it holds data, and its tables are not truncated. The last part.

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

-- Every table refuses TRUNCATE; those that do so in their own words have done it already.
DO $$
DECLARE
	unguarded regclass;
BEGIN
	FOR unguarded IN
		SELECT c.oid FROM pg_catalog.pg_class c
		WHERE c.relnamespace = 'partner_portal'::pg_catalog.regnamespace AND c.relkind = 'r'
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND (t.tgtype & 34) = 34)
		ORDER BY c.relname
	LOOP
		EXECUTE pg_catalog.format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.refuse_truncate()', unguarded);
	END LOOP;
END
$$;
