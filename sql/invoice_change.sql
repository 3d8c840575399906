-- invoice_change.sql: what people do with invoices: preview, finalize, tax, pay, void, credit and explain.

CREATE FUNCTION partner_portal.invoice_visible(i partner_portal.invoice) RETURNS boolean
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT partner_portal.is_operator()
		OR coalesce((i).workspace_id = partner_portal.own_workspace('read') AND (i).workspace_sees, false)
		OR coalesce((i).issuer_key BETWEEN partner_portal.lowest_partner_key() AND partner_portal.highest_partner_key(), false)
		OR coalesce((i).partner_key BETWEEN partner_portal.lowest_partner_key() AND partner_portal.highest_partner_key() AND (i).partner_sees, false)
		OR coalesce((i).payer_id BETWEEN partner_portal.lowest_partner_key() AND partner_portal.highest_partner_key(), false)
		OR coalesce((i).workspace_id = ANY (partner_portal.granted_workspaces('read')) AND (i).partner_key = partner_portal.current_partner_id() AND (i).partner_sees, false);
END;
COMMENT ON FUNCTION partner_portal.invoice_visible(partner_portal.invoice) IS 'Whether the identity may see a document: the policy of table invoice, for functions that run as its owner. Internal.';
REVOKE ALL ON FUNCTION partner_portal.invoice_visible(partner_portal.invoice) FROM PUBLIC;

CREATE FUNCTION partner_portal.authorized_invoice(permission text, invoice_id bigint) RETURNS partner_portal.invoice
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.invoice;
BEGIN
	IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
	END IF;
	SELECT i.* INTO asked FROM partner_portal.invoice i WHERE i.invoice_id = authorized_invoice.invoice_id;
	IF NOT FOUND OR asked.status = 'empty' OR NOT partner_portal.invoice_visible(asked) THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('invoice %s not found', coalesce(invoice_id::text, 'null'));
	END IF;
	IF permission = 'bill' THEN
		IF NOT partner_portal.is_operator() AND coalesce(asked.issuer_key NOT BETWEEN partner_portal.lowest_partner_key() AND partner_portal.highest_partner_key(), true) THEN
			RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('permission denied: only the issuer of invoice %s may do this', invoice_id);
		END IF;
		-- The locks of a billing run, in its order; facts that were on their way are in when they are granted.
		PERFORM FROM partner_portal.workspace w WHERE w.workspace_id = asked.workspace_id FOR NO KEY UPDATE;
		PERFORM FROM partner_portal.workspace_usage u WHERE u.workspace_id = asked.workspace_id FOR UPDATE;
		SELECT i.* INTO asked FROM partner_portal.invoice i WHERE i.workspace_id = asked.workspace_id AND i.invoice_id = asked.invoice_id FOR UPDATE;
		IF NOT FOUND THEN
			RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('invoice %s not found', invoice_id);
		END IF;
	END IF;
	RETURN asked;
