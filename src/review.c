/*
 * review.c
 *	  Has a request or an answer judged by policies with conditions.
 *
 * Conditions are the code of others, so an executor runs them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "act.h"
#include "judge.h"
#include "prompt.h"
#include "review.h"
#include "step.h"
#include "xact.h"

static PromStatement done_statement = {
	"SELECT FROM prometheus._step s WHERE s.task_id = $1 AND s.step = $2",
	2,
	{INT8OID, INT4OID},
	NULL,
};

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

	/* Is its step there, of which the caller was not told? */
	prom_statement_run(&done_statement, values, NULL, true);
	if (SPI_processed > 0)
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
}
