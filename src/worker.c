/*-------------------------------------------------------------------------
 *
 * worker.c
 *		The background workers that deliver: a launcher, and two workers for
 *		each database of partner_portal.databases, for mail and for webhooks.
 *
 * They exist only when the library is in shared_preload_libraries.  The
 * launcher belongs to no database; it starts a worker where there is none, and
 * again after a pause that grows while workers end soon.  A worker ends by
 * itself when the extension is not there, when its database is about to be
 * dropped, copied or renamed, when it is no longer listed, or when
 * partner_portal.enabled is off; the launcher looks again later.
 *
 * A slot in shared memory says which database a worker serves; a transaction
 * that owes a message wakes it through its latch.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "delivery.h"
#include "partner_portal.h"

#define MAX_DATABASES	16
#define LOOK_MS			5000	/* between looks of the launcher */
#define LONGEST_PAUSE	60		/* seconds between starts of a failing worker */
#define AWAY_MS			10000	/* a database is left alone when it may go */

typedef struct Slot
{
	Oid			database;		/* InvalidOid is a free slot */
	Latch	   *latches[PP_CHANNELS];	/* of workers; NULL while there is
										 * none */
	bool		leave[PP_CHANNELS]; /* a worker is asked to end */
	TimestampTz away_until;		/* no worker is started before */
} Slot;

typedef struct Shared
{
	slock_t		mutex;
	Slot		slots[MAX_DATABASES];
} Shared;

/* What the launcher remembers of a database. */
typedef struct Charge
{
	Oid			database;
	PpChannel	channel;
	bool		listed;
	BackgroundWorkerHandle *handle;
	TimestampTz started;
	TimestampTz next_start;
	int			pause;			/* seconds */
} Charge;

static const char *const channel_names[] = {"mail", "webhooks"};

static Shared *shared = NULL;
static Slot *my_slot = NULL;
static PpChannel my_channel;
static shmem_request_hook_type prev_shmem_request = NULL;
static shmem_startup_hook_type prev_shmem_startup = NULL;
static ProcessUtility_hook_type prev_process_utility = NULL;

PGDLLEXPORT void partner_portal_launcher_main(Datum arg);
PGDLLEXPORT void partner_portal_worker_main(Datum arg);

/*
 * find_slot returns the slot of a database, taking a free one if asked to.  The
 * caller holds the mutex.
 */
static Slot *
find_slot(Oid database, bool take)
{
	Slot	   *unused = NULL;

	for (int i = 0; i < MAX_DATABASES; i++)
	{
		if (shared->slots[i].database == database)
			return &shared->slots[i];
		if (unused == NULL && !OidIsValid(shared->slots[i].database))
			unused = &shared->slots[i];
	}
	if (!take || unused == NULL)
		return NULL;
	memset(unused, 0, sizeof(Slot));
	unused->database = database;
	return unused;
}

/*
 * set_latches sets latches that were copied under the mutex.
 */
static void
set_latches(Latch *const *latches)
{
	for (int i = 0; i < PP_CHANNELS; i++)
		if (latches[i] != NULL)
			SetLatch(latches[i]);
}

/*
 * pp_worker_wake wakes the workers of this database, if there are any.
 */
void
pp_worker_wake(void)
{
	Latch	   *latches[PP_CHANNELS] = {NULL};
	Slot	   *slot;

	if (shared == NULL)
		return;
	SpinLockAcquire(&shared->mutex);
	slot = find_slot(MyDatabaseId, false);
	if (slot != NULL)
		memcpy(latches, slot->latches, sizeof(latches));
	SpinLockRelease(&shared->mutex);
	set_latches(latches);
}

/*
 * pp_worker_leaves tells whether this worker is asked to end.
 */
bool
pp_worker_leaves(void)
{
	bool		leave;

	if (my_slot == NULL)
		return false;
	SpinLockAcquire(&shared->mutex);
	leave = my_slot->leave[my_channel];
	SpinLockRelease(&shared->mutex);
	return leave;
}

