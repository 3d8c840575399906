/*-------------------------------------------------------------------------
 *
 * explain_access.c
 *		Why an account may do something in a workspace, or what it lacks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_explain_access);

/* What each standing is called; in the order in which one is named. */
static const struct
{
	PpStanding	standing;
	const char *name;
}			names[] = {
	{PP_OWNER, "owner"},
	{PP_ADMINISTRATOR, "administrator"},
	{PP_MEMBER, "member"},
	{PP_OWN_PARTNER, "owner or administrator of the partner itself"},
	{PP_PARTNER, "owner or administrator of its partner"},
	{PP_ACCOUNT_OWNER, "account_owner on the partner's staff"},
	{PP_SYSTEM_ADMINISTRATOR, "system_administrator on the partner's staff"},
	{PP_GRANT_READ, "access granted by its owner"},
	{PP_GRANT_MANAGE, "access granted by its owner"},
};

/*
 * role_name returns the name of a role in a workspace.
 */
static const char *
role_name(PpStanding role)
{
	return role == PP_OWNER ? "owner" :
		role == PP_ADMINISTRATOR ? "administrator" :
		role == PP_MEMBER ? "member" : "guest";
}

/*
 * describe says by what standing, of those that suffice, an account has a
 * permission when it acts by the given membership.
 */
static char *
describe(PpStanding suffices, const PpMembership *acting, const PpGrant *grant)
{
	long long	id = acting->workspace.workspace_id;

	if (suffices & (PP_OWNER | PP_ADMINISTRATOR | PP_MEMBER | PP_OWN_PARTNER))
		return psprintf("%s of workspace %lld", role_name(acting->role), id);
	if (suffices & PP_PARTNER)
		return psprintf("%s of partner %lld", role_name(acting->role), id);
	if (suffices & PP_ACCOUNT_OWNER)
		return psprintf("account_owner on the staff of partner %lld", id);
	if (suffices & PP_SYSTEM_ADMINISTRATOR)
		return psprintf("system_administrator on the staff of partner %lld", id);
	return psprintf("%s grant %lld to partner %lld", grant->complete ? "complete" : "limited",
					(long long) grant->grant_id, id);
}

/*
 * about_products tells whether a permission can be asked of a single product.
 */
static bool
about_products(const PpPermission *permission)
{
	return strcmp(permission->name, "read") == 0 || strcmp(permission->name, "manage_products") == 0;
}

/*
 * standing_for returns how an account stands to a workspace by a membership for
 * one permission; to a product of it if one is given and the permission is
 * about products.
 */
static PpStanding
standing_for(const PpAccess *access, const PpMembership *membership,
			 const PpWorkspace *workspace, const PpProduct *product, const PpPermission *permission)
{
	if (product != NULL && about_products(permission))
		return pp_product_standing(access, membership, workspace, product);
	return pp_standing_by(access, membership, workspace);
}

/*
 * shortcoming says what keeps one who stands to the workspace somehow, as
 * partner, its staff or by a grant, from a permission that one of those has;
 * NULL if it is none of that.
 */
static char *
shortcoming(const PpAccess *access, const PpMembership *membership,
			const PpWorkspace *workspace, const PpProduct *product, const PpPermission *permission)
{
	PpStanding	general = pp_standing_by(access, membership, workspace);
	PpStanding	here = standing_for(access, membership, workspace, product, permission);
	const PpGrant *grant = pp_grant_of(access, membership->workspace.workspace_id, workspace->workspace_id);

	if (product != NULL && (general & ~here & permission->who) != 0)
		return psprintf("workspace %lld has not let its partner near product %lld",
						(long long) workspace->workspace_id, (long long) product->product_id);
	if (grant == NULL || (permission->who & (PP_GRANT_READ | PP_GRANT_MANAGE)) == 0)
		return NULL;
	if (!grant->complete && (here & PP_GRANT_READ) == 0)
		return psprintf(product == NULL || !about_products(permission) ?
						"grant %lld is limited to products or categories" :
						"grant %lld does not cover this product", (long long) grant->grant_id);
	if (!grant->manage && (permission->who & PP_GRANT_READ) == 0)
		return psprintf("grant %lld gives the right \"read\" alone", (long long) grant->grant_id);
	return NULL;
}

/*
 * list_what_suffices names every standing that would have given the
 * permission and that this workspace can know.
 */
static char *
list_what_suffices(PpStanding who, const PpWorkspace *workspace)
{
	StringInfoData list;
	const char *previous = NULL;

	if (workspace->partner_key == 0)
		who &= ~(PP_PARTNER | PP_ACCOUNT_OWNER | PP_SYSTEM_ADMINISTRATOR);
	if (!workspace->is_partner)
		who &= ~PP_OWN_PARTNER;
	if (who == 0)
		return pstrdup("the operator's alone");
	initStringInfo(&list);
	for (int i = 0; i < lengthof(names); i++)
	{
		if ((who & names[i].standing) == 0 || (previous != NULL && strcmp(previous, names[i].name) == 0))
			continue;
		appendStringInfo(&list, "%s%s", list.len == 0 ? "must be one of: " : "; ", names[i].name);
		previous = names[i].name;
	}
	return list.data;
}

