/*
 * openai.c
 *	  Chat completions: OpenAI's format, which most servers speak.
 *
 * vLLM, llama.cpp, Ollama, Azure and the gateways differ in small ways, and
 * all of them are accepted: codes as numbers, errors as strings, errors inside
 * a good response, JSON where a stream was asked for, "stop" with tool calls.
 */
#include "postgres.h"

#include "utils/json.h"

#include "provider/delta.h"
#include "provider/reading.h"
#include "toolcall.h"

/* A stream that is being read. */
typedef struct Stream
{
	PromTurn turn;
	PromDelta *delta;
	bool done;
} Stream;

/* Reasons of the format, then those of servers that have their own. */
static const PromFinish finishes[] = {
	{"stop", "end"},
	{"tool_calls", "tool"},
	{"function_call", "tool"},
	{"length", "length"},
	{"content_filter", "filter"},
	{"eos", "end"},
	{"eos_token", "end"},
	{"end_turn", "end"},
	{"stop_sequence", "end"},
	{"COMPLETE", "end"},
	{"STOP", "end"},
	{"tool_use", "tool"},
	{"max_tokens", "length"},
	{"model_length", "length"},
	{"MAX_TOKENS", "length"},
	{"safety", "filter"},
	{"SAFETY", "filter"},
	{"recitation", "filter"},
};

/* And those of requests for embeddings. */
static const char *const members[] = {
	"model",
	"input",
	"encoding_format",
	"messages",
	"tools",
	"response_format",
	"max_tokens",
	"max_completion_tokens",
	"temperature",
	"stream",
	"stream_options",
	NULL,
};


/* Building a request. */

static bool
host_ends_in(const char *host, const char *domain)
{
	size_t host_length = strlen(host);
	size_t length = strlen(domain);

	return host_length >= length &&
		   pg_strcasecmp(host + host_length - length, domain) == 0 &&
		   (host_length == length || host[host_length - length - 1] == '.');
}

const char *
prom_provider_openai_key_header(const char *host)
{
	return host_ends_in(host, "azure.com") ? "api-key: "
										   : "Authorization: Bearer ";
}

/* Each server needs the name; the schema is what users gave. */
static void
build_response_format(StringInfo body, const PromPrompt *prompt)
{
	if (prompt->output_schema != NULL)
		appendStringInfo(body,
						 ",\"response_format\":{\"type\":\"json_schema\","
						 "\"json_schema\":{\"name\":\"answer\",\"strict\":%s,"
						 "\"schema\":%s}}",
						 prompt->strict ? "true" : "false",
						 prompt->output_schema);
}

static void
openai_add_path(StringInfo path, const char *model, bool stream)
{
	appendStringInfoString(path, "/chat/completions");
}

static void
openai_build(StringInfo body, const PromModel *model, const char *host,
			 const PromPrompt *prompt)
{
	appendStringInfoString(body, "{\"model\":");
	escape_json(body, prompt->model);
	appendStringInfoString(body, ",\"messages\":");
	prom_provider_add_messages(body, prompt);
	prom_provider_add_tools(body, prompt);
	build_response_format(body, prompt);

	/* The new name is refused by local servers, the old one by new models. */
	if (model->max_tokens >= 0)
		appendStringInfo(body, ",\"%s\":%d",
						 host_ends_in(host, "openai.com") ||
								 host_ends_in(host, "azure.com")
							 ? "max_completion_tokens"
							 : "max_tokens",
						 model->max_tokens);
	if (model->temperature != NULL)
		appendStringInfo(body, ",\"temperature\":%s", model->temperature);
	if (model->stream)
		appendStringInfoString(body, ",\"stream\":true,"
									 "\"stream_options\":{\"include_usage\":true}");
	else
		appendStringInfoString(body, ",\"stream\":false");
	prom_provider_add_extra(body, &prom_provider_openai, model, NULL);
	appendStringInfoChar(body, '}');
}


/* Reading the turn. */

