/*
 * embedder.c
 *	  Has embeddings made of memories that came without, for the caller.
 *
 * Each agent with the option embedding_model has an embedder, which walks over
 * the memories of the agent that were not given an embedding, in the order of
 * their ids, and asks the model for those that have none in its space:
 *
 *		walk ---> call ---> record ---> walk ... ---> rest
 *		  ^                    |
 *		  +-- back to before --+ it failed: later, and perhaps fewer at once
 *
 * A walk begins at the first one when a caller begins, and when an agent or a
 * model is set; when something is remembered, at the lowest id of that
 * (wakeup.c).  So at rest nothing is read, and nothing that was
 * committed is passed over.  A request that was sent twice, since its caller
 * ended, does no harm: what is there already stays.
 *
 * A text that its model refuses is asked for alone, and then it is written that
 * it has none.  One that fails alone again and again is passed over for a
 * while, so that the others get theirs.
 *
 * Requests go through the model's gate, and count for its rate and its
 * failures.  They are no calls of a task, so budgets do not know them; what
 * they use is in _embedding_call.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "attempt.h"
#include "batch.h"
#include "embedded.h"
#include "embedder.h"
#include "era.h"
#include "fault.h"
#include "gate.h"
#include "prompt.h"
#include "route.h"
#include "text.h"
#include "worker.h"
#include "xact.h"

/* After what cannot be written or read, ms; and what it may wait for a lock. */
#define AGAIN 1000
#define LOCK_TIMEOUT_OF_TURN "20ms"

/* What one drive may take, us. */
#define LONGEST_DRIVE 10000

/* Memories whose agents are looked up, when something is remembered. */
#define HINTED 1000

/* Back-off after so many failures in a row: from, up to; ms. */
#define BACKOFF_FIRST 1000
#define BACKOFF_LONGEST 300000

/* One that fails alone so often is passed over, for so long; ms. */
#define FAILS_ENOUGH 5
#define PASSED_OVER 600000

typedef struct Embedder
{
	dlist_node link;
	MemoryContext context; /* of all of it */
	char *agent;
	char *space;
	bool is_there; /* it was just read */
	bool walks;
	PromPlace at;
	int64 passed_over; /* the lowest id; PG_INT64_MAX: none */
	TimestampTz until; /* it is, if there is one */
	PromBatch batch;   /* that is under way */
	int most;          /* in the next one */
	int failures;
	TimestampTz not_before;
	PromGate *gate; /* of its model; NULL: not known yet */
	PromAttempt attempt;
	TimestampTz sent_at;
	bool is_answered;
	char error[PROM_EXPORT_ERROR]; /* with failures */
} Embedder;

/* What is done for one in a transaction. */
typedef struct Turn
{
	Embedder *embedder;
	TimestampTz now;
	PromPrompt *prompt; /* NULL: nothing is to be sent after it */
} Turn;

static dlist_head embedders = DLIST_STATIC_INIT(embedders);
static dlist_head answered = DLIST_STATIC_INIT(answered); /* calls */
static int nembedders;
static int in_flight;

/* After agents could not be read. */
static TimestampTz not_before;

void
prom_embedder_begin(void)
{
	pg_atomic_write_u32(&prom_my_database->embeddings.wanted, 0);
	pg_atomic_write_u32(&prom_my_database->embeddings.asked, 1);
}

int
prom_embedder_in_flight(void)
{
	return in_flight;
}


/* Agents. */

/* From this id on. */
static void
walk_from(Embedder *embedder, int64 memory_id)
{
	embedder->walks = true;
	if (embedder->at.memory_id < memory_id)
		return;
	embedder->at.memory_id = memory_id;
	embedder->at.version = 0;
}

/* What is under way is not waited for. */
static void
drop_batch(Embedder *embedder)
{
	if (embedder->attempt.call != NULL)
	{
		prom_llm_free(embedder->attempt.call);
		in_flight--;
	}
	embedder->attempt.call = NULL;
	embedder->is_answered = false;
	prom_route_leave(&embedder->attempt);
	embedder->attempt.embedder = NULL;
	prom_batch_clear(&embedder->batch);
}

/* The batch is to be read again. */
static void
go_back(Embedder *embedder)
{
	drop_batch(embedder);
	walk_from(embedder, embedder->batch.before.memory_id);
}

