/*
 * tally.h
 *	  What the processes of prometheus, and sessions that submit, count.
 *
 * Whoever writes a fact says so here, in the same transaction: it counts if
 * that commits.
 */
#ifndef PROM_TALLY_H
#define PROM_TALLY_H

#include "delivery.h"
#include "judge.h"
#include "metric.h"
#include "outcome.h"

/* A session's. */
extern void prom_tally_submit(const char *agent);

/* Its first attempt begins. */
extern void prom_tally_begin(const PromAttempt *attempt, TimestampTz now);

/* An attempt ends so, or the task with it. */
extern void prom_tally_outcome(const PromAttempt *attempt,
							   const PromOutcome *outcome, TimestampTz now);

/* A step: its kind and status as in the table. */
extern void prom_tally_step(const char *kind, const char *status,
							TimestampTz started_at, TimestampTz now);

/* A reply of a model, for a step of that kind; cost: numeric; NULL: none. */
extern void prom_tally_reply(const PromAttempt *attempt, int64 span_id,
							 const char *kind, const PromReply *reply,
							 const Datum *cost, TimestampTz now);

extern void prom_tally_verdict(const char *stage, const char *effect);

/* An attempt at a delivery has ended; status: what it is now. */
extern void prom_tally_delivery(const PromDelivery *delivery,
								const char *status, TimestampTz now);

/* Outside of transactions, at once. */
extern void prom_tally_gate(PromDatabase *db, const PromGate *gate,
							PromGateReason reason);
extern void prom_tally_mark(void);

/* This process has begun; it has something to do; it has not, and waits. */
extern void prom_tally_start(PromRole role);
extern void prom_tally_wake(void);
extern void prom_tally_wait(void);

#endif
