/*
 * curriculum.h
 *	  The tasks that an agent is set, to become better by them.
 */
#ifndef PROM_CURRICULUM_H
#define PROM_CURRICULUM_H

#include "exam.h"
#include "memory.h"
#include "utils/jsonb.h"

/* Levels of difficulty, from 1. */
#define PROM_MAX_LEVEL 5

/* Cases of one task. */
#define PROM_MIN_CASES 3
#define PROM_MAX_CASES 20

/* What prometheus_evolve() was asked for. */
typedef struct PromEvolution
{
	int64 task_id;
	PromMemoryOwner owner; /* who submitted it, and the agent */
	int iterations;
	const char *domain;
	const char *curriculum; /* the agent that proposes, */
	const char *judge;      /* and the one that judges */
	const char *mode;       /* of the attempts */
	int level;              /* to begin with; 0: where it stands */
	Jsonb *categories;      /* an array of texts */
} PromEvolution;

/* A task that was proposed, and its cases. */
typedef struct PromProposal
{
	int64 task_id; /* of the proposal */
	int level;
	const char *category;
	const char *request;
	const char *criteria;
	const char *skill;
	int ncases;
	PromCase *cases;
} PromProposal;

/* An attempt at it, as its step has it. */
typedef struct PromEffort
{
	int64 task_id;
	const char *answer; /* NULL: it has none, */
	const char *error;  /* since */
	int passed;
	const char *failures; /* what the agent may know of the cases it failed */
} PromEffort;

/* What a judge said of it. */
typedef struct PromJudgment
{
	int64 task_id;
	double score;
	const char *critique;
	const char *procedure;
} PromJudgment;

/* What the task's row has; NULL: it evolves nothing.  With SPI connected. */
extern PromEvolution *prom_curriculum_find(int64 task_id);

/* Where the agent stands: level and category of its next task. */
extern void prom_curriculum_next(const PromEvolution *evolution, bool is_first,
								 int *level, const char **category);

/* What is asked, and what the answer must look like. */
extern const char *prom_curriculum_ask(const PromEvolution *evolution,
									   int level, const char *category,
									   const char *refusal);
extern const char *prom_curriculum_attempt(const PromProposal *proposal,
										   const PromEffort *before,
										   const PromJudgment *judgment);
extern const char *prom_curriculum_judge(const PromProposal *proposal,
										 const PromEffort *effort);
extern Jsonb *prom_curriculum_schema(bool of_judge);

/*
 * A proposal as its model answered; *problem says why it cannot be set, but for
 * its cases; then, and else, what a step has of it.
 */
extern PromProposal *prom_proposal_of(const char *answer, int level,
									  const char *category, int64 task_id,
									  const char **solution,
									  const char **problem);
extern const char *prom_proposal_write(const PromProposal *proposal);
extern PromProposal *prom_proposal_read(const char *step);

/* Has the agent had this task before? */
extern bool prom_curriculum_has(const PromEvolution *evolution,
								const PromProposal *proposal);

/* The same of an attempt and of what a judge said. */
extern const char *prom_effort_write(const PromEffort *effort, int attempt,
									 int ncases);
extern PromEffort *prom_effort_read(const char *step);
extern PromJudgment *prom_judgment_of(const char *answer, int64 task_id);
extern const char *prom_judgment_write(const PromJudgment *judgment,
									   int attempt, double score);
extern PromJudgment *prom_judgment_read(const char *step);

#endif
