/*-------------------------------------------------------------------------
 *
 * invoice_guard.c
 *		What keeps a finished invoice as it is.
 *
 * A draft may be changed and deleted.  Once it is finished (final, paid, void
 * or empty) every UPDATE, DELETE and TRUNCATE is refused, whoever asks.  The
 * two changes that remain, of a final invoice to paid or to void, go through
 * settle_invoice(), which touches nothing but the columns of that change; the
 * static variable below is how the trigger knows it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_invoice_guard);
PG_FUNCTION_INFO_V1(partner_portal_settle_invoice);

/* settle_invoice() is at work in this backend */
static bool settling = false;

static SPIPlanPtr settle_plan = NULL;

/*
 * refuse raises PP003 for what was to be done to a document.
 */
static void
refuse(const char *what, const char *status)
{
	ereport(ERROR,
			(errcode(ERRCODE_PP_FINISHED_DOCUMENT),
			 errmsg("cannot %s a document that is %s", what, status),
			 errdetail("A finished invoice or credit note never changes."),
			 errhint("Correct it with credit_invoice(), void_invoice() or mark_paid().")));
}

/*
 * row_status returns the status of an invoice row.
 */
static char *
row_status(HeapTuple tuple, TupleDesc desc)
{
	char	   *status = SPI_getvalue(tuple, desc, SPI_fnumber(desc, "status"));

	if (status == NULL)
		elog(ERROR, "invoice without status");
	return status;
}

/*
 * partner_portal_invoice_guard is the trigger of table invoice: BEFORE INSERT,
 * UPDATE or DELETE for each row, and BEFORE TRUNCATE.
 */
Datum
partner_portal_invoice_guard(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	char	   *status;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager", "invoice_guard")));
	if (!TRIGGER_FIRED_BEFORE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired before the event", "invoice_guard")));
	if (TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
	{
		refuse("truncate", "finished");
		PG_RETURN_NULL();
	}
	if (!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired for each row", "invoice_guard")));

	desc = RelationGetDescr(trigdata->tg_relation);
	status = row_status(trigdata->tg_trigtuple, desc);
	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		if (strcmp(status, "draft") != 0 && !pp_restoring())
			refuse("insert", status);
		return PointerGetDatum(trigdata->tg_trigtuple);
	}
	if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
	{
		if (strcmp(status, "draft") != 0)
			refuse("delete", status);
		return PointerGetDatum(trigdata->tg_trigtuple);
	}
	if (strcmp(status, "draft") != 0 && !settling)
		refuse("change", status);
	return PointerGetDatum(trigdata->tg_newtuple);
}

/*
 * partner_portal_settle_invoice makes a final document paid or void, with the
 * time and the reference or reason; it writes no other column.  Its callers
 * have asked who may and hold the row's lock.
 */
Datum
partner_portal_settle_invoice(PG_FUNCTION_ARGS)
{
	static const char *const command =
		"UPDATE partner_portal.invoice SET status = $3, settled_at = $4, settled_note = $5 "
		"WHERE workspace_id = $1 AND invoice_id = $2 AND status = 'final' AND $3 IN ('paid', 'void')";
	Oid			types[5] = {INT8OID, INT8OID, TEXTOID, TIMESTAMPTZOID, TEXTOID};
	Datum		values[5];
	char		nulls[5];
	bool		before = settling;

	for (int i = 0; i < 5; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	SPI_connect();
	pp_keep_plan(&settle_plan, command, 5, types);
	settling = true;
	PG_TRY();
	{
		if (SPI_execute_plan(settle_plan, values, nulls, false, 0) != SPI_OK_UPDATE || SPI_processed != 1)
			ereport(ERROR,
					(errcode(ERRCODE_PP_WRONG_STATE),
					 errmsg("only a final document can be paid or void")));
	}
	PG_FINALLY();
	{
		settling = before;
	}
	PG_END_TRY();
	SPI_finish();
	PG_RETURN_VOID();
}
