/*
 * exposition.c
 *	  Writes metrics as OpenMetrics 1.0, and as the text format before it.
 *
 * A metric is there, with its type and what it means, even while it has no
 * sample: so who reads it once knows all names.  Those are OpenTelemetry's by
 * the rules of its compatibility document: dots become underscores, units are
 * spelled out at the end.
 */
#include "postgres.h"

#include <math.h>

#include "common/shortest_dec.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "exposition.h"
#include "gauge.h"

typedef struct Page
{
	StringInfoData text;
	PromExposition format;
} Page;


/* Names and numbers. */

static const char *
unit_of(const PromMetric *metric)
{
	static const struct
	{
		const char *ucum;
		const char *word;
	} units[] = {
		{"s", "seconds"},
		{"By", "bytes"},
		{"By/s", "bytes_per_second"},
		{"1", "ratio"},
	};

	for (int i = 0; i < lengthof(units); i++)
		if (strcmp(metric->unit, units[i].ucum) == 0)
			return units[i].word;
	return NULL; /* what is in braces only says what is counted */
}

/* Dots are none of its characters. */
static void
put_name(StringInfo text, const char *name)
{
	for (const char *c = name; *c != '\0'; c++)
		appendStringInfoChar(text, *c == '.' ? '_' : *c);
}

char *
prom_exposition_name(const PromMetric *metric)
{
	const char *unit = unit_of(metric);
	StringInfoData name;

	initStringInfo(&name);
	put_name(&name, metric->name);
	if (unit != NULL)
		appendStringInfo(&name, "_%s", unit);
	return name.data;
}

static void
put_number(Page *page, double value)
{
	char digits[DOUBLE_SHORTEST_DECIMAL_LEN];

	/* Counts as such, however large. */
	if (value == rint(value) && fabs(value) < 1e15)
		appendStringInfo(&page->text, "%.0f", value);
	else
	{
		double_to_shortest_decimal_buf(value, digits);
		appendStringInfoString(&page->text, digits);
	}
}

static void
put_time(Page *page, TimestampTz at)
{
	int64 micros = at + ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) *
						 SECS_PER_DAY * USECS_PER_SEC);

	appendStringInfo(&page->text, "%lld.%06lld",
					 (long long) (micros / USECS_PER_SEC),
					 (long long) (micros % USECS_PER_SEC));
}

/* A bound has a point, and from a million on an exponent. */
static void
put_bound(Page *page, double bound)
{
	char digits[DOUBLE_SHORTEST_DECIMAL_LEN];
	double power = 1;
	int exponent = 0;

	while (bound / power >= 10)
	{
		power *= 10;
		exponent++;
	}
	if (exponent < 6)
		power = 1;
	double_to_shortest_decimal_buf(bound / power, digits);
	appendStringInfoString(&page->text, digits);
	if (strchr(digits, '.') == NULL)
		appendStringInfoString(&page->text, ".0");
	if (exponent >= 6)
		appendStringInfo(&page->text, "e+%02d", exponent);
}

static void
put_escaped(Page *page, const char *text, bool quotes)
{
	for (const char *c = text; *c != '\0'; c++)
	{
		if (*c == '\n')
			appendStringInfoString(&page->text, "\\n");
		else
		{
			if (*c == '\\' || (quotes && *c == '"'))
				appendStringInfoChar(&page->text, '\\');
			appendStringInfoChar(&page->text, *c);
		}
	}
}


/* Samples. */

/* extra: one label more, that of a bucket; NAN: none, INFINITY: the last. */
static void
put_head(Page *page, const char *name, const char *suffix,
		 const PromSample *sample, double bound)
{
	const PromMetricLabel *labels = sample->metric->labels;
	char separator = '{';

	appendStringInfo(&page->text, "%s%s", name, suffix);
	for (int i = 0; i < PROM_METRIC_LABELS && labels[i].name != NULL; i++)
	{
		if (sample->labels[i] == NULL)
			continue;
		appendStringInfoChar(&page->text, separator);
		put_name(&page->text, labels[i].name);
		appendStringInfoString(&page->text, "=\"");
		put_escaped(page, sample->labels[i], true);
		appendStringInfoChar(&page->text, '"');
		separator = ',';
	}
	if (!isnan(bound))
	{
		appendStringInfo(&page->text, "%cle=\"", separator);
		if (isinf(bound))
			appendStringInfoString(&page->text, "+Inf");
		else
			put_bound(page, bound);
		appendStringInfoChar(&page->text, '"');
		separator = ',';
	}
	appendStringInfoString(&page->text, separator == ',' ? "} " : " ");
}

static void
put_sample(Page *page, const char *name, const char *suffix,
		   const PromSample *sample, double value)
{
	put_head(page, name, suffix, sample, NAN);
	put_number(page, value);
	appendStringInfoChar(&page->text, '\n');
}

