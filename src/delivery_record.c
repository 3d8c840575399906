/*-------------------------------------------------------------------------
 *
 * delivery_record.c
 *		Records how deliveries ended.
 *
 * Nearly all are delivered.  Those are recorded through the table access
 * method, by the places where the claim found and left their rows; what is at a
 * place is asked whether it is still the row, and still leased to this engine.
 * Where it is not, where a message carries a token that is to be blanked, or
 * where somebody has put a trigger on these tables, a statement does the same.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/reltrigger.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "delivery.h"
#include "partner_portal.h"

#define MARK_DELIVERED \
"UPDATE partner_portal.notification n" \
"	SET state = 'delivered', attempts = n.attempts + 1, next_attempt_at = NULL," \
"		finished_at = clock_timestamp(), last_code = d.code, last_error = NULL," \
"		text_body = CASE WHEN n.secret IS NULL THEN n.text_body ELSE replace(n.text_body, n.secret, '*') END," \
"		html_body = CASE WHEN n.secret IS NULL THEN n.html_body ELSE replace(n.html_body, n.secret, '*') END," \
"		secret = CASE WHEN n.secret IS NOT NULL THEN '' END" \
"	FROM done d" \
"	WHERE n.workspace_id = d.workspace_id AND n.notification_id = d.notification_id"

/* Both rows of those that are still leased to this engine. */
static const char delivered_sql[] =
"WITH done AS ("
"	DELETE FROM partner_portal.delivery_queue q"
"	USING unnest($1, $2, $3) AS r (workspace_id, notification_id, code)"
"	WHERE q.workspace_id = r.workspace_id AND q.notification_id = r.notification_id"
"		AND q.lease_token = $4"
"	RETURNING q.workspace_id, q.notification_id, r.code"
") "
MARK_DELIVERED;

/* One message whose row of the queue is gone already. */
static const char marked_sql[] =
"WITH done AS (SELECT $1 AS workspace_id, $2 AS notification_id, $3 AS code) "
MARK_DELIVERED;

static const char recovered_sql[] =
"UPDATE partner_portal.delivery_destination"
"	SET failures = 0, failing_since = NULL, hold_until = NULL, last_error = NULL"
"	WHERE destination = ANY ($1) AND failures > 0";

static const char failed_sql[] =
"SELECT partner_portal.record_failure($1, $2, $3, $4, $5, $6, $7)";

static SPIPlanPtr delivered_plan = NULL;
static SPIPlanPtr marked_plan = NULL;
static SPIPlanPtr recovered_plan = NULL;
static SPIPlanPtr failed_plan = NULL;

static const char *const outcome_names[] = {
	"delivered", "retry", "ambiguous", "refused", "gone", "configuration", "aborted"
};

/* A table, open to be read by place. */
typedef struct Table
{
	Relation	rel;
	BlockNumber blocks;
	TupleTableSlot *slot;
} Table;

/* What is open while deliveries are recorded. */
typedef struct Record
{
	int			token;
	bool		plain;			/* nobody has put triggers on the tables */
	Snapshot	snapshot;
	Datum		state;
	Table		queue;
	Table		notification;
	TupleTableSlot *marked;		/* the row of notification that is written */
	PpRowWriter *writer;		/* for rows that move to another page, else
								 * NULL */
} Record;

/*
 * has_triggers tells whether a table has triggers for changes of rows beside
 * those of its foreign keys, which ask nothing of ours.
 */
static bool
has_triggers(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (!trigger->tgisinternal && trigger->tgenabled != TRIGGER_DISABLED &&
			(TRIGGER_FOR_UPDATE(trigger->tgtype) || TRIGGER_FOR_DELETE(trigger->tgtype)))
			return true;
	}
	return false;
}

/*
 * open_table opens a table of ours to be changed.
 */
