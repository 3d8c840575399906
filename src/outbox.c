/*-------------------------------------------------------------------------
 *
 * outbox.c
 *		Wakes the worker once per transaction that owes a message, at commit.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"

#include "partner_portal.h"

static bool owes = false;

PG_FUNCTION_INFO_V1(partner_portal_wake_delivery);

/*
 * at_end wakes the worker when a transaction that queued something commits.  A
 * prepared one is found by the worker's next look at the queue.
 */
static void
at_end(XactEvent event, void *arg)
{
	if (!owes)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			owes = false;
			pp_worker_wake();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			owes = false;
			break;
		default:
			break;
	}
}

/*
 * wake_delivery() is the statement trigger of the queue.
 */
Datum
partner_portal_wake_delivery(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("wake_delivery() must be called as a trigger")));
	owes = true;
	PG_RETURN_POINTER(NULL);
}

/*
 * pp_outbox_init registers the callback, once per process.
 */
void
pp_outbox_init(void)
{
	RegisterXactCallback(at_end, NULL);
}
