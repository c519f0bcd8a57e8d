/*
 * counsel.h
 *	  Reviews by models: which are to be asked, and what they have said.
 */
#ifndef PROM_COUNSEL_H
#define PROM_COUNSEL_H

#include "judge.h"
#include "llm.h"
#include "shmem.h"

struct PromAttempt;

/* SHA-256 in hexadecimal. */
#define PROM_HASH_LENGTH 64

/* A review that a model is asked for. */
typedef struct PromCounsel
{
	const PromModel *model; /* that is asked; NULL: none is */
	PromStage stage;
	int32 step;        /* that it is about; 0: the request */
	PromEffect effect; /* of a doubt */
	bool only_reads;   /* so a reviewer that fails is a warning */
	int64 policy_version;
	char policy[PROM_MAX_NAME + 1];
	char hash[PROM_HASH_LENGTH + 1]; /* of exactly what is judged */
} PromCounsel;

typedef enum PromCounselState
{
	PROM_COUNSEL_GIVEN,  /* all that were to be asked were; or there are none */
	PROM_COUNSEL_DOUBTS, /* one of them says escalate or deny */
	PROM_COUNSEL_WANTED  /* a model is to be asked */
} PromCounselState;

/* Is there a policy of that stage whose reviewer is a model? */
extern bool prom_counsel_is_possible(const PromPolicies *policies,
									 PromStage stage);

/*
 * What models have said of exactly this, by these policies.  With WANTED
 * counsel is filled in but for the model, and policy is the one that asks for
 * it; with DOUBTS verdict says who doubts, and why.  In a worker's transaction
 * with SPI connected.
 */
extern PromCounselState prom_counsel_find(const PromPolicies *policies,
										  const PromJudged *judged,
										  PromCounsel *counsel,
										  const PromPolicy **policy,
										  PromVerdict *verdict);

/* Record that the reviewer of attempt->counsel cannot be asked. */
extern void prom_counsel_fail(PromFactWriter *writer,
							  const struct PromAttempt *attempt,
							  const char *why, TimestampTz now);

/*
 * Record the reply to attempt->counsel: its step, and the verdict if it is
 * final.  reply may be found to fail.
 */
extern void prom_counsel_add(PromFactWriter *writer,
							 const struct PromAttempt *attempt,
							 PromReply *reply, bool is_final, TimestampTz now);

/*
 * Caller: record the call of a review that has ended, and what follows.  What
 * failed in passing is tried again as a turn of the model is.
 */
extern void prom_counsel_record(PromFactWriter *writer,
								struct PromAttempt *attempt, PromReply *reply,
								TimestampTz now);

#endif
