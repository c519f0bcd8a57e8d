/*
 * course.c
 *	  Decides from a task's facts what it does next.
 *
 * The request is reviewed; the model has its turn; the tool calls that it asks
 * for are made; it has its next turn, until it answers; the answer is reviewed.
 * An answer that is to be a tool (commission.c) is then tried, as a call of its
 * own; if it is refused, the model has its next turn.  A task that evolves its
 * agent (evolution.c) has no turns, but calls of its own, one after another.
 * Each of them is a step, or needs none, so the same is decided whichever
 * process decides, and however often.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "admission.h"
#include "answer.h"
#include "approval.h"
#include "commission.h"
#include "conversation.h"
#include "course.h"
#include "encoding.h"
#include "outcome.h"
#include "progress.h"
#include "prompt.h"
#include "query.h"
#include "reuse.h"
#include "route.h"
#include "sofia.h"
#include "spending.h"
#include "step.h"
#include "summary.h"
#include "tally.h"
#include "thought.h"
#include "xact.h"

/* In a turn the own model's call is 1, and that about its answer this. */
#define REFLECTION_CALL (-1000)

/* Before the first turn, and besides a plan. */
#define SUMMARY_CALL 2

static void
add_attempt(PromFactWriter *writer, const PromAttempt *attempt,
			const PromLoaded *loaded,
			const PromAgent *agent, ArrayType *tools, TimestampTz now)
{
	Datum values[ATTEMPT_COLUMNS];
	bool nulls[ATTEMPT_COLUMNS] = {false};

	values[ATTEMPT_TASK_ID] = Int64GetDatum(attempt->task_id);
	values[ATTEMPT_ATTEMPT] = Int32GetDatum(attempt->attempt);
	values[ATTEMPT_STARTED_AT] = TimestampTzGetDatum(now);
	values[ATTEMPT_AGENT_VERSION] = Int64GetDatum(agent->version);
	values[ATTEMPT_MODEL] = CStringGetTextDatum(attempt->model->name);
	values[ATTEMPT_MODEL_VERSION] = Int64GetDatum(attempt->model->version);
	values[ATTEMPT_TOOL_VERSIONS] = PointerGetDatum(tools);
	nulls[ATTEMPT_TOOL_VERSIONS] = tools == NULL;
	values[ATTEMPT_POLICY_VERSION] = Int64GetDatum(attempt->policy_version);
	nulls[ATTEMPT_POLICY_VERSION] = attempt->policy_version == 0;
	values[ATTEMPT_REVIEW_MS] = Float4GetDatum((float4) attempt->review_ms);
	nulls[ATTEMPT_REVIEW_MS] = attempt->policy_version == 0;
	prom_fact_add(writer, PROM_FACT_ATTEMPT, values, nulls);
	if (loaded->last_attempt <= loaded->retried_attempt)
		prom_tally_begin(attempt, now);
}

const char *
prom_course_kind(const PromAttempt *attempt)
{
	if (attempt->counsel.model != NULL)
		return "review";
	return attempt->thought == PROM_THOUGHT_NONE
			   ? "chat"
			   : prom_thought_name(attempt->thought);
}

void
prom_course_add_call(PromFactWriter *writer, const PromAttempt *attempt,
					 int call)
{
	const PromAmount *reserved = prom_spending_reserved(attempt);
	Datum values[CALL_COLUMNS] = {0};
	bool nulls[CALL_COLUMNS] = {false};

	values[CALL_ID] = Int64GetDatum(attempt->call_id);
	values[CALL_TASK_ID] = Int64GetDatum(attempt->task_id);
	values[CALL_ATTEMPT] = Int32GetDatum(attempt->attempt);
	values[CALL_TURN] = Int32GetDatum(
		attempt->thought == PROM_THOUGHT_PLAN ||
				attempt->thought == PROM_THOUGHT_SUMMARY ||
				attempt->thought == PROM_THOUGHT_EMBED
			? 0
			: attempt->turn);
	values[CALL_CALL] = Int32GetDatum(call);
	values[CALL_SENT_AT] = TimestampTzGetDatum(attempt->sent_at);
	values[CALL_KIND] = CStringGetTextDatum(prom_course_kind(attempt));
	values[CALL_TARGET] = CStringGetTextDatum(
		psprintf("model:%s", prom_attempt_called(attempt)->name));
	values[CALL_RESERVED] = NumericGetDatum(reserved->cost);
	nulls[CALL_RESERVED] = reserved->cost == NULL;
	values[CALL_RESERVED_TOKENS] = Int64GetDatum(reserved->tokens);
	values[CALL_STEP] = Int32GetDatum(attempt->step);
	prom_fact_add(writer, PROM_FACT_CALL, values, nulls);
}

