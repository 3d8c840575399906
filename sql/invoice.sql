-- invoice.sql: invoices and credit notes, their lines, series of numbers, and what keeps them as they are.
-- They are documents: they carry the issuer, the payer and the partner of their own time, and follow no transfer.

CREATE TABLE partner_portal.invoice_issuer (
	issuer_key bigint NOT NULL,
	name text,
	address text,
	tax_id text,
	number_prefix text NOT NULL DEFAULT '',
	yearly boolean NOT NULL DEFAULT false,
	CONSTRAINT invoice_issuer_pkey PRIMARY KEY (issuer_key),
	CONSTRAINT invoice_issuer_name CHECK (length(name) BETWEEN 1 AND 200 AND name ~ '\S'),
	CONSTRAINT invoice_issuer_address CHECK (length(address) <= 1000),
	CONSTRAINT invoice_issuer_tax_id CHECK (length(tax_id) <= 100),
	CONSTRAINT invoice_issuer_number_prefix CHECK (number_prefix ~ '^[A-Za-z0-9./_-]{0,20}$')
);
COMMENT ON TABLE partner_portal.invoice_issuer IS
'What an issuer (a partner, or 0 the platform) wants on its documents; what is NULL is taken from the partner''s workspace. Set by set_invoice_issuer().';
COMMENT ON COLUMN partner_portal.invoice_issuer.yearly IS 'Whether the numbers of a series begin anew every year, of the issuer''s time zone.';

CREATE TABLE partner_portal.invoice_series (
	issuer_key bigint NOT NULL,
	document text NOT NULL,
	year integer NOT NULL,
	last_number bigint NOT NULL,
	first_number bigint NOT NULL DEFAULT 1,
	CONSTRAINT invoice_series_pkey PRIMARY KEY (issuer_key, document, year),
	CONSTRAINT invoice_series_last_number CHECK (last_number >= 0),
	CONSTRAINT invoice_series_first_number CHECK (first_number BETWEEN 1 AND last_number + 1)
);
COMMENT ON TABLE partner_portal.invoice_series IS 'The last number given per issuer, document and year (0 is all years): counted up as the last act of finalizing, so that there is no gap.';
COMMENT ON COLUMN partner_portal.invoice_series.first_number IS 'Number of the first document here, 1 but for what start_invoice_series() says; last_number is one less as long as there is none.';

