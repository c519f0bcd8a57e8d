/*
 * evolution.c
 *	  Executor: makes the moves of a task that evolves its agent.
 *
 * Such a task has no turns of a model, but moves: to have a task proposed, to
 * have the agent attempt it, to have the answer judged.  Each is a tool call of
 * its own, whose step is written when the task that it made has ended; until
 * then this one waits and holds nothing.  What the next move is follows from
 * the steps since the last generation, so it is the same whoever finds it, and
 * after whatever crash.
 *
 * A task that is proposed is judged by the policies as the arguments of a tool
 * call, before it is attempted.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "act.h"
#include "evolution.h"
#include "guard.h"
#include "learning.h"
#include "task.h"
#include "tool/builtin.h"
#include "xact.h"

typedef enum Move
{
	MOVE_PROPOSE,
	MOVE_ATTEMPT,
	MOVE_JUDGE,
	MOVE_END
} Move;

static const char *const move_names[] = {"propose", "attempt", "judge",
										 PROM_EVOLUTION_TOOL};

/* Where it is: the generations that have ended, and what is of the next. */
typedef struct State
{
	PromJob *job;
	PromEvolution *evolution;
	PromPromptFacts facts;
	int ended;
	const char *proposed;   /* as its step has it, that is its arguments */
	PromProposal *proposal; /* NULL: none that stands */
	int attempts;
	PromEffort *effort; /* the last one, */
	PromJudgment *judgment;
	double score; /* and what it is worth; -1: not known yet */
	double first_score;
	int failures; /* of the same move, in a row, */
	const char *failure;
} State;

/* The task that a move made. */
typedef struct Child
{
	int64 task_id; /* 0: none yet */
	const char *outcome;
	const char *answer;
	const char *error_type;
	const char *error;
} Child;

static PromStatement moves_statement = {
	"SELECT s.name, s.status, s.answer, s.error, g.iteration"
	" FROM (SELECT coalesce(pg_catalog.max(e.iteration), 0) AS iteration,"
	"     coalesce(pg_catalog.max(e.step), 0) AS step"
	"   FROM prometheus._evolution e"
	"   WHERE e.task_id OPERATOR(pg_catalog.=) $1) g"
	" LEFT JOIN prometheus._step s ON s.task_id OPERATOR(pg_catalog.=) $1"
	"   AND s.step OPERATOR(pg_catalog.>) g.step"
	"   AND s.step OPERATOR(pg_catalog.<) $2"
	"   AND s.kind OPERATOR(pg_catalog.=) 'tool'"
	" ORDER BY s.step",
	2,
	{INT8OID, INT4OID},
	NULL,
};


/* Where it is. */

/* To four places, as it is written. */
static double
score_of(const State *state, const PromJudgment *judgment)
{
	return rint(judgment->score * state->effort->passed /
				state->proposal->ncases * 10000) /
		   10000;
}

/* What passed nothing is worth nothing, whatever a judge would say. */
static void
take_attempt(State *state, const char *answer)
{
	state->effort = prom_effort_read(answer);
	state->judgment = NULL;
	state->score = state->effort->passed == 0 ? 0 : -1;
	if (++state->attempts == 1 && state->score == 0)
		state->first_score = 0;
}

static void
take_judgment(State *state, const char *answer)
{
	state->judgment = prom_judgment_read(answer);
	state->score = score_of(state, state->judgment);
	if (state->attempts == 1)
		state->first_score = state->score;
}

static void
take_move(State *state, uint64 row)
{
	const char *name = prom_row_text(row, 1);
	bool ok = strcmp(prom_row_text(row, 2), "ok") == 0;
	const char *answer = prom_row_text_or_null(row, 3);

	/* It was given another chance since. */
	if (strcmp(name, PROM_EVOLUTION_TOOL) == 0)
	{
		state->failures = 0;
		return;
	}
	if (!ok)
	{
		/* A task that may not be attempted is as one that cannot be. */
		if (strcmp(name, "attempt") == 0)
			state->proposal = NULL;
		state->failures++;
		state->failure = prom_row_text(row, 4);
		return;
	}
	state->failure = NULL;
	if (strcmp(name, "propose") == 0)
	{
		state->proposed = answer;
		state->proposal = prom_proposal_read(answer);
		return;
	}
	state->failures = 0;
	if (strcmp(name, "attempt") == 0)
		take_attempt(state, answer);
	else
		take_judgment(state, answer);
}

