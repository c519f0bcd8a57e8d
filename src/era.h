/*
 * era.h
 *	  The era that xids of facts are of, and whether this database is a copy.
 */
#ifndef PROM_ERA_H
#define PROM_ERA_H

#include "access/transam.h"

/* In the xid of a fact the era begins at this bit. */
#define PROM_ERA_SHIFT 48

/* Why a copy is paused, in prometheus._gate; a literal of SQL too. */
#define PROM_ERA_REASON "this database is a copy: SELECT prometheus_resume() lets it run"

/* What the facts say, for prometheus_health(). */
typedef struct PromEra
{
	int32 era;    /* the highest; 0: the relation is not there */
	bool is_ours; /* it was begun in this very database */
	bool waits;   /* everything is paused because this is a copy */
} PromEra;

extern void prom_era_init(void);

/*
 * The xid of the current top-level transaction, as facts have it: with the
 * era, which stays the same until the transaction ends.  Raises the era first
 * if that of the facts is not ours.
 */
extern FullTransactionId prom_era_xid(void);

/*
 * prom_worker_xact_begin() for a transaction that reads facts: in what its
 * snapshot sees, the era is ours.  If it is not, it is raised, and a copy
 * paused, in a transaction of its own before.
 */
extern bool prom_era_xact_begin(const char *activity);

/*
 * The era of what is committed now, for who remembers what he has seen; it is
 * begun first if the facts are of elsewhere.
 */
extern int32 prom_era_now(void);

/* The same for who remembers nothing: none is begun, it is the one to come. */
extern int32 prom_era_look(void);

/* What the active snapshot sees. */
extern void prom_era_read(PromEra *era);

/* The xid in an xid of facts; the rest is the era. */
#define PROM_ERA_MASK UINT64CONST(0xFFFFFFFFFFFF)

/* Is an xid of facts of the era that is ours now? */
extern bool prom_era_is_current(uint64 xid);

/* An xid of a snapshot with its epoch, without the era. */
extern FullTransactionId prom_era_widen(TransactionId xid);

#endif
