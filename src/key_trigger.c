/*-------------------------------------------------------------------------
 *
 * key_trigger.c
 *		AFTER STATEMENT triggers: what a statement did to keys and owners.
 *
 * The transition tables are read once to sum up the changes per workspace,
 * which usage_counter.c then applies in the order of workspace_id, and to note
 * the stretches that ended, which then go to key_history.  Rows whose stamps
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
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "partner_portal.h"
#include "security_key.h"

PG_FUNCTION_INFO_V1(partner_portal_count_keys);
PG_FUNCTION_INFO_V1(partner_portal_count_owners);

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

/* So many are noted; of more the transition tables are read once more. */
#define MAX_ENDED	262144

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
 * as_ended describes the stretch that ends with the row old becoming new; NULL
 * is that it was deleted.
 */
static PpEnded
as_ended(PpUsageChange *change, const KeyRow *old, const KeyRow *new)
{
	PpEnded		ended = {
		.change = change,
		.key_id = old->key_id,
		.partner_key = old->partner_key,
		.account_id = old->no_account ? 0 : DatumGetInt64(old->account_id),
		.active_from = old->activated_at,
		.stamp = new == NULL ? DT_NOBEGIN : new->active ? new->activated_at : new->disabled_at,
		.kind = old->kind,
		.no_account = old->no_account,
		.goes_on = new != NULL && new->active
	};

	return ended;
}

/*
 * note_ended notes a stretch that ended.
 */
static void
note_ended(PpChanges *changes, PpUsageChange *change, const KeyRow *old, const KeyRow *new)
{
	if (changes->ended_count < MAX_ENDED)
	{
		if (changes->ended_count == changes->ended_room)
		{
			changes->ended_room = Max(8, changes->ended_room * 2);
			changes->ended = changes->ended == NULL ? palloc(changes->ended_room * sizeof(PpEnded)) :
				repalloc(changes->ended, changes->ended_room * sizeof(PpEnded));
		}
		changes->ended[changes->ended_count] = as_ended(change, old, new);
	}
	changes->ended_count++;
	change->ended_count++;
}

/*
 * add_insert adds a new key to the changes.
 */
