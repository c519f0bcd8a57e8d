/*
 * route.c
 *	  Chooses the model that an attempt goes to, and when the next one goes.
 *
 * An agent has one model, and that may have fallbacks.  The gates say which
 * of them can be used; what becomes of a call is told to the gate that it
 * passed.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "utils/builtins.h"

#include "compat.h"
#include "gate.h"
#include "prompt.h"
#include "route.h"
#include "step.h"
#include "worker.h"
#include "xact.h"

/* Back-off after attempt n: min(first * 2^(n-1), longest), jittered; ms. */
#define BACKOFF_FIRST 500
#define BACKOFF_LONGEST 60000

static PromStatement newest_statement = {
	"SELECT m.version FROM prometheus._model m WHERE m.name = $1"
	" ORDER BY m.version DESC LIMIT 1",
	1,
	{TEXTOID},
	NULL,
};

/* By the estimates that were made before they were sent. */
static PromStatement used_statement = {
	"SELECT count(*),"
	" least(coalesce(sum(c.reserved_tokens), 0), 9223372036854775807)::bigint"
	" FROM prometheus._call c WHERE c.sent_at > $1 AND c.target = $2",
	2,
	{TIMESTAMPTZOID, TEXTOID},
	NULL,
};

/* What goes through a gate in a minute began before it had a limit, or was. */
static void
tell_used_before(PromGate *gate, TimestampTz now)
{
	Datum values[2] = {
		TimestampTzGetDatum(now - 60 * USECS_PER_SEC),
		CStringGetTextDatum(prom_gate_target(gate)),
	};

	prom_statement_run(&used_statement, values, NULL, true);
	prom_gate_used_before(prom_my_database, gate, prom_row_int64(0, 1),
						  prom_row_int64(0, 2), now);
	SPI_freetuptable(SPI_tuptable);
}

/*
 * The gate of a model, with the options of its newest version: how many go
 * through it, and what else can be used, is how it is now, whichever version a
 * task has begun with.
 */
static PromGate *
gate_of(const char *name, int64 version, TimestampTz now)
{
	PromGate *gate = prom_gate_make(prom_my_database, PROM_GATE_MODEL, name);
	Datum value;
	uint32 asked;

	if (gate == NULL)
		return NULL;
	asked = pg_atomic_read_u32(&gate->asked);
	if (asked == gate->known && version <= gate->version)
		return gate;
	pg_read_barrier();
	value = CStringGetTextDatum(name);
	prom_statement_run(&newest_statement, &value, NULL, false);
	if (prom_gate_set_options(prom_my_database, gate,
							  prom_model_version(name, prom_row_int64(0, 1)),
							  asked, now))
		tell_used_before(gate, now);
	return gate;
}

static PromStatement version_statement = {
	"SELECT coalesce((SELECT x.model_version FROM prometheus._attempt x"
	"  WHERE x.task_id = $1 AND x.model = $2 AND x.attempt > $3"
	"  ORDER BY x.attempt LIMIT 1),"
	" (SELECT m.version FROM prometheus._model m"
	"  WHERE m.name = $2 ORDER BY m.version DESC LIMIT 1))",
	3,
	{INT8OID, TEXTOID, INT4OID},
	NULL,
};

/* A model of the chain: the version that the task used first, or the newest. */
static const PromModel *
fallback_model(const PromAttempt *attempt, const PromRoute *route,
			   const char *name)
{
	Datum values[3] = {Int64GetDatum(attempt->task_id),
					   CStringGetTextDatum(name),
					   Int32GetDatum(route->retried_attempt)};

	prom_statement_run(&version_statement, values, NULL, true);
	if (prom_row_isnull(0, 1))
		return NULL;
	return prom_model_version(name, prom_row_int64(0, 1));
}

static pg_noreturn void
raise_no_gate(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("too many models are in use"),
			 errdetail("There can be %d gates before models and agents.",
					   PROM_MAX_GATES)));
	pg_unreachable();
}

