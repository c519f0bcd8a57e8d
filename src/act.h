/*
 * act.h
 *	  What an executor does for a task: a tool call, or a turn of a function.
 */
#ifndef PROM_ACT_H
#define PROM_ACT_H

#include "judge.h"
#include "prompt.h"
#include "shmem.h"
#include "step.h"

/*
 * Do a job: its step is written, unless it is there already.  Raises if it
 * cannot be, or is not wanted any more.  In a worker's transaction with SPI
 * connected.
 */
extern void prom_act(PromJob *job);


/* What the files that do jobs share. */

/* Bytes of an error that a model is told. */
#define PROM_ACT_MAX_ERROR 8192

/* The whole characters of a text that fit into limit bytes. */
extern const char *prom_act_clip(const char *text, int limit);

/* What is left of a time-out before the task's deadline, ms. */
extern int64 prom_act_time_left(int64 timeout, const PromJob *job,
								TimestampTz now);

/*
 * Who the tools of a task run as: its agent's role, or its submitter.  Why they
 * cannot, or NULL.
 */
extern const char *prom_act_find_role(const PromPromptFacts *facts, Oid *role);

/* Why a job's step is an error without anything having been run; or NULL. */
extern const char *prom_act_refused(const PromJob *job);

/* The dropped job of a task that is cancelled must not leave a step: raise. */
extern void prom_act_check_wanted(PromJob *job);

/*
 * What the policies say of a call.  False: it waits for a person, who has been
 * asked, or for a model, as the job then says; else it may be run, or the step
 * says that it is vetoed.  A verdict with an opinion has been recorded.
 */
extern bool prom_act_judge(PromJob *job, const PromJudged *judged,
						   const PromAgent *agent, PromVerdict *verdict,
						   PromToolStep *step);

#endif
