/*
 * job.c
 *	  Gives jobs to executors, and takes them back, for the caller.
 *
 * A job waits here until a place in shared memory is free whose executor is
 * there; the launcher starts executors while there are jobs without one.  A
 * place belongs to the caller while its state is NONE, DONE or FAILED, and to
 * its executor while that is BEGUN; GIVEN is either's, by compare-and-exchange.
 * An executor that ends in a job leaves it FAILED, so it cannot be lost.
 *
 * What failed is given again, since nothing of it is there; but not for ever: a
 * tool that cannot be stopped, or ends its process each time, is given with a
 * refusal, and the step says so.  If that fails as well, the job has failed.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "utils/memutils.h"

#include "fault.h"
#include "guc.h"
#include "job.h"
#include "worker.h"

/* From the cancel of a job to the end of its process, ms; and how long a new
 * caller waits for that. */
#define GRACE 1000
#define LONGEST_STOP 5000

/* Failures after which a job is refused, or has failed; a pause between, ms. */
#define FAILURES_ENOUGH 3
#define FAILURES_TOO_MANY 6
#define AGAIN 500

typedef struct Job
{
	dlist_node link; /* in waiting or running of its owner, or in ended */
	PromJobSpec spec;
	PromJobRefusal refusal;
	int place;            /* while it runs; else -1 */
	TimestampTz given_at; /* since when it does */
	int failures;
	char error[PROM_JOB_ERROR];
	TimestampTz stop_at; /* if dropped while it runs: end the process */
	bool dropped;
	PromJobEnd end;
} Job;

/* Those with jobs waiting, and how many are tasks, and subscriptions. */
static dlist_head owners = DLIST_STATIC_INIT(owners);
static int nowners[2];

/* Before this none of them has a deadline, or a pause that ends. */
static TimestampTz soonest = DT_NOEND;

static dlist_head ended = DLIST_STATIC_INIT(ended);
static Job *running[PROM_JOB_PLACES]; /* by place */
static int njobs;
static int nopen;     /* those that have not ended, */
static int nhandlers; /* and are for subscriptions */

static PromJob *
place_at(int number)
{
	return &prom_my_database->jobs[number];
}

static PromWorker *
executor_at(int place)
{
	return &prom_my_database->worker[PROM_EXECUTOR + place];
}

/* The process may just have ended: then it has left its job, and tells. */
static void
signal_executor(int place, int signo)
{
	pid_t pid;

	LWLockAcquire(prom_shared->lock, LW_SHARED);
	pid = executor_at(place)->pid;
	if (pid != 0)
		kill(pid, signo);
	LWLockRelease(prom_shared->lock);
}

static bool
move_state(PromJob *place, PromJobState from, PromJobState to)
{
	uint32 expected = from;

	return pg_atomic_compare_exchange_u32(&place->state, &expected, to);
}

/* How many executors there should be. */
static void
tell_wanted(void)
{
	uint32 tasks = nopen - nhandlers;
	uint32 handlers = nhandlers;

	if (tasks > pg_atomic_exchange_u32(&prom_my_database->wanted, tasks))
		prom_shmem_wake(&prom_shared->launcher);
	if (handlers >
		pg_atomic_exchange_u32(&prom_my_database->wanted_handlers, handlers))
		prom_shmem_wake(&prom_shared->launcher);
}

/* When something is to be done for an owner, whoever has room. */
static void
note_times(const PromJobOwner *owner)
{
	soonest = Min(soonest, owner->deadline);
	if (owner->not_before != 0)
		soonest = Min(soonest, owner->not_before);
}

/* A job waits: its owner is the last to be served. */
static void
wait_again(Job *job)
{
	PromJobOwner *owner = job->end.owner;

	if (dlist_is_empty(&owner->waiting))
	{
		dlist_push_tail(&owners, &owner->link);
		nowners[owner->delivers]++;
	}
	note_times(owner);
	dlist_push_tail(&owner->waiting, &job->link);
	job->place = -1;
}

/* It waits no more. */
static void
stop_waiting(Job *job)
{
	PromJobOwner *owner = job->end.owner;

	dlist_delete(&job->link);
	if (!dlist_is_empty(&owner->waiting))
		return;
	dlist_delete(&owner->link);
	nowners[owner->delivers]--;
}

