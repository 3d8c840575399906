\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept security_key
\i :begin
SET search_path = partner_portal, public;
-- a partner (1) with two customers (2, 3), a direct workspace (4); accounts: 1 partner's owner, 2 its system administrator
-- for workspace 2, 3 owner of 2, 4 member of 2, 5 owner of 4, 6 an operator
SET partner_portal.restoring = on;
INSERT INTO account (email, is_operator) SELECT 'a' || i || '@example.com', i = 6 FROM generate_series(1, 6) i;
INSERT INTO workspace (kind, company_name, slug, anchor_date) VALUES ('partner', 'Partner', 'partner', '2026-01-01');
INSERT INTO partner (partner_id, registration_code) VALUES (1, 'code');
INSERT INTO workspace (partner_id, company_name, slug, anchor_date) VALUES (1, 'Two', 'two', '2026-01-01'), (1, 'Three', 'three', '2026-01-01'), (NULL, 'Four', 'four', '2026-01-01');
INSERT INTO member (workspace_id, account_id, partner_key, role, accepted_at) VALUES
	(1, 1, 0, 'owner', now()), (1, 2, 0, 'member', now()), (2, 3, 1, 'owner', now()), (2, 4, 1, 'member', now()), (4, 5, 0, 'owner', now());
INSERT INTO staff (workspace_id, account_id, partner_key, role) VALUES (2, 2, 1, 'system_administrator');
RESET partner_portal.restoring;
CREATE VIEW keys AS SELECT workspace_id AS ws, key_id AS key, partner_key AS partner, serial, account_id AS holder, status, disabled_reason AS reason,
	created_at > now() - interval '1 minute' AS created, activated_at > now() - interval '1 minute' AS activated,
	disabled_at > now() - interval '1 minute' AS disabled FROM security_key ORDER BY 1, 2;

-- ids, partner and stamps come from the server, whatever the client says, the operator included
INSERT INTO security_key (workspace_id, key_id, partner_key, kind, serial, created_at, activated_at, disabled_reason, disabled_at)
	VALUES (2, 77, 9, 'smartphone', 's1', '2020-01-01', '2020-01-01', 'deleted', '2020-01-01') RETURNING key_id;
INSERT INTO security_key (workspace_id, kind, serial, status, activated_at, disabled_reason, disabled_at)
	VALUES (4, 'contactless_card', 's2', 'disabled', '2020-01-01', 'suspended', '2020-01-01');
COPY security_key (workspace_id, key_id, kind, serial, status, created_at, activated_at) FROM STDIN;
2	500	smartphone	s3	active	2020-01-01	2020-01-01
\.
SELECT * FROM keys;
UPDATE security_key SET activated_at = '2020-01-01', disabled_at = '2020-01-01', disabled_reason = 'deleted' WHERE serial = 's1';
UPDATE security_key SET disabled_reason = 'deleted', activated_at = '2020-01-01', disabled_at = '2020-01-01' WHERE serial = 's2';
SELECT * FROM keys;
-- what never changes, and what is refused
\set VERBOSITY sqlstate
UPDATE security_key SET workspace_id = 3 WHERE serial = 's1';
UPDATE security_key SET kind = 'contactless_card' WHERE serial = 's1';
UPDATE security_key SET key_id = 99 WHERE serial = 's1';
UPDATE security_key SET created_at = '2020-01-01' WHERE serial = 's1';
UPDATE security_key SET partner_key = 4 WHERE serial = 's1';
INSERT INTO security_key (workspace_id, kind, serial) VALUES (99, 'smartphone', 's4');
INSERT INTO security_key (workspace_id, kind, serial) VALUES (NULL, 'smartphone', 's4');
INSERT INTO security_key (workspace_id, kind, serial) VALUES (2, 'watch', 's4');
INSERT INTO security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', NULL);
INSERT INTO security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 's1');
INSERT INTO security_key (workspace_id, kind, serial, status) VALUES (2, 'smartphone', 's4', 'broken');
INSERT INTO security_key (workspace_id, kind, serial, status) VALUES (2, 'smartphone', 's4', NULL);
INSERT INTO security_key (workspace_id, kind, serial, account_id) VALUES (2, 'smartphone', 's4', 5);
UPDATE security_key SET status = NULL WHERE serial = 's1';
TRUNCATE security_key;
TRUNCATE key_history;
\set VERBOSITY terse
-- revoked is final
UPDATE security_key SET status = 'revoked' WHERE serial = 's3';
UPDATE security_key SET status = 'active' WHERE serial = 's3';
\echo :LAST_ERROR_SQLSTATE
UPDATE security_key SET status = 'disabled' WHERE serial = 's3';
UPDATE security_key SET label = 'old phone' WHERE serial = 's3';
SELECT serial, status, disabled_reason, label FROM security_key WHERE serial = 's3';

