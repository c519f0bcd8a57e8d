/*
 * queue.c
 *	  Keeps the live tasks of one database in the order in which they run.
 *
 * Entries are in a dynamic shared area, in slabs that never move, so that a
 * backend can read them under queue_lock; the order is private to the
 * scheduler: heaps of what is urgent, of what is due later and of deadlines,
 * for each submitter a heap of what is ready, and a hash from task to entry.
 *
 * Submitters share the places fairly: each attempt costs its submitter one,
 * and a thousandth for each token, and who has used least is next.  Priority
 * orders the tasks of one submitter.
 *
 * Nothing here is the truth: the facts are, and the queue is made from them.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/pairingheap.h"
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
#define ENTRY_BYTES                                               \
	(sizeof(PromQueueEntry) + sizeof(QueueNode) + sizeof(int32) + \
	 2 * sizeof(TaskEntry))

/* The part of the shared area that readers begin with. */
typedef struct QueueRoot
{
	int nslabs;
	int nentries; /* ever used; those behind were never written */
	dsa_pointer slabs[MAX_SLABS];
} QueueRoot;

/* Which heap an entry's order node is in. */
typedef enum Place
{
	PLACE_NONE,
	PLACE_URGENT,
	PLACE_READY,
	PLACE_LATER
} Place;

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

/* The scheduler's own part of an entry. */
typedef struct QueueNode
{
	pairingheap_node order; /* in the heap that its place says */
	pairingheap_node
		deadline; /* in deadlines, while it waits and is not urgent */
	int32 number;
	Place place;
} QueueNode;

/* Who has tasks, and what they have used: a virtual time. */
typedef struct Submitter
{
	Oid role; /* hash key */
	double spent;
	pairingheap *ready;
	pairingheap_node node; /* in active, while ready is not empty */
	bool is_active;
} Submitter;

struct PromQueue
{
	PromDatabase *db;
	dsa_area *area;
	QueueRoot *root;
	PromQueueEntry **slabs; /* where they are in this process */
	QueueNode **nodes;      /* slabs of the same size */
	int32 *free_entries;
	int nfree;
	int64 length;
	taskhash_hash *tasks;
	HTAB *submitters;
	pairingheap *urgent;
	pairingheap *active; /* submitters that have ready tasks */
	pairingheap *later;
	pairingheap *deadlines;
	TimestampTz missed; /* when the first of those without room is due */
	double now;         /* what the submitter that ran last had spent */
};

static PromQueueEntry *
entry_at(PromQueue *queue, int32 entry)
{
	return &queue->slabs[entry / SLAB_ENTRIES][entry % SLAB_ENTRIES];
}

static QueueNode *
node_at(PromQueue *queue, int32 entry)
{
	return &queue->nodes[entry / SLAB_ENTRIES][entry % SLAB_ENTRIES];
}

static PromQueueEntry *
entry_of(void *queue, const QueueNode *node)
{
	return entry_at(queue, node->number);
}

static int
compare(int64 a, int64 b)
{
	return a < b ? -1 : a > b;
}

/*
 * The comparators say which comes first, as pairingheap wants it: positive if
 * a does.
 *
 * A point of priority is worth a second of waiting.  All tasks age alike, so
 * their order does not change with time: the moment of being due, moved by
 * the priority, is all there is to compare.
 */
static int
runs_first(const pairingheap_node *a, const pairingheap_node *b, void *queue)
{
	const PromQueueEntry *x =
		entry_of(queue, pairingheap_const_container(QueueNode, order, a));
	const PromQueueEntry *y =
		entry_of(queue, pairingheap_const_container(QueueNode, order, b));
	int64 x_rank = x->due - x->priority * USECS_PER_SEC;
	int64 y_rank = y->due - y->priority * USECS_PER_SEC;

	return x_rank != y_rank ? compare(y_rank, x_rank)
							: compare(y->task_id, x->task_id);
}

static int
due_first(const pairingheap_node *a, const pairingheap_node *b, void *queue)
{
	return compare(
		entry_of(queue, pairingheap_const_container(QueueNode, order, b))->due,
		entry_of(queue, pairingheap_const_container(QueueNode, order, a))->due);
}

static int
ends_first(const pairingheap_node *a, const pairingheap_node *b, void *queue)
{
	return compare(
		entry_of(queue, pairingheap_const_container(QueueNode, deadline, b))
			->deadline,
		entry_of(queue, pairingheap_const_container(QueueNode, deadline, a))
			->deadline);
}

static int
spent_less(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	double x = pairingheap_const_container(Submitter, node, a)->spent;
	double y = pairingheap_const_container(Submitter, node, b)->spent;

	return x < y ? 1 : x > y ? -1
							 : 0;
}

