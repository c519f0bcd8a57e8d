/*
 * skill.c
 *	  Gives a skill of one agent to another.
 *
 * What is given is the procedure, not what was shown of it: evidence is of the
 * agent that it was found with, so the other one begins anew and only knows
 * from where it has it.  What it knows itself comes first.  A procedure that is
 * much the same as one of its own, and succeeds much more or less often, is
 * refused: for one of the two agents, what was shown says something else.
 *
 * Which skills there are is asked as the caller, of the view, so that nobody
 * gives what he may not see; the rest as the extension's owner.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "as_of.h"
#include "memory.h"
#include "role.h"
#include "xact.h"

/* Above this a skill is not shared. */
#define MAX_CONFLICT 0.5

/* What is shared. */
typedef struct Skill
{
	int64 memory_id;
	char *agent;
	char *name;
	char *category; /* NULL: none */
	float8 rate;
	int32 uses;
	PromMemoryOwner to;
	PromMemory copy;
} Skill;

/* What the agent knows, and how much the skill is against it. */
typedef struct Conflict
{
	int64 memory_id;
	float8 similarity;
	float8 rate;
	float8 score; /* 0: there is none */
} Conflict;

/* The best one of each owner, the caller's own first. */
static const char find_sql[] =
	"SELECT s.memory_id, s.owner, s.agent, s.category,"
	" s.success_rate::pg_catalog.float8, s.uses, s.content"
	" FROM (SELECT DISTINCT ON (k.owner) k.* FROM prometheus.skill k"
	"   WHERE k.name OPERATOR(pg_catalog.=) $1"
	"   ORDER BY k.owner, k.agent OPERATOR(pg_catalog.=) $2,"
	"     k.success_rate DESC, k.uses DESC, k.memory_id) s"
	" ORDER BY s.owner OPERATOR(pg_catalog.<>) $3, s.owner LIMIT 2";

/* Of the agent, what is of the same name or category, or says the same. */
static const char known_sql[] =
	"SELECT pg_catalog.array_agg(k.memory_id),"
	" pg_catalog.array_agg(k.success_rate)"
	" FROM prometheus.skill k"
	" WHERE k.owner OPERATOR(pg_catalog.=) $1"
	"   AND k.agent OPERATOR(pg_catalog.=) $2"
	"   AND (k.name OPERATOR(pg_catalog.=) $3"
	"     OR k.category OPERATOR(pg_catalog.=) $4"
	"     OR k.content OPERATOR(pg_catalog.=) $5)";

static const char agent_sql[] =
	"SELECT FROM prometheus._agent a"
	" WHERE a.name OPERATOR(pg_catalog.=) $1 LIMIT 1";

/* Similar: of the words of both, the part that each has. */
static const char conflict_sql[] =
	"SELECT k.memory_id, c.similarity, k.rate::pg_catalog.float8,"
	"  c.similarity OPERATOR(pg_catalog.*) pg_catalog.abs("
	"    $5 OPERATOR(pg_catalog.-) k.rate::pg_catalog.float8)"
	" FROM (SELECT pg_catalog.tsvector_to_array("
	"     prometheus._words($1, $2)) AS words) o"
	" CROSS JOIN ROWS FROM (pg_catalog.unnest($3),"
	"   pg_catalog.unnest($4)) k(memory_id, rate)"
	" CROSS JOIN LATERAL (SELECT m.content, m.words"
	"   FROM prometheus._memory m"
	"   WHERE m.memory_id OPERATOR(pg_catalog.=) k.memory_id"
	"   ORDER BY m.version DESC LIMIT 1) m"
	" CROSS JOIN LATERAL (SELECT CASE"
	"   WHEN m.content OPERATOR(pg_catalog.=) $1 THEN 1"
	"   ELSE coalesce((SELECT pg_catalog.count(*) FILTER ("
	"         WHERE w.agents OPERATOR(pg_catalog.=) 2)::pg_catalog.float8"
	"       OPERATOR(pg_catalog./) nullif(pg_catalog.count(*), 0)"
	"     FROM (SELECT pg_catalog.count(*) AS agents"
	"       FROM (SELECT pg_catalog.unnest(o.words) AS word UNION ALL"
	"         SELECT pg_catalog.unnest("
	"           pg_catalog.tsvector_to_array(m.words))) b"
	"       GROUP BY b.word) w), 0) END AS similarity) c"
	" ORDER BY 4 DESC, 1 LIMIT 1";

