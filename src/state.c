/*
 * state.c
 *	  Saves and reads the versioned states of agents.
 *
 * A state belongs to a role, an agent and a key.  Its versions are dense from
 * 1: who saves reads the newest one, also of a transaction that has not ended,
 * and writes the next.  That is done under a lock of the key, which is held for
 * a moment only, so that one transaction may save any number of keys; what
 * orders transactions is that each waits for the end of the one that wrote the
 * newest version.  It waits without the lock: the other may save again.
 *
 * A transaction with a snapshot of its own (REPEATABLE READ) does not build
 * upon a version which that cannot see.
 *
 * Rows are read by hand, since SPI would cost as much as all the rest, and
 * without a look at privileges: whose states they are is part of the key.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "as_of.h"
#include "difference.h"
#include "errcodes.h"
#include "fact.h"
#include "frame.h"
#include "guc.h"
#include "mark.h"
#include "role.h"
#include "shmem.h"
#include "state.h"

/* Rows of a history if nothing is said. */
#define DEFAULT_ROWS 20

typedef struct StateRow
{
	PromFrame frame;
	int64 mark;
	TimestampTz saved_at;
	int64 task_id;       /* 0: none */
	int64 restored_from; /* 0: it is new */
	int32 stored_bytes;
	bool is_seen; /* by the active snapshot, or it is our own */
} StateRow;

/* Versions of a key, the newest first; with a moment, those that it sees. */
typedef struct StateScan
{
	const AttrNumber *columns;
	AttrNumber xid;
	Relation relation;
	Relation index;
	SysScanDesc scan;
	ScanDirection direction;
	const PromMoment *moment;
} StateScan;

static void
set_key(ScanKey scan_key, AttrNumber column, StrategyNumber strategy, Oid type,
		RegProcedure procedure, Datum value)
{
	ScanKeyEntryInitialize(scan_key, 0, column, strategy, type,
						   type == TEXTOID ? DEFAULT_COLLATION_OID : InvalidOid,
						   procedure, value);
}

/*
 * version: only this one; 0: all.  Of a moment, the newest that it sees is
 * found by the marks: however many there are after its mark, none is read.
 * Whoever has found that mark to be the newest has written after it.
 */
static void
scan_begin(StateScan *scan, const PromStateKey *key, int64 version,
		   const PromMoment *moment, Snapshot snapshot)
{
	Oid relid = prom_fact_require(PROM_FACT_STATE, &scan->columns);
	bool by_mark = moment != NULL && version == 0;
	ScanKeyData keys[5];

	set_key(&keys[0], scan->columns[STATE_OWNER], BTEqualStrategyNumber,
			TEXTOID, F_TEXTEQ, CStringGetTextDatum(key->owner));
	set_key(&keys[1], scan->columns[STATE_OWNER_OID], BTEqualStrategyNumber,
			OIDOID, F_OIDEQ, ObjectIdGetDatum(key->owner_oid));
	set_key(&keys[2], scan->columns[STATE_AGENT], BTEqualStrategyNumber,
			TEXTOID, F_TEXTEQ, CStringGetTextDatum(key->agent));
	set_key(&keys[3], scan->columns[STATE_KEY], BTEqualStrategyNumber, TEXTOID,
			F_TEXTEQ, CStringGetTextDatum(key->key));
	if (by_mark)
		set_key(&keys[4], scan->columns[STATE_MARK], BTLessStrategyNumber,
				INT8OID, F_INT8LT, Int64GetDatum(prom_moment_mark(moment)));
	else
		set_key(&keys[4], scan->columns[STATE_VERSION], BTEqualStrategyNumber,
				INT8OID, F_INT8EQ, Int64GetDatum(version));
	scan->moment = moment;
	scan->direction = by_mark ? ForwardScanDirection : BackwardScanDirection;
	scan->xid = get_attnum(relid, "xid");
	scan->relation = table_open(relid, AccessShareLock);
	scan->index =
		index_open(get_relname_relid(by_mark ? "_state_mark" : "_state_pkey",
									 RelationGetNamespace(scan->relation)),
				   AccessShareLock);
	scan->scan = systable_beginscan_ordered(scan->relation, scan->index,
											snapshot,
											by_mark || version != 0 ? 5 : 4,
											keys);
}

