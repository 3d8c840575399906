/*
 * resolver.c: getaddrinfo() that asks the test's own name server for names below .example; preloaded into a server where nobody may
 * have port 53 and a resolv.conf of his own.  The server listens on 127.0.0.1 at the port that RESOLVER_PORT names.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <dlfcn.h>
#include <netdb.h>
#include <resolv.h>
#include <stdlib.h>
#include <string.h>

typedef int (*Resolver) (const char *, const char *, const struct addrinfo *, struct addrinfo **);

/*
 * ask looks up the address of a name, as long as 20 seconds; false is that there is none.
 */
static int
ask(const char *name, char *address)
{
	struct __res_state state;
	unsigned char answer[512];
	int			length;
	int			found = 0;
	ns_msg		message;
	ns_rr		record;

	memset(&state, 0, sizeof(state));
	if (res_ninit(&state) != 0)
		return 0;
	state.nscount = 1;
	state.nsaddr_list[0].sin_family = AF_INET;
	state.nsaddr_list[0].sin_port = htons(atoi(getenv("RESOLVER_PORT")));
	state.nsaddr_list[0].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	state.retrans = 20;
	state.retry = 1;
	length = res_nquery(&state, name, ns_c_in, ns_t_a, answer, sizeof(answer));
	if (length > 0 && ns_initparse(answer, length, &message) == 0 && ns_msg_count(message, ns_s_an) > 0 &&
		ns_parserr(&message, ns_s_an, 0, &record) == 0 && ns_rr_rdlen(record) == 4)
		found = inet_ntop(AF_INET, ns_rr_rdata(record), address, INET_ADDRSTRLEN) != NULL;
	res_nclose(&state);
	return found;
}

int
getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	Resolver	next = (Resolver) dlsym(RTLD_NEXT, "getaddrinfo");
	size_t		length = name == NULL ? 0 : strlen(name);
	char		address[INET_ADDRSTRLEN];

	if (length < 8 || strcmp(name + length - 8, ".example") != 0)
		return next(name, service, hints, result);
	return ask(name, address) ? next(address, service, hints, result) : EAI_NONAME;
}
