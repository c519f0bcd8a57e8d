/*
 * export_span.c
 *	  Reads spans of applications to be exported.
 *
 * The publisher writes them (span.c), some in each transaction.  How far they
 * are exported is a position as consumers have one (position.c), so none is
 * skipped, whatever the order of commits; they go in the order of the
 * transactions that wrote them, and the position is cut at the last one that
 * was sent whole.  Of one that goes in two requests it is remembered here how
 * far it went: a caller that ends sends that part again.
 *
 * A span goes if its trace is sampled as it is now (sampler.c).  If it is not
 * and is later, the span is sent then (export_omitted.c).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/xid8.h"

#include "consumer.h"
#include "export.h"
#include "export_batch.h"
#include "fault.h"
#include "wakeup.h"
#include "xact.h"

#define CHUNK 128 /* spans that are looked at together */

/* Within what the position does not see yet, while it is this one. */
static PromSpanPlace resume;
static char *resume_base; /* from malloc */

static PromStatement find_statement = {
	"SELECT p.base::text FROM prometheus._span_position p"
	" WHERE p.consumer = '" PROM_CONSUMER_EXPORT "'",
	0,
	{0},
	NULL,
};

static PromStatement move_statement = {
	"UPDATE prometheus._span_position p SET base = $1::pg_snapshot"
	" WHERE p.consumer = '" PROM_CONSUMER_EXPORT "' AND p.base::text = $2",
	2,
	{TEXTOID, TEXTOID},
	NULL,
};

/*
 * In ranges of transactions, behind a place, and of one of them only the rest:
 * others that come before that one may be seen by now.  The publisher writes
 * few spans in one, whose ids are random: they are sorted where they are read.
 */
static PromStatement spans_statement = {
	"SELECT " PROM_SPAN_COLUMNS ", x.xid, x.span_id, x.trace_id"
	" FROM unnest($1, $2) r (low, high)"
	" CROSS JOIN LATERAL (SELECT s.* FROM prometheus._span s"
	"   WHERE s.xid >= r.low AND s.xid >= $3 AND s.xid < r.high"
	"   AND (s.xid, s.span_id) > ($3, $4)"
	"   AND NOT (s.xid = $6 AND s.span_id <= $7)"
	"   ORDER BY s.xid, s.span_id LIMIT $5) x"
	" ORDER BY x.xid, x.span_id LIMIT $5",
	7,
	{XID8ARRAYOID, XID8ARRAYOID, XID8OID, INT8OID, INT8OID, XID8OID, INT8OID},
	NULL,
};


/* The position. */

void
prom_spans_settle(bool is_on)
{
	static const char make_sql[] =
		"INSERT INTO prometheus._span_position (consumer, base)"
		" VALUES ('" PROM_CONSUMER_EXPORT "', $1::pg_snapshot)"
		" ON CONFLICT (consumer) DO NOTHING";
	Oid type = TEXTOID;
	PromPosition now;
	Datum value;

	prom_spans_forget();
	if (!is_on)
	{
		if (SPI_execute("DELETE FROM prometheus._span_position", false, 0) !=
				SPI_OK_DELETE ||
			SPI_execute("DELETE FROM prometheus._kept_trace", false, 0) !=
				SPI_OK_DELETE)
			elog(ERROR, "could not write prometheus._span_position");
		return;
	}
	prom_position_now(&now);
	value = CStringGetTextDatum(prom_position_text(&now));
	if (SPI_execute_with_args(make_sql, 1, &type, &value, NULL, false, 0) !=
		SPI_OK_INSERT)
		elog(ERROR, "could not write prometheus._span_position");
}

void
prom_spans_replay(void)
{
	static const char replay_sql[] =
		"UPDATE prometheus._span_position SET base = c.base"
		" FROM prometheus._consumer c"
		" WHERE c.name OPERATOR(pg_catalog.=) '" PROM_CONSUMER_EXPORT "'";

	if (prom_execute_now(replay_sql, 0, NULL, NULL, NULL, false) !=
		SPI_OK_UPDATE)
		elog(ERROR, "could not write prometheus._span_position");
	prom_wakeup_export();
}

/* NULL: there is none. */
static char *
find_base(void)
{
	prom_statement_run(&find_statement, NULL, NULL, false);
	return SPI_processed == 0 ? NULL : prom_row_text(0, 1);
}

static const PromSpanPlace nothing = {.xid = 0, .span_id = PG_INT64_MIN};

static PromSpanPlace
place_within(const char *base)
{
	return resume_base != NULL && strcmp(resume_base, base) == 0 ? resume
																 : nothing;
}

void
prom_spans_find_place(char **base, PromSpanPlace *place)
{
	PromPosition beginning;

	*base = find_base();
	if (*base == NULL)
	{
		prom_position_begin(&beginning);
		*base = prom_position_text(&beginning);
	}
	*place = place_within(*base);
}

/* Where the position is behind the batch. */
static char *
place_behind(const PromBatch *batch)
{
	PromPosition cut;

	if (batch->is_all)
		return prom_position_text(&batch->bound);
	prom_position_cut(&batch->base, &batch->bound, batch->done.xid, &cut);
	return prom_position_text(&cut);
}


/* Reading. */

