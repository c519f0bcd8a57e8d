/*
 * gemini.c
 *	  generateContent: Google's format (https://ai.google.dev/api), as its own
 *	  client sends and reads it.
 *
 * A turn is a list of parts: text, thoughts, calls of functions.  It goes back
 * as it came, with the signatures of thoughts: models refuse a call without
 * one.  Many calls have no id: then results are told apart by their order, and
 * the ids that the rest of us needs are made up and never sent.
 */
#include "postgres.h"

#include "utils/json.h"

#include "provider/delta.h"
#include "provider/reading.h"
#include "toolcall.h"

/* Begins an id that was made up here. */
#define NO_ID "no-id-"

/*
 * What Google documents for a call that some other model made, and that has
 * no signature therefore (docs: thought signatures).
 */
#define NO_SIGNATURE ",\"thoughtSignature\":\"skip_thought_signature_validator\""

/* A stream that is being read. */
typedef struct Stream
{
	PromTurn turn;
	PromJoined parts;
	PromDelta *text; /* a text that may grow; not yet in parts; or NULL */
	bool thought;    /* it is one */
	bool done;
} Stream;

static const PromFinish finishes[] = {
	{"STOP", "end"},
	{"MAX_TOKENS", "length"},
	{"SAFETY", "filter"},
	{"RECITATION", "filter"},
	{"LANGUAGE", "filter"},
	{"BLOCKLIST", "filter"},
	{"PROHIBITED_CONTENT", "filter"},
	{"SPII", "filter"},
	{"IMAGE_SAFETY", "filter"},
	{"IMAGE_PROHIBITED_CONTENT", "filter"},
	{"IMAGE_RECITATION", "filter"},
	{"PROMPT_BLOCKED", "filter"},
};

static const char *const members[] = {
	"systemInstruction",
	"contents",
	"tools",
	"generationConfig.maxOutputTokens",
	"generationConfig.temperature",
	"generationConfig.responseMimeType",
	"generationConfig.responseJsonSchema",
	NULL,
};


/* Building a request. */

/* The name may have its family before it, as tunedModels/mine. */
static void
gemini_add_path(StringInfo path, const char *model, bool stream)
{
	appendStringInfoString(path, strchr(model, '/') ? "/" : "/models/");
	for (; *model != '\0'; model++)
		if (isalnum((unsigned char) *model) || strchr("-._/", *model) != NULL)
			appendStringInfoChar(path, *model);
		else
			appendStringInfo(path, "%%%02X", (unsigned char) *model);
	appendStringInfoString(path, stream ? ":streamGenerateContent?alt=sse"
										: ":generateContent");
}

/* Never as a part of the URL, which is written to logs. */
static const char *
gemini_key_header(const char *host)
{
	return "x-goog-api-key: ";
}

static void
add_text(StringInfo body, const char *text)
{
	appendStringInfoString(body, "{\"text\":");
	escape_json(body, text);
	appendStringInfoChar(body, '}');
}

static void
add_id(StringInfo body, const char *id)
{
	if (strncmp(id, NO_ID, strlen(NO_ID)) == 0)
		return;
	appendStringInfoString(body, "\"id\":");
	escape_json(body, id);
	appendStringInfoChar(body, ',');
}

static void
add_result(StringInfo body, const PromMessage *message, bool is_own)
{
	appendStringInfoString(body, "{\"functionResponse\":{");
	add_id(body, message->call_id);
	appendStringInfoString(body, "\"name\":");
	if (is_own)
		escape_json(body, message->name);
	else
		prom_provider_add_name(body, message->name);
	appendStringInfo(body, ",\"response\":{\"%s\":",
					 message->failed ? "error" : "output");
	escape_json(body, message->text);
	appendStringInfoString(body, "}}}");
}

/* A turn that says and does nothing is left out: a part must have something. */
static bool
is_left_out(const PromMessage *message)
{
	return strcmp(message->role, "assistant") == 0 && message->ncalls == 0 &&
		   *message->text == '\0';
}

/* A turn by what was read of it. */
static void
add_turn(StringInfo body, const PromMessage *message)
{
	const char *comma = "";

	appendStringInfoString(body, "{\"role\":\"model\",\"parts\":[");
	if (*message->text != '\0')
	{
		add_text(body, message->text);
		comma = ",";
	}
	for (int i = 0; i < message->ncalls; i++)
	{
		const PromToolCall *call = &message->calls[i];

		appendStringInfo(body, "%s{\"functionCall\":{", comma);
		add_id(body, call->id);
		appendStringInfoString(body, "\"name\":");
		prom_provider_add_name(body, call->name);
		appendStringInfo(body, ",\"args\":%s}%s}",
						 prom_toolcall_object(call->arguments),
						 i == 0 ? NO_SIGNATURE : "");
		comma = ",";
	}
	appendStringInfoString(body, "]}");
}

