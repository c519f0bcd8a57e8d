/*
 * receiver.c
 *	  Keeps the subscriptions to which the caller delivers, and their gates.
 *
 * They are read again when they may have changed.  One that is gone or disabled
 * is freed when nothing of it is under way, and its gate is given back.  So is
 * what the caller before this one has left.  A gate that is made is paused if
 * the table says so; the scheduler is told to look, since that may have changed
 * between.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "delivery.h"
#include "receiver.h"
#include "worker.h"
#include "xact.h"

#define MOST_FUNCTIONS 1 /* under way for one */

dlist_head prom_receivers = DLIST_STATIC_INIT(prom_receivers);

static bool stale = true; /* they are to be read again */
static uint32 seen;       /* when that had been told so often */
static Oid relation;      /* _subscription; InvalidOid: not known yet */

/* What was paused may not be any more: the scheduler is to look. */
static bool has_new_gates;

static void
relation_changed(Datum arg, Oid relid)
{
	if (relid == relation || relid == InvalidOid)
		stale = true;
}

void
prom_receivers_begin(void)
{
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
}

static PromStatement subscriptions_statement = {
	"SELECT s.name, s.owner, s.owner_oid, s.url, s.secret, s.timeout_ms,"
	" s.max_attempts, s.breaker_failures, (SELECT g.paused_at"
	"  FROM prometheus._gate g WHERE g.target = 'subscription:' || s.name)"
	" FROM prometheus._subscription s WHERE s.disabled_at IS NULL",
	0,
	{0},
	NULL,
};

static PromReceiver *
find(const char *name)
{
	dlist_iter iter;

	dlist_foreach(iter, &prom_receivers)
	{
		PromReceiver *one = dlist_container(PromReceiver, link, iter.cur);

		if (strcmp(one->name, name) == 0)
			return one;
	}
	return NULL;
}

static void
free_texts(PromReceiver *receiver)
{
	if (receiver->owner != NULL)
		pfree(receiver->owner);
	if (receiver->url != NULL)
		pfree(receiver->url);
	if (receiver->secret != NULL)
		pfree(receiver->secret);
	/* What comes instead may not come: memory may be missing. */
	receiver->owner = receiver->url = receiver->secret = NULL;
}

void
prom_receiver_forget_waiting(PromReceiver *receiver)
{
	while (!dlist_is_empty(&receiver->waiting))
		pfree(dlist_pop_head_node(&receiver->waiting));
	receiver->nwaiting = 0;
	receiver->look = true;
	prom_backlog_forget(&receiver->backlog);
}

/* One that is not there any more goes when nothing of it is under way. */
static void
free_if_gone(PromReceiver *receiver)
{
	if (receiver->is_there || receiver->in_flight > 0)
		return;
	prom_receiver_forget_waiting(receiver);
	if (receiver->gate != NULL)
		prom_gate_give_back(prom_my_database, receiver->gate);
	dlist_delete(&receiver->link);
	free_texts(receiver);
	pfree(receiver->name);
	pfree(receiver);
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
	PromReceiver *one = find(name);

	if (one == NULL)
	{
		one = MemoryContextAllocZero(TopMemoryContext, sizeof(PromReceiver));
		one->name = keep_text(name);
		one->jobs.delivers = true;
		one->jobs.deadline = DT_NOEND;
		dlist_push_tail(&prom_receivers, &one->link);
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
	prom_receiver_forget_waiting(one);
	one->breaker_failures = prom_row_int32(row, 8);
	one->paused_at = prom_row_isnull(row, 9) ? 0 : prom_row_time(row, 9);
}

/* Give it its gate; a new one is paused if what was read says so. */
static void
take_gate(PromReceiver *one)
{
	if (one->gate == NULL)
	{
		one->gate = prom_gate_make(prom_my_database, PROM_GATE_SUBSCRIPTION,
								   one->name);
		if (one->gate == NULL)
		{
			ereport(WARNING,
					(errmsg("nothing can be delivered to subscription \"%s\"",
							one->name),
					 errdetail("There are gates before %d subscriptions, or %d in all, already.",
							   PROM_MAX_SUBSCRIPTIONS, PROM_MAX_GATES)));
			return;
		}
		prom_gate_set_paused(one->gate, one->paused_at);
		has_new_gates = true;
	}
	prom_gate_set_limits(prom_my_database, one->gate,
						 one->url == NULL ? MOST_FUNCTIONS : PROM_RECEIVER_MOST,
						 one->breaker_failures);
}

/* Those that the caller before this one has left. */
static void
give_back_gates(void)
{
	uint32 n = pg_atomic_read_u32(&prom_my_database->ngates);

	for (uint32 i = 0; i < n; i++)
	{
		PromGate *gate = &prom_my_database->gates[i];

		if (gate->kind == PROM_GATE_SUBSCRIPTION &&
			find(gate->name) == NULL)
			prom_gate_give_back(prom_my_database, gate);
	}
}

static void
tell_scheduler(void)
{
	PromHint hint = {.kind = PROM_HINT_GATES};

	has_new_gates = false;
	(void) prom_ring_push(&prom_my_database->ring, &hint, 1);
	prom_shmem_wake(&prom_my_database->worker[PROM_SCHEDULER]);
}

static void
read_all(void)
{
	dlist_mutable_iter iter;
	SPITupleTable *rows;

	relation = prom_delivery_relation();
	stale = false;
	dlist_foreach_modify(iter, &prom_receivers)
	{
		dlist_container(PromReceiver, link, iter.cur)->is_there = false;
	}
	prom_statement_run(&subscriptions_statement, NULL, NULL, false);
	rows = SPI_tuptable;
	for (uint64 i = 0; i < rows->numvals; i++)
		take_subscription(i);
	SPI_freetuptable(rows);
	dlist_foreach_modify(iter, &prom_receivers)
	{
		PromReceiver *one = dlist_container(PromReceiver, link, iter.cur);

		if (one->is_there)
			continue;
		prom_jobs_drop(&one->jobs);
		free_if_gone(one);
	}
	give_back_gates();
	dlist_foreach_modify(iter, &prom_receivers)
	{
		PromReceiver *one = dlist_container(PromReceiver, link, iter.cur);

		if (one->is_there)
			take_gate(one);
	}
}

void
prom_receivers_read(void)
{
	uint32 told = pg_atomic_read_u32(&prom_my_database->subscribed);

	if (!stale && told == seen)
		return;
	seen = told;
	read_all();
}

void
prom_receivers_committed(void)
{
	if (has_new_gates)
		tell_scheduler();
}

void
prom_receivers_look(void)
{
	dlist_iter iter;

	dlist_foreach(iter, &prom_receivers)
	{
		dlist_container(PromReceiver, link, iter.cur)->look = true;
	}
}

void
prom_receivers_forget(void)
{
	prom_receivers_look();
	stale = true;
}

void
prom_receiver_left(PromReceiver *receiver)
{
	receiver->in_flight--;
	receiver->look = true;
	free_if_gone(receiver);
}
