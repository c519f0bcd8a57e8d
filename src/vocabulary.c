/*
 * vocabulary.c
 *	  What the body of a function may use that a model wrote.
 *
 * The body is looked at when PostgreSQL has parsed and analyzed it: then
 * comments, quotes, search_path and operators' names hide nothing, and what a
 * cast or an aggregate calls is there.  All of it is by lists of what may be:
 * of kinds of nodes, types, functions and relations.  What is not known here
 * is forbidden, also what a later PostgreSQL brings.
 *
 * - Statements: SELECT, and those within it, also recursive ones.
 * - Types: numbers, texts, times, JSON, uuid, bits, addresses, ranges, and
 *	 arrays of them.  There is none that reads a catalogue when it is converted
 *	 from a text (regclass), that is code (regproc), or that another role made.
 * - Functions by name: arithmetic, text, time, arrays, JSON, ranges, and
 *	 aggregates; operators and casts between those types.  Each must come with
 *	 PostgreSQL, and not be volatile.
 * - Relations: none, but for those that were named when the tool was asked for.
 *
 * What only takes long, or much memory (generate_series, repeat, a regular
 * expression, recursion), is allowed: it is stopped as any tool is (guard.c).
 * But translate is not: it looks for no interrupt while it is at one very long
 * text, and would keep the executor until it ends.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_cast.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "nodes/primnodes.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "compat.h"
#include "vocabulary.h"

/* In the order of strcmp(): each is looked for by halves. */
static const char *const functions[] = {
	"abbrev", "abs", "acos", "acosd", "acosh", "age", "any_value",
	"array_agg", "array_append", "array_cat", "array_dims", "array_fill",
	"array_length", "array_lower", "array_ndims", "array_position",
	"array_positions", "array_prepend", "array_remove", "array_replace",
	"array_reverse", "array_sort", "array_to_json", "array_to_string",
	"array_upper", "ascii", "asin", "asind", "asinh", "atan", "atan2",
	"atan2d", "atand", "atanh", "avg", "bit_and", "bit_count", "bit_length",
	"bit_or", "bit_xor", "bool_and", "bool_or", "broadcast", "btrim",
	"cardinality", "cbrt", "ceil", "ceiling", "char_length",
	"character_length", "chr", "concat", "concat_ws", "corr", "cos", "cosd",
	"cosh", "cot", "cotd", "count", "covar_pop", "covar_samp", "cume_dist",
	"date_add", "date_bin", "date_part", "date_subtract", "date_trunc",
	"datemultirange", "daterange", "decode", "degrees", "dense_rank", "div",
	"encode", "erf", "erfc", "every", "exp", "extract", "factorial", "family",
	"first_value", "floor", "format", "gcd", "generate_series",
	"generate_subscripts", "get_bit", "get_byte", "host", "hostmask",
	"inet_merge", "inet_same_family", "initcap", "int4multirange",
	"int4range", "int8multirange", "int8range", "is_normalized", "isempty",
	"isfinite", "json_agg", "json_array_elements", "json_array_elements_text",
	"json_array_length", "json_build_array", "json_build_object", "json_each",
	"json_each_text", "json_extract_path", "json_extract_path_text",
	"json_object", "json_object_agg", "json_object_keys", "json_strip_nulls",
	"json_typeof", "jsonb_agg", "jsonb_array_elements",
	"jsonb_array_elements_text", "jsonb_array_length", "jsonb_build_array",
	"jsonb_build_object", "jsonb_each", "jsonb_each_text",
	"jsonb_extract_path", "jsonb_extract_path_text", "jsonb_insert",
	"jsonb_object", "jsonb_object_agg", "jsonb_object_keys",
	"jsonb_path_exists", "jsonb_path_exists_tz", "jsonb_path_match",
	"jsonb_path_match_tz", "jsonb_path_query", "jsonb_path_query_array",
	"jsonb_path_query_array_tz", "jsonb_path_query_first",
	"jsonb_path_query_first_tz", "jsonb_path_query_tz", "jsonb_pretty",
	"jsonb_set", "jsonb_set_lax", "jsonb_strip_nulls", "jsonb_typeof",
	"justify_days", "justify_hours", "justify_interval", "lag", "last_value",
	"lcm", "lead", "left", "length", "like_escape", "ln", "log", "log10",
	"lower", "lower_inc", "lower_inf", "lpad", "ltrim", "make_date",
	"make_interval", "make_time", "make_timestamp", "make_timestamptz",
	"masklen", "max", "md5", "min", "min_scale", "mod", "mode", "multirange",
	"netmask", "network", "normalize", "now", "nth_value", "ntile",
	"num_nonnulls", "num_nulls", "nummultirange", "numrange", "octet_length",
	"overlaps", "overlay", "percent_rank", "percentile_cont",
	"percentile_disc", "pi", "position", "pow", "power", "quote_ident",
	"quote_literal", "quote_nullable", "radians", "range_agg",
	"range_intersect_agg", "range_merge", "rank", "regexp_count",
	"regexp_instr", "regexp_like", "regexp_match", "regexp_matches",
	"regexp_replace", "regexp_split_to_array", "regexp_split_to_table",
	"regexp_substr", "regr_avgx", "regr_avgy", "regr_count", "regr_intercept",
	"regr_r2", "regr_slope", "regr_sxx", "regr_sxy", "regr_syy", "repeat",
	"replace", "reverse", "right", "round", "row_number", "row_to_json",
	"rpad", "rtrim", "scale", "set_bit", "set_byte", "set_masklen", "sha224",
	"sha256", "sha384", "sha512", "sign", "similar_to_escape", "sin", "sind",
	"sinh", "split_part", "sqrt", "starts_with", "statement_timestamp",
	"stddev", "stddev_pop", "stddev_samp", "string_agg", "string_to_array",
	"string_to_table", "strpos", "substr", "substring", "sum", "tan", "tand",
	"tanh", "text", "timezone", "to_bin", "to_char", "to_date", "to_hex",
	"to_json", "to_jsonb", "to_number", "to_oct", "to_timestamp",
	"transaction_timestamp", "trim_array", "trim_scale", "trunc",
	"tsmultirange", "tsrange", "tstzmultirange", "tstzrange", "unistr",
	"unnest", "upper", "upper_inc", "upper_inf", "uuid_extract_timestamp",
	"uuid_extract_version", "var_pop", "var_samp", "variance", "width_bucket"};

