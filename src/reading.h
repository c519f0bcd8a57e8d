/*
 * reading.h
 *	  What is not counted but read when somebody asks: gauges.
 */
#ifndef PROM_READING_H
#define PROM_READING_H

#include "metric.h"

extern const PromMetric prom_readings[];
extern const int prom_nreadings;

/*
 * What they are now, in the order of that table, palloc'd; how many.  db is
 * NULL in a database that is not served.  Without a statement.
 */
extern PromSample *prom_reading_take(PromDatabase *db, int *n);

#endif
