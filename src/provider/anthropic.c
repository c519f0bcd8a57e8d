/*
 * anthropic.c
 *	  Messages: Anthropic's format (https://docs.anthropic.com, version
 *	  2023-06-01), as its own client sends and reads it.
 *
 * A turn is a list of blocks: text, calls of tools, thinking.  It is kept as
 * the message that goes back: with the blocks as they came, signatures of
 * thinking included, but without those of blank text, which are refused in a
 * request, and without what only a reply has.
 *
 * Version 2026-10-21 is not spoken: it refuses each temperature, and 2023-06-01
 * goes on as it is (docs: versions).
 */
#include "postgres.h"

#include "utils/json.h"

#include "provider/delta.h"
#include "provider/reading.h"
#include "toolcall.h"

#define MAX_BLOCKS 1024

/* The format requires a limit; each of its models can write so much. */
#define MAX_TOKENS 4096

/* What is before this mark is kept by the provider, and cheaper next time. */
#define CACHE_MARK ",\"cache_control\":{\"type\":\"ephemeral\"}"

/* A stream that is being read. */
typedef struct Stream
{
	PromTurn turn;
	PromDelta *blocks[MAX_BLOCKS];
	int indexes[MAX_BLOCKS]; /* that the stream gave them */
	int n;
	bool done;
} Stream;

static const PromFinish finishes[] = {
	{"end_turn", "end"},
	{"stop_sequence", "end"},
	{"tool_use", "tool"},
	{"max_tokens", "length"},
	{"model_context_window_exceeded", "length"},
	{"refusal", "filter"},
};

static const char *const members[] = {
	"model",
	"messages",
	"system",
	"tools",
	"max_tokens",
	"output_config.format",
	"temperature",
	"stream",
	NULL,
};

static const char *const headers[] = {"anthropic-version: 2023-06-01", NULL};


/* Building a request. */

static void
anthropic_add_path(StringInfo path, const char *model, bool stream)
{
	appendStringInfoString(path, "/messages");
}

static const char *
anthropic_key_header(const char *host)
{
	return "x-api-key: ";
}

/*
 * The id of a call.  Those of other formats may have characters that this one
 * refuses, or be used again by a later turn: calls of a turn that some other
 * model made are named by its place and theirs.  turn is NULL for an own one.
 */
static void
add_id(StringInfo body, const PromPrompt *prompt, const PromMessage *turn,
	   const char *id)
{
	int i = 0;

	if (turn == NULL)
	{
		escape_json(body, id);
		return;
	}
	while (i < turn->ncalls && strcmp(turn->calls[i].id, id) != 0)
		i++;
	appendStringInfo(body, "\"call_%d_%d\"",
					 (int) (turn - prompt->messages), i + 1);
}

static void
add_text(StringInfo body, const char *text, bool mark)
{
	appendStringInfoString(body, "{\"type\":\"text\",\"text\":");
	escape_json(body, text);
	appendStringInfo(body, "%s}", mark ? CACHE_MARK : "");
}

static void
add_result(StringInfo body, const PromPrompt *prompt, const PromMessage *turn,
		   const PromMessage *message)
{
	bool mark = prompt->ntools > 0 &&
				message == &prompt->messages[prompt->nmessages - 1];

	appendStringInfoString(body, "{\"type\":\"tool_result\",\"tool_use_id\":");
	add_id(body, prompt, turn, message->call_id);
	if (!prom_provider_is_blank(message->text))
	{
		appendStringInfoString(body, ",\"content\":");
		escape_json(body, message->text);
	}
	appendStringInfo(body, "%s%s}", message->failed ? ",\"is_error\":true" : "",
					 mark ? CACHE_MARK : "");
}

