/*
 * submit.c
 *	  Queues tasks in the caller's transaction.
 *
 * A submit is three things: a look at the agent, one fact, and a hint that
 * reaches the scheduler after the commit.  Many tasks of one call share the
 * look and the writer.  An idempotency key is a row of its own, unique for
 * submitter and key: a second transaction waits for the first, and then
 * returns its task.
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
#include "funcapi.h"
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
check_request(const char *request)
{
	size_t length;

	if (request == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("request must not be null")));
	length = strlen(request);
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
}

static void
check_submit(const PromSubmit *submit)
{
	if (submit->agent == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("agent must not be null"),
				 errhint("Leave the argument out for agent \"default\".")));
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

/* What all tasks of one call have in common. */
typedef struct Submission
{
	const PromSubmit *submit;
	const char *mode;
	TimestampTz now;
	TimestampTz deadline;
	PromSubmitter submitter;
	PromFactWriter *writer;
	Datum values[TASK_COLUMNS];
	bool nulls[TASK_COLUMNS];
} Submission;

/* Bytes in hexadecimal, lower case; false: they are not, or all are 0. */
static bool
read_hex(const char *text, int bytes, unsigned char *out)
{
	bool any = false;

	for (int i = 0; i < 2 * bytes; i++)
	{
		int digit;

		if (text[i] >= '0' && text[i] <= '9')
			digit = text[i] - '0';
		else if (text[i] >= 'a' && text[i] <= 'f')
			digit = text[i] - 'a' + 10;
		else
			return false;
		out[i / 2] = i % 2 == 0 ? digit << 4 : out[i / 2] | digit;
		any |= digit != 0;
	}
	return any;
}

/*
 * The trace of a traceparent (W3C Trace Context, section 3.2): two digits of
 * version, 32 of trace, 16 of parent, two of flags.
 */
static void
read_traceparent(const char *text, pg_uuid_t *trace_id)
{
	unsigned char parent[8];
	unsigned char other[1];
	size_t length = strlen(text);

	if (length < 55 || (length > 55 && text[55] != '-') ||
		text[2] != '-' || text[35] != '-' || text[52] != '-' ||
		strncmp(text, "ff", 2) == 0 ||
		(length > 55 && strncmp(text, "00", 2) == 0) ||
		(!read_hex(text, 1, other) && strncmp(text, "00", 2) != 0) ||
		!read_hex(text + 3, 16, trace_id->data) ||
		!read_hex(text + 36, 8, parent) ||
		(!read_hex(text + 53, 1, other) && strncmp(text + 53, "00", 2) != 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("traceparent is not one"),
				 errdetail("It must have the form 00-TRACE-PARENT-FLAGS of W3C Trace Context: 2, 32, 16 and 2 hexadecimal digits in lower case.")));
}

static void
random_trace(pg_uuid_t *trace_id)
{
	uint64 random[2];

	do
	{
		random[0] = pg_prng_uint64(&pg_global_prng_state);
		random[1] = pg_prng_uint64(&pg_global_prng_state);
	} while (random[0] == 0 && random[1] == 0);
	memcpy(trace_id->data, random, UUID_LEN);
}

/* Fill in what is the same in each row. */
static void
begin_submission(Submission *submission, const PromSubmit *submit)
{
	Datum *values = submission->values;
	const char *default_mode;

	PreventCommandDuringRecovery("prometheus_submit()");
	PreventCommandIfReadOnly("prometheus_submit()");
	memset(submission, 0, sizeof(*submission));
	check_submit(submit);
	default_mode = agent_mode(submit->agent);
	submission->submit = submit;
	submission->mode = submit->mode != NULL ? submit->mode : default_mode;
	prom_task_check_mode(submission->mode);
	submission->now = GetCurrentTimestamp();
	submission->deadline = deadline_of(submit, submission->now);
	submission->submitter = prom_role_submitter(GetUserId());
	submission->writer = prom_fact_begin();

	values[TASK_SUBMITTED_AT] = TimestampTzGetDatum(submission->now);
	values[TASK_RUN_AT] = TimestampTzGetDatum(submit->run_at);
	submission->nulls[TASK_RUN_AT] = !submit->has_run_at;
	values[TASK_DEADLINE] = TimestampTzGetDatum(submission->deadline);
	values[TASK_PRIORITY] = Int32GetDatum(submit->priority);
	values[TASK_MAX_ATTEMPTS] =
		Int32GetDatum(submit->has_max_attempts ? submit->max_attempts
											   : PROM_DEFAULT_ATTEMPTS);
	values[TASK_SUBMITTER_OID] = ObjectIdGetDatum(GetUserId());
	values[TASK_SUBMITTER] =
		CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	values[TASK_AGENT] = CStringGetTextDatum(submit->agent);
	values[TASK_MODE] = CStringGetTextDatum(submission->mode);
	submission->nulls[TASK_TRACEPARENT] = submit->traceparent == NULL;
	if (submit->traceparent != NULL)
		values[TASK_TRACEPARENT] = CStringGetTextDatum(submit->traceparent);
	values[TASK_METADATA] = submit->metadata != NULL
								? JsonbPGetDatum(submit->metadata)
								: DirectFunctionCall1(jsonb_in,
													  CStringGetDatum("{}"));
}

