/*
 * integrity.c
 *	  What the principle of integrity forbids, and how that is not done.
 *
 * JUSTICA reads what a model wrote before it is run (justica.c).  But a tool
 * can make a statement of pieces, which nobody has read.  So while it runs, all
 * that it executes is looked at once more, at the three places that every
 * statement comes by, however deep in functions: where utility statements
 * begin, where a query's relations are checked, where a function is called.
 * What is refused raises; a tool that catches the error has not done it all the
 * same.
 *
 * Our own functions, which a tool may call, do their statements as the
 * extension's owner, which prom_role_become_owner() marks: these pass.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "errcodes.h"
#include "integrity.h"
#include "role.h"

#define WRITES (ACL_INSERT | ACL_UPDATE | ACL_DELETE | ACL_TRUNCATE)

/* Functions that reach out of the database, or end others' work. */
static const char *const forbidden_functions[] = {
	"pg_read_file",
	"pg_read_binary_file",
	"pg_stat_file",
	"pg_file_write",
	"pg_file_rename",
	"pg_file_sync",
	"pg_file_unlink",
	"pg_logdir_ls",
	"lo_import",
	"lo_export",
	"pg_terminate_backend",
	"pg_cancel_backend",
	"pg_reload_conf",
	"pg_rotate_logfile",
	"pg_promote",
	"pg_switch_wal",
	"pg_drop_replication_slot",
	"pg_import_system_collations",
};

static const char *const forbidden_prefixes[] = {
	"pg_ls_",
	"dblink",
	"pg_backup_",
	"pg_copy_",
	"pg_create_",
	"pg_logical_",
	"pg_replication_",
	"pg_wal_replay_",
	"postgres_fdw_",
	"prometheus_set_",
	"prometheus_approve",
	"prometheus_reject",
	"prometheus_pause",
	"prometheus_resume",
	"prometheus_track",
	"prometheus_undo",
	"prometheus_create_tool",
	"prometheus_restore_tool",
};

/* Besides, not in what a model wrote: they run a text, or are ours. */
static const char *const written_functions[] = {
	"set_config",
	"query_to_xml",
	"query_to_xml_and_xmlschema",
	"query_to_xmlschema",
	"cursor_to_xml",
	"ts_stat",
	"ts_rewrite",
};

static const char *const written_prefixes[] = {
	"crosstab",
	"connectby",
	"xpath_table",
	"prometheus_",
};

static const char *const system_schemas[] = {
	"prometheus",
	"pg_catalog",
	"information_schema",
};

static const char *const secret_relations[] = {
	"pg_authid",
	"pg_shadow",
	"pg_user_mapping",
	"pg_user_mappings",
	"pg_hba_file_rules",
	"pg_file_settings",
	"pg_subscription",
	"pg_largeobject",
};

static bool is_enforced = false;
static char refused[2 * NAMEDATALEN];
static ProcessUtility_hook_type previous_utility;
static ExecutorCheckPerms_hook_type previous_check;
static object_access_hook_type previous_access;

static bool
is_listed(const char *name, const char *const *list, int n)
{
	for (int i = 0; i < n; i++)
		if (strcmp(name, list[i]) == 0)
			return true;
	return false;
}

static bool
has_prefix(const char *name, const char *const *list, int n)
{
	for (int i = 0; i < n; i++)
		if (strncmp(name, list[i], strlen(list[i])) == 0)
			return true;
	return false;
}

bool
prom_integrity_forbids(const char *function, bool is_written)
{
	if (is_listed(function, forbidden_functions,
				  lengthof(forbidden_functions)) ||
		has_prefix(function, forbidden_prefixes, lengthof(forbidden_prefixes)))
		return true;
	return is_written &&
		   (is_listed(function, written_functions,
					  lengthof(written_functions)) ||
			has_prefix(function, written_prefixes,
					   lengthof(written_prefixes)));
}

bool
prom_integrity_is_system(const char *schema)
{
	return is_listed(schema, system_schemas, lengthof(system_schemas));
}

bool
prom_integrity_is_secret(const char *relation)
{
	return is_listed(relation, secret_relations, lengthof(secret_relations));
}


/* What is executed. */

static bool
is_checked(void)
{
	return is_enforced && !prom_role_acts_as_owner();
}

static void
refuse(const char *what)
{
	strlcpy(refused, what, sizeof(refused));
	ereport(ERROR,
			(errcode(ERRCODE_PROM_INTEGRITY),
			 errmsg("a tool must not do this: %s", what),
			 errdetail("A policy with the principle integrity is in force for it."),
			 errhint("Do it yourself; or an administrator can narrow the policy's match, or set its effect to off.")));
}

static bool
is_ours(Oid relation)
{
	return relation >= FirstNormalObjectId &&
		   get_rel_namespace(relation) == get_namespace_oid("prometheus", true);
}

