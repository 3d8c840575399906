/*-------------------------------------------------------------------------
 *
 * delivery_claim.c
 *		Claims messages that are due: leases their rows of the queue and makes
 *		transfers of them.
 *
 * Rows are found by their indexes and written through the table access method,
 * in the order of the round of destinations.  A row that somebody else has
 * locked is passed over.  A claim changes no indexed column, and the check and
 * the foreign key of the queue hold for what it writes.  Privileges, policies
 * and triggers of the queue do not apply.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "delivery.h"
#include "partner_portal.h"

#define LEASE_MS	(7200 * INT64CONST(1000))	/* PP_SLOTS of the longest
												 * mails; a dead engine's are
												 * freed at once */

enum
{
	DESTINATION_DESTINATION = 1,
	DESTINATION_MAX_IN_FLIGHT,
	DESTINATION_PAUSED,
	DESTINATION_FAILURES,
	DESTINATION_FAILING_SINCE,
	DESTINATION_HOLD_UNTIL,
	DESTINATION_COLUMNS = DESTINATION_HOLD_UNTIL
};

static const char *const destination_columns[] = {
	"destination", "max_in_flight", "paused", "failures", "failing_since",
	"hold_until"
};

enum
{
	ENDPOINT_WORKSPACE_ID = 1,
	ENDPOINT_ENDPOINT_ID,
	ENDPOINT_PARTNER_KEY,
	ENDPOINT_URL,
	ENDPOINT_EVENTS,
	ENDPOINT_STATE,
	ENDPOINT_STATE_REASON,
	ENDPOINT_CREATED_AT,
	ENDPOINT_NONCE,
	ENDPOINT_KEY_VERSION,
	ENDPOINT_SECRET_VERSION,
	ENDPOINT_PREVIOUS_SECRET_UNTIL,
	ENDPOINT_COLUMNS = ENDPOINT_PREVIOUS_SECRET_UNTIL
};

static const char *const endpoint_columns[] = {
	"workspace_id", "endpoint_id", "partner_key", "url", "events", "state",
	"state_reason", "created_at", "nonce", "key_version", "secret_version",
	"previous_secret_until"
};

/* A table, open to be read by one of its indexes. */
typedef struct Table
{
	Relation	rel;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
} Table;

/* What is open while messages are claimed. */
typedef struct Claim
{
	int			token;
	const PpRelay *relay;
	TimestampTz now;			/* the transaction's */
	Snapshot	snapshot;
	Table		queue;
	Table		notification;
	Table		destination;
	Table		endpoint;
	TupleTableSlot *leased;		/* the row of the queue that is written */
	PpRowWriter *writer;		/* for rows that move to another page, else
								 * NULL */
	PpEndpoint	peer;			/* of the destination at hand */
} Claim;

/*
 * open_table opens a table of ours, to be searched by so many keys.
 */
static void
open_table(Claim *claim, Table *table, PpOurRelation rel, PpOurRelation index, int keys, LOCKMODE lock)
{
	table->rel = table_open(pp_our_relation(rel), lock);
	table->index = index_open(pp_our_relation(index), lock);
	table->scan = pp_index_beginscan(table->rel, table->index, claim->snapshot, keys);
	table->slot = table_slot_create(table->rel, NULL);
}

/*
 * close_table closes it; its locks stay.
 */
static void
close_table(Table *table)
{
	index_endscan(table->scan);
	ExecDropSingleTupleTableSlot(table->slot);
	index_close(table->index, NoLock);
	table_close(table->rel, NoLock);
}

/*
 * find_row leaves the row of one or two numbers in the table's slot; false is
 * that there is none.
 */
static bool
find_row(Table *table, int count, int64 first, int64 second)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(first));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(second));
	index_rescan(table->scan, keys, count, NULL, 0);
	return index_getnext_slot(table->scan, ForwardScanDirection, table->slot);
}

/*
 * open_claim opens all that a claim reads and writes.
 */
static void
open_claim(Claim *claim)
{
	static bool checked = false;

	claim->now = GetCurrentTransactionStartTimestamp();
	PushActiveSnapshot(GetTransactionSnapshot());
	claim->snapshot = GetActiveSnapshot();
	open_table(claim, &claim->queue, PP_DELIVERY_QUEUE, PP_DELIVERY_QUEUE_DUE, 2, RowExclusiveLock);
	open_table(claim, &claim->notification, PP_NOTIFICATION, PP_NOTIFICATION_PKEY, 2, AccessShareLock);
	open_table(claim, &claim->destination, PP_DELIVERY_DESTINATION, PP_DELIVERY_DESTINATION_PKEY, 1, AccessShareLock);
	open_table(claim, &claim->endpoint, PP_WEBHOOK_ENDPOINT, PP_WEBHOOK_ENDPOINT_ENDPOINT_ID, 1, AccessShareLock);
	claim->leased = MakeSingleTupleTableSlot(RelationGetDescr(claim->queue.rel), &TTSOpsVirtual);
	if (!checked)
	{
		pp_check_columns(RelationGetDescr(claim->queue.rel), QUEUE_COLUMNS, pp_queue_columns);
		pp_check_columns(RelationGetDescr(claim->notification.rel), NOTIFICATION_COLUMNS, pp_notification_columns);
		pp_check_columns(RelationGetDescr(claim->destination.rel), DESTINATION_COLUMNS, destination_columns);
		pp_check_columns(RelationGetDescr(claim->endpoint.rel), ENDPOINT_COLUMNS, endpoint_columns);
		checked = true;
	}
}

