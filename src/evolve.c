/*
 * evolve.c
 *	  Has an agent evolve: takes what is asked for, and submits it as a task.
 *
 * Whoever may submit to the agent may.  What is asked for is checked here and
 * never again: curriculum.c reads it.  One evolution of an agent is under way
 * for a role at a time, since each begins where the last one came to.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"

#include "as_of.h"
#include "compat.h"
#include "evolution.h"
#include "hidden.h"
#include "role.h"
#include "task.h"
#include "xact.h"

#define MAX_ITERATIONS 100

/* Bytes of a domain or a category, and how many of these. */
#define MAX_NAME 200
#define MAX_CATEGORIES 20

static pg_noreturn void
raise_option(const char *name, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("option \"%s\" has no usable value", name),
			 errdetail("%s", detail)));
	pg_unreachable();
}

static char *
text_of(const JsonbValue *value)
{
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static bool
is_name(const char *name)
{
	return strspn(name, " \t\r\n") < strlen(name) &&
		   strlen(name) <= MAX_NAME && prom_hidden_in(name) == NULL;
}


/* Options. */

static void
check_categories(const JsonbValue *value)
{
	static const char detail[] =
		"It must be an array of 1 to 20 different names of 1 to 200 bytes, without hidden characters.";
	JsonbContainer *list;
	int n;

	if (value->type != jbvBinary ||
		!JsonContainerIsArray(value->val.binary.data))
		raise_option("categories", detail);
	list = value->val.binary.data;
	n = JsonContainerSize(list);
	if (n < 1 || n > MAX_CATEGORIES)
		raise_option("categories", detail);
	for (int i = 0; i < n; i++)
	{
		JsonbValue *one = getIthJsonbValueFromContainer(list, i);

		if (one->type != jbvString || !is_name(text_of(one)))
			raise_option("categories", detail);
		for (int j = 0; j < i; j++)
			if (strcmp(text_of(getIthJsonbValueFromContainer(list, j)),
					   text_of(one)) == 0)
				raise_option("categories", detail);
	}
}

static void
check_level(const JsonbValue *value)
{
	bool fits = value->type == jbvNumeric;

	for (int level = 1; fits; level++)
	{
		Datum number = DirectFunctionCall1(int4_numeric, Int32GetDatum(level));

		if (DatumGetBool(DirectFunctionCall2(
				numeric_eq, number, NumericGetDatum(value->val.numeric))))
			return;
		fits = level < PROM_MAX_LEVEL;
	}
	raise_option("level", psprintf("It must be a whole number from 1 to %d.",
								   PROM_MAX_LEVEL));
}

static void
check_option(const char *name, const JsonbValue *value)
{
	if (strcmp(name, "categories") == 0)
		check_categories(value);
	else if (strcmp(name, "level") == 0)
		check_level(value);
	else if (strcmp(name, "mode") == 0)
	{
		if (value->type != jbvString)
			raise_option(name, "It must be a text.");
		prom_task_check_mode(text_of(value));
	}
	else if (strcmp(name, "curriculum") == 0 || strcmp(name, "judge") == 0)
	{
		if (value->type != jbvString)
			raise_option(name, "It must be the name of an agent.");
		prom_task_check_agent(text_of(value));
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" does not exist", name),
				 errhint("The options are categories, curriculum, judge, mode and level.")));
}

static void
check_options(Jsonb *options)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue value;
	char *name = NULL;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("options must be a json object")));
	iterator = JsonbIteratorInit(&options->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = text_of(&value);
		else if (token == WJB_VALUE)
			check_option(name, &value);
	}
}


/* One at a time. */

static const char live_sql[] =
	"SELECT t.task_id FROM prometheus._task t"
	" WHERE t.evolution OPERATOR(pg_catalog.?) 'iterations'"
	"   AND t.agent OPERATOR(pg_catalog.=) $1"
	"   AND t.submitter OPERATOR(pg_catalog.=) $2"
	"   AND t.submitter_oid OPERATOR(pg_catalog.=) $3"
	"   AND NOT EXISTS (SELECT FROM prometheus._outcome x"
	"     WHERE x.task_id OPERATOR(pg_catalog.=) t.task_id"
	"       AND x.outcome OPERATOR(pg_catalog.<>)"
	"         ALL ('{retry,waiting,lost}'::pg_catalog.text[])"
	"       AND NOT EXISTS (SELECT FROM prometheus._retry y"
	"         WHERE y.task_id OPERATOR(pg_catalog.=) t.task_id"
	"           AND y.attempt OPERATOR(pg_catalog.>=) x.attempt))"
	" LIMIT 1";

