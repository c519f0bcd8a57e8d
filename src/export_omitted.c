/*
 * export_omitted.c
 *	  Reads what was left out of a trace that is exported after all.
 *
 * Trees of tasks, and spans of applications, that are not sampled are left out
 * as they come by.  If something happens later, in another part of the trace,
 * by which it is sampled all, these are read again, as long as they are kept:
 * the trees whose ends the consumer of the export has all been given, and the
 * spans that its position sees.  The rest of the trace comes by itself.
 *
 * That it was sent is written when the receiver has it, into the table
 * prometheus._kept_trace: a caller that ends before sends it again.  Who finds
 * something leaves his place where it is until then.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/uuid.h"
#include "utils/xid8.h"

#include "consumer.h"
#include "export.h"
#include "export_batch.h"
#include "xact.h"

/* The spans of applications go after all tasks. */
#define AFTER_TASKS PG_INT64_MAX

/* Of one trace at a time: its parts need no other name. */
#define THE_ONE 1

static bool is_due;
static pg_uuid_t trace_id; /* whose it is */
static int64 task_id;      /* one of it; 0: it has none */
static PromPart part;      /* where it goes on */

#define OMITTED_TASKS \
	"prometheus._omitted($1, $2, $3, $4::pg_snapshot, $5::pg_snapshot)"
#define OMITTED_SPANS "prometheus._omitted_spans($6, $7::pg_snapshot, $8, $9)"

static PromStatement ask_statement = {
	"SELECT EXISTS (SELECT FROM " OMITTED_TASKS ")"
	" OR EXISTS (SELECT FROM " OMITTED_SPANS ")",
	9,
	{INT8OID, TIMESTAMPTZOID, INT8OID, TEXTOID, TEXTOID, UUIDOID, TEXTOID,
	 XID8OID, INT8OID},
	NULL,
};

static PromStatement tasks_statement = {
	"SELECT b.task_id, b.root_span FROM " OMITTED_TASKS " b"
	" WHERE b.task_id >= $6 ORDER BY b.task_id",
	6,
	{INT8OID, TIMESTAMPTZOID, INT8OID, TEXTOID, TEXTOID, INT8OID},
	NULL,
};

static PromStatement spans_statement = {
	"SELECT " PROM_SPAN_COLUMNS
	" FROM prometheus._omitted_spans($1, $2::pg_snapshot, $3, $4) x"
	" WHERE (x.started_at, lpad(to_hex(x.span_id), 16, '0')) > ($5, $6)"
	" ORDER BY x.started_at, lpad(to_hex(x.span_id), 16, '0') LIMIT $7",
	7,
	{UUIDOID, TEXTOID, XID8OID, INT8OID, TIMESTAMPTZOID, TEXTOID, INT8OID},
	NULL,
};

static Datum
position_text(const PromPosition *position)
{
	return CStringGetTextDatum(prom_position_text(position));
}

static Datum
xid_of(const PromSpanPlace *place)
{
	return FullTransactionIdGetDatum(FullTransactionIdFromU64(place->xid));
}

/* The tasks of a window. */
static void
set_window(Datum *values, int64 task, const PromWindow *window)
{
	const PromEdge *bound = window->is_open ? &window->bound : &window->base;

	values[0] = Int64GetDatum(task);
	values[1] = TimestampTzGetDatum(window->done.at);
	values[2] = Int64GetDatum(window->done.event_id);
	values[3] = position_text(&window->base.position);
	values[4] = position_text(&bound->position);
}

bool
prom_omitted_ask(const pg_uuid_t *trace, int64 task, const PromWindow *window,
				 const char *base, const PromSpanPlace *place)
{
	Datum values[9];

	set_window(values, task, window);
	values[5] = UUIDPGetDatum(trace);
	values[6] = CStringGetTextDatum(base);
	values[7] = xid_of(place);
	values[8] = Int64GetDatum(place->span_id);
	prom_statement_run(&ask_statement, values, NULL, false);
	if (!prom_row_bool(0, 1))
		return false;
	is_due = true;
	trace_id = *trace;
	task_id = task;
	part.event_id = 0;
	return true;
}

bool
prom_omitted_is_due(void)
{
	return is_due;
}


/* Reading. */

/* True: these are all. */
static bool
add_tasks(PromBatch *batch)
{
	Datum values[6];
	int64 *ids;
	char **roots;
	int n;

	set_window(values, task_id, &batch->window);
	values[5] = Int64GetDatum(part.event_id == 0 ? PG_INT64_MIN
												 : part.task_id);
	prom_statement_run(&tasks_statement, values, NULL, false);
	n = SPI_processed;
	ids = palloc((n + 1) * sizeof(int64));
	roots = palloc((n + 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
	{
		ids[i] = prom_row_int64(i, 1);
		roots[i] = prom_row_text(i, 2);
	}
	SPI_freetuptable(SPI_tuptable);
	for (int i = 0; i < n; i++)
		if (!prom_trees_add_task(batch, ids[i], THE_ONE, &part, "ot=th:0",
								 roots[i]))
			return false;
	return true;
}

/* The same of the spans of applications. */
static bool
add_spans(PromBatch *batch)
{
	bool goes_on = part.event_id != 0 && part.task_id == AFTER_TASKS;
	uint64 room = PROM_EXPORT_SPANS - batch->request.spans;
	PromSpanPlace place;
	Datum values[7];
	char *base;
	uint64 row = 0;

	prom_spans_find_place(&base, &place);
	values[0] = UUIDPGetDatum(&trace_id);
	values[1] = CStringGetTextDatum(base);
	values[2] = xid_of(&place);
	values[3] = Int64GetDatum(place.span_id);
	values[4] = TimestampTzGetDatum(goes_on ? part.started_at : DT_NOBEGIN);
	values[5] = CStringGetTextDatum(goes_on ? part.span_id : "");
	values[6] = Int64GetDatum(room + 1);
	prom_statement_run(&spans_statement, values, NULL, false);
	for (; row < SPI_processed && !prom_batch_is_full(batch); row++)
	{
		if (!prom_batch_add_row(batch, row, "ot=th:0", prom_row_bool(row, 10)))
			batch->dropped++;
		batch->part.event_id = THE_ONE;
		batch->part.task_id = AFTER_TASKS;
		batch->part.started_at = prom_row_time(row, 7);
		strlcpy(batch->part.span_id, prom_row_text(row, 2),
				sizeof(batch->part.span_id));
	}
	/* What was dropped took no room: there may be more. */
	return row == SPI_processed && row <= room;
}

/* As much as there is room for. */
static void
add_all(void *arg)
{
	PromBatch *batch = arg;

	if (add_tasks(batch) && add_spans(batch))
		batch->part.event_id = 0;
}

PromReading
prom_omitted_read(PromBatch *batch)
{
	if (prom_consumer_read(PROM_CONSUMER_EXPORT, 0, &batch->window,
						   &batch->place, NULL, NULL) < 0)
		return PROM_READ_ABSENT;
	if (!batch->is_begun)
		prom_batch_begin(batch, GetCurrentTimestamp());
	return prom_batch_try(batch, add_all, batch) ? PROM_READ_ALL
												 : PROM_READ_ON;
}

void
prom_omitted_move(PromBatch *batch)
{
	if (batch->part.event_id != 0)
		return;
	prom_sampler_keep(batch->sampler, &trace_id);
}

void
prom_omitted_moved(const PromBatch *batch)
{
	part = batch->part;
	is_due = part.event_id != 0;
}

void
prom_omitted_forget(void)
{
	is_due = false;
	part.event_id = 0;
}
