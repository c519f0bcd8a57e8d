/*
 * workshop.c
 *	  Executor: tries a function that a model wrote, and makes it a tool.
 *
 * To be tried it is made in a subtransaction that is always rolled back, and
 * called with its examples under the rules of guard.c, read-only, as who its
 * agent's tools run as.  Only what has stood that is judged by the policies;
 * and only when they, and whoever they ask, allow it, it is made again and
 * stays, in the transaction that writes its step and its version as a tool.
 * Whatever ends before that commit leaves nothing, and is done again.
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "act.h"
#include "agent.h"
#include "candidate.h"
#include "difference.h"
#include "encoding.h"
#include "guard.h"
#include "learning.h"
#include "signature.h"
#include "step.h"
#include "workshop.h"

/* Percent of the examples that must come out right, of either kind. */
#define ENOUGH 80

/* Examples that the model is told of. */
#define MAX_TOLD 5

/*
 * Two numbers are the same if they differ by less than this part of them; whole
 * ones that a float has exactly must be equal.
 */
#define TOLERANCE 1e-9
#define EXACT 9007199254740992.0

/* Bytes of a function's name, before the number of its task. */
#define MAX_FUNCTION_NAME 40

typedef struct Trial
{
	const PromCommission *commission;
	PromCandidate candidate;
	List *relations;
	const char *name;   /* of the function */
	const char *run_as; /* of the agent; NULL: none */
	Oid function;
} Trial;


/* Making it. */

static void
execute(const char *sql)
{
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not grant: %s", sql);
}

/* As the role that is to own it: nobody else but those may call it. */
static void
make(void *arg)
{
	Trial *trial = arg;
	const char *signature;

	prom_candidate_read(&trial->candidate, trial->commission,
						trial->candidate.statement);
	trial->function = prom_candidate_make(&trial->candidate, trial->commission,
										  trial->relations, trial->name);
	SPI_connect();
	signature = prom_signature_text(trial->function);
	execute(psprintf("REVOKE ALL ON FUNCTION %s FROM PUBLIC", signature));
	execute(psprintf("GRANT EXECUTE ON FUNCTION %s TO prometheus_agent_user",
					 signature));
	if (trial->run_as != NULL)
	{
		execute(psprintf("GRANT USAGE ON SCHEMA %s TO %s", PROM_TOOL_SCHEMA,
						 quote_identifier(trial->run_as)));
		execute(psprintf("GRANT EXECUTE ON FUNCTION %s TO %s", signature,
						 quote_identifier(trial->run_as)));
	}
	execute(psprintf("COMMENT ON FUNCTION %s IS %s", signature,
					 quote_literal_cstr(trial->commission->description)));
	SPI_finish();
}

/* Why it cannot be made, or NULL. */
static const char *
make_guarded(const PromJob *job, const PromAsked *asked, Trial *trial)
{
	PromGuard guard = {.role = get_role_oid(PROM_ROLE_TOOL, false)};
	PromGuardEnd end;

	guard.timeout = prom_act_time_left(asked->facts.agent->tool_timeout, job,
									   GetCurrentTimestamp());
	prom_guard_run(&guard, make, trial, &end);
	return end.ok ? NULL : end.error;
}


/* Its examples. */

static bool
is_whole(Numeric number)
{
	Datum value = NumericGetDatum(number);

	return DatumGetBool(DirectFunctionCall2(
		numeric_eq, value,
		DirectFunctionCall2(numeric_trunc, value, Int32GetDatum(0))));
}

static bool
are_close(Numeric a, Numeric b)
{
	float8 x;
	float8 y;

	if (DatumGetBool(DirectFunctionCall2(numeric_eq, NumericGetDatum(a),
										 NumericGetDatum(b))))
		return true;
	x = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
										   NumericGetDatum(a)));
	y = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
										   NumericGetDatum(b)));
	/* Of what is beyond a float, and of infinities, nothing can be told. */
	if (isinf(x) || isinf(y))
		return false;
	if (Max(fabs(x), fabs(y)) < EXACT && is_whole(a) && is_whole(b))
		return false;
	return fabs(x - y) <= TOLERANCE * Max(fabs(x), fabs(y));
}

