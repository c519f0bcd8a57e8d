/*
 * gate.c
 *	  Opens and closes the gates before models and subscriptions, and says who
 *	  may go through.
 *
 * A gate closes for a while: as long as the peer asked (429), or because calls
 * failed in a row (the breaker), or for want of money.  Then one call may go
 * through; when it comes back well the gate widens, twofold with each good
 * call, to what the model's option max_concurrent allows.  A call that began
 * before the gate was closed says nothing about how it is now (generation).
 *
 * A gate also holds what would be more than its rate (pace.c), which uses up
 * nothing and says nothing of how its peer is.
 *
 * Nobody need open a gate: it is closed before a moment, and who looks at it
 * compares.  The scheduler looks before it gives a task to the caller, the
 * caller again before it sends, and its word counts.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"

#include "event.h"
#include "fault.h"
#include "gate.h"
#include "tally.h"

/* Back-off of the breaker and of 429 without Retry-After, ms. */
#define CLOSED_FIRST 1000
#define CLOSED_LONGEST 60000

/* The same for want of money: a person must act, and is not to be forgotten. */
#define MONEY_FIRST 60000
#define MONEY_LONGEST 3600000

/* When a gate may be tried, a task that waits is sent within this, ms. */
#define PROBE_SOON 5000

#define NO_LIMIT PG_UINT32_MAX

/*
 * Of the caller: some gate has closed or opened since that was last written as
 * an event, and which of them are closed by what was written.
 */
static bool has_news;
static bool told_closed[PROM_MAX_GATES];

/* Let the options of its model be read anew. */
static void
ask(PromGate *gate)
{
	pg_atomic_fetch_add_u32(&gate->asked, 1);
	pg_atomic_fetch_add_u32(&gate->changes, 1);
}

static void
init_gate(PromGate *gate, PromGateKind kind, const char *name)
{
	memset(gate, 0, sizeof(*gate));
	gate->hash = prom_hash_name(name);
	pg_atomic_init_u64(&gate->until, 0);
	pg_atomic_init_u64(&gate->held, 0);
	pg_atomic_init_u32(&gate->allows, NO_LIMIT);
	pg_atomic_init_u32(&gate->width, NO_LIMIT);
	pg_atomic_init_u32(&gate->in_flight, 0);
	pg_atomic_init_u32(&gate->handled, 0);
	pg_atomic_init_u32(&gate->changes, 0);
	pg_atomic_init_u32(&gate->asked, 1);
	gate->max_concurrent = NO_LIMIT;
	gate->breaker_failures = INT_MAX;
	strlcpy(gate->name, name, sizeof(gate->name));
	/* Who finds it by its kind finds all of it. */
	pg_write_barrier();
	gate->kind = kind;
}

void
prom_gate_reset(PromDatabase *db)
{
	LWLockAcquire(db->gate_lock, LW_EXCLUSIVE);
	init_gate(&db->gates[0], PROM_GATE_ALL, "all");
	pg_atomic_write_u32(&db->ngates, 1);
	LWLockRelease(db->gate_lock);
}

/*
 * Gates are only added, and counted when they are whole: no lock is needed.  Of
 * a subscription only the caller may go by what it finds.
 */
PromGate *
prom_gate_by_hash(PromDatabase *db, PromGateKind kind, uint32 hash)
{
	uint32 n = pg_atomic_read_u32(&db->ngates);

	pg_read_barrier();
	for (uint32 i = 0; i < n; i++)
		if (db->gates[i].hash == hash && db->gates[i].kind == kind)
			return &db->gates[i];
	return NULL;
}

PromGate *
prom_gate_find(PromDatabase *db, PromGateKind kind, const char *name)
{
	uint32 n = pg_atomic_read_u32(&db->ngates);
	uint32 hash = prom_hash_name(name);

	pg_read_barrier();
	for (uint32 i = 0; i < n; i++)
		if (db->gates[i].hash == hash && db->gates[i].kind == kind &&
			strcmp(db->gates[i].name, name) == 0)
			return &db->gates[i];
	return NULL;
}