static void
add_insert(PpChanges *changes, const KeyRow *new)
{
	PpUsageChange *change = pp_change_of(changes, new->workspace_id);

	change->lowest_partner_key = change->inserted ? Min(change->lowest_partner_key, new->partner_key) : new->partner_key;
	change->highest_partner_key = change->inserted ? Max(change->highest_partner_key, new->partner_key) : new->partner_key;
	change->inserted = true;
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
add_delete(PpChanges *changes, const KeyRow *old)
{
	PpUsageChange *change = pp_change_of(changes, old->workspace_id);

	change->total[old->kind]--;
	change->deleted_keys++;
	note_key(&change->disabled, old);
	if (old->active)
	{
		change->active[old->kind]--;
		change->deleted++;
		change->last_end = Max(change->last_end, old->activated_at);
		note_ended(changes, change, old, NULL);
	}
}

/*
 * add_update adds a changed key to the changes; most changes are none to us.
 */
static void
add_update(PpChanges *changes, const KeyRow *old, const KeyRow *new)
{
	PpUsageChange *change;

	if (old->active == new->active && old->revoked == new->revoked &&
		(!old->active || old->activated_at == new->activated_at))
		return;
	change = pp_change_of(changes, new->workspace_id);
	if (!old->active && !new->active)
		note_key(&change->disabled, new);
	else if (old->active && new->active)
	{
		change->first_activation = Min(change->first_activation, new->activated_at);
		note_ended(changes, change, old, new);
	}
	else if (old->active)
	{
		change->active[new->kind]--;
		change->ends = true;
		change->first_end = Min(change->first_end, new->disabled_at);
		change->last_end = Max(change->last_end, new->disabled_at);
		note_ended(changes, change, old, new);
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
 * finish_ended writes a stretch that ended, and notes its end if that is to be
 * moved.
 */
static void
finish_ended(const PpEnded *ended, PpHistory *history, PpRestamps *restamps)
{
	const PpUsageChange *change = ended->change;
	TimestampTz until = ended->stamp;

	if (until == DT_NOBEGIN)
		until = change->clock;
	else if (until < change->end_floor)
	{
		until = change->end_to;
		pp_restamp_add(restamps, change->workspace_id, ended->key_id, ended->goes_on, until);
	}
	pp_history_add(history, change->workspace_id, ended->key_id, ended->kind,
				   Int64GetDatum(ended->account_id), ended->no_account, ended->partner_key,
				   ended->active_from, until);
}

/*
 * finish_key writes the stretch that ended with a row's change, if one did,
 * and notes a stamp that is to be moved.  Either row may be NULL.
 */
static void
finish_key(PpChanges *changes, PpHistory *history, PpRestamps *restamps,
		   const KeyRow *old, const KeyRow *new)
{
	const KeyRow *row = old != NULL ? old : new;
	bool		was_active = old != NULL && old->active;
	bool		is_active = new != NULL && new->active;
	PpUsageChange *change;
	PpEnded		ended;

	if (was_active && is_active && old->activated_at == new->activated_at)
		return;
	if (!was_active && !is_active)
		return;
	change = pp_change_of(changes, row->workspace_id);

	if (!was_active)
	{
		if (new->activated_at < change->start_floor)
			pp_restamp_add(restamps, new->workspace_id, new->key_id, true, change->start_to);
		return;
	}
	ended = as_ended(change, old, new);
	finish_ended(&ended, history, restamps);
}

/* The rows of a statement: before, after, or both in step for an UPDATE. */
typedef struct RowPairs
{
	Tuplestorestate *old_rows;	/* NULL for an INSERT */
	Tuplestorestate *new_rows;	/* NULL for a DELETE */
	TupleTableSlot *old_slot;	/* NULL with its rows */
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

	rows->old_slot = rows->new_slot = NULL;
	rows->old_rows = TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) ? NULL : trigdata->tg_oldtable;
	rows->new_rows = TRIGGER_FIRED_BY_DELETE(trigdata->tg_event) ? NULL : trigdata->tg_newtable;
	if (rows->old_rows != NULL)
	{
		rows->old_slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
		tuplestore_rescan(rows->old_rows);
	}
	if (rows->new_rows != NULL)
	{
		rows->new_slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
		tuplestore_rescan(rows->new_rows);
	}
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
	if (rows->new_slot != NULL)
		ExecDropSingleTupleTableSlot(rows->new_slot);
	if (rows->old_slot != NULL)
		ExecDropSingleTupleTableSlot(rows->old_slot);
}

/*
 * key_pass goes over the rows of the statement once: to sum them up, or with a
 * history to finish them.  The two tables of an UPDATE run in step.
 */
static void
key_pass(TriggerData *trigdata, PpChanges *changes, PpHistory *history, PpRestamps *restamps)
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
 * needs_pass tells whether the rows have to be looked at once more: for more
 * stretches than were noted, or an activation whose stamp does not stand.
 */
static bool
needs_pass(const PpChanges *changes)
{
	if (changes->ended_count > MAX_ENDED)
		return true;
	for (int i = 0; i < changes->count; i++)
		if (changes->sorted[i]->first_activation < changes->sorted[i]->start_floor)
			return true;
	return false;
}

/*
 * by_workspace returns the stretches that ended in the order of workspaces, and
 * else as they were noted, which is mostly that of their ends: so history has
 * little left to sort.
 */
static const PpEnded **
by_workspace(const PpChanges *changes)
{
	const PpEnded **ended = palloc(changes->ended_count * sizeof(PpEnded *));
	int			place = 0;

	for (int i = 0; i < changes->count; i++)
	{
		changes->sorted[i]->ended_place = place;
		place += changes->sorted[i]->ended_count;
	}
	for (int i = 0; i < changes->ended_count; i++)
		ended[changes->ended[i].change->ended_place++] = &changes->ended[i];
	return ended;
}

/*
 * finish_keys writes the stretches that ended and moves the stamps that do not
 * stand.
 */
static void
finish_keys(TriggerData *trigdata, PpChanges *changes)
{
	bool		pass = needs_pass(changes);
	PpHistory  *history;
	PpRestamps	restamps = {0};

	if (!pass && changes->ended_count == 0)
		return;
	history = pp_history_begin();
	if (pass)
		key_pass(trigdata, changes, history, &restamps);
	else
	{
		const PpEnded **ended = by_workspace(changes);

		for (int i = 0; i < changes->ended_count; i++)
			finish_ended(ended[i], history, &restamps);
	}
	pp_history_end(history);
	CommandCounterIncrement();
	pp_restamp_all(&restamps, trigdata->tg_relation);
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
	PpChanges	changes;

	context = AllocSetContextCreate(CurrentMemoryContext, "changes of keys", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(context);
	pp_changes_begin(&changes);

	key_pass(trigdata, &changes, NULL, NULL);
	pp_changes_apply(&changes, restoring);
	if (!restoring)
		finish_keys(trigdata, &changes);

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
add_member(PpChanges *changes, TupleTableSlot *row, const PpMember *was, const PpMember *is, bool restoring)
{
	PpUsageChange *change;
	int			owners = is_owner(is) - is_owner(was);
	bool		same = was->role != NULL && is->role != NULL &&
		strcmp(was->role, is->role) == 0 && was->accepted == is->accepted;

	if (same || (restoring && owners == 0))
		return;
	change = pp_change_of(changes, DatumGetInt64(row->tts_values[MEMBER_WORKSPACE_ID - 1]));
	change->owners += owners;
	if (!restoring)
		pp_note_member(&change->members, DatumGetInt64(row->tts_values[MEMBER_ACCOUNT_ID - 1]), was, is);
}

/*
 * member_pass adds the rows of a statement to the changes.
 */
static void
member_pass(TriggerData *trigdata, PpChanges *changes, bool restoring)
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
	PpChanges	changes;
	bool		restoring = TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) && pp_restoring();

	if (!checked)
	{
		pp_check_columns(RelationGetDescr(trigdata->tg_relation), MEMBER_COLUMNS, member_columns);
		checked = true;
	}
	context = AllocSetContextCreate(CurrentMemoryContext, "changes of owners", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(context);
	pp_changes_begin(&changes);
	member_pass(trigdata, &changes, restoring);
	pp_changes_apply(&changes, restoring);

	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}
