\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept check_cache
\i :begin
\i :as
-- CHECKs of our tables are read once (src/check_cache.c), and say what they would if every statement read them.
SELECT (partner_portal.create_workspace('One', 'one@example.com')).workspace_id;
CREATE FUNCTION try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	violated text;
BEGIN
	EXECUTE statement;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
	RETURN concat_ws(' ', SQLSTATE, violated);
END
$$;
CREATE FUNCTION add_key(serial text, label text DEFAULT NULL, kind text DEFAULT 'smartphone', status text DEFAULT 'active') RETURNS text LANGUAGE sql
	RETURN try(format('INSERT INTO partner_portal.security_key (workspace_id, serial, label, kind, status) VALUES (1, %L, %L, %L, %L)', serial, label, kind, status));
CREATE FUNCTION kept() RETURNS bigint LANGUAGE sql
	RETURN (SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'partner_portal checks');
-- each of a table's, whichever statement of the session it is
SELECT add_key('a'), add_key(''), add_key(repeat('x', 201)), add_key('b', repeat('x', 201)), add_key('b', kind => 'watch'), add_key('b', status => 'lost'), add_key('b');
SELECT add_key('c'), add_key(''), add_key(repeat('x', 201)), add_key('d', repeat('x', 201)), add_key('d', kind => 'watch'), add_key('d', status => 'lost'), add_key('d');
SELECT try($$UPDATE partner_portal.security_key SET status = 'lost' WHERE serial = 'a'$$), try($$UPDATE partner_portal.security_key SET label = repeat('x', 201)$$),
	try($$MERGE INTO partner_portal.security_key k USING (SELECT 1) s ON k.serial = 'z' WHEN NOT MATCHED THEN INSERT (workspace_id, kind, serial) VALUES (1, 'watch', 'z')$$),
	try($$WITH added AS (INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (1, 'watch', 'z') RETURNING key_id) SELECT * FROM added$$),
	try($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'a') ON CONFLICT ON CONSTRAINT security_key_serial_key DO UPDATE SET label = repeat('x', 201)$$),
	try($$UPDATE partner_portal.workspace SET limit_mode = 'none'$$), try($$UPDATE partner_portal.workspace SET key_limit = -1$$);
SELECT serial, label, kind, status FROM partner_portal.security_key ORDER BY key_id;
-- one that is added or dropped counts from the next statement on, also of a prepared one and in the same transaction
PREPARE label_a (text) AS UPDATE partner_portal.security_key SET label = $1 WHERE serial = 'a';
EXECUTE label_a ('lent');
BEGIN;
ALTER TABLE partner_portal.security_key ADD CONSTRAINT not_lent CHECK (label <> 'lent') NOT VALID;
SAVEPOINT s;
EXECUTE label_a ('lent');
ROLLBACK TO s;
ALTER TABLE partner_portal.security_key DROP CONSTRAINT not_lent;
EXECUTE label_a ('lent');
ALTER TABLE partner_portal.security_key ADD CONSTRAINT not_lent CHECK (label <> 'lent') NOT VALID;
COMMIT;
SELECT add_key('e', 'lent'), add_key('e', 'lost');
ALTER TABLE partner_portal.security_key RENAME CONSTRAINT not_lent TO never_lent;
SELECT add_key('f', 'lent');
ALTER TABLE partner_portal.security_key DROP CONSTRAINT never_lent;
SELECT add_key('f', 'lent');
-- it changes while a statement runs, which goes on with what it began with; what runs inside begins anew
CREATE FUNCTION change_table() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.serial ~ '2$' THEN
		GRANT SELECT ON partner_portal.security_key TO regress_report;
		ASSERT add_key(NEW.serial || '-inner') = 'done' AND add_key('wrong', kind => 'watch') = '23514 security_key_kind';
		REVOKE SELECT ON partner_portal.security_key FROM regress_report;
	END IF;
	RETURN NEW;
END
$$;
CREATE TRIGGER zz_change_table BEFORE INSERT ON partner_portal.security_key FOR EACH ROW EXECUTE FUNCTION change_table();
SELECT try($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT 1, 'smartphone', 'g' || n FROM generate_series(1, 4) n$$),
	try($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT 1, CASE n WHEN 4 THEN 'watch' ELSE 'smartphone' END, 'w' || n FROM generate_series(1, 4) n$$);