static Datum
column(const StateScan *scan, HeapTuple tuple, int number, bool *isnull)
{
	return heap_getattr(tuple, scan->columns[number],
						RelationGetDescr(scan->relation), isnull);
}

static int64
column_int8(const StateScan *scan, HeapTuple tuple, int number)
{
	bool isnull;
	Datum value = column(scan, tuple, number, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

static int32
column_int4(const StateScan *scan, HeapTuple tuple, int number)
{
	bool isnull;

	return DatumGetInt32(column(scan, tuple, number, &isnull));
}

static bool
is_seen(HeapTuple tuple)
{
	TransactionId xmin = HeapTupleHeaderGetXmin(tuple->t_data);

	return TransactionIdIsCurrentTransactionId(xmin) ||
		   !XidInMVCCSnapshot(xmin, GetActiveSnapshot());
}

static bool
sees(const StateScan *scan, HeapTuple tuple)
{
	bool isnull;

	return scan->moment == NULL ||
		   prom_moment_sees(scan->moment,
							DatumGetFullTransactionId(heap_getattr(
								tuple, scan->xid,
								RelationGetDescr(scan->relation), &isnull)));
}

/* with_data: the frame's, too. */
static bool
scan_next(StateScan *scan, StateRow *row, bool with_data)
{
	HeapTuple tuple;
	Datum data;
	bool isnull;

	do
	{
		CHECK_FOR_INTERRUPTS();
		tuple = systable_getnext_ordered(scan->scan, scan->direction);
		if (!HeapTupleIsValid(tuple))
			return false;
	} while (!sees(scan, tuple));
	memset(row, 0, sizeof(*row));
	row->frame.version = column_int8(scan, tuple, STATE_VERSION);
	row->frame.base_version = column_int8(scan, tuple, STATE_BASE_VERSION);
	row->frame.bytes = column_int4(scan, tuple, STATE_BYTES);
	row->frame.run = column_int4(scan, tuple, STATE_RUN);
	row->frame.checksum = column_int4(scan, tuple, STATE_CHECKSUM);
	row->frame.codec =
		DatumGetInt16(column(scan, tuple, STATE_CODEC, &isnull));
	row->frame.form = DatumGetInt16(column(scan, tuple, STATE_FORM, &isnull));
	row->mark = column_int8(scan, tuple, STATE_MARK);
	row->saved_at =
		DatumGetTimestampTz(column(scan, tuple, STATE_SAVED_AT, &isnull));
	row->task_id = column_int8(scan, tuple, STATE_TASK_ID);
	row->restored_from = column_int8(scan, tuple, STATE_RESTORED_FROM);
	row->is_seen = is_seen(tuple);
	data = column(scan, tuple, STATE_FRAME, &isnull);
	row->stored_bytes = (int32) toast_datum_size(data);
	if (with_data)
		row->frame.data = DatumGetByteaPCopy(data);
	return true;
}

static void
scan_end(StateScan *scan)
{
	systable_endscan_ordered(scan->scan);
	index_close(scan->index, NoLock);
	table_close(scan->relation, NoLock);
}

/* A version, or with 0 the newest.  False: there is none. */
static bool
find_row(const PromStateKey *key, int64 version, const PromMoment *moment,
		 Snapshot snapshot, StateRow *row, bool with_data)
{
	StateScan scan;
	bool found;

	scan_begin(&scan, key, version, moment, snapshot);
	found = scan_next(&scan, row, with_data);
	scan_end(&scan);
	return found;
}

static Jsonb *
value_of(const PromStateKey *key, const StateRow *row, Snapshot snapshot)
{
	StateRow base;
	bool has_base = row->frame.base_version != 0 &&
					find_row(key, row->frame.base_version, NULL, snapshot,
							 &base, true);
	Jsonb *value = prom_frame_decode(&row->frame,
									 has_base ? &base.frame : NULL);

	if (value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("version %lld of state \"%s\" of agent \"%s\" is damaged",
						(long long) row->frame.version, key->key, key->agent),
				 errdetail("It belongs to role \"%s\".", key->owner),
				 errhint("prometheus_restore_state() can go back to another version; or restore the table from a backup.")));
	return value;
}

Jsonb *
prom_state_read(const PromStateKey *key, int64 version,
				const PromMoment *moment)
{
	Snapshot snapshot = GetActiveSnapshot();
	StateRow row;

	if (version < 0 || !find_row(key, version, moment, snapshot, &row, true))
		return NULL;
	return value_of(key, &row, snapshot);
}


/* Saving. */

static void
check_name(const char *what, const char *name)
{
	if (name == NULL || *name == '\0' || strlen(name) > PROM_MAX_NAME)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the name of %s must have 1 to %d bytes", what,
							   PROM_MAX_NAME)));
}

