/*
 * distribution.c
 *	  Takes new events for subscriptions, and leaves each as a delivery.
 *
 * The publisher reads for each subscription as prometheus_poll() does, and
 * what it reads is written and acknowledged in one transaction, so each event
 * becomes a delivery once.  The caller delivers them (courier.c).
 *
 * A filter is others' expression: one batch may take so long; after that the
 * event alone, and one whose data cannot be held against it in time is a dead
 * letter, which says so.
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

/* Events that are taken at once, and how long that may take, ms. */
#define BATCH 256
#define LONGEST 1000

/* Between two steps, and after an error, ms. */
#define PAUSE 4
#define AFTER_FAILURE 1000

typedef struct Subscription
{
	char *name;
	char *filter; /* NULL: none */
	bool ordered;
	int want; /* less after one batch took too long */
} Subscription;

static MemoryContext context; /* of the subscriptions */
static Subscription *subscriptions;
static int nsubscriptions;
static bool stale = true; /* they are to be read again */
static Oid relation;      /* of them */
static TimestampTz due = DT_NOEND;
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

	if (stale || nsubscriptions > 0)
		due = Min(due, Max(now, soonest));
}

TimestampTz
prom_distribution_due(void)
{
	if (prom_consumer_lock_is_freed())
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

static void
read_subscriptions(void)
{
	MemoryContext before;

	begin();
	relation = prom_delivery_relation();
	stale = false;
	if (SPI_execute("SELECT s.name, s.ordered, s.filter::text"
					" FROM prometheus._subscription s"
					" WHERE s.disabled_at IS NULL ORDER BY s.name",
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._subscription");
	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext,
										"prometheus subscriptions",
										ALLOCSET_SMALL_SIZES);
	nsubscriptions = 0;
	MemoryContextReset(context);
	before = MemoryContextSwitchTo(context);
	subscriptions = palloc(Max(SPI_processed, 1) * sizeof(Subscription));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Subscription *one = &subscriptions[nsubscriptions++];

		one->name = pstrdup(prom_row_text(i, 1));
		one->ordered = prom_row_bool(i, 2);
		one->filter = prom_row_text_or_null(i, 3);
		one->want = BATCH;
	}
	MemoryContextSwitchTo(before);
	end();
	tell_caller();
}

#define ADD_HEAD                                                             \
	"INSERT INTO prometheus._delivery AS d (delivery_id, event_id, task_id," \
	" created_at, next_at, attempts, strikes, subscription, key, status,"    \
	" ended_at, fingerprint, error)"                                         \
	" SELECT nextval('prometheus._fact_id'), e.event_id, e.task_id, $4, $4," \
	" 0, 0, $1, CASE WHEN $5 THEN coalesce('subject ' || e.subject,"         \
	" 'task ' || e.task_id) END, "
#define ADD_TAIL                                                   \
	" ON CONFLICT (subscription, event_id) DO UPDATE SET"          \
	" status = excluded.status, attempts = 0, strikes = 0,"        \
	" key = excluded.key, created_at = $4, next_at = $4,"          \
	" ended_at = excluded.ended_at,"                               \
	" started_at = NULL, duration_ms = NULL, http_status = NULL,"  \
	" fingerprint = excluded.fingerprint, error = excluded.error," \
	" result = NULL WHERE d.status <> 'waiting'"

/* A replay gives what was delivered already: then it is delivered again. */
static PromStatement add_statement = {
	ADD_HEAD "'waiting', NULL, NULL, NULL FROM prometheus._events($2, $3) e"
			 " WHERE prometheus._passes(e.data, $6::jsonpath)" ADD_TAIL,
	6,
	{TEXTOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZOID, BOOLOID, TEXTOID},
	NULL,
};

static PromStatement give_up_statement = {
	ADD_HEAD "'dead', $4, 'filter', $6 FROM prometheus._events($2, $3) e" ADD_TAIL,
	6,
	{TEXTOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZOID, BOOLOID, TEXTOID},
	NULL,
};

/* Write the deliveries of some events. */
static void
add(const Subscription *subscription, const PromEntry *entries, int n)
{
	bool gives_up = subscription->want == 0;
	Datum values[6];

	values[0] = CStringGetTextDatum(subscription->name);
	prom_window_arrays(entries, n, &values[1], &values[2]);
	values[3] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[4] = BoolGetDatum(subscription->ordered);
	values[5] = (Datum) 0;
	if (gives_up)
		values[5] = CStringGetTextDatum(
			"its data could not be held against the filter, or not in time");
	else if (subscription->filter != NULL)
		values[5] = CStringGetTextDatum(subscription->filter);
	if (subscription->filter != NULL && !gives_up)
		enable_timeout_after(STATEMENT_TIMEOUT, LONGEST);
	prom_statement_run(gives_up ? &give_up_statement : &add_statement, values,
					   values[5] == (Datum) 0 ? "     n" : NULL, false);
	disable_timeout(STATEMENT_TIMEOUT, false);
}

/* Take what is new for one; true: there is more. */
static bool
take(const Subscription *subscription, bool *found)
{
	PromEntry *entries;
	bool more = false;
	int n;

	begin();
	n = prom_consumer_take(subscription->name, Max(subscription->want, 1),
						   &entries, &more);
	if (n > 0)
		add(subscription, entries, n);
	else if (n == PROM_CONSUMER_ORPHAN)
		prom_delivery_disable(subscription->name,
							  "its owner is not the role that it was");
	end();
	*found = *found || n > 0;
	return more;
}

/* The same; an error is only this one's. */
static bool
try_take(Subscription *subscription, bool *found)
{
	MemoryContext before = CurrentMemoryContext;
	volatile bool more = true;

	PG_TRY();
	{
		more = take(subscription, found);
		if (subscription->want < BATCH)
			subscription->want = subscription->want == 0 ? 1 : BATCH;
	}
	PG_CATCH();
	{
		int code = geterrcode();
		/* One event's data and the filter: it is found, and given up. */
		bool isolates = subscription->filter != NULL &&
						subscription->want > 0 &&
						(code == ERRCODE_QUERY_CANCELED ||
						 !prom_xact_is_transient(code));

		disable_timeout(STATEMENT_TIMEOUT, false);
		QueryCancelPending = false;
		MemoryContextSwitchTo(before);
		prom_xact_abort();
		subscription->want = isolates && subscription->want > 1 ? 1 : 0;
		more = isolates;
		if (!isolates)
		{
			subscription->want = BATCH;
			due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
											  AFTER_FAILURE);
		}
	}
	PG_END_TRY();
	MemoryContextSwitchTo(before);
	return more;
}

/* Is it time to look for what came without a hint?  Else nothing is run. */
static bool
nothing_ended(void)
{
	uint64 now = prom_xact_completion_count();
	bool same = due == DT_NOEND && !stale && now == transactions;

	last_look = GetCurrentTimestamp();
	transactions = now;
	return same;
}

void
prom_distribution_step(void)
{
	bool found = false;
	bool more = false;

	if (prom_consumer_lock_freed())
		due = GetCurrentTimestamp();
	if (nothing_ended())
		return;
	due = DT_NOEND;
	last_step = GetCurrentTimestamp();
	if (stale)
		read_subscriptions();
	for (int i = 0; i < nsubscriptions && !stale; i++)
		more = try_take(&subscriptions[i], &found) || more;
	if (found)
		tell_caller();
	if (more || stale)
		due = Min(due, GetCurrentTimestamp());
}
