/*
 * worker.h
 *	  What every process of a database does: begin, notice signals, end.
 */
#ifndef PROM_WORKER_H
#define PROM_WORKER_H

#include "shmem.h"
#include "xact.h"

extern PromDatabase *prom_my_database;
extern PromWorker *prom_my_worker;

/* The name of a role, as in backend_type without "prometheus ". */
extern const char *prom_worker_role_name(PromRole role);

/* What a process is started with: the number of its database, and its place. */
extern Datum prom_worker_argument(int database, int place);

/* Of max_worker_processes, how many all of prometheus needs. */
extern int prom_worker_places_needed(void);

/*
 * Begin: signals, the role's place in shared memory, the connection, the
 * session's settings.  Does not return if another process has the place.
 */
extern void prom_worker_begin(PromRole role, Datum main_arg);

/*
 * Begin a transaction and make sure that the extension is there and ours.  If
 * it is not, the transaction is closed again and false returned; a change of
 * its owner ends the process, so that it comes back as that role.
 */
extern bool prom_worker_xact_begin(const char *activity);

/*
 * Settings that are only ours become what they are in any session, in a nest
 * level that the caller has begun.
 */
extern void prom_worker_set_plain(void);

/* The search_path that a session of this database begins with. */
extern const char *prom_worker_default_path(void);

/* At the head of each loop: interrupts, reload; true: the process is to end. */
extern bool prom_worker_should_end(void);

/* What is done from here on is the last thing and not to be cut short. */
extern void prom_worker_finish(void);

/* Milliseconds from now to a moment, for a wait; -1 for DT_NOEND. */
extern long prom_worker_wait_time(TimestampTz until);

/* The shorter of two waits, ms; negative: no limit. */
extern long prom_worker_sooner(long a, long b);

/* The same limit, or until statistics are due if that is sooner. */
extern long prom_worker_wait_limit(long ms);

/* Wait on the latch, at most ms (-1: no limit), and reset it. */
extern void prom_worker_wait(long ms, const char *event);

extern PGDLLEXPORT void prom_scheduler_main(Datum main_arg);
extern PGDLLEXPORT void prom_caller_main(Datum main_arg);
extern PGDLLEXPORT void prom_publisher_main(Datum main_arg);
extern PGDLLEXPORT void prom_executor_main(Datum main_arg);
extern PGDLLEXPORT void prom_launcher_main(Datum main_arg);

#endif
