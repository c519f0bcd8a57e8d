/*
 * slab.h
 *	  The memory of a queue's entries, which backends can read.
 */
#ifndef PROM_SLAB_H
#define PROM_SLAB_H

#include "lane.h"

typedef struct PromSlabs PromSlabs;

/* Made once by a scheduler; its database's readers find it from now on. */
extern PromSlabs *prom_slabs_create(PromDatabase *db);

/* An entry that is free, and its node; and back.  Under queue_lock. */
extern PromQueueNode *prom_slabs_take(PromSlabs *slabs);
extern void prom_slabs_give_back(PromSlabs *slabs, PromQueueNode *node);

/* Every entry has a number below this. */
extern int32 prom_slabs_used(const PromSlabs *slabs);
extern PromQueueNode *prom_slabs_node(const PromSlabs *slabs, int32 number);

#endif
