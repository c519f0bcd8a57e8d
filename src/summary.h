/*
 * summary.h
 *	  What an agent has done last, as a state of it.
 */
#ifndef PROM_SUMMARY_H
#define PROM_SUMMARY_H

#include "utils/timestamp.h"

/* In a transaction that may complete tasks: none is noted yet. */
extern void prom_summary_begin(void);

/* Of an agent and who submits to it; two of the same hash are taken for one. */
extern uint64 prom_summary_hash(const char *agent, const char *submitter,
								Oid submitter_oid);

/*
 * A task is completed by this transaction: no other of the same agent and
 * submitter that was noted before it is of interest any more.
 */
extern void prom_summary_note(int64 task_id, uint64 whose);

/*
 * Save the summaries of the tasks that were noted, whose facts are written.
 * What cannot be saved is told by an event.  With SPI connected.
 */
extern void prom_summary_save(TimestampTz now);

#endif
