-- statement.sql: what a partner billed in a month, and whether billing is healthy.

CREATE FUNCTION partner_portal.money_text(minor numeric, digits integer) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
	SELECT round(money_text.minor * power(0.1::numeric, money_text.digits::numeric), money_text.digits)::text;
END;
COMMENT ON FUNCTION partner_portal.money_text(numeric, integer) IS 'Minor units as major units with the currency''s digits, as 2900 of CHF is 29.00.';
REVOKE ALL ON FUNCTION partner_portal.money_text(numeric, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.partner_statement(partner_id bigint DEFAULT NULL, month date DEFAULT (now() - interval '1 month')::date)
	RETURNS TABLE (workspace_id bigint, company_name text, relation text, currency text, documents bigint, invoice_numbers text, keys_billed bigint,
		invoiced_minor bigint, credited_minor bigint, tax_minor bigint, total_minor bigint, unpaid_minor bigint, drafts bigint)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	asked partner_portal.partner := partner_portal.authorized_partner(partner_statement.partner_id);
	zone text;
	since timestamptz;
	until timestamptz;
BEGIN
	IF partner_statement.month IS NULL OR partner_statement.month NOT BETWEEN date '1900-01-01' AND date '2999-11-30' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'month must be a date of the years 1900 to 2999';
	END IF;
	SELECT w.time_zone INTO zone FROM partner_portal.workspace w WHERE w.workspace_id = asked.partner_id;
	since := date_trunc('month', partner_statement.month::timestamp) AT TIME ZONE zone;
	until := (date_trunc('month', partner_statement.month::timestamp) + interval '1 month') AT TIME ZONE zone;
	RETURN QUERY
	WITH documents AS MATERIALIZED (
		SELECT i.*, CASE i.issuer_key WHEN asked.partner_id THEN 'issued' ELSE 'payable' END AS relation,
			CASE i.document WHEN 'invoice' THEN 1 ELSE -1 END AS sign
		FROM partner_portal.invoice i
		WHERE (i.issuer_key = asked.partner_id OR i.payer_id = asked.partner_id) AND i.period_end > since AND i.period_end <= until AND i.status <> 'empty'
	), customers AS (
		SELECT c.workspace_id, c.company_name FROM partner_portal.workspace c
		WHERE c.partner_key = asked.partner_id AND c.created_at < until AND coalesce(c.deleted_at >= since, true)
		UNION
		SELECT p.workspace_id, CASE c.partner_key WHEN asked.partner_id THEN c.company_name ELSE 'workspace ' || c.workspace_id END
		FROM partner_portal.billing_period p JOIN partner_portal.workspace c ON c.workspace_id = p.workspace_id
		WHERE p.partner_key = asked.partner_id AND p.period_end > since AND p.period_end <= until AND p.closed_at IS NOT NULL
	), lines AS (
		SELECT d.workspace_id, max(d.company_name) AS company_name, d.relation, d.currency,
			count(*) FILTER (WHERE d.status <> 'draft') AS documents,
			string_agg(d.invoice_number, ' ' ORDER BY d.document DESC, d.number) AS invoice_numbers,
			coalesce(sum(d.keys_billed) FILTER (WHERE d.document = 'invoice' AND d.status IN ('final', 'paid')), 0) AS keys_billed,
			coalesce(sum(d.subtotal_minor) FILTER (WHERE d.document = 'invoice' AND d.status IN ('final', 'paid')), 0) AS invoiced,
			coalesce(sum(d.subtotal_minor) FILTER (WHERE d.document = 'credit_note' AND d.status IN ('final', 'paid')), 0) AS credited,
			coalesce(sum(d.tax_minor * d.sign) FILTER (WHERE d.status IN ('final', 'paid')), 0) AS tax,
			coalesce(sum(d.total_minor * d.sign) FILTER (WHERE d.status IN ('final', 'paid')), 0) AS total,
			coalesce(sum(d.total_minor - d.credited) FILTER (WHERE d.status = 'final' AND d.document = 'invoice'), 0) AS unpaid,
			count(*) FILTER (WHERE d.status = 'draft') AS drafts
		FROM (SELECT d.*, coalesce((SELECT sum(n.total_minor) FROM partner_portal.invoice n
				WHERE n.workspace_id = d.workspace_id AND n.credits_invoice_id = d.invoice_id), 0) AS credited FROM documents d) d
		GROUP BY d.workspace_id, d.relation, d.currency
	)
	SELECT s.workspace_id, s.company_name, s.relation, s.currency, s.documents::bigint, s.invoice_numbers, s.keys_billed::bigint, s.invoiced::bigint, s.credited::bigint,
		s.tax::bigint, s.total::bigint, s.unpaid::bigint, s.drafts::bigint
	FROM (
		SELECT 1 AS place, l.* FROM lines l
		UNION ALL
		SELECT 1, c.workspace_id, c.company_name, 'issued', NULL, 0, NULL, 0, 0, 0, 0, 0, 0, 0 FROM customers c
		WHERE NOT EXISTS (SELECT FROM lines l WHERE l.workspace_id = c.workspace_id)
		UNION ALL
		SELECT 2, NULL, 'Total', l.relation, l.currency, sum(l.documents), NULL, sum(l.keys_billed), sum(l.invoiced), sum(l.credited), sum(l.tax), sum(l.total), sum(l.unpaid), sum(l.drafts)
		FROM lines l GROUP BY l.relation, l.currency
	) s
	ORDER BY s.place, s.relation, s.company_name, s.workspace_id, s.currency;
END
$$;
COMMENT ON FUNCTION partner_portal.partner_statement(bigint, date) IS
'A partner''s documents whose period ends in the month of a date, in the partner''s time zone (a period up to midnight of the 1st ends in the month before): one line per customer and currency, customers without a document too, and a total per currency (workspace_id NULL). issued by the partner, or payable by it as holder of the wallet; drafts are only counted; void ones count for nothing. Minor units. For the partner''s owner or administrator. 42501, P0002, PP005 no partner; 22023 month.';
REVOKE ALL ON FUNCTION partner_portal.partner_statement(bigint, date) FROM PUBLIC;

CREATE FUNCTION partner_portal.partner_statement_csv(partner_id bigint DEFAULT NULL, month date DEFAULT (now() - interval '1 month')::date) RETURNS text
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
BEGIN
	-- A name that a spreadsheet would take for a formula is kept a text.
	RETURN (SELECT E'workspace_id,company_name,relation,currency,documents,invoice_numbers,keys_billed,invoiced,credited,tax,total,unpaid,drafts\r\n'
			|| coalesce(string_agg(concat_ws(',', coalesce(s.workspace_id::text, ''),
				partner_portal.csv_field(CASE WHEN s.company_name ~ '^[=+@\t\r-]' THEN '''' ELSE '' END || s.company_name), s.relation, coalesce(s.currency, ''), s.documents,
				partner_portal.csv_field(coalesce(s.invoice_numbers, '')), s.keys_billed, partner_portal.money_text(s.invoiced_minor, s.digits), partner_portal.money_text(s.credited_minor, s.digits),
				partner_portal.money_text(s.tax_minor, s.digits), partner_portal.money_text(s.total_minor, s.digits), partner_portal.money_text(s.unpaid_minor, s.digits), s.drafts)
				|| E'\r\n', '' ORDER BY s.place), '')
		FROM (SELECT t.*, row_number() OVER () AS place, coalesce(c.minor_digits, 0) AS digits
			FROM partner_portal.partner_statement(partner_statement_csv.partner_id, partner_statement_csv.month) WITH ORDINALITY t
			LEFT JOIN partner_portal.currency c ON c.code = t.currency) s);
END
$$;
COMMENT ON FUNCTION partner_portal.partner_statement_csv(bigint, date) IS 'partner_statement() as CSV (RFC 4180) with a heading; amounts in major units. Errors as there.';
REVOKE ALL ON FUNCTION partner_portal.partner_statement_csv(bigint, date) FROM PUBLIC;

CREATE FUNCTION partner_portal.billing_health() RETURNS TABLE (workspace_id bigint, problem text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	lowest bigint := partner_portal.lowest_partner_key();
	highest bigint := partner_portal.highest_partner_key();
BEGIN
	IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
	END IF;
	RETURN QUERY
	SELECT h.workspace_id, h.problem FROM (
		SELECT p.workspace_id, p.partner_key, 1 AS place, format('period %s ended at %s and is not closed', p.label, p.period_end) AS problem
		FROM partner_portal.billing_period p WHERE p.closed_at IS NULL AND p.period_end <= now()
		UNION ALL
		SELECT w.workspace_id, w.partner_key, 1, 'no billing period is open'
		FROM partner_portal.workspace w
		WHERE w.deleted_at IS NULL AND NOT EXISTS (SELECT FROM partner_portal.billing_period p WHERE p.workspace_id = w.workspace_id AND p.period_end > now())
			AND NOT EXISTS (SELECT FROM partner_portal.billing_period p WHERE p.workspace_id = w.workspace_id AND p.closed_at IS NULL)
		UNION ALL
		SELECT p.workspace_id, p.partner_key, 2, format('period %s is closed and not billed', p.label)
		FROM partner_portal.billing_period p WHERE p.billed_at IS NULL AND p.closed_at IS NOT NULL
		UNION ALL
		SELECT i.workspace_id, i.issuer_key, 3, CASE
			WHEN i.taxed_subtotal_minor <> i.subtotal_minor THEN format('the tax of draft %s was set for another subtotal', i.invoice_id)
			WHEN w.auto_finalize THEN format('draft %s is past its grace, which ended at %s', i.invoice_id, i.finalize_after)
			ELSE format('draft %s waits to be finalized since %s', i.invoice_id, i.finalize_after) END
		FROM partner_portal.invoice i JOIN partner_portal.workspace w ON w.workspace_id = i.workspace_id
		WHERE i.status = 'draft' AND i.finalize_after <= now()
		UNION ALL
		SELECT f.workspace_id, f.partner_key, 4, format('the billing run of %s failed: %s: %s', f.failed_at, f.sqlstate, f.message)
		FROM partner_portal.billing_failure f
		UNION ALL
		-- late facts that no later document has taken up: the next one may, unless none will come from the same issuer
		SELECT i.workspace_id, i.issuer_key, 5, format('facts of period %s came at %s, after its invoice %s; no later invoice corrects it yet', p.label, p.late_facts_at, coalesce(i.invoice_number, 'over nothing'))
		FROM partner_portal.billing_period p
		JOIN partner_portal.invoice i ON i.workspace_id = p.workspace_id AND i.period_start = p.period_start AND i.document = 'invoice' AND i.status IN ('final', 'paid', 'empty')
		WHERE p.late_facts_at > i.known_at
			AND NOT EXISTS (SELECT FROM partner_portal.invoice n WHERE n.workspace_id = i.workspace_id AND n.document = 'invoice' AND n.status <> 'void'
				AND n.issuer_key = i.issuer_key AND n.payer_id = i.payer_id AND n.currency = i.currency AND n.period_start > i.period_start AND n.known_at > p.late_facts_at)
	) h
	WHERE h.partner_key BETWEEN lowest AND highest
	ORDER BY h.workspace_id, h.place, h.problem;
END
$$;
COMMENT ON FUNCTION partner_portal.billing_health() IS
'What billing owes: boundaries passed without their period closed or billed, drafts past their grace, tax set for another subtotal, workspaces that failed, late facts not corrected yet. No row is good. A partner''s owner or administrator sees its customers, the operator all. 42501 nobody signed in.';
REVOKE ALL ON FUNCTION partner_portal.billing_health() FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.partner_statement(bigint, date)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.partner_statement_csv(bigint, date)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.billing_health()');
