/*-------------------------------------------------------------------------
 *
 * permission.c
 *		What the identity may do, as seen by policies and functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_current_account_id);
PG_FUNCTION_INFO_V1(partner_portal_current_workspace_id);
PG_FUNCTION_INFO_V1(partner_portal_current_partner_id);
PG_FUNCTION_INFO_V1(partner_portal_current_portal_id);
PG_FUNCTION_INFO_V1(partner_portal_is_operator);
PG_FUNCTION_INFO_V1(partner_portal_own_workspace);
PG_FUNCTION_INFO_V1(partner_portal_granted_workspaces);
PG_FUNCTION_INFO_V1(partner_portal_lowest_partner_key);
PG_FUNCTION_INFO_V1(partner_portal_highest_partner_key);
PG_FUNCTION_INFO_V1(partner_portal_authorize);
PG_FUNCTION_INFO_V1(partner_portal_restoring_session);

Datum
partner_portal_current_account_id(PG_FUNCTION_ARGS)
{
	const PpIdentity *identity = pp_identity();

	if (identity == NULL)
		PG_RETURN_NULL();
	PG_RETURN_INT64(identity->account_id);
}

Datum
partner_portal_current_workspace_id(PG_FUNCTION_ARGS)
{
	const PpIdentity *identity = pp_identity();

	if (identity == NULL || identity->workspace_id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(identity->workspace_id);
}

Datum
partner_portal_current_partner_id(PG_FUNCTION_ARGS)
{
	return partner_portal_current_workspace_id(fcinfo);
}

Datum
partner_portal_current_portal_id(PG_FUNCTION_ARGS)
{
	PG_RETURN_NULL();
}

Datum
partner_portal_is_operator(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(pp_identity() == NULL && superuser_arg(GetOuterUserId()));
}

Datum
partner_portal_own_workspace(PG_FUNCTION_ARGS)
{
	return partner_portal_current_workspace_id(fcinfo);
}

Datum
partner_portal_granted_workspaces(PG_FUNCTION_ARGS)
{
	PG_RETURN_ARRAYTYPE_P(construct_empty_array(INT8OID));
}

Datum
partner_portal_lowest_partner_key(PG_FUNCTION_ARGS)
{
	return partner_portal_current_workspace_id(fcinfo);
}

Datum
partner_portal_highest_partner_key(PG_FUNCTION_ARGS)
{
	return partner_portal_current_workspace_id(fcinfo);
}

Datum
partner_portal_authorize(PG_FUNCTION_ARGS)
{
	PG_RETURN_VOID();
}

Datum
partner_portal_restoring_session(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(pp_restoring_setting);
}
