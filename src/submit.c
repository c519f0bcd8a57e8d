/*
 * submit.c
 *	  Queues tasks in the caller's transaction.
 *
 * A submit is three things: a look at the agent, one fact, and a hint that
 * reaches the scheduler after the commit.  Many tasks of one call share the
 * look and the writer.
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

#include "cause.h"
#include "compat.h"
#include "era.h"
#include "fact.h"
#include "fault.h"
#include "guc.h"
#include "horizon.h"
#include "idempotency.h"
#include "role.h"
#include "schema.h"
#include "span.h"
#include "tally.h"
#include "task.h"
#include "trace.h"
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
 * The mode and the model of the newest version of an agent, palloc'd; raises
 * if there is no such agent or the user may not submit to it.  What is true now
 * counts, not what the statement's snapshot sees: who may submit has perhaps
 * changed.  By hand, since SPI would double what a submit costs.
 */
static char *
find_agent(const char *agent, char **model)
{
	Oid namespace = get_namespace_oid("prometheus", false);
	Oid relid = get_relname_relid("_agent", namespace);
	Relation relation = table_open(relid, AccessShareLock);
	Relation index = index_open(get_relname_relid("_agent_pkey", namespace),
								AccessShareLock);
	TupleDesc desc = RelationGetDescr(relation);
	ScanKeyData key;
	Snapshot snapshot;
	SysScanDesc scan;
	HeapTuple tuple;
	char *mode = NULL;
	bool allowed = false;
	bool isnull;

	ScanKeyEntryInitialize(&key, 0, get_attnum(relid, "name"),
						   BTEqualStrategyNumber, TEXTOID,
						   DEFAULT_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(agent));
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan_ordered(relation, index, snapshot, 1, &key);
	tuple = systable_getnext_ordered(scan, BackwardScanDirection);
	if (HeapTupleIsValid(tuple))
	{
		mode = TextDatumGetCString(
			heap_getattr(tuple, get_attnum(relid, "mode"), desc, &isnull));
		*model = TextDatumGetCString(
			heap_getattr(tuple, get_attnum(relid, "model"), desc, &isnull));
		allowed = agent_allows(DatumGetJsonbP(
			heap_getattr(tuple, get_attnum(relid, "options"), desc, &isnull)));
	}
	systable_endscan_ordered(scan);
	UnregisterSnapshot(snapshot);
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
prom_task_check_agent(const char *agent)
{
	char *model;

	(void) find_agent(agent, &model);
}

void
prom_task_check_mode(const char *mode)
{
	if (strcmp(mode, "fast") == 0 || strcmp(mode, "full") == 0)
		return;
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("mode \"%s\" does not exist", mode),
					errhint("The modes are \"fast\" and \"full\".")));
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
	PromTarget target;
	uint64 key;
	uint64 conversation;
	PromFactWriter *writer;
	Datum values[TASK_COLUMNS];
	bool nulls[TASK_COLUMNS];
} Submission;

static Datum
text_or_null(const char *text, bool *isnull)
{
	*isnull = text == NULL;
	return text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

/* One at a time, since a join with the view would read all tasks. */
static PromStatement visible_statement = {
	"SELECT FROM prometheus.task t"
	" WHERE t.task_id OPERATOR(pg_catalog.=) $1",
	1,
	{INT8OID},
	NULL,
};

/*
 * Raise unless the user may see every task that this one depends on; those of
 * this transaction too.
 */
static void
check_dependencies(const PromSubmit *submit)
{
	(void) prom_era_xid(); /* the horizon asks for it */
	SPI_connect();
	for (int i = 0; i < submit->ndepends_on; i++)
	{
		int64 task_id = submit->depends_on[i];
		Datum value = Int64GetDatum(task_id);

		prom_statement_run_now(&visible_statement, &value);
		if (SPI_processed == 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("task %lld, which is to be depended on, does not exist",
							(long long) task_id),
					 errdetail("There is none, or you may not see it.")));
		SPI_freetuptable(SPI_tuptable);
		prom_horizon_check_task(task_id);
	}
	SPI_finish();
}

/*
 * What it comes from.  To delegate is no cause of its own: how deep that goes
 * is limited by the agent's max_depth.
 */
