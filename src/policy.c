/*
 * policy.c
 *	  Sets policies, and gives workers the newest ones.
 *
 * Policies are always the newest, whichever versions a task is pinned to.  A
 * process reads all of them once and keeps them until a relcache invalidation
 * of prometheus._policy, which setting one sends with its commit.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "compat.h"
#include "judge.h"
#include "llm.h"
#include "policy.h"
#include "signature.h"

static const PromSettingKind policy_kind = {
	.called = "a policy",
	.table = "_policy",
	.columns = "stage, effect, condition, search_path, match, reason,"
			   " suggestion, reviewer, approvers, on_error, hash, approvers_oid",
	.places = "$6, $7, $8, $9, $10::pg_catalog.jsonb, $11, $12, $13, $14,"
			  " $15, $16, $17::pg_catalog.oid",
	.ncolumns = 12,
};

enum
{
	POLICY_STAGE,
	POLICY_EFFECT,
	POLICY_CONDITION,
	POLICY_SEARCH_PATH,
	POLICY_MATCH,
	POLICY_REASON,
	POLICY_SUGGESTION,
	POLICY_REVIEWER,
	POLICY_APPROVERS,
	POLICY_ON_ERROR,
	POLICY_HASH,
	POLICY_APPROVERS_OID
};

static const char *const stages[] = {
	[PROM_STAGE_TASK] = "task",
	[PROM_STAGE_TOOL] = "tool",
	[PROM_STAGE_ANSWER] = "answer",
};

static const char *const effects[] = {
	[PROM_EFFECT_OFF] = "off",
	[PROM_EFFECT_ALLOW] = "allow",
	[PROM_EFFECT_WARN] = "warn",
	[PROM_EFFECT_ESCALATE] = "escalate",
	[PROM_EFFECT_DENY] = "deny",
};

/* The effects that a condition which failed may have. */
static const char *const error_effects[] = {"allow", "warn", "deny"};

#define MODEL_PREFIX "model:"

static MemoryContext context = NULL;
static PromPolicies *kept = NULL;
static Oid kept_of = InvalidOid; /* the relation */
static bool is_stale = true;

const char *
prom_policy_stage_name(PromStage stage)
{
	return stages[stage];
}

const char *
prom_policy_effect_name(PromEffect effect)
{
	return effects[effect];
}

const char *
prom_policy_reviewer(const PromPolicy *policy)
{
	return strcmp(policy->reviewer, PROM_REVIEWER_OWN) == 0
			   ? NULL
			   : policy->reviewer + strlen(MODEL_PREFIX);
}

/* The number of a word among some; raises if it is none of them. */
static int
read_word(const char *what, const char *word, const char *const *words, int n)
{
	StringInfoData list;

	for (int i = 0; i < n; i++)
		if (word != NULL && strcmp(words[i], word) == 0)
			return i;
	initStringInfo(&list);
	for (int i = 0; i < n; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", words[i]);
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					word == NULL ? errmsg("a policy must have its %s", what)
								 : errmsg("%s \"%s\" does not exist", what, word),
					errhint("It is one of: %s.", list.data)));
	return 0;
}

/* The api of a model that is to review; raises if there is no such model. */
static const char *
find_api(const char *model)
{
	static const char find_sql[] =
		"SELECT m.api FROM prometheus._model m"
		" WHERE m.name OPERATOR(pg_catalog.=) $1"
		" ORDER BY m.version DESC LIMIT 1";
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(model);

	if (prom_execute_now(find_sql, 1, &type, &value, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._model");
	if (SPI_processed == 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("model \"%s\" does not exist", model),
						errhint("SELECT name FROM prometheus.model lists them.")));
	return prom_row_text(0, 1);
}

/* A reviewer that is a model. */
static void
check_reviewer(const char *reviewer, PromEffect effect, const char *condition)
{
	const char *model = NULL;

	if (strncmp(reviewer, MODEL_PREFIX, strlen(MODEL_PREFIX)) == 0)
		model = reviewer + strlen(MODEL_PREFIX);
	else if (strcmp(reviewer, PROM_REVIEWER_OWN) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("reviewer \"%s\" does not exist", reviewer),
				 errhint("It is rule, model (that of the agent which is reviewed), or model:NAME.")));
	if (effect == PROM_EFFECT_ALLOW)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a model as reviewer needs an effect for its doubts"),
				 errhint("It is deny, escalate or warn; or off.")));
	if (condition != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a policy whose reviewer is a model has no condition"),
				 errhint("Say by match to what it applies.")));
	if (model != NULL && prom_llm_is_local(find_api(model)))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("model \"%s\" cannot review", model),
						errdetail("It answers with the request.")));
}