static bool
are_same_scalars(const JsonbValue *a, const JsonbValue *b)
{
	if (a->type == jbvNumeric && b->type == jbvNumeric)
		return are_close(a->val.numeric, b->val.numeric);
	return prom_same_scalars(a, b);
}

/* Two documents, piece by piece; the members of objects are in order. */
static bool
are_same(Jsonb *a, Jsonb *b)
{
	JsonbIterator *of_a = JsonbIteratorInit(&a->root);
	JsonbIterator *of_b = JsonbIteratorInit(&b->root);
	JsonbIteratorToken token;

	do
	{
		JsonbValue x;
		JsonbValue y;

		token = JsonbIteratorNext(&of_a, &x, false);
		if (JsonbIteratorNext(&of_b, &y, false) != token)
			return false;
		if ((token == WJB_KEY || token == WJB_VALUE || token == WJB_ELEM) &&
			!are_same_scalars(&x, &y))
			return false;
		if (token == WJB_BEGIN_ARRAY &&
			x.val.array.rawScalar != y.val.array.rawScalar)
			return false;
	} while (token != WJB_DONE);
	return true;
}

typedef struct ExampleRun
{
	Oid function;
	Jsonb *input;
	MemoryContext keep;
	Jsonb *output;
} ExampleRun;

static void
run_example(void *arg)
{
	ExampleRun *example = arg;
	Oid type = JSONBOID;
	Datum value = JsonbPGetDatum(example->input);
	MemoryContext before;
	Datum output;
	bool isnull;

	SPI_connect();
	if (SPI_execute_with_args(
			prom_signature_call(example->function, example->input), 1, &type,
			&value, NULL, true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not call the function");
	output = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						   &isnull);
	before = MemoryContextSwitchTo(example->keep);
	if (isnull)
		output = DirectFunctionCall1(jsonb_in, CStringGetDatum("null"));
	example->output = DatumGetJsonbPCopy(output);
	MemoryContextSwitchTo(before);
	SPI_finish();
}

/* What came of the examples. */
typedef struct Tally
{
	int n[2]; /* shown; held back */
	int right[2];
	int told;
	StringInfoData words; /* of those that were shown and came out wrong */
} Tally;

static void
tell(Tally *tally, const PromExample *example, Jsonb *output,
	 const char *error)
{
	if (example->held_back || tally->told >= MAX_TOLD)
		return;
	tally->told++;
	appendStringInfoString(&tally->words, "\nOf ");
	(void) JsonbToCString(&tally->words, &example->input->root,
						  VARSIZE(example->input));
	if (error != NULL)
		appendStringInfo(&tally->words, " it made an error: %s", error);
	else
	{
		appendStringInfoString(&tally->words, " it made ");
		(void) JsonbToCString(&tally->words, &output->root, VARSIZE(output));
	}
	appendStringInfoString(&tally->words, ", and should have made ");
	(void) JsonbToCString(&tally->words, &example->output->root,
						  VARSIZE(example->output));
}

static bool
is_enough(const Tally *tally, int kind)
{
	return tally->right[kind] * 100 >= tally->n[kind] * ENOUGH;
}

/* Why it has not stood its examples; NULL: it has. */
static const char *
judge_tally(const Tally *tally)
{
	StringInfoData words;

	if (is_enough(tally, 0) && is_enough(tally, 1))
		return NULL;
	initStringInfo(&words);
	appendStringInfo(&words, "%d of %d examples came out right, and %d %% must",
					 tally->right[0], tally->n[0], ENOUGH);
	if (tally->n[1] > 0)
		appendStringInfo(&words, "; of those that you were not shown, %d of %d, and the same",
						 tally->right[1], tally->n[1]);
	if (is_enough(tally, 0))
		appendStringInfoString(&words, ": it must do what is asked, and not just what was shown");
	appendStringInfo(&words, ".%s", tally->words.data);
	return prom_act_clip(words.data, PROM_ACT_MAX_ERROR);
}

/* Call it with each example; why it has not stood them, or NULL. */
static const char *
try_examples(PromJob *job, const PromAsked *asked, const Trial *trial,
			 Oid role, Tally *tally)
{
	const PromCommission *commission = trial->commission;
	int64 timeout = asked->facts.agent->tool_timeout;
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													timeout);
	PromGuard guard = {.role = role, .read_only = true, .integrity = true};

	memset(tally, 0, sizeof(*tally));
	initStringInfo(&tally->words);
	for (int i = 0; i < commission->nexamples; i++)
	{
		const PromExample *example = &commission->examples[i];
		ExampleRun run = {.function = trial->function,
						  .input = example->input,
						  .keep = CurrentMemoryContext};
		TimestampTz now = GetCurrentTimestamp();
		PromGuardEnd end;
		bool right;

		if (now >= until)
			return psprintf("its examples did not end within %lld ms and were stopped",
							(long long) timeout);
		guard.timeout = prom_act_time_left(
			TimestampDifferenceMilliseconds(now, until), job, now);
		prom_guard_run(&guard, run_example, &run, &end);
		prom_act_check_wanted(job);
		right = end.ok && are_same(run.output, example->output);
		tally->n[example->held_back]++;
		tally->right[example->held_back] += right ? 1 : 0;
		if (!right)
			tell(tally, example, run.output, end.ok ? NULL : end.error);
	}
	return judge_tally(tally);
}

