-- panel.sql: what a partner looks at.

-- Runs as its owner: under the tables' own policies a count would lose its index-only scans. Each arm is filtered by the
-- identity's readers. Counts come from counters and stored usage; only a last period that is not closed yet, or that late
-- facts came to, is counted from the facts.
-- A set operation alone is no barrier, whatever the view's options say: conditions are handed down into its arms, leaky ones too.
CREATE VIEW partner_portal.partner_panel WITH (security_barrier) AS
	SELECT panel.workspace_id, panel.created_at, panel.company_name, panel.billing_period, panel.period_label, panel.total_keys, panel.active_keys, panel.key_limit, panel.smartphones, panel.contactless_cards, panel.users, panel.users_as_of, panel.last_period_keys, panel.last_invoice_date, panel.last_invoice_keys, panel.state, panel.relation, panel.last_period_smartphones, panel.last_period_contactless_cards
	FROM (
		SELECT w.workspace_id, w.created_at, w.company_name,
			tstzrange(r.period_start, r.period_end) AS billing_period, r.label AS period_label,
			c.total_keys, c.active_keys, c.key_limit,
			c.active_smartphones AS smartphones, c.active_contactless_cards AS contactless_cards,
			u.users, u.known_at AS users_as_of,
			coalesce(stored.total, live.total)::integer AS last_period_keys,
			i.invoice_date AS last_invoice_date, i.keys_billed AS last_invoice_keys,
			CASE WHEN w.deleted_at IS NOT NULL THEN 'deleted' WHEN w.suspended_at IS NOT NULL THEN 'suspended' ELSE 'active' END AS state,
			w.relation,
			coalesce(stored.smartphones, live.smartphones)::integer AS last_period_smartphones,
			coalesce(stored.contactless_cards, live.contactless_cards)::integer AS last_period_contactless_cards
		FROM (
			SELECT r.workspace_id, r.partner_id, r.partner_key, r.created_at, r.company_name, r.time_zone, r.anchor_date, r.billing_step, r.deleted_at, r.suspended_at, 'registered' AS relation
			FROM partner_portal.workspace r
			WHERE r.partner_id IS NOT NULL AND r.purged_at IS NULL
				AND r.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
			UNION ALL
			SELECT r.workspace_id, r.partner_id, r.partner_key, r.created_at, r.company_name, r.time_zone, r.anchor_date, r.billing_step, r.deleted_at, r.suspended_at,
				CASE WHEN r.partner_id = (SELECT partner_portal.current_partner_id()) THEN 'registered' ELSE 'granted' END
			FROM partner_portal.workspace r
			WHERE r.workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[]) AND r.purged_at IS NULL
				AND NOT coalesce(r.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()), false)
		) w
		JOIN partner_portal.workspace_usage c ON c.workspace_id = w.workspace_id
		LEFT JOIN LATERAL (
			SELECT b.period_start, b.period_end, b.previous_end, b.label, b.period_end > now() AS running FROM partner_portal.billing_period b
			WHERE b.workspace_id = w.workspace_id AND b.period_start <= now()
			ORDER BY b.period_start DESC LIMIT 1) p ON true
		-- the period that runs, and the one to come if it has not been opened yet
		CROSS JOIN LATERAL (
			SELECT p.period_start, p.period_end, p.label WHERE p.running
			UNION ALL
			SELECT greatest(f.period_start, p.period_end), f.period_end,
				partner_portal.period_label(greatest(f.period_start, p.period_end), f.period_end, w.time_zone)
			FROM partner_portal.billing_period_bounds(w.anchor_date, w.billing_step, w.time_zone, now()) f
			WHERE p.running IS NOT TRUE) r
		LEFT JOIN partner_portal.usage_period u ON u.workspace_id = w.workspace_id AND u.period_start = r.period_start AND u.kind = 'total'
		-- its last period, unless that was another partner's
		LEFT JOIN partner_portal.billing_period q ON q.workspace_id = w.workspace_id AND q.partner_key = w.partner_key
			AND q.period_end = CASE WHEN p.running THEN p.previous_end ELSE p.period_end END
		LEFT JOIN LATERAL (
			SELECT sum(s.distinct_keys) FILTER (WHERE s.kind = 'total') AS total,
				sum(s.distinct_keys) FILTER (WHERE s.kind = 'smartphone') AS smartphones,
				sum(s.distinct_keys) FILTER (WHERE s.kind = 'contactless_card') AS contactless_cards
			FROM partner_portal.usage_period s
			WHERE s.workspace_id = w.workspace_id AND s.period_start = q.period_start
				AND q.closed_at IS NOT NULL AND q.late_facts_at IS NULL) stored ON true
		LEFT JOIN LATERAL (
			SELECT count(DISTINCT f.key_id) AS total,
				count(DISTINCT f.key_id) FILTER (WHERE f.kind = 'smartphone') AS smartphones,
				count(DISTINCT f.key_id) FILTER (WHERE f.kind = 'contactless_card') AS contactless_cards
			FROM (
				SELECT h.key_id, h.kind FROM partner_portal.key_history h
				WHERE h.workspace_id = w.workspace_id AND h.active_until > q.period_start AND h.active_from < q.period_end
					AND NOT (q.closed_at IS NOT NULL AND q.late_facts_at IS NULL)
				UNION ALL
				SELECT k.key_id, k.kind FROM partner_portal.security_key k
				WHERE k.workspace_id = w.workspace_id AND k.status = 'active' AND k.activated_at < q.period_end
					AND NOT (q.closed_at IS NOT NULL AND q.late_facts_at IS NULL)) f) live ON q.workspace_id IS NOT NULL
		-- its last invoice that the identity may see
		LEFT JOIN LATERAL (
			SELECT d.invoice_date, d.keys_billed FROM partner_portal.invoice d
			WHERE d.workspace_id = w.workspace_id AND d.document = 'invoice' AND d.status <> 'void' AND d.status IN ('final', 'paid')
				AND (d.issuer_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
					OR d.payer_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
					OR (d.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()) AND d.partner_sees)
					OR (d.partner_key = (SELECT partner_portal.current_partner_id()) AND d.partner_sees))
			ORDER BY d.period_start DESC LIMIT 1) i ON true
		UNION ALL
		-- who let the partner near some products shows its name
		SELECT w.workspace_id, NULL, w.company_name, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
			CASE WHEN w.suspended_at IS NOT NULL THEN 'suspended' ELSE 'active' END, 'granted', NULL, NULL
		FROM partner_portal.workspace w
		WHERE w.workspace_id = ANY ((SELECT partner_portal.limited_workspaces())::bigint[]) AND w.deleted_at IS NULL
			AND NOT coalesce(w.partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()), false)
			AND NOT coalesce(w.workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[]), false)
	) panel;
