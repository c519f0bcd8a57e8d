/*
 * otlp_test.c
 *	  Tests of otlp.c.
 */
#include "postgres.h"

#include <math.h>
#include <zlib.h>

#include "utils/timestamp.h"

#include "otlp.h"
#include "standin.h"

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN "00f067aa0ba902b7"
#define PARENT "0000000000000001"

static const PromOtlpResource resource = {
	.service = "a \"service\"",
	.instance = "1/2",
	.host = NULL,
	.database = "app",
	.server_version = "15",
};

static PromSlice
slice(const char *text)
{
	PromSlice result = {text, strlen(text)};

	return result;
}

/* A span with these attributes; its place is that of its begin. */
static PromOtlpSpan
make_span(const char *attributes)
{
	PromOtlpSpan span = {
		.trace_id = TRACE,
		.span_id = SPAN,
		.name = "chat m",
		.kind = "client",
		.status = "ok",
		.started_at = 0,
		.ended_at = 1,
		.attributes = slice(attributes),
	};

	return span;
}

/* What is written of it, after the head of the request. */
static char *
write_span(const PromOtlpSpan *span)
{
	PromOtlpRequest request;
	char *begin;
	char *text;

	prom_otlp_begin(&request, &resource);
	check(prom_otlp_add_span(&request, span), "the span is added");
	prom_otlp_end(&request);
	check(prom_json_valid(slice(request.body.data)), "it is JSON");
	begin = strstr(request.body.data, "\"spans\":[");
	text = strdup(begin + strlen("\"spans\":["));
	text[strlen(text) - strlen("]}]}]}")] = '\0';
	pfree(request.body.data);
	return text;
}

static void
check_span(const PromOtlpSpan *span, const char *want, const char *about)
{
	char *text = write_span(span);

	check_text(text, want, about);
	free(text);
}

/* The list of attributes that is made of an object. */
static void
check_attributes(const char *object, const char *want, const char *about)
{
	StringInfoData text;
	PromOtlpAttributes attributes;

	initStringInfo(&text);
	prom_otlp_attributes_begin(&attributes, &text);
	prom_otlp_add_object(&attributes, slice(object));
	prom_otlp_attributes_end(&attributes);
	check_text(text.data, want, about);
	pfree(text.data);
}

static void
test_spans(void)
{
	PromOtlpSpan span = make_span("{}");

	check_span(&span,
			   "{\"traceId\":\"" TRACE "\",\"spanId\":\"" SPAN "\","
			   "\"flags\":257,\"name\":\"chat m\",\"kind\":3,"
			   "\"startTimeUnixNano\":\"946684800000000000\","
			   "\"endTimeUnixNano\":\"946684800000001000\","
			   "\"attributes\":[],\"status\":{\"code\":0}}",
			   "T2: a root has no parentSpanId");
	span.parent_id = PARENT;
	span.is_remote = true;
	span.trace_state = "ot=th:e666";
	span.status = "error";
	span.kind = "internal";
	span.started_at = span.ended_at = 773884800123457;
	check_span(&span,
			   "{\"traceId\":\"" TRACE "\",\"spanId\":\"" SPAN "\","
			   "\"parentSpanId\":\"" PARENT "\",\"traceState\":\"ot=th:e666\","
			   "\"flags\":769,\"name\":\"chat m\",\"kind\":1,"
			   "\"startTimeUnixNano\":\"1720569600123457000\","
			   "\"endTimeUnixNano\":\"1720569600123457000\","
			   "\"attributes\":[],\"status\":{\"code\":2}}",
			   "T7: nanoseconds are exact at microseconds");
	span.is_remote = false;
	span.ended_at--;
	span.name = "tab\tquote\" \xE2\x80\xA8 \xF0\x9F\x98\x80";
	span.kind = "consumer";
	span.trace_state = NULL;
	check_span(&span,
			   "{\"traceId\":\"" TRACE "\",\"spanId\":\"" SPAN "\","
			   "\"parentSpanId\":\"" PARENT "\",\"flags\":257,"
			   "\"name\":\"tab\\u0009quote\\\" \xE2\x80\xA8 \xF0\x9F\x98\x80\","
			   "\"kind\":5,"
			   "\"startTimeUnixNano\":\"1720569600123457000\","
			   "\"endTimeUnixNano\":\"1720569600123457000\","
			   "\"attributes\":[],\"status\":{\"code\":2}}",
			   "T7: it does not end before it begins");
}

