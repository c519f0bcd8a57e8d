/*
 * job.h
 *	  What the caller has executors do, and how that ends.
 */
#ifndef PROM_JOB_H
#define PROM_JOB_H

#include "lib/ilist.h"

#include "shmem.h"

/* One job: see PromJobKind. */
typedef struct PromJobSpec
{
	PromJobKind kind;
	int64 task_id;
	int32 attempt;
	int32 step;
	int32 about;    /* the step that a counsel is about, or a PromThought */
	int64 event_id; /* of the step of a chat, a counsel or a thought */
	int64 delivery_id;
} PromJobSpec;

/*
 * Whose jobs they are, in the memory of who owns them; begun with zeros.  The
 * owners that have jobs waiting are served in turn.
 */
typedef struct PromJobOwner
{
	dlist_node link; /* among those that wait, if any of these does */
	dlist_head waiting;
	dlist_head running;
	int n;                  /* jobs that have not been asked for yet */
	TimestampTz deadline;   /* when those that wait end all the same */
	TimestampTz not_before; /* after one failed */
	bool delivers;          /* it is a subscription, and no task */
	bool is_slow;           /* its jobs take long: one such runs at a time */
} PromJobOwner;

typedef struct PromJobEnd
{
	PromJobOwner *owner;
	bool chat_failed; /* its step says how; */
	int retry;        /* and this what is to become of it: PromRetry */
	int64 tokens;     /* that a chat or a counsel took */
	int32 step;
	bool send;  /* its request may be sent; the step comes from that */
	int32 asks; /* the tool's step that a model is to review; 0: none */
	int64 delivery_id;
	int delivered; /* what came of it: PromDelivered */
	int64 run_ms;  /* its longest run, by an executor that had it at once */
	bool failed;   /* it can never be done, and error says why */
	char error[PROM_JOB_ERROR];
} PromJobEnd;

/*
 * At the caller's beginning: what executors do for the caller before it is
 * stopped.  False: this process is to end.
 */
extern bool prom_jobs_begin(void);

extern void prom_job_add(PromJobOwner *owner, const PromJobSpec *spec);

/* The jobs of an owner are not wanted any more; each ends all the same. */
extern void prom_jobs_drop(PromJobOwner *owner);

/* Give jobs to executors that are free, and take back what they have done. */
extern void prom_jobs_drive(TimestampTz now);

/* The next job that has ended; false: there is none. */
extern bool prom_jobs_next_ended(PromJobEnd *end);

/* When to drive them again without being woken; DT_NOEND: never. */
extern TimestampTz prom_jobs_next_moment(void);

/* Jobs that have not ended, or were not asked for yet. */
extern int prom_jobs_count(void);

#endif
