/*
 * reply_test.c
 *	  Reads recorded replies: whole, cut at every byte, and damaged.
 *
 * reply_test DIRECTORY [seconds]: the directory of the recordings, and how
 * long to damage them (the same way in each run, as far as it gets).
 */
#include "postgres.h"

#include <time.h>

#include "provider/provider.h"
#include "sse.h"
#include "standin.h"

#define WORLD "Hello, w\xC3\xB6rld \xF0\x9F\x98\x80."

/* A recording, and what it says. */
typedef struct Recording
{
	const char *file;
	const char *answer;
	const char *finish;
	bool tools;
	int tokens_in;
	int tokens_out;
	int cached;
	int reasoning;
	const char *raw_has; /* NULL: anything */
	const char *message; /* of an error */
	const char *code;
	char *bytes; /* read from the file, when it is tested */
	size_t length;
} Recording;

static Recording recordings[] = {
	{"openai_chat.json", WORLD, "stop", false, 20, 9, 4, 2,
	 "\"w\\u00f6rld" + 1, NULL, NULL, NULL, 0},
	{"openai_tool.json", NULL, "tool_calls", true, 20, 9, 0, -1,
	 "\"arguments\":\"{\\\"id\\\":7}\"", NULL, NULL, NULL, 0},
	{"llamacpp_chat.json", "Hello.", "stop", false, 3, 2, -1, -1,
	 "\"reasoning_content\":\"They said hi.\"", NULL, NULL, NULL, 0},
	{"openai_stream.sse", WORLD, "stop", false, 20, 9, 4, -1,
	 "\"content\":\"Hello, w\\u00f6rld \\ud83d\\ude00.\"", NULL, NULL, NULL, 0},
	{"openai_stream_tool.sse", NULL, "tool_calls", true, 20, 9, -1, -1,
	 "\"arguments\":\"{\\\"id\\\":7}\"}},{\"id\":\"call_2\"", NULL,
	 NULL, NULL, 0},
	{"llamacpp_stream.sse", "Hello.", "stop", false, 3, 2, -1, -1,
	 "\"reasoning_content\":\"They said hi.\"", NULL, NULL, NULL, 0},
	{"azure_stream.sse", "Hello.", "stop", false, 3, 2, 0, -1, NULL, NULL, NULL,
	 NULL, 0},
	{"gateway_stream.sse", "Hello.", "stop", false, 3, 2, -1, -1,
	 "{\"role\":\"assistant\",\"content\":\"Hello.\"}", NULL, NULL, NULL, 0},
	{"stream_error.sse", NULL, NULL, false, -1, -1, -1, -1, NULL,
	 "slot was lost", "500", NULL, 0},
	{"anthropic_chat.json", WORLD, "end_turn", false, 20, 9, 4, -1,
	 "{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\","
	 "\"thinking\":\"They greet.\",\"signature\":\"c2lnbmF0dXJl==\"},"
	 "{\"type\":\"text\",\"text\":\"Hello, w\\u00f6rld \"},"
	 "{\"type\":\"unknown_block\",\"big\":123456789012345678901234567890}",
	 NULL, NULL, NULL, 0},
	{"anthropic_tool.json", "I look.", "tool_use", true, 20, 9, 0, -1,
	 "\"name\":\"get_row\",\"input\":{\"id\":7}}", NULL, NULL, NULL, 0},
	{"anthropic_refusal.json", NULL, "refusal", false, 20, 1, -1, -1, NULL, NULL,
	 NULL, NULL, 0},
	{"anthropic_stream.sse", WORLD, "end_turn", false, 20, 9, 4, -1,
	 "[{\"type\":\"thinking\",\"thinking\":\"They greet.\","
	 "\"signature\":\"c2lnbmF0dXJl==\"},{\"type\":\"text\","
	 "\"text\":\"Hello, w\\u00f6rld \\ud83d\\ude00.\"}]",
	 NULL, NULL, NULL, 0},
	{"anthropic_stream_tool.sse", NULL, "tool_use", true, 20, 9, 0, -1,
	 "[{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"get_row\","
	 "\"input\":{\"id\": 7}},{\"type\":\"tool_use\",\"id\":\"toolu_2\","
	 "\"name\":\"get_row\",\"input\":{}}]",
	 NULL, NULL, NULL, 0},
	{"anthropic_stream_indexes.sse", "\n \n", "tool_use", true, 20, 9, 4, -1,
	 "[{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"get_row\","
	 "\"input\":{\"id\":7}},{\"type\":\"tool_use\",\"id\":\"toolu_2\","
	 "\"name\":\"get_row\",\"input\":{\"id\":8}}]",
	 NULL, NULL, NULL, 0},
	{"anthropic_counts.json", " \nHello.", "end_turn", false, -1, -1, -1, -1,
	 "\"content\":[{\"type\":\"text\",\"text\":\"Hello.\"}]", NULL, NULL, NULL, 0},
	{"anthropic_stream_error.sse", NULL, NULL, false, -1, -1, -1, -1, NULL,
	 "Overloaded", NULL, NULL, 0},
	{"error_anthropic.json", NULL, NULL, false, -1, -1, -1, -1, NULL,
	 "This request would exceed your limit of tokens.", NULL, NULL, 0},
	{"gemini_chat.json", WORLD, "STOP", false, 20, 9, 4, 4,
	 "{\"role\":\"model\",\"parts\":[{\"text\":\"They greet.\",\"thoug"
	 "ht\":true},{\"text\":\"Hello, w\\u00f6rld \"},",
	 NULL, NULL, NULL, 0},
	{"gemini_tool.json", NULL, "STOP", true, 20, 9, -1, -1,
	 "[{\"functionCall\":{\"name\":\"get_row\",\"args\":{\"id\":7}},\""
	 "thoughtSignature\":\"c2ln\"},{\"functionCall\":{\"name\":\"get_r"
	 "ow\"}}]",
	 NULL, NULL, NULL, 0},
	{"gemini_blocked.json", NULL, "PROMPT_BLOCKED", false, 20, -1, -1, -1,
	 NULL, NULL, NULL, NULL, 0},
	{"gemini_stream.sse", WORLD, "STOP", false, 20, 9, 4, 4,
	 "[{\"text\":\"They greet.\",\"thought\":true},{\"text\":\"Hello, "
	 "w\\u00f6rld \\ud83d\\ude00.\"},{\"text\":\"\",\"thoughtSignature"
	 "\":\"c2lnbmF0dXJl\"}]",
	 NULL, NULL, NULL, 0},
	{"gemini_stream_tool.sse", NULL, "STOP", true, 20, 9, -1, -1,
	 "\"thoughtSignature\":\"c2ln\"},{\"functionCall\":{\"id\":\"f2\","
	 "\"name\":\"get_row\",\"args\":{\"id\":8}}}]",
	 NULL, NULL, NULL, 0},
	{"responses_chat.json", WORLD, "completed", false, 20, 9, 4, 4,
	 "[{\"type\":\"reasoning\",\"id\":\"rs_1\",\"summary\":[],\"encryp"
	 "ted_content\":\"Z2liYmVyaXNo\"},{\"type\":\"message\",\"id\":\"m"
	 "sg_1\"",
	 NULL, NULL, NULL, 0},
	{"responses_tool.json", NULL, "completed", true, 20, 9, 4, 4,
	 "\"name\":\"get_row\",\"arguments\":\"{\\\"id\\\":7}\",\"status\""
	 ":\"completed\"},{\"type\":\"function_call\",\"id\":\"fc_2\"",
	 NULL, NULL, NULL, 0},
	{"responses_incomplete.json", WORLD, "max_output_tokens", false, 20,
	 9, 4, 4, NULL, NULL, NULL, NULL, 0},
	{"responses_failed.json", NULL, NULL, false, -1, -1, -1, -1, NULL,
	 "The model gave up.", "server_error", NULL, 0},
	{"responses_stream.sse", WORLD, "completed", false, 20, 9, 4, 4,
	 "\"encrypted_content\":\"Z2liYmVyaXNo\"},{\"type\":\"message\",\""
	 "id\":\"msg_1\"",
	 NULL, NULL, NULL, 0},
	{"responses_stream_tool.sse", NULL, "completed", true, 20, 9, 4, 4,
	 "[{\"type\":\"function_call\",\"id\":\"fc_1\",\"call_id\":\"call_"
	 "1\"",
	 NULL, NULL, NULL, 0},
	{"responses_stream_repeat.sse", NULL, "completed", true, 20, 9, 4, 4,
	 "\"status\":\"completed\"},{\"type\":\"function_call\",\"id\":\"fc_2\","
	 "\"call_id\":\"call_2\",\"name\":\"get_row\",\"arguments\":\"{}\","
	 "\"status\":\"completed\"}]",
	 NULL, NULL, NULL, 0},
	{"responses_stream_failed.sse", NULL, NULL, false, -1, -1, -1, -1, NULL,
	 "Slow down.", "rate_limit_exceeded", NULL, 0},
	{"responses_stream_error.sse", NULL, NULL, false, -1, -1, -1, -1, NULL,
	 "Something broke.", "server_error", NULL, 0},
	{"error_openai.json", NULL, NULL, false, -1, -1, -1, -1, NULL,
	 "You exceeded your current quota.", "project_spend_limit_exceeded",
	 NULL, 0},
	{"error_llamacpp.json", NULL, NULL, false, -1, -1, -1, -1, NULL,
	 "the request exceeds the available context size", "400", NULL, 0},
	{"error_vllm.json", NULL, NULL, false, -1, -1, -1, -1, NULL,
	 "This model's maximum context length is 4096 tokens.", "400", NULL, 0},
	{"error_gemini.json", NULL, NULL, false, -1, -1, -1, -1, NULL,
	 "Resource has been exhausted.", "429", NULL, 0},
	{"error_azure.json", NULL, NULL, false, -1, -1, -1, -1, NULL,
	 "The response was filtered.", "content_filter", NULL, 0},
	{"error_ollama.json", NULL, NULL, false, -1, -1, -1, -1, NULL,
	 "model \"m\" not found", NULL, NULL, 0},
};

