/*
 * outcome.c
 *	  Writes how attempts end.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "course.h"
#include "encoding.h"
#include "judge.h"
#include "outcome.h"
#include "route.h"
#include "summary.h"
#include "tally.h"
#include "xact.h"

void
prom_outcome_add(PromFactWriter *writer, const PromAttempt *attempt,
				 const PromOutcome *outcome, TimestampTz now)
{
	Datum values[OUTCOME_COLUMNS];
	bool nulls[OUTCOME_COLUMNS] = {false};

	values[OUTCOME_TASK_ID] = Int64GetDatum(attempt->task_id);
	values[OUTCOME_ATTEMPT] = Int32GetDatum(outcome->attempt);
	values[OUTCOME_EVENT_ID] = Int64GetDatum(prom_fact_next_id());
	values[OUTCOME_ENDED_AT] = TimestampTzGetDatum(now);
	values[OUTCOME_ATTEMPTS] = Int32GetDatum(outcome->used);
	values[OUTCOME_STEP] = Int32GetDatum(outcome->step);
	nulls[OUTCOME_STEP] = outcome->step == 0;
	values[OUTCOME_NEXT_RUN_AT] = TimestampTzGetDatum(outcome->next_run_at);
	nulls[OUTCOME_NEXT_RUN_AT] = outcome->next_run_at == 0;
	values[OUTCOME_OUTCOME] = CStringGetTextDatum(outcome->outcome);
	values[OUTCOME_ERROR_TYPE] = prom_fact_text(outcome->error_type,
												&nulls[OUTCOME_ERROR_TYPE]);
	values[OUTCOME_ERROR] =
		prom_fact_text(outcome->error, &nulls[OUTCOME_ERROR]);
	prom_fact_add(writer, PROM_FACT_OUTCOME, values, nulls);
	prom_tally_outcome(attempt, outcome, now);
}

/* It has an answer already, and what failed was to be a better one. */
static void
stand(PromAttempt *attempt, PromOutcome *end)
{
	end->outcome = "completed";
	end->step = attempt->stands;
	end->error_type = end->error = NULL;
	attempt->completed = true;
	prom_summary_note(attempt->task_id, attempt->whose);
}

/* A task that ends before an attempt of ours: on the one left open, if any. */
void
prom_outcome_end(PromFactWriter *writer, PromAttempt *attempt,
				 const PromLoaded *loaded, const char *outcome,
				 const char *error_type, const char *error, TimestampTz now)
{
	PromOutcome end = {0};
	bool open = loaded->last_attempt > loaded->outcome_attempt;
	bool is_ours = open && attempt->attempt == loaded->last_attempt;

	end.outcome = outcome;
	end.attempt = Max(loaded->last_attempt, loaded->outcome_attempt) +
				  (open ? 0 : 1);
	end.used = loaded->used + (is_ours || attempt->stands != 0 ? 1 : 0);
	end.step = loaded->last_step;
	end.error_type = error_type;
	end.error = error;
	prom_load_identify(attempt, loaded);
	if (attempt->stands != 0 && !open)
		prom_course_begin_idle(writer, attempt, loaded, now);
	if (attempt->stands != 0)
		stand(attempt, &end);
	prom_outcome_add(writer, attempt, &end, now);
	attempt->next = PROM_NEXT_ENDED;
}

bool
prom_outcome_goes_on(const PromAttempt *attempt, const PromReply *reply)
{
	switch (reply->retry)
	{
		case PROM_RETRY_WAIT:
		case PROM_RETRY_MONEY:
			return true;
		case PROM_RETRY_BACKOFF:
			return attempt->used + 1 < attempt->max_attempts;
		case PROM_RETRY_NEVER:
			return false;
	}
	return false;
}

void
prom_outcome_complete(PromFactWriter *writer, PromAttempt *attempt,
					  int32 step, TimestampTz now)
{
	PromOutcome end = {0};

	end.outcome = "completed";
	end.attempt = attempt->attempt;
	end.used = attempt->used + 1;
	end.step = step;
	attempt->next = PROM_NEXT_ENDED;
	attempt->completed = true;
	prom_outcome_add(writer, attempt, &end, now);
	prom_summary_note(attempt->task_id, attempt->whose);
}

bool
prom_outcome_is_passing(const PromReply *reply)
{
	if (reply->retry != PROM_RETRY_BACKOFF)
		return reply->retry != PROM_RETRY_NEVER;
	return strcmp(reply->error_type, "ModelUnavailable") == 0 ||
		   strcmp(reply->error_type, "ModelTimeout") == 0;
}

/* Does a failure of this kind use up an attempt? */
static bool
uses_attempt(const PromReply *reply)
{
	return reply->ok || (reply->retry != PROM_RETRY_WAIT &&
						 reply->retry != PROM_RETRY_MONEY);
}

/* End an attempt with the reply that it got, whose step was just added. */
void
prom_outcome_of_reply(PromFactWriter *writer, PromAttempt *attempt,
					  const PromReply *reply, TimestampTz now)
{
	PromOutcome end = {0};

	if (!reply->ok && attempt->stands != 0)
	{
		prom_outcome_complete(writer, attempt, attempt->stands, now);
		return;
	}
	end.attempt = attempt->attempt;
	end.used = attempt->used + (uses_attempt(reply) ? 1 : 0);
	end.step = attempt->step;
	/* An answer may have to be judged, tried or looked back at first. */
	if (reply->ok && (attempt->thinks || attempt->makes_tool ||
					  prom_judge_has(prom_policies(), PROM_STAGE_ANSWER)))
	{
		attempt->next = PROM_NEXT_GO_ON;
		return;
	}
	attempt->next = PROM_NEXT_ENDED;
	attempt->completed = reply->ok;
	if (reply->ok)
	{
		end.outcome = "completed";
		prom_summary_note(attempt->task_id, attempt->whose);
	}
	else if (attempt->deadline <= now)
	{
		end.outcome = "failed";
		end.error_type = "DeadlineExceeded";
		end.error = "the task did not end before its deadline";
	}
	else
	{
		end.error_type = reply->error_type;
		end.error = prom_encoding_from_utf8(reply->error);
		end.outcome = "failed";
		if (prom_outcome_goes_on(attempt, reply))
		{
			end.outcome = "retry";
			end.next_run_at = prom_route_retry_at(attempt, reply, now);
			attempt->next = PROM_NEXT_LATER;
			attempt->due = end.next_run_at;
			attempt->retrying = true;
		}
	}
	prom_outcome_add(writer, attempt, &end, now);
}

static PromStatement failure_statement = {
	"SELECT s.error_type, s.error FROM prometheus._step s"
	" WHERE s.task_id = $1 AND s.step = $2",
	2,
	{INT8OID, INT4OID},
	NULL,
};

/* A turn of a function failed: its step is there, and how it goes on is not. */
void
prom_outcome_of_failed_chat(PromFactWriter *writer, PromAttempt *attempt,
							TimestampTz now)
{
	Datum values[2] = {Int64GetDatum(attempt->task_id),
					   Int32GetDatum(attempt->step)};
	PromReply reply = {.retry = attempt->retry, .retry_after = -1};

	prom_statement_run(&failure_statement, values, NULL, true);
	if (SPI_processed != 1)
		elog(ERROR, "task %lld has no step %d", (long long) attempt->task_id,
			 attempt->step);
	reply.error_type = prom_row_text(0, 1);
	reply.error = prom_encoding_words_to_utf8(prom_row_text(0, 2));
	SPI_freetuptable(SPI_tuptable);
	prom_outcome_of_reply(writer, attempt, &reply, now);
}
