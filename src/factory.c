/*
 * factory.c
 *	  Has tools made: takes what is asked for, and submits it as a task.
 *
 * Who asks must be an administrator, as for any other tool.  What is asked for
 * is checked here and never again: commission.c reads it.
 */
#include "postgres.h"

#include <ctype.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "agent.h"
#include "candidate.h"
#include "commission.h"
#include "compat.h"
#include "guc.h"
#include "role.h"
#include "task.h"

/* Bytes of a description; examples of one tool, and arguments in one. */
#define MAX_DESCRIPTION 4096
#define MAX_EXAMPLES 100
#define MAX_ARGUMENTS PROM_MAX_WANTED

static pg_noreturn void
raise_examples(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the examples cannot be used"), errdetail("%s", detail),
			 errhint("They are an array: [{\"input\": {\"a\": 2, \"b\": 3}, \"output\": 5}, ...], each with the same names in its input.")));
	pg_unreachable();
}

static pg_noreturn void
raise_option(const char *name, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("option \"%s\" cannot be used", name),
			 errdetail("%s", detail)));
	pg_unreachable();
}

static char *
text_of(const JsonbValue *string)
{
	return pnstrdup(string->val.string.val, string->val.string.len);
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


/* Examples. */

/* An argument's name: one that needs no care in any place. */
static void
check_argument(const char *name)
{
	size_t length = strlen(name);
	bool fits = length > 0 && length < NAMEDATALEN &&
				!isdigit((unsigned char) name[0]);

	if (!fits || strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
							  "abcdefghijklmnopqrstuvwxyz0123456789_") !=
					 length)
		raise_examples(psprintf("\"%s\" cannot be the name of an argument: it must have 1 to %d letters (a to z, A to Z), digits and underscores, and not begin with a digit.",
								name, NAMEDATALEN - 1));
}

static void
check_input(JsonbContainer *input, JsonbContainer *first)
{
	JsonbIterator *iterator = JsonbIteratorInit(input);
	JsonbIteratorToken token;
	JsonbValue key;
	JsonbValue value;

	if (JsonContainerSize(input) > MAX_ARGUMENTS)
		raise_examples(psprintf("An input has more than %d arguments.",
								MAX_ARGUMENTS));
	if (JsonContainerSize(input) != JsonContainerSize(first))
		raise_examples("Not each input has the same arguments.");
	while ((token = JsonbIteratorNext(&iterator, &key, true)) != WJB_DONE)
	{
		char *name;

		if (token != WJB_KEY)
			continue;
		name = text_of(&key);
		check_argument(name);
		if (getKeyJsonValueFromContainer(first, name, strlen(name),
										 &value) == NULL)
			raise_examples("Not each input has the same arguments.");
	}
}

static void
check_examples(Jsonb *examples)
{
	JsonbContainer *first = NULL;
	int n;

	if (!JB_ROOT_IS_ARRAY(examples) || JB_ROOT_IS_SCALAR(examples))
		raise_examples("They are no array.");
	if (VARSIZE(examples) > (size_t) prom_guc_max_request * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the examples are too long"),
				 errdetail("They have %zu bytes; the limit is %d kB.",
						   (size_t) VARSIZE(examples), prom_guc_max_request),
				 errhint("An administrator can raise prometheus.max_request.")));
	n = JB_ROOT_COUNT(examples);
	if (n < 1 || n > MAX_EXAMPLES)
		raise_examples(psprintf("There must be 1 to %d, and there are %d.",
								MAX_EXAMPLES, n));
	for (int i = 0; i < n; i++)
	{
		JsonbValue *example = getIthJsonbValueFromContainer(&examples->root, i);
		JsonbContainer *members;
		JsonbValue input;
		JsonbValue output;

		if (!is_object(example))
			raise_examples("One of them is no object.");
		members = example->val.binary.data;
		if (JsonContainerSize(members) != 2 ||
			getKeyJsonValueFromContainer(members, "input", 5, &input) == NULL ||
			getKeyJsonValueFromContainer(members, "output", 6, &output) == NULL)
			raise_examples("One of them has not just an input and an output.");
		if (!is_object(&input))
			raise_examples("The input of one of them is no object.");
		if (first == NULL)
			first = input.val.binary.data;
		check_input(input.val.binary.data, first);
	}
}


