/*
 * exam.h
 *	  Holds an answer against test cases that a model wrote.
 */
#ifndef PROM_EXAM_H
#define PROM_EXAM_H

#include "prompt.h"
#include "shmem.h"

typedef struct PromCase
{
	const char *what;  /* it looks at, in words */
	const char *check; /* an expression of SQL with the text answer */
	bool held_back;    /* who is tried is never told of it */
} PromCase;

/* For whom cases are tried, and until when all of them must have ended. */
typedef struct PromExam
{
	PromJob *job;
	TimestampTz until;
} PromExam;

extern void prom_exam_begin(PromExam *exam, PromJob *job,
							const PromPromptFacts *facts);

/*
 * Why a case says nothing of answers: it is not of what is allowed, is not true
 * of the solution, or is of an answer that nobody could mean (empty, the task
 * itself, a text that is made up).  NULL: it is good.  In a worker's
 * transaction with SPI connected.
 */
extern const char *prom_exam_check(const PromExam *exam, const PromCase *one,
								   const char *solution, const char *request);

/* Is it true of the answer?  An error is not. */
extern bool prom_exam_pass(const PromExam *exam, const PromCase *one,
						   const char *answer);

#endif
