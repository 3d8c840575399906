/*-------------------------------------------------------------------------
 *
 * usage_counter.c
 *		The counters of a workspace, and the lock that makes the limit exact.
 *
 * What a statement does to the keys and owners of a workspace is counted under
 * the lock of its row of workspace_usage (usage_row.c), to the end of the
 * transaction; so are the lines that the activity log gains.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "partner_portal.h"
#include "security_key.h"

enum
{
	USAGE_WORKSPACE_ID = 1,
	USAGE_PARTNER_KEY,
	USAGE_TOTAL_KEYS,
	USAGE_ACTIVE_KEYS,
	USAGE_TOTAL_SMARTPHONES,
	USAGE_ACTIVE_SMARTPHONES,
	USAGE_TOTAL_CONTACTLESS_CARDS,
	USAGE_ACTIVE_CONTACTLESS_CARDS,
	USAGE_OWNERS,
	USAGE_KEY_LIMIT,
	USAGE_LIMIT_MODE,
	USAGE_BLOCKED,
	USAGE_LAST_DISABLED_AT,
	USAGE_CLOSED_UNTIL,
	USAGE_ALERTED_UNTIL,
	USAGE_ALERTED_PERCENT,
	USAGE_LOG_ID,
	USAGE_LOG_AT,
	USAGE_LOG_HASH,
	USAGE_COLUMNS = USAGE_LOG_HASH
};

static const char *const usage_columns[] = {
	"workspace_id", "partner_key", "total_keys", "active_keys",
	"total_smartphones", "active_smartphones", "total_contactless_cards",
	"active_contactless_cards", "owners", "key_limit", "limit_mode", "blocked",
	"last_disabled_at", "closed_until", "alerted_until", "alerted_percent",
	"log_id", "log_at", "log_hash"
};

/* workspace_usage, open for a few rows. */
typedef struct UsageTable
{
	PpUsageRow	row;			/* the one that is changed */
	PpLog	   *log;			/* the activity log, from the first line on */
	MemoryContext context;		/* of all of this */
	MemoryContext lines;		/* of the lines of one workspace */
} UsageTable;

/*
 * open_usage opens workspace_usage for changes of its rows.
 */
static void
open_usage(UsageTable *table)
{
	static bool checked = false;

	pp_row_open(&table->row);
	if (!checked)
	{
		pp_check_columns(RelationGetDescr(table->row.rel), USAGE_COLUMNS, usage_columns);
		checked = true;
	}
	table->log = NULL;
	table->context = CurrentMemoryContext;
	table->lines = NULL;
}

/*
 * close_usage closes it; its locks stay to the end of the transaction.
 */
static void
close_usage(UsageTable *table)
{
	if (table->log != NULL)
		pp_log_end(table->log);
	if (table->lines != NULL)
		MemoryContextDelete(table->lines);
	pp_row_close(&table->row);
}

/*
 * add_to adds to an integer counter of table->row.new and returns the sum.
 */
static int
add_to(UsageTable *table, int column, int delta)
{
	int			sum = DatumGetInt32(table->row.new->tts_values[column - 1]) + delta;

	table->row.new->tts_values[column - 1] = Int32GetDatum(sum);
	return sum;
}

/*
 * set_time sets a time of table->row.new.
 */
static void
set_time(UsageTable *table, int column, TimestampTz time)
{
	table->row.new->tts_values[column - 1] = TimestampTzGetDatum(time);
}

/*
 * set_hash sets the hash of the log's head in table->row.new.
 */
static void
set_hash(UsageTable *table, const uint8 *hash)
{
	bytea	   *value = palloc(VARHDRSZ + PP_HASH_LENGTH);

	SET_VARSIZE(value, VARHDRSZ + PP_HASH_LENGTH);
	memcpy(VARDATA(value), hash, PP_HASH_LENGTH);
	table->row.new->tts_values[USAGE_LOG_HASH - 1] = PointerGetDatum(value);
}

/*
 * log_line appends a line to the log of the locked workspace and moves the head
 * of its chain in table->row.new.
 */