CREATE TABLE partner_portal.invoice (
	workspace_id bigint NOT NULL,
	invoice_id bigint GENERATED ALWAYS AS IDENTITY,
	document text NOT NULL DEFAULT 'invoice',
	credits_invoice_id bigint,
	period_start timestamptz NOT NULL,
	period_end timestamptz NOT NULL,
	period_label text NOT NULL,
	time_zone text NOT NULL,
	status text NOT NULL DEFAULT 'draft',
	partner_key bigint NOT NULL,
	issuer_key bigint NOT NULL,
	payer_id bigint NOT NULL,
	visibility text NOT NULL,
	workspace_sees boolean NOT NULL GENERATED ALWAYS AS (payer_id = workspace_id OR visibility = 'both') STORED,
	partner_sees boolean NOT NULL GENERATED ALWAYS AS (issuer_key = partner_key OR payer_id = partner_key OR visibility = 'both') STORED,
	plan_id bigint NOT NULL,
	plan_name text NOT NULL,
	plan_version integer NOT NULL,
	zero_invoices boolean NOT NULL,
	currency text NOT NULL,
	minor_digits integer NOT NULL,
	issuer_name text NOT NULL,
	issuer_address text,
	issuer_tax_id text,
	payer_name text NOT NULL,
	payer_address text,
	payer_tax_id text,
	company_name text NOT NULL,
	keys_billed integer NOT NULL,
	subtotal_minor bigint NOT NULL,
	tax_minor bigint NOT NULL DEFAULT 0,
	tax_note text,
	taxed_subtotal_minor bigint,
	total_minor bigint NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	known_at timestamptz NOT NULL,
	finalize_after timestamptz NOT NULL,
	finalized_at timestamptz,
	invoice_date date,
	series_year integer,
	number bigint,
	invoice_number text,
	reason text,
	settled_at timestamptz,
	settled_note text,
	digest_salt uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
	CONSTRAINT invoice_pkey PRIMARY KEY (workspace_id, invoice_id),
	CONSTRAINT invoice_period FOREIGN KEY (workspace_id, period_start) REFERENCES partner_portal.billing_period (workspace_id, period_start),
	CONSTRAINT invoice_plan FOREIGN KEY (issuer_key, plan_id) REFERENCES partner_portal.price_plan (partner_key, plan_id),
	CONSTRAINT invoice_credits FOREIGN KEY (workspace_id, credits_invoice_id) REFERENCES partner_portal.invoice (workspace_id, invoice_id),
	CONSTRAINT invoice_number_key UNIQUE (issuer_key, document, series_year, number),
	CONSTRAINT invoice_document CHECK (document IN ('invoice', 'credit_note') AND (document = 'credit_note') = (credits_invoice_id IS NOT NULL)),
	CONSTRAINT invoice_status CHECK (status IN ('draft', 'final', 'paid', 'void', 'empty')),
	CONSTRAINT invoice_visibility CHECK (visibility IN ('payer', 'both')),
	CONSTRAINT invoice_bounds CHECK (period_start < period_end),
	CONSTRAINT invoice_numbered CHECK (CASE WHEN status IN ('final', 'paid', 'void') THEN number >= 1 AND series_year IS NOT NULL AND invoice_number IS NOT NULL
		AND finalized_at IS NOT NULL AND invoice_date IS NOT NULL ELSE number IS NULL AND invoice_number IS NULL END),
	CONSTRAINT invoice_settled CHECK ((status IN ('paid', 'void')) = (settled_at IS NOT NULL)),
	CONSTRAINT invoice_tax CHECK (tax_minor >= 0 AND length(tax_note) <= 1000),
	CONSTRAINT invoice_total CHECK (total_minor = subtotal_minor + tax_minor),
	CONSTRAINT invoice_notes CHECK (length(reason) <= 1000 AND length(settled_note) <= 1000)
);
CREATE UNIQUE INDEX invoice_one_per_period ON partner_portal.invoice (workspace_id, period_start) WHERE document = 'invoice' AND status <> 'void';
CREATE INDEX invoice_invoice_id ON partner_portal.invoice (invoice_id);
CREATE INDEX invoice_draft ON partner_portal.invoice (workspace_id) WHERE status = 'draft';
CREATE INDEX invoice_issuer_period_idx ON partner_portal.invoice (issuer_key, period_end);
CREATE INDEX invoice_partner_key_idx ON partner_portal.invoice (partner_key);
CREATE INDEX invoice_payer_idx ON partner_portal.invoice (payer_id, period_end);
CREATE INDEX invoice_credits_idx ON partner_portal.invoice (workspace_id, credits_invoice_id) WHERE credits_invoice_id IS NOT NULL;
COMMENT ON TABLE partner_portal.invoice IS
'Invoices and credit notes. A draft is recomputed until it is final: then it has a number and never changes (PP003), but for becoming paid or void. Amounts are minor units of the currency; those of a credit note are positive too.';
COMMENT ON COLUMN partner_portal.invoice.status IS 'draft, final, paid, void, or empty: a total of zero under a plan that asks for no document; it has no number and is in no list.';
COMMENT ON COLUMN partner_portal.invoice.partner_key IS 'Partner of the workspace in the period, 0 for none; it does not follow a transfer.';
COMMENT ON COLUMN partner_portal.invoice.issuer_key IS 'Who issues it: owner of the plan, 0 the platform.';
COMMENT ON COLUMN partner_portal.invoice.payer_id IS 'Workspace that pays: its own, or the partner that held its wallet at the period''s start.';
COMMENT ON COLUMN partner_portal.invoice.visibility IS 'workspace.invoice_visibility at the period''s start: seen by the payer alone or by both; the issuer sees it in any case.';
COMMENT ON COLUMN partner_portal.invoice.keys_billed IS 'Keys of the period: the billed quantity if it is a number of keys, else the different keys.';
COMMENT ON COLUMN partner_portal.invoice.taxed_subtotal_minor IS 'Subtotal when the tax was set; a draft whose subtotal has changed since is not finalized by itself.';
COMMENT ON COLUMN partner_portal.invoice.known_at IS 'Facts known by this instant are billed; later ones are corrected on the next invoice.';
COMMENT ON COLUMN partner_portal.invoice.finalize_after IS 'End of the grace: from then on a run finalizes it, unless auto_finalize is off.';
COMMENT ON COLUMN partner_portal.invoice.invoice_date IS 'Date of the document in the issuer''s time zone.';
COMMENT ON COLUMN partner_portal.invoice.series_year IS 'Year of its series, 0 if the series runs on.';
COMMENT ON COLUMN partner_portal.invoice.reason IS 'Of a credit note: why.';
COMMENT ON COLUMN partner_portal.invoice.settled_at IS 'When it was paid or made void.';
COMMENT ON COLUMN partner_portal.invoice.settled_note IS 'Reference of the payment, or why it is void.';
COMMENT ON COLUMN partner_portal.invoice.digest_salt IS 'Random; part of the digest in the activity log, so that who reads the log but may not see the document cannot guess its amounts from it.';

