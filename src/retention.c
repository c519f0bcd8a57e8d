/*
 * retention.c
 *	  Deletes what was kept for long enough.
 *
 * DESIGN
 *
 * A pass has phases, each of many small transactions with pauses between:
 *
 *	REST	until the next pass
 *	SETTLE	the horizon was moved; transactions that may have looked at the
 *			one before are waited for (horizon.c)
 *	TASKS	trees of tasks, in the order of their ids, with the events that
 *			their tools emitted
 *	EVENTS	others that were emitted before the horizon
 *	VERSIONS	that were superseded before the horizon
 *	MARKS	that were written before the horizon
 *	SPANS	of applications
 *	AUDIT	what was kept of tasks that are gone
 *
 * The horizon is a mark, the newest that is old enough: what goes had ended, or
 * was superseded, in its snapshot.  So no mark that stays shows a version that
 * is gone.
 *
 * Tasks that are tied to each other, by delegation or by depends_on, are a
 * tree.  All of a tree goes in one transaction, when each of it has ended
 * before the horizon: so whatever a task needs, for its prompt, a retry, a
 * dependent that is still to run, is there as long as it is.  What stays for
 * the audit is written in the same transaction.
 *
 * Versions are superseded.c's.
 *
 * While everything is paused nothing is deleted: so a copy, and a server that
 * was restored to look at the past, keep what they have.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "consumer.h"
#include "era.h"
#include "exported.h"
#include "fault.h"
#include "guc.h"
#include "retention.h"
#include "superseded.h"
#include "wakeup.h"
#include "worker.h"
#include "xact.h"

/* From the start, from one to the next, and after a failure, ms. */
#define FIRST_PASS 300000
#define LONGEST_REST 3600000
#define SHORTEST_REST 1000
#define AFTER_FAILURE 60000

/* A pause is as long as what came before it, and between these, ms. */
#define SHORTEST_PAUSE 5
#define LONGEST_PAUSE 1000

/* Before transactions that may have seen the horizon of before are over. */
#define SETTLE_PAUSE 50

#define BATCH 64         /* tasks that are looked at */
#define OLDEST_ROWS 1000 /* that go together */

typedef enum Phase
{
	REST,
	SETTLE,
	TASKS,
	EVENTS,
	VERSIONS,
	MARKS,
	SPANS,
	AUDIT
} Phase;

static struct
{
	Phase phase;
	TimestampTz due;
	int retention; /* the settings that due is by */
	int retention_audit;
	int retention_spans;
	int retention_waiting;
	int pause; /* ms, until it has settled */

	MemoryContext context; /* of the pass */
	TimestampTz cutoff;    /* what ended before may go; */
	Datum snapshot;        /* and had ended in it */
	TransactionId settled; /* transactions before it must be over */
	HTAB *looked_at;       /* trees of which a task was found already */
	int64 last_task;
	int place; /* in the list of the audit */
	PromSupersededPlace superseded;
} pass;


/* Tasks. */

#define LAST_FACTS                                                    \
	" LEFT JOIN LATERAL (SELECT x.attempt, x.outcome, x.ended_at,"    \
	"   x.xid FROM prometheus._outcome x WHERE x.task_id = t.task_id" \
	"   ORDER BY x.attempt DESC LIMIT 1) o ON true"                   \
	" LEFT JOIN LATERAL (SELECT x.attempt FROM prometheus._retry x"   \
	"   WHERE x.task_id = t.task_id"                                  \
	"   ORDER BY x.attempt DESC LIMIT 1) r ON true"

/* A task t that ended before the cutoff, $2, and in the snapshot, $3. */
#define HAS_EXPIRED                                          \
	"coalesce(o.outcome NOT IN ('retry', 'waiting', 'lost')" \
	" AND o.attempt > coalesce(r.attempt, 0)"                \
	" AND o.ended_at < $2 AND pg_visible_in_snapshot(o.xid, $3), false)"

