/*-------------------------------------------------------------------------
 *
 * delivery_relay.c
 *		The mail relay, as the settings and the secrets file describe it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "delivery.h"
#include "partner_portal.h"

/*
 * pp_relay_read reads the relay's settings.  Without a relay, or with settings
 * that make no sense, url is empty and mail waits.
 */
void
pp_relay_read(PpRelay *relay)
{
	const char *url = pp_smtp_url;
	const char *rest;
	bool		tls;
	int			port;
	size_t		length;
	const char *bad;
	PpAllowed  *allowed;
	int			count;

	memset(relay, 0, sizeof(*relay));
	if (url == NULL || url[0] == '\0')
		return;
	tls = strncmp(url, "smtps://", 8) == 0;
	rest = url + (tls ? 8 : 7);
	port = tls ? 465 : 25;
	if (*rest == '[')
	{
		rest++;
		length = strcspn(rest, "]");
	}
	else
		length = strcspn(rest, ":/");
	if (length == 0 || length >= sizeof(relay->host))
		return;
	memcpy(relay->host, rest, length);
	rest += length + (rest[length] == ']' ? 1 : 0);
	if (*rest == ':')
		port = atoi(rest + 1);

	if (!pp_mail_parse_sender(pp_smtp_from, relay->sender, sizeof(relay->sender),
							  relay->sender_name, sizeof(relay->sender_name)))
	{
		ereport(WARNING,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("mail waits: partner_portal.smtp_from is not a mail address")));
		return;
	}
	pp_secret_relay(relay->host, relay->user, sizeof(relay->user),
					relay->password, sizeof(relay->password));
	allowed = pp_parse_allowed(pp_allow_cidr, &count, &bad);
	relay->in_clear = pp_host_listed(relay->host, port, allowed, count);
	free(allowed);
	snprintf(relay->url, sizeof(relay->url), strchr(relay->host, ':') ? "%s[%s]:%d/%s" : "%s%s:%d/%s",
			 tls ? "smtps://" : "smtp://", relay->host, port, strrchr(relay->sender, '@') + 1);
}
