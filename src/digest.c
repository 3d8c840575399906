/*-------------------------------------------------------------------------
 *
 * digest.c
 *		SHA-256 and random bytes for what is done with every line of the log.
 *
 * Both keep what is costly to make anew: the digest its context, the random
 * bytes a supply.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <openssl/evp.h>

#include "partner_portal.h"

#define RANDOM_SUPPLY	512

/*
 * pp_sha256 leaves the SHA-256 of some bytes.
 */
void
pp_sha256(const void *data, size_t length, uint8 hash[PP_HASH_LENGTH])
{
	static EVP_MD_CTX *context = NULL;
	bool		first = context == NULL;

	if (first)
		context = EVP_MD_CTX_new();
	/* without a type it begins again with that of before */
	if (context == NULL ||
		EVP_DigestInit_ex(context, first ? EVP_sha256() : NULL, NULL) != 1 ||
		EVP_DigestUpdate(context, data, length) != 1 ||
		EVP_DigestFinal_ex(context, hash, NULL) != 1)
	{
		EVP_MD_CTX_free(context);
		context = NULL;
		elog(ERROR, "could not compute SHA-256");
	}
}

/*
 * pp_random_bytes leaves random bytes, at most RANDOM_SUPPLY.  None is given
 * away twice.
 */
void
pp_random_bytes(uint8 *bytes, int length)
{
	static uint8 supply[RANDOM_SUPPLY];
	static int	left = 0;

	Assert(length <= RANDOM_SUPPLY);
	if (left < length)
	{
		left = 0;
		if (!pg_strong_random(supply, RANDOM_SUPPLY))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random bytes")));
		left = RANDOM_SUPPLY;
	}
	left -= length;
	memcpy(bytes, supply + left, length);
	memset(supply + left, 0, length);
}
