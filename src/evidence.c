/*
 * evidence.c
 *	  What tasks show of memories, and what of them is consolidated.
 *
 * Only what has happened counts.  A procedure that a task was told succeeds if
 * the task's reflection gives it a score from 0.7 on; its success rate is a
 * moving average, the newest for a half in the first five uses, then for a
 * fifth, as in the system that this one follows, and begins at 0.  A fact is
 * surer each time that a task finds it by itself: not one that was told it, nor
 * one of the same trace as a task that has found it before.
 *
 * Each is a row more, in the transaction of what it comes from.  What is proven
 * so gets a version whose kind is vault: the memory is the same, with its
 * history.  A procedure goes on to be shown there, and comes back when it does
 * not succeed so often any more.  What is pinned stays where it is.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "embedded.h"
#include "evidence.h"
#include "eviction.h"
#include "mark.h"
#include "xact.h"

/* The score from which on a task has succeeded. */
#define SUCCESS "0.7"

/* What is above is consolidated: a real, which is not quite what it says. */
#define PROVEN_RATE 0.8f
#define PROVEN_CONFIDENCE 0.9f

/* A recall with arguments is a summary of older turns. */
static PromStatement told_statement = {
	"SELECT (m.value OPERATOR(pg_catalog.->>) 'memory_id')::pg_catalog.int8,"
	"   k.key"
	" FROM (SELECT s.answer FROM prometheus._step s"
	"   WHERE s.task_id OPERATOR(pg_catalog.=) $1"
	"     AND s.step OPERATOR(pg_catalog.<) $2"
	"     AND s.kind OPERATOR(pg_catalog.=) 'recall'"
	"     AND s.status OPERATOR(pg_catalog.=) 'ok'"
	"     AND s.arguments IS NULL"
	"   ORDER BY s.step DESC LIMIT 1) r"
	" CROSS JOIN LATERAL pg_catalog.jsonb_each(r.answer::pg_catalog.jsonb) k"
	" CROSS JOIN LATERAL pg_catalog.jsonb_array_elements(k.value) m"
	" WHERE k.key OPERATOR(pg_catalog.<>) 'core'",
	2,
	{INT8OID, INT4OID},
	NULL,
};

PromTold *
prom_evidence_read_told(int64 task_id, int32 step, int *n)
{
	Datum values[2] = {Int64GetDatum(task_id), Int32GetDatum(step)};
	PromTold *told;

	prom_statement_run(&told_statement, values, NULL, true);
	*n = SPI_processed;
	told = palloc((*n + 1) * sizeof(PromTold));
	for (int i = 0; i < *n; i++)
	{
		told[i].memory_id = prom_row_int64(i, 1);
		told[i].kind = prom_row_text(i, 2);
	}
	SPI_freetuptable(SPI_tuptable);
	return told;
}

/* The newest version of $1, if it is this owner's. */
#define OF_MEMORY                                                     \
	" FROM prometheus._memory m"                                      \
	" LEFT JOIN LATERAL (SELECT x.number, x.confidence"               \
	"   FROM prometheus._evidence x"                                  \
	"   WHERE x.memory_id OPERATOR(pg_catalog.=) m.memory_id"         \
	"   ORDER BY x.number DESC LIMIT 1) e ON true" PROM_MEMORY_NEWEST \
	"   AND m.owner OPERATOR(pg_catalog.=) $2"                        \
	"   AND m.owner_oid OPERATOR(pg_catalog.=) $3"                    \
	"   AND m.agent OPERATOR(pg_catalog.=) $4"                        \
	"   AND NOT m.forgotten"

#define ADD_EVIDENCE                                            \
	"INSERT INTO prometheus._evidence (memory_id, number, xid," \
	" task_id, found_at, score, confidence)"                    \
	" SELECT m.memory_id,"                                      \
	" coalesce(e.number, 0) OPERATOR(pg_catalog.+) 1,"          \
	" prometheus._xid(), $5, pg_catalog.clock_timestamp(),"     \
	" $6::pg_catalog.float4,"

/* A procedure stays one in the vault. */
#define IS_PROCEDURE                                   \
	" AND (m.kind OPERATOR(pg_catalog.=) 'procedural'" \
	"   OR m.kind OPERATOR(pg_catalog.=) 'vault'"      \
	"     AND m.metadata OPERATOR(pg_catalog.->>)"     \
	"       'consolidated_from' OPERATOR(pg_catalog.=) 'procedural')"
#define IS_FACT " AND m.kind OPERATOR(pg_catalog.=) 'semantic'"

#define RETURNING " RETURNING confidence::pg_catalog.float8"

