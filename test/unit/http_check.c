/*
 * http_check.c
 *	  Calls the fake model server in every way it can misbehave.
 *
 * http_check PORT TLS_PORT CA_FILE [load]: the fake server's ports, and the
 * certificate of the one with TLS.  With "load" only many calls at once.
 */
#include "postgres.h"

#include <dlfcn.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <curl/curl.h>

#include "address.h"
#include "guc.h"
#include "llm.h"
#include "provider/provider.h"
#include "retry.h"
#include "secret.h"
#include "standin.h"

#define PROMPT "say \"hello\" to the w\xC3\xB6rld"

typedef enum Streams
{
	PLAIN = 1,
	STREAM = 2,
	BOTH = 3
} Streams;

/* One behaviour of the fake server and what must become of it. */
typedef struct Case
{
	const char *model;
	Streams streams;
	const char *answer;     /* NULL: it fails */
	const char *error_type; /* with this */
	PromRetry retry;
	bool ambiguous;
	bool breaker;
	int status;
	const char *error_has; /* a part of the error's text, or NULL */
} Case;

/* A call under way in a test. */
typedef struct Run
{
	const Case *c;
	bool stream;
	PromCall *call;
	bool done;
} Run;

#define OK(model, streams, answer) \
	{model, streams, answer, NULL, PROM_RETRY_NEVER, false, false, 200, NULL}
#define FAIL(model, streams, type, retry, ambiguous, breaker, status, has) \
	{model, streams, NULL, type, PROM_RETRY_##retry, ambiguous, breaker, \
	 status, has}

#define FFFD "\xEF\xBF\xBD"

