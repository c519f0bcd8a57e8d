/*
 * task.c
 *	  Lets a submitter cancel a task, or have it tried again.
 *
 * Both are facts of their own, which the process that owns the task reads
 * when it next looks; a hint after the commit makes that at once.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "commands/dbcommands.h"
#include "common/int.h"
#include "common/pg_prng.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "as_of.h"
#include "compat.h"
#include "era.h"
#include "fact.h"
#include "fault.h"
#include "guc.h"
#include "horizon.h"
#include "role.h"
#include "task.h"
#include "wakeup.h"
#include "xact.h"

/* The task, and those that it delegated, at any depth, as bigint[]. */
static int64 *
family_of(int64 task_id, int *n)
{
	static const char family_sql[] =
		"WITH RECURSIVE f AS (SELECT $1::pg_catalog.int8 AS task_id"
		" UNION ALL SELECT t.task_id FROM f JOIN prometheus._task t"
		"   ON t.parent_id OPERATOR(pg_catalog.=) f.task_id)"
		" SELECT pg_catalog.array_agg(f.task_id) FROM f";
	MemoryContext context = CurrentMemoryContext;
	Oid type = INT8OID;
	Datum value = Int64GetDatum(task_id);
	PromOwner owner;
	MemoryContext before;
	int64 *family;
	bool isnull;

	SPI_connect();
	prom_role_become_owner(&owner);
	if (prom_execute_now(family_sql, 1, &type, &value, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._task");
	before = MemoryContextSwitchTo(context);
	family = prom_read_int8_array(SPI_getbinval(SPI_tuptable->vals[0],
												SPI_tuptable->tupdesc, 1,
												&isnull),
								  n);
	MemoryContextSwitchTo(before);
	prom_role_restore(&owner);
	SPI_finish();
	return family;
}

static void
write_cancel(PromFactWriter *writer, int64 task_id, text *reason)
{
	Datum values[CANCEL_COLUMNS];
	bool nulls[CANCEL_COLUMNS] = {false};

	values[CANCEL_TASK_ID] = Int64GetDatum(task_id);
	values[CANCEL_REQUESTED_AT] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[CANCEL_REQUESTED_BY] =
		CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	values[CANCEL_REASON] = PointerGetDatum(reason);
	nulls[CANCEL_REASON] = reason == NULL;
	prom_fact_add(writer, PROM_FACT_CANCEL, values, nulls);
}

/* The reason of a cancel, NULL if there is none. */
static text *
reason_argument(FunctionCallInfo fcinfo)
{
	text *reason = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);

	if (reason == NULL || VARSIZE_ANY_EXHDR(reason) == 0)
		return NULL;
	if (VARSIZE_ANY_EXHDR(reason) > PROM_MAX_REASON)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("reason is too long"),
				 errdetail("It may have %d bytes.", PROM_MAX_REASON)));
	return reason;
}

PG_FUNCTION_INFO_V1(prom_cancel);

Datum
prom_cancel(PG_FUNCTION_ARGS)
{
	int64 task_id;
	PromTaskEnd end;
	PromHint hint = {0};
	PromFactWriter *writer;
	int64 *family;
	int nfamily;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	task_id = PG_GETARG_INT64(0);
	PreventCommandDuringRecovery("prometheus_cancel()");
	PreventCommandIfReadOnly("prometheus_cancel()");
	prom_as_of_forbid_writing();
	prom_task_end(task_id, &end);
	if (end.ended)
		PG_RETURN_BOOL(false);

	family = family_of(task_id, &nfamily);
	writer = prom_fact_begin();
	for (int i = 0; i < nfamily; i++)
		write_cancel(writer, family[i], reason_argument(fcinfo));
	prom_fact_end(writer);
	PROM_FAULT("cancel-after-write");
	hint.kind = PROM_HINT_CANCEL;
	hint.deadline = DT_NOEND;
	for (int i = 0; i < nfamily; i++)
	{
		hint.task_id = family[i];
		prom_wakeup_hint(&hint);
	}
	PG_RETURN_BOOL(true);
}

/*
 * Retry a task that ended without success; true if it did and nobody else has
 * just done so.
 */
static bool
write_retry(int64 task_id)
{
	static const char retry_sql[] =
		"INSERT INTO prometheus._retry"
		" (task_id, attempt, xid, retried_at, deadline, retried_by)"
		" SELECT t.task_id, pg_catalog.max(o.attempt), prometheus._xid(),"
		" $2, $2 OPERATOR(pg_catalog.+) (t.deadline OPERATOR(pg_catalog.-)"
		" pg_catalog.max(greatest(t.submitted_at, t.run_at))), $3"
		" FROM prometheus._task t JOIN prometheus._outcome o"
		" ON o.task_id OPERATOR(pg_catalog.=) t.task_id"
		" WHERE t.task_id OPERATOR(pg_catalog.=) $1 GROUP BY t.task_id"
		" ON CONFLICT (task_id, attempt) DO NOTHING";
	Oid types[3] = {INT8OID, TIMESTAMPTZOID, TEXTOID};
	Datum values[3];
	PromOwner owner;
	bool written;

	(void) prom_era_xid(); /* the horizon asks for it */
	prom_horizon_check_task(task_id);
	values[0] = Int64GetDatum(task_id);
	values[1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[2] = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	SPI_connect();
	prom_role_become_owner(&owner);
	if (prom_execute_now(retry_sql, 3, types, values, NULL, false) !=
		SPI_OK_INSERT)
		elog(ERROR, "could not write prometheus._retry");
	written = SPI_processed > 0;
	prom_role_restore(&owner);
	SPI_finish();
	return written;
}

PG_FUNCTION_INFO_V1(prom_retry);

Datum
prom_retry(PG_FUNCTION_ARGS)
{
	int64 task_id = PG_GETARG_INT64(0);
	PromTaskEnd end;
	PromHint hint = {0};

	PreventCommandDuringRecovery("prometheus_retry()");
	PreventCommandIfReadOnly("prometheus_retry()");
	prom_as_of_forbid_writing();
	prom_task_end(task_id, &end);
	if (!end.ended || strcmp(end.status, "completed") == 0 ||
		!write_retry(task_id))
		PG_RETURN_BOOL(false);
	hint.kind = PROM_HINT_READ;
	hint.task_id = task_id;
	prom_wakeup_hint(&hint);
	PG_RETURN_BOOL(true);
}
