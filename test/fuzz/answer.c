/*-------------------------------------------------------------------------
 *
 * answer.c
 *		libFuzzer target: what a peer answers, and lists of allowed networks.
 *
 * An input that begins with 'a' is such a list, one with 'm' the replies of a
 * relay, any other the head of an HTTP answer, line by line.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netinet/in.h>

#include "delivery.h"
#include "server.h"

void
pp_network_cut(PpTransfer *transfer)
{
	transfer->cut = true;
}

/* libcurl's reader of dates is not ours to try. */
int64
pp_network_date(const char *text)
{
	return text[0] == '\0' ? -1 : (int64) strlen(text) << 40;
}

/*
 * read_list parses a list of networks and asks about an address of each family.
 */
static void
read_list(const uint8 *data, size_t size)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	char	   *list = pnstrdup((const char *) data, size);
	const char *bad;
	int			count;
	PpAllowed  *allowed = pp_parse_allowed(list, &count, &bad);

	if (bad != NULL && (allowed != NULL || count != 0 || bad < list || bad > list + size))
		abort();
	for (int i = 0; i < count; i++)
	{
		if (allowed[i].bits < 0 || allowed[i].bits > (allowed[i].family == AF_INET ? 32 : 128) ||
			allowed[i].port < 0 || allowed[i].port > 65535)
			abort();
		v4.sin_port = v6.sin6_port = htons(allowed[i].port == 0 ? 80 : allowed[i].port);
		if (allowed[i].family == AF_INET)
			memcpy(&v4.sin_addr, allowed[i].address, 4);
		else
			memcpy(&v6.sin6_addr, allowed[i].address, 16);
		/* what an entry names, it allows; an IPv4 address in IPv6's clothes is the IPv4 address */
		if (allowed[i].family == AF_INET ? !pp_address_listed((struct sockaddr *) &v4, allowed, count) :
			!IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr) && !pp_address_listed((struct sockaddr *) &v6, allowed, count))
			abort();
	}
	(void) pp_address_public((struct sockaddr *) &v4);
	(void) pp_address_public((struct sockaddr *) &v6);
	free(allowed);
}

/*
 * read_answer hands an answer over line by line, each in a piece of its own
 * size, and has its end judged.
 */
static void
read_answer(PpTransfer *transfer, const uint8 *data, size_t size)
{
	while (size > 0)
	{
		const uint8 *feed = memchr(data, '\n', size);
		size_t		length = feed == NULL ? size : feed - data + 1;
		char	   *line = palloc(length);

		memcpy(line, data, length);
		if (pp_answer_header(line, 1, length, transfer) != length)
			break;
		data += length;
		size -= length;
	}
	if (transfer->retry_after < 0 || transfer->retry_after > 86400 || transfer->last_reply > 599)
		abort();
	for (int end = PP_END_WELL; end <= PP_END_STARVED; end++)
	{
		transfer->error[0] = '\0';
		pp_answer_judge(transfer, end, "reason");
		if (memchr(transfer->error, '\0', sizeof(transfer->error)) == NULL ||
			(transfer->outcome == PP_DELIVERED && transfer->mail && end != PP_END_WELL))
			abort();
	}
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	PpTransfer	transfer = {0};

	if (size < 2)
		return 0;
	if (data[0] == 'a')
		read_list(data + 1, size - 1);
	else
	{
		transfer.mail = data[0] == 'm';
		transfer.opened = data[1] & 1;
		transfer.code = transfer.mail ? 0 : data[1] * 3;
		read_answer(&transfer, data + 2, size - 2);
	}
	fuzz_forget();
	return 0;
}
