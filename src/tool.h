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
	int64 task_id; /* that it was made by; 0: by none */
} PromTool;

/* See prom_version_get() and prom_version_read() in setting.h. */
extern const PromTool *prom_tool_version(const char *name, int64 version);
extern PromTool *prom_tool_read(const char *name, int64 version);

/* Raise unless a tool may have this name. */
extern void prom_tool_check_name(const char *name);

/*
 * Raise unless the current user may have a tool of this name made: an
 * administrator, and if there is one, it was made too, by one of his roles.
 */
extern void prom_tool_check_made(const char *name);

/*
 * Write the version of a tool that a task has made; its number.  Raises as
 * above, and if there is one although it must be new.
 */
extern int64 prom_tool_add_made(const char *name, Oid function,
								const char *description, int64 task_id,
								bool must_be_new);

/*
 * Why a tool that was made must not be called any more: too many of its last
 * calls failed.  NULL: it may be.  With SPI connected.
 */
extern const char *prom_tool_retired(const PromTool *tool);

/*
 * A call of such a tool has failed, by a task of that agent, and is about to be
 * written: if it is retired by that, there is an event.  With SPI connected.
 */
extern void prom_tool_failed(const PromTool *tool, int64 task_id,
							 const char *agent);

/*
 * The versions of an agent's tools, in the agent's order: those that the task
 * used first, since it was retried by hand after that attempt, or the newest.
 */
extern ArrayType *prom_tool_pin(int64 task_id, int32 retried_attempt,
								const char **names, int n);

#endif