static void
check_key(const char *key)
{
	if (*key == '\0' || strlen(key) > PROM_MAX_KEY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an idempotency key must have 1 to %d bytes",
						PROM_MAX_KEY)));
}

/*
 * Take an idempotency key for a task: the task's own id, or that of the one
 * that has the key already and is the same request.  Waits for a transaction
 * that is just taking it.
 */
static int64
claim_key(Submission *submission, const char *key, int64 task_id,
		  const char *request)
{
	static const char insert_sql[] =
		"INSERT INTO prometheus._idempotency"
		" (submitter, submitter_oid, key, task_id, xid)"
		" VALUES ($1, $2, $3, $4, pg_catalog.pg_current_xact_id())"
		" ON CONFLICT (submitter, submitter_oid, key) DO NOTHING";
	static const char read_sql[] =
		"SELECT i.task_id, t.request, t.agent, t.mode"
		" FROM prometheus._idempotency i JOIN prometheus._task t"
		" ON t.task_id OPERATOR(pg_catalog.=) i.task_id"
		" WHERE i.submitter OPERATOR(pg_catalog.=) $1"
		" AND i.submitter_oid OPERATOR(pg_catalog.=) $2"
		" AND i.key OPERATOR(pg_catalog.=) $3";
	Oid types[4] = {TEXTOID, OIDOID, TEXTOID, INT8OID};
	Datum values[4];
	PromOwner owner;

	check_key(key);
	values[0] = submission->values[TASK_SUBMITTER];
	values[1] = submission->values[TASK_SUBMITTER_OID];
	values[2] = CStringGetTextDatum(key);
	values[3] = Int64GetDatum(task_id);
	SPI_connect();
	prom_role_become_owner(&owner);
	if (SPI_execute_with_args(insert_sql, 4, types, values, NULL, false, 0) !=
		SPI_OK_INSERT)
		elog(ERROR, "could not write prometheus._idempotency");
	if (SPI_processed == 0)
	{
		SPIPlanPtr plan;

		/* It may be a task of this very call. */
		prom_fact_flush(submission->writer);
		plan = SPI_prepare(read_sql, 3, types);
		if (plan == NULL ||
			SPI_execute_snapshot(plan, values, NULL, GetLatestSnapshot(),
								 InvalidSnapshot, true, false,
								 1) != SPI_OK_SELECT ||
			SPI_processed == 0)
			elog(ERROR, "could not read prometheus._idempotency");
		task_id = prom_row_int64(0, 1);
		if (strcmp(prom_row_text(0, 2), request) != 0 ||
			strcmp(prom_row_text(0, 3), submission->submit->agent) != 0 ||
			strcmp(prom_row_text(0, 4), submission->mode) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("idempotency key \"%s\" was used for another request",
							key),
					 errdetail("Task %lld has it, with another request, agent or mode.",
							   (long long) task_id),
					 errhint("Use a key of its own for each request.")));
	}
	prom_role_restore(&owner);
	SPI_finish();
	return task_id;
}

/* Add one task, with its hint; its id, or that of the task that has its key. */
static int64
add_task(Submission *submission, const char *request, const char *key)
{
	const PromSubmit *submit = submission->submit;
	pg_uuid_t *trace_id = palloc(sizeof(pg_uuid_t));
	PromHint hint = {0};
	int64 task_id;

	check_request(request);
	task_id = prom_fact_next_task_id();
	if (key != NULL)
	{
		int64 other = claim_key(submission, key, task_id, request);

		if (other != task_id)
			return other;
	}
	if (submit->traceparent != NULL)
		read_traceparent(submit->traceparent, trace_id);
	else
		random_trace(trace_id);
	submission->values[TASK_ID] = Int64GetDatum(task_id);
	submission->values[TASK_EVENT_ID] = Int64GetDatum(prom_fact_next_id());
	submission->values[TASK_TRACE_ID] = UUIDPGetDatum(trace_id);
	submission->values[TASK_REQUEST] = CStringGetTextDatum(request);
	PROM_FAULT("submit-before-write");
	prom_fact_add(submission->writer, PROM_FACT_TASK, submission->values,
				  submission->nulls);
	PROM_FAULT("submit-after-write");

	hint.kind = PROM_HINT_SUBMIT;
	hint.task_id = task_id;
	hint.due = submit->has_run_at ? submit->run_at : submission->now;
	hint.deadline = submission->deadline;
	hint.submitter = submission->submitter;
	hint.priority = submit->priority;
	prom_wakeup_hint(&hint);
	return task_id;
}

