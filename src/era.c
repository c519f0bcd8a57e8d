/*
 * era.c
 *	  Tells xids of this database from those that facts brought along.
 *
 * A restored dump brings facts with xids of another server, where xids begin
 * again.  So facts have era << 48 | xid, and each row of prometheus._era says
 * in which server and database an era was begun.  The highest is ours if all
 * its rows are of here, if no row of elsewhere has come since, and if no task
 * has an xid that is not given yet; otherwise it is raised.  Who finds facts of
 * elsewhere pauses everything in the same transaction: a copy must not spend
 * money.
 *
 * Writers hold RowExclusiveLock on the relation until they end, and raising
 * needs ShareRowExclusiveLock: no transaction that writes an old era commits
 * after it was raised.  Writers remember that the era is ours until it is
 * raised (a relcache invalidation), so that they only take a fast-path lock.
 * Rows that a restore adds invalidate nothing: the workers look at the rows,
 * with the snapshot that they read tasks with.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "as_of.h"
#include "era.h"
#include "mark.h"
#include "mutant.h"
#include "role.h"
#include "wakeup.h"
#include "worker.h"
#include "xact.h"

/* What a snapshot sees. */
typedef struct View
{
	int32 highest;    /* 0: there is no row */
	int32 own;        /* the highest that was begun here; 0: none */
	bool foreign;     /* one of the highest was begun elsewhere */
	int32 nforeign;   /* rows of elsewhere */
	int32 nknown;     /* as many were there when the highest was begun */
	bool uncommitted; /* a row is of this very transaction */
	uint64 stored;    /* the highest xid of a task; 0: there is none */
	bool is_ours;
} View;

/* The era that is ours, until somebody raises it. */
static struct
{
	bool valid;
	Oid relid;
	int32 era;
} known;

static uint64 invalidations; /* how often known may have become wrong */

static void
relation_changed(Datum arg, Oid relid)
{
	if (OidIsValid(relid) && relid != known.relid && known.valid)
		return;
	known.valid = false;
	invalidations++;
}

void
prom_era_init(void)
{
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
}

static FullTransactionId
with_era(int32 era, FullTransactionId xid)
{
	return FullTransactionIdFromU64((uint64) era << PROM_ERA_SHIFT |
									U64FromFullTransactionId(xid));
}

static Oid
find_relation(const char *name)
{
	Oid namespace = get_namespace_oid("prometheus", true);

	if (!OidIsValid(namespace))
		return InvalidOid;
	return get_relname_relid(name, namespace);
}

static Oid
era_relation(void)
{
	Oid relid = find_relation("_era");

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"prometheus._era\" does not exist"),
				 errhint("Run CREATE EXTENSION prometheus in this database, or ALTER EXTENSION prometheus UPDATE.")));
	return relid;
}

/* A row of prometheus._era. */
typedef struct Row
{
	int32 era;
	int32 foreign_rows;
	bool own;
} Row;

static Datum
value_of(Relation relation, HeapTuple tuple, const char *column)
{
	bool isnull;

	return heap_getattr(tuple,
						get_attnum(RelationGetRelid(relation), column),
						RelationGetDescr(relation), &isnull);
}

static void
add_row(View *view, const Row *row)
{
	if (row->era > view->highest)
	{
		view->highest = row->era;
		view->foreign = false;
		view->nknown = 0;
	}
	if (!row->own)
		view->nforeign++;
	if (row->own)
		view->own = Max(view->own, row->era);
	if (row->era != view->highest)
		return;
	if (row->own)
		view->nknown = Max(view->nknown, row->foreign_rows);
	else
		view->foreign = true;
}

static void
read_rows(Relation relation, Snapshot snapshot, View *view)
{
	SysScanDesc scan = systable_beginscan(relation, InvalidOid, false,
										  snapshot, 0, NULL);
	HeapTuple tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Row row;

		row.era = DatumGetInt32(value_of(relation, tuple, "era"));
		row.foreign_rows =
			DatumGetInt32(value_of(relation, tuple, "foreign_rows"));
		row.own =
			DatumGetInt64(value_of(relation, tuple, "system_identifier")) ==
				(int64) GetSystemIdentifier() &&
			DatumGetObjectId(value_of(relation, tuple, "database_oid")) ==
				MyDatabaseId;
		add_row(view, &row);
		if (TransactionIdIsCurrentTransactionId(
				HeapTupleHeaderGetXmin(tuple->t_data)))
			view->uncommitted = true;
	}
	systable_endscan(scan);
}

