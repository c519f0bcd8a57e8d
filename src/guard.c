/*
 * guard.c
 *	  Runs other people's code as the role that it is for, and as no other.
 *
 * The session belongs to the owner of the extension, often a superuser, and
 * what runs here was chosen by a model.  In this order:
 *
 * 1. A subtransaction: an error takes back what was done, and the step that
 *	  says so is written by the transaction around it.
 * 2. SET CONSTRAINTS ALL IMMEDIATE: a deferred trigger cannot be queued within
 *	  4, and fired at the commit it would run with our rights.
 * 3. A nest level of settings: none outlives the call.  Those that are ours
 *	  (plans, row_security, lock_timeout) are as in any session.
 * 4. The role, with SECURITY_RESTRICTED_OPERATION: no way to become another
 *	  one, to make temporary objects, to leave prepared statements or cursors.
 * 5. Read-only, if it may only read.  Before PostgreSQL 16 a function can take
 *	  that back, so one that has an xid in the end has failed.
 * 6. A time-out of our own, since statement_timeout does nothing in a
 *	  background worker.  A function may catch the cancel: a second later the
 *	  process ends, which nothing can catch.
 * 7. Only now are arguments converted: casts, domains and defaults are code.
 *	  If a policy says so, what any of it executes is held against integrity
 *	  (integrity.c), whatever the role may do, and the rows that it changes are
 *	  counted (proportion.c).
 * 8. All of that is undone, and advisory locks of the session are released.
 *	  What sequences gave it before, to us too, is forgotten at the beginning.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "optimizer/planner.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timeout.h"

#include "compat.h"
#include "errcodes.h"
#include "guard.h"
#include "integrity.h"
#include "proportion.h"
#include "worker.h"

/* From the cancel to the end of the process, ms. */
#define GRACE 1000

static TimeoutId end_timeout;
static volatile bool *overdue_flag;
static planner_hook_type previous_planner;

/* It has had its cancel and goes on. */
static void
end_process(void)
{
	*overdue_flag = true;
	ProcDiePending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

/*
 * No parallel workers: if others' code crashes in one, nobody could say whose
 * task it was.
 */
static PlannedStmt *
plan_alone(Query *query, const char *sql, int options, ParamListInfo params)
{
	options &= ~CURSOR_OPT_PARALLEL_OK;
	if (previous_planner != NULL)
		return previous_planner(query, sql, options, params);
	return standard_planner(query, sql, options, params);
}

void
prom_guard_init(volatile bool *overdue)
{
	overdue_flag = overdue;
	end_timeout = RegisterTimeout(USER_TIMEOUT, end_process);
	previous_planner = planner_hook;
	planner_hook = plan_alone;
	prom_integrity_init();
	prom_proportion_init();
}

Oid
prom_guard_role(const char *name, Oid oid)
{
	char *now = GetUserNameFromId(oid, true);

	return now != NULL && strcmp(now, name) == 0 ? oid : InvalidOid;
}

static void
set(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* Rules 2 to 6; the nest level of settings. */
static int
enter(const PromGuard *guard)
{
	ConstraintsSetStmt *constraints = makeNode(ConstraintsSetStmt);
	int nest_level;
	int context;
	Oid user;

	constraints->deferred = false;
	AfterTriggerSetState(constraints);
	nest_level = NewGUCNestLevel();
	prom_worker_set_plain();
	set("max_parallel_maintenance_workers", "0");
	set("search_path",
		guard->search_path != NULL ? guard->search_path
								   : "pg_catalog, pg_temp");
	/* Not by its setting, which since 16 cannot be had back; 1 restores it. */
	if (guard->read_only)
		XactReadOnly = true;
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(guard->role,
						   context | SECURITY_LOCAL_USERID_CHANGE |
							   SECURITY_RESTRICTED_OPERATION);
	*overdue_flag = false;
	enable_timeout_after(STATEMENT_TIMEOUT, (int) guard->timeout);
	enable_timeout_after(end_timeout, (int) guard->timeout + GRACE);
	prom_integrity_enforce(guard->integrity);
	prom_proportion_enforce(guard->max_rows);
	return nest_level;
}

static void
check_read_only(const PromGuard *guard)
{
	if (guard->read_only &&
		TransactionIdIsValid(GetCurrentTransactionIdIfAny()))
		ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
						errmsg("it wrote in a read-only transaction"),
						errhint("What writes must be of tier write or destructive.")));
}

static void
disarm(void)
{
	prom_integrity_enforce(false);
	prom_proportion_enforce(0);
	disable_timeout(STATEMENT_TIMEOUT, false);
	disable_timeout(end_timeout, false);
	QueryCancelPending = false;
}

/* An error, for a model and for people: without where it was. */
static void
describe(PromGuardEnd *end, const PromGuard *guard, const ErrorData *failure)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoString(&text, failure->message != NULL
									  ? failure->message
									  : "unknown error");
	if (failure->detail != NULL)
		appendStringInfo(&text, "\nDetail: %s", failure->detail);
	if (failure->hint != NULL)
		appendStringInfo(&text, "\nHint: %s", failure->hint);
	end->error = text.data;
	end->sqlstate = failure->sqlerrcode;
	end->was_cancelled = failure->sqlerrcode == ERRCODE_QUERY_CANCELED;
	/* The code of others may raise it as well. */
	if (guard->integrity && failure->sqlerrcode == ERRCODE_PROM_INTEGRITY &&
		prom_integrity_refused() != NULL)
		end->forbidden = pstrdup(prom_integrity_refused());
	if (guard->max_rows > 0 &&
		failure->sqlerrcode == ERRCODE_PROM_PROPORTIONALITY &&
		prom_proportion_refused() != NULL)
		end->too_much = pstrdup(prom_proportion_refused());
}

void
prom_guard_run(const PromGuard *guard, void (*run)(void *arg), void *arg,
			   PromGuardEnd *end)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	ErrorData *volatile failure = NULL;
	Oid user;
	int security;

	memset(end, 0, sizeof(*end));
	GetUserIdAndSecContext(&user, &security);
	ResetSequenceCaches();
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		int nest_level = enter(guard);

		run(arg);
		disarm();
		check_read_only(guard);
		MemoryContextSwitchTo(context);
		SetUserIdAndSecContext(user, security);
		AtEOXact_GUC(false, nest_level);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		disarm();
		MemoryContextSwitchTo(context);
		failure = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = resources;
	LockReleaseSession(USER_LOCKMETHOD);
	end->ok = failure == NULL;
	if (failure != NULL)
		describe(end, guard, failure);
}
