/*-------------------------------------------------------------------------
 *
 * delivery_curl.h
 *		libcurl, for the three files that know it: delivery_curl.c runs the
 *		transfers, delivery_request.c describes one, delivery_pool.c has the
 *		connections.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PP_DELIVERY_CURL_H
#define PP_DELIVERY_CURL_H

#include <curl/curl.h>
#include <signal.h>

#include "delivery.h"

#if LIBCURL_VERSION_NUM < 0x075700
#error "partner_portal needs libcurl 7.87 or newer"
#endif

#define POOLS		8
#define EVENTS		64
#define SOCKETS		(2 * PP_SLOTS)
#define GREETING_MS	5000		/* a relay greets by then */

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
	int			sockets[SOCKETS];	/* of mail; -1 is a free place */
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
	CURL	   *spare[PP_SLOTS];	/* easy handles prepared for webhooks */
	int			spare_count;
	PpTransfer *flying;			/* all under way */
	PpTransfer *waiting;		/* mails whose turn has not come */
	int			mails;			/* under way: one at most */
	PpTransfer *finished;
	PpTransfer **finished_tail;
};

/* in delivery_pool.c */
extern int64 pp_now_ms(void);
extern int	pp_pool_timer(CURLM *multi, long timeout, void *arg);
extern void pp_pool_remember_socket(Pool *pool, int fd);
extern int	pp_pool_close_socket(void *arg, curl_socket_t fd);
extern void pp_pool_cut_all(Pool *pool);
extern void pp_pool_close(Pool *pool);
extern Pool *pp_pool_find(PpNetwork *network, PoolKind kind);
extern void pp_pool_retire(PpNetwork *network, PoolKind kind);
extern void pp_block_signals(sigset_t *saved);
extern void pp_restore_signals(const sigset_t *saved);

/* in delivery_request.c */
extern CURL *pp_request_handle(const PpNetwork *network, bool mail);
extern bool pp_request_prepare(CURL *easy, PpTransfer *transfer);
extern void pp_request_let_go(CURL *easy, PpTransfer *transfer);
extern bool pp_request_silent(const PpTransfer *transfer);

#endif							/* PP_DELIVERY_CURL_H */