/* They are volatile, and allowed where such are. */
static const char *const volatile_functions[] = {
	"array_sample", "array_shuffle", "clock_timestamp", "gen_random_uuid",
	"random", "timeofday", "uuidv4", "uuidv7"};

static const Oid types[] = {
	BOOLOID, INT2OID, INT4OID, INT8OID, FLOAT4OID, FLOAT8OID, NUMERICOID,
	TEXTOID, VARCHAROID, BPCHAROID, BYTEAOID, BITOID, VARBITOID, DATEOID,
	TIMEOID, TIMETZOID, TIMESTAMPOID, TIMESTAMPTZOID, INTERVALOID, JSONOID,
	JSONBOID, JSONPATHOID, UUIDOID, INETOID, CIDROID, MACADDROID,
	INT4RANGEOID, INT8RANGEOID, NUMRANGEOID, TSRANGEOID, TSTZRANGEOID,
	DATERANGEOID, INT4MULTIRANGEOID, INT8MULTIRANGEOID, NUMMULTIRANGEOID,
	TSMULTIRANGEOID, TSTZMULTIRANGEOID, DATEMULTIRANGEOID,

	/* A literal that nothing gives a type; a row of the others. */
	UNKNOWNOID, RECORDOID};

void
prom_vocabulary_forbid(const char *kind, const char *what)
{
	ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					errmsg("forbidden %s: %s", kind, what)));
}

bool
prom_vocabulary_has_type(Oid type)
{
	Oid element = get_element_type(type);

	if (OidIsValid(element))
		type = element;
	for (int i = 0; i < lengthof(types); i++)
		if (types[i] == type)
			return true;
	return false;
}

static void
check_type(Oid type)
{
	if (!prom_vocabulary_has_type(type))
		prom_vocabulary_forbid("type", format_type_be(type));
}

