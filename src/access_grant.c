/*-------------------------------------------------------------------------
 *
 * access_grant.c
 *		What customers let partners do, and which products they let them near.
 *
 * A grant is complete, or limited to products and categories.  Grants are read
 * into what is remembered of an account that runs the partner (acl_cache.c);
 * products are remembered here.  Both are as of the latest commit, so that an
 * end holds from the next statement on, in a transaction with an old snapshot
 * too.  An expiry bounds what is remembered.
 *
 * A write that rests on a grant locks it FOR SHARE: a grant cannot end between
 * the look and the write, and a snapshot from before its end gets 40001.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "partner_portal.h"
#include "security_key.h"

#define KEPT_PRODUCTS	16384	/* then all are forgotten */

/* One remembered product. */
typedef struct ProductEntry
{
	int64		product_id;		/* hash key */
	uint64		generation;
	PpProduct	product;
} ProductEntry;

static HTAB *products = NULL;

PG_FUNCTION_INFO_V1(partner_portal_hold_grant);

/*
 * compare_grants orders grants by partner and workspace.
 */
static int
compare_grants(const void *left, const void *right)
{
	const PpGrant *a = left;
	const PpGrant *b = right;

	if (a->partner_id != b->partner_id)
		return a->partner_id < b->partner_id ? -1 : 1;
	if (a->workspace_id != b->workspace_id)
		return a->workspace_id < b->workspace_id ? -1 : 1;
	return 0;
}

/*
 * array_column reads an array without NULLs from a row.
 */
static int
array_column(HeapTuple row, Relation relation, const char *name, Oid type, Datum **elements)
{
	bool		isnull;
	Datum		value = pp_row_column(row, relation, name, &isnull);
	int			n = 0;

	*elements = NULL;
	if (isnull)
		return 0;
	if (type == INT8OID)
		deconstruct_array(DatumGetArrayTypeP(value), INT8OID, sizeof(int64),
						  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, elements, NULL, &n);
	else
		deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT,
						  elements, NULL, &n);
	return n;
}

/*
 * read_grant reads a row into the current memory context.
 */
