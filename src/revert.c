/*
 * revert.c
 *	  Puts rows back to what they were before a task.
 *
 * By ordinary statements, as the caller, with his settings and privileges, and
 * with the triggers of the tables; the versions of these say what was undone.
 * All triggers AFTER them, those of foreign keys too, wait until every row is
 * as it was: so no order of the rows is wrong.  Just before they run, nothing
 * else may refer to a row that was deleted, by a key that would change or
 * delete who refers to it.  What they do to other rows is theirs, but they may
 * not change again what was reverted: a sum that a trigger keeps would be
 * wrong.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "compat.h"
#include "role.h"
#include "undo.h"
#include "xact.h"

/* Rows that refer to one, of those that are looked at. */
#define MAX_REFERRING 10000

/* A statement with its arguments. */
typedef struct Statement
{
	StringInfoData sql;
	int n;
	Oid *types;
	Datum *values;
	char *nulls;
	const PromUndoRow *row;
} Statement;

/* A foreign key that does something to the rows that refer to a deleted one. */
typedef struct Reference
{
	Oid table;
	int n;
	AttrNumber columns[INDEX_MAX_KEYS];
	AttrNumber referred[INDEX_MAX_KEYS];
	Oid operators[INDEX_MAX_KEYS];
} Reference;

static Statement *
make_statement(PromUndoRow *row)
{
	int n = row->table->history.now.n + INDEX_MAX_KEYS;
	Statement *statement = palloc0(sizeof(Statement));

	initStringInfo(&statement->sql);
	statement->types = palloc(n * sizeof(Oid));
	statement->values = palloc(n * sizeof(Datum));
	statement->nulls = palloc(n);
	statement->row = row;
	return statement;
}

static Form_pg_attribute
column_of(const PromUndoRow *row, int column)
{
	const PromHistory *history = &row->table->history;

	return TupleDescAttr(RelationGetDescr(history->relation),
						 history->now.attnums[column] - 1);
}

/* Its number as a parameter. */
static int
add_argument(Statement *statement, int column, const PromFields *fields)
{
	PromUndoTable *table = statement->row->table;
	char *text = fields->values[column];
	int at = statement->n++;

	statement->types[at] = column_of(statement->row, column)->atttypid;
	statement->nulls[at] = text == NULL ? 'n' : ' ';
	statement->values[at] = prom_history_value(&table->history, column, text,
											   true);
	return at + 1;
}

/* The condition for the row of a key. */
static void
add_key(Statement *statement, const PromFields *fields)
{
	const PromUndoRow *row = statement->row;
	const PromLayout *now = &row->table->history.now;

	for (int i = 0; i < now->nkey; i++)
	{
		int column = prom_layout_find(now, now->key[i]);
		Oid type = column_of(row, column)->atttypid;
		char *parameter = psprintf("$%d", add_argument(statement, column,
													   fields));

		appendStringInfoString(&statement->sql, i == 0 ? " WHERE " : " AND ");
		generate_operator_clause(
			&statement->sql,
			psprintf("x.%s", quote_identifier(now->names[column])), type,
			lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr, parameter,
			type);
	}
}


/* What is in the table. */

/* A row that has an equal key, maybe of another text; false: there is none. */
static bool
read_equal(PromUndoRow *row, PromRowText *now)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext before;
	Statement *statement = make_statement(row);
	int nest_level = prom_version_texts_begin();
	bool found;

	appendStringInfo(&statement->sql, "SELECT x FROM ONLY %s x",
					 row->table->name);
	add_key(statement, &row->last);
	SPI_connect();
	if (prom_execute_now(statement->sql.data, statement->n, statement->types,
						 statement->values, statement->nulls, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read %s", row->table->name);
	found = SPI_processed > 0;
	before = MemoryContextSwitchTo(context);
	if (found)
	{
		bool isnull;
		HeapTupleHeader header = DatumGetHeapTupleHeader(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						  &isnull));
		HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(header),
							   .t_data = header};

		prom_version_texts(row->table->tracked, &tuple,
						   RelationGetDescr(row->table->relation), false, now);
	}
	MemoryContextSwitchTo(before);
	SPI_finish();
	prom_version_texts_end(nest_level);
	return found;
}