static int64
log_line(UsageTable *table, const PpLogLine *line)
{
	Datum	   *values = table->row.new->tts_values;
	bytea	   *hash = DatumGetByteaPP(values[USAGE_LOG_HASH - 1]);
	PpLogHead	head;

	if (table->log == NULL)
	{
		MemoryContext old_context = MemoryContextSwitchTo(table->context);

		table->log = pp_log_begin();
		MemoryContextSwitchTo(old_context);
	}
	head.id = DatumGetInt64(values[USAGE_LOG_ID - 1]);
	head.at = DatumGetTimestampTz(values[USAGE_LOG_AT - 1]);
	Assert(VARSIZE_ANY_EXHDR(hash) == PP_HASH_LENGTH);
	memcpy(head.hash, VARDATA_ANY(hash), PP_HASH_LENGTH);
	pp_log_append(table->log, line, DatumGetInt64(values[USAGE_PARTNER_KEY - 1]), &head);
	values[USAGE_LOG_ID - 1] = Int64GetDatum(head.id);
	set_time(table, USAGE_LOG_AT, head.at);
	set_hash(table, head.hash);
	return head.id;
}

/*
 * log_change appends what the log says about a statement, and notes the numbers
 * of the lines about keys.
 */
static void
log_change(UsageTable *table, PpUsageChange *change)
{
	ListCell   *cell;

	foreach(cell, pp_statement_lines(change))
	{
		const PpLogLine *line = lfirst(cell);
		int64		id = log_line(table, line);

		if (strcmp(line->action, "activate_key") == 0)
			change->activated.line = id;
		else if (strcmp(line->action, "disable_key") == 0)
			change->disabled.line = id;
	}
}

/*
 * set_limit sets the limit in force of table->row.new.
 */
static void
set_limit(UsageTable *table, int key_limit, bool hard, const char *blocked)
{
	Datum	   *values = table->row.new->tts_values;
	bool	   *nulls = table->row.new->tts_isnull;

	values[USAGE_KEY_LIMIT - 1] = Int32GetDatum(key_limit);
	nulls[USAGE_KEY_LIMIT - 1] = key_limit < 0;
	values[USAGE_LIMIT_MODE - 1] = CStringGetTextDatum(hard ? "hard" : "soft");
	nulls[USAGE_LIMIT_MODE - 1] = false;
	nulls[USAGE_BLOCKED - 1] = blocked == NULL;
	if (blocked != NULL)
		values[USAGE_BLOCKED - 1] = CStringGetTextDatum(blocked);
}

/*
 * take_usage reads what the limit asks for out of a slot.
 */
static void
take_usage(TupleTableSlot *slot, PpUsage *usage)
{
	Datum	   *values;
	bool	   *nulls;

	slot_getallattrs(slot);
	values = slot->tts_values;
	nulls = slot->tts_isnull;
	usage->partner_key = DatumGetInt64(values[USAGE_PARTNER_KEY - 1]);
	usage->active = DatumGetInt32(values[USAGE_ACTIVE_KEYS - 1]);
	usage->owners = DatumGetInt32(values[USAGE_OWNERS - 1]);
	usage->key_limit = nulls[USAGE_KEY_LIMIT - 1] ? -1 : DatumGetInt32(values[USAGE_KEY_LIMIT - 1]);
	usage->hard = pp_text_is(values[USAGE_LIMIT_MODE - 1], "hard");
	usage->blocked[0] = '\0';
	if (!nulls[USAGE_BLOCKED - 1])
		text_to_cstring_buffer(DatumGetTextPP(values[USAGE_BLOCKED - 1]),
							   usage->blocked, sizeof(usage->blocked));
	usage->last_disabled_at = DatumGetTimestampTz(values[USAGE_LAST_DISABLED_AT - 1]);
	usage->closed_until = DatumGetTimestampTz(values[USAGE_CLOSED_UNTIL - 1]);
	usage->alerted_until = DatumGetTimestampTz(values[USAGE_ALERTED_UNTIL - 1]);
	usage->alerted_percent = DatumGetInt32(values[USAGE_ALERTED_PERCENT - 1]);
}

/*
 * pp_usage_lock locks a workspace's counter to the end of the transaction and
 * reads it; false is that there is none.
 */
bool
pp_usage_lock(int64 workspace_id, PpUsage *usage)
{
	UsageTable	table;
	bool		found;

	open_usage(&table);
	found = pp_row_lock(&table.row, workspace_id);
	if (found)
		take_usage(table.row.old, usage);
	close_usage(&table);
	return found;
}

/*
 * pp_usage_read reads the counter as last committed, or as this transaction
 * has left it, without a lock.
 */
bool
pp_usage_read(int64 workspace_id, PpUsage *usage)
{
	UsageTable	table;
	bool		found;

	open_usage(&table);
	found = pp_row_find(&table.row, workspace_id);
	if (found)
		take_usage(table.row.old, usage);
	close_usage(&table);
	return found;
}

