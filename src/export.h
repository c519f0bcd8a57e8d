/*
 * export.h
 *	  The caller's part in observability: traces go to a collector.
 */
#ifndef PROM_EXPORT_H
#define PROM_EXPORT_H

#include "datatype/timestamp.h"

#include "http.h"
#include "otlp.h"

/* Spans, and bytes after which no other is added, of one request. */
#define PROM_EXPORT_SPANS 512
#define PROM_EXPORT_BYTES (4 * 1024 * 1024)

/* For a new caller. */
extern void prom_export_begin(void);

/* So many tasks have ended. */
extern void prom_export_ended(int n);

/* Read what is due, send it, or record what came of it.  In no transaction. */
extern void prom_export_drive(PromHttp *http, TimestampTz now);

/* When to drive again without being woken; DT_NOEND: never. */
extern TimestampTz prom_export_next_moment(void);

/* Requests on the network. */
extern int prom_export_in_flight(void);

/* For metrics (meter.c): is there a receiver; and who sends, in a transaction
 * if the database's encoding is not UTF-8. */
extern bool prom_export_is_wanted(void);
extern void prom_export_resource(PromOtlpResource *resource);

#endif
