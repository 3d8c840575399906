-- product.sql: what else a customer owns that a partner may be let near: a server, a domain, a mailbox.

CREATE TABLE partner_portal.product (
	workspace_id bigint NOT NULL,
	product_id bigint GENERATED ALWAYS AS IDENTITY,
	partner_key bigint NOT NULL DEFAULT 0,
	category text NOT NULL,
	name text NOT NULL,
	external_ref text,
	partner_access boolean NOT NULL DEFAULT false,
	created_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT product_pkey PRIMARY KEY (workspace_id, product_id),
	CONSTRAINT product_workspace FOREIGN KEY (workspace_id, partner_key)
		REFERENCES partner_portal.workspace (workspace_id, partner_key) ON UPDATE CASCADE,
	CONSTRAINT product_category CHECK (length(category) BETWEEN 1 AND 60 AND category ~ '\S' AND category !~ '[[:cntrl:]]'),
	CONSTRAINT product_name CHECK (length(name) BETWEEN 1 AND 200 AND name ~ '\S' AND name !~ '[[:cntrl:]]'),
	CONSTRAINT product_external_ref CHECK (length(external_ref) <= 500)
);
CREATE INDEX product_product_id ON partner_portal.product (product_id);
CREATE INDEX product_partner_key_idx ON partner_portal.product (partner_key, workspace_id);
COMMENT ON TABLE partner_portal.product IS
'A product of a workspace, in a category of the application''s choosing. Plain INSERT, UPDATE (category, name, external_ref, partner_access) and DELETE by those with manage_products.';
COMMENT ON COLUMN partner_portal.product.external_ref IS 'The application''s own name for it.';
COMMENT ON COLUMN partner_portal.product.partner_access IS
'Second consent: whether the partner the workspace is registered with may see it, and its system administrator manage it. Given by the workspace itself alone (42501); a transfer takes it back.';

CREATE FUNCTION partner_portal.complete_workspaces(permission text) RETURNS bigint[]
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_complete_workspaces';
COMMENT ON FUNCTION partner_portal.complete_workspaces(text) IS 'Workspaces on which one has the permission by a complete grant. For policies.';
REVOKE ALL ON FUNCTION partner_portal.complete_workspaces(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.product_workspaces(permission text) RETURNS bigint[]
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_product_workspaces';
COMMENT ON FUNCTION partner_portal.product_workspaces(text) IS
'Workspaces on some of whose products one may have the permission, as a partner''s staff or by any grant; product_ok() says on which. For policies.';
REVOKE ALL ON FUNCTION partner_portal.product_workspaces(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.limited_workspaces() RETURNS bigint[]
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_limited_workspaces';
COMMENT ON FUNCTION partner_portal.limited_workspaces() IS 'Workspaces that granted access to some products alone. For policies.';
REVOKE ALL ON FUNCTION partner_portal.limited_workspaces() FROM PUBLIC;

CREATE FUNCTION partner_portal.product_ok(permission text, workspace_id bigint, product_id bigint) RETURNS boolean
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 10 AS 'MODULE_PATHNAME', 'partner_portal_product_ok';
COMMENT ON FUNCTION partner_portal.product_ok(text, bigint, bigint) IS
'Whether one has the permission on a product of a workspace, as of the latest commit: as its own people, by a grant that covers it, or as its partner once partner_access is set. For policies.';
REVOKE ALL ON FUNCTION partner_portal.product_ok(text, bigint, bigint) FROM PUBLIC;

ALTER TABLE partner_portal.product ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY signed_in ON partner_portal.product AS RESTRICTIVE
	USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
	WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL);
CREATE POLICY read ON partner_portal.product FOR SELECT
	USING (workspace_id = (SELECT partner_portal.own_workspace('read'))
		OR workspace_id = ANY ((SELECT partner_portal.complete_workspaces('read'))::bigint[])
		OR (SELECT partner_portal.is_operator())
		OR (partner_key BETWEEN (SELECT partner_portal.lowest_partner_key()) AND (SELECT partner_portal.highest_partner_key())
			AND partner_portal.product_ok('read', workspace_id, product_id))
		OR (workspace_id = ANY ((SELECT partner_portal.product_workspaces('read'))::bigint[])
			AND partner_portal.product_ok('read', workspace_id, product_id)));
CREATE POLICY add ON partner_portal.product FOR INSERT
	WITH CHECK (workspace_id = (SELECT partner_portal.own_workspace('manage_products'))
		OR workspace_id = ANY ((SELECT partner_portal.granted_workspaces('manage_products'))::bigint[])
		OR (SELECT partner_portal.is_operator()));
CREATE POLICY change ON partner_portal.product FOR UPDATE
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_products'))
		OR workspace_id = ANY ((SELECT partner_portal.complete_workspaces('manage_products'))::bigint[])
		OR (SELECT partner_portal.is_operator())
		OR (workspace_id = ANY ((SELECT partner_portal.product_workspaces('manage_products'))::bigint[])
			AND partner_portal.product_ok('manage_products', workspace_id, product_id)))
	WITH CHECK (workspace_id = (SELECT partner_portal.own_workspace('manage_products'))
		OR workspace_id = ANY ((SELECT partner_portal.complete_workspaces('manage_products'))::bigint[])
		OR (SELECT partner_portal.is_operator())
		OR (workspace_id = ANY ((SELECT partner_portal.product_workspaces('manage_products'))::bigint[])
			AND partner_portal.product_ok('manage_products', workspace_id, product_id)));
