/*
 * exported.h
 *	  What the export of traces says of itself, in shared memory.
 */
#ifndef PROM_EXPORTED_H
#define PROM_EXPORTED_H

#include "shmem.h"

/* The caller's: it is on or off; */
extern void prom_exported_switch(bool is_on);

/* something waits since then (is_first: nothing longer), or nothing does; */
extern void prom_exported_wait(TimestampTz since, bool is_first);
extern void prom_exported_rest(void);

/* so many spans of applications were written since this was asked last; */
extern uint32 prom_exported_take_spans(void);

/* a request is over with; */
extern void prom_exported_count(const PromExportCount *count);

/* an attempt has succeeded, or failed, and the next one is then (0: none). */
extern void prom_exported_succeeded(const char *message, TimestampTz now);
extern void prom_exported_failed(const char *message, TimestampTz next,
								 TimestampTz now);

/* Publisher: it has written so many spans of applications. */
extern void prom_exported_spans(uint64 n);

/* Metrics: so many points were taken, and not; message: why, "": all well. */
extern void prom_exported_points(int64 taken, int64 rejected,
								 const char *message);

/* Is it sure that nothing waits? */
extern bool prom_exported_rests(PromDatabase *db);

/* A copy of what it says; false: it is off. */
extern bool prom_exported_look(PromDatabase *db, PromExported *exported);

#endif
