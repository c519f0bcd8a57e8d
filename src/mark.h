/*
 * mark.h
 *	  Marks: what a transaction saw at a moment, and when that was.
 */
#ifndef PROM_MARK_H
#define PROM_MARK_H

#include "utils/timestamp.h"

extern void prom_mark_init(void);

/*
 * The newest mark, for a versioned fact that is about to be written: none
 * that is older sees it.  0: there is none.
 */
extern int64 prom_mark_newest(void);

/* Is there one, also one that a restore has brought? */
extern bool prom_mark_exists(void);

/* This transaction writes a fact: let there be a mark after its commit. */
extern void prom_mark_wrote(void);

/* Such a transaction has just committed, and in another process. */
extern void prom_mark_changed(void);

/*
 * Let the publisher write a mark at once, and wait until it wrote one or some
 * milliseconds have passed.  False: nobody writes marks for this database.
 */
extern bool prom_mark_ask(long ms);

/*
 * The extension, of this version, is about to be updated: let there be a mark
 * with a name.
 */
extern void prom_mark_before_update(const char *version);


/* The publisher's. */

extern void prom_mark_begin(void);

/* When to write one; DT_NOEND: nothing has changed. */
extern TimestampTz prom_mark_due(void);

/* Write one, and whatever names were asked for, in a transaction of its own. */
extern void prom_mark_write(void);

/* It did not work; it is tried again in a while. */
extern void prom_mark_failed(void);

#endif
