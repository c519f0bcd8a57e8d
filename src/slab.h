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

/* What one live task costs, heaps and hash included. */
extern Size prom_slabs_entry_bytes(void);

/* A free entry for a task, and its node; and back.  Under queue_lock. */
extern PromQueueNode *prom_slabs_take(PromSlabs *slabs, int64 task_id);
extern void prom_slabs_give_back(PromSlabs *slabs, PromQueueNode *node);

/* The node of a task, or NULL. */
extern PromQueueNode *prom_slabs_find(const PromSlabs *slabs, int64 task_id);

/* Every entry has a number below this. */
extern int32 prom_slabs_used(const PromSlabs *slabs);
extern PromQueueNode *prom_slabs_node(const PromSlabs *slabs, int32 number);

#endif