/* The format of what is being read. */
static const PromProvider *provider;

/* The first word of a recording's name tells it, if it is not the first's. */
static const struct
{
	const char *word;
	const PromProvider *provider;
} formats[] = {
	{"", &prom_provider_openai},
	{"anthropic", &prom_provider_anthropic},
	{"gemini", &prom_provider_gemini},
	{"responses", &prom_provider_responses},
};


static void
choose_format(const char *file)
{
	for (int i = 0; i < lengthof(formats); i++)
		if (strncmp(file, formats[i].word, strlen(formats[i].word)) == 0)
			provider = formats[i].provider;
}

static void
load(Recording *recording, const char *directory)
{
	char path[1024];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", directory, recording->file);
	file = fopen(path, "r");
	if (file == NULL)
	{
		perror(path);
		exit(2);
	}
	recording->bytes = malloc(65536);
	recording->length = fread(recording->bytes, 1, 65536, file);
	fclose(file);
	choose_format(recording->file);
}

static bool
is_stream(const Recording *recording)
{
	return strstr(recording->file, ".sse") != NULL;
}

/* What could be seen of the stream while it came. */
static char heard[65536];

static void
hear(void *owner, const char *text, size_t length)
{
	size_t before = strlen(heard);

	check(before + length < sizeof(heard), "a stream says little");
	memcpy(heard + before, text, length);
	heard[before + length] = '\0';
}

