/*
 * memory.c
 *	  Stores, finds and forgets what agents remember.
 *
 * A memory belongs to a role and an agent.  The functions act for the caller,
 * and become the extension's owner only around their own statements, in which
 * every name and operator is qualified.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "as_of.h"
#include "fact.h"
#include "guc.h"
#include "mark.h"
#include "memory.h"
#include "moment.h"
#include "role.h"
#include "shmem.h"
#include "xact.h"

#define MAX_FOUND 1000

static const char *const kinds_known[] = {"core", "episodic", "semantic",
										  "procedural", "resource", "vault"};

static void
check_kind(const char *kind)
{
	for (int i = 0; i < lengthof(kinds_known); i++)
		if (kind != NULL && strcmp(kinds_known[i], kind) == 0)
			return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 kind == NULL ? errmsg("a memory must have a kind")
						  : errmsg("kind \"%s\" does not exist", kind),
			 errhint("The kinds are core, episodic, semantic, procedural, resource and vault.")));
}

static void
check_memory(const PromMemoryOwner *owner, const PromMemory *memory)
{
	size_t length = memory->content == NULL ? 0 : strlen(memory->content);

	if (owner->agent == NULL || *owner->agent == '\0' ||
		strlen(owner->agent) > PROM_MAX_NAME)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the name of an agent must have 1 to %d bytes",
							   PROM_MAX_NAME)));
	check_kind(memory->kind);
	if (length == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("there is nothing to remember")));
	if (length > (size_t) prom_guc_max_request * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a memory is too long"),
				 errdetail("It has %zu bytes; the limit is %d kB.", length,
						   prom_guc_max_request),
				 errhint("An administrator can raise prometheus.max_request.")));
	if (!(memory->importance >= 0 && memory->importance <= 1))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("importance must be from 0 to 1")));
	if (memory->metadata != NULL && !JB_ROOT_IS_OBJECT(memory->metadata))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("metadata must be a json object")));
}

int64
prom_memory_add(const PromMemoryOwner *owner, const PromMemory *memory)
{
	static const char add_sql[] =
		"INSERT INTO prometheus._memory (memory_id, version, xid, mark,"
		" task_id, created_at, expires_at, owner_oid, importance, forgotten,"
		" owner, agent, kind, content, metadata, words, embedding)"
		" VALUES ($1, 1, prometheus._xid(), $13, $2, $3,"
		" $3 OPERATOR(pg_catalog.+) coalesce($4,"
		"   CASE WHEN $9 OPERATOR(pg_catalog.=) 'resource'"
		"     THEN '1 hour'::pg_catalog.interval END),"
		" $5, $6, false, $7, $8, $9, $10, coalesce($11, '{}'),"
		" pg_catalog.to_tsvector('pg_catalog.simple', $10), $12)";
	Oid types[13] = {INT8OID, INT8OID, TIMESTAMPTZOID, INTERVALOID,
					 OIDOID, FLOAT4OID, TEXTOID, TEXTOID,
					 TEXTOID, TEXTOID, JSONBOID, FLOAT4ARRAYOID,
					 INT8OID};
	Datum values[13];
	char nulls[14] = "             ";
	int64 id;

	check_memory(owner, memory);
	id = prom_fact_next_id();
	values[0] = Int64GetDatum(id);
	values[1] = Int64GetDatum(memory->task_id);
	nulls[1] = memory->task_id == 0 ? 'n' : ' ';
	values[2] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[3] = IntervalPGetDatum(memory->ttl);
	nulls[3] = memory->ttl == NULL ? 'n' : ' ';
	values[4] = ObjectIdGetDatum(owner->oid);
	values[5] = Float4GetDatum(memory->importance);
	values[6] = CStringGetTextDatum(owner->name);
	values[7] = CStringGetTextDatum(owner->agent);
	values[8] = CStringGetTextDatum(memory->kind);
	values[9] = CStringGetTextDatum(memory->content);
	values[10] = JsonbPGetDatum(memory->metadata);
	nulls[10] = memory->metadata == NULL ? 'n' : ' ';
	values[11] = PointerGetDatum(memory->embedding);
	nulls[11] = memory->embedding == NULL ? 'n' : ' ';
	values[12] = Int64GetDatum(prom_mark_newest());
	if (prom_execute_now(add_sql, 13, types, values, nulls, false) !=
		SPI_OK_INSERT)
		elog(ERROR, "could not write prometheus._memory");
	return id;
}

/* The time by which memories are old and expire. */
static TimestampTz
now_or_then(void)
{
	const PromMoment *moment = prom_moment_current();

	return moment == NULL ? GetCurrentTimestamp() : prom_moment_time(moment);
}

/*
 * Those that have a word of the query, by the index; if there are none, all.
 * Similarity is the part of the query's words that a memory has.
 */
