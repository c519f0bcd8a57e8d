/*
 * act.c
 *	  Makes one tool call of a task, or has its model asked that is a function.
 *
 * What the model wrote (a name, arguments) is only looked up, or converted
 * under the rules of guard.c.  What goes wrong in a tool is told to the model
 * as the result of its call; it may do better.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "act.h"
#include "answer.h"
#include "approval.h"
#include "encoding.h"
#include "fault.h"
#include "guard.h"
#include "judge.h"
#include "prompt.h"
#include "provider/provider.h"
#include "schema.h"
#include "signature.h"
#include "step.h"
#include "tool/builtin.h"
#include "toolcall.h"
#include "worker.h"
#include "xact.h"

/* Bytes of a name that the model calls, and of an error that it is told. */
#define MAX_CALLED 200
#define MAX_ERROR 8192

/* Rows that a tool's function is asked for at once. */
#define ROWS 50

static const char *
clip(const char *text, int limit)
{
	int length = strlen(text);

	if (length <= limit)
		return text;
	return pnstrdup(text, prom_encoding_clip(text, length, limit));
}

/* What is left of a time-out before the task's deadline, ms. */
static int64
time_left(int64 timeout, const PromJob *job, TimestampTz now)
{
	int64 left = TimestampDifferenceMilliseconds(now, job->deadline);

	return Max(Min(timeout, left), 1);
}


/* The call of a function, within the guard. */

typedef struct Call
{
	Oid function;
	const char *schema; /* of the arguments, or NULL */
	const char *arguments;
	bool is_set;
	int64 max_result;
	MemoryContext keep; /* where the result is to be */
	StringInfoData result;
} Call;

/* The arguments, if they are an object that fits. */
static Jsonb *
read_arguments(const Call *call)
{
	const char *problem = prom_schema_unreadable(call->arguments);
	Jsonb *arguments;
	Jsonb *schema;

	if (problem == NULL)
	{
		arguments = DatumGetJsonbP(
			DirectFunctionCall1(jsonb_in, CStringGetDatum(call->arguments)));
		if (call->schema == NULL)
			return arguments;
		schema = DatumGetJsonbP(
			DirectFunctionCall1(jsonb_in, CStringGetDatum(call->schema)));
		problem = prom_schema_mismatch(schema, call->arguments);
	}
	if (problem != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("arguments %s", problem)));
	return arguments;
}

/* Append a row of the result; false: that is enough. */
static bool
append_value(Call *call, HeapTuple row, TupleDesc desc)
{
	MemoryContext before = MemoryContextSwitchTo(call->keep);
	char *text;
	bool isnull;
	Datum value = SPI_getbinval(row, desc, 1, &isnull);
	Jsonb *jsonb = isnull ? NULL : DatumGetJsonbP(value);

	if (call->is_set)
		appendStringInfoString(&call->result,
							   call->result.len > 1 ? "," : "");
	if (jsonb == NULL)
		text = "null";
	else if (!call->is_set && JB_ROOT_IS_SCALAR(jsonb))
	{
		/* A text is given as itself. */
		JsonbValue scalar;

		(void) JsonbExtractScalar(&jsonb->root, &scalar);
		text = scalar.type == jbvString
				   ? pnstrdup(scalar.val.string.val, scalar.val.string.len)
				   : JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
	}
	else
		text = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
	appendStringInfoString(&call->result, text);
	if (!isnull)
		pfree(text);
	MemoryContextSwitchTo(before);
	return call->result.len <= call->max_result;
}

static void
fetch(Call *call, Portal portal)
{
	bool more = true;

	while (more)
	{
		SPI_cursor_fetch(portal, true, call->is_set ? ROWS : 1);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; more && i < SPI_processed; i++)
			more = append_value(call, SPI_tuptable->vals[i],
								SPI_tuptable->tupdesc) &&
				   call->is_set;
		SPI_freetuptable(SPI_tuptable);
	}
}

