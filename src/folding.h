/*
 * folding.h
 *	  Texts as runs of letters without accents.
 */
#ifndef PROM_FOLDING_H
#define PROM_FOLDING_H

#include "nodes/pg_list.h"

/* Bytes of a text whose words count. */
#define PROM_FOLDING_MAX_TEXT 100000

/* Bytes of a word that count. */
#define PROM_FOLDING_MAX_WORD 200

typedef struct PromWord
{
	const char *text;
	int nchars;
	bool is_sign; /* one of a script that puts no blanks between words */
} PromWord;

/* What words are for: of scripts without blanks more are stored than sought. */
typedef enum PromFoldingUse
{
	PROM_FOLDING_STORE,
	PROM_FOLDING_SEEK
} PromFoldingUse;

/* What counts of a text, a copy. */
extern char *prom_folding_beginning(const char *text);

/* The words of a text, in its order, as a list of PromWord. */
extern List *prom_folding_words(const char *text, PromFoldingUse use);

/* A word without accents, capitals as they are; a copy. */
extern char *prom_folding_of(const char *word);

/* With each letter and its accents as one character, if there is one. */
extern const char *prom_folding_compose(const char *text);

/* The words of a text as it writes them, but for signs. */
extern List *prom_folding_split(const char *text);

#endif