/* The submitter of a task; one that is new has spent nothing. */
static Submitter *
submitter_of(PromQueue *queue, Oid role)
{
	MemoryContext before;
	bool found;
	Submitter *submitter = hash_search(queue->submitters, &role, HASH_ENTER,
									   &found);

	if (!found)
	{
		submitter->spent = 0;
		submitter->is_active = false;
		before = MemoryContextSwitchTo(TopMemoryContext);
		submitter->ready = pairingheap_allocate(runs_first, queue);
		MemoryContextSwitchTo(before);
	}
	return submitter;
}

/*
 * Who has been away begins where the others are: what was not used then is
 * not owed now.
 */
static void
activate(PromQueue *queue, Submitter *submitter)
{
	if (submitter->is_active)
		return;
	submitter->spent = Max(submitter->spent, queue->now);
	submitter->is_active = true;
	pairingheap_add(queue->active, &submitter->node);
}

static void
deactivate(PromQueue *queue, Submitter *submitter)
{
	if (!submitter->is_active)
		return;
	submitter->is_active = false;
	pairingheap_remove(queue->active, &submitter->node);
}

/* Let a submitter have used more; its turn comes later by that. */
static void
spend(PromQueue *queue, Submitter *submitter, double cost)
{
	bool was_active = submitter->is_active;

	deactivate(queue, submitter);
	submitter->spent += cost;
	if (was_active)
	{
		submitter->is_active = true;
		pairingheap_add(queue->active, &submitter->node);
	}
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
	HASHCTL control = {0};
	MemoryContext before;
	dsa_pointer root;

	queue->db = db;
	queue->missed = DT_NOEND;
	queue->area = dsa_create(db->queue_lock->tranche);
	dsa_pin_mapping(queue->area);
	root = dsa_allocate0(queue->area, sizeof(QueueRoot));
	queue->root = dsa_get_address(queue->area, root);
	queue->slabs = MemoryContextAllocZero(TopMemoryContext,
										  MAX_SLABS * sizeof(PromQueueEntry *));
	queue->tasks = taskhash_create(TopMemoryContext, 1024, NULL);
	queue->nodes = MemoryContextAllocZero(TopMemoryContext,
										  MAX_SLABS * sizeof(QueueNode *));
	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(Submitter);
	control.hcxt = TopMemoryContext;
	queue->submitters = hash_create("prometheus submitters", 64, &control,
									HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	before = MemoryContextSwitchTo(TopMemoryContext);
	queue->urgent = pairingheap_allocate(runs_first, queue);
	queue->active = pairingheap_allocate(spent_less, NULL);
	queue->later = pairingheap_allocate(due_first, queue);
	queue->deadlines = pairingheap_allocate(ends_first, queue);
	MemoryContextSwitchTo(before);

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
	Size room = Min((Size) prom_guc_queue_memory * 1024 / ENTRY_BYTES,
					(Size) MAX_SLABS * SLAB_ENTRIES / 2);

	/* What runs has a place in any case. */
	return Max(room, (Size) prom_guc_max_in_flight);
}

bool
prom_queue_wants_more(PromQueue *queue, TimestampTz now)
{
	return queue->length <= capacity() / 2 || queue->missed <= now;
}

void
prom_queue_read_anew(PromQueue *queue)
{
	queue->missed = DT_NOEND;
}

static void
add_slab(PromQueue *queue)
{
	int slab = queue->root->nslabs;
	int from = slab * SLAB_ENTRIES;
	Size bytes = (Size) (from + SLAB_ENTRIES) * sizeof(int32);
	dsa_pointer entries;
	QueueNode *nodes;

	nodes = MemoryContextAllocZero(TopMemoryContext,
								   SLAB_ENTRIES * sizeof(QueueNode));
	for (int i = 0; i < SLAB_ENTRIES; i++)
		nodes[i].number = from + i;
	queue->nodes[slab] = nodes;
	queue->free_entries = queue->free_entries == NULL
							  ? MemoryContextAllocHuge(TopMemoryContext, bytes)
							  : repalloc_huge(queue->free_entries, bytes);
	entries = dsa_allocate0(queue->area, SLAB_ENTRIES * sizeof(PromQueueEntry));
	queue->slabs[slab] = dsa_get_address(queue->area, entries);
	queue->root->slabs[slab] = entries;
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
	QueueNode *node = node_at(queue, number);

	entry->since = now;
	entry->slot = -1;
	entry->state = entry->urgent || entry->due <= now ? PROM_QUEUE_READY
													  : PROM_QUEUE_LATER;
	if (entry->urgent)
	{
		node->place = PLACE_URGENT;
		pairingheap_add(queue->urgent, &node->order);
		return;
	}
	pairingheap_add(queue->deadlines, &node->deadline);
	if (entry->state == PROM_QUEUE_LATER)
	{
		node->place = PLACE_LATER;
		pairingheap_add(queue->later, &node->order);
	}
	else
	{
		Submitter *submitter = submitter_of(queue, entry->submitter.role);

		node->place = PLACE_READY;
		pairingheap_add(submitter->ready, &node->order);
		activate(queue, submitter);
	}
}

/* Take an entry out of the heaps that it is in. */
static void
dequeue(PromQueue *queue, int32 number)
{
	QueueNode *node = node_at(queue, number);
	Submitter *submitter;

	switch (node->place)
	{
		case PLACE_NONE:
			return;
		case PLACE_URGENT:
			pairingheap_remove(queue->urgent, &node->order);
			break;
		case PLACE_LATER:
			pairingheap_remove(queue->later, &node->order);
			break;
		case PLACE_READY:
			submitter = submitter_of(queue,
									 entry_at(queue, number)->submitter.role);
			pairingheap_remove(submitter->ready, &node->order);
			if (pairingheap_is_empty(submitter->ready))
				deactivate(queue, submitter);
			break;
	}
	if (node->place != PLACE_URGENT)
		pairingheap_remove(queue->deadlines, &node->deadline);
	node->place = PLACE_NONE;
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
	bool is_later;
	TimestampTz wanted;

	if (find_task(queue, hint->task_id) != -1)
		return true;
	/* One that is too late is to be ended now, whenever it is due. */
	wanted = Min(hint->due, hint->deadline);
	is_later = !urgent && wanted > now;
	if (queue->length >= capacity() &&
		(is_later || queue->length >= 2 * capacity()))
	{
		/* Until then nobody misses it. */
		if (is_later)
			queue->missed = Min(queue->missed, wanted);
		return false;
	}
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

bool
prom_queue_has(PromQueue *queue, int64 task_id)
{
	return find_task(queue, task_id) != -1;
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

/* The entry that is first in later or in deadlines; -1: none. */
static int32
first_later(PromQueue *queue)
{
	if (pairingheap_is_empty(queue->later))
		return -1;
	return pairingheap_container(QueueNode, order,
								 pairingheap_first(queue->later))
		->number;
}

static int32
first_deadline(PromQueue *queue)
{
	if (pairingheap_is_empty(queue->deadlines))
		return -1;
	return pairingheap_container(QueueNode, deadline,
								 pairingheap_first(queue->deadlines))
		->number;
}

void
prom_queue_advance(PromQueue *queue, TimestampTz now)
{
	int32 number;

	while ((number = first_later(queue)) != -1 &&
		   entry_at(queue, number)->due <= now)
	{
		dequeue(queue, number);
		enqueue(queue, number, now);
	}
	while ((number = first_deadline(queue)) != -1 &&
		   entry_at(queue, number)->deadline <= now)
		make_urgent(queue, number, now);
}

PromQueueEntry *
prom_queue_take(PromQueue *queue, int slot, TimestampTz now)
{
	Submitter *submitter = NULL;
	QueueNode *node;
	PromQueueEntry *entry;

	if (!pairingheap_is_empty(queue->urgent))
		node = pairingheap_container(QueueNode, order,
									 pairingheap_first(queue->urgent));
	else if (!pairingheap_is_empty(queue->active))
	{
		submitter = pairingheap_container(Submitter, node,
										  pairingheap_first(queue->active));
		node = pairingheap_container(QueueNode, order,
									 pairingheap_first(submitter->ready));
		queue->now = submitter->spent;
	}
	else
		return NULL;
	entry = entry_of(queue, node);
	dequeue(queue, node->number);
	if (submitter != NULL)
		spend(queue, submitter, 1);
	entry->state = PROM_QUEUE_RUNNING;
	entry->since = now;
	entry->slot = slot;
	return entry;
}

void
prom_queue_charge(PromQueue *queue, Oid submitter, int64 tokens)
{
	if (tokens > 0)
		spend(queue, submitter_of(queue, submitter), tokens / 1000.0);
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
	TimestampTz next = queue->missed;
	int32 number = first_later(queue);

	if (number != -1)
		next = Min(next, entry_at(queue, number)->due);
	number = first_deadline(queue);
	if (number != -1)
		next = Min(next, entry_at(queue, number)->deadline);
	return next;
}

bool
prom_queue_any_ready(PromQueue *queue)
{
	return !pairingheap_is_empty(queue->urgent) ||
		   !pairingheap_is_empty(queue->active);
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

static bool
may_see(const PromQueueEntry *entry, bool admin)
{
	return admin || prom_role_is_submitter(&entry->submitter);
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
