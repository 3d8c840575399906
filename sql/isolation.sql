-- isolation.sql: the same row-level isolation on an application's own tables, and a look for holes in it.
-- What isolate() did is read from the catalog: the policies are called partner_portal_*, and depend on the columns they ask about.

CREATE FUNCTION partner_portal.visible_workspaces(permission text) RETURNS bigint[]
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_visible_workspaces';
COMMENT ON FUNCTION partner_portal.visible_workspaces(text) IS
'Workspaces on which one has the permission: one''s own, those of which one runs the partner, those of a complete grant or an assignment; for the operator all there are. For policies of tables without partner_key.';
REVOKE ALL ON FUNCTION partner_portal.visible_workspaces(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.lowest_workspace(permission text) RETURNS bigint
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_lowest_workspace';
COMMENT ON FUNCTION partner_portal.lowest_workspace(text) IS
'Least of visible_workspaces(); NULL if there is none. For policies: with highest_workspace() a range, which the planner takes for small, as it does not a list.';
REVOKE ALL ON FUNCTION partner_portal.lowest_workspace(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.highest_workspace(permission text) RETURNS bigint
	LANGUAGE c STABLE STRICT PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_highest_workspace';
COMMENT ON FUNCTION partner_portal.highest_workspace(text) IS 'Greatest of visible_workspaces(); see lowest_workspace(). For policies.';
REVOKE ALL ON FUNCTION partner_portal.highest_workspace(text) FROM PUBLIC;

CREATE FUNCTION partner_portal.portal_workspace_id() RETURNS bigint
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 AS 'MODULE_PATHNAME', 'partner_portal_portal_workspace_id';
COMMENT ON FUNCTION partner_portal.portal_workspace_id() IS 'Partner of the portal one acts in; NULL without one. For policies.';
REVOKE ALL ON FUNCTION partner_portal.portal_workspace_id() FROM PUBLIC;

CREATE FUNCTION partner_portal.portal_plan_support(internal) RETURNS internal
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_portal_plan_support';
COMMENT ON FUNCTION partner_portal.portal_plan_support(internal) IS 'Planner support function of acting_in_portal(): makes it a constant of the plan, which is thrown away when it no longer holds. Internal.';
REVOKE ALL ON FUNCTION partner_portal.portal_plan_support(internal) FROM PUBLIC;

CREATE FUNCTION partner_portal.acting_in_portal() RETURNS boolean
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 SUPPORT partner_portal.portal_plan_support AS 'MODULE_PATHNAME', 'partner_portal_acting_in_portal';
COMMENT ON FUNCTION partner_portal.acting_in_portal() IS
'Whether one acts in a portal. For policies: the planner knows the answer, so that what is for others falls away and the rest is planned as if it stood alone; a plan for one portal, or for none, is made anew for another. A statement that itself changes where one acts is planned for what was before, and shows too few rows, never too many.';
REVOKE ALL ON FUNCTION partner_portal.acting_in_portal() FROM PUBLIC;

CREATE FUNCTION partner_portal.few_rows_support(internal) RETURNS internal
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'partner_portal_few_rows_support';
COMMENT ON FUNCTION partner_portal.few_rows_support(internal) IS 'Planner support function of few_rows(): a selectivity of one hundredth. Internal.';
REVOKE ALL ON FUNCTION partner_portal.few_rows_support(internal) FROM PUBLIC;

CREATE FUNCTION partner_portal.few_rows(bigint) RETURNS boolean
	LANGUAGE c STABLE PARALLEL SAFE LEAKPROOF COST 1 SUPPORT partner_portal.few_rows_support AS 'MODULE_PATHNAME', 'partner_portal_few_rows';
COMMENT ON FUNCTION partner_portal.few_rows(bigint) IS
'True. For policies: the planner takes rows for few beside this, and looks for them by their index also when a query has ORDER BY and LIMIT, where it would rather go through the rows of all.';
REVOKE ALL ON FUNCTION partner_portal.few_rows(bigint) FROM PUBLIC;

CREATE FUNCTION partner_portal.checked_relation(relation regclass) RETURNS void
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	kind "char";
	space name;
BEGIN
	IF relation IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'relation must not be null';
	END IF;
	SELECT c.relkind, n.nspname INTO kind, space FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
	IF kind IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_table', MESSAGE = format('relation with OID %s does not exist', relation::oid);
	END IF;
	IF kind NOT IN ('r', 'p') THEN
		RAISE EXCEPTION USING ERRCODE = 'wrong_object_type', MESSAGE = format('%s is not a table', relation),
			HINT = 'A view over an isolated table is isolated when it is made WITH (security_invoker).';
	END IF;
	IF space IN ('partner_portal', 'pg_catalog', 'information_schema', 'pg_toast') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = format('%s is not a table of the application', relation);
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.checked_relation(regclass) IS 'Returns for a table of the application, partitioned or not. 22004, 42P01, 42809; 42501 ours or the system''s. Internal.';
REVOKE ALL ON FUNCTION partner_portal.checked_relation(regclass) FROM PUBLIC;

CREATE FUNCTION partner_portal.attribute_condition(relation regclass, column_name name, technical_name text) RETURNS text
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	type oid := (SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = column_name AND a.attnum > 0 AND NOT a.attisdropped);
	conversion text;
BEGIN
	IF type IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_column', MESSAGE = format('column "%s" of relation %s does not exist', column_name, relation),
			HINT = 'attributes is an object of columns with their attributes, or an array of names that are both.';
	END IF;
	IF technical_name IS NULL OR technical_name !~ '^[a-z][a-z0-9_]{0,62}$' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('technical name "%s" is not valid', left(technical_name, 63));
	END IF;
	-- a conversion must not fail, whatever the attribute is; it is made once per statement
	conversion := CASE type::regtype::text
		WHEN 'text' THEN '' WHEN 'character varying' THEN ''
		WHEN 'bigint' THEN 'CASE WHEN v ~ ''^-?[0-9]{1,18}$'' THEN v::bigint END'
		WHEN 'integer' THEN 'CASE WHEN v ~ ''^-?[0-9]{1,18}$'' THEN v::bigint END'
		WHEN 'smallint' THEN 'CASE WHEN v ~ ''^-?[0-9]{1,18}$'' THEN v::bigint END'
		WHEN 'boolean' THEN 'CASE v WHEN ''true'' THEN true WHEN ''false'' THEN false END'
		WHEN 'uuid' THEN 'CASE WHEN v ~ ''^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$'' THEN v::uuid END'
		WHEN 'date' THEN 'CASE WHEN v ~ ''^(19|2[0-9])[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$'' THEN make_date(left(v, 4)::integer, substr(v, 6, 2)::integer, 1) + (substr(v, 9, 2)::integer - 1) END'
		END;
	IF conversion IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'datatype_mismatch', MESSAGE = format('column "%s" of relation %s has type %s', column_name, relation, type::regtype),
			HINT = 'An attribute is compared with text, varchar, smallint, integer, bigint, boolean, date or uuid.';
	END IF;
	RETURN CASE WHEN conversion = '' THEN format('%I = ANY ((SELECT partner_portal.attribute(%L))::text[])', column_name, technical_name)
		ELSE format('%I = ANY (ARRAY(SELECT %s FROM pg_catalog.unnest(partner_portal.attribute(%L)) AS u (v)))', column_name, conversion, technical_name) END;
END
$$;
COMMENT ON FUNCTION partner_portal.attribute_condition(regclass, name, text) IS 'The condition that a column has a value of an attribute. 42703, 22023; 42804 a type without a conversion. Internal.';
REVOKE ALL ON FUNCTION partner_portal.attribute_condition(regclass, name, text) FROM PUBLIC;

-- Which columns the policies of a table ask about: its workspace column first.
CREATE FUNCTION partner_portal.isolated_columns(relation regclass) RETURNS smallint[]
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT array_agg(d.refobjsubid::smallint ORDER BY d.read DESC, d.refobjsubid)
	FROM (
		SELECT d.refobjsubid, bool_or(p.polname = 'partner_portal_read') AS read
		FROM pg_catalog.pg_policy p
		JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_policy'::regclass AND d.objid = p.oid
			AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = p.polrelid AND d.refobjsubid > 0
		WHERE p.polrelid = isolated_columns.relation AND p.polname IN ('partner_portal_read', 'partner_portal_attributes')
		GROUP BY d.refobjsubid
	) d;
END;
COMMENT ON FUNCTION partner_portal.isolated_columns(regclass) IS 'Column numbers that an isolated table''s policies ask about, that of the workspace first; NULL if it is not isolated. Internal.';
REVOKE ALL ON FUNCTION partner_portal.isolated_columns(regclass) FROM PUBLIC;

CREATE FUNCTION partner_portal.missing_index(relation regclass) RETURNS text
	LANGUAGE sql STABLE
BEGIN ATOMIC
	-- with attributes, an index that begins with the workspace and one of them serves both
	SELECT format('CREATE INDEX ON %s (%s)', missing_index.relation, string_agg(quote_ident(a.attname), ', ' ORDER BY w.n))
	FROM unnest((partner_portal.isolated_columns(missing_index.relation))[:2]) WITH ORDINALITY AS w (attnum, n)
	JOIN pg_catalog.pg_attribute a ON a.attrelid = missing_index.relation AND a.attnum = w.attnum
	WHERE NOT EXISTS (
		SELECT FROM pg_catalog.pg_index i
		JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
		JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname = 'btree'
		WHERE i.indrelid = missing_index.relation AND i.indisvalid AND i.indpred IS NULL
			AND i.indkey[0] = (partner_portal.isolated_columns(missing_index.relation))[1]
			AND (cardinality(partner_portal.isolated_columns(missing_index.relation)) = 1
				OR i.indkey[1] = ANY ((partner_portal.isolated_columns(missing_index.relation))[2:])))
	HAVING count(*) > 0;
END;
COMMENT ON FUNCTION partner_portal.missing_index(regclass) IS 'The statement for the index that an isolated table lacks; NULL if it has one. Internal.';
REVOKE ALL ON FUNCTION partner_portal.missing_index(regclass) FROM PUBLIC;

CREATE FUNCTION partner_portal.isolate(relation regclass, workspace_column name, attributes jsonb DEFAULT NULL, write_permission text DEFAULT 'manage_products') RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
	type oid;
	ours CONSTANT text := '(%1$I = ANY ((SELECT partner_portal.visible_workspaces(%2$L))::bigint[]) AND partner_portal.few_rows(%1$I))';
	readable text;
	writable text;
	filtered text;
	part regclass;
	policy record;
	index_needed text;
BEGIN
	PERFORM partner_portal.checked_relation(relation);
	IF workspace_column IS NULL OR write_permission IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'workspace_column and write_permission must not be null';
	END IF;
	PERFORM partner_portal.may(write_permission, 0);
	SELECT a.atttypid INTO type FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = workspace_column AND a.attnum > 0 AND NOT a.attisdropped;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_column', MESSAGE = format('column "%s" of relation %s does not exist', workspace_column, relation);
	END IF;
	IF type NOT IN ('bigint'::regtype, 'integer'::regtype) THEN
		RAISE EXCEPTION USING ERRCODE = 'datatype_mismatch', MESSAGE = format('column "%s" of relation %s has type %s', workspace_column, relation, type::regtype),
			HINT = 'A workspace_id is a bigint.';
	END IF;
	readable := format(ours, workspace_column, 'read');
	writable := format(ours, workspace_column, write_permission);
	IF jsonb_typeof(attributes) <> 'null' THEN
		IF jsonb_typeof(attributes) = 'array' AND NOT EXISTS (SELECT FROM jsonb_array_elements(attributes) e WHERE jsonb_typeof(e) <> 'string') THEN
			attributes := (SELECT jsonb_object_agg(e, e) FROM jsonb_array_elements_text(attributes) e);
		END IF;
		IF attributes IS NULL OR jsonb_typeof(attributes) <> 'object' OR attributes = '{}'
			OR EXISTS (SELECT FROM jsonb_each(attributes) e WHERE jsonb_typeof(e.value) <> 'string')
		THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'attributes must name at least one attribute',
				HINT = 'It is an object of columns with their attributes, or an array of names that are both.';
		END IF;
		-- a portal's partner is known when its plans are made, and may have most of the rows
		SELECT format('partner_portal.acting_in_portal() AND %1$I = partner_portal.portal_workspace_id() AND partner_portal.few_rows(%1$I)', workspace_column)
			|| string_agg(' AND ' || partner_portal.attribute_condition(relation, e.key::name, e.value), '' ORDER BY e.key)
		INTO filtered FROM jsonb_each_text(attributes) e;
		readable := format('NOT partner_portal.acting_in_portal() AND %s', readable);
	END IF;

	-- a partition that is asked itself does not have its parent's policies
	FOR part IN SELECT t.relid FROM pg_partition_tree(relation) t UNION SELECT relation
	LOOP
		FOR policy IN SELECT p.polname FROM pg_policy p WHERE p.polrelid = part AND p.polname LIKE 'partner\_portal\_%' LOOP
			EXECUTE format('DROP POLICY %I ON %s', policy.polname, part);
		END LOOP;
		EXECUTE format('CREATE POLICY partner_portal_signed_in ON %s AS RESTRICTIVE USING ((SELECT partner_portal.current_account_id()) IS NOT NULL)
			WITH CHECK ((SELECT partner_portal.current_account_id()) IS NOT NULL)', part);
		EXECUTE format('CREATE POLICY partner_portal_read ON %s FOR SELECT USING (%s)', part, readable);
		EXECUTE format('CREATE POLICY partner_portal_insert ON %s FOR INSERT WITH CHECK (%s)', part, writable);
		EXECUTE format('CREATE POLICY partner_portal_update ON %s FOR UPDATE USING (%s) WITH CHECK (%s)', part, writable, writable);
		EXECUTE format('CREATE POLICY partner_portal_delete ON %s FOR DELETE USING (%s)', part, writable);
		IF filtered IS NOT NULL THEN
			EXECUTE format('CREATE POLICY partner_portal_attributes ON %s FOR SELECT USING (%s)', part, filtered);
		END IF;
		EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', part);
	END LOOP;
	index_needed := partner_portal.missing_index(relation);
	IF index_needed IS NOT NULL THEN
		RAISE NOTICE USING MESSAGE = format('relation %s has no index for its policies', relation), HINT = index_needed || ';';
	END IF;
END
$$;
COMMENT ON FUNCTION partner_portal.isolate(regclass, name, jsonb, text) IS
'Puts the isolation of our own tables on one of the application''s, and on its partitions: rows are read by those who have read on the workspace in workspace_column (bigint or integer), and written by those who have write_permission there; nobody else, nobody at all without an identity, the owner of the table included. Superusers and BYPASSRLS roles are not bound.
attributes opens the table to portal users, for reading: an object of columns with attributes, {"tenant": "tenant_id"}, or an array of names that are both. They see the rows of their portal''s partner in which every such column has one of their values; without a value, none. Without attributes they see no row. Columns are text, varchar, smallint, integer, bigint, boolean, date or uuid.
Repeating it replaces what it did. Privileges stay as they are: grant the application''s role SELECT, INSERT, UPDATE and DELETE as it needs, never TRUNCATE, TRIGGER or REFERENCES, and nothing on partitions. A NOTICE names the index that is missing. A partition made later needs isolate() again; check_isolation() finds it.
By the owner of the table. 42501, 22004, 42P01; 42703 no such column; 42804 its type; 42809 no table; 22023.';
REVOKE ALL ON FUNCTION partner_portal.isolate(regclass, name, jsonb, text) FROM PUBLIC;

CREATE FUNCTION partner_portal.release(relation regclass) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
	part regclass;
	policy record;
BEGIN
	PERFORM partner_portal.checked_relation(relation);
	IF NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = relation AND p.polname LIKE 'partner\_portal\_%') THEN
		RAISE EXCEPTION USING ERRCODE = 'PP005', MESSAGE = format('%s is not isolated', relation);
	END IF;
	FOR part IN SELECT t.relid FROM pg_partition_tree(relation) t UNION SELECT relation
	LOOP
		FOR policy IN SELECT p.polname FROM pg_policy p WHERE p.polrelid = part AND p.polname LIKE 'partner\_portal\_%' LOOP
			EXECUTE format('DROP POLICY %I ON %s', policy.polname, part);
		END LOOP;
		IF NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = part) THEN
			EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', part);
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION partner_portal.release(regclass) IS
'Takes what isolate() did off a table and its partitions: whoever has privileges on it sees every row again. Row level security stays on where there are other policies. By the owner of the table. 42501, 22004, 42P01, 42809; PP005 it is not isolated.';
REVOKE ALL ON FUNCTION partner_portal.release(regclass) FROM PUBLIC;

-- Estimates of what the catalog holds are far off, and compiling for them would take longer than all the rest.
CREATE FUNCTION partner_portal.check_isolation() RETURNS TABLE (object text, problem text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off SET standard_conforming_strings = on AS $$
#variable_conflict use_column
BEGIN
	PERFORM partner_portal.require_operator();
	RETURN QUERY
	WITH RECURSIVE own_object AS (
		SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'partner_portal'
		WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	), isolated AS (
		SELECT DISTINCT p.polrelid AS oid, true AS application FROM pg_policy p WHERE p.polname LIKE 'partner\_portal\_%'
		UNION
		SELECT t.relid, true FROM pg_policy p, pg_partition_tree(p.polrelid) t WHERE p.polname LIKE 'partner\_portal\_%'
		UNION
		SELECT h.inhrelid, true FROM pg_policy p JOIN pg_inherits h ON h.inhparent = p.polrelid WHERE p.polname LIKE 'partner\_portal\_%'
		UNION
		SELECT c.oid, false FROM pg_class c JOIN own_object o ON o.classid = 'pg_class'::regclass AND o.objid = c.oid
		WHERE c.relkind IN ('r', 'p') AND c.relname NOT IN ('role_grant', 'enrolled_role', 'acl_signal')
	), pool AS (
		SELECT r.oid, r.rolname, bool_or(e.as_what IN ('trusted_application', 'operator')) AS trusted, bool_and(e.as_what = 'operator') AS operator
		FROM partner_portal.enrolled_role e JOIN pg_roles r ON r.rolname = e.role_name GROUP BY r.oid, r.rolname
	), becomes AS (
		-- from 16 on a membership may be without SET ROLE, which who may grant it gives himself
		SELECT CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET, MEMBER WITH ADMIN OPTION' ELSE 'MEMBER' END AS how,
			CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'USAGE, SET' ELSE 'MEMBER' END AS acts
	), seen AS (
		-- what reads an isolated table, through any number of views
		SELECT v.oid, v.relkind, i.oid AS source FROM isolated i
		JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = i.oid AND d.classid = 'pg_rewrite'::regclass
		JOIN pg_rewrite w ON w.oid = d.objid JOIN pg_class v ON v.oid = w.ev_class AND v.oid <> i.oid AND v.relkind IN ('v', 'm')
		UNION
		SELECT v.oid, v.relkind, s.source FROM seen s
		JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid AND d.classid = 'pg_rewrite'::regclass
		JOIN pg_rewrite w ON w.oid = d.objid JOIN pg_class v ON v.oid = w.ev_class AND v.oid <> s.oid AND v.relkind IN ('v', 'm')
	), finding AS (
		SELECT c.oid::regclass::text AS object, CASE WHEN NOT c.relrowsecurity THEN 'row level security is off' ELSE 'row level security is not forced on the owner' END AS problem
		FROM isolated i JOIN pg_class c ON c.oid = i.oid WHERE NOT (c.relrowsecurity AND c.relforcerowsecurity)
		UNION ALL
		SELECT c.oid::regclass::text, 'policy "' || n.name || '" is missing'
		FROM isolated i JOIN pg_class c ON c.oid = i.oid, unnest(ARRAY['partner_portal_signed_in', 'partner_portal_read', 'partner_portal_insert', 'partner_portal_update', 'partner_portal_delete']) n (name)
		WHERE i.application AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = n.name)
		UNION ALL
		SELECT i.oid::regclass::text, 'policy "signed_in" is missing'
		FROM isolated i WHERE NOT i.application AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = i.oid AND p.polpermissive) AND i.oid <> to_regclass('partner_portal.account')
			AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = i.oid AND p.polname = 'signed_in' AND NOT p.polpermissive AND p.polcmd = '*')
		UNION ALL
		SELECT p.polrelid::regclass::text, 'policy "' || p.polname || '" lets more through'
		FROM isolated i JOIN pg_policy p ON p.polrelid = i.oid
		WHERE p.polpermissive AND CASE WHEN i.application THEN p.polname NOT LIKE 'partner\_portal\_%'
			ELSE NOT EXISTS (SELECT FROM pg_depend d JOIN own_object o ON o.classid = d.refclassid AND o.objid = d.refobjid
				WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_proc'::regclass) AND p.polrelid <> to_regclass('partner_portal.currency') END
		UNION ALL
		SELECT i.oid::regclass::text, 'has no index for its policies: ' || partner_portal.missing_index(i.oid)
		FROM isolated i WHERE i.application AND partner_portal.missing_index(i.oid) IS NOT NULL AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.oid)
		UNION ALL
		SELECT i.oid::regclass::text, 'has policies of 1.0, which hold and are slower: repeat isolate()'
		FROM isolated i JOIN pg_policy p ON p.polrelid = i.oid AND p.polname = 'partner_portal_read'
		WHERE i.application AND NOT EXISTS (SELECT FROM pg_depend d
			WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = 'partner_portal.few_rows(bigint)'::regprocedure)
		UNION ALL
		SELECT i.oid::regclass::text, 'trigger "' || t.tgname || '" does not fire always, so that revocations may not hold'
		FROM isolated i JOIN pg_trigger t ON t.tgrelid = i.oid WHERE NOT i.application AND t.tgname LIKE 'acl\_%' AND t.tgenabled <> 'A'
		UNION ALL
		SELECT i.oid::regclass::text, CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE 'role "' || r.rolname || '"' END || ' has ' || g.privilege_type || ' on it'
		FROM isolated i JOIN pg_class c ON c.oid = i.oid CROSS JOIN aclexplode(c.relacl) g LEFT JOIN pg_roles r ON r.oid = g.grantee
		WHERE g.grantee <> c.relowner AND (g.privilege_type IN ('TRUNCATE', 'TRIGGER', 'REFERENCES', 'MAINTAIN') OR (g.grantee = 0 AND NOT i.application))
			AND (g.grantee = 0 OR EXISTS (SELECT FROM pool p WHERE pg_has_role(p.oid, g.grantee, 'MEMBER')))
		UNION ALL
		SELECT 'role "' || p.rolname || '"', 'owns ' || c.oid::regclass || ', or is a member of its owner'
		FROM pool p, isolated i JOIN pg_class c ON c.oid = i.oid
		WHERE NOT p.operator AND pg_has_role(p.oid, c.relowner, 'MEMBER') AND NOT EXISTS (SELECT FROM pg_roles s WHERE s.oid = p.oid AND s.rolsuper)
		UNION ALL
		SELECT 'role "' || p.rolname || '"', CASE WHEN r.oid = p.oid THEN 'is ' ELSE 'may become role "' || r.rolname || '", which is ' END
			|| CASE WHEN r.rolsuper THEN 'a superuser' ELSE 'a role with BYPASSRLS' END
		FROM pool p CROSS JOIN becomes JOIN pg_roles r ON (r.rolsuper OR r.rolbypassrls) AND CASE WHEN (SELECT s.rolsuper FROM pg_roles s WHERE s.oid = p.oid) THEN r.oid = p.oid ELSE pg_has_role(p.oid, r.oid, becomes.how) END
		WHERE NOT p.operator
		UNION ALL
		-- a login has what its role was granted, and attributes of its own
		SELECT 'role "' || r.rolname || '"', 'is a role with BYPASSRLS, and a member of role "' || min(p.rolname) || '"'
		FROM pool p CROSS JOIN becomes JOIN pg_roles r ON r.rolbypassrls AND r.rolcanlogin AND NOT r.rolsuper AND pg_has_role(r.oid, p.oid, becomes.acts)
		WHERE NOT p.operator AND r.oid NOT IN (SELECT o.oid FROM pool o) GROUP BY r.rolname
		UNION ALL
		SELECT 'role "' || p.rolname || '"', 'is a member of ' || r.rolname
		FROM pool p JOIN pg_roles r ON r.rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program', 'pg_read_all_data', 'pg_write_all_data', 'pg_maintain',
			'pg_read_all_stats') AND pg_has_role(p.oid, r.oid, 'MEMBER')
		WHERE NOT p.operator AND NOT (SELECT s.rolsuper FROM pg_roles s WHERE s.oid = p.oid)
		UNION ALL
		SELECT 'role "' || p.rolname || '"', x.what
		FROM pool p JOIN pg_roles r ON r.oid = p.oid AND NOT r.rolsuper,
			LATERAL (SELECT 'may create roles' AS what WHERE r.rolcreaterole UNION ALL SELECT 'may replicate, and so read every row' WHERE r.rolreplication) x
		WHERE NOT p.operator
		UNION ALL
		SELECT 'role "' || p.rolname || '"', 'may create ' || x.what
		FROM pool p, LATERAL (SELECT 'temporary tables, which outlive an identity: REVOKE TEMPORARY ON DATABASE ' || quote_ident(current_database()) || ' FROM PUBLIC' AS what
				WHERE has_database_privilege(p.oid, current_database(), 'TEMPORARY')
			UNION ALL SELECT 'objects in schema partner_portal' WHERE has_schema_privilege(p.oid, 'partner_portal', 'CREATE')) x
		WHERE NOT p.operator AND NOT (SELECT s.rolsuper FROM pg_roles s WHERE s.oid = p.oid)
		UNION ALL
		-- PostgreSQL tells sessions apart by role, and tenants share one
		SELECT 'role "' || p.rolname || '"', x.what
		FROM pool p, LATERAL (SELECT 'may end sessions that use the same role: REVOKE EXECUTE ON FUNCTION pg_cancel_backend(integer), pg_terminate_backend(integer, bigint) FROM PUBLIC' AS what
				WHERE has_function_privilege(p.oid, 'pg_catalog.pg_cancel_backend(integer)', 'EXECUTE') OR has_function_privilege(p.oid, 'pg_catalog.pg_terminate_backend(integer, bigint)', 'EXECUTE')
			UNION ALL SELECT 'may make large objects, which every session of the role reads: REVOKE EXECUTE ON FUNCTION lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC'
				WHERE has_function_privilege(p.oid, 'pg_catalog.lo_creat(integer)', 'EXECUTE') OR has_function_privilege(p.oid, 'pg_catalog.lo_create(oid)', 'EXECUTE')
					OR has_function_privilege(p.oid, 'pg_catalog.lo_from_bytea(oid, bytea)', 'EXECUTE')) x
		WHERE NOT p.operator AND NOT (SELECT s.rolsuper FROM pg_roles s WHERE s.oid = p.oid)
		UNION ALL
		SELECT 'role "' || p.rolname || '"', 'may set ' || s.name
		FROM pool p, unnest(ARRAY['session_replication_role', 'partner_portal.restoring', 'partner_portal.allow_drop']) s (name)
		WHERE NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = p.oid) AND has_parameter_privilege(p.oid, s.name, 'SET')
		UNION ALL
		SELECT 'role "' || p.rolname || '"', 'may sign anybody in with login_as(), though it is not a trusted application'
		FROM pool p WHERE NOT p.trusted AND has_function_privilege(p.oid, 'partner_portal.login_as(bigint)', 'EXECUTE') AND NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = p.oid)
		UNION ALL
		SELECT DISTINCT s.oid::regclass::text, CASE WHEN s.relkind = 'm' THEN 'materialized view keeps rows of ' ELSE 'view reads with its owner''s rights, not security_invoker, from ' END || min(s.source::regclass::text) OVER (PARTITION BY s.oid)
		FROM seen s JOIN pg_class v ON v.oid = s.oid
		WHERE (s.relkind = 'm' OR NOT EXISTS (SELECT FROM pg_options_to_table(v.reloptions) t WHERE t.option_name = 'security_invoker' AND t.option_value::boolean))
			AND NOT EXISTS (SELECT FROM own_object o WHERE o.classid = 'pg_class'::regclass AND o.objid = s.oid)
		UNION ALL
		SELECT f.oid::regprocedure::text, 'runs as role "' || r.rolname || '", whom row level security does not bind, and role "' || p.rolname || '" may call it'
		FROM pg_proc f JOIN pg_roles r ON r.oid = f.proowner AND (r.rolsuper OR r.rolbypassrls) JOIN pool p ON has_function_privilege(p.oid, f.oid, 'EXECUTE') AND NOT p.operator
		WHERE f.prosecdef AND f.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
			AND has_schema_privilege(p.oid, f.pronamespace, 'USAGE')
			AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.deptype = 'e')
		UNION ALL
		SELECT f.oid::regprocedure::text, 'PUBLIC may call it'
		FROM pg_proc f JOIN own_object o ON o.classid = 'pg_proc'::regclass AND o.objid = f.oid
		WHERE EXISTS (SELECT FROM aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) g WHERE g.grantee = 0)
		UNION ALL
		SELECT f.oid::regprocedure::text, 'a policy asks it, and it must be STABLE, PARALLEL SAFE and LEAKPROOF'
		FROM pg_proc f JOIN own_object o ON o.classid = 'pg_proc'::regclass AND o.objid = f.oid
		WHERE (f.provolatile <> 's' OR f.proparallel <> 's' OR NOT f.proleakproof)
			AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_policy'::regclass AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = f.oid)
		UNION ALL
		SELECT c.oid::regclass::text, 'refers to workspaces and is not isolated, and role "' || min(p.rolname) || '" may read it'
		FROM pg_class c JOIN pool p ON has_any_column_privilege(p.oid, c.oid, 'SELECT') AND NOT p.operator
		WHERE c.relkind IN ('r', 'p', 'f') AND NOT c.relrowsecurity AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'partner_portal'::regnamespace)
			AND has_schema_privilege(p.oid, c.relnamespace, 'USAGE') AND c.oid NOT IN (SELECT i.oid FROM isolated i)
			AND (EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.confrelid IN (SELECT i.oid FROM isolated i))
				OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'workspace_id' AND NOT a.attisdropped))
		GROUP BY c.oid
	)
	SELECT DISTINCT f.object COLLATE "C", f.problem COLLATE "C" FROM finding f ORDER BY 1, 2;
