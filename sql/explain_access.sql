-- explain_access.sql: why an account may do something, or what it lacks.

CREATE FUNCTION partner_portal.explain_access(account_id bigint, workspace_id bigint, product_id bigint DEFAULT NULL)
	RETURNS TABLE (permission text, allowed boolean, through text, missing text)
	LANGUAGE c STABLE ROWS 15 AS 'MODULE_PATHNAME', 'partner_portal_explain_access';
COMMENT ON FUNCTION partner_portal.explain_access(bigint, bigint, bigint) IS
'One row per permission: whether an account has it on a workspace, through what, or else what is missing. With a product, read and manage_products are about that one. For oneself it is as one acts now, as authorize() decides; for others, wherever they may act.
For the account itself, the operator, and those with manage_people on the workspace. 42501 nobody, or not theirs to ask; P0002 no such workspace, account (operator only) or product.';
REVOKE ALL ON FUNCTION partner_portal.explain_access(bigint, bigint, bigint) FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.explain_access(bigint, bigint, bigint)');
