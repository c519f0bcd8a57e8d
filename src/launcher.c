/*
 * launcher.c
 *	  Starts and watches the processes of each database that is served.
 *
 * It connects to no database, only to the shared catalogues, so it holds up
 * no DROP DATABASE; for that the workers are stopped (utility.c).  A process
 * that ends wakes it and is started again at once; one that lived for less
 * than a second waits, twice as long each time.  What is not there yet is not
 * an error: a database is looked for again when transactions have ended
 * meanwhile, an extension when a transaction that made, changed or dropped one
 * has committed (wakeup.c) or the configuration is reloaded.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "fault.h"
#include "gate.h"
#include "guc.h"
#include "guilt.h"
#include "launcher.h"
#include "metric.h"
#include "shmem.h"
#include "span.h"
#include "vital.h"
#include "worker.h"

/* How often to look for what was not there, if transactions ended, ms. */
#define LOOK_AGAIN 5000

/* A child that lived for less than this is not started again at once, ms. */
#define SHORT_LIFE 1000
#define LONGEST_WAIT 60000

/* What the launcher knows of a child beside what is in shared memory. */
typedef struct Child
{
	BackgroundWorkerHandle *handle; /* NULL: not started by this launcher */
	TimestampTz started_at;
	TimestampTz not_before;
	int wait; /* ms; doubles with each short life */
} Child;

typedef struct Served
{
	bool wanted; /* in prometheus.databases */
	bool missing_logged;
	bool limit_logged;
	TimestampTz asked_at; /* when workers were asked to end; 0: not now */
	bool gone;            /* the database that is served does not exist */
	bool stopping;        /* until no child is left */
	bool probed;          /* looked, and the extension was not there */
	Child children[PROM_NPLACES];
} Served;

static Served *served; /* by the number of the entry in shared memory */
static bool must_look; /* a child ended early: is its database there? */
static TimestampTz last_look;
static uint64 transactions_at_look;

void
prom_launcher_register(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
					   BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "prometheus",
			sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "prom_launcher_main",
			sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "prometheus launcher", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "prometheus launcher", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}

static bool
start_child(PromDatabase *db, Child *child, int place)
{
	BackgroundWorker worker = {0};
	const char *name = prom_worker_role_name(PROM_ROLE_OF(place));
	MemoryContext before;
	bool started;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
					   BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg =
		prom_worker_argument(db - prom_shared->databases, place);
	strlcpy(worker.bgw_library_name, "prometheus",
			sizeof(worker.bgw_library_name));
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name),
			 "prom_%s_main", name);
	snprintf(worker.bgw_name, sizeof(worker.bgw_name),
			 "prometheus %s of database \"%s\"", name, NameStr(db->name));
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "prometheus %s", name);
	child->started_at = GetCurrentTimestamp();
	/* The handle outlives the turn. */
	before = MemoryContextSwitchTo(TopMemoryContext);
	PROM_FAULT("launcher-before-start");
	started = RegisterDynamicBackgroundWorker(&worker, &child->handle);
	PROM_FAULT("launcher-after-start");
	MemoryContextSwitchTo(before);
	return started;
}

/* Notice the end of a child; true while there is one, if only beginning. */
static bool
child_lives(PromDatabase *db, Child *child, int place, TimestampTz now)
{
	pid_t pid;

	if (child->handle == NULL)
		return db->worker[place].pid != 0; /* an earlier launcher's */
	if (GetBackgroundWorkerPid(child->handle, &pid) != BGWH_STOPPED)
		return true;
	pfree(child->handle);
	child->handle = NULL;
	if (TimestampDifferenceExceeds(child->started_at, now, SHORT_LIFE))
	{
		child->wait = 0;
		child->not_before = now;
		return db->worker[place].pid != 0;
	}
	must_look = true;
	child->wait = child->wait == 0 ? SHORT_LIFE
								   : Min(2 * child->wait, LONGEST_WAIT);
	child->not_before = TimestampTzPlusMilliseconds(now, child->wait);
	return db->worker[place].pid != 0;
}

/*
 * It is asked first where it looks (prom_worker_should_end), so that what it is
 * about is not cut off with an error.
 */
static void
stop_child(PromDatabase *db, Child *child, int place, bool ask)
{
	pid_t pid = db->worker[place].pid;

	if (ask)
	{
		prom_shmem_wake(&db->worker[place]);
		return;
	}
	if (child->handle != NULL)
		TerminateBackgroundWorker(child->handle);
	else if (pid != 0)
		kill(pid, SIGTERM);
}

