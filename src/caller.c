/*
 * caller.c
 *	  Sends every request of a database, in one event loop.
 *
 * A turn of the loop is one transaction: the results of the calls that ended
 * since the last turn, and the attempts and intents of the tasks that came.
 * After its commit the new requests are sent and the slots given back.  While
 * anything is on the network no transaction, snapshot or lock is held.
 *
 * If the transaction fails, each work is tried alone, so that one bad row
 * cannot hold up others; what the server cannot write just now is kept and
 * tried again; what can never be written ends its task with the error.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "attempt.h"
#include "compat.h"
#include "fault.h"
#include "gate.h"
#include "guc.h"
#include "guilt.h"
#include "http.h"
#include "job.h"
#include "llm.h"
#include "route.h"
#include "schema.h"
#include "setting.h"
#include "shmem.h"
#include "spending.h"
#include "strike.h"
#include "worker.h"
#include "xact.h"

/* Items in one turn. */
#define TURN_BEGIN 256
#define TURN_TOTAL 1024

/*
 * What a turn may load to begin tasks: a part of network_memory.  Until the
 * commit each byte is there several times.
 */
#define TURN_BYTES ((int64) prom_guc_network_memory * 1024 / 8)

/* Before what could not be written is tried again, ms. */
#define WRITE_AGAIN 1000
/* Works in a row that cannot be written until none of the rest is tried. */
#define FAILS_ENOUGH 3

/* Versions of agents and models kept, while nothing needs them. */
#define CACHED_VERSIONS 1000

typedef enum Stage
{
	STAGE_NONE,   /* no task is in this slot */
	STAGE_BEGIN,  /* to be loaded, and begun or gone on with */
	STAGE_CALL,   /* its request is on the network */
	STAGE_JOBS,   /* executors work for it */
	STAGE_RECORD, /* the call has ended */
	STAGE_CANCEL  /* the request was dropped */
} Stage;

typedef struct Work
{
	PromAttempt attempt;
	Stage stage;
	bool in_turn;
	bool handled;                 /* its gate was looked at for the scheduler */
	PromJobOwner jobs;            /* with executors, or waiting for one */
	char failure[PROM_JOB_ERROR]; /* of one that can never be done; or empty */
	TimestampTz not_before;       /* of writing again */
} Work;

static PromHttp *http;
static WaitEventSet *wait_set;
static MemoryContext turn_context;
static Work *works; /* by slot */
static Work **turn_works;
static int nturn;        /* works of this turn */
static int nbegin;       /* those of them in STAGE_BEGIN */
static int nkept;        /* works that could not be written */
static int in_flight;    /* requests on the network */
static bool is_put_off;  /* works of the last turn are for the next */
static bool late_cancel; /* a task was cancelled while it was being begun */

static PromSlot *
slot_of(const Work *work)
{
	return &prom_my_database->slots[work->attempt.slot];
}

static void
join_turn(Work *work)
{
	Assert(!work->in_turn && nturn < TURN_TOTAL);
	work->in_turn = true;
	turn_works[nturn++] = work;
	if (work->stage == STAGE_BEGIN)
		nbegin++;
}

/* Drop the request of a task that is to be cancelled. */
static void
drop_request(Work *work)
{
	PROM_FAULT("before-drop");
	prom_llm_free(work->attempt.call);
	work->attempt.call = NULL;
	prom_route_leave(&work->attempt);
	in_flight--;
	work->stage = STAGE_CANCEL;
	join_turn(work);
	PROM_FAULT("after-drop");
}

/* What is under way for a task that is to be cancelled. */
static void
drop(Work *work)
{
	if (work->stage == STAGE_CALL)
		drop_request(work);
	else if (work->stage == STAGE_JOBS)
		prom_jobs_drop(&work->jobs);
}

