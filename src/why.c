/*
 * why.c
 *	  Says what is in the queue, before which gates, and why it waits.
 *
 * The scheduler's entries are copied under its lock; everything else is done
 * with the copy, so that no reader holds it up.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "commands/dbcommands.h"

#include "as_of.h"
#include "compat.h"
#include "gate.h"
#include "guc.h"
#include "queue.h"
#include "role.h"
#include "subscription.h"
#include "task.h"

typedef struct Holder
{
	uint64 key; /* or conversation */
	int64 task_id;
} Holder;

/* What is in the queue of a database, as of now. */
typedef struct Queue
{
	PromDatabase *db;
	TimestampTz now;
	PromQueueEntry *entries;
	int n;
	Holder *holders; /* in the order of their keys */
	int nholders;
} Queue;

/* A copy of the entries of a database. */
static PromQueueEntry *
copy_entries(PromDatabase *db, int *ncopied)
{
	PromQueueEntry *copy = NULL;
	dsa_area *area = NULL;
	int n = 0;

	LWLockAcquire(db->queue_lock, LW_SHARED);
	if (db->queue_dsa != DSA_HANDLE_INVALID)
	{
		PromQueueRoot *root;

		area = dsa_attach(db->queue_dsa);
		root = dsa_get_address(area, db->queue_root);
		copy = MemoryContextAllocHuge(CurrentMemoryContext,
									  Max(root->nentries, 1) *
										  sizeof(PromQueueEntry));
		for (int i = 0; i < root->nentries; i++)
		{
			PromQueueEntry *slab =
				dsa_get_address(area, root->slabs[i / PROM_SLAB_ENTRIES]);

			if (slab[i % PROM_SLAB_ENTRIES].state != PROM_QUEUE_FREE)
				copy[n++] = slab[i % PROM_SLAB_ENTRIES];
		}
	}
	LWLockRelease(db->queue_lock);
	if (area != NULL)
		dsa_detach(area);
	*ncopied = n;
	return copy;
}

static const char *
reason_of(const PromGate *gate)
{
	bool delivers = gate->kind == PROM_GATE_SUBSCRIPTION;

	switch (gate->reason)
	{
		case PROM_GATE_NEVER:
			break;
		case PROM_GATE_RATE:
			return delivers ? "the receiver asked to wait"
							: "the provider asked to wait";
		case PROM_GATE_FAILURES:
			return delivers ? "deliveries failed in a row"
							: "calls failed in a row";
		case PROM_GATE_MONEY:
			return "the provider asks for money";
	}
	return NULL;
}

static const char held_reason[] = "its rate is used up";

/* What the gate before a ready task's model says, or NULL. */
static const char *
why_model(const PromGate *gate, TimestampTz now)
{
	uint32 in_flight =
		pg_atomic_read_u32((pg_atomic_uint32 *) &gate->in_flight);

	if (gate->paused)
		return psprintf("model \"%s\" is paused", gate->name);
	if (prom_gate_is_held(gate, now))
		return psprintf("model \"%s\" is held until %s: %s", gate->name,
						timestamptz_to_str(prom_gate_opens_at(gate)),
						held_reason);
	if (!prom_gate_is_open(gate, now))
		return psprintf("model \"%s\" is closed until %s: %s", gate->name,
						timestamptz_to_str(prom_gate_opens_at(gate)),
						reason_of(gate));
	if (prom_gate_room(gate, 0, now) == 0 && gate->closings > 0)
		return psprintf("model \"%s\" is opening again: %u requests may try it",
						gate->name, in_flight);
	if (prom_gate_room(gate, 0, now) == 0)
		return psprintf("model \"%s\" has as many requests as it may: %u (max_concurrent)",
						gate->name, in_flight);
	return NULL;
}

static const char *
why_ready(PromDatabase *db, const PromQueueEntry *entry, TimestampTz now)
{
	const PromGate *gate;
	const char *why = NULL;

	if (entry->urgent)
		return "runs next";
	if (db->gates[0].paused)
		return "everything is paused";
	gate = prom_gate_by_hash(db, PROM_GATE_AGENT, entry->target.agent);
	if (gate != NULL && gate->paused)
		return psprintf("agent \"%s\" is paused", gate->name);
	gate = prom_gate_by_hash(db, PROM_GATE_MODEL, entry->target.model);
	if (gate != NULL)
		why = why_model(gate, now);
	return why != NULL ? why
					   : "waits for a free place (prometheus.max_in_flight)";
}

static int
compare_holders(const void *a, const void *b)
{
	const Holder *x = a;
	const Holder *y = b;

	return x->key < y->key ? -1 : x->key > y->key;
}

