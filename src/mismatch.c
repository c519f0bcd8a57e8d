/*
 * mismatch.c
 *	  Holds a document against a JSON Schema.
 *
 * The document is whatever a model wrote, and the one process that checks all
 * answers of a database does it inside the transaction of its turn, where an
 * error must not be caught without a subtransaction.  So none is raised: the
 * text is first looked through for everything that jsonb_in() raises for (what
 * is no JSON, numbers out of range, characters that cannot be stored, depth),
 * and only then given to it.  jsonb, since its numbers are exact, its keys
 * sorted and single, and since what fits can then be cast by who asked for it.
 *
 * Neither may it take long, and a schema can be made such that it would: each
 * step costs, and who has nothing left does not fit.
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "encoding.h"
#include "schema.h"
#include "text.h"

/* Schemas that are being held against a value within each other. */
#define MAX_STEPS 1000

/* What may be spent on one document, of about 20 ns each: about 160 ms. */
#define BUDGET (8 * 1000 * 1000)
#define STEP_COST 20
#define DIVISION_COST 100

/* What may be spent on all documents before a rest, ms. */
#define MAX_TIRING 300

/* Bytes of a name or a number in a message. */
#define MAX_NAME 40

typedef struct Check
{
	int64 left; /* of the budget */
	int steps;
	int quiet;         /* a mismatch here is not the last word */
	const char *fatal; /* nothing fits any more, for this reason */
	char *mismatch;
} Check;

static instr_time spent; /* since the last rest */

static bool fits(Check *check, const PromSchema *schema, JsonbValue *value,
				 const PromPlace *place);


/* Mismatches. */

/* Say why a value does not fit; what is of printf's kind. */
static bool pg_attribute_printf(3, 4)
	fail(Check *check, const PromPlace *place, const char *what, ...)
{
	StringInfoData line;
	va_list args;
	char words[256];

	if (check->quiet > 0 || check->fatal != NULL)
		return false;
	initStringInfo(&line);
	if (place != NULL)
	{
		appendStringInfoString(&line, "at ");
		prom_place_write(&line, place);
		appendStringInfoString(&line, ": ");
	}
	va_start(args, what);
	vsnprintf(words, sizeof(words), what, args);
	va_end(args);
	for (char *c = words; *c != '\0'; c++)
		if ((unsigned char) *c < 0x20 || *c == 0x7F)
			*c = ' ';
	appendStringInfoString(&line, words);
	check->mismatch = line.data;
	return false;
}

/* Take from the budget; false if it is used up. */
static bool
spend(Check *check, int64 cost)
{
	check->left -= cost;
	if (check->left < 0 && check->fatal == NULL)
		check->fatal = "takes too long to check";
	return check->fatal == NULL;
}

/* A name for a message: its length, cut, and the bytes. */
#define NAME_ARGS(name, length) prom_encoding_clip(name, length, MAX_NAME), name

static char *
number_words(Numeric number)
{
	char *words = DatumGetCString(
		DirectFunctionCall1(numeric_out, NumericGetDatum(number)));

	return strlen(words) > MAX_NAME ? pstrdup("the limit") : words;
}


/* Values. */

static int
order_of_numbers(Numeric a, Numeric b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(a),
											 NumericGetDatum(b)));
}

static bool
is_whole(Numeric number)
{
	return DatumGetInt32(DirectFunctionCall1(
			   numeric_min_scale, NumericGetDatum(number))) == 0;
}

static int
types_of(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			return PROM_JSON_NULL;
		case jbvBool:
			return PROM_JSON_BOOLEAN;
		case jbvString:
			return PROM_JSON_STRING;
		case jbvNumeric:
			return is_whole(value->val.numeric)
					   ? PROM_JSON_NUMBER | PROM_JSON_INTEGER
					   : PROM_JSON_NUMBER;
		default:
			return JsonContainerIsObject(value->val.binary.data)
					   ? PROM_JSON_OBJECT
					   : PROM_JSON_ARRAY;
	}
}

