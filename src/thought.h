/*
 * thought.h
 *	  What a task asks its model beside its turns: to sum up what was said
 *	  before; in full mode for a plan, and to look back at its answer.
 */
#ifndef PROM_THOUGHT_H
#define PROM_THOUGHT_H

#include "attempt.h"
#include "prompt.h"

/* The kind of its step and of its call: "recall", "plan", "reflect" or "embed". */
extern const char *prom_thought_name(PromThought thought);

/*
 * What the model is asked: the prompt of the turn that source describes, and a
 * question after it.  As prom_prompt_make(); of a reflection the answer that it
 * is about is the last turn before source->step.  NULL: the turns that were to
 * be summed up are gone, and PROM_THOUGHT_GONE says so.
 */
#define PROM_THOUGHT_GONE "the turns that it sums up are not kept any more"
extern PromPrompt *prom_thought_prompt(PromThought thought,
									   const PromPromptSource *source,
									   const PromModel *model);

/*
 * Caller: record the call of one that has ended, and what the task does next.
 */
extern void prom_thought_record(PromFactWriter *writer, PromAttempt *attempt,
								PromReply *reply, TimestampTz now);

/* Executor: the same of a model that is a function. */
extern void prom_act_think(PromJob *job);

/* Of a summary or a reflection that cannot be: its step. */
extern void prom_thought_fail(PromFactWriter *writer,
							  const PromAttempt *attempt, const char *why,
							  TimestampTz now);

#endif
