/*
 * judged.c
 *	  What a model is asked to review, read from the facts.
 *
 * So an executor, and who wants to see the prompt later, judge exactly what the
 * caller meant, by the number of a step.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "encoding.h"
#include "evolution.h"
#include "judged.h"
#include "toolcall.h"
#include "xact.h"

static PromStatement turn_statement = {
	"SELECT s.step, s.answer, s.raw, s.calls IS NOT NULL"
	" FROM prometheus._step s WHERE s.task_id OPERATOR(pg_catalog.=) $1"
	"   AND s.step OPERATOR(pg_catalog.<=) $2"
	"   AND s.kind OPERATOR(pg_catalog.=) 'chat'"
	"   AND s.status OPERATOR(pg_catalog.=) 'ok'"
	" ORDER BY s.step DESC LIMIT 1",
	2,
	{INT8OID, INT4OID},
	NULL,
};

/* The call that a turn asks for, whose step is so much higher than its own. */
static bool
read_call(const PromPromptFacts *facts, const char *raw, int number,
		  PromJudged *judged)
{
	bool regular;
	int n;
	const PromToolCall *calls = prom_toolcall_read(prom_encoding_to_utf8(raw),
												   &n, &regular);
	const char *name;

	if (number > n)
		return false;
	judged->stage = PROM_STAGE_TOOL;
	judged->arguments = prom_encoding_from_utf8(calls[number - 1].arguments);
	name = prom_encoding_from_utf8(calls[number - 1].name);
	for (int i = 0; i < facts->source.ntools; i++)
		if (strcmp(facts->source.tools[i]->name, name) == 0)
			judged->tool = facts->source.tools[i];
	return judged->tool != NULL;
}

bool
prom_judged_read(const PromPromptFacts *facts, int32 attempt, int32 step,
				 PromJudged *judged)
{
	Datum values[2] = {Int64GetDatum(facts->source.task_id),
					   Int32GetDatum(step)};
	int32 turn;

	memset(judged, 0, sizeof(*judged));
	judged->stage = PROM_STAGE_TASK;
	judged->task_id = facts->source.task_id;
	judged->attempt = attempt;
	judged->step = step;
	judged->agent = facts->source.agent;
	judged->submitter = facts->source.submitter;
	judged->submitter_oid = facts->source.submitter_oid;
	judged->mode = facts->mode;
	judged->request = facts->source.request;
	if (step == 0)
		return true;
	prom_statement_run(&turn_statement, values, NULL, true);
	if (SPI_processed == 0)
		return prom_evolution_judged(judged);
	turn = prom_row_int32(0, 1);
	if (turn + 1 == step && facts->commission != NULL && !prom_row_bool(0, 4))
	{
		const char *answer = prom_row_text_or_null(0, 2);

		judged->stage = PROM_STAGE_TOOL;
		judged->tool = prom_commission_tool();
		judged->arguments = prom_commission_arguments(
			prom_commission_statement(answer != NULL ? answer : ""));
		return true;
	}
	if (turn < step)
		return prom_row_bool(0, 4) &&
			   read_call(facts, prom_row_text(0, 3), step - turn, judged);
	judged->stage = PROM_STAGE_ANSWER;
	judged->answer = prom_row_text_or_null(0, 2);
	return judged->answer != NULL && !prom_row_bool(0, 4);
}
