/*
 * counsel.c
 *	  Reviews by models: which are to be asked, and what they have said.
 *
 * What a model said is a verdict of its policy, for the hash of exactly what
 * was judged and the version of the policies.  It counts for as long as these
 * are the same, in later attempts too, until the task is retried by hand; so
 * whoever comes to a thing looks for the verdict, and asks if there is none.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/json.h"

#include "attempt.h"
#include "counsel.h"
#include "encoding.h"
#include "outcome.h"
#include "schema.h"
#include "sofia.h"
#include "spending.h"
#include "step.h"
#include "xact.h"

bool
prom_counsel_is_possible(const PromPolicies *policies, PromStage stage)
{
	for (int i = 0; i < policies->n; i++)
		if (policies->list[i].stage == stage &&
			policies->list[i].reviewer != NULL)
			return true;
	return false;
}

/* An approval by a person is a verdict of the policy too, and a later one. */
static PromStatement said_statement = {
	"SELECT v.effect, v.reasoning, v.suggestion FROM prometheus._verdict v"
	" WHERE v.task_id = $1 AND v.step IS NOT DISTINCT FROM $2"
	"   AND v.stage = $3 AND v.target_hash = $4 AND v.policy = $5"
	"   AND v.policy_version = $6"
	"   AND v.attempt > coalesce((SELECT max(r.attempt)"
	"     FROM prometheus._retry r WHERE r.task_id = $1), 0)"
	" ORDER BY v.event_id LIMIT 1",
	6,
	{INT8OID, INT4OID, TEXTOID, TEXTOID, TEXTOID, INT8OID},
	NULL,
};

/* Has it been said?  Then as what, and why if that is a doubt. */
static bool
find_said(const PromCounsel *counsel, int64 task_id, const PromPolicy *policy,
		  PromVerdict *verdict)
{
	Datum values[6] = {
		Int64GetDatum(task_id),
		Int32GetDatum(counsel->step),
		CStringGetTextDatum(prom_policy_stage_name(counsel->stage)),
		CStringGetTextDatum(counsel->hash),
		CStringGetTextDatum(policy->name),
		Int64GetDatum(counsel->policy_version)};
	PromOpinion *opinion;
	const char *effect;

	/* By a snapshot of this moment: some may have been written just now. */
	prom_statement_run(&said_statement, values,
					   counsel->step == 0 ? " n    " : NULL, false);
	if (SPI_processed == 0)
		return false;
	opinion = palloc0(sizeof(PromOpinion));
	effect = prom_row_text(0, 1);
	verdict->effect = PROM_EFFECT_ALLOW;
	if (strcmp(effect, "deny") == 0)
		verdict->effect = PROM_EFFECT_DENY;
	else if (strcmp(effect, "escalate") == 0)
		verdict->effect = PROM_EFFECT_ESCALATE;
	verdict->policy = policy;
	verdict->policy_version = counsel->policy_version;
	verdict->reasoning = prom_row_text_or_null(0, 2);
	opinion->suggestion = prom_row_text_or_null(0, 3);
	opinion->policy = policy->name;
	verdict->opinion = opinion;
	SPI_freetuptable(SPI_tuptable);
	return true;
}

PromCounselState
prom_counsel_find(const PromPolicies *policies, const PromJudged *judged,
				  PromCounsel *counsel, const PromPolicy **policy,
				  PromVerdict *verdict)
{
	Bitmapset *escalated = NULL;

	memset(counsel, 0, sizeof(*counsel));
	memset(verdict, 0, sizeof(*verdict));
	*policy = NULL;
	for (int i = 0; i < policies->n; i++)
	{
		const PromPolicy *asking = &policies->list[i];
		PromVerdict said = {0};

		if (asking->reviewer == NULL || !prom_judge_fits(asking, judged))
			continue;
		if (counsel->hash[0] == '\0')
		{
			counsel->stage = judged->stage;
			counsel->step = judged->step;
			counsel->only_reads = judged->tool == NULL ||
								  judged->tool->tier == PROM_TIER_READ;
			counsel->policy_version = policies->version;
			strlcpy(counsel->hash, prom_judge_hash(judged),
					sizeof(counsel->hash));
		}
		if (!find_said(counsel, judged->task_id, asking, &said))
		{
			if (*policy == NULL)
				*policy = asking;
		}
		else if (said.effect > verdict->effect)
			*verdict = said;
		if (said.effect == PROM_EFFECT_ESCALATE)
			escalated = bms_add_member(escalated, i);
	}
	/* Each of those who escalate has its own approvers. */
	verdict->escalated = escalated;
	verdict->learns = prom_judge_learns(policies);
	/* After one who denies the others need not be heard. */
	if (*policy == NULL || verdict->effect == PROM_EFFECT_DENY)
		return verdict->effect >= PROM_EFFECT_ESCALATE ? PROM_COUNSEL_DOUBTS
													   : PROM_COUNSEL_GIVEN;
	counsel->effect = (*policy)->effect;
	strlcpy(counsel->policy, (*policy)->name, sizeof(counsel->policy));
	return PROM_COUNSEL_WANTED;
}


