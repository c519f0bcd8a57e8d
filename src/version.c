/*
 * version.c
 *	  Records the versions of the rows of tracked tables.
 *
 * The trigger runs in anybody's session, as whoever changes the row.  It runs
 * no SQL and calls nothing but the output functions of the columns' types,
 * which only superusers can make; the version goes into prometheus' table by
 * fact.c, which asks for no privilege.  So there is nothing that somebody could
 * have done with our rights, and it works where SQL is restricted.
 *
 * Versions of one key are in the order of their ids, since an id is taken while
 * the row is locked.  Within one statement, or a trigger of a row, that order
 * could be wrong: a row that was changed again by the same transaction has its
 * later version, so the earlier one is left out; one that was deleted and is
 * there again has that version, so its end is left out; and our trigger comes
 * before most of others by its name.
 *
 * A value is kept as its text, by the output function, under fixed settings:
 * that is exact for every type (numeric, infinity, arrays, bytea), survives
 * restores, and can be read after the column has got another type.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "alteration.h"
#include "compat.h"
#include "version.h"

/* A longer key is kept as its hash: an index entry has a limit. */
#define MAX_KEY 1000

/* Rows of a table that are read before their versions are written. */
#define ROWS 1000

/* What texts of values depend on. */
static const char *const settings[][2] = {
	{"DateStyle", "ISO, YMD"},
	{"IntervalStyle", "postgres"},
	{"TimeZone", "UTC"},
	{"extra_float_digits", "1"},
	{"bytea_output", "hex"},
	{"lc_monetary", "C"},
	{"search_path", "pg_catalog, pg_temp"},
};

static HTAB *tracked_tables = NULL;
static int64 current_task = 0;
static int32 current_step = 0;
static int64 undone_task = 0;

/* The last command of a transaction whose changes were recorded. */
static TransactionId last_xid = InvalidTransactionId;
static CommandId last_command = 0;

void
prom_version_set_task(int64 task_id, int32 step)
{
	current_task = task_id;
	current_step = step;
}

int64
prom_version_task(void)
{
	return current_task;
}

void
prom_version_set_undone(int64 task_id)
{
	undone_task = task_id;
}


/* Texts. */

int
prom_version_texts_begin(void)
{
	int nest_level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(settings); i++)
	{
		const char *now = GetConfigOption(settings[i][0], false, false);

		if (now == NULL || strcmp(now, settings[i][1]) != 0)
			(void) set_config_option(settings[i][0], settings[i][1],
									 PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
	}
	return nest_level;
}

void
prom_version_texts_end(int nest_level)
{
	AtEOXact_GUC(true, nest_level);
}

/* Has a value the same text under whatever settings? */
static bool
is_plain(Oid type)
{
	Oid element;

	type = getBaseType(type);
	element = get_element_type(type);
	if (OidIsValid(element))
		return is_plain(element);
	switch (type)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case NAMEOID:
		case UUIDOID:
		case JSONOID:
		case JSONBOID:
		case INETOID:
		case CIDROID:
			return true;
		default:
			return get_typtype(type) == TYPTYPE_ENUM;
	}
}

/* One column's text, or an array of them all; no two keys have the same. */
char *
prom_version_key(char **texts, int n)
{
	Datum *elements;
	ArrayType *array;
	char *text;
	char hash[2 * 32 + 1];
	bytea *digest;

	if (n == 1)
		text = texts[0];
	else
	{
		elements = palloc(n * sizeof(Datum));
		for (int i = 0; i < n; i++)
			elements[i] = CStringGetTextDatum(texts[i]);
		array = construct_array(elements, n, TEXTOID, -1, false,
								TYPALIGN_INT);
		text = OidOutputFunctionCall(F_ARRAY_OUT, PointerGetDatum(array));
	}
	if (strlen(text) <= MAX_KEY)
		return text;
	digest = DatumGetByteaPP(
		DirectFunctionCall1(sha256_bytea, CStringGetTextDatum(text)));
	hash[hex_encode(VARDATA_ANY(digest), VARSIZE_ANY_EXHDR(digest), hash)] =
		'\0';
	return psprintf("sha256:%s", hash);
}

