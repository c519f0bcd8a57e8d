/*
 * load.h
 *	  What the facts say of tasks, for the process that owns them.
 */
#ifndef PROM_LOAD_H
#define PROM_LOAD_H

#include "attempt.h"
#include "prompt.h"
#include "utils/uuid.h"

/* A task, its last outcome and attempt, and what is pinned or newest. */
typedef struct PromLoaded
{
	int64 task_id;
	TimestampTz deadline;
	int32 max_attempts;
	const char *agent;
	PromPromptSource source; /* but for the request and the schema */
	Datum request;           /* not read yet: it may be long */
	Datum output_schema;     /* neither is this */
	bool has_schema;
	int64 bytes;     /* of both */
	TimestampTz due; /* not before; 0: at once */
	bool ended;
	bool completed;
	bool retrying; /* an attempt has ended, since a retry by hand */
	bool waiting;  /* the last one, since it waits for a person */
	const char *mode;
	bool makes_tool;       /* its answer is a function (commission.c) */
	bool evolves;          /* its agent (evolution.c) */
	bool is_bare;          /* for such a task, and has no tools */
	int64 parent_id;       /* the task that delegated it; 0: none, */
	bool parent_ended;     /* which has ended without it */
	TimestampTz since;     /* submitted, due or retried by hand: the last */
	int32 outcome_attempt; /* of the last outcome; 0: none */
	int32 used;
	int32 last_attempt; /* of the last attempt; 0: none */
	int64 agent_version;
	const char *model;
	int64 model_version;
	int32 last_step;
	bool cancelled;
	const char *cancel_reason;
	bool depends;           /* a task that it depends on has not ended */
	const char *bad_parent; /* what became of one that did not end well */
	PromTrace trace;
	int32 retried_attempt; /* after which it was retried by hand; 0: never */
} PromLoaded;

/*
 * Read the tasks of n attempts at once; they come in any order.  The rows, in
 * which the requests and schemas are, stay until SPI_finish().
 */
extern PromLoaded *prom_load(PromAttempt **attempts, int n, int *nloaded);

/* Whose task it is, by what is counted of it. */
extern void prom_load_identify(PromAttempt *attempt, const PromLoaded *loaded);

#endif
