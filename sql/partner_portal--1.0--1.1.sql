-- partner_portal--1.0--1.1.sql: from 1.0 to 1.1, in the order of the parts.
--
-- Afterwards the catalog is that of a fresh 1.1, which test/t/055_upgrade.pl demands.
--  * A function that 1.0 has is replaced (CREATE OR REPLACE) without REVOKE or GRANT: it keeps its privileges. A GRANT or
--    REVOKE on an object of 1.0 would make those of the enrolled roles part of the extension, and pg_dump leave them out.
--  * A function whose arguments or result change is dropped and made again; its rows in role_grant are deleted and inserted
--    again, for its privileges went with it.
--  * New columns come last in their table.

\echo Use "ALTER EXTENSION partner_portal UPDATE TO '1.1'" to load this file. \quit

-- First of all what has each INSERT INTO role_grant below granted to the roles that are enrolled.
CREATE FUNCTION partner_portal.issue_grant(role regrole, privilege text, object text) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'partner_portal_issue_grant';
COMMENT ON FUNCTION partner_portal.issue_grant(regrole, text, text) IS
'GRANT privilege ON object TO role, with the rights of the caller. What the script of an upgrade grants through it is the role''s own and part of a dump. 42704: no such role. Internal.';
REVOKE ALL ON FUNCTION partner_portal.issue_grant(regrole, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.kinds_within(as_what text) RETURNS text[]
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT CASE WHEN as_what IN ('trusted_application', 'operator') THEN ARRAY[as_what, 'application'] ELSE ARRAY[as_what] END;
END;
COMMENT ON FUNCTION partner_portal.kinds_within(text) IS
'The kinds whose rows of role_grant a role of this kind needs: its own, and those of an application where it is more than one. Internal.';
REVOKE ALL ON FUNCTION partner_portal.kinds_within(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.grant_to_enrolled() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.issue_grant(r.oid, n.privilege, n.object)
	FROM new_line n JOIN partner_portal.enrolled_role e ON n.as_what = ANY (partner_portal.kinds_within(e.as_what))
		JOIN pg_roles r ON r.rolname = e.role_name
	WHERE has_schema_privilege(r.oid, 'partner_portal', 'USAGE');
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.grant_to_enrolled() IS
'Statement trigger of role_grant: what an upgrade adds is granted to the roles that were enrolled, but for those that are gone or have lost USAGE on the schema. What was taken from a role by hand is not given back. Internal.';
REVOKE ALL ON FUNCTION partner_portal.grant_to_enrolled() FROM PUBLIC;
CREATE TRIGGER grant_to_enrolled AFTER INSERT ON partner_portal.role_grant
	REFERENCING NEW TABLE AS new_line FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.grant_to_enrolled();

-- schema.sql

-- input.sql

CREATE FUNCTION partner_portal.check_addresses() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_check_addresses';
COMMENT ON FUNCTION partner_portal.check_addresses() IS
'Trigger, with names of columns: 22023 for an address written there whose port is not between 1 and 65535. A restored row, and an address that stays, may have one.';
REVOKE ALL ON FUNCTION partner_portal.check_addresses() FROM PUBLIC;

CREATE FUNCTION partner_portal.check_names() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_check_names';
COMMENT ON FUNCTION partner_portal.check_names() IS
'Trigger, with names of columns: 22023 for a text written there with characters that are not seen, as in checked_text(). A restored row, and a text that stays, may have them.';
REVOKE ALL ON FUNCTION partner_portal.check_names() FROM PUBLIC;

CREATE FUNCTION partner_portal.checked_port(argument text, url text) RETURNS text
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_checked_port';
COMMENT ON FUNCTION partner_portal.checked_port(text, text) IS
'Returns an address as given. 22023 it names a port that is not between 1 and 65535.';
REVOKE ALL ON FUNCTION partner_portal.checked_port(text, text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION partner_portal.has_controls(value text) RETURNS boolean
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_has_controls';
COMMENT ON FUNCTION partner_portal.has_controls(text) IS
'Whether a text of several lines has characters that are not seen, as in checked_text(), other than tabs and line ends.';

COMMENT ON FUNCTION partner_portal.checked_text(text, text, integer) IS
'Returns a one-line text as given. 22004 NULL, 22001 more than max_length characters, 22023 blank, or with characters that are not seen: controls, and in a UTF8 database marks, embeddings, overrides and isolates of direction, zero width spaces and fillers, tags but for the flags of England, Scotland and Wales, and joiners and variation selectors where no script needs them.';

-- identity.sql

CREATE OR REPLACE FUNCTION partner_portal.map_role(role regrole, account_id bigint) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	mapped name;
	erased boolean;
BEGIN
	IF NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator may map a role to an account';
	END IF;
	IF role IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'role must not be null';
	END IF;
	SELECT r.rolname INTO mapped FROM pg_roles r WHERE r.oid = role;
	IF mapped IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = 'role does not exist';
	END IF;
	IF map_role.account_id IS NULL THEN
		DELETE FROM partner_portal.role_account m WHERE m.role_name = mapped;
		RETURN;
	END IF;
	SELECT a.erased_at IS NOT NULL INTO erased FROM partner_portal.account a WHERE a.account_id = map_role.account_id FOR KEY SHARE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('account %s does not exist', map_role.account_id);
	ELSIF erased THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('account %s is erased', map_role.account_id);
	END IF;
	INSERT INTO partner_portal.role_account AS m (role_name, account_id) VALUES (mapped, map_role.account_id)
	ON CONFLICT ON CONSTRAINT role_account_pkey DO UPDATE SET account_id = excluded.account_id;
END
$$;
COMMENT ON FUNCTION partner_portal.map_role(regrole, bigint) IS
'Maps a database role to the account that login_role() signs in for it, in place of an earlier one; NULL for account_id ends it. The role is remembered by name. Operator only (42501); P0002 no such account; PP005 it is erased.';

CREATE OR REPLACE FUNCTION partner_portal.link_identity(account_id bigint, issuer text, subject text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	linked bigint;
	erased boolean;
BEGIN
	IF NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator may link an identity';
	END IF;
	IF link_identity.account_id IS NULL OR link_identity.issuer IS NULL OR link_identity.subject IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'account_id, issuer and subject must not be null';
	END IF;
	IF octet_length(link_identity.issuer) NOT BETWEEN 1 AND 1000 OR octet_length(link_identity.subject) NOT BETWEEN 1 AND 1000 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'issuer and subject must have 1 to 1000 bytes';
	END IF;
	-- what is linked to an erased account would tell about the person again
	SELECT a.erased_at IS NOT NULL INTO erased FROM partner_portal.account a WHERE a.account_id = link_identity.account_id FOR KEY SHARE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('account %s does not exist', link_identity.account_id);
	ELSIF erased THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('account %s is erased', link_identity.account_id);
	END IF;
	INSERT INTO partner_portal.account_identity AS i (issuer, subject, account_id)
	VALUES (link_identity.issuer, link_identity.subject, link_identity.account_id)
	ON CONFLICT ON CONSTRAINT account_identity_pkey DO UPDATE SET account_id = i.account_id
	RETURNING i.account_id INTO linked;
	IF linked <> link_identity.account_id THEN
		RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = 'this issuer and subject are linked to another account',
			DETAIL = format('They are linked to account %s.', linked), HINT = 'End that link first with partner_portal.unlink_identity().';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.link_identity(bigint, text, text) IS
'Lets tokens with this iss and sub sign an account in, whatever partner_portal.subject_claim says. Repeating it changes nothing. Operator only (42501); P0002 no such account; PP005 it is erased; 23505 linked to another account; 22023 an empty text or one of more than 1000 bytes.';

ALTER TABLE partner_portal.account ADD COLUMN former_emails jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN partner_portal.account.former_emails IS 'Addresses it had before, in lower case, each with the instant until which: by them erase_account() finds what was written there. Noted by change_email(); applications have no privilege on it.';

CREATE INDEX revoked_token_until ON partner_portal.revoked_token (until);
COMMENT ON TABLE partner_portal.revoked_token IS 'Tokens refused before their time (revoke_token); a row is of no use after until, and tick() deletes it a day later.';

CREATE TRIGGER check_names BEFORE INSERT OR UPDATE ON partner_portal.account
	FOR EACH ROW EXECUTE FUNCTION partner_portal.check_names('name');

-- permission.sql

COMMENT ON FUNCTION partner_portal.looks_after(bigint) IS 'Whether one acts as owner or administrator of the workspace''s partner. For policies.';
COMMENT ON FUNCTION partner_portal.highest_partner_key() IS 'Upper end of the range that lowest_partner_key() begins. For policies.';

-- workspace.sql

COMMENT ON COLUMN partner_portal.workspace.slug IS 'Short name in addresses, a DNS label; unique on the platform, also among deleted workspaces.';
COMMENT ON COLUMN partner_portal.workspace.deleted_at IS 'When delete_workspace() ended it; NULL while it lives.';
COMMENT ON COLUMN partner_portal.workspace.suspended_at IS 'Since when suspend_workspace() keeps its keys off; NULL is not suspended.';
COMMENT ON COLUMN partner_portal.workspace.sso_enabled IS 'Whether its people sign in by single sign-on: kept for the application, the extension makes nothing of it.';
COMMENT ON COLUMN partner_portal.workspace.notify_new_keys IS 'Whether its owners and administrators get a daily mail with the keys added that local day, if there are any.';
COMMENT ON COLUMN partner_portal.workspace.notify_billing IS 'Whether its owners get the billing report by mail when a document that it pays or sees becomes final.';
COMMENT ON COLUMN partner_portal.workspace.time_zone IS 'Zone of its billing periods and local dates, by its IANA name; a change begins at the end of the current period.';
COMMENT ON COLUMN partner_portal.workspace.billing_step IS 'Length of a billing period: month, quarter, half_year or year; a change begins at the end of the current period.';
COMMENT ON COLUMN partner_portal.workspace.billing_from IS 'Billing periods that end by this instant are measured, never invoiced; the one it lies in is invoiced as a whole.';
COMMENT ON COLUMN partner_portal.workspace.auto_finalize IS 'Whether a billing run finalizes drafts when their grace is over; else they wait for finalize_invoice().';
COMMENT ON COLUMN partner_portal.workspace.invoice_visibility IS 'Who sees documents of periods that start from now on, beside the issuer: payer, or both payer and workspace.';

-- member.sql

-- product.sql

CREATE OR REPLACE FUNCTION partner_portal.guard_product() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'INSERT' THEN
		IF partner_portal.restoring_session() THEN
			RETURN NEW;
		END IF;
		NEW.created_at := clock_timestamp();
		-- stays with its partner, as long as this transaction lasts
		SELECT w.partner_key INTO NEW.partner_key FROM partner_portal.workspace w WHERE w.workspace_id = NEW.workspace_id FOR KEY SHARE;
		NEW.partner_key := coalesce(NEW.partner_key, 0);
	ELSIF (NEW.workspace_id, NEW.product_id, NEW.created_at) IS DISTINCT FROM (OLD.workspace_id, OLD.product_id, OLD.created_at) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'workspace_id, product_id and created_at of a product never change';
	ELSIF NEW.category <> OLD.category AND NOT partner_portal.may('manage_products', NEW.workspace_id) THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('product %s cannot be moved to another category', NEW.product_id),
			DETAIL = 'Access is granted by category, and the grant does not cover all of them.';
	END IF;
	IF NEW.partner_access AND (TG_OP = 'INSERT' OR NOT OLD.partner_access)
		AND NOT (partner_portal.is_operator() OR NEW.workspace_id IS NOT DISTINCT FROM partner_portal.own_workspace('manage_products'))
	THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('only workspace %s itself may let its partner near a product', NEW.workspace_id);
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION partner_portal.limited_workspaces() IS 'Workspaces that granted access to some products alone. For policies.';

CREATE TRIGGER check_names BEFORE INSERT OR UPDATE ON partner_portal.product
	FOR EACH ROW EXECUTE FUNCTION partner_portal.check_names('category', 'name', 'external_ref');

-- access_grant.sql

-- permission_signal.sql

-- my_workspaces.sql

-- explain_access.sql

-- notification.sql

ALTER TABLE partner_portal.notification DROP CONSTRAINT notification_kind,
	ADD CONSTRAINT notification_kind CHECK (length(kind) <= 511 AND kind ~ '^[a-z0-9_]+(\.[a-z0-9_]+)*$');
DROP INDEX partner_portal.delivery_queue_due, partner_portal.delivery_queue_leased;
CREATE INDEX delivery_queue_due ON partner_portal.delivery_queue (destination, next_attempt_at, notification_id);
COMMENT ON COLUMN partner_portal.delivery_queue.claims IS 'Times claimed since a result was last recorded, but for those whose engine ended while the server was up; at three it is dead.';

CREATE OR REPLACE FUNCTION partner_portal.enqueue_mail(workspace_id bigint, kind text, dedupe_key text, recipient text, locale text,
	mail partner_portal.mail_content, secret text DEFAULT NULL, expires_at timestamptz DEFAULT NULL, unsubscribe_url text DEFAULT NULL) RETURNS bigint
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_enqueue_mail';

-- webhook.sql

COMMENT ON COLUMN partner_portal.webhook_endpoint.events IS 'Names of events, as security_key.activated, or * for all; README.md lists them.';

CREATE OR REPLACE FUNCTION partner_portal.check_webhook(url text, events text[]) RETURNS void
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

CREATE OR REPLACE FUNCTION partner_portal.enqueue_webhook_event(workspace_id bigint, event text, data jsonb, dedupe_key text) RETURNS bigint
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_enqueue_webhook_event';
COMMENT ON FUNCTION partner_portal.enqueue_webhook_event(bigint, text, jsonb, text) IS
'For our own functions, in the transaction that causes the event: one message per endpoint of the workspace and of its partner that wants it, at most once per workspace and dedupe_key. The body is {"type", "timestamp", "data"}, where data always has workspace_id. Returns how many are owed.';

CREATE OR REPLACE FUNCTION partner_portal.pause_webhook_endpoint(endpoint_id bigint, reason text DEFAULT NULL) RETURNS void
	LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS $$ SELECT partner_portal.set_endpoint_state(partner_portal.authorized_endpoint($1), 'paused', CASE WHEN $2 IS NOT NULL THEN partner_portal.checked_text('reason', left($2, 500), 500) END) $$;
COMMENT ON FUNCTION partner_portal.pause_webhook_endpoint(bigint, text) IS
'Lets the events of an endpoint wait until resume_webhook_endpoint(); of the reason the first 500 characters are kept. Needs manage_settings. 42501; P0002 no such endpoint, or deleted; 22023 a blank reason, or one with control characters.';
COMMENT ON FUNCTION partner_portal.rotate_webhook_secret(bigint) IS
'Gives an endpoint a new secret and returns it; for 24 hours messages are signed with the old one too. Needs manage_settings. 42501; P0002 no such endpoint, or deleted; 55000 no master key in partner_portal.secrets_file.';
COMMENT ON FUNCTION partner_portal.resume_webhook_endpoint(bigint) IS
'Sends an endpoint its events again, those that waited included; also after it was disabled. Needs manage_settings. 42501; P0002 no such endpoint, or deleted.';
COMMENT ON FUNCTION partner_portal.delete_webhook_endpoint(bigint) IS 'Ends an endpoint for good; what it is still owed is cancelled. Needs manage_settings. 42501; P0002 no such endpoint, or deleted.';
COMMENT ON FUNCTION partner_portal.create_webhook_endpoint(bigint, text, text[]) IS
'Registers an address for events of a workspace (a partner''s: of its customers too) and returns the secret that signs them. Needs manage_settings. 42501, P0002; 22023 malformed; 54000 more than 100; 55000 no master key in partner_portal.secrets_file. An http address is served only if it is in partner_portal.allow_cidr.';

CREATE OR REPLACE FUNCTION partner_portal.authorized_endpoint(endpoint_id bigint) RETURNS partner_portal.webhook_endpoint
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

CREATE OR REPLACE FUNCTION partner_portal.create_webhook_endpoint(workspace_id bigint, url text, events text[],
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

-- delivery.sql

CREATE OR REPLACE FUNCTION partner_portal.record_failure(workspace_id bigint, notification_id bigint, token integer, outcome text,
	code integer, error text, retry_after integer) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	message partner_portal.notification;
	queued partner_portal.delivery_queue;
	wait interval;
	hold interval;
BEGIN
	SELECT * INTO queued FROM partner_portal.delivery_queue q
	WHERE q.workspace_id = record_failure.workspace_id AND q.notification_id = record_failure.notification_id
		AND q.lease_token = record_failure.token FOR UPDATE;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	SELECT * INTO message FROM partner_portal.notification n
	WHERE n.workspace_id = record_failure.workspace_id AND n.notification_id = record_failure.notification_id FOR NO KEY UPDATE;
	INSERT INTO partner_portal.delivery_attempt (workspace_id, notification_id, partner_key, outcome, code, error)
	VALUES (record_failure.workspace_id, record_failure.notification_id, message.partner_key, record_failure.outcome,
		nullif(record_failure.code, 0), left(record_failure.error, 500));

	-- The destination: the more failures in a row, the longer it is left alone; a message's own refusal says nothing about it.
	IF outcome IN ('retry', 'ambiguous', 'configuration', 'gone') THEN
		SELECT CASE WHEN retry_after > 0 THEN make_interval(secs => retry_after)
				WHEN outcome = 'configuration' THEN interval '5 seconds' * least(60, 2 ^ least(t.failures, 6))
				WHEN t.failures >= 4 AND queued.destination <> 0 THEN interval '1 minute' * least(60, t.failures - 3) END
		INTO hold FROM partner_portal.delivery_destination t WHERE t.destination = queued.destination;
		UPDATE partner_portal.delivery_destination t
		SET failures = t.failures + 1, failing_since = coalesce(t.failing_since, clock_timestamp()),
			hold_until = CASE WHEN hold IS NULL THEN t.hold_until ELSE greatest(t.hold_until, clock_timestamp() + hold) END,
			last_error = left(record_failure.error, 500)
		WHERE t.destination = queued.destination;
	END IF;

	IF outcome = 'refused' THEN
		PERFORM partner_portal.finish_notification(record_failure.workspace_id, record_failure.notification_id,
			CASE WHEN code = 0 THEN 'dead' ELSE 'refused' END, code, error);
		UPDATE partner_portal.notification n SET attempts = n.attempts + 1
		WHERE n.workspace_id = record_failure.workspace_id AND n.notification_id = record_failure.notification_id;
		RETURN;
	END IF;
	IF message.expires_at <= clock_timestamp() THEN
		PERFORM partner_portal.finish_notification(record_failure.workspace_id, record_failure.notification_id, 'cancelled', code, 'expired; ' || error);
		RETURN;
	END IF;
	IF outcome IN ('retry', 'ambiguous') THEN
		wait := greatest(partner_portal.retry_delay(message.attempts + 1), make_interval(secs => retry_after));
		IF message.attempts + 1 >= 10 THEN
			PERFORM partner_portal.finish_notification(record_failure.workspace_id, record_failure.notification_id, 'dead', code, error);
			UPDATE partner_portal.notification n SET attempts = n.attempts + 1
			WHERE n.workspace_id = record_failure.workspace_id AND n.notification_id = record_failure.notification_id;
			RETURN;
		END IF;
	ELSE
		-- Not counted. Held back by the destination, if at all; what was merely interrupted is due at once.
		wait := CASE outcome WHEN 'aborted' THEN interval '1 second' ELSE interval '0' END;
	END IF;
	UPDATE partner_portal.delivery_queue q
	SET next_attempt_at = clock_timestamp() + wait, claims = 0, lease_token = NULL, lease_until = NULL
	WHERE q.workspace_id = record_failure.workspace_id AND q.notification_id = record_failure.notification_id;
	UPDATE partner_portal.notification n
	SET attempts = n.attempts + CASE WHEN outcome IN ('retry', 'ambiguous') THEN 1 ELSE 0 END,
		next_attempt_at = clock_timestamp() + wait, last_code = nullif(code, 0), last_error = left(error, 500)
	WHERE n.workspace_id = record_failure.workspace_id AND n.notification_id = record_failure.notification_id;

	-- An endpoint that says it is gone, or that failed for five days on end, gets no more until it is resumed.
	IF queued.destination <> 0 AND (outcome = 'gone' OR EXISTS (SELECT FROM partner_portal.delivery_destination t
			WHERE t.destination = queued.destination AND t.failing_since < clock_timestamp() - interval '5 days')) THEN
		PERFORM partner_portal.set_endpoint_state(e, 'disabled', CASE outcome WHEN 'gone' THEN 'it answered 410 Gone' ELSE 'it failed for five days' END),
			partner_portal.notify_endpoint_disabled(e, outcome = 'gone')
		FROM partner_portal.webhook_endpoint e
		WHERE e.workspace_id = record_failure.workspace_id AND e.endpoint_id = queued.destination AND e.state = 'active';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.record_failure(bigint, bigint, integer, text, integer, text, integer) IS
'Records an attempt that failed, if the engine still holds its lease: again by the schedule, dead, refused or cancelled.';

CREATE FUNCTION partner_portal.replay_webhook_events(endpoint_id bigint, since timestamptz, until timestamptz DEFAULT now(), failed_only boolean DEFAULT false) RETURNS bigint
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	endpoint partner_portal.webhook_endpoint := partner_portal.authorized_endpoint(endpoint_id);
	replayed bigint;
BEGIN
	IF since IS NULL OR until IS NULL OR failed_only IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'since, until and failed_only must not be null';
	END IF;
	IF since >= until THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'since must be before until';
	END IF;
	WITH again AS (
		UPDATE partner_portal.notification n SET state = 'pending', attempts = 0, next_attempt_at = now(), finished_at = NULL
		WHERE n.workspace_id = endpoint.workspace_id AND n.endpoint_id = endpoint.endpoint_id
			AND n.occurred_at >= since AND n.occurred_at < until
			AND n.state IN ('refused', 'dead', CASE WHEN NOT failed_only THEN 'delivered' END)
		RETURNING n.workspace_id, n.notification_id
	), queued AS (
		INSERT INTO partner_portal.delivery_queue AS q (workspace_id, notification_id, destination)
		SELECT a.workspace_id, a.notification_id, endpoint.endpoint_id FROM again a
		RETURNING q.notification_id
	)
	SELECT count(*) INTO replayed FROM queued;
	RETURN replayed;
END
$$;
COMMENT ON FUNCTION partner_portal.replay_webhook_events(bigint, timestamptz, timestamptz, boolean) IS
'Sends an endpoint again, with the same message ids, the events that occurred since an instant and before until: delivered, refused and dead ones, or only those that failed; pending ones come anyway, and delivered ones are kept for 90 days. Returns how many. Needs manage_settings. 42501; P0002; 22004; 22023 since is not before until.';
REVOKE ALL ON FUNCTION partner_portal.replay_webhook_events(bigint, timestamptz, timestamptz, boolean) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.replay_webhook_events(bigint, timestamptz, timestamptz, boolean)');

CREATE FUNCTION partner_portal.engine_is_gone(token integer) RETURNS boolean
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'partner_portal_engine_is_gone';
COMMENT ON FUNCTION partner_portal.engine_is_gone(integer) IS
'Whether no engine runs that is known by this number, and none may to the end of the transaction: it locks the number, as an engine does while it runs, with a lock that pg_advisory_lock() cannot take. Internal.';
REVOKE ALL ON FUNCTION partner_portal.engine_is_gone(integer) FROM PUBLIC;

CREATE OR REPLACE FUNCTION partner_portal.release_stale_deliveries(own_token integer) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = on AS $$
DECLARE
	token integer;
	lost record;
	up_since timestamptz := (SELECT a.backend_start FROM pg_stat_activity a WHERE a.backend_type = 'checkpointer');
BEGIN
	-- An engine locks its number while it runs: where the lock can be had, nobody holds the lease any more.
	FOR token IN
		SELECT DISTINCT q.lease_token FROM partner_portal.delivery_queue q
		WHERE q.lease_token IS NOT NULL AND q.lease_token <> own_token
	LOOP
		IF partner_portal.engine_is_gone(token) THEN
			FOR lost IN
				-- A message that kills its engine brings the server down with it. Where that has been up since the claim (a lease is for
				-- two hours), the engine ended for another reason: an error, a cancelled CALL. Such claims do not count, up to ten.
				SELECT q.workspace_id, q.notification_id, n.partner_key,
					q.claims - CASE WHEN q.lease_until - interval '2 hours' >= up_since THEN 1 ELSE 0 END AS claims,
					(SELECT count(*) FROM partner_portal.delivery_attempt a
						WHERE a.workspace_id = q.workspace_id AND a.notification_id = q.notification_id AND a.outcome = 'lost') + 1 AS losses
				FROM partner_portal.delivery_queue q
				JOIN partner_portal.notification n ON n.workspace_id = q.workspace_id AND n.notification_id = q.notification_id
				WHERE q.lease_token = token FOR UPDATE OF q SKIP LOCKED
			LOOP
				INSERT INTO partner_portal.delivery_attempt (workspace_id, notification_id, partner_key, outcome, error)
				VALUES (lost.workspace_id, lost.notification_id, lost.partner_key, 'lost', 'the engine ended before it could record the result');
				IF lost.claims >= 3 OR lost.losses >= 10 THEN
					PERFORM partner_portal.finish_notification(lost.workspace_id, lost.notification_id, 'dead', 0,
						CASE WHEN lost.claims >= 3 THEN 'claimed three times and never recorded' ELSE 'claimed ten times and never recorded' END);
				ELSE
					UPDATE partner_portal.delivery_queue q SET claims = lost.claims, lease_token = NULL, lease_until = NULL
					WHERE q.workspace_id = lost.workspace_id AND q.notification_id = lost.notification_id;
				END IF;
			END LOOP;
		END IF;
	END LOOP;
	UPDATE partner_portal.delivery_queue q SET lease_token = NULL, lease_until = NULL
	WHERE q.lease_token IS NOT NULL AND q.lease_until < clock_timestamp() AND q.lease_token <> own_token;
END
$$;
COMMENT ON FUNCTION partner_portal.release_stale_deliveries(integer) IS
'Frees what engines had claimed that are no more. A row claimed three times and never recorded becomes a dead letter if the server went down each time, since it may be what kills it; whatever the engines ended of, the tenth time.';

-- security_key.sql

COMMENT ON COLUMN partner_portal.security_key.serial IS 'The device''s own number, unique per workspace. Like label it has no control characters (22023).';
ALTER TABLE partner_portal.key_history DROP CONSTRAINT key_history_pkey,
	ADD CONSTRAINT key_history_pkey PRIMARY KEY (workspace_id, active_until, key_id);
DROP INDEX partner_portal.key_history_active_until;

-- billing_period.sql

COMMENT ON COLUMN partner_portal.usage_period.kind IS 'Kind of key; NULL is all keys together.';
COMMENT ON COLUMN partner_portal.usage_period.distinct_keys IS 'Different keys that were active at any time in the period: the default measure of bills.';
COMMENT ON COLUMN partner_portal.usage_period.peak_keys IS 'Most keys active at one instant; where one ends as another starts, the end comes first.';
COMMENT ON COLUMN partner_portal.usage_period.peak_at IS 'The first such instant; NULL when no key was active.';
COMMENT ON COLUMN partner_portal.usage_period.end_keys IS 'Keys active just before the end of the period.';
COMMENT ON COLUMN partner_portal.usage_period.start_keys IS 'Keys active at its start.';
COMMENT ON COLUMN partner_portal.usage_period.key_days IS 'Sum over the keys of the local dates on which each was active, divided by the local dates of the whole period.';
COMMENT ON COLUMN partner_portal.usage_period.key_seconds IS 'Sum over the keys of the seconds that each was active in the period.';
COMMENT ON COLUMN partner_portal.usage_period.users IS 'Different holders of keys that were active in the period.';
COMMENT ON COLUMN partner_portal.usage_period.known_at IS 'Facts recorded by this instant are in the measures.';

-- key_limit.sql

COMMENT ON FUNCTION partner_portal.refuse_truncate() IS
'Trigger of tables: TRUNCATE is 0A000, unless partner_portal.allow_drop is on; of those with the argument counted, keys, their history, members and counters, in any case.';
DROP TRIGGER refuse_truncate ON partner_portal.security_key;
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON partner_portal.security_key
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.refuse_truncate('counted');
DROP TRIGGER refuse_truncate ON partner_portal.key_history;
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON partner_portal.key_history
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.refuse_truncate('counted');
DROP TRIGGER refuse_truncate ON partner_portal.workspace_usage;
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON partner_portal.workspace_usage
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.refuse_truncate('counted');
DROP TRIGGER refuse_truncate ON partner_portal.member;
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON partner_portal.member
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.refuse_truncate('counted');

-- usage.sql

-- A stretch is history once it has ended; asked for what was known before its end, it is one that was running. Of a period
-- that was closed by then every stretch is known but what was imported later: under the lock of the counters closing saw all
-- that was stamped before the period's end, and nothing is since. Stamps alone would not tell, for those of a workspace whose
-- periods were closed ahead of the clock are ahead of it too. An import is recorded after its stretch, all else at its start.
CREATE OR REPLACE FUNCTION partner_portal.measure_usage(workspace_ids bigint[], starts timestamptz[], ends timestamptz[], time_zones text[], known_at timestamptz)
	RETURNS TABLE (workspace_id bigint, period_start timestamptz, kind text, distinct_keys integer, peak_keys integer, peak_at timestamptz,
		end_keys integer, start_keys integer, key_days numeric, key_seconds numeric, users integer)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		WITH asked AS MATERIALIZED (
			SELECT a.workspace_id, a.period_start, a.period_end, a.time_zone,
				measure_usage.known_at IS NULL OR EXISTS (SELECT FROM partner_portal.billing_period p
					WHERE p.workspace_id = a.workspace_id AND p.period_start = a.period_start AND p.period_end = a.period_end
						AND p.closed_at <= measure_usage.known_at) AS settled
			FROM unnest(measure_usage.workspace_ids, measure_usage.starts, measure_usage.ends, measure_usage.time_zones)
				AS a (workspace_id, period_start, period_end, time_zone)
		), measured AS MATERIALIZED (
			SELECT a.workspace_id, a.period_start, coalesce(f.kind, 'total') AS kind,
				partner_portal.measure_stretches(a.period_start, a.period_end, a.time_zone,
					f.key_id, f.account_id, f.active_from, f.active_until) AS m
			FROM asked a
			CROSS JOIN LATERAL (
				SELECT h.kind, h.key_id, h.account_id, h.active_from,
					CASE WHEN a.settled OR h.active_until <= measure_usage.known_at THEN h.active_until END AS active_until
				FROM partner_portal.key_history h
				WHERE h.workspace_id = a.workspace_id
					AND h.active_until > CASE WHEN a.settled THEN a.period_start ELSE least(a.period_start, measure_usage.known_at) END
					AND h.active_from < a.period_end
					AND (h.recorded_at <= coalesce(measure_usage.known_at, 'infinity') OR (a.settled AND h.recorded_at = h.active_from))
				UNION ALL
				SELECT k.kind, k.key_id, k.account_id, k.activated_at, NULL
				FROM partner_portal.security_key k
				WHERE k.workspace_id = a.workspace_id AND k.status = 'active'
					AND k.activated_at < a.period_end
					AND (a.settled OR k.activated_at <= measure_usage.known_at)
			) f
			GROUP BY GROUPING SETS ((a.workspace_id, a.period_start, f.kind), (a.workspace_id, a.period_start))
		)
		SELECT a.workspace_id, a.period_start, g.kind, coalesce((m.m).distinct_keys, 0), coalesce((m.m).peak_keys, 0), (m.m).peak_at,
			coalesce((m.m).end_keys, 0), coalesce((m.m).start_keys, 0), coalesce((m.m).key_days, 0), coalesce((m.m).key_seconds, 0),
			coalesce((m.m).users, 0)
		FROM asked a
		CROSS JOIN (VALUES (1, 'contactless_card'), (2, 'smartphone'), (3, 'total')) g (place, kind)
		LEFT JOIN measured m ON m.workspace_id = a.workspace_id AND m.period_start = a.period_start AND m.kind = g.kind
		ORDER BY a.workspace_id, a.period_start, g.place;
	END;

-- close_period.sql

-- activity_import.sql

-- restoring.sql

-- price_plan.sql

COMMENT ON COLUMN partner_portal.plan_component.kind IS 'Kind of key that it prices; NULL all keys together.';
COMMENT ON COLUMN partner_portal.plan_component.model IS 'flat: unit_price for the period. per_unit: unit_price each. graduated: each unit by the band it lies in. volume: all units by the band of the last. package: unit_price for each package begun.';
COMMENT ON COLUMN partner_portal.plan_component.package_size IS 'Units in a package; NULL but for the model package.';

CREATE OR REPLACE FUNCTION partner_portal.check_component(currency text, kind text, model text, measure text, tiers jsonb, unit_price numeric, package_size integer,
	minimum_minor bigint, free_units integer) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	fault text;
	way_out text;
	most numeric;
BEGIN
	-- what one unit costs is an amount by itself
	SELECT 9223372036854775807 * power(0.1::numeric, c.minor_digits::numeric) INTO most FROM partner_portal.currency c WHERE c.code = currency;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown currency "%s"', left(currency, 64)),
			HINT = 'Currencies are ISO 4217 codes in capitals; see partner_portal.currency.';
	END IF;
	IF kind NOT IN ('smartphone', 'contactless_card') THEN
		fault := format('unknown kind of key "%s"', left(kind, 64));
		way_out := 'Kinds are smartphone and contactless_card; NULL prices all keys together.';
	ELSIF model IS NULL OR model NOT IN ('flat', 'per_unit', 'graduated', 'volume', 'package') THEN
		fault := format('unknown price model "%s"', left(model, 64));
		way_out := 'Models are flat, per_unit, graduated, volume and package.';
	ELSIF measure IS NULL OR measure NOT IN ('distinct_keys', 'peak_keys', 'end_keys', 'start_keys', 'key_days', 'key_seconds', 'users') THEN
		fault := format('unknown measure "%s"', left(measure, 64));
		way_out := 'Measures are the columns of usage(): distinct_keys, peak_keys, end_keys, start_keys, key_days, key_seconds, users.';
	ELSIF minimum_minor IS NULL OR minimum_minor < 0 OR free_units IS NULL OR free_units < 0 THEN
		fault := 'minimum_minor and free_units must be zero or more';
	ELSIF model IN ('graduated', 'volume') THEN
		IF unit_price IS NOT NULL OR package_size IS NOT NULL THEN
			fault := format('model %s takes its prices from tiers alone', model);
			way_out := 'Leave unit_price and package_size out.';
		ELSIF tiers IS NULL OR jsonb_typeof(tiers) <> 'array' OR jsonb_array_length(tiers) NOT BETWEEN 1 AND 1000 THEN
			fault := format('model %s needs tiers, an array of 1 to 1000 bands', model);
			way_out := 'Example: [{"up_to":5,"unit_price":5.00,"flat":0},{"up_to":null,"unit_price":4.00}].';
		ELSE
			SELECT f.fault INTO fault
			FROM (SELECT t.no, CASE
					WHEN jsonb_typeof(t.tier) <> 'object' THEN 'is not an object'
					WHEN t.tier - ARRAY['up_to', 'unit_price', 'flat'] <> '{}' THEN 'has unknown members'
					WHEN NOT t.tier ? 'up_to' OR jsonb_typeof(t.tier -> 'up_to') NOT IN ('number', 'null') THEN 'has no up_to, a number or null'
					WHEN NOT t.tier ?| ARRAY['unit_price', 'flat'] THEN 'has neither unit_price nor flat'
					WHEN jsonb_typeof(t.tier -> 'unit_price') <> 'number' OR jsonb_typeof(t.tier -> 'flat') <> 'number' THEN 'has a price that is not a number'
					WHEN (t.tier ->> 'unit_price')::numeric < 0 OR (t.tier ->> 'flat')::numeric < 0 THEN 'has a negative price'
					WHEN greatest((t.tier ->> 'unit_price')::numeric, (t.tier ->> 'flat')::numeric, (t.tier ->> 'up_to')::numeric) >= 1e18 THEN 'has a number beyond 1e18'
					WHEN greatest(scale(trim_scale((t.tier ->> 'unit_price')::numeric)), scale(trim_scale((t.tier ->> 'flat')::numeric)),
						scale(trim_scale((t.tier ->> 'up_to')::numeric))) > 12 THEN 'has more than 12 decimals'
					WHEN t.no < jsonb_array_length(tiers) AND t.tier ->> 'up_to' IS NULL THEN 'is open without being the last'
					WHEN t.no = jsonb_array_length(tiers) AND t.tier ->> 'up_to' IS NOT NULL THEN 'is the last without being open'
					WHEN (t.tier ->> 'up_to')::numeric <= CASE WHEN jsonb_typeof(t.previous -> 'up_to') = 'number' THEN (t.previous ->> 'up_to')::numeric ELSE 0 END
						THEN 'does not end above the one before it'
					END || format(' (band %s)', t.no) AS fault
				FROM (SELECT e.tier, e.no, lag(e.tier) OVER (ORDER BY e.no) AS previous
					FROM jsonb_array_elements(tiers) WITH ORDINALITY e (tier, no)) t) f
			WHERE f.fault IS NOT NULL ORDER BY f.no LIMIT 1;
			IF fault IS NOT NULL THEN
				fault := 'a tier ' || fault;
				way_out := 'Bands are (previous up_to, up_to] without gap or overlap, the last open: [{"up_to":5,"unit_price":5.00,"flat":0},{"up_to":null,"unit_price":4.00}].';
			END IF;
		END IF;
	ELSIF tiers IS NOT NULL THEN
		fault := format('model %s takes no tiers', model);
	ELSIF unit_price IS NULL OR unit_price IN ('NaN', 'Infinity', '-Infinity') OR unit_price < 0 OR unit_price >= 1e18 THEN
		fault := format('model %s needs a unit_price of zero or more', model);
	ELSIF scale(trim_scale(unit_price)) > 12 THEN
		fault := format('unit_price %s has more than 12 decimals', left(unit_price::text, 64));
	ELSIF model = 'package' AND (package_size IS NULL OR package_size < 1) THEN
		fault := 'model package needs a package_size of one or more';
	ELSIF model <> 'package' AND package_size IS NOT NULL THEN
		fault := format('model %s takes no package_size', model);
	END IF;
	IF fault IS NULL AND greatest(unit_price, (SELECT max(greatest(t.unit_price, t.flat)) FROM partner_portal.tier_bands(tiers) t)) > most THEN
		fault := format('a price is beyond %s %s', trim_scale(most), currency);
		way_out := 'An amount is at most 9223372036854775807 minor units.';
	END IF;
	IF fault IS NOT NULL THEN
		IF way_out IS NULL THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = fault;
		END IF;
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = fault, HINT = way_out;
	END IF;
END
$$;

-- invoice.sql

ALTER TABLE partner_portal.invoice_series ADD COLUMN first_number bigint NOT NULL DEFAULT 1;
ALTER TABLE partner_portal.invoice_series ADD CONSTRAINT invoice_series_first_number CHECK (first_number BETWEEN 1 AND last_number + 1);
COMMENT ON COLUMN partner_portal.invoice_series.first_number IS 'Number of the first document here, 1 but for what start_invoice_series() says; last_number is one less as long as there is none.';

CREATE FUNCTION partner_portal.start_invoice_series(partner_id bigint, first_number bigint, document text DEFAULT 'invoice', year integer DEFAULT 0)
	RETURNS partner_portal.invoice_series
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	issuer bigint := partner_portal.authorized_issuer(partner_id);
	started partner_portal.invoice_series;
BEGIN
	IF first_number IS NULL OR document IS NULL OR year IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'first_number, document and year must not be null';
	ELSIF first_number NOT BETWEEN 1 AND 1000000000000 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'first_number must be from 1 to 1000000000000';
	ELSIF document NOT IN ('invoice', 'credit_note') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown document "%s"', left(document, 64)),
			HINT = 'Documents are invoice and credit_note.';
	ELSIF year <> 0 AND year NOT BETWEEN 1900 AND 2999 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'year must be 0 or from 1900 to 2999',
			HINT = '0 is the series of an issuer whose numbers do not begin anew every year.';
	END IF;
	INSERT INTO partner_portal.invoice_series AS s (issuer_key, document, year, last_number, first_number)
	VALUES (issuer, document, year, first_number - 1, first_number)
	ON CONFLICT ON CONSTRAINT invoice_series_pkey DO UPDATE SET last_number = excluded.last_number, first_number = excluded.first_number
	WHERE s.last_number < s.first_number
	RETURNING s.* INTO started;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = 'the series has documents already', DETAIL = 'Its numbers have no gap.';
	END IF;
	RETURN started;
END
$$;
COMMENT ON FUNCTION partner_portal.start_invoice_series(bigint, bigint, text, integer) IS
'Lets a series of an issuer (NULL the platform) begin with another number than 1, before its first document: for issuers who go on with the numbers of another system. document is invoice or credit_note; year that of the series where numbers begin anew every year, else 0. May be called again until there is a document. 42501 not the issuer; P0002 no such partner; PP005 the series has documents; 22004, 22023 bad input.';
REVOKE ALL ON FUNCTION partner_portal.start_invoice_series(bigint, bigint, text, integer) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.start_invoice_series(bigint, bigint, text, integer)');

-- plan_assignment.sql

CREATE OR REPLACE FUNCTION partner_portal.assign_price_plan(workspace_id bigint, plan_id bigint, valid_from timestamptz DEFAULT NULL) RETURNS partner_portal.plan_assignment
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	customer partner_portal.workspace;
	plan partner_portal.price_plan;
	made partner_portal.plan_assignment;
BEGIN
	PERFORM partner_portal.authorize('bill', workspace_id);
	SELECT w.* INTO customer FROM partner_portal.workspace w WHERE w.workspace_id = assign_price_plan.workspace_id FOR NO KEY UPDATE;
	IF customer.deleted_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is deleted', workspace_id);
	END IF;
	IF plan_id IS NULL THEN
		-- Who ends a plan must be its owner; the partner of a direct workspace is the platform.
		SELECT p.* INTO plan FROM partner_portal.plan_at(workspace_id, customer.partner_key, 'infinity') p;
		PERFORM partner_portal.authorize_issuer(coalesce(plan.partner_key, customer.partner_key));
		plan.partner_key := coalesce(plan.partner_key, customer.partner_key);
		plan.family_id := NULL;
	ELSE
		plan := partner_portal.visible_plan(plan_id);
		IF plan.partner_key NOT IN (0, customer.partner_key) THEN
			RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is no customer of the owner of price plan %s', workspace_id, plan_id);
		END IF;
		-- and who puts its own in its place ends it as well
		PERFORM partner_portal.authorize_issuer(p.partner_key) FROM partner_portal.plan_at(workspace_id, customer.partner_key, 'infinity') p
		WHERE p.partner_key <> plan.partner_key;
		PERFORM FROM partner_portal.price_plan p WHERE p.partner_key = plan.partner_key AND p.plan_id = plan.family_id FOR SHARE;
	END IF;
	IF valid_from IS NULL THEN
		valid_from := upper(partner_portal.find_period(workspace_id, clock_timestamp()));
	ELSIF NOT isfinite(valid_from) OR valid_from NOT BETWEEN timestamptz '1900-01-01 00:00+00' AND timestamptz '3000-01-01 00:00+00' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'valid_from is out of range';
	ELSIF valid_from < upper(partner_portal.find_period(workspace_id, clock_timestamp())) THEN
		IF NOT partner_portal.is_operator() THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a plan comes into force with the next period at the earliest',
				HINT = 'Only the operator, who loads history from elsewhere, may say otherwise.';
		END IF;
		IF EXISTS (SELECT FROM partner_portal.invoice i WHERE i.workspace_id = assign_price_plan.workspace_id AND i.document = 'invoice' AND i.status <> 'draft' AND i.period_start >= valid_from) THEN
			RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is billed beyond %s already', workspace_id, valid_from);
		END IF;
		-- the next run makes them again, by the plan that is theirs then
		DELETE FROM partner_portal.invoice i
		WHERE i.workspace_id = assign_price_plan.workspace_id AND i.document = 'invoice' AND i.status = 'draft' AND i.period_start >= valid_from;
		UPDATE partner_portal.billing_period p SET billed_at = NULL
		WHERE p.workspace_id = assign_price_plan.workspace_id AND p.period_start >= valid_from AND p.billed_at IS NOT NULL;
	END IF;
	DELETE FROM partner_portal.plan_assignment a WHERE a.workspace_id = assign_price_plan.workspace_id AND a.valid_from > assign_price_plan.valid_from;
	INSERT INTO partner_portal.plan_assignment AS a (workspace_id, valid_from, partner_key, family_id, assigned_by)
	VALUES (workspace_id, valid_from, plan.partner_key, plan.family_id, partner_portal.current_account_id())
	ON CONFLICT ON CONSTRAINT plan_assignment_pkey DO UPDATE SET partner_key = excluded.partner_key, family_id = excluded.family_id,
		assigned_at = excluded.assigned_at, assigned_by = excluded.assigned_by
	RETURNING a.* INTO made;
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.assign_price_plan(bigint, bigint, timestamptz) IS
'Gives a workspace a price plan (NULL: none) from its next period on, or later; any version of a plan stands for the plan. A partner gives its own customers its own plans, in the place of its own; the operator the platform''s, and in the place of any. The operator may date it back to periods not billed yet; drafts of theirs, tax and all, go, and the next billing run makes them anew. 42501, P0002 as authorize(); 42501 the workspace has a plan of the platform, which is the operator''s to end; PP005 another partner''s customer, deleted, or billed already.';

-- billing_run.sql

-- billing_batch.sql

CREATE FUNCTION partner_portal.due_periods(workspace_ids bigint[], as_of timestamptz)
	RETURNS TABLE (period partner_portal.billing_period, missing boolean, invoiced boolean)
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT p, true, p.period_end > w.billing_from
	FROM partner_portal.billing_period p
	JOIN partner_portal.workspace w ON w.workspace_id = p.workspace_id
	WHERE p.workspace_id = ANY (due_periods.workspace_ids) AND p.billed_at IS NULL AND p.closed_at IS NOT NULL AND p.period_end <= due_periods.as_of
	UNION ALL
	SELECT p, false, true
	FROM partner_portal.invoice i
	JOIN partner_portal.billing_period p ON p.workspace_id = i.workspace_id AND p.period_start = i.period_start
	JOIN partner_portal.workspace w ON w.workspace_id = i.workspace_id
	WHERE i.workspace_id = ANY (due_periods.workspace_ids) AND i.status = 'draft' AND i.document = 'invoice'
		AND ((i.finalize_after <= due_periods.as_of AND w.auto_finalize) OR p.late_facts_at > i.known_at);
END;
COMMENT ON FUNCTION partner_portal.due_periods(bigint[], timestamptz) IS
'Closed periods of workspaces that are still to be billed (missing; invoiced unless they are before billing_from), and those whose drafts are to be recomputed. Internal.';
REVOKE ALL ON FUNCTION partner_portal.due_periods(bigint[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.bill_periods(missing partner_portal.billing_period[], periods partner_portal.billing_period[], as_of timestamptz)
	RETURNS SETOF partner_portal.billing_action
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.draft_invoices(periods, as_of);
	UPDATE partner_portal.billing_period p SET billed_at = clock_timestamp()
	FROM unnest(missing) m
	WHERE p.workspace_id = m.workspace_id AND p.period_start = m.period_start;
	RETURN QUERY
	SELECT p.workspace_id, tstzrange(p.period_start, p.period_end), i.invoice_id,
		CASE WHEN i.invoice_id IS NULL THEN 'closed' WHEN p.billed_at IS NULL THEN 'drafted' ELSE 'refreshed' END, NULL::text
	FROM (SELECT m.* FROM unnest(missing) m UNION SELECT o.* FROM unnest(periods) o) p
	LEFT JOIN partner_portal.invoice i ON i.workspace_id = p.workspace_id AND i.period_start = p.period_start AND i.document = 'invoice' AND i.status = 'draft'
	ORDER BY p.workspace_id, p.period_start;
END
$$;
COMMENT ON FUNCTION partner_portal.bill_periods(partner_portal.billing_period[], partner_portal.billing_period[], timestamptz) IS
'Drafts or recomputes the invoices of periods, and notes those that were missing as billed. The caller holds the workspaces'' locks. Internal.';
REVOKE ALL ON FUNCTION partner_portal.bill_periods(partner_portal.billing_period[], partner_portal.billing_period[], timestamptz) FROM PUBLIC;

CREATE OR REPLACE FUNCTION partner_portal.bill_workspaces(workspace_ids bigint[], as_of timestamptz) RETURNS SETOF partner_portal.billing_action
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	missing partner_portal.billing_period[];
	periods partner_portal.billing_period[];
BEGIN
	PERFORM FROM partner_portal.close_claimed(workspace_ids, as_of);
	SELECT array_agg(d.period) FILTER (WHERE d.missing), array_agg(d.period) FILTER (WHERE d.invoiced) INTO missing, periods
	FROM partner_portal.due_periods(workspace_ids, as_of) d;
	IF missing IS NULL AND periods IS NULL THEN
		RETURN;
	END IF;
	RETURN QUERY SELECT * FROM partner_portal.bill_periods(missing, periods, as_of);
END
$$;

CREATE FUNCTION partner_portal.is_own_fault(sqlstate text) RETURNS boolean
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT NOT (left(is_own_fault.sqlstate, 2) IN ('25', '40', '53', '57', '58') OR is_own_fault.sqlstate = '55P03');
END;
COMMENT ON FUNCTION partner_portal.is_own_fault(text) IS
'Whether an error is the fault of the workspace that is billed: not a conflict with another session, nor one of the whole server. Internal.';
REVOKE ALL ON FUNCTION partner_portal.is_own_fault(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.note_billing_failure(workspace_id bigint, period tstzrange, sqlstate text, message text) RETURNS partner_portal.billing_action
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	INSERT INTO partner_portal.billing_failure (workspace_id, partner_key, failed_at, sqlstate, message)
	SELECT w.workspace_id, w.partner_key, clock_timestamp(), note_billing_failure.sqlstate, note_billing_failure.message
	FROM partner_portal.workspace w WHERE w.workspace_id = note_billing_failure.workspace_id
	ON CONFLICT ON CONSTRAINT billing_failure_pkey DO UPDATE SET failed_at = excluded.failed_at, sqlstate = excluded.sqlstate, message = excluded.message;
	RETURN ROW(workspace_id, period, NULL, 'failed', sqlstate || ': ' || message)::partner_portal.billing_action;
END
$$;
COMMENT ON FUNCTION partner_portal.note_billing_failure(bigint, tstzrange, text, text) IS 'Records why a workspace could not be billed, and returns it as what a run did. Internal.';
REVOKE ALL ON FUNCTION partner_portal.note_billing_failure(bigint, tstzrange, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.bill_alone(workspace_id bigint, as_of timestamptz) RETURNS SETOF partner_portal.billing_action
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	due record;
	done partner_portal.billing_action[];
	fault text;
BEGIN
	BEGIN
		PERFORM FROM partner_portal.close_claimed(ARRAY[workspace_id], as_of);
	EXCEPTION WHEN OTHERS THEN
		IF NOT partner_portal.is_own_fault(SQLSTATE) THEN
			RAISE;
		END IF;
		GET STACKED DIAGNOSTICS fault = MESSAGE_TEXT;
		RETURN NEXT partner_portal.note_billing_failure(workspace_id, NULL, SQLSTATE, fault);
		RETURN;
	END;
	FOR due IN SELECT d.* FROM partner_portal.due_periods(ARRAY[workspace_id], as_of) d ORDER BY (d.period).period_start LOOP
		BEGIN
			done := ARRAY(SELECT a FROM partner_portal.bill_periods(CASE WHEN due.missing THEN ARRAY[due.period] END, CASE WHEN due.invoiced THEN ARRAY[due.period] END, as_of) a);
		EXCEPTION WHEN OTHERS THEN
			IF NOT partner_portal.is_own_fault(SQLSTATE) THEN
				RAISE;
			END IF;
			GET STACKED DIAGNOSTICS fault = MESSAGE_TEXT;
			RETURN NEXT partner_portal.note_billing_failure(workspace_id, tstzrange((due.period).period_start, (due.period).period_end), SQLSTATE,
				format('period %s%s: %s%s', (due.period).label,
					(SELECT format(', by price plan %s', v.plan_id) FROM partner_portal.plan_at(workspace_id, (due.period).partner_key, (due.period).period_start) v), fault,
					CASE SQLSTATE WHEN '22003' THEN format('; the operator may assign another plan from %s on, with assign_price_plan()', (due.period).period_start) END));
			RETURN;
		END;
		RETURN QUERY SELECT * FROM unnest(done);
	END LOOP;
	DELETE FROM partner_portal.billing_failure f WHERE f.workspace_id = bill_alone.workspace_id;
END
$$;
COMMENT ON FUNCTION partner_portal.bill_alone(bigint, timestamptz) IS
'What bill_workspaces() does, for one workspace that failed there: its periods one after the other, up to the one that fails, which is recorded and stays to be billed with those after it. Internal.';
REVOKE ALL ON FUNCTION partner_portal.bill_alone(bigint, timestamptz) FROM PUBLIC;

CREATE OR REPLACE FUNCTION partner_portal.due_documents(workspace_ids bigint[], as_of timestamptz) RETURNS bigint[]
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT array_agg(i.invoice_id ORDER BY i.workspace_id, i.period_start)
	FROM partner_portal.invoice i
	JOIN partner_portal.workspace w ON w.workspace_id = i.workspace_id
	JOIN partner_portal.billing_period p ON p.workspace_id = i.workspace_id AND p.period_start = i.period_start
	WHERE i.workspace_id = ANY (due_documents.workspace_ids) AND i.status = 'draft' AND i.document = 'invoice'
		AND i.finalize_after <= due_documents.as_of AND w.auto_finalize AND coalesce(i.taxed_subtotal_minor = i.subtotal_minor, true)
		AND (p.late_facts_at > i.known_at) IS NOT TRUE;
END;
COMMENT ON FUNCTION partner_portal.due_documents(bigint[], timestamptz) IS
'Drafts of workspaces whose grace is over and that finalize by themselves; not those that could not be recomputed after facts of their period came in. Internal.';

CREATE OR REPLACE FUNCTION partner_portal.bill_batch(workspace_ids bigint[], as_of timestamptz, finalize boolean) RETURNS SETOF partner_portal.billing_action
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	done partner_portal.billing_action[];
	half integer := cardinality(workspace_ids) / 2;
	state text;
	fault text;
BEGIN
	BEGIN
		IF finalize THEN
			SELECT array_agg(a) INTO done FROM partner_portal.finalize_documents(partner_portal.due_documents(workspace_ids, as_of), as_of) a;
		ELSE
			SELECT array_agg(a) INTO done FROM partner_portal.bill_workspaces(workspace_ids, as_of) a;
			DELETE FROM partner_portal.billing_failure f WHERE f.workspace_id = ANY (workspace_ids);
		END IF;
		RETURN QUERY SELECT * FROM unnest(done);
		RETURN;
	EXCEPTION WHEN OTHERS THEN
		IF NOT partner_portal.is_own_fault(SQLSTATE) THEN
			RAISE;
		END IF;
		GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, fault = MESSAGE_TEXT;
	END;
	IF half > 0 THEN
		RETURN QUERY SELECT * FROM partner_portal.bill_batch(workspace_ids[:half], as_of, finalize);
		RETURN QUERY SELECT * FROM partner_portal.bill_batch(workspace_ids[half + 1:], as_of, finalize);
	ELSIF finalize THEN
		RETURN NEXT partner_portal.note_billing_failure(workspace_ids[1], NULL, state, fault);
	ELSE
		RETURN QUERY SELECT * FROM partner_portal.bill_alone(workspace_ids[1], as_of);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.bill_batch(bigint[], timestamptz, boolean) IS
'Drafts (or finalizes) for a batch of workspaces; when it fails, for its halves, in sub-transactions; a workspace that fails alone is billed as far as it can be (bill_alone()), recorded in billing_failure and returned with its problem. Internal.';

CREATE OR REPLACE FUNCTION partner_portal.run_billing(as_of timestamptz DEFAULT now(), max_workspaces integer DEFAULT NULL) RETURNS SETOF partner_portal.billing_action
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	claimed bigint[];
	billed bigint[] := '{}';
	counted integer := 0;
	actions partner_portal.billing_action[];
	drafted partner_portal.billing_action[] := '{}';
	finished partner_portal.billing_action[] := '{}';
BEGIN
	PERFORM partner_portal.check_as_of(as_of);
	IF max_workspaces < 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'max_workspaces must be at least 1';
	END IF;
	LOOP
		claimed := partner_portal.claim_due(coalesce(billed[cardinality(billed)], 0), as_of, least(500, max_workspaces - counted));
		EXIT WHEN claimed IS NULL;
		actions := ARRAY(SELECT a FROM partner_portal.bill_batch(claimed, as_of, false) a);
		drafted := drafted || actions;
		billed := billed || claimed;
		-- those that fail, however many, do not stand before the others
		counted := counted + cardinality(claimed) - (SELECT count(*) FROM unnest(actions) a WHERE a.action = 'failed');
		EXIT WHEN counted >= max_workspaces;
	END LOOP;
	IF billed <> '{}' THEN
		finished := ARRAY(SELECT a FROM partner_portal.bill_batch(billed, as_of, true) a);
	END IF;
	RETURN QUERY
	SELECT d.workspace_id, d.period, d.invoice_id, coalesce(f.action, d.action), coalesce(f.problem, d.problem)
	FROM unnest(drafted) d
	LEFT JOIN unnest(finished) f ON f.workspace_id = d.workspace_id AND f.invoice_id = d.invoice_id
	UNION ALL
	SELECT f.* FROM unnest(finished) f WHERE NOT EXISTS (SELECT FROM unnest(drafted) d WHERE d.workspace_id = f.workspace_id AND d.invoice_id = f.invoice_id)
	ORDER BY 1, 2;
END
$$;
COMMENT ON FUNCTION partner_portal.run_billing(timestamptz, integer) IS
'Closes every billing period that ended by as_of, drafts every missing invoice in order, finalizes what is past its grace, and returns what it did: closed (no document), drafted, refreshed, finalized, empty or failed, with the problem. A workspace that fails does not stop the others: its periods before the one that fails are billed, those from there on wait until it is mended (see billing_health()). One that another session is busy with is left to the next run. Safe to repeat. max_workspaces bounds how many are billed, those that fail apart. In one transaction: for many workspaces CALL run_due_billing(). Operator only (42501).';

-- invoice_change.sql

CREATE OR REPLACE FUNCTION partner_portal.credit_invoice(invoice_id bigint, lines jsonb, reason text, tax_minor bigint DEFAULT 0) RETURNS partner_portal.invoice
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	asked partner_portal.invoice;
	note partner_portal.invoice;
	excess record;
	tax_left bigint;
BEGIN
	asked := partner_portal.authorized_invoice('bill', invoice_id);
	PERFORM partner_portal.check_note('the reason', reason);
	IF asked.document <> 'invoice' OR asked.status NOT IN ('final', 'paid') THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('invoice %s is %s, not final or paid', invoice_id, asked.status),
			HINT = 'Only final and paid invoices are credited.';
	END IF;
	IF lines IS NULL OR jsonb_typeof(lines) <> 'array' OR jsonb_array_length(lines) NOT BETWEEN 1 AND 1000
		OR EXISTS (SELECT FROM jsonb_array_elements(lines) l WHERE CASE WHEN jsonb_typeof(l) <> 'object' THEN true
			ELSE l - ARRAY['line', 'amount_minor', 'text'] <> '{}' OR jsonb_typeof(l -> 'line') IS DISTINCT FROM 'number'
				OR jsonb_typeof(l -> 'amount_minor') IS DISTINCT FROM 'number' OR coalesce(jsonb_typeof(l -> 'text'), 'null') NOT IN ('string', 'null')
				OR length(l ->> 'text') NOT BETWEEN 1 AND 1000 OR l ->> 'text' ~ '[[:cntrl:]]' OR partner_portal.has_controls(l ->> 'text') END) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'lines to credit must be an array of objects',
			HINT = 'Example: [{"line":1,"amount_minor":500,"text":"two keys were not delivered"}].';
	END IF;
	IF EXISTS (SELECT FROM jsonb_array_elements(lines) l
			WHERE (l ->> 'amount_minor')::numeric NOT BETWEEN 1 AND 9223372036854775807 OR scale((l ->> 'amount_minor')::numeric) > 0
				OR NOT EXISTS (SELECT FROM partner_portal.invoice_line o WHERE o.workspace_id = asked.workspace_id AND o.invoice_id = asked.invoice_id
					AND o.line = (l ->> 'line')::numeric)) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('a line to credit is not on invoice %s, or its amount is not a whole number above zero', invoice_id),
			HINT = 'Amounts are minor units of the invoice''s currency.';
	END IF;
	SELECT w.line, w.amount, b.amount_minor AS charged, coalesce(c.amount, 0) AS credited INTO excess
	FROM (SELECT (l ->> 'line')::numeric AS line, sum((l ->> 'amount_minor')::numeric) AS amount FROM jsonb_array_elements(lines) l GROUP BY 1) w
	JOIN partner_portal.invoice_line b ON b.workspace_id = asked.workspace_id AND b.invoice_id = asked.invoice_id AND b.line = w.line
	LEFT JOIN LATERAL (SELECT sum(o.amount_minor) AS amount FROM partner_portal.invoice n
		JOIN partner_portal.invoice_line o ON o.workspace_id = n.workspace_id AND o.invoice_id = n.invoice_id
		WHERE n.workspace_id = asked.workspace_id AND n.credits_invoice_id = asked.invoice_id AND o.credits_line = w.line) c ON true
	WHERE w.amount + coalesce(c.amount, 0) > b.amount_minor
	ORDER BY w.line LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('line %s of invoice %s cannot be credited beyond what it charged', excess.line, invoice_id),
			DETAIL = format('It charged %s, %s are credited, %s were to be credited more, in minor units of %s.', excess.charged, excess.credited, excess.amount, asked.currency);
	END IF;
	-- lines that were corrected downwards are charged by the others together
	IF (SELECT sum((l ->> 'amount_minor')::numeric) FROM jsonb_array_elements(lines) l) + coalesce((SELECT sum(n.subtotal_minor) FROM partner_portal.invoice n
			WHERE n.workspace_id = asked.workspace_id AND n.credits_invoice_id = asked.invoice_id), 0) > asked.subtotal_minor THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('invoice %s cannot be credited beyond what it charged', invoice_id),
			DETAIL = format('Its subtotal is %s minor units of %s.', asked.subtotal_minor, asked.currency);
	END IF;
	SELECT asked.tax_minor - coalesce(sum(n.tax_minor), 0) INTO tax_left FROM partner_portal.invoice n
	WHERE n.workspace_id = asked.workspace_id AND n.credits_invoice_id = asked.invoice_id;
	IF tax_minor IS NULL OR tax_minor NOT BETWEEN 0 AND tax_left THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('tax to credit must be from 0 to %s', tax_left);
	END IF;
	note := asked;
	note.subtotal_minor := (SELECT sum((l ->> 'amount_minor')::numeric) FROM jsonb_array_elements(lines) l);
	INSERT INTO partner_portal.invoice AS i (workspace_id, document, credits_invoice_id, period_start, period_end, period_label, time_zone, partner_key, issuer_key,
		payer_id, visibility, plan_id, plan_name, plan_version, zero_invoices, currency, minor_digits, issuer_name, issuer_address, issuer_tax_id,
		payer_name, payer_address, payer_tax_id, company_name, keys_billed, subtotal_minor, tax_minor, tax_note, total_minor, known_at, finalize_after, reason)
	VALUES (note.workspace_id, 'credit_note', note.invoice_id, note.period_start, note.period_end, note.period_label, note.time_zone, note.partner_key, note.issuer_key,
		note.payer_id, note.visibility, note.plan_id, note.plan_name, note.plan_version, note.zero_invoices, note.currency, note.minor_digits, note.issuer_name,
		note.issuer_address, note.issuer_tax_id, note.payer_name, note.payer_address, note.payer_tax_id, note.company_name, note.keys_billed,
		note.subtotal_minor, credit_invoice.tax_minor, note.tax_note, note.subtotal_minor + credit_invoice.tax_minor, note.known_at, now(), credit_invoice.reason)
	RETURNING i.* INTO note;
	INSERT INTO partner_portal.invoice_line (workspace_id, invoice_id, line, partner_key, issuer_key, payer_id, workspace_sees, partner_sees, type,
		about_start, about_end, kind, credits_line, text, amount_minor)
	SELECT note.workspace_id, note.invoice_id, l.no, note.partner_key, note.issuer_key, note.payer_id, note.workspace_sees, note.partner_sees, 'credit',
		b.about_start, b.about_end, b.kind, b.line, coalesce(l.item ->> 'text', 'Credit: ' || b.text), (l.item ->> 'amount_minor')::bigint
	FROM jsonb_array_elements(lines) WITH ORDINALITY l (item, no)
	JOIN partner_portal.invoice_line b ON b.workspace_id = asked.workspace_id AND b.invoice_id = asked.invoice_id AND b.line = (l.item ->> 'line')::numeric;
	PERFORM partner_portal.finalize_documents(ARRAY[note.invoice_id], now());
	SELECT i.* INTO note FROM partner_portal.invoice i WHERE i.workspace_id = note.workspace_id AND i.invoice_id = note.invoice_id;
	RETURN note;
END
$$;

CREATE OR REPLACE FUNCTION partner_portal.explain_invoice(invoice_id bigint)
	RETURNS TABLE (line integer, what text, text text, band text, quantity numeric, unit_price numeric, amount numeric, amount_minor bigint,
		key_id bigint, kind text, serial text, account_id bigint, active tstzrange, recorded_at timestamptz)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	asked partner_portal.invoice;
BEGIN
	asked := partner_portal.authorized_invoice('read', explain_invoice.invoice_id);
	RETURN QUERY
	WITH lines AS (
		SELECT l.*, CASE l.type WHEN 'correction' THEN l.quantity + coalesce((
				SELECT sum(o.quantity) FROM partner_portal.invoice_line o JOIN partner_portal.invoice i ON i.workspace_id = o.workspace_id AND i.invoice_id = o.invoice_id
				WHERE o.workspace_id = l.workspace_id AND o.about_start = l.about_start AND o.component = l.component AND o.type IN ('usage', 'correction')
					AND i.status <> 'void' AND (i.known_at, i.invoice_id) < (asked.known_at, asked.invoice_id)), 0) ELSE l.quantity END AS rated
		FROM partner_portal.invoice_line l WHERE l.workspace_id = asked.workspace_id AND l.invoice_id = asked.invoice_id
	)
	SELECT e.line, e.what, e.text, e.band, trim_scale(e.quantity), trim_scale(e.unit_price), trim_scale(e.amount), e.amount_minor, e.key_id, e.kind, e.serial, e.account_id, e.active, e.recorded_at
	FROM (
		SELECT l.line, 0 AS place, 0 AS no, 'line' AS what, l.text, NULL::text AS band, l.quantity, NULL::numeric AS unit_price,
			l.amount_minor * power(0.1::numeric, asked.minor_digits::numeric) AS amount, l.amount_minor,
			NULL::bigint AS key_id, l.kind, NULL::text AS serial, NULL::bigint AS account_id, NULL::tstzrange AS active, NULL::timestamptz AS recorded_at
		FROM lines l
		UNION ALL
		SELECT l.line, 1, b.no, CASE WHEN b.shared THEN 'fee' ELSE 'band' END,
			CASE WHEN b.shared AND l.part_dates <> l.whole_dates THEN format('%s of %s dates', l.part_dates, l.whole_dates) END, b.band, b.band_quantity, b.unit_price,
			CASE WHEN b.shared THEN b.amount * l.part_dates / l.whole_dates ELSE b.amount END, NULL, NULL, NULL, NULL, NULL, NULL, NULL
		FROM lines l CROSS JOIN LATERAL partner_portal.rate_bands(l.model, l.unit_price, l.package_size, l.tiers, l.free_units, l.rated) b
		WHERE l.type <> 'credit'
		UNION ALL
		SELECT l.line, 2, 0, 'minimum', NULL, NULL, NULL, NULL, l.minimum_minor * power(0.1::numeric, asked.minor_digits::numeric) * l.part_dates / l.whole_dates,
			NULL, NULL, NULL, NULL, NULL, NULL, NULL
		FROM lines l WHERE l.type <> 'credit' AND l.minimum_minor > 0
		UNION ALL
		SELECT l.line, 3, 0, 'stretch', NULL, NULL, NULL, NULL, NULL, NULL, a.key_id, a.kind, k.serial, a.account_id,
			a.active * tstzrange(l.about_start, l.about_end), a.recorded_at
		FROM lines l
		JOIN partner_portal.key_activity a ON a.workspace_id = l.workspace_id AND a.active && tstzrange(l.about_start, l.about_end)
			-- all but what was imported later; see measure_usage()
			AND (a.recorded_at <= asked.known_at OR a.recorded_at = lower(a.active)) AND (l.kind IS NULL OR a.kind = l.kind)
		LEFT JOIN partner_portal.security_key k ON k.workspace_id = a.workspace_id AND k.key_id = a.key_id
		WHERE l.type <> 'credit'
	) e
	ORDER BY e.line, e.place, e.no, lower(e.active), e.key_id;
END
$$;

-- statement.sql

-- invoice_html.sql

CREATE OR REPLACE FUNCTION partner_portal.invoice_html(invoice_id bigint) RETURNS text
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
	i partner_portal.invoice := partner_portal.authorized_invoice('read', invoice_id);
	credited text := (SELECT o.invoice_number FROM partner_portal.invoice o WHERE o.workspace_id = i.workspace_id AND o.invoice_id = i.credits_invoice_id);
	title text := CASE WHEN i.status = 'draft' THEN 'Draft invoice' WHEN i.document = 'credit_note' THEN 'Credit note ' || i.invoice_number ELSE 'Invoice ' || i.invoice_number END;
	style text := ':root{color-scheme:light dark;--page:#eef0f3;--card:#fff;--ink:#1c2430;--soft:#566172;--line:#d5dae1;--warn:#a32020;--bar:#6f8db8;--now:#24508f}'
		'@media screen and (prefers-color-scheme:dark){:root{--page:#12161c;--card:#1b2129;--ink:#e8ebf0;--soft:#a5afbd;--line:#343d49;--warn:#ff9a8f;--bar:#58749c;--now:#a9c8f5}}'
		'*{box-sizing:border-box}html{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;color:var(--ink);background:var(--page);-webkit-text-size-adjust:100%}'
		'body{max-width:820px;margin:2rem auto;padding:3rem;background:var(--card);border:1px solid var(--line);border-radius:4px;overflow-wrap:anywhere}'
		'header{display:flex;flex-wrap:wrap;gap:1rem 2rem;justify-content:space-between;align-items:flex-start;margin:0 0 2rem}h1{font-size:1.6rem;line-height:1.2;margin:0}'
		'.due{margin:0;text-align:right}.due b{display:block;font-size:1.6rem;line-height:1.2;font-variant-numeric:tabular-nums;white-space:nowrap}.due span,.parties h2,figcaption{font-size:.8rem;font-weight:600;color:var(--soft)}'
		'.state{flex-basis:100%;margin:0;padding:.5rem .75rem;border-left:4px solid var(--warn);font-weight:600;color:var(--warn)}'
		'.parties{display:flex;flex-wrap:wrap;gap:1.5rem 3rem;margin:0 0 2rem}.parties div{flex:1 1 14rem}.parties h2{margin:0 0 .25rem}address{font-style:normal;white-space:pre-line}address::first-line{font-weight:600}'
		'dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.2rem 1.5rem;margin:0 0 2rem;padding:1rem 0;border:solid var(--line);border-width:1px 0}dt{color:var(--soft)}dd{margin:0}'
		'.lines{overflow-x:auto}table{width:100%;min-width:30rem;border-collapse:collapse;overflow-wrap:break-word}th,td{text-align:left;padding:.5rem .6rem;vertical-align:top}th{font-size:.8rem;color:var(--soft);border-bottom:2px solid var(--ink)}'
		'th:first-child,td:first-child{padding-left:0}th:last-child,td:last-child{padding-right:0}td small{color:var(--soft)}'
		'th.number,td.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}tr.line+tr.line td,tr.band+tr.line td{border-top:1px solid var(--line)}tr.band td{color:var(--soft);font-size:.85rem;padding-top:0;padding-bottom:.15rem}'
		'tfoot td{padding-top:.35rem;padding-bottom:.35rem;text-align:right}tfoot tr:first-child td{border-top:2px solid var(--ink);padding-top:.6rem}tfoot tr.total td{font-weight:700;font-size:1.15rem}'
		'figure{margin:2.5rem 0 0}svg{width:100%;height:auto}svg text{font-size:12px;fill:var(--ink)}svg text.when{font-size:10px;fill:var(--soft)}.bar{fill:var(--bar)}.bar.now{fill:var(--now)}'
		'footer{margin-top:2rem;padding-top:1rem;border-top:1px solid var(--line);color:var(--soft);font-size:.8rem}thead{display:table-header-group}tr,figure,.parties,dl{break-inside:avoid}'
		'@media(max-width:40rem){body{margin:0;padding:1.25rem 1rem;border:0;border-radius:0}.due{text-align:left}th,td{padding-left:.35rem;padding-right:.35rem}}'
		'@page{size:A4;margin:18mm}@media print{html{font-size:10.5pt;background:none}body{margin:0;max-width:none;padding:0;border:0}.lines{overflow:visible}table{min-width:0}.bar,.bar.now{print-color-adjust:exact;-webkit-print-color-adjust:exact}}';
BEGIN
	RETURN E'<!DOCTYPE html>\n' || xmlserialize(CONTENT xmlelement(name html, xmlattributes('en' AS lang),
		xmlelement(name head,
			xmlelement(name meta, xmlattributes('utf-8' AS charset)),
			xmlelement(name meta, xmlattributes('viewport' AS name, 'width=device-width, initial-scale=1' AS content)),
			xmlelement(name title, title || ', ' || i.issuer_name),
			xmlelement(name style, style)),
		xmlelement(name body,
			xmlelement(name header,
				xmlelement(name h1, title),
				xmlelement(name p, xmlattributes('due' AS class), xmlelement(name span, CASE WHEN i.status = 'void' THEN 'Void' WHEN i.document = 'credit_note' THEN 'Credited'
						WHEN i.status = 'draft' THEN 'Total so far' WHEN i.status = 'paid' THEN 'Paid' ELSE 'Amount due' END),
					xmlelement(name b, i.currency || ' ' || partner_portal.money_text(i.total_minor, i.minor_digits))),
				CASE WHEN i.status IN ('draft', 'void') THEN xmlelement(name p, xmlattributes('state' AS class),
					CASE i.status WHEN 'void' THEN 'Void: ' || coalesce(i.settled_note, '') ELSE 'Not final; it may still change.' END) END),
			xmlelement(name section, xmlattributes('parties' AS class),
				xmlelement(name div, xmlelement(name h2, 'From'), xmlelement(name address, concat_ws(E'\n', i.issuer_name, i.issuer_address, 'Tax id: ' || i.issuer_tax_id))),
				xmlelement(name div, xmlelement(name h2, 'To'), xmlelement(name address, concat_ws(E'\n', i.payer_name, i.payer_address, 'Tax id: ' || i.payer_tax_id)))),
			xmlelement(name dl,
				(SELECT xmlagg(xmlconcat(xmlelement(name dt, f.name), xmlelement(name dd, f.value)) ORDER BY f.no) FROM (VALUES
					(1, 'Number', i.invoice_number), (2, 'Date', to_char(i.invoice_date, 'YYYY-MM-DD')), (3, 'Company', i.company_name),
					(4, 'Billing period', replace(i.period_label, '..', ' to ') || ' (' || i.time_zone || ')'),
					(5, 'Plan', i.plan_name || ', version ' || i.plan_version), (6, 'Keys billed', CASE i.document WHEN 'invoice' THEN i.keys_billed::text END),
					(7, 'Credits invoice', credited), (8, 'Reason', i.reason),
					(9, 'Paid', CASE i.status WHEN 'paid' THEN concat_ws(', ', to_char(i.settled_at AT TIME ZONE i.time_zone, 'YYYY-MM-DD'), i.settled_note) END)) f (no, name, value)
				WHERE f.value IS NOT NULL)),
			xmlelement(name div, xmlattributes('lines' AS class, 'region' AS role, 'Lines' AS "aria-label", 0 AS tabindex), xmlelement(name table,
				xmlelement(name thead, xmlelement(name tr, xmlelement(name th, 'Line'), xmlelement(name th, 'What'), xmlelement(name th, xmlattributes('number' AS class), 'Quantity'),
					xmlelement(name th, xmlattributes('number' AS class), 'Price'), xmlelement(name th, xmlattributes('number' AS class), 'Amount ' || i.currency))),
				xmlelement(name tbody, coalesce(partner_portal.invoice_page_lines(i), xmlelement(name tr, xmlelement(name td, 'nothing')))),
				xmlelement(name tfoot,
					xmlelement(name tr, xmlelement(name td, xmlattributes(4 AS colspan), 'Subtotal'), xmlelement(name td, xmlattributes('number' AS class), partner_portal.money_text(i.subtotal_minor, i.minor_digits))),
					xmlelement(name tr, xmlelement(name td, xmlattributes(4 AS colspan), concat_ws(', ', 'Tax', i.tax_note)), xmlelement(name td, xmlattributes('number' AS class), partner_portal.money_text(i.tax_minor, i.minor_digits))),
					xmlelement(name tr, xmlattributes('total' AS class), xmlelement(name td, xmlattributes(4 AS colspan), CASE i.document WHEN 'credit_note' THEN 'Total credited' ELSE 'Total' END || ' ' || i.currency),
						xmlelement(name td, xmlattributes('number' AS class), partner_portal.money_text(i.total_minor, i.minor_digits)))))),
			CASE i.document WHEN 'invoice' THEN partner_portal.invoice_bars(i) END,
			xmlelement(name footer, 'Measured from facts known at ' || to_char(i.known_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC. Each line is rounded once, half away from zero.'))
		) AS text);
END
$$;

-- workspace_lifecycle.sql

CREATE FUNCTION partner_portal.has_customers(partner_id bigint, deleted_too boolean) RETURNS boolean
	LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'partner_portal_has_customers';
COMMENT ON FUNCTION partner_portal.has_customers(bigint, boolean) IS
'Whether a partner has customers, as of the latest commit whatever the snapshot: those that are deleted count if deleted_too. Internal.';
REVOKE ALL ON FUNCTION partner_portal.has_customers(bigint, boolean) FROM PUBLIC;

CREATE OR REPLACE FUNCTION partner_portal.delete_workspace(workspace_id bigint) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace := partner_portal.authorized_live_workspace('delete_workspace', workspace_id);
	ended timestamptz;
BEGIN
	-- whoever registers right now had the partner's workspace FOR SHARE
	IF partner_portal.has_customers(workspace_id, false) THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('partner %s has customers', workspace_id),
			HINT = 'Delete them, or have them leave or move to another partner first.';
	END IF;
	PERFORM partner_portal.lock_keys(workspace_id);
	-- from here on nothing can be activated
	UPDATE partner_portal.workspace w SET deleted_at = clock_timestamp() WHERE w.workspace_id = delete_workspace.workspace_id;
	PERFORM partner_portal.disable_keys_as(workspace_id, 'deleted');
	-- what the keys were billed for ends before the period does
	ended := clock_timestamp();
	PERFORM partner_portal.end_periods(workspace_id, ended);
	UPDATE partner_portal.workspace w SET deleted_at = ended WHERE w.workspace_id = delete_workspace.workspace_id
	RETURNING w.* INTO target;
	RETURN target;
END
$$;

CREATE OR REPLACE FUNCTION partner_portal.purge_workspace(workspace_id bigint) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace;
BEGIN
	PERFORM partner_portal.require_operator();
	target := partner_portal.authorized_workspace('purge', workspace_id);
	IF target.deleted_at IS NULL OR target.purged_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005',
			MESSAGE = format(CASE WHEN target.deleted_at IS NULL THEN 'workspace %s is not deleted' ELSE 'workspace %s is purged already' END, workspace_id),
			HINT = CASE WHEN target.deleted_at IS NULL THEN 'Delete it first.' ELSE 'Nothing is left to erase.' END;
	END IF;
	IF partner_portal.owes_document(workspace_id) THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s has periods or drafts that are not billed yet', workspace_id),
			HINT = 'Bill them with run_billing() or finalize_invoice() first: documents are made out to the name that would be erased.';
	END IF;
	PERFORM partner_portal.lock_keys(workspace_id);
	UPDATE partner_portal.security_key k SET label = NULL, serial = 'purged-' || k.key_id
	WHERE k.workspace_id = purge_workspace.workspace_id;
	DELETE FROM partner_portal.staff s WHERE purge_workspace.workspace_id IN (s.workspace_id, s.partner_key);
	DELETE FROM partner_portal.member m WHERE m.workspace_id = purge_workspace.workspace_id;
	DELETE FROM partner_portal.portal p WHERE p.workspace_id = purge_workspace.workspace_id;
	DELETE FROM partner_portal.report r WHERE r.workspace_id = purge_workspace.workspace_id;
	DELETE FROM partner_portal.folder f WHERE f.workspace_id = purge_workspace.workspace_id;
	DELETE FROM partner_portal.invitation i WHERE i.workspace_id = purge_workspace.workspace_id;
	DELETE FROM partner_portal.notification n WHERE n.workspace_id = purge_workspace.workspace_id;
	DELETE FROM partner_portal.delivery_destination t USING partner_portal.webhook_endpoint e
	WHERE e.workspace_id = purge_workspace.workspace_id AND t.destination = e.endpoint_id;
	DELETE FROM partner_portal.webhook_endpoint e WHERE e.workspace_id = purge_workspace.workspace_id;
	DELETE FROM partner_portal.mail_opt_out o WHERE o.workspace_id = purge_workspace.workspace_id;
	PERFORM partner_portal.erase_activity(NULL, workspace_id);
	DELETE FROM partner_portal.product p WHERE p.workspace_id = purge_workspace.workspace_id;
	UPDATE partner_portal.access_grant g SET message = NULL, end_reason = NULL WHERE purge_workspace.workspace_id IN (g.workspace_id, g.partner_id);
	UPDATE partner_portal.workspace w
	SET company_name = 'Purged workspace ' || w.workspace_id, slug = 'purged-' || w.workspace_id || '-' || left(md5(partner_portal.new_secret()), 8),
		address = NULL, tax_id = NULL, suspended_reason = NULL, sso_enabled = false, notify_new_keys = false, notify_billing = false,
		purged_at = clock_timestamp()
	WHERE w.workspace_id = purge_workspace.workspace_id
	RETURNING w.* INTO target;
	RETURN target;
END
$$;
COMMENT ON FUNCTION partner_portal.purge_workspace(bigint) IS
'Erases for good what a deleted workspace says about people: its name, slug (which becomes free), address and tax id, the labels, serials and holders of its keys, its memberships, portals, folders and reports, its webhook endpoints, and its messages, sent or not. What was billed stays: keys by number, their history, periods and documents, which keep the name they were made out to. Operator only (42501); P0002; PP005 it is not deleted, or purged already, or a document is still to be made out to it.';

CREATE OR REPLACE FUNCTION partner_portal.restore_workspace(workspace_id bigint) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace := partner_portal.authorized_workspace('restore_workspace', workspace_id);
BEGIN
	IF target.deleted_at IS NULL OR target.purged_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005',
			MESSAGE = format(CASE WHEN target.deleted_at IS NULL THEN 'workspace %s is not deleted' ELSE 'workspace %s is purged' END, workspace_id);
	END IF;
	PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = target.partner_id AND w.deleted_at IS NULL FOR SHARE;
	IF target.partner_id IS NOT NULL AND NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('the partner of workspace %s is deleted', workspace_id),
			HINT = 'Restore the partner first.';
	END IF;
	-- one who is kept, before the counters, as whoever leaves takes them
	PERFORM FROM partner_portal.member m WHERE m.workspace_id = restore_workspace.workspace_id AND m.role = 'owner'
	ORDER BY m.accepted_at IS NULL, m.account_id LIMIT 1 FOR SHARE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'PP004', MESSAGE = format('workspace %s would be without an owner', workspace_id),
			DETAIL = 'Its last owner left, or was erased, after it was deleted.', HINT = 'The operator makes somebody its owner with add_member() first.';
	END IF;
	PERFORM partner_portal.lock_keys(workspace_id);
	UPDATE partner_portal.workspace w SET deleted_at = NULL WHERE w.workspace_id = restore_workspace.workspace_id
	RETURNING w.* INTO target;
	PERFORM partner_portal.start_periods(workspace_id, clock_timestamp());
	IF target.suspended_at IS NULL THEN
		PERFORM partner_portal.resume_keys(workspace_id, 'deleted');
	END IF;
	RETURN target;
END
$$;
COMMENT ON FUNCTION partner_portal.restore_workspace(bigint) IS
'Takes a deletion back: a new billing period starts now, and the keys that the deletion disabled are enabled, oldest first, up to the limit (none while the workspace is suspended). By its partner; the operator for any. 42501, P0002; PP004 it has no owner any more; PP005 it is not deleted, purged, or its partner is deleted.';

-- partner.sql

CREATE OR REPLACE FUNCTION partner_portal.demote_partner(workspace_id bigint) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace;
BEGIN
	PERFORM partner_portal.require_operator();
	target := partner_portal.authorized_workspace('purge', workspace_id);
	IF target.kind <> 'partner' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is not a partner', workspace_id);
	END IF;
	-- whoever registers right now had the workspace FOR SHARE
	IF partner_portal.has_customers(workspace_id, true) THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('partner %s has customers', workspace_id),
			DETAIL = 'Deleted customers count too: they may be restored.',
			HINT = 'Every customer must leave or move to another partner first.';
	END IF;
	IF EXISTS (SELECT FROM partner_portal.portal p WHERE p.workspace_id = demote_partner.workspace_id) THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('partner %s has portals', workspace_id), HINT = 'Delete them first with delete_portal().';
	END IF;
	UPDATE partner_portal.workspace w SET kind = 'business' WHERE w.workspace_id = demote_partner.workspace_id
	RETURNING w.* INTO target;
	DELETE FROM partner_portal.partner p WHERE p.partner_id = demote_partner.workspace_id;
	RETURN target;
END
$$;

CREATE OR REPLACE FUNCTION partner_portal.promote_to_partner(workspace_id bigint) RETURNS partner_portal.partner
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace;
BEGIN
	PERFORM partner_portal.require_operator();
	target := partner_portal.authorized_workspace('purge', workspace_id);
	IF target.deleted_at IS NOT NULL OR target.kind = 'partner' OR target.partner_id IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005',
			MESSAGE = format(CASE WHEN target.deleted_at IS NOT NULL THEN 'workspace %s is deleted'
				WHEN target.kind = 'partner' THEN 'workspace %s is a partner already'
				ELSE 'workspace %s is a partner''s customer' END, workspace_id),
			HINT = CASE WHEN target.deleted_at IS NOT NULL THEN 'Only a workspace that is in use becomes a partner.'
				WHEN target.kind = 'partner' THEN 'Its registration link is told by registration_url().'
				ELSE 'It must leave its partner first: partners have customers, not partners.' END;
	END IF;
	RETURN partner_portal.make_partner(workspace_id);
END
$$;

COMMENT ON FUNCTION partner_portal.create_own_workspace(bigint, text, text, text, date) IS
'Creates a further organisation of a partner''s own: a workspace under it, owned by who creates it (by the partner''s first owner, who must accept, when the operator does). partner_id NULL is the identity''s own; time_zone NULL the partner''s. For the partner''s owner or administrator. 42501; P0002; PP005 no partner, suspended, or without an owner; 23505 the slug is taken; 22001, 22023 bad input.';

CREATE OR REPLACE FUNCTION partner_portal.partner_of_code(registration_code text) RETURNS partner_portal.workspace
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_partner partner_portal.workspace;
BEGIN
	PERFORM partner_portal.checked_text('registration_code', registration_code, 200);
	SELECT w.* INTO found_partner FROM partner_portal.workspace w
	WHERE w.workspace_id = (SELECT p.partner_id FROM partner_portal.partner p WHERE p.registration_code = partner_of_code.registration_code)
		AND w.deleted_at IS NULL
	FOR SHARE;
	-- rotate_registration_code() changes a unique key, which FOR KEY SHARE waits for
	PERFORM FROM partner_portal.partner p
	WHERE p.partner_id = found_partner.workspace_id AND p.registration_code = partner_of_code.registration_code
	FOR KEY SHARE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = 'registration code not found',
			HINT = 'The code is what follows the last slash of a registration link; ask the partner for its present one.';
	END IF;
	IF found_partner.suspended_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = 'the partner of this registration code is suspended';
	END IF;
	RETURN found_partner;
END
$$;

-- people.sql

CREATE OR REPLACE FUNCTION partner_portal.require_rank_over(workspace_id bigint, role text) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF role = 'owner' AND NOT partner_portal.is_operator() AND NOT EXISTS (
		SELECT FROM partner_portal.member m
		WHERE m.workspace_id = require_rank_over.workspace_id AND m.account_id = partner_portal.current_account_id()
			AND m.role = 'owner' AND m.accepted_at IS NOT NULL)
		-- who was named as its first owner has turned it down
		AND (EXISTS (SELECT FROM partner_portal.member m WHERE m.workspace_id = require_rank_over.workspace_id AND m.role = 'owner')
			OR NOT EXISTS (SELECT FROM partner_portal.staff s
				WHERE s.workspace_id = require_rank_over.workspace_id AND s.account_id = partner_portal.current_account_id() AND s.role = 'account_owner'))
	THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('only an owner of workspace %s may make, change or remove an owner', workspace_id);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.require_rank_over(bigint, text) IS
'Returns when the identity may manage people of that role: owners are the matter of owners and the operator, neither of administrators nor of a partner''s account owner; but that one finds an owner for a workspace that has none, not even one who has yet to accept. Else 42501.';

COMMENT ON FUNCTION partner_portal.set_member_role(bigint, bigint, text) IS
'Gives a member another role. Needs manage_people; only an owner or the operator makes an owner or changes one; where there is none, the partner''s account owner makes one. 42501, P0002; PP004 it is the last owner; PP005 the workspace is deleted.';

CREATE OR REPLACE FUNCTION partner_portal.change_email(account_id bigint, email text) RETURNS partner_portal.account
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	changed partner_portal.account;
BEGIN
	IF NOT (partner_portal.is_operator() OR partner_portal.is_trusted()) THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator or a trusted application may change an e-mail address',
			DETAIL = 'It vouches that the address is the account''s.';
	END IF;
	IF account_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'account_id must not be null';
	END IF;
	PERFORM partner_portal.checked_email(email);
	SELECT a.* INTO changed FROM partner_portal.account a
	WHERE a.account_id = change_email.account_id
		AND (partner_portal.is_operator() OR coalesce(partner_portal.current_account_id(), a.account_id) = a.account_id)
	FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('account %s not found', account_id);
	END IF;
	IF changed.erased_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('account %s is erased', account_id);
	END IF;
	IF EXISTS (SELECT FROM partner_portal.account a
		WHERE lower(a.email COLLATE "C") = lower(change_email.email COLLATE "C") AND a.account_id <> change_email.account_id)
	THEN
		RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = 'another account has this e-mail address';
	END IF;
	UPDATE partner_portal.account a SET email = change_email.email,
		former_emails = CASE WHEN lower(a.email COLLATE "C") = lower(change_email.email COLLATE "C") THEN a.former_emails
			ELSE (a.former_emails || jsonb_build_object(lower(a.email COLLATE "C"), clock_timestamp())) - lower(change_email.email COLLATE "C") END
	WHERE a.account_id = change_email.account_id
	RETURNING a.* INTO changed;
	RETURN changed;
END
$$;
COMMENT ON FUNCTION partner_portal.change_email(bigint, text) IS
'Gives an account another e-mail address, which the caller vouches for; the one before is noted for erase_account() alone. The operator, or a trusted application: with somebody signed in for that account only, with nobody for any. 42501; P0002; 22001, 22023; 23505 another account has it; PP005 it is erased.';

CREATE OR REPLACE FUNCTION partner_portal.make_account(email text, name text, OUT account_id bigint, OUT is_new boolean)
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.checked_email(email);
	IF name IS NOT NULL THEN
		PERFORM partner_portal.checked_text('name', name, 200);
	END IF;
	LOOP
		-- locked, so that it is not erased meanwhile; one that was just now has another address
		SELECT a.account_id, false INTO make_account.account_id, is_new FROM partner_portal.account a
		WHERE lower(a.email COLLATE "C") = lower(make_account.email COLLATE "C")
		FOR KEY SHARE;
		EXIT WHEN FOUND;
		INSERT INTO partner_portal.account AS a (email, name) VALUES (make_account.email, make_account.name)
		ON CONFLICT DO NOTHING
		RETURNING a.account_id, true INTO make_account.account_id, is_new;
		EXIT WHEN FOUND;
	END LOOP;
END
$$;

CREATE OR REPLACE VIEW partner_portal.members WITH (security_barrier) AS
	SELECT m.workspace_id, m.account_id, a.email, CASE WHEN m.accepted_at IS NOT NULL OR m.account_id = (SELECT partner_portal.current_account_id()) THEN a.name END AS name,
		m.role, m.created_at, m.accepted_at, m.accepted_at IS NOT NULL AND a.disabled_at IS NOT NULL AS disabled
	FROM partner_portal.member m
	JOIN partner_portal.account a ON a.account_id = m.account_id
	WHERE (m.ends_at IS NULL OR m.ends_at > now())
		AND (m.workspace_id = (SELECT partner_portal.own_workspace('read'))
			OR m.account_id = (SELECT partner_portal.current_account_id())
			OR m.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
			OR m.workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[]));
COMMENT ON VIEW partner_portal.members IS
'People of the workspaces that one may read, and one''s own memberships, with their addresses; pending ones have accepted_at NULL, and say nothing of the account but its address.';

CREATE OR REPLACE FUNCTION partner_portal.erase_account(account_id bigint) RETURNS partner_portal.account
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	erased partner_portal.account := partner_portal.operators_account(account_id);
BEGIN
	-- whoever makes it a member or a user of a portal came before, or finds its address free
	PERFORM FROM partner_portal.account a WHERE a.account_id = erase_account.account_id FOR UPDATE;
	DELETE FROM partner_portal.member m WHERE m.account_id = erase_account.account_id;
	DELETE FROM partner_portal.portal_account p WHERE p.account_id = erase_account.account_id;
	DELETE FROM partner_portal.account_identity i WHERE i.account_id = erase_account.account_id;
	DELETE FROM partner_portal.role_account r WHERE r.account_id = erase_account.account_id;
	-- invitations before their mails, as whoever answers one
	PERFORM partner_portal.forget_invitations(erased);
	-- what was written to the person is about the person, and what is not sent yet would still go out. An address that was given up
	-- may be another's since; mails of lists and alerts name the account themselves
	DELETE FROM partner_portal.notification n
	WHERE lower(n.recipient COLLATE "C") = lower(erased.email COLLATE "C")
		OR n.occurred_at <= (erased.former_emails ->> lower(n.recipient COLLATE "C"))::timestamptz
		OR (n.recipient IS NOT NULL AND n.kind IN ('limit_alert', 'new_keys', 'billing_report', 'webhook_disabled')
			AND split_part(n.dedupe_key, ':', -1) = erased.account_id::text);
	DELETE FROM partner_portal.mail_opt_out o WHERE o.account_id = erase_account.account_id;
	PERFORM partner_portal.erase_activity(account_id, NULL);
	UPDATE partner_portal.account a
	-- somebody may have taken that address, which is nobody's
	SET email = 'erased-' || a.account_id || CASE WHEN EXISTS (SELECT FROM partner_portal.account o
				WHERE lower(o.email COLLATE "C") = 'erased-' || erase_account.account_id || '@erased.invalid')
			THEN '-' || left(md5(partner_portal.new_secret()), 8) ELSE '' END || '@erased.invalid', name = NULL, locale = 'en', is_operator = false,
		disabled_at = coalesce(a.disabled_at, now()), erased_at = now(), tokens_not_before = 'infinity', former_emails = '{}'
	WHERE a.account_id = erase_account.account_id
	RETURNING a.* INTO erased;
	RETURN erased;
END
$$;
COMMENT ON FUNCTION partner_portal.erase_account(bigint) IS
'Erases for good what is known about one person: address, name, memberships, staff, portals, linked identities, invitations with what they said of it, messages to its address and to those that it had before, sent or not (of an address that was changed under version 1.0 only those of lists, alerts, and invitations it accepted are known); its tokens are refused, its address is free. Keys it held stay without a holder, and what was billed stays, by number. Operator only (42501); P0002; PP004 it is the last owner of a workspace; PP005 it is erased already.';

CREATE OR REPLACE FUNCTION partner_portal.remove_member(workspace_id bigint, account_id bigint) RETURNS partner_portal.member
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	removed partner_portal.member;
BEGIN
	-- everyone may leave, and turn down a membership that somebody else made
	IF account_id IS DISTINCT FROM partner_portal.current_account_id() OR account_id IS NULL OR NOT EXISTS (
		SELECT FROM partner_portal.member m
		WHERE m.workspace_id = remove_member.workspace_id AND m.account_id = remove_member.account_id)
	THEN
		PERFORM partner_portal.authorized_live_workspace('manage_people', workspace_id);
		removed := partner_portal.locked_member(workspace_id, account_id);
		PERFORM partner_portal.require_rank_over(workspace_id, removed.role);
	END IF;
	DELETE FROM partner_portal.member m
	WHERE m.workspace_id = remove_member.workspace_id AND m.account_id = remove_member.account_id
	RETURNING m.* INTO removed;
	IF NOT FOUND THEN
		-- removed meanwhile
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('account %s is not a member of workspace %s', account_id, workspace_id);
	END IF;
	RETURN removed;
END
$$;
COMMENT ON FUNCTION partner_portal.remove_member(bigint, bigint) IS
'Ends a membership, and with it staff assignments and the holding of keys (the keys stay). Needs manage_people, and for an owner an owner or the operator; everyone may end one''s own, a pending one too: who turns down being the first owner leaves a workspace that the operator finds an owner for (add_member()), or the partner''s account owner (invite_member()), or that is deleted; its log tells so, and verify() names it. 42501, P0002; PP004 it is the last owner; PP005 the workspace is deleted.';

CREATE OR REPLACE FUNCTION partner_portal.add_member(workspace_id bigint, email text, role text) RETURNS partner_portal.member
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target partner_portal.workspace;
BEGIN
	IF NOT partner_portal.is_operator() THEN
		IF NOT partner_portal.is_trusted() THEN
			RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
				MESSAGE = 'only the operator or a trusted application may add a member without an invitation';
		END IF;
		IF partner_portal.current_account_id() IS NOT NULL THEN
			PERFORM partner_portal.authorize('manage_people', workspace_id);
			PERFORM partner_portal.require_rank_over(workspace_id, role);
		END IF;
	END IF;
	IF workspace_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_id must not be null';
	END IF;
	SELECT w.* INTO target FROM partner_portal.workspace w WHERE w.workspace_id = add_member.workspace_id FOR KEY SHARE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('workspace %s not found', workspace_id);
	END IF;
	-- one that lost its owner meanwhile is given another before it is restored
	IF target.deleted_at IS NOT NULL AND NOT (partner_portal.is_operator() AND target.purged_at IS NULL AND role IS NOT DISTINCT FROM 'owner') THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('workspace %s is deleted', workspace_id);
	END IF;
	RETURN partner_portal.make_member(workspace_id, email, NULL, role);
END
$$;
COMMENT ON FUNCTION partner_portal.add_member(bigint, text, text) IS
'Adds a member without any mail, making the account if there is none. An account that was there must accept_membership() first, unless it is the one signed in. The operator, or a trusted application: with nobody signed in it vouches, with somebody manage_people is asked. 42501; P0002; 23505 is a member; PP005 deleted, but for an owner whom the operator adds before restore_workspace().';

-- staff.sql

-- invitation.sql

CREATE OR REPLACE FUNCTION partner_portal.decline_invitation(token text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	declined partner_portal.invitation := partner_portal.usable_invitation(token);
BEGIN
	-- before the invitation, as whoever accepts, ends the offer or deletes the workspace does
	IF declined.kind = 'access' THEN
		PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = declined.workspace_id FOR NO KEY UPDATE;
	ELSE
		PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = declined.workspace_id FOR SHARE;
	END IF;
	UPDATE partner_portal.invitation i SET state = 'declined', finished_at = clock_timestamp()
	WHERE i.workspace_id = declined.workspace_id AND i.invitation_id = declined.invitation_id
		AND i.token_hash = declined.token_hash AND i.state = 'pending' AND i.expires_at > clock_timestamp();
	IF NOT FOUND THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	PERFORM partner_portal.cancel_invitation_mail(declined);
	PERFORM partner_portal.finish_offer(declined, 'declined');
END
$$;

CREATE OR REPLACE FUNCTION partner_portal.accepting_account(invitation partner_portal.invitation, owner_name text) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	signed_in bigint := partner_portal.current_account_id();
	person partner_portal.account;
	made record;
BEGIN
	IF (invitation).kind = 'access' THEN
		-- anybody who runs the invited partner; with nobody signed in, who the mail went to
		SELECT a.* INTO person FROM partner_portal.account a
		JOIN partner_portal.member m ON m.account_id = a.account_id
		WHERE m.workspace_id = (invitation).partner_key AND m.role IN ('owner', 'administrator') AND m.accepted_at IS NOT NULL
			AND CASE WHEN signed_in IS NULL THEN lower(a.email COLLATE "C") = lower((invitation).email COLLATE "C") ELSE a.account_id = signed_in END;
	ELSIF signed_in IS NULL THEN
		made := partner_portal.make_account((invitation).email, coalesce(accepting_account.owner_name, (invitation).owner_name));
		SELECT a.* INTO person FROM partner_portal.account a WHERE a.account_id = made.account_id;
	ELSE
		SELECT a.* INTO person FROM partner_portal.account a
		WHERE a.account_id = signed_in AND lower(a.email COLLATE "C") = lower((invitation).email COLLATE "C")
		FOR KEY SHARE;
	END IF;
	IF person.account_id IS NULL OR person.disabled_at IS NOT NULL OR person.erased_at IS NOT NULL THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	RETURN person.account_id;
END
$$;

CREATE OR REPLACE FUNCTION partner_portal.send_invitation(invitation partner_portal.invitation, token text, recipients text[] DEFAULT NULL) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	sent partner_portal.invitation := invitation;
	inviter text := (SELECT w.company_name FROM partner_portal.workspace w WHERE w.workspace_id = (invitation).workspace_id);
	-- who is not known yet is written to in the language of who invites
	inviters_locale text := (SELECT a.locale FROM partner_portal.account a
		WHERE a.account_id = coalesce((invitation).invited_by, (SELECT m.account_id FROM partner_portal.member m
			WHERE m.workspace_id = (invitation).workspace_id AND m.role = 'owner' AND m.accepted_at IS NOT NULL ORDER BY m.accepted_at, m.account_id LIMIT 1)));
	link text := rtrim(current_setting('partner_portal.link_base_url'), '/') || '/invitation/' || token;
BEGIN
	PERFORM partner_portal.enqueue_mail((invitation).workspace_id, 'invitation',
		format('%s:%s:%s', (invitation).invitation_id, (invitation).sendings, r.n), r.email, r.locale,
		partner_portal.mail_invitation(r.locale, invitation, inviter, link), token, (invitation).expires_at)
	FROM (SELECT u.email, u.n, coalesce((SELECT a.locale FROM partner_portal.account a WHERE lower(a.email COLLATE "C") = lower(u.email COLLATE "C")),
				inviters_locale, 'en') AS locale
		FROM unnest(coalesce(recipients[:20], ARRAY[(invitation).email])) WITH ORDINALITY AS u (email, n)) r;
	sent.token_hash := NULL;
	IF partner_portal.is_trusted() THEN
		sent.token := token;
	END IF;
	RETURN sent;
END
$$;
COMMENT ON FUNCTION partner_portal.send_invitation(partner_portal.invitation, text, text[]) IS
'Owes the mails with an invitation''s link, <partner_portal.link_base_url>/invitation/<token>, and returns the invitation as its maker gets it: with the token only for a trusted application. Internal.';

DROP FUNCTION partner_portal.simple_mail(text, text[], text, text, text);

-- invite.sql

CREATE OR REPLACE FUNCTION partner_portal.resend_invitation(invitation_id bigint) RETURNS partner_portal.invitation
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	resent partner_portal.invitation := partner_portal.inviters_invitation(invitation_id);
	fresh_token text := partner_portal.new_token();
	recipients text[];
BEGIN
	PERFORM partner_portal.use_allowance(partner_portal.current_account_id());
	PERFORM partner_portal.cancel_invitation_mail(resent);
	SELECT array_agg(n.recipient ORDER BY n.notification_id) INTO recipients FROM partner_portal.notification n
	WHERE n.workspace_id = resent.workspace_id AND n.kind = 'invitation'
		AND n.dedupe_key = ANY (ARRAY(SELECT format('%s:%s:%s', resent.invitation_id, resent.sendings, r) FROM generate_series(1, 20) r));
	-- an offer of access is for who owns the partner now, at their present addresses
	IF resent.kind = 'access' THEN
		recipients := partner_portal.people_in_charge(resent.partner_key, '{owner}');
		IF recipients IS NULL THEN
			RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('partner %s has no owner who could accept', resent.partner_key);
		END IF;
	END IF;
	UPDATE partner_portal.invitation i SET email = CASE resent.kind WHEN 'access' THEN recipients[1] ELSE i.email END, token_hash = sha256(fresh_token::bytea), sent_at = clock_timestamp(), sendings = i.sendings + 1,
		expires_at = clock_timestamp() + current_setting('partner_portal.invitation_lifetime')::interval
	WHERE i.workspace_id = resent.workspace_id AND i.invitation_id = resent.invitation_id
	RETURNING i.* INTO resent;
	RETURN partner_portal.send_invitation(resent, fresh_token, recipients);
END
$$;
COMMENT ON FUNCTION partner_portal.resend_invitation(bigint) IS
'Sends a pending invitation anew, an expired one too, with a new token and its whole time; the old token is dead. An offer of access goes to those who own the partner now. For who could have made it. 42501; P0002; PP005 it is answered or withdrawn, or the partner has no owner; 53400 too many in an hour.';

COMMENT ON FUNCTION partner_portal.invite_member(bigint, text, text) IS
'Invites an address to join a workspace with a role. Needs manage_people; only an owner or the operator invites an owner; where there is none, not even one who has yet to accept, the partner''s account owner does. 42501, P0002; PP005 the workspace is deleted; 23505 it is a member or invited already; 22023.';

CREATE OR REPLACE FUNCTION partner_portal.invite_to_confirm(partner_id bigint, company_name text, owner_email text, owner_name text, slug text, time_zone text) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	wanted partner_portal.invitation;
	former partner_portal.invitation;
BEGIN
	wanted.workspace_id := partner_id;
	wanted.kind := 'customer';
	wanted.email := owner_email;
	wanted.company_name := partner_portal.checked_text('company_name', company_name, 200);
	IF owner_name IS NOT NULL THEN
		wanted.owner_name := partner_portal.checked_text('owner_name', owner_name, 200);
	END IF;
	IF slug IS NOT NULL THEN
		wanted.slug := partner_portal.checked_slug(slug);
		IF EXISTS (SELECT FROM partner_portal.workspace w WHERE w.slug = invite_to_confirm.slug) THEN
			RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = format('slug "%s" is taken', slug),
				HINT = 'Choose another slug, or leave it out to have one made from the company name.';
		END IF;
	END IF;
	IF time_zone IS NOT NULL THEN
		PERFORM partner_portal.check_time_zone(partner_portal.checked_text('time_zone', time_zone, 255));
		wanted.time_zone := time_zone;
	END IF;
	wanted.details := '{"confirm": true}';
	-- who asks again gets a new link
	FOR former IN
		UPDATE partner_portal.invitation i SET state = 'withdrawn', finished_at = clock_timestamp()
		WHERE i.workspace_id = invite_to_confirm.partner_id AND i.kind = 'customer' AND i.state = 'pending'
			AND lower(i.email COLLATE "C") = lower(owner_email COLLATE "C") AND i.details ? 'confirm'
		RETURNING i.*
	LOOP
		PERFORM partner_portal.cancel_invitation_mail(former);
	END LOOP;
	-- nobody's allowance: many register in an hour, but hardly one address many times
	IF (SELECT count(*) FROM partner_portal.invitation i
		WHERE lower(i.email COLLATE "C") = lower(owner_email COLLATE "C") AND i.details ? 'confirm' AND i.created_at > clock_timestamp() - interval '1 hour') >= 5
	THEN
		RAISE EXCEPTION USING ERRCODE = 'configuration_limit_exceeded', MESSAGE = 'too many registrations of an address in an hour',
			DETAIL = 'An address is sent 5 in an hour to confirm.', HINT = 'Use the last one, or try again later.';
	END IF;
	PERFORM partner_portal.create_invitation(wanted, capped => false);
END
$$;

DROP FUNCTION partner_portal.forget_invitations(text);
CREATE FUNCTION partner_portal.forget_invitations(erased partner_portal.account) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	forgotten partner_portal.invitation;
BEGIN
	FOR forgotten IN
		SELECT i.* FROM partner_portal.invitation i
		WHERE (i.account_id = (erased).account_id AND i.kind <> 'access')
			OR lower(i.email COLLATE "C") = lower((erased).email COLLATE "C")
			-- a pending one to an address that is somebody else's by now is that one's
			OR (i.created_at <= ((erased).former_emails ->> lower(i.email COLLATE "C"))::timestamptz
				AND (i.state <> 'pending' OR NOT EXISTS (SELECT FROM partner_portal.account a WHERE lower(a.email COLLATE "C") = lower(i.email COLLATE "C"))))
		ORDER BY i.workspace_id, i.invitation_id
		FOR UPDATE
	LOOP
		IF forgotten.state = 'pending' THEN
			PERFORM partner_portal.cancel_invitation_mail(forgotten);
		END IF;
		DELETE FROM partner_portal.notification n
		WHERE n.workspace_id = forgotten.workspace_id AND n.kind = 'invitation' AND split_part(n.dedupe_key, ':', 1) = forgotten.invitation_id::text
			AND lower(n.recipient COLLATE "C") = lower(forgotten.email COLLATE "C");
		UPDATE partner_portal.invitation i SET state = CASE i.state WHEN 'pending' THEN 'withdrawn' ELSE i.state END,
			finished_at = coalesce(i.finished_at, clock_timestamp()),
			email = 'erased-' || i.invitation_id || '@erased.invalid', owner_name = NULL, details = i.details - 'attributes'
		WHERE i.workspace_id = forgotten.workspace_id AND i.invitation_id = forgotten.invitation_id;
	END LOOP;
END
$$;
COMMENT ON FUNCTION partner_portal.forget_invitations(partner_portal.account) IS
'Withdraws what the addresses of an account that is erased are invited to, and erases address, name and attributes there, and the mails to that address; internal.';
REVOKE ALL ON FUNCTION partner_portal.forget_invitations(partner_portal.account) FROM PUBLIC;

-- access_consent.sql

CREATE OR REPLACE FUNCTION partner_portal.accept_access_invitation(invitation partner_portal.invitation) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	offered partner_portal.access_grant;
BEGIN
	SELECT g.* INTO offered FROM partner_portal.access_grant g
	WHERE g.workspace_id = (invitation).workspace_id AND g.grant_id = (invitation).grant_id AND g.state = 'offered'
	FOR UPDATE;
	IF NOT FOUND OR offered.expires_at <= clock_timestamp() THEN
		PERFORM partner_portal.invitation_not_usable();
	END IF;
	-- in one update: a second one would check the foreign keys, and wait for the partner's being deleted, which waits for this
	offered.accepted_by := (invitation).account_id;
	PERFORM partner_portal.start_grant(offered);
	RETURN offered.workspace_id;
END
$$;

CREATE OR REPLACE FUNCTION partner_portal.consent_follows() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	just_deleted boolean := OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL;
	ending partner_portal.access_grant;
BEGIN
	IF TG_OP = 'INSERT' AND partner_portal.restoring_session() THEN
		RETURN NULL;
	END IF;
	FOR ending IN
		SELECT g.* FROM partner_portal.access_grant g
		WHERE g.ended_at IS NULL AND (
			(g.workspace_id = NEW.workspace_id AND (just_deleted OR (NEW.partner_key <> OLD.partner_key AND g.partner_id = OLD.partner_key)))
			OR (g.partner_id = NEW.workspace_id AND (just_deleted OR NEW.kind <> OLD.kind)))
		ORDER BY g.workspace_id, g.grant_id
	LOOP
		-- the other side may be answering, or ending it
		PERFORM FROM partner_portal.invitation i
		WHERE i.workspace_id = ending.workspace_id AND i.grant_id = ending.grant_id AND i.state = 'pending' FOR NO KEY UPDATE;
		SELECT g.* INTO ending FROM partner_portal.access_grant g
		WHERE g.workspace_id = ending.workspace_id AND g.grant_id = ending.grant_id AND g.ended_at IS NULL
		FOR UPDATE;
		CONTINUE WHEN NOT FOUND;
		PERFORM partner_portal.close_offer(ending, 'withdrawn', NULL);
		PERFORM partner_portal.end_grant(ending, CASE ending.state WHEN 'active' THEN 'ended' ELSE 'withdrawn' END, clock_timestamp(),
			CASE WHEN just_deleted THEN 'deleted' WHEN NEW.kind <> OLD.kind THEN 'no partner any more' ELSE 'transferred' END);
	END LOOP;
	-- the second consent was given to the partner of before
	IF NEW.partner_key <> OLD.partner_key THEN
		UPDATE partner_portal.product p SET partner_access = false WHERE p.workspace_id = NEW.workspace_id AND p.partner_access;
	END IF;
	RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION partner_portal.partys_grant(grant_id bigint, OUT side text, OUT found_grant partner_portal.access_grant)
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
	END IF;
	IF grant_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'grant_id must not be null';
	END IF;
	SELECT g.* INTO found_grant FROM partner_portal.access_grant g WHERE g.grant_id = partys_grant.grant_id;
	side := CASE WHEN found_grant.grant_id IS NULL THEN NULL
		WHEN partner_portal.is_operator() THEN 'both'
		WHEN partner_portal.may('grant_access', found_grant.workspace_id) THEN 'customer'
		WHEN partner_portal.may('manage_portals', found_grant.partner_id) THEN 'partner' END;
	IF side IS NULL THEN
		IF found_grant.grant_id IS NOT NULL AND found_grant.workspace_id = partner_portal.own_workspace('read') THEN
			RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('permission "grant_access" denied on workspace %s', found_grant.workspace_id);
		END IF;
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('access grant %s not found', grant_id);
	END IF;
	-- an end waits for nobody but those who write by the grant
	IF found_grant.state <> 'active' THEN
		PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = found_grant.workspace_id FOR NO KEY UPDATE;
		PERFORM FROM partner_portal.invitation i
		WHERE i.workspace_id = found_grant.workspace_id AND i.grant_id = found_grant.grant_id AND i.state = 'pending' FOR NO KEY UPDATE;
	END IF;
	SELECT g.* INTO found_grant FROM partner_portal.access_grant g
	WHERE g.workspace_id = found_grant.workspace_id AND g.grant_id = found_grant.grant_id
	FOR UPDATE;
	IF found_grant.ended_at IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('access grant %s is %s', grant_id, found_grant.state);
	END IF;
END
$$;

CREATE OR REPLACE FUNCTION partner_portal.end_expired_access(as_of timestamptz DEFAULT now()) RETURNS integer
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	expired partner_portal.access_grant;
	ended integer := 0;
BEGIN
	PERFORM partner_portal.require_operator();
	FOR expired IN
		SELECT g.* FROM partner_portal.access_grant g
		WHERE g.ended_at IS NULL AND g.expires_at <= least(as_of, clock_timestamp())
		ORDER BY g.workspace_id, g.grant_id
	LOOP
		-- in everybody's order; who is just being answered is left to the answer, or to the next call
		IF expired.state <> 'active' THEN
			PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = expired.workspace_id FOR NO KEY UPDATE SKIP LOCKED;
			CONTINUE WHEN NOT FOUND;
			PERFORM FROM partner_portal.invitation i
			WHERE i.workspace_id = expired.workspace_id AND i.grant_id = expired.grant_id AND i.state = 'pending' FOR NO KEY UPDATE;
		END IF;
		SELECT g.* INTO expired FROM partner_portal.access_grant g
		WHERE g.workspace_id = expired.workspace_id AND g.grant_id = expired.grant_id AND g.state = expired.state
			AND g.expires_at <= least(as_of, clock_timestamp())
		FOR UPDATE SKIP LOCKED;
		CONTINUE WHEN NOT FOUND;
		PERFORM partner_portal.close_offer(expired, 'expired', NULL);
		PERFORM partner_portal.end_grant(expired, CASE expired.state WHEN 'active' THEN 'ended' ELSE 'withdrawn' END, expired.expires_at, 'expired');
		ended := ended + 1;
	END LOOP;
	RETURN ended;
END
$$;

CREATE FUNCTION partner_portal.grant_link(grant_id bigint) RETURNS text
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT rtrim(current_setting('partner_portal.link_base_url'), '/') || '/grants/' || grant_id;
END;
COMMENT ON FUNCTION partner_portal.grant_link(bigint) IS 'Where a mail about a grant points: <partner_portal.link_base_url>/grants/<grant_id>. Internal.';
REVOKE ALL ON FUNCTION partner_portal.grant_link(bigint) FROM PUBLIC;

DROP FUNCTION partner_portal.mail_about_grant(partner_portal.access_grant, text, text, bigint, text[]);

CREATE FUNCTION partner_portal.mail_about_grant(about partner_portal.access_grant, kind text, occasion text, to_workspace bigint,
	english partner_portal.mail_content, german partner_portal.mail_content) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.enqueue_mail((about).workspace_id, mail_about_grant.kind, format('%s:%s:%s:%s', (about).grant_id, occasion, to_workspace, r.n), r.email,
		r.locale, CASE WHEN partner_portal.mail_is_german(r.locale) THEN german ELSE english END)
	FROM (SELECT u.email, u.n, (SELECT a.locale FROM partner_portal.account a WHERE lower(a.email COLLATE "C") = lower(u.email COLLATE "C")) AS locale
		FROM unnest(partner_portal.people_in_charge(to_workspace, '{owner}')) WITH ORDINALITY AS u (email, n)
		WHERE u.n <= 20) r;
END
$$;
COMMENT ON FUNCTION partner_portal.mail_about_grant(partner_portal.access_grant, text, text, bigint, partner_portal.mail_content, partner_portal.mail_content) IS
'Owes the owners of one side a mail about a grant, each in their language, once per occasion; internal.';
REVOKE ALL ON FUNCTION partner_portal.mail_about_grant(partner_portal.access_grant, text, text, bigint, partner_portal.mail_content, partner_portal.mail_content) FROM PUBLIC;

CREATE OR REPLACE FUNCTION partner_portal.request_access(workspace_id bigint, scope text DEFAULT 'complete', products bigint[] DEFAULT '{}', categories text[] DEFAULT '{}',
		wallet boolean DEFAULT false, rights text[] DEFAULT '{read,manage}', expires_at timestamptz DEFAULT NULL, message text DEFAULT NULL,
		partner_id bigint DEFAULT NULL) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	asking partner_portal.partner := partner_portal.authorized_partner(partner_id);
	terms partner_portal.access_grant := partner_portal.checked_terms(scope, products, categories, CASE WHEN scope = 'limited' THEN nullif(wallet, false) ELSE wallet END, rights, expires_at);
	requested partner_portal.access_grant;
	partner_name text;
BEGIN
	IF workspace_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_id must not be null';
	END IF;
	IF message IS NOT NULL THEN
		PERFORM partner_portal.checked_text('message', message, 1000);
	END IF;
	IF workspace_id = asking.partner_id THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a partner needs no access to itself';
	END IF;
	PERFORM partner_portal.use_allowance(partner_portal.current_account_id());
	PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = request_access.workspace_id AND w.deleted_at IS NULL FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('workspace %s not found', workspace_id);
	END IF;
	INSERT INTO partner_portal.access_grant AS g (workspace_id, partner_id, scope, products, categories, wallet, rights, expires_at, state, asked, message, created_by)
	VALUES (request_access.workspace_id, asking.partner_id, terms.scope, terms.products, terms.categories, terms.wallet, terms.rights, terms.expires_at, 'requested',
		jsonb_strip_nulls(jsonb_build_object('scope', terms.scope, 'products', nullif(terms.products, '{}'), 'categories', nullif(terms.categories, '{}'),
			'rights', terms.rights, 'wallet', terms.wallet, 'expires_at', terms.expires_at)),
		request_access.message, partner_portal.current_account_id())
	ON CONFLICT (workspace_id, partner_id) WHERE state IN ('requested', 'offered') DO NOTHING
	RETURNING g.* INTO requested;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('a request to workspace %s, or its offer, is still open', workspace_id),
			HINT = 'End the request with end_access(), or answer the offer.';
	END IF;
	SELECT w.company_name INTO partner_name FROM partner_portal.workspace w WHERE w.workspace_id = asking.partner_id;
	PERFORM partner_portal.mail_about_grant(requested, 'access_request', 'requested', requested.workspace_id,
		partner_portal.mail_access_request('en', partner_name, message, partner_portal.grant_link(requested.grant_id)),
		partner_portal.mail_access_request('de', partner_name, message, partner_portal.grant_link(requested.grant_id)));
	RETURN requested;
END
$$;
COMMENT ON FUNCTION partner_portal.request_access(bigint, text, bigint[], text[], boolean, text[], timestamptz, text, bigint) IS
'Asks a workspace for access, in the name of a partner, NULL being the identity''s own; its owners get a mail and may grant as asked (accept_access), something else (counter_offer) or nothing (decline_access). For the partner''s owner or administrator, also of a workspace that it cannot see: whoever knows its id may ask. 42501; P0002; 22023; PP005 a request or offer is open; 53400.';

CREATE OR REPLACE FUNCTION partner_portal.start_grant(starting partner_portal.access_grant) RETURNS partner_portal.access_grant
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	started partner_portal.access_grant;
	former partner_portal.access_grant;
	payer partner_portal.access_grant;
	customer text;
	at timestamptz := clock_timestamp();
BEGIN
	SELECT g.* INTO former FROM partner_portal.access_grant g
	WHERE g.workspace_id = (starting).workspace_id AND g.partner_id = (starting).partner_id AND g.state = 'active'
	FOR UPDATE;
	IF FOUND THEN
		-- who came by the former one stays by this one
		UPDATE partner_portal.member m SET grant_id = (starting).grant_id, ends_at = (starting).expires_at,
			role = CASE (starting).scope WHEN 'complete' THEN 'member' ELSE m.role END
		WHERE m.workspace_id = former.workspace_id AND m.grant_id = former.grant_id;
		PERFORM partner_portal.end_grant(former, 'ended', at, 'replaced');
	END IF;
	IF (starting).wallet THEN
		UPDATE partner_portal.access_grant g SET wallet_until = greatest(g.wallet_since, least(at, g.expires_at))
		WHERE g.workspace_id = (starting).workspace_id AND g.wallet_since IS NOT NULL AND g.wallet_until IS NULL
		RETURNING g.* INTO payer;
		IF payer.partner_id <> (starting).partner_id AND coalesce(payer.expires_at > at, true) THEN
			SELECT w.company_name INTO customer FROM partner_portal.workspace w WHERE w.workspace_id = payer.workspace_id;
			PERFORM partner_portal.mail_about_grant(payer, 'wallet_moved', (starting).grant_id::text, payer.partner_id,
				partner_portal.mail_wallet_moved('en', customer, partner_portal.grant_link(payer.grant_id)),
				partner_portal.mail_wallet_moved('de', customer, partner_portal.grant_link(payer.grant_id)));
		END IF;
	END IF;
	UPDATE partner_portal.access_grant g
	SET state = 'active', accepted_at = at, accepted_by = coalesce((starting).accepted_by, partner_portal.current_account_id()), wallet_since = CASE WHEN g.wallet THEN at END
	WHERE g.workspace_id = (starting).workspace_id AND g.grant_id = (starting).grant_id AND g.state = (starting).state
	RETURNING g.* INTO started;
	IF NOT FOUND OR started.expires_at <= at THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('access grant %s is not open any more', (starting).grant_id);
	END IF;
	-- the partner's people who were members or guests already are so by the grant from now on
	UPDATE partner_portal.member m
	SET grant_id = started.grant_id, ends_at = started.expires_at, role = CASE started.scope WHEN 'complete' THEN 'member' ELSE m.role END
	WHERE m.workspace_id = started.workspace_id AND m.role IN ('member', 'guest') AND m.accepted_at IS NOT NULL AND m.grant_id IS NULL
		AND EXISTS (SELECT FROM partner_portal.member p
			WHERE p.workspace_id = started.partner_id AND p.account_id = m.account_id AND p.role IN ('owner', 'administrator') AND p.accepted_at IS NOT NULL);
	RETURN started;
END
$$;
COMMENT ON FUNCTION partner_portal.start_grant(partner_portal.access_grant) IS
'Makes an open grant active in place of the partner''s former one; the wallet moves to it, and a partner that held it is told so by mail; owners and administrators of the partner who were members or guests of the workspace become so by the grant, and end with it. Internal.';

CREATE OR REPLACE FUNCTION partner_portal.notify_expiring_access(as_of timestamptz DEFAULT now()) RETURNS integer
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	due record;
	noticed integer := 0;
BEGIN
	PERFORM partner_portal.require_operator();
	FOR due IN
		-- one notice, the most urgent, and none about a time that was shorter from the start
		SELECT g AS about, c.company_name AS customer, p.company_name AS partner, t.days
		FROM partner_portal.access_grant g
		JOIN partner_portal.workspace c ON c.workspace_id = g.workspace_id
		JOIN partner_portal.workspace p ON p.workspace_id = g.partner_id
		CROSS JOIN LATERAL (
			SELECT min(d.days) AS days FROM unnest(ARRAY[30, 7, 1]) d (days)
			WHERE g.expires_at - make_interval(hours => 24 * d.days) <= as_of
				AND g.expires_at - make_interval(hours => 24 * d.days) > greatest(g.accepted_at, g.extended_at)) t
		WHERE g.state = 'active' AND g.expires_at > as_of AND t.days IS NOT NULL
		ORDER BY g.workspace_id, g.grant_id
	LOOP
		PERFORM partner_portal.mail_about_grant(due.about, 'access_expiry', format('%s-%s', extract(epoch FROM (due.about).expires_at)::bigint, due.days), side.id,
			partner_portal.mail_grant_expiry('en', due.customer, due.partner, side.expires_on, side.days, side.link),
			partner_portal.mail_grant_expiry('de', due.customer, due.partner, side.expires_on, side.days, side.link))
		FROM (SELECT w.workspace_id AS id, ((due.about).expires_at AT TIME ZONE w.time_zone)::date AS expires_on,
				((due.about).expires_at AT TIME ZONE w.time_zone)::date - (as_of AT TIME ZONE w.time_zone)::date AS days,
				partner_portal.grant_link((due.about).grant_id) AS link
			FROM partner_portal.workspace w
			WHERE w.workspace_id IN ((due.about).workspace_id, (due.about).partner_id)) side;
		noticed := noticed + 1;
	END LOOP;
	RETURN noticed;
END
$$;
COMMENT ON FUNCTION partner_portal.notify_expiring_access(timestamptz) IS
'Owes both sides'' owners a mail 30, 7 and 1 days before access expires, each once; what was missed meanwhile is not made up for, and the mail tells the days that are left. Returns how many grants expire within the days that a notice is owed for. Operator only (42501).';

-- panel.sql

CREATE OR REPLACE FUNCTION partner_portal.billing_history(workspace_id bigint)
	RETURNS TABLE (period tstzrange, label text, invoice_number text, invoice_date date, keys_billed integer, total_minor bigint,
		currency text, status text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF billing_history.workspace_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_id must not be null';
	END IF;
	PERFORM partner_portal.authorize('read', billing_history.workspace_id);
	RETURN QUERY
	SELECT tstzrange(b.period_start, b.period_end), b.label, i.invoice_number, i.invoice_date, coalesce(i.keys_billed, u.distinct_keys), i.total_minor, i.currency, i.status
	FROM partner_portal.workspace w
	JOIN partner_portal.billing_period b ON b.workspace_id = w.workspace_id
	JOIN partner_portal.usage_period u ON u.workspace_id = b.workspace_id AND u.period_start = b.period_start AND u.kind = 'total'
	LEFT JOIN LATERAL (
		SELECT d.invoice_number, d.invoice_date, d.keys_billed, d.total_minor, d.currency, d.status FROM partner_portal.invoice d
		WHERE d.workspace_id = b.workspace_id AND d.period_start = b.period_start AND d.document = 'invoice' AND partner_portal.invoice_visible(d)
		ORDER BY d.status = 'void', d.invoice_id DESC LIMIT 1) i ON true
	WHERE w.workspace_id = billing_history.workspace_id AND b.closed_at IS NOT NULL
		AND (b.partner_key = w.partner_key OR w.partner_id IS NULL OR w.partner_id IS DISTINCT FROM partner_portal.current_partner_id())
	ORDER BY b.period_start DESC;
END
$$;

-- report.sql

-- metrics.sql

-- portal.sql

CREATE OR REPLACE FUNCTION partner_portal.check_portal(name text, technical_name text, color text, logout_url text, home_cover_url text) RETURNS void
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
	url_shape CONSTANT text := '^https?://[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?([/?#][A-Za-z0-9._~:/?#@!$&''()*+,;=%\[\]-]*)?$';
BEGIN
	PERFORM partner_portal.checked_text('name', name, 200);
	PERFORM partner_portal.checked_text('technical_name', technical_name, 63);
	PERFORM partner_portal.checked_text('color', color, 7);
	PERFORM partner_portal.checked_text('logout_url', logout_url, 2000);
	IF home_cover_url IS NOT NULL THEN
		PERFORM partner_portal.checked_text('home_cover_url', home_cover_url, 2000);
	END IF;
	IF technical_name !~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$' OR technical_name ~ '^..--' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('technical name "%s" is not valid', technical_name),
			HINT = 'It is a label of a host name: a to z, 0 to 9 and hyphens, with a letter or digit at both ends; not one of an internationalised name.';
	END IF;
	IF color !~ '^#[0-9A-Fa-f]{6}$' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('color "%s" is not valid', color),
			HINT = 'A colour is written #rrggbb.';
	END IF;
	IF logout_url !~ url_shape OR home_cover_url !~ url_shape THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('%s is not valid', CASE WHEN logout_url !~ url_shape THEN 'logout_url' ELSE 'home_cover_url' END),
			HINT = 'An address begins with http:// or https:// and a host name; other than ASCII characters are written as %XX.';
	END IF;
	PERFORM partner_portal.checked_port('logout_url', logout_url), partner_portal.checked_port('home_cover_url', home_cover_url);
END
$$;

CREATE TRIGGER check_names BEFORE INSERT OR UPDATE ON partner_portal.portal
	FOR EACH ROW EXECUTE FUNCTION partner_portal.check_names('name');
CREATE TRIGGER check_addresses BEFORE INSERT OR UPDATE ON partner_portal.portal
	FOR EACH ROW EXECUTE FUNCTION partner_portal.check_addresses('logout_url', 'home_cover_url');
CREATE TRIGGER check_names BEFORE INSERT OR UPDATE ON partner_portal.folder
	FOR EACH ROW EXECUTE FUNCTION partner_portal.check_names('name');
CREATE TRIGGER check_names BEFORE INSERT OR UPDATE ON partner_portal.report
	FOR EACH ROW EXECUTE FUNCTION partner_portal.check_names('title');

-- portal_user.sql

CREATE OR REPLACE FUNCTION partner_portal.attribute_value(type text, value text) RETURNS jsonb
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT CASE type
		WHEN 'string' THEN CASE WHEN length(value) <= 1000 AND value !~ '[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]' THEN to_jsonb(value) END
		WHEN 'number' THEN CASE WHEN v.bare ~ '^[+-]?([0-9]{1,30}(\.[0-9]{0,20})?|\.[0-9]{1,20})$' THEN to_jsonb(trim_scale(v.bare::numeric)) END
		WHEN 'boolean' THEN CASE lower(v.bare) WHEN 'true' THEN jsonb 'true' WHEN 'yes' THEN jsonb 'true' WHEN '1' THEN jsonb 'true'
			WHEN 'false' THEN jsonb 'false' WHEN 'no' THEN jsonb 'false' WHEN '0' THEN jsonb 'false' END
		WHEN 'date' THEN CASE WHEN v.bare ~ '^(19|2[0-9])[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$'
			THEN CASE WHEN substr(v.bare, 9, 2)::integer <=
				extract(day FROM make_date(left(v.bare, 4)::integer, substr(v.bare, 6, 2)::integer, 1) + interval '1 month - 1 day')
				THEN to_jsonb(v.bare) END END
		END
	FROM (SELECT btrim(value, E' \t\n\r\f\x0b') AS bare) v;
END;
COMMENT ON FUNCTION partner_portal.attribute_value(text, text) IS
'A value of an attribute''s type in its one form, NULL if it is none: a string of at most 1000 characters; a number of at most 30 digits and 20 decimals; true, false, yes, no, 1 or 0; a date YYYY-MM-DD of 1900 to 2999; space around all but a string is left out. Internal.';

CREATE OR REPLACE FUNCTION partner_portal.drop_attribute(partner_id bigint, technical_name text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_id);
BEGIN
	IF technical_name IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'technical_name must not be null';
	END IF;
	-- whoever changes users waits, and looks at the attributes again; in an older snapshot it has to try again
	UPDATE partner_portal.portal p SET name = p.name WHERE p.workspace_id = asked.partner_id;
	DELETE FROM partner_portal.portal_attribute d WHERE d.workspace_id = asked.partner_id AND d.technical_name = drop_attribute.technical_name;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = 'attribute not found';
	END IF;
	UPDATE partner_portal.portal_account p SET attributes = p.attributes - drop_attribute.technical_name
	WHERE p.workspace_id = asked.partner_id AND p.attributes ? drop_attribute.technical_name;
	UPDATE partner_portal.invitation i SET details = i.details #- ARRAY['attributes', drop_attribute.technical_name]
	WHERE i.workspace_id = asked.partner_id AND i.kind = 'portal' AND i.state = 'pending' AND i.details -> 'attributes' ? drop_attribute.technical_name;
END
$$;

CREATE FUNCTION partner_portal.portal_for_user(portal_id bigint) RETURNS partner_portal.portal
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.portal := partner_portal.authorized_portal('manage_portals', portal_id);
BEGIN
	-- before all else, as whoever accepts or withdraws an invitation does
	PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = asked.workspace_id FOR NO KEY UPDATE;
	RETURN partner_portal.portal_for_users(portal_id);
END
$$;
COMMENT ON FUNCTION partner_portal.portal_for_user(bigint) IS
'As portal_for_users(), and waits for answers to invitations that are under way, so that what is looked up then is either the invitation or the user it made. 42501, 22004, P0002; PP005 its partner is deleted. Internal.';
REVOKE ALL ON FUNCTION partner_portal.portal_for_user(bigint) FROM PUBLIC;

CREATE OR REPLACE FUNCTION partner_portal.invite_portal_user(portal_id bigint, email text, role text, attributes jsonb DEFAULT '{}') RETURNS partner_portal.invitation
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.portal := partner_portal.portal_for_user(portal_id);
	wanted partner_portal.invitation;
	checked record;
BEGIN
	PERFORM partner_portal.check_portal_user(role, attributes);
	wanted.workspace_id := asked.workspace_id;
	wanted.kind := 'portal';
	wanted.portal_id := asked.portal_id;
	wanted.email := partner_portal.checked_email(email);
	wanted.role := role;
	SELECT c.* INTO checked FROM partner_portal.checked_attributes(asked.workspace_id, attributes, '{}') c;
	IF checked.problem IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = checked.problem;
	END IF;
	wanted.details := jsonb_build_object('attributes', checked.attributes);
	IF EXISTS (SELECT FROM partner_portal.portal_account p JOIN partner_portal.account a ON a.account_id = p.account_id
		WHERE p.workspace_id = asked.workspace_id AND p.portal_id = asked.portal_id
			AND lower(a.email COLLATE "C") = lower(invite_portal_user.email COLLATE "C"))
	THEN
		RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = format('this address is a user of portal %s already', portal_id),
			HINT = 'Use change_portal_user() to change its role and attributes.';
	END IF;
	RETURN partner_portal.create_invitation(wanted);
END
$$;

CREATE OR REPLACE FUNCTION partner_portal.change_portal_user(portal_id bigint, email text, role text DEFAULT NULL, attributes jsonb DEFAULT '{}') RETURNS partner_portal.portal_user
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.portal := partner_portal.portal_for_user(portal_id);
	found_user partner_portal.portal_user;
	checked record;
BEGIN
	PERFORM partner_portal.check_portal_user(coalesce(role, 'viewer'), attributes);
	PERFORM partner_portal.checked_email(email);
	SELECT u.* INTO found_user FROM partner_portal.portal_user u
	WHERE u.workspace_id = asked.workspace_id AND u.portal_id = asked.portal_id AND lower(u.email COLLATE "C") = lower(change_portal_user.email COLLATE "C")
	ORDER BY u.account_id LIMIT 1;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('this address is no user of portal %s', portal_id);
	END IF;
	SELECT c.* INTO checked FROM partner_portal.checked_attributes(asked.workspace_id, attributes, found_user.attributes) c;
	IF checked.problem IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = checked.problem;
	END IF;
	found_user.role := coalesce(role, found_user.role);
	found_user.attributes := checked.attributes;
	IF found_user.account_id IS NOT NULL THEN
		UPDATE partner_portal.portal_account p SET role = found_user.role, attributes = found_user.attributes
		WHERE p.workspace_id = asked.workspace_id AND p.portal_id = asked.portal_id AND p.account_id = found_user.account_id;
	ELSE
		UPDATE partner_portal.invitation i SET role = found_user.role, details = i.details || jsonb_build_object('attributes', found_user.attributes)
		WHERE i.workspace_id = asked.workspace_id AND i.invitation_id = found_user.invitation_id AND i.state = 'pending';
	END IF;
	IF NOT FOUND THEN
		-- refused meanwhile, for which one need be nobody and waits for nobody
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('this address is no user of portal %s', portal_id);
	END IF;
	RETURN found_user;
END
$$;

CREATE OR REPLACE FUNCTION partner_portal.remove_portal_user(portal_id bigint, email text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.portal := partner_portal.portal_for_user(portal_id);
	found_user partner_portal.portal_user;
	withdrawn partner_portal.invitation;
	removed boolean := false;
BEGIN
	PERFORM partner_portal.checked_email(email);
	FOR found_user IN SELECT u.* FROM partner_portal.portal_user u
		WHERE u.workspace_id = asked.workspace_id AND u.portal_id = asked.portal_id AND lower(u.email COLLATE "C") = lower(remove_portal_user.email COLLATE "C")
	LOOP
		DELETE FROM partner_portal.portal_account p
		WHERE p.workspace_id = asked.workspace_id AND p.portal_id = asked.portal_id AND p.account_id = found_user.account_id;
		removed := removed OR FOUND;
		-- refused meanwhile, for which one need be nobody and waits for nobody, it is no longer pending
		UPDATE partner_portal.invitation i SET state = 'withdrawn', finished_at = clock_timestamp()
		WHERE i.workspace_id = asked.workspace_id AND i.invitation_id = found_user.invitation_id AND i.state = 'pending'
		RETURNING i.* INTO withdrawn;
		IF FOUND THEN
			PERFORM partner_portal.cancel_invitation_mail(withdrawn);
			removed := true;
		END IF;
	END LOOP;
	IF NOT removed THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('this address is no user of portal %s', portal_id);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.remove_portal_user(bigint, text) IS
'Removes a user from a portal from the next statement of every session on; an invitation is withdrawn. Reports it made stay. For the partner''s owner or administrator. 42501; P0002 no such portal or user, or who was invited has refused meanwhile; 22004, 22023; PP005 the partner is deleted.';

CREATE TRIGGER check_names BEFORE INSERT OR UPDATE ON partner_portal.portal_attribute
	FOR EACH ROW EXECUTE FUNCTION partner_portal.check_names('label');

-- portal_user_csv.sql

CREATE FUNCTION partner_portal.done_as_meant(done bigint, meant bigint) RETURNS boolean
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF done <> meant THEN
		RAISE EXCEPTION USING ERRCODE = 'serialization_failure', MESSAGE = 'users of the portal changed meanwhile',
			DETAIL = format('%s of %s changes could be made.', done, meant), HINT = 'Nothing was done; try again.';
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION partner_portal.done_as_meant(bigint, bigint) IS 'True; 40001 when fewer changes were made than were meant, since somebody accepted, withdrew or left meanwhile. Internal.';
REVOKE ALL ON FUNCTION partner_portal.done_as_meant(bigint, bigint) FROM PUBLIC;

CREATE OR REPLACE FUNCTION partner_portal.bulk_update_portal_users(portal_id bigint, csv text, dry_run boolean DEFAULT false, on_error text DEFAULT 'abort',
		OUT line integer, OUT email text, OUT outcome text, OUT message text) RETURNS SETOF record
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	asked partner_portal.portal := partner_portal.portal_for_users(portal_id);
	heading record;
	columns text[];
	email_at integer;
	role_at integer;
	-- what the invitations have in common; in their mails the token takes the place of another
	specimen partner_portal.invitation;
	in_place_of text := partner_portal.new_token();
	inviter text := (SELECT w.company_name FROM partner_portal.workspace w WHERE w.workspace_id = asked.workspace_id);
	inviters_locale text := (SELECT a.locale FROM partner_portal.account a WHERE a.account_id = coalesce(partner_portal.current_account_id(),
		(SELECT m.account_id FROM partner_portal.member m WHERE m.workspace_id = asked.workspace_id AND m.role = 'owner' AND m.accepted_at IS NOT NULL
		ORDER BY m.accepted_at, m.account_id LIMIT 1)));
	link text := rtrim(current_setting('partner_portal.link_base_url'), '/') || '/invitation/' || in_place_of;
BEGIN
	IF csv IS NULL OR dry_run IS NULL OR on_error IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'csv, dry_run and on_error must not be null';
	END IF;
	IF on_error NOT IN ('abort', 'skip') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'on_error must be abort or skip';
	END IF;
	SELECT l.line, l.fields, l.problem INTO heading FROM partner_portal.csv_lines(csv, 1) l;
	columns := ARRAY(SELECT lower(btrim(c)) FROM unnest(heading.fields) WITH ORDINALITY AS t (c, n) ORDER BY n);
	columns := CASE WHEN cardinality(columns) > 0 THEN columns END;
	message := coalesce(heading.problem, partner_portal.csv_heading_problem(asked.workspace_id, columns));
	IF message IS NOT NULL THEN
		line := coalesce(heading.line, 1);
		outcome := 'error';
		RETURN NEXT;
		RETURN;
	END IF;
	email_at := array_position(columns, 'email');
	role_at := array_position(columns, 'role');
	specimen.workspace_id := asked.workspace_id;
	specimen.kind := 'portal';
	specimen.details := '{}';
	specimen.expires_at := clock_timestamp() + current_setting('partner_portal.invitation_lifetime')::interval;

	-- whoever answers an invitation of these comes before this, or after
	PERFORM FROM partner_portal.invitation i
	WHERE i.workspace_id = asked.workspace_id AND i.portal_id = asked.portal_id AND i.kind = 'portal' AND i.state = 'pending' AND NOT dry_run
		AND lower(i.email COLLATE "C") IN (SELECT lower(partner_portal.unshielded_cell(btrim(l.fields[email_at])) COLLATE "C") FROM partner_portal.csv_lines(csv) l)
	FOR UPDATE OF i;

	RETURN QUERY
	WITH attribute_column AS MATERIALIZED (
		SELECT c.n, d.technical_name, d.multiple FROM unnest(columns) WITH ORDINALITY AS c (name, n)
		JOIN partner_portal.portal_attribute d ON d.workspace_id = asked.workspace_id AND d.technical_name = c.name
	), entry AS (
		SELECT l.line, left(partner_portal.unshielded_cell(btrim(l.fields[email_at])), 321) AS email, lower(btrim(l.fields[role_at])) AS role,
			(SELECT coalesce(jsonb_object_agg(a.technical_name, CASE WHEN l.fields[a.n] IS NULL THEN jsonb 'null'
				WHEN a.multiple THEN partner_portal.cell_values(l.fields[a.n]) ELSE to_jsonb(partner_portal.unshielded_cell(l.fields[a.n])) END), '{}') FROM attribute_column a) AS given,
			CASE WHEN l.problem IS NOT NULL THEN l.problem
				WHEN cardinality(l.fields) <> cardinality(columns) THEN format('there are %s fields for %s columns', cardinality(l.fields), cardinality(columns))
			END AS problem
		FROM partner_portal.csv_lines(csv) l WHERE l.line > heading.line
	), verdict AS MATERIALIZED (
		SELECT e.line, e.email, e.role, c.attributes, p.account_id, i.invitation_id, p.ctid AS user_at, i.ctid AS invitation_at, a.locale, CASE
				WHEN e.problem IS NOT NULL THEN e.problem
				WHEN coalesce(e.email, '') = '' THEN 'there is no e-mail address'
				WHEN octet_length(e.email) > 320 OR e.email !~ '^[A-Za-z0-9.!#$%&''*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$'
					THEN 'this is not an e-mail address'
				WHEN e.line > first_value(e.line) OVER same THEN format('this address is on line %s already', first_value(e.line) OVER same)
				WHEN e.role IS NULL OR e.role NOT IN ('viewer', 'editor') THEN 'role must be viewer or editor'
				ELSE c.problem END AS problem,
			coalesce(p.role, i.role) IS NOT DISTINCT FROM e.role AND coalesce(p.attributes, i.details -> 'attributes', '{}') = c.attributes AS same
		FROM entry e
		LEFT JOIN partner_portal.account a ON lower(a.email COLLATE "C") = lower(e.email COLLATE "C")
		LEFT JOIN partner_portal.portal_account p ON p.workspace_id = asked.workspace_id AND p.portal_id = asked.portal_id AND p.account_id = a.account_id
		LEFT JOIN partner_portal.invitation i ON i.workspace_id = asked.workspace_id AND i.portal_id = asked.portal_id AND i.kind = 'portal' AND i.state = 'pending'
			AND p.account_id IS NULL AND lower(i.email COLLATE "C") = lower(e.email COLLATE "C")
		CROSS JOIN LATERAL partner_portal.checked_attributes(asked.workspace_id, CASE WHEN e.problem IS NULL THEN e.given ELSE '{}' END,
			coalesce(p.attributes, i.details -> 'attributes', '{}')) c
		WINDOW same AS (PARTITION BY lower(e.email COLLATE "C") ORDER BY e.line)
	), step AS MATERIALIZED (
		SELECT min(v.line) FILTER (WHERE v.problem IS NOT NULL) AS bad_line,
			NOT dry_run AND (on_error = 'skip' OR count(v.problem) = 0) AS taken,
			count(*) FILTER (WHERE v.problem IS NULL AND NOT (v.same AND coalesce(v.account_id, v.invitation_id) IS NOT NULL)) AS meant
		FROM verdict v
	-- by place, so that a table without statistics is not gone through for every line
	), changed_user AS (
		UPDATE partner_portal.portal_account p SET role = v.role, attributes = v.attributes
		FROM verdict v, step s
		WHERE s.taken AND v.problem IS NULL AND NOT v.same AND p.ctid = v.user_at AND p.workspace_id = asked.workspace_id AND p.portal_id = asked.portal_id
		RETURNING 1
	), changed_invitation AS (
		UPDATE partner_portal.invitation i SET role = v.role, details = i.details || jsonb_build_object('attributes', v.attributes)
		FROM verdict v, step s
		WHERE s.taken AND v.problem IS NULL AND NOT v.same AND i.ctid = v.invitation_at AND i.workspace_id = asked.workspace_id AND i.state = 'pending'
		RETURNING 1
	), fresh AS MATERIALIZED (
		SELECT nextval('partner_portal.invitation_invitation_id_seq') AS invitation_id, v.email, v.role, v.attributes, coalesce(v.locale, inviters_locale, 'en') AS locale,
			partner_portal.new_token() AS token
		FROM verdict v, step s
		WHERE s.taken AND v.problem IS NULL AND v.account_id IS NULL AND v.invitation_id IS NULL
	), made AS (
		INSERT INTO partner_portal.invitation (workspace_id, invitation_id, partner_key, kind, email, role, portal_id, details, invited_by, expires_at, token_hash)
		OVERRIDING SYSTEM VALUE
		SELECT asked.workspace_id, f.invitation_id, 0, 'portal', f.email, f.role, asked.portal_id, jsonb_build_object('attributes', f.attributes), partner_portal.current_account_id(),
			specimen.expires_at, sha256(f.token::bytea)
		FROM fresh f
		ON CONFLICT DO NOTHING
		RETURNING 1
	), letter AS MATERIALIZED (
		SELECT l.locale, partner_portal.mail_invitation(l.locale, specimen, inviter, link) AS mail FROM (SELECT DISTINCT f.locale FROM fresh f) l
	), mailed AS (
		INSERT INTO partner_portal.notification AS n (workspace_id, partner_key, kind, dedupe_key, recipient, locale, subject, text_body, html_body, secret, expires_at)
		SELECT asked.workspace_id, coalesce((SELECT w.partner_key FROM partner_portal.workspace w WHERE w.workspace_id = asked.workspace_id), 0), 'invitation',
			format('%s:1:1', f.invitation_id), f.email, l.locale, (l.mail).subject, replace((l.mail).text_body, in_place_of, f.token),
			replace((l.mail).html_body, in_place_of, f.token), f.token, specimen.expires_at
		FROM fresh f JOIN letter l ON l.locale = f.locale
		RETURNING n.workspace_id, n.notification_id
	), queued AS (
		INSERT INTO partner_portal.delivery_queue AS q (workspace_id, notification_id, destination)
		SELECT m.workspace_id, m.notification_id, 0 FROM mailed m
		RETURNING 1
	), done AS MATERIALIZED (
		SELECT (SELECT count(*) FROM changed_user) + (SELECT count(*) FROM changed_invitation) + (SELECT count(*) FROM made) AS n
	)
	SELECT v.line, left(v.email, 320), CASE WHEN v.problem IS NOT NULL THEN 'error' WHEN v.account_id IS NULL AND v.invitation_id IS NULL THEN 'invited' WHEN v.same THEN 'unchanged' ELSE 'updated' END,
		CASE WHEN v.problem IS NOT NULL THEN v.problem WHEN NOT s.taken AND NOT dry_run THEN format('nothing was done, since line %s is in error', s.bad_line) END
	FROM verdict v, step s, done
	WHERE partner_portal.done_as_meant(done.n, CASE WHEN s.taken THEN s.meant ELSE 0 END)
	ORDER BY v.line;
END
$$;
COMMENT ON FUNCTION partner_portal.bulk_update_portal_users(bigint, text, boolean, text) IS
'Invites and changes users of a portal by a CSV file (RFC 4180; byte order mark, any line ends): columns email, role (viewer or editor) and any attributes by technical name, in any order. Who is neither a user nor invited is invited; who is gets the role and the attributes of the columns that are there, an empty cell takes a value away. Several values are parted by semicolons (\; is one within a value). An apostrophe before = + - @, a tab or CR shields text from spreadsheets and is not part of the value.
One row per line that is not empty, with the line it begins on: outcome invited, updated, unchanged or error, and a message. With on_error abort nothing is done when any line is in error, and every message says so; skip does the others. dry_run does nothing and says what would be. A bad heading is one error, and nothing is done. Invitations made so are not counted by partner_portal.invitations_per_hour.
For the partner''s owner or administrator. 42501, P0002; 22004, 22023; 40001 a user came or went meanwhile, and nothing was done; PP005 the partner is deleted.';

-- isolation.sql

CREATE FUNCTION partner_portal.portal_plan_support(internal) RETURNS internal
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_portal_plan_support';
COMMENT ON FUNCTION partner_portal.portal_plan_support(internal) IS 'Planner support function of acting_in_portal(): makes it a constant of the plan, which is thrown away when it no longer holds. Internal.';
REVOKE ALL ON FUNCTION partner_portal.portal_plan_support(internal) FROM PUBLIC;

CREATE FUNCTION partner_portal.acting_in_portal() RETURNS boolean
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 SUPPORT partner_portal.portal_plan_support AS 'MODULE_PATHNAME', 'partner_portal_acting_in_portal';
COMMENT ON FUNCTION partner_portal.acting_in_portal() IS
'Whether one acts in a portal. For policies: the planner knows the answer, so that what is for others falls away and the rest is planned as if it stood alone; a plan for one portal, or for none, is made anew for another. A statement that itself changes where one acts is planned for what was before, and shows too few rows, never too many.';
REVOKE ALL ON FUNCTION partner_portal.acting_in_portal() FROM PUBLIC;

CREATE FUNCTION partner_portal.few_rows_support(internal) RETURNS internal
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_few_rows_support';
COMMENT ON FUNCTION partner_portal.few_rows_support(internal) IS 'Planner support function of few_rows(): a selectivity of one hundredth. Internal.';
REVOKE ALL ON FUNCTION partner_portal.few_rows_support(internal) FROM PUBLIC;

CREATE FUNCTION partner_portal.few_rows(bigint) RETURNS boolean
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 SUPPORT partner_portal.few_rows_support AS 'MODULE_PATHNAME', 'partner_portal_few_rows';
COMMENT ON FUNCTION partner_portal.few_rows(bigint) IS
'True. For policies: the planner takes rows for few beside this, and looks for them by their index also when a query has ORDER BY and LIMIT, where it would rather go through the rows of all.';
REVOKE ALL ON FUNCTION partner_portal.few_rows(bigint) FROM PUBLIC;

CREATE OR REPLACE FUNCTION partner_portal.isolate(relation regclass, workspace_column name, attributes jsonb DEFAULT NULL, write_permission text DEFAULT 'manage_products') RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	type oid;
	ours CONSTANT text := '(%1$I = ANY ((SELECT partner_portal.visible_workspaces(%2$L))::bigint[]) AND partner_portal.few_rows(%1$I))';
	readable text;
	writable text;
	filtered text;
	part regclass;
	policy record;
	index_needed text;
BEGIN
	PERFORM partner_portal.checked_relation(relation);
	IF workspace_column IS NULL OR write_permission IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_column and write_permission must not be null';
	END IF;
	PERFORM partner_portal.may(write_permission, 0);
	SELECT a.atttypid INTO type FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = workspace_column AND a.attnum > 0 AND NOT a.attisdropped;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_column', MESSAGE = format('column "%s" of relation %s does not exist', workspace_column, relation);
	END IF;
	IF type NOT IN ('bigint'::regtype, 'integer'::regtype) THEN
		RAISE EXCEPTION USING ERRCODE = 'datatype_mismatch', MESSAGE = format('column "%s" of relation %s has type %s', workspace_column, relation, type::regtype),
			HINT = 'A workspace_id is a bigint.';
	END IF;
	readable := format(ours, workspace_column, 'read');
	writable := format(ours, workspace_column, write_permission);
	IF jsonb_typeof(attributes) <> 'null' THEN
		IF jsonb_typeof(attributes) = 'array' AND NOT EXISTS (SELECT FROM jsonb_array_elements(attributes) e WHERE jsonb_typeof(e) <> 'string') THEN
			attributes := (SELECT jsonb_object_agg(e, e) FROM jsonb_array_elements_text(attributes) e);
		END IF;
		IF attributes IS NULL OR jsonb_typeof(attributes) <> 'object' OR attributes = '{}'
			OR EXISTS (SELECT FROM jsonb_each(attributes) e WHERE jsonb_typeof(e.value) <> 'string')
		THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'attributes must name at least one attribute',
				HINT = 'It is an object of columns with their attributes, or an array of names that are both.';
		END IF;
		-- a portal's partner is known when its plans are made, and may have most of the rows
		SELECT format('partner_portal.acting_in_portal() AND %1$I = partner_portal.portal_workspace_id() AND partner_portal.few_rows(%1$I)', workspace_column)
			|| string_agg(' AND ' || partner_portal.attribute_condition(relation, e.key::name, e.value), '' ORDER BY e.key)
		INTO filtered FROM jsonb_each_text(attributes) e;
		readable := format('NOT partner_portal.acting_in_portal() AND %s', readable);
	END IF;

	-- a partition that is asked itself does not have its parent's policies
	FOR part IN SELECT t.relid FROM pg_partition_tree(relation) t UNION SELECT relation
	LOOP
		FOR policy IN SELECT p.polname FROM pg_policy p WHERE p.polrelid = part AND p.polname LIKE 'partner\_portal\_%' LOOP
			EXECUTE format('DROP POLICY %I ON %s', policy.polname, part);
		END LOOP;
		EXECUTE format('CREATE POLICY partner_portal_signed_in ON %s AS RESTRICTIVE USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
			WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL)', part);
		EXECUTE format('CREATE POLICY partner_portal_read ON %s FOR SELECT USING (%s)', part, readable);
		EXECUTE format('CREATE POLICY partner_portal_insert ON %s FOR INSERT WITH CHECK (%s)', part, writable);
		EXECUTE format('CREATE POLICY partner_portal_update ON %s FOR UPDATE USING (%s) WITH CHECK (%s)', part, writable, writable);
		EXECUTE format('CREATE POLICY partner_portal_delete ON %s FOR DELETE USING (%s)', part, writable);
		IF filtered IS NOT NULL THEN
			EXECUTE format('CREATE POLICY partner_portal_attributes ON %s FOR SELECT USING (%s)', part, filtered);
		END IF;
		EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', part);
	END LOOP;
	index_needed := partner_portal.missing_index(relation);
	IF index_needed IS NOT NULL THEN
		RAISE NOTICE USING MESSAGE = format('relation %s has no index for its policies', relation), HINT = index_needed || ';';
	END IF;
END
$$;

-- Estimates of what the catalog holds are far off, and compiling for them would take longer than all the rest.
CREATE OR REPLACE FUNCTION partner_portal.check_isolation() RETURNS TABLE (object text, problem text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
BEGIN
	PERFORM partner_portal.require_operator();
	RETURN QUERY
	WITH RECURSIVE own_object AS (
		SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'partner_portal'
		WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	), isolated AS (
		SELECT DISTINCT p.polrelid AS oid, true AS application FROM pg_policy p WHERE p.polname LIKE 'partner\_portal\_%'
		UNION
		SELECT t.relid, true FROM pg_policy p, pg_partition_tree(p.polrelid) t WHERE p.polname LIKE 'partner\_portal\_%'
		UNION
		SELECT h.inhrelid, true FROM pg_policy p JOIN pg_inherits h ON h.inhparent = p.polrelid WHERE p.polname LIKE 'partner\_portal\_%'
		UNION
		SELECT c.oid, false FROM pg_class c JOIN own_object o ON o.classid = 'pg_class'::regclass AND o.objid = c.oid
		WHERE c.relkind IN ('r', 'p') AND c.relname NOT IN ('role_grant', 'enrolled_role', 'acl_signal')
	), pool AS (
		SELECT r.oid, r.rolname, bool_or(e.as_what IN ('trusted_application', 'operator')) AS trusted, bool_and(e.as_what = 'operator') AS operator
		FROM partner_portal.enrolled_role e JOIN pg_roles r ON r.rolname = e.role_name GROUP BY r.oid, r.rolname
	), becomes AS (
		-- from 16 on a membership may be without SET ROLE, which who may grant it gives himself
		SELECT CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET, MEMBER WITH ADMIN OPTION' ELSE 'MEMBER' END AS how,
			CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'USAGE, SET' ELSE 'MEMBER' END AS acts
	), seen AS (
		-- what reads an isolated table, through any number of views
		SELECT v.oid, v.relkind, i.oid AS source FROM isolated i
		JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = i.oid AND d.classid = 'pg_rewrite'::regclass
		JOIN pg_rewrite w ON w.oid = d.objid JOIN pg_class v ON v.oid = w.ev_class AND v.oid <> i.oid AND v.relkind IN ('v', 'm')
		UNION
		SELECT v.oid, v.relkind, s.source FROM seen s
		JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid AND d.classid = 'pg_rewrite'::regclass
		JOIN pg_rewrite w ON w.oid = d.objid JOIN pg_class v ON v.oid = w.ev_class AND v.oid <> s.oid AND v.relkind IN ('v', 'm')
	), finding AS (
		SELECT c.oid::regclass::text AS object, CASE WHEN NOT c.relrowsecurity THEN 'row level security is off' ELSE 'row level security is not forced on the owner' END AS problem
		FROM isolated i JOIN pg_class c ON c.oid = i.oid WHERE NOT (c.relrowsecurity AND c.relforcerowsecurity)
		UNION ALL
		SELECT c.oid::regclass::text, 'policy "' || n.name || '" is missing'
		FROM isolated i JOIN pg_class c ON c.oid = i.oid, unnest(ARRAY['partner_portal_signed_in', 'partner_portal_read', 'partner_portal_insert', 'partner_portal_update', 'partner_portal_delete']) n (name)
		WHERE i.application AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = n.name)
		UNION ALL
		SELECT i.oid::regclass::text, 'policy "signed_in" is missing'
		FROM isolated i WHERE NOT i.application AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = i.oid AND p.polpermissive) AND i.oid <> to_regclass('partner_portal.account')
			AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = i.oid AND p.polname = 'signed_in' AND NOT p.polpermissive AND p.polcmd = '*')
		UNION ALL
		SELECT p.polrelid::regclass::text, 'policy "' || p.polname || '" lets more through'
		FROM isolated i JOIN pg_policy p ON p.polrelid = i.oid
		WHERE p.polpermissive AND CASE WHEN i.application THEN p.polname NOT LIKE 'partner\_portal\_%'
			ELSE NOT EXISTS (SELECT FROM pg_depend d JOIN own_object o ON o.classid = d.refclassid AND o.objid = d.refobjid
				WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_proc'::regclass) AND p.polrelid <> to_regclass('partner_portal.currency') END
		UNION ALL
		SELECT i.oid::regclass::text, 'has no index for its policies: ' || partner_portal.missing_index(i.oid)
		FROM isolated i WHERE i.application AND partner_portal.missing_index(i.oid) IS NOT NULL AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.oid)
		UNION ALL
		SELECT i.oid::regclass::text, 'has policies of 1.0, which hold and are slower: repeat isolate()'
		FROM isolated i JOIN pg_policy p ON p.polrelid = i.oid AND p.polname = 'partner_portal_read'
		WHERE i.application AND NOT EXISTS (SELECT FROM pg_depend d
			WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = 'partner_portal.few_rows(bigint)'::regprocedure)
		UNION ALL
		SELECT i.oid::regclass::text, 'trigger "' || t.tgname || '" does not fire always, so that revocations may not hold'
		FROM isolated i JOIN pg_trigger t ON t.tgrelid = i.oid WHERE NOT i.application AND t.tgname LIKE 'acl\_%' AND t.tgenabled <> 'A'
		UNION ALL
		SELECT i.oid::regclass::text, CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE 'role "' || r.rolname || '"' END || ' has ' || g.privilege_type || ' on it'
		FROM isolated i JOIN pg_class c ON c.oid = i.oid CROSS JOIN aclexplode(c.relacl) g LEFT JOIN pg_roles r ON r.oid = g.grantee
		WHERE g.grantee <> c.relowner AND (g.privilege_type IN ('TRUNCATE', 'TRIGGER', 'REFERENCES', 'MAINTAIN') OR (g.grantee = 0 AND NOT i.application))
			AND (g.grantee = 0 OR EXISTS (SELECT FROM pool p WHERE pg_has_role(p.oid, g.grantee, 'MEMBER')))
		UNION ALL
		SELECT 'role "' || p.rolname || '"', 'owns ' || c.oid::regclass || ', or is a member of its owner'
		FROM pool p, isolated i JOIN pg_class c ON c.oid = i.oid
		WHERE NOT p.operator AND pg_has_role(p.oid, c.relowner, 'MEMBER') AND NOT EXISTS (SELECT FROM pg_roles s WHERE s.oid = p.oid AND s.rolsuper)
		UNION ALL
		SELECT 'role "' || p.rolname || '"', CASE WHEN r.oid = p.oid THEN 'is ' ELSE 'may become role "' || r.rolname || '", which is ' END
			|| CASE WHEN r.rolsuper THEN 'a superuser' ELSE 'a role with BYPASSRLS' END
		FROM pool p CROSS JOIN becomes JOIN pg_roles r ON (r.rolsuper OR r.rolbypassrls) AND CASE WHEN (SELECT s.rolsuper FROM pg_roles s WHERE s.oid = p.oid) THEN r.oid = p.oid ELSE pg_has_role(p.oid, r.oid, becomes.how) END
		WHERE NOT p.operator
		UNION ALL
		-- a login has what its role was granted, and attributes of its own
		SELECT 'role "' || r.rolname || '"', 'is a role with BYPASSRLS, and a member of role "' || min(p.rolname) || '"'
		FROM pool p CROSS JOIN becomes JOIN pg_roles r ON r.rolbypassrls AND r.rolcanlogin AND NOT r.rolsuper AND pg_has_role(r.oid, p.oid, becomes.acts)
		WHERE NOT p.operator AND r.oid NOT IN (SELECT o.oid FROM pool o) GROUP BY r.rolname
		UNION ALL
		SELECT 'role "' || p.rolname || '"', 'is a member of ' || r.rolname
		FROM pool p JOIN pg_roles r ON r.rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program', 'pg_read_all_data', 'pg_write_all_data', 'pg_maintain',
			'pg_read_all_stats') AND pg_has_role(p.oid, r.oid, 'MEMBER')
		WHERE NOT p.operator AND NOT (SELECT s.rolsuper FROM pg_roles s WHERE s.oid = p.oid)
		UNION ALL
		SELECT 'role "' || p.rolname || '"', x.what
		FROM pool p JOIN pg_roles r ON r.oid = p.oid AND NOT r.rolsuper,
			LATERAL (SELECT 'may create roles' AS what WHERE r.rolcreaterole UNION ALL SELECT 'may replicate, and so read every row' WHERE r.rolreplication) x
		WHERE NOT p.operator
		UNION ALL
		SELECT 'role "' || p.rolname || '"', 'may create ' || x.what
		FROM pool p, LATERAL (SELECT 'temporary tables, which outlive an identity: REVOKE TEMPORARY ON DATABASE ' || quote_ident(current_database()) || ' FROM PUBLIC' AS what
				WHERE has_database_privilege(p.oid, current_database(), 'TEMPORARY')
			UNION ALL SELECT 'objects in schema partner_portal' WHERE has_schema_privilege(p.oid, 'partner_portal', 'CREATE')) x
		WHERE NOT p.operator AND NOT (SELECT s.rolsuper FROM pg_roles s WHERE s.oid = p.oid)
		UNION ALL
		-- PostgreSQL tells sessions apart by role, and tenants share one
		SELECT 'role "' || p.rolname || '"', x.what
		FROM pool p, LATERAL (SELECT 'may end sessions that use the same role: REVOKE EXECUTE ON FUNCTION pg_cancel_backend(integer), pg_terminate_backend(integer, bigint) FROM PUBLIC' AS what
				WHERE has_function_privilege(p.oid, 'pg_catalog.pg_cancel_backend(integer)', 'EXECUTE') OR has_function_privilege(p.oid, 'pg_catalog.pg_terminate_backend(integer, bigint)', 'EXECUTE')
			UNION ALL SELECT 'may make large objects, which every session of the role reads: REVOKE EXECUTE ON FUNCTION lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC'
				WHERE has_function_privilege(p.oid, 'pg_catalog.lo_creat(integer)', 'EXECUTE') OR has_function_privilege(p.oid, 'pg_catalog.lo_create(oid)', 'EXECUTE')
					OR has_function_privilege(p.oid, 'pg_catalog.lo_from_bytea(oid, bytea)', 'EXECUTE')) x
		WHERE NOT p.operator AND NOT (SELECT s.rolsuper FROM pg_roles s WHERE s.oid = p.oid)
		UNION ALL
		SELECT 'role "' || p.rolname || '"', 'may set ' || s.name
		FROM pool p, unnest(ARRAY['session_replication_role', 'partner_portal.restoring', 'partner_portal.allow_drop']) s (name)
		WHERE NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = p.oid) AND has_parameter_privilege(p.oid, s.name, 'SET')
		UNION ALL
		SELECT 'role "' || p.rolname || '"', 'may sign anybody in with login_as(), though it is not a trusted application'
		FROM pool p WHERE NOT p.trusted AND has_function_privilege(p.oid, 'partner_portal.login_as(bigint)', 'EXECUTE') AND NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = p.oid)
		UNION ALL
		SELECT DISTINCT s.oid::regclass::text, CASE WHEN s.relkind = 'm' THEN 'materialized view keeps rows of ' ELSE 'view reads with its owner''s rights, not security_invoker, from ' END || min(s.source::regclass::text) OVER (PARTITION BY s.oid)
		FROM seen s JOIN pg_class v ON v.oid = s.oid
		WHERE (s.relkind = 'm' OR NOT EXISTS (SELECT FROM pg_options_to_table(v.reloptions) t WHERE t.option_name = 'security_invoker' AND t.option_value::boolean))
			AND NOT EXISTS (SELECT FROM own_object o WHERE o.classid = 'pg_class'::regclass AND o.objid = s.oid)
		UNION ALL
		SELECT f.oid::regprocedure::text, 'runs as role "' || r.rolname || '", whom row level security does not bind, and role "' || p.rolname || '" may call it'
		FROM pg_proc f JOIN pg_roles r ON r.oid = f.proowner AND (r.rolsuper OR r.rolbypassrls) JOIN pool p ON has_function_privilege(p.oid, f.oid, 'EXECUTE') AND NOT p.operator
		WHERE f.prosecdef AND f.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
			AND has_schema_privilege(p.oid, f.pronamespace, 'USAGE')
			AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.deptype = 'e')
		UNION ALL
		SELECT f.oid::regprocedure::text, 'PUBLIC may call it'
		FROM pg_proc f JOIN own_object o ON o.classid = 'pg_proc'::regclass AND o.objid = f.oid
		WHERE EXISTS (SELECT FROM aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) g WHERE g.grantee = 0)
		UNION ALL
		SELECT f.oid::regprocedure::text, 'a policy asks it, and it must be STABLE, PARALLEL SAFE and LEAKPROOF'
		FROM pg_proc f JOIN own_object o ON o.classid = 'pg_proc'::regclass AND o.objid = f.oid
		WHERE (f.provolatile <> 's' OR f.proparallel <> 's' OR NOT f.proleakproof)
			AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_policy'::regclass AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = f.oid)
		UNION ALL
		SELECT c.oid::regclass::text, 'refers to workspaces and is not isolated, and role "' || min(p.rolname) || '" may read it'
		FROM pg_class c JOIN pool p ON has_any_column_privilege(p.oid, c.oid, 'SELECT') AND NOT p.operator
		WHERE c.relkind IN ('r', 'p', 'f') AND NOT c.relrowsecurity AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'partner_portal'::regnamespace)
			AND has_schema_privilege(p.oid, c.relnamespace, 'USAGE') AND c.oid NOT IN (SELECT i.oid FROM isolated i)
			AND (EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.confrelid IN (SELECT i.oid FROM isolated i))
				OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'workspace_id' AND NOT a.attisdropped))
		GROUP BY c.oid
	)
	SELECT DISTINCT f.object COLLATE "C", f.problem COLLATE "C" FROM finding f ORDER BY 1, 2;
END
$$;
COMMENT ON FUNCTION partner_portal.check_isolation() IS
'Names every hole found in the isolation of our tables, of those isolate() is used on, and of the enrolled roles: row level security off or not forced, policies missing or added, indexes missing, roles that own tables, bypass row security, may become somebody who does, or may make temporary tables or large objects, or end sessions of their own role; logins with BYPASSRLS that are members of one; views and materialized views that read with other rights, SECURITY DEFINER functions that do, privileges too many, tables that refer to workspaces and are not isolated. No row is no hole. Operator only (42501).';
COMMENT ON FUNCTION partner_portal.highest_workspace(text) IS 'Greatest of visible_workspaces(); see lowest_workspace(). For policies.';

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.acting_in_portal()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.few_rows(bigint)');

-- portal_page.sql

CREATE OR REPLACE FUNCTION partner_portal.portal_page(title text, color text, body xml) RETURNS text
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT E'<!DOCTYPE html>\n' || xmlserialize(CONTENT xmlelement(name html, xmlattributes('en' AS lang),
		xmlelement(name head,
			xmlelement(name meta, xmlattributes('utf-8' AS charset)),
			xmlelement(name meta, xmlattributes('viewport' AS name, 'width=device-width, initial-scale=1' AS content)),
			xmlelement(name meta, xmlattributes('Content-Security-Policy' AS "http-equiv",
				'default-src ''none''; style-src ''unsafe-inline''; img-src http: https:; form-action ''self''; base-uri ''none''' AS content)),
			xmlelement(name meta, xmlattributes('referrer' AS name, 'no-referrer' AS content)),
			xmlelement(name title, title),
			xmlelement(name style,
				':root{color-scheme:light dark;--page:#f4f5f7;--card:#fff;--ink:#1c2430;--soft:#566172;--line:#d5dae1;--edge:#7b8696;--link:#0b4a9e;--lift:0 1px 2px #1c243014,0 8px 24px #1c243014}'
				'@media(prefers-color-scheme:dark){:root{--page:#12161c;--card:#1b2129;--ink:#e8ebf0;--soft:#a5afbd;--line:#343d49;--edge:#7d8896;--link:#9cc2ff;--lift:none}}'
				'*{box-sizing:border-box}html{font:100%/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;color:var(--ink);background:var(--page);-webkit-text-size-adjust:100%}'
				'body{margin:0;overflow-wrap:anywhere}h1,h2,h3{line-height:1.25;text-wrap:balance}a{color:var(--link);text-underline-offset:.15em}'
				':focus-visible{outline:3px solid #1c2430;outline-offset:2px;box-shadow:0 0 0 6px #fff}'
				'.brand{background:' || color || ';color:' || partner_portal.text_on(color) || '}.brand a{color:inherit}'
				'.skip{position:absolute;left:-10000px;top:0;background:#fff;color:#1c2430;padding:.5rem 1rem;z-index:1}.skip:focus{left:0}'
				'.login{min-height:100vh;min-height:100svh;display:flex;flex-direction:column;align-items:center;justify-content:center;gap:1.75rem;padding:2rem 1rem}'
				'.login h1{margin:0;font-size:clamp(1.5rem,1.1rem + 2.2vw,2.25rem);text-align:center;max-width:40rem}'
				'.card{background:var(--card);color:var(--ink);width:100%;max-width:25rem;padding:2rem;border-radius:1rem;border:1px solid var(--line);box-shadow:var(--lift)}'
				'.card h2{margin:0 0 1.25rem;font-size:1.25rem}label{display:block;font-size:.9375rem;font-weight:600;margin:0 0 .35rem}'
				'input{display:block;width:100%;font:inherit;padding:.65rem .8rem;margin:0 0 1.1rem;border:1px solid var(--edge);border-radius:.5rem;background:var(--card);color:inherit}'
				'button{width:100%;font:inherit;font-weight:600;margin:.4rem 0 0;padding:.75rem 1rem;border:1px solid var(--edge);border-radius:.5rem;cursor:pointer}button[disabled]{cursor:default}'
				'.bar{border-bottom:1px solid var(--line)}.bar div{max-width:72rem;margin:0 auto;display:flex;flex-wrap:wrap;gap:.25rem 1.5rem;align-items:center;justify-content:space-between;padding:1rem 1.5rem}'
				'.bar h1{margin:0;font-size:1.25rem}.cover{display:block;width:100%;height:clamp(8rem,24vw,18rem);object-fit:cover;background:var(--line)}'
				'main.home{max-width:72rem;margin:0 auto;padding:2rem 1.5rem 4rem}main.home:focus{outline:none;box-shadow:none}.home h2{margin:0 0 1.25rem;font-size:1.5rem}'
				'.folders{display:grid;gap:1.25rem;align-items:start;grid-template-columns:repeat(auto-fill,minmax(min(18rem,100%),1fr))}'
				'.folders section{background:var(--card);border:1px solid var(--line);border-radius:.875rem;overflow:hidden}'
				'.folders h3{margin:0;padding:1rem 1.25rem .75rem;font-size:1rem}.folders ul{list-style:none;margin:0;padding:0}'
				'.folders li a{display:block;padding:.65rem 1.25rem;border-top:1px solid var(--line);text-decoration:none}.folders li a:hover{text-decoration:underline;background:var(--page)}'
				'.folders .none{padding:.65rem 1.25rem;border-top:1px solid var(--line)}.none{color:var(--soft);margin:0}'
				'div.none{text-align:center;padding:3rem 1.5rem;border:2px dashed var(--line);border-radius:.875rem}.none strong{display:block;color:var(--ink);margin:0 0 .25rem}'
				'.note{margin:0;padding:.5rem 1.5rem;font-size:.875rem;text-align:center;color:var(--soft);background:var(--card);border-bottom:1px solid var(--line)}'
				'@media(max-width:30rem){.card{padding:1.5rem 1.25rem}.bar div{padding:.85rem 1rem}main.home{padding:1.5rem 1rem 3rem}.folders h3,.folders li a,.folders .none{padding-left:1rem;padding-right:1rem}}'
				'@media print{.skip,.bar nav,.login{display:none}.folders section{break-inside:avoid}}')),
		xmlelement(name body, body)) AS text);
END;

CREATE OR REPLACE FUNCTION partner_portal.login_part(name text, live boolean) RETURNS xml
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT xmlelement(name div, xmlattributes('login brand' AS class),
		xmlelement(name h1, name),
		xmlelement(name form, xmlattributes('card' AS class, 'post' AS method, CASE WHEN live THEN '/login' END AS action, 'sign-in' AS "aria-labelledby"),
			xmlelement(name h2, xmlattributes('sign-in' AS id), 'Sign in'),
			xmlelement(name label, xmlattributes('email' AS for), 'E-mail address'),
			xmlelement(name input, xmlattributes('email' AS id, 'email' AS name, 'email' AS type, 'username' AS autocomplete, 'off' AS autocapitalize, 320 AS maxlength, 'required' AS required)),
			xmlelement(name label, xmlattributes('password' AS for), 'Password'),
			xmlelement(name input, xmlattributes('password' AS id, 'password' AS name, 'password' AS type, 'current-password' AS autocomplete, 'required' AS required)),
			xmlelement(name button, xmlattributes('brand' AS class, 'submit' AS type, CASE WHEN NOT live THEN 'disabled' END AS disabled), 'Sign in')));
END;

CREATE OR REPLACE FUNCTION partner_portal.home_part(name text, logout_url text, home_cover_url text, folders xml) RETURNS xml
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT xmlconcat(
		xmlelement(name header, xmlattributes('bar brand' AS class), xmlelement(name div,
			xmlelement(name h1, name),
			xmlelement(name nav, xmlattributes('Account' AS "aria-label"), xmlelement(name a, xmlattributes(logout_url AS href), 'Log out')))),
		CASE WHEN home_cover_url IS NOT NULL THEN xmlelement(name img, xmlattributes('cover' AS class, home_cover_url AS src, '' AS alt)) END,
		xmlelement(name main, xmlattributes('home' AS class, 'main' AS id, -1 AS tabindex),
			xmlelement(name h2, 'Reports'),
			CASE WHEN folders IS NULL THEN xmlelement(name div, xmlattributes('none' AS class), xmlelement(name strong, 'Nothing has been shared yet'),
				'Reports that are shared with you will be listed here.')
				ELSE xmlelement(name div, xmlattributes('folders' AS class), folders) END));
END;

CREATE OR REPLACE FUNCTION partner_portal.portal_login_page(technical_name text) RETURNS text
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	shown partner_portal.portal;
BEGIN
	IF technical_name IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'technical_name must not be null';
	END IF;
	SELECT p.* INTO shown FROM partner_portal.portal p
	JOIN partner_portal.workspace w ON w.workspace_id = p.workspace_id
	WHERE p.technical_name = lower(portal_login_page.technical_name) AND w.deleted_at IS NULL;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = 'portal not found';
	END IF;
	RETURN partner_portal.portal_page('Sign in - ' || shown.name, shown.color, xmlelement(name main, partner_portal.login_part(shown.name, true)));
END
$$;

CREATE OR REPLACE FUNCTION partner_portal.portal_home_page(portal_id bigint) RETURNS text
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	shown partner_portal.portal := partner_portal.authorized_portal('read', portal_id);
	folders xml;
BEGIN
	WITH RECURSIVE shared AS (
		SELECT f.folder_id, f.name AS path FROM partner_portal.folder_share s
		JOIN partner_portal.folder f ON f.workspace_id = s.workspace_id AND f.folder_id = s.folder_id
		WHERE s.workspace_id = shown.workspace_id AND s.group_id = shown.group_id
		UNION ALL
		SELECT f.folder_id, h.path || ' / ' || f.name FROM shared h
		JOIN partner_portal.folder f ON f.workspace_id = shown.workspace_id AND f.parent_id = h.folder_id
	), once AS (
		-- one that is shared itself and below a shared one, by its longest path
		SELECT DISTINCT ON (h.folder_id) h.folder_id, h.path FROM shared h ORDER BY h.folder_id, length(h.path) DESC
	)
	SELECT xmlagg(xmlelement(name section, xmlelement(name h3, o.path), coalesce(
			(SELECT xmlelement(name ul, xmlagg(xmlelement(name li, xmlelement(name a, xmlattributes('/report/' || r.report_id AS href), r.title)) ORDER BY r.title, r.report_id))
				FROM partner_portal.report r WHERE r.workspace_id = shown.workspace_id AND r.folder_id = o.folder_id HAVING count(*) > 0),
			xmlelement(name p, xmlattributes('none' AS class), 'No reports yet'))) ORDER BY o.path, o.folder_id)
	INTO folders FROM once o;
	RETURN partner_portal.portal_page(shown.name, shown.color, xmlconcat(
		xmlelement(name a, xmlattributes('skip' AS class, '#main' AS href), 'Skip to content'),
		partner_portal.home_part(shown.name, shown.logout_url, shown.home_cover_url, folders)));
END
$$;

CREATE OR REPLACE FUNCTION partner_portal.preview_portal(name text, technical_name text, color text, logout_url text, home_cover_url text DEFAULT NULL) RETURNS text
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in', HINT = 'Sign in with partner_portal.login().';
	END IF;
	PERFORM partner_portal.check_portal(name, technical_name, color, logout_url, home_cover_url);
	RETURN partner_portal.portal_page('Preview - ' || name, color, xmlconcat(
		xmlelement(name p, xmlattributes('note' AS class), 'Preview of the login page and, below it, the home page. Nothing is saved.'),
		partner_portal.login_part(name, false),
		partner_portal.home_part(name, logout_url, home_cover_url, xmlelement(name section,
			xmlelement(name h3, 'Folder'), xmlelement(name p, xmlattributes('none' AS class), 'Address of this portal: https://' || technical_name || '.' || current_setting('partner_portal.portal_domain') || '/')))));
END
$$;

-- activity_log.sql

ALTER TABLE partner_portal.activity DROP CONSTRAINT activity_prev_hash_key;

-- verify.sql

CREATE OR REPLACE FUNCTION partner_portal.verify_invoices(in_workspace bigint) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		SELECT i.workspace_id, 'invoices', format('document %s has a subtotal of %s, its lines make %s', i.invoice_id, i.subtotal_minor, coalesce(l.amount_minor, 0))
		FROM partner_portal.invoice i
		LEFT JOIN (
			SELECT l.workspace_id, l.invoice_id, sum(l.amount_minor) AS amount_minor FROM partner_portal.invoice_line l
			WHERE verify_invoices.in_workspace IS NULL OR l.workspace_id = verify_invoices.in_workspace
			GROUP BY l.workspace_id, l.invoice_id) l ON l.workspace_id = i.workspace_id AND l.invoice_id = i.invoice_id
		WHERE i.subtotal_minor <> coalesce(l.amount_minor, 0) AND (verify_invoices.in_workspace IS NULL OR i.workspace_id = verify_invoices.in_workspace)
		UNION ALL
		SELECT l.workspace_id, 'invoices', format('line %s is of document %s, which is not there', l.line, l.invoice_id)
		FROM partner_portal.invoice_line l
		WHERE (verify_invoices.in_workspace IS NULL OR l.workspace_id = verify_invoices.in_workspace)
			AND NOT EXISTS (SELECT FROM partner_portal.invoice i WHERE i.workspace_id = l.workspace_id AND i.invoice_id = l.invoice_id)
		UNION ALL
		SELECT i.workspace_id, 'invoices', format('line %s of document %s charged %s and was credited %s', l.line, i.invoice_id, l.amount_minor, c.amount_minor)
		FROM partner_portal.invoice i
		JOIN partner_portal.invoice_line l ON l.workspace_id = i.workspace_id AND l.invoice_id = i.invoice_id
		JOIN (
			SELECT n.workspace_id, n.credits_invoice_id, c.credits_line, sum(c.amount_minor) AS amount_minor
			FROM partner_portal.invoice n
			JOIN partner_portal.invoice_line c ON c.workspace_id = n.workspace_id AND c.invoice_id = n.invoice_id
			WHERE n.document = 'credit_note' AND n.status <> 'void' AND (verify_invoices.in_workspace IS NULL OR n.workspace_id = verify_invoices.in_workspace)
			GROUP BY n.workspace_id, n.credits_invoice_id, c.credits_line) c
			ON c.workspace_id = l.workspace_id AND c.credits_invoice_id = l.invoice_id AND c.credits_line = l.line
		WHERE c.amount_minor > l.amount_minor
		UNION ALL
		SELECT nullif(s.issuer_key, 0), 'invoices', format('series %s %s of issuer %s has %s documents up to number %s, and counts %s to %s',
			s.document, s.year, s.issuer_key, count(i.number), coalesce(max(i.number), s.first_number - 1), s.first_number, s.last_number)
		FROM partner_portal.invoice_series s
		LEFT JOIN partner_portal.invoice i ON i.issuer_key = s.issuer_key AND i.document = s.document AND i.series_year = s.year
		WHERE verify_invoices.in_workspace IS NULL OR s.issuer_key = verify_invoices.in_workspace
		GROUP BY s.issuer_key, s.document, s.year, s.first_number, s.last_number
		HAVING count(i.number) <> s.last_number - s.first_number + 1 OR coalesce(max(i.number), s.first_number - 1) <> s.last_number;
	END;

CREATE OR REPLACE FUNCTION partner_portal.verify_keys(in_workspace bigint) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		SELECT k.workspace_id, 'stretches', format('the last stretch of key %s, %s to %s, is not in the history', k.key_id, k.activated_at, k.disabled_at)
		FROM partner_portal.missing_stretches(verify_keys.in_workspace) k
		UNION ALL
		SELECT h.workspace_id, 'stretches', format('stretches of key %s overlap: one begins at %s, the one before ends at %s', h.key_id, h.next_from, h.active_until)
		FROM (
			SELECT h.workspace_id, h.key_id, h.active_until, lead(h.active_from) OVER (PARTITION BY h.workspace_id, h.key_id ORDER BY h.active_from) AS next_from
			FROM partner_portal.key_history h
			WHERE verify_keys.in_workspace IS NULL OR h.workspace_id = verify_keys.in_workspace) h
		WHERE h.next_from < h.active_until
		UNION ALL
		SELECT k.workspace_id, 'stretches', format('key %s is active since %s, and an earlier stretch ends at %s', k.key_id, k.activated_at, h.active_until)
		FROM partner_portal.security_key k
		JOIN (
			SELECT h.workspace_id, h.key_id, max(h.active_until) AS active_until FROM partner_portal.key_history h
			WHERE verify_keys.in_workspace IS NULL OR h.workspace_id = verify_keys.in_workspace
			GROUP BY h.workspace_id, h.key_id) h ON h.workspace_id = k.workspace_id AND h.key_id = k.key_id
		WHERE k.status = 'active' AND h.active_until > k.activated_at
			AND (verify_keys.in_workspace IS NULL OR k.workspace_id = verify_keys.in_workspace)
		UNION ALL
		SELECT DISTINCT k.workspace_id, 'stretches', format('key %s is a %s, in the history a %s', k.key_id, k.kind, h.kind)
		FROM partner_portal.security_key k
		JOIN partner_portal.key_history h ON h.workspace_id = k.workspace_id AND h.key_id = k.key_id
		WHERE h.kind <> k.kind AND (verify_keys.in_workspace IS NULL OR k.workspace_id = verify_keys.in_workspace)
		UNION ALL
		SELECT k.workspace_id, 'stretches', format('number %s of a key has not been given out yet', k.key_id)
		FROM partner_portal.security_key k
		WHERE k.key_id > (SELECT last_value FROM partner_portal.security_key_key_id_seq)
			AND (verify_keys.in_workspace IS NULL OR k.workspace_id = verify_keys.in_workspace);
	END;

CREATE FUNCTION partner_portal.verify_deliveries(in_workspace bigint) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE sql STABLE
	BEGIN ATOMIC
		SELECT nullif(n.workspace_id, 0), 'deliveries', format('message %s is pending, and not in the queue', n.notification_id)
		FROM partner_portal.notification n
		WHERE n.state = 'pending' AND (verify_deliveries.in_workspace IS NULL OR n.workspace_id = verify_deliveries.in_workspace)
			AND NOT EXISTS (SELECT FROM partner_portal.delivery_queue q WHERE q.workspace_id = n.workspace_id AND q.notification_id = n.notification_id)
		UNION ALL
		SELECT nullif(n.workspace_id, 0), 'deliveries', CASE WHEN n.state <> 'pending' THEN format('message %s is %s, and in the queue still', n.notification_id, n.state)
			ELSE format('message %s is for destination %s, in the queue for %s', n.notification_id, coalesce(n.endpoint_id, 0), q.destination) END
		FROM partner_portal.delivery_queue q
		JOIN partner_portal.notification n ON n.workspace_id = q.workspace_id AND n.notification_id = q.notification_id
		WHERE (n.state <> 'pending' OR q.destination <> coalesce(n.endpoint_id, 0))
			AND (verify_deliveries.in_workspace IS NULL OR q.workspace_id = verify_deliveries.in_workspace)
		UNION ALL
		SELECT e.workspace_id, 'deliveries', CASE WHEN t.destination IS NULL THEN format('webhook endpoint %s has no state of delivery', e.endpoint_id)
			ELSE format('webhook endpoint %s is %s, its messages %s', e.endpoint_id, e.state, CASE WHEN t.paused THEN 'wait' ELSE 'are sent' END) END
		FROM partner_portal.webhook_endpoint e
		LEFT JOIN partner_portal.delivery_destination t ON t.destination = e.endpoint_id
		WHERE t.paused IS DISTINCT FROM (e.state <> 'active')
			AND (verify_deliveries.in_workspace IS NULL OR e.workspace_id = verify_deliveries.in_workspace)
		UNION ALL
		SELECT NULL, 'deliveries', 'the mail relay has no state of delivery'
		WHERE verify_deliveries.in_workspace IS NULL AND NOT EXISTS (SELECT FROM partner_portal.delivery_destination t WHERE t.destination = 0);
	END;
COMMENT ON FUNCTION partner_portal.verify_deliveries(bigint) IS
'verify(), check deliveries: pending messages against the queue, and webhook endpoints against the state that delivery has of them (workspace_id is NULL for the platform''s). Internal.';
REVOKE ALL ON FUNCTION partner_portal.verify_deliveries(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.repair_deliveries(in_workspace bigint) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	mended bigint := 0;
	changed bigint;
BEGIN
	INSERT INTO partner_portal.delivery_destination (destination, max_in_flight)
	SELECT 0, 64 WHERE in_workspace IS NULL
	ON CONFLICT ON CONSTRAINT delivery_destination_pkey DO NOTHING;
	GET DIAGNOSTICS changed = ROW_COUNT;
	mended := mended + changed;
	INSERT INTO partner_portal.delivery_destination AS t (destination, paused)
	SELECT e.endpoint_id, e.state <> 'active' FROM partner_portal.webhook_endpoint e
	WHERE in_workspace IS NULL OR e.workspace_id = in_workspace
	ORDER BY e.endpoint_id
	ON CONFLICT ON CONSTRAINT delivery_destination_pkey DO UPDATE SET paused = excluded.paused WHERE t.paused <> excluded.paused;
	GET DIAGNOSTICS changed = ROW_COUNT;
	mended := mended + changed;
	DELETE FROM partner_portal.delivery_queue q USING partner_portal.notification n
	WHERE n.workspace_id = q.workspace_id AND n.notification_id = q.notification_id AND n.state <> 'pending'
		AND (in_workspace IS NULL OR q.workspace_id = in_workspace);
	GET DIAGNOSTICS changed = ROW_COUNT;
	mended := mended + changed;
	INSERT INTO partner_portal.delivery_queue AS q (workspace_id, notification_id, destination, next_attempt_at)
	SELECT n.workspace_id, n.notification_id, coalesce(n.endpoint_id, 0), n.next_attempt_at FROM partner_portal.notification n
	WHERE n.state = 'pending' AND (in_workspace IS NULL OR n.workspace_id = in_workspace)
	ON CONFLICT ON CONSTRAINT delivery_queue_pkey DO UPDATE SET destination = excluded.destination WHERE q.destination <> excluded.destination;
	GET DIAGNOSTICS changed = ROW_COUNT;
	RETURN mended + changed;
END
$$;
COMMENT ON FUNCTION partner_portal.repair_deliveries(bigint) IS
'Part of repair(): puts into the queue what is pending, takes out what is not, and makes the state of destinations again. Internal.';
REVOKE ALL ON FUNCTION partner_portal.repair_deliveries(bigint) FROM PUBLIC;

CREATE OR REPLACE FUNCTION partner_portal.verify(in_workspace bigint DEFAULT NULL) RETURNS TABLE (workspace_id bigint, check_name text, problem text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off AS $$
#variable_conflict use_column
BEGIN
	PERFORM partner_portal.require_operator();
	RETURN QUERY
	SELECT v.workspace_id, v.check_name, v.problem
	FROM (
		SELECT * FROM partner_portal.verify_counters(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_keys(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_periods(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_invoices(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_digests(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_activity(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_deliveries(verify.in_workspace)
		UNION ALL
		SELECT * FROM partner_portal.verify_references(verify.in_workspace)) v
	ORDER BY v.workspace_id, v.check_name, v.problem;
END
$$;
COMMENT ON FUNCTION partner_portal.verify(bigint) IS
'What does not agree, in one workspace or all of them; no row is the answer one wants. Checks: counters, owners and limit (workspace_usage against the facts; too many keys active; no owner), stretches (keys against their history), periods (the chain, and the usage of closed ones), invoices (documents against their lines, numbers without a gap), invoice digest (finished documents against what the log has of them), activity (the chain of the log), deliveries (pending messages against the queue, endpoints against their destinations), references (foreign keys). repair() mends what is derived: counters, the copy of the limit, a last stretch that is missing, the usage of closed periods, partner_key, the queue. The rest needs a person who knows what happened. Reads every row, takes no lock. Operator only (42501).';

CREATE OR REPLACE FUNCTION partner_portal.repair(workspace_id bigint DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off AS $$
DECLARE
	mended bigint := 0;
	changed bigint;
	follower record;
BEGIN
	PERFORM partner_portal.require_operator();
	-- as everybody: the workspace first, then its counters
	PERFORM FROM partner_portal.workspace w
	WHERE repair.workspace_id IS NULL OR w.workspace_id = repair.workspace_id
	ORDER BY w.workspace_id FOR NO KEY UPDATE;
	IF NOT FOUND AND repair.workspace_id IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('workspace %s not found', repair.workspace_id);
	END IF;

	-- live rows follow the workspace's partner
	FOR follower IN
		SELECT k.conrelid::regclass AS tab FROM pg_constraint k
		WHERE k.contype = 'f' AND k.confrelid = 'partner_portal.workspace'::regclass AND k.confupdtype = 'c' AND cardinality(k.conkey) = 2
		ORDER BY k.conrelid::regclass::text
	LOOP
		EXECUTE format('UPDATE %s f SET partner_key = w.partner_key FROM partner_portal.workspace w
			WHERE w.workspace_id = f.workspace_id AND f.partner_key <> w.partner_key AND ($1 IS NULL OR f.workspace_id = $1)', follower.tab)
			USING repair.workspace_id;
		GET DIAGNOSTICS changed = ROW_COUNT;
		mended := mended + changed;
	END LOOP;

	INSERT INTO partner_portal.workspace_usage (workspace_id, partner_key)
	SELECT w.workspace_id, w.partner_key FROM partner_portal.workspace w
	WHERE repair.workspace_id IS NULL OR w.workspace_id = repair.workspace_id
	ORDER BY w.workspace_id
	ON CONFLICT ON CONSTRAINT workspace_usage_pkey DO NOTHING;
	PERFORM FROM partner_portal.workspace_usage u
	WHERE repair.workspace_id IS NULL OR u.workspace_id = repair.workspace_id
	ORDER BY u.workspace_id FOR NO KEY UPDATE;
	-- From here on no key or owner is counted and no period closed beside this, and every statement sees what was before.

	INSERT INTO partner_portal.key_history (workspace_id, key_id, active_from, active_until, kind, account_id, recorded_at, partner_key)
	SELECT k.workspace_id, k.key_id, k.activated_at, k.disabled_at, k.kind, k.account_id, k.activated_at, k.partner_key
	FROM partner_portal.missing_stretches(repair.workspace_id) k
	WHERE NOT EXISTS (SELECT FROM partner_portal.key_history h
		WHERE h.workspace_id = k.workspace_id AND h.key_id = k.key_id AND h.active_from < k.disabled_at AND h.active_until > k.activated_at);
	GET DIAGNOSTICS changed = ROW_COUNT;
	mended := mended + changed;

	UPDATE partner_portal.workspace_usage u SET
		total_keys = c.total_keys, active_keys = c.active_keys, total_smartphones = c.total_smartphones, active_smartphones = c.active_smartphones,
		total_contactless_cards = c.total_contactless_cards, active_contactless_cards = c.active_contactless_cards, owners = c.owners,
		key_limit = c.key_limit, limit_mode = c.limit_mode, blocked = c.blocked,
		last_disabled_at = greatest(u.last_disabled_at, c.last_disabled_at), closed_until = c.closed_until
	FROM partner_portal.count_usage(repair.workspace_id) c
	WHERE u.workspace_id = c.workspace_id
		AND (u.total_keys, u.active_keys, u.total_smartphones, u.active_smartphones, u.total_contactless_cards, u.active_contactless_cards, u.owners,
			u.key_limit, u.limit_mode, u.blocked, u.last_disabled_at, u.closed_until)
		IS DISTINCT FROM (c.total_keys, c.active_keys, c.total_smartphones, c.active_smartphones, c.total_contactless_cards, c.active_contactless_cards, c.owners,
			c.key_limit, c.limit_mode, c.blocked, greatest(u.last_disabled_at, c.last_disabled_at), c.closed_until);
	GET DIAGNOSTICS changed = ROW_COUNT;
	mended := mended + changed;
	UPDATE partner_portal.workspace_usage u SET alerted_until = a.until, alerted_percent = a.threshold
	FROM (
		SELECT DISTINCT ON (l.workspace_id) l.workspace_id, l.threshold,
			CASE WHEN isfinite(l.period_start) THEN upper(partner_portal.find_period(l.workspace_id, l.period_start)) ELSE 'infinity' END AS until
		FROM partner_portal.limit_alert l
		WHERE repair.workspace_id IS NULL OR l.workspace_id = repair.workspace_id
		ORDER BY l.workspace_id, l.period_start DESC, l.threshold DESC) a
	WHERE u.workspace_id = a.workspace_id AND (u.alerted_until, u.alerted_percent) < (a.until, a.threshold);
	GET DIAGNOSTICS changed = ROW_COUNT;
	mended := mended + changed;

	SELECT count(*) INTO changed FROM partner_portal.repair_activity(repair.workspace_id);
	mended := mended + changed;
	mended := mended + partner_portal.repair_deliveries(repair.workspace_id);

	INSERT INTO partner_portal.usage_period AS u (workspace_id, period_start, kind, partner_key,
		distinct_keys, peak_keys, peak_at, end_keys, start_keys, key_days, key_seconds, users, known_at)
	SELECT r.workspace_id, r.period_start, r.kind, r.partner_key,
		r.distinct_keys, r.peak_keys, r.peak_at, r.end_keys, r.start_keys, r.key_days, r.key_seconds, r.users, r.known_at
	FROM partner_portal.remeasured_periods(repair.workspace_id) r
	ON CONFLICT ON CONSTRAINT usage_period_pkey DO UPDATE SET
		distinct_keys = excluded.distinct_keys, peak_keys = excluded.peak_keys, peak_at = excluded.peak_at, end_keys = excluded.end_keys,
		start_keys = excluded.start_keys, key_days = excluded.key_days, key_seconds = excluded.key_seconds, users = excluded.users,
		partner_key = excluded.partner_key, known_at = excluded.known_at;
	GET DIAGNOSTICS changed = ROW_COUNT;
	RETURN mended + changed;
END
$$;
COMMENT ON FUNCTION partner_portal.repair(bigint) IS
'Makes again what is derived, in one workspace or all of them (NULL): counters, the copy of the limit, the last stretch of a key that the history lacks, the stored usage of closed periods (as the facts were known then), partner_key of live rows, the head of the activity log, the queue of messages that are pending and the state of their destinations. Returns how many rows it changed. Holds the workspaces'' counters to the end of the transaction: on a busy platform call it for one workspace at a time. It disables no key and changes no document: what verify() still finds afterwards is for a person to decide. Operator only (42501); P0002 no such workspace.';

-- health.sql

CREATE OR REPLACE FUNCTION partner_portal.health() RETURNS TABLE (name text, workspace_id bigint, value numeric, detail text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
#variable_conflict use_column
BEGIN
	PERFORM partner_portal.require_operator();
	RETURN QUERY
	WITH counted AS MATERIALIZED (
		SELECT u.workspace_id, u.total_keys, u.active_keys, u.key_limit FROM partner_portal.workspace_usage u
	), holder AS (
		SELECT extract(epoch FROM clock_timestamp() - a.xact_start) AS seconds,
			format('process %s (%s, %s)', a.pid, coalesce(a.usename, a.backend_type), coalesce(a.state, a.backend_type)) AS who
		FROM pg_stat_activity a
		WHERE a.backend_xmin IS NOT NULL AND a.xact_start IS NOT NULL AND a.pid <> pg_backend_pid()
			AND (a.datname = current_database() OR a.backend_type = 'walsender')
		UNION ALL
		SELECT extract(epoch FROM clock_timestamp() - x.prepared), format('prepared transaction %s (%s)', x.gid, x.owner)
		FROM pg_prepared_xacts x WHERE x.database = current_database()
	)
	SELECT f.name, f.workspace_id, f.value, f.detail
	FROM (
		SELECT 1 AS place, 'workspaces' AS name, NULL::bigint AS workspace_id, count(*)::numeric AS value, NULL::text AS detail FROM counted
		UNION ALL
		SELECT 2, 'keys', NULL, coalesce(sum(c.total_keys), 0), NULL FROM counted c
		UNION ALL
		SELECT 3, 'active_keys', NULL, coalesce(sum(c.active_keys), 0), NULL FROM counted c
		UNION ALL
		(SELECT 4, 'oldest_transaction', NULL, round(coalesce(max(h.seconds), 0), 3), (array_agg(h.who ORDER BY h.seconds DESC NULLS LAST))[1] FROM holder h)
		UNION ALL
		SELECT 5, 'dead_counter_versions', NULL, pg_stat_get_dead_tuples('partner_portal.workspace_usage'::regclass), NULL
		UNION ALL
		SELECT 6, 'periods_not_closed', NULL, count(*), min(p.period_end)::text
		FROM partner_portal.billing_period p WHERE p.closed_at IS NULL AND p.period_end <= now()
		UNION ALL
		SELECT 7, 'billing_failures', NULL, count(*), (SELECT format('workspace %s: %s: %s', f.workspace_id, f.sqlstate, f.message)
			FROM partner_portal.billing_failure f ORDER BY f.failed_at, f.workspace_id LIMIT 1)
		FROM partner_portal.billing_failure
		UNION ALL
		SELECT 8, 'restoring_by_default', NULL, count(*),
			string_agg(format('database %s, role %s', coalesce(d.datname, 'any'), coalesce(s.setrole::regrole::text, 'any')), '; ')
		FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase
		CROSS JOIN LATERAL unnest(s.setconfig) AS c (setting)
		WHERE (s.setdatabase = 0 OR d.datname = current_database()) AND c.setting ~* '^partner_portal\.restoring=(on|true|yes|1)$|^session_replication_role=replica$'
		UNION ALL
		SELECT CASE WHEN c.active_keys > c.key_limit THEN 9 WHEN c.active_keys = c.key_limit THEN 10 ELSE 11 END,
			CASE WHEN c.active_keys > c.key_limit THEN 'over_limit' WHEN c.active_keys = c.key_limit THEN 'at_limit' ELSE 'near_limit' END,
			c.workspace_id, c.active_keys, format('%s of %s', c.active_keys, c.key_limit)
		FROM counted c WHERE c.active_keys > 0 AND c.active_keys::bigint * 100 >= c.key_limit::bigint * 80) f
	ORDER BY f.place, f.workspace_id;
END
$$;
COMMENT ON FUNCTION partner_portal.health() IS
'Figures to watch, one per row; it changes nothing. workspaces, keys, active_keys: how many. oldest_transaction: age in seconds of the transaction that keeps old row versions alive for the longest (a report, a dump, a prepared transaction, a standby''s query), who it is in detail; while one is open, every activation in a busy workspace leaves a version of its counter behind that the next ones must pass. dead_counter_versions: such versions, as the statistics know them. periods_not_closed: billing periods past their end, the earliest end in detail. billing_failures: workspaces that the last billing run could not bill to the end, the first in detail; billing_health() has all. restoring_by_default: settings of databases or roles that begin sessions as if a dump were restored, where inserted rows are not checked; must be 0. over_limit, at_limit, near_limit: a row per workspace that uses 80 percent of its limit or more, value its active keys. Operator only (42501).';

-- job.sql

CREATE OR REPLACE FUNCTION partner_portal.tick_cancel_expired(at timestamptz) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	SELECT count(coalesce(partner_portal.finish_notification(d.workspace_id, d.notification_id, 'cancelled', 0,
		CASE WHEN d.expired THEN 'expired' ELSE 'the endpoint is deleted' END)::text, '')) FROM (
		SELECT q.workspace_id, q.notification_id, coalesce(n.expires_at <= tick_cancel_expired.at, false) AS expired FROM partner_portal.delivery_queue q
		JOIN partner_portal.notification n ON n.workspace_id = q.workspace_id AND n.notification_id = q.notification_id
		WHERE q.lease_token IS NULL AND (n.expires_at <= tick_cancel_expired.at
			OR q.destination IN (SELECT e.endpoint_id FROM partner_portal.webhook_endpoint e WHERE e.state = 'deleted'))
		LIMIT 1000 FOR UPDATE OF q SKIP LOCKED) d;
END;
COMMENT ON FUNCTION partner_portal.tick_cancel_expired(timestamptz) IS
'Step of tick(): cancels up to 1000 messages that nobody needs any more: those that expired, and those that were owed to an endpoint by transactions under way while it was deleted.';

CREATE FUNCTION partner_portal.tick_forget_revocations(at timestamptz) RETURNS bigint
	LANGUAGE sql
BEGIN ATOMIC
	-- whatever instant a tick is told: a revocation that is forgotten too early lets the token in again
	WITH old AS (
		SELECT t.jti FROM partner_portal.revoked_token t
		WHERE t.until < least(tick_forget_revocations.at, now()) - interval '1 day'
		ORDER BY t.until LIMIT 1000 FOR UPDATE SKIP LOCKED
	), gone AS (
		DELETE FROM partner_portal.revoked_token t USING old WHERE t.jti = old.jti RETURNING t.jti
	)
	SELECT count(*) FROM gone;
END;
COMMENT ON FUNCTION partner_portal.tick_forget_revocations(timestamptz) IS 'Step of tick(): deletes up to 1000 revocations of tokens a day after their end, by the clock.';
REVOKE ALL ON FUNCTION partner_portal.tick_forget_revocations(timestamptz) FROM PUBLIC;

INSERT INTO partner_portal.job_step (position, step) VALUES (95, 'tick_forget_revocations');

-- mail_template.sql

CREATE FUNCTION partner_portal.mail_letter(locale text, title text, sentences text[], link text DEFAULT NULL, link_text text DEFAULT NULL, closing text DEFAULT NULL) RETURNS partner_portal.mail_content
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT ROW(title, array_to_string(sentences, E'\n\n') || coalesce(E'\n\n' || link, '') || coalesce(E'\n\n' || closing, '') || E'\n',
		partner_portal.mail_page(locale, title, (SELECT string_agg('<p>' || partner_portal.html_of(s) || '</p>', '' ORDER BY n)
				FROM unnest(sentences) WITH ORDINALITY AS t (s, n))
			|| coalesce('<p style="margin:20px 0"><a href="' || partner_portal.html_of(link)
				|| '" style="display:inline-block;padding:10px 18px;background:#0b5cad;color:#ffffff;text-decoration:none;font-weight:bold">'
				|| partner_portal.html_of(coalesce(link_text, link)) || '</a></p>', '')
			|| coalesce('<p style="font-size:13px;color:#4a5562">' || partner_portal.html_of(closing) || '</p>', '')))::partner_portal.mail_content;
END;
COMMENT ON FUNCTION partner_portal.mail_letter(text, text, text[], text, text, text) IS
'A mail of a title and a few sentences; with a link, shown as link_text in HTML, and a closing in small print, unless they are NULL.';
REVOKE ALL ON FUNCTION partner_portal.mail_letter(text, text, text[], text, text, text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION partner_portal.mail_notice(locale text, title text, sentences text[]) RETURNS partner_portal.mail_content
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT partner_portal.mail_letter(locale, title, sentences);
END;
COMMENT ON FUNCTION partner_portal.mail_notice(text, text, text[]) IS 'A mail of a title and a few sentences.';

CREATE FUNCTION partner_portal.mail_invitation(locale text, invitation partner_portal.invitation, inviter text, link text) RETURNS partner_portal.mail_content
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT CASE WHEN partner_portal.mail_is_german(locale) THEN
		partner_portal.mail_letter(locale, w.german,
			ARRAY[w.german || '.', 'Über diesen Link sehen Sie die Einladung an und nehmen sie an oder lehnen sie ab:'], link, 'Einladung ansehen',
			format('Sie gilt einmal und bis zum %s UTC. Wenn Sie sie nicht erwartet haben, brauchen Sie nichts zu tun.',
				to_char((invitation).expires_at AT TIME ZONE 'UTC', 'DD.MM.YYYY HH24:MI')))
		ELSE
		partner_portal.mail_letter(locale, w.english,
			ARRAY[w.english || '.', 'Follow this link to look at the invitation, and to accept or refuse it:'], link, 'Look at the invitation',
			format('It can be used once, until %s UTC. If you did not expect it, do nothing.',
				to_char((invitation).expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'))) END
	FROM (SELECT partner_portal.invitation_purpose(invitation) AS english,
			CASE (invitation).kind
				WHEN 'partner' THEN format('Sie sind eingeladen, als %s Partner zu werden', (invitation).company_name)
				WHEN 'customer' THEN CASE WHEN (invitation).details ? 'confirm' THEN format('Bestätigen Sie die Anmeldung von %s bei %s', (invitation).company_name, inviter)
					WHEN (invitation).company_name IS NULL THEN format('%s lädt Sie ein, Kunde zu werden', inviter)
					ELSE format('%s lädt Sie ein, als %s Kunde zu werden', inviter, (invitation).company_name) END
				WHEN 'member' THEN format('%s lädt Sie ein, als %s beizutreten', inviter,
					CASE (invitation).role WHEN 'owner' THEN 'Inhaber' WHEN 'administrator' THEN 'Administrator' WHEN 'member' THEN 'Mitglied' WHEN 'guest' THEN 'Gast' ELSE (invitation).role END)
				WHEN 'portal' THEN format('%s lädt Sie in sein Portal ein', inviter)
				WHEN 'access' THEN format('%s bietet Ihnen Zugriff an', inviter)
				END AS german) w;
END;
COMMENT ON FUNCTION partner_portal.mail_invitation(text, partner_portal.invitation, text, text) IS
'The mail with an invitation''s link; inviter is the name of who invites.';
REVOKE ALL ON FUNCTION partner_portal.mail_invitation(text, partner_portal.invitation, text, text) FROM PUBLIC;

DROP FUNCTION partner_portal.mail_grant_expiry(text, text, text, date, integer);

CREATE FUNCTION partner_portal.mail_grant_expiry(locale text, company_name text, partner_name text, expires_on date, days integer, link text DEFAULT NULL) RETURNS partner_portal.mail_content
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT CASE WHEN partner_portal.mail_is_german(locale) THEN
		partner_portal.mail_letter(locale,
			format('Der Zugriff von %s auf %s endet %s', partner_name, company_name, CASE days WHEN 0 THEN 'heute' WHEN 1 THEN 'morgen' ELSE format('in %s Tagen', days) END),
			ARRAY[format('Der Zugriff von %s auf %s endet am %s.', partner_name, company_name, to_char(expires_on, 'DD.MM.YYYY')), 'Der Inhaber kann ihn verlängern.'],
			link, 'Zugriff ansehen')
		ELSE
		partner_portal.mail_letter(locale,
			format('Access of %s to %s ends %s', partner_name, company_name, CASE days WHEN 0 THEN 'today' WHEN 1 THEN 'tomorrow' ELSE format('in %s days', days) END),
			ARRAY[format('The access of %s to %s ends on %s.', partner_name, company_name, to_char(expires_on, 'YYYY-MM-DD')), 'The owner can extend it.'],
			link, 'Look at the access') END;
END;
COMMENT ON FUNCTION partner_portal.mail_grant_expiry(text, text, text, date, integer, text) IS 'The reminder that an access grant ends in so many days.';
REVOKE ALL ON FUNCTION partner_portal.mail_grant_expiry(text, text, text, date, integer, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_access_request(locale text, partner_name text, message text, link text) RETURNS partner_portal.mail_content
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT CASE WHEN partner_portal.mail_is_german(locale) THEN
		partner_portal.mail_letter(locale, format('%s bittet Sie um Zugriff', partner_name),
			array_remove(ARRAY[format('%s bittet Sie um Zugriff.', partner_name), 'Die Nachricht dazu: ' || message,
				'Sie können ihn wie erbeten gewähren, anders, oder gar nicht.'], NULL), link, 'Anfrage ansehen')
		ELSE
		partner_portal.mail_letter(locale, format('%s asks you for access', partner_name),
			array_remove(ARRAY[format('%s asks you for access.', partner_name), 'It writes: ' || message,
				'You may grant what it asks for, or something else, or refuse.'], NULL), link, 'Look at the request') END;
END;
COMMENT ON FUNCTION partner_portal.mail_access_request(text, text, text, text) IS 'Tells a customer that a partner asks for access; message may be NULL.';
REVOKE ALL ON FUNCTION partner_portal.mail_access_request(text, text, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_wallet_moved(locale text, company_name text, link text) RETURNS partner_portal.mail_content
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT CASE WHEN partner_portal.mail_is_german(locale) THEN
		partner_portal.mail_letter(locale, format('%s: Sie zahlen nicht mehr für diesen Kunden', company_name),
			ARRAY[format('%s hat die Zahlung jemand anderem übertragen.', company_name),
				'Abrechnungszeiträume, die von jetzt an beginnen, gehen nicht mehr an Sie; der laufende noch. Ihr Zugriff bleibt, wie er war.'], link, 'Zugriff ansehen')
		ELSE
		partner_portal.mail_letter(locale, format('%s: you no longer pay for this customer', company_name),
			ARRAY[format('%s has given its wallet to somebody else.', company_name),
				'Billing periods that begin from now on are not yours to pay; the one that is running still is. Your access is as it was.'], link, 'Look at the access') END;
END;
COMMENT ON FUNCTION partner_portal.mail_wallet_moved(text, text, text) IS 'Tells a partner that it no longer holds a customer''s wallet; who does is not said.';
REVOKE ALL ON FUNCTION partner_portal.mail_wallet_moved(text, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_webhook_disabled(locale text, company_name text, endpoint_id bigint, place text, gone boolean, waiting bigint) RETURNS partner_portal.mail_content
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT CASE WHEN partner_portal.mail_is_german(locale) THEN
		partner_portal.mail_letter(locale, format('%s: Webhook-Endpunkt %s ist abgeschaltet', company_name, endpoint_id),
			ARRAY[CASE WHEN gone THEN format('Endpunkt %s (%s) hat mit 410 Gone geantwortet: er will nichts mehr bekommen.', endpoint_id, place)
					ELSE format('Endpunkt %s (%s) war fünf Tage lang nicht zu erreichen oder hat Fehler gemeldet.', endpoint_id, place) END,
				format('Er bekommt nichts mehr. Wartende Ereignisse: %s; neue kommen dazu.', waiting),
				'Wird er wieder eingeschaltet (resume_webhook_endpoint), bekommt er sie alle.'])
		ELSE
		partner_portal.mail_letter(locale, format('%s: webhook endpoint %s is disabled', company_name, endpoint_id),
			ARRAY[CASE WHEN gone THEN format('Endpoint %s (%s) answered 410 Gone: it wants no more.', endpoint_id, place)
					ELSE format('Endpoint %s (%s) could not be reached, or reported errors, for five days.', endpoint_id, place) END,
				format('It gets nothing any more. Events waiting: %s; new ones join them.', waiting),
				'Once it is resumed (resume_webhook_endpoint) it gets them all.']) END;
END;
COMMENT ON FUNCTION partner_portal.mail_webhook_disabled(text, text, bigint, text, boolean, bigint) IS
'Tells the owners that an endpoint was disabled: it answered 410 Gone, or failed for five days. place is its address without path and query, which may hold a secret.';
REVOKE ALL ON FUNCTION partner_portal.mail_webhook_disabled(text, text, bigint, text, boolean, bigint) FROM PUBLIC;

-- notice.sql

ALTER TABLE partner_portal.new_keys_digest ADD COLUMN time_zone text;
COMMENT ON COLUMN partner_portal.new_keys_digest.time_zone IS 'Zone in which done_until ended; where the workspace has another since, the list after it begins there still. NULL is the workspace''s.';

CREATE OR REPLACE FUNCTION partner_portal.tick_new_keys(at timestamptz) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	place record;
	done bigint := 0;
BEGIN
	INSERT INTO partner_portal.new_keys_digest (workspace_id, done_until)
	SELECT w.workspace_id, (tick_new_keys.at AT TIME ZONE w.time_zone)::date - 1 FROM partner_portal.workspace w
	WHERE w.notify_new_keys AND w.deleted_at IS NULL
	ON CONFLICT ON CONSTRAINT new_keys_digest_pkey DO NOTHING;
	DELETE FROM partner_portal.new_keys_digest d USING partner_portal.workspace w
	WHERE w.workspace_id = d.workspace_id AND (NOT w.notify_new_keys OR w.deleted_at IS NOT NULL);
	FOR place IN
		SELECT d.workspace_id, d.done_until + 1 AS day, w.company_name, w.time_zone,
			(d.done_until + 1)::timestamp AT TIME ZONE coalesce(d.time_zone, w.time_zone) AS since
		FROM partner_portal.new_keys_digest d JOIN partner_portal.workspace w ON w.workspace_id = d.workspace_id
		WHERE d.done_until + 1 < (tick_new_keys.at AT TIME ZONE w.time_zone)::date
		ORDER BY d.workspace_id LIMIT 1000
		FOR UPDATE OF d SKIP LOCKED
	LOOP
		PERFORM partner_portal.enqueue_list_mail(place.workspace_id, 'new_keys', place.day::text, r.account_id, r.email, r.locale,
			partner_portal.mail_new_keys(r.locale, place.company_name, place.day, k.kinds, k.serials, k.labels))
		FROM (SELECT array_agg(k.kind ORDER BY k.created_at, k.key_id) AS kinds, array_agg(k.serial ORDER BY k.created_at, k.key_id) AS serials,
				array_agg(k.label ORDER BY k.created_at, k.key_id) AS labels
			FROM (SELECT * FROM partner_portal.security_key k
				WHERE k.workspace_id = place.workspace_id
					AND k.created_at >= place.since AND k.created_at < (place.day + 1)::timestamp AT TIME ZONE place.time_zone
				ORDER BY k.created_at, k.key_id LIMIT 500) k) k
		CROSS JOIN LATERAL partner_portal.mail_recipients(place.workspace_id, '{owner,administrator}') r
		WHERE k.serials IS NOT NULL;
		UPDATE partner_portal.new_keys_digest d SET done_until = place.day, time_zone = place.time_zone WHERE d.workspace_id = place.workspace_id;
		done := done + 1;
	END LOOP;
	RETURN done;
END
$$;
COMMENT ON FUNCTION partner_portal.tick_new_keys(timestamptz) IS
'Step of tick(): for each workspace with notify_new_keys and each local day that is over, in order, the list of keys added that day (the first 500), if there are any, to its owners and administrators. After a change of the time zone the first list begins where the last one ended. Days before the setting was first seen on are left out.';

CREATE TRIGGER log_unsubscribe AFTER UPDATE ON partner_portal.mail_opt_out
	FOR EACH ROW WHEN (OLD.opted_out_at IS NULL AND NEW.opted_out_at IS NOT NULL)
	EXECUTE FUNCTION partner_portal.log_row('update_user_profile', 'unsubscribed from mails', 'list', 'account_id');
CREATE TRIGGER log_resubscribe AFTER UPDATE ON partner_portal.mail_opt_out
	FOR EACH ROW WHEN (OLD.opted_out_at IS NOT NULL AND NEW.opted_out_at IS NULL)
	EXECUTE FUNCTION partner_portal.log_row('update_user_profile', 'subscribed to mails again', 'list', 'account_id');

CREATE FUNCTION partner_portal.notify_endpoint_disabled(endpoint partner_portal.webhook_endpoint, gone boolean) RETURNS void
	LANGUAGE sql
BEGIN ATOMIC
	SELECT partner_portal.enqueue_mail((endpoint).workspace_id, 'webhook_disabled',
			format('%s:%s:%s', (endpoint).endpoint_id, extract(epoch FROM coalesce(t.failing_since, now())), r.account_id), r.email, r.locale,
			partner_portal.mail_webhook_disabled(r.locale, w.company_name, (endpoint).endpoint_id, substring((endpoint).url FROM '^[^/]*//[^/?]*'), gone,
				(SELECT count(*) FROM partner_portal.delivery_queue q WHERE q.workspace_id = (endpoint).workspace_id AND q.destination = (endpoint).endpoint_id)))
		FROM partner_portal.workspace w
		CROSS JOIN LATERAL partner_portal.mail_recipients(w.workspace_id, '{owner}') r
		LEFT JOIN partner_portal.delivery_destination t ON t.destination = (endpoint).endpoint_id
		WHERE w.workspace_id = (endpoint).workspace_id;
END;
COMMENT ON FUNCTION partner_portal.notify_endpoint_disabled(partner_portal.webhook_endpoint, boolean) IS
'Owes the owners of an endpoint''s workspace the mail that it was disabled, once for each time. Internal.';
REVOKE ALL ON FUNCTION partner_portal.notify_endpoint_disabled(partner_portal.webhook_endpoint, boolean) FROM PUBLIC;

CREATE FUNCTION partner_portal.notify_access() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'INSERT' AND partner_portal.restoring_session() THEN
		RETURN NULL;
	END IF;
	PERFORM partner_portal.enqueue_event_for(ARRAY[NEW.workspace_id, NEW.partner_id], NEW.workspace_id,
		CASE NEW.state WHEN 'active' THEN 'access.granted' ELSE 'access.ended' END,
		jsonb_build_object('grant_id', NEW.grant_id, 'partner_id', NEW.partner_id, 'scope', NEW.scope, 'wallet', coalesce(NEW.wallet, false))
			|| CASE NEW.state WHEN 'active' THEN jsonb_build_object('rights', NEW.rights, 'products', NEW.products, 'categories', NEW.categories, 'expires_at', NEW.expires_at)
				ELSE jsonb_build_object('reason', CASE WHEN NEW.end_reason IN ('expired', 'replaced', 'transferred', 'deleted') THEN NEW.end_reason END) END,
		format('%s:%s', NEW.grant_id, NEW.state));
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.notify_access() IS
'Trigger of access_grant: the events access.granted and access.ended, for the customer and the partner that is let in; no other partner hears of it. What people wrote is left out.';
REVOKE ALL ON FUNCTION partner_portal.notify_access() FROM PUBLIC;

CREATE TRIGGER notify_granted AFTER INSERT ON partner_portal.access_grant FOR EACH ROW
	WHEN (NEW.state = 'active') EXECUTE FUNCTION partner_portal.notify_access();
CREATE TRIGGER notify AFTER UPDATE OF state ON partner_portal.access_grant FOR EACH ROW
	WHEN (NEW.state <> OLD.state AND 'active' IN (NEW.state, OLD.state)) EXECUTE FUNCTION partner_portal.notify_access();

CREATE FUNCTION partner_portal.resubscribe(workspace_id bigint, list text) RETURNS boolean
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
	IF partner_portal.current_account_id() IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in', HINT = 'Sign in with partner_portal.login().';
	END IF;
	IF workspace_id IS NULL OR list IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_id and list must not be null';
	END IF;
	IF list NOT IN ('new_keys', 'billing_report') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown list "%s"', left(list, 64)),
			HINT = 'Lists are new_keys and billing_report.';
	END IF;
	UPDATE partner_portal.mail_opt_out o SET opted_out_at = NULL
	WHERE o.workspace_id = resubscribe.workspace_id AND o.account_id = partner_portal.current_account_id() AND o.list = resubscribe.list;
	IF NOT FOUND AND NOT EXISTS (SELECT FROM partner_portal.member m
		WHERE m.workspace_id = resubscribe.workspace_id AND m.account_id = partner_portal.current_account_id() AND m.accepted_at IS NOT NULL)
	THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('workspace %s not found', workspace_id);
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION partner_portal.resubscribe(bigint, text) IS
'Puts the account that is signed in back on a list of a workspace that it was taken off by unsubscribe(): new_keys or billing_report; true, also when it was on it. Nobody does so for another. Who gets a list at all goes by role, and by notify_new_keys and notify_billing of the workspace. 42501 nobody signed in; P0002 not one of one''s workspaces; 22004, 22023.';
REVOKE ALL ON FUNCTION partner_portal.resubscribe(bigint, text) FROM PUBLIC;

-- Runs as its owner, since the table has tokens; one's own rows alone.
CREATE VIEW partner_portal.my_mail_lists WITH (security_barrier) AS
	SELECT o.workspace_id, o.list, o.opted_out_at
	FROM partner_portal.mail_opt_out o
	WHERE o.account_id = (SELECT partner_portal.current_account_id());
COMMENT ON VIEW partner_portal.my_mail_lists IS 'Lists of mails that one has got, per workspace, wherever one acts; unsubscribe() and resubscribe() change them.';
COMMENT ON COLUMN partner_portal.my_mail_lists.opted_out_at IS 'Since when one does not get it any more; NULL is who still does.';

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.resubscribe(bigint, text)'),
	('application', 'SELECT', 'TABLE partner_portal.my_mail_lists');

-- enroll.sql

CREATE OR REPLACE FUNCTION partner_portal.enroll_role(role regrole, as_what text) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'only the operator may enroll a role';
	END IF;
	IF role IS NULL OR as_what IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'role and as_what must not be null';
	END IF;
	IF as_what NOT IN ('application', 'trusted_application', 'reporting', 'operator') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('unknown kind of role "%s"', left(as_what, 64)),
			HINT = 'Kinds are application, trusted_application, reporting and operator.';
	END IF;
	IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = role) THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = format('role with OID %s does not exist', role::oid);
	END IF;
	EXECUTE format('GRANT USAGE ON SCHEMA partner_portal TO %s', role);
	PERFORM partner_portal.issue_grant(enroll_role.role, g.privilege, g.object) FROM partner_portal.role_grant g
		WHERE g.as_what = ANY (partner_portal.kinds_within(enroll_role.as_what));
	INSERT INTO partner_portal.enrolled_role (role_name, as_what)
	SELECT r.rolname, enroll_role.as_what FROM pg_roles r WHERE r.oid = role
	ON CONFLICT ON CONSTRAINT enrolled_role_pkey DO NOTHING;
END
$$;

-- drop_guard.sql

-- What a pattern means does not depend on the caller's settings; last, for the functions that are replaced above.
ALTER FUNCTION partner_portal.activity_log_csv(bigint, text, text, text, timestamptz, timestamptz, bigint, integer) SET standard_conforming_strings = on;
ALTER FUNCTION partner_portal.bulk_update_portal_users(bigint, text, boolean, text) SET standard_conforming_strings = on;
ALTER FUNCTION partner_portal.check_isolation() SET standard_conforming_strings = on;
ALTER FUNCTION partner_portal.check_note(text, text) SET standard_conforming_strings = on;
ALTER FUNCTION partner_portal.check_portal(text, text, text, text, text) SET standard_conforming_strings = on;
ALTER FUNCTION partner_portal.check_webhook(text, text[]) SET standard_conforming_strings = on;
ALTER FUNCTION partner_portal.checked_email(text) SET standard_conforming_strings = on;
ALTER FUNCTION partner_portal.health() SET standard_conforming_strings = on;
ALTER FUNCTION partner_portal.import_key_activity(bigint, bigint, tstzrange, text) SET standard_conforming_strings = on;
ALTER FUNCTION partner_portal.invoice_html(bigint) SET standard_conforming_strings = on;
ALTER FUNCTION partner_portal.isolate(regclass, name, jsonb, text) SET standard_conforming_strings = on;
ALTER FUNCTION partner_portal.partner_statement_csv(bigint, date) SET standard_conforming_strings = on;
ALTER FUNCTION partner_portal.portal_users_csv(bigint) SET standard_conforming_strings = on;
ALTER FUNCTION partner_portal.release(regclass) SET standard_conforming_strings = on;
ALTER FUNCTION partner_portal.usage_csv(bigint, tstzrange) SET standard_conforming_strings = on;

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
