/*-------------------------------------------------------------------------
 *
 * activity_line.c
 *		What the activity log says about a statement on keys or members.
 *
 * One line per statement and workspace, for each way that keys were switched
 * and for all memberships together.  Single activations are what the log is
 * made of, so the line about keys is built without formats and parsers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "partner_portal.h"
#include "security_key.h"

#define NOTED_MEMBERS	20

/*
 * new_line returns a line with a description, in the current memory context.
 */
static PpLogLine *
new_line(int64 workspace_id, const char *action, char *description, char *details)
{
	PpLogLine  *line = palloc0(sizeof(PpLogLine));

	line->workspace_id = workspace_id;
	line->action = action;
	line->description = description;
	line->details = details;
	return line;
}

/* A JSON object that is built as text and as a value at once, so that nothing has to be parsed. */
typedef struct Details
{
	StringInfoData text;
	JsonbPair	pairs[5];
	int			count;
} Details;

/*
 * number_value returns a number as a JSON value.
 */
static JsonbValue
number_value(int64 number)
{
	JsonbValue	value = {.type = jbvNumeric};

	value.val.numeric = int64_to_numeric(number);
	return value;
}

/*
 * string_value returns a string as a JSON value.
 */
static JsonbValue
string_value(const char *string)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = unconstify(char *, string);
	value.val.string.len = strlen(string);
	return value;
}

/*
 * add_member adds a member, whose text is for the caller to add.  Members come
 * as jsonb orders them, short names first: the text is that of the value.
 */
static void
add_member(Details *details, const char *name, JsonbValue value)
{
	JsonbPair  *pair = &details->pairs[details->count];

	Assert(details->count < lengthof(details->pairs));
	pair->key = string_value(name);
	pair->value = value;
	pair->order = details->count++;
	appendStringInfoString(&details->text, details->count == 1 ? "{\"" : ", \"");
	appendStringInfoString(&details->text, name);
	appendStringInfoString(&details->text, "\": ");
}

/*
 * add_count adds a member that is a number.
 */
static void
add_count(Details *details, const char *name, int number)
{
	add_member(details, name, number_value(number));
	pp_append_number(&details->text, number);
}

/*
 * key_details writes the details of the line about keys switched one way.
 */
static void
key_details(PpLogLine *line, const PpKeyNote *note, const char *reason)
{
	Details		details = {.count = 0};
	JsonbValue	ids[PP_NOTED_KEYS];
	JsonbValue	array = {.type = jbvArray};
	JsonbValue	object = {.type = jbvObject};

	initStringInfo(&details.text);
	add_count(&details, "keys", note->count);
	if (reason != NULL)
	{
		add_member(&details, "reason", string_value(reason));
		escape_json(&details.text, reason);
	}
	array.val.array.nElems = Min(note->count, PP_NOTED_KEYS);
	array.val.array.elems = ids;
	add_member(&details, "key_ids", array);
	for (int i = 0; i < array.val.array.nElems; i++)
	{
		ids[i] = number_value(note->ids[i]);
		appendStringInfoString(&details.text, i == 0 ? "[" : ", ");
		pp_append_number(&details.text, note->ids[i]);
	}
	appendStringInfoChar(&details.text, ']');
	add_count(&details, "smartphone", note->kinds[PP_SMARTPHONE]);
	add_count(&details, "contactless_card", note->kinds[PP_CONTACTLESS_CARD]);
	appendStringInfoChar(&details.text, '}');
	object.val.object.nPairs = details.count;
	object.val.object.pairs = details.pairs;
	line->details = details.text.data;
	line->details_value = JsonbValueToJsonb(&object);
}

/*
 * key_line returns the line about keys switched one way.
 */
static PpLogLine *
key_line(int64 workspace_id, const char *action, const char *done, const PpKeyNote *note)
{
	bool		has_reason = note->reason[0] != '\0' && !note->reasons && strcmp(done, "disabled") == 0;
	StringInfoData description;
	PpLogLine  *line;

	initStringInfo(&description);
	if (note->count == 1)
		appendStringInfoString(&description, "key ");
	pp_append_number(&description, note->count == 1 ? note->ids[0] : note->count);
	appendStringInfoString(&description, note->count == 1 ? " " : " keys ");
	appendStringInfoString(&description, done);
	line = new_line(workspace_id, action, description.data, NULL);
	key_details(line, note, has_reason ? note->reason : NULL);
	return line;
}

/*
 * append_role adds a role to JSON, null for none.
 */
static void
append_role(StringInfo json, const char *role)
{
	if (role == NULL)
		appendStringInfoString(json, "null");
	else
		escape_json(json, role);
}

/*
 * pp_note_member notes for the log what became of one membership.
 */
void
pp_note_member(PpMemberNote *note, int64 account_id, const PpMember *was, const PpMember *is)
{
	if (note->count++ == 0)
	{
		note->account_id = account_id;
		note->changes = makeStringInfo();
		if (is->role == NULL)
			note->description = psprintf("account " INT64_FORMAT " is no longer %s", account_id, was->role);
		else if (was->role == NULL)
			note->description = psprintf(is->accepted ? "account " INT64_FORMAT " is now %s" :
										 "account " INT64_FORMAT " was made %s and has yet to accept",
										 account_id, is->role);
		else if (strcmp(was->role, is->role) != 0)
			note->description = psprintf("account " INT64_FORMAT " is now %s, was %s", account_id, is->role, was->role);
		else
			note->description = psprintf(is->accepted ? "account " INT64_FORMAT " accepted to be %s" :
										 "account " INT64_FORMAT " has yet to accept to be %s",
										 account_id, is->role);
	}
	if (note->count > NOTED_MEMBERS)
		return;
	appendStringInfo(note->changes, "%s{\"account_id\": " INT64_FORMAT ", \"was\": ",
					 note->count == 1 ? "" : ", ", account_id);
	append_role(note->changes, was->role);
	appendStringInfoString(note->changes, ", \"role\": ");
	append_role(note->changes, is->role);
	appendStringInfo(note->changes, ", \"accepted\": %s}", is->accepted ? "true" : "false");
}

/*
 * pp_statement_lines returns the lines about what a statement did to the keys
 * and members of one workspace.
 */
List *
pp_statement_lines(const PpUsageChange *change)
{
	const PpMemberNote *members = &change->members;
	List	   *lines = NIL;

	if (change->disabled.count > 0)
		lines = lappend(lines, key_line(change->workspace_id, "disable_key",
										change->deleted_keys > 0 ? "deleted" :
										change->disabled.revoked == change->disabled.count ? "revoked" : "disabled",
										&change->disabled));
	if (change->activated.count > 0)
		lines = lappend(lines, key_line(change->workspace_id, "activate_key", "activated", &change->activated));
	if (members->count > 0)
	{
		PpLogLine  *line = new_line(change->workspace_id, "update_user_permissions",
									members->count == 1 ? members->description :
									psprintf("%d memberships changed", members->count),
									psprintf("{\"members\": %d, \"changes\": [%s]}", members->count, members->changes->data));

		if (members->count == 1)
			line->about = members->account_id;
		lines = lappend(lines, line);
	}
	return lines;
}