static void
read_state(State *state, int64 task_id, int32 step)
{
	Datum values[2] = {Int64GetDatum(task_id), Int32GetDatum(step)};

	prom_statement_run(&moves_statement, values, NULL, true);
	state->ended = prom_row_int32(0, 5);
	state->score = -1;
	for (uint64 i = 0; i < SPI_processed; i++)
		if (!prom_row_isnull(i, 1))
			take_move(state, i);
	SPI_freetuptable(SPI_tuptable);
}

static Move
next_move(const State *state)
{
	if (state->ended >= state->evolution->iterations ||
		state->failures >= PROM_EVOLUTION_ATTEMPTS)
		return MOVE_END;
	if (state->proposal == NULL)
		return MOVE_PROPOSE;
	return state->attempts > 0 && state->score < 0 ? MOVE_JUDGE : MOVE_ATTEMPT;
}


/* The tasks that it makes. */

static PromStatement child_statement = {
	"SELECT t.task_id, o.outcome, s.answer, o.error_type, o.error"
	" FROM prometheus._task t"
	" LEFT JOIN LATERAL (SELECT x.outcome, x.step, x.error_type, x.error"
	"   FROM prometheus._outcome x"
	"   WHERE x.task_id OPERATOR(pg_catalog.=) t.task_id"
	"     AND x.outcome OPERATOR(pg_catalog.<>)"
	"       ALL ('{retry,waiting,lost}'::pg_catalog.text[])"
	"     AND NOT EXISTS (SELECT FROM prometheus._retry y"
	"       WHERE y.task_id OPERATOR(pg_catalog.=) t.task_id"
	"         AND y.attempt OPERATOR(pg_catalog.>=) x.attempt)"
	"   ORDER BY x.attempt DESC LIMIT 1) o ON true"
	" LEFT JOIN prometheus._step s"
	"   ON o.outcome OPERATOR(pg_catalog.=) 'completed'"
	"   AND s.task_id OPERATOR(pg_catalog.=) t.task_id"
	"   AND s.step OPERATOR(pg_catalog.=) o.step"
	" WHERE t.parent_id OPERATOR(pg_catalog.=) $1"
	"   AND t.parent_step OPERATOR(pg_catalog.=) $2"
	" ORDER BY t.task_id DESC LIMIT 1",
	2,
	{INT8OID, INT4OID},
	NULL,
};

static void
find_child(const PromJob *job, Child *child)
{
	Datum values[2] = {Int64GetDatum(job->task_id), Int32GetDatum(job->step)};

	memset(child, 0, sizeof(*child));
	prom_statement_run(&child_statement, values, NULL, true);
	if (SPI_processed > 0)
	{
		child->task_id = prom_row_int64(0, 1);
		child->outcome = prom_row_text_or_null(0, 2);
		child->answer = prom_row_text_or_null(0, 3);
		child->error_type = prom_row_text_or_null(0, 4);
		child->error = prom_row_text_or_null(0, 5);
	}
	SPI_freetuptable(SPI_tuptable);
}

/* In words; NULL: it has an answer. */
static const char *
end_of(const Child *child)
{
	if (strcmp(child->outcome, "completed") == 0)
		return NULL;
	return psprintf("task %lld ended as %s: %s", (long long) child->task_id,
					child->outcome,
					child->error != NULL ? child->error : child->outcome);
}

/*
 * Did it end for a reason that says nothing of how well it was done?  Then the
 * evolution ends with it: to go on would only record what is not so.
 */
static bool
is_beyond_it(const Child *child)
{
	static const char *const own[] = {
		"GovernanceVeto", "LimitExceeded", "ModelRefused", "ModelFiltered",
		"ModelLength", "SchemaMismatch", "ToolError"};

	if (strcmp(child->outcome, "completed") == 0)
		return false;
	if (child->error_type == NULL)
		return true;
	for (int i = 0; i < lengthof(own); i++)
		if (strcmp(child->error_type, own[i]) == 0)
			return false;
	return true;
}

static void
submit(void *arg)
{
	(void) prom_task_submit(arg);
}

