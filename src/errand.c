/*
 * errand.c
 *	  Tool calls that are requests on the network: who may send them, and what
 *	  is written of them.
 *
 * An executor judges a call, since conditions of policies are the code of
 * others, and writes the verdict; the step stays open.  The caller looks for
 * that verdict when it writes its intent: the same call, with exactly these
 * arguments, judged in this attempt by the policies of now.  It reads the call
 * itself, so nothing that an executor says can make it send another one.
 *
 * A call without a step was sent, or may have been, by a caller that has ended.
 * What only reads is then sent again, and so is what the endpoint does once for
 * each Idempotency-Key, which is the id of the first call.  Of anything else
 * nobody knows whether it was done: the model is told so, and what cannot be
 * undone is a person's to decide.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "act.h"
#include "encoding.h"
#include "endpoint.h"
#include "errand.h"
#include "fault.h"
#include "learning.h"
#include "trace.h"
#include "xact.h"

/* The verdict that lets a call be sent: by rules, or a person whom they ask. */
static PromStatement verdict_statement = {
	"SELECT FROM prometheus._verdict v WHERE v.task_id = $1 AND v.step = $2"
	" AND v.attempt = $3 AND v.stage = 'tool' AND v.approved"
	" AND v.target_hash = $4 AND v.policy_version = $5"
	" AND v.governor IN ('JUSTICA', 'policy') LIMIT 1",
	5,
	{INT8OID, INT4OID, INT4OID, TEXTOID, INT8OID},
	NULL,
};

static bool
is_approved(const PromJudged *judged, int64 policy_version)
{
	Datum values[5] = {Int64GetDatum(judged->task_id),
					   Int32GetDatum(judged->step),
					   Int32GetDatum(judged->attempt),
					   CStringGetTextDatum(prom_judge_hash(judged)),
					   Int64GetDatum(policy_version)};
	bool found;

	prom_statement_run(&verdict_statement, values, NULL, true);
	found = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return found;
}

static const char *
unknown_words(const char *why)
{
	return psprintf("nobody knows whether it was done: %s", why);
}

const char *
prom_errand_sent_before(int64 call_id, const char *reason)
{
	return psprintf("it was sent before (call %lld), and nobody knows whether it was done; to approve it is to send it again: %s",
					(long long) call_id, reason == NULL ? "" : reason);
}

/* It was sent by a process that has ended, and is not sent again. */
static void
make_unknown(const PromAsked *asked, const char *why, PromToolStep *step)
{
	step->vetoed = false;
	step->unknown = step->ambiguous = true;
	step->call_id = asked->last_call;
	step->error = unknown_words(
		why == NULL ? "it was sent, and the process that waited for the response ended"
					: psprintf("it was sent, and the process that waited for the response ended; it was not sent again: %s",
							   why));
}

static void
write_step(const PromToolStep *step)
{
	PromFactWriter *writer = prom_fact_begin();

	prom_step_add_tool(writer, step, GetCurrentTimestamp());
	prom_fact_end(writer);
}

void
prom_errand_judge(PromJob *job, const PromAsked *asked, PromToolStep *step)
{
	bool was_sent = asked->last_call != 0;
	bool may_repeat = prom_asked_may_repeat(asked);
	PromJudged judged;
	PromVerdict verdict;
	const char *problem = NULL;
	PromFactWriter *writer;

	step->connect_ms = step->first_byte_ms = -1;
	prom_asked_judged(asked, &judged);
	if (step->error == NULL && was_sent && !may_repeat &&
		asked->tool->tier == PROM_TIER_WRITE)
		make_unknown(asked, NULL, step);
	else if (step->error == NULL)
	{
		problem = prom_endpoint_problem(asked->tool, asked->arguments);
		if (problem != NULL)
			step->error = prom_act_clip(psprintf("arguments %s", problem),
										PROM_ACT_MAX_ERROR);
	}
	if (step->error != NULL)
	{
		if (was_sent && !step->unknown && asked->tool->tier != PROM_TIER_READ)
			make_unknown(asked, step->error, step);
		prom_act_check_wanted(job);
		write_step(step);
		return;
	}
	/* Was it judged, and only the word of that was lost? */
	if (is_approved(&judged, prom_policies()->version))
	{
		job->send = true;
		return;
	}
	if (!prom_act_judge(job, &judged, asked->facts.agent, &verdict, step))
		return;
	prom_act_check_wanted(job);
	writer = prom_fact_begin();
	/* What a model said was recorded when it was asked; it is a veto here. */
	if (verdict.opinion == NULL)
		prom_verdict_add(writer, &judged, &verdict, GetCurrentTimestamp());
	if (step->error == NULL)
		job->send = true;
	else
	{
		if (was_sent && asked->tool->tier != PROM_TIER_READ)
			make_unknown(asked, verdict.reasoning, step);
		prom_step_add_tool(writer, step, GetCurrentTimestamp());
	}
	prom_fact_end(writer);
	if (step->vetoed)
		prom_learn(&judged, &verdict);
}


/* The caller's part. */

static void
add_call(PromFactWriter *writer, const PromErrand *errand, int number,
		 const char *tool)
{
	Datum values[CALL_COLUMNS] = {0};
	bool nulls[CALL_COLUMNS] = {false};

	values[CALL_ID] = Int64GetDatum(errand->call_id);
	values[CALL_TASK_ID] = Int64GetDatum(errand->task_id);
	values[CALL_ATTEMPT] = Int32GetDatum(errand->attempt);
	values[CALL_TURN] = Int32GetDatum(errand->turn);
	/* The turn of the model itself has number 1. */
	values[CALL_CALL] = Int32GetDatum(number + 1);
	values[CALL_SENT_AT] = TimestampTzGetDatum(errand->sent_at);
	values[CALL_KIND] = CStringGetTextDatum("tool");
	values[CALL_TARGET] = CStringGetTextDatum(psprintf("tool:%s", tool));
	nulls[CALL_RESERVED] = nulls[CALL_RESERVED_TOKENS] = true;
	values[CALL_STEP] = Int32GetDatum(errand->step);
	prom_fact_add(writer, PROM_FACT_CALL, values, nulls);
}

