/*-------------------------------------------------------------------------
 *
 * usage.c
 *		The measures of a billing period.
 *
 * The aggregate measure_stretches() takes the active stretches of one group of
 * keys (a workspace's of one kind, or all of them) and a period, and returns
 * every measure of the specification.  A stretch is the half-open time that a
 * key was active; it is cut to the period first, and counts for nothing if
 * nothing is left.  A local date is touched by a stretch if the zone's calendar
 * and clock show it at an instant of the stretch; so a date that a zone skipped
 * is never touched.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_measure_add);
PG_FUNCTION_INFO_V1(partner_portal_measure_final);
PG_FUNCTION_INFO_V1(partner_portal_local_dates);

#define UNIX_EPOCH_SECONDS \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

typedef struct Stretch
{
	int64		key_id;
	int64		account_id;		/* holder; 0 is none */
	TimestampTz start;
	TimestampTz end;
} Stretch;

/* A time of constant distance between local time and UTC. */
typedef struct ZoneOffset
{
	int64		until;			/* seconds since 1970, exclusive */
	int64		offset;			/* seconds east of UTC */
} ZoneOffset;

/* The local dates of a period, and when each was last marked. */
typedef struct Calendar
{
	ZoneOffset *offsets;
	int			count;
	int64		first_date;		/* days since 1970 */
	int64		dates;
	uint32	   *marked;
	uint32		mark;
} Calendar;

typedef struct Measure
{
	TimestampTz period_start;
	TimestampTz period_end;
	pg_tz	   *zone;
	Stretch    *stretches;
	int64		count;
	int64		allocated;
} Measure;

/* Most dates a period may have: a period is far shorter, a range need not be. */
#define MAX_DATES	500000

static inline int64
floor_div(int64 dividend, int64 divisor)
{
	int64		quotient = dividend / divisor;

	return dividend % divisor < 0 ? quotient - 1 : quotient;
}

static inline int64
unix_seconds(TimestampTz at)
{
	return floor_div(at, USECS_PER_SEC) + UNIX_EPOCH_SECONDS;
}

/*
 * make_calendar prepares the dates of a period in a zone.
 */
static Calendar
make_calendar(TimestampTz start, TimestampTz end, pg_tz *zone)
{
	Calendar	calendar = {0};
	int64		last_second = unix_seconds(end - 1);
	pg_time_t	at = unix_seconds(start);
	int			allocated = 4;
	int64		last_date = PG_INT64_MIN;

	calendar.offsets = palloc(allocated * sizeof(ZoneOffset));
	calendar.first_date = PG_INT64_MAX;
	for (;;)
	{
		long		before,
					after;
		int			before_dst,
					after_dst;
		pg_time_t	change;
		int			found = pg_next_dst_boundary(&at, &before, &before_dst,
												 &change, &after, &after_dst, zone);
		ZoneOffset *offset;
		int64		last;

		if (found < 0)
			elog(ERROR, "could not read the time zone's changes");
		if (calendar.count == allocated)
		{
			allocated *= 2;
			calendar.offsets = repalloc(calendar.offsets, allocated * sizeof(ZoneOffset));
		}
		offset = &calendar.offsets[calendar.count++];
		offset->offset = before;
		offset->until = found > 0 ? change : PG_INT64_MAX;
		last = Min(offset->until - 1, last_second);
		calendar.first_date = Min(calendar.first_date,
								  floor_div(at + before, SECS_PER_DAY));
		last_date = Max(last_date, floor_div(last + before, SECS_PER_DAY));
		if (offset->until > last_second)
			break;
		at = change;
	}
	calendar.dates = last_date - calendar.first_date + 1;
	if (calendar.dates > MAX_DATES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("period is too long to be measured")));
	calendar.marked = palloc0(calendar.dates * sizeof(uint32));
	return calendar;
}

/*
 * mark_dates marks the local dates of a stretch inside the calendar's period
 * and returns how many of them were not marked before by the same mark.
 */
