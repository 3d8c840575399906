/*-------------------------------------------------------------------------
 *
 * login.c
 *		Signing in: which account a token, a trusted server or a database
 *		role stands for, and where it acts.
 *
 * Nothing here writes, so that it works in a read-only transaction and on a
 * standby.  The tables are read with a fresh catalog snapshot, past row level
 * security: an account disabled or a token revoked a moment ago is refused in
 * REPEATABLE READ too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/skey.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_login);
PG_FUNCTION_INFO_V1(partner_portal_login_as);
PG_FUNCTION_INFO_V1(partner_portal_login_role);
PG_FUNCTION_INFO_V1(partner_portal_act_in);
PG_FUNCTION_INFO_V1(partner_portal_act_in_portal);
PG_FUNCTION_INFO_V1(partner_portal_logout);

/* What signing in asks of a row of account. */
typedef struct Account
{
	int64		account_id;
	bool		usable;			/* neither disabled nor erased */
	TimestampTz tokens_not_before;	/* DT_NOBEGIN if all are good */
} Account;

/*
 * column_value returns a column by its name; absent (NULL) is told by *isnull.
 */
static Datum
column_value(TupleTableSlot *slot, const char *name, bool *isnull)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;

	for (int i = 0; i < desc->natts; i++)
		if (strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) == 0)
			return slot_getattr(slot, i + 1, isnull);
	elog(ERROR, "column \"%s\" does not exist", name);
	return (Datum) 0;
}

/*
 * find_row looks a row up by an index of one of our tables, in the latest
 * committed state, and hands it to the reader.  False if there is none.
 */
