/*-------------------------------------------------------------------------
 *
 * row_writer.c
 *		Rows that are written through the table access method, and their index
 *		entries.
 *
 * What the executor sets up to write a row costs more than the entries of the
 * row.  B-trees on plain columns, which ours are, need none of it.  Should
 * somebody have added an index of another kind, on an expression or with a
 * condition, the executor does it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "executor/executor.h"
#include "utils/rel.h"

#include "partner_portal.h"

struct PpRowWriter
{
	Relation	rel;
	int			count;
	Relation   *indexes;
	IndexInfo **infos;
	EState	   *estate;			/* for indexes that need the executor, else
								 * NULL */
	ResultRelInfo *result;
};

/*
 * pp_copy_row leaves in a virtual slot the columns of a row that is to be
 * changed, which stay those of the row's slot; ExecStoreVirtualTuple() is next.
 */
void
pp_copy_row(TupleTableSlot *into, TupleTableSlot *from)
{
	int			natts = from->tts_tupleDescriptor->natts;

	slot_getallattrs(from);
	ExecClearTuple(into);
	memcpy(into->tts_values, from->tts_values, natts * sizeof(Datum));
	memcpy(into->tts_isnull, from->tts_isnull, natts * sizeof(bool));
}

/*
 * is_plain tells whether an index is a b-tree that has an entry for every row,
 * of its columns, and is asked at once what it must be.
 */
static bool
is_plain(Relation index, const IndexInfo *info)
{
	return index->rd_rel->relam == BTREE_AM_OID && index->rd_index->indimmediate &&
		info->ii_Expressions == NIL && info->ii_Predicate == NIL &&
		info->ii_ExclusionOps == NULL && info->ii_ReadyForInserts;
}

/*
 * pp_writer_open opens the indexes of a table, in the current memory context.
 */
PpRowWriter *
pp_writer_open(Relation rel)
{
	PpRowWriter *writer = palloc0(sizeof(PpRowWriter));
	List	   *oids = RelationGetIndexList(rel);
	bool		plain = true;
	ListCell   *cell;

	writer->rel = rel;
	writer->indexes = palloc(Max(list_length(oids), 1) * sizeof(Relation));
	writer->infos = palloc(Max(list_length(oids), 1) * sizeof(IndexInfo *));
	foreach(cell, oids)
	{
		Relation	index = index_open(lfirst_oid(cell), RowExclusiveLock);
		IndexInfo  *info = BuildIndexInfo(index);

		plain = plain && is_plain(index, info);
		writer->indexes[writer->count] = index;
		writer->infos[writer->count++] = info;
	}
	list_free(oids);
	if (!plain)
	{
		writer->estate = CreateExecutorState();
		writer->result = makeNode(ResultRelInfo);
		InitResultRelInfo(writer->result, rel, 0, NULL, 0);
		writer->result->ri_TrigDesc = NULL;
		ExecOpenIndices(writer->result, false);
	}
	return writer;
}

/*
 * pp_writer_entries makes the index entries of a row that was written from a
 * slot.  A version that moved is one of a row whose indexed columns have not
 * changed, and nobody else can have another of: its entries are made without a
 * look at those that are there.
 */
void
pp_writer_entries(PpRowWriter *writer, TupleTableSlot *slot, bool moved)
{
	if (writer->estate != NULL)
	{
		(void) pp_insert_index_tuples(writer->result, slot, writer->estate, false);
		ResetPerTupleExprContext(writer->estate);
		return;
	}
	for (int i = 0; i < writer->count; i++)
	{
		Datum		values[INDEX_MAX_KEYS];
		bool		nulls[INDEX_MAX_KEYS];

		FormIndexDatum(writer->infos[i], slot, NULL, values, nulls);
		index_insert(writer->indexes[i], values, nulls, &slot->tts_tid, writer->rel,
					 writer->infos[i]->ii_Unique && !moved ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO,
					 moved, writer->infos[i]);
	}
}

/*
 * pp_writer_updated makes the index entries that an update by the table access
 * method asks for, with a writer that it opens at the first need.  A version
 * that stayed on its page is told to indexes that summarize pages alone; the
 * others find it by the version before.
 */
void
pp_writer_updated(PpRowWriter **writer, Relation rel, TupleTableSlot *slot, PpUpdateIndexes update_indexes)
{
	if (!update_indexes)
		return;
	if (*writer == NULL)
		*writer = pp_writer_open(rel);
	if (!pp_only_summarizing(update_indexes))
	{
		pp_writer_entries(*writer, slot, true);
		return;
	}
	/* there is an index that summarizes, so the writer has an executor */
	Assert((*writer)->estate != NULL);
	(void) pp_insert_index_tuples((*writer)->result, slot, (*writer)->estate, true);
	ResetPerTupleExprContext((*writer)->estate);
}

/*
 * pp_writer_close closes the indexes and gives their locks back, as the executor
 * does: that of the table keeps them.
 */
void
pp_writer_close(PpRowWriter *writer)
{
	if (writer->estate != NULL)
	{
		ExecCloseIndices(writer->result);
		FreeExecutorState(writer->estate);
	}
	for (int i = 0; i < writer->count; i++)
		index_close(writer->indexes[i], RowExclusiveLock);
	pfree(writer->indexes);
	pfree(writer->infos);
	pfree(writer);
}
