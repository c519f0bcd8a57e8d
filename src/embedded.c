/*
 * embedded.c
 *	  Embeddings that the models of agents have made, and what they are of.
 *
 * The same text of the same owner has one in a space: so a query that is
 * repeated, or a memory that another agent has too, costs nothing.  A memory
 * has it by a row of its own, with the sketch of it, which an index of the
 * owner, agent and kind has: so it is found as one that was given is.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "embedded.h"
#include "xact.h"

#define QUERY_HASH PROM_EMBEDDED_HASH("s.space", "$3", "$2")
#define QUERY_TEXT PROM_EMBEDDED_TEXT("$2")

static PromStatement read_statement = {
	"SELECT s.name, s.space, " QUERY_HASH ", " QUERY_TEXT ","
	" (SELECT v.embedding FROM prometheus._embedding v"
	"   WHERE v.hash OPERATOR(pg_catalog.=) " QUERY_HASH
	"     AND prometheus._seen(v.xid))"
	" FROM (SELECT m.name, " PROM_EMBEDDED_SPACE " AS space"
	"   FROM (SELECT a.options OPERATOR(pg_catalog.->>) 'embedding_model'"
	"       AS model FROM prometheus._agent a"
	"     WHERE a.name OPERATOR(pg_catalog.=) $1"
	"     ORDER BY a.version DESC LIMIT 1) n"
	"   CROSS JOIN LATERAL (SELECT x.name, x.model, x.options"
	"     FROM prometheus._model x"
	"     WHERE x.name OPERATOR(pg_catalog.=) n.model"
	"     ORDER BY x.version DESC LIMIT 1) m OFFSET 0) s",
	3,
	{TEXTOID, TEXTOID, TEXTOID},
	NULL,
};

bool
prom_embedded_read(const char *agent, const char *owner, const char *text,
				   PromEmbedded *embedded)
{
	Datum values[3] = {CStringGetTextDatum(agent), CStringGetTextDatum(text),
					   CStringGetTextDatum(owner)};
	MemoryContext context = CurrentMemoryContext;
	bool found;

	prom_statement_run_now(&read_statement, values);
	/* Not that of SPI, which ends before what the caller makes next. */
	MemoryContextSwitchTo(context);
	found = SPI_processed > 0;
	if (found)
	{
		embedded->model = prom_row_text(0, 1);
		embedded->space = prom_row_text(0, 2);
		embedded->hash = prom_row_text(0, 3);
		embedded->text = prom_row_text(0, 4);
		embedded->embedding = prom_row_array_or_null(0, 5);
	}
	SPI_freetuptable(SPI_tuptable);
	return found;
}

static PromStatement space_statement = {
	"SELECT " PROM_EMBEDDED_SPACE " FROM prometheus._model m"
	" WHERE m.name = $1 AND m.version = $2",
	2,
	{TEXTOID, INT8OID},
	NULL,
};

char *
prom_embedded_space(const PromModel *model)
{
	Datum values[2] = {CStringGetTextDatum(model->name),
					   Int64GetDatum(model->version)};
	char *space;

	prom_statement_run(&space_statement, values, NULL, true);
	if (SPI_processed == 0)
		elog(ERROR, "there is no version %lld of model \"%s\"",
			 (long long) model->version, model->name);
	space = prom_row_text(0, 1);
	SPI_freetuptable(SPI_tuptable);
	return space;
}

ArrayType *
prom_embedded_array(const float *vector, int dimensions)
{
	Datum *values = palloc(dimensions * sizeof(Datum));
	ArrayType *array;

	for (int i = 0; i < dimensions; i++)
		values[i] = Float4GetDatum(vector[i]);
	array = construct_array(values, dimensions, FLOAT4OID, sizeof(float4), true,
							TYPALIGN_INT);
	pfree(values);
	return array;
}

static PromStatement add_statement = {
	"INSERT INTO prometheus._embedding (hash, space, xid, made_at, embedding)"
	" VALUES ($1, $2, prometheus._xid(), pg_catalog.clock_timestamp(), $3)"
	" ON CONFLICT DO NOTHING",
	3,
	{TEXTOID, TEXTOID, FLOAT4ARRAYOID},
	NULL,
};

void
prom_embedded_add(const char *space, const char *hash, ArrayType *embedding)
{
	Datum values[3] = {CStringGetTextDatum(hash), CStringGetTextDatum(space),
					   PointerGetDatum(embedding)};

	prom_statement_run(&add_statement, values, NULL, false);
}

static PromStatement add_memory_statement = {
	"INSERT INTO prometheus._memory_embedding (memory_id, xid, made_at, owner,"
	" agent, kind, space, hash, sketch, error)"
	" SELECT m.memory_id, prometheus._xid(), pg_catalog.clock_timestamp(),"
	" m.owner, m.agent, m.kind, $2, $3, CASE WHEN $4 IS NULL THEN"
	"   prometheus._sketch((SELECT v.embedding FROM prometheus._embedding v"
	"     WHERE v.hash = $3)) END, $4"
	" FROM (SELECT x.* FROM prometheus._memory x WHERE x.memory_id = $1"
	"   ORDER BY x.version DESC LIMIT 1) m"
	" WHERE NOT m.forgotten AND ($4 IS NOT NULL OR EXISTS (SELECT"
	"   FROM prometheus._embedding v WHERE v.hash = $3))"
	" ON CONFLICT DO NOTHING",
	4,
	{INT8OID, TEXTOID, TEXTOID, TEXTOID},
	NULL,
};

void
prom_embedded_add_memory(int64 memory_id, const char *space, const char *hash,
						 const char *error)
{
	Datum values[4] = {Int64GetDatum(memory_id), CStringGetTextDatum(space),
					   CStringGetTextDatum(hash),
					   error == NULL ? (Datum) 0 : CStringGetTextDatum(error)};

	prom_statement_run(&add_memory_statement, values,
					   error == NULL ? "   n" : NULL, false);
}

/* As any role's session: every name and operator is qualified. */
void
prom_embedded_move(int64 memory_id)
{
	static const char move_sql[] =
		"INSERT INTO prometheus._memory_embedding (memory_id, xid, made_at,"
		" owner, agent, kind, space, hash, sketch, error)"
		" SELECT DISTINCT ON (e.space) e.memory_id, prometheus._xid(),"
		" pg_catalog.clock_timestamp(), e.owner, e.agent, m.kind, e.space,"
		" e.hash, e.sketch, e.error FROM prometheus._memory_embedding e"
		" CROSS JOIN LATERAL (SELECT x.kind FROM prometheus._memory x"
		"   WHERE x.memory_id OPERATOR(pg_catalog.=) $1"
		"   ORDER BY x.version DESC LIMIT 1) m"
		" WHERE e.memory_id OPERATOR(pg_catalog.=) $1"
		" ORDER BY e.space, e.made_at DESC ON CONFLICT DO NOTHING";
	Oid type = INT8OID;
	Datum value = Int64GetDatum(memory_id);

	if (prom_execute_now(move_sql, 1, &type, &value, NULL, false) !=
		SPI_OK_INSERT)
		elog(ERROR, "could not write prometheus._memory_embedding");
}
