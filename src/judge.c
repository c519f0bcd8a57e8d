/*
 * judge.c
 *	  Asks the policies about one thing, and records what they said.
 *
 * Every policy of the stage is asked whose match fits; the strongest effect
 * counts: deny before escalate, that before warn, that before allow.  Among
 * equals the first by name decides, so that the same is said each time.  The
 * cheap conditions of a match come first, and a function last.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "port/pg_bswap.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"

#include "compat.h"
#include "guard.h"
#include "judge.h"
#include "justica.h"
#include "schema.h"
#include "search.h"
#include "signature.h"
#include "tally.h"
#include "toolcall.h"
#include "worker.h"

/* What a condition may take, ms; and to search a text. */
#define CONDITION_TIMEOUT 2000
#define SEARCH_TIMEOUT 1000
#define CALLER_SEARCH_TIMEOUT 100

static const char *const tiers[] = {
	[PROM_TIER_READ] = "read",
	[PROM_TIER_WRITE] = "write",
	[PROM_TIER_DESTRUCTIVE] = "destructive",
};


/* The match of a policy. */

/* A member that names what the thing must have: one text, or one of some. */
static const char *
named_value(const PromJudged *judged, const char *key)
{
	if (strcmp(key, "agent") == 0)
		return judged->agent;
	if (strcmp(key, "submitter") == 0)
		return judged->submitter;
	if (strcmp(key, "mode") == 0)
		return judged->mode;
	if (strcmp(key, "tool") == 0)
		return judged->tool == NULL ? "" : judged->tool->name;
	if (strcmp(key, "tier") == 0)
		return judged->tool == NULL ? "" : tiers[judged->tool->tier];
	return NULL;
}

static bool
is_text(const JsonbValue *value, const char *text)
{
	return value->type == jbvString && value->val.string.len == strlen(text) &&
		   memcmp(value->val.string.val, text, value->val.string.len) == 0;
}

/* Is the text this value, or one of this array? */
static bool
is_among(JsonbValue *value, const char *text)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue element;

	if (value->type != jbvBinary)
		return is_text(value, text);
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
		if (token == WJB_ELEM && is_text(&element, text))
			return true;
	return false;
}

/* The text that is searched: what was asked, is to be done, or was answered. */
static const char *
searched_text(const PromJudged *judged)
{
	switch (judged->stage)
	{
		case PROM_STAGE_TASK:
			return judged->request;
		case PROM_STAGE_TOOL:
			return judged->arguments;
		case PROM_STAGE_ANSWER:
			return judged->answer;
	}
	return "";
}

/* Does a policy apply, by its match? */
typedef enum Fit
{
	FIT_NO,
	FIT_YES,
	FIT_UNKNOWN /* the text could not be searched to the end */
} Fit;

static text *
regex_of(const JsonbValue *value)
{
	return cstring_to_text_with_len(value->val.string.val,
									value->val.string.len);
}

/* The caller has the tasks of a whole database to care for. */
static bool
is_executor(void)
{
	return prom_my_worker >= &prom_my_database->worker[PROM_EXECUTOR];
}

static Fit
text_fits(const PromPolicy *policy, const JsonbValue *value,
		  const PromJudged *judged)
{
	const char *why;

	switch (prom_search(regex_of(value), searched_text(judged),
						is_executor() ? SEARCH_TIMEOUT : CALLER_SEARCH_TIMEOUT,
						&why))
	{
		case PROM_SEARCH_FOUND:
			return FIT_YES;
		case PROM_SEARCH_NOT_FOUND:
			return FIT_NO;
		case PROM_SEARCH_GAVE_UP:
			break;
	}
	if (is_executor())
		ereport(LOG, (errmsg("match of policy \"%s\" failed: %s", policy->name,
							 why)));
	return FIT_UNKNOWN;
}

