/*
 * admission.c
 *	  Asks whether a task may go on now: whether it is paused, there is a way to
 *	  its model, and what rules, executors and models say of it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "admission.h"
#include "fault.h"
#include "gate.h"
#include "judged.h"
#include "learning.h"
#include "outcome.h"
#include "prompt.h"
#include "route.h"
#include "worker.h"
#include "xact.h"

/*
 * The task waits before the gate of a model, and holds nothing: an attempt that
 * was under way ends, and uses up nothing.
 */
void
prom_admission_park(PromFactWriter *writer, PromAttempt *attempt,
					const PromLoaded *loaded, const char *model, bool begun,
					TimestampTz now)
{
	PromOutcome end = {0};

	PROM_FAULT("before-park");
	attempt->next = PROM_NEXT_PARKED;
	attempt->target.agent = prom_hash_name(loaded->agent);
	attempt->target.model = prom_hash_name(model);
	if (!begun)
		return;
	end.outcome = "retry";
	end.attempt = attempt->attempt;
	end.used = attempt->used;
	end.step = loaded->last_step;
	end.next_run_at = now;
	end.error = "its model or agent is paused, or the way to the model is closed or held";
	attempt->retrying = true;
	prom_outcome_add(writer, attempt, &end, now);
}

static bool
is_paused(const PromLoaded *loaded)
{
	return prom_gate_is_paused(prom_my_database, PROM_GATE_ALL, 0) ||
		   prom_gate_is_paused(prom_my_database, PROM_GATE_AGENT,
							   prom_hash_name(loaded->agent));
}

/* Is there a way to the model, or one that is used instead? */
static bool
reach_model(PromAttempt *attempt, const PromLoaded *loaded, bool begun,
			TimestampTz now)
{
	PromRoute route = {
		.model = loaded->model,
		.version = loaded->model_version,
		.used = loaded->used,
		.retried_attempt = loaded->retried_attempt,
	};

	return begun ? prom_route_keep(attempt, &route, now)
				 : prom_route_choose(attempt, &route, now);
}

bool
prom_admission_reach(PromAttempt *attempt, const PromLoaded *loaded, bool begun,
					 TimestampTz now)
{
	const PromModel *model = attempt->model;

	if (reach_model(attempt, loaded, begun, now))
		return true;
	attempt->model = model;
	return false;
}

/*
 * Does the attempt need its model now, and may not have it?  Then the task
 * waits before the gate.  An attempt that is under way keeps its model, and one
 * that only ends waits for nothing.
 */
bool
prom_admission_must_wait(PromAttempt *attempt, const PromLoaded *loaded,
						 bool needs_model, bool ends, bool begun,
						 TimestampTz now)
{
	/* It waits for the pause, which the scheduler knows, and for no gate. */
	attempt->opens = DT_NOBEGIN;
	if (!ends && is_paused(loaded))
		return true;
	if (needs_model)
		return !reach_model(attempt, loaded, begun, now);
	if (!begun)
		attempt->model = prom_model_version(loaded->model,
											loaded->model_version);
	return false;
}

/* The task's request, or the answer that it has, as it is judged. */
static void
judge_begin(const PromLoaded *loaded, const PromAttempt *attempt,
			PromStage stage, PromJudged *judged)
{
	memset(judged, 0, sizeof(*judged));
	judged->stage = stage;
	judged->task_id = loaded->task_id;
	judged->attempt = attempt->attempt;
	judged->agent = loaded->agent;
	judged->submitter = loaded->source.submitter;
	judged->submitter_oid = loaded->source.submitter_oid;
	judged->mode = loaded->mode;
	judged->request = TextDatumGetCString(loaded->request);
}

void
prom_admission_end_vetoed(PromFactWriter *writer, PromAttempt *attempt,
						  const PromLoaded *loaded, const char *why,
						  TimestampTz now)
{
	prom_outcome_end(writer, attempt, loaded, "vetoed", "GovernanceVeto", why,
					 now);
}

static PromAdmission
deny(PromFactWriter *writer, PromAttempt *attempt, const PromLoaded *loaded,
	 const char *why, TimestampTz now)
{
	prom_admission_end_vetoed(writer, attempt, loaded, why, now);
	return PROM_ADMISSION_DENIES;
}

/*
 * Judge it here, or have it judged.  A verdict that allows it is not written:
 * the task may yet have to wait, and is then judged again.
 */
