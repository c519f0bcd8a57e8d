/*
 * memory.c
 *	  Stores what agents remember.
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

#include "embedding.h"
#include "evidence.h"
#include "eviction.h"
#include "fact.h"
#include "guc.h"
#include "mark.h"
#include "memory.h"
#include "role.h"
#include "shmem.h"
#include "use.h"
#include "wakeup.h"
#include "xact.h"

static const char *const kinds_known[] = {"core", "episodic", "semantic",
										  "procedural", "resource", "vault"};

void
prom_memory_check_kind(const char *kind)
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
	prom_memory_check_kind(memory->kind);
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
	if (memory->embedding != NULL)
		prom_embedding_check(memory->embedding);
}

/* What the statements that write a memory are given. */
enum
{
	WRITE_ID,
	WRITE_TASK_ID,
	WRITE_NOW,
	WRITE_TTL,
	WRITE_OWNER_OID,
	WRITE_IMPORTANCE,
	WRITE_OWNER,
	WRITE_AGENT,
	WRITE_KIND,
	WRITE_CONTENT,
	WRITE_METADATA,
	WRITE_EMBEDDING,
	WRITE_MARK,
	WRITES
};

static const Oid write_types[WRITES] = {
	INT8OID, INT8OID, TIMESTAMPTZOID, INTERVALOID, OIDOID, FLOAT4OID, TEXTOID,
	TEXTOID, TEXTOID, TEXTOID, JSONBOID, FLOAT4ARRAYOID, INT8OID};

#define EXPIRES                                         \
	" ($3 OPERATOR(pg_catalog.+) coalesce($4,"          \
	"   CASE WHEN $9 OPERATOR(pg_catalog.=) 'resource'" \
	"     THEN '1 hour'::pg_catalog.interval END))"

/* Of the owner and agent, what is remembered of this content. */
#define SAME_CONTENT                                                  \
	" FROM prometheus._memory m"                                      \
	" WHERE m.owner OPERATOR(pg_catalog.=) $7"                        \
	"   AND m.owner_oid OPERATOR(pg_catalog.=) $5"                    \
	"   AND m.agent OPERATOR(pg_catalog.=) $8"                        \
	"   AND pg_catalog.md5(m.content) OPERATOR(pg_catalog.=)"         \
	"     pg_catalog.md5($10)"                                        \
	"   AND m.content OPERATOR(pg_catalog.=) $10 AND NOT m.forgotten" \
	"   AND NOT EXISTS (SELECT FROM prometheus._memory n"             \
	"     WHERE n.memory_id OPERATOR(pg_catalog.=) m.memory_id"       \
	"       AND n.version OPERATOR(pg_catalog.>) m.version)"

typedef struct Write
{
	Datum values[WRITES];
	char nulls[WRITES + 1];
} Write;

static void
fill(Write *write, const PromMemoryOwner *owner, const PromMemory *memory)
{
	memset(write->nulls, ' ', WRITES);
	write->nulls[WRITES] = '\0';
	write->values[WRITE_ID] = Int64GetDatum(0);
	write->values[WRITE_TASK_ID] = Int64GetDatum(memory->task_id);
	write->nulls[WRITE_TASK_ID] = memory->task_id == 0 ? 'n' : ' ';
	write->values[WRITE_NOW] = TimestampTzGetDatum(GetCurrentTimestamp());
	write->values[WRITE_TTL] = IntervalPGetDatum(memory->ttl);
	write->nulls[WRITE_TTL] = memory->ttl == NULL ? 'n' : ' ';
	write->values[WRITE_OWNER_OID] = ObjectIdGetDatum(owner->oid);
	write->values[WRITE_IMPORTANCE] = Float4GetDatum(memory->importance);
	write->values[WRITE_OWNER] = CStringGetTextDatum(owner->name);
	write->values[WRITE_AGENT] = CStringGetTextDatum(owner->agent);
	write->values[WRITE_KIND] = CStringGetTextDatum(memory->kind);
	write->values[WRITE_CONTENT] = CStringGetTextDatum(memory->content);
	write->values[WRITE_METADATA] = JsonbPGetDatum(memory->metadata);
	write->nulls[WRITE_METADATA] = memory->metadata == NULL ? 'n' : ' ';
	write->values[WRITE_EMBEDDING] = PointerGetDatum(memory->embedding);
	write->nulls[WRITE_EMBEDDING] = memory->embedding == NULL ? 'n' : ' ';
	write->values[WRITE_MARK] = Int64GetDatum(prom_mark_newest());
}

static void
run(const char *sql, Write *write, int expected)
{
	if (prom_execute_now(sql, WRITES, (Oid *) write_types, write->values,
						 write->nulls, false) != expected)
		elog(ERROR, "could not read or write prometheus._memory");
}

/* The first id that a statement finds, or 0; and its kind. */
static int64
find_id(const char *sql, Write *write, char **kind)
{
	run(sql, write, SPI_OK_SELECT);
	if (SPI_processed == 0)
		return 0;
	*kind = prom_row_text(0, 2);
	return prom_row_int64(0, 1);
}

/*
 * A task that was told of a memory does not remember it anew, of whatever kind:
 * what it says then is no experience of its own.  The content is looked for as
 * a JSON string, quotes and all, as the step has it.
 */
static const char recalled_sql[] =
	"SELECT m.memory_id, m.kind" SAME_CONTENT
	"   AND EXISTS (SELECT FROM prometheus._step s"
	"     WHERE s.task_id OPERATOR(pg_catalog.=) $2"
	"       AND (s.kind OPERATOR(pg_catalog.=) 'recall'"
	"         OR s.kind OPERATOR(pg_catalog.=) 'tool'"
	"           AND s.name OPERATOR(pg_catalog.=) 'recall')"
	"       AND s.status OPERATOR(pg_catalog.=) 'ok'"
	"       AND pg_catalog.strpos(s.answer, pg_catalog.to_json($10)::pg_catalog.text)"
	"         OPERATOR(pg_catalog.>) 0)"
	" ORDER BY m.memory_id LIMIT 1";

