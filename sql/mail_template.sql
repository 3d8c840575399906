-- mail_template.sql: what mails say, in English and German, as text and as HTML for mail clients:
-- tables and inline styles only, no script, no picture; every value escaped.

CREATE FUNCTION partner_portal.mail_is_german(locale text) RETURNS boolean
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT coalesce(lower(locale) ~ '^de(-|$)', false);
END;
COMMENT ON FUNCTION partner_portal.mail_is_german(text) IS 'Whether mails of a locale are in German; all others are in English.';
REVOKE ALL ON FUNCTION partner_portal.mail_is_german(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_page(locale text, title text, body text) RETURNS text
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT '<!DOCTYPE html><html lang="' || CASE WHEN partner_portal.mail_is_german(locale) THEN 'de' ELSE 'en' END || '"><head><meta charset="utf-8">'
		|| '<meta name="viewport" content="width=device-width, initial-scale=1"><title>' || partner_portal.html_of(title) || '</title></head>'
		|| '<body style="margin:0;padding:0;background:#f2f4f7">'
		|| '<table role="presentation" width="100%" cellpadding="0" cellspacing="0" style="background:#f2f4f7"><tr><td align="center" style="padding:12px">'
		|| '<table role="presentation" width="100%" cellpadding="0" cellspacing="0" style="max-width:600px;background:#ffffff;border:1px solid #d5dae1">'
		|| '<tr><td style="padding:20px;font-family:Arial,Helvetica,sans-serif;font-size:15px;line-height:1.45;color:#1b2430">'
		|| '<h1 style="margin:0 0 12px;font-size:20px;line-height:1.3">' || partner_portal.html_of(title) || '</h1>'
		|| body || '</td></tr></table></td></tr></table></body></html>';
END;
COMMENT ON FUNCTION partner_portal.mail_page(text, text, text) IS 'A mail''s HTML page around a body that is HTML already.';
REVOKE ALL ON FUNCTION partner_portal.mail_page(text, text, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_table(heads text[], cells text[]) RETURNS text
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT '<table width="100%" cellpadding="6" cellspacing="0" style="border-collapse:collapse;font-size:14px"><tr>'
		|| (SELECT string_agg('<th align="' || CASE WHEN n = cardinality(heads) AND n > 1 THEN 'right' ELSE 'left' END
				|| '" style="border-bottom:2px solid #1b2430">' || partner_portal.html_of(h) || '</th>', '' ORDER BY n)
			FROM unnest(heads) WITH ORDINALITY AS t (h, n)) || '</tr>'
		|| coalesce((SELECT string_agg(CASE WHEN (n - 1) % cardinality(heads) = 0 THEN '<tr>' ELSE '' END
				|| '<td align="' || CASE WHEN n % cardinality(heads) = 0 AND cardinality(heads) > 1 THEN 'right' ELSE 'left' END
				|| '" style="border-bottom:1px solid #d5dae1;' || CASE WHEN n % cardinality(heads) = 0 AND cardinality(heads) > 1 THEN 'white-space:nowrap' ELSE 'word-break:break-word' END || '">' || coalesce(nullif(partner_portal.html_of(c), ''), '&nbsp;') || '</td>'
				|| CASE WHEN n % cardinality(heads) = 0 THEN '</tr>' ELSE '' END, '' ORDER BY n)
			FROM unnest(cells) WITH ORDINALITY AS t (c, n)), '') || '</table>';
END;
COMMENT ON FUNCTION partner_portal.mail_table(text[], text[]) IS 'An HTML table of cells, row by row; the last column is aligned to the right.';
REVOKE ALL ON FUNCTION partner_portal.mail_table(text[], text[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_bars(labels text[], counts integer[]) RETURNS text
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT '<table width="100%" cellpadding="3" cellspacing="0" style="border-collapse:collapse;font-size:13px">'
		|| string_agg('<tr><td width="34%" style="word-break:break-word">' || partner_portal.html_of(b.label) || '</td><td width="54%">'
			|| CASE WHEN b.width = 0 THEN '&nbsp;' ELSE '<table role="presentation" width="' || b.width || '%" cellpadding="0" cellspacing="0"><tr><td bgcolor="'
				|| CASE WHEN b.n = cardinality(labels) THEN '#0b5cad' ELSE '#7fa9d4' END
				|| '" style="height:14px;line-height:14px;font-size:1px">&nbsp;</td></tr></table>' END
			|| '</td><td width="12%" align="right">' || b.keys || '</td></tr>', '' ORDER BY b.n) || '</table>'
	FROM (SELECT l.label, l.keys, l.n,
			CASE WHEN l.keys <= 0 THEN 0 ELSE greatest(1, round(100.0 * l.keys / max(l.keys) OVER ()))::integer END AS width
		FROM unnest(labels, counts) WITH ORDINALITY AS l (label, keys, n)) b;
END;
COMMENT ON FUNCTION partner_portal.mail_bars(text[], integer[]) IS 'A bar chart of table cells: a label, a bar and the count per row, the last row in the strong colour.';
REVOKE ALL ON FUNCTION partner_portal.mail_bars(text[], integer[]) FROM PUBLIC;

CREATE FUNCTION partner_portal.mail_new_keys(locale text, company_name text, day date, kinds text[], serials text[], labels text[]) RETURNS partner_portal.mail_content
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT ROW(w.title, w.sentence || E'\n\n' || k.lines || E'\n',
		partner_portal.mail_page(mail_new_keys.locale, w.title, '<p>' || partner_portal.html_of(w.sentence) || '</p>' || partner_portal.mail_table(w.heads, k.cells)))::partner_portal.mail_content
	FROM (SELECT CASE WHEN partner_portal.mail_is_german(mail_new_keys.locale)
				THEN format('%s: neue Sicherheitsschlüssel am %s', company_name, to_char(day, 'DD.MM.YYYY'))
				ELSE format('%s: security keys added on %s', company_name, to_char(day, 'YYYY-MM-DD')) END AS title,
			CASE WHEN partner_portal.mail_is_german(mail_new_keys.locale)
				THEN format('An diesem Tag sind bei %s %s Schlüssel hinzugekommen:', company_name, cardinality(serials))
				ELSE format('On this day %s key(s) were added at %s:', cardinality(serials), company_name) END AS sentence,
			CASE WHEN partner_portal.mail_is_german(mail_new_keys.locale) THEN '{Art,Seriennummer,Bezeichnung}'::text[] ELSE '{Kind,Serial,Label}'::text[] END AS heads) w,
		(SELECT string_agg(format('- %s, %s%s', t.kind, t.serial, coalesce(', ' || t.label, '')), E'\n' ORDER BY t.n) FILTER (WHERE c.n = 1) AS lines,
			array_agg(c.cell ORDER BY t.n, c.n) AS cells
		FROM (SELECT CASE s.kind WHEN 'smartphone' THEN 'Smartphone'
					ELSE CASE WHEN partner_portal.mail_is_german(mail_new_keys.locale) THEN 'Kontaktlose Karte' ELSE 'Contactless card' END END AS kind, s.serial, s.label, s.n
				FROM unnest(kinds, serials, labels) WITH ORDINALITY AS s (kind, serial, label, n)) t
		CROSS JOIN LATERAL (VALUES (t.kind, 1), (t.serial, 2), (coalesce(t.label, ''), 3)) AS c (cell, n)) k;
END;
COMMENT ON FUNCTION partner_portal.mail_new_keys(text, text, date, text[], text[], text[]) IS 'The daily list of keys added to a workspace.';
REVOKE ALL ON FUNCTION partner_portal.mail_new_keys(text, text, date, text[], text[], text[]) FROM PUBLIC;

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

CREATE FUNCTION partner_portal.mail_notice(locale text, title text, sentences text[]) RETURNS partner_portal.mail_content
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT partner_portal.mail_letter(locale, title, sentences);
END;
COMMENT ON FUNCTION partner_portal.mail_notice(text, text, text[]) IS 'A mail of a title and a few sentences.';
REVOKE ALL ON FUNCTION partner_portal.mail_notice(text, text, text[]) FROM PUBLIC;

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

CREATE FUNCTION partner_portal.mail_limit_alert(locale text, company_name text, threshold integer, active_keys integer, key_limit integer, hard boolean DEFAULT true) RETURNS partner_portal.mail_content
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT CASE WHEN partner_portal.mail_is_german(locale) THEN
		partner_portal.mail_notice(locale, format('%s: %s %% der Schlüsselgrenze erreicht', company_name, threshold),
			ARRAY[format('Bei %s sind %s von höchstens %s Sicherheitsschlüsseln aktiv.', company_name, active_keys, key_limit),
				CASE WHEN NOT hard THEN 'Die Grenze wird nur gemeldet: weitere Schlüssel lassen sich aktivieren.' WHEN threshold >= 100 THEN 'Weitere Schlüssel lassen sich nicht aktivieren, solange die Grenze gilt.' ELSE 'Ist die Grenze erreicht, lassen sich keine weiteren aktivieren.' END])
		ELSE
		partner_portal.mail_notice(locale, format('%s: %s %% of the key limit reached', company_name, threshold),
			ARRAY[format('%s of at most %s security keys are active at %s.', active_keys, key_limit, company_name),
				CASE WHEN NOT hard THEN 'The limit is reported only: further keys can be activated.' WHEN threshold >= 100 THEN 'No further key can be activated while the limit is in force.' ELSE 'When the limit is reached, no further key can be activated.' END]) END;
END;
COMMENT ON FUNCTION partner_portal.mail_limit_alert(text, text, integer, integer, integer, boolean) IS 'The alert that a workspace reached 80 or 100 percent of its limit.';
REVOKE ALL ON FUNCTION partner_portal.mail_limit_alert(text, text, integer, integer, integer, boolean) FROM PUBLIC;

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

CREATE FUNCTION partner_portal.mail_billing_report(locale text, company_name text, period_label text, invoice_number text, currency text,
	line_texts text[], line_amounts text[], total text, history_labels text[], history_keys integer[]) RETURNS partner_portal.mail_content
	LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	SELECT ROW(w.title,
		w.sentence || E'\n\n' || (SELECT string_agg(format('- %s: %s %s', l.what, l.amount, currency), E'\n' ORDER BY l.n)
				FROM unnest(line_texts, line_amounts) WITH ORDINALITY AS l (what, amount, n))
			|| format(E'\n%s: %s %s\n\n%s\n', w.total, mail_billing_report.total, currency, w.history)
			|| (SELECT string_agg(format('- %s: %s', h.label, h.keys), E'\n' ORDER BY h.n) FROM unnest(history_labels, history_keys) WITH ORDINALITY AS h (label, keys, n)) || E'\n',
		partner_portal.mail_page(locale, w.title, '<p>' || partner_portal.html_of(w.sentence) || '</p>'
			|| partner_portal.mail_table(ARRAY[w.item, currency],
				(SELECT array_agg(c.cell ORDER BY l.n, c.n) FROM unnest(line_texts, line_amounts) WITH ORDINALITY AS l (what, amount, n)
					CROSS JOIN LATERAL (VALUES (l.what, 1), (l.amount, 2)) AS c (cell, n)) || ARRAY[w.total, mail_billing_report.total])
			|| '<h2 style="margin:20px 0 8px;font-size:16px">' || partner_portal.html_of(w.history) || '</h2>'
			|| partner_portal.mail_bars(history_labels, history_keys)))::partner_portal.mail_content
	FROM (SELECT CASE WHEN de THEN format('%s: Abrechnung %s', company_name, period_label) ELSE format('%s: billing report %s', company_name, period_label) END AS title,
			CASE WHEN de THEN format('Die Rechnung %s für den Zeitraum %s ist ausgestellt.', invoice_number, period_label)
				ELSE format('Invoice %s for the period %s has been issued.', invoice_number, period_label) END AS sentence,
			CASE WHEN de THEN 'Position' ELSE 'Item' END AS item,
			CASE WHEN de THEN 'Gesamt' ELSE 'Total' END AS total,
			CASE WHEN de THEN 'Schlüssel je Abrechnungszeitraum' ELSE 'Keys per billing period' END AS history
		FROM partner_portal.mail_is_german(locale) AS de) w;
END;
COMMENT ON FUNCTION partner_portal.mail_billing_report(text, text, text, text, text, text[], text[], text, text[], integer[]) IS
'The monthly billing report: a table of the invoice''s lines and a bar chart of the keys per period, oldest first.';
REVOKE ALL ON FUNCTION partner_portal.mail_billing_report(text, text, text, text, text, text[], text[], text, text[], integer[]) FROM PUBLIC;