static void
read_usage(PromTurn *turn, PromSlice usage)
{
	json_object *object;
	json_object *details;

	if (prom_json_kind(usage) != '{')
		return;
	object = prom_reading_parse(usage);
	details = prom_reading_member(object, "prompt_tokens_details");
	turn->tokens_in = prom_reading_count(object, "prompt_tokens");
	turn->tokens_out = prom_reading_count(object, "completion_tokens");
	turn->cached_tokens = prom_reading_count(details, "cached_tokens");
	if (turn->cached_tokens < 0)
		turn->cached_tokens = prom_reading_count(object, "prompt_cache_hit_tokens");
	details = prom_reading_member(object, "completion_tokens_details");
	turn->reasoning_tokens = prom_reading_count(details, "reasoning_tokens");
	json_object_put(object);
}

/* The texts of a content that is a list of parts, joined. */
static char *
join_parts(PromTurn *turn, PromSlice parts)
{
	PromJoined joined = {0};
	PromSlice part;
	size_t position = 0;

	while (prom_json_next_element(parts, &position, &part))
		if (prom_reading_has_type(part, "text") &&
			!prom_reading_append_string(turn, &joined, part, "text"))
			break;
	return joined.text;
}

static int
count_tool_calls(PromSlice message)
{
	PromSlice value;
	PromSlice element;
	size_t position = 0;
	int n = 0;

	if (prom_json_find(message, "tool_calls", &value))
		while (prom_json_next_element(value, &position, &element))
			n++;
	if (n == 0 && prom_json_find(message, "function_call", &value) &&
		prom_json_kind(value) == '{')
		n = 1;
	return n;
}

/* Read an assistant's message, known to be valid. */
static void
read_message(PromTurn *turn, PromSlice message)
{
	PromSlice content;

	turn->raw = prom_text_clean_json(message, NULL);
	if (turn->raw == NULL)
		prom_reading_no_memory(turn);
	turn->refusal = prom_reading_string(turn, message, "refusal");
	turn->ncalls = count_tool_calls(message);
	if (prom_json_find(message, "content", &content) &&
		prom_json_kind(content) == '[')
		turn->answer = join_parts(turn, content);
	else
		turn->answer = prom_reading_string(turn, message, "content");
}

static void
openai_read_body(PromTurn *turn, PromSlice body)
{
	PromSlice choice;
	PromSlice message;
	PromSlice usage;

	if (!prom_reading_body(turn, body))
		return;
	if (prom_json_find(body, "usage", &usage))
		read_usage(turn, usage);
	if (!prom_json_find(body, "choices.0", &choice) ||
		!prom_json_find(choice, "message", &message) ||
		prom_json_kind(message) != '{')
	{
		prom_turn_set_problem(turn, PROM_TURN_UNREADABLE,
							  "it has no choice with a message");
		return;
	}
	prom_reading_finish(turn, choice, "finish_reason");
	read_message(turn, message);
	if (turn->finish_reason == NULL)
		prom_turn_set_problem(turn, PROM_TURN_UNREADABLE,
							  "it does not say why the turn ended");
}


/* Reading the calls of a turn. */

/* All that has no form of another provider's is read as this one. */
static bool
openai_is_turn(PromSlice turn)
{
	return true;
}

/* The arguments are a string of JSON; some servers write an object. */
static void
read_call(PromToolCalls *calls, PromSlice element, PromSlice function)
{
	PromSlice arguments;

	if (prom_json_find(function, "arguments", &arguments) &&
		prom_json_kind(arguments) != '"')
		calls->regular = false;
	prom_toolcall_add(calls, prom_toolcall_string(element, "id"),
					  prom_toolcall_string(function, "name"),
					  prom_toolcall_value(function, "arguments"));
}

static void
openai_read_calls(PromToolCalls *calls, PromSlice turn)
{
	PromSlice list;
	PromSlice element;
	PromSlice function;
	size_t position = 0;

	if (prom_json_find(turn, "tool_calls", &list))
		while (prom_json_next_element(list, &position, &element))
			read_call(calls, element,
					  prom_json_find(element, "function", &function)
						  ? function
						  : element);
	if (calls->n == 0 && prom_json_find(turn, "function_call", &function))
	{
		read_call(calls, function, function);
		calls->regular = false;
	}
}


/* Reading a stream. */

