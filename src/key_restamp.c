/*-------------------------------------------------------------------------
 *
 * key_restamp.c
 *		Moves stamps of keys that the order of locks does not let stand.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "partner_portal.h"
#include "security_key.h"

/*
 * pp_restamp_add notes that a key's stamp is to be moved.
 */
void
pp_restamp_add(PpRestamps *list, int64 workspace_id, int64 key_id, bool start, TimestampTz time)
{
	PpRestamp	restamp = {workspace_id, start, time, key_id};

	if (list->count == list->room)
	{
		list->room = list->room == 0 ? 16 : list->room * 2;
		list->items = list->items == NULL ?
			palloc_extended(list->room * sizeof(PpRestamp), MCXT_ALLOC_HUGE) :
			repalloc_huge(list->items, list->room * sizeof(PpRestamp));
	}
	list->items[list->count++] = restamp;
}

/*
 * find_key leaves in the slot the latest version of a key that this very
 * statement has written, and so has locked.
 */
static void
find_key(Relation rel, Relation index, const PpRestamp *item, TupleTableSlot *slot)
{
	IndexScanDesc scan;
	ScanKeyData keys[2];
	bool		found;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(item->workspace_id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(item->key_id));
	scan = pp_index_beginscan(rel, index, SnapshotSelf, 2);
	index_rescan(scan, keys, 2, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	index_endscan(scan);
	if (!found)
		elog(ERROR, "key " INT64_FORMAT " of workspace " INT64_FORMAT " has gone",
			 item->key_id, item->workspace_id);
}

/*
 * pp_restamp_all moves the stamps noted.  It writes through the table access
 * method: to a trigger a second update of a row within one transaction would
 * be a reason to check its foreign keys, and with the counter locked it is too
 * late to wait for the workspace.
 */
void
pp_restamp_all(PpRestamps *list, Relation rel)
{
	Relation	index;
	EState	   *estate;
	ResultRelInfo *result;
	TupleTableSlot *old;
	TupleTableSlot *new;

	if (list->count == 0)
		return;
	index = index_open(pp_our_relation(PP_SECURITY_KEY_PKEY), RowExclusiveLock);
	estate = CreateExecutorState();
	result = makeNode(ResultRelInfo);
	InitResultRelInfo(result, rel, 0, NULL, 0);
	result->ri_TrigDesc = NULL;
	ExecOpenIndices(result, false);
	old = table_slot_create(rel, NULL);
	new = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	for (int i = 0; i < list->count; i++)
	{
		const PpRestamp *item = &list->items[i];

		CHECK_FOR_INTERRUPTS();
		find_key(rel, index, item, old);
		pp_copy_row(new, old);
		new->tts_values[(item->start ? KEY_ACTIVATED_AT : KEY_DISABLED_AT) - 1] =
			TimestampTzGetDatum(item->time);
		ExecStoreVirtualTuple(new);
		ExecSimpleRelationUpdate(result, estate, NULL, old, new);
		ResetPerTupleExprContext(estate);
	}
	ExecDropSingleTupleTableSlot(new);
	ExecDropSingleTupleTableSlot(old);
	ExecCloseIndices(result);
	FreeExecutorState(estate);
	index_close(index, NoLock);
	CommandCounterIncrement();
}
