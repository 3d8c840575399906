/*-------------------------------------------------------------------------
 *
 * delivery_engine.c
 *		The loop that delivers: claim, send, record.
 *
 * A turn is one short transaction that records what has ended and claims what
 * is due; between turns the network works and no transaction has a snapshot,
 * a lock or an id.  The window rolls: slots are refilled as they fall free, so
 * a slow peer holds up nobody but itself.  Mail and webhooks have engines of
 * their own, since libcurl blocks while a relay ponders; see delivery_curl.c.
 *
 * The worker and CALL deliver_notifications() run the same loop.  An engine is
 * known by a number, which stands in its leases and is locked (an advisory
 * lock of the session) for as long as it runs; so another engine can tell at
 * once which leases nobody holds any more.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "delivery.h"
#include "partner_portal.h"

#define NAP_MS			1000	/* between looks at the queue */
#define BATCH_MS		10		/* results wait so long for company */
#define GRACE_MS		1000	/* for transfers under way at shutdown */
#define LOOK_MS			20		/* between looks at all destinations, and */
#define LOOK_SHARE		20		/* so many times as long as one takes, or */
#define BUSY_SHARE		100		/* so many times while messages are under way, */
#define BUSY_LOOK_MS	2000	/* if that is not longer than this */

typedef struct Engine
{
	bool		worker;
	PpChannel	channel;
	int			token;			/* 0 until numbered */
	PpNetwork  *network;
	WaitEventSet *events;
	PpRelay		relay;
	PpTransfer *ended;			/* to be recorded */
	int			ended_count;
	TimestampTz ended_at;		/* when the first of them ended */
	PpAside		aside;			/* could not be recorded */
	PpTransfer *claimed;		/* to be sent once their lease is committed */
	int64		slots[PP_SLOTS];	/* destinations under way */
	int			slot_count;
	PpRound		round;
	int64		left;			/* of max_rows */
	bool		configured;		/* with the settings as they are now */
	bool		exhausted;		/* the last turn found nothing anywhere */
	bool		woken;			/* there may be more since the last look */
	bool		stopping;
	TimestampTz next_claim;
	int64		turn_time;		/* of the last turn, in microseconds */
	TimestampTz rest_until;		/* no turn before, after one that failed */
	int			problems;		/* turns that failed in a row */
} Engine;

/* A session that calls again goes on with the round of its last call, if that ended well. */
static PpRound rounds[PP_CHANNELS];

PG_FUNCTION_INFO_V1(partner_portal_deliver_notifications);

/*
 * free_list frees transfers that are not under way.
 */
static void
free_list(PpTransfer **list)
{
	while (*list != NULL)
	{
		PpTransfer *next = (*list)->next;

		pp_transfer_free(*list);
		*list = next;
	}
}

/*
 * configure takes the settings as they are now.
 */
static void
configure(Engine *engine)
{
	if (engine->configured)
		return;
	pp_relay_read(&engine->relay);
	if (!pp_network_configure(engine->network, &engine->relay, pp_ca_file, pp_allow_cidr))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not configure the network")));
	engine->configured = true;
}

/*
 * start numbers the engine and locks the number.  Raises the reason why this
 * database must not send.
 */
static bool
start(Engine *engine)
{
	PpSection	section;
	char	   *problem;

	if (!pp_section_enter(engine->worker, &section))
		return false;
	problem = pp_queue_problem();
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_PP_WRONG_STATE),
				 errmsg("this database sends no notifications"),
				 errdetail("%s", problem),
				 errhint("If it is to send from now on, call partner_portal.adopt_deliveries().")));
	engine->token = pp_queue_token();
	pp_lock_engine(engine->token);
	pp_section_leave(engine->worker, &section);
	return true;
}

/*
 * forget_slot says that one transfer to a destination is over.
 */
static void
forget_slot(Engine *engine, int64 destination)
{
	for (int i = 0; i < engine->slot_count; i++)
	{
		if (engine->slots[i] == destination)
		{
			engine->slots[i] = engine->slots[--engine->slot_count];
			return;
		}
	}
}

/*
 * end_transfer puts one among those to be recorded.
 */
static void
end_transfer(Engine *engine, PpTransfer *transfer)
{
	transfer->next = engine->ended;
	engine->ended = transfer;
	if (engine->ended_count++ == 0)
		engine->ended_at = GetCurrentTimestamp();
}

/*
 * collect takes what has ended from the network.
 */
static void
collect(Engine *engine, PpTransfer *list)
{
	while (list != NULL)
	{
		PpTransfer *next = list->next;

		forget_slot(engine, list->destination);
		end_transfer(engine, list);
		list = next;
	}
}