/* Some total order of values in which equal ones are equal. */
static int
compare_values(const void *x, const void *y)
{
	const JsonbValue *a = x;
	const JsonbValue *b = y;

	if (a->type != b->type)
		return a->type < b->type ? -1 : 1;
	switch (a->type)
	{
		case jbvNull:
			return 0;
		case jbvBool:
			return (int) a->val.boolean - (int) b->val.boolean;
		case jbvNumeric:
			return order_of_numbers(a->val.numeric, b->val.numeric);
		case jbvString:
			if (a->val.string.len != b->val.string.len)
				return a->val.string.len < b->val.string.len ? -1 : 1;
			return memcmp(a->val.string.val, b->val.string.val,
						  a->val.string.len);
		default:
			return compareJsonbContainers(a->val.binary.data,
										  b->val.binary.data);
	}
}

/* What it costs to compare a value. */
static int64
weight_of(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return 1 + value->val.string.len / 64;
		case jbvBinary:
			return 25 + value->val.binary.len / 4;
		default:
			return 2;
	}
}

/* The types as words: "a string or null". */
static char *
type_words(int types)
{
	StringInfoData words;

	/* A whole number is a number. */
	if (types & PROM_JSON_NUMBER)
		types &= ~PROM_JSON_INTEGER;
	initStringInfo(&words);
	for (int bit = 0; bit < PROM_JSON_NTYPES; bit++)
	{
		const char *name = prom_json_type_names[bit];

		if (!(types & (1 << bit)))
			continue;
		types &= ~(1 << bit);
		appendStringInfo(&words, "%s%s%s",
						 words.len == 0 ? ""
						 : types == 0   ? " or "
										: ", ",
						 strcmp(name, "null") == 0        ? ""
						 : strchr("aeiou", *name) != NULL ? "an "
														  : "a ",
						 name);
	}
	return words.data;
}


/* Keywords. */

static bool
fits_values(Check *check, const PromSchema *schema, JsonbValue *value,
			const PromPlace *place)
{
	if (schema->types != 0 && !(schema->types & types_of(value)))
		return check->quiet == 0 &&
			   fail(check, place, "is %s, must be %s",
					type_words(types_of(value)), type_words(schema->types));
	if (schema->constant != NULL)
	{
		if (!spend(check, weight_of(value)))
			return false;
		if (compare_values(schema->constant, value) != 0)
			return fail(check, place, "is not the value of const");
	}
	if (schema->nvalues > 0)
	{
		bool found = false;

		for (int i = 0; i < schema->nvalues && !found; i++)
		{
			/* Only those of the same type are looked at closely. */
			if (!spend(check, schema->values[i].type == value->type
								  ? weight_of(value)
								  : 1))
				return false;
			found = compare_values(&schema->values[i], value) == 0;
		}
		if (!found)
			return fail(check, place, "is none of the values of enum");
	}
	return true;
}

/*
 * What a division costs: the digits of the quotient times those of the divisor,
 * four at once.  The quotient has more if the divisor is small.
 */
static int64
cost_of_division(Numeric divisor)
{
	int scale = DatumGetInt32(
		DirectFunctionCall1(numeric_scale, NumericGetDatum(divisor)));

	return DIVISION_COST + (int64) (PROM_SCHEMA_MAX_DIGITS + scale) / 4 *
							   (VARSIZE_ANY(divisor) / 2) / 10;
}