/*
 * How many executors should run that do not: for jobs that wait.  Those that
 * have nothing to do end by themselves.
 */
static int
executors_missing(PromDatabase *db, Served *mine, bool handlers,
				  TimestampTz now)
{
	int wanted = handlers ? Min(pg_atomic_read_u32(&db->wanted_handlers),
								PROM_HANDLER_EXECUTORS)
						  : Min(pg_atomic_read_u32(&db->wanted),
								prom_guc_executors);
	int first = PROM_EXECUTOR + (handlers ? PROM_MAX_EXECUTORS : 0);
	int beyond = handlers ? PROM_NPLACES : PROM_EXECUTOR + PROM_MAX_EXECUTORS;

	for (int place = first; place < beyond; place++)
		if (child_lives(db, &mine->children[place], place, now))
			wanted--;
	return Max(wanted, 0);
}

/* Start what should run and does not; when to look again. */
static TimestampTz
keep_children(PromDatabase *db, Served *mine, TimestampTz now)
{
	TimestampTz next = DT_NOEND;
	int missing[2] = {executors_missing(db, mine, false, now),
					  executors_missing(db, mine, true, now)};

	for (int place = 0; place < PROM_NPLACES; place++)
	{
		Child *child = &mine->children[place];
		bool handlers = place >= PROM_EXECUTOR + PROM_MAX_EXECUTORS;

		if (place >= PROM_EXECUTOR && missing[handlers] == 0)
			continue;
		if (child_lives(db, child, place, now))
			continue;
		if (!OidIsValid(db->owner) && (place != PROM_SCHEDULER || mine->probed))
			continue;
		if (place >= PROM_EXECUTOR)
			missing[handlers]--;
		if (child->not_before > now)
		{
			next = Min(next, child->not_before);
			continue;
		}
		if (start_child(db, child, place))
		{
			if (!OidIsValid(db->owner))
				mine->probed = true;
			mine->limit_logged = false;
			continue;
		}
		if (!mine->limit_logged)
			ereport(WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("could not start the prometheus %s of database \"%s\"",
							prom_worker_role_name(PROM_ROLE_OF(place)),
							NameStr(db->name)),
					 errdetail("All of the %d places for background workers are taken.",
							   max_worker_processes),
					 errhint("Raise max_worker_processes (16 suits one database) and restart.")));
		mine->limit_logged = true;
		next = Min(next, TimestampTzPlusMilliseconds(now, SHORT_LIFE));
	}
	return next;
}

/*
 * End every child of a database; true when none is left.  One that sees itself
 * that it is to end has a moment for it.
 */
static bool
stop_children(PromDatabase *db, Served *mine, TimestampTz now)
{
	bool any = false;
	bool ask = db->probe || db->holders > 0;

	if (mine->asked_at == 0)
		mine->asked_at = now;
	if (TimestampDifferenceExceeds(mine->asked_at, now, SHORT_LIFE))
		ask = false;
	for (int place = 0; place < PROM_NPLACES; place++)
	{
		Child *child = &mine->children[place];

		if (!child_lives(db, child, place, now))
		{
			child->wait = 0;
			child->not_before = now;
			continue;
		}
		stop_child(db, child, place, ask);
		any = true;
	}
	if (!any)
		mine->asked_at = 0;
	return !any;
}

/*
 * What is in shared memory may be about tasks that are no more, while others
 * get their ids.  No worker is there; a scheduler reads the table when it
 * starts, so that no hint is missed.
 */
static void
forget_tasks(PromDatabase *db)
{
	PromHint hint;

	for (int i = 0; i < prom_guc_max_in_flight; i++)
	{
		pg_atomic_write_u32(&db->slots[i].cancel, 0);
		pg_atomic_write_u32(&db->slots[i].state, PROM_SLOT_FREE);
	}
	while (prom_ring_pop(&db->ring, &hint))
		;
	pg_atomic_write_u32(&db->wanted, 0);
	pg_atomic_write_u32(&db->wanted_handlers, 0);
	for (int i = 0; i < PROM_JOB_PLACES; i++)
		pg_atomic_write_u32(&db->jobs[i].state, PROM_JOB_NONE);
	prom_gate_reset(db);
	prom_metric_reset(db);
	pg_atomic_write_u32(&db->marks.relation, 0);
	pg_atomic_write_u32(&db->marks.changed, 0);
	pg_atomic_write_u64(&db->marks.failing_since, 0);
	prom_vital_forget(db);
}

