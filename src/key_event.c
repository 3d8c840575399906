/*-------------------------------------------------------------------------
 *
 * key_event.c
 *		Webhook events about keys: one for each statement, workspace and
 *		direction, with how many keys there were, however many.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "partner_portal.h"
#include "security_key.h"

/* The outbox, open from the first event on. */
typedef struct Events
{
	PpOutbox   *outbox;
	MemoryContext context;		/* of one event, reset after it */
} Events;

/*
 * append_member adds a number to a JSON object.
 */
static void
append_member(StringInfo data, const char *name, int64 number)
{
	appendStringInfoString(data, name);
	pp_append_number(data, number);
}

/*
 * data_of returns what an event tells, as the text of jsonb, whose members
 * stand in the order of their names' lengths.
 */
static char *
data_of(const PpUsageChange *change, const PpKeyNote *note)
{
	StringInfoData data;

	initStringInfo(&data);
	append_member(&data, "{\"keys\": ", note->count);
	if (note == &change->disabled)
	{
		appendStringInfoString(&data, ", \"reason\": ");
		if (note->reason[0] != '\0' && !note->reasons && change->deleted_keys == 0)
			escape_json(&data, note->reason);
		else
			appendStringInfoString(&data, "null");
		append_member(&data, ", \"deleted\": ", change->deleted_keys);
	}
	appendStringInfoString(&data, ", \"key_ids\": [");
	for (int i = 0; i < Min(note->count, PP_NOTED_KEYS); i++)
		append_member(&data, i == 0 ? "" : ", ", note->ids[i]);
	appendStringInfoChar(&data, ']');
	if (note == &change->disabled)
		append_member(&data, ", \"revoked\": ", note->revoked);
	append_member(&data, ", \"smartphone\": ", note->kinds[PP_SMARTPHONE]);
	append_member(&data, ", \"activity_id\": ", note->line);
	append_member(&data, ", \"workspace_id\": ", change->workspace_id);
	append_member(&data, ", \"contactless_card\": ", note->kinds[PP_CONTACTLESS_CARD]);
	appendStringInfoChar(&data, '}');
	return data.data;
}

/*
 * owe_event owes an event to all that want it, once per line of the log, whose
 * number it goes by.
 */
static void
owe_event(Events *events, const char *name, const PpUsageChange *change, const PpKeyNote *note)
{
	int64		heard_by[2];
	int			count;
	char		line[MAXINT8LEN + 1];
	PpEvent		event = {
		.workspace_id = change->workspace_id,
		.name = name,
		.dedupe_key = line,
		.certain = true
	};
	MemoryContext old_context;

	if (note->count == 0)
		return;
	count = pp_hearers(change->workspace_id, name, heard_by);
	if (count == 0)
		return;
	if (events->outbox == NULL)
	{
		events->outbox = pp_outbox_open();
		events->context = AllocSetContextCreate(CurrentMemoryContext, "event about keys", ALLOCSET_DEFAULT_SIZES);
	}
	old_context = MemoryContextSwitchTo(events->context);
	pg_lltoa(note->line, line);
	event.data = data_of(change, note);
	(void) pp_owe_event(events->outbox, heard_by, count, &event);
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(events->context);
}

/*
 * pp_key_events owes the events about what a statement did to the keys of
 * workspaces, whose changes are counted and logged by now.
 */
void
pp_key_events(PpUsageChange **changes, int count)
{
	Events		events = {0};

	if (!pp_anybody_hears())
		return;
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		owe_event(&events, "security_key.disabled", changes[i], &changes[i]->disabled);
		owe_event(&events, "security_key.activated", changes[i], &changes[i]->activated);
	}
	if (events.outbox != NULL)
	{
		MemoryContextDelete(events.context);
		pp_outbox_close(events.outbox);
	}
}
