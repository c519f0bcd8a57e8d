/*
 * export_tree.c
 *	  Reads trees of tasks to be exported.
 *
 * Ends of tasks are read as events, by a consumer (consumer.c), so that none is
 * skipped, whatever the order of commits; the last of a tree takes the tree
 * along (prometheus._tree), if its trace is sampled as it is then (sampler.c).
 * A tree with more spans than one request may have goes in several, and the
 * position is moved after the last.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "consumer.h"
#include "export.h"
#include "export_batch.h"
#include "fault.h"
#include "readahead.h"
#include "xact.h"

#define ENTRIES 256 /* ends that are looked at together */

/* Of the tree that the next batch begins with. */
static PromPart part;


/* One tree of tasks. */

static PromStatement tree_statement = {
	"SELECT t.is_last, t.task_ids, t.root_span, t.trace_id"
	" FROM prometheus._tree($1, $2, $3, $4::pg_snapshot, $5::pg_snapshot) t",
	5,
	{INT8OID, TIMESTAMPTZOID, INT8OID, TEXTOID, TEXTOID},
	NULL,
};

/*
 * Of one task: the view finds that by indexes in each of its branches.  Of
 * small ones several have been read together (readahead.c).
 */
static PromStatement spans_statement = {
	"SELECT " PROM_TASK_SPAN_COLUMNS " FROM prometheus._every_span s"
	" WHERE s.task_id = $1 AND s.ended_at IS NOT NULL"
	" AND (s.started_at, s.span_id) > ($2, $3)"
	" ORDER BY s.started_at, s.span_id LIMIT $4",
	4,
	{INT8OID, TIMESTAMPTZOID, TEXTOID, INT8OID},
	NULL,
};

typedef struct Tree
{
	PromBatch *batch;
	const PromEntry *entry;
	const char *root_span;
	PromSampled sampled;
	PromPart from; /* where it goes on */
	bool waits;    /* for what was left out before it */
} Tree;

bool
prom_trees_add_task(PromBatch *batch, int64 task_id, int64 event_id,
					const PromPart *from, const char *trace_state,
					const char *root_span)
{
	bool goes_on = from->event_id != 0 && from->task_id == task_id;
	uint64 room = PROM_EXPORT_SPANS - batch->request.spans;
	bool is_read;
	Datum values[4];
	uint64 row = 0;
	uint64 beyond;

	is_read = !goes_on && prom_readahead_find(task_id, &row, &beyond);
	if (!is_read)
	{
		values[0] = Int64GetDatum(task_id);
		values[1] = TimestampTzGetDatum(goes_on ? from->started_at
												: DT_NOBEGIN);
		values[2] = CStringGetTextDatum(goes_on ? from->span_id : "");
		values[3] = Int64GetDatum(room + 1);
		prom_statement_run(&spans_statement, values, NULL, false);
		beyond = SPI_processed;
	}
	for (; row < beyond && !prom_batch_is_full(batch); row++)
	{
		const char *span_id = prom_row_text(row, 2);

		if (!prom_batch_add_row(batch, row, trace_state,
								strcmp(span_id, root_span) == 0))
			batch->dropped++;
		batch->part.event_id = event_id;
		batch->part.task_id = task_id;
		batch->part.started_at = prom_row_time(row, 7);
		strlcpy(batch->part.span_id, span_id, sizeof(batch->part.span_id));
	}
	if (is_read)
		return row == beyond;
	SPI_freetuptable(SPI_tuptable);
	/* What was dropped took no room: there may be more. */
	return row == beyond && row <= room;
}

/* As much of a tree as there is room for. */
static void
add_tasks(Tree *tree, const int64 *task_ids, int n)
{
	int i = 0;

	while (tree->from.event_id != 0 && i < n &&
		   task_ids[i] < tree->from.task_id)
		i++;
	for (; i < n; i++)
		if (!prom_trees_add_task(tree->batch, task_ids[i],
								 tree->entry->place.event_id, &tree->from,
								 tree->sampled.trace_state, tree->root_span))
			return;
	tree->batch->part.event_id = 0;
}