/*
 * order_stamps decides, under the lock, which stamps of the statement stand.
 * Nothing is stamped before the end of the last closed period, and no
 * activation before a stretch that ended earlier in the order of locks; so the
 * facts never show more keys active at once than there were.
 */
static void
order_stamps(PpUsageChange *change, PpUsage *usage)
{
	TimestampTz last_end = usage->last_disabled_at;

	change->clock = Max(GetCurrentTimestamp(), usage->closed_until);
	change->end_floor = usage->closed_until;
	change->end_to = change->clock;
	if (change->ends)
	{
		last_end = Max(last_end, change->last_end);
		if (change->first_end < change->end_floor)
			last_end = Max(last_end, change->end_to);
	}
	if (change->deleted > 0)
	{
		/* A holder or a stamp of the future does not end before it began. */
		change->clock = Max(change->clock, change->last_end);
		last_end = Max(last_end, change->clock);
	}
	change->start_floor = Max(last_end, usage->closed_until);
	change->start_to = Max(change->clock, change->start_floor);
	usage->last_disabled_at = last_end;
}

/*
 * refuse_blocked raises PP005 when keys were activated in a workspace that is
 * suspended or deleted, or whose partner is.
 */
static void
refuse_blocked(int64 workspace_id, const PpUsage *usage)
{
	PpWorkspace workspace;

	if (usage->blocked[0] != '\0')
	{
		pp_refused(ERRCODE_PP_WRONG_STATE, "activate", workspace_id, NULL);
		ereport(ERROR,
				(errcode(ERRCODE_PP_WRONG_STATE),
				 errmsg("no key can be activated in workspace " INT64_FORMAT, workspace_id),
				 errdetail("The workspace is %s.", usage->blocked),
				 errhint("Have it %s first.",
						 strcmp(usage->blocked, "deleted") == 0 ? "restored" : "resumed")));
	}
	if (usage->partner_key != 0 && pp_workspace(workspace_id, &workspace) && workspace.partner_suspended)
	{
		pp_refused(ERRCODE_PP_WRONG_STATE, "activate", workspace_id, NULL);
		ereport(ERROR,
				(errcode(ERRCODE_PP_WRONG_STATE),
				 errmsg("no key can be activated in workspace " INT64_FORMAT, workspace_id),
				 errdetail("Its partner is suspended."),
				 errhint("Keys that are active stay so; activate others when the partner is resumed.")));
	}
}

/*
 * apply_one counts what a statement did to one workspace.
 */
