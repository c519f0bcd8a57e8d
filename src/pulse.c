/*
 * pulse.c
 *	  Looks at prometheus itself: its queue, gates, marks, processes, sizes,
 *	  budgets, and who reads events.
 *
 * The queue is read a slab at a time, so that the scheduler waits for none of
 * it.  Sizes are measured by the publisher while facts change, and who reads
 * events when there are new ones or somebody has read some.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "consumer.h"
#include "gate.h"
#include "position.h"
#include "queue.h"
#include "vital.h"
#include "worker.h"
#include "xact.h"

#define HOUR (USECS_PER_SEC * INT64CONST(3600))

static double
seconds_since(const PromLook *look, TimestampTz then)
{
	return look->now <= then ? 0 : (look->now - then) / (double) USECS_PER_SEC;
}


/* The queue. */

static void
look_at_entry(const PromQueueEntry *entry, PromPulseQueue *seen)
{
	TimestampTz since = Max(entry->due, entry->since);

	seen->tasks[entry->state]++;
	if (entry->state == PROM_QUEUE_READY &&
		(seen->oldest == 0 || since < seen->since))
	{
		seen->oldest = entry->task_id;
		seen->since = since;
	}
}

/* False: there is no such slab, or the queue is another one. */
static bool
look_at_slab(PromDatabase *db, dsa_area *area, dsa_handle handle, int slab,
			 PromPulseQueue *seen)
{
	bool found = false;

	LWLockAcquire(db->queue_lock, LW_SHARED);
	if (db->queue_dsa == handle)
	{
		PromQueueRoot *root = dsa_get_address(area, db->queue_root);
		int n = root->nentries - slab * PROM_SLAB_ENTRIES;

		found = n > 0;
		if (found)
		{
			PromQueueEntry *entries = dsa_get_address(area, root->slabs[slab]);

			for (int i = 0; i < Min(n, PROM_SLAB_ENTRIES); i++)
				look_at_entry(&entries[i], seen);
		}
	}
	LWLockRelease(db->queue_lock);
	return found;
}

bool
prom_pulse_queue(PromDatabase *db, PromPulseQueue *seen)
{
	dsa_area *area = NULL;
	dsa_handle handle;

	memset(seen, 0, sizeof(*seen));
	if (db == NULL)
		return false;
	LWLockAcquire(db->queue_lock, LW_SHARED);
	handle = db->queue_dsa;
	if (handle != DSA_HANDLE_INVALID)
		area = dsa_attach(handle);
	LWLockRelease(db->queue_lock);
	if (area == NULL)
		return false;
	for (int slab = 0; look_at_slab(db, area, handle, slab, seen); slab++)
		;
	dsa_detach(area);
	return true;
}

/* The task that has been ready for the longest time. */
double
prom_pulse_due(PromLook *look)
{
	PromPulseQueue seen;

	if (!prom_pulse_queue(look->db, &seen))
		return PROM_UNKNOWN;
	if (seen.oldest == 0)
		return 0;
	look->what = psprintf("task %lld", (long long) seen.oldest);
	return seconds_since(look, seen.since);
}


/* Gates. */

double
prom_pulse_gates(PromLook *look)
{
	PromDatabase *db = look->db;
	TimestampTz oldest = DT_NOEND;
	uint32 n;

	if (db == NULL)
		return PROM_UNKNOWN;
	n = pg_atomic_read_u32(&db->ngates);
	LWLockAcquire(db->gate_lock, LW_SHARED);
	for (uint32 i = 0; i < n; i++)
	{
		TimestampTz since = prom_gate_closed_since(&db->gates[i], look->now);

		if (since >= oldest)
			continue;
		oldest = since;
		look->what = prom_gate_target(&db->gates[i]);
	}
	LWLockRelease(db->gate_lock);
	return oldest == DT_NOEND ? 0 : seconds_since(look, oldest);
}