static PromStatement next_statement = {
	"SELECT t.task_id, t.submitted_at < $2, " HAS_EXPIRED ","
	" t.parent_id IS NOT NULL OR t.depends_on IS NOT NULL"
	" OR EXISTS (SELECT FROM prometheus._task c"
	"   WHERE c.parent_id = t.task_id)"
	" OR EXISTS (SELECT FROM prometheus._task d"
	"   WHERE d.depends_on @> ARRAY[t.task_id])"
	" FROM prometheus._task t" LAST_FACTS
	" WHERE t.task_id > $1 ORDER BY t.task_id LIMIT $4",
	4,
	{INT8OID, TIMESTAMPTZOID, PG_SNAPSHOTOID, INT8OID},
	NULL,
};

static PromStatement tree_statement = {
	"WITH RECURSIVE tree (task_id) AS (SELECT $1 UNION SELECT e.task_id"
	" FROM tree r CROSS JOIN LATERAL ("
	"   SELECT x.parent_id FROM prometheus._task x"
	"    WHERE x.task_id = r.task_id AND x.parent_id IS NOT NULL"
	"   UNION ALL SELECT unnest(x.depends_on) FROM prometheus._task x"
	"    WHERE x.task_id = r.task_id"
	"   UNION ALL SELECT x.task_id FROM prometheus._task x"
	"    WHERE x.parent_id = r.task_id"
	"   UNION ALL SELECT x.task_id FROM prometheus._task x"
	"    WHERE x.depends_on @> ARRAY[r.task_id]) e (task_id))"
	" SELECT t.task_id, " HAS_EXPIRED
	" FROM tree JOIN prometheus._task t ON t.task_id = tree.task_id" LAST_FACTS,
	3,
	{INT8OID, TIMESTAMPTZOID, PG_SNAPSHOTOID},
	NULL,
};

