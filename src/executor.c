/*
 * executor.c
 *	  Runs the code of others for tasks: one job at a time, in a process that
 *	  is started when there are jobs and ends when there have been none.
 *
 * A job is one transaction, whose rows say what came of it: if that does not
 * commit, nothing has happened, and the caller gives the job again.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#include "act.h"
#include "encoding.h"
#include "fault.h"
#include "guard.h"
#include "guc.h"
#include "guilt.h"
#include "shmem.h"
#include "span.h"
#include "worker.h"
#include "xact.h"

/* Without a job for this long it ends, ms. */
#define IDLE_END 60000

static PromJob *job; /* this process's place */
static int number;   /* of it */
static volatile bool overdue;
static MemoryContext job_context;

/* Also after an error that ends the process: then nothing is there of it. */
static void
leave_job(int code, Datum arg)
{
	uint32 begun = PROM_JOB_BEGUN;

	job->overdue = overdue;
	(void) pg_atomic_compare_exchange_u32(&job->state, &begun, PROM_JOB_FAILED);
}

static void
keep_error(void)
{
	const char *message;
	int length;

	MemoryContextSwitchTo(job_context);
	message = CopyErrorData()->message;
	if (message == NULL)
		message = "";
	/* A step may quote it: no half of a character. */
	length = prom_encoding_clip(message, strlen(message), PROM_JOB_ERROR - 1);
	memcpy(job->error, message, length);
	job->error[length] = '\0';
}

/* True: its step is there. */
static bool
run(void)
{
	volatile bool done = false;

	PG_TRY();
	{
		if (!prom_worker_xact_begin("running the code of a task"))
			proc_exit(0);
		SPI_connect();
		MemoryContextSwitchTo(job_context);
		prom_guilt_name(job->kind == PROM_JOB_DELIVER ? -job->delivery_id
													  : job->task_id,
						job->step);
		prom_act(job);
		prom_guilt_clear();
		SPI_finish();
		PROM_FAULT("job-before-commit");
		prom_xact_commit();
		PROM_FAULT("job-after-commit");
		done = true;
	}
	PG_CATCH();
	{
		prom_guilt_clear();
		keep_error();
		prom_xact_abort();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(job_context);
	return done;
}

/* Is there a job?  Then it has been done, or has failed. */
static bool
work(void)
{
	uint32 given = PROM_JOB_GIVEN;
	bool done;

	if (!pg_atomic_compare_exchange_u32(&job->state, &given, PROM_JOB_BEGUN))
		return false;
	pg_read_barrier();
	overdue = false;
	/* One that is late was for the job before; that of this one is a flag. */
	QueryCancelPending = false;
	prom_my_worker->busy = true;
	pg_atomic_write_u32(&prom_my_worker->in_flight, 1);
	PROM_FAULT("job-begun");
	done = run();
	prom_span_end_all();
	MemoryContextReset(job_context);
	pg_atomic_write_u32(&prom_my_worker->in_flight, 0);
	pg_write_barrier();
	pg_atomic_write_u32(&job->state, done ? PROM_JOB_DONE : PROM_JOB_FAILED);
	prom_shmem_wake(&prom_my_database->worker[PROM_CALLER]);
	if (done)
	{
		pg_atomic_write_u32(&prom_my_database->changed, 1);
		prom_shmem_wake(&prom_my_database->worker[PROM_PUBLISHER]);
	}
	return true;
}

static void
begin(Datum main_arg)
{
	prom_worker_begin(PROM_EXECUTOR, main_arg);
	number = prom_my_worker - &prom_my_database->worker[PROM_EXECUTOR];
	job = &prom_my_database->jobs[number];
	before_shmem_exit(leave_job, (Datum) 0);
	if (!prom_worker_xact_begin("looking for the extension"))
		proc_exit(0);
	prom_xact_commit();
	job_context = AllocSetContextCreate(TopMemoryContext, "prometheus job",
										ALLOCSET_DEFAULT_SIZES);
	prom_guard_init(&overdue);
	prom_guilt_begin();
	prom_shmem_wake(&prom_my_database->worker[PROM_CALLER]);
}

void
prom_executor_main(Datum main_arg)
{
	TimestampTz idle_since;

	begin(main_arg);
	idle_since = GetCurrentTimestamp();
	while (!prom_worker_should_end())
	{
		TimestampTz end;

		if (work())
		{
			idle_since = GetCurrentTimestamp();
			continue;
		}
		end = number >= prom_guc_executors && number < PROM_MAX_EXECUTORS
				  ? idle_since
				  : TimestampTzPlusMilliseconds(idle_since, IDLE_END);
		if (end <= GetCurrentTimestamp())
			break;
		prom_worker_wait(prom_worker_wait_time(end), "PrometheusExecutor");
	}
	proc_exit(0);
}
