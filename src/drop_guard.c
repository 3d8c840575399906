/*-------------------------------------------------------------------------
 *
 * drop_guard.c
 *		Refuses to drop the extension while it holds data, and to truncate its
 *		tables.
 *
 * An event trigger of an extension does not fire for the DROP that takes the
 * extension itself away, so the refusal is an object access hook: it sees every
 * object that goes, whichever way it goes (DROP EXTENSION, DROP OWNED, DROP
 * SCHEMA or DROP LANGUAGE with CASCADE).  The tables that decide are looked at
 * while they are still there, when their own turn comes; the error then brings
 * back what went before.  The event trigger fires before anything is dropped
 * and has no other purpose than to have the library loaded by then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "commands/event_trigger.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_drop_guard);
PG_FUNCTION_INFO_V1(partner_portal_refuse_truncate);

static object_access_hook_type prev_object_access = NULL;

/*
 * decides tells whether a relation is one of those without whose rows there is
 * no data: workspace or account, as a member of the extension.
 */
static bool
decides(Oid relid)
{
	char	   *name = get_rel_name(relid);
	Oid			schema;
	bool		ours;

	if (name == NULL)
		return false;
	ours = strcmp(name, "workspace") == 0 || strcmp(name, "account") == 0;
	pfree(name);
	if (!ours || get_rel_relkind(relid) != RELKIND_RELATION)
		return false;
	schema = get_namespace_oid(PP_SCHEMA, true);
	if (!OidIsValid(schema) || get_rel_namespace(relid) != schema)
		return false;
	return getExtensionOfObject(RelationRelationId, relid) == get_extension_oid(PP_SCHEMA, true);
}

/*
 * has_rows tells whether a table has rows: as last committed, or as this
 * transaction has left them.
 */
static bool
has_rows(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Snapshot	latest = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, latest, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		found = table_scan_getnextslot(scan, ForwardScanDirection, slot);

	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(latest);
	table_close(rel, NoLock);
	return found;
}

/*
 * guard_drop is the object access hook.
 */
static void
guard_drop(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, classId, objectId, subId, arg);
	if (access != OAT_DROP || classId != RelationRelationId || subId != 0 ||
		pp_allow_drop || IsBinaryUpgrade)
		return;
	if (decides(objectId) && has_rows(objectId))
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("extension \"%s\" cannot be dropped while it holds data", PP_SCHEMA),
				 errdetail("Table \"%s\" has rows.", get_rel_name(objectId)),
				 errhint("If all of it may go for good, take a backup, then SET partner_portal.allow_drop = on and drop it again.")));
}

/*
 * drop_guard is the event trigger: being called, it is there.
 */
Datum
partner_portal_drop_guard(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("drop_guard() must be called as an event trigger")));
	PG_RETURN_NULL();
}

/*
 * refuse_truncate is the BEFORE TRUNCATE trigger of all tables that have no
 * stricter one: no row trigger sees what TRUNCATE takes away.  A table whose
 * trigger has an argument is never truncated: counters, and so the limit, would
 * be wrong from then on, and no cascade takes all of them along, for the log
 * and the documents refuse theirs.
 */
Datum
partner_portal_refuse_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	bool		never;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("refuse_truncate() must be fired before TRUNCATE")));
	never = trigdata->tg_trigger->tgnargs > 0;
	if (never || !pp_allow_drop)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table \"%s\" cannot be truncated", RelationGetRelationName(trigdata->tg_relation)),
				 errdetail("What is derived from its rows would stay."),
				 never ? errhint("Use DELETE.") :
				 errhint("Use DELETE. If all of it may go for good, SET partner_portal.allow_drop = on first.")));
	return PointerGetDatum(NULL);
}

/*
 * pp_others_watch_access tells whether object access is of interest to anybody
 * but this file, which minds drops alone.
 */
bool
pp_others_watch_access(void)
{
	return object_access_hook != guard_drop || prev_object_access != NULL;
}

/*
 * pp_drop_guard_hooks installs the guard.
 */
void
pp_drop_guard_hooks(void)
{
	prev_object_access = object_access_hook;
	object_access_hook = guard_drop;
}