-- the reason says whose act it was: the customer's own
SET ROLE regress_trusted;
BEGIN;
SELECT login_as(3);
UPDATE security_key SET status = 'disabled' WHERE serial = 's1' RETURNING status, disabled_reason;
UPDATE security_key SET status = 'active' WHERE serial = 's1' RETURNING status, disabled_reason;
INSERT INTO security_key (workspace_id, kind, serial, status) VALUES (2, 'smartphone', 's5', 'disabled') RETURNING partner_key, disabled_reason;
SELECT status, disabled_reason FROM disable_security_keys(2, 1);
SELECT status FROM enable_security_keys(2, ARRAY[(SELECT key_id FROM security_key WHERE serial = 's1')]);
COMMIT;
-- a member may read, not switch
BEGIN;
SELECT login_as(4);
UPDATE security_key SET status = 'disabled' WHERE serial = 's1';
SELECT count(*) FROM security_key;
SELECT disable_security_keys(2);
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
-- the partner's
BEGIN;
SELECT login_as(1);
UPDATE security_key SET status = 'disabled' WHERE serial = 's1' RETURNING status, disabled_reason;
COMMIT;
-- which the customer cannot lift, by whatever way
BEGIN;
SELECT login_as(3);
UPDATE security_key SET status = 'active' WHERE serial = 's1';
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
SELECT login_as(3);
SELECT enable_security_keys(2, ARRAY[1]);
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
SELECT login_as(3);
UPDATE security_key SET disabled_reason = 'customer' WHERE serial = 's1';
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
-- the system administrator on the partner's staff can
BEGIN;
SELECT login_as(2);
UPDATE security_key SET status = 'active' WHERE serial = 's1' RETURNING status, disabled_reason;
UPDATE security_key SET status = 'disabled' WHERE serial = 's1' RETURNING status, disabled_reason;
COMMIT;
-- and so can the operator
BEGIN;
SELECT login_as(6);
UPDATE security_key SET status = 'active' WHERE serial = 's1' RETURNING status, disabled_reason;
UPDATE security_key SET status = 'disabled' WHERE serial = 's1' RETURNING status, disabled_reason;
COMMIT;
-- the limit is the partner's to set, never the customer's
BEGIN;
SELECT login_as(3);
SELECT set_usage_limit(2, 10);
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
SELECT login_as(1);
SELECT count(*) FROM set_usage_limit(2, 0);
SELECT count(*) FROM set_usage_limit(4, 0);
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
-- by plain UPDATE too; what it disables, the customer may activate again while there is room
BEGIN;
SELECT login_as(3);
UPDATE workspace SET restrict_keys = true, key_limit = 100 WHERE workspace_id = 2;
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
SELECT login_as(1);
SELECT count(*) FROM set_usage_limit(2, 2);
INSERT INTO security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'u1'), (2, 'smartphone', 'u2') RETURNING serial, status;
SELECT threshold, active_keys, partner_key FROM limit_alert ORDER BY 1;
UPDATE workspace SET key_limit = 1 WHERE workspace_id = 2;
SELECT serial, status, disabled_reason FROM security_key WHERE serial LIKE 'u%' ORDER BY 1;
SELECT login_as(3);
SELECT threshold FROM limit_alert ORDER BY 1;
SAVEPOINT s;
UPDATE security_key SET status = 'active' WHERE serial = 'u2';
\echo :LAST_ERROR_SQLSTATE
ROLLBACK TO s;
UPDATE security_key SET status = 'disabled' WHERE serial = 'u1';
UPDATE security_key SET status = 'active' WHERE serial = 'u2' RETURNING status;
SELECT login_as(5);
SELECT count(*) FROM limit_alert;
SELECT count(*) FROM security_key WHERE workspace_id = 2;
UPDATE security_key SET label = 'mine' WHERE workspace_id = 2;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (2, 'smartphone', 'foreign');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
-- nobody
SELECT disable_security_keys(2);
\echo :LAST_ERROR_SQLSTATE
SELECT disable_keys_as(2, 'suspended');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
-- what the database itself disabled
UPDATE workspace SET suspended_at = now() WHERE workspace_id = 2;
UPDATE security_key SET status = 'disabled' WHERE workspace_id = 2 AND status = 'active';
INSERT INTO security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 's6');
SELECT disable_keys_as(3, 'suspended');
SET ROLE regress_trusted;
BEGIN;
SELECT login_as(1);
UPDATE security_key SET status = 'active' WHERE serial = 's1';
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
SELECT login_as(1);
UPDATE security_key SET status = 'active' WHERE serial = 's6' RETURNING status, disabled_reason;
COMMIT;
RESET ROLE;
UPDATE workspace SET suspended_at = NULL WHERE workspace_id = 2;
-- under a suspended partner customers keep their keys, and activate none
UPDATE workspace SET suspended_at = now() WHERE workspace_id = 1;
SELECT serial, status FROM security_key WHERE workspace_id = 3;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 's7');
\echo :LAST_ERROR_SQLSTATE
INSERT INTO security_key (workspace_id, kind, serial) VALUES (4, 'smartphone', 's7');
UPDATE workspace SET suspended_at = NULL WHERE workspace_id = 1;

