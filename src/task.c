/*
 * task.c
 *	  Submits tasks and tells their submitters what became of them.
 *
 * A submit is three things in the caller's transaction: a look at the agent,
 * one fact, and a hint that reaches the scheduler after the commit.  Waiting
 * sleeps on the latch until the caller process has committed the outcome.
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

#include "compat.h"
#include "fact.h"
#include "fault.h"
#include "guc.h"
#include "role.h"
#include "task.h"
#include "wakeup.h"
#include "xact.h"

/* Does the agent's option "roles", if it has one, list a role of the user? */
static bool
agent_allows(Jsonb *options)
{
	JsonbValue *roles;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue value;

	roles = getKeyJsonValueFromContainer(&options->root, "roles", 5, NULL);
	if (roles == NULL || prom_role_is_admin())
		return true;
	iterator = JsonbIteratorInit(roles->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		Oid role;

		if (token != WJB_ELEM || value.type != jbvString)
			continue;
		role = get_role_oid(
			pnstrdup(value.val.string.val, value.val.string.len), true);
		if (OidIsValid(role) && has_privs_of_role(GetUserId(), role))
			return true;
	}
	return false;
}

/*
 * The mode of the newest version of an agent, palloc'd; raises if there is no
 * such agent or the user may not submit to it.  By hand, since SPI would
 * double what a submit costs.
 */
static char *
agent_mode(const char *agent)
{
	Oid namespace = get_namespace_oid("prometheus", false);
	Oid relid = get_relname_relid("_agent", namespace);
	Relation relation = table_open(relid, AccessShareLock);
	Relation index = index_open(get_relname_relid("_agent_pkey", namespace),
								AccessShareLock);
	TupleDesc desc = RelationGetDescr(relation);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	char *mode = NULL;
	bool allowed = false;
	bool isnull;

	ScanKeyEntryInitialize(&key, 0, get_attnum(relid, "name"),
						   BTEqualStrategyNumber, TEXTOID,
						   DEFAULT_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(agent));
	scan = systable_beginscan_ordered(relation, index, GetActiveSnapshot(), 1,
									  &key);
	tuple = systable_getnext_ordered(scan, BackwardScanDirection);
	if (HeapTupleIsValid(tuple))
	{
		mode = TextDatumGetCString(
			heap_getattr(tuple, get_attnum(relid, "mode"), desc, &isnull));
		allowed = agent_allows(DatumGetJsonbP(
			heap_getattr(tuple, get_attnum(relid, "options"), desc, &isnull)));
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(relation, AccessShareLock);

	if (mode == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("agent \"%s\" does not exist", agent),
				 errhint("SELECT name FROM prometheus.agent lists them; prometheus_set_agent() makes one.")));
	if (!allowed)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for agent \"%s\"", agent),
				 errdetail("Its option \"roles\" lists who may submit to it.")));
	return mode;
}

void
prom_task_check_mode(const char *mode)
{
	if (strcmp(mode, "fast") == 0)
		return;
	if (strcmp(mode, "full") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("mode \"full\" is not supported by this version of prometheus"),
				 errhint("Use mode \"fast\".")));
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("mode \"%s\" does not exist", mode),
					errhint("The mode is \"fast\".")));
}

static void
check_submit(const PromSubmit *submit)
{
	size_t length;

	if (submit->request == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("request must not be null")));
	if (submit->agent == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("agent must not be null"),
				 errhint("Leave the argument out for agent \"default\".")));
	length = strlen(submit->request);
	if (length == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("request must not be empty")));
	if (length > (size_t) prom_guc_max_request * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("request is too long"),
				 errdetail("It has %zu bytes; the limit is %d kB.", length,
						   prom_guc_max_request),
				 errhint("An administrator can raise prometheus.max_request.")));
	if (submit->priority < PROM_PRIORITY_MIN ||
		submit->priority > PROM_PRIORITY_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("priority %d is out of range", submit->priority),
				 errdetail("It must be between %d and %d; the higher runs first.",
						   PROM_PRIORITY_MIN, PROM_PRIORITY_MAX)));
	if (submit->has_max_attempts &&
		(submit->max_attempts < 1 || submit->max_attempts > PROM_MAX_ATTEMPTS))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_attempts %d is out of range",
						submit->max_attempts),
				 errdetail("It must be between 1 and %d.", PROM_MAX_ATTEMPTS)));
	if (submit->has_run_at && TIMESTAMP_NOT_FINITE(submit->run_at))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("run_at must be finite")));
	if (submit->metadata != NULL && !JB_ROOT_IS_OBJECT(submit->metadata))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("metadata must be a json object")));
}