/* Models whose providers asked for money, until a good call, or a resume. */
double
prom_pulse_money(PromLook *look)
{
	PromDatabase *db = look->db;
	int count = 0;
	uint32 n;

	if (db == NULL)
		return PROM_UNKNOWN;
	n = pg_atomic_read_u32(&db->ngates);
	LWLockAcquire(db->gate_lock, LW_SHARED);
	for (uint32 i = 0; i < n; i++)
	{
		const PromGate *gate = &db->gates[i];

		if (gate->reason != PROM_GATE_MONEY || gate->closings == 0 ||
			pg_atomic_read_u64((pg_atomic_uint64 *) &gate->until) == 0)
			continue;
		count++;
		look->what = prom_gate_target(gate);
	}
	LWLockRelease(db->gate_lock);
	return count;
}


/* The publisher, and other processes. */

double
prom_pulse_marks(PromLook *look)
{
	PromMarks *marks;
	TimestampTz since;

	if (look->db == NULL)
		return PROM_UNKNOWN;
	marks = &look->db->marks;
	since = (TimestampTz) pg_atomic_read_u64(&marks->failing_since);
	if (since == 0 && pg_atomic_read_u32(&marks->changed) != 0)
		since = (TimestampTz) pg_atomic_read_u64(&marks->changed_at);
	return since == 0 ? 0 : seconds_since(look, since);
}

/* Are there jobs, and none of the executors that are for them?  Under lock. */
static bool
is_stuck(const PromDatabase *db, uint32 wanted, int first, int beyond)
{
	for (int place = first; place < beyond && wanted > 0; place++)
		if (db->worker[place].pid != 0)
			return false;
	return wanted > 0;
}

static bool
jobs_are_stuck(PromDatabase *db)
{
	int handlers = PROM_EXECUTOR + PROM_MAX_EXECUTORS;

	return db->holders == 0 &&
		   (is_stuck(db, pg_atomic_read_u32(&db->wanted), PROM_EXECUTOR,
					 handlers) ||
			is_stuck(db, pg_atomic_read_u32(&db->wanted_handlers), handlers,
					 PROM_NPLACES));
}

/* One that is being started is not missing: only from look to look. */
void
prom_pulse_follow(PromLook *look)
{
	PromVitals *vitals = &look->db->vitals;
	bool stuck;

	LWLockAcquire(prom_shared->lock, LW_SHARED);
	stuck = jobs_are_stuck(look->db);
	LWLockRelease(prom_shared->lock);
	SpinLockAcquire(&vitals->mutex);
	if (!stuck)
		vitals->stuck_since = 0;
	else if (vitals->stuck_since == 0)
		vitals->stuck_since = look->now;
	SpinLockRelease(&vitals->mutex);
}

/* While a statement keeps them away none is missing. */
double
prom_pulse_workers(PromLook *look)
{
	PromDatabase *db = look->db;
	TimestampTz oldest = DT_NOEND;
	TimestampTz stuck_since;

	if (db == NULL || RecoveryInProgress())
		return PROM_UNKNOWN;
	SpinLockAcquire(&db->vitals.mutex);
	stuck_since = db->vitals.stuck_since;
	SpinLockRelease(&db->vitals.mutex);
	LWLockAcquire(prom_shared->lock, LW_SHARED);
	if (stuck_since != 0 && jobs_are_stuck(db))
	{
		oldest = stuck_since;
		look->what = prom_worker_role_name(PROM_EXECUTOR);
	}
	for (int role = 0; role < PROM_EXECUTOR && db->holders == 0; role++)
	{
		TimestampTz left_at = Max(db->worker[role].left_at, PgStartTime);

		if (db->worker[role].pid != 0 || left_at >= oldest)
			continue;
		oldest = left_at;
		look->what = prom_worker_role_name(role);
	}
	LWLockRelease(prom_shared->lock);
	return oldest == DT_NOEND ? 0 : seconds_since(look, oldest);
}


