/*-------------------------------------------------------------------------
 *
 * isolation.c
 *		What the policies of isolate() ask, beside the readers that our own
 *		tables use.
 *
 * An application's table has a column for the workspace and none for its
 * partner, so the workspaces that one may see are listed.  A partner's customers
 * are those of the latest commit, remembered until acl_signal is invalidated.
 *
 * Beside the list there are its ends: the planner knows nothing of the list and
 * would take a table of few workspaces for visible as a whole, whereas a range
 * is small to it, so that an index serves whoever asks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "partner_portal.h"

/* Customers of the partner asked for last; partner_key 0 is all workspaces. */
typedef struct Customers
{
	uint64		generation;		/* 0 is never valid */
	int64		partner_key;
	int			n;
	Datum	   *ids;
	MemoryContext context;
} Customers;

static Customers customers;

/* in policy_reader.c */
extern Datum partner_portal_granted_workspaces(PG_FUNCTION_ARGS);

PG_FUNCTION_INFO_V1(partner_portal_visible_workspaces);
PG_FUNCTION_INFO_V1(partner_portal_lowest_workspace);
PG_FUNCTION_INFO_V1(partner_portal_highest_workspace);
PG_FUNCTION_INFO_V1(partner_portal_portal_workspace_id);

/*
 * find_customers remembers the customers of a partner, or all workspaces for 0.
 * False when the extension is not there.
 */
static bool
find_customers(int64 partner_key)
{
	Oid			schema;
	Oid			table;
	Relation	relation;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	row;
	AttrNumber	id_column;
	MemoryContext context;
	MemoryContext caller;
	uint64		generation = pp_acl_generation();
	Datum	   *ids;
	int			room = 64;
	int			n = 0;

	if (customers.generation == generation && customers.partner_key == partner_key)
		return true;
	if (!pp_acl_schema(&schema))
		return false;
	table = get_relname_relid("workspace", schema);
	if (!OidIsValid(table))
		return false;
	generation = pp_acl_generation();
	customers.generation = 0;
	context = AllocSetContextCreate(CurrentMemoryContext, "partner_portal customers",
									ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(context);
	ids = palloc(room * sizeof(Datum));
	relation = table_open(table, AccessShareLock);
	id_column = get_attnum(table, "workspace_id");
	ScanKeyInit(&key, get_attnum(table, "partner_key"),
				BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(partner_key));
	scan = systable_beginscan(relation, get_relname_relid("workspace_partner_key_idx", schema),
							  true, NULL, partner_key == 0 ? 0 : 1, &key);
	while (HeapTupleIsValid(row = systable_getnext(scan)))
	{
		bool		isnull;

		if (n == room)
		{
			room *= 2;
			ids = repalloc_huge(ids, room * sizeof(Datum));
		}
		ids[n++] = heap_getattr(row, id_column, RelationGetDescr(relation), &isnull);
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	MemoryContextSwitchTo(caller);

	MemoryContextSetParent(context, CacheMemoryContext);
	if (customers.context != NULL)
		MemoryContextDelete(customers.context);
	customers.context = context;
	customers.partner_key = partner_key;
	customers.ids = ids;
	customers.n = n;
	customers.generation = generation;
	return true;
}

/*
 * visible_workspaces returns the workspaces on which one has a permission: one's
 * own, those of which one runs the partner, and those of a grant or an
 * assignment; for the operator all there are.  The list is the caller's.
 */
static Datum *
visible_workspaces(Datum permission_name, int *n)
{
	text	   *name = DatumGetTextPP(permission_name);
	const PpPermission *permission = pp_find_permission(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	const PpAccess *access;
	const PpMembership *acting;
	bool		is_operator = pp_is_operator();
	bool		runs_partner;
	int64		own = 0;
	int64		partner_key;
	Datum	   *granted;
	Datum	   *ids;
	int			n_granted;

	*n = 0;
	acting = pp_current_acting(&access);
	if (permission == NULL || (acting == NULL && !is_operator))
		return NULL;
	partner_key = is_operator ? 0 : acting->workspace.workspace_id;
	runs_partner = is_operator ||
		(pp_runs_partner(acting) && (permission->who & PP_PARTNER) != 0);
	if (!is_operator && (pp_standing_by(access, acting, &acting->workspace) & permission->who) != 0)
		own = acting->workspace.workspace_id;
	deconstruct_array(DatumGetArrayTypeP(DirectFunctionCall1(partner_portal_granted_workspaces,
															 permission_name)),
					  INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &granted, NULL, &n_granted);
	if (runs_partner && !find_customers(partner_key))
		runs_partner = false;
	ids = palloc((1 + n_granted + (runs_partner ? customers.n : 0)) * sizeof(Datum));
	if (own != 0)
		ids[(*n)++] = Int64GetDatum(own);
	if (n_granted > 0)
		memcpy(ids + *n, granted, n_granted * sizeof(Datum));
	*n += n_granted;
	if (runs_partner && customers.n > 0)
	{
		memcpy(ids + *n, customers.ids, customers.n * sizeof(Datum));
		*n += customers.n;
	}
	return ids;
}

/*
 * visible_workspaces returns them as an array.  For policies.
 */
Datum
partner_portal_visible_workspaces(PG_FUNCTION_ARGS)
{
	int			n;
	Datum	   *ids = visible_workspaces(PG_GETARG_DATUM(0), &n);

	PG_RETURN_ARRAYTYPE_P(construct_array(ids, n, INT8OID, sizeof(int64),
										  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/*
 * lowest_workspace returns the least of visible_workspaces.
 */
Datum
partner_portal_lowest_workspace(PG_FUNCTION_ARGS)
{
	int			n;
	Datum	   *ids = visible_workspaces(PG_GETARG_DATUM(0), &n);
	int64		lowest = PG_INT64_MAX;

	if (n == 0)
		PG_RETURN_NULL();
	for (int i = 0; i < n; i++)
		lowest = Min(lowest, DatumGetInt64(ids[i]));
	PG_RETURN_INT64(lowest);
}

/*
 * highest_workspace returns the greatest of visible_workspaces.
 */
Datum
partner_portal_highest_workspace(PG_FUNCTION_ARGS)
{
	int			n;
	Datum	   *ids = visible_workspaces(PG_GETARG_DATUM(0), &n);
	int64		highest = 0;

	if (n == 0)
		PG_RETURN_NULL();
	for (int i = 0; i < n; i++)
		highest = Max(highest, DatumGetInt64(ids[i]));
	PG_RETURN_INT64(highest);
}

/*
 * portal_workspace_id returns the partner of the portal one acts in.
 */
Datum
partner_portal_portal_workspace_id(PG_FUNCTION_ARGS)
{
	const PpIdentity *identity;
	const PpAccess *access = pp_current_access(&identity);
	const PpPortalUser *user = NULL;

	if (access != NULL && identity->portal_id != 0)
		user = pp_portal_user(access, identity->portal_id);
	if (user == NULL)
		PG_RETURN_NULL();
	PG_RETURN_INT64(user->workspace_id);
}
