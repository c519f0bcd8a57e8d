/*
 * subscriber.h
 *	  Runs the function of a subscription.
 */
#ifndef PROM_SUBSCRIBER_H
#define PROM_SUBSCRIBER_H

#include "shmem.h"

/*
 * In an executor's transaction: deliver an event to the function of its
 * subscription, and record what came of it.
 */
extern void prom_subscriber_run(PromJob *job);

/* Raise unless it can be one and the current user may execute it. */
extern void prom_subscriber_check(Oid function);

#endif
