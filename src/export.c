/*
 * export.c
 *	  Exports traces to an OpenTelemetry Collector, for the caller.
 *
 * A trace goes when it is at rest: when a task, and all that it delegated, have
 * ended (export_tree.c); spans of applications go when they have
 * (export_span.c).  What was left out, and should not have been, comes after
 * (export_omitted.c).
 *
 *		look ---> READING ---> READY ---> SENDING ---> MOVING ---> look
 *		  |   some at a time      ^          |
 *		  +-> nothing: IDLE       +----------+ again, after a while
 *
 * One request is under way at a time.  It is read in short transactions, some
 * milliseconds at a time, since tasks wait for the caller meanwhile.  When the
 * receiver has taken it, or refused it for good, the position is moved, in a
 * transaction of its own.  A caller that ends in between sends it again: each
 * span goes at least once.
 *
 * What cannot be read (an error, or a lock) is tried again later; a tree, or a
 * span, that fails by itself is counted, and left out.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "collector.h"
#include "consumer.h"
#include "encoding.h"
#include "era.h"
#include "export.h"
#include "export_batch.h"
#include "exported.h"
#include "fault.h"
#include "guc.h"
#include "otlp.h"
#include "readahead.h"
#include "worker.h"
#include "xact.h"

/* After what cannot be written or read, ms; and what it may wait for a lock. */
#define AGAIN 1000
#define LOCK_TIMEOUT_OF_TURN "20ms"

/* What one turn may take, us. */
#define LONGEST_TURN 10000

/* So many tasks that have ended are exported at once. */
#define MANY (PROM_EXPORT_SPANS / 4)

typedef enum Stage
{
	IDLE,
	READING,
	READY,
	SENDING,
	MOVING
} Stage;

static Stage stage = IDLE;
static PromBatch batch;
static PromPost *post;  /* SENDING */
static bool is_known;   /* is the consumer there as the setting says? */
static bool is_on;      /* is it there? */
static char *endpoint;  /* that was sent to last, from malloc */
static TimestampTz due; /* of the next look; DT_NOEND: there is none */
static TimestampTz not_before;
static int nended; /* tasks, since the last look */
static int failures;
static PromSource last; /* that something was read from */
static instr_time turn_begun;

bool
prom_export_is_wanted(void)
{
	return prom_guc_otlp_endpoint != NULL && *prom_guc_otlp_endpoint != '\0';
}

void
prom_export_begin(void)
{
	batch.context = AllocSetContextCreate(TopMemoryContext,
										  "prometheus export",
										  ALLOCSET_DEFAULT_SIZES);
	due = GetCurrentTimestamp();
}

int
prom_export_in_flight(void)
{
	return stage == SENDING;
}

/* Something came that is to be looked for. */
static void
look_soon(int n, TimestampTz now)
{
	if (nended == 0)
		due = Min(due, TimestampTzPlusMilliseconds(now,
												   prom_guc_otlp_interval));
	nended += n;
	if (nended >= MANY)
		due = Min(due, now);
}

void
prom_export_ended(int n)
{
	TimestampTz now;

	if (!is_on || n == 0)
		return;
	now = GetCurrentTimestamp();
	look_soon(n, now);
	prom_exported_wait(now, false);
}


/* Are the positions there, as the setting wants? */

