/*
 * generation.c
 *	  Executor: writes a generation of an agent, and what it has shown.
 *
 * One transaction with the step that ends it: so it is there once, whatever
 * dies.  The score is that of the test cases and of a judge.  What the attempt
 * had been told as procedures has succeeded or failed with it; what it has
 * shown itself is learned if it was good enough, and counts as shown once.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"

#include "event.h"
#include "evidence.h"
#include "evolution.h"
#include "learning.h"
#include "wakeup.h"
#include "xact.h"

/* What it has shown of a skill. */
typedef struct Shown
{
	const PromGeneration *generation;
	int64 memory_id; /* 0: no procedure of this skill */
	double success_rate;
} Shown;

/* A procedure of that skill that the agent has, the best one first. */
static const char known_sql[] =
	"SELECT m.memory_id FROM prometheus._memory m"
	" LEFT JOIN LATERAL (SELECT x.confidence FROM prometheus._evidence x"
	"   WHERE x.memory_id OPERATOR(pg_catalog.=) m.memory_id"
	"   ORDER BY x.number DESC LIMIT 1) e ON true"
	" WHERE m.owner OPERATOR(pg_catalog.=) $1"
	"   AND m.owner_oid OPERATOR(pg_catalog.=) $2"
	"   AND m.agent OPERATOR(pg_catalog.=) $3"
	"   AND m.kind OPERATOR(pg_catalog.=) ANY ('{procedural,vault}')"
	"   AND m.metadata OPERATOR(pg_catalog.->>) 'skill'"
	"     OPERATOR(pg_catalog.=) $4 AND NOT m.forgotten"
	"   AND (m.expires_at IS NULL OR m.expires_at"
	"     OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp())"
	"   AND NOT EXISTS (SELECT FROM prometheus._memory n"
	"     WHERE n.memory_id OPERATOR(pg_catalog.=) m.memory_id"
	"       AND n.version OPERATOR(pg_catalog.>) m.version)"
	" ORDER BY e.confidence DESC NULLS LAST, m.memory_id LIMIT 1";

static int64
find_known(const PromGeneration *generation)
{
	const PromMemoryOwner *owner = &generation->evolution->owner;
	Oid types[4] = {TEXTOID, OIDOID, TEXTOID, TEXTOID};
	Datum values[4] = {CStringGetTextDatum(owner->name),
					   ObjectIdGetDatum(owner->oid),
					   CStringGetTextDatum(owner->agent),
					   CStringGetTextDatum(generation->proposal->skill)};

	if (prom_execute_now(known_sql, 4, types, values, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._memory");
	return SPI_processed == 0 ? 0 : prom_row_int64(0, 1);
}

/* The procedure as the judge saw it in the answer; its id. */
static int64
learn(const PromGeneration *generation)
{
	const PromProposal *proposal = generation->proposal;
	PromMemory memory = {.content = generation->procedure,
						 .kind = "procedural",
						 .importance = (float4) generation->score,
						 .task_id = generation->attempt_id,
						 .once = true};
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"source\": \"evolution\", \"task_id\": %lld, \"difficulty\": %d, \"skill\": ",
					 (long long) generation->attempt_id, proposal->level);
	escape_json(&json, proposal->skill);
	appendStringInfoString(&json, ", \"category\": ");
	escape_json(&json, proposal->category);
	appendStringInfoChar(&json, '}');
	memory.metadata = DatumGetJsonbP(
		DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data)));
	return prom_memory_add(&generation->evolution->owner, &memory);
}

