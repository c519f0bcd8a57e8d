/*
 * option.c
 *	  Checks and reads the options of models and agents.
 *
 * Each kind of thing has a table of the options that it knows.  A value is
 * read by the same code when it is set and when it is used, so what was
 * accepted can be used.
 */
#include "postgres.h"

#include <limits.h>

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "nodes/value.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "compat.h"
#include "encoding.h"
#include "option.h"
#include "provider/provider.h"
#include "shmem.h"

typedef enum OptionType
{
	OPTION_BOOLEAN,
	OPTION_INTEGER,
	OPTION_NUMBER,
	OPTION_INTERVAL, /* text such as "10 s", or a number of seconds */
	OPTION_SIZE,     /* text such as "16 MB", or a number of bytes */
	OPTION_ROLES,    /* an array of names of roles */
	OPTION_MODEL,    /* the name of a model, of at most so many bytes */
	OPTION_MODELS,   /* an array of names of models */
	OPTION_OBJECT,   /* an object of at most so many bytes of text */
	OPTION_LANGUAGE  /* the name of a text search configuration */
} OptionType;

typedef struct Option
{
	const char *name;
	OptionType type;
	int64 min;
	int64 max; /* ms for intervals */
} Option;

static const Option model_options[] = {
	{"breaker_failures", OPTION_INTEGER, 1, 1000},
	{"cache", OPTION_INTERVAL, 1000, INT64CONST(366) * 86400000},
	{"connect_timeout", OPTION_INTERVAL, 1, 3600000},
	{"extra_body", OPTION_OBJECT, 0, 64 * 1024},
	{"fallback", OPTION_MODELS, 0, PROM_MAX_FALLBACKS},
	{"first_byte_timeout", OPTION_INTERVAL, 1, 86400000},
	{"idle_timeout", OPTION_INTERVAL, 1, 86400000},
	{"max_concurrent", OPTION_INTEGER, 1, 100000},
	{"max_reply", OPTION_SIZE, 1024, INT64CONST(256) * 1024 * 1024},
	{"max_tokens", OPTION_INTEGER, 1, INT_MAX},
	{"price_cached", OPTION_NUMBER, 0, 1000000},
	{"price_in", OPTION_NUMBER, 0, 1000000},
	{"price_out", OPTION_NUMBER, 0, 1000000},
	{"requests_per_minute", OPTION_INTEGER, 1, 10000000},
	{"stream", OPTION_BOOLEAN, 0, 1},
	{"temperature", OPTION_NUMBER, 0, 10},
	{"tokens_per_minute", OPTION_INTEGER, 1, INT64CONST(1000000000000)},
	{"total_timeout", OPTION_INTERVAL, 1, 86400000},
	{"window", OPTION_INTEGER, 1000, 100000000},
};

static const Option agent_options[] = {
	{"approval_timeout", OPTION_INTERVAL, 1000, INT64CONST(366) * 86400000},
	{"embedding_model", OPTION_MODEL, 1, PROM_MAX_NAME},
	{"language", OPTION_LANGUAGE, 0, 0},
	{"max_cost", OPTION_NUMBER, 0, 1000000},
	{"max_depth", OPTION_INTEGER, 0, 100},
	{"max_duration", OPTION_INTERVAL, 1000, INT64CONST(366) * 86400000},
	{"max_result", OPTION_SIZE, 256, INT64CONST(16) * 1024 * 1024},
	{"max_results", OPTION_SIZE, 256, INT64CONST(64) * 1024 * 1024},
	{"max_rows", OPTION_INTEGER, 1, INT64CONST(1000000000000)},
	{"max_tokens", OPTION_INTEGER, 1, INT64CONST(1000000000000)},
	{"max_tool_calls", OPTION_INTEGER, 1, 10000},
	{"max_turns", OPTION_INTEGER, 1, 1000},
	{"max_vetoes", OPTION_INTEGER, 0, 1000},
	{"memory_limit", OPTION_INTEGER, 1, 100000},
	{"reflect_below", OPTION_NUMBER, 0, 1},
	{"roles", OPTION_ROLES, 0, 0},
	{"summarise", OPTION_BOOLEAN, 0, 1},
	{"summary", OPTION_BOOLEAN, 0, 1},
	{"tool_timeout", OPTION_INTERVAL, 10, 86400000},
};

