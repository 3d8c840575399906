/*-------------------------------------------------------------------------
 *
 * acl_row.c
 *		Reading rows of the tables that decide access, as of the latest commit
 *		and of one's own transaction, whatever snapshot that has.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "partner_portal.h"

/*
 * pp_row_column returns a column of a row of the named table's, by name.
 */
Datum
pp_row_column(HeapTuple row, Relation relation, const char *name, bool *isnull)
{
	AttrNumber	number = get_attnum(RelationGetRelid(relation), name);

	if (number == InvalidAttrNumber)
		elog(ERROR, "column \"%s\" of relation \"%s\" does not exist",
			 name, RelationGetRelationName(relation));
	return heap_getattr(row, number, RelationGetDescr(relation), isnull);
}

/*
 * pp_row_is_set tells whether a column is not NULL.
 */
bool
pp_row_is_set(HeapTuple row, Relation relation, const char *name)
{
	bool		isnull;

	(void) pp_row_column(row, relation, name, &isnull);
	return !isnull;
}

/*
 * pp_row_id returns a bigint column, 0 for NULL.
 */
int64
pp_row_id(HeapTuple row, Relation relation, const char *name)
{
	bool		isnull;
	Datum		value = pp_row_column(row, relation, name, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

/*
 * pp_row_text_is tells whether a text column holds exactly the given text.
 */
bool
pp_row_text_is(HeapTuple row, Relation relation, const char *name, const char *expected)
{
	bool		isnull;
	Datum		value = pp_row_column(row, relation, name, &isnull);
	text	   *found;
	bool		same;

	if (isnull)
		return false;
	found = DatumGetTextPP(value);
	same = VARSIZE_ANY_EXHDR(found) == strlen(expected) &&
		memcmp(VARDATA_ANY(found), expected, strlen(expected)) == 0;
	if ((Pointer) found != DatumGetPointer(value))
		pfree(found);
	return same;
}

/*
 * pp_scan_by_id reads the rows of a table with the given id in a bigint column
 * by an index, as of the latest commit.
 */
SysScanDesc
pp_scan_by_id(Relation relation, const char *index, const char *column_name, int64 id)
{
	ScanKeyData key;

	ScanKeyInit(&key, get_attnum(RelationGetRelid(relation), column_name),
				BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	return systable_beginscan(relation,
							  get_relname_relid(index, RelationGetNamespace(relation)),
							  true, NULL, 1, &key);
}

/*
 * pp_open_ours opens one of the extension's tables for reading, which also
 * absorbs invalidation messages.  NULL if there is none.
 */
Relation
pp_open_ours(Oid schema, const char *name)
{
	Oid			relation = get_relname_relid(name, schema);

	return OidIsValid(relation) ? table_open(relation, AccessShareLock) : NULL;
}
