/*-------------------------------------------------------------------------
 *
 * key_settle.c
 *		The limit itself: what is checked when a statement is done.
 *
 * One statement may fire several statement triggers: MERGE, ON CONFLICT DO
 * UPDATE, a WITH that deletes and inserts.  A swap at the limit must not be
 * refused because the trigger that adds comes before the one that takes away.
 * So what looks wrong after one trigger is noted, and looked at again when the
 * query has fired them all: at the end of ExecutorFinish.  COPY and deferred
 * triggers fire outside of it and are checked at once.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "partner_portal.h"
#include "security_key.h"

/* Something to look at again when the query is done. */
typedef struct Unsettled
{
	int64		workspace_id;
	int			activated;		/* more active than before, by the triggers so
								 * far */
	bool		owners;			/* whether an owner left */
} Unsettled;

/* Where a workspace's is. */
typedef struct UnsettledPlace
{
	int64		workspace_id;	/* hash key */
	Unsettled  *item;
} UnsettledPlace;

/* So many are looked through; of more the places are kept. */
#define LISTED_UNSETTLED	16

/* A query that is firing its triggers; queries within triggers nest. */
typedef struct RunningQuery
{
	struct RunningQuery *outer;
	MemoryContext context;
	List	   *unsettled;
	HTAB	   *places;			/* of them all, once they are many */
	List	   *lines;			/* for the activity log */
} RunningQuery;

static RunningQuery *running = NULL;
static ExecutorFinish_hook_type prev_executor_finish = NULL;

/*
 * reached returns the alert, 80 or 100 percent, that so many active keys are
 * worth; 0 is none.
 */
static int
reached(const PpUsage *usage)
{
	if (usage->key_limit < 0 || usage->active == 0)
		return 0;
	if (usage->active >= usage->key_limit)
		return 100;
	return (int64) usage->active * 100 >= (int64) usage->key_limit * 80 ? 80 : 0;
}

/*
 * already_alerted returns the highest alert that the running period has had.
 * It is known from the counter, so that no transaction meets the alert of one
 * that its snapshot does not see.
 */
static int
already_alerted(const PpUsage *usage)
{
	return usage->alerted_until > GetCurrentTimestamp() ? usage->alerted_percent : 0;
}

/*
 * owes_alert tells whether an alert is due that this period has not had.
 */
static bool
owes_alert(const PpUsage *usage)
{
	return reached(usage) > already_alerted(usage);
}

/*
 * refuse_excess raises PP001.
 */
static void
refuse_excess(int64 workspace_id, int requested, const PpUsage *usage)
{
	int			before = Max(usage->active - requested, 0);

	pp_refused(ERRCODE_PP_LIMIT_REACHED, "activate", workspace_id,
			   psprintf(", \"limit\": %d, \"active\": %d, \"requested\": %d",
						usage->key_limit, before, usage->active - before));
	ereport(ERROR,
			(errcode(ERRCODE_PP_LIMIT_REACHED),
			 errmsg("security key limit of workspace " INT64_FORMAT " reached", workspace_id),
			 errdetail_plural("The limit of workspace " INT64_FORMAT " is %d active keys; %d are active and %d more was requested.",
							  "The limit of workspace " INT64_FORMAT " is %d active keys; %d are active and %d more were requested.",
							  usage->active - before, workspace_id, usage->key_limit, before, usage->active - before),
			 errhint("Disable other keys first, or have the limit raised with partner_portal.set_usage_limit().")));
}

/*
 * current_period returns the billing period of a workspace that runs now; all
 * time if there is none.
 */
static void
current_period(int64 workspace_id, TimestampTz *start, TimestampTz *end)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {INT8OID, TIMESTAMPTZOID};
	Datum		values[2];

	*start = DT_NOBEGIN;
	*end = DT_NOEND;
	pp_keep_plan(&plan,
				 "SELECT pg_catalog.lower(p), pg_catalog.upper(p)"
				 " FROM partner_portal.find_period($1, $2) p", 2, types);
	values[0] = Int64GetDatum(workspace_id);
	values[1] = TimestampTzGetDatum(GetCurrentTimestamp());
	if (SPI_execute_plan(plan, values, NULL, false, 1) == SPI_OK_SELECT && SPI_processed == 1)
	{
		bool		no_start;
		bool		no_end;
		Datum		lower = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &no_start);
		Datum		upper = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &no_end);

		if (!no_start)
			*start = DatumGetTimestampTz(lower);
		if (!no_end)
			*end = DatumGetTimestampTz(upper);
	}
}

