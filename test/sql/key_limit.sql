\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept key_limit
\i :begin
SET search_path = partner_portal, public;
-- what the test looks at, without the times
CREATE VIEW keys AS SELECT workspace_id AS ws, key_id AS key, kind, status, disabled_reason AS reason FROM security_key ORDER BY 1, 2;
CREATE VIEW counted AS
	SELECT u.workspace_id AS ws, u.active_keys AS active, u.total_keys AS total, u.key_limit AS limit,
		(u.total_keys, u.active_keys, u.total_smartphones, u.active_smartphones, u.total_contactless_cards, u.active_contactless_cards)
		= (SELECT count(*), count(*) FILTER (WHERE status = 'active'),
			count(*) FILTER (WHERE kind = 'smartphone'), count(*) FILTER (WHERE kind = 'smartphone' AND status = 'active'),
			count(*) FILTER (WHERE kind = 'contactless_card'), count(*) FILTER (WHERE kind = 'contactless_card' AND status = 'active')
			FROM security_key k WHERE k.workspace_id = u.workspace_id) AS exact
	FROM workspace_usage u ORDER BY 1;
INSERT INTO workspace (company_name, slug, anchor_date, restrict_keys, key_limit) VALUES
	('Alpha', 'alpha', '2026-01-01', true, 3), ('Beta', 'beta', '2026-01-01', false, 3), ('Gamma', 'gamma', '2026-01-01', true, NULL);
SELECT * FROM counted;

-- the limit, and what it says
INSERT INTO security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'a1'), (1, 'smartphone', 'a2'), (1, 'contactless_card', 'a3');
\set VERBOSITY default
\set SHOW_CONTEXT never
INSERT INTO security_key (workspace_id, kind, serial) VALUES (1, 'smartphone', 'a4'), (1, 'smartphone', 'a5');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY terse
INSERT INTO security_key (workspace_id, kind, serial, status) VALUES (1, 'smartphone', 'a4', 'disabled');
UPDATE security_key SET status = 'active' WHERE serial = 'a4';
-- the switch off, or a limit that is not on, refuses nothing; 0 refuses everything
INSERT INTO security_key (workspace_id, kind, serial) SELECT 2, 'smartphone', 'b' || i FROM generate_series(1, 5) i;
INSERT INTO security_key (workspace_id, kind, serial) SELECT 3, 'smartphone', 'c' || i FROM generate_series(1, 5) i;
UPDATE workspace SET key_limit = 0 WHERE workspace_id = 3;
INSERT INTO security_key (workspace_id, kind, serial) VALUES (3, 'smartphone', 'c6');
SELECT * FROM counted;