/* What goes with the tasks $1; what stays of them is written first. */
static PromStatement batch_statements[] = {
	{"INSERT INTO prometheus._audit_verdict (task_id, attempt, step, xid,"
	 " judged_at, latency_ms, approved, policy_version, submitter_oid,"
	 " submitter, agent, stage, effect, risk_level, governor, policy,"
	 " reasoning, suggestion, target_hash, scores)"
	 " SELECT x.task_id, x.attempt, x.step, x.xid, x.judged_at, x.latency_ms,"
	 " x.approved, x.policy_version, t.submitter_oid, t.submitter, t.agent,"
	 " x.stage, x.effect, x.risk_level, x.governor, x.policy, x.reasoning,"
	 " x.suggestion, x.target_hash, x.scores"
	 " FROM prometheus._verdict x"
	 " JOIN prometheus._task t ON t.task_id = x.task_id"
	 " WHERE x.task_id = ANY ($1)",
	 1,
	 {INT8ARRAYOID},
	 NULL},
	/* As the view prometheus.verdict makes them. */
	{"INSERT INTO prometheus._audit_verdict (task_id, attempt, xid, judged_at,"
	 " latency_ms, approved, policy_version, submitter_oid, submitter, agent,"
	 " stage, effect, risk_level, governor, target_hash)"
	 " SELECT a.task_id, a.attempt, a.xid, a.started_at, a.review_ms, true,"
	 " a.policy_version, t.submitter_oid, t.submitter, t.agent, 'task',"
	 " 'allow', 'LOW', 'JUSTICA',"
	 " prometheus._hash('task', t.agent, t.request)"
	 " FROM prometheus._attempt a"
	 " JOIN prometheus._task t ON t.task_id = a.task_id"
	 " WHERE a.task_id = ANY ($1) AND a.policy_version IS NOT NULL"
	 " AND NOT EXISTS (SELECT FROM prometheus._verdict x"
	 "   WHERE x.task_id = a.task_id AND x.attempt = a.attempt"
	 "     AND x.stage = 'task' AND x.governor IN ('JUSTICA', 'policy'))",
	 1,
	 {INT8ARRAYOID},
	 NULL},
	{"INSERT INTO prometheus._audit_approval (approval_id, task_id, attempt,"
	 " step, xid, decision_xid, requested_at, expires_at, decided_at,"
	 " submitter_oid, submitter, agent, tool, policy, approvers,"
	 " approvers_oid, target_hash, decision, decided_by, note, reasoning,"
	 " arguments)"
	 " SELECT x.approval_id, x.task_id, x.attempt, x.step, x.xid, d.xid,"
	 " x.requested_at, x.expires_at, d.decided_at, t.submitter_oid,"
	 " t.submitter, t.agent, x.tool, x.policy, x.approvers,"
	 " x.approvers_oid, x.target_hash, d.decision, d.decided_by, d.note,"
	 " x.reasoning, x.arguments"
	 " FROM prometheus._approval x"
	 " JOIN prometheus._task t ON t.task_id = x.task_id"
	 " LEFT JOIN prometheus._decision d ON d.approval_id = x.approval_id"
	 " WHERE x.task_id = ANY ($1)",
	 1,
	 {INT8ARRAYOID},
	 NULL},
	{"INSERT INTO prometheus._audit_usage (first_task, day, xid,"
	 " submitter_oid, submitter, agent, model, tasks, calls, tokens_in,"
	 " tokens_out, cost)"
	 " SELECT min(u.task_id), u.day, (SELECT o.xid FROM prometheus._outcome o"
	 "   WHERE o.task_id = ANY ($1) ORDER BY o.xid DESC LIMIT 1),"
	 " t.submitter_oid, t.submitter, t.agent, u.model, sum(u.tasks),"
	 " sum(u.calls), sum(u.tokens_in), sum(u.tokens_out), sum(u.cost)"
	 " FROM prometheus._used u"
	 " JOIN prometheus._task t ON t.task_id = u.task_id"
	 " WHERE u.task_id = ANY ($1)"
	 " GROUP BY u.day, t.submitter_oid, t.submitter, t.agent, u.model",
	 1,
	 {INT8ARRAYOID},
	 NULL},
	{"DELETE FROM prometheus._decision d USING prometheus._approval a"
	 " WHERE a.task_id = ANY ($1) AND d.approval_id = a.approval_id",
	 1,
	 {INT8ARRAYOID},
	 NULL},
#define DELETE_FROM(relation)                                              \
	{                                                                      \
		"DELETE FROM prometheus." relation " WHERE task_id = ANY ($1)", 1, \
			{INT8ARRAYOID}, NULL                                           \
	}
	DELETE_FROM("_event"),
	DELETE_FROM("_approval"),
	DELETE_FROM("_verdict"),
	DELETE_FROM("_strike"),
	DELETE_FROM("_state_failure"),
	DELETE_FROM("_idempotency"),
	DELETE_FROM("_retry"),
	DELETE_FROM("_cancel"),
	DELETE_FROM("_outcome"),
	DELETE_FROM("_step"),
	DELETE_FROM("_call"),
	DELETE_FROM("_attempt"),
	DELETE_FROM("_task"),
};


/* The oldest rows of one. */

#define OLDEST(relation, column, condition)                            \
	{                                                                  \
		"DELETE FROM prometheus." relation " WHERE ctid = ANY (ARRAY(" \
		"SELECT x.ctid FROM prometheus." relation " x WHERE x." column \
		" < $1" condition " ORDER BY x." column " LIMIT $2))",         \
			2, {TIMESTAMPTZOID, INT8OID}, NULL                         \
	}

static PromStatement event_statement = {
	"DELETE FROM prometheus._event WHERE ctid = ANY (ARRAY("
	"SELECT x.ctid FROM prometheus._event x"
	" WHERE x.xid < pg_snapshot_xmax($1) AND x.task_id IS NULL"
	" AND pg_visible_in_snapshot(x.xid, $1) ORDER BY x.xid LIMIT $2))",
	2,
	{PG_SNAPSHOTOID, INT8OID},
	NULL,
};

/* Those that still wait stay. */
static PromStatement delivery_statement = OLDEST("_delivery", "ended_at", "");