/* A place that a subscription's gate has left, if it may have one. */
static PromGate *
find_place(PromDatabase *db)
{
	uint32 n = pg_atomic_read_u32(&db->ngates);
	PromGate *place = n < PROM_MAX_GATES ? &db->gates[n] : NULL;
	int used = 0;

	for (uint32 i = 0; i < n; i++)
	{
		if (db->gates[i].kind == PROM_GATE_NONE)
			place = &db->gates[i];
		used += db->gates[i].kind == PROM_GATE_SUBSCRIPTION ? 1 : 0;
	}
	return used < PROM_MAX_SUBSCRIPTIONS ? place : NULL;
}

PromGate *
prom_gate_make(PromDatabase *db, PromGateKind kind, const char *name)
{
	PromGate *gate = prom_gate_find(db, kind, name);
	PromGate *place = NULL;
	uint32 n;

	if (gate != NULL)
		return gate;
	LWLockAcquire(db->gate_lock, LW_EXCLUSIVE);
	gate = prom_gate_find(db, kind, name);
	n = pg_atomic_read_u32(&db->ngates);
	/* Lanes look for theirs when there are more than before. */
	if (gate == NULL && kind == PROM_GATE_SUBSCRIPTION)
		place = find_place(db);
	else if (gate == NULL && n < PROM_MAX_GATES)
		place = &db->gates[n];
	if (place != NULL)
	{
		gate = place;
		init_gate(gate, kind, name);
		pg_write_barrier();
		pg_atomic_write_u32(&db->ngates, Max(n, gate - db->gates + 1));
	}
	LWLockRelease(db->gate_lock);
	return gate;
}

void
prom_gate_set_paused(PromGate *gate, TimestampTz paused_at)
{
	gate->paused_at = paused_at;
	gate->paused = paused_at != 0;
}

void
prom_gate_give_back(PromDatabase *db, PromGate *gate)
{
	LWLockAcquire(db->gate_lock, LW_EXCLUSIVE);
	init_gate(gate, PROM_GATE_NONE, "");
	told_closed[gate - db->gates] = false;
	LWLockRelease(db->gate_lock);
}

char *
prom_gate_target(const PromGate *gate)
{
	switch (gate->kind)
	{
		case PROM_GATE_NONE:
		case PROM_GATE_ALL:
			break;
		case PROM_GATE_AGENT:
			return psprintf("agent:%s", gate->name);
		case PROM_GATE_MODEL:
			return psprintf("model:%s", gate->name);
		case PROM_GATE_SUBSCRIPTION:
			return psprintf("subscription:%s", gate->name);
	}
	return pstrdup("all");
}

bool
prom_gate_is_paused(PromDatabase *db, PromGateKind kind, uint32 hash)
{
	const PromGate *gate = kind == PROM_GATE_ALL
							   ? &db->gates[0]
							   : prom_gate_by_hash(db, kind, hash);

	return gate != NULL && gate->paused;
}

/* In ISO 8601, as jsonb has it. */
static char *
time_as_json(TimestampTz at)
{
	char *text = palloc(MAXDATELEN + 1);

	(void) JsonEncodeDateTime(text, TimestampTzGetDatum(at), TIMESTAMPTZOID,
							  NULL);
	return text;
}

static TimestampTz
closed_until(const PromGate *gate)
{
	return (TimestampTz) pg_atomic_read_u64(
		(pg_atomic_uint64 *) &gate->until);
}

static TimestampTz
held_until(const PromGate *gate)
{
	return (TimestampTz) pg_atomic_read_u64((pg_atomic_uint64 *) &gate->held);
}

bool
prom_gate_is_open(const PromGate *gate, TimestampTz now)
{
	return !gate->paused && closed_until(gate) <= now &&
		   held_until(gate) <= now;
}

bool
prom_gate_is_held(const PromGate *gate, TimestampTz now)
{
	return !gate->paused && closed_until(gate) <= now &&
		   held_until(gate) > now;
}