static void
check_words(char **texts)
{
	PromStage stage = read_word("stage", texts[POLICY_STAGE], stages,
								lengthof(stages));
	PromEffect effect = read_word("effect", texts[POLICY_EFFECT], effects,
								  lengthof(effects));

	if (effect == PROM_EFFECT_ESCALATE && stage != PROM_STAGE_TOOL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("only a tool call can be escalated"),
				 errhint("Use effect deny or warn for the stages task and answer.")));
	(void) read_word("on_error", texts[POLICY_ON_ERROR], error_effects,
					 lengthof(error_effects));
	if (strcmp(texts[POLICY_REVIEWER], "rule") != 0)
		check_reviewer(texts[POLICY_REVIEWER], effect,
					   texts[POLICY_CONDITION]);
	if (texts[POLICY_APPROVERS] != NULL)
		(void) get_role_oid(texts[POLICY_APPROVERS], false);
}

/* A condition is f(jsonb) RETURNS boolean. */
static char *
check_condition(Oid function)
{
	char *signature = prom_signature_text(function);
	Oid *types;
	int ntypes;
	Oid result;

	prom_signature_require(function);
	result = get_func_signature(function, &types, &ntypes);
	if (ntypes != 1 || types[0] != JSONBOID || result != BOOLOID ||
		get_func_retset(function) ||
		get_func_prokind(function) != PROKIND_FUNCTION)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("function %s cannot be a condition", signature),
				 errhint("A condition is a function f(jsonb) RETURNS boolean of what is judged.")));
	return signature;
}

/* The condition runs as the policy's owner: see the same of a model. */
static void
check_owner(const PromSetting *setting)
{
	if (setting->exists &&
		!prom_setting_may_act_as_owner(setting))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for policy \"%s\"", setting->name),
				 errdetail("Its condition runs as its owner, \"%s\".",
						   setting->owner),
				 errhint("Only who has that role may set it; another policy can have the same condition.")));
}

PG_FUNCTION_INFO_V1(prom_set_policy);

Datum
prom_set_policy(PG_FUNCTION_ARGS)
{
	char *name = prom_setting_text(fcinfo, 0, NULL);
	char *path = prom_setting_search_path();
	char *texts[PROM_SETTING_COLUMNS];
	char *condition = NULL;
	PromSetting setting;

	prom_setting_check(&policy_kind, "prometheus_set_policy", name);
	if (!PG_ARGISNULL(3) && OidIsValid(PG_GETARG_OID(3)))
		condition = check_condition(PG_GETARG_OID(3));
	prom_setting_begin(&setting, &policy_kind, name);
	if (!setting.exists && strncmp(name, "justica.", 8) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("the names that begin with \"justica.\" are the constitution's"),
				 errhint("Give the policy another name.")));
	texts[POLICY_HASH] = condition != NULL
							 ? prom_signature_hash(PG_GETARG_OID(3))
							 : setting.columns[POLICY_HASH];
	texts[POLICY_STAGE] = prom_setting_text(fcinfo, 1,
											setting.columns[POLICY_STAGE]);
	texts[POLICY_EFFECT] = prom_setting_text(fcinfo, 2,
											 setting.columns[POLICY_EFFECT]);
	texts[POLICY_CONDITION] = PG_ARGISNULL(3)
								  ? setting.columns[POLICY_CONDITION]
								  : condition;
	texts[POLICY_SEARCH_PATH] = PG_ARGISNULL(3)
									? setting.columns[POLICY_SEARCH_PATH]
									: path;
	if (texts[POLICY_CONDITION] == NULL)
		texts[POLICY_SEARCH_PATH] = NULL;
	else
		check_owner(&setting);
	texts[POLICY_MATCH] = setting.columns[POLICY_MATCH];
	if (!PG_ARGISNULL(4))
		texts[POLICY_MATCH] = JsonbToCString(NULL, &PG_GETARG_JSONB_P(4)->root,
											 VARSIZE(PG_GETARG_JSONB_P(4)));
	if (texts[POLICY_MATCH] == NULL)
		texts[POLICY_MATCH] = "{}";
	for (int i = POLICY_REASON; i <= POLICY_ON_ERROR; i++)
		texts[i] = prom_setting_text(fcinfo, i, setting.columns[i]);
	if (texts[POLICY_REVIEWER] == NULL)
		texts[POLICY_REVIEWER] = "rule";
	if (texts[POLICY_ON_ERROR] == NULL)
		texts[POLICY_ON_ERROR] = "deny";
	check_words(texts);
	texts[POLICY_APPROVERS_OID] = setting.columns[POLICY_APPROVERS_OID];
	if (!PG_ARGISNULL(POLICY_APPROVERS))
		texts[POLICY_APPROVERS_OID] =
			texts[POLICY_APPROVERS] == NULL
				? NULL
				: psprintf("%u", get_role_oid(texts[POLICY_APPROVERS], false));
	prom_judge_check_match(texts[POLICY_MATCH]);
	CacheInvalidateRelcacheByRelid(prom_setting_relation(&policy_kind));
	PG_RETURN_INT64(prom_setting_end(&setting, texts,
									 prom_setting_merge(&setting, NULL)));
}