static void *
openai_open_stream(void)
{
	Stream *stream = calloc(1, sizeof(Stream));

	if (stream == NULL)
		return NULL;
	prom_turn_init(&stream->turn);
	stream->delta = prom_delta_create();
	if (stream->delta == NULL)
	{
		free(stream);
		return NULL;
	}
	return stream;
}

static void
openai_free_stream(void *arg)
{
	Stream *stream = arg;

	prom_turn_clear(&stream->turn);
	prom_delta_free(stream->delta);
	free(stream);
}

static size_t
openai_stream_memory(const void *arg)
{
	const Stream *stream = arg;

	return sizeof(Stream) + prom_delta_memory(stream->delta);
}

static bool
openai_stream_is_done(const void *arg)
{
	const Stream *stream = arg;

	return stream->done;
}

/* Add what a chunk says of the first choice. */
static void
read_choice(Stream *stream, PromSlice choice)
{
	PromSlice piece;

	if (prom_json_find(choice, "index", &piece) &&
		!(piece.length == 1 && *piece.data == '0'))
		return;
	prom_reading_finish(&stream->turn, choice, "finish_reason");
	if (!prom_json_find(choice, "delta", &piece) &&
		!prom_json_find(choice, "message", &piece))
		return;
	if (prom_json_kind(piece) != '{')
		return;
	switch (prom_delta_merge(stream->delta, piece))
	{
		case PROM_DELTA_OK:
			break;
		case PROM_DELTA_TOO_MUCH:
			prom_turn_set_problem(&stream->turn, PROM_TURN_TOO_LONG,
								  "its turn has too many parts");
			break;
		case PROM_DELTA_NO_MEMORY:
			prom_reading_no_memory(&stream->turn);
			break;
	}
}

static bool
openai_read_event(void *arg, PromSlice data)
{
	Stream *stream = arg;
	PromTurn *turn = &stream->turn;
	PromSlice value;

	if (data.length == 0 || stream->done)
		return true;
	if (data.length == 6 && memcmp(data.data, "[DONE]", 6) == 0)
	{
		stream->done = true;
		return true;
	}
	if (!prom_reading_event(turn, data))
		return false;
	if (prom_json_find(data, "usage", &value))
		read_usage(turn, value);
	if (prom_json_find(data, "choices.0", &value) &&
		prom_json_kind(value) == '{')
		read_choice(stream, value);
	return turn->problem == PROM_TURN_FINE;
}

static void
openai_event_text(PromSlice data, PromHear hear, void *owner)
{
	PromSlice text;

	if (prom_json_find(data, "choices.0.delta.content", &text))
		prom_reading_hear(text, hear, owner);
}

static void
openai_read_stream(void *arg, PromTurn *turn)
{
	Stream *stream = arg;
	PromSlice message;

	*turn = stream->turn;
	prom_turn_init(&stream->turn);
	if (turn->problem == PROM_TURN_FINE && !turn->is_error)
	{
		char *text = prom_delta_message(stream->delta, &message.length);

		message.data = text;
		if (text == NULL)
			prom_reading_no_memory(turn);
		else
			read_message(turn, message);
		free(text);
		if (turn->finish_reason == NULL)
			prom_turn_set_problem(turn, PROM_TURN_UNREADABLE,
								  "the stream stopped before the turn's end");
	}
	openai_free_stream(stream);
}

static const char *
openai_finish(const char *finish_reason)
{
	return prom_reading_canonical(finishes, lengthof(finishes), finish_reason);
}

const PromProvider prom_provider_openai = {
	.api = "openai",
	.add_path = openai_add_path,
	.key_header = prom_provider_openai_key_header,
	.build = openai_build,
	.members = members,
	.read_body = openai_read_body,
	.read_error = prom_reading_error,
	.open_stream = openai_open_stream,
	.read_event = openai_read_event,
	.event_text = openai_event_text,
	.stream_memory = openai_stream_memory,
	.stream_is_done = openai_stream_is_done,
	.read_stream = openai_read_stream,
	.free_stream = openai_free_stream,
	.finish = openai_finish,
	.is_turn = openai_is_turn,
	.read_calls = openai_read_calls,
};
