/*
 * fetch.c
 *	  Sends one request to an endpoint that is a tool, or to a webhook, and
 *	  reads what came back.
 *
 * A request is never sent twice from here: always on a new connection, which
 * libcurl does not try again.  Whatever goes wrong once the connection is there
 * leaves open whether the peer has done what it was asked, but for a response
 * whose status says that it failed.
 *
 * As in llm.c everything is from malloc, because it is read inside libcurl and
 * outlives transactions, and the key is wiped when the request has ended.
 */
#include "postgres.h"

#include "lib/ilist.h"

#include "fault.h"
#include "fetch.h"
#include "llm.h"
#include "secret.h"
#include "text.h"

#define CONNECT_TIMEOUT 10000       /* ms */
#define MAX_BODY (16 * 1024 * 1024) /* bytes that are read at all */
#define MAX_ERROR_BODY 4096         /* of an error response that are kept */
#define MAX_ERROR 600               /* bytes of an error's text */

struct PromFetch
{
	dlist_node link; /* in done */
	dlist_head *done;
	void (*blame)(void *owner); /* NULL: prom_llm_blame */
	bool is_webhook;
	bool is_listed;
	void *owner;
	PromHttp *http;
	PromHttpRequest *request; /* NULL: not begun, or ended */
	char *method;
	char *body;
	char *key;
	size_t held; /* bytes charged to the engine */

	char *bytes; /* of the response */
	size_t length;
	size_t size;
	size_t wanted;
	bool is_cut;
	bool no_memory;

	PromHttpResult http_result;
	PromFetchResult result;
	char error[MAX_ERROR + 1];
};

/* Those that have ended and were not asked for yet, the oldest first. */
static dlist_head done_fetches = DLIST_STATIC_INIT(done_fetches);

/* Bytes of a response are read for its owner, or have been. */
static void
blame(const PromFetch *fetch, bool is_read)
{
	void (*tell)(void *owner) = fetch->blame != NULL ? fetch->blame
													 : prom_llm_blame;

	if (tell != NULL)
		tell(is_read ? NULL : fetch->owner);
}

/* Set how many bytes it holds; false: that is more than there may be. */
static bool
hold(PromFetch *fetch, size_t bytes)
{
	if (bytes > fetch->held &&
		!prom_http_charge(fetch->http, bytes - fetch->held))
		return false;
	if (bytes < fetch->held)
		prom_http_uncharge(fetch->http, fetch->held - bytes);
	fetch->held = bytes;
	return true;
}

static void
list_as_done(PromFetch *fetch)
{
	dlist_push_tail(fetch->done, &fetch->link);
	fetch->is_listed = true;
}

/* What happened, and the words of another for it, which may have a key. */
static void
fail(PromFetch *fetch, const char *what, const char *words)
{
	prom_secret_explain(fetch->error, sizeof(fetch->error), what, words,
						fetch->key, NULL, 0);
	fetch->result.error = fetch->error;
}

/* Free all that the result does not need. */
static void
strip(PromFetch *fetch)
{
	if (fetch->request != NULL)
		prom_http_free(fetch->request);
	fetch->request = NULL;
	fetch->http_result.detail = "";
	free(fetch->bytes);
	fetch->bytes = NULL;
	free(fetch->body);
	fetch->body = NULL;
	prom_secret_free(fetch->key);
	fetch->key = NULL;
}


/* The end. */

static bool
is_timeout(PromHttpEnd end)
{
	return end == PROM_HTTP_FIRST_BYTE_TIMEOUT ||
		   end == PROM_HTTP_IDLE_TIMEOUT || end == PROM_HTTP_TOTAL_TIMEOUT ||
		   end == PROM_HTTP_DEADLINE;
}

