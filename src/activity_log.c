/*-------------------------------------------------------------------------
 *
 * activity_log.c
 *		What is written to the activity log, by triggers and by log_activity().
 *
 * Statements that switch keys or change memberships gain one line per statement
 * and workspace (activity_line.c), written while the counters are locked anyway.
 * Row triggers of other tables hand their lines to key_settle.c, which has
 * them written when the query is done, in the order of workspaces.  A line that
 * a trigger writes names people by number only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/datum.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "partner_portal.h"
#include "security_key.h"

PG_FUNCTION_INFO_V1(partner_portal_log_row);
PG_FUNCTION_INFO_V1(partner_portal_log_workspace);
PG_FUNCTION_INFO_V1(partner_portal_log_account);
PG_FUNCTION_INFO_V1(partner_portal_write_activity);

/*
 * begin_member begins a member of a JSON object that is being built.
 */
static void
begin_member(StringInfo json, const char *name)
{
	appendStringInfoString(json, json->len == 0 ? "{" : ", ");
	escape_json(json, name);
	appendStringInfoString(json, ": ");
}

/*
 * append_value adds a value to JSON: numbers and booleans bare, instants in UTC,
 * all else as text.
 */
static void
append_value(StringInfo json, Oid type, Datum value, bool null)
{
	static const int utc = 0;
	char		time[MAXDATELEN + 1];
	Oid			output;
	bool		varlena;

	if (null)
	{
		appendStringInfoString(json, "null");
		return;
	}
	switch (type)
	{
		case BOOLOID:
			appendStringInfoString(json, DatumGetBool(value) ? "true" : "false");
			return;
		case TIMESTAMPTZOID:
		case DATEOID:
			JsonEncodeDateTime(time, value, type, &utc);
			escape_json(json, time);
			return;
		default:
			break;
	}
	getTypeOutputInfo(type, &output, &varlena);
	if (type == INT2OID || type == INT4OID || type == INT8OID)
		appendStringInfoString(json, OidOutputFunctionCall(output, value));
	else
		escape_json(json, OidOutputFunctionCall(output, value));
}

/* A line and its place, so that lines of one workspace stay in order. */
typedef struct PlacedLine
{
	PpLogLine  *line;
	int			place;
} PlacedLine;

/*
 * compare_lines orders lines by workspace.
 */
static int
compare_lines(const void *a, const void *b)
{
	const PlacedLine *left = a;
	const PlacedLine *right = b;

	if (left->line->workspace_id != right->line->workspace_id)
		return left->line->workspace_id < right->line->workspace_id ? -1 : 1;
	return left->place - right->place;
}

/*
 * pp_log_lines writes lines, in the order of workspaces.
 */
void
pp_log_lines(List *lines)
{
	int			count = list_length(lines);
	PlacedLine *placed = palloc(count * sizeof(PlacedLine));
	PpLogLine **sorted = palloc(count * sizeof(PpLogLine *));

	for (int i = 0; i < count; i++)
	{
		placed[i].line = list_nth(lines, i);
		placed[i].place = i;
	}
	qsort(placed, count, sizeof(PlacedLine), compare_lines);
	for (int i = 0; i < count; i++)
		sorted[i] = placed[i].line;
	(void) pp_usage_log(sorted, count);
	pfree(sorted);
	pfree(placed);
}

/*
 * row_trigger raises an error unless called as an AFTER ROW trigger; NULL when
 * a dump is being restored.
 */
static TriggerData *
row_trigger(FunctionCallInfo fcinfo, const char *name)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s() must be fired after INSERT, UPDATE or DELETE for each row", name)));
	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) && pp_restoring())
		return NULL;
	return trigdata;
}

/*
 * get_column returns a column of a row, by name.
 */
static Datum
get_column(HeapTuple row, TupleDesc desc, const char *name, Oid *type, bool *null)
{
	int			column = SPI_fnumber(desc, name);

	if (column <= 0)
		elog(ERROR, "the table has no column \"%s\"", name);
	*type = SPI_gettypeid(desc, column);
	return SPI_getbinval(row, desc, column, null);
}

