/*
 * reuse.h
 *	  Replies of models that are used again for equal requests.
 */
#ifndef PROM_REUSE_H
#define PROM_REUSE_H

#include "load.h"

typedef enum PromReuse
{
	PROM_REUSE_NONE,  /* the request is to be sent */
	PROM_REUSE_FOUND, /* this is its reply */
	PROM_REUSE_WAIT   /* an equal one is under way: wait for its end */
} PromReuse;

/*
 * Does its model keep replies, and has a request of the same role that is equal
 * to the attempt's had one?  Else it leads: other equal ones wait for its end.
 * In a transaction with SPI connected; what reply has lives as long as its
 * memory context.
 */
extern PromReuse prom_reuse_look(PromAttempt *attempt,
								 const PromLoaded *loaded, PromReply *reply,
								 TimestampTz now);

/* Its request is not under way any more. */
extern void prom_reuse_leave(PromAttempt *attempt);

/* Has one that led left since this was asked last? */
extern bool prom_reuse_has_left(void);

/* Is a request under way that is equal to this one's, which was looked for? */
extern bool prom_reuse_is_led(const PromAttempt *attempt);

#endif
