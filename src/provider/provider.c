/*
 * provider.c
 *	  Finds providers by the name of their format, and keeps what they read.
 */
#include "postgres.h"

#include "utils/json.h"

#include "provider/provider.h"

#define NAME_LETTERS \
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
#define MAX_NAME 63

/* The last one takes all turns. */
static const PromProvider *const providers[] = {
	&prom_provider_anthropic,
	&prom_provider_gemini,
	&prom_provider_responses,
	&prom_provider_openai,
};


bool
prom_llm_is_local(const char *api)
{
	return strcmp(api, "echo") == 0;
}

bool
prom_llm_is_function(const char *api)
{
	return strcmp(api, "function") == 0;
}

const PromProvider *
prom_provider_find(const char *api)
{
	int i;

	for (i = 0; i < lengthof(providers); i++)
		if (strcmp(providers[i]->api, api) == 0)
			return providers[i];
	return NULL;
}

const PromProvider *
prom_provider_for(const PromModel *model, const PromPrompt *prompt)
{
	const PromProvider *provider = prom_provider_find(model->api);

	if (!prompt->embeds)
		return provider;
	return provider == &prom_provider_openai ? &prom_provider_embeddings : NULL;
}

const PromProvider *
prom_provider_of_turn(PromSlice turn)
{
	for (int i = 0; i < lengthof(providers); i++)
		if (providers[i]->is_turn(turn))
			return providers[i];
	return &prom_provider_openai;
}

bool
prom_provider_takes_raw(const PromProvider *provider,
						const PromMessage *message)
{
	PromSlice turn = {message->raw, 0};

	if (message->raw == NULL)
		return false;
	turn.length = strlen(message->raw);
	return prom_provider_of_turn(turn) == provider;
}

bool
prom_provider_url(const PromProvider *provider, const PromModel *model,
				  const char *name, char **url, char **host)
{
	StringInfoData path;
	bool ok;

	*url = *host = NULL;
	if (model->endpoint == NULL)
		return false;
	initStringInfo(&path);
	provider->add_path(&path, name, model->stream);
	ok = prom_http_url(model->endpoint, path.data, url, host);
	pfree(path.data);
	if (!ok)
	{
		free(*url);
		free(*host);
		*url = *host = NULL;
	}
	return ok;
}

bool
prom_provider_is_blank(const char *text)
{
	return text[strspn(text, " \t\n\v\f\r")] == '\0';
}

/*
 * Models invent names, and servers refuse what their own would not: letters,
 * digits, _ and -, at most 64, and Google's a letter or _ at first.
 */
void
prom_provider_add_name(StringInfo body, const char *name)
{
	appendStringInfoChar(body, '"');
	if (*name == '\0' || *name == '-' || (*name >= '0' && *name <= '9'))
		appendStringInfoChar(body, '_');
	for (int i = 0; name[i] != '\0' && i < MAX_NAME; i++)
		appendStringInfoChar(body, strchr(NAME_LETTERS, name[i]) != NULL
									   ? name[i]
									   : '_');
	appendStringInfoChar(body, '"');
}

/* Append members of an object but one, each after a comma. */
static void
add_members(StringInfo body, PromSlice object, const char *but)
{
	PromSlice key;
	PromSlice value;
	size_t position = 0;

	while (prom_json_next_member(object, &position, &key, &value))
		if (but == NULL || !prom_json_is(key, but))
		{
			appendStringInfoChar(body, ',');
			appendBinaryStringInfo(body, key.data, (int) key.length);
			appendStringInfoChar(body, ':');
			appendBinaryStringInfo(body, value.data, (int) value.length);
		}
}

void
prom_provider_add_extra(StringInfo body, const PromProvider *provider,
						const PromModel *model, char *own)
{
	PromSlice extra = {model->extra_body, 0};
	PromSlice shared = {"{}", 2};
	StringInfoData members;

	if (extra.data != NULL)
		extra.length = strlen(extra.data);
	if (extra.data != NULL && provider->shared != NULL)
		(void) prom_json_find(extra, provider->shared, &shared);
	initStringInfo(&members);
	if (own != NULL)
	{
		appendStringInfoString(&members, own);
		pfree(own);
	}
	add_members(&members, shared, NULL);
	if (members.len > 0)
		appendStringInfo(body, ",\"%s\":{%s}", provider->shared,
						 members.data + 1);
	pfree(members.data);
	if (extra.data != NULL)
		add_members(body, extra, provider->shared);
}

void
prom_provider_add_calls(StringInfo body, const PromToolCall *calls, int n)
{
	appendStringInfoChar(body, '[');
	for (int i = 0; i < n; i++)
	{
		PromSlice arguments = {calls[i].arguments, strlen(calls[i].arguments)};

		appendStringInfo(body, "%s{\"id\":", i > 0 ? "," : "");
		escape_json(body, calls[i].id);
		appendStringInfoString(body,
							   ",\"type\":\"function\",\"function\":{\"name\":");
		prom_provider_add_name(body, calls[i].name);
		appendStringInfoString(body, ",\"arguments\":");
		/* Some servers fail at earlier arguments that are not JSON. */
		escape_json(body,
					prom_json_valid(arguments) ? calls[i].arguments : "{}");
		appendStringInfoString(body, "}}");
	}
	appendStringInfoChar(body, ']');
}