static void
check_change(const PromStateKey *key, const PromStateChange *change)
{
	check_name("an agent", key->agent);
	check_name("a state", key->key);
	if (!change->is_summary && strcmp(key->key, PROM_STATE_SUMMARY) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("the key \"%s\" is reserved", key->key),
				 errdetail("It has what the agent has done last."),
				 errhint("Save it under another key.")));
	if (change->value == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a state must have a value"),
						errhint("The null of json is 'null'.")));
	if (prom_frame_bytes(change->value) > (Size) prom_guc_max_state * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a state is too long"),
				 errdetail("It has %zu bytes; the limit is %d kB.",
						   prom_frame_bytes(change->value),
						   prom_guc_max_state),
				 errhint("An administrator can raise prometheus.max_state.")));
}

/* Two keys of the same hash hold up each other for a moment, and no longer. */
static uint64
hash_key(const PromStateKey *key)
{
	StringInfoData all;

	initStringInfo(&all);
	appendBinaryStringInfo(&all, (const char *) &key->owner_oid, sizeof(Oid));
	appendBinaryStringInfo(&all, key->owner, strlen(key->owner) + 1);
	appendBinaryStringInfo(&all, key->agent, strlen(key->agent) + 1);
	appendStringInfoString(&all, key->key);
	return hash_bytes_extended((unsigned char *) all.data, all.len, 0);
}

/*
 * Take the lock of a key, with no transaction under way that has written to
 * it, and read the newest row; false: there is none.
 */
static bool
lock_key(const PromStateKey *key, uint64 hash, StateRow *newest)
{
	Oid relid = prom_fact_require(PROM_FACT_STATE, NULL);

	for (;;)
	{
		SnapshotData dirty;
		bool exists;

		LockDatabaseObject(relid, (Oid) hash, (uint16) (hash >> 32),
						   ShareUpdateExclusiveLock);
		InitDirtySnapshot(dirty);
		exists = find_row(key, 0, NULL, &dirty, newest, false);
		if (!exists || !TransactionIdIsValid(dirty.xmin))
			return exists;
		UnlockDatabaseObject(relid, (Oid) hash, (uint16) (hash >> 32),
							 ShareUpdateExclusiveLock);
		XactLockTableWait(dirty.xmin, NULL, NULL, XLTW_None);
	}
}

static void
unlock_key(uint64 hash)
{
	UnlockDatabaseObject(prom_fact_require(PROM_FACT_STATE, NULL), (Oid) hash,
						 (uint16) (hash >> 32), ShareUpdateExclusiveLock);
}

static void
check_newest(const PromStateKey *key, const PromStateChange *change,
			 const StateRow *newest)
{
	int64 version = newest == NULL ? 0 : newest->frame.version;

	if (IsolationUsesXactSnapshot() && newest != NULL && !newest->is_seen)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update"),
				 errdetail("Version %lld of state \"%s\" of agent \"%s\" is newer than this transaction's snapshot.",
						   (long long) version, key->key, key->agent),
				 errhint("The transaction might succeed if retried.")));
	if (change->expected == PROM_STATE_ANY || change->expected == version)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_PROM_STATE_VERSION),
			 errmsg("state \"%s\" of agent \"%s\" has another version than the one that was expected",
					key->key, key->agent),
			 errdetail("Version %lld was expected, the newest is %lld (0: there is none).",
					   (long long) change->expected, (long long) version),
			 errhint("Read the state again, and save what is to follow it.")));
}

