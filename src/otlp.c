/*
 * otlp.c
 *	  Writes spans as OTLP/HTTP has them in JSON, and reads its responses;
 *	  metrics are otlp_metric.c's.
 *
 * The JSON is that of protobuf's mapping with OTLP's own rules: ids are
 * hexadecimal, enumerations are numbers, integers of 64 bits are strings, names
 * are in lowerCamelCase.  What is the default (0, "") is mostly left out.
 *
 * Strings of JSON are copied as they are: jsonb has written them.  So is a
 * number with a fraction, which a receiver reads as a double whatever its
 * digits; what no double can hold is sent as text.
 */
#include "postgres.h"

#include <math.h>
#include <zlib.h>

#include "utils/json.h"
#include "utils/timestamp.h"

#include "otlp.h"

/* Of semantic conventions that the names of attributes are from. */
#define SCHEMA "https://opentelemetry.io/schemas/1.41.0"

/* Levels of a value; what is deeper is sent as a text of JSON. */
#define MAX_DEPTH 16

/* Bits of a span's flags: sampled, and what is known of the parent. */
#define FLAG_SAMPLED 0x001
#define FLAG_KNOWN 0x100
#define FLAG_REMOTE 0x200

/* Waits between attempts, ms. */
#define FIRST_WAIT 1000
#define LONGEST_WAIT 60000


/* Values. */

static void
put_slice(StringInfo to, PromSlice slice)
{
	appendBinaryStringInfo(to, slice.data, (int) slice.length);
}

static void
put_string(StringInfo to, const char *text)
{
	escape_json(to, text);
}

/* The text of a value, as a string. */
static void
put_as_string(StringInfo to, PromSlice value)
{
	char *text = pnstrdup(value.data, value.length);

	appendStringInfoString(to, "{\"stringValue\":");
	put_string(to, text);
	appendStringInfoChar(to, '}');
	pfree(text);
}

/* The digits of an integer of 64 bits, in 20 bytes at most? */
static bool
fits_int64(PromSlice number)
{
	static const char most[] = "9223372036854775807";
	bool is_negative = number.length > 0 && *number.data == '-';
	size_t digits = number.length - is_negative;
	char text[sizeof(most)];

	for (size_t i = is_negative; i < number.length; i++)
		if (number.data[i] < '0' || number.data[i] > '9')
			return false;
	if (digits != strlen(most))
		return digits < strlen(most);
	memcpy(text, number.data + is_negative, digits);
	text[digits] = '\0';
	return strcmp(text, most) <= 0 ||
		   (is_negative && strcmp(text, "9223372036854775808") == 0);
}

static void
put_number(StringInfo to, PromSlice number)
{
	char *text;
	bool is_finite;

	if (fits_int64(number))
	{
		appendStringInfoString(to, "{\"intValue\":\"");
		put_slice(to, number);
		appendStringInfoString(to, "\"}");
		return;
	}
	text = pnstrdup(number.data, number.length);
	is_finite = isfinite(strtod(text, NULL));
	pfree(text);
	if (!is_finite)
	{
		put_as_string(to, number);
		return;
	}
	appendStringInfoString(to, "{\"doubleValue\":");
	put_slice(to, number);
	appendStringInfoChar(to, '}');
}

static void put_value(StringInfo to, PromSlice value, int depth);

static void
put_array(StringInfo to, PromSlice array, int depth)
{
	size_t position = 0;
	PromSlice element;
	bool is_first = true;

	appendStringInfoString(to, "{\"arrayValue\":{\"values\":[");
	while (prom_json_next_element(array, &position, &element))
	{
		if (!is_first)
			appendStringInfoChar(to, ',');
		is_first = false;
		put_value(to, element, depth + 1);
	}
	appendStringInfoString(to, "]}}");
}

static void
put_object(StringInfo to, PromSlice object, int depth)
{
	size_t position = 0;
	PromSlice key;
	PromSlice value;
	bool is_first = true;

	appendStringInfoString(to, "{\"kvlistValue\":{\"values\":[");
	while (prom_json_next_member(object, &position, &key, &value))
	{
		if (prom_json_kind(value) == 'n')
			continue;
		if (!is_first)
			appendStringInfoChar(to, ',');
		is_first = false;
		appendStringInfoString(to, "{\"key\":");
		put_slice(to, key);
		appendStringInfoString(to, ",\"value\":");
		put_value(to, value, depth + 1);
		appendStringInfoChar(to, '}');
	}
	appendStringInfoString(to, "]}}");
}

