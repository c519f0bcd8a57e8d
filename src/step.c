/*
 * step.c
 *	  Writes the facts of steps: what came of a call, and what it cost.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "encoding.h"
#include "step.h"
#include "tally.h"
#include "xact.h"

Datum
prom_step_cost(const PromModel *model, int64 tokens_in, int64 cached_tokens,
			   int64 tokens_out, bool *isnull)
{
	Numeric million = int64_to_numeric(1000000);
	Datum cost = NumericGetDatum(int64_to_numeric(0));
	int64 cached = model->price_cached == NULL
					   ? 0
					   : Min(Max(cached_tokens, 0), Max(tokens_in, 0));
	const struct
	{
		const char *price;
		int64 tokens;
	} parts[] = {
		{model->price_in, tokens_in - cached},
		{cached > 0 ? model->price_cached : NULL, cached},
		{model->price_out, tokens_out},
	};

	*isnull = true;
	for (int i = 0; i < lengthof(parts); i++)
	{
		Datum price;

		if (parts[i].price == NULL || parts[i].tokens < 0)
			continue;
		price = DirectFunctionCall3(numeric_in, CStringGetDatum(parts[i].price),
									ObjectIdGetDatum(InvalidOid),
									Int32GetDatum(-1));
		price = DirectFunctionCall2(numeric_mul, price,
									NumericGetDatum(
										int64_to_numeric(parts[i].tokens)));
		cost = DirectFunctionCall2(numeric_add, cost, price);
		*isnull = false;
	}
	return DirectFunctionCall1(numeric_trim_scale,
							   DirectFunctionCall2(numeric_div, cost,
												   NumericGetDatum(million)));
}

#define MOST_TOKENS 10000000

int64
prom_reply_tokens(const PromReply *reply)
{
	return Min(Max(reply->tokens_in, 0), MOST_TOKENS) +
		   Min(Max(reply->tokens_out, 0), MOST_TOKENS);
}

static Datum
count_or_null(int64 count, bool *isnull)
{
	*isnull = count < 0;
	return Int64GetDatum(count);
}

static Datum
ms_or_null(double ms, bool *isnull)
{
	*isnull = ms < 0;
	return Float4GetDatum((float4) ms);
}

/* Whose reply it is, or by what it is found again for an equal request. */
static void
fill_reuse(Datum *values, bool *nulls, const PromAttempt *attempt,
		   const PromReply *reply)
{
	Size size = VARHDRSZ + sizeof(attempt->request_hash);
	bytea *hash;

	nulls[STEP_REPLY] = true;
	values[STEP_REUSED] = Int64GetDatum(attempt->reused);
	nulls[STEP_REUSED] = attempt->reused == 0;
	nulls[STEP_REQUEST_HASH] = !attempt->has_hash || attempt->reused != 0 ||
							   !reply->ok;
	if (attempt->reused != 0)
	{
		values[STEP_COST] = NumericGetDatum(int64_to_numeric(0));
		nulls[STEP_COST] = false;
	}
	if (nulls[STEP_REQUEST_HASH])
		return;
	hash = palloc(size);
	SET_VARSIZE(hash, size);
	memcpy(VARDATA(hash), attempt->request_hash, size - VARHDRSZ);
	values[STEP_REQUEST_HASH] = PointerGetDatum(hash);
}