COMMENT ON VIEW partner_portal.partner_panel IS
'One row per customer that the identity may read: those registered under its partner (of a plain member, those it is staff of) and those that granted access. Nobody else''s.';
COMMENT ON COLUMN partner_portal.partner_panel.billing_period IS 'The customer''s current billing period [start, end).';
COMMENT ON COLUMN partner_portal.partner_panel.period_label IS 'Its first and last local date, as 2026-02-28..2026-03-30.';
COMMENT ON COLUMN partner_portal.partner_panel.key_limit IS 'The limit in force; NULL is none.';
COMMENT ON COLUMN partner_portal.partner_panel.smartphones IS 'Active smartphones.';
COMMENT ON COLUMN partner_portal.partner_panel.contactless_cards IS 'Active contactless cards.';
COMMENT ON COLUMN partner_portal.partner_panel.users IS 'Different holders of keys active in the current period, as of users_as_of; NULL until it was measured.';
COMMENT ON COLUMN partner_portal.partner_panel.last_period_keys IS 'Different keys active in the period before the current one; NULL if there is none, or it was another partner''s.';
COMMENT ON COLUMN partner_portal.partner_panel.last_invoice_date IS 'Date of the customer''s last invoice that the identity may see; void ones apart.';
COMMENT ON COLUMN partner_portal.partner_panel.last_invoice_keys IS 'Keys billed on it.';
COMMENT ON COLUMN partner_portal.partner_panel.state IS 'active, suspended or deleted.';
COMMENT ON COLUMN partner_portal.partner_panel.relation IS 'registered under the partner, or granted by the customer; of one that granted some products alone there is nothing but its name.';

