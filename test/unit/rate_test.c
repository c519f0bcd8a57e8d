/*
 * rate_test.c
 *	  Tests of rate.c and pace.c, and of how header.c takes rates.
 */
#include "postgres.h"

#include "header.h"
#include "pace.h"
#include "standin.h"

#define FUZZ_ROUNDS 200000
#define SECOND INT64CONST(1000000)
#define START INT64CONST(800000000000000) /* some moment of 2025 */

static void
check_duration(const char *text, int64 want)
{
	int64 got = prom_rate_read_duration(text);

	check(got == want, "duration \"%s\": %lld", text, (long long) got);
}

static void
check_date(const char *text, int64 want)
{
	int64 got = prom_rate_read_date(text);

	check(got == want, "date \"%s\": %lld", text, (long long) got);
}

static void
test_durations(void)
{
	static const char *const wrong[] = {
		"", " ", "s", "-1s", "+1s", "1 s", "1s ", "1x", "1sx", "1s2", "m1",
		".", ".s", "1.2.3s", "1e3", "0x10", "nan", "inf", "1,5s", "3601s",
		"61m", "1h0.1s", "999999999999999999999s", "99999999999h",
		"1h1h", "59m59s2s", "1\xC2s"};

	check_duration("6m0s", 360000);
	check_duration("1s", 1000);
	check_duration("20ms", 20);
	check_duration("1m30.5s", 90500);
	check_duration("0s", 0);
	check_duration("0", 0);
	check_duration("1h", 3600000);
	check_duration("59m59.999s", 3599999);
	check_duration("7.66s", 7660);
	check_duration("2", 2000);
	check_duration("0.25", 250);
	check_duration("1.0001s", 1001); /* never too early */
	check_duration("17us", 1);
	check_duration("17\xC2\xB5s", 1);
	check_duration("17\xCE\xBCs", 1);
	check_duration("5ns", 1);
	check_duration("0.000000000000001s", 0);
	for (int i = 0; i < lengthof(wrong); i++)
		check_duration(wrong[i], -1);
}

static void
test_dates(void)
{
	static const char *const wrong[] = {
		"", "2024", "2024-01-01", "2024-01-01T00:00:00", "24-01-01T00:00:00Z",
		"2024-00-01T00:00:00Z", "2024-13-01T00:00:00Z", "2024-01-32T00:00:00Z",
		"2024-01-01T24:00:00Z", "2024-01-01T00:60:00Z", "2024-01-01T00:00:61Z",
		"2024-01-01T00:00:00.Z", "2024-01-01T00:00:00Zx", "2024/01/01T00:00:00Z",
		"2024-01-01T00:00:00+1", "2024-01-01T00:00:00+24:00",
		"2024-01-01T00:00:00+00:60", "-2024-01-01T00:00:00Z",
		"1969-12-31T23:59:59Z", "2024-01-01T00:00:00z0"};

	check_date("1970-01-01T00:00:00Z", 0);
	check_date("2000-02-29T12:00:00Z", INT64CONST(951825600000));
	check_date("2000-03-01T00:00:00Z", INT64CONST(951868800000));
	check_date("2024-12-31T23:59:59.5Z", INT64CONST(1735689599500));
	check_date("2024-12-31t23:59:59.1234567z", INT64CONST(1735689599123));
	check_date("2025-01-01T01:00:00+01:00", INT64CONST(1735689600000));
	check_date("2024-12-31 18:30:00-05:30", INT64CONST(1735689600000));
	check_date("9999-12-31T23:59:59Z", INT64CONST(253402300799000));
	for (int i = 0; i < lengthof(wrong); i++)
		check_date(wrong[i], -1);
}

static void
take_line(PromHeaders *headers, const char *line)
{
	prom_headers_line(headers, line, strlen(line));
}

static void
check_rate(const PromHeaders *headers, PromRateKind kind, int64 limit,
		   int64 remaining, int64 reset_in)
{
	const PromRate *rate = &headers->rates[kind];
	int64 got = prom_rate_reset_in(rate, headers->date);

	check(rate->limit == limit && rate->remaining == remaining &&
			  got == reset_in,
		  "kind %d: %lld %lld %lld", kind, (long long) rate->limit,
		  (long long) rate->remaining, (long long) got);
}

