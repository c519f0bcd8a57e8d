/*
 * pace.c
 *	  Keeps requests to a model within its rates, before they are refused.
 *
 * Two things limit them.  The model's options: a bucket that holds what may be
 * used in a minute and is filled evenly, so that after a rest a minute's worth
 * may go at once.  And what the provider said in the headers of its replies:
 * so much is left until a moment.  What it has not said anything of yet is
 * taken off, since it may not have counted it.
 *
 * A request that does not fit has the others wait with it, else smaller ones
 * would go before it for ever; and one that needs more than there can be goes
 * when all there can be is there.
 */
#include "postgres.h"

#include <math.h>

#include "pace.h"

#define MINUTE (60 * USECS_PER_SEC)

/* More than this of a bucket or of what is left is no limit. */
#define MOST_AT_ONCE PG_UINT32_MAX


PromNeed
prom_pace_need(int64 tokens_in, int64 tokens_out)
{
	PromNeed need = {{
		[PROM_RATE_REQUESTS] = 1,
		[PROM_RATE_TOKENS] = tokens_in + tokens_out,
		[PROM_RATE_TOKENS_IN] = tokens_in,
		[PROM_RATE_TOKENS_OUT] = tokens_out,
	}};

	return need;
}

static void
fill(PromBucket *bucket, int64 us)
{
	double most = bucket->per_minute;

	bucket->level = Min(bucket->level + most * us / MINUTE, most);
}

/*
 * Let time pass: buckets fill, and what was said may be over.  The moment that
 * it is then, which is never before the last one: a turn has one moment, and
 * libcurl a later one.
 */
static TimestampTz
advance(PromPace *pace, TimestampTz now)
{
	if (now < pace->filled_at - MINUTE)
	{
		pace->filled_at = now; /* a clock went back */
		prom_pace_forget(pace);
	}
	if (now > pace->filled_at)
	{
		fill(&pace->requests, now - pace->filled_at);
		fill(&pace->tokens, now - pace->filled_at);
		pace->filled_at = now;
	}
	now = pace->filled_at;
	for (int i = 0; i < PROM_NRATES; i++)
	{
		PromAllowance *one = &pace->allowances[i];

		if (one->resets == 0 || one->resets > now)
			continue;
		/* The next while is like this one, until a reply says how it is. */
		one->resets = one->limit > 0 ? now + MINUTE : 0;
		one->left = one->limit - pace->unheard.of[i];
	}
	return now;
}

static bool
set_limit(PromBucket *bucket, int64 per_minute)
{
	bool is_new = bucket->per_minute == 0 && per_minute > 0;

	bucket->level = is_new ? (double) per_minute
						   : Min(bucket->level, (double) per_minute);
	bucket->per_minute = per_minute;
	return is_new;
}

bool
prom_pace_set_limits(PromPace *pace, int64 requests, int64 tokens,
					 TimestampTz now)
{
	bool is_new;

	(void) advance(pace, now);
	is_new = set_limit(&pace->requests, requests);
	return set_limit(&pace->tokens, tokens) || is_new;
}

void
prom_pace_used_before(PromPace *pace, int64 requests, int64 tokens)
{
	pace->requests.level = Min(pace->requests.level,
							   (double) pace->requests.per_minute - requests);
	pace->tokens.level = Min(pace->tokens.level,
							 (double) pace->tokens.per_minute - tokens);
}

/* When a bucket has so much. */
static TimestampTz
filled_with(const PromBucket *bucket, int64 need, TimestampTz now)
{
	double lacks = Min(need, bucket->per_minute) - bucket->level;

	if (bucket->per_minute == 0 || lacks < 1e-9)
		return now;
	return now + (TimestampTz) ceil(lacks * MINUTE / bucket->per_minute);
}

static TimestampTz
allowed_at(const PromAllowance *one, int64 need, TimestampTz now)
{
	if (one->limit > 0)
		need = Min(need, one->limit);
	return one->resets != 0 && one->left < need ? one->resets : now;
}

