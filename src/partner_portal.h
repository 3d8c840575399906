/*-------------------------------------------------------------------------
 *
 * partner_portal.h
 *		What the files of partner_portal share.
 *
 * A workspace is a company's tenant; a partner is a workspace that has
 * customers; an account is a person who signs in.  Prototypes stand under the
 * file that has the function.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PARTNER_PORTAL_H
#define PARTNER_PORTAL_H

#include "access/genam.h"
#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "pgtime.h"
#include "utils/guc.h"
#include "utils/numeric.h"
#include "utils/relcache.h"

#include "compat.h"

#define PP_SCHEMA	"partner_portal"

/* Our class of SQLSTATEs; spec, "Errors and self-checks". */
#define ERRCODE_PP_LIMIT_REACHED			MAKE_SQLSTATE('P','P','0','0','1')
#define ERRCODE_PP_INVITATION_NOT_USABLE	MAKE_SQLSTATE('P','P','0','0','2')
#define ERRCODE_PP_FINISHED_DOCUMENT		MAKE_SQLSTATE('P','P','0','0','3')
#define ERRCODE_PP_LAST_OWNER				MAKE_SQLSTATE('P','P','0','0','4')
#define ERRCODE_PP_WRONG_STATE				MAKE_SQLSTATE('P','P','0','0','5')

/*
 * pp_compare_int64 orders bigints, for qsort().
 */
static inline int
pp_compare_int64(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return (left > right) - (left < right);
}

/* in guc.c: the settings, see the descriptions there */
extern char *pp_jwks_file;
extern char *pp_token_audience;
extern char *pp_token_issuer;
extern int	pp_clock_skew;
extern int	pp_subject_claim;
extern bool pp_restoring_setting;
extern bool pp_allow_drop;
extern bool pp_log_refusals;
extern char *pp_workspace_url;
extern char *pp_link_base_url;
extern char *pp_portal_domain;
extern int	pp_invoice_grace;
extern int	pp_invitation_lifetime;
extern int	pp_invitations_per_hour;
extern char *pp_smtp_url;
extern char *pp_smtp_from;
extern char *pp_secrets_file;
extern char *pp_ca_file;
extern char *pp_allow_cidr;
extern char *pp_databases;
extern bool pp_enabled;
extern int	pp_delivery_timeout;
extern bool pp_ask_together;

enum
{
	PP_SUBJECT_ACCOUNT_ID,
	PP_SUBJECT_EMAIL
};

extern void pp_define_settings(void);

/* in identity.c: who is asking, for the current transaction */
typedef struct PpIdentity
{
	int64		account_id;
	int64		workspace_id;	/* where it acts; 0 is not chosen */
	int64		portal_id;		/* acting portal; 0 is none */
	TimestampTz expires_at;		/* DT_NOEND if it does not expire */
} PpIdentity;

extern void pp_define_identity(void);
extern void pp_identity_hooks(void);
extern const PpIdentity *pp_identity(void);
extern bool pp_signed_in(void);
extern int64 pp_identity_portal(void);
extern void pp_identity_set(const PpIdentity *identity);

/*
 * How an account stands to a workspace, a set of bits.  Owner to guest are its
 * own role there; the others come from acting in a partner's workspace.
 */
typedef uint32 PpStanding;

#define PP_OWNER				((PpStanding) 1 << 0)
#define PP_ADMINISTRATOR		((PpStanding) 1 << 1)
#define PP_MEMBER				((PpStanding) 1 << 2)
#define PP_GUEST				((PpStanding) 1 << 3)
/* owner or administrator of its partner */
#define PP_PARTNER				((PpStanding) 1 << 4)
/* on the partner's staff for it */
#define PP_ACCOUNT_OWNER		((PpStanding) 1 << 5)
#define PP_SYSTEM_ADMINISTRATOR ((PpStanding) 1 << 6)
/* it is a partner, and one's own as owner or administrator */
#define PP_OWN_PARTNER			((PpStanding) 1 << 7)
/* a grant: on some products or categories, or complete with "read" or "manage" or with "manage" alone */
#define PP_GRANT_LIMITED		((PpStanding) 1 << 8)
#define PP_GRANT_READ			((PpStanding) 1 << 9)
#define PP_GRANT_MANAGE			((PpStanding) 1 << 10)