/* The highest xid of a task: facts may be restored before their era. */
static uint64
read_stored(Snapshot snapshot)
{
	Oid relid = find_relation("_task");
	Relation relation;
	Relation index;
	SysScanDesc scan;
	HeapTuple tuple;
	uint64 stored = 0;

	if (!OidIsValid(relid))
		return 0; /* the install script is at its beginning */
	relation = table_open(relid, AccessShareLock);
	index = index_open(find_relation("_task_xid"), AccessShareLock);
	scan = systable_beginscan_ordered(relation, index, snapshot, 0, NULL);
	tuple = systable_getnext_ordered(scan, BackwardScanDirection);
	if (HeapTupleIsValid(tuple))
		stored = U64FromFullTransactionId(
			DatumGetFullTransactionId(value_of(relation, tuple, "xid")));
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(relation, AccessShareLock);
	return stored;
}

static void
look(Oid relid, Snapshot snapshot, View *view)
{
	Relation relation = table_open(relid, AccessShareLock);
	FullTransactionId next;

	memset(view, 0, sizeof(*view));
	read_rows(relation, snapshot, view);
	view->stored = read_stored(snapshot);
	next = with_era(view->highest, ReadNextFullTransactionId());
	view->is_ours = view->highest > 0 && !view->foreign &&
					view->nforeign <= view->nknown &&
					view->stored < U64FromFullTransactionId(next);
	table_close(relation, AccessShareLock);
}

/* What is committed now, whatever the transaction's snapshot sees. */
static void
look_at_latest(Oid relid, View *view)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

	look(relid, snapshot, view);
	UnregisterSnapshot(snapshot);
}

