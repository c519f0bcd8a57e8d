/*
 * caller.c
 *	  Sends every request of a database, in one event loop.
 *
 * A turn of the loop is one transaction: the results of the calls that ended
 * since the last turn, and the attempts and intents of the tasks that came.
 * After its commit the new requests are sent and the slots given back.  While
 * anything is on the network no transaction, snapshot or lock is held.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "courier.h"
#include "course.h"
#include "embedder.h"
#include "export.h"
#include "fault.h"
#include "gate.h"
#include "guc.h"
#include "guilt.h"
#include "http.h"
#include "llm.h"
#include "meter.h"
#include "reuse.h"
#include "route.h"
#include "setting.h"
#include "shmem.h"
#include "sight.h"
#include "spending.h"
#include "strike.h"
#include "tally.h"
#include "work.h"
#include "worker.h"
#include "xact.h"

/* Works in one turn. */
#define TURN_TOTAL 1024

/* Versions of agents and models kept, while nothing needs them. */
#define CACHED_VERSIONS 1000

static PromHttp *http;
static WaitEventSet *wait_set;
static MemoryContext turn_context;
static PromWork *works; /* by slot */
static dlist_head errands = DLIST_STATIC_INIT(errands);
static PromWork **turn_works;
static int nturn;        /* works of this turn */
static int nbegin;       /* those of them in PROM_WORK_BEGIN */
static int nkept;        /* works that could not be written */
static int in_flight;    /* requests on the network */
static bool is_put_off;  /* works of the last turn are for the next */
static bool late_cancel; /* a task was cancelled while it was being begun */

static PromSlot *
slot_of(const PromWork *work)
{
	return &prom_my_database->slots[work->attempt.slot];
}

static void
join_turn(PromWork *work)
{
	Assert(!work->in_turn && nturn < TURN_TOTAL);
	work->in_turn = true;
	turn_works[nturn++] = work;
	if (work->stage == PROM_WORK_BEGIN)
		nbegin++;
}

/* Drop the request of a task that is to be cancelled. */
static void
drop_request(PromWork *work)
{
	PROM_FAULT("before-drop");
	prom_llm_free(work->attempt.call);
	work->attempt.call = NULL;
	prom_route_leave(&work->attempt);
	in_flight--;
	work->stage = PROM_WORK_CANCEL;
	join_turn(work);
	PROM_FAULT("after-drop");
}

/* In the next turn. */
static void
put_off(PromWork *work, TimestampTz now)
{
	work->not_before = now;
	nkept++;
	is_put_off = true;
}

/* One request of a tool for a task. */
static void
begin_errand(PromWork *task, int32 step)
{
	PromWork *work = MemoryContextAllocZero(TopMemoryContext,
											sizeof(PromWork));
	PromErrand *errand = MemoryContextAllocZero(TopMemoryContext,
												sizeof(PromErrand));

	errand->task_id = work->attempt.task_id = task->attempt.task_id;
	errand->attempt = work->attempt.attempt = task->attempt.attempt;
	errand->step = work->attempt.step = step;
	errand->turn = task->attempt.turn;
	errand->deadline = task->attempt.deadline;
	work->attempt.slot = task->attempt.slot;
	work->errand = errand;
	work->task = task;
	work->stage = PROM_WORK_INTEND;
	dlist_push_tail(&errands, &work->link);
	task->nerrands++;
	join_turn(work);
}

/* Its task goes on when nothing else is under way for it. */
static void
end_errand(PromWork *work, TimestampTz now)
{
	PromWork *task = work->task;

	if (work->errand->fetch != NULL)
		prom_fetch_free(work->errand->fetch);
	if (work->stage == PROM_WORK_CALL)
		in_flight--;
	dlist_delete(&work->link);
	pfree(work->errand);
	pfree(work);
	task->nerrands--;
	if (task->nerrands > 0 || task->jobs.n > 0)
		return;
	prom_route_leave(&task->attempt);
	task->stage = PROM_WORK_BEGIN;
	put_off(task, now);
}

