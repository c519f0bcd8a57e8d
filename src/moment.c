/*
 * moment.c
 *	  Finds the mark that answers for a moment, and asks what it sees.
 *
 * AS OF t is what the last mark at or before t saw.  It is used only when it is
 * sure to stay the last one: when a later mark is committed, since marks are
 * written one by one.  And only by a statement whose own snapshot sees every
 * transaction that the mark shows, or rows would be missing from the answer.
 *
 * Marks are read as they are committed now, not by the statement's snapshot,
 * which may be older; no row of theirs is ever changed.  The later one is
 * looked for first: when it is there, what is before it is decided.
 *
 * What was found is kept to the end of the transaction.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/supportnodes.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "as_of.h"
#include "compat.h"
#include "era.h"
#include "guc.h"
#include "horizon.h"
#include "mark.h"
#include "moment.h"
#include "mutant.h"
#include "shmem.h"

/* In all, and until it is looked for again, ms. */
#define LONGEST_WAIT 5000
#define WAIT 100

struct PromMoment
{
	int64 mark_id;
	TimestampTz at; /* of the mark */
	uint64 xmin;    /* of its snapshot, with the era */
	uint64 xmax;
	int nxip;
	uint64 *xip; /* in order */
	/* Of the snapshot that was last found to see all of it. */
	bool checked;
	bool in_recovery;
	TransactionId checked_xmin;
	TransactionId checked_xmax;
	uint32 checked_xcnt;
	uint32 checked_subxcnt;
};

/* A moment, or a mark by its number. */
typedef struct Question
{
	TimestampTz at; /* unless there is a */
	int64 mark_id;
} Question;

typedef struct Found
{
	Question question; /* the key */
	PromMoment *moment;
} Found;

/* All in TopTransactionContext; NULL outside of a transaction. */
static HTAB *found = NULL;
static Found *last = NULL;

static void
xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT ||
		event == XACT_EVENT_PARALLEL_PRE_COMMIT ||
		event == XACT_EVENT_PRE_PREPARE)
		return;
	found = NULL;
	last = NULL;
}

void
prom_moment_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
}


/* Rows. */

static Relation
open_marks(void)
{
	Oid namespace = get_namespace_oid("prometheus", false);
	Oid relid = get_relname_relid("_mark", namespace);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"prometheus._mark\" does not exist"),
				 errhint("Run ALTER EXTENSION prometheus UPDATE.")));
	return table_open(relid, AccessShareLock);
}

static Datum
value_of(Relation relation, HeapTuple tuple, const char *column)
{
	bool isnull;

	return heap_getattr(tuple, get_attnum(RelationGetRelid(relation), column),
						RelationGetDescr(relation), &isnull);
}

/* A snapshot has no form in memory that is for others: read its text. */
static void
read_snapshot(PromMoment *moment, char *text)
{
	int room = 1;

	for (char *place = text; *place != '\0'; place++)
		if (*place == ',')
			room++;
	moment->xip = MemoryContextAlloc(TopTransactionContext,
									 room * sizeof(uint64));
	moment->nxip = 0;
	moment->xmin = strtou64(text, &text, 10);
	moment->xmax = strtou64(text + 1, &text, 10);
	while (*text != '\0' && *++text != '\0')
		moment->xip[moment->nxip++] = strtou64(text, &text, 10);
}

static PromMoment *
make_moment(Relation relation, HeapTuple tuple)
{
	PromMoment *moment = MemoryContextAllocZero(TopTransactionContext,
												sizeof(PromMoment));

	moment->mark_id = DatumGetInt64(value_of(relation, tuple, "mark_id"));
	moment->at = DatumGetTimestampTz(value_of(relation, tuple, "at"));
	read_snapshot(moment,
				  OidOutputFunctionCall(F_PG_SNAPSHOT_OUT,
										value_of(relation, tuple,
												 "snapshot")));
	return moment;
}

/*
 * The first mark of an index scan, or NULL.  column is what is indexed.
 */
