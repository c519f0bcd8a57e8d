/*
 * tool.c
 *	  Makes tools of SQL functions and of HTTP endpoints, and gives workers
 *	  their versions.
 *
 * A tool is a function, by its signature, or an endpoint, with what a model is
 * told of it: a name, a description, a schema of its arguments.  What the
 * function was when it was set is kept as a hash, so that another one in its
 * place is refused; of an endpoint, the hash of method, URL and secret's name.
 */
#include "postgres.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/comment.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/lsyscache.h"

#include "agent.h"
#include "commission.h"
#include "compat.h"
#include "endpoint.h"
#include "event.h"
#include "evolution.h"
#include "schema.h"
#include "signature.h"
#include "tool.h"
#include "tool/builtin.h"
#include "wakeup.h"

/*
 * A tool that was made is retired when of so many of its last calls, or of half
 * of them if there are no more, less than half succeeded.
 */
#define RETIRE_CALLS 20

/* Bytes of a description. */
#define MAX_DESCRIPTION 4096

static const PromSettingKind tool_kind = {
	.called = "a tool",
	.table = "_tool",
	.columns = "function, search_path, hash, description, tier, idempotent,"
			   " schema, kind, method, url, secret, task_id",
	.places = "$6, $7, $8, $9, $10, $11::pg_catalog.bool,"
			  " $12::pg_catalog.jsonb, $13, $14, $15, $16,"
			  " $17::pg_catalog.int8",
	.ncolumns = 12,
};

enum
{
	TOOL_FUNCTION,
	TOOL_SEARCH_PATH,
	TOOL_HASH,
	TOOL_DESCRIPTION,
	TOOL_TIER,
	TOOL_IDEMPOTENT,
	TOOL_SCHEMA,
	TOOL_KIND,
	TOOL_METHOD,
	TOOL_URL,
	TOOL_SECRET,
	TOOL_TASK_ID
};

static const char *const tiers[] = {
	[PROM_TIER_READ] = "read",
	[PROM_TIER_WRITE] = "write",
	[PROM_TIER_DESTRUCTIVE] = "destructive",
};

static PromTier
read_tier(const char *name)
{
	for (int i = 0; i < lengthof(tiers); i++)
		if (strcmp(tiers[i], name) == 0)
			return i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("tier \"%s\" does not exist", name),
			 errhint("The tiers are read, write and destructive (what cannot be undone).")));
	return PROM_TIER_DESTRUCTIVE;
}

/* What every API takes as a tool's name. */
void
prom_tool_check_name(const char *name)
{
	size_t length = strlen(name);

	if (length == 0 || length > PROM_MAX_TOOL_NAME ||
		strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
					 "0123456789_-") != length)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" cannot be the name of a tool", name),
				 errdetail("It must have 1 to %d letters (a to z, A to Z), digits, underscores or hyphens.",
						   PROM_MAX_TOOL_NAME),
				 errhint("prometheus_set_tool('my_function(int)', name => 'my_tool') gives it another one.")));
	if (prom_builtin_find(name) != NULL ||
		strcmp(name, PROM_COMMISSION_TOOL) == 0 ||
		strcmp(name, PROM_EVOLUTION_TOOL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("tool \"%s\" is built in", name),
				 errhint("name => '...' makes a tool of another name.")));
}

static char *
check_description(char *description)
{
	if (description != NULL && strlen(description) > MAX_DESCRIPTION)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("the description of a tool is too long"),
						errdetail("It may have %d bytes.", MAX_DESCRIPTION)));
	return description;
}

/* The function's comment, or NULL. */
static char *
comment_of(Oid function)
{
	return GetComment(function, ProcedureRelationId, 0);
}

/*
 * Agents that have it run it as their run_as: who could put another function in
 * its place would need no membership in that role.
 */
static void
check_owner(const PromSetting *setting)
{
	if (setting->exists && !prom_setting_may_act_as_owner(setting))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for tool \"%s\"", setting->name),
				 errdetail("Agents may run it as another role; its owner is \"%s\".",
						   setting->owner),
				 errhint("Only who has that role may set it; a tool of another name can have the same function.")));
}

