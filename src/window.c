/*
 * window.c
 *	  Finds the events that have come between two positions.
 *
 * They are in the order of time.  Who wrote an event because of another one did
 * so later, and his transaction is in the same window or in one after it: so
 * both come in their order.
 *
 * A window is all that is new, or, for who is far behind, goes to the first of
 * some marks that make it large enough.  Of the windows that were used last the
 * next events are kept in memory, so that a session which goes on reads each of
 * them once.  What is kept was judged by the roles of then, so it goes when one
 * of these changes.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"

#include "mark.h"
#include "role.h"
#include "window.h"
#include "xact.h"

#define PREFIX 50000   /* events of a window that are kept, */
#define WINDOWS 8      /* of so many windows, */
#define ENTRIES 200000 /* and of all of them together */

const PromPlace prom_window_beginning = {DT_NOBEGIN, PG_INT64_MIN};

/* Of a consumer's window, the first after a place. */
typedef struct Kept
{
	MemoryContext context; /* NULL: nothing */
	char *name;
	char *key; /* which window it is; NULL: the rest does not count */
	PromPlace after;
	PromEntry *entries;
	int n;
	bool complete; /* the window has no more */
	uint64 used;   /* the higher the later */
} Kept;

static Kept kept[WINDOWS];


/* Marks and edges. */

static bool
read_edge(PromEdge *edge)
{
	bool isnull;

	if (SPI_processed == 0)
		return false;
	edge->mark_id = prom_row_int64(0, 1);
	edge->at = prom_row_time(0, 2);
	prom_position_read(SPI_getbinval(SPI_tuptable->vals[0],
									 SPI_tuptable->tupdesc, 3, &isnull),
					   &edge->position);
	return true;
}

/* A mark, or if that is not kept any more the next one. */
static bool
find_mark(int64 mark_id, PromEdge *edge)
{
	static PromStatement statement = {
		"SELECT m.mark_id, m.at, m.snapshot FROM prometheus._mark m"
		" WHERE m.mark_id OPERATOR(pg_catalog.>=) $1"
		" ORDER BY m.mark_id LIMIT 1",
		1,
		{INT8OID},
		NULL,
	};
	Datum value = Int64GetDatum(mark_id);

	prom_statement_run_now(&statement, &value);
	return read_edge(edge);
}

/* The last one at or before a moment. */
static bool
find_mark_at(TimestampTz at, PromEdge *edge)
{
	static PromStatement statement = {
		"SELECT m.mark_id, m.at, m.snapshot FROM prometheus._mark m"
		" WHERE m.at OPERATOR(pg_catalog.<=) $1"
		" ORDER BY m.at DESC LIMIT 1",
		1,
		{TIMESTAMPTZOID},
		NULL,
	};
	Datum value = TimestampTzGetDatum(at);

	prom_statement_run_now(&statement, &value);
	return read_edge(edge);
}

static void
edge_now(PromEdge *edge)
{
	edge->mark_id = prom_mark_newest();
	edge->at = GetCurrentTimestamp();
	prom_position_now(&edge->position);
}

void
prom_window_start(PromWindow *window, bool is_now, TimestampTz start)
{
	PromEdge *edge = &window->base;
	PromEdge first;

	if (is_now)
	{
		edge_now(edge);
		return;
	}
	if (start > GetCurrentTimestamp())
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("start must not be in the future"),
						errhint("Without the argument it begins at this moment.")));
	if (find_mark_at(start, edge))
		return;
	prom_position_begin(&edge->position);
	edge->mark_id = 0;
	edge->at = find_mark(0, &first) ? first.at : GetCurrentTimestamp();
}

int64
prom_window_behind(const PromWindow *window)
{
	PromEdge newest;

	if (!find_mark_at(DT_NOEND, &newest))
		return 0;
	return Max(newest.at - window->base.at, 0);
}


/* A type as LIKE understands it. */
static Datum
pattern_of(const char *type)
{
	StringInfoData pattern;

	initStringInfo(&pattern);
	for (const char *c = type; *c != '\0'; c++)
	{
		if (*c == '_')
			appendStringInfoChar(&pattern, '\\');
		appendStringInfoChar(&pattern, *c == '*' ? '%' : *c);
	}
	return CStringGetTextDatum(pattern.data);
}

static Datum
patterns_of(ArrayType *types)
{
	Datum all = CStringGetTextDatum("%");
	Datum *elements = &all;
	bool *nulls;
	int n = 1;

	if (types != NULL)
	{
		deconstruct_array(types, TEXTOID, -1, false, TYPALIGN_INT, &elements,
						  &nulls, &n);
		for (int i = 0; i < n; i++)
			elements[i] = pattern_of(TextDatumGetCString(elements[i]));
	}
	return PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false,
										   TYPALIGN_INT));
}


