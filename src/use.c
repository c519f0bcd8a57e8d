/*
 * use.c
 *	  Notes which memories were recalled, and when.
 *
 * DESIGN
 *
 * Who recalls only reads, perhaps on a standby.  So it notes what it found in
 * shared memory, in a table of a fixed size.  A memory belongs to one of its
 * sets, whose lock is held for a few instructions, and takes a place in it that
 * is free, or that of one of which all is written.  If there is none, the use
 * is not noted: it only tells how much a memory matters.  What is noted is lost
 * when the server stops at once.
 *
 * The publisher writes the first use of a memory a second later, together with
 * others, and then once an hour at most; all of them if there is no place left,
 * and at its end.  Each row has the sum, so the newest one says all, and the
 * others go as versions do.  A publisher begins with an empty table: what is in
 * it may be of a database that was there before.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/spin.h"
#include "utils/guc.h"

#include "era.h"
#include "fault.h"
#include "moment.h"
#include "use.h"
#include "worker.h"
#include "xact.h"

/* From the first use that is noted until it is written, ms. */
#define DELAY 1000

/* Between two rows of a memory, ms. */
#define INTERVAL 3600000

/* What is to be written together. */
typedef struct Batch
{
	Datum *ids;
	Datum *times;
	Datum *counts;
	int n;
} Batch;

static TimestampTz due = DT_NOEND;

void
prom_use_init(PromUses *uses)
{
	memset(uses, 0, sizeof(*uses));
	pg_atomic_init_u32(&uses->changed, 0);
	pg_atomic_init_u32(&uses->crowded, 0);
	for (int i = 0; i < PROM_USE_SETS; i++)
		SpinLockInit(&uses->sets[i].mutex);
}

/* A place for it, or NULL; the set's lock is held. */
static PromUse *
find_place(PromUseSet *set, int64 memory_id)
{
	PromUse *place = NULL;

	for (int i = 0; i < PROM_USE_PLACES; i++)
	{
		PromUse *use = &set->uses[i];

		if (use->memory_id == memory_id)
			return use;
		if (use->uses == 0 &&
			(place == NULL || use->written_at < place->written_at))
			place = use;
	}
	if (place != NULL)
	{
		place->memory_id = memory_id;
		place->written_at = 0;
	}
	return place;
}

/* False: there was no place. */
static bool
note(PromUses *uses, int64 memory_id, TimestampTz now)
{
	uint32 hash = murmurhash32((uint32) memory_id ^ (uint32) (memory_id >> 32));
	PromUseSet *set = &uses->sets[hash % PROM_USE_SETS];
	PromUse *use;

	SpinLockAcquire(&set->mutex);
	use = find_place(set, memory_id);
	if (use != NULL)
	{
		use->used_at = now;
		use->uses++;
	}
	SpinLockRelease(&set->mutex);
	return use != NULL;
}

void
prom_use_of_rows(void)
{
	PromDatabase *db = prom_shmem_database(MyDatabaseId);
	TimestampTz now = GetCurrentTimestamp();
	bool crowded = false;

	/* A standby has no publisher. */
	if (db == NULL || SPI_processed == 0 || RecoveryInProgress() ||
		prom_moment_current() != NULL)
		return;
	for (uint64 i = 0; i < SPI_processed; i++)
		crowded = !note(&db->uses, prom_row_int64(i, 1), now) || crowded;
	if (crowded)
		pg_atomic_write_u32(&db->uses.crowded, 1);
	if (pg_atomic_exchange_u32(&db->uses.changed, 1) == 0)
		prom_shmem_wake(&db->worker[PROM_PUBLISHER]);
}


/* The publisher's. */

void
prom_use_begin(void)
{
	PromUses *uses = &prom_my_database->uses;

	for (int i = 0; i < PROM_USE_SETS; i++)
	{
		SpinLockAcquire(&uses->sets[i].mutex);
		memset(uses->sets[i].uses, 0, sizeof(uses->sets[i].uses));
		SpinLockRelease(&uses->sets[i].mutex);
	}
	due = DT_NOEND;
}

