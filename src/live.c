/*
 * live.c
 *	  Finds the tasks that have not ended, and keeps that short by checkpoints.
 *
 * A checkpoint is a snapshot and the tasks that were live in it.  What is live
 * now is among those and the tasks whose transactions that snapshot did not
 * see.  Both are read with the same statement, so a checkpoint follows from
 * the facts alone: nothing that a process forgot can make it wrong.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "era.h"
#include "live.h"
#include "role.h"
#include "xact.h"

/* So many at a time, of all and of candidates: these are looked up. */
#define FETCH 10000
#define FETCH_CANDIDATES 1000

/*
 * The newest checkpoint that this very database wrote: in a clone the xids of
 * its snapshot mean nothing.  A restore adds facts that its snapshot calls
 * visible, and rows of _era.  But other facts may come after those rows, as
 * long as the restore goes on: so what a copy wrote while it was paused is no
 * good when it is resumed.
 */
#define WAITS                                 \
	"EXISTS (SELECT FROM prometheus._gate g"  \
	" WHERE g.target = 'all' AND g.reason = " \
	"'" PROM_ERA_REASON "')"

#define ERAS "(SELECT count(*) FROM prometheus._era)"

#define CHECKPOINT                                            \
	"SELECT c.snapshot, c.live FROM prometheus._checkpoint c" \
	" WHERE c.checkpoint_id = (SELECT max(checkpoint_id)"     \
	"   FROM prometheus._checkpoint)"                         \
	"   AND c.system_identifier = $1 AND c.database_oid = $2" \
	"   AND c.eras = " ERAS " AND c.waits = " WAITS

/* Of candidates "t", those that live and what the queue must know of them. */
#define LIVE_COLUMNS                                                         \
	" t.task_id, CASE WHEN r.attempt >= o.attempt THEN r.retried_at"         \
	" ELSE coalesce(CASE WHEN o.outcome = 'waiting'"                         \
	" AND ((SELECT " PROM_DECIDED " FROM (SELECT t.task_id) w)"              \
	"  OR EXISTS (SELECT FROM prometheus._attempt a"                         \
	"   WHERE a.task_id = t.task_id AND a.attempt > o.attempt))"             \
	" THEN t.submitted_at END,"                                              \
	" o.next_run_at, t.run_at, t.submitted_at) END,"                         \
	" coalesce(r.deadline, t.deadline),"                                     \
	" t.submitter_oid, t.submitter, t.priority,"                             \
	" o.attempt > coalesce(r.attempt, 0),"                                   \
	" EXISTS (SELECT FROM prometheus._attempt a WHERE a.task_id = t.task_id" \
	"            AND a.attempt > coalesce(o.attempt, 0)),"                   \
	" EXISTS (SELECT FROM prometheus._cancel c WHERE c.task_id = t.task_id"  \
	"    AND (r.retried_at IS NULL OR c.requested_at >= r.retried_at)),"     \
	" t.agent,"                                                              \
	" coalesce((SELECT v.model FROM prometheus._attempt a"                   \
	"   JOIN prometheus._agent v"                                            \
	"   ON v.name = t.agent AND v.version = a.agent_version"                 \
	"   WHERE a.task_id = t.task_id AND a.attempt > coalesce(r.attempt, 0)"  \
	"   ORDER BY a.attempt DESC LIMIT 1),"                                   \
	"  (SELECT v.model FROM prometheus._agent v WHERE v.name = t.agent"      \
	"   ORDER BY v.version DESC LIMIT 1)),"                                  \
	" t.concurrency_key, t.conversation,"                                    \
	" CASE WHEN t.depends_on IS NOT NULL"                                    \
	"  THEN ARRAY(SELECT d " PROM_PARENTS "e.outcome IS NULL) END,"          \
	" t.depends_on IS NOT NULL AND " PROM_ANYWAY ","                         \
	" t.depends_on IS NOT NULL AND NOT " PROM_ANYWAY                         \
	" AND EXISTS (SELECT " PROM_PARENTS "e.outcome <> 'completed'),"         \
	" coalesce(o.outcome = 'waiting', false)"

#define LIVE_OUTCOME                                                        \
	" LEFT JOIN LATERAL (SELECT x.attempt, x.outcome, x.next_run_at"        \
	"    FROM prometheus._outcome x WHERE x.task_id = t.task_id"            \
	"   ORDER BY x.attempt DESC LIMIT 1) o ON true"                         \
	" LEFT JOIN LATERAL (SELECT x.attempt, x.retried_at, x.deadline"        \
	"    FROM prometheus._retry x WHERE x.task_id = t.task_id"              \
	"   ORDER BY x.attempt DESC LIMIT 1) r ON true"                         \
	" WHERE o.outcome IS NULL OR o.outcome IN ('retry', 'waiting', 'lost')" \
	" OR r.attempt >= o.attempt"

