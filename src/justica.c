/*
 * justica.c
 *	  The constitution: rules about what is to be done, not about words.
 *
 * What would be run as SQL is read by PostgreSQL's own parser, so that
 * comments, escapes, capitals and quotes hide nothing, and a text that only
 * speaks of a statement is none.  Nothing is run.  Privileges are the wall;
 * this is the guard in front of it, who says why.
 */
#include "postgres.h"

#include <ctype.h>

#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "common/keywords.h"
#include "fmgr.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

#include "compat.h"
#include "extension.h"
#include "hidden.h"
#include "integrity.h"
#include "justica.h"
#include "schema.h"
#include "signature.h"

/* A longer statement is not read, and not allowed. */
#define MAX_STATEMENT 65536

/* A request that is longer is more than a statement. */
#define MAX_REQUEST 4096

typedef enum Danger
{
	DANGER_NONE,
	DANGER_ALL_ROWS, /* it would change or remove every row of a table */
	DANGER_FORBIDDEN /* ours, catalogues, roles, DDL, files, other servers */
} Danger;

/* What was found in a statement. */
typedef struct Finding
{
	Danger danger;
	const char *what; /* the statement, function or relation */
} Finding;

typedef struct Principle
{
	const char *name;
	bool (*is_broken)(const PromJudged *judged, const char **detail);
} Principle;


/* Statements. */

static void
find(Finding *finding, Danger danger, const char *what)
{
	if (danger <= finding->danger)
		return;
	finding->danger = danger;
	finding->what = what;
}

static bool
is_system(const RangeVar *relation)
{
	const char *schema = relation->schemaname;

	if (schema != NULL)
		return prom_integrity_is_system(schema);
	return strncmp(relation->relname, "pg_", 3) == 0;
}

static void
check_target(Finding *finding, const RangeVar *relation)
{
	if (relation != NULL && is_system(relation))
		find(finding, DANGER_FORBIDDEN,
			 psprintf("a change of %s", relation->relname));
}

static bool
has_column(Node *node, void *arg)
{
	if (node == NULL)
		return false;
	if (IsA(node, ColumnRef) || IsA(node, CurrentOfExpr))
		return true;
	return raw_expression_tree_walker(node, has_column, arg);
}

/*
 * Does a condition hold for every row?  That is so if there is none, if it does
 * not look at the row, or compares a thing with itself.
 */
static bool
is_every_row(Node *condition)
{
	ListCell *cell;

	if (condition != NULL && IsA(condition, A_Expr))
	{
		const A_Expr *compared = (A_Expr *) condition;

		if ((compared->kind == AEXPR_OP ||
			 compared->kind == AEXPR_NOT_DISTINCT) &&
			strcmp(strVal(llast(compared->name)), "=") == 0 &&
			equal(compared->lexpr, compared->rexpr))
			return true;
	}
	if (condition != NULL && IsA(condition, BoolExpr) &&
		((BoolExpr *) condition)->boolop != NOT_EXPR)
	{
		bool is_or = ((BoolExpr *) condition)->boolop == OR_EXPR;

		foreach(cell, ((BoolExpr *) condition)->args)
			if (is_every_row(lfirst(cell)) == is_or)
				return is_or;
		return !is_or;
	}
	return !has_column(condition, NULL);
}

static void
check_rows(Finding *finding, const char *what, Node *condition)
{
	if (condition == NULL)
		find(finding, DANGER_ALL_ROWS, psprintf("%s without WHERE", what));
	else if (is_every_row(condition))
		find(finding, DANGER_ALL_ROWS, psprintf("%s of every row", what));
}

static void
check_merge(Finding *finding, const MergeStmt *merge)
{
	ListCell *cell;

	check_target(finding, merge->relation);
	if (!is_every_row(merge->joinCondition))
		return;
	foreach(cell, merge->mergeWhenClauses)
	{
		const MergeWhenClause *clause = lfirst_node(MergeWhenClause, cell);

		if ((clause->commandType == CMD_UPDATE ||
			 clause->commandType == CMD_DELETE) &&
			is_every_row(clause->condition))
			find(finding, DANGER_ALL_ROWS, "MERGE of every row");
	}
}

static void
check_attributes(Finding *finding, List *attributes)
{
	ListCell *cell;

	foreach(cell, attributes)
	{
		if (IsA(lfirst(cell), String) &&
			prom_integrity_forbids(strVal(lfirst(cell)), true))
			find(finding, DANGER_FORBIDDEN,
				 psprintf("%s()", strVal(lfirst(cell))));
	}
}