/* Must what came by of its trace before go first? */
static bool
waits_for_omitted(Tree *tree, const pg_uuid_t *trace_id)
{
	PromSpanPlace place;
	char *base;

	if (!tree->sampled.has_omitted || tree->from.event_id != 0)
		return false;
	prom_spans_find_place(&base, &place);
	if (prom_omitted_ask(trace_id, tree->entry->task_id, &tree->batch->window,
						 base, &place))
		return true;
	prom_sampler_keep(tree->batch->sampler, trace_id);
	return false;
}

static void
add_tree(void *arg)
{
	Tree *tree = arg;
	const PromEntry *entry = tree->entry;
	PromBatch *batch = tree->batch;
	PromWindow *window = &batch->window;
	Datum values[5];
	Datum tasks;
	pg_uuid_t trace_id;
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
	trace_id = *prom_row_uuid(0, 4);
	prom_sampler_tree(batch->sampler, &trace_id, tasks, entry->task_id,
					  &tree->sampled);
	prom_readahead_learn(tree->sampled.is_sampled);
	if (!tree->sampled.is_sampled)
	{
		batch->unsampled++;
		return;
	}
	tree->waits = waits_for_omitted(tree, &trace_id);
	if (tree->waits)
		return;
	add_tasks(tree, task_ids, n);
	if (batch->part.event_id == 0)
		batch->traces++;
}

/* False: it cannot be read now, or waits. */
static bool
try_to_add(PromBatch *batch, const PromEntry *entry, bool *waits)
{
	Tree tree = {.batch = batch, .entry = entry};
	bool is_done;

	if (part.event_id == entry->place.event_id)
		tree.from = part;
	is_done = prom_batch_try(batch, add_tree, &tree);
	*waits = is_done && tree.waits;
	return is_done && !tree.waits;
}


/* Reading. */

/* The first look: where the consumer is, and what there is behind that. */
static int
begin(PromBatch *batch, PromEntry **entries, bool *all)
{
	MemoryContext before;
	int n = prom_consumer_read(PROM_CONSUMER_EXPORT, ENTRIES, &batch->window,
							   &batch->place, entries, all);

	if (n <= 0)
		return n;
	/* What SPI's context has does not outlive the turn. */
	prom_batch_begin(batch, (*entries)[0].place.at);
	before = MemoryContextSwitchTo(batch->context);
	batch->place = pstrdup(batch->place);
	batch->window.name = PROM_CONSUMER_EXPORT;
	batch->window.types = DatumGetArrayTypePCopy(
		PointerGetDatum(batch->window.types));
	MemoryContextSwitchTo(before);
	prom_batch_keep(batch, &batch->window.base.position);
	prom_batch_keep(batch, &batch->window.bound.position);
	return n;
}

/* Go through some ends. */
static PromReading
read_entries(PromBatch *batch, const PromEntry *entries, int n, bool all)
{
	bool waits;

	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		prom_readahead(&entries[i], n - i);
		if (!try_to_add(batch, &entries[i], &waits))
			return waits || batch->request.spans > 0 ? PROM_READ_ALL
													 : PROM_READ_ON;
		if (batch->part.event_id != 0)
			return PROM_READ_ALL;
		part.event_id = 0;
		batch->window.done = entries[i].place;
		if (prom_batch_is_full(batch) && (i + 1 < n || !all))
			return PROM_READ_ALL;
		if (prom_batch_is_late() && !prom_readahead_has_more() &&
			(i + 1 < n || !all))
			return PROM_READ_ON;
	}
	if (all)
		prom_window_close(&batch->window);
	return all ? PROM_READ_ALL : PROM_READ_ON;
}

PromReading
prom_trees_read(PromBatch *batch)
{
	PromEntry *entries;
	bool all;
	int n;

	if (!batch->is_begun)
	{
		n = begin(batch, &entries, &all);
		if (n <= 0)
			return n == 0 ? PROM_READ_NOTHING : PROM_READ_ABSENT;
	}
	else
		n = prom_window_next(&batch->window, ENTRIES, &entries, &all);
	return read_entries(batch, entries, n, n == 0 || all);
}

/* Somebody may have let it begin again meanwhile: then it does. */
void
prom_trees_move(PromBatch *batch)
{
	if (!prom_consumer_move(PROM_CONSUMER_EXPORT, batch->place,
							&batch->window))
		batch->part.event_id = 0;
}

void
prom_trees_moved(const PromBatch *batch)
{
	part = batch->part;
}

void
prom_trees_forget(void)
{
	part.event_id = 0;
}