/* A copy of the queue, and who holds the keys in it. */
static void
copy_queue(PromDatabase *db, Queue *queue)
{
	queue->db = db;
	queue->now = GetCurrentTimestamp();
	queue->entries = copy_entries(db, &queue->n);
	queue->holders = MemoryContextAllocHuge(CurrentMemoryContext,
											(2 * (Size) queue->n + 1) *
												sizeof(Holder));
	queue->nholders = 0;
	for (int i = 0; i < queue->n; i++)
	{
		const PromQueueEntry *entry = &queue->entries[i];

		if (entry->has_key)
			queue->holders[queue->nholders++] =
				(Holder){entry->key, entry->task_id};
		if (entry->has_conversation)
			queue->holders[queue->nholders++] =
				(Holder){entry->conversation, entry->task_id};
	}
	qsort(queue->holders, queue->nholders, sizeof(Holder), compare_holders);
}

static const char *
why_behind(const Queue *queue, const PromQueueEntry *entry)
{
	Holder key = {entry->in_conversation ? entry->conversation : entry->key, 0};
	const Holder *holder = bsearch(&key, queue->holders, queue->nholders,
								   sizeof(Holder), compare_holders);
	const char *what = entry->in_conversation ? "conversation"
											  : "concurrency_key";

	if (holder == NULL)
		return psprintf("another task with the same %s is before it", what);
	return psprintf("task %lld with the same %s has not ended",
					(long long) holder->task_id, what);
}

static const char *
why_of(const Queue *queue, const PromQueueEntry *entry)
{
	switch ((PromQueueState) entry->state)
	{
		case PROM_QUEUE_FREE:
			break;
		case PROM_QUEUE_BLOCKED:
			return entry->blocker != 0
					   ? psprintf("depends on task %lld, which has not ended",
								  (long long) entry->blocker)
					   : psprintf("depends on %d tasks that have not ended",
								  entry->waits_for);
		case PROM_QUEUE_LATER:
			return entry->waiting    ? "waits for a person to decide (prometheus.approval), or for a task that it delegated"
				   : entry->retrying ? "waits to be tried again"
									 : "is not due yet";
		case PROM_QUEUE_READY:
			return why_ready(queue->db, entry, queue->now);
		case PROM_QUEUE_BEHIND:
			return why_behind(queue, entry);
		case PROM_QUEUE_RUNNING:
			break;
	}
	return "runs";
}

static const char *
status_of(const PromQueueEntry *entry)
{
	return entry->state == PROM_QUEUE_RUNNING ? "running"
		   : entry->waiting                   ? "waiting"
		   : entry->retrying                  ? "retrying"
											  : "queued";
}

static void
put_entry(ReturnSetInfo *result, const Queue *queue,
		  const PromQueueEntry *entry)
{
	Datum values[6];
	bool nulls[6] = {false};

	values[0] = Int64GetDatum(entry->task_id);
	values[1] = CStringGetTextDatum(status_of(entry));
	values[2] = Int32GetDatum(entry->priority);
	values[3] = TimestampTzGetDatum(entry->due);
	values[4] = TimestampTzGetDatum(entry->since);
	values[5] = CStringGetTextDatum(why_of(queue, entry));
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

PG_FUNCTION_INFO_V1(prom_queue);

Datum
prom_queue(PG_FUNCTION_ARGS)
{
	PromDatabase *db = prom_shmem_database(MyDatabaseId);
	bool admin = prom_role_is_admin();
	Queue queue;

	prom_as_of_forbid_reading("prometheus.queue");
	InitMaterializedSRF(fcinfo, 0);
	if (db == NULL)
		return (Datum) 0;
	copy_queue(db, &queue);
	for (int i = 0; i < queue.n; i++)
		if (admin || prom_role_is_submitter(&queue.entries[i].submitter))
			put_entry((ReturnSetInfo *) fcinfo->resultinfo, &queue,
					  &queue.entries[i]);
	return (Datum) 0;
}

/* Ready tasks of the same submitter that come before it. */
static int
count_before(const Queue *queue, const PromQueueEntry *entry)
{
	const PromQueueEntry *entries = queue->entries;
	int64 rank = entry->due - entry->priority * USECS_PER_SEC;
	int before = 0;

	for (int i = 0; i < queue->n; i++)
	{
		int64 other = entries[i].due - entries[i].priority * USECS_PER_SEC;

		if (entries[i].state == PROM_QUEUE_READY &&
			entries[i].submitter.role == entry->submitter.role &&
			(other < rank ||
			 (other == rank && entries[i].task_id < entry->task_id)))
			before++;
	}
	return before;
}

static char *
explain(const Queue *queue, const PromQueueEntry *entry)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "%s: %s", status_of(entry), why_of(queue, entry));
	if (entry->state == PROM_QUEUE_LATER)
		appendStringInfo(&text, "; due at %s", timestamptz_to_str(entry->due));
	if (entry->state == PROM_QUEUE_READY && !entry->urgent)
		appendStringInfo(&text,
						 "; ready tasks of its submitter before it: %d",
						 count_before(queue, entry));
	appendStringInfo(&text, "; since %s", timestamptz_to_str(entry->since));
	return text.data;
}

