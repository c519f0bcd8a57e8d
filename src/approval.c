/*
 * approval.c
 *	  Tool calls that wait for a person: asking, deciding, finding out.
 *
 * What a person decides is a row with the approval's id as its key, and so is
 * that nobody did in time: whichever commits first counts, and the other fails.
 * Who decides holds a lock on it meanwhile.  His transaction may be open for
 * long, so nobody of us waits for it: as long as it is, the approval is open,
 * and is looked at again a little later.
 *
 * An approval is for the hash of what was judged; a call that differs in
 * anything has none.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "approval.h"
#include "as_of.h"
#include "compat.h"
#include "guard.h"
#include "live.h"
#include "role.h"
#include "task.h"
#include "wakeup.h"
#include "worker.h"
#include "xact.h"

/* When to look again at one that is being decided, ms. */
#define AGAIN 1000

static PromStatement find_statement = {
	"SELECT a.approval_id, a.expires_at, d.decision, d.decided_by, d.note"
	" FROM prometheus._approval a"
	" LEFT JOIN prometheus._decision d ON d.approval_id = a.approval_id"
	" WHERE a.task_id = $1 AND a.step = $2 AND a.target_hash = $3"
	"   AND (d.decision = 'rejected'"
	"    OR a.approvers = $4 AND coalesce(a.approvers_oid, '0') = $5)"
	" ORDER BY d.decision = 'rejected' DESC NULLS LAST, a.approval_id DESC"
	" LIMIT 1",
	5,
	{INT8OID, INT4OID, TEXTOID, TEXTOID, OIDOID},
	NULL,
};

static PromStatement expire_statement = {
	"INSERT INTO prometheus._decision"
	" (approval_id, xid, decided_at, decision, event_id)"
	" VALUES ($1, prometheus._xid(), $2, 'expired', $3)",
	3,
	{INT8OID, TIMESTAMPTZOID, INT8OID},
	NULL,
};

/* Whoever decides about it, or finds that nobody did, until his end. */
static LOCKTAG
lock_of(int64 approval_id)
{
	Oid relation = get_relname_relid("_approval",
									 get_namespace_oid("prometheus", false));
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, relation, (uint32) approval_id,
					   (uint16) (approval_id >> 32));
	return tag;
}

static bool
lock_at_once(int64 approval_id)
{
	LOCKTAG tag = lock_of(approval_id);

	return LockAcquire(&tag, ExclusiveLock, false, true) !=
		   LOCKACQUIRE_NOT_AVAIL;
}

static bool
is_being_decided(int64 approval_id)
{
	LOCKTAG tag = lock_of(approval_id);

	if (!lock_at_once(approval_id))
		return true;
	(void) LockRelease(&tag, ExclusiveLock, false);
	return false;
}

static const char *
words_of(const char *decision, const char *by, const char *note)
{
	StringInfoData words;

	initStringInfo(&words);
	appendStringInfoString(&words, decision);
	if (by != NULL)
		appendStringInfo(&words, " by %s", by);
	if (note != NULL)
		appendStringInfo(&words, ": %s", note);
	return words.data;
}

static const char *
approvers_of(const PromPolicy *policy)
{
	return policy->approvers != NULL ? policy->approvers : PROM_ROLE_ADMIN;
}

