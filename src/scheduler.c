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
#include "gate.h"
#include "guc.h"
#include "live.h"
#include "pause.h"
#include "queue.h"
#include "shmem.h"
#include "worker.h"
#include "xact.h"

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
 * may have been lost, or the queue was full.  The latter are read when there
 * is room for many of them, or one is due; and that may take a tenth of the
 * time: else it would be all that is done.
 */
static bool must_scan;
static bool spilled;
static TimestampTz soonest_spilled;

/* What the facts are to be asked for, after the turn: tasks, and pauses. */
static int64 *reads;
static int nreads;
static int reads_room;
static bool must_read_pauses;
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

/* A task is to be read from its facts, when this turn is over. */
static void
read_soon(int64 task_id)
{
	if (nreads == reads_room)
	{
		reads_room = Max(2 * reads_room, 256);
		reads = reads == NULL
					? MemoryContextAllocHuge(TopMemoryContext,
											 reads_room * sizeof(int64))
					: repalloc_huge(reads, reads_room * sizeof(int64));
	}
	reads[nreads++] = task_id;
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
	if (prom_queue_take_back(queue, slot, now))
		read_soon(slot->task_id);
	free_slot(number);
	PROM_FAULT("scheduler-after-take-back");
}

/* A slot of the scheduler before that is not free. */
static void
adopt_slot(int32 number, bool told, TimestampTz now)
{
	PromSlot *slot = slot_at(number);
	uint32 state = pg_atomic_read_u32(&slot->state);

	prom_queue_adopt(queue, slot, number, now);
	if (state == PROM_SLOT_DONE)
		take_back(number, now);
	else if (!told && (state == PROM_SLOT_ASSIGNED ||
					   pg_atomic_read_u32(&slot->cancel) != 0))
		prom_pipe_push(&prom_my_database->to_caller, number);
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
	int32 *ends = palloc(prom_guc_max_in_flight * sizeof(int32));
	int nends = 0;

	prom_pipe_find(&prom_my_database->to_caller, told);
	free_slots = MemoryContextAlloc(TopMemoryContext,
									prom_guc_max_in_flight * sizeof(int32));
	nfree = 0;
	for (int i = prom_guc_max_in_flight - 1; i >= 0; i--)
	{
		if (pg_atomic_read_u32(&slot_at(i)->state) == PROM_SLOT_FREE)
			free_slots[nfree++] = i;
		else if (slot_at(i)->only_end)
			ends[nends++] = i;
		else
			adopt_slot(i, told[i], now);
	}
	/* These hold no keys that one of the others has. */
	for (int i = 0; i < nends; i++)
		adopt_slot(ends[i], told[ends[i]], now);
	pfree(ends);
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
		uint32 slot_state = pg_atomic_read_u32(&slot_at(i)->state);

		if (slot_state == PROM_SLOT_FREE)
			continue;
		if (slot_state == PROM_SLOT_DONE)
		{
			take_back(i, now);
			continue;
		}
		prom_queue_put_back(queue, slot_at(i), now);
		free_slot(i);
	}
	prom_queue_forget_slots(queue);
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

/*
 * A person resumed a model or a subscription, or set it anew.  The caller may
 * just give back that of a subscription, whose place is then another one's.
 */
static void
open_gate(PromGateKind kind, uint32 hash)
{
	PromGate *gate;

	LWLockAcquire(prom_my_database->gate_lock, LW_SHARED);
	gate = prom_gate_by_hash(prom_my_database, kind, hash);
	if (gate != NULL)
		prom_gate_open(gate);
	LWLockRelease(prom_my_database->gate_lock);
}

