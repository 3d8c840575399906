/*-------------------------------------------------------------------------
 *
 * permission.c
 *		What the identity may do.
 *
 * One acts in one workspace at a time.  From the role there follows how one
 * stands to any workspace (PpStanding): to one's own as owner, administrator,
 * member or guest; to a customer's, while acting in its partner's workspace,
 * as the partner (its owners and administrators), as account owner or as
 * system administrator.  The table below says which standing has which
 * permission.  The operator has every one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "partner_portal.h"

#define O	PP_OWNER
#define A	PP_ADMINISTRATOR
#define M	PP_MEMBER
#define P	PP_PARTNER
#define AO	PP_ACCOUNT_OWNER
#define SA	PP_SYSTEM_ADMINISTRATOR

/* The matrix of the specification's section 2. */
static const PpPermission permissions[] = {
	{"read", O | A | M | P | AO | SA | PP_GRANT_READ},
	{"manage_keys", O | A | P | SA | PP_GRANT_MANAGE},
	{"set_limit", P},
	{"manage_settings", O | A | P | AO},
	{"manage_billing", O | P},
	{"manage_people", O | A | AO},
	{"manage_products", O | A | SA | PP_GRANT_MANAGE},
	{"grant_access", O},
	{"delete_workspace", O | P},
	{"restore_workspace", P},
	{"purge", 0},
	{"suspend", P},
	{"bill", P | PP_OWN_PARTNER},
	{"manage_portals", PP_OWN_PARTNER},
	{"read_activity", O | A | P | AO},
};

#undef O
#undef A
#undef M
#undef P
#undef AO
#undef SA

PG_FUNCTION_INFO_V1(partner_portal_may);
PG_FUNCTION_INFO_V1(partner_portal_authorize);

/*
 * pp_find_permission returns the permission of that name, or NULL.
 */
const PpPermission *
pp_find_permission(const char *name, int length)
{
	for (int i = 0; i < lengthof(permissions); i++)
		if (strlen(permissions[i].name) == length &&
			memcmp(permissions[i].name, name, length) == 0)
			return &permissions[i];
	return NULL;
}

/*
 * pp_permission returns the nth permission, counted from 0, or NULL after the
 * last one.
 */
const PpPermission *
pp_permission(int n)
{
	return n < lengthof(permissions) ? &permissions[n] : NULL;
}

/*
 * get_permission is pp_find_permission for those who must know what they ask.
 */
static const PpPermission *
get_permission(const char *name)
{
	const PpPermission *permission = pp_find_permission(name, strlen(name));

	if (permission == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown permission \"%.*s\"",
						pg_mbcliplen(name, strlen(name), 64), name)));
	return permission;
}

/*
 * pp_current_access returns the identity and what its account may rest on; NULL
 * when nobody is signed in, or it has expired, or the account is disabled,
 * erased or gone.
 */
const PpAccess *
pp_current_access(const PpIdentity **identity)
{
	const PpAccess *access;

	*identity = pp_identity();
	if (*identity == NULL)
		return NULL;
	access = pp_access_of((*identity)->account_id);
	return access != NULL && !access->disabled ? access : NULL;
}

/*
 * pp_membership_counts tells whether one may act by a membership.
 */
bool
pp_membership_counts(const PpMembership *membership)
{
	return membership->accepted && !membership->ended && !membership->workspace.deleted;
}

/*
 * pp_acting_membership returns the membership by which one acts: the one chosen
 * if it still counts, or the only one that counts; else NULL.  Who acts in a
 * portal acts in no workspace.
 */
const PpMembership *
pp_acting_membership(const PpAccess *access, const PpIdentity *identity)
{
	const PpMembership *only = NULL;

	if (identity->portal_id != 0)
		return NULL;
	for (int i = 0; i < access->n_memberships; i++)
	{
		const PpMembership *membership = &access->memberships[i];

		if (!pp_membership_counts(membership))
			continue;
		if (identity->workspace_id == membership->workspace.workspace_id)
			return membership;
		if (identity->workspace_id == 0)
		{
			if (only != NULL)
				return NULL;
			only = membership;
		}
	}
	return only;
}

/*
 * pp_current_acting is pp_acting_membership of the identity; NULL for nobody too.
 */
const PpMembership *
pp_current_acting(const PpAccess **access)
{
	const PpIdentity *identity;

	*access = pp_current_access(&identity);
	return *access == NULL ? NULL : pp_acting_membership(*access, identity);
}

/*
 * runs tells whether a membership is that of an owner or administrator of a
 * partner.
 */
bool
pp_runs_partner(const PpMembership *membership)
{
	return membership->workspace.is_partner &&
		(membership->role & (PP_OWNER | PP_ADMINISTRATOR)) != 0;
}

/*
 * pp_first_staff returns the position of the first of the account's assignments
 * that is not before the given partner and workspace.
 */
