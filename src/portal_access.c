/*-------------------------------------------------------------------------
 *
 * portal_access.c
 *		Acting in a branded portal: whose user one is, with which attributes,
 *		and which folders the portal's group has been shared.
 *
 * A portal user is no member of a workspace: while it acts in a portal it acts
 * in no workspace, and sees what is shared with the portal's group, which is
 * all its users.  A share of a folder counts for the folders below it.
 *
 * As in acl_cache.c, what decides access is that of the latest commit, read
 * with a catalog snapshot and remembered until acl_signal is invalidated.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "partner_portal.h"

/* The folders shared with the group of the portal asked for last. */
typedef struct SharedFolders
{
	uint64		generation;		/* 0 is never valid */
	int64		portal_id;
	int			n;
	Datum	   *ids;
	MemoryContext context;
} SharedFolders;

static SharedFolders readable;
static SharedFolders editable;

PG_FUNCTION_INFO_V1(partner_portal_current_portal_id);
PG_FUNCTION_INFO_V1(partner_portal_portal_folders);
PG_FUNCTION_INFO_V1(partner_portal_attribute);

/*
 * pp_portal_user returns as what an account may act in a portal, or NULL.  The
 * portals of a deleted partner are closed.
 */
const PpPortalUser *
pp_portal_user(const PpAccess *access, int64 portal_id)
{
	for (int i = 0; access != NULL && i < access->n_portals; i++)
	{
		PpWorkspace workspace;

		if (access->portals[i].portal_id != portal_id)
			continue;
		if (!pp_workspace(access->portals[i].workspace_id, &workspace) || workspace.deleted)
			return NULL;
		return &access->portals[i];
	}
	return NULL;
}

/*
 * acting_user returns as what the identity acts in a portal, or NULL.
 */
static const PpPortalUser *
acting_user(void)
{
	const PpIdentity *identity;
	const PpAccess *access = pp_current_access(&identity);

	if (access == NULL || identity->portal_id == 0)
		return NULL;
	return pp_portal_user(access, identity->portal_id);
}

/*
 * current_portal_id returns the portal one acts in.
 */
Datum
partner_portal_current_portal_id(PG_FUNCTION_ARGS)
{
	const PpPortalUser *user = acting_user();

	if (user == NULL)
		PG_RETURN_NULL();
	PG_RETURN_INT64(user->portal_id);
}

/*
 * add_folder puts a folder into the list once, at its end.
 */
static void
add_folder(SharedFolders *folders, int *room, HTAB *seen, int64 folder_id)
{
	bool		found;

	(void) hash_search(seen, &folder_id, HASH_ENTER, &found);
	if (found)
		return;
	if (folders->n == *room)
	{
		*room *= 2;
		folders->ids = repalloc_huge(folders->ids, *room * sizeof(Datum));
	}
	folders->ids[folders->n++] = Int64GetDatum(folder_id);
}

/*
 * collect reads the folders shared with a group, those below them included.
 */
