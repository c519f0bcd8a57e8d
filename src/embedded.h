/*
 * embedded.h
 *	  Embeddings that the models of agents have made, and what they are of.
 *
 * Those of one space can be compared with each other.  A space is the
 * provider's name of a model and what its extra_body adds, such as dimensions:
 * whatever else of the model is set, they stay what they are.
 */
#ifndef PROM_EMBEDDED_H
#define PROM_EMBEDDED_H

#include "utils/array.h"

#include "model.h"

/*
 * Characters of a text that are embedded, so that nearly every model takes
 * them; a literal of SQL too.
 */
#define PROM_EMBEDDED_CHARACTERS 6000

/*
 * As expressions for statements: what of a text is embedded, and its hash.  The
 * owner is in it, so that nobody can find out what others have remembered or
 * asked.
 */
#define PROM_EMBEDDED_TEXT(text) \
	"pg_catalog.left(" text ", " CppAsString2(PROM_EMBEDDED_CHARACTERS) ")"
#define PROM_EMBEDDED_HASH(space, owner, text)                       \
	"prometheus._hash('embedding', " space                           \
	" OPERATOR(pg_catalog.||) ' of ' OPERATOR(pg_catalog.||) " owner \
	", " PROM_EMBEDDED_TEXT(text) ")"

/* The space of a model m. */
#define PROM_EMBEDDED_SPACE                                              \
	"coalesce(m.model, m.name) OPERATOR(pg_catalog.||)"                  \
	" coalesce(' ' OPERATOR(pg_catalog.||)"                              \
	" (m.options OPERATOR(pg_catalog.->) 'extra_body')::pg_catalog.text" \
	", '')"

/* What is known of a text that an agent looks for, for an owner. */
typedef struct PromEmbedded
{
	const char *model; /* the agent's embedding_model */
	const char *space;
	const char *hash;     /* of the text */
	const char *text;     /* what of it is embedded */
	ArrayType *embedding; /* NULL: it is not made yet */
} PromEmbedded;

/*
 * Read it; false: the agent has no such model, or there is none of its name.
 * As the extension's owner, with SPI connected.
 */
extern bool prom_embedded_read(const char *agent, const char *owner,
							   const char *text, PromEmbedded *embedded);

/* The space of a version of a model. */
extern char *prom_embedded_space(const PromModel *model);

/* One of the vectors that a reply has, as an array of real. */
extern ArrayType *prom_embedded_array(const float *vector, int dimensions);

/* Keep what was made of a text, unless that is there. */
extern void prom_embedded_add(const char *space, const char *hash,
							  ArrayType *embedding);

/*
 * A memory, if it is still remembered, has the embedding of that hash; or never
 * will have one, for this reason, which is NULL in the first case.
 */
extern void prom_embedded_add_memory(int64 memory_id, const char *space,
									 const char *hash, const char *error);

/*
 * A memory has another kind now, in a version of this transaction: it keeps
 * what it has.
 */
extern void prom_embedded_move(int64 memory_id);

#endif