/* A task that has not ended and is in no scheduler's memory. */
static char *
explain_absent(PromDatabase *db, const char *status)
{
	if (db == NULL)
		return psprintf("%s: nothing runs it; %s", status,
						prom_guc_serve_hint(get_database_name(MyDatabaseId)));
	return psprintf("%s: the scheduler has not read it yet; it does soon after the commit, or, with prometheus.queue_memory used up, when there is room",
					status);
}

PG_FUNCTION_INFO_V1(prom_why);

Datum
prom_why(PG_FUNCTION_ARGS)
{
	int64 task_id = PG_GETARG_INT64(0);
	PromDatabase *db = prom_shmem_database(MyDatabaseId);
	PromTaskEnd end;
	Queue queue = {0};

	prom_as_of_forbid_reading("prometheus_why()");
	prom_task_end(task_id, &end);
	if (end.ended)
		PG_RETURN_TEXT_P(
			cstring_to_text(psprintf("%s: %s", end.status,
									 end.error != NULL ? end.error
													   : "it has ended")));
	if (db != NULL)
		copy_queue(db, &queue);
	for (int i = 0; i < queue.n; i++)
		if (queue.entries[i].task_id == task_id)
			PG_RETURN_TEXT_P(
				cstring_to_text(explain(&queue, &queue.entries[i])));
	PG_RETURN_TEXT_P(cstring_to_text(explain_absent(db, end.status)));
}

/* Tasks that are ready, and for this gate. */
static int64
count_waiting(const PromGate *gate, const PromQueueEntry *entries, int n)
{
	int64 waiting = 0;

	for (int i = 0; i < n; i++)
	{
		if (entries[i].state != PROM_QUEUE_READY)
			continue;
		if (gate->kind == PROM_GATE_ALL ||
			(gate->kind == PROM_GATE_AGENT &&
			 entries[i].target.agent == gate->hash) ||
			(gate->kind == PROM_GATE_MODEL &&
			 entries[i].target.model == gate->hash))
			waiting++;
	}
	return waiting;
}

static void
put_gate(ReturnSetInfo *result, const PromGate *gate, int64 waiting,
		 TimestampTz now)
{
	Datum values[9];
	bool nulls[9] = {false};
	bool open = prom_gate_is_open(gate, now);
	bool held = prom_gate_is_held(gate, now);
	const char *reason = held                 ? held_reason
						 : gate->closings > 0 ? reason_of(gate)
											  : NULL;
	uint32 width = pg_atomic_read_u32((pg_atomic_uint32 *) &gate->width);
	TimestampTz until = open ? 0 : prom_gate_opens_at(gate);

	values[0] = CStringGetTextDatum(prom_gate_target(gate));
	values[1] = CStringGetTextDatum(gate->paused         ? "paused"
									: held               ? "held"
									: !open              ? "closed"
									: gate->closings > 0 ? "opening"
														 : "open");
	nulls[2] = reason == NULL;
	values[2] = CStringGetTextDatum(nulls[2] ? "" : reason);
	nulls[3] = !held && gate->closings == 0;
	values[3] = TimestampTzGetDatum(held ? gate->held_since : gate->since);
	nulls[4] = until <= now;
	values[4] = TimestampTzGetDatum(until);
	values[5] = Int32GetDatum((int32) pg_atomic_read_u32(
		(pg_atomic_uint32 *) &gate->in_flight));
	values[6] = Int64GetDatum(waiting);
	nulls[7] = width > PG_INT32_MAX;
	values[7] = Int32GetDatum((int32) width);
	values[8] = Int32GetDatum(gate->failures);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

PG_FUNCTION_INFO_V1(prom_gates);

Datum
prom_gates(PG_FUNCTION_ARGS)
{
	PromDatabase *db = prom_shmem_database(MyDatabaseId);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = GetCurrentTimestamp();
	PromQueueEntry *entries;
	PromGate *gates;
	uint32 ngates;
	int n;

	prom_as_of_forbid_reading("prometheus.gate");
	InitMaterializedSRF(fcinfo, 0);
	if (db == NULL)
		return (Datum) 0;
	entries = copy_entries(db, &n);
	ngates = pg_atomic_read_u32(&db->ngates);
	gates = palloc(ngates * sizeof(PromGate));
	LWLockAcquire(db->gate_lock, LW_SHARED);
	memcpy(gates, db->gates, ngates * sizeof(PromGate));
	LWLockRelease(db->gate_lock);
	for (uint32 i = 0; i < ngates; i++)
	{
		if (gates[i].kind == PROM_GATE_NONE ||
			(gates[i].kind == PROM_GATE_SUBSCRIPTION &&
			 !prom_subscription_shows(gates[i].name)))
			continue;
		put_gate(result, &gates[i], count_waiting(&gates[i], entries, n), now);
	}
	return (Datum) 0;
}
