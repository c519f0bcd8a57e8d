/*
 * attempt.c
 *	  Starts attempts of claimed tasks and records how each ended.
 *
 * A start (attempt, and the intent to send) and an end (step and outcome) are
 * facts that the caller process puts into the transaction of its turn; no
 * transaction is open between them.  Loading a task reads what its facts say,
 * whatever the scheduler believed: a task that has ended is left alone, an
 * attempt that another process left open gets the outcome "lost".
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "answer.h"
#include "attempt.h"
#include "course.h"
#include "fault.h"
#include "guc.h"
#include "guilt.h"
#include "load.h"
#include "outcome.h"
#include "query.h"
#include "reuse.h"
#include "route.h"
#include "schema.h"
#include "spending.h"
#include "step.h"
#include "summary.h"
#include "thought.h"
#include "xact.h"

static void
add_lost(PromFactWriter *writer, const PromAttempt *attempt,
		 const PromLoaded *loaded, TimestampTz now)
{
	PromOutcome lost = {0};

	lost.outcome = "lost";
	lost.attempt = loaded->last_attempt;
	lost.used = loaded->used;
	lost.step = loaded->last_step;
	lost.error = "the process that ran it ended";
	prom_outcome_add(writer, attempt, &lost, now);
}

/* Can the task be ended without another attempt?  Then it is. */
static bool
end_if_due(PromFactWriter *writer, PromAttempt *attempt,
		   const PromLoaded *loaded, TimestampTz now)
{
	const char *outcome = "cancelled";
	const char *error_type = "DependencyFailed";
	const char *error;
	const char *why;

	if (loaded->ended)
	{
		attempt->next = PROM_NEXT_ENDED;
		attempt->completed = loaded->completed;
		return true;
	}
	if (loaded->cancelled)
	{
		error_type = NULL;
		error = loaded->cancel_reason;
		why = PROM_COURSE_CANCELLED;
	}
	else if (loaded->parent_ended)
		error = why = "the task that delegated it has ended";
	else if (loaded->deadline <= now)
	{
		outcome = "failed";
		error_type = "DeadlineExceeded";
		error = "the task did not end before its deadline";
		why = PROM_COURSE_LATE;
	}
	else if (loaded->bad_parent != NULL)
		error = why = loaded->bad_parent;
	else
		return false;
	if (!prom_course_end_answered(writer, attempt, loaded, why, now))
		prom_outcome_end(writer, attempt, loaded, outcome, error_type, error,
						 now);
	return true;
}

/* What a claimed task needs now, by its own facts; the bytes it loaded. */
static int64
go_on(PromFactWriter *writer, PromAttempt *attempt, const PromLoaded *loaded,
	  TimestampTz now)
{
	bool open = loaded->last_attempt > loaded->outcome_attempt;
	bool begun = open && attempt->attempt == loaded->last_attempt;

	prom_spending_settle_turn(attempt);
	attempt->deadline = loaded->deadline;
	attempt->parent_id = loaded->parent_id;
	prom_load_identify(attempt, loaded);
	attempt->whose = prom_summary_hash(loaded->agent, loaded->source.submitter,
									   loaded->source.submitter_oid);
	attempt->waiting = false;
	if (end_if_due(writer, attempt, loaded, now))
		return 0;
	if (begun)
	{
		if (!attempt->chat_failed)
			return prom_course_go_on(writer, attempt, loaded, true, now);
		prom_outcome_of_failed_chat(writer, attempt, now);
		return 0;
	}
	attempt->retrying = loaded->retrying || open;
	if (open)
		add_lost(writer, attempt, loaded, now);
	if (loaded->depends)
		attempt->next = PROM_NEXT_READ;
	else if (attempt->only_end || (loaded->due > now && !open))
	{
		attempt->next = PROM_NEXT_LATER;
		attempt->due = loaded->due;
	}
	else
		return prom_course_go_on(writer, attempt, loaded, false, now);
	return 0;
}

