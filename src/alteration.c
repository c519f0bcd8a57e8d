/*
 * alteration.c
 *	  Keeps up with what statements do to tracked tables themselves.
 *
 * They are noticed by the hook on objects, which names the table, and looked at
 * when the statement has ended, in its transaction and under its locks.  Names,
 * types, new and dropped columns are recorded, and all rows as well if the
 * statement gave them other values.  The primary key is how rows are known, so
 * that one may not go, nor get other values.  Who disables or drops a trigger
 * of ours makes holes that nobody can fill: then tracking has ended, and begins
 * anew by hand.
 *
 * Statements run within others, in the middle of these: a function that
 * computes values of a column sees a table whose rows are not yet what its
 * columns say.  So each looks at what it altered itself, and at nothing else.
 * But rows may be changed before a statement has ended, by an event trigger;
 * then the trigger on rows records the layout (version.c), and tells us.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "alteration.h"
#include "compat.h"
#include "layout.h"
#include "track.h"
#include "version.h"
#include "xact.h"

/* A layout that somebody recorded before the statement had ended. */
typedef struct Early
{
	Oid relid;
	int32 number; /* of the one before it */
} Early;

static object_access_hook_type previous_hook = NULL;

/* What was altered while no statement ran, by a function in C. */
static PromAlteration outside;
static PromAlteration *current = &outside;


/* What is noticed. */

static Oid
table_of_constraint(Oid constraint)
{
	HeapTuple tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	Oid relid = InvalidOid;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	if (((Form_pg_constraint) GETSTRUCT(tuple))->contype == CONSTRAINT_PRIMARY)
		relid = ((Form_pg_constraint) GETSTRUCT(tuple))->conrelid;
	ReleaseSysCache(tuple);
	return relid;
}

/* Of a trigger with that function; InvalidOid: with any. */
static Oid
table_of_trigger(Oid trigger, Oid function)
{
	Relation relation = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	Oid relid = InvalidOid;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(trigger));
	/* It may have been made just now. */
	scan = systable_beginscan(relation, TriggerOidIndexId, true, SnapshotSelf,
							  1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_trigger found = (Form_pg_trigger) GETSTRUCT(tuple);

		if (!OidIsValid(function) || found->tgfoid == function)
			relid = found->tgrelid;
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return relid;
}

static Oid
table_altered(ObjectAccessType access, Oid class, Oid object, int column)
{
	bool is_alter = access == OAT_POST_ALTER;
	bool is_drop = access == OAT_DROP;

	if (class == RelationRelationId &&
		(is_alter || (column > 0 && (is_drop || access == OAT_POST_CREATE))))
		return object;
	if (class == ConstraintRelationId && is_drop)
		return table_of_constraint(object);
	if (class == TriggerRelationId && is_alter)
		return table_of_trigger(object, InvalidOid);
	return InvalidOid;
}

/*
 * A table that is dropped loses its triggers first.  One that is made may
 * replace ours.
 */
static Oid
table_bared(ObjectAccessType access, Oid class, Oid object)
{
	if (class != TriggerRelationId || !OidIsValid(prom_version_function()))
		return InvalidOid;
	if (access == OAT_POST_CREATE)
		return table_of_trigger(object, InvalidOid);
	return access == OAT_DROP
			   ? table_of_trigger(object, prom_version_function())
			   : InvalidOid;
}

/* Not a table's own, which is renamed with it, nor that of arrays. */
static bool
is_type_of_columns(Oid type)
{
	Oid relid = get_typ_typrelid(type);

	return !OidIsValid(get_element_type(type)) &&
		   (!OidIsValid(relid) ||
			get_rel_relkind(relid) == RELKIND_COMPOSITE_TYPE);
}

static Oid
file_of(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid file = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		file = ((Form_pg_class) GETSTRUCT(tuple))->relfilenode;
		ReleaseSysCache(tuple);
	}
	return file;
}

static bool
add_table(List **list, Oid relid)
{
	MemoryContext before;

	if (!OidIsValid(relid) || relid < FirstNormalObjectId ||
		list_member_oid(*list, relid))
		return false;
	before = MemoryContextSwitchTo(TopMemoryContext);
	*list = lappend_oid(*list, relid);
	MemoryContextSwitchTo(before);
	return true;
}

/* Columns are altered before the rows are written elsewhere. */
static void
note_altered(Oid relid)
{
	MemoryContext before;
	Oid file;

	if (!add_table(&current->tables, relid))
		return;
	file = file_of(relid);
	before = MemoryContextSwitchTo(TopMemoryContext);
	current->files = lappend_oid(current->files, file);
	MemoryContextSwitchTo(before);
}

static void
access_hook(ObjectAccessType access, Oid class, Oid object, int column,
			void *arg)
{
	if (previous_hook)
		previous_hook(access, class, object, column, arg);
	if (IsBootstrapProcessingMode() || !IsTransactionState())
		return;
	if (access == OAT_POST_ALTER &&
		(class == NamespaceRelationId ||
		 (class == TypeRelationId && is_type_of_columns(object))))
		current->types = true;
	note_altered(table_altered(access, class, object, column));
	(void) add_table(&current->bare, table_bared(access, class, object));
}