static void
test_bad_spans(void)
{
	static const char *const ids[] = {
		"", "0", "00000000000000000000000000000000",
		"4BF92F3577B34DA6A3CE929D0E0E4736", SPAN,
		"4bf92f3577b34da6a3ce929d0e0e473g", TRACE "0"};
	PromOtlpRequest request;
	PromOtlpSpan span;

	prom_otlp_begin(&request, &resource);
	for (int i = 0; i < lengthof(ids); i++)
	{
		span = make_span("{}");
		span.trace_id = ids[i];
		check(!prom_otlp_add_span(&request, &span), "T1: no trace_id: %s",
			  ids[i]);
		span = make_span("{}");
		span.span_id = strcmp(ids[i], SPAN) == 0 ? TRACE : ids[i];
		check(!prom_otlp_add_span(&request, &span), "T1: no span_id: %s",
			  ids[i]);
		span = make_span("{}");
		span.parent_id = strcmp(ids[i], SPAN) == 0 ? TRACE : ids[i];
		check(!prom_otlp_add_span(&request, &span), "T1: no parent: %s",
			  ids[i]);
	}
	span = make_span("{}");
	span.ended_at = DT_NOEND;
	check(!prom_otlp_add_span(&request, &span), "T7: infinity is refused");
	span.ended_at = 0;
	span.started_at = DT_NOBEGIN;
	check(!prom_otlp_add_span(&request, &span), "T7: so is minus infinity");
	span.started_at = INT64CONST(-946684800000001);
	check(!prom_otlp_add_span(&request, &span), "T7: so is before 1970");
	check(request.spans == 0, "none was added");
	pfree(request.body.data);
}

static void
test_values(void)
{
	check_attributes("{\"a\": \"x\\n\\u0001\", \"b\": true, \"c\": false}",
					 "\"attributes\":["
					 "{\"key\":\"a\",\"value\":{\"stringValue\":\"x\\n\\u0001\"}},"
					 "{\"key\":\"b\",\"value\":{\"boolValue\":true}},"
					 "{\"key\":\"c\",\"value\":{\"boolValue\":false}}]",
					 "T9: strings and booleans");
	check_attributes("{\"a\": 9223372036854775807, \"b\": -9223372036854775808,"
					 " \"c\": 9223372036854775808, \"d\": -9223372036854775809,"
					 " \"e\": 0, \"f\": -1}",
					 "\"attributes\":["
					 "{\"key\":\"a\",\"value\":{\"intValue\":\"9223372036854775807\"}},"
					 "{\"key\":\"b\",\"value\":{\"intValue\":\"-9223372036854775808\"}},"
					 "{\"key\":\"c\",\"value\":{\"doubleValue\":9223372036854775808}},"
					 "{\"key\":\"d\",\"value\":{\"doubleValue\":-9223372036854775809}},"
					 "{\"key\":\"e\",\"value\":{\"intValue\":\"0\"}},"
					 "{\"key\":\"f\",\"value\":{\"intValue\":\"-1\"}}]",
					 "T4: integers of 64 bits are strings");
	check_attributes("{\"a\": 1.5, \"b\": 2.0, \"c\": 1e3, \"d\": 1e400}",
					 "\"attributes\":["
					 "{\"key\":\"a\",\"value\":{\"doubleValue\":1.5}},"
					 "{\"key\":\"b\",\"value\":{\"doubleValue\":2.0}},"
					 "{\"key\":\"c\",\"value\":{\"doubleValue\":1e3}},"
					 "{\"key\":\"d\",\"value\":{\"stringValue\":\"1e400\"}}]",
					 "doubles");
	check_attributes("{\"a\": null, \"b\": [1, null, \"x\"], \"c\": {\"d\": {},"
					 " \"e\": null, \"f\": []}}",
					 "\"attributes\":["
					 "{\"key\":\"b\",\"value\":{\"arrayValue\":{\"values\":["
					 "{\"intValue\":\"1\"},{},{\"stringValue\":\"x\"}]}}},"
					 "{\"key\":\"c\",\"value\":{\"kvlistValue\":{\"values\":["
					 "{\"key\":\"d\",\"value\":{\"kvlistValue\":{\"values\":[]}}},"
					 "{\"key\":\"f\",\"value\":{\"arrayValue\":{\"values\":[]}}}"
					 "]}}}]",
					 "null is left out, arrays and objects");
	check_attributes("{\"a\": NaN}",
					 "\"attributes\":[],\"droppedAttributesCount\":1",
					 "T10: what is not JSON is dropped and counted");
}