static const Case cases[] = {
	OK("fake-echo", BOTH, PROMPT),
	OK("anything", BOTH, PROMPT),
	OK("fake-fixed", BOTH, "The answer is 42."),
	OK("fake-slow-100", BOTH, PROMPT),
	OK("fake-tokens-10", STREAM, PROMPT),
	OK("fake-gzip", PLAIN, PROMPT),
	OK("fake-dribble", PLAIN, PROMPT),
	OK("fake-late-headers-200", BOTH, "The answer is 42."),
	OK("fake-bom", PLAIN, "The answer is 42."),
	OK("fake-array-content", BOTH, "The answer is 42."),
	OK("fake-close-after", BOTH, PROMPT),
	OK("fake-finish-eos", BOTH, "The answer is 42."),

	OK("fake-nul", BOTH, "a" FFFD "b"),
	OK("fake-surrogate", BOTH, "a" FFFD "b \xF0\x9F\x98\x80"),
	OK("fake-bad-utf8", BOTH,
	   "a" FFFD FFFD "(b" FFFD FFFD FFFD " caf\xC3\xA9"),
	OK("fake-control", BOTH, "a\tb\x01"
							 "c"),
	OK("fake-bigint", BOTH, "ok"),
	OK("fake-deep", BOTH, "ok"),
	OK("fake-reasoning", BOTH, "ok"),

	FAIL("fake-429", BOTH, "ModelUnavailable", WAIT, false, false, 429,
		 "Rate limit"),
	FAIL("fake-429-quota", BOTH, "ModelRejected", MONEY, false, false, 429,
		 "exceeded your current quota"),
	FAIL("fake-402", BOTH, "ModelRejected", MONEY, false, false, 402,
		 "HTTP 402"),
	FAIL("fake-400", BOTH, "ModelRejected", NEVER, false, false, 400,
		 "HTTP 400: error 400 as asked for"),
	FAIL("fake-401", BOTH, "ConfigurationError", NEVER, false, false, 401,
		 "[redacted]"),
	FAIL("fake-403", BOTH, "ConfigurationError", NEVER, false, false, 403,
		 NULL),
	FAIL("fake-404", BOTH, "ModelRejected", NEVER, false, false, 404, NULL),
	FAIL("fake-408", BOTH, "ModelUnavailable", BACKOFF, false, false, 408,
		 NULL),
	FAIL("fake-409", BOTH, "ModelUnavailable", BACKOFF, false, false, 409,
		 NULL),
	FAIL("fake-413-html", BOTH, "ModelRejected", NEVER, false, false, 413,
		 "HTTP 413"),
	FAIL("fake-422", BOTH, "ModelRejected", NEVER, false, false, 422, NULL),
	FAIL("fake-500", BOTH, "ModelUnavailable", BACKOFF, false, true, 500,
		 NULL),
	FAIL("fake-501", BOTH, "ModelUnavailable", BACKOFF, false, false, 501,
		 NULL),
	FAIL("fake-502", BOTH, "ModelUnavailable", BACKOFF, false, true, 502,
		 NULL),
	FAIL("fake-503", BOTH, "ModelUnavailable", BACKOFF, false, true, 503,
		 NULL),
	FAIL("fake-504", BOTH, "ModelUnavailable", BACKOFF, false, true, 504,
		 NULL),
	FAIL("fake-529", BOTH, "ModelUnavailable", BACKOFF, false, true, 529,
		 NULL),
	FAIL("fake-filter-400", BOTH, "ModelFiltered", NEVER, false, false, 400,
		 NULL),
	FAIL("fake-retry-true-400", BOTH, "ModelRejected", BACKOFF, false, false,
		 400, NULL),
	FAIL("fake-retry-false-500", BOTH, "ModelUnavailable", NEVER, false, true,
		 500, NULL),
	FAIL("fake-cut-error", BOTH, "ModelUnavailable", BACKOFF, true, true, 500,
		 NULL),
	FAIL("fake-vllm-error", BOTH, "ModelRejected", NEVER, false, false, 400,
		 "vLLM says no"),
	FAIL("fake-string-error", BOTH, "ModelRejected", NEVER, false, false, 400,
		 "just a string"),
	FAIL("fake-detail-error", BOTH, "ModelRejected", NEVER, false, false, 400,
		 "just a detail"),
	FAIL("fake-array-error", BOTH, "ModelRejected", NEVER, false, false, 400,
		 "in an array"),
	FAIL("fake-int-code", BOTH, "ModelRejected", NEVER, false, false, 400,
		 "llama.cpp says no"),
	FAIL("fake-error-200", BOTH, "ModelUnavailable", BACKOFF, false, true,
		 200, "inner trouble"),
	FAIL("fake-quota-200", BOTH, "ModelRejected", MONEY, false, false, 200,
		 "no money"),
	FAIL("fake-redirect", BOTH, "ConfigurationError", NEVER, false, false,
		 307, "redirect"),

	FAIL("fake-html-200", BOTH, "ModelUnreadable", BACKOFF, true, false, 200,
		 "text/html"),
	FAIL("fake-not-json", BOTH, "ModelUnreadable", BACKOFF, true, false, 200,
		 "not JSON"),
	FAIL("fake-no-choices", BOTH, "ModelUnreadable", BACKOFF, true, false,
		 200, "choice"),
	FAIL("fake-no-finish", BOTH, "ModelUnreadable", BACKOFF, false, false,
		 200, "why the turn ended"),
	FAIL("fake-no-body", BOTH, "ModelUnreadable", BACKOFF, true, false, 200,
		 "empty"),
	FAIL("fake-cut-midway", BOTH, "ModelUnreadable", BACKOFF, true, false,
		 200, "cut off"),
	FAIL("fake-cut-json", BOTH, "ModelUnreadable", BACKOFF, true, false, 200,
		 "not JSON"),
	FAIL("fake-cut-stream", STREAM, "ModelUnreadable", BACKOFF, true, false,
		 200, "cut off"),
	FAIL("fake-huge-3", BOTH, "ModelUnreadable", NEVER, true, false, 200,
		 "max_reply"),
	FAIL("fake-gzip-bomb", PLAIN, "ModelUnreadable", NEVER, true, false, 200,
		 "max_reply"),
	FAIL("fake-deeper", PLAIN, "ModelUnreadable", NEVER, true, false, 200,
		 "max_reply"),
	FAIL("fake-empty", BOTH, "ModelUnreadable", BACKOFF, false, false, 200,
		 "empty"),
	FAIL("fake-refusal", BOTH, "ModelRefused", NEVER, false, false, 200,
		 "I cannot help with that."),
	FAIL("fake-filter", BOTH, "ModelFiltered", NEVER, false, false, 200,
		 NULL),
	FAIL("fake-length", BOTH, "ModelLength", NEVER, false, false, 200, NULL),
	FAIL("fake-toolcall", BOTH, "ModelUnreadable", BACKOFF, false, false, 200,
		 "tool"),
	FAIL("fake-tool-stop", BOTH, "ModelUnreadable", BACKOFF, false, false,
		 200, "tool"),
	FAIL("fake-tool-text", BOTH, "ModelUnreadable", BACKOFF, false, false,
		 200, "tool"),
	FAIL("fake-finish-abort", BOTH, "ModelUnavailable", BACKOFF, false, false,
		 200, "abort"),

	FAIL("fake-reset", BOTH, "ModelUnavailable", BACKOFF, true, false, 0,
		 NULL),
	FAIL("fake-close", BOTH, "ModelUnavailable", BACKOFF, true, false, 0,
		 NULL),
	FAIL("fake-garbage", BOTH, "ModelUnreadable", BACKOFF, true, false, 0,
		 NULL),
	FAIL("fake-long-header", BOTH, "ModelUnreadable", NEVER, true, false, 200,
		 NULL),
	FAIL("fake-hang-before-headers", BOTH, "ModelTimeout", BACKOFF, true,
		 true, 0, "first_byte_timeout"),
	FAIL("fake-hang-after-headers", BOTH, "ModelTimeout", BACKOFF, true,
		 false, 200, "idle_timeout"),
	FAIL("fake-hang-mid-body", BOTH, "ModelTimeout", BACKOFF, true, false,
		 200, "idle_timeout"),

	OK("fake-stream-crlf", BOTH, PROMPT),
	OK("fake-stream-cr", STREAM, PROMPT),
	OK("fake-stream-bytes", STREAM, PROMPT),
	OK("fake-stream-comments", STREAM, PROMPT),
	OK("fake-stream-no-usage", STREAM, PROMPT),
	OK("fake-stream-no-done", STREAM, PROMPT),
	OK("fake-stream-no-space", STREAM, PROMPT),
	OK("fake-stream-bom", STREAM, PROMPT),
	OK("fake-stream-pair", STREAM, "a\xF0\x9F\x98\x80"
								   "b"),
	OK("fake-stream-split", STREAM, "caf\xC3\xA9 \xF0\x9F\x98\x80"),
	OK("fake-stream-json", STREAM, PROMPT),
	OK("fake-stream-text-plain", STREAM, PROMPT),
	OK("fake-stream-gzip", STREAM, PROMPT),
	OK("fake-stream-reasoning", STREAM, "ok"),
	OK("fake-stream-cut-after-finish", STREAM, PROMPT),
	OK("fake-stream-hang-after-done", STREAM, PROMPT),
	FAIL("fake-stream-error", STREAM, "ModelUnavailable", BACKOFF, true, true,
		 200, "overloaded"),
	FAIL("fake-stream-error-first", STREAM, "ModelUnavailable", BACKOFF, true,
		 true, 200, "overloaded"),
	FAIL("fake-stream-no-finish", STREAM, "ModelUnreadable", BACKOFF, true,
		 false, 200, "end"),
	FAIL("fake-stream-bad-json", STREAM, "ModelUnreadable", BACKOFF, true,
		 false, 200, "JSON"),
	FAIL("fake-stream-long-line", STREAM, "ModelUnreadable", NEVER, true,
		 false, 200, NULL),
	FAIL("fake-stream-toolcall", STREAM, "ModelUnreadable", BACKOFF, false,
		 false, 200, "tool"),
	FAIL("fake-stream-nothing", STREAM, "ModelRejected", NEVER, false, false,
		 404, NULL),
};

static PromHttp *http;
static char base[128];
static char secrets_dir[] = "/tmp/http_check_XXXXXX";
static const char *ca_file;
static bool use_ca_file = false;
static bool start_fresh = false; /* each call on a new connection */

/* libcurl's own is called after the certificate for the test was set. */
extern CURLMcode __real_curl_multi_add_handle(CURLM *multi, CURL *easy);
extern CURLMcode __wrap_curl_multi_add_handle(CURLM *multi, CURL *easy);

CURLMcode
__wrap_curl_multi_add_handle(CURLM *multi, CURL *easy)
{
	if (use_ca_file)
		curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file);
	return __real_curl_multi_add_handle(multi, easy);
}

/* What lookups were seen; they run in threads of libcurl. */
static int lookups;
static int lookups_at_most;
static int lookups_seen;
static int lookups_interruptible;

/*
 * Resolves names under .test for libcurl: slow.test after two seconds,
 * n1.test after a moment, private.test and public.test to such addresses,
 * loop.test and keptN.test to this machine; no other name exists.
 */