/* What was said. */

static const char *
governor_of(const PromCounsel *counsel)
{
	if (strncmp(counsel->policy, "sofia", strlen("sofia")) == 0)
		return "SOFIA";
	return counsel->model == NULL ? "model"
								  : psprintf("model:%s", counsel->model->name);
}

static void
add_verdict(PromFactWriter *writer, const PromAttempt *attempt,
			PromVerdict *verdict, PromOpinion *opinion, TimestampTz now)
{
	const PromCounsel *counsel = &attempt->counsel;
	PromJudged judged = {.stage = counsel->stage,
						 .task_id = attempt->task_id,
						 .attempt = attempt->attempt,
						 .step = counsel->step};

	opinion->policy = counsel->policy;
	opinion->governor = governor_of(counsel);
	opinion->hash = counsel->hash;
	verdict->policy_version = counsel->policy_version;
	verdict->opinion = opinion;
	prom_verdict_add(writer, &judged, verdict, now);
}

/* What only reads goes on with a warning; so it does if more is never said. */
static PromEffect
effect_of_failure(const PromCounsel *counsel)
{
	return counsel->only_reads || counsel->effect == PROM_EFFECT_WARN
			   ? PROM_EFFECT_WARN
			   : PROM_EFFECT_DENY;
}

void
prom_counsel_fail(PromFactWriter *writer, const PromAttempt *attempt,
				  const char *why, TimestampTz now)
{
	PromVerdict verdict = {.effect = effect_of_failure(&attempt->counsel),
						   .reasoning =
							   psprintf("The reviewer failed: %s.", why)};
	PromOpinion opinion = {0};

	add_verdict(writer, attempt, &verdict, &opinion, now);
}

/* What the step says was judged, and by which version of which model. */
static const char *
describe(const PromCounsel *counsel)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"stage\":\"%s\"",
					 prom_policy_stage_name(counsel->stage));
	if (counsel->step != 0)
		appendStringInfo(&json, ",\"step\":%d", counsel->step);
	appendStringInfoString(&json, ",\"model\":");
	escape_json(&json, counsel->model->name);
	appendStringInfo(&json, ",\"version\":%lld,\"target_hash\":\"%s\"}",
					 (long long) counsel->model->version, counsel->hash);
	return json.data;
}

void
prom_counsel_add(PromFactWriter *writer, const PromAttempt *attempt,
				 PromReply *reply, bool is_final, TimestampTz now)
{
	const PromCounsel *counsel = &attempt->counsel;
	PromStepCounsel step = {.policy = counsel->policy,
							.judged = describe(counsel)};
	PromVerdict verdict = {.effect = PROM_EFFECT_ALLOW};
	PromOpinion opinion = {0};
	PromCounselRead read;

	verdict.latency_ms = Max(0, now - attempt->sent_at) / 1000.0;
	verdict.opinion = &opinion;
	if (prom_sofia_read(reply, &read))
	{
		if (read.confidence < PROM_SOFIA_CONFIDENT)
			verdict.effect = counsel->effect;
		verdict.reasoning = read.counsel;
		opinion.suggestion = read.suggestion;
		opinion.risk_level = read.risk_level;
		opinion.scores = read.scores;
		if (verdict.effect == PROM_EFFECT_DENY)
			step.veto = prom_verdict_words(&verdict);
	}
	else
	{
		verdict.effect = effect_of_failure(counsel);
		verdict.reasoning =
			psprintf("The reviewer failed: %s: %s.", reply->error_type,
					 prom_encoding_from_utf8(reply->error));
	}
	prom_step_add_counsel(writer, attempt, &step, reply, now);
	if (is_final)
		add_verdict(writer, attempt, &verdict, &opinion, now);
}


/* The caller's. */

void
prom_counsel_record(PromFactWriter *writer, PromAttempt *attempt,
					PromReply *reply, TimestampTz now)
{
	bool again = !reply->ok &&
				 (attempt->deadline <= now ||
				  (prom_outcome_is_passing(reply) &&
				   prom_outcome_goes_on(attempt, reply)));

	if (reply->ok && prom_schema_is_tired())
	{
		attempt->next = PROM_NEXT_AGAIN;
		return;
	}
	prom_counsel_add(writer, attempt, reply, !again, now);
	prom_spending_settle(attempt, attempt->counsel.model, reply);
	attempt->tokens_now = prom_reply_tokens(reply);
	if (again)
		prom_outcome_of_reply(writer, attempt, reply, now);
	else
		attempt->next = PROM_NEXT_GO_ON;
}
