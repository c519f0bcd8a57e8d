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
 * functions have executors of their own (job.c).  What is written and read for
 * one is a subtransaction: what fails there, or waits for a lock of somebody,
 * is tried again later, and nobody else notices.
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
#include "guilt.h"
#include "receiver.h"
#include "role.h"
#include "trace.h"
#include "wakeup.h"
#include "webhook.h"
#include "worker.h"
#include "xact.h"

/* A function that took more than this is slow, ms. */
#define SLOW 1000

/* After what cannot be written or read, ms; and what it may wait for a lock. */
#define AGAIN 1000
#define LOCK_TIMEOUT_OF_TURN "20ms"

typedef struct Delivery
{
	dlist_node link; /* waiting, under way, or ended */
	PromReceiver *of;
	PromDelivery record;
	uint32 generation; /* of the gate */
	char *body;        /* of a webhook that is about to be sent */
	PromWebhookHeaders headers;
	bool has_trace; /* a header is in trace */
	char trace[PROM_TRACE_HEADER_SIZE];
	const char *problem; /* it cannot be sent, static or in the turn */
	PromFetch *fetch;
	bool is_recorded; /* what came of it, by this turn */
} Delivery;

/* What is done for one subscription, or one delivery, on its own. */
typedef struct Act
{
	PromReceiver *subscription;
	Delivery *delivery;
	TimestampTz now;
	dlist_head taken; /* what may begin */
	bool is_brief;    /* what came of it cannot be recorded in full */
} Act;

static dlist_head underway = DLIST_STATIC_INIT(underway);
static dlist_head answered = DLIST_STATIC_INIT(answered); /* fetches */
static dlist_head ended = DLIST_STATIC_INIT(ended);       /* not recorded yet */

/* On the network, or not recorded yet. */
static int nwebhooks;

/* After a turn that failed. */
static TimestampTz not_before;

void
prom_courier_begin(void)
{
	prom_receivers_begin();
	pg_atomic_write_u32(&prom_my_database->deliver, 1);
}

int
prom_courier_in_flight(void)
{
	return nwebhooks;
}


/* What is due. */

/* How many more may begin. */
static int
room_of(const PromReceiver *subscription, TimestampTz now)
{
	if (!subscription->is_there || subscription->gate == NULL ||
		prom_my_database->gates[0].paused)
		return 0;
	return (int) Min(prom_gate_room(subscription->gate, 0, now),
					 PROM_RECEIVER_MOST);
}

static bool
has_due(const PromReceiver *subscription, TimestampTz now)
{
	return subscription->not_before <= now &&
		   (subscription->nwaiting > 0 || subscription->look ||
			subscription->next <= now);
}

/* Whose bytes crash the server, if any do. */
static void
blame(void *delivery)
{
	if (delivery == NULL)
		prom_guilt_clear();
	else
		prom_guilt_name(-((Delivery *) delivery)->record.delivery_id, 0);
}

/* The ids of what is under way for it, or not recorded yet. */
static int
list_ids(const PromReceiver *subscription, dlist_head *list, int64 *ids, int n)
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
wait_in_memory(PromReceiver *subscription, const PromDelivery *delivery)
{
	Delivery *one = MemoryContextAllocZero(TopMemoryContext, sizeof(Delivery));

	one->of = subscription;
	one->record = *delivery;
	one->record.max_attempts = subscription->max_attempts;
	one->record.is_webhook = subscription->url != NULL;
	dlist_push_tail(&subscription->waiting, &one->link);
	subscription->nwaiting++;
}

