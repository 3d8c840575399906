/*-------------------------------------------------------------------------
 *
 * security_key.c
 *		What a security key may become, and the stamps it gets.
 *
 * A BEFORE ROW trigger on security_key.  Ids, times and reasons come from here
 * and never from the client, the operator included.  Counting is the matter of
 * the statement triggers (key_trigger.c): a row that passes here may still be
 * dropped by ON CONFLICT.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "partner_portal.h"
#include "security_key.h"

PG_FUNCTION_INFO_V1(partner_portal_stamp_key);

PpKeyContext pp_key_context = {NULL, false};

typedef enum KeyStatus
{
	STATUS_OTHER,				/* NULL or unknown: the table's constraints
								 * refuse it */
	STATUS_ACTIVE,
	STATUS_DISABLED,
	STATUS_REVOKED
} KeyStatus;

static const char *const key_columns[] = {
	"workspace_id", "key_id", "partner_key", "kind", "serial", "label",
	"account_id", "status", "disabled_reason", "created_at", "activated_at",
	"disabled_at"
};

/*
 * pp_text_is tells whether a text datum equals a C string.
 */
bool
pp_text_is(Datum value, const char *string)
{
	text	   *t = DatumGetTextPP(value);
	size_t		length = strlen(string);

	return VARSIZE_ANY_EXHDR(t) == length && memcmp(VARDATA_ANY(t), string, length) == 0;
}

/*
 * pp_key_kind returns the number of a kind, or -1 for an unknown one.
 */
int
pp_key_kind(Datum kind)
{
	if (pp_text_is(kind, "smartphone"))
		return PP_SMARTPHONE;
	if (pp_text_is(kind, "contactless_card"))
		return PP_CONTACTLESS_CARD;
	return -1;
}

/*
 * key_status reads the column status.
 */
static KeyStatus
key_status(const Datum *values, const bool *nulls)
{
	Datum		status = values[KEY_STATUS - 1];

	if (nulls[KEY_STATUS - 1])
		return STATUS_OTHER;
	if (pp_text_is(status, "active"))
		return STATUS_ACTIVE;
	if (pp_text_is(status, "disabled"))
		return STATUS_DISABLED;
	if (pp_text_is(status, "revoked"))
		return STATUS_REVOKED;
	return STATUS_OTHER;
}

/*
 * reason_of_actor returns what is stamped on a key that is disabled now: the
 * database's own reason; customer for who acts in the workspace itself; else
 * partner, for the partner's side and the operator alike.
 */
static const char *
reason_of_actor(int64 workspace_id)
{
	if (pp_key_context.reason != NULL)
		return pp_key_context.reason;
	if (pp_identity() != NULL && pp_acting_workspace() == workspace_id)
		return "customer";
	return "partner";
}

/*
 * check_lift raises 42501 unless who is asking may activate a key that was
 * disabled for this reason.  What the partner's side or the platform disabled,
 * the customer cannot lift, nor can a guest by a grant in a workspace that has
 * a partner of its own.
 */
static void
check_lift(int64 workspace_id, int64 partner_key, int64 key_id, Datum reason)
{
	int64		acting;

	if (pp_key_context.lifting || pp_text_is(reason, "customer") || pp_text_is(reason, "limit"))
		return;
	if (pp_is_operator())
		return;
	acting = pp_acting_workspace();
	if (acting != 0 && acting != workspace_id && (partner_key == 0 || acting == partner_key))
		return;
	pp_refused(ERRCODE_INSUFFICIENT_PRIVILEGE, "activate", workspace_id,
			   psprintf(", \"key\": " INT64_FORMAT, key_id));
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("key " INT64_FORMAT " cannot be activated by its own workspace", key_id),
			 errdetail("It was disabled with reason \"%s\".", TextDatumGetCString(reason)),
			 errhint("Ask the partner to activate it.")));
}

/*
 * set_text, set_time and set_null change one column of a deformed row.
 */
static void
set_text(Datum *values, bool *nulls, int column, const char *string)
{
	values[column - 1] = CStringGetTextDatum(string);
	nulls[column - 1] = false;
}

static void
set_time(Datum *values, bool *nulls, int column, TimestampTz time)
{
	values[column - 1] = TimestampTzGetDatum(time);
	nulls[column - 1] = false;
}

