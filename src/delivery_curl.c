/*-------------------------------------------------------------------------
 *
 * delivery_curl.c
 *		The network: HTTP and SMTP transfers by libcurl, many at once.
 *
 * libcurl's sockets live in a private epoll set, whose descriptor is one
 * readable event of the engine's wait set; so there is one place to wait, and
 * latch, interrupts and postmaster death are heard there.
 *
 * In SMTP libcurl blocks the calling thread at two points, for up to two
 * minutes: for the verdict on a mail, and for the answer to the QUIT before it
 * closes a connection.  So mail has an engine of its own, which sends one after
 * the other over one connection, and a connection on which the relay fell
 * silent is cut by us; libcurl asks us once a second.
 *
 * Nothing in this file allocates from a memory context or raises an error: a
 * longjmp through libcurl would leave it unusable.  Signals are blocked while
 * libcurl runs, since the threads of its resolver inherit the mask.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/epoll.h>
#include <unistd.h>

#include "delivery_curl.h"
#include "partner_portal.h"

static bool curl_ready = false;

/*
 * pp_network_open prepares libcurl in this process (never in the postmaster)
 * and a network without transfers; NULL without memory or descriptors.
 */
PpNetwork *
pp_network_open(void)
{
	PpNetwork  *network;

	if (!curl_ready && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return NULL;
	curl_ready = true;
	network = calloc(1, sizeof(PpNetwork));
	if (network == NULL)
		return NULL;
	network->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (network->epoll < 0)
	{
		free(network);
		return NULL;
	}
	network->finished_tail = &network->finished;
	return network;
}

/*
 * pp_network_fd is readable when pp_network_run() has something to do.
 */
int
pp_network_fd(PpNetwork *network)
{
	return network->epoll;
}

/*
 * free_spares frees the handles that are prepared.
 */
static void
free_spares(PpNetwork *network)
{
	while (network->spare_count > 0)
		curl_easy_cleanup(network->spare[--network->spare_count]);
}

/*
 * pp_network_configure takes settings.  What changed gets new connections.
 * False without memory, or when the list is not understood.
 */
bool
pp_network_configure(PpNetwork *network, const PpRelay *relay,
					 const char *ca_file, const char *allowed_list)
{
	bool		anew = network->allowed_list == NULL ||
		strcmp(network->allowed_list, allowed_list) != 0 ||
		strcmp(network->ca_file, ca_file) != 0;
	sigset_t	saved;

	if (anew)
	{
		const char *bad;
		int			count;
		PpAllowed  *allowed = pp_parse_allowed(allowed_list, &count, &bad);
		char	   *list = strdup(allowed_list);
		char	   *file = strdup(ca_file);

		if (bad != NULL || list == NULL || file == NULL)
		{
			free(allowed);
			free(list);
			free(file);
			return false;
		}
		free(network->allowed);
		free(network->allowed_list);
		free(network->ca_file);
		network->allowed = allowed;
		network->allowed_count = count;
		network->allowed_list = list;
		network->ca_file = file;
	}
	pp_block_signals(&saved);
	if (anew)
	{
		free_spares(network);
		pp_pool_retire(network, POOL_WEBHOOK);
	}
	if (anew || memcmp(&network->relay, relay, sizeof(PpRelay)) != 0)
		pp_pool_retire(network, POOL_MAIL);
	pp_restore_signals(&saved);
	network->relay = *relay;
	return true;
}

/*
 * let_go takes libcurl's part from a transfer.  The handle of a webhook keeps
 * what is the same for all, and is used again.
 */
static void
let_go(PpNetwork *network, PpTransfer *transfer)
{
	CURL	   *easy = transfer->handle;

	pp_request_let_go(easy, transfer);
	if (!transfer->mail && network->spare_count < PP_SLOTS)
		network->spare[network->spare_count++] = easy;
	else
		curl_easy_cleanup(easy);
}

/*
 * begin begins a transfer.  False if it cannot be begun; then its outcome and
 * error say why.
 */
static bool
begin(PpNetwork *network, PpTransfer *transfer)
{
	Pool	   *pool = pp_pool_find(network, transfer->mail ? POOL_MAIL : POOL_WEBHOOK);
	CURL	   *easy = NULL;

	if (pool != NULL)
		easy = !transfer->mail && network->spare_count > 0 ? network->spare[--network->spare_count] :
			pp_request_handle(network, transfer->mail);
	if (easy == NULL)
	{
		transfer->outcome = PP_ABORTED;
		strlcpy(transfer->error, "out of memory", sizeof(transfer->error));
		return false;
	}
	transfer->handle = easy;
	transfer->pool = pool;
	if (!pp_request_prepare(easy, transfer) ||
		curl_multi_add_handle(pool->multi, easy) != CURLM_OK)
	{
		let_go(network, transfer);
		transfer->outcome = PP_REFUSED;
		strlcpy(transfer->error, "the message cannot be handed to libcurl", sizeof(transfer->error));
		return false;
	}
	pool->in_flight++;
	network->mails += transfer->mail ? 1 : 0;
	transfer->next = network->flying;
	network->flying = transfer;
	return true;
}

/*
 * pp_network_add begins the transfers of a list, or lets a mail wait for the one
 * under way, and notes the destinations of those.  Returns the others, which
 * cannot be begun; they are the caller's again.
 */
PpTransfer *
pp_network_add(PpNetwork *network, PpTransfer *list, int64 *begun, int *begun_count)
{
	PpTransfer *others = NULL;
	sigset_t	saved;

	pp_block_signals(&saved);
	while (list != NULL)
	{
		PpTransfer *transfer = list;

		list = list->next;
		if (transfer->body != NULL && transfer->mail && network->mails > 0)
		{
			transfer->next = network->waiting;
			network->waiting = transfer;
		}
		else if (transfer->body == NULL || !begin(network, transfer))
		{
			transfer->next = others;
			others = transfer;
			continue;
		}
		begun[(*begun_count)++] = transfer->destination;
	}
	pp_restore_signals(&saved);
	return others;
}

/*
 * finish puts a transfer among the finished ones.
 */
static void
finish(PpNetwork *network, PpTransfer *transfer)
{
	transfer->next = NULL;
	*network->finished_tail = transfer;
	network->finished_tail = &transfer->next;
}

/*
 * begin_waiting begins the next mail when none is under way.
 */
static void
begin_waiting(PpNetwork *network)
{
	while (network->waiting != NULL && network->mails == 0)
	{
		PpTransfer *transfer = network->waiting;

		network->waiting = transfer->next;
		if (!begin(network, transfer))
			finish(network, transfer);
	}
}

/*
 * end_of says in our words how libcurl ended a transfer.
 */
static PpEnd
end_of(CURLcode result)
{
	switch (result)
	{
		case CURLE_OK:
			return PP_END_WELL;
		case CURLE_WRITE_ERROR:
			return PP_END_CUT_SHORT;
		case CURLE_OUT_OF_MEMORY:
			return PP_END_STARVED;
		case CURLE_USE_SSL_FAILED:
		case CURLE_LOGIN_DENIED:
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_CERTPROBLEM:
		case CURLE_SSL_CIPHER:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_COULDNT_RESOLVE_HOST:
		case CURLE_COULDNT_CONNECT:
		case CURLE_WEIRD_SERVER_REPLY:
		case CURLE_REMOTE_ACCESS_DENIED:
		case CURLE_UNSUPPORTED_PROTOCOL:
		case CURLE_URL_MALFORMAT:
			return PP_END_BEFORE;
		default:
			return PP_END_BADLY;
	}
}

/*
 * few_descriptors tells whether this process has hardly a file descriptor left.
 * Then a name that is not resolved, or certificates that are not read, say
 * nothing about the peer.
 */
static bool
few_descriptors(PpNetwork *network)
{
	int			fds[4];
	int			count = 0;
	bool		few;

	while (count < lengthof(fds) && (fds[count] = dup(network->epoll)) >= 0)
		count++;
	few = count < lengthof(fds);
	while (count > 0)
		close(fds[--count]);
	return few;
}

/*
 * judge notes what libcurl knows of a finished transfer and has it judged.
 */
static void
judge(PpNetwork *network, PpTransfer *transfer, CURLcode result)
{
	CURL	   *easy = transfer->handle;
	char	   *ip = NULL;
	long		code = 0;

	if (curl_easy_getinfo(easy, CURLINFO_PRIMARY_IP, &ip) == CURLE_OK && ip != NULL)
		strlcpy(transfer->remote_ip, ip, sizeof(transfer->remote_ip));
	if (!transfer->mail && curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &code) == CURLE_OK)
		transfer->code = (int) code;
	if (end_of(result) == PP_END_BEFORE && !transfer->blocked && few_descriptors(network))
		transfer->starved = true;
	pp_answer_judge(transfer, end_of(result), curl_easy_strerror(result));
}