static void
read_due(PromReceiver *subscription, TimestampTz now)
{
	int64 *ids = palloc((subscription->in_flight + 1) * sizeof(int64));
	int n = list_ids(subscription, &underway, ids, 0);
	PromBacklogPart *part = palloc(sizeof(PromBacklogPart));

	n = list_ids(subscription, &ended, ids, n);
	/* What is told while its keys are gone through counts for the next time. */
	if (subscription->backlog.key == NULL)
		subscription->look = false;
	prom_backlog_read(&subscription->backlog, subscription->name, ids, n, now,
					  part);
	for (int i = 0; i < part->n; i++)
		wait_in_memory(subscription, &part->deliveries[i]);
	subscription->look |= part->more;
	subscription->next = part->next;
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
prepare_webhook(void *arg)
{
	Act *act = arg;
	Delivery *delivery = act->delivery;
	const PromReceiver *subscription = delivery->of;
	Datum values[2] = {Int64GetDatum(delivery->record.event_id),
					   Int64GetDatum(delivery->record.task_id)};
	PromTrace trace;
	char error[256];

	PROM_FAULT("deliver-in-prepare");
	prom_statement_run(&body_statement, values,
					   delivery->record.task_id == 0 ? " n" : NULL, false);
	if (SPI_processed == 0)
	{
		delivery->problem = "the event is not kept any more";
		return;
	}
	delivery->body = (char *) prom_encoding_words_to_utf8(prom_row_text(0, 1));
	if (!prom_webhook_sign(&delivery->headers, subscription->secret,
						   subscription->name, delivery->record.event_id,
						   act->now, delivery->body, error, sizeof(error)))
		delivery->problem = pstrdup(error);
	delivery->has_trace = delivery->record.task_id != 0 &&
						  prom_trace_of_task(delivery->record.task_id, &trace);
	if (delivery->has_trace)
		prom_trace_header(delivery->trace, &trace,
						  delivery->record.delivery_id);
}

/* The same; an error is only this one's. */
static void
try_to_prepare(Delivery *delivery, TimestampTz now)
{
	Act act = {.delivery = delivery, .now = now};
	ErrorData *failure;

	blame(delivery);
	failure = prom_xact_try_aloud(prepare_webhook, &act);
	if (failure != NULL)
	{
		delivery->body = ""; /* it is tried again */
		delivery->problem = failure->message;
	}
	blame(NULL);
}

/* Take from one what may begin now. */
static void
take_due(void *arg)
{
	Act *act = arg;
	PromReceiver *subscription = act->subscription;
	int room = room_of(subscription, act->now);

	if (subscription->url != NULL &&
		!prom_role_names_admin(subscription->owner, subscription->owner_oid))
	{
		prom_delivery_disable(subscription->name,
							  "its owner is no administrator any more");
		return;
	}
	if (subscription->nwaiting == 0)
		read_due(subscription, act->now);
	for (; room > 0 && subscription->nwaiting > 0; room--)
	{
		Delivery *one = dlist_container(
			Delivery, link, dlist_pop_head_node(&subscription->waiting));

		subscription->nwaiting--;
		dlist_push_tail(&act->taken, &one->link);
		one->record.started_at = act->now;
		if (subscription->url != NULL)
			try_to_prepare(one, act->now);
	}
}

static void
free_all(dlist_head *deliveries)
{
	while (!dlist_is_empty(deliveries))
		pfree(dlist_container(Delivery, link, dlist_pop_head_node(deliveries)));
}

/* The same, into a list; what fails is read again after a while. */
static void
try_to_take(PromReceiver *subscription, dlist_head *starting, TimestampTz now)
{
	Act act = {.subscription = subscription, .now = now};

	if (!has_due(subscription, now) || room_of(subscription, now) == 0)
		return;
	dlist_init(&act.taken);
	if (prom_xact_try_aloud(take_due, &act) != NULL)
	{
		free_all(&act.taken);
		prom_receiver_forget_waiting(subscription);
		subscription->not_before = TimestampTzPlusMilliseconds(now, AGAIN);
	}
	while (!dlist_is_empty(&act.taken))
		dlist_push_tail(starting, dlist_pop_head_node(&act.taken));
}


/* The end of one. */

/* It is under way no more: what is next is read again. */
static void
end_delivery(Delivery *delivery)
{
	PromReceiver *subscription = delivery->of;

	if (delivery->fetch != NULL)
		prom_fetch_free(delivery->fetch);
	if (delivery->problem != NULL)
		pfree((char *) delivery->problem);
	dlist_delete(&delivery->link);
	pfree(delivery);
	prom_receiver_left(subscription);
}

void
prom_courier_take_job(const PromJobEnd *end, TimestampTz now)
{
	PromReceiver *subscription =
		(PromReceiver *) ((char *) end->owner - offsetof(PromReceiver, jobs));
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
		subscription->jobs.is_slow = end->run_ms > SLOW;
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
record_answer(void *arg)
{
	Act *act = arg;
	Delivery *delivery = act->delivery;
	PromDeliveryEnd end = {0};

	PROM_FAULT("deliver-in-record");
	(void) read_answer(delivery, &end);
	if (act->is_brief)
	{
		end.result = NULL;
		if (end.error != NULL)
			end.error = "it failed, and its error could not be recorded";
	}
	(void) prom_delivery_record(&delivery->record, &end, act->now);
	if (end.http_status == 410)
		prom_delivery_disable(delivery->of->name,
							  "its endpoint answered HTTP 410: it is gone");
}

/*
 * The same, if it is time; an error is only this one's.  What can never be
 * recorded is let go: it is delivered again.
 */
static void
try_to_record(Delivery *delivery, TimestampTz now)
{
	Act act = {.delivery = delivery, .now = now};
	ErrorData *failure;

	if (delivery->of->not_before > now)
		return;
	blame(delivery);
	failure = prom_xact_try_aloud(record_answer, &act);
	if (failure != NULL && !prom_xact_is_transient(failure->sqlerrcode))
	{
		act.is_brief = true;
		failure = prom_xact_try_aloud(record_answer, &act);
	}
	blame(NULL);
	delivery->is_recorded = failure == NULL ||
							!prom_xact_is_transient(failure->sqlerrcode);
	if (!delivery->is_recorded)
		delivery->of->not_before = TimestampTzPlusMilliseconds(now, AGAIN);
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
						  .trace = delivery->has_trace ? delivery->trace : NULL,
						  .timeout = delivery->of->timeout,
						  .deadline = delivery->of->timeout,
						  .max_result = PROM_DELIVERY_TEXT,
						  .done = &answered,
						  .blame = blame};

	PROM_FAULT("deliver-before-send");
	blame(delivery);
	delivery->fetch = prom_fetch_start(http, &spec, delivery);
	blame(NULL);
	delivery->body = ""; /* that of the turn goes with it */
	nwebhooks++;
	PROM_FAULT("deliver-after-send");
}

static void
start(PromHttp *http, Delivery *delivery)
{
	PromReceiver *subscription = delivery->of;
	PromJobSpec job = {.kind = PROM_JOB_DELIVER,
					   .delivery_id = delivery->record.delivery_id};

	subscription->in_flight++;
	delivery->generation = prom_gate_began(subscription->gate);
	if (delivery->problem != NULL)
	{
		delivery->problem = MemoryContextStrdup(TopMemoryContext,
												delivery->problem);
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
		try_to_record(dlist_container(Delivery, link, iter.cur), now);
	}
	prom_gate_write_news(prom_my_database);
	prom_receivers_read();
	dlist_foreach_modify(iter, &prom_receivers)
	{
		try_to_take(dlist_container(PromReceiver, link, iter.cur), starting,
					now);
	}
	SPI_finish();
	PROM_FAULT("deliver-before-commit");
	prom_xact_commit();
	PROM_FAULT("deliver-after-commit");
}

/* Nothing of it was begun, or recorded. */
static void
take_back(dlist_head *starting)
{
	dlist_iter iter;

	free_all(starting);
	dlist_foreach(iter, &ended)
	{
		dlist_container(Delivery, link, iter.cur)->is_recorded = false;
	}
	prom_receivers_forget();
}

static bool
try_turn(dlist_head *starting, TimestampTz now)
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
		prom_guilt_clear();
		prom_xact_abort();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return done;
}

