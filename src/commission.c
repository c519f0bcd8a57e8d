/*
 * commission.c
 *	  A tool that a model is to write: what it must do, and how it is tried.
 *
 * What was asked for is a column of the task's row.  Names and kinds of
 * arguments and result are those of the examples, of which some are held back:
 * a function that has the others written into it fails with these.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/varlena.h"

#include "commission.h"
#include "compat.h"
#include "integrity.h"
#include "task.h"
#include "vocabulary.h"
#include "xact.h"

const PromTool *
prom_commission_tool(void)
{
	static const PromTool tool = {
		.name = PROM_COMMISSION_TOOL,
		.version = 1,
		.is_builtin = true,
		.function = PROM_COMMISSION_TOOL,
		.search_path = "pg_catalog, pg_temp",
		.hash = "builtin",
		.description = "Makes a tool of a function.",
		.schema = "{}",
		.tier = PROM_TIER_WRITE,
	};

	return &tool;
}


/* Values and types. */

static PromValueKind
kind_of(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			return PROM_VALUE_UNKNOWN;
		case jbvBool:
			return PROM_VALUE_BOOLEAN;
		case jbvString:
			return PROM_VALUE_TEXT;
		case jbvNumeric:
		{
			Datum number = NumericGetDatum(value->val.numeric);
			Datum whole = DirectFunctionCall2(numeric_trunc, number,
											  Int32GetDatum(0));

			return DatumGetBool(DirectFunctionCall2(numeric_eq, number, whole))
					   ? PROM_VALUE_INTEGER
					   : PROM_VALUE_NUMBER;
		}
		case jbvBinary:
			return JsonContainerIsArray(value->val.binary.data)
					   ? PROM_VALUE_ARRAY
					   : PROM_VALUE_ANY;
		default:
			return PROM_VALUE_ANY;
	}
}

static PromValueKind
kind_of_document(Jsonb *document)
{
	JsonbValue value;

	if (JB_ROOT_IS_SCALAR(document))
		(void) JsonbExtractScalar(&document->root, &value);
	else
	{
		value.type = jbvBinary;
		value.val.binary.data = &document->root;
	}
	return kind_of(&value);
}

/* A kind that has the values of both. */
static PromValueKind
join_kinds(PromValueKind a, PromValueKind b)
{
	if (a == b || b == PROM_VALUE_UNKNOWN)
		return a;
	if (a == PROM_VALUE_UNKNOWN)
		return b;
	if ((a == PROM_VALUE_INTEGER && b == PROM_VALUE_NUMBER) ||
		(a == PROM_VALUE_NUMBER && b == PROM_VALUE_INTEGER))
		return PROM_VALUE_NUMBER;
	return PROM_VALUE_ANY;
}

static bool
is_one_of(Oid type, const Oid *types)
{
	for (; OidIsValid(*types); types++)
		if (*types == type)
			return true;
	return false;
}

bool
prom_commission_fits(const PromWanted *wanted, Oid type)
{
	static const Oid integers[] = {INT2OID, INT4OID, INT8OID, NUMERICOID,
								   FLOAT8OID, InvalidOid};
	static const Oid numbers[] = {NUMERICOID, FLOAT4OID, FLOAT8OID,
								  InvalidOid};
	static const Oid texts[] = {TEXTOID, VARCHAROID, DATEOID, TIMEOID,
								TIMESTAMPOID, TIMESTAMPTZOID, INTERVALOID,
								UUIDOID, INETOID, InvalidOid};
	static const Oid documents[] = {JSONBOID, JSONOID, InvalidOid};

	if (OidIsValid(wanted->type))
		return type == wanted->type;
	switch (wanted->kind)
	{
		case PROM_VALUE_UNKNOWN:
			return prom_vocabulary_has_type(type);
		case PROM_VALUE_BOOLEAN:
			return type == BOOLOID;
		case PROM_VALUE_INTEGER:
			return is_one_of(type, integers);
		case PROM_VALUE_NUMBER:
			return is_one_of(type, numbers);
		case PROM_VALUE_TEXT:
			return is_one_of(type, texts);
		case PROM_VALUE_ARRAY:
			return is_one_of(type, documents) ||
				   (OidIsValid(get_element_type(type)) &&
					prom_vocabulary_has_type(type));
		case PROM_VALUE_ANY:
			return is_one_of(type, documents);
	}
	return false;
}

Oid
prom_commission_type(const PromWanted *wanted)
{
	if (OidIsValid(wanted->type))
		return wanted->type;
	switch (wanted->kind)
	{
		case PROM_VALUE_BOOLEAN:
			return BOOLOID;
		case PROM_VALUE_INTEGER:
			return INT8OID;
		case PROM_VALUE_NUMBER:
			return NUMERICOID;
		case PROM_VALUE_TEXT:
			return TEXTOID;
		case PROM_VALUE_UNKNOWN:
		case PROM_VALUE_ARRAY:
		case PROM_VALUE_ANY:
			break;
	}
	return JSONBOID;
}


/* Reading what a task's row has; factory.c has checked it. */

