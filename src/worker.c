/*
 * worker.c
 *	  Begins, pauses and ends the processes of a database, and lists them.
 *
 * A worker takes its role's place in shared memory, connects as the owner of
 * the extension, and sets its session itself: ALTER DATABASE … SET reaches
 * background workers too.  At its end it gives the place back and wakes the
 * launcher, which starts the next one.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/procsignal.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "as_of.h"
#include "compat.h"
#include "extension.h"
#include "fault.h"
#include "guc.h"
#include "guilt.h"
#include "shmem.h"
#include "tally.h"
#include "timer.h"
#include "worker.h"
#include "xact.h"

PromDatabase *prom_my_database = NULL;
PromWorker *prom_my_worker = NULL;

static PromRole my_role;
static int my_place;
static bool finishing = false;

/*
 * What a worker's session must be, whatever was set for database or role.  What
 * is ours alone does not hold for the code of others that an executor runs.
 */
static const struct
{
	const char *name;
	const char *value;
	bool is_ours;
} session_settings[] = {
	{"search_path", "pg_catalog, pg_temp", true},
	{"default_transaction_isolation", "read committed", false},
	{"default_transaction_read_only", "off", false},
	{"default_transaction_deferrable", "off", false},
	{"synchronous_commit", "on", false},
	{"session_replication_role", "origin", false},
	{"statement_timeout", "0", false},
	{"lock_timeout", "10s", true},
	{"idle_in_transaction_session_timeout", "0", false},
#ifdef PROM_HAS_TRANSACTION_TIMEOUT
	{"transaction_timeout", "0", false},
#endif
	{"row_security", "off", true},
	/* Plans are made once, on empty tables, and stay: index plans only. */
	{"plan_cache_mode", "force_generic_plan", true},
	{"enable_indexscan", "on", true},
	{"enable_indexonlyscan", "on", true},
	{"enable_nestloop", "on", true},
	{"enable_seqscan", "off", true},
	{"enable_bitmapscan", "off", true},
	{"enable_hashjoin", "off", true},
	{"enable_mergejoin", "off", true},
	{"max_parallel_workers_per_gather", "0", true},
	{"jit", "off", true},
};

const char *
prom_worker_role_name(PromRole role)
{
	static const char *const names[] = {
		[PROM_SCHEDULER] = "scheduler",
		[PROM_CALLER] = "caller",
		[PROM_PUBLISHER] = "publisher",
		[PROM_EXECUTOR] = "executor",
		[PROM_LAUNCHER] = "launcher",
	};

	return names[role];
}

Datum
prom_worker_argument(int database, int place)
{
	return Int32GetDatum(database * PROM_NPLACES + place);
}

int
prom_worker_places_needed(void)
{
	return 1 + (PROM_EXECUTOR + prom_guc_executors + PROM_HANDLER_EXECUTORS) *
				   Max(list_length(prom_guc_database_names()), 1);
}

/*
 * Between transactions a flag is enough, and what is being written is written;
 * inside one (it may wait for a lock) die() ends it at once.  So it does when
 * the connection waits for a lock on the database.
 */
static bool
is_interruptible(void)
{
	if (finishing || MyProc == NULL) /* the latter: at the very end */
		return false;
	return prom_xact_is_open() ||
		   MyProc->waitStatus == PROC_WAIT_STATUS_WAITING;
}

static void
handle_sigterm(SIGNAL_ARGS)
{
	int save_errno = errno;

	ShutdownRequestPending = true;
	if (is_interruptible())
		die(postgres_signal_arg);
	SetLatch(MyLatch);
	errno = save_errno;
}

/* The server is stopped or another process crashed: no fault of our task. */
static void
handle_sigquit(SIGNAL_ARGS)
{
	prom_guilt_clear();
	SignalHandlerForCrashExit(postgres_signal_arg);
}

static void
leave(int code, Datum arg)
{
	prom_guilt_clear();
	PROM_FAULT("worker-in-leave");
	if (my_role == PROM_CALLER)
		pg_atomic_write_u32(&prom_my_database->caller_state, PROM_CALLER_NONE);
	LWLockReleaseAll();
	LWLockAcquire(prom_shared->lock, LW_EXCLUSIVE);
	prom_my_worker->pid = 0;
	prom_my_worker->latch = NULL;
	prom_my_worker->left_at = GetCurrentTimestamp();
	prom_my_worker->busy = false;
	pg_atomic_write_u32(&prom_my_worker->in_flight, 0);
	LWLockRelease(prom_shared->lock);
	if (my_role == PROM_CALLER)
	{
		/* An end that it committed and told nobody of. */
		prom_shmem_wake_waiters(prom_my_database->oid, NULL, 0);
		prom_shmem_wake(&prom_my_database->worker[PROM_SCHEDULER]);
	}
	if (my_role == PROM_EXECUTOR)
		prom_shmem_wake(&prom_my_database->worker[PROM_CALLER]);
	prom_shmem_wake(&prom_shared->launcher);
}

