/*-------------------------------------------------------------------------
 *
 * portal_plan.c
 *		Plans of isolated tables: what the policies of isolate() tell the planner.
 *
 * A table that isolate() opens to portal users has two conditions: one for those
 * who act in a workspace, one for those who act in a portal.  Joined by OR they
 * take a bitmap scan, which gives no order and no index-only scan, and whose
 * rows the planner misjudges.  So the planner is told which of the two is asked
 * for: acting_in_portal() is a constant to it, and the condition of the others
 * falls away.
 *
 * The plan then depends on that function, and when an identity of another portal
 * (or of none) comes into force, this backend's plans that do are thrown away,
 * as if the function had been changed.  Each condition stands for itself all the
 * same: a plan in the wrong hands shows no row.
 *
 * few_rows() is true, and by its selectivity says that it seldom is.  The planner
 * takes the values it cannot know for ten, all as frequent as the average, and
 * then likes to look for the first rows of an ORDER BY with LIMIT in the whole
 * table; so looking for one's own rows costs what one has, not what others have.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "nodes/supportnodes.h"
#include "optimizer/planmain.h"
#include "utils/inval.h"
#include "utils/syscache.h"

#include "partner_portal.h"

#define FEW_ROWS_SELECTIVITY	0.01

/*
 * For whom this backend's plans are, if there are any.  Nobody's coming into
 * force throws none away, so that they serve one transaction of a portal after
 * the other; what is planned for nobody in between may be beside others.
 */
static bool plans_made = false;
static bool plans_mixed = false;
static int64 plans_portal;
static uint32 function_hash;

PG_FUNCTION_INFO_V1(partner_portal_acting_in_portal);
PG_FUNCTION_INFO_V1(partner_portal_portal_plan_support);
PG_FUNCTION_INFO_V1(partner_portal_few_rows);
PG_FUNCTION_INFO_V1(partner_portal_few_rows_support);

/*
 * acting_in_portal tells whether the identity acts in a portal, be it still a
 * user of it or not.
 */
Datum
partner_portal_acting_in_portal(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(pp_identity_portal() != 0);
}

/*
 * portal_plan_support answers the planner's question for something simpler
 * than acting_in_portal() with what it is now, and ties the plan to it.
 */
Datum
partner_portal_portal_plan_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);
	SupportRequestSimplify *simplify = (SupportRequestSimplify *) request;

	/* without a root there is no plan that could be tied */
	if (!IsA(request, SupportRequestSimplify) || simplify->root == NULL)
		PG_RETURN_POINTER(NULL);
	record_plan_function_dependency(simplify->root, simplify->fcall->funcid);
	function_hash = GetSysCacheHashValue1(PROCOID, ObjectIdGetDatum(simplify->fcall->funcid));
	plans_mixed = plans_made && (plans_mixed || plans_portal != pp_identity_portal());
	plans_portal = pp_identity_portal();
	plans_made = true;
	PG_RETURN_POINTER(makeBoolConst(plans_portal != 0, false));
}

/*
 * pp_plan_for_portal is told the portal of the identity that comes into force, 0
 * for none, and throws away the plans that are for another.  It runs while a
 * setting is assigned, so it must not fail.
 */
void
pp_plan_for_portal(int64 portal_id)
{
	if (!plans_made || (portal_id == plans_portal && !plans_mixed))
		return;
	plans_made = plans_mixed = false;
	CallSyscacheCallbacks(PROCOID, function_hash);
}

/*
 * few_rows is true.
 */
Datum
partner_portal_few_rows(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(true);
}

/*
 * few_rows_support tells the planner that few_rows() seldom is true.
 */
Datum
partner_portal_few_rows_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (!IsA(request, SupportRequestSelectivity))
		PG_RETURN_POINTER(NULL);
	((SupportRequestSelectivity *) request)->selectivity = FEW_ROWS_SELECTIVITY;
	PG_RETURN_POINTER(request);
}
