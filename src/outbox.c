/*-------------------------------------------------------------------------
 *
 * outbox.c
 *		Messages owed: a row of notification and one of delivery_queue for each,
 *		and the worker woken once per transaction that owes any, at commit.
 *
 * Rows are written through the table access method.  The executor would read
 * the ten CHECK constraints of notification anew in each execution, and what it
 * does beside that costs as much again.  What is written here satisfies them
 * by itself; the unique indexes are asked as ever, and the foreign key of the
 * queue holds because the same transaction has written what it points to,
 * which nobody else can see yet.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "delivery.h"
#include "partner_portal.h"
#include "security_key.h"

PG_FUNCTION_INFO_V1(partner_portal_wake_delivery);

/* A table, open for new rows. */
typedef struct Target
{
	Relation	rel;
	PpRowWriter *writer;
	TupleTableSlot *slot;
} Target;

/* A message that is written, and not yet in the queue. */
typedef struct Written
{
	int64		workspace_id;
	int64		notification_id;
	int64		destination;
} Written;

struct PpOutbox
{
	Target		notification;
	MemoryContext message;		/* of one message, reset after it */
	Written    *written;
	int			count;
	int			room;
};

static bool owes = false;

/*
 * at_end wakes the worker when a transaction that queued something commits.  A
 * prepared one is found by the worker's next look at the queue.
 */
static void
at_end(XactEvent event, void *arg)
{
	if (!owes)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			owes = false;
			pp_worker_wake();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			owes = false;
			break;
		default:
			break;
	}
}

/*
 * wake_delivery() is the statement trigger of the queue.
 */
Datum
partner_portal_wake_delivery(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("wake_delivery() must be called as a trigger")));
	owes = true;
	PG_RETURN_POINTER(NULL);
}

/*
 * pp_outbox_init registers the callback, once per process.
 */
void
pp_outbox_init(void)
{
	RegisterXactCallback(at_end, NULL);
}

/*
 * open_target opens one of our tables for new rows, and its indexes.
 */
static void
open_target(Target *target, PpOurRelation which)
{
	target->rel = table_open(pp_our_relation(which), RowExclusiveLock);
	target->writer = pp_writer_open(target->rel);
	target->slot = MakeSingleTupleTableSlot(RelationGetDescr(target->rel), &TTSOpsVirtual);
}

/*
 * close_target closes it; its locks stay.
 */
static void
close_target(Target *target)
{
	ExecDropSingleTupleTableSlot(target->slot);
	pp_writer_close(target->writer);
	table_close(target->rel, NoLock);
}

/*
 * begin_row makes every column of the next row NULL.
 */
static void
begin_row(Target *target)
{
	ExecClearTuple(target->slot);
	memset(target->slot->tts_isnull, true, RelationGetDescr(target->rel)->natts * sizeof(bool));
}

/*
 * set gives a column of the next row a value.
 */
static void
set(Target *target, int column, Datum value)
{
	target->slot->tts_values[column - 1] = value;
	target->slot->tts_isnull[column - 1] = false;
}

/*
 * write_row writes the row and its index entries.
 */
static void
write_row(Target *target)
{
	ExecStoreVirtualTuple(target->slot);
	table_tuple_insert(target->rel, target->slot, GetCurrentCommandId(true), 0, NULL);
	pp_writer_entries(target->writer, target->slot, false);
	ExecClearTuple(target->slot);
}

/*
 * new_message_id returns a random UUID, as gen_random_uuid() does.
 */
static Datum
new_message_id(void)
{
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	pp_random_bytes(id->data, UUID_LEN);
	id->data[6] = (id->data[6] & 0x0f) | 0x40;	/* version 4 */
	id->data[8] = (id->data[8] & 0x3f) | 0x80;	/* variant of RFC 4122 */
	return UUIDPGetDatum(id);
}

/*
 * pp_outbox_open opens the outbox for new messages.
 */
