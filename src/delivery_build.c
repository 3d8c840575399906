/*-------------------------------------------------------------------------
 *
 * delivery_build.c
 *		Makes transfers of claimed messages: the mail, or the signed request.
 *
 * A message that cannot be built stops no other: its transfer has its outcome
 * already, and no body.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "delivery.h"
#include "partner_portal.h"

/* Secrets derived last: of an endpoint's present version, and of the one before. */
static struct
{
	char		nonce[40];
	int			key_version;
	int			version;
	unsigned char secret[PP_WEBHOOK_SECRET];
}			last[2];

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
	free(transfer->text);
	free(transfer);
}

/*
 * reserve gives a transfer one piece of memory for all its texts.
 */
static char *
reserve(PpTransfer *transfer, size_t size)
{
	transfer->text = malloc(size);
	if (transfer->text == NULL)
		elog(ERROR, "out of memory");
	return transfer->text;
}

/*
 * put_text copies a text to where there is room for it, and moves on behind it.
 */
static char *
put_text(char **room, const char *value, size_t length)
{
	char	   *start = *room;

	memcpy(start, value, length);
	start[length] = '\0';
	*room += length + 1;
	return start;
}

/*
 * column returns a text column of a claimed message, or NULL.
 */
static char *
column(const PpClaimed *message, int number)
{
	return message->isnull[number - 1] ? NULL : TextDatumGetCString(message->values[number - 1]);
}

/*
 * message_id returns the id that is the same in every attempt.
 */
static char *
message_id(const PpClaimed *message)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, message->values[NOTIFICATION_MESSAGE_ID - 1]));
}

/*
 * build_mail writes a claimed mail into the transfer.  Returns NULL, or why it
 * cannot be built.
 */
static const char *
build_mail(const PpClaimed *message, PpTransfer *transfer, const PpRelay *relay)
{
	PpMail		mail = {0};
	StringInfoData built;
	const char *problem;
	char	   *room;

	mail.sender = relay->sender;
	mail.sender_name = relay->sender_name;
	mail.recipient = column(message, NOTIFICATION_RECIPIENT);
	mail.locale = column(message, NOTIFICATION_LOCALE);
	mail.subject = column(message, NOTIFICATION_SUBJECT);
	mail.text_body = column(message, NOTIFICATION_TEXT_BODY);
	mail.html_body = column(message, NOTIFICATION_HTML_BODY);
	mail.unsubscribe_url = column(message, NOTIFICATION_UNSUBSCRIBE_URL);
	mail.message_id = message_id(message);
	mail.date = DatumGetTimestampTz(message->values[NOTIFICATION_OCCURRED_AT - 1]);
	initStringInfo(&built);
	problem = pp_mail_build(&built, &mail);
	if (problem != NULL)
		return problem;
	room = reserve(transfer, strlen(relay->url) + strlen(relay->sender) + strlen(mail.recipient) + built.len + 4);
	transfer->url = put_text(&room, relay->url, strlen(relay->url));
	transfer->sender = put_text(&room, relay->sender, strlen(relay->sender));
	transfer->recipient = put_text(&room, mail.recipient, strlen(mail.recipient));
	transfer->body_length = built.len;
	transfer->body = put_text(&room, built.data, built.len);
	return NULL;
}

/*
 * derive returns a secret of an endpoint: the present one, or the one before.
 * Both are kept until pp_build_forget(), since messages to one endpoint are
 * claimed together.
 */
static const unsigned char *
derive(const PpEndpoint *endpoint, int back)
{
	int			version = endpoint->secret_version - back;

	if (last[back].version != version || last[back].key_version != endpoint->key_version ||
		strcmp(last[back].nonce, endpoint->nonce) != 0)
	{
		explicit_bzero(&last[back], sizeof(last[back]));
		if (!pp_webhook_secret(endpoint->nonce, endpoint->key_version, version, last[back].secret))
			ereport(ERROR,
					(errcode(ERRCODE_CONFIG_FILE_ERROR),
					 errmsg("master key %d is not in the secrets file", endpoint->key_version)));
		strlcpy(last[back].nonce, endpoint->nonce, sizeof(last[back].nonce));
		last[back].key_version = endpoint->key_version;
		last[back].version = version;
	}
	return last[back].secret;
}

/*
 * pp_build_forget forgets the secrets that were derived last.
 */
void
pp_build_forget(void)
{
	explicit_bzero(last, sizeof(last));
}

