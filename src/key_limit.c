/*-------------------------------------------------------------------------
 *
 * key_limit.c
 *		Putting a limit in force, and switching many keys at once.
 *
 * Everything here that picks keys does so under the lock of the workspace's
 * counter, with a snapshot of that moment, so that it is exact whoever else is
 * at work.  In REPEATABLE READ and SERIALIZABLE a key that the transaction's
 * own snapshot does not see in its latest version raises 40001.
 *
 * Statements of others lock keys first and the counter last, and so does this
 * file: lock_choice().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "partner_portal.h"
#include "security_key.h"

PG_FUNCTION_INFO_V1(partner_portal_limit_workspace);
PG_FUNCTION_INFO_V1(partner_portal_lock_usage);
PG_FUNCTION_INFO_V1(partner_portal_make_room);
PG_FUNCTION_INFO_V1(partner_portal_disable_keys);
PG_FUNCTION_INFO_V1(partner_portal_resume_keys);

#define KEY_TABLE	"partner_portal.security_key"
#define FROM_ACTIVE	" FROM " KEY_TABLE " WHERE workspace_id = $1 AND status = 'active' AND $3 IS NULL"
#define FROM_REASON	" FROM " KEY_TABLE " WHERE workspace_id = $1 AND status = 'disabled' AND disabled_reason = $3"
#define NEWEST		" ORDER BY activated_at DESC, key_id DESC LIMIT $2"
#define OLDEST		" ORDER BY activated_at NULLS FIRST, key_id LIMIT $2"
#define LOCK_KEYS(rows) \
	"SELECT key_id FROM " KEY_TABLE " WHERE workspace_id = $1 AND key_id = ANY (ARRAY(SELECT key_id" rows "))" \
	" ORDER BY key_id FOR NO KEY UPDATE"
#define UPDATE_KEYS(change, rows) \
	"UPDATE " KEY_TABLE " k SET " change " FROM (SELECT key_id" rows ") s" \
	" WHERE k.workspace_id = $1 AND k.key_id = s.key_id RETURNING k.key_id"

/* Which keys are meant: the first or last activated ones that are active, or those disabled for a reason. */
typedef enum KeyChoice
{
	NEWEST_KEYS,
	OLDEST_KEYS,
	REASON_KEYS,
	KEY_CHOICES
} KeyChoice;

/* What is done to them. */
typedef enum KeyDeed
{
	PICK,
	HOLD,
	SWITCH,						/* disable active ones, activate the others */
	RENAME,						/* the reason is from now on the limit */
	KEY_DEEDS
} KeyDeed;

/* $1 workspace, $2 how many or NULL for all, $3 reason. */
static const char *const key_statements[KEY_DEEDS][KEY_CHOICES] = {
	{
		"SELECT key_id" FROM_ACTIVE NEWEST,
		"SELECT key_id" FROM_ACTIVE OLDEST,
		"SELECT key_id" FROM_REASON OLDEST
	},
	{
		LOCK_KEYS(FROM_ACTIVE NEWEST),
		LOCK_KEYS(FROM_ACTIVE OLDEST),
		LOCK_KEYS(FROM_REASON OLDEST)
	},
	{
		UPDATE_KEYS("status = 'disabled'", FROM_ACTIVE NEWEST),
		UPDATE_KEYS("status = 'disabled'", FROM_ACTIVE OLDEST),
		UPDATE_KEYS("status = 'active'", FROM_REASON OLDEST)
	},
	{NULL, NULL, UPDATE_KEYS("disabled_reason = 'limit'", FROM_REASON OLDEST)}
};

#define EVERY_KEY	((int64) -1)

/*
 * run_statement runs one of the statements with a snapshot of this moment and
 * returns the keys that it touched, as a bigint[].
 */
