/*-------------------------------------------------------------------------
 *
 * acl_cache.c
 *		What decides access, remembered per backend: an account's memberships,
 *		staff assignments and portals, and the state of workspaces.
 *
 * Access is always that of the latest commit (and of one's own transaction),
 * also in REPEATABLE READ and SERIALIZABLE, as it is with SQL privileges.
 * Triggers on the tables that decide access invalidate the empty table
 * acl_signal; the message is sent at commit and follows savepoints by itself.
 * Here it bumps the generation, and what was remembered under another
 * generation is read again, with a catalog snapshot and never the
 * transaction's.
 *
 * acl_access() and pp_workspace() look for messages themselves, so that a
 * revocation holds from the next statement on, prepared plans included.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "partner_portal.h"

#define KEPT_ACCOUNTS	8		/* pooled connections alternate */
#define KEPT_WORKSPACES 65536	/* then all are forgotten */
#define MAX_REBUILDS	3

/* One remembered account; valid while its generation is the current one. */
typedef struct AccessSlot
{
	PpAccess	access;
	uint64		generation;		/* 0 is never valid */
	uint64		used;			/* for choosing which to forget */
	MemoryContext context;
} AccessSlot;

/* One remembered workspace. */
typedef struct WorkspaceEntry
{
	int64		workspace_id;	/* hash key */
	uint64		generation;
	PpWorkspace workspace;
} WorkspaceEntry;

static Oid	signal_relation = InvalidOid;
static uint64 generation = 1;
static uint64 use_count = 0;
static AccessSlot slots[KEPT_ACCOUNTS];
static HTAB *workspaces = NULL;
static WorkspaceEntry last_workspace;

PG_FUNCTION_INFO_V1(partner_portal_acl_changed);

/*
 * acl_invalidated notes that who may do what has changed, or that messages
 * were lost.  It must do nothing else: it runs anywhere.
 */
static void
acl_invalidated(Datum arg, Oid relation)
{
	if (relation == InvalidOid || relation == signal_relation)
		generation++;
}

/*
 * find_signal looks up acl_signal, and forgets everything when it is another
 * one than before (the extension was dropped and made again).  False when the
 * extension is not installed here.
 */
static bool
find_signal(Oid *schema)
{
	static bool registered = false;
	Oid			relation;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(acl_invalidated, (Datum) 0);
		registered = true;
	}
	*schema = get_namespace_oid(PP_SCHEMA, true);
	if (!OidIsValid(*schema))
		return false;
	relation = get_relname_relid("acl_signal", *schema);
	if (!OidIsValid(relation))
		return false;
	if (relation != signal_relation)
	{
		signal_relation = relation;
		generation++;
	}
	return true;
}

/*
 * pp_acl_schema returns the extension's schema for reading what decides access;
 * false when the extension is not installed here.
 */
bool
pp_acl_schema(Oid *schema)
{
	return find_signal(schema);
}

/*
 * pp_acl_generation returns a number that is another one whenever something
 * that decides access may have changed.
 */
uint64
pp_acl_generation(void)
{
	Oid			schema;

	AcceptInvalidationMessages();
	/* nothing is heard before it is known what to listen for */
	if (!OidIsValid(signal_relation))
		(void) find_signal(&schema);
	return generation;
}

/*
 * read_workspace reads the state of a workspace and of its partner.
 */
static bool
read_workspace(Relation relation, int64 workspace_id, PpWorkspace *workspace)
{
	SysScanDesc scan;
	HeapTuple	row;

	memset(workspace, 0, sizeof(PpWorkspace));
	scan = pp_scan_by_id(relation, "workspace_pkey", "workspace_id", workspace_id);
	row = systable_getnext(scan);
	if (HeapTupleIsValid(row))
	{
		workspace->workspace_id = workspace_id;
		workspace->partner_key = pp_row_id(row, relation, "partner_id");
		workspace->is_partner = pp_row_text_is(row, relation, "kind", "partner");
		workspace->deleted = pp_row_is_set(row, relation, "deleted_at");
		workspace->suspended = pp_row_is_set(row, relation, "suspended_at");
	}
	systable_endscan(scan);
	if (workspace->workspace_id == 0)
		return false;
	if (workspace->partner_key != 0)
	{
		scan = pp_scan_by_id(relation, "workspace_pkey", "workspace_id", workspace->partner_key);
		row = systable_getnext(scan);
		workspace->partner_suspended = HeapTupleIsValid(row) &&
			pp_row_is_set(row, relation, "suspended_at");
		systable_endscan(scan);
	}
	return true;
}

