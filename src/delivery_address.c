/*-------------------------------------------------------------------------
 *
 * delivery_address.c
 *		Which addresses a delivery may connect to.
 *
 * A webhook's URL is chosen by a tenant, so the server must not be led into
 * its own network.  What counts is the address that is about to be connected,
 * after name resolution: every spelling and every rebinding of a name ends
 * there.  An address is allowed if it is public, or listed in
 * partner_portal.allow_cidr, with its port if the entry has one.
 *
 * Nothing here raises an error: it is called from libcurl's callbacks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "fmgr.h"
#include "utils/builtins.h"

#include "delivery.h"
#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_address_allowed);

typedef struct Range
{
	int			family;
	int			bits;
	const char *address;
} Range;

/*
 * What is not public: IANA's special-purpose registries, and the addresses
 * that carry an IPv4 address inside (6to4, NAT64, Teredo), which could lead
 * back to one of them.
 */
static const Range reserved[] = {
	{AF_INET, 8, "0.0.0.0"},
	{AF_INET, 8, "10.0.0.0"},
	{AF_INET, 10, "100.64.0.0"},
	{AF_INET, 8, "127.0.0.0"},
	{AF_INET, 16, "169.254.0.0"},
	{AF_INET, 12, "172.16.0.0"},
	{AF_INET, 24, "192.0.0.0"},
	{AF_INET, 24, "192.0.2.0"},
	{AF_INET, 24, "192.88.99.0"},
	{AF_INET, 16, "192.168.0.0"},
	{AF_INET, 15, "198.18.0.0"},
	{AF_INET, 24, "198.51.100.0"},
	{AF_INET, 24, "203.0.113.0"},
	{AF_INET, 4, "224.0.0.0"},
	{AF_INET, 4, "240.0.0.0"},
	{AF_INET6, 8, "::"},		/* unspecified, loopback, compatible, mapped */
	{AF_INET6, 32, "64:ff9b::"},
	{AF_INET6, 64, "100::"},
	{AF_INET6, 23, "2001::"},
	{AF_INET6, 32, "2001:db8::"},
	{AF_INET6, 16, "2002::"},
	{AF_INET6, 20, "3fff::"},
	{AF_INET6, 16, "5f00::"},
	{AF_INET6, 7, "fc00::"},
	{AF_INET6, 10, "fe80::"},
	{AF_INET6, 10, "fec0::"},
	{AF_INET6, 8, "ff00::"}
};

/*
 * same_prefix tells whether two addresses agree in their first bits.
 */
static bool
same_prefix(const unsigned char *one, const unsigned char *other, int bits)
{
	int			whole = bits / 8;
	int			rest = bits % 8;

	if (memcmp(one, other, whole) != 0)
		return false;
	return rest == 0 || ((one[whole] ^ other[whole]) >> (8 - rest)) == 0;
}

/*
 * take_apart returns the bytes, family and port of an address; an IPv4 address
 * mapped into IPv6 counts as the IPv4 address it is.  NULL is another family.
 */
static const unsigned char *
take_apart(const struct sockaddr *address, int *family, int *port)
{
	static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

	if (address->sa_family == AF_INET)
	{
		const struct sockaddr_in *in = (const struct sockaddr_in *) address;

		*family = AF_INET;
		*port = ntohs(in->sin_port);
		return (const unsigned char *) &in->sin_addr;
	}
	if (address->sa_family == AF_INET6)
	{
		const struct sockaddr_in6 *in = (const struct sockaddr_in6 *) address;
		const unsigned char *bytes = (const unsigned char *) &in->sin6_addr;

		*port = ntohs(in->sin6_port);
		if (memcmp(bytes, mapped, sizeof(mapped)) == 0)
		{
			*family = AF_INET;
			return bytes + sizeof(mapped);
		}
		*family = AF_INET6;
		return bytes;
	}
	return NULL;
}

/*
 * pp_address_public tells whether an address belongs to the public internet.
 */
bool
pp_address_public(const struct sockaddr *address)
{
	int			family;
	int			port;
	const unsigned char *bytes = take_apart(address, &family, &port);

	if (bytes == NULL)
		return false;
	for (int i = 0; i < lengthof(reserved); i++)
	{
		unsigned char prefix[16];

		if (reserved[i].family == family &&
			inet_pton(family, reserved[i].address, prefix) == 1 &&
			same_prefix(bytes, prefix, reserved[i].bits))
			return false;
	}
	return true;
}

/*
 * pp_address_listed tells whether an address and its port are in the list.
 */
bool
pp_address_listed(const struct sockaddr *address, const PpAllowed *allowed, int count)
{
	int			family;
	int			port;
	const unsigned char *bytes = take_apart(address, &family, &port);

	if (bytes == NULL)
		return false;
	for (int i = 0; i < count; i++)
	{
		if (allowed[i].family == family &&
			(allowed[i].port == 0 || allowed[i].port == port) &&
			same_prefix(bytes, allowed[i].address, allowed[i].bits))
			return true;
	}
	return false;
}

