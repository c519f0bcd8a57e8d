/*
 * event.c
 *	  Emits events: facts of their own, in the caller's transaction.
 *
 * What tasks do is told by their facts (the view prometheus.event), so their
 * types cannot be emitted.  An event knows what caused it (cause.c).
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "as_of.h"
#include "cause.h"
#include "event.h"
#include "fact.h"
#include "guc.h"
#include "wakeup.h"

/* The first words of types that are the runtime's own. */
static const char *const reserved[] = {
	"task", "step", "approval", "reflection", "evolution",
	"memory", "state", "gate", "alert", "tool", "prometheus"};

typedef struct Emitter
{
	const char *name;
	Oid oid;
} Emitter;

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

static void
emit_as_user(Emitter *emitter)
{
	emitter->oid = GetUserId();
	emitter->name = GetUserNameFromId(emitter->oid, false);
}

static Jsonb *
parse_data(const char *data)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(data)));
}

static int64
add_event(const char *type, Jsonb *data, const char *subject,
		  const PromCause *cause, const Emitter *emitter)
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
	values[EVENT_EMITTER_OID] = ObjectIdGetDatum(emitter->oid);
	values[EVENT_EMITTER] = CStringGetTextDatum(emitter->name);
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
	PromCause cause = {.event_id = caused_by};
	Emitter emitter;

	emit_as_user(&emitter);
	return add_event(type, parse_data(data), subject, &cause, &emitter);
}

int64
prom_event_add_of(const PromMemoryOwner *owner, int64 task_id, const char *type,
				  const char *data, const char *subject)
{
	PromCause cause = {.agent = owner->agent, .task_id = task_id};
	Emitter emitter = {owner->name, owner->oid};

	return add_event(type, parse_data(data), subject, &cause, &emitter);
}

PG_FUNCTION_INFO_V1(prom_emit);

Datum
prom_emit(PG_FUNCTION_ARGS)
{
	const char *type;
	const char *subject = NULL;
	Jsonb *data;
	PromCause cause;
	Emitter emitter;
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
			   ? parse_data("{}")
			   : PG_GETARG_JSONB_P(1);
	check_data(data);
	if (!PG_ARGISNULL(2))
	{
		subject = text_to_cstring(PG_GETARG_TEXT_PP(2));
		check_subject(subject);
	}
	prom_cause_find(&cause, false);
	emit_as_user(&emitter);
	event_id = add_event(type, data, subject, &cause, &emitter);
	prom_wakeup_publisher();
	PG_RETURN_INT64(event_id);
}
