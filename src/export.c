/*
 * export.c
 *	  Exports traces to an OpenTelemetry Collector, for the caller.
 *
 * A trace goes when it is at rest: when a task, and all that it delegated, have
 * ended.  Ends are read as events, by a consumer (consumer.c), so that none is
 * skipped, whatever the order of commits; the last of a tree takes the tree
 * along (prometheus._tree), if its trace is sampled as it is then (sampler.c).
 *
 *		look ---> READING ---> READY ---> SENDING ---> MOVING ---> look
 *		  |   some at a time      ^          |
 *		  +-> nothing: IDLE       +----------+ again, after a while
 *
 * One request is under way at a time.  It is read in short transactions, some
 * milliseconds at a time, since tasks wait for the caller meanwhile.  When the
 * receiver has taken it, or refused it for good, the position is moved, in a
 * transaction of its own.  A caller that ends in between sends it again: each
 * span goes at least once.  A tree with more spans than one request may have
 * goes in several, and the position is moved after the last.
 *
 * What cannot be read (an error, or a lock) is tried again later; a tree that
 * fails by itself is counted, and left out.
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
#include "exported.h"
#include "fault.h"
#include "guc.h"
#include "otlp.h"
#include "sampler.h"
#include "worker.h"
#include "xact.h"

/* After what cannot be written or read, ms; and what it may wait for a lock. */
#define AGAIN 1000
#define LOCK_TIMEOUT_OF_TURN "20ms"

/* What one turn may take, us; ends that are looked at together. */
#define LONGEST_TURN 10000
#define ENTRIES 256

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

/* Where a tree goes on that was too large for one request. */
typedef struct Part
{
	int64 event_id; /* of its last end; 0: there is none */
	int64 task_id;  /* behind the span of this one, of this time and id */
	TimestampTz started_at;
	char span_id[PROM_OTLP_SPAN_ID + 1];
} Part;

/* What is sent together. */
typedef struct Batch
{
	PromOtlpRequest request;
	PromSampler *sampler;
	char *place;       /* of the consumer, before it; */
	PromWindow window; /* and behind it */
	Part part;         /* of a tree, that it ends with */
	int64 traces;
	int64 unsampled;
	int64 dropped;
	PromOtlpVerdict verdict;
	int64 rejected;
} Batch;

static Stage stage = IDLE;
static Batch batch;
static MemoryContext context; /* of the batch */
static Part part;             /* of the tree that the next one begins with */
static PromPost *post;        /* SENDING */
static bool is_known;         /* is the consumer there as the setting says? */
static bool is_on;            /* is it there? */
static char *endpoint;        /* that was sent to last, from malloc */
static TimestampTz due;       /* of the next look; DT_NOEND: there is none */
static TimestampTz not_before;
static int nended; /* tasks, since the last look */
static int failures;

/* Something could not be read in this turn. */
static bool is_held_up;

bool
prom_export_is_wanted(void)
{
	return prom_guc_otlp_endpoint != NULL && *prom_guc_otlp_endpoint != '\0';
}

void
prom_export_begin(void)
{
	context = AllocSetContextCreate(TopMemoryContext, "prometheus export",
									ALLOCSET_DEFAULT_SIZES);
	due = GetCurrentTimestamp();
	part.event_id = 0;
}

int
prom_export_in_flight(void)
{
	return stage == SENDING;
}

void
prom_export_ended(int n)
{
	TimestampTz now;

	if (!is_on || n == 0)
		return;
	now = GetCurrentTimestamp();
	if (nended == 0)
		due = Min(due, TimestampTzPlusMilliseconds(now,
												   prom_guc_otlp_interval));
	nended += n;
	if (nended >= MANY)
		due = Min(due, now);
	prom_exported_wait(now, false);
}


/* Is the consumer there, as the setting wants? */

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


/* One tree of tasks. */

static PromStatement tree_statement = {
	"SELECT t.is_last, t.task_ids, t.root_span, t.trace_id"
	" FROM prometheus._tree($1, $2, $3, $4::pg_snapshot, $5::pg_snapshot) t",
	5,
	{INT8OID, TIMESTAMPTZOID, INT8OID, TEXTOID, TEXTOID},
	NULL,
};

/* Of one task: the view finds that by indexes in each of its branches. */
static PromStatement spans_statement = {
	"SELECT s.trace_id, s.span_id, s.parent_span_id, s.name, s.kind, s.status,"
	" s.started_at, s.ended_at, s.attributes::text"
	" FROM prometheus._every_span s"
	" WHERE s.task_id = $1 AND s.ended_at IS NOT NULL"
	" AND (s.started_at, s.span_id) > ($2, $3)"
	" ORDER BY s.started_at, s.span_id LIMIT $4",
	4,
	{INT8OID, TIMESTAMPTZOID, TEXTOID, INT8OID},
	NULL,
};