static bool
fits_number(Check *check, const PromSchema *schema, Numeric number,
			const PromPlace *place)
{
	const struct
	{
		Numeric limit;
		bool above;
		bool equal;
		const char *words;
	} limits[] = {
		{schema->minimum, true, true, "must be at least %s"},
		{schema->maximum, false, true, "must be at most %s"},
		{schema->above, true, false, "must be greater than %s"},
		{schema->below, false, false, "must be less than %s"},
	};

	for (int i = 0; i < lengthof(limits); i++)
	{
		int order;

		if (limits[i].limit == NULL)
			continue;
		order = order_of_numbers(number, limits[i].limit);
		if ((order == 0 && limits[i].equal) ||
			(order != 0 && (order > 0) == limits[i].above))
			continue;
		return check->quiet == 0 &&
			   fail(check, place, limits[i].words,
					number_words(limits[i].limit));
	}
	if (schema->multiple_of != NULL)
	{
		Numeric divisor = schema->multiple_of;
		Numeric rest;
		bool is_zero;

		if (!spend(check, cost_of_division(divisor)))
			return false;
		rest = DatumGetNumeric(DirectFunctionCall2(numeric_mod,
												   NumericGetDatum(number),
												   NumericGetDatum(divisor)));
		is_zero = order_of_numbers(rest, int64_to_numeric(0)) == 0;
		pfree(rest);
		if (!is_zero)
			return check->quiet == 0 &&
				   fail(check, place, "must be a multiple of %s",
						number_words(divisor));
	}
	return true;
}

/* Is a count in its limits, of which -1 is none? */
static bool
fits_count(Check *check, int count, int least, int most, const char *what,
		   const PromPlace *place)
{
	if (least >= 0 && count < least)
		return fail(check, place, "has %d %s%s, must have at least %d", count,
					what, count == 1 ? "" : "s", least);
	if (most >= 0 && count > most)
		return fail(check, place, "has %d %s%s, must have at most %d", count,
					what, count == 1 ? "" : "s", most);
	return true;
}

static bool
fits_pattern(Check *check, PromSchemaPattern *pattern, const char *text,
			 int length, const PromPlace *place)
{
	regex_t *regex = prom_schema_regex(pattern);
	pg_wchar *wide;
	int nwide;
	int code;

	if (regex == NULL)
	{
		check->fatal = "cannot be checked: memory for a pattern is missing";
		return false;
	}
	if (!spend(check,
			   (int64) (length + 10) * (pattern->width + 10) / 10))
		return false;
	wide = palloc(sizeof(pg_wchar) * (length + 1));
	nwide = pg_mb2wchar_with_len(text, wide, length);
	code = pg_regexec(regex, wide, nwide, 0, NULL, 0, NULL, 0);
	pfree(wide);
	if (code == REG_OKAY)
		return true;

	/* It may have been a signal that stopped it. */
	CHECK_FOR_INTERRUPTS();
	return fail(check, place, "does not match the pattern %.*s%s",
				NAME_ARGS(pattern->text, pattern->length),
				pattern->length > MAX_NAME ? "..." : "");
}

static bool
fits_string(Check *check, const PromSchema *schema, const JsonbValue *value,
			const PromPlace *place)
{
	const char *text = value->val.string.val;
	int length = value->val.string.len;

	if (schema->min_length >= 0 || schema->max_length >= 0)
	{
		if (!spend(check, length / 10) ||
			!fits_count(check, pg_mbstrlen_with_len(text, length),
						schema->min_length, schema->max_length, "character",
						place))
			return false;
	}
	return schema->pattern == NULL ||
		   fits_pattern(check, schema->pattern, text, length, place);
}

/* qsort() can be led into quadratic time, so each comparison costs. */
static int
compare_elements(const void *x, const void *y, void *arg)
{
	Check *check = arg;

	CHECK_FOR_INTERRUPTS();
	if (!spend(check, Min(weight_of(x), weight_of(y))))
		return 0;
	return compare_values(x, y);
}

static bool
has_equals(Check *check, JsonbContainer *container)
{
	int n = JsonContainerSize(container);
	JsonbValue *values;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue value;
	bool found = false;

	if (n < 2 || !spend(check, n))
		return false;
	values = palloc(sizeof(JsonbValue) * n);
	iterator = JsonbIteratorInit(container);
	n = 0;
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
		if (token == WJB_ELEM)
			values[n++] = value;
	qsort_arg(values, n, sizeof(JsonbValue), compare_elements, check);
	for (int i = 1; i < n && !found && check->fatal == NULL; i++)
		found = compare_elements(&values[i - 1], &values[i], check) == 0;
	pfree(values);
	return found;
}

