/*
 * query.h
 *	  Has what a task in full mode looks for embedded, before it recalls.
 */
#ifndef PROM_QUERY_H
#define PROM_QUERY_H

#include "load.h"

/* The kind of its step and of its call. */
#define PROM_QUERY_KIND "embed"

/* The number of its call among those before the first turn. */
#define PROM_QUERY_CALL 3

/*
 * Must the agent's model for embeddings be asked for the request's?  Then that
 * is what the attempt, which has begun, does next: it sends the call, waits
 * before the gate, or has written why it cannot be had.  False: there is no
 * such model, or the embedding is known.
 */
extern bool prom_query_begin(PromFactWriter *writer, PromAttempt *attempt,
							 const PromLoaded *loaded, TimestampTz now);

/* What its model is asked then: the request, or the beginning of a long one. */
extern PromPrompt *prom_query_prompt(const char *request,
									 const PromModel *model);

/*
 * Record what has become of it.  It is no reason to fail: without it the task
 * recalls by words.
 */
extern void prom_query_record(PromFactWriter *writer, PromAttempt *attempt,
							  const PromReply *reply, TimestampTz now);

#endif
