/*
 * event.h
 *	  Events that are emitted.
 */
#ifndef PROM_EVENT_H
#define PROM_EVENT_H

#include "memory.h"

#define PROM_MAX_EVENT_TYPE 200 /* bytes */
#define PROM_MAX_SUBJECT 1000   /* bytes */

/*
 * Raise unless a text is words with dots between them.  With wildcards its last
 * word may be an asterisk.
 */
extern void prom_event_check_type(const char *type, bool wildcards);

/*
 * One of the runtime's own, as the current user, with data as json and what
 * caused it (0: nothing).  Its id.
 */
extern int64 prom_event_add(const char *type, const char *data,
							const char *subject, int64 caused_by);

/* The same as the owner of a memory, of its agent; by a task, or none (0). */
extern int64 prom_event_add_of(const PromMemoryOwner *owner, int64 task_id,
							   const char *type,
							   const char *data, const char *subject);

#endif
