/*-------------------------------------------------------------------------
 *
 * activity_chain.c
 *		The activity log as a chain of hashes, one per workspace.
 *
 * A line is a row of table activity, numbered 1, 2, 3 in its workspace; the
 * head is number, time and hash of the last one, kept in workspace_usage under
 * the lock of that row.  The hash of a line covers the hash before it and a
 * binary image of the line: lengths and integers most significant byte first,
 * times in microseconds, texts in UTF-8.  What may have to be erased one day,
 * the address of who acted and the text of the line, goes in as a salted digest:
 * once salt and content are gone the digest tells nothing and the chain still
 * holds.
 *
 * Rows are written through the table access method: privileges, policies and
 * the triggers that refuse every other writer do not apply.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "partner_portal.h"
#include "security_key.h"

PG_FUNCTION_INFO_V1(partner_portal_activity_digest);
PG_FUNCTION_INFO_V1(partner_portal_activity_problem);

#define SALT_LENGTH		16
#define IMAGE_NAME		"partner_portal activity 1"

enum
{
	ACTIVITY_WORKSPACE_ID = 1,
	ACTIVITY_ACTIVITY_ID,
	ACTIVITY_AT,
	ACTIVITY_ACCOUNT_ID,
	ACTIVITY_ACCOUNT_EMAIL,
	ACTIVITY_DATABASE_ROLE,
	ACTIVITY_SOURCE,
	ACTIVITY_ACTION,
	ACTIVITY_ABOUT_ACCOUNT_ID,
	ACTIVITY_DESCRIPTION,
	ACTIVITY_DETAILS,
	ACTIVITY_PARTNER_KEY,
	ACTIVITY_ACCOUNT_SALT,
	ACTIVITY_ACCOUNT_DIGEST,
	ACTIVITY_TEXT_SALT,
	ACTIVITY_TEXT_DIGEST,
	ACTIVITY_PREV_HASH,
	ACTIVITY_HASH,
	ACTIVITY_COLUMNS = ACTIVITY_HASH
};

static const char *const activity_columns[] = {
	"workspace_id", "activity_id", "at", "account_id", "account_email",
	"database_role", "source", "action", "about_account_id", "description",
	"details", "partner_key", "account_salt", "account_digest", "text_salt",
	"text_digest", "prev_hash", "hash"
};

/* Table activity, open for new lines by one actor. */
struct PpLog
{
	Relation	rel;
	PpRowWriter *writer;
	TupleTableSlot *slot;
	MemoryContext line;			/* of one line, reset after it */
	int64		account_id;		/* who acts; 0 is nobody signed in */
	Datum		account_email;	/* of the account; 0 if there is none */
	Datum		database_role;
};

/*
 * send_text adds a text to an image: absent, or its length and UTF-8 bytes.
 */
static void
send_text(StringInfo image, const char *data, int length)
{
	char	   *utf8;

	if (data == NULL)
	{
		pq_sendbyte(image, 0);
		return;
	}
	utf8 = pg_server_to_any(data, length, PG_UTF8);
	if (utf8 != data)
		length = strlen(utf8);
	pq_sendbyte(image, 1);
	pq_sendint32(image, length);
	appendBinaryStringInfo(image, utf8, length);
}

/*
 * send_datum is send_text of a text value.
 */
static void
send_datum(StringInfo image, Datum value, bool null)
{
	text	   *data = null ? NULL : DatumGetTextPP(value);

	send_text(image, data == NULL ? NULL : VARDATA_ANY(data), data == NULL ? 0 : VARSIZE_ANY_EXHDR(data));
}

/*
 * send_id adds a bigint that may be absent to an image.
 */
static void
send_id(StringInfo image, Datum value, bool null)
{
	pq_sendbyte(image, null ? 0 : 1);
	pq_sendint64(image, null ? 0 : DatumGetInt64(value));
}

/*
 * digest_parts leaves the salted digest of two texts, either of which may be
 * absent.
 */
static void
digest_parts(bytea *salt, Datum first, bool no_first, Datum second, bool no_second,
			 uint8 digest[PP_HASH_LENGTH])
{
	StringInfoData image;

	initStringInfo(&image);
	pq_sendint32(&image, VARSIZE_ANY_EXHDR(salt));
	appendBinaryStringInfo(&image, VARDATA_ANY(salt), VARSIZE_ANY_EXHDR(salt));
	send_datum(&image, first, no_first);
	send_datum(&image, second, no_second);
	pp_sha256(image.data, image.len, digest);
	pfree(image.data);
}

