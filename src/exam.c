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
#include "xact.h"

/* Bytes of a text that is made up. */
#define MADE_UP 40

/* Bytes of an error that is told. */
#define MAX_ERROR 500

#define FUNCTION "test_case"

static const char overdue[] = "it did not end in time and was stopped";

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
	const PromExam *exam;
	PromCandidate candidate;
	Oid function;
	Jsonb *answer; /* as an object of arguments */
	bool passed;
} Sitting;

/* By a name of its own: who makes one waits for others that make the same. */
static void
make(void *arg)
{
	Sitting *sitting = arg;

	prom_candidate_read(&sitting->candidate, &commission,
						sitting->candidate.statement);
	sitting->function = prom_candidate_make(
		&sitting->candidate, &commission, NIL,
		psprintf(FUNCTION "_%lld", (long long) sitting->exam->job->task_id));
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

/*
 * As the owner of such functions; what went wrong with the case, or NULL.  What
 * is no fault of it (memory, a cancel by somebody else) says nothing of any
 * answer: then the job is given again.
 */
static const char *
run(Sitting *sitting, void (*act)(void *arg), bool read_only)
{
	PromGuard guard = {.role = get_role_oid(PROM_ROLE_TOOL, false),
					   .read_only = read_only,
					   .integrity = read_only};
	TimestampTz now = GetCurrentTimestamp();
	PromJob *job = sitting->exam->job;
	PromGuardEnd end;

	if (now >= sitting->exam->until)
		return overdue;
	guard.timeout = prom_act_time_left(
		TimestampDifferenceMilliseconds(now, sitting->exam->until), job, now);
	prom_guard_run(&guard, act, sitting, &end);
	prom_act_check_wanted(job);
	if (end.ok)
		return NULL;
	if (end.was_cancelled && GetCurrentTimestamp() >= sitting->exam->until)
		return overdue;
	if (prom_xact_is_transient(end.sqlstate))
		ereport(ERROR, (errcode(end.sqlstate),
						errmsg("a test case could not be tried: %s",
							   end.error)));
	return prom_act_clip(end.error, MAX_ERROR);
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
try(const PromExam *exam, const PromCase *one, const char *const *answers,
	int n, bool *passed)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	Sitting sitting = {.exam = exam};
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
		if (i > 0 && problem != overdue)
			problem = NULL;
	}
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = resources;
	return problem;
}

void
prom_exam_begin(PromExam *exam, PromJob *job, const PromPromptFacts *facts)
{
	exam->job = job;
	exam->until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
											  facts->agent->tool_timeout);
}

/* A text that nobody could know before. */
static const char *
make_up(void)
{
	uint8 noise[MADE_UP];
	char *text = palloc(MADE_UP + 1);

	if (!pg_strong_random(noise, MADE_UP))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not make random values")));
	for (int i = 0; i < MADE_UP; i++)
		text[i] = noise[i] % 27 == 26 ? ' ' : 'a' + noise[i] % 27;
	text[MADE_UP] = '\0';
	return text;
}

const char *
prom_exam_check(const PromExam *exam, const PromCase *one, const char *solution,
				const char *request)
{
	/* A short word may be in one of these by chance. */
	const char *answers[5] = {solution, "", request, make_up(), make_up()};
	bool passed[5];
	const char *problem = try(exam, one, answers, 5, passed);

	if (problem != NULL)
		return problem;
	if (!passed[0])
		return "it is not true of the solution";
	if (passed[1])
		return "it is true of an empty answer, so it says nothing";
	if (passed[2])
		return "it is true of the task itself given as the answer, so it says nothing";
	if (passed[3] && passed[4])
		return "it is true of a text that was made up, so it says nothing";
	return NULL;
}

bool
prom_exam_pass(const PromExam *exam, const PromCase *one, const char *answer)
{
	bool passed;

	return try(exam, one, &answer, 1, &passed) == NULL && passed;
}