/* echo answers at once with the request, unaltered. */
static void
answer_locally(PromFactWriter *writer, PromAttempt *attempt,
			   const PromPromptSource *source, TimestampTz now)
{
	PromReply reply = {0};

	reply.ok = true;
	reply.answer = prom_encoding_to_utf8(source->request);
	reply.finish_reason = "stop";
	reply.connect_ms = reply.first_byte_ms = reply.retry_after = -1;
	prom_answer_check(source->output_schema, &reply);
	attempt->call_id = 0;
	attempt->sent_at = now;
	prom_step_add_chat(writer, attempt, &reply, now);
	prom_outcome_of_reply(writer, attempt, &reply, now);
}

static const PromTool *
tool_of(const char *name, int64 version)
{
	return prom_tool_version(name, version);
}

/*
 * May the next call, of that model, use so much of the budgets?  Else the task
 * has ended, with nothing sent.
 */
static bool
may_spend(PromFactWriter *writer, PromAttempt *attempt, const PromModel *model,
		  const PromLoaded *loaded, int64 tokens_in, TimestampTz now)
{
	PromOutcome end = {0};

	end.error = prom_spending_reserve(attempt, model, loaded, tokens_in);
	if (end.error == NULL)
		return true;
	if (attempt->stands != 0)
	{
		prom_outcome_complete(writer, attempt, attempt->stands, now);
		return false;
	}
	end.outcome = "failed";
	end.error_type = "BudgetExceeded";
	end.attempt = attempt->attempt;
	end.used = attempt->used;
	end.step = loaded->last_step;
	attempt->next = PROM_NEXT_ENDED;
	prom_outcome_add(writer, attempt, &end, now);
	return false;
}

/*
 * May the next call be sent now, by the rate of its model?  Else the task waits
 * for that, and holds nothing.
 */
static bool
may_send(PromFactWriter *writer, PromAttempt *attempt,
		 const PromLoaded *loaded, int64 tokens_in, TimestampTz now)
{
	const PromModel *called = prom_attempt_called(attempt);
	const char *model = called == attempt->model ? loaded->model : called->name;

	if (prom_route_fits(attempt, model, tokens_in, now))
		return true;
	prom_admission_park(writer, attempt, loaded, model, true, now);
	return false;
}

/*
 * Need the request of its prompt not be sent, because an equal one has had a
 * reply, or is about to?
 */
static bool
need_not_send(PromFactWriter *writer, PromAttempt *attempt,
			  const PromLoaded *loaded, TimestampTz now)
{
	PromReply reply;
	PromReuse found = prom_reuse_look(attempt, loaded, &reply, now);

	if (found == PROM_REUSE_NONE)
		return false;
	attempt->call_id = 0;
	attempt->prompt = NULL;
	prom_route_leave(attempt);
	if (found == PROM_REUSE_FOUND)
		prom_attempt_record_reply(writer, attempt, &reply, now);
	else
		attempt->next = PROM_NEXT_JOIN;
	return true;
}

/* What is known of the prompt of a function, which its executor makes. */
static int64
function_tokens(const PromLoaded *loaded, const PromAgent *agent)
{
	return prom_prompt_estimate(
		loaded->bytes +
		(agent->instructions != NULL ? strlen(agent->instructions) : 0));
}

/* What a turn's prompt, or that of a thought, is made from. */
static void
fill_source(PromPromptSource *source, const PromAttempt *attempt,
			const PromLoaded *loaded, const PromAgent *agent, ArrayType *tools)
{
	*source = loaded->source;
	source->request = TextDatumGetCString(loaded->request);
	source->instructions = agent->instructions;
	source->summarises = agent->summarises;
	source->is_full = strcmp(loaded->mode, "full") == 0;
	source->before = attempt->call_id;
	source->task_id = attempt->task_id;
	source->step = attempt->step;
	prom_prompt_set_tools(source, agent, tools, tool_of);
}