/* Sizes. */

/* One an hour stays, and the newest. */
static void
keep_size(PromVitals *vitals, TimestampTz now, int64 bytes)
{
	PromSize *sizes = vitals->sizes;
	int n = vitals->nsizes;

	if (n >= 2 && sizes[n - 1].at - sizes[n - 2].at < HOUR)
		n--;
	if (n == PROM_MAX_SIZES)
		memmove(sizes, sizes + 1, --n * sizeof(PromSize));
	sizes[n] = (PromSize){now, bytes};
	vitals->nsizes = n + 1;
}

void
prom_pulse_read_sizes(PromLook *look)
{
	static PromStatement statement = {
		"SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c"
		" WHERE c.relnamespace = 'prometheus'::regnamespace"
		" AND c.relkind = 'r'",
		0,
		{0},
		NULL};
	PromVitals *vitals = &look->db->vitals;
	int64 bytes;

	prom_statement_run(&statement, NULL, NULL, true);
	bytes = prom_row_int64_or(0, 1, 0);
	SpinLockAcquire(&vitals->mutex);
	keep_size(vitals, look->now, bytes);
	SpinLockRelease(&vitals->mutex);
}

/* The newest, and the oldest that is not older than a day. */
static bool
find_sizes(PromLook *look, PromSize *newest, PromSize *oldest)
{
	PromVitals *vitals;
	int n;

	if (look->db == NULL)
		return false;
	vitals = &look->db->vitals;
	SpinLockAcquire(&vitals->mutex);
	n = vitals->nsizes;
	for (int i = n - 1; i >= 0; i--)
	{
		if (i == n - 1)
			*newest = vitals->sizes[i];
		else if (vitals->sizes[i].at < look->now - 24 * HOUR)
			break;
		*oldest = vitals->sizes[i];
	}
	SpinLockRelease(&vitals->mutex);
	return n > 0;
}

double
prom_pulse_size(PromLook *look)
{
	PromSize newest;
	PromSize oldest;

	return find_sizes(look, &newest, &oldest) ? (double) newest.bytes
											  : PROM_UNKNOWN;
}

double
prom_pulse_growth(PromLook *look)
{
	PromSize newest;
	PromSize oldest;

	if (!find_sizes(look, &newest, &oldest))
		return PROM_UNKNOWN;
	return (double) Max(newest.bytes - oldest.bytes, 0);
}


/* Budgets. */

double
prom_pulse_budget(PromLook *look)
{
	PromVitals *vitals;
	double spent;
	TimestampTz refills_at;
	char budget[PROM_MAX_BUDGET];

	if (look->db == NULL)
		return PROM_UNKNOWN;
	vitals = &look->db->vitals;
	SpinLockAcquire(&vitals->mutex);
	spent = vitals->spent;
	refills_at = vitals->refills_at;
	memcpy(budget, vitals->budget, sizeof(budget));
	SpinLockRelease(&vitals->mutex);
	if (budget[0] == '\0')
		return PROM_UNKNOWN;
	look->is_private = true;
	if (refills_at <= look->now)
		return 0;
	look->what = pstrdup(budget);
	return spent;
}


/* Who reads events. */

/*
 * The first mark after the position of each consumer, which may see no more
 * than that: when it was taken such marks were being written.  Who has polled
 * and found nothing keeps a position that is a little older (consumer.c).
 */
static PromStatement unread_statement = {
	"SELECT c.name, c.base, m.at, m.snapshot FROM prometheus._consumer c"
	" CROSS JOIN LATERAL (SELECT x.mark_id, x.at, x.snapshot"
	"   FROM prometheus._mark x WHERE x.mark_id > c.base_mark"
	"   ORDER BY x.mark_id LIMIT 3) m"
	" WHERE c.name <> '" PROM_CONSUMER_EXPORT "'"
	" AND (c.bound IS NOT NULL OR c.base_at + interval '10 s' <"
	"   (SELECT n.at FROM prometheus._mark n ORDER BY n.mark_id DESC LIMIT 1))"
	" ORDER BY c.base_mark, c.name, m.mark_id",
	0,
	{0},
	NULL};

