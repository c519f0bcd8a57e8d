/*
 * query.c
 *	  The tool query: one SELECT that the model wrote.
 *
 * The parser says that it is one statement, and that it is a SELECT; the
 * transaction that it only reads; the role what it may read.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"

#include "tool/builtin.h"

/* Rows that are fetched at once, and at most. */
#define ROWS 50
#define MAX_ROWS 1000

/* A part that changes or locks something, or makes a table. */
static bool
is_more_than_select(Node *node, void *arg)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_InsertStmt:
		case T_UpdateStmt:
		case T_DeleteStmt:
		case T_MergeStmt:
		case T_LockingClause:
			return true;
		case T_SelectStmt:
			if (((SelectStmt *) node)->intoClause != NULL ||
				((SelectStmt *) node)->lockingClause != NIL)
				return true;
			break;
		default:
			break;
	}
	return raw_expression_tree_walker(node, is_more_than_select, arg);
}

static void
check_select(const char *sql)
{
	List *statements = raw_parser(sql, RAW_PARSE_DEFAULT);
	Node *statement;

	if (list_length(statements) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("sql must be one statement, and is %d",
						list_length(statements))));
	statement = linitial_node(RawStmt, statements)->stmt;
	if (!IsA(statement, SelectStmt) || is_more_than_select(statement, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("sql must be a SELECT that changes and locks nothing")));
}

static void
query(PromBuiltinCall *call)
{
	char *sql = prom_builtin_text(call, "sql");
	SPIPlanPtr plan;
	Portal portal;
	MemoryContext before;
	int nrows = 0;
	bool more = true;

	check_select(sql);
	SPI_connect();
	/* A semicolon at its end has no place in a sub-select. */
	while (*sql != '\0' && strchr("; \t\r\n", sql[strlen(sql) - 1]) != NULL)
		sql[strlen(sql) - 1] = '\0';
	plan = SPI_prepare(psprintf("SELECT pg_catalog.to_jsonb(r.*) FROM (%s\n) AS r",
								sql),
					   0, NULL);
	if (plan == NULL)
		elog(ERROR, "could not prepare the query: %s",
			 SPI_result_code_string(SPI_result));
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, false);
	while (more)
	{
		SPI_cursor_fetch(portal, true, ROWS);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; more && i < SPI_processed; i++)
			more = nrows++ < MAX_ROWS &&
				   prom_builtin_add_row(call, SPI_tuptable->vals[i],
										SPI_tuptable->tupdesc);
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	SPI_finish();
	before = MemoryContextSwitchTo(call->keep);
	if (nrows == 0)
		appendStringInfoChar(&call->result, '[');
	appendStringInfoString(&call->result, nrows > MAX_ROWS ? ", \"more rows\"]"
														   : "]");
	MemoryContextSwitchTo(before);
}

const PromBuiltin prom_builtin_query = {
	.name = "query",
	.as_role = true,
	.run = query,
};