static bool
arguments_contain(JsonbValue *value, const char *arguments)
{
	Datum wanted = JsonbPGetDatum(JsonbValueToJsonb(value));
	Datum given;

	if (arguments == NULL || prom_schema_unreadable(arguments) != NULL)
		return false;
	given = DirectFunctionCall1(jsonb_in, CStringGetDatum(arguments));
	return DatumGetBool(DirectFunctionCall2(jsonb_contains, given, wanted));
}

/* One member of a match, of those that are cheap. */
static bool
member_fits(const char *key, JsonbValue *value, const PromJudged *judged)
{
	const char *named = named_value(judged, key);

	return named != NULL ? is_among(value, named)
						 : arguments_contain(value, judged->arguments);
}

/* The text is searched if the others fit; detail is what a principle says. */
static Fit
match_fits(const PromPolicy *policy, const PromJudged *judged, bool principles,
		   const char **detail)
{
	JsonbIterator *iterator = JsonbIteratorInit(&policy->match->root);
	JsonbValue key;
	JsonbValue value;
	JsonbValue searched = {.type = jbvNull};
	JsonbValue principle = {.type = jbvNull};
	Fit fit = FIT_YES;

	(void) JsonbIteratorNext(&iterator, &key, true);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		char *name = pnstrdup(key.val.string.val, key.val.string.len);

		(void) JsonbIteratorNext(&iterator, &value, true);
		if (strcmp(name, "text") == 0)
			searched = value;
		else if (strcmp(name, "principle") == 0)
			principle = value;
		else if (!member_fits(name, &value, judged))
			return FIT_NO;
	}
	if (searched.type == jbvString)
		fit = text_fits(policy, &searched, judged);
	if (fit != FIT_NO && principles && principle.type == jbvString &&
		!prom_justica_is_broken(pnstrdup(principle.val.string.val,
										 principle.val.string.len),
								judged, detail))
		return FIT_NO;
	return fit;
}

static pg_noreturn void
raise_match(const char *key, const char *wanted)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" in the match of a policy must be %s", key, wanted)));
	pg_unreachable();
}

static void
check_names(const char *key, JsonbValue *value)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue element;

	if (value->type == jbvString)
		return;
	if (value->type != jbvBinary ||
		!JsonContainerIsArray(value->val.binary.data))
		raise_match(key, "a text or an array of texts");
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
		if (token == WJB_ELEM && element.type != jbvString)
			raise_match(key, "a text or an array of texts");
}

static void
check_member(const char *key, JsonbValue *value)
{
	static const PromJudged nothing = {
		.agent = "", .submitter = "", .mode = "", .request = ""};

	if (named_value(&nothing, key) != NULL)
		check_names(key, value);
	else if (strcmp(key, "arguments") == 0)
	{
		if (value->type != jbvBinary ||
			!JsonContainerIsObject(value->val.binary.data))
			raise_match(key, "an object");
	}
	else if (strcmp(key, "text") == 0)
	{
		if (value->type != jbvString)
			raise_match(key, "a regular expression");
		(void) DirectFunctionCall2Coll(textregexeq, DEFAULT_COLLATION_OID,
									   CStringGetTextDatum(""),
									   PointerGetDatum(regex_of(value)));
	}
	else if (strcmp(key, "principle") == 0)
	{
		if (value->type != jbvString)
			raise_match(key, "the name of a principle");
		prom_justica_check(pnstrdup(value->val.string.val,
									value->val.string.len));
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a match has no \"%s\"", key),
				 errhint("It may have agent, submitter, mode, tool, tier, arguments, text and principle.")));
}

void
prom_judge_check_match(const char *match)
{
	Jsonb *jsonb = DatumGetJsonbP(
		DirectFunctionCall1(jsonb_in, CStringGetDatum(match)));
	JsonbIterator *iterator;
	JsonbValue key;
	JsonbValue value;

	if (!JB_ROOT_IS_OBJECT(jsonb))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the match of a policy must be a json object")));
	iterator = JsonbIteratorInit(&jsonb->root);
	(void) JsonbIteratorNext(&iterator, &key, true);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&iterator, &value, true);
		check_member(pnstrdup(key.val.string.val, key.val.string.len), &value);
	}
}


