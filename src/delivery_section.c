/*-------------------------------------------------------------------------
 *
 * delivery_section.c
 *		Sections: short transactions of an engine, as the extension's owner,
 *		whose settings do not depend on the caller's.
 *
 * In the worker a section is a transaction; in a procedure it is what lies
 * between two commits.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "delivery.h"
#include "partner_portal.h"

/* The queue that was seen to be the extension's. */
static Oid	known_queue = InvalidOid;

/* Whether the section has the settings for statements. */
static bool planned = false;

/*
 * extension_owner returns who owns the queue; InvalidOid if it is not there.
 */
static Oid
extension_owner(void)
{
	Oid			schema = get_namespace_oid(PP_SCHEMA, true);
	Oid			owner = InvalidOid;
	HeapTuple	tuple;

	if (!OidIsValid(schema))
		return InvalidOid;
	tuple = SearchSysCache2(RELNAMENSP, CStringGetDatum("delivery_queue"), ObjectIdGetDatum(schema));
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	if (((Form_pg_class) GETSTRUCT(tuple))->oid == known_queue || OidIsValid(get_extension_oid(PP_SCHEMA, true)))
	{
		known_queue = ((Form_pg_class) GETSTRUCT(tuple))->oid;
		owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	}
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * pp_section_plan gives the section the settings that plans of statements count
 * on, to its end.
 */
void
pp_section_plan(void)
{
	if (planned)
		return;
	pp_pin_setting("enable_seqscan", "off");
	pp_pin_setting("enable_hashjoin", "off");
	pp_pin_setting("enable_mergejoin", "off");
	pp_pin_setting("enable_bitmapscan", "off");
	pp_pin_setting("plan_cache_mode", "force_generic_plan");
	pp_pin_setting("jit", "off");
	planned = true;
}

/*
 * pp_section_enter begins a section; false if the extension is gone.
 */
bool
pp_section_enter(bool worker, PpSection *section)
{
	Oid			owner;

	if (worker)
	{
		SetCurrentStatementStartTimestamp();
		pgstat_report_activity(STATE_RUNNING, "recording and claiming");
		StartTransactionCommand();
	}
	owner = extension_owner();
	if (!OidIsValid(owner))
	{
		if (worker)
			CommitTransactionCommand();
		return false;
	}

	/*
	 * Each section by itself, so that what it read goes with it and not with
	 * a procedure that runs for long.
	 */
	if (SPI_connect_ext(worker ? 0 : SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (worker)
		PushActiveSnapshot(GetTransactionSnapshot());
	GetUserIdAndSecContext(&section->user, &section->security);
	section->guc_level = NewGUCNestLevel();
	pp_pin_search_path();
	planned = false;
	SetUserIdAndSecContext(owner, section->security | SECURITY_LOCAL_USERID_CHANGE);
	return true;
}

/*
 * pp_section_try does a part of a section's work in a subtransaction.  Returns
 * NULL, or the error that undid it; an interrupt is raised again.
 */
ErrorData *
pp_section_try(void (*work) (void *), void *argument)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	pp_section_plan();			/* settings of a subtransaction would go with
								 * it */
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		work(argument);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error != NULL &&
		(error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN))
		ReThrowError(error);
	return error;
}

/*
 * pp_section_leave commits a section.
 */
void
pp_section_leave(bool worker, PpSection *section)
{
	SetUserIdAndSecContext(section->user, section->security);
	AtEOXact_GUC(true, section->guc_level);
	if (worker)
	{
		PopActiveSnapshot();
		SPI_finish();
		CommitTransactionCommand();
		pgstat_report_stat(false);
		pgstat_report_activity(STATE_IDLE, NULL);
	}
	else
	{
		SPI_commit();
		SPI_finish();
	}
}
