/*
 * agent.c
 *	  Sets agents and models, and gives workers the versions that they ask for.
 *
 * Setting writes a new version, dense from 1, under a lock of that name held
 * to the end of the transaction; the newest version is what counts.  The
 * functions run as the caller, who must be a member of the admin role, and
 * become the extension's owner only around their own statements, in which
 * every name and operator is qualified.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "agent.h"
#include "compat.h"
#include "extension.h"
#include "guc.h"
#include "option.h"
#include "role.h"
#include "secret.h"
#include "shmem.h"
#include "task.h"
#include "wakeup.h"
#include "xact.h"

/* The new version of a thing, and the role that is to be restored. */
typedef struct Setting
{
	PromOwner before;
	bool exists;      /* else what follows is of no version */
	int64 version;    /* the newest; 0: none */
	char *columns[6]; /* of the newest, in the order asked for */
	Oid owner_oid;
	char *owner;
	Jsonb *options;
} Setting;

static MemoryContext cache = NULL;
static List *agents = NIL;
static List *models = NIL;

static void
check_name(const char *kind, const char *name)
{
	if (name == NULL || *name == '\0' || strlen(name) > PROM_MAX_NAME)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the name of %s must have 1 to %d bytes", kind,
							   PROM_MAX_NAME)));
}

/*
 * Lock the name, become the extension's owner, and read the newest version:
 * version, owner_oid, owner, options, then the columns of the thing.
 */
static void
begin_setting(Setting *setting, const char *table, const char *columns,
			  int ncolumns, const char *name)
{
	Oid namespace = get_namespace_oid("prometheus", false);
	Oid relid = get_relname_relid(table, namespace);
	uint32 hash = hash_bytes((const unsigned char *) name, strlen(name));
	MemoryContext context = CurrentMemoryContext;
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(name);
	HeapTuple row;
	TupleDesc desc;
	bool isnull;

	memset(setting, 0, sizeof(*setting));
	LockDatabaseObject(relid, hash, 0, ShareUpdateExclusiveLock);
	SPI_connect();
	prom_role_become_owner(&setting->before);
	if (prom_execute_now(
			psprintf("SELECT version, owner_oid, owner, options, %s FROM prometheus.%s"
					 " WHERE name OPERATOR(pg_catalog.=) $1 ORDER BY version DESC LIMIT 1",
					 columns, table),
			1, &type, &value, NULL, true) != SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus.%s", table);
	if (SPI_processed == 0)
		return;
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	setting->exists = true;
	setting->version = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
	setting->owner_oid = DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull));
	setting->owner = MemoryContextStrdup(context, SPI_getvalue(row, desc, 3));
	setting->options = DatumGetJsonbPCopy(SPI_getbinval(row, desc, 4, &isnull));
	for (int i = 0; i < ncolumns; i++)
	{
		char *text = SPI_getvalue(row, desc, 5 + i);

		setting->columns[i] = text == NULL ? NULL
										   : MemoryContextStrdup(context, text);
	}
}

static int64
end_setting(Setting *setting)
{
	SPI_finish();
	prom_role_restore(&setting->before);
	return setting->version + 1;
}

