/*-------------------------------------------------------------------------
 *
 * delivery_queue.c
 *		Claims notifications that are due and records how deliveries ended.
 *
 * A claim leases a row to one engine by its token; only the holder of the
 * lease can record a result.  Both run in the caller's short transaction, with
 * the settings pp_queue_enter() pins, and never touch the network.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "catalog/pg_type.h"
#include "common/base64.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "delivery.h"
#include "partner_portal.h"

#define LEASE_SECONDS	7200	/* PP_SLOTS of the longest mails; a dead engine's are freed at once */

/* Columns of a claim. */
enum
{
	C_WORKSPACE = 1,
	C_NOTIFICATION,
	C_DESTINATION,
	C_MESSAGE_ID,
	C_OCCURRED_AT,
	C_RECIPIENT,
	C_LOCALE,
	C_SUBJECT,
	C_TEXT_BODY,
	C_HTML_BODY,
	C_UNSUBSCRIBE_URL,
	C_URL,
	C_NONCE,
	C_KEY_VERSION,
	C_SECRET_VERSION,
	C_OLD_SECRET,
	C_EXPIRED
};

static const char claim_sql[] =
"WITH RECURSIVE waiting (destination) AS ("
"	(SELECT q.destination FROM partner_portal.delivery_queue q"
"	WHERE q.lease_token IS NULL AND q.destination > $5 AND q.destination <= $7"
"	ORDER BY q.destination LIMIT 1)"
"	UNION ALL"
"	SELECT (SELECT q.destination FROM partner_portal.delivery_queue q"
"		WHERE q.lease_token IS NULL AND q.destination > w.destination AND q.destination <= $7"
"		ORDER BY q.destination LIMIT 1)"
"	FROM waiting w WHERE w.destination IS NOT NULL"
"), chosen AS MATERIALIZED ("
"	SELECT q.workspace_id, q.notification_id"
"	FROM waiting w"
"	CROSS JOIN LATERAL ("
"		SELECT greatest(0, t.max_in_flight - coalesce(("
"			SELECT f.in_flight FROM unnest($3, $4) AS f (destination, in_flight)"
"			WHERE f.destination = t.destination), 0)) AS room"
"		FROM partner_portal.delivery_destination t"
"		WHERE t.destination = w.destination AND NOT t.paused"
"			AND (t.hold_until IS NULL OR t.hold_until <= now())"
"	) t"
"	CROSS JOIN LATERAL ("
"		SELECT c.workspace_id, c.notification_id FROM partner_portal.delivery_queue c"
"		WHERE c.destination = w.destination AND c.lease_token IS NULL AND c.next_attempt_at <= now()"
"		ORDER BY c.next_attempt_at LIMIT t.room FOR UPDATE SKIP LOCKED"
"	) q"
"	LIMIT $1"
") "
"UPDATE partner_portal.delivery_queue q"
"	SET claims = q.claims + 1, lease_token = $2, lease_until = now() + make_interval(secs => $6)"
"	FROM chosen c"
"	JOIN partner_portal.notification n ON n.workspace_id = c.workspace_id AND n.notification_id = c.notification_id"
"	LEFT JOIN partner_portal.webhook_endpoint e ON e.workspace_id = n.workspace_id AND e.endpoint_id = n.endpoint_id"
"	WHERE q.workspace_id = c.workspace_id AND q.notification_id = c.notification_id"
"	RETURNING q.workspace_id, q.notification_id, q.destination, n.message_id::text, n.occurred_at,"
"		n.recipient, n.locale, n.subject, n.text_body, n.html_body, n.unsubscribe_url,"
"		e.url, e.nonce::text, e.key_version, e.secret_version,"
"		e.previous_secret_until > now(), n.expires_at <= now()";

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

static SPIPlanPtr claim_plan = NULL;
static SPIPlanPtr delivered_plan = NULL;
static SPIPlanPtr recovered_plan = NULL;
static SPIPlanPtr failed_plan = NULL;

