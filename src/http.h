/*
 * http.h
 *	  Requests over HTTP, thousands at a time, in one process's event loop.
 *
 * The process that owns the engine waits for prom_http_fd() at most
 * prom_http_timeout() milliseconds and then calls prom_http_drive().
 */
#ifndef PROM_HTTP_H
#define PROM_HTTP_H

#include "header.h"

typedef struct PromHttp PromHttp;

/*
 * The process's one engine; never before fork.  Ends the process's start with
 * an error if libcurl cannot be used.
 */
extern PromHttp *prom_http_create(void);

/*
 * Close everything; every request must have been freed.  A process that exits
 * need not call it.
 */
extern void prom_http_destroy(PromHttp *http);

/* A descriptor that is readable when prom_http_drive() has something to do. */
extern int prom_http_fd(const PromHttp *http);

/* Milliseconds until it must be driven though nothing is readable; -1: none. */
extern long prom_http_timeout(PromHttp *http);

/*
 * Move every request on; a started one is first sent here.  Must not run
 * inside a transaction.  When it is cut short by the number of events, the
 * descriptor stays readable.
 */
extern void prom_http_drive(PromHttp *http);

/* Requests under way, and bytes held for them. */
extern int prom_http_in_flight(const PromHttp *http);
extern size_t prom_http_memory(const PromHttp *http);

/* Bytes that requests and replies may hold together, from now on. */
extern void prom_http_set_memory_limit(PromHttp *http, size_t bytes);

/*
 * Account for bytes held for a request or reply; false if the limit forbids
 * them.  Each is given back with the same number.
 */
extern bool prom_http_charge(PromHttp *http, size_t bytes);
extern void prom_http_uncharge(PromHttp *http, size_t bytes);

/* The rest of this file is for what sends requests: llm.c, fetch.c. */

/* How a request ended, or where it is. */
typedef enum PromHttpEnd
{
	PROM_HTTP_RUNNING,
	PROM_HTTP_COMPLETE,    /* a whole response, of whatever status */
	PROM_HTTP_STOPPED,     /* the taker of the body wanted no more */
	PROM_HTTP_INVALID,     /* the URL or a header cannot be used */
	PROM_HTTP_FORBIDDEN,   /* every address of the host is refused */
	PROM_HTTP_UNRESOLVED,  /* the host's name has no address */
	PROM_HTTP_UNREACHABLE, /* no connection */
	PROM_HTTP_UNTRUSTED,   /* no TLS, or a certificate that does not verify */
	PROM_HTTP_LOST,        /* the connection, before a byte of the response */
	PROM_HTTP_STALE,       /* the same, and it was a warm one: see below */
	PROM_HTTP_CUT,         /* the connection, within the response */
	PROM_HTTP_GARBLED,     /* what came is not HTTP */
	PROM_HTTP_TOO_LONG,    /* longer than max_reply */
	PROM_HTTP_NO_MEMORY,   /* beyond the limit of all, or the machine's */
	PROM_HTTP_CONNECT_TIMEOUT,
	PROM_HTTP_FIRST_BYTE_TIMEOUT,
	PROM_HTTP_IDLE_TIMEOUT,
	PROM_HTTP_TOTAL_TIMEOUT,
	PROM_HTTP_DEADLINE /* of the task, not of the model */
} PromHttpEnd;

/*
 * A request is sent at most once.  A warm connection may have been closed by
 * the peer just before, so that it never saw the request, but nothing tells
 * this from one that did the work and died: as PROM_HTTP_STALE the owner
 * decides.  Its next request to that host gets a new connection; much later
 * others may have left warm ones again, unless it asks for a fresh one.
 */
typedef struct PromHttpRequest PromHttpRequest;

/* A POST of a JSON document, if nothing else is said. */
typedef struct PromHttpSpec
{
	const char *url;
	const char *method;         /* NULL: POST; must outlive the request */
	const char *accept;         /* NULL: JSON, or what stream asks for */
	const char *const *headers; /* "Name: value", NULL after the last */
	const char *body;           /* NULL: none; must outlive the request */
	size_t body_length;
	bool stream; /* ask for server-sent events */
	bool fresh;  /* on a new connection, which may be kept like any other */

	int connect_timeout; /* ms, each; the clocks of model.h */
	int first_byte_timeout;
	int idle_timeout;
	int total_timeout;
	int64_t deadline;  /* ms from now, -1: none */
	int64_t max_reply; /* bytes of the body, after decompression */

	/*
	 * The headers of the response have come; may be NULL.  Called inside
	 * libcurl, as take is.
	 */
	void (*headed)(void *arg, const PromHeaders *headers);

	/*
	 * Take bytes of the response's body; false ends the request.  Called
	 * inside libcurl: no ereport, no palloc, no other function of this file
	 * but charge, uncharge, linger and result.
	 */
	bool (*take)(void *arg, const char *bytes, size_t length);

	/*
	 * The request has ended, and may be freed here; from prom_http_drive(),
	 * outside libcurl.
	 */
	void (*done)(void *arg);
	void *arg;
} PromHttpSpec;

/*
 * The URL of a path below a base, whose query stays at the end, and its host;
 * both from malloc.  False: the base is not a URL.
 */
extern bool prom_http_url(const char *base, const char *path, char **url,
						  char **host);

typedef struct PromHttpResult
{
	PromHttpEnd end;
	PromHeaders headers;
	bool sent;          /* the whole request left */
	const char *detail; /* libcurl's own words, or "" */
	double connect_ms;  /* -1: not reached; 0: a warm connection */
	double first_byte_ms;
	double total_ms;
} PromHttpResult;

/*
 * Start a request; everything but the body is copied.  If it cannot be made
 * it has ended when this returns, and done is not called.  NULL if memory is
 * missing.
 */
extern PromHttpRequest *prom_http_start(PromHttp *http,
										const PromHttpSpec *spec);

/* What is known so far; all of it when the request has ended. */
extern const PromHttpResult *prom_http_result(const PromHttpRequest *request);

/*
 * All that matters has come: end it in so many milliseconds if the peer does
 * not, as PROM_HTTP_STOPPED.
 */
extern void prom_http_linger(PromHttpRequest *request, int ms);

/* Free a request; one under way is dropped, and its connection closed. */
extern void prom_http_free(PromHttpRequest *request);

/* Make the next prom_http_timeout() 0: something is done already. */
extern void prom_http_wake(PromHttp *http);

#endif