/* The options of before with the new ones; a null takes one away. */
static Jsonb *
merge_options(const Setting *setting, Jsonb *given)
{
	Jsonb *base = setting->options;
	Oid types[2] = {JSONBOID, JSONBOID};
	Datum values[2];
	bool isnull;

	if (base == NULL)
		base = DatumGetJsonbP(
			DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
	if (given == NULL)
		return base;
	if (!JB_ROOT_IS_OBJECT(given))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("options must be a json object")));
	values[0] = JsonbPGetDatum(base);
	values[1] = JsonbPGetDatum(given);
	if (SPI_execute_with_args(
			"SELECT pg_catalog.jsonb_strip_nulls($1 OPERATOR(pg_catalog.||) $2)",
			2, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not merge options");
	return DatumGetJsonbPCopy(SPI_getbinval(SPI_tuptable->vals[0],
											SPI_tuptable->tupdesc, 1, &isnull));
}

/*
 * Insert the next version: name, owner and options, and the texts of the
 * thing's own columns.
 */
static void
insert_version(Setting *setting, const char *table, const char *name,
			   const char *columns, const char *places, char **texts,
			   int ntexts, Jsonb *options)
{
	Oid types[11] = {INT8OID, OIDOID, TEXTOID, TEXTOID, JSONBOID};
	Datum values[11];
	char nulls[11];
	Oid owner = setting->exists ? setting->owner_oid : setting->before.user;
	const char *owner_name = setting->owner;

	if (!setting->exists)
		owner_name = GetUserNameFromId(setting->before.user, false);
	memset(nulls, ' ', sizeof(nulls));
	values[0] = Int64GetDatum(setting->version + 1);
	values[1] = ObjectIdGetDatum(owner);
	values[2] = CStringGetTextDatum(owner_name);
	values[3] = CStringGetTextDatum(name);
	values[4] = JsonbPGetDatum(options);
	for (int i = 0; i < ntexts; i++)
	{
		types[5 + i] = TEXTOID;
		nulls[5 + i] = texts[i] == NULL ? 'n' : ' ';
		values[5 + i] = texts[i] == NULL ? (Datum) 0
										 : CStringGetTextDatum(texts[i]);
	}
	if (SPI_execute_with_args(
			psprintf("INSERT INTO prometheus.%s"
					 " (version, xid, mark, set_at, owner_oid, owner, name, options, %s)"
					 " VALUES ($1, prometheus._xid(), 0,"
					 " pg_catalog.clock_timestamp(), $2, $3, $4, $5, %s)",
					 table, columns, places),
			5 + ntexts, types, values, nulls, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write prometheus.%s", table);
}

/* A text that was not given keeps its value, an empty one takes it away. */
static char *
text_argument(FunctionCallInfo fcinfo, int n, char *otherwise)
{
	char *given;

	if (PG_ARGISNULL(n))
		return otherwise;
	given = text_to_cstring(PG_GETARG_TEXT_PP(n));
	return *given == '\0' ? NULL : given;
}

static Jsonb *
jsonb_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : PG_GETARG_JSONB_P(n);
}

static const char endpoint_hint[] =
	"An endpoint is the base address of the API, such as https://api.openai.com/v1.";

static pg_noreturn void
raise_endpoint(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the endpoint cannot be used"), errdetail("%s", detail),
			 errhint("%s", endpoint_hint)));
	pg_unreachable();
}

/* Is what follows the host, up to the path, nothing or a port? */
static bool
has_good_port(const char *host)
{
	const char *port = host + strcspn(host, *host == '[' ? "]" : ":/");
	long number;
	char *end;

	if (*port == ']')
		port++;
	if (*port == '/' || *port == '\0')
		return true;
	if (*port != ':' || port[1] < '0' || port[1] > '9')
		return false;
	number = strtol(port + 1, &end, 10);
	return number >= 1 && number <= 65535 && (*end == '/' || *end == '\0');
}

/* The endpoint without its last slashes.  No message quotes it. */
static char *
check_endpoint(const char *endpoint)
{
	char *copy = pstrdup(endpoint);
	const char *host;
	size_t length = strlen(copy);

	if (pg_strncasecmp(copy, "https://", 8) == 0)
		host = copy + 8;
	else if (pg_strncasecmp(copy, "http://", 7) == 0)
		host = copy + 7;
	else
		raise_endpoint(
			"It must begin with https:// (or http:// at a private address).");
	for (const char *c = copy; *c != '\0'; c++)
		if ((unsigned char) *c <= ' ' || *c == 0x7f)
			raise_endpoint("It must not contain blanks or control characters.");
	if (*host == '\0' || *host == '/' || *host == ':')
		raise_endpoint("It has no host.");
	if (strcspn(host, "@") < strcspn(host, "/"))
		raise_endpoint("It must not contain a user name or a password.");
	if (strpbrk(host, "?#") != NULL)
		raise_endpoint("It must not contain a query or a fragment.");
	if (!has_good_port(host))
		raise_endpoint("Its host may be followed by a port from 1 to 65535 and a path.");
	while (length > 0 && copy[length - 1] == '/')
		copy[--length] = '\0';
	return copy;
}