/*
 * All results of a turn are one message, of the user; the last one's place.
 * is_own: the turn went back as it came, and so do the names in it.
 */
static int
add_results(StringInfo body, const PromPrompt *prompt, int i, bool is_own)
{
	appendStringInfoString(body, "{\"role\":\"user\",\"parts\":[");
	add_result(body, &prompt->messages[i], is_own);
	while (i + 1 < prompt->nmessages &&
		   prompt->messages[i + 1].call_id != NULL)
	{
		appendStringInfoChar(body, ',');
		add_result(body, &prompt->messages[++i], is_own);
	}
	appendStringInfoString(body, "]}");
	return i;
}

static void
add_contents(StringInfo body, const PromPrompt *prompt)
{
	const char *comma = "";
	bool is_own = false;

	appendStringInfoString(body, "\"contents\":[");
	for (int i = 0; i < prompt->nmessages; i++)
	{
		const PromMessage *message = &prompt->messages[i];

		if (strcmp(message->role, "system") == 0 || is_left_out(message))
			continue;
		appendStringInfoString(body, comma);
		comma = ",";
		if (message->call_id != NULL)
			i = add_results(body, prompt, i, is_own);
		else if (prom_provider_takes_raw(&prom_provider_gemini, message))
		{
			is_own = true;
			appendStringInfoString(body, message->raw);
		}
		else if (strcmp(message->role, "assistant") == 0)
		{
			is_own = false;
			add_turn(body, message);
		}
		else
		{
			appendStringInfoString(body, "{\"role\":\"user\",\"parts\":[");
			add_text(body, message->text);
			appendStringInfoString(body, "]}");
		}
	}
	appendStringInfoChar(body, ']');
}

static void
add_system(StringInfo body, const PromPrompt *prompt)
{
	const char *before = "\"systemInstruction\":{\"parts\":[";

	for (int i = 0; i < prompt->nmessages; i++)
	{
		if (strcmp(prompt->messages[i].role, "system") != 0)
			continue;
		appendStringInfoString(body, before);
		add_text(body, prompt->messages[i].text);
		before = ",";
	}
	if (*before == ',')
		appendStringInfoString(body, "]},");
}

static void
add_tools(StringInfo body, const PromPrompt *prompt)
{
	if (prompt->ntools == 0)
		return;
	appendStringInfoString(body, ",\"tools\":[{\"functionDeclarations\":[");
	for (int i = 0; i < prompt->ntools; i++)
	{
		const PromToolOffer *tool = &prompt->tools[i];

		appendStringInfoString(body, i > 0 ? ",{" : "{");
		prom_provider_add_offer(body, tool);
		appendStringInfo(body, ",\"parametersJsonSchema\":%s}", tool->schema);
	}
	appendStringInfoString(body, "]}]");
}

/* Members of "generationConfig". */
static char *
make_configuration(const PromModel *model, const PromPrompt *prompt)
{
	StringInfoData own;

	initStringInfo(&own);
	if (model->max_tokens >= 0)
		appendStringInfo(&own, ",\"maxOutputTokens\":%d", model->max_tokens);
	if (model->temperature != NULL)
		appendStringInfo(&own, ",\"temperature\":%s", model->temperature);
	if (prompt->output_schema != NULL)
		appendStringInfo(&own,
						 ",\"responseMimeType\":\"application/json\","
						 "\"responseJsonSchema\":%s",
						 prompt->output_schema);
	return own.data;
}

static void
gemini_build(StringInfo body, const PromModel *model, const char *host,
			 const PromPrompt *prompt)
{
	appendStringInfoChar(body, '{');
	add_system(body, prompt);
	add_contents(body, prompt);
	add_tools(body, prompt);
	prom_provider_add_extra(body, &prom_provider_gemini, model,
							make_configuration(model, prompt));
	appendStringInfoChar(body, '}');
}


/* Reading the turn. */

/* Thoughts are counted apart from the answer, and billed with it. */
static void
read_usage(PromTurn *turn, PromSlice usage)
{
	json_object *object;
	int64 in;
	int64 tools;
	int64 out;
	int64 thoughts;

	if (prom_json_kind(usage) != '{')
		return;
	object = prom_reading_parse(usage);
	in = prom_reading_count(object, "promptTokenCount");
	tools = prom_reading_count(object, "toolUsePromptTokenCount");
	out = prom_reading_count(object, "candidatesTokenCount");
	thoughts = prom_reading_count(object, "thoughtsTokenCount");
	if (in >= 0)
		turn->tokens_in = in + Max(tools, 0);
	if (out >= 0 || thoughts >= 0)
		turn->tokens_out = Max(out, 0) + Max(thoughts, 0);
	turn->cached_tokens = prom_reading_count(object, "cachedContentTokenCount");
	if (thoughts >= 0)
		turn->reasoning_tokens = thoughts;
	json_object_put(object);
}

