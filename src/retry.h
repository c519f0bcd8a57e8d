/*
 * retry.h
 *	  What becomes of a call that failed: the retry classes of provider APIs.
 */
#ifndef PROM_RETRY_H
#define PROM_RETRY_H

#include "llm.h"

/* What is known of a failure. */
typedef struct PromFailure
{
	PromHttpEnd end;  /* how the request ended */
	int status;       /* of HTTP; 0: no response */
	bool is_inner;    /* an error was found in a good response */
	const char *code; /* the provider's words for it, or NULL */
	const char *type;
	int should_retry; /* x-should-retry: 1, 0, -1 not said */
	bool begun;       /* a byte of a response came */
} PromFailure;

typedef struct PromRetryClass
{
	const char *error_type;
	PromRetry retry;
	bool counts_for_breaker;
} PromRetryClass;

extern PromRetryClass prom_retry_classify(const PromFailure *failure);

/* What happened, in words, if a request ended so without a response. */
extern const char *prom_retry_text(PromHttpEnd end);

#endif
