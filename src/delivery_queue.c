/*-------------------------------------------------------------------------
 *
 * delivery_queue.c
 *		Claims notifications that are due and records how deliveries ended.
 *
 * A claim leases a row to one engine by its token; only the holder of the
 * lease can record a result.  Both run in the caller's short transaction, with
 * the settings that delivery_section.c pins, and never touch the network.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "delivery.h"
#include "partner_portal.h"

#define LEASE_SECONDS	7200	/* PP_SLOTS of the longest mails; a dead engine's are freed at once */

/*
 * From destination to destination by the index, each with its first message;
 * what waits behind it is not read.  What an engine leases is the first at the
 * time, so the leases of one that died are found there, too: an engine locks
 * its number while it runs.
 */
static const char look_sql[] =
"WITH RECURSIVE waiting (destination, next_attempt_at, notification_id, lease_token, lease_until, place) AS ("
"	(SELECT q.destination, q.next_attempt_at, q.notification_id, q.lease_token, q.lease_until, 1"
"	FROM partner_portal.delivery_queue q"
"	WHERE q.destination > $1 AND q.destination <= $2"
"	ORDER BY q.destination, q.next_attempt_at, q.notification_id LIMIT 1)"
"	UNION ALL"
"	SELECT f.destination, f.next_attempt_at, f.notification_id, f.lease_token, f.lease_until, w.place + 1"
"	FROM waiting w"
"	CROSS JOIN LATERAL ("
"		SELECT q.destination, q.next_attempt_at, q.notification_id, q.lease_token, q.lease_until"
"		FROM partner_portal.delivery_queue q"
"		WHERE q.destination > w.destination AND q.destination <= $2"
"		ORDER BY q.destination, q.next_attempt_at, q.notification_id LIMIT 1"
"	) f"
"	WHERE w.place < $3"
") "
"SELECT w.destination, w.next_attempt_at, w.notification_id,"
"	w.next_attempt_at <= now() AND coalesce(NOT t.paused AND (t.hold_until IS NULL OR t.hold_until <= now()), false),"
"	w.lease_token <> $4 AND w.lease_until < now(), CASE WHEN w.lease_token <> $4 THEN w.lease_token END"
"	FROM waiting w"
"	LEFT JOIN partner_portal.delivery_destination t ON t.destination = w.destination"
"	ORDER BY w.destination";

static const char claim_sql[] =
"WITH chosen AS MATERIALIZED ("
"	SELECT q.place, q.workspace_id, q.notification_id, t.ailing, e.url, e.nonce::text AS nonce, e.key_version, e.secret_version,"
"		e.previous_secret_until > now() AS old_secret"
"	FROM unnest($3, $4, $5, $6) AS w (destination, in_flight, next_attempt_at, notification_id)"
"	CROSS JOIN LATERAL ("
"		SELECT greatest(0, t.max_in_flight - w.in_flight) AS room, t.failures > 0 AS ailing"
"		FROM partner_portal.delivery_destination t"
"		WHERE t.destination = w.destination AND NOT t.paused"
"			AND (t.hold_until IS NULL OR t.hold_until <= now())"
"	) t"
"	LEFT JOIN partner_portal.webhook_endpoint e ON e.endpoint_id = w.destination"
"	CROSS JOIN LATERAL ("
"		SELECT c.ctid AS place, c.workspace_id, c.notification_id FROM partner_portal.delivery_queue c"
"		WHERE c.destination = w.destination AND c.lease_token IS NULL AND c.next_attempt_at <= now()"
"			AND (c.next_attempt_at, c.notification_id) >= (w.next_attempt_at, w.notification_id)"
"		ORDER BY c.next_attempt_at, c.notification_id LIMIT t.room FOR UPDATE SKIP LOCKED"
"	) q"
"	LIMIT $1"
") "
"UPDATE partner_portal.delivery_queue q"
"	SET claims = q.claims + 1, lease_token = $2, lease_until = now() + make_interval(secs => $7)"
"	FROM chosen c"
"	JOIN partner_portal.notification n ON n.workspace_id = c.workspace_id AND n.notification_id = c.notification_id"
"	WHERE q.ctid = c.place AND q.workspace_id = c.workspace_id AND q.notification_id = c.notification_id"
"	RETURNING q.workspace_id, q.notification_id, q.destination, q.next_attempt_at, c.ailing,"
"		n.message_id::text, n.occurred_at,"
"		n.recipient, n.locale, n.subject, n.text_body, n.html_body, n.unsubscribe_url,"
"		c.url, c.nonce, c.key_version, c.secret_version, c.old_secret, n.expires_at <= now()";

