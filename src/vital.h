/*
 * vital.h
 *	  What the server and the processes of prometheus look like now, as numbers
 *	  that alerts are judged by.
 *
 * vital.c looks at the server, pulse.c at prometheus itself.  Nothing here
 * needs a transaction, but where it is said.
 */
#ifndef PROM_VITAL_H
#define PROM_VITAL_H

#include "queue.h"
#include "shmem.h"

/* Nobody can say it, or there is no such thing. */
#define PROM_UNKNOWN (-1.0)

/* A look; db is NULL in a database that is not served. */
typedef struct PromLook
{
	PromDatabase *db;
	TimestampTz now;
	const char *what; /* what the last number is of; NULL: no more to say */
	bool is_private;  /* the last number is not for everybody */
} PromLook;

typedef double (*PromVital)(PromLook *look);

/* Of the server. */
extern double prom_vital_wal(PromLook *look);
extern double prom_vital_wal_rate(PromLook *look);
extern double prom_vital_slots(PromLook *look);
extern double prom_vital_archiver(PromLook *look);
extern double prom_vital_replicas(PromLook *look);
extern double prom_vital_snapshot(PromLook *look);
extern double prom_vital_prepared(PromLook *look);
extern double prom_vital_places(PromLook *look);

/* Of prometheus. */
extern double prom_pulse_due(PromLook *look);
extern double prom_pulse_gates(PromLook *look);
extern double prom_pulse_money(PromLook *look);
extern double prom_pulse_marks(PromLook *look);
extern double prom_pulse_workers(PromLook *look);
extern double prom_pulse_size(PromLook *look);
extern double prom_pulse_growth(PromLook *look);
extern double prom_pulse_budget(PromLook *look);
extern double prom_pulse_lag(PromLook *look);
extern double prom_pulse_dead(PromLook *look);
extern double prom_pulse_export(PromLook *look); /* exported.c */

/* The queue: tasks by their states, and the one that has been ready longest. */
typedef struct PromPulseQueue
{
	int64 tasks[PROM_NQUEUE_STATES];
	int64 oldest; /* 0: none is ready */
	TimestampTz since;
} PromPulseQueue;

/* False: nobody keeps one. */
extern bool prom_pulse_queue(PromDatabase *db, PromPulseQueue *seen);

/* What that needs from one look to the next: the publisher's, at each. */
extern void prom_vital_follow(PromLook *look);
extern void prom_pulse_follow(PromLook *look);

/*
 * Are there prepared transactions of which this process knows too little?  Then
 * they are to be read: in a transaction, as the extension's owner.
 */
extern bool prom_vital_must_read(void);
extern void prom_vital_read(void);

/*
 * The publisher's, in the same: how large the relations are, and who is behind.
 * True: there are consumers.
 */
extern void prom_pulse_read_sizes(PromLook *look);
extern bool prom_pulse_read_readers(PromLook *look);

/* Nobody looks any more: the launcher, when no worker is left. */
extern void prom_vital_forget(PromDatabase *db);

#endif
