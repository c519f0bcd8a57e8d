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
#include "utils/array.h"
#include "utils/builtins.h"

#include "attempt.h"
#include "encoding.h"
#include "fault.h"
#include "gate.h"
#include "guc.h"
#include "guilt.h"
#include "live.h"
#include "prompt.h"
#include "route.h"
#include "schema.h"
#include "step.h"
#include "worker.h"
#include "xact.h"

/* What counts against a submitter's share, whatever a peer says. */
#define MOST_TOKENS 10000000

/* A task, its last outcome and attempt, and what is pinned or newest. */
typedef struct Loaded
{
	int64 task_id;
	TimestampTz deadline;
	int32 max_attempts;
	const char *agent;
	PromPromptSource source; /* but for the request and the schema */
	Datum request;           /* not read yet: it may be long */
	Datum output_schema;     /* neither is this */
	bool has_schema;
	int64 bytes;     /* of both */
	TimestampTz due; /* not before; 0: at once */
	bool ended;
	bool completed;
	bool retrying;         /* an attempt has ended, since a retry by hand */
	int32 outcome_attempt; /* of the last outcome; 0: none */
	int32 used;
	int32 last_attempt; /* of the last attempt; 0: none */
	int64 agent_version;
	const char *model;
	int64 model_version;
	int32 last_step;
	bool cancelled;
	const char *cancel_reason;
	bool depends;           /* a task that it depends on has not ended */
	const char *bad_parent; /* what became of one that did not end well */
	int32 retried_attempt;  /* after which it was retried by hand; 0: never */
} Loaded;

/*
 * Scalar look-ups by index only: the plan is made once, perhaps on empty
 * tables, and must still be right for a million tasks.
 */
static PromStatement load_statement = {
	"SELECT t.task_id, coalesce(r.deadline, t.deadline), t.max_attempts, t.agent, t.request,"
	" CASE WHEN o.attempt > coalesce(r.attempt, 0) OR r.attempt IS NULL"
	"   THEN coalesce(o.next_run_at, t.run_at) END,"
	" coalesce(o.outcome NOT IN ('retry', 'waiting', 'lost')"
	"   AND o.attempt > coalesce(r.attempt, 0), false),"
	" coalesce(o.attempt, 0),"
	" CASE WHEN o.attempt > coalesce(r.attempt, 0) THEN o.attempts ELSE 0 END,"
	" coalesce(a.attempt, 0),"
	" v.version, v.model,"
	" coalesce((SELECT x.model_version FROM prometheus._attempt x"
	"   WHERE x.task_id = t.task_id AND x.attempt > coalesce(r.attempt, 0)"
	"     AND x.model = v.model ORDER BY x.attempt LIMIT 1),"
	"  (SELECT m.version FROM prometheus._model m"
	"   WHERE m.name = v.model ORDER BY m.version DESC LIMIT 1)),"
	" coalesce((SELECT s.step FROM prometheus._step s"
	"   WHERE s.task_id = t.task_id ORDER BY s.step DESC LIMIT 1), 0),"
	" c.requested_at IS NOT NULL, c.reason,"
	" coalesce(o.outcome = 'completed', false),"
	" coalesce(o.attempt > coalesce(r.attempt, 0), false),"
	" t.depends_on IS NOT NULL"
	"   AND EXISTS (SELECT " PROM_PARENTS "e.outcome IS NULL),"
	" CASE WHEN t.depends_on IS NOT NULL AND NOT " PROM_ANYWAY
	"   THEN (SELECT format('task %s, which it depends on, %s', d,"
	"     CASE e.outcome WHEN 'failed' THEN 'failed' ELSE 'was ' || e.outcome END)"
	"   " PROM_PARENTS "e.outcome <> 'completed' ORDER BY d LIMIT 1) END,"
	" coalesce(r.attempt, 0),"
	" t.conversation, t.submitter, t.submitter_oid, t.depends_on, t.output_schema"
	" FROM unnest($1) AS u(task_id)"
	" JOIN prometheus._task t ON t.task_id = u.task_id"
	" LEFT JOIN LATERAL (SELECT x.attempt, x.attempts, x.outcome, x.next_run_at"
	"   FROM prometheus._outcome x WHERE x.task_id = t.task_id"
	"  ORDER BY x.attempt DESC LIMIT 1) o ON true"
	" LEFT JOIN LATERAL (SELECT x.attempt, x.agent_version"
	"   FROM prometheus._attempt x WHERE x.task_id = t.task_id"
	"  ORDER BY x.attempt DESC LIMIT 1) a ON true"
	" LEFT JOIN LATERAL (SELECT x.attempt, x.retried_at, x.deadline"
	"   FROM prometheus._retry x WHERE x.task_id = t.task_id"
	"  ORDER BY x.attempt DESC LIMIT 1) r ON true"
	" LEFT JOIN LATERAL (SELECT x.version, x.model FROM prometheus._agent x"
	"  WHERE x.name = t.agent AND (a.attempt <= r.attempt"
	"    OR a.agent_version IS NULL OR x.version = a.agent_version)"
	"  ORDER BY x.version DESC LIMIT 1) v ON true"
	" LEFT JOIN LATERAL (SELECT x.requested_at, x.reason"
	"   FROM prometheus._cancel x WHERE x.task_id = t.task_id"
	"    AND (r.retried_at IS NULL OR x.requested_at >= r.retried_at)"
	"  ORDER BY x.requested_at LIMIT 1) c ON true",
	1,
	{INT8ARRAYOID},
	NULL,
};

