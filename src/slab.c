/*
 * slab.c
 *	  Keeps the entries of a queue in a dynamic shared area.
 *
 * They are in slabs that never move, so that a backend can read them under
 * queue_lock.  Each entry has a node in the scheduler's own memory, and a hash
 * there finds it by its task.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "slab.h"

/* Where a task is. */
typedef struct Place
{
	int64 task_id; /* the key */
	int32 entry;
	char status;
} Place;

#define SH_PREFIX taskhash
#define SH_ELEMENT_TYPE Place
#define SH_KEY_TYPE int64
#define SH_KEY task_id
#define SH_HASH_KEY(tb, key) murmurhash32((uint32) ((key) ^ ((key) >> 32)))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct PromSlabs
{
	PromDatabase *db;
	dsa_area *area;
	PromQueueRoot *root;
	taskhash_hash *tasks;
	PromQueueNode **nodes; /* slabs of the same size as those of entries */
	int32 *free_entries;
	int nfree;
};

static void
close_slabs(int code, Datum arg)
{
	PromSlabs *slabs = (PromSlabs *) DatumGetPointer(arg);

	LWLockReleaseAll(); /* the error may have come while it was held */
	LWLockAcquire(slabs->db->queue_lock, LW_EXCLUSIVE);
	slabs->db->queue_dsa = DSA_HANDLE_INVALID;
	slabs->db->queue_root = InvalidDsaPointer;
	LWLockRelease(slabs->db->queue_lock);
}

PromSlabs *
prom_slabs_create(PromDatabase *db)
{
	PromSlabs *slabs = MemoryContextAllocZero(TopMemoryContext,
											  sizeof(PromSlabs));
	dsa_pointer root;

	slabs->db = db;
	slabs->tasks = taskhash_create(TopMemoryContext, 1024, NULL);
	slabs->area = dsa_create(db->queue_lock->tranche);
	dsa_pin_mapping(slabs->area);
	root = dsa_allocate0(slabs->area, sizeof(PromQueueRoot));
	slabs->root = dsa_get_address(slabs->area, root);
	slabs->nodes = MemoryContextAllocZero(TopMemoryContext,
										  PROM_MAX_SLABS *
											  sizeof(PromQueueNode *));

	before_shmem_exit(close_slabs, PointerGetDatum(slabs));
	LWLockAcquire(db->queue_lock, LW_EXCLUSIVE);
	db->queue_dsa = dsa_get_handle(slabs->area);
	db->queue_root = root;
	LWLockRelease(db->queue_lock);
	return slabs;
}

static void
add_slab(PromSlabs *slabs)
{
	int slab = slabs->root->nslabs;
	int from = slab * PROM_SLAB_ENTRIES;
	Size bytes = (Size) (from + PROM_SLAB_ENTRIES) * sizeof(int32);
	dsa_pointer entries;
	PromQueueEntry *first;
	PromQueueNode *nodes;

	nodes = MemoryContextAllocZero(TopMemoryContext,
								   PROM_SLAB_ENTRIES * sizeof(PromQueueNode));
	slabs->free_entries = slabs->free_entries == NULL
							  ? MemoryContextAllocHuge(TopMemoryContext, bytes)
							  : repalloc_huge(slabs->free_entries, bytes);
	entries = dsa_allocate0(slabs->area,
							PROM_SLAB_ENTRIES * sizeof(PromQueueEntry));
	first = dsa_get_address(slabs->area, entries);
	for (int i = 0; i < PROM_SLAB_ENTRIES; i++)
	{
		nodes[i].number = from + i;
		nodes[i].entry = first + i;
	}
	slabs->nodes[slab] = nodes;
	slabs->root->slabs[slab] = entries;
	slabs->root->nslabs++;
}

Size
prom_slabs_entry_bytes(void)
{
	return sizeof(PromQueueEntry) + sizeof(PromQueueNode) + sizeof(int32) +
		   2 * sizeof(Place);
}

static int32
free_entry(PromSlabs *slabs)
{
	if (slabs->nfree > 0)
		return slabs->free_entries[--slabs->nfree];
	if (slabs->root->nentries == slabs->root->nslabs * PROM_SLAB_ENTRIES)
		add_slab(slabs);
	return slabs->root->nentries++;
}

PromQueueNode *
prom_slabs_take(PromSlabs *slabs, int64 task_id)
{
	PromQueueNode *node = prom_slabs_node(slabs, free_entry(slabs));
	bool found;

	taskhash_insert(slabs->tasks, task_id, &found)->entry = node->number;
	node->entry->task_id = task_id;
	return node;
}

void
prom_slabs_give_back(PromSlabs *slabs, PromQueueNode *node)
{
	taskhash_delete(slabs->tasks, node->entry->task_id);
	node->entry->state = PROM_QUEUE_FREE;
	slabs->free_entries[slabs->nfree++] = node->number;
}

PromQueueNode *
prom_slabs_find(const PromSlabs *slabs, int64 task_id)
{
	Place *found = taskhash_lookup(slabs->tasks, task_id);

	return found == NULL ? NULL : prom_slabs_node(slabs, found->entry);
}

int32
prom_slabs_used(const PromSlabs *slabs)
{
	return slabs->root->nentries;
}

PromQueueNode *
prom_slabs_node(const PromSlabs *slabs, int32 number)
{
	return &slabs->nodes[number / PROM_SLAB_ENTRIES]
						[number % PROM_SLAB_ENTRIES];
}
