/*
 * difference.c
 *	  Finds what is in one document and not in another.
 *
 * A path is a JSON Pointer (RFC 6901): "" is the whole, "/a/0" the first
 * element of the member a.  Members are compared by their names, elements by
 * their places, and what is an object or an array in both is looked into; so
 * the difference is the same in both directions, but for the words.  Equal is
 * what jsonb holds to be equal.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"

#include "difference.h"

typedef struct Difference
{
	StringInfoData path;
	JsonbParseState *added;
	JsonbParseState *changed;
	JsonbParseState *removed;
} Difference;

static void look_into(Difference *difference, JsonbContainer *from,
					  JsonbContainer *to);

static void
push_name(JsonbParseState **state, const char *name, int length)
{
	JsonbValue key;

	key.type = jbvString;
	key.val.string.val = pnstrdup(name, length);
	key.val.string.len = length;
	(void) pushJsonbValue(state, WJB_KEY, &key);
}

static void
add(const Difference *difference, JsonbParseState **state, JsonbValue *value)
{
	push_name(state, difference->path.data, difference->path.len);
	(void) pushJsonbValue(state, WJB_VALUE, value);
}

static void
add_changed(Difference *difference, JsonbValue *from, JsonbValue *to)
{
	JsonbParseState **state = &difference->changed;

	push_name(state, difference->path.data, difference->path.len);
	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_name(state, "from", 4);
	(void) pushJsonbValue(state, WJB_VALUE, from);
	push_name(state, "to", 2);
	(void) pushJsonbValue(state, WJB_VALUE, to);
	(void) pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static bool
is_object(const JsonbValue *value)
{
	return value->type == jbvBinary &&
		   JsonContainerIsObject(value->val.binary.data);
}

static bool
is_array(const JsonbValue *value)
{
	return value->type == jbvBinary &&
		   JsonContainerIsArray(value->val.binary.data);
}

bool
prom_same_scalars(const JsonbValue *a, const JsonbValue *b)
{
	if (a->type != b->type)
		return false;
	switch (a->type)
	{
		case jbvNull:
			return true;
		case jbvBool:
			return a->val.boolean == b->val.boolean;
		case jbvString:
			return a->val.string.len == b->val.string.len &&
				   memcmp(a->val.string.val, b->val.string.val,
						  a->val.string.len) == 0;
		case jbvNumeric:
			return DatumGetBool(
				DirectFunctionCall2(numeric_eq,
									NumericGetDatum(a->val.numeric),
									NumericGetDatum(b->val.numeric)));
		default:
			return false;
	}
}

/* Either may be NULL: it is not there. */
static void
compare(Difference *difference, JsonbValue *from, JsonbValue *to)
{
	if (from == NULL)
		add(difference, &difference->added, to);
	else if (to == NULL)
		add(difference, &difference->removed, from);
	else if ((is_object(from) && is_object(to)) ||
			 (is_array(from) && is_array(to)))
		look_into(difference, from->val.binary.data, to->val.binary.data);
	else if (!prom_same_scalars(from, to))
		add_changed(difference, from, to);
}

/* One step down, to a member by its name. */
static void
append_name(StringInfo path, const JsonbValue *name)
{
	appendStringInfoChar(path, '/');
	for (int i = 0; i < name->val.string.len; i++)
	{
		char c = name->val.string.val[i];

		if (c == '~')
			appendStringInfoString(path, "~0");
		else if (c == '/')
			appendStringInfoString(path, "~1");
		else
			appendStringInfoChar(path, c);
	}
}

static void
step_back(StringInfo path, int length)
{
	path->len = length;
	path->data[length] = '\0';
}

/*
 * The members of a beside those of b.  In reverse only those that b has not,
 * which were added.
 */
static void
compare_members(Difference *difference, JsonbContainer *a, JsonbContainer *b,
				bool reverse)
{
	int length = difference->path.len;
	JsonbIterator *iterator = JsonbIteratorInit(a);
	JsonbIteratorToken token;
	JsonbValue name;
	JsonbValue value;

	(void) JsonbIteratorNext(&iterator, &name, true);
	while ((token = JsonbIteratorNext(&iterator, &name, true)) == WJB_KEY)
	{
		JsonbValue *other = findJsonbValueFromContainer(b, JB_FOBJECT, &name);

		(void) JsonbIteratorNext(&iterator, &value, true);
		if (reverse && other != NULL)
			continue;
		append_name(&difference->path, &name);
		compare(difference, reverse ? NULL : &value, reverse ? &value : other);
		step_back(&difference->path, length);
	}
	Assert(token == WJB_END_OBJECT);
}

static void
compare_elements(Difference *difference, JsonbContainer *from,
				 JsonbContainer *to)
{
	int length = difference->path.len;
	uint32 nfrom = JsonContainerSize(from);
	uint32 nto = JsonContainerSize(to);

	for (uint32 i = 0; i < Max(nfrom, nto); i++)
	{
		appendStringInfo(&difference->path, "/%u", i);
		compare(difference,
				i < nfrom ? getIthJsonbValueFromContainer(from, i) : NULL,
				i < nto ? getIthJsonbValueFromContainer(to, i) : NULL);
		step_back(&difference->path, length);
	}
}

/* Two objects, or two arrays. */
static void
look_into(Difference *difference, JsonbContainer *from, JsonbContainer *to)
{
	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (JsonContainerIsObject(from))
	{
		compare_members(difference, from, to, false);
		compare_members(difference, to, from, true);
	}
	else
		compare_elements(difference, from, to);
}

/* A document as a value: one that is no object or array is stored as one. */
static void
value_of(Jsonb *document, JsonbValue *value)
{
	if (JB_ROOT_IS_SCALAR(document))
		*value = *getIthJsonbValueFromContainer(&document->root, 0);
	else
	{
		value->type = jbvBinary;
		value->val.binary.data = &document->root;
		value->val.binary.len = VARSIZE(document) - VARHDRSZ;
	}
}

static void
push_part(JsonbParseState **all, const char *name, JsonbParseState **part)
{
	JsonbValue *object = pushJsonbValue(part, WJB_END_OBJECT, NULL);
	JsonbValue value;

	value_of(JsonbValueToJsonb(object), &value);
	push_name(all, name, strlen(name));
	(void) pushJsonbValue(all, WJB_VALUE, &value);
}

Jsonb *
prom_difference(Jsonb *from, Jsonb *to)
{
	Difference difference = {0};
	JsonbParseState *all = NULL;
	JsonbValue old;
	JsonbValue new;

	initStringInfo(&difference.path);
	(void) pushJsonbValue(&difference.added, WJB_BEGIN_OBJECT, NULL);
	(void) pushJsonbValue(&difference.changed, WJB_BEGIN_OBJECT, NULL);
	(void) pushJsonbValue(&difference.removed, WJB_BEGIN_OBJECT, NULL);
	value_of(from, &old);
	value_of(to, &new);
	compare(&difference, &old, &new);
	(void) pushJsonbValue(&all, WJB_BEGIN_OBJECT, NULL);
	push_part(&all, "added", &difference.added);
	push_part(&all, "changed", &difference.changed);
	push_part(&all, "removed", &difference.removed);
	return JsonbValueToJsonb(pushJsonbValue(&all, WJB_END_OBJECT, NULL));
}
