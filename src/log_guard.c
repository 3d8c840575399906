/*-------------------------------------------------------------------------
 *
 * log_guard.c
 *		Plans of our own functions are for the server's log only.
 *
 * Anybody may set debug_print_plan (and _parse, _rewritten) and
 * client_min_messages, and is then sent the plan of every statement, those
 * inside SECURITY DEFINER functions included.  Such a plan has values in it that
 * the function has found and has not yet asked whether to show them: whose a
 * thing is, before it is said that there is none.  So what is printed while
 * another user's rights are in force does not go to the client.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "partner_portal.h"

/* What PostgreSQL calls the trees that it prints. */
static const char *const trees[] = {"parse tree:", "rewritten parse tree:", "plan:"};

static emit_log_hook_type prev_emit_log = NULL;

/*
 * guard_log is the hook; it is asked for everything that goes to the server's
 * log too, as these do unless log_min_messages is above LOG.
 */
static void
guard_log(ErrorData *message)
{
	if (message->elevel == LOG && message->output_to_client && message->message != NULL && InLocalUserIdChange())
		for (int i = 0; i < lengthof(trees); i++)
			if (strcmp(message->message, trees[i]) == 0)
				message->output_to_client = false;
	if (prev_emit_log)
		prev_emit_log(message);
}

/*
 * pp_log_guard_hooks installs the guard.
 */
void
pp_log_guard_hooks(void)
{
	prev_emit_log = emit_log_hook;
	emit_log_hook = guard_log;
}
