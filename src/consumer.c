/*
 * consumer.c
 *	  Gives events to those who read them at their own pace.
 *
 * A consumer's position is a snapshot, base: all that it sees is acknowledged.
 * A poll opens a window, by a later snapshot, bound: what that sees and base
 * does not is given in the order of time, some at a time, until all of it is
 * acknowledged; then bound is the base.  So nothing is skipped, whatever the
 * order in which transactions commit, and a long one holds up nobody: what it
 * wrote is in the window of after its end.
 *
 * The lock of a consumer's name is held to the end of the transaction that has
 * polled: its readers come one after the other, and each goes on from what the
 * one before has acknowledged.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "as_of.h"
#include "consumer.h"
#include "consumer_lock.h"
#include "event.h"
#include "export_batch.h"
#include "mark.h"
#include "role.h"
#include "shmem.h"
#include "wakeup.h"
#include "window.h"
#include "xact.h"

/* A position without events is written no oftener than this, ms. */
#define KEEP_POSITION 5000

#define MAX_EVENTS 100000 /* of a poll */
#define MAX_TYPES 100     /* each event is held against all of them */
#define MAX_LAG 10000     /* events that are looked at to count it */

typedef struct Consumer
{
	const char *owner;
	TimestampTz created_at;
	PromWindow window; /* its name; its reader is the owner */
	PromPlace last;    /* given last, */
	int given;         /* and so many with it after what is done */
	bool given_all;    /* the window has no more */
} Consumer;


/* Names and types. */

static void
check_name(const char *name)
{
	if (*name == '\0' || strlen(name) > PROM_MAX_NAME)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the name of a consumer must have 1 to %d bytes",
						PROM_MAX_NAME)));
	if (strcmp(name, PROM_CONSUMER_EXPORT) == 0)
		ereport(ERROR, (errcode(ERRCODE_RESERVED_NAME),
						errmsg("the name \"%s\" is reserved", name)));
}

static char *
name_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("the name of a consumer must not be null")));
	return text_to_cstring(PG_GETARG_TEXT_PP(0));
}

static void
check_types(ArrayType *types)
{
	Datum *elements;
	bool *nulls;
	int n;

	deconstruct_array(types, TEXTOID, -1, false, TYPALIGN_INT, &elements,
					  &nulls, &n);
	if (n == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("types must not be empty"),
						errhint("Leave the argument out for all types.")));
	if (n > MAX_TYPES)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("there must not be more than %d types", MAX_TYPES),
						errhint("shop.* stands for all that begin with shop.")));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
							errmsg("types must not contain nulls")));
		prom_event_check_type(TextDatumGetCString(elements[i]), true);
	}
}

/* Statements of our own: as the owner, and by indexes only. */

static void
become_owner(PromOwner *before)
{
	static const char *const settings[][2] = {
		{"plan_cache_mode", "force_generic_plan"},
		{"enable_indexscan", "on"},
		{"enable_nestloop", "on"},
		{"enable_seqscan", "off"},
		{"enable_bitmapscan", "off"},
		{"enable_hashjoin", "off"},
		{"enable_mergejoin", "off"},
		{"max_parallel_workers_per_gather", "0"},
		{"jit", "off"},
	};

	prom_role_become_owner(before);
	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
								 false);
}


/* The row of a consumer. */

#define COLUMNS                                                    \
	"c.name, c.owner, c.owner_oid, c.types, c.created_at, c.base," \
	" c.base_mark, c.base_at, c.bound, c.bound_mark, c.bound_at,"  \
	" c.done_at, c.done_id, c.given_at, c.given_id, c.given,"      \
	" c.given_all"

