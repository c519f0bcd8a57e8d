/*
 * xact.h
 *	  Transactions of workers, and statements that are prepared once.
 */
#ifndef PROM_XACT_H
#define PROM_XACT_H

#include "executor/spi.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* A statement and, from its first use on, its plan. */
typedef struct PromStatement
{
	const char *sql; /* every name qualified */
	int nargs;
	Oid argtypes[12];
	SPIPlanPtr plan;
} PromStatement;

/*
 * Begin and end a worker's transaction, with its snapshot, report of activity
 * and statistics.  The memory context of before is current after each.
 */
extern void prom_xact_begin(const char *activity);
extern void prom_xact_commit(void);

/*
 * Statistics that were too fresh to send: when they are due (DT_NOEND: there
 * are none), and send them if that is now.
 */
extern TimestampTz prom_xact_statistics_due(void);
extern void prom_xact_send_statistics(void);

/* End it after an error, which is reported to the log, and go on. */
extern void prom_xact_abort(void);

/* The same without a word in the log: it was said before. */
extern void prom_xact_abort_quietly(void);
extern bool prom_xact_is_open(void);

/*
 * Act in a subtransaction, within a transaction: an error takes back only that.
 * The error, palloc'd and with a message, or NULL.  The second one has it in
 * the log as well.
 */
extern ErrorData *prom_xact_try(void (*act)(void *arg), void *arg);
extern ErrorData *prom_xact_try_aloud(void (*act)(void *arg), void *arg);

/* Can what failed with this error succeed later, as it is? */
extern bool prom_xact_is_transient(int code);

/* Is it the server that cannot write just now, whatever it is? */
extern bool prom_xact_is_general(int code);

/*
 * Run a statement; SPI must be connected.  The result is in SPI_tuptable and
 * SPI_processed, the current memory context is as before.  A NULL nulls means
 * that no argument is NULL.
 */
extern void prom_statement_run(PromStatement *statement, Datum *values,
							   const char *nulls, bool read_only);

/*
 * Run a statement of a user's session by a snapshot of this moment, also in a
 * REPEATABLE READ transaction; SPI must be connected.  What SPI_execute gives.
 */
extern int prom_execute_now(const char *sql, int nargs, Oid *types,
							Datum *values, const char *nulls, bool read_only);

/* The same of a statement that is run often, and only reads. */
extern void prom_statement_run_now(PromStatement *statement, Datum *values);

/* An array of bigint, for an argument, */
extern ArrayType *prom_int8_array(const int64 *values, int n);

/* The values of one, palloc'd; it contains no nulls. */
extern int64 *prom_read_int8_array(Datum array, int *n);

/* Column of a row of SPI_tuptable; the first group raises on NULL. */
extern int64 prom_row_int64(uint64 row, int column);
extern int32 prom_row_int32(uint64 row, int column);
extern Oid prom_row_oid(uint64 row, int column);
extern bool prom_row_bool(uint64 row, int column);
extern float8 prom_row_float8(uint64 row, int column);
extern TimestampTz prom_row_time(uint64 row, int column);
extern const pg_uuid_t *prom_row_uuid(uint64 row, int column);
extern char *prom_row_text(uint64 row, int column);
extern bool prom_row_isnull(uint64 row, int column);
extern int64 prom_row_int64_or(uint64 row, int column, int64 otherwise);
extern char *prom_row_text_or_null(uint64 row, int column);

/* A copy of an array, or NULL. */
extern Jsonb *prom_row_jsonb_or_null(uint64 row, int column);
extern ArrayType *prom_row_array_or_null(uint64 row, int column);

/* Bytes that a text has, or 0; the text itself is not read. */
extern int64 prom_row_bytes(uint64 row, int column);

#endif