/* Make a task of a move; why it cannot be, or NULL. */
static const char *
make_child(State *state, Move move, PromSubmit *child)
{
	const PromEvolution *evolution = state->evolution;
	PromGuard guard = {.role = prom_guard_role(evolution->owner.name,
											   evolution->owner.oid)};
	PromGuardEnd end;
	PromParent parent;

	if (!OidIsValid(guard.role))
		return "the role that it was submitted by does not exist any more";
	if (!prom_delegate_read(state->job->task_id, &parent))
		return "its task does not exist any more";
	child->priority = parent.priority;
	child->traceparent = parent.traceparent;
	child->parent_id = state->job->task_id;
	child->parent_step = state->job->step;
	child->depth = parent.depth + 1;
	child->parent_event = parent.event_id;
	child->causes = parent.causes;
	child->timeout = Max(parent.deadline - GetCurrentTimestamp(), 1);
	child->evolution = DatumGetJsonbP(DirectFunctionCall1(
		jsonb_in,
		CStringGetDatum(psprintf("{\"role\": \"%s\"}", move_names[move]))));
	guard.timeout = prom_act_time_left(state->facts.agent->tool_timeout,
									   state->job, GetCurrentTimestamp());
	prom_guard_run(&guard, submit, child, &end);
	prom_act_check_wanted(state->job);
	if (end.ok)
		return NULL;
	/* Then the job is given again. */
	if (prom_xact_is_transient(end.sqlstate))
		ereport(ERROR, (errcode(end.sqlstate),
						errmsg("the next task of an evolution was not submitted: %s",
							   end.error)));
	return end.error;
}


/* The moves. */

static void
begin_step(const State *state, Move move, PromToolStep *step)
{
	memset(step, 0, sizeof(*step));
	step->task_id = state->job->task_id;
	step->attempt = state->job->attempt;
	step->step = state->job->step;
	step->started_at = GetCurrentTimestamp();
	step->name = move_names[move];
	step->arguments = move == MOVE_ATTEMPT || move == MOVE_JUDGE
						  ? psprintf("{\"generation\": %d, \"attempt\": %d}",
									 state->ended + 1,
									 state->attempts +
										 (move == MOVE_ATTEMPT ? 1 : 0))
						  : psprintf("{\"generation\": %d}",
									 Min(state->ended + 1,
										 state->evolution->iterations));
}

static void
end_step(const State *state, const PromToolStep *step)
{
	PromFactWriter *writer;

	prom_act_check_wanted(state->job);
	writer = prom_fact_begin();
	prom_step_add_tool(writer, step, GetCurrentTimestamp());
	prom_fact_end(writer);
}

/* The evolution cannot go on. */
static void
fail(State *state, const char *error_type, const char *error)
{
	PromToolStep step;

	begin_step(state, MOVE_END, &step);
	step.error_type = error_type;
	step.error = prom_act_clip(error, PROM_ACT_MAX_ERROR);
	end_step(state, &step);
}

/* The child of a move if it has ended and this goes on with it. */
static bool
take_child(State *state, const Child *child)
{
	if (child->task_id == 0 || child->outcome == NULL)
		return false;
	if (!is_beyond_it(child))
		return true;
	fail(state,
		 child->error_type != NULL ? child->error_type : "DependencyFailed",
		 end_of(child));
	return false;
}

static void
begin_child(State *state, Move move, PromSubmit *child)
{
	const char *problem = make_child(state, move, child);

	if (problem != NULL)
		fail(state, "ConfigurationError", problem);
}

/* A proposal's own faults are told to who proposes the next one. */
static const char *
find_fault(State *state, const PromProposal *proposal, const char *solution)
{
	PromExam exam;

	if (prom_curriculum_has(state->evolution, proposal))
		return "the agent has had exactly this task before";
	prom_exam_begin(&exam, state->job, &state->facts);
	for (int i = 0; i < proposal->ncases; i++)
	{
		const char *problem = prom_exam_check(&exam, &proposal->cases[i],
											  solution, proposal->request);

		if (problem != NULL)
			return psprintf("case %d cannot be used: %s", i + 1, problem);
	}
	return NULL;
}

static void
propose(State *state)
{
	const char *problem;
	const char *category;
	const char *solution;
	PromProposal *proposal;
	PromToolStep step;
	Child child;
	int level;

	prom_curriculum_next(state->evolution, state->ended == 0, &level,
						 &category);
	find_child(state->job, &child);
	if (child.task_id == 0)
	{
		PromSubmit submit = {.mode = "fast"};

		submit.request = prom_curriculum_ask(state->evolution, level, category,
											 state->failure);
		submit.agent = state->evolution->curriculum;
		submit.output_schema = prom_curriculum_schema(false);
		begin_child(state, MOVE_PROPOSE, &submit);
		return;
	}
	if (!take_child(state, &child))
		return;
	begin_step(state, MOVE_PROPOSE, &step);
	step.error = prom_act_refused(state->job);
	if (step.error == NULL)
		step.error = end_of(&child);
	if (step.error == NULL)
	{
		proposal = prom_proposal_of(child.answer, level, category,
									child.task_id, &solution, &problem);
		if (problem == NULL)
			problem = find_fault(state, proposal, solution);
		step.error = problem;
		if (problem == NULL)
			step.result = prom_proposal_write(proposal);
	}
	end_step(state, &step);
}

