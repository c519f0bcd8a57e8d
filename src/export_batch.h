/*
 * export_batch.h
 *	  What the export of traces reads, sends and acknowledges together.
 *
 * A batch is of one of three sources, each of which knows how far it is: trees
 * of tasks (export_tree.c), spans of applications (export_span.c), and what was
 * left out of a trace before it was known that it is to be exported
 * (export_omitted.c).  export.c takes them in turn.
 */
#ifndef PROM_EXPORT_BATCH_H
#define PROM_EXPORT_BATCH_H

#include "utils/uuid.h"

#include "otlp.h"
#include "sampler.h"
#include "window.h"

typedef enum PromSource
{
	PROM_FROM_TREES,
	PROM_FROM_SPANS,
	PROM_FROM_OMITTED
} PromSource;

/* Where a tree goes on that was too large for one request, or what was left
 * out of a trace. */
typedef struct PromPart
{
	int64 event_id; /* of its last end; 0: there is none */
	int64 task_id;  /* behind the span of this one, of this time and id */
	TimestampTz started_at;
	char span_id[PROM_OTLP_SPAN_ID + 1];
} PromPart;

/* Of what one transaction has written, up to this one. */
typedef struct PromSpanPlace
{
	uint64 xid; /* 0: nothing */
	int64 span_id;
} PromSpanPlace;

typedef struct PromBatch
{
	PromSource source;
	bool is_begun;
	bool is_held_up; /* something could not be read in this turn */
	MemoryContext context;
	PromOtlpRequest request;
	PromSampler *sampler;

	/* Trees. */
	char *place;       /* of the consumer, before it; */
	PromWindow window; /* and behind it */
	PromPart part;     /* that it ends with, of a tree or what was left out */

	/* Spans of applications. */
	char *base_text; /* the position before it */
	PromPosition base;
	PromPosition bound;
	PromSpanPlace begun; /* of one, that base does not see */
	PromSpanPlace done;
	bool is_all; /* that bound sees */

	/* What it comes to. */
	int64 traces;
	int64 unsampled;
	int64 dropped;
	PromOtlpVerdict verdict;
	int64 rejected;
} PromBatch;

/* What came of reading, in a transaction with SPI. */
typedef enum PromReading
{
	PROM_READ_NOTHING, /* there is nothing, and so no batch */
	PROM_READ_ABSENT,  /* there is no position */
	PROM_READ_ON,      /* it goes on in another turn */
	PROM_READ_ALL      /* the batch is complete; it may be empty */
} PromReading;

/* For the sources: begin one, whose first part has waited since then; */
extern void prom_batch_begin(PromBatch *batch, TimestampTz since);

/* forget all of it; */
extern void prom_batch_forget(PromBatch *batch);

/* keep a position in its context; */
extern void prom_batch_keep(const PromBatch *batch, PromPosition *position);

/*
 * act in a subtransaction; false: it cannot be done now, and nothing was.  What
 * fails by itself is counted, and left out;
 */
extern bool prom_batch_try(PromBatch *batch, void (*act)(void *arg),
						   void *arg);

/* is there no room, or no time left (instr_time of the turn) for more; */
extern bool prom_batch_is_full(const PromBatch *batch);
extern bool prom_batch_is_late(void);

/* add a row, with these columns first; false: it is no span, and was not. */
#define PROM_SPAN_COLUMNS                                  \
	"replace(x.trace_id::text, '-', ''),"                  \
	" lpad(to_hex(x.span_id), 16, '0'),"                   \
	" lpad(to_hex(x.parent_span_id), 16, '0'), x.name,"    \
	" 'internal', x.status, x.started_at, x.ended_at,"     \
	" prometheus._span_attributes(x.attributes, x.status," \
	" x.error_type, x.owner)::text, x.traceparent IS NOT NULL"
extern bool prom_batch_add_row(PromBatch *batch, uint64 row,
							   const char *trace_state, bool is_remote);

/*
 * Each source: read, begin with an empty batch; move the position behind it,
 * in a transaction; that has been committed; and nothing goes on.
 */
extern PromReading prom_trees_read(PromBatch *batch);
extern void prom_trees_move(PromBatch *batch);
extern void prom_trees_moved(const PromBatch *batch);
extern void prom_trees_forget(void);

extern PromReading prom_spans_read(PromBatch *batch);
extern void prom_spans_move(PromBatch *batch);
extern void prom_spans_moved(const PromBatch *batch);
extern void prom_spans_forget(void);

extern PromReading prom_omitted_read(PromBatch *batch);
extern void prom_omitted_move(PromBatch *batch);
extern void prom_omitted_moved(const PromBatch *batch);
extern void prom_omitted_forget(void);

/* Trees: add a task of a tree from a part on; true: that was all of it. */
extern bool prom_trees_add_task(PromBatch *batch, int64 task_id,
								int64 event_id, const PromPart *from,
								const char *trace_state,
								const char *root_span);

/* A session: the spans begin again where the trees do. */
extern void prom_spans_replay(void);

/* Spans: make or remove the position, as the setting wants. */
extern void prom_spans_settle(bool is_on);

/*
 * Spans: how far they are, palloc'd text of a position, and within what a
 * transaction has written.
 */
extern void prom_spans_find_place(char **base, PromSpanPlace *place);

/*
 * Left out: is there anything of this trace, at a window and a place of spans?
 * Then it is to be sent next.
 */
extern bool prom_omitted_ask(const pg_uuid_t *trace_id, int64 task_id,
							 const PromWindow *window, const char *base,
							 const PromSpanPlace *place);
extern bool prom_omitted_is_due(void);

#endif