static void
run_call(void *arg)
{
	Call *call = arg;
	Oid type = JSONBOID;
	Datum value;
	Jsonb *arguments;
	SPIPlanPtr plan;
	Portal portal;

	SPI_connect();
	arguments = read_arguments(call);
	value = JsonbPGetDatum(arguments);
	plan = SPI_prepare(prom_signature_call(call->function, arguments), 1,
					   &type);
	if (plan == NULL)
		elog(ERROR, "could not prepare the call: %s",
			 SPI_result_code_string(SPI_result));
	portal = SPI_cursor_open(NULL, plan, &value, NULL, false);
	if (call->is_set)
		appendStringInfoChar(&call->result, '[');
	fetch(call, portal);
	SPI_cursor_close(portal);
	SPI_finish();
}

/* What is too long is cut, and says so. */
static const char *
end_result(Call *call)
{
	StringInfo result = &call->result;
	int whole = result->len;
	int length;

	if (whole <= call->max_result)
	{
		if (call->is_set)
			appendStringInfoChar(result, ']');
		return result->data;
	}
	length = prom_encoding_clip(result->data, whole, call->max_result);
	return psprintf("%.*s\n[cut: the first %d bytes; ask for less]", length,
					result->data, length);
}


/* Tools. */

static PromStatement turn_statement = {
	"SELECT s.step, s.raw, EXISTS (SELECT FROM prometheus._step x"
	"   WHERE x.task_id = $1 AND x.step = $2)"
	" FROM prometheus._step s WHERE s.task_id = $1 AND s.step < $2"
	"   AND s.kind = 'chat' AND s.status = 'ok' ORDER BY s.step DESC LIMIT 1",
	2,
	{INT8OID, INT4OID},
	NULL,
};

/* The tool of this name among those that were offered. */
static const PromTool *
find_tool(const PromPromptSource *source, const char *name)
{
	for (int i = 0; i < source->ntools; i++)
		if (strcmp(source->tools[i]->name, name) == 0)
			return source->tools[i];
	return NULL;
}

static const char *
unknown_tool(const PromPromptSource *source, const char *name)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "there is no tool \"%s\"; the tools are", name);
	for (int i = 0; i < source->ntools; i++)
		appendStringInfo(&text, "%s %s", i > 0 ? "," : "",
						 source->tools[i]->name);
	return text.data;
}

/*
 * Who it runs as: the agent's role, or the submitter, who may be a superuser as
 * in his own session.  Why it cannot, or NULL.
 */
static const char *
find_role(const PromPromptFacts *facts, Oid *role)
{
	const PromAgent *agent = facts->agent;

	*role = agent->run_as != NULL
				? prom_guard_role(agent->run_as, agent->run_as_oid)
				: prom_guard_role(facts->source.submitter,
								  facts->source.submitter_oid);
	if (!OidIsValid(*role))
		return "the role that it is to run as does not exist any more";
	if (agent->run_as != NULL && superuser_arg(*role))
		return "the role that it is to run as has become a superuser";
	return NULL;
}

/* Why a job's step is an error without the tool having been run; or NULL. */
static const char *
refused(const PromJob *job)
{
	switch (job->refusal)
	{
		case PROM_JOB_RUN:
			return NULL;
		case PROM_JOB_OVERDUE:
			return "it did not end when it was to be stopped, and its process was ended; nothing was changed";
		case PROM_JOB_LOST:
			break;
	}
	return *job->error == '\0'
			   ? "the process that ran it ended, again and again; nothing was changed"
			   : psprintf("it could not be recorded, again and again, and nothing was changed: %s",
						  job->error);
}

/* A call of a function: why it cannot be made, or NULL. */
static const char *
prepare_function(const PromTool *tool, Call *call)
{
	char *hash;

	call->function = prom_signature_find(tool->function);
	hash = OidIsValid(call->function) ? prom_signature_hash(call->function)
									  : NULL;
	if (hash == NULL || strcmp(hash, tool->hash) != 0)
		return psprintf("the function of tool \"%s\" %s since it was set as one",
						tool->name,
						hash == NULL ? "was dropped" : "was changed");
	call->schema = tool->schema;
	call->is_set = prom_signature_is_set(call->function);
	return NULL;
}