static void
test_depth(void)
{
	StringInfoData object;
	StringInfoData text;
	PromOtlpAttributes attributes;

	initStringInfo(&object);
	initStringInfo(&text);
	appendStringInfoString(&object, "{\"a\": ");
	for (int i = 0; i < 10000; i++)
		appendStringInfoChar(&object, '[');
	for (int i = 0; i < 10000; i++)
		appendStringInfoChar(&object, ']');
	appendStringInfoChar(&object, '}');
	prom_otlp_attributes_begin(&attributes, &text);
	prom_otlp_add_object(&attributes, slice(object.data));
	prom_otlp_attributes_end(&attributes);
	check(strstr(text.data, "{\"stringValue\":\"[[[[") != NULL,
		  "what is deep is a text");
	pfree(object.data);
	pfree(text.data);
}

static void
test_doubles(void)
{
	StringInfoData text;
	PromOtlpAttributes attributes;

	initStringInfo(&text);
	prom_otlp_attributes_begin(&attributes, &text);
	prom_otlp_add_double(&attributes, "a", 0.1);
	prom_otlp_add_double(&attributes, "b", NAN);
	prom_otlp_add_double(&attributes, "c", INFINITY);
	prom_otlp_add_double(&attributes, "d", -INFINITY);
	prom_otlp_add_int(&attributes, "e", PG_INT64_MIN);
	prom_otlp_attributes_end(&attributes);
	check_text(text.data,
			   "\"attributes\":["
			   "{\"key\":\"a\",\"value\":{\"doubleValue\":0.10000000000000001}},"
			   "{\"key\":\"e\",\"value\":{\"intValue\":\"-9223372036854775808\"}}"
			   "],\"droppedAttributesCount\":3",
			   "T10: what is not finite is dropped and counted");
	pfree(text.data);
}

/* How many attributes are in it. */
static int
count(const char *text, const char *what)
{
	int n = 0;

	while ((text = strstr(text, what)) != NULL)
	{
		n++;
		text += strlen(what);
	}
	return n;
}

static void
test_limits(void)
{
	StringInfoData object;
	PromOtlpSpan span;
	char *text;
	char *value = malloc(PROM_OTLP_MAX_VALUE);

	initStringInfo(&object);
	for (int i = 0; i < 200; i++)
	{
		appendStringInfoString(&object, i == 0 ? "{" : ",");
		appendStringInfo(&object, "\"k%d\":%d", i, i);
	}
	appendStringInfoChar(&object, '}');
	span = make_span(object.data);
	text = write_span(&span);
	check(count(text, "{\"key\":") == 128, "T11: 128 attributes");
	check(strstr(text, "\"droppedAttributesCount\":72,") != NULL,
		  "T11: the others are counted");
	free(text);
	pfree(object.data);

	/* One that is too long, and others that are too long together. */
	memset(value, 'x', PROM_OTLP_MAX_VALUE);
	initStringInfo(&object);
	appendStringInfoString(&object, "{\"long\": \"");
	appendBinaryStringInfo(&object, value, PROM_OTLP_MAX_VALUE);
	for (int i = 0; i < 5; i++)
	{
		appendStringInfo(&object, "\", \"k%d\": \"", i);
		appendBinaryStringInfo(&object, value, PROM_OTLP_MAX_VALUE - 100);
	}
	appendStringInfoString(&object, "\", \"short\": 1}");
	span = make_span(object.data);
	text = write_span(&span);
	check(strstr(text, "\"key\":\"long\"") == NULL, "T12: too long");
	check(count(text, "{\"key\":\"k") == 4, "T12: as many as there is room for");
	check(count(text, "{\"key\":\"short\"") == 1, "T12: what is short, still");
	check(strstr(text, "\"droppedAttributesCount\":2,") != NULL,
		  "T12: the others are counted");
	free(text);
	free(value);
	pfree(object.data);
}