/* What the newest checkpoint lists, and what came after it. */
#define WITH_CANDIDATE                                        \
	"WITH c AS MATERIALIZED (" CHECKPOINT "), candidate AS (" \
	" SELECT unnest(c.live) AS task_id FROM c"                \
	" UNION SELECT n.task_id FROM c, prometheus._task n"      \
	"  WHERE n.xid >= pg_snapshot_xmin(c.snapshot)"           \
	"    AND NOT pg_visible_in_snapshot(n.xid, c.snapshot)"   \
	" UNION SELECT n.task_id FROM c, prometheus._retry n"     \
	"  WHERE n.xid >= pg_snapshot_xmin(c.snapshot)"           \
	"    AND NOT pg_visible_in_snapshot(n.xid, c.snapshot))"

/* In the order in which they were submitted: not all may find room. */
#define CANDIDATES WITH_CANDIDATE " SELECT task_id FROM candidate ORDER BY 1"

#define LIVE_SINCE                         \
	WITH_CANDIDATE " SELECT " LIVE_COLUMNS \
				   " FROM candidate JOIN prometheus._task t ON t.task_id = candidate.task_id" LIVE_OUTCOME

#define LIVE_ALL "SELECT " LIVE_COLUMNS " FROM prometheus._task t" LIVE_OUTCOME

#define LIVE_AMONG                                              \
	"SELECT " LIVE_COLUMNS " FROM unnest($1) AS among(task_id)" \
	" JOIN prometheus._task t ON t.task_id = among.task_id" LIVE_OUTCOME

static PromStatement among_statement = {
	LIVE_AMONG,
	1,
	{INT8ARRAYOID},
	NULL,
};

static Oid argument_types[2] = {INT8OID, OIDOID};

static void
fill_arguments(Datum *values)
{
	values[0] = Int64GetDatum((int64) GetSystemIdentifier());
	values[1] = ObjectIdGetDatum(MyDatabaseId);
}

static bool
checkpoint_exists(void)
{
	Datum values[2];

	fill_arguments(values);
	if (SPI_execute_with_args(CHECKPOINT, 2, argument_types, values, NULL, true,
							  1) != SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._checkpoint");
	return SPI_processed > 0;
}

/* The whole table is read in its own order; a worker's session forbids that. */
static int
allow_any_plan(void)
{
	int level = NewGUCNestLevel();

	SetConfigOption("enable_seqscan", "on", PGC_SUSET, PGC_S_SESSION);
	SetConfigOption("enable_hashjoin", "on", PGC_SUSET, PGC_S_SESSION);
	return level;
}

static uint32
name_of(uint64 row, int column)
{
	char *name = prom_row_text_or_null(row, column);
	uint32 hash = name == NULL ? 0 : prom_hash_name(name);

	if (name != NULL)
		pfree(name);
	return hash;
}

/* The hashes by which the queue knows its keys. */
static void
read_keys(uint64 row, const char *submitter, PromHint *hint)
{
	char *key = prom_row_text_or_null(row, 12);
	char *conversation = prom_row_text_or_null(row, 13);

	if (key != NULL)
	{
		hint->key = prom_hash_key(key);
		pfree(key);
	}
	if (conversation != NULL)
	{
		char *agent = prom_row_text(row, 10);

		hint->conversation = prom_hash_conversation(submitter, agent,
													conversation);
		pfree(agent);
		pfree(conversation);
	}
}

/* The tasks that it waits for, or NULL. */
static int64 *
read_parents(uint64 row, int *n)
{
	bool isnull;
	Datum array = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
								14, &isnull);

	*n = 0;
	return isnull ? NULL : prom_read_int8_array(array, n);
}

static bool
visit_row(uint64 row, PromLiveTaskVisit visit, void *arg)
{
	PromLiveTask task = {0};
	int64 *parents;
	char *name;
	bool wanted;

	task.hint.kind = PROM_HINT_SUBMIT;
	task.hint.task_id = prom_row_int64(row, 1);
	task.hint.due = prom_row_time(row, 2);
	task.hint.deadline = prom_row_time(row, 3);
	task.hint.submitter.role = prom_row_oid(row, 4);
	name = prom_row_text(row, 5);
	task.hint.submitter.name = prom_role_hash(name);
	read_keys(row, name, &task.hint);
	pfree(name);
	task.hint.priority = prom_row_int32(row, 6);
	task.retrying = !prom_row_isnull(row, 7) && prom_row_bool(row, 7);
	task.open = prom_row_bool(row, 8);
	task.cancelled = prom_row_bool(row, 9);
	task.hint.target.agent = name_of(row, 10);
	task.hint.target.model = name_of(row, 11);
	task.parents = parents = read_parents(row, &task.nparents);
	task.anyway = prom_row_bool(row, 15);
	task.doomed = prom_row_bool(row, 16);
	task.waiting = prom_row_bool(row, 17);
	wanted = visit(&task, arg);
	if (parents != NULL)
		pfree(parents);
	return wanted;
}