/* One that is built in, within the guard. */
typedef struct BuiltinRun
{
	const PromBuiltin *builtin;
	PromBuiltinCall call;
	const char *schema;
	const char *arguments;
} BuiltinRun;

static void
run_builtin(void *arg)
{
	BuiltinRun *run = arg;
	Call call = {.schema = run->schema, .arguments = run->arguments};

	run->call.arguments = read_arguments(&call);
	run->builtin->run(&run->call);
}

/* Why the guard's run failed, as step and verdict say it. */
static void
end_run(PromToolStep *step, const PromGuard *guard, const PromGuardEnd *end,
		PromVerdict *verdict)
{
	if (end->refused != NULL)
	{
		prom_verdict_refuse(verdict, end->refused);
		step->vetoed = true;
		step->error = prom_verdict_words(verdict);
	}
	else if (end->was_cancelled &&
			 TimestampDifferenceExceeds(step->started_at, GetCurrentTimestamp(),
										(int) guard->timeout))
		step->error = psprintf("it did not end within %lld ms and was stopped",
							   (long long) guard->timeout);
	else
		step->error = clip(end->error, MAX_ERROR);
}

/*
 * Run the tool, and fill in what came of it; also in the verdict, if it did
 * what integrity forbids.  False: that comes later, from a task that it made.
 */
static bool
run_tool(const PromJob *job, const PromPromptFacts *facts,
		 const PromTool *tool, PromVerdict *verdict, PromToolStep *step)
{
	PromGuard guard = {.search_path = tool->search_path,
					   .read_only = tool->tier == PROM_TIER_READ};
	PromGuardEnd end;
	Call call = {.arguments = step->arguments,
				 .max_result = facts->agent->max_result,
				 .keep = CurrentMemoryContext};
	BuiltinRun run = {.schema = tool->schema, .arguments = step->arguments};
	PromParent parent;

	guard.timeout = time_left(facts->agent->tool_timeout, job,
							  step->started_at);
	step->error = find_role(facts, &guard.role);
	if (tool->is_builtin)
	{
		run.builtin = prom_builtin_find(tool->function);
		if (run.builtin == NULL)
			step->error = "there is no such tool in this version";
		else if (run.builtin->as_role)
			guard.search_path = prom_worker_default_path();
		else if (run.builtin->as_submitter)
			guard.role = prom_guard_role(facts->source.submitter,
										 facts->source.submitter_oid);
		else
			guard.role = GetUserId();
	}
	else if (step->error == NULL)
		step->error = prepare_function(tool, &call);
	if (step->error != NULL)
		return true;
	/* What is built in runs our own statements, but for a model's. */
	guard.integrity = verdict->integrity != NULL &&
					  (!tool->is_builtin || run.builtin->as_role);
	if (tool->is_builtin)
	{
		if (run.builtin->as_submitter &&
			prom_delegate_read(job->task_id, &parent))
			run.call.parent = &parent;
		run.call.job = job;
		run.call.facts = facts;
		run.call.max_result = facts->agent->max_result;
		run.call.keep = CurrentMemoryContext;
		initStringInfo(&run.call.result);
		prom_guard_run(&guard, run_builtin, &run, &end);
		call.result = run.call.result;
	}
	else
	{
		initStringInfo(&call.result);
		prom_guard_run(&guard, run_call, &call, &end);
	}
	if (!end.ok)
		end_run(step, &guard, &end, verdict);
	else if (run.call.waits)
		return false;
	else
		step->result = end_result(&call);
	return true;
}

/* The dropped job of a task that is cancelled must not leave a step. */
static void
check_wanted(PromJob *job)
{
	if (pg_atomic_read_u32(&job->cancel) != 0)
		ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED),
						errmsg("the job is not wanted any more")));
}

/*
 * What the policies say of a call.  False: it waits for a person, who has been
 * asked; else the step says that it is vetoed, or it may be run.
 */
