/*
 * queue.c
 *	  Keeps the live tasks of one database in the order in which they run.
 *
 * Entries are in a dynamic shared area, in slabs that never move, so that a
 * backend can read them under queue_lock; the order is private to the
 * scheduler: three heaps of entry numbers (ready by priority and age, later
 * by due time, and all that wait by deadline) and a hash from task to entry.
 * Nothing here is the truth: the facts are, and the queue is made from them.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "compat.h"
#include "guc.h"
#include "queue.h"
#include "role.h"

#define SLAB_ENTRIES 4096
#define MAX_SLABS 65536

/* What one live task costs, heaps and hash included. */
#define ENTRY_BYTES \
	(sizeof(PromQueueEntry) + 2 * 2 * sizeof(int32) + 2 * sizeof(TaskEntry))

/* The part of the shared area that readers begin with. */
typedef struct QueueRoot
{
	int nslabs;
	int nentries; /* ever used; those behind were never written */
	dsa_pointer slabs[MAX_SLABS];
} QueueRoot;

typedef struct TaskEntry
{
	int64 task_id;
	int32 entry;
	char status;
} TaskEntry;

#define SH_PREFIX taskhash
#define SH_ELEMENT_TYPE TaskEntry
#define SH_KEY_TYPE int64
#define SH_KEY task_id
#define SH_HASH_KEY(tb, key) murmurhash32((uint32) ((key) ^ ((key) >> 32)))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef bool (*Before)(const PromQueueEntry *a, const PromQueueEntry *b);

/* A heap of entry numbers that knows where each entry is. */
typedef struct Heap
{
	Before before;
	int32 *items;
	int32 *places; /* by entry number; -1: not in it */
	int length;
} Heap;

struct PromQueue
{
	PromDatabase *db;
	dsa_area *area;
	QueueRoot *root;
	PromQueueEntry **slabs; /* where they are in this process */
	int32 *free_entries;
	int nfree;
	int64 length;
	taskhash_hash *tasks;
	Heap ready;
	Heap later;
	Heap deadlines;
};

static PromQueueEntry *
entry_at(PromQueue *queue, int32 entry)
{
	return &queue->slabs[entry / SLAB_ENTRIES][entry % SLAB_ENTRIES];
}

/* Urgent first, then the higher priority, then the longer due. */
static bool
runs_before(const PromQueueEntry *a, const PromQueueEntry *b)
{
	if (a->urgent != b->urgent)
		return a->urgent;
	if (a->priority != b->priority)
		return a->priority > b->priority;
	if (a->due != b->due)
		return a->due < b->due;
	return a->task_id < b->task_id;
}

static bool
due_before(const PromQueueEntry *a, const PromQueueEntry *b)
{
	return a->due < b->due;
}

static bool
ends_before(const PromQueueEntry *a, const PromQueueEntry *b)
{
	return a->deadline < b->deadline;
}

static void
heap_place(Heap *heap, int place, int32 entry)
{
	heap->items[place] = entry;
	heap->places[entry] = place;
}

static bool
heap_less(PromQueue *queue, Heap *heap, int32 a, int32 b)
{
	return heap->before(entry_at(queue, a), entry_at(queue, b));
}

static void
heap_up(PromQueue *queue, Heap *heap, int place, int32 entry)
{
	while (place > 0)
	{
		int parent = (place - 1) / 2;

		if (!heap_less(queue, heap, entry, heap->items[parent]))
			break;
		heap_place(heap, place, heap->items[parent]);
		place = parent;
	}
	heap_place(heap, place, entry);
}

static void
heap_down(PromQueue *queue, Heap *heap, int place, int32 entry)
{
	for (;;)
	{
		int child = 2 * place + 1;

		if (child >= heap->length)
			break;
		if (child + 1 < heap->length &&
			heap_less(queue, heap, heap->items[child + 1], heap->items[child]))
			child++;
		if (!heap_less(queue, heap, heap->items[child], entry))
			break;
		heap_place(heap, place, heap->items[child]);
		place = child;
	}
	heap_place(heap, place, entry);
}

static void
heap_insert(PromQueue *queue, Heap *heap, int32 entry)
{
	Assert(heap->places[entry] == -1);
	heap->length++;
	heap_up(queue, heap, heap->length - 1, entry);
}

