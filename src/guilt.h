/*
 * guilt.h
 *	  Whose task is on the processor now: a note that outlives a crash.
 *
 * It names the one task that can have ended the server.  Nothing here raises
 * an error; without the file nobody is blamed.
 */
#ifndef PROM_GUILT_H
#define PROM_GUILT_H

#include "shmem.h"

/* A task that was on the processor of a process that crashed. */
typedef struct PromCulprit
{
	int line; /* where it is noted */
	int64 task_id;
	int32 step;        /* that it was at */
	TimestampTz since; /* when that process began to note */
} PromCulprit;

/* Launcher: make the file, if there is none of this boot of the machine. */
extern void prom_guilt_create(void);

/* A process of a database, before it notes or asks; its place there. */
extern void prom_guilt_attach(int place);

/*
 * Caller: the next culprit among the callers of this database before it, and
 * executors that are dead; false: none is left.  It is one until it is
 * forgotten.
 */
extern bool prom_guilt_next(PromCulprit *culprit);
extern void prom_guilt_forget(const PromCulprit *culprit);

/* From here on this process notes what it does. */
extern void prom_guilt_begin(void);

/* What follows is done for that task, until another one is named, or none. */
extern void prom_guilt_name(int64 task_id, int32 step);
extern void prom_guilt_clear(void);

/* The task that is named; 0: none. */
extern int64 prom_guilt_named(void);

#endif
