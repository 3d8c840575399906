/*-------------------------------------------------------------------------
 *
 * delivery.h
 *		What the files that deliver notifications share.
 *
 * A notification is one message owed to one destination: an address by mail,
 * or a webhook endpoint.  A transfer is one attempt to send it.  An engine
 * claims notifications, hands transfers to the network, and records how they
 * ended; it runs in the background worker or in CALL deliver_notifications().
 *
 * What the network owns is malloc'ed: libcurl's callbacks must neither palloc
 * nor ereport.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PP_DELIVERY_H
#define PP_DELIVERY_H

#include <sys/socket.h>

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "storage/itemptr.h"

/* Transfers under way at once, in all and to one destination. */
#define PP_SLOTS				64
#define PP_SLOTS_PER_DESTINATION 4

/* A mail may take so many times what a webhook may. */
#define PP_MAIL_PATIENCE		4

/* Caps in bytes: what is read of an answer, and what may be sent. */
#define PP_ANSWER_MAX			(64 * 1024)
#define PP_WEBHOOK_MAX			(64 * 1024)
#define PP_MAIL_MAX				(1024 * 1024)

#define PP_MAIL_DESTINATION		0	/* the relay; others are endpoint ids */

typedef enum PpOutcome
{
	PP_DELIVERED,				/* the peer took it */
	PP_RETRY,					/* not now: again by the schedule */
	PP_AMBIGUOUS,				/* sent, but no verdict: again, same id */
	PP_REFUSED,					/* never: the peer, or we, cannot take it */
	PP_GONE,					/* never, and nothing else to this endpoint */
	PP_CONFIGURATION,			/* the relay's or our settings' fault: the
								 * destination waits, no attempt is counted */
	PP_ABORTED					/* we stopped, or lack resources: no attempt
								 * is counted */
} PpOutcome;

typedef struct PpTransfer
{
	int64		workspace_id;
	int64		notification_id;
	int64		destination;
	bool		mail;
	bool		ailing;			/* its destination failed before */
	ItemPointerData queued_at;	/* place of its row in the queue, as leased */
	ItemPointerData kept_at;	/* and in notification */

	/* what to send; all of it lies in one piece of memory */
	char	   *text;
	char	   *url;
	char	   *body;
	size_t		body_length;
	char	   *sender;			/* mail */
	char	   *recipient;		/* mail */
	char	   *headers[8];		/* webhook; NULL ends them */

	/* how it ended */
	PpOutcome	outcome;
	int			code;			/* HTTP status or SMTP reply; 0 is none */
	int			retry_after;	/* seconds asked for by the peer; 0 is none */
	char		remote_ip[64];
	char		error[256];
	bool		unrecorded;		/* that could not be recorded */

	/* the network's own */
	void	   *handle;
	void	   *list;			/* of headers or recipients */
	struct Pool *pool;
	size_t		sent;
	size_t		received;
	int			last_reply;		/* SMTP */
	int			replies;		/* SMTP: whole ones */
	int64		give_up;		/* SMTP: when to cut the connection, in ms */
	bool		opened;			/* it has a connection of its own */
	bool		cut;			/* we cut the connection, for want of an
								 * answer */
	bool		in_clear;		/* plain text: allowed addresses only */
	bool		data_begun;		/* SMTP: 354 was seen */
	bool		blocked;		/* the address guard said no */
	bool		starved;		/* no file descriptor or memory for a socket */
	char		curl_error[256];
	struct PpTransfer *next;
} PpTransfer;

/* The relay, from smtp_url, smtp_from and the secrets file. */
typedef struct PpRelay
{
	char		url[512];		/* with the name we greet with; "" is none */
	char		host[256];
	char		sender[330];	/* bare address */
	char		sender_name[256];
	char		user[256];
	char		password[256];
	bool		in_clear;		/* STARTTLS is not demanded */
} PpRelay;

typedef struct PpAllowed
{
	int			family;
	int			bits;
	int			port;			/* 0 is any */
	unsigned char address[16];
} PpAllowed;

/* in delivery_address.c: which addresses may be connected to */
extern PpAllowed *pp_parse_allowed(const char *list, int *count, const char **bad);
extern bool pp_address_listed(const struct sockaddr *address, const PpAllowed *allowed, int count);
extern bool pp_address_public(const struct sockaddr *address);
extern bool pp_host_listed(const char *host, int port, const PpAllowed *allowed, int count);

