/*
 * reflection.h
 *	  What a model is asked about its own answer, and what is learned from it.
 */
#ifndef PROM_REFLECTION_H
#define PROM_REFLECTION_H

#include "memory.h"

/*
 * The schema of the reply, as JSON, and the question, of a task that was told
 * memories or not; and the schema that the reply must fit.
 */
extern const char *prom_reflection_schema(bool told);
extern const char *prom_reflection_question(bool told);
extern const char prom_reflection_reply_schema[];

/* A memory that is wrong, and what is true instead. */
typedef struct PromContradiction
{
	int64 memory_id; /* as the model says */
	const char *fact;
} PromContradiction;

/*
 * What is said of an answer that is to be better: this and the critique, and if
 * there is a correction this and that.
 */
extern const char prom_reflection_again[];
extern const char prom_reflection_correction[];

typedef struct PromReflection
{
	const char *document; /* as JSON: score, critique, aspects, ... */
	double score;
	const char **lessons;
	int nlessons;
	PromContradiction *contradictions;
	int ncontradictions;
} PromReflection;

/*
 * Read a reply that fits the schema.  score = 0.4 appropriateness + 0.6
 * effectiveness.
 */
extern void prom_reflection_read(const char *reply, PromReflection *reflection);

/*
 * Remember its lessons as experiences whose importance is the score; let the
 * score count for the procedures that the task was told before this step; and
 * replace what it contradicts of what it was told.  In a subtransaction: what
 * goes wrong is in the log.
 */
extern void prom_reflection_learn(const PromReflection *reflection,
								  const PromMemoryOwner *owner, int64 task_id,
								  int32 step);

#endif
