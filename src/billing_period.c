/*-------------------------------------------------------------------------
 *
 * billing_period.c
 *		Where billing periods begin and end.
 *
 * Boundary n of a workspace is (anchor_date::timestamp + n * step) AT TIME
 * ZONE time_zone, for any integer n: months are added to the anchor's local
 * midnight, never to a timestamptz and never to another boundary, so that the
 * session's zone does not matter and an anchor on the 31st comes back to the
 * 31st.  A local midnight that a change of clocks leaves out is the instant
 * after the gap, one that comes twice is the second; both are PostgreSQL's own
 * reading of AT TIME ZONE.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_check_time_zone);
PG_FUNCTION_INFO_V1(partner_portal_billing_periods);
PG_FUNCTION_INFO_V1(partner_portal_billing_period_bounds);
PG_FUNCTION_INFO_V1(partner_portal_period_label);

/* The anchor, the step and the zone that a workspace's boundaries follow. */
typedef struct Schedule
{
	DateADT		anchor;
	int			months;			/* step */
	pg_tz	   *zone;
} Schedule;

/*
 * Zones that AT TIME ZONE would read as abbreviations of a fixed offset,
 * though the time zone database has daylight saving or history for them, and
 * names for "whatever this machine has".
 */
static const char *const ambiguous_zones[] = {
	"CET", "EET", "EST", "HST", "MET", "MST", "WET",
	"localtime", "posixrules", "Factory", NULL
};

/*
 * zone_error raises 22023 for a zone that is not one.
 */
static void
zone_error(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("time zone \"%.*s\" not recognized",
					pg_mbcliplen(name, strlen(name), 64), name),
			 errhint("Use a name of the IANA time zone database, such as Europe/Zurich; view pg_timezone_names lists them.")));
}

/*
 * zone_is_listed tells whether pg_timezone_names lists a name, reading the
 * zone files one by one.
 */
static bool
zone_is_listed(const char *name)
{
	pg_tzenum  *zones = pg_tzenumerate_start();
	pg_tz	   *zone;
	bool		found = false;

	while (!found && (zone = pg_tzenumerate_next(zones)) != NULL)
		found = strcmp(pg_get_timezone_name(zone), name) == 0;
	pg_tzenumerate_end(zones);
	return found;
}

/*
 * pp_time_zone returns the zone of a stored name; 22023 if the server does not
 * know it (any more).
 */
pg_tz *
pp_time_zone(const char *name)
{
	pg_tz	   *zone = NULL;

	if (*name != '\0' && strlen(name) <= TZ_STRLEN_MAX)
		zone = pg_tzset(name);
	if (zone == NULL)
		zone_error(name);
	return zone;
}

/*
 * check_time_zone(text) returns the name of a zone as the IANA time zone
 * database spells it; 22023 if pg_timezone_names does not have it.  POSIX
 * strings ("XYZ5") always have a digit, so only names with one are looked up
 * there.
 */
Datum
partner_portal_check_time_zone(PG_FUNCTION_ARGS)
{
	char	   *given = text_to_cstring(PG_GETARG_TEXT_PP(0));
	pg_tz	   *zone = pp_time_zone(given);
	const char *name = pg_get_timezone_name(zone);

	if (!pg_tz_acceptable(zone))
		zone_error(given);
	for (int i = 0; ambiguous_zones[i] != NULL; i++)
		if (strcmp(name, ambiguous_zones[i]) == 0)
			zone_error(given);
	if (strpbrk(name, "0123456789") != NULL && !zone_is_listed(name))
		zone_error(given);
	PG_RETURN_TEXT_P(cstring_to_text(name));
}

/*
 * pp_check_instant raises 22008 for an instant outside 1900 to 2999, UTC.
 */
void
pp_check_instant(TimestampTz at)
{
	const TimestampTz first = INT64CONST(-36524) * USECS_PER_DAY;
	const TimestampTz last = INT64CONST(365243) * USECS_PER_DAY;

	if (at < first || at >= last)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range for a billing period"),
				 errdetail("Billing periods are known from the year 1900 to the year 2999.")));
}

/*
 * make_schedule takes anchor_date, billing_step and time_zone from the first
 * three arguments of a function.
 */
static Schedule
make_schedule(FunctionCallInfo fcinfo)
{
	Schedule	schedule;
	char	   *step = text_to_cstring(PG_GETARG_TEXT_PP(1));

	schedule.anchor = PG_GETARG_DATEADT(0);
	if (DATE_NOT_FINITE(schedule.anchor) ||
		schedule.anchor < -36524 || schedule.anchor >= 365243)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("anchor date out of range"),
				 errdetail("It must be from the year 1900 to the year 2999.")));
	if (strcmp(step, "month") == 0)
		schedule.months = 1;
	else if (strcmp(step, "quarter") == 0)
		schedule.months = 3;
	else if (strcmp(step, "half_year") == 0)
		schedule.months = 6;
	else if (strcmp(step, "year") == 0)
		schedule.months = 12;
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown billing step \"%.*s\"",
						pg_mbcliplen(step, strlen(step), 64), step),
				 errhint("Steps are month, quarter, half_year and year.")));
	schedule.zone = pp_time_zone(text_to_cstring(PG_GETARG_TEXT_PP(2)));
	return schedule;
}