/* The requests of tools of a task that is to be cancelled. */
static void
drop_errands(const PromWork *task)
{
	TimestampTz now = GetCurrentTimestamp();
	dlist_mutable_iter iter;

	if (task->nerrands == 0)
		return;
	dlist_foreach_modify(iter, &errands)
	{
		PromWork *work = dlist_container(PromWork, link, iter.cur);

		if (work->task != task || work->stage != PROM_WORK_CALL)
			continue;
		PROM_FAULT("before-drop");
		end_errand(work, now);
		PROM_FAULT("after-drop");
	}
}

/* It goes on in the next turn. */
static void
end_joining(PromWork *work, TimestampTz now)
{
	work->joins = false;
	work->not_before = now;
	is_put_off = true;
}

/* What is under way for a task that is to be cancelled. */
static void
drop(PromWork *work)
{
	if (work->joins)
		end_joining(work, GetCurrentTimestamp());
	else if (work->stage == PROM_WORK_CALL)
		drop_request(work);
	else if (work->stage == PROM_WORK_JOBS)
	{
		prom_jobs_drop(&work->jobs);
		drop_errands(work);
	}
}

/* A slot that the scheduler assigned, or whose task is cancelled. */
static void
take_slot(int32 number)
{
	PromSlot *slot = &prom_my_database->slots[number];
	PromWork *work = &works[number];

	if (pg_atomic_read_u32(&slot->state) == PROM_SLOT_ASSIGNED)
	{
		pg_read_barrier();
		memset(work, 0, sizeof(*work));
		work->attempt.slot = number;
		work->attempt.task_id = slot->task_id;
		work->attempt.only_end = slot->only_end;
		work->stage = PROM_WORK_BEGIN;
		pg_atomic_write_u32(&slot->state, PROM_SLOT_RUNNING);
		join_turn(work);
		PROM_FAULT("caller-after-take");
	}
	else if (pg_atomic_read_u32(&slot->cancel) != 0)
		drop(work);
}

/* Requests that were sent although the task had been cancelled meanwhile. */
static void
take_late_cancels(void)
{
	if (!late_cancel)
		return;
	late_cancel = false;
	for (int i = 0; i < prom_guc_max_in_flight; i++)
	{
		if ((works[i].stage != PROM_WORK_CALL &&
			 works[i].stage != PROM_WORK_JOBS && !works[i].joins) ||
			pg_atomic_read_u32(&slot_of(&works[i])->cancel) == 0)
			continue;
		if (nturn == TURN_TOTAL)
		{
			late_cancel = true;
			return;
		}
		drop(&works[i]);
	}
}

static void
take_slots(void)
{
	int32 number;

	if (pg_atomic_read_u32(&prom_my_database->caller_state) !=
		PROM_CALLER_READY)
		return;
	while (nbegin < PROM_WORK_MOST_BEGIN && nturn < TURN_TOTAL &&
		   prom_pipe_pop(&prom_my_database->to_caller, &number))
		take_slot(number);
}

static void
take_replies(TimestampTz now)
{
	PromCall *call;

	while (nturn < TURN_TOTAL && (call = prom_llm_next_done(http)) != NULL)
	{
		PromWork *work = prom_llm_owner(call);

		in_flight--;
		prom_route_end(&work->attempt, now);
		work->stage = PROM_WORK_RECORD;
		join_turn(work);
	}
	while (nturn < TURN_TOTAL)
	{
		PromWork *work = prom_fetch_next_done();

		if (work == NULL)
			break;
		in_flight--;
		work->stage = PROM_WORK_RESULT;
		join_turn(work);
	}
}

/* Jobs that have ended: when none is left, their task goes on. */
static void
take_jobs(TimestampTz now)
{
	PromJobEnd end;

	prom_jobs_drive(now);
	while (nturn < TURN_TOTAL && nbegin < PROM_WORK_MOST_BEGIN &&
		   prom_jobs_next_ended(&end))
	{
		PromWork *work;

		if (end.owner->delivers)
		{
			prom_courier_take_job(&end, now);
			continue;
		}
		work = (PromWork *) ((char *) end.owner - offsetof(PromWork, jobs));
		if (end.failed)
			strlcpy(work->failure, end.error, sizeof(work->failure));
		prom_attempt_take_job(&work->attempt, &end);
		if (end.send && pg_atomic_read_u32(&slot_of(work)->cancel) == 0)
			begin_errand(work, end.step);
		if (end.owner->n > 0 || work->nerrands > 0)
			continue;
		prom_route_leave(&work->attempt);
		work->stage = PROM_WORK_BEGIN;
		join_turn(work);
	}
}