-- No foreign key to invoice: it would answer a TRUNCATE before the guard does. invoice_line_guard() and invoice_lines_of_draft()
-- keep lines and documents together.
CREATE TABLE partner_portal.invoice_line (
	workspace_id bigint NOT NULL,
	invoice_id bigint NOT NULL,
	line integer NOT NULL,
	partner_key bigint NOT NULL,
	issuer_key bigint NOT NULL,
	payer_id bigint NOT NULL,
	workspace_sees boolean NOT NULL,
	partner_sees boolean NOT NULL,
	type text NOT NULL,
	about_start timestamptz NOT NULL,
	about_end timestamptz NOT NULL,
	component integer,
	kind text,
	measure text,
	model text,
	unit_price numeric,
	package_size integer,
	tiers jsonb,
	minimum_minor bigint,
	free_units integer,
	part_dates integer,
	whole_dates integer,
	quantity numeric,
	credits_line integer,
	text text NOT NULL,
	amount_minor bigint NOT NULL,
	CONSTRAINT invoice_line_pkey PRIMARY KEY (workspace_id, invoice_id, line),
	CONSTRAINT invoice_line_type CHECK (type IN ('usage', 'correction', 'credit')),
	CONSTRAINT invoice_line_terms CHECK (type = 'credit' OR (component IS NOT NULL AND measure IS NOT NULL AND model IS NOT NULL AND minimum_minor IS NOT NULL
		AND free_units IS NOT NULL AND part_dates IS NOT NULL AND whole_dates > 0 AND quantity IS NOT NULL)),
	CONSTRAINT invoice_line_credit CHECK ((type = 'credit') = (credits_line IS NOT NULL) AND (type <> 'credit' OR amount_minor > 0)),
	CONSTRAINT invoice_line_text CHECK (length(text) BETWEEN 1 AND 1000)
);
CREATE INDEX invoice_line_about_idx ON partner_portal.invoice_line (workspace_id, about_start);
COMMENT ON TABLE partner_portal.invoice_line IS
'Lines of invoices and credit notes, with a copy of everything that made the amount: quantity, measure, model and prices. amount_minor is rounded once, half away from zero; the total is the sum.';
COMMENT ON COLUMN partner_portal.invoice_line.type IS 'usage of the period; correction of an earlier one for facts that came late; credit, on a credit note.';
COMMENT ON COLUMN partner_portal.invoice_line.about_start IS 'Start of the period the line is about: an earlier one for a correction.';
COMMENT ON COLUMN partner_portal.invoice_line.kind IS 'Kind of key that is priced; NULL all keys together.';
COMMENT ON COLUMN partner_portal.invoice_line.quantity IS 'What is billed; of a correction, the difference to what was billed before.';
COMMENT ON COLUMN partner_portal.invoice_line.part_dates IS 'Local dates of the period out of whole_dates of the whole one it is a part of: its share of flat fees and of the minimum.';

ALTER TABLE partner_portal.invoice_issuer ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.invoice_series ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.invoice ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.invoice_line ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.invoice_issuer AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.invoice_issuer FOR SELECT
	USING (issuer_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

CREATE POLICY signed_in ON partner_portal.invoice_series AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.invoice_series FOR SELECT
	USING (issuer_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

-- The workspace's people; the issuer, also after a transfer; the partner of that time; the payer; the partner's staff.
CREATE POLICY signed_in ON partner_portal.invoice AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.invoice FOR SELECT
	USING ((workspace_id = (SELECT partner_portal.own_workspace('read')) AND workspace_sees)
		OR issuer_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR (partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()) AND partner_sees)
		OR payer_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR (workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[])
			AND partner_key = (SELECT partner_portal.current_partner_id()) AND partner_sees));

CREATE POLICY signed_in ON partner_portal.invoice_line AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.invoice_line FOR SELECT
	USING ((workspace_id = (SELECT partner_portal.own_workspace('read')) AND workspace_sees)
		OR issuer_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR (partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()) AND partner_sees)
		OR payer_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
		OR (workspace_id = ANY ((SELECT partner_portal.granted_workspaces('read'))::bigint[])
			AND partner_key = (SELECT partner_portal.current_partner_id()) AND partner_sees));

