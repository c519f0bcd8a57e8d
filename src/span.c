/*
 * span.c
 *	  Spans of applications: of what a session does, whatever becomes of its
 *	  transactions.
 *
 * A span that is open is in the session's own memory.  When it ends, its record
 * goes into a ring in shared memory, without a lock, and so it is there also if
 * the transaction is rolled back, which most want to see most.  The publisher
 * writes what is in the ring, in batches, and takes it out when that has been
 * committed.  If the ring is full the record is dropped, and counted: nobody
 * waits, and no memory is asked for.
 *
 * A span that was begun in a transaction, or a subtransaction, that is rolled
 * back ends with it: who has an error seldom gets to the end of his function.
 * One that is open when the session ends, ends then.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "era.h"
#include "exported.h"
#include "fact.h"
#include "mark.h"
#include "role.h"
#include "span.h"
#include "version.h"
#include "worker.h"
#include "xact.h"

/* Spans that go to the table together, and between such writes, ms. */
#define BATCH 256
#define INTERVAL 250
#define AFTER_FAILURE 1000

/* Of those that a rollback ended, so many are remembered. */
#define REMEMBERED 64

typedef struct OpenSpan
{
	SubTransactionId subxact; /* that began it, and is open; or Invalid */
	uint8 flags;
	PromSpanRecord record;
} OpenSpan;

/* Those of this session, in the order in which they began. */
static OpenSpan *open_spans = NULL; /* room for PROM_MAX_OPEN_SPANS */
static int nopen = 0;

/* Their ids; who ends one of these does not get an error. */
static uint64 rolled_back[REMEMBERED];
static uint32 nrolled_back = 0;

/* Of the publisher: when it writes less than a batch, and anything again. */
static TimestampTz next_write = 0;
static TimestampTz failed_until = 0;

/* Up to where in the ring its transaction has written; 0: it has not. */
static uint64 written_to = 0;


/* The ring. */

void
prom_span_init_ring(PromSpanRing *ring)
{
	pg_atomic_init_u64(&ring->head, 0);
	pg_atomic_init_u64(&ring->tail, 0);
	pg_atomic_init_u64(&ring->dropped, 0);
	pg_atomic_init_u32(&ring->open, 0);
	for (int i = 0; i < PROM_SPANS; i++)
		pg_atomic_init_u64(&ring->cells[i].sequence, 0);
}

/* What is in it is of a database that is not served any more. */
void
prom_span_forget(PromSpanRing *ring)
{
	pg_atomic_write_u64(&ring->tail, pg_atomic_read_u64(&ring->head));
	pg_atomic_write_u64(&ring->dropped, 0);
	pg_atomic_write_u32(&ring->open, 0);
}

/*
 * Put a record into the ring.  Called at the end of transactions and of the
 * process too, so it neither fails nor waits.  The publisher is woken for the
 * first record, after which it looks by itself, and for a batch.
 */
static void
push(PromDatabase *db, const PromSpanRecord *record)
{
	PromSpanRing *ring = &db->spans;
	uint64 head = pg_atomic_read_u64(&ring->head);
	PromSpanCell *cell;

	do
	{
		if (head - pg_atomic_read_u64(&ring->tail) >= PROM_SPANS)
		{
			/* It may be an old head, and the tail beyond it. */
			if (pg_atomic_read_u64(&ring->head) == head)
			{
				(void) pg_atomic_fetch_add_u64(&ring->dropped, 1);
				return;
			}
			head = pg_atomic_read_u64(&ring->head);
			continue;
		}
		if (pg_atomic_compare_exchange_u64(&ring->head, &head, head + 1))
			break;
	} while (true);
	cell = &ring->cells[head % PROM_SPANS];
	memcpy(&cell->record, record, sizeof(PromSpanRecord));
	pg_write_barrier();
	pg_atomic_write_u64(&cell->sequence, head + 1);

	/* Either the publisher sees the record, or its tail is seen here. */
	pg_memory_barrier();
	if ((head - pg_atomic_read_u64(&ring->tail)) % BATCH == 0)
		prom_shmem_wake(&db->worker[PROM_PUBLISHER]);
}