static void
settle(void)
{
	static const char delete_sql[] =
		"DELETE FROM prometheus._consumer WHERE name = '" PROM_CONSUMER_EXPORT
		"'";
	static const char find_sql[] =
		"SELECT FROM prometheus._consumer WHERE name = '" PROM_CONSUMER_EXPORT
		"'";
	static const char *const types[] = {"task.completed", "task.failed",
										"task.cancelled", "task.quarantined"};
	Datum values[lengthof(types)];

	prom_spans_settle(prom_export_is_wanted());
	if (!prom_export_is_wanted())
	{
		if (SPI_execute(delete_sql, false, 0) != SPI_OK_DELETE)
			elog(ERROR, "could not write prometheus._consumer");
		return;
	}
	if (SPI_execute(find_sql, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._consumer");
	for (int i = 0; i < lengthof(types); i++)
		values[i] = CStringGetTextDatum(types[i]);
	prom_consumer_push(PROM_CONSUMER_EXPORT,
					   construct_array(values, lengthof(types), TEXTOID, -1,
									   false, TYPALIGN_INT),
					   GetUserId(), SPI_processed > 0);
}


/* A batch. */

void
prom_batch_forget(PromBatch *one)
{
	MemoryContext context = one->context;

	MemoryContextReset(context);
	memset(one, 0, sizeof(*one));
	one->context = context;
}

void
prom_export_resource(PromOtlpResource *resource)
{
	char host[256];

	memset(resource, 0, sizeof(*resource));
	resource->service = prom_encoding_words_to_utf8(prom_guc_otlp_service_name);
	resource->instance = psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(),
								  MyDatabaseId);
	resource->database =
		prom_encoding_words_to_utf8(NameStr(prom_my_database->name));
	resource->server_version = PG_VERSION;
	if (gethostname(host, sizeof(host)) == 0)
	{
		host[sizeof(host) - 1] = '\0';
		resource->host = pstrdup(host);
	}
}

void
prom_batch_begin(PromBatch *one, TimestampTz since)
{
	MemoryContext before = MemoryContextSwitchTo(one->context);
	PromOtlpResource resource;

	one->is_begun = true;
	one->sampler = prom_sampler_begin();
	prom_export_resource(&resource);
	prom_otlp_begin(&one->request, &resource);
	MemoryContextSwitchTo(before);
	prom_exported_wait(since, true);
}

void
prom_batch_keep(const PromBatch *one, PromPosition *position)
{
	uint64 *xip = MemoryContextAlloc(one->context,
									 (position->nxip + 1) * sizeof(uint64));

	if (position->nxip > 0)
		memcpy(xip, position->xip, position->nxip * sizeof(uint64));
	position->xip = xip;
}

bool
prom_batch_try(PromBatch *one, void (*act)(void *arg), void *arg)
{
	PromBatch before = *one;
	ErrorData *failure = prom_xact_try_aloud(act, arg);

	if (failure == NULL)
		return true;
	/* The buffer may be another one by now. */
	one->request.body.len = before.request.body.len;
	one->request.body.data[before.request.body.len] = '\0';
	before.request.body = one->request.body;
	*one = before;
	if (prom_xact_is_transient(failure->sqlerrcode))
	{
		one->is_held_up = true;
		return false;
	}
	one->dropped++;
	one->part.event_id = 0;
	return true;
}

bool
prom_batch_is_full(const PromBatch *one)
{
	return one->request.spans >= PROM_EXPORT_SPANS ||
		   one->request.body.len >= PROM_EXPORT_BYTES;
}

bool
prom_batch_is_late(void)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, turn_begun);
	return INSTR_TIME_GET_MICROSEC(now) > LONGEST_TURN;
}

static const char *
utf8_or_null(uint64 row, int column)
{
	char *text = prom_row_text_or_null(row, column);

	return text == NULL ? NULL : prom_encoding_words_to_utf8(text);
}

bool
prom_batch_add_row(PromBatch *one, uint64 row, const char *trace_state,
				   bool is_remote)
{
	const char *attributes = utf8_or_null(row, 9);
	PromOtlpSpan span = {
		.trace_id = prom_row_text(row, 1),
		.span_id = prom_row_text(row, 2),
		.parent_id = prom_row_text_or_null(row, 3),
		.is_remote = is_remote,
		.trace_state = trace_state,
		.name = utf8_or_null(row, 4),
		.kind = prom_row_text(row, 5),
		.status = prom_row_text(row, 6),
		.started_at = prom_row_time(row, 7),
		.ended_at = prom_row_time(row, 8),
		.attributes = {attributes, strlen(attributes)},
	};

	return prom_otlp_add_span(&one->request, &span);
}


/* Reading. */

static PromReading
read_from(PromSource source)
{
	batch.source = source;
	switch (source)
	{
		case PROM_FROM_TREES:
			return prom_trees_read(&batch);
		case PROM_FROM_SPANS:
			return prom_spans_read(&batch);
		case PROM_FROM_OMITTED:
			return prom_omitted_read(&batch);
	}
	return PROM_READ_NOTHING;
}

