/*
 * window.h
 *	  What has come between two positions, in order and a part at a time.
 */
#ifndef PROM_WINDOW_H
#define PROM_WINDOW_H

#include "position.h"
#include "utils/array.h"
#include "utils/timestamp.h"

/* A snapshot at an edge of a window. */
typedef struct PromEdge
{
	PromPosition position;
	int64 mark_id; /* it sees this one; of a later one that is not known */
	TimestampTz at;
} PromEdge;

/* After the event of that time and id. */
typedef struct PromPlace
{
	TimestampTz at;
	int64 event_id;
} PromPlace;

/* Events that a role may see, of some types. */
typedef struct PromWindow
{
	const char *name; /* of the consumer whose it is */
	Oid reader;
	ArrayType *types; /* NULL: all */
	PromEdge base;
	bool is_open; /* it goes to: */
	PromEdge bound;
	PromPlace done; /* what comes before is not wanted any more */
} PromWindow;

typedef struct PromEntry
{
	PromPlace place;
	int64 task_id; /* 0: none */
} PromEntry;

extern const PromPlace prom_window_beginning;

/*
 * All of these need SPI, as the extension's owner, with index plans; but
 * prom_window_task() needs nothing.
 *
 * Let one that is not open begin at the last mark at or before a moment, or
 * now; raises for the future.
 */
extern void prom_window_start(PromWindow *window, bool is_now,
							  TimestampTz start);

/*
 * Open it so far that there are as many events as are wanted, or to now.  If
 * there is none, it stays closed.  True: it has changed.
 */
extern bool prom_window_open(PromWindow *window, int want);

/* Is the first one after the other? */
extern bool prom_window_is_after(const PromPlace *a, const PromPlace *b);

/* Where it begins, and what of it is done: to be known again. */
extern char *prom_window_place(const PromWindow *window);

/* It begins where it ended. */
extern void prom_window_close(PromWindow *window);

/*
 * The next events of an open one: how many, and whether these are all.  They
 * are valid until the next call.
 */
extern int prom_window_next(const PromWindow *window, int want,
							PromEntry **entries, bool *all);

/* The task of an event that is at hand since it was given; 0: none, or not. */
extern int64 prom_window_task(int64 event_id);

/* How many there are until now among the first so many, wanted or not. */
extern int64 prom_window_count(const PromWindow *window, int64 most);

/* The ids and the tasks of some entries, as prometheus._events() has them. */
extern void prom_window_arrays(const PromEntry *entries, int n, Datum *ids,
							   Datum *tasks);

/* The events of some entries, in SPI_tuptable, as in prometheus.event. */
extern void prom_window_read(const PromEntry *entries, int n);

/* From the base to the newest mark, us. */
extern int64 prom_window_behind(const PromWindow *window);

#endif
