/*-------------------------------------------------------------------------
 *
 * policy_question.c
 *		Asking what a plan's policies want to know of the identity, in one step.
 *
 * A question is a call of one of our readers with constant arguments.  The node
 * defined here asks those that policy_plan.c gave it, and puts the answers where
 * the plan's parameters are by itself, each into all that want it.  It calls the
 * readers directly; what an expression would set up for them in every execution,
 * privilege included, is looked up once.
 *
 * Who may not execute a reader is refused when the execution begins, as with any
 * function.  That somebody may is remembered until the reader, its privileges, a
 * role or a membership changes.  A reader that somebody replaced by something
 * else is none, and plans with it are made anew.  What is not done is counting
 * the calls for track_functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

#include "partner_portal.h"

#define NODE_NAME	"partner_portal identity"

/* A function that questions are put to. */
typedef struct Reader
{
	const char *name;
	const char *symbol;
	PGFunction	function;
	PpReader	read;			/* the same, of an access that was looked up;
								 * or NULL */
	int			nargs;			/* of type text */
	Oid			oid;			/* InvalidOid until found, or where it is not
								 * ours */
	uint32		hash;			/* of the oid in the catalog cache */
	bool		executable;		/* by checked_role */
} Reader;

#define READER(name, read, nargs) \
	{#name, "partner_portal_" #name, partner_portal_##name, read, nargs, InvalidOid, 0, false}

extern Datum partner_portal_is_operator(PG_FUNCTION_ARGS);
extern Datum partner_portal_current_account_id(PG_FUNCTION_ARGS);
extern Datum partner_portal_current_workspace_id(PG_FUNCTION_ARGS);
extern Datum partner_portal_current_partner_id(PG_FUNCTION_ARGS);
extern Datum partner_portal_current_portal_id(PG_FUNCTION_ARGS);
extern Datum partner_portal_acting_role(PG_FUNCTION_ARGS);
extern Datum partner_portal_own_workspace(PG_FUNCTION_ARGS);
extern Datum partner_portal_lowest_partner_key(PG_FUNCTION_ARGS);
extern Datum partner_portal_highest_partner_key(PG_FUNCTION_ARGS);
extern Datum partner_portal_granted_workspaces(PG_FUNCTION_ARGS);
extern Datum partner_portal_complete_workspaces(PG_FUNCTION_ARGS);
extern Datum partner_portal_product_workspaces(PG_FUNCTION_ARGS);
extern Datum partner_portal_limited_workspaces(PG_FUNCTION_ARGS);
extern Datum partner_portal_visible_workspaces(PG_FUNCTION_ARGS);
extern Datum partner_portal_portal_folders(PG_FUNCTION_ARGS);
extern Datum partner_portal_portal_workspace_id(PG_FUNCTION_ARGS);
extern Datum partner_portal_attribute(PG_FUNCTION_ARGS);

static Reader readers[] = {
	READER(current_account_id, pp_read_account, 0),
	READER(own_workspace, pp_read_own, 1),
	READER(lowest_partner_key, pp_read_lowest, 0),
	READER(highest_partner_key, pp_read_highest, 0),
	READER(granted_workspaces, pp_read_granted, 1),
	READER(visible_workspaces, NULL, 1),
	READER(current_partner_id, pp_read_partner, 0),
	READER(complete_workspaces, pp_read_complete, 1),
	READER(product_workspaces, pp_read_products, 1),
	READER(limited_workspaces, pp_read_limited, 0),
	READER(attribute, NULL, 1),
	READER(portal_folders, NULL, 1),
	READER(current_portal_id, NULL, 0),
	READER(portal_workspace_id, NULL, 0),
	READER(current_workspace_id, pp_read_workspace, 0),
	READER(is_operator, NULL, 0),
	READER(acting_role, NULL, 0),
};

static bool readers_found = false;
static bool readers_complete = false;	/* each was found */
static Oid	checked_role = InvalidOid;

/* The node while it runs, with the reader of each question. */
typedef struct QuestionsState
{
	CustomScanState css;
	Reader	   *readers[FLEXIBLE_ARRAY_MEMBER];
} QuestionsState;

/*
 * forget_readers forgets where the readers are when one may be another, or its
 * privileges; the support function of isolate()'s policies sends such messages
 * for its own, which must not cost anything here.
 */
static void
forget_readers(Datum arg, int cache, uint32 hash)
{
	bool		ours = hash == 0 || cache != PROCOID || !readers_complete;

	for (int i = 0; i < lengthof(readers) && !ours; i++)
		ours = readers[i].hash == hash;
	if (ours)
	{
		readers_found = false;
		checked_role = InvalidOid;
	}
}

/*
 * forget_checks forgets who may execute what.
 */
static void
forget_checks(Datum arg, int cache, uint32 hash)
{
	checked_role = InvalidOid;
}

/*
 * is_reader tells whether a function is what we take it for, and nobody put
 * something else in its place.
 */
static bool
is_reader(HeapTuple tuple, const Reader *reader)
{
	Form_pg_proc function = (Form_pg_proc) GETSTRUCT(tuple);
	bool		isnull;
	Datum		source = SysCacheGetAttr(PROCNAMEARGSNSP, tuple, Anum_pg_proc_prosrc, &isnull);

	if (isnull || function->prolang != ClanguageId || function->provolatile != PROVOLATILE_STABLE ||
		function->proretset || function->prosecdef ||
		strcmp(TextDatumGetCString(source), reader->symbol) != 0)
		return false;
	(void) SysCacheGetAttr(PROCNAMEARGSNSP, tuple, Anum_pg_proc_proconfig, &isnull);
	return isnull;
}

/*
 * find_readers looks the readers up.
 */
static void
find_readers(void)
{
	static bool registered = false;
	Oid			text_type = TEXTOID;
	Oid			schema;

	if (!registered)
	{
		CacheRegisterSyscacheCallback(PROCOID, forget_readers, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, forget_readers, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHOID, forget_checks, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, forget_checks, (Datum) 0);
		CacheRegisterSyscacheCallback(DATABASEOID, forget_checks, (Datum) 0);
		registered = true;
	}
	readers_found = readers_complete = true;
	schema = get_namespace_oid(PP_SCHEMA, true);
	for (int i = 0; i < lengthof(readers); i++)
	{
		Reader	   *reader = &readers[i];
		HeapTuple	tuple = NULL;

		reader->oid = InvalidOid;
		if (OidIsValid(schema))
			tuple = SearchSysCache3(PROCNAMEARGSNSP, CStringGetDatum(reader->name),
									PointerGetDatum(buildoidvector(&text_type, reader->nargs)),
									ObjectIdGetDatum(schema));
		if (HeapTupleIsValid(tuple))
		{
			if (is_reader(tuple, reader))
			{
				reader->oid = ((Form_pg_proc) GETSTRUCT(tuple))->oid;
				reader->hash = GetSysCacheHashValue1(PROCOID, ObjectIdGetDatum(reader->oid));
			}
			ReleaseSysCache(tuple);
		}
		if (!OidIsValid(reader->oid))
			readers_complete = false;
	}
}

/*
 * reader_of returns the reader that a function is, or NULL.
 */
static Reader *
reader_of(Oid function)
{
	/* a message may come in while the catalog is read */
	for (int attempt = 0; !readers_found && attempt < 3; attempt++)
		find_readers();
	for (int i = 0; i < lengthof(readers); i++)
		if (readers[i].oid == function)
			return &readers[i];
	return NULL;
}

/*
 * check_executable raises 42501 if the current user may not execute a reader.
 */
static void
check_executable(Reader *reader)
{
	if (checked_role != GetUserId())
	{
		for (int i = 0; i < lengthof(readers); i++)
			readers[i].executable = false;
		checked_role = GetUserId();
	}
	if (!reader->executable)
	{
		Oid			role = GetUserId();
		AclResult	result = pp_function_aclcheck(reader->oid, role);

		if (result != ACLCHECK_OK)
			aclcheck_error(result, OBJECT_FUNCTION, get_func_name(reader->oid));
		reader->executable = checked_role == role;
	}
	if (pp_others_watch_access())
		InvokeFunctionExecuteHook(reader->oid);
}

/*
 * begin_questions finds the readers and checks that they may be executed.
 */
static void
begin_questions(CustomScanState *node, EState *estate, int eflags)
{
	QuestionsState *state = (QuestionsState *) node;
	List	   *calls = linitial(((CustomScan *) node->ss.ps.plan)->custom_private);

	for (int i = 0; i < list_length(calls); i++)
	{
		Oid			function = castNode(FuncExpr, list_nth(calls, i))->funcid;

		state->readers[i] = reader_of(function);
		if (state->readers[i] == NULL)
			elog(ERROR, "function %u no longer is what the plan was made for", function);
		check_executable(state->readers[i]);
	}
}

/*
 * answer_questions puts the answers into the parameters of the plan, and returns
 * a row without columns.  Initplans are run in memory that lasts as long as the
 * query.
 */
static TupleTableSlot *
answer_questions(CustomScanState *node)
{
	QuestionsState *state = (QuestionsState *) node;
	List	   *private = ((CustomScan *) node->ss.ps.plan)->custom_private;
	ParamExecData *values = node->ss.ps.state->es_param_exec_vals;
	const PpAccess *access = NULL;
	const PpMembership *acting = NULL;
	bool		looked_up = false;
	ListCell   *call;
	ListCell   *params;
	ListCell   *param;
	int			i = 0;

	forboth(call, linitial(private), params, lsecond(private))
	{
		FuncExpr   *question = lfirst(call);
		Reader	   *reader = state->readers[i++];
		Datum		argument = question->args == NIL ? (Datum) 0 :
			linitial_node(Const, question->args)->constvalue;
		Datum		answer;
		bool		isnull;

		if (reader->read != NULL)
		{
			if (!looked_up)
				acting = pp_current_acting(&access);
			looked_up = true;
			answer = reader->read(access, acting, argument, &isnull);
		}
		else
		{
			LOCAL_FCINFO(fcinfo, 1);

			InitFunctionCallInfoData(*fcinfo, NULL, reader->nargs, question->inputcollid, NULL, NULL);
			fcinfo->args[0].value = argument;
			fcinfo->args[0].isnull = false;
			answer = reader->function(fcinfo);
			isnull = fcinfo->isnull;
			/* it may have looked up another, or the same anew */
			looked_up = false;
		}
		foreach(param, (List *) lfirst(params))
		{
			ParamExecData *value = &values[lfirst_int(param)];

			value->execPlan = NULL;
			value->value = answer;
			value->isnull = isnull;
		}
	}
	return ExecStoreVirtualTuple(ExecClearTuple(node->ss.ss_ScanTupleSlot));
}

/*
 * end_questions has nothing to end.
 */
static void
end_questions(CustomScanState *node)
{
}

/*
 * explain_questions shows the questions, with the names that the rest of the
 * plan has for their answers.
 */
static void
explain_questions(CustomScanState *node, List *ancestors, ExplainState *es)
{
	List	   *private = ((CustomScan *) node->ss.ps.plan)->custom_private;
	List	   *shown = NIL;
	ListCell   *call;
	ListCell   *params;
	ListCell   *output;

	if (!es->verbose)
		return;
	forboth(call, linitial(private), params, lsecond(private))
	{
		StringInfoData line;

		initStringInfo(&line);
		foreach(output, (List *) lthird(private))
		{
			if (!list_member_int(lfirst(params), lfirst_int(output)))
				continue;
			pp_append_output(&line, lfirst_int(output), foreach_current_index(output) + 1);
			appendStringInfoString(&line, " = ");
		}
		appendStringInfoString(&line, deparse_expression(lfirst(call), NIL, false, false));
		shown = lappend(shown, line.data);
	}
	ExplainPropertyList("Answers", shown, es);
}

static const CustomExecMethods exec_methods = {
	.CustomName = NODE_NAME,
	.BeginCustomScan = begin_questions,
	.ExecCustomScan = answer_questions,
	.EndCustomScan = end_questions,
	.ReScanCustomScan = end_questions,
	.ExplainCustomScan = explain_questions,
};

/*
 * create_state makes the state of a node.
 */
static Node *
create_state(CustomScan *scan)
{
	QuestionsState *state = palloc0(offsetof(QuestionsState, readers) +
									list_length(linitial(scan->custom_private)) * sizeof(Reader *));

	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &exec_methods;
	return (Node *) state;
}

const CustomScanMethods pp_question_methods = {
	.CustomName = NODE_NAME,
	.CreateCustomScanState = create_state,
};

/*
 * pp_is_question tells whether a call is a question: of a reader, with arguments
 * that are constants and not null.
 */
bool
pp_is_question(const FuncExpr *call)
{
	Reader	   *reader = reader_of(call->funcid);

	if (reader == NULL || call->funcretset || list_length(call->args) != reader->nargs)
		return false;
	return reader->nargs == 0 ||
		(IsA(linitial(call->args), Const) && !linitial_node(Const, call->args)->constisnull);
}
