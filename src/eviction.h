/*
 * eviction.h
 *	  An agent's memory has a limit; who is least relevant goes.
 */
#ifndef PROM_EVICTION_H
#define PROM_EVICTION_H

#include "memory.h"

/* How many of a kind an agent may have; -1: any number. */
extern int64 prom_eviction_limit(const char *agent, const char *kind);

/*
 * Forget what is too much of a kind, but not this one (0: any).  The lock on
 * these memories is held; as the extension's owner, with SPI connected.
 */
extern void prom_eviction_run(const PromMemoryOwner *owner, const char *kind,
							  int64 spared);

#endif
