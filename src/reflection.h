/*
 * reflection.h
 *	  What a model is asked about its own answer, and what is learned from it.
 */
#ifndef PROM_REFLECTION_H
#define PROM_REFLECTION_H

#include "memory.h"

/* The schema of the reply, as JSON, and the question. */
extern const char prom_reflection_schema[];
extern const char prom_reflection_question[];

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
} PromReflection;

/*
 * Read a reply that fits the schema.  score = 0.4 appropriateness + 0.6
 * effectiveness.
 */
extern void prom_reflection_read(const char *reply, PromReflection *reflection);

/*
 * Remember its lessons as experiences whose importance is the score.  In a
 * subtransaction: what goes wrong is in the log.
 */
extern void prom_reflection_learn(const PromReflection *reflection,
								  const PromMemoryOwner *owner, int64 task_id);

#endif
