/*-------------------------------------------------------------------------
 *
 * delivery_curl.c
 *		The network: HTTP and SMTP transfers by libcurl, many at once.
 *
 * The only file that knows libcurl.  Its sockets live in a private epoll set,
 * whose descriptor is one readable event of the engine's wait set; so there is
 * one place to wait, and latch, interrupts and postmaster death are heard there.
 *
 * A pool is one multi handle with its connections.  A new configuration opens
 * new pools and lets the old ones run dry, so that no mail that demands TLS
 * ever meets a connection that was opened without.
 *
 * Nothing in this file allocates from a memory context or raises an error: a
 * longjmp through libcurl would leave it unusable.  Signals are blocked while
 * libcurl runs, since the threads of its resolver inherit the mask.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "delivery.h"
#include "partner_portal.h"

#if LIBCURL_VERSION_NUM < 0x075700
#error "partner_portal needs libcurl 7.87 or newer"
#endif

#define POOLS		8
#define EVENTS		64

typedef enum PoolKind
{
	POOL_FREE,
	POOL_WEBHOOK,
	POOL_MAIL,
	POOL_RETIRED
} PoolKind;

typedef struct Pool
{
	PoolKind	kind;
	CURLM	   *multi;
	int64		deadline;		/* of libcurl's timer, in ms; -1 is none */
	int			in_flight;
	int			index;
	struct PpNetwork *network;
} Pool;

struct PpNetwork
{
	int			epoll;
	Pool		pools[POOLS];
	PpRelay		relay;
	char	   *ca_file;
	char	   *allowed_list;
	PpAllowed  *allowed;
	int			allowed_count;
	PpTransfer *flying;			/* doubly used: list of all under way */
	PpTransfer *finished;
	PpTransfer **finished_tail;
};

static bool curl_ready = false;

/*
 * now_ms reads a clock that never goes back.
 */
static int64
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * socket_changed keeps the epoll set in step with libcurl's sockets.
 */
static int
socket_changed(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket)
{
	Pool	   *pool = arg;
	struct epoll_event event;

	memset(&event, 0, sizeof(event));
	event.data.u64 = ((uint64) pool->index << 32) | (uint32) fd;
	if (what == CURL_POLL_REMOVE)
	{
		(void) epoll_ctl(pool->network->epoll, EPOLL_CTL_DEL, fd, &event);
		return 0;
	}
	if (what & CURL_POLL_IN)
		event.events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		event.events |= EPOLLOUT;
	if (epoll_ctl(pool->network->epoll, EPOLL_CTL_MOD, fd, &event) != 0 &&
		errno == ENOENT)
		(void) epoll_ctl(pool->network->epoll, EPOLL_CTL_ADD, fd, &event);
	return 0;
}

/*
 * timer_changed remembers when libcurl wants to be called.
 */
static int
timer_changed(CURLM *multi, long timeout, void *arg)
{
	((Pool *) arg)->deadline = timeout < 0 ? -1 : now_ms() + timeout;
	return 0;
}

/*
 * open_socket is the guard: it sees the address that is about to be connected.
 */
static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	PpTransfer *transfer = arg;
	Pool	   *pool = NULL;
	PpNetwork  *network;
	bool		listed;
	int			fd;

	curl_easy_getinfo((CURL *) transfer->handle, CURLINFO_PRIVATE, (char **) &pool);
	network = pool->network;
	listed = pp_address_listed(&address->addr, network->allowed, network->allowed_count);
	if (!listed && (transfer->in_clear ||
					(!transfer->mail && !pp_address_public(&address->addr))))
	{
		transfer->blocked = true;
		return CURL_SOCKET_BAD;
	}
	fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
		transfer->starved = true;
	return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/*
 * take_answer counts an answer's body, which nobody reads, up to its cap.
 */
static size_t
take_answer(char *data, size_t size, size_t count, void *arg)
{
	PpTransfer *transfer = arg;

	transfer->received += size * count;
	return transfer->received > PP_ANSWER_MAX ? 0 : size * count;
}

/*
 * take_header reads SMTP replies and the few headers that matter, up to the cap.
 */
static size_t
take_header(char *data, size_t size, size_t count, void *arg)
{
	PpTransfer *transfer = arg;
	size_t		length = size * count;
	static const char retry_after[] = "retry-after:";

	transfer->received += length;
	if (transfer->received > PP_ANSWER_MAX)
		return 0;
	if (transfer->mail)
	{
		if (length >= 3 && data[0] >= '2' && data[0] <= '5')
		{
			transfer->last_reply = (data[0] - '0') * 100 + (data[1] - '0') * 10 + (data[2] - '0');
			if (transfer->last_reply == 354)
				transfer->data_begun = true;
		}
	}
	else if (length > sizeof(retry_after) &&
			 pg_strncasecmp(data, retry_after, sizeof(retry_after) - 1) == 0)
	{
		char		value[64];
		size_t		skip = sizeof(retry_after) - 1;
		size_t		take;
		time_t		when;

		while (skip < length && data[skip] == ' ')
			skip++;
		take = Min(length - skip, sizeof(value) - 1);
		memcpy(value, data + skip, take);
		value[take] = '\0';
		if (value[0] >= '0' && value[0] <= '9')
			transfer->retry_after = (int) Min(strtol(value, NULL, 10), 86400);
		else if ((when = curl_getdate(value, NULL)) > 0 && when > time(NULL))
			transfer->retry_after = (int) Min(when - time(NULL), 86400);
	}
	return length;
}

