/*
 * openai.c
 *	  Chat completions: OpenAI's format, which most servers speak.
 *
 * vLLM, llama.cpp, Ollama, Azure and the gateways differ in small ways, and
 * all of them are accepted: codes as numbers, errors as strings, errors inside
 * a good response, JSON where a stream was asked for, "stop" with tool calls.
 * json-c reads only the small control parts (usage, errors), because it would
 * change numbers and refuse depth; the turn itself is found as bytes.
 */
#include "postgres.h"

#include <json-c/json.h>

#include "utils/json.h"

#include "provider/delta.h"
#include "provider/provider.h"

#define JSON_DEPTH 128
#define MAX_SMALL (256 * 1024) /* bytes given to json-c */
#define MAX_WORD 128           /* bytes of an error's code or the like */

/* A stream that is being read. */
typedef struct Stream
{
	PromTurn turn;
	PromDelta *delta;
	bool done;
} Stream;

typedef struct Finish
{
	const char *reason;
	const char *canonical;
} Finish;

/* Reasons of the format, then those of servers that have their own. */
static const Finish finishes[] = {
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

static const char *
openai_key_header(const char *host)
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
	appendStringInfoChar(body, '}');
}


/* Reading small parts with json-c. */

/* Parse a small document; gives away the result, NULL if it cannot be read. */
static json_object *
parse_small(PromSlice json)
{
	json_tokener *tokener;
	json_object *object;

	if (json.length > MAX_SMALL)
		return NULL;
	tokener = json_tokener_new_ex(JSON_DEPTH);
	if (tokener == NULL)
		return NULL;
	object = json_tokener_parse_ex(tokener, json.data, (int) json.length);
	json_tokener_free(tokener);
	return object;
}

/* A member of an object, borrowed; NULL if there is none or it is null. */
static json_object *
member(json_object *object, const char *name)
{
	json_object *value = NULL;

	if (!json_object_is_type(object, json_type_object))
		return NULL;
	json_object_object_get_ex(object, name, &value);
	return value;
}

/* A count, or -1. */
static int64
count_of(json_object *object, const char *name)
{
	json_object *value = member(object, name);
	int64 count;

	if (!json_object_is_type(value, json_type_int) &&
		!json_object_is_type(value, json_type_double))
		return -1;
	count = json_object_get_int64(value);
	return count >= 0 ? count : -1;
}

static void
read_usage(PromTurn *turn, PromSlice usage)
{
	json_object *object;
	json_object *details;

	if (prom_json_kind(usage) != '{')
		return;
	object = parse_small(usage);
	details = member(object, "prompt_tokens_details");
	turn->tokens_in = count_of(object, "prompt_tokens");
	turn->tokens_out = count_of(object, "completion_tokens");
	turn->cached_tokens = count_of(details, "cached_tokens");
	if (turn->cached_tokens < 0)
		turn->cached_tokens = count_of(object, "prompt_cache_hit_tokens");
	json_object_put(object);
}

/* A string or number as clean text; NULL for all else. */
static char *
text_of(json_object *value, size_t max)
{
	const char *text;
	size_t length;

	if (!json_object_is_type(value, json_type_string) &&
		!json_object_is_type(value, json_type_int) &&
		!json_object_is_type(value, json_type_double))
		return NULL;
	text = json_object_get_string(value);
	length = json_object_is_type(value, json_type_string)
				 ? (size_t) json_object_get_string_len(value)
				 : strlen(text);
	if (length == 0)
		return NULL;
	return prom_text_clean(text, Min(length, max), NULL);
}

/* Google says in the body how long to wait: "retryDelay":"46s". */
static void
read_retry_delay(PromTurn *turn, json_object *details)
{
	size_t i;

	if (!json_object_is_type(details, json_type_array))
		return;
	for (i = 0; i < json_object_array_length(details); i++)
	{
		json_object *detail = json_object_array_get_idx(details, i);
		char *text = text_of(member(detail, "retryDelay"), MAX_WORD);

		if (text != NULL && text[strlen(text) - 1] == 's')
		{
			text[strlen(text) - 1] = '\0';
			turn->retry_after = prom_headers_read_delay(text, 1000);
		}
		free(text);
	}
}

/* The error in a document, under "error" or the document itself. */
static void
read_error_object(PromTurn *turn, json_object *root)
{
	json_object *error = member(root, "error");
	json_object *from = error != NULL ? error : root;

	if (json_object_is_type(error, json_type_string))
	{
		turn->message = text_of(error, SIZE_MAX);
		from = root;
	}
	if (turn->message == NULL)
		turn->message = text_of(member(from, "message"), SIZE_MAX);
	if (turn->message == NULL)
		turn->message = text_of(member(from, "detail"), SIZE_MAX);
	turn->code = text_of(member(from, "code"), MAX_WORD);
	turn->type = text_of(member(from, "type"), MAX_WORD);
	read_retry_delay(turn, member(from, "details"));
}

static void
openai_read_error(PromTurn *turn, PromSlice body)
{
	json_object *root;
	json_object *object;

	turn->is_error = true;
	if (prom_json_kind(body) != '{' && prom_json_kind(body) != '[')
		return;
	object = root = parse_small(body);
	if (json_object_is_type(root, json_type_array) &&
		json_object_array_length(root) > 0)
		object = json_object_array_get_idx(root, 0);
	read_error_object(turn, object);
	json_object_put(root);
}

