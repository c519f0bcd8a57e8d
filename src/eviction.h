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
 * A memory has come into a kind: note it, and forget what is too much, but not
 * this one if it is spared.  The lock on these memories is held; as the
 * extension's owner, with SPI connected.
 */
extern void prom_eviction_run(const PromMemoryOwner *owner,
							  const char *kind_name, int64 entered,
							  bool spares);

#endif