static pg_noreturn void
raise_value(const Option *option, const char *wanted)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("option \"%s\" has a wrong value", option->name),
					errdetail("It must be %s.", wanted)));
	pg_unreachable();
}

static Numeric
as_numeric(const Option *option, const JsonbValue *value)
{
	if (value->type != jbvNumeric)
		raise_value(option, "a number");
	return value->val.numeric;
}

/* Is the number between the option's limits? */
static bool
in_range(const Option *option, Numeric number)
{
	Datum value = NumericGetDatum(number);
	Datum min = NumericGetDatum(int64_to_numeric(option->min));
	Datum max = NumericGetDatum(int64_to_numeric(option->max));

	return DatumGetBool(DirectFunctionCall2(numeric_ge, value, min)) &&
		   DatumGetBool(DirectFunctionCall2(numeric_le, value, max));
}

static int64
read_integer(const Option *option, const JsonbValue *value)
{
	Numeric number = as_numeric(option, value);
	Datum whole = DirectFunctionCall2(numeric_trunc, NumericGetDatum(number),
									  Int32GetDatum(0));

	if (!in_range(option, number) ||
		!DatumGetBool(
			DirectFunctionCall2(numeric_eq, NumericGetDatum(number), whole)))
		raise_value(option,
					psprintf("a whole number from %lld to %lld",
							 (long long) option->min, (long long) option->max));
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, whole));
}

static char *
read_number(const Option *option, const JsonbValue *value)
{
	Numeric number = as_numeric(option, value);

	if (!in_range(option, number))
		raise_value(option,
					psprintf("a number from %lld to %lld",
							 (long long) option->min, (long long) option->max));
	return DatumGetCString(
		DirectFunctionCall1(numeric_out, NumericGetDatum(number)));
}

static void
name_option(void *arg)
{
	errcontext("option \"%s\"", ((const Option *) arg)->name);
}

/* An interval or a size as PostgreSQL reads it; its errors name the option. */
static Datum
read_text(const Option *option, const JsonbValue *value)
{
	char *text = pnstrdup(value->val.string.val, value->val.string.len);
	ErrorContextCallback context = {error_context_stack, name_option,
									(void *) option};
	Datum read;

	error_context_stack = &context;
	read = option->type == OPTION_SIZE
			   ? DirectFunctionCall1(pg_size_bytes, CStringGetTextDatum(text))
			   : DirectFunctionCall3(interval_in, CStringGetDatum(text),
									 ObjectIdGetDatum(InvalidOid),
									 Int32GetDatum(-1));
	error_context_stack = context.previous;
	return read;
}

/* Milliseconds. */
static int64
read_interval(const Option *option, const JsonbValue *value)
{
	double ms = -1;

	if (value->type == jbvString)
	{
		Interval *interval = DatumGetIntervalP(read_text(option, value));

		ms = interval->time / 1000.0 +
			 (interval->day + interval->month * 30.0) * 86400000.0;
	}
	else if (value->type == jbvNumeric &&
			 DatumGetBool(DirectFunctionCall2(
				 numeric_lt, NumericGetDatum(value->val.numeric),
				 NumericGetDatum(int64_to_numeric(option->max)))))
		ms = 1000.0 *
			 DatumGetFloat8(DirectFunctionCall1(
				 numeric_float8, NumericGetDatum(value->val.numeric)));
	if (!(ms >= option->min && ms <= option->max))
		raise_value(
			option,
			psprintf("an interval from %lld ms to %lld s, or a number of seconds",
					 (long long) option->min, (long long) option->max / 1000));
	return (int64) ms;
}