/* A turn by what was read of it. */
static void
add_turn(StringInfo body, const PromPrompt *prompt, const PromMessage *message)
{
	const char *comma = "";

	appendStringInfoString(body, "{\"role\":\"assistant\",\"content\":[");
	if (!prom_provider_is_blank(message->text))
	{
		add_text(body, message->text, false);
		comma = ",";
	}
	for (int i = 0; i < message->ncalls; i++)
	{
		const PromToolCall *call = &message->calls[i];

		appendStringInfo(body, "%s{\"type\":\"tool_use\",\"id\":", comma);
		add_id(body, prompt, message, call->id);
		appendStringInfoString(body, ",\"name\":");
		prom_provider_add_name(body, call->name);
		appendStringInfo(body, ",\"input\":%s}",
						 prom_toolcall_object(call->arguments));
		comma = ",";
	}
	appendStringInfoString(body, "]}");
}

/* All results of a turn are one message, of the user; the last one's place. */
static int
add_results(StringInfo body, const PromPrompt *prompt, const PromMessage *turn,
			int i)
{
	appendStringInfoString(body, "{\"role\":\"user\",\"content\":[");
	for (;; i++)
	{
		bool more = i + 1 < prompt->nmessages &&
					prompt->messages[i + 1].call_id != NULL;

		add_result(body, prompt, turn, &prompt->messages[i]);
		if (!more)
			break;
		appendStringInfoChar(body, ',');
	}
	appendStringInfoString(body, "]}");
	return i;
}

/*
 * Blank text is refused, and a message of nothing else is left out.  The last
 * one is not: if it is what was asked, the refusal says so.
 */
static bool
is_left_out(const PromPrompt *prompt, int i)
{
	const PromMessage *message = &prompt->messages[i];

	return strcmp(message->role, "system") == 0 ||
		   (message->call_id == NULL && message->ncalls == 0 &&
			i < prompt->nmessages - 1 && prom_provider_is_blank(message->text));
}

/*
 * The messages but those of the system.  The last one has a mark if there are
 * tools: then it is likely that the same and a little more is sent soon.
 */
static void
add_messages(StringInfo body, const PromPrompt *prompt)
{
	const char *comma = "";
	const PromMessage *turn = NULL; /* whose calls are named anew */

	appendStringInfoString(body, ",\"messages\":[");
	for (int i = 0; i < prompt->nmessages; i++)
	{
		const PromMessage *message = &prompt->messages[i];
		bool mark = prompt->ntools > 0 && i == prompt->nmessages - 1;

		if (is_left_out(prompt, i))
			continue;
		appendStringInfoString(body, comma);
		comma = ",";
		if (message->call_id != NULL)
			i = add_results(body, prompt, turn, i);
		else if (prom_provider_takes_raw(&prom_provider_anthropic, message))
		{
			turn = NULL;
			appendStringInfoString(body, message->raw);
		}
		else if (strcmp(message->role, "assistant") == 0)
		{
			turn = message;
			add_turn(body, prompt, message);
		}
		else
		{
			appendStringInfoString(body, "{\"role\":\"user\",\"content\":[");
			add_text(body, message->text, mark);
			appendStringInfoString(body, "]}");
		}
	}
	appendStringInfoChar(body, ']');
}

static bool
is_instruction(const PromMessage *message)
{
	return strcmp(message->role, "system") == 0 &&
		   !prom_provider_is_blank(message->text);
}

/* What the agent is told is a member of its own, and stable as its tools. */
static void
add_system(StringInfo body, const PromPrompt *prompt)
{
	const char *comma = "";
	int last = -1;

	for (int i = 0; i < prompt->nmessages; i++)
		if (is_instruction(&prompt->messages[i]))
			last = i;
	if (last < 0)
		return;
	appendStringInfoString(body, ",\"system\":[");
	for (int i = 0; i <= last; i++)
	{
		if (!is_instruction(&prompt->messages[i]))
			continue;
		appendStringInfoString(body, comma);
		add_text(body, prompt->messages[i].text, i == last);
		comma = ",";
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

		appendStringInfoString(body, i > 0 ? ",{" : "{");
		prom_provider_add_offer(body, tool);
		appendStringInfo(body, ",\"input_schema\":%s%s}", tool->schema,
						 i == prompt->ntools - 1 ? CACHE_MARK : "");
	}
	appendStringInfoChar(body, ']');
}

