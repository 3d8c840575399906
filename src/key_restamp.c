/*-------------------------------------------------------------------------
 *
 * key_restamp.c
 *		Moves stamps of keys that the order of locks does not let stand.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "partner_portal.h"
#include "security_key.h"

/*
 * pp_become_owner makes the owner of our tables the current user, so that what
 * a trigger does by SPI needs no privilege of who fired it.  An error ends it.
 */
void
pp_become_owner(PpOwner *self)
{
	Oid			table = get_relname_relid("workspace_usage", get_namespace_oid(PP_SCHEMA, false));
	HeapTuple	tuple;
	Oid			owner;

	GetUserIdAndSecContext(&self->user, &self->security_context);
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", table);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	SetUserIdAndSecContext(owner,
						   self->security_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_NOFORCE_RLS);
}

/*
 * pp_stop_being_owner goes back to who it was.
 */
void
pp_stop_being_owner(const PpOwner *self)
{
	SetUserIdAndSecContext(self->user, self->security_context);
}

/*
 * pp_restamp_add notes that a key's stamp is to be moved.
 */
void
pp_restamp_add(PpRestamps *list, int64 workspace_id, int64 key_id, bool start, TimestampTz time)
{
	if (list->count == list->room)
	{
		list->room = list->room == 0 ? 16 : list->room * 2;
		list->items = list->items == NULL ?
			palloc_extended(list->room * sizeof(PpRestamp), MCXT_ALLOC_HUGE) :
			repalloc_huge(list->items, list->room * sizeof(PpRestamp));
	}
	list->items[list->count++] = (PpRestamp) {workspace_id, start, time, key_id};
}

/*
 * move_stamps moves one stamp of some keys of one workspace to another time.
 */
static void
move_stamps(const PpRestamp *first, Datum *key_ids, int count)
{
	static SPIPlanPtr plans[2] = {NULL, NULL};
	Oid			types[] = {INT8OID, TIMESTAMPTZOID, INT8ARRAYOID};
	Datum		values[3];

	if (plans[first->start] == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(first->start ?
									   "UPDATE partner_portal.security_key SET activated_at = $2 WHERE workspace_id = $1 AND key_id = ANY ($3)" :
									   "UPDATE partner_portal.security_key SET disabled_at = $2 WHERE workspace_id = $1 AND key_id = ANY ($3)",
									   3, types);

		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		plans[first->start] = plan;
	}
	values[0] = Int64GetDatum(first->workspace_id);
	values[1] = TimestampTzGetDatum(first->time);
	values[2] = PointerGetDatum(construct_array(key_ids, count, INT8OID, sizeof(int64),
												FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	if (SPI_execute_plan(plans[first->start], values, NULL, false, 0) != SPI_OK_UPDATE ||
		SPI_processed != count)
		elog(ERROR, "could not stamp the keys of workspace " INT64_FORMAT " again", first->workspace_id);
}

/*
 * compare_restamps puts the keys that are moved by one statement together.
 */
static int
compare_restamps(const void *a, const void *b)
{
	const PpRestamp *left = a;
	const PpRestamp *right = b;

	if (left->workspace_id != right->workspace_id)
		return left->workspace_id < right->workspace_id ? -1 : 1;
	if (left->start != right->start)
		return left->start < right->start ? -1 : 1;
	if (left->time != right->time)
		return left->time < right->time ? -1 : 1;
	return left->key_id < right->key_id ? -1 : left->key_id > right->key_id;
}

/*
 * pp_restamp_all moves the stamps noted, workspace by workspace.
 */
void
pp_restamp_all(PpRestamps *list)
{
	PpKeyContext outer = pp_key_context;
	PpRestamp  *items = list->items;
	Datum	   *key_ids;
	PpOwner		self;
	int			next;

	if (list->count == 0)
		return;
	qsort(items, list->count, sizeof(PpRestamp), compare_restamps);
	key_ids = palloc_extended(list->count * sizeof(Datum), MCXT_ALLOC_HUGE);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	pp_become_owner(&self);
	pp_key_context.restamp = true;
	PG_TRY();
	{
		for (int i = 0; i < list->count; i = next)
		{
			for (next = i; next < list->count && items[next].workspace_id == items[i].workspace_id &&
				 items[next].start == items[i].start && items[next].time == items[i].time; next++)
				key_ids[next - i] = Int64GetDatum(items[next].key_id);
			move_stamps(&items[i], key_ids, next - i);
		}
	}
	PG_FINALLY();
	{
		pp_key_context = outer;
	}
	PG_END_TRY();
	pp_stop_being_owner(&self);
	SPI_finish();
}