/*
 * unlink_flying takes a transfer out of the list of those under way.
 */
static void
unlink_flying(PpNetwork *network, PpTransfer *transfer)
{
	for (PpTransfer **link = &network->flying; *link != NULL; link = &(*link)->next)
	{
		if (*link == transfer)
		{
			*link = transfer->next;
			transfer->next = NULL;
			return;
		}
	}
}

/*
 * collect moves what ended in a pool to the finished ones.
 */
static void
collect(PpNetwork *network, Pool *pool)
{
	CURLMsg    *message;
	int			left;

	while ((message = curl_multi_info_read(pool->multi, &left)) != NULL)
	{
		CURL	   *easy = message->easy_handle;
		CURLcode	result = message->data.result;
		PpTransfer *transfer = NULL;

		if (message->msg != CURLMSG_DONE ||
			curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &transfer) != CURLE_OK || transfer == NULL)
			continue;
		judge(network, transfer, result);

		/*
		 * What a mail has left of its connection is no good, and libcurl may
		 * keep it (8.23 does).
		 */
		if (transfer->mail && result != CURLE_OK)
			pool->kind = POOL_RETIRED;
		curl_multi_remove_handle(pool->multi, easy);
		let_go(network, transfer);
		unlink_flying(network, transfer);
		pool->in_flight--;
		network->mails -= transfer->mail ? 1 : 0;
		finish(network, transfer);
	}
	if (pool->kind == POOL_RETIRED && pool->in_flight == 0)
		pp_pool_close(pool);
}

