/*
 * history.c
 *	  The rows of a tracked table as they were at a moment.
 *
 * Of each key the newest version counts that the moment sees (moment.c); a key
 * without one had no row.  They are read by the index, from the newest one
 * back, without SQL and so without privileges; what they say is for who may
 * read the table itself, all of its columns and all of its rows.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"
#include "utils/xid8.h"

#include "compat.h"
#include "era.h"
#include "fact.h"
#include "history.h"
#include "moment.h"
#include "version.h"

/* Versions of a key that are passed over before the next key is looked for. */
#define PASSED 16

/* Rows between two looks at the memory that they took. */
#define ROWS 1000

/* Where the fields of a layout are in the columns of now; -1: nowhere. */
typedef struct Map
{
	int32 layout;
	int n;
	int *places;
	bool *retyped; /* by column of then */
} Map;

/* How the values of a column are read. */
typedef struct Input
{
	FmgrInfo function; /* of the type without its domain's constraints */
	Oid parameter;
	int32 typmod;
	Oid type;
} Input;

void
prom_history_check_access(Relation relation)
{
	Oid relid = RelationGetRelid(relation);
	const char *name = RelationGetRelationName(relation);

	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(relid, GetUserId(), ACL_SELECT,
								  ACLMASK_ALL) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, name);
	if (check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for the history of table \"%s\"", name),
				 errdetail("Row security is in force for you, which knows only the rows of now.")));
}


/* Fields. */

static void
find_inputs(PromHistory *history)
{
	Input *inputs = palloc0(Max(history->now.n, 1) * sizeof(Input));

	for (int i = 0; i < history->now.n; i++)
	{
		Form_pg_attribute column =
			TupleDescAttr(RelationGetDescr(history->relation),
						  history->now.attnums[i] - 1);
		Oid function;
		Oid base;

		inputs[i].type = column->atttypid;
		inputs[i].typmod = column->atttypmod;
		base = getBaseTypeAndTypmod(column->atttypid, &inputs[i].typmod);
		getTypeInputInfo(base, &function, &inputs[i].parameter);
		fmgr_info(function, &inputs[i].function);
	}
	history->inputs = inputs;
}

bool
prom_history_open(Relation relation, const pg_uuid_t *track_id,
				  PromHistory *history)
{
	PromEra era;

	memset(history, 0, sizeof(*history));
	history->relation = relation;
	history->track_id = *track_id;
	if (!prom_layout_read(track_id, 0, &history->newest))
		return false;
	prom_era_read(&era);
	prom_layout_of(relation, &history->now);
	prom_layout_number(&history->now, &history->newest,
					   era.is_ours ? era.era : 0);
	if (history->now.era == history->newest.era &&
		history->now.relid != history->newest.relid)
		return false;
	find_inputs(history);
	return true;
}

static const Map *
find_map(PromHistory *history, int32 layout)
{
	PromLayout then;
	ListCell *cell;
	Map *map;

	foreach(cell, history->maps)
	{
		map = lfirst(cell);
		if (map->layout == layout)
			return map;
	}
	if (!prom_layout_read(&history->track_id, layout, &then))
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("prometheus._track has no layout %d of table %s",
							   layout, history->newest.relation)));
	map = palloc(sizeof(Map));
	map->layout = layout;
	map->n = then.n;
	map->places = palloc(Max(then.n, 1) * sizeof(int));
	map->retyped = palloc(Max(then.n, 1) * sizeof(bool));
	for (int i = 0; i < then.n; i++)
	{
		int place = prom_layout_find(&history->now, then.columns[i]);

		map->places[i] = place;
		map->retyped[i] = place >= 0 && strcmp(then.types[i],
											   history->now.types[place]) != 0;
	}
	history->maps = lappend(history->maps, map);
	return map;
}