void
prom_version_texts(PromTracked *tracked, HeapTuple tuple, TupleDesc desc,
				   bool only_key, PromRowText *row)
{
	const PromLayout *layout = &tracked->layout;
	Datum *values = palloc(desc->natts * sizeof(Datum));
	bool *nulls = palloc(desc->natts * sizeof(bool));
	char *key[INDEX_MAX_KEYS];
	int nest_level = tracked->has_settings ? prom_version_texts_begin() : 0;

	heap_deform_tuple(tuple, desc, values, nulls);
	row->values = palloc0(Max(layout->n, 1) * sizeof(char *));
	for (int i = 0; i < (only_key ? layout->nkey : layout->n); i++)
	{
		int column = only_key ? tracked->key[i] : i;
		int at = layout->attnums[column] - 1;

		if (!nulls[at])
			row->values[column] = OutputFunctionCall(&tracked->outputs[column],
													 values[at]);
	}
	for (int i = 0; i < layout->nkey; i++)
		key[i] = row->values[tracked->key[i]];
	row->key = prom_version_key(key, layout->nkey);
	if (only_key)
		row->values = NULL;
	if (tracked->has_settings)
		prom_version_texts_end(nest_level);
}


/* What is known of tables. */

static void
relation_changed(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS scan;
	PromTracked *tracked;

	if (tracked_tables == NULL)
		return;
	if (OidIsValid(relid))
	{
		tracked = hash_search(tracked_tables, &relid, HASH_FIND, NULL);
		if (tracked != NULL)
			tracked->valid = false;
		return;
	}
	hash_seq_init(&scan, tracked_tables);
	while ((tracked = hash_seq_search(&scan)) != NULL)
		tracked->valid = false;
}

void
prom_version_init(void)
{
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
}

static PromTracked *
find_entry(Oid relid)
{
	HASHCTL control = {.keysize = sizeof(Oid),
					   .entrysize = sizeof(PromTracked)};
	PromTracked *tracked;
	bool found;

	if (tracked_tables == NULL)
		tracked_tables = hash_create("prometheus tracked tables", 32, &control,
									 HASH_ELEM | HASH_BLOBS);
	tracked = hash_search(tracked_tables, &relid, HASH_ENTER, &found);
	if (!found)
	{
		tracked->valid = false;
		tracked->context = NULL;
	}
	return tracked;
}

/* Whoever asks: users may not look into our schema. */
Oid
prom_version_function(void)
{
	Oid namespace = get_namespace_oid("prometheus", true);

	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum("_row_changed"),
						   PointerGetDatum(buildoidvector(NULL, 0)),
						   ObjectIdGetDatum(namespace));
}

/* Ours, by their function: names can be changed. */
static const Trigger *
find_trigger(Relation relation, Oid function, uint16 event)
{
	TriggerDesc *triggers = relation->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (triggers->triggers[i].tgfoid == function &&
			triggers->triggers[i].tgtype & event)
			return &triggers->triggers[i];
	return NULL;
}

static void
read_track_id(const Trigger *trigger, pg_uuid_t *track_id)
{
	if (trigger->tgnargs != 1)
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("trigger \"%s\" has not one argument",
							   trigger->tgname)));
	*track_id = *DatumGetUUIDP(
		DirectFunctionCall1(uuid_in, CStringGetDatum(trigger->tgargs[0])));
}

bool
prom_version_track_id(Relation relation, pg_uuid_t *track_id)
{
	Oid function = prom_version_function();
	const Trigger *trigger = find_trigger(relation, function,
										  TRIGGER_TYPE_INSERT);

	if (trigger == NULL)
		trigger = find_trigger(relation, function, TRIGGER_TYPE_TRUNCATE);
	if (!OidIsValid(function) || trigger == NULL)
		return false;
	read_track_id(trigger, track_id);
	return true;
}

