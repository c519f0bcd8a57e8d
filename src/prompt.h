/*
 * prompt.h
 *	  What is sent to a model: made from facts, so that it can be shown again.
 */
#ifndef PROM_PROMPT_H
#define PROM_PROMPT_H

#include "agent.h"
#include "llm.h"
#include "tool.h"
#include "utils/array.h"
#include "utils/jsonb.h"

/*
 * What the prompt of a chat step is made from, in the database's encoding.
 * What it depends on has ended, and nothing else of its conversation runs.
 */
typedef struct PromPromptSource
{
	const char *instructions; /* NULL: none */
	const char *request;
	const char *agent;
	const char *conversation; /* NULL: none */
	const char *submitter;
	Oid submitter_oid;
	ArrayType *depends_on; /* of bigint; NULL: nothing */
	Jsonb *output_schema;  /* NULL: any answer will do */

	/* What the task has said and done before this step. */
	int64 task_id;
	int32 step; /* 1: nothing */

	/* Older turns of its conversation are summed up. */
	bool summarises;

	/* It is in full mode: what it has recalled and planned is told. */
	bool is_full;

	/* Tokens of messages that will be put behind the prompt. */
	int64 more;

	/* The tools that are offered, as pinned for the attempt. */
	const PromTool **tools;
	int ntools;

	/* The step's call, or itself: what has a later id was not there yet. */
	int64 before;
} PromPromptSource;

/*
 * Read conversation, submitter, submitter_oid and depends_on, which are columns
 * of SPI_tuptable in this order, the first as numbered.
 */
extern void prom_prompt_read_source(uint64 row, int column,
									PromPromptSource *source);

/*
 * The prompt, in the current memory context.  With SPI connected; reads
 * history and results, if there are any, by the active snapshot.
 */
extern PromPrompt *prom_prompt_make(const PromPromptSource *source,
									const PromModel *model);

/*
 * The tools of an agent by their pinned versions, which may be NULL; read()
 * finds one.
 */
extern void prom_prompt_set_tools(PromPromptSource *source,
								  const PromAgent *agent, ArrayType *versions,
								  const PromTool *(*read)(const char *name,
														  int64 version));

/* Bytes of its texts. */
extern size_t prom_prompt_bytes(const PromPrompt *prompt);

/* About how many tokens it has; and one message of so many bytes. */
extern int64 prom_prompt_tokens(const PromPrompt *prompt);
extern int64 prom_prompt_estimate(int64 bytes);

/* How many its answer may have, as far as is known before it is asked. */
extern int64 prom_prompt_reply_tokens(const PromModel *model);

/* The other way round: bytes of so many tokens. */
extern int64 prom_prompt_bytes_of(int64 tokens);

/*
 * What an attempt's step is to be made from, by the facts: the source, its
 * model and its agent.  Raises undefined_object if there is no such attempt.
 * With SPI connected and a snapshot.
 */
typedef struct PromPromptFacts
{
	PromPromptSource source;
	const PromModel *model;
	const PromAgent *agent;
	const char *mode;
} PromPromptFacts;

extern void prom_prompt_read_facts(int64 task_id, int32 attempt,
								   PromPromptFacts *facts);

#endif