int
getaddrinfo(const char *node, const char *service,
			const struct addrinfo *hints, struct addrinfo **result)
{
	int (*real)(const char *, const char *, const struct addrinfo *,
				struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
	const char *address = NULL;
	sigset_t blocked;
	int now = __sync_add_and_fetch(&lookups, 1);

	if (now > lookups_at_most)
		lookups_at_most = now;
	__sync_add_and_fetch(&lookups_seen, 1);
	pthread_sigmask(SIG_BLOCK, NULL, &blocked);
	if (!sigismember(&blocked, SIGTERM) || !sigismember(&blocked, SIGUSR1) ||
		!sigismember(&blocked, SIGALRM) || !sigismember(&blocked, SIGHUP))
		__sync_add_and_fetch(&lookups_interruptible, 1);
	if (strcmp(node, "slow.test") == 0)
		poll(NULL, 0, 2000);
	else if (node[0] == 'n')
		poll(NULL, 0, 20);
	if (strcmp(node, "private.test") == 0)
		address = "10.0.0.1";
	else if (strcmp(node, "public.test") == 0)
		address = "192.0.43.8";
	else if (strcmp(node, "loop.test") == 0 ||
			 strcmp(node, "localhost") == 0 || strncmp(node, "kept", 4) == 0)
		address = "127.0.0.1";
	__sync_sub_and_fetch(&lookups, 1);
	return address ? real(address, service, hints, result) : EAI_NONAME;
}

static double
seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

static PromModel
make_model(const char *name)
{
	PromModel model = {0};

	model.name = "m";
	model.version = 1;
	model.api = "openai";
	model.endpoint = base;
	model.model = name;
	model.max_tokens = 100;
	model.temperature = "0.70";
	model.connect_timeout = 5000;
	model.first_byte_timeout = 15000;
	model.idle_timeout = 15000;
	model.total_timeout = 60000;
	model.max_reply = 1024 * 1024;
	return model;
}

static PromCall *
start(const PromModel *model, const char *text, int64 deadline, void *owner)
{
	PromMessage messages[2] = {
		{.role = "system", .text = "be kind"},
		{.role = "user", .text = text},
	};
	PromPrompt prompt = {
		.messages = messages, .nmessages = 2, .model = model->model};

	return prom_llm_start(http, model, &prompt, NULL, deadline, start_fresh,
						  owner);
}

/* Wait and drive once, as the process's loop does. */
static void
turn(void)
{
	struct pollfd fd = {prom_http_fd(http), POLLIN, 0};

	poll(&fd, 1, (int) prom_http_timeout(http));
	prom_http_drive(http);
}

static PromCall *
wait_for_any(void)
{
	PromCall *call;

	while ((call = prom_llm_next_done(http)) == NULL)
		turn();
	return call;
}

/* Make one call and wait for it. */
static PromCall *
ask(const PromModel *model, const char *prompt)
{
	PromCall *call = start(model, prompt, -1, NULL);
	PromCall *done = wait_for_any();

	check(call == done, "%s: another call was done", model->model);
	return done;
}


static void
check_case(const Run *run)
{
	const Case *c = run->c;
	const PromReply *reply = prom_llm_reply(run->call);
	char about[128];

	snprintf(about, sizeof(about), "%s%s", c->model,
			 run->stream ? " (stream)" : "");
	check(reply->ok == (c->answer != NULL), "%s: ok is %d (%s: %s)", about,
		  reply->ok, reply->error_type ? reply->error_type : "-",
		  reply->error ? reply->error : "-");
	check_text(reply->answer, c->answer, about);
	check_text(reply->error_type, c->error_type, about);
	check(reply->http_status == c->status, "%s: status %d", about,
		  reply->http_status);
	check(reply->ambiguous == c->ambiguous, "%s: ambiguous %d (%s)", about,
		  reply->ambiguous, reply->error ? reply->error : "-");
	check(reply->counts_for_breaker == c->breaker, "%s: breaker %d", about,
		  reply->counts_for_breaker);
	if (c->answer != NULL)
	{
		check(reply->raw != NULL && *reply->raw == '{', "%s: raw", about);
		check_text(reply->finish, "end", about);
		return;
	}
	check(reply->retry == c->retry, "%s: retry %d", about, reply->retry);
	check(reply->error != NULL && strlen(reply->error) <= 500 &&
			  strchr(reply->error, '\n') == NULL,
		  "%s: error %s", about, reply->error ? reply->error : "-");
	check(c->error_has == NULL || reply->error == NULL ||
			  strstr(reply->error, c->error_has) != NULL,
		  "%s: error <%s> lacks <%s>", about, reply->error, c->error_has);
}

/* Every case, streamed and not, all at once. */
static void
test_cases(void)
{
	static Run runs[lengthof(cases) * 2];
	int started = 0;
	int done = 0;
	int i;

	for (i = 0; i < lengthof(cases) * 2; i++)
	{
		const Case *c = &cases[i / 2];
		PromModel model = make_model(c->model);
		Run *run = &runs[i];

		if ((c->streams & (i % 2 ? STREAM : PLAIN)) == 0)
			continue;
		run->c = c;
		run->stream = model.stream = i % 2;
		if (strstr(c->model, "hang") != NULL)
			model.first_byte_timeout = model.idle_timeout = 3000;
		run->call = start(&model, PROMPT, -1, run);
		started++;
	}
	while (done < started)
	{
		PromCall *call = wait_for_any();
		Run *run = prom_llm_owner(call);

		check(!run->done && run->call == call, "%s: done once", run->c->model);
		run->done = true;
		check_case(run);
		prom_llm_free(call);
		done++;
	}
	check(prom_http_memory(http) == 0, "memory is given back");
	check(prom_http_in_flight(http) == 0, "nothing is in flight");
}


static void
test_then_ok(void)
{
	static const char *const names[] = {
		"fake-429-then-ok",
		"fake-500-then-ok",
		"fake-503-then-ok-2",
	};
	int i;

	for (i = 0; i < lengthof(names); i++)
	{
		PromModel model = make_model(names[i]);
		int failures = 0;

		for (;;)
		{
			PromCall *call = ask(&model, "then ok");
			bool ok = prom_llm_reply(call)->ok;

			prom_llm_free(call);
			if (ok || failures > 3)
				break;
			failures++;
		}
		check(failures == (i == 2 ? 2 : 1), "%s: %d failures", names[i],
			  failures);
	}
}

static void
test_retry_after(void)
{
	static const struct
	{
		const char *model;
		int64 low;
		int64 high;
	} forms[] = {
		{"fake-429-seconds", 300, 300},
		{"fake-429-whole", 1000, 1000},
		{"fake-429-date", 1000, 2000},
		{"fake-429-past", 0, 0},
		{"fake-429-ms", 200, 200},
		{"fake-429-nonsense", -1, -1},
		{"fake-429-none", -1, -1},
		{"fake-echo", -1, -1},
	};
	int i;

	for (i = 0; i < lengthof(forms); i++)
	{
		PromModel model = make_model(forms[i].model);
		PromCall *call = ask(&model, "x");
		const PromReply *reply = prom_llm_reply(call);

		check(reply->retry_after >= forms[i].low &&
				  reply->retry_after <= forms[i].high,
			  "%s: retry after %lld", forms[i].model,
			  (long long) reply->retry_after);
		check(reply->request_id != NULL &&
				  strncmp(reply->request_id, "req-", 4) == 0,
			  "%s: request id", forms[i].model);
		prom_llm_free(call);
	}
}

/* The raw turn keeps what nobody here understands. */
static void
test_raw(void)
{
	static const struct
	{
		const char *model;
		bool stream;
		const char *part;
	} parts[] = {
		{"fake-bigint", false, "\"id\":18446744073709551616,\"price\":0.10,"
							   "\"far\":1e400,\"n\":-9223372036854775809"},
		{"fake-bigint", true, "\"id\":18446744073709551616,\"price\":0.10,"
							  "\"far\":1e400,\"n\":-9223372036854775809"},
		{"fake-reasoning", false, "\"I think \\\"so\\\" \\/ \\u00e9\""},
		{"fake-reasoning", true, "\"x\":{\"y\":[1,2.50,null]}"},
		{"fake-nul", false, "a\\u0000b"},
		{"fake-surrogate", true, "a\\ud800b \\ud83d\\ude00"},
		{"fake-bad-utf8", false, FFFD},
		{"fake-control", false, "a\\u0009b\\u0001c"},
		{"fake-stream-reasoning", true, "{\"role\":\"assistant\","
										"\"content\":\"ok\",\"reasoning_content\":\"I think\","
										"\"big\":18446744073709551616,\"x\":{\"y\":\"ab\",\"z\":1.50}}"},
		{"fake-stream-toolcall", true, "\"tool_calls\":[{\"id\":\"call_1\","
									   "\"type\":\"function\",\"function\":{\"name\":\"get_row\","
									   "\"arguments\":\"{\\\"id\\\":7}\"}},{\"id\":\"call_2\""},
		{"fake-stream-pair", true, "\"a\\ud83d\\ude00b\""},
		{"fake-length", true, "\"The answer\""},
	};
	int i;

	for (i = 0; i < lengthof(parts); i++)
	{
		PromModel model = make_model(parts[i].model);
		PromCall *call;
		const char *raw;

		model.stream = parts[i].stream;
		call = ask(&model, "x");
		raw = prom_llm_reply(call)->raw;
		check(raw != NULL && strstr(raw, parts[i].part) != NULL,
			  "%s: raw is %s", parts[i].model, raw ? raw : "-");
		prom_llm_free(call);
	}
}

static void
test_usage(void)
{
	PromModel model = make_model("fake-fixed");
	PromCall *call;
	int i;

	for (i = 0; i < 2; i++)
	{
		const PromReply *reply;

		model.stream = i == 1;
		call = ask(&model, "twelve bytes");
		reply = prom_llm_reply(call);
		check(reply->tokens_in == 5 && reply->tokens_out == 5 &&
				  reply->cached_tokens == 0,
			  "usage: %lld %lld %lld", (long long) reply->tokens_in,
			  (long long) reply->tokens_out,
			  (long long) reply->cached_tokens);
		check(reply->connect_ms == 0, "the connection was warm: %g",
			  reply->connect_ms);
		check(reply->first_byte_ms > 0 && reply->total_ms > 0,
			  "times are known");
		prom_llm_free(call);
	}
	model.model = "fake-stream-no-usage";
	call = ask(&model, "x");
	check(prom_llm_reply(call)->tokens_out == -1, "no usage is -1");
	prom_llm_free(call);
}


/* The value of a key in GET /stats, over libcurl's plain interface. */
static size_t
keep_text(char *bytes, size_t size, size_t count, void *arg)
{
	char *text = arg;
	size_t used = strlen(text);

	if (used + count < 4000)
	{
		memcpy(text + used, bytes, count);
		text[used + count] = '\0';
	}
	return count;
}

static int
server_number(const char *path, bool post, const char *key)
{
	char text[4096] = "";
	char url[256];
	char quoted[64];
	char *at;
	CURL *easy = curl_easy_init();

	snprintf(url, sizeof(url), "%.*s%s", (int) (strlen(base) - 3), base,
			 path);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, keep_text);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, text);
	if (post)
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "");
	curl_easy_perform(easy);
	curl_easy_cleanup(easy);
	snprintf(quoted, sizeof(quoted), "\"%s\": ", key);
	at = strstr(text, quoted);
	return at != NULL ? atoi(at + strlen(quoted)) : -1;
}

