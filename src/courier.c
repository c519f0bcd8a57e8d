/*
 * courier.c
 *	  Delivers events to functions and webhooks, for the caller.
 *
 * What waits is in _delivery, where the publisher puts it (distribution.c).
 * The caller reads what is due of each subscription, as much as its gate has
 * room for, and gives it to an executor or sends it.  What is under way is in
 * its memory only: a caller that ends leaves it waiting, and the next one
 * delivers it, perhaps again; a function's effects and the record of it are one
 * transaction, so that counts once.
 *
 * Gates that close or open, also those of models, are told of as events in its
 * turn, too.
 *
 * A gate that is closed lets nothing begin, so nothing uses up an attempt.
 * Subscriptions wait for each other nowhere: each has its own gate, and
 * functions have executors of their own (job.c).
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

#include "courier.h"
#include "delivery.h"
#include "encoding.h"
#include "fault.h"
#include "fetch.h"
#include "gate.h"
#include "role.h"
#include "wakeup.h"
#include "webhook.h"
#include "worker.h"
#include "xact.h"

/* Under way for one subscription; what is read ahead; slower than this, ms. */
#define MOST_FUNCTIONS 1
#define MOST_WEBHOOKS 8
#define READ_AHEAD 32
#define SLOW 1000

/* After what cannot be written or read, ms; and what it may wait for a lock. */
#define AGAIN 1000
#define LOCK_TIMEOUT_OF_TURN "100ms"

typedef struct Subscription
{
	dlist_node link; /* among all */
	char *name;
	char *owner;
	Oid owner_oid;
	char *url; /* NULL: a function */
	char *secret;
	int64 timeout;
	int max_attempts;
	bool is_there;      /* it was read the last time */
	PromGate *gate;     /* NULL: there are too many */
	dlist_head waiting; /* read ahead */
	int nwaiting;
	int in_flight;
	bool look;        /* there may be more that is due */
	TimestampTz next; /* and then there is; DT_NOEND: not known of any */
	PromJobOwner jobs;
} Subscription;

typedef struct Delivery
{
	dlist_node link; /* waiting, under way, or ended */
	Subscription *of;
	PromDelivery record;
	uint32 generation; /* of the gate */
	char *body;        /* of a webhook that is about to be sent */
	PromWebhookHeaders headers;
	const char *problem; /* it cannot be sent, static or in the turn */
	PromFetch *fetch;
} Delivery;

static dlist_head subscriptions = DLIST_STATIC_INIT(subscriptions);
static dlist_head underway = DLIST_STATIC_INIT(underway);
static dlist_head answered = DLIST_STATIC_INIT(answered); /* fetches */
static dlist_head ended = DLIST_STATIC_INIT(ended);       /* not recorded yet */

/* On the network, or not recorded yet. */
static int nwebhooks;

/* Subscriptions are to be read again; and not before this, after a failure. */
static bool stale = true;
static TimestampTz not_before;

static Oid relation; /* _subscription; InvalidOid: not known yet */

static void
relation_changed(Datum arg, Oid relid)
{
	if (relid == relation || relid == InvalidOid)
		stale = true;
}

void
prom_courier_begin(void)
{
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	pg_atomic_write_u32(&prom_my_database->deliver, 1);
}

int
prom_courier_in_flight(void)
{
	return nwebhooks;
}


/* Subscriptions. */

static PromStatement subscriptions_statement = {
	"SELECT s.name, s.owner, s.owner_oid, s.url, s.secret, s.timeout_ms,"
	" s.max_attempts, s.breaker_failures FROM prometheus._subscription s"
	" WHERE s.disabled_at IS NULL",
	0,
	{0},
	NULL,
};

static Subscription *
find_subscription(const char *name)
{
	dlist_iter iter;

	dlist_foreach(iter, &subscriptions)
	{
		Subscription *one = dlist_container(Subscription, link, iter.cur);

		if (strcmp(one->name, name) == 0)
			return one;
	}
	return NULL;
}

static void
free_texts(Subscription *subscription)
{
	pfree(subscription->owner);
	if (subscription->url != NULL)
		pfree(subscription->url);
	if (subscription->secret != NULL)
		pfree(subscription->secret);
}

static void
forget_waiting(Subscription *subscription)
{
	while (!dlist_is_empty(&subscription->waiting))
		pfree(dlist_container(Delivery, link,
							  dlist_pop_head_node(&subscription->waiting)));
	subscription->nwaiting = 0;
	subscription->look = true;
}

