/*
 * justica.h
 *	  The constitution: rules about what is to be done, not about words.
 */
#ifndef PROM_JUSTICA_H
#define PROM_JUSTICA_H

#include "judge.h"

/* The policy by which vetoes are remembered: as long as it is not off. */
#define PROM_JUSTICA_LEARNING "justica.learning"

/* Raise unless there is a principle of this name. */
extern void prom_justica_check(const char *principle);

/*
 * Is the principle broken?  Then detail says by what, or is NULL.  In a
 * transaction; may begin and end a subtransaction.
 */
extern bool prom_justica_is_broken(const char *principle,
								   const PromJudged *judged,
								   const char **detail);

#endif