/* Once a session: a task in a database that nobody serves only waits. */
static void
warn_if_not_served(void)
{
	static bool warned = false;
	List *names;
	ListCell *cell;
	char *database;

	if (warned || prom_shmem_database(MyDatabaseId) != NULL)
		return;
	warned = true;
	if (prom_shared == NULL)
	{
		ereport(WARNING,
				(errmsg("tasks will not run: prometheus is not loaded by the server"),
				 errhint("Add to postgresql.conf: shared_preload_libraries = 'prometheus', and restart.")));
		return;
	}
	database = get_database_name(MyDatabaseId);
	names = prom_guc_database_names();
	foreach(cell, names)
		if (strcmp((char *) lfirst(cell), database) == 0)
			return;
	ereport(WARNING,
			(errmsg("tasks will not run: database \"%s\" is not served", database),
			 errhint("%s", prom_guc_serve_hint(database))));
}

static TimestampTz
deadline_of(const PromSubmit *submit, TimestampTz now)
{
	TimestampTz from = submit->has_run_at ? Max(submit->run_at, now) : now;
	int64 timeout = submit->timeout < 0 ? PROM_DEFAULT_TIMEOUT
										: submit->timeout;
	TimestampTz deadline;

	if (pg_add_s64_overflow(from, timeout, &deadline) ||
		!IS_VALID_TIMESTAMP(deadline))
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("timeout is out of range")));
	return deadline;
}

static void
write_task(int64 task_id, const PromSubmit *submit, const char *mode,
		   TimestampTz now, TimestampTz deadline)
{
	Datum values[TASK_COLUMNS];
	bool nulls[TASK_COLUMNS] = {false};
	pg_uuid_t *trace_id = palloc(sizeof(pg_uuid_t));
	uint64 random[2];
	PromFactWriter *writer;

	do
	{
		random[0] = pg_prng_uint64(&pg_global_prng_state);
		random[1] = pg_prng_uint64(&pg_global_prng_state);
	} while (random[0] == 0 && random[1] == 0);
	memcpy(trace_id->data, random, UUID_LEN);

	values[TASK_ID] = Int64GetDatum(task_id);
	values[TASK_EVENT_ID] = Int64GetDatum(prom_fact_next_id());
	values[TASK_SUBMITTED_AT] = TimestampTzGetDatum(now);
	values[TASK_RUN_AT] = TimestampTzGetDatum(submit->run_at);
	nulls[TASK_RUN_AT] = !submit->has_run_at;
	values[TASK_DEADLINE] = TimestampTzGetDatum(deadline);
	values[TASK_PRIORITY] = Int32GetDatum(submit->priority);
	values[TASK_MAX_ATTEMPTS] =
		Int32GetDatum(submit->has_max_attempts ? submit->max_attempts
											   : PROM_DEFAULT_ATTEMPTS);
	values[TASK_SUBMITTER_OID] = ObjectIdGetDatum(GetUserId());
	values[TASK_SUBMITTER] =
		CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	values[TASK_AGENT] = CStringGetTextDatum(submit->agent);
	values[TASK_MODE] = CStringGetTextDatum(mode);
	values[TASK_TRACE_ID] = UUIDPGetDatum(trace_id);
	values[TASK_REQUEST] = CStringGetTextDatum(submit->request);
	values[TASK_METADATA] = submit->metadata != NULL
								? JsonbPGetDatum(submit->metadata)
								: DirectFunctionCall1(jsonb_in,
													  CStringGetDatum("{}"));

	writer = prom_fact_begin();
	prom_fact_add(writer, PROM_FACT_TASK, values, nulls);
	prom_fact_end(writer);
}

