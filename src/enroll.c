/*-------------------------------------------------------------------------
 *
 * enroll.c
 *		Privileges of enrolled roles that are theirs, whoever gives them.
 *
 * What a script of an extension grants becomes the extension's own: it goes
 * into pg_init_privs, and pg_dump leaves it out, since the script of a new
 * installation is expected to grant it again.  That script knows no role of
 * the application.  So what an upgrade grants to enrolled roles must not look
 * as if its script had.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_issue_grant);

/*
 * issue_grant runs GRANT privilege ON object TO role, both as role_grant has
 * them, with the rights of who calls it.
 */
Datum
partner_portal_issue_grant(PG_FUNCTION_ARGS)
{
	Oid			role = PG_GETARG_OID(0);
	char	   *privilege = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *object = text_to_cstring(PG_GETARG_TEXT_PP(2));
	bool		in_script = creating_extension;
	StringInfoData command;

	initStringInfo(&command);
	appendStringInfo(&command, "GRANT %s ON %s TO %s", privilege, object,
					 quote_identifier(GetUserNameFromId(role, false)));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	creating_extension = false;
	PG_TRY();
	{
		if (SPI_execute(command.data, false, 0) != SPI_OK_UTILITY)
			elog(ERROR, "not a GRANT: %s", command.data);
	}
	PG_FINALLY();
	{
		creating_extension = in_script;
	}
	PG_END_TRY();
	SPI_finish();
	PG_RETURN_VOID();
}
