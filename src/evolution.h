/*
 * evolution.h
 *	  The evolution of an agent: tasks that it is set, and how far it comes.
 */
#ifndef PROM_EVOLUTION_H
#define PROM_EVOLUTION_H

#include "curriculum.h"
#include "judge.h"
#include "shmem.h"

/* What a task that is proposed is called in policies, and an end in steps. */
#define PROM_EVOLUTION_TOOL "evolve"

/* Attempts at one task; proposals, and asked judges, that may fail in a row. */
#define PROM_EVOLUTION_ATTEMPTS 3

/* The scores from which on a task succeeded, and its skill is learned. */
#define PROM_EVOLUTION_SUCCESS 0.7
#define PROM_EVOLUTION_LEARNED 0.8

/*
 * Do the next move of a task that evolves its agent: its step is written, or it
 * waits for a task that it made.  Nothing is done for other tasks.  In a
 * worker's transaction with SPI connected.
 */
extern void prom_evolution_run(PromJob *job);

/* The task that it is about to set, as it is judged; false: there is none. */
extern bool prom_evolution_judged(PromJudged *judged);

/* Is that task judged by one that evolves its agent?  With SPI connected. */
extern bool prom_evolution_scores(int64 task_id);

/* A generation that has ended (generation.c). */
typedef struct PromGeneration
{
	const PromEvolution *evolution;
	int32 step; /* that ends it */
	int iteration;
	const PromProposal *proposal;
	int attempts;
	int64 attempt_id; /* the task that was its last attempt, */
	int64 judge_id;   /* and that which judged it; 0: none did */
	int passed;       /* cases */
	double judged;    /* the score of the judge, if there was one */
	double first_score;
	double score;
	const char *procedure; /* that the judge saw in the answer; or NULL */
} PromGeneration;

/*
 * Write it, with what it has shown of skills, and its event.  As the
 * extension's owner, with SPI connected.
 */
extern void prom_generation_add(const PromGeneration *generation);

/* What all of a task's generations came to, in words. */
extern const char *prom_generation_report(const PromEvolution *evolution);

#endif