/* What is of this very memory stays with it. */
static const char copy_sql[] =
	"SELECT m.owner_oid, m.importance::pg_catalog.float8,"
	" (m.metadata OPERATOR(pg_catalog.-) '{consolidated_from,pinned,"
	"confidence,source,task_id,supersedes}'::pg_catalog.text[])"
	"   OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object("
	"     'skill', $2, 'shared_from', pg_catalog.jsonb_build_object("
	"       'memory_id', m.memory_id, 'agent', m.agent,"
	"       'success_rate', $3::pg_catalog.float4, 'uses', $4,"
	"       'shared_at', pg_catalog.clock_timestamp())),"
	" m.embedding, m.expires_at"
	"   OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp()"
	" FROM prometheus._memory m" PROM_MEMORY_NEWEST " AND NOT m.forgotten";

static void
select_now(const char *sql, int nargs, Oid *types, Datum *values,
		   const char *nulls)
{
	if (prom_execute_now(sql, nargs, types, values, nulls, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read skills");
}

static void
raise_unknown(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("you have no skill \"%s\"", name),
			 errhint("prometheus.skill has those that you have: a procedure is one when a task has shown something of it.")));
}

/* As the caller. */
static void
find(Skill *skill)
{
	char *caller = GetUserNameFromId(GetUserId(), false);
	Oid types[3] = {TEXTOID, TEXTOID, TEXTOID};
	Datum values[3] = {CStringGetTextDatum(skill->name),
					   CStringGetTextDatum(skill->to.agent),
					   CStringGetTextDatum(caller)};

	select_now(find_sql, 3, types, values, NULL);
	if (SPI_processed == 0)
		raise_unknown(skill->name);
	skill->to.name = prom_row_text(0, 2);
	if (SPI_processed > 1 && strcmp(skill->to.name, caller) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("more than one role has a skill \"%s\"", skill->name),
				 errdetail("Two of them are \"%s\" and \"%s\".",
						   skill->to.name, prom_row_text(1, 2)),
				 errhint("SET ROLE to the one whose skill is to be shared.")));
	skill->memory_id = prom_row_int64(0, 1);
	skill->agent = prom_row_text(0, 3);
	skill->category = prom_row_text_or_null(0, 4);
	skill->rate = prom_row_float8(0, 5);
	skill->uses = prom_row_int32(0, 6);
	skill->copy.content = prom_row_text(0, 7);
	if (strcmp(skill->agent, skill->to.agent) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the skill \"%s\" is agent \"%s\"'s own", skill->name,
						skill->agent),
				 errhint("No other agent has one of that name.")));
}

/* As the caller; false: the agent knows nothing that it could conflict with. */
static bool
find_known(const Skill *skill, ArrayType **ids, ArrayType **rates)
{
	Oid types[5] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum values[5];
	char nulls[6] = "     ";

	values[0] = CStringGetTextDatum(skill->to.name);
	values[1] = CStringGetTextDatum(skill->to.agent);
	values[2] = CStringGetTextDatum(skill->name);
	values[3] = skill->category == NULL ? (Datum) 0
										: CStringGetTextDatum(skill->category);
	nulls[3] = skill->category == NULL ? 'n' : ' ';
	values[4] = CStringGetTextDatum(skill->copy.content);
	select_now(known_sql, 5, types, values, nulls);
	*ids = prom_row_array_or_null(0, 1);
	*rates = prom_row_array_or_null(0, 2);
	return *ids != NULL;
}

static void
check_agent(const char *agent)
{
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(agent);

	select_now(agent_sql, 1, &type, &value, NULL);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("agent \"%s\" does not exist", agent),
				 errhint("SELECT name FROM prometheus.agent lists them; prometheus_set_agent() makes one.")));
}

static void
find_conflict(const Skill *skill, ArrayType *ids, ArrayType *rates,
			  Conflict *conflict)
{
	Oid types[5] = {TEXTOID, TEXTOID, INT8ARRAYOID, FLOAT4ARRAYOID, FLOAT8OID};
	Datum values[5] = {CStringGetTextDatum(skill->copy.content),
					   CStringGetTextDatum(skill->to.agent),
					   PointerGetDatum(ids), PointerGetDatum(rates),
					   Float8GetDatum(skill->rate)};

	select_now(conflict_sql, 5, types, values, NULL);
	if (SPI_processed == 0)
		return;
	conflict->memory_id = prom_row_int64(0, 1);
	conflict->similarity = prom_row_float8(0, 2);
	conflict->rate = prom_row_float8(0, 3);
	conflict->score = prom_row_float8(0, 4);
}

