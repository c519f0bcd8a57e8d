/*
 * reading.h
 *	  What the formats' readers have in common: strings, counts and errors.
 *
 * As all reading: nothing is raised, and memory is from malloc.
 */
#ifndef PROM_READING_H
#define PROM_READING_H

#include <json-c/json.h>

#include "provider/provider.h"

/* A provider's word for why a turn ended, and ours. */
typedef struct PromFinish
{
	const char *reason;
	const char *canonical; /* end, tool, length, filter */
} PromFinish;

/* A text that is put together from parts; at first all zero. */
typedef struct PromJoined
{
	char *text;
	size_t length;
	size_t size;
} PromJoined;

/* Parse a small document; gives away the result, NULL if it cannot be read. */
extern json_object *prom_reading_parse(PromSlice json);

/* A member of an object, borrowed; NULL if there is none or it is null. */
extern json_object *prom_reading_member(json_object *object, const char *name);

/* A count, or -1; so are those that no request can have. */
extern int64 prom_reading_count(json_object *object, const char *name);

/* Is this document an error, though its status is good? */
extern bool prom_reading_is_error(PromSlice json);

/* Read an error, whatever its form; also one that is wrapped in an array. */
extern void prom_reading_error(PromTurn *turn, PromSlice body);

/* Give a value on if it is a string; one that memory is missing for is not. */
extern void prom_reading_hear(PromSlice value, PromHear hear, void *owner);

/* The member's text; NULL also if it is null or no string. */
extern char *prom_reading_string(PromTurn *turn, PromSlice object,
								 const char *name);

/*
 * Append bytes, a text, a member that is a string (NULL: none), or a JSON
 * document that is cleaned; false: memory is missing, which the turn is told.
 */
extern bool prom_reading_append(PromTurn *turn, PromJoined *joined,
								PromSlice text);
extern bool prom_reading_append_text(PromTurn *turn, PromJoined *joined,
									 const char *text);
extern bool prom_reading_append_string(PromTurn *turn, PromJoined *joined,
									   PromSlice object, const char *name);
extern bool prom_reading_append_clean(PromTurn *turn, PromJoined *joined,
									  PromSlice json);

extern bool prom_reading_has_type(PromSlice object, const char *type);

/*
 * The beginning of each reader of bodies, and of events: is there a reply to
 * be read?  Else the turn is an error, or unreadable.
 */
extern bool prom_reading_body(PromTurn *turn, PromSlice body);
extern bool prom_reading_event(PromTurn *turn, PromSlice data);

/* Read why the turn ended, if that is not known yet. */
extern void prom_reading_finish(PromTurn *turn, PromSlice object,
								const char *name);

/* Our word for it; what is not in the list is an error. */
extern const char *prom_reading_canonical(const PromFinish *finishes, int n,
										  const char *reason);

extern void prom_reading_no_memory(PromTurn *turn);

#endif