/* in acl_cache.c: what decides access, as of the latest commit */
typedef struct PpWorkspace
{
	int64		workspace_id;
	int64		partner_key;	/* 0 is direct */
	bool		is_partner;
	bool		deleted;
	bool		suspended;
	bool		partner_suspended;
} PpWorkspace;

typedef struct PpMembership
{
	PpWorkspace workspace;
	PpStanding	role;			/* PP_OWNER to PP_GUEST */
	bool		accepted;		/* counts for nothing before */
	bool		ended;			/* with the grant it goes by */
} PpMembership;

typedef struct PpStaff
{
	int64		partner_key;
	int64		workspace_id;
	PpStanding	role;			/* PP_ACCOUNT_OWNER or PP_SYSTEM_ADMINISTRATOR */
} PpStaff;

typedef struct PpPortalUser
{
	int64		workspace_id;	/* the partner's own */
	int64		portal_id;
	bool		edits;			/* role editor */
	const void *attributes;		/* Jsonb */
	uint64		shares;			/* another number when what is shared is other */
} PpPortalUser;

/* What a customer lets a partner do, while it lasts. */
typedef struct PpGrant
{
	int64		partner_id;
	int64		workspace_id;
	int64		grant_id;
	bool		complete;
	bool		manage;			/* else it may read alone */
	int			n_products;		/* of a limited one */
	int64	   *products;
	int			n_categories;
	char	  **categories;
} PpGrant;

typedef struct PpAccess
{
	int64		account_id;
	bool		disabled;		/* or erased */
	bool		is_operator;
	int			n_memberships;
	PpMembership *memberships;
	int			n_staff;
	PpStaff    *staff;			/* by partner_key, workspace_id */
	int			n_portals;
	PpPortalUser *portals;
	int			n_grants;		/* to the partners that it runs */
	PpGrant    *grants;			/* by partner_id, workspace_id */
	TimestampTz stale_at;		/* read again from then on: something expires */
	uint64		fingerprint;	/* another one when anything of the above is */
	uint64		serial;			/* another one each time it is read */
} PpAccess;

extern bool pp_acl_schema(Oid *schema);
extern uint64 pp_acl_generation(void);
extern bool pp_workspace(int64 workspace_id, PpWorkspace *workspace);
extern const PpAccess *pp_access_of(int64 account_id);

/* in portal_access.c: acting in a branded portal */
extern void pp_read_portal_users(Oid schema, PpAccess *access);
extern const PpPortalUser *pp_portal_user(const PpAccess *access, int64 portal_id);

/* in our_relation.c: what is opened for every statement */
typedef enum PpOurRelation
{
	PP_WORKSPACE,
	PP_WORKSPACE_PARTNER_KEY,
	PP_WORKSPACE_USAGE,
	PP_WORKSPACE_USAGE_PKEY,
	PP_ACCOUNT,
	PP_ACCOUNT_PKEY,
	PP_ACTIVITY,
	PP_ACTIVITY_PKEY,
	PP_KEY_HISTORY,
	PP_SECURITY_KEY,
	PP_SECURITY_KEY_PKEY,
	PP_KEY_ID_SEQUENCE,
	PP_WEBHOOK_ENDPOINT,
	PP_WEBHOOK_ENDPOINT_ENDPOINT_ID,
	PP_NOTIFICATION,
	PP_NOTIFICATION_PKEY,
	PP_NOTIFICATION_NATURAL_KEY,
	PP_DELIVERY_QUEUE,
	PP_DELIVERY_QUEUE_DUE,
	PP_DELIVERY_DESTINATION,
	PP_DELIVERY_DESTINATION_PKEY,
	PP_NOTIFICATION_ID_SEQUENCE,
	PP_OUR_RELATIONS
} PpOurRelation;

extern Oid	pp_our_schema(void);
extern Oid	pp_our_relation(PpOurRelation which);
extern void pp_check_columns(TupleDesc desc, int count, const char *const *names);

/* in check_cache.c: CHECK constraints of our tables, read once */
struct ResultRelInfo;
struct EState;
extern void pp_check_cache_hooks(void);
extern void pp_give_check_states(struct ResultRelInfo *result, struct EState *estate);

/* in file_stamp.c: one state of a file and another */
typedef struct PpFileStamp
{
	int			error;			/* errno of stat(), 0 if it is there */
	dev_t		device;
	ino_t		inode;
	off_t		size;
	mode_t		mode;
	uid_t		owner;
	struct timespec modified;
	struct timespec changed;
} PpFileStamp;

