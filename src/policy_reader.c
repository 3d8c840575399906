/*-------------------------------------------------------------------------
 *
 * policy_reader.c
 *		What row level security asks of the identity.
 *
 * These functions never raise, whatever they are asked, and are STABLE,
 * PARALLEL SAFE and LEAKPROOF; nobody, an unknown permission or an account
 * that acts nowhere gets NULL or nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_is_operator);
PG_FUNCTION_INFO_V1(partner_portal_current_account_id);
PG_FUNCTION_INFO_V1(partner_portal_current_workspace_id);
PG_FUNCTION_INFO_V1(partner_portal_current_partner_id);
PG_FUNCTION_INFO_V1(partner_portal_acting_role);
PG_FUNCTION_INFO_V1(partner_portal_looks_after);
PG_FUNCTION_INFO_V1(partner_portal_own_workspace);
PG_FUNCTION_INFO_V1(partner_portal_granted_workspaces);
PG_FUNCTION_INFO_V1(partner_portal_lowest_partner_key);
PG_FUNCTION_INFO_V1(partner_portal_highest_partner_key);

/*
 * find_permission_text is pp_find_permission for an SQL text.
 */
static const PpPermission *
find_permission_text(const text *name)
{
	return pp_find_permission(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
}

/*
 * is_operator tells whether who is asking runs the platform.
 */
Datum
partner_portal_is_operator(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(pp_is_operator());
}

/*
 * current_account_id returns the account that is signed in.
 */
Datum
partner_portal_current_account_id(PG_FUNCTION_ARGS)
{
	int64		account_id = pp_account_id();

	if (account_id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(account_id);
}

/*
 * current_workspace_id returns the acting workspace.
 */
Datum
partner_portal_current_workspace_id(PG_FUNCTION_ARGS)
{
	int64		workspace_id = pp_acting_workspace();

	if (workspace_id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(workspace_id);
}

/*
 * current_partner_id returns the acting workspace if it is a partner.
 */
Datum
partner_portal_current_partner_id(PG_FUNCTION_ARGS)
{
	const PpAccess *access;
	const PpMembership *acting = pp_current_acting(&access);

	if (acting == NULL || !acting->workspace.is_partner)
		PG_RETURN_NULL();
	PG_RETURN_INT64(acting->workspace.workspace_id);
}

/*
 * acting_role returns the role in the acting workspace as text.
 */
Datum
partner_portal_acting_role(PG_FUNCTION_ARGS)
{
	const PpAccess *access;
	const PpMembership *acting = pp_current_acting(&access);

	if (acting == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(acting->role == PP_OWNER ? "owner" :
									 acting->role == PP_ADMINISTRATOR ? "administrator" :
									 acting->role == PP_MEMBER ? "member" : "guest"));
}

/*
 * looks_after tells whether one acts as owner or administrator of a
 * workspace's partner.
 */
Datum
partner_portal_looks_after(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL((pp_standing(PG_GETARG_INT64(0)) & PP_PARTNER) != 0);
}

/*
 * own_workspace returns the acting workspace if one's role there has the
 * permission.
 */
Datum
partner_portal_own_workspace(PG_FUNCTION_ARGS)
{
	const PpPermission *permission = find_permission_text(PG_GETARG_TEXT_PP(0));
	const PpAccess *access;
	const PpMembership *acting = pp_current_acting(&access);

	if (permission == NULL || acting == NULL ||
		(pp_standing_by(access, acting, &acting->workspace) & permission->who) == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(acting->workspace.workspace_id);
}

/*
 * granted_workspaces returns the customers on which one has a permission by
 * being their staff, for policies; those of whom one is the partner are found
 * by partner_key.  The array is the caller's.
 */
Datum
partner_portal_granted_workspaces(PG_FUNCTION_ARGS)
{
	const PpPermission *permission = find_permission_text(PG_GETARG_TEXT_PP(0));
	const PpAccess *access;
	const PpMembership *acting = pp_current_acting(&access);
	Datum	   *ids;
	int64		partner_key;
	int			n = 0;

	if (permission == NULL || acting == NULL)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(INT8OID));
	partner_key = acting->workspace.workspace_id;
	ids = palloc(Max(access->n_staff, 1) * sizeof(Datum));
	for (int i = pp_first_staff(access, partner_key, 0);
		 i < access->n_staff && access->staff[i].partner_key == partner_key; i++)
		if ((access->staff[i].role & permission->who) != 0)
			ids[n++] = Int64GetDatum(access->staff[i].workspace_id);
	PG_RETURN_ARRAYTYPE_P(construct_array(ids, n, INT8OID, sizeof(int64),
										  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/*
 * partner_key_range returns the range of partner_key that is the identity's to
 * look after; false if there is none.
 */
static bool
partner_key_range(int64 *lowest, int64 *highest)
{
	const PpAccess *access;
	const PpMembership *acting;

	if (pp_is_operator())
	{
		*lowest = 0;
		*highest = PG_INT64_MAX;
		return true;
	}
	acting = pp_current_acting(&access);
	if (acting == NULL || !pp_runs_partner(acting))
		return false;
	*lowest = *highest = acting->workspace.workspace_id;
	return true;
}

/*
 * lowest_partner_key returns the lower end of partner_key_range.
 */
Datum
partner_portal_lowest_partner_key(PG_FUNCTION_ARGS)
{
	int64		lowest;
	int64		highest;

	if (!partner_key_range(&lowest, &highest))
		PG_RETURN_NULL();
	PG_RETURN_INT64(lowest);
}

/*
 * highest_partner_key returns the upper end of partner_key_range.
 */
Datum
partner_portal_highest_partner_key(PG_FUNCTION_ARGS)
{
	int64		lowest;
	int64		highest;

	if (!partner_key_range(&lowest, &highest))
		PG_RETURN_NULL();
	PG_RETURN_INT64(highest);
}