/* Until the end of the transaction nobody else begins one. */
static void
check_is_alone(const char *agent)
{
	Oid user = GetUserId();
	Oid types[3] = {TEXTOID, TEXTOID, OIDOID};
	Datum values[3] = {CStringGetTextDatum(agent),
					   CStringGetTextDatum(GetUserNameFromId(user, false)),
					   ObjectIdGetDatum(user)};
	uint64 hash = hash_bytes_extended((const unsigned char *) agent,
									  strlen(agent), user);
	PromOwner before;
	int64 other = 0;

	LockDatabaseObject(
		get_relname_relid("_task", get_namespace_oid("prometheus", false)),
		(Oid) hash, (uint16) (hash >> 32), ExclusiveLock);
	prom_role_become_owner(&before);
	SPI_connect();
	if (prom_execute_now(live_sql, 3, types, values, NULL, true) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._task");
	if (SPI_processed > 0)
		other = prom_row_int64(0, 1);
	SPI_finish();
	prom_role_restore(&before);
	if (other != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("agent \"%s\" is evolving already", agent),
				 errdetail("Task %lld has not ended.", (long long) other),
				 errhint("Wait for it with prometheus_wait(), or end it with prometheus_cancel().")));
}


/* Submitting. */

static Jsonb *
make_document(int iterations, const char *domain, Jsonb *options)
{
	static const char sql[] =
		"SELECT pg_catalog.jsonb_build_object('iterations', $1,"
		" 'domain', $2, 'options', $3)";
	Oid types[3] = {INT4OID, TEXTOID, JSONBOID};
	Datum values[3] = {Int32GetDatum(iterations), CStringGetTextDatum(domain),
					   JsonbPGetDatum(options)};
	MemoryContext context = CurrentMemoryContext;
	Jsonb *document;

	SPI_connect();
	if (SPI_execute_with_args(sql, 3, types, values, NULL, true, 1) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not make what is asked for");
	document = prom_row_jsonb_or_null(0, 1);
	MemoryContextSwitchTo(context);
	document = memcpy(palloc(VARSIZE(document)), document, VARSIZE(document));
	SPI_finish();
	return document;
}

PG_FUNCTION_INFO_V1(prom_evolve);

Datum
prom_evolve(PG_FUNCTION_ARGS)
{
	PromSubmit submit = {.timeout = -1, .mode = "fast"};
	Jsonb *options = PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3);
	int32 iterations = PG_ARGISNULL(1) ? 10 : PG_GETARG_INT32(1);
	const char *domain = PG_ARGISNULL(2)
							 ? "general"
							 : text_to_cstring(PG_GETARG_TEXT_PP(2));

	PreventCommandDuringRecovery("prometheus_evolve()");
	PreventCommandIfReadOnly("prometheus_evolve()");
	prom_as_of_forbid_writing();
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("agent must not be null")));
	submit.agent = text_to_cstring(PG_GETARG_TEXT_PP(0));
	prom_task_check_agent(submit.agent);
	if (iterations < 1 || iterations > MAX_ITERATIONS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("iterations %d is out of range", iterations),
				 errdetail("It must be between 1 and %d.", MAX_ITERATIONS),
				 iterations < 1
					 ? 0
					 : errhint("Call it again when the task has ended: it goes on from there.")));
	if (!is_name(domain))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("domain must have 1 to %d bytes, and no hidden characters",
						MAX_NAME)));
	if (options == NULL)
		options = DatumGetJsonbP(
			DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
	check_options(options);
	check_is_alone(submit.agent);
	submit.request = psprintf("Evolve in %d generation%s, domain %s.",
							  iterations, iterations == 1 ? "" : "s", domain);
	submit.evolution = make_document(iterations, domain, options);
	PG_RETURN_INT64(prom_task_submit(&submit));
}