static PromAdmission
review(PromFactWriter *writer, PromAttempt *attempt, const PromLoaded *loaded,
	   PromJudgement *judgement, TimestampTz now)
{
	const PromJudged *judged = &judgement->judged;
	PromVerdict *verdict = &judgement->verdict;

	if (prom_judge_needs_executor(judgement->policies, judged))
		return PROM_ADMISSION_WAITS;
	prom_judge(judgement->policies, judged, verdict);
	if (verdict->undecided && verdict->effect != PROM_EFFECT_DENY)
	{
		memset(verdict, 0, sizeof(*verdict));
		return PROM_ADMISSION_WAITS;
	}
	if (judged->stage == PROM_STAGE_TASK)
	{
		attempt->policy_version = verdict->policy_version;
		attempt->review_ms = verdict->latency_ms;
	}
	if (prom_verdict_allows(verdict))
		return PROM_ADMISSION_ALLOWS;
	prom_verdict_add(writer, judged, verdict, now);
	prom_learn(judged, verdict);
	return deny(writer, attempt, loaded, prom_verdict_words(verdict),
				now);
}

/* The review of a request, before its first turn in each attempt. */
static PromAdmission
review_request(PromFactWriter *writer, PromAttempt *attempt,
			   const PromLoaded *loaded, const PromProgress *progress,
			   bool begun, PromJudgement *judgement, TimestampTz now)
{
	if (begun && attempt->policy_version != 0)
		return PROM_ADMISSION_ALLOWS;
	if (begun && progress->review_attempt == attempt->attempt)
	{
		if (progress->review_veto == NULL)
			return PROM_ADMISSION_ALLOWS;
		return deny(writer, attempt, loaded, progress->review_veto,
					now);
	}
	judge_begin(loaded, attempt, PROM_STAGE_TASK, &judgement->judged);
	return review(writer, attempt, loaded, judgement, now);
}

static PromStatement answer_statement = {
	"SELECT s.answer FROM prometheus._step s"
	" WHERE s.task_id = $1 AND s.step = $2",
	2,
	{INT8OID, INT4OID},
	NULL,
};

/* Load the answer that is to be judged. */
static void
judge_answer(const PromLoaded *loaded, const PromAttempt *attempt,
			 const PromProgress *progress, PromJudged *judged)
{
	Datum values[2] = {Int64GetDatum(loaded->task_id),
					   Int32GetDatum(progress->turn)};

	judge_begin(loaded, attempt, PROM_STAGE_ANSWER, judged);
	prom_statement_run(&answer_statement, values, NULL, true);
	judged->answer = prom_row_text(0, 1);
	judged->step = progress->turn;
	SPI_freetuptable(SPI_tuptable);
}

static PromAdmission
review_answer(PromFactWriter *writer, PromAttempt *attempt,
			  const PromLoaded *loaded, const PromProgress *progress,
			  PromJudgement *judgement, TimestampTz now)
{
	if (!prom_judge_has(judgement->policies, PROM_STAGE_ANSWER))
		return PROM_ADMISSION_ALLOWS;
	if (progress->reviewed_answer)
	{
		if (progress->review_veto == NULL)
			return PROM_ADMISSION_ALLOWS;
		return deny(writer, attempt, loaded, progress->review_veto,
					now);
	}
	judge_answer(loaded, attempt, progress, &judgement->judged);
	return review(writer, attempt, loaded, judgement, now);
}

bool
prom_admission_allowed(const PromAttempt *attempt, const PromLoaded *loaded,
					   const PromProgress *progress, PromJudgement *judgement)
{
	const PromPolicies *policies = judgement->policies;
	PromJudged *judged = &judgement->judged;
	PromVerdict *verdict = &judgement->verdict;
	PromCounsel counsel;
	const PromPolicy *policy;
	PromVerdict said;

	if (progress->reflected || progress->made ||
		!prom_judge_has(policies, PROM_STAGE_ANSWER))
		return true;
	judge_answer(loaded, attempt, progress, judged);
	if (!progress->reviewed_answer)
	{
		if (prom_judge_needs_executor(policies, judged))
			return false;
		prom_judge(policies, judged, verdict);
		if (verdict->undecided || !prom_verdict_allows(verdict))
			return false;
	}
	else if (progress->review_veto != NULL)
		return false;
	return !prom_counsel_is_possible(policies, PROM_STAGE_ANSWER) ||
		   prom_counsel_find(policies, judged, &counsel, &policy, &said) ==
			   PROM_COUNSEL_GIVEN;
}

/*
 * Is there a way to the model that a policy asks for?  counsel.model is then
 * that one, or NULL if there is none of its name.
 */
static bool
reach_reviewer(PromAttempt *attempt, const PromLoaded *loaded, const char *name,
			   bool begun, TimestampTz now)
{
	attempt->opens = DT_NOBEGIN;
	if (is_paused(loaded))
		return false;
	if (name == NULL)
	{
		if (!reach_model(attempt, loaded, begun, now))
			return false;
		attempt->counsel.model = attempt->model;
		return true;
	}
	if (!begun)
		attempt->model = prom_model_version(loaded->model,
											loaded->model_version);
	return prom_route_reviewer(attempt, name, now, &attempt->counsel.model);
}

/*
 * Have the models asked that policies want to hear about one thing, one after
 * another.  A doubt ends the task; but if it is about a tool call, an executor
 * finds it.
 */
