/*
 * scheduler.c
 *	  Decides which task runs next, and gives it to the caller process.
 *
 * The loop takes what came (slots given back, hints of commits), moves on what
 * has become due or too late, and fills free slots.  It runs no statement
 * but to read the live tasks from the facts: at its start, when a hint may
 * have been lost, and when transactions ended for a while without a hint.
 *
 * A slot belongs to the scheduler while it is free or done, to the caller
 * otherwise.  When the caller is gone, all its slots come back at once; what
 * it committed meanwhile is found when the task is loaded again.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "era.h"
#include "fault.h"
#include "guc.h"
#include "live.h"
#include "queue.h"
#include "shmem.h"
#include "worker.h"
#include "xact.h"

/* While many tasks are read, work goes on: a turn for so many of them. */
#define TURN_EVERY 10000

/* Hints taken from the ring in one turn. */
#define HINTS_A_TURN 4096

static PromQueue *queue;
static int32 *free_slots; /* a stack of slot numbers */
static int nfree;

/*
 * While hints come, transactions that gave none are looked for this many
 * times less often.
 */
#define BUSY_SCAN 10

/*
 * Two reasons for live tasks to be in the table and not in the queue: a hint
 * may have been lost, or the queue was full.  The latter are read when it is
 * half empty or one of them is due: reading them for each free place would be
 * all that is done.
 */
static bool must_scan;
static bool spilled;
static TimestampTz last_scan;
static TimestampTz last_look; /* whether a scan is due */
static uint64 transactions_at_scan;
static bool hint_since_scan;

static PromSlot *
slot_at(int32 slot)
{
	return &prom_my_database->slots[slot];
}

static void
free_slot(int32 number)
{
	PromSlot *slot = slot_at(number);

	pg_atomic_write_u32(&slot->cancel, 0);
	pg_atomic_write_u32(&slot->state, PROM_SLOT_FREE);
	free_slots[nfree++] = number;
}

/* A slot that was given back: its task has ended or waits again. */
static void
take_back(int32 number, TimestampTz now)
{
	PromSlot *slot = slot_at(number);

	if (pg_atomic_read_u32(&slot->state) != PROM_SLOT_DONE)
		return;
	pg_read_barrier();
	PROM_FAULT("scheduler-before-take-back");
	prom_queue_charge(queue, slot->submitter.role, slot->tokens);
	if (slot->result == PROM_RESULT_ENDED)
		prom_queue_remove(queue, slot->task_id);
	else
		prom_queue_put_back(queue, slot->task_id, slot->due, slot->retrying,
							pg_atomic_read_u32(&slot->cancel) != 0, now);
	free_slot(number);
	PROM_FAULT("scheduler-after-take-back");
}

/*
 * At the start: keep what the caller has, count the rest as free.  The
 * scheduler before may have ended between two steps: a slot that it assigned or
 * cancelled and did not tell of is told of here, and one that it had read from
 * the pipe and not taken back is taken back by its state.
 */
static void
adopt_slots(TimestampTz now)
{
	bool *told = palloc0(prom_guc_max_in_flight * sizeof(bool));

	prom_pipe_find(&prom_my_database->to_caller, told);
	free_slots = MemoryContextAlloc(TopMemoryContext,
									prom_guc_max_in_flight * sizeof(int32));
	nfree = 0;
	for (int i = prom_guc_max_in_flight - 1; i >= 0; i--)
	{
		PromSlot *slot = slot_at(i);
		uint32 state = pg_atomic_read_u32(&slot->state);
		PromHint hint = {0};

		if (state == PROM_SLOT_FREE)
		{
			free_slots[nfree++] = i;
			continue;
		}
		hint.task_id = slot->task_id;
		hint.due = now;
		hint.deadline = slot->deadline;
		hint.submitter = slot->submitter;
		hint.priority = slot->priority;
		prom_queue_adopt(queue, &hint, i, now);
		if (state == PROM_SLOT_DONE)
			take_back(i, now);
		else if (!told[i] && (state == PROM_SLOT_ASSIGNED ||
							  pg_atomic_read_u32(&slot->cancel) != 0))
			prom_pipe_push(&prom_my_database->to_caller, i);
	}
	pfree(told);
	prom_shmem_wake(&prom_my_database->worker[PROM_CALLER]);
}