/* Take the role's place, or end: another process has it, or nobody may. */
static void
take_place(PromRole role)
{
	bool taken;

	my_role = role;
	LWLockAcquire(prom_shared->lock, LW_EXCLUSIVE);
	taken = prom_my_worker->pid != 0 || prom_my_database->holders > 0;
	if (!taken)
	{
		prom_my_worker->pid = MyProcPid;
		prom_my_worker->latch = MyLatch;
		prom_my_worker->started_at = GetCurrentTimestamp();
	}
	LWLockRelease(prom_shared->lock);
	if (taken)
		proc_exit(0);
	before_shmem_exit(leave, (Datum) 0);
}

/* What is ours is only set, so that RESET finds what the database has. */
static void
set_session(void)
{
	for (int i = 0; i < lengthof(session_settings); i++)
		SetConfigOption(session_settings[i].name, session_settings[i].value,
						PGC_SUSET,
						session_settings[i].is_ours ? PGC_S_SESSION
													: PGC_S_OVERRIDE);
}

void
prom_worker_set_plain(void)
{
	for (int i = 0; i < lengthof(session_settings); i++)
		if (session_settings[i].is_ours)
			(void) set_config_option(session_settings[i].name,
									 GetConfigOptionResetString(
										 session_settings[i].name),
									 PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE,
									 true, 0, false);
}

const char *
prom_worker_default_path(void)
{
	return pstrdup(GetConfigOptionResetString("search_path"));
}

void
prom_worker_begin(PromRole role, Datum main_arg)
{
	Oid database;
	Oid owner;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, handle_sigterm);
	pqsignal(SIGQUIT, handle_sigquit);
	BackgroundWorkerUnblockSignals();

	my_place = DatumGetInt32(main_arg) % PROM_NPLACES;
	prom_my_database =
		&prom_shared->databases[DatumGetInt32(main_arg) / PROM_NPLACES];
	prom_my_worker = &prom_my_database->worker[my_place];
	LWLockAcquire(prom_shared->lock, LW_SHARED);
	database = prom_my_database->oid;
	owner = prom_my_database->owner;
	LWLockRelease(prom_shared->lock);
	if (!OidIsValid(database))
		proc_exit(0);
	take_place(role);
	PROM_FAULT("worker-after-place");
	prom_guilt_attach(my_place);

	/* Without an owner only to look whether the extension is there. */
	BackgroundWorkerInitializeConnectionByOid(database, owner,
											  PROM_CONNECT_FLAGS);
	set_session();
	pgstat_report_appname(
		psprintf("prometheus %s", prom_worker_role_name(role)));
	pgstat_report_activity(STATE_IDLE, NULL);
	prom_tally_start(role);
	PROM_FAULT("worker-after-connect");
}

/*
 * Let the launcher know whose the extension is now; InvalidOid: nobody's, or
 * it is of a version that is not ours.  False: of that it knew.
 */
static bool
tell(Oid owner, const char *version)
{
	bool changed;

	LWLockAcquire(prom_shared->lock, LW_EXCLUSIVE);
	/* The other workers are to end as well. */
	if (OidIsValid(prom_my_database->owner) && !OidIsValid(owner))
		prom_my_database->probe = true;
	prom_my_database->owner = owner;
	changed = strcmp(prom_my_database->version, version) != 0;
	strlcpy(prom_my_database->version, version,
			sizeof(prom_my_database->version));
	LWLockRelease(prom_shared->lock);
	prom_shmem_wake(&prom_shared->launcher);
	return changed;
}

/* Nothing is run on objects that this library does not know. */
static void
refuse(const char *version)
{
	char *files;

	if (!tell(InvalidOid, version))
		return;
	files = prom_extension_files();
	ereport(LOG,
			(errmsg("tasks of database \"%s\" do not run: its extension is version %s, the loaded library version %s",
					NameStr(prom_my_database->name), version, PROM_VERSION),
			 errdetail("The installed files are version %s.",
					   files == NULL ? "unknown" : files),
			 errhint("%s", prom_extension_advice(version, files))));
}