/* One that was kept joins the turn, if it is time and there is room. */
static void
take_kept_work(PromWork *work, TimestampTz now)
{
	if (nturn == TURN_TOTAL || work->not_before == 0 ||
		work->not_before > now ||
		(work->stage == PROM_WORK_BEGIN && nbegin == PROM_WORK_MOST_BEGIN))
		return;
	work->not_before = 0;
	work->joins = false;
	nkept--;
	join_turn(work);
}

/* What could not be written a while ago, or was too much for the last turn. */
static void
take_kept(TimestampTz now)
{
	dlist_iter iter;

	is_put_off = false;
	if (nkept == 0)
		return;
	dlist_foreach(iter, &errands)
	{
		take_kept_work(dlist_container(PromWork, link, iter.cur), now);
	}
	for (int i = 0; i < prom_guc_max_in_flight && nturn < TURN_TOTAL; i++)
		take_kept_work(&works[i], now);
}

/* The scheduler counts it as on its way to the gate no more. */
static void
count_as_handled(PromWork *work)
{
	int32 gate = slot_of(work)->gate;

	if (!work->handled && gate >= 0)
		pg_atomic_fetch_add_u32(&prom_my_database->gates[gate].handled, 1);
	work->handled = true;
}

static PromSlotResult
result_of(const PromAttempt *attempt)
{
	switch (attempt->next)
	{
		case PROM_NEXT_SEND: /* these are not given back, but kept */
		case PROM_NEXT_TOOLS:
		case PROM_NEXT_CHAT:
		case PROM_NEXT_REVIEW:
		case PROM_NEXT_RECALL:
		case PROM_NEXT_GO_ON:
		case PROM_NEXT_JOIN:
		case PROM_NEXT_AGAIN:
		case PROM_NEXT_LATER:
			return PROM_RESULT_LATER;
		case PROM_NEXT_PARKED:
			return PROM_RESULT_PARKED;
		case PROM_NEXT_READ:
			return PROM_RESULT_READ;
		case PROM_NEXT_ENDED:
			break;
	}
	return attempt->completed ? PROM_RESULT_COMPLETED : PROM_RESULT_ENDED;
}

static void
give_back(PromWork *work)
{
	PromSlot *slot = slot_of(work);

	if (work->attempt.call != NULL)
		prom_llm_free(work->attempt.call);
	work->attempt.call = NULL;
	prom_route_leave(&work->attempt);
	prom_reuse_leave(&work->attempt);
	prom_spending_leave(&work->attempt);
	count_as_handled(work);
	prom_sight_clear(work->attempt.slot);
	work->stage = PROM_WORK_NONE;
	slot->result = result_of(&work->attempt);
	slot->due = work->attempt.due;
	slot->tokens = work->attempt.tokens;
	slot->retrying = work->attempt.retrying;
	slot->waiting = work->attempt.waiting;
	if (work->attempt.deadline != 0)
		slot->deadline = work->attempt.deadline;
	if (slot->result == PROM_RESULT_PARKED)
	{
		slot->target = work->attempt.target;
		slot->seen = work->attempt.seen;
		slot->opens = work->attempt.opens;
	}
	PROM_FAULT("before-give-back");
	pg_write_barrier();
	pg_atomic_write_u32(&slot->state, PROM_SLOT_DONE);
	prom_pipe_push(&prom_my_database->to_scheduler, work->attempt.slot);
	PROM_FAULT("after-give-back");
}

/* Was its task cancelled while it was being begun? */
static void
look_for_cancel(PromWork *work)
{
	if (pg_atomic_read_u32(&slot_of(work)->cancel) == 0)
		return;
	late_cancel = true;
	SetLatch(MyLatch);
}

