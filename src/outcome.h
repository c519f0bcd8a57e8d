/*
 * outcome.h
 *	  How attempts end.
 */
#ifndef PROM_OUTCOME_H
#define PROM_OUTCOME_H

#include "load.h"

/* The end of one attempt. */
typedef struct PromOutcome
{
	const char *outcome;
	int32 attempt;
	int32 used;
	int32 step;              /* its last; 0: none */
	TimestampTz next_run_at; /* 0: none */
	const char *error_type;
	const char *error;
} PromOutcome;

/* The attempt is one of a task that was identified, see load.h. */
extern void prom_outcome_add(PromFactWriter *writer, const PromAttempt *attempt,
							 const PromOutcome *outcome, TimestampTz now);

/*
 * The task ends as it is loaded: on the attempt that is open, if there is one,
 * else on one that never began.
 */
extern void prom_outcome_end(PromFactWriter *writer, PromAttempt *attempt,
							 const PromLoaded *loaded, const char *outcome,
							 const char *error_type, const char *error,
							 TimestampTz now);

/* The task is completed, by the answer that this step is. */
extern void prom_outcome_complete(PromFactWriter *writer, PromAttempt *attempt,
								  int32 step, TimestampTz now);

/* Did it fail in passing?  What cannot be read will not be better. */
extern bool prom_outcome_is_passing(const PromReply *reply);

/* Is the task to be tried again after a reply that failed? */
extern bool prom_outcome_goes_on(const PromAttempt *attempt,
								 const PromReply *reply);

/*
 * The attempt ends, or goes on, with the reply that its model gave and whose
 * step was just added.
 */
extern void prom_outcome_of_reply(PromFactWriter *writer, PromAttempt *attempt,
								  const PromReply *reply, TimestampTz now);

/*
 * A turn of a model that is a function failed: its step is there, and what
 * becomes of the task is not.
 */
extern void prom_outcome_of_failed_chat(PromFactWriter *writer,
										PromAttempt *attempt, TimestampTz now);

#endif