/*
 * details_text returns details as the text that is hashed.
 */
static Datum
details_text(Datum details)
{
	Jsonb	   *value = DatumGetJsonbP(details);

	return CStringGetTextDatum(JsonbToCString(NULL, &value->root, VARSIZE(value)));
}

/*
 * take_digest leaves the digest of a part, a column and a text that may be
 * absent (0): computed while its salt is there, else the one that was kept when
 * it was erased; zeros where there never was anything.
 */
static void
take_digest(Datum *values, bool *nulls, int salt, int kept, int first, Datum second,
			uint8 digest[PP_HASH_LENGTH])
{
	memset(digest, 0, PP_HASH_LENGTH);
	if (!nulls[salt - 1])
		digest_parts(DatumGetByteaPP(values[salt - 1]), values[first - 1], nulls[first - 1],
					 second, second == (Datum) 0, digest);
	else if (!nulls[kept - 1])
	{
		bytea	   *stored = DatumGetByteaPP(values[kept - 1]);

		memcpy(digest, VARDATA_ANY(stored), Min(VARSIZE_ANY_EXHDR(stored), PP_HASH_LENGTH));
	}
}

/*
 * hash_line leaves the hash of a line of table activity.  details is the text of
 * the details, 0 if there are none.
 */
static void
hash_line(Datum *values, bool *nulls, Datum details, uint8 hash[PP_HASH_LENGTH])
{
	StringInfoData image;
	bytea	   *prev = DatumGetByteaPP(values[ACTIVITY_PREV_HASH - 1]);
	uint8		digest[PP_HASH_LENGTH];

	initStringInfo(&image);
	appendBinaryStringInfo(&image, IMAGE_NAME, sizeof(IMAGE_NAME));
	pq_sendint32(&image, VARSIZE_ANY_EXHDR(prev));
	appendBinaryStringInfo(&image, VARDATA_ANY(prev), VARSIZE_ANY_EXHDR(prev));
	pq_sendint64(&image, DatumGetInt64(values[ACTIVITY_WORKSPACE_ID - 1]));
	pq_sendint64(&image, DatumGetInt64(values[ACTIVITY_ACTIVITY_ID - 1]));
	pq_sendint64(&image, DatumGetTimestampTz(values[ACTIVITY_AT - 1]));
	send_id(&image, values[ACTIVITY_ACCOUNT_ID - 1], nulls[ACTIVITY_ACCOUNT_ID - 1]);
	send_id(&image, values[ACTIVITY_ABOUT_ACCOUNT_ID - 1], nulls[ACTIVITY_ABOUT_ACCOUNT_ID - 1]);
	pq_sendint64(&image, DatumGetInt64(values[ACTIVITY_PARTNER_KEY - 1]));
	send_datum(&image, values[ACTIVITY_DATABASE_ROLE - 1], nulls[ACTIVITY_DATABASE_ROLE - 1]);
	send_datum(&image, values[ACTIVITY_SOURCE - 1], nulls[ACTIVITY_SOURCE - 1]);
	send_datum(&image, values[ACTIVITY_ACTION - 1], nulls[ACTIVITY_ACTION - 1]);
	take_digest(values, nulls, ACTIVITY_ACCOUNT_SALT, ACTIVITY_ACCOUNT_DIGEST, ACTIVITY_ACCOUNT_EMAIL, 0, digest);
	appendBinaryStringInfo(&image, (char *) digest, PP_HASH_LENGTH);
	take_digest(values, nulls, ACTIVITY_TEXT_SALT, ACTIVITY_TEXT_DIGEST, ACTIVITY_DESCRIPTION, details, digest);
	appendBinaryStringInfo(&image, (char *) digest, PP_HASH_LENGTH);
	pp_sha256(image.data, image.len, hash);
	pfree(image.data);
}

/*
 * bytes_datum returns some bytes as a bytea.
 */
static Datum
bytes_datum(const uint8 *data, int length)
{
	bytea	   *result = palloc(VARHDRSZ + length);

	SET_VARSIZE(result, VARHDRSZ + length);
	memcpy(VARDATA(result), data, length);
	return PointerGetDatum(result);
}

/*
 * new_salt returns random bytes.
 */
static Datum
new_salt(void)
{
	uint8		salt[SALT_LENGTH];

	pp_random_bytes(salt, SALT_LENGTH);
	return bytes_datum(salt, SALT_LENGTH);
}

