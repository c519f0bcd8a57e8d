/*
 * delegate.c
 *	  The tool delegate: a task of another agent, whose result is the call's.
 *
 * The call that submits the child is one transaction with nothing else in it;
 * its step is written when the child has ended.  Until then the parent waits
 * and holds nothing.  The child belongs to who submitted the parent, ends by
 * the parent's deadline, and with it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "task.h"
#include "tool/builtin.h"
#include "trace.h"
#include "xact.h"

static PromStatement parent_statement = {
	"SELECT t.depth, t.priority, coalesce((SELECT r.deadline"
	"   FROM prometheus._retry r"
	"   WHERE r.task_id OPERATOR(pg_catalog.=) t.task_id"
	"   ORDER BY r.attempt DESC LIMIT 1), t.deadline),"
	" t.trace_id, t.traceparent, t.event_id, t.causes"
	" FROM prometheus._task t WHERE t.task_id OPERATOR(pg_catalog.=) $1",
	1,
	{INT8OID},
	NULL,
};

bool
prom_delegate_read(int64 task_id, PromParent *parent)
{
	Datum value = Int64GetDatum(task_id);
	PromTrace trace;

	prom_statement_run(&parent_statement, &value, NULL, true);
	if (SPI_processed == 0)
		return false;
	parent->depth = prom_row_int64_or(0, 1, 0);
	parent->priority = prom_row_int32(0, 2);
	parent->deadline = prom_row_time(0, 3);
	prom_trace_of(prom_row_uuid(0, 4), prom_row_text_or_null(0, 5), &trace);
	parent->event_id = prom_row_int64(0, 6);
	parent->causes = prom_row_isnull(0, 7) ? 0 : prom_row_int32(0, 7);
	parent->traceparent = palloc(PROM_TRACEPARENT_SIZE);
	prom_trace_parent(parent->traceparent, &trace, parent->event_id);
	return true;
}

static void
delegate(PromBuiltinCall *call)
{
	const PromParent *parent = call->parent;
	PromSubmit submit = {.priority = parent->priority,
						 .traceparent = parent->traceparent,
						 .parent_id = call->job->task_id,
						 .parent_step = call->job->step,
						 .depth = parent->depth + 1,
						 .parent_event = parent->event_id,
						 .causes = parent->causes};

	if (parent->depth >= call->facts->agent->max_depth)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("tasks are delegated too deeply"),
				 errdetail("max_depth of agent \"%s\" is %d.",
						   call->facts->source.agent,
						   call->facts->agent->max_depth),
				 errhint("Do it yourself.")));
	submit.request = prom_builtin_text(call, "request");
	submit.agent = prom_builtin_text(call, "agent");
	submit.timeout = Max(parent->deadline - GetCurrentTimestamp(), 1);
	(void) prom_task_submit(&submit);
	call->waits = true;
}

static PromStatement child_statement = {
	"SELECT t.task_id, o.outcome, s.answer, coalesce(o.error, o.outcome)"
	" FROM prometheus._task t"
	" LEFT JOIN LATERAL (SELECT x.outcome, x.step, x.error"
	"   FROM prometheus._outcome x WHERE x.task_id = t.task_id"
	"     AND x.outcome NOT IN ('retry', 'waiting', 'lost')"
	"     AND NOT EXISTS (SELECT FROM prometheus._retry y"
	"       WHERE y.task_id = t.task_id AND y.attempt >= x.attempt)"
	"   ORDER BY x.attempt DESC LIMIT 1) o ON true"
	" LEFT JOIN prometheus._step s ON o.outcome = 'completed'"
	"   AND s.task_id = t.task_id AND s.step = o.step"
	" WHERE t.parent_id = $1 AND t.parent_step = $2"
	" ORDER BY t.task_id DESC LIMIT 1",
	2,
	{INT8OID, INT4OID},
	NULL,
};

PromChildState
prom_delegate_find(const PromJob *job, const char **text)
{
	Datum values[2] = {Int64GetDatum(job->task_id), Int32GetDatum(job->step)};
	const char *outcome;

	prom_statement_run(&child_statement, values, NULL, true);
	if (SPI_processed == 0)
		return PROM_CHILD_NONE;
	outcome = prom_row_text_or_null(0, 2);
	if (outcome == NULL)
		return PROM_CHILD_LIVES;
	if (strcmp(outcome, "completed") == 0)
	{
		*text = prom_row_text_or_null(0, 3);
		return PROM_CHILD_COMPLETED;
	}
	*text = psprintf("task %lld, to which it was delegated, ended as %s: %s",
					 (long long) prom_row_int64(0, 1), outcome,
					 prom_row_text(0, 4));
	return PROM_CHILD_ENDED;
}

const PromBuiltin prom_builtin_delegate = {
	.name = "delegate",
	.as_submitter = true,
	.run = delegate,
};
