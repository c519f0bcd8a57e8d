/*
 * metric.c
 *	  Counts and times, in shared memory.
 *
 * Each database has a table of series, one for each set of labels that a metric
 * was seen with, and one of the texts that labels have.  Both only grow: what
 * is in them is found without a lock, by an index whose entries are written
 * last, and mutex is taken to add something.  Numbers are atomics that any
 * process adds to; a bucket before its sum, which readers take the other way
 * round: so there is no sum of nothing.
 *
 * Cardinality is bounded twice.  Of agents and of models the first so many have
 * labels of their own (max_names), and when the table is full all that is new
 * of a metric is one series, for which there is always room.
 *
 * A crash of the server loses all of it, with the shared memory.  Series then
 * begin anew, and each says since when it has been counted.
 *
 * What is counted in a transaction waits in this process until it commits, so
 * that what was rolled back, and is done again, counts once.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "storage/spin.h"
#include "utils/memutils.h"

#include "guc.h"
#include "metric.h"

/* Words that the code has, as labels. */
#define MAX_WORDS 200

/* The label of what has none of its own any more. */
#define OTHER 1

typedef struct Label
{
	PromLabelKind kind;
	char text[PROM_MAX_NAME + 1];
} Label;

/* changes is odd while one is written. */
typedef struct Example
{
	pg_atomic_uint32 changes;
	PromExemplar exemplar;
} Example;

typedef struct Series
{
	PromMetricId id;
	PromLabelNumber labels[PROM_METRIC_LABELS];
	TimestampTz created;
	pg_atomic_uint64 sum; /* of a counter, all of it */
	pg_atomic_uint64 buckets[PROM_METRIC_BOUNDS + 1];
	Example examples[PROM_METRIC_BOUNDS + 1];
} Series;

/* Numbers, from 1, of the entries of a table, by their hashes. */
typedef struct Finder
{
	uint32 mask;
	pg_atomic_uint32 *places;
} Finder;

struct PromMetrics
{
	slock_t mutex; /* who adds a label or a series */
	pg_atomic_uint32 generation;
	pg_atomic_uint32 nlabels;
	pg_atomic_uint32 nseries;
	int counts[PROM_NLABELKINDS]; /* of labels, by kind */
	Finder by_text;
	Finder by_labels;
	Label *labels;
	Series *series;
};

/* What waits for the commit. */
typedef struct Pending
{
	PromMetrics *metrics;
	uint32 generation;
	uint32 series;
	SubTransactionId subxact;
	int64 value;
	PromExemplar exemplar;
} Pending;

static Pending *pending = NULL;
static int npending = 0;
static int pending_room = 0;


/* Sizes. */

static int
max_names(void)
{
	return Max(prom_guc_metric_series / 20, 5);
}

static int
max_labels(void)
{
	return MAX_WORDS + (PROM_NLABELKINDS - 1) * max_names() + OTHER;
}

/* With those that series become when there is no room. */
static int
max_series(void)
{
	return prom_guc_metric_series + PROM_NMETRICS;
}

/* Twice what is to be found, and a power of two. */
static uint32
finder_size(int n)
{
	uint32 size = 64;

	while (size < 2 * (uint32) n)
		size *= 2;
	return size;
}

static Size
part_size(int n, Size size)
{
	return MAXALIGN(mul_size(n, size));
}

Size
prom_metric_size(void)
{
	Size size = MAXALIGN(sizeof(PromMetrics));

	size = add_size(size, part_size(max_labels(), sizeof(Label)));
	size = add_size(size, part_size(max_series(), sizeof(Series)));
	size = add_size(size, part_size(finder_size(max_labels()),
									sizeof(pg_atomic_uint32)));
	return add_size(size, part_size(finder_size(max_series()),
									sizeof(pg_atomic_uint32)));
}

static void
init_finder(Finder *index, int n, char **space)
{
	uint32 size = finder_size(n);

	index->mask = size - 1;
	index->places = (pg_atomic_uint32 *) *space;
	for (uint32 i = 0; i < size; i++)
		pg_atomic_init_u32(&index->places[i], 0);
	*space += part_size(size, sizeof(pg_atomic_uint32));
}