/* The condition of a policy. */

typedef struct Condition
{
	const char *call;
	Datum judged;
	bool holds;
} Condition;

static void
append_member(StringInfo json, const char *name, const char *value)
{
	if (value == NULL)
		return;
	appendStringInfo(json, "%s\"%s\":", json->len > 1 ? "," : "", name);
	escape_json(json, value);
}

const char *
prom_judge_document(const PromJudged *judged)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	append_member(&json, "stage", prom_policy_stage_name(judged->stage));
	append_member(&json, "agent", judged->agent);
	append_member(&json, "submitter", judged->submitter);
	append_member(&json, "mode", judged->mode);
	append_member(&json, "request", judged->request);
	append_member(&json, "answer", judged->answer);
	if (judged->tool != NULL)
	{
		append_member(&json, "tool", judged->tool->name);
		append_member(&json, "tier", tiers[judged->tool->tier]);
		if (prom_schema_unreadable(judged->arguments) == NULL)
			appendStringInfo(&json, ",\"arguments\":%s", judged->arguments);
		else
			append_member(&json, "arguments", judged->arguments);
	}
	appendStringInfo(&json, ",\"task_id\":%lld}", (long long) judged->task_id);
	return json.data;
}

static void
run_condition(void *arg)
{
	Condition *condition = arg;
	Oid type = JSONBOID;
	bool isnull;
	Datum value;

	SPI_connect();
	if (SPI_execute_with_args(condition->call, 1, &type, &condition->judged,
							  NULL, false, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "the condition gave nothing");
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						  &isnull);
	condition->holds = !isnull && DatumGetBool(value);
	SPI_finish();
}

/* Is the condition the function that was set? */
static bool
is_as_set(const PromPolicy *policy)
{
	Oid function = prom_signature_find(policy->condition);

	return OidIsValid(function) && policy->hash != NULL &&
		   strcmp(prom_signature_hash(function), policy->hash) == 0;
}

/* The effect that a policy has by its condition; detail: why it failed. */
static PromEffect
ask_condition(const PromPolicy *policy, const PromJudged *judged,
			  const char **detail)
{
	PromGuard guard = {.search_path = policy->search_path,
					   .read_only = true,
					   .timeout = CONDITION_TIMEOUT};
	Condition condition;
	const char *name_end = strrchr(policy->condition, '(');
	PromGuardEnd end = {0};

	guard.role = prom_guard_role(policy->owner, policy->owner_oid);
	condition.judged = DirectFunctionCall1(
		jsonb_in, CStringGetDatum(prom_judge_document(judged)));
	condition.call = psprintf("SELECT %.*s($1)",
							  (int) (name_end - policy->condition),
							  policy->condition);
	if (!OidIsValid(guard.role))
		end.error = "the role that owns the policy does not exist any more";
	else if (!is_as_set(policy))
		end.error = "the function was changed or dropped since it was set";
	else
		prom_guard_run(&guard, run_condition, &condition, &end);
	if (end.ok)
		return condition.holds ? policy->effect : PROM_EFFECT_OFF;
	/* What it says may be for its owner only. */
	*detail = "its condition failed";
	ereport(LOG, (errmsg("condition of policy \"%s\" failed: %s", policy->name,
						 end.error)));
	return policy->on_error;
}


/* The verdict. */

static void
add_to_hash(pg_cryptohash_ctx *hash, const char *text)
{
	uint64 length = text == NULL ? PG_UINT64_MAX : strlen(text);
	uint64 head = pg_hton64(length); /* the same on every machine */

	if (pg_cryptohash_update(hash, (uint8 *) &head, sizeof(head)) < 0 ||
		(text != NULL &&
		 pg_cryptohash_update(hash, (const uint8 *) text, length) < 0))
		elog(ERROR, "could not compute a hash");
}

