/*
 * query.c
 *	  Has what a task in full mode looks for embedded, before it recalls.
 *
 * It is a call of the task, to another model than its own: through that one's
 * gate, within the budgets, and a step.  What was made is kept by the text
 * (embedded.c), where the recall finds it, and so does the next task that asks
 * the same.  It is tried once in an attempt at a recall: the words of the
 * request are there anyway.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"

#include "admission.h"
#include "batch.h"
#include "course.h"
#include "embedded.h"
#include "encoding.h"
#include "gate.h"
#include "prompt.h"
#include "provider/provider.h"
#include "query.h"
#include "route.h"
#include "spending.h"
#include "step.h"
#include "worker.h"
#include "xact.h"

PromPrompt *
prom_query_prompt(const char *request, const PromModel *model)
{
	PromPrompt *prompt = prom_batch_new_prompt(model, 1);
	Datum left = DirectFunctionCall2(text_left, CStringGetTextDatum(request),
									 Int32GetDatum(PROM_EMBEDDED_CHARACTERS));

	((PromMessage *) prompt->messages)[0].text =
		prom_encoding_words_to_utf8(TextDatumGetCString(left));
	return prompt;
}

/* Which model is asked, for its step. */
static const char *
describe(const PromModel *model)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoString(&json, "{\"model\":");
	escape_json(&json, model->name);
	appendStringInfo(&json, ",\"version\":%lld}", (long long) model->version);
	return json.data;
}

/* The task does without. */
static void
do_without(PromFactWriter *writer, PromAttempt *attempt, const char *why,
		   TimestampTz now)
{
	PromThoughtStep step = {.task_id = attempt->task_id,
							.attempt = attempt->attempt,
							.step = attempt->step,
							.kind = PROM_QUERY_KIND,
							.name = attempt->embedder->name,
							.started_at = now,
							.arguments = describe(attempt->embedder),
							.error = why};

	prom_route_leave(attempt);
	prom_step_add_thought(writer, &step, now);
	attempt->call_id = 0;
	attempt->prompt = NULL;
	attempt->next = PROM_NEXT_GO_ON;
}

/* What has no room now, or is over its rate, soon lets it through. */
static bool
opens_soon(const char *model, TimestampTz now)
{
	const PromGate *gate = prom_gate_find(prom_my_database, PROM_GATE_MODEL,
										  model);

	return gate != NULL && (prom_gate_is_open(gate, now) ||
							prom_gate_is_held(gate, now));
}

static void
send(PromFactWriter *writer, PromAttempt *attempt, const PromLoaded *loaded,
	 const PromEmbedded *embedded, TimestampTz now)
{
	const PromModel *model = attempt->embedder;
	const char *poor;
	int64 tokens;

	attempt->prompt = prom_query_prompt(embedded->text, model);
	tokens = prom_prompt_tokens(attempt->prompt);
	if (!prom_route_fits(attempt, model->name, tokens, now))
	{
		prom_admission_park(writer, attempt, loaded, model->name, true, now);
		return;
	}
	poor = prom_spending_reserve(attempt, model, loaded, tokens);
	if (poor != NULL)
	{
		do_without(writer, attempt, poor, now);
		return;
	}
	attempt->call_id = prom_fact_next_id();
	prom_course_add_call(writer, attempt, PROM_QUERY_CALL);
	attempt->next = PROM_NEXT_SEND;
}

bool
prom_query_begin(PromFactWriter *writer, PromAttempt *attempt,
				 const PromLoaded *loaded, TimestampTz now)
{
	const char *request = TextDatumGetCString(loaded->request);
	PromEmbedded embedded;
	bool reached;

	if (prom_provider_is_blank(request) ||
		!prom_embedded_read(loaded->agent, loaded->source.submitter, request,
							&embedded) ||
		embedded.embedding != NULL)
		return false;
	attempt->sent_at = now;
	attempt->call_id = attempt->event_id = 0;
	/* Through its own model's gate it goes again after this. */
	prom_route_leave(attempt);
	reached = prom_route_reviewer(attempt, embedded.model, now,
								  &attempt->embedder);
	if (attempt->embedder == NULL)
		return false;
	attempt->thought = PROM_THOUGHT_EMBED;
	if (reached)
		send(writer, attempt, loaded, &embedded, now);
	else if (opens_soon(embedded.model, now))
		prom_admission_park(writer, attempt, loaded, embedded.model, true, now);
	else
		do_without(writer, attempt, "there is no way to its model now", now);
	return true;
}

#define REQUEST_HASH PROM_EMBEDDED_HASH("$2", "t.submitter", "t.request")

static PromStatement hash_statement = {
	"SELECT " REQUEST_HASH " FROM prometheus._task t"
	" WHERE t.task_id = $1",
	2,
	{INT8OID, TEXTOID},
	NULL,
};

/* By the version of the model that was asked, whatever it is now. */
static void
keep(const PromAttempt *attempt, const PromReply *reply)
{
	const char *space = prom_embedded_space(attempt->embedder);
	Datum values[2] = {Int64GetDatum(attempt->task_id),
					   CStringGetTextDatum(space)};
	const char *hash;

	prom_statement_run(&hash_statement, values, NULL, true);
	if (SPI_processed == 0)
		elog(ERROR, "there is no task %lld", (long long) attempt->task_id);
	hash = prom_row_text(0, 1);
	SPI_freetuptable(SPI_tuptable);
	prom_embedded_add(space, hash,
					  prom_embedded_array(reply->vectors, reply->dimensions));
}

void
prom_query_record(PromFactWriter *writer, PromAttempt *attempt,
				  const PromReply *reply, TimestampTz now)
{
	const char *said = NULL;

	if (reply->ok)
	{
		keep(attempt, reply);
		said = psprintf("{\"dimensions\": %d}", reply->dimensions);
	}
	prom_step_add_reply(writer, attempt, PROM_QUERY_KIND,
						describe(attempt->embedder), said, reply, now);
	prom_spending_settle(attempt, attempt->embedder, reply);
	attempt->tokens_now = prom_reply_tokens(reply);
	attempt->next = PROM_NEXT_GO_ON;
}