/* Members of "output_config". */
static char *
make_format(const PromPrompt *prompt)
{
	if (prompt->output_schema == NULL)
		return NULL;
	return psprintf(",\"format\":{\"type\":\"json_schema\",\"schema\":%s}",
					prompt->output_schema);
}

static void
anthropic_build(StringInfo body, const PromModel *model, const char *host,
				const PromPrompt *prompt)
{
	appendStringInfoString(body, "{\"model\":");
	escape_json(body, prompt->model);
	appendStringInfo(body, ",\"max_tokens\":%d",
					 model->max_tokens >= 0 ? model->max_tokens : MAX_TOKENS);
	add_tools(body, prompt);
	add_system(body, prompt);
	add_messages(body, prompt);
	if (model->temperature != NULL)
		appendStringInfo(body, ",\"temperature\":%s", model->temperature);
	appendStringInfo(body, ",\"stream\":%s", model->stream ? "true" : "false");
	prom_provider_add_extra(body, &prom_provider_anthropic, model,
							make_format(prompt));
	appendStringInfoChar(body, '}');
}


/* Reading the turn. */

/* Tokens of the prompt that were read from the cache or written to it count. */
static void
read_usage(PromTurn *turn, PromSlice usage)
{
	json_object *object;
	int64 fresh;
	int64 written;
	int64 read;
	int64 out;

	if (prom_json_kind(usage) != '{')
		return;
	object = prom_reading_parse(usage);
	fresh = prom_reading_count(object, "input_tokens");
	written = prom_reading_count(object, "cache_creation_input_tokens");
	read = prom_reading_count(object, "cache_read_input_tokens");
	out = prom_reading_count(object, "output_tokens");
	json_object_put(object);
	if (fresh >= 0) /* the end of a stream may not repeat all of them */
		turn->tokens_in = Max(turn->tokens_in,
							  fresh + Max(written, 0) + Max(read, 0));
	if (read >= 0)
		turn->cached_tokens = read;
	if (out >= 0)
		turn->tokens_out = out; /* cumulative in a stream */
}

/* A text that the format refuses to take back; empty: it says nothing. */
static bool
is_blank(PromTurn *turn, PromSlice block, bool *empty)
{
	char *text;
	bool blank;

	*empty = false;

	if (!prom_reading_has_type(block, "text"))
		return false;
	text = prom_reading_string(turn, block, "text");
	blank = text == NULL || prom_provider_is_blank(text);
	*empty = text == NULL || *text == '\0';
	free(text);
	return blank;
}

/* Read the blocks of a turn, known to be valid, and make its raw form. */
static void
read_content(PromTurn *turn, PromSlice content)
{
	PromJoined answer = {0};
	PromJoined raw = {0};
	const char *comma = "";
	PromSlice block;
	size_t position = 0;
	bool empty;
	bool ok;

	ok = prom_reading_append_text(turn, &raw,
								  "{\"role\":\"assistant\",\"content\":[");
	while (ok && prom_json_next_element(content, &position, &block))
	{
		bool blank = is_blank(turn, block, &empty);

		if (empty)
			continue;
		if (prom_reading_has_type(block, "text"))
			ok = prom_reading_append_string(turn, &answer, block, "text");
		else if (prom_reading_has_type(block, "tool_use"))
			turn->ncalls++;
		if (blank)
			continue;
		ok = ok && prom_reading_append_text(turn, &raw, comma) &&
			 prom_reading_append_clean(turn, &raw, block);
		comma = ",";
	}
	if (ok)
		(void) prom_reading_append_text(turn, &raw, "]}");
	turn->raw = raw.text;
	turn->answer = answer.text;
}

