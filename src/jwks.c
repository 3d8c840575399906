/*-------------------------------------------------------------------------
 *
 * jwks.c
 *		The keys that sign login tokens: a JSON Web Key Set (RFC 7517) in the
 *		file that partner_portal.jwks_file names.
 *
 * Each backend keeps the keys until the file changes.  A file that cannot be
 * used means that nobody signs in, and one line in the server's log, which
 * never quotes the file; so does each key of it that is left out as faulty.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "storage/fd.h"
#include "utils/memutils.h"

#include "partner_portal.h"

#define MAX_FILE_BYTES	(1024 * 1024)

static PpKeySet key_set;
static MemoryContext key_context = NULL;
static char loaded_path[MAXPGPATH];
static PpFileStamp loaded_stamp;
static bool loaded = false;		/* the two above say what key_set is of */
static bool settled = false;	/* and it need not be read again */
static bool quiet = false;		/* this state of the file has had its log line */

/*
 * complain writes one line about the file to the server's log, not to the
 * client, and without the statement, which holds a token.
 */
static void
complain(const char *problem)
{
	if (quiet)
		return;
	ereport(LOG_SERVER_ONLY,
			(errmsg("nobody can sign in by token: key file \"%s\" %s",
					pp_jwks_file, problem),
			 errhidestmt(true), errhidecontext(true)));
}

/*
 * complain_of_key does the same about one key, counted from 1.
 */
static void
complain_of_key(int number, const char *problem)
{
	if (quiet)
		return;
	ereport(LOG_SERVER_ONLY,
			(errmsg("key %d of key file \"%s\" is left out: %s",
					number, pp_jwks_file, problem),
			 errhidestmt(true), errhidecontext(true)));
}

/*
 * forget_keys empties the key set.
 */
static void
forget_keys(void)
{
	for (int i = 0; i < key_set.nkeys; i++)
		pp_key_forget(&key_set.keys[i]);
	key_set.nkeys = 0;
	key_set.keys = NULL;
	key_set.generation++;
	if (key_context == NULL)
		key_context = AllocSetContextCreate(TopMemoryContext, "partner_portal keys",
											ALLOCSET_SMALL_SIZES);
	MemoryContextReset(key_context);
}

/*
 * read_file returns the content of the file; NULL, with a complaint, if it
 * cannot be had.
 */
static char *
read_file(const PpFileStamp *stamp, size_t *length)
{
	char	   *content;
	FILE	   *file;
	bool		failed;

	errno = stamp->error;
	if (stamp->error != 0)
	{
		complain(psprintf("cannot be opened: %s", strerror(stamp->error)));
		return NULL;
	}
	if (!S_ISREG(stamp->mode))
	{
		complain("is not a regular file");
		return NULL;
	}
	if (stamp->size > MAX_FILE_BYTES)
	{
		complain("is larger than 1 MB");
		return NULL;
	}
	if ((stamp->mode & S_IWOTH) != 0)
	{
		complain("can be written by others");
		return NULL;
	}
	file = AllocateFile(loaded_path, PG_BINARY_R);
	if (file == NULL)
	{
		complain(psprintf("cannot be opened: %s", strerror(errno)));
		return NULL;
	}
	content = palloc(MAX_FILE_BYTES + 1);
	*length = fread(content, 1, MAX_FILE_BYTES + 1, file);
	failed = ferror(file) != 0;
	FreeFile(file);
	if (failed || *length > MAX_FILE_BYTES)
	{
		complain("cannot be read");
		return NULL;
	}
	return content;
}

/*
 * is_private tells whether nobody but the server's user, and root's group for a
 * file of root's, can read a file.
 */
static bool
is_private(const PpFileStamp *stamp)
{
	mode_t		others = stamp->owner == 0 ? S_IRWXO | S_IWGRP : S_IRWXO | S_IRWXG;

	return (stamp->mode & others) == 0;
}

/*
 * take_keys fills the key set from the parsed file.
 */
static void
take_keys(const PpJson *keys, const PpFileStamp *stamp)
{
	int			number = 0;
	int			count = 0;
	MemoryContext old;

	for (const PpJson *jwk = keys->first; jwk != NULL; jwk = jwk->next)
	{
		count++;
		/* HS256's secret and any private key let their reader sign tokens */
		if (!is_private(stamp) && jwk->kind == PP_JSON_OBJECT &&
			(pp_json_member(jwk, "k") != NULL || pp_json_member(jwk, "d") != NULL))
		{
			complain("holds a secret and can be read by others");
			return;
		}
	}
	old = MemoryContextSwitchTo(key_context);
	key_set.keys = palloc0(sizeof(PpKey) * Max(count, 1));
	for (const PpJson *jwk = keys->first; jwk != NULL; jwk = jwk->next)
	{
		const char *problem;

		number++;
		if (pp_key_read(&key_set.keys[key_set.nkeys], jwk, &problem))
			key_set.nkeys++;
		else if (problem != NULL)
			complain_of_key(number, problem);
	}
	MemoryContextSwitchTo(old);
	if (key_set.nkeys == 0)
		complain("has no key for HS256, EdDSA, ES256 or RS256");
}

/*
 * load_keys reads the file into the key set, which stays empty if it cannot be
 * used.
 */
static void
load_keys(const PpFileStamp *stamp)
{
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext,
											   "partner_portal key file",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(work);
	size_t		length;
	char	   *content = read_file(stamp, &length);

	if (content != NULL)
	{
		PpJson	   *set = pp_json_parse(content, length);
		const PpJson *keys = set != NULL && set->kind == PP_JSON_OBJECT ?
			pp_json_member(set, "keys") : NULL;

		if (keys == NULL || keys->kind != PP_JSON_ARRAY)
			complain("is not a JSON Web Key Set");
		else
			take_keys(keys, stamp);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(work);
}

/*
 * pp_key_set returns the keys of the file as it is now; none if it cannot be
 * used.  Its generation changes whenever the file is read.
 */
const PpKeySet *
pp_key_set(void)
{
	const char *path = pp_jwks_file == NULL ? "" : pp_jwks_file;
	PpFileStamp stamp;
	bool		same;

	if (*path == '\0' || strlen(path) >= sizeof(loaded_path))
		memset(&stamp, 0, sizeof(stamp)), stamp.error = ENOENT;
	else
		pp_stamp_file(path, &stamp);
	same = loaded && strcmp(loaded_path, path) == 0 &&
		memcmp(&loaded_stamp, &stamp, sizeof(stamp)) == 0;
	if (same && settled)
		return &key_set;

	loaded = settled = false;
	forget_keys();
	quiet = same;
	strlcpy(loaded_path, path, sizeof(loaded_path));
	loaded_stamp = stamp;
	load_keys(&stamp);
	loaded = true;
	settled = pp_stamp_settled(&stamp);
	return &key_set;
}