static ArrayType *
run_statement(KeyDeed deed, KeyChoice choice, int64 workspace_id, int64 how_many, const char *reason)
{
	static SPIPlanPtr plans[KEY_DEEDS][KEY_CHOICES] = {{NULL}};
	Oid			types[] = {INT8OID, INT8OID, TEXTOID};
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext old_context;
	ArrayType  *result;
	Datum		values[3];
	char		nulls[3] = {' ', ' ', ' '};
	Datum	   *key_ids;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	pp_keep_plan(&plans[deed][choice], key_statements[deed][choice], 3, types);
	values[0] = Int64GetDatum(workspace_id);
	values[1] = Int64GetDatum(how_many);
	values[2] = (Datum) 0;
	if (how_many == EVERY_KEY)
		nulls[1] = 'n';
	if (reason == NULL)
		nulls[2] = 'n';
	else
		values[2] = CStringGetTextDatum(reason);
	if (SPI_execute_snapshot(plans[deed][choice], values, nulls, GetLatestSnapshot(),
							 IsolationUsesXactSnapshot() ? GetTransactionSnapshot() : InvalidSnapshot,
							 false, true, 0) < 0)
		elog(ERROR, "could not switch the keys of workspace " INT64_FORMAT, workspace_id);

	key_ids = palloc_extended(Max(SPI_processed, 1) * sizeof(Datum), MCXT_ALLOC_HUGE);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;

		key_ids[i] = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);
	}
	old_context = MemoryContextSwitchTo(caller);
	result = construct_array(key_ids, SPI_processed, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	MemoryContextSwitchTo(old_context);
	SPI_finish();
	return result;
}

/*
 * run_as_database runs one of the statements with the database's own reason
 * stamped on what it disables; or, lifting, with every reason to be lifted.
 */
static ArrayType *
run_as_database(KeyDeed deed, KeyChoice choice, int64 workspace_id, int64 how_many,
				const char *picked, const char *stamped)
{
	PpKeyContext outer = pp_key_context;
	ArrayType  *result;

	pp_key_context.reason = stamped;
	pp_key_context.lifting = true;
	PG_TRY();
	{
		result = run_statement(deed, choice, workspace_id, how_many, picked);
	}
	PG_FINALLY();
	{
		pp_key_context = outer;
	}
	PG_END_TRY();
	return result;
}

/*
 * array_count returns the number of elements of a bigint[].
 */
static int
array_count(const ArrayType *array)
{
	return ARR_NDIM(array) == 0 ? 0 : ARR_DIMS(array)[0];
}

/*
 * surplus returns how many active keys are more than a limit allows; -1 is no
 * limit.
 */
static int
surplus(const PpUsage *usage, int key_limit, bool hard)
{
	if (!hard || key_limit < 0)
		return 0;
	return Max(usage->active - key_limit, 0);
}

/*
 * lock_counter locks the counter of a workspace, which must have one.
 */
static void
lock_counter(int64 workspace_id, PpUsage *usage)
{
	if (!pp_usage_lock(workspace_id, usage))
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("workspace " INT64_FORMAT " not found", workspace_id)));
}

/*
 * try_lock locks these keys without waiting and tells whether it got them all.
 */
static bool
try_lock(int64 workspace_id, ArrayType *keys)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {INT8OID, INT8ARRAYOID};
	Datum		values[2];
	bool		all;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	pp_keep_plan(&plan,
				 "SELECT key_id FROM " KEY_TABLE " WHERE workspace_id = $1 AND key_id = ANY ($2)"
				 " FOR NO KEY UPDATE SKIP LOCKED", 2, types);
	values[0] = Int64GetDatum(workspace_id);
	values[1] = PointerGetDatum(keys);
	if (SPI_execute_snapshot(plan, values, NULL, GetLatestSnapshot(), InvalidSnapshot, false, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not lock the keys of workspace " INT64_FORMAT, workspace_id);
	all = SPI_processed == array_count(keys);
	SPI_finish();
	return all;
}

/* How many keys a choice comes to, as the counter says. */
typedef int64 (*KeyCount) (const PpUsage *usage, int64 argument);

/*
 * try_choice is one try of lock_choice(), in a subtransaction that it ends
 * whatever happens: one that is left to the end of the command would be taken
 * for a savepoint of the user's.
 */
static bool
try_choice(KeyChoice choice, int64 workspace_id, const char *reason,
		   KeyCount count, int64 argument, PpUsage *usage)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		int64		how_many = count(usage, argument);

		if (how_many != 0)
			(void) run_statement(HOLD, choice, workspace_id, how_many, reason);
		lock_counter(workspace_id, usage);
		how_many = count(usage, argument);
		done = how_many == 0 ||
			try_lock(workspace_id, run_statement(PICK, choice, workspace_id, how_many, reason));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		ReThrowError(error);
	}
	PG_END_TRY();
	if (done)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return done;
}

