/*
 * asked.h
 *	  A tool call as the model asked for it, by the facts.
 */
#ifndef PROM_ASKED_H
#define PROM_ASKED_H

#include "judge.h"
#include "prompt.h"

/* Texts are in the database's encoding. */
typedef struct PromAsked
{
	int64 task_id;
	int32 attempt;
	int32 step;
	int number;            /* in its turn, from 1 */
	const char *name;      /* as the model called it */
	const char *arguments; /* as the model wrote them */
	const PromTool *tool;  /* NULL: it was offered none of this name */
	bool waited;           /* a person was asked about it */

	/* An answer that is to be a tool is a call of its own; else NULL. */
	const PromCommission *commission;
	const char *statement;

	PromPromptFacts facts;

	/* Calls that were to be sent for it, and have no step; 0: none. */
	int64 first_call;
	int64 last_call;
} PromAsked;

/*
 * Read what a step is to do.  False: it is there already, or nobody asked for
 * it.  In a worker's transaction with SPI connected.
 */
extern bool prom_asked_read(int64 task_id, int32 attempt, int32 step,
							PromAsked *asked);

/* It as a thing that is judged. */
extern void prom_asked_judged(const PromAsked *asked, PromJudged *judged);

/*
 * May it be sent although it was sent before?  Nothing else may, whoever says
 * so, but what a person approves.
 */
extern bool prom_asked_may_repeat(const PromAsked *asked);

#endif
