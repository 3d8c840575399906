/*-------------------------------------------------------------------------
 *
 * refusal.c
 *		Tells the server log of what was refused.
 *
 * A refusal aborts its transaction, which keeps no row, so the activity log can
 * not tell of it.  Each refused activation, login and access is one line
 * of the server log instead: "partner_portal refused " and a JSON object.  It
 * names people, workspaces and what was asked for by number, and never has the
 * statement, which may hold a token.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_note_refusal);

/*
 * append_id adds a number to the object, null for 0.
 */
static void
append_id(StringInfo json, const char *name, int64 id)
{
	if (id == 0)
		appendStringInfo(json, ", \"%s\": null", name);
	else
		appendStringInfo(json, ", \"%s\": " INT64_FORMAT, name, id);
}

/*
 * pp_refused writes the line, for the error that its caller raises next: its
 * SQLSTATE, what was asked for, on which workspace (0 is none), and further
 * members of the object, NULL or beginning with a comma.
 */
void
pp_refused(int sqlstate, const char *what, int64 workspace_id, const char *more)
{
	const PpIdentity *identity = pp_identity();
	char	   *role = GetUserNameFromId(GetOuterUserId(), true);
	StringInfoData json;

	if (!pp_log_refusals)
		return;
	initStringInfo(&json);
	appendStringInfo(&json, "{\"sqlstate\": \"%s\", \"what\": ", unpack_sql_state(sqlstate));
	escape_json(&json, what);
	append_id(&json, "workspace", workspace_id);
	append_id(&json, "account", identity == NULL ? 0 : identity->account_id);
	append_id(&json, "acting", identity == NULL ? 0 : identity->workspace_id);
	appendStringInfoString(&json, ", \"role\": ");
	escape_json(&json, role == NULL ? "" : role);
	appendStringInfo(&json, "%s}", more == NULL ? "" : more);
	ereport(LOG_SERVER_ONLY,
			(errmsg_internal("partner_portal refused %s", json.data),
			 errhidestmt(true), errhidecontext(true)));
	pfree(json.data);
}

/*
 * note_refusal(sqlstate, what, workspace_id) is pp_refused for functions in SQL.
 */
Datum
partner_portal_note_refusal(PG_FUNCTION_ARGS)
{
	char	   *sqlstate = text_to_cstring(pp_text_argument(fcinfo, 0));

	if (strlen(sqlstate) != 5)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an SQLSTATE has five characters")));
	pp_refused(MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3], sqlstate[4]),
			   text_to_cstring(pp_text_argument(fcinfo, 1)), PG_ARGISNULL(2) ? 0 : PG_GETARG_INT64(2), NULL);
	PG_RETURN_VOID();
}
