/*
 * candidate.c
 *	  A function that a model wrote: whether it is one that may be tried.
 *
 * First its statement is read, by PostgreSQL's own parser: it must be a CREATE
 * FUNCTION of a plain form, whose body names no statement, schema or relation
 * that is not allowed.  So what is looked up when the body is analyzed is only
 * what PostgreSQL has itself.  Then the function is made, by a role that may do
 * nothing else, and what its body came to is held against the vocabulary.  It
 * has not been run by then.
 *
 * Its body is of SQL's standard form: it was parsed when it was made, and is
 * the same whatever the search_path is where it is called, and whatever other
 * functions are made later.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_type.h"
#include "parser/parser.h"
#include "storage/lmgr.h"
#include "tcop/dest.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "candidate.h"
#include "compat.h"
#include "vocabulary.h"
#include "xact.h"

/* Bytes of a statement. */
#define MAX_STATEMENT 65536

static pg_noreturn void
refuse(const char *why)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
					errmsg("%s", why)));
	pg_unreachable();
}

static void
forbid(const char *kind, const char *what)
{
	prom_vocabulary_forbid(kind, what);
}


/* The body, parsed and not analyzed. */

/* In no schema but PostgreSQL's own. */
static void
check_names(const char *kind, List *names)
{
	if (list_length(names) > 1 &&
		strcmp(strVal(linitial(names)), "pg_catalog") != 0)
		forbid(kind, NameListToString(names));
}

static void
check_relation(const PromCommission *commission, const RangeVar *relation)
{
	ListCell *cell;

	/* Perhaps one of WITH; the vocabulary knows. */
	if (relation->schemaname == NULL)
		return;
	foreach(cell, commission->relations)
	{
		List *names = textToQualifiedNameList(cstring_to_text(lfirst(cell)));

		if (relation->catalogname == NULL &&
			strcmp(strVal(linitial(names)), relation->schemaname) == 0 &&
			strcmp(strVal(lsecond(names)), relation->relname) == 0)
			return;
	}
	forbid("relation", quote_qualified_identifier(relation->schemaname,
												  relation->relname));
}

static void
check_type_form(const TypeName *type)
{
	if (type->pct_type)
		forbid("type", psprintf("%s%%TYPE", NameListToString(type->names)));
	check_names("type", type->names);
}

static void
check_type_name(const TypeName *type)
{
	Type found;

	check_type_form(type);
	/* Before a literal is converted to it, which may look into catalogues. */
	found = LookupTypeName(NULL, type, NULL, true);
	if (found == NULL)
		return;
	if (!prom_vocabulary_has_type(typeTypeId(found)))
		forbid("type", format_type_be(typeTypeId(found)));
	ReleaseSysCache(found);
}

static void
check_function_name(List *names)
{
	check_names("function", names);
	if (!prom_vocabulary_has_name(strVal(llast(names))))
		forbid("function", strVal(llast(names)));
}

static bool
inspect(Node *node, void *arg)
{
	const PromCommission *commission = arg;

	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_InsertStmt:
		case T_UpdateStmt:
		case T_DeleteStmt:
		case T_MergeStmt:
			forbid("statement",
				   GetCommandTagName(CreateCommandTag(node)));
			break;
		case T_IntoClause:
			forbid("statement", "SELECT INTO");
			break;
		case T_LockingClause:
			forbid("clause", "FOR UPDATE or FOR SHARE");
			break;
		case T_RangeVar:
			check_relation(commission, (RangeVar *) node);
			return false;
		case T_FuncCall:
			check_function_name(((FuncCall *) node)->funcname);
			break;
		case T_A_Expr:
			check_names("operator", ((A_Expr *) node)->name);
			break;
		case T_TypeName:
			check_type_name((TypeName *) node);
			break;
		case T_SubLink:
			check_names("operator", ((SubLink *) node)->operName);
			break;
		case T_SortBy:
			check_names("operator", ((SortBy *) node)->useOp);
			break;
		case T_CollateClause:
			check_names("collation", ((CollateClause *) node)->collname);
			break;
		default:
			break;
	}
	return raw_expression_tree_walker(node, inspect, arg);
}