static void
test_drop(void)
{
	static const char *const names[] = {
		"fake-hang-before-headers",
		"fake-hang-mid-body",
		"fake-slow-5000",
	};
	int before = server_number("/stats", false, "dropped");
	double until;
	int i;

	for (i = 0; i < lengthof(names); i++)
	{
		PromModel model = make_model(names[i]);
		PromCall *call = start(&model, "x", -1, NULL);
		double end = seconds() + 0.3;

		while (seconds() < end)
		{
			struct pollfd fd = {prom_http_fd(http), POLLIN, 0};

			poll(&fd, 1, (int) Min(50, prom_http_timeout(http)));
			prom_http_drive(http);
		}
		check(prom_http_in_flight(http) == 1, "%s: in flight", names[i]);
		prom_llm_free(call);
		check(prom_http_in_flight(http) == 0, "%s: dropped", names[i]);
	}
	until = seconds() + 3;
	while (server_number("/stats", false, "dropped") < before + 3 &&
		   seconds() < until)
		;
	check(server_number("/stats", false, "dropped") == before + 3,
		  "the server saw all connections closed");
	check(server_number("/stats", false, "elsewhere") == 0,
		  "no redirect was followed");
	check(prom_http_memory(http) == 0, "memory is given back");
}

/* Idle connections that the peer closes cost nothing. */
static void
test_closed(void)
{
	PromModel model = make_model("fake-close-after");
	int begun = group_begin();
	int i;

	for (i = 0; i < 100; i++)
	{
		PromCall *call = ask(&model, "closed");

		check(prom_llm_reply(call)->ok, "closed while idle: %s",
			  prom_llm_reply(call)->error);
		prom_llm_free(call);
		server_number("/stats", false, "open"); /* by now it is closed */
	}
	group_end(begun);
}

/*
 * A warm connection that is closed by the use of it: the request is not sent
 * again, and the next one gets a new connection.
 */
