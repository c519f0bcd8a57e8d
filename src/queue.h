/*
 * queue.h
 *	  The live tasks of one database, in the order in which they are to run.
 *
 * One scheduler owns it; backends read it for the view prometheus.queue.
 */
#ifndef PROM_QUEUE_H
#define PROM_QUEUE_H

#include "shmem.h"

typedef enum PromQueueState
{
	PROM_QUEUE_FREE,   /* no task is in this entry */
	PROM_QUEUE_LATER,  /* due is in the future */
	PROM_QUEUE_READY,  /* waits for a slot */
	PROM_QUEUE_RUNNING /* has a slot */
} PromQueueState;

/* An entry, in memory that backends can read while they hold queue_lock. */
typedef struct PromQueueEntry
{
	int64 task_id;
	TimestampTz due;
	TimestampTz deadline;
	TimestampTz since; /* when it came into its state */
	PromSubmitter submitter;
	int32 slot; /* while it runs */
	int16 priority;
	uint8 state;   /* PromQueueState */
	bool retrying; /* it had an attempt and will have another */
	bool urgent;   /* cancelled, too late, or left open: runs next */
} PromQueueEntry;

typedef struct PromQueue PromQueue;

/* The scheduler's side.  All but create and next_moment need queue_lock. */
extern PromQueue *prom_queue_create(PromDatabase *db);

/* Add a live task, unless it is there; false: queue_memory is used up. */
extern bool prom_queue_add(PromQueue *queue, const PromHint *hint,
						   bool retrying, bool urgent, TimestampTz now);

/*
 * Tasks were refused since it was full: is there room for many now, or is one
 * of them due?  They are about to be read.
 */
extern bool prom_queue_wants_more(PromQueue *queue, TimestampTz now);
extern void prom_queue_read_anew(PromQueue *queue);

/* Is the task there? */
extern bool prom_queue_has(PromQueue *queue, int64 task_id);

/* A task is cancelled: run it next if it waits.  Its slot, or -1. */
extern int prom_queue_cancel(PromQueue *queue, int64 task_id, TimestampTz now);

/* Make ready what is due, and urgent what is too late. */
extern void prom_queue_advance(PromQueue *queue, TimestampTz now);

/* Take the next ready task into a slot; NULL: none is ready. */
extern PromQueueEntry *
prom_queue_take(PromQueue *queue, int slot, TimestampTz now);

/* Let an attempt's tokens count against its submitter's share. */
extern void prom_queue_charge(PromQueue *queue, Oid submitter, int64 tokens);

/* A task whose slot has been given back: it has ended, or goes on at due. */
extern void prom_queue_remove(PromQueue *queue, int64 task_id);
extern void
prom_queue_put_back(PromQueue *queue, int64 task_id, TimestampTz due,
					bool retrying, bool urgent, TimestampTz now);

/* Mark a task as running in a slot that an earlier scheduler gave it. */
extern void prom_queue_adopt(PromQueue *queue, const PromHint *hint, int slot,
							 TimestampTz now);

/* When prom_queue_advance() has something to do; DT_NOEND: never. */
extern TimestampTz prom_queue_next_moment(PromQueue *queue);
extern bool prom_queue_any_ready(PromQueue *queue);

#endif
