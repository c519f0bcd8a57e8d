/*
 * signature.c
 *	  Describes users' functions to models, and makes the calls to them.
 *
 * A call names every argument, in order, with its very type: then no other
 * function of the same name fits better, whoever makes one.  One that has more
 * arguments, with defaults, fits as well: then the call is an error.  What is
 * not given is its default, written out.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/typcache.h"
#include "utils/varlena.h"

#include "compat.h"
#include "signature.h"
#include "xact.h"

/* Composite types within composite types that are described. */
#define MAX_DEPTH 8

/* Labels of an enum that are listed; a longer one is any text. */
#define MAX_LABELS 200

/* An argument that is given: of mode IN, INOUT or VARIADIC. */
typedef struct Parameter
{
	const char *name;
	Oid type;
	int number; /* among all arguments, from 1 */
	bool is_variadic;
	bool has_default;
} Parameter;

typedef struct Parameters
{
	int n;
	Parameter *list;
	int nall; /* arguments of any mode */
} Parameters;

/*
 * What is written out must not depend on a session's settings: they are fixed
 * from here to the end of the nest level that this begins.
 */
static int
fix_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"DateStyle", "ISO, YMD"},
		{"TimeZone", "UTC"},
		{"IntervalStyle", "postgres"},
		{"extra_float_digits", "1"},
		{"quote_all_identifiers", "off"},
	};
	int nest_level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
								 false);
	return nest_level;
}

char *
prom_signature_text(Oid function)
{
	int nest_level = fix_settings();
	char *signature = format_procedure_qualified(function);

	AtEOXact_GUC(true, nest_level);
	return signature;
}

static PromStatement find_statement = {
	"SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n"
	"   ON n.oid OPERATOR(pg_catalog.=) p.pronamespace"
	" WHERE p.proname OPERATOR(pg_catalog.=) $2::pg_catalog.name"
	"   AND n.nspname OPERATOR(pg_catalog.=) $1::pg_catalog.name",
	2,
	{TEXTOID, TEXTOID},
	NULL,
};

/* Its schema and name: what is before the first parenthesis without quotes. */
static List *
split_name(const char *signature)
{
	bool quoted = false;
	int length = 0;

	for (; signature[length] != '\0'; length++)
	{
		if (signature[length] == '"')
			quoted = !quoted;
		else if (signature[length] == '(' && !quoted)
			break;
	}
	return textToQualifiedNameList(cstring_to_text_with_len(signature, length));
}

/* Not by parsing the types: one may be gone, and that is no error here. */
Oid
prom_signature_find(const char *signature)
{
	List *name = split_name(signature);
	Oid found = InvalidOid;
	Datum values[2];

	values[0] = CStringGetTextDatum(strVal(linitial(name)));
	values[1] = CStringGetTextDatum(strVal(lsecond(name)));
	prom_statement_run(&find_statement, values, NULL, true);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Oid function = prom_row_oid(i, 1);

		if (strcmp(prom_signature_text(function), signature) == 0)
			found = function;
	}
	SPI_freetuptable(SPI_tuptable);
	return found;
}

static PromStatement hash_statement = {
	"SELECT pg_catalog.md5(ROW(p.prosrc, p.probin, l.lanname, p.prosecdef,"
	" p.proconfig, pg_catalog.pg_get_function_arguments(p.oid),"
	" pg_catalog.pg_get_function_result(p.oid),"
	" pg_catalog.pg_get_function_sqlbody(p.oid),"
	" CASE WHEN p.prosecdef"
	"   THEN pg_catalog.pg_get_userbyid(p.proowner) END)::pg_catalog.text)"
	" FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l"
	"   ON l.oid OPERATOR(pg_catalog.=) p.prolang"
	" WHERE p.oid OPERATOR(pg_catalog.=) $1",
	1,
	{OIDOID},
	NULL,
};

char *
prom_signature_hash(Oid function)
{
	Datum value = ObjectIdGetDatum(function);
	int nest_level = fix_settings();
	char *hash;

	prom_statement_run(&hash_statement, &value, NULL, true);
	AtEOXact_GUC(true, nest_level);
	hash = SPI_processed == 0 ? NULL : prom_row_text(0, 1);
	SPI_freetuptable(SPI_tuptable);
	return hash;
}

static HeapTuple
find_function(Oid function)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("function with OID %u does not exist",
							   function)));
	return tuple;
}

