/*
 * distribution.c
 *	  Takes new events for subscriptions, and leaves each as a delivery.
 *
 * The publisher reads for each subscription as prometheus_poll() does, and
 * what it reads is written and acknowledged in one transaction, so each event
 * becomes a delivery once.  The caller delivers them (courier.c).
 *
 * A filter is others' expression.  A batch may take so long to pass it, then
 * the event alone; one whose data cannot be held against it in time is a dead
 * letter, which says so, and after some of them in a row the subscription is
 * disabled.  A filter that has not been quick the last time has its turn with
 * others like it, one at a time, and they pause for four times as long as that
 * took: so all of them together have a fifth of this process, and nobody else's
 * events, and no mark, wait longer than for one such turn.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/timeout.h"

#include "compat.h"
#include "consumer.h"
#include "consumer_lock.h"
#include "delivery.h"
#include "distribution.h"
#include "era.h"
#include "fault.h"
#include "guc.h"
#include "worker.h"
#include "xact.h"

/* Events that are taken at once. */
#define BATCH 256

/*
 * How long they may take to pass a filter, and one alone, ms; quicker than this
 * is quick; the pause of those that are not; and events given up in a row.
 */
#define LONGEST 100
#define LONGEST_ALONE 300
#define QUICK 20
#define SLOW_PAUSE 4
#define MOST_GIVEN_UP 3

/* Between two steps, and after an error, ms. */
#define PAUSE 4
#define AFTER_FAILURE 1000

/* Marks and others' events do not wait for what a session has locked. */
#define LOCK_TIMEOUT "100ms"

typedef struct Subscription
{
	char *name;
	char *filter; /* NULL: none */
	bool ordered;
	int want;               /* less after one batch took too long; 0: give up */
	int taken;              /* the last time */
	int64 alone;            /* the event that was, then; 0: there were others */
	int64 unfit;            /* the one that is to be given up */
	bool look;              /* it may have new ones */
	bool is_slow;           /* its filter was not quick, or is not known yet */
	int overtimes;          /* of events alone, in a row */
	TimestampTz not_before; /* after an error that is not its events' */
} Subscription;

/* Events that are taken, and what of them is to be a delivery. */
typedef struct Batch
{
	PromEntry *entries;
	int n;
	int64 mark_id;
} Batch;

static MemoryContext context; /* of the subscriptions */
static Subscription *subscriptions;
static int nsubscriptions;
static bool stale = true; /* they are to be read again */
static uint32 seen;       /* when that had been told so often */
static Oid relation;      /* of them */
static TimestampTz due = DT_NOEND;
static TimestampTz slow_due; /* when the next of the slow ones has its turn */
static int slow_last;        /* the one that had it last */
static bool told = true;     /* any of them may have new ones */
static TimestampTz last_step;
static TimestampTz last_look; /* for what came without a hint */
static uint64 transactions;   /* that had ended then */

static void
relation_changed(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || relid == relation)
		stale = true;
}

void
prom_distribution_begin(void)
{
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	due = GetCurrentTimestamp();
}

void
prom_distribution_changed(TimestampTz now)
{
	TimestampTz soonest = TimestampTzPlusMilliseconds(last_step, PAUSE);

	told = true;
	if (stale || nsubscriptions > 0)
		due = Min(due, Max(now, soonest));
}

static bool
is_told(void)
{
	return pg_atomic_read_u32(&prom_my_database->subscribed) != seen;
}

TimestampTz
prom_distribution_due(void)
{
	if (prom_consumer_lock_is_freed() || is_told())
		return DT_NOBEGIN;
	if (nsubscriptions == 0 || due != DT_NOEND)
		return due;
	return TimestampTzPlusMilliseconds(last_look, prom_guc_rescan_interval);
}

void
prom_distribution_failed(void)
{
	stale = true;
	due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), AFTER_FAILURE);
}

