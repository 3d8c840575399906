/*-------------------------------------------------------------------------
 *
 * activity_guard.c
 *		What keeps the activity log as it was written.
 *
 * Lines come from activity_log.c alone, which asks no trigger.  Every other
 * INSERT, UPDATE, DELETE and TRUNCATE is refused, whoever asks, but for rows
 * of a dump that is restored.  Two statements of our own go through: the one that
 * erases what lines say about people, and the one that forgets old lines; the
 * static variable below is how the trigger knows them.  Who gets around the
 * trigger is found out by verify_activity_log().
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
#include "security_key.h"

PG_FUNCTION_INFO_V1(partner_portal_activity_guard);
PG_FUNCTION_INFO_V1(partner_portal_erase_activity);
PG_FUNCTION_INFO_V1(partner_portal_delete_activity);

/* What this backend is doing to the log at the moment. */
typedef enum Deed
{
	NOTHING,
	ERASING,
	FORGETTING
} Deed;

static Deed allowed = NOTHING;

#define ERASE_ACCOUNT	"account_digest = partner_portal.activity_digest(account_salt, account_email, NULL)," \
						" account_salt = NULL, account_email = NULL"
#define ERASE_TEXT		"text_digest = partner_portal.activity_digest(text_salt, description, details::text)," \
						" text_salt = NULL, description = NULL, details = NULL"

/*
 * refuse raises PP003.
 */
static void
refuse(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_PP_FINISHED_DOCUMENT),
			 errmsg("the activity log cannot be changed"),
			 errdetail("%s", detail),
			 errhint("Add lines with log_activity(); forget old ones with forget_activity().")));
}

/*
 * activity_guard is the trigger of table activity: BEFORE INSERT, UPDATE or
 * DELETE for each row, and BEFORE TRUNCATE.
 */
Datum
partner_portal_activity_guard(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("activity_guard() must be fired before the event")));
	if (TRIGGER_FIRED_BY_TRUNCATE(trigdata->tg_event))
		refuse("Lines are never removed but the oldest.");
	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		if (!pp_restoring())
			refuse("Lines are written by what happens.");
		return PointerGetDatum(trigdata->tg_trigtuple);
	}
	if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
	{
		if (allowed != ERASING)
			refuse("A line stays as it was written.");
		return PointerGetDatum(trigdata->tg_newtuple);
	}
	if (allowed != FORGETTING)
		refuse("Lines are never removed but the oldest.");
	return PointerGetDatum(trigdata->tg_trigtuple);
}

/*
 * run_allowed runs a statement that the guard lets through, as the owner of the
 * table, and returns how many rows it touched.
 */
static uint64
run_allowed(int what, const char *statement, int nargs, Oid *types, Datum *values, const char *nulls)
{
	uint64		touched = 0;
	PpOwner		self;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	pp_become_owner(&self);
	allowed = what;
	PG_TRY();
	{
		if (SPI_execute_with_args(statement, nargs, types, values, nulls, false, 0) < 0)
			elog(ERROR, "could not run: %s", statement);
		touched = SPI_processed;
	}
	PG_FINALLY();
	{
		allowed = NOTHING;
	}
	PG_END_TRY();
	pp_stop_being_owner(&self);
	SPI_finish();
	return touched;
}

/*
 * erase_activity(account_id, workspace_id) erases what the log says about a
 * person, or everything that the log of a workspace says about anybody; the
 * other argument is NULL.  Texts are searched for every address that the person
 * ever acted with.
 */
Datum
partner_portal_erase_activity(PG_FUNCTION_ARGS)
{
	Oid			types[] = {INT8OID};
	Datum		values[1];

	if (!PG_ARGISNULL(0))
	{
		values[0] = PG_GETARG_DATUM(0);
		run_allowed(ERASING, "UPDATE partner_portal.activity SET " ERASE_TEXT
					" WHERE text_salt IS NOT NULL AND (about_account_id = $1 AND source = 'application' OR EXISTS ("
					"SELECT FROM (SELECT a.email FROM partner_portal.account a WHERE a.account_id = $1"
					" UNION SELECT l.account_email FROM partner_portal.activity l WHERE l.account_id = $1) e"
					" WHERE pg_catalog.strpos(pg_catalog.lower(description || ' ' || details::text), pg_catalog.lower(e.email)) > 0))",
					1, types, values, NULL);
		run_allowed(ERASING, "UPDATE partner_portal.activity SET " ERASE_ACCOUNT
					" WHERE account_id = $1 AND account_salt IS NOT NULL", 1, types, values, NULL);
	}
	if (!PG_ARGISNULL(1))
	{
		values[0] = PG_GETARG_DATUM(1);
		run_allowed(ERASING, "UPDATE partner_portal.activity SET " ERASE_TEXT
					" WHERE workspace_id = $1 AND text_salt IS NOT NULL", 1, types, values, NULL);
		run_allowed(ERASING, "UPDATE partner_portal.activity SET " ERASE_ACCOUNT
					" WHERE workspace_id = $1 AND account_salt IS NOT NULL", 1, types, values, NULL);
	}
	PG_RETURN_VOID();
}

/*
 * delete_activity(workspace_id, activity_id) deletes the lines of a workspace
 * up to a number and returns how many there were.
 */
Datum
partner_portal_delete_activity(PG_FUNCTION_ARGS)
{
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[2];

	values[0] = PG_GETARG_DATUM(0);
	values[1] = PG_GETARG_DATUM(1);
	PG_RETURN_INT64(run_allowed(FORGETTING, "DELETE FROM partner_portal.activity"
								" WHERE workspace_id = $1 AND activity_id <= $2", 2, types, values, NULL));
}