/* A new caller waits to be let in: the old one's slots come back first. */
static bool
admit_caller(TimestampTz now)
{
	pg_atomic_uint32 *state = &prom_my_database->caller_state;

	if (pg_atomic_read_u32(state) != PROM_CALLER_WAITING)
		return false;
	PROM_FAULT("scheduler-before-admit");
	prom_pipe_reset(&prom_my_database->to_caller);
	prom_pipe_reset(&prom_my_database->to_scheduler);
	for (int i = 0; i < prom_guc_max_in_flight; i++)
	{
		if (pg_atomic_read_u32(&slot_at(i)->state) == PROM_SLOT_FREE)
			continue;
		prom_queue_put_back(queue, slot_at(i)->task_id, now, true, true, now);
		free_slot(i);
	}
	pg_atomic_write_u32(state, PROM_CALLER_READY);
	PROM_FAULT("scheduler-after-admit");
	return true;
}

static void
take_back_slots(TimestampTz now)
{
	int32 number;

	if (pg_atomic_read_u32(&prom_my_database->caller_state) ==
		PROM_CALLER_WAITING)
		return;
	while (prom_pipe_pop(&prom_my_database->to_scheduler, &number))
		take_back(number, now);
}

/* Let a task end; true if the caller is to look at its slot. */
static bool
cancel_task(int64 task_id, TimestampTz now)
{
	int slot = prom_queue_cancel(queue, task_id, now);

	/* Once is enough, and a pipe has no room for more. */
	if (slot < 0 || pg_atomic_exchange_u32(&slot_at(slot)->cancel, 1) != 0)
		return false;
	prom_pipe_push(&prom_my_database->to_caller, slot);
	return true;
}

/* True if the caller is to look at a slot. */
static bool
take_hint(const PromHint *hint, TimestampTz now)
{
	hint_since_scan = true;
	if (hint->kind == PROM_HINT_SUBMIT)
	{
		if (!prom_queue_add(queue, hint, false, false, now))
			spilled = true;
		return false;
	}
	/* It may have come before the task's own hint, or that had no room. */
	if (!prom_queue_has(queue, hint->task_id))
		must_scan = true;
	return cancel_task(hint->task_id, now);
}

static bool
take_hints(TimestampTz now)
{
	PromHint hint;
	bool wake = false;

	if (pg_atomic_exchange_u32(&prom_my_database->ring.overflowed, 0) != 0)
		must_scan = true;
	for (int i = 0; i < HINTS_A_TURN; i++)
	{
		if (!prom_ring_pop(&prom_my_database->ring, &hint))
			return wake;
		PROM_FAULT("scheduler-after-pop");
		wake |= take_hint(&hint, now);
	}
	SetLatch(MyLatch); /* there may be more */
	return wake;
}

/* Fill free slots with ready tasks; true if the caller is to look. */
static bool
assign_slots(TimestampTz now)
{
	bool assigned = false;

	if (pg_atomic_read_u32(&prom_my_database->caller_state) !=
		PROM_CALLER_READY)
		return false;
	while (nfree > 0 && prom_queue_any_ready(queue))
	{
		int32 number = free_slots[--nfree];
		PromQueueEntry *entry = prom_queue_take(queue, number, now);
		PromSlot *slot = slot_at(number);

		PROM_FAULT("scheduler-before-assign");
		slot->task_id = entry->task_id;
		slot->deadline = entry->deadline;
		slot->submitter = entry->submitter;
		slot->priority = entry->priority;
		pg_write_barrier();
		pg_atomic_write_u32(&slot->state, PROM_SLOT_ASSIGNED);
		prom_pipe_push(&prom_my_database->to_caller, number);
		PROM_FAULT("scheduler-after-assign");
		assigned = true;
	}
	return assigned;
}

