/*
 * event.h
 *	  Events that are emitted.
 */
#ifndef PROM_EVENT_H
#define PROM_EVENT_H

#define PROM_MAX_EVENT_TYPE 200 /* bytes */
#define PROM_MAX_SUBJECT 1000   /* bytes */
#define PROM_MAX_CAUSES 16      /* one behind the other */

/*
 * Raise unless a text is words with dots between them.  With wildcards its last
 * word may be an asterisk.
 */
extern void prom_event_check_type(const char *type, bool wildcards);

#endif
