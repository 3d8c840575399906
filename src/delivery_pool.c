/*-------------------------------------------------------------------------
 *
 * delivery_pool.c
 *		Pools of connections: libcurl's sockets, timers and multi handles.
 *
 * A pool is one multi handle with its connections.  A new configuration opens
 * new pools and lets the old ones run dry, so that no mail that demands TLS
 * ever meets a connection that was opened without.  The rules of
 * delivery_curl.c hold here too: no error is raised, nothing is palloc'ed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "delivery_curl.h"
#include "partner_portal.h"

/*
 * pp_now_ms reads a clock that never goes back.
 */
int64
pp_now_ms(void)
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
	if (socket == NULL)
		curl_multi_assign(pool->multi, fd, pool);	/* it is known from now on */
	if (epoll_ctl(pool->network->epoll, socket == NULL ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event) != 0)
		(void) epoll_ctl(pool->network->epoll, errno == EEXIST ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
	return 0;
}

/*
 * pp_pool_timer remembers when libcurl wants to be called.
 */
int
pp_pool_timer(CURLM *multi, long timeout, void *arg)
{
	((Pool *) arg)->deadline = timeout < 0 ? -1 : pp_now_ms() + (timeout > 0 ? timeout + 1 : 0);
	return 0;
}

/*
 * pp_pool_remember_socket keeps a socket in mind until libcurl closes it.
 */
void
pp_pool_remember_socket(Pool *pool, int fd)
{
	for (int i = 0; i < SOCKETS; i++)
	{
		if (pool->sockets[i] < 0)
		{
			pool->sockets[i] = fd;
			return;
		}
	}
}

/*
 * pp_pool_close_socket is told when libcurl closes a socket of mail.
 */
int
pp_pool_close_socket(void *arg, curl_socket_t fd)
{
	Pool	   *pool = arg;

	for (int i = 0; i < SOCKETS; i++)
		if (pool->sockets[i] == fd)
			pool->sockets[i] = -1;
	return close(fd);
}

/*
 * pp_pool_cut_all cuts the connections of a pool, so that closing them does not wait.
 */
void
pp_pool_cut_all(Pool *pool)
{
	for (int i = 0; i < SOCKETS; i++)
		if (pool->sockets[i] >= 0)
			(void) shutdown(pool->sockets[i], SHUT_RDWR);
}

/*
 * pp_network_cut cuts the connection of a mail: that of its pool, since one is
 * under way at a time.
 */
void
pp_network_cut(PpTransfer *transfer)
{
	pp_pool_cut_all(transfer->pool);
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
		memset(pool->sockets, 0xff, sizeof(pool->sockets));
		curl_multi_setopt(pool->multi, CURLMOPT_SOCKETFUNCTION, socket_changed);
		curl_multi_setopt(pool->multi, CURLMOPT_SOCKETDATA, pool);
		curl_multi_setopt(pool->multi, CURLMOPT_TIMERFUNCTION, pp_pool_timer);
		curl_multi_setopt(pool->multi, CURLMOPT_TIMERDATA, pool);
		curl_multi_setopt(pool->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
		curl_multi_setopt(pool->multi, CURLMOPT_MAXCONNECTS, (long) PP_SLOTS);
#if LIBCURL_VERSION_NUM >= 0x081400

		/*
		 * The threads that resolve are now the handle's: its end waits for
		 * none, and each transfer may have one that hangs.
		 */
		curl_multi_setopt(pool->multi, CURLMOPT_QUICK_EXIT, 1L);
		curl_multi_setopt(pool->multi, CURLMOPT_RESOLVE_THREADS_MAX, (long) PP_SLOTS);
#endif
		return pool;
	}
	return NULL;
}

/*
 * pp_pool_close frees a pool and closes its connections.
 */
void
pp_pool_close(Pool *pool)
{
	if (pool->kind == POOL_FREE)
		return;
	pp_pool_cut_all(pool);
	curl_multi_cleanup(pool->multi);
	pool->kind = POOL_FREE;
}

/*
 * pp_pool_find returns the pool in use for a kind, opening it if need be.
 */
Pool *
pp_pool_find(PpNetwork *network, PoolKind kind)
{
	for (int i = 0; i < POOLS; i++)
		if (network->pools[i].kind == kind)
			return &network->pools[i];
	return open_pool(network, kind);
}

/*
 * pp_pool_retire lets the pools of a kind run dry.
 */
void
pp_pool_retire(PpNetwork *network, PoolKind kind)
{
	for (int i = 0; i < POOLS; i++)
	{
		Pool	   *pool = &network->pools[i];

		if (pool->kind != kind)
			continue;
		if (pool->in_flight == 0)
			pp_pool_close(pool);
		else
			pool->kind = POOL_RETIRED;
	}
}

/*
 * pp_block_signals and pp_restore_signals keep our handlers out of libcurl's threads.
 */
void
pp_block_signals(sigset_t *saved)
{
	sigset_t	all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, saved);
}

void
pp_restore_signals(const sigset_t *saved)
{
	pthread_sigmask(SIG_SETMASK, saved, NULL);
}
