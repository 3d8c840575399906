-- webhook.sql: endpoints that workspaces name, and the events sent to them, signed as Standard Webhooks.

CREATE TABLE partner_portal.webhook_endpoint (
	workspace_id bigint NOT NULL,
	endpoint_id bigint GENERATED ALWAYS AS IDENTITY,
	partner_key bigint NOT NULL,
	url text NOT NULL,
	events text[] NOT NULL,
	state text NOT NULL DEFAULT 'active',
	state_reason text,
	created_at timestamptz NOT NULL DEFAULT now(),
	nonce uuid NOT NULL DEFAULT gen_random_uuid(),
	key_version integer NOT NULL,
	secret_version integer NOT NULL DEFAULT 1,
	previous_secret_until timestamptz,
	CONSTRAINT webhook_endpoint_pkey PRIMARY KEY (workspace_id, endpoint_id),
	CONSTRAINT webhook_endpoint_workspace FOREIGN KEY (workspace_id, partner_key)
		REFERENCES partner_portal.workspace (workspace_id, partner_key) ON UPDATE CASCADE,
	CONSTRAINT webhook_endpoint_url CHECK (octet_length(url) <= 2048 AND url ~* '^https?://[^/?#@[:space:][:cntrl:]]+([/?][!-~]*)?$'),
	CONSTRAINT webhook_endpoint_events CHECK (cardinality(events) BETWEEN 1 AND 100 AND array_position(events, NULL) IS NULL),
	CONSTRAINT webhook_endpoint_state CHECK (state IN ('active', 'paused', 'disabled', 'deleted')),
	CONSTRAINT webhook_endpoint_state_reason CHECK (length(state_reason) <= 500)
);
CREATE INDEX webhook_endpoint_endpoint_id ON partner_portal.webhook_endpoint (endpoint_id);
CREATE INDEX webhook_endpoint_partner_key_idx ON partner_portal.webhook_endpoint (partner_key);
COMMENT ON TABLE partner_portal.webhook_endpoint IS
'Where a workspace wants events sent. A partner''s endpoint hears of its customers too. Changed by functions only.';
COMMENT ON COLUMN partner_portal.webhook_endpoint.events IS 'Names of events, as security_key.activated, or * for all; README.md lists them.';
COMMENT ON COLUMN partner_portal.webhook_endpoint.state IS 'active; paused (events wait); disabled (it answered 410, or failed for five days; events wait); deleted.';
COMMENT ON COLUMN partner_portal.webhook_endpoint.nonce IS 'What its secret is derived from, with the master key key_version of the secrets file.';
COMMENT ON COLUMN partner_portal.webhook_endpoint.previous_secret_until IS 'Until then messages are signed with the secret before, too.';

ALTER TABLE partner_portal.webhook_endpoint ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.webhook_endpoint AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.webhook_endpoint FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_settings'))
		OR partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_settings'))::bigint[]));

