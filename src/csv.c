/*-------------------------------------------------------------------------
 *
 * csv.c
 *		Reading CSV: the records of a text, by PostgreSQL's own COPY parser.
 *
 * What is fed to the parser is the text with two differences, neither of which
 * it could cope with.  Every line end outside quotes, be it CR LF, LF or CR, is
 * LF, so that a file may mix them; and a line that is nothing but \. is quoted,
 * since COPY would take it for the end of the file.  A byte order mark at the
 * beginning is left out.
 *
 * A record is what COPY calls a line; within quotes it may go over several.
 * Records are counted by the lines of the text, whatever ends these.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/copy.h"
#include "commands/defrem.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

#include "partner_portal.h"

/* A place in the text, and the line it is on. */
typedef struct CsvPlace
{
	const char *at;
	int			line;
} CsvPlace;

/* What the parser's callback reads from; it takes no argument. */
typedef struct Feed
{
	const char *at;
	const char *end;
	bool		in_quotes;
	bool		line_begins;
	char		pending[8];		/* to be handed over before what is at "at" */
	int			n_pending;
} Feed;

static Feed feed;

PG_FUNCTION_INFO_V1(partner_portal_csv_lines);

/*
 * skip_line_end returns what comes after the line end at a place.
 */
static const char *
skip_line_end(const char *at, const char *end)
{
	if (*at == '\r' && at + 1 < end && at[1] == '\n')
		return at + 2;
	return at + 1;
}

/*
 * next_record moves a place to the beginning of the next record, and tells
 * whether the record it was on is whole: false if a quote is left open.
 */
static bool
next_record(CsvPlace *place, const char *end)
{
	bool		in_quotes = false;

	while (place->at < end)
	{
		char		c = *place->at;

		if (c == '\n' || c == '\r')
		{
			place->at = skip_line_end(place->at, end);
			place->line++;
			if (!in_quotes)
				return true;
			continue;
		}
		if (c == '"')
			in_quotes = !in_quotes;
		place->at++;
	}
	return !in_quotes;
}

/*
 * feed_parser is the data source of COPY: it hands over the next bytes, at most
 * most, and none at the end.
 */
static int
feed_parser(void *buffer, int least, int most)
{
	char	   *out = buffer;
	int			n = 0;

	while (n < most)
	{
		char		c;

		if (feed.n_pending > 0)
		{
			out[n++] = feed.pending[0];
			memmove(feed.pending, feed.pending + 1, --feed.n_pending);
			continue;
		}
		if (feed.at >= feed.end)
			break;
		c = *feed.at;
		if (!feed.in_quotes && (c == '\r' || c == '\n'))
		{
			feed.at = skip_line_end(feed.at, feed.end);
			feed.line_begins = true;
			out[n++] = '\n';
			continue;
		}
		if (feed.line_begins && c == '\\' && feed.at + 1 < feed.end && feed.at[1] == '.' &&
			(feed.at + 2 == feed.end || feed.at[2] == '\r' || feed.at[2] == '\n'))
		{
			memcpy(feed.pending, "\"\\.\"", 4);
			feed.n_pending = 4;
			feed.at += 2;
			feed.line_begins = false;
			continue;
		}
		feed.line_begins = false;
		if (c == '"')
			feed.in_quotes = !feed.in_quotes;
		out[n++] = c;
		feed.at++;
	}
	return n;
}

/*
 * begin_parser starts the COPY parser on the text between two places.  The
 * relation only lends its shape, of which no use is made.
 */
static CopyFromState
begin_parser(Relation shape, const char *begin, const char *end)
{
	List	   *options;

	options = list_make2(makeDefElem("format", (Node *) makeString(pstrdup("csv")), -1),
						 makeDefElem("encoding",
									 (Node *) makeString(pstrdup(GetDatabaseEncodingName())), -1));
	memset(&feed, 0, sizeof(feed));
	feed.at = begin;
	feed.end = end;
	feed.line_begins = true;
	return BeginCopyFrom(NULL, shape, NULL, NULL, false, feed_parser, NIL, options);
}

/*
 * put_record adds a row (line, fields, problem) to the result.
 */
static void
put_record(ReturnSetInfo *result, int line, char **fields, int nfields, const char *problem)
{
	Datum		values[3] = {0};
	bool		nulls[3] = {false, true, true};

	values[0] = Int32GetDatum(line);
	if (problem != NULL)
	{
		values[2] = CStringGetTextDatum(problem);
		nulls[2] = false;
	}
	else
	{
		Datum	   *cells = palloc(nfields * sizeof(Datum));
		bool	   *empty = palloc(nfields * sizeof(bool));
		int			lower = 1;

		for (int i = 0; i < nfields; i++)
		{
			empty[i] = fields[i] == NULL;
			cells[i] = empty[i] ? (Datum) 0 : CStringGetTextDatum(fields[i]);
		}
		values[1] = PointerGetDatum(construct_md_array(cells, empty, 1, &nfields, &lower,
													   TEXTOID, -1, false, TYPALIGN_INT));
		nulls[1] = false;
	}
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * csv_lines(csv, max_records) returns the records of a CSV text.  Memory is
 * that of the longest record; the result goes to disk beyond work_mem.
 */
Datum
partner_portal_csv_lines(PG_FUNCTION_ARGS)
{
	text	   *csv = pp_text_argument(fcinfo, 0);
	int64		max_records = PG_ARGISNULL(1) ? PG_INT64_MAX : PG_GETARG_INT32(1);
	const char *begin = VARDATA_ANY(csv);
	const char *end = begin + VARSIZE_ANY_EXHDR(csv);
	const char *whole;
	CsvPlace	place;
	CsvPlace	last;
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext record_context;
	Oid			schema = get_namespace_oid(PP_SCHEMA, false);
	Relation	shape;
	CopyFromState parser;
	char	  **fields;
	int			nfields;

	InitMaterializedSRF(fcinfo, 0);

	/*
	 * in SQL_ASCII bytes are what the client sent; elsewhere there is no such
	 * character
	 */
	if ((GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII) &&
		end - begin >= 3 && memcmp(begin, "\xEF\xBB\xBF", 3) == 0)
		begin += 3;

	/*
	 * a quote that is never closed swallows the rest: that record is a bad
	 * one
	 */
	place.at = begin;
	place.line = 1;
	last = place;
	whole = end;
	while (place.at < end)
	{
		last = place;
		if (!next_record(&place, end))
			whole = last.at;
		CHECK_FOR_INTERRUPTS();
	}

	record_context = AllocSetContextCreate(CurrentMemoryContext, "partner_portal csv record",
										   ALLOCSET_DEFAULT_SIZES);
	shape = table_open(get_relname_relid("portal_attribute", schema), AccessShareLock);
	parser = begin_parser(shape, begin, whole);
	place.at = begin;
	place.line = 1;
	while (max_records > 0 && NextCopyFromRawFields(parser, &fields, &nfields))
	{
		int			line = place.line;
		MemoryContext caller;

		(void) next_record(&place, whole);
		if (nfields == 1 && fields[0] == NULL)
			continue;			/* an empty line */
		MemoryContextReset(record_context);
		caller = MemoryContextSwitchTo(record_context);
		put_record(result, line, fields, nfields, NULL);
		MemoryContextSwitchTo(caller);
		max_records--;
		CHECK_FOR_INTERRUPTS();
	}
	EndCopyFrom(parser);
	table_close(shape, AccessShareLock);
	if (whole < end && max_records > 0)
		put_record(result, last.line, NULL, 0, "a quoted value is not closed");
	PG_RETURN_NULL();
}