static const char delivered_sql[] =
"WITH done AS ("
"	DELETE FROM partner_portal.delivery_queue q"
"	USING unnest($1, $2, $3) AS r (workspace_id, notification_id, code)"
"	WHERE q.workspace_id = r.workspace_id AND q.notification_id = r.notification_id"
"		AND q.lease_token = $4"
"	RETURNING q.workspace_id, q.notification_id, r.code"
") "
"UPDATE partner_portal.notification n"
"	SET state = 'delivered', attempts = n.attempts + 1, next_attempt_at = NULL,"
"		finished_at = clock_timestamp(), last_code = d.code, last_error = NULL,"
"		text_body = CASE WHEN n.secret IS NULL THEN n.text_body ELSE replace(n.text_body, n.secret, '*') END,"
"		html_body = CASE WHEN n.secret IS NULL THEN n.html_body ELSE replace(n.html_body, n.secret, '*') END,"
"		secret = CASE WHEN n.secret IS NOT NULL THEN '' END"
"	FROM done d"
"	WHERE n.workspace_id = d.workspace_id AND n.notification_id = d.notification_id";

static const char recovered_sql[] =
"UPDATE partner_portal.delivery_destination"
"	SET failures = 0, failing_since = NULL, hold_until = NULL, last_error = NULL"
"	WHERE destination = ANY ($1) AND failures > 0";

static const char failed_sql[] =
"SELECT partner_portal.record_failure($1, $2, $3, $4, $5, $6, $7)";

static SPIPlanPtr look_plan = NULL;
static SPIPlanPtr claim_plan = NULL;
static SPIPlanPtr delivered_plan = NULL;
static SPIPlanPtr recovered_plan = NULL;
static SPIPlanPtr failed_plan = NULL;

static const char *const outcome_names[] = {
	"delivered", "retry", "ambiguous", "refused", "gone", "configuration", "aborted"
};

/*
 * execute runs a statement whose arguments are all there, by a plan that is kept.
 */
static void
execute(SPIPlanPtr *plan, const char *sql, int count, Oid *types, Datum *values)
{
	int			result;

	pp_keep_plan(plan, sql, count, types);
	result = SPI_execute_plan(*plan, values, NULL, false, 0);

	if (result < 0)
		elog(ERROR, "could not execute: %s", SPI_result_code_string(result));
}

/*
 * int8_array and int4_array make array arguments; times are int64 as well.
 */
