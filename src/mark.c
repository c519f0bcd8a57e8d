/*
 * mark.c
 *	  Writes marks: about one a second while facts change, and on request.
 *
 * A mark is a snapshot and the time just after it.  Only the publisher writes
 * them, one after the other, so whoever finds one that is committed knows that
 * none before it will come any more.  Its time is taken after its snapshot and
 * is later than that of the one before, whatever the clock does.  It is
 * flushed, so that what AS OF has once shown survives a crash.
 *
 * Who writes a fact says so (prom_mark_wrote), and after the commit the
 * publisher is told: only of the first since its newest snapshot, which it
 * takes after it has forgotten that it was told.
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
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "as_of.h"
#include "compat.h"
#include "era.h"
#include "fault.h"
#include "guc.h"
#include "mark.h"
#include "mutant.h"
#include "role.h"
#include "tally.h"
#include "worker.h"
#include "xact.h"

/* After one that could not be written, ms. */
#define FAILED_INTERVAL 1000

/* A session waits so long for its mark, ms. */
#define LONGEST_WAIT 5000

/* The current transaction writes facts, and this process tells of it. */
static bool wrote;
static bool writes_marks;

static TimestampTz next_mark; /* the publisher's */
static uint64 answering;      /* what it writes a mark for; 0: nobody */

/* What a session asks for. */
typedef struct Request
{
	PromMarks *marks;
	uint64 number; /* 0: it has no place yet */
	PromMarkState answer;
	int64 mark_id;
} Request;

static PromMarks *
marks_of_database(void)
{
	PromDatabase *db = prom_shmem_database(MyDatabaseId);

	return db == NULL ? NULL : &db->marks;
}

static Oid
mark_relation(void)
{
	Oid namespace = get_namespace_oid("prometheus", true);

	if (!OidIsValid(namespace))
		return InvalidOid;
	return get_relname_relid("_mark", namespace);
}


/* What sessions ask. */

/* Without a snapshot: rows are never changed, and written one by one. */
static int64
newest_in_table(Oid relid)
{
	Relation relation = table_open(relid, AccessShareLock);
	Relation index = index_open(prom_primary_key_index(relation),
								AccessShareLock);
	SysScanDesc scan = systable_beginscan_ordered(relation, index,
												  SnapshotSelf, 0, NULL);
	HeapTuple tuple = systable_getnext_ordered(scan, BackwardScanDirection);
	int64 newest = 0;
	bool isnull;

	if (HeapTupleIsValid(tuple))
		newest = DatumGetInt64(
			heap_getattr(tuple, get_attnum(relid, "mark_id"),
						 RelationGetDescr(relation), &isnull));
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(relation, AccessShareLock);
	return newest;
}

int64
prom_mark_newest(void)
{
	Oid relid = mark_relation();
	PromMarks *marks = marks_of_database();
	uint64 newest;

	if (!OidIsValid(relid))
		return 0;
	if (marks != NULL && pg_atomic_read_u32(&marks->relation) == relid)
	{
		pg_read_barrier();
		newest = pg_atomic_read_u64(&marks->newest);
		pg_read_barrier();
		if (PROM_MUTANT("version-ahead"))
			newest++;
		if (pg_atomic_read_u32(&marks->relation) == relid)
			return (int64) newest;
	}
	return newest_in_table(relid);
}

bool
prom_mark_exists(void)
{
	Oid relid = mark_relation();

	return OidIsValid(relid) &&
		   (prom_mark_newest() > 0 || newest_in_table(relid) > 0);
}

void
prom_mark_wrote(void)
{
	wrote = !writes_marks;
}

void
prom_mark_changed(void)
{
	PromDatabase *db = prom_shmem_database(MyDatabaseId);

	if (db == NULL || pg_atomic_exchange_u32(&db->marks.changed, 1) != 0)
		return;
	pg_atomic_write_u64(&db->marks.changed_at, (uint64) GetCurrentTimestamp());
	prom_shmem_wake(&db->worker[PROM_PUBLISHER]);
}

/* A prepared transaction is told of by whoever commits it (utility.c). */
static void
xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT && wrote)
		prom_mark_changed();
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		wrote = false;
}

void
prom_mark_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
}

static uint32
wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = prom_wait_event_new("PrometheusMark");
	return event;
}

bool
prom_mark_ask(long ms)
{
	PromDatabase *db = prom_shmem_database(MyDatabaseId);

	if (db == NULL)
		return false;
	pg_atomic_write_u32(&db->marks.asked, 1);
	prom_shmem_wake(&db->worker[PROM_PUBLISHER]);
	(void) ConditionVariableTimedSleep(&db->marks.made, ms, wait_event());
	ConditionVariableCancelSleep();
	return true;
}