/*
 * boundary returns boundary n.
 */
static TimestampTz
boundary(const Schedule *schedule, int n)
{
	Interval	span = {0};
	Timestamp	local;
	TimestampTz result;
	struct pg_tm tm;
	fsec_t		fsec;
	int			offset;

	span.month = n * schedule->months;
	local = DatumGetTimestamp(DirectFunctionCall2(timestamp_pl_interval,
												  DirectFunctionCall1(date_timestamp,
																	  DateADTGetDatum(schedule->anchor)),
												  IntervalPGetDatum(&span)));
	if (timestamp2tm(local, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	offset = DetermineTimeZoneOffset(&tm, schedule->zone);
	if (tm2timestamp(&tm, fsec, &offset, &result) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	return result;
}

/*
 * local_time breaks an instant down in a zone.
 */
static void
local_time(TimestampTz at, pg_tz *zone, struct pg_tm *tm)
{
	fsec_t		fsec;
	int			offset;

	if (timestamp2tm(at, &offset, tm, &fsec, NULL, zone) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
}

/*
 * period_index returns the n with boundary(n) <= at < boundary(n + 1), in
 * constant time: the local month tells it but for one step, which the anchor's
 * day and the clock's changes decide.
 */
static int
period_index(const Schedule *schedule, TimestampTz at)
{
	struct pg_tm tm;
	int			year,
				month,
				day,
				distance,
				n;

	pp_check_instant(at);
	local_time(at, schedule->zone, &tm);
	j2date(schedule->anchor + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	distance = (tm.tm_year - year) * MONTHS_PER_YEAR + tm.tm_mon - month;
	n = distance / schedule->months;
	if (distance % schedule->months < 0)
		n--;
	for (n++; boundary(schedule, n) > at;)
		n--;
	return n;
}

/*
 * billing_period_bounds(anchor_date, billing_step, time_zone, at) returns the
 * two boundaries that an instant lies between.
 */
Datum
partner_portal_billing_period_bounds(PG_FUNCTION_ARGS)
{
	Schedule	schedule = make_schedule(fcinfo);
	int			n = period_index(&schedule, PG_GETARG_TIMESTAMPTZ(3));
	TupleDesc	descriptor;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = TimestampTzGetDatum(boundary(&schedule, n));
	values[1] = TimestampTzGetDatum(boundary(&schedule, n + 1));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor),
													  values, nulls)));
}

/*
 * label_of returns the first and the last local date of a period, as
 * 2026-02-28..2026-03-30.
 */
static Datum
label_of(TimestampTz start, TimestampTz end, pg_tz *zone)
{
	struct pg_tm first,
				last;
	char		label[64];

	local_time(start, zone, &first);
	local_time(end - 1, zone, &last);
	snprintf(label, sizeof(label), "%04d-%02d-%02d..%04d-%02d-%02d",
			 first.tm_year, first.tm_mon, first.tm_mday,
			 last.tm_year, last.tm_mon, last.tm_mday);
	return CStringGetTextDatum(label);
}

/*
 * period_label(period_start, period_end, time_zone) is label_of for SQL.
 */
Datum
partner_portal_period_label(PG_FUNCTION_ARGS)
{
	TimestampTz start = PG_GETARG_TIMESTAMPTZ(0);
	TimestampTz end = PG_GETARG_TIMESTAMPTZ(1);

	pp_check_instant(start);
	pp_check_instant(end);
	PG_RETURN_DATUM(label_of(start, end,
							 pp_time_zone(text_to_cstring(PG_GETARG_TEXT_PP(2)))));
}

/*
 * billing_periods(anchor_date, billing_step, time_zone, since, until) returns
 * period_start, period_end and label of every period that begins by "until",
 * in order.  The first begins at "since", wherever that lies.
 */
Datum
partner_portal_billing_periods(PG_FUNCTION_ARGS)
{
	Schedule	schedule = make_schedule(fcinfo);
	TimestampTz start = PG_GETARG_TIMESTAMPTZ(3);
	TimestampTz until = PG_GETARG_TIMESTAMPTZ(4);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int			n = period_index(&schedule, start);

	pp_check_instant(until);
	InitMaterializedSRF(fcinfo, 0);
	while (start <= until)
	{
		TimestampTz end = boundary(&schedule, ++n);
		Datum		values[3];
		bool		nulls[3] = {false, false, false};

		CHECK_FOR_INTERRUPTS();
		values[0] = TimestampTzGetDatum(start);
		values[1] = TimestampTzGetDatum(end);
		values[2] = label_of(start, end, schedule.zone);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		start = end;
	}
	return (Datum) 0;
}
