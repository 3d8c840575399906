-- activity_import.sql: brings in active stretches of keys from elsewhere, or late.

CREATE TABLE partner_portal.activity_import (
	workspace_id bigint NOT NULL,
	import_id bigint GENERATED ALWAYS AS IDENTITY,
	key_id bigint NOT NULL,
	active_from timestamptz NOT NULL,
	active_until timestamptz NOT NULL,
	reason text NOT NULL,
	imported_at timestamptz NOT NULL,
	imported_by bigint,
	role_name name NOT NULL,
	CONSTRAINT activity_import_pkey PRIMARY KEY (workspace_id, import_id),
	CONSTRAINT activity_import_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace,
	CONSTRAINT activity_import_reason CHECK (length(reason) BETWEEN 1 AND 1000)
);
CREATE INDEX activity_import_import_id ON partner_portal.activity_import (import_id);
COMMENT ON TABLE partner_portal.activity_import IS 'What import_key_activity() brought in, why and by whom; for the operator.';
COMMENT ON COLUMN partner_portal.activity_import.imported_by IS 'Account of the operator; NULL is a superuser with nobody signed in.';
COMMENT ON COLUMN partner_portal.activity_import.role_name IS 'Database role that called.';

ALTER TABLE partner_portal.activity_import ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY signed_in ON partner_portal.activity_import AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.activity_import FOR SELECT
	USING ((SELECT partner_portal.is_operator()));
SELECT pg_catalog.pg_extension_config_dump('partner_portal.activity_import', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.activity_import_import_id_seq', '');

CREATE FUNCTION partner_portal.import_key_activity(workspace_id bigint, key_id bigint, active tstzrange, reason text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
	imported partner_portal.security_key;
	recorded timestamptz;
BEGIN
	PERFORM partner_portal.require_operator();
	IF workspace_id IS NULL OR key_id IS NULL OR active IS NULL OR reason IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_id, key_id, active and reason must not be null';
	ELSIF length(reason) NOT BETWEEN 1 AND 1000 OR reason !~ '\S' OR partner_portal.has_controls(reason) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'reason must have 1 to 1000 characters';
	ELSIF isempty(active) OR lower_inf(active) OR upper_inf(active) OR NOT isfinite(lower(active)) OR NOT isfinite(upper(active))
		OR NOT lower_inc(active) OR upper_inc(active) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'imported activity must have a start and an end',
			DETAIL = 'It is half-open, not empty, and bounded on both sides.', HINT = 'Write it as [start, end).';
	ELSIF lower(active) < timestamptz '1900-01-01 00:00+00' OR upper(active) > clock_timestamp() THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'imported activity must lie in the past',
			DETAIL = 'It must not begin before the year 1900 nor end after now.';
	END IF;
	PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = import_key_activity.workspace_id FOR NO KEY UPDATE;
	-- The counter lock: nothing of this workspace is activated, disabled, closed or imported beside this, and what is
	-- stamped after it lies after what is imported.
	UPDATE partner_portal.workspace_usage u SET last_disabled_at = greatest(u.last_disabled_at, upper(active))
	WHERE u.workspace_id = import_key_activity.workspace_id;
	SELECT k.* INTO imported FROM partner_portal.security_key k
	WHERE k.workspace_id = import_key_activity.workspace_id AND k.key_id = import_key_activity.key_id;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('security key %s of workspace %s not found', key_id, workspace_id);
	ELSIF (imported.status = 'active' AND imported.activated_at < upper(active))
		OR EXISTS (SELECT FROM partner_portal.key_history h
			WHERE h.workspace_id = import_key_activity.workspace_id AND h.key_id = import_key_activity.key_id
				AND h.active_from < upper(active) AND h.active_until > lower(active)) THEN
		RAISE EXCEPTION USING ERRCODE = 'exclusion_violation', MESSAGE = 'imported activity overlaps what is known',
			DETAIL = format('Security key %s of workspace %s was active then.', key_id, workspace_id);
	END IF;
	PERFORM partner_portal.add_earlier_periods(import_key_activity.workspace_id, lower(active));
	recorded := clock_timestamp();
	INSERT INTO partner_portal.key_history (workspace_id, key_id, active_from, active_until, kind, account_id, recorded_at, partner_key)
	SELECT imported.workspace_id, imported.key_id, lower(active), upper(active), imported.kind, imported.account_id, recorded,
		coalesce((SELECT p.partner_key FROM partner_portal.billing_period p
			WHERE p.workspace_id = imported.workspace_id AND p.period_start < upper(active) AND p.period_end >= upper(active)), imported.partner_key);
	UPDATE partner_portal.billing_period p SET late_facts_at = recorded
	WHERE p.workspace_id = imported.workspace_id AND p.closed_at IS NOT NULL
		AND p.period_start < upper(active) AND p.period_end > lower(active);
	INSERT INTO partner_portal.activity_import (workspace_id, key_id, active_from, active_until, reason, imported_at, imported_by, role_name)
	VALUES (imported.workspace_id, imported.key_id, lower(active), upper(active), reason, recorded,
		partner_portal.current_account_id(), partner_portal.calling_role()::text);
END
$$;
COMMENT ON FUNCTION partner_portal.import_key_activity(bigint, bigint, tstzrange, text) IS
'Brings in one active stretch [start, end) of an existing key, closed and in the past, with the key''s kind and holder. Periods before the workspace''s first one are opened for it. Recorded as of now: usage() with an earlier known_at lacks it. Operator only (42501); P0002 no such key, 22023 open, empty or in the future, 23P01 overlapping another stretch of the key.';
REVOKE ALL ON FUNCTION partner_portal.import_key_activity(bigint, bigint, tstzrange, text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('operator', 'SELECT', 'TABLE partner_portal.activity_import'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.import_key_activity(bigint, bigint, tstzrange, text)');
