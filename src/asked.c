/*
 * asked.c
 *	  Reads a tool call as the model asked for it, from the facts.
 *
 * The process that judges it, and the one that sends it, if it is a request,
 * both read it here: neither believes the other what is to be done.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "act.h"
#include "asked.h"
#include "encoding.h"
#include "provider/provider.h"
#include "schema.h"
#include "xact.h"

/* Bytes of a name that the model calls. */
#define MAX_CALLED 200

static PromStatement turn_statement = {
	"SELECT s.step, s.raw, s.answer, EXISTS (SELECT FROM prometheus._step x"
	"   WHERE x.task_id = $1 AND x.step = $2),"
	"  EXISTS (SELECT FROM prometheus._approval a"
	"   WHERE a.task_id = $1 AND a.step = $2)"
	" FROM prometheus._step s WHERE s.task_id = $1 AND s.step < $2"
	"   AND s.kind = 'chat' AND s.status = 'ok' ORDER BY s.step DESC LIMIT 1",
	2,
	{INT8OID, INT4OID},
	NULL,
};

/* The tool of this name among those that were offered. */
static const PromTool *
find_tool(const PromPromptSource *source, const char *name)
{
	for (int i = 0; i < source->ntools; i++)
		if (strcmp(source->tools[i]->name, name) == 0)
			return source->tools[i];
	return NULL;
}

/* One attempt sends it once. */
static PromStatement calls_statement = {
	"SELECT c.call_id FROM prometheus._call c"
	" WHERE c.task_id = $1 AND c.step = $2 AND c.kind = 'tool'"
	" ORDER BY c.attempt",
	2,
	{INT8OID, INT4OID},
	NULL,
};

static void
read_calls(PromAsked *asked)
{
	Datum values[2] = {Int64GetDatum(asked->task_id),
					   Int32GetDatum(asked->step)};

	prom_statement_run(&calls_statement, values, NULL, true);
	if (SPI_processed > 0)
	{
		asked->first_call = prom_row_int64(0, 1);
		asked->last_call = prom_row_int64(SPI_processed - 1, 1);
	}
	SPI_freetuptable(SPI_tuptable);
}

/* The answer of a task that makes a tool is a call of its own. */
static void
read_candidate(PromAsked *asked, const char *answer)
{
	asked->commission = asked->facts.commission;
	asked->statement = prom_commission_statement(answer != NULL ? answer : "");
	asked->name = PROM_COMMISSION_TOOL;
	asked->arguments = prom_commission_arguments(asked->statement);
	asked->tool = prom_commission_tool();
}

bool
prom_asked_read(int64 task_id, int32 attempt, int32 step, PromAsked *asked)
{
	Datum values[2] = {Int64GetDatum(task_id), Int32GetDatum(step)};
	const PromToolCall *calls = NULL;
	const char *answer;
	const char *raw;
	int ncalls = 0;
	bool regular;

	memset(asked, 0, sizeof(*asked));
	prom_statement_run(&turn_statement, values, NULL, true);
	if (SPI_processed == 0 || prom_row_bool(0, 4))
		return false;
	asked->task_id = task_id;
	asked->attempt = attempt;
	asked->step = step;
	asked->number = step - prom_row_int32(0, 1);
	asked->waited = prom_row_bool(0, 5);
	/* A model that answers with the request has said nothing else. */
	raw = prom_row_text_or_null(0, 2);
	if (raw != NULL)
		calls = prom_toolcall_read(prom_encoding_to_utf8(raw), &ncalls,
								   &regular);
	answer = prom_row_text_or_null(0, 3);
	SPI_freetuptable(SPI_tuptable);
	prom_prompt_read_facts(task_id, attempt, &asked->facts);
	if (ncalls == 0 && asked->number == 1 && asked->facts.commission != NULL)
	{
		read_candidate(asked, answer);
		return true;
	}
	if (asked->number > ncalls)
		elog(ERROR, "task %lld has no tool call for step %d",
			 (long long) task_id, step);
	asked->name = prom_act_clip(
		prom_encoding_from_utf8(calls[asked->number - 1].name), MAX_CALLED);
	asked->arguments =
		prom_encoding_from_utf8(calls[asked->number - 1].arguments);
	asked->tool = find_tool(&asked->facts.source, asked->name);
	if (asked->tool != NULL && asked->tool->is_http)
		read_calls(asked);
	return true;
}

bool
prom_asked_may_repeat(const PromAsked *asked)
{
	return asked->tool->tier == PROM_TIER_READ || asked->tool->idempotent;
}

void
prom_asked_judged(const PromAsked *asked, PromJudged *judged)
{
	memset(judged, 0, sizeof(*judged));
	judged->stage = PROM_STAGE_TOOL;
	judged->task_id = asked->task_id;
	judged->attempt = asked->attempt;
	judged->step = asked->step;
	judged->agent = asked->facts.source.agent;
	judged->submitter = asked->facts.source.submitter;
	judged->submitter_oid = asked->facts.source.submitter_oid;
	judged->mode = asked->facts.mode;
	judged->request = asked->facts.source.request;
	judged->tool = asked->tool;
	judged->arguments = asked->arguments;
	judged->waited = asked->waited;
	if (asked->last_call != 0 && !prom_asked_may_repeat(asked))
		judged->again = asked->last_call;
}

PG_FUNCTION_INFO_V1(prom_calls);

Datum
prom_calls(PG_FUNCTION_ARGS)
{
	const char *raw = prom_encoding_to_utf8(
		text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PromSlice turn = {raw, strlen(raw)};
	StringInfoData json;
	PromToolCall *calls;
	PromSlice list;
	bool regular;
	int n;

	initStringInfo(&json);
	if (prom_json_find(turn, "tool_calls", &list))
		appendBinaryStringInfo(&json, list.data, (int) list.length);
	else
	{
		calls = prom_toolcall_read(raw, &n, &regular);
		if (n == 0)
			PG_RETURN_NULL();
		prom_provider_add_calls(&json, calls, n);
	}
	/* As all that a model wrote: it never raises. */
	PG_RETURN_DATUM(DirectFunctionCall1(
		prom_json, CStringGetTextDatum(prom_encoding_from_utf8(json.data))));
}
