/*
 * task.h
 *	  What users do with tasks: submit, wait, read the result, cancel, ask.
 */
#ifndef PROM_TASK_H
#define PROM_TASK_H

#include "utils/jsonb.h"
#include "utils/timestamp.h"

#define PROM_PRIORITY_MIN (-1000)
#define PROM_PRIORITY_MAX 1000
#define PROM_MAX_ATTEMPTS 100
#define PROM_DEFAULT_ATTEMPTS 3
#define PROM_DEFAULT_TIMEOUT (INT64CONST(86400) * 1000000) /* us: one day */

#define PROM_MAX_REASON 1000 /* bytes of the reason of a cancel */
#define PROM_MAX_KEY 200     /* bytes of a key, or a conversation's name */
#define PROM_MAX_DEPENDENCIES 1000

/* A task to be submitted.  What is NULL or negative has its default. */
typedef struct PromSubmit
{
	const char *request; /* NULL raises */
	const char *agent;
	const char *mode;
	int32 priority;
	bool has_run_at;
	TimestampTz run_at;
	int64 timeout; /* us; -1: default */
	bool has_max_attempts;
	int32 max_attempts;
	const char *idempotency_key;
	int64 *depends_on; /* sorted, each once */
	int ndepends_on;
	const char *concurrency_key;
	const char *conversation;
	Jsonb *output_schema;
	const char *traceparent;
	Jsonb *metadata;
	Jsonb *commission; /* a tool that it is to make; NULL: none */
	Jsonb *evolution;  /* see prometheus._task; NULL: none */
	int64 parent_id;   /* the task that delegates it; 0: none */
	int32 parent_step; /* and the call by which it does */
	int32 depth;
	int64 parent_event; /* the first event of the parent, which causes it, */
	int32 causes;       /* and how many causes that has */
} PromSubmit;

/* Write the task, in the current transaction; its id. */
extern int64 prom_task_submit(const PromSubmit *submit);

/* Raise unless the current user may submit to that agent. */
extern void prom_task_check_agent(const char *agent);

/* Raise unless the mode exists and is supported. */
extern void prom_task_check_mode(const char *mode);

/* Now and a positive interval; raises if that is not a moment. */
extern TimestampTz prom_task_moment_after(Interval *interval);

/* Where a task is; strings are palloc'd, or NULL. */
typedef struct PromTaskEnd
{
	bool ended;
	const char *status;
	const char *result;
	const char *error;
	const char *error_type;
} PromTaskEnd;

/*
 * Look at a task that the user may see, by a snapshot of this moment.  Raises
 * undefined_object if there is none.
 */
extern void prom_task_end(int64 task_id, PromTaskEnd *end);

#endif
