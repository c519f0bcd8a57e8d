/*
 * queue.c
 *	  Keeps the live tasks of one database in the order in which they run.
 *
 * Entries are where backends can read them (slab.c); the order is private to
 * the scheduler: heaps of what is urgent, of what is due later and of
 * deadlines, the lanes of what is ready (lane.c), what waits behind a key
 * (key.c) or for another task (dependency.c).
 *
 * Nothing here is the truth: the facts are, and the queue is made from them.
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "dependency.h"
#include "guc.h"
#include "key.h"
#include "lane.h"
#include "queue.h"
#include "slab.h"

/* A task that ended while the live tasks are read. */
typedef struct Ended
{
	int64 task_id; /* hash key */
	bool completed;
} Ended;

struct PromQueue
{
	PromSlabs *slabs;
	int64 length;
	int64 running;
	int64 nurgent;
	PromLanes *lanes;
	PromKeys *keys;
	PromDependencies *dependencies;
	pairingheap *urgent;
	pairingheap *later;
	pairingheap *deadlines;
	HTAB *ended; /* while live tasks are read, else NULL */

	TimestampTz missed; /* when the first of those without room is wanted */
};

static int
compare(int64 a, int64 b)
{
	return a < b ? -1 : a > b;
}

/* As pairingheap wants it: positive if a comes first. */
static int
due_first(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	return compare(
		pairingheap_const_container(PromQueueNode, order, b)->entry->due,
		pairingheap_const_container(PromQueueNode, order, a)->entry->due);
}

static int
ends_first(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	const PromQueueEntry *x =
		pairingheap_const_container(PromQueueNode, deadline, a)->entry;
	const PromQueueEntry *y =
		pairingheap_const_container(PromQueueNode, deadline, b)->entry;

	return compare(y->deadline, x->deadline);
}

PromQueue *
prom_queue_create(PromDatabase *db)
{
	MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
	PromQueue *queue = palloc0(sizeof(PromQueue));

	queue->missed = DT_NOEND;
	queue->slabs = prom_slabs_create(db);
	queue->lanes = prom_lanes_create(db);
	queue->keys = prom_keys_create();
	queue->dependencies = prom_dependencies_create();
	queue->urgent = pairingheap_allocate(prom_lane_order, NULL);
	queue->later = pairingheap_allocate(due_first, NULL);
	queue->deadlines = pairingheap_allocate(ends_first, NULL);
	MemoryContextSwitchTo(before);
	return queue;
}

/*
 * How many tasks it may hold that can run now, and as many that cannot: the
 * ones must not keep out the others.
 */
static int64
capacity(void)
{
	Size room = Min((Size) prom_guc_queue_memory * 1024 /
						prom_slabs_entry_bytes(),
					(Size) PROM_MAX_SLABS * PROM_SLAB_ENTRIES / 4);

	/* What runs has a place in any case. */
	return Max(room / 2, (Size) prom_guc_max_in_flight);
}

static int64
count_runnable(PromQueue *queue, TimestampTz now)
{
	return queue->nurgent + prom_lanes_runnable(queue->lanes, now);
}

static int64
count_waiting(PromQueue *queue, TimestampTz now)
{
	return queue->length - queue->running - count_runnable(queue, now);
}

TimestampTz
prom_queue_wants_more(PromQueue *queue, TimestampTz now)
{
	bool room = count_runnable(queue, now) <= capacity() / 2;

	return prom_keys_want_more(queue->keys) ||
				   prom_lanes_want_more(queue->lanes, room, now)
			   ? now
			   : queue->missed;
}

static PromQueueNode *
find_task(PromQueue *queue, int64 task_id)
{
	return prom_slabs_find(queue->slabs, task_id);
}

static void wake(PromQueue *queue, uint64 key, TimestampTz now);

