// A strict reader of OTLP/HTTP in JSON: the official classes of protobuf
// (@opentelemetry/otlp-transformer 0.208.0) read what was sent, and must give
// back all of it; what protobuf's own mapping would let pass is looked at first.
//
// usage: node otlp_check.js FILE    a JSON list of requests for /v1/traces, or
//                                   of those for /v1/metrics, in their order
'use strict';
const fs = require('fs');
const proto = require('@opentelemetry/otlp-transformer/build/src/generated/root.js').opentelemetry.proto;

const ids = { traceId: 32, spanId: 16, parentSpanId: 16 };
const int64 = new Set(['startTimeUnixNano', 'endTimeUnixNano', 'timeUnixNano', 'intValue', 'asInt', 'count']);
const errors = [];

// With bytes in place of ids, as the classes have them.
function prepare(value, path) {
	if (Array.isArray(value))
		return value.map((one, i) => prepare(one, `${path}[${i}]`));
	if (value === null || typeof value !== 'object')
		return value;
	const result = {};
	for (const key in value) {
		const at = `${path}.${key}`;
		const one = value[key];
		if (key.includes('_'))
			errors.push(`${at}: snake_case`);
		if (key in ids) {
			if (!new RegExp(`^[0-9a-f]{${ids[key]}}$`).test(one) || /^0+$/.test(one))
				errors.push(`${at}: no id: ${one}`);
			result[key] = Buffer.from(one, 'hex');
			continue;
		}
		if (int64.has(key) && !/^-?[0-9]+$/.test(typeof one === 'string' ? one : ''))
			errors.push(`${at}: not a string of digits`);
		if (key === 'bucketCounts' && one.some((count) => !/^[0-9]+$/.test(typeof count === 'string' ? count : '')))
			errors.push(`${at}: not strings of digits`);
		if (['kind', 'code', 'aggregationTemporality'].includes(key) && !Number.isInteger(one))
			errors.push(`${at}: not a number`);
		result[key] = prepare(one, at);
	}
	return result;
}

// What protobuf leaves out.
function isDefault(value) {
	return value === 0 || value === '' || value === false || value === '0' ||
		(typeof value === 'object' && Object.keys(value).length === 0);
}

function compare(sent, read, path) {
	if (sent instanceof Uint8Array) {
		if (!read || Buffer.compare(Buffer.from(sent), Buffer.from(read)))
			errors.push(`${path}: other bytes`);
	} else if (Array.isArray(sent)) {
		if (sent.length > 0 && (!Array.isArray(read) || read.length !== sent.length))
			errors.push(`${path}: a list was lost`);
		else
			sent.forEach((one, i) => compare(one, read[i], `${path}[${i}]`));
	} else if (sent !== null && typeof sent === 'object') {
		for (const key in sent)
			if (read !== undefined && read[key] !== undefined)
				compare(sent[key], read[key], `${path}.${key}`);
			else if (!isDefault(sent[key]))
				errors.push(`${path}.${key}: unknown`);
	} else if (String(sent) !== String(read))
		errors.push(`${path}: ${sent} became ${read}`);
}

function unique(attributes, path) {
	const keys = (attributes || []).map((one) => one.key);
	if (new Set(keys).size !== keys.length)
		errors.push(`${path}: a key is there twice`);
	if (keys.length > 128)
		errors.push(`${path}: ${keys.length} attributes`);
}

function checkSpan(span, path) {
	unique(span.attributes, path);
	if (BigInt(span.endTimeUnixNano) < BigInt(span.startTimeUnixNano))
		errors.push(`${path}: ends before it begins`);
	if (!(span.kind >= 1 && span.kind <= 5))
		errors.push(`${path}: kind ${span.kind}`);
	if (![0x101, 0x301].includes(span.flags))
		errors.push(`${path}: flags ${span.flags}`);
	if (!span.name)
		errors.push(`${path}: no name`);
}

// What a histogram must be: each count in one bucket, and no sum of nothing.
function checkHistogram(point, path) {
	const counts = point.bucketCounts.map(BigInt);
	const bounds = point.explicitBounds;
	if (counts.length !== bounds.length + 1)
		errors.push(`${path}: ${counts.length} buckets`);
	if (counts.reduce((sum, one) => sum + one, 0n) !== BigInt(point.count))
		errors.push(`${path}: count ${point.count} is not that of its buckets`);
	if (bounds.some((bound, i) => i > 0 && bound <= bounds[i - 1]))
		errors.push(`${path}: its bounds do not grow`);
	if (point.count === '0' && point.sum !== 0)
		errors.push(`${path}: a sum of nothing`);
	for (const exemplar of point.exemplars)
		if (!exemplar.traceId || !(BigInt(exemplar.timeUnixNano) > 0n))
			errors.push(`${path}: an exemplar of nothing`);
}

