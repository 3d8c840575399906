/*-------------------------------------------------------------------------
 *
 * security_key.h
 *		What the files about security keys, their limit and their meter share.
 *
 * A stretch is a time of a key being active with one holder, half-open.  The
 * counter is a workspace's row of workspace_usage; its lock is what puts all
 * changes of a workspace's keys in one order.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PP_SECURITY_KEY_H
#define PP_SECURITY_KEY_H

#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "utils/hsearch.h"
#include "utils/relcache.h"

/* Columns by number, as the install script makes them; pp_check_columns(). */
enum
{
	KEY_WORKSPACE_ID = 1,
	KEY_KEY_ID,
	KEY_PARTNER_KEY,
	KEY_KIND,
	KEY_SERIAL,
	KEY_LABEL,
	KEY_ACCOUNT_ID,
	KEY_STATUS,
	KEY_DISABLED_REASON,
	KEY_CREATED_AT,
	KEY_ACTIVATED_AT,
	KEY_DISABLED_AT,
	KEY_COLUMNS = KEY_DISABLED_AT
};

/* Kinds of keys, in the order of the counters. */
enum
{
	PP_SMARTPHONE,
	PP_CONTACTLESS_CARD,
	PP_KINDS
};

/* Why the database itself changes keys at the moment; reason NULL is that it does not. */
typedef struct PpKeyContext
{
	const char *reason;			/* stamped on what is disabled */
	bool		lifting;		/* whatever the reason, it may be lifted */
} PpKeyContext;

/* How many ids a line of the log names. */
#define PP_NOTED_KEYS	20

/* Keys that one statement switched one way, for the log. */
typedef struct PpKeyNote
{
	int			count;
	int			revoked;		/* of them, for good */
	int			kinds[PP_KINDS];
	int64		ids[PP_NOTED_KEYS]; /* the first ones */
	char		reason[16];		/* of the first one */
	bool		reasons;		/* whether there are others */
	int64		line;			/* number of its line, once it is logged */
} PpKeyNote;

/* Memberships that one statement changed, for the log. */
typedef struct PpMemberNote
{
	int			count;
	int64		account_id;		/* of the first one */
	char	   *description;	/* likewise */
	StringInfo	changes;		/* JSON of the first ones */
} PpMemberNote;

/* A membership before or after a change; role NULL is none. */
typedef struct PpMember
{
	const char *role;
	bool		accepted;
} PpMember;

/*
 * What one statement does to one workspace.  The first half is gathered by the
 * statement triggers, the second is the answer of pp_usage_apply().
 */
typedef struct PpUsageChange
{
	int64		workspace_id;	/* hash key */
	bool		inserted;		/* whether there are new keys, and what they
								 * say is its partner */
	int64		lowest_partner_key;
	int64		highest_partner_key;
	int			total[PP_KINDS];
	int			active[PP_KINDS];
	int			owners;
	int			activations;	/* keys that became active */
	int			deleted;		/* active keys deleted: they end by the clock */
	TimestampTz first_activation;	/* earliest and latest stamps, as the rows
									 * say */
	TimestampTz first_end;
	TimestampTz last_end;
	bool		ends;			/* whether there are keys that stopped */
	PpKeyNote	activated;		/* for the log */
	PpKeyNote	disabled;		/* likewise, with those that were deleted */
	int			deleted_keys;	/* deleted ones, active or not */
	PpMemberNote members;		/* likewise */

	int			ended_count;	/* stretches that ended */
	int			ended_place;	/* of the next of them, in order of workspaces */

	TimestampTz clock;			/* end of the deleted ones */
	TimestampTz start_floor;	/* activations stamped before it are moved to
								 * start_to */
	TimestampTz start_to;
	TimestampTz end_floor;		/* other stamps before it are moved to end_to */
	TimestampTz end_to;
} PpUsageChange;

/* A stretch that ended with a row's change, until the lock says when. */
typedef struct PpEnded
{
	PpUsageChange *change;
	int64		key_id;
	int64		partner_key;
	int64		account_id;
	TimestampTz active_from;
	TimestampTz stamp;			/* its end as the row says; DT_NOBEGIN is by
								 * the clock */
	short		kind;
	bool		no_account;
	bool		goes_on;		/* as another stretch, which begins then */
} PpEnded;