/*
 * is_served tells whether a worker serves a database now.
 */
static bool
is_served(Oid database, PpChannel channel)
{
	bool		served;
	Slot	   *slot;

	SpinLockAcquire(&shared->mutex);
	slot = find_slot(database, false);
	served = slot != NULL && slot->latches[channel] != NULL;
	SpinLockRelease(&shared->mutex);
	return served;
}

/*
 * send_away asks the workers of a database to end, and the launcher to leave
 * the database alone for a while.
 */
static void
send_away(Oid database, int milliseconds)
{
	Latch	   *latches[PP_CHANNELS] = {NULL};
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), milliseconds);
	Slot	   *slot;

	SpinLockAcquire(&shared->mutex);
	slot = find_slot(database, milliseconds > 0);
	if (slot != NULL)
	{
		memcpy(latches, slot->latches, sizeof(latches));
		for (int i = 0; i < PP_CHANNELS; i++)
			slot->leave[i] = latches[i] != NULL;
		if (milliseconds > 0)
			slot->away_until = until;
	}
	SpinLockRelease(&shared->mutex);
	set_latches(latches);
}

/*
 * free_slot frees a slot that serves no purpose any more.  The caller holds the
 * mutex.
 */
static void
free_slot(Slot *slot, TimestampTz now)
{
	if (slot->latches[PP_MAIL] == NULL && slot->latches[PP_WEBHOOKS] == NULL &&
		slot->away_until < now)
		slot->database = InvalidOid;
}

/*
 * detach leaves the slot when the worker ends.
 */
static void
detach(int code, Datum arg)
{
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&shared->mutex);
	if (my_slot != NULL)
	{
		my_slot->latches[my_channel] = NULL;
		my_slot->leave[my_channel] = false;
		free_slot(my_slot, now);
	}
	SpinLockRelease(&shared->mutex);
	my_slot = NULL;
}

/*
 * attach takes the place of this worker in its database's slot; false if
 * another has it.
 */
static bool
attach(PpChannel channel)
{
	bool		taken = false;

	my_channel = channel;
	SpinLockAcquire(&shared->mutex);
	my_slot = find_slot(MyDatabaseId, true);
	if (my_slot != NULL && my_slot->latches[channel] == NULL)
	{
		my_slot->latches[channel] = MyLatch;
		my_slot->leave[channel] = false;
		taken = true;
	}
	SpinLockRelease(&shared->mutex);
	if (!taken)
		my_slot = NULL;
	return taken;
}

/*
 * partner_portal_worker_main delivers for one database by one channel until there is a reason
 * to end.
 */