/* What is null keeps its value, as elsewhere. */
static char *
tier_argument(FunctionCallInfo fcinfo, int n, char *otherwise)
{
	char *tier = prom_setting_text(fcinfo, n, otherwise);

	if (tier == NULL)
		tier = "read";
	(void) read_tier(tier);
	return tier;
}

static char *
idempotent_argument(FunctionCallInfo fcinfo, int n, char *otherwise)
{
	if (!PG_ARGISNULL(n))
		return PG_GETARG_BOOL(n) ? "true" : "false";
	return otherwise != NULL ? otherwise : "false";
}

PG_FUNCTION_INFO_V1(prom_set_tool);

Datum
prom_set_tool(PG_FUNCTION_ARGS)
{
	char *path = prom_setting_search_path();
	char *name = prom_setting_text(fcinfo, 1, NULL);
	Oid function = PG_ARGISNULL(0) ? InvalidOid : PG_GETARG_OID(0);
	char *texts[PROM_SETTING_COLUMNS];
	PromSetting setting;

	if (!OidIsValid(function))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("a tool must have a function")));
	if (name == NULL)
		name = get_func_name(function);
	prom_setting_check(&tool_kind, "prometheus_set_tool", name);
	prom_signature_require(function);
	prom_tool_check_name(name);
	prom_setting_begin(&setting, &tool_kind, name);
	check_owner(&setting);
	texts[TOOL_FUNCTION] = prom_signature_text(function);
	texts[TOOL_SEARCH_PATH] = path;
	texts[TOOL_HASH] = prom_signature_hash(function);
	texts[TOOL_DESCRIPTION] =
		check_description(prom_setting_text(fcinfo, 2,
											setting.columns[TOOL_DESCRIPTION]));
	if (texts[TOOL_DESCRIPTION] == NULL)
		texts[TOOL_DESCRIPTION] = check_description(comment_of(function));
	texts[TOOL_TIER] = tier_argument(fcinfo, 3, setting.columns[TOOL_TIER]);
	texts[TOOL_IDEMPOTENT] =
		idempotent_argument(fcinfo, 4, setting.columns[TOOL_IDEMPOTENT]);
	texts[TOOL_SCHEMA] = prom_signature_schema(function);
	texts[TOOL_KIND] = "function";
	texts[TOOL_METHOD] = texts[TOOL_URL] = texts[TOOL_SECRET] = NULL;
	texts[TOOL_TASK_ID] = NULL;
	PG_RETURN_INT64(prom_setting_end(&setting, texts,
									 prom_setting_merge(&setting, NULL)));
}

/* SHA-256 of what decides where a call goes, in hexadecimal. */
static char *
endpoint_hash(char **texts)
{
	const char *secret = texts[TOOL_SECRET];
	char *what = psprintf("%s %s %s", texts[TOOL_METHOD], texts[TOOL_URL],
						  secret == NULL ? "" : secret);
	Datum digest = DirectFunctionCall1(sha256_bytea,
									   CStringGetTextDatum(what));

	return TextDatumGetCString(DirectFunctionCall2(
		binary_encode, digest, CStringGetTextDatum("hex")));
}

PG_FUNCTION_INFO_V1(prom_set_http_tool);