/*
 * build_webhook writes the request of a claimed message into the transfer,
 * signed for this attempt; while a secret is being rotated, with both.
 */
static const char *
build_webhook(const PpClaimed *message, PpTransfer *transfer)
{
	static char json[] = "Content-Type: application/json";
	static char agent[] = "User-Agent: partner_portal";
	static char expect[] = "Expect:";
	const PpEndpoint *endpoint = message->endpoint;
	int64		now = (int64) time(NULL);
	text	   *stored;
	char	   *body;
	size_t		length;
	char		id[64];
	char		head[128];
	StringInfoData signature;
	char	   *room;

	if (endpoint->url == NULL || message->isnull[NOTIFICATION_TEXT_BODY - 1])
		return "the endpoint or the message is gone";
	stored = DatumGetTextPP(message->values[NOTIFICATION_TEXT_BODY - 1]);
	length = VARSIZE_ANY_EXHDR(stored);
	body = pg_server_to_any(VARDATA_ANY(stored), length, PG_UTF8);
	if (body != VARDATA_ANY(stored))
		length = strlen(body);
	if (length > PP_WEBHOOK_MAX)
		return "the message is larger than 64 KiB";
	if (endpoint->malformed)
		return "the address of the endpoint is malformed";

	snprintf(id, sizeof(id), "msg_%s", message_id(message));
	initStringInfo(&signature);
	appendStringInfoString(&signature, "webhook-signature: ");
	for (int back = 0; back <= (endpoint->old_secret ? 1 : 0); back++)
	{
		if (back > 0)
			appendStringInfoChar(&signature, ' ');
		pp_webhook_sign(&signature, derive(endpoint, back), id, now, body, length);
	}
	room = reserve(transfer, endpoint->url_length + length + signature.len + 2 * sizeof(head) + 5);
	transfer->url = put_text(&room, endpoint->url, endpoint->url_length);
	transfer->headers[0] = json;
	transfer->headers[1] = agent;
	transfer->headers[2] = put_text(&room, head, snprintf(head, sizeof(head), "webhook-id: %s", id));
	transfer->headers[3] = put_text(&room, head, snprintf(head, sizeof(head), "webhook-timestamp: " INT64_FORMAT, now));
	transfer->headers[4] = put_text(&room, signature.data, signature.len);
	transfer->headers[5] = expect;
	transfer->body_length = length;
	transfer->body = put_text(&room, body, length);
	return NULL;
}

/*
 * pp_build makes the transfer of a claimed message.  If that fails, the transfer
 * has its outcome already and no body: a row that cannot be built stops no other.
 */
PpTransfer *
pp_build(const PpClaimed *message, const PpRelay *relay)
{
	PpTransfer *transfer = new_transfer();
	MemoryContext context = CurrentMemoryContext;

	if (transfer == NULL)
		elog(ERROR, "out of memory");
	transfer->workspace_id = message->workspace_id;
	transfer->notification_id = message->notification_id;
	transfer->destination = message->destination;
	transfer->mail = message->destination == PP_MAIL_DESTINATION;
	transfer->ailing = message->ailing;
	if (message->expired)
	{
		/* Recording it will find the same and cancel it. */
		transfer->outcome = PP_ABORTED;
		strlcpy(transfer->error, "not sent", sizeof(transfer->error));
		return transfer;
	}
	PG_TRY();
	{
		const char *problem = transfer->mail ? build_mail(message, transfer, relay) :
			build_webhook(message, transfer);

		if (problem != NULL)
		{
			transfer->outcome = PP_REFUSED;
			snprintf(transfer->error, sizeof(transfer->error), "cannot be built: %s", problem);
		}
	}
	PG_CATCH();
	{
		ErrorData  *error;

		/*
		 * Only pure computation, a file read and the reading of a long text
		 * can have failed.
		 */
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN)
		{
			pp_transfer_free(transfer);
			PG_RE_THROW();
		}
		FlushErrorState();
		transfer->body = NULL;
		transfer->outcome = error->sqlerrcode == ERRCODE_DATA_EXCEPTION ||
			error->sqlerrcode == ERRCODE_UNTRANSLATABLE_CHARACTER ||
			error->sqlerrcode == ERRCODE_CHARACTER_NOT_IN_REPERTOIRE ? PP_REFUSED : PP_CONFIGURATION;
		snprintf(transfer->error, sizeof(transfer->error), "cannot be built: %s", error->message);
	}
	PG_END_TRY();
	return transfer;
}