static void
judged_of(const State *state, const char *arguments, PromJudged *judged)
{
	static const PromTool tool = {
		.name = PROM_EVOLUTION_TOOL,
		.version = 1,
		.is_builtin = true,
		.function = PROM_EVOLUTION_TOOL,
		.search_path = "pg_catalog, pg_temp",
		.hash = "builtin",
		.description = "Has the agent attempt a task that was proposed.",
		.schema = "{}",
		.tier = PROM_TIER_READ,
	};

	judged->stage = PROM_STAGE_TOOL;
	judged->tool = &tool;
	judged->arguments = arguments;
	if (state == NULL)
		return;
	judged->task_id = state->job->task_id;
	judged->attempt = state->job->attempt;
	judged->step = state->job->step;
	judged->agent = state->facts.source.agent;
	judged->submitter = state->facts.source.submitter;
	judged->submitter_oid = state->facts.source.submitter_oid;
	judged->mode = state->facts.mode;
	judged->request = state->facts.source.request;
}

static PromStatement waited_statement = {
	"SELECT EXISTS (SELECT FROM prometheus._approval a"
	" WHERE a.task_id OPERATOR(pg_catalog.=) $1"
	"   AND a.step OPERATOR(pg_catalog.=) $2)",
	2,
	{INT8OID, INT4OID},
	NULL,
};

/* May the task be attempted?  Else a step says why not, or it is waited for. */
static bool
may_attempt(State *state)
{
	Datum values[2] = {Int64GetDatum(state->job->task_id),
					   Int32GetDatum(state->job->step)};
	PromJudged judged = {0};
	PromFactWriter *writer;
	PromVerdict verdict;
	PromToolStep step;

	begin_step(state, MOVE_ATTEMPT, &step);
	judged_of(state, state->proposed, &judged);
	prom_statement_run(&waited_statement, values, NULL, true);
	judged.waited = prom_row_bool(0, 1);
	SPI_freetuptable(SPI_tuptable);
	if (!prom_act_judge(state->job, &judged, state->facts.agent, &verdict,
						&step))
		return false;
	writer = prom_fact_begin();
	if (verdict.opinion == NULL)
		prom_verdict_add(writer, &judged, &verdict, GetCurrentTimestamp());
	if (step.error != NULL)
		prom_step_add_tool(writer, &step, GetCurrentTimestamp());
	prom_fact_end(writer);
	if (step.vetoed)
		prom_learn(&judged, &verdict);
	return step.error == NULL;
}

/* The generation ends with this step, unless there is another attempt. */
static void
end_generation(const State *state, double score)
{
	const PromJudgment *judgment = state->judgment;
	PromGeneration generation = {
		.evolution = state->evolution,
		.step = state->job->step,
		.iteration = state->ended + 1,
		.proposal = state->proposal,
		.attempts = state->attempts,
		.attempt_id = state->effort->task_id,
		.passed = state->effort->passed,
		.first_score = state->first_score,
		.score = score,
	};

	if (score < PROM_EVOLUTION_SUCCESS &&
		state->attempts < PROM_EVOLUTION_ATTEMPTS)
		return;
	if (judgment != NULL)
	{
		generation.judge_id = judgment->task_id;
		generation.judged = judgment->score;
		generation.procedure = judgment->procedure;
	}
	prom_generation_add(&generation);
}

/* Hold the answer against the cases. */
static void
examine(State *state, PromEffort *effort)
{
	const PromProposal *proposal = state->proposal;
	StringInfoData failures;
	int held_back = 0;
	PromExam exam;

	initStringInfo(&failures);
	prom_exam_begin(&exam, state->job, &state->facts);
	for (int i = 0; i < proposal->ncases && effort->answer != NULL; i++)
	{
		const PromCase *one = &proposal->cases[i];

		if (prom_exam_pass(&exam, one, effort->answer))
			effort->passed++;
		else if (one->held_back)
			held_back++;
		else
			appendStringInfo(&failures, "\n- %s", one->what);
	}
	if (held_back > 0)
		appendStringInfo(&failures, "\n- %d of which nothing is told",
						 held_back);
	if (failures.len > 0)
		effort->failures = failures.data;
}