void
prom_metric_init(PromDatabase *db, void *space)
{
	PromMetrics *metrics = space;
	char *rest = (char *) space + MAXALIGN(sizeof(PromMetrics));

	memset(metrics, 0, sizeof(PromMetrics));
	SpinLockInit(&metrics->mutex);
	pg_atomic_init_u32(&metrics->generation, 0);
	pg_atomic_init_u32(&metrics->nlabels, 0);
	pg_atomic_init_u32(&metrics->nseries, 0);
	metrics->labels = (Label *) rest;
	rest += part_size(max_labels(), sizeof(Label));
	metrics->series = (Series *) rest;
	rest += part_size(max_series(), sizeof(Series));
	init_finder(&metrics->by_text, max_labels(), &rest);
	init_finder(&metrics->by_labels, max_series(), &rest);
	db->metrics = metrics;
	prom_metric_reset(db);
}


/* Labels and series.  Numbers are from 1; 0 is not there. */

static uint32
find_label(PromMetrics *metrics, PromLabelKind kind, const char *text,
		   uint32 hash, uint32 *place)
{
	Finder *index = &metrics->by_text;

	for (uint32 i = hash;; i++)
	{
		uint32 number = pg_atomic_read_u32(&index->places[i & index->mask]);

		*place = i & index->mask;
		pg_read_barrier();
		if (number == 0 ||
			(metrics->labels[number - 1].kind == kind &&
			 strcmp(metrics->labels[number - 1].text, text) == 0))
			return number;
	}
}

static uint32
add_label(PromMetrics *metrics, PromLabelKind kind, const char *text,
		  uint32 hash)
{
	int limit = kind == PROM_LABEL_WORD ? MAX_WORDS : max_names();
	uint32 place;
	uint32 number;

	SpinLockAcquire(&metrics->mutex);
	number = find_label(metrics, kind, text, hash, &place);
	if (number == 0 && metrics->counts[kind] < limit)
	{
		number = pg_atomic_read_u32(&metrics->nlabels) + 1;
		metrics->labels[number - 1].kind = kind;
		strlcpy(metrics->labels[number - 1].text, text, PROM_MAX_NAME + 1);
		metrics->counts[kind]++;
		pg_atomic_write_u32(&metrics->nlabels, number);
		pg_write_barrier();
		pg_atomic_write_u32(&metrics->by_text.places[place], number);
	}
	SpinLockRelease(&metrics->mutex);
	return number == 0 ? OTHER : number;
}

PromLabelNumber
prom_metric_label(PromDatabase *db, PromLabelKind kind, const char *text)
{
	char clipped[PROM_MAX_NAME + 1];
	uint32 hash;
	uint32 place;
	uint32 number;

	if (db == NULL || text == NULL || *text == '\0')
		return 0;
	if (strlen(text) > PROM_MAX_NAME)
	{
		int length = pg_mbcliplen(text, strlen(text), PROM_MAX_NAME);

		memcpy(clipped, text, length);
		clipped[length] = '\0';
		text = clipped;
	}
	/* Whose name it is shares the series of those without one. */
	if (strcmp(text, "other") == 0)
		return OTHER;
	hash = prom_hash_name(text) + kind;
	number = find_label(db->metrics, kind, text, hash, &place);
	if (number == 0)
		number = add_label(db->metrics, kind, text, hash);
	return (PromLabelNumber) number;
}

static uint32
hash_series(PromMetricId id, const PromLabelNumber *labels)
{
	return hash_bytes((const unsigned char *) labels,
					  PROM_METRIC_LABELS * sizeof(PromLabelNumber)) ^
		   hash_bytes_uint32(id);
}

static uint32
find_series(PromMetrics *metrics, PromMetricId id,
			const PromLabelNumber *labels, uint32 *place)
{
	Finder *index = &metrics->by_labels;

	for (uint32 i = hash_series(id, labels);; i++)
	{
		uint32 number = pg_atomic_read_u32(&index->places[i & index->mask]);
		Series *series = &metrics->series[number == 0 ? 0 : number - 1];

		*place = i & index->mask;
		pg_read_barrier();
		if (number == 0 ||
			(series->id == id &&
			 memcmp(series->labels, labels, sizeof(series->labels)) == 0))
			return number;
	}
}