typedef struct Tree
{
	const PromEntry *entry;
	const char *root_span;
	const char *trace_state; /* NULL: none */
	Part from;               /* where it goes on */
	Part to;                 /* where it goes on in the next request */
	int64 dropped;
} Tree;

static bool
is_full(void)
{
	return batch.request.spans >= PROM_EXPORT_SPANS ||
		   batch.request.body.len >= PROM_EXPORT_BYTES;
}

static const char *
utf8_or_null(uint64 row, int column)
{
	char *text = prom_row_text_or_null(row, column);

	return text == NULL ? NULL : prom_encoding_words_to_utf8(text);
}

static void
add_row(Tree *tree, int64 task_id, uint64 row)
{
	const char *attributes = utf8_or_null(row, 9);
	PromOtlpSpan span = {
		.trace_id = prom_row_text(row, 1),
		.span_id = prom_row_text(row, 2),
		.parent_id = prom_row_text_or_null(row, 3),
		.trace_state = tree->trace_state,
		.name = utf8_or_null(row, 4),
		.kind = prom_row_text(row, 5),
		.status = prom_row_text(row, 6),
		.started_at = prom_row_time(row, 7),
		.ended_at = prom_row_time(row, 8),
		.attributes = {attributes, strlen(attributes)},
	};

	span.is_remote = strcmp(span.span_id, tree->root_span) == 0;
	if (!prom_otlp_add_span(&batch.request, &span))
		tree->dropped++;
	tree->to.event_id = tree->entry->place.event_id;
	tree->to.task_id = task_id;
	tree->to.started_at = span.started_at;
	strlcpy(tree->to.span_id, span.span_id, sizeof(tree->to.span_id));
}

/* As many of a task as there is room for; true: these are all. */
static bool
add_task(Tree *tree, int64 task_id)
{
	bool goes_on = tree->from.event_id != 0 && tree->from.task_id == task_id;
	int64 room = PROM_EXPORT_SPANS - batch.request.spans;
	Datum values[4];
	uint64 row = 0;
	bool is_whole;

	values[0] = Int64GetDatum(task_id);
	values[1] = TimestampTzGetDatum(goes_on ? tree->from.started_at
											: DT_NOBEGIN);
	values[2] = CStringGetTextDatum(goes_on ? tree->from.span_id : "");
	values[3] = Int64GetDatum(room + 1);
	prom_statement_run(&spans_statement, values, NULL, false);
	while (row < SPI_processed && !is_full())
		add_row(tree, task_id, row++);
	is_whole = row == SPI_processed;
	SPI_freetuptable(SPI_tuptable);
	return is_whole;
}

/* As much of a tree as there is room for. */
static void
add_spans(Tree *tree, const int64 *task_ids, int n)
{
	int i = 0;

	while (tree->from.event_id != 0 && i < n &&
		   task_ids[i] < tree->from.task_id)
		i++;
	for (; i < n; i++)
		if (!add_task(tree, task_ids[i]))
			return;
	tree->to.event_id = 0;
}

/* In a subtransaction. */
static void
add_tree(void *arg)
{
	Tree *tree = arg;
	const PromEntry *entry = tree->entry;
	PromWindow *window = &batch.window;
	Datum values[5];
	Datum tasks;
	int64 *task_ids;
	bool isnull;
	int n;

	PROM_FAULT("export-in-read");
	values[0] = Int64GetDatum(entry->task_id);
	values[1] = TimestampTzGetDatum(entry->place.at);
	values[2] = Int64GetDatum(entry->place.event_id);
	values[3] = CStringGetTextDatum(prom_position_text(&window->base.position));
	values[4] =
		CStringGetTextDatum(prom_position_text(&window->bound.position));
	prom_statement_run(&tree_statement, values, NULL, false);
	if (SPI_processed == 0 || !prom_row_bool(0, 1))
		return;
	tasks = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2,
						  &isnull);
	task_ids = prom_read_int8_array(tasks, &n);
	tree->root_span = prom_row_text(0, 3);
	if (!prom_sampler_decide(batch.sampler, prom_row_uuid(0, 4), tasks,
							 entry->task_id, &tree->trace_state))
	{
		batch.unsampled++;
		return;
	}
	add_spans(tree, task_ids, n);
	if (tree->to.event_id == 0)
		batch.traces++;
}

