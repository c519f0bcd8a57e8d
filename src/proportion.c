/*
 * proportion.c
 *	  How many rows a tool may change, and that it does not change more.
 *
 * Every INSERT, UPDATE, DELETE and MERGE comes by the executor, however deep in
 * functions: also those of triggers, rules, and foreign keys that cascade.  So
 * their rows are counted there, over the whole of a call, when each of them has
 * ended; it raises if these are too many, which takes back what it did.  A tool
 * that catches the error goes on with the same sum: rows that were taken back
 * count, since they were work all the same, and to try again must not be a way
 * around the limit.
 *
 * A statement that is far too large need not be run to find that out: the
 * planner has estimated it.  But an estimate may be wrong, by far if it is of
 * what a function says, so only one beyond ten times the limit refuses.
 *
 * TRUNCATE counts no rows, so it is believed to have as many as the statistics
 * say.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "executor/instrument.h"
#include "tcop/utility.h"
#include "utils/syscache.h"

#include "compat.h"
#include "errcodes.h"
#include "proportion.h"
#include "role.h"

/* How much more than the limit an estimate must be to be believed. */
#define FAR_BEYOND 10

static int64 limit = 0; /* 0: nothing is counted */
static double changed;  /* rows, since it has been enforced */
static char refused[128];
static ExecutorStart_hook_type previous_start;
static ExecutorRun_hook_type previous_run;
static ExecutorFinish_hook_type previous_finish;
static ProcessUtility_hook_type previous_utility;

static bool
is_counted(void)
{
	return limit > 0 && !prom_role_acts_as_owner();
}

static void
refuse(const char *about, double rows)
{
	snprintf(refused, sizeof(refused), "%s%.0f rows, and max_rows is %lld",
			 about, rows, (long long) limit);
	ereport(ERROR,
			(errcode(ERRCODE_PROM_PROPORTIONALITY),
			 errmsg("a tool must not change so many rows: %s", refused),
			 errdetail("A policy with the principle proportionality is in force for it."),
			 errhint("Change fewer rows in one call; or an administrator can raise the option max_rows of its agent.")));
}

static void
count(double rows)
{
	if (rows <= 0)
		return;
	changed += rows;
	if (changed > limit)
		refuse("", changed);
}

/* Rows that the plan of a change is expected to give it. */
static double
estimated_by(const Plan *plan)
{
	if (plan == NULL || !IsA(plan, ModifyTable))
		return 0;
	return outerPlan(plan)->plan_rows;
}

static double
estimated(const PlannedStmt *statement)
{
	double rows = estimated_by(statement->planTree);
	ListCell *cell;

	if (statement->hasModifyingCTE)
		foreach(cell, statement->subplans)
			rows += estimated_by(lfirst(cell));
	return rows;
}

/* Its rows are not in es_processed: they are those of WITH, and of rules. */
static bool
changes_aside(const PlannedStmt *statement)
{
	return statement->hasModifyingCTE ||
		   (statement->commandType != CMD_SELECT && !statement->canSetTag);
}

static void
start(QueryDesc *query, int flags)
{
	if (is_counted() && (flags & EXEC_FLAG_EXPLAIN_ONLY) == 0)
	{
		double rows = estimated(query->plannedstmt);

		if (rows > (double) FAR_BEYOND * limit)
			refuse("by estimate ", rows);
		if (changes_aside(query->plannedstmt))
			query->instrument_options |= INSTRUMENT_ROWS;
	}
	if (previous_start != NULL)
		previous_start(query, flags);
	else
		standard_ExecutorStart(query, flags);
}

static void
run(PROM_RUN_ARGUMENTS)
{
	if (previous_run != NULL)
		previous_run(PROM_RUN_PASSED);
	else
		standard_ExecutorRun(PROM_RUN_PASSED);
	if (query->operation != CMD_SELECT && is_counted())
		count(query->estate->es_processed);
}

/* As EXPLAIN tells it: what came to it, but for what conflicted. */
static double
rows_aside(ModifyTableState *state)
{
	const ModifyTable *plan = (ModifyTable *) state->ps.plan;
	Instrumentation *given = outerPlanState(state)->instrument;

	if (state->operation == CMD_MERGE)
		return state->mt_merge_inserted + state->mt_merge_updated +
			   state->mt_merge_deleted;
	if (given == NULL)
		return 0;
	InstrEndLoop(given);
	return plan->onConflictAction == ONCONFLICT_NOTHING
			   ? given->ntuples - state->ps.instrument->ntuples2
			   : given->ntuples;
}

static void
finish(QueryDesc *query)
{
	ListCell *cell;

	if (previous_finish != NULL)
		previous_finish(query);
	else
		standard_ExecutorFinish(query);
	if (is_counted())
		foreach(cell, query->estate->es_auxmodifytables)
			count(rows_aside(lfirst(cell)));
}

/* What the statistics say; a table that they do not know has few. */
static double
rows_in(const RangeVar *relation)
{
	Oid oid = RangeVarGetRelid(relation, NoLock, true);
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(oid));
	double rows;

	if (!HeapTupleIsValid(tuple))
		return 0;
	rows = ((Form_pg_class) GETSTRUCT(tuple))->reltuples;
	ReleaseSysCache(tuple);
	return Max(rows, 0);
}

static void
process_utility(PlannedStmt *statement, const char *text, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *receiver,
				QueryCompletion *completion)
{
	ListCell *cell;

	if (IsA(statement->utilityStmt, TruncateStmt) && is_counted())
		foreach(cell, ((TruncateStmt *) statement->utilityStmt)->relations)
			count(rows_in(lfirst_node(RangeVar, cell)));
	if (previous_utility != NULL)
		previous_utility(statement, text, read_only_tree, context, params,
						 environment, receiver, completion);
	else
		standard_ProcessUtility(statement, text, read_only_tree, context,
								params, environment, receiver, completion);
}

void
prom_proportion_init(void)
{
	previous_start = ExecutorStart_hook;
	ExecutorStart_hook = start;
	previous_run = ExecutorRun_hook;
	ExecutorRun_hook = run;
	previous_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = finish;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}

void
prom_proportion_enforce(int64 max_rows)
{
	limit = max_rows;
	if (max_rows == 0)
		return;
	changed = 0;
	refused[0] = '\0';
}

const char *
prom_proportion_refused(void)
{
	return refused[0] == '\0' ? NULL : refused;
}