/*
 * close_claim closes it, and lets the next command see what was written.
 */
static void
close_claim(Claim *claim)
{
	if (claim->writer != NULL)
		pp_writer_close(claim->writer);
	ExecDropSingleTupleTableSlot(claim->leased);
	close_table(&claim->endpoint);
	close_table(&claim->destination);
	close_table(&claim->notification);
	close_table(&claim->queue);
	PopActiveSnapshot();
	CommandCounterIncrement();
}

/*
 * room_at returns how many messages a destination may have under way, and
 * whether it failed last time.  0 while it is left alone.
 */
static int
room_at(Claim *claim, int64 destination, bool *ailing)
{
	TupleTableSlot *slot = claim->destination.slot;

	if (!find_row(&claim->destination, 1, destination, 0))
		return 0;
	slot_getallattrs(slot);
	*ailing = DatumGetInt32(slot->tts_values[DESTINATION_FAILURES - 1]) > 0;
	if (DatumGetBool(slot->tts_values[DESTINATION_PAUSED - 1]) ||
		(!slot->tts_isnull[DESTINATION_HOLD_UNTIL - 1] &&
		 DatumGetTimestampTz(slot->tts_values[DESTINATION_HOLD_UNTIL - 1]) > claim->now))
		return 0;
	return DatumGetInt32(slot->tts_values[DESTINATION_MAX_IN_FLIGHT - 1]);
}

/*
 * read_endpoint reads what is signed and sent to a destination.
 */
static void
read_endpoint(Claim *claim, int64 destination)
{
	TupleTableSlot *slot = claim->endpoint.slot;
	PpEndpoint *peer = &claim->peer;

	peer->url = NULL;
	if (!find_row(&claim->endpoint, 1, destination, 0))
		return;
	slot_getallattrs(slot);
	peer->url = TextDatumGetCString(slot->tts_values[ENDPOINT_URL - 1]);
	peer->url_length = strlen(peer->url);
	peer->malformed = false;
	for (const char *c = peer->url; *c != '\0'; c++)
		if ((unsigned char) *c <= 0x20 || (unsigned char) *c >= 0x7f)
			peer->malformed = true;
	strlcpy(peer->nonce, DatumGetCString(DirectFunctionCall1(uuid_out, slot->tts_values[ENDPOINT_NONCE - 1])),
			sizeof(peer->nonce));
	peer->key_version = DatumGetInt32(slot->tts_values[ENDPOINT_KEY_VERSION - 1]);
	peer->secret_version = DatumGetInt32(slot->tts_values[ENDPOINT_SECRET_VERSION - 1]);
	peer->old_secret = !slot->tts_isnull[ENDPOINT_PREVIOUS_SECRET_UNTIL - 1] &&
		DatumGetTimestampTz(slot->tts_values[ENDPOINT_PREVIOUS_SECRET_UNTIL - 1]) > claim->now;
}

/*
 * lease writes the lease of the row in the queue's slot; false if somebody else
 * has the row.  claim->leased has the place of the new version then.
 */
static bool
lease(Claim *claim)
{
	Table	   *queue = &claim->queue;
	TupleTableSlot *leased = claim->leased;
	ItemPointerData tid = queue->slot->tts_tid;
	TM_FailureData failure;
	LockTupleMode mode;
	PpUpdateIndexes update_indexes;

	if (table_tuple_lock(queue->rel, &tid, claim->snapshot, queue->slot, GetCurrentCommandId(true),
						 LockTupleNoKeyExclusive, LockWaitSkip, 0, &failure) != TM_Ok)
		return false;
	pp_copy_row(leased, queue->slot);
	leased->tts_values[QUEUE_CLAIMS - 1] = Int32GetDatum(DatumGetInt32(leased->tts_values[QUEUE_CLAIMS - 1]) + 1);
	leased->tts_values[QUEUE_LEASE_TOKEN - 1] = Int32GetDatum(claim->token);
	leased->tts_isnull[QUEUE_LEASE_TOKEN - 1] = false;
	leased->tts_values[QUEUE_LEASE_UNTIL - 1] = TimestampTzGetDatum(TimestampTzPlusMilliseconds(claim->now, LEASE_MS));
	leased->tts_isnull[QUEUE_LEASE_UNTIL - 1] = false;
	ExecStoreVirtualTuple(leased);
	if (table_tuple_update(queue->rel, &tid, leased, GetCurrentCommandId(true), claim->snapshot, InvalidSnapshot,
						   true, &failure, &mode, &update_indexes) != TM_Ok)
		elog(ERROR, "a row of the queue was changed under its lock");
	pp_writer_updated(&claim->writer, queue->rel, leased, update_indexes);
	return true;
}