/* Each row of a cursor is a live task. */
static bool
visit_rows(Portal cursor, PromLiveTaskVisit visit, void *arg)
{
	bool wanted = true;

	SPI_cursor_fetch(cursor, true, FETCH);
	if (SPI_processed == 0)
		return false;
	for (uint64 i = 0; i < SPI_processed && wanted; i++)
		wanted = visit_row(i, visit, arg);
	SPI_freetuptable(SPI_tuptable);
	return wanted;
}

static void
visit_among(const int64 *task_ids, int n, PromLiveTaskVisit visit, void *arg)
{
	Datum argument = PointerGetDatum(prom_int8_array(task_ids, n));

	prom_statement_run(&among_statement, &argument, NULL, true);
	for (uint64 i = 0; i < SPI_processed; i++)
		if (!visit_row(i, visit, arg))
			break;
	SPI_freetuptable(SPI_tuptable);
	pfree(DatumGetPointer(argument));
}

/* Each row of a cursor is the id of a task that may live. */
static bool
visit_candidates(Portal cursor, PromLiveTaskVisit visit, void *arg)
{
	int64 *ids;
	int n;

	SPI_cursor_fetch(cursor, true, FETCH_CANDIDATES);
	n = SPI_processed;
	if (n == 0)
		return false;
	ids = palloc(n * sizeof(int64));
	for (int i = 0; i < n; i++)
		ids[i] = prom_row_int64(i, 1);
	SPI_freetuptable(SPI_tuptable);
	visit_among(ids, n, visit, arg);
	pfree(ids);
	return true;
}

void
prom_live_tasks(PromLiveTaskVisit visit, void (*pause)(void), void *arg)
{
	bool since = checkpoint_exists();
	int level = since ? 0 : allow_any_plan();
	Datum values[2];
	Portal cursor;

	fill_arguments(values);
	cursor = SPI_cursor_open_with_args(NULL, since ? CANDIDATES : LIVE_ALL,
									   since ? 2 : 0, argument_types, values,
									   NULL, true, CURSOR_OPT_NO_SCROLL);
	while (since ? visit_candidates(cursor, visit, arg)
				 : visit_rows(cursor, visit, arg))
	{
		CHECK_FOR_INTERRUPTS();
		pause();
	}
	SPI_cursor_close(cursor);
	if (!since)
		AtEOXact_GUC(false, level);
}

void
prom_live_tasks_among(const int64 *task_ids, int n, PromLiveTaskVisit visit,
					  void (*pause)(void), void *arg)
{
	for (int i = 0; i < n; i += FETCH_CANDIDATES)
	{
		if (i > 0)
		{
			CHECK_FOR_INTERRUPTS();
			pause();
		}
		visit_among(task_ids + i, Min(n - i, FETCH_CANDIDATES), visit, arg);
	}
}

#define WRITE_CHECKPOINT(live)                                       \
	"INSERT INTO prometheus._checkpoint"                             \
	" (written_at, system_identifier, database_oid, waits, eras,"    \
	" snapshot, live)"                                               \
	" SELECT clock_timestamp(), $1, $2, " WAITS ", " ERAS ","        \
	" prometheus._snapshot(), "                                      \
	"        coalesce(array_agg(l.task_id), '{}') FROM (" live ") l" \
	" RETURNING cardinality(live)"

int64
prom_live_checkpoint(void)
{
	bool since = checkpoint_exists();
	int level = since ? 0 : allow_any_plan();
	SPIPlanPtr plan = SPI_prepare(since ? WRITE_CHECKPOINT(LIVE_SINCE)
										: WRITE_CHECKPOINT(LIVE_ALL),
								  2, argument_types);
	Datum values[2];
	int64 live;
	bool isnull;

	fill_arguments(values);

	/* With the snapshot that found the one before still to be good. */
	if (plan == NULL ||
		SPI_execute_snapshot(plan, values, NULL, GetActiveSnapshot(),
							 InvalidSnapshot, false, true,
							 0) != SPI_OK_INSERT_RETURNING)
		elog(ERROR, "could not write a checkpoint");
	live = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1, &isnull));
	if (SPI_execute(
			"DELETE FROM prometheus._checkpoint WHERE checkpoint_id <"
			" (SELECT max(checkpoint_id) - 1 FROM prometheus._checkpoint)",
			false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete old checkpoints");
	if (!since)
		AtEOXact_GUC(false, level);
	return live;
}