static bool
judge_call(const PromJudged *judged, const PromAgent *agent,
		   TimestampTz deadline, PromVerdict *verdict, PromToolStep *step)
{
	PromFactWriter *writer;
	PromApproval approval;
	TimestampTz now;

	prom_judge(judged, verdict);
	now = GetCurrentTimestamp();
	prom_approval_find(judged, verdict, now, &approval);
	if (approval.state == PROM_APPROVAL_OPEN)
		return false;
	if (approval.state == PROM_APPROVAL_APPROVED)
	{
		verdict->effect = PROM_EFFECT_ALLOW;
		verdict->reasoning = approval.words;
	}
	else if (approval.state != PROM_APPROVAL_NONE)
	{
		verdict->effect = PROM_EFFECT_DENY;
		verdict->reasoning = approval.words;
	}
	else if (verdict->effect != PROM_EFFECT_ESCALATE &&
			 judged->tool->tier == PROM_TIER_DESTRUCTIVE)
	{
		/* Whatever the policies say: not without a person. */
		verdict->effect = PROM_EFFECT_DENY;
		if (verdict->reasoning == NULL || verdict->policy == NULL ||
			verdict->policy->effect != PROM_EFFECT_DENY)
			verdict->reasoning = "a destructive tool needs a policy that escalates it to a person";
	}
	if (verdict->effect == PROM_EFFECT_ESCALATE)
	{
		writer = prom_fact_begin();
		prom_verdict_add(writer, judged, verdict, now);
		prom_approval_add(writer, judged, verdict,
						  Min(TimestampTzPlusMilliseconds(
								  now, agent->approval_timeout),
							  deadline),
						  now);
		prom_fact_end(writer);
		return false;
	}
	if (!prom_verdict_allows(verdict))
	{
		step->vetoed = true;
		step->error = prom_verdict_words(verdict);
	}
	return true;
}

static void
act_tool(PromJob *job)
{
	Datum values[2] = {Int64GetDatum(job->task_id), Int32GetDatum(job->step)};
	PromToolStep step = {.task_id = job->task_id,
						 .attempt = job->attempt,
						 .step = job->step,
						 .started_at = GetCurrentTimestamp()};
	PromJudged judged = {.stage = PROM_STAGE_TOOL,
						 .task_id = job->task_id,
						 .attempt = job->attempt,
						 .step = job->step};
	PromVerdict verdict;
	TimestampTz judged_at;
	bool is_judged;
	bool waits = false;
	PromFactWriter *writer;
	PromPromptFacts facts;
	const PromToolCall *calls;
	const PromTool *tool;
	PromChildState child = PROM_CHILD_NONE;
	const char *text = NULL;
	int number;
	int ncalls;
	bool regular;

	prom_statement_run(&turn_statement, values, NULL, true);
	if (SPI_processed == 0 || prom_row_bool(0, 3))
		return;
	number = job->step - prom_row_int32(0, 1);
	calls = prom_toolcall_read(prom_encoding_to_utf8(prom_row_text(0, 2)),
							   &ncalls, &regular);
	if (number > ncalls)
		elog(ERROR, "task %lld has no tool call for step %d",
			 (long long) job->task_id, job->step);
	prom_prompt_read_facts(job->task_id, job->attempt, &facts);
	step.name = clip(prom_encoding_from_utf8(calls[number - 1].name),
					 MAX_CALLED);
	step.arguments = prom_encoding_from_utf8(calls[number - 1].arguments);
	step.error = refused(job);
	tool = find_tool(&facts.source, step.name);
	if (step.error == NULL && tool == NULL)
		step.error = unknown_tool(&facts.source, step.name);
	if (step.error == NULL && tool->is_builtin)
	{
		/* It may have been made, and its task have ended since. */
		child = prom_delegate_find(job, &text);
		if (child == PROM_CHILD_LIVES)
			return;
		if (child == PROM_CHILD_COMPLETED)
			step.result = text;
		else if (child == PROM_CHILD_ENDED)
			step.error = text;
	}
	is_judged = step.error == NULL && child == PROM_CHILD_NONE;
	if (is_judged)
	{
		judged.agent = facts.source.agent;
		judged.submitter = facts.source.submitter;
		judged.mode = facts.mode;
		judged.request = facts.source.request;
		judged.tool = tool;
		judged.arguments = step.arguments;
		if (!judge_call(&judged, facts.agent, job->deadline, &verdict, &step))
			return;
	}
	judged_at = GetCurrentTimestamp();
	if (is_judged && step.error == NULL)
		waits = !run_tool(job, &facts, tool, &verdict, &step);
	check_wanted(job);
	writer = prom_fact_begin();
	if (is_judged)
		prom_verdict_add(writer, &judged, &verdict, judged_at);
	if (!waits)
		prom_step_add_tool(writer, &step, GetCurrentTimestamp());
	prom_fact_end(writer);
}


