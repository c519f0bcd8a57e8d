/*
 * contradiction.h
 *	  A memory that turned out wrong gives way to what is true.
 */
#ifndef PROM_CONTRADICTION_H
#define PROM_CONTRADICTION_H

#include "memory.h"

/*
 * Forget one of an owner's memories for an agent, and remember what is true
 * instead; the id of that.  0: there is none, it says the same, or, for a task
 * (not 0), it is not a model's to change.  As the extension's owner, with SPI
 * connected.
 */
extern int64 prom_contradiction_settle(const PromMemoryOwner *owner,
									   int64 memory_id, const char *content,
									   int64 task_id);

#endif
