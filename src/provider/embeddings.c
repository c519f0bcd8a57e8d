/*
 * embeddings.c
 *	  Embeddings of texts: OpenAI's format, which most servers speak.
 *
 * It is no format of turns, and no api of a model: a model of api openai is
 * asked in it if its prompt is texts to be embedded.  A reply counts only if
 * each of them has its place, and a vector that can be compared: finite, not
 * all 0, and as long as the others.
 */
#include "postgres.h"

#include <float.h>
#include <math.h>

#include "utils/json.h"

#include "provider/reading.h"

/* The vectors of a reply while they are read; from malloc. */
typedef struct Vectors
{
	float *values;
	bool *found;
	int n;
	int dimensions; /* of the first that was read; 0: none was */
} Vectors;


/* Building a request. */

static void
embeddings_add_path(StringInfo path, const char *model, bool stream)
{
	appendStringInfoString(path, "/embeddings");
}

static void
embeddings_build(StringInfo body, const PromModel *model, const char *host,
				 const PromPrompt *prompt)
{
	appendStringInfoString(body, "{\"model\":");
	escape_json(body, prompt->model);
	appendStringInfoString(body, ",\"input\":[");
	for (int i = 0; i < prompt->nmessages; i++)
	{
		if (i > 0)
			appendStringInfoChar(body, ',');
		escape_json(body, prompt->messages[i].text);
	}
	appendStringInfoString(body, "],\"encoding_format\":\"float\"");
	prom_provider_add_extra(body, &prom_provider_embeddings, model, NULL);
	appendStringInfoChar(body, '}');
}


/* Reading the reply. */

static void
refuse(PromTurn *turn, const char *why)
{
	prom_turn_set_problem(turn, PROM_TURN_UNREADABLE, why);
}

/* Each element of an array, and how many there are. */
static int
count_elements(PromSlice array)
{
	PromSlice element;
	size_t position = 0;
	int n = 0;

	while (n <= PROM_MAX_DIMENSIONS &&
		   prom_json_next_element(array, &position, &element))
		n++;
	return n;
}

/* Its text ends before the document does, so a number can be read at once. */
static bool
read_number(PromSlice number, float *value)
{
	char kind = prom_json_kind(number);

	if (kind != '-' && !isdigit((unsigned char) kind))
		return false;
	*value = strtof(number.data, NULL);
	return isfinite(*value);
}

static void
read_vector(PromTurn *turn, PromSlice array, float *values, int dimensions)
{
	PromSlice element;
	size_t position = 0;
	double norm = 0;
	int n = 0;

	while (n < dimensions && prom_json_next_element(array, &position, &element))
	{
		if (!read_number(element, &values[n]))
		{
			refuse(turn, "an embedding has what is no finite number");
			return;
		}
		norm += (double) values[n] * values[n];
		n++;
	}
	if (norm == 0)
		refuse(turn, "an embedding is all 0");
}

/* The first one says how long all of them are. */
static bool
make_room(PromTurn *turn, Vectors *vectors, PromSlice array)
{
	int dimensions;

	if (prom_json_kind(array) != '[')
	{
		refuse(turn, "an embedding is no array of numbers");
		return false;
	}
	dimensions = count_elements(array);
	if (dimensions == 0 || dimensions > PROM_MAX_DIMENSIONS)
		refuse(turn, dimensions == 0
						 ? "an embedding is empty"
						 : "an embedding has more than 16384 numbers");
	else if (vectors->dimensions == 0)
	{
		vectors->dimensions = dimensions;
		vectors->values = calloc((size_t) vectors->n * dimensions,
								 sizeof(float));
		if (vectors->values == NULL)
			prom_reading_no_memory(turn);
	}
	else if (dimensions != vectors->dimensions)
		refuse(turn, "its embeddings are not equally long");
	return turn->problem == PROM_TURN_FINE;
}

