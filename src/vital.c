/*
 * vital.c
 *	  Looks at the server: WAL, slots, archiver, replicas, old transactions.
 *
 * All of it is in shared memory.  When a transaction was prepared is not: that
 * is read by a statement once for each, and kept by the process that read it.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/spin.h"
#include "utils/backend_status.h"
#include "utils/memutils.h"

#include "compat.h"
#include "guc.h"
#include "vital.h"
#include "worker.h"
#include "xact.h"

/* The rate of WAL is that of this time at the least, ms. */
#define SHORTEST_RATE 1000

typedef struct Prepared
{
	TransactionId xid;
	TimestampTz at;
	char gid[GIDSIZE];
} Prepared;

static Prepared *known = NULL; /* max_prepared_xacts of them */
static int nknown = 0;

static double
seconds_since(const PromLook *look, TimestampTz then)
{
	return look->now <= then ? 0 : (look->now - then) / (double) USECS_PER_SEC;
}


/* WAL. */

double
prom_vital_wal(PromLook *look)
{
	if (RecoveryInProgress())
		return PROM_UNKNOWN;
	return (double) (GetXLogInsertRecPtr() - GetRedoRecPtr());
}

double
prom_vital_wal_rate(PromLook *look)
{
	double rate = PROM_UNKNOWN;

	if (look->db == NULL)
		return rate;
	SpinLockAcquire(&look->db->vitals.mutex);
	rate = look->db->vitals.wal_rate;
	SpinLockRelease(&look->db->vitals.mutex);
	return rate;
}

double
prom_vital_slots(PromLook *look)
{
	XLogRecPtr now;
	XLogRecPtr oldest = InvalidXLogRecPtr;
	NameData name;

	if (RecoveryInProgress())
		return PROM_UNKNOWN;
	now = GetXLogInsertRecPtr();
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
		XLogRecPtr kept;

		if (!slot->in_use)
			continue;
		SpinLockAcquire(&slot->mutex);
		kept = prom_slot_keeps(slot);
		SpinLockRelease(&slot->mutex);
		if (kept == InvalidXLogRecPtr ||
			(oldest != InvalidXLogRecPtr && kept >= oldest))
			continue;
		oldest = kept;
		name = slot->data.name;
	}
	LWLockRelease(ReplicationSlotControlLock);
	if (oldest == InvalidXLogRecPtr)
		return 0;
	look->what = psprintf("slot \"%s\"", NameStr(name));
	return now > oldest ? (double) (now - oldest) : 0;
}

/* Segments that failed since the last one that did not. */
double
prom_vital_archiver(PromLook *look)
{
	PgStat_ArchiverStats *archiver;
	int64 before = -1;

	if (!XLogArchivingActive())
		return 0;
	archiver = pgstat_fetch_stat_archiver();
	if (archiver->last_failed_timestamp <= archiver->last_archived_timestamp)
		return 0;
	if (look->db != NULL)
	{
		SpinLockAcquire(&look->db->vitals.mutex);
		before = look->db->vitals.archive_failures;
		SpinLockRelease(&look->db->vitals.mutex);
	}
	look->what = psprintf("segment %s", archiver->last_failed_wal);
	/* Statistics may have been reset. */
	if (before < 0 || before >= archiver->failed_count)
		return 1;
	return (double) (archiver->failed_count - before);
}

static void
follow_archiver(PromVitals *vitals)
{
	PgStat_ArchiverStats *archiver = pgstat_fetch_stat_archiver();
	bool fails =
		archiver->last_failed_timestamp > archiver->last_archived_timestamp;

	SpinLockAcquire(&vitals->mutex);
	if (!fails || vitals->archive_failures > archiver->failed_count)
		vitals->archive_failures = archiver->failed_count;
	else if (vitals->archive_failures < 0)
		vitals->archive_failures = archiver->failed_count - 1;
	SpinLockRelease(&vitals->mutex);
}

static void
follow_wal(PromLook *look)
{
	static TimestampTz last_at = 0;
	static XLogRecPtr last;
	PromVitals *vitals = &look->db->vitals;
	XLogRecPtr now = GetXLogInsertRecPtr();

	if (last_at != 0 &&
		look->now - last_at < SHORTEST_RATE * INT64CONST(1000) &&
		look->now >= last_at)
		return;
	if (last_at != 0 && look->now > last_at)
	{
		SpinLockAcquire(&vitals->mutex);
		vitals->wal_rate = (now - last) / seconds_since(look, last_at);
		SpinLockRelease(&vitals->mutex);
	}
	last_at = look->now;
	last = now;
}

void
prom_vital_follow(PromLook *look)
{
	follow_wal(look);
	follow_archiver(&look->db->vitals);
}

void
prom_vital_forget(PromDatabase *db)
{
	PromVitals *vitals = &db->vitals;

	pg_atomic_write_u32(&vitals->asked, 0);
	SpinLockAcquire(&vitals->mutex);
	vitals->wal_rate = -1;
	vitals->archive_failures = -1;
	vitals->nsizes = 0;
	vitals->budget[0] = '\0';
	vitals->readers_known = false;
	vitals->stuck_since = 0;
	SpinLockRelease(&vitals->mutex);
	SpinLockAcquire(&db->exported.mutex);
	db->exported.is_on = db->exported.rests = false;
	SpinLockRelease(&db->exported.mutex);
}

