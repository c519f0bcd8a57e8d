/*
 * use.h
 *	  Which memories were recalled, and when.
 */
#ifndef PROM_USE_H
#define PROM_USE_H

#include "shmem.h"

extern void prom_use_init(PromUses *uses);

/*
 * The memories of SPI_tuptable, whose first column is memory_id, were recalled
 * now; not if it is asked what was recalled at a moment of the past.
 */
extern void prom_use_of_rows(void);


/* The publisher's. */

extern void prom_use_begin(void);

/* When to write; DT_NOEND: there is nothing. */
extern TimestampTz prom_use_due(void);

/* Write what is due, in a transaction; or all. */
extern void prom_use_write(void);
extern void prom_use_write_all(void);

/*
 * When a memory m was used last, as far as that is written: an expression for
 * statements.
 */
#define PROM_MEMORY_LAST_USE                                  \
	"greatest(m.created_at, (SELECT u.used_at"                \
	"   FROM prometheus._memory_use u"                        \
	"   WHERE u.memory_id OPERATOR(pg_catalog.=) m.memory_id" \
	"   ORDER BY u.used_at DESC LIMIT 1))"

#endif