/* Options. */

static void
check_types(const JsonbValue *value)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue type;

	if (!is_object(value))
		raise_option("arguments", "It must be an object: {\"a\": \"integer\"}.");
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &type, true)) != WJB_DONE)
		if (token == WJB_VALUE && type.type != jbvString)
			raise_option("arguments", "Types are given by their names.");
}

static void
check_relations(const JsonbValue *value)
{
	int n;

	if (!is_array(value))
		raise_option("relations", "It must be an array of names.");
	n = JsonContainerSize(value->val.binary.data);
	for (int i = 0; i < n; i++)
		if (getIthJsonbValueFromContainer(value->val.binary.data, i)->type !=
			jbvString)
			raise_option("relations", "It must be an array of names.");
}

static void
check_held_back(const JsonbValue *value, int nexamples)
{
	int32 n = -1;

	if (value->type == jbvNumeric &&
		DatumGetBool(DirectFunctionCall2(
			numeric_le,
			DirectFunctionCall1(numeric_abs,
								NumericGetDatum(value->val.numeric)),
			DirectFunctionCall1(int4_numeric, Int32GetDatum(nexamples)))))
		n = DatumGetInt32(DirectFunctionCall1(
			numeric_int4, NumericGetDatum(value->val.numeric)));
	if (n < 0 || n >= nexamples)
		raise_option("held_back",
					 psprintf("It must be a number from 0 to %d: one of the %d examples is shown at least.",
							  nexamples - 1, nexamples));
}

static void
check_option(const char *name, const JsonbValue *value, int nexamples)
{
	if (strcmp(name, "name") == 0 || strcmp(name, "returns") == 0 ||
		strcmp(name, "mode") == 0)
	{
		if (value->type != jbvString)
			raise_option(name, "It must be a text.");
	}
	else if (strcmp(name, "volatile") == 0 || strcmp(name, "assign") == 0)
	{
		if (value->type != jbvBool)
			raise_option(name, "It must be true or false.");
	}
	else if (strcmp(name, "arguments") == 0)
		check_types(value);
	else if (strcmp(name, "relations") == 0)
		check_relations(value);
	else if (strcmp(name, "held_back") == 0)
		check_held_back(value, nexamples);
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" does not exist", name),
				 errhint("The options are name, arguments, returns, relations, held_back, volatile, assign and mode.")));
}

static void
check_options(Jsonb *options, int nexamples)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue value;
	char *name = NULL;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("options must be a json object")));
	iterator = JsonbIteratorInit(&options->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = text_of(&value);
		else if (token == WJB_VALUE)
			check_option(name, &value, nexamples);
	}
}

/* A member for each argument of the examples. */
static void
check_arguments_are_there(const PromCommission *commission, Jsonb *options)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue value;

	if (getKeyJsonValueFromContainer(&options->root, "arguments", 9, &value) ==
		NULL)
		return;
	iterator = JsonbIteratorInit(value.val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		bool found = token != WJB_KEY;

		for (int i = 0; i < commission->nwanted && !found; i++)
			found = strcmp(commission->wanted[i].name, text_of(&value)) == 0;
		if (!found)
			raise_option("arguments",
						 psprintf("The examples have no argument \"%s\".",
								  text_of(&value)));
	}
}


/* Submitting. */

static void
push(JsonbParseState **state, const char *name, Jsonb *document)
{
	JsonbValue key = {.type = jbvString};
	JsonbValue value;

	key.val.string.val = unconstify(char *, name);
	key.val.string.len = strlen(name);
	(void) pushJsonbValue(state, WJB_KEY, &key);
	JsonbToJsonbValue(document, &value);
	(void) pushJsonbValue(state, WJB_VALUE, &value);
}