/* No response, or none that is whole. */
static void
finish_failure(PromFetch *fetch)
{
	static const char *const texts[] = {
		[PROM_HTTP_RUNNING] = "the request did not end",
		[PROM_HTTP_COMPLETE] = "the response cannot be read",
		[PROM_HTTP_STOPPED] = "the response cannot be read",
		[PROM_HTTP_INVALID] = "the request cannot be made",
		[PROM_HTTP_FORBIDDEN] = "the server's address is not allowed",
		[PROM_HTTP_UNRESOLVED] = "the server's name could not be resolved",
		[PROM_HTTP_UNREACHABLE] = "there was no connection to the server",
		[PROM_HTTP_UNTRUSTED] = "TLS with the server could not be set up",
		[PROM_HTTP_LOST] = "the server closed the connection without a response",
		[PROM_HTTP_STALE] = "the server closed the connection without a response",
		[PROM_HTTP_CUT] = "the response was cut off",
		[PROM_HTTP_GARBLED] = "the response is not HTTP",
		[PROM_HTTP_TOO_LONG] = "the response is longer than 16 MB",
		[PROM_HTTP_NO_MEMORY] = "there was not enough memory for the response",
		[PROM_HTTP_CONNECT_TIMEOUT] = "there was no connection to the server in time",
		[PROM_HTTP_FIRST_BYTE_TIMEOUT] = "there was no response within tool_timeout",
		[PROM_HTTP_IDLE_TIMEOUT] = "there was no complete response within tool_timeout",
		[PROM_HTTP_TOTAL_TIMEOUT] = "there was no complete response within tool_timeout",
		[PROM_HTTP_DEADLINE] = "the task's deadline passed before the response",
	};

	fail(fetch,
		 fetch->is_webhook && is_timeout(fetch->http_result.end)
			 ? "there was no response in time"
			 : texts[fetch->http_result.end],
		 fetch->http_result.detail);
	fetch->result.ambiguous = fetch->http_result.connect_ms >= 0;
}

/* A response whose status is no success. */
static void
finish_status(PromFetch *fetch)
{
	int status = fetch->http_result.headers.status;
	int64 retry_after = prom_headers_retry_after(&fetch->http_result.headers);
	char what[160];
	int used;
	char *words = prom_text_clean(fetch->bytes != NULL ? fetch->bytes : "",
								  fetch->length, NULL);

	used = snprintf(what, sizeof(what), "the server answered HTTP %d", status);
	if (status >= 300 && status < 400)
		used += snprintf(what + used, sizeof(what) - used,
						 ", a redirect, which is never followed");
	if (retry_after >= 0)
		snprintf(what + used, sizeof(what) - used, " (Retry-After: %lld s)",
				 (long long) (retry_after + 999) / 1000);
	fail(fetch, what, words);
	free(words);
	fetch->result.retry_after = retry_after;
	/* A gateway may give up what goes on behind it, or send one elsewhere. */
	fetch->result.ambiguous = status < 400 || status >= 500;
}

/* Is this a type of text?  That of nothing is. */
static bool
is_text_type(const char *type)
{
	size_t length = strlen(type);

	return length == 0 || strncmp(type, "text/", 5) == 0 ||
		   strcmp(type, "application/json") == 0 ||
		   strcmp(type, "application/xml") == 0 ||
		   (length > 5 && strcmp(type + length - 5, "+json") == 0) ||
		   (length > 4 && strcmp(type + length - 4, "+xml") == 0);
}

static void
finish_body(PromFetch *fetch)
{
	const char *type = fetch->http_result.headers.content_type;
	char what[200];
	char *text;

	/* It was done all the same. */
	if (fetch->length > 0 && !is_text_type(type))
	{
		fetch->length =
			Min(snprintf(what, sizeof(what),
						 "the server answered HTTP %d, with a body of type %s, which is not text",
						 fetch->http_result.headers.status, type),
				sizeof(what) - 1);
		fetch->is_cut = false;
		memcpy(fetch->bytes, what, fetch->length);
	}
	/* What is not UTF-8 becomes three bytes each. */
	text = hold(fetch, fetch->held + 3 * fetch->length)
			   ? prom_text_clean(fetch->bytes != NULL ? fetch->bytes : "",
								 fetch->length, NULL)
			   : NULL;
	if (text == NULL)
	{
		fetch->http_result.end = PROM_HTTP_NO_MEMORY;
		finish_failure(fetch);
		return;
	}
	if (fetch->key != NULL)
		prom_secret_black_out(text, fetch->key);
	fetch->result.text = text;
	fetch->result.is_cut = fetch->is_cut;
}

