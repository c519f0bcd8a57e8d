/*
 * responses.c
 *	  Responses: OpenAI's newer format, without state at the provider.
 *
 * A turn is a list of items: reasoning, messages, calls of functions.  It is
 * kept as that list and goes back item by item, as it came; only reasoning
 * that is not in it, encrypted, is left out, since nobody has it any more.
 */
#include "postgres.h"

#include "utils/json.h"

#include "provider/reading.h"
#include "toolcall.h"

/* A stream that is being read. */
typedef struct Stream
{
	PromTurn turn;
	PromJoined items;
	bool done;
} Stream;

static const PromFinish finishes[] = {
	{"completed", "end"},
	{"max_output_tokens", "length"},
	{"content_filter", "filter"},
};

/*
 * Models that cannot reason refuse to be asked for encrypted reasoning, and
 * all others need it.  Names of those that began so.
 */
static const char *const plain_models[] = {"gpt-3", "gpt-4", "chatgpt",
										   "gpt-5-chat"};

static const char *const members[] = {
	"model",
	"input",
	"store",
	"include",
	"tools",
	"text.format",
	"max_output_tokens",
	"temperature",
	"stream",
	NULL,
};


/* Building a request. */

static void
responses_add_path(StringInfo path, const char *model, bool stream)
{
	appendStringInfoString(path, "/responses");
}

static bool
can_reason(const char *model)
{
	for (int i = 0; i < lengthof(plain_models); i++)
		if (strncmp(model, plain_models[i], strlen(plain_models[i])) == 0)
			return false;
	return true;
}

static void
add_message(StringInfo body, const char *role, const char *text)
{
	appendStringInfo(body, "{\"role\":\"%s\",\"content\":", role);
	escape_json(body, text);
	appendStringInfoChar(body, '}');
}

static void
add_result(StringInfo body, const PromMessage *message)
{
	appendStringInfoString(body,
						   "{\"type\":\"function_call_output\",\"call_id\":");
	escape_json(body, message->call_id);
	appendStringInfoString(body, ",\"output\":");
	escape_json(body, message->text);
	appendStringInfoChar(body, '}');
}

/* A turn by what was read of it. */
static void
add_turn(StringInfo body, const PromMessage *message)
{
	const char *comma = "";

	if (*message->text != '\0' || message->ncalls == 0)
	{
		add_message(body, "assistant", message->text);
		comma = ",";
	}
	for (int i = 0; i < message->ncalls; i++)
	{
		const PromToolCall *call = &message->calls[i];

		appendStringInfo(body, "%s{\"type\":\"function_call\",\"call_id\":",
						 comma);
		escape_json(body, call->id);
		appendStringInfoString(body, ",\"name\":");
		prom_provider_add_name(body, call->name);
		appendStringInfoString(body, ",\"arguments\":");
		escape_json(body, prom_toolcall_object(call->arguments));
		appendStringInfoChar(body, '}');
		comma = ",";
	}
}

/* The items of a turn as it came: its list without the brackets. */
static void
add_raw(StringInfo body, const char *raw)
{
	appendBinaryStringInfo(body, raw + 1, (int) strlen(raw) - 2);
}

static void
add_input(StringInfo body, const PromPrompt *prompt)
{
	appendStringInfoString(body, ",\"input\":[");
	for (int i = 0; i < prompt->nmessages; i++)
	{
		const PromMessage *message = &prompt->messages[i];

		if (i > 0)
			appendStringInfoChar(body, ',');
		if (message->call_id != NULL)
			add_result(body, message);
		else if (prom_provider_takes_raw(&prom_provider_responses, message))
			add_raw(body, message->raw);
		else if (strcmp(message->role, "assistant") == 0)
			add_turn(body, message);
		else
			add_message(body, message->role, message->text);
	}
	appendStringInfoChar(body, ']');
}

static void
add_tools(StringInfo body, const PromPrompt *prompt)
{
	if (prompt->ntools == 0)
		return;
	appendStringInfoString(body, ",\"tools\":[");
	for (int i = 0; i < prompt->ntools; i++)
	{
		const PromToolOffer *tool = &prompt->tools[i];

		appendStringInfo(body, "%s{\"type\":\"function\",",
						 i > 0 ? "," : "");
		prom_provider_add_offer(body, tool);
		appendStringInfo(body, ",\"parameters\":%s,\"strict\":false}",
						 tool->schema);
	}
	appendStringInfoChar(body, ']');
}

/* Members of "text". */
static char *
make_format(const PromPrompt *prompt)
{
	if (prompt->output_schema == NULL)
		return NULL;
	return psprintf(",\"format\":{\"type\":\"json_schema\","
					"\"name\":\"answer\",\"strict\":%s,\"schema\":%s}",
					prompt->strict ? "true" : "false", prompt->output_schema);
}

