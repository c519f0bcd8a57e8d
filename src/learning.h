/*
 * learning.h
 *	  A veto becomes a memory, so that the agent is told next time.
 */
#ifndef PROM_LEARNING_H
#define PROM_LEARNING_H

#include "judge.h"

/*
 * Remember a veto for the submitter and the agent, if verdict->learns and it is
 * not remembered already.  Never raises because of that: the veto stands.  In a
 * worker's transaction with SPI connected.
 */
extern void prom_learn(const PromJudged *judged, const PromVerdict *verdict);

/*
 * Remember in a subtransaction, unless its transaction has waited in vain
 * already: why that failed, or NULL.
 */
extern const char *prom_learn_try(void (*remember)(void *arg), void *arg);

#endif