void
prom_job_add(PromJobOwner *owner, const PromJobSpec *spec)
{
	Job *job = MemoryContextAllocZero(TopMemoryContext, sizeof(Job));

	job->spec = *spec;
	job->end.owner = owner;
	job->end.step = spec->step;
	job->end.delivery_id = spec->delivery_id;
	owner->n++;
	wait_again(job);
	njobs++;
	nopen++;
	nhandlers += owner->delivers ? 1 : 0;
	tell_wanted();
}

/* It is in no list of its owner any more. */
static void
end_job(Job *job)
{
	dlist_push_tail(&ended, &job->link);
	nopen--;
	nhandlers -= job->end.owner->delivers ? 1 : 0;
	tell_wanted();
}

/* It runs no more: the place is the caller's. */
static void
leave_place(Job *job)
{
	int64 ms = TimestampDifferenceMilliseconds(job->given_at,
											   GetCurrentTimestamp());

	job->end.run_ms = Max(job->end.run_ms, ms);
	running[job->place] = NULL;
	dlist_delete(&job->link);
	job->place = -1;
}

static void
give(Job *job, int number)
{
	PromJob *place = place_at(number);
	PromJobOwner *owner = job->end.owner;

	stop_waiting(job);
	dlist_push_tail(&owner->running, &job->link);
	running[number] = job;
	job->place = number;
	job->given_at = GetCurrentTimestamp();
	place->kind = job->spec.kind;
	place->refusal = job->refusal;
	place->task_id = job->spec.task_id;
	place->attempt = job->spec.attempt;
	place->step = job->spec.step;
	place->about = job->spec.about;
	place->event_id = job->spec.event_id;
	place->delivery_id = job->spec.delivery_id;
	place->deadline = owner->deadline;
	place->overdue = place->chat_failed = place->send = place->asks = false;
	place->tokens = 0;
	place->delivered = 0;
	place->retry = job->end.retry;
	strlcpy(place->error, job->error, sizeof(place->error));
	pg_atomic_write_u32(&place->cancel, 0);
	PROM_FAULT("job-before-give");
	pg_write_barrier();
	pg_atomic_write_u32(&place->state, PROM_JOB_GIVEN);
	prom_shmem_wake(executor_at(number));
	PROM_FAULT("job-after-give");
}

/* A place that a job of the caller before was left in, if it is over now. */
static void
clear_left(int number)
{
	PromJob *place = place_at(number);
	PromJobState state = pg_atomic_read_u32(&place->state);

	if (running[number] == NULL &&
		(state == PROM_JOB_DONE || state == PROM_JOB_FAILED ||
		 (state != PROM_JOB_NONE && executor_at(number)->pid == 0)))
		(void) move_state(place, state, PROM_JOB_NONE);
}

/* Does one run that takes long? */
static bool
slow_one_runs(void)
{
	for (int i = PROM_MAX_EXECUTORS; i < PROM_JOB_PLACES; i++)
		if (running[i] != NULL && running[i]->end.owner->is_slow)
			return true;
	return false;
}

/* An executor for it that is there and has no job; -1: none. */
static int
find_free(const PromJobOwner *owner)
{
	int first = owner->delivers ? PROM_MAX_EXECUTORS : 0;
	int beyond = owner->delivers ? PROM_JOB_PLACES : PROM_MAX_EXECUTORS;

	/* A function that is slow leaves the others a place. */
	if (owner->is_slow && slow_one_runs())
		return -1;
	for (int i = first; i < beyond; i++)
	{
		clear_left(i);
		if (executor_at(i)->pid != 0 &&
			pg_atomic_read_u32(&place_at(i)->state) == PROM_JOB_NONE)
			return i;
	}
	return -1;
}

/* Whose time is over has none waiting any more. */
static void
end_waiting(PromJobOwner *owner)
{
	while (!dlist_is_empty(&owner->waiting))
	{
		Job *job = dlist_head_element(Job, link, &owner->waiting);

		stop_waiting(job);
		end_job(job);
	}
}