/* True if the caller is to look at a slot. */
static bool
take_hint(const PromHint *hint, TimestampTz now)
{
	PromLiveTask task = {.hint = *hint};

	hint_since_scan = true;
	switch (hint->kind)
	{
		case PROM_HINT_SUBMIT:
			if (prom_queue_reads_before(queue, hint))
				read_soon(hint->task_id);
			else if (!prom_queue_add(queue, &task, now))
				spilled = true;
			break;
		case PROM_HINT_READ:
			/* It may have ended, and not have been taken back. */
			if (!prom_queue_look_again(queue, hint->task_id, now))
				read_soon(hint->task_id);
			break;
		case PROM_HINT_GATES:
			must_read_pauses = true;
			open_gate(PROM_GATE_MODEL, hint->target.model);
			open_gate(PROM_GATE_SUBSCRIPTION, (uint32) hint->key);
			if (hint->target.agent != 0)
				prom_queue_retarget(queue, hint->target.agent, now);
			break;
		case PROM_HINT_CANCEL:
			/* It may have come before the task's own, or that had no room. */
			if (!prom_queue_has(queue, hint->task_id))
				read_soon(hint->task_id);
			return cancel_task(hint->task_id, now);
	}
	return false;
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
	while (nfree > 0)
	{
		int32 number = free_slots[nfree - 1];
		PromSlot *slot = slot_at(number);

		if (!prom_queue_take(queue, slot, number, now))
			break;
		nfree--;
		PROM_FAULT("scheduler-before-assign");
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
	TimestampTz now = GetCurrentTimestamp();
	bool wake = false;

	PROM_FAULT("scheduler-in-scan");
	LWLockAcquire(prom_my_database->queue_lock, LW_EXCLUSIVE);
	spilled |= !prom_queue_add(queue, task, now);
	/* The hint of a decision, or of a child's end, may have been lost. */
	if (task->waiting && task->hint.due <= now)
		(void) prom_queue_look_again(queue, task->hint.task_id, now);
	/* The hint of a cancel may have been lost as well. */
	if (task->cancelled)
		wake = cancel_task(task->hint.task_id, now);
	LWLockRelease(prom_my_database->queue_lock);
	if (wake)
		prom_shmem_wake(&prom_my_database->worker[PROM_CALLER]);
	return true;
}

/*
 * What is ready may go to another lane.  And a copy that is resumed may have
 * tasks that came after the live ones were read.
 */
static void
read_pauses(void)
{
	bool was_paused = prom_my_database->gates[0].paused;

	prom_pause_read(prom_my_database);
	if (was_paused && !prom_my_database->gates[0].paused)
		must_scan = true;
	LWLockAcquire(prom_my_database->queue_lock, LW_EXCLUSIVE);
	prom_queue_gates_changed(queue);
	if (must_read_pauses)
		prom_queue_read_refused(queue, GetCurrentTimestamp());
	LWLockRelease(prom_my_database->queue_lock);
	must_read_pauses = false;
}

/*
 * Read live tasks: all, or those that are wanted.  What is in the queue
 * already is passed over; hints that come meanwhile are in the ring, so that
 * nothing falls between; and work goes on, a turn every now and then.
 */
static void
read_tasks(bool all)
{
	int64 *wanted = palloc(Max(nreads, 1) * sizeof(int64));
	int nwanted = nreads;

	/* A turn in between may want more of them. */
	if (nwanted > 0)
		memcpy(wanted, reads, nwanted * sizeof(int64));
	nreads = 0;
	PROM_FAULT("scheduler-before-read");
	if (!prom_era_xact_begin("reading the live tasks"))
		return;
	SPI_connect();
	prom_queue_begin_reading(queue, all);
	read_pauses();
	if (all)
	{
		/* The hint that told of a model's options may have been lost too. */
		prom_gate_ask_all(prom_my_database);
		prom_live_tasks(visit_live_task, turn, NULL);
	}
	else if (nwanted > 0)
		prom_live_tasks_among(wanted, nwanted, visit_live_task, turn, NULL);
	SPI_finish();
	prom_xact_commit();
	LWLockAcquire(prom_my_database->queue_lock, LW_EXCLUSIVE);
	prom_queue_end_reading(queue, all, nreads > 0, GetCurrentTimestamp());
	LWLockRelease(prom_my_database->queue_lock);
	pfree(wanted);
	PROM_FAULT("scheduler-after-read");
}

static void
scan(void)
{
	TimestampTz start = GetCurrentTimestamp();

	must_scan = spilled = false;
	hint_since_scan = false;
	transactions_at_scan = prom_xact_completion_count();
	read_tasks(true);
	PROM_FAULT("scheduler-after-scan");
	last_scan = last_look = GetCurrentTimestamp();
	soonest_spilled = last_scan + 9 * (last_scan - start);
	pg_atomic_fetch_add_u64(&prom_my_database->rescans, 1);
}

/* When those are to be read that had no room. */
static TimestampTz
spilled_are_due(TimestampTz now)
{
	if (!spilled)
		return DT_NOEND;
	now = prom_queue_wants_more(queue, now);
	return Max(soonest_spilled, now);
}

/* Is it time to look for tasks that came without a hint, or had no room? */
static bool
scan_is_due(TimestampTz now)
{
	if (must_scan || spilled_are_due(now) <= now)
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
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = prom_queue_next_moment(queue, now);
	TimestampTz spilled_due = spilled_are_due(now);
	long ms = prom_worker_wait_time(Min(next, spilled_due));

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
		if (nreads > 0 || must_read_pauses)
		{
			read_tasks(false);
			continue;
		}
		prom_worker_wait(wait_time(), "PrometheusScheduler");
	}
	proc_exit(0);
}