void
prom_history_fields(PromHistory *history, int32 layout, Datum array,
					PromFields *fields)
{
	const Map *map = find_map(history, layout);
	Datum *elements;
	bool *nulls;
	int n;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, &nulls, &n);
	fields->values = palloc0(Max(history->now.n, 1) * sizeof(char *));
	fields->known = palloc0(Max(history->now.n, 1) * sizeof(bool));
	fields->retyped = palloc0(Max(history->now.n, 1) * sizeof(bool));
	for (int i = 0; i < Min(n, map->n); i++)
	{
		int place = map->places[i];

		if (place < 0)
			continue;
		fields->known[place] = true;
		fields->retyped[place] = map->retyped[i];
		if (!nulls[i])
			fields->values[place] = TextDatumGetCString(elements[i]);
	}
}

/* What could not be converted. */
typedef struct Conversion
{
	const char *column;
	const char *relation;
} Conversion;

static void
tell_conversion(void *arg)
{
	const Conversion *conversion = arg;

	errcontext("column \"%s\" of an earlier row of table %s",
			   conversion->column, conversion->relation);
}

Datum
prom_history_value(PromHistory *history, int column, char *text, bool checked)
{
	Input *input = &((Input *) history->inputs)[column];
	Conversion conversion = {history->now.names[column],
							 history->now.relation};
	ErrorContextCallback callback = {error_context_stack, tell_conversion,
									 &conversion};
	Datum value;

	error_context_stack = &callback;
	value = InputFunctionCall(&input->function, text, input->parameter,
							  input->typmod);
	if (checked && input->type != getBaseType(input->type))
		domain_check(value, text == NULL, input->type, NULL, NULL);
	error_context_stack = callback.previous;
	return value;
}


/* Rows as of a moment. */

/* The key of one row, by the columns of the primary key in their order. */
typedef struct Key
{
	text *text;    /* as the versions have it, if its values have these texts */
	bool is_exact; /* equal values always have the same text */
	int n;
	int columns[INDEX_MAX_KEYS]; /* of now */
	Datum values[INDEX_MAX_KEYS];
	FmgrInfo *equal[INDEX_MAX_KEYS];
	Oid collations[INDEX_MAX_KEYS];
} Key;

typedef struct Answer
{
	PromHistory history;
	const PromMoment *moment;
	ReturnSetInfo *result;
	MemoryContext rows; /* reset now and then */
	MemoryContext keys;
	Relation versions;
	Relation index;
	text *key;         /* whose versions are read; NULL: none yet */
	bool is_found;     /* the one that the moment shows is known */
	int passed;        /* versions of it since */
	const Key *wanted; /* whose row is looked for among all; NULL: any */
	uint64 found;      /* rows */
} Answer;

/* Was the table recorded at the moment? */
static bool
is_covered(const PromHistory *history, const PromMoment *moment)
{
	PromLayout first;

	return prom_layout_read(&history->track_id, 1, &first) &&
		   prom_moment_sees(moment, first.xid) &&
		   !(strcmp(history->newest.event, "ended") == 0 &&
			 prom_moment_sees(moment, history->newest.xid));
}

/* Why there is no answer. */
static pg_noreturn void
refuse(Relation relation, const PromHistory *history, bool is_tracked)
{
	const char *name = RelationGetRelationName(relation);
	PromLayout first;

	if (!is_tracked)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not tracked", name),
				 errhint("SELECT prometheus_track('%s') begins that.",
						 quote_qualified_identifier(
							 get_namespace_name(RelationGetNamespace(relation)),
							 name))));
	if (!prom_layout_read(&history->track_id, 1, &first))
		first.recorded_at = 0;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" was not tracked at that moment", name),
			 strcmp(history->newest.event, "ended") == 0
				 ? errdetail("Tracking began at %s and ended at %s: %s.",
							 pstrdup(timestamptz_to_str(first.recorded_at)),
							 timestamptz_to_str(history->newest.recorded_at),
							 history->newest.reason)
				 : errdetail("Tracking began at %s.",
							 timestamptz_to_str(first.recorded_at))));
}

