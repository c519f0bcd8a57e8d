/*
 * llm.h
 *	  A request to a model and its reply, whatever the provider's format.
 *
 * Nothing here needs a transaction and nothing here raises an error, except
 * for a missing megabyte of memory: a call that cannot be made ends with an
 * error type in its reply, as one that the provider refused does.
 */
#ifndef PROM_LLM_H
#define PROM_LLM_H

#include "lib/ilist.h"

#include "http.h"
#include "model.h"

/* A call of a tool that a turn asks for.  Strings are UTF-8. */
typedef struct PromToolCall
{
	const char *id;
	const char *name;
	const char *arguments; /* should be a JSON object, and may be anything */
} PromToolCall;

/* A tool that is offered.  Strings are UTF-8. */
typedef struct PromToolOffer
{
	const char *name;
	const char *description; /* NULL: none */
	const char *schema;      /* of its arguments, JSON */
} PromToolOffer;

/*
 * One message of the prompt.  raw, if set, is sent instead of the rest.  An
 * assistant's may have calls, a tool's says which of them it answers.
 */
typedef struct PromMessage
{
	const char *role; /* "system", "user", "assistant", "tool" */
	const char *text; /* UTF-8 */
	const char *raw;  /* the provider's own form (an earlier turn), or NULL */
	const PromToolCall *calls;
	int ncalls;
	const char *call_id;
	const char *name; /* of the tool that was called */
	bool failed;      /* the call did */
} PromMessage;

/* What a model is asked. */
typedef struct PromPrompt
{
	const PromMessage *messages;
	int nmessages;
	const PromToolOffer *tools;
	int ntools;
	const char *output_schema; /* of the answer, as JSON in UTF-8; NULL: text */
	bool embeds;               /* its messages are texts to be embedded */
	bool strict;               /* the schema obeys the rules of strict mode */
	const char *model;         /* the provider's name of it, in UTF-8 */
	int left_out;              /* turns before for which there was no room */
	int64 until;               /* of a summary: the last outcome that it has */
} PromPrompt;

/* Texts that are embedded by one request. */
#define PROM_MAX_EMBEDDED 32

/* What becomes of a call that failed. */
typedef enum PromRetry
{
	PROM_RETRY_NEVER,   /* the request, the key or the model is wrong */
	PROM_RETRY_BACKOFF, /* may work later; uses up an attempt */
	PROM_RETRY_WAIT,    /* 429: wait, no attempt is used up */
	PROM_RETRY_MONEY    /* quota, spend limit, 402: a person must act */
} PromRetry;

/* How a call ended.  Strings are NULL if there is nothing to say. */
typedef struct PromReply
{
	bool ok;                   /* a complete answer; else error_type is set */
	const char *answer;        /* text of the turn, clean UTF-8 without NUL */
	const char *raw;           /* the turn verbatim, text-safe json */
	int ncalls;                /* tool calls that it asks for; 0: an answer */
	const char *finish;        /* canonical: end, tool, length, filter, error */
	const char *finish_reason; /* the provider's own word for it */
	int64 tokens_in;           /* -1: not reported */
	int64 tokens_out;
	int64 cached_tokens;
	int64 reasoning_tokens; /* a part of tokens_out */
	const float *vectors;   /* of texts that were embedded, one after another */
	int dimensions;         /* numbers of each */

	const char *error_type; /* ModelUnavailable, ModelTimeout, ... (DESIGN 5) */
	const char *error;      /* one line, no key, no prompt */
	PromRetry retry;
	int64 retry_after;       /* ms the peer asked for, -1: it did not */
	bool ambiguous;          /* the peer may have done, and billed, the work */
	bool counts_for_breaker; /* DESIGN 6, model options: the gate's breaker */

	int http_status;        /* 0: no response */
	const char *request_id; /* the provider's */
	double connect_ms;      /* -1: not reached; 0: a warm connection */
	double first_byte_ms;
	double total_ms;
} PromReply;

/* Nothing is known of it yet. */
static inline void
prom_reply_init(PromReply *reply)
{
	memset(reply, 0, sizeof(*reply));
	reply->tokens_in = reply->tokens_out = -1;
	reply->cached_tokens = reply->reasoning_tokens = -1;
	reply->connect_ms = reply->first_byte_ms = -1;
	reply->retry_after = -1;
}

typedef struct PromCall PromCall;

/*
 * Start a call.  Everything is copied, so model and prompt may go at once.
 * deadline_ms (from now, -1 none) bounds it beside the model's own time-outs.
 * trace: a header that says which trace it belongs to; NULL: none.
 * A fresh one is sent on a new connection: whoever asks again must do so, or
 * a request that makes the peer close each warm one is never found guilty.
 * Never fails here: a call that cannot be made is done at once, with an error.
 */
extern PromCall *prom_llm_start(PromHttp *http, const PromModel *model,
								const PromPrompt *prompt, const char *trace,
								int64 deadline_ms, bool fresh, void *owner);

/*
 * The same of one that is no task's: it has no owner, and when it has ended it
 * is in that list, from which prom_llm_next_of() takes it.
 */
extern PromCall *prom_llm_start_for(PromHttp *http, const PromModel *model,
									const PromPrompt *prompt,
									dlist_head *done);
extern PromCall *prom_llm_next_of(dlist_head *done);

/* The next call that has ended, or NULL.  The caller frees it. */
extern PromCall *prom_llm_next_done(PromHttp *http);
extern void *prom_llm_owner(const PromCall *call);

/* The reply of a call that has ended; it lives as long as the call. */
extern const PromReply *prom_llm_reply(const PromCall *call);

/*
 * The same for the reply of a function that is a model: the body of a chat
 * completion.  offered: tools were, so that it may call them.
 */
extern PromCall *prom_llm_read(const char *body, bool offered);

/* Free a call; one on the network is dropped, and its connection with it. */
extern void prom_llm_free(PromCall *call);

/*
 * Called with a call's owner before bytes of its reply are read, and with NULL
 * after: whoever dies in between knows whose reply it was.  May be NULL.
 */
extern void (*prom_llm_blame)(void *owner);

/*
 * Called with a call's owner and a piece of its answer, in UTF-8, as it comes.
 * Inside libcurl, so it raises nothing and waits for nothing.  May be NULL.
 */
typedef void (*PromHear)(void *owner, const char *text, size_t length);

extern PromHear prom_llm_heard;

/* The same when the headers of its reply have come. */
extern void (*prom_llm_headed)(void *owner, const PromHeaders *headers);

/* echo answers with the request, unaltered, and needs no call; */
extern bool prom_llm_is_local(const char *api);

/* function is run by an executor. */
extern bool prom_llm_is_function(const char *api);

#endif
