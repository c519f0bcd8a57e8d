/*
 * queue.h
 *	  The live tasks of one database, in the order in which they are to run.
 *
 * One scheduler owns it; backends read it for the view prometheus.queue.
 */
#ifndef PROM_QUEUE_H
#define PROM_QUEUE_H

#include "live.h"
#include "shmem.h"

typedef enum PromQueueState
{
	PROM_QUEUE_FREE,    /* no task is in this entry */
	PROM_QUEUE_BLOCKED, /* tasks that it depends on have not ended */
	PROM_QUEUE_LATER,   /* due is in the future */
	PROM_QUEUE_READY,   /* waits for a slot, before its gate */
	PROM_QUEUE_BEHIND,  /* a task with the same key runs */
	PROM_QUEUE_RUNNING  /* has a slot */
} PromQueueState;

#define PROM_NQUEUE_STATES (PROM_QUEUE_RUNNING + 1)

/* An entry, in memory that backends can read while they hold queue_lock. */
typedef struct PromQueueEntry
{
	int64 task_id;
	TimestampTz due;
	TimestampTz deadline;
	TimestampTz since;   /* when it came into its state */
	int64 blocker;       /* what it is BLOCKED by; 0: several */
	uint64 key;          /* as in the hint */
	uint64 conversation; /* the same */
	PromSubmitter submitter;
	PromTarget target;
	int32 slot;      /* while it runs */
	int32 waits_for; /* BLOCKED: so many tasks */
	int16 priority;
	uint8 state;       /* PromQueueState */
	bool retrying : 1; /* it had an attempt and will have another */
	bool waiting : 1;  /* LATER: until a person has decided */
	bool urgent : 1;   /* it, or its open attempt, is to be ended */
	bool anyway : 1;   /* whatever becomes of what it depends on */
	bool has_key : 1;
	bool has_conversation : 1;
	bool in_conversation : 1; /* BEHIND: the key is its conversation */
	bool read : 1;            /* RUNNING: read its facts when it has ended */
	bool doomed : 1;          /* what it depends on ended badly meanwhile */
} PromQueueEntry;

/* The part of the shared area that readers begin with. */
#define PROM_SLAB_ENTRIES 4096
#define PROM_MAX_SLABS 65536

typedef struct PromQueueRoot
{
	int nslabs;
	int nentries; /* ever used; those behind were never written */
	dsa_pointer slabs[PROM_MAX_SLABS];
} PromQueueRoot;

typedef struct PromQueue PromQueue;

/* The scheduler's side.  All but create and next_moment need queue_lock. */
extern PromQueue *prom_queue_create(PromDatabase *db);

/* Add a live task, unless it is there; false: queue_memory is used up. */
extern bool prom_queue_add(PromQueue *queue, const PromLiveTask *task,
						   TimestampTz now);

/*
 * Tasks were refused since it was full: when are live tasks to be read again?
 * DT_NOEND: there is no need.
 */
extern TimestampTz prom_queue_wants_more(PromQueue *queue, TimestampTz now);

/*
 * Live tasks are about to be read, as of now, and have been: what ends
 * meanwhile is remembered.  more: others are to be read, and what is new is to
 * wait for them.
 */
extern void prom_queue_begin_reading(PromQueue *queue, bool all);
extern void prom_queue_end_reading(PromQueue *queue, bool all, bool more,
								   TimestampTz now);

/*
 * Are tasks being read that had no room, and are to come before a new one?
 */
extern bool prom_queue_reads_before(PromQueue *queue, const PromHint *hint);

extern bool prom_queue_has(PromQueue *queue, int64 task_id);

/*
 * What a task waits for may have come: it is due now; or, if it runs, due when
 * it is given back, and read if it has ended.  False: neither.
 */
extern bool prom_queue_look_again(PromQueue *queue, int64 task_id,
								  TimestampTz now);

/* A task is cancelled: run it next if it waits.  Its slot, or -1. */
extern int prom_queue_cancel(PromQueue *queue, int64 task_id, TimestampTz now);

/* Make ready what is due, and urgent what is too late. */
extern void prom_queue_advance(PromQueue *queue, TimestampTz now);

/*
 * Take the next ready task into a slot, and fill in what the slot says of it;
 * false: none is ready.
 */
extern bool prom_queue_take(PromQueue *queue, PromSlot *slot, int32 number,
							TimestampTz now);

/*
 * A slot has been given back: its task has ended, or goes on.  True: its facts
 * are to be read.
 */
extern bool prom_queue_take_back(PromQueue *queue, const PromSlot *slot,
								 TimestampTz now);

/* The caller is gone: its tasks run next.  And: all of them are back. */
extern void prom_queue_put_back(PromQueue *queue, const PromSlot *slot,
								TimestampTz now);
extern void prom_queue_forget_slots(PromQueue *queue);

/* Mark a task as running in a slot that an earlier scheduler gave it. */
extern void prom_queue_adopt(PromQueue *queue, const PromSlot *slot,
							 int32 number, TimestampTz now);

/*
 * What is paused or an option of a model has changed; and: an agent may have
 * another model now.  Tasks that were refused may have room before another
 * gate then.
 */
extern void prom_queue_gates_changed(PromQueue *queue);
extern void prom_queue_retarget(PromQueue *queue, uint32 agent,
								TimestampTz now);
extern void prom_queue_read_refused(PromQueue *queue, TimestampTz now);

/* When the queue has something to do; DT_NOEND: never. */
extern TimestampTz prom_queue_next_moment(PromQueue *queue, TimestampTz now);

#endif
