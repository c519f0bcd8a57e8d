/*
 * backlog.h
 *	  What waits for a subscription: the deliveries that are due.
 */
#ifndef PROM_BACKLOG_H
#define PROM_BACKLOG_H

#include "delivery.h"

/* Read at once, of those with a key and of those without. */
#define PROM_BACKLOG_MOST 32

/*
 * How far one has come in its keys; zeros: they are to be begun.  The caller's,
 * in memory that outlives the transaction.
 */
typedef struct PromBacklog
{
	char *key;        /* the last that was looked at; NULL: none */
	TimestampTz next; /* when the first of those that were not due is */
} PromBacklog;

/* The deliveries that are found, of which only what is in the table is set. */
typedef struct PromBacklogPart
{
	PromDelivery deliveries[2 * PROM_BACKLOG_MOST];
	int n;
	bool more;        /* there may be more that is due now */
	TimestampTz next; /* and then there is; DT_NOEND: not known of any */
} PromBacklogPart;

/*
 * Find some that are due, but not those of these ids, in a worker's transaction
 * with SPI connected.
 */
extern void prom_backlog_read(PromBacklog *backlog, const char *subscription,
							  const int64 *underway, int nunderway,
							  TimestampTz now, PromBacklogPart *part);

/* Begin with its keys anew. */
extern void prom_backlog_forget(PromBacklog *backlog);

#endif