void
prom_signature_require(Oid function)
{
	ReleaseSysCache(find_function(function));
	if (!prom_may_execute(function, GetUserId()))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for function %s",
							   format_procedure(function))));
}

char *
prom_signature_of_model(Oid function)
{
	HeapTuple tuple = find_function(function);
	Form_pg_proc form = (Form_pg_proc) GETSTRUCT(tuple);

	prom_signature_require(function);
	if (form->prokind != PROKIND_FUNCTION || form->pronargs != 1 ||
		form->proargtypes.values[0] != JSONBOID ||
		form->prorettype != JSONBOID || form->proretset)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("function %s cannot be a model",
						format_procedure(function)),
				 errhint("A handler is a function f(jsonb) RETURNS jsonb, from a chat completions request to the reply.")));
	ReleaseSysCache(tuple);
	return prom_signature_text(function);
}


/* Arguments. */

/* One without a name is arg1, arg2, ...: by its place among those given. */
static Parameters
read_parameters(HeapTuple tuple)
{
	Form_pg_proc form = (Form_pg_proc) GETSTRUCT(tuple);
	Parameters found = {0};
	Oid *types;
	char **names;
	char *modes;

	found.nall = get_func_arg_info(tuple, &types, &names, &modes);
	found.list = palloc0(Max(found.nall, 1) * sizeof(Parameter));
	for (int i = 0; i < found.nall; i++)
	{
		char mode = modes == NULL ? PROARGMODE_IN : modes[i];
		Parameter *parameter = &found.list[found.n];

		if (mode != PROARGMODE_IN && mode != PROARGMODE_INOUT &&
			mode != PROARGMODE_VARIADIC)
			continue;
		found.n++;
		parameter->type = types[i];
		parameter->number = i + 1;
		parameter->is_variadic = mode == PROARGMODE_VARIADIC;
		parameter->name = names != NULL && names[i][0] != '\0'
							  ? names[i]
							  : psprintf("arg%d", found.n);
	}
	for (int i = 0; i < form->pronargdefaults && i < found.n; i++)
		found.list[found.n - 1 - i].has_default = true;
	return found;
}

bool
prom_signature_is_set(Oid function)
{
	return get_func_retset(function);
}


/* The schema. */

static void describe(StringInfo schema, Oid type, bool nullable, int depth);

/* Types that JSON has a word for, and those that are said as a string. */
static const struct
{
	Oid type;
	const char *word;
	const char *more; /* of the schema */
} known_types[] = {
	{INT2OID, "integer", ",\"minimum\":-32768,\"maximum\":32767"},
	{INT4OID, "integer", ",\"minimum\":-2147483648,\"maximum\":2147483647"},
	{INT8OID, "integer",
	 ",\"minimum\":-9223372036854775808,\"maximum\":9223372036854775807"},
	{NUMERICOID, "number", ""},
	{FLOAT4OID, "number", ""},
	{FLOAT8OID, "number", ""},
	{BOOLOID, "boolean", ""},
	{UUIDOID, "string", ",\"format\":\"uuid\""},
	{DATEOID, "string", ",\"format\":\"date\""},
	{TIMEOID, "string", ",\"format\":\"time\""},
	{TIMESTAMPOID, "string", ",\"format\":\"date-time\""},
	{TIMESTAMPTZOID, "string", ",\"format\":\"date-time\""},
	{INTERVALOID, "string", ",\"description\":\"such as 2 days 3 hours\""},
};

static void
describe_word(StringInfo schema, const char *word, bool nullable)
{
	if (nullable)
		appendStringInfo(schema, "\"type\":[\"%s\",\"null\"]", word);
	else
		appendStringInfo(schema, "\"type\":\"%s\"", word);
}

static void
describe_enum(StringInfo schema, Oid type, bool nullable)
{
	Datum value = ObjectIdGetDatum(type);
	static PromStatement labels_statement = {
		"SELECT e.enumlabel::pg_catalog.text FROM pg_catalog.pg_enum e"
		" WHERE e.enumtypid OPERATOR(pg_catalog.=) $1 ORDER BY e.enumsortorder",
		1,
		{OIDOID},
		NULL,
	};

	describe_word(schema, "string", nullable);
	prom_statement_run(&labels_statement, &value, NULL, true);
	if (SPI_processed > 0 && SPI_processed <= MAX_LABELS)
	{
		appendStringInfoString(schema, ",\"enum\":[");
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			if (i > 0)
				appendStringInfoChar(schema, ',');
			escape_json(schema, prom_row_text(i, 1));
		}
		appendStringInfoString(schema, nullable ? ",null]" : "]");
	}
	SPI_freetuptable(SPI_tuptable);
}

