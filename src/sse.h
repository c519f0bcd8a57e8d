/*
 * sse.h
 *	  Server-sent events: from bytes in pieces of any size to events.
 *
 * Plain C without PostgreSQL; memory is from malloc and bounded.
 */
#ifndef PROM_SSE_H
#define PROM_SSE_H

#include <stdbool.h>
#include <stddef.h>

#define PROM_SSE_MAX_LINE (1024 * 1024)
#define PROM_SSE_MAX_EVENT (4 * 1024 * 1024)

typedef enum PromSseState
{
	PROM_SSE_OK,
	PROM_SSE_STOPPED,  /* the handler wants no more */
	PROM_SSE_TOO_LONG, /* a line or an event */
	PROM_SSE_NO_MEMORY
} PromSseState;

/*
 * Gets each event: its name ("" if it has none) and its data, which ends with
 * a NUL that is not counted.  False stops the parser for good.
 */
typedef bool (*PromSseHandler)(void *arg, const char *name, const char *data,
							   size_t length);

typedef struct PromSseBuffer
{
	char *data;
	size_t length;
	size_t size;
} PromSseBuffer;

typedef struct PromSse
{
	PromSseHandler handler;
	void *arg;
	PromSseState state;
	PromSseBuffer line; /* the start of a line that is not complete */
	PromSseBuffer data; /* of the event, each line with its \n */
	char name[64];      /* of the event, cut if it is longer */
	bool has_data;
	bool after_cr;   /* a \n now ends no line of its own */
	bool first_line; /* which may start with a byte order mark */
} PromSse;

/* Is a response of an unclear type a stream?  Its first line tells. */
extern bool prom_sse_looks_like(const char *bytes, size_t length);

extern void prom_sse_init(PromSse *sse, PromSseHandler handler, void *arg);
extern PromSseState prom_sse_feed(PromSse *sse, const char *bytes,
								  size_t length);

/* The stream has ended: an event that lacks only its blank line counts. */
extern PromSseState prom_sse_end(PromSse *sse);

/* Bytes held. */
extern size_t prom_sse_memory(const PromSse *sse);
extern void prom_sse_free(PromSse *sse);

#endif