/*
 * get_id returns a bigint column, 0 for NULL.
 */
static int64
get_id(HeapTuple row, TupleDesc desc, const char *name)
{
	Oid			type;
	bool		null;
	Datum		value = get_column(row, desc, name, &type, &null);

	return null ? 0 : DatumGetInt64(value);
}

/*
 * append_digest adds to JSON the digest of a document, which is a row of invoice.
 */
static void
append_digest(StringInfo json, HeapTuple row, TupleDesc desc)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[] = {Int64GetDatum(get_id(row, desc, "workspace_id")), Int64GetDatum(get_id(row, desc, "invoice_id"))};
	PpOwner		self;
	char	   *digest;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	pp_become_owner(&self);
	pp_keep_plan(&plan, "SELECT partner_portal.invoice_digest($1, $2)", 2, types);
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_SELECT || SPI_processed != 1 ||
		(digest = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1)) == NULL)
		elog(ERROR, "could not read document " INT64_FORMAT, DatumGetInt64(values[1]));
	/* the buffer grows in its own memory context */
	escape_json(json, digest);
	pp_stop_being_owner(&self);
	SPI_finish();
}

/*
 * log_row(action, description, column, ...) is the AFTER ROW trigger of tables
 * whose changes are one line each: the details are the columns named, and
 * "digest" is that of a document.  Which changes is the WHEN of the trigger.
 */
Datum
partner_portal_log_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = row_trigger(fcinfo, "log_row");
	HeapTuple	row;
	TupleDesc	desc;
	StringInfoData json;
	PpLogLine	line = {0};

	if (trigdata == NULL)
		return PointerGetDatum(NULL);
	if (trigdata->tg_trigger->tgnargs < 2)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("log_row() takes an action, a description and columns")));
	row = TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event) ? trigdata->tg_newtuple : trigdata->tg_trigtuple;
	desc = RelationGetDescr(trigdata->tg_relation);
	initStringInfo(&json);
	for (int i = 2; i < trigdata->tg_trigger->tgnargs; i++)
	{
		const char *name = trigdata->tg_trigger->tgargs[i];
		Oid			type;
		bool		null;
		Datum		value;

		begin_member(&json, name);
		if (strcmp(name, "digest") == 0)
		{
			append_digest(&json, row, desc);
			continue;
		}
		value = get_column(row, desc, name, &type, &null);
		append_value(&json, type, value, null);
		if (strcmp(name, "account_id") == 0 && !null)
			line.about = DatumGetInt64(value);
	}
	appendStringInfoString(&json, json.len == 0 ? "{}" : "}");
	line.workspace_id = get_id(row, desc, "workspace_id");
	line.action = trigdata->tg_trigger->tgargs[0];
	line.description = trigdata->tg_trigger->tgargs[1];
	line.details = json.data;
	pp_log_later(&line);
	return PointerGetDatum(NULL);
}

/* Columns of workspace that the log tells about, and how. */
static const char *const limit_columns[] = {"restrict_keys", "key_limit", "limit_mode"};
static const char *const setting_columns[] = {
	"company_name", "slug", "address", "tax_id", "sso_enabled", "notify_new_keys",
	"notify_billing", "time_zone", "anchor_date", "billing_step", "billing_from",
	"auto_finalize", "invoice_visibility"
};

/*
 * append_changes adds to JSON the columns that an update changes, as [old, new],
 * and their names to a list.
 */
