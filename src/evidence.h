/*
 * evidence.h
 *	  What tasks show of memories, and what of them is consolidated.
 */
#ifndef PROM_EVIDENCE_H
#define PROM_EVIDENCE_H

#include "memory.h"

/* A memory that a task was told before it began; but not who it is. */
typedef struct PromTold
{
	int64 memory_id;
	const char *kind; /* that it had then */
} PromTold;

/*
 * What a task in full mode was told before this step, palloc'd, and how many.
 * With SPI connected.
 */
extern PromTold *prom_evidence_read_told(int64 task_id, int32 step, int *n);

/*
 * A task was told these and has ended with such a score: that counts for those
 * which are procedures.  As the extension's owner, with SPI connected.
 */
extern void prom_evidence_of_procedures(const PromMemoryOwner *owner,
										const PromTold *told, int n,
										int64 task_id, double score);

/* A task remembers a fact that is there, and has it locked. */
extern void prom_evidence_of_fact(const PromMemoryOwner *owner,
								  int64 memory_id, int64 task_id);

#endif
