/*
 * toolcall.c
 *	  Reads the tool calls of a turn in the form of chat completions.
 *
 * The arguments are a string that should contain JSON and may not: a model
 * writes it.  Some servers leave out ids, use one twice, or write arguments as
 * an object.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"

#include "schema.h"
#include "text.h"
#include "toolcall.h"

/* A string of the message in the current memory context; NULL: it is none. */
static char *
take_string(PromSlice value)
{
	char *text = prom_json_kind(value) == '"' ? prom_json_string(value, NULL)
											  : NULL;
	char *copy = text == NULL ? NULL : pstrdup(text);

	free(text);
	return copy;
}

static char *
find_string(PromSlice object, const char *path)
{
	PromSlice value;

	return prom_json_find(object, path, &value) ? take_string(value) : NULL;
}

/* The arguments as JSON text, whatever it says. */
static const char *
read_arguments(PromSlice function, bool *regular)
{
	PromSlice value;
	char *text = NULL;
	PromSlice inner;

	if (prom_json_find(function, "arguments", &value))
		text = prom_json_kind(value) == '"'
				   ? take_string(value)
				   : pnstrdup(value.data, value.length);
	if (text == NULL || prom_json_kind(value) != '"')
		*regular = false;
	if (text == NULL || text[strspn(text, " \t\r\n")] == '\0')
	{
		*regular = false;
		return "{}";
	}
	inner.data = text;
	inner.length = strlen(text);
	if (!prom_json_valid(inner))
		*regular = false;
	return text;
}

static bool
is_used(const PromToolCall *calls, int n, const char *id)
{
	for (int i = 0; i < n; i++)
		if (strcmp(calls[i].id, id) == 0)
			return true;
	return false;
}

static void
read_call(PromToolCall *calls, int n, PromSlice element, PromSlice function,
		  bool *regular)
{
	PromToolCall *call = &calls[n];

	call->id = find_string(element, "id");
	if (call->id == NULL || *call->id == '\0' || is_used(calls, n, call->id))
	{
		*regular = false;
		call->id = psprintf("call_%d", n + 1);
	}
	call->name = find_string(function, "name");
	if (call->name == NULL)
	{
		*regular = false;
		call->name = "";
	}
	call->arguments = read_arguments(function, regular);
}

PromToolCall *
prom_toolcall_read(const char *raw, int *n, bool *regular)
{
	PromSlice message = {raw, strlen(raw)};
	PromSlice list;
	PromSlice element;
	PromSlice function;
	PromToolCall *calls;
	size_t position = 0;
	int count = 0;

	*regular = true;
	*n = 0;
	if (prom_json_find(message, "tool_calls", &list))
		while (prom_json_next_element(list, &position, &element))
			count++;
	calls = palloc0(Max(count, 1) * sizeof(PromToolCall));
	position = 0;
	if (count == 0)
	{
		if (!prom_json_find(message, "function_call", &function))
			return calls;
		*regular = false;
		read_call(calls, (*n)++, function, function, regular);
	}
	while (*n < count && prom_json_next_element(list, &position, &element))
	{
		if (!prom_json_find(element, "function", &function))
			function = element;
		read_call(calls, (*n)++, element, function, regular);
	}
	return calls;
}

PG_FUNCTION_INFO_V1(prom_json);

/* What a model wrote as jsonb, or as a string of it. */
Datum
prom_json(PG_FUNCTION_ARGS)
{
	char *document = text_to_cstring(PG_GETARG_TEXT_PP(0));
	StringInfoData quoted;

	if (prom_schema_unreadable(document) != NULL)
	{
		initStringInfo(&quoted);
		escape_json(&quoted, document);
		document = quoted.data;
	}
	PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(document)));
}
