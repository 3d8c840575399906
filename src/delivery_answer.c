/*-------------------------------------------------------------------------
 *
 * delivery_answer.c
 *		What peers answer, and what it means for the message.
 *
 * These are the callbacks of a transfer and the verdict on it.  Nothing here
 * allocates from a memory context or raises an error; see delivery_curl.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <time.h>

#include "delivery.h"
#include "partner_portal.h"

/*
 * pp_answer_body counts an answer's body, which nobody reads, up to its cap.
 */
size_t
pp_answer_body(char *data, size_t size, size_t count, void *arg)
{
	PpTransfer *transfer = arg;

	transfer->received += size * count;
	return transfer->received > PP_ANSWER_MAX ? 0 : size * count;
}

/*
 * pp_answer_header reads SMTP replies and the few headers that matter, up to the cap.
 */
size_t
pp_answer_header(char *data, size_t size, size_t count, void *arg)
{
	PpTransfer *transfer = arg;
	size_t		length = size * count;
	static const char retry_after[] = "retry-after:";

	transfer->received += length;
	if (transfer->received > PP_ANSWER_MAX)
		return 0;
	if (transfer->mail)
	{
		int			reply = 0;

		if (length >= 3 && data[0] >= '2' && data[0] <= '5' &&
			isdigit((unsigned char) data[1]) && isdigit((unsigned char) data[2]))
			reply = (data[0] - '0') * 100 + (data[1] - '0') * 10 + (data[2] - '0');
		if (reply == 354)
			transfer->data_begun = true;
		if (reply != 0 && reply != 221) /* 221 only answers our leaving */
			transfer->last_reply = reply;
		if (length > 3 && data[3] != '-' && reply != 0)
			transfer->replies++;
		/* A refusal ends it, unless it is the one of EHLO. */
		if (reply >= 400 && (!transfer->opened || transfer->replies != 2))
			pp_network_cut(transfer);
	}
	else if (length > sizeof(retry_after) &&
			 pg_strncasecmp(data, retry_after, sizeof(retry_after) - 1) == 0)
	{
		char		value[64];
		size_t		skip = sizeof(retry_after) - 1;
		size_t		take;
		int64		when;

		while (skip < length && data[skip] == ' ')
			skip++;
		take = Min(length - skip, sizeof(value) - 1);
		memcpy(value, data + skip, take);
		value[take] = '\0';
		if (value[0] >= '0' && value[0] <= '9')
			transfer->retry_after = (int) Min(strtol(value, NULL, 10), 86400);
		else if ((when = pp_network_date(value)) > 0 && when > time(NULL))
			transfer->retry_after = (int) Min(when - time(NULL), 86400);
	}
	return length;
}

/*
 * pp_answer_wants hands a mail to libcurl.
 */
size_t
pp_answer_wants(char *into, size_t size, size_t count, void *arg)
{
	PpTransfer *transfer = arg;
	size_t		take = Min(size * count, transfer->body_length - transfer->sent);

	memcpy(into, transfer->body + transfer->sent, take);
	transfer->sent += take;
	return take;
}

/*
 * judge_webhook decides what the end of an HTTP transfer means.
 */
static void
judge_webhook(PpTransfer *transfer, PpEnd end, const char *reason)
{
	if (transfer->code >= 200 && transfer->code < 300 &&
		(end == PP_END_WELL || end == PP_END_CUT_SHORT))
		transfer->outcome = PP_DELIVERED;
	else if (transfer->code == 410)
		transfer->outcome = PP_GONE;
	else
		transfer->outcome = PP_RETRY;

	if (transfer->outcome != PP_DELIVERED)
	{
		if (end == PP_END_WELL)
			snprintf(transfer->error, sizeof(transfer->error), "HTTP status %d%s", transfer->code,
					 transfer->code >= 300 && transfer->code < 400 ? ", redirects are not followed" : "");
		else
			strlcpy(transfer->error, reason, sizeof(transfer->error));
	}
}

/*
 * judge_mail decides what the end of an SMTP transfer means.  Nearly every
 * failure is the same to libcurl; the phase and the last reply tell them apart.
 * A fault of the relay or of our settings is no fault of the mail.
 */
static void
judge_mail(PpTransfer *transfer, PpEnd end, const char *reason)
{
	int			class = transfer->last_reply / 100;
	bool		of_sender = strncmp(transfer->curl_error, "MAIL failed", 11) == 0;

	transfer->code = transfer->last_reply;
	if (end == PP_END_WELL)
	{
		transfer->outcome = PP_DELIVERED;
		return;
	}
	if (!transfer->data_begun && (end == PP_END_BEFORE || transfer->last_reply == 0))
		transfer->outcome = PP_CONFIGURATION;	/* nothing was said of this
												 * mail */
	else if (transfer->last_reply == 354)
		transfer->outcome = PP_AMBIGUOUS;
	else if (class == 5 && of_sender && transfer->last_reply != 552)
		transfer->outcome = PP_CONFIGURATION;
	else if (class == 5)
		transfer->outcome = PP_REFUSED;
	else
		transfer->outcome = PP_RETRY;

	if (transfer->cut)
		strlcpy(transfer->error, "Timeout was reached", sizeof(transfer->error));
	else if (class == 4 || class == 5)
		snprintf(transfer->error, sizeof(transfer->error), "SMTP reply %d%s", transfer->last_reply,
				 of_sender ? " to MAIL" : transfer->data_begun ? " to DATA" : "");
	else
		strlcpy(transfer->error, reason, sizeof(transfer->error));
}

/*
 * pp_answer_judge fills in what the end of a transfer means.
 */
void
pp_answer_judge(PpTransfer *transfer, PpEnd end, const char *reason)
{
	if (end == PP_END_STARVED || (end != PP_END_WELL && transfer->starved))
	{
		transfer->outcome = PP_ABORTED;
		strlcpy(transfer->error, "no file descriptor or memory for a connection", sizeof(transfer->error));
	}
	else if (end != PP_END_WELL && transfer->blocked)
	{
		transfer->outcome = transfer->mail ? PP_CONFIGURATION : PP_RETRY;
		snprintf(transfer->error, sizeof(transfer->error), "the address is not allowed%s",
				 transfer->in_clear ? " in clear" : "");
	}
	else if (transfer->mail)
		judge_mail(transfer, end, reason);
	else
		judge_webhook(transfer, end, reason);
}