SELECT pg_catalog.pg_extension_config_dump('partner_portal.webhook_endpoint', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.webhook_endpoint_endpoint_id_seq', '');

CREATE FUNCTION partner_portal.webhook_secret(nonce uuid, key_version integer, version integer) RETURNS text
	LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'partner_portal_webhook_secret';
COMMENT ON FUNCTION partner_portal.webhook_secret(uuid, integer, integer) IS
'Derives a secret as whsec_ and base64. 55000 if the master key is not in the secrets file.';
REVOKE ALL ON FUNCTION partner_portal.webhook_secret(uuid, integer, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.webhook_key_version() RETURNS integer
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'partner_portal_webhook_key_version';
COMMENT ON FUNCTION partner_portal.webhook_key_version() IS 'Newest master key in the secrets file. 55000 if there is none.';
REVOKE ALL ON FUNCTION partner_portal.webhook_key_version() FROM PUBLIC;

CREATE FUNCTION partner_portal.webhook_signature(secret text, message_id text, at bigint, body text) RETURNS text
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_webhook_signature';
COMMENT ON FUNCTION partner_portal.webhook_signature(text, text, bigint, text) IS
'The signature that a delivery would carry at a Unix time in seconds, by Standard Webhooks: v1,base64(HMAC-SHA256(message_id.at.body)). 22023 if the secret is none.';
REVOKE ALL ON FUNCTION partner_portal.webhook_signature(text, text, bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.address_allowed(address text, port integer, networks text) RETURNS boolean
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_address_allowed';
COMMENT ON FUNCTION partner_portal.address_allowed(text, integer, text) IS
'Whether a webhook may be sent to an address when partner_portal.allow_cidr is the given list: it is public, or listed. 22023 for what is neither address nor list.';
REVOKE ALL ON FUNCTION partner_portal.address_allowed(text, integer, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.check_webhook(url text, events text[]) RETURNS void
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
	event text;
BEGIN
	IF url IS NULL OR octet_length(url) > 2048 OR url !~* '^https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]*)?([/?][!-~]*)?$' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'malformed address of an endpoint',
			HINT = 'It looks like https://host[:port]/path, at most 2048 ASCII characters, without user name or fragment.';
	END IF;
	PERFORM partner_portal.checked_port('the address of an endpoint', url);
	IF coalesce(cardinality(events), 0) NOT BETWEEN 1 AND 100 OR array_ndims(events) > 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'an endpoint needs 1 to 100 events',
			HINT = 'Use {*} for all.';
	END IF;
	FOREACH event IN ARRAY events LOOP
		IF event IS NULL OR event !~ '^(\*|[a-z0-9_]{1,63}(\.[a-z0-9_]{1,63}){0,6})$' THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('malformed event "%s"', left(event, 64)),
				HINT = 'Events look like security_key.activated; * is all.';
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION partner_portal.check_webhook(text, text[]) IS 'Raises 22023 if an endpoint cannot be as described.';
REVOKE ALL ON FUNCTION partner_portal.check_webhook(text, text[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.create_webhook_endpoint(workspace_id bigint, url text, events text[],
	OUT endpoint_id bigint, OUT secret text) RETURNS record
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	made partner_portal.webhook_endpoint;
BEGIN
	-- locked, so that those who come at once are counted too
	PERFORM partner_portal.authorized_live_workspace('manage_settings', create_webhook_endpoint.workspace_id);
	PERFORM partner_portal.check_webhook(create_webhook_endpoint.url, create_webhook_endpoint.events);
	IF (SELECT count(*) FROM partner_portal.webhook_endpoint e
		WHERE e.workspace_id = create_webhook_endpoint.workspace_id AND e.state <> 'deleted') >= 100 THEN
		RAISE EXCEPTION USING ERRCODE = 'program_limit_exceeded', MESSAGE = 'a workspace has at most 100 webhook endpoints';
	END IF;
	INSERT INTO partner_portal.webhook_endpoint AS e (workspace_id, partner_key, url, events, key_version)
	SELECT w.workspace_id, w.partner_key, create_webhook_endpoint.url, create_webhook_endpoint.events, partner_portal.webhook_key_version()
	FROM partner_portal.workspace w WHERE w.workspace_id = create_webhook_endpoint.workspace_id
	RETURNING * INTO made;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = 'no such workspace';
	END IF;
	INSERT INTO partner_portal.delivery_destination (destination) VALUES (made.endpoint_id);
	create_webhook_endpoint.endpoint_id := made.endpoint_id;
	create_webhook_endpoint.secret := partner_portal.webhook_secret(made.nonce, made.key_version, made.secret_version);
END
$$;
COMMENT ON FUNCTION partner_portal.create_webhook_endpoint(bigint, text, text[]) IS
'Registers an address for events of a workspace (a partner''s: of its customers too) and returns the secret that signs them. Needs manage_settings. 42501, P0002; 22004, 22023 malformed; PP005 the workspace is deleted; 54000 more than 100; 55000 no master key in partner_portal.secrets_file. An http address is served only if it is in partner_portal.allow_cidr.';
REVOKE ALL ON FUNCTION partner_portal.create_webhook_endpoint(bigint, text, text[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.authorize_thing(workspace_id bigint, not_found text) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF workspace_id IS NULL OR NOT (partner_portal.may('read', workspace_id) OR partner_portal.may('manage_settings', workspace_id)) THEN
		IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
			PERFORM partner_portal.authorize('manage_settings', -1);
		END IF;
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = coalesce(not_found, 'not found');
	END IF;
	PERFORM partner_portal.authorize('manage_settings', workspace_id);
END
$$;
COMMENT ON FUNCTION partner_portal.authorize_thing(bigint, text) IS
'Asks for manage_settings on the workspace of a thing found by its own id, without telling whose an invisible one is: P0002 with the text given, for what is absent (NULL) too. Internal.';
REVOKE ALL ON FUNCTION partner_portal.authorize_thing(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.authorized_endpoint(endpoint_id bigint) RETURNS partner_portal.webhook_endpoint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	endpoint partner_portal.webhook_endpoint;
BEGIN
	SELECT * INTO endpoint FROM partner_portal.webhook_endpoint e
	WHERE e.endpoint_id = authorized_endpoint.endpoint_id AND e.state <> 'deleted';
	PERFORM partner_portal.authorize_thing(endpoint.workspace_id, format('webhook endpoint %s not found', authorized_endpoint.endpoint_id));
	-- not before, or a stranger would lock it, and wait for whoever has
	SELECT * INTO endpoint FROM partner_portal.webhook_endpoint e
	WHERE e.workspace_id = endpoint.workspace_id AND e.endpoint_id = authorized_endpoint.endpoint_id AND e.state <> 'deleted'
	FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('webhook endpoint %s not found', authorized_endpoint.endpoint_id);
	END IF;
	RETURN endpoint;
END
$$;
COMMENT ON FUNCTION partner_portal.authorized_endpoint(bigint) IS 'Locks and returns an endpoint that who is asking may manage; as authorize() otherwise.';
REVOKE ALL ON FUNCTION partner_portal.authorized_endpoint(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.rotate_webhook_secret(endpoint_id bigint) RETURNS text
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	endpoint partner_portal.webhook_endpoint := partner_portal.authorized_endpoint(endpoint_id);
BEGIN
	UPDATE partner_portal.webhook_endpoint e
	SET secret_version = e.secret_version + 1, previous_secret_until = now() + interval '24 hours'
	WHERE e.workspace_id = endpoint.workspace_id AND e.endpoint_id = endpoint.endpoint_id;
	RETURN partner_portal.webhook_secret(endpoint.nonce, endpoint.key_version, endpoint.secret_version + 1);
END
$$;
COMMENT ON FUNCTION partner_portal.rotate_webhook_secret(bigint) IS
'Gives an endpoint a new secret and returns it; for 24 hours messages are signed with the old one too. Needs manage_settings. 42501; P0002 no such endpoint, or deleted; 55000 no master key in partner_portal.secrets_file.';
REVOKE ALL ON FUNCTION partner_portal.rotate_webhook_secret(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.set_endpoint_state(endpoint partner_portal.webhook_endpoint, state text, reason text) RETURNS void
	LANGUAGE sql
BEGIN ATOMIC
	UPDATE partner_portal.webhook_endpoint e SET state = set_endpoint_state.state, state_reason = set_endpoint_state.reason
	WHERE e.workspace_id = (set_endpoint_state.endpoint).workspace_id AND e.endpoint_id = (set_endpoint_state.endpoint).endpoint_id;
	UPDATE partner_portal.delivery_destination t
	SET paused = set_endpoint_state.state <> 'active',
		failures = CASE WHEN set_endpoint_state.state = 'active' THEN 0 ELSE t.failures END,
		failing_since = CASE WHEN set_endpoint_state.state <> 'active' THEN t.failing_since END,
		hold_until = CASE WHEN set_endpoint_state.state <> 'active' THEN t.hold_until END
	WHERE t.destination = (set_endpoint_state.endpoint).endpoint_id;
END;
COMMENT ON FUNCTION partner_portal.set_endpoint_state(partner_portal.webhook_endpoint, text, text) IS 'Changes the state of an endpoint and whether its messages wait.';
REVOKE ALL ON FUNCTION partner_portal.set_endpoint_state(partner_portal.webhook_endpoint, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.pause_webhook_endpoint(endpoint_id bigint, reason text DEFAULT NULL) RETURNS void
	LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS $$ SELECT partner_portal.set_endpoint_state(partner_portal.authorized_endpoint($1), 'paused', CASE WHEN $2 IS NOT NULL THEN partner_portal.checked_text('reason', left($2, 500), 500) END) $$;
COMMENT ON FUNCTION partner_portal.pause_webhook_endpoint(bigint, text) IS
'Lets the events of an endpoint wait until resume_webhook_endpoint(); of the reason the first 500 characters are kept. Needs manage_settings. 42501; P0002 no such endpoint, or deleted; 22023 a blank reason, or one with control characters.';
REVOKE ALL ON FUNCTION partner_portal.pause_webhook_endpoint(bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.resume_webhook_endpoint(endpoint_id bigint) RETURNS void
	LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS $$ SELECT partner_portal.set_endpoint_state(partner_portal.authorized_endpoint($1), 'active', NULL) $$;
COMMENT ON FUNCTION partner_portal.resume_webhook_endpoint(bigint) IS
'Sends an endpoint its events again, those that waited included; also after it was disabled. Needs manage_settings. 42501; P0002 no such endpoint, or deleted.';
REVOKE ALL ON FUNCTION partner_portal.resume_webhook_endpoint(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.delete_webhook_endpoint(endpoint_id bigint) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	endpoint partner_portal.webhook_endpoint := partner_portal.authorized_endpoint(endpoint_id);
BEGIN
	PERFORM partner_portal.set_endpoint_state(endpoint, 'deleted', NULL);
	WITH gone AS (
		DELETE FROM partner_portal.delivery_queue q
		WHERE q.workspace_id = endpoint.workspace_id AND q.destination = endpoint.endpoint_id
		RETURNING q.notification_id
	)
	UPDATE partner_portal.notification n SET state = 'cancelled', finished_at = now(), next_attempt_at = NULL
	FROM gone WHERE n.workspace_id = endpoint.workspace_id AND n.notification_id = gone.notification_id;
END
$$;
COMMENT ON FUNCTION partner_portal.delete_webhook_endpoint(bigint) IS 'Ends an endpoint for good; what it is still owed is cancelled. Needs manage_settings. 42501; P0002 no such endpoint, or deleted.';
REVOKE ALL ON FUNCTION partner_portal.delete_webhook_endpoint(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.endpoints_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_endpoints_changed';
COMMENT ON FUNCTION partner_portal.endpoints_changed() IS
'Trigger: tells every session, with the transaction, to look again which workspaces want events about keys. Fired also in a restoring session and under session_replication_role = replica.';
REVOKE ALL ON FUNCTION partner_portal.endpoints_changed() FROM PUBLIC;
CREATE TRIGGER changed_insert_delete AFTER INSERT OR DELETE ON partner_portal.webhook_endpoint
	FOR EACH ROW EXECUTE FUNCTION partner_portal.endpoints_changed();
CREATE TRIGGER changed_update AFTER UPDATE ON partner_portal.webhook_endpoint
	FOR EACH ROW WHEN ((OLD.workspace_id, OLD.events, OLD.state = 'deleted') IS DISTINCT FROM (NEW.workspace_id, NEW.events, NEW.state = 'deleted'))
	EXECUTE FUNCTION partner_portal.endpoints_changed();
ALTER TABLE partner_portal.webhook_endpoint ENABLE ALWAYS TRIGGER changed_insert_delete, ENABLE ALWAYS TRIGGER changed_update;

CREATE FUNCTION partner_portal.enqueue_event_for(hearers bigint[], workspace_id bigint, event text, data jsonb, dedupe_key text) RETURNS bigint
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_enqueue_event_for';
COMMENT ON FUNCTION partner_portal.enqueue_event_for(bigint[], bigint, text, jsonb, text) IS
'As enqueue_webhook_event(), to the endpoints of the workspaces that are to hear of it.';
REVOKE ALL ON FUNCTION partner_portal.enqueue_event_for(bigint[], bigint, text, jsonb, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.enqueue_webhook_event(workspace_id bigint, event text, data jsonb, dedupe_key text) RETURNS bigint
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_enqueue_webhook_event';
COMMENT ON FUNCTION partner_portal.enqueue_webhook_event(bigint, text, jsonb, text) IS
'For our own functions, in the transaction that causes the event: one message per endpoint of the workspace and of its partner that wants it, at most once per workspace and dedupe_key. The body is {"type", "timestamp", "data"}, where data always has workspace_id. Returns how many are owed.';
REVOKE ALL ON FUNCTION partner_portal.enqueue_webhook_event(bigint, text, jsonb, text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT (workspace_id, endpoint_id, partner_key, url, events, state, state_reason, created_at, previous_secret_until)', 'TABLE partner_portal.webhook_endpoint'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.create_webhook_endpoint(bigint, text, text[])'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.rotate_webhook_secret(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.pause_webhook_endpoint(bigint, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.resume_webhook_endpoint(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.delete_webhook_endpoint(bigint)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.address_allowed(text, integer, text)');