static void
inspect_statement(const PromCommission *commission, Node *statement)
{
	if (IsA(statement, ReturnStmt))
		statement = ((ReturnStmt *) statement)->returnval;
	else if (!IsA(statement, SelectStmt))
		forbid("statement", GetCommandTagName(CreateCommandTag(statement)));
	(void) inspect(statement, (void *) commission);
}

/* RETURN, or a list of one list: the statements of BEGIN ATOMIC. */
static void
inspect_body(const PromCommission *commission, Node *body)
{
	ListCell *cell;
	int n = 0;

	if (!IsA(body, List))
	{
		inspect_statement(commission, body);
		return;
	}
	foreach(cell, linitial_node(List, (List *) body))
	{
		if (lfirst(cell) == NULL)
			continue;
		inspect_statement(commission, lfirst(cell));
		n++;
	}
	if (n == 0)
		refuse("its body has no statement");
}


/* The rest of the statement. */

static void
check_option(const PromCommission *commission, const DefElem *option)
{
	const char *name = option->defname;

	if (strcmp(name, "language") == 0)
	{
		if (strcmp(strVal(option->arg), "sql") != 0)
			forbid("language", strVal(option->arg));
	}
	else if (strcmp(name, "volatility") == 0)
	{
		if (strcmp(strVal(option->arg), "volatile") == 0 &&
			!commission->allows_volatile)
			forbid("clause", "VOLATILE");
	}
	else if (strcmp(name, "security") == 0)
	{
		if (boolVal(option->arg))
			forbid("clause", "SECURITY DEFINER");
	}
	else if (strcmp(name, "leakproof") == 0)
	{
		if (boolVal(option->arg))
			forbid("clause", "LEAKPROOF");
	}
	else if (strcmp(name, "as") == 0)
		refuse("its body must be RETURN with an expression, or BEGIN ATOMIC ... END, and no string");
	else if (strcmp(name, "strict") != 0 && strcmp(name, "parallel") != 0)
		forbid("clause", asc_toupper(name, strlen(name)));
}

/* Without a word, a function is volatile; ours is not. */
static void
check_options(const PromCommission *commission, CreateFunctionStmt *parsed)
{
	bool says = false;
	ListCell *cell;

	foreach(cell, parsed->options)
	{
		const DefElem *option = lfirst_node(DefElem, cell);

		check_option(commission, option);
		says |= strcmp(option->defname, "volatility") == 0;
	}
	if (!says)
		parsed->options = lappend(
			parsed->options,
			makeDefElem("volatility", (Node *) makeString(pstrdup("stable")),
						-1));
}

static void
check_parameter(const FunctionParameter *parameter)
{
	if (parameter->mode != FUNC_PARAM_IN &&
		parameter->mode != FUNC_PARAM_DEFAULT)
		refuse("its arguments must be IN, and what it returns is said by RETURNS");
	if (parameter->name == NULL)
		refuse("each of its arguments must have a name");
	if (parameter->defexpr != NULL)
		forbid("clause", "DEFAULT");
	if (parameter->argType->setof)
		forbid("clause", "SETOF");
	check_type_form(parameter->argType);
}

static CreateFunctionStmt *
parse(const char *statement)
{
	List *statements;
	Node *node;

	if (strlen(statement) > MAX_STATEMENT)
		refuse(psprintf("it has more than %d bytes", MAX_STATEMENT));
	statements = raw_parser(statement, RAW_PARSE_DEFAULT);
	if (list_length(statements) != 1)
		refuse(psprintf("there are %d statements, and one CREATE FUNCTION was asked for",
						list_length(statements)));
	node = linitial_node(RawStmt, statements)->stmt;
	if (!IsA(node, CreateFunctionStmt))
		forbid("statement", GetCommandTagName(CreateCommandTag(node)));
	return (CreateFunctionStmt *) node;
}