static void
heap_remove(PromQueue *queue, Heap *heap, int32 entry)
{
	int place = heap->places[entry];
	int32 moved;

	if (place == -1)
		return;
	heap->places[entry] = -1;
	heap->length--;
	if (place == heap->length)
		return;
	moved = heap->items[heap->length];
	if (place > 0 &&
		heap_less(queue, heap, moved, heap->items[(place - 1) / 2]))
		heap_up(queue, heap, place, moved);
	else
		heap_down(queue, heap, place, moved);
}

static void
heap_grow(Heap *heap, int from, int to)
{
	Size bytes = (Size) to * sizeof(int32);

	if (heap->items == NULL)
	{
		heap->items = MemoryContextAllocHuge(TopMemoryContext, bytes);
		heap->places = MemoryContextAllocHuge(TopMemoryContext, bytes);
	}
	else
	{
		heap->items = repalloc_huge(heap->items, bytes);
		heap->places = repalloc_huge(heap->places, bytes);
	}
	for (int i = from; i < to; i++)
		heap->places[i] = -1;
}

static void
close_queue(int code, Datum arg)
{
	PromQueue *queue = (PromQueue *) DatumGetPointer(arg);

	LWLockReleaseAll(); /* the error may have come while it was held */
	LWLockAcquire(queue->db->queue_lock, LW_EXCLUSIVE);
	queue->db->queue_dsa = DSA_HANDLE_INVALID;
	queue->db->queue_root = InvalidDsaPointer;
	LWLockRelease(queue->db->queue_lock);
}

PromQueue *
prom_queue_create(PromDatabase *db)
{
	PromQueue *queue = MemoryContextAllocZero(TopMemoryContext,
											  sizeof(PromQueue));
	dsa_pointer root;

	queue->db = db;
	queue->area = dsa_create(db->queue_lock->tranche);
	dsa_pin_mapping(queue->area);
	root = dsa_allocate0(queue->area, sizeof(QueueRoot));
	queue->root = dsa_get_address(queue->area, root);
	queue->slabs = MemoryContextAllocZero(TopMemoryContext,
										  MAX_SLABS * sizeof(PromQueueEntry *));
	queue->tasks = taskhash_create(TopMemoryContext, 1024, NULL);
	queue->ready.before = runs_before;
	queue->later.before = due_before;
	queue->deadlines.before = ends_before;

	before_shmem_exit(close_queue, PointerGetDatum(queue));
	LWLockAcquire(db->queue_lock, LW_EXCLUSIVE);
	db->queue_dsa = dsa_get_handle(queue->area);
	db->queue_root = root;
	LWLockRelease(db->queue_lock);
	return queue;
}

/* How many tasks it may hold. */
static int64
capacity(void)
{
	return Min((Size) prom_guc_queue_memory * 1024 / ENTRY_BYTES,
			   (Size) MAX_SLABS * SLAB_ENTRIES);
}

bool
prom_queue_is_half_empty(PromQueue *queue)
{
	return queue->length <= capacity() / 2;
}

static void
add_slab(PromQueue *queue)
{
	int from = queue->root->nslabs * SLAB_ENTRIES;
	int to = from + SLAB_ENTRIES;
	Size bytes = (Size) to * sizeof(int32);
	dsa_pointer slab;

	heap_grow(&queue->ready, from, to);
	heap_grow(&queue->later, from, to);
	heap_grow(&queue->deadlines, from, to);
	queue->free_entries = queue->free_entries == NULL
							  ? MemoryContextAllocHuge(TopMemoryContext, bytes)
							  : repalloc_huge(queue->free_entries, bytes);
	slab = dsa_allocate0(queue->area, SLAB_ENTRIES * sizeof(PromQueueEntry));
	queue->slabs[queue->root->nslabs] = dsa_get_address(queue->area, slab);
	queue->root->slabs[queue->root->nslabs] = slab;
	queue->root->nslabs++;
}

static int32
new_entry(PromQueue *queue)
{
	if (queue->nfree > 0)
		return queue->free_entries[--queue->nfree];
	if (queue->root->nentries == queue->root->nslabs * SLAB_ENTRIES)
		add_slab(queue);
	return queue->root->nentries++;
}