static int64
mark_dates(Calendar *calendar, TimestampTz start, TimestampTz end)
{
	int64		at = unix_seconds(start);
	int64		last_second = unix_seconds(end - 1);
	int64		marked = 0;

	for (int i = 0; i < calendar->count; i++)
	{
		const ZoneOffset *offset = &calendar->offsets[i];
		int64		last = Min(offset->until - 1, last_second);

		if (offset->until <= at)
			continue;
		for (int64 date = floor_div(at + offset->offset, SECS_PER_DAY);
			 date <= floor_div(last + offset->offset, SECS_PER_DAY); date++)
		{
			uint32	   *mark = &calendar->marked[date - calendar->first_date];

			if (*mark != calendar->mark)
			{
				*mark = calendar->mark;
				marked++;
			}
		}
		if (offset->until > last_second)
			break;
		at = offset->until;
	}
	return marked;
}

/*
 * local_dates(period_start, period_end, time_zone) returns how many local
 * dates a period touches.
 */
Datum
partner_portal_local_dates(PG_FUNCTION_ARGS)
{
	TimestampTz start = PG_GETARG_TIMESTAMPTZ(0);
	TimestampTz end = PG_GETARG_TIMESTAMPTZ(1);
	Calendar	calendar;

	pp_check_instant(start);
	pp_check_instant(end);
	if (start >= end)
		PG_RETURN_INT32(0);
	calendar = make_calendar(start, end,
							 pp_time_zone(text_to_cstring(PG_GETARG_TEXT_PP(2))));
	calendar.mark = 1;
	PG_RETURN_INT32((int32) mark_dates(&calendar, start, end));
}

/*
 * measure_add(internal, period_start, period_end, time_zone, key_id,
 * account_id, active_from, active_until) takes one more stretch; one without a
 * start is none, so that a group may be empty.
 */
Datum
partner_portal_measure_add(PG_FUNCTION_ARGS)
{
	MemoryContext context;
	Measure    *measure;
	Stretch    *stretch;
	TimestampTz start,
				end;

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "measure_add called in non-aggregate context");
	if (PG_ARGISNULL(0))
	{
		MemoryContext previous = MemoryContextSwitchTo(context);

		measure = palloc0(sizeof(Measure));
		measure->period_start = PG_GETARG_TIMESTAMPTZ(1);
		measure->period_end = PG_GETARG_TIMESTAMPTZ(2);
		measure->zone = pp_time_zone(text_to_cstring(pp_text_argument(fcinfo, 3)));
		measure->allocated = 8;
		measure->stretches = palloc(measure->allocated * sizeof(Stretch));
		MemoryContextSwitchTo(previous);
		pp_check_instant(measure->period_start);
		pp_check_instant(measure->period_end);
	}
	else
		measure = (Measure *) PG_GETARG_POINTER(0);
	if (PG_ARGISNULL(6) || PG_ARGISNULL(4))
		PG_RETURN_POINTER(measure);

	start = Max(PG_GETARG_TIMESTAMPTZ(6), measure->period_start);
	end = PG_ARGISNULL(7) ? measure->period_end :
		Min(PG_GETARG_TIMESTAMPTZ(7), measure->period_end);
	if (start >= end)
		PG_RETURN_POINTER(measure);
	if (measure->count == measure->allocated)
	{
		measure->allocated *= 2;
		measure->stretches = repalloc_huge(measure->stretches,
										   measure->allocated * sizeof(Stretch));
	}
	stretch = &measure->stretches[measure->count++];
	stretch->key_id = PG_GETARG_INT64(4);
	stretch->account_id = PG_ARGISNULL(5) ? 0 : PG_GETARG_INT64(5);
	stretch->start = start;
	stretch->end = end;
	PG_RETURN_POINTER(measure);
}

static int
compare_key(const void *a, const void *b)
{
	return pp_compare_int64(&((const Stretch *) a)->key_id,
							&((const Stretch *) b)->key_id);
}

/*
 * count_users returns the number of different holders.
 */
