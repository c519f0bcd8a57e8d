/*
 * vocabulary.h
 *	  What the body of a function may use that a model wrote.
 */
#ifndef PROM_VOCABULARY_H
#define PROM_VOCABULARY_H

#include "nodes/pg_list.h"

/* What is allowed beyond what always is. */
typedef struct PromVocabulary
{
	List *relations;      /* their oids */
	bool allows_volatile; /* the functions, that is */
} PromVocabulary;

/* May a function of this name be called, or a type's that is written as one? */
extern bool prom_vocabulary_has_name(const char *name);

/* May a value be of this type, or of arrays of it? */
extern bool prom_vocabulary_has_type(Oid type);

/*
 * Raise for the first thing in a body, parsed and analyzed, that is not
 * allowed; the message says which: "forbidden function: pg_read_file".
 */
extern void prom_vocabulary_check(const PromVocabulary *vocabulary,
								  List *queries);

/* Raise so. */
extern void prom_vocabulary_forbid(const char *kind, const char *what);

/*
 * Raises unless no column of the relation has a type that others gave code of
 * their own to.  A text that is compared with such a column is converted when a
 * body is analyzed, which is before prom_vocabulary_check() can forbid it.
 */
extern void prom_vocabulary_check_columns(Oid relation);

#endif
