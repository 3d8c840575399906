/*-------------------------------------------------------------------------
 *
 * policy_plan.c
 *		Plans in which what policies ask of the identity is asked in one step.
 *
 * Policies ask by sub-selects of a reader: (SELECT partner_portal.own_workspace(
 * 'read')).  PostgreSQL makes an initplan of each, a plan of its own that is set
 * up in every execution, its function looked up and its privilege checked; five
 * of them cost more than the look-up of a row.  So when a plan is made, the
 * questions of each of its nodes are taken together into one initplan, which
 * gives all answers when the first is wanted, and asks the same question once.
 * Answers are those of the execution, never of the plan, and nothing else of the
 * plan changes: it depends on the readers as before, so that it is made anew when
 * one of them is replaced.
 *
 * Questions of a WITH CHECK are kept apart from the others, and by its kind:
 * they are asked after triggers and locks may have waited for somebody who ended
 * the access, and must see that.
 *
 * The one initplan is an EXISTS whose node puts the answers into the parameters
 * (policy_question.c).  Of EXISTS the executor takes no column, so no row is
 * described, formed and taken apart again; what EXISTS itself says goes into the
 * first parameter, which is added for it and read by nobody.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
#include "optimizer/planner.h"

#include "partner_portal.h"

#define CHECK_KINDS	8			/* kinds of WITH CHECK there may be */

/* What is known of a plan while it is gone through. */
typedef struct Merge
{
	PlannedStmt *stmt;
	Bitmapset  *checked[CHECK_KINDS];	/* parameters that WITH CHECKs of each
										 * kind ask for */
} Merge;

static planner_hook_type prev_planner = NULL;

/*
 * find_checked notes the parameters that an expression asks for.
 */
static bool
find_checked(Node *node, Bitmapset **params)
{
	if (node == NULL)
		return false;
	if (IsA(node, Param))
	{
		if (((Param *) node)->paramkind == PARAM_EXEC)
			*params = bms_add_member(*params, ((Param *) node)->paramid);
		return false;
	}
	return expression_tree_walker(node, find_checked, (void *) params);
}

/*
 * question_of returns the call of a reader that an initplan consists of, or NULL
 * if it is anything else.
 */
static FuncExpr *
question_of(PlannedStmt *stmt, SubPlan *subplan)
{
	Plan	   *plan = list_nth(stmt->subplans, subplan->plan_id - 1);
	TargetEntry *column;
	FuncExpr   *call;

	if (subplan->subLinkType != EXPR_SUBLINK || list_length(subplan->setParam) != 1)
		return NULL;
	if (plan == NULL || (IsA(plan, CustomScan) && ((CustomScan *) plan)->methods == &pp_question_methods))
		elog(ERROR, "plan of \"%s\" has another use", subplan->plan_name);
	if (!IsA(plan, Result) || ((Result *) plan)->resconstantqual != NULL || plan->lefttree != NULL ||
		plan->qual != NIL || plan->initPlan != NIL || list_length(plan->targetlist) != 1)
		return NULL;
	column = linitial_node(TargetEntry, plan->targetlist);
	if (column->resjunk || !IsA(column->expr, FuncExpr))
		return NULL;
	call = (FuncExpr *) column->expr;
	return pp_is_question(call) ? call : NULL;
}

/*
 * start_questions turns the initplan of a question into one of several.
 */
static CustomScan *
start_questions(Merge *merge, Plan *owner, SubPlan *subplan)
{
	PlannedStmt *stmt = merge->stmt;
	ListCell   *place = list_nth_cell(stmt->subplans, subplan->plan_id - 1);
	Plan	   *plan = lfirst(place);
	CustomScan *scan = makeNode(CustomScan);
	int			param = list_length(stmt->paramExecTypes);

	scan->scan.plan.plan_node_id = plan->plan_node_id;
	scan->scan.plan.plan_rows = 1;
	scan->scan.plan.parallel_safe = true;
	scan->custom_private = list_make3(NIL, NIL, NIL);
	scan->methods = &pp_question_methods;
	lfirst(place) = scan;

	/* what EXISTS itself says, true, goes nowhere */
	stmt->paramExecTypes = lappend_oid(stmt->paramExecTypes, BOOLOID);
	owner->allParam = bms_add_member(owner->allParam, param);
	subplan->subLinkType = EXISTS_SUBLINK;
	subplan->firstColType = BOOLOID;
	subplan->firstColTypmod = -1;
	subplan->firstColCollation = InvalidOid;
	subplan->setParam = list_make1_int(param);
	return scan;
}

/*
 * add_question adds a question, whose plan was this and whose answer goes into
 * a parameter, to those that are asked together.
 */
static void
add_question(CustomScan *scan, SubPlan *together, Plan *plan, FuncExpr *call, int param)
{
	ListCell   *calls = list_nth_cell(scan->custom_private, 0);
	ListCell   *answered = list_nth_cell(scan->custom_private, 1);
	int			i = 0;

	scan->scan.plan.total_cost += plan->total_cost;
	scan->scan.plan.plan_width += plan->plan_width;
	scan->scan.plan.parallel_safe &= plan->parallel_safe;
	together->setParam = lappend_int(together->setParam, param);
	while (i < list_length(lfirst(calls)) && !equal(list_nth(lfirst(calls), i), call))
		i++;
	if (i < list_length(lfirst(calls)))
	{
		ListCell   *params = list_nth_cell(lfirst(answered), i);

		lfirst(params) = lappend_int(lfirst(params), param);
		return;
	}
	lfirst(calls) = lappend(lfirst(calls), call);
	lfirst(answered) = lappend(lfirst(answered), list_make1_int(param));
}

/*
 * finish_questions names the initplan as EXPLAIN shows it: up to PostgreSQL 16
 * the parameters are in its name.
 */
