/*-------------------------------------------------------------------------
 *
 * webhook.c
 *		Secrets and signatures of webhooks, after Standard Webhooks 1.0.0.
 *
 * An endpoint's secret is HMAC-SHA256(master key, 'whsec:' nonce ':' version):
 * the nonce is the endpoint's own random uuid, the version grows when the
 * secret is rotated.  Nothing secret is stored.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/base64.h"
#include "common/cryptohash.h"
#include "common/hmac.h"
#include "common/sha2.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "delivery.h"
#include "partner_portal.h"

PG_FUNCTION_INFO_V1(partner_portal_webhook_secret);
PG_FUNCTION_INFO_V1(partner_portal_webhook_key_version);
PG_FUNCTION_INFO_V1(partner_portal_webhook_signature);

/*
 * hmac computes HMAC-SHA256 over up to two pieces.
 */
static void
hmac(const unsigned char *key, size_t key_length, const char *head, size_t head_length,
	 const char *tail, size_t tail_length, unsigned char result[PG_SHA256_DIGEST_LENGTH])
{
	pg_hmac_ctx *context = pg_hmac_create(PG_SHA256);

	if (context == NULL ||
		pg_hmac_init(context, key, key_length) < 0 ||
		pg_hmac_update(context, (const uint8 *) head, head_length) < 0 ||
		(tail_length > 0 && pg_hmac_update(context, (const uint8 *) tail, tail_length) < 0) ||
		pg_hmac_final(context, result, PG_SHA256_DIGEST_LENGTH) < 0)
		elog(ERROR, "could not compute HMAC");
	pg_hmac_free(context);
}

/*
 * pp_webhook_secret derives the secret of an endpoint; false without the master
 * key it was made with.
 */
bool
pp_webhook_secret(const char *nonce, int key_version, int version,
				  unsigned char secret[PP_WEBHOOK_SECRET])
{
	unsigned char key[32];
	char		label[80];
	bool		found = pp_secret_key(key_version, key);

	if (found)
	{
		snprintf(label, sizeof(label), "whsec:%s:%d", nonce, version);
		hmac(key, sizeof(key), label, strlen(label), NULL, 0, secret);
	}
	explicit_bzero(key, sizeof(key));
	return found;
}

/*
 * pp_webhook_sign appends "v1,<signature>" of a message to the text.
 */
void
pp_webhook_sign(StringInfo into, const unsigned char *secret, const char *message_id,
				int64 timestamp, const char *body, size_t body_length)
{
	unsigned char digest[PG_SHA256_DIGEST_LENGTH];
	char		head[128];
	char		encoded[64];
	int			length;

	snprintf(head, sizeof(head), "%s." INT64_FORMAT ".", message_id, timestamp);
	hmac(secret, PP_WEBHOOK_SECRET, head, strlen(head), body, body_length, digest);
	length = pg_b64_encode((const void *) digest, sizeof(digest), encoded, sizeof(encoded));
	appendStringInfoString(into, "v1,");
	appendBinaryStringInfo(into, encoded, length);
}

/*
 * derive returns the secret of an endpoint, or raises the reason why not.
 */
static void
derive(Datum nonce, int key_version, int version, unsigned char secret[PP_WEBHOOK_SECRET])
{
	char	   *text = DatumGetCString(DirectFunctionCall1(uuid_out, nonce));

	if (!pp_webhook_secret(text, key_version, version, secret))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("master key %d is not in the secrets file", key_version),
				 errhint("See partner_portal.secrets_file.")));
}

/*
 * webhook_secret(nonce, key_version, version) shows a secret as "whsec_...".
 */
Datum
partner_portal_webhook_secret(PG_FUNCTION_ARGS)
{
	unsigned char secret[PP_WEBHOOK_SECRET];
	char		encoded[64];
	int			length;

	derive(PG_GETARG_DATUM(0), PG_GETARG_INT32(1), PG_GETARG_INT32(2), secret);
	length = pg_b64_encode((const void *) secret, sizeof(secret), encoded, sizeof(encoded));
	explicit_bzero(secret, sizeof(secret));
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("whsec_%.*s", length, encoded)));
}

/*
 * webhook_key_version() returns the newest master key's version.  55000 if
 * there is none.
 */
Datum
partner_portal_webhook_key_version(PG_FUNCTION_ARGS)
{
	int			version = pp_secret_latest_key();

	if (version == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no master key for secrets of webhooks"),
				 errhint("Put a line \"key 1 <32 random bytes in base64>\" in the file named by partner_portal.secrets_file.")));
	PG_RETURN_INT32(version);
}

/*
 * webhook_signature(secret, message_id, timestamp, body) signs as a delivery
 * does, with a secret shown as "whsec_..."; for tests and for receivers written
 * in SQL.
 */
Datum
partner_portal_webhook_signature(PG_FUNCTION_ARGS)
{
	char	   *shown = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *message_id = text_to_cstring(PG_GETARG_TEXT_PP(1));
	text	   *body = PG_GETARG_TEXT_PP(3);
	unsigned char secret[64];
	StringInfoData signature;

	if (strncmp(shown, "whsec_", 6) != 0 ||
		pg_b64_decode(shown + 6, strlen(shown + 6), (void *) secret, sizeof(secret)) != PP_WEBHOOK_SECRET)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("not a webhook secret")));
	initStringInfo(&signature);
	pp_webhook_sign(&signature, secret, message_id, PG_GETARG_INT64(2),
					VARDATA_ANY(body), VARSIZE_ANY_EXHDR(body));
	PG_RETURN_TEXT_P(cstring_to_text(signature.data));
}
