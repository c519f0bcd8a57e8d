/*
 * result.c
 *	  Waits for the end of a task and says how it ended.
 *
 * A waiter announces itself in shared memory and then looks at the table; the
 * caller process commits an outcome and then looks for waiters.  So one of
 * the two sees the end, and nobody polls.  Each look takes a snapshot of its
 * own: the end is seen in a REPEATABLE READ transaction too.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "as_of.h"
#include "compat.h"
#include "errcodes.h"
#include "guc.h"
#include "shmem.h"
#include "span.h"
#include "task.h"
#include "timer.h"
#include "wakeup.h"
#include "xact.h"

/* How often a waiter looks although nobody told it to, ms. */
#define LOOK_ANYWAY 60000

static PromStatement end_statement = {
	"SELECT status, result, error, error_type FROM prometheus.task"
	" WHERE task_id OPERATOR(pg_catalog.=) $1",
	1,
	{INT8OID},
	NULL,
};

static char *
column_text(int column, MemoryContext context)
{
	char *text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
							  column);

	return text == NULL ? NULL : MemoryContextStrdup(context, text);
}

void
prom_task_end(int64 task_id, PromTaskEnd *end)
{
	MemoryContext context = CurrentMemoryContext;
	Datum values[1] = {Int64GetDatum(task_id)};
	int result;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (end_statement.plan == NULL)
	{
		SPIPlanPtr plan = SPI_prepare(end_statement.sql, 1,
									  end_statement.argtypes);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare \"%s\"", end_statement.sql);
		end_statement.plan = plan;
	}
	result = SPI_execute_snapshot(end_statement.plan, values, NULL,
								  GetLatestSnapshot(), InvalidSnapshot, true,
								  false, 1);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "could not read task: %s", SPI_result_code_string(result));
	if (SPI_processed == 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("task %lld does not exist", (long long) task_id),
						errdetail("There is none, or you may not see it.")));
	end->status = column_text(1, context);
	end->result = column_text(2, context);
	end->error = column_text(3, context);
	end->error_type = column_text(4, context);
	end->ended = strcmp(end->status, "queued") != 0 &&
				 strcmp(end->status, "running") != 0 &&
				 strcmp(end->status, "waiting") != 0 &&
				 strcmp(end->status, "retrying") != 0;
	SPI_finish();
}

/* Raise what ended the task, unless it was completed. */
static void
raise_end(int64 task_id, const PromTaskEnd *end)
{
	int code = ERRCODE_PROM_TASK_FAILED;

	if (strcmp(end->status, "completed") == 0)
		return;
	if (strcmp(end->status, "vetoed") == 0)
		code = ERRCODE_PROM_TASK_VETOED;
	else if (strcmp(end->status, "cancelled") == 0)
		code = ERRCODE_PROM_TASK_CANCELLED;
	else if (strcmp(end->status, "quarantined") == 0)
		code = ERRCODE_PROM_TASK_QUARANTINED;
	ereport(ERROR,
			(errcode(code),
			 errmsg("%s", end->error != NULL ? end->error : end->status),
			 end->error_type != NULL
				 ? errdetail("Task %lld %s%s: %s.", (long long) task_id,
							 code == ERRCODE_PROM_TASK_FAILED ? "" : "was ",
							 end->status, end->error_type)
				 : errdetail("Task %lld was %s.", (long long) task_id,
							 end->status),
			 errhint("SELECT * FROM prometheus.event WHERE task_id = %lld shows what happened.",
					 (long long) task_id)));
}

static void
stop_waiting(int code, Datum arg)
{
	PromWaiter *me = (PromWaiter *) DatumGetPointer(arg);

	pg_atomic_write_u64(&me->task_id, 0);
	me->latch = NULL;
	pg_atomic_fetch_sub_u32(&prom_shared->waiting, 1);
}

/* Sleep until somebody says that the task has ended, or until. */
static void
sleep_until_told(PromWaiter *me, TimestampTz until)
{
	while (pg_atomic_read_u32(&me->ended) == 0)
	{
		long timeout = prom_timer_wait(GetCurrentTimestamp(), until);

		if (timeout <= 0)
			return;
		/* Look-ups in the catalogue leave a snapshot behind, and its xmin. */
		InvalidateCatalogSnapshotConditionally();
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(timeout, LOOK_ANYWAY), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (timeout > LOOK_ANYWAY)
			return;
	}
}