bool
prom_version_is_whole(Relation relation)
{
	Oid function = prom_version_function();
	const Trigger *row = find_trigger(relation, function, TRIGGER_TYPE_INSERT);
	const Trigger *truncate = find_trigger(relation, function,
										   TRIGGER_TYPE_TRUNCATE);

	return row != NULL && row->tgenabled == TRIGGER_FIRES_ALWAYS &&
		   truncate != NULL && truncate->tgenabled == TRIGGER_FIRES_ALWAYS;
}

bool
prom_version_is_disabled(Relation relation)
{
	Oid function = prom_version_function();
	TriggerDesc *triggers = relation->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (triggers->triggers[i].tgfoid == function &&
			triggers->triggers[i].tgenabled != TRIGGER_FIRES_ALWAYS)
			return true;
	return false;
}

/*
 * After a restore the table is another one, in another era: then its layout is
 * recorded anew.  Another one of the same era came some other way, out of a
 * dump of one table; what it has was not recorded.
 */
static bool
find_layout(Relation relation, const pg_uuid_t *track_id, PromLayout *layout)
{
	PromLayout newest;

	if (!prom_layout_read(track_id, 0, &newest) ||
		strcmp(newest.event, "ended") == 0)
		return false;
	prom_layout_of(relation, layout);
	prom_layout_number(layout, &newest, prom_layout_era());
	if (newest.era == layout->era && newest.relid != layout->relid)
		return false;
	if (!prom_layout_has_same_key(layout, &newest, false))
		return false;
	if (prom_layout_is_same(layout, &newest))
		*layout = newest;
	return true;
}

static void
fill(PromTracked *tracked, Relation relation)
{
	PromLayout *layout = &tracked->layout;
	Oid facts = prom_fact_relation(PROM_FACT_TRACK);

	tracked->records = find_layout(relation, &tracked->track_id, layout);
	if (!tracked->records)
		return;
	if (layout->recorded_at == 0)
	{
		/* One session records it; the others find that. */
		LockDatabaseObject(facts, tracked->relid, 0, ShareUpdateExclusiveLock);
		(void) find_layout(relation, &tracked->track_id, layout);
		layout->event = "altered";
		if (layout->recorded_at == 0)
		{
			prom_alteration_early(tracked->relid, layout->number - 1);
			prom_layout_add(&tracked->track_id, layout);
		}
	}
	tracked->outputs = palloc0(Max(layout->n, 1) * sizeof(FmgrInfo));
	tracked->has_settings = false;
	for (int i = 0; i < layout->n; i++)
	{
		Oid type = TupleDescAttr(RelationGetDescr(relation),
								 layout->attnums[i] - 1)
					   ->atttypid;
		Oid output;
		bool is_varlena;

		getTypeOutputInfo(type, &output, &is_varlena);
		fmgr_info_cxt(output, &tracked->outputs[i], tracked->context);
		tracked->has_settings |= !is_plain(type);
	}
	tracked->key = palloc(Max(layout->nkey, 1) * sizeof(int));
	for (int i = 0; i < layout->nkey; i++)
		tracked->key[i] = prom_layout_find(layout, layout->key[i]);
}

PromTracked *
prom_version_tracked(Relation relation)
{
	PromTracked *tracked = find_entry(RelationGetRelid(relation));
	MemoryContext before;

	if (tracked->valid &&
		(!tracked->records || tracked->layout.era == prom_layout_era()))
		return tracked;
	if (tracked->context == NULL)
		tracked->context = AllocSetContextCreate(CacheMemoryContext,
												 "prometheus tracked table",
												 ALLOCSET_SMALL_SIZES);
	MemoryContextReset(tracked->context);
	before = MemoryContextSwitchTo(tracked->context);

	/* What makes it wrong meanwhile, makes it false. */
	tracked->valid = true;
	tracked->records = false;
	if (prom_version_track_id(relation, &tracked->track_id))
	{
		tracked->valid = false;
		fill(tracked, relation);
		tracked->valid = true;
	}
	MemoryContextSwitchTo(before);
	return tracked;
}


