/*-------------------------------------------------------------------------
 *
 * delivery_build.c
 *		Makes transfers of claimed rows: the mail, or the signed request.
 *
 * A row that cannot be built stops no other: its transfer has its outcome
 * already, and no body.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "delivery.h"
#include "partner_portal.h"

static struct
{
	char		nonce[40];
	int			key_version;
	int			version;
	unsigned char secret[PP_WEBHOOK_SECRET];
}			last;

/*
 * new_transfer returns an empty transfer; NULL without memory.
 */
static PpTransfer *
new_transfer(void)
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
 * set_text copies a value into malloc'ed memory; false without any.
 */
static bool
set_text(char **field, const char *value, size_t length)
{
	*field = malloc(length + 1);
	if (*field == NULL)
		return false;
	memcpy(*field, value, length);
	(*field)[length] = '\0';
	return true;
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
	if (!set_text(&transfer->url, relay->url, strlen(relay->url)) ||
		!set_text(&transfer->sender, relay->sender, strlen(relay->sender)) ||
		!set_text(&transfer->recipient, mail.recipient, strlen(mail.recipient)) ||
		!set_text(&transfer->body, message.data, message.len))
		elog(ERROR, "out of memory");
	return NULL;
}

/*
 * number returns an integer column of a claimed row that is not null.
 */
static int
number(HeapTuple tuple, int number)
{
	bool		isnull;

	return DatumGetInt32(SPI_getbinval(tuple, SPI_tuptable->tupdesc, number, &isnull));
}

/*
 * derive returns a secret of an endpoint.  The last one is kept until
 * pp_build_forget(), since messages to one endpoint are claimed together.
 */
static const unsigned char *
derive(const char *nonce, int key_version, int version)
{
	if (last.version != version || last.key_version != key_version || strcmp(last.nonce, nonce) != 0)
	{
		pp_build_forget();
		if (!pp_webhook_secret(nonce, key_version, version, last.secret))
			ereport(ERROR,
					(errcode(ERRCODE_CONFIG_FILE_ERROR),
					 errmsg("master key %d is not in the secrets file", key_version)));
		strlcpy(last.nonce, nonce, sizeof(last.nonce));
		last.key_version = key_version;
		last.version = version;
	}
	return last.secret;
}

/*
 * pp_build_forget forgets the secret that was derived last.
 */
void
pp_build_forget(void)
{
	explicit_bzero(&last, sizeof(last));
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
	char		message_id[64];
	int64		now = (int64) time(NULL);
	StringInfoData signature;
	char	   *headers[6];

	if (url == NULL || body == NULL)
		return "the endpoint or the message is gone";
	body = pg_server_to_any(body, strlen(body), PG_UTF8);
	transfer->body_length = strlen(body);
	if (transfer->body_length > PP_WEBHOOK_MAX)
		return "the message is larger than 64 KiB";
	for (const char *c = url; *c != '\0'; c++)
		if ((unsigned char) *c <= 0x20 || (unsigned char) *c >= 0x7f)
			return "the address of the endpoint is malformed";

	snprintf(message_id, sizeof(message_id), "msg_%s", column(tuple, C_MESSAGE_ID));
	initStringInfo(&signature);
	for (int back = 0; back <= (is_true(tuple, C_OLD_SECRET) ? 1 : 0); back++)
	{
		if (back > 0)
			appendStringInfoChar(&signature, ' ');
		pp_webhook_sign(&signature, derive(nonce, number(tuple, C_KEY_VERSION), number(tuple, C_SECRET_VERSION) - back),
						message_id, now, body, transfer->body_length);
	}
	headers[0] = "Content-Type: application/json";
	headers[1] = "User-Agent: partner_portal";
	headers[2] = psprintf("webhook-id: %s", message_id);
	headers[3] = psprintf("webhook-timestamp: " INT64_FORMAT, now);
	headers[4] = psprintf("webhook-signature: %s", signature.data);
	headers[5] = "Expect:";
	for (int i = 0; i < lengthof(headers); i++)
		if (!set_text(&transfer->headers[i], headers[i], strlen(headers[i])))
			elog(ERROR, "out of memory");
	if (!set_text(&transfer->url, url, strlen(url)) ||
		!set_text(&transfer->body, body, transfer->body_length))
		elog(ERROR, "out of memory");
	return NULL;
}

/*
 * pp_build makes the transfer of a claimed row.  If that fails, the transfer
 * has its outcome already and no body: a row that cannot be built stops no other.
 */
PpTransfer *
pp_build(HeapTuple tuple, const PpRelay *relay)
{
	PpTransfer *transfer = new_transfer();
	MemoryContext context = CurrentMemoryContext;
	bool		isnull;

	if (transfer == NULL)
		elog(ERROR, "out of memory");
	transfer->workspace_id = DatumGetInt64(SPI_getbinval(tuple, SPI_tuptable->tupdesc, C_WORKSPACE, &isnull));
	transfer->notification_id = DatumGetInt64(SPI_getbinval(tuple, SPI_tuptable->tupdesc, C_NOTIFICATION, &isnull));
	transfer->destination = DatumGetInt64(SPI_getbinval(tuple, SPI_tuptable->tupdesc, C_DESTINATION, &isnull));
	transfer->mail = transfer->destination == PP_MAIL_DESTINATION;
	transfer->ailing = is_true(tuple, C_AILING);
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

