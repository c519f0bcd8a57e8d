/*
 * state.c
 *	  The tools read_state and save_state: the states that the task's submitter
 *	  has for its agent.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "state.h"
#include "tool/builtin.h"

static void
whose(const PromBuiltinCall *call, PromStateKey *key)
{
	const char *name = prom_builtin_text(call, "key");

	key->owner = call->facts->source.submitter;
	key->owner_oid = call->facts->source.submitter_oid;
	key->agent = call->facts->source.agent;
	key->key = name == NULL ? PROM_STATE_KEY : name;
}

static void
read_state(PromBuiltinCall *call)
{
	PromStateKey key;
	MemoryContext before;
	Jsonb *value;

	whose(call, &key);
	value = prom_state_read(&key, 0, NULL);
	before = MemoryContextSwitchTo(call->keep);
	if (value == NULL)
		appendStringInfo(&call->result, "there is no state \"%s\" yet",
						 key.key);
	else
		(void) JsonbToCString(&call->result, &value->root, VARSIZE(value));
	MemoryContextSwitchTo(before);
}

static void
save_state(PromBuiltinCall *call)
{
	PromStateChange change = {.expected = PROM_STATE_ANY,
							  .task_id = call->job->task_id};
	PromStateKey key;
	MemoryContext before;
	Datum expected;
	bool isnull;
	int64 version;

	whose(call, &key);
	change.value = prom_builtin_value(call, "value");
	expected = prom_builtin_numeric(call, "expected_version", &isnull);
	if (!isnull)
		change.expected = DatumGetInt64(
			DirectFunctionCall1(numeric_int8, expected));
	version = prom_state_save(&key, &change);
	before = MemoryContextSwitchTo(call->keep);
	appendStringInfo(&call->result, "saved as version %lld",
					 (long long) version);
	MemoryContextSwitchTo(before);
}

const PromBuiltin prom_builtin_read_state = {
	.name = "read_state",
	.run = read_state,
};

const PromBuiltin prom_builtin_save_state = {
	.name = "save_state",
	.run = save_state,
};
