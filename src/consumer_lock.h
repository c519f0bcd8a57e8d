/*
 * consumer_lock.h
 *	  The lock of a consumer's name: who uses it comes after who used it before.
 */
#ifndef PROM_CONSUMER_LOCK_H
#define PROM_CONSUMER_LOCK_H

extern void prom_consumer_lock_init(void);

/* To the end of the transaction; others wait here until then. */
extern void prom_consumer_lock(const char *name);

/*
 * For the publisher, which waits for nobody: take it if it is free.  If it is
 * not, the publisher is woken when somebody lets go of one, and then
 * prom_consumer_lock_freed() says so, once.
 */
extern bool prom_consumer_lock_try(const char *name);
extern bool prom_consumer_lock_freed(void);

/* Has somebody let go of one, and prom_consumer_lock_freed() not said so? */
extern bool prom_consumer_lock_is_freed(void);

#endif
