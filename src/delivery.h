/*
 * delivery.h
 *	  One event for one subscription: what came of an attempt to deliver it.
 */
#ifndef PROM_DELIVERY_H
#define PROM_DELIVERY_H

#include "datatype/timestamp.h"

/* What a job that delivers has come to. */
typedef enum PromDelivered
{
	PROM_DELIVERED_NOT, /* it does not wait any more, or its function is gone */
	PROM_DELIVERED_WELL,
	PROM_DELIVERED_BADLY
} PromDelivered;

/* One that is under way. */
typedef struct PromDelivery
{
	int64 delivery_id;
	int64 event_id;
	int64 task_id; /* of the event; 0: none */
	int attempts;  /* that were made before */
	int max_attempts;
	bool is_webhook;
	TimestampTz started_at;
} PromDelivery;

/* How an attempt ended. */
typedef struct PromDeliveryEnd
{
	const char *error;  /* NULL: it is delivered */
	const char *kind;   /* of the error: a word or a number */
	const char *result; /* or NULL */
	bool is_free;       /* it uses up no attempt */
	bool is_last;       /* another one would be no better */
	int http_status;    /* 0: none */
	int64 retry_after;  /* ms; -1: not said */
} PromDeliveryEnd;

/* Bytes of an error and of a result that are kept. */
#define PROM_DELIVERY_TEXT 1000

/*
 * Record it, in a worker's transaction with SPI connected.  False: meanwhile
 * somebody else has, or it is not wanted any more.
 */
extern bool prom_delivery_record(const PromDelivery *delivery,
								 const PromDeliveryEnd *end, TimestampTz now);

/* Nothing more is delivered to a subscription until it is made anew. */
extern void prom_delivery_disable(const char *subscription,
								  const char *reason);

/*
 * It, or its answer, has crashed the server, in a process that began to note at
 * that time.
 */
extern void prom_delivery_strike(int64 delivery_id, TimestampTz since);

/* The relation of subscriptions, whose invalidation says that they changed. */
extern Oid prom_delivery_relation(void);

/* Something of the subscriptions has changed, by this transaction. */
extern void prom_delivery_invalidate(void);

#endif
