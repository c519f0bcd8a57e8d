/*
 * exported.c
 *	  What the export says of itself, in shared memory.
 *
 * The caller writes it; views, health, alerts and retention read it.  It is
 * counted from the start of the server, or from when the export was turned on.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "as_of.h"
#include "encoding.h"
#include "exported.h"
#include "role.h"
#include "vital.h"
#include "worker.h"

#define COLUMNS 16

void
prom_exported_switch(bool is_on)
{
	PromExported *one = &prom_my_database->exported;
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&one->mutex);
	if (is_on && !one->is_on)
	{
		memset(&one->count, 0, sizeof(one->count));
		one->failures = 0;
		one->since = now;
		one->waits_since = one->succeeded_at = 0;
		one->failing_since = one->next_attempt_at = 0;
		one->error[0] = '\0';
		one->points = one->rejected_points = 0;
		one->metrics_error[0] = '\0';
	}
	one->is_on = is_on;
	one->rests = false;
	SpinLockRelease(&one->mutex);
}

void
prom_exported_wait(TimestampTz since, bool is_first)
{
	PromExported *one = &prom_my_database->exported;

	SpinLockAcquire(&one->mutex);
	if (is_first || one->waits_since == 0)
		one->waits_since = since;
	one->rests = false;
	SpinLockRelease(&one->mutex);
}

/* Spans that came meanwhile either are seen here, or said so after it. */
void
prom_exported_rest(void)
{
	PromExported *one = &prom_my_database->exported;

	SpinLockAcquire(&one->mutex);
	one->waits_since = 0;
	one->rests = true;
	SpinLockRelease(&one->mutex);
	pg_memory_barrier();
	if (pg_atomic_read_u32(&one->spans) > 0)
		prom_exported_wait(GetCurrentTimestamp(), false);
}

/*
 * The publisher has committed these: in its callback.  The caller is woken for
 * the first, after which it looks by itself, and when there are many.
 */
void
prom_exported_spans(uint64 n)
{
	PromExported *one = &prom_my_database->exported;
	uint32 before;

	before = pg_atomic_fetch_add_u32(&one->spans, (uint32) n);
	if (!one->is_on)
		return;
	prom_exported_wait(GetCurrentTimestamp(), false);
	if (before == 0)
		prom_shmem_wake(&prom_my_database->worker[PROM_CALLER]);
}

uint32
prom_exported_take_spans(void)
{
	return pg_atomic_exchange_u32(&prom_my_database->exported.spans, 0);
}

void
prom_exported_count(const PromExportCount *count)
{
	PromExported *one = &prom_my_database->exported;

	SpinLockAcquire(&one->mutex);
	one->count.traces += count->traces;
	one->count.unsampled += count->unsampled;
	one->count.spans += count->spans;
	one->count.rejected += count->rejected;
	one->count.refused += count->refused;
	one->count.dropped += count->dropped;
	SpinLockRelease(&one->mutex);
}

void
prom_exported_succeeded(const char *message, TimestampTz now)
{
	PromExported *one = &prom_my_database->exported;

	SpinLockAcquire(&one->mutex);
	one->succeeded_at = now;
	one->failing_since = one->next_attempt_at = 0;
	if (*message != '\0')
		strlcpy(one->error, message, sizeof(one->error));
	SpinLockRelease(&one->mutex);
}

void
prom_exported_failed(const char *message, TimestampTz next, TimestampTz now)
{
	PromExported *one = &prom_my_database->exported;

	SpinLockAcquire(&one->mutex);
	if (one->failing_since == 0)
		one->failing_since = now;
	one->next_attempt_at = next;
	one->failures++;
	strlcpy(one->error, message, sizeof(one->error));
	SpinLockRelease(&one->mutex);
}

void
prom_exported_points(int64 taken, int64 rejected, const char *message)
{
	PromExported *one = &prom_my_database->exported;

	SpinLockAcquire(&one->mutex);
	one->points += taken;
	one->rejected_points += rejected;
	strlcpy(one->metrics_error, message, sizeof(one->metrics_error));
	SpinLockRelease(&one->mutex);
}

bool
prom_exported_look(PromDatabase *db, PromExported *exported)
{
	if (db == NULL)
		return false;
	SpinLockAcquire(&db->exported.mutex);
	*exported = db->exported;
	SpinLockRelease(&db->exported.mutex);
	return exported->is_on;
}

bool
prom_exported_rests(PromDatabase *db)
{
	PromExported now;

	return prom_exported_look(db, &now) && now.rests;
}

/* For an alert: for how long something waits, s. */
double
prom_pulse_export(PromLook *look)
{
	PromExported now;

	if (!prom_exported_look(look->db, &now))
		return PROM_UNKNOWN;
	if (now.waits_since == 0)
		return now.rests ? 0 : PROM_UNKNOWN;
	return (double) Max(look->now - now.waits_since, 0) / USECS_PER_SEC;
}

static void
put_time(TimestampTz time, int column, Datum *values, bool *nulls)
{
	values[column] = TimestampTzGetDatum(time);
	nulls[column] = time == 0;
}

static void
put_words(const char *words, int column, Datum *values, bool *nulls)
{
	nulls[column] = *words == '\0';
	if (*words != '\0')
		values[column] = CStringGetTextDatum(prom_encoding_from_utf8(words));
}

PG_FUNCTION_INFO_V1(prom_export);

Datum
prom_export(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	PromExported now;
	Datum values[COLUMNS];
	bool nulls[COLUMNS] = {false};

	prom_as_of_forbid_reading("prometheus.export");
	InitMaterializedSRF(fcinfo, 0);
	if (prom_shared == NULL || !prom_role_is_admin() ||
		!prom_exported_look(prom_shmem_database(MyDatabaseId), &now))
		return (Datum) 0;
	put_time(now.since, 0, values, nulls);
	put_time(now.waits_since, 1, values, nulls);
	put_time(now.succeeded_at, 2, values, nulls);
	put_time(now.failing_since, 3, values, nulls);
	put_time(now.next_attempt_at, 4, values, nulls);
	values[5] = Int64GetDatum(now.count.traces);
	values[6] = Int64GetDatum(now.count.unsampled);
	values[7] = Int64GetDatum(now.count.spans);
	values[8] = Int64GetDatum(now.count.rejected);
	values[9] = Int64GetDatum(now.count.refused);
	values[10] = Int64GetDatum(now.count.dropped);
	values[11] = Int64GetDatum(now.failures);
	put_words(now.error, 12, values, nulls);
	values[13] = Int64GetDatum(now.points);
	values[14] = Int64GetDatum(now.rejected_points);
	put_words(now.metrics_error, 15, values, nulls);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	return (Datum) 0;
}
