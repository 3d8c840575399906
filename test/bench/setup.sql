-- setup.sql: the database of the benchmark. Half of it is the extension's; schema floor has the same table of keys with the
-- same constraints and indexes, without triggers and policies: its clients fill in what the triggers would.
-- Values: workspaces, customers (of the large partner). All are limited, well above the keys they have.

CREATE EXTENSION partner_portal;
DO $$
BEGIN
	IF to_regrole('bench_app') IS NULL THEN
		CREATE ROLE bench_app LOGIN;
	END IF;
END
$$;
SELECT partner_portal.enroll_role('bench_app', 'application');

INSERT INTO partner_portal.account (email) VALUES ('large@bench.example'), ('small@bench.example'), ('owner@bench.example');
INSERT INTO partner_portal.workspace (kind, company_name, slug, anchor_date, created_at, billing_from) VALUES
	('partner', 'Large', 'large', date_trunc('month', now())::date - 61, now() - interval '40 days', now() - interval '40 days'),
	('partner', 'Small', 'small', date_trunc('month', now())::date - 61, now() - interval '40 days', now() - interval '40 days');
INSERT INTO partner_portal.partner (partner_id, registration_code) SELECT workspace_id, 'code of ' || slug FROM partner_portal.workspace;
INSERT INTO partner_portal.workspace (kind, partner_id, company_name, slug, anchor_date, created_at, billing_from, restrict_keys, key_limit)
SELECT 'business', p.workspace_id, 'Company ' || n, CASE n WHEN %(workspaces)s THEN 'hot' WHEN %(workspaces)s - 1 THEN 'big' ELSE 'company-' || n END,
	date_trunc('month', now())::date - 61, now() - interval '40 days', now() - interval '40 days', true, 100000000
FROM generate_series(1, %(workspaces)s) n
LEFT JOIN partner_portal.workspace p ON p.slug = CASE WHEN n <= %(customers)s THEN 'large' WHEN n <= %(customers)s + 45 THEN 'small' END;
INSERT INTO partner_portal.member (workspace_id, account_id, partner_key, role, accepted_at)
SELECT w.workspace_id, CASE w.slug WHEN 'large' THEN 1 WHEN 'small' THEN 2 ELSE 3 END, w.partner_key, 'owner', now()
FROM partner_portal.workspace w;

CREATE SCHEMA floor;
CREATE TABLE floor.security_key (LIKE partner_portal.security_key INCLUDING ALL) WITH (fillfactor = 90);
CREATE SEQUENCE floor.key_id OWNED BY floor.security_key.key_id;
ALTER TABLE floor.security_key
	ALTER key_id SET DEFAULT nextval('floor.key_id'),
	ALTER activated_at SET DEFAULT now(),
	ADD FOREIGN KEY (workspace_id, partner_key) REFERENCES partner_portal.workspace (workspace_id, partner_key),
	ADD FOREIGN KEY (workspace_id, account_id) REFERENCES partner_portal.member (workspace_id, account_id);

-- What an application that keeps a log of its own would write beside a key.
CREATE TABLE floor.activity (LIKE partner_portal.activity INCLUDING ALL);
ALTER TABLE floor.activity ADD FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace;
CREATE SEQUENCE floor.activity_id OWNED BY floor.activity.activity_id;