static bool
take_event(void *arg, const char *name, const char *data, size_t length)
{
	PromSlice event = {data, length};

	if (!provider->read_event(arg, event))
		return false;
	provider->event_text(event, hear, NULL);
	return true;
}

/* Read a stream that comes in pieces: up to cut, then each step bytes. */
static void
read_stream(const char *bytes, size_t length, size_t cut, size_t step,
			PromTurn *turn)
{
	void *stream = provider->open_stream();
	PromSse sse;
	size_t at = 0;

	heard[0] = '\0';
	prom_sse_init(&sse, take_event, stream);
	while (at < length)
	{
		size_t n = at < cut ? cut - at : step;

		if (n > length - at)
			n = length - at;
		if (prom_sse_feed(&sse, bytes + at, n) != PROM_SSE_OK)
			break;
		at += n;
	}
	prom_sse_end(&sse);
	check(prom_sse_memory(&sse) + provider->stream_memory(stream) < 200000,
		  "a stream holds little memory");
	prom_sse_free(&sse);
	prom_turn_init(turn);
	provider->read_stream(stream, turn);
}

/* Without characters beyond the BMP, and what is not one: see check_heard(). */
static void
drop_pairs(char *text)
{
	char *to = text;

	for (const char *c = text; *c != '\0';)
	{
		if (((unsigned char) *c & 0xF8) == 0xF0)
			c += 4;
		else if (strncmp(c, "\xEF\xBF\xBD", 3) == 0)
			c += 3;
		else
			*to++ = *c++;
	}
	*to = '\0';
}

