/*
 * llm.c
 *	  Calls models: from messages to a request, from a response to a reply.
 *
 * Whatever goes wrong becomes a reply with an error type, and an error is
 * never an answer: a turn counts only if it is readable, says that it came to
 * its end, and has something to say.
 *
 * A call owns everything of it, from malloc, because its reply is read inside
 * libcurl and because it outlives transactions.  When it ends, all but the
 * strings of the reply is freed and its key is wiped.
 */
#include "postgres.h"

#include "lib/ilist.h"
#include "lib/stringinfo.h"

#include "fault.h"
#include "llm.h"
#include "provider/provider.h"
#include "retry.h"
#include "secret.h"
#include "sse.h"

#define MAX_ERROR 500              /* bytes of an error's text */
#define MAX_ERROR_BODY (64 * 1024) /* of an error response that are kept */

/* After a stream's own end mark the peer has this long to end it, ms. */
#define LINGER 1000

/* Header lines that a provider has at most, beside that with the key. */
#define MAX_HEADERS 4

/* How the bytes of a response are read. */
typedef enum ReadMode
{
	READ_UNDECIDED,
	READ_BODY,   /* kept until it is whole */
	READ_STREAM, /* read event by event */
	READ_ERROR   /* kept up to a limit */
} ReadMode;

struct PromCall
{
	dlist_node link;  /* in done_calls */
	dlist_head *done; /* where it is put then */
	bool is_listed;
	void *owner; /* NULL: it is no task's */
	PromHttp *http;
	const PromProvider *provider;
	PromHttpRequest *request; /* NULL: not begun, or ended */
	bool asked_stream;
	int embeds;     /* so many texts; 0: it asks for a turn */
	int dimensions; /* that their embeddings must have; 0: any */
	bool fresh;     /* asks for a new connection */
	bool offered;   /* tools were, so that it may call them */

	char *body; /* of the request */
	size_t body_length;
	char *key;
	size_t held; /* bytes charged to the engine */

	ReadMode mode;
	bool no_memory; /* reading stopped for this reason */
	char *bytes;    /* of the response */
	size_t length;
	size_t size;
	PromSse sse;
	void *stream; /* the provider's */

	PromHttpResult result; /* its strings are gone when the request is */
	PromTurn turn;
	PromReply reply;
	char error[MAX_ERROR + 1];
};

void (*prom_llm_blame)(void *owner) = NULL;
PromHear prom_llm_heard = NULL;
void (*prom_llm_headed)(void *owner, const PromHeaders *headers) = NULL;

/* Calls that have ended and were not asked for yet, the oldest first. */
static dlist_head done_calls = DLIST_STATIC_INIT(done_calls);

static bool take_bytes(void *arg, const char *bytes, size_t length);
static void request_done(void *arg);


static void
blame(void *owner)
{
	if (prom_llm_blame != NULL)
		prom_llm_blame(owner);
}

/* Set how many bytes the call holds; false: that is more than there may be. */
static bool
hold(PromCall *call, size_t bytes)
{
	if (call->http == NULL)
		return true;
	if (bytes > call->held &&
		!prom_http_charge(call->http, bytes - call->held))
		return false;
	if (bytes < call->held)
		prom_http_uncharge(call->http, call->held - bytes);
	call->held = bytes;
	return true;
}

static void
list_as_done(PromCall *call)
{
	dlist_push_tail(call->done, &call->link);
	call->is_listed = true;
}


/* Errors. */

static void
fail(PromCall *call, const char *error_type, PromRetry retry,
	 const char *what, const char *words)
{
	PromReply *reply = &call->reply;

	reply->ok = false;
	reply->error_type = error_type;
	reply->retry = retry;
	prom_secret_explain(call->error, sizeof(call->error), what, words,
						call->key, call->body, call->body_length);
	reply->error = call->error;
}

/* Fail with what the tables say. */
static void
fail_by_rule(PromCall *call, const char *what, const char *words)
{
	PromReply *reply = &call->reply;
	PromFailure failure = {0};
	PromRetryClass verdict;

	failure.end = call->result.end;
	failure.status = call->result.headers.status;
	failure.code = call->turn.code;
	failure.type = call->turn.type;
	failure.is_inner = call->turn.is_error;
	failure.should_retry = call->result.headers.should_retry;
	failure.begun = call->result.first_byte_ms >= 0;
	verdict = prom_retry_classify(&failure);
	fail(call, verdict.error_type, verdict.retry, what, words);
	reply->counts_for_breaker = verdict.counts_for_breaker;
}

