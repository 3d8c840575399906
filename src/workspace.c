/*-------------------------------------------------------------------------
 *
 * workspace.c
 *		The guard of the workspace table: who may change which column; the
 *		lock that keeps a workspace with its partner while rows are added to it;
 *		and whether a partner has customers.
 *
 * Settings are changed by plain UPDATE.  A policy says whose rows one may
 * change at all; this BEFORE ROW trigger says which columns, and looks at what
 * a CHECK cannot tell well.  State (kind, partner, deletion, suspension) is
 * changed by our own functions only, which run as the owner of the table, and
 * by the operator.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "partner_portal.h"
#include "security_key.h"

PG_FUNCTION_INFO_V1(partner_portal_guard_workspace);
PG_FUNCTION_INFO_V1(partner_portal_has_customers);

/* A column, and the permission that changing it takes; NULL is the operator's. */
typedef struct GuardedColumn
{
	const char *name;
	const char *permission;
} GuardedColumn;

static const GuardedColumn guarded_columns[] = {
	{"company_name", "manage_settings"},
	{"slug", "manage_settings"},
	{"address", "manage_settings"},
	{"sso_enabled", "manage_settings"},
	{"notify_new_keys", "manage_settings"},
	{"notify_billing", "manage_settings"},
	{"restrict_keys", "set_limit"},
	{"key_limit", "set_limit"},
	{"limit_mode", "set_limit"},
	{"time_zone", "manage_billing"},
	{"anchor_date", "manage_billing"},
	{"billing_step", "manage_billing"},
	{"tax_id", "manage_billing"},
	{"invoice_visibility", "manage_billing"},
	{"billing_from", "bill"},
	{"auto_finalize", "bill"},
	{"workspace_id", NULL},
	{"kind", NULL},
	{"partner_id", NULL},
	{"created_at", NULL},
	{"deleted_at", NULL},
	{"suspended_at", NULL},
	{"suspended_reason", NULL},
	{"purged_at", NULL},
};

/* A workspace that this transaction has locked, and the partner it has. */
typedef struct LockedWorkspace
{
	int64		workspace_id;	/* hash key */
	int64		partner_key;
} LockedWorkspace;

/*
 * The workspaces that were locked by locked_by, the current (sub)transaction;
 * any other begins anew, since a lock goes with the subtransaction it was taken
 * in.  Most lock one, which needs no table.
 */
static TransactionId locked_by = InvalidTransactionId;
static LockedWorkspace last_locked;
static MemoryContext locked_context = NULL;
static HTAB *locked_workspaces = NULL;	/* all of them, if there are several */

/* The transaction, by its number in this session, whose statements have written workspaces. */
static LocalTransactionId written_by = InvalidLocalTransactionId;

/*
 * find_workspace leaves in the slot the version of a workspace that a snapshot
 * sees; false is that it sees none.
 */
static bool
find_workspace(Relation rel, Relation index, int64 workspace_id, Snapshot snapshot, TupleTableSlot *slot)
{
	IndexScanDesc scan = pp_index_beginscan(rel, index, snapshot, 1);
	ScanKeyData key;
	bool		found;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(workspace_id));
	index_rescan(scan, &key, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	index_endscan(scan);
	return found;
}

/*
 * lock_version locks the version in the slot FOR KEY SHARE or, in READ
 * COMMITTED, the last one that follows it, which is then in the slot.  TM_Deleted
 * and TM_SelfModified are that it has gone, TM_Updated that it got lost.
 */
