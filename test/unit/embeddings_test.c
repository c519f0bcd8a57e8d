/*
 * embeddings_test.c
 *	  Reads replies with embeddings: a recording, what is none, and what was
 *	  damaged.
 *
 * embeddings_test DIRECTORY [seconds]: as reply_test.
 */
#include "postgres.h"

#include <math.h>
#include <time.h>

#include "provider/provider.h"
#include "standin.h"

#define MAX 65536

static const PromProvider *const provider = &prom_provider_embeddings;

static void
read_text(const char *text, size_t length, PromTurn *turn)
{
	PromSlice body = {text, length};

	prom_turn_init(turn);
	provider->read_body(turn, body);
}

/* The places are those of the indexes, whatever the order. */
static void
test_recording(const char *text, size_t length)
{
	static const float wanted[] = {0.5f, -0.25f, 3e-8f, 0,
								   -0.006929283495992422f, 1, -1.5e-3f, 0};
	PromTurn turn;

	read_text(text, length, &turn);
	check(turn.problem == PROM_TURN_FINE, "a recording: %s",
		  turn.why ? turn.why : "-");
	check(turn.nvectors == 2 && turn.dimensions == 4, "two of four numbers");
	for (int i = 0; i < lengthof(wanted); i++)
		check(turn.vectors[i] == wanted[i], "number %d is %g", i,
			  turn.vectors[i]);
	check(turn.tokens_in == 5 && turn.tokens_out == 0, "its usage");
	prom_embeddings_check(&turn, 2, 0);
	check(turn.problem == PROM_TURN_FINE, "as many as there were texts");
	prom_embeddings_check(&turn, 2, 4);
	check(turn.problem == PROM_TURN_FINE, "as long as they must be");
	prom_embeddings_check(&turn, 2, 3);
	check(turn.problem == PROM_TURN_UNREADABLE, "not as long");
	prom_turn_clear(&turn);
	read_text(text, length, &turn);
	prom_embeddings_check(&turn, 3, 0);
	check(turn.problem == PROM_TURN_UNREADABLE, "not as many");
	prom_turn_clear(&turn);
}

static void
test_truncated(const char *text, size_t length)
{
	int begun = group_begin();

	/* It ends with a newline. */
	for (size_t i = 0; i < length - 1; i++)
	{
		char *copy = malloc(i + 1);
		PromTurn turn;

		memcpy(copy, text, i);
		read_text(copy, i, &turn);
		check(turn.problem == PROM_TURN_UNREADABLE, "cut at %zu", i);
		prom_turn_clear(&turn);
		free(copy);
	}
	group_end(begun);
}

static void
test_wrong(void)
{
	static const char *const wrong[] = {
		"{}",
		"{\"data\":null}",
		"{\"data\":{}}",
		"{\"data\":[1]}",
		"{\"data\":[[]]}",
		"{\"data\":[{}]}",
		"{\"data\":[{\"index\":0}]}",
		"{\"data\":[{\"embedding\":[1]}]}",
		"{\"data\":[{\"index\":1,\"embedding\":[1]}]}",
		"{\"data\":[{\"index\":-1,\"embedding\":[1]}]}",
		"{\"data\":[{\"index\":\"0\",\"embedding\":[1]}]}",
		"{\"data\":[{\"index\":0.0,\"embedding\":[1]}]}",
		"{\"data\":[{\"index\":99999999999,\"embedding\":[1]}]}",
		"{\"data\":[{\"index\":0,\"embedding\":[]}]}",
		"{\"data\":[{\"index\":0,\"embedding\":{}}]}",
		"{\"data\":[{\"index\":0,\"embedding\":null}]}",
		"{\"data\":[{\"index\":0,\"embedding\":\"AACAPw==\"}]}",
		"{\"data\":[{\"index\":0,\"embedding\":[\"1\"]}]}",
		"{\"data\":[{\"index\":0,\"embedding\":[null]}]}",
		"{\"data\":[{\"index\":0,\"embedding\":[[1]]}]}",
		"{\"data\":[{\"index\":0,\"embedding\":[true]}]}",
		"{\"data\":[{\"index\":0,\"embedding\":[NaN]}]}",
		"{\"data\":[{\"index\":0,\"embedding\":[1e400]}]}",
		"{\"data\":[{\"index\":0,\"embedding\":[1,-1e39]}]}",
		"{\"data\":[{\"index\":0,\"embedding\":[0]}]}",
		"{\"data\":[{\"index\":0,\"embedding\":[0,-0.0,1e-60]}]}",
		"{\"data\":[{\"index\":0,\"embedding\":[1]},"
		"{\"index\":0,\"embedding\":[1]}]}",
		"{\"data\":[{\"index\":0,\"embedding\":[1]},"
		"{\"index\":1,\"embedding\":[1,2]}]}",
		"{\"data\":[{\"index\":0,\"embedding\":[1,2]},"
		"{\"index\":1,\"embedding\":[1]}]}",
	};

	for (int i = 0; i < lengthof(wrong); i++)
	{
		PromTurn turn;

		read_text(wrong[i], strlen(wrong[i]), &turn);
		check(turn.problem == PROM_TURN_UNREADABLE && turn.why != NULL,
			  "%s", wrong[i]);
		prom_turn_clear(&turn);
	}
}