static PromMoment *
first_mark(const char *index_name, Snapshot snapshot, const char *column,
		   StrategyNumber strategy, RegProcedure procedure, Datum value)
{
	Relation relation = open_marks();
	Oid namespace = RelationGetNamespace(relation);
	Relation index = index_open(get_relname_relid(index_name, namespace),
								AccessShareLock);
	ScanDirection direction = strategy == BTLessEqualStrategyNumber
								  ? BackwardScanDirection
								  : ForwardScanDirection;
	PromMoment *moment = NULL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, get_attnum(RelationGetRelid(relation), column), strategy,
				procedure, value);
	scan = systable_beginscan_ordered(relation, index, snapshot, 1, &key);
	tuple = systable_getnext_ordered(scan, direction);
	if (HeapTupleIsValid(tuple))
		moment = make_moment(relation, tuple);
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(relation, AccessShareLock);
	return moment;
}

static PromMoment *
last_before(TimestampTz at)
{
	return first_mark("_mark_at", SnapshotSelf, "at", BTLessEqualStrategyNumber,
					  F_TIMESTAMPTZ_LE, TimestampTzGetDatum(at));
}

static PromMoment *
first_after(TimestampTz at)
{
	return first_mark("_mark_at", SnapshotSelf, "at", BTGreaterStrategyNumber,
					  F_TIMESTAMPTZ_GT, TimestampTzGetDatum(at));
}

static PromMoment *
mark_by_id(int64 mark_id, Snapshot snapshot)
{
	return first_mark("_mark_pkey", snapshot, "mark_id", BTEqualStrategyNumber,
					  F_INT8EQ, Int64GetDatum(mark_id));
}


/* Which mark. */

static void
raise_before_first(TimestampTz at)
{
	PromMoment *first = first_after(at);

	if (first == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("nothing is known of %s: there are no marks yet",
						timestamptz_to_str(at)),
				 errhint("Marks are written while facts change, or by prometheus_mark().")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("nothing is known of %s", timestamptz_to_str(at)),
			 errdetail("The first mark is of %s.",
					   pstrdup(timestamptz_to_str(first->at)))));
}

static void
raise_future(TimestampTz at)
{
	char *moment = pstrdup(timestamptz_to_str(at));

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s is in the future", moment),
			 errdetail("It is %s now.",
					   timestamptz_to_str(GetCurrentTimestamp()))));
}

static void
raise_open(TimestampTz at)
{
	char *moment = pstrdup(timestamptz_to_str(at));
	PromMoment *newest = last_before(at);
	const char *hint = "Ask again, or for an earlier moment; prometheus_health() says whether a publisher is at work.";

	if (RecoveryInProgress())
		hint = "On a standby marks come with what is replicated: ask for that moment, or an earlier one.";
	else if (prom_shmem_database(MyDatabaseId) == NULL)
		hint = prom_guc_serve_hint(get_database_name(MyDatabaseId));
	if (newest == NULL)
		raise_before_first(at);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("what was seen at %s cannot be said yet", moment),
			 errdetail("The newest mark is of %s, and none came after that moment.",
					   timestamptz_to_str(newest->at)),
			 errhint("%s", hint)));
}

/* A mark may come; false: none will. */
static bool
wait_for_mark(void)
{
	CHECK_FOR_INTERRUPTS();
	if (!RecoveryInProgress())
		return prom_mark_ask(WAIT);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 WAIT, prom_wait_event_new("PrometheusMark"));
	ResetLatch(MyLatch);
	return true;
}

static PromMoment *
find_moment(TimestampTz at)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  LONGEST_WAIT);
	PromMoment *moment;

	if (at > GetCurrentTimestamp())
		raise_future(at);
	while (first_after(at) == NULL && !PROM_MUTANT("mark-not-closed"))
	{
		if (GetCurrentTimestamp() >= end || !wait_for_mark())
			raise_open(at);
	}
	moment = last_before(at);
	if (moment == NULL)
		raise_before_first(at);
	return moment;
}

static PromMoment *
find_mark(int64 mark_id)
{
	PromMoment *moment = mark_by_id(mark_id, SnapshotSelf);

	if (moment == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("mark %lld does not exist",
							   (long long) mark_id)));
	return moment;
}

/* By its name, as it is now; 0: there is none. */
static int64
named_mark(const char *name)
{
	Oid namespace = get_namespace_oid("prometheus", false);
	Relation relation = table_open(get_relname_relid("_mark_name", namespace),
								   AccessShareLock);
	Relation index = index_open(prom_primary_key_index(relation),
								AccessShareLock);
	int64 mark_id = 0;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, get_attnum(RelationGetRelid(relation), "name"),
				BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(name));
	key.sk_collation = DEFAULT_COLLATION_OID;
	scan = systable_beginscan_ordered(relation, index, SnapshotSelf, 1, &key);
	tuple = systable_getnext_ordered(scan, ForwardScanDirection);
	if (HeapTupleIsValid(tuple))
		mark_id = DatumGetInt64(value_of(relation, tuple, "mark_id"));
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(relation, AccessShareLock);
	return mark_id;
}


