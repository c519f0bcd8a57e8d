/*
 * fact.c
 *	  Writes facts about tasks, versions and events: rows and their index
 *	  entries, in batches.
 *
 * Everything that is written about tasks goes through here, by
 * table_multi_insert(), at half the cost of SPI.  That passes over defaults,
 * triggers, foreign keys, row security and privileges: the relations have
 * none of the first four, and the SQL functions check the last themselves.
 * Columns are found by name, so a later version may add some.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/sequence.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/xid8.h"

#include "compat.h"
#include "era.h"
#include "fact.h"

/* Rows of one relation that go to the table at once. */
#define BATCH 256

typedef struct FactRelation
{
	const char *name;
	int ncolumns;
	const char *columns[PROM_FACT_MAX_COLUMNS];

	Oid relid; /* whose attribute numbers these are */
	AttrNumber attnum[PROM_FACT_MAX_COLUMNS];
	AttrNumber xid;
} FactRelation;

/* In the order of PromFactKind and of the enumerations in fact.h. */
static FactRelation relations[PROM_NFACTS] = {
	{.name = "_task",
	 .ncolumns = TASK_COLUMNS,
	 .columns = {"task_id", "event_id", "submitted_at", "run_at", "deadline",
				 "priority", "max_attempts", "submitter_oid", "submitter",
				 "agent", "mode", "trace_id", "traceparent", "request", "metadata",
				 "depends_on", "concurrency_key", "conversation",
				 "output_schema", "parent_id", "parent_step", "depth",
				 "caused_by", "causes", "commission", "evolution"}},
	{.name = "_attempt",
	 .ncolumns = ATTEMPT_COLUMNS,
	 .columns = {"task_id", "attempt", "started_at", "agent_version", "model",
				 "model_version", "tool_versions", "policy_version", "review_ms"}},
	{.name = "_call",
	 .ncolumns = CALL_COLUMNS,
	 .columns = {"call_id", "task_id", "attempt", "turn", "call", "sent_at",
				 "kind", "target", "reserved", "reserved_tokens", "step"}},
	{.name = "_step",
	 .ncolumns = STEP_COLUMNS,
	 .columns = {"task_id", "step", "attempt", "event_id",
				 "call_id", "started_at", "ended_at", "tokens_in",
				 "tokens_out", "cached_tokens", "reasoning_tokens",
				 "http_status", "ambiguous",
				 "connect_ms", "first_byte_ms", "kind", "name",
				 "status", "model", "cost", "finish_reason",
				 "request_id", "error_type", "error", "answer",
				 "raw", "calls", "arguments", "reused", "request_hash", "reply",
				 "tool_version"}},
	{.name = "_outcome",
	 .ncolumns = OUTCOME_COLUMNS,
	 .columns = {"task_id", "attempt", "event_id", "ended_at", "attempts",
				 "step", "next_run_at", "outcome", "error_type", "error"}},
	{.name = "_cancel",
	 .ncolumns = CANCEL_COLUMNS,
	 .columns = {"task_id", "requested_at", "requested_by", "reason"}},
	{.name = "_strike",
	 .ncolumns = STRIKE_COLUMNS,
	 .columns = {"task_id", "attempt", "struck_at"}},
	{.name = "_verdict",
	 .ncolumns = VERDICT_COLUMNS,
	 .columns = {"task_id", "attempt", "step", "event_id", "judged_at",
				 "latency_ms", "approved", "policy_version", "stage", "effect",
				 "risk_level", "governor", "policy", "reasoning", "suggestion",
				 "target_hash", "scores"}},
	{.name = "_approval",
	 .ncolumns = APPROVAL_COLUMNS,
	 .columns = {"approval_id", "task_id", "attempt", "step", "requested_at",
				 "expires_at", "tool", "policy", "approvers", "approvers_oid",
				 "target_hash", "reasoning", "arguments"}},
	{.name = "_state",
	 .ncolumns = STATE_COLUMNS,
	 .columns = {"version", "mark", "base_version", "task_id",
				 "restored_from", "saved_at", "owner_oid", "bytes", "run",
				 "checksum", "codec", "form", "owner", "agent", "key",
				 "frame"}},
	{.name = "_state_failure",
	 .ncolumns = STATE_FAILURE_COLUMNS,
	 .columns = {"task_id", "event_id", "failed_at", "key", "error"}},
	{.name = "_track",
	 .ncolumns = TRACK_COLUMNS,
	 .columns = {"track_id", "layout", "last_column", "relation_oid",
				 "recorded_at", "event", "relation", "reason", "columns",
				 "attnums", "names", "types", "key"}},
	{.name = "_row_version",
	 .ncolumns = ROW_VERSION_COLUMNS,
	 .columns = {"track_id", "version_id", "changed_at", "task_id", "undoes",
				 "step", "layout", "operation", "key", "fields"}},
	{.name = "_event",
	 .ncolumns = EVENT_COLUMNS,
	 .columns = {"event_id", "task_id", "caused_by", "emitted_at", "depth",
				 "emitter_oid", "emitter", "agent", "type", "subject",
				 "data"}},
	{.name = "_span",
	 .ncolumns = SPAN_COLUMNS,
	 .columns = {"span_id", "parent_span_id", "started_at", "ended_at",
				 "task_id", "owner_oid", "trace_id", "owner", "name",
				 "status", "error_type", "traceparent", "attributes"}},
};

