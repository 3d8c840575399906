/*-------------------------------------------------------------------------
 *
 * jwks.c
 *		libFuzzer target: the content of a key file, read, used once and
 *		forgotten.
 *
 *-------------------------------------------------------------------------
 */
#include "../../src/jwks.c"

#include "server.h"

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	static const uint8 message[] = "header.claims";
	uint8		signature[512];
	PpFileStamp stamp = {.mode = S_IFREG | 0600, .owner = 1};
	PpJson	   *set;
	const PpJson *keys;
	char	   *content;

	if (size == 0 || size > 65536)
		return 0;
	quiet = false;
	content = palloc(size);
	memcpy(content, data, size);
	memset(signature, data[0], sizeof(signature));
	set = pp_json_parse(content, size);
	keys = set != NULL && set->kind == PP_JSON_OBJECT ? pp_json_member(set, "keys") : NULL;
	if (keys != NULL && keys->kind == PP_JSON_ARRAY)
	{
		take_keys(keys, &stamp);
		for (int i = 0; i < key_set.nkeys; i++)
		{
			const PpKey *key = &key_set.keys[i];

			for (size_t length = 0; length <= sizeof(signature); length += 32)
				if (pp_key_verify(key, message, sizeof(message) - 1, signature, length))
					abort();	/* nobody signed this */
		}
	}
	forget_keys();
	fuzz_forget();
	return 0;
}
