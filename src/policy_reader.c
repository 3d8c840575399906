/*-------------------------------------------------------------------------
 *
 * policy_reader.c
 *		What row level security asks of the identity.
 *
 * These functions never raise, whatever they are asked, and are STABLE,
 * PARALLEL SAFE and LEAKPROOF; nobody, an unknown permission or an account
 * that acts nowhere gets NULL or nothing.
 *
 * Most of them come in two forms: pp_read_X() answers for an access that was
 * looked up already, so that several questions need one look-up
 * (policy_question.c), and the SQL function looks it up itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "partner_portal.h"

#define SHORT_LIST	8			/* not worth keeping */
#define KEPT_LISTS	8

/* A list of workspaces as it was put together before. */
typedef struct KeptList
{
	uint64		serial;			/* of the access that it follows from; 0 is no
								 * list */
	int64		partner_id;
	PpStanding	who;
	PpStanding	granted;
	ArrayType  *list;
} KeptList;

static KeptList kept_lists[KEPT_LISTS];

PG_FUNCTION_INFO_V1(partner_portal_is_operator);
PG_FUNCTION_INFO_V1(partner_portal_current_account_id);
PG_FUNCTION_INFO_V1(partner_portal_current_workspace_id);
PG_FUNCTION_INFO_V1(partner_portal_current_partner_id);
PG_FUNCTION_INFO_V1(partner_portal_acting_role);
PG_FUNCTION_INFO_V1(partner_portal_looks_after);
PG_FUNCTION_INFO_V1(partner_portal_own_workspace);
PG_FUNCTION_INFO_V1(partner_portal_granted_workspaces);
PG_FUNCTION_INFO_V1(partner_portal_complete_workspaces);
PG_FUNCTION_INFO_V1(partner_portal_product_workspaces);
PG_FUNCTION_INFO_V1(partner_portal_limited_workspaces);
PG_FUNCTION_INFO_V1(partner_portal_product_ok);
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
 * read_now answers a question by the access there is now.
 */
static Datum
read_now(FunctionCallInfo fcinfo, PpReader reader)
{
	const PpAccess *access;
	const PpMembership *acting = pp_current_acting(&access);

	return reader(access, acting, PG_NARGS() > 0 ? PG_GETARG_DATUM(0) : (Datum) 0, &fcinfo->isnull);
}

/*
 * read_id returns an id, or NULL for 0.
 */