/* Why the turn ended; of a refusal also what is said about it. */
static void
read_stop(PromTurn *turn, PromSlice object)
{
	PromSlice details;

	prom_reading_finish(turn, object, "stop_reason");
	if (turn->refusal == NULL &&
		prom_json_find(object, "stop_details", &details))
		turn->refusal = prom_reading_string(turn, details, "explanation");
}

static void
anthropic_read_body(PromTurn *turn, PromSlice body)
{
	PromSlice content;
	PromSlice usage;

	if (!prom_reading_body(turn, body))
		return;
	if (prom_json_find(body, "usage", &usage))
		read_usage(turn, usage);
	if (!prom_json_find(body, "content", &content) ||
		prom_json_kind(content) != '[')
	{
		prom_turn_set_problem(turn, PROM_TURN_UNREADABLE,
							  "it has no content");
		return;
	}
	read_stop(turn, body);
	read_content(turn, content);
	if (turn->finish_reason == NULL)
		prom_turn_set_problem(turn, PROM_TURN_UNREADABLE,
							  "it does not say why the turn ended");
}


/* Reading the calls of a turn. */

/* Only turns that call tools are asked about. */
static bool
anthropic_is_turn(PromSlice turn)
{
	PromSlice content;
	PromSlice block;
	size_t position = 0;

	if (prom_toolcall_is_chat(turn))
		return false;
	if (!prom_json_find(turn, "content", &content) ||
		prom_json_kind(content) != '[')
		return false;
	while (prom_json_next_element(content, &position, &block))
		if (prom_reading_has_type(block, "tool_use"))
			return true;
	return false;
}

static void
anthropic_read_calls(PromToolCalls *calls, PromSlice turn)
{
	PromSlice content;
	PromSlice block;
	size_t position = 0;

	if (!prom_json_find(turn, "content", &content))
		return;
	while (prom_json_next_element(content, &position, &block))
		if (prom_reading_has_type(block, "tool_use"))
			prom_toolcall_add(calls, prom_toolcall_string(block, "id"),
							  prom_toolcall_string(block, "name"),
							  prom_toolcall_value(block, "input"));
}


/* Reading a stream. */

static void *
anthropic_open_stream(void)
{
	Stream *stream = calloc(1, sizeof(Stream));

	if (stream != NULL)
		prom_turn_init(&stream->turn);
	return stream;
}

static void
anthropic_free_stream(void *arg)
{
	Stream *stream = arg;

	prom_turn_clear(&stream->turn);
	for (int i = 0; i < stream->n; i++)
		prom_delta_free(stream->blocks[i]);
	free(stream);
}

static size_t
anthropic_stream_memory(const void *arg)
{
	const Stream *stream = arg;
	size_t memory = sizeof(Stream);

	for (int i = 0; i < stream->n; i++)
		memory += prom_delta_memory(stream->blocks[i]);
	return memory;
}

static bool
anthropic_stream_is_done(const void *arg)
{
	const Stream *stream = arg;

	return stream->done;
}

/* Merge a member of a piece into a block. */
static void
merge_member(PromTurn *turn, PromDelta *block, PromSlice key, PromSlice value)
{
	PromJoined piece = {0};
	PromDeltaState state = PROM_DELTA_OK;

	if (prom_reading_append_text(turn, &piece, "{") &&
		prom_reading_append(turn, &piece, key) &&
		prom_reading_append_text(turn, &piece, ":") &&
		prom_reading_append(turn, &piece, value) &&
		prom_reading_append_text(turn, &piece, "}"))
		state = prom_delta_merge(block,
								 (PromSlice){piece.text, piece.length});
	free(piece.text);
	if (state == PROM_DELTA_TOO_MUCH)
		prom_turn_set_problem(turn, PROM_TURN_TOO_LONG,
							  "its turn has too many parts");
	else if (state != PROM_DELTA_OK)
		prom_reading_no_memory(turn);
}

