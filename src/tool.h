/*
 * tool.h
 *	  What a model may ask for: functions and endpoints that are called for it.
 */
#ifndef PROM_TOOL_H
#define PROM_TOOL_H

#include "setting.h"

/* Tools of one agent, and bytes of a name (which the APIs limit). */
#define PROM_MAX_TOOLS 128
#define PROM_MAX_TOOL_NAME 64

typedef enum PromTier
{
	PROM_TIER_READ,       /* runs in a read-only transaction */
	PROM_TIER_WRITE,      /* changes what can be changed back */
	PROM_TIER_DESTRUCTIVE /* does what cannot be undone */
} PromTier;

/* One version of a tool. */
typedef struct PromTool
{
	const char *name; /* these two first: see PromVersion */
	int64 version;
	bool is_builtin;         /* then function is its name in src/tool/ */
	bool is_http;            /* it has these three, and no function */
	const char *method;      /* in capitals */
	const char *url;         /* with {placeholders} */
	const char *secret;      /* the name of its key; NULL: none */
	const char *function;    /* its signature */
	const char *search_path; /* that it runs with */
	const char *hash;        /* of its definition when it was set */
	const char *description; /* NULL: none */
	const char *schema;      /* of its arguments, as JSON */
	PromTier tier;
	bool idempotent;
} PromTool;

/* See prom_version_get() and prom_version_read() in setting.h. */
extern const PromTool *prom_tool_version(const char *name, int64 version);
extern PromTool *prom_tool_read(const char *name, int64 version);

/*
 * The versions of an agent's tools, in the agent's order: those that the task
 * used first, since it was retried by hand after that attempt, or the newest.
 */
extern ArrayType *prom_tool_pin(int64 task_id, int32 retried_attempt,
								const char **names, int n);

#endif
