/*
 * layout.c
 *	  Tells the columns of a tracked table, through whatever is done to it.
 *
 * A version of a row has the texts of its values in the order that the columns
 * had then.  Names change, and attribute numbers are others after a restore, so
 * each column has a number of our own for ever: a column of the same table and
 * era is known by its attribute number, one of a restored table by its name.
 * Whenever any of that changes, a row of prometheus._track says so, in the
 * transaction that changes it; so names in the newest one are always those of
 * the table.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/xid8.h"

#include "compat.h"
#include "era.h"
#include "fact.h"
#include "layout.h"
#include "role.h"
#include "xact.h"

static void
read_key(PromLayout *layout)
{
	Oid constraint;
	Bitmapset *key = get_primary_key_attnos(layout->relid, false, &constraint);

	layout->nkey = 0;
	layout->key = palloc(layout->n * sizeof(int32));
	for (int i = 0; i < layout->n; i++)
		if (bms_is_member(layout->attnums[i] -
							  FirstLowInvalidHeapAttributeNumber,
						  key))
			layout->key[layout->nkey++] = i;
}

void
prom_layout_of(Relation relation, PromLayout *layout)
{
	TupleDesc desc = RelationGetDescr(relation);

	memset(layout, 0, sizeof(*layout));
	layout->relid = RelationGetRelid(relation);
	layout->relation = quote_qualified_identifier(
		get_namespace_name(RelationGetNamespace(relation)),
		RelationGetRelationName(relation));
	layout->columns = palloc0(Max(desc->natts, 1) * sizeof(int32));
	layout->attnums = palloc(Max(desc->natts, 1) * sizeof(int32));
	layout->names = palloc(Max(desc->natts, 1) * sizeof(char *));
	layout->types = palloc(Max(desc->natts, 1) * sizeof(char *));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		int at = layout->n;

		if (column->attisdropped)
			continue;
		layout->attnums[at] = column->attnum;
		layout->names[at] = pstrdup(NameStr(column->attname));
		layout->types[at] =
			format_type_extended(column->atttypid, column->atttypmod,
								 FORMAT_TYPE_TYPEMOD_GIVEN |
									 FORMAT_TYPE_FORCE_QUALIFY);
		layout->n++;
	}
	read_key(layout);
}

int
prom_layout_find(const PromLayout *layout, int32 column)
{
	for (int i = 0; i < layout->n; i++)
		if (layout->columns[i] == column)
			return i;
	return -1;
}

/*
 * In another era a table with the same oid may be a restored one, whose
 * attribute numbers have no gaps any more, or of a physical copy.
 */
static bool
is_same_table(const PromLayout *layout, const PromLayout *before)
{
	if (layout->relid != before->relid)
		return false;
	if (layout->era == before->era)
		return true;
	if (layout->n != before->n)
		return false;
	for (int i = 0; i < layout->n; i++)
		if (layout->attnums[i] != before->attnums[i] ||
			strcmp(layout->types[i], before->types[i]) != 0)
			return false;
	return true;
}

static int32
number_before(const PromLayout *layout, int at, const PromLayout *before)
{
	bool is_same = is_same_table(layout, before);

	for (int i = 0; i < before->n; i++)
		if (is_same
				? before->attnums[i] == layout->attnums[at]
				: strcmp(before->names[i], layout->names[at]) == 0)
			return before->columns[i];
	return 0;
}

/* The key is in places until now, and in numbers from now on. */
void
prom_layout_number(PromLayout *layout, const PromLayout *before, int32 era)
{
	layout->era = era;
	layout->number = before == NULL ? 1 : before->number + 1;
	layout->last_column = before == NULL ? 0 : before->last_column;
	for (int i = 0; i < layout->n; i++)
	{
		int32 number = before == NULL ? 0 : number_before(layout, i, before);

		layout->columns[i] = number != 0 ? number : ++layout->last_column;
	}
	for (int i = 0; i < layout->nkey; i++)
		layout->key[i] = layout->columns[layout->key[i]];
}

bool
prom_layout_is_same(const PromLayout *a, const PromLayout *b)
{
	if (a->relid != b->relid || a->era != b->era || a->n != b->n ||
		strcmp(a->relation, b->relation) != 0)
		return false;
	for (int i = 0; i < a->n; i++)
		if (a->columns[i] != b->columns[i] || a->attnums[i] != b->attnums[i] ||
			strcmp(a->names[i], b->names[i]) != 0 ||
			strcmp(a->types[i], b->types[i]) != 0)
			return false;
	return prom_layout_has_same_key(a, b, true);
}

bool
prom_layout_has_same_key(const PromLayout *a, const PromLayout *b, bool types)
{
	if (a->nkey != b->nkey)
		return false;
	for (int i = 0; i < a->nkey; i++)
		if (a->key[i] != b->key[i] ||
			(types && strcmp(a->types[prom_layout_find(a, a->key[i])],
							 b->types[prom_layout_find(b, b->key[i])]) != 0))
			return false;
	return true;
}

int32
prom_layout_era(void)
{
	/* Who has written nothing may only be looking. */
	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return prom_era_look();
	return (int32) (U64FromFullTransactionId(prom_era_xid()) >>
					PROM_ERA_SHIFT);
}


/* Facts. */

static int32 *
read_ints(uint64 row, int column, int *n)
{
	bool isnull;
	ArrayType *array = DatumGetArrayTypeP(
		SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column,
					  &isnull));
	int32 *values;

	*n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	values = palloc(Max(*n, 1) * sizeof(int32));
	memcpy(values, ARR_DATA_PTR(array), *n * sizeof(int32));
	return values;
}

