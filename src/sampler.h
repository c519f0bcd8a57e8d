/*
 * sampler.h
 *	  Which traces are exported.
 */
#ifndef PROM_SAMPLER_H
#define PROM_SAMPLER_H

#include "utils/uuid.h"

/* What is known of the traces of one request. */
typedef struct PromSampler PromSampler;

/* In the current memory context. */
extern PromSampler *prom_sampler_begin(void);

/*
 * Is a tree of tasks exported?  tasks: all of it, an array of bigint; task_id:
 * one of them.  trace_state: what OpenTelemetry's tracestate says of how many
 * others the trace stands for; NULL: nothing.  Needs SPI.
 */
extern bool prom_sampler_decide(PromSampler *sampler,
								const pg_uuid_t *trace_id, Datum tasks,
								int64 task_id, const char **trace_state);

#endif
