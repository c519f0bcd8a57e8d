/*
 * judge.h
 *	  Asks the policies about one thing: a request, a tool call, an answer.
 */
#ifndef PROM_JUDGE_H
#define PROM_JUDGE_H

#include "nodes/bitmapset.h"

#include "fact.h"
#include "policy.h"
#include "tool.h"
#include "utils/timestamp.h"

/* What is judged, in the database's encoding. */
typedef struct PromJudged
{
	PromStage stage;
	int64 task_id;
	int32 attempt;
	int32 step; /* that it is about; 0: none */
	const char *agent;
	const char *submitter;
	Oid submitter_oid;
	const char *mode;
	const char *request;
	const PromTool *tool;  /* these two of a tool call */
	const char *arguments; /* JSON */
	int64 again;           /* the call that sent it before; 0: none */
	bool waited;           /* a person was asked about it, in some form */
	const char *answer;    /* of an answer */
} PromJudged;

/* What a model said that was asked to review. */
typedef struct PromOpinion
{
	const char *policy; /* for which it was asked */
	const char *governor;
	const char *hash;       /* of exactly what was judged */
	const char *suggestion; /* NULL: none */
	const char *risk_level; /* by its confidence; NULL: it said none */
	Jsonb *scores;          /* its confidence, and the virtues; or NULL */
} PromOpinion;

/* What they said. */
typedef struct PromVerdict
{
	PromEffect effect;
	int64 policy_version;
	const PromPolicy *policy; /* that decided; NULL: none applied */
	const char *reasoning;    /* NULL: nothing to say */
	Bitmapset *escalated;     /* the policies that escalate it, by place */
	double latency_ms;

	/* It is to be held against these while it runs; NULL: it is not. */
	const PromPolicy *integrity;
	const PromPolicy *proportionality;

	bool undecided;             /* an executor has more time for it */
	const PromOpinion *opinion; /* NULL: by rules */
	bool learns;                /* if it is a veto, it is to be remembered */
} PromVerdict;

/*
 * Does it take an executor to judge it, since a policy that may apply has a
 * condition?  With SPI connected.  Here and below, policies are what
 * prom_policies() gave: fetched once for one thing, or others may come between.
 */
extern bool prom_judge_needs_executor(const PromPolicies *policies,
									  const PromJudged *judged);

/* Is there a policy of that stage? */
extern bool prom_judge_has(const PromPolicies *policies, PromStage stage);

/*
 * Judge it.  Conditions are run under the rules of guard.c, so only an executor
 * may judge what needs one.  What takes the caller too long is undecided, if it
 * is not denied.  In a worker's transaction with SPI connected.
 */
extern void prom_judge(const PromPolicies *policies, const PromJudged *judged,
					   PromVerdict *verdict);

/*
 * SHA-256 of exactly what is judged: of all that decides what is to be done, in
 * hexadecimal.
 */
extern const char *prom_judge_hash(const PromJudged *judged);

/* The verdict on what could not be judged, and so is denied. */
extern void prom_judge_deny(const PromJudged *judged, const char *why,
							PromVerdict *verdict);

/* Let this policy be the one that decided. */
extern void prom_verdict_name(PromVerdict *verdict, const PromPolicy *policy);

/* Is a veto to be remembered? */
extern bool prom_judge_learns(const PromPolicies *policies);

/* Is it approved as it is?  Else denied, or to be approved by a person. */
extern bool prom_verdict_allows(const PromVerdict *verdict);

/* Deny what was allowed: it did what one of those forbids, and was undone. */
extern void prom_verdict_refuse(PromVerdict *verdict, const PromPolicy *policy,
								const char *what);

/* What a model or a user is told of a denial. */
extern const char *prom_verdict_words(const PromVerdict *verdict);

extern void prom_verdict_add(PromFactWriter *writer, const PromJudged *judged,
							 const PromVerdict *verdict, TimestampTz now);

/* Raise unless it can be the match of a policy. */
extern void prom_judge_check_match(const char *match);

/* Does a policy apply, whose reviewer is a model? */
extern bool prom_judge_fits(const PromPolicy *policy, const PromJudged *judged);

/* The thing as JSON, which a condition or a model that reviews is given. */
extern const char *prom_judge_document(const PromJudged *judged);

#endif