static PromAdmission
ask_models(PromFactWriter *writer, PromAttempt *attempt,
		   const PromLoaded *loaded, bool begun, PromJudgement *judgement,
		   TimestampTz now)
{
	const PromJudged *judged = &judgement->judged;
	const PromPolicy *policy;
	PromVerdict verdict;
	const char *name;

	for (;;)
	{
		PromCounselState state = prom_counsel_find(
			judgement->policies, judged, &attempt->counsel, &policy, &verdict);

		if (state == PROM_COUNSEL_GIVEN ||
			(state == PROM_COUNSEL_DOUBTS && judged->stage == PROM_STAGE_TOOL))
			return PROM_ADMISSION_ALLOWS;
		if (state == PROM_COUNSEL_DOUBTS)
		{
			prom_learn(judged, &verdict);
			return deny(writer, attempt, loaded, prom_verdict_words(&verdict),
						now);
		}
		name = prom_policy_reviewer(policy);
		if (!reach_reviewer(attempt, loaded, name, begun, now))
		{
			if (name == NULL)
				name = loaded->model;
			prom_admission_park(writer, attempt, loaded, name, begun, now);
			return PROM_ADMISSION_PARKS;
		}
		if (attempt->counsel.model != NULL &&
			!prom_llm_is_local(attempt->counsel.model->api))
			return PROM_ADMISSION_ASKS;
		prom_counsel_fail(writer, attempt,
						  attempt->counsel.model == NULL
							  ? "there is no such model"
							  : "the model answers with the request",
						  now);
		prom_fact_flush(writer);
		attempt->counsel.model = NULL;
	}
}

/*
 * What the rules have allowed, models may be asked about, one after another: a
 * request before each turn, an answer before it is the task's.
 */
static PromAdmission
take_counsel(PromFactWriter *writer, PromAttempt *attempt,
			 const PromLoaded *loaded, const PromProgress *progress,
			 bool begun, PromJudgement *judgement, TimestampTz now)
{
	bool answered = progress->answered;
	PromJudged *judged = &judgement->judged;
	PromStage stage = answered ? PROM_STAGE_ANSWER : PROM_STAGE_TASK;

	if (!prom_counsel_is_possible(judgement->policies, stage))
		return PROM_ADMISSION_ALLOWS;
	if (judged->request == NULL && answered)
		judge_answer(loaded, attempt, progress, judged);
	else if (judged->request == NULL)
		judge_begin(loaded, attempt, stage, judged);
	return ask_models(writer, attempt, loaded, begun, judgement, now);
}

/*
 * The same of tool calls, for which executors have asked: each is given to them
 * again when all has been said of it.
 */
static PromAdmission
ask_about_calls(PromFactWriter *writer, PromAttempt *attempt,
				const PromLoaded *loaded, PromJudgement *judgement,
				TimestampTz now)
{
	PromJudged before = judgement->judged;
	PromPromptFacts facts;

	if (attempt->nasking == 0)
		return PROM_ADMISSION_ALLOWS;
	prom_prompt_read_facts(attempt->task_id, attempt->attempt, &facts);
	while (attempt->nasking > 0)
	{
		int first = 0;

		for (int i = 1; i < attempt->nasking; i++)
			if (attempt->asking[i] < attempt->asking[first])
				first = i;
		if (prom_judged_read(&facts, attempt->attempt, attempt->asking[first],
							 &judgement->judged) &&
			judgement->judged.stage == PROM_STAGE_TOOL)
		{
			PromAdmission came = ask_models(writer, attempt, loaded, true,
											judgement, now);

			if (came != PROM_ADMISSION_ALLOWS)
				return came;
		}
		attempt->asking[first] = attempt->asking[--attempt->nasking];
	}
	judgement->judged = before;
	return PROM_ADMISSION_ALLOWS;
}

PromAdmission
prom_admission_ask(PromFactWriter *writer, PromAttempt *attempt,
				   const PromLoaded *loaded, const PromProgress *progress,
				   bool begun, PromJudgement *judgement, TimestampTz now)
{
	bool answered = progress->answered;
	PromAdmission came;

	/* What it has looked back at, or is a tool, was allowed before. */
	if (answered && (progress->reflected || progress->made))
		return PROM_ADMISSION_ALLOWS;
	if (answered)
		came = review_answer(writer, attempt, loaded, progress, judgement, now);
	else
		came = review_request(writer, attempt, loaded, progress, begun,
							  judgement, now);
	if (came != PROM_ADMISSION_ALLOWS)
		return came;
	if (answered || progress->npending == 0 || loaded->evolves)
		came = take_counsel(writer, attempt, loaded, progress, begun, judgement,
							now);
	if (came == PROM_ADMISSION_ALLOWS && progress->npending > 0)
		came = ask_about_calls(writer, attempt, loaded, judgement, now);
	return came;
}