/* The row as it is; false: there is none. */
static bool
read_now(PromUndoRow *row, PromRowText *now)
{
	return read_equal(row, now) && strcmp(now->key, row->key) == 0;
}

static bool
is_equal(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* The text that a column has for another type's one; NULL: none. */
static char *
convert(PromUndoRow *row, int column, char *text)
{
	PromUndoTable *table = row->table;
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	char *volatile converted = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		Datum value = prom_history_value(&table->history, column, text, true);

		converted = OutputFunctionCall(&table->tracked->outputs[column], value);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) ==
			ERRCODE_OPERATOR_INTERVENTION)
			ReThrowError(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = resources;
	return converted;
}

/* As its column says now, is the value what it was? */
static bool
has_value(PromUndoRow *row, int column, const char *now)
{
	char *after = row->after.values[column];
	char *converted;

	if (is_equal(after, now))
		return true;
	if (!row->after.retyped[column] || after == NULL || now == NULL)
		return false;
	converted = convert(row, column, after);
	return converted != NULL && strcmp(converted, now) == 0;
}

/* Does its value go back to what it was, when the row does? */
static bool
is_changed(const PromUndoRow *row, int column)
{
	if (!row->before.known[column] ||
		column_of(row, column)->attgenerated != '\0')
		return false;
	return !row->is_there || !row->after.known[column] ||
		   !is_equal(row->before.values[column], row->after.values[column]);
}

bool
prom_revert_is_same(const PromUndoRow *row)
{
	for (int i = 0; i < row->table->history.now.n; i++)
		if (row->after.known[i] && is_changed(row, i))
			return false;
	return true;
}

/* Why the row cannot be what it was, or NULL. */
static const char *
find_obstacle(PromUndoRow *row)
{
	const PromLayout *layout = &row->table->history.now;

	for (int i = 0; row->was_there && i < layout->n; i++)
	{
		char *before = row->before.values[i];

		if (!is_changed(row, i))
			continue;
		if (row->is_there && column_of(row, i)->attidentity ==
								 ATTRIBUTE_IDENTITY_ALWAYS)
			return psprintf("column \"%s\" is an identity that is always generated",
							layout->names[i]);
		if (row->is_there && row->before.retyped[i] && !row->after.retyped[i])
			return psprintf("column \"%s\" got another type while the task changed the row",
							layout->names[i]);
		if (row->before.retyped[i] && before != NULL &&
			convert(row, i, before) == NULL)
			return psprintf("column \"%s\" has a type now that its earlier value does not fit",
							layout->names[i]);
	}
	return NULL;
}

/* The row of an equal key is to go. */
static bool
makes_room(const PromUndoRow *row, const char *key, const List *tables)
{
	const PromUndoRow *other = prom_undo_find(tables, row->table->relid, key);

	return other != NULL && other != row && !other->was_there &&
		   other->verdict == PROM_UNDO_REVERT;
}

const char *
prom_revert_compare(PromUndoRow *row, const List *tables)
{
	const PromLayout *layout = &row->table->history.now;
	PromRowText now;
	bool found = read_equal(row, &now);

	if (row->is_there && (!found || strcmp(now.key, row->key) != 0))
		return "the row is not in the table";
	if (!row->is_there && found && !makes_room(row, now.key, tables))
		return "a row with that key is in the table";
	for (int i = 0; row->is_there && i < layout->n; i++)
		if (row->after.known[i] && !has_value(row, i, now.values[i]))
			return psprintf("column \"%s\" has another value than was recorded",
							layout->names[i]);
	return find_obstacle(row);
}

