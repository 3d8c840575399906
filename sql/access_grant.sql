-- access_grant.sql: what customers let partners do. How a grant comes about and ends is in access_consent.sql.

CREATE TABLE partner_portal.access_grant (
	workspace_id bigint NOT NULL,
	grant_id bigint GENERATED ALWAYS AS IDENTITY,
	partner_id bigint NOT NULL,
	scope text NOT NULL,
	products bigint[] NOT NULL DEFAULT '{}',
	categories text[] NOT NULL DEFAULT '{}',
	wallet boolean,
	rights text[] NOT NULL DEFAULT '{manage,read}',
	expires_at timestamptz,
	state text NOT NULL,
	asked jsonb,
	message text,
	created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	created_by bigint,
	accepted_at timestamptz,
	accepted_by bigint,
	extended_at timestamptz,
	ended_at timestamptz,
	ended_by bigint,
	end_reason text,
	wallet_since timestamptz,
	wallet_until timestamptz,
	CONSTRAINT access_grant_pkey PRIMARY KEY (workspace_id, grant_id),
	CONSTRAINT access_grant_workspace FOREIGN KEY (workspace_id) REFERENCES partner_portal.workspace,
	CONSTRAINT access_grant_partner FOREIGN KEY (partner_id) REFERENCES partner_portal.workspace,
	CONSTRAINT access_grant_other CHECK (partner_id <> workspace_id),
	CONSTRAINT access_grant_scope CHECK (CASE scope
		WHEN 'limited' THEN cardinality(products) + cardinality(categories) > 0 AND wallet IS NOT TRUE
		WHEN 'complete' THEN cardinality(products) + cardinality(categories) = 0 AND wallet IS NOT NULL
		ELSE false END),
	CONSTRAINT access_grant_size CHECK (cardinality(products) <= 1000 AND cardinality(categories) <= 100),
	CONSTRAINT access_grant_rights CHECK (cardinality(rights) > 0 AND rights <@ '{read,manage}'),
	CONSTRAINT access_grant_state CHECK (state IN ('requested', 'offered', 'active', 'declined', 'withdrawn', 'ended')),
	CONSTRAINT access_grant_accepted CHECK ((state IN ('active', 'ended')) = (accepted_at IS NOT NULL)),
	CONSTRAINT access_grant_ended CHECK ((state IN ('requested', 'offered', 'active')) = (ended_at IS NULL)),
	CONSTRAINT access_grant_wallet CHECK (wallet_since IS NULL OR wallet),
	CONSTRAINT access_grant_message CHECK (length(message) <= 1000),
	CONSTRAINT access_grant_end_reason CHECK (length(end_reason) <= 1000)
);
CREATE INDEX access_grant_grant_id ON partner_portal.access_grant (grant_id);
CREATE INDEX access_grant_partner_idx ON partner_portal.access_grant (partner_id);
CREATE INDEX access_grant_active_partner ON partner_portal.access_grant (partner_id, workspace_id) WHERE state = 'active';
CREATE UNIQUE INDEX access_grant_one_active ON partner_portal.access_grant (workspace_id, partner_id) WHERE state = 'active';
CREATE UNIQUE INDEX access_grant_one_open ON partner_portal.access_grant (workspace_id, partner_id) WHERE state IN ('requested', 'offered');
CREATE UNIQUE INDEX access_grant_one_wallet ON partner_portal.access_grant (workspace_id) WHERE wallet_since IS NOT NULL AND wallet_until IS NULL;
COMMENT ON TABLE partner_portal.access_grant IS
'A customer''s consent to a partner, from request or offer to its end; a partner has at most one active and one open at a customer. Changed by functions only.';
COMMENT ON COLUMN partner_portal.access_grant.scope IS 'limited to products and categories (products to come included), or complete: everything.';
COMMENT ON COLUMN partner_portal.access_grant.wallet IS 'Whether the partner pays the platform''s plans of the customer; a complete grant says so, a limited one cannot.';
COMMENT ON COLUMN partner_portal.access_grant.rights IS 'read, manage or both; manage includes read.';
COMMENT ON COLUMN partner_portal.access_grant.expires_at IS 'It gives nothing from then on, whether a job has ended it or not; NULL lasts until it is ended.';
COMMENT ON COLUMN partner_portal.access_grant.state IS 'requested by the partner, offered by the customer, active, declined, withdrawn, ended.';
COMMENT ON COLUMN partner_portal.access_grant.asked IS 'What the partner had asked for, where it did.';
COMMENT ON COLUMN partner_portal.access_grant.wallet_since IS 'From when to wallet_until it held the wallet: billing periods that start in between are the partner''s to pay.';

ALTER TABLE partner_portal.access_grant ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY signed_in ON partner_portal.access_grant AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.access_grant FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR partner_id BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key()));
SELECT pg_catalog.pg_extension_config_dump('partner_portal.access_grant', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.access_grant_grant_id_seq', '');

CREATE FUNCTION partner_portal.hold_grant() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'partner_portal_hold_grant';
COMMENT ON FUNCTION partner_portal.hold_grant() IS
'Trigger of tables that partners write by grants: the grant cannot end before the transaction does; 42501, or 40001 with an older snapshot, if it has.';
REVOKE ALL ON FUNCTION partner_portal.hold_grant() FROM PUBLIC;
CREATE TRIGGER hold_grant BEFORE INSERT OR UPDATE OR DELETE ON partner_portal.product
	FOR EACH ROW EXECUTE FUNCTION partner_portal.hold_grant();

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.access_grant');
