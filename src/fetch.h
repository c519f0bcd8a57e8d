/*
 * fetch.h
 *	  One request to an endpoint that is a tool, or to a webhook, and what came
 *	  back.
 *
 * As llm.h for models: nothing here needs a transaction, and nothing raises an
 * error but for missing memory.
 */
#ifndef PROM_FETCH_H
#define PROM_FETCH_H

#include "lib/ilist.h"

#include "http.h"

typedef struct PromFetchSpec
{
	const char *method;
	const char *url;
	const char *body;   /* NULL: none */
	const char *secret; /* the name of its key; NULL: none */
	int64 key;          /* its Idempotency-Key; 0: none */
	int64 timeout;      /* ms */
	int64 deadline;     /* of the task, ms from now */
	int64 max_result;   /* bytes of the body that are wanted */
	const char *trace;  /* a header: the trace it belongs to; NULL: none */

	/*
	 * Of a webhook: its own headers, NULL after the last, its own list, and who
	 * is told whose bytes are being read (the owner), or have been (NULL).
	 */
	const char *const *headers;
	dlist_head *done;
	void (*blame)(void *owner);
} PromFetchSpec;

/* How it ended.  Strings are UTF-8 and live as long as the fetch. */
typedef struct PromFetchResult
{
	const char *text;  /* of the body; NULL: error is set */
	bool is_cut;       /* the body is longer */
	const char *error; /* one line, without the key */
	bool ambiguous;    /* the peer may have done it, and nobody knows */
	int http_status;   /* 0: no response */
	const char *request_id;
	double connect_ms; /* -1: not reached */
	double first_byte_ms;
	int64 retry_after; /* ms, that the peer asked to wait; -1: it did not */
} PromFetchResult;

typedef struct PromFetch PromFetch;

/* Start one; everything is copied.  It is sent once, on a new connection. */
extern PromFetch *prom_fetch_start(PromHttp *http, const PromFetchSpec *spec,
								   void *owner);

/* The owner of the next one that has ended; NULL: there is none. */
extern void *prom_fetch_next_done(void);

/* The same of those with a list of their own. */
extern void *prom_fetch_next_of(dlist_head *done);

extern const PromFetchResult *prom_fetch_result(const PromFetch *fetch);

/* Free one; a request on the network is dropped, and its connection with it. */
extern void prom_fetch_free(PromFetch *fetch);

#endif
