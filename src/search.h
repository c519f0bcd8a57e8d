/*
 * search.h
 *	  Looks for a regular expression in a text, and not for long.
 */
#ifndef PROM_SEARCH_H
#define PROM_SEARCH_H

#include "postgres.h"

typedef enum PromSearch
{
	PROM_SEARCH_FOUND,
	PROM_SEARCH_NOT_FOUND,
	PROM_SEARCH_GAVE_UP /* it took too long, or failed; why is told */
} PromSearch;

/*
 * Look for it, for so many ms.  In a worker's transaction; begins and ends a
 * subtransaction.  Raises only if the process is to stop what it does.
 */
extern PromSearch prom_search(text *regex, const char *in, int timeout,
							  const char **why);

#endif