/* A response whose status is an error, whole or not. */
static void
finish_error_status(PromCall *call)
{
	PromSlice body = {call->bytes ? call->bytes : "", call->length};
	int status = call->result.headers.status;
	char what[128];

	call->provider->read_error(&call->turn, body);
	if (call->reply.retry_after < 0)
		call->reply.retry_after = call->turn.retry_after;
	if (status < 400)
		snprintf(what, sizeof(what), "model server answered HTTP %d, a "
									 "redirect, which is never followed",
				 status);
	else
		snprintf(what, sizeof(what), "model server answered HTTP %d", status);
	fail_by_rule(call, what, call->turn.message);
	call->reply.ambiguous =
		call->result.sent && call->result.end != PROM_HTTP_COMPLETE;
}

/* No response, or none that is whole. */
static void
finish_failure(PromCall *call)
{
	fail_by_rule(call, prom_retry_text(call->result.end), call->result.detail);
	call->reply.ambiguous = call->result.sent;
}

/* What could be received is not what a model answers. */
static void
fail_unreadable(PromCall *call, PromRetry retry, const char *why)
{
	const char *type = call->result.headers.content_type;
	char words[160];

	if (call->mode == READ_BODY && *type != '\0' &&
		strcmp(type, "application/json") != 0)
		snprintf(words, sizeof(words), "%s (content type %s)", why, type);
	else
		strlcpy(words, why, sizeof(words));
	fail(call, "ModelUnreadable", retry, "model server's reply is unusable",
		 words);
	call->reply.ambiguous = call->result.sent && call->turn.tokens_out < 0;
}


/* Replies. */

/* A turn that came to its end: is it an answer? */
static void
judge_turn(PromCall *call)
{
	PromTurn *turn = &call->turn;
	PromReply *reply = &call->reply;
	PromObjection objection;

	reply->finish_reason = turn->finish_reason;
	reply->finish = call->provider->finish(turn->finish_reason);
	if (turn->ncalls > 0 && strcmp(reply->finish, "end") == 0)
		reply->finish = "tool"; /* some servers say "stop" here */
	reply->raw = turn->raw;
	reply->ambiguous = false;
	if (prom_turn_objection(turn, reply->finish, call->offered, &objection))
	{
		if (objection.error_type == NULL)
			fail_unreadable(call, PROM_RETRY_BACKOFF, objection.what);
		else
			fail(call, objection.error_type, objection.retry, objection.what,
				 objection.words);
		return;
	}
	reply->ok = true;
	if (strcmp(reply->finish, "tool") == 0)
		reply->ncalls = turn->ncalls;
	if (turn->answer != NULL && *turn->answer != '\0')
		reply->answer = turn->answer;
}

/* Embeddings, as they were asked for. */
static void
judge_vectors(PromCall *call)
{
	PromReply *reply = &call->reply;

	reply->ok = true;
	reply->vectors = call->turn.vectors;
	reply->dimensions = call->turn.dimensions;
	reply->ambiguous = false;
}

/* A reply was read as far as it goes. */
static void
finish_turn(PromCall *call, bool was_stream)
{
	PromTurn *turn = &call->turn;
	PromReply *reply = &call->reply;

	reply->tokens_in = turn->tokens_in;
	reply->tokens_out = turn->tokens_out;
	reply->cached_tokens = turn->cached_tokens;
	reply->reasoning_tokens = turn->reasoning_tokens;
	if (turn->is_error)
	{
		fail_by_rule(call, "model server reported an error within HTTP 200",
					 turn->message);

		/* In a stream the work may have been begun, else this is the reply. */
		reply->ambiguous = was_stream && call->result.sent;
		return;
	}
	switch (turn->problem)
	{
		case PROM_TURN_FINE:
			if (call->embeds > 0)
				judge_vectors(call);
			else
				judge_turn(call);
			break;
		case PROM_TURN_UNREADABLE:
			fail_unreadable(call, PROM_RETRY_BACKOFF, turn->why);
			break;
		case PROM_TURN_TOO_LONG:
			fail_unreadable(call, PROM_RETRY_NEVER, turn->why);
			break;
		case PROM_TURN_NO_MEMORY:
			call->result.end = PROM_HTTP_NO_MEMORY;
			finish_failure(call);
			break;
	}
}

static void
finish_body(PromCall *call)
{
	PromSlice body = {call->bytes ? call->bytes : "", call->length};

	/* The turn and its text are copies of parts of the body. */
	if (!hold(call, call->held + 2 * call->length))
	{
		call->result.end = PROM_HTTP_NO_MEMORY;
		finish_failure(call);
		return;
	}
	if (body.length >= 3 && memcmp(body.data, "\xEF\xBB\xBF", 3) == 0)
	{
		body.data += 3;
		body.length -= 3;
	}
	call->provider->read_body(&call->turn, body);
	if (call->embeds > 0)
		prom_embeddings_check(&call->turn, call->embeds, call->dimensions);
	finish_turn(call, false);
}