/* An AnyValue. */
static void
put_value(StringInfo to, PromSlice value, int depth)
{
	char kind = prom_json_kind(value);

	if ((kind == '[' || kind == '{') && depth == MAX_DEPTH)
	{
		put_as_string(to, value);
		return;
	}
	switch (kind)
	{
		case '"':
			appendStringInfoString(to, "{\"stringValue\":");
			put_slice(to, value);
			appendStringInfoChar(to, '}');
			break;
		case 't':
		case 'f':
			appendStringInfo(to, "{\"boolValue\":%s}",
							 kind == 't' ? "true" : "false");
			break;
		case '[':
			put_array(to, value, depth);
			break;
		case '{':
			put_object(to, value, depth);
			break;
		case 'n': /* in an array: nothing has no other form */
			appendStringInfoString(to, "{}");
			break;
		default:
			put_number(to, value);
	}
}


/* Attributes. */

void
prom_otlp_attributes_begin(PromOtlpAttributes *attributes, StringInfo to)
{
	appendStringInfoString(to, "\"attributes\":[");
	attributes->to = to;
	attributes->begin = to->len;
	attributes->n = attributes->dropped = 0;
}

/* Room for one more?  The place of its begin, or -1. */
static int
begin_attribute(PromOtlpAttributes *attributes)
{
	int begin = attributes->to->len;

	if (attributes->n == PROM_OTLP_MAX_ATTRIBUTES)
	{
		attributes->dropped++;
		return -1;
	}
	appendStringInfoString(attributes->to,
						   attributes->n == 0 ? "{\"key\":" : ",{\"key\":");
	return begin;
}

/* It is written; one that is too long is taken back. */
static void
end_attribute(PromOtlpAttributes *attributes, int begin)
{
	StringInfo to = attributes->to;

	appendStringInfoChar(to, '}');
	if (to->len - begin > PROM_OTLP_MAX_VALUE ||
		to->len - attributes->begin > PROM_OTLP_MAX_SPAN)
	{
		to->len = begin;
		to->data[begin] = '\0';
		attributes->dropped++;
		return;
	}
	attributes->n++;
}

void
prom_otlp_add_text(PromOtlpAttributes *attributes, const char *key,
				   const char *text)
{
	int begin = begin_attribute(attributes);

	if (begin < 0)
		return;
	put_string(attributes->to, key);
	appendStringInfoString(attributes->to, ",\"value\":{\"stringValue\":");
	put_string(attributes->to, text);
	appendStringInfoChar(attributes->to, '}');
	end_attribute(attributes, begin);
}

void
prom_otlp_add_int(PromOtlpAttributes *attributes, const char *key, int64 value)
{
	int begin = begin_attribute(attributes);

	if (begin < 0)
		return;
	put_string(attributes->to, key);
	appendStringInfo(attributes->to, ",\"value\":{\"intValue\":\"%lld\"}",
					 (long long) value);
	end_attribute(attributes, begin);
}

/* JSON has no number for what is not finite. */
void
prom_otlp_add_double(PromOtlpAttributes *attributes, const char *key,
					 double value)
{
	int begin;

	if (!isfinite(value))
	{
		attributes->dropped++;
		return;
	}
	begin = begin_attribute(attributes);
	if (begin < 0)
		return;
	put_string(attributes->to, key);
	appendStringInfo(attributes->to, ",\"value\":{\"doubleValue\":%.17g}",
					 value);
	end_attribute(attributes, begin);
}

void
prom_otlp_add_json(PromOtlpAttributes *attributes, PromSlice key,
				   PromSlice value)
{
	int begin;

	if (prom_json_kind(value) == 'n')
		return;
	begin = begin_attribute(attributes);
	if (begin < 0)
		return;
	put_slice(attributes->to, key);
	appendStringInfoString(attributes->to, ",\"value\":");
	put_value(attributes->to, value, 0);
	end_attribute(attributes, begin);
}

void
prom_otlp_add_object(PromOtlpAttributes *attributes, PromSlice object)
{
	size_t position = 0;
	PromSlice key;
	PromSlice value;

	if (!prom_json_valid(object))
	{
		attributes->dropped++;
		return;
	}
	while (prom_json_next_member(object, &position, &key, &value))
		prom_otlp_add_json(attributes, key, value);
}

void
prom_otlp_attributes_end(PromOtlpAttributes *attributes)
{
	appendStringInfoChar(attributes->to, ']');
	if (attributes->dropped > 0)
		appendStringInfo(attributes->to, ",\"droppedAttributesCount\":%d",
						 attributes->dropped);
}