/* How many records can be read. */
static int
count_ready(PromSpanRing *ring)
{
	uint64 tail = pg_atomic_read_u64(&ring->tail);
	int n = 0;

	pg_memory_barrier();
	while (n < PROM_SPANS &&
		   pg_atomic_read_u64(&ring->cells[(tail + n) % PROM_SPANS].sequence) ==
			   tail + n + 1)
		n++;
	pg_read_barrier();
	return n;
}

TimestampTz
prom_span_due(TimestampTz now)
{
	int n = count_ready(&prom_my_database->spans);

	if (n == 0)
		return DT_NOEND;
	return Max(n < BATCH ? next_write : failed_until, now);
}

static void
add_row(PromFactWriter *writer, const PromSpanRecord *record)
{
	static const char *const statuses[] = {"unset", "ok", "error"};
	Datum values[SPAN_COLUMNS];
	bool nulls[SPAN_COLUMNS] = {false};
	pg_uuid_t *trace_id = palloc(sizeof(pg_uuid_t));
	Jsonb *attributes = palloc(PROM_SPAN_ATTRIBUTES);

	*trace_id = record->trace_id;
	memcpy(attributes, record->attributes, PROM_SPAN_ATTRIBUTES);
	values[SPAN_ID] = Int64GetDatum((int64) record->span_id);
	values[SPAN_PARENT] = Int64GetDatum((int64) record->parent_id);
	nulls[SPAN_PARENT] = record->parent_id == 0;
	values[SPAN_STARTED_AT] = TimestampTzGetDatum(record->started_at);
	values[SPAN_ENDED_AT] = TimestampTzGetDatum(record->ended_at);
	values[SPAN_TASK_ID] = Int64GetDatum(record->task_id);
	nulls[SPAN_TASK_ID] = record->task_id == 0;
	values[SPAN_OWNER_OID] = ObjectIdGetDatum(record->owner);
	values[SPAN_TRACE_ID] = UUIDPGetDatum(trace_id);
	values[SPAN_OWNER] = CStringGetTextDatum(NameStr(record->owner_name));
	values[SPAN_NAME] = CStringGetTextDatum(record->name);
	values[SPAN_STATUS] = CStringGetTextDatum(statuses[record->status]);
	values[SPAN_ERROR_TYPE] = prom_fact_text(
		*record->error_type == '\0' ? NULL : record->error_type,
		&nulls[SPAN_ERROR_TYPE]);
	values[SPAN_TRACEPARENT] = prom_fact_text(
		*record->traceparent == '\0' ? NULL : record->traceparent,
		&nulls[SPAN_TRACEPARENT]);
	values[SPAN_ATTRIBUTES] = JsonbPGetDatum(attributes);
	prom_fact_add(writer, PROM_FACT_SPAN, values, nulls);
}

void
prom_span_write(void)
{
	PromSpanRing *ring = &prom_my_database->spans;
	uint64 tail = pg_atomic_read_u64(&ring->tail);
	int n = Min(count_ready(ring), BATCH);
	PromFactWriter *writer;

	if (n == 0)
		return;
	if (!prom_era_xact_begin("writing spans of applications"))
		proc_exit(0);
	SetConfigOption("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE);
	writer = prom_fact_begin();
	for (int i = 0; i < n; i++)
		add_row(writer, &ring->cells[(tail + i) % PROM_SPANS].record);
	prom_fact_end(writer);
	written_to = tail + n;
	prom_xact_commit();
	next_write = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), INTERVAL);
}

void
prom_span_failed(void)
{
	failed_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
											   AFTER_FAILURE);
	next_write = failed_until;
}


/* The spans of this session. */

static void
set_text(char *to, const char *text, size_t size)
{
	strlcpy(to, text, size);
}