/* An error within HTTP 200. */
static void
test_error(void)
{
	static const char text[] = "{\"error\":{\"message\":\"No.\",\"code\":\"no\"}}";
	PromTurn turn;

	read_text(text, strlen(text), &turn);
	check(turn.is_error, "an error is none");
	check_text(turn.message, "No.", "its message");
	prom_turn_clear(&turn);
}

/* More texts than can be asked for, and longer ones. */
static void
test_limits(void)
{
	StringInfoData body;
	PromTurn turn;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"data\":[");
	for (int i = 0; i <= PROM_MAX_EMBEDDED; i++)
		appendStringInfo(&body, "%s{\"index\":%d,\"embedding\":[1]}",
						 i > 0 ? "," : "", i);
	appendStringInfoString(&body, "]}");
	read_text(body.data, body.len, &turn);
	check(turn.problem == PROM_TURN_UNREADABLE, "too many");
	prom_turn_clear(&turn);
	body.len = 0;
	appendStringInfoString(&body, "{\"data\":[{\"index\":0,\"embedding\":[1");
	for (int i = 0; i < PROM_MAX_DIMENSIONS - 1; i++)
		appendStringInfoString(&body, ",1");
	appendStringInfoString(&body, "]}]}");
	read_text(body.data, body.len, &turn);
	check(turn.problem == PROM_TURN_FINE &&
			  turn.dimensions == PROM_MAX_DIMENSIONS,
		  "as long as one may be");
	prom_turn_clear(&turn);
	body.len -= 4;
	appendStringInfoString(&body, ",1]}]}");
	read_text(body.data, body.len, &turn);
	check(turn.problem == PROM_TURN_UNREADABLE, "longer");
	prom_turn_clear(&turn);
	pfree(body.data);
}

static void
test_request(void)
{
	static const PromMessage messages[] = {
		{"user", "one \"1\"", NULL, NULL, 0, NULL, NULL, false},
		{"user", "two", NULL, NULL, 0, NULL, NULL, false},
	};
	PromPrompt prompt = {.messages = messages,
						 .nmessages = 2,
						 .embeds = true,
						 .model = "m"};
	PromModel model = {.api = "openai",
					   .extra_body = "{\"dimensions\": 256}"};
	StringInfoData body;

	initStringInfo(&body);
	prom_provider_build(&body, &model, &prompt);
	check_text(body.data,
			   "{\"model\":\"m\",\"input\":[\"one \\\"1\\\"\",\"two\"],"
			   "\"encoding_format\":\"float\",\"dimensions\":256}",
			   "a request");
	check(prom_embeddings_dimensions(&model) == 256, "its dimensions");
	check(prom_provider_for(&model, &prompt) == provider, "of openai");
	model.api = "anthropic";
	check(prom_provider_for(&model, &prompt) == NULL, "of no other");
	model.extra_body = "{\"dimensions\": \"many\"}";
	check(prom_embeddings_dimensions(&model) == 0, "those that say nothing");
	pfree(body.data);
}

/* Whatever is read: vectors that can be compared, or a reason. */
static void
test_damaged(const char *text, size_t length, double limit)
{
	clock_t end = clock() + (clock_t) (limit * CLOCKS_PER_SEC);
	int begun = group_begin();
	unsigned seed = 42;
	long rounds = 0;
	char *copy = malloc(length);

	for (; clock() < end && rounds < 200000; rounds++)
	{
		PromTurn turn;

		memcpy(copy, text, length);
		for (unsigned i = next_random(&seed) % 4 + 1; i > 0; i--)
			copy[next_random(&seed) % length] =
				"{}[]\",:0123456789eE+-.\\ntu\xff"[next_random(&seed) % 27];
		read_text(copy, length, &turn);
		for (int i = 0; turn.problem == PROM_TURN_FINE && !turn.is_error &&
						i < turn.nvectors * turn.dimensions;
			 i++)
			check(isfinite(turn.vectors[i]), "round %ld", rounds);
		check(turn.problem == PROM_TURN_FINE || turn.why != NULL,
			  "round %ld", rounds);
		prom_turn_clear(&turn);
	}
	group_end(begun);
	printf("# %ld damaged replies\n", rounds);
	free(copy);
}

int
main(int argc, char **argv)
{
	char path[1024];
	static char text[MAX];
	size_t length;
	FILE *file;

	if (argc < 2)
		return 2;
	snprintf(path, sizeof(path), "%s/openai_embeddings.json", argv[1]);
	file = fopen(path, "r");
	if (file == NULL)
	{
		perror(path);
		return 2;
	}
	length = fread(text, 1, MAX, file);
	fclose(file);
	test_recording(text, length);
	test_truncated(text, length);
	test_wrong();
	test_error();
	test_limits();
	test_request();
	test_damaged(text, length, argc > 2 ? atof(argv[2]) : 5);
	return report();
}