/* Wait for the end of a task, but not beyond a moment. */
static void
wait_for_end(int64 task_id, TimestampTz until, PromTaskEnd *end)
{
	PromWaiter *me;

	prom_task_end(task_id, end);
	if (end->ended || prom_shared == NULL)
		return;

	me = &prom_shared->waiters[prom_my_proc_number()];
	me->database = MyDatabaseId;
	me->latch = MyLatch;
	pg_atomic_write_u32(&me->ended, 0);
	pg_atomic_write_u64(&me->task_id, (uint64) task_id);
	pg_atomic_fetch_add_u32(&prom_shared->waiting, 1);

	PG_ENSURE_ERROR_CLEANUP(stop_waiting, PointerGetDatum(me));
	{
		for (;;)
		{
			pg_atomic_write_u32(&me->ended, 0);
			pg_memory_barrier();
			prom_task_end(task_id, end);
			if (end->ended || GetCurrentTimestamp() >= until)
				break;
			sleep_until_told(me, until);
		}
	}
	PG_END_ENSURE_ERROR_CLEANUP(stop_waiting, PointerGetDatum(me));
	stop_waiting(0, PointerGetDatum(me));
}

/* Now and an interval; null means for ever. */
static TimestampTz
moment_after(FunctionCallInfo fcinfo, int argument)
{
	if (PG_ARGISNULL(argument))
		return DT_NOEND;
	return prom_task_moment_after(PG_GETARG_INTERVAL_P(argument));
}

PG_FUNCTION_INFO_V1(prom_wait);

Datum
prom_wait(PG_FUNCTION_ARGS)
{
	int64 task_id;
	PromTaskEnd end;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("task_id must not be null")));
	task_id = PG_GETARG_INT64(0);
	prom_as_of_forbid_reading("prometheus_wait()");
	if (prom_wakeup_is_pending(task_id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("task %lld is not committed yet", (long long) task_id),
				 errdetail("The current transaction submitted it; it can only run after the commit."),
				 errhint("Commit first and then wait, or use CALL prometheus_ask(…).")));
	wait_for_end(task_id, moment_after(fcinfo, 1), &end);
	PG_RETURN_TEXT_P(cstring_to_text(end.status));
}

PG_FUNCTION_INFO_V1(prom_result);

Datum
prom_result(PG_FUNCTION_ARGS)
{
	int64 task_id = PG_GETARG_INT64(0);
	PromTaskEnd end;

	prom_task_end(task_id, &end);
	if (!end.ended)
		PG_RETURN_NULL();
	raise_end(task_id, &end);
	if (end.result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(end.result));
}

static void
require_nonatomic(FunctionCallInfo fcinfo)
{
	bool atomic = !(fcinfo->context != NULL &&
					IsA(fcinfo->context, CallContext) &&
					!castNode(CallContext, fcinfo->context)->atomic);

	if (atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("prometheus_ask() cannot be called in a transaction block"),
				 errdetail("It commits the task, so that workers can see it, and waits for its end."),
				 errhint("In a transaction use SELECT prometheus_submit(…), commit, and read prometheus_result(…).")));
}

static pg_noreturn void
raise_no_answer(int64 task_id, const char *status)
{
	const char *hint = psprintf("It goes on: SELECT prometheus_wait(%lld); SELECT prometheus_result(%lld);",
								(long long) task_id, (long long) task_id);

	if (prom_shared == NULL)
		hint = "Nothing runs it: add to postgresql.conf: shared_preload_libraries = 'prometheus', and restart.";
	else if (prom_shmem_database(MyDatabaseId) == NULL)
		hint = psprintf("Nothing runs it: %s",
						prom_guc_serve_hint(get_database_name(MyDatabaseId)));
	ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED),
					errmsg("no answer in time"),
					errdetail("Task %lld is %s.", (long long) task_id, status),
					errhint("%s", hint)));
	pg_unreachable();
}

PG_FUNCTION_INFO_V1(prom_ask);

/*
 * Submit, commit, wait and answer.  After the commit no snapshot is held, so
 * an answer that takes hours holds up no vacuum.
 */
Datum
prom_ask(PG_FUNCTION_ARGS)
{
	PromSubmit submit = {0};
	MemoryContext context = CurrentMemoryContext;
	TimestampTz until;
	int64 task_id;
	PromTaskEnd end;
	TupleDesc desc;
	Datum value;
	bool isnull = false;

	require_nonatomic(fcinfo);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "prometheus_ask() must have one INOUT argument");
	submit.request = PG_ARGISNULL(0) ? NULL
									 : text_to_cstring(PG_GETARG_TEXT_PP(0));
	submit.agent = PG_ARGISNULL(1) ? NULL
								   : text_to_cstring(PG_GETARG_TEXT_PP(1));
	submit.timeout = -1;
	submit.traceparent = prom_span_current();
	until = moment_after(fcinfo, 2);

	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	task_id = prom_task_submit(&submit);
	SPI_commit();
	MemoryContextSwitchTo(context);

	wait_for_end(task_id, until, &end);
	if (!end.ended)
		raise_no_answer(task_id, end.status);
	raise_end(task_id, &end);
	SPI_finish();

	value = CStringGetTextDatum(end.result != NULL ? end.result : "");
	PG_RETURN_DATUM(HeapTupleGetDatum(
		heap_form_tuple(BlessTupleDesc(desc), &value, &isnull)));
}