/* A model that is a function. */

typedef struct Asked
{
	const char *handler;
	const char *request;
	MemoryContext keep;
	char *reply; /* UTF-8; NULL: it gave NULL */
} Asked;

static void
run_handler(void *arg)
{
	Asked *asked = arg;
	Oid type = JSONBOID;
	Datum value;
	bool isnull;

	SPI_connect();
	value = DirectFunctionCall1(jsonb_in, CStringGetDatum(asked->request));
	if (SPI_execute_with_args(psprintf("SELECT %s", asked->handler), 1, &type,
							  &value, NULL, false, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "the handler gave no reply");
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						  &isnull);
	if (!isnull)
	{
		MemoryContext before = MemoryContextSwitchTo(asked->keep);
		Jsonb *reply = DatumGetJsonbP(value);

		asked->reply = JsonbToCString(NULL, &reply->root, VARSIZE(reply));
		MemoryContextSwitchTo(before);
	}
	SPI_finish();
}

/* The call of a handler: its name, and $1 for its argument. */
static const char *
handler_call(const PromModel *model)
{
	const char *end = strrchr(model->handler, '(');

	return psprintf("%.*s($1)", (int) (end - model->handler), model->handler);
}

static void
fail(PromReply *reply, const char *type, PromRetry retry, const char *error)
{
	reply->ok = false;
	reply->error_type = type;
	reply->retry = retry;
	reply->error = prom_encoding_words_to_utf8(clip(error, MAX_ERROR));
}

/* The request as a handler gets it. */
static const char *
request_of(const PromJob *job, PromPromptFacts *facts)
{
	StringInfoData body;

	facts->source.before = job->event_id;
	facts->source.step = job->step;
	initStringInfo(&body);
	prom_provider_build(&body, facts->model,
						prom_prompt_make(&facts->source, facts->model));
	return prom_encoding_from_utf8(body.data);
}

/* Run the handler; its reply in UTF-8, or NULL and an error in reply. */
static const char *
ask(const PromJob *job, PromPromptFacts *facts, PromReply *reply)
{
	const PromModel *model = facts->model;
	TimestampTz start = GetCurrentTimestamp();
	PromGuard guard = {.search_path = model->search_path};
	Asked asked = {.keep = CurrentMemoryContext};
	Oid function = prom_signature_find(model->handler);
	char *hash = OidIsValid(function) ? prom_signature_hash(function) : NULL;
	PromGuardEnd end;

	guard.role = prom_guard_role(model->owner, model->owner_oid);
	guard.timeout = time_left(model->total_timeout, job, start);
	if (!OidIsValid(guard.role))
		fail(reply, "ConfigurationError", PROM_RETRY_NEVER,
			 "the role that owns the model does not exist any more");
	else if (hash == NULL || strcmp(hash, model->hash) != 0)
		fail(reply, "ConfigurationError", PROM_RETRY_NEVER,
			 psprintf("the model's function %s since it was set",
					  hash == NULL ? "was dropped" : "was changed"));
	if (reply->error != NULL)
		return NULL;
	asked.handler = handler_call(model);
	asked.request = request_of(job, facts);
	prom_guard_run(&guard, run_handler, &asked, &end);
	if (end.ok && asked.reply != NULL)
		return prom_encoding_to_utf8(asked.reply);
	if (end.ok)
		fail(reply, "ModelUnreadable", PROM_RETRY_BACKOFF,
			 "the model's function gave NULL");
	else if (end.was_cancelled)
		fail(reply, "ModelTimeout", PROM_RETRY_BACKOFF,
			 "the model's function did not end within total_timeout");
	else
		fail(reply, "ModelUnavailable", PROM_RETRY_BACKOFF,
			 psprintf("the model's function failed: %s", end.error));
	return NULL;
}

