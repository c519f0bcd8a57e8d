/*
 * shmem.c
 *	  Reserves and lays out the shared memory, and moves things through it.
 *
 * A ring carries hints from every backend to one scheduler, without locks:
 * it is written after a commit, where nothing may fail or wait.  A pipe
 * carries slot numbers from one process to one other.  Both may lose nothing
 * but a hint, and a lost hint is noticed (overflowed) and costs a scan.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "storage/spin.h"

#include "compat.h"
#include "gate.h"
#include "guc.h"
#include "metric.h"
#include "shmem.h"
#include "span.h"
#include "use.h"

PromShared *prom_shared = NULL;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

/* A place for every backend and auxiliary process. */
static int
waiter_count(void)
{
	return MaxBackends + NUM_AUXILIARY_PROCS + max_prepared_xacts;
}

/*
 * A slot is in a pipe at most three times: assigned, cancelled, and a cancel
 * that came too late for the task before.  The fourth place is for what a new
 * scheduler takes back before it reads of it (adopt_slots).
 */
static uint64
pipe_size(void)
{
	uint64 size = 64;

	while (size < 4 * (uint64) prom_guc_max_in_flight)
		size *= 2;
	return size;
}

static Size
database_size(void)
{
	Size size = 0;

	size = add_size(size, MAXALIGN(mul_size(prom_guc_ring_size,
											sizeof(PromRingCell))));
	size = add_size(size, MAXALIGN(mul_size(prom_guc_max_in_flight,
											sizeof(PromSlot))));
	size = add_size(size, MAXALIGN(mul_size(prom_guc_max_in_flight,
											sizeof(PromSight))));
	size = add_size(size, MAXALIGN(PROM_TAILS * sizeof(PromTail)));
	size = add_size(size, 2 * MAXALIGN(mul_size(pipe_size(), sizeof(int32))));
	size = add_size(size, MAXALIGN(PROM_MAX_GATES * sizeof(PromGate)));
	size = add_size(size, MAXALIGN(PROM_SPANS * sizeof(PromSpanCell)));
	return add_size(size, prom_metric_size());
}

static Size
shared_size(void)
{
	Size size =
		MAXALIGN(offsetof(PromShared, databases) +
				 mul_size(prom_guc_max_databases, sizeof(PromDatabase)));

	size = add_size(size,
					MAXALIGN(mul_size(waiter_count(), sizeof(PromWaiter))));
	return add_size(size, mul_size(prom_guc_max_databases, database_size()));
}

static void
request_shmem(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche("prometheus", 1 + 3 * prom_guc_max_databases);
}

static void
init_worker(PromWorker *worker)
{
	memset(worker, 0, sizeof(*worker));
	pg_atomic_init_u32(&worker->in_flight, 0);
}

static void
init_pipe(PromPipe *pipe, char **free_space)
{
	pg_atomic_init_u64(&pipe->head, 0);
	pg_atomic_init_u64(&pipe->tail, 0);
	pipe->size = pipe_size();
	pipe->items = (int32 *) *free_space;
	*free_space += MAXALIGN(pipe->size * sizeof(int32));
}

static void
init_marks(PromMarks *marks, LWLock *lock)
{
	pg_atomic_init_u32(&marks->changed, 0);
	pg_atomic_init_u32(&marks->asked, 0);
	pg_atomic_init_u32(&marks->relation, 0);
	pg_atomic_init_u64(&marks->newest, 0);
	pg_atomic_init_u64(&marks->changed_at, 0);
	pg_atomic_init_u64(&marks->failing_since, 0);
	ConditionVariableInit(&marks->made);
	marks->lock = lock;
	marks->state = PROM_MARK_FREE;
}

static void
init_vitals(PromVitals *vitals)
{
	pg_atomic_init_u32(&vitals->asked, 0);
	pg_atomic_init_u32(&vitals->readers, 0);
	SpinLockInit(&vitals->mutex);
	vitals->wal_rate = -1;
	vitals->archive_failures = -1;
}

