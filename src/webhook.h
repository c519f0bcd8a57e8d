/*
 * webhook.h
 *	  What a webhook is sent, beside its body.
 */
#ifndef PROM_WEBHOOK_H
#define PROM_WEBHOOK_H

#include "datatype/timestamp.h"

/* Headers as Standard Webhooks have them, and NULL after the last. */
typedef struct PromWebhookHeaders
{
	char id[64];
	char timestamp[64];
	char signature[96];
	const char *list[4];
} PromWebhookHeaders;

/*
 * Sign a body for an attempt at that time; within a transaction.  secret names
 * the key, NULL: none.  False: error says why it cannot be signed.
 */
extern bool prom_webhook_sign(PromWebhookHeaders *headers, const char *secret,
							  const char *subscription, int64 event_id,
							  TimestampTz now, const char *body, char *error,
							  size_t error_size);

#endif
