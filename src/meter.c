/*
 * meter.c
 *	  Exports metrics to an OpenTelemetry Collector, for the caller.
 *
 * At an interval the table of series and the gauges are read, without a
 * statement, and sent if they are not what the receiver has; but how long our
 * own processes were busy does not count, since reading makes them so, nor what
 * others do to the server.  A reading of many series goes in several requests,
 * one at a time.  What failed is not sent again: the counts are cumulative, and
 * a gauge is of its moment, so the next reading has all that is wanted.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "mb/pg_wchar.h"
#include "pgstat.h"
#include "utils/memutils.h"

#include "collector.h"
#include "encoding.h"
#include "export.h"
#include "exported.h"
#include "gauge.h"
#include "guc.h"
#include "meter.h"
#include "otlp_metric.h"
#include "worker.h"

/* What is read and not sent completely. */
typedef struct Reading
{
	PromOtlpResource resource;
	TimestampTz at;
	PromSample *samples; /* NULL: there is none */
	int n;
	int next;
	uint64 print;
	StringInfoData body; /* of a request, */
	int points;          /* that has so many */
} Reading;

static MemoryContext context; /* of the reading */
static Reading reading;
static PromPost *post;
static TimestampTz due; /* DT_NOEND: never */
static int interval;    /* that it is by; 0: off, */
static uint32 place;    /* and the hash of where it goes */
static int failures;

/* What the receiver has. */
static bool has_told;
static uint64 told;

void
prom_meter_begin(void)
{
	context = AllocSetContextCreate(TopMemoryContext, "prometheus meter",
									ALLOCSET_DEFAULT_SIZES);
	due = DT_NOEND;
}

int
prom_meter_in_flight(void)
{
	return post != NULL;
}


/* Reading. */

static void
forget_reading(void)
{
	MemoryContextReset(context);
	memset(&reading, 0, sizeof(reading));
}

static bool
tells_more(const PromSample *sample)
{
	return sample->metric != &prom_metrics[PROM_METRIC_BUSY] &&
		   sample->metric != &prom_metrics[PROM_METRIC_WAL] &&
		   !prom_gauge_drifts(sample->metric);
}

static uint64
take_print(void)
{
	uint64 print = 0;

	for (int i = 0; i < reading.n; i++)
	{
		const PromSample *sample = &reading.samples[i];

		if (!tells_more(sample))
			continue;
		print = hash_combine64(
			print, hash_bytes_extended((const unsigned char *) &sample->value,
									   sizeof(double), sample->count));
		print = hash_combine64(print, (uint64) sample->created);
	}
	return print;
}

static void
add_gauges(void)
{
	PromSample *gauges;
	int n;

	/* In no transaction, what the server counts is not read anew by itself. */
	pgstat_clear_snapshot();
	gauges = prom_gauge_read(prom_my_database, &n);
	reading.samples = repalloc(reading.samples,
							   (reading.n + n) * sizeof(PromSample));
	memcpy(&reading.samples[reading.n], gauges, n * sizeof(PromSample));
	reading.n += n;
	pfree(gauges);
}

static void
read_all(TimestampTz now)
{
	reading.at = now;
	reading.samples = prom_metric_read(prom_my_database, &reading.n);
	add_gauges();
	reading.print = take_print();
	prom_export_resource(&reading.resource);
	for (int i = 0; i < reading.n; i++)
		for (int l = 0; l < PROM_METRIC_LABELS; l++)
			if (reading.samples[i].labels[l] != NULL)
				reading.samples[i].labels[l] =
					prom_encoding_words_to_utf8(reading.samples[i].labels[l]);
}

/* Other encodings' conversions are found in a catalog. */
static void
begin_reading(TimestampTz now)
{
	bool converts = GetDatabaseEncoding() != PG_UTF8;
	MemoryContext before = CurrentMemoryContext;

	if (converts)
		StartTransactionCommand();
	MemoryContextSwitchTo(context);
	read_all(now);
	if (converts)
		CommitTransactionCommand();
	MemoryContextSwitchTo(before);
}


/* The network. */

static void
wait_until(TimestampTz now, int64 ms)
{
	due = TimestampTzPlusMilliseconds(now, ms);
}

/* The next part of the reading. */
static void
send_part(PromHttp *http, TimestampTz now)
{
	MemoryContext before = MemoryContextSwitchTo(context);

	reading.points = prom_otlp_write_metrics(&reading.body, &reading.resource,
											 reading.samples, reading.n,
											 &reading.next, reading.at,
											 PROM_EXPORT_BYTES);
	MemoryContextSwitchTo(before);
	post = prom_post_start(http, "/v1/metrics", reading.body.data,
						   reading.body.len);
	if (post != NULL)
		return;
	forget_reading();
	wait_until(now, interval);
}

static void
fail(const PromOtlpReply *reply, TimestampTz now)
{
	int64 wait = prom_post_retry_after(post);

	failures++;
	if (wait <= 0)
		wait = prom_otlp_back_off(failures,
								  pg_prng_double(&pg_global_prng_state));
	prom_exported_points(0, 0, reply->message);
	forget_reading();
	wait_until(now, Max(wait, interval));
}

static void
take_reply(const PromOtlpReply *reply, TimestampTz now)
{
	int64 rejected = reply->verdict == PROM_OTLP_REFUSED
						 ? reading.points
						 : Min(reply->rejected, reading.points);

	if (reply->verdict == PROM_OTLP_AGAIN)
		fail(reply, now);
	else
	{
		failures = 0;
		prom_exported_points(reading.points - rejected, rejected,
							 reply->message);
		pfree(reading.body.data);
		due = now;
		if (reading.next == reading.n)
		{
			/* What was refused is not sent again, either. */
			told = reading.print;
			has_told = true;
			forget_reading();
			wait_until(now, interval);
		}
	}
	prom_post_free(post);
	post = NULL;
}

/* The settings may be other ones. */
static void
look_at_settings(TimestampTz now)
{
	bool is_on = prom_export_is_wanted();
	int wanted = is_on ? prom_guc_otlp_metrics_interval : 0;
	uint32 there = is_on ? string_hash(prom_guc_otlp_endpoint, INT_MAX) : 0;

	if (wanted == interval && there == place)
		return;
	if (there != place)
		has_told = false;
	interval = wanted;
	place = there;
	if (post != NULL)
		prom_post_free(post);
	post = NULL;
	failures = 0;
	forget_reading();
	if (interval == 0)
		due = DT_NOEND;
	else
		wait_until(now, interval);
}

void
prom_meter_drive(PromHttp *http, TimestampTz now)
{
	const PromOtlpReply *reply;

	look_at_settings(now);
	if (post != NULL && (reply = prom_post_reply(post)) != NULL)
		take_reply(reply, now);
	if (post != NULL || due > now || prom_my_database->gates[0].paused)
		return;
	if (reading.samples == NULL)
	{
		begin_reading(now);
		if (has_told && reading.print == told)
		{
			forget_reading();
			wait_until(now, interval);
			return;
		}
	}
	send_part(http, now);
}

TimestampTz
prom_meter_next_moment(void)
{
	return post != NULL || prom_my_database->gates[0].paused ? DT_NOEND : due;
}