/* What is there when the statements have run, for later. */
static void
keep_now(const List *rows)
{
	ListCell *cell;

	foreach(cell, rows)
	{
		PromUndoRow *row = lfirst(cell);

		if (row->verdict == PROM_UNDO_REVERT)
			row->is_kept = read_now(row, &row->kept);
	}
}

/* What the row has become, which triggers may have changed. */
static void
tell_result(PromUndoRow *row, const PromRowText *now)
{
	int n = row->table->history.now.n;
	MemoryContext before = MemoryContextSwitchTo(GetMemoryChunkContext(row));

	for (int i = 0; i < n; i++)
	{
		row->before.known[i] = true;
		row->before.values[i] = now->values[i] == NULL
									? NULL
									: pstrdup(now->values[i]);
	}
	MemoryContextSwitchTo(before);
}

/* Triggers that run after them may not change the same rows again. */
static void
check_kept(int64 task_id, const List *rows)
{
	bool is_conflict = false;
	ListCell *cell;

	CommandCounterIncrement();
	foreach(cell, rows)
	{
		PromUndoRow *row = lfirst(cell);
		PromRowText now;
		int n = row->table->history.now.n;
		bool is_same;

		if (row->verdict != PROM_UNDO_REVERT)
			continue;
		is_same = read_now(row, &now) == row->is_kept;
		for (int i = 0; is_same && row->is_kept && i < n; i++)
			is_same = is_equal(row->kept.values[i], now.values[i]);
		if (is_same)
		{
			if (row->is_kept && row->was_there)
				tell_result(row, &now);
			continue;
		}
		row->verdict = PROM_UNDO_CONFLICT;
		row->reason = "a trigger changes it again when it is reverted";
		is_conflict = true;
	}
	if (is_conflict)
		prom_undo_raise(task_id, rows);
}


/* Who refers to it. */

static Reference *
read_reference(Oid constraint)
{
	HeapTuple tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	Reference *reference = palloc0(sizeof(Reference));

	if (!HeapTupleIsValid(tuple))
		return NULL;
	reference->table = ((Form_pg_constraint) GETSTRUCT(tuple))->conrelid;
	DeconstructFkConstraintRow(tuple, &reference->n, reference->columns,
							   reference->referred, reference->operators, NULL,
							   NULL, NULL, NULL);
	ReleaseSysCache(tuple);
	return reference;
}

static void
find_references(PromUndoTable *table)
{
	static const char find_sql[] =
		"SELECT c.oid FROM pg_catalog.pg_constraint c"
		" WHERE c.contype OPERATOR(pg_catalog.=) 'f'"
		" AND c.confrelid OPERATOR(pg_catalog.=) $1"
		" AND c.confdeltype OPERATOR(pg_catalog.<>) 'a'"
		" AND c.confdeltype OPERATOR(pg_catalog.<>) 'r'";
	MemoryContext context = CurrentMemoryContext;
	Oid type = OIDOID;
	Datum value = ObjectIdGetDatum(table->relid);

	SPI_connect();
	if (SPI_execute_with_args(find_sql, 1, &type, &value, NULL, true, 0) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read pg_constraint");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Oid constraint = prom_row_oid(i, 1);
		MemoryContext before = MemoryContextSwitchTo(context);
		Reference *reference = read_reference(constraint);

		if (reference != NULL)
			table->references = lappend(table->references, reference);
		MemoryContextSwitchTo(before);
	}
	SPI_finish();
	table->has_references = true;
}