Datum
prom_set_http_tool(PG_FUNCTION_ARGS)
{
	char *name = prom_setting_text(fcinfo, 0, NULL);
	Jsonb *schema = prom_setting_jsonb(fcinfo, 3);
	char *texts[PROM_SETTING_COLUMNS];
	PromSetting setting;
	bool is_http;

	prom_setting_check(&tool_kind, "prometheus_set_http_tool", name);
	prom_tool_check_name(name);
	prom_setting_begin(&setting, &tool_kind, name);
	check_owner(&setting);
	is_http = setting.exists && strcmp(setting.columns[TOOL_KIND], "http") == 0;
	texts[TOOL_METHOD] = prom_setting_text(fcinfo, 1,
										   setting.columns[TOOL_METHOD]);
	texts[TOOL_URL] = prom_setting_text(fcinfo, 2, setting.columns[TOOL_URL]);
	texts[TOOL_SCHEMA] = is_http ? setting.columns[TOOL_SCHEMA] : NULL;
	if (schema != NULL)
		texts[TOOL_SCHEMA] = JsonbToCString(NULL, &schema->root,
											VARSIZE(schema));
	texts[TOOL_DESCRIPTION] =
		check_description(prom_setting_text(fcinfo, 4,
											setting.columns[TOOL_DESCRIPTION]));
	texts[TOOL_TIER] = tier_argument(fcinfo, 5, setting.columns[TOOL_TIER]);
	texts[TOOL_SECRET] = prom_setting_text(fcinfo, 6,
										   setting.columns[TOOL_SECRET]);
	texts[TOOL_IDEMPOTENT] =
		idempotent_argument(fcinfo, 7, setting.columns[TOOL_IDEMPOTENT]);
	prom_endpoint_check(texts[TOOL_METHOD], texts[TOOL_URL],
						texts[TOOL_SCHEMA]);
	prom_agent_check_secret(texts[TOOL_SECRET]);
	texts[TOOL_FUNCTION] = NULL;
	texts[TOOL_SEARCH_PATH] = "pg_catalog, pg_temp";
	texts[TOOL_HASH] = endpoint_hash(texts);
	texts[TOOL_KIND] = "http";
	texts[TOOL_TASK_ID] = NULL;
	PG_RETURN_INT64(prom_setting_end(&setting, texts,
									 prom_setting_merge(&setting, NULL)));
}


/* Tools that were made (workshop.c). */

static void
check_may_make(const PromSetting *setting)
{
	check_owner(setting);
	if (setting->exists && setting->columns[TOOL_TASK_ID] == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("tool \"%s\" exists, and was not made by a task",
						setting->name),
				 errhint("The option name gives the new one another name.")));
}

void
prom_tool_check_made(const char *name)
{
	PromSetting setting;

	prom_setting_check(&tool_kind, "prometheus_create_tool", name);
	prom_tool_check_name(name);
	prom_setting_begin(&setting, &tool_kind, name);
	check_may_make(&setting);
	prom_setting_leave(&setting);
}

int64
prom_tool_add_made(const char *name, Oid function, const char *description,
				   int64 task_id, bool must_be_new)
{
	char *texts[PROM_SETTING_COLUMNS] = {NULL};
	PromSetting setting;

	prom_setting_check(&tool_kind, "prometheus_create_tool", name);
	prom_tool_check_name(name);
	prom_signature_require(function);
	prom_setting_begin(&setting, &tool_kind, name);
	check_may_make(&setting);
	if (must_be_new && setting.exists)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("there is a tool \"%s\" already", name),
						errhint("Give the function another name.")));
	texts[TOOL_FUNCTION] = prom_signature_text(function);
	texts[TOOL_SEARCH_PATH] = "pg_catalog, pg_temp";
	texts[TOOL_HASH] = prom_signature_hash(function);
	texts[TOOL_DESCRIPTION] = check_description(pstrdup(description));
	texts[TOOL_TIER] = "read";
	texts[TOOL_IDEMPOTENT] = "true";
	texts[TOOL_SCHEMA] = prom_signature_schema(function);
	texts[TOOL_KIND] = "function";
	texts[TOOL_TASK_ID] = psprintf("%lld", (long long) task_id);
	return prom_setting_end(&setting, texts,
							prom_setting_merge(&setting, NULL));
}

/* What it was when it was set must be there still. */
static void
check_is_there(const PromSetting *setting, int64 version, char **texts)
{
	Oid function;
	char *hash;

	if (texts[TOOL_FUNCTION] == NULL)
		return;
	function = prom_signature_find(texts[TOOL_FUNCTION]);
	hash = OidIsValid(function) ? prom_signature_hash(function) : NULL;
	if (hash == NULL || strcmp(hash, texts[TOOL_HASH]) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("version %lld of tool \"%s\" cannot be restored",
						(long long) version, setting->name),
				 errdetail("Function %s was %s since.", texts[TOOL_FUNCTION],
						   hash == NULL ? "dropped" : "changed")));
}

PG_FUNCTION_INFO_V1(prom_restore_tool);