/* End those whose deadline has come, and pauses that are over. */
static void
look_at_times(TimestampTz now)
{
	dlist_mutable_iter iter;

	if (soonest > now)
		return;
	soonest = DT_NOEND;
	dlist_foreach_modify(iter, &owners)
	{
		PromJobOwner *owner = dlist_container(PromJobOwner, link, iter.cur);

		if (owner->deadline <= now)
		{
			end_waiting(owner);
			continue;
		}
		if (owner->not_before <= now)
			owner->not_before = 0;
		note_times(owner);
	}
}

/* Is there none of this kind, or no executor for one? */
static bool
is_served(const bool *is_full, int kind)
{
	return is_full[kind] || nowners[kind] == 0;
}

/*
 * One job of each owner in turn, while there are executors.  Thousands may
 * wait, and are not looked at when all executors are busy.
 */
static void
give_waiting(TimestampTz now)
{
	bool is_full[2] = {false, false}; /* for tasks, for subscriptions */
	bool given = true;

	look_at_times(now);
	while (given)
	{
		dlist_mutable_iter iter;

		given = false;
		dlist_foreach_modify(iter, &owners)
		{
			PromJobOwner *owner = dlist_container(PromJobOwner, link, iter.cur);
			int place;

			if (is_served(is_full, 0) && is_served(is_full, 1))
				return;
			if (owner->not_before > now || is_full[owner->delivers])
				continue;
			place = find_free(owner);
			if (place < 0)
			{
				is_full[owner->delivers] = !owner->is_slow;
				continue;
			}
			give(dlist_head_element(Job, link, &owner->waiting), place);
			given = true;
			/* The others before it has another one. */
			if (!dlist_is_empty(&owner->waiting))
			{
				dlist_delete(&owner->link);
				dlist_push_tail(&owners, &owner->link);
			}
		}
	}
}

/* Nothing of it is there: once more, or with a step that says why not. */
static void
take_failed(Job *job, TimestampTz now)
{
	PromJob *place = place_at(job->place);
	bool overdue = place->overdue;

	strlcpy(job->error, place->error, sizeof(job->error));
	/* If it was committed all the same, this is what came of it. */
	job->end.retry = place->retry;
	leave_place(job);
	job->failures++;
	if (overdue)
		job->refusal = PROM_JOB_OVERDUE;
	else if (job->failures >= FAILURES_ENOUGH && job->refusal == PROM_JOB_RUN)
		job->refusal = PROM_JOB_LOST;
	if (job->dropped || job->failures >= FAILURES_TOO_MANY)
	{
		job->end.failed = !job->dropped;
		strlcpy(job->end.error,
				*job->error != '\0' ? job->error
									: "the process that ran it ended, again and again",
				sizeof(job->end.error));
		end_job(job);
		return;
	}
	if (!overdue)
		job->end.owner->not_before = TimestampTzPlusMilliseconds(now, AGAIN);
	wait_again(job);
}

static void
take_done(Job *job)
{
	PromJob *place = place_at(job->place);

	PROM_FAULT("job-before-take-back");
	job->end.chat_failed = place->chat_failed;
	job->end.retry = place->retry;
	job->end.tokens = place->tokens;
	job->end.delivered = place->delivered;
	job->end.send = place->send && !job->dropped;
	job->end.asks = place->asks ? job->spec.step : 0;
	leave_place(job);
	end_job(job);
}

/* Look at one that runs. */
static void
look_after(Job *job, TimestampTz now)
{
	int number = job->place;
	PromJob *place = place_at(number);

	switch ((PromJobState) pg_atomic_read_u32(&place->state))
	{
		case PROM_JOB_NONE:
			break;
		case PROM_JOB_GIVEN:
			/* To a process that has ended since? */
			if (executor_at(number)->pid == 0 &&
				move_state(place, PROM_JOB_GIVEN, PROM_JOB_NONE))
			{
				leave_place(job);
				wait_again(job);
			}
			return;
		case PROM_JOB_BEGUN:
			if (job->dropped && job->stop_at <= now)
			{
				signal_executor(number, SIGTERM);
				job->stop_at = DT_NOEND;
			}
			return;
		case PROM_JOB_DONE:
			pg_read_barrier();
			take_done(job);
			break;
		case PROM_JOB_FAILED:
			pg_read_barrier();
			take_failed(job, now);
			break;
	}
	pg_atomic_write_u32(&place->state, PROM_JOB_NONE);
}

