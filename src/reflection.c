/*
 * reflection.c
 *	  What a model is asked about its own answer, and what is learned from it.
 *
 * The answer is final whatever comes of this.  Lessons are remembered as
 * experiences, as important as the answer was good.  How good it was counts for
 * the procedures that the task was told, too; and a memory that it was told and
 * that has turned out wrong gives way to what is true.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "contradiction.h"
#include "evidence.h"
#include "evolution.h"
#include "hidden.h"
#include "learning.h"
#include "reflection.h"
#include "xact.h"

#define SCORE "{\"type\":\"number\",\"minimum\":0,\"maximum\":1}"
#define TEXT "{\"type\":\"string\"}"

/* Lessons of one task that are remembered. */
#define MAX_LESSONS 5

/* Memories that one task contradicts. */
#define MAX_CONTRADICTIONS 5

#define CONTRADICTIONS                                         \
	",\"contradictions\":{\"type\":\"array\",\"items\":{"      \
	"\"type\":\"object\",\"properties\":{"                     \
	"\"memory_id\":{\"type\":\"integer\"},\"fact\":" TEXT "}," \
	"\"required\":[\"memory_id\",\"fact\"],"                   \
	"\"additionalProperties\":false}}"

#define SCHEMA(properties, required)                                   \
	"{\"type\":\"object\",\"properties\":{"                            \
	"\"aspects\":{\"type\":\"array\",\"items\":{\"type\":\"object\","  \
	"\"properties\":{\"aspect\":{\"type\":\"string\",\"enum\":["       \
	"\"correctness\",\"efficiency\",\"completeness\",\"clarity\","     \
	"\"safety\",\"relevance\"]},\"score\":" SCORE ","                  \
	"\"comment\":" TEXT "},"                                           \
	"\"required\":[\"aspect\",\"score\",\"comment\"],"                 \
	"\"additionalProperties\":false}},"                                \
	"\"appropriateness\":" SCORE ",\"effectiveness\":" SCORE ","       \
	"\"critique\":" TEXT ",\"lessons\":{\"type\":\"array\","           \
	"\"items\":" TEXT "},\"correction\":" TEXT properties "},"         \
	"\"required\":[\"aspects\",\"appropriateness\",\"effectiveness\"," \
	"\"critique\",\"lessons\",\"correction\"" required "],"            \
	"\"additionalProperties\":false}"

/* What was told nothing is not asked what of that was wrong. */
static const char plain_schema[] = SCHEMA("", "");
static const char told_schema[] = SCHEMA(CONTRADICTIONS,
										 ",\"contradictions\"");

/* A model that leaves out what it has nothing to say to is understood. */
const char prom_reflection_reply_schema[] = SCHEMA(CONTRADICTIONS, "");

static const char look_back[] =
	"Your answer above is given. Look back at it. Judge its correctness, efficiency, completeness, clarity, safety "
	"and relevance (aspects, each with a score from 0 to 1 and a comment). appropriateness, from 0 to 1: was this the "
	"right thing to do? effectiveness, from 0 to 1: did it do what was asked? critique: what was good and what was not, "
	"in a few sentences. lessons: what should be remembered for later tasks, each in one sentence that can be "
	"understood alone; an empty list if there is nothing new. correction: what should have been answered instead; "
	"empty if nothing. ";
static const char look_at_memories[] =
	"contradictions: which of the memories that you were given, by memory_id, have turned out to be wrong or out of "
	"date, and for each the fact that is true instead, in one sentence that can be understood alone; an empty list if "
	"none has, or if you only suppose so. ";
static const char look_out[] =
	"Repeat no keys or passwords. Answer with one JSON object that has exactly these members, and nothing else.";

const char *
prom_reflection_schema(bool told)
{
	return told ? told_schema : plain_schema;
}

const char *
prom_reflection_question(bool told)
{
	return psprintf("%s%s%s", look_back, told ? look_at_memories : "",
					look_out);
}

const char prom_reflection_again[] =
	"You have looked back at your answer above, and it is not good enough. Answer the request again, as a whole and "
	"without a word of this message; call tools if that helps. What you found: ";

const char prom_reflection_correction[] =
	"\nWhat should have been answered instead: ";

static PromStatement read_statement = {
	"SELECT (jsonb_build_object('score', round((0.4 * appropriateness +"
	"   0.6 * effectiveness), 4)) || $1)::text,"
	"  round(0.4 * appropriateness + 0.6 * effectiveness, 4)::float8,"
	"  lesson"
	" FROM (SELECT ($1 ->> 'appropriateness')::numeric AS appropriateness,"
	"   ($1 ->> 'effectiveness')::numeric AS effectiveness) s"
	" LEFT JOIN LATERAL (SELECT l.value AS lesson"
	"   FROM jsonb_array_elements_text($1 -> 'lessons')"
	"     WITH ORDINALITY l(value, place)"
	"   WHERE btrim(l.value) <> '' ORDER BY l.place LIMIT $2) l ON true",
	2,
	{JSONBOID, INT4OID},
	NULL,
};

