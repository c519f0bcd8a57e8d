/*
 * words.h
 *	  The words by which a memory is found.
 */
#ifndef PROM_WORDS_H
#define PROM_WORDS_H

#include "memory.h"

/* Words of a query that count: the longest, which tell most. */
#define PROM_MAX_WORDS 32

/*
 * A query's words, each as a tsquery: as the words of a memory are, as
 * the index has them, and both as beginnings of words.
 */
typedef struct PromWords
{
	int n;
	Datum plain[PROM_MAX_WORDS];
	Datum scoped[PROM_MAX_WORDS];
	Datum plain_prefix[PROM_MAX_WORDS];
	Datum scoped_prefix[PROM_MAX_WORDS];
} PromWords;

/* Read them.  As the extension's owner, with SPI connected. */
extern void prom_words_of_query(const PromMemoryOwner *owner, const char *query,
								PromWords *words);

#endif