static Embedder *
find_embedder(const char *agent)
{
	dlist_iter iter;

	dlist_foreach(iter, &embedders)
	{
		Embedder *one = dlist_container(Embedder, link, iter.cur);

		if (strcmp(one->agent, agent) == 0)
			return one;
	}
	return NULL;
}

static Embedder *
make_embedder(const char *agent)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "prometheus embedder",
												  ALLOCSET_SMALL_SIZES);
	Embedder *embedder = MemoryContextAllocZero(context, sizeof(Embedder));

	embedder->context = context;
	embedder->batch.context = AllocSetContextCreate(
		context, "prometheus embedder's batch", ALLOCSET_SMALL_SIZES);
	embedder->agent = MemoryContextStrdup(context, agent);
	embedder->space = MemoryContextStrdup(context, "");
	embedder->most = PROM_MAX_EMBEDDED;
	embedder->passed_over = PG_INT64_MAX;
	embedder->at.memory_id = PG_INT64_MAX;
	dlist_push_tail(&embedders, &embedder->link);
	nembedders++;
	return embedder;
}

static void
end_embedder(Embedder *embedder)
{
	drop_batch(embedder);
	dlist_delete(&embedder->link);
	nembedders--;
	MemoryContextDelete(embedder->context);
}

static PromStatement agents_statement = {
	"SELECT a.name FROM prometheus._agent a"
	" WHERE a.options ? 'embedding_model'"
	" AND NOT EXISTS (SELECT FROM prometheus._agent n"
	"   WHERE n.name = a.name AND n.version > a.version)",
	0,
	{0},
	NULL,
};

/* Those that are there already find out by themselves what space is theirs. */
static void
read_agents(void *arg)
{
	uint64 n;
	char **names;

	prom_statement_run(&agents_statement, NULL, NULL, true);
	n = SPI_processed;
	names = palloc((n + 1) * sizeof(char *));
	for (uint64 i = 0; i < n; i++)
		names[i] = prom_row_text(i, 1);
	SPI_freetuptable(SPI_tuptable);
	for (uint64 i = 0; i < n; i++)
	{
		Embedder *embedder = find_embedder(names[i]);

		if (embedder == NULL)
			embedder = make_embedder(names[i]);
		embedder->is_there = true;
	}
}

static PromStatement hinted_statement = {
	"SELECT m.agent FROM prometheus._memory m WHERE m.memory_id >= $1"
	" ORDER BY m.memory_id LIMIT $2",
	2,
	{INT8OID, INT8OID},
	NULL,
};

/* Let those walk whose agents have memories from this id on. */
static void
find_hinted(void *arg)
{
	int64 from = *(int64 *) arg;
	Datum values[2] = {Int64GetDatum(from), Int64GetDatum(HINTED)};
	dlist_iter iter;

	prom_statement_run(&hinted_statement, values, NULL, true);
	for (uint64 i = 0; i < SPI_processed && SPI_processed < HINTED; i++)
	{
		Embedder *embedder = find_embedder(prom_row_text(i, 1));

		if (embedder != NULL)
			walk_from(embedder, from);
	}
	if (SPI_processed == HINTED)
		dlist_foreach(iter, &embedders)
		{
			walk_from(dlist_container(Embedder, link, iter.cur), from);
		}
	SPI_freetuptable(SPI_tuptable);
}


static void
note_failure(Embedder *embedder, const char *error, TimestampTz at)
{
	embedder->failures++;
	embedder->not_before = at;
	prom_text_one_line(embedder->error, sizeof(embedder->error), error,
					   strlen(error));
}

/* Is there a way to the model, and may it be sent so much?  Else later. */
static const PromModel *
reach_model(Embedder *embedder, const char *name, TimestampTz now)
{
	PromAttempt *attempt = &embedder->attempt;
	const PromModel *model = NULL;
	bool reached = prom_route_reviewer(attempt, name, now, &model);

	embedder->gate = prom_gate_find(prom_my_database, PROM_GATE_MODEL, name);
	attempt->embedder = model;
	/* It may have been set since the space was read. */
	if (model == NULL || !reached ||
		strcmp(prom_embedded_space(model), embedder->space) != 0)
		return NULL;
	return model;
}