static void
read_row(uint64 row, Consumer *consumer)
{
	HeapTuple tuple = SPI_tuptable->vals[row];
	TupleDesc desc = SPI_tuptable->tupdesc;
	bool isnull;

	memset(consumer, 0, sizeof(*consumer));
	consumer->window.name = prom_row_text(row, 1);
	consumer->owner = prom_row_text(row, 2);
	consumer->window.reader = prom_row_oid(row, 3);
	consumer->window.types = prom_row_array_or_null(row, 4);
	consumer->created_at = prom_row_time(row, 5);
	prom_position_read(SPI_getbinval(tuple, desc, 6, &isnull),
					   &consumer->window.base.position);
	consumer->window.base.mark_id = prom_row_int64(row, 7);
	consumer->window.base.at = prom_row_time(row, 8);
	consumer->window.done = consumer->last = prom_window_beginning;
	consumer->given = prom_row_int32(row, 16);
	consumer->given_all = prom_row_bool(row, 17);
	consumer->window.is_open = !prom_row_isnull(row, 9);
	if (!consumer->window.is_open)
		return;
	prom_position_read(SPI_getbinval(tuple, desc, 9, &isnull),
					   &consumer->window.bound.position);
	consumer->window.bound.mark_id = prom_row_int64(row, 10);
	consumer->window.bound.at = prom_row_time(row, 11);
	if (!prom_row_isnull(row, 12))
	{
		consumer->window.done.at = prom_row_time(row, 12);
		consumer->window.done.event_id = prom_row_int64(row, 13);
	}
	if (!prom_row_isnull(row, 14))
	{
		consumer->last.at = prom_row_time(row, 14);
		consumer->last.event_id = prom_row_int64(row, 15);
	}
}

static bool
find_consumer(const char *name, Consumer *consumer)
{
	static PromStatement statement = {
		"SELECT " COLUMNS " FROM prometheus._consumer c"
		" WHERE c.name OPERATOR(pg_catalog.=) $1",
		1,
		{TEXTOID},
		NULL};
	Datum value = CStringGetTextDatum(name);

	prom_statement_run_now(&statement, &value);
	if (SPI_processed == 0)
		return false;
	read_row(0, consumer);
	return true;
}

static void
set_place(const PromPlace *place, bool is_open, Datum *values, char *nulls)
{
	values[0] = TimestampTzGetDatum(place->at);
	values[1] = Int64GetDatum(place->event_id);
	nulls[0] = nulls[1] = is_open && place->at != DT_NOBEGIN ? ' ' : 'n';
}

/* New, or changed: false if there is another one of that name. */
static bool
write_consumer(const char *sql, const Consumer *consumer)
{
	const PromWindow *window = &consumer->window;
	Oid types[17] = {TEXTOID, OIDOID, TEXTOID, TIMESTAMPTZOID,
					 TEXTARRAYOID, TEXTOID, INT8OID, TIMESTAMPTZOID,
					 TEXTOID, INT8OID, TIMESTAMPTZOID,
					 TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID,
					 INT8OID, INT4OID, BOOLOID};
	Datum values[17];
	char nulls[18] = "                 ";

	prom_wakeup_readers();
	values[0] = CStringGetTextDatum(consumer->window.name);
	values[1] = ObjectIdGetDatum(window->reader);
	values[2] = CStringGetTextDatum(consumer->owner);
	values[3] = TimestampTzGetDatum(consumer->created_at);
	values[4] = PointerGetDatum(window->types);
	nulls[4] = window->types == NULL ? 'n' : ' ';
	values[5] =
		CStringGetTextDatum(prom_position_text(&window->base.position));
	values[6] = Int64GetDatum(window->base.mark_id);
	values[7] = TimestampTzGetDatum(window->base.at);
	values[8] = CStringGetTextDatum(
		window->is_open ? prom_position_text(&window->bound.position) : "");
	values[9] = Int64GetDatum(window->bound.mark_id);
	values[10] = TimestampTzGetDatum(window->bound.at);
	nulls[8] = nulls[9] = nulls[10] = window->is_open ? ' ' : 'n';
	set_place(&window->done, window->is_open, &values[11], &nulls[11]);
	set_place(&consumer->last, window->is_open, &values[13], &nulls[13]);
	values[15] = Int32GetDatum(consumer->given);
	values[16] = BoolGetDatum(consumer->given_all);
	if (prom_execute_now(sql, 17, types, values, nulls, false) < 0)
		elog(ERROR, "could not write prometheus._consumer");
	return SPI_processed > 0;
}