/* A row: no member must be given, and what is not is NULL. */
static void
describe_row(StringInfo schema, Oid type, bool nullable, int depth)
{
	TupleDesc desc = lookup_rowtype_tupdesc(type, -1);
	bool first = true;

	describe_word(schema, "object", nullable);
	appendStringInfoString(schema, ",\"properties\":{");
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (attribute->attisdropped)
			continue;
		if (!first)
			appendStringInfoChar(schema, ',');
		first = false;
		escape_json(schema, NameStr(attribute->attname));
		appendStringInfoChar(schema, ':');
		describe(schema, attribute->atttypid, true, depth + 1);
	}
	appendStringInfoString(schema, "},\"additionalProperties\":false");
	ReleaseTupleDesc(desc);
}

static bool
describe_known(StringInfo schema, Oid type, bool nullable)
{
	for (int i = 0; i < lengthof(known_types); i++)
	{
		if (known_types[i].type != type)
			continue;
		describe_word(schema, known_types[i].word, nullable);
		appendStringInfoString(schema, known_types[i].more);
		return true;
	}
	return false;
}

/* A type of arguments, as a schema; what JSON cannot say is given as text. */
static void
describe(StringInfo schema, Oid type, bool nullable, int depth)
{
	Oid base = getBaseType(type);
	Oid element = get_element_type(base);

	if (depth > MAX_DEPTH)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("type %s is nested too deeply",
							   format_type_be(type)),
						errdetail("The limit is %d levels.", MAX_DEPTH)));
	appendStringInfoChar(schema, '{');
	if (base == JSONOID || base == JSONBOID)
		;
	else if (describe_known(schema, base, nullable))
		;
	else if (OidIsValid(element))
	{
		describe_word(schema, "array", nullable);
		appendStringInfoString(schema, ",\"items\":");
		describe(schema, element, true, depth + 1);
	}
	else if (type_is_enum(base))
		describe_enum(schema, base, nullable);
	else if (type_is_rowtype(base) && get_typtype(base) != TYPTYPE_PSEUDO)
		describe_row(schema, base, nullable, depth);
	else if (get_typtype(base) == TYPTYPE_PSEUDO)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("an argument of type %s cannot be given in JSON",
						format_type_be(type)),
				 errhint("Write a function whose arguments have types of their own.")));
	else
		describe_word(schema, "string", nullable);
	appendStringInfoChar(schema, '}');
}

/* An unnamed one, which is arg1, and one that is named so. */
static void
check_names(const Parameters *parameters)
{
	for (int i = 0; i < parameters->n; i++)
		for (int k = 0; k < i; k++)
			if (strcmp(parameters->list[i].name, parameters->list[k].name) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("two arguments would be named \"%s\"",
								parameters->list[i].name),
						 errhint("Write a function whose arguments have names.")));
}

/* Can its result be told to a model? */
static void
check_callable(Oid function, Form_pg_proc form)
{
	char type = get_typtype(form->prorettype);

	if (form->prokind != PROKIND_FUNCTION)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("%s is not a plain function",
							   format_procedure(function)),
						errhint("Procedures, aggregates and window functions cannot be tools.")));
	if (form->prorettype != VOIDOID && type == TYPTYPE_PSEUDO &&
		!OidIsValid(get_element_type(form->prorettype)) &&
		(form->prorettype != RECORDOID ||
		 get_func_result_type(function, NULL, NULL) != TYPEFUNC_COMPOSITE))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("the result of function %s has no type of its own",
							   format_procedure(function)),
						errdetail("It returns %s.",
								  format_type_be(form->prorettype))));
}

char *
prom_signature_schema(Oid function)
{
	HeapTuple tuple = find_function(function);
	Parameters parameters;
	StringInfoData schema;
	bool first = true;

	check_callable(function, (Form_pg_proc) GETSTRUCT(tuple));
	parameters = read_parameters(tuple);
	check_names(&parameters);
	initStringInfo(&schema);
	appendStringInfoString(&schema, "{\"type\":\"object\",\"properties\":{");
	for (int i = 0; i < parameters.n; i++)
	{
		if (i > 0)
			appendStringInfoChar(&schema, ',');
		escape_json(&schema, parameters.list[i].name);
		appendStringInfoChar(&schema, ':');
		describe(&schema, parameters.list[i].type,
				 parameters.list[i].has_default, 0);
	}
	appendStringInfoString(&schema, "},\"required\":[");
	for (int i = 0; i < parameters.n; i++)
	{
		if (parameters.list[i].has_default)
			continue;
		if (!first)
			appendStringInfoChar(&schema, ',');
		first = false;
		escape_json(&schema, parameters.list[i].name);
	}
	appendStringInfoString(&schema, "],\"additionalProperties\":false}");
	ReleaseSysCache(tuple);
	return schema.data;
}


