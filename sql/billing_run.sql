-- billing_run.sql: what a period costs, and the run that bills every period that has ended.
--
-- A head is what an invoice of a period says above its lines. bill_heads() and bill_lines() compute heads and lines of
-- many periods at once from stored periods, plans and facts; drafts, finalizing and preview_invoice() all use them.
-- Locks are taken in this order, each in order of workspace: workspace, workspace_usage, invoice, invoice_series.

CREATE TABLE partner_portal.billing_failure (
	workspace_id bigint NOT NULL,
	partner_key bigint NOT NULL,
	failed_at timestamptz NOT NULL,
	sqlstate text NOT NULL,
	message text NOT NULL,
	CONSTRAINT billing_failure_pkey PRIMARY KEY (workspace_id),
	CONSTRAINT billing_failure_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace
);
CREATE INDEX billing_failure_partner_key_idx ON partner_portal.billing_failure (partner_key);
COMMENT ON TABLE partner_portal.billing_failure IS 'Workspaces that the last billing run could not bill, and why; a row goes when a run succeeds. Shown by billing_health().';
ALTER TABLE partner_portal.billing_failure ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY signed_in ON partner_portal.billing_failure AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.billing_failure FOR SELECT
	USING (partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));
SELECT pg_catalog.pg_extension_config_dump('partner_portal.billing_failure', '');

CREATE TYPE partner_portal.billing_action AS (
	workspace_id bigint,
	period tstzrange,
	invoice_id bigint,
	action text,
	problem text
);
COMMENT ON TYPE partner_portal.billing_action IS 'What a billing run did for a period: closed (no document), drafted, refreshed, finalized, empty (a total of zero, no document) or failed.';

-- Part and whole are counted in local dates from start to end, so that the parts of a period add up to it.
CREATE FUNCTION partner_portal.bill_heads(periods partner_portal.billing_period[])
	RETURNS TABLE (workspace_id bigint, period_start timestamptz, period_end timestamptz, period_label text, time_zone text, partner_key bigint,
		issuer_key bigint, payer_id bigint, visibility text, plan_id bigint, plan_name text, plan_version integer, zero_invoices boolean,
		currency text, minor_digits integer, issuer_name text, issuer_address text, issuer_tax_id text,
		payer_name text, payer_address text, payer_tax_id text, company_name text, part_dates integer, whole_dates integer)
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT p.workspace_id, p.period_start, p.period_end, p.label, p.time_zone, p.partner_key,
		v.partner_key, payer.workspace_id, coalesce(p.invoice_visibility, w.invoice_visibility), v.plan_id, v.name, v.version, v.zero_invoices,
		v.currency, c.minor_digits, coalesce(s.name, issuer.company_name, 'Platform'), coalesce(s.address, issuer.address), coalesce(s.tax_id, issuer.tax_id),
		payer.company_name, payer.address, payer.tax_id, w.company_name,
		least((p.period_end AT TIME ZONE p.time_zone)::date - (p.period_start AT TIME ZONE p.time_zone)::date, whole.dates), whole.dates
	FROM unnest(bill_heads.periods) p
	JOIN partner_portal.workspace w ON w.workspace_id = p.workspace_id
	CROSS JOIN LATERAL partner_portal.plan_at(p.workspace_id, p.partner_key, p.period_start) v
	JOIN partner_portal.currency c ON c.code = v.currency
	JOIN partner_portal.workspace payer ON payer.workspace_id = CASE v.partner_key WHEN 0 THEN coalesce(p.payer_id, p.workspace_id) ELSE p.workspace_id END
	LEFT JOIN partner_portal.workspace issuer ON issuer.workspace_id = v.partner_key
	LEFT JOIN partner_portal.invoice_issuer s ON s.issuer_key = v.partner_key
	CROSS JOIN LATERAL (SELECT greatest(1, (coalesce(p.whole_end, p.period_end) AT TIME ZONE p.time_zone)::date
		- (coalesce(p.whole_start, p.period_start) AT TIME ZONE p.time_zone)::date) AS dates) whole;