static JsonbValue *
member(JsonbContainer *object, const char *name, JsonbValue *into)
{
	return getKeyJsonValueFromContainer(object, name, strlen(name), into);
}

static char *
member_text(JsonbContainer *object, const char *name)
{
	JsonbValue value;

	if (member(object, name, &value) == NULL || value.type != jbvString)
		return NULL;
	return pnstrdup(value.val.string.val, value.val.string.len);
}

static bool
member_bool(JsonbContainer *object, const char *name)
{
	JsonbValue value;

	return member(object, name, &value) != NULL && value.type == jbvBool &&
		   value.val.boolean;
}

/* A type that was asked for by its name; it is one of PostgreSQL's own. */
static Oid
read_type(const char *name)
{
	Oid type;

	if (name == NULL)
		return InvalidOid;
	type = DatumGetObjectId(
		DirectFunctionCall1(regtypein, CStringGetDatum(name)));
	if (!prom_vocabulary_has_type(type) || type == UNKNOWNOID ||
		type == RECORDOID)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("type %s cannot be asked for", name),
				 errhint("Numbers, texts, times, JSON, uuid, ranges and arrays of them can.")));
	return type;
}

/* The arguments are those of the first example, in its order. */
static void
read_wanted(PromCommission *commission, JsonbContainer *options)
{
	JsonbIterator *iterator = JsonbIteratorInit(
		&commission->examples[0].input->root);
	JsonbIteratorToken token;
	JsonbValue key;
	JsonbValue value;
	JsonbValue types;
	bool has_types = member(options, "arguments", &types) != NULL;

	commission->wanted = palloc0(PROM_MAX_WANTED * sizeof(PromWanted));
	while ((token = JsonbIteratorNext(&iterator, &key, true)) != WJB_DONE)
	{
		PromWanted *wanted = &commission->wanted[commission->nwanted];

		if (token != WJB_KEY)
			continue;
		commission->nwanted++;
		wanted->name = pnstrdup(key.val.string.val, key.val.string.len);
		if (has_types)
			wanted->type = read_type(
				member_text(types.val.binary.data, wanted->name));
		for (int i = 0; i < commission->nexamples; i++)
			if (member(&commission->examples[i].input->root, wanted->name,
					   &value) != NULL)
				wanted->kind = join_kinds(wanted->kind, kind_of(&value));
	}
	for (int i = 0; i < commission->nexamples; i++)
		commission->result.kind = join_kinds(
			commission->result.kind,
			kind_of_document(commission->examples[i].output));
	commission->result.type = read_type(member_text(options, "returns"));
}

/* As many as are held back, evenly among the others, and the first is not. */
static void
hold_back(PromCommission *commission, JsonbContainer *options)
{
	int n = commission->nexamples;
	int held = n / 3;
	JsonbValue value;

	if (member(options, "held_back", &value) != NULL)
		held = DatumGetInt32(DirectFunctionCall1(
			numeric_int4, NumericGetDatum(value.val.numeric)));
	for (int i = 0; i < n; i++)
		commission->examples[i].held_back = (i + 1) * held / n != i * held / n;
}

static void
read_examples(PromCommission *commission, JsonbContainer *examples)
{
	int n = JsonContainerSize(examples);

	commission->nexamples = n;
	commission->examples = palloc0(n * sizeof(PromExample));
	for (int i = 0; i < n; i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(examples, i);
		JsonbContainer *example = element->val.binary.data;
		JsonbValue value;

		commission->examples[i].input =
			JsonbValueToJsonb(member(example, "input", &value));
		commission->examples[i].output =
			JsonbValueToJsonb(member(example, "output", &value));
	}
}

static void
read_relations(PromCommission *commission, JsonbContainer *options)
{
	JsonbValue list;
	int n;

	if (member(options, "relations", &list) == NULL)
		return;
	n = JsonContainerSize(list.val.binary.data);
	for (int i = 0; i < n; i++)
	{
		JsonbValue *name = getIthJsonbValueFromContainer(list.val.binary.data,
														 i);

		commission->relations = lappend(
			commission->relations,
			pnstrdup(name->val.string.val, name->val.string.len));
	}
}

PromCommission *
prom_commission_read(Jsonb *document)
{
	PromCommission *commission = palloc0(sizeof(PromCommission));
	JsonbContainer *options;
	JsonbValue value;

	commission->description = member_text(&document->root, "description");
	(void) member(&document->root, "examples", &value);
	read_examples(commission, value.val.binary.data);
	(void) member(&document->root, "options", &value);
	options = value.val.binary.data;
	commission->name = member_text(options, "name");
	commission->allows_volatile = member_bool(options, "volatile");
	commission->assigns = member_bool(options, "assign");
	read_wanted(commission, options);
	hold_back(commission, options);
	read_relations(commission, options);
	return commission;
}

static PromStatement find_statement = {
	"SELECT t.commission FROM prometheus._task t"
	" WHERE t.task_id OPERATOR(pg_catalog.=) $1",
	1,
	{INT8OID},
	NULL,
};