/* A new batch; what was not read from last comes first. */
static PromReading
read_next(void)
{
	PromSource other = last == PROM_FROM_TREES ? PROM_FROM_SPANS
											   : PROM_FROM_TREES;
	PromReading reading;

	if (prom_omitted_is_due())
		return read_from(PROM_FROM_OMITTED);
	reading = read_from(other);
	if (reading == PROM_READ_NOTHING)
		return read_from(last);
	last = other;
	return reading;
}

/* With what was found out about traces. */
static void
move(void)
{
	switch (batch.source)
	{
		case PROM_FROM_TREES:
			prom_trees_move(&batch);
			break;
		case PROM_FROM_SPANS:
			prom_spans_move(&batch);
			break;
		case PROM_FROM_OMITTED:
			prom_omitted_move(&batch);
			break;
	}
	prom_sampler_record(batch.sampler);
}

/* Read on, or begin to; the next stage. */
static Stage
read_on(void)
{
	PromReading reading;

	if (stage == IDLE)
		nended = 0;
	reading = stage == IDLE ? read_next() : read_from(batch.source);
	switch (reading)
	{
		case PROM_READ_ABSENT:
			is_known = false;
			return IDLE;
		case PROM_READ_NOTHING:
			return IDLE;
		case PROM_READ_ON:
			return READING;
		case PROM_READ_ALL:
			break;
	}
	if (batch.request.spans > 0)
	{
		prom_otlp_end(&batch.request);
		return READY;
	}
	/* Nothing of it is sampled. */
	move();
	return MOVING;
}


/* A turn. */

/*
 * All tasks wait for it: what a session has locked waits instead, and plans are
 * by indexes, also while nothing is known of how many rows there are.
 */
static void
set_for_turn(void)
{
	static const char *const settings[][2] = {
		{"lock_timeout", LOCK_TIMEOUT_OF_TURN},
		{"enable_seqscan", "off"},
		{"enable_hashjoin", "off"},
		{"enable_mergejoin", "off"},
		{"jit", "off"},
	};

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0,
								 false);
}

static Stage
turn(void)
{
	Stage next = stage;

	INSTR_TIME_SET_CURRENT(turn_begun);
	if (!prom_era_xact_begin("exporting traces"))
		proc_exit(0);
	set_for_turn();
	SPI_connect();
	prom_readahead_begin();
	if (!is_known)
		settle();
	else if (stage == MOVING)
		move();
	else
		next = read_on();
	SPI_finish();
	PROM_FAULT("export-before-commit");
	prom_xact_commit();
	PROM_FAULT("export-after-commit");
	return next;
}

