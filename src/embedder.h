/*
 * embedder.h
 *	  The caller's part in embeddings: memories that came without get one.
 */
#ifndef PROM_EMBEDDER_H
#define PROM_EMBEDDER_H

#include "datatype/timestamp.h"

#include "http.h"

/* For a new caller. */
extern void prom_embedder_begin(void);

/*
 * Record what has been answered, read what is without an embedding, and have it
 * made.  In no transaction.
 */
extern void prom_embedder_drive(PromHttp *http, TimestampTz now);

/* When to drive again without being woken; DT_NOEND: never. */
extern TimestampTz prom_embedder_next_moment(void);

/* Requests on the network. */
extern int prom_embedder_in_flight(void);

#endif