/*
 * email_of returns the address of an account as of the latest commit, 0 if
 * there is none.
 */
static Datum
email_of(int64 account_id)
{
	Relation	account;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	row;
	Datum		email = (Datum) 0;

	account = table_open(pp_our_relation(PP_ACCOUNT), AccessShareLock);
	ScanKeyInit(&key, get_attnum(RelationGetRelid(account), "account_id"),
				BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(account_id));
	scan = systable_beginscan(account, pp_our_relation(PP_ACCOUNT_PKEY), true, NULL, 1, &key);
	row = systable_getnext(scan);
	if (HeapTupleIsValid(row))
	{
		bool		null;
		Datum		value = heap_getattr(row, get_attnum(RelationGetRelid(account), "email"),
										 RelationGetDescr(account), &null);

		if (!null)
			email = PointerGetDatum(DatumGetTextPCopy(value));
	}
	systable_endscan(scan);
	table_close(account, AccessShareLock);
	return email;
}

/*
 * check_activity raises an error unless table activity has the columns that we
 * know.
 */
static void
check_activity(Relation rel)
{
	static bool checked = false;

	if (checked)
		return;
	pp_check_columns(RelationGetDescr(rel), ACTIVITY_COLUMNS, activity_columns);
	checked = true;
}

/*
 * pp_log_begin opens the log for new lines by who is asking now.
 */
PpLog *
pp_log_begin(void)
{
	PpLog	   *log = palloc0(sizeof(PpLog));

	log->rel = table_open(pp_our_relation(PP_ACTIVITY), RowExclusiveLock);
	check_activity(log->rel);
	log->writer = pp_writer_open(log->rel);
	log->slot = MakeSingleTupleTableSlot(RelationGetDescr(log->rel), &TTSOpsVirtual);
	log->line = AllocSetContextCreate(CurrentMemoryContext, "line of the activity log", ALLOCSET_DEFAULT_SIZES);
	log->account_id = pp_account_id();
	if (log->account_id != 0)
		log->account_email = email_of(log->account_id);
	log->database_role = CStringGetTextDatum(GetUserNameFromId(GetOuterUserId(), false));
	return log;
}

/*
 * pp_log_end closes the log.
 */
void
pp_log_end(PpLog *log)
{
	MemoryContextDelete(log->line);
	ExecDropSingleTupleTableSlot(log->slot);
	pp_writer_close(log->writer);
	table_close(log->rel, NoLock);
	pfree(log);
}

/*
 * pp_log_append writes one line and moves the head, which the caller holds
 * locked and writes back.  Times never go backwards within a workspace.
 */
void
pp_log_append(PpLog *log, const PpLogLine *line, int64 partner_key, PpLogHead *head)
{
	MemoryContext old_context = MemoryContextSwitchTo(log->line);
	Datum	   *values = log->slot->tts_values;
	bool	   *nulls = log->slot->tts_isnull;
	TimestampTz at = Max(GetCurrentTimestamp(), head->at);
	Datum		details;

	ExecClearTuple(log->slot);
	memset(nulls, true, RelationGetDescr(log->rel)->natts * sizeof(bool));
	memset(nulls, false, ACTIVITY_COLUMNS * sizeof(bool));
	values[ACTIVITY_WORKSPACE_ID - 1] = Int64GetDatum(line->workspace_id);
	values[ACTIVITY_ACTIVITY_ID - 1] = Int64GetDatum(head->id + 1);
	values[ACTIVITY_AT - 1] = TimestampTzGetDatum(at);
	values[ACTIVITY_ACCOUNT_ID - 1] = Int64GetDatum(log->account_id);
	nulls[ACTIVITY_ACCOUNT_ID - 1] = log->account_id == 0;
	values[ACTIVITY_ACCOUNT_EMAIL - 1] = log->account_email;
	nulls[ACTIVITY_ACCOUNT_EMAIL - 1] = log->account_email == (Datum) 0;
	values[ACTIVITY_DATABASE_ROLE - 1] = log->database_role;
	values[ACTIVITY_SOURCE - 1] = CStringGetTextDatum(line->by_application ? "application" : "database");
	values[ACTIVITY_ACTION - 1] = CStringGetTextDatum(line->action);
	values[ACTIVITY_ABOUT_ACCOUNT_ID - 1] = Int64GetDatum(line->about);
	nulls[ACTIVITY_ABOUT_ACCOUNT_ID - 1] = line->about == 0;
	values[ACTIVITY_DESCRIPTION - 1] = CStringGetTextDatum(line->description);
	if (line->details_value != NULL)
	{
		values[ACTIVITY_DETAILS - 1] = PointerGetDatum(line->details_value);
		details = CStringGetTextDatum(line->details);
	}
	else
	{
		values[ACTIVITY_DETAILS - 1] = DirectFunctionCall1(jsonb_in,
														   CStringGetDatum(line->details == NULL ? "{}" : line->details));
		details = details_text(values[ACTIVITY_DETAILS - 1]);
	}
	values[ACTIVITY_PARTNER_KEY - 1] = Int64GetDatum(partner_key);
	nulls[ACTIVITY_ACCOUNT_SALT - 1] = log->account_email == (Datum) 0;
	if (log->account_email != (Datum) 0)
		values[ACTIVITY_ACCOUNT_SALT - 1] = new_salt();
	nulls[ACTIVITY_ACCOUNT_DIGEST - 1] = true;
	values[ACTIVITY_TEXT_SALT - 1] = new_salt();
	nulls[ACTIVITY_TEXT_DIGEST - 1] = true;
	values[ACTIVITY_PREV_HASH - 1] = bytes_datum(head->hash, PP_HASH_LENGTH);

	hash_line(values, nulls, details, head->hash);
	head->id++;
	head->at = at;
	values[ACTIVITY_HASH - 1] = bytes_datum(head->hash, PP_HASH_LENGTH);
	ExecStoreVirtualTuple(log->slot);
	/* Not by the executor, which takes longer to set up than a line. */
	table_tuple_insert(log->rel, log->slot, GetCurrentCommandId(true), 0, NULL);

	/*
	 * Two lines that followed the same one would have the same number, which
	 * the primary key refuses.
	 */
	pp_writer_entries(log->writer, log->slot, false);

	ExecClearTuple(log->slot);
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(log->line);
}