/* One that is not there any more goes when nothing of it is under way. */
static void
free_if_gone(Subscription *subscription)
{
	if (subscription->is_there || subscription->in_flight > 0)
		return;
	forget_waiting(subscription);
	dlist_delete(&subscription->link);
	free_texts(subscription);
	pfree(subscription->name);
	pfree(subscription);
}

static char *
keep_text(const char *text)
{
	return text == NULL ? NULL : MemoryContextStrdup(TopMemoryContext, text);
}

/* A row of subscriptions_statement. */
static void
take_subscription(uint64 row)
{
	char *name = prom_row_text(row, 1);
	Subscription *one = find_subscription(name);

	if (one == NULL)
	{
		one = MemoryContextAllocZero(TopMemoryContext, sizeof(Subscription));
		one->name = keep_text(name);
		one->jobs.delivers = true;
		one->jobs.deadline = DT_NOEND;
		dlist_push_tail(&subscriptions, &one->link);
	}
	else
		free_texts(one);
	one->owner = keep_text(prom_row_text(row, 2));
	one->owner_oid = prom_row_oid(row, 3);
	one->url = keep_text(prom_row_text_or_null(row, 4));
	one->secret = keep_text(prom_row_text_or_null(row, 5));
	one->timeout = prom_row_int64(row, 6);
	one->max_attempts = prom_row_int32(row, 7);
	one->is_there = true;
	one->next = DT_NOEND;
	forget_waiting(one);
	one->gate = prom_gate_make(prom_my_database, PROM_GATE_SUBSCRIPTION, name);
	if (one->gate != NULL)
		prom_gate_set_limits(prom_my_database, one->gate,
							 one->url == NULL ? MOST_FUNCTIONS : MOST_WEBHOOKS,
							 prom_row_int32(row, 8));
	else
		ereport(WARNING,
				(errmsg("nothing can be delivered to subscription \"%s\"", name),
				 errdetail("There are %d gates already.", PROM_MAX_GATES)));
}

static void
read_subscriptions(void)
{
	dlist_mutable_iter iter;
	SPITupleTable *rows;

	relation = prom_delivery_relation();
	stale = false;
	dlist_foreach_modify(iter, &subscriptions)
	{
		dlist_container(Subscription, link, iter.cur)->is_there = false;
	}
	prom_statement_run(&subscriptions_statement, NULL, NULL, false);
	rows = SPI_tuptable;
	for (uint64 i = 0; i < rows->numvals; i++)
		take_subscription(i);
	SPI_freetuptable(rows);
	dlist_foreach_modify(iter, &subscriptions)
	{
		Subscription *one = dlist_container(Subscription, link, iter.cur);

		if (one->is_there)
			continue;
		prom_jobs_drop(&one->jobs);
		free_if_gone(one);
	}
}


/* What is due. */

static PromStatement due_statement = {
	"SELECT d.delivery_id, d.event_id, d.task_id, d.attempts"
	" FROM prometheus._delivery d"
	" WHERE d.subscription = $1 AND d.status = 'waiting' AND d.next_at <= $2"
	" AND d.delivery_id <> ALL ($3)"
	" AND (d.key IS NULL OR NOT EXISTS (SELECT FROM prometheus._delivery b"
	"  WHERE b.subscription = d.subscription AND b.status = 'waiting'"
	"  AND b.key = d.key AND b.delivery_id < d.delivery_id))"
	" ORDER BY d.next_at, d.delivery_id LIMIT $4",
	4,
	{TEXTOID, TIMESTAMPTZOID, INT8ARRAYOID, INT8OID},
	NULL,
};

static PromStatement next_statement = {
	"SELECT d.next_at FROM prometheus._delivery d"
	" WHERE d.subscription = $1 AND d.status = 'waiting' AND d.next_at > $2"
	" ORDER BY d.next_at LIMIT 1",
	2,
	{TEXTOID, TIMESTAMPTZOID},
	NULL,
};

/* How many more may begin. */
static int
room_of(const Subscription *subscription, TimestampTz now)
{
	if (!subscription->is_there || subscription->gate == NULL ||
		prom_my_database->gates[0].paused)
		return 0;
	return (int) Min(prom_gate_room(subscription->gate, 0, now),
					 MOST_WEBHOOKS);
}

static bool
has_due(const Subscription *subscription, TimestampTz now)
{
	return subscription->nwaiting > 0 || subscription->look ||
		   subscription->next <= now;
}

/* The ids of what is under way for it, or not recorded yet. */
static int
list_ids(const Subscription *subscription, dlist_head *list, int64 *ids, int n)
{
	dlist_iter iter;

	dlist_foreach(iter, list)
	{
		Delivery *one = dlist_container(Delivery, link, iter.cur);

		if (one->of == subscription)
			ids[n++] = one->record.delivery_id;
	}
	return n;
}