static void
finish_questions(CustomScan *scan, SubPlan *subplan)
{
	char	   *returns = strstr(subplan->plan_name, " (returns ");
	StringInfoData name;
	ListCell   *param;

	lfirst(list_nth_cell(scan->custom_private, 2)) = list_copy(subplan->setParam);
	if (returns == NULL)
		return;
	initStringInfo(&name);
	appendBinaryStringInfo(&name, subplan->plan_name, returns - subplan->plan_name);
	for_each_from(param, subplan->setParam, 1)
		appendStringInfo(&name, "%s$%d", foreach_current_index(param) == 1 ? " (returns " : ",",
						 lfirst_int(param));
	appendStringInfoChar(&name, ')');
	subplan->plan_name = name.data;
}

/*
 * group_of returns with which of the others a parameter's question is asked: 0
 * for those of no WITH CHECK, -1 for none.
 */
static int
group_of(const Merge *merge, int param)
{
	int			group = 0;

	for (int kind = 0; kind < CHECK_KINDS; kind++)
	{
		if (!bms_is_member(param, merge->checked[kind]))
			continue;
		if (group != 0)
			return -1;
		group = kind + 1;
	}
	return group;
}

/*
 * merge_questions takes the questions of one node of the plan together.
 */
static void
merge_questions(Merge *merge, Plan *owner)
{
	CustomScan *scans[CHECK_KINDS + 1] = {0};
	SubPlan    *together[CHECK_KINDS + 1];
	List	   *kept = NIL;
	ListCell   *cell;

	foreach(cell, owner->initPlan)
	{
		SubPlan    *subplan = lfirst_node(SubPlan, cell);
		FuncExpr   *call = question_of(merge->stmt, subplan);
		int			param = call == NULL ? -1 : linitial_int(subplan->setParam);
		int			group = call == NULL ? -1 : group_of(merge, param);
		Plan	   *plan;

		if (group < 0)
		{
			kept = lappend(kept, subplan);
			continue;
		}
		plan = list_nth(merge->stmt->subplans, subplan->plan_id - 1);
		if (scans[group] == NULL)
		{
			scans[group] = start_questions(merge, owner, subplan);
			together[group] = subplan;
			kept = lappend(kept, subplan);
		}
		else
			lfirst(list_nth_cell(merge->stmt->subplans, subplan->plan_id - 1)) = NULL;
		add_question(scans[group], together[group], plan, call, param);
	}
	for (int group = 0; group <= CHECK_KINDS; group++)
		if (scans[group] != NULL)
			finish_questions(scans[group], together[group]);
	owner->initPlan = kept;
}

static void visit_plan(Merge *merge, Plan *plan, void (*visit) (Merge *merge, Plan *plan));

/*
 * visit_plans visits each of some plans.
 */
static void
visit_plans(Merge *merge, List *plans, void (*visit) (Merge *merge, Plan *plan))
{
	ListCell   *cell;

	foreach(cell, plans)
		visit_plan(merge, lfirst(cell), visit);
}

/*
 * visit_plan calls a function with a plan and with each below it.
 */
static void
visit_plan(Merge *merge, Plan *plan, void (*visit) (Merge *merge, Plan *plan))
{
	if (plan == NULL)
		return;
	check_stack_depth();
	visit(merge, plan);
	visit_plan(merge, plan->lefttree, visit);
	visit_plan(merge, plan->righttree, visit);
	switch (nodeTag(plan))
	{
		case T_Append:
			visit_plans(merge, ((Append *) plan)->appendplans, visit);
			break;
		case T_MergeAppend:
			visit_plans(merge, ((MergeAppend *) plan)->mergeplans, visit);
			break;
		case T_SubqueryScan:
			visit_plan(merge, ((SubqueryScan *) plan)->subplan, visit);
			break;
		case T_CustomScan:
			visit_plans(merge, ((CustomScan *) plan)->custom_plans, visit);
			break;
		default:
			break;
	}
}

/*
 * note_checks notes what the WITH CHECKs of a node ask for.
 */
static void
note_checks(Merge *merge, Plan *plan)
{
	ListCell   *target;
	ListCell   *cell;

	if (!IsA(plan, ModifyTable))
		return;
	foreach(target, ((ModifyTable *) plan)->withCheckOptionLists)
	{
		foreach(cell, (List *) lfirst(target))
		{
			WithCheckOption *check = lfirst_node(WithCheckOption, cell);

			if ((unsigned) check->kind >= CHECK_KINDS)
				elog(ERROR, "unrecognized WITH CHECK kind: %d", (int) check->kind);
			(void) find_checked(check->qual, &merge->checked[check->kind]);
		}
	}
}

/*
 * make_plan has the plan made, and takes its questions together.
 */
static PlannedStmt *
make_plan(Query *parse, const char *query_string, int cursor_options, ParamListInfo params)
{
	PlannedStmt *stmt;
	Merge		merge = {0};

	if (prev_planner)
		stmt = prev_planner(parse, query_string, cursor_options, params);
	else
		stmt = standard_planner(parse, query_string, cursor_options, params);
	if (stmt->subplans == NIL || !pp_ask_together)
		return stmt;
	merge.stmt = stmt;
	visit_plan(&merge, stmt->planTree, note_checks);
	visit_plans(&merge, stmt->subplans, note_checks);
	visit_plan(&merge, stmt->planTree, merge_questions);
	visit_plans(&merge, stmt->subplans, merge_questions);
	return stmt;
}

/*
 * pp_policy_plan_hooks has plans pass through here.
 */
void
pp_policy_plan_hooks(void)
{
	RegisterCustomScanMethods(&pp_question_methods);
	prev_planner = planner_hook;
	planner_hook = make_plan;
}
