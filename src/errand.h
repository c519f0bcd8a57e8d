/*
 * errand.h
 *	  A tool call that is a request on the network: judged by an executor, sent
 *	  by the caller.
 */
#ifndef PROM_ERRAND_H
#define PROM_ERRAND_H

#include "asked.h"
#include "fetch.h"
#include "shmem.h"
#include "step.h"

/* What is to be done with one when the turn's transaction has committed. */
typedef enum PromErrandNext
{
	PROM_ERRAND_SEND,
	PROM_ERRAND_JUDGE, /* it has no verdict that counts: have it judged */
	PROM_ERRAND_END    /* its step is there */
} PromErrandNext;

/* One in the caller's hands.  It owns fetch. */
typedef struct PromErrand
{
	int64 task_id;
	int32 attempt;
	int32 step;
	int32 turn; /* of the model, that asked for it */
	TimestampTz deadline;
	PromErrandNext next;
	int64 call_id;
	TimestampTz sent_at;
	PromFetchSpec spec;  /* until it is sent, in the memory of the turn */
	PromFetch *fetch;    /* on the network, or ended and not recorded */
	const char *problem; /* why its result cannot be recorded; or NULL */
} PromErrand;

/*
 * Executor: judge it.  The job then says that it may be sent, or its step is
 * written, or it waits for a person.  step->error: why it cannot be judged.
 */
extern void prom_errand_judge(PromJob *job, const PromAsked *asked,
							  PromToolStep *step);

/* Why a person is asked whether it is to be sent again. */
extern const char *prom_errand_sent_before(int64 call_id, const char *reason);

/* Caller: the intent to send it, if its verdict counts. */
extern void prom_errand_intend(PromFactWriter *writer, PromErrand *errand,
							   TimestampTz now);

/* Caller: the step of one that has ended. */
extern void prom_errand_record(PromFactWriter *writer, PromErrand *errand,
							   TimestampTz now);

#endif
