/*-------------------------------------------------------------------------
 *
 * key_trigger.c
 *		AFTER STATEMENT triggers: what a statement did to keys and owners.
 *
 * The transition tables are read once to sum up the changes per workspace,
 * which usage_counter.c then applies in the order of workspace_id, and once
 * more to write the stretches that ended to key_history.  Rows whose stamps
 * turn out to lie before what the lock allows are stamped again: that happens
 * only when statements really met.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "partner_portal.h"
#include "security_key.h"

PG_FUNCTION_INFO_V1(partner_portal_count_keys);
PG_FUNCTION_INFO_V1(partner_portal_count_owners);
PG_FUNCTION_INFO_V1(partner_portal_refuse_truncate);

enum
{
	MEMBER_WORKSPACE_ID = 1,
	MEMBER_ACCOUNT_ID,
	MEMBER_PARTNER_KEY,
	MEMBER_ROLE,
	MEMBER_CREATED_AT,
	MEMBER_ACCEPTED_AT,
	MEMBER_COLUMNS = MEMBER_ACCEPTED_AT
};

static const char *const member_columns[] = {
	"workspace_id", "account_id", "partner_key", "role", "created_at", "accepted_at"
};

/* The changes of one statement, by workspace. */
typedef struct Changes
{
	int			count;
	PpUsageChange first;		/* most statements are about one workspace */
	HTAB	   *others;			/* NULL while there is none */
	PpUsageChange *last;		/* the one looked up last */
	PpUsageChange **sorted;		/* all of them, once they are counted */
	bool		history;		/* whether a stretch ended */
} Changes;

/* One row of security_key as the meter sees it. */
typedef struct KeyRow
{
	int64		workspace_id;
	int64		key_id;
	int64		partner_key;
	int			kind;
	bool		active;
	bool		revoked;
	Datum		account_id;
	bool		no_account;
	TimestampTz activated_at;
	TimestampTz disabled_at;
	Datum		reason;			/* 0 while active */
} KeyRow;

/*
 * check_trigger raises an error unless called as an AFTER STATEMENT trigger.
 */
static TriggerData *
check_trigger(FunctionCallInfo fcinfo, const char *name)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigdata->tg_event) ||
		TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s() must be fired after INSERT, UPDATE or DELETE for each statement", name)));
	if ((trigdata->tg_newtable == NULL && !TRIGGER_FIRED_BY_DELETE(trigdata->tg_event)) ||
		(trigdata->tg_oldtable == NULL && !TRIGGER_FIRED_BY_INSERT(trigdata->tg_event)))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s() needs the transition tables of its event", name)));
	return trigdata;
}

/*
 * begin_changes begins with none.
 */
static void
begin_changes(Changes *changes)
{
	changes->count = 0;
	changes->others = NULL;
	changes->last = NULL;
	changes->sorted = NULL;
	changes->history = false;
}

/*
 * change_of returns the change of a workspace, a new one at first.
 */
