/*
 * undo.c
 *	  Tells what a task's tools changed in tracked tables, and what would become
 *	  of it if that were undone.
 *
 * For each row the task's first and last version count since it was undone, if
 * it was.  Between these, and after, there must be none of somebody else's, and
 * the table must have the row as the last one says: then the version before the
 * first one is what it becomes.  Anything else is a conflict, and one of them
 * is enough that nothing is done.
 *
 * Who undoes first takes a lock that keeps writers out, so that what was
 * compared is so until the end.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "errcodes.h"
#include "role.h"
#include "task.h"
#include "undo.h"
#include "xact.h"

/* Conflicts that an error tells. */
#define TOLD 5

static const char *const verdicts[] = {"revert", "same", "undone", "conflict"};

static char *
text_of(HeapTuple tuple, TupleDesc desc, int column, MemoryContext context)
{
	char *text = SPI_getvalue(tuple, desc, column);

	return text == NULL ? NULL : MemoryContextStrdup(context, text);
}

static int64
int_of(HeapTuple tuple, TupleDesc desc, int column, bool *isnull)
{
	return DatumGetInt64(SPI_getbinval(tuple, desc, column, isnull));
}


/* Tables. */

/* The tracks of a task's versions, with their tables of now, by oid. */
static List *
find_tables(int64 task_id)
{
	static const char tables_sql[] =
		"SELECT v.track_id, (SELECT t.tgrelid FROM pg_catalog.pg_trigger t"
		" WHERE t.tgfoid OPERATOR(pg_catalog.=) $2"
		" AND pg_catalog.substr(t.tgargs, 1, 36) OPERATOR(pg_catalog.=)"
		" pg_catalog.convert_to(v.track_id::pg_catalog.text, 'SQL_ASCII')"
		" ORDER BY 1 LIMIT 1) AS relid,"
		" (SELECT n.relation FROM prometheus._track n"
		" WHERE n.track_id OPERATOR(pg_catalog.=) v.track_id"
		" ORDER BY n.layout DESC LIMIT 1)"
		" FROM (SELECT DISTINCT v.track_id FROM prometheus._row_version v"
		" WHERE v.task_id OPERATOR(pg_catalog.=) $1) v ORDER BY relid";
	MemoryContext context = CurrentMemoryContext;
	Oid types[2] = {INT8OID, OIDOID};
	Datum values[2] = {Int64GetDatum(task_id),
					   ObjectIdGetDatum(prom_version_function())};
	PromOwner owner;
	List *tables = NIL;

	SPI_connect();
	prom_role_become_owner(&owner);
	if (prom_execute_now(tables_sql, 2, types, values, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._row_version");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		MemoryContext before = MemoryContextSwitchTo(context);
		PromUndoTable *table = palloc0(sizeof(PromUndoTable));
		bool isnull;

		table->track_id = *DatumGetUUIDP(SPI_getbinval(tuple, desc, 1,
													   &isnull));
		table->relid = DatumGetObjectId(SPI_getbinval(tuple, desc, 2,
													  &isnull));
		if (isnull)
			table->relid = InvalidOid;
		table->name = text_of(tuple, desc, 3, context);
		tables = lappend(tables, table);
		MemoryContextSwitchTo(before);
	}
	prom_role_restore(&owner);
	SPI_finish();
	return tables;
}

/* Who may write nothing in it may not keep others from it either. */
static void
check_may_lock(Oid relid)
{
	if (pg_class_aclmask(relid, GetUserId(),
						 ACL_INSERT | ACL_UPDATE | ACL_DELETE,
						 ACLMASK_ANY) == 0 &&
		pg_attribute_aclcheck_all(relid, GetUserId(), ACL_UPDATE,
								  ACLMASK_ANY) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(relid));
}

static void
open_table(PromUndoTable *table, bool lock)
{
	Relation relation = NULL;

	if (OidIsValid(table->relid))
	{
		if (lock)
			check_may_lock(table->relid);
		relation = try_table_open(table->relid,
								  lock ? ShareRowExclusiveLock
									   : AccessShareLock);
	}
	if (relation == NULL)
	{
		table->problem = "the table was dropped, or is not tracked any more";
		return;
	}
	table->relation = relation;
	prom_history_check_access(relation);
	table->tracked = prom_version_tracked(relation);
	if (!prom_version_is_whole(relation) || !table->tracked->records ||
		!prom_history_open(relation, &table->track_id, &table->history))
		table->problem = "the tracking of the table was interrupted";
	else
		table->name = table->history.now.relation;
}

/* The lock stays until the transaction ends. */
static void
close_table(PromUndoTable *table)
{
	if (table->relation != NULL)
		table_close(table->relation, NoLock);
}


/* Rows. */

static PromUndoTable *
table_of(List *tables, const pg_uuid_t *track_id)
{
	ListCell *cell;

	foreach(cell, tables)
	{
		PromUndoTable *table = lfirst(cell);

		if (memcmp(&table->track_id, track_id, sizeof(pg_uuid_t)) == 0)
			return table;
	}
	return NULL;
}

/* A version's fields; false: there is no row. */
static bool
read_fields(PromUndoRow *row, HeapTuple tuple, TupleDesc desc, int column,
			PromFields *fields)
{
	bool isnull;
	Datum array = SPI_getbinval(tuple, desc, column + 1, &isnull);

	if (isnull)
		return false;
	if (row->table->problem == NULL)
		prom_history_fields(&row->table->history,
							DatumGetInt32(SPI_getbinval(tuple, desc, column,
														&isnull)),
							array, fields);
	return true;
}

static void
read_others(PromUndoRow *row, HeapTuple tuple, TupleDesc desc)
{
	bool isnull;
	int64 task_id = int_of(tuple, desc, 9, &isnull);
	char *at;

	if (SPI_getvalue(tuple, desc, 8) == NULL)
		return;
	at = pstrdup(timestamptz_to_str(
		DatumGetTimestampTz(SPI_getbinval(tuple, desc, 8, &isnull))));
	row->verdict = PROM_UNDO_CONFLICT;
	if (SPI_getvalue(tuple, desc, 9) != NULL)
		row->reason = psprintf("task %lld changed it at %s",
							   (long long) task_id, at);
	else
		row->reason = psprintf("it was changed at %s, by no task", at);
}

static PromUndoRow *
read_row(HeapTuple tuple, TupleDesc desc, List *tables)
{
	PromUndoRow *row = palloc0(sizeof(PromUndoRow));
	bool isnull;

	row->table = table_of(tables,
						  DatumGetUUIDP(SPI_getbinval(tuple, desc, 1,
													  &isnull)));
	if (row->table == NULL)
		return NULL; /* of a transaction that ended just now */
	row->key = pstrdup(SPI_getvalue(tuple, desc, 2));
	row->was_there = read_fields(row, tuple, desc, 4, &row->before);
	row->is_there = read_fields(row, tuple, desc, 6, &row->after);
	(void) read_fields(row, tuple, desc, 10, &row->last);
	(void) int_of(tuple, desc, 3, &isnull);
	if (isnull)
		row->verdict = PROM_UNDO_UNDONE;
	else if (row->table->problem != NULL)
	{
		row->verdict = PROM_UNDO_CONFLICT;
		row->reason = row->table->problem;
	}
	else
		read_others(row, tuple, desc);
	return row;
}

/* In the hash is only where the key is: it may be long. */
typedef struct Found
{
	const char *key;
	const PromUndoRow *row;
} Found;

static uint32
hash_key(const void *key, Size size)
{
	const char *text = *(const char *const *) key;

	return DatumGetUInt32(hash_any((const unsigned char *) text, strlen(text)));
}

static int
compare_keys(const void *a, const void *b, Size size)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

static void
remember_row(PromUndoRow *row)
{
	HASHCTL control = {.keysize = sizeof(char *),
					   .entrysize = sizeof(Found),
					   .hash = hash_key,
					   .match = compare_keys,
					   .hcxt = CurrentMemoryContext};
	PromUndoTable *table = row->table;
	Found *found;

	if (table->rows == NULL)
		table->rows = hash_create("prometheus rows to undo", 256, &control,
								  HASH_ELEM | HASH_FUNCTION | HASH_COMPARE |
									  HASH_CONTEXT);
	found = hash_search(table->rows, &row->key, HASH_ENTER, NULL);
	found->row = row;
}

/*
 * first: the task's first version since it was undone; b: what was there before
 * it; a: the task's last version; o: the last of somebody else's since; w: the
 * last that had fields, which say the key.
 */
static List *
read_rows(int64 task_id, List *tables)
{
	static const char rows_sql[] =
		"SELECT k.track_id, k.key, f.first, b.layout, b.fields, a.layout,"
		" a.fields, o.changed_at, o.task_id, w.layout, w.fields"
		" FROM (SELECT v.track_id, v.key, pg_catalog.min(v.version_id) AS at,"
		" pg_catalog.max(v.version_id) AS last"
		" FROM prometheus._row_version v"
		" WHERE v.task_id OPERATOR(pg_catalog.=) $1"
		" GROUP BY v.track_id, v.key) k"
		" CROSS JOIN LATERAL (SELECT coalesce(pg_catalog.max(v.version_id), 0)"
		" AS undone FROM prometheus._row_version v"
		" WHERE v.track_id OPERATOR(pg_catalog.=) k.track_id"
		" AND v.key OPERATOR(pg_catalog.=) k.key"
		" AND v.undoes OPERATOR(pg_catalog.=) $1) u"
		" CROSS JOIN LATERAL (SELECT pg_catalog.min(v.version_id) AS first"
		" FROM prometheus._row_version v"
		" WHERE v.track_id OPERATOR(pg_catalog.=) k.track_id"
		" AND v.key OPERATOR(pg_catalog.=) k.key"
		" AND v.task_id OPERATOR(pg_catalog.=) $1"
		" AND v.version_id OPERATOR(pg_catalog.>) u.undone) f"
		" LEFT JOIN LATERAL (SELECT v.layout, v.fields"
		" FROM prometheus._row_version v"
		" WHERE v.track_id OPERATOR(pg_catalog.=) k.track_id"
		" AND v.key OPERATOR(pg_catalog.=) k.key"
		" AND v.version_id OPERATOR(pg_catalog.<) coalesce(f.first, k.at)"
		" ORDER BY v.version_id DESC LIMIT 1) b ON true"
		" JOIN prometheus._row_version a"
		" ON a.track_id OPERATOR(pg_catalog.=) k.track_id"
		" AND a.key OPERATOR(pg_catalog.=) k.key"
		" AND a.version_id OPERATOR(pg_catalog.=) k.last"
		" LEFT JOIN LATERAL (SELECT v.changed_at, v.task_id"
		" FROM prometheus._row_version v"
		" WHERE v.track_id OPERATOR(pg_catalog.=) k.track_id"
		" AND v.key OPERATOR(pg_catalog.=) k.key"
		" AND v.version_id OPERATOR(pg_catalog.>) f.first"
		" AND v.operation OPERATOR(pg_catalog.<>) 'alter'"
		" AND v.task_id IS DISTINCT FROM $1"
		" ORDER BY v.version_id DESC LIMIT 1) o ON true"
		" LEFT JOIN LATERAL (SELECT v.layout, v.fields"
		" FROM prometheus._row_version v"
		" WHERE v.track_id OPERATOR(pg_catalog.=) k.track_id"
		" AND v.key OPERATOR(pg_catalog.=) k.key AND v.fields IS NOT NULL"
		" ORDER BY v.version_id DESC LIMIT 1) w ON true"
		" ORDER BY coalesce(f.first, k.at)";
	MemoryContext context = CurrentMemoryContext;
	Oid type = INT8OID;
	Datum value = Int64GetDatum(task_id);
	PromOwner owner;
	List *rows = NIL;

	SPI_connect();
	prom_role_become_owner(&owner);
	if (prom_execute_now(rows_sql, 1, &type, &value, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._row_version");
	prom_role_restore(&owner);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		MemoryContext before = MemoryContextSwitchTo(context);
		PromUndoRow *row = read_row(tuple, desc, tables);

		if (row != NULL)
		{
			rows = lappend(rows, row);
			remember_row(row);
		}
		MemoryContextSwitchTo(before);
	}
	SPI_finish();
	return rows;
}

const PromUndoRow *
prom_undo_find(const List *tables, Oid relid, const char *key)
{
	ListCell *cell;

	foreach(cell, tables)
	{
		const PromUndoTable *table = lfirst(cell);
		const Found *found;

		if (table->relid != relid || table->rows == NULL)
			continue;
		found = hash_search(table->rows, &key, HASH_FIND, NULL);
		if (found != NULL)
			return found->row;
	}
	return NULL;
}

static void
judge(PromUndoRow *row, const List *tables)
{
	const char *reference;

	if (row->verdict != PROM_UNDO_REVERT)
		return;
	row->reason = prom_revert_compare(row, tables);
	if (row->reason != NULL)
		row->verdict = PROM_UNDO_CONFLICT;
	else if (row->was_there == row->is_there &&
			 (!row->is_there || prom_revert_is_same(row)))
		row->verdict = PROM_UNDO_SAME;
	else if (!row->was_there)
	{
		reference = prom_revert_find_reference(row, tables);
		if (reference == NULL)
			return;
		row->verdict = PROM_UNDO_CONFLICT;
		row->reason = psprintf("a row of %s refers to it, and would be changed with it",
							   reference);
	}
}

List *
prom_undo_plan(int64 task_id, bool lock, List **tables)
{
	List *rows;
	ListCell *cell;
	int nest_level;

	*tables = find_tables(task_id);
	foreach(cell, *tables)
		open_table(lfirst(cell), lock);
	rows = read_rows(task_id, *tables);
	nest_level = prom_version_texts_begin();
	foreach(cell, rows)
		judge(lfirst(cell), *tables);
	prom_version_texts_end(nest_level);
	return rows;
}


/* The answer. */

static Datum
row_json(const PromUndoRow *row, const PromFields *fields, bool only_key)
{
	const PromLayout *layout = &row->table->history.now;
	JsonbParseState *state = NULL;
	JsonbValue *object;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < layout->n; i++)
	{
		bool is_key = false;
		JsonbValue name = {.type = jbvString};
		JsonbValue value = {.type = jbvNull};

		for (int j = 0; j < layout->nkey; j++)
			is_key |= layout->key[j] == layout->columns[i];
		if (!fields->known[i] || (only_key && !is_key))
			continue;
		name.val.string.val = layout->names[i];
		name.val.string.len = strlen(layout->names[i]);
		if (fields->values[i] != NULL)
		{
			value.type = jbvString;
			value.val.string.val = fields->values[i];
			value.val.string.len = strlen(fields->values[i]);
		}
		(void) pushJsonbValue(&state, WJB_KEY, &name);
		(void) pushJsonbValue(&state, WJB_VALUE, &value);
	}
	object = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbPGetDatum(JsonbValueToJsonb(object));
}

/* What the task did, all in all. */
static const char *
operation_of(const PromUndoRow *row)
{
	if (row->is_there)
		return row->was_there ? "update" : "insert";
	return row->was_there ? "delete" : "insert and delete";
}

static void
put_row(ReturnSetInfo *result, const PromUndoRow *row)
{
	Datum values[7] = {0};
	bool nulls[7] = {false};
	bool has_fields = row->table->problem == NULL;

	values[0] = CStringGetTextDatum(row->table->name);
	nulls[1] = !has_fields || row->last.values == NULL;
	nulls[5] = !has_fields || !row->is_there;
	nulls[6] = !has_fields || !row->was_there;
	if (!nulls[1])
		values[1] = row_json(row, &row->last, true);
	values[2] = CStringGetTextDatum(operation_of(row));
	values[3] = CStringGetTextDatum(verdicts[row->verdict]);
	nulls[4] = row->reason == NULL;
	if (row->reason != NULL)
		values[4] = CStringGetTextDatum(row->reason);
	if (!nulls[5])
		values[5] = row_json(row, &row->after, false);
	if (!nulls[6])
		values[6] = row_json(row, &row->before, false);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

void
prom_undo_raise(int64 task_id, const List *rows)
{
	StringInfoData detail;
	ListCell *cell;
	int n = 0;

	initStringInfo(&detail);
	foreach(cell, rows)
	{
		const PromUndoRow *row = lfirst(cell);

		if (row->verdict != PROM_UNDO_CONFLICT || n++ >= TOLD)
			continue;
		appendStringInfo(&detail, "%s%s, key %s: %s.", n > 1 ? "\n" : "",
						 row->table->name, row->key, row->reason);
	}
	ereport(ERROR,
			(errcode(ERRCODE_PROM_UNDO_CONFLICT),
			 errmsg("task %lld cannot be undone: %d of the rows that it changed are in conflict",
					(long long) task_id, n),
			 errdetail_internal("%s", detail.data),
			 errhint("Nothing was changed. SELECT * FROM prometheus_undo(%lld) lists all rows.",
					 (long long) task_id)));
}

static bool
has_verdict(const List *rows, PromUndoVerdict verdict)
{
	ListCell *cell;

	foreach(cell, rows)
		if (((const PromUndoRow *) lfirst(cell))->verdict == verdict)
			return true;
	return false;
}

static void
undo(int64 task_id, const List *rows)
{
	if (has_verdict(rows, PROM_UNDO_CONFLICT))
		prom_undo_raise(task_id, rows);
	if (has_verdict(rows, PROM_UNDO_REVERT))
		prom_revert(task_id, rows);
}

PG_FUNCTION_INFO_V1(prom_undo);

Datum
prom_undo(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int64 task_id;
	bool dry_run;
	PromTaskEnd end;
	List *tables;
	List *rows;
	ListCell *cell;

	PreventCommandDuringRecovery("prometheus_undo()");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("task_id and dry_run must not be null")));
	task_id = PG_GETARG_INT64(0);
	dry_run = PG_GETARG_BOOL(1);
	if (!dry_run)
		PreventCommandIfReadOnly("prometheus_undo()");
	prom_task_end(task_id, &end);
	if (!dry_run && !end.ended)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("task %lld has not ended: it is %s",
						(long long) task_id, end.status),
				 errhint("Wait for it, or prometheus_cancel(%lld).",
						 (long long) task_id)));
	InitMaterializedSRF(fcinfo, 0);
	rows = prom_undo_plan(task_id, !dry_run, &tables);

	/* Retention takes a task before its versions: all of these were read. */
	prom_task_end(task_id, &end);
	if (!dry_run)
		undo(task_id, rows);
	foreach(cell, rows)
		put_row(result, lfirst(cell));
	foreach(cell, tables)
		close_table(lfirst(cell));
	return (Datum) 0;
}
