/*
 * utility.c
 *	  Keeps the workers out of a database while a statement needs it alone.
 *
 * DROP DATABASE, RENAME, SET TABLESPACE, and CREATE DATABASE with it as the
 * template fail while anybody is connected.  Before such a statement the
 * session becomes a holder of the database's entry and waits until the
 * launcher has stopped the workers; it is one until its transaction ends, when
 * the launcher sees what has become of the database.  Who may not run the
 * statement does not stop anybody's workers.
 *
 * After every statement alteration.c looks whether it altered a tracked table.
 *
 * DROP EXTENSION waits for whoever uses the extension, and a tool may take
 * long: the executors are ended for it.  If it is rolled back they begin anew.
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/value.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "alteration.h"
#include "compat.h"
#include "extension.h"
#include "mark.h"
#include "shmem.h"
#include "utility.h"
#include "wakeup.h"
#include "worker.h"

/* After this the server itself waits, and says who is in the way, ms. */
#define LONGEST_WAIT 5000

static ProcessUtility_hook_type previous_hook = NULL;

/* By the number of the entry: is this session a holder of it? */
static bool *holding = NULL;

static void
release(PromDatabase *db)
{
	int number = db - prom_shared->databases;

	if (!holding[number])
		return;
	LWLockAcquire(prom_shared->lock, LW_EXCLUSIVE);
	db->holders--;
	LWLockRelease(prom_shared->lock);
	holding[number] = false;
	prom_shmem_wake(&prom_shared->launcher);
}

static void
release_all(void)
{
	if (holding == NULL)
		return;
	for (int i = 0; i < prom_shared->ndatabases; i++)
		release(&prom_shared->databases[i]);
}

static void
release_at_exit(int code, Datum arg)
{
	LWLockReleaseAll();
	release_all();
}

/* After a commit the launcher sees what was done, so not earlier. */
static void
xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		release_all();
}

/*
 * Become a holder of a database; NULL: it is not served, or this session is
 * its holder already, by an earlier statement of the transaction.  Not inlined
 * next to a PG_TRY, where compilers fear for its variables.
 */
static pg_noinline PromDatabase *
hold(Oid database)
{
	PromDatabase *db;

	if (holding == NULL)
	{
		holding = MemoryContextAllocZero(TopMemoryContext,
										 prom_shared->ndatabases *
											 sizeof(bool));
		before_shmem_exit(release_at_exit, (Datum) 0);
	}
	LWLockAcquire(prom_shared->lock, LW_EXCLUSIVE);
	db = prom_shmem_database(database);
	if (db != NULL && holding[db - prom_shared->databases])
		db = NULL;
	if (db != NULL)
	{
		db->holders++;
		holding[db - prom_shared->databases] = true;
	}
	LWLockRelease(prom_shared->lock);
	return db;
}

static bool
is_held(PromDatabase *db)
{
	bool held;

	LWLockAcquire(prom_shared->lock, LW_SHARED);
	held = db->held;
	LWLockRelease(prom_shared->lock);
	return held;
}

static void
wait_until_held(PromDatabase *db)
{
	static uint32 wait_event = 0;
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  LONGEST_WAIT);

	if (wait_event == 0)
		wait_event = prom_wait_event_new("PrometheusStopWorkers");
	ConditionVariablePrepareToSleep(&prom_shared->stopped);
	prom_shmem_wake(&prom_shared->launcher);
	while (!is_held(db))
	{
		long ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);

		if (ms <= 0 ||
			ConditionVariableTimedSleep(&prom_shared->stopped, ms, wait_event))
			break;
	}
	ConditionVariableCancelSleep();
}

static bool
is_template(Oid database)
{
	HeapTuple tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool found = false;

	if (HeapTupleIsValid(tuple))
	{
		found = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return found;
}

/* The template of CREATE DATABASE, if the server will let us copy it. */
static Oid
database_to_copy(const CreatedbStmt *statement)
{
	const char *name = NULL;
	Oid oid;
	ListCell *cell;

	foreach(cell, statement->options)
	{
		DefElem *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
			name = defGetString(option);
	}
	if (!have_createdb_privilege() ||
		OidIsValid(get_database_oid(statement->dbname, true)))
		return InvalidOid;
	oid = get_database_oid(name == NULL ? "template1" : name, true);
	if (!OidIsValid(oid))
		return InvalidOid;
	return is_template(oid) || prom_owns_database(oid, GetUserId())
			   ? oid
			   : InvalidOid;
}

/* A database, if it is ours and another than the one we are in. */
static Oid
own_database(const char *name)
{
	Oid oid = get_database_oid(name, true);

	if (!OidIsValid(oid) || oid == MyDatabaseId ||
		!prom_owns_database(oid, GetUserId()))
		return InvalidOid;
	return oid;
}

static Oid
database_to_rename(const RenameStmt *statement)
{
	if (statement->renameType != OBJECT_DATABASE ||
		!have_createdb_privilege() ||
		OidIsValid(get_database_oid(statement->newname, true)))
		return InvalidOid;
	return own_database(statement->subname);
}

static Oid
database_to_move(const AlterDatabaseStmt *statement)
{
	ListCell *cell;

	foreach(cell, statement->options)
	{
		if (strcmp(lfirst_node(DefElem, cell)->defname, "tablespace") == 0)
			return own_database(statement->dbname);
	}
	return InvalidOid;
}

/* The database that a statement needs without sessions, or InvalidOid. */
static Oid
database_needed(Node *statement, bool is_top_level)
{
	if (IsA(statement, RenameStmt))
		return database_to_rename((RenameStmt *) statement);
	if (!IsA(statement, DropdbStmt) && !IsA(statement, CreatedbStmt) &&
		!IsA(statement, AlterDatabaseStmt))
		return InvalidOid;
	/* The server refuses these. */
	if (IsInTransactionBlock(is_top_level))
		return InvalidOid;
	if (IsA(statement, DropdbStmt))
		return own_database(((DropdbStmt *) statement)->dbname);
	if (IsA(statement, CreatedbStmt))
		return database_to_copy((CreatedbStmt *) statement);
	return database_to_move((AlterDatabaseStmt *) statement);
}

/* Is our extension to be dropped, by who may?  A tool does not end itself. */
static bool
drops_extension(Node *statement)
{
	PromExtension extension;
	ListCell *cell;

	if (!IsA(statement, DropStmt) || prom_my_worker != NULL ||
		castNode(DropStmt, statement)->removeType != OBJECT_EXTENSION)
		return false;
	foreach(cell, castNode(DropStmt, statement)->objects)
	{
		if (strcmp(strVal(lfirst(cell)), PROM_EXTENSION) == 0 &&
			prom_extension_find(&extension) &&
			has_privs_of_role(GetUserId(), extension.owner))
			return true;
	}
	return false;
}

/* The version that it is to have; NULL: nobody knows, and it will fail. */
static const char *
version_wanted(const AlterExtensionStmt *statement)
{
	ListCell *cell;

	foreach(cell, statement->options)
	{
		DefElem *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, "new_version") == 0)
			return defGetString(option);
	}
	return prom_extension_files();
}