/*
 * A stream that has brought the turn's end is a reply, however the connection
 * ended after that; else what happened to the connection comes first.
 */
static void
finish_stream(PromCall *call)
{
	PromSseState state = PROM_SSE_OK;
	PromHttpEnd end = call->result.end;

	if (end == PROM_HTTP_COMPLETE)
		state = prom_sse_end(&call->sse);
	else
		state = call->sse.state;
	call->provider->read_stream(call->stream, &call->turn);
	call->stream = NULL;
	if (state == PROM_SSE_TOO_LONG)
	{
		call->result.end = PROM_HTTP_TOO_LONG;
		finish_failure(call);
	}
	else if (call->no_memory || state == PROM_SSE_NO_MEMORY)
	{
		call->result.end = PROM_HTTP_NO_MEMORY;
		finish_failure(call);
	}
	else if (end == PROM_HTTP_COMPLETE || end == PROM_HTTP_STOPPED ||
			 call->turn.is_error || call->turn.problem == PROM_TURN_FINE)
		finish_turn(call, true);
	else
		finish_failure(call);
}

/* Free all that the reply does not need. */
static void
strip(PromCall *call)
{
	if (call->request != NULL)
		prom_http_free(call->request);
	call->request = NULL;
	call->result.detail = "";
	if (call->stream != NULL)
		call->provider->free_stream(call->stream);
	call->stream = NULL;
	prom_sse_free(&call->sse);
	free(call->bytes);
	call->bytes = NULL;
	call->length = call->size = 0;
	free(call->body);
	call->body = NULL;
	prom_secret_free(call->key);
	call->key = NULL;
}

/* The request has ended: make the reply. */
static void
request_done(void *arg)
{
	PromCall *call = arg;
	PromReply *reply = &call->reply;
	int status;

	blame(call->owner);
	call->result = *prom_http_result(call->request);
	status = call->result.headers.status;
	reply->http_status = status;
	reply->retry_after = prom_headers_retry_after(&call->result.headers);
	if (*call->result.headers.request_id != '\0')
		reply->request_id = call->result.headers.request_id;
	reply->connect_ms = call->result.connect_ms;
	reply->first_byte_ms = call->result.first_byte_ms;
	reply->total_ms = call->result.total_ms;
	if (call->no_memory)
		call->result.end = PROM_HTTP_NO_MEMORY;
	if (status != 0 && (status < 200 || status > 299))
		finish_error_status(call);
	else if (call->mode == READ_STREAM)
		finish_stream(call);
	else if (call->result.end == PROM_HTTP_COMPLETE)
	{
		call->mode = READ_BODY;
		finish_body(call);
	}
	else
		finish_failure(call);
	if (call->turn.finish_reason != NULL)
		prom_secret_redact(call->turn.finish_reason, call->key);
	prom_secret_redact(call->result.headers.request_id, call->key);
	strip(call);
	hold(call, (call->turn.raw ? strlen(call->turn.raw) : 0) +
				   (call->turn.answer ? strlen(call->turn.answer) : 0) +
				   sizeof(float) * call->turn.nvectors *
					   call->turn.dimensions);
	PROM_FAULT("reply-read");
	blame(NULL);
	list_as_done(call);
}


/* Reading, inside libcurl. */

static void
take_headers(void *arg, const PromHeaders *headers)
{
	PromCall *call = arg;

	if (prom_llm_headed != NULL && call->owner != NULL)
		prom_llm_headed(call->owner, headers);
}

static bool
take_event(void *arg, const char *name, const char *data, size_t length)
{
	PromCall *call = arg;
	PromSlice event = {data, length};

	if (!call->provider->read_event(call->stream, event))
		return false;
	if (prom_llm_heard != NULL)
		call->provider->event_text(event, prom_llm_heard, call->owner);
	if (call->provider->stream_is_done(call->stream))
		prom_http_linger(call->request, LINGER);
	return true;
}

static ReadMode
choose_mode(const PromCall *call, const char *bytes, size_t length)
{
	const PromHeaders *headers = &prom_http_result(call->request)->headers;

	if (headers->status < 200 || headers->status > 299)
		return READ_ERROR;
	if (strcmp(headers->content_type, "text/event-stream") == 0)
		return READ_STREAM;
	if (call->asked_stream &&
		strcmp(headers->content_type, "application/json") != 0 &&
		prom_sse_looks_like(bytes, length))
		return READ_STREAM;
	return READ_BODY;
}