static void
init_series(Series *series, PromMetricId id, const PromLabelNumber *labels,
			TimestampTz now)
{
	memset(series, 0, sizeof(Series));
	series->id = id;
	memcpy(series->labels, labels, sizeof(series->labels));
	series->created = now;
	pg_atomic_init_u64(&series->sum, 0);
	for (int i = 0; i <= PROM_METRIC_BOUNDS; i++)
	{
		pg_atomic_init_u64(&series->buckets[i], 0);
		pg_atomic_init_u32(&series->examples[i].changes, 0);
	}
}

/* room: so many series there may be.  0: there were. */
static uint32
add_series(PromMetrics *metrics, PromMetricId id,
		   const PromLabelNumber *labels, int room)
{
	TimestampTz now = GetCurrentTimestamp();
	uint32 place;
	uint32 number;
	uint32 n;

	SpinLockAcquire(&metrics->mutex);
	number = find_series(metrics, id, labels, &place);
	n = pg_atomic_read_u32(&metrics->nseries);
	if (number == 0 && n < (uint32) room)
	{
		number = n + 1;
		init_series(&metrics->series[n], id, labels, now);
		pg_write_barrier();
		pg_atomic_write_u32(&metrics->nseries, number);
		pg_atomic_write_u32(&metrics->by_labels.places[place], number);
	}
	SpinLockRelease(&metrics->mutex);
	return number;
}

/* What there is no room for is one series, whose labels all say so. */
static uint32
fold_series(PromMetrics *metrics, PromMetricId id)
{
	static const PromLabelNumber none[PROM_METRIC_LABELS] = {0};
	PromLabelNumber labels[PROM_METRIC_LABELS] = {0};
	uint32 place;
	uint32 number;
	uint32 folded;

	for (int i = 0; i < PROM_METRIC_LABELS; i++)
		if (prom_metrics[id].labels[i].name != NULL)
			labels[i] = OTHER;
	number = find_series(metrics, id, labels, &place);
	if (number == 0)
		number = add_series(metrics, id, labels, max_series());
	/* It is always there, but while all begins anew. */
	folded = find_series(metrics, PROM_METRIC_FOLDED, none, &place);
	if (folded != 0)
		pg_atomic_fetch_add_u64(&metrics->series[folded - 1].sum, 1);
	return number;
}

static uint32
get_series(PromMetrics *metrics, PromMetricId id,
		   const PromLabelNumber *labels)
{
	PromLabelNumber all[PROM_METRIC_LABELS] = {0};
	uint32 place;
	uint32 number;

	for (int i = 0;
		 i < PROM_METRIC_LABELS && prom_metrics[id].labels[i].name != NULL; i++)
		all[i] = labels[i];
	number = find_series(metrics, id, all, &place);
	if (number == 0)
		number = add_series(metrics, id, all, prom_guc_metric_series);
	if (number == 0)
		number = fold_series(metrics, id);
	return number;
}

void
prom_metric_reset(PromDatabase *db)
{
	static const PromLabelNumber none[PROM_METRIC_LABELS] = {0};
	PromMetrics *metrics = db->metrics;

	LWLockAcquire(db->gate_lock, LW_EXCLUSIVE);
	SpinLockAcquire(&metrics->mutex);
	pg_atomic_fetch_add_u32(&metrics->generation, 1);
	for (uint32 i = 0; i <= metrics->by_text.mask; i++)
		pg_atomic_write_u32(&metrics->by_text.places[i], 0);
	for (uint32 i = 0; i <= metrics->by_labels.mask; i++)
		pg_atomic_write_u32(&metrics->by_labels.places[i], 0);
	memset(metrics->counts, 0, sizeof(metrics->counts));
	pg_atomic_write_u32(&metrics->nseries, 0);
	pg_atomic_write_u32(&metrics->nlabels, OTHER);
	metrics->labels[OTHER - 1].kind = PROM_NLABELKINDS;
	strlcpy(metrics->labels[OTHER - 1].text, "other", PROM_MAX_NAME + 1);
	SpinLockRelease(&metrics->mutex);
	/* What has no labels is there from the beginning. */
	for (int id = 0; id < PROM_NMETRICS; id++)
		if (prom_metrics[id].labels[0].name == NULL)
			(void) add_series(metrics, id, none, max_series());
	LWLockRelease(db->gate_lock);
}


