/*-------------------------------------------------------------------------
 *
 * usage_row.c
 *		Finding, locking and writing the row of workspace_usage of a workspace.
 *
 * A row is locked in its latest version and updated through the table access
 * method, without SPI: no snapshot of the transaction is asked, so REPEATABLE
 * READ and SERIALIZABLE count like READ COMMITTED and get no 40001 for it.
 * Privileges, policies and triggers of workspace_usage do not apply; nobody else
 * writes it.
 *
 * The row is looked up with SnapshotSelf, which takes no predicate lock: it
 * finds the version that was committed last, and the lock follows the chain
 * from there.  While a row moves to another page such a scan can miss it
 * altogether, so only a fresh MVCC snapshot may say that there is none.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "partner_portal.h"
#include "security_key.h"

/* Index entries of a row that are looked at before a snapshot is asked. */
#define LAST_ENTRIES	4

/* Dead versions are pruned when a page has less room than this; the table is filled by half. */
#define PRUNE_BELOW		(BLCKSZ / 4)

/*
 * pp_row_open opens workspace_usage for changes of its rows.
 */
void
pp_row_open(PpUsageRow *row)
{
	row->rel = table_open(pp_our_relation(PP_WORKSPACE_USAGE), RowExclusiveLock);
	if (row->rel->rd_tableam != GetHeapamTableAmRoutine())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table \"workspace_usage\" must be a heap table")));
	row->index = index_open(pp_our_relation(PP_WORKSPACE_USAGE_PKEY), RowExclusiveLock);
	row->old = MakeSingleTupleTableSlot(RelationGetDescr(row->rel), &TTSOpsBufferHeapTuple);
	row->new = MakeSingleTupleTableSlot(RelationGetDescr(row->rel), &TTSOpsVirtual);
}

/*
 * pp_row_close closes it; its locks stay to the end of the transaction.
 */
void
pp_row_close(PpUsageRow *row)
{
	ExecDropSingleTupleTableSlot(row->new);
	ExecDropSingleTupleTableSlot(row->old);
	index_close(row->index, NoLock);
	table_close(row->rel, NoLock);
}

/*
 * fetch_version leaves in row->old the version of a row that the snapshot
 * sees, among those whose index entry has this place; false is that it sees
 * none of them.
 *
 * An index scan would prune the page at every look, for at half filled it is
 * below its fillfactor: so the page is read here, and pruned when it has become
 * full.
 */
static bool
fetch_version(PpUsageRow *row, ItemPointer place, Snapshot snapshot, bool *all_dead)
{
	Buffer		buffer = ReadBuffer(row->rel, ItemPointerGetBlockNumber(place));
	HeapTuple	tuple = &((BufferHeapTupleTableSlot *) row->old)->base.tupdata;
	ItemPointerData tid = *place;
	bool		found;

	if (PageGetHeapFreeSpace(BufferGetPage(buffer)) < PRUNE_BELOW)
		heap_page_prune_opt(row->rel, buffer);
	ExecClearTuple(row->old);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	found = heap_hot_search_buffer(&tid, row->rel, buffer, snapshot, tuple, all_dead, true);
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	if (found)
		ExecStorePinnedBufferHeapTuple(tuple, row->old, buffer);
	else
		ReleaseBuffer(buffer);
	return found;
}

/*
 * find_version leaves in row->old the version of a workspace's row that the
 * snapshot sees; false is that it sees none among the last index entries, so
 * many of them, or all (0).
 *
 * While a snapshot is held open, the dead versions of a hot row cannot be
 * pruned and fill page after page.  Entries of one key are in the order of
 * their place, and new versions go to the end of the table: so the scan goes
 * backward, and finds the version without meeting the dead ones.
 */
static bool
find_version(PpUsageRow *row, int64 workspace_id, Snapshot snapshot, int entries)
{
	IndexScanDesc scan;
	ScanKeyData key;
	ItemPointer place;
	bool		found = false;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(workspace_id));
	scan = pp_index_beginscan(row->rel, row->index, snapshot, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (!found && (place = index_getnext_tid(scan, BackwardScanDirection)) != NULL)
	{
		bool		all_dead = false;

		found = fetch_version(row, place, snapshot, &all_dead);
		scan->kill_prior_tuple = all_dead;
		if (--entries == 0)
			break;
	}
	index_endscan(scan);
	return found;
}

/*
 * pp_row_find is find_version with the latest commit; it never misses a row that
 * is there.
 */
bool
pp_row_find(PpUsageRow *row, int64 workspace_id)
{
	Snapshot	latest;
	bool		found;

	if (find_version(row, workspace_id, SnapshotSelf, LAST_ENTRIES))
		return true;
	latest = RegisterSnapshot(GetLatestSnapshot());
	found = find_version(row, workspace_id, latest, 0);
	UnregisterSnapshot(latest);
	return found;
}

/*
 * pp_row_lock locks the latest version of a workspace's row, to the end of the
 * transaction, and leaves it in row->old; false is that there is none.
 */
bool
pp_row_lock(PpUsageRow *row, int64 workspace_id)
{
	for (;;)
	{
		TM_FailureData failure;
		ItemPointerData tid;
		TM_Result	result;

		CHECK_FOR_INTERRUPTS();
		if (!pp_row_find(row, workspace_id))
			return false;
		tid = row->old->tts_tid;
		result = table_tuple_lock(row->rel, &tid, SnapshotSelf, row->old,
								  GetCurrentCommandId(false), LockTupleNoKeyExclusive,
								  LockWaitBlock, TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure);
		if (result == TM_Ok)
			return true;
		/* Deleted, or its chain was cut meanwhile: look again. */
		if (result != TM_Deleted && result != TM_Updated)
			elog(ERROR, "unexpected result %d of locking the counter of workspace " INT64_FORMAT,
				 (int) result, workspace_id);
	}
}

/*
 * pp_row_begin copies the locked version into row->new, to be changed.
 */
void
pp_row_begin(PpUsageRow *row)
{
	pp_copy_row(row->new, row->old);
}

/*
 * pp_row_write writes row->new over the locked version.  A version that goes
 * to another page gets index entries without a look at those that are there:
 * the columns of the indexes are as they were, and under the lock nobody else
 * has a row of this workspace.  Looking would visit every dead version.
 */
void
pp_row_write(PpUsageRow *row)
{
	PpUpdateIndexes update_indexes;
	PpRowWriter *writer = NULL;

	ExecStoreVirtualTuple(row->new);
	simple_table_tuple_update(row->rel, &row->old->tts_tid, row->new,
							  InvalidSnapshot, &update_indexes);
	pp_writer_updated(&writer, row->rel, row->new, update_indexes);
	if (writer != NULL)
		pp_writer_close(writer);
}

/*
 * pp_row_insert writes row->new as a new row.
 */
void
pp_row_insert(PpUsageRow *row)
{
	PpRowWriter *writer = pp_writer_open(row->rel);

	ExecStoreVirtualTuple(row->new);
	simple_table_tuple_insert(row->rel, row->new);
	pp_writer_entries(writer, row->new, false);
	pp_writer_close(writer);
}