static void
test_headers(void)
{
	PromHeaders headers;

	prom_headers_reset(&headers);
	take_line(&headers, "HTTP/1.1 200 OK\r\n");
	for (int i = 0; i < PROM_NRATES; i++)
		check_rate(&headers, i, -1, -1, -1);
	take_line(&headers, "X-RateLimit-Limit-Requests: 60\r\n");
	take_line(&headers, "x-ratelimit-remaining-requests:59");
	take_line(&headers, "x-ratelimit-reset-requests: 1s ");
	take_line(&headers, "x-ratelimit-remaining-tokens: 149984");
	take_line(&headers, "x-ratelimit-reset-tokens: 6m0s");
	take_line(&headers, "x-ratelimit-remaining: 0");
	take_line(&headers, "x-ratelimit-reset: 1735689600");
	take_line(&headers, "x-ratelimit-remaining-tokens-usage: 0");
	check_rate(&headers, PROM_RATE_REQUESTS, 60, 59, 1000);
	check_rate(&headers, PROM_RATE_TOKENS, -1, 149984, 360000);
	check_rate(&headers, PROM_RATE_TOKENS_IN, -1, -1, -1);

	/* A status line begins anew.  The peer's clock counts, wherever it is. */
	take_line(&headers, "HTTP/1.1 200 OK\r\n");
	take_line(&headers, "anthropic-ratelimit-requests-limit: 50");
	take_line(&headers, "anthropic-ratelimit-requests-remaining: 0");
	take_line(&headers,
			  "anthropic-ratelimit-requests-reset: 1994-11-06T08:49:40Z");
	take_line(&headers, "Anthropic-RateLimit-Input-Tokens-Remaining: 7");
	take_line(&headers,
			  "anthropic-ratelimit-input-tokens-reset: 1994-11-06T08:49:37Z");
	take_line(&headers, "anthropic-ratelimit-output-tokens-remaining: -7");
	take_line(&headers,
			  "anthropic-ratelimit-output-tokens-reset: 1994-11-06T08:00:00Z");
	take_line(&headers, "anthropic-ratelimit-tokens-limit: 99999999999999999999");
	take_line(&headers, "Date: Sun, 06 Nov 1994 08:49:37 GMT");
	check_rate(&headers, PROM_RATE_REQUESTS, 50, 0, 3000);
	check_rate(&headers, PROM_RATE_TOKENS_IN, -1, 7, 0);
	check_rate(&headers, PROM_RATE_TOKENS_OUT, -1, -1, -1);
	check_rate(&headers, PROM_RATE_TOKENS, INT64CONST(1000000000000000), -1,
			   -1);
	take_line(&headers,
			  "anthropic-ratelimit-requests-reset: 1994-11-06T09:49:38Z");
	check_rate(&headers, PROM_RATE_REQUESTS, 50, 0, -1); /* an hour and 1 s */
}

/* Random headers of these names, in what a peer could send as their value. */
static void
test_random(void)
{
	static const char letters[] = "0123456789.:-+TZhmsun \xC2\xB5";
	static const char *const names[] = {
		"x-ratelimit-reset-requests", "x-ratelimit-remaining-tokens",
		"anthropic-ratelimit-requests-reset",
		"anthropic-ratelimit-output-tokens-limit", "x-ratelimit-", "x-ratelimit"};
	int group = group_begin();
	unsigned seed = 7;

	for (int round = 0; round < FUZZ_ROUNDS; round++)
	{
		PromHeaders headers;
		char line[128];
		int length = next_random(&seed) % 40;
		const char *name = names[next_random(&seed) % lengthof(names)];
		int n = snprintf(line, sizeof(line), "%s: ", name);

		for (int i = 0; i < length; i++)
			line[n++] = letters[next_random(&seed) % (sizeof(letters) - 1)];
		prom_headers_reset(&headers);
		prom_headers_line(&headers, line, n);
		for (int i = 0; i < PROM_NRATES; i++)
		{
			int64 ms = prom_rate_reset_in(&headers.rates[i], 1735689600);

			check(ms >= -1 && ms <= 3600000 &&
					  headers.rates[i].limit >= -1 &&
					  headers.rates[i].remaining >= -1,
				  "random line \"%.*s\": %lld", n, line, (long long) ms);
		}
	}
	group_end(group);
}

/* What a provider says. */
static void
say(PromRate *rates, PromRateKind kind, int64 limit, int64 remaining,
	int64 reset_ms)
{
	prom_rates_reset(rates);
	rates[kind].limit = limit;
	rates[kind].remaining = remaining;
	rates[kind].reset_ms = reset_ms;
}

