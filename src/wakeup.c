/*
 * wakeup.c
 *	  Carries what a transaction did to the workers, once it has committed.
 *
 * Hints are collected in the transaction's memory, each with the
 * subtransaction that it belongs to.  After the commit (when other snapshots
 * see the rows) they go into the scheduler's ring and its latch is set.  There
 * nothing may fail: no memory is asked for and no error raised.  A prepared
 * transaction gives no hint; the scheduler's rescan finds its tasks.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "fault.h"
#include "wakeup.h"

typedef struct Pending
{
	SubTransactionId subxact;
	PromHint hint;
} Pending;

/* All in TopTransactionContext; NULL and 0 outside of a transaction. */
static Pending *pending = NULL;
static PromHint *hints = NULL; /* room for the hints alone, made beforehand */
static int npending = 0;
static int allocated = 0;
/* The outermost one that changed the extension, or Invalid. */
static SubTransactionId changed_in = InvalidSubTransactionId;

/* It has events; one that a subtransaction takes back is a hint too many. */
static bool emitted = false;

/* It set a threshold; it changed consumers or dead letters; the same. */
static bool set_alert = false;
static bool changed_readers = false;

/* It let the export of traces begin again; the same. */
static bool moved_export = false;

/* The lowest id that it remembers; it set an agent or a model; the same. */
static int64 remembered = PG_INT64_MAX;
static bool set_embedder = false;

static void
forget(void)
{
	emitted = set_alert = changed_readers = moved_export = false;
	set_embedder = false;
	remembered = PG_INT64_MAX;
	pending = NULL;
	hints = NULL;
	npending = allocated = 0;
	changed_in = InvalidSubTransactionId;
}

/* A big transaction goes in parts, so that it need not fit as a whole. */
static void
push_hints(PromRing *ring)
{
	int part = Min(npending, (int) ring->size / 4);

	for (int i = 0; i < npending; i++)
		hints[i] = pending[i].hint;
	for (int i = 0; i < npending; i += part)
	{
		if (!prom_ring_push(ring, hints + i, Min(part, npending - i)))
			return;
	}
}

void
prom_wakeup_changed(void)
{
	PromDatabase *db = prom_shmem_database(MyDatabaseId);

	if (db == NULL)
		return;
	pg_atomic_write_u32(&db->changed, 1);
	prom_shmem_wake(&db->worker[PROM_PUBLISHER]);
}

/* Who asks for agents reads what was committed before, so it need not know. */
static void
wake_embedder(PromDatabase *db)
{
	PromEmbeddings *embeddings = &db->embeddings;
	uint64 lowest = pg_atomic_read_u64(&embeddings->from);

	pg_memory_barrier();
	if (!set_embedder && pg_atomic_read_u32(&embeddings->wanted) == 0)
		return;
	while ((uint64) remembered < lowest &&
		   !pg_atomic_compare_exchange_u64(&embeddings->from, &lowest,
										   (uint64) remembered))
		;
	if (set_embedder)
		pg_atomic_write_u32(&embeddings->asked, 1);
	pg_write_barrier();
	prom_shmem_wake(&db->worker[PROM_CALLER]);
}

static void
after_commit(void)
{
	PromDatabase *db = prom_shmem_database(MyDatabaseId);

	if (changed_in != InvalidSubTransactionId && prom_shared != NULL)
	{
		for (int i = 0; i < prom_shared->ndatabases; i++)
			if (db == &prom_shared->databases[i])
				db->probe = true;
		if (db == NULL)
			prom_shared->look = true;
		prom_shmem_wake(&prom_shared->launcher);
	}
	if (npending > 0 && db != NULL)
	{
		PROM_FAULT("hint-before-push");
		push_hints(&db->ring);
		PROM_FAULT("hint-after-push");
		prom_shmem_wake(&db->worker[PROM_SCHEDULER]);
	}
	if (changed_readers && db != NULL)
		pg_atomic_write_u32(&db->vitals.readers, 1);
	if (set_alert && db != NULL)
	{
		pg_write_barrier();
		pg_atomic_write_u32(&db->vitals.asked, 1);
		prom_shmem_wake(&db->worker[PROM_PUBLISHER]);
	}
	if (moved_export && db != NULL)
	{
		pg_atomic_write_u32(&db->exported.asked, 1);
		prom_shmem_wake(&db->worker[PROM_CALLER]);
	}
	if ((set_embedder || remembered != PG_INT64_MAX) && db != NULL)
		wake_embedder(db);
	if (npending > 0 || emitted)
		prom_wakeup_changed();
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (npending > 0 || emitted || set_alert || changed_readers ||
				moved_export || set_embedder || remembered != PG_INT64_MAX ||
				changed_in != InvalidSubTransactionId)
				after_commit();
			forget();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			forget();
			break;
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			break;
	}
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mine,
				 SubTransactionId parent, void *arg)
{
	int kept = 0;

	if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		/* From the end: what a subtransaction added is there. */
		for (int i = npending - 1; i >= 0 && pending[i].subxact >= mine; i--)
			if (pending[i].subxact == mine)
				pending[i].subxact = parent;
		if (changed_in == mine)
			changed_in = parent;
	}
	else if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		for (int i = 0; i < npending; i++)
			if (pending[i].subxact != mine)
				pending[kept++] = pending[i];
		npending = kept;
		if (changed_in == mine)
			changed_in = InvalidSubTransactionId;
	}
}

void
prom_wakeup_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}

void
prom_wakeup_hint(const PromHint *hint)
{
	if (npending == allocated)
	{
		int room = Max(allocated * 2, 16);
		PromHint *new_hints;

		/* If the second request for memory fails, both are still good. */
		new_hints = MemoryContextAllocHuge(TopTransactionContext,
										   room * sizeof(PromHint));
		if (pending == NULL)
			pending = MemoryContextAllocHuge(TopTransactionContext,
											 room * sizeof(Pending));
		else
			pending = repalloc_huge(pending, room * sizeof(Pending));
		if (hints != NULL)
			pfree(hints);
		hints = new_hints;
		allocated = room;
	}
	pending[npending].subxact = GetCurrentSubTransactionId();
	pending[npending].hint = *hint;
	npending++;
}

void
prom_wakeup_extension(void)
{
	if (changed_in == InvalidSubTransactionId)
		changed_in = GetCurrentSubTransactionId();
}

void
prom_wakeup_publisher(void)
{
	emitted = true;
}

void
prom_wakeup_alerts(void)
{
	set_alert = true;
}

void
prom_wakeup_readers(void)
{
	changed_readers = true;
}

void
prom_wakeup_export(void)
{
	moved_export = true;
}

void
prom_wakeup_memory(int64 memory_id)
{
	remembered = Min(remembered, memory_id);
}

void
prom_wakeup_embedder(void)
{
	set_embedder = true;
}

bool
prom_wakeup_is_pending(int64 task_id)
{
	for (int i = 0; i < npending; i++)
		if (pending[i].hint.task_id == task_id &&
			pending[i].hint.kind != PROM_HINT_CANCEL)
			return true;
	return false;
}