/*
 * What is read of a task may be large, and a turn has many errands: it is
 * read in a context that goes at once, but for what is written and sent.
 */
static MemoryContext
begin_reading(void)
{
	return MemoryContextSwitchTo(
		AllocSetContextCreate(CurrentMemoryContext, "prometheus errand",
							  ALLOCSET_DEFAULT_SIZES));
}

static void
end_reading(MemoryContext before)
{
	MemoryContextDelete(MemoryContextSwitchTo(before));
}

static char *
copy_to(MemoryContext context, const char *text)
{
	return text == NULL ? NULL : MemoryContextStrdup(context, text);
}

/* Read what is to be sent, if that may be; what is next. */
static PromErrandNext
read_errand(PromErrand *errand, MemoryContext keep, PromAsked *asked)
{
	PromJudged judged;
	PromEndpointRequest request;
	PromFetchSpec *spec = &errand->spec;

	if (!prom_asked_read(errand->task_id, errand->attempt, errand->step, asked))
		return PROM_ERRAND_END;
	if (asked->tool == NULL || !asked->tool->is_http)
		return PROM_ERRAND_JUDGE;
	prom_asked_judged(asked, &judged);
	if (!is_approved(&judged, prom_policies()->version) ||
		prom_endpoint_make(asked->tool, prom_encoding_to_utf8(asked->arguments),
						   &request) != NULL)
		return PROM_ERRAND_JUDGE;
	spec->method = copy_to(keep, asked->tool->method);
	spec->url = copy_to(keep, request.url);
	spec->body = copy_to(keep, request.body);
	spec->secret = copy_to(keep, asked->tool->secret);
	spec->timeout = asked->facts.agent->tool_timeout;
	spec->max_result = asked->facts.agent->max_result;
	spec->key = asked->tool->idempotent ? asked->first_call : 0;
	return PROM_ERRAND_SEND;
}

/* The header that tells the endpoint of its trace. */
static const char *
trace_of(const PromErrand *errand)
{
	char *header = palloc(PROM_TRACE_HEADER_SIZE);
	PromTrace trace;

	if (!prom_trace_of_task(errand->task_id, &trace))
		return NULL;
	prom_trace_header(header, &trace, errand->call_id);
	return header;
}

void
prom_errand_intend(PromFactWriter *writer, PromErrand *errand, TimestampTz now)
{
	MemoryContext before = begin_reading();
	char *tool = NULL;
	bool is_idempotent = false;
	PromAsked asked;

	errand->next = read_errand(errand, before, &asked);
	if (errand->next == PROM_ERRAND_SEND)
	{
		tool = copy_to(before, asked.tool->name);
		is_idempotent = asked.tool->idempotent;
	}
	end_reading(before);
	if (errand->next != PROM_ERRAND_SEND)
		return;
	errand->call_id = prom_fact_next_id();
	errand->sent_at = now;
	errand->spec.trace = trace_of(errand);
	if (is_idempotent && errand->spec.key == 0)
		errand->spec.key = errand->call_id;
	add_call(writer, errand, asked.number, tool);
}

/* What is too long is cut, and says so. */
static const char *
result_text(const PromFetchResult *result, int64 max_result)
{
	const char *text = prom_encoding_from_utf8(result->text);
	int whole = strlen(text);
	int length;

	if (whole <= max_result && !result->is_cut)
		return text;
	length = prom_encoding_clip(text, whole, Min(whole, max_result));
	return psprintf("%.*s\n[cut: the first %d bytes; ask for less]", length,
					text, length);
}

void
prom_errand_record(PromFactWriter *writer, PromErrand *errand, TimestampTz now)
{
	const PromFetchResult *result = prom_fetch_result(errand->fetch);
	MemoryContext before = begin_reading();
	PromToolStep step = {.task_id = errand->task_id,
						 .attempt = errand->attempt,
						 .step = errand->step,
						 .started_at = errand->sent_at,
						 .call_id = errand->call_id,
						 .http_status = result->http_status,
						 .connect_ms = result->connect_ms,
						 .first_byte_ms = result->first_byte_ms};
	bool is_there;
	bool changes = false;
	int64 max_result = 0;
	PromAsked asked;

	errand->next = PROM_ERRAND_END;
	is_there = !prom_asked_read(errand->task_id, errand->attempt, errand->step,
								&asked);
	if (!is_there)
	{
		step.name = copy_to(before, asked.name);
		step.arguments = copy_to(before, asked.arguments);
		changes = asked.tool->tier != PROM_TIER_READ;
		max_result = asked.facts.agent->max_result;
	}
	end_reading(before);
	if (is_there)
		return;
	step.request_id = prom_encoding_from_utf8(result->request_id);
	if (errand->problem != NULL)
		step.error = psprintf("it was sent, and its result cannot be recorded: %s",
							  errand->problem);
	else if (result->error == NULL)
		step.result = result_text(result, max_result);
	else
		step.error = prom_encoding_from_utf8(result->error);
	/* What only reads has failed, whatever the server may have done. */
	step.ambiguous = result->ambiguous &&
					 (changes || result->http_status < 300);
	if (step.error != NULL && result->ambiguous && changes)
	{
		step.unknown = true;
		step.error = unknown_words(step.error);
	}
	prom_step_add_tool(writer, &step, now);
}