/* May a statement use it? */

static bool
sees(const PromMoment *moment, uint64 xid)
{
	int low = 0;
	int high = moment->nxip;

	if (xid < moment->xmin)
		return true;
	if (xid >= moment->xmax || PROM_MUTANT("seen-if-older"))
		return false;
	if (PROM_MUTANT("seen-unless-later"))
		return true;
	while (low < high)
	{
		int middle = (low + high) / 2;

		if (moment->xip[middle] == xid)
			return false;
		if (moment->xip[middle] < xid)
			low = middle + 1;
		else
			high = middle;
	}
	return true;
}

/*
 * Has a snapshot all that the mark shows, though the mark itself was committed
 * after it?  Only here can xids be compared: they must be of this server.
 */
static bool
has_all(const PromMoment *moment, Snapshot snapshot)
{
	uint64 era = moment->xmax & ~PROM_ERA_MASK;
	TransactionId xmax = (TransactionId) (moment->xmax & PROM_ERA_MASK);

	if (RecoveryInProgress() || snapshot->takenDuringRecovery ||
		!prom_era_is_current(moment->xmax))
		return false;
	if (TransactionIdFollows(xmax, snapshot->xmax))
		return false;
	for (uint32 i = 0; i < snapshot->xcnt; i++)
	{
		FullTransactionId xid = prom_era_widen(snapshot->xip[i]);

		if (sees(moment, era | U64FromFullTransactionId(xid)))
			return false;
	}
	return true;
}

static void
raise_forgotten(TimestampTz at, TimestampTz horizon)
{
	char *moment = pstrdup(timestamptz_to_str(at));

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("what was seen at %s is not kept any more", moment),
			 errdetail("What was superseded before %s may be deleted.",
					   timestamptz_to_str(horizon)),
			 errhint("prometheus.retention says how long versions are kept.")));
}

/*
 * Who sees the mark sees what it shows: that was over before the mark was
 * written, here and in the order in which a standby replays it.
 */
static void
check_snapshot(PromMoment *moment)
{
	Snapshot snapshot = GetActiveSnapshot();

	if (moment->checked && moment->checked_xmin == snapshot->xmin &&
		moment->checked_xmax == snapshot->xmax &&
		moment->checked_xcnt == snapshot->xcnt &&
		moment->checked_subxcnt == (uint32) snapshot->subxcnt &&
		moment->in_recovery == snapshot->takenDuringRecovery)
		return;
	if (mark_by_id(moment->mark_id, snapshot) == NULL &&
		!has_all(moment, snapshot) && !PROM_MUTANT("snapshot-unchecked"))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("the snapshot of this transaction is older than %s",
						timestamptz_to_str(moment->at)),
				 errdetail("What was committed between them is hidden from it."),
				 errhint("Begin a new transaction, or ask for an earlier moment.")));
	if (moment->at < prom_horizon(snapshot))
		raise_forgotten(moment->at, prom_horizon(snapshot));
	moment->checked = true;
	moment->checked_xmin = snapshot->xmin;
	moment->checked_xmax = snapshot->xmax;
	moment->checked_xcnt = snapshot->xcnt;
	moment->checked_subxcnt = (uint32) snapshot->subxcnt;
	moment->in_recovery = snapshot->takenDuringRecovery;
}