// What each series was before.
const series = new Map();

function keyOf(metric, point) {
	return JSON.stringify([metric.name, point.attributes.map((one) => [one.key, one.value.stringValue])]);
}

function checkPoint(metric, kind, point, path) {
	const key = keyOf(metric, point);
	if (kind === 'gauge') {
		unique(point.attributes, path);
		if (!Number.isFinite(point.asDouble) || point.startTimeUnixNano !== undefined || BigInt(point.timeUnixNano) <= 0n)
			errors.push(`${path}: not a value of a moment`);
		series.set(key, { value: point.asDouble });
		return;
	}
	const value = kind === 'histogram' ? Number(point.count) : Number(point.asInt || point.asDouble);
	const before = series.get(key);
	const now = { value, start: BigInt(point.startTimeUnixNano), time: BigInt(point.timeUnixNano) };
	unique(point.attributes, path);
	if (!(now.start > 0n && now.time >= now.start))
		errors.push(`${path}: from ${now.start} to ${now.time}`);
	if (before && before.start === now.start && (before.value > now.value || before.time >= now.time))
		errors.push(`${path}: from ${before.value} to ${now.value}`);
	if (before && before.start !== now.start && now.start <= before.time)
		errors.push(`${path}: begins anew before it ended`);
	series.set(key, now);
	if (kind === 'histogram')
		checkHistogram(point, path);
}

function checkMetrics(request, r) {
	const metrics = request.resourceMetrics.flatMap((one) => one.scopeMetrics.flatMap((two) => two.metrics));
	const keys = new Set();
	if (metrics.length === 0)
		errors.push(`$${r}: no metrics`);
	for (const metric of metrics) {
		const path = `$${r}.${metric.name}`;
		const kind = ['histogram', 'gauge', 'sum'].find((one) => metric[one]);
		const data = metric[kind];
		if (!metric.name || !metric.description)
			errors.push(`${path}: no name, or no description`);
		if (kind === 'gauge' ? 'aggregationTemporality' in data || 'isMonotonic' in data : data.aggregationTemporality !== 2 || (kind === 'sum' && data.isMonotonic !== true))
			errors.push(`${path}: not cumulative`);
		if (data.dataPoints.length === 0)
			errors.push(`${path}: no points`);
		for (const point of data.dataPoints) {
			const key = keyOf(metric, point);
			if (keys.has(key))
				errors.push(`${path}: twice: ${key}`);
			keys.add(key);
			checkPoint(metric, kind, point, path);
		}
	}
}

const requests = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const spans = new Map();
requests.forEach((request, r) => {
	const Request = request.resourceMetrics ? proto.collector.metrics.v1.ExportMetricsServiceRequest
		: proto.collector.trace.v1.ExportTraceServiceRequest;
	const object = prepare(request, `$${r}`);
	const message = Request.fromObject(object);
	const problem = Request.verify(message);
	if (problem)
		errors.push(`$${r}: ${problem}`);
	compare(object, Request.toObject(Request.decode(Request.encode(message).finish()),
		{ longs: String, enums: Number, bytes: Buffer }), `$${r}`);
	if (request.resourceMetrics) {
		checkMetrics(request, r);
		return;
	}
	const list = request.resourceSpans.flatMap((one) => one.scopeSpans.flatMap((two) => two.spans));
	if (list.length === 0)
		errors.push(`$${r}: no spans`);
	if (list.length > 512)
		errors.push(`$${r}: ${list.length} spans`);
	if (new Set(list.map((span) => span.spanId)).size !== list.length)
		errors.push(`$${r}: a span is there twice`);
	request.resourceSpans.forEach((one) => unique(one.resource.attributes, `$${r}.resource`));
	list.forEach((span, i) => checkSpan(span, `$${r}.span${i}`));
	list.forEach((span) => spans.set(`${span.traceId} ${span.spanId}`, span));
});
for (const span of spans.values())
	if (span.parentSpanId && !(span.flags & 0x200) && !spans.has(`${span.traceId} ${span.parentSpanId}`))
		errors.push(`${span.traceId} ${span.spanId}: no parent`);
console.log(errors.length > 0 ? errors.join('\n') : `OK ${spans.size || series.size}`);
process.exitCode = errors.length > 0 ? 1 : 0;