/* Every node of a statement, parsed and not analyzed. */
static bool
inspect(Node *node, void *arg)
{
	Finding *finding = arg;

	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_FuncCall:
		{
			const char *name = strVal(llast(((FuncCall *) node)->funcname));

			if (prom_integrity_forbids(name, true))
				find(finding, DANGER_FORBIDDEN, psprintf("%s()", name));
			break;
		}
		case T_A_Indirection:
			/* (argument).function is a call, too. */
			check_attributes(finding,
							 ((A_Indirection *) node)->indirection);
			break;
		case T_RangeVar:
		{
			const RangeVar *relation = (RangeVar *) node;

			if ((relation->schemaname != NULL &&
				 strcmp(relation->schemaname, "prometheus") == 0 &&
				 relation->relname[0] == '_') ||
				prom_integrity_is_secret(relation->relname))
				find(finding, DANGER_FORBIDDEN, relation->relname);
			break;
		}
		case T_SelectStmt:
			if (((SelectStmt *) node)->intoClause != NULL)
				find(finding, DANGER_FORBIDDEN, "SELECT INTO");
			break;
		case T_InsertStmt:
			check_target(finding, ((InsertStmt *) node)->relation);
			break;
		case T_UpdateStmt:
			check_target(finding, ((UpdateStmt *) node)->relation);
			check_rows(finding, "UPDATE",
					   ((UpdateStmt *) node)->whereClause);
			break;
		case T_DeleteStmt:
			check_target(finding, ((DeleteStmt *) node)->relation);
			check_rows(finding, "DELETE",
					   ((DeleteStmt *) node)->whereClause);
			break;
		case T_MergeStmt:
			check_merge(finding, (MergeStmt *) node);
			break;
		default:
			break;
	}
	return raw_expression_tree_walker(node, inspect, arg);
}

static void inspect_statement(Node *statement, Finding *finding);

/* Without ANALYZE it is only planned, and changes no row. */
static void
inspect_explain(const ExplainStmt *explain, Finding *finding)
{
	Finding found = {DANGER_NONE, NULL};
	bool is_run = false;
	ListCell *cell;

	foreach(cell, explain->options)
		if (strcmp(lfirst_node(DefElem, cell)->defname, "analyze") == 0)
			is_run = true;
	inspect_statement(explain->query, &found);
	if (is_run || found.danger != DANGER_ALL_ROWS)
		find(finding, found.danger, found.what);
}

static void
inspect_statement(Node *statement, Finding *finding)
{
	switch (nodeTag(statement))
	{
		case T_SelectStmt:
		case T_InsertStmt:
		case T_UpdateStmt:
		case T_DeleteStmt:
		case T_MergeStmt:
			(void) inspect(statement, finding);
			break;
		case T_ExplainStmt:
			inspect_explain((ExplainStmt *) statement, finding);
			break;
		case T_VariableShowStmt:
			break;
		case T_TruncateStmt:
			find(finding, DANGER_ALL_ROWS, "TRUNCATE");
			break;
		default:
			find(finding, DANGER_FORBIDDEN, CreateCommandName(statement));
	}
}

/*
 * May this be a statement?  One begins with a keyword, a parenthesis, a
 * semicolon or a comment; what does not is spared the parser.
 */
static bool
may_be_statement(const char *text)
{
	size_t length;

	text += strspn(text, " \t\r\n\f\v");
	if (*text != '\0' && strchr("-/(;", *text) != NULL)
		return true;
	length = strspn(text, "abcdefghijklmnopqrstuvwxyz"
						  "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
	return length > 0 && length < NAMEDATALEN &&
		   ScanKeywordLookup(pnstrdup(text, length), &ScanKeywords) >= 0;
}

/*
 * Visit the statements of a text, if it is SQL.  Errors are taken back: what
 * cannot be parsed is no statement, but what is too deep may be any.  False: it
 * is no SQL.
 */
static bool
inspect_statements(const char *text,
				   void (*visit)(List *list, Finding *finding),
				   Finding *finding)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	volatile bool is_sql = false;

	if (!may_be_statement(text))
		return false;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		visit(raw_parser(text, RAW_PARSE_DEFAULT), finding);
		ReleaseCurrentSubTransaction();
		is_sql = true;
	}
	PG_CATCH();
	{
		int code = geterrcode();

		MemoryContextSwitchTo(context);
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (code != ERRCODE_SYNTAX_ERROR)
			find(finding, DANGER_FORBIDDEN, "a statement that cannot be read");
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = resources;
	return is_sql;
}

