/*
 * builtin.h
 *	  What the tools do that are built in.
 */
#ifndef PROM_BUILTIN_H
#define PROM_BUILTIN_H

#include "lib/stringinfo.h"

#include "prompt.h"
#include "shmem.h"
#include "utils/jsonb.h"

/* What the task that a call of delegate makes has of its parent. */
typedef struct PromParent
{
	int32 depth; /* of the parent: 0 if nobody delegated it */
	int32 priority;
	TimestampTz deadline;
	char *traceparent;
	int64 event_id; /* its first one, */
	int32 causes;   /* which has so many, one behind the other */
} PromParent;

/* A call of one, whose arguments fit its schema. */
typedef struct PromBuiltinCall
{
	const PromJob *job;
	const PromPromptFacts *facts;
	const PromParent *parent; /* of delegate */
	Jsonb *arguments;
	int64 max_result;
	MemoryContext keep;    /* where the result is to be */
	StringInfoData result; /* more than max_result is cut later */
	bool is_rows;          /* it is a JSON array, not closed yet */
	bool waits;            /* it was begun, and its result comes later */
} PromBuiltinCall;

typedef struct PromBuiltin
{
	const char *name;

	/* Runs as the agent's role, since it runs what the model wrote. */
	bool as_role;

	/* Runs as who submitted the task. */
	bool as_submitter;

	/* Under the rules of guard.c; raises what the model is told. */
	void (*run)(PromBuiltinCall *call);
} PromBuiltin;

/* NULL: there is none of this name. */
extern const PromBuiltin *prom_builtin_find(const char *name);

/* A member of the arguments; NULL: it is missing or null. */
extern char *prom_builtin_text(const PromBuiltinCall *call, const char *name);
extern Datum prom_builtin_numeric(const PromBuiltinCall *call,
								  const char *name, bool *isnull);

/* One of any kind, also null; NULL: it is missing. */
extern Jsonb *prom_builtin_value(const PromBuiltinCall *call, const char *name);

/* Append a row to a result that is an array; false: that is enough. */
extern bool prom_builtin_add_row(PromBuiltinCall *call, HeapTuple row,
								 TupleDesc desc);

/* False: there is no such task. */
extern bool prom_delegate_read(int64 task_id, PromParent *parent);

typedef enum PromChildState
{
	PROM_CHILD_NONE, /* the call has not been made */
	PROM_CHILD_LIVES,
	PROM_CHILD_COMPLETED, /* text is its result, */
	PROM_CHILD_ENDED      /* or what became of it */
} PromChildState;

/* The task that a call of delegate made. */
extern PromChildState prom_delegate_find(const PromJob *job, const char **text);

extern const PromBuiltin prom_builtin_delegate;
extern const PromBuiltin prom_builtin_remember;
extern const PromBuiltin prom_builtin_recall;
extern const PromBuiltin prom_builtin_query;
extern const PromBuiltin prom_builtin_read_state;
extern const PromBuiltin prom_builtin_save_state;

#endif
