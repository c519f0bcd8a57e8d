/*
 * key.h
 *	  Keys of which one task at a time may run: concurrency keys and
 *	  conversations.
 */
#ifndef PROM_KEY_H
#define PROM_KEY_H

#include "lane.h"

typedef struct PromKeys PromKeys;

extern PromKeys *prom_keys_create(void);

/*
 * A task that is ready takes its conversation, to its end.  May it go into its
 * lane then?  Else the key that it is to wait behind.
 */
extern struct PromKey *prom_keys_enter(PromKeys *keys, PromQueueNode *node);

/* One that leaves its lane for a slot takes its key; or it waits again. */
extern struct PromKey *prom_keys_take(PromKeys *keys, PromQueueNode *node);

extern void prom_keys_wait(PromKeys *keys, struct PromKey *key,
						   PromQueueNode *node);

/*
 * A task that was started before holds its conversation and, if it runs, its
 * key, unless another does.
 */
extern void prom_keys_restore(PromKeys *keys, PromQueueEntry *entry, bool runs);

/* Let go of the concurrency key of a task that runs no more, or of both. */
extern void prom_keys_release(PromKeys *keys, PromQueueEntry *entry,
							  bool conversation_too);

/*
 * The next to be called for a key that nobody holds, taken out of what waits
 * behind it; NULL: there is none.
 */
extern PromQueueNode *prom_keys_next(PromKeys *keys, uint64 hash);

/* A task that waits behind a key, or was called for it, is to be elsewhere. */
extern void prom_keys_leave(PromKeys *keys, PromQueueNode *node);

/*
 * Until every live task has been read once nobody can say whether a
 * conversation is free: they are held.  Now they are free, if nobody came:
 * the next of each are to be called; palloc'd.
 */
extern uint64 *prom_keys_all_read(PromKeys *keys, int *n);

/*
 * For a queue that is full.  Would a task that is not in it wait behind a key?
 * Is it the first of its target there, which always has a place?  One was
 * refused; those that come later are too, until those that were are read; and
 * while they are.
 */
extern bool prom_keys_block(PromKeys *keys, const PromHint *hint);
extern bool prom_keys_is_first(PromKeys *keys, const PromHint *hint);
extern void prom_keys_refuse(PromKeys *keys, const PromHint *hint);
extern bool prom_keys_were_refused(PromKeys *keys, const PromHint *hint);
extern bool prom_keys_are_read(PromKeys *keys, const PromHint *hint);

/* Is it time to read those that were refused?  It begins, and has ended. */
extern bool prom_keys_want_more(PromKeys *keys);
extern bool prom_keys_any_refused(PromKeys *keys);
extern void prom_keys_begin_reading(PromKeys *keys);
extern void prom_keys_end_reading(PromKeys *keys);

#endif