static void
open_table(Table *table, PpOurRelation which, int count, const char *const *columns)
{
	table->rel = table_open(pp_our_relation(which), RowExclusiveLock);
	table->blocks = RelationGetNumberOfBlocks(table->rel);
	table->slot = table_slot_create(table->rel, NULL);
	pp_check_columns(RelationGetDescr(table->rel), count, columns);
}

/*
 * close_table closes it; its lock stays.
 */
static void
close_table(Table *table)
{
	ExecDropSingleTupleTableSlot(table->slot);
	table_close(table->rel, NoLock);
}

/*
 * open_record opens what is changed when messages are delivered.
 */
static void
open_record(Record *record)
{
	PushActiveSnapshot(GetTransactionSnapshot());
	record->snapshot = GetActiveSnapshot();
	open_table(&record->queue, PP_DELIVERY_QUEUE, QUEUE_COLUMNS, pp_queue_columns);
	open_table(&record->notification, PP_NOTIFICATION, NOTIFICATION_COLUMNS, pp_notification_columns);
	record->plain = !has_triggers(record->queue.rel) && !has_triggers(record->notification.rel);
	record->marked = MakeSingleTupleTableSlot(RelationGetDescr(record->notification.rel), &TTSOpsVirtual);
	record->state = CStringGetTextDatum("delivered");
}

/*
 * close_record closes it, and lets the next command see what was written.
 */
static void
close_record(Record *record)
{
	if (record->writer != NULL)
		pp_writer_close(record->writer);
	ExecDropSingleTupleTableSlot(record->marked);
	close_table(&record->notification);
	close_table(&record->queue);
	PopActiveSnapshot();
	CommandCounterIncrement();
}

/*
 * at_place leaves in the table's slot the row of a message, if that is what is
 * at a place; the first two columns of either table say so.
 */
static bool
at_place(Record *record, Table *table, ItemPointer place, const PpTransfer *transfer)
{
	if (!ItemPointerIsValid(place) || ItemPointerGetBlockNumber(place) >= table->blocks ||
		!table_tuple_fetch_row_version(table->rel, place, record->snapshot, table->slot))
		return false;
	slot_getallattrs(table->slot);
	return DatumGetInt64(table->slot->tts_values[0]) == transfer->workspace_id &&
		DatumGetInt64(table->slot->tts_values[1]) == transfer->notification_id;
}

/*
 * set gives a column of the row that is written a value.
 */
static void
set(Record *record, int column, Datum value)
{
	record->marked->tts_values[column - 1] = value;
	record->marked->tts_isnull[column - 1] = false;
}

/*
 * mark writes that the message in the slot is delivered; false if somebody else
 * has changed it.
 */
static bool
mark(Record *record, int code)
{
	Table	   *notification = &record->notification;
	TupleTableSlot *old = notification->slot;
	TupleTableSlot *marked = record->marked;
	TM_FailureData failure;
	LockTupleMode mode;
	PpUpdateIndexes update_indexes;

	pp_copy_row(marked, old);
	set(record, NOTIFICATION_STATE, record->state);
	set(record, NOTIFICATION_ATTEMPTS, Int32GetDatum(DatumGetInt32(old->tts_values[NOTIFICATION_ATTEMPTS - 1]) + 1));
	set(record, NOTIFICATION_FINISHED_AT, TimestampTzGetDatum(GetCurrentTimestamp()));
	set(record, NOTIFICATION_LAST_CODE, Int32GetDatum(code));
	marked->tts_isnull[NOTIFICATION_NEXT_ATTEMPT_AT - 1] = true;
	marked->tts_isnull[NOTIFICATION_LAST_ERROR - 1] = true;
	ExecStoreVirtualTuple(marked);
	if (table_tuple_update(notification->rel, &old->tts_tid, marked, GetCurrentCommandId(true), record->snapshot,
						   InvalidSnapshot, true, &failure, &mode, &update_indexes) != TM_Ok)
		return false;
	pp_writer_updated(&record->writer, notification->rel, marked, update_indexes);
	return true;
}

/*
 * mark_latest does the same by a statement, which finds what the message has
 * become meanwhile.
 */