static void
send_request(PromWork *work, TimestampTz now)
{
	PromAttempt *attempt = &work->attempt;
	int64 left = TimestampDifferenceMilliseconds(now, attempt->deadline);
	char trace[PROM_TRACE_HEADER_SIZE];

	prom_trace_header(trace, &attempt->trace, attempt->call_id);
	prom_work_name(work);
	PROM_FAULT("before-send");
	prom_sight_set(attempt->slot, attempt->task_id, attempt->step,
				   prom_course_kind(attempt), now);
	prom_route_sent(attempt);
	attempt->call = prom_llm_start(http, prom_attempt_called(attempt),
								   attempt->prompt, trace, left,
								   attempt->attempt > 1 ||
									   attempt->embedder != NULL,
								   work);
	prom_guilt_clear();
	attempt->prompt = NULL;
	attempt->chat_failed = false;
	count_as_handled(work);
	work->stage = PROM_WORK_CALL;
	in_flight++;
	PROM_FAULT("after-send");
	look_for_cancel(work);
}

/* What executors do for a task, as it is seen; of several tools the first. */
static void
show_jobs(const PromAttempt *attempt, TimestampTz now)
{
	const char *kind = prom_course_kind(attempt);
	int32 step = attempt->step;

	if (attempt->next == PROM_NEXT_REVIEW)
		kind = "review";
	else if (attempt->next == PROM_NEXT_RECALL)
		kind = "recall";
	else if (attempt->next == PROM_NEXT_TOOLS)
	{
		kind = "tool";
		step = attempt->pending[0];
	}
	prom_sight_set(attempt->slot, attempt->task_id, step, kind, now);
}

/* Give executors what they are to do for a task. */
static void
add_jobs(PromWork *work, TimestampTz now)
{
	PromAttempt *attempt = &work->attempt;
	PromJobSpec spec = {.kind = PROM_JOB_TOOL,
						.task_id = attempt->task_id,
						.attempt = attempt->attempt,
						.step = attempt->step,
						.about = attempt->counsel.step,
						.event_id = attempt->event_id};

	count_as_handled(work);
	prom_route_sent(attempt);
	show_jobs(attempt, now);
	work->stage = PROM_WORK_JOBS;
	work->jobs.deadline = attempt->deadline;
	work->jobs.not_before = 0;
	attempt->chat_failed = false;
	if (attempt->next != PROM_NEXT_TOOLS)
	{
		if (attempt->next == PROM_NEXT_REVIEW)
			spec.kind = PROM_JOB_REVIEW;
		else if (attempt->next == PROM_NEXT_RECALL)
			spec.kind = PROM_JOB_RECALL;
		else if (attempt->counsel.model != NULL)
			spec.kind = PROM_JOB_COUNSEL;
		else if (attempt->thought != PROM_THOUGHT_NONE)
		{
			spec.kind = PROM_JOB_THINK;
			spec.about = attempt->thought;
		}
		else
			spec.kind = PROM_JOB_CHAT;
		prom_job_add(&work->jobs, &spec);
	}
	else
		for (int i = 0; i < attempt->npending; i++)
		{
			spec.step = attempt->pending[i];
			prom_job_add(&work->jobs, &spec);
		}
	look_for_cancel(work);
}

/* The model calls tools, or its answer is judged: the task goes on. */
static void
go_on(PromWork *work, TimestampTz now)
{
	count_as_handled(work);
	if (work->attempt.call != NULL)
		prom_llm_free(work->attempt.call);
	work->attempt.call = NULL;
	work->stage = PROM_WORK_BEGIN;
	put_off(work, now);
}

/* It goes on when an equal request has ended, or at its deadline. */
static void
join(PromWork *work)
{
	count_as_handled(work);
	work->stage = PROM_WORK_BEGIN;
	work->joins = true;
	work->not_before = work->attempt.deadline;
	nkept++;
	look_for_cancel(work);
}

/* One that others have joined has ended. */
static void
let_joined_go_on(TimestampTz now)
{
	if (!prom_reuse_may_go_on())
		return;
	for (int i = 0; i < prom_guc_max_in_flight; i++)
		if (works[i].joins)
			end_joining(&works[i], now);
}

