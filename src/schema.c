/*
 * schema.c
 *	  Reads JSON Schemas (2020-12), and says what is wrong with them.
 *
 * Obeyed are: type, enum, const; properties, required, additionalProperties;
 * items, prefixItems, minItems, maxItems, uniqueItems; minLength, maxLength
 * (characters), pattern; minimum, maximum, exclusiveMinimum, exclusiveMaximum,
 * multipleOf; anyOf, oneOf, allOf, not; $ref to "#", "#/$defs/NAME" and
 * "#/definitions/NAME", with $defs and definitions.  Annotations, format among
 * them, change nothing.  Any other keyword is an error: one that is silently
 * passed over would let wrong answers through.
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "compat.h"
#include "encoding.h"
#include "guc.h"
#include "schema.h"

/* Bytes of a pointer in a message, and of one name in it. */
#define MAX_POINTER 200
#define MAX_NAME 40

typedef struct Reader
{
	PromSchema *root;
	PromSchema *last;
	int depth; /* schemas around the one being read */
	int level; /* objects around it */
	int nschemas;
	bool known;
	double compile_ms; /* spent on patterns */
} Reader;

typedef void (*ReadKeyword)(Reader *reader, PromSchema *schema,
							const PromPlace *place, JsonbValue *value,
							size_t offset);

typedef struct Keyword
{
	const char *name;
	ReadKeyword read; /* NULL: an annotation */
	size_t offset;    /* of what it sets */
	bool strict;      /* strict mode takes it */
	bool at_root;     /* and nowhere else */
} Keyword;

const char *const prom_json_type_names[PROM_JSON_NTYPES] = {
	"null", "boolean", "object", "array", "string", "number", "integer"};

static PromSchema *read_schema(Reader *reader, JsonbValue *value,
							   const PromPlace *place);
static char *supported_keywords(void);


/* Places and complaints. */

/* Append a name on one line, in the escapes of JSON pointers. */
static void
write_name(StringInfo line, const char *name, int length)
{
	int n = prom_encoding_clip(name, length, MAX_NAME);

	for (int i = 0; i < n; i++)
	{
		unsigned char c = name[i];

		if (c == '~')
			appendStringInfoString(line, "~0");
		else if (c == '/')
			appendStringInfoString(line, "~1");
		else
			appendStringInfoChar(line, c < 0x20 || c == 0x7F ? ' ' : c);
	}
	if (n < length)
		appendStringInfoString(line, "...");
}

void
prom_place_write(StringInfo line, const PromPlace *place)
{
	const PromPlace *places[MAX_POINTER / 2];
	int n = 0;
	int bytes = 0;

	for (; place != NULL && bytes < MAX_POINTER && n < lengthof(places);
		 place = place->parent)
	{
		bytes += 1 + Min(place->length, MAX_NAME);
		places[n++] = place;
	}
	if (place != NULL)
		appendStringInfoString(line, "/...");
	while (n-- > 0)
	{
		appendStringInfoChar(line, '/');
		if (places[n]->name != NULL)
			write_name(line, places[n]->name, places[n]->length);
		else
			appendStringInfo(line, "%d", places[n]->index);
	}
}

static const PromPlace *
place_of(const PromPlace *parent, const char *name, int length, int index)
{
	PromPlace *place = palloc(sizeof(PromPlace));

	place->parent = parent;
	place->name = name;
	place->length = length;
	place->index = index;
	return place;
}

static char *
where(const PromPlace *place)
{
	StringInfoData line;

	initStringInfo(&line);
	appendStringInfoChar(&line, '#');
	prom_place_write(&line, place);
	return line.data;
}

static pg_noreturn void
complain(const PromPlace *place, const char *what)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("JSON schema at %s %s", where(place), what)));
	pg_unreachable();
}


/* Reading keywords. */

#define FIELD(type, schema, offset) (*(type *) ((char *) (schema) + (offset)))