static void
make_found(void)
{
	HASHCTL control = {0};

	control.keysize = sizeof(Question);
	control.entrysize = sizeof(Found);
	control.hcxt = TopTransactionContext;
	found = hash_create("prometheus moments", 16, &control,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* The answer to a question that was asked in this transaction, or a new one. */
static const PromMoment *
answer(const Question *question)
{
	if (last == NULL || last->question.at != question->at ||
		last->question.mark_id != question->mark_id)
	{
		if (found == NULL)
			make_found();
		last = hash_search(found, question, HASH_FIND, NULL);
	}
	if (last == NULL)
	{
		PromMoment *moment = question->mark_id == 0
								 ? find_moment(question->at)
								 : find_mark(question->mark_id);

		last = hash_search(found, question, HASH_ENTER, NULL);
		last->moment = moment;
	}
	check_snapshot(last->moment);
	return last->moment;
}

const PromMoment *
prom_moment_at(TimestampTz at)
{
	Question question = {at, 0};

	return answer(&question);
}

const PromMoment *
prom_moment_of_mark(int64 mark_id)
{
	Question question = {0, mark_id};

	return answer(&question);
}

const PromMoment *
prom_moment_current(void)
{
	PromAsOf *as_of = prom_as_of();

	if (as_of == NULL)
		return NULL;
	if (as_of->name[0] == '\0')
		return prom_moment_at(as_of->at);
	if (as_of->mark_id == 0)
		as_of->mark_id = named_mark(as_of->name);
	if (as_of->mark_id == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("mark \"%s\" does not exist", as_of->name),
				 errhint("SELECT * FROM prometheus.mark WHERE name IS NOT NULL lists them; prometheus_mark() makes one.")));
	return prom_moment_of_mark(as_of->mark_id);
}

bool
prom_moment_sees(const PromMoment *moment, FullTransactionId xid)
{
	return sees(moment, U64FromFullTransactionId(xid));
}

int64
prom_moment_mark(const PromMoment *moment)
{
	return moment->mark_id;
}

TimestampTz
prom_moment_time(const PromMoment *moment)
{
	return moment->at;
}

PG_FUNCTION_INFO_V1(prom_seen);

Datum
prom_seen(PG_FUNCTION_ARGS)
{
	const PromMoment *moment = prom_moment_current();

	PG_RETURN_BOOL(moment == NULL ||
				   prom_moment_sees(moment, PG_GETARG_FULLTRANSACTIONID(0)));
}

PG_FUNCTION_INFO_V1(prom_seen_in);

Datum
prom_seen_in(PG_FUNCTION_ARGS)
{
	const PromMoment *moment = prom_moment_of_mark(PG_GETARG_INT64(1));

	PG_RETURN_BOOL(prom_moment_sees(moment, PG_GETARG_FULLTRANSACTIONID(0)));
}

PG_FUNCTION_INFO_V1(prom_last_mark);

Datum
prom_last_mark(PG_FUNCTION_ARGS)
{
	const PromMoment *moment = prom_moment_current();

	PG_RETURN_INT64(moment == NULL ? PG_INT64_MAX : moment->mark_id);
}

PG_FUNCTION_INFO_V1(prom_moment);

Datum
prom_moment(PG_FUNCTION_ARGS)
{
	const PromMoment *moment = prom_moment_current();

	if (moment == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(moment->at);
}

PG_FUNCTION_INFO_V1(prom_mark_at);

Datum
prom_mark_at(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(prom_moment_at(PG_GETARG_TIMESTAMPTZ(0))->mark_id);
}

PG_FUNCTION_INFO_V1(prom_hidden_marks);

/* From the newest back to the first that the statement's snapshot sees. */
Datum
prom_hidden_marks(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int64 mark_id = prom_mark_newest();

	InitMaterializedSRF(fcinfo, 0);
	for (; mark_id > 0; mark_id--)
	{
		PromMoment *moment = mark_by_id(mark_id, SnapshotSelf);
		Datum values[2];
		bool nulls[2] = {false};

		if (mark_by_id(mark_id, GetActiveSnapshot()) != NULL)
			break;
		if (moment == NULL)
			continue;
		values[0] = Int64GetDatum(mark_id);
		values[1] = TimestampTzGetDatum(moment->at);
		tuplestore_putvalues(result->setResult, result->setDesc, values,
							 nulls);
	}
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(prom_seen_support);

/* As with prometheus._may_see(): a third of the rows would be a wrong guess. */
Datum
prom_seen_support(PG_FUNCTION_ARGS)
{
	Node *request = (Node *) PG_GETARG_POINTER(0);

	if (IsA(request, SupportRequestSelectivity))
	{
		((SupportRequestSelectivity *) request)->selectivity = 1.0;
		PG_RETURN_POINTER(request);
	}
	PG_RETURN_POINTER(NULL);
}

PG_FUNCTION_INFO_V1(prom_seen_at);

Datum
prom_seen_at(PG_FUNCTION_ARGS)
{
	const PromMoment *moment = prom_moment_at(PG_GETARG_TIMESTAMPTZ(1));

	PG_RETURN_BOOL(prom_moment_sees(moment, PG_GETARG_FULLTRANSACTIONID(0)));
}