static bool
insert_consumer(const Consumer *consumer)
{
	return write_consumer(
		"INSERT INTO prometheus._consumer (name, owner_oid, owner,"
		" created_at, types, base, base_mark, base_at, bound, bound_mark,"
		" bound_at, done_at, done_id, given_at, given_id, given, given_all)"
		" VALUES ($1, $2, $3, $4, $5, $6::pg_catalog.pg_snapshot, $7, $8,"
		" $9::pg_catalog.pg_snapshot, $10, $11, $12, $13, $14, $15, $16,"
		" $17) ON CONFLICT (name) DO NOTHING",
		consumer);
}

static void
update_consumer(const Consumer *consumer)
{
	(void) write_consumer(
		"UPDATE prometheus._consumer SET owner_oid = $2, owner = $3,"
		" created_at = $4, types = $5, base = $6::pg_catalog.pg_snapshot,"
		" base_mark = $7, base_at = $8, bound = $9::pg_catalog.pg_snapshot,"
		" bound_mark = $10, bound_at = $11, done_at = $12, done_id = $13,"
		" given_at = $14, given_id = $15, given = $16, given_all = $17"
		" WHERE name OPERATOR(pg_catalog.=) $1",
		consumer);
}

static void
begin_anew(Consumer *consumer)
{
	prom_window_close(&consumer->window);
	consumer->last = prom_window_beginning;
	consumer->given = 0;
	consumer->given_all = false;
}


/* Who may use one. */

static void
check_writing(const char *function)
{
	PreventCommandDuringRecovery(function);
	PreventCommandIfReadOnly(function);
	prom_as_of_forbid_writing();
}

/* Lock and read one that the user may use; as the owner from here on. */
static void
begin(const char *name, const char *function, Consumer *consumer,
	  PromOwner *before)
{
	Oid user = GetUserId();

	check_writing(function);
	SPI_connect();
	prom_consumer_lock(name);
	become_owner(before);
	if (!find_consumer(name, consumer))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("consumer \"%s\" does not exist", name),
				 errhint("SELECT name FROM prometheus.consumer lists them; prometheus_create_consumer() makes one.")));
	if (!prom_role_shows(user, consumer->owner, consumer->window.reader))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for consumer \"%s\"", name),
				 errdetail("It is of role \"%s\".", consumer->owner)));
}

/* What is given to a subscription is not given to others. */
static void
check_pulled(const Consumer *consumer)
{
	static PromStatement statement = {
		"SELECT FROM prometheus._subscription s"
		" WHERE s.name OPERATOR(pg_catalog.=) $1",
		1,
		{TEXTOID},
		NULL};
	Datum value = CStringGetTextDatum(consumer->window.name);

	if (strcmp(consumer->window.name, PROM_CONSUMER_EXPORT) == 0)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is the export of traces",
							   consumer->window.name),
						errhint("Without prometheus.otlp_endpoint it is removed.")));
	prom_statement_run_now(&statement, &value);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is a subscription", consumer->window.name),
				 errdetail("Its events are pushed; prometheus.delivery shows what came of them."),
				 errhint("prometheus_replay() lets it begin again, prometheus_unsubscribe() removes it.")));
}

/* After a restore its oid is another one: then nobody knows what it may see. */
static void
check_owner(const Consumer *consumer)
{
	if (!prom_role_is(consumer->owner, consumer->window.reader))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the owner of consumer \"%s\" is not the role that it was",
						consumer->window.name),
				 errdetail("Role \"%s\" was dropped, or the database comes from another cluster.",
						   consumer->owner),
				 errhint("prometheus_drop_consumer(), and make it anew with a start.")));
}

static void
end(const PromOwner *before)
{
	prom_role_restore(before);
	SPI_finish();
}


/* What users call. */

PG_FUNCTION_INFO_V1(prom_create_consumer);

Datum
prom_create_consumer(PG_FUNCTION_ARGS)
{
	Consumer consumer = {0};
	PromOwner before;

	check_writing("prometheus_create_consumer()");
	consumer.window.name = name_argument(fcinfo);
	check_name(consumer.window.name);
	if (!PG_ARGISNULL(1))
	{
		consumer.window.types = PG_GETARG_ARRAYTYPE_P(1);
		check_types(consumer.window.types);
	}
	consumer.window.reader = GetUserId();
	consumer.owner = GetUserNameFromId(GetUserId(), false);
	consumer.created_at = GetCurrentTimestamp();
	consumer.window.done = consumer.last = prom_window_beginning;
	SPI_connect();
	prom_consumer_lock(consumer.window.name);
	become_owner(&before);
	prom_window_start(&consumer.window, PG_ARGISNULL(2),
					  PG_ARGISNULL(2) ? 0 : PG_GETARG_TIMESTAMPTZ(2));
	if (!insert_consumer(&consumer))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("consumer \"%s\" exists", consumer.window.name),
				 errhint("prometheus_replay() lets it begin again; prometheus_drop_consumer() makes its name free.")));
	end(&before);
	PG_RETURN_VOID();
}