static void
init_sights(PromDatabase *db, char **free_space)
{
	db->sights = (PromSight *) *free_space;
	*free_space += MAXALIGN(prom_guc_max_in_flight * sizeof(PromSight));
	db->tails = (PromTail *) *free_space;
	*free_space += MAXALIGN(PROM_TAILS * sizeof(PromTail));
	memset(db->sights, 0, *free_space - (char *) db->sights);
	for (int i = 0; i < prom_guc_max_in_flight; i++)
	{
		pg_atomic_init_u32(&db->sights[i].changes, 0);
		pg_atomic_init_u32(&db->sights[i].wanted, 0);
		db->sights[i].tail = PROM_TAIL_NEVER;
	}
	for (int i = 0; i < PROM_TAILS; i++)
	{
		pg_atomic_init_u32(&db->tails[i].changes, 0);
		pg_atomic_init_u64(&db->tails[i].looked_at, 0);
	}
}

/* Lay out one database's part at *free_space, and move that on. */
static void
init_database(PromDatabase *db, LWLockPadded *locks, char **free_space)
{
	memset(db, 0, sizeof(*db));
	for (int place = 0; place < PROM_NPLACES; place++)
		init_worker(&db->worker[place]);
	for (int i = 0; i < PROM_JOB_PLACES; i++)
	{
		pg_atomic_init_u32(&db->jobs[i].state, PROM_JOB_NONE);
		pg_atomic_init_u32(&db->jobs[i].cancel, 0);
	}
	pg_atomic_init_u32(&db->wanted, 0);
	pg_atomic_init_u32(&db->wanted_handlers, 0);
	pg_atomic_init_u32(&db->deliver, 0);
	pg_atomic_init_u32(&db->consumer_lock, PROM_LOCK_UNWANTED);
	pg_atomic_init_u32(&db->subscribed, 0);

	pg_atomic_init_u64(&db->ring.head, 0);
	pg_atomic_init_u64(&db->ring.tail, 0);
	pg_atomic_init_u32(&db->ring.overflowed, 0);
	db->ring.size = prom_guc_ring_size;
	db->ring.cells = (PromRingCell *) *free_space;
	for (uint64 i = 0; i < db->ring.size; i++)
		pg_atomic_init_u64(&db->ring.cells[i].sequence, 0);
	*free_space += MAXALIGN(db->ring.size * sizeof(PromRingCell));

	db->slots = (PromSlot *) *free_space;
	for (int i = 0; i < prom_guc_max_in_flight; i++)
	{
		memset(&db->slots[i], 0, sizeof(PromSlot));
		pg_atomic_init_u32(&db->slots[i].state, PROM_SLOT_FREE);
		pg_atomic_init_u32(&db->slots[i].cancel, 0);
	}
	*free_space += MAXALIGN(prom_guc_max_in_flight * sizeof(PromSlot));

	init_sights(db, free_space);
	init_pipe(&db->to_caller, free_space);
	init_pipe(&db->to_scheduler, free_space);
	pg_atomic_init_u32(&db->caller_state, PROM_CALLER_NONE);
	pg_atomic_init_u32(&db->changed, 0);
	pg_atomic_init_u64(&db->rescans, 0);
	db->gate_lock = &locks[0].lock;
	db->gates = (PromGate *) *free_space;
	*free_space += MAXALIGN(PROM_MAX_GATES * sizeof(PromGate));
	db->spans.cells = (PromSpanCell *) *free_space;
	*free_space += MAXALIGN(PROM_SPANS * sizeof(PromSpanCell));
	prom_span_init_ring(&db->spans);
	pg_atomic_init_u32(&db->ngates, 0);
	prom_gate_reset(db);
	prom_metric_init(db, *free_space);
	*free_space += prom_metric_size();
	db->queue_lock = &locks[1].lock;
	init_marks(&db->marks, &locks[2].lock);
	init_vitals(&db->vitals);
	pg_atomic_init_u32(&db->exported.asked, 0);
	pg_atomic_init_u32(&db->exported.spans, 0);
	SpinLockInit(&db->exported.mutex);
	pg_atomic_init_u32(&db->embeddings.wanted, 0);
	pg_atomic_init_u32(&db->embeddings.asked, 0);
	pg_atomic_init_u64(&db->embeddings.from, PG_INT64_MAX);
	SpinLockInit(&db->embeddings.mutex);
	prom_use_init(&db->uses);
	db->queue_dsa = DSA_HANDLE_INVALID;
	db->queue_root = InvalidDsaPointer;
}

