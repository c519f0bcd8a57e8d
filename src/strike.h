/*
 * strike.h
 *	  Records who crashed the server.
 */
#ifndef PROM_STRIKE_H
#define PROM_STRIKE_H

#include "postgres.h"

/*
 * Caller: before anything begins, a strike for the task of each process of
 * before that died of one; and from here on this process notes its own.  The
 * context is current afterwards, and empty.
 */
extern void prom_strike_culprits(MemoryContext context);

#endif