static void
write_row(const PromStateKey *key, const PromStateChange *change,
		  const PromFrame *frame, int64 mark)
{
	Datum values[STATE_COLUMNS];
	bool nulls[STATE_COLUMNS] = {false};
	PromFactWriter *writer;

	values[STATE_VERSION] = Int64GetDatum(frame->version);
	values[STATE_MARK] = Int64GetDatum(mark);
	values[STATE_BASE_VERSION] = Int64GetDatum(frame->base_version);
	nulls[STATE_BASE_VERSION] = frame->base_version == 0;
	values[STATE_TASK_ID] = Int64GetDatum(change->task_id);
	nulls[STATE_TASK_ID] = change->task_id == 0;
	values[STATE_RESTORED_FROM] = Int64GetDatum(change->restored_from);
	nulls[STATE_RESTORED_FROM] = change->restored_from == 0;
	values[STATE_SAVED_AT] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[STATE_OWNER_OID] = ObjectIdGetDatum(key->owner_oid);
	values[STATE_BYTES] = Int32GetDatum(frame->bytes);
	values[STATE_RUN] = Int32GetDatum(frame->run);
	values[STATE_CHECKSUM] = Int32GetDatum(frame->checksum);
	values[STATE_CODEC] = Int16GetDatum(frame->codec);
	values[STATE_FORM] = Int16GetDatum(frame->form);
	values[STATE_OWNER] = CStringGetTextDatum(key->owner);
	values[STATE_AGENT] = CStringGetTextDatum(key->agent);
	values[STATE_KEY] = CStringGetTextDatum(key->key);
	values[STATE_FRAME] = PointerGetDatum(frame->data);
	writer = prom_fact_begin();
	prom_fact_add(writer, PROM_FACT_STATE, values, nulls);
	prom_fact_end(writer);
}

int64
prom_state_save(const PromStateKey *key, const PromStateChange *change)
{
	PromFrame frame = {0};
	StateRow newest;
	StateRow base;
	uint64 hash;
	bool exists;
	bool has_base;

	prom_as_of_forbid_writing();
	check_change(key, change);
	hash = hash_key(key);
	exists = lock_key(key, hash, &newest);
	check_newest(key, change, exists ? &newest : NULL);
	has_base = exists &&
			   find_row(key,
						newest.frame.base_version != 0
							? newest.frame.base_version
							: newest.frame.version,
						NULL, SnapshotSelf, &base, true);
	prom_frame_encode(&frame, change->value, exists ? &newest.frame : NULL,
					  has_base ? &base.frame : NULL);
	frame.version = exists ? newest.frame.version + 1 : 1;
	write_row(key, change, &frame,
			  Max(prom_mark_newest(), exists ? newest.mark : 0));
	unlock_key(hash);
	return frame.version;
}


/* What users call. */

static char *
text_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* The caller's; false: without an agent there is none. */
static bool
mine(PromStateKey *key, char *agent, char *name)
{
	key->owner_oid = GetUserId();
	key->owner = GetUserNameFromId(key->owner_oid, false);
	key->agent = agent;
	key->key = name == NULL ? PROM_STATE_KEY : name;
	return agent != NULL;
}

PG_FUNCTION_INFO_V1(prom_save_state);

Datum
prom_save_state(PG_FUNCTION_ARGS)
{
	PromStateChange change = {.expected = PROM_STATE_ANY};
	PromStateKey key;

	PreventCommandDuringRecovery("prometheus_save_state()");
	PreventCommandIfReadOnly("prometheus_save_state()");
	(void) mine(&key, text_argument(fcinfo, 0), text_argument(fcinfo, 2));
	change.value = PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1);
	if (!PG_ARGISNULL(3))
	{
		change.expected = PG_GETARG_INT64(3);
		if (change.expected < 0)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("a version cannot be less than 0")));
	}
	PG_RETURN_INT64(prom_state_save(&key, &change));
}

/* That of an argument, or of the setting; NULL: what is now. */
static const PromMoment *
moment_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? prom_moment_current()
						   : prom_moment_at(PG_GETARG_TIMESTAMPTZ(n));
}

PG_FUNCTION_INFO_V1(prom_state);

Datum
prom_state(PG_FUNCTION_ARGS)
{
	PromStateKey key;
	Jsonb *value;
	int64 version = PG_ARGISNULL(3) ? 0 : PG_GETARG_INT64(3);

	if (!PG_ARGISNULL(2) && !PG_ARGISNULL(3))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("as_of and version cannot both be given")));
	if (!mine(&key, text_argument(fcinfo, 0), text_argument(fcinfo, 1)) ||
		(!PG_ARGISNULL(3) && version < 1))
		PG_RETURN_NULL();
	value = prom_state_read(&key, version, moment_argument(fcinfo, 2));
	if (value == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(value);
}