/*
 * pp_network_date reads a date of HTTP, as seconds since 1970; -1 is none.
 */
int64
pp_network_date(const char *text)
{
	return (int64) curl_getdate(text, NULL);
}

/*
 * give_up cuts the connections of mails whose relay fell silent.
 */
static void
give_up(PpNetwork *network)
{
	for (PpTransfer *transfer = network->flying; transfer != NULL; transfer = transfer->next)
	{
		if (transfer->mail && !transfer->cut && pp_request_silent(transfer))
		{
			transfer->cut = true;
			pp_network_cut(transfer);
		}
	}
}

/*
 * pp_network_run does what sockets and timers ask for, without waiting.
 */
void
pp_network_run(PpNetwork *network)
{
	struct epoll_event events[EVENTS];
	sigset_t	saved;
	int			running;
	int			count;

	pp_block_signals(&saved);
	give_up(network);
	count = epoll_wait(network->epoll, events, EVENTS, 0);
	for (int i = 0; i < count; i++)
	{
		Pool	   *pool = &network->pools[events[i].data.u64 >> 32];
		int			what = 0;

		if (pool->kind == POOL_FREE)
			continue;
		if (events[i].events & (EPOLLIN | EPOLLHUP))
			what |= CURL_CSELECT_IN;
		if (events[i].events & EPOLLOUT)
			what |= CURL_CSELECT_OUT;
		if (events[i].events & EPOLLERR)
			what |= CURL_CSELECT_ERR;
		curl_multi_socket_action(pool->multi, (curl_socket_t) (events[i].data.u64 & 0xffffffff),
								 what, &running);
	}
	for (int i = 0; i < POOLS; i++)
	{
		Pool	   *pool = &network->pools[i];

		if (pool->kind == POOL_FREE)
			continue;
		if (pool->deadline >= 0 && pool->deadline <= pp_now_ms())
		{
			long		timeout = -1;

			/*
			 * Asked an instant too early, libcurl does nothing and thinks
			 * that its timer still runs; so ask for it.
			 */
			curl_multi_socket_action(pool->multi, CURL_SOCKET_TIMEOUT, 0, &running);
			curl_multi_timeout(pool->multi, &timeout);
			(void) pp_pool_timer(pool->multi, timeout, pool);
		}
		collect(network, pool);
	}
	begin_waiting(network);
	pp_restore_signals(&saved);
}