/* What is ready goes into its lane, or behind a key that another has. */
static void
make_ready(PromQueue *queue, PromQueueNode *node, TimestampTz now)
{
	struct PromKey *key = prom_keys_enter(queue->keys, node);

	node->entry->state = key == NULL ? PROM_QUEUE_READY : PROM_QUEUE_BEHIND;
	if (key == NULL)
	{
		prom_lanes_add(queue->lanes, node);
		return;
	}
	prom_keys_wait(queue->keys, key, node);
	/* Nobody need have it: then perhaps he is the first for his target. */
	wake(queue, node->entry->key, now);
}

/* Put an entry that is in no heap of order where its state and time say. */
static void
enqueue(PromQueue *queue, PromQueueNode *node, TimestampTz now)
{
	PromQueueEntry *entry = node->entry;

	entry->since = now;
	entry->slot = -1;
	if (entry->urgent)
	{
		entry->state = PROM_QUEUE_READY;
		node->place = PROM_PLACE_URGENT;
		pairingheap_add(queue->urgent, &node->order);
		queue->nurgent++;
		return;
	}
	if (!node->has_deadline)
		pairingheap_add(queue->deadlines, &node->deadline);
	node->has_deadline = true;
	if (entry->waits_for > 0)
		entry->state = PROM_QUEUE_BLOCKED;
	else if (entry->due > now)
	{
		entry->state = PROM_QUEUE_LATER;
		node->place = PROM_PLACE_LATER;
		pairingheap_add(queue->later, &node->order);
	}
	else
		make_ready(queue, node, now);
}

/*
 * Call those who are next for a key that nobody holds.  To be done whenever a
 * key was let go, and whenever somebody leaves his lane who was called.
 */
static void
wake(PromQueue *queue, uint64 key, TimestampTz now)
{
	PromQueueNode *node;

	while ((node = prom_keys_next(queue->keys, key)) != NULL)
		enqueue(queue, node, now);
}

/* Take an entry out of the heap of order that it is in. */
static void
leave_place(PromQueue *queue, PromQueueNode *node, TimestampTz now)
{
	bool was_called = node->behind != NULL && node->place != PROM_PLACE_KEY;

	switch (node->place)
	{
		case PROM_PLACE_NONE:
			break;
		case PROM_PLACE_URGENT:
			pairingheap_remove(queue->urgent, &node->order);
			queue->nurgent--;
			break;
		case PROM_PLACE_LANE:
			prom_lanes_remove(queue->lanes, node);
			break;
		case PROM_PLACE_KEY:
			break;
		case PROM_PLACE_LATER:
			pairingheap_remove(queue->later, &node->order);
			break;
	}
	prom_keys_leave(queue->keys, node);
	node->place = PROM_PLACE_NONE;
	if (was_called)
		wake(queue, node->entry->key, now);
}

/* Out of all heaps. */
static void
dequeue(PromQueue *queue, PromQueueNode *node, TimestampTz now)
{
	leave_place(queue, node, now);
	if (node->has_deadline)
		pairingheap_remove(queue->deadlines, &node->deadline);
	node->has_deadline = false;
}

static void
make_urgent(PromQueue *queue, PromQueueNode *node, TimestampTz now)
{
	dequeue(queue, node, now);
	node->entry->urgent = true;
	enqueue(queue, node, now);
}

/*
 * Let go of the concurrency key of a task that has a slot no more, and of its
 * conversation if it has ended; who waited for it may be next.
 */
static void
release_keys(PromQueue *queue, PromQueueEntry *entry, bool ended,
			 TimestampTz now)
{
	prom_keys_release(queue->keys, entry, ended);
	wake(queue, entry->key, now);
	if (ended)
		wake(queue, entry->conversation, now);
}

/*
 * Has this lane no room for one more?  A few of each always have a place, so
 * that the many of another keep nobody out.
 */
static bool
lane_is_full(PromQueue *queue, const PromLiveTask *task, TimestampTz now)
{
	const PromTarget *target = &task->hint.target;

	if (prom_lanes_has_few(queue->lanes, target))
		return false;
	return (prom_lanes_only_waits(queue->lanes, target, now)
				? count_waiting(queue, now)
				: count_runnable(queue, now)) >= capacity();
}

