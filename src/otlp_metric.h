/*
 * otlp_metric.h
 *	  What a receiver of OTLP/HTTP is sent of metrics.
 */
#ifndef PROM_OTLP_METRIC_H
#define PROM_OTLP_METRIC_H

#include "metric.h"
#include "otlp.h"

/*
 * A request to /v1/metrics, in the current memory context: samples, in order of
 * their metrics and with labels in UTF-8, from *next on, which is moved behind
 * those that it has; no other is begun after so many bytes.  How many points it
 * has.
 */
extern int prom_otlp_write_metrics(StringInfo body,
								   const PromOtlpResource *resource,
								   const PromSample *samples, int n, int *next,
								   TimestampTz now, int most);

#endif
