/*-------------------------------------------------------------------------
 *
 * key_history.c
 *		Writes closed stretches to key_history, many at a time.
 *
 * The triggers that close stretches write them through the table access method
 * as COPY does; foreign keys and policies of key_history are not asked, for
 * the key whose stretch it is has been through its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "partner_portal.h"
#include "security_key.h"

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

struct PpHistory
{
	Relation	rel;
	EState	   *estate;
	ResultRelInfo *result;
	Datum		kinds[PP_KINDS];
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

	history->rel = table_open(get_relname_relid("key_history", get_namespace_oid(PP_SCHEMA, false)),
							  RowExclusiveLock);
	if (!checked)
	{
		pp_check_columns(RelationGetDescr(history->rel), HISTORY_COLUMNS, history_columns);
		checked = true;
	}
	history->estate = CreateExecutorState();
	history->result = makeNode(ResultRelInfo);
	InitResultRelInfo(history->result, history->rel, 0, NULL, 0);
	history->result->ri_TrigDesc = NULL;
	ExecOpenIndices(history->result, false);
	history->kinds[PP_SMARTPHONE] = CStringGetTextDatum("smartphone");
	history->kinds[PP_CONTACTLESS_CARD] = CStringGetTextDatum("contactless_card");
	return history;
}

/*
 * flush_rows writes what is buffered.
 */
static void
flush_rows(PpHistory *history)
{
	MemoryContext old_context;

	if (history->filled == 0)
		return;
	old_context = MemoryContextSwitchTo(GetPerTupleMemoryContext(history->estate));
	table_multi_insert(history->rel, history->slots, history->filled,
					   GetCurrentCommandId(true), 0, NULL);
	MemoryContextSwitchTo(old_context);
	for (int i = 0; i < history->filled; i++)
	{
		(void) pp_insert_index_tuples(history->result, history->slots[i], history->estate);
		ExecClearTuple(history->slots[i]);
	}
	ResetPerTupleExprContext(history->estate);
	history->filled = 0;
}

/*
 * pp_history_add writes one closed stretch, unless it is empty.
 */
void
pp_history_add(PpHistory *history, int64 workspace_id, int64 key_id, int kind,
			   Datum account_id, bool no_account, int64 partner_key,
			   TimestampTz active_from, TimestampTz active_until)
{
	TupleTableSlot *slot;
	int			natts = RelationGetDescr(history->rel)->natts;

	if (active_from >= active_until)
		return;
	if (history->filled == history->made)
		history->slots[history->made++] = table_slot_create(history->rel, NULL);
	slot = history->slots[history->filled++];
	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, natts * sizeof(bool));
	memset(slot->tts_isnull, false, HISTORY_COLUMNS * sizeof(bool));
	slot->tts_values[HISTORY_WORKSPACE_ID - 1] = Int64GetDatum(workspace_id);
	slot->tts_values[HISTORY_KEY_ID - 1] = Int64GetDatum(key_id);
	slot->tts_values[HISTORY_ACTIVE_FROM - 1] = TimestampTzGetDatum(active_from);
	slot->tts_values[HISTORY_ACTIVE_UNTIL - 1] = TimestampTzGetDatum(active_until);
	slot->tts_values[HISTORY_KIND - 1] = history->kinds[kind];
	slot->tts_values[HISTORY_ACCOUNT_ID - 1] = account_id;
	slot->tts_isnull[HISTORY_ACCOUNT_ID - 1] = no_account;
	slot->tts_values[HISTORY_RECORDED_AT - 1] = TimestampTzGetDatum(active_from);
	slot->tts_values[HISTORY_PARTNER_KEY - 1] = Int64GetDatum(partner_key);
	ExecStoreVirtualTuple(slot);
	if (history->filled == BUFFERED_ROWS)
		flush_rows(history);
}

/*
 * pp_history_end writes the rest and closes key_history.
 */
void
pp_history_end(PpHistory *history)
{
	flush_rows(history);
	for (int i = 0; i < history->made; i++)
		ExecDropSingleTupleTableSlot(history->slots[i]);
	ExecCloseIndices(history->result);
	FreeExecutorState(history->estate);
	table_close(history->rel, NoLock);
	pfree(history);
}