static void
read_due(Subscription *subscription, TimestampTz now)
{
	int64 *ids = palloc((subscription->in_flight + 1) * sizeof(int64));
	int n = list_ids(subscription, &underway, ids, 0);
	Datum values[4];

	n = list_ids(subscription, &ended, ids, n);
	values[0] = CStringGetTextDatum(subscription->name);
	values[1] = TimestampTzGetDatum(now);
	values[2] = PointerGetDatum(prom_int8_array(ids, n));
	values[3] = Int64GetDatum(READ_AHEAD);
	prom_statement_run(&due_statement, values, NULL, false);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Delivery *one = MemoryContextAllocZero(TopMemoryContext,
											   sizeof(Delivery));

		one->of = subscription;
		one->record.delivery_id = prom_row_int64(i, 1);
		one->record.event_id = prom_row_int64(i, 2);
		one->record.task_id = prom_row_int64_or(i, 3, 0);
		one->record.attempts = prom_row_int32(i, 4);
		one->record.max_attempts = subscription->max_attempts;
		one->record.is_webhook = subscription->url != NULL;
		dlist_push_tail(&subscription->waiting, &one->link);
		subscription->nwaiting++;
	}
	subscription->look = SPI_processed == READ_AHEAD;
	SPI_freetuptable(SPI_tuptable);
	prom_statement_run(&next_statement, values, NULL, false);
	subscription->next = SPI_processed == 0 ? DT_NOEND : prom_row_time(0, 1);
	SPI_freetuptable(SPI_tuptable);
}

static PromStatement body_statement = {
	"SELECT prometheus._webhook_body(e)"
	" FROM prometheus._events(ARRAY[$1], ARRAY[$2]) e",
	2,
	{INT8OID, INT8OID},
	NULL,
};

/* Make what a webhook is sent; or its problem says why it cannot be. */
static void
prepare_webhook(Delivery *delivery, TimestampTz now)
{
	const Subscription *subscription = delivery->of;
	Datum values[2] = {Int64GetDatum(delivery->record.event_id),
					   Int64GetDatum(delivery->record.task_id)};
	char error[256];

	prom_statement_run(&body_statement, values,
					   delivery->record.task_id == 0 ? " n" : NULL, false);
	if (SPI_processed == 0)
	{
		delivery->problem = "the event is not kept any more";
		return;
	}
	delivery->body = (char *) prom_encoding_words_to_utf8(prom_row_text(0, 1));
	if (!prom_webhook_sign(&delivery->headers, subscription->secret,
						   subscription->name, delivery->record.event_id, now,
						   delivery->body, error, sizeof(error)))
		delivery->problem = pstrdup(error);
}

/* Take from one what may begin now, into a list. */
static void
take_due(Subscription *subscription, dlist_head *starting, TimestampTz now)
{
	int room = room_of(subscription, now);

	if (room == 0 || !has_due(subscription, now))
		return;
	if (subscription->url != NULL &&
		!prom_role_names_admin(subscription->owner, subscription->owner_oid))
	{
		prom_delivery_disable(subscription->name,
							  "its owner is no administrator any more");
		return;
	}
	if (subscription->nwaiting == 0)
		read_due(subscription, now);
	for (; room > 0 && subscription->nwaiting > 0; room--)
	{
		Delivery *one = dlist_container(
			Delivery, link, dlist_pop_head_node(&subscription->waiting));

		subscription->nwaiting--;
		dlist_push_tail(starting, &one->link);
		one->record.started_at = now;
		if (subscription->url != NULL)
			prepare_webhook(one, now);
	}
}


/* The end of one. */

/* It is under way no more: what is next is read again. */
static void
end_delivery(Delivery *delivery)
{
	Subscription *subscription = delivery->of;

	if (delivery->fetch != NULL)
		prom_fetch_free(delivery->fetch);
	if (delivery->problem != NULL)
		pfree((char *) delivery->problem);
	dlist_delete(&delivery->link);
	pfree(delivery);
	subscription->in_flight--;
	subscription->look = true;
	free_if_gone(subscription);
}

