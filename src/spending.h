/*
 * spending.h
 *	  What calls of models use up of the budgets.
 *
 * The caller has every call of a database sent, so it alone decides: what a
 * call may need is reserved in its memory, and counts from the commit of the
 * turn that writes the call.
 */
#ifndef PROM_SPENDING_H
#define PROM_SPENDING_H

#include "load.h"
#include "utils/numeric.h"

typedef struct PromAmount
{
	int64 tokens;
	Numeric cost; /* NULL: none */
} PromAmount;

/*
 * Begin a turn, in its transaction and before anything is written in it:
 * reads budgets that were set, or refilled, since.  And end it, after its
 * transaction: what was reserved and settled in it counts now, or never did.
 */
extern void prom_spending_begin(TimestampTz now);
extern void prom_spending_end(bool committed);

/*
 * Reserve what a call or turn of a model may need, with so many tokens in its
 * prompt, at attempt->sent_at.  NULL, or which budget it does not fit into, and
 * why; then nothing is reserved.  An attempt has one at a time.
 */
extern const char *prom_spending_reserve(PromAttempt *attempt,
										 const PromModel *model,
										 const PromLoaded *loaded,
										 int64 tokens_in);

/* What is reserved for it. */
extern const PromAmount *prom_spending_reserved(const PromAttempt *attempt);

/* Charge what a reply, whose step was just added, says. */
extern void prom_spending_settle(PromAttempt *attempt, const PromModel *model,
								 const PromReply *reply);

/* The same of a turn of a function, if one was under way, by its step. */
extern void prom_spending_settle_turn(PromAttempt *attempt);

/* The attempt is given back: a call that has no reply is charged in full. */
extern void prom_spending_leave(PromAttempt *attempt);

#endif
