/*
 * backlog.c
 *	  Finds the deliveries that are due.
 *
 * Those without a key are read in the order of their times.  Of those with the
 * same key only the first may be delivered, its head; so the heads are read,
 * by the index on keys, from one key to the next: what waits behind a head is
 * never looked at, however much that is.  Each read goes on from the key where
 * the one before it ended, so no key is passed over, or served before others.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "backlog.h"
#include "xact.h"

#define HEADS 256 /* that are looked at in one read */

static PromStatement due_statement = {
	"SELECT d.delivery_id, d.event_id, d.task_id, d.attempts"
	" FROM prometheus._delivery d"
	" WHERE d.subscription = $1 AND d.status = 'waiting' AND d.key IS NULL"
	" AND d.next_at <= $2 AND d.delivery_id <> ALL ($3)"
	" ORDER BY d.next_at, d.delivery_id LIMIT $4",
	4,
	{TEXTOID, TIMESTAMPTZOID, INT8ARRAYOID, INT8OID},
	NULL,
};

static PromStatement next_statement = {
	"SELECT d.next_at FROM prometheus._delivery d"
	" WHERE d.subscription = $1 AND d.status = 'waiting' AND d.key IS NULL"
	" AND d.next_at > $2 ORDER BY d.next_at LIMIT 1",
	2,
	{TEXTOID, TIMESTAMPTZOID},
	NULL,
};

static PromStatement heads_statement = {
	"WITH RECURSIVE head AS ((SELECT d.delivery_id, d.event_id, d.task_id,"
	"  d.attempts, d.next_at, d.key FROM prometheus._delivery d"
	"  WHERE d.subscription = $1 AND d.status = 'waiting' AND d.key > $2"
	"  ORDER BY d.key, d.delivery_id LIMIT 1)"
	" UNION ALL SELECT n.* FROM head h CROSS JOIN LATERAL ("
	"  SELECT d.delivery_id, d.event_id, d.task_id,"
	"  d.attempts, d.next_at, d.key FROM prometheus._delivery d"
	"  WHERE d.subscription = $1 AND d.status = 'waiting' AND d.key > h.key"
	"  ORDER BY d.key, d.delivery_id LIMIT 1) n)"
	" SELECT h.delivery_id, h.event_id, h.task_id, h.attempts, h.next_at, h.key"
	" FROM head h LIMIT $3",
	3,
	{TEXTOID, TEXTOID, INT8OID},
	NULL,
};

static void
add_row(PromBacklogPart *part, uint64 row)
{
	PromDelivery *delivery = &part->deliveries[part->n++];

	memset(delivery, 0, sizeof(*delivery));
	delivery->delivery_id = prom_row_int64(row, 1);
	delivery->event_id = prom_row_int64(row, 2);
	delivery->task_id = prom_row_int64_or(row, 3, 0);
	delivery->attempts = prom_row_int32(row, 4);
}

static void
read_without_key(const char *subscription, const int64 *underway,
				 int nunderway, TimestampTz now, PromBacklogPart *part)
{
	Datum values[4];

	values[0] = CStringGetTextDatum(subscription);
	values[1] = TimestampTzGetDatum(now);
	values[2] = PointerGetDatum(prom_int8_array(underway, nunderway));
	values[3] = Int64GetDatum(PROM_BACKLOG_MOST);
	prom_statement_run(&due_statement, values, NULL, false);
	for (uint64 i = 0; i < SPI_processed; i++)
		add_row(part, i);
	part->more = SPI_processed == PROM_BACKLOG_MOST;
	SPI_freetuptable(SPI_tuptable);
	prom_statement_run(&next_statement, values, NULL, false);
	part->next = SPI_processed == 0 ? DT_NOEND : prom_row_time(0, 1);
	SPI_freetuptable(SPI_tuptable);
}

static bool
is_underway(int64 delivery_id, const int64 *underway, int nunderway)
{
	for (int i = 0; i < nunderway; i++)
		if (underway[i] == delivery_id)
			return true;
	return false;
}

static void
set_key(PromBacklog *backlog, const char *key)
{
	char *copy = key == NULL ? NULL
							 : MemoryContextStrdup(TopMemoryContext, key);

	if (backlog->key != NULL)
		pfree(backlog->key);
	backlog->key = copy;
}

static void
read_heads(PromBacklog *backlog, const char *subscription,
		   const int64 *underway, int nunderway, TimestampTz now,
		   PromBacklogPart *part)
{
	int most = part->n + PROM_BACKLOG_MOST;
	const char *last = NULL;
	Datum values[3];
	uint64 row = 0;

	if (backlog->key == NULL)
		backlog->next = DT_NOEND;
	values[0] = CStringGetTextDatum(subscription);
	values[1] = CStringGetTextDatum(backlog->key == NULL ? "" : backlog->key);
	values[2] = Int64GetDatum(HEADS);
	prom_statement_run(&heads_statement, values, NULL, false);
	for (; row < SPI_processed && part->n < most; row++)
	{
		TimestampTz at = prom_row_time(row, 5);

		last = prom_row_text(row, 6);
		if (at > now)
			backlog->next = Min(backlog->next, at);
		else if (!is_underway(prom_row_int64(row, 1), underway, nunderway))
			add_row(part, row);
	}
	/* Fewer than there could be: these were the last. */
	set_key(backlog, row < SPI_processed || row == HEADS ? last : NULL);
	SPI_freetuptable(SPI_tuptable);
}

void
prom_backlog_read(PromBacklog *backlog, const char *subscription,
				  const int64 *underway, int nunderway, TimestampTz now,
				  PromBacklogPart *part)
{
	part->n = 0;
	read_without_key(subscription, underway, nunderway, now, part);
	read_heads(backlog, subscription, underway, nunderway, now, part);
	if (backlog->key != NULL)
		part->more = true;
	else
		part->next = Min(part->next, backlog->next);
}

void
prom_backlog_forget(PromBacklog *backlog)
{
	set_key(backlog, NULL);
}
