/*-------------------------------------------------------------------------
 *
 * mail_format.c
 *		Writes a mail: headers (RFC 5322, 2047) and a text and HTML body
 *		(RFC 2045, 2046).
 *
 * The bytes depend on the notification alone, so that every attempt sends the
 * same message.  Everything is 7-bit with CRLF: text is quoted-printable, and
 * header words that are not plain ASCII are encoded.  libcurl passes control
 * bytes on, hence nothing that holds one gets into a header.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "common/base64.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "delivery.h"
#include "partner_portal.h"

#define LINE_LENGTH		76
#define WORD_BYTES		39		/* of text in one encoded word, so that its
								 * line has at most 76 */

PG_FUNCTION_INFO_V1(partner_portal_mail_message);

/*
 * address_valid accepts ASCII addresses of the ordinary form, and so
 * nothing that could end a command or a header.
 */
static bool
address_valid(const char *address)
{
	const char *at = strrchr(address, '@');
	size_t		label = 0;

	if (at == NULL || at == address || at - address > 64 || strlen(at + 1) > 255)
		return false;
	for (const char *c = address; c < at; c++)
		if (!isalnum((unsigned char) *c) && strchr(".!#$%&'*+/=?^_`{|}~-", *c) == NULL)
			return false;
	for (const char *c = at + 1;; c++)
	{
		if (*c == '.' || *c == '\0')
		{
			if (label == 0 || label > 63 || c[-1] == '-')
				return false;
			if (*c == '\0')
				return true;
			label = 0;
		}
		else if ((unsigned char) *c < 0x80 &&
				 (isalnum((unsigned char) *c) || (*c == '-' && label > 0)))
			label++;
		else
			return false;
	}
}

/*
 * pp_mail_parse_sender takes "address" or "Name <address>" apart.  False if the
 * address is none, or a part is too long.
 */
bool
pp_mail_parse_sender(const char *from, char *address, size_t address_size,
					 char *name, size_t name_size)
{
	const char *open = strrchr(from, '<');
	size_t		length;

	name[0] = '\0';
	if (open == NULL)
	{
		if (strlcpy(address, from, address_size) >= address_size)
			return false;
		return address_valid(address);
	}
	length = strlen(open + 1);
	if (length == 0 || open[length] != '>' || length > address_size)
		return false;
	memcpy(address, open + 1, length - 1);
	address[length - 1] = '\0';

	length = open - from;
	while (length > 0 && (from[length - 1] == ' ' || from[length - 1] == '"'))
		length--;
	while (length > 0 && (*from == ' ' || *from == '"'))
	{
		from++;
		length--;
	}
	if (length >= name_size)
		return false;
	memcpy(name, from, length);
	name[length] = '\0';
	return address_valid(address);
}

/*
 * has_control tells whether a text holds a control byte.
 */
static bool
has_control(const char *string)
{
	for (; *string != '\0'; string++)
		if ((unsigned char) *string < 0x20 || *string == 0x7f)
			return true;
	return false;
}

/*
 * all_ascii tells whether a text is of ASCII alone.
 */
static bool
all_ascii(const char *string)
{
	for (; *string != '\0'; string++)
		if ((unsigned char) *string >= 0x80)
			return false;
	return true;
}

/*
 * append_words appends an unstructured header text of UTF-8: as it is when
 * short and plain, else in encoded words of at most 75 bytes, each of whole
 * characters.
 */
static void
append_words(StringInfo into, const char *string, bool phrase)
{
	size_t		length = strlen(string);
	bool		plain = length <= 60 && strstr(string, "=?") == NULL;

	for (const char *c = string; *c != '\0' && plain; c++)
		if ((unsigned char) *c >= 0x7f ||
			(phrase && !isalnum((unsigned char) *c) && strchr(" !#$%&'*+-/=?^_`{|}~", *c) == NULL))
			plain = false;
	if (plain)
	{
		appendStringInfoString(into, string);
		return;
	}
	for (size_t from = 0; from < length;)
	{
		char		encoded[80];
		size_t		take = Min(length - from, WORD_BYTES);

		while (take > 0 && from + take < length && ((unsigned char) string[from + take] & 0xc0) == 0x80)
			take--;
		if (take == 0)			/* what is no UTF-8, in a database without
								 * encoding */
			take = Min(length - from, WORD_BYTES);
		appendStringInfo(into, "%s=?UTF-8?B?%.*s?=", from == 0 ? "" : "\r\n ",
						 pg_b64_encode((const void *) (string + from), take, encoded, sizeof(encoded)), encoded);
		from += take;
	}
}

/*
 * append_quoted appends UTF-8 as quoted-printable, its line ends as CRLF.
 */
static void
append_quoted(StringInfo into, const char *text)
{
	int			column = 0;

	for (const char *c = text; *c != '\0'; c++)
	{
		unsigned char byte = *c;
		bool		at_end = c[1] == '\0' || c[1] == '\n' || c[1] == '\r';
		bool		literal = (byte >= 33 && byte <= 126 && byte != '=') ||
			((byte == ' ' || byte == '\t') && !at_end);

		if (byte == '\r' && c[1] == '\n')
			continue;
		if (byte == '\n' || byte == '\r')
		{
			appendStringInfoString(into, "\r\n");
			column = 0;
			continue;
		}
		if (column + (literal ? 1 : 3) > LINE_LENGTH - 1)
		{
			appendStringInfoString(into, "=\r\n");
			column = 0;
		}
		if (literal)
			appendStringInfoChar(into, byte);
		else
			appendStringInfo(into, "=%02X", byte);
		column += literal ? 1 : 3;
	}
	if (column > 0)
		appendStringInfoString(into, "\r\n");
}

