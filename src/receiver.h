/*
 * receiver.h
 *	  To whom the caller delivers events: the subscriptions, in its memory.
 */
#ifndef PROM_RECEIVER_H
#define PROM_RECEIVER_H

#include "lib/ilist.h"

#include "backlog.h"
#include "gate.h"
#include "job.h"

/* Webhooks that may be under way for one. */
#define PROM_RECEIVER_MOST 8

/* What is waiting is in chunks of memory that begin with their links. */
typedef struct PromReceiver
{
	dlist_node link; /* among all */
	char *name;
	char *owner;
	Oid owner_oid;
	char *url; /* NULL: a function */
	char *secret;
	int64 timeout;
	int max_attempts;
	int breaker_failures;
	TimestampTz paused_at; /* when it was read; 0: it was not */
	bool is_there;         /* it was read the last time */
	PromGate *gate;        /* NULL: there are too many */
	dlist_head waiting;    /* read ahead */
	int nwaiting;
	int in_flight;
	PromBacklog backlog;
	bool look;              /* there may be more that is due */
	TimestampTz next;       /* and then there is; DT_NOEND: not known of any */
	TimestampTz not_before; /* nothing is read or written, after a failure */
	PromJobOwner jobs;
} PromReceiver;

/* All of them. */
extern dlist_head prom_receivers;

extern void prom_receivers_begin(void);

/*
 * In a worker's transaction with SPI connected: read them, if they may have
 * changed, and make and give back their gates.  After the commit that is told;
 * after a failure all is read again.
 */
extern void prom_receivers_read(void);
extern void prom_receivers_committed(void);
extern void prom_receivers_forget(void);

/* There may be more that is due, for any of them. */
extern void prom_receivers_look(void);

/* What waits in memory is read again. */
extern void prom_receiver_forget_waiting(PromReceiver *receiver);

/* One is under way no more; if it is not there either, it is freed. */
extern void prom_receiver_left(PromReceiver *receiver);

#endif