static void
read_grant(HeapTuple row, Relation relation, PpGrant *grant)
{
	Datum	   *elements;
	int			n;

	memset(grant, 0, sizeof(PpGrant));
	grant->partner_id = pp_row_id(row, relation, "partner_id");
	grant->workspace_id = pp_row_id(row, relation, "workspace_id");
	grant->grant_id = pp_row_id(row, relation, "grant_id");
	grant->complete = pp_row_text_is(row, relation, "scope", "complete");

	n = array_column(row, relation, "rights", TEXTOID, &elements);
	for (int i = 0; i < n; i++)
		if (pp_text_is(elements[i], "manage"))
			grant->manage = true;

	n = array_column(row, relation, "products", INT8OID, &elements);
	grant->products = palloc(Max(n, 1) * sizeof(int64));
	for (int i = 0; i < n; i++)
		grant->products[grant->n_products++] = DatumGetInt64(elements[i]);

	n = array_column(row, relation, "categories", TEXTOID, &elements);
	grant->categories = palloc(Max(n, 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
		grant->categories[grant->n_categories++] = TextDatumGetCString(elements[i]);
}

/*
 * pp_read_grants reads the grants to the partners that an account runs, in the
 * order of compare_grants, into the current memory context.
 */
void
pp_read_grants(Oid schema, PpAccess *access)
{
	Relation	relation = pp_open_ours(schema, "access_grant");
	int			room = 4;

	if (relation == NULL)
		return;
	access->grants = palloc(room * sizeof(PpGrant));
	for (int i = 0; i < access->n_memberships; i++)
	{
		const PpMembership *membership = &access->memberships[i];
		SysScanDesc scan;
		HeapTuple	row;

		if (!pp_runs_partner(membership))
			continue;
		scan = pp_scan_by_id(relation, "access_grant_active_partner", "partner_id",
							 membership->workspace.workspace_id);
		while (HeapTupleIsValid(row = systable_getnext(scan)))
		{
			bool		endless;
			TimestampTz expires_at;

			if (!pp_row_text_is(row, relation, "state", "active"))
				continue;
			expires_at = DatumGetTimestampTz(pp_row_column(row, relation, "expires_at", &endless));
			if (!endless)
			{
				if (expires_at <= GetCurrentStatementStartTimestamp())
					continue;
				access->stale_at = Min(access->stale_at, expires_at);
			}
			if (access->n_grants == room)
			{
				room *= 2;
				access->grants = repalloc(access->grants, room * sizeof(PpGrant));
			}
			read_grant(row, relation, &access->grants[access->n_grants++]);
		}
		systable_endscan(scan);
	}
	table_close(relation, AccessShareLock);
	qsort(access->grants, access->n_grants, sizeof(PpGrant), compare_grants);
}

/*
 * pp_first_grant returns the position of the first grant that is not before the
 * given partner and workspace.
 */
int
pp_first_grant(const PpAccess *access, int64 partner_id, int64 workspace_id)
{
	PpGrant		wanted = {.partner_id = partner_id,.workspace_id = workspace_id};
	int			low = 0;
	int			high = access->n_grants;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (compare_grants(&access->grants[middle], &wanted) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * pp_grant_of returns what a workspace granted a partner that the account runs,
 * or NULL.
 */
const PpGrant *
pp_grant_of(const PpAccess *access, int64 partner_id, int64 workspace_id)
{
	int			i = pp_first_grant(access, partner_id, workspace_id);

	if (i < access->n_grants && access->grants[i].partner_id == partner_id &&
		access->grants[i].workspace_id == workspace_id)
		return &access->grants[i];
	return NULL;
}

/*
 * pp_grant_standing returns how a partner stands to a workspace by a grant;
 * NULL is none.
 */
PpStanding
pp_grant_standing(const PpGrant *grant)
{
	if (grant == NULL)
		return 0;
	if (!grant->complete)
		return PP_GRANT_LIMITED;
	return PP_GRANT_READ | (grant->manage ? PP_GRANT_MANAGE : 0);
}

/*
 * read_product reads a product as of the latest commit.
 */
static bool
read_product(int64 product_id, PpProduct *product)
{
	Relation	relation;
	SysScanDesc scan;
	HeapTuple	row;
	Oid			schema;
	bool		found;

	memset(product, 0, sizeof(PpProduct));
	if (!pp_acl_schema(&schema) || (relation = pp_open_ours(schema, "product")) == NULL)
		return false;
	scan = pp_scan_by_id(relation, "product_product_id", "product_id", product_id);
	row = systable_getnext(scan);
	found = HeapTupleIsValid(row);
	if (found)
	{
		bool		isnull;
		Datum		category = pp_row_column(row, relation, "category", &isnull);

		product->product_id = product_id;
		product->workspace_id = pp_row_id(row, relation, "workspace_id");
		text_to_cstring_buffer(DatumGetTextPP(category), product->category, sizeof(product->category));
		product->partner_access = DatumGetBool(pp_row_column(row, relation, "partner_access", &isnull));
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return found;
}

/*
 * pp_product looks a product up as of the latest commit and returns whether
 * there is one.
 */
bool
pp_product(int64 product_id, PpProduct *product)
{
	uint64		seen = pp_acl_generation();
	ProductEntry *entry;

	if (products != NULL)
	{
		entry = hash_search(products, &product_id, HASH_FIND, NULL);
		if (entry != NULL && entry->generation == seen)
		{
			*product = entry->product;
			return true;
		}
	}
	/* Finding the schema may begin another generation. */
	if (!read_product(product_id, product))
		return false;
	if (products != NULL && hash_get_num_entries(products) >= KEPT_PRODUCTS)
	{
		hash_destroy(products);
		products = NULL;
	}
	if (products == NULL)
	{
		HASHCTL		control;

		control.keysize = sizeof(int64);
		control.entrysize = sizeof(ProductEntry);
		control.hcxt = CacheMemoryContext;
		products = hash_create("partner_portal products", 256, &control,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(products, &product_id, HASH_ENTER, NULL);
	entry->generation = seen;
	entry->product = *product;
	return true;
}

/*
 * grant_covers tells whether a limited grant names a product or its category.
 */
static bool
grant_covers(const PpGrant *grant, const PpProduct *product)
{
	for (int i = 0; i < grant->n_products; i++)
		if (grant->products[i] == product->product_id)
			return true;
	for (int i = 0; i < grant->n_categories; i++)
		if (strcmp(grant->categories[i], product->category) == 0)
			return true;
	return false;
}

/*
 * pp_product_standing returns how one stands to a product.  The workspace's
 * own partner and its staff stand nowhere until the customer lets the partner
 * near that product; a limited grant is as good as a complete one for what it
 * covers.
 */
PpStanding
pp_product_standing(const PpAccess *access, const PpMembership *acting,
					const PpWorkspace *workspace, const PpProduct *product)
{
	PpStanding	standing = pp_standing_by(access, acting, workspace);

	if (!product->partner_access)
		standing &= ~(PP_PARTNER | PP_ACCOUNT_OWNER | PP_SYSTEM_ADMINISTRATOR);
	if (standing & PP_GRANT_LIMITED)
	{
		const PpGrant *grant = pp_grant_of(access, acting->workspace.workspace_id,
										   workspace->workspace_id);

		if (grant != NULL && grant_covers(grant, product))
			standing |= PP_GRANT_READ | (grant->manage ? PP_GRANT_MANAGE : 0);
	}
	return standing;
}

/*
 * lock_grant locks the grant of a workspace to a partner FOR SHARE; false if
 * the transaction's snapshot has none.
 */
static bool
lock_grant(int64 workspace_id, int64 partner_id)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[] = {Int64GetDatum(workspace_id), Int64GetDatum(partner_id)};
	PpOwner		self;
	bool		found;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	pp_become_owner(&self);
	pp_keep_plan(&plan,
				 "SELECT FROM partner_portal.access_grant"
				 " WHERE workspace_id = $1 AND partner_id = $2 AND state = 'active'"
				 " FOR SHARE", 2, types);
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not lock the access granted by workspace " INT64_FORMAT, workspace_id);
	found = SPI_processed > 0;
	pp_stop_being_owner(&self);
	SPI_finish();
	return found;
}

/*
 * pp_hold_grant is called before a row of a workspace is written.  If the
 * identity stands to it by a grant, it makes sure that the grant lasts to the
 * end of the transaction; it raises 42501, or 40001 with a snapshot from
 * another time, if it does not.  Whether the identity may write at all is for
 * others to say.
 */
void
pp_hold_grant(int64 workspace_id)
{
	static TransactionId held_by = InvalidTransactionId;
	static int64 held_workspace = 0;
	static int64 held_partner = 0;
	const PpAccess *access;
	const PpMembership *acting;
	PpWorkspace workspace;
	int64		partner_id;

	if (pp_identity() == NULL || pp_is_operator())
		return;
	acting = pp_current_acting(&access);
	if (acting == NULL || acting->workspace.workspace_id == workspace_id || access->n_grants == 0)
		return;
	partner_id = acting->workspace.workspace_id;
	if (!pp_workspace(workspace_id, &workspace) ||
		(pp_standing_by(access, acting, &workspace) &
		 (PP_GRANT_LIMITED | PP_GRANT_READ | PP_GRANT_MANAGE)) == 0)
		return;

	/* A lock goes with the subtransaction it was taken in. */
	if (held_by == GetCurrentTransactionId() &&
		held_workspace == workspace_id && held_partner == partner_id)
		return;
	if (!lock_grant(workspace_id, partner_id))
	{
		if (IsolationUsesXactSnapshot())
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access due to concurrent update"),
					 errdetail("The access that workspace %lld granted has changed.", (long long) workspace_id)));
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("access to workspace %lld has ended", (long long) workspace_id)));
	}
	held_by = GetCurrentTransactionId();
	held_workspace = workspace_id;
	held_partner = partner_id;
}

/*
 * hold_grant is the BEFORE ROW trigger of tables that are written by grants.
 */
Datum
partner_portal_hold_grant(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	row;
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("hold_grant() must be fired before INSERT, UPDATE or DELETE for each row")));
	row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple;
	if (!(TRIGGER_FIRED_BY_INSERT(trigger->tg_event) && pp_restoring()))
	{
		Datum		workspace_id = pp_row_column(trigger->tg_trigtuple, trigger->tg_relation, "workspace_id", &isnull);

		if (!isnull)
			pp_hold_grant(DatumGetInt64(workspace_id));
	}
	return PointerGetDatum(row);
}