static void
set_cause(Submission *submission)
{
	const PromSubmit *submit = submission->submit;
	PromCause cause = {.event_id = submit->parent_event,
					   .depth = submit->causes};

	if (submit->parent_id == 0)
		prom_cause_find(&cause, true);
	submission->values[TASK_CAUSED_BY] = Int64GetDatum(cause.event_id);
	submission->values[TASK_CAUSES] = Int32GetDatum(cause.depth);
	submission->nulls[TASK_CAUSED_BY] = submission->nulls[TASK_CAUSES] =
		cause.event_id == 0;
}

/* Fill in what is the same in each row. */
static void
begin_submission(Submission *submission, const PromSubmit *submit)
{
	Datum *values = submission->values;
	char *default_mode;
	char *model;

	PreventCommandDuringRecovery("prometheus_submit()");
	PreventCommandIfReadOnly("prometheus_submit()");
	memset(submission, 0, sizeof(*submission));
	check_submit(submit);
	if (submit->output_schema != NULL)
		prom_schema_check(submit->output_schema);
	default_mode = find_agent(submit->agent, &model);
	if (submit->ndepends_on > 0)
		check_dependencies(submit);
	submission->submit = submit;
	submission->target.agent = prom_hash_name(submit->agent);
	submission->target.model = prom_hash_name(model);
	submission->mode = submit->mode != NULL ? submit->mode : default_mode;
	prom_task_check_mode(submission->mode);
	submission->now = GetCurrentTimestamp();
	submission->deadline = deadline_of(submit, submission->now);
	submission->submitter = prom_role_submitter(GetUserId());
	if (submit->concurrency_key != NULL)
		submission->key = prom_hash_key(submit->concurrency_key);
	if (submit->conversation != NULL)
		submission->conversation = prom_hash_conversation(
			GetUserNameFromId(GetUserId(), false), submit->agent,
			submit->conversation);
	set_cause(submission);
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
	values[TASK_TRACEPARENT] =
		text_or_null(submit->traceparent, &submission->nulls[TASK_TRACEPARENT]);
	values[TASK_CONCURRENCY_KEY] =
		text_or_null(submit->concurrency_key,
					 &submission->nulls[TASK_CONCURRENCY_KEY]);
	values[TASK_CONVERSATION] =
		text_or_null(submit->conversation,
					 &submission->nulls[TASK_CONVERSATION]);
	values[TASK_DEPENDS_ON] =
		PointerGetDatum(submit->ndepends_on == 0
							? NULL
							: prom_int8_array(submit->depends_on,
											  submit->ndepends_on));
	submission->nulls[TASK_DEPENDS_ON] = submit->ndepends_on == 0;
	values[TASK_OUTPUT_SCHEMA] = PointerGetDatum(submit->output_schema);
	submission->nulls[TASK_OUTPUT_SCHEMA] = submit->output_schema == NULL;
	values[TASK_PARENT_ID] = Int64GetDatum(submit->parent_id);
	values[TASK_PARENT_STEP] = Int32GetDatum(submit->parent_step);
	values[TASK_DEPTH] = Int32GetDatum(submit->depth);
	submission->nulls[TASK_PARENT_ID] = submission->nulls[TASK_PARENT_STEP] =
		submission->nulls[TASK_DEPTH] = submit->parent_id == 0;
	values[TASK_COMMISSION] = PointerGetDatum(submit->commission);
	submission->nulls[TASK_COMMISSION] = submit->commission == NULL;
	values[TASK_EVOLUTION] = PointerGetDatum(submit->evolution);
	submission->nulls[TASK_EVOLUTION] = submit->evolution == NULL;
	values[TASK_METADATA] = submit->metadata != NULL
								? JsonbPGetDatum(submit->metadata)
								: DirectFunctionCall1(jsonb_in,
													  CStringGetDatum("{}"));
}

