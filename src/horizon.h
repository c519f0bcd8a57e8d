/*
 * horizon.h
 *	  The moment before which what has ended may be gone.
 */
#ifndef PROM_HORIZON_H
#define PROM_HORIZON_H

#include "utils/snapshot.h"
#include "utils/timestamp.h"

/*
 * The horizon that a snapshot sees, the time of a mark; DT_NOBEGIN: nothing was
 * deleted.  It was moved before anything was deleted: what a snapshot sees is
 * whole from the horizon on that the same snapshot sees.
 */
extern TimestampTz prom_horizon(Snapshot snapshot);

/*
 * Raise if a task has ended before the horizon, and so may go at any moment:
 * nothing may be tied to it any more.  The transaction must have an xid, since
 * retention waits for those that had one when the horizon was moved.
 */
extern void prom_horizon_check_task(int64 task_id);

#endif