/*
 * give_body hands a mail to libcurl.
 */
static size_t
give_body(char *into, size_t size, size_t count, void *arg)
{
	PpTransfer *transfer = arg;
	size_t		take = Min(size * count, transfer->body_length - transfer->sent);

	memcpy(into, transfer->body + transfer->sent, take);
	transfer->sent += take;
	return take;
}

/*
 * open_pool makes a multi handle of a kind; NULL without memory or room.
 */
static Pool *
open_pool(PpNetwork *network, PoolKind kind)
{
	for (int i = 0; i < POOLS; i++)
	{
		Pool	   *pool = &network->pools[i];

		if (pool->kind != POOL_FREE)
			continue;
		pool->multi = curl_multi_init();
		if (pool->multi == NULL)
			return NULL;
		pool->kind = kind;
		pool->deadline = -1;
		pool->in_flight = 0;
		pool->index = i;
		pool->network = network;
		curl_multi_setopt(pool->multi, CURLMOPT_SOCKETFUNCTION, socket_changed);
		curl_multi_setopt(pool->multi, CURLMOPT_SOCKETDATA, pool);
		curl_multi_setopt(pool->multi, CURLMOPT_TIMERFUNCTION, timer_changed);
		curl_multi_setopt(pool->multi, CURLMOPT_TIMERDATA, pool);
		curl_multi_setopt(pool->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
		curl_multi_setopt(pool->multi, CURLMOPT_MAXCONNECTS, (long) PP_SLOTS);
		return pool;
	}
	return NULL;
}

/*
 * close_pool frees a pool and closes its connections.
 */
static void
close_pool(Pool *pool)
{
	if (pool->kind == POOL_FREE)
		return;
	curl_multi_cleanup(pool->multi);
	pool->kind = POOL_FREE;
}

/*
 * find_pool returns the pool in use for a kind, opening it if need be.
 */
static Pool *
find_pool(PpNetwork *network, PoolKind kind)
{
	for (int i = 0; i < POOLS; i++)
		if (network->pools[i].kind == kind)
			return &network->pools[i];
	return open_pool(network, kind);
}

/*
 * retire lets the pools of a kind run dry.
 */
static void
retire(PpNetwork *network, PoolKind kind)
{
	for (int i = 0; i < POOLS; i++)
	{
		Pool	   *pool = &network->pools[i];

		if (pool->kind != kind)
			continue;
		if (pool->in_flight == 0)
			close_pool(pool);
		else
			pool->kind = POOL_RETIRED;
	}
}

/*
 * block_signals and restore_signals keep our handlers out of libcurl's threads.
 */
static void
block_signals(sigset_t *saved)
{
	sigset_t	all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, saved);
}

static void
restore_signals(const sigset_t *saved)
{
	pthread_sigmask(SIG_SETMASK, saved, NULL);
}

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
	block_signals(&saved);
	if (anew)
		retire(network, POOL_WEBHOOK);
	if (anew || memcmp(&network->relay, relay, sizeof(PpRelay)) != 0)
		retire(network, POOL_MAIL);
	restore_signals(&saved);
	network->relay = *relay;
	return true;
}

/*
 * set_webhook sets what a webhook needs.
 */
static bool
set_webhook(CURL *easy, PpTransfer *transfer)
{
	struct curl_slist *headers = NULL;

	for (int i = 0; i < lengthof(transfer->headers) && transfer->headers[i] != NULL; i++)
	{
		struct curl_slist *longer = curl_slist_append(headers, transfer->headers[i]);

		if (longer == NULL)
		{
			curl_slist_free_all(headers);
			return false;
		}
		headers = longer;
	}
	transfer->lists[0] = headers;
	transfer->in_clear = pg_strncasecmp(transfer->url, "http:", 5) == 0;

	return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_POST, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) transfer->body_length) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, transfer->body) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long) PP_HTTP_TIMEOUT) == CURLE_OK;
}

/*
 * set_mail sets what a mail needs.  A password is never sent in clear.
 */