static void
check_model(const char *api, char **endpoint, const char *secret)
{
	if (api == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("a model must have an api"),
						errhint("The APIs are openai and echo.")));
	if (strcmp(api, "openai") != 0 && strcmp(api, "echo") != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("api \"%s\" does not exist", api),
						errhint("The APIs are openai and echo.")));
	if (strcmp(api, "echo") == 0 && (*endpoint != NULL || secret != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a model of api \"echo\" has no endpoint and no secret"),
				 errhint("endpoint => '', secret => '' takes them away.")));
	if (strcmp(api, "openai") == 0 && *endpoint == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("a model of api \"%s\" needs an endpoint", api),
				 errhint("%s", endpoint_hint)));
	if (*endpoint != NULL)
		*endpoint = check_endpoint(*endpoint);
	if (secret != NULL && !prom_secret_check_name(secret))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the secret is not the name of one"),
				 errdetail("It must be NAME, a file in prometheus.secrets_dir, or env:NAME, a variable of the server's environment."),
				 errhint("Never give a key itself: statements are logged.")));
}

/*
 * The scheduler is to know of a new version: what closed a model's gate was
 * the one before; and what waits for an agent's model may have another.
 */
static void
tell_scheduler(const char *agent, const char *model)
{
	PromHint hint = {0};

	hint.kind = PROM_HINT_GATES;
	hint.target.agent = agent == NULL ? 0 : prom_hash_name(agent);
	hint.target.model = model == NULL ? 0 : prom_hash_name(model);
	prom_wakeup_hint(&hint);
}

PG_FUNCTION_INFO_V1(prom_set_model);

Datum
prom_set_model(PG_FUNCTION_ARGS)
{
	char *name = text_argument(fcinfo, 0, NULL);
	Jsonb *options = jsonb_argument(fcinfo, 5);
	Setting setting;
	char *texts[4];

	prom_role_require_admin("prometheus_set_model");
	PreventCommandDuringRecovery("prometheus_set_model()");
	PreventCommandIfReadOnly("prometheus_set_model()");
	check_name("a model", name);
	begin_setting(&setting, "_model", "api, endpoint, model, secret", 4, name);
	for (int i = 0; i < 4; i++)
		texts[i] = text_argument(fcinfo, 1 + i, setting.columns[i]);
	check_model(texts[0], &texts[1], texts[3]);
	if (options != NULL)
		prom_option_check_model(options);
	options = merge_options(&setting, options);
	insert_version(&setting, "_model", name, "api, endpoint, model, secret",
				   "$6, $7, $8, $9", texts, 4, options);
	tell_scheduler(NULL, name);
	PG_RETURN_INT64(end_setting(&setting));
}

static const char models_hint[] =
	"SELECT name FROM prometheus.model lists them; prometheus_set_model() makes one.";

static void
check_model_exists(const char *model)
{
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(model);

	if (prom_execute_now(
			"SELECT FROM prometheus._model WHERE name OPERATOR(pg_catalog.=) $1 LIMIT 1",
			1, &type, &value, NULL, true) != SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._model");
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("model \"%s\" does not exist", model),
				 errhint("%s", models_hint)));
}

/* As long as a request may be: both go into one message. */
static void
check_instructions(const char *instructions)
{
	size_t length = instructions == NULL ? 0 : strlen(instructions);

	if (length > (size_t) prom_guc_max_request * 1024)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("instructions are too long"),
				 errdetail("They have %zu bytes; the limit is %d kB.", length,
						   prom_guc_max_request),
				 errhint("An administrator can raise prometheus.max_request.")));
}

PG_FUNCTION_INFO_V1(prom_set_agent);

Datum
prom_set_agent(PG_FUNCTION_ARGS)
{
	char *name = text_argument(fcinfo, 0, NULL);
	Jsonb *options = jsonb_argument(fcinfo, 4);
	Setting setting;
	char *texts[3];

	prom_role_require_admin("prometheus_set_agent");
	PreventCommandDuringRecovery("prometheus_set_agent()");
	PreventCommandIfReadOnly("prometheus_set_agent()");
	check_name("an agent", name);
	begin_setting(&setting, "_agent", "model, instructions, mode", 3, name);
	for (int i = 0; i < 3; i++)
		texts[i] = text_argument(fcinfo, 1 + i, setting.columns[i]);
	if (texts[0] == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("an agent must have a model"),
						errhint("%s", models_hint)));
	check_model_exists(texts[0]);
	check_instructions(texts[1]);
	if (texts[2] == NULL)
		texts[2] = "fast";
	prom_task_check_mode(texts[2]);
	if (options != NULL)
		prom_option_check_agent(options);
	options = merge_options(&setting, options);
	insert_version(&setting, "_agent", name, "model, instructions, mode",
				   "$6, $7, $8", texts, 3, options);
	tell_scheduler(name, NULL);
	PG_RETURN_INT64(end_setting(&setting));
}