static Datum
read_id(int64 id, bool *isnull)
{
	*isnull = id == 0;
	return Int64GetDatum(id);
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
pp_read_account(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull)
{
	return read_id(access == NULL ? 0 : access->account_id, isnull);
}

Datum
partner_portal_current_account_id(PG_FUNCTION_ARGS)
{
	return read_now(fcinfo, pp_read_account);
}

/*
 * current_workspace_id returns the acting workspace.
 */
Datum
pp_read_workspace(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull)
{
	return read_id(acting == NULL ? 0 : acting->workspace.workspace_id, isnull);
}

Datum
partner_portal_current_workspace_id(PG_FUNCTION_ARGS)
{
	return read_now(fcinfo, pp_read_workspace);
}

/*
 * current_partner_id returns the acting workspace if it is a partner.
 */
Datum
pp_read_partner(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull)
{
	return read_id(acting == NULL || !acting->workspace.is_partner ? 0 : acting->workspace.workspace_id, isnull);
}

Datum
partner_portal_current_partner_id(PG_FUNCTION_ARGS)
{
	return read_now(fcinfo, pp_read_partner);
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
pp_read_own(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull)
{
	const PpPermission *permission = find_permission_text(DatumGetTextPP(argument));

	if (permission == NULL || acting == NULL ||
		(pp_standing_by(access, acting, &acting->workspace) & permission->who) == 0)
		return read_id(0, isnull);
	return read_id(acting->workspace.workspace_id, isnull);
}

Datum
partner_portal_own_workspace(PG_FUNCTION_ARGS)
{
	return read_now(fcinfo, pp_read_own);
}

/*
 * find_list returns a list that was kept, or NULL.
 */
static const ArrayType *
find_list(uint64 serial, int64 partner_id, PpStanding who, PpStanding granted)
{
	for (int i = 0; i < KEPT_LISTS; i++)
		if (kept_lists[i].serial == serial && kept_lists[i].partner_id == partner_id &&
			kept_lists[i].who == who && kept_lists[i].granted == granted)
			return kept_lists[i].list;
	return NULL;
}

/*
 * keep_list keeps a list in place of the oldest.
 */
static void
keep_list(uint64 serial, int64 partner_id, PpStanding who, PpStanding granted, const ArrayType *list)
{
	static int	next = 0;
	KeptList   *kept = &kept_lists[next];
	ArrayType  *copy = MemoryContextAlloc(CacheMemoryContext, VARSIZE(list));

	next = (next + 1) % KEPT_LISTS;
	memcpy(copy, list, VARSIZE(list));
	if (kept->list != NULL)
		pfree(kept->list);
	kept->serial = serial;
	kept->partner_id = partner_id;
	kept->who = who;
	kept->granted = granted;
	kept->list = copy;
}

/*
 * list_workspaces returns the workspaces on which one has some of the standings
 * by being their staff or by what they granted, as an array that is the
 * caller's; those of whom one is the partner are found by partner_key.  Policies
 * ask for it with every query, so a long list is put together once and copied.
 */
static Datum
list_workspaces(const PpAccess *access, const PpMembership *acting, PpStanding who, PpStanding granted)
{
	const ArrayType *kept;
	ArrayType  *list;
	Datum	   *ids;
	int64		partner_id;
	int			n = 0;

	if (acting == NULL)
		return PointerGetDatum(construct_empty_array(INT8OID));
	partner_id = acting->workspace.workspace_id;
	if (access->n_staff + access->n_grants > SHORT_LIST &&
		(kept = find_list(access->serial, partner_id, who, granted)) != NULL)
	{
		list = palloc(VARSIZE(kept));
		memcpy(list, kept, VARSIZE(kept));
		return PointerGetDatum(list);
	}
	ids = palloc(Max(access->n_staff + access->n_grants, 1) * sizeof(Datum));
	for (int i = pp_first_staff(access, partner_id, 0);
		 i < access->n_staff && access->staff[i].partner_key == partner_id; i++)
		if ((access->staff[i].role & who) != 0)
			ids[n++] = Int64GetDatum(access->staff[i].workspace_id);
	if (pp_runs_partner(acting))
		for (int i = pp_first_grant(access, partner_id, 0);
			 i < access->n_grants && access->grants[i].partner_id == partner_id; i++)
			if ((pp_grant_standing(&access->grants[i]) & granted) != 0)
				ids[n++] = Int64GetDatum(access->grants[i].workspace_id);
	list = construct_array(ids, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	if (n > SHORT_LIST)
		keep_list(access->serial, partner_id, who, granted, list);
	return PointerGetDatum(list);
}

/*
 * granted_workspaces returns the customers on which one has a permission as
 * staff or by a complete grant.
 */
Datum
pp_read_granted(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull)
{
	const PpPermission *permission = find_permission_text(DatumGetTextPP(argument));

	*isnull = false;
	if (permission == NULL)
		return PointerGetDatum(construct_empty_array(INT8OID));
	return list_workspaces(access, acting, permission->who, permission->who);
}

Datum
partner_portal_granted_workspaces(PG_FUNCTION_ARGS)
{
	return read_now(fcinfo, pp_read_granted);
}

/*
 * complete_workspaces returns the customers on which one has a permission by a
 * complete grant.
 */
Datum
pp_read_complete(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull)
{
	const PpPermission *permission = find_permission_text(DatumGetTextPP(argument));

	*isnull = false;
	if (permission == NULL)
		return PointerGetDatum(construct_empty_array(INT8OID));
	return list_workspaces(access, acting, 0, permission->who);
}

Datum
partner_portal_complete_workspaces(PG_FUNCTION_ARGS)
{
	return read_now(fcinfo, pp_read_complete);
}

/*
 * product_workspaces returns the customers on some of whose products one may
 * have a permission; product_ok() says on which.
 */
Datum
pp_read_products(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull)
{
	const PpPermission *permission = find_permission_text(DatumGetTextPP(argument));

	*isnull = false;
	if (permission == NULL)
		return PointerGetDatum(construct_empty_array(INT8OID));
	return list_workspaces(access, acting, permission->who, permission->who | PP_GRANT_LIMITED);
}

Datum
partner_portal_product_workspaces(PG_FUNCTION_ARGS)
{
	return read_now(fcinfo, pp_read_products);
}

/*
 * limited_workspaces returns the customers of whom one knows no more than that
 * they granted access to some products.
 */
Datum
pp_read_limited(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull)
{
	*isnull = false;
	return list_workspaces(access, acting, 0, PP_GRANT_LIMITED);
}

Datum
partner_portal_limited_workspaces(PG_FUNCTION_ARGS)
{
	return read_now(fcinfo, pp_read_limited);
}

/*
 * product_ok tells whether one has a permission on a product, as of the latest
 * commit.
 */
Datum
partner_portal_product_ok(PG_FUNCTION_ARGS)
{
	const PpPermission *permission = find_permission_text(PG_GETARG_TEXT_PP(0));
	const PpAccess *access;
	const PpMembership *acting;
	PpWorkspace workspace;
	PpProduct	product;

	if (permission == NULL)
		PG_RETURN_BOOL(false);
	if (pp_is_operator())
		PG_RETURN_BOOL(true);
	if (!pp_product(PG_GETARG_INT64(2), &product) ||
		product.workspace_id != PG_GETARG_INT64(1) ||
		!pp_workspace(product.workspace_id, &workspace))
		PG_RETURN_BOOL(false);
	acting = pp_current_acting(&access);
	PG_RETURN_BOOL(acting != NULL &&
				   (pp_product_standing(access, acting, &workspace, &product) & permission->who) != 0);
}

/*
 * partner_key_range returns an end of the range of partner_key that is the
 * identity's to look after: its own at both, for the operator the end given;
 * NULL if it looks after nobody.
 */
static Datum
partner_key_range(const PpAccess *access, const PpMembership *acting, int64 of_operator, bool *isnull)
{
	*isnull = false;
	if (pp_access_is_operator(access))
		return Int64GetDatum(of_operator);
	return read_id(acting == NULL || !pp_runs_partner(acting) ? 0 : acting->workspace.workspace_id, isnull);
}

/*
 * lowest_partner_key returns the lower end of partner_key_range.
 */
Datum
pp_read_lowest(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull)
{
	return partner_key_range(access, acting, 0, isnull);
}

Datum
partner_portal_lowest_partner_key(PG_FUNCTION_ARGS)
{
	return read_now(fcinfo, pp_read_lowest);
}

/*
 * highest_partner_key returns the upper end of partner_key_range.
 */
Datum
pp_read_highest(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull)
{
	return partner_key_range(access, acting, PG_INT64_MAX, isnull);
}

Datum
partner_portal_highest_partner_key(PG_FUNCTION_ARGS)
{
	return read_now(fcinfo, pp_read_highest);
}