/* The newest ones. */

static void
relation_changed(Datum arg, Oid relation)
{
	if (!OidIsValid(relation) || relation == kept_of)
		is_stale = true;
}

static PromStatement newest_statement = {
	"SELECT DISTINCT ON (p.name) p.name, p.version, p.stage, p.effect,"
	" p.condition, p.search_path, p.owner, p.owner_oid, p.match, p.reason,"
	" p.suggestion, p.approvers, p.on_error, count(*) OVER (), p.hash,"
	" nullif(p.reviewer, 'rule'), coalesce(p.approvers_oid, '0')"
	" FROM prometheus._policy p ORDER BY p.name, p.version DESC",
	0,
	{0},
	NULL,
};

static void
read_policy(uint64 row, PromPolicy *policy)
{
	policy->name = prom_row_text(row, 1);
	policy->version = prom_row_int64(row, 2);
	policy->stage = read_word("stage", prom_row_text(row, 3), stages,
							  lengthof(stages));
	policy->condition = prom_row_text_or_null(row, 5);
	policy->search_path = prom_row_text_or_null(row, 6);
	policy->owner = prom_row_text(row, 7);
	policy->owner_oid = prom_row_oid(row, 8);
	policy->match = prom_row_jsonb_or_null(row, 9);
	policy->reason = prom_row_text_or_null(row, 10);
	policy->suggestion = prom_row_text_or_null(row, 11);
	policy->approvers = prom_row_text_or_null(row, 12);
	policy->on_error = read_word("on_error", prom_row_text(row, 13), effects,
								 lengthof(effects));
	policy->hash = prom_row_text_or_null(row, 15);
	policy->reviewer = prom_row_text_or_null(row, 16);
	policy->approvers_oid = prom_row_oid(row, 17);
}

static void
read_policies(void)
{
	MemoryContext before;

	/* By a snapshot of this moment: what made it stale has committed. */
	prom_statement_run(&newest_statement, NULL, NULL, false);
	MemoryContextReset(context);
	before = MemoryContextSwitchTo(context);
	kept = palloc0(sizeof(PromPolicies));
	kept->list = palloc0(Max(SPI_processed, 1) * sizeof(PromPolicy));
	if (SPI_processed > 0)
		kept->version = prom_row_int64(0, 14);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		PromPolicy *policy = &kept->list[kept->n];

		policy->effect = read_word("effect", prom_row_text(i, 4), effects,
								   lengthof(effects));
		if (policy->effect == PROM_EFFECT_OFF)
			continue;
		read_policy(i, policy);
		kept->n++;
	}
	MemoryContextSwitchTo(before);
	SPI_freetuptable(SPI_tuptable);
}

const PromPolicies *
prom_policies(void)
{
	if (context == NULL)
	{
		context = AllocSetContextCreate(TopMemoryContext, "prometheus policies",
										ALLOCSET_SMALL_SIZES);
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	}
	if (is_stale || kept == NULL)
	{
		kept_of = prom_setting_relation(&policy_kind);
		is_stale = false;
		PG_TRY();
		{
			read_policies();
		}
		PG_CATCH();
		{
			is_stale = true;
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
	return kept;
}
