/*-------------------------------------------------------------------------
 *
 * input.c
 *		What people give us, checked: text, and names made into slugs; and what
 *		they are given: secrets.  Which characters a text may have is in
 *		shown_text.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "common/base64.h"
#include "common/unicode_norm.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_calling_role);
PG_FUNCTION_INFO_V1(partner_portal_checked_text);
PG_FUNCTION_INFO_V1(partner_portal_new_secret);
PG_FUNCTION_INFO_V1(partner_portal_new_token);
PG_FUNCTION_INFO_V1(partner_portal_slug_of);

#define SECRET_BYTES	24
#define TOKEN_BYTES		32

/* leaves room for a suffix in the 63 characters of a host name's label */
#define SLUG_LENGTH		50

/*
 * partner_portal_calling_role returns the role that called the outermost
 * function: inside a SECURITY DEFINER function current_user is its owner, and
 * session_user does not know of SET ROLE.
 */
Datum
partner_portal_calling_role(PG_FUNCTION_ARGS)
{
	PG_RETURN_OID(GetOuterUserId());
}

/*
 * pp_text_argument returns a text argument of a function that is not strict;
 * 22004 if it is NULL.
 */
text *
pp_text_argument(FunctionCallInfo fcinfo, int number)
{
	if (PG_ARGISNULL(number))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument %d must not be null", number + 1)));
	return PG_GETARG_TEXT_PP(number);
}

/*
 * partner_portal_checked_text returns a text that a person wrote on one line,
 * as given, when it is between 1 and max_length characters, not all blank and
 * without characters that are not seen.  A text that is far too long is refused before it
 * is decompressed.
 */
Datum
partner_portal_checked_text(PG_FUNCTION_ARGS)
{
	char	   *argument;
	text	   *value = NULL;
	int32		max_length;
	int			length;

	argument = text_to_cstring(pp_text_argument(fcinfo, 0));
	max_length = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", argument)));
	if (toast_raw_datum_size(PG_GETARG_DATUM(1)) - VARHDRSZ > (Size) max_length * MAX_MULTIBYTE_CHAR_LEN)
		length = max_length + 1;
	else
	{
		value = PG_GETARG_TEXT_PP(1);
		length = pg_mbstrlen_with_len(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
	}
	if (length > max_length)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("%s is too long", argument),
				 errdetail("At most %d characters are allowed.", max_length)));

	pp_check_controls(argument, value, false);
	if (pp_is_blank(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", argument)));
	PG_RETURN_TEXT_P(value);
}

/*
 * random_text returns so many random bytes, at most TOKEN_BYTES, in base64 as
 * it may stand in a URL, without padding.
 */
static text *
random_text(int count)
{
	char		bytes[TOKEN_BYTES];
	char		encoded[(TOKEN_BYTES + 2) / 3 * 4 + 1];
	int			length;

	if (!pg_strong_random(bytes, count))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random bytes")));
	length = pg_b64_encode((const void *) bytes, count, encoded, sizeof(encoded) - 1);
	if (length < 0)
		elog(ERROR, "could not encode random bytes");
	for (int i = 0; i < length; i++)
	{
		if (encoded[i] == '+')
			encoded[i] = '-';
		else if (encoded[i] == '/')
			encoded[i] = '_';
		else if (encoded[i] == '=')
			length = i;
	}
	return cstring_to_text_with_len(encoded, length);
}

/*
 * partner_portal_new_secret returns 192 random bits as 32 characters that may
 * stand in a URL.
 */
Datum
partner_portal_new_secret(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(random_text(SECRET_BYTES));
}

/*
 * partner_portal_new_token returns 256 random bits as 43 such characters.
 */
Datum
partner_portal_new_token(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(random_text(TOKEN_BYTES));
}

/*
 * fold_letter appends what stands for a code point in a slug: the letter without
 * its accent, or a hyphen.  Accents themselves, which normalization has split
 * off, vanish.
 */
static void
fold_letter(StringInfo slug, pg_wchar c)
{
	static const struct
	{
		pg_wchar	letter;
		const char *ascii;
	}			letters[] = {
		{0x00C6, "ae"}, {0x00D0, "d"}, {0x00D8, "o"}, {0x00DE, "th"},
		{0x00DF, "ss"}, {0x00E6, "ae"}, {0x00F0, "d"}, {0x00F8, "o"},
		{0x00FE, "th"}, {0x0110, "d"}, {0x0111, "d"}, {0x0131, "i"},
		{0x0141, "l"}, {0x0142, "l"}, {0x0152, "oe"}, {0x0153, "oe"},
	};

	if (c >= 0x0300 && c <= 0x036F)
		return;
	if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
	{
		appendStringInfoChar(slug, (char) c);
		return;
	}
	if (c >= 'A' && c <= 'Z')
	{
		appendStringInfoChar(slug, (char) (c - 'A' + 'a'));
		return;
	}
	for (int i = 0; i < lengthof(letters); i++)
		if (letters[i].letter == c)
		{
			appendStringInfoString(slug, letters[i].ascii);
			return;
		}
	if (slug->len > 0 && slug->data[slug->len - 1] != '-')
		appendStringInfoChar(slug, '-');
}

/*
 * partner_portal_slug_of makes a slug of a name; "workspace" if nothing of the
 * name is left.  In a database that is not UTF8 only ASCII letters are kept.
 */
Datum
partner_portal_slug_of(PG_FUNCTION_ARGS)
{
	text	   *name = PG_GETARG_TEXT_PP(0);
	int			bytes = VARSIZE_ANY_EXHDR(name);
	pg_wchar   *letters = palloc((bytes + 1) * sizeof(pg_wchar));
	StringInfoData slug;

	pg_mb2wchar_with_len(VARDATA_ANY(name), letters, bytes);
	if (GetDatabaseEncoding() == PG_UTF8)
		letters = unicode_normalize(UNICODE_NFKD, letters);
	initStringInfo(&slug);
	for (; *letters != 0 && slug.len < SLUG_LENGTH; letters++)
		fold_letter(&slug, GetDatabaseEncoding() == PG_UTF8 || *letters < 128 ? *letters : ' ');
	while (slug.len > 0 && slug.data[slug.len - 1] == '-')
		slug.len--;
	if (slug.len == 0)
		appendStringInfoString(&slug, "workspace");
	PG_RETURN_TEXT_P(cstring_to_text_with_len(slug.data, slug.len));
}
