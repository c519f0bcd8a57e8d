/*
 * progress.h
 *	  Where a task is between its model and its tools, by its steps.
 */
#ifndef PROM_PROGRESS_H
#define PROM_PROGRESS_H

#include "agent.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

typedef struct PromProgress
{
	int32 next_step; /* a number that no step has, nor will have */
	int32 turn;      /* the step of the last good turn of the model; 0: none */
	int ncalls;      /* tool calls that it asks for; 0: it is the answer */
	bool answered;   /* it is the answer, and there is no other round */
	int npending;    /* those of them that have no step yet, */
	int32 *pending;  /* and the numbers that theirs will have */

	/* Since the task was retried by hand, for the limits. */
	int turns;
	int tool_calls;
	int64 tokens;
	Numeric cost; /* NULL: none is known */
	int64 results;
	int vetoes;       /* tool calls that were not allowed, */
	const char *veto; /* and why the last one was not */

	/* What it has thought of in full mode since then. */
	bool summarised; /* or tried to */
	bool embedded;   /* what is to be recalled, or tried to */
	bool recalled;
	bool planned;       /* well; */
	int32 plan_attempt; /* the last attempt to, which may have failed */
	bool reflected;     /* on its last turn */
	int reflections;
	int32 reflection; /* the step of the last one; 0: there is none */

	/* The answer that it has first looked back at well, */
	int32 first; /* by its step; 0: none, */
	double score;
	double score_again; /* and that of the next one; -1: none */

	/* Reviews by models in the last attempt that had any. */
	int counsels;
	int32 counsel_attempt;

	/* The last review by conditions, which is a step of its own. */
	int32 review_attempt;    /* of which attempt; 0: there is none */
	bool reviewed_answer;    /* of the answer that turn is */
	const char *review_veto; /* why it was not allowed; NULL: it was */

	/*
	 * Of a task that makes a tool, whose answer is a function: that is a call
	 * of its own, with the step after it.
	 */
	bool made;           /* it is a tool now */
	int refused;         /* functions that were tried and are not, */
	const char *refusal; /* and why the last one is not */

	/* Of a task that evolves its agent: why that cannot go on; NULL: it can. */
	const char *failure;
	const char *failure_type;
} PromProgress;

/* What makes a task's course another one than that of an agent. */
typedef enum PromCourse
{
	PROM_COURSE_AGENT,
	PROM_COURSE_TOOL,   /* its answer is a function (commission.c) */
	PROM_COURSE_EVOLVES /* it has no turns of its own (evolution.c) */
} PromCourse;

/*
 * Read it; last_step is the highest number of the task's steps, after which no
 * statement is needed if it is 0.  In the current memory context, with SPI
 * connected.
 */
extern void prom_progress_read(int64 task_id, int32 last_step,
							   int32 retried_attempt, PromCourse course,
							   PromProgress *progress);

/*
 * If an answer has a score below that, there is another round: the answer, by
 * its step, which stands whatever comes of that; else 0.  While it goes on, the
 * task is not answered.
 */
extern int32 prom_progress_stands(PromProgress *progress, double below);

/* The answer that is the task's: the better one of two, if both were scored. */
extern int32 prom_progress_answer(const PromProgress *progress, int32 stands);

/*
 * The limit that a task has run into, in words; NULL: none.  retried_attempt as
 * above.
 */
extern const char *prom_progress_limit(int64 task_id, int32 retried_attempt,
									   const PromProgress *progress,
									   const PromLimits *limits,
									   TimestampTz now);

#endif