static PpUsageChange *
change_of(Changes *changes, int64 workspace_id)
{
	bool		found = false;

	if (changes->last != NULL && changes->last->workspace_id == workspace_id)
		return changes->last;
	if (changes->count == 0 || changes->first.workspace_id == workspace_id)
	{
		found = changes->count > 0;
		changes->last = &changes->first;
	}
	else
	{
		if (changes->others == NULL)
		{
			HASHCTL		control = {0};

			control.keysize = sizeof(int64);
			control.entrysize = sizeof(PpUsageChange);
			control.hcxt = CurrentMemoryContext;
			changes->others = hash_create("changes of workspaces", 64, &control,
										  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		}
		changes->last = hash_search(changes->others, &workspace_id, HASH_ENTER, &found);
	}
	if (!found)
	{
		changes->count++;
		memset(changes->last, 0, sizeof(PpUsageChange));
		changes->last->workspace_id = workspace_id;
		changes->last->first_activation = DT_NOEND;
		changes->last->first_end = DT_NOEND;
		changes->last->last_end = DT_NOBEGIN;
	}
	return changes->last;
}

/*
 * compare_changes orders changes by workspace.
 */
static int
compare_changes(const void *a, const void *b)
{
	int64		left = (*(PpUsageChange *const *) a)->workspace_id;
	int64		right = (*(PpUsageChange *const *) b)->workspace_id;

	return left < right ? -1 : left > right;
}

/*
 * apply_changes has the changes counted, in the order of workspaces, and told to
 * who wants to hear of keys.
 */
static void
apply_changes(Changes *changes, bool restoring)
{
	int			count = 0;

	if (changes->count == 0)
		return;
	changes->sorted = palloc(changes->count * sizeof(PpUsageChange *));
	changes->sorted[count++] = &changes->first;
	if (changes->others != NULL)
	{
		PpUsageChange *change;
		HASH_SEQ_STATUS scan;

		hash_seq_init(&scan, changes->others);
		while ((change = hash_seq_search(&scan)) != NULL)
			changes->sorted[count++] = change;
		qsort(changes->sorted, count, sizeof(PpUsageChange *), compare_changes);
	}
	pp_usage_apply(changes->sorted, count, restoring);
	if (!restoring)
		pp_key_events(changes->sorted, count);
}

/*
 * read_key reads a row of a transition table.
 */
static void
read_key(TupleTableSlot *slot, KeyRow *row)
{
	slot_getsomeattrs(slot, KEY_COLUMNS);
	row->workspace_id = DatumGetInt64(slot->tts_values[KEY_WORKSPACE_ID - 1]);
	row->key_id = DatumGetInt64(slot->tts_values[KEY_KEY_ID - 1]);
	row->partner_key = DatumGetInt64(slot->tts_values[KEY_PARTNER_KEY - 1]);
	row->kind = pp_key_kind(slot->tts_values[KEY_KIND - 1]);
	row->active = pp_text_is(slot->tts_values[KEY_STATUS - 1], "active");
	row->revoked = !row->active && pp_text_is(slot->tts_values[KEY_STATUS - 1], "revoked");
	row->account_id = slot->tts_values[KEY_ACCOUNT_ID - 1];
	row->no_account = slot->tts_isnull[KEY_ACCOUNT_ID - 1];
	row->activated_at = slot->tts_isnull[KEY_ACTIVATED_AT - 1] ? DT_NOBEGIN :
		DatumGetTimestampTz(slot->tts_values[KEY_ACTIVATED_AT - 1]);
	row->disabled_at = slot->tts_isnull[KEY_DISABLED_AT - 1] ? DT_NOEND :
		DatumGetTimestampTz(slot->tts_values[KEY_DISABLED_AT - 1]);
	row->reason = slot->tts_isnull[KEY_DISABLED_REASON - 1] ? (Datum) 0 :
		slot->tts_values[KEY_DISABLED_REASON - 1];
	Assert(row->kind >= 0);
}

/*
 * note_key notes a key that was switched, for the log.
 */
static void
note_key(PpKeyNote *note, const KeyRow *row)
{
	if (note->count < PP_NOTED_KEYS)
		note->ids[note->count] = row->key_id;
	if (row->reason != (Datum) 0)
	{
		if (note->reason[0] == '\0')
			text_to_cstring_buffer(DatumGetTextPP(row->reason), note->reason, sizeof(note->reason));
		else if (!pp_text_is(row->reason, note->reason))
			note->reasons = true;
	}
	note->count++;
	note->revoked += row->revoked;
	note->kinds[row->kind]++;
}

/*
 * add_insert adds a new key to the changes.
 */
static void
add_insert(Changes *changes, const KeyRow *new)
{
	PpUsageChange *change = change_of(changes, new->workspace_id);

	change->total[new->kind]++;
	if (new->active)
	{
		change->active[new->kind]++;
		change->activations++;
		change->first_activation = Min(change->first_activation, new->activated_at);
		note_key(&change->activated, new);
	}
}

/*
 * add_delete adds a deleted key to the changes.
 */
static void
add_delete(Changes *changes, const KeyRow *old)
{
	PpUsageChange *change = change_of(changes, old->workspace_id);

	change->total[old->kind]--;
	change->deleted_keys++;
	note_key(&change->disabled, old);
	if (old->active)
	{
		change->active[old->kind]--;
		change->deleted++;
		change->last_end = Max(change->last_end, old->activated_at);
		changes->history = true;
	}
}

/*
 * add_update adds a changed key to the changes; most changes are none to us.
 */
static void
add_update(Changes *changes, const KeyRow *old, const KeyRow *new)
{
	PpUsageChange *change;

	if (old->active == new->active && old->revoked == new->revoked &&
		(!old->active || old->activated_at == new->activated_at))
		return;
	change = change_of(changes, new->workspace_id);
	if (!old->active && !new->active)
		note_key(&change->disabled, new);
	else if (old->active && new->active)
	{
		change->first_activation = Min(change->first_activation, new->activated_at);
		changes->history = true;
	}
	else if (old->active)
	{
		change->active[new->kind]--;
		change->ends = true;
		change->first_end = Min(change->first_end, new->disabled_at);
		change->last_end = Max(change->last_end, new->disabled_at);
		changes->history = true;
		note_key(&change->disabled, new);
	}
	else
	{
		change->active[new->kind]++;
		change->activations++;
		change->first_activation = Min(change->first_activation, new->activated_at);
		note_key(&change->activated, new);
	}
}

/*
 * finish_key writes the stretch that ended with a row's change, if one did,
 * and notes a stamp that is to be moved.  Either row may be NULL.
 */
static void
finish_key(Changes *changes, PpHistory *history, PpRestamps *restamps,
		   const KeyRow *old, const KeyRow *new)
{
	const KeyRow *row = old != NULL ? old : new;
	bool		was_active = old != NULL && old->active;
	bool		is_active = new != NULL && new->active;
	PpUsageChange *change;
	TimestampTz ended;

	if (was_active && is_active && old->activated_at == new->activated_at)
		return;
	if (!was_active && !is_active)
		return;
	change = change_of(changes, row->workspace_id);

	if (!was_active)
	{
		if (new->activated_at < change->start_floor)
			pp_restamp_add(restamps, new->workspace_id, new->key_id, true, change->start_to);
		return;
	}
	if (new == NULL)
		ended = change->clock;
	else
	{
		ended = is_active ? new->activated_at : new->disabled_at;
		if (ended < change->end_floor)
		{
			ended = change->end_to;
			pp_restamp_add(restamps, new->workspace_id, new->key_id, is_active, ended);
		}
	}
	pp_history_add(history, old->workspace_id, old->key_id, old->kind,
				   old->account_id, old->no_account, old->partner_key,
				   old->activated_at, ended);
}

/* The rows of a statement: before, after, or both in step for an UPDATE. */
typedef struct RowPairs
{
	Tuplestorestate *old_rows;	/* NULL for an INSERT */
	Tuplestorestate *new_rows;	/* NULL for a DELETE */
	TupleTableSlot *old_slot;
	TupleTableSlot *new_slot;
	bool		has_old;
	bool		has_new;
} RowPairs;

/*
 * begin_rows goes before the first row of the trigger's statement.
 */
static void
begin_rows(RowPairs *rows, TriggerData *trigdata)
{
	TupleDesc	desc = RelationGetDescr(trigdata->tg_relation);

	rows->old_slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	rows->new_slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	rows->old_rows = TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) ? NULL : trigdata->tg_oldtable;
	rows->new_rows = TRIGGER_FIRED_BY_DELETE(trigdata->tg_event) ? NULL : trigdata->tg_newtable;
	if (rows->old_rows != NULL)
		tuplestore_rescan(rows->old_rows);
	if (rows->new_rows != NULL)
		tuplestore_rescan(rows->new_rows);
}

