/*
 * sight.c
 *	  What can be seen of a task while it runs: its step, and the text so far.
 *
 * The caller alone writes, and may never wait for a reader, since it hears text
 * inside libcurl: so each thing has a count of its changes, odd while it is
 * written, and who reads copies until he has read between two changes.  There
 * is a sight for each slot, and tails of text for a few: who begins to speak
 * takes one that is free, or from another that nobody looks at.  Who loses it
 * is given another when somebody asks for his text.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "as_of.h"
#include "encoding.h"
#include "guc.h"
#include "prompt.h"
#include "sight.h"
#include "task.h"
#include "worker.h"

/* A tail that was looked at is not taken away for so long, ms. */
#define LOOKED 10000

/* A reader that meets a change tries again; it takes less than a copy. */
#define MANY_TIMES 1000

static uint64 last_serial; /* of a step, in the caller */
static int hand;           /* the tail that is taken next, if none is free */

static void
begin_change(pg_atomic_uint32 *changes)
{
	pg_atomic_write_u32(changes, pg_atomic_read_u32(changes) + 1);
	pg_write_barrier();
}

static void
end_change(pg_atomic_uint32 *changes)
{
	pg_write_barrier();
	pg_atomic_write_u32(changes, pg_atomic_read_u32(changes) + 1);
}

/* The tail that a sight still has, or NULL. */
static PromTail *
tail_of(const PromDatabase *db, const PromSight *sight)
{
	PromTail *tail;

	if (sight->tail < 0)
		return NULL;
	tail = &db->tails[sight->tail];
	return tail->serial == sight->serial ? tail : NULL;
}

static void
give_up_tail(PromSight *sight)
{
	PromTail *tail = tail_of(prom_my_database, sight);

	if (tail == NULL)
		return;
	begin_change(&tail->changes);
	tail->serial = 0;
	end_change(&tail->changes);
}

static void
write_sight(int32 slot, int64 task_id, int32 step, const char *kind,
			TimestampTz now)
{
	PromSight *sight = &prom_my_database->sights[slot];

	give_up_tail(sight);
	begin_change(&sight->changes);
	sight->task_id = task_id;
	sight->step = step;
	sight->serial = ++last_serial;
	sight->since = now;
	sight->tail = PROM_TAIL_NEVER;
	strlcpy(sight->kind, kind, sizeof(sight->kind));
	end_change(&sight->changes);
	pg_atomic_write_u32(&sight->wanted, 0);
}

void
prom_sight_begin(void)
{
	for (int i = 0; i < prom_guc_max_in_flight; i++)
		prom_sight_clear(i);
	for (int i = 0; i < PROM_TAILS; i++)
		prom_my_database->tails[i].serial = 0;
}

void
prom_sight_set(int32 slot, int64 task_id, int32 step, const char *kind,
			   TimestampTz now)
{
	write_sight(slot, task_id, step, kind, now);
}

void
prom_sight_clear(int32 slot)
{
	if (prom_my_database->sights[slot].task_id != 0)
		write_sight(slot, 0, 0, "", 0);
}

/* Does somebody look at the tail? */
static bool
is_looked_at(PromTail *tail, TimestampTz now)
{
	TimestampTz at = (TimestampTz) pg_atomic_read_u64(&tail->looked_at);

	return at + LOOKED * INT64CONST(1000) > now;
}

/* A free tail, or one that nobody looks at; -1: there is none. */
static int32
find_tail(void)
{
	PromTail *tails = prom_my_database->tails;
	TimestampTz now;

	for (int i = 0; i < PROM_TAILS; i++)
		if (tails[i].serial == 0)
			return i;
	now = GetCurrentTimestamp();
	for (int i = 0; i < PROM_TAILS; i++)
	{
		int32 place = hand;

		hand = (hand + 1) % PROM_TAILS;
		if (!is_looked_at(&tails[place], now))
			return place;
	}
	return -1;
}

/* The tail to write to, which the sight may have to take first; or NULL. */
static PromTail *
take_tail(PromSight *sight)
{
	PromTail *tail = tail_of(prom_my_database, sight);
	bool is_wanted;
	int32 place;

	if (tail != NULL)
		return tail;
	is_wanted = pg_atomic_exchange_u32(&sight->wanted, 0) != 0;
	if (sight->tail != PROM_TAIL_NEVER && !is_wanted)
		return NULL;
	place = find_tail();
	begin_change(&sight->changes);
	sight->tail = place < 0 ? PROM_TAIL_LOST : place;
	end_change(&sight->changes);
	if (place < 0)
		return NULL;
	tail = &prom_my_database->tails[place];
	begin_change(&tail->changes);
	tail->serial = sight->serial;
	tail->bytes = 0;
	end_change(&tail->changes);
	pg_atomic_write_u64(&tail->looked_at,
						is_wanted ? (uint64) GetCurrentTimestamp() : 0);
	return tail;
}