static MemoryContext
cache_context(void)
{
	if (cache == NULL)
		cache = AllocSetContextCreate(TopMemoryContext, "prometheus agents",
									  ALLOCSET_SMALL_SIZES);
	return cache;
}

void
prom_agent_forget(void)
{
	if (cache != NULL)
		MemoryContextReset(cache);
	agents = models = NIL;
}

int
prom_agent_cached(void)
{
	return list_length(agents) + list_length(models);
}

static PromStatement agent_statement = {
	"SELECT model, mode, instructions FROM prometheus._agent"
	" WHERE name OPERATOR(pg_catalog.=) $1"
	" AND version OPERATOR(pg_catalog.=) $2",
	2,
	{TEXTOID, INT8OID},
	NULL,
};

static PromStatement model_statement = {
	"SELECT api, endpoint, model, secret, options FROM prometheus._model"
	" WHERE name OPERATOR(pg_catalog.=) $1"
	" AND version OPERATOR(pg_catalog.=) $2",
	2,
	{TEXTOID, INT8OID},
	NULL,
};

/*
 * Run one of the two above; there is exactly one row, or an error.  Not
 * read-only: a version that came after the transaction's snapshot is there too.
 */
static void
read_version(PromStatement *statement, const char *name, int64 version,
			 bool read_only)
{
	Datum values[2] = {CStringGetTextDatum(name), Int64GetDatum(version)};

	prom_statement_run(statement, values, NULL, read_only);
	if (SPI_processed != 1)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("\"%s\" has no version %lld", name,
							   (long long) version)));
}

/* What read_version() found, in the current context. */
static PromAgent *
make_agent(const char *name, int64 version)
{
	PromAgent *agent = palloc0(sizeof(PromAgent));

	agent->name = pstrdup(name);
	agent->version = version;
	agent->model = prom_row_text(0, 1);
	agent->mode = prom_row_text(0, 2);
	agent->instructions = prom_row_text_or_null(0, 3);
	return agent;
}

static PromModel *
make_model(const char *name, int64 version)
{
	PromModel *model = palloc0(sizeof(PromModel));
	bool isnull;

	model->name = pstrdup(name);
	model->version = version;
	model->api = prom_row_text(0, 1);
	model->endpoint = prom_row_text_or_null(0, 2);
	model->model = prom_row_text_or_null(0, 3);
	model->secret = prom_row_text_or_null(0, 4);
	prom_option_read_model(DatumGetJsonbP(SPI_getbinval(SPI_tuptable->vals[0],
														SPI_tuptable->tupdesc,
														5, &isnull)),
						   model);
	return model;
}

PromAgent *
prom_agent_read(const char *name, int64 version)
{
	read_version(&agent_statement, name, version, true);
	return make_agent(name, version);
}

PromModel *
prom_model_read(const char *name, int64 version)
{
	read_version(&model_statement, name, version, true);
	return make_model(name, version);
}

const PromAgent *
prom_agent_version(const char *name, int64 version)
{
	ListCell *cell;
	PromAgent *agent;
	MemoryContext before;

	foreach(cell, agents)
	{
		agent = lfirst(cell);
		if (agent->version == version && strcmp(agent->name, name) == 0)
			return agent;
	}
	read_version(&agent_statement, name, version, false);
	before = MemoryContextSwitchTo(cache_context());
	agent = make_agent(name, version);
	agents = lappend(agents, agent);
	MemoryContextSwitchTo(before);
	return agent;
}

const PromModel *
prom_model_version(const char *name, int64 version)
{
	ListCell *cell;
	PromModel *model;
	MemoryContext before;

	foreach(cell, models)
	{
		model = lfirst(cell);
		if (model->version == version && strcmp(model->name, name) == 0)
			return model;
	}
	read_version(&model_statement, name, version, false);
	before = MemoryContextSwitchTo(cache_context());
	model = make_model(name, version);
	models = lappend(models, model);
	MemoryContextSwitchTo(before);
	return model;
}
