/*
 * toolcall.h
 *	  The tool calls that a turn of a model asks for.
 */
#ifndef PROM_TOOLCALL_H
#define PROM_TOOLCALL_H

#include "llm.h"

/*
 * Read the calls of a turn, from its message as the provider sent it (UTF-8,
 * valid JSON), in its order.  What is missing is made up: an id, or {} for
 * arguments that are empty.  regular: nothing was, so that the message can be
 * sent back as it is.
 */
extern PromToolCall *prom_toolcall_read(const char *raw, int *n, bool *regular);

#endif
