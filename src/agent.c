/*
 * agent.c
 *	  Sets agents and models, and gives workers the versions that they ask for.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

#include "agent.h"
#include "compat.h"
#include "guc.h"
#include "llm.h"
#include "option.h"
#include "provider/provider.h"
#include "secret.h"
#include "setting.h"
#include "shmem.h"
#include "signature.h"
#include "task.h"
#include "tool.h"
#include "url.h"
#include "wakeup.h"

static const PromSettingKind model_kind = {
	.called = "a model",
	.table = "_model",
	.columns = "api, endpoint, model, secret, handler, search_path, hash",
	.places = "$6, $7, $8, $9, $10, $11, $12",
	.ncolumns = 7,
};

static const PromSettingKind agent_kind = {
	.called = "an agent",
	.table = "_agent",
	.columns = "model, instructions, mode, tools, run_as, run_as_oid",
	.places = "$6, $7, $8, $9::pg_catalog.text[], $10, $11::pg_catalog.oid",
	.ncolumns = 6,
};

static const char endpoint_hint[] =
	"An endpoint is the base address of the API: https://api.openai.com/v1, https://api.anthropic.com/v1, https://generativelanguage.googleapis.com/v1beta, or your own server's.";

static pg_noreturn void
raise_endpoint(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the endpoint cannot be used"), errdetail("%s", detail),
			 errhint("%s", endpoint_hint)));
	pg_unreachable();
}

/* The endpoint without its last slashes.  No message quotes it. */
static char *
check_endpoint(const char *endpoint)
{
	char *copy = pstrdup(endpoint);
	const char *problem = prom_url_problem(copy);
	size_t length = strlen(copy);

	if (problem != NULL)
		raise_endpoint(problem);
	if (strpbrk(copy, "?#") != NULL)
		raise_endpoint("It must not contain a query or a fragment.");
	while (length > 0 && copy[length - 1] == '/')
		copy[--length] = '\0';
	return copy;
}

static const char apis_hint[] = "The APIs are openai, openai-responses, anthropic, gemini, function and echo.";

/* What a model of this api has: an endpoint and a key, or a handler. */
static void
check_api(const char *api, bool has_endpoint, bool has_secret,
		  bool has_handler)
{
	bool is_remote;
	bool is_function;

	if (api == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("a model must have an api"),
						errhint("%s", apis_hint)));
	is_remote = prom_provider_find(api) != NULL;
	is_function = prom_llm_is_function(api);
	if (!is_remote && !is_function && !prom_llm_is_local(api))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("api \"%s\" does not exist", api),
						errhint("%s", apis_hint)));
	if (!is_remote && (has_endpoint || has_secret))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a model of api \"%s\" has no endpoint and no secret",
						api),
				 errhint("endpoint => '', secret => '' takes them away.")));
	if (is_remote && !has_endpoint)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("a model of api \"%s\" needs an endpoint", api),
				 errhint("%s", endpoint_hint)));
	if (is_function && !has_handler)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("a model of api \"%s\" needs a handler", api),
				 errhint("A handler is a function f(jsonb) RETURNS jsonb, from a chat completions request to the reply.")));
	if (!is_function && has_handler)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a model of api \"%s\" has no handler", api),
				 errhint("handler => 0 takes it away.")));
}

void
prom_agent_check_secret(const char *secret)
{
	if (secret != NULL && !prom_secret_check_name(secret))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the secret is not the name of one"),
				 errdetail("It must be NAME, a file in prometheus.secrets_dir, or env:NAME, a variable of the server's environment."),
				 errhint("Never give a key itself: statements are logged.")));
}

/*
 * The handler runs as the model's owner: whoever sets it, or the path that it
 * runs with, must be able to act as that role anyway.
 */
static void
check_handler_owner(const PromSetting *setting)
{
	if (setting->exists && !prom_setting_may_act_as_owner(setting))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for model \"%s\"", setting->name),
				 errdetail("Its handler runs as its owner, \"%s\".",
						   setting->owner),
				 errhint("Only who has that role may set it; another model can have the same handler.")));
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

enum
{
	MODEL_API,
	MODEL_ENDPOINT,
	MODEL_MODEL,
	MODEL_SECRET,
	MODEL_HANDLER,
	MODEL_SEARCH_PATH,
	MODEL_HASH
};

PG_FUNCTION_INFO_V1(prom_set_model);

