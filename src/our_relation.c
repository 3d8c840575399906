/*-------------------------------------------------------------------------
 *
 * our_relation.c
 *		The tables, indexes and sequences that C code opens for every statement.
 *
 * Their oids are looked up by name once and remembered until something in
 * pg_class or pg_namespace changes.  Columns are known by number.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "partner_portal.h"

static const char *const relation_names[PP_OUR_RELATIONS] = {
	[PP_WORKSPACE] = "workspace",
	[PP_WORKSPACE_PARTNER_KEY] = "workspace_partner_key",
	[PP_WORKSPACE_USAGE] = "workspace_usage",
	[PP_WORKSPACE_USAGE_PKEY] = "workspace_usage_pkey",
	[PP_ACCOUNT] = "account",
	[PP_ACCOUNT_PKEY] = "account_pkey",
	[PP_ACTIVITY] = "activity",
	[PP_ACTIVITY_PKEY] = "activity_pkey",
	[PP_KEY_HISTORY] = "key_history",
	[PP_SECURITY_KEY] = "security_key",
	[PP_SECURITY_KEY_PKEY] = "security_key_pkey",
	[PP_KEY_ID_SEQUENCE] = "security_key_key_id_seq",
	[PP_WEBHOOK_ENDPOINT] = "webhook_endpoint",
	[PP_WEBHOOK_ENDPOINT_ENDPOINT_ID] = "webhook_endpoint_endpoint_id",
	[PP_NOTIFICATION] = "notification",
	[PP_NOTIFICATION_PKEY] = "notification_pkey",
	[PP_NOTIFICATION_NATURAL_KEY] = "notification_natural_key",
	[PP_DELIVERY_QUEUE] = "delivery_queue",
	[PP_DELIVERY_QUEUE_DUE] = "delivery_queue_due",
	[PP_DELIVERY_DESTINATION] = "delivery_destination",
	[PP_DELIVERY_DESTINATION_PKEY] = "delivery_destination_pkey",
	[PP_NOTIFICATION_ID_SEQUENCE] = "notification_notification_id_seq",
};

static Oid	relation_oids[PP_OUR_RELATIONS];
static Oid	schema_oid;
static bool schema_known = false;	/* whether schema_oid tells, which is
									 * InvalidOid where there is none */

/*
 * forget_relations forgets what was looked up.
 */
static void
forget_relations(Datum arg, int cache, uint32 hash)
{
	memset(relation_oids, 0, sizeof(relation_oids));
	schema_known = false;
}

/*
 * register_callbacks has changes of the catalog told, from the first look on.
 */
static void
register_callbacks(void)
{
	static bool registered = false;

	if (registered)
		return;
	CacheRegisterSyscacheCallback(RELNAMENSP, forget_relations, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACENAME, forget_relations, (Datum) 0);
	registered = true;
}

/*
 * pp_our_schema returns the oid of our schema; InvalidOid where the extension is
 * not installed.
 */
Oid
pp_our_schema(void)
{
	if (!schema_known)
	{
		register_callbacks();
		schema_oid = get_namespace_oid(PP_SCHEMA, true);
		schema_known = true;
	}
	return schema_oid;
}

/*
 * pp_our_relation returns the oid of one of ours; InvalidOid if there is none.
 * It raises an error where the extension is not installed.
 */
Oid
pp_our_relation(PpOurRelation which)
{
	register_callbacks();
	if (!OidIsValid(relation_oids[which]))
	{
		Oid			found = get_relname_relid(relation_names[which], get_namespace_oid(PP_SCHEMA, false));

		relation_oids[which] = found;
	}
	return relation_oids[which];
}

/*
 * pp_check_columns raises an error unless a table begins with these columns.
 */
void
pp_check_columns(TupleDesc desc, int count, const char *const *names)
{
	if (desc->natts < count)
		elog(ERROR, "table has %d columns, expected %d", desc->natts, count);
	for (int i = 0; i < count; i++)
		if (strcmp(NameStr(TupleDescAttr(desc, i)->attname), names[i]) != 0)
			elog(ERROR, "column %d is \"%s\", expected \"%s\"", i + 1,
				 NameStr(TupleDescAttr(desc, i)->attname), names[i]);
}