static void
check_held(PromPace *pace, TimestampTz now, int64 seconds, uint32 allows)
{
	uint32 got;
	TimestampTz held = prom_pace_held(pace, now, &got);

	check(held == (seconds == 0 ? 0 : now + seconds * SECOND) && got == allows,
		  "held for %lld us and %u, not %lld s and %u",
		  (long long) (held == 0 ? 0 : held - now), got, (long long) seconds,
		  allows);
}

static void
test_buckets(void)
{
	PromPace pace = {0};
	PromNeed small = prom_pace_need(10, 20);
	PromNeed large = prom_pace_need(1000, 999);
	TimestampTz now = START;
	uint32 allows;

	check(prom_pace_fits(&pace, &large, now), "no limit");
	check_held(&pace, now, 0, PG_UINT32_MAX);
	check(prom_pace_set_limits(&pace, 6, 0, now), "a limit is new");
	check(!prom_pace_set_limits(&pace, 6, 0, now), "and then not");
	check_held(&pace, now, 0, 6);
	for (int i = 0; i < 6; i++)
	{
		check(prom_pace_fits(&pace, &small, now), "request %d", i);
		prom_pace_take(&pace, &small, now);
	}
	check(!prom_pace_fits(&pace, &small, now), "the bucket is empty");
	check_held(&pace, now, 10, 1);
	check(!prom_pace_fits(&pace, &small, now + 10 * SECOND - 1), "not yet");
	check(prom_pace_fits(&pace, &small, now + 10 * SECOND), "now");
	check_held(&pace, now + 10 * SECOND, 0, 1);
	prom_pace_give_back(&pace, &small);
	check_held(&pace, now + 10 * SECOND, 0, 2);

	/* Who has an older moment is not told an earlier one. */
	memset(&pace, 0, sizeof(pace));
	(void) prom_pace_set_limits(&pace, 6, 0, now);
	for (int i = 0; i < 6; i++)
		prom_pace_take(&pace, &small, now);
	check_held(&pace, now, 10, 1);
	check(prom_pace_held(&pace, now - SECOND, &allows) == now + 10 * SECOND,
		  "an older moment");
	check(!prom_pace_fits(&pace, &small, now - SECOND), "nor does it fit");
	prom_pace_give_back(&pace, &small);
	check(prom_pace_fits(&pace, &small, now - SECOND), "until it does");

	/* Of a rest no more than a minute counts; a clock may go back. */
	now += 86400 * SECOND;
	check_held(&pace, now, 0, 6);
	check_held(&pace, now - 86400 * SECOND, 0, 6);
	check_held(&pace, now - 86400 * SECOND + 1, 0, 6);

	/* Tokens, and a request that is larger than the bucket. */
	now = START;
	memset(&pace, 0, sizeof(pace));
	check(prom_pace_set_limits(&pace, 0, 600, now), "a limit is new");
	check(prom_pace_fits(&pace, &large, now), "as good as it gets");
	prom_pace_take(&pace, &large, now);
	check_held(&pace, now, 140, 1);
	prom_pace_correct(&pace, &large, 30);
	check_held(&pace, now, 0, 1);
	check(prom_pace_fits(&pace, &small, now), "a small one");
	check(!prom_pace_fits(&pace, &large, now), "not full");
	check_held(&pace, now, 3, 1);
	check(prom_pace_fits(&pace, &large, now + 3 * SECOND), "full");

	/* What was used before; a limit that changes, and goes. */
	memset(&pace, 0, sizeof(pace));
	(void) prom_pace_set_limits(&pace, 60, 600, now);
	prom_pace_used_before(&pace, 61, 30);
	check_held(&pace, now, 2, 1);
	(void) prom_pace_set_limits(&pace, 120, 600, now);
	check_held(&pace, now, 1, 1);
	(void) prom_pace_set_limits(&pace, 0, 0, now);
	check_held(&pace, now, 0, PG_UINT32_MAX);
}