/* Bytes. */
static int64
read_size(const Option *option, const JsonbValue *value)
{
	int64 bytes = -1;

	if (value->type == jbvString)
		bytes = DatumGetInt64(read_text(option, value));
	else if (value->type == jbvNumeric)
		bytes = read_integer(option, value);
	if (bytes < option->min || bytes > option->max)
		raise_value(option,
					psprintf("a size from %lld to %lld bytes, or a number of bytes",
							 (long long) option->min, (long long) option->max));
	return bytes;
}

/* The names in an array, palloc'd; which is named in messages. */
static char **
read_names(const Option *option, JsonbValue *value, const char *wanted, int *n)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue element;
	char **names;

	if (value->type != jbvBinary ||
		!JsonContainerIsArray(value->val.binary.data))
		raise_value(option, wanted);
	*n = 0;
	names = palloc(Max(JsonContainerSize(value->val.binary.data), 1) *
				   sizeof(char *));
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (element.type != jbvString)
			raise_value(option, wanted);
		names[(*n)++] = pnstrdup(element.val.string.val,
								 element.val.string.len);
	}
	return names;
}

static char *
read_model(const Option *option, JsonbValue *value)
{
	if (value->type != jbvString || value->val.string.len < option->min ||
		value->val.string.len > option->max)
		raise_value(option, "the name of a model");
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static char **
read_models(const Option *option, JsonbValue *value, int *n)
{
	const char *wanted = psprintf("an array of at most %lld names of models",
								  (long long) option->max);
	char **names = read_names(option, value, wanted, n);

	if (*n > option->max)
		raise_value(option, wanted);
	return names;
}

/* Raises if there is no such role: a slip would lock out everybody. */
static void
check_roles(const Option *option, JsonbValue *value)
{
	int n;
	char **names = read_names(option, value, "an array of names of roles", &n);

	for (int i = 0; i < n; i++)
		(void) get_role_oid(names[i], false);
}

/* The text of an object, palloc'd in UTF-8. */
static const char *
read_object(const Option *option, JsonbValue *value)
{
	const char *text = NULL;

	if (value->type == jbvBinary &&
		JsonContainerIsObject(value->val.binary.data))
		text = prom_encoding_to_utf8(JsonbToCString(
			NULL, value->val.binary.data, value->val.binary.len));
	if (text == NULL || strlen(text) > option->max)
		raise_value(option, psprintf("a json object of at most %lld bytes",
									 (long long) option->max));
	return text;
}

/*
 * A name without a schema is one of pg_catalog: the path of who remembers does
 * not matter.
 */
static Oid
read_language(const Option *option, JsonbValue *value, bool missing_ok)
{
	ErrorContextCallback context = {error_context_stack, name_option,
									(void *) option};
	List *names;
	Oid language;

	if (value->type != jbvString)
		raise_value(option, "the name of a text search configuration");
	error_context_stack = &context;
	names = textToQualifiedNameList(cstring_to_text_with_len(
		value->val.string.val, value->val.string.len));
	if (list_length(names) == 1)
		names = lcons(makeString(pstrdup("pg_catalog")), names);
	language = get_ts_config_oid(names, missing_ok);
	error_context_stack = context.previous;
	return language;
}

static void
check_value(const Option *option, JsonbValue *value)
{
	int n;

	switch (option->type)
	{
		case OPTION_BOOLEAN:
			if (value->type != jbvBool)
				raise_value(option, "true or false");
			break;
		case OPTION_INTEGER:
			(void) read_integer(option, value);
			break;
		case OPTION_NUMBER:
			(void) read_number(option, value);
			break;
		case OPTION_INTERVAL:
			(void) read_interval(option, value);
			break;
		case OPTION_SIZE:
			(void) read_size(option, value);
			break;
		case OPTION_ROLES:
			check_roles(option, value);
			break;
		case OPTION_MODEL:
			(void) read_model(option, value);
			break;
		case OPTION_MODELS:
			(void) read_models(option, value, &n);
			break;
		case OPTION_OBJECT:
			(void) read_object(option, value);
			break;
		case OPTION_LANGUAGE:
			(void) read_language(option, value, false);
			break;
	}
}

static const Option *
find_option(const Option *known, int nknown, const char *name, int length)
{
	for (int i = 0; i < nknown; i++)
		if (strlen(known[i].name) == length &&
			memcmp(known[i].name, name, length) == 0)
			return &known[i];
	return NULL;
}

static pg_noreturn void
raise_unknown(const Option *known, int nknown, const char *of, const char *name)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < nknown; i++)
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", known[i].name);
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("option \"%s\" of %s does not exist", name, of),
					errhint("The options are: %s.", names.data)));
	pg_unreachable();
}

