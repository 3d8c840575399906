-- notice.sql: who is told what: limit alerts, the daily list of new keys, the monthly billing report, endpoints that were disabled,
-- and access as an event.

CREATE TABLE partner_portal.mail_opt_out (
	workspace_id bigint NOT NULL,
	account_id bigint NOT NULL,
	list text NOT NULL,
	token text NOT NULL DEFAULT translate(encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64'), '+/=', '-_'),
	opted_out_at timestamptz,
	CONSTRAINT mail_opt_out_pkey PRIMARY KEY (workspace_id, account_id, list),
	CONSTRAINT mail_opt_out_token_key UNIQUE (token),
	CONSTRAINT mail_opt_out_account FOREIGN KEY (account_id) REFERENCES partner_portal.account,
	CONSTRAINT mail_opt_out_list CHECK (list IN ('new_keys', 'billing_report'))
);
CREATE INDEX mail_opt_out_account_id ON partner_portal.mail_opt_out (account_id);
COMMENT ON TABLE partner_portal.mail_opt_out IS 'Who gets the mails of a list (RFC 8058), with the token of the link in them; opted_out_at NULL is who still does.';

-- How far the daily lists of a workspace have got; a row is made when notify_new_keys is first seen on.
CREATE TABLE partner_portal.new_keys_digest (
	workspace_id bigint NOT NULL,
	done_until date NOT NULL,
	time_zone text,
	CONSTRAINT new_keys_digest_pkey PRIMARY KEY (workspace_id),
	CONSTRAINT new_keys_digest_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace ON DELETE CASCADE
);
COMMENT ON TABLE partner_portal.new_keys_digest IS 'Last local day whose list of new keys is owed or was empty, per workspace with notify_new_keys.';
COMMENT ON COLUMN partner_portal.new_keys_digest.time_zone IS 'Zone in which done_until ended; where the workspace has another since, the list after it begins there still. NULL is the workspace''s.';

ALTER TABLE partner_portal.mail_opt_out ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.new_keys_digest ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('partner_portal.mail_opt_out', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.new_keys_digest', '');

-- Whoever did it, by the link, as the account or by hand: why a mail does not come is in the log of the workspace that it is about.
CREATE TRIGGER log_unsubscribe AFTER UPDATE ON partner_portal.mail_opt_out
	FOR EACH ROW WHEN (OLD.opted_out_at IS NULL AND NEW.opted_out_at IS NOT NULL)
	EXECUTE FUNCTION partner_portal.log_row('update_user_profile', 'unsubscribed from mails', 'list', 'account_id');
CREATE TRIGGER log_resubscribe AFTER UPDATE ON partner_portal.mail_opt_out
	FOR EACH ROW WHEN (OLD.opted_out_at IS NOT NULL AND NEW.opted_out_at IS NULL)
	EXECUTE FUNCTION partner_portal.log_row('update_user_profile', 'subscribed to mails again', 'list', 'account_id');

CREATE FUNCTION partner_portal.mail_recipients(workspace_id bigint, roles text[])
	RETURNS TABLE (account_id bigint, email text, locale text)
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT a.account_id, a.email, a.locale
	FROM partner_portal.member m JOIN partner_portal.account a ON a.account_id = m.account_id
	WHERE m.workspace_id = mail_recipients.workspace_id AND m.role = ANY (roles) AND m.accepted_at IS NOT NULL
		AND a.disabled_at IS NULL AND a.erased_at IS NULL;
END;
COMMENT ON FUNCTION partner_portal.mail_recipients(bigint, text[]) IS 'Accounts of a workspace that mail goes to. Internal.';
REVOKE ALL ON FUNCTION partner_portal.mail_recipients(bigint, text[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.enqueue_list_mail(workspace_id bigint, list text, dedupe_key text, account_id bigint, email text, locale text, mail partner_portal.mail_content) RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	entry partner_portal.mail_opt_out;
BEGIN
	INSERT INTO partner_portal.mail_opt_out (workspace_id, account_id, list)
	VALUES (enqueue_list_mail.workspace_id, enqueue_list_mail.account_id, enqueue_list_mail.list)
	ON CONFLICT ON CONSTRAINT mail_opt_out_pkey DO NOTHING;
	SELECT * INTO STRICT entry FROM partner_portal.mail_opt_out o
	WHERE o.workspace_id = enqueue_list_mail.workspace_id AND o.account_id = enqueue_list_mail.account_id AND o.list = enqueue_list_mail.list;
	IF entry.opted_out_at IS NOT NULL THEN
		RETURN NULL;
	END IF;
	RETURN partner_portal.enqueue_mail(enqueue_list_mail.workspace_id, enqueue_list_mail.list, enqueue_list_mail.dedupe_key || ':' || enqueue_list_mail.account_id,
		enqueue_list_mail.email, enqueue_list_mail.locale, enqueue_list_mail.mail,
		unsubscribe_url => rtrim(current_setting('partner_portal.link_base_url'), '/') || '/unsubscribe/' || entry.token);
END
$$;
COMMENT ON FUNCTION partner_portal.enqueue_list_mail(bigint, text, text, bigint, text, text, partner_portal.mail_content) IS
'Owes one mail of a list to one account, unless it has opted out; with the link to do so. Internal.';
REVOKE ALL ON FUNCTION partner_portal.enqueue_list_mail(bigint, text, text, bigint, text, text, partner_portal.mail_content) FROM PUBLIC;

CREATE FUNCTION partner_portal.unsubscribe(token text) RETURNS boolean
	LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
	UPDATE partner_portal.mail_opt_out o SET opted_out_at = coalesce(o.opted_out_at, now()) WHERE o.token = $1 RETURNING true
$$;
COMMENT ON FUNCTION partner_portal.unsubscribe(text) IS
'Takes an account off one list of one workspace by the token in the mail''s List-Unsubscribe (<partner_portal.link_base_url>/unsubscribe/<token>); needs nobody signed in. NULL if there is no such token.';
REVOKE ALL ON FUNCTION partner_portal.unsubscribe(text) FROM PUBLIC;

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

CREATE FUNCTION partner_portal.notify_limit_alert() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	company text;
	hard boolean;
BEGIN
	IF partner_portal.restoring_session() THEN
		RETURN NULL;
	END IF;
	SELECT w.company_name, w.limit_mode = 'hard' INTO company, hard FROM partner_portal.workspace w WHERE w.workspace_id = NEW.workspace_id;
	PERFORM partner_portal.enqueue_mail(NEW.workspace_id, 'limit_alert', format('%s:%s:%s', NEW.period_start, NEW.threshold, r.account_id), r.email, r.locale,
		partner_portal.mail_limit_alert(r.locale, company, NEW.threshold, NEW.active_keys, NEW.key_limit, hard))
	FROM (SELECT * FROM partner_portal.mail_recipients(NEW.workspace_id, '{owner,administrator}')
		UNION SELECT * FROM partner_portal.mail_recipients(NEW.partner_key, '{owner,administrator}')) r;
	PERFORM partner_portal.enqueue_webhook_event(NEW.workspace_id, 'limit.alert',
		jsonb_build_object('threshold', NEW.threshold, 'active_keys', NEW.active_keys, 'key_limit', NEW.key_limit),
		format('%s:%s', NEW.period_start, NEW.threshold));
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.notify_limit_alert() IS
'Trigger of limit_alert: mails to owners and administrators of the workspace and of its partner, and the event limit.alert.';
REVOKE ALL ON FUNCTION partner_portal.notify_limit_alert() FROM PUBLIC;
CREATE TRIGGER notify AFTER INSERT ON partner_portal.limit_alert FOR EACH ROW EXECUTE FUNCTION partner_portal.notify_limit_alert();

CREATE FUNCTION partner_portal.notify_invoice() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	labels text[];
	keys integer[];
	texts text[];
	amounts text[];
BEGIN
	IF partner_portal.restoring_session() THEN
		RETURN NULL;
	END IF;
	PERFORM partner_portal.enqueue_webhook_event(t.workspace_id, 'invoice.finalized',
		jsonb_build_object('invoice_id', NEW.invoice_id, 'invoice_number', NEW.invoice_number, 'customer_id', NEW.workspace_id, 'period', NEW.period_label,
			'currency', NEW.currency, 'total_minor', NEW.total_minor), NEW.invoice_id::text)
	FROM (SELECT NEW.payer_id AS workspace_id UNION SELECT NEW.workspace_id WHERE NEW.workspace_sees) t;
	IF NOT EXISTS (SELECT FROM partner_portal.workspace w
			WHERE w.notify_billing AND (w.workspace_id = NEW.payer_id OR (w.workspace_id = NEW.workspace_id AND NEW.workspace_sees))) THEN
		RETURN NULL;
	END IF;
	SELECT array_agg(l.text ORDER BY l.line), array_agg(partner_portal.money_text(l.amount_minor, NEW.minor_digits) ORDER BY l.line) INTO texts, amounts
	FROM partner_portal.invoice_line l WHERE l.workspace_id = NEW.workspace_id AND l.invoice_id = NEW.invoice_id;
	SELECT array_agg(h.label ORDER BY h.period_start), array_agg(h.keys ORDER BY h.period_start) INTO labels, keys
	FROM (SELECT p.period_start, p.label, CASE WHEN p.period_start = NEW.period_start THEN NEW.keys_billed ELSE u.distinct_keys END AS keys
		FROM partner_portal.billing_period p
		JOIN partner_portal.usage_period u ON u.workspace_id = p.workspace_id AND u.period_start = p.period_start AND u.kind = 'total'
		WHERE p.workspace_id = NEW.workspace_id AND p.partner_key = NEW.partner_key AND p.period_start <= NEW.period_start
		ORDER BY p.period_start DESC LIMIT 12) h;
	PERFORM partner_portal.enqueue_list_mail(w.workspace_id, 'billing_report', NEW.invoice_id::text, r.account_id, r.email, r.locale,
		partner_portal.mail_billing_report(r.locale, NEW.company_name, NEW.period_label, NEW.invoice_number, NEW.currency,
			coalesce(texts, '{}'), coalesce(amounts, '{}'), partner_portal.money_text(NEW.total_minor, NEW.minor_digits), labels, keys))
	FROM partner_portal.workspace w
	CROSS JOIN LATERAL partner_portal.mail_recipients(w.workspace_id, '{owner}') r
	WHERE w.notify_billing AND (w.workspace_id = NEW.payer_id OR (w.workspace_id = NEW.workspace_id AND NEW.workspace_sees));
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.notify_invoice() IS
'Trigger of invoice: when one becomes final, the monthly report to the owners of the payer, and of the workspace if it sees the document, where notify_billing is on; and the event invoice.finalized.';
REVOKE ALL ON FUNCTION partner_portal.notify_invoice() FROM PUBLIC;
CREATE TRIGGER notify AFTER UPDATE OF status ON partner_portal.invoice FOR EACH ROW
	WHEN (NEW.status = 'final' AND OLD.status <> 'final' AND NEW.document = 'invoice') EXECUTE FUNCTION partner_portal.notify_invoice();

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

CREATE FUNCTION partner_portal.tick_new_keys(at timestamptz) RETURNS bigint
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
REVOKE ALL ON FUNCTION partner_portal.tick_new_keys(timestamptz) FROM PUBLIC;

INSERT INTO partner_portal.job_step (position, step) VALUES (40, 'tick_new_keys');
INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.unsubscribe(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.resubscribe(bigint, text)'),
	('application', 'SELECT', 'TABLE partner_portal.my_mail_lists');
