/*
 * admission.h
 *	  May a task go on now?
 */
#ifndef PROM_ADMISSION_H
#define PROM_ADMISSION_H

#include "judge.h"
#include "load.h"
#include "progress.h"

typedef enum PromAdmission
{
	PROM_ADMISSION_ALLOWS,
	PROM_ADMISSION_DENIES, /* the task has ended */
	PROM_ADMISSION_WAITS,  /* an executor must judge it */
	PROM_ADMISSION_ASKS,   /* a model must be asked, to which the way is open */
	PROM_ADMISSION_PARKS   /* the same, and it is not: it waits before a gate */
} PromAdmission;

/* What was judged here, and the verdict; it has no policy if there is none. */
typedef struct PromJudgement
{
	const PromPolicies *policies;
	PromJudged judged;
	PromVerdict verdict;
} PromJudgement;

/*
 * Have the request, the pending tool calls, or the answer reviewed, as far as
 * that is not done.  A verdict that allows is in judgement, and not written.
 */
extern PromAdmission prom_admission_ask(PromFactWriter *writer,
										PromAttempt *attempt,
										const PromLoaded *loaded,
										const PromProgress *progress,
										bool begun, PromJudgement *judgement,
										TimestampTz now);

/*
 * Has nobody anything against the answer of a task, and need nobody be asked
 * about it?  As above, a verdict of now is in judgement.
 */
extern bool prom_admission_allowed(const PromAttempt *attempt,
								   const PromLoaded *loaded,
								   const PromProgress *progress,
								   PromJudgement *judgement);

/*
 * Does the attempt need its model now, and may not have it?  Then the task
 * waits before the gate.  An attempt that is under way keeps its model, and one
 * that only ends waits for nothing.
 */
extern bool prom_admission_must_wait(PromAttempt *attempt,
									 const PromLoaded *loaded,
									 bool needs_model, bool ends, bool begun,
									 TimestampTz now);

/*
 * Is there a way to the model of an attempt that need not have one?  It keeps
 * the model that it has.
 */
extern bool prom_admission_reach(PromAttempt *attempt,
								 const PromLoaded *loaded, bool begun,
								 TimestampTz now);

/*
 * The task waits before the gate of a model, and holds nothing: an attempt that
 * was under way ends, and uses up nothing.
 */
extern void prom_admission_park(PromFactWriter *writer, PromAttempt *attempt,
								const PromLoaded *loaded, const char *model,
								bool begun, TimestampTz now);

extern void prom_admission_end_vetoed(PromFactWriter *writer,
									  PromAttempt *attempt,
									  const PromLoaded *loaded,
									  const char *why, TimestampTz now);

#endif