static void
test_stale(const char *name, int number, size_t length, bool is_seen,
		   bool ambiguous)
{
	char *prompt = malloc(length + 1);
	PromModel model = make_model(name);
	int before = server_number("/stats", false, "requests");
	char endpoint[128];
	int i;

	memset(prompt, 'p', length);
	prompt[length] = '\0';
	snprintf(endpoint, sizeof(endpoint), "http://kept%d.test%s", number,
			 strrchr(base, ':'));
	model.endpoint = endpoint;
	for (i = 0; i < 3; i++)
	{
		PromCall *call = ask(&model, i == 1 ? prompt : "short");
		const PromReply *reply = prom_llm_reply(call);

		check(reply->ok == (i != 1), "%s %d: ok is %d (%s)", name, i,
			  reply->ok, reply->error ? reply->error : "-");
		if (i == 1)
		{
			check_text(reply->error_type, "ModelUnavailable", name);
			check_text(reply->error,
					   "model server closed a kept connection without a reply",
					   name);
			check(reply->retry == PROM_RETRY_WAIT, "%s: waits", name);
			check(reply->ambiguous == ambiguous, "%s: ambiguous is %d", name,
				  reply->ambiguous);
		}
		else
			check(reply->connect_ms > 0, "%s %d: a new connection", name, i);
		prom_llm_free(call);
	}
	i = server_number("/stats", false, "requests") - before;
	check(i == 2 + is_seen, "%s: %d requests", name, i);
	free(prompt);
}

/* A fresh call leaves warm connections alone, and its own to others. */
static void
test_fresh(void)
{
	PromModel model = make_model("fake-echo");
	char endpoint[128];
	PromCall *call;
	int i;

	snprintf(endpoint, sizeof(endpoint), "http://kept5.test%s",
			 strrchr(base, ':'));
	model.endpoint = endpoint;
	for (i = 0; i < 4; i++)
	{
		start_fresh = i == 2;
		call = ask(&model, "short");
		check(prom_llm_reply(call)->ok, "fresh %d: ok", i);
		check((prom_llm_reply(call)->connect_ms > 0) == (i % 2 == 0),
			  "fresh %d: a new connection or a warm one", i);
		prom_llm_free(call);
	}
	start_fresh = true;
	model.model = "fake-close";
	call = ask(&model, "short");
	check(prom_llm_reply(call)->retry == PROM_RETRY_BACKOFF,
		  "fresh: one that is closed counts");
	prom_llm_free(call);
	start_fresh = false;
}

static void
expect(const PromModel *model, int64 deadline, const char *type,
	   PromRetry retry, bool ambiguous, bool breaker, const char *has)
{
	PromCall *call = start(model, "x", deadline, NULL);
	const PromReply *reply = prom_llm_reply(wait_for_any());
	char about[256];

	snprintf(about, sizeof(about), "%s at %s", model->model, model->endpoint);
	check_text(reply->error_type, type, about);
	check(reply->retry == retry, "%s: retry %d", about, reply->retry);
	check(reply->ambiguous == ambiguous, "%s: ambiguous %d", about,
		  reply->ambiguous);
	check(reply->counts_for_breaker == breaker, "%s: breaker %d", about,
		  reply->counts_for_breaker);
	check(reply->error != NULL && strstr(reply->error, has) != NULL,
		  "%s: error <%s>", about, reply->error ? reply->error : "-");
	prom_llm_free(call);
}

static void
test_timeouts(void)
{
	PromModel model = make_model("fake-slow-3000");
	char hang[128];

	expect(&model, 200, "DeadlineExceeded", PROM_RETRY_NEVER, true, false,
		   "deadline");
	model.total_timeout = 200;
	expect(&model, -1, "ModelTimeout", PROM_RETRY_BACKOFF, true, true,
		   "total_timeout");
	model = make_model("fake-tokens-500");
	model.stream = true;
	model.total_timeout = 300;
	expect(&model, -1, "ModelTimeout", PROM_RETRY_BACKOFF, true, false,
		   "total_timeout");

	/* A port that takes connections and reads nothing. */
	snprintf(hang, sizeof(hang), "http://127.0.0.1:%d/v1",
			 server_number("/hang", true, "port"));
	model = make_model("fake-echo");
	model.endpoint = hang;
	model.first_byte_timeout = 300;
	expect(&model, -1, "ModelTimeout", PROM_RETRY_BACKOFF, true, true,
		   "first_byte_timeout");

	/* A port that does not even take them. */
	snprintf(hang, sizeof(hang), "http://127.0.0.1:%d/v1",
			 server_number("/hang", true, "full"));
	model.connect_timeout = 300;
	expect(&model, -1, "ModelTimeout", PROM_RETRY_BACKOFF, false, true,
		   "connect_timeout");
}

static void
test_addresses(void)
{
	static const char *const loopbacks[] = {
		"https://127.0.0.1:%s/v1",
		"https://localhost:%s/v1",
		"https://0x7f.1:%s/v1",
		"https://2130706433:%s/v1",
		"https://[::1]:%s/v1",
		"https://[::ffff:127.0.0.1]:%s/v1",
		"https://0.0.0.0:%s/v1",
		"https://169.254.169.254:%s/v1",
	};
	PromModel model = make_model("fake-echo");
	char endpoint[128];
	int i;

	prom_guc_allow_private_endpoints = false;
	expect(&model, -1, "ConfigurationError", PROM_RETRY_NEVER, false, false,
		   "http");
	for (i = 0; i < lengthof(loopbacks); i++)
	{
		snprintf(endpoint, sizeof(endpoint), loopbacks[i],
				 strrchr(base, ':') + 1);
		*strrchr(endpoint, '/') = '\0';
		*strrchr(endpoint, '/') = '\0';
		strlcat(endpoint, "/v1", sizeof(endpoint));
		model.endpoint = endpoint;
		expect(&model, -1, "ConfigurationError", PROM_RETRY_NEVER, false,
			   false, "not allowed");
	}
	prom_guc_allow_private_endpoints = true;

	/* The warm connections from before do not get around a new setting. */
	model.endpoint = base;
	prom_llm_free(ask(&model, "x"));

	model.endpoint = "http://192.0.43.8/v1"; /* public: never in the clear */
	expect(&model, -1, "ConfigurationError", PROM_RETRY_NEVER, false, false,
		   "not allowed");
	model.endpoint = "https://user:pw@127.0.0.1/v1";
	expect(&model, -1, "ConfigurationError", PROM_RETRY_NEVER, false, false,
		   "user");
	model.endpoint = "ftp://127.0.0.1/v1";
	expect(&model, -1, "ConfigurationError", PROM_RETRY_NEVER, false, false,
		   "https");
	model.endpoint = "file:///etc/passwd";
	expect(&model, -1, "ConfigurationError", PROM_RETRY_NEVER, false, false,
		   "");
	model.endpoint = "no url at all";
	expect(&model, -1, "ConfigurationError", PROM_RETRY_NEVER, false, false,
		   "URL");
	model.endpoint = NULL;
	expect(&model, -1, "ConfigurationError", PROM_RETRY_NEVER, false, false,
		   "URL");
	model.endpoint = "http://127.0.0.1:1/v1";
	expect(&model, -1, "ModelUnavailable", PROM_RETRY_BACKOFF, false, true,
		   "connect");
	model.api = "gopher";
	expect(&model, -1, "ConfigurationError", PROM_RETRY_NEVER, false, false,
		   "api");
}