extern void pp_stamp_file(const char *path, PpFileStamp *stamp);
extern bool pp_stamp_settled(const PpFileStamp *stamp);

/* in our_query.c: what is asked by SPI */
typedef struct PpOwner
{
	Oid			user;
	int			security_context;
	int			settings_level;
} PpOwner;

struct _SPI_plan;
extern void pp_pin_setting(const char *name, const char *value);
extern void pp_pin_search_path(void);
extern void pp_become_owner(PpOwner *self);
extern void pp_stop_being_owner(const PpOwner *self);
extern void pp_keep_plan(struct _SPI_plan **plan, const char *sql, int count, Oid *types);

/* in portal_plan.c: plans of isolated tables */
extern void pp_plan_for_portal(int64 portal_id);

/* in acl_row.c: reading rows as of the latest commit */
extern Datum pp_row_column(HeapTuple row, Relation relation, const char *name, bool *isnull);
extern bool pp_row_is_set(HeapTuple row, Relation relation, const char *name);
extern int64 pp_row_id(HeapTuple row, Relation relation, const char *name);
extern bool pp_row_text_is(HeapTuple row, Relation relation, const char *name, const char *expected);
extern SysScanDesc pp_scan_by_id(Relation relation, const char *index, const char *column_name, int64 id);
extern Relation pp_open_ours(Oid schema, const char *name);

/* in access_grant.c: what customers let partners do */
typedef struct PpProduct
{
	int64		product_id;
	int64		workspace_id;
	bool		partner_access;
	char		category[256];
} PpProduct;

extern void pp_read_grants(Oid schema, PpAccess *access);
extern int	pp_first_grant(const PpAccess *access, int64 partner_id, int64 workspace_id);
extern const PpGrant *pp_grant_of(const PpAccess *access, int64 partner_id, int64 workspace_id);
extern PpStanding pp_grant_standing(const PpGrant *grant);
extern bool pp_product(int64 product_id, PpProduct *product);
extern PpStanding pp_product_standing(const PpAccess *access, const struct PpMembership *acting,
									  const PpWorkspace *workspace, const PpProduct *product);
extern void pp_hold_grant(int64 workspace_id);

/* in policy_plan.c: what policies ask, in one step */
extern void pp_policy_plan_hooks(void);

/* in policy_question.c: asking it */
struct CustomScanMethods;
struct FuncExpr;

extern const struct CustomScanMethods pp_question_methods;
extern bool pp_is_question(const struct FuncExpr *call);

/* in log_guard.c: plans of our functions are not for the client */
extern void pp_log_guard_hooks(void);

/* in cursor_guard.c: cursors end with the access they were opened with */
extern void pp_cursor_hooks(void);

/* in permission.c: what the identity may do */
typedef struct PpPermission
{
	const char *name;
	PpStanding	who;			/* beside the operator, who has every one */
} PpPermission;

extern const PpPermission *pp_permission(int n);
extern const PpPermission *pp_find_permission(const char *name, int length);
extern const PpAccess *pp_current_access(const PpIdentity **identity);
extern const PpMembership *pp_current_acting(const PpAccess **access);
extern bool pp_runs_partner(const PpMembership *membership);
extern int	pp_first_staff(const PpAccess *access, int64 partner_key, int64 workspace_id);
extern bool pp_membership_counts(const PpMembership *membership);
extern const PpMembership *pp_acting_membership(const PpAccess *access,
												const PpIdentity *identity);
extern PpStanding pp_standing_by(const PpAccess *access, const PpMembership *acting,
								 const PpWorkspace *workspace);
extern bool pp_is_operator(void);
extern bool pp_access_is_operator(const PpAccess *access);
extern int64 pp_account_id(void);
extern int64 pp_acting_workspace(void);
extern PpStanding pp_standing(int64 workspace_id);
extern bool pp_may(const char *permission, int64 workspace_id);
extern void pp_authorize(const char *permission, int64 workspace_id);
extern void pp_require_somebody(void);
pp_noreturn extern void pp_workspace_not_found(int64 workspace_id);

/* in policy_reader.c: what policies ask, of an access that was looked up, the acting membership (NULL is none), and an argument */
typedef Datum (*PpReader) (const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull);