/* SHA-256 of texts with their lengths between, in hexadecimal. */
static char *
hash_texts(const char *const *texts, int n)
{
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);
	uint8 digest[PG_SHA256_DIGEST_LENGTH];
	char *text = palloc(2 * sizeof(digest) + 1);

	if (hash == NULL || pg_cryptohash_init(hash) < 0)
		elog(ERROR, "could not compute a hash");
	for (int i = 0; i < n; i++)
		add_to_hash(hash, texts[i]);
	if (pg_cryptohash_final(hash, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute a hash");
	pg_cryptohash_free(hash);
	hex_encode((char *) digest, sizeof(digest), text);
	text[2 * sizeof(digest)] = '\0';
	return text;
}

const char *
prom_judge_hash(const PromJudged *judged)
{
	const char *texts[6] = {prom_policy_stage_name(judged->stage),
							judged->agent, searched_text(judged)};

	if (judged->stage != PROM_STAGE_TOOL)
		return hash_texts(texts, 3);
	texts[3] = judged->tool->name;
	texts[4] = judged->tool->hash;
	if (judged->again == 0)
		return hash_texts(texts, 5);
	texts[5] = psprintf("%lld", (long long) judged->again);
	return hash_texts(texts, 6);
}

PG_FUNCTION_INFO_V1(prom_hash);

Datum
prom_hash(PG_FUNCTION_ARGS)
{
	const char *texts[3];

	for (int i = 0; i < lengthof(texts); i++)
		texts[i] = text_to_cstring(PG_GETARG_TEXT_PP(i));
	PG_RETURN_TEXT_P(cstring_to_text(hash_texts(texts, lengthof(texts))));
}

bool
prom_judge_needs_executor(const PromPolicies *policies,
						  const PromJudged *judged)
{
	const char *detail = NULL;

	for (int i = 0; i < policies->n; i++)
	{
		const PromPolicy *policy = &policies->list[i];

		if (policy->stage == judged->stage && policy->condition != NULL &&
			policy->reviewer == NULL &&
			match_fits(policy, judged, false, &detail) != FIT_NO)
			return true;
	}
	return false;
}

bool
prom_judge_has(const PromPolicies *policies, PromStage stage)
{
	for (int i = 0; i < policies->n; i++)
		if (policies->list[i].stage == stage)
			return true;
	return false;
}

bool
prom_judge_fits(const PromPolicy *policy, const PromJudged *judged)
{
	const char *detail = NULL;

	return policy->stage == judged->stage &&
		   match_fits(policy, judged, true, &detail) != FIT_NO;
}

/* The effect of a policy whose match fits, or may fit. */
static PromEffect
effect_of(const PromPolicy *policy, const PromJudged *judged, Fit fit,
		  const char **detail)
{
	if (fit == FIT_UNKNOWN)
	{
		*detail = "its match failed";
		return policy->on_error;
	}
	return policy->condition == NULL ? policy->effect
									 : ask_condition(policy, judged, detail);
}

static const char *
reasoning_of(const PromPolicy *policy, const char *detail)
{
	const char *reason = policy->reason;

	if (reason == NULL)
		reason = psprintf("policy \"%s\"", policy->name);
	return detail == NULL ? reason : psprintf("%s (%s)", reason, detail);
}

static bool
names_principle(const PromPolicy *policy, const char *principle)
{
	JsonbValue value;

	return getKeyJsonValueFromContainer(&policy->match->root, "principle",
										strlen("principle"), &value) != NULL &&
		   is_text(&value, principle);
}

/*
 * Would a policy forbid this call, if it broke the principle?  So it does as
 * long as it runs: what it then tries cannot be shown to a person any more.
 */
static bool
holds_while_run(const PromPolicy *policy, const char *principle,
				const PromJudged *judged)
{
	const char *detail = NULL;
	Fit fit;

	if (policy->stage != PROM_STAGE_TOOL || judged->stage != PROM_STAGE_TOOL ||
		policy->reviewer != NULL || !names_principle(policy, principle))
		return false;
	fit = match_fits(policy, judged, false, &detail);
	return fit != FIT_NO && effect_of(policy, judged, fit, &detail) >=
								PROM_EFFECT_ESCALATE;
}

bool
prom_judge_learns(const PromPolicies *policies)
{
	for (int i = 0; i < policies->n; i++)
		if (strcmp(policies->list[i].name, PROM_JUSTICA_LEARNING) == 0)
			return true;
	return false;
}

/* It is run only if a person has allowed what the policy escalated. */
static void
lift_escalated(const PromPolicies *policies, const PromPolicy **policy,
			   const PromVerdict *verdict)
{
	if (*policy != NULL &&
		bms_is_member(*policy - policies->list, verdict->escalated))
		*policy = NULL;
}

void
prom_judge(const PromPolicies *policies, const PromJudged *judged,
		   PromVerdict *verdict)
{
	instr_time start;
	instr_time end;

	INSTR_TIME_SET_CURRENT(start);
	memset(verdict, 0, sizeof(*verdict));
	verdict->effect = PROM_EFFECT_OFF;
	verdict->policy_version = policies->version;
	verdict->learns = prom_judge_learns(policies);
	for (int i = 0; i < policies->n; i++)
	{
		const PromPolicy *policy = &policies->list[i];
		const char *detail = NULL;
		PromEffect effect;
		Fit fit;

		if (verdict->integrity == NULL &&
			holds_while_run(policy, "integrity", judged))
			verdict->integrity = policy;
		if (verdict->proportionality == NULL &&
			holds_while_run(policy, "proportionality", judged))
			verdict->proportionality = policy;
		/*
		 * No need to ask one that cannot make it stronger; but of those that
		 * escalate each may have approvers of its own.
		 */
		if (policy->stage != judged->stage || policy->reviewer != NULL ||
			Max(policy->effect, policy->on_error) <
				Min(verdict->effect + 1, PROM_EFFECT_ESCALATE) ||
			verdict->effect == PROM_EFFECT_DENY)
			continue;
		fit = match_fits(policy, judged, true, &detail);
		if (fit == FIT_UNKNOWN && !is_executor())
			verdict->undecided = true;
		if (fit == FIT_NO || (fit == FIT_UNKNOWN && !is_executor()))
			continue;
		effect = effect_of(policy, judged, fit, &detail);
		if (effect == PROM_EFFECT_ESCALATE)
			verdict->escalated = bms_add_member(verdict->escalated, i);
		if (effect <= verdict->effect)
			continue;
		verdict->effect = effect;
		verdict->policy = policy;
		verdict->reasoning = reasoning_of(policy, detail);
	}
	lift_escalated(policies, &verdict->integrity, verdict);
	lift_escalated(policies, &verdict->proportionality, verdict);
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	verdict->latency_ms = INSTR_TIME_GET_MILLISEC(end);
}

void
prom_judge_deny(const PromJudged *judged, const char *why, PromVerdict *verdict)
{
	memset(verdict, 0, sizeof(*verdict));
	verdict->effect = PROM_EFFECT_DENY;
	verdict->policy_version = prom_policies()->version;
	verdict->reasoning = why;
}

void
prom_verdict_name(PromVerdict *verdict, const PromPolicy *policy)
{
	verdict->policy = policy;
	verdict->reasoning = reasoning_of(policy, NULL);
}

bool
prom_verdict_allows(const PromVerdict *verdict)
{
	return verdict->effect < PROM_EFFECT_ESCALATE;
}

void
prom_verdict_refuse(PromVerdict *verdict, const PromPolicy *policy,
					const char *what)
{
	verdict->effect = PROM_EFFECT_DENY;
	verdict->opinion = NULL;
	verdict->policy = policy;
	verdict->reasoning = reasoning_of(policy, what);
}

static const char *
suggestion_of(const PromVerdict *verdict)
{
	if (verdict->opinion != NULL)
		return verdict->opinion->suggestion;
	return verdict->policy == NULL ? NULL : verdict->policy->suggestion;
}

const char *
prom_verdict_words(const PromVerdict *verdict)
{
	const char *suggestion = suggestion_of(verdict);

	if (suggestion == NULL)
		return verdict->reasoning;
	return psprintf("%s %s", verdict->reasoning, suggestion);
}

static const char *
risk_of(const PromVerdict *verdict)
{
	if (verdict->opinion != NULL && verdict->opinion->risk_level != NULL)
		return verdict->opinion->risk_level;
	switch (verdict->effect)
	{
		case PROM_EFFECT_OFF:
		case PROM_EFFECT_ALLOW:
			return "LOW";
		case PROM_EFFECT_WARN:
			return "MEDIUM";
		case PROM_EFFECT_ESCALATE:
			return "HIGH";
		case PROM_EFFECT_DENY:
			break;
	}
	return "CRITICAL";
}

/* The constitution's own policies speak for her. */
static const char *
governor_of(const PromVerdict *verdict)
{
	if (verdict->opinion != NULL)
		return verdict->opinion->governor;
	if (verdict->policy == NULL ||
		strncmp(verdict->policy->name, "justica.", 8) == 0)
		return "JUSTICA";
	return "policy";
}

void
prom_verdict_add(PromFactWriter *writer, const PromJudged *judged,
				 const PromVerdict *verdict, TimestampTz now)
{
	const PromOpinion *opinion = verdict->opinion;
	const char *policy = verdict->policy == NULL ? NULL : verdict->policy->name;
	const char *hash = opinion != NULL ? opinion->hash
									   : prom_judge_hash(judged);
	const char *effect = verdict->effect == PROM_EFFECT_OFF
							 ? "allow"
							 : prom_policy_effect_name(verdict->effect);
	Datum values[VERDICT_COLUMNS];
	bool nulls[VERDICT_COLUMNS] = {false};

	values[VERDICT_TASK_ID] = Int64GetDatum(judged->task_id);
	values[VERDICT_ATTEMPT] = Int32GetDatum(judged->attempt);
	values[VERDICT_STEP] = Int32GetDatum(judged->step);
	nulls[VERDICT_STEP] = judged->step == 0;
	values[VERDICT_EVENT_ID] = Int64GetDatum(prom_fact_next_id());
	values[VERDICT_JUDGED_AT] = TimestampTzGetDatum(now);
	values[VERDICT_LATENCY_MS] = Float4GetDatum((float4) verdict->latency_ms);
	values[VERDICT_APPROVED] = BoolGetDatum(prom_verdict_allows(verdict));
	values[VERDICT_POLICY_VERSION] = Int64GetDatum(verdict->policy_version);
	values[VERDICT_STAGE] =
		CStringGetTextDatum(prom_policy_stage_name(judged->stage));
	values[VERDICT_EFFECT] = CStringGetTextDatum(effect);
	values[VERDICT_RISK_LEVEL] = CStringGetTextDatum(risk_of(verdict));
	values[VERDICT_GOVERNOR] = CStringGetTextDatum(governor_of(verdict));
	values[VERDICT_POLICY] = prom_fact_text(
		opinion != NULL ? opinion->policy : policy, &nulls[VERDICT_POLICY]);
	values[VERDICT_REASONING] = prom_fact_text(verdict->reasoning,
											   &nulls[VERDICT_REASONING]);
	values[VERDICT_SUGGESTION] =
		prom_fact_text(suggestion_of(verdict), &nulls[VERDICT_SUGGESTION]);
	values[VERDICT_TARGET_HASH] = CStringGetTextDatum(hash);
	nulls[VERDICT_SCORES] = opinion == NULL || opinion->scores == NULL;
	values[VERDICT_SCORES] =
		nulls[VERDICT_SCORES] ? (Datum) 0 : JsonbPGetDatum(opinion->scores);
	prom_fact_add(writer, PROM_FACT_VERDICT, values, nulls);
	prom_tally_verdict(prom_policy_stage_name(judged->stage), effect);
}