/* What is in a window. */

bool
prom_window_is_after(const PromPlace *a, const PromPlace *b)
{
	return a->at > b->at || (a->at == b->at && a->event_id > b->event_id);
}

/* Run a statement about what is between the base and a bound, after a place. */
static void
run_between(PromStatement *statement, const PromWindow *window,
			const PromEdge *bound, const PromPlace *after, int64 most)
{
	Datum values[7];

	values[0] = ObjectIdGetDatum(window->reader);
	values[1] = patterns_of(window->types);
	(void) prom_position_between(&window->base.position, &bound->position,
								 &values[2], &values[3]);
	values[4] = TimestampTzGetDatum(after->at);
	values[5] = Int64GetDatum(after->event_id);
	values[6] = Int64GetDatum(most);
	prom_statement_run_now(statement, values);
}

static PromStatement next_statement = {
	"SELECT o.at, o.event_id, o.task_id"
	" FROM prometheus._occurrences($1, $2, $3, $4) o"
	" WHERE o.wanted AND (o.at, o.event_id) OPERATOR(pg_catalog.>) ($5, $6)"
	" ORDER BY o.at, o.event_id LIMIT $7",
	7,
	{OIDOID, TEXTARRAYOID, XID8ARRAYOID, XID8ARRAYOID, TIMESTAMPTZOID, INT8OID,
	 INT8OID},
	NULL};

/* Among the first so many of all: what is rare is not looked for. */
static PromStatement count_statement = {
	"SELECT pg_catalog.count(*) FROM (SELECT o.at, o.event_id, o.wanted"
	" FROM prometheus._occurrences($1, $2, $3, $4) o LIMIT $7) o"
	" WHERE o.wanted AND (o.at, o.event_id) OPERATOR(pg_catalog.>) ($5, $6)",
	7,
	{OIDOID, TEXTARRAYOID, XID8ARRAYOID, XID8ARRAYOID, TIMESTAMPTZOID, INT8OID,
	 INT8OID},
	NULL};

static char *
key_of(const PromWindow *window)
{
	return psprintf(UINT64_FORMAT " %u %s %s %s", prom_role_changes(),
					window->reader, prom_position_text(&window->base.position),
					prom_position_text(&window->bound.position),
					OidOutputFunctionCall(F_ARRAY_OUT,
										  patterns_of(window->types)));
}


/* What is kept. */

static void
forget(Kept *one)
{
	if (one->context != NULL)
		MemoryContextDelete(one->context);
	memset(one, 0, sizeof(*one));
}

static Kept *
find_kept(const char *name)
{
	for (int i = 0; i < WINDOWS; i++)
		if (kept[i].key != NULL && strcmp(kept[i].name, name) == 0)
			return &kept[i];
	return NULL;
}

/* A free place, with room for so many; what was used longest ago goes. */
static Kept *
make_room(int n)
{
	for (;;)
	{
		Kept *unused = NULL;
		Kept *oldest = NULL;
		int all = n;

		for (int i = 0; i < WINDOWS; i++)
		{
			all += kept[i].n;
			if (kept[i].context == NULL)
				unused = &kept[i];
			else if (oldest == NULL || kept[i].used < oldest->used)
				oldest = &kept[i];
		}
		if (unused != NULL && (all <= ENTRIES || oldest == NULL))
			return unused;
		forget(oldest);
	}
}

/* The rows that were read. */
static Kept *
keep_rows(const char *name, const char *key, int n)
{
	Kept *one = make_room(n);

	one->context = AllocSetContextCreate(CacheMemoryContext,
										 "prometheus window of events",
										 ALLOCSET_SMALL_SIZES);
	one->name = MemoryContextStrdup(one->context, name);
	one->entries = MemoryContextAlloc(one->context,
									  Max(n, 1) * sizeof(PromEntry));
	for (int i = 0; i < n; i++)
	{
		one->entries[i].place.at = prom_row_time(i, 1);
		one->entries[i].place.event_id = prom_row_int64(i, 2);
		one->entries[i].task_id = prom_row_int64_or(i, 3, 0);
	}
	one->n = n;
	one->key = MemoryContextStrdup(one->context, key);
	return one;
}