extern Datum pp_read_account(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull);
extern Datum pp_read_workspace(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull);
extern Datum pp_read_partner(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull);
extern Datum pp_read_own(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull);
extern Datum pp_read_granted(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull);
extern Datum pp_read_complete(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull);
extern Datum pp_read_products(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull);
extern Datum pp_read_limited(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull);
extern Datum pp_read_lowest(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull);
extern Datum pp_read_highest(const PpAccess *access, const PpMembership *acting, Datum argument, bool *isnull);

/* in input.c: what people give to functions */
extern text *pp_text_argument(FunctionCallInfo fcinfo, int number);

/* in shown_text.c: what may stand in texts that others are shown, and in addresses */
extern void pp_check_controls(const char *what, text *value, bool may_break);
extern bool pp_is_blank(text *value);
extern bool pp_port_fits(const char *url);

/* in workspace.c: keeping a workspace with its partner */
extern bool pp_workspace_to_stay(int64 workspace_id, int64 *partner_key);
extern int64 pp_partner_key_to_stay(int64 workspace_id);
extern void pp_workspaces_written(void);
extern void pp_recall_workspaces(void);

/* in own_lock.c: advisory locks that SQL cannot take */
typedef enum PpLockClass
{
	PP_LOCK_ENGINE = 0x70706465,	/* an engine of delivery, by its number */
	PP_LOCK_STEP = 0x70706466	/* a step of tick(), by its position */
} PpLockClass;

extern bool pp_try_own_lock(PpLockClass class, uint32 number, bool session);
extern void pp_lock_engine(int token);
extern void pp_unlock_engine(int token);

/* in restoring.c: whether this session loads a dump */
extern bool pp_restoring(void);

/* in drop_guard.c: no drop of the extension while it holds data */
extern void pp_drop_guard_hooks(void);
extern bool pp_others_watch_access(void);

/* in refusal.c: what the server log is told of refusals */
extern void pp_refused(int sqlstate, const char *what, int64 workspace_id, const char *more);

/* in digest.c: SHA-256 and random bytes */
#define PP_HASH_LENGTH	32

extern void pp_sha256(const void *data, size_t length, uint8 hash[PP_HASH_LENGTH]);
extern void pp_random_bytes(uint8 *bytes, int length);

/* in activity_chain.c: the log, a chain of hashes per workspace */
typedef struct PpLogHead
{
	int64		id;				/* number of the last line, 0 before the first */
	TimestampTz at;
	uint8		hash[PP_HASH_LENGTH];
} PpLogHead;

typedef struct PpLogLine
{
	int64		workspace_id;
	const char *action;
	const char *description;
	const char *details;		/* a JSON object; NULL is an empty one */
	const void *details_value;	/* the same as Jsonb, whose text details then
								 * is exactly; or NULL */
	int64		about;			/* account that it tells about; 0 is none */
	bool		by_application; /* written by log_activity() */
} PpLogLine;

typedef struct PpLog PpLog;

extern PpLog *pp_log_begin(void);
extern void pp_log_append(PpLog *log, const PpLogLine *line, int64 partner_key, PpLogHead *head);
extern void pp_log_end(PpLog *log);

/* in rate.c: money */
extern int64 pp_to_minor(Numeric numerator, int64 denominator, int digits);

/* in billing_period.c: boundaries in a workspace's own time zone */
extern pg_tz *pp_time_zone(const char *name);
extern void pp_check_instant(TimestampTz at);

/* in json.c: JSON from outside as a tree */
typedef enum PpJsonKind
{
	PP_JSON_NULL,
	PP_JSON_TRUE,
	PP_JSON_FALSE,
	PP_JSON_NUMBER,
	PP_JSON_STRING,
	PP_JSON_ARRAY,
	PP_JSON_OBJECT,
	PP_JSON_AMBIGUOUS			/* a name that an object has twice */
} PpJsonKind;

typedef struct PpJson
{
	PpJsonKind	kind;
	char	   *name;			/* of a member; NULL elsewhere */
	char	   *text;			/* of a scalar; a string is unescaped */
	struct PpJson *first;		/* of a container; the others follow by next */
	struct PpJson *last;
	struct PpJson *next;
} PpJson;

extern PpJson *pp_json_parse(const char *utf8, size_t length);
extern const PpJson *pp_json_member(const PpJson *object, const char *name);
extern bool pp_json_string(const PpJson *object, const char *name, const char **text);

/* in signature.c: a key, and what it signed */
struct evp_pkey_st;

typedef enum PpAlgorithm
{
	PP_HS256,
	PP_EDDSA,
	PP_ES256,
	PP_RS256
} PpAlgorithm;