/* c + a (success - c) */
static const char of_procedure_sql[] =
	ADD_EVIDENCE
	" coalesce(e.confidence, 0) OPERATOR(pg_catalog.+) ("
	"   CASE WHEN coalesce(e.number, 0) OPERATOR(pg_catalog.<) 5"
	"     THEN 0.5 ELSE 0.2 END OPERATOR(pg_catalog.*) ("
	"   CASE WHEN $6 OPERATOR(pg_catalog.>=) " SUCCESS " THEN 1 ELSE 0 END"
	"     OPERATOR(pg_catalog.-) coalesce(e.confidence, 0)))" OF_MEMORY IS_PROCEDURE RETURNING;

/* The number of the metadata, from 0 to 1; rounded, it is one of a real. */
#define GIVEN                                                              \
	" CASE WHEN pg_catalog.jsonb_typeof(m.metadata"                        \
	"     OPERATOR(pg_catalog.->) 'confidence')"                           \
	"     OPERATOR(pg_catalog.=) 'number'"                                 \
	"   THEN pg_catalog.round(least(greatest((m.metadata"                  \
	"     OPERATOR(pg_catalog.->>) 'confidence')::pg_catalog.numeric, 0)," \
	"     1), 6)::pg_catalog.float4 END"

/* No task of the same trace as $5 has found it. */
#define IS_INDEPENDENT                                            \
	" AND NOT EXISTS (SELECT"                                     \
	"   FROM (SELECT v.task_id FROM prometheus._memory v"         \
	"       WHERE v.memory_id OPERATOR(pg_catalog.=) $1"          \
	"     UNION ALL SELECT v.task_id FROM prometheus._evidence v" \
	"       WHERE v.memory_id OPERATOR(pg_catalog.=) $1) f"       \
	"   JOIN prometheus._task t"                                  \
	"     ON t.task_id OPERATOR(pg_catalog.=) f.task_id"          \
	"   JOIN prometheus._task own"                                \
	"     ON own.task_id OPERATOR(pg_catalog.=) $5"               \
	"   WHERE t.trace_id OPERATOR(pg_catalog.=) own.trace_id)"

/* 1 - (1 - c) / 2; $6 is null. */
static const char of_fact_sql[] =
	ADD_EVIDENCE
	" (1 OPERATOR(pg_catalog.+) coalesce(e.confidence," GIVEN ","
	"   m.importance)) OPERATOR(pg_catalog./) 2" OF_MEMORY IS_FACT IS_INDEPENDENT RETURNING;

#define CONSOLIDATED                                           \
	PROM_MEMORY_ADD_VERSION(                                   \
		"$2", "$4", "pg_catalog.clock_timestamp()", "'vault'", \
		"m.metadata OPERATOR(pg_catalog.||)"                   \
		" pg_catalog.jsonb_build_object('consolidated_from',"  \
		" m.kind)",                                            \
		"false, NULL, NULL")

static const char consolidate_sql[] =
	CONSOLIDATED PROM_MEMORY_NEWEST
	" AND m.kind OPERATOR(pg_catalog.=) $3 AND NOT m.forgotten"
	" AND NOT " PROM_MEMORY_IS_PINNED
	" AND NOT " PROM_MEMORY_IS_TWICE("s.kind OPERATOR(pg_catalog.=) 'vault'");

/* What it was before, once it does not succeed nearly always any more. */
static const char release_sql[] =
	PROM_MEMORY_ADD_VERSION(
		"$2", "$4", "pg_catalog.clock_timestamp()", "$3",
		"m.metadata OPERATOR(pg_catalog.-) 'consolidated_from'",
		"false, NULL, NULL") PROM_MEMORY_NEWEST
	" AND m.kind OPERATOR(pg_catalog.=) 'vault' AND NOT m.forgotten"
	" AND m.metadata OPERATOR(pg_catalog.->>) 'consolidated_from'"
	"   OPERATOR(pg_catalog.=) $3"
	" AND NOT " PROM_MEMORY_IS_PINNED
	" AND NOT " PROM_MEMORY_IS_TWICE("s.kind OPERATOR(pg_catalog.=) $3");

/* Of several in the order of their ids, before any memory is locked. */
static void
lock_evidence(int64 memory_id)
{
	LockDatabaseObject(
		get_relname_relid("_evidence", get_namespace_oid("prometheus", false)),
		(Oid) memory_id, (uint16) (memory_id >> 32), ExclusiveLock);
}

/* What evidence says of a memory. */
typedef struct Shown
{
	int64 memory_id;
	bool is_proven;
} Shown;

