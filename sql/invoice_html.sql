-- invoice_html.sql: a document as a page to print. SQL/XML functions write it, so that every value is escaped.
-- No element but void ones may be empty: HTML does not know the short form <td/>.

CREATE FUNCTION partner_portal.invoice_bars(shown partner_portal.invoice) RETURNS xml
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT xmlelement(name figure,
		xmlelement(name figcaption, 'Keys per billing period'),
		xmlelement(name svg, xmlattributes('http://www.w3.org/2000/svg' AS xmlns, 'img' AS role, '0 0 720 190' AS "viewBox",
				'Keys per billing period: ' || string_agg(b.label || ' ' || b.keys, ', ' ORDER BY b.period_start) AS "aria-label"),
			xmlagg(xmlconcat(
				xmlelement(name rect, xmlattributes(b.place * 60 + 10 AS x, 150 - b.height AS y, 40 AS width, greatest(b.height, 1) AS height,
					CASE WHEN b.period_start = (shown).period_start THEN 'bar now' ELSE 'bar' END AS class)),
				xmlelement(name text, xmlattributes(b.place * 60 + 30 AS x, 144 - b.height AS y, 'middle' AS "text-anchor"), b.keys),
				xmlelement(name text, xmlattributes(b.place * 60 + 30 AS x, 168 AS y, 'middle' AS "text-anchor", 'when' AS class), to_char(b.last_day, 'YYYY-MM')),
				xmlelement(name text, xmlattributes(b.place * 60 + 30 AS x, 182 AS y, 'middle' AS "text-anchor", 'when' AS class), 'to ' || to_char(b.last_day, 'DD'))
			) ORDER BY b.period_start)))
	FROM (
		SELECT p.period_start, p.label, p.keys, row_number() OVER (ORDER BY p.period_start) - 1 AS place,
			p.keys * 120 / greatest(max(p.keys) OVER (), 1) AS height, ((p.period_end - interval '1 microsecond') AT TIME ZONE p.time_zone)::date AS last_day
		FROM (
			SELECT b.period_start, b.period_end, b.label, b.time_zone, coalesce(i.keys_billed, u.distinct_keys) AS keys
			FROM partner_portal.billing_period b
			JOIN partner_portal.usage_period u ON u.workspace_id = b.workspace_id AND u.period_start = b.period_start AND u.kind = 'total'
			LEFT JOIN partner_portal.invoice i ON i.workspace_id = b.workspace_id AND i.period_start = b.period_start AND i.document = 'invoice' AND i.status <> 'void'
			WHERE b.workspace_id = (shown).workspace_id AND b.partner_key = (shown).partner_key AND b.period_start <= (shown).period_start
			ORDER BY b.period_start DESC LIMIT 12
		) p
	) b;
END;
COMMENT ON FUNCTION partner_portal.invoice_bars(partner_portal.invoice) IS 'Bar chart of the keys of the last twelve billing periods up to a document''s own, under the same partner. Internal.';
REVOKE ALL ON FUNCTION partner_portal.invoice_bars(partner_portal.invoice) FROM PUBLIC;

CREATE FUNCTION partner_portal.invoice_page_lines(shown partner_portal.invoice) RETURNS xml
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT xmlagg(xmlconcat(
		xmlelement(name tr, xmlattributes('line' AS class),
			xmlelement(name td, l.line),
			xmlelement(name td, l.text, CASE WHEN l.measure IS NOT NULL THEN xmlelement(name small, format(' (%s, %s)', replace(l.measure, '_', ' '), replace(l.model, '_', ' '))) END),
			xmlelement(name td, xmlattributes('number' AS class), coalesce(l.quantity::text, ' ')),
			xmlelement(name td, xmlattributes('number' AS class), ' '),
			xmlelement(name td, xmlattributes('number' AS class), partner_portal.money_text(l.amount_minor, (shown).minor_digits))),
		b.rows) ORDER BY l.line)
	FROM partner_portal.invoice_line l
	LEFT JOIN LATERAL (
		SELECT xmlagg(xmlelement(name tr, xmlattributes('band' AS class),
			xmlelement(name td, ' '),
			xmlelement(name td, replace(regexp_replace(regexp_replace(r.band, '\((.*),(.*)\]', 'above \1, up to \2'), '\((.*),\)', 'above \1'), 'flat', 'fee'),
				CASE WHEN r.shared AND l.part_dates <> l.whole_dates THEN format(', %s of %s dates', l.part_dates, l.whole_dates) END),
			xmlelement(name td, xmlattributes('number' AS class), coalesce(trim_scale(r.band_quantity)::text, ' ')),
			xmlelement(name td, xmlattributes('number' AS class), coalesce(trim_scale(r.unit_price)::text, ' ')),
			xmlelement(name td, xmlattributes('number' AS class),
				trim_scale(round(CASE WHEN r.shared THEN r.amount * l.part_dates / l.whole_dates ELSE r.amount END, 12))::text)) ORDER BY r.no) AS rows
		FROM (
			SELECT b.* FROM partner_portal.rate_bands(l.model, l.unit_price, l.package_size, l.tiers, l.free_units, l.quantity) b
			UNION ALL
			SELECT 1000000, 'at least', NULL, NULL, l.minimum_minor * power(0.1::numeric, (shown).minor_digits::numeric), true WHERE l.minimum_minor > 0
		) r
		WHERE l.type = 'usage'
	) b ON true
	WHERE l.workspace_id = (shown).workspace_id AND l.invoice_id = (shown).invoice_id;
END;
COMMENT ON FUNCTION partner_portal.invoice_page_lines(partner_portal.invoice) IS 'Rows of the table of a document''s lines and their bands. Internal.';
REVOKE ALL ON FUNCTION partner_portal.invoice_page_lines(partner_portal.invoice) FROM PUBLIC;

CREATE FUNCTION partner_portal.invoice_html(invoice_id bigint) RETURNS text
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
COMMENT ON FUNCTION partner_portal.invoice_html(bigint) IS
'A document as a complete HTML page to print: parties, period, lines with their bands, totals, and a bar per period of the last twelve. Every value escaped; no script, nothing loaded from elsewhere. 42501, P0002 as invoices are seen.';
REVOKE ALL ON FUNCTION partner_portal.invoice_html(bigint) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.invoice_html(bigint)');
