/*
 * exposition.h
 *	  Metrics as the text that monitoring systems read.
 */
#ifndef PROM_EXPOSITION_H
#define PROM_EXPOSITION_H

#include "metric.h"

typedef enum PromExposition
{
	PROM_OPENMETRICS, /* OpenMetrics 1.0 */
	PROM_TEXT         /* version 0.0.4 of the format before it */
} PromExposition;

/* The name of a metric there, without the suffixes of its samples. */
extern char *prom_exposition_name(const PromMetric *metric);

/* All metrics of a database (NULL: it is not served), palloc'd. */
extern char *prom_exposition_write(PromDatabase *db, PromExposition format);

#endif
