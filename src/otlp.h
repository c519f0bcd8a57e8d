/*
 * otlp.h
 *	  What a receiver of OTLP/HTTP (1.11) in JSON is sent, and what it answers.
 *
 * Needs no server; text is UTF-8.  What is written is in the current memory
 * context.
 */
#ifndef PROM_OTLP_H
#define PROM_OTLP_H

#include "lib/stringinfo.h"

#include "http.h"
#include "text.h"

/* Attributes of a span, and bytes of one and of all of them; others are
 * dropped and counted. */
#define PROM_OTLP_MAX_ATTRIBUTES 128
#define PROM_OTLP_MAX_VALUE (1024 * 1024)
#define PROM_OTLP_MAX_SPAN (4 * 1024 * 1024)

/* Digits of ids, in hexadecimal. */
#define PROM_OTLP_TRACE_ID 32
#define PROM_OTLP_SPAN_ID 16

/* A list of attributes that is being written. */
typedef struct PromOtlpAttributes
{
	StringInfo to;
	int begin; /* of the list, in it */
	int n;
	int dropped;
} PromOtlpAttributes;

/*
 * Begin one, add to it, end it; what does not fit is counted as dropped.  Keys
 * are text, but that of JSON is a string of it; null is left out.
 */
extern void prom_otlp_attributes_begin(PromOtlpAttributes *attributes,
									   StringInfo to);
extern void prom_otlp_add_text(PromOtlpAttributes *attributes,
							   const char *key, const char *text);
extern void prom_otlp_add_int(PromOtlpAttributes *attributes, const char *key,
							  int64 value);
extern void prom_otlp_add_double(PromOtlpAttributes *attributes,
								 const char *key, double value);
extern void prom_otlp_add_json(PromOtlpAttributes *attributes, PromSlice key,
							   PromSlice value);

/* Every member of an object. */
extern void prom_otlp_add_object(PromOtlpAttributes *attributes,
								 PromSlice object);
extern void prom_otlp_attributes_end(PromOtlpAttributes *attributes);

/* Who sends. */
typedef struct PromOtlpResource
{
	const char *service;
	const char *instance;
	const char *host; /* NULL: unknown */
	const char *database;
	const char *server_version; /* of PostgreSQL */
} PromOtlpResource;

typedef struct PromOtlpSpan
{
	const char *trace_id;
	const char *span_id;
	const char *parent_id;   /* NULL: a root */
	bool is_remote;          /* its parent is of another process */
	const char *trace_state; /* NULL: none */
	const char *name;
	const char *kind;   /* as in prometheus.span */
	const char *status; /* the same */
	int64 started_at;   /* of TimestampTz */
	int64 ended_at;
	PromSlice attributes; /* an object of JSON */
} PromOtlpSpan;

/* A request to /v1/traces that is being written. */
typedef struct PromOtlpRequest
{
	StringInfoData body;
	int spans;
} PromOtlpRequest;

extern void prom_otlp_begin(PromOtlpRequest *request,
							const PromOtlpResource *resource);

/*
 * For otlp_metric.c: what comes before a list of Spans, or Metrics, and behind
 * it; and from 2000 to 1970, and to nanoseconds; false: out of range.
 */
extern void prom_otlp_put_head(StringInfo body, const char *signal,
							   const char *list,
							   const PromOtlpResource *resource);
extern void prom_otlp_put_end(StringInfo body);
extern bool prom_otlp_nanoseconds(int64 time, uint64 *nanoseconds);

/* False: it is none (its ids or times), and was not added. */
extern bool prom_otlp_add_span(PromOtlpRequest *request,
							   const PromOtlpSpan *span);
extern void prom_otlp_end(PromOtlpRequest *request);

/* The same bytes with gzip, from malloc; NULL: there is no memory. */
extern char *prom_otlp_gzip(const char *bytes, size_t length,
							size_t *packed_length);


/* What becomes of what was sent. */
typedef enum PromOtlpVerdict
{
	PROM_OTLP_ACCEPTED, /* but for what was rejected */
	PROM_OTLP_AGAIN,    /* it is to be sent again */
	PROM_OTLP_REFUSED   /* it must not be */
} PromOtlpVerdict;

#define PROM_OTLP_MESSAGE 300

typedef struct PromOtlpReply
{
	PromOtlpVerdict verdict;
	int64 rejected;                  /* spans or points, of what was accepted */
	char message[PROM_OTLP_MESSAGE]; /* one line of the receiver, or "" */
} PromOtlpReply;

/* What a response says; status is 0 if there was none. */
extern void prom_otlp_read_reply(PromHttpEnd end, int status, PromSlice body,
								 PromOtlpReply *reply);

/*
 * How long to wait before the next of so many attempts that failed, ms; random
 * is from 0 to 1.
 */
extern int64 prom_otlp_back_off(int failures, double random);

#endif