SELECT pg_catalog.pg_extension_config_dump('partner_portal.invoice_issuer', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.invoice_series', '');
-- Dumped in order: an invoice comes before the notes that credit it.
SELECT pg_catalog.pg_extension_config_dump('partner_portal.invoice', 'ORDER BY invoice_id');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.invoice_invoice_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.invoice_line', '');

CREATE VIEW partner_portal.invoices WITH (security_invoker, security_barrier) AS
	SELECT i.workspace_id, i.invoice_id, i.document, i.invoice_number, i.invoice_date, i.status, i.company_name,
		tstzrange(i.period_start, i.period_end) AS period, i.period_label, i.issuer_name, i.payer_name, i.plan_name, i.keys_billed,
		i.currency, i.subtotal_minor, i.tax_minor, i.total_minor, i.credits_invoice_id, i.settled_at, i.settled_note, i.issuer_key, i.payer_id, i.partner_key
	FROM partner_portal.invoice i
	WHERE i.status <> 'empty';
COMMENT ON VIEW partner_portal.invoices IS 'Invoices and credit notes that the identity may see, drafts included. Amounts in minor units of the currency.';

-- Immutability.

CREATE FUNCTION partner_portal.invoice_guard() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_invoice_guard';
COMMENT ON FUNCTION partner_portal.invoice_guard() IS 'Trigger: refuses (PP003) to change, delete or truncate finished documents, and to insert any but drafts.';
REVOKE ALL ON FUNCTION partner_portal.invoice_guard() FROM PUBLIC;

CREATE TRIGGER invoice_guard BEFORE INSERT OR UPDATE OR DELETE ON partner_portal.invoice
	FOR EACH ROW EXECUTE FUNCTION partner_portal.invoice_guard();
CREATE TRIGGER invoice_guard_truncate BEFORE TRUNCATE ON partner_portal.invoice
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.invoice_guard();

CREATE FUNCTION partner_portal.settle_invoice(workspace_id bigint, invoice_id bigint, status text, at timestamptz, note text) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_settle_invoice';
COMMENT ON FUNCTION partner_portal.settle_invoice(bigint, bigint, text, timestamptz, text) IS 'Makes a final document paid or void, the only change it may suffer. PP005 it is not final; internal.';
REVOKE ALL ON FUNCTION partner_portal.settle_invoice(bigint, bigint, text, timestamptz, text) FROM PUBLIC;

-- Whoever disables the guards is found out by verify(): the log has this of every document. What is NULL has no part in it, so
-- that a column of a later version does not change the digests of older documents.
CREATE FUNCTION partner_portal.invoice_digest(workspace_id bigint, invoice_id bigint) RETURNS text
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
	RETURN (
		SELECT encode(sha256(convert_to(jsonb_strip_nulls(jsonb_build_array(to_jsonb(i) - '{status,settled_at,settled_note}'::text[],
			(SELECT jsonb_agg(to_jsonb(l) ORDER BY l.line) FROM partner_portal.invoice_line l
				WHERE l.workspace_id = invoice_digest.workspace_id AND l.invoice_id = invoice_digest.invoice_id)))::text, 'UTF8')), 'hex')
		FROM partner_portal.invoice i
		WHERE i.workspace_id = invoice_digest.workspace_id AND i.invoice_id = invoice_digest.invoice_id);
END
$$;
COMMENT ON FUNCTION partner_portal.invoice_digest(bigint, bigint) IS
'SHA-256, in hex, of a document and its lines in order, as JSON with instants in UTC: every column that is not NULL but those that change when it is paid or void. NULL there is none. Internal.';
REVOKE ALL ON FUNCTION partner_portal.invoice_digest(bigint, bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.invoice_line_guard() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	finished boolean := true;
BEGIN
	IF TG_OP = 'INSERT' THEN
		IF partner_portal.restoring_session() THEN
			RETURN NULL;
		END IF;
		SELECT EXISTS (SELECT FROM new_lines l WHERE NOT EXISTS (SELECT FROM partner_portal.invoice i
			WHERE i.workspace_id = l.workspace_id AND i.invoice_id = l.invoice_id AND i.status = 'draft')) INTO finished;
	ELSIF TG_OP = 'UPDATE' THEN
		SELECT EXISTS (SELECT FROM (SELECT o.workspace_id, o.invoice_id FROM old_lines o UNION ALL SELECT n.workspace_id, n.invoice_id FROM new_lines n) l
			WHERE NOT EXISTS (SELECT FROM partner_portal.invoice i
				WHERE i.workspace_id = l.workspace_id AND i.invoice_id = l.invoice_id AND i.status = 'draft')) INTO finished;
	ELSIF TG_OP = 'DELETE' THEN
		SELECT EXISTS (SELECT FROM old_lines l JOIN partner_portal.invoice i ON i.workspace_id = l.workspace_id AND i.invoice_id = l.invoice_id
			WHERE i.status <> 'draft') INTO finished;
	END IF;
	IF finished THEN
		RAISE EXCEPTION USING ERRCODE = 'PP003', MESSAGE = format('cannot %s lines of a document that is no draft', lower(TG_OP)),
			DETAIL = 'A finished invoice or credit note never changes.', HINT = 'Correct it with credit_invoice() or void_invoice().';
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.invoice_line_guard() IS 'Trigger: refuses (PP003) every change of lines but those of drafts.';
REVOKE ALL ON FUNCTION partner_portal.invoice_line_guard() FROM PUBLIC;

CREATE TRIGGER invoice_line_guard_insert AFTER INSERT ON partner_portal.invoice_line
	REFERENCING NEW TABLE AS new_lines FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.invoice_line_guard();
CREATE TRIGGER invoice_line_guard_update AFTER UPDATE ON partner_portal.invoice_line
	REFERENCING OLD TABLE AS old_lines NEW TABLE AS new_lines FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.invoice_line_guard();
CREATE TRIGGER invoice_line_guard_delete AFTER DELETE ON partner_portal.invoice_line
	REFERENCING OLD TABLE AS old_lines FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.invoice_line_guard();
CREATE TRIGGER invoice_line_guard_truncate BEFORE TRUNCATE ON partner_portal.invoice_line
	FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.invoice_line_guard();

CREATE FUNCTION partner_portal.invoice_lines_of_draft() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	-- whether or not partner_portal.restoring_session(): a deletion is one there too
	DELETE FROM partner_portal.invoice_line l USING old_invoices o WHERE l.workspace_id = o.workspace_id AND l.invoice_id = o.invoice_id;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION partner_portal.invoice_lines_of_draft() IS 'Trigger: the lines of a draft go with it.';
REVOKE ALL ON FUNCTION partner_portal.invoice_lines_of_draft() FROM PUBLIC;

CREATE TRIGGER invoice_lines_of_draft AFTER DELETE ON partner_portal.invoice
	REFERENCING OLD TABLE AS old_invoices FOR EACH STATEMENT EXECUTE FUNCTION partner_portal.invoice_lines_of_draft();

CREATE FUNCTION partner_portal.set_invoice_issuer(partner_id bigint, name text DEFAULT NULL, address text DEFAULT NULL, tax_id text DEFAULT NULL,
	number_prefix text DEFAULT '', yearly boolean DEFAULT false) RETURNS partner_portal.invoice_issuer
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	issuer bigint := partner_portal.authorized_issuer(partner_id);
	made partner_portal.invoice_issuer;
BEGIN
	IF name IS NOT NULL THEN
		PERFORM partner_portal.checked_text('name', name, 200);
	END IF;
	IF tax_id IS NOT NULL THEN
		PERFORM partner_portal.checked_text('tax_id', tax_id, 100);
	END IF;
	IF length(address) > 1000 OR partner_portal.has_controls(address)
		OR number_prefix IS NULL OR number_prefix !~ '^[A-Za-z0-9./_-]{0,20}$' OR yearly IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'invalid particulars of an issuer',
			HINT = 'address up to 1000 characters, number_prefix up to 20 of A-Z a-z 0-9 . / _ -.';
	END IF;
	INSERT INTO partner_portal.invoice_issuer AS i (issuer_key, name, address, tax_id, number_prefix, yearly)
	VALUES (issuer, name, address, tax_id, number_prefix, yearly)
	ON CONFLICT ON CONSTRAINT invoice_issuer_pkey DO UPDATE SET name = excluded.name, address = excluded.address, tax_id = excluded.tax_id,
		number_prefix = excluded.number_prefix, yearly = excluded.yearly
	RETURNING i.* INTO made;
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.set_invoice_issuer(bigint, text, text, text, text, boolean) IS
'What an issuer (NULL the platform) wants on documents finalized from now on: name, address, tax id, a prefix of numbers, and whether they begin anew every year. 42501 not the issuer; P0002 no such partner; 22001, 22023 bad input.';
REVOKE ALL ON FUNCTION partner_portal.set_invoice_issuer(bigint, text, text, text, text, boolean) FROM PUBLIC;

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
	('application', 'SELECT', 'TABLE partner_portal.invoice'),
	('application', 'SELECT', 'TABLE partner_portal.invoice_line'),
	('application', 'SELECT', 'TABLE partner_portal.invoices'),
	('application', 'SELECT', 'TABLE partner_portal.invoice_issuer'),
	('application', 'SELECT', 'TABLE partner_portal.invoice_series'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.set_invoice_issuer(bigint, text, text, text, text, boolean)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.start_invoice_series(bigint, bigint, text, integer)');
