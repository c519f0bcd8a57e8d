/*
 * horizon.c
 *	  Says how far retention has come.
 *
 * The horizon is moved and committed before anything is deleted.  What is
 * deleted ended before it, so who ties something to a task (a dependent, a
 * retry by hand) must look at the horizon, by a snapshot of this moment, when
 * its transaction has an xid already.  Retention waits until the transactions
 * that had one when the horizon was moved are over (retention.c): so each of
 * them either sees the horizon, or is seen.  Nobody takes a lock for that.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "horizon.h"
#include "role.h"
#include "xact.h"

TimestampTz
prom_horizon(Snapshot snapshot)
{
	Oid relid = get_relname_relid("_horizon",
								  get_namespace_oid("prometheus", false));
	Relation relation;
	SysScanDesc scan;
	HeapTuple tuple;
	TimestampTz horizon = DT_NOBEGIN;
	AttrNumber at = get_attnum(relid, "at");

	relation = table_open(relid, AccessShareLock);
	scan = systable_beginscan(relation, InvalidOid, false, snapshot, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool isnull;
		Datum value =
			heap_getattr(tuple, at, RelationGetDescr(relation), &isnull);

		horizon = Max(horizon, DatumGetTimestampTz(value));
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return horizon;
}

void
prom_horizon_check_task(int64 task_id)
{
	static const char ended_sql[] =
		"SELECT FROM prometheus._outcome o"
		" WHERE o.task_id OPERATOR(pg_catalog.=) $1"
		" AND o.ended_at OPERATOR(pg_catalog.<) $2"
		" AND o.outcome OPERATOR(pg_catalog.<>) ALL"
		"   ('{retry,waiting,lost}'::pg_catalog.text[])"
		" AND NOT EXISTS (SELECT FROM prometheus._retry r"
		"   WHERE r.task_id OPERATOR(pg_catalog.=) $1"
		"     AND r.attempt OPERATOR(pg_catalog.>=) o.attempt)";
	Oid types[2] = {INT8OID, TIMESTAMPTZOID};
	Datum values[2];
	PromOwner before;
	Snapshot snapshot;
	TimestampTz horizon;
	bool ended;

	snapshot = RegisterSnapshot(GetLatestSnapshot());
	horizon = prom_horizon(snapshot);
	UnregisterSnapshot(snapshot);
	if (horizon == DT_NOBEGIN)
		return;
	values[0] = Int64GetDatum(task_id);
	values[1] = TimestampTzGetDatum(horizon);
	SPI_connect();
	prom_role_become_owner(&before);
	if (prom_execute_now(ended_sql, 2, types, values, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._outcome");
	ended = SPI_processed > 0;
	prom_role_restore(&before);
	SPI_finish();
	if (ended)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("task %lld has ended too long ago",
						(long long) task_id),
				 errdetail("What ended before %s may be deleted at any moment.",
						   timestamptz_to_str(horizon)),
				 errhint("prometheus.retention says how long tasks are kept.")));
}
