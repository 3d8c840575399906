/*-------------------------------------------------------------------------
 *
 * shown_text.c
 *		What may stand in a text that other people are shown, and in an address.
 *
 * A name is shown in headers of mails, lines of exports, panels and pages.  A
 * line end would begin something else there, an escape commands a terminal, a
 * directional override lets the text around it read backwards ("trojan
 * source"), and what is invisible makes two names look like one.  So none of it
 * is accepted: what comes by function goes through checked_text(), what comes
 * by plain INSERT or UPDATE through the triggers check_names() and
 * check_addresses(), or the table's own.  A row that is restored stays as it
 * was, and one that has such a text already can be changed otherwise.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/rel.h"

#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_check_addresses);
PG_FUNCTION_INFO_V1(partner_portal_check_names);
PG_FUNCTION_INFO_V1(partner_portal_checked_port);
PG_FUNCTION_INFO_V1(partner_portal_has_controls);

typedef struct Range
{
	pg_wchar	first;
	pg_wchar	last;
} Range;

/*
 * Characters that show nothing themselves, or change how others are shown.
 * From the Unicode Character Database (UAX #44): the properties Bidi_Control
 * (PropList.txt; UAX #9, 2.1 to 2.6) and Default_Ignorable_Code_Point
 * (DerivedCoreProperties.txt), the separators Zl and Zp, and the controls of C1.
 * UTS #39, 3.1 keeps the ignorable out of identifiers; the W3C ("Unicode
 * controls vs. markup for bidi support") leaves direction to markup.  What a
 * script or an emoji needs of them is in needs_neighbours().  The signs of
 * Arabic and Syriac that are Cf by category are visible, and not here.
 */
static const Range hidden[] = {
	{0x0080, 0x009F},			/* C1 controls, NEXT LINE among them */
	{0x00AD, 0x00AD},			/* SOFT HYPHEN */
	{0x034F, 0x034F},			/* COMBINING GRAPHEME JOINER */
	{0x061C, 0x061C},			/* ARABIC LETTER MARK */
	{0x115F, 0x1160},			/* HANGUL FILLERS */
	{0x17B4, 0x17B5},			/* KHMER INHERENT VOWELS */
	{0x200B, 0x200B},			/* ZERO WIDTH SPACE */
	{0x200E, 0x200F},			/* LEFT-TO-RIGHT and RIGHT-TO-LEFT MARK */
	{0x2028, 0x202E},			/* separators, embeddings, overrides */
	{0x2060, 0x206F},			/* WORD JOINER, invisible operators, isolates */
	{0x3164, 0x3164},			/* HANGUL FILLER */
	{0xFEFF, 0xFEFF},			/* the byte order mark */
	{0xFFA0, 0xFFA0},			/* HALFWIDTH HANGUL FILLER */
	{0xFFF0, 0xFFFB},			/* interlinear annotation */
	{0x1BCA0, 0x1BCA3},			/* shorthand format controls */
	{0x1D173, 0x1D17A},			/* musical format controls */
	{0xE0000, 0xE00FF},			/* tags, but for those of skip_tags() */
	{0xE01F0, 0xE0FFF}
};

/*
 * Spaces: a name of nothing else is empty to the eye (White_Space in
 * PropList.txt, and the braille pattern without dots).
 */
static const Range spaces[] = {
	{0x0020, 0x0020}, {0x00A0, 0x00A0}, {0x1680, 0x1680}, {0x2000, 0x200A},
	{0x202F, 0x202F}, {0x205F, 0x205F}, {0x2800, 0x2800}, {0x3000, 0x3000}
};

/*
 * is_among tells whether a character is in a list of ranges.
 */
static bool
is_among(pg_wchar c, const Range *ranges, int count)
{
	for (int i = 0; i < count; i++)
		if (c >= ranges[i].first && c <= ranges[i].last)
			return true;
	return false;
}

/*
 * The emoji that are written with tags: the flags of England, Scotland and
 * Wales, all that Unicode recommends for general interchange
 * (RGI_Emoji_Tag_Sequence in emoji-sequences.txt; UTS #51, ED-14a).  A black
 * flag, the region's letters as tags, and the tag that ends them.  Any other
 * such sequence shows a black flag and hides what it says.
 */
#define BLACK_FLAG		0x1F3F4
#define TAG(letter)		(0xE0000 + (letter))
#define CANCEL_TAG		0xE007F

static const char *const flags[] = {"gbeng", "gbsct", "gbwls"};

/*
 * is_selector tells whether a character chooses a variant of the one before it.
 */
