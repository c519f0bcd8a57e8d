/*
 * toolcall.c
 *	  The tool calls that a turn asks for, whatever its form.
 *
 * The arguments should be JSON and may not: a model writes them.  Some servers
 * leave out ids or use one twice.
 */
#include "postgres.h"

#include "provider/provider.h"

char *
prom_toolcall_string(PromSlice object, const char *path)
{
	PromSlice value;
	char *text;
	char *copy;

	if (!prom_json_find(object, path, &value) || prom_json_kind(value) != '"')
		return NULL;
	text = prom_json_string(value, NULL);
	copy = text == NULL ? NULL : pstrdup(text);
	free(text);
	return copy;
}

char *
prom_toolcall_value(PromSlice object, const char *path)
{
	PromSlice value;

	if (!prom_json_find(object, path, &value))
		return NULL;
	return prom_json_kind(value) == '"' ? prom_toolcall_string(object, path)
										: pnstrdup(value.data, value.length);
}

bool
prom_toolcall_is_chat(PromSlice turn)
{
	PromSlice value;

	return prom_json_find(turn, "tool_calls", &value) ||
		   prom_json_find(turn, "function_call", &value);
}

const char *
prom_toolcall_object(const char *arguments)
{
	PromSlice json = {arguments, strlen(arguments)};

	return prom_json_valid(json) && prom_json_kind(json) == '{' ? arguments
																: "{}";
}

static bool
is_used(const PromToolCalls *calls, const char *id)
{
	for (int i = 0; i < calls->n; i++)
		if (strcmp(calls->calls[i].id, id) == 0)
			return true;
	return false;
}

/* The arguments as JSON text, whatever it says. */
static const char *
arguments_of(PromToolCalls *calls, const char *text)
{
	PromSlice inner = {text, 0};

	if (text == NULL || text[strspn(text, " \t\r\n")] == '\0')
	{
		calls->regular = false;
		return "{}";
	}
	inner.length = strlen(text);
	if (!prom_json_valid(inner))
		calls->regular = false;
	return text;
}

void
prom_toolcall_add(PromToolCalls *calls, const char *id, const char *name,
				  const char *arguments)
{
	PromToolCall *call;

	/* No turn with more was taken as one. */
	if (calls->n >= PROM_MAX_CALLS)
	{
		calls->regular = false;
		return;
	}
	if (calls->n == calls->size)
	{
		calls->size = Max(8, 2 * calls->size);
		calls->calls = calls->calls == NULL
						   ? palloc(calls->size * sizeof(PromToolCall))
						   : repalloc(calls->calls,
									  calls->size * sizeof(PromToolCall));
	}
	call = &calls->calls[calls->n];
	call->id = id;
	if (id == NULL || *id == '\0' || is_used(calls, id))
	{
		calls->regular = false;
		call->id = psprintf("call_%d", calls->n + 1);
	}
	call->name = name;
	if (name == NULL)
	{
		calls->regular = false;
		call->name = "";
	}
	call->arguments = arguments_of(calls, arguments);
	calls->n++;
}

PromToolCall *
prom_toolcall_read(const char *raw, int *n, bool *regular)
{
	PromSlice turn = {raw, strlen(raw)};
	PromToolCalls calls = {.regular = true};

	prom_provider_of_turn(turn)->read_calls(&calls, turn);
	*n = calls.n;
	*regular = calls.regular;
	return calls.calls;
}