static bool
is_thought(PromSlice part)
{
	PromSlice value;

	return prom_json_find(part, "thought", &value) &&
		   prom_json_kind(value) == 't';
}

/* Read the parts of a turn, known to be valid, and make its raw form. */
static void
read_parts(PromTurn *turn, PromSlice parts)
{
	PromJoined answer = {0};
	PromJoined raw = {0};
	const char *comma = "";
	PromSlice part;
	PromSlice value;
	size_t position = 0;
	bool ok;

	ok = prom_reading_append_text(turn, &raw,
								  "{\"role\":\"model\",\"parts\":[");
	while (ok && prom_json_next_element(parts, &position, &part))
	{
		if (prom_json_find(part, "functionCall", &value))
			turn->ncalls++;
		else if (!is_thought(part))
			ok = prom_reading_append_string(turn, &answer, part, "text");
		ok = ok && prom_reading_append_text(turn, &raw, comma) &&
			 prom_reading_append_clean(turn, &raw, part);
		comma = ",";
	}
	if (ok)
		(void) prom_reading_append_text(turn, &raw, "]}");
	turn->raw = raw.text;
	turn->answer = answer.text;
}

/* A prompt that was refused has no candidate: why, in a word of ours. */
static void
read_block(PromTurn *turn, PromSlice document)
{
	PromSlice feedback;

	if (!prom_json_find(document, "promptFeedback", &feedback))
		return;
	prom_reading_finish(turn, feedback, "blockReason");
	if (turn->finish_reason == NULL ||
		strcmp(prom_reading_canonical(finishes, lengthof(finishes),
									  turn->finish_reason),
			   "filter") == 0)
		return;
	free(turn->finish_reason);
	turn->finish_reason = strdup("PROMPT_BLOCKED");
	if (turn->finish_reason == NULL)
		prom_reading_no_memory(turn);
}

/* What a document says beside its parts, which it gives out; false: none. */
static bool
read_document(PromTurn *turn, PromSlice document, PromSlice *parts)
{
	PromSlice value;

	if (prom_json_find(document, "usageMetadata", &value))
		read_usage(turn, value);
	if (!prom_json_find(document, "candidates.0", &value))
	{
		read_block(turn, document);
		return false;
	}
	prom_reading_finish(turn, value, "finishReason");
	if (turn->refusal == NULL)
		turn->refusal = prom_reading_string(turn, value, "finishMessage");
	return prom_json_find(value, "content.parts", parts) &&
		   prom_json_kind(*parts) == '[';
}

/* A message about the end is a refusal only of what was filtered. */
static void
end_turn(PromTurn *turn, const char *why)
{
	if (turn->finish_reason == NULL)
		prom_turn_set_problem(turn, PROM_TURN_UNREADABLE, why);
	else if (strcmp(prom_reading_canonical(finishes, lengthof(finishes),
										   turn->finish_reason),
					"filter") != 0)
	{
		free(turn->refusal);
		turn->refusal = NULL;
	}
}

static void
gemini_read_body(PromTurn *turn, PromSlice body)
{
	PromSlice parts;

	if (!prom_reading_body(turn, body))
		return;
	if (read_document(turn, body, &parts))
		read_parts(turn, parts);
	end_turn(turn, "it does not say why the turn ended");
}


/* Reading the calls of a turn. */

static bool
gemini_is_turn(PromSlice turn)
{
	PromSlice parts;

	if (prom_toolcall_is_chat(turn))
		return false;
	return prom_json_find(turn, "parts", &parts) &&
		   prom_json_kind(parts) == '[';
}

static void
gemini_read_calls(PromToolCalls *calls, PromSlice turn)
{
	PromSlice parts;
	PromSlice part;
	PromSlice call;
	size_t position = 0;

	if (!prom_json_find(turn, "parts", &parts))
		return;
	while (prom_json_next_element(parts, &position, &part))
	{
		char *id;
		char *arguments;

		if (!prom_json_find(part, "functionCall", &call))
			continue;
		id = prom_toolcall_string(call, "id");
		if (id == NULL || *id == '\0')
			id = psprintf(NO_ID "%d", calls->n + 1);
		arguments = prom_toolcall_value(call, "args");
		prom_toolcall_add(calls, id, prom_toolcall_string(call, "name"),
						  arguments != NULL ? arguments : "{}");
	}
}


/* Reading a stream. */

static void *
gemini_open_stream(void)
{
	Stream *stream = calloc(1, sizeof(Stream));

	if (stream != NULL)
		prom_turn_init(&stream->turn);
	return stream;
}

static void
gemini_free_stream(void *arg)
{
	Stream *stream = arg;

	prom_turn_clear(&stream->turn);
	prom_delta_free(stream->text);
	free(stream->parts.text);
	free(stream);
}