static void
apply_one(UsageTable *table, PpUsageChange *change, bool restoring)
{
	int			total = change->total[PP_SMARTPHONE] + change->total[PP_CONTACTLESS_CARD];
	int			active = change->active[PP_SMARTPHONE] + change->active[PP_CONTACTLESS_CARD];
	PpUsage		usage;
	MemoryContext old_context;

	if (!pp_row_lock(&table->row, change->workspace_id))
	{
		/* The workspace itself is going: its counters went first. */
		if (total <= 0 && active <= 0 && change->owners <= 0)
		{
			change->clock = GetCurrentTimestamp();
			return;
		}
		ereport(ERROR,
				(errcode(ERRCODE_PP_WRONG_STATE),
				 errmsg("workspace " INT64_FORMAT " has no counters", change->workspace_id),
				 errhint("Rebuild them with partner_portal.repair().")));
	}
	take_usage(table->row.old, &usage);
	if (change->activations > 0 && !restoring)
		refuse_blocked(change->workspace_id, &usage);
	if (!restoring)
		order_stamps(change, &usage);

	pp_row_begin(&table->row);
	add_to(table, USAGE_TOTAL_KEYS, total);
	usage.active = add_to(table, USAGE_ACTIVE_KEYS, active);
	add_to(table, USAGE_TOTAL_SMARTPHONES, change->total[PP_SMARTPHONE]);
	add_to(table, USAGE_ACTIVE_SMARTPHONES, change->active[PP_SMARTPHONE]);
	add_to(table, USAGE_TOTAL_CONTACTLESS_CARDS, change->total[PP_CONTACTLESS_CARD]);
	add_to(table, USAGE_ACTIVE_CONTACTLESS_CARDS, change->active[PP_CONTACTLESS_CARD]);
	usage.owners = add_to(table, USAGE_OWNERS, change->owners);
	set_time(table, USAGE_LAST_DISABLED_AT, usage.last_disabled_at);
	if (table->lines == NULL)
		table->lines = AllocSetContextCreate(CurrentMemoryContext, "lines of a workspace", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(table->lines);
	if (!restoring)
		log_change(table, change);
	pp_row_write(&table->row);
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(table->lines);

	if (!restoring)
		pp_settle(change->workspace_id, active, change->owners, &usage);
}

/*
 * pp_usage_apply counts what a statement did, one workspace after the other in
 * the order given, which is ascending for everybody: so two statements never
 * wait for each other.  It fills the second half of each change.  Restored rows
 * are counted and nothing else.
 */
void
pp_usage_apply(PpUsageChange **changes, int count, bool restoring)
{
	UsageTable	table;

	open_usage(&table);
	for (int i = 0; i < count; i++)
		apply_one(&table, changes[i], restoring);
	close_usage(&table);
	CommandCounterIncrement();
}

/*
 * pp_usage_create makes the counters of a new workspace.
 */
void
pp_usage_create(int64 workspace_id, int64 partner_key, int key_limit, bool hard, const char *blocked)
{
	static const uint8 no_hash[PP_HASH_LENGTH] = {0};
	UsageTable	table;

	open_usage(&table);
	ExecClearTuple(table.row.new);
	memset(table.row.new->tts_values, 0, RelationGetDescr(table.row.rel)->natts * sizeof(Datum));
	memset(table.row.new->tts_isnull, true, RelationGetDescr(table.row.rel)->natts * sizeof(bool));
	memset(table.row.new->tts_isnull, false, USAGE_COLUMNS * sizeof(bool));
	table.row.new->tts_values[USAGE_WORKSPACE_ID - 1] = Int64GetDatum(workspace_id);
	table.row.new->tts_values[USAGE_PARTNER_KEY - 1] = Int64GetDatum(partner_key);
	set_limit(&table, key_limit, hard, blocked);
	set_time(&table, USAGE_LAST_DISABLED_AT, DT_NOBEGIN);
	set_time(&table, USAGE_CLOSED_UNTIL, DT_NOBEGIN);
	set_time(&table, USAGE_ALERTED_UNTIL, DT_NOBEGIN);
	set_time(&table, USAGE_LOG_AT, DT_NOBEGIN);
	set_hash(&table, no_hash);
	pp_row_insert(&table.row);
	close_usage(&table);
	CommandCounterIncrement();
}

/*
 * pp_usage_set_limit puts a limit in force (-1 is none) and says whether
 * anything may be activated; false is that the workspace has no counters.
 */
bool
pp_usage_set_limit(int64 workspace_id, int key_limit, bool hard, const char *blocked, PpUsage *usage)
{
	UsageTable	table;
	bool		found;

	open_usage(&table);
	found = pp_row_lock(&table.row, workspace_id);
	if (found)
	{
		pp_row_begin(&table.row);
		set_limit(&table, key_limit, hard, blocked);
		pp_row_write(&table.row);
		take_usage(table.row.new, usage);
	}
	close_usage(&table);
	CommandCounterIncrement();
	return found;
}

/*
 * pp_usage_set_alert notes that alerts up to a percentage have been raised in
 * the period that ends then.
 */
void
pp_usage_set_alert(int64 workspace_id, TimestampTz until, int percent)
{
	UsageTable	table;

	open_usage(&table);
	if (pp_row_lock(&table.row, workspace_id))
	{
		pp_row_begin(&table.row);
		set_time(&table, USAGE_ALERTED_UNTIL, until);
		table.row.new->tts_values[USAGE_ALERTED_PERCENT - 1] = Int32GetDatum(percent);
		pp_row_write(&table.row);
	}
	close_usage(&table);
	CommandCounterIncrement();
}

/*
 * pp_usage_log appends lines to the log, in the order given, which is ascending
 * by workspace; those of a workspace in one change of its counters.  It returns
 * the number of the last line in its workspace.
 */
int64
pp_usage_log(PpLogLine **lines, int count)
{
	UsageTable	table;
	int64		id = 0;
	int			next;

	open_usage(&table);
	for (int i = 0; i < count; i = next)
	{
		next = i + 1;
		if (!pp_row_lock(&table.row, lines[i]->workspace_id))
			ereport(ERROR,
					(errcode(ERRCODE_PP_WRONG_STATE),
					 errmsg("workspace " INT64_FORMAT " has no counters", lines[i]->workspace_id),
					 errhint("Rebuild them with partner_portal.repair().")));
		pp_row_begin(&table.row);
		id = log_line(&table, lines[i]);
		for (; next < count && lines[next]->workspace_id == lines[i]->workspace_id; next++)
			id = log_line(&table, lines[next]);
		pp_row_write(&table.row);
	}
	close_usage(&table);
	CommandCounterIncrement();
	return id;
}
