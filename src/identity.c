/*-------------------------------------------------------------------------
 *
 * identity.c
 *		Who is asking: the sealed setting partner_portal.identity.
 *
 * An identity is an account, the workspace and the portal it acts in, and the
 * instant it expires.  It lives in a setting whose check hook accepts a value
 * only while pp_identity_set() is running in this backend, or while a parallel
 * worker takes over its leader's settings.  So nobody can forge it, a superuser
 * included, and transactions, savepoints, DISCARD ALL and parallel query come
 * right by themselves.  The empty value is nobody, and always accepted.
 *
 * The value is "account:workspace:portal:expires", all decimal; expires is a
 * TimestampTz in microseconds.
 *
 * A cursor WITH HOLD would carry the rows of one identity past the end of its
 * transaction, into the next client's of a connection pool.  So none may be
 * declared while an account is signed in, and nobody signs in while one that
 * the transaction declared is open.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <inttypes.h>

#include "access/parallel.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "tcop/pquery.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/portal.h"
#include "utils/timestamp.h"

#include "partner_portal.h"

#define IDENTITY_SETTING	"partner_portal.identity"

static char *identity_setting = NULL;
static const PpIdentity *assigned = NULL;
static bool setting_identity = false;

/*
 * Whether this transaction may have declared a cursor WITH HOLD: the hook saw
 * one, or the library was loaded too late to see.
 */
static bool may_hold_cursor = false;

static ProcessUtility_hook_type prev_process_utility = NULL;

/*
 * check_identity accepts the empty value from anyone and another one only from
 * pp_identity_set() or a starting parallel worker.
 */
static bool
check_identity(char **newval, void **extra, GucSource source)
{
	PpIdentity *identity;
	int			length = 0;

	if (*newval == NULL || **newval == '\0')
		return true;
	if (!setting_identity && !InitializingParallelWorker)
	{
		GUC_check_errcode(ERRCODE_INSUFFICIENT_PRIVILEGE);
		GUC_check_errmsg("parameter \"%s\" cannot be set", IDENTITY_SETTING);
		GUC_check_errhint("Sign in with partner_portal.login().");
		return false;
	}
	identity = pp_guc_malloc(sizeof(PpIdentity));
	if (identity == NULL)
		return false;
	if (sscanf(*newval, "%" SCNd64 ":%" SCNd64 ":%" SCNd64 ":%" SCNd64 "%n",
			   &identity->account_id, &identity->workspace_id,
			   &identity->portal_id, &identity->expires_at, &length) != 4 ||
		(*newval)[length] != '\0')
		elog(ERROR, "malformed identity");
	*extra = identity;
	return true;
}

/*
 * assign_identity takes what the check hook parsed.  Nobody sees no row, by
 * whatever plan.
 */
static void
assign_identity(const char *newval, void *extra)
{
	assigned = (const PpIdentity *) extra;
	if (assigned != NULL)
		pp_plan_for_portal(assigned->portal_id);
}

/*
 * pp_define_identity defines the sealed setting.
 */
void
pp_define_identity(void)
{
	DefineCustomStringVariable(IDENTITY_SETTING,
							   "The account of the current transaction; set by login() alone.",
							   NULL, &identity_setting, "", PGC_SUSET,
							   GUC_NO_SHOW_ALL | GUC_SUPERUSER_ONLY |
							   GUC_DISALLOW_IN_FILE | GUC_NOT_IN_SAMPLE |
							   GUC_NOT_WHILE_SEC_REST,
							   check_identity, assign_identity, NULL);
}

/*
 * pp_identity returns the identity in force, or NULL for nobody.  An expired
 * one is nobody from the next statement on; the statement's start is the same
 * in parallel workers.
 */
const PpIdentity *
pp_identity(void)
{
	if (assigned == NULL ||
		assigned->expires_at <= GetCurrentStatementStartTimestamp())
		return NULL;
	return assigned;
}

/*
 * pp_signed_in tells whether somebody signed in, expired or not.  Who has not
 * is nobody; who has expired is nobody too, but never the operator.
 */
bool
pp_signed_in(void)
{
	return assigned != NULL;
}

