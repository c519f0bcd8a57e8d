/*
 * publisher.c
 *	  Tells listeners that there is something new, writes marks and checkpoints.
 *	  What was kept for long enough is deleted here, too (retention.c), and
 *	  alerts are raised (alert.c).
 *
 * It is the only process that sends NOTIFY, whose commit takes a lock of the
 * whole cluster: no submit and no task waits for that.  The first change is
 * told at once, then at most one hint a window.  It has no content; who hears
 * it reads prometheus.event.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "alert.h"
#include "distribution.h"
#include "era.h"
#include "fault.h"
#include "live.h"
#include "mark.h"
#include "retention.h"
#include "shmem.h"
#include "span.h"
#include "worker.h"
#include "xact.h"

#define CHANNEL "prometheus_events"

/* At most one hint in this time, and after one that could not be sent, ms. */
#define WINDOW 4
#define WINDOW_AFTER_FAILURE 1000

#define NOTIFY_TIMEOUT "500ms"

/*
 * Between checkpoints while tasks change, and before the first and at the
 * least, ms; and hints after which one is written before its time: what came
 * since the newest one is what a scheduler must read.
 */
#define CHECKPOINT_INTERVAL 300000
#define FIRST_CHECKPOINT 10000
#define CHECKPOINT_HINTS 20000

static bool hint_pending; /* something changed since the last hint */
static TimestampTz next_hint;
static bool checkpoint_pending; /* ... since the last checkpoint */
static TimestampTz next_checkpoint;
static TimestampTz soonest_checkpoint;
static uint64 checkpoint_hints; /* hints at which it is written at once */

/* An error that comes again and again is logged once, until it is another. */
typedef struct Trouble
{
	const char *what; /* cannot be done; NULL: never logged */
	int times;        /* in a row */
	int sqlstate;
} Trouble;

static Trouble no_hint = {.what = "send hints to listeners"};
static Trouble no_mark = {.what = "write marks"};
static Trouble no_look = {.what = "look for alerts"};
static Trouble no_spans = {.what = "write spans of applications"};
static Trouble no_measure;