static int32
find_task(PromQueue *queue, int64 task_id)
{
	TaskEntry *found = taskhash_lookup(queue->tasks, task_id);

	return found == NULL ? -1 : found->entry;
}

/* Put an entry that is in no heap where its due time and state say. */
static void
enqueue(PromQueue *queue, int32 number, TimestampTz now)
{
	PromQueueEntry *entry = entry_at(queue, number);

	entry->since = now;
	entry->slot = -1;
	if (entry->urgent || entry->due <= now)
	{
		entry->state = PROM_QUEUE_READY;
		heap_insert(queue, &queue->ready, number);
	}
	else
	{
		entry->state = PROM_QUEUE_LATER;
		heap_insert(queue, &queue->later, number);
	}
	if (!entry->urgent)
		heap_insert(queue, &queue->deadlines, number);
}

static void
dequeue(PromQueue *queue, int32 number)
{
	heap_remove(queue, &queue->ready, number);
	heap_remove(queue, &queue->later, number);
	heap_remove(queue, &queue->deadlines, number);
}

static void
make_urgent(PromQueue *queue, int32 number, TimestampTz now)
{
	dequeue(queue, number);
	entry_at(queue, number)->urgent = true;
	enqueue(queue, number, now);
}

bool
prom_queue_add(PromQueue *queue, const PromHint *hint, bool retrying,
			   bool urgent, TimestampTz now)
{
	PromQueueEntry *entry;
	TaskEntry *task;
	bool found;
	int32 number;

	if (find_task(queue, hint->task_id) != -1)
		return true;
	if (queue->length >= capacity())
		return false;
	number = new_entry(queue);
	task = taskhash_insert(queue->tasks, hint->task_id, &found);
	task->entry = number;
	queue->length++;

	entry = entry_at(queue, number);
	entry->task_id = hint->task_id;
	entry->due = hint->due;
	entry->deadline = hint->deadline;
	entry->submitter = hint->submitter;
	entry->priority = hint->priority;
	entry->retrying = retrying;
	entry->urgent = urgent;
	enqueue(queue, number, now);
	return true;
}

int
prom_queue_cancel(PromQueue *queue, int64 task_id, TimestampTz now)
{
	int32 number = find_task(queue, task_id);

	if (number == -1)
		return -1;
	if (entry_at(queue, number)->state == PROM_QUEUE_RUNNING)
		return entry_at(queue, number)->slot;
	make_urgent(queue, number, now);
	return -1;
}

void
prom_queue_advance(PromQueue *queue, TimestampTz now)
{
	while (queue->later.length > 0)
	{
		int32 number = queue->later.items[0];
		PromQueueEntry *entry = entry_at(queue, number);

		if (entry->due > now)
			break;
		heap_remove(queue, &queue->later, number);
		entry->state = PROM_QUEUE_READY;
		entry->since = now;
		heap_insert(queue, &queue->ready, number);
	}
	while (queue->deadlines.length > 0 &&
		   entry_at(queue, queue->deadlines.items[0])->deadline <= now)
		make_urgent(queue, queue->deadlines.items[0], now);
}

PromQueueEntry *
prom_queue_take(PromQueue *queue, int slot, TimestampTz now)
{
	int32 number;
	PromQueueEntry *entry;

	if (queue->ready.length == 0)
		return NULL;
	number = queue->ready.items[0];
	entry = entry_at(queue, number);
	dequeue(queue, number);
	entry->state = PROM_QUEUE_RUNNING;
	entry->since = now;
	entry->slot = slot;
	return entry;
}

void
prom_queue_remove(PromQueue *queue, int64 task_id)
{
	int32 number = find_task(queue, task_id);

	if (number == -1)
		return;
	dequeue(queue, number);
	entry_at(queue, number)->state = PROM_QUEUE_FREE;
	queue->free_entries[queue->nfree++] = number;
	queue->length--;
	taskhash_delete(queue->tasks, task_id);
}

void
prom_queue_put_back(PromQueue *queue, int64 task_id, TimestampTz due,
					bool retrying, bool urgent, TimestampTz now)
{
	int32 number = find_task(queue, task_id);
	PromQueueEntry *entry;

	if (number == -1)
		return;
	dequeue(queue, number);
	entry = entry_at(queue, number);
	entry->due = due;
	entry->retrying = retrying;
	entry->urgent = urgent;
	enqueue(queue, number, now);
}

