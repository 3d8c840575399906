/*-------------------------------------------------------------------------
 *
 * key_reference.c
 *		The reference of a new key to its workspace, seen to by the trigger that
 *		counts.
 *
 * The foreign key asks for the workspace of every row by a query of its own.
 * The trigger that counts has the rows of the statement by workspace and the
 * workspaces locked, with which the same is known for nothing: that there is
 * such a workspace, with this partner, and that both stay so until the end of
 * the transaction.  So where it fires, the foreign key need not look at what an
 * INSERT adds.  It stays what it is for all else: for COPY, for updates, and for
 * changes of the workspace.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_constraint.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "partner_portal.h"
#include "security_key.h"

#define REFERENCE	"security_key_workspace"

static Oid	count_function = InvalidOid;	/* partner_portal.count_keys() */
static Oid	reference = InvalidOid; /* the constraint */
static ExecutorStart_hook_type prev_executor_start = NULL;

/*
 * forget_oids forgets what was looked up.
 */
static void
forget_oids(Datum arg, int cache, uint32 hash)
{
	count_function = reference = InvalidOid;
}

/*
 * find_oids looks up what is known by its oid; false is that there is none.
 */
static bool
find_oids(Relation rel)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterSyscacheCallback(PROCOID, forget_oids, (Datum) 0);
		CacheRegisterSyscacheCallback(CONSTROID, forget_oids, (Datum) 0);
		registered = true;
	}
	if (!OidIsValid(reference) || !OidIsValid(count_function))
	{
		count_function = LookupFuncName(list_make2(makeString(PP_SCHEMA), makeString("count_keys")), 0, NULL, true);
		reference = get_relation_constraint_oid(RelationGetRelid(rel), REFERENCE, true);
	}
	return OidIsValid(count_function) && OidIsValid(reference);
}

/*
 * is_counting tells whether this is the trigger that counts what is inserted,
 * and fires whenever a foreign key does.
 */
static bool
is_counting(const Trigger *trigger)
{
	return trigger->tgfoid == count_function && trigger->tgqual == NULL &&
		TRIGGER_FOR_AFTER(trigger->tgtype) && !TRIGGER_FOR_ROW(trigger->tgtype) && TRIGGER_FOR_INSERT(trigger->tgtype) &&
		(trigger->tgenabled == TRIGGER_FIRES_ON_ORIGIN || trigger->tgenabled == TRIGGER_FIRES_ALWAYS);
}

/*
 * leave_out_check takes the foreign key's look at inserted rows out of a
 * statement's copy of the triggers, if the trigger that counts is among them.
 */
static void
leave_out_check(Relation rel, TriggerDesc *triggers)
{
	Trigger    *check = NULL;
	bool		counting = false;

	if (triggers == NULL || !triggers->trig_insert_after_statement || !find_oids(rel))
		return;
	for (int i = 0; i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];

		if (trigger->tgfoid == F_RI_FKEY_CHECK_INS && trigger->tgconstraint == reference)
			check = trigger;
		counting |= is_counting(trigger);
	}
	if (counting && check != NULL && check->tgenabled == TRIGGER_FIRES_ON_ORIGIN)
		check->tgenabled = TRIGGER_DISABLED;
}

/*
 * start_query lets a query start, and has it noted if it writes workspaces.
 */
static void
start_query(QueryDesc *queryDesc, int eflags)
{
	ListCell   *cell;

	if (prev_executor_start)
		prev_executor_start(queryDesc, eflags);
	else
		standard_ExecutorStart(queryDesc, eflags);
	foreach(cell, queryDesc->estate->es_opened_result_relations)
	{
		ResultRelInfo *result = lfirst(cell);
		Relation	rel = result->ri_RelationDesc;

		if (RelationGetNamespace(rel) != pp_our_schema())
			continue;
		if (RelationGetRelid(rel) == pp_our_relation(PP_SECURITY_KEY))
			leave_out_check(rel, result->ri_TrigDesc);
		else if (RelationGetRelid(rel) == pp_our_relation(PP_WORKSPACE))
			pp_workspaces_written();
	}
}

/*
 * pp_check_reference raises 23503, as the foreign key does, unless the
 * workspaces that keys were inserted into are there, with the partner that the
 * keys say, to stay so.
 */
void
pp_check_reference(PpUsageChange **changes, int count)
{
	pp_recall_workspaces();
	for (int i = 0; i < count; i++)
	{
		const PpUsageChange *change = changes[i];
		int64		partner_key;
		bool		there;

		if (!change->inserted)
			continue;
		there = pp_workspace_to_stay(change->workspace_id, &partner_key);
		if (there && partner_key == change->lowest_partner_key && partner_key == change->highest_partner_key)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("insert or update on table \"%s\" violates foreign key constraint \"%s\"", "security_key", REFERENCE),
				 errdetail("Key (workspace_id, partner_key)=(" INT64_FORMAT ", " INT64_FORMAT ") is not present in table \"workspace\".",
						   change->workspace_id,
						   there && change->lowest_partner_key == partner_key ? change->highest_partner_key : change->lowest_partner_key),
				 err_generic_string(PG_DIAG_SCHEMA_NAME, PP_SCHEMA),
				 err_generic_string(PG_DIAG_TABLE_NAME, "security_key"),
				 err_generic_string(PG_DIAG_CONSTRAINT_NAME, REFERENCE)));
	}
}

/*
 * pp_key_reference_hooks installs the start of queries.
 */
void
pp_key_reference_hooks(void)
{
	prev_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = start_query;
}