/* Since when it was counted; in the older format nobody looks for it. */
static void
put_created(Page *page, const char *name, const PromSample *sample)
{
	if (page->format != PROM_OPENMETRICS)
		return;
	put_head(page, name, "_created", sample, NAN);
	put_time(page, sample->created);
	appendStringInfoChar(&page->text, '\n');
}

static void
put_exemplar(Page *page, const PromMetric *metric,
			 const PromExemplar *exemplar)
{
	if (page->format != PROM_OPENMETRICS || exemplar->at == 0)
		return;
	appendStringInfoString(&page->text, " # {trace_id=\"");
	for (int i = 0; i < lengthof(exemplar->trace_id); i++)
		appendStringInfo(&page->text, "%02x", exemplar->trace_id[i]);
	if (exemplar->span_id != 0)
		appendStringInfo(&page->text, "\",span_id=\"%016llx",
						 (unsigned long long) exemplar->span_id);
	appendStringInfoString(&page->text, "\"} ");
	put_number(page, exemplar->value / metric->scale);
	appendStringInfoChar(&page->text, ' ');
	put_time(page, exemplar->at);
}

static void
put_histogram(Page *page, const char *name, const PromSample *sample)
{
	const PromMetric *metric = sample->metric;
	uint64 count = 0;

	for (int i = 0; i <= metric->nbounds; i++)
	{
		count += sample->buckets[i];
		put_head(page, name, "_bucket", sample,
				 i < metric->nbounds ? metric->bounds[i] : INFINITY);
		appendStringInfo(&page->text, UINT64_FORMAT, count);
		put_exemplar(page, metric, &sample->exemplars[i]);
		appendStringInfoChar(&page->text, '\n');
	}
	put_sample(page, name, "_count", sample, sample->count);
	put_sample(page, name, "_sum", sample, sample->sum);
	put_created(page, name, sample);
}


/* Metrics. */

static const char *
type_of(const PromMetric *metric)
{
	switch (metric->type)
	{
		case PROM_COUNTER:
			return "counter";
		case PROM_GAUGE:
			return "gauge";
		case PROM_HISTOGRAM:
			return "histogram";
	}
	return "unknown";
}

/* What a metric is; the older format has the name of its samples there. */
static void
put_metric(Page *page, const PromMetric *metric, const char *name)
{
	bool is_open = page->format == PROM_OPENMETRICS;
	const char *suffix =
		metric->type == PROM_COUNTER && !is_open ? "_total" : "";

	appendStringInfo(&page->text, "# HELP %s%s ", name, suffix);
	put_escaped(page, metric->help, is_open);
	appendStringInfo(&page->text, "\n# TYPE %s%s %s\n", name, suffix,
					 type_of(metric));
	if (is_open && unit_of(metric) != NULL)
		appendStringInfo(&page->text, "# UNIT %s %s\n", name, unit_of(metric));
}

/* Samples come in the order of their metrics. */
static void
put_metrics(Page *page, const PromMetric *metrics, int nmetrics,
			const PromSample *samples, int nsamples)
{
	const PromSample *end = samples + nsamples;

	for (int i = 0; i < nmetrics; i++)
	{
		char *name = prom_exposition_name(&metrics[i]);

		CHECK_FOR_INTERRUPTS();
		put_metric(page, &metrics[i], name);
		for (; samples < end && samples->metric == &metrics[i]; samples++)
		{
			if (samples->metric->type == PROM_HISTOGRAM)
				put_histogram(page, name, samples);
			else if (samples->metric->type == PROM_COUNTER)
			{
				put_sample(page, name, "_total", samples, samples->value);
				put_created(page, name, samples);
			}
			else
				put_sample(page, name, "", samples, samples->value);
		}
	}
}

char *
prom_exposition_write(PromDatabase *db, PromExposition format)
{
	Page page = {.format = format};
	int ncounted;
	int nread;
	PromSample *counted = prom_metric_read(db, &ncounted);
	PromSample *readings = prom_gauge_read(db, &nread);

	initStringInfo(&page.text);
	put_metrics(&page, prom_metrics, PROM_NMETRICS, counted, ncounted);
	put_metrics(&page, prom_gauges, prom_ngauges, readings, nread);
	if (format == PROM_OPENMETRICS)
		appendStringInfoString(&page.text, "# EOF\n");
	return page.text.data;
}

PG_FUNCTION_INFO_V1(prom_metrics_text);

Datum
prom_metrics_text(PG_FUNCTION_ARGS)
{
	char *name;
	PromExposition format = PROM_OPENMETRICS;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("format must not be null")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (strcmp(name, "text") == 0)
		format = PROM_TEXT;
	else if (strcmp(name, "openmetrics") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a format of metrics", name),
				 errhint("It is openmetrics (version 1.0) or text (version 0.0.4).")));
	PG_RETURN_TEXT_P(cstring_to_text(prom_exposition_write(
		prom_shmem_database(MyDatabaseId), format)));
}
