/*
 * metric.h
 *	  What is counted and timed while tasks run: counters and histograms in
 *	  shared memory.
 *
 * What a metric is stands in a table, prom_metrics, that whoever writes them
 * out in some format walks.
 */
#ifndef PROM_METRIC_H
#define PROM_METRIC_H

#include "shmem.h"

typedef enum PromMetricId
{
	PROM_METRIC_SUBMITTED,
	PROM_METRIC_ENDED,
	PROM_METRIC_ATTEMPTS,
	PROM_METRIC_QUEUE_WAIT,
	PROM_METRIC_TASK,
	PROM_METRIC_STEP,
	PROM_METRIC_OPERATION,
	PROM_METRIC_FIRST_CHUNK,
	PROM_METRIC_TOKEN_USAGE,
	PROM_METRIC_TOKENS,
	PROM_METRIC_COST,
	PROM_METRIC_VERDICTS,
	PROM_METRIC_GATE_CLOSED,
	PROM_METRIC_DELIVERIES,
	PROM_METRIC_DELIVERY,
	PROM_METRIC_MARKS,
	PROM_METRIC_STARTED,
	PROM_METRIC_BUSY,
	PROM_METRIC_WAL,
	PROM_METRIC_FOLDED,
	PROM_NMETRICS
} PromMetricId;

typedef enum PromMetricType
{
	PROM_COUNTER,
	PROM_GAUGE,
	PROM_HISTOGRAM
} PromMetricType;

/*
 * Where the values of a label come from.  Of each kind but the first so many
 * are told from each other, and the others are one, "other".
 */
typedef enum PromLabelKind
{
	PROM_LABEL_WORD, /* one of few, which the code has */
	PROM_LABEL_AGENT,
	PROM_LABEL_MODEL,
	PROM_LABEL_TARGET, /* the provider's name of a model */
	PROM_NLABELKINDS
} PromLabelKind;

#define PROM_METRIC_LABELS 4
#define PROM_METRIC_BOUNDS 14

typedef struct PromMetricLabel
{
	const char *name; /* NULL after the last */
	PromLabelKind kind;
} PromMetricLabel;

/* Names and units are OpenTelemetry's: dots, and UCUM. */
typedef struct PromMetric
{
	const char *name;
	const char *unit; /* "": none */
	const char *help;
	PromMetricType type;
	PromMetricLabel labels[PROM_METRIC_LABELS];
	double scale;         /* so many of what is counted are one unit */
	const double *bounds; /* of the buckets, each with its bound, in units; */
	int nbounds;          /* the last bucket has none */
} PromMetric;

extern const PromMetric prom_metrics[PROM_NMETRICS];

/* Of which span an observation is; all of trace_id 0: of none. */
typedef struct PromExemplar
{
	uint8 trace_id[16];
	int64 span_id; /* 0: not known */
	TimestampTz at;
	int64 value; /* filled in when it is observed */
} PromExemplar;

/* The number of a label's value: 0 is none. */
typedef uint16 PromLabelNumber;

/* Of one set of values of a metric's labels. */
typedef struct PromSample
{
	const PromMetric *metric;
	const char *labels[PROM_METRIC_LABELS]; /* NULL: it has it not */
	TimestampTz created;                    /* since when it counts, from 0 */
	double value;                           /* of a gauge, or counter */
	double sum;                             /* of a histogram, these: */
	uint64 count;
	uint64 buckets[PROM_METRIC_BOUNDS + 1];
	PromExemplar exemplars[PROM_METRIC_BOUNDS + 1];
} PromSample;

typedef struct PromMetrics PromMetrics;

extern Size prom_metric_size(void);
extern void prom_metric_init(PromDatabase *db, void *space);

/* All of it begins anew: the launcher, for another database. */
extern void prom_metric_reset(PromDatabase *db);

/* Transactions of this process count what they say when they commit. */
extern void prom_metric_begin(void);

/* Words and names as labels; NULL is none. */
extern PromLabelNumber prom_metric_label(PromDatabase *db, PromLabelKind kind,
										 const char *text);

/*
 * Add to a counter; observe for a histogram.  In a transaction that counts when
 * it commits, and never if it does not; elsewhere at once.  Nothing here fails
 * for want of room: series beyond prometheus.metric_series become one.  A NULL
 * db, one that is not served, is not counted.
 */
extern void prom_metric_add(PromDatabase *db, PromMetricId id,
							const PromLabelNumber *labels, int64 amount);
extern void prom_metric_observe(PromDatabase *db, PromMetricId id,
								const PromLabelNumber *labels, int64 value,
								const PromExemplar *exemplar);

/* All that is counted, by metric and labels, palloc'd; how many. */
extern PromSample *prom_metric_read(PromDatabase *db, int *n);

/* Series that there are, and that there can be before they become one. */
extern int prom_metric_count(PromDatabase *db, int *limit);

#endif