static bool
append_bytes(PromCall *call, const char *bytes, size_t length)
{
	if (call->length + length > call->size)
	{
		size_t size = Max(call->size * 2, call->length + length);
		char *grown;

		if (!hold(call, call->held + size - call->size))
			return false;
		grown = realloc(call->bytes, size);
		if (grown == NULL)
			return false;
		call->bytes = grown;
		call->size = size;
	}
	memcpy(call->bytes + call->length, bytes, length);
	call->length += length;
	return true;
}

static bool
take_stream(PromCall *call, const char *bytes, size_t length)
{
	PromSseState state;

	if (call->stream == NULL)
	{
		call->stream = call->provider->open_stream();
		if (call->stream == NULL)
		{
			call->mode = READ_UNDECIDED;
			call->no_memory = true;
			return false;
		}
		prom_sse_init(&call->sse, take_event, call);
	}
	state = prom_sse_feed(&call->sse, bytes, length);
	if (state == PROM_SSE_OK &&
		!hold(call, call->body_length + prom_sse_memory(&call->sse) +
						call->provider->stream_memory(call->stream)))
		call->no_memory = true;
	return state == PROM_SSE_OK && !call->no_memory;
}

static bool
take_bytes(void *arg, const char *bytes, size_t length)
{
	PromCall *call = arg;
	bool more = true;

	blame(call->owner);
	if (call->mode == READ_UNDECIDED)
		call->mode = choose_mode(call, bytes, length);
	switch (call->mode)
	{
		case READ_UNDECIDED:
			break;
		case READ_STREAM:
			more = take_stream(call, bytes, length);
			break;
		case READ_ERROR:
			if (call->length >= MAX_ERROR_BODY)
				break;
			/* FALLTHROUGH */
		case READ_BODY:
			more = append_bytes(call, bytes, length);
			if (!more)
				call->no_memory = true;
			break;
	}
	PROM_FAULT("reply-half-read");
	blame(NULL);
	return more;
}


/* Starting. */

/* Fail before anything was sent. */
static void
fail_to_start(PromCall *call, const char *error_type, PromRetry retry,
			  const char *what, const char *words)
{
	fail(call, error_type, retry, what, words);
	strip(call);
	hold(call, 0);
	list_as_done(call);
	prom_http_wake(call->http);
}

/* The header with the key, malloc'd; NULL if memory is missing. */
static char *
make_key_header(const char *name, const char *key)
{
	size_t size = strlen(name) + strlen(key) + 1;
	char *header = malloc(size);

	if (header != NULL)
		snprintf(header, size, "%s%s", name, key);
	return header;
}

/* Send the body that was built. */
static void
send_call(PromCall *call, const PromModel *model, const char *url,
		  const char *host, const char *trace, int64 deadline_ms)
{
	const char *headers[MAX_HEADERS + 3] = {NULL};
	PromHttpSpec spec = {0};
	char *key_header = NULL;
	int n = 0;

	for (; call->provider->headers != NULL && n < MAX_HEADERS &&
		   call->provider->headers[n] != NULL;
		 n++)
		headers[n] = call->provider->headers[n];
	if (trace != NULL)
		headers[n++] = trace;
	if (call->key != NULL)
	{
		key_header = make_key_header(call->provider->key_header(host),
									 call->key);
		headers[n] = key_header;
	}
	spec.url = url;
	spec.headers = headers;
	spec.body = call->body;
	spec.body_length = call->body_length;
	spec.stream = call->asked_stream;
	spec.fresh = call->fresh;
	spec.connect_timeout = model->connect_timeout;
	spec.first_byte_timeout = model->first_byte_timeout;
	spec.idle_timeout = model->idle_timeout;
	spec.total_timeout = model->total_timeout;
	spec.deadline = deadline_ms;
	spec.max_reply = model->max_reply;
	spec.headed = take_headers;
	spec.take = take_bytes;
	spec.done = request_done;
	spec.arg = call;
	if (call->key == NULL || key_header != NULL)
		call->request = prom_http_start(call->http, &spec);
	prom_secret_free(key_header);
	if (call->request == NULL)
		fail_to_start(call, "ModelUnavailable", PROM_RETRY_BACKOFF,
					  "not enough memory for the call", NULL);
	else if (prom_http_result(call->request)->end != PROM_HTTP_RUNNING)
	{
		request_done(call);
		prom_http_wake(call->http);
	}
}