/* What was there before it is updated, by who may, is to stay readable. */
static void
mark_before_update(Node *statement)
{
	PromExtension extension;
	const char *wanted;

	if (!IsA(statement, AlterExtensionStmt) || prom_my_worker != NULL ||
		RecoveryInProgress() || XactReadOnly ||
		strcmp(castNode(AlterExtensionStmt, statement)->extname,
			   PROM_EXTENSION) != 0 ||
		!prom_extension_find(&extension) ||
		!has_privs_of_role(GetUserId(), extension.owner))
		return;
	wanted = version_wanted(castNode(AlterExtensionStmt, statement));
	if (wanted != NULL && strcmp(wanted, extension.version) != 0)
		prom_mark_before_update(extension.version);
}

/* Its facts, if there are any, are seen from now on. */
static bool
commits_prepared(Node *statement)
{
	return IsA(statement, TransactionStmt) &&
		   castNode(TransactionStmt, statement)->kind ==
			   TRANS_STMT_COMMIT_PREPARED;
}

static void
end_executors(void)
{
	PromDatabase *db;

	LWLockAcquire(prom_shared->lock, LW_SHARED);
	db = prom_shmem_database(MyDatabaseId);
	for (int place = PROM_EXECUTOR; db != NULL && place < PROM_NPLACES; place++)
		if (db->worker[place].pid != 0)
			kill(db->worker[place].pid, SIGTERM);
	LWLockRelease(prom_shared->lock);
}

static void
go_on(PlannedStmt *statement, const char *text, bool read_only_tree,
	  ProcessUtilityContext context, ParamListInfo params,
	  QueryEnvironment *environment, DestReceiver *receiver,
	  QueryCompletion *completion)
{
	if (previous_hook)
		previous_hook(statement, text, read_only_tree, context, params,
					  environment, receiver, completion);
	else
		standard_ProcessUtility(statement, text, read_only_tree, context,
								params, environment, receiver, completion);
}

/* What a part of a statement alters, the statement does. */
static void
go_on_and_record(PlannedStmt *statement, const char *text, bool read_only_tree,
				 ProcessUtilityContext context, ParamListInfo params,
				 QueryEnvironment *environment, DestReceiver *receiver,
				 QueryCompletion *completion)
{
	PromAlteration alteration;

	if (context == PROCESS_UTILITY_SUBCOMMAND)
	{
		go_on(statement, text, read_only_tree, context, params, environment,
			  receiver, completion);
		return;
	}
	prom_alteration_begin(&alteration, statement->utilityStmt);
	PG_TRY();
	{
		go_on(statement, text, read_only_tree, context, params, environment,
			  receiver, completion);
		prom_alteration_record(&alteration);
	}
	PG_FINALLY();
	{
		prom_alteration_end(&alteration);
	}
	PG_END_TRY();
}

static void
process_utility(PlannedStmt *statement, const char *text, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *receiver,
				QueryCompletion *completion)
{
	Oid database = database_needed(statement->utilityStmt,
								   context == PROCESS_UTILITY_TOPLEVEL);
	PromDatabase *db = OidIsValid(database) ? hold(database) : NULL;

	if (drops_extension(statement->utilityStmt))
		end_executors();
	mark_before_update(statement->utilityStmt);
	if (db == NULL)
	{
		bool prepared = commits_prepared(statement->utilityStmt);

		go_on_and_record(statement, text, read_only_tree, context, params,
						 environment, receiver, completion);
		if (prepared)
		{
			prom_mark_changed();
			prom_wakeup_changed();
		}
		return;
	}
	PG_TRY();
	{
		wait_until_held(db);
		go_on_and_record(statement, text, read_only_tree, context, params,
						 environment, receiver, completion);
	}
	PG_CATCH();
	{
		/* Now: a transaction block may catch it and go on for long. */
		release(db);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

void
prom_utility_init(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	RegisterXactCallback(xact_callback, NULL);
}
