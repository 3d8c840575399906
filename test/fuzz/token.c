/*-------------------------------------------------------------------------
 *
 * token.c
 *		libFuzzer target: a login token.
 *
 * An input that begins with 'r' is a token as it comes from outside.  Any
 * other is a header and claims, parted by a line feed, that get signed here:
 * otherwise nothing behind the signature would ever be reached.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hmac.h"
#include "common/sha2.h"

#include "partner_portal.h"
#include "server.h"

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
static uint8 secret[] = "a secret of the fuzzer, thirty-two bytes";
static PpKey key = {.algorithm = PP_HS256, .secret = secret, .secret_length = sizeof(secret) - 1};
static PpKeySet keys = {.nkeys = 1, .keys = &key, .generation = 1};

const PpKeySet *
pp_key_set(void)
{
	return &keys;
}

/*
 * encode appends bytes in base64url and returns the new end.
 */
static char *
encode(char *end, const uint8 *bytes, size_t length)
{
	uint32		bits = 0;
	int			nbits = 0;

	for (size_t i = 0; i < length; i++)
	{
		bits = (bits << 8 | bytes[i]) & 0xFFFF;
		for (nbits += 8; nbits >= 6; nbits -= 6)
			*end++ = letters[bits >> (nbits - 6) & 63];
	}
	if (nbits > 0)
		*end++ = letters[bits << (6 - nbits) & 63];
	return end;
}

/*
 * sign makes a token of a header and claims.
 */
static size_t
sign(char *token, const uint8 *data, size_t size)
{
	const uint8 *feed = memchr(data, '\n', size);
	size_t		header = feed == NULL ? size : feed - data;
	uint8		mac[PG_SHA256_DIGEST_LENGTH];
	pg_hmac_ctx *context = pg_hmac_create(PG_SHA256);
	char	   *end = encode(token, data, header);

	*end++ = '.';
	if (feed != NULL)
		end = encode(end, feed + 1, size - header - 1);
	if (pg_hmac_init(context, secret, sizeof(secret) - 1) < 0 ||
		pg_hmac_update(context, (uint8 *) token, end - token) < 0 ||
		pg_hmac_final(context, mac, sizeof(mac)) < 0)
		abort();
	pg_hmac_free(context);
	*end++ = '.';
	return encode(end, mac, sizeof(mac)) - token;
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	PpClaims	claims;
	char	   *made;
	char	   *token;
	size_t		length;

	if (size == 0 || size > 8192)
		return 0;
	/* a piece of its own exact size, so that one byte too far is seen */
	if (data[0] == 'r')
	{
		length = size - 1;
		token = palloc(length);
		memcpy(token, data + 1, length);
	}
	else
	{
		made = palloc(size * 2 + 100);
		length = sign(made, data, size);
		token = palloc(length);
		memcpy(token, made, length);
	}
	if (pp_token_verify(token, length, &claims))
	{
		/* whoever signed is believed only with an expiry ahead, and no text runs on */
		if (claims.expires_at <= INT64CONST(820000000000000) ||
			(claims.email != NULL && strlen(claims.email) > length) ||
			(claims.subject != NULL && strlen(claims.subject) > length))
			abort();
	}
	fuzz_forget();
	return 0;
}