static void
test_gzip(void)
{
	PromOtlpSpan span = make_span("{\"a\": \"\xE2\x82\xAC\"}");
	PromOtlpRequest request;
	z_stream stream = {0};
	char *packed;
	char *again;
	size_t length;

	prom_otlp_begin(&request, &resource);
	for (int i = 0; i < 100; i++)
		check(prom_otlp_add_span(&request, &span), "a span");
	prom_otlp_end(&request);
	packed = prom_otlp_gzip(request.body.data, request.body.len, &length);
	check(packed != NULL && length < request.body.len / 5, "it is shorter");
	again = malloc(request.body.len + 1);
	check(inflateInit2(&stream, 15 + 16) == Z_OK, "inflate");
	stream.next_in = (Bytef *) packed;
	stream.avail_in = (uInt) length;
	stream.next_out = (Bytef *) again;
	stream.avail_out = (uInt) request.body.len + 1;
	check(inflate(&stream, Z_FINISH) == Z_STREAM_END &&
			  stream.total_out == request.body.len &&
			  memcmp(again, request.body.data, request.body.len) == 0,
		  "T14: gzip comes back as the same JSON");
	(void) inflateEnd(&stream);
	free(packed);
	free(again);
	pfree(request.body.data);
}

static void
check_reply(PromHttpEnd end, int status, const char *body,
			PromOtlpVerdict verdict, int64 rejected, const char *message)
{
	PromOtlpReply reply;

	prom_otlp_read_reply(end, status, slice(body), &reply);
	check(reply.verdict == verdict, "verdict on %d with %s: %d", status, body,
		  (int) reply.verdict);
	check(reply.rejected == rejected, "rejected by %s: %lld", body,
		  (long long) reply.rejected);
	check_text(reply.message, message, body);
}