/* Build and send, or fail. */
static void
begin(PromCall *call, const PromModel *model, StringInfo body,
	  const char *url, const char *host, const char *trace, int64 deadline_ms)
{
	char words[256];

	if (url == NULL)
	{
		fail_to_start(call, "ConfigurationError", PROM_RETRY_NEVER,
					  "model cannot be called",
					  "the endpoint is not a URL");
		return;
	}
	if (model->secret != NULL)
	{
		call->key = prom_secret_read(model->secret, words, sizeof(words));
		if (call->key == NULL)
		{
			fail_to_start(call, "ConfigurationError", PROM_RETRY_NEVER,
						  words, NULL);
			return;
		}
	}
	if (!hold(call, (size_t) body->len) ||
		(call->body = malloc((size_t) body->len + 1)) == NULL)
	{
		fail_to_start(call, "ModelUnavailable", PROM_RETRY_BACKOFF,
					  "not enough memory for the call",
					  "prometheus.network_memory is used up");
		return;
	}
	memcpy(call->body, body->data, (size_t) body->len + 1);
	call->body_length = (size_t) body->len;
	send_call(call, model, url, host, trace, deadline_ms);
}

static PromCall *
new_call(PromHttp *http, bool stream, void *owner)
{
	PromCall *call = calloc(1, sizeof(PromCall));

	if (call == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Failed while starting a call to a model.")));
	call->owner = owner;
	call->done = &done_calls;
	call->http = http;
	call->asked_stream = stream;
	call->result.detail = "";
	prom_reply_init(&call->reply);
	prom_turn_init(&call->turn);
	return call;
}

static void
start(PromCall *call, const PromModel *model, const PromPrompt *prompt,
	  const char *trace, int64 deadline_ms)
{
	const PromProvider *provider = prom_provider_for(model, prompt);
	StringInfoData body;
	char *url = NULL;
	char *host = NULL;

	if (provider == NULL)
	{
		fail_to_start(call, "ConfigurationError", PROM_RETRY_NEVER,
					  prompt->embeds
						  ? "model's api has no embeddings here"
						  : "model's api is not known here",
					  NULL);
		return;
	}
	(void) prom_provider_url(provider, model, prompt->model, &url, &host);
	call->provider = provider;
	call->offered = prompt->ntools > 0;
	if (prompt->embeds)
	{
		call->embeds = prompt->nmessages;
		call->dimensions = prom_embeddings_dimensions(model);
	}
	PG_TRY();
	{
		initStringInfo(&body);
		if (url != NULL)
			provider->build(&body, model, host, prompt);
	}
	PG_CATCH();
	{
		free(url);
		free(host);
		prom_llm_free(call);
		PG_RE_THROW();
	}
	PG_END_TRY();
	begin(call, model, &body, url, host, trace, deadline_ms);
	pfree(body.data);
	free(url);
	free(host);
}

PromCall *
prom_llm_start(PromHttp *http, const PromModel *model,
			   const PromPrompt *prompt, const char *trace, int64 deadline_ms,
			   bool fresh, void *owner)
{
	PromCall *call = new_call(http, model->stream && !prompt->embeds, owner);

	call->fresh = fresh;
	start(call, model, prompt, trace, deadline_ms);
	return call;
}

PromCall *
prom_llm_start_for(PromHttp *http, const PromModel *model,
				   const PromPrompt *prompt, dlist_head *done)
{
	PromCall *call = new_call(http, model->stream && !prompt->embeds, NULL);

	call->done = done;
	start(call, model, prompt, NULL, -1);
	return call;
}

PromCall *
prom_llm_read(const char *body, bool offered)
{
	PromCall *call = new_call(NULL, false, NULL);

	call->provider = &prom_provider_openai;
	call->offered = offered;
	call->mode = READ_BODY;
	call->length = strlen(body);
	call->bytes = strdup(body);
	call->result.end = PROM_HTTP_NO_MEMORY;
	if (call->bytes == NULL)
		finish_failure(call);
	else
		finish_body(call);
	strip(call);
	return call;
}

PromCall *
prom_llm_next_of(dlist_head *done)
{
	PromCall *call;

	if (dlist_is_empty(done))
		return NULL;
	call = dlist_container(PromCall, link, dlist_pop_head_node(done));
	call->is_listed = false;
	return call;
}

PromCall *
prom_llm_next_done(PromHttp *http)
{
	return prom_llm_next_of(&done_calls);
}

void *
prom_llm_owner(const PromCall *call)
{
	return call->owner;
}

const PromReply *
prom_llm_reply(const PromCall *call)
{
	return &call->reply;
}

void
prom_llm_free(PromCall *call)
{
	if (call->is_listed)
		dlist_delete(&call->link);
	strip(call);
	hold(call, 0);
	prom_turn_clear(&call->turn);
	free(call);
}