void
prom_courier_take_job(const PromJobEnd *end, TimestampTz now)
{
	Subscription *subscription =
		(Subscription *) ((char *) end->owner - offsetof(Subscription, jobs));
	PromGateWord word = PROM_GATE_SILENT;
	dlist_iter iter;

	if (end->failed || end->delivered == PROM_DELIVERED_BADLY)
		word = PROM_GATE_BAD;
	else if (end->delivered == PROM_DELIVERED_WELL)
		word = PROM_GATE_GOOD;
	dlist_foreach(iter, &underway)
	{
		Delivery *one = dlist_container(Delivery, link, iter.cur);

		if (one->record.delivery_id != end->delivery_id)
			continue;
		prom_gate_delivered(prom_my_database, subscription->gate,
							one->generation, word, -1, now);
		subscription->jobs.is_slow = TimestampDifferenceExceeds(
			one->record.started_at, now, SLOW);
		end_delivery(one);
		break;
	}
}

/* What a response means: for the delivery, and for the gate. */
static PromGateWord
read_answer(const Delivery *delivery, PromDeliveryEnd *end)
{
	const PromFetchResult *result;

	end->retry_after = -1;
	if (delivery->fetch == NULL)
	{
		end->error = delivery->problem;
		end->kind = "unsent";
		end->is_last = delivery->body == NULL;
		return end->is_last ? PROM_GATE_SILENT : PROM_GATE_BAD;
	}
	result = prom_fetch_result(delivery->fetch);
	end->http_status = result->http_status;
	if (result->error == NULL)
	{
		end->result = *result->text == '\0'
						  ? NULL
						  : prom_encoding_from_utf8(result->text);
		return PROM_GATE_GOOD;
	}
	end->error = prom_encoding_from_utf8(result->error);
	end->kind = psprintf("%d", result->http_status);
	end->retry_after = result->retry_after;
	switch (result->http_status)
	{
		case 410: /* it waits for a person */
			end->is_free = true;
			return PROM_GATE_SILENT;
		case 429:
			end->is_free = true;
			return PROM_GATE_LATER;
		case 503:
			return result->retry_after > 0 ? PROM_GATE_LATER : PROM_GATE_BAD;
		case 400:
		case 413:
		case 422: /* it is this event that it does not like */
			return PROM_GATE_REFUSED;
	}
	return PROM_GATE_BAD;
}

static void
record_answer(const Delivery *delivery, TimestampTz now)
{
	PromDeliveryEnd end = {0};

	(void) read_answer(delivery, &end);
	(void) prom_delivery_record(&delivery->record, &end, now);
	if (end.http_status == 410)
		prom_delivery_disable(delivery->of->name,
							  "its endpoint answered HTTP 410: it is gone");
}

/* After the commit. */
static void
end_answered(Delivery *delivery, TimestampTz now)
{
	PromDeliveryEnd end = {0};
	PromGateWord word = read_answer(delivery, &end);

	if (delivery->fetch != NULL)
		nwebhooks--;
	prom_gate_delivered(prom_my_database, delivery->of->gate,
						delivery->generation, word, end.retry_after, now);
	end_delivery(delivery);
}


/* The beginning of one. */

static void
send_webhook(PromHttp *http, Delivery *delivery)
{
	PromFetchSpec spec = {.method = "POST",
						  .url = delivery->of->url,
						  .body = delivery->body,
						  .headers = delivery->headers.list,
						  .timeout = delivery->of->timeout,
						  .deadline = delivery->of->timeout,
						  .max_result = PROM_DELIVERY_TEXT,
						  .done = &answered};

	PROM_FAULT("deliver-before-send");
	delivery->fetch = prom_fetch_start(http, &spec, delivery);
	delivery->body = ""; /* that of the turn goes with it */
	nwebhooks++;
	PROM_FAULT("deliver-after-send");
}

static void
start(PromHttp *http, Delivery *delivery)
{
	Subscription *subscription = delivery->of;
	PromJobSpec job = {.kind = PROM_JOB_DELIVER,
					   .delivery_id = delivery->record.delivery_id};

	subscription->in_flight++;
	delivery->generation = prom_gate_began(subscription->gate);
	if (delivery->problem != NULL)
	{
		delivery->problem = keep_text(delivery->problem);
		dlist_push_tail(&ended, &delivery->link);
		SetLatch(MyLatch);
		return;
	}
	dlist_push_tail(&underway, &delivery->link);
	if (subscription->url != NULL)
		send_webhook(http, delivery);
	else
		prom_job_add(&subscription->jobs, &job);
}


/* A turn. */

