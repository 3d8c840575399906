/*-------------------------------------------------------------------------
 *
 * cursor_guard.c
 *		Cursors end with the access they were opened with.
 *
 * What a query may see is settled when it starts.  A cursor that is fetched
 * from bit by bit would go on showing what its account may no longer see, so
 * each time its query is run anew this looks whether anything that the
 * account's access rests on has changed since the first time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/executor.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "partner_portal.h"

/* A query that may be run again, and the access it began with. */
typedef struct OpenQuery
{
	const QueryDesc *query;		/* hash key */
	int64		account_id;
	uint64		fingerprint;
} OpenQuery;

static HTAB *open_queries = NULL;
static ExecutorRun_hook_type prev_executor_run = NULL;

/*
 * forget_query is called when the memory of a query goes.
 */
static void
forget_query(void *query)
{
	(void) hash_search(open_queries, &query, HASH_REMOVE, NULL);
}

/*
 * remember_query notes with what access a query begins.
 */
static void
remember_query(QueryDesc *query, const PpAccess *access)
{
	MemoryContextCallback *callback;
	OpenQuery  *open;

	if (open_queries == NULL)
	{
		HASHCTL		control;

		control.keysize = sizeof(QueryDesc *);
		control.entrysize = sizeof(OpenQuery);
		control.hcxt = TopMemoryContext;
		open_queries = hash_create("partner_portal open queries", 16, &control,
								   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	callback = MemoryContextAlloc(query->estate->es_query_cxt, sizeof(MemoryContextCallback));
	callback->func = forget_query;
	callback->arg = query;
	open = hash_search(open_queries, &query, HASH_ENTER, NULL);
	open->account_id = access->account_id;
	open->fingerprint = access->fingerprint;
	MemoryContextRegisterResetCallback(query->estate->es_query_cxt, callback);
}

/*
 * check_query raises 42501 if a query that was begun with some access is run
 * again with another.
 */
static void
check_query(QueryDesc *query, bool to_be_continued)
{
	const PpIdentity *identity = pp_identity();
	const PpAccess *access;
	OpenQuery  *open = NULL;

	if (open_queries != NULL)
		open = hash_search(open_queries, &query, HASH_FIND, NULL);
	if (open == NULL && (!to_be_continued || identity == NULL))
		return;
	access = pp_access_of(open != NULL ? open->account_id : identity->account_id);
	if (open == NULL)
	{
		if (access != NULL)
			remember_query(query, access);
		return;
	}
	if (access == NULL || access->fingerprint != open->fingerprint)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("access has changed since this cursor was opened"),
				 errhint("Open it again.")));
}

/*
 * run_query checks a query that was begun before, then runs it.
 */
static void
run_query(PP_EXECUTOR_RUN_PARAMETERS)
{
	if (queryDesc->operation == CMD_SELECT)
		check_query(queryDesc, count != 0);
	if (prev_executor_run)
		prev_executor_run(PP_EXECUTOR_RUN_ARGUMENTS);
	else
		standard_ExecutorRun(PP_EXECUTOR_RUN_ARGUMENTS);
}

/*
 * pp_cursor_hooks installs the guard.
 */
void
pp_cursor_hooks(void)
{
	prev_executor_run = ExecutorRun_hook;
	ExecutorRun_hook = run_query;
}