/* Is there room before a model?  Then the attempt is on its way to it. */
static bool
enter_gate(PromAttempt *attempt, PromGate *gate, const PromModel *model,
		   TimestampTz now)
{
	if (prom_gate_room(gate, 0, now) == 0)
		return false;
	if (prom_llm_is_local(model->api))
		return true;
	attempt->generation = prom_gate_began(gate);
	attempt->gate = gate;
	return true;
}

/* The same, for a turn of that model. */
static bool
pass_gate(PromAttempt *attempt, PromGate *gate, const PromModel *model,
		  TimestampTz now)
{
	if (!enter_gate(attempt, gate, model, now))
		return false;
	attempt->model = model;
	return true;
}

/*
 * Choose the first model that has room, of the agent's model and its
 * fallbacks; each attempt that was used up begins one further on.  A fallback
 * that is full is passed over; for the agent's own model it is worth waiting
 * if that is only full, not closed.
 */
bool
prom_route_choose(PromAttempt *attempt, const PromRoute *route,
				  TimestampTz now)
{
	const PromModel *first = prom_model_version(route->model,
												route->version);
	PromGate *gate = gate_of(first->name, first->version, now);
	const PromModel *newest;
	int n;

	if (gate == NULL)
		raise_no_gate();
	newest = prom_model_version(first->name, gate->version);
	n = 1 + newest->nfallbacks;

	/* Before any gate is looked at: what changes afterwards is one more. */
	attempt->seen = prom_gate_changes(prom_my_database, gate);
	for (int i = 0; i < n; i++)
	{
		int place = (route->used + i) % n;
		const PromModel *model;
		PromGate *gate_there;

		if (place == 0)
		{
			if (pass_gate(attempt, gate, first, now))
				return true;
			if (prom_gate_is_open(gate, now))
				break;
			continue;
		}
		model = fallback_model(attempt, route, newest->fallbacks[place - 1]);
		gate_there = model == NULL ? NULL
								   : gate_of(model->name, model->version, now);
		if (gate_there != NULL && pass_gate(attempt, gate_there, model, now))
			return true;
	}
	attempt->opens = prom_gate_opens_next(prom_my_database, gate, now);
	return false;
}

bool
prom_route_keep(PromAttempt *attempt, const PromRoute *route, TimestampTz now)
{
	const PromModel *model = attempt->model;
	PromGate *first = gate_of(route->model, route->version, now);
	PromGate *gate = gate_of(model->name, model->version, now);

	if (first == NULL || gate == NULL)
		raise_no_gate();
	attempt->seen = prom_gate_changes(prom_my_database, first);
	if (pass_gate(attempt, gate, model, now))
		return true;
	attempt->opens = prom_gate_opens_next(prom_my_database, first, now);
	return false;
}

bool
prom_route_reviewer(PromAttempt *attempt, const char *name, TimestampTz now,
					const PromModel **model)
{
	Datum value = CStringGetTextDatum(name);
	PromGate *gate;

	prom_statement_run(&newest_statement, &value, NULL, true);
	*model = SPI_processed == 0
				 ? NULL
				 : prom_model_version(name, prom_row_int64(0, 1));
	if (*model == NULL)
		return true;
	gate = gate_of(name, (*model)->version, now);
	if (gate == NULL)
		raise_no_gate();
	attempt->seen = prom_gate_changes(prom_my_database, gate);
	if (enter_gate(attempt, gate, *model, now))
		return true;
	attempt->opens = prom_gate_opens_next(prom_my_database, gate, now);
	return false;
}

bool
prom_route_fits(PromAttempt *attempt, const char *model, int64 tokens_in,
				TimestampTz now)
{
	const PromModel *called = prom_attempt_called(attempt);
	const PromGate *first;

	if (attempt->gate == NULL)
		return true;
	attempt->need = prom_pace_need(tokens_in,
								   prom_prompt_reply_tokens(called));
	if (prom_gate_fits(prom_my_database, attempt->gate, &attempt->need, now))
	{
		attempt->use = PROM_USE_TAKEN;
		return true;
	}
	first = prom_gate_find(prom_my_database, PROM_GATE_MODEL, model);
	if (first == NULL)
		first = attempt->gate;
	attempt->seen = prom_gate_changes(prom_my_database, first);
	attempt->opens = prom_gate_opens_next(prom_my_database, first, now);
	return false;
}