/* Counting. */

/* Who finds one being written has one that is as good. */
static void
put_example(Example *example, const PromExemplar *exemplar)
{
	uint32 changes = pg_atomic_read_u32(&example->changes);

	if (changes % 2 == 1 ||
		!pg_atomic_compare_exchange_u32(&example->changes, &changes,
										changes + 1))
		return;
	example->exemplar = *exemplar;
	pg_write_barrier();
	pg_atomic_write_u32(&example->changes, changes + 2);
}

static bool
has_trace(const PromExemplar *exemplar)
{
	static const uint8 none[sizeof(exemplar->trace_id)] = {0};

	return memcmp(exemplar->trace_id, none, sizeof(none)) != 0;
}

/* The bounds belong to their buckets; they are whole, but for rounding. */
static int
bucket_of(const PromMetric *metric, int64 value)
{
	int i = 0;

	while (i < metric->nbounds &&
		   value > metric->bounds[i] * metric->scale + 0.5)
		i++;
	return i;
}

static void
apply(PromMetrics *metrics, uint32 number, int64 value,
	  const PromExemplar *exemplar)
{
	Series *series = &metrics->series[number - 1];
	const PromMetric *metric = &prom_metrics[series->id];

	if (metric->type == PROM_HISTOGRAM)
	{
		int i = bucket_of(metric, value);

		pg_atomic_fetch_add_u64(&series->buckets[i], 1);
		if (has_trace(exemplar))
			put_example(&series->examples[i], exemplar);
	}
	pg_atomic_fetch_add_u64(&series->sum, value);
}

static void
grow_pending(void)
{
	int room = pending_room == 0 ? 64 : 2 * pending_room;

	if (pending == NULL)
		pending = MemoryContextAlloc(TopMemoryContext, room * sizeof(Pending));
	else
		pending = repalloc_huge(pending, room * sizeof(Pending));
	pending_room = room;
}

/* Until the commit; the same counter again is one. */
static void
add_pending(PromMetrics *metrics, uint32 number, bool merges, int64 value,
			const PromExemplar *exemplar)
{
	SubTransactionId subxact = GetCurrentSubTransactionId();
	Pending *last = npending == 0 ? NULL : &pending[npending - 1];

	if (merges && last != NULL && last->metrics == metrics &&
		last->series == number && last->subxact == subxact)
	{
		last->value += value;
		return;
	}
	if (npending == pending_room)
		grow_pending();
	pending[npending++] = (Pending){
		.metrics = metrics,
		.generation = pg_atomic_read_u32(&metrics->generation),
		.series = number,
		.subxact = subxact,
		.value = value,
		.exemplar = *exemplar,
	};
}

static void
put(PromDatabase *db, PromMetricId id, const PromLabelNumber *labels,
	int64 value, const PromExemplar *exemplar)
{
	static const PromExemplar none; /* all 0 */
	uint32 number;

	if (db == NULL || value < 0)
		return;
	if (exemplar == NULL)
		exemplar = &none;
	number = get_series(db->metrics, id, labels);
	Assert(number != 0);
	if (IsTransactionState())
		add_pending(db->metrics, number,
					prom_metrics[id].type == PROM_COUNTER, value, exemplar);
	else
		apply(db->metrics, number, value, exemplar);
}

void
prom_metric_add(PromDatabase *db, PromMetricId id,
				const PromLabelNumber *labels, int64 amount)
{
	Assert(prom_metrics[id].type == PROM_COUNTER);
	if (amount != 0)
		put(db, id, labels, amount, NULL);
}