/* What a model replied; what it was asked is in other facts. */
static void
fill_reply(Datum *values, bool *nulls, const PromAttempt *attempt,
		   const PromReply *reply, TimestampTz now)
{
	const PromModel *model = prom_attempt_called(attempt);

	memset(nulls, false, STEP_COLUMNS * sizeof(bool));
	values[STEP_TASK_ID] = Int64GetDatum(attempt->task_id);
	values[STEP_STEP] = Int32GetDatum(attempt->step);
	values[STEP_ATTEMPT] = Int32GetDatum(attempt->attempt);
	values[STEP_EVENT_ID] = Int64GetDatum(
		attempt->event_id != 0 ? attempt->event_id : prom_fact_next_id());
	values[STEP_CALL_ID] = Int64GetDatum(attempt->call_id);
	nulls[STEP_CALL_ID] = attempt->call_id == 0;
	values[STEP_STARTED_AT] = TimestampTzGetDatum(attempt->sent_at);
	values[STEP_ENDED_AT] = TimestampTzGetDatum(now);
	values[STEP_TOKENS_IN] = count_or_null(reply->tokens_in,
										   &nulls[STEP_TOKENS_IN]);
	values[STEP_TOKENS_OUT] = count_or_null(reply->tokens_out,
											&nulls[STEP_TOKENS_OUT]);
	values[STEP_CACHED_TOKENS] = count_or_null(reply->cached_tokens,
											   &nulls[STEP_CACHED_TOKENS]);
	values[STEP_REASONING_TOKENS] =
		count_or_null(reply->reasoning_tokens, &nulls[STEP_REASONING_TOKENS]);
	values[STEP_HTTP_STATUS] = Int32GetDatum(reply->http_status);
	nulls[STEP_HTTP_STATUS] = reply->http_status == 0;
	values[STEP_AMBIGUOUS] = BoolGetDatum(reply->ambiguous);
	values[STEP_CONNECT_MS] = ms_or_null(reply->connect_ms,
										 &nulls[STEP_CONNECT_MS]);
	values[STEP_FIRST_BYTE_MS] = ms_or_null(reply->first_byte_ms,
											&nulls[STEP_FIRST_BYTE_MS]);
	values[STEP_KIND] = CStringGetTextDatum("chat");
	values[STEP_NAME] = CStringGetTextDatum(model->name);
	values[STEP_STATUS] = CStringGetTextDatum(reply->ok ? "ok" : "error");
	values[STEP_MODEL] =
		CStringGetTextDatum(model->model != NULL ? model->model : model->name);
	values[STEP_COST] = prom_step_cost(model, reply->tokens_in,
									   reply->cached_tokens,
									   reply->tokens_out, &nulls[STEP_COST]);
	values[STEP_FINISH_REASON] =
		prom_fact_text(prom_encoding_from_utf8(reply->finish_reason),
					   &nulls[STEP_FINISH_REASON]);
	values[STEP_REQUEST_ID] = prom_fact_text(
		prom_encoding_from_utf8(reply->request_id), &nulls[STEP_REQUEST_ID]);
	values[STEP_ERROR_TYPE] =
		prom_fact_text(reply->ok ? NULL : reply->error_type,
					   &nulls[STEP_ERROR_TYPE]);
	values[STEP_ERROR] =
		prom_fact_text(reply->ok ? NULL : prom_encoding_from_utf8(reply->error),
					   &nulls[STEP_ERROR]);
	values[STEP_ANSWER] = prom_fact_text(prom_encoding_from_utf8(reply->answer),
										 &nulls[STEP_ANSWER]);
	values[STEP_RAW] = prom_fact_text(prom_encoding_from_utf8(reply->raw),
									  &nulls[STEP_RAW]);
	values[STEP_CALLS] = Int32GetDatum(reply->ncalls);
	nulls[STEP_CALLS] = reply->ncalls == 0;
	nulls[STEP_ARGUMENTS] = nulls[STEP_TOOL_VERSION] = true;
	fill_reuse(values, nulls, attempt, reply);
}

static PromStatement exists_statement = {
	"SELECT FROM prometheus._step s WHERE s.task_id = $1 AND s.step = $2",
	2,
	{INT8OID, INT4OID},
	NULL,
};

bool
prom_step_exists(int64 task_id, int32 step)
{
	Datum values[2] = {Int64GetDatum(task_id), Int32GetDatum(step)};

	prom_statement_run(&exists_statement, values, NULL, true);
	return SPI_processed > 0;
}

static void
add_step(PromFactWriter *writer, const Datum *values, const bool *nulls,
		 const char *kind, const char *status)
{
	prom_fact_add(writer, PROM_FACT_STEP, values, nulls);
	prom_tally_step(kind, status,
					DatumGetTimestampTz(values[STEP_STARTED_AT]),
					DatumGetTimestampTz(values[STEP_ENDED_AT]));
}

/* status: NULL is the reply's. */
static void
add_reply(PromFactWriter *writer, const Datum *values, const bool *nulls,
		  const PromAttempt *attempt, const char *kind, const char *status,
		  const PromReply *reply)
{
	if (status == NULL)
		status = reply->ok ? "ok" : "error";
	add_step(writer, values, nulls, kind, status);
	/* Nothing was asked for one that is used again. */
	if (attempt->reused != 0)
		return;
	prom_tally_reply(attempt, DatumGetInt64(values[STEP_EVENT_ID]), kind,
					 reply,
					 nulls[STEP_COST] ? NULL : &values[STEP_COST],
					 DatumGetTimestampTz(values[STEP_ENDED_AT]));
}