/*
 * next_look is when the next look may be.  A look passes over what was delivered
 * and is not vacuumed yet; so while messages are under way it takes a hundredth
 * of the time, unless others that come late would wait for seconds.
 */
static TimestampTz
next_look(Engine *engine)
{
	return engine->slot_count > 0 || engine->ended_count > 0 ? engine->round.next_busy_look : engine->round.next_look;
}

/*
 * look goes over the destinations again, if it is time: what was due at the last
 * look is claimed without reading what lies before it, so that a claim costs the
 * same however much was delivered; messages that came late and leases that were
 * freed are found here, and what engines that are no more had claimed is freed.
 * Tells whether it was time.
 */
static bool
look(Engine *engine)
{
	PpRound    *round = &engine->round;
	int64		cursor = round->cursor;
	TimestampTz start = GetCurrentTimestamp();
	TimestampTz end;

	if (start < next_look(engine))
		return false;
	if (pp_queue_look(round, engine->token))
	{
		pp_queue_release_stale(engine->token);
		round->cursor = cursor;
		(void) pp_queue_look(round, engine->token);
	}
	end = GetCurrentTimestamp();
	engine->woken = false;
	round->next_look = round->next_busy_look = end;
	if (round->count > 0 || round->around)
	{
		round->next_look = TimestampTzPlusMilliseconds(end, LOOK_MS) + (end - start) * LOOK_SHARE;
		round->next_busy_look = Max(round->next_look,
									Min(TimestampTzPlusMilliseconds(end, BUSY_LOOK_MS), end + (end - start) * BUSY_SHARE));
	}
	return true;
}

/*
 * claim fills the free slots, taking up the round of destinations where it
 * stopped.
 */
static void
claim(Engine *engine)
{
	int			room = (int) Min(PP_SLOTS - engine->slot_count - engine->aside.count, engine->left);
	int			claimed = 0;
	bool		looked;

	engine->exhausted = engine->channel == PP_MAIL && engine->relay.url[0] == '\0';
	if (engine->exhausted)
	{
		if (!engine->worker && (pp_smtp_url == NULL || pp_smtp_url[0] == '\0') && look(engine) && engine->round.count > 0)
			ereport(WARNING,
					(errcode(ERRCODE_PP_WRONG_STATE),
					 errmsg("mail waits: partner_portal.smtp_url is not set")));
		return;
	}
	looked = look(engine);
	if (room > 0)
		claimed = pp_queue_claim(&engine->round, engine->token, room, engine->slots, engine->slot_count,
								 &engine->relay, &engine->claimed);
	if (!engine->worker && !looked && room > 0 && claimed == 0 && engine->slot_count == 0)
		engine->round.next_look = 0;	/* nothing is under way that a look
										 * could hold up */
	engine->exhausted = looked && engine->round.around && claimed == 0;
}

/*
 * send_claimed hands what was claimed to the network.
 */
static void
send_claimed(Engine *engine)
{
	PpTransfer *list = engine->claimed;

	for (PpTransfer *transfer = list; transfer != NULL; transfer = transfer->next)
		engine->left--;
	engine->claimed = NULL;
	list = pp_network_add(engine->network, list, engine->slots, &engine->slot_count);
	while (list != NULL)
	{
		PpTransfer *next = list->next;

		end_transfer(engine, list);
		list = next;
	}
}

/*
 * record records what has ended, and tries again what could not be recorded, if
 * it is time.  A worker comes here again after an error, and then sees to it
 * that a message whose record fails holds up no other; a procedure ends with it.
 */
static void
record(Engine *engine, TimestampTz now)
{
	if (engine->aside.list != NULL && (now >= engine->aside.until || engine->stopping))
		pp_queue_record_apart(engine->token, engine->aside.list);
	if (engine->ended == NULL)
		return;
	if (engine->worker && engine->problems == 0)
		pp_queue_record(engine->token, engine->ended);
	else
		pp_queue_record_apart(engine->token, engine->ended);
}

/*
 * turn records what has ended and claims what is due, in one transaction.
 * False if the extension is gone.
 */
static bool
turn(Engine *engine)
{
	PpSection	section;
	TimestampTz now = GetCurrentTimestamp();

	if (engine->token == 0 && !start(engine))
		return false;
	if (!pp_section_enter(engine->worker, &section))
		return false;
	if (engine->stopping)
		pp_pin_setting("lock_timeout", "1s");	/* who stops an engine waits
												 * for it */
	configure(engine);
	record(engine, now);
	if (!engine->stopping)
		claim(engine);
	pp_section_leave(engine->worker, &section);

	pp_aside_keep(&engine->aside, &engine->ended, now);
	engine->ended_count = 0;
	engine->next_claim = TimestampTzPlusMilliseconds(now, NAP_MS);
	send_claimed(engine);
	engine->turn_time = GetCurrentTimestamp() - now;
	return true;
}