static void
read_loaded(uint64 row, Loaded *loaded)
{
	bool isnull;

	loaded->task_id = prom_row_int64(row, 1);
	loaded->deadline = prom_row_time(row, 2);
	loaded->max_attempts = prom_row_int32(row, 3);
	loaded->agent = prom_row_text(row, 4);
	loaded->source.agent = loaded->agent;
	loaded->request = SPI_getbinval(SPI_tuptable->vals[row],
									SPI_tuptable->tupdesc, 5, &isnull);
	loaded->bytes = prom_row_bytes(row, 5) + prom_row_bytes(row, 26);
	loaded->due = prom_row_int64_or(row, 6, 0);
	loaded->ended = prom_row_bool(row, 7);
	loaded->outcome_attempt = prom_row_int32(row, 8);
	loaded->used = prom_row_int32(row, 9);
	loaded->last_attempt = prom_row_int32(row, 10);
	loaded->agent_version = prom_row_int64(row, 11);
	loaded->model = prom_row_text(row, 12);
	loaded->model_version = prom_row_int64(row, 13);
	loaded->last_step = prom_row_int32(row, 14);
	loaded->cancelled = prom_row_bool(row, 15);
	loaded->cancel_reason = prom_row_text_or_null(row, 16);
	loaded->completed = prom_row_bool(row, 17);
	loaded->retrying = prom_row_bool(row, 18);
	loaded->depends = prom_row_bool(row, 19);
	loaded->bad_parent = prom_row_text_or_null(row, 20);
	loaded->retried_attempt = prom_row_int32(row, 21);
	prom_prompt_read_source(row, 22, &loaded->source);
	loaded->output_schema = SPI_getbinval(SPI_tuptable->vals[row],
										  SPI_tuptable->tupdesc, 26, &isnull);
	loaded->has_schema = !isnull;
}

/*
 * Read all of them at once; they come in any order.  The rows, in which the
 * requests and schemas are, stay until SPI_finish().
 */
