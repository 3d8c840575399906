/*-------------------------------------------------------------------------
 *
 * webhook_event.c
 *		Who wants to hear of what, and the messages that an event owes them.
 *
 * An event is about a workspace, and heard by endpoints of that workspace and
 * of its partner.  Most workspaces have no endpoint, and what causes events must
 * not be slower for it.  So each backend remembers which workspaces have
 * endpoints, and those of the workspaces that were asked for; a trigger of
 * webhook_endpoint invalidates the table's relation cache entry when they
 * change, at commit, and with savepoints by itself.  Endpoints are those of the
 * latest commit and of one's own transaction, whatever snapshot that has.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_endpoints_changed);
PG_FUNCTION_INFO_V1(partner_portal_enqueue_webhook_event);
PG_FUNCTION_INFO_V1(partner_portal_enqueue_event_for);

typedef struct Endpoint
{
	int64		endpoint_id;
	int			count;
	char	  **events;			/* names of what it wants; * is all */
} Endpoint;

/* A workspace that has endpoints. */
typedef struct Hearer
{
	int64		workspace_id;	/* hash key */
	int			count;			/* of its endpoints; -1 is not read yet */
	Endpoint   *endpoints;		/* by endpoint_id */
} Hearer;

static Oid	endpoints = InvalidOid; /* the table */
static uint64 changed = 1;		/* another number whenever endpoints may have
								 * changed */
static uint64 remembered = 0;	/* what it was when the hearers were read */
static MemoryContext memory = NULL; /* of all that is remembered */
static HTAB *hearers = NULL;	/* NULL is that nobody has an endpoint */

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
 * add_hearer remembers that a workspace has endpoints.
 */
