\getenv abs_srcdir PG_ABS_SRCDIR
\set begin :abs_srcdir '/sql/begin.sql'
\set concept price_plan
\i :begin
SET search_path = partner_portal, public;
-- currencies: 0, 2 or 3 digits; those of the extension are not dumped
SELECT code, minor_digits, seeded FROM currency WHERE code IN ('BHD', 'CHF', 'EUR', 'JPY', 'KWD') ORDER BY 1;
SELECT minor_digits, count(*) FROM currency GROUP BY 1 ORDER BY 1;
-- the platform's own plans; (up to 5 at 5.00, up to 20 at 4.00, 3.00 beyond)
\set tiers '[{"up_to":5,"unit_price":5.00,"flat":0},{"up_to":20,"unit_price":4.00},{"up_to":null,"unit_price":3.00}]'
SELECT plan_id, partner_key, family_id, version, name, currency, zero_invoices FROM create_price_plan(NULL, 'Graduated', 'CHF', 'graduated', tiers => :'tiers');
SELECT plan_id FROM create_price_plan(NULL, 'Volume', 'CHF', 'volume', tiers => :'tiers');
SELECT plan_id FROM create_price_plan(NULL, 'Packages', 'CHF', 'package', unit_price => 20, package_size => 5);
SELECT plan_id FROM create_price_plan(NULL, 'Unit', 'CHF', 'per_unit', unit_price => 0.000000000001);
SELECT plan_id FROM create_price_plan(NULL, 'Flat', 'JPY', 'flat', unit_price => 100);
-- the vectors: graduated 0, 25, 29, 85, 88; volume 0, 25, 24, 80, 63; packages 0, 20, 20, 40
SELECT q AS quantity, (SELECT sum(amount) FROM rate(1, q)) AS graduated, (SELECT sum(amount) FROM rate(2, q)) AS volume
	FROM unnest(ARRAY[0, 5, 6, 20, 21]) q;
SELECT q AS quantity, (SELECT sum(amount) FROM rate(3, q)) AS packages FROM unnest(ARRAY[0, 1, 5, 6]) q;
SELECT (SELECT sum(amount) FROM rate(4, 3)) AS smallest_price, (SELECT sum(amount) FROM rate(5, 0)) AS flat_of_none, (SELECT sum(amount) FROM rate(5, 7)) AS flat;
SELECT * FROM rate(1, 21);
SELECT * FROM rate(2, 21);
SELECT * FROM rate(3, 6);
-- fractions are split exactly; a band's end belongs to it
SELECT * FROM rate(1, 5.5);
SELECT * FROM rate(2, 20.000000000001);
-- a flat fee for each band reached; in a volume price for the one the quantity falls in
\set fees '[{"up_to":10,"unit_price":1,"flat":7},{"up_to":null,"unit_price":0.5,"flat":3}]'
SELECT plan_id FROM create_price_plan(NULL, 'Fees', 'EUR', 'graduated', tiers => :'fees');
SELECT plan_id FROM create_price_plan(NULL, 'Volume fees', 'EUR', 'volume', tiers => :'fees');
SELECT q AS quantity, (SELECT sum(amount) FROM rate(6, q)) AS graduated, (SELECT sum(amount) FROM rate(7, q)) AS volume FROM unnest(ARRAY[0, 1, 10, 11]) q;
SELECT * FROM rate(6, 11);
-- free units first, the minimum last
SELECT plan_id FROM create_price_plan(NULL, 'Free', 'EUR', 'volume', tiers => :'tiers', free_units => 2, minimum_minor => 1050);
SELECT * FROM rate(8, 7);
SELECT * FROM rate(8, 4);
SELECT * FROM rate(8, 0);
-- a component per kind
SELECT component, kind, model, unit_price FROM add_plan_component(4, 'smartphone', 'per_unit', unit_price => 1.50);
SELECT component, kind, model, unit_price FROM add_plan_component(4, 'contactless_card', 'flat', unit_price => 9);
SELECT (SELECT sum(amount) FROM rate(4, 3)) AS all_keys, (SELECT sum(amount) FROM rate(4, 3, 'smartphone')) AS smartphones, (SELECT sum(amount) FROM rate(4, 3, 'contactless_card')) AS cards;
-- a version supersedes from then on
SELECT plan_id, family_id, version, name, currency, zero_invoices FROM revise_price_plan(1, 'per_unit', unit_price => 2);
SELECT plan_id, family_id, version FROM revise_price_plan(1, 'per_unit', unit_price => 3, in_force_from => '2999-01-01', zero_invoices => true);
SELECT (SELECT sum(amount) FROM rate(1, 21)) AS first, (SELECT sum(amount) FROM rate(9, 21)) AS second;
-- one rounding, half away from zero, exact for a share
SELECT to_minor(2.5, 1, 0), to_minor(-2.5, 1, 0), to_minor(0.125, 1, 2), to_minor(0.1249999999999999999999, 1, 2), to_minor(0.0005, 1, 3), to_minor(-0.0005, 1, 3), to_minor(100, 3, 2), to_minor(0.01, 2, 2);
SELECT to_minor(92233720368547758.07, 1, 2) AS greatest, to_minor(-92233720368547758.07, 1, 2) AS least;