/* Versions. */

static Datum
fields_of(const PromTracked *tracked, const PromRowText *row)
{
	int n = tracked->layout.n;
	int lower = 1;
	Datum *texts = palloc(Max(n, 1) * sizeof(Datum));
	bool *nulls = palloc(Max(n, 1) * sizeof(bool));

	for (int i = 0; i < n; i++)
		texts[i] = prom_fact_text(row->values[i], &nulls[i]);
	return PointerGetDatum(construct_md_array(texts, nulls, 1, &n, &lower,
											  TEXTOID, -1, false,
											  TYPALIGN_INT));
}

void
prom_version_add(PromFactWriter *writer, PromTracked *tracked,
				 const char *operation, const PromRowText *row)
{
	Datum values[ROW_VERSION_COLUMNS];
	bool nulls[ROW_VERSION_COLUMNS] = {false};

	values[ROW_VERSION_TRACK_ID] = UUIDPGetDatum(&tracked->track_id);
	values[ROW_VERSION_ID] = Int64GetDatum(prom_fact_next_row_version());
	values[ROW_VERSION_CHANGED_AT] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[ROW_VERSION_TASK_ID] = Int64GetDatum(current_task);
	nulls[ROW_VERSION_TASK_ID] = current_task == 0;
	values[ROW_VERSION_UNDOES] = Int64GetDatum(undone_task);
	nulls[ROW_VERSION_UNDOES] = undone_task == 0;
	values[ROW_VERSION_STEP] = Int32GetDatum(current_step);
	nulls[ROW_VERSION_STEP] = current_task == 0;
	values[ROW_VERSION_LAYOUT] = Int32GetDatum(tracked->layout.number);
	values[ROW_VERSION_OPERATION] = CStringGetTextDatum(operation);
	values[ROW_VERSION_KEY] = CStringGetTextDatum(row->key);
	nulls[ROW_VERSION_FIELDS] = row->values == NULL;
	values[ROW_VERSION_FIELDS] = row->values == NULL ? (Datum) 0
													 : fields_of(tracked, row);
	prom_fact_add(writer, PROM_FACT_ROW_VERSION, values, nulls);
}

void
prom_version_add_all(Relation relation, PromTracked *tracked,
					 const char *operation)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	MemoryContext rows = AllocSetContextCreate(CurrentMemoryContext,
											   "prometheus rows",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext before = CurrentMemoryContext;
	PromFactWriter *writer = prom_fact_begin();
	bool is_end = strcmp(operation, "delete") == 0;
	int n = 0;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		PromRowText row;
		bool should_free;
		HeapTuple tuple;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(rows);
		tuple = ExecFetchSlotHeapTuple(slot, false, &should_free);
		prom_version_texts(tracked, tuple, RelationGetDescr(relation), is_end,
						   &row);
		prom_version_add(writer, tracked, operation, &row);
		MemoryContextSwitchTo(before);
		if (++n % ROWS == 0)
		{
			prom_fact_flush(writer);
			MemoryContextReset(rows);
		}
	}
	prom_fact_end(writer);
	MemoryContextDelete(rows);
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
}

/* Has this transaction changed or deleted it again? */
static bool
is_superseded(HeapTuple tuple)
{
	HeapTupleHeader header = tuple->t_data;

	return (header->t_infomask & HEAP_XMAX_INVALID) == 0 &&
		   !HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask) &&
		   TransactionIdIsCurrentTransactionId(
			   HeapTupleHeaderGetUpdateXid(header));
}