/* NULL: nothing can refer to it by this key. */
static Statement *
make_question(PromUndoRow *row, const Reference *reference)
{
	const PromLayout *now = &row->table->history.now;
	Statement *statement = make_statement(row);
	Oid schema = get_rel_namespace(reference->table);

	appendStringInfo(&statement->sql, "SELECT x.tableoid, x.ctid FROM %s x",
					 quote_qualified_identifier(
						 get_namespace_name(schema),
						 get_rel_name(reference->table)));
	for (int i = 0; i < reference->n; i++)
	{
		Oid type = get_atttype(reference->table, reference->columns[i]);
		char *name = get_attname(reference->table, reference->columns[i],
								 false);
		int column = 0;

		while (now->attnums[column] != reference->referred[i])
			column++;
		if (row->after.values[column] == NULL)
			return NULL;
		appendStringInfoString(&statement->sql, i == 0 ? " WHERE " : " AND ");
		generate_operator_clause(
			&statement->sql,
			psprintf("$%d", add_argument(statement, column, &row->after)),
			column_of(row, column)->atttypid, reference->operators[i],
			psprintf("x.%s", quote_identifier(name)), type);
	}
	appendStringInfo(&statement->sql, " LIMIT %d", MAX_REFERRING);
	return statement;
}

/* Is a row to be reverted as well? */
static bool
is_planned(Oid relid, ItemPointer tid, const List *tables)
{
	Relation relation = table_open(relid, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	const PromUndoRow *found = NULL;
	PromTracked *tracked = prom_version_tracked(relation);

	if (tracked->records &&
		table_tuple_fetch_row_version(relation, tid, SnapshotAny, slot))
	{
		bool should_free;
		PromRowText text;

		prom_version_texts(tracked,
						   ExecFetchSlotHeapTuple(slot, false, &should_free),
						   RelationGetDescr(relation), true, &text);
		found = prom_undo_find(tables, relid, text.key);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(relation, AccessShareLock);
	return found != NULL && found->verdict == PROM_UNDO_REVERT;
}

static Oid
owner_of(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* As the owner of the table that refers, as foreign keys are checked. */
static bool
is_referred_to(PromUndoRow *row, const Reference *reference,
			   const List *tables)
{
	Statement *statement = make_question(row, reference);
	Oid user;
	int context;
	bool is = false;

	if (statement == NULL)
		return false;
	SPI_connect();
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner_of(reference->table),
						   context | SECURITY_LOCAL_USERID_CHANGE |
							   SECURITY_NOFORCE_RLS);
	if (prom_execute_now(statement->sql.data, statement->n, statement->types,
						 statement->values, statement->nulls, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read who refers to %s", row->table->name);
	SetUserIdAndSecContext(user, context);
	for (uint64 i = 0; !is && i < SPI_processed; i++)
	{
		bool isnull;
		Datum tid = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc,
								  2, &isnull);

		is = tables == NIL || !is_planned(prom_row_oid(i, 1),
										  (ItemPointer) DatumGetPointer(tid),
										  tables);
	}
	SPI_finish();
	return is;
}

const char *
prom_revert_find_reference(PromUndoRow *row, const List *tables)
{
	ListCell *cell;

	if (!row->table->has_references)
		find_references(row->table);
	foreach(cell, row->table->references)
	{
		const Reference *reference = lfirst(cell);

		if (is_referred_to(row, reference, tables))
			return get_rel_name(reference->table);
	}
	return NULL;
}


/* Statements. */

static Statement *
make_delete(PromUndoRow *row)
{
	Statement *statement = make_statement(row);

	appendStringInfo(&statement->sql, "DELETE FROM ONLY %s x",
					 row->table->name);
	add_key(statement, &row->after);
	return statement;
}

static Statement *
make_update(PromUndoRow *row)
{
	const PromLayout *now = &row->table->history.now;
	Statement *statement = make_statement(row);

	appendStringInfo(&statement->sql, "UPDATE ONLY %s x SET ",
					 row->table->name);
	for (int i = 0; i < now->n; i++)
	{
		const char *comma = statement->n > 0 ? ", " : "";

		if (is_changed(row, i))
			appendStringInfo(&statement->sql, "%s%s = $%d", comma,
							 quote_identifier(now->names[i]),
							 add_argument(statement, i, &row->before));
	}
	if (statement->n == 0)
		return NULL;
	add_key(statement, &row->after);
	return statement;
}

static Statement *
make_insert(PromUndoRow *row)
{
	const PromLayout *now = &row->table->history.now;
	Statement *statement = make_statement(row);
	StringInfoData parameters;

	initStringInfo(&parameters);
	appendStringInfo(&statement->sql, "INSERT INTO %s (", row->table->name);
	for (int i = 0; i < now->n; i++)
	{
		const char *comma = statement->n > 0 ? ", " : "";

		if (!is_changed(row, i))
			continue;
		appendStringInfo(&statement->sql, "%s%s", comma,
						 quote_identifier(now->names[i]));
		appendStringInfo(&parameters, "%s$%d", comma,
						 add_argument(statement, i, &row->before));
	}
	appendStringInfo(&statement->sql, ") OVERRIDING SYSTEM VALUE VALUES (%s)",
					 parameters.data);
	return statement;
}

/*
 * First what makes room for keys; of what was changed the last one first, since
 * it may have a value that another row had before.
 */
static List *
make_statements(const List *rows)
{
	List *deletes = NIL;
	List *updates = NIL;
	List *inserts = NIL;
	ListCell *cell;

	foreach(cell, rows)
	{
		PromUndoRow *row = lfirst(cell);

		if (row->verdict != PROM_UNDO_REVERT)
			continue;
		if (!row->was_there)
			deletes = lappend(deletes, make_delete(row));
		else if (!row->is_there)
			inserts = lappend(inserts, make_insert(row));
		else
			updates = lcons(make_update(row), updates);
	}
	return list_concat(list_concat(deletes, updates), inserts);
}

static void
execute(Statement *statement)
{
	SPIPlanPtr plan = SPI_prepare(statement->sql.data, statement->n,
								  statement->types);
	int result;

	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\"", statement->sql.data);
	result = SPI_execute_snapshot(plan, statement->values, statement->nulls,
								  InvalidSnapshot, InvalidSnapshot, false,
								  false, 0);
	if (result < 0 || SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("a row of table %s could not be reverted",
						statement->row->table->name),
				 errdetail("Key %s; a trigger or a rule of the table kept it from being changed.",
						   statement->row->key)));
	SPI_freeplan(plan);
}

static void
check_references(int64 task_id, const List *rows)
{
	ListCell *cell;

	CommandCounterIncrement();
	foreach(cell, rows)
	{
		PromUndoRow *row = lfirst(cell);
		const char *reference;

		if (row->verdict != PROM_UNDO_REVERT || row->was_there)
			continue;
		reference = prom_revert_find_reference(row, NIL);
		if (reference == NULL)
			continue;
		row->verdict = PROM_UNDO_CONFLICT;
		row->reason = psprintf("a row of %s refers to it, and would be changed with it",
							   reference);
		prom_undo_raise(task_id, rows);
	}
}

static void
run(int64 task_id, const List *rows, const List *statements)
{
	EState *estate = CreateExecutorState();
	ListCell *cell;

	SPI_connect();
	AfterTriggerBeginQuery();
	foreach(cell, statements)
		if (lfirst(cell) != NULL)
			execute(lfirst(cell));
	check_references(task_id, rows);
	keep_now(rows);
	AfterTriggerEndQuery(estate);
	check_kept(task_id, rows);
	ExecResetTupleTable(estate->es_tupleTable, false);
	ExecCloseResultRelations(estate);
	FreeExecutorState(estate);
	SPI_finish();
}

/* Values are read under our settings, statements run under the caller's. */
void
prom_revert(int64 task_id, const List *rows)
{
	int nest_level = prom_version_texts_begin();
	List *statements = make_statements(rows);

	prom_version_texts_end(nest_level);
	PG_TRY();
	{
		prom_version_set_undone(task_id);
		run(task_id, rows, statements);
	}
	PG_FINALLY();
	{
		prom_version_set_undone(0);
	}
	PG_END_TRY();
}