/*
 * While a call tries it, and while one might be about to, it is as it was.
 */
TimestampTz
prom_gate_closed_since(const PromGate *gate, TimestampTz now)
{
	if (gate->paused)
		return gate->paused_at;
	if (gate->closings > 0 &&
		(pg_atomic_read_u32((pg_atomic_uint32 *) &gate->in_flight) > 0 ||
		 TimestampTzPlusMilliseconds(closed_until(gate), PROBE_SOON) > now))
		return gate->first;
	return DT_NOEND;
}

TimestampTz
prom_gate_opens_at(const PromGate *gate)
{
	return gate->paused ? 0 : Max(closed_until(gate), held_until(gate));
}

TimestampTz
prom_gate_opens_next(PromDatabase *db, const PromGate *gate, TimestampTz now)
{
	TimestampTz next = DT_NOEND;

	for (int i = -1; i < gate->nfallbacks; i++)
	{
		const PromGate *one = i < 0 ? gate
									: prom_gate_by_hash(db, PROM_GATE_MODEL,
														gate->fallbacks[i]);
		TimestampTz opens = one == NULL ? 0 : prom_gate_opens_at(one);

		if (opens > now)
			next = Min(next, opens);
	}
	return next;
}

uint32
prom_gate_room(const PromGate *gate, uint32 on_their_way, TimestampTz now)
{
	uint32 width = pg_atomic_read_u32((pg_atomic_uint32 *) &gate->width);
	uint32 allows = pg_atomic_read_u32((pg_atomic_uint32 *) &gate->allows);
	uint64 taken =
		(uint64) pg_atomic_read_u32((pg_atomic_uint32 *) &gate->in_flight) +
		on_their_way;

	if (!prom_gate_is_open(gate, now) || taken >= width ||
		on_their_way >= allows)
		return 0;
	return Min(width - (uint32) taken, allows - on_their_way);
}

static bool
is_asked(const PromGate *gate)
{
	return pg_atomic_read_u32((pg_atomic_uint32 *) &gate->asked) != gate->known;
}

bool
prom_gate_is_asked(PromDatabase *db, const PromGate *gate)
{
	bool asked = is_asked(gate);

	for (int i = 0; i < gate->nfallbacks; i++)
	{
		const PromGate *other = prom_gate_by_hash(db, PROM_GATE_MODEL,
												  gate->fallbacks[i]);

		asked |= other != NULL && is_asked(other);
	}
	return asked;
}

bool
prom_gate_admits(PromDatabase *db, const PromGate *gate, uint32 on_their_way,
				 TimestampTz now)
{
	/* Its options and fallbacks are not known yet: the caller looks. */
	if (gate->kind == PROM_GATE_MODEL && is_asked(gate))
		return true;
	if (prom_gate_room(gate, on_their_way, now) > 0)
		return true;
	if (prom_gate_is_open(gate, now))
		return false;
	for (int i = 0; i < gate->nfallbacks; i++)
	{
		const PromGate *other = prom_gate_by_hash(db, PROM_GATE_MODEL,
												  gate->fallbacks[i]);

		if (other == NULL || is_asked(other) ||
			prom_gate_room(other, on_their_way, now) > 0)
			return true;
	}
	return false;
}

uint32
prom_gate_changes(PromDatabase *db, const PromGate *gate)
{
	uint32 changes = pg_atomic_read_u32((pg_atomic_uint32 *) &gate->changes);

	for (int i = 0; i < gate->nfallbacks; i++)
	{
		PromGate *other = prom_gate_by_hash(db, PROM_GATE_MODEL,
											gate->fallbacks[i]);

		if (other != NULL)
			changes += pg_atomic_read_u32(&other->changes);
	}
	return changes;
}

static void
set_limits(PromGate *gate, uint32 limit, int breaker_failures)
{
	/* One that is widening goes on from where it is. */
	if (pg_atomic_read_u32(&gate->width) == gate->max_concurrent ||
		pg_atomic_read_u32(&gate->width) > limit)
		pg_atomic_write_u32(&gate->width, limit);
	gate->max_concurrent = limit;
	gate->breaker_failures = breaker_failures;
}