static void
find_history(Relation relation, Answer *answer)
{
	PromHistory history;
	pg_uuid_t track_id;
	ListCell *cell;
	bool is_tracked = prom_version_track_id(relation, &track_id) &&
					  prom_history_open(relation, &track_id, &history);

	if (is_tracked && is_covered(&history, answer->moment))
	{
		answer->history = history;
		return;
	}
	foreach(cell, prom_layout_tracks(RelationGetRelid(relation)))
	{
		if (prom_history_open(relation, lfirst(cell), &answer->history) &&
			answer->history.now.era == answer->history.newest.era &&
			is_covered(&answer->history, answer->moment))
			return;
	}
	refuse(relation, &history, is_tracked);
}

/* Has a row the key, whatever its texts? */
static bool
has_key(PromHistory *history, const PromFields *fields, const Key *key)
{
	for (int i = 0; i < key->n; i++)
	{
		char *text = fields->values[key->columns[i]];
		Datum value;

		if (text == NULL)
			return false;
		value = prom_history_value(history, key->columns[i], text, false);
		if (!DatumGetBool(FunctionCall2Coll(key->equal[i], key->collations[i],
											value, key->values[i])))
			return false;
	}
	return true;
}

static void
put_row(Answer *answer, int32 layout, Datum array)
{
	TupleDesc desc = answer->result->setDesc;
	PromHistory *history = &answer->history;
	Datum *values = palloc0(desc->natts * sizeof(Datum));
	bool *nulls = palloc(desc->natts * sizeof(bool));
	PromFields fields;
	MemoryContext before;

	before = MemoryContextSwitchTo(
		GetMemoryChunkContext(answer->history.inputs));
	(void) find_map(history, layout);
	MemoryContextSwitchTo(before);
	prom_history_fields(history, layout, array, &fields);
	if (answer->wanted != NULL && !has_key(history, &fields, answer->wanted))
		return;
	memset(nulls, true, desc->natts * sizeof(bool));
	for (int i = 0; i < history->now.n; i++)
	{
		int at = history->now.attnums[i] - 1;

		if (fields.values[i] == NULL)
			continue;
		values[at] = prom_history_value(history, i, fields.values[i], false);
		nulls[at] = false;
	}
	tuplestore_putvalues(answer->result->setResult, desc, values, nulls);
	answer->found++;
}

static Datum
value_of(Answer *answer, HeapTuple tuple, const char *column, bool *isnull)
{
	Relation versions = answer->versions;

	return heap_getattr(tuple, get_attnum(RelationGetRelid(versions), column),
						RelationGetDescr(versions), isnull);
}

static void
take_key(Answer *answer, text *key)
{
	if (answer->key != NULL &&
		VARSIZE_ANY_EXHDR(key) == VARSIZE_ANY_EXHDR(answer->key) &&
		memcmp(VARDATA_ANY(key), VARDATA_ANY(answer->key),
			   VARSIZE_ANY_EXHDR(key)) == 0)
		return;
	MemoryContextReset(answer->keys);
	answer->key = MemoryContextAlloc(answer->keys, VARSIZE_ANY(key));
	memcpy(answer->key, key, VARSIZE_ANY(key));
	answer->is_found = false;
	answer->passed = 0;
}

/* Versions of a key come one after the other, the newest first. */
static void
take_version(Answer *answer, HeapTuple tuple)
{
	bool isnull;
	Datum fields;

	take_key(answer, DatumGetTextPP(value_of(answer, tuple, "key", &isnull)));
	if (answer->is_found)
	{
		answer->passed++;
		return;
	}
	if (!prom_moment_sees(answer->moment,
						  DatumGetFullTransactionId(
							  value_of(answer, tuple, "xid", &isnull))))
		return;
	answer->is_found = true;
	fields = value_of(answer, tuple, "fields", &isnull);
	if (!isnull)
		put_row(answer,
				DatumGetInt32(value_of(answer, tuple, "layout", &isnull)),
				fields);
}

/* From the newest version of the key, or of the last before it, backwards. */
static SysScanDesc
begin_scan(Answer *answer, text *key, StrategyNumber strategy)
{
	Oid relid = RelationGetRelid(answer->versions);
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], get_attnum(relid, "track_id"),
				BTEqualStrategyNumber, F_UUID_EQ,
				UUIDPGetDatum(&answer->history.track_id));
	if (key != NULL)
		ScanKeyInit(&keys[1], get_attnum(relid, "key"), strategy,
					strategy == BTEqualStrategyNumber ? F_TEXTEQ : F_TEXT_LT,
					PointerGetDatum(key));
	return systable_beginscan_ordered(answer->versions, answer->index,
									  GetActiveSnapshot(),
									  key == NULL ? 1 : 2, keys);
}