/*
 * next_turn is when free slots ask for a turn.  A procedure that has nothing
 * under way looks as soon as it may, to know whether it is done.
 */
static TimestampTz
next_turn(Engine *engine)
{
	bool		at_next_look = engine->woken || !engine->round.around || (!engine->worker && engine->slot_count == 0);

	return at_next_look ? Min(next_look(engine), engine->next_claim) : engine->next_claim;
}

/*
 * patience is how long results wait for company, in microseconds.  When at least
 * half of what was under way has ended, it is worth waiting for the rest as long
 * as a turn takes, most of which is the flush of its commit.
 */
static int64
patience(Engine *engine)
{
	int64		most = BATCH_MS * INT64CONST(1000);

	return engine->ended_count >= engine->slot_count ? Min(most, engine->turn_time) : most;
}

/*
 * turn_is_due tells whether results or free slots ask for a turn.
 */
static bool
turn_is_due(Engine *engine)
{
	TimestampTz now = GetCurrentTimestamp();
	int			flying = engine->slot_count;

	if (now < engine->rest_until)
		return false;
	if (engine->ended_count > 0)
		return flying == 0 || now - engine->ended_at >= patience(engine);
	if (engine->stopping || flying >= PP_SLOTS || engine->left <= 0)
		return false;
	return now >= next_turn(engine);
}

/*
 * wait_for_something waits for a socket, a timer, the latch or a turn to be due;
 * if one is due, it only listens.
 */
static void
wait_for_something(Engine *engine, bool due)
{
	WaitEvent	events[4];
	long		timeout = NAP_MS;
	long		network = pp_network_timeout(engine->network);
	TimestampTz now = GetCurrentTimestamp();
	int			count;

	if (due)
		timeout = 0;
	else if (now < engine->rest_until)
		timeout = TimestampDifferenceMilliseconds(now, engine->rest_until);
	else if (engine->ended_count > 0)
		timeout = TimestampDifferenceMilliseconds(now, engine->ended_at + patience(engine));
	else if (engine->slot_count < PP_SLOTS && engine->left > 0)
		timeout = Min(timeout, TimestampDifferenceMilliseconds(now, next_turn(engine)));
	if (network >= 0)
		timeout = Min(timeout, network);
	count = WaitEventSetWait(engine->events, timeout, events, lengthof(events), PG_WAIT_EXTENSION);
	for (int i = 0; i < count; i++)
	{
		if (events[i].events & WL_LATCH_SET)
		{
			ResetLatch(MyLatch);
			engine->woken = true;
		}
	}
}

/*
 * guarded_turn is a turn that the worker survives: on an error it waits longer
 * and longer, its transfers under way unharmed.
 */
static bool
guarded_turn(Engine *engine)
{
	MemoryContext context = CurrentMemoryContext;
	bool		present = true;

	if (!engine->worker)
		return turn(engine);
	PG_TRY();
	{
		present = turn(engine);
		engine->problems = 0;
	}
	PG_CATCH();
	{
		int			pause = Min(60000, 1000 << Min(engine->problems, 6));

		MemoryContextSwitchTo(context);
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		free_list(&engine->claimed);
		engine->problems++;
		engine->round.next_look = engine->round.next_busy_look = 0; /* what was claimed is
																	 * free again */
		engine->rest_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pause);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return present;
}

/*
 * stop gives transfers under way a moment, breaks off the rest and records all.
 */
static void
stop(Engine *engine)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), GRACE_MS);

	engine->stopping = true;
	while (engine->slot_count > 0 && GetCurrentTimestamp() < until)
	{
		long		timeout = pp_network_timeout(engine->network);
		WaitEvent	events[4];

		timeout = timeout < 0 ? 50 : Min(timeout, 50);
		(void) WaitEventSetWait(engine->events, timeout, events, lengthof(events), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		pp_network_run(engine->network);
		collect(engine, pp_network_finished(engine->network));
	}
	collect(engine, pp_network_abort(engine->network));
	if ((engine->ended != NULL || engine->aside.list != NULL) && engine->token != 0)
		(void) guarded_turn(engine);
}

/*
 * give_back ends a call that is cancelled, or whose session is to end, while it
 * waits: what has ended is recorded, what is under way is broken off and free
 * for others.  The interrupt is for the caller to serve.
 */
static void
give_back(Engine *engine)
{
	bool		cancel = QueryCancelPending;
	bool		die = ProcDiePending;

	QueryCancelPending = ProcDiePending = false;
	engine->stopping = true;
	collect(engine, pp_network_abort(engine->network));
	PG_TRY();
	{
		if (engine->ended != NULL && engine->token != 0)
			(void) turn(engine);
	}
	PG_FINALLY();
	{
		QueryCancelPending |= cancel;
		ProcDiePending |= die;
		InterruptPending = true;
	}
	PG_END_TRY();
}