void
prom_sight_hear(int32 slot, const char *text, size_t length)
{
	PromSight *sight = &prom_my_database->sights[slot];
	PromTail *tail = take_tail(sight);

	if (tail == NULL || length == 0)
		return;
	begin_change(&tail->changes);
	if (length > PROM_TAIL_BYTES)
	{
		tail->bytes += length - PROM_TAIL_BYTES;
		text += length - PROM_TAIL_BYTES;
		length = PROM_TAIL_BYTES;
	}
	while (length > 0)
	{
		size_t at = tail->bytes % PROM_TAIL_BYTES;
		size_t part = Min(length, PROM_TAIL_BYTES - at);

		memcpy(tail->text + at, text, part);
		tail->bytes += part;
		text += part;
		length -= part;
	}
	end_change(&tail->changes);
}


/* Looking. */

/* Copy size bytes that the caller may be changing; false: it never rested. */
static bool
copy(void *to, const void *from, size_t size, pg_atomic_uint32 *changes)
{
	for (int i = 0; i < MANY_TIMES; i++)
	{
		uint32 before = pg_atomic_read_u32(changes);

		pg_read_barrier();
		if (before % 2 == 0)
		{
			memcpy(to, from, size);
			pg_read_barrier();
			if (pg_atomic_read_u32(changes) == before)
				return true;
		}
		CHECK_FOR_INTERRUPTS();
	}
	return false;
}

/* The sight of a task, and whose it is; NULL: it does not run. */
static PromSight *
find_sight(PromDatabase *db, int64 task_id, PromSight *seen)
{
	for (int i = 0; i < prom_guc_max_in_flight; i++)
	{
		PromSight *sight = &db->sights[i];

		if (sight->task_id == task_id &&
			copy(seen, sight, sizeof(PromSight), &sight->changes) &&
			seen->task_id == task_id)
			return sight;
	}
	return NULL;
}

/* The text of a copied tail, from its first whole character on. */
static char *
text_of(const PromTail *tail)
{
	size_t length = Min(tail->bytes, PROM_TAIL_BYTES);
	size_t first = tail->bytes <= PROM_TAIL_BYTES
					   ? 0
					   : tail->bytes % PROM_TAIL_BYTES;
	char *text = palloc(length + 1);
	char *begin = text;

	memcpy(text, tail->text + first, length - first);
	memcpy(text + length - first, tail->text, first);
	text[length] = '\0';
	if (tail->bytes > PROM_TAIL_BYTES)
		while ((*begin & 0xC0) == 0x80)
			begin++;
	return begin;
}

/* What was heard so far; false: nothing, or it is not kept. */
static bool
look_at_text(PromDatabase *db, PromSight *sight, const PromSight *seen,
			 PromTail *tail)
{
	PromTail *shared = tail_of(db, seen);

	if (shared == NULL)
	{
		if (seen->tail != PROM_TAIL_NEVER)
			pg_atomic_write_u32(&sight->wanted, 1);
		return false;
	}
	pg_atomic_write_u64(&shared->looked_at, (uint64) GetCurrentTimestamp());
	return copy(tail, shared, sizeof(PromTail), &shared->changes) &&
		   tail->serial == seen->serial;
}

PG_FUNCTION_INFO_V1(prom_progress);

Datum
prom_progress(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int64 task_id = PG_GETARG_INT64(0);
	PromDatabase *db = prom_shmem_database(MyDatabaseId);
	Datum values[5] = {0};
	bool nulls[5] = {false};
	PromTaskEnd end;
	PromSight *sight;
	PromSight seen;
	PromTail *tail;

	prom_as_of_forbid_reading("prometheus_progress()");
	InitMaterializedSRF(fcinfo, 0);
	prom_task_end(task_id, &end);
	if (end.ended || db == NULL || db->worker[PROM_CALLER].pid == 0)
		return (Datum) 0;
	sight = find_sight(db, task_id, &seen);
	if (sight == NULL)
		return (Datum) 0;
	tail = palloc(sizeof(PromTail));
	values[0] = Int32GetDatum(seen.step);
	values[1] = CStringGetTextDatum(seen.kind);
	nulls[2] = nulls[3] = !look_at_text(db, sight, &seen, tail);
	if (!nulls[2])
	{
		values[2] = CStringGetTextDatum(prom_encoding_from_utf8(text_of(tail)));
		values[3] = Int64GetDatum(prom_prompt_estimate((int64) tail->bytes));
	}
	values[4] = DirectFunctionCall2(
		timestamp_mi, TimestampTzGetDatum(GetCurrentTimestamp()),
		TimestampTzGetDatum(seen.since));
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	return (Datum) 0;
}