void
prom_queue_adopt(PromQueue *queue, const PromHint *hint, int slot,
				 TimestampTz now)
{
	int32 number;

	if (!prom_queue_add(queue, hint, false, false, now))
		return;
	number = find_task(queue, hint->task_id);
	dequeue(queue, number);
	entry_at(queue, number)->state = PROM_QUEUE_RUNNING;
	entry_at(queue, number)->slot = slot;
}

TimestampTz
prom_queue_next_moment(PromQueue *queue)
{
	TimestampTz next = DT_NOEND;

	if (queue->later.length > 0)
		next = entry_at(queue, queue->later.items[0])->due;
	if (queue->deadlines.length > 0)
		next = Min(next, entry_at(queue, queue->deadlines.items[0])->deadline);
	return next;
}

bool
prom_queue_any_ready(PromQueue *queue)
{
	return queue->ready.length > 0;
}

static void
put_entry(ReturnSetInfo *result, const PromQueueEntry *entry)
{
	Datum values[6];
	bool nulls[6] = {false};
	const char *why;

	switch ((PromQueueState) entry->state)
	{
		case PROM_QUEUE_LATER:
			why = entry->retrying ? "waits to be tried again"
								  : "is not due yet";
			break;
		case PROM_QUEUE_READY:
			why = "waits for a free place (prometheus.max_in_flight)";
			break;
		default:
			why = "runs";
			break;
	}
	values[0] = Int64GetDatum(entry->task_id);
	values[1] = CStringGetTextDatum(entry->state == PROM_QUEUE_RUNNING
										? "running"
									: entry->retrying ? "retrying"
													  : "queued");
	values[2] = Int32GetDatum(entry->priority);
	values[3] = TimestampTzGetDatum(entry->due);
	values[4] = TimestampTzGetDatum(entry->since);
	values[5] = CStringGetTextDatum(why);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* May the user see it?  An oid alone: after a restore there is no queue. */
static bool
may_see(const PromQueueEntry *entry, bool admin)
{
	return admin || (OidIsValid(entry->submitter) &&
					 has_privs_of_role(GetUserId(), entry->submitter));
}

/*
 * A copy of the entries that the user may see, made under the lock: nothing
 * that takes long may be done there.
 */
static PromQueueEntry *
copy_entries(PromDatabase *db, int *ncopied)
{
	PromQueueEntry *copy = NULL;
	dsa_area *area = NULL;
	int n = 0;

	LWLockAcquire(db->queue_lock, LW_SHARED);
	if (db->queue_dsa != DSA_HANDLE_INVALID)
	{
		QueueRoot *root;

		area = dsa_attach(db->queue_dsa);
		root = dsa_get_address(area, db->queue_root);
		copy = MemoryContextAllocHuge(CurrentMemoryContext,
									  Max(root->nentries, 1) *
										  sizeof(PromQueueEntry));
		for (int i = 0; i < root->nentries; i++)
		{
			PromQueueEntry *slab =
				dsa_get_address(area, root->slabs[i / SLAB_ENTRIES]);

			if (slab[i % SLAB_ENTRIES].state != PROM_QUEUE_FREE)
				copy[n++] = slab[i % SLAB_ENTRIES];
		}
	}
	LWLockRelease(db->queue_lock);
	if (area != NULL)
		dsa_detach(area);
	*ncopied = n;
	return copy;
}

PG_FUNCTION_INFO_V1(prom_queue);

Datum
prom_queue(PG_FUNCTION_ARGS)
{
	PromDatabase *db = prom_shmem_database(MyDatabaseId);
	bool admin = prom_role_is_admin();
	PromQueueEntry *entries;
	int n;

	InitMaterializedSRF(fcinfo, 0);
	if (db == NULL)
		return (Datum) 0;
	entries = copy_entries(db, &n);
	for (int i = 0; i < n; i++)
		if (may_see(&entries[i], admin))
			put_entry((ReturnSetInfo *) fcinfo->resultinfo, &entries[i]);
	return (Datum) 0;
}