static JsonbContainer *
container_of(JsonbValue *value)
{
	return value->type == jbvBinary ? value->val.binary.data : NULL;
}

/* The elements of an array that may not be empty, or complain. */
static JsonbValue *
read_elements(const PromPlace *place, JsonbValue *value, bool may_be_empty,
			  int *n)
{
	JsonbContainer *container = container_of(value);
	int size;
	JsonbValue *elements;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue element;

	if (container == NULL || !JsonContainerIsArray(container))
		complain(place, "must be an array");
	size = JsonContainerSize(container);
	if (size == 0 && !may_be_empty)
		complain(place, "must not be empty");
	elements = palloc(sizeof(JsonbValue) * Max(size, 1));
	*n = 0;
	iterator = JsonbIteratorInit(container);
	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
		if (token == WJB_ELEM)
			elements[(*n)++] = element;
	return elements;
}

static int
type_of_name(const PromPlace *place, JsonbValue *value)
{
	if (value->type == jbvString)
		for (int bit = 0; bit < PROM_JSON_NTYPES; bit++)
		{
			const char *name = prom_json_type_names[bit];

			if (value->val.string.len == strlen(name) &&
				memcmp(value->val.string.val, name, strlen(name)) == 0)
				return 1 << bit;
		}
	complain(place, "must be null, boolean, object, array, string, number or integer, or an array of them");
}

static void
read_type(Reader *reader, PromSchema *schema, const PromPlace *place,
		  JsonbValue *value, size_t offset)
{
	JsonbValue *names;
	int n;

	if (value->type != jbvBinary)
	{
		schema->types = type_of_name(place, value);
		return;
	}
	names = read_elements(place, value, false, &n);
	for (int i = 0; i < n; i++)
		schema->types |= type_of_name(place, &names[i]);
}

static void
read_enum(Reader *reader, PromSchema *schema, const PromPlace *place,
		  JsonbValue *value, size_t offset)
{
	schema->values = read_elements(place, value, false, &schema->nvalues);
}

static void
read_const(Reader *reader, PromSchema *schema, const PromPlace *place,
		   JsonbValue *value, size_t offset)
{
	schema->constant = palloc(sizeof(JsonbValue));
	*schema->constant = *value;
}

/* properties, $defs and definitions. */
static void
read_members(Reader *reader, PromSchema *schema, const PromPlace *place,
			 JsonbValue *value, size_t offset)
{
	PromSchemaMembers *list = &FIELD(PromSchemaMembers, schema, offset);
	JsonbContainer *container = container_of(value);
	bool is_object = list == &schema->properties;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue item;

	if (container == NULL || !JsonContainerIsObject(container))
		complain(place, "must be an object");
	list->members = palloc(sizeof(PromSchemaMember) *
						   Max(JsonContainerSize(container), 1));
	reader->level += is_object;
	iterator = JsonbIteratorInit(container);
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		PromSchemaMember *member = &list->members[list->n];

		if (token == WJB_KEY)
		{
			member->name = item.val.string.val;
			member->length = item.val.string.len;
		}
		else if (token == WJB_VALUE)
		{
			member->schema = read_schema(reader, &item,
										 place_of(place, member->name,
												  member->length, 0));
			list->n++;
		}
	}
	reader->level -= is_object;
}

static void
read_required(Reader *reader, PromSchema *schema, const PromPlace *place,
			  JsonbValue *value, size_t offset)
{
	schema->required = read_elements(place, value, true, &schema->nrequired);
	for (int i = 0; i < schema->nrequired; i++)
		if (schema->required[i].type != jbvString)
			complain(place, "must be an array of strings");
}

static void
read_one(Reader *reader, PromSchema *schema, const PromPlace *place,
		 JsonbValue *value, size_t offset)
{
	FIELD(PromSchema *, schema, offset) = read_schema(reader, value, place);
	if (schema->additional != NULL)
		schema->additional->is_additional = true;
}

