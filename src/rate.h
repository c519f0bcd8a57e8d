/*
 * rate.h
 *	  What a provider says of its rate limits, in the headers of its replies.
 *
 * Plain C without PostgreSQL; nothing is allocated.
 */
#ifndef PROM_RATE_H
#define PROM_RATE_H

#include <stdbool.h>
#include <stdint.h>

/* What is limited. */
typedef enum PromRateKind
{
	PROM_RATE_REQUESTS,
	PROM_RATE_TOKENS,     /* of prompts and answers together */
	PROM_RATE_TOKENS_IN,  /* of prompts */
	PROM_RATE_TOKENS_OUT, /* of answers */
	PROM_NRATES
} PromRateKind;

typedef struct PromRate
{
	int64_t limit;     /* in a while of the provider's; -1: not said */
	int64_t remaining; /* of it; -1: not said */
	int64_t reset_ms;  /* until it is whole again, as a delay; -1: not so */
	int64_t reset_at;  /* the same as a date, ms of the epoch; -1: not so */
} PromRate;

extern void prom_rates_reset(PromRate *rates);

/* Take a header; false: it is about something else. */
extern bool prom_rates_header(PromRate *rates, const char *name,
							  const char *value);

/*
 * A duration such as "6m0s", "1.5s" or "20ms", or a number of seconds, as
 * milliseconds, rounded up; -1 if the text is anything else, or too long.
 */
extern int64_t prom_rate_read_duration(const char *text);

/* The milliseconds of the epoch that a date of RFC 3339 means, or -1. */
extern int64_t prom_rate_read_date(const char *text);

/*
 * Milliseconds until it is whole again, when the peer's clock (or ours) is at
 * that second of the epoch; -1: nothing that can be believed was said.
 */
extern int64_t prom_rate_reset_in(const PromRate *rate, int64_t date);

#endif