static PromStatement chat_statement = {
	"SELECT s.status = 'ok' FROM prometheus._step s"
	" WHERE s.task_id = $1 AND s.step = $2",
	2,
	{INT8OID, INT4OID},
	NULL,
};

/* Is its step there?  Only the word that it was done was lost then. */
static bool
was_asked(PromJob *job)
{
	Datum values[2] = {Int64GetDatum(job->task_id), Int32GetDatum(job->step)};

	prom_statement_run(&chat_statement, values, NULL, true);
	if (SPI_processed == 0)
		return false;
	job->chat_failed = !prom_row_bool(0, 1);
	return true;
}

static void
act_chat(PromJob *job)
{
	PromAttempt attempt = {.task_id = job->task_id,
						   .attempt = job->attempt,
						   .step = job->step,
						   .event_id = job->event_id,
						   .sent_at = GetCurrentTimestamp()};
	PromReply reply = {.tokens_in = -1,
					   .tokens_out = -1,
					   .cached_tokens = -1,
					   .connect_ms = -1,
					   .first_byte_ms = -1,
					   .retry_after = -1};
	PromFactWriter *writer;
	PromPromptFacts facts;
	PromCall *call = NULL;
	const char *answer = NULL;

	if (was_asked(job))
		return;
	prom_prompt_read_facts(job->task_id, job->attempt, &facts);
	if (refused(job) != NULL)
		fail(&reply, "ModelUnavailable", PROM_RETRY_BACKOFF,
			 psprintf("the model's function: %s", refused(job)));
	else
		answer = ask(job, &facts, &reply);
	check_wanted(job);
	if (answer != NULL)
	{
		call = prom_llm_read(answer, facts.source.ntools > 0);
		reply = *prom_llm_reply(call);
	}
	prom_answer_check(facts.source.output_schema, &reply);
	attempt.model = facts.model;
	writer = prom_fact_begin();
	prom_step_add_chat(writer, &attempt, &reply, GetCurrentTimestamp());
	prom_fact_end(writer);
	job->chat_failed = !reply.ok;
	job->retry = reply.retry;
	job->tokens = prom_reply_tokens(&reply);
	if (call != NULL)
		prom_llm_free(call);
}

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
static void
act_review(PromJob *job)
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
	prom_statement_run(&chat_statement, values, NULL, true);
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
	if (refused(job) != NULL)
		prom_judge_deny(&judged,
						psprintf("the review failed: %s", refused(job)),
						&verdict);
	else
		prom_judge(&judged, &verdict);
	check_wanted(job);
	now = GetCurrentTimestamp();
	step.stage = prom_policy_stage_name(judged.stage);
	if (!prom_verdict_allows(&verdict))
		step.veto = prom_verdict_words(&verdict);
	writer = prom_fact_begin();
	prom_verdict_add(writer, &judged, &verdict, now);
	prom_step_add_review(writer, &step, now);
	prom_fact_end(writer);
}

/*
 * The writer of facts is made after the code of others has run: until then the
 * transaction has no xid and holds up nobody.
 */
void
prom_act(PromJob *job)
{
	check_wanted(job);
	switch (job->kind)
	{
		case PROM_JOB_TOOL:
			act_tool(job);
			break;
		case PROM_JOB_CHAT:
			act_chat(job);
			break;
		case PROM_JOB_REVIEW:
			act_review(job);
			break;
	}
}
