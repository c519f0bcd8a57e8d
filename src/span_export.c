/*
 * span_export.c
 *	  Spans of applications in what is exported (export.c).
 *
 * One process writes them, the publisher, a transaction after the other: so
 * they are read in the order of xid, which is here that of commits, and the
 * position is the last one that was looked at.  It is moved when the receiver
 * has taken the request, so each goes at least once.
 *
 * A span whose trace has tasks goes when these have ended, since only then is
 * it known whether the trace is sampled.  Until then it is held: in
 * prometheus._span_held, behind which the position goes on.  When tasks of that
 * trace are exported, or left out, the row becomes due, and is looked at again.
 * What the ends of tasks are read from was taken before a span is looked at: so
 * the end of a task that has not ended by then makes the row due later.
 *
 * A span often ends a moment before the transaction that submits its tasks, so
 * one whose trace has none is looked at when it is two seconds old, and those
 * behind it wait for that, too.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/xid8.h"

#include "encoding.h"
#include "export.h"
#include "fault.h"
#include "span_export.h"
#include "trace.h"
#include "xact.h"

/* Of a request; the rest is for tasks. */
#define SPANS (PROM_EXPORT_SPANS / 2)
#define BYTES (PROM_EXPORT_BYTES / 2)

/* That are read together, and what one turn may take, us. */
#define PAGE 64
#define LONGEST_TURN 10000

/* As prometheus._sample() has it, us. */
#define AT_REST_AFTER (2 * USECS_PER_SEC)

/* Each span has one, by which they are in order. */
typedef struct Key
{
	uint64 xid;
	pg_uuid_t trace_id;
	int64 span_id;
} Key;

typedef struct Keys
{
	Key *keys;
	int n;
	int room;
} Keys;

/* Of a trace, while the request is written. */
typedef struct Decision
{
	pg_uuid_t trace_id;
	bool has_tasks;
	bool is_at_rest;
	bool is_sampled;
	char trace_state[PROM_TRACE_THRESHOLD_SIZE + 8]; /* empty: none */
} Decision;

typedef enum Phase
{
	DUE,  /* those that were held */
	NEXT, /* those behind the position */
	OVER
} Phase;

struct PromSpanExport
{
	MemoryContext context;
	Phase phase;
	bool has_held; /* any, as it began */
	Key due;       /* the last one that was looked at, */
	Key position;  /* in each phase */
	bool moves;
	TimestampTz since;
	TimestampTz again; /* the next one is too young until then; 0: none is */
	int64 dropped;
	HTAB *decisions;
	Keys held;     /* from now on, */
	Keys gone;     /* or not any more */
	Keys released; /* traces alone */
};

typedef struct Row
{
	Key key;
	PromOtlpSpan span;
} Row;


/* The position. */

static void
execute(const char *sql, int expected)
{
	if (SPI_execute(sql, false, 0) != expected)
		elog(ERROR, "could not write the position of spans");
}

void
prom_span_export_settle(bool is_on)
{
	if (is_on)
		execute("INSERT INTO prometheus._span_position"
				" (xid, trace_id, span_id)"
				" SELECT coalesce((SELECT x.xid FROM prometheus._span x"
				"   ORDER BY x.xid DESC LIMIT 1), '0'),"
				" 'ffffffff-ffff-ffff-ffff-ffffffffffff',"
				" 9223372036854775807"
				" WHERE NOT EXISTS (SELECT FROM prometheus._span_position)",
				SPI_OK_INSERT);
	else
	{
		execute("DELETE FROM prometheus._span_held", SPI_OK_DELETE);
		execute("DELETE FROM prometheus._span_position", SPI_OK_DELETE);
	}
}

static uint64
row_xid(uint64 row, int column)
{
	bool isnull;
	Datum value = SPI_getbinval(SPI_tuptable->vals[row],
								SPI_tuptable->tupdesc, column, &isnull);

	return U64FromFullTransactionId(DatumGetFullTransactionId(value));
}

static void
read_key(uint64 row, Key *key)
{
	key->xid = row_xid(row, 1);
	key->trace_id = *prom_row_uuid(row, 2);
	key->span_id = prom_row_int64(row, 3);
}

