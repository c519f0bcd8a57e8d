/*
 * memory.h
 *	  What agents remember.
 */
#ifndef PROM_MEMORY_H
#define PROM_MEMORY_H

#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

/* Whose memory it is: a role, whose name and oid must agree, and an agent. */
typedef struct PromMemoryOwner
{
	const char *name;
	Oid oid;
	const char *agent;
} PromMemoryOwner;

typedef struct PromMemory
{
	const char *content;
	const char *kind;
	float4 importance;
	Jsonb *metadata;      /* NULL: {} */
	ArrayType *embedding; /* of real; NULL: none */
	Interval *ttl;        /* NULL: the kind's */
	int64 task_id;        /* whose tool stores it; 0: none */
} PromMemory;

/*
 * Store one; its id.  As the extension's owner, with SPI connected.  Raises for
 * what cannot be.
 */
extern int64 prom_memory_add(const PromMemoryOwner *owner,
							 const PromMemory *memory);

/*
 * Find the k that fit best, as rows of SPI_tuptable: memory_id, kind, content,
 * importance, score, metadata, created_at.  kinds may be NULL.
 */
extern void prom_memory_find(const PromMemoryOwner *owner, const char *query,
							 ArrayType *kinds, int32 k);

#endif