/*
 * is_related tells whether anything ties an account to a workspace: a
 * membership, pending ones included, or what follows from one.
 */
static bool
is_related(const PpAccess *access, const PpWorkspace *workspace)
{
	for (int i = 0; i < access->n_memberships; i++)
	{
		const PpMembership *membership = &access->memberships[i];

		if (membership->workspace.workspace_id == workspace->workspace_id ||
			(pp_membership_counts(membership) &&
			 pp_standing_by(access, membership, workspace) != 0))
			return true;
	}
	return false;
}

/*
 * explain decides one permission: returns by what the account has it, or NULL
 * with what it lacks in *missing.  With an identity it is asked as that one
 * acts now; without, as it could act anywhere.
 */
static char *
explain(const PpAccess *access, const PpIdentity *identity, const PpWorkspace *workspace,
		const PpProduct *product, const PpPermission *permission, char **missing)
{
	const PpMembership *now = identity == NULL ? NULL : pp_acting_membership(access, identity);

	*missing = NULL;
	if (access->disabled)
	{
		*missing = pstrdup("the account is disabled");
		return NULL;
	}
	if (access->is_operator)
		return pstrdup("operator");
	for (int i = 0; i < access->n_memberships; i++)
	{
		const PpMembership *membership = &access->memberships[i];
		PpStanding	suffices = standing_for(access, membership, workspace, product, permission) & permission->who;

		if (suffices == 0)
		{
			if (*missing == NULL && pp_membership_counts(membership))
				*missing = shortcoming(access, membership, workspace, product, permission);
			continue;
		}
		if (!membership->accepted)
			*missing = psprintf("the membership of workspace %lld is not accepted",
								(long long) membership->workspace.workspace_id);
		else if (membership->ended)
			*missing = psprintf("the membership of workspace %lld has ended with its grant",
								(long long) membership->workspace.workspace_id);
		else if (membership->workspace.deleted)
			*missing = psprintf("workspace %lld is deleted",
								(long long) membership->workspace.workspace_id);
		else if (identity != NULL && membership != now)
			*missing = psprintf("must act in workspace %lld",
								(long long) membership->workspace.workspace_id);
		else
		{
			*missing = NULL;
			return describe(suffices, membership,
							pp_grant_of(access, membership->workspace.workspace_id, workspace->workspace_id));
		}
	}
	if (*missing == NULL)
		*missing = list_what_suffices(permission->who, workspace);
	return NULL;
}

/*
 * explain_access returns one row for every permission.
 */
Datum
partner_portal_explain_access(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	const PpIdentity *identity = NULL;
	const PpAccess *access;
	PpAccess	nobody = {0};
	PpWorkspace workspace;
	PpProduct	product;
	const PpPermission *permission;
	int64		account_id;
	int64		workspace_id;
	bool		operator = pp_is_operator();

	pp_require_somebody();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", PG_ARGISNULL(0) ? "account_id" : "workspace_id")));
	account_id = PG_GETARG_INT64(0);
	workspace_id = PG_GETARG_INT64(1);
	if (account_id == pp_account_id())
		identity = pp_identity();
	else if (!operator)
		pp_authorize("manage_people", workspace_id);
	if (!pp_workspace(workspace_id, &workspace))
		pp_workspace_not_found(workspace_id);

	InitMaterializedSRF(fcinfo, 0);

	/* From here on nothing else may look an account up. */
	access = pp_access_of(account_id);
	if (access == NULL && operator)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("account %lld not found", (long long) account_id)));
	if (access == NULL || (!operator && !access->is_operator && !is_related(access, &workspace)))
	{
		/*
		 * Who may not know the workspace learns nothing, nor who asks about a
		 * stranger.
		 */
		if (identity != NULL)
			pp_workspace_not_found(workspace_id);
		access = &nobody;
	}
	if (!PG_ARGISNULL(2) &&
		(!pp_product(PG_GETARG_INT64(2), &product) || product.workspace_id != workspace_id))
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("product %lld not found", (long long) PG_GETARG_INT64(2))));
	for (int i = 0; (permission = pp_permission(i)) != NULL; i++)
	{
		char	   *missing;
		char	   *through = explain(access, identity, &workspace,
									  PG_ARGISNULL(2) ? NULL : &product, permission, &missing);
		Datum		values[4] = {0};
		bool		nulls[4] = {false, false, through == NULL, missing == NULL};

		values[0] = CStringGetTextDatum(permission->name);
		values[1] = BoolGetDatum(through != NULL);
		if (through != NULL)
			values[2] = CStringGetTextDatum(through);
		if (missing != NULL)
			values[3] = CStringGetTextDatum(missing);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	PG_RETURN_NULL();
}