static void
mark_latest(const PpTransfer *transfer)
{
	Oid			types[] = {INT8OID, INT8OID, INT4OID};
	Datum		values[3];

	values[0] = Int64GetDatum(transfer->workspace_id);
	values[1] = Int64GetDatum(transfer->notification_id);
	values[2] = Int32GetDatum(transfer->code);
	pp_queue_execute(&marked_plan, marked_sql, 3, types, values);
}

/*
 * record_in_place records that a message was delivered, by the places of its
 * rows; false if they are not what they were, and nothing is done.
 */
static bool
record_in_place(Record *record, PpTransfer *transfer)
{
	Table	   *queue = &record->queue;
	TupleTableSlot *message = record->notification.slot;
	TM_FailureData failure;

	if (!record->plain ||
		!at_place(record, &record->notification, &transfer->kept_at, transfer) ||
		!message->tts_isnull[NOTIFICATION_SECRET - 1] ||
		!at_place(record, queue, &transfer->queued_at, transfer) ||
		queue->slot->tts_isnull[QUEUE_LEASE_TOKEN - 1] ||
		DatumGetInt32(queue->slot->tts_values[QUEUE_LEASE_TOKEN - 1]) != record->token ||
		table_tuple_delete(queue->rel, &queue->slot->tts_tid, GetCurrentCommandId(true), record->snapshot,
						   InvalidSnapshot, true, &failure, false) != TM_Ok)
		return false;
	if (!mark(record, transfer->code))
		mark_latest(transfer);
	return true;
}

/*
 * int8_array and int4_array make array arguments.
 */