PpOutbox *
pp_outbox_open(void)
{
	static bool checked = false;
	PpOutbox   *outbox = palloc0(sizeof(PpOutbox));

	open_target(&outbox->notification, PP_NOTIFICATION);
	if (!checked)
	{
		pp_check_columns(RelationGetDescr(outbox->notification.rel), NOTIFICATION_COLUMNS, pp_notification_columns);
		checked = true;
	}
	outbox->room = 4;
	outbox->written = palloc(outbox->room * sizeof(Written));
	outbox->message = AllocSetContextCreate(CurrentMemoryContext, "message owed", ALLOCSET_DEFAULT_SIZES);
	return outbox;
}

/*
 * pp_outbox_write owes a message, once the outbox is closed, and returns its
 * id.  One of the same workspace, kind and dedupe_key is refused (23505).
 */
int64
pp_outbox_write(PpOutbox *outbox, const PpMessage *message)
{
	Target	   *notification = &outbox->notification;
	MemoryContext old_context = MemoryContextSwitchTo(outbox->message);
	Datum		now = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	int64		id = nextval_internal(pp_our_relation(PP_NOTIFICATION_ID_SEQUENCE), false);

	begin_row(notification);
	set(notification, NOTIFICATION_WORKSPACE_ID, Int64GetDatum(message->workspace_id));
	set(notification, NOTIFICATION_NOTIFICATION_ID, Int64GetDatum(id));
	set(notification, NOTIFICATION_MESSAGE_ID, new_message_id());
	set(notification, NOTIFICATION_PARTNER_KEY, Int64GetDatum(message->partner_key));
	set(notification, NOTIFICATION_KIND, CStringGetTextDatum(message->kind));
	set(notification, NOTIFICATION_DEDUPE_KEY, CStringGetTextDatum(message->dedupe_key));
	set(notification, NOTIFICATION_OCCURRED_AT, now);
	set(notification, NOTIFICATION_STATE, CStringGetTextDatum("pending"));
	set(notification, NOTIFICATION_ATTEMPTS, Int32GetDatum(0));
	set(notification, NOTIFICATION_NEXT_ATTEMPT_AT, now);
	set(notification, NOTIFICATION_ENDPOINT_ID, Int64GetDatum(message->endpoint_id));
	set(notification, NOTIFICATION_TEXT_BODY, CStringGetTextDatum(message->text_body));
	write_row(notification);

	MemoryContextSwitchTo(old_context);
	MemoryContextReset(outbox->message);
	if (outbox->count == outbox->room)
	{
		outbox->room *= 2;
		outbox->written = repalloc_huge(outbox->written, outbox->room * sizeof(Written));
	}
	outbox->written[outbox->count++] = (Written) {
		.workspace_id = message->workspace_id,
		.notification_id = id,
		.destination = message->endpoint_id
	};
	return id;
}

/*
 * write_queue queues what is written.
 */
static void
write_queue(const PpOutbox *outbox)
{
	static bool checked = false;
	Datum		now = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	Target		queue;

	open_target(&queue, PP_DELIVERY_QUEUE);
	if (!checked)
	{
		pp_check_columns(RelationGetDescr(queue.rel), QUEUE_COLUMNS, pp_queue_columns);
		checked = true;
	}
	for (int i = 0; i < outbox->count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		begin_row(&queue);
		set(&queue, QUEUE_WORKSPACE_ID, Int64GetDatum(outbox->written[i].workspace_id));
		set(&queue, QUEUE_NOTIFICATION_ID, Int64GetDatum(outbox->written[i].notification_id));
		set(&queue, QUEUE_DESTINATION, Int64GetDatum(outbox->written[i].destination));
		set(&queue, QUEUE_NEXT_ATTEMPT_AT, now);
		set(&queue, QUEUE_CLAIMS, Int32GetDatum(0));
		write_row(&queue);
	}
	close_target(&queue);
	owes = true;
}

/*
 * pp_outbox_close queues what was written, and lets the next command see it.
 * The queue is not open while the other table is: with more than a few locks at
 * once, locks cost more.
 */
void
pp_outbox_close(PpOutbox *outbox)
{
	MemoryContextDelete(outbox->message);
	close_target(&outbox->notification);
	if (outbox->count > 0)
		write_queue(outbox);
	pfree(outbox->written);
	pfree(outbox);
	CommandCounterIncrement();
}