/* in delivery_curl.c: the network; nothing here raises an error */
typedef struct PpNetwork PpNetwork;

extern PpNetwork *pp_network_open(void);
extern void pp_network_close(PpNetwork *network);
extern int	pp_network_fd(PpNetwork *network);
extern bool pp_network_configure(PpNetwork *network, const PpRelay *relay,
								 const char *ca_file, const char *allowed_list);
extern PpTransfer *pp_network_add(PpNetwork *network, PpTransfer *list, int64 *begun, int *begun_count);
extern void pp_network_run(PpNetwork *network);
extern PpTransfer *pp_network_finished(PpNetwork *network);
extern PpTransfer *pp_network_abort(PpNetwork *network);
extern long pp_network_timeout(PpNetwork *network);

extern void pp_network_cut(PpTransfer *transfer);
extern int64 pp_network_date(const char *text);

/* in delivery_answer.c: what peers answer, and what it means */
typedef enum PpEnd
{
	PP_END_WELL,
	PP_END_BEFORE,				/* no connection, greeting, TLS or login */
	PP_END_BADLY,
	PP_END_CUT_SHORT,			/* we read no more of the answer */
	PP_END_STARVED				/* we lack memory */
} PpEnd;

extern size_t pp_answer_body(char *data, size_t size, size_t count, void *arg);
extern size_t pp_answer_header(char *data, size_t size, size_t count, void *arg);
extern size_t pp_answer_wants(char *into, size_t size, size_t count, void *arg);
extern void pp_answer_judge(PpTransfer *transfer, PpEnd end, const char *reason);

/* in mail_format.c */
typedef struct PpMail
{
	const char *sender;
	const char *sender_name;
	const char *recipient;
	const char *subject;
	const char *text_body;
	const char *html_body;		/* NULL is text alone */
	const char *locale;
	const char *message_id;		/* a uuid */
	const char *unsubscribe_url;	/* NULL is none */
	TimestampTz date;
} PpMail;

extern const char *pp_mail_build(StringInfo into, const PpMail *mail);
extern bool pp_mail_parse_sender(const char *from, char *address, size_t address_size,
								 char *name, size_t name_size);

/* in secrets.c */
extern void pp_secret_relay(const char *host, char *user, size_t user_size,
							char *password, size_t password_size);
extern bool pp_secret_key(int version, unsigned char key[32]);
extern int	pp_secret_latest_key(void);

/* in webhook.c */
#define PP_WEBHOOK_SECRET	32
extern bool pp_webhook_secret(const char *nonce, int key_version, int version,
							  unsigned char secret[PP_WEBHOOK_SECRET]);
extern void pp_webhook_sign(StringInfo into, const unsigned char *secret, const char *message_id,
							int64 timestamp, const char *body, size_t body_length);

/* in delivery_relay.c */
extern void pp_relay_read(PpRelay *relay);

/* in delivery_queue.c: what is asked of the queue, inside a transaction */

/* Columns by number, as the install script makes them; pp_check_columns(). */
enum
{
	QUEUE_WORKSPACE_ID = 1,
	QUEUE_NOTIFICATION_ID,
	QUEUE_DESTINATION,
	QUEUE_NEXT_ATTEMPT_AT,
	QUEUE_CLAIMS,
	QUEUE_LEASE_TOKEN,
	QUEUE_LEASE_UNTIL,
	QUEUE_COLUMNS = QUEUE_LEASE_UNTIL
};

enum
{
	NOTIFICATION_WORKSPACE_ID = 1,
	NOTIFICATION_NOTIFICATION_ID,
	NOTIFICATION_MESSAGE_ID,
	NOTIFICATION_PARTNER_KEY,
	NOTIFICATION_KIND,
	NOTIFICATION_DEDUPE_KEY,
	NOTIFICATION_OCCURRED_AT,
	NOTIFICATION_EXPIRES_AT,
	NOTIFICATION_STATE,
	NOTIFICATION_ATTEMPTS,
	NOTIFICATION_NEXT_ATTEMPT_AT,
	NOTIFICATION_FINISHED_AT,
	NOTIFICATION_LAST_CODE,
	NOTIFICATION_LAST_ERROR,
	NOTIFICATION_ENDPOINT_ID,
	NOTIFICATION_RECIPIENT,
	NOTIFICATION_LOCALE,
	NOTIFICATION_SUBJECT,
	NOTIFICATION_TEXT_BODY,
	NOTIFICATION_HTML_BODY,
	NOTIFICATION_UNSUBSCRIBE_URL,
	NOTIFICATION_SECRET,
	NOTIFICATION_COLUMNS = NOTIFICATION_SECRET
};