static void
read_list(Reader *reader, PromSchema *schema, const PromPlace *place,
		  JsonbValue *value, size_t offset)
{
	PromSchemaList *list = &FIELD(PromSchemaList, schema, offset);
	JsonbValue *elements = read_elements(place, value, false, &list->n);

	list->schemas = palloc(sizeof(PromSchema *) * list->n);
	for (int i = 0; i < list->n; i++)
		list->schemas[i] = read_schema(reader, &elements[i],
									   place_of(place, NULL, 0, i));
}

static void
read_number(Reader *reader, PromSchema *schema, const PromPlace *place,
			JsonbValue *value, size_t offset)
{
	if (value->type != jbvNumeric)
		complain(place, "must be a number");
	FIELD(Numeric, schema, offset) = value->val.numeric;
}

static int
compare_numbers(Numeric a, Numeric b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(a),
											 NumericGetDatum(b)));
}

static void
read_multiple(Reader *reader, PromSchema *schema, const PromPlace *place,
			  JsonbValue *value, size_t offset)
{
	read_number(reader, schema, place, value, offset);
	if (compare_numbers(schema->multiple_of, int64_to_numeric(0)) <= 0)
		complain(place, "must be greater than zero");
	/* Dividing by a small number gives many digits. */
	if (DatumGetInt32(DirectFunctionCall1(
			numeric_scale, NumericGetDatum(schema->multiple_of))) >
		PROM_SCHEMA_MAX_DIGITS)
		complain(place, "has too many digits");
}

/* A count beyond what there can be is as good as the largest. */
static void
read_count(Reader *reader, PromSchema *schema, const PromPlace *place,
		   JsonbValue *value, size_t offset)
{
	Datum number;

	if (value->type != jbvNumeric ||
		DatumGetInt32(DirectFunctionCall1(
			numeric_min_scale, NumericGetDatum(value->val.numeric))) > 0 ||
		compare_numbers(value->val.numeric, int64_to_numeric(0)) < 0)
		complain(place, "must be a whole number, not negative");
	number = NumericGetDatum(value->val.numeric);
	FIELD(int, schema, offset) =
		compare_numbers(value->val.numeric, int64_to_numeric(PG_INT32_MAX)) > 0
			? PG_INT32_MAX
			: DatumGetInt32(DirectFunctionCall1(numeric_int4, number));
}

static void
read_unique(Reader *reader, PromSchema *schema, const PromPlace *place,
			JsonbValue *value, size_t offset)
{
	if (value->type != jbvBool)
		complain(place, "must be true or false");
	schema->unique = value->val.boolean;
}

static void
read_ref(Reader *reader, PromSchema *schema, const PromPlace *place,
		 JsonbValue *value, size_t offset)
{
	if (value->type != jbvString)
		complain(place, "must be a string");
	schema->ref = palloc(sizeof(JsonbValue));
	*schema->ref = *value;
}

/* An annotation here; but strict mode takes only some. */
static void
read_format(Reader *reader, PromSchema *schema, const PromPlace *place,
			JsonbValue *value, size_t offset)
{
	static const char *const strict_formats[] = {
		"date-time", "time", "date", "duration", "email",
		"hostname", "ipv4", "ipv6", "uuid"};

	if (value->type != jbvString)
		complain(place, "must be a string");
	for (int i = 0; i < lengthof(strict_formats); i++)
		if (value->val.string.len == strlen(strict_formats[i]) &&
			memcmp(value->val.string.val, strict_formats[i],
				   value->val.string.len) == 0)
			return;
	schema->is_strict = false;
}