TimestampTz
prom_use_due(void)
{
	PromUses *uses = &prom_my_database->uses;

	/* Until it is written, nobody need tell of more, but that it is crowded. */
	if (pg_atomic_read_u32(&uses->changed) != 0)
	{
		TimestampTz soon = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   DELAY);

		due = Min(due, soon);
	}
	return due;
}

static void
add(Batch *batch, const PromUse *use)
{
	batch->ids[batch->n] = Int64GetDatum(use->memory_id);
	batch->times[batch->n] = TimestampTzGetDatum(use->used_at);
	batch->counts[batch->n] = Int64GetDatum(use->uses);
	batch->n++;
}

/* Take what is to be written from a set; the rest says when it is due. */
static void
take(PromUseSet *set, bool all, TimestampTz now, Batch *batch)
{
	PromUse uses[PROM_USE_PLACES];

	SpinLockAcquire(&set->mutex);
	memcpy(uses, set->uses, sizeof(uses));
	for (int i = 0; i < PROM_USE_PLACES; i++)
	{
		TimestampTz next =
			TimestampTzPlusMilliseconds(uses[i].written_at, INTERVAL);

		if (uses[i].uses > 0 && (all || next <= now))
		{
			set->uses[i].uses = 0;
			set->uses[i].written_at = now;
		}
		else if (uses[i].uses > 0)
		{
			due = Min(due, next);
			uses[i].uses = 0;
		}
	}
	SpinLockRelease(&set->mutex);
	for (int i = 0; i < PROM_USE_PLACES; i++)
		if (uses[i].uses > 0)
			add(batch, &uses[i]);
}

static PromStatement write_statement = {
	"INSERT INTO prometheus._memory_use (memory_id, xid, used_at, uses)"
	" SELECT u.memory_id, prometheus._xid(),"
	"   greatest(u.used_at, l.used_at + '1 microsecond'),"
	"   coalesce(l.uses, 0) + u.uses"
	" FROM unnest($1, $2, $3) AS u (memory_id, used_at, uses)"
	" LEFT JOIN LATERAL (SELECT x.used_at, x.uses"
	"   FROM prometheus._memory_use x WHERE x.memory_id = u.memory_id"
	"   ORDER BY x.used_at DESC LIMIT 1) l ON true"
	" WHERE EXISTS (SELECT FROM prometheus._memory m"
	"   WHERE m.memory_id = u.memory_id)"
	" ORDER BY u.memory_id",
	3,
	{INT8ARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID},
	NULL,
};

static Datum
array_of(Datum *values, int n, Oid type)
{
	return PointerGetDatum(construct_array(values, n, type, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static void
insert(const Batch *batch)
{
	Datum values[3] = {array_of(batch->ids, batch->n, INT8OID),
					   array_of(batch->times, batch->n, TIMESTAMPTZOID),
					   array_of(batch->counts, batch->n, INT8OID)};

	if (!prom_era_xact_begin("writing which memories were recalled"))
		proc_exit(0);
	/* What is lost does no harm. */
	SetConfigOption("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE);
	SPI_connect();
	prom_statement_run(&write_statement, values, NULL, false);
	SPI_finish();
	PROM_FAULT("use-before-commit");
	prom_xact_commit();
}

static void
write_uses(bool all)
{
	const Size size = PROM_USE_SETS * PROM_USE_PLACES * sizeof(Datum);
	PromUses *uses = &prom_my_database->uses;
	TimestampTz now = GetCurrentTimestamp();
	Batch batch = {palloc(size), palloc(size), palloc(size), 0};

	/* Whoever notes one from here on tells of it again. */
	pg_atomic_exchange_u32(&uses->changed, 0);
	all = pg_atomic_exchange_u32(&uses->crowded, 0) != 0 || all;
	due = DT_NOEND;
	for (int i = 0; i < PROM_USE_SETS; i++)
		take(&uses->sets[i], all, now, &batch);
	if (batch.n > 0)
		insert(&batch);
}

void
prom_use_write(void)
{
	write_uses(false);
}

void
prom_use_write_all(void)
{
	write_uses(true);
}