/* False: it cannot be read now. */
static bool
try_to_add(const PromEntry *entry)
{
	Tree tree = {.entry = entry};
	ErrorData *failure;
	int length = batch.request.body.len;
	int spans = batch.request.spans;

	if (part.event_id == entry->place.event_id)
		tree.from = part;
	failure = prom_xact_try_aloud(add_tree, &tree);
	if (failure == NULL)
	{
		batch.dropped += tree.dropped;
		batch.part = tree.to;
		return true;
	}
	batch.request.body.len = length;
	batch.request.body.data[length] = '\0';
	batch.request.spans = spans;
	if (prom_xact_is_transient(failure->sqlerrcode))
		return false;
	batch.dropped++;
	batch.part.event_id = 0;
	return true;
}


/* Reading. */

static void
forget_batch(void)
{
	MemoryContextReset(context);
	memset(&batch, 0, sizeof(batch));
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

static void
begin_request(void)
{
	PromOtlpResource resource;

	prom_export_resource(&resource);
	prom_otlp_begin(&batch.request, &resource);
}

static void
keep_edge(PromEdge *edge)
{
	PromPosition *position = &edge->position;
	uint64 *xip = palloc((position->nxip + 1) * sizeof(uint64));

	if (position->nxip > 0)
		memcpy(xip, position->xip, position->nxip * sizeof(uint64));
	position->xip = xip;
}

/* The first look: where the consumer is, and what there is behind that. */
static int
begin_reading(PromEntry **entries, bool *all)
{
	MemoryContext before;
	int n = prom_consumer_read(PROM_CONSUMER_EXPORT, ENTRIES, &batch.window,
							   &batch.place, entries, all);

	if (n <= 0)
		return n;
	/* What SPI's context has does not outlive the turn. */
	before = MemoryContextSwitchTo(context);
	batch.place = pstrdup(batch.place);
	batch.window.name = PROM_CONSUMER_EXPORT;
	batch.window.types = DatumGetArrayTypePCopy(
		PointerGetDatum(batch.window.types));
	keep_edge(&batch.window.base);
	keep_edge(&batch.window.bound);
	batch.sampler = prom_sampler_begin();
	begin_request();
	MemoryContextSwitchTo(before);
	prom_exported_wait((*entries)[0].place.at, true);
	return n;
}

/* Go through some ends; true: the batch is complete. */
static bool
read_entries(const PromEntry *entries, int n, bool all)
{
	instr_time begun;
	instr_time now;

	INSTR_TIME_SET_CURRENT(begun);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		is_held_up = !try_to_add(&entries[i]);
		if (is_held_up)
			return batch.request.spans > 0;
		if (batch.part.event_id != 0)
			return true;
		part.event_id = 0;
		batch.window.done = entries[i].place;
		if (is_full() && (i + 1 < n || !all))
			return true;
		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, begun);
		if (INSTR_TIME_GET_MICROSEC(now) > LONGEST_TURN && (i + 1 < n || !all))
			return false;
	}
	if (all)
		prom_window_close(&batch.window);
	return all;
}

/* Somebody may have let it begin again meanwhile: then it does. */
static void
move(void)
{
	if (!prom_consumer_move(PROM_CONSUMER_EXPORT, batch.place, &batch.window))
		batch.part.event_id = 0;
}

/* Read on, or begin to; the next stage. */
static Stage
read_on(void)
{
	PromEntry *entries;
	bool all;
	int n;

	if (stage == IDLE)
	{
		nended = 0;
		n = begin_reading(&entries, &all);
		if (n <= 0)
		{
			is_known = n == 0;
			return IDLE;
		}
	}
	else
		n = prom_window_next(&batch.window, ENTRIES, &entries, &all);
	if (!read_entries(entries, n, n == 0 || all))
		return READING;
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

	if (!prom_era_xact_begin("exporting traces"))
		proc_exit(0);
	set_for_turn();
	SPI_connect();
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
	part = batch.part;
	forget_batch();
	stage = IDLE;
	due = now;
}

/* Nothing has ended that is not exported. */
static void
rest(void)
{
	forget_batch();
	stage = IDLE;
	due = DT_NOEND;
	prom_exported_rest();
}

static void
run_turn(TimestampTz now)
{
	bool settles = !is_known;
	Stage next;

	is_held_up = false;
	if (!try_turn(&next))
	{
		/* What was sent is not sent again for that. */
		if (stage != MOVING)
		{
			forget_batch();
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
	if (is_held_up && stage == READING)
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
	part.event_id = 0;
	forget_batch();
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

	look_at_setting(now);
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
