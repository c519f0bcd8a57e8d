/*
 * readahead.c
 *	  Reads the spans of several tasks together, before they are asked for.
 *
 * The view of spans has many branches, and to begin with them takes most of the
 * time that a small task does.  So of the tasks whose ends come next some are
 * read in one statement: more and more while what is read is wanted, and fewer
 * and fewer while traces are not sampled.  Large tasks are not among them.  All
 * of it may fail: what is not there is read by itself when it is asked for.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "fault.h"
#include "readahead.h"
#include "xact.h"

/* So many tasks at a time; of each no more facts of a kind than that. */
#define MOST 16
#define SMALL "16"

static PromStatement small_statement = {
	"SELECT pg_catalog.array_agg(DISTINCT m.task_id)"
	" FROM pg_catalog.unnest($1) m (task_id)"
	" WHERE NOT EXISTS (SELECT FROM prometheus._step x"
	"   WHERE x.task_id OPERATOR(pg_catalog.=) m.task_id OFFSET " SMALL ")"
	" AND NOT EXISTS (SELECT FROM prometheus._call x"
	"   WHERE x.task_id OPERATOR(pg_catalog.=) m.task_id OFFSET " SMALL ")"
	" AND NOT EXISTS (SELECT FROM prometheus._verdict x"
	"   WHERE x.task_id OPERATOR(pg_catalog.=) m.task_id OFFSET " SMALL ")"
	" AND NOT EXISTS (SELECT FROM prometheus._delivery x"
	"   WHERE x.task_id OPERATOR(pg_catalog.=) m.task_id OFFSET " SMALL ")",
	1,
	{INT8ARRAYOID},
	NULL,
};

/* One by one, or a branch may be read as a whole; OFFSET keeps it so. */
static PromStatement spans_statement = {
	"SELECT " PROM_TASK_SPAN_COLUMNS
	" FROM pg_catalog.unnest($1) m (task_id) CROSS JOIN LATERAL"
	" (SELECT x.* FROM prometheus._every_span x"
	"   WHERE x.task_id OPERATOR(pg_catalog.=) m.task_id"
	"   AND x.ended_at IS NOT NULL OFFSET 0) s"
	" ORDER BY s.task_id, s.started_at, s.span_id",
	1,
	{INT8ARRAYOID},
	NULL,
};

typedef struct Reading
{
	const PromEntry *entries;
	int n;
	SPITupleTable *rows;
	uint64 nrows;
} Reading;

static int many = 0;        /* tasks that are read at a time; 0: none */
static int left;            /* of the entries that were read of, to come */
static SPITupleTable *rows; /* of SPI's context; NULL: none */
static uint64 nrows;

void
prom_readahead_begin(void)
{
	left = 0;
	rows = NULL;
	nrows = 0;
}

void
prom_readahead_learn(bool wanted)
{
	many = wanted ? Min(many * 2 + 1, MOST) : many / 2;
}

/* In a subtransaction. */
static void
read_spans(void *arg)
{
	Reading *reading = arg;
	int64 task_ids[MOST];
	Datum value;
	bool isnull;

	PROM_FAULT("export-in-readahead");
	for (int i = 0; i < reading->n; i++)
		task_ids[i] = reading->entries[i].task_id;
	value = PointerGetDatum(prom_int8_array(task_ids, reading->n));
	prom_statement_run(&small_statement, &value, NULL, false);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						  &isnull);
	if (isnull)
		return;
	prom_statement_run(&spans_statement, &value, NULL, false);
	reading->rows = SPI_tuptable;
	reading->nrows = SPI_processed;
}

void
prom_readahead(const PromEntry *entries, int n)
{
	Reading reading = {.entries = entries, .n = Min(n, many)};

	if (left > 0)
	{
		left--;
		return;
	}
	if (rows != NULL)
		SPI_freetuptable(rows);
	prom_readahead_begin();
	if (reading.n < 2 || prom_xact_try(read_spans, &reading) != NULL)
		return;
	left = reading.n - 1;
	rows = reading.rows;
	nrows = reading.nrows;
}

bool
prom_readahead_has_more(void)
{
	return left > 0;
}

static int64
task_of(uint64 row)
{
	bool isnull;

	return DatumGetInt64(SPI_getbinval(rows->vals[row], rows->tupdesc,
									   rows->tupdesc->natts, &isnull));
}

bool
prom_readahead_find(int64 task_id, uint64 *first, uint64 *beyond)
{
	uint64 row = 0;

	while (row < nrows && task_of(row) < task_id)
		row++;
	*first = row;
	while (row < nrows && task_of(row) == task_id)
		row++;
	*beyond = row;
	if (*first == *beyond)
		return false;
	SPI_tuptable = rows;
	SPI_processed = nrows;
	return true;
}
