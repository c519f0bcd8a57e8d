/*
 * thought.c
 *	  What a task asks its model beside its turns: to sum up what was said
 *	  before; in full mode for a plan, and to look back at its answer.
 *
 * Each is a call and a step like a turn, and is never offered as one: the next
 * prompts have of it what the step says.  A plan that cannot be had is no
 * reason to fail, nor is a reflection: the task goes on without.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "act.h"
#include "answer.h"
#include "conversation.h"
#include "encoding.h"
#include "evidence.h"
#include "handler.h"
#include "judge.h"
#include "outcome.h"
#include "plan.h"
#include "query.h"
#include "reflection.h"
#include "schema.h"
#include "spending.h"
#include "step.h"
#include "thought.h"
#include "xact.h"

const char *
prom_thought_name(PromThought thought)
{
	if (thought == PROM_THOUGHT_SUMMARY)
		return "recall";
	if (thought == PROM_THOUGHT_EMBED)
		return PROM_QUERY_KIND;
	return thought == PROM_THOUGHT_PLAN ? "plan" : "reflect";
}

/* What its reply must fit. */
static const char *
schema_of(PromThought thought)
{
	return thought == PROM_THOUGHT_PLAN ? prom_plan_schema
										: prom_reflection_reply_schema;
}

static Jsonb *
read_json(const char *text)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}

/* What the step of a summary says besides; NULL: it is none. */
static const char *
arguments_of(const PromAttempt *attempt)
{
	return attempt->thought == PROM_THOUGHT_SUMMARY
			   ? psprintf("{\"until\": %lld}", (long long) attempt->until)
			   : NULL;
}


/* What is asked. */

static PromStatement answer_statement = {
	"SELECT s.answer FROM prometheus._step s"
	" WHERE s.task_id OPERATOR(pg_catalog.=) $1"
	"   AND s.step OPERATOR(pg_catalog.<) $2"
	"   AND s.kind OPERATOR(pg_catalog.=) 'chat'"
	"   AND s.status OPERATOR(pg_catalog.=) 'ok'"
	" ORDER BY s.step DESC LIMIT 1",
	2,
	{INT8OID, INT4OID},
	NULL,
};

static const char *
read_answer(const PromPromptSource *source)
{
	Datum values[2] = {Int64GetDatum(source->task_id),
					   Int32GetDatum(source->step)};
	const char *answer;

	prom_statement_run(&answer_statement, values, NULL, true);
	if (SPI_processed == 0)
		elog(ERROR, "task %lld has no answer before step %d",
			 (long long) source->task_id, source->step);
	answer = prom_row_text(0, 1);
	SPI_freetuptable(SPI_tuptable);
	return answer;
}

static void
add_message(PromPrompt *prompt, const char *role, const char *text)
{
	PromMessage *messages = palloc0((prompt->nmessages + 1) *
									sizeof(PromMessage));

	memcpy(messages, prompt->messages,
		   prompt->nmessages * sizeof(PromMessage));
	messages[prompt->nmessages].role = role;
	messages[prompt->nmessages].text = text;
	prompt->messages = messages;
	prompt->nmessages++;
}

/* The names of the tools that the task has, or NULL. */
static const char *
tool_names(const PromPromptSource *source)
{
	StringInfoData names;

	if (source->ntools == 0)
		return NULL;
	initStringInfo(&names);
	for (int i = 0; i < source->ntools; i++)
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "",
						 source->tools[i]->name);
	return names.data;
}

/* Some formats want the tools of calls that are in the prompt. */
static bool
has_calls(const PromPrompt *prompt)
{
	for (int i = 0; i < prompt->nmessages; i++)
		if (prompt->messages[i].ncalls > 0)
			return true;
	return false;
}

/*
 * The answer to this is not that to the task, whose schema has no say: neither
 * in what is asked nor in what there is room for.
 */