static void
prepare(Turn *turn, const char *name)
{
	Embedder *embedder = turn->embedder;
	PromAttempt *attempt = &embedder->attempt;
	const PromModel *model = reach_model(embedder, name, turn->now);
	PromPrompt *prompt;

	if (model == NULL)
	{
		go_back(embedder);
		return;
	}
	prompt = prom_batch_prompt(&embedder->batch, model);
	if (prom_route_fits(attempt, name, prom_prompt_tokens(prompt), turn->now))
	{
		turn->prompt = prompt;
		return;
	}
	go_back(embedder);
	embedder->not_before = attempt->opens > turn->now &&
								   attempt->opens < DT_NOEND
							   ? attempt->opens
							   : TimestampTzPlusMilliseconds(turn->now, AGAIN);
}

/* Another one than before: what was made is of another space. */
static void
set_space(Embedder *embedder, const char *space)
{
	if (strcmp(embedder->space, space) == 0)
		return;
	pfree(embedder->space);
	embedder->space = MemoryContextStrdup(embedder->context, space);
	embedder->most = PROM_MAX_EMBEDDED;
	walk_from(embedder, PG_INT64_MIN);
}

static void
walk(void *arg)
{
	Turn *turn = arg;
	Embedder *embedder = turn->embedder;
	PromEmbedded embedded;

	if (!prom_embedded_read(embedder->agent, "", "", &embedded))
	{
		embedder->walks = false;
		return;
	}
	set_space(embedder, embedded.space);
	embedder->walks = prom_batch_read(&embedder->batch, embedder->agent,
									  embedder->space, &embedder->at,
									  embedder->most, turn->now);
	prom_batch_write_made(&embedder->batch, embedder->space);
	if (embedder->batch.n > 0)
		prepare(turn, embedded.model);
	PROM_FAULT("embed-walk-before-commit");
}


/* Recording. */

static void
record(void *arg)
{
	const Turn *turn = arg;
	const Embedder *embedder = turn->embedder;
	PromBatchCall call = {
		.agent = embedder->agent,
		.space = embedder->space,
		.model = embedder->attempt.embedder,
		.reply = prom_llm_reply(embedder->attempt.call),
		.sent_at = embedder->sent_at,
	};

	prom_batch_record(&embedder->batch, &call, turn->now);
	PROM_FAULT("embed-before-commit");
}

static TimestampTz
back_off(int failures, int64 retry_after, TimestampTz now)
{
	int64 ms = failures > 10 ? BACKOFF_LONGEST
							 : Min((int64) BACKOFF_FIRST << failures,
								   BACKOFF_LONGEST);

	ms = (int64) (ms * (1 - 0.25 * pg_prng_double(&pg_global_prng_state)));
	return TimestampTzPlusMilliseconds(now, retry_after > 0 ? retry_after : ms);
}

/* May it be one of the texts that it failed for? */
static bool
may_be_text(const PromReply *reply)
{
	return reply->ambiguous || reply->http_status == 200 ||
		   reply->http_status >= 500;
}

/* Many that are refused one after another may be the model's fault. */
static void
take_failure(Embedder *embedder, const PromReply *reply, TimestampTz now)
{
	int n = embedder->batch.n;
	bool refused = prom_batch_is_refused(reply);

	if (n > 1 && (refused || may_be_text(reply)))
		embedder->most = n / 2;
	if (n == 1 || !refused)
		note_failure(embedder, reply->error,
					 back_off(embedder->failures, reply->retry_after, now));
	if (n > 1 || (!refused && (!may_be_text(reply) ||
							   embedder->failures < FAILS_ENOUGH)))
	{
		go_back(embedder);
		return;
	}
	if (!refused)
	{
		embedder->passed_over = Min(embedder->passed_over,
									embedder->batch.bare[0].memory_id);
		embedder->until = TimestampTzPlusMilliseconds(now, PASSED_OVER);
		embedder->failures = 1;
	}
	drop_batch(embedder);
}