/* Has a person opened it?  Then what its provider said counts no more. */
static void
look_for_opening(PromGate *gate)
{
	if (gate->shown != 0 && held_until(gate) == 0)
		prom_pace_forget(&gate->pace);
	gate->shown = held_until(gate);
}

/*
 * Let others see what the rate allows now, and tell the scheduler if it may
 * have to wait for another moment than before, or need not.
 */
static void
show_pace(PromDatabase *db, PromGate *gate, TimestampTz now)
{
	uint32 allows;
	uint32 before;
	uint64 other;
	TimestampTz held;

	/* A person may open it meanwhile. */
	do
	{
		look_for_opening(gate);
		other = (uint64) gate->shown;
		held = prom_pace_held(&gate->pace, now, &allows);
	} while (!pg_atomic_compare_exchange_u64(&gate->held, &other,
											 (uint64) held));
	before = pg_atomic_exchange_u32(&gate->allows, allows);
	if (held > now && gate->shown <= now)
		gate->held_since = now;
	if (held == gate->shown && allows <= before)
		return;
	gate->shown = held;
	pg_atomic_fetch_add_u32(&gate->changes, 1);
	prom_shmem_wake(&db->worker[PROM_SCHEDULER]);
}

bool
prom_gate_fits(PromDatabase *db, PromGate *gate, const PromNeed *need,
			   TimestampTz now)
{
	bool fits;

	look_for_opening(gate);
	fits = prom_pace_fits(&gate->pace, need, now);
	if (fits)
		prom_pace_take(&gate->pace, need, now);
	show_pace(db, gate, now);
	return fits;
}

void
prom_gate_unfit(PromDatabase *db, PromGate *gate, const PromNeed *need,
				TimestampTz now)
{
	prom_pace_give_back(&gate->pace, need);
	show_pace(db, gate, now);
}

/*
 * Of a refusal that says when to come again, only that counts, which closes
 * the gate.
 */
void
prom_gate_heard(PromDatabase *db, PromGate *gate, const PromNeed *need,
				const PromHeaders *headers, TimestampTz now)
{
	const PromRate *rates = NULL;
	int64 date = now / USECS_PER_SEC +
				 (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;

	if (headers != NULL &&
		(headers->status < 300 ||
		 (headers->status == 429 && prom_headers_retry_after(headers) < 0)))
		rates = headers->rates;
	if (rates != NULL && headers->date >= 0)
		date = headers->date;
	look_for_opening(gate);
	prom_pace_hear(&gate->pace, need, rates, date, now);
	show_pace(db, gate, now);
}

void
prom_gate_used(PromDatabase *db, PromGate *gate, const PromNeed *need,
			   int64 tokens, TimestampTz now)
{
	prom_pace_correct(&gate->pace, need, tokens);
	show_pace(db, gate, now);
}

void
prom_gate_used_before(PromDatabase *db, PromGate *gate, int64 requests,
					  int64 tokens, TimestampTz now)
{
	prom_pace_used_before(&gate->pace, requests, tokens);
	show_pace(db, gate, now);
}

bool
prom_gate_set_options(PromDatabase *db, PromGate *gate, const PromModel *model,
					  uint32 asked, TimestampTz now)
{
	bool has_new_rate;
	uint32 limit = model->max_concurrent > 0 ? model->max_concurrent : NO_LIMIT;

	LWLockAcquire(db->gate_lock, LW_EXCLUSIVE);
	gate->known = asked;
	if (gate->version == model->version)
	{
		LWLockRelease(db->gate_lock);
		return false;
	}
	gate->version = model->version;
	gate->nfallbacks = Min(model->nfallbacks, PROM_MAX_FALLBACKS);
	for (int i = 0; i < gate->nfallbacks; i++)
		gate->fallbacks[i] = prom_hash_name(model->fallbacks[i]);
	set_limits(gate, limit, model->breaker_failures);
	has_new_rate = prom_pace_set_limits(&gate->pace, model->requests_per_minute,
										model->tokens_per_minute, now);
	LWLockRelease(db->gate_lock);
	show_pace(db, gate, now);
	pg_atomic_fetch_add_u32(&gate->changes, 1);
	return has_new_rate;
}

void
prom_gate_set_limits(PromDatabase *db, PromGate *gate, uint32 max_concurrent,
					 int breaker_failures)
{
	LWLockAcquire(db->gate_lock, LW_EXCLUSIVE);
	set_limits(gate, max_concurrent, breaker_failures);
	LWLockRelease(db->gate_lock);
}

void
prom_gate_forget_calls(PromDatabase *db)
{
	uint32 n = pg_atomic_read_u32(&db->ngates);

	for (uint32 i = 0; i < n; i++)
	{
		pg_atomic_write_u32(&db->gates[i].in_flight, 0);
		memset(&db->gates[i].pace.unheard, 0, sizeof(PromNeed));
		told_closed[i] = db->gates[i].closings > 0;
	}
}

bool
prom_gate_has_news(void)
{
	return has_news;
}

/* As json: its target and, if it is closed, why and until when. */
static char *
describe(const PromGate *gate)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoString(&json, "{\"target\": ");
	escape_json(&json, prom_gate_target(gate));
	if (gate->closings > 0)
		appendStringInfo(&json, ", \"reason\": \"%s\", \"until\": \"%s\"",
						 gate->reason == PROM_GATE_RATE    ? "rate limit"
						 : gate->reason == PROM_GATE_MONEY ? "money"
														   : "failures",
						 time_as_json(closed_until(gate)));
	appendStringInfoChar(&json, '}');
	return json.data;
}