/* A row whose end comes after what later commands did to its key. */
static bool
is_late(HeapTuple old)
{
	return last_xid == GetTopTransactionId() &&
		   HeapTupleHeaderGetCmax(old->t_data) < last_command;
}

static void
note_command(HeapTuple old, HeapTuple new)
{
	CommandId command = new != NULL ? HeapTupleHeaderGetCmin(new->t_data)
									: HeapTupleHeaderGetCmax(old->t_data);

	if (last_xid != GetTopTransactionId())
		last_command = command;
	last_xid = GetTopTransactionId();
	last_command = Max(last_command, command);
}

/* Is there a row with the key of an old one? */
static bool
is_there_again(PromTracked *tracked, Relation relation, HeapTuple old,
			   const char *key)
{
	TupleDesc desc = RelationGetDescr(relation);
	Relation index = index_open(prom_primary_key_index(relation),
								AccessShareLock);
	int n = IndexRelationGetNumberOfKeyAttributes(index);
	ScanKeyData keys[INDEX_MAX_KEYS];
	SysScanDesc scan;
	HeapTuple tuple;
	bool found = false;

	for (int i = 0; i < n; i++)
	{
		AttrNumber at = index->rd_index->indkey.values[i];
		Oid type = index->rd_opcintype[i];
		bool isnull;

		ScanKeyInit(&keys[i], at, BTEqualStrategyNumber,
					get_opcode(get_opfamily_member(index->rd_opfamily[i], type,
												   type,
												   BTEqualStrategyNumber)),
					heap_getattr(old, at, desc, &isnull));
		keys[i].sk_collation = index->rd_indcollation[i];
	}
	scan = systable_beginscan_ordered(relation, index, SnapshotSelf, n, keys);
	while (!found &&
		   HeapTupleIsValid(
			   tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		PromRowText row;

		prom_version_texts(tracked, tuple, desc, true, &row);
		found = strcmp(row.key, key) == 0;
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	return found;
}

static void
add_change(PromTracked *tracked, const TriggerData *data)
{
	TupleDesc desc = RelationGetDescr(data->tg_relation);
	bool is_update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	HeapTuple old = TRIGGER_FIRED_BY_INSERT(data->tg_event)
						? NULL
						: data->tg_trigtuple;
	HeapTuple new = is_update ? data->tg_newtuple
							  : (old == NULL ? data->tg_trigtuple : NULL);
	PromRowText before = {NULL, NULL};
	PromRowText after = {NULL, NULL};
	PromFactWriter *writer = prom_fact_begin();

	if (old != NULL)
		prom_version_texts(tracked, old, desc, true, &before);
	if (new != NULL)
		prom_version_texts(tracked, new, desc, false, &after);
	if (old != NULL && (new == NULL || strcmp(before.key, after.key) != 0))
	{
		if (!is_late(old) ||
			!is_there_again(tracked, data->tg_relation, old, before.key))
			prom_version_add(writer, tracked, "delete", &before);
		is_update = false;
	}
	if (new != NULL && !is_superseded(new))
		prom_version_add(writer, tracked, is_update ? "update" : "insert",
						 &after);
	note_command(old, new);
	prom_fact_end(writer);
}

PG_FUNCTION_INFO_V1(prom_row_changed);

Datum
prom_row_changed(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	PromTracked *tracked;
	MemoryContext context;
	MemoryContext before;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function _row_changed() was not called by a trigger")));
	context = AllocSetContextCreate(CurrentMemoryContext,
									"prometheus row version",
									ALLOCSET_DEFAULT_SIZES);
	before = MemoryContextSwitchTo(context);
	tracked = prom_version_tracked(data->tg_relation);
	if (tracked->records)
	{
		if (TRIGGER_FIRED_BY_TRUNCATE(data->tg_event))
			prom_version_add_all(data->tg_relation, tracked, "delete");
		else
			add_change(tracked, data);
	}
	MemoryContextSwitchTo(before);
	MemoryContextDelete(context);
	PG_RETURN_POINTER(NULL);
}