DROP TRIGGER zz_change_table ON partner_portal.security_key;
SELECT string_agg(serial, ' ' ORDER BY key_id) FROM partner_portal.security_key WHERE serial ~ '^[gw]';
-- nothing is kept of what is out of date, nor twice
SELECT kept() AS before \gset
SELECT try(format('ALTER TABLE partner_portal.security_key ADD CONSTRAINT more CHECK (label <> %L) NOT VALID', n)), add_key('h' || n),
	try('ALTER TABLE partner_portal.security_key DROP CONSTRAINT more'), add_key('i' || n) FROM generate_series(1, 3) n;
SELECT kept() - :before AS more;
SELECT kept() > 0 AS kept;
ALTER TABLE partner_portal.security_key ADD CONSTRAINT more CHECK (label <> 'x') NOT VALID;
SELECT kept() - :before AS more;
ALTER TABLE partner_portal.security_key DROP CONSTRAINT more;
-- one that calls a function of somebody's is the executor's: the function is that of the latest change, and takes its privilege
CREATE FUNCTION fine(label text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN label <> 'one';
ALTER TABLE partner_portal.security_key ADD CONSTRAINT fine CHECK (fine(label));
SELECT add_key('j', 'one'), add_key('k', 'two'), add_key('k', 'two', 'watch');
SELECT kept() - :before AS more;
CREATE OR REPLACE FUNCTION fine(label text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN label <> 'two';
SELECT add_key('j', 'one'), add_key('l', 'two');
SELECT run_as(1, :app, $$UPDATE partner_portal.security_key SET label = 'mine' WHERE serial = 'a' RETURNING label$$);
REVOKE EXECUTE ON FUNCTION fine(text) FROM PUBLIC;
SELECT add_key('l'), run_as(1, :app, $$UPDATE partner_portal.security_key SET label = 'mine' WHERE serial = 'a' RETURNING label$$);
GRANT EXECUTE ON FUNCTION fine(text) TO regress_app;
SELECT run_as(1, :app, $$UPDATE partner_portal.security_key SET label = 'mine' WHERE serial = 'a' RETURNING label$$);
ALTER TABLE partner_portal.security_key DROP CONSTRAINT fine;
CREATE DOMAIN short AS text CHECK (length(VALUE) < 3);
ALTER TABLE partner_portal.security_key ADD CONSTRAINT fine CHECK (label::short = label) NOT VALID;
SELECT add_key('m', 'ok'), add_key('n', 'long');
ALTER DOMAIN short DROP CONSTRAINT short_check;
SELECT add_key('n', 'long');
ALTER TABLE partner_portal.security_key DROP CONSTRAINT fine;
-- one that is not enforced says nothing, and one about a column that is computed when it is read is the executor's (18)
DO $$
BEGIN
	IF current_setting('server_version_num')::integer >= 180000 THEN
		EXECUTE 'ALTER TABLE partner_portal.security_key ADD CONSTRAINT wish CHECK (label = ''wished'') NOT ENFORCED';
		ASSERT add_key('o', 'other') = 'done' AND add_key('p', 'other', 'watch') = '23514 security_key_kind';
		ALTER TABLE partner_portal.security_key DROP CONSTRAINT wish;
		EXECUTE 'ALTER TABLE partner_portal.folder ADD COLUMN shout text GENERATED ALWAYS AS (pg_catalog.upper(name)) VIRTUAL';
		ALTER TABLE partner_portal.folder ADD CONSTRAINT quiet CHECK (shout <> 'LOUD');
		ASSERT try('INSERT INTO partner_portal.folder (workspace_id, name) VALUES (1, ''loud'')') = '23514 quiet';
		ASSERT try('INSERT INTO partner_portal.folder (workspace_id, name) VALUES (1, ''soft'')') = 'done';
	END IF;
END
$$;
-- a message that is owed past the executor (src/outbox.c) is checked by the same
SELECT try(format('SELECT partner_portal.enqueue_mail(1, %L, %L, %L, %L, %s)', kind, n, 'one@example.com', 'en', $$('Subject', 'Text', NULL)$$))
FROM unnest(ARRAY['welcome', 'Wrong Kind', 'welcome', 'Wrong Kind']) WITH ORDINALITY AS k (kind, n);
SELECT kind, dedupe_key FROM partner_portal.notification WHERE kind ~* 'welcome|wrong' ORDER BY notification_id;
