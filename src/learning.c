/*
 * learning.c
 *	  A veto becomes a memory, so that the agent is told next time.
 *
 * It is in the transaction of the veto, and in a subtransaction of that: what
 * goes wrong here is in the log, and the veto stands.  Other lessons, of a
 * reflection, are remembered in the same way.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/json.h"

#include "encoding.h"
#include "hidden.h"
#include "learning.h"
#include "memory.h"
#include "xact.h"

#define IMPORTANCE 0.7

/* Bytes that are quoted of what was vetoed. */
#define MAX_QUOTE 200

/*
 * The beginning of a text on one line; but what cannot be seen must not come
 * back with a memory.
 */
static const char *
quote(const char *text)
{
	int length = strlen(text);
	int clipped = prom_encoding_clip(text, length, MAX_QUOTE);
	char *line = pnstrdup(text, clipped);

	if (prom_hidden_in(line) != NULL)
		return "(with hidden characters)";
	for (char *c = line; *c != '\0'; c++)
		if ((unsigned char) *c < ' ')
			*c = ' ';
	return clipped < length ? psprintf("%s...", line) : line;
}

static const char *
describe(const PromJudged *judged, const char *why)
{
	switch (judged->stage)
	{
		case PROM_STAGE_TASK:
			return psprintf("Not allowed: the request \"%s\". %s",
							quote(judged->request), why);
		case PROM_STAGE_TOOL:
			return psprintf("Not allowed: a call of the tool %s with %s. %s",
							judged->tool->name, quote(judged->arguments), why);
		case PROM_STAGE_ANSWER:
			/* What was withheld is not repeated. */
			return psprintf("Not allowed: an answer to the request \"%s\". %s",
							quote(judged->request), why);
	}
	return why;
}

static Jsonb *
metadata_of(const PromJudged *judged, const PromVerdict *verdict)
{
	const char *policy = NULL;
	StringInfoData json;

	if (verdict->opinion != NULL)
		policy = verdict->opinion->policy;
	else if (verdict->policy != NULL)
		policy = verdict->policy->name;
	initStringInfo(&json);
	appendStringInfo(&json, "{\"source\":\"veto\",\"task_id\":%lld",
					 (long long) judged->task_id);
	if (policy != NULL)
	{
		appendStringInfoString(&json, ",\"policy\":");
		escape_json(&json, policy);
	}
	appendStringInfoChar(&json, '}');
	return DatumGetJsonbP(
		DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data)));
}

/* What was judged, and what was said of it. */
typedef struct Lesson
{
	const PromJudged *judged;
	const PromVerdict *verdict;
} Lesson;

static void
remember(void *arg)
{
	const Lesson *lesson = arg;
	const PromJudged *judged = lesson->judged;
	PromMemoryOwner owner = {.name = judged->submitter,
							 .oid = judged->submitter_oid,
							 .agent = judged->agent};
	PromMemory memory = {.kind = "procedural",
						 .importance = IMPORTANCE,
						 .task_id = judged->task_id,
						 .once = true};

	memory.content = describe(judged, prom_verdict_words(lesson->verdict));
	memory.metadata = metadata_of(judged, lesson->verdict);
	(void) prom_memory_add(&owner, &memory);
}

/* What is to be remembered, without waiting long for anybody. */
typedef struct Remembering
{
	void (*remember)(void *arg);
	void *arg;
} Remembering;

static void
remember_soon(void *arg)
{
	const Remembering *what = arg;
	int nest_level = NewGUCNestLevel();

	(void) set_config_option("lock_timeout", PROM_MEMORY_LOCK_TIMEOUT,
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true,
							 0, false);
	what->remember(what->arg);
	AtEOXact_GUC(true, nest_level);
}

const char *
prom_learn_try(void (*remember)(void *arg), void *arg)
{
	Remembering what = {remember, arg};
	ErrorData *failure;

	if (!prom_memory_may_wait())
		return NULL;
	failure = prom_xact_try(remember_soon, &what);
	if (failure == NULL)
		return NULL;
	prom_memory_failed(failure);
	return failure->message;
}

void
prom_learn(const PromJudged *judged, const PromVerdict *verdict)
{
	Lesson lesson = {judged, verdict};
	const char *failure;

	if (!verdict->learns)
		return;
	failure = prom_learn_try(remember, &lesson);
	if (failure != NULL)
		ereport(LOG, (errmsg("veto of task %lld is not remembered: %s",
							 (long long) judged->task_id, failure)));
}