/* How far it is behind, by the best that it has told. */
double
prom_vital_replicas(PromLook *look)
{
	XLogRecPtr now;
	double most = 0;
	pid_t worst = 0;

	if (RecoveryInProgress())
		return PROM_UNKNOWN;
	now = GetFlushRecPtr(NULL);
	for (int i = 0; i < max_wal_senders; i++)
	{
		WalSnd *sender = &WalSndCtl->walsnds[i];
		XLogRecPtr place;
		WalSndState state;
		pid_t pid;

		SpinLockAcquire(&sender->mutex);
		pid = sender->pid;
		state = sender->state;
		place = sender->apply != InvalidXLogRecPtr   ? sender->apply
				: sender->flush != InvalidXLogRecPtr ? sender->flush
													 : sender->write;
		SpinLockRelease(&sender->mutex);
		if (pid == 0 || place == InvalidXLogRecPtr || place >= now ||
			(state != WALSNDSTATE_CATCHUP && state != WALSNDSTATE_STREAMING) ||
			now - place <= most)
			continue;
		most = (double) (now - place);
		worst = pid;
	}
	if (worst != 0)
		look->what = psprintf("sent by process %d", (int) worst);
	return most;
}


/* Transactions. */

/* What it sees, or writes, may not be cleaned up in this database. */
static bool
holds_back(const LocalPgBackendStatus *status)
{
	const PgBackendStatus *backend = &status->backendStatus;
	PGPROC *proc;

	if (backend->st_xact_start_timestamp == 0)
		return false;
	if (!TransactionIdIsValid(status->backend_xid) &&
		(!TransactionIdIsValid(status->backend_xmin) ||
		 backend->st_databaseid != MyDatabaseId))
		return false;
	proc = BackendPidGetProc(backend->st_procpid);
	return proc != NULL && (proc->statusFlags & PROC_IN_VACUUM) == 0;
}

double
prom_vital_snapshot(PromLook *look)
{
	TimestampTz oldest = DT_NOEND;
	int pid = 0;
	int n;

	/* Not as of the transaction's first look. */
	pgstat_clear_backend_activity_snapshot();
	n = pgstat_fetch_stat_numbackends();
	for (int i = 1; i <= n; i++)
	{
		LocalPgBackendStatus *status = prom_backend_status(i);

		if (status == NULL ||
			status->backendStatus.st_xact_start_timestamp >= oldest ||
			!holds_back(status))
			continue;
		oldest = status->backendStatus.st_xact_start_timestamp;
		pid = status->backendStatus.st_procpid;
	}
	pgstat_clear_backend_activity_snapshot();
	if (pid == 0)
		return 0;
	look->what = psprintf("process %d", pid);
	return seconds_since(look, oldest);
}

/* Those that are there; what a place says may be of one that is gone. */
static int
find_prepared(TransactionId *xids)
{
	int n = 0;

	for (int i = 0; i < max_prepared_xacts; i++)
	{
		TransactionId xid =
			*(volatile TransactionId *) &PreparedXactProcs[i].xid;

		if (TransactionIdIsValid(xid) && TransactionIdIsInProgress(xid))
			xids[n++] = xid;
	}
	return n;
}

static const Prepared *
find_known(TransactionId xid)
{
	for (int i = 0; i < nknown; i++)
		if (known[i].xid == xid)
			return &known[i];
	return NULL;
}

bool
prom_vital_must_read(void)
{
	TransactionId *xids;
	int n;

	if (max_prepared_xacts == 0)
		return false;
	xids = palloc(max_prepared_xacts * sizeof(TransactionId));
	n = find_prepared(xids);
	for (int i = 0; i < n; i++)
		if (find_known(xids[i]) == NULL)
			return true;
	return false;
}

void
prom_vital_read(void)
{
	static const char sql[] =
		"SELECT p.transaction::pg_catalog.text::pg_catalog.int8,"
		" p.prepared, p.gid FROM pg_catalog.pg_prepared_xact() p";

	if (known == NULL)
		known = MemoryContextAlloc(TopMemoryContext,
								   max_prepared_xacts * sizeof(Prepared));
	nknown = 0;
	if (prom_execute_now(sql, 0, NULL, NULL, NULL, true) != SPI_OK_SELECT)
		elog(ERROR, "could not read prepared transactions");
	for (uint64 i = 0; i < SPI_processed && nknown < max_prepared_xacts; i++)
	{
		Prepared *one = &known[nknown++];

		one->xid = (TransactionId) prom_row_int64(i, 1);
		one->at = prom_row_time(i, 2);
		strlcpy(one->gid, prom_row_text(i, 3), sizeof(one->gid));
	}
}

double
prom_vital_prepared(PromLook *look)
{
	TransactionId *xids;
	const Prepared *oldest = NULL;
	int n;

	if (max_prepared_xacts == 0)
		return 0;
	xids = palloc(max_prepared_xacts * sizeof(TransactionId));
	n = find_prepared(xids);
	for (int i = 0; i < n; i++)
	{
		const Prepared *one = find_known(xids[i]);

		if (one != NULL && (oldest == NULL || one->at < oldest->at))
			oldest = one;
	}
	if (oldest == NULL)
		return 0;
	look->what = psprintf("transaction \"%s\"", oldest->gid);
	return seconds_since(look, oldest->at);
}

/* Of the places for processes, those that prometheus needs. */
double
prom_vital_places(PromLook *look)
{
	return 100.0 * prom_worker_places_needed() / max_worker_processes;
}
