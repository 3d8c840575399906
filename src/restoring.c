/*-------------------------------------------------------------------------
 *
 * restoring.c
 *		Whether this session loads a dump.
 *
 * Our triggers exist before a dump's rows are loaded.  In a restoring session
 * an INSERT is counted but not stamped, refused, logged or notified; UPDATE
 * and DELETE are enforced as ever, so that a session left in this state cannot
 * lapse silently.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/rls.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_restoring_session);

/*
 * pp_restoring tells whether this session loads a dump: because
 * partner_portal.restoring says so, or because it looks like a script of
 * pg_dump, which begins by switching off row_security and
 * check_function_bodies, run by a role that bypasses row security with nobody
 * signed in.  Cheap in every other session.
 */
bool
pp_restoring(void)
{
	if (pp_restoring_setting)
		return true;
	return !row_security && !check_function_bodies && !pp_signed_in() &&
		has_bypassrls_privilege(GetOuterUserId());
}

/*
 * restoring_session is pp_restoring for triggers in SQL.
 */
Datum
partner_portal_restoring_session(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(pp_restoring());
}
