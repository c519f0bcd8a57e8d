/*
 * workshop.h
 *	  Executor: tries a function that a model wrote, and makes it a tool.
 */
#ifndef PROM_WORKSHOP_H
#define PROM_WORKSHOP_H

#include "asked.h"
#include "load.h"
#include "progress.h"
#include "shmem.h"

/*
 * Try the function that the task's model has answered with; if it does what
 * was asked for, and is allowed, it becomes a tool.  Its step is written, but
 * for one that waits for a person or a review by a model.
 */
extern void prom_workshop_run(PromJob *job, PromAsked *asked);

#endif