Datum
prom_restore_tool(PG_FUNCTION_ARGS)
{
	char *name = prom_setting_text(fcinfo, 0, NULL);
	char *texts[PROM_SETTING_COLUMNS];
	PromSetting setting;
	int64 version;

	prom_setting_check(&tool_kind, "prometheus_restore_tool", name);
	prom_tool_check_name(name);
	prom_setting_begin(&setting, &tool_kind, name);
	check_owner(&setting);
	if (!setting.exists)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("tool \"%s\" does not exist", name),
						errhint("SELECT name FROM prometheus.tool lists them.")));
	version = PG_ARGISNULL(1) ? setting.version : PG_GETARG_INT64(1);
	if (!prom_setting_read(&setting, version, texts))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("tool \"%s\" has no version %lld", name,
							   (long long) version),
						errdetail("Its newest one is %lld.",
								  (long long) setting.version)));
	check_is_there(&setting, version, texts);
	PG_RETURN_INT64(prom_setting_end(&setting, texts,
									 prom_setting_merge(&setting, NULL)));
}

static PromStatement recent_statement = {
	"SELECT count(*), count(*) FILTER (WHERE r.status = 'ok')"
	" FROM (SELECT s.status FROM prometheus._step s"
	"   WHERE s.name = $1 AND s.tool_version = $2"
	"   ORDER BY s.event_id DESC LIMIT $3) r",
	3,
	{TEXTOID, INT8OID, INT8OID},
	NULL,
};

static bool
is_retired(int64 calls, int64 good)
{
	return calls >= RETIRE_CALLS / 2 && good * 2 < calls;
}

const char *
prom_tool_retired(const PromTool *tool)
{
	Datum values[3];
	int64 calls;
	int64 good;

	if (tool->task_id == 0)
		return NULL;
	values[0] = CStringGetTextDatum(tool->name);
	values[1] = Int64GetDatum(tool->version);
	values[2] = Int64GetDatum(RETIRE_CALLS);
	prom_statement_run(&recent_statement, values, NULL, true);
	calls = prom_row_int64(0, 1);
	good = prom_row_int64(0, 2);
	SPI_freetuptable(SPI_tuptable);
	if (!is_retired(calls, good))
		return NULL;
	return psprintf("tool \"%s\" is retired: of its last %lld calls, %lld succeeded",
					tool->name, (long long) calls, (long long) good);
}

/* The same by what is committed now, also without the oldest of them. */
static const char counts_sql[] =
	"SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE r.ok),"
	" coalesce(pg_catalog.bool_or(r.ok)"
	"   FILTER (WHERE r.place OPERATOR(pg_catalog.=) $3), false)"
	" FROM (SELECT l.status OPERATOR(pg_catalog.=) 'ok' AS ok,"
	"     pg_catalog.row_number() OVER (ORDER BY l.event_id DESC) AS place"
	"   FROM (SELECT s.status, s.event_id FROM prometheus._step s"
	"     WHERE s.name OPERATOR(pg_catalog.=) $1"
	"       AND s.tool_version OPERATOR(pg_catalog.=) $2"
	"     ORDER BY s.event_id DESC LIMIT $3) l) r";

static const char owner_sql[] =
	"SELECT t.owner, t.owner_oid FROM prometheus._tool t"
	" WHERE t.name OPERATOR(pg_catalog.=) $1"
	"   AND t.version OPERATOR(pg_catalog.=) $2";

/* For who owns the tool, and who sees the task. */
static void
tell_retired(const PromTool *tool, int64 task_id, const char *agent,
			 int64 calls, int64 good)
{
	Oid types[2] = {TEXTOID, INT8OID};
	Datum values[2] = {CStringGetTextDatum(tool->name),
					   Int64GetDatum(tool->version)};
	PromMemoryOwner owner = {.agent = agent};
	StringInfoData json;

	if (prom_execute_now(owner_sql, 2, types, values, NULL, true) !=
			SPI_OK_SELECT ||
		SPI_processed != 1)
		return;
	owner.name = prom_row_text(0, 1);
	owner.oid = prom_row_oid(0, 2);
	initStringInfo(&json);
	appendStringInfoString(&json, "{\"tool\": ");
	escape_json(&json, tool->name);
	appendStringInfo(&json, ", \"version\": %lld, \"calls\": %lld, \"succeeded\": %lld}",
					 (long long) tool->version, (long long) calls,
					 (long long) good);
	(void) prom_event_add_of(&owner, task_id, "tool.retired", json.data,
							 psprintf("tool/%s", tool->name));
	prom_wakeup_publisher();
}

