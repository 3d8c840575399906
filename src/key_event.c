/*-------------------------------------------------------------------------
 *
 * key_event.c
 *		Webhook events about keys: one for each statement, workspace and
 *		direction, with how many keys there were, however many.
 *
 * Most workspaces want none, and an activation must not be slower for it.  So
 * each backend remembers which workspaces have an endpoint that wants such
 * events; a trigger of webhook_endpoint invalidates the table's relation cache
 * entry when that changes, at commit, and with savepoints by itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "partner_portal.h"
#include "security_key.h"

PG_FUNCTION_INFO_V1(partner_portal_endpoints_changed);

/* What a workspace wants to hear, by bits. */
#define HEARS_ACTIVATED	0x1
#define HEARS_DISABLED	0x2

static const char event_activated[] = "security_key.activated";
static const char event_disabled[] = "security_key.disabled";

typedef struct Hearer
{
	int64		workspace_id;	/* hash key */
	int			hears;
} Hearer;

static Oid	endpoints = InvalidOid;
static uint64 changed = 1;		/* another number whenever endpoints may have changed */
static uint64 remembered = 0;	/* what it was when the hearers were read */
static HTAB *hearers = NULL;	/* NULL is that nobody wants any */

/*
 * forget notes that endpoints have changed, or that messages were lost.  It
 * must do nothing else: it runs anywhere.
 */
static void
forget(Datum arg, Oid relation)
{
	if (relation == InvalidOid || relation == endpoints)
		changed++;
}

/*
 * wanted returns the events about keys among those that an endpoint names.
 */
static int
wanted(Datum events)
{
	Datum	   *names;
	int			count;
	int			hears = 0;

	deconstruct_array(DatumGetArrayTypeP(events), TEXTOID, -1, false, TYPALIGN_INT, &names, NULL, &count);
	for (int i = 0; i < count; i++)
	{
		bool		all = pp_text_is(names[i], "*");

		if (all || pp_text_is(names[i], event_activated))
			hears |= HEARS_ACTIVATED;
		if (all || pp_text_is(names[i], event_disabled))
			hears |= HEARS_DISABLED;
	}
	pfree(names);
	return hears;
}

/*
 * add_hearer remembers that a workspace wants events.
 */
static void
add_hearer(int64 workspace_id, int hears)
{
	Hearer	   *hearer;
	bool		found;

	if (hearers == NULL)
	{
		HASHCTL		control = {0};

		control.keysize = sizeof(int64);
		control.entrysize = sizeof(Hearer);
		control.hcxt = CacheMemoryContext;
		hearers = hash_create("partner_portal hearers of keys", 64, &control,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	hearer = hash_search(hearers, &workspace_id, HASH_ENTER, &found);
	hearer->hears = hears | (found ? hearer->hears : 0);
}

/*
 * remember reads who wants events, as of the latest commit.
 */
static void
remember(void)
{
	static bool registered = false;
	Relation	relation;
	SysScanDesc scan;
	HeapTuple	row;
	Oid			schema;
	uint64		seen;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(forget, (Datum) 0);
		registered = true;
	}
	if (hearers != NULL)
		hash_destroy(hearers);
	hearers = NULL;
	if (!pp_acl_schema(&schema) || (relation = pp_open_ours(schema, "webhook_endpoint")) == NULL)
		return;
	endpoints = RelationGetRelid(relation);
	seen = changed;
	scan = systable_beginscan(relation, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(row = systable_getnext(scan)))
	{
		bool		isnull;
		int			hears;

		if (pp_row_text_is(row, relation, "state", "deleted"))
			continue;
		hears = wanted(pp_row_column(row, relation, "events", &isnull));
		if (hears != 0)
			add_hearer(pp_row_id(row, relation, "workspace_id"), hears);
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	/* What changed meanwhile is read again next time. */
	remembered = seen;
}

/*
 * is_heard tells whether anybody wants an event about a workspace: itself, or
 * its partner.
 */
static bool
is_heard(int64 workspace_id, int event)
{
	Hearer	   *hearer = hash_search(hearers, &workspace_id, HASH_FIND, NULL);
	PpWorkspace workspace;

	if (hearer != NULL && (hearer->hears & event) != 0)
		return true;
	if (!pp_workspace(workspace_id, &workspace) || workspace.partner_key == 0)
		return false;
	hearer = hash_search(hearers, &workspace.partner_key, HASH_FIND, NULL);
	return hearer != NULL && (hearer->hears & event) != 0;
}

/*
 * write_event owes an event to all that want it, once per line of the log.
 */
static void
write_event(const char *event, const PpUsageChange *change, const PpKeyNote *note)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[4];
	StringInfoData data;
	PpOwner		self;

	initStringInfo(&data);
	appendStringInfo(&data, "{\"activity_id\": " INT64_FORMAT ", \"keys\": %d, \"smartphone\": %d, \"contactless_card\": %d, \"key_ids\": [",
					 note->line, note->count, note->kinds[PP_SMARTPHONE], note->kinds[PP_CONTACTLESS_CARD]);
	for (int i = 0; i < Min(note->count, PP_NOTED_KEYS); i++)
		appendStringInfo(&data, i == 0 ? INT64_FORMAT : ", " INT64_FORMAT, note->ids[i]);
	appendStringInfoChar(&data, ']');
	if (note == &change->disabled)
	{
		appendStringInfo(&data, ", \"revoked\": %d, \"deleted\": %d, \"reason\": ", note->revoked, change->deleted_keys);
		if (note->reason[0] != '\0' && !note->reasons && change->deleted_keys == 0)
			escape_json(&data, note->reason);
		else
			appendStringInfoString(&data, "null");
	}
	appendStringInfoChar(&data, '}');

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	pp_become_owner(&self);
	pp_keep_plan(&plan, "SELECT partner_portal.enqueue_webhook_event($1, $2, $3::pg_catalog.jsonb, $4)", 4, types);
	values[0] = Int64GetDatum(change->workspace_id);
	values[1] = CStringGetTextDatum(event);
	values[2] = CStringGetTextDatum(data.data);
	values[3] = CStringGetTextDatum(psprintf(INT64_FORMAT, note->line));
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not write the event \"%s\"", event);
	pp_stop_being_owner(&self);
	SPI_finish();
}

/*
 * pp_key_events owes the events about what a statement did to the keys of
 * workspaces, whose changes are counted and logged by now.
 */
void
pp_key_events(PpUsageChange **changes, int count)
{
	AcceptInvalidationMessages();
	if (remembered != changed)
		remember();
	if (hearers == NULL)
		return;
	for (int i = 0; i < count; i++)
	{
		const PpUsageChange *change = changes[i];

		CHECK_FOR_INTERRUPTS();
		if (change->disabled.count > 0 && is_heard(change->workspace_id, HEARS_DISABLED))
			write_event(event_disabled, change, &change->disabled);
		if (change->activated.count > 0 && is_heard(change->workspace_id, HEARS_ACTIVATED))
			write_event(event_activated, change, &change->activated);
	}
}

/*
 * endpoints_changed is the trigger of webhook_endpoint: it tells every backend,
 * at commit, and this one at the next command, to look again who wants events.
 */
Datum
partner_portal_endpoints_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("endpoints_changed() must be fired AFTER")));
	CacheInvalidateRelcacheByRelid(RelationGetRelid(trigger->tg_relation));
	PG_RETURN_POINTER(NULL);
}
