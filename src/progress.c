/*
 * progress.c
 *	  Reads from a task's steps where it is between its model and its tools.
 *
 * A turn of the model that asks for n tool calls is step s; their steps are
 * s+1 to s+n, in the provider's order, whoever runs them and whenever.  So a
 * call that has a step was made, exactly once, and one that has none was not;
 * the primary key of _step sees to it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "evolution.h"
#include "progress.h"
#include "xact.h"

static PromStatement steps_statement = {
	"SELECT s.step, s.kind, s.status, coalesce(s.calls, 0),"
	" coalesce(s.tokens_in, 0) + coalesce(s.tokens_out, 0), s.cost::text,"
	" coalesce(octet_length(s.answer), 0), s.attempt, s.name, s.error,"
	" s.model IS NOT NULL,"
	" CASE WHEN s.kind = 'reflect' AND s.status = 'ok'"
	"   THEN (s.answer::jsonb ->> 'score')::float8 END,"
	" s.arguments IS NOT NULL, s.error_type"
	" FROM prometheus._step s WHERE s.task_id = $1 ORDER BY s.step",
	1,
	{INT8OID},
	NULL,
};

static Numeric
add_cost(Numeric sum, const char *cost)
{
	Datum value;

	if (cost == NULL)
		return sum;
	value = DirectFunctionCall3(numeric_in, CStringGetDatum(cost),
								ObjectIdGetDatum(InvalidOid),
								Int32GetDatum(-1));
	if (sum != NULL)
		value = DirectFunctionCall2(numeric_add, NumericGetDatum(sum), value);
	return DatumGetNumeric(value);
}

/* A step since the retry by hand counts. */
static void
count(PromProgress *progress, uint64 row, const char *kind, const char *status)
{
	if (strcmp(kind, "chat") == 0)
		progress->turns += strcmp(status, "ok") == 0 ? 1 : 0;
	else if (strcmp(kind, "tool") == 0)
	{
		progress->tool_calls++;
		progress->results += prom_row_int32(row, 7);
		if (strcmp(status, "vetoed") == 0)
		{
			progress->vetoes++;
			progress->veto = prom_row_text_or_null(row, 10);
		}
	}
	progress->tokens += prom_row_int64(row, 5);
	progress->cost = add_cost(progress->cost, prom_row_text_or_null(row, 6));
}

/*
 * A review of the request, for one attempt, or of the answer, until the task is
 * retried by hand.
 */
static void
take_review(PromProgress *progress, uint64 row, const char *status,
			int32 retried_attempt)
{
	if (prom_row_bool(row, 11))
	{
		/* By a model: what it says is a verdict. */
		if (progress->counsel_attempt != prom_row_int32(row, 8))
			progress->counsels = 0;
		progress->counsel_attempt = prom_row_int32(row, 8);
		progress->counsels++;
		return;
	}
	progress->review_attempt = prom_row_int32(row, 8);
	progress->reviewed_answer = progress->review_attempt > retried_attempt &&
								strcmp(prom_row_text(row, 9), "answer") == 0;
	progress->review_veto = strcmp(status, "vetoed") == 0
								? prom_row_text(row, 10)
								: NULL;
}

/* The turn before it is the answer that it is about. */
static void
take_reflection(PromProgress *progress, uint64 row, bool ok)
{
	progress->reflection = prom_row_int32(row, 1);
	if (++progress->reflections == 1 && ok)
	{
		progress->first = progress->turn;
		progress->score = prom_row_float8(row, 12);
	}
	else if (ok)
		progress->score_again = prom_row_float8(row, 12);
}

static void
take_thought(PromProgress *progress, uint64 row, const char *kind,
			 const char *status)
{
	if (strcmp(kind, "recall") == 0 && prom_row_bool(row, 13))
		progress->summarised = true;
	else if (strcmp(kind, "recall") == 0)
		progress->recalled = true;
	else if (strcmp(kind, "embed") == 0)
		progress->embedded = true;
	else if (strcmp(kind, "reflect") == 0)
		take_reflection(progress, row, strcmp(status, "ok") == 0);
	else if (strcmp(kind, "plan") == 0)
	{
		progress->planned = strcmp(status, "ok") == 0;
		progress->plan_attempt = prom_row_int32(row, 8);
	}
}