int
pp_first_staff(const PpAccess *access, int64 partner_key, int64 workspace_id)
{
	int			low = 0;
	int			high = access->n_staff;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;
		const PpStaff *staff = &access->staff[middle];

		if (staff->partner_key < partner_key ||
			(staff->partner_key == partner_key && staff->workspace_id < workspace_id))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * pp_standing_by returns how one stands to a workspace while acting by the given
 * membership.
 */
PpStanding
pp_standing_by(const PpAccess *access, const PpMembership *acting, const PpWorkspace *workspace)
{
	PpStanding	standing = 0;

	if (acting->workspace.workspace_id == workspace->workspace_id)
		return acting->role | (pp_runs_partner(acting) ? PP_OWN_PARTNER : 0);
	if (workspace->partner_key == acting->workspace.workspace_id)
	{
		int			i = pp_first_staff(access, workspace->partner_key, workspace->workspace_id);

		if (pp_runs_partner(acting))
			standing |= PP_PARTNER;
		if (i < access->n_staff &&
			access->staff[i].partner_key == workspace->partner_key &&
			access->staff[i].workspace_id == workspace->workspace_id)
			standing |= access->staff[i].role;
	}
	if (pp_runs_partner(acting))
		standing |= pp_grant_standing(pp_grant_of(access, acting->workspace.workspace_id,
												  workspace->workspace_id));
	return standing;
}

/*
 * pp_standing returns how the identity stands to a workspace; 0 is not at all,
 * or there is no such workspace.  The operator's power is not in it.
 */
PpStanding
pp_standing(int64 workspace_id)
{
	const PpAccess *access;
	const PpMembership *acting = pp_current_acting(&access);
	PpWorkspace workspace;

	if (acting == NULL || !pp_workspace(workspace_id, &workspace))
		return 0;
	return pp_standing_by(access, acting, &workspace);
}

/*
 * pp_is_operator tells whether who is asking runs the platform: an operator's
 * account, or a superuser with nobody signed in.  It asks for the outer user,
 * which SECURITY DEFINER does not change.
 */
bool
pp_is_operator(void)
{
	const PpIdentity *identity;

	return pp_access_is_operator(pp_signed_in() ? pp_current_access(&identity) : NULL);
}

/*
 * pp_access_is_operator is pp_is_operator of an access that was looked up.
 */
bool
pp_access_is_operator(const PpAccess *access)
{
	if (!pp_signed_in())
		return superuser_arg(GetOuterUserId());
	return access != NULL && access->is_operator;
}

/*
 * pp_account_id returns the account that is signed in, 0 for nobody.
 */
int64
pp_account_id(void)
{
	const PpIdentity *identity;
	const PpAccess *access = pp_current_access(&identity);

	return access == NULL ? 0 : access->account_id;
}

/*
 * pp_acting_workspace returns the workspace the identity acts in, 0 for none.
 */
int64
pp_acting_workspace(void)
{
	const PpAccess *access;
	const PpMembership *acting = pp_current_acting(&access);

	return acting == NULL ? 0 : acting->workspace.workspace_id;
}

/*
 * pp_may tells whether the identity has a permission on a workspace.
 */
bool
pp_may(const char *name, int64 workspace_id)
{
	const PpPermission *permission = get_permission(name);
	PpWorkspace workspace;

	if (pp_is_operator())
		return pp_workspace(workspace_id, &workspace);
	return (pp_standing(workspace_id) & permission->who) != 0;
}

/*
 * pp_require_somebody raises unless somebody is signed in, or it is the
 * operator.
 */
void
pp_require_somebody(void)
{
	if (pp_account_id() == 0 && !pp_is_operator())
	{
		pp_refused(ERRCODE_INSUFFICIENT_PRIVILEGE, "access", 0, NULL);
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("nobody is signed in"),
				 errhint("Sign in with partner_portal.login().")));
	}
}

/*
 * pp_workspace_not_found raises for a workspace that is absent, or not visible,
 * in the same words.
 */
void
pp_workspace_not_found(int64 workspace_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_NO_DATA_FOUND),
			 errmsg("workspace %lld not found", (long long) workspace_id)));
}

/*
 * pp_authorize returns when the identity has a permission on a workspace, and
 * raises otherwise; with the operator's power, only when there is no such
 * workspace.
 */
void
pp_authorize(const char *name, int64 workspace_id)
{
	const PpPermission *permission = get_permission(name);
	PpStanding	standing = 0;
	PpWorkspace workspace;

	if (pp_is_operator())
	{
		if (pp_workspace(workspace_id, &workspace))
			return;
	}
	else
	{
		pp_require_somebody();
		standing = pp_standing(workspace_id);
	}
	if (standing == 0)
	{
		pp_refused(ERRCODE_NO_DATA_FOUND, permission->name, workspace_id, NULL);
		pp_workspace_not_found(workspace_id);
	}
	if ((standing & permission->who) == 0)
	{
		pp_refused(ERRCODE_INSUFFICIENT_PRIVILEGE, permission->name, workspace_id, NULL);
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission \"%s\" denied on workspace %lld",
						name, (long long) workspace_id)));
	}
}

/*
 * authorize is the one gate in SQL.
 */
Datum
partner_portal_authorize(PG_FUNCTION_ARGS)
{
	char	   *permission;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("permission must not be null")));
	permission = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (PG_ARGISNULL(1))
	{
		(void) get_permission(permission);
		pp_require_somebody();
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("workspace_id must not be null"),
				 errhint("Name a workspace, or choose where to act with partner_portal.act_in().")));
	}
	pp_authorize(permission, PG_GETARG_INT64(1));
	PG_RETURN_VOID();
}

/*
 * may is the question without the refusal.
 */
Datum
partner_portal_may(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(pp_may(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_INT64(1)));
}