static void
responses_build(StringInfo body, const PromModel *model, const char *host,
				const PromPrompt *prompt)
{
	appendStringInfoString(body, "{\"model\":");
	escape_json(body, prompt->model);
	appendStringInfoString(body, ",\"store\":false");
	if (can_reason(prompt->model))
		appendStringInfoString(
			body, ",\"include\":[\"reasoning.encrypted_content\"]");
	add_tools(body, prompt);
	add_input(body, prompt);
	if (model->max_tokens >= 0)
		appendStringInfo(body, ",\"max_output_tokens\":%d", model->max_tokens);
	if (model->temperature != NULL)
		appendStringInfo(body, ",\"temperature\":%s", model->temperature);
	appendStringInfo(body, ",\"stream\":%s", model->stream ? "true" : "false");
	prom_provider_add_extra(body, &prom_provider_responses, model,
							make_format(prompt));
	appendStringInfoChar(body, '}');
}


/* Reading the turn. */

static void
read_usage(PromTurn *turn, PromSlice usage)
{
	json_object *object;

	if (prom_json_kind(usage) != '{')
		return;
	object = prom_reading_parse(usage);
	turn->tokens_in = prom_reading_count(object, "input_tokens");
	turn->tokens_out = prom_reading_count(object, "output_tokens");
	turn->cached_tokens = prom_reading_count(
		prom_reading_member(object, "input_tokens_details"), "cached_tokens");
	turn->reasoning_tokens = prom_reading_count(
		prom_reading_member(object, "output_tokens_details"), "reasoning_tokens");
	json_object_put(object);
}

/* The texts of a message, and what it says when it refuses. */
static bool
read_message(PromTurn *turn, PromJoined *answer, PromSlice item)
{
	PromSlice content;
	PromSlice part;
	size_t position = 0;
	bool ok = true;

	if (!prom_json_find(item, "content", &content))
		return true;
	while (ok && prom_json_next_element(content, &position, &part))
	{
		if (prom_reading_has_type(part, "output_text"))
			ok = prom_reading_append_string(turn, answer, part, "text");
		else if (prom_reading_has_type(part, "refusal") &&
				 turn->refusal == NULL)
			turn->refusal = prom_reading_string(turn, part, "refusal");
	}
	return ok && turn->problem == PROM_TURN_FINE;
}

/* Reasoning that only the provider has, which keeps nothing for us. */
static bool
is_lost(PromSlice item)
{
	PromSlice value;

	return prom_reading_has_type(item, "reasoning") &&
		   (!prom_json_find(item, "encrypted_content", &value) ||
			prom_json_kind(value) != '"');
}

/* Read the items of a turn, known to be valid, and make its raw form. */
static void
read_items(PromTurn *turn, PromSlice items)
{
	PromJoined answer = {0};
	PromJoined raw = {0};
	const char *comma = "";
	PromSlice item;
	size_t position = 0;
	bool ok = prom_reading_append_text(turn, &raw, "[");

	while (ok && prom_json_next_element(items, &position, &item))
	{
		if (is_lost(item))
			continue;
		if (prom_reading_has_type(item, "message"))
			ok = read_message(turn, &answer, item);
		else if (prom_reading_has_type(item, "function_call"))
			turn->ncalls++;
		ok = ok && prom_reading_append_text(turn, &raw, comma) &&
			 prom_reading_append_clean(turn, &raw, item);
		comma = ",";
	}
	if (ok)
		(void) prom_reading_append_text(turn, &raw, "]");
	turn->raw = raw.text;
	turn->answer = answer.text;
}

/* What a response says beside its items; false: that it is an error. */
static bool
read_response(PromTurn *turn, PromSlice response)
{
	PromSlice value;

	if (prom_json_find(response, "usage", &value))
		read_usage(turn, value);
	if (prom_reading_is_error(response))
	{
		prom_reading_error(turn, response);
		return false;
	}
	if (prom_json_find(response, "incomplete_details", &value))
		prom_reading_finish(turn, value, "reason");
	prom_reading_finish(turn, response, "status");
	return true;
}

static void
responses_read_body(PromTurn *turn, PromSlice body)
{
	PromSlice items;

	if (!prom_reading_body(turn, body) || !read_response(turn, body))
		return;
	if (!prom_json_find(body, "output", &items) ||
		prom_json_kind(items) != '[')
	{
		prom_turn_set_problem(turn, PROM_TURN_UNREADABLE, "it has no output");
		return;
	}
	read_items(turn, items);
	if (turn->finish_reason == NULL)
		prom_turn_set_problem(turn, PROM_TURN_UNREADABLE,
							  "it does not say why the turn ended");
}


/* Reading the calls of a turn. */

static bool
responses_is_turn(PromSlice turn)
{
	return prom_json_kind(turn) == '[';
}

