/*
 * idempotency.h
 *	  The keys by which a request that is submitted twice is one task.
 */
#ifndef PROM_IDEMPOTENCY_H
#define PROM_IDEMPOTENCY_H

#include "fact.h"

/*
 * Take a key for a task that is about to be written, whose other columns are
 * in task: its own id, or that of the one that has the key already and is the
 * same request.  Waits for a transaction that is just taking it.
 */
extern int64 prom_idempotency_claim(PromFactWriter *writer, const char *key,
									int64 task_id, const Datum *task,
									const char *request);

#endif