void
prom_jobs_drive(TimestampTz now)
{
	if (nopen == 0)
		return;
	for (int i = 0; i < PROM_JOB_PLACES; i++)
		if (running[i] != NULL)
			look_after(running[i], now);
	give_waiting(now);
}

static void
drop(Job *job)
{
	int number = job->place;

	if (job->dropped)
		return;
	job->dropped = true;
	pg_atomic_write_u32(&place_at(number)->cancel, 1);
	if (move_state(place_at(number), PROM_JOB_GIVEN, PROM_JOB_NONE))
	{
		leave_place(job);
		end_job(job);
		return;
	}
	signal_executor(number, SIGINT);
	job->stop_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), GRACE);
}

void
prom_jobs_drop(PromJobOwner *owner)
{
	dlist_mutable_iter iter;

	end_waiting(owner);
	if (owner->n == 0)
		return;
	dlist_foreach_modify(iter, &owner->running)
	{
		drop(dlist_container(Job, link, iter.cur));
	}
}

bool
prom_jobs_next_ended(PromJobEnd *end)
{
	Job *job;

	if (dlist_is_empty(&ended))
		return false;
	job = dlist_container(Job, link, dlist_pop_head_node(&ended));
	*end = job->end;
	end->owner->n--;
	pfree(job);
	njobs--;
	return true;
}

/* What waits for an executor is woken by it. */
TimestampTz
prom_jobs_next_moment(void)
{
	TimestampTz next = DT_NOEND;

	/* Some may have been dropped since they were last asked for. */
	if (!dlist_is_empty(&ended))
		return DT_NOBEGIN;
	if (nopen == 0)
		return next;
	if (!dlist_is_empty(&owners))
		next = soonest;
	for (int i = 0; i < PROM_JOB_PLACES; i++)
		if (running[i] != NULL && running[i]->dropped)
			next = Min(next, running[i]->stop_at);
	return next;
}

int
prom_jobs_count(void)
{
	return njobs;
}

/* Is an executor still at a job of the caller before? */
static bool
anything_begun(void)
{
	for (int i = 0; i < PROM_JOB_PLACES; i++)
		if (pg_atomic_read_u32(&place_at(i)->state) == PROM_JOB_BEGUN)
			return true;
	return false;
}

static void
stop_all(int signo)
{
	for (int i = 0; i < PROM_JOB_PLACES; i++)
	{
		PromJob *place = place_at(i);

		pg_atomic_write_u32(&place->cancel, 1);
		(void) move_state(place, PROM_JOB_GIVEN, PROM_JOB_NONE);
		if (pg_atomic_read_u32(&place->state) == PROM_JOB_BEGUN)
			signal_executor(i, signo);
	}
}

/*
 * What cannot be stopped (it waits in a library that looks for no interrupt)
 * keeps its place, and holds up nobody: whoever writes its step second fails.
 */
bool
prom_jobs_begin(void)
{
	TimestampTz start = GetCurrentTimestamp();
	bool ended_them = false;

	pg_atomic_write_u32(&prom_my_database->wanted, 0);
	pg_atomic_write_u32(&prom_my_database->wanted_handlers, 0);
	stop_all(SIGINT);
	while (anything_begun())
	{
		TimestampTz now = GetCurrentTimestamp();

		if (prom_worker_should_end())
			return false;
		if (TimestampDifferenceExceeds(start, now, LONGEST_STOP))
		{
			ereport(LOG, (errmsg("an executor of database \"%s\" cannot be stopped",
								 NameStr(prom_my_database->name)),
						  errdetail("What it runs looks for no interrupt; it keeps its place.")));
			break;
		}
		if (!ended_them && TimestampDifferenceExceeds(start, now, GRACE))
		{
			stop_all(SIGTERM);
			ended_them = true;
		}
		prom_worker_wait(GRACE / 10, "PrometheusCaller");
	}
	for (int i = 0; i < PROM_JOB_PLACES; i++)
		clear_left(i);
	return true;
}
