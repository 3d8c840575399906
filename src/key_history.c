/*-------------------------------------------------------------------------
 *
 * key_history.c
 *		Writes closed stretches to key_history, many at a time.
 *
 * The triggers that close stretches write them through the table access method
 * as COPY does; foreign keys and policies of key_history are not asked, for
 * the key whose stretch it is has been through its own.  They are written in
 * the order of the primary key, so that neighbours meet in the same pages of
 * the index.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "partner_portal.h"
#include "security_key.h"

#define SORTED_STRETCHES	32768
#define BUFFERED_ROWS	500

enum
{
	HISTORY_WORKSPACE_ID = 1,
	HISTORY_KEY_ID,
	HISTORY_ACTIVE_FROM,
	HISTORY_ACTIVE_UNTIL,
	HISTORY_KIND,
	HISTORY_ACCOUNT_ID,
	HISTORY_RECORDED_AT,
	HISTORY_PARTNER_KEY,
	HISTORY_COLUMNS = HISTORY_PARTNER_KEY
};

static const char *const history_columns[] = {
	"workspace_id", "key_id", "active_from", "active_until", "kind",
	"account_id", "recorded_at", "partner_key"
};

/* One stretch that is to be written. */
typedef struct Stretch
{
	int64		workspace_id;
	int64		key_id;
	int64		partner_key;
	int64		account_id;
	TimestampTz active_from;
	TimestampTz active_until;
	int			kind;
	bool		no_account;
} Stretch;

struct PpHistory
{
	Relation	rel;
	PpRowWriter *writer;
	MemoryContext batch;		/* of the rows that are written at once */
	Datum		kinds[PP_KINDS];
	Stretch    *stretches;
	int			count;
	int			room;
	TupleTableSlot *slots[BUFFERED_ROWS];
	int			made;			/* slots that exist */
	int			filled;			/* slots that hold a row not yet written */
};

/*
 * pp_history_begin opens key_history for writing.
 */
PpHistory *
pp_history_begin(void)
{
	static bool checked = false;
	PpHistory  *history = palloc0(sizeof(PpHistory));

	history->rel = table_open(pp_our_relation(PP_KEY_HISTORY), RowExclusiveLock);
	if (!checked)
	{
		pp_check_columns(RelationGetDescr(history->rel), HISTORY_COLUMNS, history_columns);
		checked = true;
	}
	history->writer = pp_writer_open(history->rel);
	history->batch = AllocSetContextCreate(CurrentMemoryContext, "rows of key_history", ALLOCSET_DEFAULT_SIZES);
	history->kinds[PP_SMARTPHONE] = CStringGetTextDatum("smartphone");
	history->kinds[PP_CONTACTLESS_CARD] = CStringGetTextDatum("contactless_card");
	return history;
}

/*
 * flush_rows writes the rows in slots.
 */
static void
flush_rows(PpHistory *history)
{
	MemoryContext old_context;

	if (history->filled == 0)
		return;
	old_context = MemoryContextSwitchTo(history->batch);
	table_multi_insert(history->rel, history->slots, history->filled,
					   GetCurrentCommandId(true), 0, NULL);
	MemoryContextSwitchTo(old_context);
	for (int i = 0; i < history->filled; i++)
	{
		pp_writer_entries(history->writer, history->slots[i], false);
		ExecClearTuple(history->slots[i]);
	}
	MemoryContextReset(history->batch);
	history->filled = 0;
}

/*
 * add_row puts a stretch into the next slot.
 */
static void
add_row(PpHistory *history, const Stretch *stretch)
{
	TupleTableSlot *slot;
	int			natts = RelationGetDescr(history->rel)->natts;

	if (history->filled == history->made)
		history->slots[history->made++] = table_slot_create(history->rel, NULL);
	slot = history->slots[history->filled++];
	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, natts * sizeof(bool));
	memset(slot->tts_isnull, false, HISTORY_COLUMNS * sizeof(bool));
	slot->tts_values[HISTORY_WORKSPACE_ID - 1] = Int64GetDatum(stretch->workspace_id);
	slot->tts_values[HISTORY_KEY_ID - 1] = Int64GetDatum(stretch->key_id);
	slot->tts_values[HISTORY_ACTIVE_FROM - 1] = TimestampTzGetDatum(stretch->active_from);
	slot->tts_values[HISTORY_ACTIVE_UNTIL - 1] = TimestampTzGetDatum(stretch->active_until);
	slot->tts_values[HISTORY_KIND - 1] = history->kinds[stretch->kind];
	slot->tts_values[HISTORY_ACCOUNT_ID - 1] = Int64GetDatum(stretch->account_id);
	slot->tts_isnull[HISTORY_ACCOUNT_ID - 1] = stretch->no_account;
	slot->tts_values[HISTORY_RECORDED_AT - 1] = TimestampTzGetDatum(stretch->active_from);
	slot->tts_values[HISTORY_PARTNER_KEY - 1] = Int64GetDatum(stretch->partner_key);
	ExecStoreVirtualTuple(slot);
	if (history->filled == BUFFERED_ROWS)
		flush_rows(history);
}

/*
 * compare_stretches orders stretches as the primary key does.
 */
static int
compare_stretches(const void *a, const void *b)
{
	const Stretch *left = a;
	const Stretch *right = b;

	if (left->workspace_id != right->workspace_id)
		return left->workspace_id < right->workspace_id ? -1 : 1;
	if (left->active_until != right->active_until)
		return left->active_until < right->active_until ? -1 : 1;
	return (left->key_id > right->key_id) - (left->key_id < right->key_id);
}

/*
 * flush_stretches writes what has been added.
 */
static void
flush_stretches(PpHistory *history)
{
	qsort(history->stretches, history->count, sizeof(Stretch), compare_stretches);
	for (int i = 0; i < history->count; i++)
		add_row(history, &history->stretches[i]);
	flush_rows(history);
	history->count = 0;
}

/*
 * pp_history_add writes one closed stretch, unless it is empty; at the latest
 * when history ends.
 */
void
pp_history_add(PpHistory *history, int64 workspace_id, int64 key_id, int kind,
			   Datum account_id, bool no_account, int64 partner_key,
			   TimestampTz active_from, TimestampTz active_until)
{
	Stretch		stretch = {
		.workspace_id = workspace_id,
		.key_id = key_id,
		.partner_key = partner_key,
		.account_id = no_account ? 0 : DatumGetInt64(account_id),
		.active_from = active_from,
		.active_until = active_until,
		.kind = kind,
		.no_account = no_account
	};

	if (active_from >= active_until)
		return;
	if (history->count == SORTED_STRETCHES)
		flush_stretches(history);
	if (history->count == history->room)
	{
		history->room = Max(8, history->room * 2);
		history->stretches = history->stretches == NULL ? palloc(history->room * sizeof(Stretch)) :
			repalloc(history->stretches, history->room * sizeof(Stretch));
	}
	history->stretches[history->count++] = stretch;
}

/*
 * pp_history_end writes the rest and closes key_history.
 */
void
pp_history_end(PpHistory *history)
{
	flush_stretches(history);
	for (int i = 0; i < history->made; i++)
		ExecDropSingleTupleTableSlot(history->slots[i]);
	pp_writer_close(history->writer);
	MemoryContextDelete(history->batch);
	table_close(history->rel, NoLock);
	pfree(history);
}
