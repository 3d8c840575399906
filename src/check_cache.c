/*-------------------------------------------------------------------------
 *
 * check_cache.c
 *		CHECK constraints of our tables, read once and not in every statement.
 *
 * The catalog keeps a CHECK as text, and the executor reads that text and plans
 * what it says anew in every statement that writes a row: of the activation of
 * one key it was a sixth.  So the planned expressions are kept, as those of
 * domains are, and a statement gets its states from them before the executor
 * would make its own.  What is checked, when, and as whom stays the executor's.
 *
 * A set is all CHECKs of one table.  Where one calls a function that is not
 * PostgreSQL's own, the table has none and the executor goes on as ever: what the
 * planner makes of such a call depends on who asks.  States point into the
 * expressions: the set of a table that has changed lives until the last statement
 * that uses it ends.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "partner_portal.h"

typedef struct CheckSet
{
	MemoryContext context;		/* of all of this */
	int			uses;			/* statements that use it */
	bool		current;		/* it is in the table of sets */
	int			count;
	Expr	   *checks[FLEXIBLE_ARRAY_MEMBER];	/* in the order of the
												 * relation's; NULL is not
												 * enforced */
} CheckSet;

typedef struct CheckEntry
{
	Oid			relid;			/* hash key */
	CheckSet   *set;			/* NULL is left to the executor */
} CheckEntry;

static HTAB *sets = NULL;
static uint64 invalidations = 0;
static ExecutorStart_hook_type prev_executor_start = NULL;

/*
 * forget_entry takes an entry out of the table of sets.
 */
static void
forget_entry(CheckEntry *entry)
{
	CheckSet   *set = entry->set;

	(void) hash_search(sets, &entry->relid, HASH_REMOVE, NULL);
	if (set == NULL)
		return;
	set->current = false;
	if (set->uses == 0)
		MemoryContextDelete(set->context);
}

/*
 * forget_table is told that a table has changed, or with no oid that any has.
 */
static void
forget_table(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS scan;
	CheckEntry *entry;

	invalidations++;
	if (OidIsValid(relid))
	{
		entry = hash_search(sets, &relid, HASH_FIND, NULL);
		if (entry != NULL)
			forget_entry(entry);
		return;
	}
	hash_seq_init(&scan, sets);
	while ((entry = hash_seq_search(&scan)) != NULL)
		forget_entry(entry);
}

/*
 * begin_sets makes the empty table of sets.
 */
static void
begin_sets(void)
{
	HASHCTL		control = {0};

	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(CheckEntry);
	control.hcxt = CacheMemoryContext;
	sets = hash_create("partner_portal checks", 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(forget_table, (Datum) 0);
}

/*
 * is_foreign tells whether a function is not PostgreSQL's own.
 */
static bool
is_foreign(Oid function, void *context)
{
	return function >= FirstUnpinnedObjectId;
}

/*
 * calls_others tells whether an expression calls a function that is not
 * PostgreSQL's own, or coerces to a domain, which may have constraints that do.
 */
static bool
calls_others(Node *node, void *context)
{
	if (node == NULL)
		return false;
	return IsA(node, CoerceToDomain) || check_functions_in_node(node, is_foreign, context) ||
		expression_tree_walker(node, calls_others, context);
}

/*
 * read_set reads and plans the CHECKs of a table, in memory of the caller's;
 * NULL is that they are for the executor.
 */
static CheckSet *
read_set(const TupleConstr *constr)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "partner_portal checks", ALLOCSET_SMALL_SIZES);
	CheckSet   *set = MemoryContextAllocZero(context, offsetof(CheckSet, checks) + constr->num_check * sizeof(Expr *));

	set->context = context;
	set->count = constr->num_check;
	for (int i = 0; i < set->count; i++)
	{
		Node	   *check;
		MemoryContext old_context;

		if (!pp_check_enforced(&constr->check[i]))
			continue;
		check = stringToNode(constr->check[i].ccbin);
		if (calls_others(check, NULL))
		{
			MemoryContextDelete(context);
			return NULL;
		}
		check = (Node *) expression_planner((Expr *) check);
		old_context = MemoryContextSwitchTo(context);
		set->checks[i] = copyObject((Expr *) check);
		MemoryContextSwitchTo(old_context);
	}
	return set;
}

/*
 * find_set returns the CHECKs of a table; NULL is that they are for the executor.
 * It keeps what it reads, unless something has changed meanwhile.
 */
static CheckSet *
find_set(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	uint64		since;
	CheckEntry *entry;
	CheckSet   *set;

	if (sets == NULL)
		begin_sets();
	entry = hash_search(sets, &relid, HASH_FIND, NULL);
	if (entry != NULL)
		return entry->set;
	since = invalidations;
	set = read_set(RelationGetDescr(rel)->constr);
	if (since == invalidations)
	{
		entry = hash_search(sets, &relid, HASH_ENTER, NULL);
		entry->set = set;
	}
	if (set != NULL)
	{
		set->current = since == invalidations;
		MemoryContextSetParent(set->context, CacheMemoryContext);
	}
	return set;
}

/*
 * release_set ends the use of a set by a statement, whose memory goes.
 */
static void
release_set(void *arg)
{
	CheckSet   *set = arg;

	if (--set->uses == 0 && !set->current)
		MemoryContextDelete(set->context);
}

/*
 * takes_states tells whether a table is ours, has CHECKs, and no columns that
 * the executor would have to put their expressions in place of.
 */
static bool
takes_states(ResultRelInfo *result)
{
	Relation	rel = result->ri_RelationDesc;
	TupleConstr *constr = RelationGetDescr(rel)->constr;

	return constr != NULL && constr->num_check > 0 && !pp_has_virtual_columns(constr) &&
		pp_check_states(result) == NULL && RelationGetNamespace(rel) == pp_our_schema();
}

/*
 * pp_give_check_states gives a table that is about to be written the states of
 * its CHECKs, if it is ours; the executor would else make them at the first row.
 */
void
pp_give_check_states(ResultRelInfo *result, EState *estate)
{
	MemoryContext old_context;
	MemoryContextCallback *release;
	ExprState **states;
	CheckSet   *set;

	if (!takes_states(result) || (set = find_set(result->ri_RelationDesc)) == NULL)
		return;
	old_context = MemoryContextSwitchTo(estate->es_query_cxt);
	release = palloc(sizeof(MemoryContextCallback));
	set->uses++;
	release->func = release_set;
	release->arg = set;
	MemoryContextRegisterResetCallback(estate->es_query_cxt, release);

	states = palloc0(set->count * sizeof(ExprState *));
	for (int i = 0; i < set->count; i++)
		if (set->checks[i] != NULL)
			states[i] = ExecInitExpr(set->checks[i], NULL);
	pp_check_states(result) = states;
	MemoryContextSwitchTo(old_context);
}

/*
 * start_query lets a query start, then gives the tables that it writes their
 * states.  A DELETE checks nothing.
 */
static void
start_query(QueryDesc *queryDesc, int eflags)
{
	ListCell   *cell;

	if (prev_executor_start)
		prev_executor_start(queryDesc, eflags);
	else
		standard_ExecutorStart(queryDesc, eflags);
	if (queryDesc->operation == CMD_DELETE || (eflags & EXEC_FLAG_EXPLAIN_ONLY) != 0)
		return;
	foreach(cell, queryDesc->estate->es_opened_result_relations)
		pp_give_check_states(lfirst(cell), queryDesc->estate);
}

/*
 * pp_check_cache_hooks installs the start of queries.
 */
void
pp_check_cache_hooks(void)
{
	prev_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = start_query;
}