/*
 * raise_alert writes the alerts that are due to limit_alert, each once per
 * workspace and period, and notes it beside the counter.
 */
static void
raise_alert(int64 workspace_id, const PpUsage *usage)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {INT8OID, TIMESTAMPTZOID, INT4OID, INT4OID, INT4OID, INT8OID, INT4OID};
	Datum		values[7];
	TimestampTz start;
	TimestampTz end;
	PpOwner		self;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	pp_become_owner(&self);
	pp_keep_plan(&plan,
				 "INSERT INTO partner_portal.limit_alert"
				 " (workspace_id, period_start, threshold, raised_at, active_keys, key_limit, partner_key)"
				 " SELECT $1, $2, t, pg_catalog.clock_timestamp(), $4, $5, $6"
				 " FROM pg_catalog.unnest('{80,100}'::integer[]) t WHERE t > $7 AND t <= $3"
				 " ON CONFLICT ON CONSTRAINT limit_alert_pkey DO NOTHING", 7, types);
	current_period(workspace_id, &start, &end);
	values[0] = Int64GetDatum(workspace_id);
	values[1] = TimestampTzGetDatum(start);
	values[2] = Int32GetDatum(reached(usage));
	values[3] = Int32GetDatum(usage->active);
	values[4] = Int32GetDatum(usage->key_limit);
	values[5] = Int64GetDatum(usage->partner_key);
	values[6] = Int32GetDatum(already_alerted(usage));
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not raise the alert of workspace " INT64_FORMAT, workspace_id);
	pp_stop_being_owner(&self);
	SPI_finish();
	pp_usage_set_alert(workspace_id, end, reached(usage));
}

/*
 * looks_wrong tells whether a counter, as it is after one trigger, needs a look
 * when the statement is done.
 */
static bool
looks_wrong(const PpUsage *usage, bool activated, bool owner_left)
{
	if (owner_left && usage->owners <= 0 && strcmp(usage->blocked, "deleted") != 0)
		return true;
	return activated && usage->key_limit >= 0 &&
		((usage->hard && usage->active > usage->key_limit) || owes_alert(usage));
}

/*
 * settle checks a workspace for good: PP004 when its last owner has left, PP001
 * when it has more active keys than it may, and the alerts.  A deleted
 * workspace needs no owner, so that it can be purged.
 */
static void
settle(const Unsettled *item, const PpUsage *usage)
{
	if (!looks_wrong(usage, item->activated > 0, item->owners))
		return;
	if (item->owners && usage->owners <= 0 && strcmp(usage->blocked, "deleted") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_PP_LAST_OWNER),
				 errmsg("workspace " INT64_FORMAT " would be left without an owner", item->workspace_id),
				 errhint("Make another member an owner first.")));
	if (item->activated <= 0 || usage->key_limit < 0)
		return;
	if (usage->hard && usage->active > usage->key_limit)
		refuse_excess(item->workspace_id, item->activated, usage);
	if (owes_alert(usage))
		raise_alert(item->workspace_id, usage);
}

/*
 * find_unsettled returns what is noted of a workspace; NULL if nothing is.
 */
static Unsettled *
find_unsettled(int64 workspace_id)
{
	ListCell   *cell;

	if (running->places != NULL)
	{
		UnsettledPlace *place = hash_search(running->places, &workspace_id, HASH_FIND, NULL);

		return place == NULL ? NULL : place->item;
	}
	foreach(cell, running->unsettled)
	{
		Unsettled  *item = lfirst(cell);

		if (item->workspace_id == workspace_id)
			return item;
	}
	return NULL;
}

/*
 * keep_places makes the table of places.
 */
