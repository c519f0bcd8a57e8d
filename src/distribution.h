/*
 * distribution.h
 *	  The publisher's part in subscriptions: what is new is to be delivered.
 */
#ifndef PROM_DISTRIBUTION_H
#define PROM_DISTRIBUTION_H

#include "datatype/timestamp.h"

extern void prom_distribution_begin(void);

/* Facts were committed. */
extern void prom_distribution_changed(TimestampTz now);

/* When the next step is due; DT_NOEND: never. */
extern TimestampTz prom_distribution_due(void);

/* In no transaction. */
extern void prom_distribution_step(void);

/* The step has raised an error. */
extern void prom_distribution_failed(void);

#endif