bool
prom_worker_xact_begin(const char *activity)
{
	PromExtension extension;

	prom_xact_begin(activity);
	switch (prom_extension_presence(&extension))
	{
		case PROM_PRESENT:
			if (prom_my_database->owner != extension.owner ||
				prom_my_database->version[0] != '\0')
				(void) tell(extension.owner, "");
			return true;
		case PROM_OTHER:
			prom_xact_commit();
			(void) tell(extension.owner, "");
			proc_exit(0);
		case PROM_OTHER_VERSION:
			refuse(extension.version);
			prom_xact_commit();
			proc_exit(0);
		case PROM_ABSENT:
			prom_xact_commit();
			(void) tell(InvalidOid, "");
			proc_exit(0);
	}
	return false;
}

/* No lock: the launcher's wake-up follows, and in a second its signal. */
static bool
is_asked_to_end(void)
{
	volatile PromDatabase *db = prom_my_database;

	return db->probe || db->holders > 0;
}

bool
prom_worker_should_end(void)
{
	if (ShutdownRequestPending || is_asked_to_end())
		return true;
	/* There is no statement to cancel here. */
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	return false;
}

void
prom_worker_finish(void)
{
	finishing = true;
	SetConfigOption("lock_timeout", "500ms", PGC_SUSET, PGC_S_SESSION);
}

long
prom_worker_wait_time(TimestampTz until)
{
	if (until == DT_NOEND)
		return -1;
	/* Not by the server's function: in 15 the beginning of time is ahead. */
	return prom_timer_wait(GetCurrentTimestamp(), until);
}

long
prom_worker_sooner(long a, long b)
{
	if (a < 0 || b < 0)
		return Max(a, b);
	return Min(a, b);
}

long
prom_worker_wait_limit(long ms)
{
	return prom_worker_sooner(ms, prom_worker_wait_time(
									  prom_xact_statistics_due()));
}

void
prom_worker_wait(long ms, const char *event)
{
	static uint32 wait_event = 0;
	int wake = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

	ms = prom_worker_wait_limit(ms);
	if (ms >= 0)
		wake |= WL_TIMEOUT;
	if (wait_event == 0)
		wait_event = prom_wait_event_new(event);
	prom_my_worker->busy = false;
	prom_tally_wait();
	(void) WaitLatch(MyLatch, wake, ms, wait_event);
	prom_tally_wake();
	ResetLatch(MyLatch);
	prom_xact_send_statistics();
	prom_my_worker->busy = true;
}

static void
put_worker(ReturnSetInfo *result, PromRole role, PromWorker *worker,
		   const PromJob *job)
{
	Datum values[6];
	bool nulls[6] = {false};

	values[0] = CStringGetTextDatum(prom_worker_role_name(role));
	values[1] = Int32GetDatum(worker->pid);
	values[2] = CStringGetTextDatum(worker->busy ? "busy" : "idle");
	values[3] = TimestampTzGetDatum(worker->started_at);
	values[4] = Int32GetDatum((int32) pg_atomic_read_u32(&worker->in_flight));
	nulls[5] = job == NULL ||
			   pg_atomic_read_u32(&worker->in_flight) == 0;
	values[5] = nulls[5] ? (Datum) 0 : Int64GetDatum(job->task_id);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

PG_FUNCTION_INFO_V1(prom_worker);

/* The launcher and the processes of this database. */
Datum
prom_worker(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	PromDatabase *db = prom_shmem_database(MyDatabaseId);
	PromWorker copies[PROM_NPLACES];
	PromWorker launcher;
	int ncopies = 0;

	prom_as_of_forbid_reading("prometheus.worker");
	InitMaterializedSRF(fcinfo, 0);
	if (prom_shared == NULL)
		return (Datum) 0;
	LWLockAcquire(prom_shared->lock, LW_SHARED);
	if (db != NULL)
		for (ncopies = 0; ncopies < PROM_NPLACES; ncopies++)
			copies[ncopies] = db->worker[ncopies];
	launcher = prom_shared->launcher;
	LWLockRelease(prom_shared->lock);
	if (launcher.pid != 0)
		put_worker(result, PROM_LAUNCHER, &launcher, NULL);
	for (int i = 0; i < ncopies; i++)
		if (copies[i].pid != 0)
			put_worker(result, PROM_ROLE_OF(i), &copies[i],
					   i >= PROM_EXECUTOR ? &db->jobs[i - PROM_EXECUTOR]
										  : NULL);
	return (Datum) 0;
}
