/*
 * header.h
 *	  What is kept of a reply's headers.
 *
 * Plain C without PostgreSQL; nothing is allocated.
 */
#ifndef PROM_HEADER_H
#define PROM_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rate.h"

typedef struct PromHeaders
{
	int status;             /* 0: none yet */
	char content_type[64];  /* lower case, without parameters */
	char request_id[128];   /* the provider's name for this request */
	int request_id_rank;    /* of the header it came in; lower is better */
	int keep_alive;         /* Keep-Alive: timeout, s; -1: not said */
	int should_retry;       /* x-should-retry: 1 true, 0 false, -1 not said */
	int64_t retry_after_ms; /* as a delay, ms; -1: not so */
	int64_t retry_at;       /* as a date, seconds of the epoch; -1: not so */
	int64_t date;           /* the peer's clock; -1: not said */

	/* How much more may be asked. */
	PromRate rates[PROM_NRATES];
} PromHeaders;

extern void prom_headers_reset(PromHeaders *headers);

/* Take one line, with or without its line end; a status line starts anew. */
extern void prom_headers_line(PromHeaders *headers, const char *line,
							  size_t length);

/*
 * A delay in decimal seconds (or milliseconds, with scale 1) as milliseconds;
 * -1 if the text is anything else.  Too long ones are cut to a long one.
 */
extern int64_t prom_headers_read_delay(const char *text, int64_t scale);

/* Milliseconds the peer asked to wait, at least 0, at most a week; -1: none. */
extern int64_t prom_headers_retry_after(const PromHeaders *headers);

#endif
