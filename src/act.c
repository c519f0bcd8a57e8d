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
#include "asked.h"
#include "counsel.h"
#include "encoding.h"
#include "errand.h"
#include "evolution.h"
#include "fault.h"
#include "guard.h"
#include "handler.h"
#include "judge.h"
#include "learning.h"
#include "prompt.h"
#include "recall.h"
#include "review.h"
#include "schema.h"
#include "signature.h"
#include "step.h"
#include "subscriber.h"
#include "thought.h"
#include "tool/builtin.h"
#include "version.h"
#include "worker.h"
#include "workshop.h"
#include "xact.h"

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
	bool begun; /* its arguments fit, so what fails is its own fault */
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
	call->begun = true;
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

/* The submitter may be a superuser, as in his own session. */
const char *
prom_act_find_role(const PromPromptFacts *facts, Oid *role)
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
	const char *retired = prom_tool_retired(tool);
	char *hash;

	if (retired != NULL)
		return psprintf("%s; prometheus_restore_tool() gives it another chance",
						retired);
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

/* It did what a policy forbids, and was undone. */
static void
refuse_run(PromToolStep *step, PromVerdict *verdict, const PromPolicy *policy,
		   const char *what)
{
	prom_verdict_refuse(verdict, policy, what);
	step->vetoed = true;
	step->error = prom_verdict_words(verdict);
}