static void
turn(dlist_head *starting, TimestampTz now)
{
	MemoryContext context = CurrentMemoryContext;
	dlist_mutable_iter iter;

	if (!prom_worker_xact_begin("delivering events"))
		proc_exit(0);
	/* All tasks wait for this turn: what a session has locked waits instead. */
	(void) set_config_option("lock_timeout", LOCK_TIMEOUT_OF_TURN, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	SPI_connect();
	/* What is taken is sent after the commit. */
	MemoryContextSwitchTo(context);
	dlist_foreach_modify(iter, &ended)
	{
		record_answer(dlist_container(Delivery, link, iter.cur), now);
	}
	prom_gate_write_news(prom_my_database);
	if (stale)
		read_subscriptions();
	dlist_foreach_modify(iter, &subscriptions)
	{
		take_due(dlist_container(Subscription, link, iter.cur), starting, now);
	}
	SPI_finish();
	PROM_FAULT("deliver-before-commit");
	prom_xact_commit();
	PROM_FAULT("deliver-after-commit");
}

/*
 * Nothing of it was begun, or recorded.  What can never be recorded is let go:
 * it is delivered again.
 */
static void
take_back(dlist_head *starting, bool is_transient)
{
	dlist_iter iter;

	while (!is_transient && !dlist_is_empty(&ended))
	{
		Delivery *one = dlist_head_element(Delivery, link, &ended);

		nwebhooks -= one->fetch != NULL ? 1 : 0;
		prom_gate_delivered(prom_my_database, one->of->gate, one->generation,
							PROM_GATE_SILENT, -1, not_before);
		end_delivery(one);
	}
	while (!dlist_is_empty(starting))
		pfree(dlist_container(Delivery, link, dlist_pop_head_node(starting)));
	dlist_foreach(iter, &subscriptions)
	{
		dlist_container(Subscription, link, iter.cur)->look = true;
	}
	stale = true;
}

static bool
try_turn(dlist_head *starting, bool *is_transient, TimestampTz now)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool done = false;

	PG_TRY();
	{
		turn(starting, now);
		done = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		*is_transient = prom_xact_is_transient(geterrcode());
		prom_xact_abort();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return done;
}

static bool
anything_due(TimestampTz now)
{
	dlist_iter iter;

	if (!dlist_is_empty(&ended) || prom_gate_has_news())
		return true;
	dlist_foreach(iter, &subscriptions)
	{
		Subscription *one = dlist_container(Subscription, link, iter.cur);

		if (room_of(one, now) > 0 && has_due(one, now))
			return true;
	}
	return false;
}

void
prom_courier_drive(PromHttp *http, TimestampTz now)
{
	dlist_head starting = DLIST_STATIC_INIT(starting);
	bool told = pg_atomic_read_u32(&prom_my_database->deliver) != 0;
	bool is_transient = true;
	bool tells;
	Delivery *one;

	while ((one = prom_fetch_next_of(&answered)) != NULL)
	{
		dlist_delete(&one->link);
		dlist_push_tail(&ended, &one->link);
	}
	if (not_before > now || (!told && !anything_due(now)))
		return;
	if (pg_atomic_exchange_u32(&prom_my_database->deliver, 0) != 0)
	{
		dlist_iter iter;

		dlist_foreach(iter, &subscriptions)
		{
			dlist_container(Subscription, link, iter.cur)->look = true;
		}
	}
	tells = prom_gate_has_news();
	if (!try_turn(&starting, &is_transient, now))
	{
		not_before = TimestampTzPlusMilliseconds(now, AGAIN);
		take_back(&starting, is_transient);
		return;
	}
	if (prom_worker_should_end())
		proc_exit(0);
	if (tells)
	{
		prom_gate_told_news(prom_my_database);
		prom_wakeup_changed();
	}
	while (!dlist_is_empty(&ended))
		end_answered(dlist_head_element(Delivery, link, &ended), now);
	while (!dlist_is_empty(&starting))
		start(http, dlist_container(Delivery, link,
									dlist_pop_head_node(&starting)));
}

TimestampTz
prom_courier_next_moment(void)
{
	TimestampTz next = DT_NOEND;
	dlist_iter iter;

	dlist_foreach(iter, &subscriptions)
	{
		Subscription *one = dlist_container(Subscription, link, iter.cur);
		TimestampTz due = one->look || one->nwaiting > 0 ? not_before
														 : one->next;

		if (!one->is_there || one->gate == NULL || one->gate->paused ||
			prom_my_database->gates[0].paused)
			continue;
		/* What is full is told of by the end of one. */
		if (one->in_flight > 0 &&
			prom_gate_room(one->gate, 0, DT_NOEND) == 0)
			continue;
		next = Min(next, Max(due, prom_gate_opens_at(one->gate)));
	}
	if (!dlist_is_empty(&ended) || prom_gate_has_news())
		next = Min(next, not_before);
	return Max(next, not_before);
}
