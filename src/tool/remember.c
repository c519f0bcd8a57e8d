/*
 * remember.c
 *	  The tools remember and recall: the memory of the task's submitter.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"

#include "memory.h"
#include "tool/builtin.h"
#include "xact.h"

static void
whose(const PromBuiltinCall *call, PromMemoryOwner *owner)
{
	owner->name = call->facts->source.submitter;
	owner->oid = call->facts->source.submitter_oid;
	owner->agent = call->facts->source.agent;
}

static void
remember(PromBuiltinCall *call)
{
	PromMemory memory = {.importance = 0.5, .task_id = call->job->task_id};
	PromMemoryOwner owner;
	MemoryContext before;
	Datum importance;
	bool isnull;
	int64 id;

	whose(call, &owner);
	memory.content = prom_builtin_text(call, "content");
	memory.kind = prom_builtin_text(call, "kind");
	if (memory.kind == NULL)
		memory.kind = "semantic";
	importance = prom_builtin_numeric(call, "importance", &isnull);
	if (!isnull)
		memory.importance = DatumGetFloat4(
			DirectFunctionCall1(numeric_float4, importance));
	SPI_connect();
	id = prom_memory_add(&owner, &memory);
	SPI_finish();
	before = MemoryContextSwitchTo(call->keep);
	appendStringInfo(&call->result, "remembered as %lld", (long long) id);
	MemoryContextSwitchTo(before);
}

/* One memory: what a model needs of it. */
static void
add_memory(StringInfo result, uint64 row)
{
	appendStringInfo(result, "%s{\"kind\": ", row > 0 ? ", " : "[");
	escape_json(result, prom_row_text(row, 2));
	appendStringInfoString(result, ", \"content\": ");
	escape_json(result, prom_row_text(row, 3));
	appendStringInfoString(result, ", \"stored\": ");
	escape_json(result, timestamptz_to_str(prom_row_time(row, 7)));
	appendStringInfoChar(result, '}');
}

static void
recall(PromBuiltinCall *call)
{
	PromMemoryOwner owner;
	PromMemoryQuery query = {.k = 5};
	MemoryContext before;
	bool isnull;
	Datum number = prom_builtin_numeric(call, "k", &isnull);

	if (!isnull)
		query.k = DatumGetInt32(DirectFunctionCall1(numeric_int4, number));
	whose(call, &owner);
	SPI_connect();
	query.text = prom_builtin_text(call, "query");
	prom_memory_find(&owner, &query);
	before = MemoryContextSwitchTo(call->keep);
	for (uint64 i = 0; i < SPI_processed; i++)
		add_memory(&call->result, i);
	appendStringInfoString(&call->result, SPI_processed > 0 ? "]" : "[]");
	MemoryContextSwitchTo(before);
	SPI_finish();
}

const PromBuiltin prom_builtin_remember = {
	.name = "remember",
	.run = remember,
};

const PromBuiltin prom_builtin_recall = {
	.name = "recall",
	.run = recall,
};
