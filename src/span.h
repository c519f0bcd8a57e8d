/*
 * span.h
 *	  Spans of applications: of what a session does, whatever becomes of its
 *	  transactions.
 */
#ifndef PROM_SPAN_H
#define PROM_SPAN_H

#include "shmem.h"
#include "trace.h"

/* Spans that a session may have open at once. */
#define PROM_MAX_OPEN_SPANS 64

extern void prom_span_init(void);

/*
 * The traceparent of what the session is in, palloc'd: its newest open span.
 * NULL: none is.
 */
extern char *prom_span_current(void);

/* Executor: no span of a job goes on after it. */
extern void prom_span_end_all(void);

/* The ring, in shared memory that has just been made; or of no database. */
extern void prom_span_init_ring(PromSpanRing *ring);
extern void prom_span_forget(PromSpanRing *ring);

/* Those for which the ring had no room since the server's start. */
extern uint64 prom_span_dropped(PromDatabase *db);

/* Publisher: when spans are to be written; DT_NOEND: there are none. */
extern TimestampTz prom_span_due(TimestampTz now);

/* Publisher: write some of them; raises as any statement. */
extern void prom_span_write(void);

/* Publisher: that has failed. */
extern void prom_span_failed(void);

#endif
