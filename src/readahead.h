/*
 * readahead.h
 *	  The spans of several tasks, read together before they are asked for.
 */
#ifndef PROM_READAHEAD_H
#define PROM_READAHEAD_H

#include "window.h"

/* Of prometheus._every_span, for who exports them; task_id is the last. */
#define PROM_TASK_SPAN_COLUMNS                                 \
	"s.trace_id, s.span_id, s.parent_span_id, s.name, s.kind," \
	" s.status, s.started_at, s.ended_at, s.attributes::text," \
	" s.task_id"

/* In a transaction, once SPI is connected: there is nothing. */
extern void prom_readahead_begin(void);

/* Before the first of these is looked at: read of some of them. */
extern void prom_readahead(const PromEntry *entries, int n);

/* Has more of them been read of?  That would be lost with the transaction. */
extern bool prom_readahead_has_more(void);

/* The tree of one was looked at: are its spans wanted? */
extern void prom_readahead_learn(bool wanted);

/*
 * Is all of a task there?  Then it is these rows of SPI_tuptable, in the order
 * of their time and id; not to be freed.
 */
extern bool prom_readahead_find(int64 task_id, uint64 *first, uint64 *beyond);

#endif