void
prom_attempt_begin(PromFactWriter *writer, PromAttempt **attempts, int n,
				   int64 max_bytes, TimestampTz now)
{
	int nloaded;
	PromLoaded *loaded = prom_load(attempts, n, &nloaded);
	int64 bytes = 0;

	for (int i = 0; i < n; i++)
	{
		int found = -1;

		/* It was tried before, and not written. */
		prom_route_leave(attempts[i]);
		prom_reuse_leave(attempts[i]);
		attempts[i]->completed = false;

		/* They come in the order of the argument unless some are missing. */
		for (int k = 0; k < nloaded && found == -1; k++)
		{
			int candidate = (i + k) % nloaded;

			if (loaded[candidate].task_id == attempts[i]->task_id)
				found = candidate;
		}
		if (found == -1)
			attempts[i]->next = PROM_NEXT_ENDED;
		else if ((bytes > 0 && bytes + loaded[found].bytes > max_bytes) ||
				 (loaded[found].has_schema && prom_schema_is_tired()))
			attempts[i]->next = PROM_NEXT_AGAIN;
		else
		{
			prom_guilt_name(attempts[i]->task_id,
							loaded[found].last_step + 1);
			PROM_FAULT("begin-loaded");
			bytes += go_on(writer, attempts[i], &loaded[found], now);
		}
	}
}

static PromStatement schema_statement = {
	"SELECT output_schema FROM prometheus._task WHERE task_id = $1",
	1,
	{INT8OID},
	NULL,
};

/* Read again: a schema may be long, and the call took minutes. */
static Jsonb *
load_schema(const PromAttempt *attempt)
{
	Datum argument = Int64GetDatum(attempt->task_id);
	Jsonb *schema = NULL;

	prom_statement_run(&schema_statement, &argument, NULL, true);
	if (SPI_processed > 0)
		schema = prom_row_jsonb_or_null(0, 1);
	SPI_freetuptable(SPI_tuptable);
	return schema;
}

void
prom_attempt_record(PromFactWriter *writer, PromAttempt *attempt,
					TimestampTz now)
{
	PromReply reply = *prom_llm_reply(attempt->call);

	prom_attempt_record_reply(writer, attempt, &reply, now);
}

void
prom_attempt_record_reply(PromFactWriter *writer, PromAttempt *attempt,
						  PromReply *reply, TimestampTz now)
{
	Jsonb *schema = NULL;

	if (attempt->counsel.model != NULL)
	{
		prom_counsel_record(writer, attempt, reply, now);
		return;
	}
	if (attempt->thought == PROM_THOUGHT_EMBED)
	{
		prom_query_record(writer, attempt, reply, now);
		return;
	}
	if (attempt->thought != PROM_THOUGHT_NONE)
	{
		prom_thought_record(writer, attempt, reply, now);
		return;
	}
	if (attempt->has_schema && reply->ok)
	{
		if (prom_schema_is_tired())
		{
			attempt->next = PROM_NEXT_AGAIN;
			return;
		}
		schema = load_schema(attempt);
	}
	prom_answer_check(schema, reply);
	prom_step_add_chat(writer, attempt, reply, now);
	prom_spending_settle(attempt, attempt->model, reply);
	attempt->tokens_now = prom_reply_tokens(reply);
	if (reply->ok && reply->ncalls > 0)
		attempt->next = PROM_NEXT_GO_ON;
	else
		prom_outcome_of_reply(writer, attempt, reply, now);
}

void
prom_attempt_take_job(PromAttempt *attempt, const PromJobEnd *end)
{
	if (end->chat_failed)
	{
		attempt->chat_failed = true;
		attempt->retry = end->retry;
	}
	if (end->asks != 0 && attempt->nasking < PROM_MAX_ASKING)
		attempt->asking[attempt->nasking++] = end->asks;
	attempt->tokens += end->tokens;
}

static PromStatement reason_statement = {
	"SELECT reason FROM prometheus._cancel WHERE task_id = $1"
	" AND requested_at >= coalesce((SELECT max(r.retried_at)"
	"   FROM prometheus._retry r WHERE r.task_id = $1), '-infinity')"
	" ORDER BY requested_at LIMIT 1",
	1,
	{INT8OID},
	NULL,
};