/* When a request that needs this may go. */
static TimestampTz
moment_of(const PromPace *pace, const PromNeed *need, TimestampTz now)
{
	TimestampTz moment =
		Max(filled_with(&pace->requests, need->of[PROM_RATE_REQUESTS], now),
			filled_with(&pace->tokens, need->of[PROM_RATE_TOKENS], now));

	for (int i = 0; i < PROM_NRATES; i++)
		moment = Max(moment,
					 allowed_at(&pace->allowances[i], need->of[i], now));
	return moment;
}

bool
prom_pace_fits(PromPace *pace, const PromNeed *need, TimestampTz now)
{
	now = advance(pace, now);
	pace->last = *need;
	pace->waits = moment_of(pace, need, now) > now;
	return !pace->waits;
}

/* Take off what a request needs, or give it back. */
static void
change(PromPace *pace, const PromNeed *need, int sign)
{
	pace->requests.level -= sign * need->of[PROM_RATE_REQUESTS];
	pace->tokens.level -= sign * need->of[PROM_RATE_TOKENS];
	for (int i = 0; i < PROM_NRATES; i++)
	{
		pace->allowances[i].left -= sign * need->of[i];
		pace->unheard.of[i] += sign * need->of[i];
	}
}

void
prom_pace_take(PromPace *pace, const PromNeed *need, TimestampTz now)
{
	(void) advance(pace, now);
	pace->last = *need;
	pace->waits = false;
	change(pace, need, 1);
}

void
prom_pace_give_back(PromPace *pace, const PromNeed *need)
{
	change(pace, need, -1);
	fill(&pace->requests, 0);
	fill(&pace->tokens, 0);
}

void
prom_pace_hear(PromPace *pace, const PromNeed *need, const PromRate *rates,
			   int64 date, TimestampTz now)
{
	now = advance(pace, now);
	for (int i = 0; i < PROM_NRATES; i++)
	{
		PromAllowance *one = &pace->allowances[i];
		int64 reset_in;

		pace->unheard.of[i] -= need->of[i];
		if (rates == NULL || rates[i].remaining < 0)
			continue;
		reset_in = prom_rate_reset_in(&rates[i], date);
		one->limit = rates[i].limit;
		one->left = rates[i].remaining - pace->unheard.of[i];
		one->resets = reset_in <= 0 ? 0 : now + reset_in * 1000;
	}
}

void
prom_pace_correct(PromPace *pace, const PromNeed *need, int64 tokens)
{
	pace->tokens.level += need->of[PROM_RATE_TOKENS] - tokens;
	fill(&pace->tokens, 0);
}

void
prom_pace_forget(PromPace *pace)
{
	pace->waits = false;
	for (int i = 0; i < PROM_NRATES; i++)
		pace->allowances[i].resets = 0;
}

/* How many requests like the last one have enough there. */
static uint32
count(double there, int64 need)
{
	double n = there / Max(need, 1);

	return n < 1 ? 1 : n < MOST_AT_ONCE ? (uint32) n
										: MOST_AT_ONCE;
}

TimestampTz
prom_pace_held(PromPace *pace, TimestampTz now, uint32 *allows)
{
	PromNeed least = {{1, 1, 1, 1}};
	TimestampTz moment;

	now = advance(pace, now);
	moment = moment_of(pace, pace->waits ? &pace->last : &least, now);
	*allows = 1;
	if (moment > now)
		return moment;
	*allows = MOST_AT_ONCE;
	if (pace->requests.per_minute > 0)
		*allows = count(pace->requests.level, 1);
	if (pace->tokens.per_minute > 0)
		*allows = Min(*allows, count(pace->tokens.level,
									 pace->last.of[PROM_RATE_TOKENS]));
	for (int i = 0; i < PROM_NRATES; i++)
		if (pace->allowances[i].resets != 0)
			*allows = Min(*allows, count(pace->allowances[i].left,
										 pace->last.of[i]));
	return 0;
}
