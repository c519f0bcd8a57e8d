/*
 * delta.h
 *	  A message that arrives in pieces, put together without loss.
 *
 * Plain C without PostgreSQL; memory is from malloc.
 */
#ifndef PROM_DELTA_H
#define PROM_DELTA_H

#include "text.h"

typedef struct PromDelta PromDelta;

typedef enum PromDeltaState
{
	PROM_DELTA_OK,
	PROM_DELTA_TOO_MUCH, /* more members, elements or parts than is sane */
	PROM_DELTA_NO_MEMORY
} PromDeltaState;

extern PromDelta *prom_delta_create(void);
extern void prom_delta_free(PromDelta *delta);

/* Add a piece, a JSON object known to be valid. */
extern PromDeltaState prom_delta_merge(PromDelta *delta, PromSlice piece);

/* Was anything added? */
extern bool prom_delta_is_empty(const PromDelta *delta);

/* Bytes held. */
extern size_t prom_delta_memory(const PromDelta *delta);

/* The whole as a JSON object, from malloc; NULL if memory is missing. */
extern char *prom_delta_text(PromDelta *delta, size_t *length);

/* The same as a message of chat completions, which has a role, at least. */
extern char *prom_delta_message(PromDelta *delta, size_t *length);

#endif