/* Make it, call it, and leave nothing of it; why it is not good, or NULL. */
static const char *
try(PromJob *job, const PromAsked *asked, Trial *trial, Tally *tally)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	const char *problem;
	Oid role;

	problem = prom_act_find_role(&asked->facts, &role);
	if (problem != NULL)
		return problem;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	problem = make_guarded(job, asked, trial);
	if (problem == NULL)
		problem = try_examples(job, asked, trial, role, tally);
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = resources;
	return problem;
}


/* Keeping it. */

typedef struct Keeping
{
	const Trial *trial;
	const PromAsked *asked;
	int64 version;
} Keeping;

/* As who asked for it: he must still be allowed to set tools and the agent. */
static void
keep(void *arg)
{
	Keeping *keeping = arg;
	const PromCommission *commission = keeping->trial->commission;
	const char *name = keeping->trial->candidate.name;

	/* The function is younger than the transaction's snapshot. */
	PushActiveSnapshot(GetLatestSnapshot());
	keeping->version = prom_tool_add_made(
		name, keeping->trial->function, commission->description,
		keeping->asked->task_id, commission->name == NULL);
	if (commission->assigns)
		prom_agent_give_tool(keeping->asked->facts.source.agent, name);
	PopActiveSnapshot();
}

/* Make it for good, and a tool; why that cannot be, or NULL. */
static const char *
install(PromJob *job, const PromAsked *asked, Trial *trial, int64 *version)
{
	const PromPromptSource *source = &asked->facts.source;
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	Keeping keeping = {.trial = trial, .asked = asked};
	PromGuard guard = {.role = prom_guard_role(source->submitter,
											   source->submitter_oid)};
	PromGuardEnd end;
	const char *problem;

	if (!OidIsValid(guard.role))
		return "the role that asked for it does not exist any more";
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	problem = make_guarded(job, asked, trial);
	if (problem == NULL)
	{
		guard.timeout = prom_act_time_left(asked->facts.agent->tool_timeout,
										   job, GetCurrentTimestamp());
		prom_guard_run(&guard, keep, &keeping, &end);
		problem = end.ok ? NULL : end.error;
	}
	if (problem == NULL)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = resources;
	*version = keeping.version;
	return problem;
}

/* The name that its function has for good: another one for each task. */
static const char *
function_name(const PromAsked *asked, const char *name)
{
	int length = prom_encoding_clip(name, strlen(name), MAX_FUNCTION_NAME);

	return psprintf("%.*s_%lld", length, name, (long long) asked->task_id);
}