/* Merge all members of a piece but one into a block. */
static void
merge_piece(Stream *stream, PromDelta *block, PromSlice piece,
			const char *but)
{
	PromSlice key;
	PromSlice value;
	size_t position = 0;

	while (stream->turn.problem == PROM_TURN_FINE &&
		   prom_json_next_member(piece, &position, &key, &value))
		if (but == NULL || !prom_json_is(key, but))
			merge_member(&stream->turn, block, key, value);
}

static PromDelta *
add_block(Stream *stream, int index)
{
	PromDelta *block;

	if (stream->n == MAX_BLOCKS)
	{
		prom_turn_set_problem(&stream->turn, PROM_TURN_TOO_LONG,
							  "its turn has too many parts");
		return NULL;
	}
	block = prom_delta_create();
	if (block == NULL)
	{
		prom_reading_no_memory(&stream->turn);
		return NULL;
	}
	stream->indexes[stream->n] = index;
	stream->blocks[stream->n++] = block;
	return block;
}

/*
 * The block that an event is about; NULL: none.  One that begins is always
 * another one, in case a stream skips an index or uses it again.
 */
static PromDelta *
find_block(Stream *stream, PromSlice event, bool begin)
{
	PromSlice value;
	int index = -1;

	if (prom_json_find(event, "index", &value) && value.length < 10)
		index = (int) strtol(value.data, NULL, 10);
	if (begin)
		return add_block(stream, index);
	for (int i = stream->n - 1; i >= 0; i--)
		if (stream->indexes[i] == index)
			return stream->blocks[i];
	prom_turn_set_problem(&stream->turn, PROM_TURN_UNREADABLE,
						  "a part of its turn has no beginning");
	return NULL;
}

/*
 * Blocks begin, and grow by pieces of their members.  Only the arguments of a
 * call come as pieces of JSON, in place of the object at the beginning, which
 * is empty; where there is none, and no pieces follow, that is what counts.
 */
static void
read_block_event(Stream *stream, PromSlice data)
{
	bool begin = prom_reading_has_type(data, "content_block_start");
	PromDelta *block = find_block(stream, data, begin);
	PromSlice piece;

	if (block == NULL)
		return;
	if (begin && prom_json_find(data, "content_block", &piece))
		merge_piece(stream, block, piece, NULL);
	else if (!begin && prom_json_find(data, "delta", &piece) &&
			 !prom_reading_has_type(piece, "citations_delta"))
		merge_piece(stream, block, piece, "type");
}

static bool
anthropic_read_event(void *arg, PromSlice data)
{
	Stream *stream = arg;
	PromTurn *turn = &stream->turn;
	PromSlice value;

	if (data.length == 0 || stream->done)
		return true;
	if (!prom_reading_event(turn, data))
		return false;
	if (prom_reading_has_type(data, "content_block_start") ||
		prom_reading_has_type(data, "content_block_delta"))
		read_block_event(stream, data);
	else if (prom_reading_has_type(data, "message_start") &&
			 prom_json_find(data, "message.usage", &value))
		read_usage(turn, value);
	else if (prom_reading_has_type(data, "message_delta"))
	{
		if (prom_json_find(data, "usage", &value))
			read_usage(turn, value);
		if (prom_json_find(data, "delta", &value))
			read_stop(turn, value);
	}
	else if (prom_reading_has_type(data, "message_stop"))
		stream->done = true;
	return turn->problem == PROM_TURN_FINE;
}

static void
anthropic_event_text(PromSlice data, PromHear hear, void *owner)
{
	PromSlice text;

	if (prom_json_find(data, "delta.text", &text) ||
		prom_json_find(data, "content_block.text", &text))
		prom_reading_hear(text, hear, owner);
}

/*
 * The arguments of a call: what its pieces say, even if that is not JSON, or
 * what it began with.
 */