static void
forget_database(PromDatabase *db)
{
	PROM_FAULT("launcher-before-forget");
	forget_tasks(db);
	prom_span_forget(&db->spans);
	LWLockAcquire(prom_shared->lock, LW_EXCLUSIVE);
	db->oid = InvalidOid;
	db->owner = InvalidOid;
	db->version[0] = '\0';
	db->probe = false;
	LWLockRelease(prom_shared->lock);
}

static bool
has_holders(PromDatabase *db)
{
	bool any;

	LWLockAcquire(prom_shared->lock, LW_SHARED);
	any = db->holders > 0;
	LWLockRelease(prom_shared->lock);
	return any;
}

/* Keep the workers away for a statement (utility.c).  When to look again. */
static TimestampTz
hold(PromDatabase *db, Served *mine, TimestampTz now)
{
	if (!stop_children(db, mine, now))
		return TimestampTzPlusMilliseconds(now, SHORT_LIFE);
	if (!db->held)
	{
		LWLockAcquire(prom_shared->lock, LW_EXCLUSIVE);
		db->held = true;
		LWLockRelease(prom_shared->lock);
		ConditionVariableBroadcast(&prom_shared->stopped);
	}
	return DT_NOEND;
}

/*
 * Go on with what no statement holds any more, if it is still there.  Who
 * wants to hold it from now on must wait until its workers are stopped again.
 */
static void
release_databases(void)
{
	LWLockAcquire(prom_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < prom_shared->ndatabases; i++)
	{
		PromDatabase *db = &prom_shared->databases[i];

		if (!db->held || db->holders > 0)
			continue;
		db->held = false;
		must_look = true;
	}
	LWLockRelease(prom_shared->lock);
	PROM_FAULT("launcher-after-forget");
}

/* One database: begin, go on, or end serving it.  When to look again. */
static TimestampTz
serve(PromDatabase *db, Served *mine, TimestampTz now)
{
	if (!OidIsValid(db->oid))
		return DT_NOEND;
	if (has_holders(db))
		return hold(db, mine, now);
	if (!mine->wanted || mine->gone || db->probe)
		mine->stopping = true;
	if (mine->stopping)
	{
		if (!stop_children(db, mine, now))
			return TimestampTzPlusMilliseconds(now, SHORT_LIFE);
		mine->stopping = false;
		mine->probed = false;
		if (!mine->wanted || mine->gone)
		{
			/* Another one may have its name. */
			must_look = must_look || mine->gone;
			mine->gone = false;
			forget_database(db);
			return now;
		}
		forget_tasks(db);
		db->owner = InvalidOid;
		db->probe = false;
	}
	mine->asked_at = 0;
	return keep_children(db, mine, now);
}

static PromDatabase *
entry_of(const char *name)
{
	PromDatabase *unused = NULL;

	for (int i = 0; i < prom_shared->ndatabases; i++)
	{
		PromDatabase *db = &prom_shared->databases[i];

		if (strcmp(NameStr(db->name), name) == 0)
			return db;
		if (unused == NULL && !OidIsValid(db->oid) && !served[i].wanted)
			unused = db;
	}
	if (unused != NULL)
	{
		LWLockAcquire(prom_shared->lock, LW_EXCLUSIVE);
		namestrcpy(&unused->name, name);
		LWLockRelease(prom_shared->lock);
	}
	return unused;
}

/* Read prometheus.databases: which entries are wanted. */
static void
read_setting(void)
{
	List *names = prom_guc_database_names();
	ListCell *cell;

	for (int i = 0; i < prom_shared->ndatabases; i++)
		served[i].wanted = false;
	foreach(cell, names)
	{
		PromDatabase *db = entry_of((char *) lfirst(cell));

		if (db != NULL)
			served[db - prom_shared->databases].wanted = true;
		else
			ereport(WARNING, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
							  errmsg("database \"%s\" is not served",
									 (char *) lfirst(cell)),
							  errdetail("prometheus.max_databases is %d.",
										prom_guc_max_databases),
							  errhint("Raise it and restart.")));
	}
}

