/*
 * webhook.c
 *	  Signs webhooks as Standard Webhooks 1.0 prescribe.
 *
 * The signature is HMAC-SHA256 over id, time and body, with dots between them,
 * by the key whose base64 form is after "whsec_".  The id is that of the event
 * for this subscription, whatever the attempt: a receiver knows by it what he
 * has seen already.  The time is that of the attempt, so that an old message
 * cannot be sent again by others.
 */
#include "postgres.h"

#include "common/base64.h"
#include "common/hmac.h"
#include "common/sha2.h"
#include "utils/timestamp.h"

#include "secret.h"
#include "shmem.h"
#include "webhook.h"

#define PREFIX "whsec_"

/* Bytes of a key: what the specification asks for, and what is enough. */
#define SHORTEST_KEY 16
#define LONGEST_KEY 512

/* The key itself; how many bytes, or -1: it is none. */
static int
decode_key(const char *secret, uint8 *key)
{
	size_t length = strlen(secret);
	int n;

	if (strncmp(secret, PREFIX, strlen(PREFIX)) == 0)
	{
		secret += strlen(PREFIX);
		length -= strlen(PREFIX);
	}
	if (pg_b64_dec_len((int) length) > LONGEST_KEY)
		return -1;
	n = pg_b64_decode((const void *) secret, (int) length, (void *) key,
					  LONGEST_KEY);
	return n < SHORTEST_KEY ? -1 : n;
}

static bool
make_signature(const uint8 *key, int key_length, const char *signed_text,
			   uint8 *digest)
{
	pg_hmac_ctx *context = pg_hmac_create(PG_SHA256);
	bool made;

	if (context == NULL)
		return false;
	made = pg_hmac_init(context, key, key_length) == 0 &&
		   pg_hmac_update(context, (const uint8 *) signed_text,
						  strlen(signed_text)) == 0 &&
		   pg_hmac_final(context, digest, PG_SHA256_DIGEST_LENGTH) == 0;
	pg_hmac_free(context);
	return made;
}

bool
prom_webhook_sign(PromWebhookHeaders *headers, const char *secret,
				  const char *subscription, int64 event_id, TimestampTz now,
				  const char *body, char *error, size_t error_size)
{
	uint8 key[LONGEST_KEY];
	uint8 digest[PG_SHA256_DIGEST_LENGTH];
	char encoded[2 * PG_SHA256_DIGEST_LENGTH];
	char *text;
	char *seconds = psprintf("%lld",
							 (long long) timestamptz_to_time_t(now));
	char *id = psprintf("evt_%lld_%08x", (long long) event_id,
						prom_hash_name(subscription));
	int key_length;
	int n;
	bool made;

	snprintf(headers->id, sizeof(headers->id), "webhook-id: %s", id);
	snprintf(headers->timestamp, sizeof(headers->timestamp),
			 "webhook-timestamp: %s", seconds);
	headers->list[0] = headers->id;
	headers->list[1] = headers->timestamp;
	headers->list[2] = headers->list[3] = NULL;
	if (secret == NULL)
		return true;
	text = prom_secret_read(secret, error, error_size);
	if (text == NULL)
		return false;
	key_length = decode_key(text, key);
	prom_secret_free(text);
	if (key_length < 0)
	{
		explicit_bzero(key, sizeof(key));
		snprintf(error, error_size,
				 "the secret is not whsec_ and %d to %d bytes in base64",
				 SHORTEST_KEY, LONGEST_KEY);
		return false;
	}
	made = make_signature(key, key_length,
						  psprintf("%s.%s.%s", id, seconds, body), digest);
	explicit_bzero(key, sizeof(key));
	if (!made)
	{
		snprintf(error, error_size, "the signature could not be made");
		return false;
	}
	n = pg_b64_encode((const void *) digest, sizeof(digest), encoded,
					  sizeof(encoded));
	snprintf(headers->signature, sizeof(headers->signature),
			 "webhook-signature: v1,%.*s", n, encoded);
	headers->list[2] = headers->signature;
	return true;
}
