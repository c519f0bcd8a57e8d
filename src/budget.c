/*
 * budget.c
 *	  Sets budgets: what calls of models may use up in a period.
 *
 * A version is written as that of every named thing; its name is its scope and
 * its period in words.  spending.c keeps the calls within them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/numeric.h"

#include "budget.h"
#include "compat.h"
#include "setting.h"

const PromSettingKind prom_budget_kind = {
	.called = "a budget",
	.table = "_budget",
	.columns = "scope, period, tokens, cost, role_oid, set_by",
	.places = "$6, $7, $8::pg_catalog.int8, $9::pg_catalog.numeric,"
			  " $10::pg_catalog.oid, $11",
	.ncolumns = 6,
};

enum
{
	BUDGET_SCOPE,
	BUDGET_PERIOD,
	BUDGET_TOKENS,
	BUDGET_COST,
	BUDGET_ROLE_OID,
	BUDGET_SET_BY
};

const char *
prom_budget_name_in(const char *scope, const char *kind)
{
	size_t length = strlen(kind);

	return strncmp(scope, kind, length) == 0 && scope[length] == ':'
			   ? scope + length + 1
			   : NULL;
}

static char *
read_scope(FunctionCallInfo fcinfo)
{
	char *scope = prom_setting_text(fcinfo, 0, NULL);
	const char *name;

	if (scope == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a budget must have its scope"),
						errhint("It is all, agent:NAME, role:NAME or model:NAME.")));
	if (strcmp(scope, "all") == 0)
		return scope;
	name = prom_budget_name_in(scope, "agent");
	if (name == NULL)
		name = prom_budget_name_in(scope, "role");
	if (name == NULL)
		name = prom_budget_name_in(scope, "model");
	if (name == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("scope \"%s\" does not exist", scope),
						errhint("It is all, agent:NAME, role:NAME or model:NAME.")));
	prom_setting_check(&prom_budget_kind, "prometheus_set_budget", name);
	return scope;
}

static char *
read_period(FunctionCallInfo fcinfo)
{
	char *period = prom_setting_text(fcinfo, 1, NULL);

	if (period == NULL || (strcmp(period, "hour") != 0 &&
						   strcmp(period, "day") != 0 &&
						   strcmp(period, "month") != 0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						period == NULL
							? errmsg("a budget must have its period")
							: errmsg("period \"%s\" does not exist", period),
						errhint("It is hour, day or month.")));
	return period;
}

static char *
read_tokens(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(2))
		return NULL;
	if (PG_GETARG_INT64(2) < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("tokens must not be negative")));
	return psprintf("%lld", (long long) PG_GETARG_INT64(2));
}

static char *
read_cost(FunctionCallInfo fcinfo)
{
	Numeric zero = int64_to_numeric(0);

	if (PG_ARGISNULL(3))
		return NULL;
	if (numeric_is_nan(PG_GETARG_NUMERIC(3)) ||
		numeric_is_inf(PG_GETARG_NUMERIC(3)) ||
		DatumGetBool(DirectFunctionCall2(numeric_lt, PG_GETARG_DATUM(3),
										 NumericGetDatum(zero))))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("cost must be a number, and not negative")));
	return DatumGetCString(
		DirectFunctionCall1(numeric_out, PG_GETARG_DATUM(3)));
}

/* Raise unless there is such an agent or model.  As the extension's owner. */
static void
check_exists(const char *what, const char *name)
{
	Oid type = TEXTOID;
	Datum value;

	if (name == NULL)
		return;
	value = CStringGetTextDatum(name);
	if (prom_execute_now(
			psprintf("SELECT FROM prometheus._%s"
					 " WHERE name OPERATOR(pg_catalog.=) $1 LIMIT 1",
					 what),
			1, &type, &value, NULL, true) != SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._%s", what);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("%s \"%s\" does not exist", what, name),
				 errhint("SELECT name FROM prometheus.%s lists them.", what)));
}

PG_FUNCTION_INFO_V1(prom_set_budget);

Datum
prom_set_budget(PG_FUNCTION_ARGS)
{
	char *texts[PROM_SETTING_COLUMNS] = {NULL};
	const char *role;
	PromSetting setting;

	prom_setting_check(&prom_budget_kind, "prometheus_set_budget", "all");
	texts[BUDGET_SCOPE] = read_scope(fcinfo);
	texts[BUDGET_PERIOD] = read_period(fcinfo);
	texts[BUDGET_TOKENS] = read_tokens(fcinfo);
	texts[BUDGET_COST] = read_cost(fcinfo);
	texts[BUDGET_SET_BY] = GetUserNameFromId(GetUserId(), false);
	role = prom_budget_name_in(texts[BUDGET_SCOPE], "role");
	if (role != NULL)
		texts[BUDGET_ROLE_OID] = psprintf("%u", get_role_oid(role, false));
	prom_setting_begin(&setting, &prom_budget_kind,
					   psprintf("%s per %s", texts[BUDGET_SCOPE],
								texts[BUDGET_PERIOD]));
	check_exists("agent", prom_budget_name_in(texts[BUDGET_SCOPE], "agent"));
	check_exists("model", prom_budget_name_in(texts[BUDGET_SCOPE], "model"));
	/* Without both it is off. */
	if (texts[BUDGET_TOKENS] == NULL && texts[BUDGET_COST] != NULL)
		texts[BUDGET_TOKENS] = setting.columns[BUDGET_TOKENS];
	else if (texts[BUDGET_TOKENS] != NULL && texts[BUDGET_COST] == NULL)
		texts[BUDGET_COST] = setting.columns[BUDGET_COST];
	CacheInvalidateRelcacheByRelid(prom_setting_relation(&prom_budget_kind));
	PG_RETURN_INT64(prom_setting_end(&setting, texts,
									 prom_setting_merge(&setting, NULL)));
}
