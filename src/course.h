/*
 * course.h
 *	  What a task does next: a review, a turn of its model, tool calls.
 */
#ifndef PROM_COURSE_H
#define PROM_COURSE_H

#include "load.h"

/*
 * Begin an attempt, or go on with the one that has begun; attempt->next says
 * with what.  The bytes that this loaded.  In the transaction of a turn.
 */
extern int64 prom_course_go_on(PromFactWriter *writer, PromAttempt *attempt,
							   const PromLoaded *loaded, bool begun,
							   TimestampTz now);

/* Write the attempt's call, of this number in its turn. */
extern void prom_course_add_call(PromFactWriter *writer,
								 const PromAttempt *attempt, int call);

/* The kind of step that the attempt's call, or job of a model, makes. */
extern const char *prom_course_kind(const PromAttempt *attempt);

/*
 * Begin an attempt that does nothing: a task that was completed has one that
 * did it.
 */
extern void prom_course_begin_idle(PromFactWriter *writer,
								   PromAttempt *attempt,
								   const PromLoaded *loaded, TimestampTz now);

/* Why there is no reflection, when these end a task that has its answer. */
#define PROM_COURSE_CANCELLED "the task was cancelled"
#define PROM_COURSE_LATE "the deadline of its task has passed"

/*
 * The task is to end, and be it as failed.  Has it an answer that nobody can
 * object to any more, and only thinks about that, or is a tool by now?  Then it
 * ends as completed with it, and in full mode its reflection says why there is
 * none.  False: it has not.
 */
extern bool prom_course_end_answered(PromFactWriter *writer,
									 PromAttempt *attempt,
									 const PromLoaded *loaded, const char *why,
									 TimestampTz now);

#endif
