/*
 * judged.h
 *	  What a model is asked to review, read from the facts.
 */
#ifndef PROM_JUDGED_H
#define PROM_JUDGED_H

#include "judge.h"
#include "prompt.h"

/*
 * The request of a task (step 0), its answer (the step of the turn that gave
 * it), or a tool call (the step that it makes, or made).  False: there is no
 * such thing, or its tool is not offered.  With SPI connected and a snapshot.
 */
extern bool prom_judged_read(const PromPromptFacts *facts, int32 attempt,
							 int32 step, PromJudged *judged);

#endif