/*
 * Of the key, or of all.  Where a key has many versions the scan is begun anew
 * at the next one.
 */
static void
read_versions(Answer *answer, text *key)
{
	SysScanDesc scan = begin_scan(answer, key, BTEqualStrategyNumber);
	text *bound = NULL;
	HeapTuple tuple;
	int n = 0;

	while (HeapTupleIsValid(
		tuple = systable_getnext_ordered(scan, BackwardScanDirection)))
	{
		MemoryContext before = MemoryContextSwitchTo(answer->rows);

		CHECK_FOR_INTERRUPTS();
		take_version(answer, tuple);
		MemoryContextSwitchTo(before);
		if (++n % ROWS == 0)
			MemoryContextReset(answer->rows);
		if (answer->is_found && key != NULL)
			break;
		if (answer->passed == PASSED)
		{
			text *next = palloc(VARSIZE_ANY(answer->key));

			/* The scan looks at its bound on every page. */
			memcpy(next, answer->key, VARSIZE_ANY(answer->key));
			systable_endscan_ordered(scan);
			if (bound != NULL)
				pfree(bound);
			bound = next;
			scan = begin_scan(answer, bound, BTLessStrategyNumber);
			answer->passed = 0;
		}
	}
	systable_endscan_ordered(scan);
}

static void
read_rows(Answer *answer, text *key)
{
	int nest_level = prom_version_texts_begin();

	answer->rows = AllocSetContextCreate(CurrentMemoryContext,
										 "prometheus rows",
										 ALLOCSET_DEFAULT_SIZES);
	answer->keys = AllocSetContextCreate(CurrentMemoryContext,
										 "prometheus key",
										 ALLOCSET_SMALL_SIZES);
	answer->versions = table_open(prom_fact_require(PROM_FACT_ROW_VERSION,
													NULL),
								  AccessShareLock);
	answer->index = index_open(prom_primary_key_index(answer->versions),
							   AccessShareLock);
	read_versions(answer, key);
	index_close(answer->index, AccessShareLock);
	table_close(answer->versions, AccessShareLock);
	MemoryContextDelete(answer->rows);
	MemoryContextDelete(answer->keys);
	prom_version_texts_end(nest_level);
}


/* The row of one key. */

static pg_noreturn void
refuse_key(const PromHistory *history)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < history->newest.nkey; i++)
		appendStringInfo(&names, "%s%s", i == 0 ? "" : ", ",
						 history->newest.names[prom_layout_find(
							 &history->newest, history->newest.key[i])]);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("key must be an object with the primary key of table %s",
					history->now.relation),
			 errdetail("Its columns are: %s.", names.data)));
}

static char *
read_scalar(const PromHistory *history, const JsonbValue *value)
{
	if (value == NULL)
		refuse_key(history);
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return OidOutputFunctionCall(F_NUMERIC_OUT,
										 NumericGetDatum(value->val.numeric));
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		default:
			refuse_key(history);
	}
}

/* numeric without a scale, citext, float8: 1 and 1.0 are equal. */
static bool
has_one_text(Form_pg_attribute column, const TypeCacheEntry *type)
{
	int32 typmod = column->atttypmod;
	Oid function;

	if (getBaseTypeAndTypmod(column->atttypid, &typmod) == NUMERICOID)
		return typmod >= (int32) VARHDRSZ;
	function = get_opfamily_proc(type->btree_opf, type->btree_opintype,
								 type->btree_opintype, BTEQUALIMAGE_PROC);
	return OidIsValid(function) &&
		   DatumGetBool(OidFunctionCall1Coll(
			   function, column->attcollation,
			   ObjectIdGetDatum(type->btree_opintype)));
}