/* The call. */

/* Is there a member of this name that is not null? */
static bool
is_given(Jsonb *arguments, const char *name)
{
	JsonbValue *value;

	if (arguments == NULL)
		return false;
	value = getKeyJsonValueFromContainer(&arguments->root, name, strlen(name),
										 NULL);
	return value != NULL && value->type != jbvNull;
}

static char *
type_text(Oid type)
{
	/* With a modifier that says none: char is not char(1) here. */
	return format_type_extended(type, -1,
								FORMAT_TYPE_TYPEMOD_GIVEN |
									FORMAT_TYPE_FORCE_QUALIFY);
}

/* The default of an argument, as an expression. */
static char *
default_of(Oid function, const Parameter *parameter)
{
	return TextDatumGetCString(
		DirectFunctionCall2(pg_get_function_arg_default,
							ObjectIdGetDatum(function),
							Int32GetDatum(parameter->number)));
}

/* Append the arguments: columns of x, defaults, NULLs. */
static void
append_arguments(StringInfo sql, Oid function, const Parameters *parameters,
				 Jsonb *arguments)
{
	for (int i = 0; i < parameters->n; i++)
	{
		const Parameter *parameter = &parameters->list[i];
		const char *value = "NULL";

		if (is_given(arguments, parameter->name))
			value = psprintf("x.%s", quote_identifier(parameter->name));
		else if (parameter->has_default)
			value = psprintf("(%s)", default_of(function, parameter));
		appendStringInfo(sql, "%s%s%s::%s", i > 0 ? ", " : "",
						 parameter->is_variadic ? "VARIADIC " : "", value,
						 type_text(parameter->type));
	}
}

/* Append the arguments that are given, as a row x of their types. */
static void
append_row(StringInfo sql, const Parameters *parameters, Jsonb *arguments)
{
	bool first = true;

	for (int i = 0; i < parameters->n; i++)
	{
		if (!is_given(arguments, parameters->list[i].name))
			continue;
		appendStringInfo(sql, "%s%s %s",
						 first ? "pg_catalog.jsonb_to_record($1) AS x(" : ", ",
						 quote_identifier(parameters->list[i].name),
						 type_text(parameters->list[i].type));
		first = false;
	}
	appendStringInfoString(sql, first ? "(SELECT) AS x" : ")");
}

char *
prom_signature_call(Oid function, Jsonb *arguments)
{
	HeapTuple tuple = find_function(function);
	Form_pg_proc form = (Form_pg_proc) GETSTRUCT(tuple);
	Parameters parameters = read_parameters(tuple);
	StringInfoData call;
	StringInfoData sql;

	initStringInfo(&call);
	appendStringInfo(&call, "%s(",
					 quote_qualified_identifier(
						 get_namespace_name(form->pronamespace),
						 NameStr(form->proname)));
	append_arguments(&call, function, &parameters, arguments);
	appendStringInfoChar(&call, ')');
	initStringInfo(&sql);
	if (form->proretset)
	{
		bool is_scalar = get_func_result_type(function, NULL, NULL) ==
						 TYPEFUNC_SCALAR;

		/* Qualified, or a column of the result could have the same name. */
		appendStringInfo(&sql, "SELECT pg_catalog.to_jsonb(%s) FROM ",
						 is_scalar ? "r.v" : "r.*");
		append_row(&sql, &parameters, arguments);
		appendStringInfo(&sql, ", LATERAL %s AS r%s", call.data,
						 is_scalar ? "(v)" : "");
	}
	else if (form->prorettype == VOIDOID)
	{
		appendStringInfo(&sql, "SELECT NULL::pg_catalog.jsonb, %s FROM ",
						 call.data);
		append_row(&sql, &parameters, arguments);
	}
	else
	{
		appendStringInfo(&sql, "SELECT pg_catalog.to_jsonb(%s) FROM ",
						 call.data);
		append_row(&sql, &parameters, arguments);
	}
	ReleaseSysCache(tuple);
	return sql.data;
}
