/*
 * sampler.c
 *	  Which traces are exported, as prometheus._sampled() decides.
 *
 * A trace may have many trees of tasks, which go one by one, and spans of
 * applications, which go when they are written.  Over all of it is decided once
 * in a request; what is then certain holds for the rest of them, and what is
 * not, for a tree that has nothing in it by which it would be.
 *
 * A trace that is exported for what has happened in it may have parts that came
 * by before that, and were left out; once they were sent, it is in the table
 * prometheus._kept_trace.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"

#include "sampler.h"
#include "trace.h"
#include "xact.h"

typedef struct Decision
{
	pg_uuid_t trace_id;
	int64 task_id; /* one of it; 0: not known */
	bool is_certain;
	bool is_sampled;
	bool by_head; /* it would be anyway */
	bool is_kept; /* nothing was left out, or it was sent */
	bool is_new;  /* which is not recorded yet */
	bool has_threshold;
	char threshold[PROM_TRACE_THRESHOLD_SIZE];
} Decision;

struct PromSampler
{
	HTAB *known;
};

static PromStatement tasks_statement = {
	"SELECT pg_catalog.array_agg(t.task_id)"
	" FROM prometheus._trace_tasks($1) t (task_id)",
	1,
	{INT8OID},
	NULL,
};

static PromStatement task_statement = {
	"SELECT prometheus._task_of_trace($1)",
	1,
	{UUIDOID},
	NULL,
};

static PromStatement sampled_statement = {
	"SELECT s.is_certain, s.is_sampled, s.th, s.by_head,"
	" EXISTS (SELECT FROM prometheus._kept_trace k WHERE k.trace_id = $2)"
	" FROM prometheus._sampled($1, $2) s",
	2,
	{INT8ARRAYOID, UUIDOID},
	NULL,
};

static PromStatement record_statement = {
	"INSERT INTO prometheus._kept_trace (trace_id, kept_at)"
	" SELECT t.trace_id, clock_timestamp() FROM unnest($1) t (trace_id)"
	" ON CONFLICT (trace_id) DO NOTHING",
	1,
	{UUIDARRAYOID},
	NULL,
};

PromSampler *
prom_sampler_begin(void)
{
	PromSampler *sampler = palloc(sizeof(PromSampler));
	HASHCTL control = {
		.keysize = sizeof(pg_uuid_t),
		.entrysize = sizeof(Decision),
		.hcxt = CurrentMemoryContext,
	};

	sampler->known = hash_create("prometheus sampler", 256, &control,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return sampler;
}

/* As these tasks are. */
static void
look(Datum tasks, Decision *decision)
{
	const char *threshold;
	Datum values[2];

	values[0] = tasks;
	values[1] = UUIDPGetDatum(&decision->trace_id);
	prom_statement_run(&sampled_statement, values, NULL, false);
	if (SPI_processed == 0)
		return;
	decision->is_certain = prom_row_bool(0, 1);
	decision->is_sampled = prom_row_bool(0, 2);
	threshold = prom_row_text_or_null(0, 3);
	decision->has_threshold = threshold != NULL;
	if (threshold != NULL)
		strlcpy(decision->threshold, threshold, sizeof(decision->threshold));
	decision->by_head = prom_row_bool(0, 4);
	decision->is_kept = prom_row_bool(0, 5);
	SPI_freetuptable(SPI_tuptable);
}

/* All that there is of the trace; else what is given. */
static Datum
find_tasks(int64 task_id, Datum otherwise)
{
	Datum value = Int64GetDatum(task_id);
	Datum tasks;
	bool isnull;

	prom_statement_run(&tasks_statement, &value, NULL, false);
	tasks = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						  &isnull);
	return isnull ? otherwise : tasks;
}

static Decision *
keep_decision(PromSampler *sampler, const Decision *decision)
{
	Decision *known = hash_search(sampler->known, &decision->trace_id,
								  HASH_ENTER, NULL);

	*known = *decision;
	return known;
}

static void
tell(const Decision *known, PromSampled *sampled)
{
	sampled->is_sampled = known->is_sampled;
	sampled->has_omitted = known->is_certain && !known->by_head &&
						   !known->is_kept;
	sampled->trace_state = known->has_threshold
							   ? psprintf("ot=th:%s", known->threshold)
							   : NULL;
}

void
prom_sampler_tree(PromSampler *sampler, const pg_uuid_t *trace_id,
				  Datum tasks, int64 task_id, PromSampled *sampled)
{
	Decision *known = hash_search(sampler->known, trace_id, HASH_FIND, NULL);
	Decision decision = {.trace_id = *trace_id, .task_id = task_id};

	if (known == NULL)
	{
		look(find_tasks(task_id, tasks), &decision);
		known = keep_decision(sampler, &decision);
	}
	else if (!known->is_certain)
	{
		look(tasks, &decision);
		/* By the id it is sampled as all of it was. */
		decision.by_head = known->by_head;
		if (decision.is_certain)
			known = keep_decision(sampler, &decision);
	}
	tell(known, sampled);
}

void
prom_sampler_span(PromSampler *sampler, const pg_uuid_t *trace_id,
				  int64 *task_id, PromSampled *sampled)
{
	Decision *known = hash_search(sampler->known, trace_id, HASH_FIND, NULL);
	Decision decision = {.trace_id = *trace_id};
	Datum none = PointerGetDatum(prom_int8_array(NULL, 0));
	Datum value = UUIDPGetDatum(trace_id);

	if (known == NULL)
	{
		prom_statement_run(&task_statement, &value, NULL, false);
		decision.task_id = prom_row_int64_or(0, 1, 0);
		SPI_freetuptable(SPI_tuptable);
		look(decision.task_id == 0 ? none : find_tasks(decision.task_id, none),
			 &decision);
		known = keep_decision(sampler, &decision);
	}
	*task_id = known->task_id;
	tell(known, sampled);
}

void
prom_sampler_keep(PromSampler *sampler, const pg_uuid_t *trace_id)
{
	bool found;
	Decision *known = hash_search(sampler->known, trace_id, HASH_ENTER,
								  &found);

	if (!found)
	{
		memset(known, 0, sizeof(*known));
		known->trace_id = *trace_id;
	}
	known->is_kept = known->is_new = true;
}

void
prom_sampler_record(const PromSampler *sampler)
{
	long n = hash_get_num_entries(sampler->known);
	Datum *ids = palloc((n + 1) * sizeof(Datum));
	HASH_SEQ_STATUS status;
	Decision *known;
	Datum value;

	n = 0;
	hash_seq_init(&status, sampler->known);
	while ((known = hash_seq_search(&status)) != NULL)
		if (known->is_new)
			ids[n++] = UUIDPGetDatum(&known->trace_id);
	if (n == 0)
		return;
	value = PointerGetDatum(construct_array(ids, n, UUIDOID, UUID_LEN, false,
											TYPALIGN_CHAR));
	prom_statement_run(&record_statement, &value, NULL, false);
}