static TM_Result
lock_version(Relation rel, int64 workspace_id, Snapshot snapshot, TupleTableSlot *slot)
{
	ItemPointerData tid = slot->tts_tid;
	TM_FailureData failure;
	TM_Result	result;

	result = table_tuple_lock(rel, &tid, snapshot, slot, GetCurrentCommandId(false), LockTupleKeyShare, LockWaitBlock,
							  IsolationUsesXactSnapshot() ? 0 : TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure);
	if ((result == TM_Updated || result == TM_Deleted) && IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update")));
	if (result != TM_Ok && result != TM_Deleted && result != TM_Updated && result != TM_SelfModified)
		elog(ERROR, "unexpected result %d of locking workspace " INT64_FORMAT, (int) result, workspace_id);
	return result;
}

/*
 * partner_key_of returns the partner_key of the row in a slot.
 */
static int64
partner_key_of(TupleTableSlot *slot)
{
	static int	column = 1;
	TupleDesc	desc = slot->tts_tupleDescriptor;
	bool		null;

	if (column > desc->natts || strcmp(NameStr(TupleDescAttr(desc, column - 1)->attname), "partner_key") != 0)
		column = SPI_fnumber(desc, "partner_key");
	return DatumGetInt64(slot_getattr(slot, column, &null));
}

/*
 * lock_workspace locks a workspace FOR KEY SHARE, as the foreign key of a row
 * that is added to it will, and leaves its partner_key; false is that there is
 * no such workspace.  It does what SELECT ... FOR KEY SHARE by the owner does,
 * for a fraction of the time: a single activation has this beside its own row.
 *
 * In READ COMMITTED it needs no snapshot to find the row: the version that was
 * committed last leads to the one that is locked.  Only that there is none takes
 * one to say, for while a row moves a look without can miss it.
 */
static bool
lock_workspace(int64 workspace_id, int64 *partner_key)
{
	Relation	rel = table_open(pp_our_relation(PP_WORKSPACE), RowShareLock);
	Relation	index = index_open(pp_our_relation(PP_WORKSPACE_PARTNER_KEY), RowShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TM_Result	result = TM_Deleted;

	CommandCounterIncrement();
	if (!IsolationUsesXactSnapshot() && find_workspace(rel, index, workspace_id, SnapshotSelf, slot))
		result = lock_version(rel, workspace_id, SnapshotSelf, slot);
	if (result != TM_Ok)
	{
		Snapshot	snapshot = RegisterSnapshot(GetTransactionSnapshot());

		if (find_workspace(rel, index, workspace_id, snapshot, slot))
			result = lock_version(rel, workspace_id, snapshot, slot);
		UnregisterSnapshot(snapshot);
		if (result == TM_Updated)
			elog(ERROR, "could not follow the versions of workspace " INT64_FORMAT, workspace_id);
	}
	if (result == TM_Ok)
		*partner_key = partner_key_of(slot);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
	table_close(rel, NoLock);
	return result == TM_Ok;
}

/*
 * begin_table makes an empty table of locked workspaces.
 */
static void
begin_table(void)
{
	HASHCTL		control = {0};

	if (locked_context == NULL)
		locked_context = AllocSetContextCreate(TopMemoryContext, "partner_portal locked workspaces",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(locked_context);
	control.keysize = sizeof(int64);
	control.entrysize = sizeof(LockedWorkspace);
	control.hcxt = locked_context;
	locked_workspaces = hash_create("partner_portal locked workspaces", 64, &control,
									HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * remember_last puts the workspace that was locked last into the table.
 */
static void
remember_last(void)
{
	LockedWorkspace *locked = hash_search(locked_workspaces, &last_locked.workspace_id, HASH_ENTER, NULL);

	*locked = last_locked;
}

/*
 * is_remembered tells whether the current (sub)transaction has locked a
 * workspace, which is then in last_locked.
 */
static bool
is_remembered(int64 workspace_id, TransactionId self)
{
	LockedWorkspace *locked;

	if (locked_by != self)
	{
		locked_by = InvalidTransactionId;
		locked_workspaces = NULL;
		return false;
	}
	if (last_locked.workspace_id == workspace_id)
		return true;
	locked_by = InvalidTransactionId;
	if (locked_workspaces == NULL)
	{
		begin_table();
		remember_last();
	}
	locked = hash_search(locked_workspaces, &workspace_id, HASH_FIND, NULL);
	if (locked == NULL)
		return false;
	last_locked = *locked;
	locked_by = self;
	return true;
}

/*
 * pp_workspace_to_stay leaves the partner_key of a workspace that rows are added
 * to, and makes sure that both stay until the end of the transaction; false is
 * that there is no such workspace.  Without the lock a transfer in between would
 * leave the row with the partner of before, and the foreign key would refuse it.
 * It waits for a transfer that is under way; with a snapshot from before it
 * raises 40001.
 */
bool
pp_workspace_to_stay(int64 workspace_id, int64 *partner_key)
{
	TransactionId self = GetCurrentTransactionId();

	if (!is_remembered(workspace_id, self))
	{
		LockedWorkspace locked = {.workspace_id = workspace_id};

		if (!lock_workspace(workspace_id, &locked.partner_key))
			return false;
		last_locked = locked;
		if (locked_workspaces != NULL)
			remember_last();
		locked_by = self;
	}
	*partner_key = last_locked.partner_key;
	return true;
}

/*
 * pp_workspaces_written is told of each statement that writes workspaces, before
 * it does.
 */
void
pp_workspaces_written(void)
{
	written_by = pp_local_transaction_id();
}

/*
 * pp_recall_workspaces makes sure that what is remembered is still so.  A lock
 * keeps others from changing a workspace, not this transaction itself, and the
 * guard below sees neither deletions nor what is done while it does not fire.
 */
void
pp_recall_workspaces(void)
{
	if (written_by == pp_local_transaction_id())
		locked_by = InvalidTransactionId;
}

/*
 * pp_partner_key_to_stay is pp_workspace_to_stay with 0 for an absent workspace,
 * which others refuse.
 */
int64
pp_partner_key_to_stay(int64 workspace_id)
{
	int64		partner_key = 0;

	(void) pp_workspace_to_stay(workspace_id, &partner_key);
	return partner_key;
}

/*
 * column_changes tells whether an update changes a column.
 */
static bool
column_changes(TriggerData *trigger, const char *name)
{
	Relation	rel = trigger->tg_relation;
	Form_pg_attribute attribute;
	bool		old_null;
	bool		new_null;
	Datum		old = pp_row_column(trigger->tg_trigtuple, rel, name, &old_null);
	Datum		new = pp_row_column(trigger->tg_newtuple, rel, name, &new_null);

	if (old_null || new_null)
		return old_null != new_null;
	attribute = TupleDescAttr(RelationGetDescr(rel), get_attnum(RelationGetRelid(rel), name) - 1);
	return !datum_image_eq(old, new, attribute->attbyval, attribute->attlen);
}

/*
 * check_line raises 22023 for characters in a text that others are not to be
 * shown; lines of an address may break.  What an update leaves as it was may be
 * what it is: the workspace can still be suspended and deleted.
 */
static void
check_line(TriggerData *trigger, HeapTuple row, const char *name, bool may_break)
{
	bool		null;
	Datum		value = pp_row_column(row, trigger->tg_relation, name, &null);

	if (!null && (TRIGGER_FIRED_BY_INSERT(trigger->tg_event) || column_changes(trigger, name)))
		pp_check_controls(name, DatumGetTextPP(value), may_break);
}

/*
 * by_our_functions tells whether the change is made inside a SECURITY DEFINER
 * function of the table's owner, or by one of its foreign keys.
 */
static bool
by_our_functions(Relation rel)
{
	return InLocalUserIdChange() && GetUserId() == rel->rd_rel->relowner;
}

/*
 * may_change tells whether the identity may change a column.  "bill" on a
 * partner's own workspace is about what it issues itself, and says nothing of
 * what it is billed for.
 */
static bool
may_change(const GuardedColumn *column, int64 workspace_id)
{
	if (pp_is_operator())
		return true;
	if (column->permission == NULL || !pp_may(column->permission, workspace_id))
		return false;
	return strcmp(column->permission, "bill") != 0 ||
		(pp_standing(workspace_id) & PP_OWN_PARTNER) == 0;
}

/*
 * check_update raises 42501 unless the identity may change what an update
 * changes, and PP005 when the workspace is deleted.
 */
static void
check_update(TriggerData *trigger)
{
	Relation	rel = trigger->tg_relation;
	bool		null;
	bool		deleted;
	int64		workspace_id;

	workspace_id = DatumGetInt64(pp_row_column(trigger->tg_trigtuple, rel, "workspace_id", &null));
	deleted = pp_row_is_set(trigger->tg_trigtuple, rel, "deleted_at");
	for (int i = 0; i < lengthof(guarded_columns); i++)
	{
		const GuardedColumn *column = &guarded_columns[i];

		if (!column_changes(trigger, column->name))
			continue;
		if (!may_change(column, workspace_id))
		{
			pp_refused(ERRCODE_INSUFFICIENT_PRIVILEGE, column->permission == NULL ? "operate" : column->permission,
					   workspace_id, psprintf(", \"column\": \"%s\"", column->name));
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied to change column \"%s\" of workspace " INT64_FORMAT,
							column->name, workspace_id),
					 column->permission == NULL ?
					 errhint("It is changed by functions of the extension.") :
					 errdetail("It takes the permission \"%s\".", column->permission)));
		}
		if (deleted && column->permission != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_PP_WRONG_STATE),
					 errmsg("workspace " INT64_FORMAT " is deleted", workspace_id)));
	}
}