void
prom_memory_find(const PromMemoryOwner *owner, const char *query,
				 ArrayType *kinds, int32 k)
{
	static const char find_sql[] =
		"WITH q AS (SELECT pg_catalog.tsvector_to_array("
		"   pg_catalog.to_tsvector('pg_catalog.simple', $4)) AS words),"
		" mine AS (SELECT m.* FROM prometheus._memory m"
		"   WHERE m.owner OPERATOR(pg_catalog.=) $1"
		"     AND m.owner_oid OPERATOR(pg_catalog.=) $2"
		"     AND m.agent OPERATOR(pg_catalog.=) $3"
		"     AND ($5 IS NULL OR m.kind OPERATOR(pg_catalog.=) ANY ($5))"
		"     AND NOT m.forgotten AND prometheus._seen(m.xid)"
		"     AND (m.expires_at IS NULL"
		"       OR m.expires_at OPERATOR(pg_catalog.>) $7)"
		"     AND NOT EXISTS (SELECT FROM prometheus._memory n"
		"       WHERE n.memory_id OPERATOR(pg_catalog.=) m.memory_id"
		"         AND n.version OPERATOR(pg_catalog.>) m.version"
		"         AND prometheus._seen(n.xid))),"
		" fit AS (SELECT m.*, (SELECT pg_catalog.count(*)"
		"     FROM pg_catalog.unnest(q.words) w"
		"     WHERE m.words OPERATOR(pg_catalog.@@)"
		"       pg_catalog.quote_literal(w)::pg_catalog.tsquery)"
		"     OPERATOR(pg_catalog./)"
		"     pg_catalog.cardinality(q.words)::pg_catalog.float8 AS similarity"
		"   FROM mine m, q"
		"   WHERE pg_catalog.cardinality(q.words) OPERATOR(pg_catalog.>) 0"
		"     AND m.words OPERATOR(pg_catalog.@@) (SELECT pg_catalog.string_agg("
		"       pg_catalog.quote_literal(w), ' | ')::pg_catalog.tsquery"
		"       FROM q, pg_catalog.unnest(q.words) w)),"
		" best AS (SELECT f.* FROM fit f"
		"   UNION ALL SELECT m.*, 0 FROM mine m"
		"   WHERE NOT EXISTS (SELECT FROM fit))"
		" SELECT b.memory_id, b.kind, b.content, b.importance,"
		/* Written OPERATOR(), all bind alike: hence the parentheses. */
		" ((0.6::pg_catalog.float8 OPERATOR(pg_catalog.*) b.similarity)"
		"   OPERATOR(pg_catalog.+) (0.4::pg_catalog.float8"
		"   OPERATOR(pg_catalog.*) ((0.7::pg_catalog.float8"
		"     OPERATOR(pg_catalog.*) b.importance::pg_catalog.float8)"
		"     OPERATOR(pg_catalog.+) (0.3::pg_catalog.float8"
		"     OPERATOR(pg_catalog.*) pg_catalog.exp((-0.1)::pg_catalog.float8"
		"       OPERATOR(pg_catalog.*) (pg_catalog.extract('epoch',"
		"         $7 OPERATOR(pg_catalog.-) b.created_at)::pg_catalog.float8"
		"       OPERATOR(pg_catalog./) 86400::pg_catalog.float8))))))"
		"   ::pg_catalog.float4 AS score,"
		" b.metadata, b.created_at FROM best b"
		" ORDER BY 5 DESC, b.memory_id DESC LIMIT $6";
	Oid types[7] = {TEXTOID, OIDOID, TEXTOID, TEXTOID,
					TEXTARRAYOID, INT8OID, TIMESTAMPTZOID};
	Datum values[7];
	char nulls[8] = "       ";

	if (k < 1 || k > MAX_FOUND)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("k must be from 1 to %d", MAX_FOUND)));
	values[0] = CStringGetTextDatum(owner->name);
	values[1] = ObjectIdGetDatum(owner->oid);
	values[2] = CStringGetTextDatum(owner->agent);
	values[3] = CStringGetTextDatum(query);
	values[4] = PointerGetDatum(kinds);
	nulls[4] = kinds == NULL ? 'n' : ' ';
	values[5] = Int64GetDatum(k);
	values[6] = TimestampTzGetDatum(now_or_then());
	if (SPI_execute_with_args(find_sql, 7, types, values, nulls, false, 0) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._memory");
}


/* What users call. */

static void
mine(PromMemoryOwner *owner, FunctionCallInfo fcinfo)
{
	owner->oid = GetUserId();
	owner->name = GetUserNameFromId(owner->oid, false);
	owner->agent = PG_ARGISNULL(0) ? NULL
								   : text_to_cstring(PG_GETARG_TEXT_PP(0));
}

