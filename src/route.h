/*
 * route.h
 *	  Which model an attempt goes to, and when the next one goes.
 */
#ifndef PROM_ROUTE_H
#define PROM_ROUTE_H

#include "attempt.h"

/* Where the attempts of a task may go. */
typedef struct PromRoute
{
	const char *model; /* the agent's, and its version */
	int64 version;
	int32 used;            /* attempts used up */
	int32 retried_attempt; /* after which it was retried by hand; 0: never */
} PromRoute;

/*
 * Choose the model of an attempt, whose gate then counts it as in flight;
 * false: no model has room.  In a transaction with SPI connected.
 */
extern bool prom_route_choose(PromAttempt *attempt, const PromRoute *route,
							  TimestampTz now);

/*
 * The same for an attempt that has begun, and keeps the model that it has.
 */
extern bool prom_route_keep(PromAttempt *attempt, const PromRoute *route,
							TimestampTz now);

/*
 * The way to a model that is to review, in its newest version; NULL: there is
 * none of this name.  The attempt keeps the model that it has.
 */
extern bool prom_route_reviewer(PromAttempt *attempt, const char *name,
								TimestampTz now, const PromModel **model);

/*
 * May its call, which needs so many tokens, be sent by the rate of the gate
 * that it has entered?  If not, it waits before those of that model's chain.
 */
extern bool prom_route_fits(PromAttempt *attempt, const char *model,
							int64 tokens_in, TimestampTz now);

/* Is the way to its model only held by its rate? */
extern bool prom_route_is_held(const PromAttempt *attempt, TimestampTz now);

/* It is sent; the headers of its reply have come (inside libcurl). */
extern void prom_route_sent(PromAttempt *attempt);
extern void prom_route_heard(PromAttempt *attempt, const PromHeaders *headers,
							 TimestampTz now);

/*
 * What became of a call tells the gate that it passed; and an attempt that is
 * not to be sent, or was dropped, is not in flight any more.
 */
extern void prom_route_end(PromAttempt *attempt, TimestampTz now);
extern void prom_route_leave(PromAttempt *attempt);

/* When a task is to be tried again after a reply that failed. */
extern TimestampTz prom_route_retry_at(const PromAttempt *attempt,
									   const PromReply *reply,
									   TimestampTz now);

#endif
