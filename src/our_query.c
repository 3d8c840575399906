/*-------------------------------------------------------------------------
 *
 * our_query.c
 *		What C code asks by SPI: as the owner of our tables, and by plans that are
 *		kept for the session.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/syscache.h"

#include "partner_portal.h"

/*
 * pp_pin_setting sets one setting until the level of settings ends.
 */
void
pp_pin_setting(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * pp_pin_search_path has names and operators mean PostgreSQL's own until the
 * level of settings ends: an operator of who is asking, in a schema that the
 * path names first, would be called with our rights.
 */
void
pp_pin_search_path(void)
{
	pp_pin_setting("search_path", "pg_catalog, pg_temp");
}

/*
 * pp_become_owner makes the owner of our tables the current user, with our
 * search path, so that what a trigger does by SPI needs no privilege of who
 * fired it, and calls nothing of theirs.  An error ends it.
 */
void
pp_become_owner(PpOwner *self)
{
	Oid			table = pp_our_relation(PP_WORKSPACE_USAGE);
	HeapTuple	tuple;
	Oid			owner;

	GetUserIdAndSecContext(&self->user, &self->security_context);
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", table);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	SetUserIdAndSecContext(owner,
						   self->security_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_NOFORCE_RLS);
	self->settings_level = NewGUCNestLevel();
	pp_pin_search_path();
}

/*
 * pp_stop_being_owner goes back to who it was.
 */
void
pp_stop_being_owner(const PpOwner *self)
{
	AtEOXact_GUC(true, self->settings_level);
	SetUserIdAndSecContext(self->user, self->security_context);
}

/*
 * pp_keep_plan makes the plan of a statement, unless it was made before.
 */
void
pp_keep_plan(SPIPlanPtr *plan, const char *sql, int count, Oid *types)
{
	SPIPlanPtr	prepared;

	if (*plan != NULL)
		return;
	prepared = SPI_prepare(sql, count, types);
	if (prepared == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	SPI_keepplan(prepared);
	*plan = prepared;
}