/* A session that gives up leaves the place to others. */
static void
leave_place(int code, Datum arg)
{
	Request *request = (Request *) DatumGetPointer(arg);
	PromMarks *marks = request->marks;

	if (request->number == 0)
		return;
	LWLockAcquire(marks->lock, LW_EXCLUSIVE);
	if (marks->number == request->number)
		marks->state = PROM_MARK_FREE;
	LWLockRelease(marks->lock);
	ConditionVariableBroadcast(&marks->made);
}

static bool
take_place(Request *request, const char *name)
{
	PromMarks *marks = request->marks;

	LWLockAcquire(marks->lock, LW_EXCLUSIVE);
	if (marks->state == PROM_MARK_FREE)
	{
		request->number = ++marks->number;
		marks->role = GetUserId();
		strlcpy(marks->name, name, NAMEDATALEN);
		marks->state = PROM_MARK_ASKED;
	}
	LWLockRelease(marks->lock);
	return request->number != 0;
}

static bool
is_answered(Request *request)
{
	PromMarks *marks = request->marks;

	LWLockAcquire(marks->lock, LW_SHARED);
	request->answer = marks->state;
	request->mark_id = marks->mark_id;
	LWLockRelease(marks->lock);
	return request->answer != PROM_MARK_ASKED;
}

/* Have it written under a name (empty: none), one session after the other. */
static void
request_mark(Request *request, PromWorker *publisher, const char *name)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  LONGEST_WAIT);

	ConditionVariablePrepareToSleep(&request->marks->made);
	for (;;)
	{
		long ms;

		if (request->number == 0 && take_place(request, name))
			prom_shmem_wake(publisher);
		if (request->number != 0 && is_answered(request))
			break;
		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);
		if (ms <= 0)
			break;
		(void) ConditionVariableTimedSleep(&request->marks->made, ms,
										   wait_event());
	}
	ConditionVariableCancelSleep();
}

static char *
name_argument(FunctionCallInfo fcinfo)
{
	char *name = PG_ARGISNULL(0) ? pstrdup("")
								 : text_to_cstring(PG_GETARG_TEXT_PP(0));

	if (!PG_ARGISNULL(0) && (*name == '\0' || strlen(name) >= NAMEDATALEN))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the name of a mark must have 1 to %d bytes",
							   NAMEDATALEN - 1)));
	return name;
}

/* Have the publisher write one, and leave the place whatever comes of it. */
static void
have_written(Request *request, PromDatabase *db, const char *name)
{
	request->marks = &db->marks;
	PG_ENSURE_ERROR_CLEANUP(leave_place, PointerGetDatum(request));
	{
		request_mark(request, &db->worker[PROM_PUBLISHER], name);
	}
	PG_END_ENSURE_ERROR_CLEANUP(leave_place, PointerGetDatum(request));
	leave_place(0, PointerGetDatum(request));
}

PG_FUNCTION_INFO_V1(prom_mark);

Datum
prom_mark(PG_FUNCTION_ARGS)
{
	char *name = name_argument(fcinfo);
	PromDatabase *db = prom_shmem_database(MyDatabaseId);
	Request request = {0};

	PreventCommandDuringRecovery("prometheus_mark()");
	prom_as_of_forbid_writing();
	if (db == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("nobody writes marks: no publisher serves this database"),
				 errhint("%s", prom_guc_serve_hint(
								   get_database_name(MyDatabaseId)))));
	have_written(&request, db, name);
	if (request.answer == PROM_MARK_TAKEN)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("mark \"%s\" exists", name),
				 errhint("prometheus_drop_mark() makes its name free.")));
	if (request.answer != PROM_MARK_MADE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no mark was written within %d s", LONGEST_WAIT / 1000),
				 errdetail("It may still be written."),
				 errhint("prometheus_health() says whether a publisher is at work; the server's log, why it failed.")));
	if (*name != '\0' && !XLogIsNeeded())
		ereport(WARNING,
				(errmsg("mark \"%s\" is no restore point", name),
				 errdetail("With wal_level = minimal there is none."),
				 errhint("AS OF shows it all the same; recovery to it needs wal_level = replica, and archiving.")));
	PG_RETURN_INT64(request.mark_id);
}

PG_FUNCTION_INFO_V1(prom_drop_mark);