/* More names than there may be lookups at once, and names of all kinds. */
static void
test_names(void)
{
	PromModel model = make_model("fake-echo");
	PromCall *call;
	double before;
	char endpoint[64];
	int done;
	int i;

	model.connect_timeout = 20000;
	for (i = 0; i < 100; i++)
	{
		snprintf(endpoint, sizeof(endpoint), "https://n%d.test/v1", i);
		model.endpoint = endpoint;
		start(&model, "x", -1, NULL);
	}
	for (done = 0; done < 100; done++)
	{
		const PromReply *reply;

		call = wait_for_any();
		reply = prom_llm_reply(call);
		check(!reply->ok && reply->retry == PROM_RETRY_BACKOFF &&
				  reply->counts_for_breaker && !reply->ambiguous,
			  "unknown name: %s %s", reply->error_type, reply->error);
		prom_llm_free(call);
	}
	check(lookups_seen >= 100, "%d lookups", lookups_seen);

	/* At most 8 names at once; newer libcurl asks for IPv4 and 6 apart. */
	check(lookups_at_most <= 16, "%d lookups at once", lookups_at_most);

	model.endpoint = "http://public.test/v1";
	expect(&model, -1, "ConfigurationError", PROM_RETRY_NEVER, false, false,
		   "not allowed");
	prom_guc_allow_private_endpoints = false;
	model.endpoint = "https://private.test/v1";
	expect(&model, -1, "ConfigurationError", PROM_RETRY_NEVER, false, false,
		   "not allowed");
	prom_guc_allow_private_endpoints = true;

	/* Neither a time-out nor a drop may wait for a slow lookup. */
	before = seconds();
	model.endpoint = "https://slow.test/v1";
	model.connect_timeout = 200;
	expect(&model, -1, "ModelTimeout", PROM_RETRY_BACKOFF, false, true,
		   "connect_timeout");
	call = start(&model, "x", -1, NULL);
	turn();
	prom_llm_free(call);
	check(seconds() - before < 1.5, "a slow lookup blocks: %g s",
		  seconds() - before);
	check(lookups_interruptible == 0, "a lookup could get a signal");
	poll(NULL, 0, 2500); /* for its threads to end */
}

static void
test_memory_limit(void)
{
	PromModel model = make_model("fake-huge-4");
	int i;

	model.max_reply = 64 * 1024 * 1024;
	prom_http_set_memory_limit(http, 1024 * 1024);
	expect(&model, -1, "ModelUnavailable", PROM_RETRY_BACKOFF, true, false,
		   "memory");
	model.model = "fake-long-2000000";
	model.stream = true;
	expect(&model, -1, "ModelUnavailable", PROM_RETRY_BACKOFF, true, false,
		   "memory");
	model.model = "fake-echo";
	prom_http_set_memory_limit(http, 16);
	expect(&model, -1, "ModelUnavailable", PROM_RETRY_BACKOFF, false, false,
		   "memory");
	prom_http_set_memory_limit(http, (size_t) 256 * 1024 * 1024);
	check(prom_http_memory(http) == 0, "memory is given back");
	for (i = 0; i < 2; i++)
	{
		PromCall *call;

		model.stream = i == 1;
		model.model = "fake-long-2000000";
		call = ask(&model, "x");
		check(prom_llm_reply(call)->ok &&
				  strlen(prom_llm_reply(call)->answer) == 2000000,
			  "a long answer");
		prom_llm_free(call);
	}
	check(prom_http_memory(http) == 0, "memory is given back");
}

/* Out of descriptors: that is nobody's fault, and passes. */
static void
test_descriptors(void)
{
	PromModel model = make_model("fake-slow-300");
	struct rlimit old;
	struct rlimit few;
	int begun = group_begin();
	int failed = 0;
	int fd = dup(0);
	int i;

	close(fd);
	getrlimit(RLIMIT_NOFILE, &old);
	few = old;
	few.rlim_cur = (rlim_t) fd + 20;
	setrlimit(RLIMIT_NOFILE, &few);
	for (i = 0; i < 400; i++)
		start(&model, "x", -1, NULL);
	for (i = 0; i < 400; i++)
	{
		PromCall *call = wait_for_any();
		const PromReply *reply = prom_llm_reply(call);

		if (!reply->ok)
			failed++;
		check(reply->ok || (reply->retry == PROM_RETRY_BACKOFF &&
							!reply->counts_for_breaker && !reply->ambiguous),
			  "out of descriptors: %s %s", reply->error_type, reply->error);
		prom_llm_free(call);
	}
	check(failed > 0 && failed < 400, "%d of 400 failed", failed);
	setrlimit(RLIMIT_NOFILE, &old);
	prom_llm_free(ask(&model, "x"));
	group_end(begun);
}

static void
write_secret(const char *name, const char *text, mode_t mode)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", secrets_dir, name);
	unlink(path);
	file = fopen(path, "w");
	fwrite(text, 1, strlen(text), file);
	fclose(file);
	chmod(path, mode);
}

static void
expect_secret(const char *ref, const char *want, const char *has)
{
	char error[256] = "";
	char *got = prom_secret_read(ref, error, sizeof(error));

	check_text(got, want, ref);
	check(want != NULL || strstr(error, has) != NULL, "%s: <%s>", ref, error);
	prom_secret_free(got);
}