END;
COMMENT ON FUNCTION partner_portal.bill_heads(partner_portal.billing_period[]) IS
'What the invoices of periods say above their lines: issuer, payer, plan in force at the start, names and addresses as they are, share of the whole period. A period without a plan has none. Internal.';
REVOKE ALL ON FUNCTION partner_portal.bill_heads(partner_portal.billing_period[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.rate_line(model text, unit_price numeric, package_size integer, tiers jsonb, free_units integer, minimum_minor bigint,
	part_dates integer, whole_dates integer, minor_digits integer, quantity numeric) RETURNS TABLE (amount_minor bigint)
	LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1
BEGIN ATOMIC
	SELECT partner_portal.to_minor(greatest(
			coalesce(sum(b.amount) FILTER (WHERE NOT b.shared), 0) * rate_line.whole_dates + coalesce(sum(b.amount) FILTER (WHERE b.shared), 0) * rate_line.part_dates,
			rate_line.minimum_minor * power(0.1::numeric, rate_line.minor_digits::numeric) * rate_line.part_dates),
		rate_line.whole_dates, rate_line.minor_digits)
	FROM partner_portal.rate_bands(rate_line.model, rate_line.unit_price, rate_line.package_size, rate_line.tiers, rate_line.free_units, rate_line.quantity) b;
END;
COMMENT ON FUNCTION partner_portal.rate_line(text, numeric, integer, jsonb, integer, bigint, integer, integer, integer, numeric) IS
'Amount of a line in minor units: its bands, flat fees by the share of dates, at least the minimum by the same share, rounded once. 22003 beyond bigint; internal.';
REVOKE ALL ON FUNCTION partner_portal.rate_line(text, numeric, integer, jsonb, integer, bigint, integer, integer, integer, numeric) FROM PUBLIC;

CREATE FUNCTION partner_portal.bill_measures(periods partner_portal.billing_period[])
	RETURNS TABLE (workspace_id bigint, period_start timestamptz, kind text, distinct_keys integer, peak_keys integer, end_keys integer,
		start_keys integer, key_days numeric, key_seconds numeric, users integer)
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT u.workspace_id, u.period_start, u.kind, u.distinct_keys, u.peak_keys, u.end_keys, u.start_keys, u.key_days, u.key_seconds, u.users
	FROM unnest(bill_measures.periods) p
	JOIN partner_portal.usage_period u ON u.workspace_id = p.workspace_id AND u.period_start = p.period_start
	WHERE p.closed_at IS NOT NULL AND p.late_facts_at IS NULL
	UNION ALL
	SELECT m.workspace_id, m.period_start, m.kind, m.distinct_keys, m.peak_keys, m.end_keys, m.start_keys, m.key_days, m.key_seconds, m.users
	FROM (SELECT array_agg(p.workspace_id) AS ids, array_agg(p.period_start) AS starts, array_agg(p.period_end) AS ends, array_agg(p.time_zone) AS zones
		FROM unnest(bill_measures.periods) p WHERE p.closed_at IS NULL OR p.late_facts_at IS NOT NULL) live
	CROSS JOIN LATERAL partner_portal.measure_usage(live.ids, live.starts, live.ends, live.zones, NULL) m;
END;
COMMENT ON FUNCTION partner_portal.bill_measures(partner_portal.billing_period[]) IS
'Measures of periods per kind and in total: the stored ones of closed periods, those of now where a period runs or facts came late. Internal.';
REVOKE ALL ON FUNCTION partner_portal.bill_measures(partner_portal.billing_period[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.bill_lines(periods partner_portal.billing_period[])
	RETURNS TABLE (workspace_id bigint, period_start timestamptz, line integer, type text, about_start timestamptz, about_end timestamptz, component integer,
		kind text, measure text, model text, unit_price numeric, package_size integer, tiers jsonb, minimum_minor bigint, free_units integer,
		part_dates integer, whole_dates integer, quantity numeric, text text, amount_minor bigint, distinct_keys integer)
	LANGUAGE sql STABLE
BEGIN ATOMIC
	WITH heads AS MATERIALIZED (
		SELECT h.* FROM partner_portal.bill_heads(bill_lines.periods) h
	), measures AS MATERIALIZED (
		SELECT m.* FROM partner_portal.bill_measures(bill_lines.periods) m
	-- finished invoices of periods with late facts: the earliest document after it that is not finished, of the same issuer to the same payer, carries the correction
	), late AS MATERIALIZED (
		SELECT c.* FROM (
			SELECT DISTINCT ON (i.workspace_id, i.invoice_id) h.workspace_id, h.period_start, i.invoice_id, i.period_label, i.minor_digits, i.issuer_key, i.payer_id, i.currency, p AS about
			FROM heads h
			JOIN partner_portal.billing_period p ON p.workspace_id = h.workspace_id AND p.late_facts_at IS NOT NULL AND p.period_start < h.period_start
			JOIN partner_portal.invoice i ON i.workspace_id = p.workspace_id AND i.period_start = p.period_start AND i.document = 'invoice'
				AND i.status IN ('final', 'paid', 'empty') AND i.issuer_key = h.issuer_key AND i.payer_id = h.payer_id AND i.currency = h.currency
			ORDER BY i.workspace_id, i.invoice_id, h.period_start) c
		WHERE NOT EXISTS (SELECT FROM partner_portal.invoice d
			WHERE d.workspace_id = c.workspace_id AND d.document = 'invoice' AND d.status = 'draft' AND d.period_start > (c.about).period_start AND d.period_start < c.period_start
				AND d.issuer_key = c.issuer_key AND d.payer_id = c.payer_id AND d.currency = c.currency)
	), late_measures AS MATERIALIZED (
		SELECT m.* FROM (SELECT array_agg(l.about) AS periods FROM late l) a CROSS JOIN LATERAL partner_portal.bill_measures(a.periods) m
	), billed AS MATERIALIZED (
		SELECT l.workspace_id, l.about_start, l.component, sum(l.quantity) AS quantity, sum(l.amount_minor) AS amount_minor
		FROM late
		JOIN partner_portal.invoice_line l ON l.workspace_id = late.workspace_id AND l.about_start = (late.about).period_start AND l.type IN ('usage', 'correction')
		JOIN partner_portal.invoice i ON i.workspace_id = l.workspace_id AND i.invoice_id = l.invoice_id AND i.status <> 'void'
		WHERE NOT EXISTS (SELECT FROM heads h WHERE h.workspace_id = i.workspace_id AND h.period_start = i.period_start)
		GROUP BY l.workspace_id, l.about_start, l.component
	), lines AS (
		SELECT 1 AS place, h.workspace_id, h.period_start, 'usage' AS type, h.period_start AS about_start, h.period_end AS about_end, c.component, c.kind, c.measure, c.model,
			c.unit_price, c.package_size, c.tiers, c.minimum_minor, c.free_units, h.part_dates, h.whole_dates, q.quantity,
			CASE c.kind WHEN 'smartphone' THEN 'Smartphones' WHEN 'contactless_card' THEN 'Contactless cards' ELSE 'Security keys' END AS text, r.amount_minor, m.distinct_keys
		FROM heads h
		JOIN partner_portal.plan_component c ON c.partner_key = h.issuer_key AND c.plan_id = h.plan_id
		JOIN measures m ON m.workspace_id = h.workspace_id AND m.period_start = h.period_start AND m.kind = coalesce(c.kind, 'total')
		CROSS JOIN LATERAL (SELECT CASE c.measure WHEN 'distinct_keys' THEN m.distinct_keys WHEN 'peak_keys' THEN m.peak_keys WHEN 'end_keys' THEN m.end_keys
			WHEN 'start_keys' THEN m.start_keys WHEN 'key_days' THEN m.key_days WHEN 'key_seconds' THEN m.key_seconds WHEN 'users' THEN m.users END::numeric AS quantity) q
		CROSS JOIN LATERAL partner_portal.rate_line(c.model, c.unit_price, c.package_size, c.tiers, c.free_units, c.minimum_minor, h.part_dates, h.whole_dates, h.minor_digits, q.quantity) r
		UNION ALL
		SELECT 2, late.workspace_id, late.period_start, 'correction', l.about_start, l.about_end, l.component, l.kind, l.measure, l.model,
			l.unit_price, l.package_size, l.tiers, l.minimum_minor, l.free_units, l.part_dates, l.whole_dates, q.quantity - b.quantity,
			'Correction for ' || late.period_label || ': ' || l.text, (r.amount_minor - b.amount_minor)::bigint, NULL
		FROM late
		JOIN partner_portal.invoice_line l ON l.workspace_id = late.workspace_id AND l.invoice_id = late.invoice_id AND l.type = 'usage'
		JOIN billed b ON b.workspace_id = l.workspace_id AND b.about_start = l.about_start AND b.component = l.component
		JOIN late_measures m ON m.workspace_id = l.workspace_id AND m.period_start = l.about_start AND m.kind = coalesce(l.kind, 'total')
		CROSS JOIN LATERAL (SELECT CASE l.measure WHEN 'distinct_keys' THEN m.distinct_keys WHEN 'peak_keys' THEN m.peak_keys WHEN 'end_keys' THEN m.end_keys
			WHEN 'start_keys' THEN m.start_keys WHEN 'key_days' THEN m.key_days WHEN 'key_seconds' THEN m.key_seconds WHEN 'users' THEN m.users END::numeric AS quantity) q
		CROSS JOIN LATERAL partner_portal.rate_line(l.model, l.unit_price, l.package_size, l.tiers, l.free_units, l.minimum_minor, l.part_dates, l.whole_dates, late.minor_digits, q.quantity) r
		WHERE q.quantity <> b.quantity OR r.amount_minor <> b.amount_minor
	)
	SELECT l.workspace_id, l.period_start, row_number() OVER (PARTITION BY l.workspace_id, l.period_start ORDER BY l.place, l.about_start, l.component)::integer,
		l.type, l.about_start, l.about_end, l.component, l.kind, l.measure, l.model, l.unit_price, l.package_size, l.tiers, l.minimum_minor, l.free_units,
		l.part_dates, l.whole_dates, trim_scale(l.quantity), l.text, l.amount_minor, l.distinct_keys
	FROM lines l;
END;
COMMENT ON FUNCTION partner_portal.bill_lines(partner_portal.billing_period[]) IS
'Lines of the invoices of periods as of now: one per component of the plan in force at the start, and a correction for each earlier invoice whose facts came late: its measure now minus what was billed, at its own prices. Internal.';
REVOKE ALL ON FUNCTION partner_portal.bill_lines(partner_portal.billing_period[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.bill_keys(periods partner_portal.billing_period[]) RETURNS integer
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT coalesce(max(l.quantity) FILTER (WHERE l.kind IS NULL AND l.measure LIKE '%\_keys'), sum(l.quantity) FILTER (WHERE l.measure LIKE '%\_keys'),
		max(l.distinct_keys) FILTER (WHERE l.kind IS NULL), sum(l.distinct_keys))::integer
	FROM partner_portal.bill_lines(bill_keys.periods) l WHERE l.type = 'usage';
END;
COMMENT ON FUNCTION partner_portal.bill_keys(partner_portal.billing_period[]) IS 'Keys that the invoice of a period would bill now; NULL without a plan. Internal.';
REVOKE ALL ON FUNCTION partner_portal.bill_keys(partner_portal.billing_period[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.period_row(workspace_id bigint, period tstzrange) RETURNS partner_portal.billing_period
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	p partner_portal.billing_period;
BEGIN
	SELECT b.* INTO p FROM partner_portal.billing_period b WHERE b.workspace_id = period_row.workspace_id AND b.period_start = lower(period);
	IF NOT FOUND THEN
		SELECT w.workspace_id, f.period_start, f.period_end, w.time_zone, w.partner_key, w.invoice_visibility,
			partner_portal.period_label(f.period_start, f.period_end, w.time_zone), partner_portal.payer_at(w.workspace_id, f.period_start)
		INTO p.workspace_id, p.period_start, p.period_end, p.time_zone, p.partner_key, p.invoice_visibility, p.label, p.payer_id
		FROM partner_portal.workspace w
		CROSS JOIN LATERAL (SELECT lower(r) AS period_start, upper(r) AS period_end FROM partner_portal.find_period(w.workspace_id, lower(period)) r) f
		WHERE w.workspace_id = period_row.workspace_id;
	END IF;
	IF tstzrange(p.period_start, p.period_end) IS DISTINCT FROM period THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('%s is no billing period of workspace %s', period, workspace_id),
			HINT = format('The one that begins there is %s.', partner_portal.find_period(workspace_id, lower(period)));
	END IF;
	RETURN p;
END
$$;
COMMENT ON FUNCTION partner_portal.period_row(bigint, tstzrange) IS 'A billing period as stored, or as it would be if it were opened now. 22023 no billing period. Internal.';
REVOKE ALL ON FUNCTION partner_portal.period_row(bigint, tstzrange) FROM PUBLIC;

CREATE FUNCTION partner_portal.draft_invoices(periods partner_portal.billing_period[], as_of timestamptz) RETURNS SETOF bigint
	LANGUAGE sql
BEGIN ATOMIC
	DELETE FROM partner_portal.invoice_line l
	USING unnest(draft_invoices.periods) p, partner_portal.invoice i
	WHERE i.workspace_id = p.workspace_id AND i.period_start = p.period_start AND i.document = 'invoice' AND i.status = 'draft'
		AND l.workspace_id = i.workspace_id AND l.invoice_id = i.invoice_id;
	WITH lines AS MATERIALIZED (
		SELECT l.* FROM partner_portal.bill_lines(draft_invoices.periods) l
	), totals AS (
		SELECT l.workspace_id, l.period_start, sum(l.amount_minor)::bigint AS subtotal_minor,
			coalesce(max(l.quantity) FILTER (WHERE l.kind IS NULL AND l.measure LIKE '%\_keys'), sum(l.quantity) FILTER (WHERE l.measure LIKE '%\_keys'),
				max(l.distinct_keys) FILTER (WHERE l.kind IS NULL), sum(l.distinct_keys))::integer AS keys_billed
		FROM lines l WHERE l.type = 'usage' GROUP BY l.workspace_id, l.period_start
	), corrections AS (
		SELECT l.workspace_id, l.period_start, sum(l.amount_minor)::bigint AS subtotal_minor
		FROM lines l WHERE l.type = 'correction' GROUP BY l.workspace_id, l.period_start
	), made AS (
		INSERT INTO partner_portal.invoice AS i (workspace_id, period_start, period_end, period_label, time_zone, partner_key, issuer_key, payer_id, visibility,
			plan_id, plan_name, plan_version, zero_invoices, currency, minor_digits, issuer_name, issuer_address, issuer_tax_id,
			payer_name, payer_address, payer_tax_id, company_name, keys_billed, subtotal_minor, total_minor, known_at, finalize_after)
		SELECT h.workspace_id, h.period_start, h.period_end, h.period_label, h.time_zone, h.partner_key, h.issuer_key, h.payer_id, h.visibility,
			h.plan_id, h.plan_name, h.plan_version, h.zero_invoices, h.currency, h.minor_digits, h.issuer_name, h.issuer_address, h.issuer_tax_id,
			h.payer_name, h.payer_address, h.payer_tax_id, h.company_name, coalesce(t.keys_billed, 0),
			coalesce(t.subtotal_minor, 0) + coalesce(c.subtotal_minor, 0), coalesce(t.subtotal_minor, 0) + coalesce(c.subtotal_minor, 0), clock_timestamp(),
			greatest(h.period_end, CASE WHEN h.void_before THEN draft_invoices.as_of END) + current_setting('partner_portal.invoice_grace')::interval
		FROM (SELECT h.*, EXISTS (SELECT FROM partner_portal.invoice o WHERE o.workspace_id = h.workspace_id AND o.period_start = h.period_start
				AND o.document = 'invoice' AND o.status = 'void') AS void_before
			FROM partner_portal.bill_heads(draft_invoices.periods) h) h
		LEFT JOIN totals t ON t.workspace_id = h.workspace_id AND t.period_start = h.period_start
		LEFT JOIN corrections c ON c.workspace_id = h.workspace_id AND c.period_start = h.period_start
		ORDER BY h.workspace_id, h.period_start
		ON CONFLICT (workspace_id, period_start) WHERE document = 'invoice' AND status <> 'void' DO UPDATE SET
			issuer_name = excluded.issuer_name, issuer_address = excluded.issuer_address, issuer_tax_id = excluded.issuer_tax_id,
			payer_name = excluded.payer_name, payer_address = excluded.payer_address, payer_tax_id = excluded.payer_tax_id, company_name = excluded.company_name,
			keys_billed = excluded.keys_billed, subtotal_minor = excluded.subtotal_minor, total_minor = excluded.subtotal_minor + i.tax_minor, known_at = excluded.known_at
			WHERE i.status = 'draft'
		RETURNING i.workspace_id, i.invoice_id, i.period_start, i.partner_key, i.issuer_key, i.payer_id, i.workspace_sees, i.partner_sees
	), written AS (
		INSERT INTO partner_portal.invoice_line (workspace_id, invoice_id, line, partner_key, issuer_key, payer_id, workspace_sees, partner_sees, type,
			about_start, about_end, component, kind, measure, model, unit_price, package_size, tiers, minimum_minor, free_units, part_dates, whole_dates,
			quantity, text, amount_minor)
		SELECT m.workspace_id, m.invoice_id, l.line, m.partner_key, m.issuer_key, m.payer_id, m.workspace_sees, m.partner_sees, l.type,
			l.about_start, l.about_end, l.component, l.kind, l.measure, l.model, l.unit_price, l.package_size, l.tiers, l.minimum_minor, l.free_units,
			l.part_dates, l.whole_dates, l.quantity, l.text, l.amount_minor
		FROM made m JOIN lines l ON l.workspace_id = m.workspace_id AND l.period_start = m.period_start
	)
	SELECT m.invoice_id FROM made m;
END;
COMMENT ON FUNCTION partner_portal.draft_invoices(partner_portal.billing_period[], timestamptz) IS
'Makes or recomputes the drafts of periods; a period without a plan, or with a finished invoice, gets none. The caller holds the workspaces'' locks. Internal.';
REVOKE ALL ON FUNCTION partner_portal.draft_invoices(partner_portal.billing_period[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.finalize_documents(invoice_ids bigint[], as_of timestamptz) RETURNS SETOF partner_portal.billing_action
	LANGUAGE sql
BEGIN ATOMIC
	WITH due AS MATERIALIZED (
		SELECT d.*, row_number() OVER series AS place, count(*) OVER (PARTITION BY d.issuer_key, d.document, d.year, d.empty) AS documents
		FROM (
			SELECT i.workspace_id, i.invoice_id, i.period_start, i.issuer_key, i.document, day.date,
				i.document = 'invoice' AND i.total_minor = 0 AND NOT i.zero_invoices AS empty,
				CASE WHEN s.yearly THEN extract(year FROM day.date)::integer ELSE 0 END AS year, coalesce(s.number_prefix, '') AS prefix
			FROM partner_portal.invoice i
			LEFT JOIN partner_portal.workspace issuer ON issuer.workspace_id = i.issuer_key
			LEFT JOIN partner_portal.invoice_issuer s ON s.issuer_key = i.issuer_key
			CROSS JOIN LATERAL (SELECT (finalize_documents.as_of AT TIME ZONE coalesce(issuer.time_zone, 'UTC'))::date AS date) day
			WHERE i.invoice_id = ANY (finalize_documents.invoice_ids) AND i.status = 'draft'
		) d
		WINDOW series AS (PARTITION BY d.issuer_key, d.document, d.year, d.empty ORDER BY d.workspace_id, d.period_start, d.invoice_id)
	), series AS (
		INSERT INTO partner_portal.invoice_series AS s (issuer_key, document, year, last_number)
		SELECT d.issuer_key, d.document, d.year, count(*) FROM due d WHERE NOT d.empty
		GROUP BY d.issuer_key, d.document, d.year ORDER BY d.issuer_key, d.document, d.year
		ON CONFLICT ON CONSTRAINT invoice_series_pkey DO UPDATE SET last_number = s.last_number + excluded.last_number
		RETURNING s.issuer_key, s.document, s.year, s.last_number
	), done AS (
		UPDATE partner_portal.invoice i SET
			status = CASE WHEN d.empty THEN 'empty' ELSE 'final' END,
			finalized_at = clock_timestamp(), invoice_date = d.date, series_year = CASE WHEN NOT d.empty THEN d.year END,
			number = CASE WHEN NOT d.empty THEN s.last_number - d.documents + d.place END,
			invoice_number = CASE WHEN NOT d.empty THEN d.prefix || CASE d.document WHEN 'credit_note' THEN 'C' ELSE '' END
				|| CASE WHEN d.year > 0 THEN d.year || '-' ELSE '' END || (s.last_number - d.documents + d.place) END
		FROM due d LEFT JOIN series s ON s.issuer_key = d.issuer_key AND s.document = d.document AND s.year = d.year AND NOT d.empty
		WHERE i.workspace_id = d.workspace_id AND i.invoice_id = d.invoice_id AND i.status = 'draft'
		RETURNING i.workspace_id, i.period_start, i.period_end, i.invoice_id, i.status
	)
	SELECT d.workspace_id, tstzrange(d.period_start, d.period_end), d.invoice_id, CASE d.status WHEN 'empty' THEN 'empty' ELSE 'finalized' END, NULL::text
	FROM done d;
END;
COMMENT ON FUNCTION partner_portal.finalize_documents(bigint[], timestamptz) IS
'Finalizes drafts and gives them numbers: one count per series, series in order, as the last act. A total of zero becomes empty unless the plan asks for a document. The caller holds the workspaces'' locks. Internal.';
REVOKE ALL ON FUNCTION partner_portal.finalize_documents(bigint[], timestamptz) FROM PUBLIC;

CREATE FUNCTION partner_portal.owes_document(workspace_id bigint) RETURNS boolean
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT EXISTS (SELECT FROM partner_portal.invoice i WHERE i.workspace_id = owes_document.workspace_id AND i.status = 'draft')
		OR EXISTS (SELECT FROM partner_portal.billing_period p
			JOIN partner_portal.workspace w ON w.workspace_id = p.workspace_id AND p.period_end > w.billing_from
			CROSS JOIN LATERAL partner_portal.plan_at(p.workspace_id, p.partner_key, p.period_start)
			WHERE p.workspace_id = owes_document.workspace_id AND p.billed_at IS NULL);
END;
COMMENT ON FUNCTION partner_portal.owes_document(bigint) IS 'Whether a workspace has a draft, or a period under a plan that is not billed yet. Internal.';
REVOKE ALL ON FUNCTION partner_portal.owes_document(bigint) FROM PUBLIC;
