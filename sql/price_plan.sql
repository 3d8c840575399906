-- price_plan.sql: currencies, price plans with their components and versions, and rating.
-- A plan is a family of versions; a component prices one kind of key, or all together, and makes one invoice line.

CREATE TABLE partner_portal.currency (
	code text NOT NULL,
	minor_digits integer NOT NULL,
	seeded boolean NOT NULL DEFAULT false,
	CONSTRAINT currency_pkey PRIMARY KEY (code),
	CONSTRAINT currency_code CHECK (code ~ '^[A-Z]{3}$'),
	CONSTRAINT currency_minor_digits CHECK (minor_digits IN (0, 2, 3))
);
COMMENT ON TABLE partner_portal.currency IS 'ISO 4217 currencies and the decimal digits of their minor unit. Operators may add rows; those of the extension itself are not dumped.';
SELECT pg_catalog.pg_extension_config_dump('partner_portal.currency', 'WHERE NOT seeded');

INSERT INTO partner_portal.currency (code, minor_digits, seeded)
SELECT c, 0, true FROM unnest(string_to_array('BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF', ' ')) c
UNION ALL
SELECT c, 3, true FROM unnest(string_to_array('BHD IQD JOD KWD LYD OMR TND', ' ')) c
UNION ALL
SELECT c, 2, true FROM unnest(string_to_array('AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD'
	' CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR'
	' JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK'
	' PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED'
	' VES WST XCD XCG YER ZAR ZMW ZWG', ' ')) c;

CREATE TABLE partner_portal.price_plan (
	plan_id bigint GENERATED ALWAYS AS IDENTITY,
	partner_key bigint NOT NULL,
	first_plan_id bigint,
	family_id bigint NOT NULL GENERATED ALWAYS AS (coalesce(first_plan_id, plan_id)) STORED,
	version integer NOT NULL DEFAULT 1,
	name text NOT NULL,
	currency text NOT NULL,
	in_force_from timestamptz NOT NULL DEFAULT '-infinity',
	zero_invoices boolean NOT NULL DEFAULT false,
	created_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT price_plan_pkey PRIMARY KEY (partner_key, plan_id),
	CONSTRAINT price_plan_version_key UNIQUE (partner_key, family_id, version),
	CONSTRAINT price_plan_in_force_key UNIQUE (partner_key, family_id, in_force_from),
	CONSTRAINT price_plan_first FOREIGN KEY (partner_key, first_plan_id) REFERENCES partner_portal.price_plan (partner_key, plan_id),
	CONSTRAINT price_plan_currency FOREIGN KEY (currency) REFERENCES partner_portal.currency,
	CONSTRAINT price_plan_version CHECK (version >= 1 AND (version = 1) = (first_plan_id IS NULL)),
	CONSTRAINT price_plan_in_force CHECK (in_force_from < 'infinity' AND (version > 1 OR in_force_from = '-infinity')),
	CONSTRAINT price_plan_name CHECK (length(name) BETWEEN 1 AND 200 AND name ~ '\S')
);
CREATE UNIQUE INDEX price_plan_plan_id ON partner_portal.price_plan (plan_id);
COMMENT ON TABLE partner_portal.price_plan IS
'A version of a price plan, owned by a partner or (partner_key 0) by the platform, whose owner issues the invoices. A period is priced by the latest version in force at its start.';
COMMENT ON COLUMN partner_portal.price_plan.family_id IS 'plan_id of version 1: what the versions of one plan have in common, and what is assigned.';
COMMENT ON COLUMN partner_portal.price_plan.in_force_from IS 'Prices periods that start at or after this instant, until a later version does.';
COMMENT ON COLUMN partner_portal.price_plan.zero_invoices IS 'Whether a total of zero makes a document; the history has its row in any case.';

