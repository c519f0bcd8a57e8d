/*
 * key.c
 *	  Says who holds a key, and who waits behind it.
 *
 * A concurrency key is held while a task runs, a conversation from the moment
 * at which it is a task's turn to its end: the tries of one task are one turn
 * of it.  A key is here while somebody holds it or waits behind it.
 *
 * A key that nobody holds is not kept for whoever is called next: that one may
 * find its gate closed, or its other key taken, or be cancelled.  Whoever
 * leaves without having taken it calls the next (queue.c, wake).
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "key.h"

/* In place of a task, while the live tasks are first read. */
#define NOT_KNOWN (-1)

typedef struct PromKey
{
	uint64 hash;
	int64 holder; /* 0: nobody */
	pairingheap *waiting;
} PromKey;

struct PromKeys
{
	HTAB *keys;
	bool all_read;
};

PromKeys *
prom_keys_create(void)
{
	PromKeys *keys = MemoryContextAllocZero(TopMemoryContext, sizeof(PromKeys));
	HASHCTL control = {0};

	control.keysize = sizeof(uint64);
	control.entrysize = sizeof(PromKey);
	control.hcxt = TopMemoryContext;
	keys->keys = hash_create("prometheus keys", 64, &control,
							 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return keys;
}

static PromKey *
find_key(PromKeys *keys, uint64 hash)
{
	bool found;
	PromKey *key = hash_search(keys->keys, &hash, HASH_ENTER, &found);

	if (!found)
	{
		MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);

		key->holder = 0;
		key->waiting = pairingheap_allocate(prom_lane_order, NULL);
		MemoryContextSwitchTo(before);
	}
	return key;
}

static void
forget_if_idle(PromKeys *keys, PromKey *key)
{
	if (key->holder != 0 || !pairingheap_is_empty(key->waiting))
		return;
	pairingheap_free(key->waiting);
	hash_search(keys->keys, &key->hash, HASH_REMOVE, NULL);
}

void
prom_keys_wait(PromKey *key, PromQueueNode *node)
{
	node->place = PROM_PLACE_KEY;
	node->key = key;
	node->entry->blocker = Max(key->holder, 0);
	node->entry->in_conversation = key->hash == node->entry->conversation;
	pairingheap_add(key->waiting, &node->order);
}

/*
 * The conversation is taken first, and kept while the task waits for its
 * concurrency key, so that none of the same conversation overtakes it.  That
 * cannot end in a circle: who holds a concurrency key runs, and waits for
 * nothing.
 */
PromKey *
prom_keys_claim(PromKeys *keys, const PromQueueEntry *entry)
{
	if (entry->conversation != 0)
	{
		PromKey *key = find_key(keys, entry->conversation);

		if (key->holder == 0)
			key->holder = keys->all_read ? entry->task_id : NOT_KNOWN;
		if (key->holder != entry->task_id)
			return key;
	}
	if (entry->key != 0)
	{
		PromKey *key = find_key(keys, entry->key);

		if (key->holder == 0)
			key->holder = entry->task_id;
		if (key->holder != entry->task_id)
			return key;
	}
	return NULL;
}

static void
restore(PromKeys *keys, uint64 hash, int64 task_id)
{
	PromKey *key;

	if (hash == 0)
		return;
	key = find_key(keys, hash);
	if (key->holder == 0 || key->holder == NOT_KNOWN)
		key->holder = task_id;
}

void
prom_keys_restore(PromKeys *keys, const PromQueueEntry *entry, bool runs)
{
	restore(keys, entry->conversation, entry->task_id);
	if (runs)
		restore(keys, entry->key, entry->task_id);
}

static void
release(PromKeys *keys, uint64 hash, int64 task_id)
{
	PromKey *key = hash == 0 ? NULL
							 : hash_search(keys->keys, &hash, HASH_FIND, NULL);

	if (key == NULL || key->holder != task_id)
		return;
	key->holder = 0;
	forget_if_idle(keys, key);
}

void
prom_keys_release(PromKeys *keys, const PromQueueEntry *entry,
				  bool conversation_too)
{
	release(keys, entry->key, entry->task_id);
	if (conversation_too)
		release(keys, entry->conversation, entry->task_id);
}

PromQueueNode *
prom_keys_next(PromKeys *keys, uint64 hash)
{
	PromKey *key = hash == 0 ? NULL
							 : hash_search(keys->keys, &hash, HASH_FIND, NULL);
	PromQueueNode *node;

	if (key == NULL || key->holder != 0 || pairingheap_is_empty(key->waiting))
		return NULL;
	node = pairingheap_container(PromQueueNode, order,
								 pairingheap_first(key->waiting));
	prom_keys_leave(keys, node);
	return node;
}

void
prom_keys_leave(PromKeys *keys, PromQueueNode *node)
{
	PromKey *key = node->key;

	pairingheap_remove(key->waiting, &node->order);
	node->place = PROM_PLACE_NONE;
	node->key = NULL;
	node->entry->blocker = 0;
	forget_if_idle(keys, key);
}

void
prom_keys_all_read(PromKeys *keys)
{
	HASH_SEQ_STATUS status;
	PromKey *key;

	keys->all_read = true;
	hash_seq_init(&status, keys->keys);
	while ((key = hash_seq_search(&status)) != NULL)
		if (key->holder == NOT_KNOWN)
			key->holder = 0;
}

uint64 *
prom_keys_free(PromKeys *keys, int *n)
{
	HASH_SEQ_STATUS status;
	PromKey *key;
	uint64 *hashes = MemoryContextAllocHuge(CurrentMemoryContext,
											(hash_get_num_entries(keys->keys) +
											 1) *
												sizeof(uint64));

	*n = 0;
	hash_seq_init(&status, keys->keys);
	while ((key = hash_seq_search(&status)) != NULL)
		if (key->holder == 0)
			hashes[(*n)++] = key->hash;
	return hashes;
}
