/*
 * event.c
 *	  Emits events: facts of their own, in the caller's transaction.
 *
 * What tasks do is told by their facts (the view prometheus.event), so their
 * types cannot be emitted.  An event knows what caused it: in a tool its task's
 * first event, else what prometheus.caused_by says.  How many causes there are,
 * one behind the other, is written into each: who reacts to an event by
 * emitting another one, and so on, comes to an end.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "as_of.h"
#include "event.h"
#include "fact.h"
#include "guc.h"
#include "role.h"
#include "version.h"
#include "wakeup.h"
#include "xact.h"

/* The first words of types that are the runtime's own. */
static const char *const reserved[] = {
	"task", "step", "approval", "reflection", "evolution",
	"memory", "state", "gate", "alert", "prometheus"};

/* What an event comes from. */
typedef struct Cause
{
	int64 task_id;  /* 0: no task's tool */
	int64 event_id; /* 0: nothing is known */
	const char *agent;
	int32 depth;
} Cause;

static bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		   (c >= '0' && c <= '9') || c == '_' || c == '-';
}

/* Words, none of them empty; or an asterisk as the last. */
static bool
is_type(const char *type, bool wildcards)
{
	bool in_word = false;

	for (const char *c = type; *c != '\0'; c++)
	{
		if (*c == '.' && !in_word)
			return false;
		if (wildcards && *c == '*' && !in_word && c[1] == '\0')
			return true;
		if (*c != '.' && !is_letter(*c))
			return false;
		in_word = *c != '.';
	}
	return in_word;
}

void
prom_event_check_type(const char *type, bool wildcards)
{
	if (strlen(type) <= PROM_MAX_EVENT_TYPE && is_type(type, wildcards))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" is not a type of events", type),
			 errdetail("It must be words of letters, digits, _ and -, with dots between them, %d bytes at most.",
					   PROM_MAX_EVENT_TYPE),
			 errhint("%s", wildcards
							   ? "shop.order.paid is one; shop.* stands for all that begin so, and * for all."
							   : "shop.order.paid is one.")));
}

static void
check_reserved(const char *type)
{
	size_t length = strcspn(type, ".");

	for (int i = 0; i < lengthof(reserved); i++)
		if (strlen(reserved[i]) == length &&
			strncmp(reserved[i], type, length) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_RESERVED_NAME),
					 errmsg("events of type \"%s\" cannot be emitted", type),
					 errdetail("Types that begin with \"%s\" are the runtime's own.",
							   reserved[i]),
					 errhint("Begin with a word of your own, as in shop.%s.",
							 type)));
}

static void
check_data(Jsonb *data)
{
	if (VARSIZE(data) - VARHDRSZ <= (size_t) prom_guc_max_request * 1024)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("the data of an event is too long"),
			 errdetail("It has %zu bytes; the limit is %d kB.",
					   (size_t) VARSIZE(data) - VARHDRSZ, prom_guc_max_request),
			 errhint("Keep it in a table, and emit its key.")));
}

static void
check_subject(const char *subject)
{
	if (*subject == '\0' || strlen(subject) > PROM_MAX_SUBJECT)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the subject of an event must have 1 to %d bytes",
							   PROM_MAX_SUBJECT)));
}

/* The first event of the task whose tool this is. */
static void
find_task(Cause *cause)
{
	static PromStatement statement = {
		"SELECT t.event_id, t.agent FROM prometheus._task t"
		" WHERE t.task_id OPERATOR(pg_catalog.=) $1",
		1,
		{INT8OID},
		NULL,
	};
	Datum value = Int64GetDatum(cause->task_id);
	MemoryContext context = CurrentMemoryContext;

	prom_statement_run_now(&statement, &value);
	if (SPI_processed > 0)
	{
		char *agent = prom_row_text(0, 2);

		cause->event_id = prom_row_int64(0, 1);
		cause->agent = MemoryContextStrdup(context, agent);
	}
	cause->depth = 1;
}