CREATE TABLE partner_portal.plan_component (
	partner_key bigint NOT NULL,
	plan_id bigint NOT NULL,
	component integer NOT NULL,
	kind text,
	model text NOT NULL,
	measure text NOT NULL,
	unit_price numeric,
	package_size integer,
	tiers jsonb,
	minimum_minor bigint NOT NULL DEFAULT 0,
	free_units integer NOT NULL DEFAULT 0,
	CONSTRAINT plan_component_pkey PRIMARY KEY (partner_key, plan_id, component),
	CONSTRAINT plan_component_plan FOREIGN KEY (partner_key, plan_id) REFERENCES partner_portal.price_plan,
	CONSTRAINT plan_component_kind CHECK (kind IN ('smartphone', 'contactless_card')),
	CONSTRAINT plan_component_model CHECK (model IN ('flat', 'per_unit', 'graduated', 'volume', 'package')),
	CONSTRAINT plan_component_measure CHECK (measure IN ('distinct_keys', 'peak_keys', 'end_keys', 'start_keys', 'key_days', 'key_seconds', 'users')),
	CONSTRAINT plan_component_tiers CHECK ((model IN ('graduated', 'volume')) = (tiers IS NOT NULL)),
	CONSTRAINT plan_component_unit_price CHECK ((model IN ('graduated', 'volume')) = (unit_price IS NULL)
		AND (unit_price IS NULL OR (unit_price >= 0 AND unit_price < 1e18 AND scale(unit_price) <= 12))),
	CONSTRAINT plan_component_package_size CHECK ((model = 'package') = (package_size IS NOT NULL) AND package_size > 0),
	CONSTRAINT plan_component_minimum CHECK (minimum_minor >= 0),
	CONSTRAINT plan_component_free_units CHECK (free_units >= 0)
);
CREATE UNIQUE INDEX plan_component_kind_key ON partner_portal.plan_component (partner_key, plan_id, coalesce(kind, ''));
COMMENT ON TABLE partner_portal.plan_component IS 'What one kind of key, or (kind NULL) all keys together, cost under a plan: one invoice line each.';
COMMENT ON COLUMN partner_portal.plan_component.measure IS 'Column of usage() that is the quantity.';
COMMENT ON COLUMN partner_portal.plan_component.unit_price IS 'Major units of the plan''s currency, up to 12 decimals: of the period (flat), of a unit (per_unit), of a package (package).';
COMMENT ON COLUMN partner_portal.plan_component.tiers IS '[{"up_to":5,"unit_price":5.00,"flat":0}, ..., {"up_to":null, ...}]: bands (previous up_to, up_to], the last open; major units.';
COMMENT ON COLUMN partner_portal.plan_component.minimum_minor IS 'The line is at least this, in minor units.';
COMMENT ON COLUMN partner_portal.plan_component.free_units IS 'Units of the quantity that are free of charge, before any band is chosen.';
COMMENT ON COLUMN partner_portal.plan_component.kind IS 'Kind of key that it prices; NULL all keys together.';
COMMENT ON COLUMN partner_portal.plan_component.model IS 'flat: unit_price for the period. per_unit: unit_price each. graduated: each unit by the band it lies in. volume: all units by the band of the last. package: unit_price for each package begun.';
COMMENT ON COLUMN partner_portal.plan_component.package_size IS 'Units in a package; NULL but for the model package.';

ALTER TABLE partner_portal.currency ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.price_plan ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE partner_portal.plan_component ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY signed_in ON partner_portal.currency AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.currency FOR SELECT USING (true);

CREATE POLICY signed_in ON partner_portal.price_plan AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY own ON partner_portal.price_plan FOR SELECT
	USING (partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

CREATE POLICY signed_in ON partner_portal.plan_component AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY own ON partner_portal.plan_component FOR SELECT
	USING (partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));

-- Dumped in order: a first version comes before those that supersede it.
SELECT pg_catalog.pg_extension_config_dump('partner_portal.price_plan', 'ORDER BY plan_id');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.price_plan_plan_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.plan_component', '');