PromSpanExport *
prom_span_export_begin(void)
{
	static PromStatement statement = {
		"SELECT p.xid, p.trace_id, p.span_id,"
		" EXISTS (SELECT FROM prometheus._span_held)"
		" FROM prometheus._span_position p",
		0,
		{0},
		NULL,
	};
	PromSpanExport *one = palloc0(sizeof(PromSpanExport));
	HASHCTL control = {
		.keysize = sizeof(pg_uuid_t),
		.entrysize = sizeof(Decision),
		.hcxt = CurrentMemoryContext,
	};

	one->context = CurrentMemoryContext;
	one->decisions = hash_create("prometheus sampled spans", 64, &control,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	one->due.span_id = PG_INT64_MIN;
	prom_statement_run(&statement, NULL, NULL, false);
	if (SPI_processed == 0)
		one->phase = OVER;
	else
	{
		read_key(0, &one->position);
		one->has_held = prom_row_bool(0, 4);
		one->phase = one->has_held ? DUE : NEXT;
	}
	return one;
}

TimestampTz
prom_span_export_since(const PromSpanExport *one)
{
	return one->since;
}

TimestampTz
prom_span_export_again(const PromSpanExport *one)
{
	return one->again;
}

int64
prom_span_export_dropped(const PromSpanExport *one)
{
	return one->dropped;
}

static void
add_key(PromSpanExport *one, Keys *keys, const Key *key)
{
	if (keys->room == 0)
	{
		keys->room = PAGE;
		keys->keys = MemoryContextAlloc(one->context, PAGE * sizeof(Key));
	}
	else if (keys->n == keys->room)
	{
		keys->room *= 2;
		keys->keys = repalloc(keys->keys, keys->room * sizeof(Key));
	}
	keys->keys[keys->n++] = *key;
}


/* Which traces. */

typedef struct Question
{
	const pg_uuid_t *trace_id;
	Decision *decision;
} Question;

/* In a subtransaction. */
static void
look(void *arg)
{
	static PromStatement statement = {
		"SELECT s.is_at_rest, s.is_sampled, s.th, s.has_tasks"
		" FROM prometheus._sampled_spans($1) s",
		1,
		{UUIDOID},
		NULL,
	};
	Question *question = arg;
	Decision *decision = question->decision;
	Datum value = UUIDPGetDatum(question->trace_id);
	const char *threshold;

	PROM_FAULT("export-in-span");
	prom_statement_run(&statement, &value, NULL, false);
	decision->is_at_rest = prom_row_bool(0, 1);
	decision->is_sampled = prom_row_bool(0, 2);
	decision->has_tasks = prom_row_bool(0, 4);
	threshold = prom_row_text_or_null(0, 3);
	if (threshold != NULL)
		snprintf(decision->trace_state, sizeof(decision->trace_state),
				 "ot=th:%s", threshold);
	SPI_freetuptable(SPI_tuptable);
}

/* NULL: that cannot be said, ever. */
static const Decision *
decide(PromSpanExport *one, const pg_uuid_t *trace_id)
{
	Decision *known = hash_search(one->decisions, trace_id, HASH_FIND, NULL);
	Decision decision = {.trace_id = *trace_id};
	Question question = {trace_id, &decision};
	ErrorData *failure;

	if (known != NULL)
		return known;
	failure = prom_xact_try_aloud(look, &question);
	if (failure != NULL && prom_xact_is_transient(failure->sqlerrcode))
		ReThrowError(failure);
	if (failure != NULL)
		return NULL;
	known = hash_search(one->decisions, trace_id, HASH_ENTER, NULL);
	*known = decision;
	return known;
}


/* Reading. */

#define COLUMNS                                                                \
	"x.xid, x.trace_id, x.span_id, replace(x.trace_id::text, '-', ''),"        \
	" lpad(to_hex(x.span_id), 16, '0'),"                                       \
	" lpad(to_hex(x.parent_span_id), 16, '0'), x.traceparent IS NOT NULL,"     \
	" x.name, x.status, x.started_at, x.ended_at, prometheus._span_attributes" \
	"(x.attributes, x.status, x.error_type, x.owner)::text"

static PromStatement due_statement = {
	"SELECT " COLUMNS " FROM prometheus._span_held h"
	" JOIN prometheus._span x"
	" ON x.trace_id = h.trace_id AND x.span_id = h.span_id"
	" WHERE h.is_due AND (h.trace_id, h.span_id) > ($2, $3)"
	" ORDER BY h.trace_id, h.span_id LIMIT $4",
	4,
	{XID8OID, UUIDOID, INT8OID, INT8OID},
	NULL,
};

static PromStatement next_statement = {
	"SELECT " COLUMNS " FROM prometheus._span x"
	" WHERE (x.xid, x.trace_id, x.span_id) > ($1, $2, $3)"
	" ORDER BY x.xid, x.trace_id, x.span_id LIMIT $4",
	4,
	{XID8OID, UUIDOID, INT8OID, INT8OID},
	NULL,
};

static const char *
row_utf8(uint64 row, int column)
{
	return prom_encoding_words_to_utf8(prom_row_text(row, column));
}

static void
read_row(uint64 row, Row *read)
{
	const char *attributes = row_utf8(row, 12);
	PromOtlpSpan span = {
		.trace_id = prom_row_text(row, 4),
		.span_id = prom_row_text(row, 5),
		.parent_id = prom_row_text_or_null(row, 6),
		.is_remote = prom_row_bool(row, 7),
		.name = row_utf8(row, 8),
		.kind = "internal",
		.status = prom_row_text(row, 9),
		.started_at = prom_row_time(row, 10),
		.ended_at = prom_row_time(row, 11),
		.attributes = {attributes, strlen(attributes)},
	};

	read_key(row, &read->key);
	read->span = span;
}

static int
read_page(const PromSpanExport *one, Row *rows)
{
	const Key *after = one->phase == DUE ? &one->due : &one->position;
	Datum values[4];
	int n;

	values[0] =
		FullTransactionIdGetDatum(FullTransactionIdFromU64(after->xid));
	values[1] = UUIDPGetDatum(&after->trace_id);
	values[2] = Int64GetDatum(after->span_id);
	values[3] = Int64GetDatum(PAGE);
	prom_statement_run(one->phase == DUE ? &due_statement : &next_statement,
					   values, NULL, false);
	n = SPI_processed;
	for (int i = 0; i < n; i++)
		read_row(i, &rows[i]);
	SPI_freetuptable(SPI_tuptable);
	return n;
}

/* Somebody may have set the clock back. */
static bool
is_young(TimestampTz ended_at)
{
	TimestampTz now = GetCurrentTimestamp();

	return ended_at <= now && now < ended_at + AT_REST_AFTER;
}

/* False: it is too young, and not looked at. */
static bool
take(PromSpanExport *one, PromOtlpRequest *request, Row *row)
{
	const Decision *decision = decide(one, &row->key.trace_id);

	if (one->phase == NEXT && decision != NULL && !decision->has_tasks &&
		is_young(row->span.ended_at))
	{
		one->again = row->span.ended_at + AT_REST_AFTER;
		return false;
	}
	if (one->since == 0)
		one->since = row->span.ended_at;
	if (one->phase == DUE)
		one->due = row->key;
	else
		one->position = row->key;
	one->moves = true;
	if (decision != NULL && !decision->is_at_rest)
	{
		add_key(one, &one->held, &row->key);
		return true;
	}
	if (one->phase == DUE)
		add_key(one, &one->gone, &row->key);
	if (decision != NULL && !decision->is_sampled)
		return true;
	if (decision != NULL && decision->trace_state[0] != '\0')
		row->span.trace_state = decision->trace_state;
	if (decision == NULL || !prom_otlp_add_span(request, &row->span))
		one->dropped++;
	return true;
}

/* In one turn; true: there are no more for the request. */
static bool
take_page(PromSpanExport *one, PromOtlpRequest *request, Row *rows, int n,
		  instr_time *begun, bool *is_late)
{
	instr_time now;

	for (int i = 0; i < n && !*is_late; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!take(one, request, &rows[i]) || request->spans >= SPANS ||
			request->body.len >= BYTES || one->held.n >= SPANS)
			return true;
		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, *begun);
		*is_late = INSTR_TIME_GET_MICROSEC(now) > LONGEST_TURN;
	}
	return false;
}

