/*-------------------------------------------------------------------------
 *
 * outbox.c
 *		Messages owed: a row of notification and one of delivery_queue for each,
 *		and the worker woken once per transaction that owes any, at commit.
 *
 * Rows are written through the table access method; privileges, policies and
 * triggers of these tables do not apply.  A message that our own code has made
 * whole needs no more: the executor would read the ten CHECK constraints of
 * notification anew in each execution, and what it does beside that costs as
 * much again.  Others are checked, and are owed once per workspace, kind and
 * dedupe_key.  The foreign key of the queue holds because the same transaction
 * has written what it points to, which nobody else can see yet.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "delivery.h"
#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_wake_delivery);
PG_FUNCTION_INFO_V1(partner_portal_enqueue_mail);

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
 * set_text gives a column of the next row a text, unless it is NULL.
 */
static void
set_text(Target *target, int column, const char *value)
{
	if (value != NULL)
		set(target, column, CStringGetTextDatum(value));
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
 * try_row writes the row unless there is another of the same natural key, as
 * ON CONFLICT DO NOTHING does; one that is under way is waited for.  In
 * REPEATABLE READ one that the snapshot does not see counts too: what somebody
 * else owes need not be owed again.
 */
static bool
try_row(Target *target, ResultRelInfo *result, EState *estate)
{
	List	   *arbiters = list_make1_oid(pp_our_relation(PP_NOTIFICATION_NATURAL_KEY));

	for (;;)
	{
		ItemPointerData other;
		uint32		token;
		bool		conflict = false;

		CHECK_FOR_INTERRUPTS();
		ItemPointerSetInvalid(&target->slot->tts_tid);
		if (!pp_check_index_constraints(result, target->slot, estate, &other, arbiters))
			return false;
		token = SpeculativeInsertionLockAcquire(GetCurrentTransactionId());
		table_tuple_insert_speculative(target->rel, target->slot, GetCurrentCommandId(true), 0, NULL, token);
		(void) pp_insert_speculative_tuples(result, target->slot, estate, &conflict, arbiters);
		table_tuple_complete_speculative(target->rel, target->slot, token, !conflict);
		SpeculativeInsertionLockRelease(GetCurrentTransactionId());
		if (!conflict)
			return true;
	}
}

/*
 * check_and_try_row is try_row of a row that may break a constraint.
 */
static bool
check_and_try_row(Target *target)
{
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *result = makeNode(ResultRelInfo);
	bool		written;

	InitResultRelInfo(result, target->rel, 0, NULL, 0);
	ExecOpenIndices(result, true);
	ExecStoreVirtualTuple(target->slot);
	pp_give_check_states(result, estate);
	ExecConstraints(result, target->slot, estate);
	written = try_row(target, result, estate);
	ExecClearTuple(target->slot);
	ExecCloseIndices(result);
	FreeExecutorState(estate);
	return written;
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
 * set_notification describes a message in the next row of notification.
 */
static void
set_notification(Target *row, int64 id, const PpMessage *message)
{
	Datum		now = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());

	begin_row(row);
	set(row, NOTIFICATION_WORKSPACE_ID, Int64GetDatum(message->workspace_id));
	set(row, NOTIFICATION_NOTIFICATION_ID, Int64GetDatum(id));
	set(row, NOTIFICATION_MESSAGE_ID, new_message_id());
	set(row, NOTIFICATION_PARTNER_KEY, Int64GetDatum(message->partner_key));
	set_text(row, NOTIFICATION_KIND, message->kind);
	set_text(row, NOTIFICATION_DEDUPE_KEY, message->dedupe_key);
	set(row, NOTIFICATION_OCCURRED_AT, now);
	if (message->expires_at != NULL)
		set(row, NOTIFICATION_EXPIRES_AT, TimestampTzGetDatum(*message->expires_at));
	set_text(row, NOTIFICATION_STATE, "pending");
	set(row, NOTIFICATION_ATTEMPTS, Int32GetDatum(0));
	set(row, NOTIFICATION_NEXT_ATTEMPT_AT, now);
	if (message->endpoint_id != 0)
		set(row, NOTIFICATION_ENDPOINT_ID, Int64GetDatum(message->endpoint_id));
	set_text(row, NOTIFICATION_RECIPIENT, message->recipient);
	set_text(row, NOTIFICATION_LOCALE, message->locale);
	set_text(row, NOTIFICATION_SUBJECT, message->subject);
	set_text(row, NOTIFICATION_TEXT_BODY, message->text_body);
	set_text(row, NOTIFICATION_HTML_BODY, message->html_body);
	set_text(row, NOTIFICATION_UNSUBSCRIBE_URL, message->unsubscribe_url);
	set_text(row, NOTIFICATION_SECRET, message->secret);
}

/*
 * pp_outbox_write owes a message, once the outbox is closed, and returns its
 * id.  If one of the same workspace, kind and dedupe_key was owed before, it
 * returns 0; of a certain one that is an error (23505).
 */
int64
pp_outbox_write(PpOutbox *outbox, const PpMessage *message)
{
	MemoryContext old_context = MemoryContextSwitchTo(outbox->message);
	int64		id = nextval_internal(pp_our_relation(PP_NOTIFICATION_ID_SEQUENCE), false);
	bool		written = true;

	set_notification(&outbox->notification, id, message);
	if (message->certain)
		write_row(&outbox->notification);
	else
		written = check_and_try_row(&outbox->notification);
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(outbox->message);
	if (!written)
		return 0;
	if (outbox->count == outbox->room)
	{
		outbox->room *= 2;
		outbox->written = repalloc_huge(outbox->written, outbox->room * sizeof(Written));
	}
	outbox->written[outbox->count].workspace_id = message->workspace_id;
	outbox->written[outbox->count].notification_id = id;
	outbox->written[outbox->count++].destination = message->endpoint_id;
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

/*
 * argument_text returns a text argument, NULL for NULL.
 */
static char *
argument_text(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(number));
}

/*
 * content_text returns a column of a mail_content, NULL for NULL.
 */
static char *
content_text(HeapTupleHeader content, AttrNumber column)
{
	bool		isnull = true;
	Datum		value = (Datum) 0;

	if (content != NULL)
		value = GetAttributeByNum(content, column, &isnull);
	return isnull ? NULL : TextDatumGetCString(value);
}

/*
 * enqueue_mail(workspace_id, kind, dedupe_key, recipient, locale, mail, secret,
 * expires_at, unsubscribe_url) owes a mail; NULL if it was owed before.
 */
Datum
partner_portal_enqueue_mail(PG_FUNCTION_ARGS)
{
	HeapTupleHeader content = PG_ARGISNULL(5) ? NULL : PG_GETARG_HEAPTUPLEHEADER(5);
	TimestampTz expires_at = PG_ARGISNULL(7) ? 0 : PG_GETARG_TIMESTAMPTZ(7);
	PpWorkspace workspace = {0};
	PpOutbox   *outbox;
	PpMessage	message = {
		.workspace_id = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0),
		.kind = argument_text(fcinfo, 1),
		.dedupe_key = argument_text(fcinfo, 2),
		.recipient = argument_text(fcinfo, 3),
		.locale = argument_text(fcinfo, 4),
		.subject = content_text(content, 1),
		.text_body = content_text(content, 2),
		.html_body = content_text(content, 3),
		.secret = argument_text(fcinfo, 6),
		.expires_at = PG_ARGISNULL(7) ? NULL : &expires_at,
		.unsubscribe_url = argument_text(fcinfo, 8)
	};
	int64		id;

	PreventCommandIfReadOnly("enqueue_mail()");
	if (message.locale == NULL)
		message.locale = "en";
	(void) pp_workspace(message.workspace_id, &workspace);
	message.partner_key = workspace.partner_key;
	outbox = pp_outbox_open();
	id = pp_outbox_write(outbox, &message);
	pp_outbox_close(outbox);
	if (id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(id);
}
