/*
 * meter.h
 *	  The caller's part in observability: metrics go to a collector.
 */
#ifndef PROM_METER_H
#define PROM_METER_H

#include "datatype/timestamp.h"

#include "http.h"

/* For a new caller. */
extern void prom_meter_begin(void);

/* Send what is due, or take the response.  In no transaction. */
extern void prom_meter_drive(PromHttp *http, TimestampTz now);

/* When to drive again without being woken; DT_NOEND: never. */
extern TimestampTz prom_meter_next_moment(void);

/* Requests on the network. */
extern int prom_meter_in_flight(void);

#endif
