/*-------------------------------------------------------------------------
 *
 * guc.c
 *		The settings of partner_portal, but for the sealed identity
 *		(identity.c), which no one may set.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/guc.h"

#include "delivery.h"
#include "partner_portal.h"

char	   *pp_jwks_file = NULL;
char	   *pp_token_audience = NULL;
char	   *pp_token_issuer = NULL;
int			pp_clock_skew = 30;
int			pp_subject_claim = PP_SUBJECT_ACCOUNT_ID;
bool		pp_restoring_setting = false;
bool		pp_allow_drop = false;
bool		pp_log_refusals = true;
char	   *pp_workspace_url = NULL;
char	   *pp_link_base_url = NULL;
char	   *pp_portal_domain = NULL;
int			pp_invoice_grace = 3600;
int			pp_invitation_lifetime = 14 * 24 * 60;
int			pp_invitations_per_hour = 200;
char	   *pp_smtp_url = NULL;
char	   *pp_smtp_from = NULL;
char	   *pp_secrets_file = NULL;
char	   *pp_ca_file = NULL;
char	   *pp_allow_cidr = NULL;
char	   *pp_databases = NULL;
bool		pp_enabled = true;
int			pp_delivery_timeout = 15000;
bool		pp_ask_together = true;

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
 * check_port accepts an address, or its host alone, whose port is one.
 */
static bool
check_port(char **newval, void **extra, GucSource source)
{
	if (pp_port_fits(*newval))
		return true;
	GUC_check_errdetail("Its port is not between 1 and 65535.");
	return false;
}

/*
 * check_smtp_url accepts smtp:// or smtps:// with a host, and nothing else: no
 * user, password or path.
 */
