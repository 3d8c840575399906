/*-------------------------------------------------------------------------
 *
 * workspace.c
 *		The guard of the workspace table: who may change which column.
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

#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/rel.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_guard_workspace);

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

/*
 * get_column returns a column of a row.
 */
static Datum
get_column(HeapTuple row, TupleDesc desc, const char *name, bool *null)
{
	int			column = SPI_fnumber(desc, name);

	if (column <= 0)
		elog(ERROR, "table workspace has no column \"%s\"", name);
	return SPI_getbinval(row, desc, column, null);
}

/*
 * column_changes tells whether an update changes a column.
 */
static bool
column_changes(TriggerData *trigger, const char *name)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	Form_pg_attribute attribute = TupleDescAttr(desc, SPI_fnumber(desc, name) - 1);
	bool		old_null;
	bool		new_null;
	Datum		old = get_column(trigger->tg_trigtuple, desc, name, &old_null);
	Datum		new = get_column(trigger->tg_newtuple, desc, name, &new_null);

	if (old_null || new_null)
		return old_null != new_null;
	return !datum_image_eq(old, new, attribute->attbyval, attribute->attlen);
}

/*
 * check_line raises 22023 for control characters in a text that is shown on
 * one line and ends up in the headers of mails; lines of an address may break.
 */
static void
check_line(HeapTuple row, TupleDesc desc, const char *name, bool may_break)
{
	bool		null;
	Datum		value = get_column(row, desc, name, &null);
	text	   *line;

	if (null)
		return;
	line = DatumGetTextPP(value);
	for (int i = 0; i < VARSIZE_ANY_EXHDR(line); i++)
	{
		unsigned char c = (unsigned char) VARDATA_ANY(line)[i];

		if ((c < ' ' || c == 0x7f) && !(may_break && (c == '\n' || c == '\r')))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s must not contain control characters", name)));
	}
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
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	bool		null;
	bool		deleted;
	int64		workspace_id;

	workspace_id = DatumGetInt64(get_column(trigger->tg_trigtuple, desc, "workspace_id", &null));
	(void) get_column(trigger->tg_trigtuple, desc, "deleted_at", &null);
	deleted = !null;
	for (int i = 0; i < lengthof(guarded_columns); i++)
	{
		const GuardedColumn *column = &guarded_columns[i];

		if (!column_changes(trigger, column->name))
			continue;
		if (!may_change(column, workspace_id))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied to change column \"%s\" of workspace " INT64_FORMAT,
							column->name, workspace_id),
					 column->permission == NULL ?
					 errhint("It is changed by functions of the extension.") :
					 errdetail("It takes the permission \"%s\".", column->permission)));
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
	TupleDesc	desc;

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

	desc = RelationGetDescr(trigger->tg_relation);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) && !by_our_functions(trigger->tg_relation))
		check_update(trigger);
	check_line(row, desc, "company_name", false);
	check_line(row, desc, "tax_id", false);
	check_line(row, desc, "address", true);
	return PointerGetDatum(row);
}