/* Those with a name stay, so that it can be said what has become of them. */
static PromStatement mark_statement =
	OLDEST("_mark", "at",
		   " AND NOT EXISTS (SELECT FROM prometheus._mark_name n"
		   "   WHERE n.mark_id = x.mark_id)");

/* Those that wait for their export stay until $3. */
static PromStatement span_statement = {
	"DELETE FROM prometheus._span WHERE ctid = ANY (ARRAY("
	"SELECT x.ctid FROM prometheus._span x WHERE x.ended_at < $1"
	" AND (x.ended_at < $3 OR NOT EXISTS ("
	"   SELECT FROM prometheus._span_position p"
	"    WHERE NOT pg_visible_in_snapshot(x.xid, p.base)))"
	" ORDER BY x.ended_at LIMIT $2))",
	3,
	{TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID},
	NULL,
};
static PromStatement kept_statement = OLDEST("_kept_trace", "kept_at", "");

static PromStatement audit_statements[] = {
	OLDEST("_audit_verdict", "judged_at", ""),
	OLDEST("_audit_approval", "requested_at", ""),
	OLDEST("_audit_usage", "day", ""),
};


/* Passes. */

static TimestampTz
before_now(int seconds)
{
	return GetCurrentTimestamp() - (int64) seconds * USECS_PER_SEC;
}

/* The shorter of two times, of which 0 is none. */
static int
shortest_of(int a, int b)
{
	if (a == 0 || b == 0)
		return Max(a, b);
	return Min(a, b);
}

/* An hour, or less for what is kept for less than four days. */
static void
rest(int ms)
{
	int shortest = shortest_of(shortest_of(prom_guc_retention,
										   prom_guc_retention_spans),
							   prom_guc_retention_audit);

	if (pass.context != NULL)
		MemoryContextDelete(pass.context);
	pass.context = NULL;
	pass.phase = REST;
	pass.retention = prom_guc_retention;
	pass.retention_audit = prom_guc_retention_audit;
	pass.retention_spans = prom_guc_retention_spans;
	pass.retention_waiting = prom_guc_retention_waiting;
	if (ms == 0)
		ms = Min(LONGEST_REST, Max(SHORTEST_REST, (int64) shortest * 10));
	pass.due = DT_NOEND;
	if (pass.retention > 0 || pass.retention_audit > 0 ||
		pass.retention_spans > 0)
		pass.due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
}

void
prom_retention_begin(void)
{
	rest(FIRST_PASS);
}

TimestampTz
prom_retention_due(void)
{
	/* Who sets it wants to see something. */
	if (pass.retention != prom_guc_retention ||
		pass.retention_audit != prom_guc_retention_audit ||
		pass.retention_spans != prom_guc_retention_spans ||
		pass.retention_waiting != prom_guc_retention_waiting)
	{
		rest(0);
		if (pass.due != DT_NOEND)
			pass.due = GetCurrentTimestamp();
	}
	return pass.due;
}

void
prom_retention_failed(void)
{
	rest(AFTER_FAILURE);
}