-- a workspace that moves takes its keys along, running as they are
SELECT activated_at AS before FROM security_key WHERE serial = 's6' \gset
UPDATE workspace SET partner_id = NULL WHERE workspace_id = 3;
SELECT partner_key, status, activated_at = :'before' AS same_stretch FROM security_key WHERE serial = 's6';
SELECT partner_key, active_keys FROM workspace_usage WHERE workspace_id = 3;
SELECT count(*) FROM key_history WHERE workspace_id = 3 AND active_until > :'before';

-- the functions refuse to be called otherwise
\set VERBOSITY sqlstate
CREATE TABLE other (a integer);
CREATE TRIGGER t BEFORE DELETE ON other FOR EACH ROW EXECUTE FUNCTION stamp_key();
INSERT INTO other VALUES (1);
DELETE FROM other;
DROP TRIGGER t ON other;
CREATE TRIGGER t AFTER DELETE ON other FOR EACH ROW EXECUTE FUNCTION count_keys();
DELETE FROM other;
DROP TRIGGER t ON other;
CREATE TRIGGER t AFTER DELETE ON other FOR EACH STATEMENT EXECUTE FUNCTION count_owners();
DELETE FROM other;
DROP TRIGGER t ON other;
CREATE TRIGGER t BEFORE INSERT ON other FOR EACH STATEMENT EXECUTE FUNCTION refuse_truncate();
INSERT INTO other VALUES (2);
DROP TRIGGER t ON other;
CREATE TRIGGER t BEFORE INSERT ON other FOR EACH ROW EXECUTE FUNCTION limit_workspace();
INSERT INTO other VALUES (2);