static void
set_null(Datum *values, bool *nulls, int column)
{
	values[column - 1] = (Datum) 0;
	nulls[column - 1] = true;
}

/*
 * check_name refuses control characters in a serial or a label.
 */
static void
check_name(const Datum *values, const bool *nulls, int column)
{
	if (!nulls[column - 1])
		pp_check_controls(key_columns[column - 1], DatumGetTextPP(values[column - 1]), false);
}

/*
 * stamp_insert fills in what the server knows about a new key.  A restored row
 * stays as it was.
 */
static void
stamp_insert(Datum *values, bool *nulls)
{
	bool		restoring = pp_restoring();
	int64		workspace_id;
	TimestampTz now = GetCurrentTimestamp();

	if (!restoring || nulls[KEY_KEY_ID - 1])
	{
		values[KEY_KEY_ID - 1] = Int64GetDatum(nextval_internal(pp_our_relation(PP_KEY_ID_SEQUENCE), false));
		nulls[KEY_KEY_ID - 1] = false;
	}
	if (restoring || nulls[KEY_WORKSPACE_ID - 1])
		return;

	check_name(values, nulls, KEY_SERIAL);
	check_name(values, nulls, KEY_LABEL);
	workspace_id = DatumGetInt64(values[KEY_WORKSPACE_ID - 1]);
	pp_hold_grant(workspace_id);
	/* An absent workspace is for the foreign key to refuse. */
	values[KEY_PARTNER_KEY - 1] = Int64GetDatum(pp_partner_key_to_stay(workspace_id));
	nulls[KEY_PARTNER_KEY - 1] = false;
	set_time(values, nulls, KEY_CREATED_AT, now);
	if (key_status(values, nulls) == STATUS_ACTIVE)
	{
		set_time(values, nulls, KEY_ACTIVATED_AT, now);
		set_null(values, nulls, KEY_DISABLED_AT);
		set_null(values, nulls, KEY_DISABLED_REASON);
	}
	else
	{
		set_null(values, nulls, KEY_ACTIVATED_AT);
		set_time(values, nulls, KEY_DISABLED_AT, now);
		set_text(values, nulls, KEY_DISABLED_REASON, reason_of_actor(workspace_id));
	}
}

/*
 * refuse_change raises 22023 when a column that never changes would.
 */
static void
refuse_change(const Datum *old_values, const Datum *values, const bool *nulls, int column)
{
	bool		same;

	if (nulls[column - 1])
		same = false;
	else if (column == KEY_KIND)
		same = pp_key_kind(values[column - 1]) == pp_key_kind(old_values[column - 1]);
	else
		same = DatumGetInt64(values[column - 1]) == DatumGetInt64(old_values[column - 1]);
	if (!same)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("column \"%s\" of a security key never changes", key_columns[column - 1]),
				 errhint("Delete the key and add another one.")));
}

/*
 * stamp_update checks a key's step from one state to the next and stamps it.
 * Its own stretches follow each other even if the clock is set back.
 */
