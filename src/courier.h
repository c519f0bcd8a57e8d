/*
 * courier.h
 *	  The caller's part in subscriptions: what is due is delivered.
 */
#ifndef PROM_COURIER_H
#define PROM_COURIER_H

#include "http.h"
#include "job.h"

/* For a new caller, which has nothing under way. */
extern void prom_courier_begin(void);

/*
 * Record the webhooks that have been answered, read what is due, and begin to
 * deliver it.  In no transaction.
 */
extern void prom_courier_drive(PromHttp *http, TimestampTz now);

/* A job of an owner that delivers has ended. */
extern void prom_courier_take_job(const PromJobEnd *end, TimestampTz now);

/* When to drive again without being woken; DT_NOEND: never. */
extern TimestampTz prom_courier_next_moment(void);

/* Webhooks on the network. */
extern int prom_courier_in_flight(void);

#endif