/*
 * begin_at has the queue read from a message of a destination on.
 */
static void
begin_at(Claim *claim, const PpDue *due)
{
	ScanKeyData place[2];
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(due->destination));

	/*
	 * (next_attempt_at, notification_id) >= ..., whose members are compared
	 * by the index's support function
	 */
	ScanKeyEntryInitialize(&place[0], SK_ROW_MEMBER, 2, BTGreaterEqualStrategyNumber, InvalidOid, InvalidOid,
						   F_TIMESTAMPTZ_CMP, TimestampTzGetDatum(due->next_attempt_at));
	ScanKeyEntryInitialize(&place[1], SK_ROW_MEMBER | SK_ROW_END, 3, BTGreaterEqualStrategyNumber, InvalidOid, InvalidOid,
						   F_BTINT8CMP, Int64GetDatum(due->notification_id));
	MemSet(&keys[1], 0, sizeof(ScanKeyData));
	keys[1].sk_flags = SK_ROW_HEADER;
	keys[1].sk_attno = place[0].sk_attno;
	keys[1].sk_strategy = BTGreaterEqualStrategyNumber;
	keys[1].sk_argument = PointerGetDatum(palloc(sizeof(place)));
	memcpy(DatumGetPointer(keys[1].sk_argument), place, sizeof(place));
	index_rescan(claim->queue.scan, keys, 2, NULL, 0);
}

/*
 * claim_at claims up to so many messages of a destination, from the one on that
 * it is to begin with, and moves that on; puts their transfers before the list.
 */
static int
claim_at(Claim *claim, PpDue *due, int most, bool ailing, PpTransfer **list)
{
	TupleTableSlot *slot = claim->queue.slot;
	TupleTableSlot *row = claim->notification.slot;
	int			claimed = 0;

	begin_at(claim, due);
	while (claimed < most && index_getnext_slot(claim->queue.scan, ForwardScanDirection, slot))
	{
		PpClaimed	message;
		TimestampTz at;
		PpTransfer *transfer;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		at = DatumGetTimestampTz(slot->tts_values[QUEUE_NEXT_ATTEMPT_AT - 1]);
		if (at > claim->now)
			break;
		if (!slot->tts_isnull[QUEUE_LEASE_TOKEN - 1])
			continue;
		message.workspace_id = DatumGetInt64(slot->tts_values[QUEUE_WORKSPACE_ID - 1]);
		message.notification_id = DatumGetInt64(slot->tts_values[QUEUE_NOTIFICATION_ID - 1]);
		if (!find_row(&claim->notification, 2, message.workspace_id, message.notification_id) || !lease(claim))
			continue;
		if (claimed++ == 0 && due->destination != PP_MAIL_DESTINATION)
			read_endpoint(claim, due->destination);
		slot_getallattrs(row);
		message.destination = due->destination;
		message.ailing = ailing;
		message.expired = !row->tts_isnull[NOTIFICATION_EXPIRES_AT - 1] &&
			DatumGetTimestampTz(row->tts_values[NOTIFICATION_EXPIRES_AT - 1]) <= claim->now;
		message.values = row->tts_values;
		message.isnull = row->tts_isnull;
		message.endpoint = &claim->peer;
		transfer = pp_build(&message, claim->relay);
		transfer->queued_at = claim->leased->tts_tid;
		transfer->kept_at = row->tts_tid;
		transfer->next = *list;
		*list = transfer;
		due->next_attempt_at = at;
		due->notification_id = message.notification_id;
	}
	return claimed;
}

/*
 * pp_queue_claim leases up to so many messages to the destinations that the
 * last look found, beside those under way to busy ones, puts their transfers
 * before the list, and returns how many it took.
 */
int
pp_queue_claim(PpRound *round, int token, int wanted, const int64 *busy, int busy_count,
			   const PpRelay *relay, PpTransfer **list)
{
	Claim		claim = {token, relay};
	int			first = round->next;
	int			claimed = 0;

	if (round->count == 0)
		return 0;
	open_claim(&claim);
	for (int i = 0; i < round->count && claimed < wanted; i++)
	{
		int			place = (first + i) % round->count;
		PpDue	   *due = &round->due[place];
		bool		ailing = false;
		int			room = room_at(&claim, due->destination, &ailing);
		int			taken;

		for (int j = 0; j < busy_count; j++)
			if (busy[j] == due->destination)
				room--;
		if (room <= 0)
			continue;
		taken = claim_at(&claim, due, Min(room, wanted - claimed), ailing, list);
		claimed += taken;
		if (taken > 0)
			round->next = place;	/* it may have more */
	}
	close_claim(&claim);
	pp_build_forget();
	return claimed;
}