/*
 * next_rows reads the next row into the slots of the sides that have it; false
 * at the end.
 */
static bool
next_rows(RowPairs *rows)
{
	CHECK_FOR_INTERRUPTS();
	rows->has_old = rows->old_rows != NULL &&
		tuplestore_gettupleslot(rows->old_rows, true, false, rows->old_slot);
	rows->has_new = rows->new_rows != NULL &&
		tuplestore_gettupleslot(rows->new_rows, true, false, rows->new_slot);
	return rows->has_old || rows->has_new;
}

/*
 * end_rows frees the slots.
 */
static void
end_rows(RowPairs *rows)
{
	ExecDropSingleTupleTableSlot(rows->new_slot);
	ExecDropSingleTupleTableSlot(rows->old_slot);
}

/*
 * key_pass goes over the rows of the statement once: to sum them up, or with a
 * history to finish them.  The two tables of an UPDATE run in step.
 */
static void
key_pass(TriggerData *trigdata, Changes *changes, PpHistory *history, PpRestamps *restamps)
{
	RowPairs	rows;

	begin_rows(&rows, trigdata);
	while (next_rows(&rows))
	{
		KeyRow		old;
		KeyRow		new;

		if (rows.has_old)
			read_key(rows.old_slot, &old);
		if (rows.has_new)
			read_key(rows.new_slot, &new);
		if (restamps != NULL)
			finish_key(changes, history, restamps, rows.has_old ? &old : NULL, rows.has_new ? &new : NULL);
		else if (!rows.has_old)
			add_insert(changes, &new);
		else if (!rows.has_new)
			add_delete(changes, &old);
		else
			add_update(changes, &old, &new);
	}
	end_rows(&rows);
}

/*
 * needs_finish tells whether a second pass has anything to do: a stretch that
 * ended, or an activation whose stamp does not stand.
 */