static void
add_message(StringInfo body, const PromMessage *message)
{
	if (prom_provider_takes_raw(&prom_provider_openai, message))
	{
		appendStringInfoString(body, message->raw);
		return;
	}
	appendStringInfoString(body, "{\"role\":");
	escape_json(body, message->role);
	if (message->call_id != NULL)
	{
		appendStringInfoString(body, ",\"tool_call_id\":");
		escape_json(body, message->call_id);
	}
	appendStringInfoString(body, ",\"content\":");
	escape_json(body, message->text ? message->text : "");
	if (message->ncalls > 0)
	{
		appendStringInfoString(body, ",\"tool_calls\":");
		prom_provider_add_calls(body, message->calls, message->ncalls);
	}
	appendStringInfoChar(body, '}');
}

void
prom_provider_add_messages(StringInfo body, const PromPrompt *prompt)
{
	appendStringInfoChar(body, '[');
	for (int i = 0; i < prompt->nmessages; i++)
	{
		if (i > 0)
			appendStringInfoChar(body, ',');
		add_message(body, &prompt->messages[i]);
	}
	appendStringInfoChar(body, ']');
}

void
prom_provider_add_offer(StringInfo body, const PromToolOffer *tool)
{
	appendStringInfoString(body, "\"name\":");
	escape_json(body, tool->name);
	if (tool->description != NULL)
	{
		appendStringInfoString(body, ",\"description\":");
		escape_json(body, tool->description);
	}
}

void
prom_provider_add_tools(StringInfo body, const PromPrompt *prompt)
{
	if (prompt->ntools == 0)
		return;
	appendStringInfoString(body, ",\"tools\":[");
	for (int i = 0; i < prompt->ntools; i++)
	{
		const PromToolOffer *tool = &prompt->tools[i];

		appendStringInfo(body,
						 "%s{\"type\":\"function\",\"function\":{",
						 i > 0 ? "," : "");
		prom_provider_add_offer(body, tool);
		appendStringInfo(body, ",\"parameters\":%s}}", tool->schema);
	}
	appendStringInfoChar(body, ']');
}

/* The same of a format that is known. */
static void
build_in(const PromProvider *provider, StringInfo body,
		 const PromModel *model, const PromPrompt *prompt)
{
	char *url = NULL;
	char *host = NULL;

	(void) prom_provider_url(provider, model, prompt->model, &url, &host);
	PG_TRY();
	{
		provider->build(body, model, host != NULL ? host : "", prompt);
	}
	PG_FINALLY();
	{
		free(url);
		free(host);
	}
	PG_END_TRY();
}

void
prom_provider_build(StringInfo body, const PromModel *model,
					const PromPrompt *prompt)
{
	const PromProvider *provider = prom_provider_for(model, prompt);

	if (prom_llm_is_function(model->api))
		build_in(&prom_provider_openai, body, model, prompt);
	else if (provider != NULL)
		build_in(provider, body, model, prompt);
	else
	{
		appendStringInfoString(body, "{\"messages\":");
		prom_provider_add_messages(body, prompt);
		appendStringInfoChar(body, '}');
	}
}

void
prom_turn_init(PromTurn *turn)
{
	memset(turn, 0, sizeof(*turn));
	turn->retry_after = -1;
	turn->tokens_in = turn->tokens_out = -1;
	turn->cached_tokens = turn->reasoning_tokens = -1;
}

void
prom_turn_clear(PromTurn *turn)
{
	free(turn->code);
	free(turn->type);
	free(turn->message);
	free(turn->finish_reason);
	free(turn->raw);
	free(turn->answer);
	free(turn->refusal);
	free(turn->vectors);
	prom_turn_init(turn);
}

/* The first problem counts. */
void
prom_turn_set_problem(PromTurn *turn, PromTurnProblem problem,
					  const char *why)
{
	if (turn->problem != PROM_TURN_FINE)
		return;
	turn->problem = problem;
	turn->why = why;
}

bool
prom_turn_objection(const PromTurn *turn, const char *finish, bool offered,
					PromObjection *objection)
{
	bool calls = strcmp(finish, "tool") == 0;

	*objection = (PromObjection){.retry = PROM_RETRY_NEVER};
	if (strcmp(finish, "filter") == 0)
	{
		objection->error_type = "ModelFiltered";
		objection->what = "model's answer was withheld by a content filter";
		objection->words = turn->refusal;
	}
	else if (turn->refusal != NULL && *turn->refusal != '\0')
	{
		objection->error_type = "ModelRefused";
		objection->what = "model refused";
		objection->words = turn->refusal;
	}
	else if (strcmp(finish, "length") == 0)
	{
		objection->error_type = "ModelLength";
		objection->what = "model's answer was cut off at the limit of tokens";
	}
	else if (strcmp(finish, "error") == 0)
	{
		objection->error_type = "ModelUnavailable";
		objection->retry = PROM_RETRY_BACKOFF;
		objection->what = "model gave up its answer";
		objection->words = turn->finish_reason;
	}
	else if (calls && !offered)
		objection->what = "it calls a tool, and none was offered";
	else if (calls && turn->ncalls == 0)
		objection->what = "it calls no tool, and says that it does";
	else if (turn->ncalls > PROM_MAX_CALLS)
		objection->what = "it calls too many tools";
	else if (!calls && (turn->answer == NULL || *turn->answer == '\0'))
		objection->what = "the answer is empty";
	return objection->what != NULL;
}