static Datum
int8_array(const int64 *values, int count)
{
	Datum	   *datums = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		datums[i] = Int64GetDatum(values[i]);
	return PointerGetDatum(construct_array(datums, count, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static Datum
int4_array(const int *values, int count)
{
	Datum	   *datums = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		datums[i] = Int32GetDatum(values[i]);
	return PointerGetDatum(construct_array(datums, count, INT4OID, sizeof(int32),
										   true, TYPALIGN_INT));
}

/*
 * record_delivered records all that were delivered, and that their destinations
 * are well again.
 */
static void
record_delivered(int token, PpTransfer *finished, int count)
{
	Oid			types[] = {INT8ARRAYOID, INT8ARRAYOID, INT4ARRAYOID, INT4OID};
	Oid			recovered_types[] = {INT8ARRAYOID};
	int64	   *workspaces = palloc(sizeof(int64) * count);
	int64	   *notifications = palloc(sizeof(int64) * count);
	int64	   *recovered = palloc(sizeof(int64) * count);
	int		   *codes = palloc(sizeof(int) * count);
	Record		record = {token};
	Datum		values[4];
	int			others = 0;
	int			recovered_count = 0;

	open_record(&record);
	for (PpTransfer *transfer = finished; transfer != NULL; transfer = transfer->next)
	{
		if (transfer->outcome != PP_DELIVERED)
			continue;
		if (transfer->ailing)
			recovered[recovered_count++] = transfer->destination;
		if (record_in_place(&record, transfer))
			continue;
		workspaces[others] = transfer->workspace_id;
		notifications[others] = transfer->notification_id;
		codes[others++] = transfer->code;
	}
	close_record(&record);
	if (others > 0)
	{
		values[0] = int8_array(workspaces, others);
		values[1] = int8_array(notifications, others);
		values[2] = int4_array(codes, others);
		values[3] = Int32GetDatum(token);
		pp_queue_execute(&delivered_plan, delivered_sql, 4, types, values);
	}
	if (recovered_count > 0)
	{
		values[0] = int8_array(recovered, recovered_count);
		pp_queue_execute(&recovered_plan, recovered_sql, 1, recovered_types, values);
	}
}

/*
 * record_failed records one that was not delivered.
 */
static void
record_failed(int token, PpTransfer *transfer)
{
	Oid			types[] = {INT8OID, INT8OID, INT4OID, TEXTOID, INT4OID, TEXTOID, INT4OID};
	Datum		values[7];

	values[0] = Int64GetDatum(transfer->workspace_id);
	values[1] = Int64GetDatum(transfer->notification_id);
	values[2] = Int32GetDatum(token);
	values[3] = CStringGetTextDatum(outcome_names[transfer->outcome]);
	values[4] = Int32GetDatum(transfer->code);
	values[5] = CStringGetTextDatum(transfer->error);
	values[6] = Int32GetDatum(transfer->retry_after);
	pp_queue_execute(&failed_plan, failed_sql, 7, types, values);
}

/*
 * pp_queue_record records how transfers ended.  What is no longer leased to
 * this engine stays as it is.
 */
void
pp_queue_record(int token, PpTransfer *finished)
{
	int			delivered = 0;

	for (PpTransfer *transfer = finished; transfer != NULL; transfer = transfer->next)
	{
		if (transfer->outcome == PP_DELIVERED)
			delivered++;
		else
			record_failed(token, transfer);
	}
	if (delivered > 0)
		record_delivered(token, finished, delivered);
}

/* Transfers to be recorded by an engine. */
typedef struct Finished
{
	int			token;
	PpTransfer *list;
} Finished;

/*
 * record_list is pp_queue_record as the work of a subtransaction.
 */
static void
record_list(void *argument)
{
	const Finished *finished = argument;

	pp_queue_record(finished->token, finished->list);
}

/*
 * record_alone records how one transfer of a list ended, or notes that it could
 * not, and why.
 */
static void
record_alone(int token, PpTransfer *transfer)
{
	Finished	finished = {token, transfer};
	PpTransfer *next = transfer->next;
	ErrorData  *error;

	transfer->next = NULL;
	error = pp_section_try(record_list, &finished);
	transfer->next = next;
	transfer->unrecorded = error != NULL;
	if (error == NULL)
		return;
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("could not record how notification " INT64_FORMAT " ended", transfer->notification_id),
			 errdetail("%s", error->message),
			 errhint("It is set aside; others are recorded meanwhile.")));
	FreeErrorData(error);
}

/*
 * pp_queue_record_apart records how transfers ended as pp_queue_record does, but
 * where that fails, each by itself; it notes which could not be recorded.
 */
void
pp_queue_record_apart(int token, PpTransfer *finished)
{
	Finished	all = {token, finished};
	ErrorData  *error = NULL;

	if (finished->next != NULL)
	{
		error = pp_section_try(record_list, &all);
		if (error != NULL && error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
			pp_pin_setting("lock_timeout", "100ms");	/* it was waited for */
	}
	for (PpTransfer *transfer = finished; transfer != NULL; transfer = transfer->next)
	{
		transfer->unrecorded = false;
		if (error != NULL || finished->next == NULL)
			record_alone(token, transfer);
	}
}

/*
 * pp_aside_keep frees what was recorded, of what has ended and of what had been
 * set aside, and sets aside what could not be; after a longer pause each time it
 * is to be tried again.
 */
void
pp_aside_keep(PpAside *aside, PpTransfer **finished, TimestampTz now)
{
	PpTransfer *lists[] = {*finished, aside->list};

	*finished = aside->list = NULL;
	aside->count = 0;
	for (int i = 0; i < lengthof(lists); i++)
	{
		while (lists[i] != NULL)
		{
			PpTransfer *transfer = lists[i];

			lists[i] = transfer->next;
			if (!transfer->unrecorded)
			{
				pp_transfer_free(transfer);
				continue;
			}
			transfer->next = aside->list;
			aside->list = transfer;
			aside->count++;
		}
	}
	if (aside->list == NULL)
		aside->pause = 0;
	else if (now >= aside->until)
	{
		aside->pause = Min(60000, Max(1000, aside->pause * 2));
		aside->until = TimestampTzPlusMilliseconds(now, aside->pause);
	}
}