/* The next events; how many.  If need be a window is opened. */
static int
find_events(Consumer *consumer, int want, PromEntry **entries, bool *all,
			bool *changed)
{
	PromWindow *window = &consumer->window;
	int n;

	if (window->is_open)
	{
		n = prom_window_next(window, want, entries, all);
		if (n > 0)
			return n;
		/* What was there may not be seen any more. */
		begin_anew(consumer);
		*changed = true;
	}
	*changed = prom_window_open(window, want) || *changed;
	return window->is_open ? prom_window_next(window, want, entries, all) : 0;
}

/* Is its position worth writing, though it was given nothing? */
static bool
is_much_later(const Consumer *consumer, TimestampTz was_at)
{
	TimestampTz at = consumer->window.base.at;

	return at < was_at || TimestampDifferenceExceeds(was_at, at, KEEP_POSITION);
}

PG_FUNCTION_INFO_V1(prom_poll);

Datum
prom_poll(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	char *name = name_argument(fcinfo);
	int32 want = PG_ARGISNULL(1) ? 100 : PG_GETARG_INT32(1);
	Consumer consumer;
	PromOwner before;
	PromEntry *entries;
	bool all;
	bool changed = false;
	bool was_open;
	TimestampTz was_at;
	int n;

	InitMaterializedSRF(fcinfo, 0);
	if (want < 1 || want > MAX_EVENTS)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("max_events must be from 1 to %d", MAX_EVENTS)));
	begin(name, "prometheus_poll()", &consumer, &before);
	check_owner(&consumer);
	check_pulled(&consumer);
	was_open = consumer.window.is_open;
	was_at = consumer.window.base.at;
	while ((n = find_events(&consumer, want, &entries, &all, &changed)) > 0)
	{
		const PromPlace *last = &entries[n - 1].place;

		prom_window_read(entries, n);
		if (SPI_processed == 0)
		{
			/* None of them is kept any more. */
			consumer.window.done = *last;
			consumer.given = 0;
			changed = true;
			continue;
		}
		changed = changed || consumer.given != n || consumer.given_all != all ||
				  consumer.last.at != last->at ||
				  consumer.last.event_id != last->event_id;
		consumer.last = *last;
		consumer.given = n;
		consumer.given_all = all;
		for (uint64 i = 0; i < SPI_processed; i++)
			tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
		break;
	}
	/* An older position is right, too: who finds nothing need not write. */
	if (n > 0 ? changed
			  : was_open || (changed && is_much_later(&consumer, was_at)))
		update_consumer(&consumer);
	end(&before);
	return (Datum) 0;
}

/*
 * How many of the next so many come up to one of those that were given last,
 * and with it; 0: it is not among them.
 */
static int
count_among(const Consumer *consumer, int want, int64 event_id,
			PromPlace *place)
{
	PromEntry *entries;
	bool all;
	int n = prom_window_next(&consumer->window, want, &entries, &all);

	for (int i = 0; i < n; i++)
	{
		*place = entries[i].place;
		if (prom_window_is_after(place, &consumer->last))
			break;
		if (place->event_id == event_id)
			return i + 1;
	}
	return 0;
}

/* Others may be seen now than when they were given: a role has changed. */
static int
count_to(const Consumer *consumer, int64 event_id, PromPlace *place)
{
	int n = 0;

	if (consumer->given > 0)
		n = count_among(consumer, consumer->given, event_id, place);
	if (n == 0 && consumer->given > 0)
		n = count_among(consumer, MAX_EVENTS, event_id, place);
	if (n > 0)
		return Min(n, consumer->given);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("event %lld is not one of those that consumer \"%s\" was given last",
					(long long) event_id, consumer->window.name),
			 errhint("It was acknowledged already, or the consumer was polled again since.")));
}

