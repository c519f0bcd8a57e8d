/*
 * key.c
 *	  Says who holds a key, and who waits behind it.
 *
 * A conversation is held from the moment at which it is a task's turn to its
 * end: the tries of one task are one turn of it, and nobody overtakes.  A
 * concurrency key is held while a task runs.
 *
 * A concurrency key that nobody holds is not kept for one task, which may find
 * its gate closed or full: the first for each target is called into its lane,
 * and who comes first to the head of a lane takes the key.  Of those of one
 * target only the first is called, since the others wait for the same gate;
 * if it leaves its lane without the key, the next is called (queue.c, wake).
 *
 * A key is here while somebody holds it or waits for it.
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "key.h"

/* What waits for its conversation waits in one order, whatever its target. */
static const PromTarget any = {0};

/* In place of a task, while the live tasks are first read. */
#define NOT_KNOWN (-1)

/* Those that were refused are read when so many still wait. */
#define FEW 128

/* What waits for a key and for the same gate; of a conversation, all. */
typedef struct PromBehind
{
	struct PromKey *key;
	PromTarget target;
	pairingheap *waiting;
	PromQueueNode *called; /* to its lane, or NULL */
	int64 length;          /* of what waits */
	bool refused;          /* a task, since there was no room */
	bool reading;          /* those that were are being read */
	struct PromBehind *next;
} PromBehind;

typedef struct PromKey
{
	uint64 hash;
	int64 holder; /* 0: nobody */
	PromBehind *behind;
} PromKey;