/* A task that delegated this one may go on. */
static void
tell_parent(const PromWork *work)
{
	PromHint hint = {.kind = PROM_HINT_READ,
					 .task_id = work->attempt.parent_id};

	if (hint.task_id != 0)
		(void) prom_ring_push(&prom_my_database->ring, &hint, 1);
}

static void
send_errand(PromWork *work, TimestampTz now)
{
	PromErrand *errand = work->errand;

	prom_work_name(work);
	PROM_FAULT("before-send");
	errand->spec.deadline = TimestampDifferenceMilliseconds(now,
															errand->deadline);
	errand->fetch = prom_fetch_start(http, &errand->spec, work);
	prom_guilt_clear();
	work->stage = PROM_WORK_CALL;
	in_flight++;
	PROM_FAULT("after-send");
	look_for_cancel(work);
}

/* What the turn has made of an errand. */
static void
go_on_with_errand(PromWork *work, TimestampTz now)
{
	PromErrand *errand = work->errand;
	PromJobSpec spec = {.kind = PROM_JOB_TOOL,
						.task_id = errand->task_id,
						.attempt = errand->attempt,
						.step = errand->step};
	bool is_cancelled = pg_atomic_read_u32(&slot_of(work)->cancel) != 0;

	if (errand->next == PROM_ERRAND_SEND && !is_cancelled)
	{
		send_errand(work, now);
		return;
	}
	if (errand->next == PROM_ERRAND_JUDGE && !is_cancelled)
		prom_job_add(&work->task->jobs, &spec);
	end_errand(work, now);
}

/* After the commit: send, give back, and tell everyone. */
static void
after_commit(PromWork **list, int n, TimestampTz now)
{
	int64 *ended = palloc(n * sizeof(int64));
	int nended = 0;
	int ngiven = 0;

	for (int i = 0; i < n; i++)
	{
		PromWork *work = list[i];

		if (work->errand != NULL)
		{
			go_on_with_errand(work, now);
			continue;
		}
		work->attempt.tokens += work->attempt.tokens_now;
		work->attempt.tokens_now = 0;
		switch (work->attempt.next)
		{
			case PROM_NEXT_SEND:
				send_request(work, now);
				break;
			case PROM_NEXT_TOOLS:
			case PROM_NEXT_CHAT:
			case PROM_NEXT_REVIEW:
			case PROM_NEXT_RECALL:
				add_jobs(work, now);
				break;
			case PROM_NEXT_GO_ON:
				go_on(work, now);
				break;
			case PROM_NEXT_JOIN:
				join(work);
				break;
			case PROM_NEXT_AGAIN:
				put_off(work, now);
				break;
			case PROM_NEXT_ENDED:
				ended[nended++] = work->attempt.task_id;
				tell_parent(work);
				/* FALLTHROUGH */
			case PROM_NEXT_LATER:
			case PROM_NEXT_PARKED:
			case PROM_NEXT_READ:
				give_back(work);
				ngiven++;
				break;
		}
	}
	prom_jobs_drive(now); /* those that were added */
	PROM_FAULT("before-wake");
	if (ngiven > 0)
		prom_shmem_wake(&prom_my_database->worker[PROM_SCHEDULER]);
	if (nended > 0)
		prom_shmem_wake_waiters(MyDatabaseId, ended, nended);
	prom_export_ended(nended);
	pg_atomic_write_u32(&prom_my_database->changed, 1);
	prom_shmem_wake(&prom_my_database->worker[PROM_PUBLISHER]);
}

static void
run_turn(TimestampTz now)
{
	int written;

	for (int i = 0; i < nturn; i++)
		turn_works[i]->in_turn = false;
	written = prom_work_write(turn_works, nturn, now);
	nkept += nturn - written;

	/*
	 * What ends this process must be noticed before it sends: a primary that
	 * was cut off learns it here.
	 */
	if (prom_worker_should_end())
		proc_exit(0);
	prom_work_reach_faults(turn_works, written, true);
	if (written > 0)
		after_commit(turn_works, written, now);
	nturn = nbegin = 0;
}