static void
check_options(Jsonb *options, const Option *known, int nknown, const char *of)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue key;
	JsonbValue value;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("options must be a json object")));
	iterator = JsonbIteratorInit(&options->root);
	(void) JsonbIteratorNext(&iterator, &key, true);
	while ((token = JsonbIteratorNext(&iterator, &key, true)) == WJB_KEY)
	{
		const Option *option = find_option(known, nknown, key.val.string.val,
										   key.val.string.len);

		if (option == NULL)
			raise_unknown(known, nknown, of,
						  pnstrdup(key.val.string.val, key.val.string.len));
		(void) JsonbIteratorNext(&iterator, &value, true);
		/* It takes the option away. */
		if (value.type != jbvNull)
			check_value(option, &value);
	}
}

void
prom_option_check_model(Jsonb *options)
{
	check_options(options, model_options, lengthof(model_options), "a model");
}

void
prom_option_check_extra_body(Jsonb *options, const char *api)
{
	const PromProvider *provider = prom_provider_find(api);
	PromModel model = {0};
	PromSlice extra;
	PromSlice value;

	prom_option_read_model(options, &model);
	if (model.extra_body == NULL)
		return;
	if (prom_llm_is_function(api))
		provider = &prom_provider_openai;
	if (provider == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a model of api \"%s\" has no extra_body", api)));
	extra = (PromSlice){model.extra_body, strlen(model.extra_body)};
	for (int i = 0; provider->members[i] != NULL; i++)
		if (prom_json_find(extra, provider->members[i], &value))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("extra_body must not have \"%s\"",
							provider->members[i]),
					 errdetail("Requests of api \"%s\" have it already.", api)));
	if (provider->shared != NULL &&
		prom_json_find(extra, provider->shared, &value) &&
		prom_json_kind(value) != '{')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" of extra_body must be a json object",
						provider->shared)));
}

void
prom_option_check_agent(Jsonb *options)
{
	check_options(options, agent_options, lengthof(agent_options), "an agent");
}

/* Options that are read, and the table that they are in. */
typedef struct Reader
{
	Jsonb *options;
	const Option *known;
	int nknown;
} Reader;

/* The value of an option that is set, with its row of the table; else NULL. */
static JsonbValue *
set_option(const Reader *from, const char *name, const Option **option)
{
	*option = find_option(from->known, from->nknown, name, strlen(name));
	Assert(*option != NULL);
	return getKeyJsonValueFromContainer(&from->options->root, name,
										strlen(name), NULL);
}

static int64
integer_or(const Reader *from, const char *name, int64 otherwise)
{
	const Option *option;
	JsonbValue *value = set_option(from, name, &option);

	return value == NULL ? otherwise : read_integer(option, value);
}

static int64
interval_or(const Reader *from, const char *name, int64 otherwise)
{
	const Option *option;
	JsonbValue *value = set_option(from, name, &option);

	return value == NULL ? otherwise : read_interval(option, value);
}

static int64
size_or(const Reader *from, const char *name, int64 otherwise)
{
	const Option *option;
	JsonbValue *value = set_option(from, name, &option);

	return value == NULL ? otherwise : read_size(option, value);
}

static const char *
number_or_null(const Reader *from, const char *name)
{
	const Option *option;
	JsonbValue *value = set_option(from, name, &option);

	return value == NULL ? NULL : read_number(option, value);
}

