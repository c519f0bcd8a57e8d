/*
 * xact.c
 *	  Begins and ends the transactions of workers, and runs their statements.
 *
 * Start, snapshot, report of activity and of statistics always go together,
 * so they are here and nowhere else.  No transaction is open while anything
 * is on the network.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"

#include "xact.h"

static MemoryContext outer_context = NULL;
static bool is_open = false;
static TimestampTz statistics_due = DT_NOEND;

void
prom_xact_begin(const char *activity)
{
	Assert(!is_open);
	outer_context = CurrentMemoryContext;
	is_open = true;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, activity);
	MemoryContextSwitchTo(outer_context);
}

/*
 * What waits inside of a transaction (for a lock, for a standby) takes what
 * woke it from the latch, also if that was meant for the loop around: it looks
 * once more before it waits.
 */
static void
look_again(void)
{
	SetLatch(MyLatch);
}

TimestampTz
prom_xact_statistics_due(void)
{
	return statistics_due;
}

void
prom_xact_send_statistics(void)
{
	if (statistics_due > GetCurrentTimestamp())
		return;
	statistics_due = DT_NOEND;
	pgstat_report_stat(true);
}

/*
 * Statistics go now or, if some went a moment ago, when the process waits: a
 * worker that waits for hours must not keep them from autovacuum.
 */
void
prom_xact_commit(void)
{
	long ms;

	Assert(is_open);
	PopActiveSnapshot();
	CommitTransactionCommand();
	is_open = false;
	ms = pgstat_report_stat(false);
	statistics_due = DT_NOEND;
	if (ms > 0)
		statistics_due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextSwitchTo(outer_context);
	look_again();
}

/* autovacuum's order; the error must still be on the stack. */
static void
end_after_error(bool report)
{
	HOLD_INTERRUPTS();
	if (report)
		EmitErrorReport();
	AbortCurrentTransaction();
	FlushErrorState();
	is_open = false;
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextSwitchTo(outer_context);
	look_again();
	RESUME_INTERRUPTS();
}

void
prom_xact_abort(void)
{
	end_after_error(true);
}

void
prom_xact_abort_quietly(void)
{
	end_after_error(false);
}

bool
prom_xact_is_open(void)
{
	return is_open;
}

static void
prepare(PromStatement *statement)
{
	SPIPlanPtr plan;

	if (statement->plan != NULL)
		return;
	plan = SPI_prepare(statement->sql, statement->nargs, statement->argtypes);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\": %s", statement->sql,
			 SPI_result_code_string(SPI_result));
	statement->plan = plan;
}

void
prom_statement_run_now(PromStatement *statement, Datum *values)
{
	int result;

	prepare(statement);
	result = SPI_execute_snapshot(statement->plan, values, NULL,
								  GetLatestSnapshot(), InvalidSnapshot, true,
								  false, 0);
	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", statement->sql,
			 SPI_result_code_string(result));
}

void
prom_statement_run(PromStatement *statement, Datum *values, const char *nulls,
				   bool read_only)
{
	MemoryContext context = CurrentMemoryContext;
	int result;

	prepare(statement);
	result = SPI_execute_plan(statement->plan, values, nulls, read_only, 0);
	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", statement->sql,
			 SPI_result_code_string(result));
	/* SPI leaves its own, which ends with SPI_finish(). */
	MemoryContextSwitchTo(context);
}

static Datum
row_datum(uint64 row, int column, bool *isnull)
{
	Assert(row < SPI_processed);
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column,
						 isnull);
}

static Datum
row_value(uint64 row, int column)
{
	bool isnull;
	Datum value = row_datum(row, column, &isnull);

	if (isnull)
		elog(ERROR, "column %d of a result is unexpectedly null", column);
	return value;
}

int
prom_execute_now(const char *sql, int nargs, Oid *types, Datum *values,
				 const char *nulls, bool read_only)
{
	SPIPlanPtr plan = SPI_prepare(sql, nargs, types);

	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\"", sql);
	return SPI_execute_snapshot(plan, values, nulls, GetLatestSnapshot(),
								InvalidSnapshot, read_only, true, 0);
}