/* Read the statement, for its name alone; what is wrong is found later. */
static void
read_name(void *arg)
{
	Trial *trial = arg;

	prom_candidate_read(&trial->candidate, trial->commission,
						trial->candidate.statement);
	prom_tool_check_name(trial->candidate.name);
}

static const char *
begin_trial(PromJob *job, const PromAsked *asked, Trial *trial)
{
	PromGuard guard = {.role = get_role_oid(PROM_ROLE_TOOL, true)};
	PromGuardEnd end;

	memset(trial, 0, sizeof(*trial));
	trial->commission = asked->commission;
	trial->candidate.statement = asked->statement;
	trial->run_as = asked->facts.agent->run_as;
	if (!OidIsValid(guard.role))
		return psprintf("role \"%s\" does not exist any more", PROM_ROLE_TOOL);
	guard.timeout = prom_act_time_left(asked->facts.agent->tool_timeout, job,
									   GetCurrentTimestamp());
	prom_guard_run(&guard, read_name, trial, &end);
	if (!end.ok)
		return end.error;
	trial->name = function_name(asked, trial->candidate.name);
	return NULL;
}

typedef struct Relations
{
	const PromCommission *commission;
	Oid role;
	List *oids;
} Relations;

static void
find_relations(void *arg)
{
	Relations *relations = arg;

	relations->oids = prom_commission_relations(relations->commission,
												relations->role);
}

/* What it may read, by what who asked for it may read now. */
static const char *
read_relations(const PromAsked *asked, Trial *trial)
{
	const PromPromptSource *source = &asked->facts.source;
	Relations relations = {.commission = asked->commission,
						   .role = prom_guard_role(source->submitter,
												   source->submitter_oid)};
	ErrorData *failure;

	if (asked->commission->relations == NIL)
		return NULL;
	if (!OidIsValid(relations.role))
		return "the role that asked for it does not exist any more";
	failure = prom_xact_try(find_relations, &relations);
	if (failure != NULL)
		return failure->message;
	trial->relations = relations.oids;
	return NULL;
}

void
prom_workshop_run(PromJob *job, PromAsked *asked)
{
	PromToolStep step = {.task_id = job->task_id,
						 .attempt = job->attempt,
						 .step = job->step,
						 .started_at = GetCurrentTimestamp(),
						 .name = asked->name,
						 .arguments = asked->arguments};
	bool is_judged = false;
	TimestampTz judged_at = 0;
	PromFactWriter *writer;
	PromVerdict verdict;
	PromJudged judged;
	int64 version = 0;
	Tally tally;
	Trial trial;

	step.error = prom_act_refused(job);
	if (step.error == NULL)
		step.error = begin_trial(job, asked, &trial);
	if (step.error == NULL)
		step.error = read_relations(asked, &trial);
	if (step.error == NULL)
		step.error = try(job, asked, &trial, &tally);
	if (step.error == NULL)
	{
		is_judged = true;
		prom_asked_judged(asked, &judged);
		if (!prom_act_judge(job, &judged, asked->facts.agent, &verdict, &step))
			return;
		judged_at = GetCurrentTimestamp();
	}
	if (step.error == NULL)
		step.error = install(job, asked, &trial, &version);
	if (step.error == NULL)
		step.result = psprintf("tool %s, version %lld: %d of %d examples came out right",
							   trial.candidate.name, (long long) version,
							   tally.right[0] + tally.right[1],
							   tally.n[0] + tally.n[1]);
	prom_act_check_wanted(job);
	writer = prom_fact_begin();
	if (is_judged && verdict.opinion == NULL)
		prom_verdict_add(writer, &judged, &verdict, judged_at);
	prom_step_add_tool(writer, &step, GetCurrentTimestamp());
	prom_fact_end(writer);
	if (step.vetoed)
		prom_learn(&judged, &verdict);
}