static bool
set_mail(CURL *easy, PpTransfer *transfer, const PpRelay *relay)
{
	struct curl_slist *recipients = curl_slist_append(NULL, transfer->recipient);
	bool		implicit_tls = strncmp(relay->url, "smtps:", 6) == 0;

	if (recipients == NULL)
		return false;
	transfer->lists[0] = recipients;
	transfer->in_clear = !implicit_tls && relay->in_clear && relay->user[0] == '\0';

	return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "smtp,smtps") == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_USE_SSL,
						 (long) (transfer->in_clear ? CURLUSESSL_NONE : CURLUSESSL_ALL)) == CURLE_OK &&
		(relay->user[0] == '\0' ||
		 (curl_easy_setopt(easy, CURLOPT_USERNAME, relay->user) == CURLE_OK &&
		  curl_easy_setopt(easy, CURLOPT_PASSWORD, relay->password) == CURLE_OK)) &&
		curl_easy_setopt(easy, CURLOPT_MAIL_FROM, transfer->sender) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_MAIL_RCPT, recipients) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_READFUNCTION, give_body) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_READDATA, transfer) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t) transfer->body_length) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long) PP_SMTP_TIMEOUT) == CURLE_OK;
}

/*
 * set_common sets what both need.  No signal, no wait for a resolver's thread,
 * no proxy from the environment, TLS always verified.
 */
static bool
set_common(CURL *easy, PpTransfer *transfer, Pool *pool, const char *ca_file)
{
	return curl_easy_setopt(easy, CURLOPT_URL, transfer->url) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_PRIVATE, pool) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_PROXY, "") == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2) == CURLE_OK &&
		(ca_file[0] == '\0' || curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file) == CURLE_OK) &&
		curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long) PP_CONNECT_TIMEOUT) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_MAXLIFETIME_CONN, 300L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, transfer) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_answer) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->curl_error) == CURLE_OK;
}

/*
 * let_go frees libcurl's part of a transfer.
 */
static void
let_go(PpTransfer *transfer)
{
	if (transfer->handle != NULL)
		curl_easy_cleanup((CURL *) transfer->handle);
	curl_slist_free_all((struct curl_slist *) transfer->lists[0]);
	transfer->handle = NULL;
	transfer->lists[0] = NULL;
}

/*
 * pp_network_add begins a transfer.  False if it cannot be begun; then its
 * outcome and error say why, and it is the caller's again.
 */
bool
pp_network_add(PpNetwork *network, PpTransfer *transfer)
{
	Pool	   *pool;
	CURL	   *easy = NULL;
	sigset_t	saved;
	bool		ok;

	block_signals(&saved);
	pool = find_pool(network, transfer->mail ? POOL_MAIL : POOL_WEBHOOK);
	if (pool != NULL)
		easy = curl_easy_init();
	if (easy == NULL)
	{
		restore_signals(&saved);
		transfer->outcome = PP_ABORTED;
		strlcpy(transfer->error, "out of memory", sizeof(transfer->error));
		return false;
	}
	transfer->handle = easy;
	transfer->pool = pool->index;
	ok = set_common(easy, transfer, pool, network->ca_file) &&
		(transfer->mail ? set_mail(easy, transfer, &network->relay) : set_webhook(easy, transfer));
	if (ok)
		ok = curl_multi_add_handle(pool->multi, easy) == CURLM_OK;
	if (ok)
	{
		pool->in_flight++;
		transfer->next = network->flying;
		network->flying = transfer;
	}
	else
	{
		let_go(transfer);
		transfer->outcome = PP_REFUSED;
		strlcpy(transfer->error, "the message cannot be handed to libcurl", sizeof(transfer->error));
	}
	restore_signals(&saved);
	return ok;
}

/*
 * judge_webhook decides what the end of an HTTP transfer means.
 */
static void
judge_webhook(PpTransfer *transfer, CURLcode result)
{
	if (transfer->code >= 200 && transfer->code < 300 &&
		(result == CURLE_OK || result == CURLE_WRITE_ERROR))
		transfer->outcome = PP_DELIVERED;
	else if (transfer->code == 410)
		transfer->outcome = PP_GONE;
	else
		transfer->outcome = PP_RETRY;

	if (transfer->outcome != PP_DELIVERED)
	{
		if (result == CURLE_OK)
			snprintf(transfer->error, sizeof(transfer->error), "HTTP status %d%s", transfer->code,
					 transfer->code >= 300 && transfer->code < 400 ? ", redirects are not followed" : "");
		else
			strlcpy(transfer->error, curl_easy_strerror(result), sizeof(transfer->error));
	}
}

/*
 * judge_mail decides what the end of an SMTP transfer means.  Nearly every
 * failure is the same code of libcurl; the phase and the last reply tell them
 * apart.
 */
