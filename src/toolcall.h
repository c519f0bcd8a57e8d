/*
 * toolcall.h
 *	  The tool calls that a turn of a model asks for.
 */
#ifndef PROM_TOOLCALL_H
#define PROM_TOOLCALL_H

#include "llm.h"
#include "text.h"

/* Of one turn; their ids are compared with each other. */
#define PROM_MAX_CALLS 1024

/* Calls that are being read. */
typedef struct PromToolCalls
{
	PromToolCall *calls;
	int n;
	int size;
	bool regular;
} PromToolCalls;

/*
 * Read the calls of a turn, from its message as the provider sent it (UTF-8,
 * valid JSON), in its order.  What is missing is made up: an id, or {} for
 * arguments that are empty.  regular: nothing was, so that the message can be
 * sent back as it is.
 */
extern PromToolCall *prom_toolcall_read(const char *raw, int *n, bool *regular);

/* Add a call, whose strings are NULL where it has none. */
extern void prom_toolcall_add(PromToolCalls *calls, const char *id,
							  const char *name, const char *arguments);

/*
 * A string at a path, or the text of any value, in the current memory context;
 * NULL: it is none.
 */
extern char *prom_toolcall_string(PromSlice object, const char *path);
extern char *prom_toolcall_value(PromSlice object, const char *path);

/* Has the turn calls in the form of chat completions, whatever else it has? */
extern bool prom_toolcall_is_chat(PromSlice turn);

/* The arguments if they are a JSON object, as some formats want, else {}. */
extern const char *prom_toolcall_object(const char *arguments);

#endif