/*
 * What could be seen while it came is the answer; but a character whose two
 * surrogates come in two events cannot be seen.
 */
static void
check_heard(const PromTurn *turn)
{
	char *answer;

	if (turn->answer == NULL)
		return;
	answer = strdup(turn->answer);
	drop_pairs(answer);
	drop_pairs(heard);
	check_text(heard, answer, "what was seen while it came");
	free(answer);
}

static void
check_turn(const Recording *recording, const PromTurn *turn, const char *how)
{
	char about[128];

	snprintf(about, sizeof(about), "%s, %s", recording->file, how);
	check_text(turn->message, recording->message, about);
	check_text(turn->code, recording->code, about);
	if (strcmp(recording->file, "error_gemini.json") == 0)
		check(turn->retry_after == 46000, "%s: retry after %lld", about,
			  (long long) turn->retry_after);
	check(turn->is_error == (recording->message != NULL), "%s: error", about);
	if (turn->is_error)
		return;
	check(turn->problem == PROM_TURN_FINE, "%s: %s", about,
		  turn->why ? turn->why : "-");
	check_text(turn->answer, recording->answer, about);
	check_text(turn->finish_reason, recording->finish, about);
	check((turn->ncalls > 0) == recording->tools, "%s: tools", about);
	check(turn->tokens_in == recording->tokens_in &&
			  turn->tokens_out == recording->tokens_out &&
			  turn->cached_tokens == recording->cached &&
			  turn->reasoning_tokens == recording->reasoning,
		  "%s: usage", about);
	check(recording->raw_has == NULL ||
			  (turn->raw && strstr(turn->raw, recording->raw_has)),
		  "%s: raw is %s", about, turn->raw ? turn->raw : "-");
}

static void
read_whole(const Recording *recording, PromTurn *turn)
{
	PromSlice body = {recording->bytes, recording->length};

	prom_turn_init(turn);
	if (recording->message != NULL)
		provider->read_error(turn, body);
	else
		provider->read_body(turn, body);
}

/* Replace each line end; returns the new length. */
static size_t
change_line_ends(const Recording *recording, const char *end, char *to)
{
	size_t length = 0;
	size_t i;

	for (i = 0; i < recording->length; i++)
	{
		if (recording->bytes[i] != '\n')
		{
			to[length++] = recording->bytes[i];
			continue;
		}
		memcpy(to + length, end, strlen(end));
		length += strlen(end);
	}
	return length;
}

/* The same whatever the pieces and the line ends. */
static void
test_pieces(const Recording *recording)
{
	static const char *const ends[] = {"\n", "\r\n", "\r"};
	char *text = malloc(recording->length * 2);
	int begun = group_begin();
	PromTurn turn;
	size_t cut;
	int i;

	for (i = 0; i < lengthof(ends); i++)
	{
		size_t length = change_line_ends(recording, ends[i], text);

		for (cut = 0; cut <= length; cut++)
		{
			read_stream(text, length, cut, length, &turn);
			check_turn(recording, &turn, "cut in two");
			check_heard(&turn);
			prom_turn_clear(&turn);
		}
		read_stream(text, length, 0, 1, &turn);
		check_turn(recording, &turn, "byte by byte");
		check_heard(&turn);
		prom_turn_clear(&turn);
		read_stream(text, length, 0, 7, &turn);
		check_turn(recording, &turn, "in sevens");
		check_heard(&turn);
		prom_turn_clear(&turn);
	}
	group_end(begun);
	free(text);
}

/* A reply that breaks off is never a turn that came to its end. */
static void
test_truncated(const Recording *recording)
{
	int begun = group_begin();
	PromTurn turn;
	size_t length;

	for (length = 0; length < recording->length; length++)
	{
		PromSlice body = {recording->bytes, length};
		bool whole;

		prom_turn_init(&turn);
		if (is_stream(recording))
			read_stream(recording->bytes, length, 0, length + 1, &turn);
		else
			provider->read_body(&turn, body);
		whole = turn.problem == PROM_TURN_FINE && !turn.is_error;

		/* The end of a stream's turn is before the end of the stream. */
		if (whole && is_stream(recording))
			whole = turn.answer != NULL &&
					strcmp(turn.answer, recording->answer ? recording->answer
														  : "") != 0;
		else if (whole)
			whole = length + 1 < recording->length;
		check(!whole || recording->tools, "%s: %zu of %zu bytes are a turn",
			  recording->file, length, recording->length);
		prom_turn_clear(&turn);
	}
	group_end(begun);
}

