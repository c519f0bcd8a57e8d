/*
 * as_of.c
 *	  Keeps what prometheus.as_of says, and binds statements to it.
 *
 * A statement is bound to what was set when it began: rows that a cursor
 * fetches after the setting has changed are of the same moment as those
 * before.  The binding lives as long as the statement's memory.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "as_of.h"
#include "compat.h"

#define BY_NAME "mark:"

/* A statement that began while it was set. */
typedef struct Bound
{
	QueryDesc *query;
	PromAsOf as_of;
	struct Bound *next;
	MemoryContextCallback callback;
} Bound;

static char *setting_text = NULL;
static PromAsOf *setting = NULL; /* NULL: not set */

static Bound *bounds = NULL;
static bool in_statement = false; /* then it is this that counts: */
static PromAsOf *of_statement = NULL;

static ExecutorStart_hook_type previous_start = NULL;
static ExecutorRun_hook_type previous_run = NULL;

PromAsOf *
prom_as_of(void)
{
	return in_statement ? of_statement : setting;
}

void
prom_as_of_forbid_writing(void)
{
	if (prom_as_of() != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot write while prometheus.as_of is set"),
				 errdetail("It is \"%s\".", setting_text),
				 errhint("RESET prometheus.as_of brings the session back to now.")));
}

void
prom_as_of_forbid_reading(const char *what)
{
	if (prom_as_of() != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s is about what is now, but prometheus.as_of is set",
						what),
				 errhint("RESET prometheus.as_of brings the session back to now.")));
}


/* The setting. */

static bool
read_moment(const char *text, TimestampTz *at)
{
	char buffer[MAXDATELEN + MAXDATEFIELDS];
	char *fields[MAXDATEFIELDS];
	int types[MAXDATEFIELDS];
	int nfields;
	int kind;
	int zone;
	struct pg_tm tm;
	fsec_t fsec;

	if (strlen(text) >= MAXDATELEN ||
		ParseDateTime(text, buffer, sizeof(buffer), fields, types,
					  MAXDATEFIELDS, &nfields) != 0 ||
		prom_decode_time(fields, types, nfields, &kind, &tm, &fsec, &zone) !=
			0 ||
		kind != DTK_DATE)
		return false;
	return tm2timestamp(&tm, fsec, &zone, at) == 0;
}

/*
 * What is kept is the moment with its zone: DateStyle and TimeZone may change,
 * and a parallel worker reads it again.
 */
static bool
check_as_of(char **newval, void **extra, GucSource source)
{
	PromAsOf as_of = {0};
	char *text = *newval;

	if (*text == '\0')
		return true;
	if (source < PGC_S_CLIENT || source == PGC_S_TEST)
	{
		GUC_check_errdetail("It can only be set in a session, with SET or SET LOCAL.");
		return false;
	}
	if (strncmp(text, BY_NAME, strlen(BY_NAME)) == 0)
	{
		text += strlen(BY_NAME);
		if (*text == '\0' || strlen(text) >= NAMEDATALEN)
		{
			GUC_check_errdetail("The name of a mark has 1 to %d bytes.",
								NAMEDATALEN - 1);
			return false;
		}
		strlcpy(as_of.name, text, NAMEDATALEN);
	}
	else if (!read_moment(text, &as_of.at))
	{
		GUC_check_errdetail("It must be a time, or \"mark:\" and the name of a mark.");
		GUC_check_errhint("SET prometheus.as_of = '2026-11-22 10:00:00+00', or 'mark:before migration'.");
		return false;
	}
	else
	{
		text = prom_guc_strdup(timestamptz_to_str(as_of.at));
		if (text == NULL)
			return false;
		prom_guc_free(*newval);
		*newval = text;
	}
	*extra = prom_guc_malloc(sizeof(PromAsOf));
	if (*extra == NULL)
		return false;
	memcpy(*extra, &as_of, sizeof(PromAsOf));
	return true;
}

static void
assign_as_of(const char *newval, void *extra)
{
	setting = extra;
}

void
prom_as_of_define(void)
{
	DefineCustomStringVariable(
		"prometheus.as_of",
		"The moment of which the views of prometheus show what was seen.",
		"A time, or mark:NAME. Empty: what is now.", &setting_text, "",
		PGC_USERSET, GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE, check_as_of,
		assign_as_of, NULL);
}


/* Statements. */

static void
unbind(void *arg)
{
	Bound **place = &bounds;

	while (*place != arg)
		place = &(*place)->next;
	*place = ((Bound *) arg)->next;
}

static void
bind_statement(QueryDesc *query)
{
	MemoryContext context = query->estate->es_query_cxt;
	Bound *bound = MemoryContextAlloc(context, sizeof(Bound));

	bound->query = query;
	bound->as_of = *setting;
	bound->next = bounds;
	bound->callback.func = unbind;
	bound->callback.arg = bound;
	bounds = bound;
	MemoryContextRegisterResetCallback(context, &bound->callback);
}

static void
executor_start(QueryDesc *query, int flags)
{
	if (previous_start)
		previous_start(query, flags);
	else
		standard_ExecutorStart(query, flags);
	if (setting != NULL)
		bind_statement(query);
}

static PromAsOf *
find_bound(const QueryDesc *query)
{
	for (Bound *bound = bounds; bound != NULL; bound = bound->next)
		if (bound->query == query)
			return &bound->as_of;
	return NULL;
}

/* One that began before anything was set shows what is now. */
static void
executor_run(PROM_RUN_ARGUMENTS)
{
	bool was_in_statement = in_statement;
	PromAsOf *was_of_statement = of_statement;

	if (setting == NULL && bounds == NULL)
	{
		/* Nothing to tell apart: the usual case. */
		if (previous_run)
			previous_run(PROM_RUN_PASSED);
		else
			standard_ExecutorRun(PROM_RUN_PASSED);
		return;
	}
	PG_TRY();
	{
		in_statement = true;
		of_statement = find_bound(query);
		if (previous_run)
			previous_run(PROM_RUN_PASSED);
		else
			standard_ExecutorRun(PROM_RUN_PASSED);
	}
	PG_FINALLY();
	{
		in_statement = was_in_statement;
		of_statement = was_of_statement;
	}
	PG_END_TRY();
}

void
prom_as_of_init(void)
{
	previous_start = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
	previous_run = ExecutorRun_hook;
	ExecutorRun_hook = executor_run;
}
