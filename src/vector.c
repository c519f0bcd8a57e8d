/*
 * vector.c
 *	  Finds memories by an index of pgvector, if one was made for them.
 *
 * DESIGN
 *
 * Such an index (hnsw) finds what is near without looking at the rest, but
 * filters afterwards: in one of all memories, those of others would be in the
 * way, and change what is found.  So each is of one owner, agent and kind, and
 * of embeddings of one length, since others cannot be cast to its type.  An
 * administrator makes it, by the statement that prometheus_memory_index()
 * gives: that takes long, and must not keep others from writing.  Its name says
 * whose it is, so nobody looks for more than a name where there is none.
 *
 * The planner only uses it for a statement that says the same in constants, so
 * that is planned each time.  What the index does not find (it may be full of
 * versions that do not count any more), the sketches do.
 *
 * pgvector may be in any schema, and be dropped at any time: its type and
 * operator are looked for among what belongs to the extension.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "compat.h"
#include "role.h"
#include "vector.h"
#include "xact.h"

#define EXTENSION "vector"

/* Of the type, in an index. */
#define MAX_DIMENSIONS 2000

/* Of hnsw.ef_search. */
#define MAX_CANDIDATES 1000

typedef struct Vector
{
	const char *schema;
	Oid type;
	Oid cast; /* the function that casts real[] to it */
} Vector;

#define BELONGS_TO(catalog, object)                           \
	" AND EXISTS (SELECT FROM pg_catalog.pg_depend d"         \
	"   WHERE d.classid OPERATOR(pg_catalog.=) " catalog      \
	"     AND d.objid OPERATOR(pg_catalog.=) " object         \
	"     AND d.refclassid OPERATOR(pg_catalog.=) e.tableoid" \
	"     AND d.refobjid OPERATOR(pg_catalog.=) e.oid"        \
	"     AND d.deptype OPERATOR(pg_catalog.=) 'e')"

#define BELONG_TO_IT                  \
	BELONGS_TO("t.tableoid", "t.oid") \
	BELONGS_TO("o.tableoid", "o.oid") \
	BELONGS_TO("f.tableoid", "f.oid")

static PromStatement extension_statement = {
	"SELECT n.nspname::pg_catalog.text, t.oid, f.oid"
	" FROM pg_catalog.pg_extension e"
	" JOIN pg_catalog.pg_namespace n"
	"   ON n.oid OPERATOR(pg_catalog.=) e.extnamespace"
	" JOIN pg_catalog.pg_type t"
	"   ON t.typnamespace OPERATOR(pg_catalog.=) n.oid"
	"     AND t.typname OPERATOR(pg_catalog.=) 'vector'"
	" JOIN pg_catalog.pg_operator o"
	"   ON o.oprnamespace OPERATOR(pg_catalog.=) n.oid"
	"     AND o.oprname OPERATOR(pg_catalog.=) '<=>'"
	"     AND o.oprleft OPERATOR(pg_catalog.=) t.oid"
	"     AND o.oprright OPERATOR(pg_catalog.=) t.oid"
	" JOIN pg_catalog.pg_cast c"
	"   ON c.castsource OPERATOR(pg_catalog.=)"
	"       'pg_catalog.float4[]'::pg_catalog.regtype"
	"     AND c.casttarget OPERATOR(pg_catalog.=) t.oid"
	" JOIN pg_catalog.pg_proc f"
	"   ON f.oid OPERATOR(pg_catalog.=) c.castfunc"
	" WHERE e.extname OPERATOR(pg_catalog.=) '" EXTENSION "'" BELONG_TO_IT,
	0,
	{0},
	NULL,
};

/* False: pgvector is not installed, or is not as it should be. */
static bool
find_extension(Vector *vector)
{
	prom_statement_run(&extension_statement, NULL, NULL, true);
	if (SPI_processed == 0)
		return false;
	vector->schema = prom_row_text(0, 1);
	vector->type = prom_row_oid(0, 2);
	vector->cast = prom_row_oid(0, 3);
	SPI_freetuptable(SPI_tuptable);
	return true;
}

static char *
index_name(const PromVectorKey *key)
{
	const char *text = psprintf("%s\n%s\n%s\n%d", key->owner->name,
								key->owner->agent, key->kind, key->dimensions);

	return psprintf("_memory_vector_%016llx",
					(unsigned long long) hash_bytes_extended(
						(const unsigned char *) text, strlen(text), 0));
}

/* Is there such an index, that is complete? */
static bool
has_index(const PromVectorKey *key)
{
	Oid schema = get_namespace_oid("prometheus", true);
	Oid index = OidIsValid(schema)
					? get_relname_relid(index_name(key), schema)
					: InvalidOid;
	HeapTuple tuple;
	bool is_valid;

	if (!OidIsValid(index))
		return false;
	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	if (!HeapTupleIsValid(tuple))
		return false;
	is_valid = ((Form_pg_index) GETSTRUCT(tuple))->indisvalid;
	ReleaseSysCache(tuple);
	return is_valid;
}