void
partner_portal_worker_main(Datum arg)
{
	PpChannel	channel;

	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	memcpy(&channel, MyBgworkerEntry->bgw_extra, sizeof(channel));
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	if (!attach(channel))
		proc_exit(0);
	before_shmem_exit(detach, (Datum) 0);
	SetConfigOption("lock_timeout", "5s", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "60s", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("idle_in_transaction_session_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("synchronous_commit", "on", PGC_SUSET, PGC_S_OVERRIDE);

	/*
	 * What records results is at hand when there is no file descriptor left
	 * to load it.
	 */
	load_file("$libdir/plpgsql", false);
	pgstat_report_activity(STATE_IDLE, NULL);
	/* Without the extension, look again later; told to go, come back soon. */
	if (pp_engine_run(true, channel, NULL) == PP_ENGINE_GONE)
		send_away(MyDatabaseId, LOOK_MS);
	else if (!pp_worker_leaves())
		send_away(MyDatabaseId, 1000);
	proc_exit(0);
}

/*
 * find_charge returns what is remembered of a database; a new entry if need be.
 */
static Charge *
find_charge(List **charges, Oid database, PpChannel channel)
{
	ListCell   *cell;
	Charge	   *charge;

	foreach(cell, *charges)
	{
		charge = lfirst(cell);
		if (charge->database == database && charge->channel == channel)
			return charge;
	}
	charge = palloc0(sizeof(Charge));
	charge->database = database;
	charge->channel = channel;
	*charges = lappend(*charges, charge);
	return charge;
}

/*
 * list_databases marks the charges that are listed now and exist.
 *
 * The launcher is bound to no database, and cannot count on more than the table
 * itself: the indexes of pg_database are not known to it before some backend
 * has written the cache of shared relations, after each start of the server.
 */
static void
list_databases(List **charges)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *copy = pstrdup(pp_databases == NULL ? "" : pp_databases);
	List	   *names = NIL;
	ListCell   *cell;
	Relation	relation;
	SysScanDesc scan;
	HeapTuple	row;

	foreach(cell, *charges)
		((Charge *) lfirst(cell))->listed = false;
	if (!pp_enabled)
		return;
	if (!SplitIdentifierString(copy, ',', &names))
	{
		ereport(WARNING,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("partner_portal.databases is not a list of names")));
		list_free(names);
		pfree(copy);
		return;
	}
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = systable_beginscan(relation, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(row = systable_getnext(scan)))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(row);

		foreach(cell, names)
		{
			MemoryContext before;

			if (strcmp(NameStr(database->datname), lfirst(cell)) != 0)
				continue;
			before = MemoryContextSwitchTo(context);
			for (int i = 0; i < PP_CHANNELS; i++)
				find_charge(charges, database->oid, i)->listed = true;
			MemoryContextSwitchTo(before);
		}
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	list_free(names);
	pfree(copy);
}

/*
 * is_away tells whether a database is to be left alone.
 */
static bool
is_away(Oid database)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		away = false;
	Slot	   *slot;

	SpinLockAcquire(&shared->mutex);
	slot = find_slot(database, false);
	if (slot != NULL && slot->away_until > now)
		away = true;
	else if (slot != NULL)
		free_slot(slot, now);
	SpinLockRelease(&shared->mutex);
	return away;
}

/*
 * start_worker starts the worker of a database.
 */
static void
start_worker(Charge *charge)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(charge->database);
	worker.bgw_notify_pid = MyProcPid;
	memcpy(worker.bgw_extra, &charge->channel, sizeof(charge->channel));
	strlcpy(worker.bgw_library_name, PP_SCHEMA, sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "partner_portal_worker_main", sizeof(worker.bgw_function_name));
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "partner_portal %s", channel_names[charge->channel]);
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "partner_portal %s of database %u",
			 channel_names[charge->channel], charge->database);
	charge->started = GetCurrentTimestamp();
	if (!RegisterDynamicBackgroundWorker(&worker, &charge->handle))
	{
		charge->handle = NULL;
		charge->next_start = TimestampTzPlusMilliseconds(charge->started, 1000 * LONGEST_PAUSE);
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker is free to deliver notifications"),
				 errhint("Raise max_worker_processes.")));
	}
}

/*
 * look_after starts, watches or ends the worker of a database.
 */
static void
look_after(Charge *charge)
{
	TimestampTz now = GetCurrentTimestamp();
	pid_t		pid;

	if (charge->handle != NULL)
	{
		if (GetBackgroundWorkerPid(charge->handle, &pid) != BGWH_STOPPED)
		{
			if (!charge->listed)
				send_away(charge->database, 0);
			return;
		}
		pfree(charge->handle);
		charge->handle = NULL;
		if (is_away(charge->database) ||
			TimestampDifferenceExceeds(charge->started, now, LONGEST_PAUSE * 1000))
			charge->pause = 0;
		else
			charge->pause = Min(LONGEST_PAUSE, Max(1, charge->pause * 2));
		charge->next_start = TimestampTzPlusMilliseconds(now, 1000 * charge->pause);
	}
	if (charge->listed && now >= charge->next_start && !is_away(charge->database) &&
		!is_served(charge->database, charge->channel))
		start_worker(charge);
}