/* Of a task's event, and of one that is not kept any more, nothing is known. */
static void
find_event(Cause *cause)
{
	static PromStatement statement = {
		"SELECT e.depth FROM prometheus._event e"
		" WHERE e.event_id OPERATOR(pg_catalog.=) $1",
		1,
		{INT8OID},
		NULL,
	};
	Datum value = Int64GetDatum(cause->event_id);

	prom_statement_run_now(&statement, &value);
	cause->depth = SPI_processed > 0 ? prom_row_int32(0, 1) + 1 : 1;
}

static void
find_cause(Cause *cause)
{
	PromOwner before;
	MemoryContext context = CurrentMemoryContext;

	cause->task_id = prom_version_task();
	cause->event_id = prom_guc_caused_by();
	if (cause->task_id == 0 && cause->event_id == 0)
		return;
	SPI_connect();
	MemoryContextSwitchTo(context);
	prom_role_become_owner(&before);
	if (cause->task_id != 0)
		find_task(cause);
	else
		find_event(cause);
	prom_role_restore(&before);
	SPI_finish();
	if (cause->depth > PROM_MAX_CAUSES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("an event has too many causes, one behind the other"),
				 errdetail("Event %lld, which causes it, has %d of them; that is the limit.",
						   (long long) cause->event_id, PROM_MAX_CAUSES),
				 errhint("Events that go round in a circle are stopped so: SELECT caused_by FROM prometheus.event follows them.")));
}

static int64
add_event(const char *type, Jsonb *data, const char *subject,
		  const Cause *cause)
{
	int64 event_id = prom_fact_next_id();
	PromFactWriter *writer = prom_fact_begin();
	Datum values[EVENT_COLUMNS];
	bool nulls[EVENT_COLUMNS] = {false};

	values[EVENT_ID] = Int64GetDatum(event_id);
	values[EVENT_TASK_ID] = Int64GetDatum(cause->task_id);
	nulls[EVENT_TASK_ID] = cause->task_id == 0;
	values[EVENT_CAUSED_BY] = Int64GetDatum(cause->event_id);
	nulls[EVENT_CAUSED_BY] = cause->event_id == 0;
	values[EVENT_EMITTED_AT] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[EVENT_DEPTH] = Int32GetDatum(cause->depth);
	values[EVENT_EMITTER_OID] = ObjectIdGetDatum(GetUserId());
	values[EVENT_EMITTER] =
		CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	values[EVENT_AGENT] = prom_fact_text(cause->agent, &nulls[EVENT_AGENT]);
	values[EVENT_TYPE] = CStringGetTextDatum(type);
	values[EVENT_SUBJECT] = prom_fact_text(subject, &nulls[EVENT_SUBJECT]);
	values[EVENT_DATA] = JsonbPGetDatum(data);
	prom_fact_add(writer, PROM_FACT_EVENT, values, nulls);
	prom_fact_end(writer);
	return event_id;
}

int64
prom_event_add(const char *type, const char *data, const char *subject,
			   int64 caused_by)
{
	Cause cause = {.event_id = caused_by};

	return add_event(type,
					 DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
														CStringGetDatum(data))),
					 subject, &cause);
}

PG_FUNCTION_INFO_V1(prom_emit);

Datum
prom_emit(PG_FUNCTION_ARGS)
{
	const char *type;
	const char *subject = NULL;
	Jsonb *data;
	Cause cause = {0};
	int64 event_id;

	PreventCommandDuringRecovery("prometheus_emit()");
	PreventCommandIfReadOnly("prometheus_emit()");
	prom_as_of_forbid_writing();
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("type must not be null")));
	type = text_to_cstring(PG_GETARG_TEXT_PP(0));
	prom_event_check_type(type, false);
	check_reserved(type);
	data = PG_ARGISNULL(1)
			   ? DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
													CStringGetDatum("{}")))
			   : PG_GETARG_JSONB_P(1);
	check_data(data);
	if (!PG_ARGISNULL(2))
	{
		subject = text_to_cstring(PG_GETARG_TEXT_PP(2));
		check_subject(subject);
	}
	find_cause(&cause);
	event_id = add_event(type, data, subject, &cause);
	prom_wakeup_publisher();
	PG_RETURN_INT64(event_id);
}
