/*-------------------------------------------------------------------------
 *
 * json.c
 *		JSON that comes from outside (tokens, key files) as a small tree.
 *
 * PostgreSQL's own parser does the work.  Whatever is wrong with the text is
 * told by a NULL, never by an error, which would quote it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/jsonapi.h"
#include "mb/pg_wchar.h"

#include "partner_portal.h"

#define MAX_DEPTH	32

/* The tree while it grows: the open containers, and the next value's name. */
typedef struct Builder
{
	PpJson	   *open[MAX_DEPTH + 1];
	int			depth;
	char	   *name;
	PpJson	   *root;
} Builder;

/* What pp_json_member() returns for a name that stands twice. */
static const PpJson ambiguous = {PP_JSON_AMBIGUOUS};

/*
 * is_too_deep tells whether brackets outside of strings are nested deeper than
 * MAX_DEPTH.  The parser recurses, and is not to find that out itself.
 */
static bool
is_too_deep(const char *text, size_t length)
{
	int			depth = 0;
	bool		in_string = false;

	for (size_t i = 0; i < length; i++)
	{
		char		c = text[i];

		if (in_string)
		{
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		}
		else if (c == '"')
			in_string = true;
		else if (c == '{' || c == '[')
		{
			if (++depth > MAX_DEPTH)
				return true;
		}
		else if (c == '}' || c == ']')
			depth--;
	}
	return false;
}

/*
 * add_value appends a value to the innermost open container.
 */
static PpJson *
add_value(Builder *builder, PpJsonKind kind)
{
	PpJson	   *value = palloc0(sizeof(PpJson));

	value->kind = kind;
	value->name = builder->name;
	builder->name = NULL;
	if (builder->depth == 0)
		builder->root = value;
	else
	{
		PpJson	   *parent = builder->open[builder->depth - 1];

		if (parent->last == NULL)
			parent->first = value;
		else
			parent->last->next = value;
		parent->last = value;
	}
	return value;
}

static PP_JSON_ACTION
start_object(void *state)
{
	Builder    *builder = state;
	PpJson	   *object = add_value(builder, PP_JSON_OBJECT);

	builder->open[builder->depth++] = object;
	PP_JSON_CONTINUE;
}

static PP_JSON_ACTION
start_array(void *state)
{
	Builder    *builder = state;
	PpJson	   *array = add_value(builder, PP_JSON_ARRAY);

	builder->open[builder->depth++] = array;
	PP_JSON_CONTINUE;
}

static PP_JSON_ACTION
end_container(void *state)
{
	((Builder *) state)->depth--;
	PP_JSON_CONTINUE;
}

static PP_JSON_ACTION
start_member(void *state, char *name, bool isnull)
{
	((Builder *) state)->name = name;
	PP_JSON_CONTINUE;
}

static PP_JSON_ACTION
add_scalar(void *state, char *token, JsonTokenType type)
{
	PpJsonKind	kind = PP_JSON_NULL;

	if (type == JSON_TOKEN_STRING)
		kind = PP_JSON_STRING;
	else if (type == JSON_TOKEN_NUMBER)
		kind = PP_JSON_NUMBER;
	else if (type == JSON_TOKEN_TRUE)
		kind = PP_JSON_TRUE;
	else if (type == JSON_TOKEN_FALSE)
		kind = PP_JSON_FALSE;
	add_value(state, kind)->text = token;
	PP_JSON_CONTINUE;
}

/*
 * parse does pp_json_parse()'s work; what cannot be said in the database's
 * encoding is an error here.
 */
static PpJson *
parse(const char *utf8, size_t length)
{
	Builder    *builder = palloc0(sizeof(Builder));
	JsonSemAction actions = {0};
	char	   *text = pg_any_to_server(pnstrdup(utf8, length), length, PG_UTF8);

	actions.semstate = builder;
	actions.object_start = start_object;
	actions.object_end = end_container;
	actions.array_start = start_array;
	actions.array_end = end_container;
	actions.object_field_start = start_member;
	actions.scalar = add_scalar;
	if (pg_parse_json(pp_json_lexer(text, strlen(text)), &actions) != JSON_SUCCESS)
		return NULL;
	return builder->root;
}

/*
 * pp_json_parse reads a JSON text in UTF-8 and returns its tree, in the current
 * memory context and the database's encoding; NULL if it is no JSON, no UTF-8
 * or nested too deeply.
 */
PpJson *
pp_json_parse(const char *utf8, size_t length)
{
	MemoryContext context = CurrentMemoryContext;
	PpJson	   *volatile root = NULL;

	if (pg_encoding_verifymbstr(PG_UTF8, utf8, length) != length ||
		memchr(utf8, '\0', length) != NULL || is_too_deep(utf8, length))
		return NULL;
	PG_TRY();
	{
		root = parse(utf8, length);
	}
	PG_CATCH();
	{
		int			code;

		MemoryContextSwitchTo(context);
		code = geterrcode();
		if (ERRCODE_TO_CATEGORY(code) != ERRCODE_DATA_EXCEPTION &&
			code != ERRCODE_FEATURE_NOT_SUPPORTED &&
			code != ERRCODE_UNDEFINED_FUNCTION)
			PG_RE_THROW();
		FlushErrorState();
		root = NULL;
	}
	PG_END_TRY();
	return root;
}

/*
 * pp_json_member returns the member of an object with that name; NULL if it has
 * none.  Two of one name are of kind PP_JSON_AMBIGUOUS: readers of one token
 * must not differ in what it says.
 */
const PpJson *
pp_json_member(const PpJson *object, const char *name)
{
	const PpJson *found = NULL;

	for (const PpJson *member = object->first; member != NULL; member = member->next)
	{
		if (member->name == NULL || strcmp(member->name, name) != 0)
			continue;
		if (found != NULL)
			return &ambiguous;
		found = member;
	}
	return found;
}

/*
 * pp_json_string reads a member that is a string, NULL when it is absent, into
 * *text.  False if it is anything else.
 */
bool
pp_json_string(const PpJson *object, const char *name, const char **text)
{
	const PpJson *member = pp_json_member(object, name);

	*text = NULL;
	if (member == NULL)
		return true;
	if (member->kind != PP_JSON_STRING)
		return false;
	*text = member->text;
	return true;
}