static bool
fits_array(Check *check, const PromSchema *schema, JsonbContainer *container,
		   const PromPlace *place)
{
	PromPlace inner = {place, NULL, 0, 0};
	JsonbIterator *iterator;
	JsonbValue value;
	JsonbIteratorToken token;
	bool fit = true;

	if (!fits_count(check, JsonContainerSize(container), schema->min_items,
					schema->max_items, "element", place))
		return false;
	if (schema->items != NULL || schema->prefix.n > 0)
	{
		iterator = JsonbIteratorInit(container);
		while (fit && (token = JsonbIteratorNext(&iterator, &value, true)) !=
						  WJB_DONE)
		{
			const PromSchema *items = schema->items;

			if (token != WJB_ELEM)
				continue;
			if (inner.index < schema->prefix.n)
				items = schema->prefix.schemas[inner.index];
			fit = items == NULL || fits(check, items, &value, &inner);
			inner.index++;
		}
		if (iterator != NULL)
			pfree(iterator);
	}
	if (fit && schema->unique && has_equals(check, container) &&
		check->fatal == NULL)
		return fail(check, place, "has two elements that are equal");
	return fit && check->fatal == NULL;
}

/* What it costs to find one of so many members by a name. */
static int64
cost_of_finding(int members, int length)
{
	return 2 + 2 * pg_leftmost_one_pos32(members + 1) + length / 64;
}

/* The members that properties does not name. */
static bool
fits_additional(Check *check, const PromSchema *schema,
				JsonbContainer *container, const PromPlace *place)
{
	PromPlace inner = {place, NULL, 0, 0};
	JsonbIterator *iterator = JsonbIteratorInit(container);
	JsonbIteratorToken token;
	JsonbValue value;
	bool fit = true;

	while (fit &&
		   (token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			inner.name = value.val.string.val;
			inner.length = value.val.string.len;
		}
		else if (token == WJB_VALUE)
			fit = spend(check, cost_of_finding(schema->properties.n,
											   inner.length)) &&
				  (prom_schema_member(&schema->properties, inner.name,
									  inner.length) != NULL ||
				   fits(check, schema->additional, &value, &inner));
	}
	if (iterator != NULL)
		pfree(iterator);
	return fit;
}

static bool
fits_object(Check *check, const PromSchema *schema, JsonbContainer *container,
			const PromPlace *place)
{
	int size = JsonContainerSize(container);
	JsonbValue value;

	for (int i = 0; i < schema->nrequired; i++)
	{
		const char *name = schema->required[i].val.string.val;
		int length = schema->required[i].val.string.len;

		if (!spend(check, cost_of_finding(size, length)))
			return false;
		if (getKeyJsonValueFromContainer(container, name, length, &value) ==
			NULL)
			return fail(check, place, "has no \"%.*s\", which is required",
						NAME_ARGS(name, length));
	}
	for (int i = 0; i < schema->properties.n; i++)
	{
		const PromSchemaMember *member = &schema->properties.members[i];
		PromPlace inner = {place, member->name, member->length, 0};

		if (!spend(check, cost_of_finding(size, member->length)))
			return false;
		if (getKeyJsonValueFromContainer(container, member->name,
										 member->length, &value) != NULL &&
			!fits(check, member->schema, &value, &inner))
			return false;
	}
	return schema->additional == NULL ||
		   fits_additional(check, schema, container, place);
}

/* How many of the list a value fits; more than most are not counted. */
static int
count_fits(Check *check, const PromSchemaList *list, JsonbValue *value,
		   const PromPlace *place, int most)
{
	int n = 0;

	check->quiet++;
	for (int i = 0; i < list->n && n < most; i++)
		n += fits(check, list->schemas[i], value, place);
	check->quiet--;
	return n;
}

