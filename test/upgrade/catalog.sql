-- catalog.sql: everything that partner_portal has in the catalog, a line (what, detail) for each, without OIDs; so that two
-- databases can be compared. Privileges are those of every role, by name. (pg_attver is a number that some minor releases of the
-- server keep for themselves.)
SET search_path = pg_catalog;
CREATE TEMP VIEW member AS
	SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
	WHERE e.extname = 'partner_portal' AND d.deptype = 'e';
CREATE FUNCTION pg_temp.acl(acl aclitem[], fallback aclitem[]) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(format('%s %s%s by %s', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type,
			CASE WHEN a.is_grantable THEN '*' END, pg_get_userbyid(a.grantor)), ', ' ORDER BY pg_get_userbyid(a.grantee), a.privilege_type), 'nobody')
	FROM aclexplode(coalesce(acl, fallback)) a
$$;
COPY (
	-- what belongs to the extension; the rest is about these
	SELECT 'member ' || pg_describe_object(classid, objid, 0) AS what, '' AS detail FROM member
	UNION ALL SELECT 'extension', format('version %s, relocatable %s, in schema %s', extversion, extrelocatable, extnamespace::regnamespace)
		FROM pg_extension WHERE extname = 'partner_portal'
	UNION ALL SELECT 'dumped table ' || c::regclass, '' || condition
		FROM pg_extension, unnest(extconfig, extcondition) AS u (c, condition) WHERE extname = 'partner_portal'
	UNION ALL SELECT 'schema ' || nspname, format('owner %s, acl %s', pg_get_userbyid(nspowner), pg_temp.acl(nspacl, acldefault('n', nspowner)))
		FROM pg_namespace WHERE nspname = 'partner_portal'
	UNION ALL SELECT 'function ' || p.oid::regprocedure, format(E'owner %s, acl %s\n%s', pg_get_userbyid(proowner), pg_temp.acl(proacl, acldefault('f', proowner)),
			CASE WHEN prokind <> 'a' THEN pg_get_functiondef(p.oid) END)
		FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
	UNION ALL SELECT 'aggregate ' || p.oid::regprocedure, to_jsonb(a)::text
		FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
	UNION ALL SELECT 'relation ' || c.oid::regclass, format('kind %s, persistence %s, row security %s, forced %s, options %s, replica identity %s, owner %s, acl %s',
			relkind, relpersistence, relrowsecurity, relforcerowsecurity, reloptions, relreplident, pg_get_userbyid(relowner),
			pg_temp.acl(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)))
		FROM pg_class c WHERE relnamespace = 'partner_portal'::regnamespace AND relkind NOT IN ('i', 't')
	UNION ALL SELECT format('column %s of %s', row_number() OVER (PARTITION BY attrelid ORDER BY attnum), attrelid::regclass),
			format('%I %s, not null %s, identity "%s", generated "%s", default %s, collation %s, storage %s, compression "%s", statistics %s, options %s, acl %s', attname,
			format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, pg_get_expr(d.adbin, d.adrelid), attcollation::regcollation, attstorage,
			attcompression, nullif(attstattarget, -1),
			ARRAY(SELECT o FROM unnest(attoptions) o WHERE o !~ '^pg_attver=' ORDER BY 1), pg_temp.acl(attacl, NULL))
		FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid LEFT JOIN pg_attrdef d ON d.adrelid = attrelid AND d.adnum = attnum
		WHERE relnamespace = 'partner_portal'::regnamespace AND relkind NOT IN ('i', 't', 'S') AND attnum > 0 AND NOT attisdropped
	UNION ALL SELECT format('constraint %s of %s', conname, coalesce(nullif(conrelid, 0)::regclass::text, contypid::regtype::text)),
			format('%s, validated %s', pg_get_constraintdef(oid), convalidated)
		FROM pg_constraint WHERE connamespace = 'partner_portal'::regnamespace
	UNION ALL SELECT 'index ' || indexrelid::regclass, format('%s, valid %s, clustered %s, of the replica identity %s, options %s', pg_get_indexdef(indexrelid), indisvalid,
			indisclustered, indisreplident, c.reloptions)
		FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE relnamespace = 'partner_portal'::regnamespace
	UNION ALL SELECT 'view ' || c.oid::regclass, pg_get_viewdef(c.oid) FROM pg_class c WHERE relnamespace = 'partner_portal'::regnamespace AND relkind IN ('v', 'm')
	UNION ALL SELECT format('rule %s of %s', rulename, ev_class::regclass), format('%s, enabled %s', CASE WHEN rulename <> '_RETURN' THEN pg_get_ruledef(r.oid) END, ev_enabled)
		FROM pg_rewrite r JOIN pg_class c ON c.oid = ev_class WHERE relnamespace = 'partner_portal'::regnamespace
	UNION ALL SELECT format('sequence %s', seqrelid::regclass), format('%s, start %s, by %s, from %s to %s, cache %s, cycle %s, for %s', seqtypid::regtype, seqstart, seqincrement, seqmin,
			seqmax, seqcache, seqcycle, (SELECT pg_describe_object(refclassid, refobjid, refobjsubid) FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = seqrelid
				AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')))
		FROM pg_sequence JOIN pg_class c ON c.oid = seqrelid WHERE relnamespace = 'partner_portal'::regnamespace
	UNION ALL SELECT format('policy %s on %s', polname, polrelid::regclass), format('for %s, permissive %s, to %s, using %s, with check %s', polcmd, polpermissive,
			(SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(r) END, ' ' ORDER BY r) FROM unnest(polroles) r),
			pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
		FROM pg_policy JOIN pg_class c ON c.oid = polrelid WHERE relnamespace = 'partner_portal'::regnamespace
	UNION ALL SELECT format('trigger %s on %s', tgname, tgrelid::regclass), format('%s, enabled %s', pg_get_triggerdef(t.oid), tgenabled)
		FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = 'partner_portal'::regnamespace AND NOT tgisinternal
	UNION ALL SELECT 'event trigger ' || evtname, format('on %s, tags %s, calls %s, enabled %s, owner %s', evtevent, evttags, evtfoid::regprocedure, evtenabled, pg_get_userbyid(evtowner))
		FROM pg_event_trigger t JOIN member m ON m.classid = 'pg_event_trigger'::regclass AND m.objid = t.oid
	UNION ALL SELECT 'type ' || t.oid::regtype, format('kind %s, of %s, not null %s, default %s, owner %s, acl %s, labels %s', typtype, format_type(typbasetype, typtypmod), typnotnull,
			typdefault, pg_get_userbyid(typowner), pg_temp.acl(typacl, acldefault('T', typowner)), (SELECT array_agg(enumlabel ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid))
		FROM pg_type t WHERE typnamespace = 'partner_portal'::regnamespace
	UNION ALL SELECT 'statistics ' || stxname, pg_get_statisticsobjdef(oid) FROM pg_statistic_ext WHERE stxnamespace = 'partner_portal'::regnamespace
	UNION ALL SELECT 'operator ' || oid::regoperator, format('calls %s', oprcode) FROM pg_operator WHERE oprnamespace = 'partner_portal'::regnamespace
	UNION ALL SELECT 'comment on ' || pg_describe_object(d.classoid, d.objoid, d.objsubid), description FROM pg_description d
		WHERE pg_describe_object(d.classoid, d.objoid, d.objsubid) ~ 'partner_portal'
	-- what is the extension's own, and so not dumped
	UNION ALL SELECT 'privileges of the extension itself on ' || pg_describe_object(p.classoid, p.objoid, p.objsubid), pg_temp.acl(initprivs, NULL) FROM pg_init_privs p
		WHERE p.objoid >= 16384
	UNION ALL SELECT format('row of role_grant (%s, %s)', as_what, object), string_agg(privilege, ', ' ORDER BY privilege) FROM partner_portal.role_grant GROUP BY as_what, object
	ORDER BY 1, 2
) TO STDOUT;