static size_t
gemini_stream_memory(const void *arg)
{
	const Stream *stream = arg;

	return sizeof(Stream) + stream->parts.size +
		   (stream->text != NULL ? prom_delta_memory(stream->text) : 0);
}

static bool
gemini_stream_is_done(const void *arg)
{
	const Stream *stream = arg;

	return stream->done;
}

static bool
append_part(Stream *stream, PromSlice part)
{
	return prom_reading_append_text(&stream->turn, &stream->parts,
									stream->parts.length == 0 ? "[" : ",") &&
		   prom_reading_append(&stream->turn, &stream->parts, part);
}

/* The text that grew is a part now. */
static bool
end_text(Stream *stream)
{
	PromSlice part;
	char *text;
	bool ok;

	if (stream->text == NULL)
		return true;
	text = prom_delta_text(stream->text, &part.length);
	part.data = text;
	if (text == NULL)
		prom_reading_no_memory(&stream->turn);
	ok = text != NULL && append_part(stream, part);
	free(text);
	prom_delta_free(stream->text);
	stream->text = NULL;
	return ok;
}

/* Has a part nothing but text, so that it may be one with its neighbours? */
static bool
is_plain_text(PromSlice part)
{
	PromSlice key;
	PromSlice value;
	size_t position = 0;
	bool found = false;

	while (prom_json_next_member(part, &position, &key, &value))
	{
		if (prom_json_is(key, "text") && prom_json_kind(value) == '"')
			found = true;
		else if (!prom_json_is(key, "thought") || !is_thought(part))
			return false;
	}
	return found;
}

static bool
add_part(Stream *stream, PromSlice part)
{
	bool plain = is_plain_text(part);

	if (stream->text != NULL &&
		(!plain || stream->thought != is_thought(part)) && !end_text(stream))
		return false;
	if (!plain)
		return append_part(stream, part);
	stream->thought = is_thought(part);
	if (stream->text == NULL)
		stream->text = prom_delta_create();
	if (stream->text == NULL ||
		prom_delta_merge(stream->text, part) != PROM_DELTA_OK)
	{
		prom_reading_no_memory(&stream->turn);
		return false;
	}
	return true;
}

/* The last one says why the turn ended; its usage is that of all. */
static bool
gemini_read_event(void *arg, PromSlice data)
{
	Stream *stream = arg;
	PromTurn *turn = &stream->turn;
	PromSlice parts;
	PromSlice part;
	size_t position = 0;

	if (data.length == 0)
		return true;
	if (!prom_reading_event(turn, data))
		return false;
	if (read_document(turn, data, &parts))
		while (prom_json_next_element(parts, &position, &part) &&
			   prom_json_kind(part) == '{' && add_part(stream, part))
			;
	stream->done = turn->finish_reason != NULL;
	return turn->problem == PROM_TURN_FINE;
}

static void
gemini_event_text(PromSlice data, PromHear hear, void *owner)
{
	PromSlice parts;
	PromSlice part;
	PromSlice text;
	size_t position = 0;

	if (prom_json_find(data, "candidates.0.content.parts", &parts))
		while (prom_json_next_element(parts, &position, &part))
			if (!is_thought(part) && prom_json_find(part, "text", &text))
				prom_reading_hear(text, hear, owner);
}

static void
gemini_read_stream(void *arg, PromTurn *turn)
{
	Stream *stream = arg;

	if (stream->turn.problem == PROM_TURN_FINE && !stream->turn.is_error &&
		end_text(stream) && stream->parts.length > 0 &&
		prom_reading_append_text(&stream->turn, &stream->parts, "]"))
		read_parts(&stream->turn, (PromSlice){stream->parts.text,
											  stream->parts.length});
	*turn = stream->turn;
	prom_turn_init(&stream->turn);
	if (turn->problem == PROM_TURN_FINE && !turn->is_error)
		end_turn(turn, "the stream stopped before the turn's end");
	gemini_free_stream(stream);
}

static const char *
gemini_finish(const char *finish_reason)
{
	return prom_reading_canonical(finishes, lengthof(finishes), finish_reason);
}

const PromProvider prom_provider_gemini = {
	.api = "gemini",
	.add_path = gemini_add_path,
	.key_header = gemini_key_header,
	.build = gemini_build,
	.members = members,
	.shared = "generationConfig",
	.read_body = gemini_read_body,
	.read_error = prom_reading_error,
	.open_stream = gemini_open_stream,
	.read_event = gemini_read_event,
	.event_text = gemini_event_text,
	.stream_memory = gemini_stream_memory,
	.stream_is_done = gemini_stream_is_done,
	.read_stream = gemini_read_stream,
	.free_stream = gemini_free_stream,
	.finish = gemini_finish,
	.is_turn = gemini_is_turn,
	.read_calls = gemini_read_calls,
};