/* Is this document an error, though its status is good? */
static bool
is_error(PromSlice json)
{
	PromSlice value;

	if (prom_json_find(json, "object", &value) && prom_json_is(value, "error"))
		return true;
	if (!prom_json_find(json, "error", &value))
		return false;
	switch (prom_json_kind(value))
	{
		case '{':
		case '[':
		case '"':
			return value.length > 2;
		case 't':
			return true;
		default:
			return false;
	}
}


/* Reading the turn. */

static void
set_no_memory(PromTurn *turn)
{
	prom_turn_set_problem(turn, PROM_TURN_NO_MEMORY, "memory is missing");
}

/* The member's text, malloc'd; NULL also if it is null or no string. */
static char *
string_member(PromTurn *turn, PromSlice object, const char *name)
{
	PromSlice value;
	char *text;

	if (!prom_json_find(object, name, &value) ||
		prom_json_kind(value) != '"')
		return NULL;
	text = prom_json_string(value, NULL);
	if (text == NULL)
		set_no_memory(turn);
	return text;
}

/* The texts of a content that is a list of parts, joined. */
static char *
join_parts(PromTurn *turn, PromSlice parts)
{
	char *joined = calloc(1, 1);
	PromSlice part;
	PromSlice type;
	size_t position = 0;
	size_t length = 0;

	while (joined != NULL && prom_json_next_element(parts, &position, &part))
	{
		char *text;
		char *grown;

		if (prom_json_kind(part) != '{' ||
			!prom_json_find(part, "type", &type) ||
			!prom_json_is(type, "text"))
			continue;
		text = string_member(turn, part, "text");
		if (text == NULL)
			continue;
		grown = realloc(joined, length + strlen(text) + 1);
		if (grown == NULL)
			free(joined);
		else
			memcpy(grown + length, text, strlen(text) + 1);
		joined = grown;
		length += strlen(text);
		free(text);
	}
	if (joined == NULL)
		set_no_memory(turn);
	return joined;
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
		set_no_memory(turn);
	turn->refusal = string_member(turn, message, "refusal");
	turn->ncalls = count_tool_calls(message);
	if (prom_json_find(message, "content", &content) &&
		prom_json_kind(content) == '[')
		turn->answer = join_parts(turn, content);
	else
		turn->answer = string_member(turn, message, "content");
}

static void
read_finish_reason(PromTurn *turn, PromSlice choice)
{
	PromSlice reason;

	if (turn->finish_reason != NULL ||
		!prom_json_find(choice, "finish_reason", &reason) ||
		prom_json_kind(reason) != '"' || reason.length <= 2 ||
		reason.length > MAX_WORD)
		return;
	turn->finish_reason = prom_json_string(reason, NULL);
	if (turn->finish_reason == NULL)
		set_no_memory(turn);
}

static void
openai_read_body(PromTurn *turn, PromSlice body)
{
	PromSlice choice;
	PromSlice message;
	PromSlice usage;

	if (!prom_json_valid(body))
	{
		prom_turn_set_problem(turn, PROM_TURN_UNREADABLE,
							  body.length > 0 ? "it is not JSON" : "it is empty");
		return;
	}
	if (is_error(body) || prom_json_kind(body) == '[')
	{
		openai_read_error(turn, body);
		return;
	}
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
	read_finish_reason(turn, choice);
	read_message(turn, message);
	if (turn->finish_reason == NULL)
		prom_turn_set_problem(turn, PROM_TURN_UNREADABLE,
							  "it does not say why the turn ended");
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
	read_finish_reason(&stream->turn, choice);
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
			set_no_memory(&stream->turn);
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
	if (!prom_json_valid(data) || prom_json_kind(data) != '{')
	{
		prom_turn_set_problem(turn, PROM_TURN_UNREADABLE,
							  "an event of it is not a JSON object");
		return false;
	}
	if (is_error(data))
	{
		openai_read_error(turn, data);
		return false;
	}
	if (prom_json_find(data, "usage", &value))
		read_usage(turn, value);
	if (prom_json_find(data, "choices.0", &value) &&
		prom_json_kind(value) == '{')
		read_choice(stream, value);
	return turn->problem == PROM_TURN_FINE;
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
		char *text = prom_delta_text(stream->delta, &message.length);

		message.data = text;
		if (text == NULL)
			set_no_memory(turn);
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
	int i;

	for (i = 0; i < lengthof(finishes); i++)
		if (strcmp(finishes[i].reason, finish_reason) == 0)
			return finishes[i].canonical;
	return "error";
}

const PromProvider prom_provider_openai = {
	.api = "openai",
	.path = "/chat/completions",
	.key_header = openai_key_header,
	.build = openai_build,
	.read_body = openai_read_body,
	.read_error = openai_read_error,
	.open_stream = openai_open_stream,
	.read_event = openai_read_event,
	.stream_memory = openai_stream_memory,
	.stream_is_done = openai_stream_is_done,
	.read_stream = openai_read_stream,
	.free_stream = openai_free_stream,
	.finish = openai_finish,
};