/*
 * loop delivers until there is a reason to end.
 */
static PpEngineEnd
loop(Engine *engine)
{
	for (;;)
	{
		bool		due;

		if (!engine->worker && (QueryCancelPending || ProcDiePending))
			give_back(engine);
		CHECK_FOR_INTERRUPTS();
		if (engine->worker)
		{
			if (ConfigReloadPending)
			{
				ConfigReloadPending = false;
				ProcessConfigFile(PGC_SIGHUP);
				engine->configured = false;
				engine->woken = true;
			}
			if (ShutdownRequestPending || !pp_enabled || pp_worker_leaves())
			{
				stop(engine);
				return PP_ENGINE_STOPPED;
			}
		}
		due = turn_is_due(engine);
		wait_for_something(engine, due);
		if (due)
		{
			if (!guarded_turn(engine))
				return PP_ENGINE_GONE;
			if (!engine->worker && engine->slot_count == 0 && engine->ended_count == 0 &&
				(engine->exhausted || engine->left <= 0))
				return PP_ENGINE_DONE;
		}
		pp_network_run(engine->network);
		collect(engine, pp_network_finished(engine->network));
	}
}

/*
 * take_round begins with the round of an earlier call in this session, and what
 * its last look found, or with one that has yet to look.
 */
static void
take_round(Engine *engine)
{
	PpRound    *round = &engine->round;

	if (!engine->worker && rounds[engine->channel].next_look != 0)
	{
		*round = rounds[engine->channel];
		rounds[engine->channel].next_look = 0;
		return;
	}
	round->least = engine->channel == PP_MAIL ? PP_MAIL_DESTINATION - 1 : PP_MAIL_DESTINATION;
	round->upto = engine->channel == PP_MAIL ? PP_MAIL_DESTINATION : PG_INT64_MAX;
	round->cursor = round->least;
	round->around = true;
}

/*
 * pp_engine_run delivers what goes by one channel: in the worker until it is
 * told to stop, in a procedure until nothing is due or *max_rows have been
 * tried; it takes those off.
 */
PpEngineEnd
pp_engine_run(bool worker, PpChannel channel, int64 *max_rows)
{
	Engine	   *engine = MemoryContextAllocZero(TopMemoryContext, sizeof(Engine));
	PpEngineEnd end = PP_ENGINE_DONE;

	engine->worker = worker;
	engine->channel = channel;
	engine->left = worker ? PG_INT64_MAX : *max_rows;
	take_round(engine);
	PG_TRY();
	{
		engine->network = pp_network_open();
		if (engine->network == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("could not open the network")));
		engine->events = pp_create_wait_event_set(3);
		AddWaitEventToSet(engine->events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(engine->events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		AddWaitEventToSet(engine->events, WL_SOCKET_READABLE, pp_network_fd(engine->network), NULL, NULL);
		end = loop(engine);
		rounds[channel] = engine->round;
		if (!worker)
			*max_rows = engine->left;
	}
	PG_FINALLY();
	{
		if (engine->network != NULL)
			pp_network_close(engine->network);
		if (engine->events != NULL)
			FreeWaitEventSet(engine->events);
		free_list(&engine->ended);
		free_list(&engine->aside.list);
		free_list(&engine->claimed);
		if (engine->token != 0)
			pp_unlock_engine(engine->token);
		explicit_bzero(engine, sizeof(Engine));
		pfree(engine);
	}
	PG_END_TRY();
	return end;
}

/*
 * deliver_notifications(max_rows) tries what is due, at most max_rows.
 */
Datum
partner_portal_deliver_notifications(PG_FUNCTION_ARGS)
{
	bool		atomic = !(fcinfo->context && IsA(fcinfo->context, CallContext) &&
						   !((CallContext *) fcinfo->context)->atomic);
	int64		max_rows = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT32(0);

	if (max_rows < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_rows must be at least 1")));
	if (atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("deliver_notifications cannot run inside a transaction block"),
				 errhint("CALL it on its own, so that nothing is held while it waits for peers.")));
	if (!pp_enabled)
	{
		ereport(WARNING,
				(errcode(ERRCODE_PP_WRONG_STATE),
				 errmsg("nothing is delivered: partner_portal.enabled is off")));
		PG_RETURN_VOID();
	}
	if (pp_engine_run(false, PP_WEBHOOKS, &max_rows) == PP_ENGINE_DONE && max_rows > 0)
		(void) pp_engine_run(false, PP_MAIL, &max_rows);
	PG_RETURN_VOID();
}
