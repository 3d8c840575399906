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
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <inttypes.h>

#include "access/parallel.h"
#include "access/xact.h"
#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "partner_portal.h"

#define IDENTITY_SETTING	"partner_portal.identity"

static char *identity_setting = NULL;
static const PpIdentity *assigned = NULL;
static bool setting_identity = false;
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
 * assign_identity takes what the check hook parsed.
 */
static void
assign_identity(const char *newval, void *extra)
{
	assigned = (const PpIdentity *) extra;
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
 * pp_identity_set makes an identity that of the current transaction; NULL is
 * nobody.  It goes with the transaction, or with the savepoint it was set in.
 */
void
pp_identity_set(const PpIdentity *identity)
{
	char		value[128] = "";

	if (identity != NULL)
	{
		if (!IsTransactionBlock() && !IsSubTransaction())
			ereport(WARNING,
					(errcode(ERRCODE_NO_ACTIVE_SQL_TRANSACTION),
					 errmsg("the identity ends with the current statement"),
					 errhint("Begin a transaction before signing in.")));
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
 * refuse_hold_after_login is the other order: DECLARE ... WITH HOLD while
 * somebody is signed in.
 */
static void
refuse_hold_after_login(PlannedStmt *pstmt, const char *queryString,
						bool readOnlyTree, ProcessUtilityContext context,
						ParamListInfo params, QueryEnvironment *queryEnv,
						DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *statement = pstmt->utilityStmt;

	if (IsA(statement, DeclareCursorStmt) && assigned != NULL &&
		(((DeclareCursorStmt *) statement)->options & CURSOR_OPT_HOLD) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot declare a cursor WITH HOLD while an account is signed in"),
				 errdetail("Its rows would outlive the identity that may see them.")));
	if (prev_process_utility)
		prev_process_utility(pstmt, queryString, readOnlyTree, context, params,
							 queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
}

/*
 * pp_identity_hooks installs what guards the identity.
 */
void
pp_identity_hooks(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = refuse_hold_after_login;
}