CREATE FUNCTION partner_portal.to_minor(numerator numeric, denominator integer, digits integer) RETURNS bigint
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_to_minor';
COMMENT ON FUNCTION partner_portal.to_minor(numeric, integer, integer) IS
'numerator / denominator major units as minor units of a currency with that many digits: the one rounding of a line, exact, half away from zero. 22003 beyond bigint; 22023 not finite.';
REVOKE ALL ON FUNCTION partner_portal.to_minor(numeric, integer, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.tier_bands(tiers jsonb)
	RETURNS TABLE (no integer, above numeric, up_to numeric, unit_price numeric, flat numeric, band text)
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT t.no::integer, t.above, t.up_to, t.unit_price, t.flat, '(' || t.above || ',' || coalesce(t.up_to || ']', ')')
	FROM (
		SELECT b.no, trim_scale(coalesce(lag(b.up_to) OVER (ORDER BY b.no), 0)) AS above, trim_scale(b.up_to) AS up_to,
			coalesce(b.unit_price, 0) AS unit_price, coalesce(b.flat, 0) AS flat
		FROM ROWS FROM (jsonb_to_recordset(tier_bands.tiers) AS (up_to numeric, unit_price numeric, flat numeric)) WITH ORDINALITY AS b (up_to, unit_price, flat, no)
	) t;
END;
COMMENT ON FUNCTION partner_portal.tier_bands(jsonb) IS 'The bands (above, up_to] of a plan component''s tiers in order; up_to NULL is open.';
REVOKE ALL ON FUNCTION partner_portal.tier_bands(jsonb) FROM PUBLIC;

-- One SELECT, so that the planner takes it into the query that rates a thousand lines.
CREATE FUNCTION partner_portal.rate_bands(model text, unit_price numeric, package_size integer, tiers jsonb, free_units integer, quantity numeric)
	RETURNS TABLE (no integer, band text, band_quantity numeric, unit_price numeric, amount numeric, shared boolean)
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT 0, 'free', least(rate_bands.quantity, rate_bands.free_units), 0::numeric, 0::numeric, false
	WHERE rate_bands.free_units > 0 AND rate_bands.quantity > 0 AND rate_bands.model <> 'flat'
	UNION ALL
	SELECT 1, 'period', 1::numeric, rate_bands.unit_price, rate_bands.unit_price, true
	WHERE rate_bands.model = 'flat'
	UNION ALL
	SELECT 1, 'unit', q.units, rate_bands.unit_price, q.units * rate_bands.unit_price, false
	FROM (SELECT greatest(rate_bands.quantity - rate_bands.free_units, 0) AS units) q
	WHERE rate_bands.model = 'per_unit'
	UNION ALL
	SELECT 1, 'package of ' || rate_bands.package_size, q.packages, rate_bands.unit_price, q.packages * rate_bands.unit_price, false
	FROM (SELECT ceil(greatest(rate_bands.quantity - rate_bands.free_units, 0) / rate_bands.package_size) AS packages) q
	WHERE rate_bands.model = 'package'
	UNION ALL
	SELECT t.no * 2 + f.fee, CASE f.fee WHEN 0 THEN t.band ELSE 'flat ' || t.band END, b.units, b.price, b.units * b.price, f.fee = 1
	FROM (SELECT greatest(rate_bands.quantity - rate_bands.free_units, 0) AS units) q
		CROSS JOIN partner_portal.tier_bands(rate_bands.tiers) t
		CROSS JOIN (VALUES (0), (1)) f (fee)
		CROSS JOIN LATERAL (SELECT CASE WHEN f.fee = 1 THEN 1 WHEN rate_bands.model = 'volume' THEN q.units ELSE least(q.units, t.up_to) - t.above END AS units,
			CASE f.fee WHEN 0 THEN t.unit_price ELSE t.flat END AS price) b
	WHERE rate_bands.model IN ('graduated', 'volume')
		AND (q.units > t.above OR (f.fee = 0 AND t.no = 1))
		AND (rate_bands.model = 'graduated' OR t.up_to IS NULL OR q.units <= t.up_to)
		AND (f.fee = 0 OR t.flat <> 0);
END;
COMMENT ON FUNCTION partner_portal.rate_bands(text, numeric, integer, jsonb, integer, numeric) IS
'What a quantity costs under one component, band by band, in major units and unrounded; amount is always band_quantity * unit_price. shared marks fees of the whole period, which a part of a split one bears in part.';
REVOKE ALL ON FUNCTION partner_portal.rate_bands(text, numeric, integer, jsonb, integer, numeric) FROM PUBLIC;

CREATE FUNCTION partner_portal.check_component(currency text, kind text, model text, measure text, tiers jsonb, unit_price numeric, package_size integer,
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
COMMENT ON FUNCTION partner_portal.check_component(text, text, text, text, jsonb, numeric, integer, bigint, integer) IS 'Refuses (22023) the terms of a plan component that mean nothing.';
REVOKE ALL ON FUNCTION partner_portal.check_component(text, text, text, text, jsonb, numeric, integer, bigint, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.authorize_issuer(issuer_key bigint) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF partner_portal.is_operator() OR issuer_key BETWEEN partner_portal.lowest_partner_key() AND partner_portal.highest_partner_key() THEN
		RETURN;
	END IF;
	IF partner_portal.current_account_id() IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
	END IF;
	IF issuer_key > 0 THEN
		PERFORM partner_portal.authorize('read', issuer_key);
	END IF;
	RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'permission denied: bill',
		HINT = 'Plans and invoices are the issuer''s: an owner or administrator of the partner, or the operator for the platform''s.';
END
$$;
COMMENT ON FUNCTION partner_portal.authorize_issuer(bigint) IS
'Returns when the identity may bill for an issuer (0 is the platform): the operator, or an owner or administrator of that partner. 42501 otherwise; P0002 a partner that is not visible.';
REVOKE ALL ON FUNCTION partner_portal.authorize_issuer(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.authorized_issuer(partner_id bigint) RETURNS bigint
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM partner_portal.authorize_issuer(coalesce(partner_id, 0));
	IF partner_id IS NOT NULL AND NOT EXISTS (SELECT FROM partner_portal.partner p WHERE p.partner_id = authorized_issuer.partner_id) THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('partner %s not found', partner_id);
	END IF;
	RETURN coalesce(partner_id, 0);
END
$$;
COMMENT ON FUNCTION partner_portal.authorized_issuer(bigint) IS
'Key of an issuer that the identity may bill for: a partner, or (NULL) 0 for the platform. P0002 no such partner; else as authorize_issuer(). Internal.';
REVOKE ALL ON FUNCTION partner_portal.authorized_issuer(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.visible_plan(plan_id bigint) RETURNS partner_portal.price_plan
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	plan partner_portal.price_plan;
BEGIN
	SELECT p.* INTO plan FROM partner_portal.price_plan p WHERE p.plan_id = visible_plan.plan_id
		AND (partner_portal.is_operator() OR p.partner_key BETWEEN partner_portal.lowest_partner_key() AND partner_portal.highest_partner_key());
	IF NOT FOUND THEN
		IF partner_portal.current_account_id() IS NULL AND NOT partner_portal.is_operator() THEN
			RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'nobody is signed in';
		END IF;
		RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('price plan %s not found', coalesce(visible_plan.plan_id::text, 'null'));
	END IF;
	RETURN plan;
END
$$;
COMMENT ON FUNCTION partner_portal.visible_plan(bigint) IS 'The plan, if the identity may bill by it. P0002 absent or another''s; 42501 nobody signed in.';
REVOKE ALL ON FUNCTION partner_portal.visible_plan(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.create_price_plan(partner_id bigint, name text, currency text, model text, measure text DEFAULT 'distinct_keys', tiers jsonb DEFAULT NULL,
	unit_price numeric DEFAULT NULL, package_size integer DEFAULT NULL, minimum_minor bigint DEFAULT 0, free_units integer DEFAULT 0, kind text DEFAULT NULL,
	zero_invoices boolean DEFAULT false) RETURNS partner_portal.price_plan
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	issuer bigint := partner_portal.authorized_issuer(partner_id);
	plan partner_portal.price_plan;
BEGIN
	PERFORM partner_portal.checked_text('name', name, 200);
	PERFORM partner_portal.check_component(currency, kind, model, measure, tiers, unit_price, package_size, minimum_minor, free_units);
	INSERT INTO partner_portal.price_plan AS p (partner_key, name, currency, zero_invoices)
	VALUES (issuer, name, currency, coalesce(zero_invoices, false)) RETURNING p.* INTO plan;
	INSERT INTO partner_portal.plan_component (partner_key, plan_id, component, kind, model, measure, unit_price, package_size, tiers, minimum_minor, free_units)
	VALUES (plan.partner_key, plan.plan_id, 1, kind, model, measure, trim_scale(unit_price), package_size, tiers, minimum_minor, free_units);
	RETURN plan;
END
$$;
COMMENT ON FUNCTION partner_portal.create_price_plan(bigint, text, text, text, text, jsonb, numeric, integer, bigint, integer, text, boolean) IS
'Makes a price plan of a partner (NULL: the platform''s own) with its first component. Prices are major units of the ISO 4217 currency, up to 12 decimals; minimum_minor is minor units. zero_invoices: a total of zero makes a document too. 22023 terms that mean nothing; 22004, 22001, 22023 the name; 42501 not the issuer.';
REVOKE ALL ON FUNCTION partner_portal.create_price_plan(bigint, text, text, text, text, jsonb, numeric, integer, bigint, integer, text, boolean) FROM PUBLIC;

CREATE FUNCTION partner_portal.add_plan_component(plan_id bigint, kind text, model text, measure text DEFAULT 'distinct_keys', tiers jsonb DEFAULT NULL,
	unit_price numeric DEFAULT NULL, package_size integer DEFAULT NULL, minimum_minor bigint DEFAULT 0, free_units integer DEFAULT 0) RETURNS partner_portal.plan_component
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	plan partner_portal.price_plan;
	made partner_portal.plan_component;
BEGIN
	plan := partner_portal.visible_plan(plan_id);
	-- assign_price_plan() locks the first version FOR SHARE: a plan is not taken into use while it is added to
	PERFORM FROM partner_portal.price_plan p WHERE p.partner_key = plan.partner_key AND p.plan_id IN (plan.plan_id, plan.family_id)
	ORDER BY p.plan_id FOR NO KEY UPDATE;
	PERFORM partner_portal.check_component(plan.currency, kind, model, measure, tiers, unit_price, package_size, minimum_minor, free_units);
	INSERT INTO partner_portal.plan_component AS c (partner_key, plan_id, component, kind, model, measure, unit_price, package_size, tiers, minimum_minor, free_units)
	SELECT plan.partner_key, plan.plan_id, 1 + max(o.component), kind, model, measure, trim_scale(unit_price), package_size, tiers, minimum_minor, free_units
	FROM partner_portal.plan_component o WHERE o.partner_key = plan.partner_key AND o.plan_id = plan.plan_id
	RETURNING c.* INTO made;
	RETURN made;
END
$$;
COMMENT ON FUNCTION partner_portal.add_plan_component(bigint, text, text, text, jsonb, numeric, integer, bigint, integer) IS
'Prices a kind of key on its own, on a line of its own; kind NULL prices all keys together. 23505 the plan prices that kind already; PP005 the plan is in use; else as create_price_plan().';
REVOKE ALL ON FUNCTION partner_portal.add_plan_component(bigint, text, text, text, jsonb, numeric, integer, bigint, integer) FROM PUBLIC;

CREATE FUNCTION partner_portal.revise_price_plan(plan_id bigint, model text, measure text DEFAULT 'distinct_keys', tiers jsonb DEFAULT NULL,
	unit_price numeric DEFAULT NULL, package_size integer DEFAULT NULL, minimum_minor bigint DEFAULT 0, free_units integer DEFAULT 0, kind text DEFAULT NULL,
	in_force_from timestamptz DEFAULT now(), name text DEFAULT NULL, zero_invoices boolean DEFAULT NULL) RETURNS partner_portal.price_plan
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	latest partner_portal.price_plan;
	plan partner_portal.price_plan;
BEGIN
	latest := partner_portal.visible_plan(plan_id);
	PERFORM FROM partner_portal.price_plan p WHERE p.partner_key = latest.partner_key AND p.plan_id = latest.family_id FOR NO KEY UPDATE;
	SELECT p.* INTO latest FROM partner_portal.price_plan p WHERE p.partner_key = latest.partner_key AND p.family_id = latest.family_id ORDER BY p.version DESC LIMIT 1;
	IF in_force_from IS NULL OR in_force_from NOT BETWEEN timestamptz '1900-01-01 00:00+00' AND timestamptz '3000-01-01 00:00+00' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'in_force_from must be an instant of the years 1900 to 2999';
	END IF;
	IF in_force_from <= latest.in_force_from THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('version %s of the plan is in force from %s already', latest.version, latest.in_force_from),
			HINT = 'A new version comes into force after the latest one.';
	END IF;
	IF in_force_from < now() AND NOT partner_portal.is_operator() THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a version cannot come into force in the past',
			HINT = 'Only the operator, who loads history from elsewhere, may say so.';
	END IF;
	IF EXISTS (SELECT FROM partner_portal.invoice i JOIN partner_portal.price_plan p ON p.partner_key = i.issuer_key AND p.plan_id = i.plan_id
			WHERE i.issuer_key = latest.partner_key AND p.family_id = latest.family_id AND i.document = 'invoice' AND i.period_start >= in_force_from) THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('periods from %s on are billed by the plan already', in_force_from);
	END IF;
	name := partner_portal.checked_text('name', coalesce(name, latest.name), 200);
	PERFORM partner_portal.check_component(latest.currency, kind, model, measure, tiers, unit_price, package_size, minimum_minor, free_units);
	INSERT INTO partner_portal.price_plan AS p (partner_key, first_plan_id, version, name, currency, in_force_from, zero_invoices)
	VALUES (latest.partner_key, latest.family_id, latest.version + 1, name, latest.currency, in_force_from, coalesce(zero_invoices, latest.zero_invoices))
	RETURNING p.* INTO plan;
	INSERT INTO partner_portal.plan_component (partner_key, plan_id, component, kind, model, measure, unit_price, package_size, tiers, minimum_minor, free_units)
	VALUES (plan.partner_key, plan.plan_id, 1, kind, model, measure, trim_scale(unit_price), package_size, tiers, minimum_minor, free_units);
	RETURN plan;
END
$$;
COMMENT ON FUNCTION partner_portal.revise_price_plan(bigint, text, text, jsonb, numeric, integer, bigint, integer, text, timestamptz, text, boolean) IS
'Supersedes a plan by a new version with one component (add_plan_component() adds others in the same transaction, or before it comes into force). It prices the periods that start at or after in_force_from, so a running period keeps its price. The currency stays. Errors as create_price_plan(); 22023 not after the latest version, or in the past; PP005 periods from then on are billed already.';
REVOKE ALL ON FUNCTION partner_portal.revise_price_plan(bigint, text, text, jsonb, numeric, integer, bigint, integer, text, timestamptz, text, boolean) FROM PUBLIC;

CREATE FUNCTION partner_portal.rate(plan_id bigint, quantity numeric, kind text DEFAULT NULL)
	RETURNS TABLE (band text, band_quantity numeric, unit_price numeric, amount numeric)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	plan partner_portal.price_plan;
	part partner_portal.plan_component;
BEGIN
	plan := partner_portal.visible_plan(rate.plan_id);
	IF rate.quantity IS NULL OR rate.quantity IN ('NaN', 'Infinity') OR rate.quantity < 0 OR rate.quantity >= 1e18 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a quantity must be a number of zero or more';
	END IF;
	BEGIN
		SELECT c.* INTO STRICT part FROM partner_portal.plan_component c
		WHERE c.partner_key = plan.partner_key AND c.plan_id = plan.plan_id
			AND (c.kind IS NOT DISTINCT FROM rate.kind OR (rate.kind IS NULL
				AND 1 = (SELECT count(*) FROM partner_portal.plan_component o WHERE o.partner_key = plan.partner_key AND o.plan_id = plan.plan_id)));
	EXCEPTION WHEN no_data_found THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('price plan %s has no component for %s', plan.plan_id, coalesce('kind ' || left(rate.kind, 64), 'all keys together')),
			HINT = 'Name the kind of one of its components.';
	END;
	RETURN QUERY
		WITH bands AS (
			SELECT b.* FROM partner_portal.rate_bands(part.model, part.unit_price, part.package_size, part.tiers, part.free_units, rate.quantity) b
		), minimum AS (
			SELECT part.minimum_minor * power(0.1::numeric, c.minor_digits::numeric) AS least FROM partner_portal.currency c WHERE c.code = plan.currency
		)
		SELECT s.band, trim_scale(s.band_quantity), trim_scale(s.unit_price), trim_scale(s.amount) FROM (
			SELECT b.no, b.band, b.band_quantity, b.unit_price, b.amount FROM bands b
			UNION ALL
			SELECT 1000000, 'minimum', 1, m.least - t.total, m.least - t.total
			FROM minimum m, (SELECT sum(b.amount) AS total FROM bands b) t WHERE t.total < m.least
		) s ORDER BY s.no;
END
$$;
COMMENT ON FUNCTION partner_portal.rate(bigint, numeric, text) IS
'Explains band by band what a quantity of a whole period costs under a plan (with several components: under that of the kind). amount = band_quantity * unit_price, in major units and unrounded; the line is their sum, rounded once. P0002 no such plan; 22023 negative quantity, or no component for the kind.';
REVOKE ALL ON FUNCTION partner_portal.rate(bigint, numeric, text) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.currency'),
	('application', 'SELECT', 'TABLE partner_portal.price_plan'),
	('application', 'SELECT', 'TABLE partner_portal.plan_component'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.create_price_plan(bigint, text, text, text, text, jsonb, numeric, integer, bigint, integer, text, boolean)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.add_plan_component(bigint, text, text, text, jsonb, numeric, integer, bigint, integer)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.revise_price_plan(bigint, text, text, jsonb, numeric, integer, bigint, integer, text, timestamptz, text, boolean)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.rate(bigint, numeric, text)');