static void
attempt(State *state)
{
	PromEffort effort = {0};
	PromToolStep step;
	Child child;

	find_child(state->job, &child);
	if (child.task_id == 0)
	{
		PromSubmit submit = {.mode = state->evolution->mode};

		if (state->attempts == 0 && !may_attempt(state))
			return;
		submit.request = prom_curriculum_attempt(state->proposal,
												 state->effort,
												 state->judgment);
		submit.agent = state->evolution->owner.agent;
		begin_child(state, MOVE_ATTEMPT, &submit);
		return;
	}
	if (!take_child(state, &child))
		return;
	begin_step(state, MOVE_ATTEMPT, &step);
	if (prom_act_refused(state->job) != NULL)
	{
		fail(state, "ToolError", prom_act_refused(state->job));
		return;
	}
	effort.task_id = child.task_id;
	effort.answer = child.answer;
	effort.error = end_of(&child);
	examine(state, &effort);
	step.result = prom_effort_write(&effort, state->attempts + 1,
									state->proposal->ncases);
	take_attempt(state, step.result);
	end_step(state, &step);
	if (state->score == 0)
		end_generation(state, 0);
}

static void
judge(State *state)
{
	PromJudgment *judgment;
	PromToolStep step;
	Child child;

	find_child(state->job, &child);
	if (child.task_id == 0)
	{
		PromSubmit submit = {.mode = "fast"};

		submit.request = prom_curriculum_judge(state->proposal, state->effort);
		submit.agent = state->evolution->judge;
		submit.output_schema = prom_curriculum_schema(true);
		begin_child(state, MOVE_JUDGE, &submit);
		return;
	}
	if (!take_child(state, &child))
		return;
	begin_step(state, MOVE_JUDGE, &step);
	step.error = prom_act_refused(state->job);
	if (step.error == NULL)
		step.error = end_of(&child);
	if (step.error == NULL)
	{
		judgment = prom_judgment_of(child.answer, child.task_id);
		step.result = prom_judgment_write(judgment, state->attempts,
										  score_of(state, judgment));
		take_judgment(state, step.result);
	}
	end_step(state, &step);
	if (step.error == NULL)
		end_generation(state, state->score);
}

static void
end(State *state)
{
	PromToolStep step;

	if (state->ended < state->evolution->iterations)
	{
		fail(state, "ToolError",
			 psprintf("generation %d: %d %s failed one after another, the last one: %s",
					  state->ended + 1, state->failures,
					  state->proposal == NULL ? "proposals" : "judges",
					  state->failure));
		return;
	}
	begin_step(state, MOVE_END, &step);
	step.result = prom_generation_report(state->evolution);
	end_step(state, &step);
}

void
prom_evolution_run(PromJob *job)
{
	State state = {.job = job};

	state.evolution = prom_curriculum_find(job->task_id);
	if (state.evolution == NULL || prom_step_exists(job->task_id, job->step))
		return;
	prom_prompt_read_facts(job->task_id, job->attempt, &state.facts);
	read_state(&state, job->task_id, job->step);
	switch (next_move(&state))
	{
		case MOVE_PROPOSE:
			propose(&state);
			break;
		case MOVE_ATTEMPT:
			attempt(&state);
			break;
		case MOVE_JUDGE:
			judge(&state);
			break;
		case MOVE_END:
			end(&state);
			break;
	}
}

bool
prom_evolution_judged(PromJudged *judged)
{
	State state = {0};

	state.evolution = prom_curriculum_find(judged->task_id);
	if (state.evolution == NULL)
		return false;
	read_state(&state, judged->task_id, judged->step);
	if (state.proposal == NULL || state.attempts > 0)
		return false;
	judged_of(NULL, state.proposed, judged);
	return true;
}

static PromStatement scores_statement = {
	"SELECT t.evolution IS NOT NULL FROM prometheus._task t"
	" WHERE t.task_id OPERATOR(pg_catalog.=) $1",
	1,
	{INT8OID},
	NULL,
};

bool
prom_evolution_scores(int64 task_id)
{
	Datum value = Int64GetDatum(task_id);
	bool scores;

	prom_statement_run(&scores_statement, &value, NULL, true);
	scores = SPI_processed > 0 && prom_row_bool(0, 1);
	SPI_freetuptable(SPI_tuptable);
	return scores;
}
