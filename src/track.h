/*
 * track.h
 *	  Which tables are tracked, and what is done to them.
 */
#ifndef PROM_TRACK_H
#define PROM_TRACK_H

#include "lib/stringinfo.h"

extern void prom_track_init(void);

/*
 * After a statement: has it altered a tracked table?  What the history of its
 * rows could not bear raises, the rest is recorded.
 */
extern void prom_track_after_statement(void);

/*
 * For prometheus_health(): how many tables are tracked, and those whose rows
 * are not recorded though they were to be.
 */
extern int prom_track_count(StringInfo interrupted);

#endif
