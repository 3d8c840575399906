/*-------------------------------------------------------------------------
 *
 * rate.c
 *		The one place where an amount becomes minor units.
 *
 * An amount is computed in major units as numeric, exactly; it is rounded
 * once, to the minor unit of its currency, half away from zero.  A share of
 * a fee is kept as a fraction until then, so that the rounding is exact too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_to_minor);

/*
 * call2 calls a function of two numerics that returns one.
 */
static Numeric
call2(PGFunction function, Numeric a, Numeric b)
{
	return DatumGetNumeric(DirectFunctionCall2(function, NumericGetDatum(a), NumericGetDatum(b)));
}

/*
 * power_of_ten returns 10 to the power of digits.
 */
static Numeric
power_of_ten(int digits)
{
	int64		power = 1;

	while (digits-- > 0)
		power *= 10;
	return int64_to_numeric(power);
}

/*
 * pp_to_minor returns numerator / denominator major units of a currency with
 * that many digits as minor units, rounded half away from zero.  Raises 22003
 * when the amount does not fit a bigint, 22023 when it is not finite.
 */
int64
pp_to_minor(Numeric numerator, int64 denominator, int digits)
{
	Numeric		zero = int64_to_numeric(0);
	Numeric		twice;
	Numeric		minor;
	bool		negative;

	if (numeric_is_nan(numerator) || numeric_is_inf(numerator))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an amount must be finite")));
	if (denominator <= 0 || denominator > 1000000000 || digits < 0 || digits > 9)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an amount cannot be divided by " INT64_FORMAT " or have %d digits", denominator, digits)));

	/* |n| / d rounded half up is trunc((2 |n| + d) / 2 d). */
	negative = DatumGetBool(DirectFunctionCall2(numeric_lt, NumericGetDatum(numerator), NumericGetDatum(zero)));
	twice = call2(numeric_mul, numerator, power_of_ten(digits));
	twice = call2(numeric_mul, twice, int64_to_numeric(negative ? -2 : 2));
	twice = call2(numeric_add, twice, int64_to_numeric(denominator));
	minor = call2(numeric_div_trunc, twice, int64_to_numeric(2 * denominator));
	if (DatumGetBool(DirectFunctionCall2(numeric_gt, NumericGetDatum(minor), NumericGetDatum(int64_to_numeric(PG_INT64_MAX)))))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("amount out of range"),
				 errdetail("An amount is at most %s minor units.", "9223372036854775807"),
				 errhint("Check the unit prices and the quantity.")));
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(minor))) * (negative ? -1 : 1);
}

/*
 * partner_portal_to_minor is to_minor(numerator, denominator, digits).
 */
Datum
partner_portal_to_minor(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(pp_to_minor(PG_GETARG_NUMERIC(0), PG_GETARG_INT32(1), PG_GETARG_INT32(2)));
}