/* A function was tried. */
static void
take_candidate(PromProgress *progress, uint64 row, const char *status,
			   bool counts)
{
	progress->made = strcmp(status, "ok") == 0;
	if (progress->made || !counts)
		return;
	progress->refused++;
	progress->refusal = prom_row_text_or_null(row, 10);
}

/* An answer that is a function: it is tried, has been refused, or is a tool. */
static void
find_candidate(PromProgress *progress, bool tried)
{
	progress->next_step = Max(progress->next_step, progress->turn + 2);
	if (tried && !progress->made)
		progress->ncalls = 1;
	if (tried)
		return;
	progress->pending = palloc(sizeof(int32));
	progress->pending[progress->npending++] = progress->turn + 1;
}

/* The calls of the last turn that are not among the steps. */
static void
find_pending(PromProgress *progress)
{
	bool *done = palloc0((progress->ncalls + 1) * sizeof(bool));

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		int64 call = (int64) prom_row_int32(i, 1) - progress->turn;

		if (call > 0 && call <= progress->ncalls)
			done[call] = true;
	}
	progress->pending = palloc((progress->ncalls + 1) * sizeof(int32));
	for (int call = 1; call <= progress->ncalls; call++)
		if (!done[call])
			progress->pending[progress->npending++] = progress->turn + call;
	pfree(done);
}

/*
 * Of a task that evolves its agent, a step that is named for it is its end: the
 * answer, or why it cannot go on.
 */
static void
take_move(PromProgress *progress, uint64 row, const char *status, bool counts)
{
	progress->turn = prom_row_int32(row, 1);
	progress->failure = progress->failure_type = NULL;
	progress->made = false;
	if (strcmp(prom_row_text(row, 9), PROM_EVOLUTION_TOOL) != 0)
		return;
	progress->made = strcmp(status, "ok") == 0;
	if (progress->made || !counts)
		return;
	progress->failure = prom_row_text(row, 10);
	progress->failure_type = prom_row_text(row, 14);
}

/*
 * Its next move has the first number after the last one that no review has.
 * Reviews come behind that, so it keeps its number, by which its task is found.
 */
static void
find_move(PromProgress *progress, uint64 nsteps)
{
	int32 next = progress->turn + 1;

	progress->answered = progress->made;
	for (uint64 i = 0; i < nsteps; i++)
		if (prom_row_int32(i, 1) == next)
			next++;
	if (!progress->answered && progress->failure == NULL)
	{
		progress->pending = palloc(sizeof(int32));
		progress->pending[progress->npending++] = next;
	}
	progress->next_step = Max(progress->next_step, next + 1);
}

void
prom_progress_read(int64 task_id, int32 last_step, int32 retried_attempt,
				   PromCourse course, PromProgress *progress)
{
	Datum value = Int64GetDatum(task_id);
	bool makes_tool = course == PROM_COURSE_TOOL;
	bool evolves = course == PROM_COURSE_EVOLVES;
	bool tried = false;

	memset(progress, 0, sizeof(*progress));
	progress->next_step = 1;
	progress->score_again = -1;
	if (last_step == 0)
	{
		if (evolves)
			find_move(progress, 0);
		return;
	}
	prom_statement_run(&steps_statement, &value, NULL, true);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		int32 step = prom_row_int32(i, 1);
		const char *kind = prom_row_text(i, 2);
		const char *status = prom_row_text(i, 3);

		progress->next_step = Max(progress->next_step, step + 1);
		if (strcmp(kind, "review") == 0)
			take_review(progress, i, status, retried_attempt);
		if (strcmp(kind, "chat") == 0 && strcmp(status, "ok") == 0)
		{
			progress->turn = step;
			progress->ncalls = prom_row_int32(i, 4);
			progress->next_step = step + progress->ncalls + 1;
			progress->reviewed_answer = false;
			progress->made = tried = false;
		}
		if (makes_tool && strcmp(kind, "tool") == 0 && progress->ncalls == 0)
		{
			take_candidate(progress, i, status,
						   prom_row_int32(i, 8) > retried_attempt);
			tried = true;
		}
		if (evolves && strcmp(kind, "tool") == 0)
			take_move(progress, i, status,
					  prom_row_int32(i, 8) > retried_attempt);
		if (prom_row_int32(i, 8) > retried_attempt)
		{
			count(progress, i, kind, status);
			take_thought(progress, i, kind, status);
		}
	}
	if (evolves)
	{
		find_move(progress, SPI_processed);
		SPI_freetuptable(SPI_tuptable);
		return;
	}
	if (makes_tool && progress->turn > 0 && progress->ncalls == 0)
		find_candidate(progress, tried);
	else if (progress->turn > 0)
		find_pending(progress);
	progress->answered = progress->turn > 0 && progress->ncalls == 0;
	progress->reflected = progress->reflection > progress->turn;
	SPI_freetuptable(SPI_tuptable);
}

