/*
 * span_export.h
 *	  Spans of applications in what is exported.
 */
#ifndef PROM_SPAN_EXPORT_H
#define PROM_SPAN_EXPORT_H

#include "datatype/timestamp.h"
#include "utils/uuid.h"

#include "otlp.h"

/* What a request has of them, and what its end is to record. */
typedef struct PromSpanExport PromSpanExport;

/*
 * Is there to be a position?  One that begins is behind all that is there.  As
 * what follows, in a transaction, with SPI, as the extension's owner.
 */
extern void prom_span_export_settle(bool is_on);

/* For a new request, in the current memory context, which lasts as long. */
extern PromSpanExport *prom_span_export_begin(void);

/*
 * Add the next ones to a request, as far as time and room permit; true: that is
 * all of them for this one.
 */
extern bool prom_span_export_read(PromSpanExport *one,
								  PromOtlpRequest *request);

/* The end of the first that was looked at; 0: there was none. */
extern TimestampTz prom_span_export_since(const PromSpanExport *one);

/* When to look again, since the next one is too young; 0: none is. */
extern TimestampTz prom_span_export_again(const PromSpanExport *one);

/* Those that could not be read or written. */
extern int64 prom_span_export_dropped(const PromSpanExport *one);

/* Tasks of that trace have ended: what was held because of them may go. */
extern void prom_span_export_release(PromSpanExport *one,
									 const pg_uuid_t *trace_id);

/* The receiver has it. */
extern void prom_span_export_move(const PromSpanExport *one);

#endif
