/*
 * recall.c
 *	  Finds what an agent remembers that fits a task, once, as a step of it.
 *
 * The memories are those of who submitted the task: identity, experiences,
 * facts, procedures and what was consolidated, a few of each (the numbers are
 * those of the system that this one follows).  The step has them as JSON, and
 * each prompt of the task has that step: what is remembered later does not
 * change what the model was told.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/timeout.h"

#include "act.h"
#include "memory.h"
#include "prompt.h"
#include "recall.h"
#include "step.h"
#include "xact.h"

/* Bytes of one memory that are told. */
#define MAX_CONTENT 2000

/* How many of a kind; identity is not looked for by words. */
static const struct
{
	const char *kind;
	int k;
	bool fits;
} parts[] = {
	{"core", 5, false},
	{"episodic", 3, true},
	{"semantic", 3, true},
	{"procedural", 3, true},
	{"vault", 2, true},
};

static PromStatement done_statement = {
	"SELECT FROM prometheus._step s WHERE s.task_id = $1 AND s.step = $2",
	2,
	{INT8OID, INT4OID},
	NULL,
};

static ArrayType *
kind_array(const char *kind)
{
	Datum value = CStringGetTextDatum(kind);

	return construct_array(&value, 1, TEXTOID, -1, false, TYPALIGN_INT);
}

/* Append the memories that were found, if any, as a member of the object. */
static void
append_found(StringInfo json, const char *kind)
{
	if (SPI_processed == 0)
		return;
	appendStringInfo(json, "%s\"%s\":[", json->len > 1 ? "," : "", kind);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		appendStringInfo(json, "%s{\"memory_id\":%lld,\"content\":",
						 i > 0 ? "," : "", (long long) prom_row_int64(i, 1));
		escape_json(json, prom_act_clip(prom_row_text(i, 3), MAX_CONTENT));
		appendStringInfoChar(json, '}');
	}
	appendStringInfoChar(json, ']');
}

static void
find(const PromPromptFacts *facts, StringInfo json)
{
	PromMemoryOwner owner = {.name = facts->source.submitter,
							 .oid = facts->source.submitter_oid,
							 .agent = facts->source.agent};

	appendStringInfoChar(json, '{');
	for (int i = 0; i < lengthof(parts); i++)
	{
		PromMemoryQuery query = {.text = parts[i].fits ? facts->source.request
													   : "",
								 .kinds = kind_array(parts[i].kind),
								 .k = parts[i].k};

		prom_memory_find(&owner, &query);
		append_found(json, parts[i].kind);
		SPI_freetuptable(SPI_tuptable);
	}
	appendStringInfoChar(json, '}');
}

/* It may have come just after the end. */
static void
disarm(void)
{
	disable_timeout(STATEMENT_TIMEOUT, false);
	QueryCancelPending = false;
}

typedef struct Finding
{
	const PromPromptFacts *facts;
	int64 timeout; /* ms */
	StringInfo json;
} Finding;

static void
find_soon(void *arg)
{
	Finding *finding = arg;

	enable_timeout_after(STATEMENT_TIMEOUT, (int) finding->timeout);
	find(finding->facts, finding->json);
	disarm();
}

/* The same in a subtransaction, for so many ms: why it failed, or NULL. */
static const char *
try_find(const PromPromptFacts *facts, int64 timeout, StringInfo json)
{
	Finding finding = {facts, timeout, json};
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  timeout);
	ErrorData *failure = prom_xact_try(find_soon, &finding);

	if (failure == NULL)
		return NULL;
	disarm();
	if (failure->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		GetCurrentTimestamp() >= end)
		return "nothing was found within tool_timeout";
	return failure->message;
}

void
prom_act_recall(PromJob *job)
{
	Datum values[2] = {Int64GetDatum(job->task_id), Int32GetDatum(job->step)};
	PromThoughtStep step = {.task_id = job->task_id,
							.attempt = job->attempt,
							.step = job->step,
							.kind = "recall",
							.name = "memory",
							.started_at = GetCurrentTimestamp()};
	PromPromptFacts facts;
	PromFactWriter *writer;
	StringInfoData json;

	prom_statement_run(&done_statement, values, NULL, true);
	if (SPI_processed > 0)
		return;
	prom_prompt_read_facts(job->task_id, job->attempt, &facts);
	initStringInfo(&json);
	step.error = prom_act_refused(job);
	if (step.error == NULL)
		step.error = try_find(
			&facts,
			prom_act_time_left(facts.agent->tool_timeout, job, step.started_at),
			&json);
	prom_act_check_wanted(job);
	if (step.error == NULL)
		step.answer = json.data;
	writer = prom_fact_begin();
	prom_step_add_thought(writer, &step, GetCurrentTimestamp());
	prom_fact_end(writer);
}