/* It is over.  error_type: NULL if it was not ended by an error of its own. */
static void
end_span(int place, PromSpanStatus status, const char *error_type)
{
	PromDatabase *db = prom_shmem_database(MyDatabaseId);
	PromSpanRecord *record = &open_spans[place].record;

	record->status = status;
	record->ended_at = Max(GetCurrentTimestamp(), record->started_at);
	if (error_type != NULL)
		set_text(record->error_type, error_type, PROM_SPAN_ERROR_TYPE);
	if (record->is_counted && db != NULL)
	{
		(void) pg_atomic_fetch_sub_u32(&db->spans.open, 1);
		push(db, record);
	}
	nopen--;
	memmove(&open_spans[place], &open_spans[place + 1],
			(nopen - place) * sizeof(OpenSpan));
}

static void
roll_back(int place)
{
	rolled_back[nrolled_back++ % REMEMBERED] = open_spans[place].record.span_id;
	end_span(place, PROM_SPAN_ERROR, "rollback");
}

/* The publisher's rows are there: exactly now they are taken out. */
static void
take_out(void)
{
	PromSpanRing *ring = &prom_my_database->spans;
	uint64 tail = pg_atomic_read_u64(&ring->tail);

	pg_memory_barrier();
	pg_atomic_write_u64(&ring->tail, written_to);
	prom_exported_spans(written_to - tail);
}

static void
end_with_transaction(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT && written_to != 0)
		take_out();
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		written_to = 0;
	if (nopen == 0 || (event != XACT_EVENT_COMMIT &&
					   event != XACT_EVENT_PREPARE &&
					   event != XACT_EVENT_ABORT))
		return;
	for (int i = nopen - 1; i >= 0; i--)
	{
		if (open_spans[i].subxact == InvalidSubTransactionId)
			continue;
		if (event == XACT_EVENT_ABORT)
			roll_back(i);
		else
			open_spans[i].subxact = InvalidSubTransactionId;
	}
}

static void
end_with_subtransaction(SubXactEvent event, SubTransactionId mine,
						SubTransactionId parent, void *arg)
{
	for (int i = nopen - 1; i >= 0; i--)
	{
		if (open_spans[i].subxact != mine)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			open_spans[i].subxact = parent;
		else if (event == SUBXACT_EVENT_ABORT_SUB)
			roll_back(i);
	}
}

void
prom_span_end_all(void)
{
	while (nopen > 0)
		end_span(nopen - 1, PROM_SPAN_ERROR, "abandoned");
}

static void
end_with_session(int code, Datum arg)
{
	prom_span_end_all();
}

void
prom_span_init(void)
{
	RegisterXactCallback(end_with_transaction, NULL);
	RegisterSubXactCallback(end_with_subtransaction, NULL);
}

/* Room for one more. */
static OpenSpan *
open_span(void)
{
	if (open_spans == NULL)
	{
		open_spans = MemoryContextAllocZero(
			TopMemoryContext, PROM_MAX_OPEN_SPANS * sizeof(OpenSpan));
		before_shmem_exit(end_with_session, (Datum) 0);
	}
	if (nopen == PROM_MAX_OPEN_SPANS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many spans are open in this session"),
				 errdetail("There may be %d.", PROM_MAX_OPEN_SPANS),
				 errhint("prometheus_span_end() ends one.")));
	memset(&open_spans[nopen], 0, sizeof(OpenSpan));
	return &open_spans[nopen];
}

/* What a span that begins is a part of. */
typedef struct Place
{
	PromTrace trace;
	uint64 span_id; /* 0: none */
	int64 task_id;  /* in whose tool it is; 0: in none */
} Place;