Datum
prom_set_model(PG_FUNCTION_ARGS)
{
	char *name = prom_setting_text(fcinfo, 0, NULL);
	char *path = prom_setting_search_path();
	Jsonb *options = prom_setting_jsonb(fcinfo, 6);
	PromSetting setting;
	char *texts[PROM_SETTING_COLUMNS];
	char *handler = NULL;

	prom_setting_check(&model_kind, "prometheus_set_model", name);
	if (!PG_ARGISNULL(5) && OidIsValid(PG_GETARG_OID(5)))
		handler = prom_signature_of_model(PG_GETARG_OID(5));
	prom_setting_begin(&setting, &model_kind, name);
	for (int i = 0; i < MODEL_HANDLER; i++)
		texts[i] = prom_setting_text(fcinfo, 1 + i, setting.columns[i]);
	texts[MODEL_HANDLER] = PG_ARGISNULL(5) ? setting.columns[MODEL_HANDLER]
										   : handler;
	texts[MODEL_SEARCH_PATH] = PG_ARGISNULL(5)
								   ? setting.columns[MODEL_SEARCH_PATH]
								   : path;
	check_api(texts[MODEL_API], texts[MODEL_ENDPOINT] != NULL,
			  texts[MODEL_SECRET] != NULL, texts[MODEL_HANDLER] != NULL);
	prom_agent_check_secret(texts[MODEL_SECRET]);
	if (texts[MODEL_ENDPOINT] != NULL)
		texts[MODEL_ENDPOINT] = check_endpoint(texts[MODEL_ENDPOINT]);
	texts[MODEL_HASH] = setting.columns[MODEL_HASH];
	if (handler != NULL)
		texts[MODEL_HASH] = prom_signature_hash(PG_GETARG_OID(5));
	if (texts[MODEL_HANDLER] != NULL)
		check_handler_owner(&setting);
	else
		texts[MODEL_SEARCH_PATH] = texts[MODEL_HASH] = NULL;
	if (options != NULL)
		prom_option_check_model(options);
	options = prom_setting_merge(&setting, options);
	prom_option_check_extra_body(options, texts[MODEL_API]);
	tell_scheduler(NULL, name);
	prom_wakeup_embedder();
	PG_RETURN_INT64(prom_setting_end(&setting, texts, options));
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

/* Only what is given now: that of before may have changed since. */
static void
check_embedding_model(const char *model)
{
	Oid type = TEXTOID;
	Datum value;

	if (model == NULL)
		return;
	check_model_exists(model);
	value = CStringGetTextDatum(model);
	if (prom_execute_now("SELECT m.api FROM prometheus._model m"
						 " WHERE m.name OPERATOR(pg_catalog.=) $1"
						 " ORDER BY m.version DESC LIMIT 1",
						 1, &type, &value, NULL, true) != SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._model");
	if (strcmp(prom_row_text(0, 1), "openai") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("model \"%s\" cannot make embeddings", model),
				 errdetail("Its api is \"%s\".", prom_row_text(0, 1)),
				 errhint("embedding_model must be of api openai, whose endpoint has /embeddings.")));
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

/* Every tool exists and is named once. */
static void
check_tools(ArrayType *tools)
{
	Oid type = TEXTARRAYOID;
	Datum value = PointerGetDatum(tools);
	char *name;

	if (prom_execute_now(
			"SELECT t FROM pg_catalog.unnest($1) t GROUP BY t"
			" HAVING t IS NULL OR pg_catalog.count(*) OPERATOR(pg_catalog.>) 1"
			" OR NOT EXISTS (SELECT FROM prometheus._tool x"
			"   WHERE x.name OPERATOR(pg_catalog.=) t) LIMIT 1",
			1, &type, &value, NULL, true) != SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._tool");
	if (SPI_processed == 0)
		return;
	name = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 name == NULL ? errmsg("the name of a tool is null")
						  : errmsg("tool \"%s\" does not exist, or is named twice",
								   name),
			 errhint("SELECT name FROM prometheus.tool lists them; prometheus_set_tool() makes one.")));
}

/* The tools that were given, as text; NULL: none. */
static char *
tools_argument(FunctionCallInfo fcinfo, int n, char *otherwise)
{
	ArrayType *tools;
	int count;

	if (PG_ARGISNULL(n))
		return otherwise;
	tools = PG_GETARG_ARRAYTYPE_P(n);
	count = ArrayGetNItems(ARR_NDIM(tools), ARR_DIMS(tools));
	if (count == 0)
		return NULL;
	if (ARR_NDIM(tools) > 1 || count > PROM_MAX_TOOLS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("tools must be an array of at most %d names",
						PROM_MAX_TOOLS)));
	check_tools(tools);
	return OidOutputFunctionCall(F_ARRAY_OUT, PointerGetDatum(tools));
}