/* By reading it all: without a database of its own it may have no indexes. */
static Oid
find_database(const char *name)
{
	Relation relation = table_open(DatabaseRelationId, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(relation, 0, NULL);
	HeapTuple tuple;
	Oid found = InvalidOid;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		if (strcmp(NameStr(database->datname), name) == 0 &&
			database->datallowconn &&
			database->datconnlimit >= -1) /* -2: half dropped */
			found = database->oid;
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	return found;
}

/*
 * Find the wanted databases that are not known yet, drop those that are gone.
 */
static void
look_for_databases(void)
{
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	for (int i = 0; i < prom_shared->ndatabases; i++)
	{
		PromDatabase *db = &prom_shared->databases[i];
		Oid oid;

		if (!served[i].wanted)
			continue;
		oid = find_database(NameStr(db->name));
		if (!OidIsValid(oid) && !served[i].missing_logged)
			ereport(LOG,
					(errmsg("database \"%s\" in prometheus.databases does not exist; waiting for it",
							NameStr(db->name))));
		served[i].missing_logged = !OidIsValid(oid);
		served[i].gone = OidIsValid(db->oid) && db->oid != oid;
		/* A renamed one is first forgotten by its old name. */
		if (!OidIsValid(db->oid) && OidIsValid(oid) &&
			prom_shmem_database(oid) == NULL)
		{
			served[i].probed = false;
			LWLockAcquire(prom_shared->lock, LW_EXCLUSIVE);
			db->oid = oid;
			for (int place = 0; place < PROM_NPLACES; place++)
				db->worker[place].left_at = GetCurrentTimestamp();
			LWLockRelease(prom_shared->lock);
		}
	}
	CommitTransactionCommand();
	must_look = false;
	last_look = GetCurrentTimestamp();
	transactions_at_look = prom_xact_completion_count();
}

/* Is a database that is wanted not there? */
static bool
anything_missing(void)
{
	for (int i = 0; i < prom_shared->ndatabases; i++)
		if (served[i].wanted && !OidIsValid(prom_shared->databases[i].oid))
			return true;
	return false;
}

static void
leave(int code, Datum arg)
{
	LWLockReleaseAll();
	LWLockAcquire(prom_shared->lock, LW_EXCLUSIVE);
	prom_shared->launcher.pid = 0;
	prom_shared->launcher.latch = NULL;
	LWLockRelease(prom_shared->lock);
}

static void
begin(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	before_shmem_exit(leave, (Datum) 0);
	LWLockAcquire(prom_shared->lock, LW_EXCLUSIVE);
	prom_shared->launcher.pid = MyProcPid;
	prom_shared->launcher.latch = MyLatch;
	prom_shared->launcher.started_at = GetCurrentTimestamp();
	LWLockRelease(prom_shared->lock);
	served = MemoryContextAllocZero(TopMemoryContext,
									prom_shared->ndatabases * sizeof(Served));
	prom_guilt_create();
	pgstat_report_appname("prometheus launcher");
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* One turn; milliseconds until the next, -1: only when woken. */
static long
turn(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = DT_NOEND;

	release_databases();
	if (must_look || prom_shared->look)
	{
		prom_shared->look = false;
		look_for_databases();
	}
	if (anything_missing())
	{
		if (TimestampDifferenceExceeds(last_look, now, LOOK_AGAIN) &&
			transactions_at_look != prom_xact_completion_count())
			look_for_databases();
		next = TimestampTzPlusMilliseconds(now, LOOK_AGAIN);
	}
	for (int i = 0; i < prom_shared->ndatabases; i++)
	{
		/* Not within Min(), which would do it twice. */
		TimestampTz wanted = serve(&prom_shared->databases[i], &served[i], now);

		next = Min(next, wanted);
	}
	return prom_worker_wait_time(next);
}

void
prom_launcher_main(Datum main_arg)
{
	uint32 wait_event;
	MemoryContext context;

	begin();
	wait_event = prom_wait_event_new("PrometheusLauncher");
	context = AllocSetContextCreate(TopMemoryContext, "prometheus launcher",
									ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(context);
	read_setting();
	look_for_databases();
	while (!ShutdownRequestPending)
	{
		long ms = turn();

		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
							 (ms >= 0 ? WL_TIMEOUT : 0),
						 ms, wait_event);
		ResetLatch(MyLatch);
		/* There is no statement to cancel. */
		QueryCancelPending = false;
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			read_setting();
			look_for_databases();
			for (int i = 0; i < prom_shared->ndatabases; i++)
				served[i].probed = false;
		}
	}
	/* Not 0: if only it was ended and not the server, it starts again. */
	proc_exit(1);
}
