/*-------------------------------------------------------------------------
 *
 * portal.c
 *		Folders and reports: the trigger that stamps their rows.
 *
 * Both are changed by plain DML.  Policies say by whom; what the server knows
 * better than the client is stamped here: the partner of the workspace and the
 * time of the last change.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_stamp_content);

/*
 * set_column returns the row with one column set.
 */
static HeapTuple
set_column(HeapTuple row, TupleDesc desc, int column, Datum value)
{
	bool		null = false;

	return heap_modify_tuple_by_cols(row, desc, 1, &column, &value, &null);
}

/*
 * stamp_content is the trigger: BEFORE INSERT OR UPDATE FOR EACH ROW of a table
 * with workspace_id and partner_key, and perhaps changed_at.  A row that is
 * restored stays as it was, and so does one that merely follows a transfer.
 */
Datum
partner_portal_stamp_content(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	HeapTuple	row;
	Datum		workspace_id;
	bool		null;
	int			changed_at;
	int			partner_key;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"stamp_content\" was not called as a trigger")));
	if (!TRIGGER_FIRED_BEFORE(trigger->tg_event) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"stamp_content\" must be fired before insert or update, for each row")));

	desc = RelationGetDescr(trigger->tg_relation);
	changed_at = SPI_fnumber(desc, "changed_at");
	partner_key = SPI_fnumber(desc, "partner_key");
	if (partner_key <= 0)
		elog(ERROR, "table \"%s\" has no column partner_key",
			 RelationGetRelationName(trigger->tg_relation));
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		row = trigger->tg_newtuple;
		if (changed_at > 0 &&
			DatumGetInt64(SPI_getbinval(row, desc, partner_key, &null)) ==
			DatumGetInt64(SPI_getbinval(trigger->tg_trigtuple, desc, partner_key, &null)))
			row = set_column(row, desc, changed_at, TimestampTzGetDatum(GetCurrentTimestamp()));
		return PointerGetDatum(row);
	}

	row = trigger->tg_trigtuple;
	if (pp_restoring())
		return PointerGetDatum(row);
	workspace_id = SPI_getbinval(row, desc, SPI_fnumber(desc, "workspace_id"), &null);
	if (!null)
		row = set_column(row, desc, partner_key,
						 Int64GetDatum(pp_partner_key_to_stay(DatumGetInt64(workspace_id))));
	return PointerGetDatum(row);
}