/* Is this what may be stored and sent on: UTF-8 without zero bytes? */
static bool
is_clean(const char *text)
{
	size_t length = 0;
	char *clean;
	bool ok;

	if (text == NULL)
		return true;
	clean = prom_text_clean(text, strlen(text), &length);
	ok = length == strlen(text) && strcmp(clean, text) == 0;
	free(clean);
	return ok;
}

static void
check_damaged(const PromTurn *turn)
{
	PromSlice raw = {turn->raw, turn->raw ? strlen(turn->raw) : 0};
	bool ok = is_clean(turn->answer) && is_clean(turn->raw) &&
			  is_clean(turn->refusal) && is_clean(turn->message) &&
			  is_clean(turn->code) && is_clean(turn->type) &&
			  is_clean(turn->finish_reason) &&
			  (turn->raw == NULL || prom_json_valid(raw));

	check(ok, "what was read of a damaged reply is not clean: %s",
		  turn->raw ? turn->raw : "-");
}

static bool
is_same(const char *one, const char *other)
{
	return one == NULL ? other == NULL
					   : other != NULL && strcmp(one, other) == 0;
}

/* A damaged stream, too, says the same whatever the pieces. */
static void
check_same(const PromTurn *one, const PromTurn *other)
{
	check(one->problem == other->problem && one->is_error == other->is_error &&
			  one->ncalls == other->ncalls && is_same(one->raw, other->raw) &&
			  is_same(one->answer, other->answer) &&
			  is_same(one->finish_reason, other->finish_reason) &&
			  is_same(one->message, other->message),
		  "a damaged stream in pieces: %s, and not %s",
		  other->raw ? other->raw : "-", one->raw ? one->raw : "-");
}

/* Change some bytes of a copy; returns its length. */
static size_t
damage(const Recording *recording, char *copy, unsigned *seed)
{
	static const char marks[] = "\"\\{}[]:,\n\r\0u0d8\xFF\xC3\xED 9-eE.tfn";
	size_t length = recording->length;
	int changes = 1 + (int) (next_random(seed) % 8);

	memcpy(copy, recording->bytes, length);
	while (changes-- > 0)
	{
		size_t at = next_random(seed) % length;
		size_t n = 1 + next_random(seed) % 16;

		if (n > length - at)
			n = length - at;
		switch (next_random(seed) % 4)
		{
			case 0:
				copy[at] = (char) next_random(seed);
				break;
			case 1:
				copy[at] = marks[next_random(seed) % (sizeof(marks) - 1)];
				break;
			case 2:
				memmove(copy + at, copy + at + n, length - at - n);
				length = length > n ? length - n : length;
				break;
			case 3:
				memmove(copy + next_random(seed) % (length - n + 1),
						copy + at, n);
				break;
		}
	}
	return length;
}

/* Damaged replies must give something clean, and no crash. */
static void
test_damaged(double limit)
{
	char *copy = malloc(65536);
	unsigned seed = 42;
	clock_t end = clock() + (clock_t) (limit * CLOCKS_PER_SEC);
	int begun = group_begin();
	long rounds = 0;

	while (clock() < end && rounds < 200000)
	{
		const Recording *recording =
			&recordings[rounds++ % lengthof(recordings)];
		size_t length = damage(recording, copy, &seed);
		PromSlice body = {copy, length};
		PromTurn turn;
		PromTurn pieces;

		choose_format(recording->file);
		read_stream(copy, length, 0, length, &turn);
		check_damaged(&turn);
		read_stream(copy, length, next_random(&seed) % length,
					1 + next_random(&seed) % length, &pieces);
		check_same(&turn, &pieces);
		prom_turn_clear(&turn);
		prom_turn_clear(&pieces);
		provider->read_body(&turn, body);
		check_damaged(&turn);
		prom_turn_clear(&turn);
		provider->read_error(&turn, body);
		check_damaged(&turn);
		prom_turn_clear(&turn);
	}
	group_end(begun);
	printf("# %ld damaged replies\n", rounds);
	free(copy);
}


/* Must a body have this, or must it not? */
typedef struct Want
{
	const PromProvider *provider;
	const char *text;
	bool has;
} Want;

/*
 * A conversation with blanks, and with turns of some other model: one that
 * used the same id twice, one that invented the name of a tool.
 */