static void
request_done(void *arg)
{
	PromFetch *fetch = arg;
	PromFetchResult *result = &fetch->result;
	int status;

	blame(fetch, false);
	fetch->http_result = *prom_http_result(fetch->request);
	status = fetch->http_result.headers.status;
	result->http_status = status;
	/* A server may say what it was sent, wherever it can. */
	prom_secret_redact(fetch->http_result.headers.request_id, fetch->key);
	prom_secret_redact(fetch->http_result.headers.content_type, fetch->key);
	if (*fetch->http_result.headers.request_id != '\0')
		result->request_id = fetch->http_result.headers.request_id;
	result->connect_ms = fetch->http_result.connect_ms;
	result->first_byte_ms = fetch->http_result.first_byte_ms;
	if (fetch->no_memory)
		fetch->http_result.end = PROM_HTTP_NO_MEMORY;
	if (status >= 300)
		finish_status(fetch);
	else if (fetch->http_result.end == PROM_HTTP_COMPLETE)
		finish_body(fetch);
	else
		finish_failure(fetch);
	strip(fetch);
	hold(fetch, result->text == NULL ? 0 : strlen(result->text));
	PROM_FAULT("reply-read");
	blame(fetch, true);
	list_as_done(fetch);
}


/* Reading, inside libcurl. */

static bool
grow(PromFetch *fetch, size_t needed)
{
	size_t size = Max(fetch->size * 2, Max(needed, 4096));
	char *grown;

	if (!hold(fetch, fetch->held + size - fetch->size))
		return false;
	grown = realloc(fetch->bytes, size);
	if (grown == NULL)
		return false;
	fetch->bytes = grown;
	fetch->size = size;
	return true;
}

/* What is more than wanted is read, and not kept. */
static bool
take_bytes(void *arg, const char *bytes, size_t length)
{
	PromFetch *fetch = arg;
	size_t room = fetch->wanted - fetch->length;

	blame(fetch, false);
	if (prom_http_result(fetch->request)->headers.status >= 300)
		room = MAX_ERROR_BODY - Min(fetch->length, MAX_ERROR_BODY);
	if (length > room)
	{
		fetch->is_cut = true;
		length = room;
	}
	if (fetch->length + length > fetch->size &&
		!grow(fetch, fetch->length + length))
	{
		fetch->no_memory = true;
		blame(fetch, true);
		return false;
	}
	if (length > 0)
		memcpy(fetch->bytes + fetch->length, bytes, length);
	fetch->length += length;
	PROM_FAULT("reply-half-read");
	blame(fetch, true);
	return true;
}


/* Starting. */

/* Fail before anything was sent. */
static void
fail_to_start(PromFetch *fetch, const char *what)
{
	fail(fetch, what, NULL);
	strip(fetch);
	hold(fetch, 0);
	list_as_done(fetch);
	prom_http_wake(fetch->http);
}

/* Copy what must outlive the request; why that cannot be, or NULL. */
static const char *
prepare(PromFetch *fetch, const PromFetchSpec *spec, char *words, size_t size)
{
	if (spec->secret != NULL)
	{
		fetch->key = prom_secret_read(spec->secret, words, size);
		if (fetch->key == NULL)
			return words;
	}
	fetch->method = strdup(spec->method);
	if (spec->body != NULL && hold(fetch, strlen(spec->body)))
		fetch->body = strdup(spec->body);
	if (fetch->method == NULL || (spec->body != NULL && fetch->body == NULL))
		return "there was not enough memory for the request: prometheus.network_memory is used up";
	return NULL;
}