void
prom_alteration_init(void)
{
	previous_hook = object_access_hook;
	object_access_hook = access_hook;
}

void
prom_alteration_early(Oid relid, int32 number)
{
	for (PromAlteration *its = current; its != NULL; its = its->outer)
	{
		MemoryContext before;
		Early *early;

		if (!list_member_oid(its->tables, relid))
			continue;
		before = MemoryContextSwitchTo(TopMemoryContext);
		early = palloc(sizeof(Early));
		early->relid = relid;
		early->number = number;
		its->early = lappend(its->early, early);
		MemoryContextSwitchTo(before);
		return;
	}
}


/* What becomes of it. */

/* The values of an existing column are computed by an expression. */
static bool
is_computing(const AlterTableCmd *command)
{
	return prom_sets_expression(command->subtype) ||
		   (command->subtype == AT_AlterColumnType &&
			castNode(ColumnDef, command->def)->raw_default != NULL);
}

static List *
read_computed(const Node *statement)
{
	MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
	List *names = NIL;
	ListCell *cell;

	if (IsA(statement, AlterTableStmt))
		foreach(cell, ((const AlterTableStmt *) statement)->cmds)
		{
			const AlterTableCmd *command = lfirst_node(AlterTableCmd, cell);

			if (is_computing(command))
				names = lappend(names, pstrdup(command->name));
		}
	MemoryContextSwitchTo(before);
	return names;
}

static bool
is_computed(const PromAlteration *mine, const char *column)
{
	ListCell *cell;

	foreach(cell, mine->computed)
		if (strcmp(lfirst(cell), column) == 0)
			return true;
	return false;
}

static Form_pg_attribute
column_of(Relation relation, const PromLayout *layout, int i)
{
	return TupleDescAttr(RelationGetDescr(relation), layout->attnums[i] - 1);
}

/* Has a column that was there another type? */
static bool
is_retyped(const PromLayout *layout, const PromLayout *before)
{
	for (int i = 0; i < layout->n; i++)
	{
		int at = prom_layout_find(before, layout->columns[i]);

		if (at >= 0 && strcmp(before->types[at], layout->types[i]) != 0)
			return true;
	}
	return false;
}

/* Has it a column that rows did not have, with a value? */
static bool
is_filled(Relation relation, const PromLayout *layout,
		  const PromLayout *before)
{
	for (int i = 0; i < layout->n; i++)
	{
		Form_pg_attribute column = column_of(relation, layout, i);

		if (prom_layout_find(before, layout->columns[i]) < 0 &&
			(column->atthasdef || column->attidentity != '\0' ||
			 getBaseType(column->atttypid) != column->atttypid))
			return true;
	}
	return false;
}

/* A conversion that leaves values as they are writes no rows. */
static bool
is_rewritten(Relation relation, const PromLayout *layout,
			 const PromAlteration *mine)
{
	ListCell *table;
	ListCell *file;
	bool has_file = false;

	forboth(table, mine->tables, file, mine->files)
		has_file |= lfirst_oid(table) == RelationGetRelid(relation) &&
					lfirst_oid(file) == relation->rd_rel->relfilenode;
	for (int i = 0; !has_file && i < layout->n; i++)
		if (is_computed(mine, layout->names[i]))
			return true;
	return false;
}

/* What is generated of others keeps these from getting other values. */
static bool
changes_key(const PromLayout *layout, const PromAlteration *mine)
{
	for (int i = 0; i < layout->nkey; i++)
	{
		int at = prom_layout_find(layout, layout->key[i]);

		if (is_computed(mine, layout->names[at]))
			return true;
	}
	return false;
}

static void
refuse(Relation relation, const char *what)
{
	const char *name = quote_qualified_identifier(
		get_namespace_name(RelationGetNamespace(relation)),
		RelationGetRelationName(relation));

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot %s table %s, which is tracked by prometheus", what, name),
			 errhint("SELECT prometheus_track('%s', false) ends that; its versions until now stay.", name)));
}

/* What was known of the table when the statement began. */
static void
find_before(Relation relation, const pg_uuid_t *track_id,
			const PromAlteration *mine, PromLayout *before)
{
	ListCell *cell;

	foreach(cell, mine->early)
	{
		const Early *early = lfirst(cell);

		if (early->relid == RelationGetRelid(relation))
		{
			(void) prom_layout_read(track_id, early->number, before);
			return;
		}
	}
}