/*
 * pp_identity_portal returns the portal that the identity acts in, expired or
 * not; 0 is none.
 */
int64
pp_identity_portal(void)
{
	return assigned != NULL ? assigned->portal_id : 0;
}

/*
 * cursor_of_transaction_holds tells whether a cursor WITH HOLD that this
 * transaction declared is open.  Those of earlier transactions have their rows
 * already.
 */
static bool
cursor_of_transaction_holds(void)
{
	bool		found = false;

	SPI_connect();
	if (SPI_execute("SELECT c.name FROM pg_catalog.pg_cursor() AS c WHERE c.is_holdable",
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list the cursors");
	for (uint64 i = 0; i < SPI_processed && !found; i++)
	{
		char	   *name = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		Portal		portal = GetPortalByName(name);

		found = PortalIsValid(portal) &&
			portal->createSubid != InvalidSubTransactionId;
	}
	SPI_finish();
	return found;
}

/*
 * warn_if_statement_only warns, as SET LOCAL does, that the identity will be
 * gone after the current statement.  A DO block or a procedure is taken to
 * know what it does.
 */
static void
warn_if_statement_only(void)
{
	if (IsTransactionBlock() || IsSubTransaction())
		return;
	if (ActivePortal != NULL &&
		(ActivePortal->commandTag == CMDTAG_DO || ActivePortal->commandTag == CMDTAG_CALL))
		return;
	ereport(WARNING,
			(errcode(ERRCODE_NO_ACTIVE_SQL_TRANSACTION),
			 errmsg("the identity ends with the current statement"),
			 errhint("Begin a transaction before signing in."),
			 errhidestmt(true)));
}

/*
 * pp_identity_set makes an identity that of the current transaction; NULL is
 * nobody.  It goes with the transaction, or with the savepoint it was set in.
 * 25001 while a cursor WITH HOLD of the transaction is open.
 */
void
pp_identity_set(const PpIdentity *identity)
{
	char		value[128] = "";

	if (identity != NULL)
	{
		if (may_hold_cursor && cursor_of_transaction_holds())
			ereport(ERROR,
					(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
					 errmsg("cannot sign in while the transaction has a cursor WITH HOLD"),
					 errdetail("Its rows would outlive the identity that may see them."),
					 errhint("Close the cursor first."),
					 errhidestmt(true)));
		warn_if_statement_only();
		snprintf(value, sizeof(value),
				 "%" PRId64 ":%" PRId64 ":%" PRId64 ":%" PRId64,
				 identity->account_id, identity->workspace_id,
				 identity->portal_id, identity->expires_at);
	}

	setting_identity = true;
	PG_TRY();
	{
		(void) set_config_option(IDENTITY_SETTING, value, PGC_SUSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	}
	PG_FINALLY();
	{
		setting_identity = false;
	}
	PG_END_TRY();
}

/*
 * guard_hold_cursors refuses DECLARE ... WITH HOLD while somebody is signed in,
 * and takes note of it otherwise.
 */
static void
guard_hold_cursors(PlannedStmt *pstmt, const char *queryString,
				   bool readOnlyTree, ProcessUtilityContext context,
				   ParamListInfo params, QueryEnvironment *queryEnv,
				   DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *statement = pstmt->utilityStmt;

	if (IsA(statement, DeclareCursorStmt) &&
		(((DeclareCursorStmt *) statement)->options & CURSOR_OPT_HOLD) != 0)
	{
		if (assigned != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
					 errmsg("cannot declare a cursor WITH HOLD while an account is signed in"),
					 errdetail("Its rows would outlive the identity that may see them.")));
		may_hold_cursor = true;
	}
	if (prev_process_utility)
		prev_process_utility(pstmt, queryString, readOnlyTree, context, params,
							 queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
}

/*
 * forget_hold_cursors starts the note afresh when a transaction has ended.
 */
static void
forget_hold_cursors(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		may_hold_cursor = false;
}

/*
 * pp_identity_hooks installs what guards the identity.
 */
void
pp_identity_hooks(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = guard_hold_cursors;
	may_hold_cursor = IsTransactionState();
	RegisterXactCallback(forget_hold_cursors, NULL);
}