/*
 * activity_digest(salt, first, second) is what is kept of a part of a line
 * that is erased; NULL without a salt.
 */
Datum
partner_portal_activity_digest(PG_FUNCTION_ARGS)
{
	uint8		digest[PP_HASH_LENGTH];

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	digest_parts(PG_GETARG_BYTEA_PP(0), PG_ARGISNULL(1) ? (Datum) 0 : PG_GETARG_DATUM(1), PG_ARGISNULL(1),
				 PG_ARGISNULL(2) ? (Datum) 0 : PG_GETARG_DATUM(2), PG_ARGISNULL(2), digest);
	PG_RETURN_DATUM(bytes_datum(digest, PP_HASH_LENGTH));
}

/*
 * same_bytes tells whether a bytea holds exactly a hash.
 */
static bool
same_bytes(Datum value, const uint8 *hash)
{
	bytea	   *bytes = DatumGetByteaPP(value);

	return VARSIZE_ANY_EXHDR(bytes) == PP_HASH_LENGTH && memcmp(VARDATA_ANY(bytes), hash, PP_HASH_LENGTH) == 0;
}

/*
 * check_line tells what is wrong with a line that should be number id and
 * follow prev, NULL if nothing is; it leaves the line's hash in prev.
 */
static const char *
check_line(TupleTableSlot *slot, int64 id, uint8 prev[PP_HASH_LENGTH])
{
	uint8		hash[PP_HASH_LENGTH];

	slot_getallattrs(slot);
	if (DatumGetInt64(slot->tts_values[ACTIVITY_ACTIVITY_ID - 1]) != id)
		return "the line is missing";
	if (!same_bytes(slot->tts_values[ACTIVITY_PREV_HASH - 1], prev))
		return "the line does not follow the one before it";
	hash_line(slot->tts_values, slot->tts_isnull,
			  slot->tts_isnull[ACTIVITY_DETAILS - 1] ? (Datum) 0 : details_text(slot->tts_values[ACTIVITY_DETAILS - 1]), hash);
	if (!same_bytes(slot->tts_values[ACTIVITY_HASH - 1], hash))
		return "the line was changed";
	memcpy(prev, hash, PP_HASH_LENGTH);
	return NULL;
}

/*
 * check_chain reads the lines of a workspace in order, as the snapshot sees
 * them, after line *id whose hash is in hash; it leaves there the last good one
 * and returns what is wrong with the next, NULL if nothing is.
 */