/*
 * Is a text converted to it without code of others?  To a base type by a
 * function in C, which only superusers make.  A domain has conditions; in an
 * array, a row or a range it has them, too.
 */
static bool
is_plain(Oid type)
{
	Oid element = get_element_type(type);
	char kind = get_typtype(OidIsValid(element) ? element : type);

	return prom_vocabulary_has_type(type) || kind == TYPTYPE_BASE ||
		   kind == TYPTYPE_ENUM;
}

void
prom_vocabulary_check_columns(Oid relation)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	AttrNumber n;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relation);
	n = ((Form_pg_class) GETSTRUCT(tuple))->relnatts;
	ReleaseSysCache(tuple);
	for (AttrNumber i = 1; i <= n; i++)
	{
		/* Invalid: it was dropped. */
		Oid type = get_atttype(relation, i);

		if (!OidIsValid(type) || is_plain(type))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("relation \"%s.%s\" has a column of type %s, which a tool cannot read",
						get_namespace_name(get_rel_namespace(relation)),
						get_rel_name(relation), format_type_be(type)),
				 errdetail("Conditions of a domain would be run before the function is known to be allowed."),
				 errhint("Give a view of it that has the column as another type, or not at all.")));
	}
}

/* What initdb made, and nobody since. */
static bool
is_built_in(Oid oid)
{
	return oid < FirstUnpinnedObjectId;
}

static bool
is_named(const char *name)
{
	int low = 0;
	int high = lengthof(functions) - 1;

	while (low <= high)
	{
		int middle = (low + high) / 2;
		int order = strcmp(name, functions[middle]);

		if (order == 0)
			return true;
		if (order < 0)
			high = middle - 1;
		else
			low = middle + 1;
	}
	return false;
}

static bool
is_volatile_one(const char *name)
{
	for (int i = 0; i < lengthof(volatile_functions); i++)
		if (strcmp(volatile_functions[i], name) == 0)
			return true;
	return false;
}

bool
prom_vocabulary_has_name(const char *name)
{
	return is_named(name) || is_volatile_one(name) ||
		   prom_vocabulary_has_type(
			   GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
							   CStringGetDatum(name),
							   ObjectIdGetDatum(PG_CATALOG_NAMESPACE)));
}

/* A function, which must be in the lists if by_name. */
static void
check_function(const PromVocabulary *vocabulary, Oid function, bool by_name)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc form;
	const char *name;
	bool allowed;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	form = (Form_pg_proc) GETSTRUCT(tuple);
	name = NameStr(form->proname);
	allowed = is_built_in(function) &&
			  form->pronamespace == PG_CATALOG_NAMESPACE && !form->prosecdef;
	if (form->provolatile == PROVOLATILE_VOLATILE)
		allowed = allowed && vocabulary->allows_volatile &&
				  is_volatile_one(name);
	else if (by_name)
		allowed = allowed && is_named(name);
	if (!allowed)
		prom_vocabulary_forbid("function",
							   form->pronamespace == PG_CATALOG_NAMESPACE
								   ? name
								   : quote_qualified_identifier(
										 get_namespace_name(
											 form->pronamespace),
										 name));
	ReleaseSysCache(tuple);
}

static void
check_operator(const PromVocabulary *vocabulary, Oid operator)
{
	HeapTuple tuple;
	Form_pg_operator form;

	/* None: a sort or a group that is not by one. */
	if (!OidIsValid(operator))
		return;
	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	if (!is_built_in(operator) || form->oprnamespace != PG_CATALOG_NAMESPACE)
		prom_vocabulary_forbid(
			"operator", psprintf("%s.%s",
								 get_namespace_name(form->oprnamespace),
								 NameStr(form->oprname)));
	check_function(vocabulary, form->oprcode, false);
	ReleaseSysCache(tuple);
}