/* The span of the task whose tool runs; false: none does. */
static bool
find_task(Place *place)
{
	static PromStatement statement = {
		"SELECT t.trace_id, t.traceparent, t.event_id FROM prometheus._task t"
		" WHERE t.task_id OPERATOR(pg_catalog.=) $1",
		1,
		{INT8OID},
		NULL,
	};
	int64 task_id = prom_version_task();
	Datum value = Int64GetDatum(task_id);
	PromOwner before;
	bool found;

	if (task_id == 0)
		return false;
	SPI_connect();
	prom_role_become_owner(&before);
	prom_statement_run_now(&statement, &value);
	found = SPI_processed > 0;
	if (found)
	{
		prom_trace_of(prom_row_uuid(0, 1), prom_row_text_or_null(0, 2),
					  &place->trace);
		place->span_id = (uint64) prom_row_int64(0, 3);
		place->task_id = task_id;
	}
	prom_role_restore(&before);
	SPI_finish();
	return found;
}

/* What the session is in; false: nothing. */
static bool
find_current(Place *place)
{
	const OpenSpan *newest;

	if (nopen == 0)
		return find_task(place);
	newest = &open_spans[nopen - 1];
	place->trace.id = newest->record.trace_id;
	place->trace.flags = newest->flags;
	place->span_id = newest->record.span_id;
	place->task_id = newest->record.task_id;
	return true;
}

char *
prom_span_current(void)
{
	char *traceparent;
	Place place;

	if (nopen == 0)
		return NULL;
	traceparent = palloc(PROM_TRACEPARENT_SIZE);
	(void) find_current(&place);
	prom_trace_parent(traceparent, &place.trace, place.span_id);
	return traceparent;
}

/* No id of a fact has the highest bit. */
static uint64
new_id(void)
{
	return pg_prng_uint64(&pg_global_prng_state) | UINT64CONST(1) << 63;
}

static uint64
read_parent(const char *traceparent)
{
	char digits[17];

	strlcpy(digits, traceparent + PROM_TRACEPARENT_PARENT, sizeof(digits));
	return strtou64(digits, NULL, 16);
}

static char *
text_argument(FunctionCallInfo fcinfo, int number, const char *name)
{
	if (PG_ARGISNULL(number))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("%s must not be null", name)));
	return text_to_cstring(PG_GETARG_TEXT_PP(number));
}

static void
check_name(const char *name)
{
	if (*name == '\0' || strlen(name) > PROM_SPAN_NAME)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a span cannot have this name"),
				 errdetail("It must have 1 to %d bytes.", PROM_SPAN_NAME)));
}

static void
set_attributes(PromSpanRecord *record, Jsonb *attributes)
{
	size_t length;

	if (!JB_ROOT_IS_OBJECT(attributes))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("attributes of a span must be a json object")));
	if (VARSIZE(attributes) > PROM_SPAN_ATTRIBUTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("attributes of a span are too long"),
				 errdetail("They have %d bytes as jsonb, and may have %d.",
						   (int) VARSIZE(attributes), PROM_SPAN_ATTRIBUTES)));
	/* A number like 1e1000 is short as jsonb; who reads spans has the text. */
	length = strlen(JsonbToCString(NULL, &attributes->root,
								   VARSIZE(attributes)));
	if (length > PROM_SPAN_ATTRIBUTES_TEXT)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("attributes of a span are too long"),
				 errdetail("They have %zu bytes as text, and may have %d.",
						   length, PROM_SPAN_ATTRIBUTES_TEXT)));
	memcpy(record->attributes, attributes, VARSIZE(attributes));
}

PG_FUNCTION_INFO_V1(prom_span_start);

