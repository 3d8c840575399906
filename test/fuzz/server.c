/*-------------------------------------------------------------------------
 *
 * server.c
 *		As much of a PostgreSQL backend as the parsers of tokens and key files
 *		need, for libFuzzer: memory that is freed after each input, and errors.
 *
 * With it src/token.c, jwks.c, json.c and signature.c run unchanged, with the
 * server's own JSON parser, HMAC and UTF-8 check out of libpgcommon.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <setjmp.h>

#include "mb/pg_wchar.h"
#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "partner_portal.h"
#include "server.h"

/* Each piece is malloc'ed by itself, so that the sanitizer sees its bounds. */
typedef struct Piece
{
	struct Piece *next;
	struct Piece *previous;
	Size		size;
	Size		unused;			/* keeps what follows aligned */
} Piece;

static Piece pieces = {&pieces, &pieces, 0, 0};

MemoryContext CurrentMemoryContext = NULL;
MemoryContext TopMemoryContext = NULL;
sigjmp_buf *PG_exception_stack = NULL;
ErrorContextCallback *error_context_stack = NULL;
char	   *pp_jwks_file = "";
char	   *pp_token_audience = "us";
char	   *pp_token_issuer = "issuer";
int			pp_clock_skew = 30;

static int	error_code;

void *
palloc_extended(Size size, int flags)
{
	Piece	   *piece;

	if (size > MaxAllocSize)
		abort();				/* the server would refuse, and the caller not expect it */
	piece = malloc(sizeof(Piece) + size);
	if (piece == NULL)
		abort();
	piece->size = size;
	piece->next = pieces.next;
	piece->previous = &pieces;
	pieces.next->previous = piece;
	pieces.next = piece;
	memset(piece + 1, (flags & MCXT_ALLOC_ZERO) ? 0 : 0x7F, size);
	return piece + 1;
}

void *
palloc(Size size)
{
	return palloc_extended(size, 0);
}

void *
palloc0(Size size)
{
	return palloc_extended(size, MCXT_ALLOC_ZERO);
}

void
pfree(void *pointer)
{
	Piece	   *piece = (Piece *) pointer - 1;

	piece->next->previous = piece->previous;
	piece->previous->next = piece->next;
	free(piece);
}

void *
repalloc(void *pointer, Size size)
{
	Piece	   *piece = (Piece *) pointer - 1;
	void	   *moved = palloc(size);

	memcpy(moved, pointer, Min(size, piece->size));
	pfree(pointer);
	return moved;
}

char *
pnstrdup(const char *text, Size length)
{
	Size		used = strnlen(text, length);
	char	   *copy = palloc(used + 1);

	memcpy(copy, text, used);
	copy[used] = '\0';
	return copy;
}

char *
pstrdup(const char *text)
{
	return pnstrdup(text, strlen(text));
}

/*
 * fuzz_forget frees whatever an input has left behind.
 */
void
fuzz_forget(void)
{
	while (pieces.next != &pieces)
		pfree(pieces.next + 1);
}

/* What libpgcommon asks for in a client. */
void *
pg_malloc(size_t size)
{
	return palloc(size);
}

void *
pg_malloc0(size_t size)
{
	return palloc0(size);
}

void *
pg_malloc_extended(size_t size, int flags)
{
	return palloc_extended(size, flags);
}

void *
pg_realloc(void *pointer, size_t size)
{
	return pointer == NULL ? palloc(size) : repalloc(pointer, size);
}

void
pg_free(void *pointer)
{
	if (pointer != NULL)
		pfree(pointer);
}

char *
pg_strdup(const char *text)
{
	return pstrdup(text);
}

/* Errors jump, as the server's do. */
bool
errstart(int elevel, const char *domain)
{
	error_code = 0;
	return elevel >= ERROR;
}

bool
errstart_cold(int elevel, const char *domain)
{
	return errstart(elevel, domain);
}

int
errcode(int code)
{
	return error_code = code;
}

int
errmsg(const char *format,...)
{
	return 0;
}

int
errmsg_internal(const char *format,...)
{
	return 0;
}

int
errhidestmt(bool hide)
{
	return 0;
}

int
errhidecontext(bool hide)
{
	return 0;
}

void
errfinish(const char *filename, int lineno, const char *funcname)
{
	if (PG_exception_stack == NULL)
		abort();				/* an error that nobody catches */
	siglongjmp(*PG_exception_stack, 1);
}

int
geterrcode(void)
{
	return error_code;
}

void
FlushErrorState(void)
{
}

void
pg_re_throw(void)
{
	abort();
}

void
ExceptionalCondition(const char *condition, const char *type, const char *file, int line)
{
	abort();
}

/* Contexts are one, and emptied by fuzz_forget(). */
MemoryContext
AllocSetContextCreateInternal(MemoryContext parent, const char *name, Size minimum, Size initial, Size maximum)
{
	return NULL;
}

void
MemoryContextReset(MemoryContext context)
{
}

void
MemoryContextDelete(MemoryContext context)
{
}

FILE *
AllocateFile(const char *name, const char *mode)
{
	return NULL;
}

int
FreeFile(FILE *file)
{
	return 0;
}

int
GetDatabaseEncoding(void)
{
	return PG_UTF8;
}

char *
pg_any_to_server(const char *text, int length, int encoding)
{
	return unconstify(char *, text);
}

TimestampTz
GetCurrentStatementStartTimestamp(void)
{
	return INT64CONST(820000000000000);
}