/*
 * partner_portal_launcher_main sees to it that listed databases have a worker.
 */
void
partner_portal_launcher_main(Datum arg)
{
	List	   *charges = NIL;
	MemoryContext context;

	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	context = AllocSetContextCreate(TopMemoryContext, "partner_portal launcher", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	pgstat_report_activity(STATE_IDLE, NULL);

	while (!ShutdownRequestPending)
	{
		ListCell   *cell;

		list_databases(&charges);
		foreach(cell, charges)
			look_after(lfirst(cell));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 charges == NIL ? LOOK_MS : 1000, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
	/* Any other code than 0 has it started again, unless the server stops. */
	proc_exit(1);
}

/*
 * may_disturb tells whether the current role owns a database.
 */
static bool
may_disturb(Oid database)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		return false;
	owner = ((Form_pg_database) GETSTRUCT(tuple))->datdba;
	ReleaseSysCache(tuple);
	return has_privs_of_role(GetUserId(), owner);
}

/*
 * database_disturbed returns the name of the database that a statement wants
 * for itself alone, or NULL.
 */
static const char *
database_disturbed(Node *statement)
{
	ListCell   *cell;

	if (IsA(statement, DropdbStmt))
		return ((DropdbStmt *) statement)->dbname;
	if (IsA(statement, RenameStmt) && ((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
		return ((RenameStmt *) statement)->subname;
	if (IsA(statement, AlterDatabaseStmt))
	{
		foreach(cell, ((AlterDatabaseStmt *) statement)->options)
		{
			if (strcmp(((DefElem *) lfirst(cell))->defname, "tablespace") == 0)
				return ((AlterDatabaseStmt *) statement)->dbname;
		}
	}
	if (IsA(statement, CreatedbStmt))
	{
		foreach(cell, ((CreatedbStmt *) statement)->options)
		{
			DefElem    *option = lfirst(cell);

			if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
				return defGetString(option);
		}
	}
	return NULL;
}

/*
 * make_way lets the worker leave a database that must have no session: the
 * statement itself waits five seconds for that.
 */
static void
make_way(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
		 ProcessUtilityContext context, ParamListInfo params,
		 QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	const char *name = database_disturbed(pstmt->utilityStmt);

	if (name != NULL && shared != NULL)
	{
		Oid			database = get_database_oid(name, true);

		if (OidIsValid(database) && may_disturb(database) &&
			(is_served(database, PP_MAIL) || is_served(database, PP_WEBHOOKS)))
			send_away(database, AWAY_MS);
	}
	if (prev_process_utility)
		prev_process_utility(pstmt, queryString, readOnlyTree, context, params,
							 queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
}

/*
 * request_shmem and startup_shmem provide the slots.
 */
static void
request_shmem(void)
{
	if (prev_shmem_request)
		prev_shmem_request();
	RequestAddinShmemSpace(MAXALIGN(sizeof(Shared)));
}

static void
startup_shmem(void)
{
	bool		found;

	if (prev_shmem_startup)
		prev_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("partner_portal delivery", sizeof(Shared), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(Shared));
		SpinLockInit(&shared->mutex);
	}
	LWLockRelease(AddinShmemInitLock);
}

/*
 * pp_worker_init registers the launcher when the library is preloaded.
 */
void
pp_worker_init(void)
{
	BackgroundWorker worker = {0};

	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	prev_shmem_request = shmem_request_hook;
	shmem_request_hook = request_shmem;
	prev_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = make_way;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, PP_SCHEMA, sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "partner_portal_launcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_type, "partner_portal launcher", sizeof(worker.bgw_type));
	strlcpy(worker.bgw_name, "partner_portal launcher", sizeof(worker.bgw_name));
	RegisterBackgroundWorker(&worker);
}