bool
prom_span_export_read(PromSpanExport *one, PromOtlpRequest *request)
{
	Row *rows = palloc(PAGE * sizeof(Row));
	bool is_late = false;
	instr_time begun;

	INSTR_TIME_SET_CURRENT(begun);
	while (one->phase != OVER && !is_late)
	{
		int n = read_page(one, rows);

		if (take_page(one, request, rows, n, &begun, &is_late))
			one->phase = OVER;
		else if (n < PAGE && !is_late)
			one->phase++;
	}
	return one->phase == OVER;
}


/* What comes of it. */

/* Is anything of the trace held? */
static bool
is_held(const pg_uuid_t *trace_id)
{
	static PromStatement statement = {
		"SELECT FROM prometheus._span_held h WHERE h.trace_id = $1 LIMIT 1",
		1,
		{UUIDOID},
		NULL,
	};
	Datum value = UUIDPGetDatum(trace_id);

	prom_statement_run(&statement, &value, NULL, false);
	return SPI_processed > 0;
}

void
prom_span_export_release(PromSpanExport *one, const pg_uuid_t *trace_id)
{
	const Decision *known =
		hash_search(one->decisions, trace_id, HASH_FIND, NULL);
	Key key = {.trace_id = *trace_id};

	if ((known != NULL && !known->is_at_rest) ||
		(one->has_held && is_held(trace_id)))
		add_key(one, &one->released, &key);
}