/* A change or a lock of a relation. */
static void
check_target(const char *what, Oid relation)
{
	if (relation < FirstNormalObjectId || is_ours(relation))
		refuse(psprintf("a %s of %s", what, get_rel_name(relation)));
}

/*
 * What is read through a view is checked as the view's owner; who made it has
 * said what it shows.
 */
static void
check_access(const PromAccess *access)
{
	bool is_base;
	char *name;

	if (!OidIsValid(access->relid) || access->requiredPerms == 0)
		return;
	if (access->requiredPerms & WRITES)
		check_target("change", access->relid);
	if (OidIsValid(access->checkAsUser))
		return;
	is_base = is_ours(access->relid) &&
			  get_rel_relkind(access->relid) == RELKIND_RELATION;
	if (!is_base && access->relid >= FirstNormalObjectId)
		return;
	name = get_rel_name(access->relid);
	if (is_base || prom_integrity_is_secret(name))
		refuse(name);
}

static bool
check_permissions(PROM_CHECK_ARGUMENTS)
{
	ListCell *cell;

	if (previous_check != NULL && !previous_check(PROM_CHECK_PASSED))
		return false;
	if (is_checked())
		foreach(cell, accesses)
			check_access(lfirst(cell));
	return true;
}

static void
check_targets(const char *what, List *relations)
{
	ListCell *cell;

	foreach(cell, relations)
	{
		Oid relation = RangeVarGetRelid(lfirst_node(RangeVar, cell), NoLock,
										true);

		if (OidIsValid(relation))
			check_target(what, relation);
	}
}

/* Temporary relations are left to the server, which says why there are none. */
static bool
is_temporary(const RangeVar *relation)
{
	return relation->relpersistence == RELPERSISTENCE_TEMP;
}

/*
 * What is not named here is refused.  Of the statements that run others, these
 * are looked at when they are executed.
 */
static void
check_utility(Node *statement)
{
	const Query *query;

	switch (nodeTag(statement))
	{
		case T_CallStmt:
		case T_ClosePortalStmt:
		case T_ConstraintsSetStmt:
		case T_DeallocateStmt:
		case T_DeclareCursorStmt:
		case T_DiscardStmt:
		case T_DoStmt:
		case T_ExecuteStmt:
		case T_FetchStmt:
		case T_ListenStmt:
		case T_NotifyStmt:
		case T_PrepareStmt:
		case T_RefreshMatViewStmt:
		case T_TransactionStmt:
		case T_UnlistenStmt:
		case T_VariableSetStmt:
		case T_VariableShowStmt:
			return;
		case T_ExplainStmt:
			query = castNode(Query, ((ExplainStmt *) statement)->query);
			if (query->utilityStmt != NULL)
				check_utility(query->utilityStmt);
			return;
		case T_TruncateStmt:
			check_targets("change", ((TruncateStmt *) statement)->relations);
			return;
		case T_LockStmt:
			check_targets("lock", ((LockStmt *) statement)->relations);
			return;
		case T_CopyStmt:
			if (((CopyStmt *) statement)->is_program)
				refuse("COPY PROGRAM");
			if (((CopyStmt *) statement)->filename != NULL)
				refuse("COPY of a file");
			return;
		case T_VacuumStmt:
			if (!((VacuumStmt *) statement)->is_vacuumcmd)
				return;
			break;
		case T_CreateStmt:
			if (is_temporary(((CreateStmt *) statement)->relation))
				return;
			break;
		case T_CreateTableAsStmt:
			if (is_temporary(((CreateTableAsStmt *) statement)->into->rel))
				return;
			break;
		default:
			break;
	}
	refuse(CreateCommandName(statement));
}

static void
process_utility(PlannedStmt *statement, const char *text, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *receiver,
				QueryCompletion *completion)
{
	if (is_checked())
		check_utility(statement->utilityStmt);
	if (previous_utility != NULL)
		previous_utility(statement, text, read_only_tree, context, params,
						 environment, receiver, completion);
	else
		standard_ProcessUtility(statement, text, read_only_tree, context,
								params, environment, receiver, completion);
}

static void
check_function(ObjectAccessType access, Oid class, Oid object, int column,
			   void *arg)
{
	char *name;

	if (previous_access != NULL)
		previous_access(access, class, object, column, arg);
	if (access != OAT_FUNCTION_EXECUTE || !is_checked())
		return;
	name = get_func_name(object);
	if (name == NULL)
		return;
	if (prom_integrity_forbids(name, false))
		refuse(psprintf("%s()", name));
	pfree(name);
}

void
prom_integrity_init(void)
{
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	previous_check = ExecutorCheckPerms_hook;
	ExecutorCheckPerms_hook = check_permissions;
	previous_access = object_access_hook;
	object_access_hook = check_function;
}

void
prom_integrity_enforce(bool enforced)
{
	is_enforced = enforced;
	if (enforced)
		refused[0] = '\0';
}

const char *
prom_integrity_refused(void)
{
	return refused[0] == '\0' ? NULL : refused;
}
