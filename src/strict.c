/*
 * strict.c
 *	  Whether a JSON Schema obeys the rules of OpenAI's strict mode.
 *
 * With "strict": true a server promises an answer that fits, and refuses a
 * schema that breaks the rules; so it must be said exactly where it is true.
 * In doubt it is not: all answers are checked here anyhow.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "schema.h"

/* Limits of strict mode, as OpenAI documents them. */
#define STRICT_LEVELS 10
#define STRICT_PROPERTIES 5000
#define STRICT_VALUES 1000
#define STRICT_BYTES 120000
#define STRICT_LONG_ENUM 250
#define STRICT_LONG_ENUM_BYTES 15000

typedef struct Count
{
	int properties;
	int values;
	int bytes;
} Count;

static bool
has_required(const PromSchema *schema, const PromSchemaMember *member)
{
	for (int i = 0; i < schema->nrequired; i++)
		if (schema->required[i].val.string.len == member->length &&
			memcmp(schema->required[i].val.string.val, member->name,
				   member->length) == 0)
			return true;
	return false;
}

static int
bytes_of(const JsonbValue *value)
{
	return value->type == jbvString ? value->val.string.len : 0;
}

/* Every member is required, and there are no others. */
static bool
is_closed(const PromSchema *schema)
{
	const PromSchemaMembers *properties = &schema->properties;

	if (schema->additional == NULL || !schema->additional->is_boolean ||
		schema->additional->boolean)
		return false;

	/* Looked for one by one: too many are refused anyhow. */
	if (properties->n > STRICT_PROPERTIES ||
		schema->nrequired != properties->n)
		return false;
	for (int i = 0; i < properties->n; i++)
		if (!has_required(schema, &properties->members[i]))
			return false;
	return true;
}

/* Add up what is limited in all. */
static bool
is_within_limits(const PromSchema *schema, Count *count)
{
	const PromSchemaMembers *lists[] = {
		&schema->properties, &schema->defs, &schema->definitions};
	int64 bytes = 0;

	for (int i = 0; i < schema->nvalues; i++)
		bytes += bytes_of(&schema->values[i]);
	if (schema->nvalues > STRICT_LONG_ENUM && bytes > STRICT_LONG_ENUM_BYTES)
		return false;
	if (schema->constant != NULL)
		bytes += bytes_of(schema->constant);
	for (int i = 0; i < lengthof(lists); i++)
		for (int k = 0; k < lists[i]->n; k++)
			bytes += lists[i]->members[k].length;
	count->properties += schema->properties.n;
	count->values += schema->nvalues;
	count->bytes += Min(bytes, STRICT_BYTES + 1);
	return count->properties <= STRICT_PROPERTIES &&
		   count->values <= STRICT_VALUES && count->bytes <= STRICT_BYTES;
}

static bool
is_strict(const PromSchema *schema)
{
	if (schema->is_boolean)
		return schema->is_additional && !schema->boolean;
	if (!schema->is_strict || schema->is_additional ||
		schema->level >= STRICT_LEVELS)
		return false;
	if (schema->target != NULL)
		return schema->nkeywords == 1;
	if (schema->types == 0 && schema->any.n == 0)
		return false;
	if ((schema->types & PROM_JSON_OBJECT) && !is_closed(schema))
		return false;
	return !(schema->types & PROM_JSON_ARRAY) || schema->items != NULL;
}

bool
prom_schema_is_strict(Jsonb *json)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "prometheus schema",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext before = MemoryContextSwitchTo(context);
	PromSchema *schema = prom_schema_read(json, true);
	bool strict = schema->types == PROM_JSON_OBJECT && schema->any.n == 0;
	Count count = {0};

	for (; schema != NULL && strict; schema = schema->next)
		strict = is_strict(schema) && is_within_limits(schema, &count);
	MemoryContextSwitchTo(before);
	MemoryContextDelete(context);
	return strict;
}