/* A type that was renamed is no other type. */
static void
keep_up(Relation relation, const PromAlteration *mine, bool is_renamed)
{
	pg_uuid_t track_id;
	PromLayout newest;
	PromLayout before;
	PromLayout layout;
	bool other_values;

	if (!prom_version_track_id(relation, &track_id) ||
		!prom_layout_read(&track_id, 0, &newest) ||
		strcmp(newest.event, "ended") == 0)
		return;
	prom_layout_of(relation, &layout);
	prom_layout_number(&layout, &newest, prom_layout_era());
	if (layout.era == newest.era && layout.relid != newest.relid)
		return;
	if (prom_version_is_disabled(relation))
	{
		prom_track_end(relation, &track_id, "its trigger was disabled");
		return;
	}
	/* A restore may make the triggers first: the key comes here, too. */
	if (layout.era != newest.era && layout.nkey == 0)
		return;
	before = newest;
	find_before(relation, &track_id, mine, &before);
	other_values = !is_renamed && (is_retyped(&layout, &before) ||
								   is_rewritten(relation, &layout, mine));
	if (!prom_layout_has_same_key(&layout, &before, !is_renamed) ||
		(other_values && changes_key(&layout, mine)))
		refuse(relation, "change the primary key of");
	if (relation->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT)
		refuse(relation, "make unlogged the");
	if (!prom_layout_is_same(&layout, &newest))
	{
		layout.event = "altered";
		prom_layout_add(&track_id, &layout);
	}
	if (other_values || (!is_renamed && is_filled(relation, &layout, &before)))
		prom_version_add_all(relation, prom_version_tracked(relation), "alter");
}

/* So that what was recorded is not taken for what is now, or kept for ever. */
static void
end_tracks(Oid relid, const char *reason)
{
	ListCell *cell;

	foreach(cell, prom_layout_tracks(relid))
	{
		PromLayout layout;

		if (!prom_layout_read(lfirst(cell), 0, &layout) ||
			strcmp(layout.event, "ended") == 0 || layout.relid != relid ||
			layout.era != prom_layout_era())
			continue;
		layout.number++;
		layout.event = "ended";
		layout.reason = pstrdup(reason);
		prom_layout_add(lfirst(cell), &layout);
	}
}

static void
keep_up_all(const List *relids, const PromAlteration *mine, bool is_renamed)
{
	ListCell *cell;

	foreach(cell, relids)
	{
		Relation relation = try_relation_open(lfirst_oid(cell),
											  AccessShareLock);

		if (relation == NULL)
		{
			end_tracks(lfirst_oid(cell), "the table was dropped");
			continue;
		}
		if (relation->rd_rel->relkind == RELKIND_RELATION)
			keep_up(relation, mine, is_renamed);
		relation_close(relation, AccessShareLock);
	}
}

/* Who began anew has both triggers again. */
static void
end_bared(const List *relids)
{
	ListCell *cell;

	foreach(cell, relids)
	{
		Relation relation = try_relation_open(lfirst_oid(cell),
											  AccessShareLock);

		if (relation == NULL)
			end_tracks(lfirst_oid(cell), "the table was dropped");
		else
		{
			if (!prom_version_is_whole(relation))
				end_tracks(lfirst_oid(cell), PROM_TRACK_BARED);
			relation_close(relation, AccessShareLock);
		}
	}
}

/* Every table with triggers of ours. */
static List *
find_all(void)
{
	static const char find_sql[] =
		"SELECT DISTINCT t.tgrelid FROM pg_catalog.pg_trigger t"
		" WHERE t.tgfoid OPERATOR(pg_catalog.=) $1";
	MemoryContext context = CurrentMemoryContext;
	Oid type = OIDOID;
	Datum value = ObjectIdGetDatum(prom_version_function());
	List *relids = NIL;

	SPI_connect();
	if (prom_execute_now(find_sql, 1, &type, &value, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read pg_trigger");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Oid relid = prom_row_oid(i, 1);
		MemoryContext before = MemoryContextSwitchTo(context);

		relids = lappend_oid(relids, relid);
		MemoryContextSwitchTo(before);
	}
	SPI_finish();
	return relids;
}


/* Around statements. */

void
prom_alteration_begin(PromAlteration *mine, const Node *statement)
{
	List *computed = read_computed(statement);

	/* From here on nothing may be raised: current is to be left again. */
	memset(mine, 0, sizeof(*mine));
	if (current == &outside)
	{
		*mine = outside;
		memset(&outside, 0, sizeof(outside));
	}
	mine->outer = current;
	current = mine;
	mine->computed = computed;
}

void
prom_alteration_record(PromAlteration *mine)
{
	if (mine->tables == NIL && mine->bare == NIL && !mine->types)
		return;
	if (!IsTransactionState() || !OidIsValid(prom_version_function()))
		return;
	CommandCounterIncrement();
	keep_up_all(mine->tables, mine, false);
	end_bared(mine->bare);
	if (mine->types)
		keep_up_all(find_all(), mine, true);
}

void
prom_alteration_end(PromAlteration *mine)
{
	current = mine->outer;
	list_free(mine->tables);
	list_free(mine->files);
	list_free(mine->bare);
	list_free_deep(mine->early);
	list_free_deep(mine->computed);
}