/* The same behind a key, where the first of each target has a place. */
static bool
key_is_full(PromQueue *queue, const PromLiveTask *task, TimestampTz now)
{
	if (prom_keys_were_refused(queue->keys, &task->hint))
		return true;
	return !prom_keys_is_first(queue->keys, &task->hint) &&
		   count_waiting(queue, now) >= capacity();
}

/*
 * Is there no room for this task?  What will not run soon is not missed until
 * then, but at its deadline at the latest.  Where one has been refused, all are
 * that come after it, until it is read again.  What holds a conversation is
 * never refused, since nobody else would know that.
 */
static bool
refuse(PromQueue *queue, const PromLiveTask *task, bool urgent,
	   TimestampTz now)
{
	TimestampTz wanted = task->hint.deadline;

	if ((task->retrying || task->open) && task->hint.conversation != 0)
		return false;
	if (urgent)
	{
		if (queue->nurgent < capacity())
			return false;
		wanted = now;
	}
	else if (task->hint.due > now || task->nparents > 0)
	{
		if (count_waiting(queue, now) < capacity())
			return false;
		if (task->nparents == 0)
			wanted = Min(wanted, task->hint.due);
		else
			wanted = Min(wanted, TimestampTzPlusMilliseconds(
									 now, prom_guc_rescan_interval));
	}
	else if (prom_lanes_were_refused(queue->lanes, &task->hint.target))
	{
		/* Some may have been refused when nobody had its key yet. */
	}
	else if (prom_keys_block(queue->keys, &task->hint) ||
			 prom_keys_were_refused(queue->keys, &task->hint))
	{
		if (!key_is_full(queue, task, now))
			return false;
		prom_keys_refuse(queue->keys, &task->hint);
	}
	else
	{
		if (!lane_is_full(queue, task, now))
			return false;
		prom_lanes_refuse(queue->lanes, &task->hint.target);
	}
	queue->missed = Min(queue->missed, wanted);
	return true;
}

/* Let a task wait for those that have not ended; false: one ended badly. */
static bool
add_dependencies(PromQueue *queue, PromQueueEntry *entry,
				 const PromLiveTask *task)
{
	bool good = true;

	entry->waits_for = 0;
	entry->blocker = 0;
	for (int i = 0; i < task->nparents; i++)
	{
		Ended *ended = queue->ended == NULL
						   ? NULL
						   : hash_search(queue->ended, &task->parents[i],
										 HASH_FIND, NULL);

		if (ended != NULL)
			good &= ended->completed || entry->anyway;
		else
		{
			prom_dependencies_add(queue->dependencies, task->parents[i],
								  entry->task_id);
			entry->blocker = task->parents[i];
			entry->waits_for++;
		}
	}
	if (entry->waits_for > 1)
		entry->blocker = 0;
	return good;
}

bool
prom_queue_add(PromQueue *queue, const PromLiveTask *task, TimestampTz now)
{
	const PromHint *hint = &task->hint;
	bool urgent = task->open || task->cancelled || task->doomed ||
				  hint->deadline <= now;
	PromQueueNode *node;
	PromQueueEntry *entry;

	/* It is there; or it ended since the facts were read. */
	if (find_task(queue, hint->task_id) != NULL ||
		(queue->ended != NULL &&
		 hash_search(queue->ended, &hint->task_id, HASH_FIND, NULL) != NULL))
		return true;
	if (refuse(queue, task, urgent, now))
		return false;
	node = prom_slabs_take(queue->slabs, hint->task_id);
	queue->length++;

	entry = node->entry;
	entry->due = hint->due;
	entry->deadline = hint->deadline;
	entry->submitter = hint->submitter;
	entry->target = hint->target;
	entry->key = hint->key;
	entry->conversation = hint->conversation;
	entry->priority = hint->priority;
	entry->retrying = task->retrying || task->open;
	entry->waiting = task->waiting;
	entry->anyway = task->anyway;
	entry->urgent = urgent;
	entry->has_key = entry->has_conversation = false;
	entry->read = entry->doomed = false;
	if (!add_dependencies(queue, entry, task))
		entry->urgent = true;
	if (entry->retrying && entry->waits_for == 0)
		prom_keys_restore(queue->keys, entry, false);
	enqueue(queue, node, now);
	return true;
}