void
prom_option_read_model(Jsonb *options, PromModel *model)
{
	Reader from = {options, model_options, lengthof(model_options)};
	const Option *option;
	JsonbValue *value;

	model->connect_timeout = interval_or(&from, "connect_timeout", 10000);
	model->first_byte_timeout = interval_or(&from, "first_byte_timeout", 60000);
	model->idle_timeout = interval_or(&from, "idle_timeout", 60000);
	model->total_timeout = interval_or(&from, "total_timeout", 600000);
	model->temperature = number_or_null(&from, "temperature");
	model->price_in = number_or_null(&from, "price_in");
	model->price_out = number_or_null(&from, "price_out");
	model->price_cached = number_or_null(&from, "price_cached");
	value = set_option(&from, "extra_body", &option);
	model->extra_body = value == NULL ? NULL : read_object(option, value);
	model->max_tokens = integer_or(&from, "max_tokens", -1);
	model->window = integer_or(&from, "window", -1);
	model->max_reply = size_or(&from, "max_reply", 16 * 1024 * 1024);
	model->max_concurrent = integer_or(&from, "max_concurrent", 0);
	model->breaker_failures = integer_or(&from, "breaker_failures", 5);
	model->cache = interval_or(&from, "cache", 0);
	model->requests_per_minute = integer_or(&from, "requests_per_minute", 0);
	model->tokens_per_minute = integer_or(&from, "tokens_per_minute", 0);
	value = set_option(&from, "stream", &option);
	model->stream = value == NULL || value->val.boolean;
	value = set_option(&from, "fallback", &option);
	model->fallbacks = NULL;
	model->nfallbacks = 0;
	if (value != NULL)
		model->fallbacks = (const char **) read_models(option, value,
													   &model->nfallbacks);
}

void
prom_option_read_agent(Jsonb *options, PromAgent *agent)
{
	Reader from = {options, agent_options, lengthof(agent_options)};
	const char *below = number_or_null(&from, "reflect_below");
	const Option *option;
	JsonbValue *value = set_option(&from, "summarise", &option);

	agent->summarises = value != NULL && value->val.boolean;
	agent->reflect_below = below == NULL ? 0 : strtod(below, NULL);
	agent->limits.max_turns = integer_or(&from, "max_turns", 20);
	agent->limits.max_tool_calls = integer_or(&from, "max_tool_calls", 100);
	agent->limits.max_tokens = integer_or(&from, "max_tokens", -1);
	agent->limits.max_cost = number_or_null(&from, "max_cost");
	agent->limits.max_duration = interval_or(&from, "max_duration", -1);
	agent->limits.max_results = size_or(&from, "max_results", 1024 * 1024);
	agent->limits.max_vetoes = integer_or(&from, "max_vetoes", 3);
	agent->approval_timeout = interval_or(&from, "approval_timeout",
										  INT64CONST(7) * 86400000);
	agent->max_depth = integer_or(&from, "max_depth", 3);
	agent->max_result = size_or(&from, "max_result", 64 * 1024);
	agent->max_rows = integer_or(&from, "max_rows", 10000);
	agent->tool_timeout = interval_or(&from, "tool_timeout", 30000);
}

int64
prom_option_memory_limit(Jsonb *options)
{
	Reader from = {options, agent_options, lengthof(agent_options)};

	return integer_or(&from, "memory_limit", -1);
}

char *
prom_option_embedding_model(Jsonb *options)
{
	Reader from = {options, agent_options, lengthof(agent_options)};
	const Option *option;
	JsonbValue *value;

	if (options == NULL)
		return NULL;
	value = set_option(&from, "embedding_model", &option);
	return value == NULL || value->type == jbvNull ? NULL
												   : read_model(option, value);
}

Oid
prom_option_language(Jsonb *options)
{
	Reader from = {options, agent_options, lengthof(agent_options)};
	const Option *option;
	JsonbValue *value = set_option(&from, "language", &option);

	return value == NULL ? InvalidOid : read_language(option, value, true);
}
