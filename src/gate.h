/*
 * gate.h
 *	  What may close the way to all tasks, to an agent's, to a model, or to a
 *	  subscription.
 */
#ifndef PROM_GATE_H
#define PROM_GATE_H

#include "llm.h"
#include "shmem.h"

/* The gates of a database that is not served yet: only that of all. */
extern void prom_gate_reset(PromDatabase *db);

/* The gate of a target, by hash or by name; NULL: there is none. */
extern PromGate *prom_gate_by_hash(PromDatabase *db, PromGateKind kind,
								   uint32 hash);
extern PromGate *prom_gate_find(PromDatabase *db, PromGateKind kind,
								const char *name);

/*
 * The same, made if need be; NULL: there are PROM_MAX_GATES.  That of a
 * subscription is made by the caller only, which then says whether it is paused
 * (0: it is not) until the scheduler has read that, and gives it back when
 * nothing is under way through it.
 */
extern PromGate *prom_gate_make(PromDatabase *db, PromGateKind kind,
								const char *name);
extern void prom_gate_set_paused(PromGate *gate, TimestampTz paused_at);
extern void prom_gate_give_back(PromDatabase *db, PromGate *gate);

/* "all", "agent:NAME" and such, palloc'd. */
extern char *prom_gate_target(const PromGate *gate);

/* Is everything paused, or this agent? */
extern bool prom_gate_is_paused(PromDatabase *db, PromGateKind kind,
								uint32 hash);

/*
 * How many more may go through a gate now, when so many are on their way to
 * it; its fallbacks do not count.
 */
extern uint32 prom_gate_room(const PromGate *gate, uint32 on_their_way,
							 TimestampTz now);

/* Are options of it or of its fallbacks to be read anew? */
extern bool prom_gate_is_asked(PromDatabase *db, const PromGate *gate);

/* Is there room in it or, when it is closed, in one of its fallbacks? */
extern bool prom_gate_admits(PromDatabase *db, const PromGate *gate,
							 uint32 on_their_way, TimestampTz now);

/* Changes of it and of its fallbacks; another number: look again. */
extern uint32 prom_gate_changes(PromDatabase *db, const PromGate *gate);

/* Not paused, and neither closed nor held at that moment. */
extern bool prom_gate_is_open(const PromGate *gate, TimestampTz now);

/* It is only held, so that more than its rate does not go through. */
extern bool prom_gate_is_held(const PromGate *gate, TimestampTz now);

/* Since when it has not let tasks through as it may; DT_NOEND: it does. */
extern TimestampTz prom_gate_closed_since(const PromGate *gate,
										  TimestampTz now);

/* When it opens by itself; 0: it is open, or paused. */
extern TimestampTz prom_gate_opens_at(const PromGate *gate);

/* When it or the first of its fallbacks does, after now, or DT_NOEND. */
extern TimestampTz prom_gate_opens_next(PromDatabase *db, const PromGate *gate,
										TimestampTz now);

/* A new caller: the calls of the one before it ended with it. */
extern void prom_gate_forget_calls(PromDatabase *db);

/*
 * Of the caller: have gates closed or opened?  Write that as events, in a
 * transaction; after its commit they are told.
 */
extern bool prom_gate_has_news(void);
extern void prom_gate_write_news(PromDatabase *db);
extern void prom_gate_told_news(PromDatabase *db);

/*
 * What the caller tells: a model's options, in the newest version after it was
 * asked so often (true: it has a rate that it had not, so what was used of that
 * before is to be told); a call that begins and ends.
 */
extern bool prom_gate_set_options(PromDatabase *db, PromGate *gate,
								  const PromModel *model, uint32 asked,
								  TimestampTz now);
extern void prom_gate_used_before(PromDatabase *db, PromGate *gate,
								  int64 requests, int64 tokens,
								  TimestampTz now);
extern uint32 prom_gate_began(PromGate *gate);
extern void prom_gate_dropped(PromGate *gate);
extern void prom_gate_ended(PromDatabase *db, PromGate *gate,
							uint32 generation, const PromReply *reply,
							TimestampTz now);

/*
 * May a call that needs this go, by the gate's rate?  Then it is counted, until
 * it is taken back because it was not sent.  Of one that was, the headers of
 * its reply are heard, or (NULL) that none will come, and then what it used.
 */
extern bool prom_gate_fits(PromDatabase *db, PromGate *gate,
						   const PromNeed *need, TimestampTz now);
extern void prom_gate_unfit(PromDatabase *db, PromGate *gate,
							const PromNeed *need, TimestampTz now);
extern void prom_gate_heard(PromDatabase *db, PromGate *gate,
							const PromNeed *need, const PromHeaders *headers,
							TimestampTz now);
extern void prom_gate_used(PromDatabase *db, PromGate *gate,
						   const PromNeed *need, int64 tokens,
						   TimestampTz now);

/* What a delivery to a subscription says of whom it went to. */
typedef enum PromGateWord
{
	PROM_GATE_GOOD,
	PROM_GATE_REFUSED, /* not this one, but there is somebody */
	PROM_GATE_BAD,     /* one of those in a row that close it */
	PROM_GATE_LATER,   /* it asked to wait */
	PROM_GATE_SILENT   /* it says nothing */
} PromGateWord;

/* The same as the first two of these for a subscription. */
extern void prom_gate_set_limits(PromDatabase *db, PromGate *gate,
								 uint32 max_concurrent, int breaker_failures);
extern void prom_gate_delivered(PromDatabase *db, PromGate *gate,
								uint32 generation, PromGateWord word,
								int64 retry_after, TimestampTz now);

/* A person says that it is to open now, or gave its model other options. */
extern void prom_gate_open(PromGate *gate);

/* That may have been said of any of them. */
extern void prom_gate_ask_all(PromDatabase *db);

#endif