/* It is the session's again after the transaction. */
static void
set_local(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

/* False: nothing is to be deleted now. */
static bool
begin(const char *activity, bool flushed)
{
	bool paused;

	if (!prom_era_xact_begin(activity))
		proc_exit(0);
	set_local("synchronous_commit", flushed ? "on" : "off");
	set_local("lock_timeout", "100ms");
	set_local("enable_bitmapscan", "on"); /* an index of arrays has no other */
	SPI_connect();
	if (SPI_execute("SELECT FROM prometheus._gate WHERE target = 'all'", true,
					1) != SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._gate");
	paused = SPI_processed > 0;
	if (paused)
	{
		SPI_finish();
		prom_xact_commit();
	}
	return !paused;
}

static void
end(void)
{
	SPI_finish();
	prom_xact_commit();
}

/*
 * To the newest mark that is old enough, but never back.  What the current
 * period of a budget counts stays; and, for so long, what subscriptions have
 * not been given: what their positions do not see, and what waits; and what is
 * not exported.  False: there is no such mark.
 */
static bool
move_horizon(void)
{
	static const char cutoff_sql[] =
		"SELECT least($1, (SELECT CASE WHEN h.hold IS NOT NULL THEN"
		" greatest($2, (SELECT m.at FROM prometheus._mark m"
		"   WHERE m.mark_id <= h.hold ORDER BY m.mark_id DESC LIMIT 1)) END"
		" FROM (SELECT least((SELECT min(c.base_mark)"
		"   FROM prometheus._subscription s"
		"   JOIN prometheus._consumer c ON c.name = s.name),"
		"  (SELECT c.base_mark FROM prometheus._consumer c WHERE $3"
		"   AND c.name = '" PROM_CONSUMER_EXPORT "'),"
		"  (SELECT min(d.mark_id) FROM prometheus._delivery d"
		"   WHERE d.status = 'waiting')) AS hold) h),"
		" (SELECT min(date_trunc(b.period,"
		" statement_timestamp(), 'UTC')) FROM prometheus._budget b"
		" WHERE (b.tokens IS NOT NULL OR b.cost IS NOT NULL)"
		" AND NOT EXISTS (SELECT FROM prometheus._budget n"
		"   WHERE n.name = b.name AND n.version > b.version)))";
	static const char move_sql[] =
		"INSERT INTO prometheus._horizon (at, xid, moved_at, snapshot)"
		" SELECT m.at, prometheus._xid(), clock_timestamp(), m.snapshot"
		" FROM prometheus._mark m WHERE m.at <= $1"
		" AND NOT EXISTS (SELECT FROM prometheus._horizon h WHERE h.at >= m.at)"
		" ORDER BY m.at DESC LIMIT 1";
	static const char forget_sql[] =
		"DELETE FROM prometheus._horizon"
		" WHERE at < (SELECT max(at) FROM prometheus._horizon)";
	static const char horizon_sql[] =
		"SELECT least(h.at, $1), h.snapshot FROM prometheus._horizon h"
		" ORDER BY h.at DESC LIMIT 1";
	Oid types[3] = {TIMESTAMPTZOID, TIMESTAMPTZOID, BOOLOID};
	Oid type = TIMESTAMPTZOID;
	Datum value = TimestampTzGetDatum(before_now(prom_guc_retention));
	Datum values[3];
	MemoryContext before;
	bool isnull;

	PROM_FAULT("retention-before-move");
	values[0] = value;
	values[1] = TimestampTzGetDatum(
		DatumGetTimestampTz(value) -
		(int64) prom_guc_retention_waiting * USECS_PER_SEC);
	values[2] = BoolGetDatum(!prom_exported_rests(prom_my_database));
	if (SPI_execute_with_args(cutoff_sql, 3, types, values, NULL, true, 1) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._budget");
	value = TimestampTzGetDatum(prom_row_time(0, 1));
	if (SPI_execute_with_args(move_sql, 1, &type, &value, NULL, false, 0) !=
			SPI_OK_INSERT ||
		SPI_execute(forget_sql, false, 0) != SPI_OK_DELETE ||
		SPI_execute_with_args(horizon_sql, 1, &type, &value, NULL, false, 1) !=
			SPI_OK_SELECT)
		elog(ERROR, "could not write prometheus._horizon");
	if (SPI_processed == 0)
		return false;
	pass.cutoff = prom_row_time(0, 1);
	before = MemoryContextSwitchTo(pass.context);
	pass.snapshot = datumCopy(SPI_getbinval(SPI_tuptable->vals[0],
											SPI_tuptable->tupdesc, 2, &isnull),
							  false, -1);
	MemoryContextSwitchTo(before);
	return true;
}

static void
go_to(Phase phase)
{
	pass.phase = phase;
	pass.place = 0;
	memset(&pass.superseded, 0, sizeof(pass.superseded));
}

static void
start_pass(void)
{
	HASHCTL control = {0};
	bool moved;

	if (prom_guc_retention == 0)
	{
		go_to(SPANS);
		return;
	}
	pass.context = AllocSetContextCreate(TopMemoryContext,
										 "prometheus retention",
										 ALLOCSET_DEFAULT_SIZES);
	if (!begin("moving the horizon of retention", true))
	{
		rest(0);
		return;
	}
	moved = move_horizon();
	end();
	PROM_FAULT("retention-after-move");
	if (!moved)
	{
		go_to(SPANS);
		return;
	}
	pass.settled = XidFromFullTransactionId(ReadNextFullTransactionId());
	control.keysize = sizeof(int64);
	control.entrysize = sizeof(int64);
	control.hcxt = pass.context;
	pass.looked_at = hash_create("prometheus retention", 1024, &control,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	pass.last_task = PG_INT64_MIN;
	pass.pause = SETTLE_PAUSE;
	go_to(SETTLE);
}

static void
settle(void)
{
	if (!begin("waiting for transactions to end", false))
	{
		rest(0);
		return;
	}
	if (!TransactionIdPrecedes(GetActiveSnapshot()->xmin, pass.settled))
		go_to(TASKS);
	else
		pass.pause = Min(2 * pass.pause, AFTER_FAILURE);
	end();
}

/* True: it was not known. */
static bool
look_at(int64 task_id)
{
	bool found;

	(void) hash_search(pass.looked_at, &task_id, HASH_ENTER, &found);
	return !found;
}

/* Add a tree to those that go, if all of it may. */
static void
add_tree(int64 task_id, int64 **tasks, int *n)
{
	Datum values[3];
	bool expired = true;
	int before = *n;

	values[0] = Int64GetDatum(task_id);
	values[1] = TimestampTzGetDatum(pass.cutoff);
	values[2] = pass.snapshot;
	prom_statement_run(&tree_statement, values, NULL, true);
	*tasks = repalloc(*tasks, (*n + SPI_processed + BATCH) * sizeof(int64));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		(*tasks)[(*n)++] = prom_row_int64(i, 1);
		(void) look_at(prom_row_int64(i, 1));
		expired = expired && prom_row_bool(i, 2);
	}
	SPI_freetuptable(SPI_tuptable);
	if (!expired)
		*n = before;
}

/* The next of those that may go; false: the rest is younger. */
static bool
find_batch(int64 **tasks, int *n)
{
	struct
	{
		int64 task_id;
		bool expired;
		bool tied;
	} found[BATCH];
	Datum values[4];
	int nfound;
	bool any = false;

	values[0] = Int64GetDatum(pass.last_task);
	values[1] = TimestampTzGetDatum(pass.cutoff);
	values[2] = pass.snapshot;
	values[3] = Int64GetDatum(BATCH);
	prom_statement_run(&next_statement, values, NULL, true);
	nfound = SPI_processed;
	for (int i = 0; i < nfound; i++)
	{
		found[i].task_id = prom_row_int64(i, 1);
		any = any || prom_row_bool(i, 2);
		found[i].expired = prom_row_bool(i, 3);
		found[i].tied = prom_row_bool(i, 4);
	}
	SPI_freetuptable(SPI_tuptable);
	for (int i = 0; i < nfound; i++)
	{
		pass.last_task = found[i].task_id;
		if (!found[i].expired)
			continue;
		if (!found[i].tied)
			(*tasks)[(*n)++] = found[i].task_id;
		else if (look_at(found[i].task_id))
			add_tree(found[i].task_id, tasks, n);
	}
	return any;
}

static void
delete_tasks(void)
{
	int64 *tasks = palloc(BATCH * sizeof(int64));
	int n = 0;
	Datum value;
	bool more;

	if (!begin("deleting tasks", false))
	{
		rest(0);
		return;
	}
	more = find_batch(&tasks, &n);
	if (n > 0)
	{
		value = PointerGetDatum(prom_int8_array(tasks, n));
		for (int i = 0; i < lengthof(batch_statements); i++)
		{
			if (i == lengthof(batch_statements) / 2)
				PROM_FAULT("retention-in-batch");
			prom_statement_run(&batch_statements[i], &value, NULL, false);
		}
		PROM_FAULT("retention-before-commit");
	}
	end();
	if (n > 0)
		PROM_FAULT("retention-after-commit");
	if (!more)
		go_to(EVENTS);
}

/* Some of the oldest rows; false: there are no more. */
static bool
delete_oldest(PromStatement *statement, TimestampTz before)
{
	Datum values[2];

	values[0] = TimestampTzGetDatum(before);
	values[1] = Int64GetDatum(OLDEST_ROWS);
	prom_statement_run(statement, values, NULL, false);
	return SPI_processed == OLDEST_ROWS;
}

static void
delete_events(void)
{
	Datum values[2];
	bool more;

	if (!begin("deleting events", false))
	{
		rest(0);
		return;
	}
	values[0] = pass.snapshot;
	values[1] = Int64GetDatum(OLDEST_ROWS);
	prom_statement_run(&event_statement, values, NULL, false);
	more = SPI_processed == OLDEST_ROWS;
	more = delete_oldest(&delivery_statement, pass.cutoff) || more;
	prom_wakeup_readers();
	end();
	if (!more)
		go_to(VERSIONS);
}

static void
delete_versions(void)
{
	bool more;

	if (!begin("deleting versions", false))
	{
		rest(0);
		return;
	}
	more = prom_superseded_delete(&pass.superseded, pass.cutoff, pass.snapshot);
	PROM_FAULT("retention-in-versions");
	end();
	if (!more)
		go_to(MARKS);
}

static void
delete_marks(void)
{
	bool more;

	if (!begin("deleting marks", false))
	{
		rest(0);
		return;
	}
	more = delete_oldest(&mark_statement, pass.cutoff);
	end();
	if (!more)
		go_to(SPANS);
}

static void
delete_spans(void)
{
	TimestampTz before = before_now(prom_guc_retention_spans);
	Datum values[3];
	bool more;

	if (prom_guc_retention_spans == 0)
	{
		go_to(AUDIT);
		return;
	}
	if (!begin("deleting spans of applications", false))
	{
		rest(0);
		return;
	}
	values[0] = TimestampTzGetDatum(before);
	values[1] = Int64GetDatum(OLDEST_ROWS);
	values[2] = TimestampTzGetDatum(
		before - (int64) prom_guc_retention_waiting * USECS_PER_SEC);
	prom_statement_run(&span_statement, values, NULL, false);
	more = SPI_processed == OLDEST_ROWS;
	more = delete_oldest(&kept_statement, before) || more;
	end();
	if (!more)
		go_to(AUDIT);
}

static void
delete_audit(void)
{
	bool more;

	if (prom_guc_retention_audit == 0 ||
		!begin("deleting what was kept of tasks", false))
	{
		rest(0);
		return;
	}
	more = delete_oldest(&audit_statements[pass.place],
						 before_now(prom_guc_retention_audit));
	end();
	if (!more && ++pass.place == lengthof(audit_statements))
		rest(0);
}

void
prom_retention_step(void)
{
	TimestampTz before = GetCurrentTimestamp();
	TimestampTz now;
	long ms;

	switch (pass.phase)
	{
		case REST:
			start_pass();
			break;
		case SETTLE:
			settle();
			break;
		case TASKS:
			delete_tasks();
			break;
		case EVENTS:
			delete_events();
			break;
		case VERSIONS:
			delete_versions();
			break;
		case MARKS:
			delete_marks();
			break;
		case SPANS:
			delete_spans();
			break;
		case AUDIT:
			delete_audit();
			break;
	}
	if (pass.phase == REST)
		return;
	now = GetCurrentTimestamp();
	ms = TimestampDifferenceMilliseconds(before, now);
	ms = Min(Max(ms, SHORTEST_PAUSE), LONGEST_PAUSE);
	if (pass.phase == SETTLE)
		ms = pass.pause;
	pass.due = TimestampTzPlusMilliseconds(now, ms);
}