PromPrompt *
prom_thought_prompt(PromThought thought, const PromPromptSource *source,
					const PromModel *model)
{
	PromPromptSource own = *source;
	const char *schema = prom_plan_schema;
	const char *question;
	const char *answer = NULL;
	PromPrompt *prompt;

	if (thought == PROM_THOUGHT_SUMMARY)
		return prom_conversation_fold(source, model);
	if (thought == PROM_THOUGHT_PLAN)
		question = prom_plan_question(tool_names(source));
	else
	{
		int ntold;

		(void) prom_evidence_read_told(source->task_id, source->step, &ntold);
		schema = prom_reflection_schema(ntold > 0);
		question = prom_reflection_question(ntold > 0);
		answer = prom_encoding_to_utf8(read_answer(source));
	}
	own.output_schema = read_json(schema);
	own.more = prom_prompt_estimate(strlen(question));
	if (answer != NULL)
		own.more += prom_prompt_estimate(strlen(answer));
	prompt = prom_prompt_make(&own, model);
	prompt->output_schema = schema;
	if (thought == PROM_THOUGHT_PLAN && !has_calls(prompt))
		prompt->ntools = 0;
	if (answer != NULL)
		add_message(prompt, "assistant", answer);
	add_message(prompt, "user", question);
	return prompt;
}


/* What is said. */

static void
fail(PromReply *reply, const char *error)
{
	reply->ok = false;
	reply->error_type = "ModelUnreadable";
	reply->error = error;
	reply->retry = PROM_RETRY_NEVER;
	reply->retry_after = -1;
}

/* A plan that takes a critical risk is followed, and somebody is told of it. */
static void
flag_risk(PromFactWriter *writer, const PromAttempt *attempt,
		  const PromPlan *plan, TimestampTz now)
{
	PromJudged judged = {.stage = PROM_STAGE_TASK,
						 .task_id = attempt->task_id,
						 .attempt = attempt->attempt,
						 .step = attempt->step,
						 .answer = plan->chosen};
	PromOpinion opinion = {.governor = "JUSTICA",
						   .risk_level = "CRITICAL",
						   .hash = "",
						   .suggestion = "Look at what its tools do."};
	PromVerdict verdict = {
		.effect = PROM_EFFECT_WARN,
		.reasoning = psprintf("Each plan takes a critical risk; that of the one that is followed: %s",
							  prom_act_clip(plan->risk, PROM_ACT_MAX_ERROR)),
		.opinion = &opinion};

	prom_verdict_add(writer, &judged, &verdict, now);
}

static PromStatement owner_statement = {
	"SELECT t.submitter, t.submitter_oid, t.agent FROM prometheus._task t"
	" WHERE t.task_id = $1",
	1,
	{INT8OID},
	NULL,
};

/* The attempt may not be in its table yet: a reply that is used again. */
static void
learn(const PromAttempt *attempt, const PromReflection *reflection)
{
	Datum value = Int64GetDatum(attempt->task_id);
	PromMemoryOwner owner;

	prom_statement_run(&owner_statement, &value, NULL, true);
	if (SPI_processed == 0)
		elog(ERROR, "there is no task %lld", (long long) attempt->task_id);
	owner.name = prom_row_text(0, 1);
	owner.oid = prom_row_oid(0, 2);
	owner.agent = prom_row_text(0, 3);
	SPI_freetuptable(SPI_tuptable);
	prom_reflection_learn(reflection, &owner, attempt->task_id, attempt->step);
}