CREATE FUNCTION partner_portal.partner_summary(partner_id bigint DEFAULT NULL)
	RETURNS TABLE (customers bigint, added_this_month bigint, smartphones bigint, contactless_cards bigint,
		last_period_smartphones bigint, last_period_contactless_cards bigint, users bigint, unpaid jsonb,
		active_keys bigint, last_period_keys bigint)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_summary.partner_id);
BEGIN
	RETURN QUERY
	SELECT count(*), count(*) FILTER (WHERE v.billing_period @> v.created_at),
		coalesce(sum(v.smartphones), 0), coalesce(sum(v.contactless_cards), 0),
		coalesce(sum(v.last_period_smartphones), 0), coalesce(sum(v.last_period_contactless_cards), 0),
		coalesce(sum(v.users), 0),
		coalesce((SELECT jsonb_object_agg(o.currency, o.unpaid ORDER BY o.currency) FROM (
			SELECT i.currency, sum(i.total_minor - coalesce((SELECT sum(n.total_minor) FROM partner_portal.invoice n
				WHERE n.workspace_id = i.workspace_id AND n.credits_invoice_id = i.invoice_id), 0)) AS unpaid
			FROM partner_portal.invoice i
			WHERE i.issuer_key = asked.partner_id AND i.document = 'invoice' AND i.status = 'final'
			GROUP BY i.currency) o WHERE o.unpaid <> 0), '{}'),
		coalesce(sum(v.active_keys), 0), coalesce(sum(v.last_period_keys), 0)
	FROM partner_portal.partner_panel v
	JOIN partner_portal.workspace w ON w.workspace_id = v.workspace_id
	WHERE w.partner_id = asked.partner_id AND v.relation = 'registered' AND v.state <> 'deleted';