typedef struct PpKey
{
	PpAlgorithm algorithm;
	char	   *id;				/* "kid"; NULL if it has none */
	uint8	   *secret;			/* HS256 */
	size_t		secret_length;
	struct evp_pkey_st *pkey;	/* the others */
} PpKey;

extern const char *pp_algorithm_name(PpAlgorithm algorithm);
extern bool pp_key_read(PpKey *key, const PpJson *jwk, const char **problem);
extern void pp_key_forget(PpKey *key);
extern bool pp_key_verify(const PpKey *key, const uint8 *data, size_t length,
						  const uint8 *signature, size_t signature_length);

/* in jwks.c: the keys that sign tokens */
typedef struct PpKeySet
{
	int			nkeys;
	PpKey	   *keys;
	uint64		generation;		/* another one whenever the keys may differ */
} PpKeySet;

extern const PpKeySet *pp_key_set(void);

/* in token.c: JSON Web Tokens */
typedef struct PpTokenPart
{
	const char *text;
	size_t		length;
} PpTokenPart;

typedef struct PpClaims
{
	const char *issuer;			/* text is NULL where the claim is absent */
	const char *subject;
	const char *token_id;
	const char *email;
	bool		email_verified;
	bool		has_issued_at;
	TimestampTz issued_at;
	TimestampTz expires_at;		/* with the clock skew */
	int64		workspace_id;	/* 0 is none */
	int64		portal_id;		/* likewise */
} PpClaims;

extern bool pp_base64url_decode(const char *text, size_t length, uint8 *bytes, size_t *bytes_length);
extern bool pp_token_split(const char *token, size_t length, PpTokenPart parts[3]);
extern bool pp_parse_id(const char *digits, int64 *id);
extern bool pp_token_verify(const char *token, size_t length, PpClaims *claims);

/* in outbox.c: messages owed, and waking the worker when their transaction commits */
typedef struct PpMessage
{
	int64		workspace_id;	/* whose it is; 0 is the platform's */
	int64		partner_key;	/* its partner now */
	const char *kind;
	const char *dedupe_key;
	bool		certain;		/* keeps every CHECK, and is the first of its
								 * key */
	int64		endpoint_id;	/* the webhook endpoint; 0 is by mail */
	const char *recipient;		/* of a mail, as the following; NULL is none */
	const char *locale;
	const char *subject;
	const char *text_body;		/* of a webhook, all of it */
	const char *html_body;
	const char *unsubscribe_url;
	const char *secret;			/* what is blanked in the bodies */
	const TimestampTz *expires_at;	/* NULL is never */
} PpMessage;

typedef struct PpOutbox PpOutbox;

extern void pp_outbox_init(void);
extern PpOutbox *pp_outbox_open(void);
extern int64 pp_outbox_write(PpOutbox *outbox, const PpMessage *message);
extern void pp_outbox_close(PpOutbox *outbox);

/* in row_writer.c: index entries of rows that are written without the executor, and the rows */
typedef struct PpRowWriter PpRowWriter;
extern void pp_copy_row(TupleTableSlot *into, TupleTableSlot *from);
extern PpRowWriter *pp_writer_open(Relation rel);
extern void pp_writer_entries(PpRowWriter *writer, TupleTableSlot *slot, bool moved);
extern void pp_writer_updated(PpRowWriter **writer, Relation rel, TupleTableSlot *slot, PpUpdateIndexes update_indexes);
extern void pp_writer_close(PpRowWriter *writer);

/* in webhook_event.c: who wants which events */
typedef struct PpEvent
{
	int64		workspace_id;	/* that it is about */
	const char *name;
	const char *data;			/* text of a JSON object with workspace_id */
	const char *dedupe_key;		/* unique among those of its name and
								 * workspace */
	bool		certain;		/* as in PpMessage */
} PpEvent;

struct StringInfoData;
extern void pp_append_number(struct StringInfoData *into, int64 number);
extern bool pp_anybody_hears(void);
extern int	pp_hearers(int64 workspace_id, const char *event, int64 hearers[2]);
extern int	pp_owe_event(PpOutbox *outbox, int64 *heard_by, int count, const PpEvent *event);

/* in worker.c: the background workers that deliver */
extern void pp_worker_init(void);
extern void pp_worker_wake(void);
extern bool pp_worker_leaves(void);

#endif							/* PARTNER_PORTAL_H */