void
prom_candidate_read(PromCandidate *candidate, const PromCommission *commission,
					const char *statement)
{
	CreateFunctionStmt *parsed = parse(statement);
	ListCell *cell;

	candidate->statement = statement;
	candidate->parsed = parsed;
	if (parsed->is_procedure)
		forbid("statement", "CREATE PROCEDURE");
	if (parsed->replace)
		forbid("clause", "OR REPLACE");
	if (list_length(parsed->funcname) > 1)
		refuse("its name must have no schema before it");
	candidate->name = strVal(linitial(parsed->funcname));
	if (commission->name != NULL &&
		strcmp(candidate->name, commission->name) != 0)
		refuse(psprintf("its name must be %s",
						quote_identifier(commission->name)));
	foreach(cell, parsed->parameters)
		check_parameter(lfirst_node(FunctionParameter, cell));
	if (parsed->returnType == NULL)
		refuse("it must say RETURNS");
	if (parsed->returnType->setof)
		forbid("clause", "SETOF");
	check_type_form(parsed->returnType);
	check_options(commission, parsed);
	if (parsed->sql_body == NULL)
		refuse("it has no body");
	inspect_body(commission, parsed->sql_body);
}


/* The function that it makes. */

static void
check_wanted(const PromWanted *wanted, Oid type)
{
	if (prom_commission_fits(wanted, type))
		return;
	if (wanted->name == NULL)
		refuse(psprintf("it returns %s, which cannot be the result; %s was asked for",
						format_type_be(type),
						format_type_be(prom_commission_type(wanted))));
	refuse(psprintf("its argument %s is of type %s, which cannot be; %s was asked for",
					quote_identifier(wanted->name), format_type_be(type),
					format_type_be(prom_commission_type(wanted))));
}

static const PromWanted *
find_wanted(const PromCommission *commission, const char *name)
{
	for (int i = 0; i < commission->nwanted; i++)
		if (strcmp(commission->wanted[i].name, name) == 0)
			return &commission->wanted[i];
	return NULL;
}

/* Of arguments in any order, since they are given by their names. */
static oidvector *
check_signature(const PromCommission *commission,
				const CreateFunctionStmt *parsed)
{
	int n = list_length(parsed->parameters);
	Oid *types = palloc(Max(n, 1) * sizeof(Oid));
	ListCell *cell;
	int i = 0;

	if (n != commission->nwanted)
		refuse(psprintf("it has %d arguments, and %d were asked for", n,
						commission->nwanted));
	foreach(cell, parsed->parameters)
	{
		const FunctionParameter *parameter = lfirst(cell);
		const PromWanted *wanted = find_wanted(commission, parameter->name);

		if (wanted == NULL)
			refuse(psprintf("no argument %s was asked for",
							quote_identifier(parameter->name)));
		types[i] = typenameTypeId(NULL, parameter->argType);
		check_wanted(wanted, types[i++]);
	}
	check_wanted(&commission->result,
				 typenameTypeId(NULL, parsed->returnType));
	return buildoidvector(types, n);
}

static bool
still_names(const char *name, Oid relation)
{
	List *names = textToQualifiedNameList(cstring_to_text(name));
	Oid namespace = get_namespace_oid(strVal(linitial(names)), true);

	return OidIsValid(namespace) &&
		   get_relname_relid(strVal(lsecond(names)), namespace) == relation;
}

/*
 * What may be read stays what it was found to be: its name is not another
 * one's, and no column becomes one that has code of its own.  Nothing locks the
 * name of a schema.  If it is given to another one just after this, the body is
 * refused and all is rolled back, since then it reads another relation; the
 * role that makes it could do nothing else meanwhile.
 */