ArrayType *
prom_int8_array(const int64 *values, int n)
{
	Datum *elements = palloc(Max(n, 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(values[i]);
	return construct_array(elements, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
						   TYPALIGN_DOUBLE);
}

int64 *
prom_read_int8_array(Datum array, int *n)
{
	Datum *elements;
	bool *nulls;
	int64 *values;

	deconstruct_array(DatumGetArrayTypeP(array), INT8OID, sizeof(int64),
					  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &elements, &nulls, n);
	values = palloc(Max(*n, 1) * sizeof(int64));
	for (int i = 0; i < *n; i++)
		values[i] = DatumGetInt64(elements[i]);
	pfree(elements);
	pfree(nulls);
	return values;
}

int64
prom_row_int64(uint64 row, int column)
{
	return DatumGetInt64(row_value(row, column));
}

int32
prom_row_int32(uint64 row, int column)
{
	return DatumGetInt32(row_value(row, column));
}

Oid
prom_row_oid(uint64 row, int column)
{
	return DatumGetObjectId(row_value(row, column));
}

bool
prom_row_bool(uint64 row, int column)
{
	return DatumGetBool(row_value(row, column));
}

float8
prom_row_float8(uint64 row, int column)
{
	return DatumGetFloat8(row_value(row, column));
}

TimestampTz
prom_row_time(uint64 row, int column)
{
	return DatumGetTimestampTz(row_value(row, column));
}

const pg_uuid_t *
prom_row_uuid(uint64 row, int column)
{
	return DatumGetUUIDP(row_value(row, column));
}

char *
prom_row_text(uint64 row, int column)
{
	return TextDatumGetCString(row_value(row, column));
}

bool
prom_row_isnull(uint64 row, int column)
{
	bool isnull;

	(void) row_datum(row, column, &isnull);
	return isnull;
}

int64
prom_row_int64_or(uint64 row, int column, int64 otherwise)
{
	bool isnull;
	Datum value = row_datum(row, column, &isnull);

	return isnull ? otherwise : DatumGetInt64(value);
}

char *
prom_row_text_or_null(uint64 row, int column)
{
	bool isnull;
	Datum value = row_datum(row, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

ArrayType *
prom_row_array_or_null(uint64 row, int column)
{
	bool isnull;
	Datum value = row_datum(row, column, &isnull);

	return isnull ? NULL : DatumGetArrayTypePCopy(value);
}

Jsonb *
prom_row_jsonb_or_null(uint64 row, int column)
{
	bool isnull;
	Datum value = row_datum(row, column, &isnull);

	return isnull ? NULL : DatumGetJsonbPCopy(value);
}

int64
prom_row_bytes(uint64 row, int column)
{
	bool isnull;
	Datum value = row_datum(row, column, &isnull);

	return isnull ? 0 : (int64) toast_raw_datum_size(value) - VARHDRSZ;
}

static ErrorData *
try_to(void (*act)(void *arg), void *arg, bool report)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	ErrorData *volatile failure = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		act(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		failure = CopyErrorData();
		if (report)
			EmitErrorReport();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = resources;
	if (failure != NULL && failure->message == NULL)
		failure->message = pstrdup("unknown error");
	return failure;
}

ErrorData *
prom_xact_try(void (*act)(void *arg), void *arg)
{
	return try_to(act, arg, false);
}

ErrorData *
prom_xact_try_aloud(void (*act)(void *arg), void *arg)
{
	return try_to(act, arg, true);
}

bool
prom_xact_is_transient(int code)
{
	switch (ERRCODE_TO_CATEGORY(code))
	{
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:
		case ERRCODE_INVALID_TRANSACTION_STATE:
			return true;
		default:
			return false;
	}
}

/* Trying each work alone would only take long then. */
bool
prom_xact_is_general(int code)
{
	return code == ERRCODE_LOCK_NOT_AVAILABLE ||
		   ERRCODE_TO_CATEGORY(code) == ERRCODE_OPERATOR_INTERVENTION ||
		   ERRCODE_TO_CATEGORY(code) == ERRCODE_SYSTEM_ERROR;
}