/* By the schema each has both members; an id may be any number. */
static PromStatement contradictions_statement = {
	"SELECT c.memory_id::bigint, c.fact"
	" FROM (SELECT CASE WHEN trunc(n) BETWEEN 1 AND 9223372036854775807"
	"     THEN n END AS memory_id, l.value ->> 'fact' AS fact, l.place"
	"   FROM jsonb_array_elements(coalesce($1 -> 'contradictions', '[]'))"
	"     WITH ORDINALITY l(value, place)"
	"   CROSS JOIN LATERAL CAST(l.value ->> 'memory_id' AS numeric) n) c"
	" WHERE c.memory_id IS NOT NULL AND btrim(c.fact) <> ''"
	" ORDER BY c.place LIMIT $2",
	2,
	{JSONBOID, INT4OID},
	NULL,
};

/* What cannot be seen must not come back with a memory. */
static bool
is_plain(const char *text)
{
	return text != NULL && prom_hidden_in(text) == NULL;
}

static void
read_contradictions(Datum document, PromReflection *reflection)
{
	Datum values[2] = {document, Int32GetDatum(MAX_CONTRADICTIONS)};

	prom_statement_run(&contradictions_statement, values, NULL, true);
	reflection->contradictions = palloc((SPI_processed + 1) *
										sizeof(PromContradiction));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		PromContradiction *one =
			&reflection->contradictions[reflection->ncontradictions];

		one->memory_id = prom_row_int64(i, 1);
		one->fact = prom_row_text(i, 2);
		if (is_plain(one->fact))
			reflection->ncontradictions++;
	}
	SPI_freetuptable(SPI_tuptable);
}

void
prom_reflection_read(const char *reply, PromReflection *reflection)
{
	Datum values[2] = {
		DirectFunctionCall1(jsonb_in, CStringGetDatum(reply)),
		Int32GetDatum(MAX_LESSONS)};

	memset(reflection, 0, sizeof(*reflection));
	prom_statement_run(&read_statement, values, NULL, true);
	reflection->document = prom_row_text(0, 1);
	reflection->score = prom_row_float8(0, 2);
	reflection->lessons = palloc(SPI_processed * sizeof(char *));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		const char *lesson = prom_row_text_or_null(i, 3);

		if (is_plain(lesson))
			reflection->lessons[reflection->nlessons++] = lesson;
	}
	SPI_freetuptable(SPI_tuptable);
	read_contradictions(values[0], reflection);
}

/* What is remembered, whose it is, and of which task, before which step. */
typedef struct Lessons
{
	const PromReflection *reflection;
	const PromMemoryOwner *owner;
	int64 task_id;
	int32 step;
} Lessons;

/* Only what the task was told. */
static void
settle(const Lessons *lessons, const PromTold *told, int ntold)
{
	const PromReflection *reflection = lessons->reflection;

	for (int i = 0; i < reflection->ncontradictions; i++)
		for (int j = 0; j < ntold; j++)
			if (told[j].memory_id == reflection->contradictions[i].memory_id)
			{
				(void) prom_contradiction_settle(
					lessons->owner, told[j].memory_id,
					reflection->contradictions[i].fact, lessons->task_id);
				break;
			}
}

static void
remember(const Lessons *lessons)
{
	const PromReflection *reflection = lessons->reflection;
	const char *metadata = psprintf(
		"{\"source\": \"reflection\", \"task_id\": %lld}",
		(long long) lessons->task_id);

	for (int i = 0; i < reflection->nlessons; i++)
	{
		PromMemory memory = {.content = reflection->lessons[i],
							 .kind = "episodic",
							 .importance = (float4) reflection->score,
							 .task_id = lessons->task_id};

		memory.metadata = DatumGetJsonbP(
			DirectFunctionCall1(jsonb_in, CStringGetDatum(metadata)));
		(void) prom_memory_add(lessons->owner, &memory);
	}
}

/*
 * Evidence first: what is contradicted has been followed, and its success or
 * failure is that of the procedure that it was.
 */
static void
learn(void *arg)
{
	const Lessons *lessons = arg;
	int ntold;
	PromTold *told = prom_evidence_read_told(lessons->task_id, lessons->step,
											 &ntold);

	/* What was verified counts then, and not what it thinks of itself. */
	if (ntold > 0 && !prom_evolution_scores(lessons->task_id))
		prom_evidence_of_procedures(lessons->owner, told, ntold,
									lessons->task_id,
									lessons->reflection->score);
	settle(lessons, told, ntold);
	remember(lessons);
}

void
prom_reflection_learn(const PromReflection *reflection,
					  const PromMemoryOwner *owner, int64 task_id, int32 step)
{
	Lessons lessons = {reflection, owner, task_id, step};
	const char *failure = prom_learn_try(learn, &lessons);

	if (failure != NULL)
		ereport(LOG, (errmsg("what task %lld has shown is not remembered: %s",
							 (long long) task_id, failure)));
}
