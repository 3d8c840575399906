/*-------------------------------------------------------------------------
 *
 * delivery_queue.c
 *		The queue: which destinations have messages that are due, and whose
 *		leases are held by nobody any more.
 *
 * A claim leases a row to one engine by its token (delivery_claim.c); only the
 * holder of the lease can record a result (delivery_record.c).  All of it runs
 * in the caller's short transaction, with the settings that delivery_section.c
 * pins, and never touches the network.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "delivery.h"
#include "partner_portal.h"

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

static SPIPlanPtr look_plan = NULL;

const char *const pp_queue_columns[] = {
	"workspace_id", "notification_id", "destination", "next_attempt_at",
	"claims", "lease_token", "lease_until"
};

const char *const pp_notification_columns[] = {
	"workspace_id", "notification_id", "message_id", "partner_key", "kind",
	"dedupe_key", "occurred_at", "expires_at", "state", "attempts",
	"next_attempt_at", "finished_at", "last_code", "last_error", "endpoint_id",
	"recipient", "locale", "subject", "text_body", "html_body",
	"unsubscribe_url", "secret"
};

/*
 * pp_queue_execute runs a statement whose arguments are all there, by a plan
 * that is kept.
 */
void
pp_queue_execute(SPIPlanPtr *plan, const char *sql, int count, Oid *types, Datum *values)
{
	int			result;

	pp_section_plan();
	pp_keep_plan(plan, sql, count, types);
	result = SPI_execute_plan(*plan, values, NULL, false, 0);

	if (result < 0)
		elog(ERROR, "could not execute: %s", SPI_result_code_string(result));
}

/*
 * pp_queue_token returns a new engine's token.
 */
int
pp_queue_token(void)
{
	bool		isnull;

	pp_section_plan();
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
	pp_section_plan();
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

	pp_section_plan();
	if (SPI_execute_with_args("SELECT partner_portal.release_stale_deliveries($1)",
							  1, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not release stale deliveries");
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
	pp_queue_execute(&look_plan, look_sql, 4, types, values);
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