static void
add_hearer(int64 workspace_id)
{
	Hearer	   *hearer;
	bool		found;

	if (hearers == NULL)
	{
		HASHCTL		control = {0};

		control.keysize = sizeof(int64);
		control.entrysize = sizeof(Hearer);
		control.hcxt = memory;
		hearers = hash_create("partner_portal hearers", 64, &control,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	hearer = hash_search(hearers, &workspace_id, HASH_ENTER, &found);
	if (!found)
		hearer->count = -1;
}

/*
 * remember reads who has endpoints, as of the latest commit.
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
	hearers = NULL;
	if (memory != NULL)
		MemoryContextReset(memory);
	else
		memory = AllocSetContextCreate(CacheMemoryContext, "partner_portal endpoints", ALLOCSET_SMALL_SIZES);
	if (!pp_acl_schema(&schema) || (relation = pp_open_ours(schema, "webhook_endpoint")) == NULL)
		return;
	endpoints = RelationGetRelid(relation);
	seen = changed;
	scan = systable_beginscan(relation, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(row = systable_getnext(scan)))
		if (!pp_row_text_is(row, relation, "state", "deleted"))
			add_hearer(pp_row_id(row, relation, "workspace_id"));
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	/* What changed meanwhile is read again next time. */
	remembered = seen;
}

/*
 * pp_anybody_hears looks for changes of endpoints and tells whether any
 * workspace has one.  What is asked below is as of then.
 */
bool
pp_anybody_hears(void)
{
	AcceptInvalidationMessages();
	if (remembered != changed)
		remember();
	return hearers != NULL;
}

/*
 * read_endpoint adds an endpoint to those of a workspace.
 */
static void
read_endpoint(Hearer *hearer, HeapTuple row, Relation relation)
{
	Endpoint   *endpoint = &hearer->endpoints[hearer->count];
	bool		isnull;
	Datum	   *names;

	endpoint->endpoint_id = pp_row_id(row, relation, "endpoint_id");
	deconstruct_array(DatumGetArrayTypeP(pp_row_column(row, relation, "events", &isnull)),
					  TEXTOID, -1, false, TYPALIGN_INT, &names, NULL, &endpoint->count);
	endpoint->events = palloc(endpoint->count * sizeof(char *));
	for (int i = 0; i < endpoint->count; i++)
		endpoint->events[i] = TextDatumGetCString(names[i]);
	pfree(names);
	hearer->count++;
}

/*
 * read_endpoints reads the endpoints of a workspace, as of the latest commit.
 */
static void
read_endpoints(Hearer *hearer)
{
	MemoryContext old_context = MemoryContextSwitchTo(memory);
	Relation	relation = table_open(pp_our_relation(PP_WEBHOOK_ENDPOINT), AccessShareLock);
	SysScanDesc scan;
	HeapTuple	row;
	Hearer		read = {.workspace_id = hearer->workspace_id};
	int			room = 0;

	scan = pp_scan_by_id(relation, "webhook_endpoint_pkey", "workspace_id", hearer->workspace_id);
	while (HeapTupleIsValid(row = systable_getnext(scan)))
	{
		if (pp_row_text_is(row, relation, "state", "deleted"))
			continue;
		if (read.count == room)
		{
			room = Max(4, room * 2);
			read.endpoints = read.endpoints == NULL ? palloc(room * sizeof(Endpoint)) :
				repalloc(read.endpoints, room * sizeof(Endpoint));
		}
		read_endpoint(&read, row, relation);
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	*hearer = read;
	MemoryContextSwitchTo(old_context);
}

/*
 * hearer_of returns the endpoints of a workspace, NULL if it has none.
 */
static Hearer *
hearer_of(int64 workspace_id)
{
	Hearer	   *hearer = hearers == NULL ? NULL : hash_search(hearers, &workspace_id, HASH_FIND, NULL);

	if (hearer != NULL && hearer->count < 0)
		read_endpoints(hearer);
	return hearer;
}

/*
 * wants tells whether an endpoint wants an event.
 */
static bool
wants(const Endpoint *endpoint, const char *event)
{
	for (int i = 0; i < endpoint->count; i++)
		if (strcmp(endpoint->events[i], event) == 0 || strcmp(endpoint->events[i], "*") == 0)
			return true;
	return false;
}

/*
 * hears tells whether a workspace has an endpoint that wants an event.
 */
static bool
hears(int64 workspace_id, const char *event)
{
	Hearer	   *hearer = hearer_of(workspace_id);

	for (int i = 0; hearer != NULL && i < hearer->count; i++)
		if (wants(&hearer->endpoints[i], event))
			return true;
	return false;
}

/*
 * pp_hearers leaves which workspaces have endpoints that want an event about a
 * workspace, itself and its partner, and returns how many.
 */
int
pp_hearers(int64 workspace_id, const char *event, int64 heard_by[2])
{
	PpWorkspace workspace;
	int			count = 0;

	if (hears(workspace_id, event))
		heard_by[count++] = workspace_id;
	if (pp_workspace(workspace_id, &workspace) && workspace.partner_key != 0 && hears(workspace.partner_key, event))
		heard_by[count++] = workspace.partner_key;
	return count;
}

/*
 * pp_append_number adds a number in decimal, for a fraction of what a format
 * costs.
 */
void
pp_append_number(StringInfo into, int64 number)
{
	enlargeStringInfo(into, MAXINT8LEN + 1);
	into->len += pg_lltoa(number, into->data + into->len);
}

/*
 * put_digits leaves a number in so many digits and what follows it, and returns
 * the place after it.
 */
static char *
put_digits(char *place, int number, int digits, char follows)
{
	place = pg_ultostr_zeropad(place, number, digits);
	*place++ = follows;
	return place;
}

/*
 * append_time adds the time of the transaction in UTC, as ISO 8601 with
 * microseconds.
 */
static void
append_time(StringInfo into)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char	   *place;

	if (timestamp2tm(GetCurrentTransactionStartTimestamp(), NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	enlargeStringInfo(into, MAXDATELEN);
	place = into->data + into->len;
	place = put_digits(place, tm.tm_year, 4, '-');
	place = put_digits(place, tm.tm_mon, 2, '-');
	place = put_digits(place, tm.tm_mday, 2, 'T');
	place = put_digits(place, tm.tm_hour, 2, ':');
	place = put_digits(place, tm.tm_min, 2, ':');
	place = put_digits(place, tm.tm_sec, 2, '.');
	place = put_digits(place, fsec, 6, 'Z');
	*place = '\0';
	into->len = place - into->data;
}

/*
 * body_of returns what is sent: {"type", "timestamp", "data"}.
 */
static char *
body_of(const char *event, const char *data)
{
	StringInfoData body;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"type\":");
	escape_json(&body, event);
	appendStringInfoString(&body, ",\"timestamp\":\"");
	append_time(&body);
	appendStringInfoString(&body, "\",\"data\":");
	appendStringInfoString(&body, data);
	appendStringInfoChar(&body, '}');
	return body.data;
}

/*
 * kind_of returns the kind of an event's messages.
 */
static char *
kind_of(const char *event)
{
	StringInfoData kind;

	initStringInfo(&kind);
	appendStringInfoString(&kind, "webhook.");
	appendStringInfoString(&kind, event);
	return kind.data;
}

/*
 * dedupe_key_of returns the key of an event's message to an endpoint; those of
 * two customers are kept apart at their partner's.
 */
static char *
dedupe_key_of(const char *dedupe_key, const Endpoint *endpoint, const Hearer *hearer, int64 workspace_id)
{
	StringInfoData key;

	initStringInfo(&key);
	appendStringInfoString(&key, dedupe_key);
	appendStringInfoChar(&key, ':');
	pp_append_number(&key, endpoint->endpoint_id);
	if (hearer->workspace_id != workspace_id)
	{
		appendStringInfoChar(&key, ':');
		pp_append_number(&key, workspace_id);
	}
	return key.data;
}

/*
 * pp_owe_event owes an event to those endpoints of the hearers that want it,
 * and returns to how many.  It sorts the hearers: who owes the same event to the
 * same ones waits for the first message, and never for each other.  A message
 * carries the partner of the endpoint's workspace as of the latest commit.
 */
int
pp_owe_event(PpOutbox *outbox, int64 *heard_by, int count, const PpEvent *event)
{
	char	   *kind = kind_of(event->name);
	char	   *body = body_of(event->name, event->data);
	int			owed = 0;

	qsort(heard_by, count, sizeof(int64), pp_compare_int64);
	for (int i = 0; i < count; i++)
	{
		Hearer	   *hearer = hearer_of(heard_by[i]);
		PpWorkspace workspace = {0};

		if (hearer == NULL)
			continue;
		(void) pp_workspace(hearer->workspace_id, &workspace);
		for (int j = 0; j < hearer->count; j++)
		{
			const Endpoint *endpoint = &hearer->endpoints[j];
			PpMessage	message = {
				.workspace_id = hearer->workspace_id,
				.partner_key = workspace.partner_key,
				.kind = kind,
				.certain = event->certain,
				.endpoint_id = endpoint->endpoint_id,
				.text_body = body
			};

			if (!wants(endpoint, event->name))
				continue;
			message.dedupe_key = dedupe_key_of(event->dedupe_key, endpoint, hearer, event->workspace_id);
			if (pp_outbox_write(outbox, &message) != 0)
				owed++;
		}
	}
	return owed;
}

/*
 * with_workspace returns the text of data with the workspace in it.
 */
static char *
with_workspace(int64 workspace_id, Datum data)
{
	Datum		about = DirectFunctionCall1(jsonb_in, CStringGetDatum(psprintf("{\"workspace_id\": " INT64_FORMAT "}", workspace_id)));
	Jsonb	   *both = DatumGetJsonbP(DirectFunctionCall2(jsonb_concat, about, data));

	return JsonbToCString(NULL, &both->root, VARSIZE(both));
}

/*
 * enqueue owes the event that the arguments from the given one on describe, as
 * workspace_id, event, data, dedupe_key, and returns to how many.  Hearers NULL
 * are the workspace and its partner.
 */
static int64
enqueue(FunctionCallInfo fcinfo, int first, int64 *heard_by, int count)
{
	PpEvent		event = {0};
	int64		own[2];
	PpOutbox   *outbox;
	int64		owed;

	if (PG_ARGISNULL(first) || PG_ARGISNULL(first + 2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("an event must have a workspace and data")));
	event.workspace_id = PG_GETARG_INT64(first);
	event.name = text_to_cstring(pp_text_argument(fcinfo, first + 1));
	event.dedupe_key = text_to_cstring(pp_text_argument(fcinfo, first + 3));
	if (!pp_anybody_hears())
		return 0;
	if (heard_by == NULL)
	{
		heard_by = own;
		count = pp_hearers(event.workspace_id, event.name, own);
	}
	if (count == 0)
		return 0;
	event.data = with_workspace(event.workspace_id, PG_GETARG_DATUM(first + 2));
	outbox = pp_outbox_open();
	owed = pp_owe_event(outbox, heard_by, count, &event);
	pp_outbox_close(outbox);
	return owed;
}

/*
 * enqueue_webhook_event(workspace_id, event, data, dedupe_key) owes an event to
 * the endpoints of a workspace and of its partner.
 */
Datum
partner_portal_enqueue_webhook_event(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("enqueue_webhook_event()");
	PG_RETURN_INT64(enqueue(fcinfo, 0, NULL, 0));
}

/*
 * enqueue_event_for(hearers, workspace_id, event, data, dedupe_key) owes an
 * event to the endpoints of the hearers, of which a NULL is none.
 */
Datum
partner_portal_enqueue_event_for(PG_FUNCTION_ARGS)
{
	Datum	   *items;
	bool	   *nulls;
	int64	   *heard_by;
	int			given;
	int			count = 0;

	PreventCommandIfReadOnly("enqueue_event_for()");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument %d must not be null", 1)));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &items, &nulls, &given);
	heard_by = palloc(Max(given, 1) * sizeof(int64));
	for (int i = 0; i < given; i++)
		if (!nulls[i])
			heard_by[count++] = DatumGetInt64(items[i]);
	PG_RETURN_INT64(enqueue(fcinfo, 1, heard_by, count));
}

/*
 * endpoints_changed is the trigger of webhook_endpoint: it tells every backend,
 * at commit, and this one at the next command, to look again who hears of what.
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
