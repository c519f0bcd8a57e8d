/*
 * review.c
 *	  Has something judged by policies with conditions, or by a model that is a
 *	  function.
 *
 * Both are the code of others, so an executor runs them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "act.h"
#include "attempt.h"
#include "handler.h"
#include "judge.h"
#include "judged.h"
#include "learning.h"
#include "prompt.h"
#include "review.h"
#include "sofia.h"
#include "step.h"
#include "xact.h"

/* The answer that a task has already: its last step but reviews. */
static PromStatement answer_statement = {
	"SELECT s.answer, s.step FROM (SELECT x.kind, x.status, x.answer, x.calls,"
	"   x.step FROM prometheus._step x WHERE x.task_id = $1 AND x.step < $2"
	"     AND x.kind <> 'review' ORDER BY x.step DESC LIMIT 1) s"
	" WHERE s.kind = 'chat' AND s.status = 'ok' AND s.calls IS NULL",
	2,
	{INT8OID, INT4OID},
	NULL,
};

/* The request of a task, or its answer, judged by policies with conditions. */
void
prom_act_review(PromJob *job)
{
	Datum values[2] = {Int64GetDatum(job->task_id), Int32GetDatum(job->step)};
	PromStepReview step = {.task_id = job->task_id,
						   .attempt = job->attempt,
						   .step = job->step,
						   .started_at = GetCurrentTimestamp()};
	PromJudged judged = {.task_id = job->task_id, .attempt = job->attempt};
	PromFactWriter *writer;
	PromPromptFacts facts;
	PromVerdict verdict;
	TimestampTz now;

	if (prom_step_exists(job->task_id, job->step))
		return;
	prom_statement_run(&answer_statement, values, NULL, true);
	if (SPI_processed > 0)
	{
		judged.answer = prom_row_text(0, 1);
		judged.step = prom_row_int32(0, 2);
	}
	prom_prompt_read_facts(job->task_id, job->attempt, &facts);
	judged.stage = judged.answer == NULL ? PROM_STAGE_TASK : PROM_STAGE_ANSWER;
	judged.agent = facts.source.agent;
	judged.submitter = facts.source.submitter;
	judged.submitter_oid = facts.source.submitter_oid;
	judged.mode = facts.mode;
	judged.request = facts.source.request;
	if (prom_act_refused(job) != NULL)
		prom_judge_deny(&judged,
						psprintf("the review failed: %s", prom_act_refused(job)),
						&verdict);
	else
		prom_judge(prom_policies(), &judged, &verdict);
	prom_act_check_wanted(job);
	now = GetCurrentTimestamp();
	step.stage = prom_policy_stage_name(judged.stage);
	if (!prom_verdict_allows(&verdict))
		step.veto = prom_verdict_words(&verdict);
	writer = prom_fact_begin();
	prom_verdict_add(writer, &judged, &verdict, now);
	prom_step_add_review(writer, &step, now);
	prom_fact_end(writer);
	if (step.veto != NULL)
		prom_learn(&judged, &verdict);
}

static PromStatement newest_statement = {
	"SELECT m.version FROM prometheus._model m WHERE m.name = $1"
	" ORDER BY m.version DESC LIMIT 1",
	1,
	{TEXTOID},
	NULL,
};

/* The model that a policy asks for; NULL: there is none of its name. */
static const PromModel *
find_reviewer(const PromPolicy *policy, const PromPromptFacts *facts)
{
	const char *name = prom_policy_reviewer(policy);
	Datum value;

	if (name == NULL)
		return facts->model;
	value = CStringGetTextDatum(name);
	prom_statement_run(&newest_statement, &value, NULL, true);
	return SPI_processed == 0 ? NULL
							  : prom_model_read(name, prom_row_int64(0, 1));
}

/*
 * What is to be asked is found out again, since policies and models may have
 * changed: if it is another thing than the caller meant, nothing is written,
 * and the caller decides again.  A function that failed is not asked again:
 * nothing of it was on the network.
 */
void
prom_act_counsel(PromJob *job)
{
	PromAttempt attempt = {.task_id = job->task_id,
						   .attempt = job->attempt,
						   .step = job->step,
						   .event_id = job->event_id,
						   .sent_at = GetCurrentTimestamp()};
	const PromPolicy *policy;
	PromFactWriter *writer;
	PromPromptFacts facts;
	PromVerdict verdict;
	PromJudged judged;
	PromReply reply;
	PromCall *call;

	if (prom_step_exists(job->task_id, job->step))
		return;
	prom_prompt_read_facts(job->task_id, job->attempt, &facts);
	if (!prom_judged_read(&facts, job->attempt, job->about, &judged) ||
		prom_counsel_find(prom_policies(), &judged, &attempt.counsel, &policy,
						  &verdict) != PROM_COUNSEL_WANTED)
		return;
	attempt.counsel.model = find_reviewer(policy, &facts);
	if (attempt.counsel.model == NULL ||
		!prom_llm_is_function(attempt.counsel.model->api))
		return;
	call = prom_handler_ask(job, attempt.counsel.model,
							prom_sofia_prompt(&judged, attempt.counsel.model),
							&reply);
	writer = prom_fact_begin();
	prom_counsel_add(writer, &attempt, &reply, true, GetCurrentTimestamp());
	prom_fact_end(writer);
	job->tokens = prom_reply_tokens(&reply);
	if (call != NULL)
		prom_llm_free(call);
}