static void
end_submission(Submission *submission)
{
	prom_fact_end(submission->writer);
	warn_if_not_served();
}

int64
prom_task_submit(const PromSubmit *submit)
{
	Submission submission;
	int64 task_id;

	begin_submission(&submission, submit);
	task_id = add_task(&submission, submit->request, submit->idempotency_key);
	end_submission(&submission);
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

/* The arguments of prometheus_submit() and, but for two, of _submit_many(). */
enum
{
	ARG_REQUEST,
	ARG_AGENT,
	ARG_MODE,
	ARG_PRIORITY,
	ARG_RUN_AT,
	ARG_KEY,
	ARG_TIMEOUT,
	ARG_MAX_ATTEMPTS,
	ARG_TRACEPARENT,
	ARG_METADATA
};

/* All but the request and the key. */
static void
read_arguments(FunctionCallInfo fcinfo, PromSubmit *submit)
{
	memset(submit, 0, sizeof(*submit));
	submit->agent = text_argument(fcinfo, ARG_AGENT);
	submit->mode = text_argument(fcinfo, ARG_MODE);
	submit->priority =
		PG_ARGISNULL(ARG_PRIORITY) ? 0 : PG_GETARG_INT32(ARG_PRIORITY);
	submit->has_run_at = !PG_ARGISNULL(ARG_RUN_AT);
	if (submit->has_run_at)
		submit->run_at = PG_GETARG_TIMESTAMPTZ(ARG_RUN_AT);
	submit->timeout = -1;
	if (!PG_ARGISNULL(ARG_TIMEOUT))
		submit->timeout =
			interval_us(PG_GETARG_INTERVAL_P(ARG_TIMEOUT), "timeout", 1);
	submit->has_max_attempts = !PG_ARGISNULL(ARG_MAX_ATTEMPTS);
	if (submit->has_max_attempts)
		submit->max_attempts = PG_GETARG_INT32(ARG_MAX_ATTEMPTS);
	submit->traceparent = text_argument(fcinfo, ARG_TRACEPARENT);
	if (!PG_ARGISNULL(ARG_METADATA))
		submit->metadata = PG_GETARG_JSONB_P(ARG_METADATA);
}

PG_FUNCTION_INFO_V1(prom_submit);

Datum
prom_submit(PG_FUNCTION_ARGS)
{
	PromSubmit submit;

	read_arguments(fcinfo, &submit);
	submit.request = text_argument(fcinfo, ARG_REQUEST);
	submit.idempotency_key = text_argument(fcinfo, ARG_KEY);
	PG_RETURN_INT64(prom_task_submit(&submit));
}

/* The elements of a text array, NULL for null ones; NULL for no array. */
static char **
array_argument(FunctionCallInfo fcinfo, int n, int *count)
{
	Datum *elements;
	bool *nulls;
	char **texts;

	*count = 0;
	if (PG_ARGISNULL(n))
		return NULL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(n), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, &nulls, count);
	texts = palloc(Max(*count, 1) * sizeof(char *));
	for (int i = 0; i < *count; i++)
		texts[i] = nulls[i] ? NULL : TextDatumGetCString(elements[i]);
	return texts;
}

PG_FUNCTION_INFO_V1(prom_submit_many);

/* The ids in the order of the requests. */
Datum
prom_submit_many(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	PromSubmit submit;
	Submission submission;
	int nrequests;
	int nkeys;
	char **requests = array_argument(fcinfo, 0, &nrequests);
	char **keys = array_argument(fcinfo, ARG_KEY, &nkeys);

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (requests == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("requests must not be null")));
	if (keys != NULL && nkeys != nrequests)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("there must be one idempotency key for each request"),
				 errdetail("There are %d requests and %d keys.", nrequests,
						   nkeys)));
	read_arguments(fcinfo, &submit);
	begin_submission(&submission, &submit);
	for (int i = 0; i < nrequests; i++)
	{
		bool isnull = false;
		Datum task_id;

		CHECK_FOR_INTERRUPTS();
		task_id = Int64GetDatum(add_task(&submission, requests[i],
										 keys == NULL ? NULL : keys[i]));
		tuplestore_putvalues(result->setResult, result->setDesc, &task_id,
							 &isnull);
	}
	end_submission(&submission);
	return (Datum) 0;
}
