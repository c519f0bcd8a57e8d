/*
 * load.c
 *	  Reads what the facts say of tasks, for the process that owns them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "live.h"
#include "load.h"
#include "metric.h"
#include "worker.h"
#include "xact.h"

/*
 * Scalar look-ups by index only: the plan is made once, perhaps on empty
 * tables, and must still be right for a million tasks.
 */
static PromStatement load_statement = {
	"SELECT t.task_id, coalesce(r.deadline, t.deadline), t.max_attempts, t.agent, t.request,"
	" CASE WHEN o.attempt > coalesce(r.attempt, 0) OR r.attempt IS NULL"
	"   THEN CASE WHEN o.outcome IS DISTINCT FROM 'waiting'"
	"     THEN coalesce(o.next_run_at, t.run_at) END END,"
	" coalesce(o.outcome NOT IN ('retry', 'waiting', 'lost')"
	"   AND o.attempt > coalesce(r.attempt, 0), false),"
	" coalesce(o.attempt, 0),"
	" CASE WHEN o.attempt > coalesce(r.attempt, 0) THEN o.attempts ELSE 0 END,"
	" coalesce(a.attempt, 0),"
	" v.version, v.model,"
	" coalesce((SELECT x.model_version FROM prometheus._attempt x"
	"   WHERE x.task_id = t.task_id AND x.attempt > coalesce(r.attempt, 0)"
	"     AND x.model = v.model ORDER BY x.attempt LIMIT 1),"
	"  (SELECT m.version FROM prometheus._model m"
	"   WHERE m.name = v.model ORDER BY m.version DESC LIMIT 1)),"
	" coalesce((SELECT s.step FROM prometheus._step s"
	"   WHERE s.task_id = t.task_id ORDER BY s.step DESC LIMIT 1), 0),"
	" c.requested_at IS NOT NULL, c.reason,"
	" coalesce(o.outcome = 'completed', false),"
	" coalesce(o.attempt > coalesce(r.attempt, 0), false),"
	" t.depends_on IS NOT NULL"
	"   AND EXISTS (SELECT " PROM_PARENTS "e.outcome IS NULL),"
	" CASE WHEN t.depends_on IS NOT NULL AND NOT " PROM_ANYWAY
	"   THEN (SELECT format('task %s, which it depends on, %s', d,"
	"     CASE e.outcome WHEN 'failed' THEN 'failed' ELSE 'was ' || e.outcome END)"
	"   " PROM_PARENTS "e.outcome <> 'completed' ORDER BY d LIMIT 1) END,"
	" coalesce(r.attempt, 0),"
	" t.conversation, t.submitter, t.submitter_oid, t.depends_on, t.output_schema,"
	" coalesce(o.outcome = 'waiting', false), t.mode, t.parent_id,"
	" t.parent_id IS NOT NULL AND (SELECT " PROM_HAS_ENDED
	"   FROM (SELECT t.parent_id AS task_id) t),"
	" t.trace_id, t.traceparent, greatest(t.submitted_at, t.run_at, r.retried_at),"
	" t.commission IS NOT NULL,"
	" coalesce(t.evolution ? 'iterations', false),"
	" coalesce(t.evolution ->> 'role' <> 'attempt', false)"
	" FROM unnest($1) AS u(task_id)"
	" JOIN prometheus._task t ON t.task_id = u.task_id"
	" LEFT JOIN LATERAL (SELECT x.attempt, x.attempts, x.outcome, x.next_run_at"
	"   FROM prometheus._outcome x WHERE x.task_id = t.task_id"
	"  ORDER BY x.attempt DESC LIMIT 1) o ON true"
	" LEFT JOIN LATERAL (SELECT x.attempt, x.agent_version"
	"   FROM prometheus._attempt x WHERE x.task_id = t.task_id"
	"  ORDER BY x.attempt DESC LIMIT 1) a ON true"
	" LEFT JOIN LATERAL (SELECT x.attempt, x.retried_at, x.deadline"
	"   FROM prometheus._retry x WHERE x.task_id = t.task_id"
	"  ORDER BY x.attempt DESC LIMIT 1) r ON true"
	" LEFT JOIN LATERAL (SELECT x.version, x.model FROM prometheus._agent x"
	"  WHERE x.name = t.agent AND (a.attempt <= r.attempt"
	"    OR a.agent_version IS NULL OR x.version = a.agent_version)"
	"  ORDER BY x.version DESC LIMIT 1) v ON true"
	" LEFT JOIN LATERAL (SELECT x.requested_at, x.reason"
	"   FROM prometheus._cancel x WHERE x.task_id = t.task_id"
	"    AND (r.retried_at IS NULL OR x.requested_at >= r.retried_at)"
	"  ORDER BY x.requested_at LIMIT 1) c ON true",
	1,
	{INT8ARRAYOID},
	NULL,
};