END
$$;
COMMENT ON FUNCTION partner_portal.partner_summary(bigint) IS
'A partner''s customers in sum, NULL being the identity''s own partner: how many, how many were created in their current billing period, active keys per kind, keys of the last period per kind, users, unpaid final invoices that it issued, less their credit notes, by currency in minor units. For the partner''s owner or administrator. 42501, P0002, PP005 no partner.';
REVOKE ALL ON FUNCTION partner_portal.partner_summary(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.workspace_detail(workspace_id bigint)
	RETURNS TABLE (company_url text, created_at timestamptz, billing_period tstzrange, keys_billed integer, contactless_cards integer,
		smartphones integer, users integer, sso_enabled boolean, restrict_keys boolean, key_limit integer, limit_mode text,
		notify_new_keys boolean, notify_billing boolean, registered_with text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	period tstzrange;
BEGIN
	IF workspace_detail.workspace_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_id must not be null';
	END IF;
	PERFORM partner_portal.authorize('read', workspace_detail.workspace_id);
	period := partner_portal.find_period(workspace_detail.workspace_id, now());
	RETURN QUERY
	SELECT replace(current_setting('partner_portal.workspace_url'), '{slug}', w.slug), w.created_at, period,
		coalesce(partner_portal.bill_keys(ARRAY[partner_portal.period_row(w.workspace_id, period)]), m.distinct_keys), k.contactless_cards::integer, k.smartphones::integer, m.users, w.sso_enabled, w.restrict_keys, w.key_limit, w.limit_mode,
		w.notify_new_keys, w.notify_billing, p.company_name
	FROM partner_portal.workspace w
	LEFT JOIN partner_portal.workspace p ON p.workspace_id = w.partner_id
	CROSS JOIN LATERAL partner_portal.measure_usage(ARRAY[w.workspace_id], ARRAY[lower(period)], ARRAY[upper(period)], ARRAY[w.time_zone], NULL) m
	CROSS JOIN LATERAL (
		SELECT count(*) FILTER (WHERE s.kind = 'contactless_card') AS contactless_cards, count(*) FILTER (WHERE s.kind = 'smartphone') AS smartphones
		FROM partner_portal.security_key s
		WHERE s.workspace_id = w.workspace_id AND s.status = 'active') k
	WHERE w.workspace_id = workspace_detail.workspace_id AND m.kind = 'total';
END
$$;
COMMENT ON FUNCTION partner_portal.workspace_detail(bigint) IS
'One workspace, exact and live: keys_billed are the keys that an invoice of the current billing period would bill now, by its plan''s measure (without a plan the different keys active in it), contactless_cards and smartphones those active now, users their different holders in the period, registered_with the partner''s name. 42501, P0002 as authorize().';
REVOKE ALL ON FUNCTION partner_portal.workspace_detail(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.billing_history(workspace_id bigint)
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
COMMENT ON FUNCTION partner_portal.billing_history(bigint) IS
'Every closed billing period of a workspace, newest first, one without keys or invoice too (status empty: a total of zero made no document; void: nothing took its place); invoices that the identity may not see are left out. To the customer''s partner, those since it came to it. 42501, P0002 as authorize().';
REVOKE ALL ON FUNCTION partner_portal.billing_history(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.partner_profile(partner_id bigint DEFAULT NULL)
	RETURNS TABLE (workspace_id bigint, company_name text, slug text, address text, tax_id text, time_zone text, created_at timestamptz,
		promoted_at timestamptz, customers bigint, registration_url text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_profile.partner_id);
BEGIN
	RETURN QUERY
	SELECT w.workspace_id, w.company_name, w.slug, w.address, w.tax_id, w.time_zone, w.created_at, asked.promoted_at,
		(SELECT count(*) FROM partner_portal.workspace c WHERE c.partner_key = asked.partner_id AND c.deleted_at IS NULL),
		partner_portal.registration_url(asked.partner_id)
	FROM partner_portal.workspace w
	WHERE w.workspace_id = asked.partner_id;
END
$$;
COMMENT ON FUNCTION partner_portal.partner_profile(bigint) IS
'Basic information of a partner, NULL being the identity''s own, and its registration link. For the partner''s owner or administrator. 42501, P0002, PP005 no partner.';
REVOKE ALL ON FUNCTION partner_portal.partner_profile(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.find_customers(beginning text)
	RETURNS TABLE (workspace_id bigint, company_name text, slug text, state text, relation text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
	ELSIF beginning IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'text to search for must not be null';
	ELSIF octet_length(beginning) > 1000 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'text to search for is too long';
	END IF;
	RETURN QUERY
	SELECT v.workspace_id, v.company_name, CASE WHEN v.created_at IS NOT NULL THEN w.slug END, v.state, v.relation
	FROM partner_portal.partner_panel v
	JOIN partner_portal.workspace w ON w.workspace_id = v.workspace_id
	WHERE starts_with(lower(v.company_name), lower(beginning)) OR (v.created_at IS NOT NULL AND starts_with(w.slug, lower(beginning)))
	ORDER BY v.company_name, v.workspace_id;
END
$$;
COMMENT ON FUNCTION partner_portal.find_customers(text) IS
'Customers of partner_panel whose name or slug begins with a text, without regard to case; the empty text finds all. 42501 nobody signed in.';
REVOKE ALL ON FUNCTION partner_portal.find_customers(text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.partner_panel'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.billing_period_bounds(date, text, text, timestamptz)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.period_label(timestamptz, timestamptz, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.partner_summary(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.workspace_detail(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.billing_history(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.partner_profile(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.find_customers(text)');