static void
collect(Oid schema, int64 group_id, bool to_edit, SharedFolders *folders)
{
	Relation	share = table_open(get_relname_relid("folder_share", schema), AccessShareLock);
	Relation	folder = table_open(get_relname_relid("folder", schema), AccessShareLock);
	HASHCTL		control = {0};
	HTAB	   *seen;
	SysScanDesc scan;
	HeapTuple	row;
	bool		isnull;
	int			room = 16;

	control.keysize = sizeof(int64);
	control.entrysize = sizeof(int64);
	control.hcxt = CurrentMemoryContext;
	seen = hash_create("partner_portal folders", 64, &control,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	folders->ids = palloc(room * sizeof(Datum));
	scan = pp_scan_by_id(share, "folder_share_group_id", "group_id", group_id);
	while (HeapTupleIsValid(row = systable_getnext(scan)))
		if (!to_edit || DatumGetBool(pp_row_column(row, share, "may_edit", &isnull)))
			add_folder(folders, &room, seen, pp_row_id(row, share, "folder_id"));
	systable_endscan(scan);
	/* the list grows while it is walked */
	for (int i = 0; i < folders->n; i++)
	{
		scan = pp_scan_by_id(folder, "folder_parent_id", "parent_id", DatumGetInt64(folders->ids[i]));
		while (HeapTupleIsValid(row = systable_getnext(scan)))
			add_folder(folders, &room, seen, pp_row_id(row, folder, "folder_id"));
		systable_endscan(scan);
	}
	hash_destroy(seen);
	table_close(folder, AccessShareLock);
	table_close(share, AccessShareLock);
}

/*
 * shares_print sums up in a number which folders the users of a portal may read
 * and edit.
 */
static uint64
shares_print(Oid schema, int64 portal_id)
{
	uint64		print = 0;

	if (!OidIsValid(get_relname_relid("folder_share", schema)))
		return print;
	for (int to_edit = 0; to_edit <= 1; to_edit++)
	{
		SharedFolders folders = {0};

		collect(schema, portal_id, to_edit, &folders);
		/* in whatever order they were found */
		for (int i = 0; i < folders.n; i++)
			print += hash_bytes_extended((const unsigned char *) &folders.ids[i],
										 sizeof(Datum), to_edit);
		pfree(folders.ids);
	}
	return print;
}

/*
 * pp_read_portal_users reads the portals that an account is a user of into the
 * current memory context.
 */
void
pp_read_portal_users(Oid schema, PpAccess *access)
{
	Relation	relation = pp_open_ours(schema, "portal_account");
	SysScanDesc scan;
	HeapTuple	row;
	int			room = 2;

	if (relation == NULL)
		return;
	access->portals = palloc(room * sizeof(PpPortalUser));
	scan = pp_scan_by_id(relation, "portal_account_account_id", "account_id", access->account_id);
	while (HeapTupleIsValid(row = systable_getnext(scan)))
	{
		PpPortalUser *user;
		bool		isnull;

		if (access->n_portals == room)
		{
			room *= 2;
			access->portals = repalloc(access->portals, room * sizeof(PpPortalUser));
		}
		user = &access->portals[access->n_portals++];
		user->workspace_id = pp_row_id(row, relation, "workspace_id");
		user->portal_id = pp_row_id(row, relation, "portal_id");
		user->edits = pp_row_text_is(row, relation, "role", "editor");
		user->attributes = DatumGetJsonbPCopy(pp_row_column(row, relation, "attributes", &isnull));
		user->shares = shares_print(schema, user->portal_id);
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
}

/*
 * shared_folders returns the folders shared with the group of a portal, for
 * reading or to edit, as of the latest commit.
 */
static const SharedFolders *
shared_folders(int64 portal_id, bool to_edit)
{
	SharedFolders *kept = to_edit ? &editable : &readable;
	SharedFolders folders = {0};
	MemoryContext caller;
	Oid			schema;

	if (kept->generation == pp_acl_generation() && kept->portal_id == portal_id)
		return kept;
	schema = get_namespace_oid(PP_SCHEMA, true);
	if (!OidIsValid(schema) || !OidIsValid(get_relname_relid("folder", schema)))
		return NULL;
	kept->generation = 0;
	folders.generation = pp_acl_generation();
	folders.portal_id = portal_id;
	folders.context = AllocSetContextCreate(CurrentMemoryContext,
											"partner_portal folders", ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(folders.context);
	collect(schema, portal_id, to_edit, &folders);
	MemoryContextSwitchTo(caller);
	MemoryContextSetParent(folders.context, CacheMemoryContext);
	if (kept->context != NULL)
		MemoryContextDelete(kept->context);

	/*
	 * what changed meanwhile serves this one call, and is read again at the
	 * next
	 */
	*kept = folders;
	return kept;
}

/*
 * portal_folders returns the folders that the acting portal shares with its
 * users, with 'read' or 'edit'; to edit takes an editor.  For policies.
 */
Datum
partner_portal_portal_folders(PG_FUNCTION_ARGS)
{
	text	   *what = PG_GETARG_TEXT_PP(0);
	bool		to_edit = VARSIZE_ANY_EXHDR(what) == 4 && memcmp(VARDATA_ANY(what), "edit", 4) == 0;
	bool		to_read = VARSIZE_ANY_EXHDR(what) == 4 && memcmp(VARDATA_ANY(what), "read", 4) == 0;
	const PpPortalUser *user = acting_user();
	const SharedFolders *folders;

	if (user == NULL || !(to_read || (to_edit && user->edits)))
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(INT8OID));
	/* group_id is portal_id: a group is the users of a portal */
	folders = shared_folders(user->portal_id, to_edit);
	if (folders == NULL)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(INT8OID));
	PG_RETURN_ARRAYTYPE_P(construct_array(folders->ids, folders->n, INT8OID, sizeof(int64),
										  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/*
 * scalar_text returns a scalar of an attribute as text, or NULL.
 */
static text *
scalar_text(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return cstring_to_text_with_len(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return cstring_to_text(DatumGetCString(DirectFunctionCall1(numeric_out,
																	   NumericGetDatum(value->val.numeric))));
		case jbvBool:
			return cstring_to_text(value->val.boolean ? "true" : "false");
		default:
			return NULL;
	}
}

/*
 * attribute returns the values of an attribute of the identity in the acting
 * portal; NULL if it has none.
 */
Datum
partner_portal_attribute(PG_FUNCTION_ARGS)
{
	text	   *name = PG_GETARG_TEXT_PP(0);
	const PpPortalUser *user = acting_user();
	Jsonb	   *attributes = user == NULL ? NULL : unconstify(void *, user->attributes);
	ArrayBuildState *values = NULL;
	JsonbValue	found;

	if (user == NULL || !JB_ROOT_IS_OBJECT(attributes) ||
		getKeyJsonValueFromContainer(&attributes->root, VARDATA_ANY(name),
									 VARSIZE_ANY_EXHDR(name), &found) == NULL)
		PG_RETURN_NULL();
	if (found.type == jbvBinary)
	{
		JsonbIterator *iterator = JsonbIteratorInit(found.val.binary.data);
		JsonbValue	element;
		JsonbIteratorToken token;

		while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
		{
			text	   *value = token == WJB_ELEM ? scalar_text(&element) : NULL;

			if (value != NULL)
				values = accumArrayResult(values, PointerGetDatum(value), false,
										  TEXTOID, CurrentMemoryContext);
		}
	}
	else
	{
		text	   *value = scalar_text(&found);

		if (value != NULL)
			values = accumArrayResult(values, PointerGetDatum(value), false,
									  TEXTOID, CurrentMemoryContext);
	}
	if (values == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(makeArrayResult(values, CurrentMemoryContext));
}