static PromStatement any_statement = {
	"SELECT EXISTS (SELECT FROM prometheus._consumer c"
	" WHERE c.name <> '" PROM_CONSUMER_EXPORT "')",
	0,
	{0},
	NULL};

static PromStatement dead_statement = {
	"SELECT count(*), min(d.subscription)"
	" FROM (SELECT x.subscription FROM prometheus._delivery x"
	"   WHERE x.status = 'dead' LIMIT $1) d",
	1,
	{INT8OID},
	NULL};

/* Of the consumer furthest behind: since when something is unread. */
static TimestampTz
find_unread(char *reader, size_t size)
{
	prom_statement_run(&unread_statement, NULL, NULL, true);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		PromPosition base;
		PromPosition mark;
		bool isnull;

		prom_position_read(SPI_getbinval(tuple, desc, 2, &isnull), &base);
		prom_position_read(SPI_getbinval(tuple, desc, 4, &isnull), &mark);
		if (prom_position_precedes(&mark, &base))
			continue;
		strlcpy(reader, prom_row_text(i, 1), size);
		return prom_row_time(i, 3);
	}
	return DT_NOEND;
}

bool
prom_pulse_read_readers(PromLook *look)
{
	PromVitals *vitals = &look->db->vitals;
	char reader[PROM_MAX_NAME + 1] = "";
	char dead_of[PROM_MAX_NAME + 1] = "";
	TimestampTz unread_since = find_unread(reader, sizeof(reader));
	Datum most = Int64GetDatum(PROM_MAX_DEAD);
	int64 dead;

	prom_statement_run(&dead_statement, &most, NULL, true);
	dead = prom_row_int64(0, 1);
	if (dead > 0)
		strlcpy(dead_of, prom_row_text(0, 2), sizeof(dead_of));
	SpinLockAcquire(&vitals->mutex);
	vitals->readers_known = true;
	vitals->unread_since = unread_since;
	memcpy(vitals->reader, reader, sizeof(reader));
	vitals->dead = dead;
	memcpy(vitals->dead_of, dead_of, sizeof(dead_of));
	SpinLockRelease(&vitals->mutex);
	prom_statement_run(&any_statement, NULL, NULL, true);
	return prom_row_bool(0, 1);
}

double
prom_pulse_lag(PromLook *look)
{
	PromVitals *vitals;
	bool known;
	TimestampTz since;
	char reader[PROM_MAX_NAME + 1];

	if (look->db == NULL)
		return PROM_UNKNOWN;
	vitals = &look->db->vitals;
	SpinLockAcquire(&vitals->mutex);
	known = vitals->readers_known;
	since = vitals->unread_since;
	memcpy(reader, vitals->reader, sizeof(reader));
	SpinLockRelease(&vitals->mutex);
	if (!known)
		return PROM_UNKNOWN;
	if (since == DT_NOEND)
		return 0;
	look->what = psprintf("consumer \"%s\"", reader);
	return seconds_since(look, since);
}

double
prom_pulse_dead(PromLook *look)
{
	PromVitals *vitals;
	bool known;
	int64 dead;
	char dead_of[PROM_MAX_NAME + 1];

	if (look->db == NULL)
		return PROM_UNKNOWN;
	vitals = &look->db->vitals;
	SpinLockAcquire(&vitals->mutex);
	known = vitals->readers_known;
	dead = vitals->dead;
	memcpy(dead_of, vitals->dead_of, sizeof(dead_of));
	SpinLockRelease(&vitals->mutex);
	if (!known)
		return PROM_UNKNOWN;
	if (dead > 0)
		look->what = psprintf("subscription \"%s\"", dead_of);
	return (double) dead;
}