/* A slot that the scheduler assigned, or whose task is cancelled. */
static void
take_slot(int32 number)
{
	PromSlot *slot = &prom_my_database->slots[number];
	Work *work = &works[number];

	if (pg_atomic_read_u32(&slot->state) == PROM_SLOT_ASSIGNED)
	{
		pg_read_barrier();
		memset(work, 0, sizeof(*work));
		work->attempt.slot = number;
		work->attempt.task_id = slot->task_id;
		work->attempt.only_end = slot->only_end;
		work->stage = STAGE_BEGIN;
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
		if ((works[i].stage != STAGE_CALL && works[i].stage != STAGE_JOBS) ||
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
	while (nbegin < TURN_BEGIN && nturn < TURN_TOTAL &&
		   prom_pipe_pop(&prom_my_database->to_caller, &number))
		take_slot(number);
}

static void
take_replies(TimestampTz now)
{
	PromCall *call;

	while (nturn < TURN_TOTAL && (call = prom_llm_next_done(http)) != NULL)
	{
		Work *work = prom_llm_owner(call);

		in_flight--;
		prom_route_end(&work->attempt, now);
		work->stage = STAGE_RECORD;
		join_turn(work);
	}
}

/* Jobs that have ended: when none is left, their task goes on. */
static void
take_jobs(TimestampTz now)
{
	PromJobEnd end;

	prom_jobs_drive(now);
	while (nturn < TURN_TOTAL && nbegin < TURN_BEGIN &&
		   prom_jobs_next_ended(&end))
	{
		Work *work = (Work *) ((char *) end.owner - offsetof(Work, jobs));

		if (end.chat_failed)
		{
			work->attempt.chat_failed = true;
			work->attempt.retry = end.retry;
		}
		if (end.failed)
			strlcpy(work->failure, end.error, sizeof(work->failure));
		work->attempt.tokens += end.tokens;
		if (end.owner->n > 0)
			continue;
		prom_route_leave(&work->attempt);
		work->stage = STAGE_BEGIN;
		join_turn(work);
	}
}

/* What could not be written a while ago, or was too much for the last turn. */
static void
take_kept(TimestampTz now)
{
	is_put_off = false;
	if (nkept == 0)
		return;
	for (int i = 0; i < prom_guc_max_in_flight && nturn < TURN_TOTAL; i++)
	{
		Work *work = &works[i];

		if (work->not_before == 0 || work->not_before > now ||
			(work->stage == STAGE_BEGIN && nbegin == TURN_BEGIN))
			continue;
		work->not_before = 0;
		nkept--;
		join_turn(work);
	}
}

/* If the server crashes now, it is because of this task. */
static void
name_work(const Work *work)
{
	prom_guilt_name(work->attempt.task_id, work->attempt.step);
}

/* The fault points before and after the commit of what these works are at. */
static void
reach_faults(Work **list, int n, bool committed)
{
	for (int i = 0; i < n; i++)
	{
		switch (list[i]->stage)
		{
			case STAGE_BEGIN:
				if (committed)
					PROM_FAULT("begin-after-commit");
				else
					PROM_FAULT("begin-before-commit");
				break;
			case STAGE_RECORD:
				if (committed)
					PROM_FAULT("record-after-commit");
				else
					PROM_FAULT("record-before-commit");
				break;
			case STAGE_CANCEL:
				if (committed)
					PROM_FAULT("cancel-after-commit");
				else
					PROM_FAULT("cancel-before-commit");
				break;
			case STAGE_NONE:
			case STAGE_CALL:
			case STAGE_JOBS:
				break;
		}
	}
}

static void
write_items(Work **list, int n, TimestampTz now)
{
	PromFactWriter *writer = prom_fact_begin();
	PromAttempt *begin[TURN_BEGIN];
	int count = 0;

	for (int i = 0; i < n; i++)
	{
		switch (list[i]->stage)
		{
			case STAGE_BEGIN:
				if (list[i]->failure[0] != '\0')
					prom_attempt_give_up(writer, &list[i]->attempt,
										 "ConfigurationError",
										 list[i]->failure, now);
				else
					begin[count++] = &list[i]->attempt;
				break;
			case STAGE_RECORD:
				name_work(list[i]);
				PROM_FAULT("before-record");
				prom_attempt_record(writer, &list[i]->attempt, now);
				break;
			case STAGE_CANCEL:
				name_work(list[i]);
				prom_attempt_cancel(writer, &list[i]->attempt, now);
				break;
			case STAGE_NONE:
			case STAGE_CALL:
			case STAGE_JOBS:
				elog(ERROR, "nothing to write for task %lld",
					 (long long) list[i]->attempt.task_id);
		}
	}
	/* What is done for many together is blamed on none of them. */
	if (n > 1)
		prom_guilt_clear();
	if (count > 0)
		prom_attempt_begin(writer, begin, count, TURN_BYTES, now);
	if (n > 1)
		prom_guilt_clear();
	prom_fact_end(writer);
	reach_faults(list, n, false);
}

/* Try it again in a while; its reply, if it has one, is kept. */
static void
keep_for_later(Work *work, TimestampTz now)
{
	if (work->stage == STAGE_BEGIN)
		prom_route_leave(&work->attempt);
	work->not_before = TimestampTzPlusMilliseconds(now, WRITE_AGAIN);
	nkept++;
}

/* Run in a transaction; the error, or NULL.  The error has been logged. */
static ErrorData *
try_transaction(Work **list, int n, const char *error_type, const char *error,
				TimestampTz now)
{
	ErrorData *volatile failure = NULL;

	PG_TRY();
	{
		if (!prom_worker_xact_begin("recording and beginning tasks"))
			proc_exit(0);
		SPI_connect();
		MemoryContextSwitchTo(turn_context);
		prom_spending_begin(now);
		if (n == 1)
			name_work(list[0]);
		if (error == NULL)
			write_items(list, n, now);
		else
		{
			PromFactWriter *writer = prom_fact_begin();

			prom_attempt_give_up(writer, &list[0]->attempt, error_type, error,
								 now);
			prom_fact_end(writer);
			PROM_FAULT("give-up-before-commit");
		}
		SPI_finish();
		prom_guilt_clear(); /* a full disk is not its fault */
		prom_xact_commit();
		prom_spending_end(true);
	}
	PG_CATCH();
	{
		prom_guilt_clear();
		MemoryContextSwitchTo(turn_context);
		failure = CopyErrorData();
		prom_xact_abort();
		prom_spending_end(false);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(turn_context);
	return failure;
}

/* One work alone: true if it was written, false if it is kept. */
static bool
write_alone(Work *work, TimestampTz now)
{
	ErrorData *failure = try_transaction(&work, 1, NULL, NULL, now);
	bool begins = work->stage == STAGE_BEGIN;

	if (failure == NULL)
		return true;
	if (prom_xact_is_transient(failure->sqlerrcode))
	{
		keep_for_later(work, now);
		return false;
	}
	if (failure->sqlerrcode == ERRCODE_UNIQUE_VIOLATION)
	{
		/* Another owner was first: read again what is true. */
		work->attempt.next = PROM_NEXT_LATER;
		work->attempt.due = TimestampTzPlusMilliseconds(now, WRITE_AGAIN);
		work->attempt.retrying = true;
		return true;
	}
	failure = try_transaction(&work, 1,
							  begins ? "ConfigurationError" : "ModelUnreadable",
							  failure->message, now);
	if (failure == NULL)
		return true;
	keep_for_later(work, now);
	return false;
}

/* The scheduler counts it as on its way to the gate no more. */
static void
count_as_handled(Work *work)
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
		case PROM_NEXT_GO_ON:
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
give_back(Work *work)
{
	PromSlot *slot = slot_of(work);

	if (work->attempt.call != NULL)
		prom_llm_free(work->attempt.call);
	work->attempt.call = NULL;
	prom_route_leave(&work->attempt);
	prom_spending_leave(&work->attempt);
	count_as_handled(work);
	work->stage = STAGE_NONE;
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
look_for_cancel(Work *work)
{
	if (pg_atomic_read_u32(&slot_of(work)->cancel) == 0)
		return;
	late_cancel = true;
	SetLatch(MyLatch);
}

static void
send_request(Work *work, TimestampTz now)
{
	PromAttempt *attempt = &work->attempt;
	int64 left = TimestampDifferenceMilliseconds(now, attempt->deadline);

	name_work(work);
	PROM_FAULT("before-send");
	attempt->call = prom_llm_start(http, attempt->model, attempt->prompt, left,
								   attempt->attempt > 1, work);
	prom_guilt_clear();
	attempt->prompt = NULL;
	attempt->chat_failed = false;
	count_as_handled(work);
	work->stage = STAGE_CALL;
	in_flight++;
	PROM_FAULT("after-send");
	look_for_cancel(work);
}

/* Give executors what they are to do for a task. */
static void
add_jobs(Work *work)
{
	PromAttempt *attempt = &work->attempt;
	PromJobSpec spec = {.kind = PROM_JOB_TOOL,
						.task_id = attempt->task_id,
						.attempt = attempt->attempt,
						.step = attempt->step,
						.event_id = attempt->event_id};

	count_as_handled(work);
	work->stage = STAGE_JOBS;
	work->jobs.deadline = attempt->deadline;
	work->jobs.not_before = 0;
	attempt->chat_failed = false;
	if (attempt->next != PROM_NEXT_TOOLS)
	{
		spec.kind = attempt->next == PROM_NEXT_CHAT ? PROM_JOB_CHAT
													: PROM_JOB_REVIEW;
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

/* In the next turn. */
static void
put_off(Work *work, TimestampTz now)
{
	work->not_before = now;
	nkept++;
	is_put_off = true;
}

/* The model calls tools, or its answer is judged: the task goes on. */
static void
go_on(Work *work, TimestampTz now)
{
	count_as_handled(work);
	if (work->attempt.call != NULL)
		prom_llm_free(work->attempt.call);
	work->attempt.call = NULL;
	work->stage = STAGE_BEGIN;
	put_off(work, now);
}

/* A task that delegated this one may go on. */
static void
tell_parent(const Work *work)
{
	PromHint hint = {.kind = PROM_HINT_READ,
					 .task_id = work->attempt.parent_id};

	if (hint.task_id != 0)
		(void) prom_ring_push(&prom_my_database->ring, &hint, 1);
}

/* After the commit: send, give back, and tell everyone. */
static void
after_commit(Work **list, int n, TimestampTz now)
{
	int64 *ended = palloc(n * sizeof(int64));
	int nended = 0;
	int ngiven = 0;

	for (int i = 0; i < n; i++)
	{
		Work *work = list[i];

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
				add_jobs(work);
				break;
			case PROM_NEXT_GO_ON:
				go_on(work, now);
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
	pg_atomic_write_u32(&prom_my_database->changed, 1);
	prom_shmem_wake(&prom_my_database->worker[PROM_PUBLISHER]);
}

/*
 * The transaction of all works failed: each alone, so that one cannot hold up
 * the others.  How many were written; they come first now.
 */
static int
write_each(bool general, TimestampTz now)
{
	int written = 0;
	int failed = general ? FAILS_ENOUGH : 0;

	for (int i = 0; i < nturn; i++)
	{
		if (failed >= FAILS_ENOUGH)
			keep_for_later(turn_works[i], now);
		else if (write_alone(turn_works[i], now))
		{
			turn_works[written++] = turn_works[i];
			failed = 0;
		}
		else
			failed++;
	}
	return written;
}

static void
run_turn(TimestampTz now)
{
	ErrorData *failure;
	int written = 0;

	for (int i = 0; i < nturn; i++)
		turn_works[i]->in_turn = false;
	prom_schema_rest();
	failure = try_transaction(turn_works, nturn, NULL, NULL, now);
	if (failure == NULL)
		written = nturn;
	else
	{
		/* It must get further than to the one that failed. */
		prom_schema_rest();
		written = write_each(prom_xact_is_general(failure->sqlerrcode), now);
	}

	/*
	 * What ends this process must be noticed before it sends: a primary that
	 * was cut off learns it here.
	 */
	if (prom_worker_should_end())
		proc_exit(0);
	reach_faults(turn_works, written, true);
	if (written > 0)
		after_commit(turn_works, written, now);
	nturn = nbegin = 0;
}

static void
wait_for_work(bool at_once)
{
	static uint32 wait_event = 0;
	WaitEvent events[3];
	long timeout = prom_http_timeout(http);
	int n;

	if (at_once)
		timeout = 0;
	else if (nkept > 0 && (timeout < 0 || timeout > WRITE_AGAIN))
		timeout = WRITE_AGAIN;
	timeout = prom_worker_sooner(
		timeout, prom_worker_wait_time(prom_jobs_next_moment()));
	if (wait_event == 0)
		wait_event = prom_wait_event_new("PrometheusCaller");
	timeout = prom_worker_wait_limit(timeout);
	prom_my_worker->busy = false;
	n = WaitEventSetWait(wait_set, timeout, events, lengthof(events),
						 wait_event);
	prom_my_worker->busy = true;
	prom_xact_send_statistics();
	for (int i = 0; i < n; i++)
		if (events[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
}

/* Bytes of a reply are read for a work, or (NULL) have been. */
static void
blame(void *owner)
{
	if (owner == NULL)
		prom_guilt_clear();
	else
		name_work(owner);
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
								   prom_guc_max_in_flight * sizeof(Work));
	turn_works = MemoryContextAllocZero(TopMemoryContext,
										TURN_TOTAL * sizeof(Work *));
	prom_strike_culprits(turn_context);
	if (!prom_jobs_begin())
		proc_exit(0);
	prom_gate_forget_calls(prom_my_database);
	prom_llm_blame = blame;
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
		full = nbegin == TURN_BEGIN || nturn == TURN_TOTAL;
		if (nturn > 0)
			run_turn(now);
		pg_atomic_write_u32(&prom_my_worker->in_flight, in_flight);
		if (in_flight == 0 && nkept == 0 && prom_jobs_count() == 0 &&
			prom_versions_kept() > CACHED_VERSIONS)
			prom_versions_forget();
		MemoryContextSwitchTo(turn_context);
		MemoryContextReset(turn_context);
		wait_for_work(full || is_put_off);
	}
	/* No clean-up of libcurl: it would wait for a resolver's thread. */
	proc_exit(0);
}