static bool
fits_combined(Check *check, const PromSchema *schema, JsonbValue *value,
			  const PromPlace *place)
{
	int n;

	if (schema->target != NULL && !fits(check, schema->target, value, place))
		return false;
	for (int i = 0; i < schema->all.n; i++)
		if (!fits(check, schema->all.schemas[i], value, place))
			return false;
	if (schema->any.n > 0 &&
		count_fits(check, &schema->any, value, place, 1) == 0)
		return fail(check, place, "fits none of the schemas of anyOf");
	if (schema->one.n > 0)
	{
		n = count_fits(check, &schema->one, value, place, 2);
		if (n != 1)
			return fail(check, place, "fits %s of the schemas of oneOf",
						n == 0 ? "none" : "more than one");
	}
	if (schema->not != NULL)
	{
		check->quiet++;
		n = fits(check, schema->not, value, place);
		check->quiet--;
		if (n != 0)
			return fail(check, place, "fits the schema of not");
	}
	return check->fatal == NULL;
}

/* All keywords of a schema; each has its say only for values of its type. */
static bool
fits_keywords(Check *check, const PromSchema *schema, JsonbValue *value,
			  const PromPlace *place)
{
	bool fit = fits_values(check, schema, value, place);

	if (fit && value->type == jbvNumeric)
		fit = fits_number(check, schema, value->val.numeric, place);
	else if (fit && value->type == jbvString)
		fit = fits_string(check, schema, value, place);
	else if (fit && value->type == jbvBinary)
		fit = JsonContainerIsObject(value->val.binary.data)
				  ? fits_object(check, schema, value->val.binary.data, place)
				  : fits_array(check, schema, value->val.binary.data, place);
	return fit && fits_combined(check, schema, value, place);
}

/* With a fatal reason nothing fits, also under not. */
static bool
fits(Check *check, const PromSchema *schema, JsonbValue *value,
	 const PromPlace *place)
{
	bool fit;

	CHECK_FOR_INTERRUPTS();
	if (!spend(check, STEP_COST))
		return false;
	if (schema->is_boolean)
		return schema->boolean || fail(check, place, "is not allowed");
	if (check->steps >= MAX_STEPS)
	{
		check->fatal = "is nested too deeply for its schema";
		return false;
	}
	check->steps++;
	fit = fits_keywords(check, schema, value, place);
	check->steps--;
	return fit;
}

static char *
find_mismatch(Jsonb *schema, const char *answer)
{
	const char *problem = prom_schema_unreadable(answer);
	MemoryContext context;
	MemoryContext before;
	Jsonb *document;
	JsonbValue value;
	Check check = {.left = BUDGET};
	char *mismatch = NULL;

	if (problem != NULL)
		return pstrdup(problem);
	context = AllocSetContextCreate(CurrentMemoryContext,
									"prometheus schema",
									ALLOCSET_DEFAULT_SIZES);
	before = MemoryContextSwitchTo(context);
	document = DatumGetJsonbP(
		DirectFunctionCall1(jsonb_in, CStringGetDatum(answer)));
	if (!JsonbExtractScalar(&document->root, &value))
		JsonbToJsonbValue(document, &value);
	if (!fits(&check, prom_schema_read(schema, true), &value, NULL))
		mismatch = MemoryContextStrdup(before, check.fatal != NULL
												   ? check.fatal
												   : check.mismatch);
	MemoryContextSwitchTo(before);
	MemoryContextDelete(context);
	return mismatch;
}

char *
prom_schema_mismatch(Jsonb *schema, const char *answer)
{
	instr_time begin;
	instr_time end;
	char *mismatch;

	INSTR_TIME_SET_CURRENT(begin);
	mismatch = find_mismatch(schema, answer);
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_ACCUM_DIFF(spent, end, begin);
	return mismatch;
}

bool
prom_schema_is_tired(void)
{
	return INSTR_TIME_GET_MILLISEC(spent) >= MAX_TIRING;
}

void
prom_schema_rest(void)
{
	INSTR_TIME_SET_ZERO(spent);
}

PG_FUNCTION_INFO_V1(prom_mismatch);

Datum
prom_mismatch(PG_FUNCTION_ARGS)
{
	Jsonb *schema = PG_GETARG_JSONB_P(0);
	char *mismatch;

	prom_schema_check(schema);
	mismatch = prom_schema_mismatch(schema,
									text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (mismatch == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(mismatch));
}
