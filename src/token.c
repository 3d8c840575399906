/*-------------------------------------------------------------------------
 *
 * token.c
 *		JSON Web Tokens (RFC 7519) in compact form: header.claims.signature,
 *		each in base64url.
 *
 * The signature is verified before the claims are looked at.  Whatever is wrong
 * with a token, the answer is the same: it is not valid.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "utils/timestamp.h"

#include "partner_portal.h"

#define MAX_TOKEN_BYTES		65536
#define MAX_HEADER_BYTES	4096
#define MAX_TOKEN_ID_BYTES	1000
#define VERIFIED_TOKENS		256

/*
 * A token that a public key was seen to have signed, so as not to compute that
 * again.  Its claims are read each time, and its expiry with them.
 */
typedef struct VerifiedToken
{
	uint64		generation;		/* of the key set; 0 is an empty place */
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
} VerifiedToken;

static VerifiedToken verified[VERIFIED_TOKENS];

/*
 * base64url_value returns the six bits of a character, -1 if it is none.
 */
static int
base64url_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '-')
		return 62;
	if (c == '_')
		return 63;
	return -1;
}

/*
 * pp_base64url_decode decodes base64url as RFC 7515 has it: no padding, no
 * other character, no stray bits at the end.  The output needs length bytes.
 * Allocates nothing and raises nothing.
 */
bool
pp_base64url_decode(const char *text, size_t length, uint8 *bytes, size_t *bytes_length)
{
	uint32		bits = 0;
	int			nbits = 0;
	size_t		n = 0;

	if (length % 4 == 1)
		return false;
	for (size_t i = 0; i < length; i++)
	{
		int			value = base64url_value(text[i]);

		if (value < 0)
			return false;
		bits = (bits << 6 | value) & 0xFFFFFF;
		nbits += 6;
		if (nbits >= 8)
		{
			nbits -= 8;
			bytes[n++] = (bits >> nbits) & 0xFF;
		}
	}
	if ((bits & ((1 << nbits) - 1)) != 0)
		return false;
	*bytes_length = n;
	return true;
}

/*
 * pp_token_split finds the three parts of a token; each has at least one
 * character.  Allocates nothing and raises nothing.
 */
bool
pp_token_split(const char *token, size_t length, PpTokenPart parts[3])
{
	const char *start = token;
	const char *end = token + length;

	for (int i = 0; i < 3; i++)
	{
		const char *dot = memchr(start, '.', end - start);

		if ((dot == NULL) != (i == 2))
			return false;
		parts[i].text = start;
		parts[i].length = (dot == NULL ? end : dot) - start;
		if (parts[i].length == 0)
			return false;
		start = dot == NULL ? end : dot + 1;
	}
	return true;
}

/*
 * parse_part decodes a part and parses it as a JSON object; NULL if it is none.
 */
static PpJson *
parse_part(const PpTokenPart *part)
{
	uint8	   *bytes = palloc(part->length);
	size_t		length;
	PpJson	   *json;

	if (!pp_base64url_decode(part->text, part->length, bytes, &length))
		return NULL;
	json = pp_json_parse((char *) bytes, length);
	return json != NULL && json->kind == PP_JSON_OBJECT ? json : NULL;
}

/*
 * is_signed tells whether one of our keys signed the token.  The header only
 * selects among them: its "alg" must be the key's own, and its "kid" too, where
 * both have one.  *by_secret tells HS256 from the public keys.
 */
static bool
is_signed(const PpKeySet *keys, const char *token, const PpTokenPart parts[3],
		  bool *by_secret)
{
	PpJson	   *header;
	const char *algorithm;
	const char *id;
	uint8	   *signature = palloc(parts[2].length);
	size_t		signature_length;
	const char *end = parts[2].text;
	size_t		signed_length = end - token - 1;

	if (parts[0].length > MAX_HEADER_BYTES ||
		!pp_base64url_decode(parts[2].text, parts[2].length, signature, &signature_length))
		return false;
	header = parse_part(&parts[0]);
	if (header == NULL ||
		!pp_json_string(header, "alg", &algorithm) || algorithm == NULL ||
		!pp_json_string(header, "kid", &id) ||
		pp_json_member(header, "crit") != NULL)
		return false;
	for (int i = 0; i < keys->nkeys; i++)
	{
		const PpKey *key = &keys->keys[i];

		if (strcmp(algorithm, pp_algorithm_name(key->algorithm)) != 0 ||
			(id != NULL && key->id != NULL && strcmp(id, key->id) != 0))
			continue;
		if (pp_key_verify(key, (const uint8 *) token, signed_length,
						  signature, signature_length))
		{
			*by_secret = key->algorithm == PP_HS256;
			return true;
		}
	}
	return false;
}

/*
 * digest_token hashes a token, for the list of verified ones.
 */
static bool
digest_token(const char *token, size_t length, uint8 *digest)
{
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);
	bool		done;

	if (context == NULL)
		return false;
	done = pg_cryptohash_init(context) >= 0 &&
		pg_cryptohash_update(context, (const uint8 *) token, length) >= 0 &&
		pg_cryptohash_final(context, digest, PG_SHA256_DIGEST_LENGTH) >= 0;
	pg_cryptohash_free(context);
	return done;
}

/*
 * get_date reads a NumericDate, seconds since 1970 that may have a fraction.
 * *present tells whether it is there; false if it is not a date.
 */