static void
read_pattern(Reader *reader, PromSchema *schema, const PromPlace *place,
			 JsonbValue *value, size_t offset)
{
	PromSchemaPattern *pattern = palloc0(sizeof(PromSchemaPattern));
	const char *problem;

	if (value->type != jbvString)
		complain(place, "must be a string");
	pattern->text = value->val.string.val;
	pattern->length = value->val.string.len;
	schema->pattern = pattern;
	if (reader->known)
		return;
	problem = prom_schema_pattern_problem(pattern, &reader->compile_ms);
	if (problem != NULL)
		complain(place, problem);
}


/* Reading schemas. */

#define AT(field) offsetof(PromSchema, field)

/* The annotations come last. */
static const Keyword keywords[] = {
	{"type", read_type, 0, true, false},
	{"enum", read_enum, 0, true, false},
	{"const", read_const, 0, true, false},
	{"properties", read_members, AT(properties), true, false},
	{"required", read_required, 0, true, false},
	{"additionalProperties", read_one, AT(additional), true, false},
	{"items", read_one, AT(items), true, false},
	{"prefixItems", read_list, AT(prefix), false, false},
	{"minItems", read_count, AT(min_items), true, false},
	{"maxItems", read_count, AT(max_items), true, false},
	{"uniqueItems", read_unique, 0, false, false},
	{"minLength", read_count, AT(min_length), false, false},
	{"maxLength", read_count, AT(max_length), false, false},
	{"pattern", read_pattern, 0, true, false},
	{"minimum", read_number, AT(minimum), true, false},
	{"maximum", read_number, AT(maximum), true, false},
	{"exclusiveMinimum", read_number, AT(above), true, false},
	{"exclusiveMaximum", read_number, AT(below), true, false},
	{"multipleOf", read_multiple, AT(multiple_of), true, false},
	{"anyOf", read_list, AT(any), true, false},
	{"oneOf", read_list, AT(one), false, false},
	{"allOf", read_list, AT(all), false, false},
	{"not", read_one, AT(not ), false, false},
	{"$ref", read_ref, 0, true, false},
	{"$defs", read_members, AT(defs), true, false},
	{"definitions", read_members, AT(definitions), true, false},
	{"format", read_format, 0, true, false},
	{"title", NULL, 0, true, false},
	{"description", NULL, 0, true, false},
	{"default", NULL, 0, false, false},
	{"examples", NULL, 0, false, false},
	{"deprecated", NULL, 0, false, false},
	{"readOnly", NULL, 0, false, false},
	{"writeOnly", NULL, 0, false, false},
	{"contentEncoding", NULL, 0, false, false},
	{"contentMediaType", NULL, 0, false, false},
	{"$comment", NULL, 0, false, false},
	{"$schema", NULL, 0, false, true},
	{"$id", NULL, 0, false, true},
};

static char *
supported_keywords(void)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < lengthof(keywords); i++)
		appendStringInfo(&list, "%s%s", i == 0 ? "" : ", ", keywords[i].name);
	return list.data;
}

static const Keyword *
find_keyword(const char *name, int length)
{
	for (int i = 0; i < lengthof(keywords); i++)
		if (strncmp(keywords[i].name, name, length) == 0 &&
			keywords[i].name[length] == '\0')
			return &keywords[i];
	return NULL;
}

static PromSchema *
add_schema(Reader *reader, const PromPlace *place)
{
	PromSchema *schema;

	if (reader->nschemas++ == PROM_SCHEMA_MAX_SCHEMAS)
		complain(place, psprintf("is one schema more than the limit of %d",
								 PROM_SCHEMA_MAX_SCHEMAS));
	schema = palloc0(sizeof(PromSchema));
	schema->min_items = schema->max_items = -1;
	schema->min_length = schema->max_length = -1;
	schema->is_strict = true;
	schema->place = place;
	schema->level = reader->level;
	if (reader->root == NULL)
		reader->root = schema;
	else
		reader->last->next = schema;
	reader->last = schema;
	return schema;
}