static const char *const outcome_names[] = {
	"delivered", "retry", "ambiguous", "refused", "gone", "configuration", "aborted"
};

/*
 * pp_transfer_new returns an empty transfer; NULL without memory.
 */
PpTransfer *
pp_transfer_new(void)
{
	return calloc(1, sizeof(PpTransfer));
}

/*
 * pp_transfer_free frees a transfer that the network has let go.
 */
void
pp_transfer_free(PpTransfer *transfer)
{
	if (transfer->body != NULL)
		explicit_bzero(transfer->body, transfer->body_length);
	free(transfer->url);
	free(transfer->body);
	free(transfer->sender);
	free(transfer->recipient);
	for (int i = 0; i < lengthof(transfer->headers); i++)
		free(transfer->headers[i]);
	free(transfer);
}

/*
 * pp_transfer_set copies a value into malloc'ed memory; false without any.
 */
bool
pp_transfer_set(char **field, const char *value, size_t length)
{
	*field = malloc(length + 1);
	if (*field == NULL)
		return false;
	memcpy(*field, value, length);
	(*field)[length] = '\0';
	return true;
}

/*
 * prepare makes a plan once and keeps it.
 */
static SPIPlanPtr
prepare(SPIPlanPtr *plan, const char *sql, int count, Oid *types)
{
	if (*plan == NULL)
	{
		SPIPlanPtr	made = SPI_prepare(sql, count, types);

		if (made == NULL)
			elog(ERROR, "could not prepare: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(made);
		*plan = made;
	}
	return *plan;
}

/*
 * execute runs a plan whose arguments are all there, but for those marked 'n'.
 */
static void
execute(SPIPlanPtr plan, Datum *values, const char *nulls)
{
	int			result = SPI_execute_plan(plan, values, nulls, false, 0);

	if (result < 0)
		elog(ERROR, "could not execute: %s", SPI_result_code_string(result));
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
 * record_delivered records all that were delivered, in one statement.
 */
static void
record_delivered(int token, PpTransfer *finished, int count)
{
	Oid			types[] = {INT8ARRAYOID, INT8ARRAYOID, INT4ARRAYOID, INT4OID};
	Oid			recovered_types[] = {INT8ARRAYOID};
	int64	   *workspaces = palloc(sizeof(int64) * count);
	int64	   *notifications = palloc(sizeof(int64) * count);
	int64	   *destinations = palloc(sizeof(int64) * count);
	int		   *codes = palloc(sizeof(int) * count);
	Datum		values[4];
	int			n = 0;

	for (PpTransfer *transfer = finished; transfer != NULL; transfer = transfer->next)
	{
		if (transfer->outcome != PP_DELIVERED)
			continue;
		workspaces[n] = transfer->workspace_id;
		notifications[n] = transfer->notification_id;
		destinations[n] = transfer->destination;
		codes[n] = transfer->code;
		n++;
	}
	values[0] = int8_array(workspaces, n);
	values[1] = int8_array(notifications, n);
	values[2] = int4_array(codes, n);
	values[3] = Int32GetDatum(token);
	execute(prepare(&delivered_plan, delivered_sql, 4, types), values, NULL);
	values[0] = int8_array(destinations, n);
	execute(prepare(&recovered_plan, recovered_sql, 1, recovered_types), values, NULL);
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
	execute(prepare(&failed_plan, failed_sql, 7, types), values, NULL);
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
 * column returns a text column of a claimed row, or NULL.
 */
static char *
column(HeapTuple tuple, int number)
{
	return SPI_getvalue(tuple, SPI_tuptable->tupdesc, number);
}

/*
 * is_true tells whether a boolean column of a claimed row is true.
 */
static bool
is_true(HeapTuple tuple, int number)
{
	bool		isnull;
	Datum		value = SPI_getbinval(tuple, SPI_tuptable->tupdesc, number, &isnull);

	return !isnull && DatumGetBool(value);
}

/*
 * build_mail writes the mail of a claimed row into the transfer.  Returns NULL,
 * or why it cannot be built.
 */
static const char *
build_mail(HeapTuple tuple, PpTransfer *transfer, const PpRelay *relay)
{
	PpMail		mail = {0};
	StringInfoData message;
	const char *problem;
	bool		isnull;

	mail.sender = relay->sender;
	mail.sender_name = relay->sender_name;
	mail.recipient = column(tuple, C_RECIPIENT);
	mail.locale = column(tuple, C_LOCALE);
	mail.subject = column(tuple, C_SUBJECT);
	mail.text_body = column(tuple, C_TEXT_BODY);
	mail.html_body = column(tuple, C_HTML_BODY);
	mail.unsubscribe_url = column(tuple, C_UNSUBSCRIBE_URL);
	mail.message_id = column(tuple, C_MESSAGE_ID);
	mail.date = DatumGetTimestampTz(SPI_getbinval(tuple, SPI_tuptable->tupdesc, C_OCCURRED_AT, &isnull));
	initStringInfo(&message);
	problem = pp_mail_build(&message, &mail);
	if (problem != NULL)
		return problem;
	transfer->body_length = message.len;
	if (!pp_transfer_set(&transfer->url, relay->url, strlen(relay->url)) ||
		!pp_transfer_set(&transfer->sender, relay->sender, strlen(relay->sender)) ||
		!pp_transfer_set(&transfer->recipient, mail.recipient, strlen(mail.recipient)) ||
		!pp_transfer_set(&transfer->body, message.data, message.len))
		elog(ERROR, "out of memory");
	return NULL;
}

/*
 * build_webhook writes the request of a claimed row into the transfer, signed
 * for this attempt; while a secret is being rotated, with both.
 */
static const char *
build_webhook(HeapTuple tuple, PpTransfer *transfer)
{
	char	   *url = column(tuple, C_URL);
	char	   *body = column(tuple, C_TEXT_BODY);
	char	   *nonce = column(tuple, C_NONCE);
	char	   *message_id = column(tuple, C_MESSAGE_ID);
	int64		now = (int64) time(NULL);
	StringInfoData signature;
	char	   *headers[6];

	if (url == NULL || body == NULL)
		return "the endpoint or the message is gone";
	body = pg_server_to_any(body, strlen(body), PG_UTF8);
	if (strlen(body) > PP_WEBHOOK_MAX)
		return "the message is larger than 64 KiB";
	for (const char *c = url; *c != '\0'; c++)
		if ((unsigned char) *c <= 0x20 || (unsigned char) *c >= 0x7f)
			return "the address of the endpoint is malformed";

	message_id = psprintf("msg_%s", message_id);
	initStringInfo(&signature);
	for (int back = 0; back <= (is_true(tuple, C_OLD_SECRET) ? 1 : 0); back++)
	{
		unsigned char secret[PP_WEBHOOK_SECRET];
		int			key_version = atoi(column(tuple, C_KEY_VERSION));
		int			version = atoi(column(tuple, C_SECRET_VERSION)) - back;

		if (!pp_webhook_secret(nonce, key_version, version, secret))
			ereport(ERROR,
					(errcode(ERRCODE_CONFIG_FILE_ERROR),
					 errmsg("master key %d is not in the secrets file", key_version)));
		if (back > 0)
			appendStringInfoChar(&signature, ' ');
		pp_webhook_sign(&signature, secret, message_id, now, body, strlen(body));
		explicit_bzero(secret, sizeof(secret));
	}
	headers[0] = "Content-Type: application/json";
	headers[1] = "User-Agent: partner_portal";
	headers[2] = psprintf("webhook-id: %s", message_id);
	headers[3] = psprintf("webhook-timestamp: " INT64_FORMAT, now);
	headers[4] = psprintf("webhook-signature: %s", signature.data);
	headers[5] = "Expect:";
	for (int i = 0; i < lengthof(headers); i++)
		if (!pp_transfer_set(&transfer->headers[i], headers[i], strlen(headers[i])))
			elog(ERROR, "out of memory");
	transfer->body_length = strlen(body);
	if (!pp_transfer_set(&transfer->url, url, strlen(url)) ||
		!pp_transfer_set(&transfer->body, body, transfer->body_length))
		elog(ERROR, "out of memory");
	return NULL;
}

/*
 * build makes the transfer of a claimed row.  If that fails, the transfer has
 * its outcome already and no body: a row that cannot be built stops no other.
 */
static PpTransfer *
build(HeapTuple tuple, const PpRelay *relay)
{
	PpTransfer *transfer = pp_transfer_new();
	MemoryContext context = CurrentMemoryContext;
	bool		isnull;

	if (transfer == NULL)
		elog(ERROR, "out of memory");
	transfer->workspace_id = DatumGetInt64(SPI_getbinval(tuple, SPI_tuptable->tupdesc, C_WORKSPACE, &isnull));
	transfer->notification_id = DatumGetInt64(SPI_getbinval(tuple, SPI_tuptable->tupdesc, C_NOTIFICATION, &isnull));
	transfer->destination = DatumGetInt64(SPI_getbinval(tuple, SPI_tuptable->tupdesc, C_DESTINATION, &isnull));
	transfer->mail = transfer->destination == PP_MAIL_DESTINATION;
	if (is_true(tuple, C_EXPIRED))
	{
		/* Recording it will find the same and cancel it. */
		transfer->outcome = PP_ABORTED;
		strlcpy(transfer->error, "not sent", sizeof(transfer->error));
		return transfer;
	}
	PG_TRY();
	{
		const char *problem = transfer->mail ? build_mail(tuple, transfer, relay) :
			build_webhook(tuple, transfer);

		if (problem != NULL)
		{
			transfer->outcome = PP_REFUSED;
			snprintf(transfer->error, sizeof(transfer->error), "cannot be built: %s", problem);
		}
	}
	PG_CATCH();
	{
		ErrorData  *error;

		/* Only pure computation and a file read can have failed. */
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN)
		{
			pp_transfer_free(transfer);
			PG_RE_THROW();
		}
		FlushErrorState();
		if (transfer->body != NULL)
			free(transfer->body);
		transfer->body = NULL;
		transfer->outcome = error->sqlerrcode == ERRCODE_DATA_EXCEPTION ||
			error->sqlerrcode == ERRCODE_UNTRANSLATABLE_CHARACTER ||
			error->sqlerrcode == ERRCODE_CHARACTER_NOT_IN_REPERTOIRE ? PP_REFUSED : PP_CONFIGURATION;
		snprintf(transfer->error, sizeof(transfer->error), "cannot be built: %s", error->message);
	}
	PG_END_TRY();
	return transfer;
}

/*
 * pp_queue_claim leases up to claim->wanted notifications that are due, to
 * destinations after claim->cursor and up to claim->upto, and puts their transfers before the list.
 */
void
pp_queue_claim(PpClaim *claim, const PpRelay *relay, PpTransfer **list)
{
	Oid			types[] = {INT4OID, INT4OID, INT8ARRAYOID, INT4ARRAYOID, INT8OID, INT4OID, INT8OID};
	Datum		values[7];

	values[0] = Int32GetDatum(claim->wanted);
	values[1] = Int32GetDatum(claim->token);
	values[2] = int8_array(claim->destinations, claim->destination_count);
	values[3] = int4_array(claim->in_flight, claim->destination_count);
	values[4] = Int64GetDatum(claim->cursor);
	values[5] = Int32GetDatum(LEASE_SECONDS);
	values[6] = Int64GetDatum(claim->upto);
	execute(prepare(&claim_plan, claim_sql, 7, types), values, NULL);
	claim->claimed = (int) SPI_processed;
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		PpTransfer *transfer = build(SPI_tuptable->vals[i], relay);

		transfer->next = *list;
		*list = transfer;
		claim->last_destination = Max(claim->last_destination, transfer->destination);
	}
}