/* Why the guard's run failed, as step and verdict say it. */
static void
end_run(PromToolStep *step, const PromGuard *guard, const PromGuardEnd *end,
		PromVerdict *verdict)
{
	if (end->forbidden != NULL)
		refuse_run(step, verdict, verdict->integrity, end->forbidden);
	else if (end->too_much != NULL)
		refuse_run(step, verdict, verdict->proportionality, end->too_much);
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
 * what a policy forbids.  False: that comes later, from a task that it made.
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
	step->error = prom_act_find_role(facts, &guard.role);
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
	if (verdict->proportionality != NULL && !tool->is_builtin)
		guard.max_rows = facts->agent->max_rows;
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
		if (call.begun && tool->task_id != 0)
			step->tool_version = tool->version;
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
 * What models say of a call that the rules allow, if they are to be asked.
 * False: the caller must have one asked first; else verdict says who doubts.
 */
static bool
take_counsel(const PromPolicies *policies, const PromJudged *judged,
			 PromVerdict *verdict)
{
	const PromPolicy *policy;
	PromCounsel counsel;
	PromVerdict said;

	/* A person decides about it, or nobody can allow it. */
	if (!prom_verdict_allows(verdict) ||
		judged->tool->tier == PROM_TIER_DESTRUCTIVE)
		return true;
	switch (prom_counsel_find(policies, judged, &counsel, &policy, &said))
	{
		case PROM_COUNSEL_GIVEN:
			break;
		case PROM_COUNSEL_WANTED:
			return false;
		case PROM_COUNSEL_DOUBTS:
			/* A person may yet allow it: then it is held against that. */
			said.integrity = verdict->integrity;
			said.proportionality = verdict->proportionality;
			*verdict = said;
			break;
	}
	return true;
}

bool
prom_act_judge(PromJob *job, const PromJudged *judged, const PromAgent *agent,
			   PromVerdict *verdict, PromToolStep *step)
{
	const PromPolicies *policies = prom_policies();
	PromFactWriter *writer;
	PromApproval approval;
	TimestampTz now;

	prom_judge(policies, judged, verdict);
	if (!take_counsel(policies, judged, verdict))
	{
		job->asks = true;
		return false;
	}
	now = GetCurrentTimestamp();
	prom_approval_find(policies, judged, verdict, now, &approval);
	if (approval.state == PROM_APPROVAL_OPEN)
		return false;
	if (approval.state == PROM_APPROVAL_APPROVED)
	{
		verdict->effect = PROM_EFFECT_ALLOW;
		verdict->reasoning = approval.words;
		verdict->opinion = NULL;
	}
	else if (approval.state != PROM_APPROVAL_NONE)
	{
		verdict->effect = PROM_EFFECT_DENY;
		verdict->reasoning = approval.words;
		verdict->opinion = NULL;
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
		if (judged->again != 0)
			verdict->reasoning = prom_errand_sent_before(judged->again,
														 verdict->reasoning);
		writer = prom_fact_begin();
		if (verdict->opinion == NULL)
			prom_verdict_add(writer, judged, verdict, now);
		prom_approval_add(writer, judged, verdict,
						  Min(TimestampTzPlusMilliseconds(
								  now, agent->approval_timeout),
							  job->deadline),
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

/* The child that a call has made: false if it still lives. */
static bool
take_child(const PromJob *job, PromChildState *state, PromToolStep *step)
{
	const char *text = NULL;

	*state = prom_delegate_find(job, &text);
	if (*state == PROM_CHILD_COMPLETED)
		step->result = text;
	else if (*state == PROM_CHILD_ENDED)
		step->error = text;
	return *state != PROM_CHILD_LIVES;
}

static void
act_tool(PromJob *job)
{
	PromToolStep step = {.task_id = job->task_id,
						 .attempt = job->attempt,
						 .step = job->step,
						 .started_at = GetCurrentTimestamp()};
	PromJudged judged;
	PromVerdict verdict;
	TimestampTz judged_at;
	bool is_judged;
	bool waits = false;
	PromFactWriter *writer;
	PromAsked asked;
	PromChildState child = PROM_CHILD_NONE;

	if (!prom_asked_read(job->task_id, job->attempt, job->step, &asked))
	{
		/* It asks for its calls itself, if it evolves its agent. */
		prom_evolution_run(job);
		return;
	}
	step.name = asked.name;
	step.arguments = asked.arguments;
	step.error = prom_act_refused(job);
	if (step.error == NULL && asked.tool == NULL)
		step.error = unknown_tool(&asked.facts.source, step.name);
	if (asked.commission != NULL)
	{
		prom_workshop_run(job, &asked);
		return;
	}
	if (asked.tool != NULL && asked.tool->is_http)
	{
		prom_errand_judge(job, &asked, &step);
		return;
	}
	/* It may have been made, and its task have ended since. */
	if (step.error == NULL && asked.tool->is_builtin &&
		!take_child(job, &child, &step))
		return;
	is_judged = step.error == NULL && child == PROM_CHILD_NONE;
	if (is_judged)
	{
		prom_asked_judged(&asked, &judged);
		if (!prom_act_judge(job, &judged, asked.facts.agent, &verdict, &step))
			return;
	}
	judged_at = GetCurrentTimestamp();
	if (is_judged && step.error == NULL)
		waits = !run_tool(job, &asked.facts, asked.tool, &verdict, &step);
	prom_act_check_wanted(job);
	if (step.tool_version != 0 && step.error != NULL)
		prom_tool_failed(asked.tool, job->task_id, asked.facts.source.agent);
	writer = prom_fact_begin();
	/* What a model said was recorded when it was asked. */
	if (is_judged && verdict.opinion == NULL)
		prom_verdict_add(writer, &judged, &verdict, judged_at);
	if (!waits)
		prom_step_add_tool(writer, &step, GetCurrentTimestamp());
	prom_fact_end(writer);
	if (step.vetoed)
		prom_learn(&judged, &verdict);
}

/*
 * The writer of facts is made after the code of others has run: until then the
 * transaction has no xid and holds up nobody.  What that code changes in
 * tracked tables is the task's; after an error the next job says whose it is.
 */
void
prom_act(PromJob *job)
{
	prom_act_check_wanted(job);
	prom_version_set_task(job->task_id, job->step);
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
		case PROM_JOB_COUNSEL:
			prom_act_counsel(job);
			break;
		case PROM_JOB_RECALL:
			prom_act_recall(job);
			break;
		case PROM_JOB_THINK:
			prom_act_think(job);
			break;
		case PROM_JOB_DELIVER:
			prom_subscriber_run(job);
			break;
	}
	prom_version_set_task(0, 0);
}
