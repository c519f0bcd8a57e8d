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
	bool once;            /* one that is there stays as it is */
} PromMemory;

/*
 * How much a memory m matters at a time, 0 to 1: an expression for statements.
 * Written OPERATOR(), all bind alike: hence the parentheses.
 */
#define PROM_MEMORY_RELEVANCE(now)                                     \
	"((0.7::pg_catalog.float8 OPERATOR(pg_catalog.*)"                  \
	" m.importance::pg_catalog.float8) OPERATOR(pg_catalog.+)"         \
	" (0.3::pg_catalog.float8 OPERATOR(pg_catalog.*)"                  \
	" pg_catalog.exp((-0.1)::pg_catalog.float8 OPERATOR(pg_catalog.*)" \
	" (pg_catalog.date_part('epoch', " now " OPERATOR(pg_catalog.-)"   \
	" m.created_at) OPERATOR(pg_catalog./)"                            \
	" 86400::pg_catalog.float8))))"

/*
 * Let nobody else write an owner's memory of that content until the end of the
 * transaction; if their number has a limit, none of that kind.
 */
extern void prom_memory_lock(const PromMemoryOwner *owner, const char *kind,
							 const char *content);

/*
 * A worker's transaction that waited in vain for who remembers the same for an
 * agent remembers nothing more: it may be the caller's, for which all wait.
 */
#define PROM_MEMORY_LOCK_TIMEOUT "100ms"

extern bool prom_memory_may_wait(void);
extern void prom_memory_failed(const ErrorData *failure);

/*
 * Store one, unless it is there; its id.  One of the same content and kind gets
 * a new version if this one is more important, has other metadata or lasts
 * longer.  What its task was told as a memory is left as it is.  As the
 * extension's owner, with SPI connected.  Raises for what cannot be.
 */
extern int64 prom_memory_add(const PromMemoryOwner *owner,
							 const PromMemory *memory);

/* What is looked for: words, an embedding, or both. */
typedef struct PromMemoryQuery
{
	const char *text;     /* may be empty */
	ArrayType *embedding; /* of real; NULL: none */
	ArrayType *kinds;     /* of text; NULL: all */
	int32 k;
} PromMemoryQuery;

/*
 * Find the k that fit best, as rows of SPI_tuptable: memory_id, kind, content,
 * importance, score, metadata, created_at.
 */
extern void prom_memory_find(const PromMemoryOwner *owner,
							 const PromMemoryQuery *query);

#endif
