/*
 * pause.c
 *	  Pauses and resumes everything, an agent, a model or a subscription.
 *
 * What is paused is a row, written in the user's transaction; a hint after
 * the commit lets the scheduler read it, which tells the gates.  A task that
 * runs goes on; a request on the network is not dropped.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "as_of.h"
#include "fault.h"
#include "gate.h"
#include "pause.h"
#include "role.h"
#include "wakeup.h"
#include "xact.h"

#define MAX_TARGET (PROM_MAX_NAME + 20)

/* "agent:NAME" and such, taken apart. */
typedef struct Target
{
	PromGateKind kind;
	const char *name;
} Target;

static bool
read_target(const char *text, Target *target)
{
	if (strcmp(text, "all") == 0)
	{
		target->kind = PROM_GATE_ALL;
		target->name = text;
	}
	else if (strncmp(text, "agent:", 6) == 0)
	{
		target->kind = PROM_GATE_AGENT;
		target->name = text + 6;
	}
	else if (strncmp(text, "model:", 6) == 0)
	{
		target->kind = PROM_GATE_MODEL;
		target->name = text + 6;
	}
	else if (strncmp(text, "subscription:", 13) == 0)
	{
		target->kind = PROM_GATE_SUBSCRIPTION;
		target->name = text + 13;
	}
	else
		return false;
	return true;
}

static void
target_argument(FunctionCallInfo fcinfo, char **given, Target *target)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("target must not be null")));
	*given = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (!read_target(*given, target))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" cannot be paused or resumed", *given),
				 errhint("The target is all, agent:NAME, model:NAME or subscription:NAME.")));
}

/* What a target is one of, and how it is looked for. */
static const struct
{
	const char *called;
	const char *sql;
} kinds[] = {
	[PROM_GATE_AGENT] = {"agent",
						 "SELECT FROM prometheus._agent"
						 " WHERE name OPERATOR(pg_catalog.=) $1 LIMIT 1"},
	[PROM_GATE_MODEL] = {"model",
						 "SELECT FROM prometheus._model"
						 " WHERE name OPERATOR(pg_catalog.=) $1 LIMIT 1"},
	[PROM_GATE_SUBSCRIPTION] = {"subscription",
								"SELECT FROM prometheus._subscription"
								" WHERE name OPERATOR(pg_catalog.=) $1"},
};

/* Raise unless there is such a thing. */
static void
check_exists(const Target *target)
{
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(target->name);
	const char *called = kinds[target->kind].called;

	if (target->kind == PROM_GATE_ALL)
		return;
	if (prom_execute_now(kinds[target->kind].sql, 1, &type, &value, NULL,
						 true) != SPI_OK_SELECT)
		elog(ERROR, "could not look for %s \"%s\"", called, target->name);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("%s \"%s\" does not exist", called, target->name),
				 errhint("SELECT name FROM prometheus.%s lists them.",
						 called)));
}

/*
 * The scheduler is to read what is paused, and to open a gate; and in a copy
 * the caller has not heard of what was restored.
 */
static void
send_hint(const Target *target, bool opens)
{
	PromHint hint = {0};

	hint.kind = PROM_HINT_GATES;
	if (opens && target->kind == PROM_GATE_MODEL)
		hint.target.model = prom_hash_name(target->name);
	if (opens && target->kind == PROM_GATE_SUBSCRIPTION)
		hint.key = prom_hash_name(target->name);
	if (opens && target->kind == PROM_GATE_ALL)
		prom_wakeup_embedder();
	prom_wakeup_hint(&hint);
}

/* Write or delete the row of a target. */
static void
write_pause(const char *target, Oid user, bool pauses)
{
	Oid types[2] = {TEXTOID, TEXTOID};
	Datum values[2];

	values[0] = CStringGetTextDatum(target);
	values[1] = CStringGetTextDatum(GetUserNameFromId(user, false));
	if (pauses
			? prom_execute_now(
				  "INSERT INTO prometheus._gate (target, paused_at, paused_by)"
				  " VALUES ($1, pg_catalog.clock_timestamp(), $2)"
				  " ON CONFLICT (target) DO NOTHING",
				  2, types, values, NULL, false) != SPI_OK_INSERT
			: prom_execute_now("DELETE FROM prometheus._gate"
							   " WHERE target OPERATOR(pg_catalog.=) $1",
							   1, types, values, NULL, false) != SPI_OK_DELETE)
		elog(ERROR, "could not write prometheus._gate");
}