/* The arguments of a statement: traces and, of each, a span. */
static void
run_of(PromStatement *statement, const Keys *keys)
{
	Datum *traces = palloc((keys->n + 1) * sizeof(Datum));
	Datum *spans = palloc((keys->n + 1) * sizeof(Datum));
	Datum values[2];

	if (keys->n == 0)
		return;
	for (int i = 0; i < keys->n; i++)
	{
		traces[i] = UUIDPGetDatum(&keys->keys[i].trace_id);
		spans[i] = Int64GetDatum(keys->keys[i].span_id);
	}
	values[0] = PointerGetDatum(construct_array(
		traces, keys->n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
	values[1] = PointerGetDatum(construct_array(spans, keys->n, INT8OID,
												sizeof(int64), FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	prom_statement_run(statement, values, NULL, false);
}

static PromStatement move_statement = {
	"UPDATE prometheus._span_position"
	" SET xid = $1, trace_id = $2, span_id = $3",
	3,
	{XID8OID, UUIDOID, INT8OID},
	NULL,
};

static PromStatement forget_statement = {
	"DELETE FROM prometheus._span_held h"
	" USING unnest($1, $2) g (trace_id, span_id)"
	" WHERE h.trace_id = g.trace_id AND h.span_id = g.span_id",
	2,
	{UUIDARRAYOID, INT8ARRAYOID},
	NULL,
};

static PromStatement hold_statement = {
	"INSERT INTO prometheus._span_held (trace_id, span_id, is_due)"
	" SELECT g.trace_id, g.span_id, false"
	" FROM unnest($1, $2) g (trace_id, span_id)"
	" ON CONFLICT (trace_id, span_id) DO UPDATE SET is_due = false",
	2,
	{UUIDARRAYOID, INT8ARRAYOID},
	NULL,
};

/* $2 has nothing to say. */
static PromStatement release_statement = {
	"UPDATE prometheus._span_held h SET is_due = true"
	" WHERE h.trace_id = ANY ($1) AND NOT h.is_due",
	2,
	{UUIDARRAYOID, INT8ARRAYOID},
	NULL,
};

void
prom_span_export_move(const PromSpanExport *one)
{
	const Key *to = &one->position;
	Datum values[3];

	if (one->moves)
	{
		values[0] =
			FullTransactionIdGetDatum(FullTransactionIdFromU64(to->xid));
		values[1] = UUIDPGetDatum(&to->trace_id);
		values[2] = Int64GetDatum(to->span_id);
		prom_statement_run(&move_statement, values, NULL, false);
	}
	run_of(&forget_statement, &one->gone);
	run_of(&hold_statement, &one->held);
	run_of(&release_statement, &one->released);
}