/*
 * lock_choice locks keys of a workspace and then its counter, such that the
 * choice, made again under the counter's lock, comes to keys that are locked.
 * What others hold and has become part of the choice meanwhile, it does not
 * wait for with the counter in its hand: they may be waiting for that.  It lets
 * everything go, by ending a subtransaction, and starts again; after some
 * tries it leaves it to the deadlock detector.
 */
static void
lock_choice(KeyChoice choice, int64 workspace_id, const char *reason,
			KeyCount count, int64 argument, PpUsage *usage)
{
	for (int tries = 0; tries < 10; tries++)
	{
		if (!pp_usage_read(workspace_id, usage))
			break;
		if (try_choice(choice, workspace_id, reason, count, argument, usage))
			return;
	}
	lock_counter(workspace_id, usage);
}

/*
 * count_fixed is a count that is given; all keys if negative.
 */
static int64
count_fixed(const PpUsage *usage, int64 argument)
{
	return argument;
}

/*
 * count_surplus is what a limit leaves no room for.
 */
static int64
count_surplus(const PpUsage *usage, int64 argument)
{
	return surplus(usage, argument, true);
}

/*
 * disable_surplus disables so many keys with reason limit; the counter is
 * locked and says that there are as many.
 */
static ArrayType *
disable_surplus(int64 workspace_id, int count, KeyChoice choice)
{
	ArrayType  *keys = run_as_database(SWITCH, choice, workspace_id, count, NULL, "limit");

	if (array_count(keys) != count)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the counters of workspace " INT64_FORMAT " do not agree with its keys", workspace_id),
				 errdetail("%d keys were to be disabled, %d could be.", count, array_count(keys)),
				 errhint("Rebuild them with partner_portal.repair().")));
	return keys;
}

/*
 * partner_portal_limit_workspace is the AFTER row trigger of workspace: INSERT
 * makes its counters; UPDATE puts its limit in force there, and disables what
 * is then too much, the most recently activated first.
 */
Datum
partner_portal_limit_workspace(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Relation	rel;
	HeapTuple	tuple;
	PpUsage		usage;
	int64		workspace_id;
	int64		partner_key;
	int			key_limit;
	int			count;
	bool		hard;
	bool		no_limit;
	bool		not_deleted;
	bool		not_suspended;
	bool		isnull;
	const char *blocked = NULL;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) || TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("limit_workspace() must be fired after INSERT or UPDATE for each row")));

	rel = trigdata->tg_relation;
	tuple = TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) ? trigdata->tg_trigtuple : trigdata->tg_newtuple;
	workspace_id = DatumGetInt64(pp_row_column(tuple, rel, "workspace_id", &isnull));
	partner_key = DatumGetInt64(pp_row_column(tuple, rel, "partner_key", &isnull));
	key_limit = DatumGetInt32(pp_row_column(tuple, rel, "key_limit", &no_limit));
	if (no_limit || !DatumGetBool(pp_row_column(tuple, rel, "restrict_keys", &isnull)))
		key_limit = -1;
	hard = pp_text_is(pp_row_column(tuple, rel, "limit_mode", &isnull), "hard");
	(void) pp_row_column(tuple, rel, "deleted_at", &not_deleted);
	(void) pp_row_column(tuple, rel, "suspended_at", &not_suspended);
	if (!not_deleted)
		blocked = "deleted";
	else if (!not_suspended)
		blocked = "suspended";

	if (TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
	{
		pp_usage_create(workspace_id, partner_key, key_limit, hard, blocked);
		return PointerGetDatum(NULL);
	}
	if (hard && key_limit >= 0 && pp_usage_read(workspace_id, &usage))
		lock_choice(NEWEST_KEYS, workspace_id, NULL, count_surplus, key_limit, &usage);
	if (pp_usage_set_limit(workspace_id, key_limit, hard, blocked, &usage))
	{
		count = surplus(&usage, key_limit, hard);
		if (count > 0)
			(void) disable_surplus(workspace_id, count, NEWEST_KEYS);
	}
	return PointerGetDatum(NULL);
}

/*
 * take_strategy tells which active keys are to go first.
 */
static KeyChoice
take_strategy(text *strategy)
{
	if (pp_text_is(PointerGetDatum(strategy), "newest"))
		return NEWEST_KEYS;
	if (!pp_text_is(PointerGetDatum(strategy), "oldest"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown strategy \"%.*s\"",
						pg_mbcliplen(VARDATA_ANY(strategy), VARSIZE_ANY_EXHDR(strategy), 64), VARDATA_ANY(strategy)),
				 errhint("Strategies are newest and oldest.")));
	return OLDEST_KEYS;
}