static void
append_changes(TriggerData *trigdata, const char *const *columns, int count, StringInfo json, StringInfo names)
{
	TupleDesc	desc = RelationGetDescr(trigdata->tg_relation);

	for (int i = 0; i < count; i++)
	{
		Oid			type;
		bool		was_null;
		bool		is_null;
		Datum		was = get_column(trigdata->tg_trigtuple, desc, columns[i], &type, &was_null);
		Datum		is = get_column(trigdata->tg_newtuple, desc, columns[i], &type, &is_null);
		Form_pg_attribute attribute = TupleDescAttr(desc, SPI_fnumber(desc, columns[i]) - 1);

		if (was_null == is_null &&
			(was_null || datum_image_eq(was, is, attribute->attbyval, attribute->attlen)))
			continue;
		begin_member(json, columns[i]);
		appendStringInfoChar(json, '[');
		append_value(json, type, was, was_null);
		appendStringInfoString(json, ", ");
		append_value(json, type, is, is_null);
		appendStringInfoChar(json, ']');
		appendStringInfo(names, "%s%s", names->len == 0 ? "" : ", ", columns[i]);
	}
	if (json->len > 0)
		appendStringInfoChar(json, '}');
}

/*
 * became tells whether a column became set (+1) or unset (-1); 0 is neither.
 */
static int
became(TriggerData *trigdata, const char *name)
{
	TupleDesc	desc = RelationGetDescr(trigdata->tg_relation);
	Oid			type;
	bool		was_null;
	bool		is_null;

	(void) get_column(trigdata->tg_trigtuple, desc, name, &type, &was_null);
	(void) get_column(trigdata->tg_newtuple, desc, name, &type, &is_null);
	return (int) was_null - (int) is_null;
}

/*
 * log_state tells of a workspace that was deleted, suspended, moved and so on.
 */
static void
log_state(TriggerData *trigdata, PpLogLine *line)
{
	TupleDesc	desc = RelationGetDescr(trigdata->tg_relation);
	int64		partner_id = get_id(trigdata->tg_newtuple, desc, "partner_id");
	char	   *was_kind = SPI_getvalue(trigdata->tg_trigtuple, desc, SPI_fnumber(desc, "kind"));
	char	   *kind = SPI_getvalue(trigdata->tg_newtuple, desc, SPI_fnumber(desc, "kind"));
	int			change;

	line->details = NULL;
	if ((change = became(trigdata, "deleted_at")) != 0)
	{
		line->description = change > 0 ? "workspace deleted" : "workspace restored";
		pp_log_later(line);
	}
	if ((change = became(trigdata, "suspended_at")) != 0)
	{
		line->description = change > 0 ? "workspace suspended" : "workspace resumed";
		pp_log_later(line);
	}
	if (partner_id != get_id(trigdata->tg_trigtuple, desc, "partner_id"))
	{
		line->description = partner_id != 0 ? psprintf("workspace is now a customer of partner " INT64_FORMAT, partner_id) :
			"workspace has left its partner";
		pp_log_later(line);
	}
	if (strcmp(was_kind, kind) != 0)
	{
		line->description = psprintf("workspace is now a %s workspace", kind);
		pp_log_later(line);
	}
}

/*
 * log_workspace is the AFTER INSERT OR UPDATE trigger of workspace, for each
 * row: update_organization and change_limit.
 */
Datum
partner_portal_log_workspace(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = row_trigger(fcinfo, "log_workspace");
	TupleDesc	desc;
	PpLogLine	line = {0};
	StringInfoData json;
	StringInfoData names;

	if (trigdata == NULL || TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		return PointerGetDatum(NULL);
	desc = RelationGetDescr(trigdata->tg_relation);
	line.workspace_id = get_id(trigdata->tg_trigtuple, desc, "workspace_id");
	line.action = "update_organization";
	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		line.description = "workspace created";
		pp_log_later(&line);
		return PointerGetDatum(NULL);
	}
	if (became(trigdata, "purged_at") > 0)
	{
		line.description = "workspace purged";
		pp_log_later(&line);
		return PointerGetDatum(NULL);
	}
	log_state(trigdata, &line);
	initStringInfo(&json);
	initStringInfo(&names);
	append_changes(trigdata, setting_columns, lengthof(setting_columns), &json, &names);
	if (json.len > 0)
	{
		line.description = psprintf("changed: %s", names.data);
		line.details = json.data;
		pp_log_later(&line);
	}
	initStringInfo(&json);
	initStringInfo(&names);
	append_changes(trigdata, limit_columns, lengthof(limit_columns), &json, &names);
	if (json.len > 0)
	{
		line.action = "change_limit";
		line.description = psprintf("changed: %s", names.data);
		line.details = json.data;
		pp_log_later(&line);
	}
	return PointerGetDatum(NULL);
}