static bool
is_selector(pg_wchar c)
{
	return (c >= 0xFE00 && c <= 0xFE0F) || (c >= 0xE0100 && c <= 0xE01EF) ||
		(c >= 0x180B && c <= 0x180D) || c == 0x180F;
}

/*
 * is_joiner tells whether a character says how its two neighbours are joined.
 */
static bool
is_joiner(pg_wchar c)
{
	return c == 0x200C || c == 0x200D || c == 0x180E;
}

/*
 * takes_joiner tells whether a character is of a script that needs joiners, all
 * of which begin with Arabic, or an emoji (after UAX #31, 2.3 and UTS #51, 2.6).
 */
static bool
takes_joiner(pg_wchar c)
{
	return c >= 0x0600 && !(c >= 0x2000 && c <= 0x206F) &&
		!is_joiner(c) && !is_among(c, spaces, lengthof(spaces));
}

/*
 * takes_selector tells whether a character may have variants: not a letter of
 * ASCII, not a space, and not a selector, for a chain of them hides a message.
 */
static bool
takes_selector(pg_wchar c)
{
	if (c < 0x80)
		return c == '#' || c == '*' || (c >= '0' && c <= '9');
	return !is_selector(c) && !is_joiner(c) && !is_among(c, spaces, lengthof(spaces));
}

/*
 * next_character returns the character at a place of a text in UTF8, and moves
 * the place behind it; 0 at the end.
 */
static pg_wchar
next_character(const unsigned char **place, const unsigned char *end)
{
	const unsigned char *c = *place;
	int			length;
	pg_wchar	character;

	if (c >= end)
		return 0;
	length = *c < 0x80 ? 1 : *c < 0xE0 ? 2 : *c < 0xF0 ? 3 : 4;
	if (length > end - c)
		length = 1;
	character = length == 1 ? *c : *c & (0x7F >> length);
	for (int i = 1; i < length; i++)
		character = (character << 6) | (c[i] & 0x3F);
	*place = c + length;
	return character;
}

/*
 * skip_tags moves a place that is behind a black flag behind the tags that make
 * it one of the flags above, and returns how many they are; 0 if it is none.
 */
static int
skip_tags(const unsigned char **place, const unsigned char *end)
{
	for (int i = 0; i < lengthof(flags); i++)
	{
		const unsigned char *next = *place;
		const char *letter = flags[i];

		while (*letter != '\0' && next_character(&next, end) == TAG(*letter))
			letter++;
		if (*letter == '\0' && next_character(&next, end) == CANCEL_TAG)
		{
			*place = next;
			return (int) strlen(flags[i]) + 1;
		}
	}
	return 0;
}

/*
 * hidden_character returns the first character of a text that must not be
 * shown, and its number, from 1; 0 if there is none.  In a database that is not
 * UTF8 only ASCII is known.
 */
static pg_wchar
hidden_character(text *value, const char *allowed, int *number)
{
	const unsigned char *place = (unsigned char *) VARDATA_ANY(value);
	const unsigned char *end = place + VARSIZE_ANY_EXHDR(value);
	bool		unicode = GetDatabaseEncoding() == PG_UTF8;
	pg_wchar	before = 0;

	for (*number = 1; place < end; (*number)++)
	{
		pg_wchar	c;

		if (*place < 0x80 || !unicode)
		{
			c = *place++;
			if ((c < ' ' || c == 0x7F) && strchr(allowed, (int) c) == NULL)
				return c;
		}
		else
		{
			const unsigned char *after;

			c = next_character(&place, end);
			after = place;
			if (is_among(c, hidden, lengthof(hidden)) ||
				(is_selector(c) && !takes_selector(before)) ||
				(is_joiner(c) && !(takes_joiner(before) && takes_joiner(next_character(&after, end)))))
				return c;
			if (c == BLACK_FLAG)
			{
				int			tags = skip_tags(&place, end);

				*number += tags;
				/* no joiner or selector goes with a flag of tags */
				if (tags > 0)
					c = 0;
			}
		}
		before = c;
	}
	return 0;
}

/*
 * pp_check_controls raises 22023 if a text has control characters, or others
 * that are not seen; line ends do not count if it may break.
 */
void
pp_check_controls(const char *what, text *value, bool may_break)
{
	int			number;
	pg_wchar	c = hidden_character(value, may_break ? "\n\r" : "", &number);

	if (c == 0)
		return;
	if (c < 0x80)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not contain control characters", what)));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s must not contain invisible characters", what),
			 errdetail("Character %d is U+%04X, which is not seen itself or changes the direction of others.", number, c)));
}