PG_FUNCTION_INFO_V1(prom_ack);

Datum
prom_ack(PG_FUNCTION_ARGS)
{
	char *name = name_argument(fcinfo);
	Consumer consumer;
	PromOwner before;
	PromPlace place;
	int n;

	begin(name, "prometheus_ack()", &consumer, &before);
	check_owner(&consumer);
	check_pulled(&consumer);
	place = consumer.last;
	n = consumer.given;
	if (!PG_ARGISNULL(1))
		n = count_to(&consumer, PG_GETARG_INT64(1), &place);
	if (n > 0)
	{
		bool is_last = !prom_window_is_after(&consumer.last, &place);

		consumer.window.done = place;
		consumer.given = is_last ? 0 : Max(consumer.given - n, 1);
		if (is_last && consumer.given_all)
			begin_anew(&consumer);
		update_consumer(&consumer);
	}
	end(&before);
	PG_RETURN_INT64(n);
}

PG_FUNCTION_INFO_V1(prom_replay);

Datum
prom_replay(PG_FUNCTION_ARGS)
{
	char *name = name_argument(fcinfo);
	Consumer consumer;
	PromOwner before;

	if (PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("start must not be null")));
	begin(name, "prometheus_replay()", &consumer, &before);
	check_owner(&consumer);
	begin_anew(&consumer);
	prom_window_start(&consumer.window, false, PG_GETARG_TIMESTAMPTZ(1));
	update_consumer(&consumer);
	if (strcmp(name, PROM_CONSUMER_EXPORT) == 0)
		prom_spans_replay();
	end(&before);
	prom_wakeup_publisher(); /* it may be a subscription */
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(prom_drop_consumer);

Datum
prom_drop_consumer(PG_FUNCTION_ARGS)
{
	char *name = name_argument(fcinfo);
	Oid type = TEXTOID;
	Datum value = CStringGetTextDatum(name);
	Consumer consumer;
	PromOwner before;

	begin(name, "prometheus_drop_consumer()", &consumer, &before);
	check_pulled(&consumer);
	prom_wakeup_readers();
	if (prom_execute_now("DELETE FROM prometheus._consumer"
						 " WHERE name OPERATOR(pg_catalog.=) $1",
						 1, &type, &value, NULL, false) != SPI_OK_DELETE)
		elog(ERROR, "could not write prometheus._consumer");
	end(&before);
	PG_RETURN_VOID();
}


/* Those of subscriptions. */

void
prom_consumer_push(const char *name, ArrayType *types, Oid owner, bool exists)
{
	Consumer consumer = {0};

	if (types != NULL)
		check_types(types);
	if (exists && !find_consumer(name, &consumer))
		elog(ERROR, "subscription \"%s\" has no consumer", name);
	consumer.window.name = name;
	consumer.owner = GetUserNameFromId(owner, false);
	consumer.window.reader = owner;
	consumer.window.types = types;
	if (exists)
	{
		update_consumer(&consumer);
		return;
	}
	consumer.created_at = GetCurrentTimestamp();
	consumer.window.done = consumer.last = prom_window_beginning;
	prom_window_start(&consumer.window, true, 0);
	if (!insert_consumer(&consumer))
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("a consumer has the name \"%s\"", name),
						errhint("Take another name, or remove that with prometheus_drop_consumer().")));
}

int
prom_consumer_take(const char *name, int want, PromEntry **entries,
				   int64 *mark_id, bool *more)
{
	Consumer consumer;
	TimestampTz was_at;
	bool was_open;
	bool all = true;
	bool changed = false;
	int n;

	*more = false;
	if (!prom_consumer_lock_try(name) || !find_consumer(name, &consumer))
		return 0;
	if (!prom_role_is(consumer.owner, consumer.window.reader))
		return PROM_CONSUMER_ORPHAN;
	was_at = consumer.window.base.at;
	was_open = consumer.window.is_open;
	n = find_events(&consumer, want, entries, &all, &changed);
	*mark_id = consumer.window.base.mark_id;
	if (n > 0)
	{
		consumer.window.done = (*entries)[n - 1].place;
		/* Behind a window of before, or up to a mark, there may be more. */
		*more = !all || was_open ||
				consumer.window.bound.mark_id < prom_mark_newest();
		if (all)
			begin_anew(&consumer);
	}
	if (n > 0 || (changed && is_much_later(&consumer, was_at)))
		update_consumer(&consumer);
	return n;
}