/* It may have been consolidated. */
static const char known_sql[] =
	"SELECT m.memory_id, m.kind" SAME_CONTENT
	"   AND $9 OPERATOR(pg_catalog.=) ANY (ARRAY[m.kind,"
	"     CASE WHEN m.kind OPERATOR(pg_catalog.=) 'vault' THEN"
	"       m.metadata OPERATOR(pg_catalog.->>) 'consolidated_from' END])"
	" ORDER BY m.memory_id LIMIT 1";

/* A new version of what is known, if it says more. */
static const char improve_sql[] =
	"INSERT INTO prometheus._memory (memory_id, version, xid, mark,"
	" task_id, created_at, expires_at, owner_oid, importance, forgotten,"
	" owner, agent, kind, content, metadata, words, embedding)"
	" SELECT m.memory_id, m.version OPERATOR(pg_catalog.+) 1,"
	" prometheus._xid(), greatest($13, m.mark), $2, $3,"
	" CASE WHEN m.expires_at OPERATOR(pg_catalog.>)" EXPIRES
	"   THEN m.expires_at"
	"   WHEN m.expires_at IS NOT NULL THEN" EXPIRES " END,"
	" m.owner_oid, greatest(m.importance, $6), false, m.owner, m.agent,"
	" m.kind, m.content,"
	" m.metadata OPERATOR(pg_catalog.||) coalesce($11, '{}'), m.words,"
	" coalesce($12, m.embedding)" SAME_CONTENT
	"   AND m.memory_id OPERATOR(pg_catalog.=) $1"
	"   AND (m.importance OPERATOR(pg_catalog.<) $6"
	"     OR (m.metadata OPERATOR(pg_catalog.||) coalesce($11, '{}'))"
	"       OPERATOR(pg_catalog.<>) m.metadata"
	"     OR (m.expires_at IS NOT NULL AND (" EXPIRES " IS NULL"
	"       OR m.expires_at OPERATOR(pg_catalog.<)" EXPIRES "))"
	"     OR ($12 IS NOT NULL AND (m.embedding IS NULL"
	"       OR m.embedding OPERATOR(pg_catalog.<>) $12)))";

static const char add_sql[] =
	"INSERT INTO prometheus._memory (memory_id, version, xid, mark,"
	" task_id, created_at, expires_at, owner_oid, importance, forgotten,"
	" owner, agent, kind, content, metadata, words, embedding)"
	" VALUES ($1, 1, prometheus._xid(), $13, $2, $3," EXPIRES ","
	" $5, $6, false, $7, $8, $9, $10, coalesce($11, '{}'),"
	" prometheus._words($10, $8), $12)";

/* What is remembered already, or 0; told: it is left as it is. */
static int64
find_known(const PromMemoryOwner *owner, const PromMemory *memory,
		   Write *write, bool *told)
{
	char *kind;
	int64 id = 0;

	if (memory->task_id != 0)
		id = find_id(recalled_sql, write, &kind);
	*told = id != 0;
	if (id == 0)
		id = find_id(known_sql, write, &kind);
	if (id != 0 && !*told && strcmp(kind, memory->kind) != 0)
	{
		prom_memory_lock(owner, kind, memory->content);
		id = find_id(known_sql, write, &kind);
	}
	return id;
}

int64
prom_memory_known(const PromMemoryOwner *owner, const PromMemory *memory)
{
	Write write;
	bool told;

	fill(&write, owner, memory);
	return find_known(owner, memory, &write, &told);
}

int64
prom_memory_add(const PromMemoryOwner *owner, const PromMemory *memory)
{
	Write write;
	int64 id;
	bool told;

	check_memory(owner, memory);
	prom_memory_lock(owner, memory->kind, memory->content);
	fill(&write, owner, memory);
	id = find_known(owner, memory, &write, &told);
	if (id != 0)
	{
		if (told || memory->once)
			return id;
		if (memory->task_id != 0 && strcmp(memory->kind, "semantic") == 0)
			prom_evidence_of_fact(owner, id, memory->task_id);
		write.values[WRITE_ID] = Int64GetDatum(id);
		run(improve_sql, &write, SPI_OK_INSERT);
		return id;
	}
	id = memory->id != 0 ? memory->id : prom_fact_next_id();
	write.values[WRITE_ID] = Int64GetDatum(id);
	run(add_sql, &write, SPI_OK_INSERT);
	if (memory->embedding == NULL)
		prom_wakeup_memory(id);
	prom_eviction_run(owner, memory->kind, id, false);
	return id;
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
	PromMemoryQuery query = {.text = ""};
	PromMemoryOwner owner;
	PromOwner before;

	InitMaterializedSRF(fcinfo, 0);
	if (!PG_ARGISNULL(1))
		query.text = text_to_cstring(PG_GETARG_TEXT_PP(1));
	query.kinds = PG_ARGISNULL(2) ? NULL : PG_GETARG_ARRAYTYPE_P(2);
	query.k = PG_ARGISNULL(3) ? 5 : PG_GETARG_INT32(3);
	query.embedding = PG_ARGISNULL(4) ? NULL : PG_GETARG_ARRAYTYPE_P(4);
	mine(&owner, fcinfo);
	if (owner.agent == NULL)
		return (Datum) 0;
	SPI_connect();
	prom_role_become_owner(&before);
	prom_memory_find(&owner, &query);
	prom_use_of_rows();
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	prom_role_restore(&before);
	SPI_finish();
	return (Datum) 0;
}