/*
 * member_workspaces returns the workspaces that an account has accepted to be a
 * member of, in the memory context of the caller.
 */
static List *
member_workspaces(int64 account_id)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(account_id)};
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext old_context;
	List	   *result = NIL;
	PpOwner		self;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	pp_become_owner(&self);
	pp_keep_plan(&plan,
				 "SELECT workspace_id FROM partner_portal.member"
				 " WHERE account_id = $1 AND accepted_at IS NOT NULL ORDER BY workspace_id", 1, types);
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the memberships of account " INT64_FORMAT, account_id);
	old_context = MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		int64	   *id = palloc(sizeof(int64));
		bool		null;

		*id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &null));
		result = lappend(result, id);
	}
	MemoryContextSwitchTo(old_context);
	pp_stop_being_owner(&self);
	SPI_finish();
	return result;
}

/*
 * log_account is the AFTER UPDATE trigger of account, for each row: one line in
 * every workspace that the account is a member of, without what the profile says.
 */
Datum
partner_portal_log_account(PG_FUNCTION_ARGS)
{
	static const char *const profile_columns[] = {"email", "name", "locale"};
	TriggerData *trigdata = row_trigger(fcinfo, "log_account");
	PpLogLine	line = {0};
	StringInfoData json;
	StringInfoData names;
	ListCell   *cell;
	int			disabled;

	if (trigdata == NULL || !TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
		return PointerGetDatum(NULL);
	line.about = get_id(trigdata->tg_newtuple, RelationGetDescr(trigdata->tg_relation), "account_id");
	initStringInfo(&json);
	initStringInfo(&names);
	append_changes(trigdata, profile_columns, lengthof(profile_columns), &json, &names);
	disabled = became(trigdata, "disabled_at");
	if (json.len == 0 && disabled == 0)
		return PointerGetDatum(NULL);
	foreach(cell, member_workspaces(line.about))
	{
		line.workspace_id = *(int64 *) lfirst(cell);
		if (json.len > 0)
		{
			line.action = "update_user_profile";
			line.description = psprintf("account " INT64_FORMAT " changed: %s", line.about, names.data);
			pp_log_later(&line);
		}
		if (disabled != 0)
		{
			line.action = "update_user_permissions";
			line.description = psprintf("account " INT64_FORMAT " %s", line.about, disabled > 0 ? "disabled" : "enabled");
			pp_log_later(&line);
		}
	}
	return PointerGetDatum(NULL);
}

/*
 * write_activity(workspace_id, action, description, details, about_account_id)
 * writes a line of the application's own and returns its number.
 */
Datum
partner_portal_write_activity(PG_FUNCTION_ARGS)
{
	PpLogLine	line = {0};
	PpLogLine  *lines[1] = {&line};

	PreventCommandIfReadOnly("log_activity()");
	line.workspace_id = PG_GETARG_INT64(0);
	line.action = text_to_cstring(pp_text_argument(fcinfo, 1));
	line.description = text_to_cstring(pp_text_argument(fcinfo, 2));
	line.details = text_to_cstring(pp_text_argument(fcinfo, 3));
	line.about = PG_ARGISNULL(4) ? 0 : PG_GETARG_INT64(4);
	line.by_application = true;

	/*
	 * Everybody locks the workspace first, then its counters: the caller may
	 * go on to change it.
	 */
	(void) pp_partner_key_to_stay(line.workspace_id);
	PG_RETURN_INT64(pp_usage_log(lines, 1));
}