/*
 * lock_usage(workspace_id) locks the counter of a workspace to the end of the
 * transaction: no key or owner of it changes meanwhile.
 */
Datum
partner_portal_lock_usage(PG_FUNCTION_ARGS)
{
	PpUsage		usage;

	lock_counter(PG_GETARG_INT64(0), &usage);
	PG_RETURN_VOID();
}

/*
 * make_room(workspace_id, key_limit, reject, strategy) disables what a new
 * limit would leave no room for, or refuses with PP001; in a workspace whose
 * limit is soft it does neither.
 */
Datum
partner_portal_make_room(PG_FUNCTION_ARGS)
{
	int64		workspace_id = PG_GETARG_INT64(0);
	int			key_limit = PG_GETARG_INT32(1);
	bool		reject = PG_GETARG_BOOL(2);
	KeyChoice	choice = take_strategy(PG_GETARG_TEXT_PP(3));
	PpUsage		usage;
	int			count;

	if (!reject && pp_usage_read(workspace_id, &usage) && usage.hard)
		lock_choice(choice, workspace_id, NULL, count_surplus, key_limit, &usage);
	else
		lock_counter(workspace_id, &usage);
	count = surplus(&usage, key_limit, usage.hard);
	if (count > 0 && reject)
		ereport(ERROR,
				(errcode(ERRCODE_PP_LIMIT_REACHED),
				 errmsg("workspace " INT64_FORMAT " has more active keys than the new limit", workspace_id),
				 errdetail("A limit of %d was requested for workspace " INT64_FORMAT "; %d keys are active.",
						   key_limit, workspace_id, usage.active),
				 errhint_plural("Disable %d key first, or let the surplus be disabled.",
								"Disable %d keys first, or let the surplus be disabled.", count, count)));
	if (count == 0)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(INT8OID));
	PG_RETURN_ARRAYTYPE_P(disable_surplus(workspace_id, count, choice));
}

/*
 * disable_keys(workspace_id, how_many, strategy, reason) disables active keys;
 * NULL is all of them, more than there are is all of them too.  A NULL reason
 * is that of who is asking.
 */
Datum
partner_portal_disable_keys(PG_FUNCTION_ARGS)
{
	int64		workspace_id = PG_GETARG_INT64(0);
	int64		how_many = PG_ARGISNULL(1) ? EVERY_KEY : PG_GETARG_INT32(1);
	KeyChoice	choice = take_strategy(pp_text_argument(fcinfo, 2));
	PpUsage		usage;

	if (how_many < 0 && !PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("number of keys must not be negative: " INT64_FORMAT, how_many)));
	lock_choice(choice, workspace_id, NULL, count_fixed, how_many, &usage);
	if (PG_ARGISNULL(3))
		PG_RETURN_ARRAYTYPE_P(run_statement(SWITCH, choice, workspace_id, how_many, NULL));
	PG_RETURN_ARRAYTYPE_P(run_as_database(SWITCH, choice, workspace_id, how_many, NULL,
										  text_to_cstring(PG_GETARG_TEXT_PP(3))));
}

/*
 * resume_keys(workspace_id, reason) activates the keys that were disabled for
 * this reason, the oldest activation first, while there is room.  What is left
 * over is from then on disabled by the limit.
 */
Datum
partner_portal_resume_keys(PG_FUNCTION_ARGS)
{
	int64		workspace_id = PG_GETARG_INT64(0);
	char	   *reason = text_to_cstring(PG_GETARG_TEXT_PP(1));
	PpUsage		usage;
	int64		room = EVERY_KEY;
	ArrayType  *keys;

	lock_choice(REASON_KEYS, workspace_id, reason, count_fixed, EVERY_KEY, &usage);
	if (usage.hard && usage.key_limit >= 0)
		room = Max(usage.key_limit - usage.active, 0);
	keys = run_as_database(SWITCH, REASON_KEYS, workspace_id, room, reason, NULL);
	if (room != EVERY_KEY && strcmp(reason, "limit") != 0)
		(void) run_as_database(RENAME, REASON_KEYS, workspace_id, EVERY_KEY, reason, "limit");
	PG_RETURN_ARRAYTYPE_P(keys);
}