static void
read_keyword(Reader *reader, PromSchema *schema, const PromPlace *place,
			 JsonbValue *value)
{
	const Keyword *keyword = find_keyword(place->name, place->length);

	if (keyword == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("JSON schema has a keyword that is not supported at %s",
						where(place)),
				 errhint("Supported are: %s.", supported_keywords())));
	if (keyword->at_root && schema != reader->root)
		complain(place, "must be at the root of the schema");
	schema->nkeywords++;
	schema->is_strict &= keyword->strict;
	if (keyword->read != NULL)
		keyword->read(reader, schema, place, value, keyword->offset);
}

static PromSchema *
read_schema(Reader *reader, JsonbValue *value, const PromPlace *place)
{
	JsonbContainer *container = container_of(value);
	PromSchema *schema = add_schema(reader, place);
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue item;
	const PromPlace *inner = NULL;

	CHECK_FOR_INTERRUPTS();
	if (value->type == jbvBool)
	{
		schema->is_boolean = true;
		schema->boolean = value->val.boolean;
		return schema;
	}
	if (container == NULL || !JsonContainerIsObject(container))
		complain(place, "must be a schema: an object, true or false");
	if (reader->depth++ >= PROM_SCHEMA_MAX_DEPTH)
		complain(place, psprintf("is nested deeper than %d levels",
								 PROM_SCHEMA_MAX_DEPTH));
	iterator = JsonbIteratorInit(container);
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			inner = place_of(place, item.val.string.val, item.val.string.len,
							 0);
		else if (token == WJB_VALUE)
			read_keyword(reader, schema, inner, &item);
	}
	reader->depth--;
	return schema;
}


/* References. */