struct PromKeys
{
	HTAB *keys;
	bool all_read;
	bool want_more;
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
find_key(PromKeys *keys, uint64 hash, bool make)
{
	bool found;
	PromKey *key;

	if (hash == 0)
		return NULL;
	key = hash_search(keys->keys, &hash, make ? HASH_ENTER : HASH_FIND, &found);
	if (make && !found)
	{
		key->holder = 0;
		key->behind = NULL;
	}
	return key;
}

static void
forget_if_idle(PromKeys *keys, PromKey *key)
{
	if (key->holder == 0 && key->behind == NULL)
		hash_search(keys->keys, &key->hash, HASH_REMOVE, NULL);
}

static PromBehind *
find_behind(const PromKey *key, const PromTarget *target)
{
	PromBehind *behind;

	for (behind = key->behind; behind != NULL; behind = behind->next)
		if (behind->target.agent == target->agent &&
			behind->target.model == target->model)
			break;
	return behind;
}

static PromBehind *
make_behind(PromKey *key, const PromTarget *target)
{
	PromBehind *behind = find_behind(key, target);
	MemoryContext before;

	if (behind != NULL)
		return behind;
	before = MemoryContextSwitchTo(TopMemoryContext);
	behind = palloc0(sizeof(PromBehind));
	behind->key = key;
	behind->target = *target;
	behind->waiting = pairingheap_allocate(prom_lane_order, NULL);
	behind->next = key->behind;
	key->behind = behind;
	MemoryContextSwitchTo(before);
	return behind;
}

static bool
has_any(const PromBehind *behind)
{
	return behind->called != NULL || behind->length > 0;
}

/* It is kept while tasks that were refused are to come before others. */
static void
forget_behind_if_idle(PromKeys *keys, PromBehind *behind)
{
	PromKey *key = behind->key;

	if (has_any(behind) || behind->reading)
		return;
	if (behind->refused)
	{
		keys->want_more = true;
		return;
	}
	for (PromBehind **p = &key->behind; *p != NULL; p = &(*p)->next)
		if (*p == behind)
		{
			*p = behind->next;
			break;
		}
	pairingheap_free(behind->waiting);
	pfree(behind);
	forget_if_idle(keys, key);
}

/* Do tasks wait for a key, so that a new one comes after them? */
static bool
is_waited_for(const PromKey *key)
{
	for (PromBehind *behind = key->behind; behind != NULL;
		 behind = behind->next)
		if (has_any(behind))
			return true;
	return false;
}

static bool
hold_conversation(PromKeys *keys, PromKey *key, PromQueueEntry *entry)
{
	if (key->holder == 0)
		key->holder = keys->all_read ? entry->task_id : NOT_KNOWN;
	entry->has_conversation = key->holder == entry->task_id;
	return entry->has_conversation;
}

/*
 * Who holds a conversation may wait for its concurrency key.  That cannot end
 * in a circle: who holds a concurrency key runs, and waits for nothing.
 */
PromKey *
prom_keys_enter(PromKeys *keys, PromQueueNode *node)
{
	PromQueueEntry *entry = node->entry;
	PromKey *key = find_key(keys, entry->conversation, true);

	if (key != NULL && !hold_conversation(keys, key, entry))
		return key;
	key = find_key(keys, entry->key, false);
	if (key == NULL || key->holder == entry->task_id)
		return NULL;
	return key->holder != 0 || (node->behind == NULL && is_waited_for(key))
			   ? key
			   : NULL;
}

PromKey *
prom_keys_take(PromKeys *keys, PromQueueNode *node)
{
	PromQueueEntry *entry = node->entry;
	PromKey *key = find_key(keys, entry->key, true);

	if (key == NULL)
		return NULL;
	if (key->holder != 0 && key->holder != entry->task_id)
		return key;
	key->holder = entry->task_id;
	entry->has_key = true;
	prom_keys_leave(keys, node);
	return NULL;
}

void
prom_keys_wait(PromKeys *keys, PromKey *key, PromQueueNode *node)
{
	PromQueueEntry *entry = node->entry;

	prom_keys_leave(keys, node);
	entry->in_conversation = key->hash == entry->conversation;
	node->place = PROM_PLACE_KEY;
	node->behind = make_behind(key,
							   entry->in_conversation ? &any : &entry->target);
	pairingheap_add(node->behind->waiting, &node->order);
	node->behind->length++;
}

void
prom_keys_restore(PromKeys *keys, PromQueueEntry *entry, bool runs)
{
	PromKey *key = find_key(keys, entry->conversation, true);

	if (key != NULL && (key->holder == 0 || key->holder == NOT_KNOWN))
		key->holder = entry->task_id;
	entry->has_conversation = key != NULL && key->holder == entry->task_id;
	if (!runs)
		return;
	key = find_key(keys, entry->key, true);
	if (key != NULL && key->holder == 0)
		key->holder = entry->task_id;
	entry->has_key = key != NULL && key->holder == entry->task_id;
}

static void
release(PromKeys *keys, uint64 hash, int64 task_id)
{
	PromKey *key = find_key(keys, hash, false);

	if (key == NULL || key->holder != task_id)
		return;
	key->holder = 0;
	forget_if_idle(keys, key);
}

void
prom_keys_release(PromKeys *keys, PromQueueEntry *entry, bool conversation_too)
{
	release(keys, entry->key, entry->task_id);
	entry->has_key = false;
	if (!conversation_too)
		return;
	release(keys, entry->conversation, entry->task_id);
	entry->has_conversation = false;
}

PromQueueNode *
prom_keys_next(PromKeys *keys, uint64 hash)
{
	PromKey *key = find_key(keys, hash, false);
	PromQueueNode *node;

	if (key == NULL || key->holder != 0)
		return NULL;
	for (PromBehind *behind = key->behind; behind != NULL;
		 behind = behind->next)
	{
		if (behind->called != NULL || pairingheap_is_empty(behind->waiting))
			continue;
		node = pairingheap_container(PromQueueNode, order,
									 pairingheap_first(behind->waiting));
		pairingheap_remove(behind->waiting, &node->order);
		behind->length--;
		keys->want_more |= behind->refused && behind->length < FEW;
		node->place = PROM_PLACE_NONE;
		if (!node->entry->in_conversation)
		{
			behind->called = node;
			return node;
		}
		/* It takes the conversation at once. */
		node->behind = NULL;
		forget_behind_if_idle(keys, behind);
		return node;
	}
	return NULL;
}

void
prom_keys_leave(PromKeys *keys, PromQueueNode *node)
{
	PromBehind *behind = node->behind;

	if (behind == NULL)
		return;
	if (node->place == PROM_PLACE_KEY)
	{
		pairingheap_remove(behind->waiting, &node->order);
		behind->length--;
		node->place = PROM_PLACE_NONE;
	}
	else
		behind->called = NULL;
	node->behind = NULL;
	forget_behind_if_idle(keys, behind);
}

uint64 *
prom_keys_all_read(PromKeys *keys, int *n)
{
	HASH_SEQ_STATUS status;
	PromKey *key;
	uint64 *hashes;

	*n = 0;
	if (keys->all_read)
		return NULL;
	keys->all_read = true;
	hashes = MemoryContextAllocHuge(CurrentMemoryContext,
									(hash_get_num_entries(keys->keys) + 1) *
										sizeof(uint64));
	hash_seq_init(&status, keys->keys);
	while ((key = hash_seq_search(&status)) != NULL)
	{
		if (key->holder != NOT_KNOWN)
			continue;
		key->holder = 0;
		hashes[(*n)++] = key->hash;
		forget_if_idle(keys, key);
	}
	return hashes;
}

/* Would a task wait behind this key? */
static bool
blocks(const PromKey *key)
{
	return key != NULL && (key->holder != 0 || is_waited_for(key));
}

bool
prom_keys_block(PromKeys *keys, const PromHint *hint)
{
	return blocks(find_key(keys, hint->conversation, false)) ||
		   blocks(find_key(keys, hint->key, false));
}

/* Where it would wait, or would have to if it is not to overtake; or NULL. */
static PromBehind *
place_of(PromKeys *keys, const PromHint *hint)
{
	PromKey *conversation = find_key(keys, hint->conversation, false);
	PromKey *key = find_key(keys, hint->key, false);
	PromBehind *behind = NULL;

	if (conversation != NULL)
		behind = find_behind(conversation, &any);
	if (behind == NULL && !blocks(conversation) && key != NULL)
		behind = find_behind(key, &hint->target);
	return behind;
}

bool
prom_keys_is_first(PromKeys *keys, const PromHint *hint)
{
	const PromBehind *behind = place_of(keys, hint);

	return behind == NULL || !has_any(behind);
}

void
prom_keys_refuse(PromKeys *keys, const PromHint *hint)
{
	PromBehind *behind = place_of(keys, hint);

	Assert(behind != NULL);
	behind->refused = true;
}

bool
prom_keys_were_refused(PromKeys *keys, const PromHint *hint)
{
	const PromBehind *behind = place_of(keys, hint);

	return behind != NULL && behind->refused;
}

bool
prom_keys_are_read(PromKeys *keys, const PromHint *hint)
{
	const PromBehind *behind = place_of(keys, hint);

	return behind != NULL && behind->reading;
}

bool
prom_keys_want_more(PromKeys *keys)
{
	return keys->want_more;
}

bool
prom_keys_any_refused(PromKeys *keys)
{
	HASH_SEQ_STATUS status;
	PromKey *key;
	bool any_refused = false;

	hash_seq_init(&status, keys->keys);
	while ((key = hash_seq_search(&status)) != NULL)
		for (PromBehind *behind = key->behind; behind != NULL;
			 behind = behind->next)
			any_refused |= behind->refused;
	return any_refused;
}

/* Let all know that reading begins or has ended. */
static void
set_reading(PromKeys *keys, bool reading)
{
	HASH_SEQ_STATUS status;
	PromKey *key;

	hash_seq_init(&status, keys->keys);
	while ((key = hash_seq_search(&status)) != NULL)
	{
		PromBehind *next;

		for (PromBehind *behind = key->behind; behind != NULL; behind = next)
		{
			next = behind->next;
			behind->reading = reading && behind->refused;
			if (reading)
				behind->refused = false;
			forget_behind_if_idle(keys, behind);
		}
	}
}

void
prom_keys_begin_reading(PromKeys *keys)
{
	keys->want_more = false;
	set_reading(keys, true);
}

void
prom_keys_end_reading(PromKeys *keys)
{
	set_reading(keys, false);
}