static void
test_allowances(void)
{
	PromPace pace = {0};
	PromNeed need = prom_pace_need(100, 400);
	PromRate rates[PROM_NRATES];
	TimestampTz now = START;

	/* Nothing left: until it is whole; then as many as the limit says. */
	prom_pace_take(&pace, &need, now);
	say(rates, PROM_RATE_REQUESTS, 3, 0, 5000);
	prom_pace_hear(&pace, &need, rates, 0, now);
	check(!prom_pace_fits(&pace, &need, now), "nothing is left");
	check_held(&pace, now, 5, 1);
	now += 5 * SECOND;
	check_held(&pace, now, 0, 3);
	for (int i = 0; i < 3; i++)
		prom_pace_take(&pace, &need, now);
	check_held(&pace, now, 60, 1);

	/* Those on their way may not be counted yet. */
	say(rates, PROM_RATE_REQUESTS, 3, 2, 1000);
	prom_pace_hear(&pace, &need, rates, 0, now);
	check_held(&pace, now, 1, 1);
	prom_pace_hear(&pace, &need, rates, 0, now);
	check_held(&pace, now, 0, 1);
	prom_pace_hear(&pace, &need, NULL, 0, now);
	check_held(&pace, now, 0, 1);
	check_held(&pace, now + SECOND, 0, 3);

	/* Too little of one kind; without a limit it is forgotten then. */
	memset(&pace, 0, sizeof(pace));
	say(rates, PROM_RATE_TOKENS_OUT, -1, 399, 7000);
	prom_pace_take(&pace, &need, now);
	prom_pace_hear(&pace, &need, rates, 0, now);
	check_held(&pace, now, 0, 1);
	check(!prom_pace_fits(&pace, &need, now), "too little");
	check_held(&pace, now, 7, 1);
	now += 7 * SECOND;
	check_held(&pace, now, 0, PG_UINT32_MAX);

	/* More than the limit is possible once it is whole. */
	say(rates, PROM_RATE_TOKENS_IN, 50, 50, 7000);
	prom_pace_take(&pace, &need, now);
	prom_pace_hear(&pace, &need, rates, 0, now);
	check(prom_pace_fits(&pace, &need, now), "as good as it gets");

	/* A person knows better. */
	say(rates, PROM_RATE_TOKENS_IN, 50, 0, 3600000);
	prom_pace_take(&pace, &need, now);
	prom_pace_hear(&pace, &need, rates, 0, now);
	check_held(&pace, now, 3600, 1);
	prom_pace_forget(&pace);
	check_held(&pace, now, 0, PG_UINT32_MAX);
	check(pace.unheard.of[PROM_RATE_TOKENS] == 0, "all are heard");

	/* It is over, or makes no sense. */
	for (int64 ms = -1; ms <= 0; ms++)
	{
		say(rates, PROM_RATE_REQUESTS, 50, 0, ms);
		prom_pace_take(&pace, &need, now);
		prom_pace_hear(&pace, &need, rates, 0, now);
		check_held(&pace, now, 0, PG_UINT32_MAX);
	}
}

/* Whatever comes, a gate is not held for more than an hour. */
static void
test_random_paces(void)
{
	int group = group_begin();
	unsigned seed = 11;
	PromPace pace = {0};
	TimestampTz now = START;
	PromNeed sent[64];
	int nsent = 0;

	for (int round = 0; round < FUZZ_ROUNDS; round++)
	{
		PromNeed need = prom_pace_need(next_random(&seed) % 5000,
									   next_random(&seed) % 5000);
		uint32 allows;
		TimestampTz held;

		now += next_random(&seed) % 100000;
		if (round % 1000 == 0)
			(void) prom_pace_set_limits(&pace, next_random(&seed) % 100,
										next_random(&seed) % 100000, now);
		if (nsent < lengthof(sent) && prom_pace_fits(&pace, &need, now))
		{
			prom_pace_take(&pace, &need, now);
			sent[nsent++] = need;
		}
		if (nsent > 0 && next_random(&seed) % 2 == 0)
		{
			PromRate rates[PROM_NRATES];

			say(rates, next_random(&seed) % PROM_NRATES,
				(int64) (next_random(&seed) % 100) - 1,
				(int64) (next_random(&seed) % 100) - 1,
				(int64) (next_random(&seed) % 10000) - 1);
			nsent--;
			prom_pace_hear(&pace, &sent[nsent], rates, 0, now);
			prom_pace_correct(&pace, &sent[nsent], next_random(&seed) % 9000);
		}
		held = prom_pace_held(&pace, now, &allows);
		check(held >= 0 && held <= now + 3600 * SECOND && allows > 0,
			  "round %d: held for %lld us", round, (long long) (held - now));
	}
	group_end(group);
}

int
main(void)
{
	test_durations();
	test_dates();
	test_headers();
	test_random();
	test_buckets();
	test_allowances();
	test_random_paces();
	return report();
}
