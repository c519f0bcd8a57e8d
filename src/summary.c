/*
 * summary.c
 *	  Saves what an agent has done last as a state of it.
 *
 * The state belongs to who submitted the task; its key is for this alone, so
 * nobody else writes it and the caller never waits for anybody.  It is saved
 * in the transaction that completes the task.  When that completes several of
 * one agent and submitter, only the last is saved: the others would never have
 * been seen by anybody.
 *
 * All of a transaction are read and saved in one subtransaction.  If it fails
 * each is tried in its own, and what still fails becomes a fact; the answers
 * stand.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "fact.h"
#include "fault.h"
#include "state.h"
#include "summary.h"
#include "xact.h"

typedef struct Summary
{
	int64 task_id;
	PromStateKey key;
	Jsonb *value;
} Summary;

typedef struct Noted
{
	int64 task_id;
	uint64 whose;
} Noted;

/* In the memory of the turn. */
static Noted *noted;
static int nnoted;
static int room;

void
prom_summary_begin(void)
{
	noted = NULL;
	nnoted = room = 0;
}

uint64
prom_summary_hash(const char *agent, const char *submitter, Oid submitter_oid)
{
	uint64 hash = hash_bytes_extended((const unsigned char *) agent,
									  strlen(agent), submitter_oid);

	return hash_bytes_extended((const unsigned char *) submitter,
							   strlen(submitter), hash);
}

/* Mostly it is whose the last one is. */
void
prom_summary_note(int64 task_id, uint64 whose)
{
	for (int i = nnoted - 1; i >= 0; i--)
	{
		if (noted[i].whose != whose)
			continue;
		noted[i].task_id = task_id;
		return;
	}
	if (nnoted == room)
	{
		room = room == 0 ? 16 : 2 * room;
		noted = noted == NULL ? palloc(room * sizeof(Noted))
							  : repalloc(noted, room * sizeof(Noted));
	}
	noted[nnoted].task_id = task_id;
	noted[nnoted++].whose = whose;
}

static PromStatement statement = {
	"SELECT t.task_id, t.submitter, t.submitter_oid, t.agent,"
	" jsonb_strip_nulls(jsonb_build_object('task_id', t.task_id,"
	"  'request', left(t.request, 200), 'result', left(a.answer, 200),"
	"  'steps', s.steps, 'attempts', o.attempts, 'tokens_in', s.tokens_in,"
	"  'tokens_out', s.tokens_out, 'cost', s.cost, 'ended_at', o.ended_at))"
	" FROM unnest($1) AS u(task_id)"
	" JOIN prometheus._task t ON t.task_id = u.task_id"
	" CROSS JOIN LATERAL (SELECT x.attempts, x.step, x.ended_at"
	"   FROM prometheus._outcome x WHERE x.task_id = t.task_id"
	"   ORDER BY x.attempt DESC LIMIT 1) o"
	" CROSS JOIN LATERAL (SELECT count(*) AS steps,"
	"   sum(x.tokens_in) AS tokens_in, sum(x.tokens_out) AS tokens_out,"
	"   sum(x.cost) AS cost"
	"   FROM prometheus._step x WHERE x.task_id = t.task_id) s"
	" LEFT JOIN LATERAL (SELECT x.answer FROM prometheus._step x"
	"   WHERE x.task_id = t.task_id AND x.step = o.step) a ON true"
	" CROSS JOIN LATERAL (SELECT x.options FROM prometheus._agent x"
	"   WHERE x.name = t.agent ORDER BY x.version DESC LIMIT 1) g"
	" WHERE g.options -> 'summary' IS DISTINCT FROM 'false'"
	"   AND coalesce(t.evolution ->> 'role', 'attempt') = 'attempt'",
	1,
	{INT8ARRAYOID},
	NULL,
};

/* Of those whose agents want one. */
static Summary *
read_summaries(const int64 *task_ids, int ntasks, int *n)
{
	Datum argument = PointerGetDatum(prom_int8_array(task_ids, ntasks));
	Summary *summaries;

	prom_statement_run(&statement, &argument, NULL, false);
	*n = SPI_processed;
	summaries = palloc(Max(*n, 1) * sizeof(Summary));
	for (int i = 0; i < *n; i++)
	{
		summaries[i].task_id = prom_row_int64(i, 1);
		summaries[i].key.owner = prom_row_text(i, 2);
		summaries[i].key.owner_oid = prom_row_oid(i, 3);
		summaries[i].key.agent = prom_row_text(i, 4);
		summaries[i].key.key = PROM_STATE_SUMMARY;
		summaries[i].value = prom_row_jsonb_or_null(i, 5);
	}
	SPI_freetuptable(SPI_tuptable);
	return summaries;
}

static void
save(const int64 *task_ids, int ntasks)
{
	int n;
	Summary *summaries = read_summaries(task_ids, ntasks, &n);

	for (int i = 0; i < n; i++)
	{
		PromStateChange change = {.value = summaries[i].value,
								  .expected = PROM_STATE_ANY,
								  .task_id = summaries[i].task_id,
								  .is_summary = true};

		(void) prom_state_save(&summaries[i].key, &change);
		PROM_FAULT("in-summary");
	}
}

typedef struct Saving
{
	const int64 *task_ids;
	int n;
} Saving;

static void
do_save(void *arg)
{
	const Saving *saving = arg;

	save(saving->task_ids, saving->n);
}

/* In a subtransaction; the error, or NULL. */
static const char *
try(const int64 *task_ids, int n)
{
	Saving saving = {task_ids, n};
	ErrorData *failure = prom_xact_try(do_save, &saving);

	return failure == NULL ? NULL : failure->message;
}

static void
add_failure(PromFactWriter *writer, int64 task_id, const char *error,
			TimestampTz now)
{
	Datum values[STATE_FAILURE_COLUMNS];
	bool nulls[STATE_FAILURE_COLUMNS] = {false};

	ereport(LOG, (errmsg("state \"%s\" of task %lld is not saved: %s",
						 PROM_STATE_SUMMARY, (long long) task_id, error)));
	values[STATE_FAILURE_TASK_ID] = Int64GetDatum(task_id);
	values[STATE_FAILURE_EVENT_ID] = Int64GetDatum(prom_fact_next_id());
	values[STATE_FAILURE_FAILED_AT] = TimestampTzGetDatum(now);
	values[STATE_FAILURE_KEY] = CStringGetTextDatum(PROM_STATE_SUMMARY);
	values[STATE_FAILURE_ERROR] = CStringGetTextDatum(error);
	prom_fact_add(writer, PROM_FACT_STATE_FAILURE, values, nulls);
}

static void
save_each(const int64 *task_ids, int n, TimestampTz now)
{
	PromFactWriter *writer = prom_fact_begin();

	for (int i = 0; i < n; i++)
	{
		const char *error = try(&task_ids[i], 1);

		if (error != NULL)
			add_failure(writer, task_ids[i], error, now);
	}
	prom_fact_end(writer);
}

void
prom_summary_save(TimestampTz now)
{
	int64 *task_ids;

	if (nnoted == 0)
		return;
	task_ids = palloc(nnoted * sizeof(int64));
	for (int i = 0; i < nnoted; i++)
		task_ids[i] = noted[i].task_id;
	if (try(task_ids, nnoted) != NULL)
		save_each(task_ids, nnoted, now);
}