void
prom_gate_write_news(PromDatabase *db)
{
	uint32 n = pg_atomic_read_u32(&db->ngates);

	for (uint32 i = 0; has_news && i < n; i++)
	{
		const PromGate *gate = &db->gates[i];

		if (told_closed[i] != (gate->closings > 0))
			(void) prom_event_add(gate->closings > 0 ? "gate.closed"
													 : "gate.opened",
								  describe(gate), prom_gate_target(gate), 0);
	}
}

void
prom_gate_told_news(PromDatabase *db)
{
	uint32 n = pg_atomic_read_u32(&db->ngates);

	for (uint32 i = 0; has_news && i < n; i++)
		told_closed[i] = db->gates[i].closings > 0;
	has_news = false;
}

uint32
prom_gate_began(PromGate *gate)
{
	pg_atomic_fetch_add_u32(&gate->in_flight, 1);
	return gate->generation;
}

void
prom_gate_dropped(PromGate *gate)
{
	pg_atomic_fetch_sub_u32(&gate->in_flight, 1);
	pg_atomic_fetch_add_u32(&gate->changes, 1);
}

static void
widen(PromGate *gate)
{
	uint32 width = pg_atomic_read_u32(&gate->width);

	has_news = has_news || gate->closings > 0;
	gate->failures = gate->closings = 0;
	if (width >= gate->max_concurrent)
		return;
	width = width > gate->max_concurrent / 2 ? gate->max_concurrent : 2 * width;
	pg_atomic_write_u32(&gate->width, width);
}

static int64
backoff_ms(const PromGate *gate, PromGateReason reason)
{
	int64 first = reason == PROM_GATE_MONEY ? MONEY_FIRST : CLOSED_FIRST;
	int64 longest = reason == PROM_GATE_MONEY ? MONEY_LONGEST : CLOSED_LONGEST;

	return gate->closings > 20 ? longest
							   : Min(first << gate->closings, longest);
}