typedef struct Batch
{
	ResultRelInfo *result; /* NULL: this relation is not open yet */
	int nslots;            /* rows that wait */
	int made;              /* slots that exist */
	int room;              /* for so many of them */
	TupleTableSlot **slots;
} Batch;

struct PromFactWriter
{
	MemoryContext context;       /* the writer, estate and slots */
	MemoryContext batch_context; /* values of rows; reset after each flush */
	EState *estate;
	FullTransactionId xid;
	Batch batches[PROM_NFACTS];
};

Oid
prom_fact_relation(PromFactKind kind)
{
	Oid namespace = get_namespace_oid("prometheus", true);

	if (!OidIsValid(namespace))
		return InvalidOid;
	return get_relname_relid(relations[kind].name, namespace);
}

static void
find_columns(FactRelation *facts, Oid relid)
{
	for (int i = 0; i < facts->ncolumns; i++)
	{
		facts->attnum[i] = get_attnum(relid, facts->columns[i]);
		if (facts->attnum[i] == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("relation \"prometheus.%s\" has no column \"%s\"",
							facts->name, facts->columns[i]),
					 errhint("The library is newer than the objects in this database: run ALTER EXTENSION prometheus UPDATE.")));
	}
	facts->xid = get_attnum(relid, "xid");
	facts->relid = relid;
}

Oid
prom_fact_require(PromFactKind kind, const AttrNumber **columns)
{
	Oid relid = prom_fact_relation(kind);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"prometheus.%s\" does not exist",
						relations[kind].name),
				 errhint("Run CREATE EXTENSION prometheus in this database.")));
	if (relations[kind].relid != relid)
		find_columns(&relations[kind], relid);
	if (columns != NULL)
		*columns = relations[kind].attnum;
	return relid;
}

static void
open_batch(PromFactWriter *writer, PromFactKind kind)
{
	Batch *batch = &writer->batches[kind];
	Oid relid = prom_fact_require(kind, NULL);
	Relation relation;

	relation = table_open(relid, RowExclusiveLock);
	batch->result = makeNode(ResultRelInfo);

	/* 0: no range table.  A violated constraint looks for columns in it. */
	InitResultRelInfo(batch->result, relation, 0, NULL, 0);
	ExecOpenIndices(batch->result, false);
}

PromFactWriter *
prom_fact_begin(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "prometheus facts",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext before = MemoryContextSwitchTo(context);
	PromFactWriter *writer = palloc0(sizeof(PromFactWriter));

	writer->context = context;
	writer->batch_context = AllocSetContextCreate(context,
												  "prometheus batch of facts",
												  ALLOCSET_DEFAULT_SIZES);
	writer->estate = CreateExecutorState();
	writer->xid = prom_era_xid();
	MemoryContextSwitchTo(before);
	return writer;
}

