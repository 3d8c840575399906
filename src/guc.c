/*-------------------------------------------------------------------------
 *
 * guc.c
 *		The settings of partner_portal, but for the sealed identity
 *		(identity.c), which no one may set.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/guc.h"

#include "partner_portal.h"

char	   *pp_jwks_file = NULL;
char	   *pp_token_audience = NULL;
char	   *pp_token_issuer = NULL;
int			pp_clock_skew = 30;
int			pp_subject_claim = PP_SUBJECT_ACCOUNT_ID;
bool		pp_restoring_setting = false;
bool		pp_allow_drop = false;
char	   *pp_workspace_url = NULL;
char	   *pp_link_base_url = NULL;

static const struct config_enum_entry subject_claim_options[] = {
	{"account_id", PP_SUBJECT_ACCOUNT_ID, false},
	{"email", PP_SUBJECT_EMAIL, false},
	{NULL, 0, false}
};

/*
 * define_string defines one text setting that only a superuser or the
 * configuration file changes.
 */
static void
define_string(const char *name, const char *description, const char *detail,
			  char **variable, const char *boot_value, GucContext context)
{
	DefineCustomStringVariable(name, description, detail, variable, boot_value,
							   context, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
}

/*
 * pp_define_settings defines every setting but the identity.
 */
void
pp_define_settings(void)
{
	define_string("partner_portal.jwks_file",
				  "File of JSON Web Keys that sign login tokens.",
				  "A JWKS document (RFC 7517) on the server; read again when it changes. Must not be readable by others when it holds HS256 secrets.",
				  &pp_jwks_file, "", PGC_SIGHUP);
	define_string("partner_portal.token_audience",
				  "Audience that a login token must name in \"aud\"; empty asks for none.",
				  NULL, &pp_token_audience, "", PGC_SIGHUP);
	define_string("partner_portal.token_issuer",
				  "Issuer that a login token must name in \"iss\"; empty asks for none.",
				  NULL, &pp_token_issuer, "", PGC_SIGHUP);
	DefineCustomIntVariable("partner_portal.clock_skew",
							"Seconds by which the clocks of token issuer and database may differ.",
							NULL, &pp_clock_skew, 30, 0, 600, PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomEnumVariable("partner_portal.subject_claim",
							 "Claim of a login token that names the account when its issuer and subject are not linked.",
							 "account_id: \"sub\" is the account id. email: \"email\", with \"email_verified\" true.",
							 &pp_subject_claim, PP_SUBJECT_ACCOUNT_ID, subject_claim_options,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("partner_portal.restoring",
							 "Marks the session as one that loads a dump.",
							 "Inserted rows are counted but not stamped, refused, logged or notified. pg_dump's own scripts are recognised without it.",
							 &pp_restoring_setting, false, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("partner_portal.allow_drop",
							 "Allows DROP EXTENSION while there is data.",
							 NULL, &pp_allow_drop, false, PGC_SUSET, 0, NULL, NULL, NULL);
	define_string("partner_portal.workspace_url",
				  "Address of a workspace shown in the panel; {slug} is replaced.",
				  NULL, &pp_workspace_url, "https://{slug}.example.com/", PGC_SUSET);
	define_string("partner_portal.link_base_url",
				  "Address that links to people begin with (registration, invitations).",
				  NULL, &pp_link_base_url, "https://portal.example.com", PGC_SUSET);
}