static void
stamp_update(const Datum *old_values, const bool *old_nulls, Datum *values, bool *nulls)
{
	KeyStatus	before = key_status(old_values, old_nulls);
	KeyStatus	after = key_status(values, nulls);
	int64		workspace_id = DatumGetInt64(old_values[KEY_WORKSPACE_ID - 1]);
	int64		key_id = DatumGetInt64(old_values[KEY_KEY_ID - 1]);
	TimestampTz now = GetCurrentTimestamp();
	bool		holder_changes;

	pp_hold_grant(workspace_id);
	refuse_change(old_values, values, nulls, KEY_WORKSPACE_ID);
	refuse_change(old_values, values, nulls, KEY_KEY_ID);
	refuse_change(old_values, values, nulls, KEY_KIND);
	refuse_change(old_values, values, nulls, KEY_CREATED_AT);

	/*
	 * a key that came with such a name, as by a restore, can still be
	 * disabled
	 */
	for (int column = KEY_SERIAL; column <= KEY_LABEL; column++)
		if (!nulls[column - 1] &&
			(old_nulls[column - 1] || !datumIsEqual(old_values[column - 1], values[column - 1], false, -1)))
			check_name(values, nulls, column);

	if (before == STATUS_REVOKED && after != STATUS_REVOKED)
		ereport(ERROR,
				(errcode(ERRCODE_PP_WRONG_STATE),
				 errmsg("key " INT64_FORMAT " is revoked", key_id),
				 errdetail("A revoked key stays revoked."),
				 errhint("Add the device as a new key.")));

	holder_changes = nulls[KEY_ACCOUNT_ID - 1] != old_nulls[KEY_ACCOUNT_ID - 1] ||
		(!nulls[KEY_ACCOUNT_ID - 1] &&
		 DatumGetInt64(values[KEY_ACCOUNT_ID - 1]) != DatumGetInt64(old_values[KEY_ACCOUNT_ID - 1]));

	values[KEY_ACTIVATED_AT - 1] = old_values[KEY_ACTIVATED_AT - 1];
	nulls[KEY_ACTIVATED_AT - 1] = old_nulls[KEY_ACTIVATED_AT - 1];
	values[KEY_DISABLED_AT - 1] = old_values[KEY_DISABLED_AT - 1];
	nulls[KEY_DISABLED_AT - 1] = old_nulls[KEY_DISABLED_AT - 1];
	if (pp_key_context.reason == NULL || before == STATUS_ACTIVE || after == STATUS_ACTIVE)
	{
		values[KEY_DISABLED_REASON - 1] = old_values[KEY_DISABLED_REASON - 1];
		nulls[KEY_DISABLED_REASON - 1] = old_nulls[KEY_DISABLED_REASON - 1];
	}

	if (before == STATUS_ACTIVE && !old_nulls[KEY_ACTIVATED_AT - 1])
		now = Max(now, DatumGetTimestampTz(old_values[KEY_ACTIVATED_AT - 1]));
	if (before != STATUS_ACTIVE && !old_nulls[KEY_DISABLED_AT - 1])
		now = Max(now, DatumGetTimestampTz(old_values[KEY_DISABLED_AT - 1]));

	if (before == STATUS_ACTIVE && after == STATUS_ACTIVE)
	{
		if (holder_changes)
			set_time(values, nulls, KEY_ACTIVATED_AT, now);
	}
	else if (before == STATUS_ACTIVE)
	{
		set_time(values, nulls, KEY_DISABLED_AT, now);
		set_text(values, nulls, KEY_DISABLED_REASON, reason_of_actor(workspace_id));
	}
	else if (after == STATUS_ACTIVE)
	{
		if (!old_nulls[KEY_DISABLED_REASON - 1])
			check_lift(workspace_id, DatumGetInt64(old_values[KEY_PARTNER_KEY - 1]),
					   key_id, old_values[KEY_DISABLED_REASON - 1]);
		set_time(values, nulls, KEY_ACTIVATED_AT, now);
		set_null(values, nulls, KEY_DISABLED_AT);
		set_null(values, nulls, KEY_DISABLED_REASON);
	}
}

/*
 * partner_portal_stamp_key is the BEFORE INSERT OR UPDATE row trigger of
 * security_key.
 */
Datum
partner_portal_stamp_key(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	static bool checked = false;
	TupleDesc	desc;
	HeapTuple	tuple;
	HeapTuple	result;
	Datum	   *values;
	bool	   *nulls;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("stamp_key() must be called as a trigger")));
	if (!TRIGGER_FIRED_BEFORE(trigdata->tg_event) || !TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("stamp_key() must be fired before INSERT or UPDATE for each row")));

	desc = RelationGetDescr(trigdata->tg_relation);
	if (!checked)
	{
		pp_check_columns(desc, KEY_COLUMNS, key_columns);
		checked = true;
	}
	tuple = TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) ? trigdata->tg_trigtuple : trigdata->tg_newtuple;
	values = palloc(desc->natts * sizeof(Datum));
	nulls = palloc(desc->natts * sizeof(bool));
	heap_deform_tuple(tuple, desc, values, nulls);

	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
		stamp_insert(values, nulls);
	else
	{
		Datum	   *old_values = palloc(desc->natts * sizeof(Datum));
		bool	   *old_nulls = palloc(desc->natts * sizeof(bool));

		heap_deform_tuple(trigdata->tg_trigtuple, desc, old_values, old_nulls);
		stamp_update(old_values, old_nulls, values, nulls);
	}

	result = heap_form_tuple(desc, values, nulls);
	result->t_data->t_ctid = tuple->t_data->t_ctid;
	result->t_self = tuple->t_self;
	result->t_tableOid = tuple->t_tableOid;
	return PointerGetDatum(result);
}
