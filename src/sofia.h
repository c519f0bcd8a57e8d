/*
 * sofia.h
 *	  Counsel: what a model that reviews is asked, and what it says.
 */
#ifndef PROM_SOFIA_H
#define PROM_SOFIA_H

#include "judge.h"
#include "llm.h"

/* A confidence that is lower is a doubt. */
#define PROM_SOFIA_CONFIDENT 0.4

/* Counsel that was read, in the database's encoding. */
typedef struct PromCounselRead
{
	double confidence;
	const char *counsel;    /* one line */
	const char *suggestion; /* one line; NULL: none */
	const char *risk_level; /* by the confidence */
	Jsonb *scores;          /* the seven virtues and the confidence */
} PromCounselRead;

/*
 * The prompt, in the current memory context.  The thing is quoted as data; no
 * history and no instructions of the agent are in it.
 */
extern PromPrompt *prom_sofia_prompt(const PromJudged *judged,
									 const PromModel *model);

/*
 * Read a reply.  One that does not fit fails, as SchemaMismatch; false: it
 * failed, then or before.
 */
extern bool prom_sofia_read(PromReply *reply, PromCounselRead *read);

#endif