/* Failures of a tool are counted one after another: one of them retires it. */
void
prom_tool_failed(const PromTool *tool, int64 task_id, const char *agent)
{
	Oid types[3] = {TEXTOID, INT8OID, INT8OID};
	Datum values[3] = {CStringGetTextDatum(tool->name),
					   Int64GetDatum(tool->version),
					   Int64GetDatum(RETIRE_CALLS)};
	int64 calls;
	int64 good;

	LockDatabaseObject(prom_setting_relation(&tool_kind),
					   prom_hash_name(tool->name), (uint16) tool->version,
					   ExclusiveLock);
	if (prom_execute_now(counts_sql, 3, types, values, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._step");
	calls = prom_row_int64(0, 1);
	good = prom_row_int64(0, 2);
	if (is_retired(calls, good))
		return;
	if (calls == RETIRE_CALLS)
		good -= prom_row_bool(0, 3) ? 1 : 0;
	else
		calls++;
	if (is_retired(calls, good))
		tell_retired(tool, task_id, agent, calls, good);
}


/* Versions. */

static void *
make_tool(const char *name, int64 version)
{
	PromTool *tool = palloc0(sizeof(PromTool));

	tool->name = pstrdup(name);
	tool->version = version;
	tool->function = prom_row_text_or_null(0, 1);
	tool->search_path = prom_row_text(0, 2);
	tool->hash = prom_row_text(0, 3);
	tool->description = prom_row_text_or_null(0, 4);
	tool->tier = read_tier(prom_row_text(0, 5));
	tool->idempotent = prom_row_bool(0, 6);
	tool->schema = prom_row_text(0, 7);
	tool->is_builtin = strcmp(prom_row_text(0, 8), "builtin") == 0;
	tool->is_http = strcmp(prom_row_text(0, 8), "http") == 0;
	tool->method = prom_row_text_or_null(0, 9);
	tool->url = prom_row_text_or_null(0, 10);
	tool->secret = prom_row_text_or_null(0, 11);
	tool->task_id = prom_row_int64_or(0, 12, 0);
	return tool;
}

static PromVersions tool_versions = {
	.statement = {
		"SELECT function, search_path, hash, description, tier, idempotent,"
		" schema::pg_catalog.text, kind, method, url, secret, task_id"
		" FROM prometheus._tool"
		" WHERE name OPERATOR(pg_catalog.=) $1"
		" AND version OPERATOR(pg_catalog.=) $2",
		2,
		{TEXTOID, INT8OID},
		NULL,
	},
	.make = make_tool,
};

const PromTool *
prom_tool_version(const char *name, int64 version)
{
	return prom_version_get(&tool_versions, name, version);
}

PromTool *
prom_tool_read(const char *name, int64 version)
{
	return prom_version_read(&tool_versions, name, version);
}

static PromStatement pin_statement = {
	"SELECT coalesce((SELECT x.tool_versions FROM prometheus._attempt x"
	"   WHERE x.task_id = $1 AND x.attempt > $2"
	"     AND x.tool_versions IS NOT NULL ORDER BY x.attempt LIMIT 1),"
	" (SELECT array_agg((SELECT t.version FROM prometheus._tool t"
	"    WHERE t.name = u.name ORDER BY t.version DESC LIMIT 1)"
	"    ORDER BY u.place)"
	"  FROM unnest($3) WITH ORDINALITY AS u(name, place)))",
	3,
	{INT8OID, INT4OID, TEXTARRAYOID},
	NULL,
};

ArrayType *
prom_tool_pin(int64 task_id, int32 retried_attempt, const char **names, int n)
{
	Datum *elements = palloc(n * sizeof(Datum));
	Datum values[3] = {Int64GetDatum(task_id), Int32GetDatum(retried_attempt)};
	ArrayType *versions;

	for (int i = 0; i < n; i++)
		elements[i] = CStringGetTextDatum(names[i]);
	values[2] = PointerGetDatum(
		construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT));
	prom_statement_run(&pin_statement, values, NULL, false);
	versions = prom_row_array_or_null(0, 1);
	SPI_freetuptable(SPI_tuptable);
	return versions;
}
