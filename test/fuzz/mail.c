/*-------------------------------------------------------------------------
 *
 * mail.c
 *		libFuzzer target: a mail made of whatever texts.
 *
 * The input is the sender, recipient, subject, locale, address to unsubscribe,
 * text and HTML, parted by NUL.  What is built must be lines of 7-bit
 * characters that end in CR LF, none too long for a relay, with no header but
 * ours.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "pgtime.h"

#include "delivery.h"
#include "server.h"

/*
 * pg_gmtime is the C library's: the server's own is not at hand.
 */
struct pg_tm *
pg_gmtime(const pg_time_t *seconds)
{
	static struct pg_tm day = {.tm_mday = 1, .tm_year = 126};

	return &day;
}

pg_time_t
timestamptz_to_time_t(TimestampTz t)
{
	return 0;
}

char *
pg_server_to_any(const char *text, int length, int encoding)
{
	return (char *) text;
}

/*
 * check_lines checks a message, and that its head has only the headers that we
 * write, each at most once.
 */
static void
check_lines(const char *message, int length)
{
	static const char *const known[] = {"Date: ", "From: ", "To: ", "Subject: ", "Message-ID: ", "Auto-Submitted: ", "Content-Language: ",
	"List-Unsubscribe: ", "List-Unsubscribe-Post: ", "MIME-Version: ", "Content-Type: ", "Content-Transfer-Encoding: "};
	bool		seen[lengthof(known)] = {0};
	bool		in_head = true;
	const char *end = message + length;

	while (message < end)
	{
		const char *feed = memchr(message, '\n', end - message);
		int			known_as = -1;

		if (feed == NULL || feed == message - 1 || feed[-1] != '\r' || feed - message > 998)
			abort();
		for (const char *c = message; c < feed - 1; c++)
			if ((unsigned char) *c >= 0x7f || ((unsigned char) *c < ' ' && *c != '\t'))
				abort();
		in_head = in_head && feed > message + 1;
		for (int i = 0; i < lengthof(known) && in_head; i++)
			if (strncmp(message, known[i], strlen(known[i])) == 0)
				known_as = i;
		if (in_head && *message != ' ' && (known_as < 0 || seen[known_as]))
			abort();
		if (known_as >= 0)
			seen[known_as] = true;
		message = feed + 1;
	}
}

/*
 * next_text takes the next text off the input, NULL if there is none or it is
 * empty and may be left out.
 */
static char *
next_text(const uint8 **data, size_t *size, bool may_lack)
{
	const uint8 *end = memchr(*data, '\0', *size);
	size_t		length = end == NULL ? *size : end - *data;
	char	   *text = pnstrdup((const char *) *data, length);

	*data += length + (end != NULL);
	*size -= length + (end != NULL);
	return length == 0 && may_lack ? NULL : text;
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	char		sender[330];
	char		name[256];
	char	   *from = next_text(&data, &size, false);
	PpMail		mail = {.message_id = "01890af0-1111-7222-8333-444455556666"};
	StringInfoData message;

	mail.recipient = next_text(&data, &size, false);
	mail.subject = next_text(&data, &size, false);
	mail.locale = next_text(&data, &size, true);
	mail.unsubscribe_url = next_text(&data, &size, true);
	mail.text_body = next_text(&data, &size, false);
	mail.html_body = next_text(&data, &size, true);
	if (pp_mail_parse_sender(from, sender, sizeof(sender), name, sizeof(name)))
	{
		mail.sender = sender;
		mail.sender_name = name;
		initStringInfo(&message);
		if (pp_mail_build(&message, &mail) == NULL)
			check_lines(message.data, message.len);
	}
	fuzz_forget();
	return 0;
}
