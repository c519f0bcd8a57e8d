/*
 * sight.h
 *	  What can be seen of a task while it runs: its step, and the text so far.
 */
#ifndef PROM_SIGHT_H
#define PROM_SIGHT_H

#include "shmem.h"

/* The caller, when it starts: of its database nothing is to be seen. */
extern void prom_sight_begin(void);

/*
 * The caller: a step of the task in a slot begins, which is a call to a model,
 * or a job; kind is that of the step.
 */
extern void prom_sight_set(int32 slot, int64 task_id, int32 step,
						   const char *kind, TimestampTz now);

/* The caller: more of the reply has come, in UTF-8.  Never fails or waits. */
extern void prom_sight_hear(int32 slot, const char *text, size_t length);

/* The caller: the task does not run any more. */
extern void prom_sight_clear(int32 slot);

#endif
