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
 * May a task run as far as its keys go?  Then it holds them, and NULL is
 * returned; else the key that it is to wait behind.
 */
extern struct PromKey *prom_keys_claim(PromKeys *keys,
									   const PromQueueEntry *entry);
extern void prom_keys_wait(struct PromKey *key, PromQueueNode *node);

/*
 * A task that was started before holds its conversation and, if it runs, its
 * key, unless another does.
 */
extern void prom_keys_restore(PromKeys *keys, const PromQueueEntry *entry,
							  bool runs);

/*
 * Let go of the keys that a task holds; of its conversation only if it has
 * ended or has not begun.
 */
extern void prom_keys_release(PromKeys *keys, const PromQueueEntry *entry,
							  bool conversation_too);

/* Take out the first that waits behind a key; NULL: none, or it is held. */
extern PromQueueNode *prom_keys_next(PromKeys *keys, uint64 hash);

/* A task that waits behind a key is to be elsewhere. */
extern void prom_keys_leave(PromKeys *keys, PromQueueNode *node);

/*
 * Until every live task has been read once nobody can say whether a
 * conversation is free: they are held.  Now they are free, if nobody came.
 */
extern void prom_keys_all_read(PromKeys *keys);

/* The keys that nobody holds and somebody waits behind; palloc'd. */
extern uint64 *prom_keys_free(PromKeys *keys, int *n);

#endif