/* Add one task, with its hint; its id, or that of the task that has its key. */
static int64
add_task(Submission *submission, const char *request, const char *key)
{
	const PromSubmit *submit = submission->submit;
	PromTrace *trace = palloc(sizeof(PromTrace));
	PromHint hint = {0};
	int64 task_id;

	check_request(request);
	task_id = prom_fact_next_task_id();
	if (key != NULL)
	{
		int64 other = prom_idempotency_claim(submission->writer, key, task_id,
											 submission->values, request);

		if (other != task_id)
			return other;
	}
	if (submit->traceparent != NULL)
		prom_trace_read(submit->traceparent, trace);
	else
		prom_trace_begin(trace);
	submission->values[TASK_ID] = Int64GetDatum(task_id);
	submission->values[TASK_EVENT_ID] = Int64GetDatum(prom_fact_next_id());
	submission->values[TASK_TRACE_ID] = UUIDPGetDatum(&trace->id);
	submission->values[TASK_REQUEST] = CStringGetTextDatum(request);
	PROM_FAULT("submit-before-write");
	prom_fact_add(submission->writer, PROM_FACT_TASK, submission->values,
				  submission->nulls);
	PROM_FAULT("submit-after-write");

	/* What it depends on is in the table. */
	hint.kind = submit->ndepends_on > 0 ? PROM_HINT_READ : PROM_HINT_SUBMIT;
	hint.task_id = task_id;
	hint.target = submission->target;
	hint.key = submission->key;
	hint.conversation = submission->conversation;
	hint.due = submit->has_run_at ? submit->run_at : submission->now;
	hint.deadline = submission->deadline;
	hint.submitter = submission->submitter;
	hint.priority = submit->priority;
	prom_wakeup_hint(&hint);
	prom_tally_submit(submit->agent);
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
	ARG_DEPENDS_ON,
	ARG_CONCURRENCY_KEY,
	ARG_CONVERSATION,
	ARG_OUTPUT_SCHEMA,
	ARG_TIMEOUT,
	ARG_MAX_ATTEMPTS,
	ARG_TRACEPARENT,
	ARG_METADATA
};

/* The name of a key or a conversation, or NULL. */
static char *
name_argument(FunctionCallInfo fcinfo, int n, const char *argument)
{
	char *name = text_argument(fcinfo, n);

	if (name != NULL && (*name == '\0' || strlen(name) > PROM_MAX_KEY))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s must have 1 to %d bytes", argument,
							   PROM_MAX_KEY)));
	return name;
}

static int
compare_ids(const void *a, const void *b)
{
	int64 x = *(const int64 *) a;
	int64 y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

/* The tasks that it depends on, in order and each once. */
static void
read_dependencies(FunctionCallInfo fcinfo, PromSubmit *submit)
{
	Datum *ids;
	bool *nulls;
	int n;

	if (PG_ARGISNULL(ARG_DEPENDS_ON))
		return;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(ARG_DEPENDS_ON), INT8OID,
					  sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &ids,
					  &nulls, &n);
	if (n > PROM_MAX_DEPENDENCIES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("depends_on has too many tasks"),
				 errdetail("It has %d; the limit is %d.", n,
						   PROM_MAX_DEPENDENCIES),
				 errhint("Let a task depend on some of them, and this one on such tasks.")));
	submit->depends_on = palloc(Max(n, 1) * sizeof(int64));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
							errmsg("depends_on must not contain nulls")));
		submit->depends_on[i] = DatumGetInt64(ids[i]);
	}
	qsort(submit->depends_on, n, sizeof(int64), compare_ids);
	for (int i = 0; i < n; i++)
		if (i == 0 || submit->depends_on[i] != submit->depends_on[i - 1])
			submit->depends_on[submit->ndepends_on++] = submit->depends_on[i];
}

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
	read_dependencies(fcinfo, submit);
	submit->concurrency_key = name_argument(fcinfo, ARG_CONCURRENCY_KEY,
											"concurrency_key");
	submit->conversation = name_argument(fcinfo, ARG_CONVERSATION,
										 "conversation");
	if (!PG_ARGISNULL(ARG_OUTPUT_SCHEMA))
		submit->output_schema = PG_GETARG_JSONB_P(ARG_OUTPUT_SCHEMA);
	submit->timeout = -1;
	if (!PG_ARGISNULL(ARG_TIMEOUT))
		submit->timeout =
			interval_us(PG_GETARG_INTERVAL_P(ARG_TIMEOUT), "timeout", 1);
	submit->has_max_attempts = !PG_ARGISNULL(ARG_MAX_ATTEMPTS);
	if (submit->has_max_attempts)
		submit->max_attempts = PG_GETARG_INT32(ARG_MAX_ATTEMPTS);
	submit->traceparent = text_argument(fcinfo, ARG_TRACEPARENT);
	if (submit->traceparent == NULL)
		submit->traceparent = prom_span_current();
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