static void
startup_shmem(void)
{
	bool found;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	prom_shared = ShmemInitStruct("prometheus", shared_size(), &found);
	if (!found)
	{
		LWLockPadded *locks = GetNamedLWLockTranche("prometheus");
		char *free_space =
			(char *) prom_shared +
			MAXALIGN(offsetof(PromShared, databases) +
					 prom_guc_max_databases * sizeof(PromDatabase));

		prom_shared->look = false;
		prom_shared->lock = &locks[0].lock;
		init_worker(&prom_shared->launcher);
		ConditionVariableInit(&prom_shared->stopped);
		pg_atomic_init_u32(&prom_shared->waiting, 0);
		prom_shared->nwaiters = waiter_count();
		prom_shared->waiters = (PromWaiter *) free_space;
		for (int i = 0; i < prom_shared->nwaiters; i++)
		{
			memset(&prom_shared->waiters[i], 0, sizeof(PromWaiter));
			pg_atomic_init_u64(&prom_shared->waiters[i].task_id, 0);
			pg_atomic_init_u32(&prom_shared->waiters[i].ended, 0);
		}
		free_space += MAXALIGN(prom_shared->nwaiters * sizeof(PromWaiter));

		prom_shared->ndatabases = prom_guc_max_databases;
		for (int i = 0; i < prom_shared->ndatabases; i++)
			init_database(&prom_shared->databases[i], &locks[1 + 3 * i],
						  &free_space);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
prom_shmem_init(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
}

/*
 * No lock: an oid is one word, an entry changes its database only when the
 * setting does, and a hint in the wrong ring is a task that does not exist.
 */
PromDatabase *
prom_shmem_database(Oid database)
{
	if (prom_shared == NULL)
		return NULL;
	for (int i = 0; i < prom_shared->ndatabases; i++)
	{
		PromDatabase *db = &prom_shared->databases[i];

		if (db->oid == database)
			return db;
	}
	return NULL;
}

/*
 * A latch that has just become another process's, or nobody's, only causes a
 * look too many: latches are in shared memory for the server's life.
 */
void
prom_shmem_wake(PromWorker *worker)
{
	Latch *latch = *(Latch *volatile *) &worker->latch;

	if (latch != NULL)
		SetLatch(latch);
}

uint32
prom_hash_name(const char *name)
{
	uint32 hash = hash_bytes((const unsigned char *) name, strlen(name));

	return hash == 0 ? 1 : hash;
}

static uint64
hash_after(uint64 seed, const char *text)
{
	/* With its NUL, so that "a", "bc" is not "ab", "c". */
	uint64 hash = hash_bytes_extended((const unsigned char *) text,
									  strlen(text) + 1, seed);

	return hash == 0 ? 1 : hash;
}

uint64
prom_hash_key(const char *key)
{
	return hash_after(0, key);
}

uint64
prom_hash_conversation(const char *submitter, const char *agent,
					   const char *conversation)
{
	return hash_after(hash_after(hash_after(1, submitter), agent),
					  conversation);
}

static bool
is_among(int64 task_id, const int64 *ended, int n)
{
	for (int i = 0; i < n; i++)
		if (ended[i] == task_id)
			return true;
	return ended == NULL;
}

void
prom_shmem_wake_waiters(Oid database, const int64 *ended, int n)
{
	/* The ends are committed; a waiter that is not seen here looks after it. */
	pg_memory_barrier();
	if (pg_atomic_read_u32(&prom_shared->waiting) == 0)
		return;
	for (int i = 0; i < prom_shared->nwaiters; i++)
	{
		PromWaiter *waiter = &prom_shared->waiters[i];
		int64 task_id = (int64) pg_atomic_read_u64(&waiter->task_id);
		Latch *latch = *(Latch *volatile *) &waiter->latch;

		if (task_id == 0 || waiter->database != database || latch == NULL ||
			!is_among(task_id, ended, n))
			continue;
		pg_atomic_write_u32(&waiter->ended, 1);
		SetLatch(latch);
	}
}

/*
 * Put n hints into the ring, or none: false if there is no room.  Called
 * after a commit, so it neither fails nor waits.
 */
bool
prom_ring_push(PromRing *ring, const PromHint *hints, int n)
{
	uint64 head;

	do
	{
		/* Tail first: it moves on only, so the room seen is never too much. */
		uint64 tail = pg_atomic_read_u64(&ring->tail);

		pg_read_barrier();
		head = pg_atomic_read_u64(&ring->head);
		if ((int64) (head + n - tail) > (int64) ring->size)
		{
			/* head may have been read long after tail: is it really full? */
			if (pg_atomic_read_u64(&ring->tail) != tail)
				continue;
			pg_atomic_write_u32(&ring->overflowed, 1);
			return false;
		}
		if (pg_atomic_compare_exchange_u64(&ring->head, &head, head + n))
			break;
	} while (true);

	for (int i = 0; i < n; i++)
	{
		PromRingCell *cell = &ring->cells[(head + i) & (ring->size - 1)];

		cell->hint = hints[i];
		pg_write_barrier();
		pg_atomic_write_u64(&cell->sequence, head + i + 1);
	}
	return true;
}

bool
prom_ring_pop(PromRing *ring, PromHint *hint)
{
	uint64 tail = pg_atomic_read_u64(&ring->tail);
	PromRingCell *cell = &ring->cells[tail & (ring->size - 1)];

	if (pg_atomic_read_u64(&cell->sequence) != tail + 1)
		return false;
	pg_read_barrier();
	*hint = cell->hint;
	pg_memory_barrier();
	pg_atomic_write_u64(&ring->tail, tail + 1);
	return true;
}

void
prom_pipe_push(PromPipe *pipe, int32 item)
{
	uint64 head = pg_atomic_read_u64(&pipe->head);

	Assert(head - pg_atomic_read_u64(&pipe->tail) < pipe->size);
	pipe->items[head & (pipe->size - 1)] = item;
	pg_write_barrier();
	pg_atomic_write_u64(&pipe->head, head + 1);
}

bool
prom_pipe_pop(PromPipe *pipe, int32 *item)
{
	uint64 tail = pg_atomic_read_u64(&pipe->tail);

	if (pg_atomic_read_u64(&pipe->head) == tail)
		return false;
	pg_read_barrier();
	*item = pipe->items[tail & (pipe->size - 1)];
	pg_memory_barrier();
	pg_atomic_write_u64(&pipe->tail, tail + 1);
	return true;
}

/* Forget what is in it.  Neither side may be using it. */
void
prom_pipe_reset(PromPipe *pipe)
{
	pg_atomic_write_u64(&pipe->tail, pg_atomic_read_u64(&pipe->head));
}

void
prom_pipe_find(PromPipe *pipe, bool *found)
{
	uint64 head = pg_atomic_read_u64(&pipe->head);

	for (uint64 i = pg_atomic_read_u64(&pipe->tail); i != head; i++)
		found[pipe->items[i & (pipe->size - 1)]] = true;
}