static Datum
int8_array(const int64 *values, int count, Oid type)
{
	Datum	   *datums = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		datums[i] = Int64GetDatum(values[i]);
	return PointerGetDatum(construct_array(datums, count, type, sizeof(int64),
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
 * pp_queue_token returns a new engine's token.
 */
int
pp_queue_token(void)
{
	bool		isnull;

	if (SPI_execute("SELECT nextval('partner_portal.delivery_engine_seq')::integer", false, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not number the engine");
	return DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/*
 * pp_queue_problem returns why this database must not send, or NULL.
 */
char *
pp_queue_problem(void)
{
	if (SPI_execute("SELECT partner_portal.delivery_home_problem()", false, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not tell whether this database is a copy");
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/*
 * pp_queue_release_stale frees the leases of engines that are no more.
 */
void
pp_queue_release_stale(int own_token)
{
	Oid			types[] = {INT4OID};
	Datum		values[] = {Int32GetDatum(own_token)};

	if (SPI_execute_with_args("SELECT partner_portal.release_stale_deliveries($1)",
							  1, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not release stale deliveries");
}

/*
 * record_delivered records all that were delivered, in one statement, and that
 * their destinations are well again.
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
	Datum		values[4];
	int			n = 0;
	int			recovered_count = 0;

	for (PpTransfer *transfer = finished; transfer != NULL; transfer = transfer->next)
	{
		if (transfer->outcome != PP_DELIVERED)
			continue;
		workspaces[n] = transfer->workspace_id;
		notifications[n] = transfer->notification_id;
		codes[n] = transfer->code;
		n++;
		if (transfer->ailing)
			recovered[recovered_count++] = transfer->destination;
	}
	values[0] = int8_array(workspaces, n, INT8OID);
	values[1] = int8_array(notifications, n, INT8OID);
	values[2] = int4_array(codes, n);
	values[3] = Int32GetDatum(token);
	execute(&delivered_plan, delivered_sql, 4, types, values);
	if (recovered_count > 0)
	{
		values[0] = int8_array(recovered, recovered_count, INT8OID);
		execute(&recovered_plan, recovered_sql, 1, recovered_types, values);
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
	execute(&failed_plan, failed_sql, 7, types, values);
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

/*
 * lease_is_stale tells whether what a look found is leased to an engine that is
 * no more, or for too long.
 */
static bool
lease_is_stale(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	bool		late = DatumGetBool(SPI_getbinval(tuple, desc, 5, &isnull)) && !isnull;
	int32		other = DatumGetInt32(SPI_getbinval(tuple, desc, 6, &isnull));

	return late || (!isnull && pp_try_own_lock(PP_LOCK_ENGINE, (uint32) other, false));
}

/*
 * pp_queue_look finds destinations with messages that are due, from where the
 * last look stopped.  Tells whether there are leases of an engine that is no
 * more.
 */
bool
pp_queue_look(PpRound *round, int token)
{
	Oid			types[] = {INT8OID, INT8OID, INT4OID, INT4OID};
	Datum		values[4];
	TupleDesc	desc;
	bool		stale = false;

	values[0] = Int64GetDatum(round->cursor);
	values[1] = Int64GetDatum(round->upto);
	values[2] = Int32GetDatum(PP_LOOK);
	values[3] = Int32GetDatum(token);
	execute(&look_plan, look_sql, 4, types, values);
	desc = SPI_tuptable->tupdesc;
	round->count = 0;
	round->next = 0;
	round->around = SPI_processed < PP_LOOK;
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		PpDue	   *due = &round->due[round->count];
		bool		isnull;

		round->cursor = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
		if (!stale)
			stale = lease_is_stale(tuple, desc);
		if (!DatumGetBool(SPI_getbinval(tuple, desc, 4, &isnull)))
			continue;
		due->destination = round->cursor;
		due->next_attempt_at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 2, &isnull));
		due->notification_id = DatumGetInt64(SPI_getbinval(tuple, desc, 3, &isnull));
		if (++round->count == PP_DUE)
		{
			round->around = round->around && i + 1 == SPI_processed;
			break;
		}
	}
	if (round->around)
		round->cursor = round->least;
	return stale;
}

/*
 * advance notes that a message of a destination is claimed: the next claim need
 * not read again what lies before it.
 */
static void
advance(PpRound *round, HeapTuple tuple)
{
	TupleDesc	desc = SPI_tuptable->tupdesc;
	bool		isnull;
	int64		destination = DatumGetInt64(SPI_getbinval(tuple, desc, C_DESTINATION, &isnull));
	TimestampTz at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, C_NEXT_ATTEMPT_AT, &isnull));
	int64		notification_id = DatumGetInt64(SPI_getbinval(tuple, desc, C_NOTIFICATION, &isnull));

	for (int i = 0; i < round->count; i++)
	{
		PpDue	   *due = &round->due[(round->next + i) % round->count];

		if (due->destination != destination)
			continue;
		if (at > due->next_attempt_at ||
			(at == due->next_attempt_at && notification_id > due->notification_id))
		{
			due->next_attempt_at = at;
			due->notification_id = notification_id;
		}
		round->next = (round->next + i) % round->count;
		return;
	}
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
	Oid			types[] = {INT4OID, INT4OID, INT8ARRAYOID, INT4ARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID, INT4OID};
	int64		destinations[PP_DUE];
	int			in_flight[PP_DUE];
	int64		times[PP_DUE];
	int64		notifications[PP_DUE];
	Datum		values[7];
	int			claimed;

	if (round->count == 0)
		return 0;
	for (int i = 0; i < round->count; i++)
	{
		const PpDue *due = &round->due[(round->next + i) % round->count];

		destinations[i] = due->destination;
		times[i] = due->next_attempt_at;
		notifications[i] = due->notification_id;
		in_flight[i] = 0;
		for (int j = 0; j < busy_count; j++)
			if (busy[j] == due->destination)
				in_flight[i]++;
	}
	values[0] = Int32GetDatum(wanted);
	values[1] = Int32GetDatum(token);
	values[2] = int8_array(destinations, round->count, INT8OID);
	values[3] = int4_array(in_flight, round->count);
	values[4] = int8_array(times, round->count, TIMESTAMPTZOID);
	values[5] = int8_array(notifications, round->count, INT8OID);
	values[6] = Int32GetDatum(LEASE_SECONDS);
	execute(&claim_plan, claim_sql, 7, types, values);
	claimed = (int) SPI_processed;
	for (int i = 0; i < claimed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		PpTransfer *transfer = pp_build(tuple, relay);

		transfer->next = *list;
		*list = transfer;
		advance(round, tuple);
	}
	pp_build_forget();
	return claimed;
}