void
prom_step_add_chat(PromFactWriter *writer, const PromAttempt *attempt,
				   const PromReply *reply, TimestampTz now)
{
	Datum values[STEP_COLUMNS] = {0};
	bool nulls[STEP_COLUMNS];

	fill_reply(values, nulls, attempt, reply, now);
	add_reply(writer, values, nulls, attempt, "chat", NULL, reply);
}

void
prom_step_add_reply(PromFactWriter *writer, const PromAttempt *attempt,
					const char *kind, const char *arguments,
					const char *said, const PromReply *reply, TimestampTz now)
{
	Datum values[STEP_COLUMNS] = {0};
	bool nulls[STEP_COLUMNS];

	fill_reply(values, nulls, attempt, reply, now);
	values[STEP_KIND] = CStringGetTextDatum(kind);
	nulls[STEP_CALLS] = true;
	values[STEP_ARGUMENTS] = prom_fact_text(arguments,
											&nulls[STEP_ARGUMENTS]);
	if (said != NULL)
	{
		values[STEP_REPLY] = values[STEP_ANSWER];
		nulls[STEP_REPLY] = nulls[STEP_REQUEST_HASH];
		values[STEP_ANSWER] = prom_fact_text(said, &nulls[STEP_ANSWER]);
	}
	add_reply(writer, values, nulls, attempt, kind, NULL, reply);
}

void
prom_step_add_counsel(PromFactWriter *writer, const PromAttempt *attempt,
					  const PromStepCounsel *step, const PromReply *reply,
					  TimestampTz now)
{
	Datum values[STEP_COLUMNS] = {0};
	bool nulls[STEP_COLUMNS];

	fill_reply(values, nulls, attempt, reply, now);
	values[STEP_KIND] = CStringGetTextDatum("review");
	values[STEP_NAME] = CStringGetTextDatum(step->policy);
	values[STEP_ARGUMENTS] = CStringGetTextDatum(step->judged);
	nulls[STEP_ARGUMENTS] = false;
	if (step->veto != NULL)
	{
		values[STEP_STATUS] = CStringGetTextDatum("vetoed");
		values[STEP_ERROR_TYPE] = CStringGetTextDatum("GovernanceVeto");
		values[STEP_ERROR] = CStringGetTextDatum(step->veto);
		nulls[STEP_ERROR_TYPE] = nulls[STEP_ERROR] = false;
	}
	add_reply(writer, values, nulls, attempt, "review",
			  step->veto != NULL ? "vetoed" : NULL, reply);
}

/* What every step has that no provider took part in; the rest is NULL. */
static void
fill_step(Datum *values, bool *nulls, int64 task_id, int32 attempt, int32 step,
		  TimestampTz started_at, TimestampTz now)
{
	static const int filled[] = {STEP_TASK_ID, STEP_STEP, STEP_ATTEMPT,
								 STEP_EVENT_ID, STEP_STARTED_AT,
								 STEP_ENDED_AT, STEP_AMBIGUOUS, STEP_KIND,
								 STEP_NAME, STEP_STATUS};

	memset(nulls, true, STEP_COLUMNS * sizeof(bool));
	for (int i = 0; i < lengthof(filled); i++)
		nulls[filled[i]] = false;
	values[STEP_TASK_ID] = Int64GetDatum(task_id);
	values[STEP_STEP] = Int32GetDatum(step);
	values[STEP_ATTEMPT] = Int32GetDatum(attempt);
	values[STEP_EVENT_ID] = Int64GetDatum(prom_fact_next_id());
	values[STEP_STARTED_AT] = TimestampTzGetDatum(started_at);
	values[STEP_ENDED_AT] = TimestampTzGetDatum(now);
	values[STEP_AMBIGUOUS] = BoolGetDatum(false);
}