/* What a policy's approvers decided, or (NULL) whether any rejected it. */
static void
find_decision(const PromJudged *judged, const char *hash,
			  const PromPolicy *policy, TimestampTz now, PromApproval *approval)
{
	Datum values[5] = {Int64GetDatum(judged->task_id),
					   Int32GetDatum(judged->step), CStringGetTextDatum(hash)};
	const char *decision;

	memset(approval, 0, sizeof(*approval));
	if (policy != NULL)
	{
		values[3] = CStringGetTextDatum(approvers_of(policy));
		values[4] = ObjectIdGetDatum(policy->approvers_oid);
	}
	prom_statement_run(&find_statement, values,
					   policy == NULL ? "   nn" : NULL, true);
	if (SPI_processed == 0)
		return;
	approval->approval_id = prom_row_int64(0, 1);
	decision = prom_row_text_or_null(0, 3);
	if (decision == NULL && (prom_row_time(0, 2) > now ||
							 !lock_at_once(approval->approval_id)))
	{
		approval->state = PROM_APPROVAL_OPEN;
		return;
	}
	if (decision == NULL || strcmp(decision, "expired") == 0)
	{
		approval->state = PROM_APPROVAL_EXPIRED;
		approval->words = "nobody approved it in time";
	}
	else
	{
		approval->state = strcmp(decision, "approved") == 0
							  ? PROM_APPROVAL_APPROVED
							  : PROM_APPROVAL_REJECTED;
		approval->words = words_of(decision, prom_row_text_or_null(0, 4),
								   prom_row_text_or_null(0, 5));
	}
	if (decision == NULL)
	{
		Datum row[3] = {Int64GetDatum(approval->approval_id),
						TimestampTzGetDatum(now),
						Int64GetDatum(prom_fact_next_id())};

		prom_statement_run(&expire_statement, row, NULL, false);
	}
}

void
prom_approval_find(const PromPolicies *policies, const PromJudged *judged,
				   PromVerdict *verdict, TimestampTz now,
				   PromApproval *approval)
{
	const char *hash;

	memset(approval, 0, sizeof(*approval));
	if (!judged->waited)
		return;
	hash = prom_judge_hash(judged);
	if (verdict->effect != PROM_EFFECT_ESCALATE)
	{
		find_decision(judged, hash, NULL, now, approval);
		return;
	}
	for (int i = 0; i < policies->n; i++)
	{
		const PromPolicy *policy = &policies->list[i];

		if (!bms_is_member(i, verdict->escalated))
			continue;
		find_decision(judged, hash, policy, now, approval);
		if (approval->state == PROM_APPROVAL_APPROVED)
			continue;
		if (policy != verdict->policy)
			prom_verdict_name(verdict, policy);
		return;
	}
}

void
prom_approval_add(PromFactWriter *writer, const PromJudged *judged,
				  const PromVerdict *verdict, TimestampTz until,
				  TimestampTz now)
{
	Datum values[APPROVAL_COLUMNS];
	bool nulls[APPROVAL_COLUMNS] = {false};

	values[APPROVAL_ID] = Int64GetDatum(prom_fact_next_id());
	values[APPROVAL_TASK_ID] = Int64GetDatum(judged->task_id);
	values[APPROVAL_ATTEMPT] = Int32GetDatum(judged->attempt);
	values[APPROVAL_STEP] = Int32GetDatum(judged->step);
	values[APPROVAL_REQUESTED_AT] = TimestampTzGetDatum(now);
	values[APPROVAL_EXPIRES_AT] = TimestampTzGetDatum(until);
	values[APPROVAL_TOOL] = CStringGetTextDatum(judged->tool->name);
	values[APPROVAL_POLICY] = CStringGetTextDatum(verdict->policy->name);
	values[APPROVAL_APPROVERS] =
		CStringGetTextDatum(approvers_of(verdict->policy));
	values[APPROVAL_APPROVERS_OID] =
		ObjectIdGetDatum(verdict->policy->approvers_oid);
	nulls[APPROVAL_APPROVERS_OID] =
		!OidIsValid(verdict->policy->approvers_oid);
	values[APPROVAL_TARGET_HASH] = CStringGetTextDatum(prom_judge_hash(judged));
	values[APPROVAL_REASONING] = prom_fact_text(verdict->reasoning,
												&nulls[APPROVAL_REASONING]);
	values[APPROVAL_ARGUMENTS] = CStringGetTextDatum(judged->arguments);
	prom_fact_add(writer, PROM_FACT_APPROVAL, values, nulls);
}