static void
read_rate(Shown *shown)
{
	static const char rate_sql[] =
		"SELECT x.confidence::pg_catalog.float8 FROM prometheus._evidence x"
		" WHERE x.memory_id OPERATOR(pg_catalog.=) $1"
		" ORDER BY x.number DESC LIMIT 1";
	Oid type = INT8OID;
	Datum value = Int64GetDatum(shown->memory_id);

	if (prom_execute_now(rate_sql, 1, &type, &value, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._evidence");
	shown->success_rate = SPI_processed == 0 ? -1 : prom_row_float8(0, 1);
}

static bool
was_told(const PromTold *told, int n, int64 memory_id)
{
	for (int i = 0; i < n; i++)
		if (told[i].memory_id == memory_id)
			return true;
	return false;
}

/*
 * Evidence is what the attempt was told, by the score that it was given and not
 * by what it thinks of itself; and what it has found, if it was told nothing of
 * that skill.
 */
static void
show(void *arg)
{
	Shown *shown = arg;
	const PromGeneration *generation = shown->generation;
	const PromMemoryOwner *owner = &generation->evolution->owner;
	int ntold;
	PromTold *told = prom_evidence_read_told(generation->attempt_id,
											 PG_INT32_MAX, &ntold);
	bool is_told;

	prom_evidence_of_procedures(owner, told, ntold, generation->attempt_id,
								generation->score);
	shown->memory_id = find_known(generation);
	is_told = was_told(told, ntold, shown->memory_id);
	if (shown->memory_id == 0 && generation->procedure != NULL &&
		generation->score >= PROM_EVOLUTION_LEARNED)
	{
		PromTold own = {.kind = "procedural"};

		own.memory_id = shown->memory_id = learn(generation);
		/* Else it was told the same for another skill, and has shown it. */
		if (!was_told(told, ntold, own.memory_id))
			prom_evidence_of_procedures(owner, &own, 1, generation->attempt_id,
										generation->score);
		is_told = true;
	}
	/* It has the procedure, and this says nothing of it. */
	if (!is_told)
		shown->memory_id = 0;
	if (shown->memory_id != 0)
		read_rate(shown);
}

/* Let nobody else add a generation of an owner and agent. */
static void
lock_generations(const PromMemoryOwner *owner)
{
	uint64 hash = hash_bytes_extended((const unsigned char *) owner->agent,
									  strlen(owner->agent), owner->oid);

	LockDatabaseObject(
		get_relname_relid("_evolution", get_namespace_oid("prometheus", false)),
		(Oid) hash, (uint16) (hash >> 32), ExclusiveLock);
}

/*
 * $1 is the row but for its number and what comes of it.  Those before it at
 * its level count back to the last one of another.
 */
static const char add_sql[] =
	"INSERT INTO prometheus._evolution (task_id, iteration, step, generation,"
	" xid, ended_at, owner_oid, owner, agent, domain, level, level_after,"
	" category, skill, request, attempts, cases, passed, judged, first_score,"
	" score, succeeded, memory_id, success_rate, weights, proposal_id,"
	" attempt_id, judge_id)"
	" SELECT r.task_id, r.iteration, r.step,"
	"   coalesce((SELECT pg_catalog.max(e.generation)"
	"     FROM prometheus._evolution e"
	"     WHERE e.owner OPERATOR(pg_catalog.=) r.owner"
	"       AND e.owner_oid OPERATOR(pg_catalog.=) r.owner_oid"
	"       AND e.agent OPERATOR(pg_catalog.=) r.agent), 0)"
	"     OPERATOR(pg_catalog.+) 1,"
	"   prometheus._xid(), pg_catalog.clock_timestamp(), r.owner_oid, r.owner,"
	"   r.agent, r.domain, r.level, prometheus._evolution_level(r.level,"
	"     r.succeeded, coalesce(b.before, '{}')),"
	"   r.category, r.skill, r.request, r.attempts, r.cases, r.passed,"
	"   r.judged, r.first_score, r.score, r.succeeded, r.memory_id,"
	"   r.success_rate, prometheus._evolution_weights(coalesce(b.weights, '{}'),"
	"     r.category, r.succeeded), r.proposal_id, r.attempt_id, r.judge_id"
	" FROM pg_catalog.jsonb_to_record($1) AS r (task_id pg_catalog.int8,"
	"   iteration pg_catalog.int4, step pg_catalog.int4,"
	"   owner_oid pg_catalog.oid, owner pg_catalog.text, agent pg_catalog.text,"
	"   domain pg_catalog.text, level pg_catalog.int4, category pg_catalog.text,"
	"   skill pg_catalog.text, request pg_catalog.text,"
	"   attempts pg_catalog.int4, cases pg_catalog.int4,"
	"   passed pg_catalog.int4, judged pg_catalog.float8,"
	"   first_score pg_catalog.float8, score pg_catalog.float8,"
	"   succeeded pg_catalog.bool, memory_id pg_catalog.int8,"
	"   success_rate pg_catalog.float4, proposal_id pg_catalog.int8,"
	"   attempt_id pg_catalog.int8, judge_id pg_catalog.int8)"
	" CROSS JOIN LATERAL (SELECT"
	"   pg_catalog.array_agg(l.succeeded ORDER BY l.generation DESC)"
	"     FILTER (WHERE l.same) AS before,"
	"   (pg_catalog.array_agg(l.weights ORDER BY l.generation DESC))[1]"
	"     AS weights"
	"   FROM (SELECT e.succeeded, e.generation, e.weights, pg_catalog.bool_and("
	"       e.level OPERATOR(pg_catalog.=) r.level)"
	"       OVER (ORDER BY e.generation DESC) AS same"
	"     FROM (SELECT x.succeeded, x.generation, x.weights, x.level"
	"       FROM prometheus._evolution x"
	"       WHERE x.owner OPERATOR(pg_catalog.=) r.owner"
	"         AND x.owner_oid OPERATOR(pg_catalog.=) r.owner_oid"
	"         AND x.agent OPERATOR(pg_catalog.=) r.agent"
	"         AND x.domain OPERATOR(pg_catalog.=) r.domain"
	"       ORDER BY x.generation DESC LIMIT 4) e) l) b"
	" RETURNING generation, level_after";

static void
add_text(StringInfo json, const char *name, const char *text)
{
	appendStringInfo(json, ", \"%s\": ", name);
	escape_json(json, text);
}

static Jsonb *
make_row(const PromGeneration *generation, const Shown *shown)
{
	const PromEvolution *evolution = generation->evolution;
	const PromProposal *proposal = generation->proposal;
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"task_id\": %lld, \"iteration\": %d, \"step\": %d, \"owner_oid\": %u, \"level\": %d, \"attempts\": %d, \"cases\": %d",
					 (long long) evolution->task_id, generation->iteration,
					 generation->step, evolution->owner.oid, proposal->level,
					 generation->attempts, proposal->ncases);
	appendStringInfo(&json, ", \"passed\": %d, \"first_score\": %.4f, \"score\": %.4f, \"succeeded\": %s, \"proposal_id\": %lld, \"attempt_id\": %lld",
					 generation->passed, generation->first_score,
					 generation->score,
					 generation->score >= PROM_EVOLUTION_SUCCESS ? "true"
																 : "false",
					 (long long) proposal->task_id,
					 (long long) generation->attempt_id);
	add_text(&json, "owner", evolution->owner.name);
	add_text(&json, "agent", evolution->owner.agent);
	add_text(&json, "domain", evolution->domain);
	add_text(&json, "category", proposal->category);
	add_text(&json, "skill", proposal->skill);
	add_text(&json, "request", proposal->request);
	if (generation->judge_id != 0)
		appendStringInfo(&json, ", \"judged\": %.4f, \"judge_id\": %lld",
						 generation->judged, (long long) generation->judge_id);
	if (shown->memory_id != 0)
		appendStringInfo(&json, ", \"memory_id\": %lld",
						 (long long) shown->memory_id);
	if (shown->success_rate >= 0)
		appendStringInfo(&json, ", \"success_rate\": %.6f",
						 shown->success_rate);
	appendStringInfoChar(&json, '}');
	return DatumGetJsonbP(
		DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data)));
}

