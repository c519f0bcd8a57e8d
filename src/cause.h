/*
 * cause.h
 *	  What an event or a task comes from.
 */
#ifndef PROM_CAUSE_H
#define PROM_CAUSE_H

#define PROM_MAX_CAUSES 16 /* one behind the other */

typedef struct PromCause
{
	int64 event_id;    /* 0: nothing is known */
	int64 task_id;     /* whose tool or model runs; 0: none */
	const char *agent; /* of that task, or NULL */
	int32 depth;       /* causes, one behind the other; 0: none */
} PromCause;

/*
 * What causes that which this session is about to write; raises if there are
 * too many, one behind the other.  is_task: it is a task, not an event.
 */
extern void prom_cause_find(PromCause *cause, bool is_task);

/* This session is told of an event of a task, or of none (0). */
extern void prom_cause_tell(int64 event_id, int64 task_id);

#endif