/* Answers go by call_id; id is that of the item. */
static void
responses_read_calls(PromToolCalls *calls, PromSlice turn)
{
	PromSlice item;
	size_t position = 0;

	while (prom_json_next_element(turn, &position, &item))
		if (prom_reading_has_type(item, "function_call"))
			prom_toolcall_add(calls, prom_toolcall_string(item, "call_id"),
							  prom_toolcall_string(item, "name"),
							  prom_toolcall_value(item, "arguments"));
}


/* Reading a stream. */

static void *
responses_open_stream(void)
{
	Stream *stream = calloc(1, sizeof(Stream));

	if (stream != NULL)
		prom_turn_init(&stream->turn);
	return stream;
}

static void
responses_free_stream(void *arg)
{
	Stream *stream = arg;

	prom_turn_clear(&stream->turn);
	free(stream->items.text);
	free(stream);
}

static size_t
responses_stream_memory(const void *arg)
{
	const Stream *stream = arg;

	return sizeof(Stream) + stream->items.size;
}

static bool
responses_stream_is_done(const void *arg)
{
	const Stream *stream = arg;

	return stream->done;
}

/*
 * The response at the end has all items again, and its word counts: a stream
 * may repeat one.  Some servers leave them out there.
 */
static void
read_end(Stream *stream, PromSlice response)
{
	PromSlice items;
	PromSlice item;
	size_t position;

	stream->done = true;
	if (!read_response(&stream->turn, response))
		return;
	if (!prom_json_find(response, "output", &items) ||
		prom_json_kind(items) != '[')
		return;
	position = 0;
	if (!prom_json_next_element(items, &position, &item))
		return;
	stream->items.length = 0;
	(void) prom_reading_append(&stream->turn, &stream->items,
							   (PromSlice){items.data, items.length - 1});
}

/* Pieces of items are not needed: each item comes whole when it is done. */
static bool
responses_read_event(void *arg, PromSlice data)
{
	Stream *stream = arg;
	PromTurn *turn = &stream->turn;
	PromSlice value;

	if (data.length == 0 || stream->done)
		return true;
	if (data.length == 6 && memcmp(data.data, "[DONE]", 6) == 0)
		return true;
	if (!prom_reading_event(turn, data))
		return false;
	if (prom_reading_has_type(data, "error"))
	{
		prom_reading_error(turn, data);
		return false;
	}
	if (prom_reading_has_type(data, "response.output_item.done") &&
		prom_json_find(data, "item", &value))
		(void) (prom_reading_append_text(turn, &stream->items,
										 stream->items.length == 0 ? "["
																   : ",") &&
				prom_reading_append(turn, &stream->items, value));
	else if ((prom_reading_has_type(data, "response.completed") ||
			  prom_reading_has_type(data, "response.incomplete") ||
			  prom_reading_has_type(data, "response.failed")) &&
			 prom_json_find(data, "response", &value))
		read_end(stream, value);
	return turn->problem == PROM_TURN_FINE && !turn->is_error;
}

static void
responses_event_text(PromSlice data, PromHear hear, void *owner)
{
	PromSlice text;

	if (prom_reading_has_type(data, "response.output_text.delta") &&
		prom_json_find(data, "delta", &text))
		prom_reading_hear(text, hear, owner);
}

static void
responses_read_stream(void *arg, PromTurn *turn)
{
	Stream *stream = arg;

	*turn = stream->turn;
	prom_turn_init(&stream->turn);
	if (turn->problem == PROM_TURN_FINE && !turn->is_error)
	{
		if (stream->items.length > 0 &&
			prom_reading_append_text(turn, &stream->items, "]"))
			read_items(turn, (PromSlice){stream->items.text,
										 stream->items.length});
		if (turn->finish_reason == NULL)
			prom_turn_set_problem(turn, PROM_TURN_UNREADABLE,
								  "the stream stopped before the turn's end");
	}
	responses_free_stream(stream);
}

static const char *
responses_finish(const char *finish_reason)
{
	return prom_reading_canonical(finishes, lengthof(finishes), finish_reason);
}

const PromProvider prom_provider_responses = {
	.api = "openai-responses",
	.add_path = responses_add_path,
	.key_header = prom_provider_openai_key_header,
	.build = responses_build,
	.members = members,
	.shared = "text",
	.read_body = responses_read_body,
	.read_error = prom_reading_error,
	.open_stream = responses_open_stream,
	.read_event = responses_read_event,
	.event_text = responses_event_text,
	.stream_memory = responses_stream_memory,
	.stream_is_done = responses_stream_is_done,
	.read_stream = responses_read_stream,
	.free_stream = responses_free_stream,
	.finish = responses_finish,
	.is_turn = responses_is_turn,
	.read_calls = responses_read_calls,
};