static void
lock_relations(const PromCommission *commission, List *relations)
{
	ListCell *cell;
	ListCell *name;

	foreach(cell, relations)
		LockRelationOid(lfirst_oid(cell), AccessShareLock);
	forboth(cell, relations, name, commission->relations)
	{
		if (!still_names(lfirst(name), lfirst_oid(cell)))
			refuse("a relation that it may read was changed meanwhile");
		prom_vocabulary_check_columns(lfirst_oid(cell));
	}
}

/* As any utility statement, for the hooks and event triggers of others. */
static void
run(const PromCandidate *candidate)
{
	PlannedStmt *planned = makeNode(PlannedStmt);

	planned->commandType = CMD_UTILITY;
	planned->utilityStmt = (Node *) candidate->parsed;
	planned->stmt_location = 0;
	planned->stmt_len = strlen(candidate->statement);
	ProcessUtility(planned, candidate->statement, false,
				   PROCESS_UTILITY_QUERY, NULL, NULL, None_Receiver, NULL);
	CommandCounterIncrement();
}

/* Its body as it was stored; and that nothing else came of the statement. */
static List *
read_body(Oid function)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc form;
	bool isnull;
	bool has_settings;
	Datum body;
	Node *node;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	form = (Form_pg_proc) GETSTRUCT(tuple);
	(void) SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proconfig, &isnull);
	has_settings = !isnull;
	body = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosqlbody, &isnull);
	if (isnull || form->prolang != SQLlanguageId || form->prosecdef ||
		form->proleakproof || OidIsValid(form->prosupport) || has_settings)
		refuse("it is not the plain function that was asked for");
	node = stringToNode(TextDatumGetCString(body));
	ReleaseSysCache(tuple);
	return IsA(node, List) ? linitial_node(List, (List *) node)
						   : list_make1(node);
}

Oid
prom_candidate_make(PromCandidate *candidate, const PromCommission *commission,
					List *relations, const char *name)
{
	PromVocabulary vocabulary = {
		.relations = relations,
		.allows_volatile = commission->allows_volatile,
	};
	oidvector *types = check_signature(commission, candidate->parsed);
	Oid namespace = get_namespace_oid(PROM_TOOL_SCHEMA, false);
	Oid function;

	candidate->parsed->funcname =
		list_make2(makeString(pstrdup(PROM_TOOL_SCHEMA)),
				   makeString(pstrdup(name)));
	lock_relations(commission, relations);
	run(candidate);
	function = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
							   CStringGetDatum(name), PointerGetDatum(types),
							   ObjectIdGetDatum(namespace));
	if (!OidIsValid(function))
		refuse("it is not the function that was asked for");
	prom_vocabulary_check(&vocabulary, read_body(function));
	return function;
}

typedef struct Check
{
	const PromCommission *commission;
	const char *statement;
	List *relations;
	Oid owner;
} Check;

static void
make_as_owner(void *arg)
{
	const Check *check = arg;
	PromCandidate candidate = {0};
	int security;
	Oid user;

	GetUserIdAndSecContext(&user, &security);
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	SetUserIdAndSecContext(check->owner,
						   security | SECURITY_LOCAL_USERID_CHANGE |
							   SECURITY_RESTRICTED_OPERATION);
	prom_candidate_read(&candidate, check->commission, check->statement);
	(void) prom_candidate_make(&candidate, check->commission, check->relations,
							   "candidate");
	SetUserIdAndSecContext(user, security);
}

const char *
prom_candidate_fault(const PromCommission *commission, const char *statement,
					 List *relations, Oid owner)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	Check check = {commission, statement, relations, owner};
	ErrorData *failure;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	failure = prom_xact_try(make_as_owner, &check);
	/* A cancel, or a lack of memory, says nothing of the statement. */
	if (failure != NULL && prom_xact_is_transient(failure->sqlerrcode))
		ReThrowError(failure);
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = resources;
	return failure == NULL ? NULL : failure->message;
}