static void
turn(void)
{
	TimestampTz now = GetCurrentTimestamp();
	bool wake;

	LWLockAcquire(prom_my_database->queue_lock, LW_EXCLUSIVE);
	wake = admit_caller(now);
	take_back_slots(now);
	wake |= take_hints(now);
	prom_queue_advance(queue, now);
	wake |= assign_slots(now);
	LWLockRelease(prom_my_database->queue_lock);
	pg_atomic_write_u32(&prom_my_worker->in_flight,
						prom_guc_max_in_flight - nfree);
	if (wake)
		prom_shmem_wake(&prom_my_database->worker[PROM_CALLER]);
}

static bool
visit_live_task(const PromLiveTask *task, void *arg)
{
	int64 *visited = arg;
	TimestampTz now = GetCurrentTimestamp();
	bool wake = false;

	PROM_FAULT("scheduler-in-scan");
	LWLockAcquire(prom_my_database->queue_lock, LW_EXCLUSIVE);
	spilled |= !prom_queue_add(queue, &task->hint, task->retrying,
							   task->open || task->cancelled, now);
	/* The hint of a cancel may have been lost as well. */
	if (task->cancelled)
		wake = cancel_task(task->hint.task_id, now);
	LWLockRelease(prom_my_database->queue_lock);
	if (wake)
		prom_shmem_wake(&prom_my_database->worker[PROM_CALLER]);
	if (++*visited % TURN_EVERY == 0)
		turn();
	return true;
}

/*
 * Read the live tasks.  What is in the queue already is passed over; hints
 * that come meanwhile are in the ring, so that nothing falls between.
 */
static void
scan(void)
{
	int64 visited = 0;

	must_scan = spilled = false;
	prom_queue_read_anew(queue);
	hint_since_scan = false;
	transactions_at_scan = prom_xact_completion_count();
	if (!prom_era_xact_begin("reading the live tasks"))
		return;
	SPI_connect();
	prom_live_tasks(visit_live_task, &visited);
	SPI_finish();
	prom_xact_commit();
	PROM_FAULT("scheduler-after-scan");
	last_scan = last_look = GetCurrentTimestamp();
	pg_atomic_fetch_add_u64(&prom_my_database->rescans, 1);
}

/* Is it time to look for tasks that came without a hint? */
static bool
scan_is_due(TimestampTz now)
{
	if (must_scan || (spilled && prom_queue_wants_more(queue, now)))
		return true;
	if (!TimestampDifferenceExceeds(last_look, now, prom_guc_rescan_interval))
		return false;
	last_look = now;
	if (transactions_at_scan == prom_xact_completion_count())
		return false;
	if (hint_since_scan &&
		!TimestampDifferenceExceeds(last_scan, now,
									BUSY_SCAN * prom_guc_rescan_interval))
	{
		hint_since_scan = false;
		return false;
	}
	return true;
}

static long
wait_time(void)
{
	TimestampTz next = prom_queue_next_moment(queue);
	long ms = prom_worker_wait_time(next);

	if (ms < 0 || ms > prom_guc_rescan_interval)
		ms = prom_guc_rescan_interval;
	return ms;
}

void
prom_scheduler_main(Datum main_arg)
{
	prom_worker_begin(PROM_SCHEDULER, main_arg);
	if (!prom_era_xact_begin("looking for the extension"))
		proc_exit(0);
	prom_xact_commit();

	queue = prom_queue_create(prom_my_database);
	LWLockAcquire(prom_my_database->queue_lock, LW_EXCLUSIVE);
	adopt_slots(GetCurrentTimestamp());
	LWLockRelease(prom_my_database->queue_lock);
	scan();
	while (!prom_worker_should_end())
	{
		turn();
		if (scan_is_due(GetCurrentTimestamp()))
		{
			scan();
			continue;
		}
		prom_worker_wait(wait_time(), "PrometheusScheduler");
	}
	proc_exit(0);
}