/*
 * append_part appends one alternative of the body.
 */
static void
append_part(StringInfo into, const char *type, const char *body)
{
	appendStringInfo(into,
					 "Content-Type: text/%s; charset=UTF-8\r\n"
					 "Content-Transfer-Encoding: quoted-printable\r\n\r\n", type);
	append_quoted(into, body);
}

/*
 * append_date appends a date as mails have it, in UTC.
 */
static void
append_date(StringInfo into, TimestampTz date)
{
	static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
	"Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	pg_time_t	seconds = timestamptz_to_time_t(date);
	struct pg_tm *tm = pg_gmtime(&seconds);

	appendStringInfo(into, "Date: %s, %02d %s %d %02d:%02d:%02d +0000\r\n",
					 days[tm->tm_wday], tm->tm_mday, months[tm->tm_mon], tm->tm_year + 1900,
					 tm->tm_hour, tm->tm_min, tm->tm_sec);
}

/*
 * utf8 converts from the database's encoding.
 */
static const char *
utf8(const char *text)
{
	return text == NULL ? NULL : pg_server_to_any(text, strlen(text), PG_UTF8);
}

/*
 * pp_mail_build appends the message.  Returns NULL, or why it cannot be built.
 */
const char *
pp_mail_build(StringInfo into, const PpMail *mail)
{
	const char *subject = utf8(mail->subject);
	const char *sender_name = utf8(mail->sender_name);

	if (!address_valid(mail->sender))
		return "the sender is not a mail address";
	if (!address_valid(mail->recipient))
		return "the recipient is not a mail address";
	if (subject == NULL || mail->text_body == NULL)
		return "the mail has no subject or no text";
	if (has_control(subject) || has_control(mail->message_id) ||
		(sender_name != NULL && has_control(sender_name)) ||
		(mail->locale != NULL && has_control(mail->locale)))
		return "a header holds a control character";
	if (mail->unsubscribe_url != NULL &&
		(has_control(mail->unsubscribe_url) || !all_ascii(mail->unsubscribe_url) || strlen(mail->unsubscribe_url) > 900 ||
		 strpbrk(mail->unsubscribe_url, "<> ") != NULL))
		return "the address to unsubscribe is malformed";

	append_date(into, mail->date);
	appendStringInfoString(into, "From: ");
	if (sender_name != NULL && sender_name[0] != '\0')
	{
		append_words(into, sender_name, true);
		appendStringInfo(into, "\r\n <%s>\r\n", mail->sender);
	}
	else
		appendStringInfo(into, "%s\r\n", mail->sender);
	appendStringInfo(into, "To: %s\r\nSubject: ", mail->recipient);
	append_words(into, subject, false);
	appendStringInfo(into, "\r\nMessage-ID: <%s%s>\r\nAuto-Submitted: auto-generated\r\n",
					 mail->message_id, strrchr(mail->sender, '@'));
	if (mail->locale != NULL && mail->locale[0] != '\0' && all_ascii(mail->locale))
		appendStringInfo(into, "Content-Language: %s\r\n", mail->locale);
	if (mail->unsubscribe_url != NULL)
		appendStringInfo(into, "List-Unsubscribe: <%s>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
						 mail->unsubscribe_url);
	appendStringInfoString(into, "MIME-Version: 1.0\r\n");
	if (mail->html_body == NULL)
		append_part(into, "plain", utf8(mail->text_body));
	else
	{
		appendStringInfo(into, "Content-Type: multipart/alternative;\r\n boundary=\"=_%s\"\r\n\r\n--=_%s\r\n",
						 mail->message_id, mail->message_id);
		append_part(into, "plain", utf8(mail->text_body));
		appendStringInfo(into, "--=_%s\r\n", mail->message_id);
		append_part(into, "html", utf8(mail->html_body));
		appendStringInfo(into, "--=_%s--\r\n", mail->message_id);
	}
	if (into->len > PP_MAIL_MAX)
		return "the mail is larger than 1 MiB";
	return NULL;
}

/*
 * argument returns a text argument, or NULL.
 */
static const char *
argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/*
 * mail_message(sender, recipient, subject, text_body, html_body, locale,
 * message_id, occurred_at, unsubscribe_url) shows the message as it would be
 * sent.
 */
Datum
partner_portal_mail_message(PG_FUNCTION_ARGS)
{
	PpMail		mail = {0};
	StringInfoData message;
	char		sender[330];
	char		name[256];
	const char *problem = NULL;

	for (int i = 0; i < 8; i++)
		if (PG_ARGISNULL(i) && i != 4 && i != 5)
			PG_RETURN_NULL();
	if (!pp_mail_parse_sender(argument(fcinfo, 0), sender, sizeof(sender), name, sizeof(name)))
		problem = "the sender is not a mail address";
	mail.sender = sender;
	mail.sender_name = name;
	mail.recipient = argument(fcinfo, 1);
	mail.subject = argument(fcinfo, 2);
	mail.text_body = argument(fcinfo, 3);
	mail.html_body = argument(fcinfo, 4);
	mail.locale = argument(fcinfo, 5);
	mail.message_id = DatumGetCString(DirectFunctionCall1(uuid_out, PG_GETARG_DATUM(6)));
	mail.date = PG_GETARG_TIMESTAMPTZ(7);
	mail.unsubscribe_url = argument(fcinfo, 8);

	initStringInfo(&message);
	if (problem == NULL)
		problem = pp_mail_build(&message, &mail);
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s", problem)));
	PG_RETURN_TEXT_P(cstring_to_text_with_len(message.data, message.len));
}
