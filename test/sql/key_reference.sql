\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set as :abs_srcdir '/sql/as.sql'
\set concept key_reference
\i :begin
\i :as
-- The trigger that counts sees to the foreign key of new keys (src/key_reference.c), which need not look itself.
-- partner 1, its customer 2, direct 3
SELECT (partner_portal.create_workspace('One', 'one@example.com')).workspace_id;
SELECT (partner_portal.promote_to_partner(1)).partner_id;
SELECT (partner_portal.register_workspace((SELECT registration_code FROM partner_portal.partner), 'Two', 'two@example.com')).workspace_id;
SELECT (partner_portal.create_workspace('Three', 'three@example.com')).workspace_id;
CREATE FUNCTION try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	violated text;
	detail text;
	of_table text;
BEGIN
	EXECUTE statement;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME, of_table = TABLE_NAME, detail = PG_EXCEPTION_DETAIL;
	RETURN concat_ws(' ', SQLSTATE, SQLERRM, of_table, violated, detail);
END
$$;
-- which foreign keys looked at how many rows of a statement
CREATE FUNCTION looks(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off, BUFFERS off) ' || statement LOOP
		IF line ~ 'for constraint' THEN
			RETURN NEXT line;
		END IF;
	END LOOP;
END
$$;
SELECT looks($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT w, 'smartphone', 'a' || n FROM generate_series(1, 3) w, generate_series(1, 2) n$$);
SELECT looks($$WITH b AS (INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'b') RETURNING key_id) SELECT FROM b$$);
SELECT looks($$MERGE INTO partner_portal.security_key k USING (SELECT 2 AS w) s ON k.serial = 'c' WHEN NOT MATCHED THEN INSERT (workspace_id, kind, serial) VALUES (s.w, 'smartphone', 'c')$$);
SELECT serial, partner_key FROM partner_portal.security_key ORDER BY key_id;
-- a workspace that is not there
SELECT try($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (4, 'smartphone', 'x')$$);
SELECT try($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) SELECT w, 'smartphone', 'x' FROM unnest(ARRAY[2, 4, 3]) w$$);
SELECT try($$WITH x AS (INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (-1, 'smartphone', 'x') RETURNING key_id) SELECT FROM x$$);
SELECT try($$MERGE INTO partner_portal.security_key k USING (SELECT 1) s ON k.serial = 'x' WHEN NOT MATCHED THEN INSERT (workspace_id, kind, serial) VALUES (4, 'smartphone', 'x')$$);
SELECT run_as(3, :app, $$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (4, 'smartphone', 'x')$$);
COPY partner_portal.security_key (workspace_id, kind, serial) FROM STDIN;
4	smartphone	x
\.
-- a partner that is another, which a restore may say or a trigger after ours
SET partner_portal.restoring = on;
SELECT try($$INSERT INTO partner_portal.security_key (workspace_id, partner_key, kind, serial, activated_at) VALUES (2, 0, 'smartphone', 'x', now())$$);
SELECT try($$INSERT INTO partner_portal.security_key (workspace_id, partner_key, kind, serial, activated_at) SELECT 2, p, 'smartphone', 'x' || p, now() FROM generate_series(0, 2) p$$);
SELECT try($$INSERT INTO partner_portal.security_key (workspace_id, partner_key, kind, serial, activated_at) VALUES (4, 1, 'smartphone', 'x', now())$$);
SELECT try($$INSERT INTO partner_portal.security_key (workspace_id, partner_key, kind, serial, activated_at) VALUES (2, 1, 'smartphone', 'f', now())$$);
RESET partner_portal.restoring;
CREATE FUNCTION move_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.workspace_id := CASE NEW.label WHEN 'to 3' THEN 3 WHEN 'to 4' THEN 4 ELSE NEW.workspace_id END;
	NEW.partner_key := CASE NEW.label WHEN 'of 3' THEN 3 ELSE NEW.partner_key END;
	RETURN NEW;
END
$$;
CREATE TRIGGER zz_move_key BEFORE INSERT ON partner_portal.security_key FOR EACH ROW EXECUTE FUNCTION move_key();
SELECT try($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial, label) VALUES (2, 'smartphone', 'x', 'to 3')$$);
SELECT try($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial, label) VALUES (2, 'smartphone', 'x', 'to 4')$$);
SELECT try($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial, label) VALUES (2, 'smartphone', 'x', 'of 3')$$);
SELECT try($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial, label) VALUES (2, 'smartphone', 'x', 'of 3'), (2, 'smartphone', 'y', 'fine')$$);
SELECT try($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial, label) VALUES (2, 'smartphone', 'g', 'fine')$$);
DROP TRIGGER zz_move_key ON partner_portal.security_key;
-- the workspace is locked to the end of the transaction, also by a row that came there so
BEGIN;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'h');
SELECT xmax = pg_current_xact_id()::xid AS locked FROM partner_portal.workspace WHERE workspace_id = 2;
COMMIT;
SET partner_portal.restoring = on;
BEGIN;
INSERT INTO partner_portal.security_key (workspace_id, partner_key, kind, serial, activated_at) VALUES (2, 1, 'smartphone', 'i', now());
SELECT xmax = pg_current_xact_id()::xid AS locked FROM partner_portal.workspace WHERE workspace_id = 2;
COMMIT;
RESET partner_portal.restoring;
-- what the transaction itself has done to a workspace that it had locked counts, also while no trigger fired
BEGIN;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 'j');
SET LOCAL session_replication_role = replica;
DELETE FROM partner_portal.security_key WHERE workspace_id = 3;
DELETE FROM partner_portal.workspace WHERE workspace_id = 3;
SET LOCAL session_replication_role = origin;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 'k');
ROLLBACK;
BEGIN;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'j');
SET LOCAL session_replication_role = replica;
UPDATE partner_portal.workspace SET partner_id = NULL WHERE workspace_id = 2;
SET LOCAL session_replication_role = origin;
INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'k');
ROLLBACK;
-- where the trigger does not fire the foreign key looks
BEGIN;
ALTER TABLE partner_portal.security_key DISABLE TRIGGER count_insert;
SELECT try($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (4, 'smartphone', 'x')$$);
SELECT looks($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'x')$$);
ALTER TABLE partner_portal.security_key ENABLE REPLICA TRIGGER count_insert;
SELECT looks($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'y')$$);
ALTER TABLE partner_portal.security_key ENABLE ALWAYS TRIGGER count_insert;
SELECT looks($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'z')$$);
ROLLBACK;
BEGIN;
ALTER TABLE partner_portal.security_key RENAME CONSTRAINT security_key_workspace TO elsewhere;
SELECT looks($$INSERT INTO partner_portal.security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'x')$$);
ROLLBACK;
-- and it is what it was for updates and for changes of the workspace
SELECT try($$UPDATE partner_portal.security_key SET partner_key = 3 WHERE serial = 'b'$$);
SELECT (partner_portal.leave_partner(2)).partner_id;
SELECT workspace_id, partner_key, count(*) FROM partner_portal.security_key GROUP BY 1, 2 ORDER BY 1, 2;
SELECT count(*) FROM partner_portal.verify();