/* The changes of one statement, by workspace. */
typedef struct PpChanges
{
	int			count;
	PpUsageChange first;		/* most statements are about one workspace */
	HTAB	   *others;			/* NULL while there is none */
	PpUsageChange *last;		/* the one looked up last */
	PpUsageChange **sorted;		/* all of them, once they are counted */
	PpEnded    *ended;			/* the stretches that ended */
	int			ended_count;	/* of all, noted or not */
	int			ended_room;
} PpChanges;

/* The counter of a workspace, read under its lock. */
typedef struct PpUsage
{
	int64		partner_key;
	int			active;
	int			owners;
	int			key_limit;		/* -1 is none */
	bool		hard;
	char		blocked[16];	/* empty, suspended or deleted */
	TimestampTz last_disabled_at;
	TimestampTz closed_until;
	TimestampTz alerted_until;
	int			alerted_percent;
} PpUsage;

/* in security_key.c: what a row of security_key may become, and its stamps */
extern PpKeyContext pp_key_context;

extern bool pp_text_is(Datum value, const char *text);
extern int	pp_key_kind(Datum kind);

/* in usage_change.c: what a statement does, workspace by workspace */
extern void pp_changes_begin(PpChanges *changes);
extern PpUsageChange *pp_change_of(PpChanges *changes, int64 workspace_id);
extern void pp_changes_apply(PpChanges *changes, bool restoring);

/* in usage_row.c: the row of workspace_usage of a workspace */
typedef struct PpUsageRow
{
	Relation	rel;
	Relation	index;
	TupleTableSlot *old;		/* the version that is locked */
	TupleTableSlot *new;		/* what it becomes */
} PpUsageRow;

extern void pp_row_open(PpUsageRow *row);
extern bool pp_row_find(PpUsageRow *row, int64 workspace_id);
extern bool pp_row_lock(PpUsageRow *row, int64 workspace_id);
extern void pp_row_begin(PpUsageRow *row);
extern void pp_row_write(PpUsageRow *row);
extern void pp_row_insert(PpUsageRow *row);
extern void pp_row_close(PpUsageRow *row);

/* in usage_counter.c: the counters and the limit */
extern bool pp_usage_lock(int64 workspace_id, PpUsage *usage);
extern bool pp_usage_read(int64 workspace_id, PpUsage *usage);
extern void pp_usage_apply(PpUsageChange **changes, int count, bool restoring);
extern void pp_usage_create(int64 workspace_id, int64 partner_key, int key_limit, bool hard, const char *blocked);
extern bool pp_usage_set_limit(int64 workspace_id, int key_limit, bool hard, const char *blocked, PpUsage *usage);
extern void pp_usage_set_alert(int64 workspace_id, TimestampTz until, int percent);
extern int64 pp_usage_log(PpLogLine **lines, int count);

/* in key_settle.c: what is checked when the whole statement is done */
extern void pp_settle_hooks(void);
extern void pp_settle(int64 workspace_id, int activated, int owners, const PpUsage *usage);
extern void pp_log_later(const PpLogLine *line);

/* in activity_log.c: what is written to the log */
extern void pp_log_lines(List *lines);

/* in activity_line.c: what the log says about a statement on keys or members */
extern void pp_note_member(PpMemberNote *note, int64 account_id, const PpMember *was, const PpMember *is);
extern List *pp_statement_lines(const PpUsageChange *change);

/* in key_reference.c: the reference of new keys to their workspaces */
extern void pp_key_reference_hooks(void);
extern void pp_check_reference(PpUsageChange **changes, int count);

/* in key_event.c: webhook events about keys */
extern void pp_key_events(PpUsageChange **changes, int count);

/* in key_restamp.c: stamps that do not stand */
typedef struct PpRestamp
{
	int64		workspace_id;
	bool		start;			/* activated_at, else disabled_at */
	TimestampTz time;
	int64		key_id;
} PpRestamp;

typedef struct PpRestamps
{
	PpRestamp  *items;
	int			count;
	int			room;
} PpRestamps;

extern void pp_restamp_add(PpRestamps *list, int64 workspace_id, int64 key_id, bool start, TimestampTz time);
extern void pp_restamp_all(PpRestamps *list, Relation rel);

/* in key_history.c: closed stretches */
typedef struct PpHistory PpHistory;
extern PpHistory *pp_history_begin(void);
extern void pp_history_add(PpHistory *history, int64 workspace_id, int64 key_id, int kind,
						   Datum account_id, bool no_account, int64 partner_key,
						   TimestampTz active_from, TimestampTz active_until);
extern void pp_history_end(PpHistory *history);

#endif							/* PP_SECURITY_KEY_H */