/*
 * pp_workspace looks a workspace up as of the latest commit and returns
 * whether there is one.  Cheap enough for a row trigger: the workspace asked
 * for last costs no look-up at all.
 */
bool
pp_workspace(int64 workspace_id, PpWorkspace *workspace)
{
	WorkspaceEntry *entry;
	Relation	relation;
	uint64		seen;
	bool		found;
	Oid			schema;

	AcceptInvalidationMessages();
	if (last_workspace.workspace_id == workspace_id &&
		last_workspace.generation == generation)
	{
		*workspace = last_workspace.workspace;
		return true;
	}
	if (workspaces != NULL)
	{
		entry = hash_search(workspaces, &workspace_id, HASH_FIND, NULL);
		if (entry != NULL && entry->generation == generation)
		{
			last_workspace = *entry;
			*workspace = entry->workspace;
			return true;
		}
	}

	memset(workspace, 0, sizeof(PpWorkspace));
	if (!find_signal(&schema) ||
		(relation = pp_open_ours(schema, "workspace")) == NULL)
		return false;
	seen = generation;
	found = read_workspace(relation, workspace_id, workspace);
	table_close(relation, AccessShareLock);
	if (!found)
		return false;

	/*
	 * The absent are not remembered, so a new workspace need not be
	 * announced.
	 */
	if (workspaces != NULL && hash_get_num_entries(workspaces) >= KEPT_WORKSPACES)
	{
		hash_destroy(workspaces);
		workspaces = NULL;
	}
	if (workspaces == NULL)
	{
		HASHCTL		control;

		control.keysize = sizeof(int64);
		control.entrysize = sizeof(WorkspaceEntry);
		control.hcxt = CacheMemoryContext;
		workspaces = hash_create("partner_portal workspaces", 256, &control,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(workspaces, &workspace_id, HASH_ENTER, NULL);
	entry->generation = seen;
	entry->workspace = *workspace;
	last_workspace = *entry;
	return true;
}

/*
 * read_account reads the account itself; false if there is none.
 */
static bool
read_account(Oid schema, PpAccess *access)
{
	Relation	relation = pp_open_ours(schema, "account");
	SysScanDesc scan;
	HeapTuple	row;
	bool		found;

	if (relation == NULL)
		return false;
	scan = pp_scan_by_id(relation, "account_pkey", "account_id", access->account_id);
	row = systable_getnext(scan);
	found = HeapTupleIsValid(row);
	if (found)
	{
		bool		isnull;

		access->is_operator = DatumGetBool(pp_row_column(row, relation, "is_operator", &isnull));
		access->disabled = pp_row_is_set(row, relation, "disabled_at") ||
			pp_row_is_set(row, relation, "erased_at");
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return found;
}

/*
 * role_of reads the role in a row of member or staff as its standing.
 */
static PpStanding
role_of(HeapTuple row, Relation relation)
{
	static const struct
	{
		const char *name;
		PpStanding	standing;
	}			roles[] = {
		{"owner", PP_OWNER},
		{"administrator", PP_ADMINISTRATOR},
		{"member", PP_MEMBER},
		{"guest", PP_GUEST},
		{"account_owner", PP_ACCOUNT_OWNER},
		{"system_administrator", PP_SYSTEM_ADMINISTRATOR},
	};

	for (int i = 0; i < lengthof(roles); i++)
		if (pp_row_text_is(row, relation, "role", roles[i].name))
			return roles[i].standing;
	return 0;
}

/*
 * compare_staff orders assignments by partner and workspace.
 */
static int
compare_staff(const void *left, const void *right)
{
	const PpStaff *a = left;
	const PpStaff *b = right;

	if (a->partner_key != b->partner_key)
		return a->partner_key < b->partner_key ? -1 : 1;
	if (a->workspace_id != b->workspace_id)
		return a->workspace_id < b->workspace_id ? -1 : 1;
	return 0;
}

/*
 * read_memberships reads the account's memberships, pending ones included,
 * into the current memory context.
 */
static void
read_memberships(Oid schema, PpAccess *access)
{
	Relation	relation = pp_open_ours(schema, "member");
	Relation	workspace;
	SysScanDesc scan;
	HeapTuple	row;
	int			room = 4;

	if (relation == NULL)
		return;
	workspace = pp_open_ours(schema, "workspace");
	access->memberships = palloc(room * sizeof(PpMembership));
	scan = pp_scan_by_id(relation, "member_account_id", "account_id", access->account_id);
	while (HeapTupleIsValid(row = systable_getnext(scan)))
	{
		PpMembership *membership;
		Datum		ends_at;
		bool		endless;

		if (access->n_memberships == room)
		{
			room *= 2;
			access->memberships = repalloc(access->memberships, room * sizeof(PpMembership));
		}
		membership = &access->memberships[access->n_memberships];
		if (!read_workspace(workspace, pp_row_id(row, relation, "workspace_id"),
							&membership->workspace))
			continue;
		membership->role = role_of(row, relation);
		membership->accepted = pp_row_is_set(row, relation, "accepted_at");
		ends_at = pp_row_column(row, relation, "ends_at", &endless);
		membership->ended = !endless &&
			DatumGetTimestampTz(ends_at) <= GetCurrentStatementStartTimestamp();
		if (!endless && !membership->ended)
			access->stale_at = Min(access->stale_at, DatumGetTimestampTz(ends_at));
		access->n_memberships++;
	}
	systable_endscan(scan);
	table_close(workspace, AccessShareLock);
	table_close(relation, AccessShareLock);
}

/*
 * read_staff reads the account's assignments, in the order of compare_staff,
 * into the current memory context.
 */
static void
read_staff(Oid schema, PpAccess *access)
{
	Relation	relation = pp_open_ours(schema, "staff");
	SysScanDesc scan;
	HeapTuple	row;
	int			room = 4;

	if (relation == NULL)
		return;
	access->staff = palloc(room * sizeof(PpStaff));
	scan = pp_scan_by_id(relation, "staff_account_id", "account_id", access->account_id);
	while (HeapTupleIsValid(row = systable_getnext(scan)))
	{
		PpStaff    *staff;

		if (access->n_staff == room)
		{
			room *= 2;
			access->staff = repalloc(access->staff, room * sizeof(PpStaff));
		}
		staff = &access->staff[access->n_staff++];
		staff->workspace_id = pp_row_id(row, relation, "workspace_id");
		staff->partner_key = pp_row_id(row, relation, "partner_key");
		staff->role = role_of(row, relation);
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	qsort(access->staff, access->n_staff, sizeof(PpStaff), compare_staff);
}

/*
 * add_print adds a number to a fingerprint.
 */
static void
add_print(PpAccess *access, int64 number)
{
	access->fingerprint = hash_bytes_extended((const unsigned char *) &number, sizeof(number),
											  access->fingerprint);
}

/*
 * take_fingerprint sums up in a number everything that access rests on.
 */
static void
take_fingerprint(PpAccess *access)
{
	add_print(access, access->disabled | access->is_operator << 1);
	for (int i = 0; i < access->n_memberships; i++)
	{
		const PpMembership *membership = &access->memberships[i];

		add_print(access, membership->workspace.workspace_id);
		add_print(access, membership->role);
		add_print(access, membership->accepted | membership->ended << 1 |
				  membership->workspace.deleted << 2 | membership->workspace.is_partner << 3);
	}
	for (int i = 0; i < access->n_staff; i++)
	{
		add_print(access, access->staff[i].workspace_id);
		add_print(access, access->staff[i].partner_key);
		add_print(access, access->staff[i].role);
	}
	for (int i = 0; i < access->n_grants; i++)
		add_print(access, access->grants[i].grant_id);
	for (int i = 0; i < access->n_portals; i++)
	{
		const PpPortalUser *user = &access->portals[i];

		add_print(access, user->portal_id);
		add_print(access, user->edits);
		add_print(access, (int64) user->shares);
		access->fingerprint = hash_bytes_extended(user->attributes, VARSIZE(user->attributes),
												  access->fingerprint);
	}
}

/*
 * rebuild reads everything about an account into the slot.  It marks the slot
 * valid last, and only when nothing changed meanwhile; otherwise it tries again
 * a few times and then leaves a slot that serves this one call.  False if there
 * is no such account, which is not remembered.
 */
static bool
rebuild(AccessSlot *slot, int64 account_id)
{
	static uint64 serial = 0;

	for (int attempt = 0; attempt < MAX_REBUILDS; attempt++)
	{
		MemoryContext context;
		MemoryContext caller;
		PpAccess	access = {0};
		uint64		seen;
		bool		found;
		Oid			schema;

		slot->generation = 0;
		if (!find_signal(&schema))
			return false;
		seen = generation;
		access.account_id = account_id;
		access.stale_at = DT_NOEND;
		access.serial = ++serial;

		context = AllocSetContextCreate(CurrentMemoryContext,
										"partner_portal account", ALLOCSET_SMALL_SIZES);
		caller = MemoryContextSwitchTo(context);
		found = read_account(schema, &access);
		if (found)
		{
			read_memberships(schema, &access);
			read_staff(schema, &access);
			pp_read_portal_users(schema, &access);
			pp_read_grants(schema, &access);
			take_fingerprint(&access);
		}
		MemoryContextSwitchTo(caller);
		if (!found)
		{
			MemoryContextDelete(context);
			return false;
		}

		MemoryContextSetParent(context, CacheMemoryContext);
		if (slot->context != NULL)
			MemoryContextDelete(slot->context);
		slot->context = context;
		slot->access = access;
		if (seen == generation)
		{
			slot->generation = seen;
			break;
		}
	}
	return true;
}

/*
 * pp_access_of returns what decides an account's access as of the latest
 * commit, or NULL if there is no such account.  The result is good until the
 * next call; copy what must live longer.
 */
const PpAccess *
pp_access_of(int64 account_id)
{
	AccessSlot *slot = &slots[0];

	AcceptInvalidationMessages();
	for (int i = 0; i < KEPT_ACCOUNTS; i++)
	{
		if (slots[i].context != NULL && slots[i].access.account_id == account_id)
		{
			slot = &slots[i];
			break;
		}
		if (slots[i].used < slot->used)
			slot = &slots[i];
	}
	if (slot->context == NULL || slot->access.account_id != account_id ||
		slot->generation != generation ||
		slot->access.stale_at <= GetCurrentStatementStartTimestamp())
	{
		if (!rebuild(slot, account_id))
			return NULL;
	}
	slot->used = ++use_count;
	return &slot->access;
}

/*
 * acl_changed is the trigger of the tables that decide access: it tells every
 * backend, at commit, and this one at the next command, to look again.
 */
Datum
partner_portal_acl_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Oid			signal;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by the trigger manager", "acl_changed")));
	if (!TRIGGER_FIRED_AFTER(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired AFTER", "acl_changed")));

	signal = get_relname_relid("acl_signal", RelationGetNamespace(trigger->tg_relation));
	if (OidIsValid(signal))
		CacheInvalidateRelcacheByRelid(signal);
	PG_RETURN_POINTER(NULL);
}