/* In the caller's transaction, as any other drop.  The mark itself stays. */
Datum
prom_drop_mark(PG_FUNCTION_ARGS)
{
	static const char find_sql[] =
		"SELECT owner, owner_oid FROM prometheus._mark_name"
		" WHERE name OPERATOR(pg_catalog.=) $1";
	static const char drop_sql[] =
		"DELETE FROM prometheus._mark_name"
		" WHERE name OPERATOR(pg_catalog.=) $1";
	char *name = name_argument(fcinfo);
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(name);
	char *owner = NULL;
	Oid owner_oid = InvalidOid;
	PromOwner before;

	PreventCommandDuringRecovery("prometheus_drop_mark()");
	PreventCommandIfReadOnly("prometheus_drop_mark()");
	prom_as_of_forbid_writing();
	SPI_connect();
	prom_role_become_owner(&before);
	if (prom_execute_now(find_sql, 1, &type, &value, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._mark_name");
	if (SPI_processed > 0)
	{
		owner = prom_row_text(0, 1);
		owner_oid = prom_row_oid(0, 2);
	}
	prom_role_restore(&before);
	if (owner == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("mark \"%s\" does not exist", name),
				 errhint("SELECT * FROM prometheus.mark WHERE name IS NOT NULL lists them.")));
	if (!prom_role_may_see(owner, owner_oid))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for mark \"%s\"", name),
				 errdetail("Role \"%s\" named it.", owner)));
	prom_role_become_owner(&before);
	if (prom_execute_now(drop_sql, 1, &type, &value, NULL, false) !=
		SPI_OK_DELETE)
		elog(ERROR, "could not write prometheus._mark_name");
	prom_role_restore(&before);
	SPI_finish();
	PG_RETURN_VOID();
}


/* The publisher. */

/* In an order in which no reader takes the one for the other's. */
static void
tell_newest(Oid relid, int64 newest)
{
	PromMarks *marks = &prom_my_database->marks;

	pg_atomic_write_u32(&marks->relation, InvalidOid);
	pg_write_barrier();
	pg_atomic_write_u64(&marks->newest, (uint64) newest);
	pg_write_barrier();
	pg_atomic_write_u32(&marks->relation, relid);
	pg_atomic_write_u64(&marks->failing_since, 0);
	ConditionVariableBroadcast(&marks->made);
}

/*
 * In a transaction.  What was written before a crash may have no mark yet; in
 * a new database, which may be about to be restored, there is nothing.
 */
void
prom_mark_begin(void)
{
	Oid relid = mark_relation();
	int64 newest = newest_in_table(relid);

	writes_marks = true;
	next_mark = GetCurrentTimestamp();
	tell_newest(relid, newest);
	if (newest > 0)
	{
		pg_atomic_write_u64(&prom_my_database->marks.changed_at,
							(uint64) next_mark);
		pg_atomic_write_u32(&prom_my_database->marks.changed, 1);
	}
}

/* No lock: who asks sets the latch afterwards. */
static bool
is_asked(void)
{
	volatile PromMarks *marks = &prom_my_database->marks;

	return pg_atomic_read_u32(&prom_my_database->marks.asked) != 0 ||
		   marks->state == PROM_MARK_ASKED;
}

TimestampTz
prom_mark_due(void)
{
	if (is_asked())
		return DT_NOBEGIN;
	if (pg_atomic_read_u32(&prom_my_database->marks.changed) != 0)
		return next_mark;
	return DT_NOEND;
}

/* Who no longer waits is not told. */
static void
tell_asker(PromMarkState state, int64 mark_id)
{
	PromMarks *marks = &prom_my_database->marks;

	LWLockAcquire(marks->lock, LW_EXCLUSIVE);
	if (answering != 0 && marks->number == answering &&
		marks->state == PROM_MARK_ASKED)
	{
		marks->state = state;
		marks->mark_id = mark_id;
	}
	LWLockRelease(marks->lock);
	answering = 0;
	ConditionVariableBroadcast(&marks->made);
}

void
prom_mark_failed(void)
{
	PromMarks *marks = &prom_my_database->marks;
	TimestampTz now = GetCurrentTimestamp();

	tell_asker(PROM_MARK_REFUSED, 0);
	if (pg_atomic_read_u64(&marks->failing_since) == 0)
		pg_atomic_write_u64(&marks->failing_since, (uint64) now);
	pg_atomic_write_u32(&marks->changed, 1);
	next_mark = TimestampTzPlusMilliseconds(now, FAILED_INTERVAL);
}

#define INSERT_MARK(clock)                                      \
	"INSERT INTO prometheus._mark (mark_id, xid, snapshot, at)" \
	" SELECT coalesce(p.mark_id, 0) + 1, prometheus._xid(),"    \
	" prometheus._snapshot(),"                                  \
	" greatest(" clock ", p.at + interval '1 us')"              \
	" FROM (SELECT) AS one LEFT JOIN LATERAL ("                 \
	" SELECT mark_id, at FROM prometheus._mark"                 \
	" ORDER BY mark_id DESC LIMIT 1) AS p ON true RETURNING mark_id"