static int32
count_users(const Measure *measure)
{
	int64	   *holders = MemoryContextAllocHuge(CurrentMemoryContext,
												 Max(measure->count, 1) * sizeof(int64));
	int64		count = 0;
	int32		users = 0;

	for (int64 i = 0; i < measure->count; i++)
		if (measure->stretches[i].account_id != 0)
			holders[count++] = measure->stretches[i].account_id;
	qsort(holders, count, sizeof(int64), pp_compare_int64);
	for (int64 i = 0; i < count; i++)
		if (i == 0 || holders[i] != holders[i - 1])
			users++;
	pfree(holders);
	return users;
}

/*
 * find_peak returns the most stretches running at one instant and the first
 * such instant, by walking their starts and ends in order, ends first.
 */
static int32
find_peak(const Measure *measure, TimestampTz *peak_at)
{
	int64		count = measure->count;
	int64	   *starts = MemoryContextAllocHuge(CurrentMemoryContext,
												Max(count, 1) * 2 * sizeof(int64));
	int64	   *ends = starts + count;
	int64		ended = 0;
	int32		peak = 0;

	for (int64 i = 0; i < count; i++)
	{
		starts[i] = measure->stretches[i].start;
		ends[i] = measure->stretches[i].end;
	}
	qsort(starts, count, sizeof(int64), pp_compare_int64);
	qsort(ends, count, sizeof(int64), pp_compare_int64);
	for (int64 i = 0; i < count; i++)
	{
		while (ends[ended] <= starts[i])
			ended++;
		if (i + 1 - ended > peak)
		{
			peak = (int32) (i + 1 - ended);
			*peak_at = starts[i];
		}
	}
	pfree(starts);
	return peak;
}

/*
 * measure_final(internal) returns the measures of the stretches taken.
 */
Datum
partner_portal_measure_final(PG_FUNCTION_ARGS)
{
	Measure    *measure;
	Calendar	calendar;
	TupleDesc	descriptor;
	Datum		values[8];
	bool		nulls[8] = {false};
	TimestampTz peak_at = 0;
	int32		distinct = 0,
				peak,
				at_end = 0,
				at_start = 0;
	int64		days = 0,
				days_of_period,
				seconds = 0,
				microseconds = 0;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	measure = (Measure *) PG_GETARG_POINTER(0);
	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	calendar = make_calendar(measure->period_start, measure->period_end, measure->zone);
	calendar.mark = 1;
	days_of_period = mark_dates(&calendar, measure->period_start, measure->period_end);
	qsort(measure->stretches, measure->count, sizeof(Stretch), compare_key);
	for (int64 i = 0; i < measure->count; i++)
	{
		const Stretch *stretch = &measure->stretches[i];
		int64		length = stretch->end - stretch->start;

		CHECK_FOR_INTERRUPTS();
		if (i == 0 || stretch->key_id != stretch[-1].key_id)
		{
			distinct++;
			calendar.mark++;
		}
		days += mark_dates(&calendar, stretch->start, stretch->end);
		seconds += length / USECS_PER_SEC;
		microseconds += length % USECS_PER_SEC;
		if (stretch->start == measure->period_start)
			at_start++;
		if (stretch->end == measure->period_end)
			at_end++;
	}
	peak = find_peak(measure, &peak_at);

	values[0] = Int32GetDatum(distinct);
	values[1] = Int32GetDatum(peak);
	values[2] = TimestampTzGetDatum(peak_at);
	nulls[2] = peak == 0;
	values[3] = Int32GetDatum(at_end);
	values[4] = Int32GetDatum(at_start);
	values[5] = DirectFunctionCall2(numeric_div,
									NumericGetDatum(int64_to_numeric(days)),
									NumericGetDatum(int64_to_numeric(days_of_period)));
	values[6] = DirectFunctionCall1(numeric_trim_scale,
									DirectFunctionCall2(numeric_add,
														NumericGetDatum(int64_to_numeric(seconds)),
														NumericGetDatum(int64_div_fast_to_numeric(microseconds, 6))));
	values[7] = Int32GetDatum(count_users(measure));
	pfree(calendar.offsets);
	pfree(calendar.marked);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor),
													  values, nulls)));
}