END
$$;
COMMENT ON FUNCTION partner_portal.authorized_invoice(text, bigint) IS
'The document, if the identity may read it, or bill with it (then locked, with its workspace). 42501 nobody signed in, or not the issuer; P0002 absent or not visible. Internal.';
REVOKE ALL ON FUNCTION partner_portal.authorized_invoice(text, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.check_note(what text, note text) RETURNS void
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
BEGIN
	IF note IS NULL OR note !~ '\S' OR length(note) > 1000 OR partner_portal.has_controls(note) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('%s must have 1 to 1000 characters, none of them control characters', what);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.check_note(text, text) IS 'Returns for a text of 1 to 1000 characters; else 22023. Internal.';
REVOKE ALL ON FUNCTION partner_portal.check_note(text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.preview_invoice(workspace_id bigint, period tstzrange DEFAULT NULL)
	RETURNS TABLE (line integer, type text, about tstzrange, kind text, measure text, model text, quantity numeric, text text, amount_minor bigint,
		currency text, total_minor bigint, plan_id bigint, issuer_key bigint, payer_id bigint)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	asked tstzrange;
	p partner_portal.billing_period;
BEGIN
	PERFORM partner_portal.authorize('read', preview_invoice.workspace_id);
	asked := coalesce(preview_invoice.period, partner_portal.find_period(preview_invoice.workspace_id, now()));
	PERFORM partner_portal.check_period(asked);
	PERFORM partner_portal.check_period_visible(preview_invoice.workspace_id, asked);
	p := partner_portal.period_row(preview_invoice.workspace_id, asked);
	IF EXISTS (SELECT FROM partner_portal.bill_heads(ARRAY[p]) h WHERE NOT coalesce(
			partner_portal.is_operator()
			OR (h.workspace_id = partner_portal.own_workspace('read') AND (h.payer_id = h.workspace_id OR h.visibility = 'both'))
			OR h.issuer_key BETWEEN partner_portal.lowest_partner_key() AND partner_portal.highest_partner_key()
			OR h.payer_id BETWEEN partner_portal.lowest_partner_key() AND partner_portal.highest_partner_key()
			OR (h.partner_key = partner_portal.current_partner_id() AND (h.issuer_key = h.partner_key OR h.payer_id = h.partner_key OR h.visibility = 'both')), false)) THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'permission denied: invoices of this period are the payer''s to see';
	END IF;
	RETURN QUERY
	SELECT l.line, l.type, tstzrange(l.about_start, l.about_end), l.kind, l.measure, l.model, l.quantity, l.text, l.amount_minor, h.currency,
		(sum(l.amount_minor) OVER ())::bigint, h.plan_id, h.issuer_key, h.payer_id
	FROM partner_portal.bill_heads(ARRAY[p]) h
	JOIN partner_portal.bill_lines(ARRAY[p]) l ON l.workspace_id = h.workspace_id AND l.period_start = h.period_start
	ORDER BY l.line;
END
$$;
COMMENT ON FUNCTION partner_portal.preview_invoice(bigint, tstzrange) IS
'Lines of the invoice that a billing period (NULL: the current one) would have if it were made now, by the code that makes it; no row without a plan. amount_minor and total_minor, without tax, are minor units of the currency. 22023 no billing period; 42501 the payer''s alone to see; 42501, P0002 as authorize().';
REVOKE ALL ON FUNCTION partner_portal.preview_invoice(bigint, tstzrange) FROM PUBLIC;

CREATE FUNCTION partner_portal.finalize_invoice(invoice_id bigint) RETURNS partner_portal.invoice
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.invoice;
BEGIN
	asked := partner_portal.authorized_invoice('bill', invoice_id);
	IF asked.status <> 'draft' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP003', MESSAGE = format('invoice %s is %s', invoice_id, asked.status),
			DETAIL = format('It was finalized at %s with number %s.', asked.finalized_at, asked.invoice_number);
	END IF;
	PERFORM partner_portal.draft_invoices(array_agg(p), now()) FROM partner_portal.billing_period p
	WHERE p.workspace_id = asked.workspace_id AND p.period_start = asked.period_start;
	SELECT i.* INTO asked FROM partner_portal.invoice i WHERE i.workspace_id = asked.workspace_id AND i.invoice_id = asked.invoice_id;
	IF asked.taxed_subtotal_minor <> asked.subtotal_minor THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('the tax of invoice %s was set for another subtotal', invoice_id),
			DETAIL = format('The subtotal was %s minor units and is now %s.', asked.taxed_subtotal_minor, asked.subtotal_minor),
			HINT = 'Set it again with set_invoice_tax().';
	END IF;
	PERFORM partner_portal.finalize_documents(ARRAY[asked.invoice_id], now());
	SELECT i.* INTO asked FROM partner_portal.invoice i WHERE i.workspace_id = asked.workspace_id AND i.invoice_id = asked.invoice_id;
	RETURN asked;
END
$$;
COMMENT ON FUNCTION partner_portal.finalize_invoice(bigint) IS
'Recomputes a draft once more and makes it final, with the next number of its series, before its grace is over or where auto_finalize is off. PP003 it is finished; PP005 its tax was set for another subtotal; 42501 not the issuer; P0002 not found.';
REVOKE ALL ON FUNCTION partner_portal.finalize_invoice(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.set_invoice_tax(invoice_id bigint, tax_minor bigint, note text DEFAULT NULL) RETURNS partner_portal.invoice
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	asked partner_portal.invoice;
BEGIN
	asked := partner_portal.authorized_invoice('bill', invoice_id);
	IF tax_minor IS NULL OR tax_minor < 0 OR length(note) > 1000 OR partner_portal.has_controls(note) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'tax_minor must be zero or more, and the note at most 1000 characters';
	END IF;
	IF asked.status <> 'draft' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP003', MESSAGE = format('invoice %s is %s', invoice_id, asked.status),
			HINT = 'Tax is set while it is a draft.';
	END IF;
	PERFORM partner_portal.draft_invoices(array_agg(p), now()) FROM partner_portal.billing_period p
	WHERE p.workspace_id = asked.workspace_id AND p.period_start = asked.period_start;
	UPDATE partner_portal.invoice AS i SET tax_minor = set_invoice_tax.tax_minor, tax_note = note, taxed_subtotal_minor = i.subtotal_minor,
		total_minor = i.subtotal_minor + set_invoice_tax.tax_minor
	WHERE i.workspace_id = asked.workspace_id AND i.invoice_id = asked.invoice_id RETURNING i.* INTO asked;
	RETURN asked;
END
$$;
COMMENT ON FUNCTION partner_portal.set_invoice_tax(bigint, bigint, text) IS
'Recomputes a draft and sets its tax, in minor units, which the caller has worked out. If facts change the subtotal afterwards, the draft waits until the tax is set again. PP003 it is finished; 22023 negative; 42501, P0002 as finalize_invoice().';
REVOKE ALL ON FUNCTION partner_portal.set_invoice_tax(bigint, bigint, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.mark_paid(invoice_id bigint, at timestamptz DEFAULT now(), reference text DEFAULT NULL) RETURNS partner_portal.invoice
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.invoice;
BEGIN
	asked := partner_portal.authorized_invoice('bill', invoice_id);
	IF at IS NULL OR NOT at BETWEEN timestamptz '1900-01-01 00:00+00' AND clock_timestamp() OR length(reference) > 1000 OR partner_portal.has_controls(reference) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'at must be an instant in the past, and the reference at most 1000 characters';
	END IF;
	IF asked.status <> 'final' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('invoice %s is %s, not final', invoice_id, asked.status);
	END IF;
	PERFORM partner_portal.settle_invoice(asked.workspace_id, asked.invoice_id, 'paid', at, reference);
	SELECT i.* INTO asked FROM partner_portal.invoice i WHERE i.workspace_id = asked.workspace_id AND i.invoice_id = asked.invoice_id;
	RETURN asked;
END
$$;
COMMENT ON FUNCTION partner_portal.mark_paid(bigint, timestamptz, text) IS
'Notes that a final invoice was paid (or a credit note settled), when, and by what reference. PP005 it is not final; 22023 in the future; 42501, P0002 as finalize_invoice().';
REVOKE ALL ON FUNCTION partner_portal.mark_paid(bigint, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.void_invoice(invoice_id bigint, reason text, reissue boolean DEFAULT false) RETURNS partner_portal.invoice
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	asked partner_portal.invoice;
BEGIN
	asked := partner_portal.authorized_invoice('bill', invoice_id);
	PERFORM partner_portal.check_note('the reason', reason);
	IF asked.status <> 'final' OR asked.document <> 'invoice' THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005',
			MESSAGE = CASE asked.document WHEN 'invoice' THEN format('invoice %s is %s, not final', invoice_id, asked.status) ELSE 'a credit note cannot be made void' END,
			HINT = CASE asked.status WHEN 'paid' THEN 'A paid invoice is corrected with credit_invoice().' WHEN 'draft' THEN 'A draft is recomputed by itself.' ELSE 'Only final invoices are made void.' END;
	END IF;
	IF EXISTS (SELECT FROM partner_portal.invoice i WHERE i.workspace_id = asked.workspace_id AND i.credits_invoice_id = asked.invoice_id) THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('invoice %s has been credited', invoice_id),
			HINT = 'Credit the rest with credit_invoice().';
	END IF;
	PERFORM partner_portal.settle_invoice(asked.workspace_id, asked.invoice_id, 'void', clock_timestamp(), reason);
	IF reissue THEN
		PERFORM partner_portal.draft_invoices(array_agg(p), now()) FROM partner_portal.billing_period p
		WHERE p.workspace_id = asked.workspace_id AND p.period_start = asked.period_start;
	END IF;
	SELECT i.* INTO asked FROM partner_portal.invoice i WHERE i.workspace_id = asked.workspace_id AND i.invoice_id = asked.invoice_id;
	RETURN asked;
END
$$;
COMMENT ON FUNCTION partner_portal.void_invoice(bigint, text, boolean) IS
'Makes a final, uncredited invoice void; it keeps its number. With reissue a new draft of the period is made at once, else the period stays without an invoice. Corrections it carried are made again on the next one. PP005 not final, paid or credited; 22023 no reason; 42501, P0002 as finalize_invoice().';
REVOKE ALL ON FUNCTION partner_portal.void_invoice(bigint, text, boolean) FROM PUBLIC;

CREATE FUNCTION partner_portal.credit_invoice(invoice_id bigint, lines jsonb, reason text, tax_minor bigint DEFAULT 0) RETURNS partner_portal.invoice
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
COMMENT ON FUNCTION partner_portal.credit_invoice(bigint, jsonb, text, bigint) IS
'Issues a credit note for lines [{"line":1,"amount_minor":500,"text":"..."}] of a final or paid invoice, final at once, in a series of its own; per line at most what it charged and is not credited yet, tax likewise. 22023 more than that, or malformed; PP005 not final or paid; 42501, P0002 as finalize_invoice().';
REVOKE ALL ON FUNCTION partner_portal.credit_invoice(bigint, jsonb, text, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.explain_invoice(invoice_id bigint)
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
COMMENT ON FUNCTION partner_portal.explain_invoice(bigint) IS
'What is behind each line of a document, in one query: the line, its bands and fees (of a correction: those of the whole quantity now), the minimum, and every active stretch it was measured from, as known when the document was made, cut to the period. Amounts in major units, unrounded. 42501, P0002 as invoices are seen.';
REVOKE ALL ON FUNCTION partner_portal.explain_invoice(bigint) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.preview_invoice(bigint, tstzrange)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.finalize_invoice(bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.set_invoice_tax(bigint, bigint, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.mark_paid(bigint, timestamptz, text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.void_invoice(bigint, text, boolean)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.credit_invoice(bigint, jsonb, text, bigint)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.explain_invoice(bigint)');