bool
prom_queue_reads_before(PromQueue *queue, const PromHint *hint)
{
	return prom_lanes_are_read(queue->lanes, &hint->target) ||
		   prom_keys_are_read(queue->keys, hint);
}

bool
prom_queue_has(PromQueue *queue, int64 task_id)
{
	return find_task(queue, task_id) != NULL;
}

bool
prom_queue_look_again(PromQueue *queue, int64 task_id, TimestampTz now)
{
	PromQueueNode *node = find_task(queue, task_id);

	if (node == NULL)
		return false;
	if (node->entry->state == PROM_QUEUE_RUNNING)
	{
		node->entry->read = true;
		return true;
	}
	if (node->entry->state != PROM_QUEUE_LATER)
		return false;
	leave_place(queue, node, now);
	node->entry->due = now;
	enqueue(queue, node, now);
	return true;
}

void
prom_queue_begin_reading(PromQueue *queue, bool all)
{
	HASHCTL control = {0};

	if (all)
	{
		prom_lanes_begin_reading(queue->lanes);
		prom_keys_begin_reading(queue->keys);
		queue->missed = DT_NOEND;
	}
	control.keysize = sizeof(int64);
	control.entrysize = sizeof(Ended);
	control.hcxt = TopMemoryContext;
	queue->ended = hash_create("prometheus ended tasks", 64, &control,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

void
prom_queue_end_reading(PromQueue *queue, bool all, bool more, TimestampTz now)
{
	uint64 *keys;
	int n;

	hash_destroy(queue->ended);
	queue->ended = NULL;
	if (!more)
	{
		prom_lanes_end_reading(queue->lanes);
		prom_keys_end_reading(queue->keys);
	}
	if (!all)
		return;
	keys = prom_keys_all_read(queue->keys, &n);
	for (int i = 0; i < n; i++)
		wake(queue, keys[i], now);
	if (keys != NULL)
		pfree(keys);
}

int
prom_queue_cancel(PromQueue *queue, int64 task_id, TimestampTz now)
{
	PromQueueNode *node = find_task(queue, task_id);

	if (node == NULL)
		return -1;
	if (node->entry->state == PROM_QUEUE_RUNNING)
		return node->entry->slot;
	make_urgent(queue, node, now);
	return -1;
}

/* The entry that is first in later or in deadlines; NULL: none. */
static PromQueueNode *
first_later(PromQueue *queue)
{
	if (pairingheap_is_empty(queue->later))
		return NULL;
	return pairingheap_container(PromQueueNode, order,
								 pairingheap_first(queue->later));
}

static PromQueueNode *
first_deadline(PromQueue *queue)
{
	if (pairingheap_is_empty(queue->deadlines))
		return NULL;
	return pairingheap_container(PromQueueNode, deadline,
								 pairingheap_first(queue->deadlines));
}

void
prom_queue_advance(PromQueue *queue, TimestampTz now)
{
	PromQueueNode *node;

	while ((node = first_later(queue)) != NULL && node->entry->due <= now)
	{
		leave_place(queue, node, now);
		enqueue(queue, node, now);
	}
	while ((node = first_deadline(queue)) != NULL &&
		   node->entry->deadline <= now)
		make_urgent(queue, node, now);
}

/* The next task that holds its keys and has left its lane, or NULL. */
static PromQueueNode *
next_of_lanes(PromQueue *queue, int32 *gate, TimestampTz now)
{
	PromQueueNode *node;

	while ((node = prom_lanes_first(queue->lanes, now)) != NULL)
	{
		struct PromKey *key = prom_keys_take(queue->keys, node);

		if (key == NULL)
		{
			*gate = prom_lanes_start(queue->lanes, node);
			return node;
		}
		prom_lanes_remove(queue->lanes, node);
		prom_keys_wait(queue->keys, key, node);
		node->entry->state = PROM_QUEUE_BEHIND;
		node->entry->since = now;
	}
	return NULL;
}

bool
prom_queue_take(PromQueue *queue, PromSlot *slot, int32 number,
				TimestampTz now)
{
	PromQueueNode *node;
	PromQueueEntry *entry;

	slot->gate = -1;
	slot->only_end = !pairingheap_is_empty(queue->urgent);
	if (slot->only_end)
		node = pairingheap_container(PromQueueNode, order,
									 pairingheap_first(queue->urgent));
	else
		node = next_of_lanes(queue, &slot->gate, now);
	if (node == NULL)
		return false;
	dequeue(queue, node, now);
	entry = node->entry;
	entry->state = PROM_QUEUE_RUNNING;
	entry->since = now;
	entry->slot = number;
	queue->running++;
	slot->task_id = entry->task_id;
	slot->deadline = entry->deadline;
	slot->submitter = entry->submitter;
	slot->target = entry->target;
	slot->key = entry->key;
	slot->conversation = entry->conversation;
	slot->priority = entry->priority;
	slot->retrying = entry->retrying;
	return true;
}

/* A task has ended: so those may run that waited for it, or must end too. */
static void
end_dependencies(PromQueue *queue, int64 parent, bool completed,
				 TimestampTz now)
{
	int64 task_id;

	while ((task_id = prom_dependencies_next(queue->dependencies, parent)) != 0)
	{
		PromQueueNode *node = find_task(queue, task_id);

		if (node == NULL || node->entry->waits_for == 0)
			continue;
		node->entry->waits_for--;
		if (node->entry->blocker == parent)
			node->entry->blocker = 0;
		node->entry->doomed |= !completed && !node->entry->anyway;
		if (node->entry->state != PROM_QUEUE_BLOCKED)
			continue;
		if (node->entry->doomed)
			make_urgent(queue, node, now);
		else if (node->entry->waits_for == 0)
			enqueue(queue, node, now);
	}
}

static void
remove_task(PromQueue *queue, PromQueueNode *node, TimestampTz now)
{
	PromQueueEntry *entry = node->entry;

	dequeue(queue, node, now);
	release_keys(queue, entry, true, now);
	if (entry->state == PROM_QUEUE_RUNNING)
		queue->running--;
	prom_slabs_give_back(queue->slabs, node);
	queue->length--;
}

static void
end_task(PromQueue *queue, int64 task_id, bool completed, TimestampTz now)
{
	PromQueueNode *node = find_task(queue, task_id);
	bool found;

	if (queue->ended != NULL)
		((Ended *) hash_search(queue->ended, &task_id, HASH_ENTER, &found))
			->completed = completed;
	if (node != NULL)
		remove_task(queue, node, now);
	end_dependencies(queue, task_id, completed, now);
}

/* Back from a slot into the queue; due 0: as it was. */
static void
go_on(PromQueue *queue, const PromSlot *slot, TimestampTz due, bool urgent,
	  TimestampTz now)
{
	PromQueueNode *node = find_task(queue, slot->task_id);
	PromQueueEntry *entry;

	if (node == NULL)
		return;
	entry = node->entry;
	dequeue(queue, node, now);
	if (entry->state == PROM_QUEUE_RUNNING)
		queue->running--;
	if (due != 0)
		entry->due = due;
	entry->deadline = slot->deadline;
	entry->target = slot->target;
	entry->retrying = slot->retrying;
	entry->waiting = slot->waiting;
	entry->urgent = urgent || entry->doomed;
	entry->doomed = false;
	release_keys(queue, entry, false, now);
	enqueue(queue, node, now);
}

bool
prom_queue_take_back(PromQueue *queue, const PromSlot *slot, TimestampTz now)
{
	PromQueueNode *node = find_task(queue, slot->task_id);
	bool cancelled =
		pg_atomic_read_u32((pg_atomic_uint32 *) &slot->cancel) != 0;
	bool read = node != NULL && node->entry->read;

	if (slot->tokens > 0)
		prom_lanes_spend(queue->lanes, slot->submitter.role,
						 slot->tokens / 1000.0);
	switch (slot->result)
	{
		case PROM_RESULT_COMPLETED:
		case PROM_RESULT_ENDED:
			end_task(queue, slot->task_id,
					 slot->result == PROM_RESULT_COMPLETED, now);
			return read;
		case PROM_RESULT_LATER:
			/* What it waits for may have come meanwhile. */
			if (node != NULL)
				node->entry->read = false;
			go_on(queue, slot, read ? now : slot->due, cancelled, now);
			break;
		case PROM_RESULT_PARKED:
			go_on(queue, slot, 0, cancelled, now);
			prom_lanes_stall(queue->lanes, &slot->target, slot->seen,
							 slot->opens);
			break;
		case PROM_RESULT_READ:
			/* What it waits for may be before it in its conversation. */
			if (node != NULL)
				remove_task(queue, node, now);
			return true;
	}
	return false;
}

void
prom_queue_put_back(PromQueue *queue, const PromSlot *slot, TimestampTz now)
{
	PromQueueNode *node = find_task(queue, slot->task_id);

	if (node == NULL)
		return;
	dequeue(queue, node, now);
	if (node->entry->state == PROM_QUEUE_RUNNING)
		queue->running--;
	/* How far it came only its facts say: until then it keeps its keys. */
	if (!slot->only_end)
		node->entry->retrying = true;
	make_urgent(queue, node, now);
}

void
prom_queue_forget_slots(PromQueue *queue)
{
	prom_lanes_forget_slots(queue->lanes);
}

void
prom_queue_adopt(PromQueue *queue, const PromSlot *slot, int32 number,
				 TimestampTz now)
{
	PromLiveTask task = {0};
	PromQueueNode *node;

	task.hint.task_id = slot->task_id;
	task.hint.due = now;
	task.hint.deadline = slot->deadline;
	task.hint.submitter = slot->submitter;
	task.hint.target = slot->target;
	task.hint.key = slot->key;
	task.hint.conversation = slot->conversation;
	task.hint.priority = slot->priority;
	if (!prom_queue_add(queue, &task, now))
		return;
	node = find_task(queue, slot->task_id);
	dequeue(queue, node, now);
	node->entry->retrying = slot->retrying;
	node->entry->state = PROM_QUEUE_RUNNING;
	node->entry->slot = number;
	queue->running++;
	if (!slot->only_end || slot->retrying)
		prom_keys_restore(queue->keys, node->entry, !slot->only_end);
}

void
prom_queue_gates_changed(PromQueue *queue)
{
	prom_lanes_gates_changed(queue->lanes);
}

void
prom_queue_retarget(PromQueue *queue, uint32 agent, TimestampTz now)
{
	for (int32 i = 0; i < prom_slabs_used(queue->slabs); i++)
	{
		PromQueueNode *node = prom_slabs_node(queue->slabs, i);
		PromQueueEntry *entry = node->entry;

		if (entry->state == PROM_QUEUE_FREE ||
			entry->state == PROM_QUEUE_RUNNING || entry->target.agent != agent)
			continue;
		if (node->place == PROM_PLACE_LANE || node->place == PROM_PLACE_KEY)
		{
			leave_place(queue, node, now);
			entry->target.model = 0;
			make_ready(queue, node, now);
		}
		else
			entry->target.model = 0;
	}
}

void
prom_queue_read_refused(PromQueue *queue, TimestampTz now)
{
	if (prom_lanes_any_refused(queue->lanes) ||
		prom_keys_any_refused(queue->keys))
		queue->missed = now;
}

TimestampTz
prom_queue_next_moment(PromQueue *queue, TimestampTz now)
{
	TimestampTz next = prom_lanes_next_moment(queue->lanes, now);
	PromQueueNode *node = first_later(queue);

	if (node != NULL)
		next = Min(next, node->entry->due);
	node = first_deadline(queue);
	if (node != NULL)
		next = Min(next, node->entry->deadline);
	return next;
}