/* What is in flight and was told the same later only makes it longer. */
static void
close_gate(PromDatabase *db, PromGate *gate, PromGateReason reason,
		   int64 asked_ms, bool current, TimestampTz now)
{
	int64 ms = asked_ms > 0 ? asked_ms : backoff_ms(gate, reason);
	TimestampTz until = TimestampTzPlusMilliseconds(now, ms);

	if (!current && (asked_ms <= 0 || until <= closed_until(gate)))
		return;
	LWLockAcquire(db->gate_lock, LW_EXCLUSIVE);
	if (current)
	{
		gate->generation++;
		has_news = has_news || gate->closings == 0;
		if (gate->closings++ == 0)
			gate->first = now;
		gate->failures = 0;
		gate->reason = reason;
		gate->since = now;
		pg_atomic_write_u32(&gate->width, 1);
	}
	pg_atomic_write_u64(&gate->until, (uint64) until);
	LWLockRelease(db->gate_lock);
	PROM_FAULT("gate-closed");
	if (!current)
		return;
	prom_tally_gate(db, gate, reason);
	ereport(reason == PROM_GATE_MONEY ? WARNING : LOG,
			(errmsg("%s \"%s\" is closed until %s",
					gate->kind == PROM_GATE_SUBSCRIPTION ? "subscription"
														 : "model",
					gate->name, timestamptz_to_str(until)),
			 reason == PROM_GATE_MONEY
				 ? errdetail("The provider asks for money: a quota or a spend limit is used up.")
			 : reason == PROM_GATE_RATE
				 ? errdetail("The peer asked to wait.")
			 : gate->closings > 1
				 ? errdetail("What tried it failed, too.")
				 : errdetail("%d failed in a row.", gate->breaker_failures),
			 reason == PROM_GATE_MONEY
				 ? errhint("When it is paid for: SELECT prometheus_resume(%s);",
						   quote_literal_cstr(prom_gate_target(gate)))
				 : 0));
}

/* While it is widening, one failure is enough. */
static void
count_failure(PromDatabase *db, PromGate *gate, int64 retry_after, bool current,
			  TimestampTz now)
{
	if (current && (++gate->failures >= gate->breaker_failures ||
					gate->closings > 0))
		close_gate(db, gate, PROM_GATE_FAILURES, retry_after, true, now);
}

void
prom_gate_ended(PromDatabase *db, PromGate *gate, uint32 generation,
				const PromReply *reply, TimestampTz now)
{
	bool current = generation == gate->generation;

	if (reply->ok)
	{
		if (current)
			widen(gate);
	}
	else if (reply->retry == PROM_RETRY_MONEY)
		close_gate(db, gate, PROM_GATE_MONEY, -1, current, now);
	else if (reply->retry == PROM_RETRY_WAIT && reply->http_status != 0)
		close_gate(db, gate, PROM_GATE_RATE, reply->retry_after, current, now);
	else if (reply->counts_for_breaker)
		count_failure(db, gate, reply->retry_after, current, now);
	else if (current && reply->http_status != 0)
		widen(gate); /* refused, but there is somebody who refuses */
	prom_gate_dropped(gate);
}

void
prom_gate_delivered(PromDatabase *db, PromGate *gate, uint32 generation,
					PromGateWord word, int64 retry_after, TimestampTz now)
{
	bool current = generation == gate->generation;

	switch (word)
	{
		case PROM_GATE_GOOD:
		case PROM_GATE_REFUSED:
			if (current)
				widen(gate);
			break;
		case PROM_GATE_BAD:
			count_failure(db, gate, retry_after, current, now);
			break;
		case PROM_GATE_LATER:
			close_gate(db, gate, PROM_GATE_RATE, retry_after, current, now);
			break;
		case PROM_GATE_SILENT:
			break;
	}
	prom_gate_dropped(gate);
}

void
prom_gate_open(PromGate *gate)
{
	pg_atomic_write_u64(&gate->until, 0);
	pg_atomic_write_u64(&gate->held, 0);
	ask(gate);
}

void
prom_gate_ask_all(PromDatabase *db)
{
	uint32 n = pg_atomic_read_u32(&db->ngates);

	pg_read_barrier();
	for (uint32 i = 0; i < n; i++)
		ask(&db->gates[i]);
}