/* Requests. */

void
prom_otlp_put_head(StringInfo body, const char *signal, const char *list,
				   const PromOtlpResource *resource)
{
	PromOtlpAttributes attributes;

	appendStringInfo(body, "{\"resource%s\":[{\"resource\":{", signal);
	prom_otlp_attributes_begin(&attributes, body);
	prom_otlp_add_text(&attributes, "service.name", resource->service);
	prom_otlp_add_text(&attributes, "service.instance.id", resource->instance);
	prom_otlp_add_text(&attributes, "service.version", PROM_VERSION);
	if (resource->host != NULL)
		prom_otlp_add_text(&attributes, "host.name", resource->host);
	prom_otlp_add_text(&attributes, "db.system.name", "postgresql");
	prom_otlp_add_text(&attributes, "db.namespace", resource->database);
	prom_otlp_add_text(&attributes, "process.runtime.name", "postgresql");
	prom_otlp_add_text(&attributes, "process.runtime.version",
					   resource->server_version);
	prom_otlp_add_text(&attributes, "telemetry.sdk.name", "prometheus");
	prom_otlp_add_text(&attributes, "telemetry.sdk.language", "c");
	prom_otlp_add_text(&attributes, "telemetry.sdk.version", PROM_VERSION);
	prom_otlp_attributes_end(&attributes);
	appendStringInfo(body,
					 "},\"schemaUrl\":\"" SCHEMA "\",\"scope%s\":"
					 "[{\"scope\":{\"name\":\"prometheus\",\"version\":"
					 "\"" PROM_VERSION "\"},\"schemaUrl\":\"" SCHEMA
					 "\",\"%s\":[",
					 signal, list);
}

void
prom_otlp_begin(PromOtlpRequest *request, const PromOtlpResource *resource)
{
	initStringInfo(&request->body);
	request->spans = 0;
	prom_otlp_put_head(&request->body, "Spans", "spans", resource);
}

/* So many digits, in lower case and not all of them 0? */
static bool
is_id(const char *text, size_t digits)
{
	return strlen(text) == digits &&
		   strspn(text, "0123456789abcdef") == digits &&
		   strspn(text, "0") < digits;
}

bool
prom_otlp_nanoseconds(int64 time, uint64 *nanoseconds)
{
	const int64 epoch = (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) *
						USECS_PER_DAY;

	if (time == DT_NOBEGIN || time == DT_NOEND || time < -epoch ||
		time > PG_INT64_MAX / 1000 - epoch)
		return false;
	*nanoseconds = (uint64) (time + epoch) * 1000;
	return true;
}

static int
kind_of(const char *kind)
{
	static const char *const kinds[] = {"internal", "server", "client",
										"producer", "consumer"};

	for (int i = 0; i < lengthof(kinds); i++)
		if (strcmp(kind, kinds[i]) == 0)
			return i + 1;
	return 1;
}

static int
flags_of(const PromOtlpSpan *span)
{
	return FLAG_SAMPLED | FLAG_KNOWN |
		   (span->parent_id != NULL && span->is_remote ? FLAG_REMOTE : 0);
}

bool
prom_otlp_add_span(PromOtlpRequest *request, const PromOtlpSpan *span)
{
	StringInfo body = &request->body;
	PromOtlpAttributes attributes;
	uint64 started_at;
	uint64 ended_at;

	if (!is_id(span->trace_id, PROM_OTLP_TRACE_ID) ||
		!is_id(span->span_id, PROM_OTLP_SPAN_ID) ||
		(span->parent_id != NULL &&
		 !is_id(span->parent_id, PROM_OTLP_SPAN_ID)) ||
		!prom_otlp_nanoseconds(span->started_at, &started_at) ||
		!prom_otlp_nanoseconds(Max(span->ended_at, span->started_at),
							   &ended_at))
		return false;
	appendStringInfo(body, "%s{\"traceId\":\"%s\",\"spanId\":\"%s\"",
					 request->spans == 0 ? "" : ",", span->trace_id,
					 span->span_id);
	if (span->parent_id != NULL)
		appendStringInfo(body, ",\"parentSpanId\":\"%s\"", span->parent_id);
	if (span->trace_state != NULL)
	{
		appendStringInfoString(body, ",\"traceState\":");
		put_string(body, span->trace_state);
	}
	appendStringInfo(body, ",\"flags\":%d,\"name\":", flags_of(span));
	put_string(body, span->name);
	appendStringInfo(body,
					 ",\"kind\":%d,\"startTimeUnixNano\":\"%llu\""
					 ",\"endTimeUnixNano\":\"%llu\",",
					 kind_of(span->kind), (unsigned long long) started_at,
					 (unsigned long long) ended_at);
	prom_otlp_attributes_begin(&attributes, body);
	prom_otlp_add_object(&attributes, span->attributes);
	prom_otlp_attributes_end(&attributes);
	/* What went well is unset: OK is for who overrules us.  Some receivers miss
	 * the number if it is left out. */
	appendStringInfo(body, ",\"status\":{\"code\":%d}}",
					 strcmp(span->status, "error") == 0 ? 2 : 0);
	request->spans++;
	return true;
}

