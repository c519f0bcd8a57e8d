/*
 * batch.h
 *	  Memories whose embeddings are asked for together.
 */
#ifndef PROM_BATCH_H
#define PROM_BATCH_H

#include "llm.h"
#include "utils/palloc.h"
#include "utils/timestamp.h"

/* A place among the memories of an agent: behind this version. */
typedef struct PromPlace
{
	int64 memory_id;
	int64 version;
} PromPlace;

/* One that has no embedding. */
typedef struct PromBare
{
	int64 memory_id;
	char *hash;
	const char *text;
	bool is_made; /* but one of the same text is there */
} PromBare;

typedef struct PromBatch
{
	MemoryContext context; /* of what follows */
	int n;
	PromBare bare[PROM_MAX_EMBEDDED];
	PromPlace before; /* the first of them */
} PromBatch;

/*
 * Read the next ones of an agent that have none in that space, at most so many;
 * *place goes on behind the last that was looked at.  False: there are no more.
 * This and the next two in a transaction, with SPI connected.
 */
extern bool prom_batch_read(PromBatch *batch, const char *agent,
							const char *space, PromPlace *place, int most,
							TimestampTz now);

/* Write what was made before: it is asked for no more. */
extern void prom_batch_write_made(PromBatch *batch, const char *space);

/* Write what a reply says, and the request itself. */
typedef struct PromBatchCall
{
	const char *agent;
	const char *space;
	const PromModel *model;
	const PromReply *reply;
	TimestampTz sent_at;
} PromBatchCall;

extern void prom_batch_record(const PromBatch *batch,
							  const PromBatchCall *call, TimestampTz now);

/* What is asked: the texts, to be embedded. */
extern PromPrompt *prom_batch_prompt(const PromBatch *batch,
									 const PromModel *model);

/* One of n texts, which are still to be set. */
extern PromPrompt *prom_batch_new_prompt(const PromModel *model, int n);

/* Will the model not have what it was sent? */
extern bool prom_batch_is_refused(const PromReply *reply);

extern void prom_batch_clear(PromBatch *batch);

#endif