static bool
find_row(const char *table, const char *index, ScanKey keys, int nkeys,
		 void (*reader) (TupleTableSlot *slot, void *result), void *result)
{
	Oid			schema = get_namespace_oid(PP_SCHEMA, false);
	Relation	heap_rel = table_open(get_relname_relid(table, schema), AccessShareLock);
	Relation	index_rel = index_open(get_relname_relid(index, schema), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetCatalogSnapshot(RelationGetRelid(heap_rel)));
	TupleTableSlot *slot = table_slot_create(heap_rel, NULL);
	IndexScanDesc scan = pp_index_beginscan(heap_rel, index_rel, snapshot, nkeys);
	bool		found;

	for (int i = 0; i < nkeys; i++)
		keys[i].sk_collation = index_rel->rd_indcollation[keys[i].sk_attno - 1];
	index_rescan(scan, keys, nkeys, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	if (found && reader != NULL)
		reader(slot, result);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	index_close(index_rel, AccessShareLock);
	table_close(heap_rel, AccessShareLock);
	return found;
}

/*
 * key_is makes one equality of an index lookup; find_row() adds the collation.
 */
static void
key_is(ScanKey key, AttrNumber column, RegProcedure equal, Datum value)
{
	ScanKeyEntryInitialize(key, 0, column, BTEqualStrategyNumber, InvalidOid,
						   InvalidOid, equal, value);
}

/*
 * read_account takes an Account from a row of account.
 */
static void
read_account(TupleTableSlot *slot, void *result)
{
	Account    *account = result;
	bool		isnull;
	bool		not_disabled;
	bool		not_erased;
	Datum		value;

	account->account_id = DatumGetInt64(column_value(slot, "account_id", &isnull));
	(void) column_value(slot, "disabled_at", &not_disabled);
	(void) column_value(slot, "erased_at", &not_erased);
	account->usable = not_disabled && not_erased;
	value = column_value(slot, "tokens_not_before", &isnull);
	account->tokens_not_before = isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
}

/*
 * account_by_id finds an account; false if there is none.
 */
static bool
account_by_id(int64 account_id, Account *account)
{
	ScanKeyData key;

	key_is(&key, 1, F_INT8EQ, Int64GetDatum(account_id));
	return find_row("account", "account_pkey", &key, 1, read_account, account);
}

/*
 * read_account_id takes the account that a row points to.
 */
static void
read_account_id(TupleTableSlot *slot, void *result)
{
	bool		isnull;

	*(int64 *) result = DatumGetInt64(column_value(slot, "account_id", &isnull));
}

/*
 * read_until takes the end of a revocation.
 */
static void
read_until(TupleTableSlot *slot, void *result)
{
	bool		isnull;

	*(TimestampTz *) result = DatumGetTimestampTz(column_value(slot, "until", &isnull));
}

/*
 * is_member tells whether one may act in a workspace by an account's membership.
 */
static bool
is_member(int64 account_id, int64 workspace_id)
{
	const PpAccess *access = pp_access_of(account_id);

	for (int i = 0; access != NULL && i < access->n_memberships; i++)
	{
		const PpMembership *membership = &access->memberships[i];

		if (membership->workspace.workspace_id == workspace_id)
			return pp_membership_counts(membership);
	}
	return false;
}

/*
 * sign_in makes an account the identity, until expires_at.
 */
static int64
sign_in(int64 account_id, int64 workspace_id, int64 portal_id, TimestampTz expires_at)
{
	PpIdentity	identity = {0};

	identity.account_id = account_id;
	identity.workspace_id = workspace_id;
	identity.portal_id = portal_id;
	identity.expires_at = expires_at;
	pp_identity_set(&identity);
	return account_id;
}

/*
 * is_revoked tells whether a token has been revoked by its "jti".
 */
static bool
is_revoked(const char *token_id)
{
	ScanKeyData key;
	TimestampTz until;

	if (token_id == NULL)
		return false;
	key_is(&key, 1, F_TEXTEQ, CStringGetTextDatum(token_id));
	return find_row("revoked_token", "revoked_token_pkey", &key, 1, read_until, &until) &&
		until > GetCurrentStatementStartTimestamp();
}

/*
 * linked_account finds the account that an issuer's subject is linked to.
 */
static bool
linked_account(const PpClaims *claims, int64 *account_id)
{
	ScanKeyData keys[2];

	if (claims->issuer == NULL || claims->subject == NULL)
		return false;
	key_is(&keys[0], 1, F_TEXTEQ, CStringGetTextDatum(claims->issuer));
	key_is(&keys[1], 2, F_TEXTEQ, CStringGetTextDatum(claims->subject));
	return find_row("account_identity", "account_identity_pkey", keys, 2,
					read_account_id, account_id);
}

/*
 * account_of_claims finds whom a verified token stands for: the linked account,
 * else what partner_portal.subject_claim says.
 */
static bool
account_of_claims(const PpClaims *claims, Account *account)
{
	ScanKeyData key;
	int64		account_id;

	if (linked_account(claims, &account_id))
		return account_by_id(account_id, account);
	if (pp_subject_claim == PP_SUBJECT_EMAIL)
	{
		char	   *email;

		if (claims->email == NULL || !claims->email_verified)
			return false;
		email = asc_tolower(claims->email, strlen(claims->email));
		key_is(&key, 1, F_TEXTEQ, CStringGetTextDatum(email));
		return find_row("account", "account_email_key", &key, 1, read_account, account);
	}
	return claims->subject != NULL && pp_parse_id(claims->subject, &account_id) &&
		account_by_id(account_id, account);
}

/*
 * sign_in_by_token verifies a token and makes its account the identity; false
 * if it is not valid.
 */
static bool
sign_in_by_token(const char *token, size_t length, int64 *account_id)
{
	PpClaims	claims;
	Account		account;

	if (!pp_token_verify(token, length, &claims) ||
		is_revoked(claims.token_id) ||
		!account_of_claims(&claims, &account) || !account.usable)
		return false;
	if (account.tokens_not_before != DT_NOBEGIN &&
		(!claims.has_issued_at || claims.issued_at < account.tokens_not_before))
		return false;
	if (claims.workspace_id != 0 && !is_member(account.account_id, claims.workspace_id))
		return false;
	/* one acts in one place */
	if (claims.portal_id != 0 &&
		(claims.workspace_id != 0 ||
		 pp_portal_user(pp_access_of(account.account_id), claims.portal_id) == NULL))
		return false;
	*account_id = sign_in(account.account_id, claims.workspace_id, claims.portal_id,
						  claims.expires_at);
	return true;
}

/*
 * login(token) signs in the account of a JSON Web Token.  There is one answer
 * to every bad token.  Neither the log nor a context line is to quote it.
 */
Datum
partner_portal_login(PG_FUNCTION_ARGS)
{
	ErrorContextCallback *callbacks = error_context_stack;
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "partner_portal token",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(work);
	bool		done = false;
	int64		account_id = 0;

	error_context_stack = NULL;
	if (!PG_ARGISNULL(0))
	{
		text	   *token = PG_GETARG_TEXT_PP(0);

		done = sign_in_by_token(VARDATA_ANY(token), VARSIZE_ANY_EXHDR(token), &account_id);
	}
	if (!done)
	{
		pp_refused(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, "login", 0, NULL);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("invalid token"),
				 errhidestmt(true), errhidecontext(true)));
	}
	error_context_stack = callbacks;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(work);
	PG_RETURN_INT64(account_id);
}