static void
test_secrets(void)
{
	PromModel model = make_model("fake-auth");
	char path[256];
	char target[256];
	PromCall *call;

	write_secret("good", "test-key\n", 0600);
	write_secret("crlf", "test-key\r\n", 0400);
	write_secret("open", "test-key\n", 0644);
	write_secret("group", "test-key\n", 0640);
	write_secret("empty", "\n", 0600);
	write_secret("lines", "a\r\nX-Evil: b", 0600);
	snprintf(path, sizeof(path), "%s/fifo", secrets_dir);
	mkfifo(path, 0600);
	snprintf(target, sizeof(target), "%s/good", secrets_dir);
	snprintf(path, sizeof(path), "%s/link", secrets_dir);
	check(symlink(target, path) == 0, "symlink");
	snprintf(path, sizeof(path), "%s/dir", secrets_dir);
	mkdir(path, 0700);
	setenv("PROM_TEST_KEY", "test-key", 1);

	prom_guc_secrets_dir = NULL;
	expect_secret("good", NULL, "secrets_dir");
	prom_guc_secrets_dir = secrets_dir;
	expect_secret("good", "test-key", "");
	expect_secret("crlf", "test-key", "");
	expect_secret("env:PROM_TEST_KEY", "test-key", "");
	expect_secret("open", NULL, "0644");
	expect_secret("group", NULL, "0640");
	expect_secret("empty", NULL, "empty");
	expect_secret("lines", NULL, "byte");
	expect_secret("fifo", NULL, "regular");
	expect_secret("dir", NULL, "regular");
	expect_secret("link", NULL, "link");
	expect_secret("absent", NULL, "No such file");
	expect_secret("../good", NULL, "reference");
	expect_secret(".good", NULL, "reference");
	expect_secret("/etc/passwd", NULL, "reference");
	expect_secret("sk-1234567890", NULL, "reference");
	expect_secret("env:NO_SUCH_VARIABLE", NULL, "environment");
	expect_secret("env:", NULL, "reference");
	expect_secret("env:A=B", NULL, "reference");
	expect_secret("", NULL, "reference");
	check(!prom_secret_check_name(NULL), "no reference");

	model.secret = "good";
	call = ask(&model, "x");
	check_text(prom_llm_reply(call)->answer, "authorized", "a key from a file");
	prom_llm_free(call);
	model.secret = "env:PROM_TEST_KEY";
	call = ask(&model, "x");
	check_text(prom_llm_reply(call)->answer, "authorized",
			   "a key from the environment");
	prom_llm_free(call);
	model.secret = NULL;
	expect(&model, -1, "ConfigurationError", PROM_RETRY_NEVER, false, false,
		   "401");
	model.secret = "open";
	expect(&model, -1, "ConfigurationError", PROM_RETRY_NEVER, false, false,
		   "0644");
}

static void
test_redaction(void)
{
	static const char key[] = "Zq8-Rt5.Uv2_Wx9Yz4Ab7Cd1";
	static const struct
	{
		const char *line;
		const char *want;
	} lines[] = {
		{"nothing to hide", "nothing to hide"},
		{"Invalid API key provided", "Invalid API key provided"},
		{"disk-full risk-free task-17", "disk-full risk-free task-17"},
		{"this: sk-abcdef1234.", "this: [redacted]"},
		{"Key: ab12cd34ef, no", "[redacted], no"},
		{"Authorization: Bearer abc123def, no",
		 "Authorization: [redacted], no"},
		{"it is abcd****wxyz here", "it is [redacted] here"},
		{"got Zq8-Rt5.Uv2_Wx9Yz4Ab7Cd1!", "got [redacted]!"},
		{"got _9Yz4Ab7Cd1 of it", "got _[redacted] of it"},
		{"sk", "sk"},
		{"", ""},
	};
	PromModel model = make_model("fake-quote-key");
	PromCall *call;
	const char *error;
	int i;

	for (i = 0; i < lengthof(lines); i++)
	{
		char line[128];

		strlcpy(line, lines[i].line, sizeof(line));
		prom_secret_redact(line, key);
		check_text(line, lines[i].want, "redaction");
	}
	write_secret("long", key, 0600);
	model.secret = "long";
	call = ask(&model, "x");
	error = prom_llm_reply(call)->error;
	check(error != NULL && strstr(error, "Zq8-Rt5.U") == NULL &&
			  strstr(error, "Yz4Ab7Cd1") == NULL &&
			  strstr(error, "[redacted]") != NULL,
		  "key in error: %s", error);
	prom_llm_free(call);
	model.model = "fake-quote-prompt";
	call = ask(&model, "my mother's maiden name is Featherstonehaugh-Smythe");
	error = prom_llm_reply(call)->error;
	check(error != NULL && strstr(error, "Feather") == NULL &&
			  strstr(error, "mother") == NULL && strstr(error, "[...]") != NULL,
		  "prompt in error: %s", error);
	prom_llm_free(call);
}

static void
test_tls(const char *tls_port)
{
	PromModel model = make_model("fake-echo");
	char endpoint[128];
	PromCall *call;

	snprintf(endpoint, sizeof(endpoint), "https://localhost:%s/v1", tls_port);
	model.endpoint = endpoint;
	expect(&model, -1, "ModelUnavailable", PROM_RETRY_BACKOFF, false, true,
		   "certificate");
	use_ca_file = true;
	call = ask(&model, "over TLS");
	check_text(prom_llm_reply(call)->answer, "over TLS",
			   "a certificate that verifies");
	check(prom_llm_reply(call)->connect_ms > 0, "TLS takes time");
	prom_llm_free(call);

	/* The certificate is for localhost only. */
	snprintf(endpoint, sizeof(endpoint), "https://127.0.0.1:%s/v1", tls_port);
	expect(&model, -1, "ModelUnavailable", PROM_RETRY_BACKOFF, false, true,
		   "TLS");
	use_ca_file = false;

	/* TLS where there is none, and where nobody answers. */
	snprintf(endpoint, sizeof(endpoint), "https%s", base + 4);
	model.connect_timeout = 500;
	expect(&model, -1, "ModelTimeout", PROM_RETRY_BACKOFF, false, true,
		   "connect_timeout");
}

static void
test_local(void)
{
	PromModel model = make_model("echo");
	PromCall *call;

	check(prom_llm_is_local("echo") && !prom_llm_is_local("openai"),
		  "echo is local");
	check(prom_llm_is_function("function") && !prom_llm_is_function("echo"),
		  "function is a function");
	model.api = "nonsense";
	model.endpoint = NULL;
	call = start(&model, "hello", -1, &model);
	check(prom_http_timeout(http) == 0, "done at once");
	check(prom_llm_next_done(http) == call, "done without a drive");
	check(prom_llm_owner(call) == &model, "the owner");
	check(!prom_llm_reply(call)->ok, "an api that is not known");
	check_text(prom_llm_reply(call)->error_type, "ConfigurationError",
			   "an api that is not known");
	prom_llm_free(call);
}