extern const char *const pp_queue_columns[];
extern const char *const pp_notification_columns[];

/* Destinations that one look at the queue goes over, and finds to be due. */
#define PP_LOOK			1000
#define PP_DUE			128

/* A destination with messages that are due, and the first that may be free. */
typedef struct PpDue
{
	int64		destination;
	TimestampTz next_attempt_at;
	int64		notification_id;
} PpDue;

/* An engine's round of its destinations: those after least, up to upto. */
typedef struct PpRound
{
	int64		least;
	int64		upto;
	int64		cursor;			/* the next look begins after it */
	bool		around;			/* the last look came to the end */
	TimestampTz next_look;		/* 0 is at once */
	TimestampTz next_busy_look; /* while messages are under way */
	int			next;			/* the next claim begins with it */
	int			count;
	PpDue		due[PP_DUE];
} PpRound;

extern int	pp_queue_token(void);
extern char *pp_queue_problem(void);
extern void pp_queue_release_stale(int own_token);
extern bool pp_queue_look(PpRound *round, int token);

struct _SPI_plan;
extern void pp_queue_execute(struct _SPI_plan **plan, const char *sql, int count, Oid *types, Datum *values);

/* in delivery_record.c: how transfers ended, inside a transaction */
extern void pp_queue_record(int token, PpTransfer *finished);
extern void pp_queue_record_apart(int token, PpTransfer *finished);

/* What could not be recorded, and when that is tried again. */
typedef struct PpAside
{
	PpTransfer *list;
	int			count;
	int			pause;			/* the last one, in ms */
	TimestampTz until;
} PpAside;

extern void pp_aside_keep(PpAside *aside, PpTransfer **finished, TimestampTz now);

/* in delivery_claim.c: what is sent next, inside a transaction */
extern int	pp_queue_claim(PpRound *round, int token, int wanted, const int64 *busy, int busy_count,
						   const PpRelay *relay, PpTransfer **list);

/* in delivery_build.c: transfers of claimed rows */
extern void pp_transfer_free(PpTransfer *transfer);

/* What a webhook endpoint needs to be sent something; url NULL is that it is gone. */
typedef struct PpEndpoint
{
	char	   *url;
	size_t		url_length;
	bool		malformed;		/* the url has more than printable ASCII */
	bool		old_secret;		/* the one before is in use, too */
	char		nonce[40];
	int			key_version;
	int			secret_version;
} PpEndpoint;

/* A message that is claimed, with the columns of its notification. */
typedef struct PpClaimed
{
	int64		workspace_id;
	int64		notification_id;
	int64		destination;
	bool		ailing;
	bool		expired;
	const Datum *values;
	const bool *isnull;
	const PpEndpoint *endpoint; /* of a webhook */
} PpClaimed;

extern PpTransfer *pp_build(const PpClaimed *message, const PpRelay *relay);
extern void pp_build_forget(void);

/* in delivery_section.c */
typedef struct PpSection
{
	int			guc_level;
	Oid			user;
	int			security;
} PpSection;

extern bool pp_section_enter(bool worker, PpSection *section);
extern void pp_section_plan(void);
extern struct ErrorData *pp_section_try(void (*work) (void *), void *argument);
extern void pp_section_leave(bool worker, PpSection *section);

/* in delivery_engine.c */
typedef enum PpEngineEnd
{
	PP_ENGINE_DONE,				/* nothing is due, or max_rows are sent */
	PP_ENGINE_STOPPED,			/* asked to stop */
	PP_ENGINE_GONE				/* the extension is no longer there */
} PpEngineEnd;

typedef enum PpChannel
{
	PP_MAIL,
	PP_WEBHOOKS
} PpChannel;

#define PP_CHANNELS		2

extern PpEngineEnd pp_engine_run(bool worker, PpChannel channel, int64 *max_rows);

#endif							/* PP_DELIVERY_H */