/* That of the export. */

int
prom_consumer_read(const char *name, int want, PromWindow *window,
				   char **place, PromEntry **entries, bool *all)
{
	Consumer consumer;
	TimestampTz was_at;
	bool changed;
	int n;

	if (!find_consumer(name, &consumer))
		return -1;
	was_at = consumer.window.base.at;
	*place = prom_window_place(&consumer.window);
	n = want == 0 ? 0 : find_events(&consumer, want, entries, all, &changed);
	*window = consumer.window;
	if (n == 0 && is_much_later(&consumer, was_at) &&
		prom_consumer_lock_try(name))
		(void) prom_consumer_move(name, *place, window);
	return n;
}

bool
prom_consumer_move(const char *name, const char *place,
				   const PromWindow *window)
{
	Consumer consumer;

	prom_consumer_lock(name);
	if (!find_consumer(name, &consumer) ||
		strcmp(prom_window_place(&consumer.window), place) != 0)
		return false;
	begin_anew(&consumer);
	consumer.window = *window;
	update_consumer(&consumer);
	return true;
}


/* How far they are. */

/* All consumers, as the owner; how many. */
static int
read_consumers(Consumer **consumers)
{
	int n;

	if (SPI_execute("SELECT " COLUMNS " FROM prometheus._consumer c"
					" ORDER BY c.name",
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read prometheus._consumer");
	n = SPI_processed;
	*consumers = palloc(Max(n, 1) * sizeof(Consumer));
	for (int i = 0; i < n; i++)
		read_row(i, &(*consumers)[i]);
	return n;
}

PG_FUNCTION_INFO_V1(prom_consumers);

Datum
prom_consumers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid user = GetUserId();
	Consumer *consumers;
	PromOwner before;
	int n;

	prom_as_of_forbid_reading("prometheus.consumer");
	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	become_owner(&before);
	n = read_consumers(&consumers);
	for (int i = 0; i < n; i++)
	{
		Consumer *consumer = &consumers[i];
		Datum values[7];
		bool nulls[7] = {false};
		Interval *interval = palloc0(sizeof(Interval));

		if (!prom_role_shows(user, consumer->owner, consumer->window.reader))
			continue;
		interval->time = prom_window_behind(&consumer->window);
		values[0] = CStringGetTextDatum(consumer->window.name);
		values[1] = CStringGetTextDatum(consumer->owner);
		values[2] = PointerGetDatum(consumer->window.types);
		nulls[2] = consumer->window.types == NULL;
		values[3] = TimestampTzGetDatum(consumer->created_at);
		values[4] = TimestampTzGetDatum(consumer->window.base.at);
		nulls[5] = RecoveryInProgress() ||
				   !prom_role_is(consumer->owner, consumer->window.reader);
		if (!nulls[5])
			values[5] =
				Int64GetDatum(prom_window_count(&consumer->window, MAX_LAG));
		values[6] = IntervalPGetDatum(interval);
		tuplestore_putvalues(result->setResult, result->setDesc, values,
							 nulls);
	}
	end(&before);
	return (Datum) 0;
}

int
prom_consumer_count(int seconds, StringInfo late)
{
	Consumer *consumers;
	PromOwner before;
	int of_others = 0;
	int n;

	SPI_connect();
	become_owner(&before);
	n = read_consumers(&consumers);
	for (int i = 0; i < n; i++)
	{
		const Consumer *one = &consumers[i];

		if (strcmp(one->window.name, PROM_CONSUMER_EXPORT) == 0 ||
			prom_window_behind(&one->window) <= seconds * USECS_PER_SEC)
			continue;
		if (prom_role_shows(before.user, one->owner, one->window.reader))
			appendStringInfo(late, "%s%s", late->len > 0 ? ", " : "",
							 one->window.name);
		else
			of_others++;
	}
	if (of_others > 0)
		appendStringInfo(late, "%s%d of others", late->len > 0 ? ", " : "",
						 of_others);
	end(&before);
	return n;
}