static void
judge_mail(PpTransfer *transfer, CURLcode result)
{
	int			class = transfer->last_reply / 100;
	bool		of_sender = strncmp(transfer->curl_error, "MAIL failed", 11) == 0;

	transfer->code = transfer->last_reply;
	if (result == CURLE_OK)
	{
		transfer->outcome = PP_DELIVERED;
		return;
	}
	switch (result)
	{
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
			transfer->outcome = PP_CONFIGURATION;
			break;
		default:
			if (transfer->last_reply == 354)
				transfer->outcome = PP_AMBIGUOUS;
			else if (class == 5 && of_sender && transfer->last_reply != 552)
				transfer->outcome = PP_CONFIGURATION;
			else if (class == 5)
				transfer->outcome = PP_REFUSED;
			else if (transfer->last_reply == 0)
				transfer->outcome = PP_CONFIGURATION;	/* never greeted */
			else
				transfer->outcome = PP_RETRY;
	}
	if (class == 4 || class == 5)
		snprintf(transfer->error, sizeof(transfer->error), "SMTP reply %d%s", transfer->last_reply,
				 of_sender ? " to MAIL" : transfer->data_begun ? " to DATA" : "");
	else
		strlcpy(transfer->error, curl_easy_strerror(result), sizeof(transfer->error));
}

/*
 * judge fills in how a transfer ended.
 */
static void
judge(PpTransfer *transfer, CURLcode result)
{
	CURL	   *easy = transfer->handle;
	char	   *ip = NULL;
	long		code = 0;

	if (curl_easy_getinfo(easy, CURLINFO_PRIMARY_IP, &ip) == CURLE_OK && ip != NULL)
		strlcpy(transfer->remote_ip, ip, sizeof(transfer->remote_ip));
	if (!transfer->mail && curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &code) == CURLE_OK)
		transfer->code = (int) code;

	if (result != CURLE_OK && (transfer->starved || result == CURLE_OUT_OF_MEMORY))
	{
		transfer->outcome = PP_ABORTED;
		strlcpy(transfer->error, "no file descriptor or memory for a connection", sizeof(transfer->error));
	}
	else if (result != CURLE_OK && transfer->blocked)
	{
		transfer->outcome = transfer->mail ? PP_CONFIGURATION : PP_RETRY;
		snprintf(transfer->error, sizeof(transfer->error), "the address is not allowed%s",
				 transfer->in_clear ? " in clear" : "");
	}
	else if (transfer->mail)
		judge_mail(transfer, result);
	else
		judge_webhook(transfer, result);
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
 * find_flying returns the transfer of an easy handle.
 */
static PpTransfer *
find_flying(PpNetwork *network, CURL *easy)
{
	for (PpTransfer *transfer = network->flying; transfer != NULL; transfer = transfer->next)
		if (transfer->handle == easy)
			return transfer;
	return NULL;
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
		PpTransfer *transfer;

		if (message->msg != CURLMSG_DONE)
			continue;
		transfer = find_flying(network, easy);
		if (transfer == NULL)
			continue;
		judge(transfer, result);
		curl_multi_remove_handle(pool->multi, easy);
		let_go(transfer);
		unlink_flying(network, transfer);
		pool->in_flight--;
		*network->finished_tail = transfer;
		network->finished_tail = &transfer->next;
	}
	if (pool->kind == POOL_RETIRED && pool->in_flight == 0)
		close_pool(pool);
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

	block_signals(&saved);
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
		if (pool->deadline >= 0 && pool->deadline <= now_ms())
		{
			pool->deadline = -1;
			curl_multi_socket_action(pool->multi, CURL_SOCKET_TIMEOUT, 0, &running);
		}
		collect(network, pool);
	}
	restore_signals(&saved);
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

	block_signals(&saved);
	for (PpTransfer *transfer = all; transfer != NULL; transfer = transfer->next)
	{
		Pool	   *pool = &network->pools[transfer->pool];

		curl_multi_remove_handle(pool->multi, (CURL *) transfer->handle);
		let_go(transfer);
		pool->in_flight--;
		transfer->outcome = PP_ABORTED;
		strlcpy(transfer->error, "delivery was stopped", sizeof(transfer->error));
	}
	network->flying = NULL;
	restore_signals(&saved);
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
	return least < 0 ? -1 : (long) Max(0, least - now_ms());
}

/*
 * pp_network_in_flight counts the transfers under way.
 */
int
pp_network_in_flight(PpNetwork *network)
{
	int			count = 0;

	for (int i = 0; i < POOLS; i++)
		if (network->pools[i].kind != POOL_FREE)
			count += network->pools[i].in_flight;
	return count;
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
	block_signals(&saved);
	for (int i = 0; i < POOLS; i++)
		close_pool(&network->pools[i]);
	restore_signals(&saved);
	close(network->epoll);
	free(network->allowed);
	free(network->allowed_list);
	free(network->ca_file);
	explicit_bzero(&network->relay, sizeof(network->relay));
	free(network);
}