/*
 * login_as(account_id) signs an account in on the word of a trusted server.
 */
Datum
partner_portal_login_as(PG_FUNCTION_ARGS)
{
	Account		account;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("account_id must not be null")));
	if (!account_by_id(PG_GETARG_INT64(0), &account))
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("account %lld does not exist", (long long) PG_GETARG_INT64(0))));
	if (!account.usable)
	{
		pp_refused(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, "login_as", 0,
				   psprintf(", \"asked\": %lld", (long long) account.account_id));
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("account %lld is disabled", (long long) account.account_id)));
	}
	PG_RETURN_INT64(sign_in(account.account_id, 0, 0, DT_NOEND));
}

/*
 * login_role() signs in the account that the session's role is mapped to.
 */
Datum
partner_portal_login_role(PG_FUNCTION_ARGS)
{
	char	   *role = GetUserNameFromId(GetSessionUserId(), false);
	NameData	role_name;
	ScanKeyData key;
	int64		account_id;
	Account		account;

	namestrcpy(&role_name, role);
	key_is(&key, 1, F_NAMEEQ, NameGetDatum(&role_name));
	if (!find_row("role_account", "role_account_pkey", &key, 1, read_account_id, &account_id))
	{
		pp_refused(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, "login_role", 0, NULL);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("role \"%s\" is not mapped to an account", role),
				 errhint("The operator maps it with partner_portal.map_role().")));
	}
	if (!account_by_id(account_id, &account) || !account.usable)
	{
		pp_refused(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, "login_role", 0,
				   psprintf(", \"asked\": %lld", (long long) account_id));
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the account of role \"%s\" is disabled", role)));
	}
	PG_RETURN_INT64(sign_in(account.account_id, 0, 0, DT_NOEND));
}

/*
 * place_to_act starts to change where the identity acts: a copy of it that acts
 * nowhere, and the place asked for.
 */
static int64
place_to_act(FunctionCallInfo fcinfo, const char *argument, PpIdentity *identity)
{
	const PpIdentity *current = pp_identity();

	if (current == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("nobody is signed in"),
				 errhint("Sign in with partner_portal.login().")));
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", argument)));
	*identity = *current;
	identity->workspace_id = 0;
	identity->portal_id = 0;
	return PG_GETARG_INT64(0);
}

/*
 * act_in(workspace_id) changes where the identity acts, among its own
 * memberships.
 */
Datum
partner_portal_act_in(PG_FUNCTION_ARGS)
{
	PpIdentity	identity;

	int64		workspace_id = place_to_act(fcinfo, "workspace_id", &identity);

	identity.workspace_id = workspace_id;
	if (!is_member(identity.account_id, identity.workspace_id))
	{
		pp_refused(ERRCODE_NO_DATA_FOUND, "act_in", workspace_id, NULL);
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("workspace %lld does not exist or is not one of yours",
						(long long) identity.workspace_id)));
	}
	pp_identity_set(&identity);
	PG_RETURN_VOID();
}

/*
 * act_in_portal(portal_id) changes where the identity acts, among the portals
 * it is a user of.
 */
Datum
partner_portal_act_in_portal(PG_FUNCTION_ARGS)
{
	PpIdentity	identity;
	int64		portal_id = place_to_act(fcinfo, "portal_id", &identity);

	if (portal_id == 0 ||
		pp_portal_user(pp_access_of(identity.account_id), portal_id) == NULL)
	{
		pp_refused(ERRCODE_NO_DATA_FOUND, "act_in_portal", 0,
				   psprintf(", \"asked\": %lld", (long long) portal_id));
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("portal %lld does not exist or is not one of yours",
						(long long) portal_id)));
	}
	identity.portal_id = portal_id;
	pp_identity_set(&identity);
	PG_RETURN_VOID();
}

/*
 * logout() ends the identity of the current transaction.
 */
Datum
partner_portal_logout(PG_FUNCTION_ARGS)
{
	pp_identity_set(NULL);
	PG_RETURN_VOID();
}
