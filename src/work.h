/*
 * work.h
 *	  What the caller has in hand for a task, and how it is written.
 */
#ifndef PROM_WORK_H
#define PROM_WORK_H

#include "attempt.h"
#include "errand.h"
#include "job.h"

/* Works in one turn that begin, or go on. */
#define PROM_WORK_MOST_BEGIN 256

/* Before what could not be written is tried again, ms. */
#define PROM_WORK_WRITE_AGAIN 1000

typedef enum PromWorkStage
{
	PROM_WORK_NONE,   /* no task is in this slot */
	PROM_WORK_BEGIN,  /* to be loaded, and begun or gone on with */
	PROM_WORK_CALL,   /* its request is on the network */
	PROM_WORK_JOBS,   /* executors work for it */
	PROM_WORK_RECORD, /* the call has ended */
	PROM_WORK_CANCEL, /* the request was dropped */
	PROM_WORK_INTEND, /* an errand: its call is to be written, then sent */
	PROM_WORK_RESULT  /* an errand: it has ended */
} PromWorkStage;

typedef struct PromWork
{
	PromAttempt attempt;
	PromWorkStage stage;
	bool in_turn;
	bool handled;                 /* its gate was looked at for the scheduler */
	PromJobOwner jobs;            /* with executors, or waiting for one */
	char failure[PROM_JOB_ERROR]; /* of one that can never be done; or empty */
	TimestampTz not_before;       /* of writing again */
	bool joins;                   /* it waits for the end of an equal request */
	int nerrands;                 /* requests of tools under way for it */

	/* Of a work that is one of these; its attempt has only the task's ids. */
	PromErrand *errand;    /* NULL: it is a task's own */
	struct PromWork *task; /* whose it is */
	dlist_node link;       /* among all errands */
} PromWork;

/* If the server crashes now, it is because of this work's task. */
extern void prom_work_name(const PromWork *work);

/*
 * Write what these works are at in one transaction, or each alone if that
 * fails.  How many were written: they come first then, and the others have a
 * moment before which they are not to be tried again.  What it allocates is in
 * the current context.
 */
extern int prom_work_write(PromWork **list, int n, TimestampTz now);

/* The fault points before and after the commit of what these works are at. */
extern void prom_work_reach_faults(PromWork **list, int n, bool committed);

/* Have what comes of replies told to whose they are. */
extern void prom_work_hear_replies(void);

/* The first deadline of those, by slot, that wait for an equal request. */
extern TimestampTz prom_work_joined_until(const PromWork *works);

#endif