END
$$;
COMMENT ON FUNCTION partner_portal.check_isolation() IS
'Names every hole found in the isolation of our tables, of those isolate() is used on, and of the enrolled roles: row level security off or not forced, policies missing or added, indexes missing, roles that own tables, bypass row security, may become somebody who does, or may make temporary tables or large objects, or end sessions of their own role; logins with BYPASSRLS that are members of one; views and materialized views that read with other rights, SECURITY DEFINER functions that do, privileges too many, tables that refer to workspaces and are not isolated. No row is no hole. Operator only (42501).';
REVOKE ALL ON FUNCTION partner_portal.check_isolation() FROM PUBLIC;

INSERT INTO partner_portal.role_grant (as_what, privilege, object) VALUES
	('application', 'EXECUTE', 'FUNCTION partner_portal.visible_workspaces(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.lowest_workspace(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.highest_workspace(text)'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.portal_workspace_id()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.acting_in_portal()'),
	('application', 'EXECUTE', 'FUNCTION partner_portal.few_rows(bigint)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.checked_relation(regclass)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.attribute_condition(regclass, name, text)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.isolated_columns(regclass)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.missing_index(regclass)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.isolate(regclass, name, jsonb, text)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.release(regclass)'),
	('operator', 'EXECUTE', 'FUNCTION partner_portal.check_isolation()');
