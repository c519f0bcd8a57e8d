/*
 * provider.c
 *	  Finds providers by the name of their format, and keeps what they read.
 */
#include "postgres.h"

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