/*
 * Have the next turn of the model made, whose gate the attempt has passed: a
 * request, a job, or at once.  The bytes that this loaded.
 */
static int64
begin_turn(PromFactWriter *writer, PromAttempt *attempt,
		   const PromLoaded *loaded, const PromAgent *agent, ArrayType *tools,
		   TimestampTz now)
{
	PromPromptSource source = loaded->source;
	int64 tokens;
	int64 bytes;
	Jsonb *schema;

	attempt->sent_at = now;
	attempt->call_id = attempt->event_id = 0;
	if (prom_llm_is_function(attempt->model->api))
	{
		tokens = function_tokens(loaded, agent);
		if (!may_send(writer, attempt, loaded, tokens, now) ||
			!may_spend(writer, attempt, attempt->model, loaded, tokens, now))
			return 0;
		attempt->event_id = prom_fact_next_id();
		attempt->next = PROM_NEXT_CHAT;
		return 0;
	}
	source.request = TextDatumGetCString(loaded->request);
	if (loaded->has_schema)
		source.output_schema = DatumGetJsonbPCopy(loaded->output_schema);
	if (prom_llm_is_local(attempt->model->api))
	{
		answer_locally(writer, attempt, &source, now);
		return loaded->bytes;
	}
	attempt->call_id = prom_fact_next_id();
	schema = source.output_schema;
	fill_source(&source, attempt, loaded, agent, tools);
	source.output_schema = schema;
	/* Here and not when it is sent, since it may fail. */
	attempt->prompt = prom_prompt_make(&source, attempt->model);
	attempt->has_schema = loaded->has_schema;
	if (source.output_schema != NULL)
		pfree(source.output_schema);
	bytes = prom_prompt_bytes(attempt->prompt);
	tokens = prom_prompt_tokens(attempt->prompt);
	if (need_not_send(writer, attempt, loaded, now) ||
		!may_send(writer, attempt, loaded, tokens, now) ||
		!may_spend(writer, attempt, attempt->model, loaded, tokens, now))
		return bytes;
	prom_course_add_call(writer, attempt, 1);
	attempt->next = PROM_NEXT_SEND;
	return bytes;
}

/*
 * Have the model asked that is to review.  In a turn the own model's call is 1,
 * and its tools' follow; reviews are 0 and below.  The bytes that this loaded.
 */
static int64
begin_counsel(PromFactWriter *writer, PromAttempt *attempt,
			  const PromLoaded *loaded, const PromProgress *progress,
			  const PromJudged *judged, TimestampTz now)
{
	const PromModel *model = attempt->counsel.model;
	const PromPrompt *prompt = prom_sofia_prompt(judged, model);
	int64 tokens = prom_prompt_tokens(prompt);
	int before = progress->counsel_attempt == attempt->attempt
					 ? progress->counsels
					 : 0;

	attempt->sent_at = now;
	attempt->call_id = attempt->event_id = 0;
	/* Its prompt has a mark of its own, so no other request is equal. */
	if (!may_send(writer, attempt, loaded, tokens, now) ||
		!may_spend(writer, attempt, model, loaded, tokens, now))
		return prom_prompt_bytes(prompt);
	if (prom_llm_is_function(model->api))
	{
		attempt->event_id = prom_fact_next_id();
		attempt->next = PROM_NEXT_CHAT;
		return 0;
	}
	attempt->call_id = prom_fact_next_id();
	attempt->prompt = prompt;
	prom_course_add_call(writer, attempt, -before);
	attempt->next = PROM_NEXT_SEND;
	return prom_prompt_bytes(prompt);
}

static ArrayType *
pin_tools(const PromLoaded *loaded, const PromAgent *agent)
{
	if (agent->ntools == 0 || loaded->makes_tool || loaded->evolves ||
		loaded->is_bare)
		return NULL;
	return prom_tool_pin(loaded->task_id, loaded->retried_attempt,
						 agent->tools, agent->ntools);
}

/*
 * Its answer is not looked back at, so it cannot be better than one that was.
 */
static void
end_as_seen(PromFactWriter *writer, PromAttempt *attempt, int32 answer,
			TimestampTz now)
{
	prom_outcome_complete(writer, attempt,
						  attempt->stands != 0 ? attempt->stands : answer, now);
}

