/*
 * wakeup.h
 *	  Tells the workers of this database, after the commit of the current
 *	  transaction and only then, what it did.
 */
#ifndef PROM_WAKEUP_H
#define PROM_WAKEUP_H

#include "shmem.h"

extern void prom_wakeup_init(void);

/* Give the scheduler a hint if this (sub)transaction commits. */
extern void prom_wakeup_hint(const PromHint *hint);

/*
 * The extension was made, changed or dropped: let the launcher end the workers
 * of this database and look anew, if this (sub)transaction commits.
 */
extern void prom_wakeup_extension(void);

/* An event was emitted: let the publisher tell of it, after the commit. */
extern void prom_wakeup_publisher(void);

/* A threshold was set: let the publisher look, after the commit. */
extern void prom_wakeup_alerts(void);

/* Consumers or dead letters are others: let the publisher look, some time. */
extern void prom_wakeup_readers(void);

/* The export of traces begins elsewhere: let the caller look. */
extern void prom_wakeup_export(void);

/*
 * A memory is remembered that may be without an embedding; agents or models are
 * others: let the caller look.
 */
extern void prom_wakeup_memory(int64 memory_id);
extern void prom_wakeup_embedder(void);

/* Facts that listeners are told of were committed just now. */
extern void prom_wakeup_changed(void);

/* Did the current transaction submit that task, so that nobody sees it yet? */
extern bool prom_wakeup_is_pending(int64 task_id);

#endif