/* Its own end wakes the task that waits for a child; and the deadline. */
static PromStatement open_statement = {
	"SELECT a.step, a.expires_at, a.approval_id FROM prometheus._approval a"
	" WHERE a.task_id = $1"
	"   AND NOT EXISTS (SELECT FROM prometheus._decision d"
	"     WHERE d.approval_id = a.approval_id)"
	" UNION ALL"
	" SELECT t.parent_step, $2, NULL FROM prometheus._task t"
	" WHERE t.parent_id = $1 AND NOT " PROM_HAS_ENDED,
	2,
	{INT8OID, TIMESTAMPTZOID},
	NULL,
};

TimestampTz
prom_approval_leave_out(int64 task_id, int32 *steps, int *n,
						TimestampTz deadline, TimestampTz now)
{
	Datum values[2] = {Int64GetDatum(task_id), TimestampTzGetDatum(deadline)};
	TimestampTz first = DT_NOEND;

	prom_statement_run(&open_statement, values, NULL, true);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		TimestampTz until = prom_row_time(row, 2);
		int64 approval_id = prom_row_int64_or(row, 3, 0);

		for (int i = 0; i < *n; i++)
		{
			if (steps[i] != prom_row_int32(row, 1))
				continue;
			if (approval_id != 0 && until <= now)
			{
				if (!is_being_decided(approval_id))
					break;
				until = TimestampTzPlusMilliseconds(now, AGAIN);
			}
			first = Min(first, until);
			memmove(&steps[i], &steps[i + 1], (--*n - i) * sizeof(int32));
			break;
		}
	}
	SPI_freetuptable(SPI_tuptable);
	return first;
}


/* Deciding. */

/* The administrators' role is known by its name, as everywhere. */
static bool
may_approve(const char *approvers, Oid oid)
{
	if (!OidIsValid(oid))
		oid = strcmp(approvers, PROM_ROLE_ADMIN) == 0
				  ? get_role_oid(PROM_ROLE_ADMIN, true)
				  : InvalidOid;
	else
		oid = prom_guard_role(approvers, oid);
	return superuser() ||
		   (OidIsValid(oid) && has_privs_of_role(GetUserId(), oid));
}

PG_FUNCTION_INFO_V1(prom_may_approve);

Datum
prom_may_approve(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(may_approve(text_to_cstring(PG_GETARG_TEXT_PP(0)),
							   PG_GETARG_OID(1)));
}

/* What is to be decided. */
typedef struct Open
{
	int64 task_id;
	const char *approvers;
	Oid approvers_oid;
	const char *submitter;
	Oid submitter_oid;
	bool is_over;
	const char *decision; /* NULL: none yet */
} Open;

static void
read_open(int64 approval_id, Open *open)
{
	Oid type = INT8OID;
	Datum value = Int64GetDatum(approval_id);

	if (prom_execute_now(
			"SELECT a.task_id, a.approvers, t.submitter, t.submitter_oid,"
			" a.expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp(),"
			" d.decision,"
			" COALESCE(a.approvers_oid, '0'::pg_catalog.oid)"
			" FROM prometheus._approval a JOIN prometheus._task t"
			"   ON t.task_id OPERATOR(pg_catalog.=) a.task_id"
			" LEFT JOIN prometheus._decision d"
			"   ON d.approval_id OPERATOR(pg_catalog.=) a.approval_id"
			" WHERE a.approval_id OPERATOR(pg_catalog.=) $1",
			1, &type, &value, NULL, true) != SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._approval");
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("approval %lld does not exist", (long long) approval_id),
				 errhint("SELECT * FROM prometheus.approval WHERE decision IS NULL lists what is open.")));
	open->task_id = prom_row_int64(0, 1);
	open->approvers = prom_row_text(0, 2);
	open->submitter = prom_row_text(0, 3);
	open->submitter_oid = prom_row_oid(0, 4);
	open->is_over = prom_row_bool(0, 5);
	open->decision = prom_row_text_or_null(0, 6);
	open->approvers_oid = prom_row_oid(0, 7);
}

/* By name or oid: one is enough to refuse. */
static bool
is_submitter(const Open *open, Oid user)
{
	return user == open->submitter_oid ||
		   strcmp(GetUserNameFromId(user, false), open->submitter) == 0;
}

