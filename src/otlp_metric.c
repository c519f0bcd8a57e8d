/*
 * otlp_metric.c
 *	  Writes metrics as OTLP/HTTP has them in JSON.
 *
 * Counts are cumulative: each point says all that was counted since the series
 * began.  So one that is lost, or comes twice, does no harm; and after a crash,
 * which loses the counts, the series begins at a later time.  A gauge's point
 * says what is at its time alone.
 */
#include "postgres.h"

#include <math.h>

#include "common/shortest_dec.h"
#include "utils/json.h"

#include "otlp_metric.h"

/* AggregationTemporality */
#define CUMULATIVE 2

static void
put_double(StringInfo to, double value)
{
	char digits[DOUBLE_SHORTEST_DECIMAL_LEN];

	double_to_shortest_decimal_buf(value, digits);
	appendStringInfoString(to, digits);
}

/* A member that is a time; what no receiver knows is left out. */
static void
put_time(StringInfo to, const char *key, TimestampTz at)
{
	uint64 nanoseconds;

	if (prom_otlp_nanoseconds(at, &nanoseconds))
		appendStringInfo(to, ",\"%s\":\"" UINT64_FORMAT "\"", key,
						 nanoseconds);
}

static void
put_labels(StringInfo to, const PromSample *sample)
{
	const PromMetricLabel *labels = sample->metric->labels;
	PromOtlpAttributes attributes;

	prom_otlp_attributes_begin(&attributes, to);
	for (int i = 0; i < PROM_METRIC_LABELS && labels[i].name != NULL; i++)
		if (sample->labels[i] != NULL)
			prom_otlp_add_text(&attributes, labels[i].name, sample->labels[i]);
	prom_otlp_attributes_end(&attributes);
}

/* Whole numbers as such; a gauge may be one now and none a moment later. */
static void
put_number(StringInfo to, const PromSample *sample)
{
	if (sample->metric->type != PROM_GAUGE && sample->metric->scale == 1)
		appendStringInfo(to, ",\"asInt\":\"%.0f\"", sample->value);
	else
	{
		appendStringInfoString(to, ",\"asDouble\":");
		put_double(to, sample->value);
	}
}

static void
put_exemplars(StringInfo to, const PromSample *sample)
{
	const char *separator = "";

	appendStringInfoString(to, ",\"exemplars\":[");
	for (int i = 0; i <= sample->metric->nbounds; i++)
	{
		const PromExemplar *exemplar = &sample->exemplars[i];

		if (exemplar->at == 0)
			continue;
		appendStringInfo(to, "%s{\"traceId\":\"", separator);
		for (int b = 0; b < lengthof(exemplar->trace_id); b++)
			appendStringInfo(to, "%02x", exemplar->trace_id[b]);
		appendStringInfoChar(to, '"');
		if (exemplar->span_id != 0)
			appendStringInfo(to, ",\"spanId\":\"%016llx\"",
							 (unsigned long long) exemplar->span_id);
		put_time(to, "timeUnixNano", exemplar->at);
		appendStringInfoString(to, ",\"asDouble\":");
		put_double(to, exemplar->value / sample->metric->scale);
		appendStringInfoChar(to, '}');
		separator = ",";
	}
	appendStringInfoChar(to, ']');
}

static void
put_buckets(StringInfo to, const PromSample *sample)
{
	const PromMetric *metric = sample->metric;

	appendStringInfo(to, ",\"count\":\"" UINT64_FORMAT "\",\"sum\":",
					 sample->count);
	put_double(to, sample->sum);
	appendStringInfoString(to, ",\"bucketCounts\":[");
	for (int i = 0; i <= metric->nbounds; i++)
		appendStringInfo(to, "%s\"" UINT64_FORMAT "\"", i == 0 ? "" : ",",
						 sample->buckets[i]);
	appendStringInfoString(to, "],\"explicitBounds\":[");
	for (int i = 0; i < metric->nbounds; i++)
	{
		appendStringInfoString(to, i == 0 ? "" : ",");
		put_double(to, metric->bounds[i]);
	}
	appendStringInfoChar(to, ']');
	put_exemplars(to, sample);
}

static void
put_point(StringInfo to, const PromSample *sample, TimestampTz now)
{
	appendStringInfoChar(to, '{');
	put_labels(to, sample);
	if (sample->metric->type != PROM_GAUGE)
		put_time(to, "startTimeUnixNano", sample->created);
	/* A clock may have been set back. */
	put_time(to, "timeUnixNano", Max(now, sample->created));
	if (sample->metric->type == PROM_HISTOGRAM)
		put_buckets(to, sample);
	else
		put_number(to, sample);
	appendStringInfoChar(to, '}');
}

static void
begin_metric(StringInfo to, const PromMetric *metric)
{
	appendStringInfoString(to, "{\"name\":");
	escape_json(to, metric->name);
	appendStringInfoString(to, ",\"description\":");
	escape_json(to, metric->help);
	appendStringInfoString(to, ",\"unit\":");
	escape_json(to, metric->unit);
	appendStringInfo(to, ",\"%s\":{\"dataPoints\":[",
					 metric->type == PROM_HISTOGRAM ? "histogram"
					 : metric->type == PROM_COUNTER ? "sum"
													: "gauge");
}

static void
end_metric(StringInfo to, const PromMetric *metric)
{
	appendStringInfoChar(to, ']');
	if (metric->type != PROM_GAUGE)
		appendStringInfo(to, ",\"aggregationTemporality\":%d", CUMULATIVE);
	if (metric->type == PROM_COUNTER)
		appendStringInfoString(to, ",\"isMonotonic\":true");
	appendStringInfoString(to, "}}");
}

int
prom_otlp_write_metrics(StringInfo body, const PromOtlpResource *resource,
						const PromSample *samples, int n, int *next,
						TimestampTz now, int most)
{
	int first = *next;
	int i;

	initStringInfo(body);
	prom_otlp_put_head(body, "Metrics", "metrics", resource);
	for (i = first; i < n && (i == first || body->len < most); i++)
	{
		const PromMetric *metric = samples[i].metric;

		if (i == first || metric != samples[i - 1].metric)
		{
			if (i > first)
			{
				end_metric(body, samples[i - 1].metric);
				appendStringInfoChar(body, ',');
			}
			begin_metric(body, metric);
		}
		else
			appendStringInfoChar(body, ',');
		put_point(body, &samples[i], now);
	}
	if (i > first)
		end_metric(body, samples[i - 1].metric);
	prom_otlp_put_end(body);
	*next = i;
	return i - first;
}