void
prom_attempt_cancel(PromFactWriter *writer, PromAttempt *attempt,
					TimestampTz now)
{
	Datum argument = Int64GetDatum(attempt->task_id);
	PromOutcome end = {0};

	if (attempt->thought == PROM_THOUGHT_REFLECT)
	{
		prom_thought_fail(writer, attempt, PROM_COURSE_CANCELLED, now);
		prom_outcome_complete(writer, attempt,
							  attempt->stands != 0 ? attempt->stands
												   : attempt->answer,
							  now);
		return;
	}
	if (attempt->stands != 0)
	{
		prom_outcome_complete(writer, attempt, attempt->stands, now);
		return;
	}
	prom_statement_run(&reason_statement, &argument, NULL, true);
	end.outcome = "cancelled";
	end.attempt = attempt->attempt;
	end.used = attempt->used + 1;
	end.step = attempt->step - 1;
	end.error = SPI_processed > 0 ? prom_row_text_or_null(0, 1) : NULL;
	prom_outcome_add(writer, attempt, &end, now);
	attempt->next = PROM_NEXT_ENDED;
}

void
prom_attempt_give_up(PromFactWriter *writer, PromAttempt *attempt,
					 const char *error_type, const char *error, TimestampTz now)
{
	int nloaded;
	PromLoaded *loaded = prom_load(&attempt, 1, &nloaded);

	attempt->next = PROM_NEXT_ENDED;
	attempt->completed = nloaded == 1 && loaded->ended && loaded->completed;
	if (nloaded == 1 && !loaded->ended &&
		!prom_course_end_answered(writer, attempt, loaded, error, now))
		prom_outcome_end(writer, attempt, loaded, "failed", error_type, error,
						 now);
}

static PromStatement strikes_statement = {
	"SELECT count(*) FILTER (WHERE s.struck_at > coalesce((SELECT max(r.retried_at)"
	"   FROM prometheus._retry r WHERE r.task_id = $1), '-infinity')),"
	" coalesce(max(s.struck_at), '-infinity')"
	" FROM prometheus._strike s WHERE s.task_id = $1",
	1,
	{INT8OID},
	NULL,
};

/*
 * The strikes of a task since it was last retried by hand, with the new one,
 * which is written here.
 */
static int
add_strike(PromFactWriter *writer, const PromCulprit *culprit,
		   const PromLoaded *loaded, TimestampTz now)
{
	Datum argument = Int64GetDatum(culprit->task_id);
	Datum values[STRIKE_COLUMNS];
	bool nulls[STRIKE_COLUMNS] = {false};
	int strikes;

	prom_statement_run(&strikes_statement, &argument, NULL, true);
	strikes = prom_row_int64(0, 1);

	/* A strike since that process began is for its end: this is it. */
	if (prom_row_time(0, 2) > culprit->since)
		return strikes;
	values[STRIKE_TASK_ID] = argument;
	values[STRIKE_ATTEMPT] = Int32GetDatum(
		loaded->last_attempt > loaded->outcome_attempt
			? loaded->last_attempt
			: Max(loaded->last_attempt, loaded->outcome_attempt) + 1);
	values[STRIKE_STRUCK_AT] = TimestampTzGetDatum(now);
	prom_fact_add(writer, PROM_FACT_STRIKE, values, nulls);
	return strikes + 1;
}

void
prom_attempt_strike(PromFactWriter *writer, const PromCulprit *culprit,
					TimestampTz now)
{
	PromAttempt attempt = {.task_id = culprit->task_id};
	PromAttempt *attempts = &attempt;
	int nloaded;
	PromLoaded *loaded = prom_load(&attempts, 1, &nloaded);
	int strikes;
	const char *times;
	const char *error;

	/* It was dropped with the extension, or its end was just recorded. */
	if (nloaded == 0 || loaded->ended)
		return;
	strikes = add_strike(writer, culprit, loaded, now);
	times = strikes == 1 ? "once" : psprintf("%d times", strikes);
	ereport(WARNING,
			(errmsg("task %lld crashed the server", (long long) culprit->task_id),
			 errdetail("It was at step %d. It did so %s; prometheus.max_crashes is %d.",
					   culprit->step, times, prom_guc_max_crashes)));
	if (strikes < prom_guc_max_crashes)
		return;
	error = psprintf("the server crashed %s while it worked on this task",
					 times);
	if (!prom_course_end_answered(writer, &attempt, loaded, error, now))
		prom_outcome_end(writer, &attempt, loaded, "quarantined", "Crashed",
						 error, now);
}
