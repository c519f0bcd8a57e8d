/*
 * recall.h
 *	  What a task in full mode remembers before it begins.
 */
#ifndef PROM_RECALL_H
#define PROM_RECALL_H

#include "shmem.h"

/*
 * Executor: find the memories that fit the request and write them as a step.
 * What goes wrong is in the step, and the task goes on without them.
 */
extern void prom_act_recall(PromJob *job);

#endif
