/*-------------------------------------------------------------------------
 *
 * job.c
 *		tick(): calls everything that is due, each thing for itself.
 *
 * A step is a function f(at timestamptz) RETURNS bigint that does a bounded
 * piece of what is due by then, and returns how much it did.  tick() calls it,
 * commits, and calls it again while it returns more than zero.  A step that
 * fails is undone, reported and remembered; the others go on.  Two ticks at
 * once share the steps: each is done by one at a time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "partner_portal.h"

#define MOST_ROUNDS		100000

PG_FUNCTION_INFO_V1(partner_portal_tick);

/*
 * list_steps returns the names of the steps in order, in a context that
 * outlives transactions.
 */
static char **
list_steps(MemoryContext context, int *count)
{
	char	  **steps;

	if (SPI_execute("SELECT s.step FROM partner_portal.job_step s ORDER BY s.position, s.step", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the steps");
	*count = (int) SPI_processed;
	steps = MemoryContextAlloc(context, sizeof(char *) * Max(*count, 1));
	for (int i = 0; i < *count; i++)
		steps[i] = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
	return steps;
}

/*
 * one_value runs a query of one bigint about a step; -1 for no row or NULL.
 */
static int64
one_value(const char *sql, const char *step, TimestampTz at, const char *problem)
{
	Oid			types[] = {TEXTOID, TIMESTAMPTZOID, TEXTOID};
	Datum		values[3];
	char		nulls[] = "   ";
	bool		isnull;
	Datum		value;

	values[0] = CStringGetTextDatum(step);
	values[1] = TimestampTzGetDatum(at);
	values[2] = problem == NULL ? (Datum) 0 : CStringGetTextDatum(problem);
	nulls[2] = problem == NULL ? 'n' : ' ';
	if (SPI_execute_with_args(sql, 3, types, values, nulls, false, 1) < 0)
		elog(ERROR, "could not execute a step");
	if (SPI_processed == 0)
		return -1;
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return isnull ? -1 : DatumGetInt64(value);
}

/*
 * run_step does one round of a step in the current transaction, undoing it if it
 * fails.  It returns how much was done; 0 when nothing more is due, another
 * tick is at it, or it failed.
 */
static int64
run_step(const char *step, TimestampTz at, MemoryContext context)
{
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext before = CurrentMemoryContext;
	volatile int64 done = 0;
	char	   *volatile problem = NULL;
	int64		position;

	position = one_value("SELECT s.position::bigint FROM partner_portal.job_step s WHERE s.step = $1 AND $2 IS NOT NULL AND $3 IS NULL",
						 step, at, NULL);
	if (position < 0 || !pp_try_own_lock(PP_LOCK_STEP, (uint32) position, false))
		return 0;
	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		/* The name comes from the install script, and is quoted all the same. */
		done = one_value(psprintf("SELECT partner_portal.%s($2) WHERE $1 IS NOT NULL AND $3 IS NULL", quote_identifier(step)),
						 step, at, NULL);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN)
			ReThrowError(error);
		problem = psprintf("%s", error->message);
		done = 0;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(before);
	CurrentResourceOwner = owner;

	if (problem != NULL)
		ereport(WARNING,
				(errmsg("step \"%s\" of tick failed: %s", step, problem)));
	(void) one_value("UPDATE partner_portal.job_step s SET last_run_at = clock_timestamp(), last_problem = left($3, 500),"
					 " failures = CASE WHEN $3 IS NULL THEN 0 ELSE s.failures + 1 END"
					 " WHERE s.step = $1 AND $2 IS NOT NULL RETURNING s.failures::bigint", step, at, problem);
	return Max(done, 0);
}

/*
 * tick(at) does all that is due by then.
 */
Datum
partner_portal_tick(PG_FUNCTION_ARGS)
{
	bool		atomic = !(fcinfo->context && IsA(fcinfo->context, CallContext) &&
						   !((CallContext *) fcinfo->context)->atomic);
	TimestampTz at;
	MemoryContext context;
	char	  **steps = NULL;
	int			count = 0;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("at must not be null")));
	at = PG_GETARG_TIMESTAMPTZ(0);
	if (TIMESTAMP_NOT_FINITE(at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("at must be finite")));
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only a superuser may call tick"),
				 errdetail("It acts for every workspace.")));
	if (atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("tick cannot run inside a transaction block"),
				 errhint("CALL it on its own: it commits each thing that is due for itself.")));
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	context = AllocSetContextCreate(PortalContext, "tick", ALLOCSET_DEFAULT_SIZES);

	for (int i = -1; i < count; i++)
	{
		for (int round = 0; round < MOST_ROUNDS; round++)
		{
			int			level = NewGUCNestLevel();
			int64		done = 0;

			pp_pin_search_path();
			if (i < 0)
				steps = list_steps(context, &count);
			else
				done = run_step(steps[i], at, context);
			AtEOXact_GUC(true, level);
			SPI_commit();
			CHECK_FOR_INTERRUPTS();
			if (done == 0)
				break;
		}
	}
	SPI_finish();
	PG_RETURN_VOID();
}