static void
test_bodies(void)
{
	static const PromToolCall first[] = {{"no-id-1", "get row\xC3\xA4", "{}"},
										 {"a.b", "", "[1]"}};
	static const PromToolCall second[] = {{"no-id-1", "7", "{\"id\":7}"}};
	static const PromMessage messages[] = {
		{"system", "  ", NULL, NULL, 0, NULL, NULL, false},
		{"user", "Hello", NULL, NULL, 0, NULL, NULL, false},
		{"assistant", "", NULL, NULL, 0, NULL, NULL, false},
		{"user", "\n\t ", NULL, NULL, 0, NULL, NULL, false},
		{"assistant", " ", NULL, first, 2, NULL, NULL, false},
		{"tool", " ", NULL, NULL, 0, "no-id-1", "get row\xC3\xA4", false},
		{"tool", "No.", NULL, NULL, 0, "a.b", "", true},
		{"assistant", "", NULL, second, 1, NULL, NULL, false},
		{"tool", "7", NULL, NULL, 0, "no-id-1", "7", false},
	};
	static const Want wants[] = {
		{&prom_provider_anthropic, "\"type\":\"text\",\"text\":\"Hello\"", true},
		{&prom_provider_anthropic, "\"text\":\"\"", false},
		{&prom_provider_anthropic, "\"text\":\" ", false},
		{&prom_provider_anthropic, "\"text\":\"\\n", false},
		{&prom_provider_anthropic, "\"system\"", false},
		{&prom_provider_anthropic, "\"content\":[]", false},
		{&prom_provider_anthropic,
		 "\"id\":\"call_4_1\",\"name\":\"get_row__\",\"input\":{}}", true},
		{&prom_provider_anthropic,
		 "\"id\":\"call_4_2\",\"name\":\"_\",\"input\":{}}", true},
		{&prom_provider_anthropic, "\"tool_use_id\":\"call_4_1\"}", true},
		{&prom_provider_anthropic,
		 "\"tool_use_id\":\"call_4_2\",\"content\":\"No.\",\"is_error\":true}",
		 true},
		{&prom_provider_anthropic, "\"tool_use_id\":\"call_7_1\"", true},
		{&prom_provider_gemini, "\"parts\":[{\"text\":\"\"}]", false},
		{&prom_provider_gemini,
		 "{\"functionResponse\":{\"name\":\"get_row__\",\"response\"", true},
		{&prom_provider_gemini,
		 "{\"functionCall\":{\"name\":\"_7\",\"args\":{\"id\":7}}", true},
		{&prom_provider_openai, "\"name\":\"get_row__\"", true},
		{&prom_provider_responses, "\"name\":\"get_row__\"", true},
	};
	PromPrompt prompt = {.messages = messages,
						 .nmessages = lengthof(messages),
						 .model = "m"};
	PromModel model = {.max_tokens = -1};

	for (int i = 0; i < lengthof(wants); i++)
	{
		PromSlice json;
		StringInfoData body;

		initStringInfo(&body);
		wants[i].provider->build(&body, &model, "example.com", &prompt);
		json = (PromSlice){body.data, body.len};
		check(prom_json_valid(json), "a body is JSON: %s", body.data);
		check((strstr(body.data, wants[i].text) != NULL) == wants[i].has,
			  "%s: %s: %s", wants[i].provider->api, wants[i].text, body.data);
		pfree(body.data);
	}
}


typedef struct Events
{
	char text[256];
	int left; /* that are wanted; -1: all */
} Events;

static bool
note_event(void *arg, const char *name, const char *data, size_t length)
{
	Events *events = arg;

	check(strlen(data) == length, "data ends with a zero byte");
	strlcat(events->text, name, sizeof(events->text));
	strlcat(events->text, "<", sizeof(events->text));
	strlcat(events->text, data, sizeof(events->text));
	strlcat(events->text, ">", sizeof(events->text));
	return events->left < 0 || --events->left > 0;
}

static void
check_events(const char *text, const char *want)
{
	int begun = group_begin();
	size_t step;

	for (step = 1; step <= strlen(text) + 1; step++)
	{
		Events events = {"", -1};
		PromSse sse;
		size_t at;

		prom_sse_init(&sse, note_event, &events);
		for (at = 0; at < strlen(text); at += step)
			prom_sse_feed(&sse, text + at, Min(step, strlen(text) - at));
		prom_sse_end(&sse);
		check_text(events.text, want, text);
		prom_sse_free(&sse);
	}
	group_end(begun);
}

