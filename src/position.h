/*
 * position.h
 *	  How far a reader of facts has come: the transactions that he has seen.
 */
#ifndef PROM_POSITION_H
#define PROM_POSITION_H

/* A snapshot, its xids with their era; xip is sorted. */
typedef struct PromPosition
{
	uint64 xmin;
	uint64 xmax;
	uint64 *xip;
	int nxip;
} PromPosition;

/* What is committed now; what this transaction has written is not in it. */
extern void prom_position_now(PromPosition *position);

/* The same for who does not keep it: he begins no era. */
extern void prom_position_look(PromPosition *position);

/* Before the first transaction of all. */
extern void prom_position_begin(PromPosition *position);

/* From a pg_snapshot, and its text. */
extern void prom_position_read(Datum snapshot, PromPosition *position);
extern char *prom_position_text(const PromPosition *position);

/* Is all that is seen at the first seen at the second? */
extern bool prom_position_precedes(const PromPosition *first,
								   const PromPosition *second);

/*
 * The transactions that are seen at the second and not at the first position,
 * as ranges: arrays of xid8, of the first of each and of the one beyond it.
 * How many there are.
 */
extern int prom_position_between(const PromPosition *first,
								 const PromPosition *second, Datum *from,
								 Datum *to);

/*
 * Into a third one: it sees what the first sees, and what the second, a later
 * one, sees of transactions before xid.
 */
extern void prom_position_cut(const PromPosition *first,
							  const PromPosition *second, uint64 xid,
							  PromPosition *cut);

#endif
