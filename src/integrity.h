/*
 * integrity.h
 *	  What the principle of integrity forbids, and how that is not done.
 */
#ifndef PROM_INTEGRITY_H
#define PROM_INTEGRITY_H

#include "postgres.h"

/*
 * Is it a function that must not be called?  Some of them must not be in what
 * a model wrote, but may be in the body of a tool: is_written.
 */
extern bool prom_integrity_forbids(const char *function, bool is_written);

/* Is it a schema whose relations are not to be changed? */
extern bool prom_integrity_is_system(const char *schema);

/* Has a catalogue of this name secrets? */
extern bool prom_integrity_is_secret(const char *relation);

/* For an executor, once. */
extern void prom_integrity_init(void);

/* From now on, refuse what is executed against integrity; or do not. */
extern void prom_integrity_enforce(bool enforced);

/*
 * What was refused last since it has been enforced: a statement, relation or
 * function; NULL: nothing.
 */
extern const char *prom_integrity_refused(void);

#endif