static void
visit_each(List *statements, Finding *finding)
{
	ListCell *cell;

	foreach(cell, statements)
	{
		inspect_statement(lfirst_node(RawStmt, cell)->stmt, finding);
	}
}

/* Only what changes roles, the schema or all of a table: more may be words. */
static void
visit_worst(List *statements, Finding *finding)
{
	ListCell *cell;

	foreach(cell, statements)
	{
		Node *statement = lfirst_node(RawStmt, cell)->stmt;

		switch (nodeTag(statement))
		{
			case T_TruncateStmt:
			case T_GrantRoleStmt:
			case T_AlterRoleStmt:
			case T_DropStmt:
			case T_DropRoleStmt:
			case T_DropdbStmt:
			case T_DropOwnedStmt:
			case T_ReassignOwnedStmt:
			case T_AlterTableStmt:
			case T_AlterSystemStmt:
			case T_AlterRoleSetStmt:
			case T_GrantStmt:
			case T_CreateRoleStmt:
			case T_DoStmt:
				find(finding, DANGER_FORBIDDEN, CreateCommandName(statement));
				break;
			case T_CopyStmt:
				if (((CopyStmt *) statement)->is_program)
					find(finding, DANGER_FORBIDDEN, "COPY PROGRAM");
				break;
			case T_SelectStmt:
			case T_InsertStmt:
			case T_UpdateStmt:
			case T_DeleteStmt:
				inspect_statement(statement, finding);
				break;
			default:
				break;
		}
	}
}

/*
 * What a text would do if it was run as SQL.  If it is none, it may be put into
 * a statement that it ends, to begin one of its own: each part after a
 * semicolon is read, too.
 */
static void
inspect_text(const char *text, Finding *finding)
{
	const char *part = text;

	if (strlen(text) > MAX_STATEMENT)
	{
		find(finding, DANGER_FORBIDDEN, "a statement too long to be read");
		return;
	}
	if (inspect_statements(text, visit_each, finding))
		return;
	while ((part = strchr(part, ';')) != NULL)
	{
		size_t length = strcspn(++part, ";");

		(void) inspect_statements(pnstrdup(part, length), visit_worst, finding);
	}
}


/* Tool calls. */

/* Words of a body by which a text becomes a statement. */
static const char *const runs_text[] = {
	"execute",
	"query_to_xml",
	"dblink",
	"spi_",
	"plpy.",
	"cursor_to_xml",
};

static bool
contains_word(const char *text, const char *word)
{
	size_t length = strlen(word);

	for (; *text != '\0'; text++)
		if (pg_strncasecmp(text, word, length) == 0)
			return true;
	return false;
}

/* May a function run what it is given?  And does it touch what is ours? */
static bool
inspect_function(const PromTool *tool, Finding *finding)
{
	Oid function = prom_signature_find(tool->function);
	HeapTuple tuple;
	Form_pg_proc form;
	bool isnull;
	bool runs = false;
	Datum source;

	if (!OidIsValid(function))
		return false;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_proc) GETSTRUCT(tuple);
	if (prom_integrity_forbids(NameStr(form->proname), true) ||
		prom_extension_has(ProcedureRelationId, function))
		find(finding, DANGER_FORBIDDEN,
			 psprintf("%s()", NameStr(form->proname)));
	source = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);
	if (!isnull)
	{
		char *body = TextDatumGetCString(source);

		for (int i = 0; i < lengthof(runs_text) && !runs; i++)
			runs = contains_word(body, runs_text[i]);
	}
	ReleaseSysCache(tuple);
	return runs;
}

/* Every string in the arguments, unescaped; what() is called with each. */
static void
walk_strings(const char *arguments, void (*what)(const char *text, void *arg),
			 void *arg)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue value;
	Jsonb *jsonb;

	if (prom_schema_unreadable(arguments) != NULL)
		return;
	jsonb = DatumGetJsonbP(
		DirectFunctionCall1(jsonb_in, CStringGetDatum(arguments)));
	iterator = JsonbIteratorInit(&jsonb->root);
	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
		if ((token == WJB_VALUE || token == WJB_ELEM || token == WJB_KEY) &&
			value.type == jbvString)
			what(pnstrdup(value.val.string.val, value.val.string.len), arg);
}

static void
inspect_string(const char *text, void *arg)
{
	inspect_text(text, arg);
}