/* After the commit: the same, in memory. */
static void
take_reply(Embedder *embedder, TimestampTz now)
{
	const PromReply *reply = prom_llm_reply(embedder->attempt.call);

	if (!reply->ok)
	{
		take_failure(embedder, reply, now);
		return;
	}
	embedder->failures = 0;
	embedder->not_before = 0;
	embedder->most = Min(2 * embedder->most, PROM_MAX_EMBEDDED);
	drop_batch(embedder);
}

/* Nothing is left to walk over, and nothing is under way. */
static bool
is_at_end(const Embedder *embedder)
{
	return !embedder->walks && embedder->attempt.call == NULL;
}

/* Nothing fails any more. */
static void
rest(Embedder *embedder)
{
	if (is_at_end(embedder) && embedder->passed_over == PG_INT64_MAX)
		embedder->failures = 0;
}

/* What was passed over comes again; until then all others get theirs. */
static void
go_back_to_passed(Embedder *embedder, TimestampTz now)
{
	if (!is_at_end(embedder) || embedder->passed_over == PG_INT64_MAX ||
		embedder->until > now)
		return;
	walk_from(embedder, embedder->passed_over);
	embedder->passed_over = PG_INT64_MAX;
}


/* A turn. */

static bool
in_transaction(void (*act)(void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool done = false;

	PG_TRY();
	{
		if (!prom_era_xact_begin("embedding memories"))
			proc_exit(0);
		/* All tasks wait for it: what a session has locked waits instead. */
		(void) set_config_option("lock_timeout", LOCK_TIMEOUT_OF_TURN,
								 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL,
								 true, 0, false);
		SPI_connect();
		MemoryContextSwitchTo(context);
		act(arg);
		SPI_finish();
		prom_xact_commit();
		done = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		prom_xact_abort();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	/* What ends this process must be noticed before it sends. */
	if (prom_worker_should_end())
		proc_exit(0);
	return done;
}

/* What cannot be recorded is asked for again. */
static void
record_turn(Embedder *embedder, TimestampTz now)
{
	Turn turn = {.embedder = embedder, .now = now};

	PROM_FAULT("embed-answered");
	if (in_transaction(record, &turn))
	{
		PROM_FAULT("embed-after-commit");
		take_reply(embedder, now);
		return;
	}
	note_failure(embedder, "what was answered could not be recorded",
				 back_off(embedder->failures, -1, now));
	go_back(embedder);
}

static void
walk_turn(PromHttp *http, Embedder *embedder, TimestampTz now)
{
	Turn turn = {.embedder = embedder, .now = now};

	embedder->batch.before = embedder->at;
	if (!in_transaction(walk, &turn))
	{
		embedder->not_before = TimestampTzPlusMilliseconds(now, AGAIN);
		go_back(embedder);
		return;
	}
	if (turn.prompt == NULL)
	{
		prom_batch_clear(&embedder->batch);
		return;
	}
	PROM_FAULT("embed-before-send");
	embedder->sent_at = now;
	prom_route_sent(&embedder->attempt);
	embedder->attempt.call = prom_llm_start_for(
		http, embedder->attempt.embedder, turn.prompt, &answered);
	in_flight++;
	PROM_FAULT("embed-after-send");
}

/* Is its way open, as far as is known? */
static bool
is_let(const Embedder *embedder, TimestampTz now)
{
	return !prom_my_database->gates[0].paused &&
		   !prom_gate_is_paused(prom_my_database, PROM_GATE_AGENT,
								prom_hash_name(embedder->agent)) &&
		   (embedder->gate == NULL ||
			prom_gate_room(embedder->gate, 0, now) > 0);
}

static bool
has_turn(const Embedder *embedder, TimestampTz now)
{
	if (embedder->is_answered)
		return true;
	return embedder->walks && embedder->attempt.call == NULL &&
		   embedder->not_before <= now && is_let(embedder, now);
}

/* The gate knows at once what came of it. */
static void
take_answered(TimestampTz now)
{
	PromCall *call;
	dlist_iter iter;

	while ((call = prom_llm_next_of(&answered)) != NULL)
		dlist_foreach(iter, &embedders)
		{
			Embedder *one = dlist_container(Embedder, link, iter.cur);

			if (one->attempt.call != call)
				continue;
			one->is_answered = true;
			prom_route_end(&one->attempt, now);
		}
}

/*
 * Agents or models are others: what has failed may work now, and what came
 * without a hint is found.  Or something was remembered.
 */
static void
look_at_hints(TimestampTz now)
{
	PromEmbeddings *embeddings = &prom_my_database->embeddings;
	int64 from;
	dlist_mutable_iter iter;

	if (not_before > now)
		return;
	if (pg_atomic_exchange_u32(&embeddings->asked, 0) != 0)
	{
		if (!in_transaction(read_agents, NULL))
		{
			pg_atomic_write_u32(&embeddings->asked, 1);
			not_before = TimestampTzPlusMilliseconds(now, AGAIN);
			return;
		}
		dlist_foreach_modify(iter, &embedders)
		{
			Embedder *one = dlist_container(Embedder, link, iter.cur);

			if (!one->is_there)
				end_embedder(one);
			else
			{
				one->is_there = false;
				one->not_before = 0;
				one->gate = NULL;
				walk_from(one, PG_INT64_MIN);
			}
		}
		/* Before what is walked over is read: see wakeup.c. */
		pg_atomic_write_u32(&embeddings->wanted, nembedders > 0);
		pg_memory_barrier();
	}
	from = (int64) pg_atomic_exchange_u64(&embeddings->from, PG_INT64_MAX);
	if (from == PG_INT64_MAX || nembedders == 0)
		return;
	if (!in_transaction(find_hinted, &from))
		dlist_foreach_modify(iter, &embedders)
		{
			walk_from(dlist_container(Embedder, link, iter.cur), from);
		}
}

/* For prometheus_health(). */
static void
show_failures(void)
{
	PromEmbeddings *embeddings = &prom_my_database->embeddings;
	const Embedder *worst = NULL;
	int failing = 0;
	dlist_iter iter;

	dlist_foreach(iter, &embedders)
	{
		const Embedder *one = dlist_container(Embedder, link, iter.cur);

		if (one->failures == 0)
			continue;
		failing++;
		if (worst == NULL || one->failures > worst->failures)
			worst = one;
	}
	if (failing == 0 && embeddings->failing == 0)
		return;
	SpinLockAcquire(&embeddings->mutex);
	embeddings->failing = failing;
	if (worst != NULL)
	{
		strlcpy(embeddings->agent, worst->agent, sizeof(embeddings->agent));
		strlcpy(embeddings->error, worst->error, sizeof(embeddings->error));
	}
	SpinLockRelease(&embeddings->mutex);
}

void
prom_embedder_drive(PromHttp *http, TimestampTz now)
{
	instr_time begun;
	instr_time passed;
	int n;

	take_answered(now);
	look_at_hints(now);
	n = nembedders;
	INSTR_TIME_SET_CURRENT(begun);
	for (int i = 0; i < n; i++)
	{
		Embedder *embedder = dlist_container(
			Embedder, link, dlist_pop_head_node(&embedders));

		dlist_push_tail(&embedders, &embedder->link);
		go_back_to_passed(embedder, now);
		if (!has_turn(embedder, now))
			continue;
		if (embedder->is_answered)
			record_turn(embedder, now);
		else
			walk_turn(http, embedder, now);
		rest(embedder);
		INSTR_TIME_SET_CURRENT(passed);
		INSTR_TIME_SUBTRACT(passed, begun);
		if (INSTR_TIME_GET_MICROSEC(passed) > LONGEST_DRIVE)
			break;
	}
	show_failures();
}

TimestampTz
prom_embedder_next_moment(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = DT_NOEND;
	dlist_iter iter;

	if (pg_atomic_read_u32(&prom_my_database->embeddings.asked) != 0)
		next = not_before;
	dlist_foreach(iter, &embedders)
	{
		const Embedder *one = dlist_container(Embedder, link, iter.cur);
		TimestampTz opens = one->gate == NULL ? 0
											  : prom_gate_opens_at(one->gate);

		if (one->is_answered)
			return now;
		if (is_at_end(one) && one->passed_over != PG_INT64_MAX)
			next = Min(next, one->until);
		if (!one->walks || one->attempt.call != NULL)
			continue;
		/* Of all else that opens the way it is told. */
		if (is_let(one, now) || opens > now)
			next = Min(next, Max(one->not_before, opens));
	}
	return next;
}