static const char *
check_chain(int64 workspace_id, Snapshot snapshot, int64 *id, uint8 hash[PP_HASH_LENGTH])
{
	Relation	rel = table_open(pp_our_relation(PP_ACTIVITY), AccessShareLock);
	Relation	index = index_open(pp_our_relation(PP_ACTIVITY_PKEY), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	MemoryContext line = AllocSetContextCreate(CurrentMemoryContext, "line of the activity log", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context;
	IndexScanDesc scan;
	ScanKeyData key;
	const char *problem = NULL;

	check_activity(rel);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(workspace_id));
	scan = pp_index_beginscan(rel, index, snapshot, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (problem == NULL && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		old_context = MemoryContextSwitchTo(line);
		problem = check_line(slot, *id + 1, hash);
		MemoryContextSwitchTo(old_context);
		MemoryContextReset(line);
		if (problem == NULL)
			(*id)++;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(line);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return problem;
}

/*
 * read_hash reads a hash of the current row of SPI.
 */
static void
read_hash(int column, uint8 hash[PP_HASH_LENGTH])
{
	bool		null;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &null);
	bytea	   *bytes = DatumGetByteaPP(value);

	memset(hash, 0, PP_HASH_LENGTH);
	memcpy(hash, VARDATA_ANY(bytes), Min(VARSIZE_ANY_EXHDR(bytes), PP_HASH_LENGTH));
}

/*
 * read_ends reads where the chain of a workspace begins, after the line that was
 * forgotten last, and its head, as the active snapshot sees them; false is that
 * the workspace has no counters.
 */
static bool
read_ends(int64 workspace_id, int64 *start_id, uint8 start[PP_HASH_LENGTH],
		  int64 *head_id, uint8 head[PP_HASH_LENGTH])
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(workspace_id)};
	bool		found;
	bool		null;
	PpOwner		self;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	pp_become_owner(&self);
	pp_keep_plan(&plan,
				 "SELECT coalesce(s.activity_id, 0), coalesce(s.hash, ''), u.log_id, u.log_hash"
				 " FROM partner_portal.workspace_usage u"
				 " LEFT JOIN partner_portal.activity_start s ON s.workspace_id = u.workspace_id"
				 " WHERE u.workspace_id = $1", 1, types);
	/* read-only: with the active snapshot */
	if (SPI_execute_plan(plan, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the head of the log of workspace " INT64_FORMAT, workspace_id);
	found = SPI_processed == 1;
	if (found)
	{
		*start_id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
		read_hash(2, start);
		*head_id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, &null));
		read_hash(4, head);
	}
	pp_stop_being_owner(&self);
	SPI_finish();
	return found;
}

/*
 * find_problem tells what is wrong with the log of a workspace, and with which
 * line, NULL if nothing is.  Without a lock it reads one moment's state, the
 * latest: in REPEATABLE READ the transaction's own lines follow lines that its
 * snapshot does not see.
 */
static const char *
find_problem(int64 workspace_id, int64 *bad_id, bool *found)
{
	Snapshot	latest = GetLatestSnapshot();
	int64		head_id;
	int64		id;
	uint8		head[PP_HASH_LENGTH];
	uint8		hash[PP_HASH_LENGTH];
	const char *problem = NULL;

	PushActiveSnapshot(latest);
	*found = read_ends(workspace_id, &id, hash, &head_id, head);
	if (*found)
		problem = check_chain(workspace_id, GetActiveSnapshot(), &id, hash);
	PopActiveSnapshot();
	if (!*found)
		return NULL;
	*bad_id = id + 1;
	if (problem == NULL && id < head_id)
		problem = "the line is missing";
	else if (problem == NULL && id > head_id)
	{
		*bad_id = head_id + 1;
		problem = "the line lies beyond the head of the chain";
	}
	else if (problem == NULL && memcmp(hash, head, PP_HASH_LENGTH) != 0)
	{
		*bad_id = id;
		problem = "the line is not the head of the chain";
	}
	return problem;
}

/*
 * activity_problem(workspace_id) returns (ok, first_bad_id, reason).
 */
Datum
partner_portal_activity_problem(PG_FUNCTION_ARGS)
{
	int64		bad_id = 0;
	bool		found;
	const char *problem;
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3];

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	problem = find_problem(PG_GETARG_INT64(0), &bad_id, &found);
	values[0] = BoolGetDatum(problem == NULL);
	values[1] = Int64GetDatum(bad_id);
	values[2] = problem == NULL ? (Datum) 0 : CStringGetTextDatum(problem);
	nulls[0] = !found;
	nulls[1] = nulls[2] = problem == NULL;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
