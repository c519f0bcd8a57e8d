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
	bool open;      /* an attempt of it has not ended */
	bool cancelled; /* its end was asked for */
} PromLiveTask;

/* False: no more are wanted. */
typedef bool (*PromLiveTaskVisit)(const PromLiveTask *task, void *arg);

/*
 * Call visit for each live task, in a transaction with SPI connected.  Reads
 * what the newest checkpoint lists and what came after it, so it is bounded
 * by what is live; without a checkpoint of this database, all tasks.  Both
 * need a transaction of prom_era_xact_begin().
 */
extern void prom_live_tasks(PromLiveTaskVisit visit, void *arg);

/* Write a checkpoint, in a transaction with SPI connected; how many live. */
extern int64 prom_live_checkpoint(void);

#endif