static void
test_request(void)
{
	PromModel model = make_model("fake-echo");
	PromMessage messages[3] = {
		{.role = "user", .text = "one"},
		{.raw = "{\"role\":\"assistant\",\"x\":18446744073709551616}"},
		{.role = "user", .text = "tab\t\"q\" \\"},
	};
	PromPrompt prompt = {
		.messages = messages, .nmessages = 3, .model = model.model};
	StringInfoData body;

	model.max_tokens = 7;
	initStringInfo(&body);
	prom_provider_openai.build(&body, &model, "127.0.0.1", &prompt);
	check_text(body.data,
			   "{\"model\":\"fake-echo\",\"messages\":["
			   "{\"role\":\"user\",\"content\":\"one\"},"
			   "{\"role\":\"assistant\",\"x\":18446744073709551616},"
			   "{\"role\":\"user\",\"content\":\"tab\\u0009\\\"q\\\" \\\\\"}],"
			   "\"max_tokens\":7,\"temperature\":0.70,\"stream\":false}",
			   "request");
	pfree(body.data);
	initStringInfo(&body);
	prompt.output_schema = "{\"type\": \"object\"}";
	prompt.strict = true;
	prompt.nmessages = 1;
	prom_provider_openai.build(&body, &model, "127.0.0.1", &prompt);
	check_text(body.data,
			   "{\"model\":\"fake-echo\",\"messages\":["
			   "{\"role\":\"user\",\"content\":\"one\"}],"
			   "\"response_format\":{\"type\":\"json_schema\","
			   "\"json_schema\":{\"name\":\"answer\",\"strict\":true,"
			   "\"schema\":{\"type\": \"object\"}}},"
			   "\"max_tokens\":7,\"temperature\":0.70,\"stream\":false}",
			   "request with a schema");
	pfree(body.data);
	initStringInfo(&body);
	prompt.output_schema = NULL;
	model.stream = true;
	model.temperature = NULL;
	prom_provider_openai.build(&body, &model, "api.openai.com", &prompt);
	check_text(body.data,
			   "{\"model\":\"fake-echo\",\"messages\":["
			   "{\"role\":\"user\",\"content\":\"one\"}],"
			   "\"max_completion_tokens\":7,\"stream\":true,"
			   "\"stream_options\":{\"include_usage\":true}}",
			   "request to OpenAI");
	pfree(body.data);
	check_text(prom_provider_openai.key_header("x.openai.azure.com"),
			   "api-key: ", "Azure");
	check_text(prom_provider_openai.key_header("notazure.com"),
			   "Authorization: Bearer ", "not Azure");
}


/* Many at once: all must be answered, with little memory. */
static void
test_load(int count, const char *name, bool stream)
{
	PromModel model = make_model(name);
	struct rusage usage;
	double before = seconds();
	double after;
	int wakeups = 0;
	int done = 0;
	int ok = 0;
	int i;

	model.stream = stream;
	for (i = 0; i < count; i++)
		start(&model, "hello there", -1, NULL);
	while (done < count)
	{
		PromCall *call = prom_llm_next_done(http);

		if (call == NULL)
		{
			turn();
			wakeups++;
			continue;
		}
		ok += prom_llm_reply(call)->ok;
		if (!prom_llm_reply(call)->ok)
			printf("# %s\n", prom_llm_reply(call)->error);
		prom_llm_free(call);
		done++;
	}
	after = seconds();
	getrusage(RUSAGE_SELF, &usage);
	check(ok == count, "%d of %d were answered", ok, count);
	printf("# %d of %s%s: %.2f s, %d wake-ups, %ld MB at most\n", count, name,
		   stream ? " (stream)" : "", after - before, wakeups,
		   usage.ru_maxrss / 1024);
}

/* Like test_load, but so many in flight and a new one for each that ends. */
static void
test_rate(int count, int in_flight, const char *name)
{
	PromModel model = make_model(name);
	double before = seconds();
	int started = 0;
	int done = 0;
	int ok = 0;

	while (done < count)
	{
		PromCall *call;

		while (started < count && started - done < in_flight)
		{
			start(&model, "hello there", -1, NULL);
			started++;
		}
		call = wait_for_any();
		ok += prom_llm_reply(call)->ok;
		prom_llm_free(call);
		done++;
	}
	check(ok == count, "%d of %d were answered", ok, count);
	printf("# %d of %s, %d at a time: %.0f a second\n", count, name,
		   in_flight, count / (seconds() - before));
}

/* Run a group of tests and say how long it took. */
#define RUN(group)                                           \
	do                                                       \
	{                                                        \
		double start_ = seconds();                           \
		group;                                               \
		printf("# %s %.1f s\n", #group, seconds() - start_); \
	} while (0)

int
main(int argc, char **argv)
{
	char command[300];

	if (argc < 4 || mkdtemp(secrets_dir) == NULL)
		return 2;
	snprintf(base, sizeof(base), "http://127.0.0.1:%s/v1", argv[1]);
	ca_file = argv[3];
	signal(SIGPIPE, SIG_IGN);
	http = prom_http_create();
	check(prom_http_timeout(http) == -1, "nothing to wait for");
	if (argc > 4 && strcmp(argv[4], "load") == 0)
	{
		test_load(1000, "fake-slow-1000", false);
		test_load(1000, "fake-slow-1000", true);
		test_load(2000, "fake-slow-1000", false);
		use_ca_file = true;
		snprintf(base, sizeof(base), "https://localhost:%s/v1", argv[2]);
		test_load(1000, "fake-slow-3000", false);
		snprintf(base, sizeof(base), "http://127.0.0.1:%s/v1", argv[1]);
		test_rate(10000, 64, "fake-echo");
		test_rate(3000, 1, "fake-echo");
	}
	else
	{
		RUN(test_request());
		RUN(test_local());
		RUN(test_cases());
		RUN(test_then_ok());
		RUN(test_retry_after());
		RUN(test_raw());
		RUN(test_usage());
		RUN(test_closed());
		RUN(test_stale("fake-stale", 1, 5, true, true));
		RUN(test_stale("fake-stale", 2, 200000, true, true));
		RUN(test_stale("fake-close-next", 3, 5, false, true));
		RUN(test_stale("fake-close-next", 4, 30000000, false, false));
		RUN(test_fresh());
		RUN(test_drop());
		RUN(test_timeouts());
		RUN(test_addresses());
		RUN(test_names());
		RUN(test_memory_limit());
		RUN(test_descriptors());
		RUN(test_secrets());
		RUN(test_redaction());
		RUN(test_tls(argv[2]));
		test_load(100, "fake-slow-50", true);
	}
	check(prom_http_memory(http) == 0 && prom_http_in_flight(http) == 0,
		  "nothing is left");
	prom_http_destroy(http);
	snprintf(command, sizeof(command), "rm -rf '%s'", secrets_dir);
	if (system(command) != 0)
		return 2;
	return report();
}