void
prom_route_sent(PromAttempt *attempt)
{
	if (attempt->use == PROM_USE_TAKEN)
		attempt->use = PROM_USE_SENT;
}

void
prom_route_heard(PromAttempt *attempt, const PromHeaders *headers,
				 TimestampTz now)
{
	if (attempt->gate == NULL || attempt->use != PROM_USE_SENT)
		return;
	attempt->use = PROM_USE_HEARD;
	prom_gate_heard(prom_my_database, attempt->gate, &attempt->need, headers,
					now);
}

bool
prom_route_is_held(const PromAttempt *attempt, TimestampTz now)
{
	const PromGate *gate = prom_gate_find(prom_my_database, PROM_GATE_MODEL,
										  attempt->model->name);

	return gate != NULL && prom_gate_is_held(gate, now);
}

/* The gate need know nothing more of its rate from this attempt. */
static void
end_use(PromAttempt *attempt, TimestampTz now)
{
	if (attempt->use == PROM_USE_TAKEN)
		prom_gate_unfit(prom_my_database, attempt->gate, &attempt->need, now);
	prom_route_heard(attempt, NULL, now);
	attempt->use = PROM_USE_NONE;
}

void
prom_route_leave(PromAttempt *attempt)
{
	if (attempt->gate != NULL)
	{
		end_use(attempt, GetCurrentTimestamp());
		prom_gate_dropped(attempt->gate);
	}
	attempt->gate = NULL;
}

void
prom_route_end(PromAttempt *attempt, TimestampTz now)
{
	const PromReply *reply = prom_llm_reply(attempt->call);

	if (attempt->gate == NULL)
		return;
	/* As budgets are charged; else it keeps what it was thought to need. */
	if ((reply->tokens_in >= 0 && reply->tokens_out >= 0) ||
		(!reply->ambiguous && !reply->ok))
		prom_gate_used(prom_my_database, attempt->gate, &attempt->need,
					   prom_reply_tokens(reply), now);
	end_use(attempt, now);
	prom_gate_ended(prom_my_database, attempt->gate, attempt->generation,
					reply, now);
	attempt->gate = NULL;
}

/* Jittered: between three quarters of it and all. */
static int64
backoff_ms(int attempt)
{
	int64 ms = attempt > 10 ? BACKOFF_LONGEST
							: Min((int64) BACKOFF_FIRST << (attempt - 1),
								  BACKOFF_LONGEST);

	return (int64) (ms * (1 - 0.25 * pg_prng_double(&pg_global_prng_state)));
}

/*
 * A reply that closed the gate: for want of money the gate alone holds the
 * task, so that it runs as soon as somebody opens it; else the task is due
 * when the gate opens, or at once if another model can be used meanwhile.  Any
 * other failure: after a back-off, since a peer that always says 0 must not be
 * asked in a hot loop.
 */
TimestampTz
prom_route_retry_at(const PromAttempt *attempt, const PromReply *reply,
					TimestampTz now)
{
	const PromGate *gate = prom_gate_find(prom_my_database, PROM_GATE_MODEL,
										  prom_attempt_called(attempt)->name);
	int64 wait = reply->retry_after > 0 ? reply->retry_after
										: backoff_ms(attempt->attempt);

	if (reply->retry == PROM_RETRY_MONEY)
		return now;
	if (reply->retry == PROM_RETRY_WAIT && gate != NULL &&
		prom_gate_opens_at(gate) > now)
		return prom_gate_admits(prom_my_database, gate, 0, now)
				   ? now
				   : prom_gate_opens_at(gate);
	return TimestampTzPlusMilliseconds(now, wait);
}