PG_FUNCTION_INFO_V1(prom_state_history);

Datum
prom_state_history(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int32 left = PG_ARGISNULL(2) ? DEFAULT_ROWS : PG_GETARG_INT32(2);
	PromStateKey key;
	StateScan scan;
	StateRow row;

	if (left < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("max_rows must be at least 1")));
	InitMaterializedSRF(fcinfo, 0);
	if (!mine(&key, text_argument(fcinfo, 0), text_argument(fcinfo, 1)))
		return (Datum) 0;
	scan_begin(&scan, &key, 0, prom_moment_current(), GetActiveSnapshot());
	while (left-- > 0 && scan_next(&scan, &row, false))
	{
		Datum values[6] = {
			Int64GetDatum(row.frame.version),
			TimestampTzGetDatum(row.saved_at),
			Int32GetDatum(row.frame.bytes),
			Int32GetDatum(row.stored_bytes),
			Int64GetDatum(row.task_id),
			Int64GetDatum(row.restored_from),
		};
		bool nulls[6] = {false, false, false, false, row.task_id == 0,
						 row.restored_from == 0};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	scan_end(&scan);
	return (Datum) 0;
}

/* The value of a version that is named; an error if there is none. */
static Jsonb *
require_version(const PromStateKey *key, int64 version)
{
	Jsonb *value = version < 1
					   ? NULL
					   : prom_state_read(key, version, prom_moment_current());

	if (value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("state \"%s\" of agent \"%s\" has no version %lld",
						key->key, key->agent, (long long) version),
				 errhint("prometheus_state_history() lists its versions.")));
	return value;
}

/* The version that was the newest; an error if there was none. */
static int64
version_at(const PromStateKey *key, TimestampTz at)
{
	StateRow row;

	if (!find_row(key, 0, prom_moment_at(at), GetActiveSnapshot(), &row, false))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("state \"%s\" of agent \"%s\" was not there yet",
						key->key, key->agent),
				 errhint("prometheus_state_history() lists its versions.")));
	return row.frame.version;
}

PG_FUNCTION_INFO_V1(prom_restore_state);

Datum
prom_restore_state(PG_FUNCTION_ARGS)
{
	PromStateChange change = {.expected = PROM_STATE_ANY};
	PromStateKey key;

	PreventCommandDuringRecovery("prometheus_restore_state()");
	PreventCommandIfReadOnly("prometheus_restore_state()");
	(void) mine(&key, text_argument(fcinfo, 0), text_argument(fcinfo, 1));
	check_name("an agent", key.agent);
	if (PG_ARGISNULL(2) == PG_ARGISNULL(3))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("either to_version or to_time must be given")));
	prom_as_of_forbid_writing();
	change.restored_from = PG_ARGISNULL(2)
							   ? version_at(&key, PG_GETARG_TIMESTAMPTZ(3))
							   : PG_GETARG_INT64(2);
	change.value = require_version(&key, change.restored_from);
	PG_RETURN_INT64(prom_state_save(&key, &change));
}

PG_FUNCTION_INFO_V1(prom_diff_state);

Datum
prom_diff_state(PG_FUNCTION_ARGS)
{
	PromStateKey key;
	Jsonb *from;
	Jsonb *to;

	if (!mine(&key, text_argument(fcinfo, 0), text_argument(fcinfo, 3)) ||
		PG_ARGISNULL(1) || PG_ARGISNULL(2))
		PG_RETURN_NULL();
	from = require_version(&key, PG_GETARG_INT64(1));
	to = require_version(&key, PG_GETARG_INT64(2));
	PG_RETURN_JSONB_P(prom_difference(from, to));
}

PG_FUNCTION_INFO_V1(prom_state_value);

/* What the view shows of a row; others may ask for it, too. */
Datum
prom_state_value(PG_FUNCTION_ARGS)
{
	PromStateKey key = {
		.owner = text_argument(fcinfo, 0),
		.owner_oid = PG_GETARG_OID(1),
		.agent = text_argument(fcinfo, 2),
		.key = text_argument(fcinfo, 3),
	};
	Jsonb *value = NULL;

	if (PG_GETARG_INT64(4) > 0 && prom_role_may_see(key.owner, key.owner_oid))
		value = prom_state_read(&key, PG_GETARG_INT64(4), NULL);
	if (value == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(value);
}