/* Is it what PostgreSQL converts such a value with? */
static bool
is_cast(const FuncExpr *call)
{
	Oid source;
	HeapTuple tuple;
	bool found;

	if ((call->funcformat != COERCE_EXPLICIT_CAST &&
		 call->funcformat != COERCE_IMPLICIT_CAST) ||
		call->args == NIL)
		return false;
	source = exprType(linitial(call->args));
	/* To a length, or a precision. */
	if (source == call->funcresulttype)
		return list_length(call->args) > 1;
	tuple = SearchSysCache2(CASTSOURCETARGET, ObjectIdGetDatum(source),
							ObjectIdGetDatum(call->funcresulttype));
	if (!HeapTupleIsValid(tuple))
		return false;
	found = ((Form_pg_cast) GETSTRUCT(tuple))->castfunc == call->funcid;
	ReleaseSysCache(tuple);
	return found;
}

static const char *
value_name(SQLValueFunctionOp op)
{
	switch (op)
	{
		case SVFOP_CURRENT_ROLE:
			return "current_role";
		case SVFOP_CURRENT_USER:
			return "current_user";
		case SVFOP_USER:
			return "user";
		case SVFOP_SESSION_USER:
			return "session_user";
		case SVFOP_CURRENT_CATALOG:
			return "current_catalog";
		case SVFOP_CURRENT_SCHEMA:
			return "current_schema";
		default:
			return NULL;
	}
}

static void
check_value(const SQLValueFunction *value)
{
	if (value_name(value->op) != NULL)
		prom_vocabulary_forbid("function", value_name(value->op));
}


/* Queries. */

static bool walk(Node *node, void *arg);

static void
check_relation(const PromVocabulary *vocabulary, Oid relation)
{
	if (!list_member_oid(vocabulary->relations, relation))
		prom_vocabulary_forbid(
			"relation",
			quote_qualified_identifier(
				get_namespace_name(get_rel_namespace(relation)),
				get_rel_name(relation)));
}

static void
check_range(const PromVocabulary *vocabulary, const RangeTblEntry *entry)
{
	switch (entry->rtekind)
	{
		case RTE_RELATION:
			check_relation(vocabulary, entry->relid);
			if (entry->tablesample != NULL)
				prom_vocabulary_forbid("clause", "TABLESAMPLE");
			break;
		case RTE_TABLEFUNC:
			prom_vocabulary_forbid("expression", "XMLTABLE or JSON_TABLE");
			break;
		case RTE_NAMEDTUPLESTORE:
			prom_vocabulary_forbid("relation", entry->enrname);
			break;
		case RTE_SUBQUERY:
		case RTE_JOIN:
		case RTE_FUNCTION:
		case RTE_VALUES:
		case RTE_CTE:
		case RTE_RESULT:
			break;
		default:
			/* Of a group: expressions, which are walked. */
			if (!prom_range_is_group(entry))
				prom_vocabulary_forbid("expression", "of an unknown kind");
	}
}

static const char *
command_name(const Query *query)
{
	switch (query->commandType)
	{
		case CMD_INSERT:
			return "INSERT";
		case CMD_UPDATE:
			return "UPDATE";
		case CMD_DELETE:
			return "DELETE";
		case CMD_MERGE:
			return "MERGE";
		case CMD_UTILITY:
			return GetCommandTagName(CreateCommandTag(query->utilityStmt));
		default:
			return "unknown";
	}
}

static void
check_query(const PromVocabulary *vocabulary, Query *query)
{
	ListCell *cell;

	if (query->commandType != CMD_SELECT || query->utilityStmt != NULL ||
		query->resultRelation != 0)
		prom_vocabulary_forbid("statement", command_name(query));
	if (query->hasModifyingCTE)
		prom_vocabulary_forbid("statement", "one in WITH that writes");
	if (query->rowMarks != NIL || query->hasForUpdate)
		prom_vocabulary_forbid("clause", "FOR UPDATE or FOR SHARE");
	/* Before its expressions: those of a relation are worth no word. */
	foreach(cell, query->rtable)
		check_range(vocabulary, lfirst_node(RangeTblEntry, cell));
	(void) query_tree_walker(query, walk, (void *) vocabulary,
							 QTW_EXAMINE_SORTGROUP);
}

