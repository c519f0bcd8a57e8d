/*
 * reading.c
 *	  What the formats' readers have in common: strings, counts and errors.
 *
 * json-c reads only the small control parts (usage, errors), because it would
 * change numbers and refuse depth; turns are found as bytes.
 */
#include "postgres.h"

#include "provider/reading.h"

#define JSON_DEPTH 128
#define MAX_SMALL (256 * 1024) /* bytes given to json-c */
#define MAX_WORD 128           /* bytes of an error's code or the like */

/* Tokens; more make no sense, and sums of them would not fit. */
#define MAX_COUNT INT64CONST(1000000000000)


json_object *
prom_reading_parse(PromSlice json)
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

json_object *
prom_reading_member(json_object *object, const char *name)
{
	json_object *value = NULL;

	if (!json_object_is_type(object, json_type_object))
		return NULL;
	json_object_object_get_ex(object, name, &value);
	return value;
}

int64
prom_reading_count(json_object *object, const char *name)
{
	json_object *value = prom_reading_member(object, name);
	int64 count;

	if (!json_object_is_type(value, json_type_int) &&
		!json_object_is_type(value, json_type_double))
		return -1;
	count = json_object_get_int64(value);
	return count >= 0 && count <= MAX_COUNT ? count : -1;
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
		json_object *delay = prom_reading_member(detail, "retryDelay");
		char *text = text_of(delay, MAX_WORD);

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
	json_object *error = prom_reading_member(root, "error");
	json_object *from = error != NULL ? error : root;

	if (json_object_is_type(error, json_type_string))
	{
		turn->message = text_of(error, SIZE_MAX);
		from = root;
	}
	if (turn->message == NULL)
		turn->message = text_of(prom_reading_member(from, "message"), SIZE_MAX);
	if (turn->message == NULL)
		turn->message = text_of(prom_reading_member(from, "detail"), SIZE_MAX);
	turn->code = text_of(prom_reading_member(from, "code"), MAX_WORD);
	turn->type = text_of(prom_reading_member(from, "type"), MAX_WORD);
	read_retry_delay(turn, prom_reading_member(from, "details"));
}

void
prom_reading_error(PromTurn *turn, PromSlice body)
{
	json_object *root;
	json_object *object;

	turn->is_error = true;
	if (prom_json_kind(body) != '{' && prom_json_kind(body) != '[')
		return;
	object = root = prom_reading_parse(body);
	if (json_object_is_type(root, json_type_array) &&
		json_object_array_length(root) > 0)
		object = json_object_array_get_idx(root, 0);
	read_error_object(turn, object);
	json_object_put(root);
}

bool
prom_reading_is_error(PromSlice json)
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

void
prom_reading_no_memory(PromTurn *turn)
{
	prom_turn_set_problem(turn, PROM_TURN_NO_MEMORY, "memory is missing");
}

char *
prom_reading_string(PromTurn *turn, PromSlice object, const char *name)
{
	PromSlice value;
	char *text;

	if (!prom_json_find(object, name, &value) ||
		prom_json_kind(value) != '"')
		return NULL;
	text = prom_json_string(value, NULL);
	if (text == NULL)
		prom_reading_no_memory(turn);
	return text;
}

void
prom_reading_hear(PromSlice value, PromHear hear, void *owner)
{
	size_t length;
	char *text = NULL;

	if (prom_json_kind(value) == '"')
		text = prom_json_string(value, &length);
	if (text != NULL)
		hear(owner, text, length);
	free(text);
}

bool
prom_reading_append(PromTurn *turn, PromJoined *joined, PromSlice text)
{
	char *grown = joined->text;

	if (grown == NULL || joined->length + text.length >= joined->size)
	{
		size_t size = 2 * (joined->length + text.length) + 1;

		grown = realloc(joined->text, size);
		if (grown == NULL)
		{
			prom_reading_no_memory(turn);
			return false;
		}
		joined->size = size;
	}
	memcpy(grown + joined->length, text.data, text.length);
	joined->text = grown;
	joined->length += text.length;
	grown[joined->length] = '\0';
	return true;
}

bool
prom_reading_append_text(PromTurn *turn, PromJoined *joined, const char *text)
{
	PromSlice slice = {text, strlen(text)};

	return prom_reading_append(turn, joined, slice);
}

bool
prom_reading_append_string(PromTurn *turn, PromJoined *joined,
						   PromSlice object, const char *name)
{
	char *text = prom_reading_string(turn, object, name);
	bool ok = text == NULL ? turn->problem == PROM_TURN_FINE
						   : prom_reading_append_text(turn, joined, text);

	free(text);
	return ok;
}

bool
prom_reading_append_clean(PromTurn *turn, PromJoined *joined, PromSlice json)
{
	PromSlice clean = {NULL, 0};
	char *text = prom_text_clean_json(json, &clean.length);
	bool ok = false;

	clean.data = text;
	if (text == NULL)
		prom_reading_no_memory(turn);
	else
		ok = prom_reading_append(turn, joined, clean);
	free(text);
	return ok;
}

bool
prom_reading_has_type(PromSlice object, const char *type)
{
	PromSlice value;

	return prom_json_find(object, "type", &value) &&
		   prom_json_is(value, type);
}

bool
prom_reading_body(PromTurn *turn, PromSlice body)
{
	if (!prom_json_valid(body))
		prom_turn_set_problem(turn, PROM_TURN_UNREADABLE,
							  body.length > 0 ? "it is not JSON" : "it is empty");
	else if (prom_reading_is_error(body) || prom_json_kind(body) == '[')
		prom_reading_error(turn, body);
	else
		return true;
	return false;
}

bool
prom_reading_event(PromTurn *turn, PromSlice data)
{
	if (!prom_json_valid(data) || prom_json_kind(data) != '{')
		prom_turn_set_problem(turn, PROM_TURN_UNREADABLE,
							  "an event of it is not a JSON object");
	else if (prom_reading_is_error(data))
		prom_reading_error(turn, data);
	else
		return true;
	return false;
}

void
prom_reading_finish(PromTurn *turn, PromSlice object, const char *name)
{
	PromSlice reason;

	if (turn->finish_reason != NULL ||
		!prom_json_find(object, name, &reason) ||
		prom_json_kind(reason) != '"' || reason.length <= 2 ||
		reason.length > MAX_WORD)
		return;
	turn->finish_reason = prom_json_string(reason, NULL);
	if (turn->finish_reason == NULL)
		prom_reading_no_memory(turn);
}

const char *
prom_reading_canonical(const PromFinish *finishes, int n, const char *reason)
{
	for (int i = 0; i < n; i++)
		if (strcmp(finishes[i].reason, reason) == 0)
			return finishes[i].canonical;
	return "error";
}
