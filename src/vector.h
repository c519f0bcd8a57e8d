/*
 * vector.h
 *	  An index of pgvector for the embeddings of an agent's memories of a kind.
 */
#ifndef PROM_VECTOR_H
#define PROM_VECTOR_H

#include "memory.h"

/* Whose index: of an owner and agent, a kind, and a length of embeddings. */
typedef struct PromVectorKey
{
	const PromMemoryOwner *owner;
	const char *kind;
	int dimensions;
} PromVectorKey;

/*
 * Find so many memories that are near an embedding, and fit now, by the index
 * of the key: rows of SPI_tuptable with memory_id, version and cosine, in about
 * that order.  fits: a condition on m, with $2 the owner's oid and $5 now.
 * False, and no rows: there is no index, or it has not found so many.  As the
 * extension's owner.
 */
extern bool prom_vector_find(const PromVectorKey *key, ArrayType *embedding,
							 const char *fits, Datum now, int limit);

#endif
