/*
 * agent.h
 *	  Named configuration: agents, and the models that they use.
 */
#ifndef PROM_AGENT_H
#define PROM_AGENT_H

#include "model.h"

/*
 * What a task of an agent may use up; running into one ends the task as
 * failed, LimitExceeded.  They count from the task's first attempt.
 */
typedef struct PromLimits
{
	int max_turns;        /* replies of the model */
	int max_tool_calls;   /* tool calls that it asked for */
	int64 max_tokens;     /* in and out; -1: none */
	const char *max_cost; /* decimal; NULL: none */
	int64 max_duration;   /* ms; -1: none */
	int64 max_results;    /* bytes of all results of tools */
	int max_vetoes;       /* tool calls that were not allowed: ends as vetoed */
} PromLimits;

/* One version of an agent. */
typedef struct PromAgent
{
	const char *name; /* these two first: see PromVersion */
	int64 version;
	const char *model;
	const char *mode;
	const char *instructions; /* NULL: none */
	int ntools;
	const char **tools; /* their names */
	const char *run_as; /* the role of its tools; NULL: who submitted */
	Oid run_as_oid;     /* counts while it has that name */
	PromLimits limits;
	int64 tool_timeout;     /* ms that one tool may take */
	int64 approval_timeout; /* ms that a person has to decide */
	int64 max_result;       /* bytes of one result; more is cut off */
	int64 max_rows;         /* that one tool call may change */
	int max_depth;          /* levels of tasks that it may delegate */
	bool summarises;        /* turns that do not fit into the window */
	double reflect_below;   /* a lower score gives another round; 0: none */
} PromAgent;

/* See prom_version_get() and prom_version_read() in setting.h. */
extern const PromAgent *prom_agent_version(const char *name, int64 version);
extern const PromModel *prom_model_version(const char *name, int64 version);
extern PromAgent *prom_agent_read(const char *name, int64 version);
extern PromModel *prom_model_read(const char *name, int64 version);

/* Raise unless this is the name of a secret; NULL is none. */
extern void prom_agent_check_secret(const char *secret);

#endif
