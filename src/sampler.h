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

typedef struct PromSampled
{
	bool is_sampled;

	/* It is for what has happened; what was left out of it was not sent. */
	bool has_omitted;
	const char *trace_state; /* of OpenTelemetry: how many others the trace
							  * stands for; NULL: nothing */
} PromSampled;

/*
 * Is a tree of tasks exported?  tasks: all of it, an array of bigint; task_id:
 * one of them.  These, and the next ones, need SPI.
 */
extern void prom_sampler_tree(PromSampler *sampler, const pg_uuid_t *trace_id,
							  Datum tasks, int64 task_id,
							  PromSampled *sampled);

/* Is a span of an application?  task_id: one of its trace; 0: it has none. */
extern void prom_sampler_span(PromSampler *sampler, const pg_uuid_t *trace_id,
							  int64 *task_id, PromSampled *sampled);

/* Nothing was left out of it, or that was sent; */
extern void prom_sampler_keep(PromSampler *sampler, const pg_uuid_t *trace_id);

/* which is remembered for later requests. */
extern void prom_sampler_record(const PromSampler *sampler);

#endif
