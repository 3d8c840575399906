/*-------------------------------------------------------------------------
 *
 * signature.c
 *		A JSON Web Key, and whether it signed some bytes (RFC 7517, 7518, 8037).
 *
 * The key fixes the algorithm: HS256 for a secret, EdDSA for Ed25519, ES256 for
 * P-256, RS256 for RSA of 2048 bits or more.  There are no others.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>

#include "common/hmac.h"
#include "common/sha2.h"

#include "partner_portal.h"

#define MIN_SECRET_BYTES	32
#define MIN_RSA_BITS		2048
#define MAX_RSA_BITS		8192

/*
 * decode_member returns the bytes of a member in base64url, palloc'ed; NULL if
 * it is absent or malformed.
 */
static uint8 *
decode_member(const PpJson *jwk, const char *name, size_t *length)
{
	const char *text;
	uint8	   *bytes;

	if (!pp_json_string(jwk, name, &text) || text == NULL)
		return NULL;
	bytes = palloc(strlen(text) + 1);
	return pp_base64url_decode(text, strlen(text), bytes, length) ? bytes : NULL;
}

/*
 * key_from_params makes an OpenSSL key of its public parts; NULL if they are
 * no key, a point off the curve included.
 */
static EVP_PKEY *
key_from_params(const char *type, OSSL_PARAM_BLD *builder)
{
	OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(builder);
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY_CTX *check = NULL;
	EVP_PKEY   *pkey = NULL;

	if (params != NULL && context != NULL &&
		EVP_PKEY_fromdata_init(context) == 1 &&
		EVP_PKEY_fromdata(context, &pkey, EVP_PKEY_PUBLIC_KEY, params) == 1)
	{
		check = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
		if (check == NULL || EVP_PKEY_public_check(check) != 1)
		{
			EVP_PKEY_free(pkey);
			pkey = NULL;
		}
	}
	EVP_PKEY_CTX_free(check);
	EVP_PKEY_CTX_free(context);
	OSSL_PARAM_free(params);
	return pkey;
}

/*
 * ec_key makes a P-256 key of its two coordinates.
 */
static EVP_PKEY *
ec_key(const uint8 *x, const uint8 *y)
{
	OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
	EVP_PKEY   *pkey = NULL;
	uint8		point[65];

	point[0] = POINT_CONVERSION_UNCOMPRESSED;
	memcpy(point + 1, x, 32);
	memcpy(point + 33, y, 32);
	if (builder != NULL &&
		OSSL_PARAM_BLD_push_utf8_string(builder, OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0) &&
		OSSL_PARAM_BLD_push_octet_string(builder, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point)))
		pkey = key_from_params("EC", builder);
	OSSL_PARAM_BLD_free(builder);
	return pkey;
}

/*
 * rsa_key makes an RSA key of modulus and exponent.
 */
static EVP_PKEY *
rsa_key(const uint8 *n, size_t n_length, const uint8 *e, size_t e_length)
{
	OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
	BIGNUM	   *modulus = BN_bin2bn(n, n_length, NULL);
	BIGNUM	   *exponent = BN_bin2bn(e, e_length, NULL);
	EVP_PKEY   *pkey = NULL;

	if (builder != NULL && modulus != NULL && exponent != NULL &&
		BN_num_bits(modulus) >= MIN_RSA_BITS && BN_num_bits(modulus) <= MAX_RSA_BITS &&
		BN_num_bits(exponent) >= 2 && BN_num_bits(exponent) <= 64 && BN_is_odd(exponent) &&
		OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_N, modulus) &&
		OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_E, exponent))
		pkey = key_from_params("RSA", builder);
	BN_free(modulus);
	BN_free(exponent);
	OSSL_PARAM_BLD_free(builder);
	return pkey;
}

/*
 * fill_key takes the key material of a JWK whose algorithm is known.  Returns
 * what is wrong with it, NULL for nothing.
 */
static const char *
fill_key(PpKey *key, const PpJson *jwk)
{
	uint8	   *first;
	uint8	   *second;
	size_t		first_length;
	size_t		second_length;

	switch (key->algorithm)
	{
		case PP_HS256:
			first = decode_member(jwk, "k", &first_length);
			if (first == NULL || first_length < MIN_SECRET_BYTES)
				return "its secret is no base64url or shorter than 32 bytes";
			key->secret = first;
			key->secret_length = first_length;
			return NULL;
		case PP_EDDSA:
			first = decode_member(jwk, "x", &first_length);
			if (first != NULL && first_length == 32)
				key->pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, first, 32);
			break;
		case PP_ES256:
			first = decode_member(jwk, "x", &first_length);
			second = decode_member(jwk, "y", &second_length);
			if (first != NULL && second != NULL && first_length == 32 && second_length == 32)
				key->pkey = ec_key(first, second);
			break;
		case PP_RS256:
			first = decode_member(jwk, "n", &first_length);
			second = decode_member(jwk, "e", &second_length);
			if (first != NULL && second != NULL && first_length <= 2048 && second_length <= 16)
				key->pkey = rsa_key(first, first_length, second, second_length);
			break;
	}
	ERR_clear_error();
	return key->pkey == NULL ? "it is no valid public key, or an RSA one of fewer than 2048 bits" : NULL;
}

/*
 * key_algorithm tells which algorithm a JWK is for, by its type and curve.
 */