/* The number of its call in a turn. */
static int
number_of(PromThought thought)
{
	if (thought == PROM_THOUGHT_SUMMARY)
		return SUMMARY_CALL;
	return thought == PROM_THOUGHT_REFLECT ? REFLECTION_CALL : 1;
}

/*
 * Does so much of the conversation not fit any more that it is to be summed up?
 */
static bool
wants_summary(const PromAttempt *attempt, const PromLoaded *loaded,
			  const PromAgent *agent, ArrayType *tools)
{
	PromPromptSource source;

	if (!agent->summarises || loaded->source.conversation == NULL ||
		attempt->model->window < 0 || prom_llm_is_local(attempt->model->api))
		return false;
	fill_source(&source, attempt, loaded, agent, tools);
	source.before = PG_INT64_MAX;
	return prom_prompt_make(&source, attempt->model)->left_out > 0 &&
		   prom_conversation_fold(&source, attempt->model) != NULL;
}

/*
 * Have the model asked for a plan, or about its answer: a request, or a job.
 * The bytes that this loaded.
 */
static int64
begin_thought(PromFactWriter *writer, PromAttempt *attempt,
			  const PromLoaded *loaded, const PromAgent *agent,
			  ArrayType *tools, TimestampTz now)
{
	bool is_plan = attempt->thought == PROM_THOUGHT_PLAN;
	bool is_function = prom_llm_is_function(attempt->model->api);
	const char *poor = NULL;
	PromPromptSource source;
	int64 tokens = function_tokens(loaded, agent);

	attempt->sent_at = now;
	attempt->call_id = attempt->event_id = 0;
	if (!is_function)
	{
		attempt->call_id = prom_fact_next_id();
		fill_source(&source, attempt, loaded, agent, tools);
		attempt->prompt = prom_thought_prompt(attempt->thought, &source,
											  attempt->model);
		if (attempt->prompt == NULL)
			elog(ERROR, "task %lld has nothing to sum up",
				 (long long) attempt->task_id);
		attempt->until = attempt->prompt->until;
		tokens = prom_prompt_tokens(attempt->prompt);
		if (need_not_send(writer, attempt, loaded, now))
			return tokens;
	}
	if (!may_send(writer, attempt, loaded, tokens, now))
		return tokens;
	if (!is_plan)
		poor = prom_spending_reserve(attempt, attempt->model, loaded, tokens);
	else if (!may_spend(writer, attempt, attempt->model, loaded, tokens, now))
		return tokens;
	if (poor != NULL)
	{
		prom_thought_fail(writer, attempt, poor, now);
		if (attempt->thought == PROM_THOUGHT_REFLECT)
			end_as_seen(writer, attempt, attempt->answer, now);
		else
			attempt->next = PROM_NEXT_GO_ON;
		return tokens;
	}
	if (is_function)
	{
		attempt->event_id = prom_fact_next_id();
		attempt->next = PROM_NEXT_CHAT;
		return 0;
	}
	prom_course_add_call(writer, attempt, number_of(attempt->thought));
	attempt->next = PROM_NEXT_SEND;
	return prom_prompt_bytes(attempt->prompt);
}

/*
 * An answer that nobody objects to is the task's; in full mode after a look
 * back at it, if that can be had.
 */
static int64
end_answered(PromFactWriter *writer, PromAttempt *attempt,
			 const PromLoaded *loaded, const PromProgress *progress,
			 const PromAgent *agent, ArrayType *tools, bool reaches,
			 TimestampTz now)
{
	attempt->answer = progress->turn;
	if (attempt->thinks && !progress->reflected)
	{
		attempt->thought = PROM_THOUGHT_REFLECT;
		if (reaches)
			return begin_thought(writer, attempt, loaded, agent, tools, now);
		prom_thought_fail(writer, attempt,
						  "there is no way to its model now", now);
		end_as_seen(writer, attempt, progress->turn, now);
	}
	else
		prom_outcome_complete(writer, attempt,
							  prom_progress_answer(progress, attempt->stands),
							  now);
	return 0;
}

/* The task waits for a person or a child, and holds nothing. */
static void
wait_for_others(PromFactWriter *writer, PromAttempt *attempt,
				const PromLoaded *loaded, TimestampTz until, TimestampTz now)
{
	PromOutcome end = {0};

	end.outcome = "waiting";
	end.attempt = attempt->attempt;
	end.used = attempt->used;
	end.step = loaded->last_step;
	end.next_run_at = until;
	prom_outcome_add(writer, attempt, &end, now);
	attempt->next = PROM_NEXT_LATER;
	attempt->due = until;
	attempt->retrying = attempt->waiting = true;
}