CREATE POLICY remove ON partner_portal.product FOR DELETE
	USING (workspace_id = (SELECT partner_portal.own_workspace('manage_products'))
		OR workspace_id = ANY ((SELECT partner_portal.complete_workspaces('manage_products'))::bigint[])
		OR (SELECT partner_portal.is_operator())
		OR (workspace_id = ANY ((SELECT partner_portal.product_workspaces('manage_products'))::bigint[])
			AND partner_portal.product_ok('manage_products', workspace_id, product_id)));
SELECT pg_catalog.pg_extension_config_dump('partner_portal.product', '');
SELECT pg_catalog.pg_extension_config_dump('partner_portal.product_product_id_seq', '');

CREATE FUNCTION partner_portal.guard_product() RETURNS trigger
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP = 'INSERT' THEN
		IF partner_portal.restoring_session() THEN
			RETURN NEW;
		END IF;
		NEW.created_at := clock_timestamp();
		-- stays with its partner, as long as this transaction lasts
		SELECT w.partner_key INTO NEW.partner_key FROM partner_portal.workspace w WHERE w.workspace_id = NEW.workspace_id FOR KEY SHARE;
		NEW.partner_key := coalesce(NEW.partner_key, 0);
	ELSIF (NEW.workspace_id, NEW.product_id, NEW.created_at) IS DISTINCT FROM (OLD.workspace_id, OLD.product_id, OLD.created_at) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'workspace_id, product_id and created_at of a product never change';
	ELSIF NEW.category <> OLD.category AND NOT partner_portal.may('manage_products', NEW.workspace_id) THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('product %s cannot be moved to another category', NEW.product_id),
			DETAIL = 'Access is granted by category, and the grant does not cover all of them.';
	END IF;
	IF NEW.partner_access AND (TG_OP = 'INSERT' OR NOT OLD.partner_access)
		AND NOT (partner_portal.is_operator() OR NEW.workspace_id IS NOT DISTINCT FROM partner_portal.own_workspace('manage_products'))
	THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('only workspace %s itself may let its partner near a product', NEW.workspace_id);
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION partner_portal.guard_product() IS
'Trigger of product: stamps it; 22023 what never changes; 42501 partner_access from anybody but the workspace itself, or another category by a limited grant.';
REVOKE ALL ON FUNCTION partner_portal.guard_product() FROM PUBLIC;
CREATE TRIGGER guard_product BEFORE INSERT OR UPDATE ON partner_portal.product
	FOR EACH ROW EXECUTE FUNCTION partner_portal.guard_product();
CREATE TRIGGER check_names BEFORE INSERT OR UPDATE ON partner_portal.product
	FOR EACH ROW EXECUTE FUNCTION partner_portal.check_names('category', 'name', 'external_ref');

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'SELECT', 'TABLE partner_portal.product'),
	('application', 'INSERT (workspace_id, category, name, external_ref, partner_access)', 'TABLE partner_portal.product'),
	('application', 'UPDATE (category, name, external_ref, partner_access)', 'TABLE partner_portal.product'),
	('application', 'DELETE', 'TABLE partner_portal.product'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.complete_workspaces(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.product_workspaces(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.limited_workspaces()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.product_ok(text, bigint, bigint)');