PromSchema *
prom_schema_member(const PromSchemaMembers *members, const char *name,
				   int length)
{
	int low = 0;
	int high = members->n;

	while (low < high)
	{
		int middle = (low + high) / 2;
		const PromSchemaMember *member = &members->members[middle];
		int order = length - member->length;

		if (order == 0)
			order = memcmp(name, member->name, length);
		if (order == 0)
			return member->schema;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = pg_ascii_tolower((unsigned char) c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Undo in place what a URI and a JSON pointer escape; the new length. */
static int
unescape_name(char *name, int length)
{
	int from;
	int to = 0;

	for (from = 0; from < length; to++)
	{
		if (name[from] == '%' && from + 2 < length &&
			hex_value(name[from + 1]) >= 0 && hex_value(name[from + 2]) >= 0)
		{
			name[to] = hex_value(name[from + 1]) * 16 +
					   hex_value(name[from + 2]);
			from += 3;
		}
		else
			name[to] = name[from++];
	}
	length = to;
	to = 0;
	for (from = 0; from < length; to++)
	{
		if (name[from] == '~' && from + 1 < length &&
			(name[from + 1] == '0' || name[from + 1] == '1'))
		{
			name[to] = name[from + 1] == '0' ? '~' : '/';
			from += 2;
		}
		else
			name[to] = name[from++];
	}
	return to;
}

/* The schema that a $ref means, or NULL. */
static PromSchema *
find_target(const PromSchema *root, const char *ref)
{
	const struct
	{
		const char *prefix;
		const PromSchemaMembers *members;
	} places[] = {{"#/$defs/", &root->defs},
				  {"#/definitions/", &root->definitions}};

	if (strcmp(ref, "#") == 0)
		return unconstify(PromSchema *, root);
	for (int i = 0; i < lengthof(places); i++)
	{
		size_t length = strlen(places[i].prefix);
		char *name;

		if (strncmp(ref, places[i].prefix, length) != 0 ||
			strchr(ref + length, '/') != NULL)
			continue;
		name = pstrdup(ref + length);
		return prom_schema_member(places[i].members, name,
								  unescape_name(name, strlen(name)));
	}
	return NULL;
}

static void
resolve(PromSchema *root)
{
	for (PromSchema *schema = root; schema != NULL; schema = schema->next)
	{
		if (schema->ref == NULL)
			continue;
		schema->target = find_target(root,
									 pnstrdup(schema->ref->val.string.val,
											  schema->ref->val.string.len));
		if (schema->target == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("JSON schema at %s has a $ref to nothing",
							where(schema->place)),
					 errdetail("It must be \"#\", \"#/$defs/NAME\" or \"#/definitions/NAME\", and that must be there.")));
	}
}

static int count_height(PromSchema *schema, int steps);

static int
highest_of(const PromSchemaList *list, int steps)
{
	int highest = 0;

	for (int i = 0; i < list->n; i++)
		highest = Max(highest, count_height(list->schemas[i], steps));
	return highest;
}

/*
 * How many schemas, one because of the other, a single value can be held
 * against here; raises if there is no end to it, or a far one.
 */
static int
count_height(PromSchema *schema, int steps)
{
	int height;

	if (schema->height > 0)
		return schema->height;
	if (schema->height < 0)
		complain(schema->place, "refers to itself without a step into the value");
	if (steps > PROM_SCHEMA_MAX_DEPTH)
		complain(schema->place,
				 psprintf("is reached by more than %d steps of $ref, allOf and the like in a row",
						  PROM_SCHEMA_MAX_DEPTH));
	schema->height = -1;
	height = Max(highest_of(&schema->all, steps + 1),
				 highest_of(&schema->any, steps + 1));
	height = Max(height, highest_of(&schema->one, steps + 1));
	if (schema->not != NULL)
		height = Max(height, count_height(schema->not, steps + 1));
	if (schema->target != NULL)
		height = Max(height, count_height(schema->target, steps + 1));
	schema->height = height + 1;
	return schema->height;
}

PromSchema *
prom_schema_read(Jsonb *json, bool known)
{
	Reader reader = {.known = known};
	JsonbValue value;

	if (!JB_ROOT_IS_OBJECT(json))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("JSON schema must be an object")));
	JsonbToJsonbValue(json, &value);
	read_schema(&reader, &value, NULL);
	resolve(reader.root);
	for (PromSchema *schema = reader.root; schema != NULL;
		 schema = schema->next)
		if (count_height(schema, 1) > PROM_SCHEMA_MAX_DEPTH)
			complain(schema->place,
					 psprintf("has more than %d steps of $ref, allOf and the like in a row",
							  PROM_SCHEMA_MAX_DEPTH));
	return reader.root;
}

void
prom_schema_check(Jsonb *schema)
{
	MemoryContext context;
	MemoryContext before;

	if (VARSIZE(schema) > PROM_SCHEMA_MAX_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("JSON schema is too long"),
				 errdetail("It has %zu bytes; the limit is %d.",
						   (size_t) VARSIZE(schema), PROM_SCHEMA_MAX_BYTES)));
	if (VARSIZE(schema) > (size_t) prom_guc_max_request * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("JSON schema is too long"),
				 errdetail("It has %zu bytes; the limit is %d kB.",
						   (size_t) VARSIZE(schema), prom_guc_max_request),
				 errhint("An administrator can raise prometheus.max_request.")));
	context = AllocSetContextCreate(CurrentMemoryContext,
									"prometheus schema",
									ALLOCSET_DEFAULT_SIZES);
	before = MemoryContextSwitchTo(context);
	prom_schema_read(schema, false);
	MemoryContextSwitchTo(before);
	MemoryContextDelete(context);
}

PG_FUNCTION_INFO_V1(prom_json);

/* What a model wrote as jsonb, or as a string of it. */
Datum
prom_json(PG_FUNCTION_ARGS)
{
	char *document = text_to_cstring(PG_GETARG_TEXT_PP(0));
	StringInfoData quoted;

	if (prom_schema_unreadable(document) != NULL)
	{
		initStringInfo(&quoted);
		escape_json(&quoted, document);
		document = quoted.data;
	}
	PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(document)));
}