void
prom_step_add_thought(PromFactWriter *writer, const PromThoughtStep *step,
					  TimestampTz now)
{
	Datum values[STEP_COLUMNS] = {0};
	bool nulls[STEP_COLUMNS];

	fill_step(values, nulls, step->task_id, step->attempt, step->step,
			  step->started_at, now);
	values[STEP_KIND] = CStringGetTextDatum(step->kind);
	values[STEP_NAME] = CStringGetTextDatum(step->name);
	values[STEP_STATUS] =
		CStringGetTextDatum(step->error == NULL ? "ok" : "error");
	values[STEP_ERROR] = prom_fact_text(step->error, &nulls[STEP_ERROR]);
	values[STEP_ANSWER] = prom_fact_text(step->answer, &nulls[STEP_ANSWER]);
	values[STEP_ARGUMENTS] = prom_fact_text(step->arguments,
											&nulls[STEP_ARGUMENTS]);
	add_step(writer, values, nulls, step->kind,
			 step->error == NULL ? "ok" : "error");
}

void
prom_step_add_review(PromFactWriter *writer, const PromStepReview *step,
					 TimestampTz now)
{
	Datum values[STEP_COLUMNS] = {0};
	bool nulls[STEP_COLUMNS];

	fill_step(values, nulls, step->task_id, step->attempt, step->step,
			  step->started_at, now);
	values[STEP_KIND] = CStringGetTextDatum("review");
	values[STEP_NAME] = CStringGetTextDatum(step->stage);
	values[STEP_STATUS] =
		CStringGetTextDatum(step->veto == NULL ? "ok" : "vetoed");
	values[STEP_ERROR_TYPE] =
		prom_fact_text(step->veto == NULL ? NULL : "GovernanceVeto",
					   &nulls[STEP_ERROR_TYPE]);
	values[STEP_ERROR] = prom_fact_text(step->veto, &nulls[STEP_ERROR]);
	add_step(writer, values, nulls, "review",
			 step->veto == NULL ? "ok" : "vetoed");
}

/* How a tool call ended, and the type of its error. */
static const char *
status_of(const PromToolStep *step, const char **error_type)
{
	*error_type = step->vetoed ? "GovernanceVeto" : "ToolError";
	if (step->error_type != NULL)
		*error_type = step->error_type;
	if (step->error != NULL && step->unknown)
		return "unknown";
	if (step->error != NULL)
		return step->vetoed ? "vetoed" : "error";
	*error_type = NULL;
	return "ok";
}

/* What a step has of its request on the network. */
static void
fill_request(Datum *values, bool *nulls, const PromToolStep *step)
{
	values[STEP_CALL_ID] = Int64GetDatum(step->call_id);
	nulls[STEP_CALL_ID] = false;
	values[STEP_AMBIGUOUS] = BoolGetDatum(step->ambiguous);
	values[STEP_HTTP_STATUS] = Int32GetDatum(step->http_status);
	nulls[STEP_HTTP_STATUS] = step->http_status == 0;
	values[STEP_REQUEST_ID] = prom_fact_text(step->request_id,
											 &nulls[STEP_REQUEST_ID]);
	values[STEP_CONNECT_MS] = ms_or_null(step->connect_ms,
										 &nulls[STEP_CONNECT_MS]);
	values[STEP_FIRST_BYTE_MS] = ms_or_null(step->first_byte_ms,
											&nulls[STEP_FIRST_BYTE_MS]);
}

void
prom_step_add_tool(PromFactWriter *writer, const PromToolStep *step,
				   TimestampTz now)
{
	Datum values[STEP_COLUMNS] = {0};
	bool nulls[STEP_COLUMNS];
	const char *error_type;

	fill_step(values, nulls, step->task_id, step->attempt, step->step,
			  step->started_at, now);
	values[STEP_KIND] = CStringGetTextDatum("tool");
	values[STEP_NAME] = CStringGetTextDatum(step->name);
	values[STEP_STATUS] = CStringGetTextDatum(status_of(step, &error_type));
	values[STEP_ERROR_TYPE] = prom_fact_text(error_type,
											 &nulls[STEP_ERROR_TYPE]);
	values[STEP_ERROR] = prom_fact_text(step->error, &nulls[STEP_ERROR]);
	values[STEP_ANSWER] = prom_fact_text(step->result, &nulls[STEP_ANSWER]);
	values[STEP_ARGUMENTS] =
		prom_fact_text(step->arguments, &nulls[STEP_ARGUMENTS]);
	values[STEP_TOOL_VERSION] = Int64GetDatum(step->tool_version);
	nulls[STEP_TOOL_VERSION] = step->tool_version == 0;
	if (step->call_id != 0)
		fill_request(values, nulls, step);
	add_step(writer, values, nulls, "tool", status_of(step, &error_type));
}
