/*
 * conversation.h
 *	  The turns of a conversation before a task, and what older ones were
 *	  summed up to.
 */
#ifndef PROM_CONVERSATION_H
#define PROM_CONVERSATION_H

#include "prompt.h"

/*
 * The newest summary before source->before, as a message for that model, and
 * the id of the last outcome that it has; NULL and 0: there is none.
 */
extern const char *prom_conversation_summary(const PromPromptSource *source,
											 const PromModel *model,
											 int64 *until);

/*
 * Read the turns between these ids, the newest first, as rows of SPI_tuptable:
 * request, answer, the id of the outcome.
 */
extern void prom_conversation_read(const PromPromptSource *source, int64 until);

/* How many of them, the newest, fit into so many tokens. */
extern int prom_conversation_count(int64 room);

/*
 * What a model is asked to sum up: the oldest turns, but none of the newest,
 * with the summary that there is; the prompt's until is the last of them.
 * NULL: there is nothing that could be.
 */
extern PromPrompt *prom_conversation_fold(const PromPromptSource *source,
										  const PromModel *model);

#endif
