/*
 * key.c
 *	  Says who holds a key, and who waits behind it.
 *
 * A concurrency key is held while a task runs, a conversation from a task's
 * first start to its end: the tries of one task are one turn of it.  A key
 * is here while somebody holds it or waits behind it.
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

PromKey *
prom_keys_claim(PromKeys *keys, const PromQueueEntry *entry)
{
	PromKey *conversation = NULL;
	PromKey *key = NULL;

	if (entry->conversation != 0)
	{
		conversation = find_key(keys, entry->conversation);
		if (conversation->holder == 0 && !keys->all_read)
			conversation->holder = NOT_KNOWN;
		if (conversation->holder != 0 &&
			conversation->holder != entry->task_id)
			return conversation;
	}
	if (entry->key != 0)
	{
		key = find_key(keys, entry->key);
		if (key->holder != 0 && key->holder != entry->task_id)
		{
			if (conversation != NULL)
				forget_if_idle(keys, conversation);
			return key;
		}
		key->holder = entry->task_id;
	}
	if (conversation != NULL)
		conversation->holder = entry->task_id;
	return NULL;
}

void
prom_keys_restore(PromKeys *keys, const PromQueueEntry *entry, bool runs)
{
	if (entry->conversation != 0)
		find_key(keys, entry->conversation)->holder = entry->task_id;
	if (entry->key != 0 && runs)
		find_key(keys, entry->key)->holder = entry->task_id;
}

/* The first that waits behind a key; the key may be gone afterwards. */
static PromQueueNode *
first_waiting(PromKeys *keys, PromKey *key)
{
	PromQueueNode *node = NULL;

	if (!pairingheap_is_empty(key->waiting))
	{
		node = pairingheap_container(PromQueueNode, order,
									 pairingheap_first(key->waiting));
		prom_keys_leave(keys, node);
	}
	else
		forget_if_idle(keys, key);
	return node;
}

int
prom_keys_release(PromKeys *keys, const PromQueueEntry *entry,
				  bool conversation_too, PromQueueNode **next)
{
	uint64 hashes[2] = {entry->key, conversation_too ? entry->conversation : 0};
	int n = 0;

	for (int i = 0; i < lengthof(hashes); i++)
	{
		PromKey *key = hashes[i] == 0 ? NULL
									  : hash_search(keys->keys, &hashes[i],
													HASH_FIND, NULL);

		if (key == NULL || key->holder != entry->task_id)
			continue;
		key->holder = 0;
		next[n] = first_waiting(keys, key);
		if (next[n] != NULL)
			n++;
	}
	return n;
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

/* A key that is held since nobody knew better, or NULL. */
static PromKey *
not_known(PromKeys *keys)
{
	HASH_SEQ_STATUS status;
	PromKey *key;

	hash_seq_init(&status, keys->keys);
	while ((key = hash_seq_search(&status)) != NULL)
		if (key->holder == NOT_KNOWN)
		{
			hash_seq_term(&status);
			return key;
		}
	return NULL;
}

PromQueueNode *
prom_keys_all_read(PromKeys *keys)
{
	PromQueueNode *node = NULL;
	PromKey *key;

	keys->all_read = true;
	while (node == NULL && (key = not_known(keys)) != NULL)
	{
		key->holder = 0;
		node = first_waiting(keys, key);
	}
	return node;
}