PG_FUNCTION_INFO_V1(prom_remember);

Datum
prom_remember(PG_FUNCTION_ARGS)
{
	PromMemoryOwner owner;
	PromMemory memory = {0};
	PromOwner before;
	int64 id;

	PreventCommandDuringRecovery("prometheus_remember()");
	PreventCommandIfReadOnly("prometheus_remember()");
	mine(&owner, fcinfo);
	memory.content = PG_ARGISNULL(1) ? NULL
									 : text_to_cstring(PG_GETARG_TEXT_PP(1));
	memory.kind = PG_ARGISNULL(2) ? "semantic"
								  : text_to_cstring(PG_GETARG_TEXT_PP(2));
	memory.importance = PG_ARGISNULL(3) ? 0.5 : PG_GETARG_FLOAT4(3);
	memory.metadata = PG_ARGISNULL(4) ? NULL : PG_GETARG_JSONB_P(4);
	memory.embedding = PG_ARGISNULL(5) ? NULL : PG_GETARG_ARRAYTYPE_P(5);
	memory.ttl = PG_ARGISNULL(6) ? NULL : PG_GETARG_INTERVAL_P(6);
	SPI_connect();
	prom_role_become_owner(&before);
	id = prom_memory_add(&owner, &memory);
	prom_role_restore(&before);
	SPI_finish();
	PG_RETURN_INT64(id);
}

PG_FUNCTION_INFO_V1(prom_recall);

Datum
prom_recall(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	char *query = PG_ARGISNULL(1) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(1));
	ArrayType *kinds = PG_ARGISNULL(2) ? NULL : PG_GETARG_ARRAYTYPE_P(2);
	int32 k = PG_ARGISNULL(3) ? 5 : PG_GETARG_INT32(3);
	PromMemoryOwner owner;
	PromOwner before;

	InitMaterializedSRF(fcinfo, 0);
	mine(&owner, fcinfo);
	if (owner.agent == NULL)
		return (Datum) 0;
	SPI_connect();
	prom_role_become_owner(&before);
	prom_memory_find(&owner, query, kinds, k);
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	prom_role_restore(&before);
	SPI_finish();
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(prom_forget);

Datum
prom_forget(PG_FUNCTION_ARGS)
{
	static const char find_sql[] =
		"SELECT m.owner, m.owner_oid, m.forgotten FROM prometheus._memory m"
		" WHERE m.memory_id OPERATOR(pg_catalog.=) $1"
		" ORDER BY m.version DESC LIMIT 1";
	static const char forget_sql[] =
		"INSERT INTO prometheus._memory (memory_id, version, xid, mark,"
		" task_id, created_at, expires_at, owner_oid, importance, forgotten,"
		" owner, agent, kind, content, metadata, words, embedding)"
		" SELECT m.memory_id, m.version OPERATOR(pg_catalog.+) 1,"
		" prometheus._xid(), greatest($2, m.mark), NULL,"
		" pg_catalog.clock_timestamp(),"
		" m.expires_at, m.owner_oid, m.importance, true, m.owner, m.agent,"
		" m.kind, m.content, m.metadata, m.words, m.embedding"
		" FROM prometheus._memory m"
		" WHERE m.memory_id OPERATOR(pg_catalog.=) $1"
		" ORDER BY m.version DESC LIMIT 1"
		" ON CONFLICT (memory_id, version) DO NOTHING";
	Oid types[2] = {INT8OID, INT8OID};
	Datum values[2] = {Int64GetDatum(PG_GETARG_INT64(0)),
					   Int64GetDatum(prom_mark_newest())};
	PromOwner before;
	char *name = NULL;
	Oid oid = InvalidOid;
	bool forgotten = false;
	bool written = false;
	bool may;

	PreventCommandDuringRecovery("prometheus_forget()");
	PreventCommandIfReadOnly("prometheus_forget()");
	prom_as_of_forbid_writing();
	SPI_connect();
	prom_role_become_owner(&before);
	if (prom_execute_now(find_sql, 1, types, values, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._memory");
	if (SPI_processed > 0)
	{
		name = prom_row_text(0, 1);
		oid = prom_row_oid(0, 2);
		forgotten = prom_row_bool(0, 3);
	}
	prom_role_restore(&before);
	may = name != NULL && !forgotten && prom_role_may_see(name, oid);
	if (may)
	{
		prom_role_become_owner(&before);
		if (prom_execute_now(forget_sql, 2, types, values, NULL, false) !=
			SPI_OK_INSERT)
			elog(ERROR, "could not write prometheus._memory");
		written = SPI_processed > 0;
		prom_role_restore(&before);
	}
	SPI_finish();
	PG_RETURN_BOOL(written);
}
