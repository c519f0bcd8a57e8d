/*
 * proportion.h
 *	  How many rows a tool may change, and that it does not change more.
 */
#ifndef PROM_PROPORTION_H
#define PROM_PROPORTION_H

#include "postgres.h"

/* For an executor, once. */
extern void prom_proportion_init(void);

/* From now on, count, and refuse to change more rows than that; 0: do not. */
extern void prom_proportion_enforce(int64 max_rows);

/*
 * What was refused last since it has been enforced: how many rows, and how many
 * it may be; NULL: nothing.
 */
extern const char *prom_proportion_refused(void);

#endif