int32
prom_progress_stands(PromProgress *progress, double below)
{
	if (progress->first == 0 || progress->score >= below)
		return 0;
	if (progress->turn == progress->first && progress->reflections == 1)
		progress->answered = false;
	return progress->first;
}

int32
prom_progress_answer(const PromProgress *progress, int32 stands)
{
	return stands == 0 || progress->score_again >= progress->score
			   ? progress->turn
			   : stands;
}

static PromStatement begun_statement = {
	"SELECT a.started_at FROM prometheus._attempt a"
	" WHERE a.task_id = $1 AND a.attempt > $2 ORDER BY a.attempt LIMIT 1",
	2,
	{INT8OID, INT4OID},
	NULL,
};

static bool
is_too_old(int64 task_id, int32 retried_attempt, int64 ms, TimestampTz now)
{
	Datum values[2] = {Int64GetDatum(task_id), Int32GetDatum(retried_attempt)};
	bool is_old;

	prom_statement_run(&begun_statement, values, NULL, true);
	is_old = SPI_processed > 0 &&
			 TimestampTzPlusMilliseconds(prom_row_time(0, 1), ms) <= now;
	SPI_freetuptable(SPI_tuptable);
	return is_old;
}

static bool
is_too_dear(Numeric cost, const char *max)
{
	Datum limit = DirectFunctionCall3(numeric_in, CStringGetDatum(max),
									  ObjectIdGetDatum(InvalidOid),
									  Int32GetDatum(-1));

	return cost != NULL &&
		   DatumGetBool(
			   DirectFunctionCall2(numeric_gt, NumericGetDatum(cost), limit));
}

const char *
prom_progress_limit(int64 task_id, int32 retried_attempt,
					const PromProgress *progress, const PromLimits *limits,
					TimestampTz now)
{
	if (progress->tool_calls + progress->npending > limits->max_tool_calls)
		return psprintf("max_tool_calls: the model asked for %d tool calls, the limit is %d",
						progress->tool_calls + progress->npending,
						limits->max_tool_calls);
	if (progress->npending == 0 && progress->turns >= limits->max_turns)
		return psprintf("max_turns: no answer after %d turns of the model",
						progress->turns);
	if (progress->results > limits->max_results)
		return psprintf("max_results: the results of tools have %lld bytes, the limit is %lld",
						(long long) progress->results,
						(long long) limits->max_results);
	if (limits->max_tokens >= 0 && progress->tokens >= limits->max_tokens)
		return psprintf("max_tokens: %lld tokens are used up, the limit is %lld",
						(long long) progress->tokens,
						(long long) limits->max_tokens);
	if (limits->max_cost != NULL &&
		is_too_dear(progress->cost, limits->max_cost))
		return psprintf("max_cost: the task has cost more than %s",
						limits->max_cost);
	if (limits->max_duration >= 0 &&
		is_too_old(task_id, retried_attempt, limits->max_duration, now))
		return psprintf("max_duration: the task has run for %lld s",
						(long long) limits->max_duration / 1000);
	return NULL;
}