static void
inspect_call(const PromJudged *judged, Finding *finding)
{
	bool runs;

	memset(finding, 0, sizeof(*finding));
	if (judged->tool->is_builtin)
		runs = strcmp(judged->tool->function, "query") == 0;
	else
		runs = !judged->tool->is_http &&
			   inspect_function(judged->tool, finding);
	if (runs)
		walk_strings(judged->arguments, inspect_string, finding);
}


/* Requests. */

/* Words before a statement that only say that it is to be run. */
static const char *const fillers[] = {
	"please",
	"run",
	"execute",
	"perform",
	"now",
	"just",
	"the",
	"following",
	"this",
	"sql",
	"query",
	"statement",
	"command",
	"and",
	"then",
};

/* The request from its first word on that is none of these. */
static char *
skip_fillers(const char *request)
{
	const char *blanks = " \t\r\n:`\"'";

	for (;;)
	{
		size_t length;
		bool found = false;

		request += strspn(request, blanks);
		length = strcspn(request, " \t\r\n:`\"'");
		for (int i = 0; i < lengthof(fillers) && !found; i++)
			found = strlen(fillers[i]) == length &&
					pg_strncasecmp(request, fillers[i], length) == 0;
		if (!found)
			break;
		request += length;
	}
	return pstrdup(request);
}

static bool
begins_in_capitals(const char *text)
{
	size_t length = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");

	return length > 1 && !isalnum((unsigned char) text[length]);
}

/*
 * Is a request as a whole a statement that changes roles, the schema or all of
 * a table?  Many a sentence happens to be one ("create user guide", "delete
 * from inbox"): it must look like one, with a semicolon or a verb in capitals.
 */
static void
inspect_request(const char *request, Finding *finding)
{
	char *text = skip_fillers(request);
	size_t length = strlen(text);

	memset(finding, 0, sizeof(*finding));
	if (length == 0 || length > MAX_REQUEST ||
		(strchr(text, ';') == NULL && !begins_in_capitals(text)))
		return;
	if (inspect_statements(text, visit_worst, finding))
		return;
	/* Without the quotes around it, or the full stop. */
	while (length > 0 && strchr(" \t\r\n`\"'.", text[length - 1]) != NULL)
		text[--length] = '\0';
	(void) inspect_statements(text, visit_worst, finding);
}


/* The principles. */

static bool
breaks_integrity(const PromJudged *judged, const char **detail)
{
	Finding finding;

	if (judged->tool != NULL)
		inspect_call(judged, &finding);
	else
		inspect_request(judged->request, &finding);
	*detail = finding.what;
	if (judged->tool == NULL)
		return finding.danger != DANGER_NONE;
	return finding.danger == DANGER_FORBIDDEN;
}

static bool
breaks_proportionality(const PromJudged *judged, const char **detail)
{
	Finding finding = {0};

	/* What may only read changes no row, whatever it says. */
	if (judged->tool != NULL && judged->tool->tier != PROM_TIER_READ)
		inspect_call(judged, &finding);
	*detail = finding.what;
	return finding.danger == DANGER_ALL_ROWS;
}

static void
look_for_hidden(const char *text, void *arg)
{
	const char **what = arg;

	if (*what == NULL)
		*what = prom_hidden_in(text);
}

static bool
breaks_transparency(const PromJudged *judged, const char **detail)
{
	*detail = NULL;
	if (judged->tool != NULL)
		walk_strings(judged->arguments, look_for_hidden, detail);
	else
		*detail = prom_hidden_in(judged->answer != NULL ? judged->answer
														: judged->request);
	return *detail != NULL;
}

/* It is about what follows a veto, and cannot be broken. */
static bool
breaks_learning(const PromJudged *judged, const char **detail)
{
	return false;
}

static const Principle principles[] = {
	{"integrity", breaks_integrity},
	{"proportionality", breaks_proportionality},
	{"transparency", breaks_transparency},
	{"learning", breaks_learning},
};

static const Principle *
find_principle(const char *name)
{
	for (int i = 0; i < lengthof(principles); i++)
		if (strcmp(principles[i].name, name) == 0)
			return &principles[i];
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("principle \"%s\" does not exist", name),
			 errhint("The principles that a match can name are integrity, proportionality, transparency and learning.")));
	return NULL;
}

void
prom_justica_check(const char *principle)
{
	(void) find_principle(principle);
}

bool
prom_justica_is_broken(const char *principle, const PromJudged *judged,
					   const char **detail)
{
	return find_principle(principle)->is_broken(judged, detail);
}