/*
 * Can the evolution of an agent not go on?  Then it ends.  What its agent may
 * use up is the limit of each task that it makes; only its time is also here.
 */
static bool
end_evolution(PromFactWriter *writer, PromAttempt *attempt,
			  const PromLoaded *loaded, const PromProgress *progress,
			  const PromLimits *limits, TimestampTz now)
{
	PromProgress none = {0};
	const char *limit;

	if (progress->failure != NULL)
	{
		prom_outcome_end(writer, attempt, loaded, "failed",
						 progress->failure_type, progress->failure, now);
		return true;
	}
	none.npending = progress->npending;
	limit = prom_progress_limit(loaded->task_id, loaded->retried_attempt, &none,
								limits, now);
	if (limit == NULL)
		return false;
	prom_outcome_end(writer, attempt, loaded, "failed", "LimitExceeded", limit,
					 now);
	return true;
}

/* Has the task run into one of its limits?  Then it ends. */
static bool
end_at_limit(PromFactWriter *writer, PromAttempt *attempt,
			 const PromLoaded *loaded, const PromProgress *progress,
			 const PromLimits *limits, TimestampTz now)
{
	const char *limit;

	if (loaded->evolves)
		return end_evolution(writer, attempt, loaded, progress, limits, now);
	if (progress->vetoes > limits->max_vetoes)
	{
		prom_admission_end_vetoed(writer, attempt, loaded,
								  psprintf("%d tool calls were not allowed, the last one: %s",
										   progress->vetoes, progress->veto),
								  now);
		return true;
	}
	if (progress->refused >= PROM_MAX_CANDIDATES && progress->npending == 0)
	{
		prom_outcome_end(writer, attempt, loaded, "failed", "ToolError",
						 psprintf("none of %d functions can be the tool; the last one: %s",
								  progress->refused, progress->refusal),
						 now);
		return true;
	}
	limit = prom_progress_limit(loaded->task_id, loaded->retried_attempt,
								progress, limits, now);
	if (limit == NULL)
		return false;
	prom_outcome_end(writer, attempt, loaded, "failed", "LimitExceeded", limit,
					 now);
	return true;
}

/*
 * What the attempt, which has begun, does next: the tool calls that its model
 * asked for, or the next turn.  The bytes that this loaded.
 */
static int64
take_turn(PromFactWriter *writer, PromAttempt *attempt,
		  const PromLoaded *loaded, PromProgress *progress,
		  const PromAgent *agent, ArrayType *tools, TimestampTz now)
{
	TimestampTz until;

	if (progress->npending == 0 && attempt->thinks && !progress->recalled)
	{
		if (!progress->embedded &&
			prom_query_begin(writer, attempt, loaded, now))
			return loaded->bytes;
		attempt->next = PROM_NEXT_RECALL;
		return 0;
	}
	if (progress->npending == 0 && progress->turns == 0 &&
		!progress->summarised && wants_summary(attempt, loaded, agent, tools))
	{
		attempt->thought = PROM_THOUGHT_SUMMARY;
		return begin_thought(writer, attempt, loaded, agent, tools, now);
	}
	if (progress->npending == 0 && attempt->thinks && progress->turns == 0 &&
		!progress->planned && progress->plan_attempt != attempt->attempt)
	{
		attempt->thought = PROM_THOUGHT_PLAN;
		return begin_thought(writer, attempt, loaded, agent, tools, now);
	}
	if (progress->npending == 0)
		return begin_turn(writer, attempt, loaded, agent, tools, now);
	until = prom_approval_leave_out(loaded->task_id, progress->pending,
									&progress->npending, loaded->deadline, now);
	attempt->npending = progress->npending;
	attempt->pending = progress->pending;
	attempt->next = PROM_NEXT_TOOLS;
	if (progress->npending == 0)
		wait_for_others(writer, attempt, loaded, until, now);
	return 0;
}

