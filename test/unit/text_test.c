/*
 * text_test.c
 *	  Tests of text.c, delta.c, header.c, address.c, timer.c and retry.c.
 */
#include "postgres.h"

#include <limits.h>
#include <time.h>

#include <curl/curl.h>

#include "address.h"
#include "header.h"
#include "peer.h"
#include "provider/delta.h"
#include "retry.h"
#include "secret.h"
#include "standin.h"
#include "text.h"
#include "timer.h"

#define FFFD "\xEF\xBF\xBD"

static PromSlice
slice(const char *text)
{
	PromSlice result = {text, strlen(text)};

	return result;
}

static void
check_clean(const char *text, size_t length, const char *want)
{
	size_t clean_length;
	char *clean = prom_text_clean(text, length, &clean_length);

	check_text(clean, want, "clean");
	check(clean_length == strlen(want), "the clean text has no zero byte");
	free(clean);
}

static void
test_clean(void)
{
	char line[8];

	check_clean("", 0, "");
	check_clean("plain", 5, "plain");
	check_clean("a\0b", 3, "a" FFFD "b");
	check_clean("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", 9,
				"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
	check_clean("\xC3", 1, FFFD);
	check_clean("\xE2\x82", 2, FFFD); /* cut off */
	check_clean("\xE2\x82"
				"A",
				3, FFFD "A");              /* broken off */
	check_clean("\xC0\xAF", 2, FFFD FFFD); /* overlong */
	check_clean("\xE0\x80\xAF", 3, FFFD FFFD FFFD);
	check_clean("\xED\xA0\x80", 3, FFFD FFFD FFFD); /* a surrogate */
	check_clean("\xF4\x90\x80\x80", 4, FFFD FFFD FFFD FFFD);
	check_clean("\xFF\xFE", 2, FFFD FFFD);
	check_clean("\xEF\xBF\xBF\xED\x9F\xBF\xEE\x80\x80", 9,
				"\xEF\xBF\xBF\xED\x9F\xBF\xEE\x80\x80");

	prom_text_one_line(line, sizeof(line), "a\nb\tc\x7F"
										   "d",
					   7);
	check_text(line, "a b c d", "one line");
	prom_text_one_line(line, sizeof(line), "abcdef\xC3\xA9", 8);
	check_text(line, "abcdef", "cut between characters");
	prom_text_one_line(line, 1, "abc", 3);
	check_text(line, "", "no room");
}

static void
test_clean_json(void)
{
	static const char *const same[] = {
		"{\"a\":\"\\u0000\\ud800\\/ \\\"\",\"b\":18446744073709551616}",
		" [ 1.50 ,\n\t-0e+1 ] ",
		"\"\\\\\"",
	};
	char *clean;
	int i;

	for (i = 0; i < lengthof(same); i++)
	{
		clean = prom_text_clean_json(slice(same[i]), NULL);
		check_text(clean, same[i], "json stays as it is");
		free(clean);
	}
	clean = prom_text_clean_json(slice("{\"a\n\xFF\":\n\"\\\"\x1F\"}"), NULL);
	check_text(clean, "{\"a\\u000a" FFFD "\":\n\"\\\"\\u001f\"}",
			   "json is made fit for text");
	free(clean);
}

static void
test_valid(void)
{
	static const char *const good[] = {
		"1",
		"-0.5e-10",
		"0",
		" true ",
		"false",
		"null",
		"\"\"",
		"[]",
		"{}",
		"[[],{}]",
		"{\"a\":[1,{\"b\":null}],\"c\":\"\\u00e9\\n\"}",
		"\"raw\ttab\"",
		"[1 , 2]",
		"{ \"a\" : 1 , \"b\" : 2 }\n",
	};
	static const char *const bad[] = {
		"",
		" ",
		"01",
		"1.",
		"-",
		"1e",
		"+1",
		".5",
		"tru",
		"truex",
		"nul",
		"\"",
		"\"\\",
		"\"\\x\"",
		"\"\\u12g4\"",
		"\"\\u12\"",
		"[",
		"]",
		"[1",
		"[1,]",
		"[,1]",
		"[1 2]",
		"{",
		"{\"a\"}",
		"{\"a\":}",
		"{\"a\":1,}",
		"{a:1}",
		"{'a':1}",
		"[1}",
		"{\"a\":1]",
		"1 2",
		"NaN",
		"/**/1",
		"{\"a\":1 \"b\":2}",
		"[]]",
		"\"a\"b",
	};
	size_t depth;
	int i;

	for (i = 0; i < lengthof(good); i++)
		check(prom_json_valid(slice(good[i])), "good: %s", good[i]);
	for (i = 0; i < lengthof(bad); i++)
		check(!prom_json_valid(slice(bad[i])), "bad: %s", bad[i]);
	for (depth = 10000; depth <= 10000000; depth *= 1000)
	{
		PromSlice deep = {malloc(2 * depth), 2 * depth};

		memset((char *) deep.data, '[', depth);
		memset((char *) deep.data + depth, ']', depth);
		check(prom_json_valid(deep) == (depth <= PROM_JSON_MAX_DEPTH),
			  "%zu levels", depth);
		free((char *) deep.data);
	}
}

static void
check_find(const char *json, const char *path, const char *want)
{
	PromSlice found;
	bool ok = prom_json_find(slice(json), path, &found);
	char text[128] = "";

	if (ok && found.length < sizeof(text))
		memcpy(text, found.data, found.length);
	check_text(ok ? text : NULL, want, path);
}

static void
test_find(void)
{
	static const char json[] =
		" {\"a\" : {\"b\":[1, {\"c\":\"x]}\\\"\"} ,[2.50]]}, \"e\":null,"
		"\"a2\":7,\"d\":1,\"d\":\"last\"} ";

	check_find(json, "a.b.0", "1");
	check_find(json, "a.b.1.c", "\"x]}\\\"\"");
	check_find(json, "a.b.2", "[2.50]");
	check_find(json, "a.b.2.0", "2.50");
	check_find(json, "a.b.3", NULL);
	check_find(json, "e", "null");
	check_find(json, "e.f", NULL);
	check_find(json, "d", "\"last\"");
	check_find(json, "nothing", NULL);
	check_find("[]", "0", NULL);
	check_find("{}", "a", NULL);
	check_find("{\"a\":", "a", NULL);
	check_find("", "a", NULL);
}

static void
check_string(const char *json, const char *want)
{
	size_t length = 0;
	char *text = prom_json_string(slice(json), &length);

	check_text(text, want, json);
	check(text == NULL || length == strlen(text), "%s: length", json);
	free(text);
}

static void
test_string(void)
{
	check_string("\"\"", "");
	check_string("\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "a\"\\/\b\f\n\r\t");
	check_string("\"\\u0041\\u00e9\\u20AC\"", "A\xC3\xA9\xE2\x82\xAC");
	check_string("\"\\ud83d\\ude00\"", "\xF0\x9F\x98\x80");
	check_string("\"\\uD83D\\uD83D\\uDE00\"", FFFD "\xF0\x9F\x98\x80");
	check_string("\"\\ud83d\"", FFFD);
	check_string("\"\\ude00\\ud83dx\"", FFFD FFFD "x");
	check_string("\"a\\u0000b\"", "a" FFFD "b");
	check_string("\"\xFF\"", FFFD);
	check_string("12", NULL);
	check_string("\"", NULL);
}


static void
check_delta(const char *const *pieces, int count, const char *want)
{
	PromDelta *delta = prom_delta_create();
	size_t length;
	char *text;
	int i;

	for (i = 0; i < count; i++)
		check(prom_delta_merge(delta, slice(pieces[i])) == PROM_DELTA_OK,
			  "merge %s", pieces[i]);
	text = prom_delta_message(delta, &length);
	check_text(text, want, pieces[0]);
	check(text != NULL && prom_json_valid(slice(text)), "valid: %s", text);
	free(text);
	prom_delta_free(delta);
}

#define DELTA(want, ...)                                    \
	do                                                      \
	{                                                       \
		static const char *const pieces_[] = {__VA_ARGS__}; \
		check_delta(pieces_, lengthof(pieces_), want);      \
	} while (0)

static void
test_delta(void)
{
	DELTA("{\"role\":\"assistant\"}", "{}");
	DELTA("{\"role\":\"assistant\",\"content\":\"ab\"}",
		  "{\"role\":\"assistant\",\"content\":\"a\"}",
		  "{\"role\":\"assistant\",\"content\":\"b\"}", "{\"content\":null}");
	DELTA("{\"role\":\"assistant\",\"content\":\"b\"}",
		  "{\"content\":null}", "{\"content\":\"b\"}", "{\"content\":\"\"}");
	DELTA("{\"role\":\"assistant\",\"n\":3,\"x\":{\"y\":\"ab\",\"z\":[1,2]}}",
		  "{\"n\":1,\"x\":{\"y\":\"a\",\"z\":[1]}}",
		  "{\"n\":3,\"x\":{\"y\":\"b\",\"z\":[2]}}");
	DELTA("{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c1\",\"type\":"
		  "\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}",
		  "{\"tool_calls\":[{\"index\":0,\"id\":\"c1\",\"type\":\"function\","
		  "\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]}",
		  "{\"tool_calls\":[{\"index\":0,\"id\":\"c1\",\"type\":\"function\","
		  "\"function\":{\"name\":\"f\",\"arguments\":\"}\"}}]}");
	DELTA("{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\"},"
		  "{\"id\":\"b\"}]}",
		  "{\"tool_calls\":[{\"index\":1,\"id\":\"b\"}]}",
		  "{\"tool_calls\":[{\"index\":0,\"id\":\"a\"}]}");
	DELTA("{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\"}]}",
		  "{\"tool_calls\":[{\"id\":\"a\",\"index\":0}]}");
	DELTA("{\"role\":\"assistant\",\"details\":[{\"index\":0,\"s\":\"xy\"}]}",
		  "{\"details\":[{\"index\":0,\"s\":\"x\"}]}",
		  "{\"details\":[{\"index\":0,\"s\":\"y\"}]}");
	DELTA("{\"role\":\"assistant\",\"a\":{\"b\":1}}",
		  "{\"a\":\"text\"}", "{\"a\":{\"b\":1}}");
}

/* No stream can make it use more than a bounded amount of memory. */
static void
test_delta_limits(void)
{
	PromDelta *delta = prom_delta_create();
	PromDeltaState state = PROM_DELTA_OK;
	char piece[64];
	int i;

	for (i = 0; i < 100000 && state == PROM_DELTA_OK; i++)
	{
		snprintf(piece, sizeof(piece), "{\"k%d\":1}", i);
		state = prom_delta_merge(delta, slice(piece));
	}
	check(state == PROM_DELTA_TOO_MUCH && i < 10000, "%d members", i);
	prom_delta_free(delta);
	delta = prom_delta_create();
	for (i = 0; i < 1000; i++)
	{
		/* each piece makes the same place one level deeper */
		char deep[4096] = "";
		int level;

		for (level = 0; level < i % 200 + 1; level++)
			strlcat(deep, "{\"a\":", sizeof(deep));
		strlcat(deep, "\"x\"", sizeof(deep));
		for (level = 0; level < i % 200 + 1; level++)
			strlcat(deep, "}", sizeof(deep));
		prom_delta_merge(delta, slice(deep));
	}
	check(prom_delta_memory(delta) < 100000, "%zu bytes for deep pieces",
		  prom_delta_memory(delta));
	prom_delta_free(delta);
}


static void
check_retry_after(const char *line, int64_t low, int64_t high)
{
	PromHeaders headers;
	int64_t ms;

	prom_headers_reset(&headers);
	prom_headers_line(&headers, "HTTP/1.1 429 Too Many\r\n", 23);
	prom_headers_line(&headers, "Date: Sun, 06 Nov 1994 08:49:37 GMT", 35);
	prom_headers_line(&headers, line, strlen(line));
	check(headers.status == 429, "status");
	ms = prom_headers_retry_after(&headers);
	check(ms >= low && ms <= high, "%s: %lld", line, (long long) ms);
}

static void
test_headers(void)
{
	PromHeaders headers;
	static const char *const lines[] = {
		"HTTP/1.1 100 Continue",
		"x-request-id: old",
		"HTTP/1.1 200 OK\r\n",
		"Content-Type: Text/Event-Stream; charset=utf-8\r\n",
		"apim-request-id: third",
		"request-id: second",
		"X-Request-ID: first ",
		"apim-request-id: fourth",
		"x-should-retry: False",
		"no colon",
		"",
		":",
		"x-request-id: has blank",
	};
	int i;

	check_retry_after("Retry-After: 2", 2000, 2000);
	check_retry_after("retry-after:1.5", 1500, 1500);
	check_retry_after("Retry-After: 0", 0, 0);
	check_retry_after("Retry-After: .25", 250, 250);
	check_retry_after("Retry-After: 99999999999999999999", 604800000,
					  604800000);
	check_retry_after("Retry-After: -5", -1, -1);
	check_retry_after("Retry-After: 5s", -1, -1);
	check_retry_after("Retry-After: 0x10", -1, -1);
	check_retry_after("Retry-After: nan", -1, -1);
	check_retry_after("Retry-After: 1e3", -1, -1);
	check_retry_after("Retry-After:", -1, -1);
	check_retry_after("Retry-After: soon", -1, -1);
	check_retry_after("Retry-After: Sun, 06 Nov 1994 08:49:40 GMT", 3000,
					  3000);
	check_retry_after("Retry-After: Sun, 06 Nov 1994 08:00:00 GMT", 0, 0);
	check_retry_after("retry-after-ms: 1500.7", 1500, 1501);
	check_retry_after("retry-after-ms: many", -1, -1);

	prom_headers_reset(&headers);
	for (i = 0; i < lengthof(lines); i++)
		prom_headers_line(&headers, lines[i], strlen(lines[i]));
	check(headers.status == 200, "status %d", headers.status);
	check_text(headers.content_type, "text/event-stream", "content type");
	check_text(headers.request_id, "first", "request id");
	check(headers.should_retry == 0, "should retry");
	check(headers.keep_alive == -1, "keep-alive is not said");
}

static void
check_keep_alive(const char *line, int expected)
{
	PromHeaders headers;

	prom_headers_reset(&headers);
	prom_headers_line(&headers, line, strlen(line));
	check(headers.keep_alive == expected, "%s: %d", line, headers.keep_alive);
}

static void
test_peer(void)
{
	PromPeer peer = {0};

	check_keep_alive("Keep-Alive: timeout=5", 5);
	check_keep_alive("keep-alive: max=100, Timeout=75\r\n", 75);
	check_keep_alive("Keep-Alive: timeout=", -1);
	check_keep_alive("Keep-Alive: timeout=-3", -1);
	check_keep_alive("Keep-Alive: max=100", -1);
	check_keep_alive("Keep-Alive:", -1);
	check_keep_alive("Keep-Alive: ,,", -1);

	check(prom_peer_max_idle(&peer) == 50, "idle, nothing said");
	peer.keep_alive = -1;
	check(prom_peer_max_idle(&peer) == 50, "idle, not said");
	peer.keep_alive = 5;
	check(prom_peer_max_idle(&peer) == 3, "idle, 5 s");
	peer.keep_alive = 1;
	check(prom_peer_max_idle(&peer) == 1, "idle, 1 s");
	peer.keep_alive = 3600;
	check(prom_peer_max_idle(&peer) == 50, "idle, an hour");

	check(prom_peer_max_age(&peer, 5000000, 600) == 600, "never stale");
	peer.stale_at = 5000000;
	check(prom_peer_max_age(&peer, 5000000, 600) == 0, "stale now");
	check(prom_peer_max_age(&peer, 6999999, 600) == 0, "stale a second ago");
	check(prom_peer_max_age(&peer, 7000000, 600) == 1, "two seconds ago");
	check(prom_peer_max_age(&peer, 604999999, 600) == 598, "599 s ago");
	check(prom_peer_max_age(&peer, 700000000, 600) == 600, "long ago");

	check(prom_peer_place("a", "1") != prom_peer_place("a", "2"), "ports");
	check(prom_peer_place("a", "1") == prom_peer_place("a", "1"), "the same");
	check(prom_peer_place("a", NULL) >= 0 &&
			  prom_peer_place("a", NULL) < PROM_PEERS,
		  "no port");
}

static void
test_addresses(void)
{
	static const char *const private_ones[] = {
		"0.0.0.0",
		"0.1.2.3",
		"10.0.0.1",
		"100.64.0.1",
		"100.127.255.255",
		"127.0.0.1",
		"127.255.255.254",
		"169.254.169.254",
		"172.16.0.1",
		"172.31.255.255",
		"192.168.1.1",
		"192.0.0.192",
		"198.18.0.1",
		"224.0.0.1",
		"240.0.0.1",
		"255.255.255.255",
		"168.63.129.16",
		"::",
		"::1",
		"fe80::1",
		"febf::1",
		"fec0::1",
		"fc00::1",
		"fd12::1",
		"ff02::1",
		"::ffff:127.0.0.1",
		"::ffff:10.1.2.3",
		"::127.0.0.1",
		"64:ff9b::a00:1",
		"2002:7f00:1::",
		"2002:a00:1::1",
		"2001:db8::1",
		"2001::1",
		"fd00:ec2::254",
		"4000::1",
		"",
		"localhost",
		"1.2.3",
	};
	static const char *const public_ones[] = {
		"1.1.1.1",
		"9.255.255.255",
		"11.0.0.0",
		"100.63.255.255",
		"100.128.0.0",
		"172.15.255.255",
		"172.32.0.0",
		"192.0.43.8",
		"223.255.255.255",
		"2606:4700::1111",
		"::ffff:1.1.1.1",
		"64:ff9b::101:101",
		"2002:101:101::1",
		"2a00:1450::1",
	};
	int i;

	for (i = 0; i < lengthof(private_ones); i++)
		check(!prom_address_text_is_public(private_ones[i]), "private: %s",
			  private_ones[i]);
	for (i = 0; i < lengthof(public_ones); i++)
		check(prom_address_text_is_public(public_ones[i]), "public: %s",
			  public_ones[i]);
	check(prom_address_is_numeric("127.0.0.1") &&
			  prom_address_is_numeric("[::1]") &&
			  !prom_address_is_numeric("localhost") &&
			  !prom_address_is_numeric("127.0.0.1.example.com"),
		  "numeric");
}

static void
test_waits(void)
{
	check(prom_timer_wait(5000000, 5000000) == 0, "now is no wait");
	check(prom_timer_wait(5000000, 4999999) == 0, "nor is what is over");
	check(prom_timer_wait(5000000, 5000001) == 1, "a wait is rounded up");
	check(prom_timer_wait(5000000, 5001000) == 1, "but not beyond");
	check(prom_timer_wait(5000000, 5001001) == 2, "nor below");
	check(prom_timer_wait(5000000, INT64_MIN) == 0,
		  "the beginning of time is over");
	check(prom_timer_wait(INT64_MIN + 1, INT64_MAX) == INT_MAX,
		  "its end is as far as can be waited");
	check(prom_timer_wait(0, 1000LL * INT_MAX + 1) == INT_MAX,
		  "so is what is a little further");
}

static void
test_timers(void)
{
	enum
	{
		N = 1000
	};
	static PromTimer timers[N];
	PromTimerHeap heap = {0};
	unsigned seed = 7;
	int64_t last = -1;
	int left = 0;
	int i;

	for (i = 0; i < N; i++)
		prom_timer_add(&heap, &timers[i], next_random(&seed) % 5000);
	for (i = 0; i < N; i += 3)
		prom_timer_move(&heap, &timers[i], next_random(&seed) % 5000);
	for (i = 0; i < N; i += 7)
		prom_timer_remove(&heap, &timers[i]);
	prom_timer_remove(&heap, &timers[0]);
	while (prom_timer_first(&heap) != NULL)
	{
		PromTimer *first = prom_timer_first(&heap);

		if (first->due < last)
			break;
		last = first->due;
		prom_timer_remove(&heap, first);
		left++;
	}
	check(left == N - (N + 6) / 7, "%d timers in order", left);
	prom_timer_free(&heap);
}

static void
check_retry(PromHttpEnd end, int status, const char *code, int should_retry,
			const char *type, PromRetry retry, bool breaker)
{
	PromFailure failure = {0};
	PromRetryClass verdict;

	failure.end = end;
	failure.status = status;
	failure.code = code;
	failure.is_inner = code != NULL && status == 200;
	failure.should_retry = should_retry;
	verdict = prom_retry_classify(&failure);
	check(strcmp(verdict.error_type, type) == 0 && verdict.retry == retry &&
			  verdict.counts_for_breaker == breaker,
		  "end %d, status %d, code %s: %s, %d, %d", end, status,
		  code ? code : "-", verdict.error_type, verdict.retry,
		  verdict.counts_for_breaker);
}

#define DONE PROM_HTTP_COMPLETE
#define NEVER PROM_RETRY_NEVER
#define BACKOFF PROM_RETRY_BACKOFF
#define MONEY PROM_RETRY_MONEY
#define WAIT PROM_RETRY_WAIT

static void
test_retry(void)
{
	check_retry(DONE, 429, NULL, -1, "ModelUnavailable", WAIT, false);
	check_retry(DONE, 429, "slow_down", -1, "ModelUnavailable", WAIT, false);
	check_retry(DONE, 429, "insufficient_quota", -1, "ModelRejected", MONEY,
				false);
	check_retry(DONE, 400, "billing_not_active", -1, "ModelRejected", MONEY,
				false);
	check_retry(DONE, 429, "insufficient_quota", 1, "ModelRejected", MONEY,
				false);
	check_retry(DONE, 402, NULL, 0, "ModelRejected", MONEY, false);
	check_retry(DONE, 400, "context_length_exceeded", -1, "ModelRejected",
				NEVER, false);
	check_retry(DONE, 400, NULL, 1, "ModelRejected", BACKOFF, false);
	check_retry(DONE, 500, NULL, 0, "ModelUnavailable", NEVER, true);
	check_retry(DONE, 429, NULL, 0, "ModelUnavailable", NEVER, false);
	check_retry(DONE, 429, NULL, 1, "ModelUnavailable", WAIT, false);
	check_retry(DONE, 418, NULL, -1, "ModelRejected", NEVER, false);
	check_retry(DONE, 520, NULL, -1, "ModelUnavailable", BACKOFF, false);
	check_retry(DONE, 200, "500", -1, "ModelUnavailable", BACKOFF, true);
	check_retry(DONE, 200, "429", -1, "ModelUnavailable", WAIT, false);
	check_retry(DONE, 200, "400", -1, "ModelRejected", NEVER, false);
	check_retry(DONE, 200, "strange", -1, "ModelUnavailable", BACKOFF, false);
	check_retry(PROM_HTTP_CUT, 503, NULL, -1, "ModelUnavailable", BACKOFF,
				true);
	check_retry(PROM_HTTP_UNREACHABLE, 0, NULL, -1, "ModelUnavailable",
				BACKOFF, true);
	check_retry(PROM_HTTP_DEADLINE, 0, NULL, -1, "DeadlineExceeded", NEVER,
				false);
	check_retry(PROM_HTTP_TOO_LONG, 200, NULL, -1, "ModelUnreadable", NEVER,
				false);
}

/* What quotes the prompt is cut out, whatever the format of the request. */
static void
test_quotes(void)
{
	static const char *const bodies[] = {
		"{\"model\":\"m\",\"messages\":[\"%s\"]}",
		"{\"contents\":[\"%s\"]}",
		"{\"systemInstruction\":\"%s\",\"contents\":[]}",
		"{\"model\":\"m\",\"input\":[\"%s\"]}",
		"{\"model\":\"m\",\"tools\":[\"%s\"],\"messages\":[]}",
		"{\"model\":\"m\",\"system\":\"%s\",\"messages\":[]}"};
	static const char prompt[] =
		"the patient of room twelve has been told nothing of it until now";

	for (int i = 0; i < lengthof(bodies); i++)
	{
		char body[256];
		char line[256];

		snprintf(body, sizeof(body), bodies[i], prompt);
		snprintf(line, sizeof(line), "Invalid value: '%s'", prompt);
		prom_secret_hide_quotes(line, body, strlen(body));
		check(strstr(line, "room twelve") == NULL, "%s: %s", bodies[i], line);
	}
}

int
main(void)
{
	test_quotes();
	test_clean();
	test_clean_json();
	test_valid();
	test_find();
	test_string();
	test_delta();
	test_delta_limits();
	test_headers();
	test_peer();
	test_addresses();
	test_timers();
	test_waits();
	test_retry();
	return report();
}
