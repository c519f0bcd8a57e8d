/*
 * attempt.h
 *	  One run of a task: how it starts, and how it ends.
 */
#ifndef PROM_ATTEMPT_H
#define PROM_ATTEMPT_H

#include "agent.h"
#include "fact.h"
#include "guilt.h"
#include "llm.h"
#include "utils/timestamp.h"

/* What is to be done with an attempt once the turn's transaction committed. */
typedef enum PromAttemptNext
{
	PROM_NEXT_SEND,  /* send the request */
	PROM_NEXT_ENDED, /* the task has ended */
	PROM_NEXT_LATER  /* the task goes on at due */
} PromAttemptNext;

/* A task that this process has claimed.  It owns call. */
typedef struct PromAttempt
{
	int32 slot;
	int64 task_id;
	PromAttemptNext next;
	TimestampTz due; /* with LATER */
	bool retrying;   /* with LATER: an attempt has ended */

	int32 attempt; /* its number; 0: not begun */
	int32 step;    /* the number of its next step */
	int32 used;    /* attempts used up before it */
	int32 max_attempts;
	TimestampTz deadline;
	const PromModel *model; /* in the cache of agent.c */
	int64 call_id;
	TimestampTz sent_at;
	int64 tokens;   /* of the reply, in and out */
	PromCall *call; /* on the network, or ended and not recorded */

	/* From loading to sending, in the memory of the turn, in UTF-8. */
	const char *request;
	const char *instructions;  /* NULL: none */
	const char *output_schema; /* JSON; NULL: any answer will do */
	bool strict;               /* it obeys the rules of strict mode */

	bool has_schema; /* answers are held against it */
} PromAttempt;

/*
 * Load the tasks of n attempts (slot and task_id are set) and begin what can
 * begin: afterwards next says what to do with each.  In a transaction with
 * SPI connected.
 */
extern void prom_attempt_begin(PromFactWriter *writer, PromAttempt **attempts,
							   int n, TimestampTz now);

/* Record a call that has ended, and what follows from it. */
extern void prom_attempt_record(PromFactWriter *writer, PromAttempt *attempt,
								TimestampTz now);

/* End an attempt whose request was dropped, since the task is cancelled. */
extern void prom_attempt_cancel(PromFactWriter *writer, PromAttempt *attempt,
								TimestampTz now);

/* End a task that cannot be begun or recorded: its own error is the reason. */
extern void prom_attempt_give_up(PromFactWriter *writer, PromAttempt *attempt,
								 const char *error_type, const char *error,
								 TimestampTz now);

/*
 * Record that a task crashed the server; after prometheus.max_crashes of that
 * it ends as quarantined.  A crash that was recorded already counts once.
 */
extern void prom_attempt_strike(PromFactWriter *writer,
								const PromCulprit *culprit, TimestampTz now);

#endif
