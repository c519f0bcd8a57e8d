/*
 * retention.h
 *	  Deletes what was kept for long enough.  The publisher's.
 */
#ifndef PROM_RETENTION_H
#define PROM_RETENTION_H

#include "utils/timestamp.h"

extern void prom_retention_begin(void);

/* When there is something to do; DT_NOEND: never. */
extern TimestampTz prom_retention_due(void);

/* Do a little of it, in a transaction of its own. */
extern void prom_retention_step(void);

/* That did not work; it is tried again in a while. */
extern void prom_retention_failed(void);

#endif