/*
 * Whoever sets an agent can have its model do anything as this role, so he must
 * be able to act as it himself; and nobody sets an agent that acts as a
 * superuser.
 */
static Oid
check_run_as(const PromSetting *setting, const char *run_as)
{
	Oid role = get_role_oid(run_as, false);

	if (superuser_arg(role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("an agent must not run as superuser \"%s\"", run_as),
				 errhint("Make a role that may do just what the agent is for.")));
	if (!has_privs_of_role(setting->before.user, role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to run an agent as role \"%s\"",
						run_as),
				 errhint("Only members of that role may set such an agent.")));
	return role;
}

enum
{
	AGENT_MODEL,
	AGENT_INSTRUCTIONS,
	AGENT_MODE,
	AGENT_TOOLS,
	AGENT_RUN_AS,
	AGENT_RUN_AS_OID
};

PG_FUNCTION_INFO_V1(prom_set_agent);

Datum
prom_set_agent(PG_FUNCTION_ARGS)
{
	char *name = prom_setting_text(fcinfo, 0, NULL);
	Jsonb *options = prom_setting_jsonb(fcinfo, 6);
	PromSetting setting;
	char *texts[PROM_SETTING_COLUMNS];

	prom_setting_check(&agent_kind, "prometheus_set_agent", name);
	prom_setting_begin(&setting, &agent_kind, name);
	for (int i = 0; i < AGENT_TOOLS; i++)
		texts[i] = prom_setting_text(fcinfo, 1 + i, setting.columns[i]);
	if (texts[AGENT_MODEL] == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("an agent must have a model"),
						errhint("%s", models_hint)));
	check_model_exists(texts[AGENT_MODEL]);
	check_instructions(texts[AGENT_INSTRUCTIONS]);
	if (texts[AGENT_MODE] == NULL)
		texts[AGENT_MODE] = "fast";
	prom_task_check_mode(texts[AGENT_MODE]);
	texts[AGENT_TOOLS] = tools_argument(fcinfo, 4,
										setting.columns[AGENT_TOOLS]);
	texts[AGENT_RUN_AS] = prom_setting_text(fcinfo, 5,
											setting.columns[AGENT_RUN_AS]);
	texts[AGENT_RUN_AS_OID] = NULL;
	if (texts[AGENT_RUN_AS] != NULL)
		texts[AGENT_RUN_AS_OID] =
			psprintf("%u", check_run_as(&setting, texts[AGENT_RUN_AS]));
	if (options != NULL)
		prom_option_check_agent(options);
	check_embedding_model(prom_option_embedding_model(options));
	options = prom_setting_merge(&setting, options);
	tell_scheduler(name, NULL);
	if (prom_option_embedding_model(setting.options) != NULL ||
		prom_option_embedding_model(options) != NULL)
		prom_wakeup_embedder();
	PG_RETURN_INT64(prom_setting_end(&setting, texts, options));
}

/* Lock the agent, be the owner, and see whether who did may give it a tool. */
static void
begin_giving(PromSetting *setting, const char *agent)
{
	prom_setting_check(&agent_kind, "prometheus_create_tool", agent);
	prom_setting_begin(setting, &agent_kind, agent);
	if (!setting->exists)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("agent \"%s\" does not exist", agent)));
	if (!prom_setting_may_act_as_owner(setting))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for agent \"%s\"", agent),
				 errdetail("Its owner is \"%s\".", setting->owner),
				 errhint("Without the option assign the tool is made, and its owner can give it to the agent.")));
	if (setting->columns[AGENT_RUN_AS] != NULL)
		(void) check_run_as(setting, setting->columns[AGENT_RUN_AS]);
}

void
prom_agent_check_may_give(const char *agent)
{
	PromSetting setting;

	begin_giving(&setting, agent);
	prom_setting_leave(&setting);
}