static Jsonb *
make_document(const char *description, Jsonb *examples, Jsonb *options)
{
	JsonbParseState *state = NULL;
	JsonbValue text = {.type = jbvString};

	text.val.string.val = unconstify(char *, description);
	text.val.string.len = strlen(description);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push(&state, "description", JsonbValueToJsonb(&text));
	push(&state, "examples", examples);
	push(&state, "options", options);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static const char *
description_argument(FunctionCallInfo fcinfo)
{
	char *description = prom_setting_text(fcinfo, 0, NULL);

	if (description == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("a tool must have a description")));
	if (strlen(description) > MAX_DESCRIPTION)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("the description of a tool is too long"),
						errdetail("It may have %d bytes.", MAX_DESCRIPTION)));
	return description;
}

static char *
option_text(Jsonb *options, const char *name)
{
	JsonbValue value;

	return getKeyJsonValueFromContainer(&options->root, name, strlen(name),
										&value) == NULL
			   ? NULL
			   : text_of(&value);
}

PG_FUNCTION_INFO_V1(prom_create_tool);

Datum
prom_create_tool(PG_FUNCTION_ARGS)
{
	PromSubmit submit = {.timeout = -1};
	Jsonb *examples = prom_setting_jsonb(fcinfo, 1);
	Jsonb *options = prom_setting_jsonb(fcinfo, 3);
	const char *description;
	PromCommission *commission;

	prom_role_require_admin("prometheus_create_tool");
	description = description_argument(fcinfo);
	if (examples == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("a tool must have examples")));
	check_examples(examples);
	if (options == NULL)
		options = DatumGetJsonbP(
			DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
	check_options(options, JB_ROOT_COUNT(examples));
	submit.agent = PG_ARGISNULL(2)
					   ? NULL
					   : text_to_cstring(PG_GETARG_TEXT_PP(2));
	submit.mode = option_text(options, "mode");
	submit.commission = make_document(description, examples, options);
	commission = prom_commission_read(submit.commission);
	check_arguments_are_there(commission, options);
	(void) prom_commission_relations(commission, GetUserId());
	if (commission->name != NULL)
		prom_tool_check_made(commission->name);
	if (commission->assigns && submit.agent != NULL)
		prom_agent_check_may_give(submit.agent);
	submit.request = prom_commission_request(commission);
	PG_RETURN_INT64(prom_task_submit(&submit));
}


/* Checking a function that was written already. */

/* A member that is an array or an object, as a document of its own; or NULL. */
static Jsonb *
member_document(Jsonb *document, const char *name)
{
	JsonbValue value;

	if (getKeyJsonValueFromContainer(&document->root, name, strlen(name),
									 &value) == NULL ||
		value.type != jbvBinary)
		return NULL;
	return JsonbValueToJsonb(&value);
}

/* What prometheus_create_tool() would have written into a task. */
static PromCommission *
read_document(Jsonb *document)
{
	Jsonb *examples = NULL;
	Jsonb *options = NULL;
	PromCommission *commission;
	JsonbValue value;

	if (JB_ROOT_IS_OBJECT(document))
	{
		examples = member_document(document, "examples");
		options = member_document(document, "options");
	}
	if (examples == NULL || options == NULL ||
		getKeyJsonValueFromContainer(&document->root, "description", 11,
									 &value) == NULL ||
		value.type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the commission cannot be used"),
				 errhint("It is {\"description\": TEXT, \"examples\": [...], \"options\": {...}}, as for prometheus_create_tool().")));
	check_examples(examples);
	check_options(options, JB_ROOT_COUNT(examples));
	commission = prom_commission_read(document);
	check_arguments_are_there(commission, options);
	return commission;
}

PG_FUNCTION_INFO_V1(prom_check_function);

Datum
prom_check_function(PG_FUNCTION_ARGS)
{
	PromCommission *commission = read_document(PG_GETARG_JSONB_P(1));
	const char *fault = prom_candidate_fault(
		commission,
		prom_commission_statement(text_to_cstring(PG_GETARG_TEXT_PP(0))),
		prom_commission_relations(commission, GetUserId()),
		get_role_oid(PROM_ROLE_TOOL, false));

	if (fault == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(fault));
}