/* Within one statement: the clock after the snapshot that it runs with. */
static int64
insert_mark(void)
{
	static PromStatement statement = {
		INSERT_MARK("clock_timestamp()"),
		0,
		{0},
		NULL,
	};
	static PromStatement mutant = {
		INSERT_MARK("clock_timestamp() - interval '40 ms'"),
		0,
		{0},
		NULL,
	};

	prom_statement_run(PROM_MUTANT("mark-before-snapshot") ? &mutant
														   : &statement,
					   NULL, NULL, false);
	return prom_row_int64(0, 1);
}

/* The name that is asked for (empty: none), and whose it is to be. */
static void
read_request(char *name, Oid *role)
{
	PromMarks *marks = &prom_my_database->marks;
	bool asked;

	LWLockAcquire(marks->lock, LW_SHARED);
	asked = marks->state == PROM_MARK_ASKED;
	strlcpy(name, asked ? marks->name : "", NAMEDATALEN);
	*role = marks->role;
	answering = asked ? marks->number : 0;
	LWLockRelease(marks->lock);
}

/* False: it is the name of another one. */
static bool
insert_name(int64 mark_id, const char *name, Oid role)
{
	static PromStatement statement = {
		"INSERT INTO prometheus._mark_name"
		" (mark_id, xid, owner_oid, owner, name)"
		" VALUES ($1, prometheus._xid(), $2, $3, $4)"
		" ON CONFLICT (name) DO NOTHING",
		4,
		{INT8OID, OIDOID, TEXTOID, TEXTOID},
		NULL};
	Datum values[4];

	values[0] = Int64GetDatum(mark_id);
	values[1] = ObjectIdGetDatum(role);
	values[2] = CStringGetTextDatum(GetUserNameFromId(role, false));
	values[3] = CStringGetTextDatum(name);
	prom_statement_run(&statement, values, NULL, false);
	return SPI_processed > 0;
}

void
prom_mark_write(void)
{
	PromMarks *marks = &prom_my_database->marks;
	char name[NAMEDATALEN];
	Oid role;
	bool named = true;
	Oid relid;
	int64 mark_id;

	read_request(name, &role);
	/* What is committed from here on is told of again. */
	pg_atomic_write_u32(&marks->asked, 0);
	(void) pg_atomic_exchange_u32(&marks->changed, 0);
	PROM_FAULT("before-mark");
	SetConfigOption("synchronous_commit", "on", PGC_SUSET, PGC_S_OVERRIDE);
	if (!prom_era_xact_begin("writing a mark"))
		proc_exit(0);
	SPI_connect();
	mark_id = insert_mark();
	if (name[0] != '\0')
		named = insert_name(mark_id, name, role);
	SPI_finish();
	relid = mark_relation();
	PROM_FAULT("in-mark");
	prom_xact_commit();
	tell_newest(relid, mark_id);
	prom_tally_mark();
	next_mark = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
											prom_guc_mark_interval);
	if (name[0] != '\0' && named && XLogIsNeeded())
		(void) XLogRestorePoint(name);
	PROM_FAULT("after-mark");
	tell_asker(named ? PROM_MARK_MADE : PROM_MARK_TAKEN, mark_id);
}


/* An update of the extension. */

/*
 * As long as the library is newer than the objects nobody serves the database,
 * and no publisher can come in between before this transaction has ended.
 */
static void
write_in_transaction(const char *name)
{
	Oid role = GetUserId();
	PromOwner before;

	SPI_connect();
	prom_role_become_owner(&before);
	/* A copy begins its era first; the transaction may have an old snapshot. */
	(void) prom_era_xid();
	if (prom_execute_now(INSERT_MARK("clock_timestamp()"), 0, NULL, NULL, NULL,
						 false) != SPI_OK_INSERT_RETURNING)
		elog(ERROR, "could not write prometheus._mark");
	(void) insert_name(prom_row_int64(0, 1), name, role);
	prom_role_restore(&before);
	SPI_finish();
}

void
prom_mark_before_update(const char *version)
{
	char name[NAMEDATALEN];
	PromDatabase *db = prom_shmem_database(MyDatabaseId);
	Request request = {0};

	snprintf(name, sizeof(name), "before update of %s, %s", version,
			 timestamptz_to_str(GetCurrentTimestamp()));
	if (!OidIsValid(mark_relation()))
		return;
	if (db != NULL && db->worker[PROM_PUBLISHER].pid != 0)
		have_written(&request, db, name);
	if (request.answer != PROM_MARK_MADE)
		write_in_transaction(name);
}