/* Its place among the texts; -1: it does not say so. */
static int
read_index(PromSlice element, int n)
{
	PromSlice value;
	int index = 0;

	if (!prom_json_find(element, "index", &value) || value.length == 0 ||
		value.length > 9)
		return -1;
	for (size_t i = 0; i < value.length; i++)
	{
		if (!isdigit((unsigned char) value.data[i]))
			return -1;
		index = index * 10 + (value.data[i] - '0');
	}
	return index < n ? index : -1;
}

static void
read_element(PromTurn *turn, Vectors *vectors, PromSlice element)
{
	PromSlice array;
	int index = read_index(element, vectors->n);

	if (index < 0 || vectors->found[index])
	{
		refuse(turn, "an embedding does not say which text it is of");
		return;
	}
	vectors->found[index] = true;
	if (!prom_json_find(element, "embedding", &array))
		refuse(turn, "an embedding is missing");
	else if (make_room(turn, vectors, array))
		read_vector(turn, array,
					vectors->values + (size_t) index * vectors->dimensions,
					vectors->dimensions);
}

static void
read_usage(PromTurn *turn, PromSlice usage)
{
	json_object *object;

	if (prom_json_kind(usage) != '{')
		return;
	object = prom_reading_parse(usage);
	turn->tokens_in = prom_reading_count(object, "prompt_tokens");
	if (turn->tokens_in < 0)
		turn->tokens_in = prom_reading_count(object, "total_tokens");
	if (turn->tokens_in >= 0)
		turn->tokens_out = 0;
	json_object_put(object);
}

/* As many are there as have indexes, since none has another's. */
static void
read_data(PromTurn *turn, PromSlice data)
{
	Vectors vectors = {0};
	PromSlice element;
	size_t position = 0;

	vectors.n = count_elements(data);
	if (vectors.n > PROM_MAX_EMBEDDED)
	{
		refuse(turn, "it has more embeddings than can be asked for");
		return;
	}
	vectors.found = calloc(Max(vectors.n, 1), sizeof(bool));
	if (vectors.found == NULL)
		prom_reading_no_memory(turn);
	for (int i = 0; i < vectors.n && turn->problem == PROM_TURN_FINE &&
					prom_json_next_element(data, &position, &element);
		 i++)
		read_element(turn, &vectors, element);
	free(vectors.found);
	turn->vectors = vectors.values;
	turn->nvectors = vectors.n;
	turn->dimensions = vectors.dimensions;
}

static void
embeddings_read_body(PromTurn *turn, PromSlice body)
{
	PromSlice value;

	if (!prom_reading_body(turn, body))
		return;
	if (prom_json_find(body, "usage", &value))
		read_usage(turn, value);
	if (!prom_json_find(body, "data", &value) || prom_json_kind(value) != '[')
		refuse(turn, "it has no embeddings");
	else
		read_data(turn, value);
}

int
prom_embeddings_dimensions(const PromModel *model)
{
	PromSlice extra = {model->extra_body, 0};
	PromSlice wanted;

	if (model->extra_body == NULL)
		return 0;
	extra.length = strlen(extra.data);
	if (!prom_json_find(extra, "dimensions", &wanted) ||
		!isdigit((unsigned char) prom_json_kind(wanted)))
		return 0;
	return (int) Min(strtol(wanted.data, NULL, 10), PG_INT32_MAX);
}

void
prom_embeddings_check(PromTurn *turn, int texts, int dimensions)
{
	if (turn->problem != PROM_TURN_FINE || turn->is_error)
		return;
	if (turn->nvectors != texts)
		refuse(turn, "it has more embeddings, or fewer, than there were texts");
	else if (dimensions != 0 && turn->dimensions != dimensions)
		refuse(turn, "its embeddings are not as long as extra_body says");
}

const PromProvider prom_provider_embeddings = {
	.api = "openai",
	.add_path = embeddings_add_path,
	.key_header = prom_provider_openai_key_header,
	.build = embeddings_build,
	.read_body = embeddings_read_body,
	.read_error = prom_reading_error,
};