/* The parts of a query, beside its expressions; false: it is none of them. */
static bool
check_part(const PromVocabulary *vocabulary, Node *node)
{
	switch (nodeTag(node))
	{
		case T_SortGroupClause:
			check_operator(vocabulary, ((SortGroupClause *) node)->eqop);
			check_operator(vocabulary, ((SortGroupClause *) node)->sortop);
			return true;
		case T_WindowClause:
		{
			const WindowClause *window = (WindowClause *) node;

			if (OidIsValid(window->startInRangeFunc))
				check_function(vocabulary, window->startInRangeFunc, false);
			if (OidIsValid(window->endInRangeFunc))
				check_function(vocabulary, window->endInRangeFunc, false);
			return true;
		}
		case T_CommonTableExpr:
		case T_CTESearchClause:
		case T_CTECycleClause:
		case T_FromExpr:
		case T_GroupingSet:
		case T_JoinExpr:
		case T_List:
		case T_RangeTblFunction:
		case T_RangeTblRef:
		case T_SetOperationStmt:
		case T_TargetEntry:
			return true;
		default:
			return false;
	}
}

/* The functions that an expression calls; false: it is of no allowed kind. */
static bool
check_calls(const PromVocabulary *vocabulary, Node *node)
{
	ListCell *cell;

	switch (nodeTag(node))
	{
		case T_Aggref:
			check_function(vocabulary, ((Aggref *) node)->aggfnoid, true);
			return true;
		case T_WindowFunc:
			check_function(vocabulary, ((WindowFunc *) node)->winfnoid, true);
			return true;
		case T_FuncExpr:
			check_function(vocabulary, ((FuncExpr *) node)->funcid,
						   !is_cast((FuncExpr *) node));
			return true;
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
			check_operator(vocabulary, ((OpExpr *) node)->opno);
			return true;
		case T_ScalarArrayOpExpr:
			check_operator(vocabulary, ((ScalarArrayOpExpr *) node)->opno);
			return true;
		case T_RowCompareExpr:
			foreach(cell, ((RowCompareExpr *) node)->opnos)
				check_operator(vocabulary, lfirst_oid(cell));
			return true;
		case T_SQLValueFunction:
			check_value((SQLValueFunction *) node);
			return true;
		case T_ArrayCoerceExpr:
		case T_ArrayExpr:
		case T_BoolExpr:
		case T_BooleanTest:
		case T_CaseExpr:
		case T_CaseTestExpr:
		case T_CoalesceExpr:
		case T_CoerceViaIO:
		case T_CollateExpr:
		case T_Const:
		case T_FieldSelect:
		case T_GroupingFunc:
		case T_MinMaxExpr:
		case T_NamedArgExpr:
		case T_NullTest:
		case T_Param:
		case T_RelabelType:
		case T_RowExpr:
		case T_SubLink:
		case T_SubscriptingRef:
		case T_Var:
			return true;
		default:
			return false;
	}
}

/* The words for what is known, and not allowed. */
static const char *
kind_of(Node *node)
{
	switch (nodeTag(node))
	{
		case T_CoerceToDomain:
			return "a domain";
		case T_ConvertRowtypeExpr:
			return "a row of a table as that of another";
		case T_CurrentOfExpr:
			return "CURRENT OF";
		case T_FieldStore:
			return "an assignment to a field";
		case T_NextValueExpr:
			return "the next value of a sequence";
		case T_SetToDefault:
			return "DEFAULT";
		case T_XmlExpr:
			return "XML";
		default:
			return psprintf("of node type %d", (int) nodeTag(node));
	}
}

static bool
walk(Node *node, void *arg)
{
	const PromVocabulary *vocabulary = arg;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		check_query(vocabulary, (Query *) node);
		return false;
	}
	if (!check_part(vocabulary, node))
	{
		if (!check_calls(vocabulary, node))
			prom_vocabulary_forbid("expression", kind_of(node));
		/* Also that of what was converted without a function of its own. */
		check_type(exprType(node));
	}
	return expression_tree_walker(node, walk, arg);
}

void
prom_vocabulary_check(const PromVocabulary *vocabulary, List *queries)
{
	ListCell *cell;

	foreach(cell, queries)
		check_query(vocabulary, lfirst_node(Query, cell));
}
