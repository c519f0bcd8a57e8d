/*
 * collector.h
 *	  Requests to the OpenTelemetry Collector of prometheus.otlp_endpoint.
 *
 * As fetch.h for tools: nothing here needs a transaction.
 */
#ifndef PROM_COLLECTOR_H
#define PROM_COLLECTOR_H

#include "http.h"
#include "otlp.h"

/* Headers that prometheus.otlp_headers may have. */
#define PROM_COLLECTOR_HEADERS 8

/*
 * Why this is no list of names of headers and secrets, "NAME=SECRET, ...", as a
 * sentence that does not quote it; NULL: it is one.
 */
extern const char *prom_collector_headers_problem(const char *list);

typedef struct PromPost PromPost;

/*
 * Send a body, which must outlive it, to a path below the endpoint, compressed
 * if prometheus.otlp_compression says so.  NULL: there is no memory.
 */
extern PromPost *prom_post_start(PromHttp *http, const char *path,
								 const char *body, size_t length);

/* What came of it; NULL: it has not ended. */
extern const PromOtlpReply *prom_post_reply(const PromPost *post);

/* Milliseconds that the receiver asked to wait; -1: it did not. */
extern int64 prom_post_retry_after(const PromPost *post);

/* Free one; a request on the network is dropped, and its connection with it. */
extern void prom_post_free(PromPost *post);

#endif
