/*
 * track.h
 *	  Which tables are tracked.
 */
#ifndef PROM_TRACK_H
#define PROM_TRACK_H

#include "lib/stringinfo.h"
#include "utils/relcache.h"
#include "utils/uuid.h"

/* The reason of an end, of which health warns. */
#define PROM_TRACK_BARED "its trigger was dropped"

/* Record that a track of this table has ended, unless it has. */
extern void prom_track_end(Relation relation, const pg_uuid_t *track_id,
						   const char *reason);

/*
 * For prometheus_health(): how many tables are tracked, and those whose rows
 * are not recorded though they were to be.
 */
extern int prom_track_count(StringInfo interrupted);

#endif