static void
tell(const PromGeneration *generation, const Shown *shown, int64 number)
{
	const PromEvolution *evolution = generation->evolution;
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"generation\": %lld, \"level\": %d, \"attempts\": %d, \"score\": %.4f, \"success_rate\": ",
					 (long long) number, generation->proposal->level,
					 generation->attempts, generation->score);
	if (shown->success_rate >= 0)
		appendStringInfo(&json, "%.4f", shown->success_rate);
	else
		appendStringInfoString(&json, "null");
	add_text(&json, "skill_name", generation->proposal->skill);
	add_text(&json, "domain", evolution->domain);
	appendStringInfoChar(&json, '}');
	(void) prom_event_add_of(&evolution->owner, evolution->task_id,
							 "evolution", json.data,
							 psprintf("evolution/%lld", (long long) number));
	prom_wakeup_publisher();
}

/* What it has shown is lost if that cannot be written; the row says so. */
void
prom_generation_add(const PromGeneration *generation)
{
	Shown shown = {.generation = generation, .success_rate = -1};
	Oid type = JSONBOID;
	const char *failure = prom_learn_try(show, &shown);
	Datum row;

	if (failure != NULL)
	{
		ereport(LOG, (errmsg("what task %lld has shown is not remembered: %s",
							 (long long) generation->attempt_id,
							 failure)));
		shown.memory_id = 0;
		shown.success_rate = -1;
	}
	lock_generations(&generation->evolution->owner);
	row = JsonbPGetDatum(make_row(generation, &shown));
	if (prom_execute_now(add_sql, 1, &type, &row, NULL, false) !=
			SPI_OK_INSERT_RETURNING ||
		SPI_processed != 1)
		elog(ERROR, "could not write prometheus._evolution");
	tell(generation, &shown, prom_row_int64(0, 1));
}

static PromStatement report_statement = {
	"SELECT prometheus._evolution_report(pg_catalog.array_agg(e"
	"   ORDER BY e.iteration))"
	" FROM prometheus._evolution e"
	" WHERE e.task_id OPERATOR(pg_catalog.=) $1",
	1,
	{INT8OID},
	NULL,
};

const char *
prom_generation_report(const PromEvolution *evolution)
{
	Datum value = Int64GetDatum(evolution->task_id);
	const char *text;

	prom_statement_run(&report_statement, &value, NULL, true);
	text = prom_row_text(0, 1);
	SPI_freetuptable(SPI_tuptable);
	return text;
}
