/*
 * provider.c
 *	  Finds providers by the name of their format, and keeps what they read.
 */
#include "postgres.h"

#include "utils/json.h"

#include "provider/provider.h"

static const PromProvider *const providers[] = {
	&prom_provider_openai,
};


const PromProvider *
prom_provider_find(const char *api)
{
	int i;

	for (i = 0; i < lengthof(providers); i++)
		if (strcmp(providers[i]->api, api) == 0)
			return providers[i];
	return NULL;
}

void
prom_provider_add_messages(StringInfo body, const PromPrompt *prompt)
{
	const PromMessage *messages = prompt->messages;
	int i;

	appendStringInfoChar(body, '[');
	for (i = 0; i < prompt->nmessages; i++)
	{
		if (i > 0)
			appendStringInfoChar(body, ',');
		if (messages[i].raw != NULL)
		{
			appendStringInfoString(body, messages[i].raw);
			continue;
		}
		appendStringInfoString(body, "{\"role\":");
		escape_json(body, messages[i].role);
		appendStringInfoString(body, ",\"content\":");
		escape_json(body, messages[i].text ? messages[i].text : "");
		appendStringInfoChar(body, '}');
	}
	appendStringInfoChar(body, ']');
}

void
prom_provider_build(StringInfo body, const PromModel *model,
					const PromPrompt *prompt)
{
	const PromProvider *provider = prom_provider_find(model->api);
	char *url = NULL;
	char *host = NULL;

	if (provider == NULL)
	{
		appendStringInfoString(body, "{\"messages\":");
		prom_provider_add_messages(body, prompt);
		appendStringInfoChar(body, '}');
		return;
	}
	if (model->endpoint != NULL)
		(void) prom_http_url(model->endpoint, provider->path, &url, &host);
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
prom_turn_init(PromTurn *turn)
{
	memset(turn, 0, sizeof(*turn));
	turn->retry_after = -1;
	turn->tokens_in = turn->tokens_out = turn->cached_tokens = -1;
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
