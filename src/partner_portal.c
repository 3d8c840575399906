/*-------------------------------------------------------------------------
 *
 * partner_portal.c
 *		Entry of the library: defines the settings, installs the hooks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

#include "partner_portal.h"
#include "security_key.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

/*
 * _PG_init prepares one backend, or the postmaster when the library is
 * preloaded.  Nothing here touches the network or the catalog.
 */
void
_PG_init(void)
{
	pp_define_settings();
	pp_define_identity();
	pp_identity_hooks();
	pp_check_cache_hooks();
	pp_key_reference_hooks();
	pp_settle_hooks();
	pp_cursor_hooks();
	pp_log_guard_hooks();
	pp_policy_plan_hooks();
	pp_drop_guard_hooks();
	pp_outbox_init();
	pp_worker_init();
	MarkGUCPrefixReserved(PP_SCHEMA);
}