/* When something is to be recorded. */
static TimestampTz
record_due(void)
{
	TimestampTz due = DT_NOEND;
	dlist_iter iter;

	dlist_foreach(iter, &ended)
	{
		due = Min(due,
				  dlist_container(Delivery, link, iter.cur)->of->not_before);
	}
	return due;
}

static bool
anything_due(TimestampTz now)
{
	dlist_iter iter;

	if (record_due() <= now || prom_gate_has_news())
		return true;
	dlist_foreach(iter, &prom_receivers)
	{
		PromReceiver *one = dlist_container(PromReceiver, link, iter.cur);

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
	bool tells;
	dlist_mutable_iter iter;
	Delivery *one;

	while ((one = prom_fetch_next_of(&answered)) != NULL)
	{
		dlist_delete(&one->link);
		dlist_push_tail(&ended, &one->link);
	}
	if (not_before > now || (!told && !anything_due(now)))
		return;
	if (pg_atomic_exchange_u32(&prom_my_database->deliver, 0) != 0)
		prom_receivers_look();
	tells = prom_gate_has_news();
	if (!try_turn(&starting, now))
	{
		not_before = TimestampTzPlusMilliseconds(now, AGAIN);
		take_back(&starting);
		return;
	}
	prom_receivers_committed();
	if (prom_worker_should_end())
		proc_exit(0);
	if (tells)
	{
		prom_gate_told_news(prom_my_database);
		prom_wakeup_changed();
	}
	dlist_foreach_modify(iter, &ended)
	{
		one = dlist_container(Delivery, link, iter.cur);
		if (one->is_recorded)
			end_answered(one, now);
	}
	while (!dlist_is_empty(&starting))
		start(http, dlist_container(Delivery, link,
									dlist_pop_head_node(&starting)));
}

TimestampTz
prom_courier_next_moment(void)
{
	TimestampTz next = DT_NOEND;
	dlist_iter iter;

	dlist_foreach(iter, &prom_receivers)
	{
		PromReceiver *one = dlist_container(PromReceiver, link, iter.cur);
		TimestampTz due = one->not_before;

		if (!one->look && one->nwaiting == 0)
			due = Max(due, one->next);
		if (!one->is_there || one->gate == NULL || one->gate->paused ||
			prom_my_database->gates[0].paused)
			continue;
		/* What is full is told of by the end of one. */
		if (one->in_flight > 0 &&
			prom_gate_room(one->gate, 0, DT_NOEND) == 0)
			continue;
		next = Min(next, Max(due, prom_gate_opens_at(one->gate)));
	}
	next = Min(next, record_due());
	if (prom_gate_has_news())
		next = Min(next, not_before);
	return Max(next, not_before);
}