/* What the index is of, and of which memories. */
static char *
expression(const PromVectorKey *key, const Vector *vector)
{
	return psprintf("(embedding::%s.vector(%d))",
					quote_identifier(vector->schema), key->dimensions);
}

static char *
predicate(const PromVectorKey *key)
{
	return psprintf("owner OPERATOR(pg_catalog.=) %s"
					" AND agent OPERATOR(pg_catalog.=) %s"
					" AND kind OPERATOR(pg_catalog.=) %s AND NOT forgotten"
					" AND pg_catalog.array_length(embedding, 1)"
					" OPERATOR(pg_catalog.=) %d",
					quote_literal_cstr(key->owner->name),
					quote_literal_cstr(key->owner->agent),
					quote_literal_cstr(key->kind), key->dimensions);
}

/*
 * Dead versions are in the way: so twice as many are looked at, and more, where
 * pgvector can (0.8).
 */
static void
set_search(int limit)
{
	const struct
	{
		const char *name;
		const char *value;
	} settings[] = {
		{"hnsw.ef_search", psprintf("%d", Min(2 * limit, MAX_CANDIDATES))},
		{"hnsw.iterative_scan", "relaxed_order"},
		{"enable_sort", "off"},
		{"enable_bitmapscan", "off"},
	};

	for (int i = 0; i < lengthof(settings); i++)
		if (GetConfigOption(settings[i].name, true, false) != NULL)
			(void) set_config_option(settings[i].name, settings[i].value,
									 PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
}

static void
search(const PromVectorKey *key, const Vector *vector, ArrayType *embedding,
	   const char *fits, Datum now, int limit)
{
	Oid types[5] = {vector->type, OIDOID, FLOAT4ARRAYOID, INT8OID,
					TIMESTAMPTZOID};
	Datum values[5];
	SPIPlanPtr plan;

	/* This loads the library, if it is not there, and with it its settings. */
	values[0] = OidFunctionCall3(vector->cast, PointerGetDatum(embedding),
								 Int32GetDatum(-1), BoolGetDatum(true));
	values[1] = ObjectIdGetDatum(key->owner->oid);
	values[2] = PointerGetDatum(embedding);
	values[3] = Int64GetDatum(limit);
	values[4] = now;
	set_search(limit);
	plan = SPI_prepare(
		psprintf("SELECT m.memory_id, m.version,"
				 " prometheus._cosine(m.embedding, $3)"
				 " FROM prometheus._memory m WHERE %s"
				 " AND m.owner_oid OPERATOR(pg_catalog.=) $2 AND %s"
				 " ORDER BY %s OPERATOR(%s.<=>) $1 LIMIT $4",
				 predicate(key), fits, expression(key, vector),
				 quote_identifier(vector->schema)),
		lengthof(types), types);
	if (plan == NULL || SPI_execute_plan(plan, values, NULL, false, 0) < 0)
		elog(ERROR, "could not read prometheus._memory: %s",
			 SPI_result_code_string(SPI_result));
}

bool
prom_vector_find(const PromVectorKey *key, ArrayType *embedding,
				 const char *fits, Datum now, int limit)
{
	Vector vector;
	int nest_level;

	if (key->dimensions > MAX_DIMENSIONS || limit > MAX_CANDIDATES ||
		!has_index(key) || !find_extension(&vector))
		return false;
	nest_level = NewGUCNestLevel();
	search(key, &vector, embedding, fits, now, limit);
	AtEOXact_GUC(true, nest_level);
	if (SPI_processed >= limit)
		return true;
	SPI_freetuptable(SPI_tuptable);
	return false;
}

static void
check(const PromVectorKey *key)
{
	prom_memory_check_kind(key->kind);
	if (key->dimensions < 1 || key->dimensions > MAX_DIMENSIONS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an index of embeddings cannot have %d dimensions",
						key->dimensions),
				 errdetail("It can have 1 to %d.", MAX_DIMENSIONS),
				 errhint("Longer embeddings are found without it.")));
}

PG_FUNCTION_INFO_V1(prom_memory_index);

Datum
prom_memory_index(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	PromMemoryOwner owner = {.name = NameStr(*PG_GETARG_NAME(3)),
							 .agent = text_to_cstring(PG_GETARG_TEXT_PP(0))};
	PromVectorKey key = {&owner, text_to_cstring(PG_GETARG_TEXT_PP(1)),
						 PG_GETARG_INT32(2)};
	Vector vector;
	text *statement;

	check(&key);
	SPI_connect();
	if (!find_extension(&vector))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed", EXTENSION),
				 errdetail("It is pgvector, which makes such an index."),
				 errhint("CREATE EXTENSION %s installs it, if the server has its files.",
						 EXTENSION)));
	MemoryContextSwitchTo(context);
	statement = cstring_to_text(psprintf(
		"CREATE INDEX CONCURRENTLY IF NOT EXISTS %s ON prometheus._memory"
		" USING hnsw (%s %s.vector_cosine_ops) WHERE %s",
		index_name(&key), expression(&key, &vector),
		quote_identifier(vector.schema), predicate(&key)));
	SPI_finish();
	PG_RETURN_TEXT_P(statement);
}