int64
prom_task_submit(const PromSubmit *submit)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz deadline;
	const char *mode;
	const char *default_mode;
	int64 task_id;
	PromHint hint = {0};

	PreventCommandDuringRecovery("prometheus_submit()");
	PreventCommandIfReadOnly("prometheus_submit()");
	check_submit(submit);
	default_mode = agent_mode(submit->agent);
	mode = submit->mode != NULL ? submit->mode : default_mode;
	prom_task_check_mode(mode);
	deadline = deadline_of(submit, now);

	task_id = prom_fact_next_task_id();
	PROM_FAULT("submit-before-write");
	write_task(task_id, submit, mode, now, deadline);
	PROM_FAULT("submit-after-write");

	hint.kind = PROM_HINT_SUBMIT;
	hint.task_id = task_id;
	hint.due = submit->has_run_at ? submit->run_at : now;
	hint.deadline = deadline;
	hint.submitter = GetUserId();
	hint.priority = submit->priority;
	prom_wakeup_hint(&hint);
	warn_if_not_served();
	return task_id;
}

/* An interval in microseconds, months as 30 days; raises if it is too short. */
static int64
interval_us(Interval *interval, const char *argument, int64 shortest)
{
	double us = interval->time + (interval->day + interval->month * 30.0) *
									 (double) USECS_PER_DAY;

	if (us < shortest)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s must %s", argument,
							   shortest > 0 ? "be greater than zero"
											: "not be negative")));
	if (us > (double) END_TIMESTAMP / 2)
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("%s is out of range", argument)));
	return (int64) us;
}

TimestampTz
prom_task_moment_after(Interval *interval)
{
	return GetCurrentTimestamp() + interval_us(interval, "timeout", 0);
}

static char *
text_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

PG_FUNCTION_INFO_V1(prom_submit);

Datum
prom_submit(PG_FUNCTION_ARGS)
{
	PromSubmit submit = {0};

	submit.request = text_argument(fcinfo, 0);
	submit.agent = text_argument(fcinfo, 1);
	submit.mode = text_argument(fcinfo, 2);
	submit.priority = PG_ARGISNULL(3) ? 0 : PG_GETARG_INT32(3);
	submit.has_run_at = !PG_ARGISNULL(4);
	submit.run_at = submit.has_run_at ? PG_GETARG_TIMESTAMPTZ(4) : 0;
	submit.timeout = PG_ARGISNULL(5)
						 ? -1
						 : interval_us(PG_GETARG_INTERVAL_P(5), "timeout", 1);
	submit.has_max_attempts = !PG_ARGISNULL(6);
	submit.max_attempts = submit.has_max_attempts ? PG_GETARG_INT32(6) : 0;
	submit.metadata = PG_ARGISNULL(7) ? NULL : PG_GETARG_JSONB_P(7);
	PG_RETURN_INT64(prom_task_submit(&submit));
}

static void
write_cancel(int64 task_id, text *reason)
{
	Datum values[CANCEL_COLUMNS];
	bool nulls[CANCEL_COLUMNS] = {false};
	PromFactWriter *writer;

	values[CANCEL_TASK_ID] = Int64GetDatum(task_id);
	values[CANCEL_REQUESTED_AT] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[CANCEL_REQUESTED_BY] =
		CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	values[CANCEL_REASON] = PointerGetDatum(reason);
	nulls[CANCEL_REASON] = reason == NULL;
	writer = prom_fact_begin();
	prom_fact_add(writer, PROM_FACT_CANCEL, values, nulls);
	prom_fact_end(writer);
}

PG_FUNCTION_INFO_V1(prom_cancel);

Datum
prom_cancel(PG_FUNCTION_ARGS)
{
	int64 task_id;
	PromTaskEnd end;
	PromHint hint = {0};

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	task_id = PG_GETARG_INT64(0);
	PreventCommandDuringRecovery("prometheus_cancel()");
	PreventCommandIfReadOnly("prometheus_cancel()");
	prom_task_end(task_id, &end);
	if (end.ended)
		PG_RETURN_BOOL(false);

	write_cancel(task_id, PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1));
	PROM_FAULT("cancel-after-write");
	hint.kind = PROM_HINT_CANCEL;
	hint.task_id = task_id;
	hint.deadline = DT_NOEND;
	hint.submitter = GetUserId();
	prom_wakeup_hint(&hint);
	PG_RETURN_BOOL(true);
}
