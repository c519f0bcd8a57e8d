/*
 * guard.h
 *	  Runs other people's code as the role that it is for, and as no other.
 */
#ifndef PROM_GUARD_H
#define PROM_GUARD_H

#include "postgres.h"

/* As whom, with what, and for how long. */
typedef struct PromGuard
{
	Oid role;
	const char *search_path; /* NULL: pg_catalog */
	bool read_only;
	bool integrity; /* what is executed against it is refused */
	int64 max_rows; /* that it may change; 0: no limit */
	int64 timeout;  /* ms */
} PromGuard;

/* How it ended.  Strings are in the memory context of who ran it. */
typedef struct PromGuardEnd
{
	bool ok; /* else it has changed nothing, and: */
	int sqlstate;
	const char *error;     /* message, detail and hint */
	bool was_cancelled;    /* or took longer than it might */
	const char *forbidden; /* by integrity, and so it ended; or NULL */
	const char *too_much;  /* the same by max_rows */
} PromGuardEnd;

/* For an executor, before its first use; told may be set by a signal. */
extern void prom_guard_init(volatile bool *overdue);

/*
 * Run a function in a subtransaction under the eight rules of an executor (see
 * guard.c), in a worker's transaction.  SPI need not be connected; if it is,
 * that stays so.  What it wants to keep it puts into the context that is
 * current when it begins.
 */
extern void prom_guard_run(const PromGuard *guard, void (*run)(void *arg),
						   void *arg, PromGuardEnd *end);

/*
 * The oid of a role, if it still has that name; else InvalidOid: nothing is run
 * for a role that is not the one it was.
 */
extern Oid prom_guard_role(const char *name, Oid oid);

#endif