/* Its tools with one more, as text; NULL: it has that one. */
static char *
add_tool(const char *tools, const char *tool)
{
	Oid types[2] = {TEXTOID, TEXTOID};
	Datum values[2] = {tools == NULL ? (Datum) 0 : CStringGetTextDatum(tools),
					   CStringGetTextDatum(tool)};
	const char *nulls = tools == NULL ? "n " : NULL;
	int count;

	if (prom_execute_now(
			"SELECT pg_catalog.array_append(x.tools, $2)::pg_catalog.text,"
			" pg_catalog.cardinality(x.tools)"
			" FROM (SELECT COALESCE($1::pg_catalog.text[], '{}') AS tools) x"
			" WHERE NOT $2 OPERATOR(pg_catalog.=) ANY (x.tools)",
			2, types, values, nulls, true) != SPI_OK_SELECT)
		elog(ERROR, "could not add a tool");
	if (SPI_processed == 0)
		return NULL;
	count = prom_row_int32(0, 2);
	if (count >= PROM_MAX_TOOLS)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("an agent may have %d tools", PROM_MAX_TOOLS)));
	return prom_row_text(0, 1);
}

void
prom_agent_give_tool(const char *agent, const char *tool)
{
	PromSetting setting;
	char *tools;

	begin_giving(&setting, agent);
	tools = add_tool(setting.columns[AGENT_TOOLS], tool);
	if (tools == NULL)
	{
		prom_setting_leave(&setting);
		return;
	}
	setting.columns[AGENT_TOOLS] = tools;
	tell_scheduler(agent, NULL);
	(void) prom_setting_end(&setting, setting.columns,
							prom_setting_merge(&setting, NULL));
}


/* Versions of agents and models. */

/* The names of an agent's tools, in its order. */
static void
read_tools(PromAgent *agent, ArrayType *tools)
{
	Datum *names;

	if (tools == NULL)
		return;
	deconstruct_array(tools, TEXTOID, -1, false, TYPALIGN_INT, &names, NULL,
					  &agent->ntools);
	agent->tools = palloc(agent->ntools * sizeof(char *));
	for (int i = 0; i < agent->ntools; i++)
		agent->tools[i] = TextDatumGetCString(names[i]);
}

static void *
make_agent(const char *name, int64 version)
{
	PromAgent *agent = palloc0(sizeof(PromAgent));

	agent->name = pstrdup(name);
	agent->version = version;
	agent->model = prom_row_text(0, 1);
	agent->mode = prom_row_text(0, 2);
	agent->instructions = prom_row_text_or_null(0, 3);
	read_tools(agent, prom_row_array_or_null(0, 4));
	agent->run_as = prom_row_text_or_null(0, 5);
	if (agent->run_as != NULL)
		agent->run_as_oid = prom_row_oid(0, 6);
	prom_option_read_agent(prom_row_jsonb_or_null(0, 7), agent);
	return agent;
}

static void *
make_model(const char *name, int64 version)
{
	PromModel *model = palloc0(sizeof(PromModel));

	model->name = pstrdup(name);
	model->version = version;
	model->api = prom_row_text(0, 1);
	model->endpoint = prom_row_text_or_null(0, 2);
	model->model = prom_row_text_or_null(0, 3);
	model->secret = prom_row_text_or_null(0, 4);
	model->handler = prom_row_text_or_null(0, 5);
	model->search_path = prom_row_text_or_null(0, 6);
	model->hash = prom_row_text_or_null(0, 7);
	model->owner = prom_row_text(0, 8);
	model->owner_oid = prom_row_oid(0, 9);
	prom_option_read_model(prom_row_jsonb_or_null(0, 10), model);
	if (prom_llm_is_function(model->api))
		model->stream = false;
	return model;
}

static PromVersions agent_versions = {
	.statement = {
		"SELECT model, mode, instructions, tools, run_as, run_as_oid, options"
		" FROM prometheus._agent WHERE name OPERATOR(pg_catalog.=) $1"
		" AND version OPERATOR(pg_catalog.=) $2",
		2,
		{TEXTOID, INT8OID},
		NULL,
	},
	.make = make_agent,
};

static PromVersions model_versions = {
	.statement = {
		"SELECT api, endpoint, model, secret, handler, search_path, hash, owner,"
		" owner_oid, options FROM prometheus._model"
		" WHERE name OPERATOR(pg_catalog.=) $1"
		" AND version OPERATOR(pg_catalog.=) $2",
		2,
		{TEXTOID, INT8OID},
		NULL,
	},
	.make = make_model,
};

PromAgent *
prom_agent_read(const char *name, int64 version)
{
	return prom_version_read(&agent_versions, name, version);
}

PromModel *
prom_model_read(const char *name, int64 version)
{
	return prom_version_read(&model_versions, name, version);
}

const PromAgent *
prom_agent_version(const char *name, int64 version)
{
	return prom_version_get(&agent_versions, name, version);
}

const PromModel *
prom_model_version(const char *name, int64 version)
{
	return prom_version_get(&model_versions, name, version);
}