static bool
get_date(const PpJson *claims, const char *name, bool *present, TimestampTz *date)
{
	const PpJson *claim = pp_json_member(claims, name);
	double		seconds;

	*present = claim != NULL;
	if (claim == NULL)
		return true;
	if (claim->kind != PP_JSON_NUMBER)
		return false;
	seconds = strtod(claim->text, NULL);
	if (!(seconds > -1e11 && seconds < 9e12))
		return false;
	*date = (TimestampTz) floor((seconds - ((double) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)) * USECS_PER_SEC);
	return IS_VALID_TIMESTAMP(*date);
}

/*
 * get_id reads a claim that is an id, as a number or in decimal digits; 0 is
 * none.  False if it is neither.
 */
static bool
get_id(const PpJson *claims, const char *name, int64 *id)
{
	const PpJson *claim = pp_json_member(claims, name);

	*id = 0;
	if (claim == NULL || claim->kind == PP_JSON_NULL)
		return true;
	return (claim->kind == PP_JSON_NUMBER || claim->kind == PP_JSON_STRING) &&
		pp_parse_id(claim->text, id);
}

/*
 * pp_parse_id reads a positive bigint in plain decimal digits.
 */
bool
pp_parse_id(const char *digits, int64 *id)
{
	int64		value = 0;

	if (*digits < '1' || *digits > '9')
		return false;
	for (; *digits != '\0'; digits++)
	{
		int			digit = *digits - '0';

		if (digit < 0 || digit > 9 || value > (PG_INT64_MAX - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	*id = value;
	return true;
}

/*
 * names_audience tells whether "aud", a string or an array of strings, is in
 * order and names the audience we are, if we are any.
 */
static bool
names_audience(const PpJson *claims)
{
	const PpJson *claim = pp_json_member(claims, "aud");
	bool		found = pp_token_audience == NULL || *pp_token_audience == '\0';

	if (claim == NULL)
		return found;
	if (claim->kind == PP_JSON_STRING)
		return found || strcmp(claim->text, pp_token_audience) == 0;
	if (claim->kind != PP_JSON_ARRAY)
		return false;
	for (const PpJson *one = claim->first; one != NULL; one = one->next)
	{
		if (one->kind != PP_JSON_STRING)
			return false;
		if (!found && strcmp(one->text, pp_token_audience) == 0)
			found = true;
	}
	return found;
}

/*
 * names_issuer tells whether "iss" is the issuer we trust, if we name one.
 */
static bool
names_issuer(const PpClaims *claims)
{
	if (pp_token_issuer == NULL || *pp_token_issuer == '\0')
		return true;
	return claims->issuer != NULL && strcmp(claims->issuer, pp_token_issuer) == 0;
}

/*
 * read_subject takes "sub", a string; a number is taken as it is written.
 */
static bool
read_subject(const PpJson *json, PpClaims *claims)
{
	const PpJson *claim = pp_json_member(json, "sub");

	claims->subject = NULL;
	if (claim == NULL)
		return true;
	claims->subject = claim->text;
	return claim->kind == PP_JSON_STRING || claim->kind == PP_JSON_NUMBER;
}

/*
 * read_claims takes the claims we know and tells whether they are in order and
 * in force now.
 */
static bool
read_claims(const PpJson *json, PpClaims *claims)
{
	TimestampTz now = GetCurrentStatementStartTimestamp();
	TimestampTz skew = (TimestampTz) pp_clock_skew * USECS_PER_SEC;
	TimestampTz expires_at = 0;
	TimestampTz not_before = 0;
	bool		has_expiry;
	bool		has_not_before;
	const PpJson *verified_email = pp_json_member(json, "email_verified");

	if (!get_date(json, "exp", &has_expiry, &expires_at) || !has_expiry ||
		!get_date(json, "nbf", &has_not_before, &not_before) ||
		!get_date(json, "iat", &claims->has_issued_at, &claims->issued_at) ||
		!pp_json_string(json, "iss", &claims->issuer) ||
		!pp_json_string(json, "jti", &claims->token_id) ||
		!pp_json_string(json, "email", &claims->email) ||
		!read_subject(json, claims) ||
		!get_id(json, "workspace", &claims->workspace_id) ||
		!get_id(json, "portal", &claims->portal_id))
		return false;
	if (expires_at + skew <= now ||
		(has_not_before && not_before - skew > now) ||
		(claims->has_issued_at && claims->issued_at - skew > now))
		return false;
	if (claims->token_id != NULL && strlen(claims->token_id) > MAX_TOKEN_ID_BYTES)
		return false;
	claims->expires_at = expires_at + skew;
	claims->email_verified = verified_email != NULL && verified_email->kind == PP_JSON_TRUE;
	return names_audience(json) && names_issuer(claims);
}

/*
 * pp_token_verify tells whether a token is signed by one of our keys and in
 * force, and reads its claims.  Whether it was revoked is the caller's to ask.
 * What claims points to is in the current memory context.
 */
bool
pp_token_verify(const char *token, size_t length, PpClaims *claims)
{
	const PpKeySet *keys;
	PpTokenPart parts[3];
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	VerifiedToken *place;
	bool		by_secret = false;
	bool		seen;
	PpJson	   *json;

	if (length > MAX_TOKEN_BYTES || !pp_token_split(token, length, parts))
		return false;
	keys = pp_key_set();
	if (keys->nkeys == 0 || !digest_token(token, length, digest))
		return false;
	place = &verified[digest[0] % VERIFIED_TOKENS];
	seen = place->generation == keys->generation &&
		memcmp(place->digest, digest, sizeof(digest)) == 0;
	if (!seen && !is_signed(keys, token, parts, &by_secret))
		return false;

	json = parse_part(&parts[1]);
	if (json == NULL || !read_claims(json, claims))
		return false;
	if (!seen && !by_secret)
	{
		place->generation = keys->generation;
		memcpy(place->digest, digest, sizeof(digest));
	}
	return true;
}
