/*
 * cause.c
 *	  Finds out what an event or a task comes from, and ends circles.
 *
 * In a tool, or a model that is a function, it is its task's first event; else
 * what prometheus.caused_by says.  How many causes there are, one behind the
 * other, is written into each event and each task that has one: who reacts to
 * an event by emitting another one, or by submitting a task whose end he reacts
 * to, comes to an end.
 *
 * An event of a task has as many as its task.  It cannot be found by its id
 * alone, but who acts on one was told of it in this session: by a delivery, or
 * by prometheus_poll().
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "cause.h"
#include "guc.h"
#include "role.h"
#include "version.h"
#include "window.h"
#include "xact.h"

/* The last one that a function was given. */
static int64 told_event = 0;
static int64 told_task = 0;

void
prom_cause_tell(int64 event_id, int64 task_id)
{
	told_event = event_id;
	told_task = task_id;
}

/* The first event of the task that runs. */
static void
find_task(PromCause *cause)
{
	static PromStatement statement = {
		"SELECT t.event_id, t.agent, t.causes FROM prometheus._task t"
		" WHERE t.task_id OPERATOR(pg_catalog.=) $1",
		1,
		{INT8OID},
		NULL,
	};
	Datum value = Int64GetDatum(cause->task_id);
	MemoryContext context = CurrentMemoryContext;

	cause->depth = 1;
	prom_statement_run_now(&statement, &value);
	if (SPI_processed == 0)
		return;
	cause->event_id = prom_row_int64(0, 1);
	cause->agent = MemoryContextStrdup(context, prom_row_text(0, 2));
	if (!prom_row_isnull(0, 3))
		cause->depth = prom_row_int32(0, 3) + 1;
}

/* Of one that is not kept any more nothing is known. */
static void
find_event(PromCause *cause)
{
	static PromStatement statement = {
		"SELECT pg_catalog.max(x.depth) FROM"
		" (SELECT e.depth FROM prometheus._event e"
		"   WHERE e.event_id OPERATOR(pg_catalog.=) $1"
		"  UNION ALL"
		"  SELECT t.causes FROM prometheus._task t"
		"   WHERE t.task_id OPERATOR(pg_catalog.=) $2) x",
		2,
		{INT8OID, INT8OID},
		NULL,
	};
	int64 task_id = cause->event_id == told_event
						? told_task
						: prom_window_task(cause->event_id);
	Datum values[2] = {Int64GetDatum(cause->event_id), Int64GetDatum(task_id)};

	prom_statement_run_now(&statement, values);
	cause->depth = prom_row_isnull(0, 1) ? 1 : prom_row_int32(0, 1) + 1;
}

static void
check_depth(const PromCause *cause, bool is_task)
{
	if (cause->depth <= PROM_MAX_CAUSES)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 is_task
				 ? errmsg("a task has too many causes, one behind the other")
				 : errmsg("an event has too many causes, one behind the other"),
			 errdetail("Event %lld, which causes it, has %d of them; that is the limit.",
					   (long long) cause->event_id, PROM_MAX_CAUSES),
			 errhint("Events that go round in a circle are stopped so: SELECT caused_by FROM prometheus.event follows them.")));
}

void
prom_cause_find(PromCause *cause, bool is_task)
{
	PromOwner before;
	MemoryContext context = CurrentMemoryContext;

	memset(cause, 0, sizeof(*cause));
	cause->task_id = prom_version_task();
	cause->event_id = prom_guc_caused_by();
	if (cause->task_id == 0 && cause->event_id == 0)
		return;
	SPI_connect();
	MemoryContextSwitchTo(context);
	prom_role_become_owner(&before);
	if (cause->task_id != 0)
		find_task(cause);
	else
		find_event(cause);
	prom_role_restore(&before);
	SPI_finish();
	check_depth(cause, is_task);
}