static void
add(PromFactWriter *writer, const PromAttempt *attempt, PromReply *reply,
	TimestampTz now)
{
	PromReflection reflection = {0};
	PromPlan plan = {0};
	const char *said = NULL;

	if (attempt->thought != PROM_THOUGHT_SUMMARY)
		prom_answer_check(read_json(schema_of(attempt->thought)), reply);
	if (reply->ok && reply->ncalls > 0)
		fail(reply, "it calls a tool");
	else if (reply->ok && attempt->thought == PROM_THOUGHT_SUMMARY)
	{
		if (reply->answer == NULL || *reply->answer == '\0')
			fail(reply, "the summary is empty");
	}
	else if (reply->ok && attempt->thought == PROM_THOUGHT_PLAN)
	{
		prom_plan_choose(prom_encoding_from_utf8(reply->answer), &plan);
		said = plan.chosen;
		if (said == NULL)
			fail(reply, "no plan has a step");
	}
	else if (reply->ok)
	{
		prom_reflection_read(prom_encoding_from_utf8(reply->answer),
							 &reflection);
		said = reflection.document;
	}
	prom_step_add_reply(writer, attempt, prom_thought_name(attempt->thought),
						arguments_of(attempt), said, reply, now);
	if (plan.risk != NULL)
		flag_risk(writer, attempt, &plan, now);
	if (reflection.document != NULL)
		learn(attempt, &reflection);
}

void
prom_thought_fail(PromFactWriter *writer, const PromAttempt *attempt,
				  const char *why, TimestampTz now)
{
	PromThoughtStep step = {.task_id = attempt->task_id,
							.attempt = attempt->attempt,
							.step = attempt->step,
							.kind = prom_thought_name(attempt->thought),
							.name = attempt->model->name,
							.started_at = now,
							.arguments = arguments_of(attempt),
							.error = why};

	prom_step_add_thought(writer, &step, now);
}

/*
 * What fails in passing is tried again, as a turn is, if it is a plan.  A
 * reflection is the last thing that a task does, however it ends.
 */
void
prom_thought_record(PromFactWriter *writer, PromAttempt *attempt,
					PromReply *reply, TimestampTz now)
{
	bool again = !reply->ok && attempt->thought == PROM_THOUGHT_PLAN &&
				 (attempt->deadline <= now ||
				  (prom_outcome_is_passing(reply) &&
				   prom_outcome_goes_on(attempt, reply)));

	if (reply->ok && prom_schema_is_tired())
	{
		attempt->next = PROM_NEXT_AGAIN;
		return;
	}
	add(writer, attempt, reply, now);
	prom_spending_settle(attempt, attempt->model, reply);
	attempt->tokens_now = prom_reply_tokens(reply);
	if (again)
		prom_outcome_of_reply(writer, attempt, reply, now);
	else if (attempt->thought != PROM_THOUGHT_REFLECT || attempt->looks_again)
		attempt->next = PROM_NEXT_GO_ON;
	else
		prom_outcome_complete(writer, attempt, attempt->answer, now);
}

void
prom_act_think(PromJob *job)
{
	PromAttempt attempt = {.task_id = job->task_id,
						   .attempt = job->attempt,
						   .step = job->step,
						   .event_id = job->event_id,
						   .thought = (PromThought) job->about,
						   .sent_at = GetCurrentTimestamp()};
	PromFactWriter *writer;
	PromPromptFacts facts;
	PromReply reply;
	PromPrompt *prompt;
	PromCall *call;

	if (prom_step_exists(job->task_id, job->step))
		return;
	prom_prompt_read_facts(job->task_id, job->attempt, &facts);
	facts.source.before = job->event_id;
	facts.source.step = job->step;
	attempt.model = facts.model;
	prompt = prom_thought_prompt(attempt.thought, &facts.source, facts.model);
	if (prompt == NULL)
	{
		writer = prom_fact_begin();
		prom_thought_fail(writer, &attempt, PROM_THOUGHT_GONE,
						  GetCurrentTimestamp());
		prom_fact_end(writer);
		return;
	}
	attempt.until = prompt->until;
	call = prom_handler_ask(job, facts.model, prompt, &reply);
	writer = prom_fact_begin();
	add(writer, &attempt, &reply, GetCurrentTimestamp());
	prom_fact_end(writer);
	job->tokens = prom_reply_tokens(&reply);
	if (call != NULL)
		prom_llm_free(call);
}