/* Put the rows that wait into the table, and their entries into its indexes. */
static void
flush_batch(PromFactWriter *writer, Batch *batch)
{
	MemoryContext before = MemoryContextSwitchTo(writer->batch_context);
	Relation relation = batch->result->ri_RelationDesc;

	if (batch->nslots == 1)
		table_tuple_insert(relation, batch->slots[0], GetCurrentCommandId(true),
						   0, NULL);
	else
		table_multi_insert(relation, batch->slots, batch->nslots,
						   GetCurrentCommandId(true), 0, NULL);
	for (int i = 0; i < batch->nslots; i++)
	{
		if (batch->result->ri_NumIndices > 0)
			list_free(prom_insert_index_tuples(batch->result, batch->slots[i],
											   writer->estate));
		ResetPerTupleExprContext(writer->estate);
		ExecClearTuple(batch->slots[i]);
	}
	batch->nslots = 0;
	MemoryContextSwitchTo(before);
}

static void
flush_all(PromFactWriter *writer)
{
	for (int kind = 0; kind < PROM_NFACTS; kind++)
		if (writer->batches[kind].nslots > 0)
			flush_batch(writer, &writer->batches[kind]);
	MemoryContextReset(writer->batch_context);
}

/* Most writers have a few rows of a few kinds. */
static void
grow(Batch *batch)
{
	int room = batch->room == 0 ? 2 : Min(2 * batch->room, BATCH);
	TupleTableSlot **slots = palloc(room * sizeof(TupleTableSlot *));

	if (batch->made > 0)
		memcpy(slots, batch->slots, batch->made * sizeof(TupleTableSlot *));
	batch->room = room;
	batch->slots = slots;
}

/*
 * The values are copied by the table only when the batch is flushed, so they
 * must stay until then: callers keep them in the context of their turn.
 */
void
prom_fact_add(PromFactWriter *writer, PromFactKind kind, const Datum *values,
			  const bool *nulls)
{
	FactRelation *facts = &relations[kind];
	Batch *batch = &writer->batches[kind];
	MemoryContext before = MemoryContextSwitchTo(writer->context);
	TupleTableSlot *slot;

	if (batch->result == NULL)
		open_batch(writer, kind);
	if (batch->nslots == BATCH)
		flush_all(writer);
	if (batch->nslots == batch->made)
	{
		if (batch->made == batch->room)
			grow(batch);
		batch->slots[batch->made] =
			table_slot_create(batch->result->ri_RelationDesc, NULL);
		batch->made++;
	}
	slot = batch->slots[batch->nslots];

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true,
		   slot->tts_tupleDescriptor->natts * sizeof(bool));
	for (int i = 0; i < facts->ncolumns; i++)
	{
		slot->tts_values[facts->attnum[i] - 1] = values[i];
		slot->tts_isnull[facts->attnum[i] - 1] = nulls[i];
	}
	slot->tts_values[facts->xid - 1] = FullTransactionIdGetDatum(writer->xid);
	slot->tts_isnull[facts->xid - 1] = false;
	ExecStoreVirtualTuple(slot);
	if (batch->result->ri_RelationDesc->rd_att->constr)
		ExecConstraints(batch->result, slot, writer->estate);
	batch->nslots++;
	MemoryContextSwitchTo(before);
}

void
prom_fact_flush(PromFactWriter *writer)
{
	flush_all(writer);
	CommandCounterIncrement();
}

/* Later statements of the same transaction see the rows. */
void
prom_fact_end(PromFactWriter *writer)
{
	flush_all(writer);
	for (int kind = 0; kind < PROM_NFACTS; kind++)
	{
		Batch *batch = &writer->batches[kind];

		for (int i = 0; i < batch->made; i++)
			ExecDropSingleTupleTableSlot(batch->slots[i]);
		if (batch->result != NULL)
		{
			ExecCloseIndices(batch->result);
			table_close(batch->result->ri_RelationDesc, NoLock);
		}
	}
	FreeExecutorState(writer->estate);
	MemoryContextDelete(writer->context);
	CommandCounterIncrement();
}

static int64
next_of(const char *sequence)
{
	Oid namespace = get_namespace_oid("prometheus", false);

	return nextval_internal(get_relname_relid(sequence, namespace), false);
}

int64
prom_fact_next_task_id(void)
{
	return next_of("_task_id");
}

int64
prom_fact_next_id(void)
{
	return next_of("_fact_id");
}

int64
prom_fact_next_entry(void)
{
	return next_of("_memory_entry_id");
}

int64
prom_fact_next_row_version(void)
{
	return next_of("_row_version_id");
}

Datum
prom_fact_text(const char *text, bool *isnull)
{
	*isnull = text == NULL;
	return text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}