static void
read_loaded(uint64 row, PromLoaded *loaded)
{
	bool isnull;

	loaded->task_id = prom_row_int64(row, 1);
	loaded->deadline = prom_row_time(row, 2);
	loaded->max_attempts = prom_row_int32(row, 3);
	loaded->agent = prom_row_text(row, 4);
	loaded->source.agent = loaded->agent;
	loaded->request = SPI_getbinval(SPI_tuptable->vals[row],
									SPI_tuptable->tupdesc, 5, &isnull);
	loaded->bytes = prom_row_bytes(row, 5) + prom_row_bytes(row, 26);
	loaded->due = prom_row_int64_or(row, 6, 0);
	loaded->ended = prom_row_bool(row, 7);
	loaded->outcome_attempt = prom_row_int32(row, 8);
	loaded->used = prom_row_int32(row, 9);
	loaded->last_attempt = prom_row_int32(row, 10);
	loaded->agent_version = prom_row_int64(row, 11);
	loaded->model = prom_row_text(row, 12);
	loaded->model_version = prom_row_int64(row, 13);
	loaded->last_step = prom_row_int32(row, 14);
	loaded->cancelled = prom_row_bool(row, 15);
	loaded->cancel_reason = prom_row_text_or_null(row, 16);
	loaded->completed = prom_row_bool(row, 17);
	loaded->retrying = prom_row_bool(row, 18);
	loaded->depends = prom_row_bool(row, 19);
	loaded->bad_parent = prom_row_text_or_null(row, 20);
	loaded->retried_attempt = prom_row_int32(row, 21);
	prom_prompt_read_source(row, 22, &loaded->source);
	loaded->output_schema = SPI_getbinval(SPI_tuptable->vals[row],
										  SPI_tuptable->tupdesc, 26, &isnull);
	loaded->has_schema = !isnull;
	loaded->waiting = prom_row_bool(row, 27);
	loaded->mode = prom_row_text(row, 28);
	loaded->parent_id = prom_row_int64_or(row, 29, 0);
	loaded->parent_ended = prom_row_bool(row, 30);
	prom_trace_of(prom_row_uuid(row, 31), prom_row_text_or_null(row, 32),
				  &loaded->trace);
	loaded->since = prom_row_time(row, 33);
	loaded->makes_tool = prom_row_bool(row, 34);
	loaded->evolves = prom_row_bool(row, 35);
	loaded->is_bare = prom_row_bool(row, 36);
}

PromLoaded *
prom_load(PromAttempt **attempts, int n, int *nloaded)
{
	Datum *ids = palloc(n * sizeof(Datum));
	Datum argument;
	PromLoaded *loaded;

	for (int i = 0; i < n; i++)
		ids[i] = Int64GetDatum(attempts[i]->task_id);
	argument = PointerGetDatum(construct_array(
		ids, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	prom_statement_run(&load_statement, &argument, NULL, true);
	loaded = palloc0(Max(SPI_processed, 1) * sizeof(PromLoaded));
	for (uint64 i = 0; i < SPI_processed; i++)
		read_loaded(i, &loaded[i]);
	*nloaded = SPI_processed;
	return loaded;
}

void
prom_load_identify(PromAttempt *attempt, const PromLoaded *loaded)
{
	attempt->agent = prom_metric_label(prom_my_database, PROM_LABEL_AGENT,
									   loaded->agent);
	attempt->trace = loaded->trace;
	attempt->since = loaded->since;
}
