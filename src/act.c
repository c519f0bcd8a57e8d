/*
 * act.c
 *	  Makes one tool call of a task.
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
#include "approval.h"
#include "encoding.h"
#include "fault.h"
#include "guard.h"
#include "handler.h"
#include "judge.h"
#include "prompt.h"
#include "review.h"
#include "schema.h"
#include "signature.h"
#include "step.h"
#include "tool/builtin.h"
#include "toolcall.h"
#include "worker.h"
#include "xact.h"

/* Bytes of a name that the model calls. */
#define MAX_CALLED 200

/* Rows that a tool's function is asked for at once. */
#define ROWS 50

const char *
prom_act_clip(const char *text, int limit)
{
	int length = strlen(text);

	if (length <= limit)
		return text;
	return pnstrdup(text, prom_encoding_clip(text, length, limit));
}

int64
prom_act_time_left(int64 timeout, const PromJob *job, TimestampTz now)
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

const char *
prom_act_refused(const PromJob *job)
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
		step->error = prom_act_clip(end->error, PROM_ACT_MAX_ERROR);
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

	guard.timeout = prom_act_time_left(facts->agent->tool_timeout, job,
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

void
prom_act_check_wanted(PromJob *job)
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
	const PromPolicies *policies = prom_policies();
	PromFactWriter *writer;
	PromApproval approval;
	TimestampTz now;

	prom_judge(policies, judged, verdict);
	now = GetCurrentTimestamp();
	prom_approval_find(policies, judged, verdict, now, &approval);
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
	step.name = prom_act_clip(prom_encoding_from_utf8(calls[number - 1].name),
							  MAX_CALLED);
	step.arguments = prom_encoding_from_utf8(calls[number - 1].arguments);
	step.error = prom_act_refused(job);
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
	prom_act_check_wanted(job);
	writer = prom_fact_begin();
	if (is_judged)
		prom_verdict_add(writer, &judged, &verdict, judged_at);
	if (!waits)
		prom_step_add_tool(writer, &step, GetCurrentTimestamp());
	prom_fact_end(writer);
}

/*
 * The writer of facts is made after the code of others has run: until then the
 * transaction has no xid and holds up nobody.
 */
void
prom_act(PromJob *job)
{
	prom_act_check_wanted(job);
	switch (job->kind)
	{
		case PROM_JOB_TOOL:
			act_tool(job);
			break;
		case PROM_JOB_CHAT:
			prom_act_chat(job);
			break;
		case PROM_JOB_REVIEW:
			prom_act_review(job);
			break;
	}
}
