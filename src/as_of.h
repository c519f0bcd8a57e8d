/*
 * as_of.h
 *	  The setting prometheus.as_of, and for which statements it counts.
 */
#ifndef PROM_AS_OF_H
#define PROM_AS_OF_H

#include "utils/timestamp.h"

/* What was set: a moment, or the name of a mark. */
typedef struct PromAsOf
{
	TimestampTz at;
	char name[NAMEDATALEN]; /* empty: none */
	int64 mark_id;          /* of that name; 0: not looked for yet */
} PromAsOf;

extern void prom_as_of_define(void);
extern void prom_as_of_init(void);

/* What counts for the statement that runs; NULL: what is now. */
extern PromAsOf *prom_as_of(void);

/* Raise if it is set: for who writes, */
extern void prom_as_of_forbid_writing(void);

/* and for what is only now. */
extern void prom_as_of_forbid_reading(const char *what);

#endif
