/*
 * superseded.h
 *	  Deletes versions of which a newer one has been there for long enough.
 */
#ifndef PROM_SUPERSEDED_H
#define PROM_SUPERSEDED_H

#include "storage/block.h"
#include "utils/timestamp.h"

/* How far a pass has come; all zero at the beginning. */
typedef struct PromSupersededPlace
{
	int relation;
	BlockNumber block;
} PromSupersededPlace;

/*
 * Delete from some blocks those whose successor was written before the cutoff
 * and is seen by the snapshot, a pg_snapshot.  False: these were the last ones.
 * SPI must be connected.
 */
extern bool prom_superseded_delete(PromSupersededPlace *place,
								   TimestampTz cutoff, Datum snapshot);

#endif