static void
check_conflict(const Skill *skill, const Conflict *conflict)
{
	if (conflict->score > MAX_CONFLICT)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the skill \"%s\" conflicts with what agent \"%s\" knows",
						skill->name, skill->to.agent),
				 errdetail("Its conflict score with memory %lld is %.3f, more than %.3f: they are alike by %.3f, and their success rates are %.3f and %.3f.",
						   (long long) conflict->memory_id, conflict->score,
						   MAX_CONFLICT, conflict->similarity, skill->rate,
						   conflict->rate),
				 errhint("If what the agent knows is wrong, prometheus_forget(%lld) takes it away.",
						 (long long) conflict->memory_id)));
}

/* Read what the copy is to have besides its content. */
static void
read_copy(Skill *skill)
{
	Oid types[4] = {INT8OID, TEXTOID, FLOAT8OID, INT4OID};
	Datum values[4] = {Int64GetDatum(skill->memory_id),
					   CStringGetTextDatum(skill->name),
					   Float8GetDatum(skill->rate),
					   Int32GetDatum(skill->uses)};
	Datum rest;
	bool isnull;

	select_now(copy_sql, 4, types, values, NULL);
	if (SPI_processed == 0)
		raise_unknown(skill->name);
	skill->to.oid = prom_row_oid(0, 1);
	skill->copy.kind = "procedural";
	skill->copy.importance = (float4) prom_row_float8(0, 2);
	skill->copy.metadata = prom_row_jsonb_or_null(0, 3);
	skill->copy.embedding = prom_row_array_or_null(0, 4);
	rest = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 5,
						 &isnull);
	if (!isnull)
	{
		skill->copy.ttl = palloc(sizeof(Interval));
		*skill->copy.ttl = *DatumGetIntervalP(rest);
	}
}

/* The id that the procedure has with the agent; *known: it had it already. */
static int64
give(Skill *skill, bool *known)
{
	int64 id;

	read_copy(skill);
	prom_memory_lock(&skill->to, skill->copy.kind, skill->copy.content);
	id = prom_memory_known(&skill->to, &skill->copy);
	*known = id != 0;
	return *known ? id : prom_memory_add(&skill->to, &skill->copy);
}

static void
share(Skill *skill, Conflict *conflict, int64 *id, bool *known)
{
	ArrayType *ids;
	ArrayType *rates;
	PromOwner before;
	bool knows;

	find(skill);
	knows = find_known(skill, &ids, &rates);
	prom_role_become_owner(&before);
	check_agent(skill->to.agent);
	if (knows)
		find_conflict(skill, ids, rates, conflict);
	check_conflict(skill, conflict);
	*id = give(skill, known);
	prom_role_restore(&before);
}

PG_FUNCTION_INFO_V1(prom_share_skill);

Datum
prom_share_skill(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	Skill skill = {.name = text_to_cstring(PG_GETARG_TEXT_PP(0))};
	Conflict conflict = {0};
	TupleDesc desc;
	Datum values[5];
	bool nulls[5] = {false};
	HeapTuple row;
	int64 id;
	bool known;

	PreventCommandDuringRecovery("prometheus_share_skill()");
	PreventCommandIfReadOnly("prometheus_share_skill()");
	prom_as_of_forbid_writing();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);
	skill.to.agent = text_to_cstring(PG_GETARG_TEXT_PP(1));
	SPI_connect();
	share(&skill, &conflict, &id, &known);
	MemoryContextSwitchTo(context);
	values[0] = Int64GetDatum(id);
	values[1] = CStringGetTextDatum(skill.to.name);
	values[2] = CStringGetTextDatum(skill.agent);
	values[3] = BoolGetDatum(!known);
	values[4] = Float8GetDatum(conflict.score);
	row = heap_form_tuple(desc, values, nulls);
	SPI_finish();
	PG_RETURN_DATUM(HeapTupleGetDatum(row));
}