static void
test_replies(void)
{
	static const char *const accepted[] = {
		"", "{}", "{\"partialSuccess\":{}}", "{\"partialSuccess\":null}",
		"{\"partialSuccess\":{\"rejectedSpans\":0}}",
		"{\"partialSuccess\":{\"rejectedSpans\":\"0\",\"errorMessage\":\"\"}}",
		"{\"partialSuccess\":{\"rejectedSpans\":-4}}",
		"{\"partialSuccess\":{\"rejectedSpans\":\"\"}}",
		"{\"partialSuccess\":{\"rejectedSpans\":\"many\"}}",
		"{\"partialSuccess\":{\"rejectedSpans\":99999999999999999999999}}",
		"not JSON", "\"", "[]"};
	static const int retried[] = {429, 502, 503, 504, 301, 302, 0};
	static const int refused[] = {400, 401, 403, 404, 413, 415, 422,
								  500, 501, 505, 599};

	for (int i = 0; i < lengthof(accepted); i++)
		check_reply(PROM_HTTP_COMPLETE, 200, accepted[i], PROM_OTLP_ACCEPTED,
					0, "");
	check_reply(PROM_HTTP_COMPLETE, 202, "", PROM_OTLP_ACCEPTED, 0, "");
	check_reply(PROM_HTTP_COMPLETE, 200,
				"{\"partialSuccess\":{\"rejectedSpans\":\"3\",\"errorMessage\":"
				"\"too\\nold\"}}",
				PROM_OTLP_ACCEPTED, 3, "too old");
	check_reply(PROM_HTTP_COMPLETE, 200,
				"{\"partialSuccess\":{\"rejectedSpans\":7}}",
				PROM_OTLP_ACCEPTED, 7, "");
	check_reply(PROM_HTTP_COMPLETE, 200,
				"{\"partialSuccess\":{\"rejectedDataPoints\":\"2\"}}",
				PROM_OTLP_ACCEPTED, 2, "");
	check_reply(PROM_HTTP_COMPLETE, 200,
				"{\"partialSuccess\":{\"errorMessage\":\"slow down\"}}",
				PROM_OTLP_ACCEPTED, 0, "slow down");
	for (int i = 0; i < lengthof(retried); i++)
		check_reply(PROM_HTTP_COMPLETE, retried[i], "", PROM_OTLP_AGAIN, 0, "");
	for (int i = 0; i < lengthof(refused); i++)
		check_reply(PROM_HTTP_COMPLETE, refused[i],
					"{\"code\":3,\"message\":\"bad\"}", PROM_OTLP_REFUSED, 0,
					"bad");
	check_reply(PROM_HTTP_CUT, 200, "{", PROM_OTLP_AGAIN, 0, "");
	check_reply(PROM_HTTP_CUT, 400, "{", PROM_OTLP_REFUSED, 0, "");
	check_reply(PROM_HTTP_LOST, 0, "", PROM_OTLP_AGAIN, 0, "");
	check_reply(PROM_HTTP_STALE, 0, "", PROM_OTLP_AGAIN, 0, "");
	check_reply(PROM_HTTP_UNREACHABLE, 0, "", PROM_OTLP_AGAIN, 0, "");
	check_reply(PROM_HTTP_UNTRUSTED, 0, "", PROM_OTLP_AGAIN, 0, "");
	check_reply(PROM_HTTP_TOTAL_TIMEOUT, 0, "", PROM_OTLP_AGAIN, 0, "");
	check_reply(PROM_HTTP_TOO_LONG, 200, "", PROM_OTLP_REFUSED, 0, "");
}

static void
test_back_off(void)
{
	int64 before = 0;

	for (int i = 1; i < 100; i++)
	{
		check(prom_otlp_back_off(i, 0) >= before,
			  "T16: it does not become shorter");
		before = prom_otlp_back_off(i, 0);
		check(prom_otlp_back_off(i, 0.999) > before, "T16: there is jitter");
		check(prom_otlp_back_off(i, 1) <= 60000, "T16: a minute at most");
	}
	check(prom_otlp_back_off(1, 0) == 500 && prom_otlp_back_off(2, 0) == 1000 &&
			  prom_otlp_back_off(3, 0) == 2000,
		  "T16: it doubles");
}

/* Whatever an object is, what is made of it is JSON. */
static void
test_random(void)
{
	static const char *const pieces[] = {"{", "}", "[", "]", "\"a\"", ":", ",",
										 "1", "-", "0.5", "1e9", "null", "true",
										 "\"\\u0000\"", "NaN", " ", "\""};
	unsigned seed = 7;
	int begun = group_begin();

	for (int i = 0; i < 20000; i++)
	{
		char object[256] = "{\"k\":";
		StringInfoData text;
		PromOtlpAttributes attributes;

		for (int n = next_random(&seed) % 12; n > 0; n--)
			strcat(object, pieces[next_random(&seed) % lengthof(pieces)]);
		strcat(object, "}");
		initStringInfo(&text);
		appendStringInfoChar(&text, '{');
		prom_otlp_attributes_begin(&attributes, &text);
		prom_otlp_add_object(&attributes, slice(object));
		prom_otlp_attributes_end(&attributes);
		appendStringInfoChar(&text, '}');
		check(prom_json_valid(slice(text.data)), "JSON of %s: %s", object,
			  text.data);
		pfree(text.data);
	}
	group_end(begun);
}

int
main(void)
{
	test_spans();
	test_bad_spans();
	test_values();
	test_depth();
	test_doubles();
	test_limits();
	test_gzip();
	test_replies();
	test_back_off();
	test_random();
	return report();
}