static void
add_value(Key *key, Form_pg_attribute column, int place, Datum value)
{
	TypeCacheEntry *type = lookup_type_cache(column->atttypid,
											 TYPECACHE_EQ_OPR_FINFO |
												 TYPECACHE_BTREE_OPFAMILY);

	key->columns[key->n] = place;
	key->values[key->n] = value;
	key->equal[key->n] = &type->eq_opr_finfo;
	key->collations[key->n] = column->attcollation;
	key->is_exact &= has_one_text(column, type);
	key->n++;
}

/* Read as the caller writes it. */
static void
read_key(const PromHistory *history, Jsonb *json, Key *key)
{
	const PromLayout *newest = &history->newest;
	char *texts[INDEX_MAX_KEYS];

	key->n = 0;
	key->is_exact = true;

	if (!JB_ROOT_IS_OBJECT(json) || JB_ROOT_COUNT(json) != newest->nkey)
		refuse_key(history);
	for (int i = 0; i < newest->nkey; i++)
	{
		int column = prom_layout_find(&history->now, newest->key[i]);
		char *name;
		char *value;
		Form_pg_attribute attribute;
		Oid function;
		Oid parameter;
		bool is_varlena;
		Datum datum;
		int nest_level;

		if (column < 0)
			refuse_key(history);
		name = history->now.names[column];
		value = read_scalar(history,
							getKeyJsonValueFromContainer(&json->root, name,
														 strlen(name), NULL));
		attribute = TupleDescAttr(RelationGetDescr(history->relation),
								  history->now.attnums[column] - 1);
		getTypeInputInfo(attribute->atttypid, &function, &parameter);
		datum = OidInputFunctionCall(function, value, parameter,
									 attribute->atttypmod);
		getTypeOutputInfo(attribute->atttypid, &function, &is_varlena);
		nest_level = prom_version_texts_begin();
		texts[i] = OidOutputFunctionCall(function, datum);
		prom_version_texts_end(nest_level);
		add_value(key, attribute, column, datum);
	}
	key->text = cstring_to_text(prom_version_key(texts, newest->nkey));
}

/* A row of an equal key that has another text is looked for among all. */
static void
read_row(Answer *answer, Jsonb *json)
{
	Key key;

	read_key(&answer->history, json, &key);
	read_rows(answer, key.text);
	if (answer->found > 0 || key.is_exact)
		return;
	answer->wanted = &key;
	answer->key = NULL;
	read_rows(answer, NULL);
	answer->wanted = NULL;
}

/* The table whose rows an argument's type describes. */
static Relation
open_table(Oid type)
{
	Oid relid = OidIsValid(type) ? get_typ_typrelid(type) : InvalidOid;
	Relation relation;

	if (!OidIsValid(relid) || (get_rel_relkind(relid) != RELKIND_RELATION &&
							   get_rel_relkind(relid) !=
								   RELKIND_PARTITIONED_TABLE))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("the first argument must be of the row type of a table"),
				 errhint("SELECT * FROM prometheus_rows_at(NULL::my_table, now() - interval '1 hour').")));
	relation = table_open(relid, AccessShareLock);
	prom_history_check_access(relation);
	if (relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is a partitioned table",
						RelationGetRelationName(relation)),
				 errhint("Ask for its partitions, which have the rows and are tracked each for itself.")));
	return relation;
}

PG_FUNCTION_INFO_V1(prom_rows_at);

Datum
prom_rows_at(PG_FUNCTION_ARGS)
{
	Answer answer = {0};
	Relation relation;

	if (PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("moment must not be null")));
	if (PG_NARGS() > 2 && PG_ARGISNULL(2))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("key must not be null")));
	relation = open_table(get_fn_expr_argtype(fcinfo->flinfo, 0));
	answer.result = (ReturnSetInfo *) fcinfo->resultinfo;
	InitMaterializedSRF(fcinfo, 0);
	answer.moment = prom_moment_at(PG_GETARG_TIMESTAMPTZ(1));
	find_history(relation, &answer);
	if (PG_NARGS() > 2)
		read_row(&answer, PG_GETARG_JSONB_P(2));
	else
		read_rows(&answer, NULL);
	table_close(relation, AccessShareLock);
	return (Datum) 0;
}
