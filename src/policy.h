/*
 * policy.h
 *	  What may be done: the newest version of each policy.
 */
#ifndef PROM_POLICY_H
#define PROM_POLICY_H

#include "utils/jsonb.h"

#include "setting.h"

/* What is judged. */
typedef enum PromStage
{
	PROM_STAGE_TASK,
	PROM_STAGE_TOOL,
	PROM_STAGE_ANSWER
} PromStage;

/* What a policy says; the higher one counts. */
typedef enum PromEffect
{
	PROM_EFFECT_OFF,
	PROM_EFFECT_ALLOW,
	PROM_EFFECT_WARN,
	PROM_EFFECT_ESCALATE,
	PROM_EFFECT_DENY
} PromEffect;

/* The newest version of one. */
typedef struct PromPolicy
{
	const char *name;
	int64 version;
	PromStage stage;
	PromEffect effect;
	const char *condition;   /* a function's signature, or NULL */
	const char *hash;        /* of its definition when it was set */
	const char *search_path; /* that it runs with, as the owner: */
	const char *owner;
	Oid owner_oid;
	Jsonb *match;
	const char *reason; /* these may be NULL */
	const char *suggestion;
	const char *approvers;
	Oid approvers_oid;
	PromEffect on_error;
	const char *reviewer; /* the model that is asked; NULL: it is a rule */
} PromPolicy;

/* The reviewer that is the model of whoever is reviewed; others: model:NAME. */
#define PROM_REVIEWER_OWN "model"

/* All that are not off. */
typedef struct PromPolicies
{
	int64 version; /* versions of policies that were ever set: grows */
	int n;
	PromPolicy *list;
} PromPolicies;

/*
 * The newest ones, as of the current transaction; kept until one is set.  With
 * SPI connected.
 */
extern const PromPolicies *prom_policies(void);

extern const char *prom_policy_stage_name(PromStage stage);
extern const char *prom_policy_effect_name(PromEffect effect);

/* The name of the model that a reviewer is; NULL: the own one. */
extern const char *prom_policy_reviewer(const PromPolicy *policy);

#endif
