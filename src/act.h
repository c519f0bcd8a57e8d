/*
 * act.h
 *	  What an executor does for a task: a tool call, or a turn of a function.
 */
#ifndef PROM_ACT_H
#define PROM_ACT_H

#include "shmem.h"

/*
 * Do a job: its step is written, unless it is there already.  Raises if it
 * cannot be, or is not wanted any more.  In a worker's transaction with SPI
 * connected.
 */
extern void prom_act(PromJob *job);

#endif
