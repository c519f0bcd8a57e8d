/*
 * pace.h
 *	  How fast requests may go to a model, and how many now.
 *
 * Numbers only: nothing is locked and nothing raised, so that it can be told
 * inside libcurl what a provider says.
 */
#ifndef PROM_PACE_H
#define PROM_PACE_H

#include "datatype/timestamp.h"
#include "rate.h"

/* What a request needs of each kind, by an estimate or as it was. */
typedef struct PromNeed
{
	int64 of[PROM_NRATES];
} PromNeed;

/* What a model's options allow: so much in a minute, and at once. */
typedef struct PromBucket
{
	int64 per_minute; /* 0: no limit */
	double level;     /* below 0 when more was used than there was */
} PromBucket;

/* What its provider said last. */
typedef struct PromAllowance
{
	int64 limit;        /* -1: not said */
	int64 left;         /* but for what is unheard */
	TimestampTz resets; /* it is whole again; 0: nothing is known */
} PromAllowance;

typedef struct PromPace
{
	PromBucket requests;
	PromBucket tokens;
	TimestampTz filled_at; /* they were */
	PromAllowance allowances[PROM_NRATES];
	PromNeed unheard; /* of requests to which no header came yet */
	PromNeed last;    /* of the last one that asked, */
	bool waits;       /* and may not go yet */
} PromPace;

/* The need of one request with so many tokens. */
extern PromNeed prom_pace_need(int64 tokens_in, int64 tokens_out);

/*
 * Set the limits of its options, 0 is none.  True: one is new; its bucket is
 * full, and may be told what was used before.
 */
extern bool prom_pace_set_limits(PromPace *pace, int64 requests, int64 tokens,
								 TimestampTz now);
extern void prom_pace_used_before(PromPace *pace, int64 requests,
								  int64 tokens);

/* May a request that needs this go now?  If not, others wait with it. */
extern bool prom_pace_fits(PromPace *pace, const PromNeed *need,
						   TimestampTz now);

/*
 * It goes; it does not, after all; headers of its reply came, or (NULL) none
 * will; and what it has used turned out.
 */
extern void prom_pace_take(PromPace *pace, const PromNeed *need,
						   TimestampTz now);
extern void prom_pace_give_back(PromPace *pace, const PromNeed *need);
extern void prom_pace_hear(PromPace *pace, const PromNeed *need,
						   const PromRate *rates, int64 date, TimestampTz now);
extern void prom_pace_correct(PromPace *pace, const PromNeed *need,
							  int64 tokens);

/* What the provider said is not to count any more. */
extern void prom_pace_forget(PromPace *pace);

/*
 * The moment before which no request may go; 0: one may.  And how many may go
 * at once, then.
 */
extern TimestampTz prom_pace_held(PromPace *pace, TimestampTz now,
								  uint32 *allows);

#endif