static void
test_sse(void)
{
	check_events("data: a\n\ndata: b\n\n", "<a><b>");
	check_events("data: a\r\n\r\ndata: b\r\n\r\n", "<a><b>");
	check_events("data: a\r\rdata: b\r\r", "<a><b>");
	check_events("\xEF\xBB\xBF"
				 "data: a\n\n",
				 "<a>");
	check_events("data:a\n\ndata:  b\n\n", "<a>< b>");
	check_events("data: a\ndata: b\n\n", "<a\nb>");
	check_events("data: a\ndata\ndata:\n\n", "<a\n\n>");
	check_events(": comment\n:\n\nevent: x\nid: 1\nretry: 5\ndata: a\n\n",
				 "x<a>");
	check_events("event: x\n\ndata: a\n\n", "<a>");
	check_events("event: x\ndata: a\n\ndata: b\n\n", "x<a><b>");
	check_events("\n\n\n", "");
	check_events("data: a", "<a>");
	check_events("data: a\n", "<a>");
	check_events("", "");
	check_events("nonsense\ndatax: a\ndat: b\n\n", "");
}

static void
test_sse_limits(void)
{
	size_t size = PROM_SSE_MAX_LINE + 100;
	char *line = malloc(size);
	Events events = {"", 1};
	PromSse sse;
	int i;

	memset(line, 'x', size);
	memcpy(line, "data: ", 6);
	prom_sse_init(&sse, note_event, &events);
	check(prom_sse_feed(&sse, line, size) == PROM_SSE_TOO_LONG,
		  "a line without end");
	check(prom_sse_feed(&sse, "\n", 1) == PROM_SSE_TOO_LONG, "for good");
	prom_sse_free(&sse);

	prom_sse_init(&sse, note_event, &events);
	line[size - 1] = '\n';
	check(prom_sse_feed(&sse, line, size) == PROM_SSE_TOO_LONG, "a long line");
	prom_sse_free(&sse);

	prom_sse_init(&sse, note_event, &events);
	line[999999] = '\n';
	for (i = 0; i < 4; i++)
		check(prom_sse_feed(&sse, line, 1000000) == PROM_SSE_OK, "%d MB", i);
	check(prom_sse_feed(&sse, line, 1000000) == PROM_SSE_TOO_LONG,
		  "a long event");
	prom_sse_free(&sse);

	prom_sse_init(&sse, note_event, &events);
	check(prom_sse_feed(&sse, "data: a\n\ndata: b\n\n", 18) ==
			  PROM_SSE_STOPPED,
		  "stopped by the handler");
	check_text(events.text, "<a>", "nothing after the stop");
	prom_sse_free(&sse);
	free(line);
}

/* Members of other formats beside its calls do not make it one of these. */
static void
test_form(void)
{
	static const char turn[] =
		"{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\",\"function\":"
		"{\"name\":\"read\",\"arguments\":\"{}\"}}],\"content\":[{\"type\":"
		"\"tool_use\",\"id\":\"b\",\"name\":\"drop\",\"input\":{}}],"
		"\"parts\":[{\"functionCall\":{\"name\":\"drop\"}}]}";
	PromToolCall *calls;
	bool regular;
	int n;

	calls = prom_toolcall_read(turn, &n, &regular);
	check(n == 1 && strcmp(calls[0].name, "read") == 0,
		  "a turn of chat completions with members of other formats");
	for (int i = 0; i < n; i++)
	{
		pfree((char *) calls[i].id);
		pfree((char *) calls[i].name);
		pfree((char *) calls[i].arguments);
	}
	pfree(calls);
}

int
main(int argc, char **argv)
{
	int i;

	if (argc < 2)
		return 2;
	test_sse();
	test_sse_limits();
	test_form();
	test_bodies();
	for (i = 0; i < lengthof(recordings); i++)
	{
		Recording *recording = &recordings[i];
		PromTurn turn;

		load(recording, argv[1]);
		if (is_stream(recording))
			test_pieces(recording);
		else
		{
			read_whole(recording, &turn);
			check_turn(recording, &turn, "whole");
			prom_turn_clear(&turn);
		}
		if (recording->message == NULL)
			test_truncated(recording);
	}
	test_damaged(argc > 2 ? atof(argv[2]) : 5);
	for (i = 0; i < lengthof(recordings); i++)
		free(recordings[i].bytes);
	return report();
}
