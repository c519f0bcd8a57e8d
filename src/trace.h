/*
 * trace.h
 *	  The trace that a task belongs to, in the terms of W3C Trace Context.
 */
#ifndef PROM_TRACE_H
#define PROM_TRACE_H

#include "utils/uuid.h"

/* Flags of a traceparent. */
#define PROM_TRACE_SAMPLED 1
#define PROM_TRACE_RANDOM 2 /* the last 56 bits of the id are */

/* Where the parent is in a traceparent. */
#define PROM_TRACEPARENT_PARENT 36

/* Bytes of a traceparent, with its NUL; and of a header that has one. */
#define PROM_TRACEPARENT_SIZE 56
#define PROM_TRACE_HEADER_SIZE (PROM_TRACEPARENT_SIZE + sizeof("traceparent: "))

typedef struct PromTrace
{
	pg_uuid_t id;
	uint8 flags;
} PromTrace;

/* Read a traceparent; raises invalid_parameter_value if it is none. */
extern void prom_trace_read(const char *traceparent, PromTrace *trace);

/* Begin a new one. */
extern void prom_trace_begin(PromTrace *trace);

/* That of a task, by its columns; traceparent: NULL if it has none. */
extern void prom_trace_of(const pg_uuid_t *id, const char *traceparent,
						  PromTrace *trace);

/*
 * The same, read in a worker's transaction with SPI connected; false: the task
 * is not there.
 */
extern bool prom_trace_of_task(int64 task_id, PromTrace *trace);

/* Would its id alone have it sampled, if so many of all (0 to 1) are? */
extern bool prom_trace_is_sampled(const pg_uuid_t *id, double ratio);

/*
 * What an id must not be below, as tracestate has it (th): 1 to 14 hexadecimal
 * digits.  False: nothing is sampled.
 */
#define PROM_TRACE_THRESHOLD_SIZE 17

extern bool prom_trace_threshold(double ratio, char *digits);

/* What is told of it to those that a span calls, and as a header. */
extern void prom_trace_parent(char *traceparent, const PromTrace *trace,
							  uint64 span_id);
extern void prom_trace_header(char *header, const PromTrace *trace,
							  uint64 span_id);

#endif