static void
begin(void)
{
	if (!prom_era_xact_begin("taking events for subscriptions"))
		proc_exit(0);
	/* It must be there when its function has crashed the server. */
	SetConfigOption("synchronous_commit", "on", PGC_SUSET, PGC_S_OVERRIDE);
	(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	SPI_connect();
}

static void
end(void)
{
	SPI_finish();
	PROM_FAULT("distribute-before-commit");
	prom_xact_commit();
	PROM_FAULT("distribute-after-commit");
}

static void
tell_caller(void)
{
	pg_atomic_write_u32(&prom_my_database->deliver, 1);
	prom_shmem_wake(&prom_my_database->worker[PROM_CALLER]);
}

/* What is known of one with the same filter. */
static void
recall(Subscription *one, const Subscription *known, int nknown)
{
	for (int i = 0; i < nknown; i++)
	{
		if (one->filter == NULL || known[i].filter == NULL ||
			strcmp(one->name, known[i].name) != 0 ||
			strcmp(one->filter, known[i].filter) != 0)
			continue;
		one->want = known[i].want;
		one->unfit = known[i].unfit;
		one->is_slow = known[i].is_slow;
		one->overtimes = known[i].overtimes;
		one->not_before = known[i].not_before;
	}
}

static void
read_subscriptions(void)
{
	MemoryContext before;
	MemoryContext old = context;
	Subscription *known = subscriptions;
	int nknown = nsubscriptions;

	seen = pg_atomic_read_u32(&prom_my_database->subscribed);
	begin();
	relation = prom_delivery_relation();
	stale = false;
	if (SPI_execute("SELECT s.name, s.ordered, s.filter::text"
					" FROM prometheus._subscription s"
					" WHERE s.disabled_at IS NULL ORDER BY s.name",
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._subscription");
	context = AllocSetContextCreate(TopMemoryContext,
									"prometheus subscriptions",
									ALLOCSET_SMALL_SIZES);
	nsubscriptions = 0;
	before = MemoryContextSwitchTo(context);
	subscriptions = palloc(Max(SPI_processed, 1) * sizeof(Subscription));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Subscription *one = &subscriptions[nsubscriptions++];

		memset(one, 0, sizeof(*one));
		one->name = pstrdup(prom_row_text(i, 1));
		one->ordered = prom_row_bool(i, 2);
		one->filter = prom_row_text_or_null(i, 3);
		one->want = BATCH;
		one->look = true;
		one->is_slow = one->filter != NULL;
		recall(one, known, nknown);
	}
	MemoryContextSwitchTo(before);
	if (old != NULL)
		MemoryContextDelete(old);
	end();
	tell_caller();
}

#define ADD_HEAD                                                             \
	"INSERT INTO prometheus._delivery AS d (delivery_id, event_id, task_id," \
	" created_at, next_at, attempts, strikes, mark_id, subscription, key,"   \
	" status, ended_at, fingerprint, error)"                                 \
	" SELECT nextval('prometheus._fact_id'), e.event_id, e.task_id, $4, $4," \
	" 0, 0, $6, $1, CASE WHEN $5 THEN coalesce('subject ' || e.subject,"     \
	" 'task ' || e.task_id) END, "
#define ADD_TAIL                                                   \
	" ON CONFLICT (subscription, event_id) DO UPDATE SET"          \
	" status = excluded.status, attempts = 0, strikes = 0,"        \
	" key = excluded.key, created_at = $4, next_at = $4,"          \
	" ended_at = excluded.ended_at,"                               \
	" mark_id = excluded.mark_id,"                                 \
	" started_at = NULL, duration_ms = NULL, http_status = NULL,"  \
	" fingerprint = excluded.fingerprint, error = excluded.error," \
	" result = NULL WHERE d.status <> 'waiting'"

/* A replay gives what was delivered already: then it is delivered again. */
static PromStatement add_statement = {
	ADD_HEAD "'waiting', NULL, NULL, NULL FROM prometheus._events($2, $3) e" ADD_TAIL,
	6,
	{TEXTOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZOID, BOOLOID, INT8OID},
	NULL,
};

static PromStatement give_up_statement = {
	ADD_HEAD "'dead', $4, 'filter', $7 FROM prometheus._events($2, $3) e" ADD_TAIL,
	7,
	{TEXTOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZOID, BOOLOID, INT8OID,
	 TEXTOID},
	NULL,
};

static PromStatement pass_statement = {
	"SELECT e.event_id FROM prometheus._events($1, $2) e"
	" WHERE prometheus._passes(e.data, $3::jsonpath)",
	3,
	{INT8ARRAYOID, INT8ARRAYOID, TEXTOID},
	NULL,
};

/* Leave those that pass the filter, in their order. */
static void
pass(const Subscription *subscription, Batch *batch)
{
	PromEntry *entries = palloc(batch->n * sizeof(PromEntry));
	Datum values[3];
	int n = 0;

	prom_window_arrays(batch->entries, batch->n, &values[0], &values[1]);
	values[2] = CStringGetTextDatum(subscription->filter);
	enable_timeout_after(STATEMENT_TIMEOUT,
						 batch->n > 1 ? LONGEST : LONGEST_ALONE);
	prom_statement_run(&pass_statement, values, NULL, false);
	disable_timeout(STATEMENT_TIMEOUT, false);
	for (int i = 0; i < batch->n && n < SPI_processed; i++)
		if (batch->entries[i].place.event_id == prom_row_int64(n, 1))
		{
			entries[n++] = batch->entries[i];
		}
	batch->entries = entries;
	batch->n = n;
}

/* Write the deliveries of some events. */
static void
add(const Subscription *subscription, const Batch *batch, bool gives_up)
{
	Datum values[7];

	values[0] = CStringGetTextDatum(subscription->name);
	prom_window_arrays(batch->entries, batch->n, &values[1], &values[2]);
	values[3] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[4] = BoolGetDatum(subscription->ordered);
	values[5] = Int64GetDatum(batch->mark_id);
	values[6] = CStringGetTextDatum(
		"its data could not be held against the filter, or not in time");
	prom_statement_run(gives_up ? &give_up_statement : &add_statement, values,
					   NULL, false);
}

/* Take what is new for one; true: there is more. */
static bool
take(Subscription *subscription, bool *found)
{
	bool gives_up = subscription->want == 0;
	Batch batch;
	bool more = false;
	int n;

	begin();
	if (subscription->want > 0 && subscription->overtimes >= MOST_GIVEN_UP)
	{
		prom_delivery_disable(subscription->name,
							  "its filter takes too long");
		end();
		return false;
	}
	n = batch.n = prom_consumer_take(subscription->name,
									 Max(subscription->want, 1),
									 &batch.entries, &batch.mark_id, &more);
	subscription->taken = n;
	subscription->alone = n == 1 ? batch.entries[0].place.event_id : 0;
	/* One that was committed later, or a replay, may come before it. */
	if (gives_up && subscription->alone != subscription->unfit)
	{
		gives_up = false;
		subscription->want = 1;
	}
	if (n > 0 && subscription->filter != NULL && !gives_up)
		pass(subscription, &batch);
	if (n > 0 && batch.n > 0)
		add(subscription, &batch, gives_up);
	else if (n == PROM_CONSUMER_ORPHAN)
		prom_delivery_disable(subscription->name,
							  "its owner is not the role that it was");
	end();
	*found = *found || batch.n > 0;
	return more;
}

/* Fewer at a time, so that one event's data is found, and given up. */
static void
want_less(Subscription *subscription, bool was_late)
{
	if (subscription->taken > 1)
		subscription->want = was_late ? Max(subscription->taken / 16, 1) : 1;
	else
	{
		subscription->want = 0;
		subscription->unfit = subscription->alone;
	}
	subscription->is_slow |= was_late;
	if (subscription->want == 0 && was_late)
		subscription->overtimes++;
}

/* More again; what was given up says nothing. */
static void
want_more(Subscription *subscription)
{
	if (subscription->want > 0)
		subscription->overtimes = 0;
	subscription->want = Min(Max(2 * subscription->want, 1), BATCH);
}

/* The same; an error is only this one's, which has its next turn later. */
static bool
try_take(Subscription *subscription, bool *found)
{
	MemoryContext before = CurrentMemoryContext;
	volatile bool more = true;

	PG_TRY();
	{
		more = take(subscription, found);
		want_more(subscription);
	}
	PG_CATCH();
	{
		int code = geterrcode();
		bool isolates = subscription->filter != NULL &&
						subscription->want > 0 &&
						(code == ERRCODE_QUERY_CANCELED ||
						 !prom_xact_is_transient(code));

		disable_timeout(STATEMENT_TIMEOUT, false);
		QueryCancelPending = false;
		MemoryContextSwitchTo(before);
		prom_xact_abort();
		if (isolates)
			want_less(subscription, code == ERRCODE_QUERY_CANCELED);
		else
			subscription->not_before =
				TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
											AFTER_FAILURE);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(before);
	return more;
}

/* Has it its turn at this time?  If it is only later, that is when. */
static bool
has_turn(const Subscription *one, TimestampTz now)
{
	if (one->look && one->not_before > now)
		due = Min(due, one->not_before);
	return one->look && one->not_before <= now;
}

/* Take for one of those that are slow, if it is time; true: others wait. */
static bool
take_slow(bool *found)
{
	TimestampTz start = GetCurrentTimestamp();
	Subscription *one = NULL;
	bool waits = false;
	int64 ms;

	for (int i = 1; i <= nsubscriptions; i++)
	{
		int place = (slow_last + i) % nsubscriptions;

		if (!subscriptions[place].is_slow ||
			!has_turn(&subscriptions[place], start))
			continue;
		waits = true;
		if (one != NULL || slow_due > start)
			break;
		one = &subscriptions[slow_last = place];
		waits = false;
	}
	if (one == NULL)
		return waits;
	one->look = try_take(one, found);
	ms = TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());
	one->is_slow = ms > QUICK || one->want < BATCH;
	slow_due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										   SLOW_PAUSE * ms);
	return waits || has_turn(one, GetCurrentTimestamp());
}

