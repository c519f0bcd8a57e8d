/*
 * gauge.h
 *	  What is not counted but read when somebody asks: gauges.
 */
#ifndef PROM_GAUGE_H
#define PROM_GAUGE_H

#include "metric.h"

extern const PromMetric prom_gauges[];
extern const int prom_ngauges;

/*
 * What they are now, in the order of that table, palloc'd; how many.  db is
 * NULL in a database that is not served.  Without a statement.
 */
extern PromSample *prom_gauge_read(PromDatabase *db, int *n);

/* Does it change by what others do to the server, too? */
extern bool prom_gauge_drifts(const PromMetric *metric);

#endif
