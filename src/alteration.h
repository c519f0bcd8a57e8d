/*
 * alteration.h
 *	  What statements do to tracked tables themselves.
 */
#ifndef PROM_ALTERATION_H
#define PROM_ALTERATION_H

#include "nodes/nodes.h"
#include "nodes/pg_list.h"

/* What a statement has altered so far; one runs within another. */
typedef struct PromAlteration
{
	List *tables;   /* by oid */
	List *files;    /* those that they had, in the same order */
	List *bare;     /* those that lost a trigger of ours */
	List *early;    /* layouts that were recorded before its end */
	List *computed; /* names of columns to which it gives new values */
	bool types;     /* a type or a schema got another name */
	struct PromAlteration *outer;
} PromAlteration;

extern void prom_alteration_init(void);

/*
 * Around a statement.  What it did is recorded when it has ended, in its
 * transaction; what the history of rows could not bear raises.
 */
extern void prom_alteration_begin(PromAlteration *mine, const Node *statement);
extern void prom_alteration_record(PromAlteration *mine);
extern void prom_alteration_end(PromAlteration *mine);

/*
 * The layout of a table was recorded by who changed a row, while the statement
 * that altered it had not ended; number: of the layout before.
 */
extern void prom_alteration_early(Oid relid, int32 number);

#endif