static void
set_place(const PromSpanPlace *place, Datum *values)
{
	values[0] =
		FullTransactionIdGetDatum(FullTransactionIdFromU64(place->xid));
	values[1] = Int64GetDatum(place->span_id);
}

/* The next ones; how many. */
static int
read_chunk(const PromBatch *batch)
{
	Datum values[7];

	if (prom_position_between(&batch->base, &batch->bound, &values[0],
							  &values[1]) == 0)
		return 0;
	set_place(&batch->done, &values[2]);
	values[4] = Int64GetDatum(CHUNK);
	set_place(&batch->begun, &values[5]);
	prom_statement_run_now(&spans_statement, values);
	return SPI_processed;
}

static uint64
xid_of_row(uint64 row)
{
	bool isnull;

	return U64FromFullTransactionId(DatumGetFullTransactionId(
		SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 11,
					  &isnull)));
}

/* One that is looked at. */
typedef struct Span
{
	PromBatch *batch;
	SPITupleTable *rows; /* that it is one of */
	uint64 nrows;
	uint64 row;
	bool waits; /* for what was left out of its trace */
} Span;

/* Other statements come in between. */
static void
use_rows(const Span *span)
{
	SPI_tuptable = span->rows;
	SPI_processed = span->nrows;
}

static void
add_span(void *arg)
{
	Span *span = arg;
	PromBatch *batch = span->batch;
	pg_uuid_t trace_id = *prom_row_uuid(span->row, 13);
	PromSampled sampled;
	PromWindow window;
	int64 task_id;
	char *place;

	PROM_FAULT("export-in-spans");
	prom_sampler_span(batch->sampler, &trace_id, &task_id, &sampled);
	if (sampled.has_omitted)
	{
		span->waits = prom_consumer_read(PROM_CONSUMER_EXPORT, 0, &window,
										 &place, NULL, NULL) == 0 &&
					  prom_omitted_ask(&trace_id, task_id, &window,
									   place_behind(batch),
									   batch->done.xid == 0 ? &batch->begun
															: &batch->done);
		if (span->waits)
			return;
		prom_sampler_keep(batch->sampler, &trace_id);
	}
	use_rows(span);
	if (sampled.is_sampled &&
		!prom_batch_add_row(batch, span->row, sampled.trace_state,
							prom_row_bool(span->row, 10)))
		batch->dropped++;
}

/* Go through some. */
static PromReading
read_rows(PromBatch *batch, int n)
{
	Span span = {.batch = batch, .rows = SPI_tuptable, .nrows = n};

	for (int row = 0; row < n; row++)
	{
		CHECK_FOR_INTERRUPTS();
		if (prom_batch_is_full(batch))
			return PROM_READ_ALL;
		span.row = row;
		if (!prom_batch_try(batch, add_span, &span))
			return batch->request.spans > 0 ? PROM_READ_ALL : PROM_READ_ON;
		if (span.waits)
			return PROM_READ_ALL;
		use_rows(&span);
		batch->done.xid = xid_of_row(row);
		batch->done.span_id = prom_row_int64(row, 12);
		if (prom_batch_is_late() && row + 1 < n)
			return PROM_READ_ON;
	}
	batch->is_all = n < CHUNK;
	return batch->is_all ? PROM_READ_ALL : PROM_READ_ON;
}

/* How many there are at first. */
static int
begin(PromBatch *batch, const char *base)
{
	MemoryContext before;
	int n;

	prom_position_read(DirectFunctionCall1(pg_snapshot_in,
										   CStringGetDatum(base)),
					   &batch->base);
	prom_position_now(&batch->bound);
	if (!prom_position_precedes(&batch->base, &batch->bound))
		return 0;
	batch->begun = place_within(base);
	batch->done = nothing;
	n = read_chunk(batch);
	if (n == 0)
		return 0;
	prom_batch_begin(batch, prom_row_time(0, 8));
	before = MemoryContextSwitchTo(batch->context);
	batch->base_text = pstrdup(base);
	MemoryContextSwitchTo(before);
	prom_batch_keep(batch, &batch->base);
	prom_batch_keep(batch, &batch->bound);
	return n;
}

PromReading
prom_spans_read(PromBatch *batch)
{
	char *base;
	int n;

	if (batch->is_begun)
		return read_rows(batch, read_chunk(batch));
	base = find_base();
	if (base == NULL)
		return PROM_READ_ABSENT;
	n = begin(batch, base);
	return n == 0 ? PROM_READ_NOTHING : read_rows(batch, n);
}

/* Somebody may have let it begin again meanwhile: then it does. */
void
prom_spans_move(PromBatch *batch)
{
	Datum values[2];

	values[0] = CStringGetTextDatum(place_behind(batch));
	values[1] = CStringGetTextDatum(batch->base_text);
	prom_statement_run(&move_statement, values, NULL, false);
	if (SPI_processed == 0)
		batch->done.xid = 0;
}

void
prom_spans_moved(const PromBatch *batch)
{
	MemoryContext before;

	/* Of none: it is where it was. */
	if (!batch->is_all && batch->done.xid == 0)
		return;
	prom_spans_forget();
	if (batch->is_all)
		return;
	before = MemoryContextSwitchTo(batch->context);
	resume = batch->done;
	resume_base = strdup(place_behind(batch));
	MemoryContextSwitchTo(before);
}

void
prom_spans_forget(void)
{
	free(resume_base);
	resume_base = NULL;
}