/* Whose facts were there, so that this is a copy. */
static void
pause_copy(void)
{
	static const char pause_sql[] =
		"INSERT INTO prometheus._gate (target, paused_at, paused_by, reason)"
		" VALUES ('all', pg_catalog.clock_timestamp(), 'prometheus',"
		" '" PROM_ERA_REASON "')"
		" ON CONFLICT (target) DO UPDATE SET paused_at = excluded.paused_at,"
		" paused_by = excluded.paused_by, reason = excluded.reason";
	PromHint hint = {0};

	if (SPI_execute(pause_sql, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write prometheus._gate");
	hint.kind = PROM_HINT_GATES;
	hint.deadline = DT_NOEND;
	prom_wakeup_hint(&hint);
	ereport(WARNING,
			(errmsg("database \"%s\" is a copy: all its tasks are paused",
					get_database_name(MyDatabaseId)),
			 errdetail("Facts in it were written by another server or database (restore, clone, pg_upgrade, or a template)."),
			 errhint("SELECT prometheus_resume() lets them run.")));
}

static int32
next_era(const View *view)
{
	return Max(view->highest, (int32) (view->stored >> PROM_ERA_SHIFT)) + 1;
}

/* Begin the next era, unless somebody else has just done so. */
static void
raise_era(Oid relid)
{
	static const char raise_sql[] =
		"INSERT INTO prometheus._era"
		" (era, system_identifier, database_oid, foreign_rows, begun_at)"
		" VALUES ($1, $2, $3, $4, pg_catalog.clock_timestamp())";
	Oid types[4] = {INT4OID, INT8OID, OIDOID, INT4OID};
	Datum values[4];
	PromOwner owner;
	View view;

	LockRelationOid(relid, ShareRowExclusiveLock);
	look_at_latest(relid, &view);
	if (view.is_ours)
	{
		UnlockRelationOid(relid, ShareRowExclusiveLock);
		return;
	}
	values[0] = Int32GetDatum(next_era(&view));
	values[1] = Int64GetDatum((int64) GetSystemIdentifier());
	values[2] = ObjectIdGetDatum(MyDatabaseId);
	values[3] = Int32GetDatum(view.nforeign);
	SPI_connect();
	prom_role_become_owner(&owner);
	if (SPI_execute_with_args(raise_sql, 4, types, values, NULL, false, 0) !=
		SPI_OK_INSERT)
		elog(ERROR, "could not write prometheus._era");
	if (view.highest > 0 || view.stored > 0)
		pause_copy();
	prom_role_restore(&owner);
	SPI_finish();
	CacheInvalidateRelcacheByRelid(relid);
	CommandCounterIncrement();
}

/*
 * Who writes an era already keeps it: raising it now would be an upgrade of
 * its lock, and two that do so wait for each other.
 */
static bool
may_raise(Oid relid)
{
	Relation relation = table_open(relid, AccessShareLock);
	bool may = CheckRelationLockedByMe(relation, ShareRowExclusiveLock, true) ||
			   !CheckRelationLockedByMe(relation, RowExclusiveLock, false);

	table_close(relation, AccessShareLock);
	return may;
}

/* The era of what this transaction writes, which holds the lock from now on. */
static int32
era_for_writing(void)
{
	Oid relid = known.valid ? known.relid : era_relation();
	uint64 before;
	View view;

	if (!known.valid && may_raise(relid))
	{
		look_at_latest(relid, &view);
		if (!view.is_ours)
			raise_era(relid);
	}

	/* Here messages of those who raised it before arrive. */
	LockRelationOid(relid, RowExclusiveLock);
	if (known.valid && known.relid == relid)
		return known.era;
	before = invalidations;
	look_at_latest(relid, &view);
	if (view.own == 0)
	{
		raise_era(relid);
		look_at_latest(relid, &view);
	}
	if (view.is_ours && !view.uncommitted && before == invalidations)
	{
		known.relid = relid;
		known.era = view.own;
		known.valid = true;
	}
	return view.own;
}

FullTransactionId
prom_era_xid(void)
{
	FullTransactionId xid;

	prom_as_of_forbid_writing();
	prom_mark_wrote();
	xid = GetTopFullTransactionId();
	if (PROM_MUTANT("fact-of-subxact"))
		xid = GetCurrentFullTransactionId();
	return with_era(era_for_writing(), xid);
}

int32
prom_era_now(void)
{
	View view;

	look_at_latest(era_relation(), &view);
	return view.is_ours ? view.own : era_for_writing();
}

int32
prom_era_look(void)
{
	View view;

	look_at_latest(era_relation(), &view);
	return view.is_ours ? view.own : next_era(&view);
}

/* By what is committed now: rows are never changed. */
bool
prom_era_is_current(uint64 xid)
{
	View view;

	look(era_relation(), SnapshotSelf, &view);
	return view.is_ours && (int32) (xid >> PROM_ERA_SHIFT) == view.highest;
}

/* It is not older than half of all xids, and not of the future. */
FullTransactionId
prom_era_widen(TransactionId xid)
{
	uint64 next = U64FromFullTransactionId(ReadNextFullTransactionId());
	uint32 age = (TransactionId) next - xid;

	return FullTransactionIdFromU64(next - age);
}

bool
prom_era_xact_begin(const char *activity)
{
	View view;

	for (;;)
	{
		Oid relid;

		if (!prom_worker_xact_begin(activity))
			return false;
		relid = era_relation();
		look(relid, GetActiveSnapshot(), &view);
		if (view.is_ours)
			return true;
		raise_era(relid);
		prom_xact_commit();
	}
}

/* Is everything paused because this is a copy? */
static bool
copy_waits(void)
{
	PromOwner owner;
	bool waits;

	SPI_connect();
	prom_role_become_owner(&owner);
	if (SPI_execute("SELECT FROM prometheus._gate"
					" WHERE target OPERATOR(pg_catalog.=) 'all'"
					" AND reason OPERATOR(pg_catalog.=) '" PROM_ERA_REASON "'",
					true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._gate");
	waits = SPI_processed > 0;
	prom_role_restore(&owner);
	SPI_finish();
	return waits;
}

void
prom_era_read(PromEra *era)
{
	Oid relid = find_relation("_era");
	View view;

	memset(era, 0, sizeof(*era));
	if (!OidIsValid(relid))
		return;
	look(relid, GetActiveSnapshot(), &view);
	era->era = view.highest;
	era->is_ours = view.is_ours;
	era->waits = copy_waits();
}

PG_FUNCTION_INFO_V1(prom_xid);

Datum
prom_xid(PG_FUNCTION_ARGS)
{
	PG_RETURN_FULLTRANSACTIONID(prom_era_xid());
}

PG_FUNCTION_INFO_V1(prom_snapshot);

/*
 * The current snapshot with the era that it sees, so that the server's own
 * test of visibility fits facts: those of older eras are visible in it, those
 * of later ones are not.
 */
Datum
prom_snapshot(PG_FUNCTION_ARGS)
{
	char *place = OidOutputFunctionCall(
		F_PG_SNAPSHOT_OUT, OidFunctionCall0(F_PG_CURRENT_SNAPSHOT));
	StringInfoData text;
	View view;

	look(era_relation(), GetActiveSnapshot(), &view);
	initStringInfo(&text);
	while (*place != '\0')
	{
		FullTransactionId xid;

		if (*place == ':' || *place == ',')
		{
			appendStringInfoChar(&text, *place++);
			continue;
		}
		xid = with_era(view.highest,
					   FullTransactionIdFromU64(strtou64(place, &place, 10)));
		appendStringInfo(&text, UINT64_FORMAT, U64FromFullTransactionId(xid));
	}
	PG_RETURN_DATUM(OidInputFunctionCall(F_PG_SNAPSHOT_IN, text.data,
										 PG_SNAPSHOTOID, -1));
}