static void
set_pause(FunctionCallInfo fcinfo, const char *function, bool pauses)
{
	char *given;
	Target target;
	PromOwner owner;
	char *call = psprintf("%s()", function);

	prom_role_require_admin(function);
	PreventCommandDuringRecovery(call);
	PreventCommandIfReadOnly(call);
	prom_as_of_forbid_writing();
	target_argument(fcinfo, &given, &target);
	SPI_connect();
	prom_role_become_owner(&owner);
	check_exists(&target);
	write_pause(given, owner.user, pauses);
	PROM_FAULT("pause-after-write");
	prom_role_restore(&owner);
	SPI_finish();
	send_hint(&target, !pauses);
}

PG_FUNCTION_INFO_V1(prom_pause);

Datum
prom_pause(PG_FUNCTION_ARGS)
{
	set_pause(fcinfo, "prometheus_pause", true);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(prom_resume);

Datum
prom_resume(PG_FUNCTION_ARGS)
{
	set_pause(fcinfo, "prometheus_resume", false);
	PG_RETURN_VOID();
}

static PromStatement paused_statement = {
	"SELECT target, paused_at FROM prometheus._gate",
	0,
	{0},
	NULL,
};

typedef struct Pause
{
	Target target;
	TimestampTz since;
} Pause;

/* What is paused; how many. */
static int
read_all(Pause **pauses)
{
	int n = 0;

	prom_statement_run(&paused_statement, NULL, NULL, true);
	*pauses = palloc(Max(SPI_processed, 1) * sizeof(Pause));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		if (!read_target(prom_row_text(i, 1), &(*pauses)[n].target))
			continue;
		(*pauses)[n++].since = prom_row_time(i, 2);
	}
	SPI_freetuptable(SPI_tuptable);
	return n;
}

/* Since when it is paused; 0: it is not. */
static TimestampTz
paused_since(const PromGate *gate, const Pause *pauses, int n)
{
	for (int i = 0; i < n; i++)
		if (pauses[i].target.kind == gate->kind &&
			strcmp(pauses[i].target.name, gate->name) == 0)
			return pauses[i].since;
	return 0;
}

void
prom_pause_read(PromDatabase *db)
{
	Pause *pauses;
	int n = read_all(&pauses);
	uint32 ngates;

	/* Those of subscriptions are there if the caller needs them. */
	for (int i = 0; i < n; i++)
		if (pauses[i].target.kind != PROM_GATE_SUBSCRIPTION &&
			prom_gate_make(db, pauses[i].target.kind,
						   pauses[i].target.name) == NULL)
			ereport(WARNING,
					(errmsg("\"%s\" cannot be paused", pauses[i].target.name),
					 errdetail("There are %d gates already.", PROM_MAX_GATES)));
	LWLockAcquire(db->gate_lock, LW_EXCLUSIVE);
	ngates = pg_atomic_read_u32(&db->ngates);
	for (uint32 i = 0; i < ngates; i++)
	{
		TimestampTz since = paused_since(&db->gates[i], pauses, n);
		bool changes = (since != 0) != db->gates[i].paused;

		prom_gate_set_paused(&db->gates[i], since);
		if (changes)
			pg_atomic_fetch_add_u32(&db->gates[i].changes, 1);
	}
	LWLockRelease(db->gate_lock);
	/*
	 * What may be delivered now is the caller's to find out.  The same hint
	 * tells of subscriptions: it comes before the invalidation that does.
	 */
	pg_atomic_fetch_add_u32(&db->subscribed, 1);
	pg_atomic_write_u32(&db->deliver, 1);
	prom_shmem_wake(&db->worker[PROM_CALLER]);
	prom_shmem_wake(&db->worker[PROM_PUBLISHER]);
}