/* A task that still waits for others need not begin an attempt. */
static bool
waits_on(PromAttempt *attempt, const PromLoaded *loaded,
		 PromProgress *progress, TimestampTz now)
{
	int32 *steps;
	int n = progress->npending;
	TimestampTz until;

	if (!loaded->waiting || n == 0)
		return false;
	steps = palloc(n * sizeof(int32));
	memcpy(steps, progress->pending, n * sizeof(int32));
	until = prom_approval_leave_out(loaded->task_id, steps, &n,
									loaded->deadline, now);
	pfree(steps);
	if (n > 0)
		return false;
	attempt->next = PROM_NEXT_LATER;
	attempt->due = until;
	attempt->retrying = attempt->waiting = true;
	return true;
}

/* How far it is, and what stands of that, whatever comes. */
static void
look_back(PromAttempt *attempt, const PromLoaded *loaded,
		  const PromAgent *agent, PromProgress *progress)
{
	PromCourse course = PROM_COURSE_AGENT;

	if (loaded->makes_tool)
		course = PROM_COURSE_TOOL;
	else if (loaded->evolves)
		course = PROM_COURSE_EVOLVES;
	prom_progress_read(loaded->task_id, loaded->last_step,
					   loaded->retried_attempt, course, progress);
	attempt->looks_again = agent->reflect_below > 0 && !loaded->makes_tool &&
						   strcmp(loaded->mode, "full") == 0;
	attempt->stands =
		attempt->looks_again
			? prom_progress_stands(progress, agent->reflect_below)
			: 0;
}

/* The next attempt, which may not begin yet. */
static void
number_attempt(PromAttempt *attempt, const PromLoaded *loaded)
{
	attempt->attempt = Max(loaded->last_attempt, loaded->outcome_attempt) + 1;
	attempt->used = loaded->used;
	/* Perhaps of a turn that failed, and so was not begun. */
	attempt->policy_version = 0;
	attempt->judged_answer = 0;
	attempt->nasking = 0;
}

/*
 * Begin an attempt, or go on with the one that has begun.  The bytes that this
 * loaded.
 */
int64
prom_course_go_on(PromFactWriter *writer, PromAttempt *attempt,
				  const PromLoaded *loaded, bool begun, TimestampTz now)
{
	const PromAgent *agent = prom_agent_version(loaded->agent,
												loaded->agent_version);
	PromProgress progress;
	PromJudgement judgement = {.policies = prom_policies()};
	ArrayType *tools;
	bool is_final; /* and nothing is to be done with it first */
	bool needs_model;
	bool reaches = false;
	PromAdmission came;

	attempt->counsel.model = attempt->embedder = NULL;
	attempt->thought = PROM_THOUGHT_NONE;
	attempt->thinks = attempt->has_hash = false;
	attempt->makes_tool = loaded->makes_tool;
	attempt->reused = 0;
	look_back(attempt, loaded, agent, &progress);
	if (!begun && waits_on(attempt, loaded, &progress, now))
		return 0;
	if (!progress.answered &&
		end_at_limit(writer, attempt, loaded, &progress, &agent->limits, now))
		return 0;
	if (!begun)
		number_attempt(attempt, loaded);
	attempt->max_attempts = loaded->max_attempts;
	came = prom_admission_ask(writer, attempt, loaded, &progress, begun,
							  &judgement, now);
	if (came == PROM_ADMISSION_DENIES || came == PROM_ADMISSION_PARKS)
		return 0;
	needs_model = came == PROM_ADMISSION_ALLOWS && !progress.answered &&
				  progress.npending == 0;
	if (came != PROM_ADMISSION_ASKS &&
		prom_admission_must_wait(attempt, loaded,
								 needs_model && attempt->stands == 0,
								 progress.answered && progress.reflected,
								 begun, now))
	{
		prom_admission_park(writer, attempt, loaded, loaded->model, begun, now);
		return 0;
	}
	attempt->thinks = strcmp(loaded->mode, "full") == 0 &&
					  !prom_llm_is_local(attempt->model->api);
	is_final = progress.answered && progress.npending == 0;
	if (came == PROM_ADMISSION_ALLOWS &&
		(is_final ? attempt->thinks && !progress.reflected
				  : needs_model && attempt->stands != 0))
	{
		reaches = prom_admission_reach(attempt, loaded, begun, now);
		if (!reaches && prom_route_is_held(attempt, now))
		{
			prom_admission_park(writer, attempt, loaded, loaded->model, begun,
								now);
			return 0;
		}
	}
	if (needs_model && attempt->stands != 0 && !reaches)
	{
		prom_outcome_end(writer, attempt, loaded, "completed", NULL, NULL, now);
		return 0;
	}
	/*
	 * That rules alone allowed a request is told by its attempt.  They judge an
	 * answer again when a model has been asked.
	 */
	if (progress.answered ? came == PROM_ADMISSION_ALLOWS &&
								judgement.verdict.policy_version > 0 &&
								attempt->judged_answer != progress.turn
						  : judgement.verdict.policy != NULL)
		prom_verdict_add(writer, &judgement.judged, &judgement.verdict, now);
	if (progress.answered && came == PROM_ADMISSION_ALLOWS)
		attempt->judged_answer = progress.turn;
	tools = pin_tools(loaded, agent);
	attempt->step = progress.next_step;
	attempt->turn = progress.turns;
	if (!progress.answered && progress.npending == 0)
		attempt->turn++;
	if (!begun)
		add_attempt(writer, attempt, loaded, agent, tools, now);
	if (came == PROM_ADMISSION_WAITS)
		attempt->next = PROM_NEXT_REVIEW;
	else if (came == PROM_ADMISSION_ASKS)
		return begin_counsel(writer, attempt, loaded, &progress,
							 &judgement.judged, now);
	else if (is_final)
		return end_answered(writer, attempt, loaded, &progress, agent, tools,
							reaches, now);
	else
		return take_turn(writer, attempt, loaded, &progress, agent, tools, now);
	return 0;
}