static bool
key_algorithm(const PpJson *jwk, PpAlgorithm *algorithm)
{
	const char *type;
	const char *curve;

	if (!pp_json_string(jwk, "kty", &type) || type == NULL ||
		!pp_json_string(jwk, "crv", &curve))
		return false;
	if (strcmp(type, "oct") == 0)
		*algorithm = PP_HS256;
	else if (strcmp(type, "RSA") == 0)
		*algorithm = PP_RS256;
	else if (strcmp(type, "OKP") == 0 && curve != NULL && strcmp(curve, "Ed25519") == 0)
		*algorithm = PP_EDDSA;
	else if (strcmp(type, "EC") == 0 && curve != NULL && strcmp(curve, "P-256") == 0)
		*algorithm = PP_ES256;
	else
		return false;
	return true;
}

/*
 * may_verify tells whether "use" and "key_ops", where they are there, allow a
 * key to verify signatures.
 */
static bool
may_verify(const PpJson *jwk, const char *use)
{
	const PpJson *operations = pp_json_member(jwk, "key_ops");

	if (use != NULL && strcmp(use, "sig") != 0)
		return false;
	if (operations == NULL)
		return true;
	for (const PpJson *one = operations->first; one != NULL; one = one->next)
		if (one->kind == PP_JSON_STRING && strcmp(one->text, "verify") == 0)
			return true;
	return false;
}

/*
 * pp_algorithm_name returns what a token's "alg" says for an algorithm.
 */
const char *
pp_algorithm_name(PpAlgorithm algorithm)
{
	static const char *const names[] = {"HS256", "EdDSA", "ES256", "RS256"};

	return names[algorithm];
}

/*
 * pp_key_read takes a key from a JWK, palloc'ed in the current context but for
 * OpenSSL's part.  False if it is none of ours; then *problem is NULL if it is
 * merely of a kind or for a use we do not know (RFC 7517, 5), else says in a
 * sentence without its content what is wrong.
 */
bool
pp_key_read(PpKey *key, const PpJson *jwk, const char **problem)
{
	const char *algorithm;
	const char *use;
	const char *id;

	memset(key, 0, sizeof(PpKey));
	*problem = "a member of it has the wrong type";
	if (jwk->kind != PP_JSON_OBJECT ||
		!pp_json_string(jwk, "alg", &algorithm) ||
		!pp_json_string(jwk, "use", &use) ||
		!pp_json_string(jwk, "kid", &id))
		return false;
	*problem = NULL;
	if (!key_algorithm(jwk, &key->algorithm) ||
		(algorithm != NULL && strcmp(algorithm, pp_algorithm_name(key->algorithm)) != 0) ||
		!may_verify(jwk, use))
		return false;
	key->id = id == NULL ? NULL : pstrdup(id);
	*problem = fill_key(key, jwk);
	return *problem == NULL;
}

/*
 * pp_key_forget frees what a key holds outside of its memory context, and
 * wipes its secret.
 */
void
pp_key_forget(PpKey *key)
{
	EVP_PKEY_free(key->pkey);
	key->pkey = NULL;
	if (key->secret != NULL)
		OPENSSL_cleanse(key->secret, key->secret_length);
	key->secret = NULL;
}

/*
 * hmac_matches tells whether a MAC is that of the data, in a time that does not
 * depend on where they differ.
 */
static bool
hmac_matches(const PpKey *key, const uint8 *data, size_t length,
			 const uint8 *signature, size_t signature_length)
{
	uint8		mac[PG_SHA256_DIGEST_LENGTH];
	pg_hmac_ctx *context;
	bool		done;

	if (signature_length != sizeof(mac))
		return false;
	context = pg_hmac_create(PG_SHA256);
	if (context == NULL)
		return false;
	done = pg_hmac_init(context, key->secret, key->secret_length) >= 0 &&
		pg_hmac_update(context, data, length) >= 0 &&
		pg_hmac_final(context, mac, sizeof(mac)) >= 0;
	pg_hmac_free(context);
	return done && CRYPTO_memcmp(mac, signature, sizeof(mac)) == 0;
}

/*
 * ecdsa_to_der writes the r||s of a token as the DER that OpenSSL reads, in
 * OpenSSL's memory.  Returns its length, 0 if it failed.
 */
static int
ecdsa_to_der(const uint8 *signature, unsigned char **der)
{
	ECDSA_SIG  *pair = ECDSA_SIG_new();
	BIGNUM	   *r = BN_bin2bn(signature, 32, NULL);
	BIGNUM	   *s = BN_bin2bn(signature + 32, 32, NULL);
	int			length = 0;

	*der = NULL;
	if (pair != NULL && r != NULL && s != NULL && ECDSA_SIG_set0(pair, r, s) == 1)
	{
		r = s = NULL;			/* they are the pair's now */
		length = i2d_ECDSA_SIG(pair, der);
		if (length < 0)
			length = 0;
	}
	BN_free(r);
	BN_free(s);
	ECDSA_SIG_free(pair);
	return length;
}

/*
 * pp_key_verify tells whether the key made the signature of the data.
 */
bool
pp_key_verify(const PpKey *key, const uint8 *data, size_t length,
			  const uint8 *signature, size_t signature_length)
{
	EVP_MD_CTX *context;
	unsigned char *der = NULL;
	bool		good;

	if (key->algorithm == PP_HS256)
		return hmac_matches(key, data, length, signature, signature_length);
	if (key->algorithm == PP_ES256)
	{
		if (signature_length != 64)
			return false;
		signature_length = ecdsa_to_der(signature, &der);
		signature = der;
	}
	context = EVP_MD_CTX_new();
	good = context != NULL && signature_length > 0 &&
		EVP_DigestVerifyInit(context, NULL,
							 key->algorithm == PP_EDDSA ? NULL : EVP_sha256(),
							 NULL, key->pkey) == 1 &&
		EVP_DigestVerify(context, signature, signature_length, data, length) == 1;
	EVP_MD_CTX_free(context);
	OPENSSL_free(der);
	ERR_clear_error();
	return good;
}
