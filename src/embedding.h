/*
 * embedding.h
 *	  Vectors that say what a text is about.
 */
#ifndef PROM_EMBEDDING_H
#define PROM_EMBEDDING_H

#include "utils/array.h"

#include "model.h"

/* Raise unless it can be compared with others. */
extern void prom_embedding_check(ArrayType *embedding);

/* The sketch of one that can be. */
extern bytea *prom_embedding_sketch(const ArrayType *embedding);

#endif
