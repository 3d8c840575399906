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
 * Functions for policies never raise, whatever they are asked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
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

PG_FUNCTION_INFO_V1(partner_portal_current_account_id);
PG_FUNCTION_INFO_V1(partner_portal_current_workspace_id);
PG_FUNCTION_INFO_V1(partner_portal_current_partner_id);
PG_FUNCTION_INFO_V1(partner_portal_current_portal_id);
PG_FUNCTION_INFO_V1(partner_portal_is_operator);
PG_FUNCTION_INFO_V1(partner_portal_acting_role);
PG_FUNCTION_INFO_V1(partner_portal_looks_after);
PG_FUNCTION_INFO_V1(partner_portal_own_workspace);
PG_FUNCTION_INFO_V1(partner_portal_granted_workspaces);
PG_FUNCTION_INFO_V1(partner_portal_lowest_partner_key);
PG_FUNCTION_INFO_V1(partner_portal_highest_partner_key);
PG_FUNCTION_INFO_V1(partner_portal_may);
PG_FUNCTION_INFO_V1(partner_portal_authorize);

/*
 * find_permission returns the permission of that name, or NULL.
 */
static const PpPermission *
find_permission(const char *name, int length)
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
 * find_permission_text is find_permission for an SQL text.
 */
static const PpPermission *
find_permission_text(const text *name)
{
	return find_permission(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
}

/*
 * get_permission is find_permission for those who must know what they ask.
 */
static const PpPermission *
get_permission(const char *name)
{
	const PpPermission *permission = find_permission(name, strlen(name));

	if (permission == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown permission \"%.*s\"",
						pg_mbcliplen(name, strlen(name), 64), name)));
	return permission;
}

/*
 * current_access returns the identity and what its account may rest on; NULL
 * when nobody is signed in, or it has expired, or the account is disabled,
 * erased or gone.
 */
static const PpAccess *
current_access(const PpIdentity **identity)
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
	return membership->accepted && !membership->workspace.deleted;
}

/*
 * pp_acting_membership returns the membership by which one acts: the one chosen
 * if it still counts, or the only one that counts; else NULL.
 */
const PpMembership *
pp_acting_membership(const PpAccess *access, const PpIdentity *identity)
{
	const PpMembership *only = NULL;

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
 * current_acting is pp_acting_membership of the identity; NULL for nobody too.
 */
static const PpMembership *
current_acting(const PpAccess **access)
{
	const PpIdentity *identity;

	*access = current_access(&identity);
	return *access == NULL ? NULL : pp_acting_membership(*access, identity);
}

/*
 * runs tells whether a membership is that of an owner or administrator of a
 * partner.
 */
static bool
runs_partner(const PpMembership *membership)
{
	return membership->workspace.is_partner &&
		(membership->role & (PP_OWNER | PP_ADMINISTRATOR)) != 0;
}

/*
 * first_staff returns the position of the first of the account's assignments
 * that is not before the given partner and workspace.
 */
static int
first_staff(const PpAccess *access, int64 partner_key, int64 workspace_id)
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
		return acting->role | (runs_partner(acting) ? PP_OWN_PARTNER : 0);
	if (workspace->partner_key == acting->workspace.workspace_id)
	{
		int			i = first_staff(access, workspace->partner_key, workspace->workspace_id);

		if (runs_partner(acting))
			standing |= PP_PARTNER;
		if (i < access->n_staff &&
			access->staff[i].partner_key == workspace->partner_key &&
			access->staff[i].workspace_id == workspace->workspace_id)
			standing |= access->staff[i].role;
	}
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
	const PpMembership *acting = current_acting(&access);
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
	const PpAccess *access;

	if (!pp_signed_in())
		return superuser_arg(GetOuterUserId());
	access = current_access(&identity);
	return access != NULL && access->is_operator;
}

/*
 * pp_account_id returns the account that is signed in, 0 for nobody.
 */
int64
pp_account_id(void)
{
	const PpIdentity *identity;
	const PpAccess *access = current_access(&identity);

	return access == NULL ? 0 : access->account_id;
}

/*
 * pp_acting_workspace returns the workspace the identity acts in, 0 for none.
 */
int64
pp_acting_workspace(void)
{
	const PpAccess *access;
	const PpMembership *acting = current_acting(&access);

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
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("nobody is signed in"),
				 errhint("Sign in with partner_portal.login().")));
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
		pp_workspace_not_found(workspace_id);
	if ((standing & permission->who) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission \"%s\" denied on workspace %lld",
						name, (long long) workspace_id)));
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

Datum
partner_portal_is_operator(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(pp_is_operator());
}

Datum
partner_portal_current_account_id(PG_FUNCTION_ARGS)
{
	int64		account_id = pp_account_id();

	if (account_id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(account_id);
}

Datum
partner_portal_current_workspace_id(PG_FUNCTION_ARGS)
{
	int64		workspace_id = pp_acting_workspace();

	if (workspace_id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(workspace_id);
}

Datum
partner_portal_current_partner_id(PG_FUNCTION_ARGS)
{
	const PpAccess *access;
	const PpMembership *acting = current_acting(&access);

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
	const PpMembership *acting = current_acting(&access);

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

Datum
partner_portal_own_workspace(PG_FUNCTION_ARGS)
{
	const PpPermission *permission = find_permission_text(PG_GETARG_TEXT_PP(0));
	const PpAccess *access;
	const PpMembership *acting = current_acting(&access);

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
	const PpMembership *acting = current_acting(&access);
	Datum	   *ids;
	int64		partner_key;
	int			n = 0;

	if (permission == NULL || acting == NULL)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(INT8OID));
	partner_key = acting->workspace.workspace_id;
	ids = palloc(Max(access->n_staff, 1) * sizeof(Datum));
	for (int i = first_staff(access, partner_key, 0);
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
	acting = current_acting(&access);
	if (acting == NULL || !runs_partner(acting))
		return false;
	*lowest = *highest = acting->workspace.workspace_id;
	return true;
}

Datum
partner_portal_lowest_partner_key(PG_FUNCTION_ARGS)
{
	int64		lowest;
	int64		highest;

	if (!partner_key_range(&lowest, &highest))
		PG_RETURN_NULL();
	PG_RETURN_INT64(lowest);
}

Datum
partner_portal_highest_partner_key(PG_FUNCTION_ARGS)
{
	int64		lowest;
	int64		highest;

	if (!partner_key_range(&lowest, &highest))
		PG_RETURN_NULL();
	PG_RETURN_INT64(highest);
}

/*
 * current_portal_id returns the portal one acts in.
 */
Datum
partner_portal_current_portal_id(PG_FUNCTION_ARGS)
{
	const PpIdentity *identity;

	if (current_access(&identity) == NULL || identity->portal_id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(identity->portal_id);
}