void
prom_metric_observe(PromDatabase *db, PromMetricId id,
					const PromLabelNumber *labels, int64 value,
					const PromExemplar *exemplar)
{
	PromExemplar example;

	Assert(prom_metrics[id].type == PROM_HISTOGRAM);
	/* A clock may have been set back. */
	value = Max(value, 0);
	if (exemplar != NULL)
		example = *exemplar;
	else
		memset(&example, 0, sizeof(example));
	example.value = value;
	put(db, id, labels, value, &example);
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	for (int i = 0; event == XACT_EVENT_COMMIT && i < npending; i++)
	{
		const Pending *one = &pending[i];

		if (pg_atomic_read_u32(&one->metrics->generation) != one->generation)
			continue;
		apply(one->metrics, one->series, one->value, &one->exemplar);
	}
	npending = 0;
}

/* With it end those that were within it, whose numbers are higher. */
static void
subxact_callback(SubXactEvent event, SubTransactionId mine,
				 SubTransactionId parent, void *arg)
{
	int kept = 0;

	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	while (kept < npending && pending[kept].subxact < mine)
		kept++;
	npending = kept;
}

void
prom_metric_begin(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}


/* Reading. */

static void
read_example(Example *example, PromExemplar *exemplar)
{
	uint32 before = pg_atomic_read_u32(&example->changes);

	memset(exemplar, 0, sizeof(*exemplar));
	if (before == 0 || before % 2 == 1)
		return;
	pg_read_barrier();
	*exemplar = example->exemplar;
	pg_read_barrier();
	/* Seldom, and then it has none this time. */
	if (pg_atomic_read_u32(&example->changes) != before)
		memset(exemplar, 0, sizeof(*exemplar));
}

static void
read_series(PromMetrics *metrics, Series *series, PromSample *sample)
{
	const PromMetric *metric = &prom_metrics[series->id];
	int64 sum = (int64) pg_atomic_read_u64(&series->sum);

	memset(sample, 0, sizeof(*sample));
	sample->metric = metric;
	sample->created = series->created;
	for (int i = 0; i < PROM_METRIC_LABELS; i++)
		if (series->labels[i] != 0)
			sample->labels[i] =
				pstrdup(metrics->labels[series->labels[i] - 1].text);
	sample->value = sample->sum = sum / metric->scale;
	if (metric->type != PROM_HISTOGRAM)
		return;
	pg_read_barrier();
	for (int i = 0; i <= metric->nbounds; i++)
	{
		sample->buckets[i] = pg_atomic_read_u64(&series->buckets[i]);
		sample->count += sample->buckets[i];
		read_example(&series->examples[i], &sample->exemplars[i]);
	}
}

static int
compare_samples(const void *a, const void *b)
{
	const PromSample *x = a;
	const PromSample *y = b;

	if (x->metric != y->metric)
		return x->metric < y->metric ? -1 : 1;
	for (int i = 0; i < PROM_METRIC_LABELS; i++)
	{
		int order = strcmp(x->labels[i] == NULL ? "" : x->labels[i],
						   y->labels[i] == NULL ? "" : y->labels[i]);

		if (order != 0)
			return order;
	}
	return 0;
}

PromSample *
prom_metric_read(PromDatabase *db, int *n)
{
	PromSample *samples;

	*n = 0;
	if (db == NULL)
		return NULL;
	LWLockAcquire(db->gate_lock, LW_SHARED);
	*n = pg_atomic_read_u32(&db->metrics->nseries);
	pg_read_barrier();
	samples = palloc_extended(Max(*n, 1) * sizeof(PromSample),
							  MCXT_ALLOC_HUGE);
	for (int i = 0; i < *n; i++)
		read_series(db->metrics, &db->metrics->series[i], &samples[i]);
	LWLockRelease(db->gate_lock);
	qsort(samples, *n, sizeof(PromSample), compare_samples);
	return samples;
}

int
prom_metric_count(PromDatabase *db, int *limit)
{
	*limit = prom_guc_metric_series;
	return db == NULL ? 0 : pg_atomic_read_u32(&db->metrics->nseries);
}
