/*
 * reflection.c
 *	  What a model is asked about its own answer, and what is learned from it.
 *
 * The answer is final whatever comes of this.  Lessons are remembered as
 * experiences, as important as the answer was good.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "hidden.h"
#include "learning.h"
#include "reflection.h"
#include "xact.h"

#define SCORE "{\"type\":\"number\",\"minimum\":0,\"maximum\":1}"
#define TEXT "{\"type\":\"string\"}"

/* Lessons of one task that are remembered. */
#define MAX_LESSONS 5

const char prom_reflection_schema[] =
	"{\"type\":\"object\",\"properties\":{"
	"\"aspects\":{\"type\":\"array\",\"items\":{\"type\":\"object\","
	"\"properties\":{\"aspect\":{\"type\":\"string\",\"enum\":["
	"\"correctness\",\"efficiency\",\"completeness\",\"clarity\",\"safety\","
	"\"relevance\"]},\"score\":" SCORE ",\"comment\":" TEXT "},"
	"\"required\":[\"aspect\",\"score\",\"comment\"],"
	"\"additionalProperties\":false}},"
	"\"appropriateness\":" SCORE ",\"effectiveness\":" SCORE ","
	"\"critique\":" TEXT ",\"lessons\":{\"type\":\"array\",\"items\":" TEXT
	"},\"correction\":" TEXT "},"
	"\"required\":[\"aspects\",\"appropriateness\",\"effectiveness\","
	"\"critique\",\"lessons\",\"correction\"],"
	"\"additionalProperties\":false}";

const char prom_reflection_question[] =
	"Your answer above is given. Look back at it. Judge its correctness, efficiency, completeness, clarity, safety "
	"and relevance (aspects, each with a score from 0 to 1 and a comment). appropriateness, from 0 to 1: was this the "
	"right thing to do? effectiveness, from 0 to 1: did it do what was asked? critique: what was good and what was not, "
	"in a few sentences. lessons: what should be remembered for later tasks, each in one sentence that can be "
	"understood alone; an empty list if there is nothing new. correction: what should have been answered instead; "
	"empty if nothing. Repeat no keys or passwords. Answer with one JSON object that has exactly these members, "
	"and nothing else.";

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

		/* What cannot be seen must not come back with a memory. */
		if (lesson != NULL && prom_hidden_in(lesson) == NULL)
			reflection->lessons[reflection->nlessons++] = lesson;
	}
	SPI_freetuptable(SPI_tuptable);
}

/* What is remembered, whose it is, and of which task. */
typedef struct Lessons
{
	const PromReflection *reflection;
	const PromMemoryOwner *owner;
	int64 task_id;
} Lessons;

static void
remember(void *arg)
{
	const Lessons *lessons = arg;
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

void
prom_reflection_learn(const PromReflection *reflection,
					  const PromMemoryOwner *owner, int64 task_id)
{
	Lessons lessons = {reflection, owner, task_id};
	const char *failure;

	if (reflection->nlessons == 0)
		return;
	failure = prom_learn_try(remember, &lessons);
	if (failure != NULL)
		ereport(LOG, (errmsg("lessons of task %lld are not remembered: %s",
							 (long long) task_id, failure)));
}
