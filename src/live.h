/*
 * live.h
 *	  Reading the live tasks of a database from its facts.
 */
#ifndef PROM_LIVE_H
#define PROM_LIVE_H

#include "shmem.h"

/* A task that has not ended, as its facts tell. */
typedef struct PromLiveTask
{
	PromHint hint;
	bool retrying;  /* an attempt of it has ended */
	bool waiting;   /* the last one, to wait for a person or a child */
	bool open;      /* an attempt of it has not ended */
	bool cancelled; /* its end was asked for */
	bool doomed;    /* a task that it depends on ended, and not well */
	bool anyway;    /* it runs whatever becomes of these */
	int nparents;   /* those that have not ended */
	const int64 *parents;
} PromLiveTask;

/*
 * Of the tasks d that a task t depends on, with e.outcome, NULL while it has
 * not ended, those of a condition.
 */
#define PROM_PARENTS                                                       \
	"FROM unnest(t.depends_on) d LEFT JOIN LATERAL ("                      \
	"SELECT x.outcome FROM prometheus._outcome x WHERE x.task_id = d"      \
	" AND x.outcome NOT IN ('retry', 'waiting', 'lost')"                   \
	" AND NOT EXISTS (SELECT FROM prometheus._retry y"                     \
	"  WHERE y.task_id = d AND y.attempt >= x.attempt) LIMIT 1) e ON true" \
	" WHERE "

/* Has a task t ended? */
#define PROM_HAS_ENDED                                     \
	"EXISTS (SELECT FROM prometheus._outcome x"            \
	" WHERE x.task_id = t.task_id"                         \
	"   AND x.outcome NOT IN ('retry', 'waiting', 'lost')" \
	"   AND NOT EXISTS (SELECT FROM prometheus._retry y"   \
	"     WHERE y.task_id = x.task_id AND y.attempt >= x.attempt))"

/*
 * Was a call of a task w decided about by a person, or has the task ended to
 * which it was delegated, and it has no step yet?
 */
#define PROM_DECIDED                                                   \
	"EXISTS (SELECT FROM (SELECT p.step FROM prometheus._approval p"   \
	"    JOIN prometheus._decision d ON d.approval_id = p.approval_id" \
	"    WHERE p.task_id = w.task_id"                                  \
	"   UNION ALL SELECT t.parent_step FROM prometheus._task t"        \
	"    WHERE t.parent_id = w.task_id AND " PROM_HAS_ENDED ") p"      \
	"  WHERE NOT EXISTS (SELECT FROM prometheus._step s"               \
	"   WHERE s.task_id = w.task_id AND s.step = p.step))"

/* Does a task t run whatever becomes of what it depends on? */
#define PROM_ANYWAY "coalesce(t.metadata ->> 'on_failure' = 'run', false)"


/* False: no more are wanted. */
typedef bool (*PromLiveTaskVisit)(const PromLiveTask *task, void *arg);

/*
 * Call visit for each live task, in a transaction with SPI connected.  Reads
 * what the newest checkpoint lists and what came after it, so it is bounded
 * by what is live; without a checkpoint of this database, all tasks.  Both
 * need a transaction of prom_era_xact_begin().
 */
extern void prom_live_tasks(PromLiveTaskVisit visit, void (*pause)(void),
							void *arg);

/* The same for those among n tasks that live. */
extern void prom_live_tasks_among(const int64 *task_ids, int n,
								  PromLiveTaskVisit visit, void (*pause)(void),
								  void *arg);

/* Write a checkpoint, in a transaction with SPI connected; how many live. */
extern int64 prom_live_checkpoint(void);

#endif