static void
send_hint(void)
{
	PROM_FAULT("before-notify");
	if (!prom_worker_xact_begin("sending a hint to listeners"))
		proc_exit(0);
	/* The facts are durable already; a hint need not be. */
	SetConfigOption("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE);
	/* Marks and deliveries must not wait for who keeps the lock of NOTIFY. */
	(void) set_config_option("lock_timeout", NOTIFY_TIMEOUT, PGC_SUSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	Async_Notify(CHANNEL, "");
	PROM_FAULT("in-notify");
	prom_xact_commit();
	PROM_FAULT("after-notify");
}

static void
write_checkpoint(void)
{
	uint64 hints = pg_atomic_read_u64(&prom_my_database->ring.head);
	int64 live;

	PROM_FAULT("before-checkpoint");
	SetConfigOption("synchronous_commit", "on", PGC_SUSET, PGC_S_OVERRIDE);
	if (!prom_era_xact_begin("writing a checkpoint of the live tasks"))
		proc_exit(0);
	SPI_connect();
	live = prom_live_checkpoint();
	SPI_finish();
	PROM_FAULT("in-checkpoint");
	prom_xact_commit();
	/* It lists what lives: many of them are written less often. */
	checkpoint_hints = hints + Max(CHECKPOINT_HINTS, live);
	PROM_FAULT("after-checkpoint");
}

/* Is the error on the stack to be logged? */
static bool
is_new(Trouble *trouble)
{
	bool same;

	if (trouble == NULL)
		return true;
	same = trouble->times > 0 && trouble->sqlstate == geterrcode();
	trouble->times++;
	trouble->sqlstate = geterrcode();
	return trouble->what != NULL && !same;
}

static void
is_over(Trouble *trouble)
{
	if (trouble == NULL || trouble->times == 0)
		return;
	if (trouble->what != NULL)
		ereport(LOG, (errmsg("the publisher can %s again", trouble->what),
					  errdetail("It could not %d times in a row.",
								trouble->times)));
	trouble->times = 0;
}

/* Errors are logged and do not end the process; true: it worked. */
static bool
try(void (*act)(void), Trouble *trouble)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool worked = true;

	PG_TRY();
	{
		act();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		LWLockReleaseAll(); /* it may have been in no transaction */
		if (is_new(trouble))
			prom_xact_abort();
		else
			prom_xact_abort_quietly();
		worked = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	if (worked)
		is_over(trouble);
	return worked;
}

static void
publish(TimestampTz now)
{
	bool told = pg_atomic_exchange_u32(&prom_my_database->changed, 0) != 0;

	if (told)
		hint_pending = checkpoint_pending = true;
	if (hint_pending && next_hint <= now)
	{
		told = true;
		hint_pending = !try(send_hint, &no_hint);
		next_hint = TimestampTzPlusMilliseconds(
			GetCurrentTimestamp(),
			hint_pending ? WINDOW_AFTER_FAILURE : WINDOW);
	}
	/* After that transaction: it has been told if subscriptions changed. */
	if (told)
		prom_distribution_changed(now);
	if (prom_distribution_due() <= now && !try(prom_distribution_step, NULL))
		prom_distribution_failed();
	if (prom_span_due(now) <= now && !try(prom_span_write, &no_spans))
		prom_span_failed();
	if (prom_mark_due() <= now)
	{
		prom_alert_facts_changed();
		if (!try(prom_mark_write, &no_mark))
			prom_mark_failed();
	}
	if (checkpoint_pending && checkpoint_hints > 0 &&
		pg_atomic_read_u64(&prom_my_database->ring.head) >= checkpoint_hints)
		next_checkpoint = Min(next_checkpoint, soonest_checkpoint);
	if (checkpoint_pending && next_checkpoint <= now)
	{
		checkpoint_pending = !try(write_checkpoint, NULL);
		next_checkpoint = TimestampTzPlusMilliseconds(now, CHECKPOINT_INTERVAL);
		soonest_checkpoint = TimestampTzPlusMilliseconds(now, FIRST_CHECKPOINT);
	}
	if (prom_retention_due() <= now && !try(prom_retention_step, NULL))
		prom_retention_failed();
	if (prom_alert_measure_due() <= now)
		(void) try(prom_alert_measure, &no_measure);
	if (prom_alert_due() <= now && !try(prom_alert_look, &no_look))
		prom_alert_failed();
}

static long
wait_time(void)
{
	TimestampTz next = prom_retention_due();

	if (hint_pending)
		next = Min(next, next_hint);
	next = Min(next, prom_mark_due());
	next = Min(next, prom_span_due(GetCurrentTimestamp()));
	next = Min(next, prom_alert_due());
	next = Min(next, prom_alert_measure_due());
	next = Min(next, prom_distribution_due());
	if (checkpoint_pending)
		next = Min(next, next_checkpoint);
	return prom_worker_wait_time(next);
}

void
prom_publisher_main(Datum main_arg)
{
	MemoryContext context;

	prom_worker_begin(PROM_PUBLISHER, main_arg);
	if (!prom_worker_xact_begin("looking for the extension"))
		proc_exit(0);
	prom_mark_begin();
	prom_xact_commit();
	context = AllocSetContextCreate(TopMemoryContext, "prometheus publisher",
									ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	hint_pending = checkpoint_pending = true;
	next_hint = GetCurrentTimestamp();
	next_checkpoint = TimestampTzPlusMilliseconds(next_hint, FIRST_CHECKPOINT);
	prom_retention_begin();
	prom_alert_begin();
	prom_distribution_begin();
	while (!prom_worker_should_end())
	{
		publish(GetCurrentTimestamp());
		MemoryContextReset(context);
		prom_worker_wait(wait_time(), "PrometheusPublisher");
	}
	prom_worker_finish();
	while (prom_span_due(0) != DT_NOEND && try(prom_span_write, NULL))
		;
	if (prom_mark_due() != DT_NOEND)
		(void) try(prom_mark_write, NULL);
	if (checkpoint_pending ||
		pg_atomic_read_u32(&prom_my_database->changed) != 0)
		(void) try(write_checkpoint, NULL);
	proc_exit(0);
}
