/*-------------------------------------------------------------------------
 *
 * delivery_request.c
 *		What libcurl is told for one transfer, and asks us while it runs: to
 *		which address it may connect, and whether to go on.
 *
 * The rules of delivery_curl.c hold here too: no error is raised, nothing is
 * palloc'ed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <errno.h>
#include <sys/socket.h>

#include "miscadmin.h"
#include "postmaster/interrupt.h"

#include "delivery_curl.h"
#include "partner_portal.h"

/*
 * open_socket is the guard: it sees the address that is about to be connected.
 */
static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	PpTransfer *transfer = arg;
	const PpNetwork *network = transfer->pool->network;
	bool		listed;
	int			fd;

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
	if (fd < 0)
		return CURL_SOCKET_BAD;
	transfer->opened = true;
	if (transfer->mail)
		pp_pool_remember_socket(transfer->pool, fd);
	return fd;
}

/*
 * set_webhook sets what a webhook needs of its own.
 */
static bool
set_webhook(CURL *easy, PpTransfer *transfer)
{
	int			count = 0;
	struct curl_slist *headers;

	while (count < lengthof(transfer->headers) && transfer->headers[count] != NULL)
		count++;
	transfer->list = headers = calloc(count + 1, sizeof(*headers));
	if (headers == NULL)
		return false;
	for (int i = 0; i < count; i++)
	{
		headers[i].data = transfer->headers[i];
		headers[i].next = i + 1 < count ? &headers[i + 1] : NULL;
	}
	transfer->in_clear = pg_strncasecmp(transfer->url, "http:", 5) == 0;

	return curl_easy_setopt(easy, CURLOPT_HTTPHEADER, count > 0 ? headers : NULL) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) transfer->body_length) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, transfer->body) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long) pp_delivery_timeout) == CURLE_OK;
}

/*
 * pp_request_silent tells whether a mail took too long, or was not even greeted in time.
 */
bool
pp_request_silent(const PpTransfer *transfer)
{
	int64		now = pp_now_ms();
	long		patience = (long) pp_delivery_timeout * PP_MAIL_PATIENCE;

	return now >= transfer->give_up ||
		(transfer->opened && transfer->replies == 0 &&
		 now >= transfer->give_up - patience + Min(patience, GREETING_MS));
}

/*
 * in_progress is called once a second while libcurl blocks.  It cuts the
 * connection when the relay fell silent, or when we are asked to stop.
 */
static int
in_progress(void *arg, curl_off_t total_down, curl_off_t down, curl_off_t total_up, curl_off_t up)
{
	PpTransfer *transfer = arg;

	if (!transfer->cut && (pp_request_silent(transfer) || InterruptPending || ShutdownRequestPending))
	{
		transfer->cut = true;
		pp_network_cut(transfer);
	}
	return 0;
}

/*
 * set_mail sets what a mail needs.  A password is never sent in clear.
 */
static bool
set_mail(CURL *easy, PpTransfer *transfer)
{
	const PpRelay *relay = &transfer->pool->network->relay;
	long		patience = (long) pp_delivery_timeout * PP_MAIL_PATIENCE;
	struct curl_slist *recipients = curl_slist_append(NULL, transfer->recipient);
	bool		implicit_tls = strncmp(relay->url, "smtps:", 6) == 0;

	if (recipients == NULL)
		return false;
	transfer->list = recipients;
	transfer->give_up = pp_now_ms() + patience;
	transfer->in_clear = !implicit_tls && relay->in_clear && relay->user[0] == '\0';

	return curl_easy_setopt(easy, CURLOPT_USE_SSL,
							(long) (transfer->in_clear ? CURLUSESSL_NONE : CURLUSESSL_ALL)) == CURLE_OK &&
		(relay->user[0] == '\0' ||
		 (curl_easy_setopt(easy, CURLOPT_USERNAME, relay->user) == CURLE_OK &&
		  curl_easy_setopt(easy, CURLOPT_PASSWORD, relay->password) == CURLE_OK)) &&
		curl_easy_setopt(easy, CURLOPT_MAIL_FROM, transfer->sender) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_MAIL_RCPT, recipients) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_READFUNCTION, pp_answer_wants) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_READDATA, transfer) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t) transfer->body_length) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, pp_pool_close_socket) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, transfer->pool) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, in_progress) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_XFERINFODATA, transfer) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, 2L * GREETING_MS) == CURLE_OK;
}

/*
 * set_always sets what is the same for all transfers of a kind.  No signal, no
 * wait for a resolver's thread, no proxy from the environment, TLS always
 * verified, no redirects.
 */
static bool
set_always(CURL *easy, const char *ca_file, bool mail)
{
	return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, mail ? "smtp,smtps" : "http,https") == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_PROXY, "") == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2) == CURLE_OK &&
		(ca_file[0] == '\0' || curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file) == CURLE_OK) &&
		curl_easy_setopt(easy, CURLOPT_MAXLIFETIME_CONN, 300L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, pp_answer_body) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, pp_answer_header) == CURLE_OK &&
		(mail ||
		 (curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1) == CURLE_OK &&
		  curl_easy_setopt(easy, CURLOPT_POST, 1L) == CURLE_OK &&
		  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK));
}

/*
 * pp_request_handle makes a handle for one kind of transfer; NULL without
 * memory.
 */
CURL *
pp_request_handle(const PpNetwork *network, bool mail)
{
	CURL	   *easy = curl_easy_init();

	if (easy != NULL && !set_always(easy, network->ca_file, mail))
	{
		curl_easy_cleanup(easy);
		easy = NULL;
	}
	return easy;
}

/*
 * pp_request_prepare tells libcurl all about a transfer; false if it will not
 * have it.
 */
bool
pp_request_prepare(CURL *easy, PpTransfer *transfer)
{
	return curl_easy_setopt(easy, CURLOPT_URL, transfer->url) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, transfer) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->curl_error) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long) Min(pp_delivery_timeout, 5000)) == CURLE_OK &&
		(transfer->mail ? set_mail(easy, transfer) : set_webhook(easy, transfer));
}

/*
 * pp_request_let_go has libcurl forget a transfer, which may be freed then.
 */
void
pp_request_let_go(CURL *easy, PpTransfer *transfer)
{
	curl_easy_setopt(easy, CURLOPT_PRIVATE, NULL);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, NULL);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, NULL);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, NULL);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, NULL);
	if (transfer->mail)
		curl_slist_free_all(transfer->list);
	else
	{
		curl_easy_setopt(easy, CURLOPT_HTTPHEADER, NULL);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, NULL);
		free(transfer->list);	/* one piece; the strings are the transfer's */
	}
	transfer->list = NULL;
	transfer->handle = NULL;
	transfer->pool = NULL;
}
