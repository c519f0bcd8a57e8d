/*
 * consumer.h
 *	  Consumers of events.
 */
#ifndef PROM_CONSUMER_H
#define PROM_CONSUMER_H

#include "lib/stringinfo.h"

#include "window.h"

/*
 * How many there are; names of those are added whose position is behind the
 * newest mark by more than so many seconds.
 */
extern int prom_consumer_count(int seconds, StringInfo late);

/*
 * For subscriptions, whose consumers have their names and whose lock is held:
 * make one, or give it other types and another owner, as the extension's owner.
 */
extern void prom_consumer_push(const char *name, ArrayType *types, Oid owner,
							   bool exists);

/*
 * For the publisher: poll the consumer of a subscription and acknowledge what
 * it is given, in a worker's transaction.  How many; 0 also if there is none,
 * or if somebody holds its lock (consumer_lock.h); or that its owner is not who
 * it was.  more: there may be others.  mark_id: of a mark that sees none of
 * them.
 */
#define PROM_CONSUMER_ORPHAN (-1)

extern int prom_consumer_take(const char *name, int want, PromEntry **entries,
							  int64 *mark_id, bool *more);

/*
 * For the export of traces (export.c), which reads in one transaction and
 * acknowledges in another: a consumer whose name others cannot have.
 */
#define PROM_CONSUMER_EXPORT "prometheus.otlp"

/*
 * Read it, and the next events; how many, and -1: there is no such consumer.
 * place says where it was.  The window, which is open if there are any, may be
 * gone through, and then is where it goes on.  If there is none, the position
 * is moved at once, now and then, so that what is not wanted is looked through
 * once.  want 0: only where it is.
 */
extern int prom_consumer_read(const char *name, int want, PromWindow *window,
							  char **place, PromEntry **entries, bool *all);

/* Acknowledge that far; false: it is not any more where it was. */
extern bool prom_consumer_move(const char *name, const char *place,
							   const PromWindow *window);

#endif