/*
 * make_address fills in a socket address from a literal; false if it is none.
 */
static bool
make_address(const char *host, int port, struct sockaddr_storage *address)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *) address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *) address;

	memset(address, 0, sizeof(*address));
	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1)
	{
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		return true;
	}
	if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1)
	{
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		return true;
	}
	return false;
}

/*
 * pp_host_listed tells whether a host given as an address is in the list.
 */
bool
pp_host_listed(const char *host, int port, const PpAllowed *allowed, int count)
{
	struct sockaddr_storage address;

	if (strcmp(host, "localhost") == 0)
		host = "127.0.0.1";
	return make_address(host, port, &address) &&
		pp_address_listed((struct sockaddr *) &address, allowed, count);
}

/*
 * parse_number reads a whole number between two others.
 */
static bool
parse_number(const char *text, int least, int most, int *number)
{
	char	   *end;
	long		value;

	if (!isdigit((unsigned char) *text))
		return false;
	value = strtol(text, &end, 10);
	*number = (int) value;
	return *end == '\0' && value >= least && value <= most;
}

/*
 * parse_entry reads "address[/bits][:port]"; an IPv6 address with a port stands
 * in brackets.
 */
static bool
parse_entry(const char *entry, size_t length, PpAllowed *allowed)
{
	char		copy[80];
	char	   *host = copy;
	char	   *slash;
	char	   *port = NULL;
	int			most;

	if (length == 0 || length >= sizeof(copy))
		return false;
	memcpy(copy, entry, length);
	copy[length] = '\0';

	if (*host == '[')
	{
		char	   *bracket = strchr(copy, ']');

		if (bracket == NULL)
			return false;
		*bracket = '\0';
		host++;
		if (bracket[1] == ':')
			port = bracket + 2;
		else if (bracket[1] != '\0')
			return false;
	}
	else if (strchr(copy, ':') != NULL && strchr(copy, ':') == strrchr(copy, ':'))
	{
		port = strchr(copy, ':');
		*port++ = '\0';
	}

	slash = strchr(host, '/');
	if (slash != NULL)
		*slash++ = '\0';

	memset(allowed, 0, sizeof(*allowed));
	if (inet_pton(AF_INET, host, allowed->address) == 1)
		allowed->family = AF_INET;
	else if (inet_pton(AF_INET6, host, allowed->address) == 1)
		allowed->family = AF_INET6;
	else
		return false;

	most = allowed->family == AF_INET ? 32 : 128;
	allowed->bits = most;
	return (slash == NULL || parse_number(slash, 0, most, &allowed->bits)) &&
		(port == NULL || parse_number(port, 1, 65535, &allowed->port));
}

/*
 * pp_parse_allowed reads the list of partner_portal.allow_cidr into malloc'ed
 * memory (NULL for an empty one).  *bad is set to what is not understood.
 */
PpAllowed *
pp_parse_allowed(const char *list, int *count, const char **bad)
{
	PpAllowed  *allowed = NULL;

	*count = 0;
	*bad = NULL;
	while (list != NULL && *list != '\0')
	{
		size_t		length = strcspn(list, ", \t\n");

		if (length > 0)
		{
			PpAllowed  *longer = realloc(allowed, (*count + 1) * sizeof(PpAllowed));

			if (longer != NULL)
				allowed = longer;
			if (longer == NULL || !parse_entry(list, length, &allowed[*count]))
			{
				*bad = list;
				free(allowed);
				*count = 0;
				return NULL;
			}
			(*count)++;
		}
		list += length;
		list += strspn(list, ", \t\n");
	}
	return allowed;
}

/*
 * address_allowed(address, port, list) asks the guard of webhooks; for tests
 * and for operators who write a list.
 */
Datum
partner_portal_address_allowed(PG_FUNCTION_ARGS)
{
	char	   *host = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int			port = PG_GETARG_INT32(1);
	char	   *list = text_to_cstring(PG_GETARG_TEXT_PP(2));
	struct sockaddr_storage address;
	PpAllowed  *allowed;
	const char *bad;
	int			count;
	bool		result;

	if (port < 1 || port > 65535 || !make_address(host, port, &address))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" port %d is not an address", host, port)));
	allowed = pp_parse_allowed(list, &count, &bad);
	if (bad != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid list of networks at \"%s\"", bad),
				 errhint("Entries look like 10.0.0.0/8, 127.0.0.1:8080 or [fd00::/8]:25, separated by commas.")));
	result = pp_address_public((struct sockaddr *) &address) ||
		pp_address_listed((struct sockaddr *) &address, allowed, count);
	free(allowed);
	PG_RETURN_BOOL(result);
}