/* False: it failed, and is in the log. */
static bool
try_turn(Stage *next)
{
	MemoryContext before = CurrentMemoryContext;
	volatile bool done = false;

	PG_TRY();
	{
		*next = turn();
		done = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(before);
		prom_xact_abort();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(before);
	return done;
}

/* The position is behind the batch: count it, and look for the next one. */
static void
finish_batch(TimestampTz now)
{
	PromExportCount count = {
		.traces = batch.traces,
		.unsampled = batch.unsampled,
		.dropped = batch.dropped,
	};

	if (batch.verdict == PROM_OTLP_REFUSED)
		count.refused = batch.request.spans;
	else
	{
		count.rejected = Min(batch.rejected, batch.request.spans);
		count.spans = batch.request.spans - count.rejected;
	}
	prom_exported_count(&count);
	switch (batch.source)
	{
		case PROM_FROM_TREES:
			prom_trees_moved(&batch);
			break;
		case PROM_FROM_SPANS:
			prom_spans_moved(&batch);
			break;
		case PROM_FROM_OMITTED:
			prom_omitted_moved(&batch);
			break;
	}
	prom_batch_forget(&batch);
	stage = IDLE;
	due = now;
}

/* Nothing has ended that is not exported. */
static void
rest(void)
{
	prom_batch_forget(&batch);
	stage = IDLE;
	due = DT_NOEND;
	prom_exported_rest();
}

static void
run_turn(TimestampTz now)
{
	bool settles = !is_known;
	Stage next;

	batch.is_held_up = false;
	if (!try_turn(&next))
	{
		/* What was sent is not sent again for that. */
		if (stage != MOVING)
		{
			prom_batch_forget(&batch);
			stage = IDLE;
			due = now;
		}
		not_before = TimestampTzPlusMilliseconds(now, AGAIN);
		return;
	}
	if (settles)
	{
		is_known = true;
		is_on = prom_export_is_wanted();
		due = is_on ? now : DT_NOEND;
		prom_exported_switch(is_on);
	}
	else if (next == MOVING)
		finish_batch(now);
	else if (next == IDLE)
		rest();
	else
		stage = next;
	if (batch.is_held_up && stage == READING)
		not_before = TimestampTzPlusMilliseconds(now, AGAIN);
}


/* The network. */

static void
send_batch(PromHttp *http, TimestampTz now)
{
	PROM_FAULT("export-before-send");
	free(endpoint);
	endpoint = strdup(prom_guc_otlp_endpoint);
	post = prom_post_start(http, "/v1/traces", batch.request.body.data,
						   batch.request.body.len);
	if (post == NULL)
		not_before = TimestampTzPlusMilliseconds(now, AGAIN);
	else
		stage = SENDING;
	PROM_FAULT("export-after-send");
}

static void
take_reply(const PromOtlpReply *reply, TimestampTz now)
{
	int64 wait = prom_post_retry_after(post);

	if (reply->verdict == PROM_OTLP_AGAIN)
	{
		stage = READY;
		failures++;
		if (wait <= 0)
			wait = prom_otlp_back_off(failures,
									  pg_prng_double(&pg_global_prng_state));
		not_before = TimestampTzPlusMilliseconds(now, wait);
		prom_exported_failed(reply->message, not_before, now);
	}
	else
	{
		stage = MOVING;
		failures = 0;
		not_before = now;
		batch.verdict = reply->verdict;
		batch.rejected = reply->rejected;
		if (reply->verdict == PROM_OTLP_REFUSED)
			prom_exported_failed(reply->message, 0, now);
		else
			prom_exported_succeeded(reply->message, now);
	}
	prom_post_free(post);
	post = NULL;
	PROM_FAULT("export-answered");
}

/* Nobody is sent it any more. */
static void
drop_batch(void)
{
	if (post != NULL)
		prom_post_free(post);
	post = NULL;
	prom_trees_forget();
	prom_spans_forget();
	prom_omitted_forget();
	prom_batch_forget(&batch);
	stage = IDLE;
	failures = 0;
	not_before = 0;
	is_known = false;
}

/* The setting may be another one since it was read. */
static void
look_at_setting(TimestampTz now)
{
	if (is_known && is_on != prom_export_is_wanted())
		drop_batch();
	else if (failures > 0 && endpoint != NULL && stage == READY &&
			 strcmp(endpoint, prom_guc_otlp_endpoint) != 0)
	{
		failures = 0;
		not_before = now;
	}
}

static bool
has_turn(TimestampTz now)
{
	if (not_before > now)
		return false;
	if (!is_known || stage == MOVING)
		return true;
	if (!is_on || prom_my_database->gates[0].paused)
		return false;
	return stage == READING || (stage == IDLE && due <= now);
}

void
prom_export_drive(PromHttp *http, TimestampTz now)
{
	const PromOtlpReply *reply;
	uint32 nspans = prom_exported_take_spans();

	look_at_setting(now);
	if (is_on && nspans > 0)
		look_soon(nspans, now);
	if (pg_atomic_read_u32(&prom_my_database->exported.asked) != 0 &&
		pg_atomic_exchange_u32(&prom_my_database->exported.asked, 0) != 0 &&
		is_on)
		due = now;
	if (stage == SENDING && (reply = prom_post_reply(post)) != NULL)
		take_reply(reply, now);
	if (has_turn(now))
	{
		run_turn(now);
		/* What ends this process must be noticed before it sends. */
		if (prom_worker_should_end())
			proc_exit(0);
	}
	if (stage == READY && not_before <= now &&
		!prom_my_database->gates[0].paused)
		send_batch(http, now);
}

TimestampTz
prom_export_next_moment(void)
{
	if (!is_known || stage == MOVING)
		return not_before;
	if (!is_on || stage == SENDING || prom_my_database->gates[0].paused)
		return DT_NOEND;
	if (stage == IDLE)
		return Max(due, not_before);
	return not_before;
}