static void
keep_places(void)
{
	HASHCTL		control = {0};
	ListCell   *cell;

	control.keysize = sizeof(int64);
	control.entrysize = sizeof(UnsettledPlace);
	control.hcxt = running->context;
	running->places = hash_create("unsettled workspaces", 256, &control,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	foreach(cell, running->unsettled)
	{
		Unsettled  *item = lfirst(cell);
		UnsettledPlace *place = hash_search(running->places, &item->workspace_id, HASH_ENTER, NULL);

		place->item = item;
	}
}

/*
 * note_unsettled notes a workspace that nothing is noted of.
 */
static void
note_unsettled(int64 workspace_id, int activated, bool owners)
{
	MemoryContext old_context = MemoryContextSwitchTo(running->context);
	Unsettled  *item = palloc(sizeof(Unsettled));

	item->workspace_id = workspace_id;
	item->activated = activated;
	item->owners = owners;
	running->unsettled = lappend(running->unsettled, item);
	if (running->places != NULL)
	{
		UnsettledPlace *place = hash_search(running->places, &workspace_id, HASH_ENTER, NULL);

		place->item = item;
	}
	else if (list_length(running->unsettled) > LISTED_UNSETTLED)
		keep_places();
	MemoryContextSwitchTo(old_context);
}

/*
 * pp_settle checks a workspace after a statement trigger has counted: at once,
 * or when the query that fired it is done.  activated and owners are how many
 * more there are than before, and may be negative.
 */
void
pp_settle(int64 workspace_id, int activated, int owners, const PpUsage *usage)
{
	Unsettled  *item = running == NULL ? NULL : find_unsettled(workspace_id);

	if (item != NULL)
	{
		item->activated += activated;
		item->owners |= owners < 0;
		return;
	}
	if (!looks_wrong(usage, activated > 0, owners < 0))
		return;
	if (running == NULL)
	{
		Unsettled	once = {workspace_id, activated, owners < 0};

		settle(&once, usage);
	}
	else
		note_unsettled(workspace_id, activated, owners < 0);
}

/*
 * settle_query looks again at what a query left unsettled.
 */
static void
settle_query(RunningQuery *query)
{
	ListCell   *cell;

	foreach(cell, query->unsettled)
	{
		Unsettled  *item = lfirst(cell);
		PpUsage		usage;

		if (pp_usage_read(item->workspace_id, &usage))
			settle(item, &usage);
	}
}

/*
 * write_lines writes the lines of the log that a query left, in its context.
 */
static void
write_lines(RunningQuery *query)
{
	MemoryContext old_context = MemoryContextSwitchTo(query->context);

	pp_log_lines(query->lines);
	MemoryContextSwitchTo(old_context);
}

/*
 * pp_log_later has a line written to the log when the query that fired the
 * trigger is done, with all others of the query in the order of workspaces; so
 * their counters are locked in the order that everybody takes.  Outside of a
 * query it is written at once.
 */
void
pp_log_later(const PpLogLine *line)
{
	MemoryContext old_context;
	PpLogLine  *copy;

	if (running == NULL)
	{
		PpLogLine	once = *line;

		pp_log_lines(list_make1(&once));
		return;
	}
	old_context = MemoryContextSwitchTo(running->context);
	copy = palloc(sizeof(PpLogLine));
	*copy = *line;
	copy->action = pstrdup(line->action);
	copy->description = pstrdup(line->description);
	copy->details = line->details == NULL ? NULL : pstrdup(line->details);
	running->lines = lappend(running->lines, copy);
	MemoryContextSwitchTo(old_context);
}

/*
 * finish_query lets a query fire its triggers, then settles it.
 */
static void
finish_query(QueryDesc *queryDesc)
{
	RunningQuery query = {running, queryDesc->estate->es_query_cxt, NIL, NULL, NIL};

	running = &query;
	PG_TRY();
	{
		if (prev_executor_finish)
			prev_executor_finish(queryDesc);
		else
			standard_ExecutorFinish(queryDesc);
		if (query.unsettled != NIL)
			settle_query(&query);
		if (query.lines != NIL)
			write_lines(&query);
	}
	PG_FINALLY();
	{
		running = query.outer;
	}
	PG_END_TRY();
}

/*
 * pp_settle_hooks installs the end of queries.
 */
void
pp_settle_hooks(void)
{
	prev_executor_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = finish_query;
}