static bool
append_input(PromTurn *turn, PromJoined *content, PromSlice block)
{
	PromSlice value;
	PromSlice inner = {"{}", 2};
	char *json = NULL;
	bool ok;

	if (prom_json_find(block, "partial_json", &value) && value.length > 2)
	{
		inner = value;
		json = prom_json_string(value, NULL);
		if (json == NULL)
			prom_reading_no_memory(turn);
		else if (prom_json_valid((PromSlice){json, strlen(json)}))
			inner = (PromSlice){json, strlen(json)};
	}
	else if (prom_json_find(block, "input", &value))
		inner = value;
	ok = prom_reading_append_text(turn, content, ",\"input\":") &&
		 prom_reading_append(turn, content, inner);
	free(json);
	return ok;
}

/* Append a block as it would be in a reply that is no stream. */
static bool
append_block(PromTurn *turn, PromJoined *content, PromSlice block)
{
	const char *comma = "{";
	PromSlice key;
	PromSlice value;
	size_t position = 0;
	bool ok = true;

	if (!prom_reading_has_type(block, "tool_use"))
		return prom_reading_append(turn, content, block);
	while (ok && prom_json_next_member(block, &position, &key, &value))
	{
		if (prom_json_is(key, "partial_json") || prom_json_is(key, "input"))
			continue;
		ok = prom_reading_append_text(turn, content, comma) &&
			 prom_reading_append(turn, content, key) &&
			 prom_reading_append_text(turn, content, ":") &&
			 prom_reading_append(turn, content, value);
		comma = ",";
	}
	return ok && append_input(turn, content, block) &&
		   prom_reading_append_text(turn, content, "}");
}

static void
read_blocks(Stream *stream, PromTurn *turn)
{
	PromJoined content = {0};
	bool ok = prom_reading_append_text(turn, &content, "[");

	for (int i = 0; ok && i < stream->n; i++)
	{
		PromSlice block;
		char *text = prom_delta_text(stream->blocks[i], &block.length);

		block.data = text;
		if (text == NULL)
			prom_reading_no_memory(turn);
		ok = text != NULL &&
			 (i == 0 || prom_reading_append_text(turn, &content, ",")) &&
			 append_block(turn, &content, block);
		free(text);
	}
	if (ok && prom_reading_append_text(turn, &content, "]"))
		read_content(turn, (PromSlice){content.text, content.length});
	free(content.text);
}

static void
anthropic_read_stream(void *arg, PromTurn *turn)
{
	Stream *stream = arg;

	*turn = stream->turn;
	prom_turn_init(&stream->turn);
	if (turn->problem == PROM_TURN_FINE && !turn->is_error)
	{
		read_blocks(stream, turn);
		if (turn->finish_reason == NULL)
			prom_turn_set_problem(turn, PROM_TURN_UNREADABLE,
								  "the stream stopped before the turn's end");
	}
	anthropic_free_stream(stream);
}

static const char *
anthropic_finish(const char *finish_reason)
{
	return prom_reading_canonical(finishes, lengthof(finishes), finish_reason);
}

const PromProvider prom_provider_anthropic = {
	.api = "anthropic",
	.add_path = anthropic_add_path,
	.headers = headers,
	.key_header = anthropic_key_header,
	.build = anthropic_build,
	.members = members,
	.shared = "output_config",
	.read_body = anthropic_read_body,
	.read_error = prom_reading_error,
	.open_stream = anthropic_open_stream,
	.read_event = anthropic_read_event,
	.event_text = anthropic_event_text,
	.stream_memory = anthropic_stream_memory,
	.stream_is_done = anthropic_stream_is_done,
	.read_stream = anthropic_read_stream,
	.free_stream = anthropic_free_stream,
	.finish = anthropic_finish,
	.is_turn = anthropic_is_turn,
	.read_calls = anthropic_read_calls,
};