/*
 * guard_workspace is the trigger: BEFORE INSERT OR UPDATE FOR EACH ROW.  A row
 * that is restored stays as it was.
 */
Datum
partner_portal_guard_workspace(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	row;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"guard_workspace\" was not called as a trigger")));
	if (!TRIGGER_FIRED_BEFORE(trigger->tg_event) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"guard_workspace\" must be fired before insert or update, for each row")));

	row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple;
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event) && pp_restoring())
		return PointerGetDatum(row);

	/* one's own transfer changes what pp_workspace_to_stay() remembers */
	locked_by = InvalidTransactionId;
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) && !by_our_functions(trigger->tg_relation))
		check_update(trigger);
	check_line(trigger, row, "company_name", false);
	check_line(trigger, row, "tax_id", false);
	check_line(trigger, row, "address", true);
	return PointerGetDatum(row);
}

/*
 * has_customers(partner_id, deleted_too) tells whether a partner has customers,
 * as of the latest commit and of one's own transaction: one that registered
 * after a transaction's snapshot was taken is a customer too.  With the
 * partner's workspace locked none is added meanwhile.
 */
Datum
partner_portal_has_customers(PG_FUNCTION_ARGS)
{
	int64		partner_id = PG_GETARG_INT64(0);
	bool		deleted_too = PG_GETARG_BOOL(1);
	Relation	relation = table_open(pp_our_relation(PP_WORKSPACE), AccessShareLock);
	SysScanDesc scan;
	HeapTuple	row;
	bool		found = false;

	scan = pp_scan_by_id(relation, "workspace_partner_key_idx", "partner_key", partner_id);
	while (!found && HeapTupleIsValid(row = systable_getnext(scan)))
	{
		CHECK_FOR_INTERRUPTS();
		found = deleted_too || !pp_row_is_set(row, relation, "deleted_at");
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	PG_RETURN_BOOL(found);
}