static Kept *
keep_events(const PromWindow *window, const char *key, const PromPlace *after,
			int want)
{
	Kept *one = find_kept(window->name);
	int64 most = Max(want, PREFIX);

	if (one != NULL)
		forget(one);
	run_between(&next_statement, window, &window->bound, after, most + 1);
	one = keep_rows(window->name, key, Min(SPI_processed, most));
	one->complete = SPI_processed <= most;
	one->after = *after;
	SPI_freetuptable(SPI_tuptable);
	return one;
}

int
prom_window_next(const PromWindow *window, int want, PromEntry **entries,
				 bool *all)
{
	static uint64 uses;
	const PromPlace *after = &window->done;
	char *key = key_of(window);
	Kept *one = find_kept(window->name);
	int first = 0;
	int high;

	if (one == NULL || strcmp(one->key, key) != 0 ||
		prom_window_is_after(&one->after, after))
		one = keep_events(window, key, after, want);
	high = one->n;
	while (first < high)
	{
		int middle = (first + high) / 2;

		if (prom_window_is_after(&one->entries[middle].place, after))
			high = middle;
		else
			first = middle + 1;
	}
	if (one->n - first < want && !one->complete)
	{
		one = keep_events(window, key, after, want);
		first = 0;
	}
	one->used = ++uses;
	*entries = &one->entries[first];
	*all = one->complete && one->n - first <= want;
	return Min(one->n - first, want);
}

int64
prom_window_task(int64 event_id)
{
	for (int w = 0; w < WINDOWS; w++)
		for (int i = 0; kept[w].key != NULL && i < kept[w].n; i++)
			if (kept[w].entries[i].place.event_id == event_id)
				return kept[w].entries[i].task_id;
	return 0;
}

void
prom_window_close(PromWindow *window)
{
	if (window->is_open)
		window->base = window->bound;
	window->is_open = false;
	window->done = prom_window_beginning;
}

char *
prom_window_place(const PromWindow *window)
{
	return psprintf("%s " INT64_FORMAT " " INT64_FORMAT,
					prom_position_text(&window->base.position),
					window->done.at, window->done.event_id);
}

/* To the 1st, 2nd, 4th, ... mark from the base, and else to now. */
bool
prom_window_open(PromWindow *window, int want)
{
	PromEdge now;
	PromEntry *entries;
	bool is_now;
	bool all;
	int n = 0;
	int64 step = 1;

	edge_now(&now);
	if (!prom_position_precedes(&window->base.position, &now.position))
		return false;
	do
	{
		CHECK_FOR_INTERRUPTS();
		is_now = window->base.mark_id + step >= now.mark_id;
		window->bound = now;
		if (!is_now)
		{
			(void) find_mark(window->base.mark_id + step, &window->bound);
			/* One that was being written when the base was taken. */
			if (!prom_position_precedes(&window->base.position,
										&window->bound.position))
				window->bound = window->base;
		}
		step *= 2;
		window->is_open = true;
		n = prom_window_next(window, want, &entries, &all);
		if (n == 0)
			prom_window_close(window);
		window->is_open = n == want || (n > 0 && is_now);
	} while (!window->is_open && !is_now);
	return true;
}

int64
prom_window_count(const PromWindow *window, int64 most)
{
	PromEdge now = {.at = 0};

	prom_position_look(&now.position);
	if (!prom_position_precedes(&window->base.position, &now.position))
		return 0;
	run_between(&count_statement, window, &now, &window->done, most);
	return prom_row_int64(0, 1);
}

void
prom_window_arrays(const PromEntry *entries, int n, Datum *ids, Datum *tasks)
{
	Datum *id_values = palloc(n * sizeof(Datum));
	Datum *task_values = palloc(n * sizeof(Datum));
	bool *nulls = palloc(n * sizeof(bool));
	int lower = 1;

	for (int i = 0; i < n; i++)
	{
		id_values[i] = Int64GetDatum(entries[i].place.event_id);
		task_values[i] = Int64GetDatum(entries[i].task_id);
		nulls[i] = entries[i].task_id == 0;
	}
	*ids = PointerGetDatum(construct_array(id_values, n, INT8OID,
										   sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
	*tasks = PointerGetDatum(construct_md_array(
		task_values, nulls, 1, &n, &lower, INT8OID, sizeof(int64),
		FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

void
prom_window_read(const PromEntry *entries, int n)
{
	static PromStatement statement = {
		"SELECT e.event_id, e.type, e.task_id, e.agent, e.subject,"
		" e.created_at, e.data, e.caused_by"
		" FROM prometheus._events($1, $2) e",
		2,
		{INT8ARRAYOID, INT8ARRAYOID},
		NULL,
	};
	Datum values[2];

	prom_window_arrays(entries, n, &values[0], &values[1]);
	prom_statement_run_now(&statement, values);
}