Datum
prom_span_start(PG_FUNCTION_ARGS)
{
	char *name = text_argument(fcinfo, 0, "name");
	Jsonb *attributes = PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P_COPY(1);
	PromDatabase *db = prom_shmem_database(MyDatabaseId);
	char traceparent[PROM_TRACEPARENT_SIZE];
	Place place = {.span_id = 0};
	OpenSpan *span = open_span();
	PromSpanRecord *record = &span->record;

	check_name(name);
	if (attributes == NULL)
		attributes = DatumGetJsonbP(
			DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
	set_attributes(record, attributes);
	if (!PG_ARGISNULL(2))
	{
		char *given = text_to_cstring(PG_GETARG_TEXT_PP(2));

		prom_trace_read(given, &place.trace);
		place.span_id = read_parent(given);
		set_text(record->traceparent, given, PROM_TRACEPARENT_SIZE);
	}
	else if (!find_current(&place))
		prom_trace_begin(&place.trace);
	record->trace_id = place.trace.id;
	record->span_id = new_id();
	record->parent_id = place.span_id;
	record->task_id = place.task_id;
	record->started_at = GetCurrentTimestamp();
	record->owner = GetUserId();
	namestrcpy(&record->owner_name, GetUserNameFromId(record->owner, false));
	set_text(record->name, name, sizeof(record->name));
	record->is_counted = db != NULL;
	span->flags = place.trace.flags;
	span->subxact = GetCurrentSubTransactionId();
	prom_trace_parent(traceparent, &place.trace, record->span_id);
	if (db != NULL)
		(void) pg_atomic_fetch_add_u32(&db->spans.open, 1);
	nopen++;
	PG_RETURN_TEXT_P(cstring_to_text(traceparent));
}

static PromSpanStatus
status_argument(FunctionCallInfo fcinfo)
{
	char *status;

	if (PG_ARGISNULL(1))
		return PROM_SPAN_OK;
	status = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (strcmp(status, "ok") == 0)
		return PROM_SPAN_OK;
	if (strcmp(status, "error") == 0)
		return PROM_SPAN_ERROR;
	if (strcmp(status, "unset") == 0)
		return PROM_SPAN_UNSET;
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("a span cannot have the status \"%s\"", status),
					errdetail("It must be ok, error or unset.")));
}

PG_FUNCTION_INFO_V1(prom_span_end);

Datum
prom_span_end(PG_FUNCTION_ARGS)
{
	char *given = text_argument(fcinfo, 0, "span");
	PromSpanStatus status = status_argument(fcinfo);
	PromTrace trace;
	uint64 span_id;

	prom_trace_read(given, &trace);
	span_id = read_parent(given);
	for (int i = nopen - 1; i >= 0; i--)
		if (open_spans[i].record.span_id == span_id)
		{
			end_span(i, status, NULL);
			PG_RETURN_VOID();
		}
	for (uint32 i = 0; i < Min(nrolled_back, REMEMBERED); i++)
		if (rolled_back[i] == span_id)
			PG_RETURN_VOID();
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("span \"%s\" is not open", given),
			 errdetail("It has ended, or another session began it.")));
}

PG_FUNCTION_INFO_V1(prom_traceparent);

Datum
prom_traceparent(PG_FUNCTION_ARGS)
{
	char traceparent[PROM_TRACEPARENT_SIZE];
	Place place;

	if (!find_current(&place))
		PG_RETURN_NULL();
	prom_trace_parent(traceparent, &place.trace, place.span_id);
	PG_RETURN_TEXT_P(cstring_to_text(traceparent));
}

void
prom_span_count(PromDatabase *db, PromSpanCounts *counts)
{
	PromSpanRing *ring = &db->spans;
	uint64 tail = pg_atomic_read_u64(&ring->tail);

	pg_read_barrier();
	counts->open = Max((int32) pg_atomic_read_u32(&ring->open), 0);
	counts->waiting = (int64) (pg_atomic_read_u64(&ring->head) - tail);
	counts->dropped = (int64) pg_atomic_read_u64(&ring->dropped);
}

PG_FUNCTION_INFO_V1(prom_span_counts);

Datum
prom_span_counts(PG_FUNCTION_ARGS)
{
	PromDatabase *db = prom_shmem_database(MyDatabaseId);
	PromSpanCounts counts = {0};
	Datum values[3];
	bool nulls[3] = {db == NULL, db == NULL, db == NULL};
	TupleDesc desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (db != NULL)
		prom_span_count(db, &counts);
	values[0] = Int64GetDatum(counts.open);
	values[1] = Int64GetDatum(counts.waiting);
	values[2] = Int64GetDatum(counts.dropped);
	PG_RETURN_DATUM(HeapTupleGetDatum(
		heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