static Loaded *
load(PromAttempt **attempts, int n, int *nloaded)
{
	Datum *ids = palloc(n * sizeof(Datum));
	Datum argument;
	Loaded *loaded;

	for (int i = 0; i < n; i++)
		ids[i] = Int64GetDatum(attempts[i]->task_id);
	argument = PointerGetDatum(construct_array(
		ids, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	prom_statement_run(&load_statement, &argument, NULL, true);
	loaded = palloc0(Max(SPI_processed, 1) * sizeof(Loaded));
	for (uint64 i = 0; i < SPI_processed; i++)
		read_loaded(i, &loaded[i]);
	*nloaded = SPI_processed;
	return loaded;
}

typedef struct Outcome
{
	const char *outcome;
	int32 attempt;
	int32 used;
	int32 step;              /* its last; 0: none */
	TimestampTz next_run_at; /* 0: none */
	const char *error_type;
	const char *error;
} Outcome;

static void
add_outcome(PromFactWriter *writer, int64 task_id, const Outcome *outcome,
			TimestampTz now)
{
	Datum values[OUTCOME_COLUMNS];
	bool nulls[OUTCOME_COLUMNS] = {false};

	values[OUTCOME_TASK_ID] = Int64GetDatum(task_id);
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
}

/* A task that ends before an attempt of ours: on the one left open, if any. */
static void
end_unbegun(PromFactWriter *writer, PromAttempt *attempt, const Loaded *loaded,
			const char *outcome, const char *error_type, const char *error,
			TimestampTz now)
{
	Outcome end = {0};
	bool open = loaded->last_attempt > loaded->outcome_attempt;

	end.outcome = outcome;
	end.attempt = Max(loaded->last_attempt, loaded->outcome_attempt) +
				  (open ? 0 : 1);
	end.used = loaded->used;
	end.step = loaded->last_step;
	end.error_type = error_type;
	end.error = error;
	add_outcome(writer, loaded->task_id, &end, now);
	attempt->next = PROM_NEXT_ENDED;
}

static void
add_attempt(PromFactWriter *writer, const PromAttempt *attempt,
			const PromAgent *agent, TimestampTz now)
{
	Datum values[ATTEMPT_COLUMNS];
	bool nulls[ATTEMPT_COLUMNS] = {false};

	values[ATTEMPT_TASK_ID] = Int64GetDatum(attempt->task_id);
	values[ATTEMPT_ATTEMPT] = Int32GetDatum(attempt->attempt);
	values[ATTEMPT_STARTED_AT] = TimestampTzGetDatum(now);
	values[ATTEMPT_AGENT_VERSION] = Int64GetDatum(agent->version);
	values[ATTEMPT_MODEL] = CStringGetTextDatum(attempt->model->name);
	values[ATTEMPT_MODEL_VERSION] = Int64GetDatum(attempt->model->version);
	prom_fact_add(writer, PROM_FACT_ATTEMPT, values, nulls);
}

static void
add_call(PromFactWriter *writer, const PromAttempt *attempt)
{
	Datum values[CALL_COLUMNS] = {0};
	bool nulls[CALL_COLUMNS] = {false};

	values[CALL_ID] = Int64GetDatum(attempt->call_id);
	values[CALL_TASK_ID] = Int64GetDatum(attempt->task_id);
	values[CALL_ATTEMPT] = Int32GetDatum(attempt->attempt);
	values[CALL_TURN] = Int32GetDatum(1);
	values[CALL_CALL] = Int32GetDatum(1);
	values[CALL_SENT_AT] = TimestampTzGetDatum(attempt->sent_at);
	values[CALL_KIND] = CStringGetTextDatum("chat");
	values[CALL_TARGET] =
		CStringGetTextDatum(psprintf("model:%s", attempt->model->name));
	nulls[CALL_RESERVED] = true;
	prom_fact_add(writer, PROM_FACT_CALL, values, nulls);
}

/* Is the task to be tried again after this reply? */
static bool
goes_on(const PromAttempt *attempt, const PromReply *reply)
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

/* Does a failure of this kind use up an attempt? */
static bool
uses_attempt(const PromReply *reply)
{
	return reply->ok || (reply->retry != PROM_RETRY_WAIT &&
						 reply->retry != PROM_RETRY_MONEY);
}

/* End an attempt with the reply that it got, whose step was just added. */
static void
end_with_reply(PromFactWriter *writer, PromAttempt *attempt,
			   const PromReply *reply, TimestampTz now)
{
	Outcome end = {0};

	end.attempt = attempt->attempt;
	end.used = attempt->used + (uses_attempt(reply) ? 1 : 0);
	end.step = attempt->step;
	attempt->next = PROM_NEXT_ENDED;
	attempt->completed = reply->ok;
	if (reply->ok)
		end.outcome = "completed";
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
		if (goes_on(attempt, reply))
		{
			end.outcome = "retry";
			end.next_run_at = prom_route_retry_at(attempt, reply, now);
			attempt->next = PROM_NEXT_LATER;
			attempt->due = end.next_run_at;
			attempt->retrying = true;
		}
	}
	add_outcome(writer, attempt->task_id, &end, now);
}

/* A good reply whose answer does not fit the schema fails, and keeps it. */
static void
hold_against(Jsonb *schema, PromReply *reply)
{
	char *mismatch;

	if (!reply->ok)
		return;
	mismatch = prom_schema_mismatch(schema,
									prom_encoding_from_utf8(reply->answer));
	if (mismatch == NULL)
		return;
	reply->ok = false;
	reply->error_type = "SchemaMismatch";
	reply->error =
		prom_encoding_words_to_utf8(psprintf("answer %s", mismatch));
	reply->retry = PROM_RETRY_BACKOFF;
	reply->retry_after = -1;
}

/* Up to 1 MB each, and a turn may need a thousand. */
static void
free_schema(Jsonb *schema)
{
	if (schema != NULL)
		pfree(schema);
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
	if (source->output_schema != NULL)
		hold_against(source->output_schema, &reply);
	attempt->call_id = 0;
	attempt->sent_at = now;
	prom_step_add_chat(writer, attempt, &reply, now);
	end_with_reply(writer, attempt, &reply, now);
}

/* The task waits before its gate. */
static void
park(PromAttempt *attempt, const Loaded *loaded)
{
	PROM_FAULT("before-park");
	attempt->next = PROM_NEXT_PARKED;
	attempt->target.agent = prom_hash_name(loaded->agent);
	attempt->target.model = prom_hash_name(loaded->model);
}

/* Begin an attempt; the bytes that this loaded. */
static int64
begin_one(PromFactWriter *writer, PromAttempt *attempt, const Loaded *loaded,
		  TimestampTz now)
{
	PromPromptSource source = loaded->source;
	const PromAgent *agent;
	PromRoute route = {
		.model = loaded->model,
		.version = loaded->model_version,
		.used = loaded->used,
		.retried_attempt = loaded->retried_attempt,
	};

	/* It waits for the pause, which the scheduler knows, and for no gate. */
	attempt->opens = DT_NOBEGIN;
	if (prom_gate_is_paused(prom_my_database, PROM_GATE_ALL, 0) ||
		prom_gate_is_paused(prom_my_database, PROM_GATE_AGENT,
							prom_hash_name(loaded->agent)) ||
		!prom_route_choose(attempt, &route, now))
	{
		park(attempt, loaded);
		return 0;
	}
	attempt->attempt = Max(loaded->last_attempt, loaded->outcome_attempt) + 1;
	attempt->step = loaded->last_step + 1;
	attempt->used = loaded->used;
	attempt->max_attempts = loaded->max_attempts;
	source.request = TextDatumGetCString(loaded->request);
	if (loaded->has_schema)
		source.output_schema = DatumGetJsonbPCopy(loaded->output_schema);
	agent = prom_agent_version(loaded->agent, loaded->agent_version);
	add_attempt(writer, attempt, agent, now);
	if (prom_llm_is_local(attempt->model->api))
	{
		answer_locally(writer, attempt, &source, now);
		free_schema(source.output_schema);
		return loaded->bytes;
	}
	attempt->call_id = prom_fact_next_id();
	source.instructions = agent->instructions;
	source.before = attempt->call_id;
	/* Here and not when it is sent, since it may fail. */
	attempt->prompt = prom_prompt_make(&source, attempt->model);
	attempt->has_schema = loaded->has_schema;
	free_schema(source.output_schema);
	attempt->sent_at = now;
	add_call(writer, attempt);
	attempt->next = PROM_NEXT_SEND;
	return prom_prompt_bytes(attempt->prompt);
}

static void
add_lost(PromFactWriter *writer, const Loaded *loaded, TimestampTz now)
{
	Outcome lost = {0};

	lost.outcome = "lost";
	lost.attempt = loaded->last_attempt;
	lost.used = loaded->used;
	lost.step = loaded->last_step;
	lost.error = "the process that ran it ended";
	add_outcome(writer, loaded->task_id, &lost, now);
}

/* Can the task be ended without another attempt?  Then it is. */
static bool
end_if_due(PromFactWriter *writer, PromAttempt *attempt, const Loaded *loaded,
		   TimestampTz now)
{
	if (loaded->ended)
	{
		attempt->next = PROM_NEXT_ENDED;
		attempt->completed = loaded->completed;
	}
	else if (loaded->cancelled)
		end_unbegun(writer, attempt, loaded, "cancelled", NULL,
					loaded->cancel_reason, now);
	else if (loaded->deadline <= now)
		end_unbegun(writer, attempt, loaded, "failed", "DeadlineExceeded",
					"the task did not end before its deadline", now);
	else if (loaded->bad_parent != NULL)
		end_unbegun(writer, attempt, loaded, "cancelled", "DependencyFailed",
					loaded->bad_parent, now);
	else
		return false;
	return true;
}

/* What a claimed task needs now, by its own facts; the bytes it loaded. */
static int64
go_on(PromFactWriter *writer, PromAttempt *attempt, const Loaded *loaded,
	  TimestampTz now)
{
	bool open = loaded->last_attempt > loaded->outcome_attempt;

	attempt->deadline = loaded->deadline;
	if (end_if_due(writer, attempt, loaded, now))
		return 0;
	attempt->retrying = loaded->retrying || open;
	if (open)
		add_lost(writer, loaded, now);
	if (loaded->depends)
		attempt->next = PROM_NEXT_READ;
	else if (attempt->only_end || (loaded->due > now && !open))
	{
		attempt->next = PROM_NEXT_LATER;
		attempt->due = loaded->due;
	}
	else
		return begin_one(writer, attempt, loaded, now);
	return 0;
}

void
prom_attempt_begin(PromFactWriter *writer, PromAttempt **attempts, int n,
				   int64 max_bytes, TimestampTz now)
{
	int nloaded;
	Loaded *loaded = load(attempts, n, &nloaded);
	int64 bytes = 0;

	for (int i = 0; i < n; i++)
	{
		int found = -1;

		/* It was tried before, and not written. */
		prom_route_leave(attempts[i]);
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
	Jsonb *schema = NULL;

	if (attempt->has_schema && reply.ok)
	{
		if (prom_schema_is_tired())
		{
			attempt->next = PROM_NEXT_AGAIN;
			return;
		}
		schema = load_schema(attempt);
	}
	if (schema != NULL)
		hold_against(schema, &reply);
	free_schema(schema);
	prom_step_add_chat(writer, attempt, &reply, now);
	attempt->tokens = Min(Max(reply.tokens_in, 0), MOST_TOKENS) +
					  Min(Max(reply.tokens_out, 0), MOST_TOKENS);
	end_with_reply(writer, attempt, &reply, now);
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
	Outcome end = {0};

	prom_statement_run(&reason_statement, &argument, NULL, true);
	end.outcome = "cancelled";
	end.attempt = attempt->attempt;
	end.used = attempt->used + 1;
	end.step = attempt->step - 1;
	end.error = SPI_processed > 0 ? prom_row_text_or_null(0, 1) : NULL;
	add_outcome(writer, attempt->task_id, &end, now);
	attempt->next = PROM_NEXT_ENDED;
}

void
prom_attempt_give_up(PromFactWriter *writer, PromAttempt *attempt,
					 const char *error_type, const char *error, TimestampTz now)
{
	int nloaded;
	Loaded *loaded = load(&attempt, 1, &nloaded);

	attempt->next = PROM_NEXT_ENDED;
	attempt->completed = nloaded == 1 && loaded->ended && loaded->completed;
	if (nloaded == 1 && !loaded->ended)
		end_unbegun(writer, attempt, loaded, "failed", error_type, error, now);
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
		   const Loaded *loaded, TimestampTz now)
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
	Loaded *loaded = load(&attempts, 1, &nloaded);
	int strikes;
	const char *times;

	/* It was dropped with the extension, or its end was just recorded. */
	if (nloaded == 0 || loaded->ended)
		return;
	strikes = add_strike(writer, culprit, loaded, now);
	times = strikes == 1 ? "once" : psprintf("%d times", strikes);
	ereport(WARNING,
			(errmsg("task %lld crashed the server", (long long) culprit->task_id),
			 errdetail("It was at step %d. It did so %s; prometheus.max_crashes is %d.",
					   culprit->step, times, prom_guc_max_crashes)));
	if (strikes >= prom_guc_max_crashes)
		end_unbegun(writer, &attempt, loaded, "quarantined", "Crashed",
					psprintf("the server crashed %s while it worked on this task",
							 times),
					now);
}