/*
 * pp_network_finished returns all transfers that ended since it was last
 * asked, as a list; they are the caller's.
 */
PpTransfer *
pp_network_finished(PpNetwork *network)
{
	PpTransfer *finished = network->finished;

	network->finished = NULL;
	network->finished_tail = &network->finished;
	return finished;
}

/*
 * pp_network_abort breaks off all transfers and returns them.  One whose
 * message may have arrived is ambiguous; of the others nothing is known to
 * have been taken.
 */
PpTransfer *
pp_network_abort(PpNetwork *network)
{
	PpTransfer *all = network->flying;
	sigset_t	saved;

	pp_block_signals(&saved);
	for (int i = 0; i < POOLS; i++)
		if (network->pools[i].kind != POOL_FREE)
			pp_pool_cut_all(&network->pools[i]);
	for (PpTransfer *transfer = all; transfer != NULL; transfer = transfer->next)
	{
		curl_multi_remove_handle(transfer->pool->multi, (CURL *) transfer->handle);
		transfer->pool->in_flight--;
		let_go(network, transfer);
		transfer->outcome = PP_ABORTED;
		strlcpy(transfer->error, "delivery was stopped", sizeof(transfer->error));
	}
	network->flying = NULL;
	network->mails = 0;
	while (network->waiting != NULL)
	{
		PpTransfer *transfer = network->waiting;

		network->waiting = transfer->next;
		transfer->outcome = PP_ABORTED;
		strlcpy(transfer->error, "delivery was stopped", sizeof(transfer->error));
		transfer->next = all;
		all = transfer;
	}
	pp_restore_signals(&saved);
	return all;
}

/*
 * pp_network_timeout is how long pp_network_run() need not be called, in ms,
 * if no socket wakes; -1 is for ever.
 */
long
pp_network_timeout(PpNetwork *network)
{
	int64		least = -1;

	for (int i = 0; i < POOLS; i++)
	{
		Pool	   *pool = &network->pools[i];

		if (pool->kind != POOL_FREE && pool->deadline >= 0 &&
			(least < 0 || pool->deadline < least))
			least = pool->deadline;
	}
	return least < 0 ? -1 : (long) Max(0, least - pp_now_ms());
}

/*
 * pp_network_close breaks everything off and frees the network.
 */
void
pp_network_close(PpNetwork *network)
{
	PpTransfer *lists[2];
	sigset_t	saved;

	lists[0] = pp_network_abort(network);
	lists[1] = pp_network_finished(network);
	for (int i = 0; i < 2; i++)
	{
		while (lists[i] != NULL)
		{
			PpTransfer *next = lists[i]->next;

			pp_transfer_free(lists[i]);
			lists[i] = next;
		}
	}
	pp_block_signals(&saved);
	free_spares(network);
	for (int i = 0; i < POOLS; i++)
		pp_pool_close(&network->pools[i]);
	pp_restore_signals(&saved);
	close(network->epoll);
	free(network->allowed);
	free(network->allowed_list);
	free(network->ca_file);
	explicit_bzero(&network->relay, sizeof(network->relay));
	free(network);
}
