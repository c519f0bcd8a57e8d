/*
 * exam.c
 *	  Executor: holds an answer against test cases that a model wrote.
 *
 * A case is an expression.  It is made the body of a function as any that a
 * model writes (candidate.c), so it may use nothing else than these may; and in
 * a subtransaction that is always rolled back the role that owns such
 * functions, and may do nothing, calls it under the rules of guard.c,
 * read-only.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/resowner.h"

#include "act.h"
#include "candidate.h"
#include "exam.h"
#include "guard.h"
#include "signature.h"

/* Bytes of an error that is told. */
#define MAX_ERROR 500

#define FUNCTION "test_case"

/* What the functions are: one text in, yes or no out. */
static PromWanted answer_wanted = {.name = "answer",
								   .kind = PROM_VALUE_TEXT,
								   .type = TEXTOID};
static const PromCommission commission = {
	.name = FUNCTION,
	.description = "A test case.",
	.nwanted = 1,
	.wanted = &answer_wanted,
	.result = {.kind = PROM_VALUE_BOOLEAN, .type = BOOLOID},
};

typedef struct Sitting
{
	PromJob *job;
	const PromPromptFacts *facts;
	PromCandidate candidate;
	Oid function;
	Jsonb *answer; /* as an object of arguments */
	bool passed;
} Sitting;

static void
make(void *arg)
{
	Sitting *sitting = arg;

	prom_candidate_read(&sitting->candidate, &commission,
						sitting->candidate.statement);
	sitting->function = prom_candidate_make(&sitting->candidate, &commission,
											NIL, FUNCTION);
}

static void
call(void *arg)
{
	Sitting *sitting = arg;
	Oid type = JSONBOID;
	Datum value = JsonbPGetDatum(sitting->answer);
	Datum result;
	bool isnull;
	JsonbValue scalar;

	SPI_connect();
	if (SPI_execute_with_args(
			prom_signature_call(sitting->function, sitting->answer), 1, &type,
			&value, NULL, true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not call the test case");
	result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						   &isnull);
	sitting->passed = !isnull &&
					  JsonbExtractScalar(&DatumGetJsonbP(result)->root,
										 &scalar) &&
					  scalar.type == jbvBool && scalar.val.boolean;
	SPI_finish();
}

/* As the owner of such functions; what went wrong, or NULL. */
static const char *
run(Sitting *sitting, void (*act)(void *arg), bool read_only)
{
	PromGuard guard = {.role = get_role_oid(PROM_ROLE_TOOL, true),
					   .read_only = read_only,
					   .integrity = read_only};
	PromGuardEnd end;

	if (!OidIsValid(guard.role))
		return psprintf("role \"%s\" does not exist any more", PROM_ROLE_TOOL);
	guard.timeout = prom_act_time_left(sitting->facts->agent->tool_timeout,
									   sitting->job, GetCurrentTimestamp());
	prom_guard_run(&guard, act, sitting, &end);
	prom_act_check_wanted(sitting->job);
	if (end.ok)
		return NULL;
	return prom_act_clip(end.was_cancelled
							 ? "it did not end in time and was stopped"
							 : end.error,
						 MAX_ERROR);
}

static Jsonb *
arguments_of(const char *answer)
{
	JsonbParseState *state = NULL;
	JsonbValue key = {.type = jbvString};
	JsonbValue value = {.type = jbvString};

	key.val.string.val = unconstify(char *, answer_wanted.name);
	key.val.string.len = strlen(answer_wanted.name);
	value.val.string.val = unconstify(char *, answer);
	value.val.string.len = strlen(answer);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	(void) pushJsonbValue(&state, WJB_KEY, &key);
	(void) pushJsonbValue(&state, WJB_VALUE, &value);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * Try n answers, until one makes an error; what that is, or why the case cannot
 * be tried, or NULL.
 */
static const char *
try(PromJob *job, const PromPromptFacts *facts, const PromCase *one,
	const char *const *answers, int n, bool *passed)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	Sitting sitting = {.job = job, .facts = facts};
	const char *problem;

	sitting.candidate.statement = psprintf(
		"CREATE FUNCTION " FUNCTION "(answer text) RETURNS boolean LANGUAGE sql STABLE RETURN (%s)",
		one->check);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	problem = run(&sitting, make, false);
	for (int i = 0; problem == NULL && i < n; i++)
	{
		sitting.answer = arguments_of(answers[i]);
		sitting.passed = false;
		problem = run(&sitting, call, true);
		passed[i] = problem == NULL && sitting.passed;
		/* Of what is no answer, an error says as much as false does. */
		if (i > 0)
			problem = NULL;
	}
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = resources;
	return problem;
}

const char *
prom_exam_check(PromJob *job, const PromPromptFacts *facts,
				const PromCase *one, const char *solution, const char *request)
{
	const char *answers[3] = {solution, "", request};
	bool passed[3];
	const char *problem = try(job, facts, one, answers, 3, passed);

	if (problem != NULL)
		return problem;
	if (!passed[0])
		return "it is not true of the solution";
	if (passed[1])
		return "it is true of an empty answer, so it says nothing";
	if (passed[2])
		return "it is true of the task itself given as the answer, so it says nothing";
	return NULL;
}

bool
prom_exam_pass(PromJob *job, const PromPromptFacts *facts,
			   const PromCase *one, const char *answer)
{
	bool passed;

	return try(job, facts, one, &answer, 1, &passed) == NULL && passed;
}