static void
check_may_decide(const Open *open, Oid user)
{
	const char *hint = psprintf("Members of role \"%s\" may, but not who submitted the task.",
								open->approvers);
	Oid session = GetSessionUserId();

	/* Nor by a role that he took on, if he is not one who may do anything. */
	if (is_submitter(open, user) ||
		(is_submitter(open, session) && !superuser_arg(session)))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("nobody may decide about his own task"),
						errhint("%s", hint)));
	if (!may_approve(open->approvers, open->approvers_oid))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied to decide about this call"),
						errhint("%s", hint)));
}

static pg_noreturn void
raise_decided(const char *what)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("the approval %s", what)));
	pg_unreachable();
}

static bool
write_decision(int64 approval_id, const char *decision, Oid user, text *note)
{
	Oid types[6] = {INT8OID, TEXTOID, TEXTOID,
					TEXTOID, TIMESTAMPTZOID, INT8OID};
	Datum values[6];

	values[0] = Int64GetDatum(approval_id);
	values[1] = CStringGetTextDatum(decision);
	values[2] = CStringGetTextDatum(GetUserNameFromId(user, false));
	values[3] = PointerGetDatum(note);
	values[4] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[5] = Int64GetDatum(prom_fact_next_id());
	if (prom_execute_now(
			"INSERT INTO prometheus._decision"
			" (approval_id, xid, decided_at, decision, decided_by, note, event_id)"
			" VALUES ($1, prometheus._xid(), $5, $2, $3, $4, $6)"
			" ON CONFLICT (approval_id) DO NOTHING",
			6, types, values, note == NULL ? "   n  " : NULL,
			false) != SPI_OK_INSERT)
		elog(ERROR, "could not write prometheus._decision");
	return SPI_processed > 0;
}

static Datum
decide(FunctionCallInfo fcinfo, const char *function, const char *decision)
{
	int64 approval_id;
	text *note = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	Oid user = GetUserId();
	LOCKTAG tag;
	PromHint hint = {.kind = PROM_HINT_READ};
	MemoryContext context = CurrentMemoryContext;
	PromTaskEnd end;
	PromOwner owner;
	Open open;

	/* A tool runs as a role that may, and no person is there. */
	if (prom_my_worker != NULL)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("only a person can decide about a tool call")));
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("the approval is null")));
	approval_id = PG_GETARG_INT64(0);
	if (note != NULL && VARSIZE_ANY_EXHDR(note) > PROM_MAX_REASON)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("note is too long"),
						errdetail("It may have %d bytes.", PROM_MAX_REASON)));
	PreventCommandDuringRecovery(function);
	PreventCommandIfReadOnly(function);
	prom_as_of_forbid_writing();
	SPI_connect();
	MemoryContextSwitchTo(context);
	prom_role_become_owner(&owner);
	read_open(approval_id, &open);
	prom_role_restore(&owner);
	check_may_decide(&open, user);
	/* Others who may do so wait; then what they find here is the last word. */
	tag = lock_of(approval_id);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	prom_role_become_owner(&owner);
	read_open(approval_id, &open);
	prom_role_restore(&owner);
	if (open.decision != NULL && strcmp(open.decision, "expired") != 0)
		raise_decided(psprintf("was %s already", open.decision));
	prom_role_become_owner(&owner);
	prom_task_end(open.task_id, &end);
	if (end.ended)
		raise_decided("is of a task that has ended");
	if (open.is_over || open.decision != NULL)
		raise_decided("has expired");
	if (!write_decision(approval_id, decision, user, note))
		raise_decided("was decided already");
	prom_role_restore(&owner);
	SPI_finish();
	hint.task_id = open.task_id;
	prom_wakeup_hint(&hint);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(prom_approve);

Datum
prom_approve(PG_FUNCTION_ARGS)
{
	return decide(fcinfo, "prometheus_approve()", "approved");
}

PG_FUNCTION_INFO_V1(prom_reject);

Datum
prom_reject(PG_FUNCTION_ARGS)
{
	return decide(fcinfo, "prometheus_reject()", "rejected");
}