PromCommission *
prom_commission_find(int64 task_id)
{
	Datum value = Int64GetDatum(task_id);
	Jsonb *document;

	prom_statement_run(&find_statement, &value, NULL, true);
	document = SPI_processed == 0 ? NULL : prom_row_jsonb_or_null(0, 1);
	SPI_freetuptable(SPI_tuptable);
	return document == NULL ? NULL : prom_commission_read(document);
}

List *
prom_commission_relations(const PromCommission *commission, Oid role)
{
	List *oids = NIL;
	ListCell *cell;

	foreach(cell, commission->relations)
	{
		const char *name = lfirst(cell);
		List *names = textToQualifiedNameList(cstring_to_text(name));
		Oid namespace = InvalidOid;
		Oid relation = InvalidOid;

		if (list_length(names) != 2 ||
			strncmp(strVal(linitial(names)), "pg_", 3) == 0 ||
			prom_integrity_is_system(strVal(linitial(names))))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" cannot be a relation that a tool reads", name),
					 errhint("Give SCHEMA.NAME of a table or view of the application's.")));
		namespace = get_namespace_oid(strVal(linitial(names)), true);
		if (OidIsValid(namespace))
			relation = get_relname_relid(strVal(lsecond(names)), namespace);
		if (!OidIsValid(relation))
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
							errmsg("relation \"%s\" does not exist", name)));
		if (pg_class_aclcheck(relation, role, ACL_SELECT) != ACLCHECK_OK)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied for relation \"%s\"", name),
					 errdetail("Who asks for the tool must be allowed to read it.")));
		prom_vocabulary_check_columns(relation);
		oids = lappend_oid(oids, relation);
	}
	return oids;
}


/* What is asked, and what is answered. */

static void
add_signature(StringInfo text, const PromCommission *commission)
{
	appendStringInfo(text, "CREATE FUNCTION %s(",
					 commission->name != NULL
						 ? quote_identifier(commission->name)
						 : "a_name_of_your_choice");
	for (int i = 0; i < commission->nwanted; i++)
		appendStringInfo(text, "%s%s %s", i > 0 ? ", " : "",
						 quote_identifier(commission->wanted[i].name),
						 format_type_be(
							 prom_commission_type(&commission->wanted[i])));
	appendStringInfo(text, ") RETURNS %s",
					 format_type_be(prom_commission_type(&commission->result)));
}

static bool
add_examples(StringInfo text, const PromCommission *commission)
{
	bool held_back = false;

	for (int i = 0; i < commission->nexamples; i++)
	{
		const PromExample *example = &commission->examples[i];

		held_back |= example->held_back;
		if (example->held_back)
			continue;
		appendStringInfoString(text, "\n- ");
		(void) JsonbToCString(text, &example->input->root,
							  VARSIZE(example->input));
		appendStringInfoString(text, " gives ");
		(void) JsonbToCString(text, &example->output->root,
							  VARSIZE(example->output));
	}
	return held_back;
}

const char *
prom_commission_request(const PromCommission *commission)
{
	StringInfoData text;
	ListCell *cell;

	initStringInfo(&text);
	appendStringInfo(&text, "Write a function in SQL for PostgreSQL %d that does this:\n\n%s\n\nIt begins so:\n\n",
					 PG_VERSION_NUM / 10000, commission->description);
	add_signature(&text, commission);
	appendStringInfoString(&text, "\n\nExamples, by its arguments:\n");
	if (add_examples(&text, commission))
		appendStringInfoString(&text, "\n\nThere are others, which you are not shown, and it is tried with all of them: do what is asked, and do not write the examples into it.");
	appendStringInfo(&text, "\n\nAnswer with the CREATE FUNCTION statement and nothing else. It is not run but read first, and only this is accepted:\n"
							"- LANGUAGE sql, %s, and a body that is RETURN with an expression, or BEGIN ATOMIC with SELECT statements and END;\n"
							"- no OR REPLACE, SECURITY DEFINER, SET, COST, defaults or other clauses;\n"
							"- functions and operators that PostgreSQL has for numbers, texts, times, arrays, JSON, ranges and aggregates, and types of these;\n",
					 commission->allows_volatile
						 ? "IMMUTABLE, STABLE or VOLATILE"
						 : "IMMUTABLE or STABLE");
	if (commission->relations == NIL)
		appendStringInfoString(&text, "- no table, view, or catalogue.");
	else
	{
		const char *before = "- no table, view, or catalogue but ";

		foreach(cell, commission->relations)
		{
			appendStringInfo(&text, "%s%s", before, (char *) lfirst(cell));
			before = ", ";
		}
		appendStringInfoString(&text, " (with the schema before the name).");
	}
	return text.data;
}

const char *
prom_commission_statement(const char *answer)
{
	const char *fence = strstr(answer, "```");
	const char *begin;
	const char *end;

	if (fence == NULL)
		return answer;
	/* What is on the line of the fence names the language. */
	begin = strchr(fence, '\n');
	if (begin == NULL)
		return answer;
	begin++;
	end = strstr(begin, "```");
	return end == NULL ? begin : pnstrdup(begin, end - begin);
}

const char *
prom_commission_arguments(const char *statement)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoString(&json, "{\"statement\": ");
	escape_json(&json, statement);
	appendStringInfoChar(&json, '}');
	return json.data;
}