/*
 * pp_is_blank tells whether a text has nothing but spaces.
 */
bool
pp_is_blank(text *value)
{
	const unsigned char *place = (unsigned char *) VARDATA_ANY(value);
	const unsigned char *end = place + VARSIZE_ANY_EXHDR(value);
	bool		unicode = GetDatabaseEncoding() == PG_UTF8;

	while (place < end)
		if (!(unicode ? is_among(next_character(&place, end), spaces, lengthof(spaces)) : *place++ == ' '))
			return false;
	return true;
}

/*
 * has_controls(text) tells whether a text of several lines has control
 * characters other than tabs and line ends, or others that are not seen.
 */
Datum
partner_portal_has_controls(PG_FUNCTION_ARGS)
{
	int			number;

	PG_RETURN_BOOL(hidden_character(PG_GETARG_TEXT_PP(0), "\t\n\r", &number) != 0);
}

/*
 * pp_port_fits tells whether the port that an address names, if it names one,
 * is between 1 and 65535.
 */
bool
pp_port_fits(const char *url)
{
	const char *host = strstr(url, "://");
	const char *end;
	const char *port = NULL;
	int			value = 0;

	host = host == NULL ? url : host + strlen("://");
	end = host + strcspn(host, "/?#");
	for (const char *c = host; c < end; c++)
		if (*c == ':')
			port = c + 1;
		else if (*c == '@' || *c == ']')
			port = NULL;
	if (port == NULL)
		return true;
	for (const char *c = port; c < end; c++)
	{
		if (*c < '0' || *c > '9')
			return false;
		value = value * 10 + (*c - '0');
		if (value > 65535)
			return false;
	}
	return value > 0;
}

/*
 * check_port raises 22023 unless pp_port_fits() an address; whether it is one
 * at all is for others to say.
 */
static void
check_port(const char *what, text *url)
{
	const char *address = text_to_cstring(url);

	if (strstr(address, "://") != NULL && !pp_port_fits(address))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s has a port that is not between 1 and 65535", what)));
}

/*
 * checked_port(argument, url) returns an address as given when its port fits.
 */
Datum
partner_portal_checked_port(PG_FUNCTION_ARGS)
{
	text	   *url = PG_GETARG_TEXT_PP(1);

	check_port(text_to_cstring(PG_GETARG_TEXT_PP(0)), url);
	PG_RETURN_TEXT_P(url);
}

/*
 * check_line is a pp_check_controls() for one line.
 */
static void
check_line(const char *what, text *value)
{
	pp_check_controls(what, value, false);
}

/*
 * check_columns has the columns checked that a trigger's arguments name, where
 * an INSERT or UPDATE writes them anew.
 */
static Datum
check_columns(FunctionCallInfo fcinfo, const char *function, void (*check) (const char *what, text *value))
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool		update;
	HeapTuple	row;
	TupleDesc	desc;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called as a trigger", function)));
	if (!TRIGGER_FIRED_BEFORE(trigger->tg_event) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired before insert or update, for each row", function)));

	update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	row = update ? trigger->tg_newtuple : trigger->tg_trigtuple;
	if (!update && pp_restoring())
		return PointerGetDatum(row);
	desc = RelationGetDescr(trigger->tg_relation);
	for (int i = 0; i < trigger->tg_trigger->tgnargs; i++)
	{
		const char *name = trigger->tg_trigger->tgargs[i];
		int			column = SPI_fnumber(desc, name);
		Datum		value;
		Datum		old = (Datum) 0;
		bool		null;
		bool		was_null = true;

		if (column <= 0)
			elog(ERROR, "table \"%s\" has no column \"%s\"", RelationGetRelationName(trigger->tg_relation), name);
		value = SPI_getbinval(row, desc, column, &null);
		if (update)
			old = SPI_getbinval(trigger->tg_trigtuple, desc, column, &was_null);
		if (!null && (was_null || !datum_image_eq(old, value, false, -1)))
			check(name, DatumGetTextPP(value));
	}
	return PointerGetDatum(row);
}

/*
 * check_names is a trigger, BEFORE INSERT OR UPDATE FOR EACH ROW: 22023 for a
 * text in one of the columns named that must not be shown on a line.
 */
Datum
partner_portal_check_names(PG_FUNCTION_ARGS)
{
	return check_columns(fcinfo, "check_names", check_line);
}

/*
 * check_addresses is the same for ports of addresses.
 */
Datum
partner_portal_check_addresses(PG_FUNCTION_ARGS)
{
	return check_columns(fcinfo, "check_addresses", check_port);
}