static char **
read_texts(uint64 row, int column)
{
	bool isnull;
	Datum array = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
								column, &isnull);
	Datum *elements;
	char **values;
	int n;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, NULL, &n);
	values = palloc(Max(n, 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
		values[i] = TextDatumGetCString(elements[i]);
	return values;
}

static void
read_row(PromLayout *layout)
{
	bool isnull;
	FullTransactionId xid = DatumGetFullTransactionId(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 4,
					  &isnull));

	memset(layout, 0, sizeof(*layout));
	layout->number = prom_row_int32(0, 1);
	layout->last_column = prom_row_int32(0, 2);
	layout->relid = prom_row_oid(0, 3);
	layout->era = (int32) (U64FromFullTransactionId(xid) >> PROM_ERA_SHIFT);
	layout->recorded_at = prom_row_time(0, 5);
	layout->event = prom_row_text(0, 6);
	layout->relation = prom_row_text(0, 7);
	layout->reason = prom_row_text_or_null(0, 8);
	layout->columns = read_ints(0, 9, &layout->n);
	layout->attnums = read_ints(0, 10, &layout->n);
	layout->names = read_texts(0, 11);
	layout->types = read_texts(0, 12);
	layout->key = read_ints(0, 13, &layout->nkey);
	layout->xid = xid;
}

bool
prom_layout_read(const pg_uuid_t *track_id, int32 number, PromLayout *layout)
{
	static const char read_sql[] =
		"SELECT layout, last_column, relation_oid, xid, recorded_at, event,"
		" relation, reason, columns, attnums, names, types, key"
		" FROM prometheus._track WHERE track_id OPERATOR(pg_catalog.=) $1"
		" AND ($2 OPERATOR(pg_catalog.=) 0"
		" OR layout OPERATOR(pg_catalog.=) $2)"
		" ORDER BY layout DESC LIMIT 1";
	MemoryContext context = CurrentMemoryContext;
	MemoryContext before;
	Oid types[2] = {UUIDOID, INT4OID};
	Datum values[2] = {UUIDPGetDatum(track_id), Int32GetDatum(number)};
	PromOwner owner;
	bool found;

	SPI_connect();
	prom_role_become_owner(&owner);
	if (prom_execute_now(read_sql, 2, types, values, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._track");
	found = SPI_processed > 0;
	before = MemoryContextSwitchTo(context);
	if (found)
		read_row(layout);
	MemoryContextSwitchTo(before);
	prom_role_restore(&owner);
	SPI_finish();
	return found;
}

List *
prom_layout_tracks(Oid relid)
{
	static const char find_sql[] =
		"SELECT DISTINCT track_id FROM prometheus._track"
		" WHERE relation_oid OPERATOR(pg_catalog.=) $1";
	MemoryContext context = CurrentMemoryContext;
	Oid type = OIDOID;
	Datum value = ObjectIdGetDatum(relid);
	PromOwner owner;
	List *tracks = NIL;

	SPI_connect();
	prom_role_become_owner(&owner);
	if (prom_execute_now(find_sql, 1, &type, &value, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._track");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool isnull;
		pg_uuid_t *track = MemoryContextAlloc(context, sizeof(pg_uuid_t));
		MemoryContext before = MemoryContextSwitchTo(context);

		*track = *DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[i],
											  SPI_tuptable->tupdesc, 1,
											  &isnull));
		tracks = lappend(tracks, track);
		MemoryContextSwitchTo(before);
	}
	prom_role_restore(&owner);
	SPI_finish();
	return tracks;
}

static Datum
int_array(const int32 *values, int n)
{
	Datum *elements = palloc(Max(n, 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		elements[i] = Int32GetDatum(values[i]);
	return PointerGetDatum(construct_array(elements, n, INT4OID, sizeof(int32),
										   true, TYPALIGN_INT));
}

static Datum
text_array(char **values, int n)
{
	Datum *elements = palloc(Max(n, 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		elements[i] = CStringGetTextDatum(values[i]);
	return PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

/*
 * Other sessions, and this one if it takes it back, look again at the table.
 */
void
prom_layout_add(const pg_uuid_t *track_id, const PromLayout *layout)
{
	PromFactWriter *writer = prom_fact_begin();
	Datum values[TRACK_COLUMNS];
	bool nulls[TRACK_COLUMNS] = {false};

	values[TRACK_ID] = UUIDPGetDatum(track_id);
	values[TRACK_LAYOUT] = Int32GetDatum(layout->number);
	values[TRACK_LAST_COLUMN] = Int32GetDatum(layout->last_column);
	values[TRACK_RELATION_OID] = ObjectIdGetDatum(layout->relid);
	values[TRACK_RECORDED_AT] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[TRACK_EVENT] = CStringGetTextDatum(layout->event);
	values[TRACK_RELATION] = CStringGetTextDatum(layout->relation);
	values[TRACK_REASON] = prom_fact_text(layout->reason,
										  &nulls[TRACK_REASON]);
	values[TRACK_COLUMN_IDS] = int_array(layout->columns, layout->n);
	values[TRACK_ATTNUMS] = int_array(layout->attnums, layout->n);
	values[TRACK_NAMES] = text_array(layout->names, layout->n);
	values[TRACK_TYPES] = text_array(layout->types, layout->n);
	values[TRACK_KEY] = int_array(layout->key, layout->nkey);
	prom_fact_add(writer, PROM_FACT_TRACK, values, nulls);
	if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(layout->relid)))
		CacheInvalidateRelcacheByRelid(layout->relid);
	prom_fact_end(writer);
}
