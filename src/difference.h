/*
 * difference.h
 *	  What is in one document and not in another.
 */
#ifndef PROM_DIFFERENCE_H
#define PROM_DIFFERENCE_H

#include "utils/jsonb.h"

/*
 * {"added": {PATH: VALUE, ...}, "changed": {PATH: {"from": VALUE, "to":
 * VALUE}, ...}, "removed": {PATH: VALUE, ...}}.
 */
extern Jsonb *prom_difference(Jsonb *from, Jsonb *to);

/* Are two values the same, and neither an array nor an object? */
extern bool prom_same_scalars(const JsonbValue *a, const JsonbValue *b);

#endif
