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

/*
 * append_number adds a number to a text.
 */
static void
append_number(StringInfo string, int64 number)
{
	char		digits[MAXINT8LEN + 1];

	appendBinaryStringInfo(string, digits, pg_lltoa(number, digits));
}

/* JSON that is built as text and as a value at once, so that nothing has to be parsed. */
typedef struct JsonPair
{
	StringInfoData text;
	JsonbParseState *state;
} JsonPair;

/*
 * pair_name begins a member.  Members come as jsonb orders them, short names
 * first: the text is that of the value.
 */
static void
pair_name(JsonPair *pair, const char *name)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = unconstify(char *, name);
	value.val.string.len = strlen(name);
	(void) pushJsonbValue(&pair->state, WJB_KEY, &value);
	appendStringInfoString(&pair->text, pair->text.len == 0 ? "{\"" : ", \"");
	appendStringInfoString(&pair->text, name);
	appendStringInfoString(&pair->text, "\": ");
}

/*
 * pair_number adds a number, as a member's value or an array's element.
 */
static void
pair_number(JsonPair *pair, int64 number, JsonbIteratorToken token)
{
	JsonbValue	value = {.type = jbvNumeric};

	value.val.numeric = int64_to_numeric(number);
	(void) pushJsonbValue(&pair->state, token, &value);
	append_number(&pair->text, number);
}

/*
 * pair_string adds a string, as a member's value.
 */
static void
pair_string(JsonPair *pair, const char *string)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = unconstify(char *, string);
	value.val.string.len = strlen(string);
	(void) pushJsonbValue(&pair->state, WJB_VALUE, &value);
	escape_json(&pair->text, string);
}

/*
 * key_details writes the details of the line about keys switched one way.
 */
static void
key_details(PpLogLine *line, const PpKeyNote *note, const char *reason)
{
	JsonPair	pair = {.state = NULL};

	initStringInfo(&pair.text);
	(void) pushJsonbValue(&pair.state, WJB_BEGIN_OBJECT, NULL);
	pair_name(&pair, "keys");
	pair_number(&pair, note->count, WJB_VALUE);
	if (reason != NULL)
	{
		pair_name(&pair, "reason");
		pair_string(&pair, reason);
	}
	pair_name(&pair, "key_ids");
	(void) pushJsonbValue(&pair.state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < Min(note->count, PP_NOTED_KEYS); i++)
	{
		appendStringInfoString(&pair.text, i == 0 ? "[" : ", ");
		pair_number(&pair, note->ids[i], WJB_ELEM);
	}
	(void) pushJsonbValue(&pair.state, WJB_END_ARRAY, NULL);
	appendStringInfoChar(&pair.text, ']');
	pair_name(&pair, "smartphone");
	pair_number(&pair, note->kinds[PP_SMARTPHONE], WJB_VALUE);
	pair_name(&pair, "contactless_card");
	pair_number(&pair, note->kinds[PP_CONTACTLESS_CARD], WJB_VALUE);
	appendStringInfoChar(&pair.text, '}');
	line->details = pair.text.data;
	line->details_value = JsonbValueToJsonb(pushJsonbValue(&pair.state, WJB_END_OBJECT, NULL));
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
	append_number(&description, note->count == 1 ? note->ids[0] : note->count);
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