static void
wait_for_work(bool at_once)
{
	static uint32 wait_event = 0;
	WaitEvent events[3];
	TimestampTz next;
	long timeout = prom_http_timeout(http);
	int n;

	if (at_once)
		timeout = 0;
	else if (nkept > 0 && (timeout < 0 || timeout > PROM_WORK_WRITE_AGAIN))
		timeout = PROM_WORK_WRITE_AGAIN;
	next = Min(prom_jobs_next_moment(), prom_courier_next_moment());
	next = Min(next, prom_export_next_moment());
	next = Min(next, prom_meter_next_moment());
	next = Min(next, prom_embedder_next_moment());
	timeout = prom_worker_sooner(timeout, prom_worker_wait_time(next));
	if (wait_event == 0)
		wait_event = prom_wait_event_new("PrometheusCaller");
	timeout = prom_worker_wait_limit(timeout);
	prom_my_worker->busy = false;
	prom_tally_wait();
	n = WaitEventSetWait(wait_set, timeout, events, lengthof(events),
						 wait_event);
	prom_tally_wake();
	prom_my_worker->busy = true;
	prom_xact_send_statistics();
	for (int i = 0; i < n; i++)
		if (events[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
}

static void
begin(Datum main_arg)
{
	prom_worker_begin(PROM_CALLER, main_arg);
	if (!prom_worker_xact_begin("looking for the extension"))
		proc_exit(0);
	prom_xact_commit();

	turn_context = AllocSetContextCreate(TopMemoryContext, "prometheus turn",
										 ALLOCSET_DEFAULT_SIZES);
	works = MemoryContextAllocZero(TopMemoryContext,
								   prom_guc_max_in_flight * sizeof(PromWork));
	turn_works = MemoryContextAllocZero(TopMemoryContext,
										TURN_TOTAL * sizeof(PromWork *));
	prom_strike_culprits(turn_context);
	if (!prom_jobs_begin())
		proc_exit(0);
	prom_gate_forget_calls(prom_my_database);
	prom_courier_begin();
	prom_export_begin();
	prom_embedder_begin();
	prom_meter_begin();
	prom_work_hear_replies();
	prom_sight_begin();
	http = prom_http_create();
	wait_set = prom_create_wait_event_set(3);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL,
					  NULL);
	AddWaitEventToSet(wait_set, WL_SOCKET_READABLE, prom_http_fd(http), NULL,
					  NULL);

	PROM_FAULT("caller-before-waiting");
	pg_atomic_write_u32(&prom_my_database->caller_state, PROM_CALLER_WAITING);
	PROM_FAULT("caller-after-waiting");
	prom_shmem_wake(&prom_my_database->worker[PROM_SCHEDULER]);
}

void
prom_caller_main(Datum main_arg)
{
	begin(main_arg);
	MemoryContextSwitchTo(turn_context);
	while (!prom_worker_should_end())
	{
		TimestampTz now;
		bool full;

		/* It may have been reloaded. */
		prom_http_set_memory_limit(http,
								   (size_t) prom_guc_network_memory * 1024);
		take_late_cancels();
		take_kept(GetCurrentTimestamp());
		/* Before new tasks, which could take all the places of a turn. */
		take_jobs(GetCurrentTimestamp());
		take_slots();
		prom_http_drive(http);
		now = GetCurrentTimestamp();
		take_replies(now);
		full = nbegin == PROM_WORK_MOST_BEGIN || nturn == TURN_TOTAL;
		if (nturn > 0)
			run_turn(now);
		let_joined_go_on(now);
		prom_courier_drive(http, now);
		prom_export_drive(http, now);
		prom_embedder_drive(http, now);
		prom_meter_drive(http, now);
		prom_jobs_drive(now);
		pg_atomic_write_u32(&prom_my_worker->in_flight,
							in_flight + prom_courier_in_flight() +
								prom_export_in_flight() +
								prom_meter_in_flight() +
								prom_embedder_in_flight());
		if (in_flight == 0 && prom_embedder_in_flight() == 0 && nkept == 0 &&
			prom_jobs_count() == 0 &&
			prom_versions_kept() > CACHED_VERSIONS)
			prom_versions_forget();
		MemoryContextSwitchTo(turn_context);
		MemoryContextReset(turn_context);
		wait_for_work(full || is_put_off);
	}
	/* No clean-up of libcurl: it would wait for a resolver's thread. */
	proc_exit(0);
}