void
prom_course_begin_idle(PromFactWriter *writer, PromAttempt *attempt,
					   const PromLoaded *loaded, TimestampTz now)
{
	const PromAgent *agent = prom_agent_version(loaded->agent,
												loaded->agent_version);

	attempt->model = prom_model_version(loaded->model, loaded->model_version);
	number_attempt(attempt, loaded);
	add_attempt(writer, attempt, loaded, agent, pin_tools(loaded, agent), now);
}

bool
prom_course_end_answered(PromFactWriter *writer, PromAttempt *attempt,
						 const PromLoaded *loaded, const char *why,
						 TimestampTz now)
{
	bool open = loaded->last_attempt > loaded->outcome_attempt;
	bool begun = open && attempt->attempt == loaded->last_attempt;
	PromProgress progress;
	PromJudgement judgement = {.policies = prom_policies()};
	bool is_full = strcmp(loaded->mode, "full") == 0;
	const PromAgent *agent;

	if ((!is_full && !loaded->makes_tool && !loaded->evolves) ||
		loaded->last_step == 0)
		return false;
	agent = prom_agent_version(loaded->agent, loaded->agent_version);
	look_back(attempt, loaded, agent, &progress);
	if ((!progress.answered || progress.npending > 0) && attempt->stands == 0)
		return false;
	/* What this process looks back at was allowed before. */
	if (attempt->stands == 0 &&
		!(begun && attempt->thought == PROM_THOUGHT_REFLECT) &&
		!prom_admission_allowed(attempt, loaded, &progress, &judgement))
		return false;
	prom_load_identify(attempt, loaded);
	attempt->whose = prom_summary_hash(loaded->agent, loaded->source.submitter,
									   loaded->source.submitter_oid);
	if (!open)
		prom_course_begin_idle(writer, attempt, loaded, now);
	else if (!begun)
	{
		attempt->model = prom_model_version(loaded->model,
											loaded->model_version);
		attempt->attempt = loaded->last_attempt;
		attempt->used = loaded->used;
	}
	attempt->step = progress.next_step;
	judgement.judged.attempt = attempt->attempt;
	if (judgement.verdict.policy_version > 0)
		prom_verdict_add(writer, &judgement.judged, &judgement.verdict, now);
	if (is_full)
		attempt->thought = PROM_THOUGHT_REFLECT;
	if (is_full && progress.answered && !progress.reflected &&
		!prom_llm_is_local(attempt->model->api))
	{
		prom_thought_fail(writer, attempt, why, now);
		end_as_seen(writer, attempt, progress.turn, now);
		return true;
	}
	if (progress.answered)
		attempt->answer = prom_progress_answer(&progress, attempt->stands);
	else
		attempt->answer = attempt->stands;
	prom_outcome_complete(writer, attempt, attempt->answer, now);
	return true;
}