/* Its content never changes. */
static const char *
read_content(int64 memory_id)
{
	static const char content_sql[] =
		"SELECT m.content FROM prometheus._memory m"
		" WHERE m.memory_id OPERATOR(pg_catalog.=) $1 LIMIT 1";
	Oid type = INT8OID;
	Datum value = Int64GetDatum(memory_id);

	if (prom_execute_now(content_sql, 1, &type, &value, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._memory");
	return SPI_processed > 0 ? prom_row_text(0, 1) : "";
}

static bool
is_in_vault(int64 memory_id)
{
	static const char kind_sql[] =
		"SELECT m.kind OPERATOR(pg_catalog.=) 'vault'"
		" FROM prometheus._memory m" PROM_MEMORY_NEWEST;
	Oid type = INT8OID;
	Datum value = Int64GetDatum(memory_id);

	if (prom_execute_now(kind_sql, 1, &type, &value, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._memory");
	return SPI_processed > 0 && prom_row_bool(0, 1);
}

/* Into the vault, or out of it, if it is not there yet. */
static void
move(const PromMemoryOwner *owner, const Shown *shown, const char *kind,
	 int64 task_id)
{
	Oid types[4] = {INT8OID, INT8OID, TEXTOID, INT8OID};
	Datum values[4] = {Int64GetDatum(shown->memory_id),
					   Int64GetDatum(prom_mark_newest()),
					   CStringGetTextDatum(kind), Int64GetDatum(task_id)};

	if (prom_execute_now(shown->is_proven ? consolidate_sql : release_sql, 4,
						 types, values, NULL, false) != SPI_OK_INSERT)
		elog(ERROR, "could not write prometheus._memory");
	if (SPI_processed == 0)
		return;
	prom_embedded_move(shown->memory_id);
	prom_eviction_run(owner, shown->is_proven ? "vault" : kind,
					  shown->memory_id, true);
}

/* All are locked before any is written: so it is in one order. */
static void
move_all(const PromMemoryOwner *owner, const Shown *shown, int n,
		 const char *kind, int64 task_id)
{
	PromMemoryKey *keys = palloc(2 * (n + 1) * sizeof(PromMemoryKey));

	for (int i = 0; i < n; i++)
	{
		keys[2 * i].kind = kind;
		keys[2 * i + 1].kind = "vault";
		keys[2 * i].content = keys[2 * i + 1].content =
			read_content(shown[i].memory_id);
	}
	if (n > 0)
		prom_memory_lock_all(owner, keys, 2 * n);
	for (int i = 0; i < n; i++)
		move(owner, &shown[i], kind, task_id);
	pfree(keys);
}

/* Add evidence: is the memory in its wrong place by it? */
static bool
add(const char *sql, const PromMemoryOwner *owner, Shown *shown, int64 task_id,
	double score, float4 proven)
{
	Oid types[6] = {INT8OID, TEXTOID, OIDOID, TEXTOID, INT8OID, FLOAT8OID};
	Datum values[6];
	char nulls[7] = "      ";

	values[0] = Int64GetDatum(shown->memory_id);
	values[1] = CStringGetTextDatum(owner->name);
	values[2] = ObjectIdGetDatum(owner->oid);
	values[3] = CStringGetTextDatum(owner->agent);
	values[4] = Int64GetDatum(task_id);
	values[5] = Float8GetDatum(score);
	nulls[5] = score < 0 ? 'n' : ' ';
	if (prom_execute_now(sql, 6, types, values, nulls, false) !=
		SPI_OK_INSERT_RETURNING)
		elog(ERROR, "could not write prometheus._evidence");
	if (SPI_processed == 0)
		return false;
	shown->is_proven = (float4) prom_row_float8(0, 1) > proven;
	return shown->is_proven != is_in_vault(shown->memory_id);
}

static int
compare_ids(const void *a, const void *b)
{
	int64 one = ((const Shown *) a)->memory_id;
	int64 other = ((const Shown *) b)->memory_id;

	return one < other ? -1 : one > other;
}

void
prom_evidence_of_procedures(const PromMemoryOwner *owner, const PromTold *told,
							int n, int64 task_id, double score)
{
	Shown *shown = palloc0((n + 1) * sizeof(Shown));
	int nshown = 0;
	int nmoved = 0;

	for (int i = 0; i < n; i++)
		if (strcmp(told[i].kind, "procedural") == 0 ||
			strcmp(told[i].kind, "vault") == 0)
			shown[nshown++].memory_id = told[i].memory_id;
	qsort(shown, nshown, sizeof(Shown), compare_ids);
	for (int i = 0; i < nshown; i++)
		lock_evidence(shown[i].memory_id);
	for (int i = 0; i < nshown; i++)
		if (add(of_procedure_sql, owner, &shown[i], task_id, score,
				PROVEN_RATE))
			shown[nmoved++] = shown[i];
	move_all(owner, shown, nmoved, "procedural", task_id);
}

/* Who remembers a fact has locked it, and so its evidence. */
void
prom_evidence_of_fact(const PromMemoryOwner *owner, int64 memory_id,
					  int64 task_id)
{
	Shown shown = {.memory_id = memory_id};

	if (add(of_fact_sql, owner, &shown, task_id, -1, PROVEN_CONFIDENCE))
		move_all(owner, &shown, 1, "semantic", task_id);
}