static void
send_fetch(PromFetch *fetch, const PromFetchSpec *spec)
{
	static const char bearer[] = "Authorization: Bearer ";
	const char *headers[8] = {NULL};
	int nheaders = 0;
	char key[64];
	char *authorization = NULL;
	int timeout = (int) Min(spec->timeout, PG_INT32_MAX);
	PromHttpSpec http = {
		.url = spec->url,
		.method = fetch->method,
		.accept = "Accept: application/json, text/*;q=0.9, */*;q=0.1",
		.headers = headers,
		.body = fetch->body,
		.body_length = fetch->body == NULL ? 0 : strlen(fetch->body),
		.fresh = true,
		.connect_timeout = Min(CONNECT_TIMEOUT, timeout),
		.first_byte_timeout = timeout,
		.idle_timeout = timeout,
		.total_timeout = timeout,
		.deadline = spec->deadline,
		.max_reply = MAX_BODY,
		.take = take_bytes,
		.done = request_done,
		.arg = fetch,
	};

	if (fetch->key != NULL)
	{
		size_t size = sizeof(bearer) + strlen(fetch->key);

		authorization = malloc(size);
		if (authorization == NULL)
		{
			fail_to_start(fetch, "there was not enough memory for the request");
			return;
		}
		snprintf(authorization, size, "%s%s", bearer, fetch->key);
		headers[nheaders++] = authorization;
	}
	if (spec->key != 0)
	{
		snprintf(key, sizeof(key), "Idempotency-Key: %lld",
				 (long long) spec->key);
		headers[nheaders++] = key;
	}
	if (spec->trace != NULL)
		headers[nheaders++] = spec->trace;
	for (int i = 0; spec->headers != NULL && spec->headers[i] != NULL; i++)
		headers[nheaders++] = spec->headers[i];
	fetch->request = prom_http_start(fetch->http, &http);
	prom_secret_free(authorization);
	if (fetch->request == NULL)
		fail_to_start(fetch, "there was not enough memory for the request");
	else if (prom_http_result(fetch->request)->end != PROM_HTTP_RUNNING)
	{
		request_done(fetch);
		prom_http_wake(fetch->http);
	}
}

PromFetch *
prom_fetch_start(PromHttp *http, const PromFetchSpec *spec, void *owner)
{
	PromFetch *fetch = calloc(1, sizeof(PromFetch));
	char words[256];
	const char *problem;

	if (fetch == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Failed while starting a call to a tool.")));
	fetch->owner = owner;
	fetch->http = http;
	fetch->wanted = (size_t) spec->max_result + 1;
	fetch->http_result.detail = "";
	fetch->result.connect_ms = -1;
	fetch->result.first_byte_ms = -1;
	fetch->result.retry_after = -1;
	fetch->blame = spec->blame;
	fetch->is_webhook = spec->done != NULL;
	fetch->done = spec->done != NULL ? spec->done : &done_fetches;
	problem = prepare(fetch, spec, words, sizeof(words));
	if (problem != NULL)
		fail_to_start(fetch, problem);
	else
		send_fetch(fetch, spec);
	return fetch;
}

void *
prom_fetch_next_of(dlist_head *done)
{
	PromFetch *fetch;

	if (dlist_is_empty(done))
		return NULL;
	fetch = dlist_container(PromFetch, link, dlist_pop_head_node(done));
	fetch->is_listed = false;
	return fetch->owner;
}

void *
prom_fetch_next_done(void)
{
	return prom_fetch_next_of(&done_fetches);
}

const PromFetchResult *
prom_fetch_result(const PromFetch *fetch)
{
	return &fetch->result;
}

void
prom_fetch_free(PromFetch *fetch)
{
	if (fetch->is_listed)
		dlist_delete(&fetch->link);
	strip(fetch);
	hold(fetch, 0);
	free(fetch->method);
	free((char *) fetch->result.text);
	free(fetch);
}