void
prom_otlp_end(PromOtlpRequest *request)
{
	prom_otlp_put_end(&request->body);
}

void
prom_otlp_put_end(StringInfo body)
{
	appendStringInfoString(body, "]}]}]}");
}

char *
prom_otlp_gzip(const char *bytes, size_t length, size_t *packed_length)
{
	z_stream stream = {0};
	size_t room;
	char *packed;
	int end;

	/* 15 bits of window, and 16 for a header of gzip. */
	if (deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, 15 + 16, 8,
					 Z_DEFAULT_STRATEGY) != Z_OK)
		return NULL;
	room = deflateBound(&stream, length);
	packed = malloc(room);
	if (packed == NULL)
	{
		(void) deflateEnd(&stream);
		return NULL;
	}
	stream.next_in = (Bytef *) bytes;
	stream.avail_in = (uInt) length;
	stream.next_out = (Bytef *) packed;
	stream.avail_out = (uInt) room;
	end = deflate(&stream, Z_FINISH);
	*packed_length = stream.total_out;
	(void) deflateEnd(&stream);
	if (end == Z_STREAM_END)
		return packed;
	free(packed);
	return NULL;
}


/* Responses. */

static bool
is_success(int status)
{
	return status >= 200 && status < 300;
}

/* Statuses that say: later. */
static bool
is_busy(int status)
{
	return status == 429 || status == 502 || status == 503 || status == 504;
}

static void
take_message(PromOtlpReply *reply, PromSlice body, const char *path)
{
	PromSlice value;
	size_t length;
	char *text;

	if (!prom_json_find(body, path, &value))
		return;
	text = prom_json_string(value, &length);
	if (text == NULL)
		return;
	prom_text_one_line(reply->message, sizeof(reply->message), text, length);
	free(text);
}

/* A number, or a string that is one. */
static int64
read_count(PromSlice body, const char *path)
{
	PromSlice value;
	char digits[21];

	if (!prom_json_find(body, path, &value))
		return 0;
	if (prom_json_kind(value) == '"')
	{
		value.data++;
		value.length -= 2;
	}
	if (value.length == 0 || value.length >= sizeof(digits) ||
		!fits_int64(value))
		return 0;
	memcpy(digits, value.data, value.length);
	digits[value.length] = '\0';
	return Max(strtoll(digits, NULL, 10), 0);
}

void
prom_otlp_read_reply(PromHttpEnd end, int status, PromSlice body,
					 PromOtlpReply *reply)
{
	reply->verdict = PROM_OTLP_AGAIN;
	reply->rejected = 0;
	reply->message[0] = '\0';
	if (end == PROM_HTTP_TOO_LONG)
	{
		reply->verdict = PROM_OTLP_REFUSED;
		return;
	}
	if (is_success(status))
	{
		if (end != PROM_HTTP_COMPLETE)
			return;
		reply->verdict = PROM_OTLP_ACCEPTED;
		reply->rejected = read_count(body, "partialSuccess.rejectedSpans");
		if (reply->rejected == 0)
			reply->rejected =
				read_count(body, "partialSuccess.rejectedDataPoints");
		take_message(reply, body, "partialSuccess.errorMessage");
		return;
	}
	take_message(reply, body, "message");
	/* A redirect is never followed: the setting is wrong, the spans are not. */
	if (status >= 400 && !is_busy(status))
		reply->verdict = PROM_OTLP_REFUSED;
}

int64
prom_otlp_back_off(int failures, double random)
{
	int64 wait = LONGEST_WAIT;

	if (failures < 7)
		wait = Min(wait, (int64) FIRST_WAIT << Max(failures - 1, 0));
	/* Half of it is sure, so that it grows; the other half is the jitter. */
	return wait / 2 + (int64) (random * (double) (wait / 2));
}
