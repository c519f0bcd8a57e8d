/*
 * moment.h
 *	  What a transaction saw at a moment of the past, the same for ever.
 */
#ifndef PROM_MOMENT_H
#define PROM_MOMENT_H

#include "access/transam.h"
#include "utils/timestamp.h"

/* A mark that may be used.  It is valid until the end of the transaction. */
typedef struct PromMoment PromMoment;

extern void prom_moment_init(void);

/*
 * The last mark at or before a moment.  Waits, at most 5 s, until no other one
 * can come between them; raises if nobody can say, now, for ever, and by the
 * active snapshot, what was seen then.
 */
extern const PromMoment *prom_moment_at(TimestampTz at);

/* A mark by its number; raises if it is not there. */
extern const PromMoment *prom_moment_of_mark(int64 mark_id);

/* That of the setting prometheus.as_of; NULL: it is not set. */
extern const PromMoment *prom_moment_current(void);

/* Is a fact of this transaction, with its era, seen then? */
extern bool prom_moment_sees(const PromMoment *moment, FullTransactionId xid);

/*
 * Its mark, for the column mark of versions: what is seen has that one or an
 * older one.  And the mark's own time, at or before the moment.
 */
extern int64 prom_moment_mark(const PromMoment *moment);
extern TimestampTz prom_moment_time(const PromMoment *moment);

#endif
