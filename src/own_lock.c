/*-------------------------------------------------------------------------
 *
 * own_lock.c
 *		Advisory locks that SQL cannot take.
 *
 * Who may run SQL may call pg_advisory_lock() with any number, and would stop
 * a step of tick(), or make a running engine of delivery look dead, by taking
 * the lock that it is known by.  The locks of SQL have 1 or 2 in the last field
 * of their tag; ours have 3, and are otherwise like them: pg_locks shows them
 * as advisory, with the class and the number.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_engine_is_gone);

#define OWN_LOCK	3
#define SQL_LOCK	2

/* a tenant may have taken it before */
static bool old_lock_held = false;

/*
 * pp_try_own_lock takes a lock, for the session or to the end of the
 * transaction, and tells whether it could; it never waits.
 */
bool
pp_try_own_lock(PpLockClass class, uint32 number, bool session)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) class, number, OWN_LOCK);
	return LockAcquire(&tag, ExclusiveLock, session, true) != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * engine_tag_of_old makes the tag of the lock that the SQL of 1.0 knows a
 * running engine by, pg_advisory_lock(PP_LOCK_ENGINE, number): a new library
 * serves a database that is not updated yet.
 */
static void
engine_tag_of_old(LOCKTAG *tag, uint32 number)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) PP_LOCK_ENGINE, number, SQL_LOCK);
}

/*
 * pp_lock_engine locks an engine's number for the session.
 */
void
pp_lock_engine(int token)
{
	LOCKTAG		tag;

	(void) pp_try_own_lock(PP_LOCK_ENGINE, (uint32) token, true);
	engine_tag_of_old(&tag, (uint32) token);
	old_lock_held = LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * pp_unlock_engine gives the number back.
 */
void
pp_unlock_engine(int token)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) PP_LOCK_ENGINE, (uint32) token, OWN_LOCK);
	(void) LockRelease(&tag, ExclusiveLock, true);
	engine_tag_of_old(&tag, (uint32) token);
	if (old_lock_held)
		(void) LockRelease(&tag, ExclusiveLock, true);
	old_lock_held = false;
}

/*
 * partner_portal_engine_is_gone tells whether no engine runs that is known by a
 * number; none begins by that number as long as the transaction lasts.
 */
Datum
partner_portal_engine_is_gone(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(pp_try_own_lock(PP_LOCK_ENGINE, (uint32) PG_GETARG_INT32(0), false));
}