-- what means nothing is refused, and nothing is left of it
\set SHOW_CONTEXT never
\set VERBOSITY default
SELECT to_minor(92233720368547758.075, 1, 2);
SELECT to_minor('NaN', 1, 2);
SELECT create_price_plan(NULL, 'x', 'XXQ', 'flat', unit_price => 1);
SELECT create_price_plan(NULL, 'x', 'chf', 'flat', unit_price => 1);
SELECT create_price_plan(NULL, 'x', NULL, 'flat', unit_price => 1);
SELECT create_price_plan(NULL, ' ', 'CHF', 'flat', unit_price => 1);
SELECT create_price_plan(NULL, 'x', 'CHF', 'tiered', unit_price => 1);
SELECT create_price_plan(NULL, 'x', 'CHF', 'flat', 'keys', unit_price => 1);
SELECT create_price_plan(NULL, 'x', 'CHF', 'flat', unit_price => 1, kind => 'phone');
SELECT create_price_plan(NULL, 'x', 'CHF', 'per_unit');
SELECT create_price_plan(NULL, 'x', 'CHF', 'per_unit', unit_price => 0.1234567890123);
SELECT create_price_plan(NULL, 'x', 'CHF', 'per_unit', unit_price => -1);
SELECT create_price_plan(NULL, 'x', 'CHF', 'per_unit', unit_price => 'NaN');
SELECT create_price_plan(NULL, 'x', 'CHF', 'per_unit', unit_price => 1, minimum_minor => -1);
SELECT create_price_plan(NULL, 'x', 'CHF', 'per_unit', unit_price => 1, free_units => -1);
SELECT create_price_plan(NULL, 'x', 'CHF', 'per_unit', unit_price => 1, tiers => :'tiers');
SELECT create_price_plan(NULL, 'x', 'CHF', 'package', unit_price => 1);
SELECT create_price_plan(NULL, 'x', 'CHF', 'package', unit_price => 1, package_size => 0);
SELECT create_price_plan(NULL, 'x', 'CHF', 'flat', unit_price => 1, package_size => 5);
\set VERBOSITY terse
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated');
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated', unit_price => 1, tiers => :'tiers');
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated', tiers => '[]');
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated', tiers => '{"up_to":null,"unit_price":1}');
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated', tiers => '[5]');
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated', tiers => '[{"up_to":5,"unit_price":1},{"up_to":5,"unit_price":1},{"up_to":null,"unit_price":1}]');
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated', tiers => '[{"up_to":9,"unit_price":1},{"up_to":5,"unit_price":1},{"up_to":null,"unit_price":1}]');
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated', tiers => '[{"up_to":0,"unit_price":1},{"up_to":null,"unit_price":1}]');
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated', tiers => '[{"up_to":5,"unit_price":1},{"up_to":9,"unit_price":1}]');
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated', tiers => '[{"up_to":null,"unit_price":1},{"up_to":9,"unit_price":1}]');
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated', tiers => '[{"from":2,"up_to":5,"unit_price":1},{"up_to":null,"unit_price":1}]');
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated', tiers => '[{"up_to":"5","unit_price":1},{"up_to":null,"unit_price":1}]');
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated', tiers => '[{"unit_price":1}]');
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated', tiers => '[{"up_to":5},{"up_to":null,"unit_price":1}]');
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated', tiers => '[{"up_to":null,"unit_price":"1"}]');
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated', tiers => '[{"up_to":null,"unit_price":-1}]');
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated', tiers => '[{"up_to":null,"unit_price":0.1234567890123}]');
SELECT create_price_plan(NULL, 'x', 'CHF', 'graduated', tiers => '[{"up_to":null,"unit_price":1e18}]');
SELECT create_price_plan(4242, 'x', 'CHF', 'flat', unit_price => 1);
SELECT add_plan_component(4, 'smartphone', 'per_unit', unit_price => 1);
SELECT add_plan_component(4242, 'smartphone', 'per_unit', unit_price => 1);
SELECT revise_price_plan(1, 'per_unit', unit_price => 3, in_force_from => '2998-01-01');
SELECT revise_price_plan(2, 'per_unit', unit_price => 3, in_force_from => 'infinity');
SELECT revise_price_plan(2, 'per_unit');
SELECT * FROM rate(1, -1);
SELECT * FROM rate(1, NULL);
SELECT * FROM rate(1, 'NaN');
SELECT * FROM rate(1, 'Infinity');
SELECT * FROM rate(1, 1, 'smartphone');
SELECT * FROM rate(4242, 1);
SELECT count(*) AS plans, max(plan_id) AS last FROM price_plan;