static bool
needs_finish(Changes *changes)
{
	if (changes->history)
		return true;
	for (int i = 0; i < changes->count; i++)
		if (changes->sorted[i]->first_activation < changes->sorted[i]->start_floor)
			return true;
	return false;
}

/*
 * partner_portal_count_keys is the AFTER STATEMENT trigger of security_key for
 * INSERT, UPDATE and DELETE: it counts, enforces the limit and keeps the history.
 */
Datum
partner_portal_count_keys(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = check_trigger(fcinfo, "count_keys");
	bool		restoring = TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) && pp_restoring();
	MemoryContext context;
	MemoryContext old_context;
	Changes		changes;

	context = AllocSetContextCreate(CurrentMemoryContext, "changes of keys", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(context);
	begin_changes(&changes);

	key_pass(trigdata, &changes, NULL, NULL);
	apply_changes(&changes, restoring);
	if (changes.count > 0 && !restoring && needs_finish(&changes))
	{
		PpHistory  *history = pp_history_begin();
		PpRestamps restamps = {0};

		key_pass(trigdata, &changes, history, &restamps);
		pp_history_end(history);
		CommandCounterIncrement();
		pp_restamp_all(&restamps, trigdata->tg_relation);
	}

	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}

/*
 * read_member reads a row of a transition table of member; with no row it is
 * none.
 */
static void
read_member(TupleTableSlot *slot, bool exists, PpMember *member)
{
	member->role = NULL;
	member->accepted = false;
	if (!exists)
		return;
	slot_getsomeattrs(slot, MEMBER_COLUMNS);
	member->role = text_to_cstring(DatumGetTextPP(slot->tts_values[MEMBER_ROLE - 1]));
	member->accepted = !slot->tts_isnull[MEMBER_ACCEPTED_AT - 1];
}

/*
 * is_owner tells whether a membership is that of an owner that counts.
 */
static bool
is_owner(const PpMember *member)
{
	return member->accepted && strcmp(member->role, "owner") == 0;
}

/*
 * add_member adds what became of one membership to the changes.
 */
static void
add_member(Changes *changes, TupleTableSlot *row, const PpMember *was, const PpMember *is, bool restoring)
{
	PpUsageChange *change;
	int			owners = is_owner(is) - is_owner(was);
	bool		same = was->role != NULL && is->role != NULL &&
		strcmp(was->role, is->role) == 0 && was->accepted == is->accepted;

	if (same || (restoring && owners == 0))
		return;
	change = change_of(changes, DatumGetInt64(row->tts_values[MEMBER_WORKSPACE_ID - 1]));
	change->owners += owners;
	if (!restoring)
		pp_note_member(&change->members, DatumGetInt64(row->tts_values[MEMBER_ACCOUNT_ID - 1]), was, is);
}

/*
 * member_pass adds the rows of a statement to the changes.
 */
static void
member_pass(TriggerData *trigdata, Changes *changes, bool restoring)
{
	RowPairs	rows;

	begin_rows(&rows, trigdata);
	while (next_rows(&rows))
	{
		PpMember	was;
		PpMember	is;

		read_member(rows.old_slot, rows.has_old, &was);
		read_member(rows.new_slot, rows.has_new, &is);
		add_member(changes, rows.has_new ? rows.new_slot : rows.old_slot, &was, &is, restoring);
	}
	end_rows(&rows);
}

/*
 * partner_portal_count_owners is the AFTER STATEMENT trigger of member for
 * INSERT, UPDATE and DELETE: a workspace does not lose its last owner (PP004),
 * and its log tells of every change.
 */
Datum
partner_portal_count_owners(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = check_trigger(fcinfo, "count_owners");
	static bool checked = false;
	MemoryContext context;
	MemoryContext old_context;
	Changes		changes;
	bool		restoring = TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) && pp_restoring();

	if (!checked)
	{
		pp_check_columns(RelationGetDescr(trigdata->tg_relation), MEMBER_COLUMNS, member_columns);
		checked = true;
	}
	context = AllocSetContextCreate(CurrentMemoryContext, "changes of owners", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(context);
	begin_changes(&changes);
	member_pass(trigdata, &changes, restoring);
	apply_changes(&changes, restoring);

	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}

/*
 * partner_portal_refuse_truncate is the BEFORE TRUNCATE trigger of the tables
 * that are counted.
 */
Datum
partner_portal_refuse_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("refuse_truncate() must be fired before TRUNCATE")));
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("table \"%s\" cannot be truncated", RelationGetRelationName(trigdata->tg_relation)),
			 errdetail("Its rows are counted and keep their history."),
			 errhint("Use DELETE.")));
}
