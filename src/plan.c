/*
 * plan.c
 *	  Plans: what a model is asked for, and which of them is followed.
 *
 * It is asked for three candidates, from careful to bold, and says of each step
 * what it expects of it, how likely that is, and what may go wrong.  The steps'
 * probabilities are multiplied; a critical risk counts against a candidate
 * before anything else.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "plan.h"
#include "xact.h"

#define PROBABILITY "{\"type\":\"number\",\"minimum\":0,\"maximum\":1}"
#define TEXT "{\"type\":\"string\"}"

const char prom_plan_schema[] =
	"{\"type\":\"object\",\"properties\":{\"plans\":{\"type\":\"array\","
	"\"items\":{\"type\":\"object\",\"properties\":{"
	"\"approach\":{\"type\":\"string\",\"enum\":[\"conservative\","
	"\"balanced\",\"aggressive\"]},"
	"\"cost\":{\"type\":\"number\"},"
	"\"steps\":{\"type\":\"array\",\"items\":{\"type\":\"object\","
	"\"properties\":{\"action\":" TEXT ",\"tool\":" TEXT ",\"outcome\":" TEXT
	",\"probability\":" PROBABILITY ",\"risks\":{\"type\":\"array\","
	"\"items\":{\"type\":\"object\",\"properties\":{\"risk\":" TEXT
	",\"level\":{\"type\":\"string\",\"enum\":[\"LOW\",\"MEDIUM\",\"HIGH\","
	"\"CRITICAL\"]}},\"required\":[\"risk\",\"level\"],"
	"\"additionalProperties\":false}}},"
	"\"required\":[\"action\",\"tool\",\"outcome\",\"probability\","
	"\"risks\"],\"additionalProperties\":false}}},"
	"\"required\":[\"approach\",\"cost\",\"steps\"],"
	"\"additionalProperties\":false}}},"
	"\"required\":[\"plans\"],\"additionalProperties\":false}";

static const char question[] =
	"Before you answer the request above, plan. Do not answer it yet, and call no tool. "
	"Give three plans: a conservative one, a balanced one and an aggressive one. "
	"cost is about how many tokens a plan will take. Of each step say what is done (action), "
	"which tool is called (tool; empty if none), what will come of it (outcome), how likely that is "
	"(probability, from 0 to 1) and what may go wrong (risks). A risk is CRITICAL if data may be lost, "
	"security broken, or something done that cannot be undone. A single step is a plan if the request needs no more. "
	"Answer with one JSON object {\"plans\": [...]} and nothing else.";

const char *
prom_plan_question(const char *tools)
{
	return tools == NULL ? question
						 : psprintf("%s The tools are: %s.", question, tools);
}

static PromStatement choose_statement = {
	"WITH candidate AS ("
	" SELECT p.value AS plan, p.ordinality AS place,"
	"  (SELECT exp(greatest(sum(ln(greatest("
	"      (s.value ->> 'probability')::numeric, 1e-9)::float8)), -500))"
	"     FROM jsonb_array_elements(p.value -> 'steps') s) AS success,"
	"  (SELECT string_agg(r.value ->> 'risk', '; ')"
	"     FROM jsonb_array_elements(p.value -> 'steps') s,"
	"          jsonb_array_elements(s.value -> 'risks') r"
	"    WHERE r.value ->> 'level' = 'CRITICAL') AS critical"
	" FROM jsonb_array_elements($1 -> 'plans') WITH ORDINALITY p"
	" WHERE jsonb_array_length(p.value -> 'steps') > 0)"
	" SELECT jsonb_build_object('approach', c.plan ->> 'approach',"
	"   'success', round(c.success::numeric, 4), 'cost', c.plan -> 'cost',"
	"   'steps', (SELECT jsonb_agg(jsonb_build_object('step', s.ordinality)"
	"       || s.value ORDER BY s.ordinality)"
	"     FROM jsonb_array_elements(c.plan -> 'steps') WITH ORDINALITY s),"
	"   'considered',"
	"   (SELECT jsonb_agg(jsonb_build_object('approach', o.plan ->> 'approach',"
	"      'success', round(o.success::numeric, 4),"
	"      'critical', o.critical IS NOT NULL) ORDER BY o.place)"
	"      FROM candidate o))::text,"
	"  c.success, c.critical"
	" FROM candidate c ORDER BY c.critical IS NOT NULL, c.success DESC, c.place"
	" LIMIT 1",
	1,
	{JSONBOID},
	NULL,
};

void
prom_plan_choose(const char *reply, PromPlan *plan)
{
	Datum value = DirectFunctionCall1(jsonb_in, CStringGetDatum(reply));

	memset(plan, 0, sizeof(*plan));
	prom_statement_run(&choose_statement, &value, NULL, true);
	if (SPI_processed == 0)
		return;
	plan->chosen = prom_row_text(0, 1);
	plan->success = prom_row_float8(0, 2);
	plan->risk = prom_row_text_or_null(0, 3);
	SPI_freetuptable(SPI_tuptable);
}