static bool
check_smtp_url(char **newval, void **extra, GucSource source)
{
	const char *host = *newval;

	if (*host == '\0')
		return true;
	if (strncmp(host, "smtp://", 7) == 0)
		host += 7;
	else if (strncmp(host, "smtps://", 8) == 0)
		host += 8;
	else
	{
		GUC_check_errdetail("It begins with smtp:// or smtps://.");
		return false;
	}
	if (*host == '\0' || strlen(host) > 250 ||
		host[strspn(host, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_:[]")] != '\0')
	{
		GUC_check_errdetail("It has a host and perhaps a port; user and password stand in the secrets file.");
		return false;
	}
	return check_port(newval, extra, source);
}

/*
 * check_allow_cidr accepts a list of networks that the guard understands.
 */
static bool
check_allow_cidr(char **newval, void **extra, GucSource source)
{
	const char *bad;
	int			count;
	PpAllowed  *allowed = pp_parse_allowed(*newval, &count, &bad);

	free(allowed);
	if (bad != NULL)
	{
		GUC_check_errdetail("Not understood: \"%.*s\". Entries look like 10.0.0.0/8, 127.0.0.1:8080 or [fd00::/8]:25.",
							pg_mbcliplen(bad, strlen(bad), 60), bad);
		return false;
	}
	return true;
}

/*
 * define_delivery_settings defines the settings of notifications.
 */
static void
define_delivery_settings(void)
{
	DefineCustomStringVariable("partner_portal.smtp_url",
							   "Mail relay, as smtp://host:port or smtps://host:port; empty lets mail wait.",
							   "smtp:// demands STARTTLS, unless the host is an address in partner_portal.allow_cidr and needs no password.",
							   &pp_smtp_url, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   check_smtp_url, NULL, NULL);
	define_string("partner_portal.smtp_from",
				  "Sender of mails, as address or Name <address>.",
				  NULL, &pp_smtp_from, "", PGC_SIGHUP);
	define_string("partner_portal.secrets_file",
				  "File with the relay's password and the master keys of webhooks.",
				  "Lines \"machine HOST login USER password PASSWORD\" and \"key NUMBER BASE64\" (32 bytes). Must be unreadable to others.",
				  &pp_secrets_file, "", PGC_SIGHUP);
	define_string("partner_portal.ca_file",
				  "Certificates that peers are verified against; empty takes the system's.",
				  NULL, &pp_ca_file, "", PGC_SIGHUP);
	DefineCustomStringVariable("partner_portal.allow_cidr",
							   "Private networks that deliveries may reach, also in clear; entries are cidr or cidr:port.",
							   "Without it webhooks go to public addresses by https alone.",
							   &pp_allow_cidr, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   check_allow_cidr, NULL, NULL);
	define_string("partner_portal.databases",
				  "Databases whose notifications the worker delivers, separated by commas.",
				  "Needs partner_portal in shared_preload_libraries.",
				  &pp_databases, "", PGC_SIGHUP);
	DefineCustomIntVariable("partner_portal.delivery_timeout",
							"Longest time that one webhook may take; a mail may take four times as long.",
							NULL, &pp_delivery_timeout, 15000, 100, 30000, PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomBoolVariable("partner_portal.enabled",
							 "Whether notifications are sent at all.",
							 "Switch it off in a copy of a system that must stay silent.",
							 &pp_enabled, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
}

/*
 * pp_define_settings defines every setting but the identity.
 */
void
pp_define_settings(void)
{
	define_string("partner_portal.jwks_file",
				  "File of JSON Web Keys that sign login tokens.",
				  "A JWKS document (RFC 7517) on the server, by a path that may be relative to the data directory; read again when it changes. Must not be readable by others when it holds HS256 secrets or private keys, nor writable by them ever.",
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
							 "Allows DROP EXTENSION while there is data, and TRUNCATE of those tables of the extension that nothing is counted from.",
							 NULL, &pp_allow_drop, false, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("partner_portal.log_refusals",
							 "Whether refused activations, logins and accesses are written to the server log.",
							 "One line each: \"partner_portal refused\" and a JSON object that names people and workspaces by number.",
							 &pp_log_refusals, true, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("partner_portal.ask_together",
							 "Whether plans take the questions that policies ask of the identity together.",
							 "Queries show the same rows either way; without it each question is a sub-select with a set-up of its own. For tests.",
							 &pp_ask_together, true, PGC_SUSET, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
	DefineCustomStringVariable("partner_portal.workspace_url",
							   "Address of a workspace shown in the panel; {slug} is replaced.",
							   NULL, &pp_workspace_url, "https://{slug}.example.com/", PGC_SUSET, GUC_SUPERUSER_ONLY,
							   check_port, NULL, NULL);
	DefineCustomStringVariable("partner_portal.link_base_url",
							   "Address that links to people begin with (registration, invitations).",
							   NULL, &pp_link_base_url, "https://portal.example.com", PGC_SUSET, GUC_SUPERUSER_ONLY,
							   check_port, NULL, NULL);
	DefineCustomStringVariable("partner_portal.portal_domain",
							   "Domain that portals are under: https://<technical name>.<domain>/.",
							   NULL, &pp_portal_domain, "portals.example.com", PGC_SUSET, 0,
							   check_port, NULL, NULL);
	DefineCustomIntVariable("partner_portal.invoice_grace",
							"How long after the end of its period an invoice stays a draft.",
							"Facts that come in meanwhile are billed on it; from then on a billing run finalizes it.",
							&pp_invoice_grace, 3600, 0, 31 * SECS_PER_DAY, PGC_SUSET, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomIntVariable("partner_portal.invitation_lifetime",
							"How long an invitation may be accepted.",
							"Counted from when it was made or sent anew.",
							&pp_invitation_lifetime, 14 * 24 * 60, 1, 366 * 24 * 60, PGC_SUSET, GUC_UNIT_MIN,
							NULL, NULL, NULL);
	DefineCustomIntVariable("partner_portal.invitations_per_hour",
							"How many invitations and requests for access one account may send in an hour.",
							"Sending anew counts; 0 allows none, -1 any number. The operator is not limited.",
							&pp_invitations_per_hour, 200, -1, 1000000, PGC_SUSET, 0,
							NULL, NULL, NULL);
	define_delivery_settings();
}