/* Is it time to look for what came without a hint?  Else nothing is run. */
static bool
nothing_ended(void)
{
	uint64 now = prom_xact_completion_count();
	bool same = due == DT_NOEND && !stale && !is_told() &&
				now == transactions;

	told |= due == DT_NOEND;
	last_look = GetCurrentTimestamp();
	transactions = now;
	return same;
}

void
prom_distribution_step(void)
{
	bool found = false;
	bool more = false;
	bool slow_wait = false;
	bool look_at;

	/* Who held the lock of one may have changed it. */
	if (prom_consumer_lock_freed())
	{
		told = true;
		due = GetCurrentTimestamp();
	}
	if (nothing_ended())
		return;
	due = DT_NOEND;
	last_step = GetCurrentTimestamp();
	if (stale || is_told())
		read_subscriptions();
	look_at = told;
	told = false;
	for (int i = 0; i < nsubscriptions && !stale; i++)
	{
		Subscription *one = &subscriptions[i];

		one->look |= look_at;
		if (one->is_slow || !has_turn(one, GetCurrentTimestamp()))
			continue;
		one->look = try_take(one, &found);
		more |= has_turn(one, GetCurrentTimestamp());
	}
	if (!stale)
		slow_wait = take_slow(&found);
	if (found)
		tell_caller();
	if (more || stale)
		due = Min(due, GetCurrentTimestamp());
	else if (slow_wait)
		due = Min(due, slow_due);
}
